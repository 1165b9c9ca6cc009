"""Reads a connection without ever waiting: the lowest latency that one core, spent whole, can buy."""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t

cdef extern from "clock.h" nogil:
    int64_t jvq_clock_ns()

cdef extern from "spin.h" nogil:
    enum:
        JVQ_SPIN_NOTHING
        JVQ_SPIN_ENDED
    Py_ssize_t jvq_spin(int fd, void *to, size_t room, int64_t until)

__all__ = ["Spinner"]

# So long the loop waits for its turn at most. Its turn, in which nothing is read, takes it some 1 to 5 us.
cdef int64_t BURST = 100_000


@cython.final
cdef class Spinner:
    """Takes a plain socket's reading over from its transport, in bursts between which the loop has its turn.

    The interpreter is free for other threads while there is nothing to read. At the end of the connection reading is
    given back, so that the transport sees that end as it always does. `start` and `stop` belong to the loop's thread.
    """

    def __cinit__(self, loop, transport, int fd):
        protocol = transport.get_protocol()
        self.transport = transport
        self.get_buffer, self.buffer_updated = protocol.get_buffer, protocol.buffer_updated
        self.call_soon = loop.call_soon
        self.fd = fd

    def start(self):
        """Read from the loop's next turn on."""
        self.is_spinning = True
        self.call_soon(self.begin)

    def stop(self):
        """Read no more: the connection is gone."""
        self.is_spinning = False

    def begin(self):
        if self.goes_on():
            self.transport.pause_reading()
            self.burst()

    def burst(self):
        cdef Py_buffer buffer
        cdef Py_ssize_t size
        if not self.goes_on():
            return
        PyObject_GetBuffer(self.get_buffer(-1), &buffer, PyBUF_WRITABLE)
        with nogil:
            size = jvq_spin(self.fd, buffer.buf, buffer.len, jvq_clock_ns() + BURST)
        PyBuffer_Release(&buffer)
        if size == JVQ_SPIN_ENDED:
            self.is_spinning = False
            self.transport.resume_reading()
            return
        if size != JVQ_SPIN_NOTHING:
            try:
                self.buffer_updated(size)
            except BaseException:
                self.transport.abort()
                raise
        self.call_soon(self.burst)

    cdef bint goes_on(self) except -1:
        # What is closing is read no more, as a loop would do it; its descriptor may soon be another file's.
        if self.is_spinning and self.transport.is_closing():
            self.is_spinning = False
        return self.is_spinning
