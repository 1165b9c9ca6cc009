"""Handlers written in Cython: they are called with pointers into the rings, and no Python object is made for it."""

__all__ = ["Handler"]


cdef class Handler:
    """The base of a handler written in Cython: override what is to be called, and register it as any other handler.

        from jvq_fast.native cimport Handler, Trade

        cdef class Volume(Handler):
            cdef readonly long long total
            cdef int on_trades(self, const Trade *trades, Py_ssize_t count) except -1:
                cdef Py_ssize_t i
                for i in range(count):
                    self.total += trades[i].volume
                return 0

        feed.on_trades(Volume())

    Each call brings the ``count`` records of one row, all of one code, oldest first, with the GIL held, on the thread
    that decodes. The pointer is good during the call: the tape overwrites the records later, so copy what you keep.
    What a method raises goes where exceptions of other handlers go; one that returns -1 without an exception is a
    SystemError. One that is registered for an event and does not override its method, in Cython, raises
    NotImplementedError.

    The layout of this class and of the records may change between releases: compile again after an upgrade.
    """

    cdef int on_trades(self, const Trade *trades, Py_ssize_t count) except? -1:
        raise NotImplementedError(f"{type(self).__name__} is registered for on_trades, not overridden in Cython")

    cdef int on_quotes(self, const Quote *quotes, Py_ssize_t count) except? -1:
        raise NotImplementedError(f"{type(self).__name__} is registered for on_quotes, not overridden in Cython")

    cdef int on_depths(self, const Depth *depths, Py_ssize_t count) except? -1:
        raise NotImplementedError(f"{type(self).__name__} is registered for on_depths, not overridden in Cython")
