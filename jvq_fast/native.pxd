from libc.stdint cimport int64_t, uint32_t, uint64_t

# The records as they stand in the rings; docs/records.md says what the fields are. Needs no header to be compiled.

ctypedef struct Trade:
    uint64_t seq
    int64_t time
    int64_t recv
    char code[8]                # zero-padded
    int64_t id
    double price
    int64_t volume
    uint32_t flags
    uint32_t zero               # padding

ctypedef struct Quote:
    uint64_t seq
    int64_t time
    int64_t recv
    char code[8]
    double price
    double change
    double amount
    int64_t volume
    uint32_t flags
    uint32_t zero
    double bid_price[5]
    int64_t bid_volume[5]
    double ask_price[5]
    int64_t ask_volume[5]

ctypedef struct Depth:
    uint64_t seq
    int64_t time
    int64_t recv
    char code[8]
    double price
    double last_close
    double amount
    int64_t volume
    double change
    uint32_t flags
    uint32_t zero
    double bid_price[10]
    int64_t bid_volume[10]
    double ask_price[10]
    int64_t ask_volume[10]


cdef class Handler:
    cdef int on_trades(self, const Trade *trades, Py_ssize_t count) except? -1
    cdef int on_quotes(self, const Quote *quotes, Py_ssize_t count) except? -1
    cdef int on_depths(self, const Depth *depths, Py_ssize_t count) except? -1
