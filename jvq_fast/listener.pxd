from libc.stdint cimport int64_t, uint8_t, uint64_t
from picows.picows cimport WSFrame, WSListener, WSTransport

from jvq_fast.decoder cimport Decoder


cdef class Tap:
    cdef uint8_t *data           # entries appended by the data path
    cdef Py_ssize_t size
    cdef Py_ssize_t room
    cdef uint8_t *taken          # entries that the writer took, held until it comes again
    cdef Py_ssize_t taken_size
    cdef Py_ssize_t taken_room
    cdef Py_ssize_t limit
    cdef uint64_t unmarked_messages
    cdef uint64_t unmarked_bytes
    cdef readonly uint64_t messages
    cdef readonly uint64_t lost_messages
    cdef readonly uint64_t lost_bytes

    cdef bint message(self, bint ends_read, int64_t recv_ns, const uint8_t *payload, Py_ssize_t size) noexcept
    cdef void end_read(self, int64_t recv_ns) noexcept
    cdef bint append(self, int kind, int flags, int64_t recv_ns, const uint8_t *payload, Py_ssize_t size) noexcept
    cdef bint append_loss(self, int64_t recv_ns) noexcept
    cdef bint reserve(self, Py_ssize_t more) noexcept


cdef class Listener(WSListener):
    cdef Decoder decoder
    cdef Tap tap
    cdef public object owner
    cdef uint8_t *parts          # payload of the fragments so far
    cdef Py_ssize_t parts_size
    cdef Py_ssize_t parts_room
    cdef Py_ssize_t max_message
    cdef int open_type           # type of the fragmented message under way, 0 for none
    cdef bint read_starts
    cdef bint unended            # the read held a binary message and end_read() is still due
    cdef bint end_recorded
    cdef int64_t read_ns
    cdef readonly bint closing
    cdef readonly bint is_closed_by_peer        # with a CLOSE
    cdef readonly int64_t message_ns
    cdef readonly str reason
    cdef readonly object fatal
    cdef readonly uint64_t frames
    cdef readonly uint64_t messages
    cdef readonly uint64_t texts
    cdef readonly uint64_t pings
    cdef readonly uint64_t pongs
    cdef bint is_writing_paused
    cdef bytes unanswered
    cdef readonly uint64_t fragments

    cpdef on_ws_connected(self, WSTransport transport)
    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame)
    cpdef on_ws_disconnected(self, WSTransport transport)

    cdef int take_frame(self, object transport, WSFrame frame) except -1
    cdef int take_data(self, object transport, int kind, const uint8_t *payload, Py_ssize_t size,
                       bint last) except -1
    cdef int take_fragment(self, object transport, WSFrame frame) except -1
    cdef int take_close(self, object transport, const uint8_t *payload, Py_ssize_t size) except -1
    cdef int finish_read(self) except -1
    cdef int refuse(self, object transport, int code, str reason) except -1
