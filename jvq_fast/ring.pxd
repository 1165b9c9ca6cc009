from libc.stdint cimport uint8_t, uint32_t, uint64_t
from numpy cimport ndarray

from jvq_fast.meter cimport Histogram


cdef extern from "ring.h" nogil:
    ctypedef struct jvq_ring:
        uint8_t *storage
        uint64_t head
        uint64_t claimed
        uint64_t capacity
        uint32_t itemsize
        bint is_tape
    size_t jvq_ring_bytes(const jvq_ring *ring)
    const uint8_t *jvq_ring_at(const jvq_ring *ring, uint64_t index, uint64_t head)
    uint64_t jvq_ring_copy(const jvq_ring *ring, uint64_t first, uint64_t head, void *target)
    void jvq_ring_append(jvq_ring *ring, const void *record)
    void jvq_history_prefetch(const jvq_ring *ring, uint32_t bytes, uint32_t itemsize)
    void jvq_publish(jvq_ring *tape, jvq_ring *history, const void *record, uint32_t itemsize)


cdef class Ring:
    cdef jvq_ring *ring         # what is known of it: its own, or with others in the memory of `home`
    cdef jvq_ring own
    cdef object home
    cdef readonly object dtype
    cdef object storage         # owns the memory; the base of every view
    cdef ndarray lent           # to handlers, the last one
    cdef public Histogram readers       # None, or where the distance of readers from the head is counted

    cdef uint64_t check(self, cursor, uint64_t head) except? 0
    cdef void note_distance(self, uint64_t records) noexcept
    cdef void move_to(self, jvq_ring *place, home)
    cdef int take(self) except -1
    cdef void settle(self, ndarray memory)
    cdef ndarray view(self, uint64_t first, uint64_t count)
    cdef ndarray lend(self, uint64_t first, uint64_t count)


cdef int take_together(list rings) except -1
