"""Preallocated numpy storage with one writer and any number of readers that never make it wait."""

cimport cython
cimport numpy as np
from cpython.ref cimport PyObject

from operator import index

import numpy

from jvq_fast.meter cimport jvq_histogram_record

__all__ = ["Ring"]

np.import_array()

cdef extern from "atomics.h" nogil:
    uint64_t jvq_load_acquire(const uint64_t *p)

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewFromDescr(void *subtype, np.dtype descr, int nd, np.npy_intp *dims, np.npy_intp *strides,
                                void *data, int flags, object obj)

    ctypedef struct PyArrayObject_fields:
        char *data
        int nd
        np.npy_intp *dimensions
        np.npy_intp *strides
        PyObject *base
        PyObject *descr
        int flags
        PyObject *weakreflist

cdef extern from "Python.h":
    void Py_INCREF(object)
    Py_ssize_t Py_REFCNT(PyObject *object)

cdef enum:
    CACHE_LINE = 64
    BLOCK = 64 << 20            # bytes; a view that is kept may hold as many
    COPY_WITHOUT_GIL = 65536    # bytes; below, giving up the GIL costs more than the copy

# What numpy makes of a one-dimensional view's flags.
cdef int VIEW_FLAGS = np.NPY_ARRAY_C_CONTIGUOUS | np.NPY_ARRAY_F_CONTIGUOUS | np.NPY_ARRAY_ALIGNED
cdef uint64_t MAX_CAPACITY = 1 << 40
cdef uint64_t MAX_BYTES = 1 << 62


@cython.final
cdef class _Storage:
    """Owns a ring's memory and shows it to nobody: a view with a base that is no array can't be made writable."""
    cdef object memory

    def __cinit__(self, memory):
        self.memory = memory


