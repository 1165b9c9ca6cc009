cdef class Spinner:
    cdef object transport
    cdef object get_buffer
    cdef object buffer_updated
    cdef object call_soon
    cdef int fd
    cdef readonly bint is_spinning

    cdef bint goes_on(self) except -1
