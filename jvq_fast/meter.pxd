from libc.stdint cimport int64_t, uint64_t


cdef extern from "histogram.h" nogil:
    enum:
        JVQ_HISTOGRAM_BUCKETS
    ctypedef struct jvq_histogram:
        uint64_t sum
        uint64_t max
        uint64_t buckets[JVQ_HISTOGRAM_BUCKETS]
    void jvq_histogram_record(jvq_histogram *histogram, uint64_t value, uint64_t times)


cdef extern from "delay.h" nogil:
    ctypedef struct jvq_delay:
        int64_t baseline
        bint is_known
        jvq_histogram *excess
    ctypedef struct jvq_delays:
        jvq_delay levels[3]
        uint64_t late
    void jvq_delays_record(jvq_delays *delays, int level, int64_t time, int64_t recv, uint64_t records)


cdef class Histogram:
    cdef jvq_histogram data
    cdef readonly str unit
    cdef double scale           # one unit, in what is recorded


cdef class Meter:
    cdef jvq_delays delays
    cdef tuple excesses         # Histogram by level
    cdef tuple distances        # of readers, by level
    cdef readonly Histogram dispatch
    cdef readonly Histogram callbacks

    cdef bint is_reading
    cdef bint is_unaccounted    # decoding was going on since `mark`
    cdef bint read_dispatched
    cdef bint message_dispatched
    cdef int depth              # of handlers within handlers
    cdef object running         # the outermost of them, while depth is above 0
    cdef str running_where
    cdef int64_t read_ns        # when the socket read began
    cdef int64_t mark           # up to here all time of the read is accounted for
    cdef int64_t read_callbacks
    cdef int64_t offset         # wall clock less ours
    cdef bint has_offset

    # since take()
    cdef int64_t start
    cdef int64_t called_ns
    cdef int64_t decoded_ns
    cdef uint64_t calls
    cdef uint64_t network       # worst excess
    cdef int64_t network_read   # the read that had it
    cdef int64_t worst_dispatch
    cdef int64_t worst_dispatch_callbacks
    cdef int64_t worst_own
    cdef int64_t slowest
    cdef object slowest_handler
    cdef object slowest_code
    cdef str slowest_where
    # before it
    cdef int64_t called_before
    cdef int64_t decoded_before
    cdef object last            # Interval

    cdef void enter_call(self, handler, str where) noexcept
    cdef void leave_call(self, handler, str where, str code) noexcept
    cdef void begin_read(self, int64_t recv_ns, bint is_live) noexcept
    cdef void begin_message(self) noexcept
    cdef void end_message(self) noexcept
    cdef void begin_dispatch(self) noexcept
    cdef void begin_batch(self) noexcept
    cdef void end_read(self) noexcept
    cdef void abandon_read(self) noexcept
    cdef void forget_delays(self) noexcept
    cdef void called(self, handler, str where, code) noexcept
    cdef void account(self) noexcept