# Whoever finds it in what is being collected may still ask it, so it keeps the memory that it stands in.
@cython.final
@cython.no_gc_clear
cdef class Ring:
    """The last ``capacity`` records of one dtype, in memory that is taken once.

    Parameters
    ----------
    dtype: a numpy dtype, normally TRADE, QUOTE or DEPTH.
    capacity: records that stay readable. A tape rounds it up to a power of two.
    layout: "tape" writes each record twice, capacity slots apart; "history" writes it once, and moves its last half to
        the front whenever its 2 * capacity slots are full. Either way any run of records is contiguous.

    One thread writes. ``last`` and ``since`` hand out views and belong to that thread (callbacks run there);
    ``head``, ``claimed`` and ``copy_since`` may be used from any thread. A view is read-only, keeps the storage alive
    and is good until the writer laps it, that is until ``capacity`` further records were published: copy what you keep.

    ``readers``: None, or a ``Histogram("records")`` that counts how far behind the head each ``since`` and
    ``copy_since`` begins.
    """

    def __cinit__(self, dtype, capacity, layout="tape"):
        self.dtype = numpy.dtype(dtype)
        if layout not in ("tape", "history"):
            raise ValueError(f"layout must be 'tape' or 'history', not {layout!r}")
        capacity = index(capacity)
        if not 1 <= capacity <= MAX_CAPACITY:
            raise ValueError(f"capacity must be from 1 to 2**40 records, not {capacity!r}")
        if self.dtype.itemsize == 0 or self.dtype.hasobject:
            raise ValueError(f"records of {self.dtype!r} can't stand in a ring")
        if layout == "tape":
            capacity = 1 << (capacity - 1).bit_length()
        if 2 * capacity * self.dtype.itemsize > MAX_BYTES:
            raise ValueError(f"{capacity} records of {self.dtype.itemsize} bytes are more than memory can hold")
        self.ring = &self.own
        self.ring.is_tape = layout == "tape"
        self.ring.capacity = capacity
        self.ring.itemsize = self.dtype.itemsize

    @property
    def layout(self):
        """"tape" or "history"."""
        return "tape" if self.ring.is_tape else "history"

    @property
    def head(self):
        """Records ever published. Any thread."""
        return jvq_load_acquire(&self.ring.head)

    @property
    def claimed(self):
        """``head``, or one more from before the writer touches the next slot until it is published. Any thread."""
        return jvq_load_acquire(&self.ring.claimed)

    @property
    def capacity(self):
        """Records that stay readable."""
        return self.ring.capacity

    @property
    def nbytes(self):
        """Bytes of storage held: 2 * capacity * itemsize, or 0 before the storage was taken."""
        return jvq_ring_bytes(self.ring) if self.ring.storage != NULL else 0

    def __len__(self):
        return min(self.ring.head, self.ring.capacity)

    def __repr__(self):
        return f"Ring({self.layout}, head={self.head}, capacity={self.capacity})"

    def reserve(self):
        """Takes the storage now instead of at the first record. Raises MemoryError; writer's thread."""
        self.take()

    def last(self, n):
        """The newest ``n`` records, oldest first, as a view; all there are where that is fewer. Writer's thread."""
        n = index(n)
        if n < 0:
            raise ValueError(f"last() takes a number of records from 0, not {n}")
        cdef uint64_t count = min(n, self.ring.head, self.ring.capacity)
        return self.view(self.ring.head - count, count)

    def since(self, cursor):
        """Records from number ``cursor`` on: ``(records, cursor, lost)``. Writer's thread.

        ``records`` is a view of what is still there, the new ``cursor`` is for the next call (begin with 0, or with
        ``head`` for news only), ``lost`` counts the records that were overwritten before they were read.
        ValueError where the cursor is negative or ahead of ``head``.
        """
        cdef uint64_t head = self.ring.head
        cdef uint64_t asked = self.check(cursor, head)
        cdef uint64_t first = oldest(asked, head, self.ring.capacity)
        self.note_distance(head - asked)
        return self.view(first, head - first), head, first - asked

    def copy_since(self, cursor):
        """As ``since``, but a copy that no writer changes any more. Any thread."""
        cdef uint64_t head = jvq_load_acquire(&self.ring.head)
        cdef uint64_t asked = self.check(cursor, head)
        cdef uint64_t first = oldest(asked, head, self.ring.capacity)
        cdef uint64_t sound = first
        cdef np.ndarray copy = numpy.empty(head - first, self.dtype)
        cdef size_t size = (head - first) * self.ring.itemsize
        cdef void *target = np.PyArray_DATA(copy)
        self.note_distance(head - asked)
        # what the writer may have touched in the meantime is lost, however it looks
        if size >= COPY_WITHOUT_GIL:
            with nogil:
                sound = jvq_ring_copy(self.ring, first, head, target)
        elif size:
            sound = jvq_ring_copy(self.ring, first, head, target)
        return copy[sound - first:], head, sound - asked

    def append(self, records):
        """Publishes records (an array of the ring's dtype, one or many) one by one. Writer's thread.

        TypeError where the dtype is another one.
        """
        given = numpy.asarray(records).reshape(-1)
        if given.dtype != self.dtype:
            raise TypeError(f"this ring holds records of {self.dtype}, not of {given.dtype}")
        # field by field: the padding of what was given may hold anything
        cdef np.ndarray array = numpy.zeros(given.shape, self.dtype)
        for name in self.dtype.names or ():
            array[name] = given[name]
        if not self.dtype.names:
            array[:] = given
        cdef const uint8_t *record = <const uint8_t *>np.PyArray_DATA(array)
        cdef Py_ssize_t i, count = array.shape[0]
        self.take()
        for i in range(count):
            jvq_ring_append(self.ring, record + i * self.ring.itemsize)

    cdef uint64_t check(self, cursor, uint64_t head) except? 0:
        cursor = index(cursor)
        if not 0 <= cursor <= head:
            raise ValueError(f"cursor {cursor} is outside this ring: {head} records were published so far")
        return cursor

    cdef void note_distance(self, uint64_t records) noexcept:
        # Readers are many, a histogram takes one at a time: they hold the GIL here.
        if self.readers is not None:
            jvq_histogram_record(&self.readers.data, records, 1)

    cdef void move_to(self, jvq_ring *place, home):
        """What is known of the ring stands there from now on, in memory that ``home`` owns. Before the first record."""
        place[0] = self.own
        self.ring = place
        self.home = home

    cdef int take(self) except -1:
        return take_together([self])

    cdef void settle(self, np.ndarray memory):
        cdef size_t address = <size_t>np.PyArray_DATA(memory)
        if self.ring.storage == NULL:       # numpy lets other threads run while it fills
            self.storage = _Storage(memory)
            self.ring.storage = <uint8_t *>((address + CACHE_LINE - 1) & ~<size_t>(CACHE_LINE - 1))

    cdef ndarray view(self, uint64_t first, uint64_t count):
        cdef np.npy_intp length = count
        cdef np.ndarray view
        if count == 0:
            view = numpy.empty(0, self.dtype)
            view.flags.writeable = False
            return view
        Py_INCREF(self.dtype)       # PyArray_NewFromDescr takes one over
        view = PyArray_NewFromDescr(<void *>numpy.ndarray, self.dtype, 1, &length, NULL,
                                    <void *>jvq_ring_at(self.ring, first, self.ring.head),
                                    np.NPY_ARRAY_C_CONTIGUOUS | np.NPY_ARRAY_ALIGNED, None)
        np.set_array_base(view, self.storage)
        return view

    cdef ndarray lend(self, uint64_t first, uint64_t count):
        """``view`` for a handler's call: the array lent before, where nobody kept that and nothing in it was changed.

        Making an array takes longer than all that is done for a small message otherwise.
        """
        cdef PyArrayObject_fields *lent = <PyArrayObject_fields *><PyObject *>self.lent
        if (count and self.lent is not None and Py_REFCNT(<PyObject *>self.lent) == 1 and lent.nd == 1
                and lent.strides[0] == <np.npy_intp>self.ring.itemsize and lent.descr == <PyObject *>self.dtype
                and lent.base == <PyObject *>self.storage and lent.flags == VIEW_FLAGS and lent.weakreflist == NULL):
            lent.data = <char *>jvq_ring_at(self.ring, first, self.ring.head)
            lent.dimensions[0] = count
        else:
            self.lent = self.view(first, count)
        return self.lent


cdef inline uint64_t oldest(uint64_t cursor, uint64_t head, uint64_t capacity) noexcept nogil:
    """The first record from ``cursor`` on that is among the last ``capacity`` before ``head``."""
    return head - capacity if head > capacity and cursor < head - capacity else cursor


cdef int take_together(list rings) except -1:
    """The storage of those that have none, aligned to cache lines, zeroed and touched: a first touch on the data path
    costs microseconds. Thousands of small ones come in blocks, which the system maps in large pages.
    """
    cdef Ring ring
    cdef np.ndarray block
    cdef size_t size, total = 0
    cdef list some = []
    for ring in [*rings, None]:
        size = 0 if ring is None else jvq_ring_bytes(ring.ring) + CACHE_LINE
        if some and (ring is None or total + size > BLOCK):
            block = numpy.empty(total, numpy.uint8)
            block.fill(0)
            total = 0
            for one, length in some:
                (<Ring>one).settle(block[total:total + length])
                total += length
            some.clear()
            total = 0
        if ring is not None and ring.ring.storage == NULL:
            some.append((ring, size))
            total += size
    return 0
