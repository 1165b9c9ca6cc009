"""The callback of `benchmarks.client` in Cython."""

from cpython.mem cimport PyMem_Free, PyMem_Realloc
from jvq_fast.native cimport Handler, Trade
from libc.stdint cimport int64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec


cdef class Stamps(Handler):
    """Notes the last price, and the monotonic time of every call."""

    cdef readonly double price
    cdef int64_t *stamps
    cdef size_t count
    cdef size_t room

    def __dealloc__(self):
        PyMem_Free(self.stamps)

    def __len__(self):
        return self.count

    def taken(self):
        """All times as bytes, an int64 each."""
        return (<const char *>self.stamps)[:self.count * sizeof(int64_t)] if self.count else b""

    cdef int on_trades(self, const Trade *trades, Py_ssize_t count) except -1:
        cdef timespec now
        cdef int64_t *larger
        if self.count == self.room:
            self.room = 2 * self.room + 1024
            larger = <int64_t *>PyMem_Realloc(self.stamps, self.room * sizeof(int64_t))
            if larger == NULL:
                raise MemoryError
            self.stamps = larger
        self.price = trades[count - 1].price
        clock_gettime(CLOCK_MONOTONIC, &now)
        self.stamps[self.count] = now.tv_sec * 1_000_000_000 + now.tv_nsec
        self.count += 1
        return 0
