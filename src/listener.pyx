"""From socket to decoder: WebSocket frames become whole messages, and go to the `Decoder` without being copied."""

import asyncio

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy
from picows.picows cimport WSFrame, WSListener, WSMsgType, WSTransport

from jvq_fast.decoder cimport Decoder


cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        long long tv_sec
        long tv_nsec
    int timespec_get(timespec *now, int base)
    int TIME_UTC


# How a capture file writes its entries; jvq_fast/capture.py reads them and says what the fields are.
cdef enum:
    ENTRY_HEADER = 20
    ENTRY_MAGIC = 0x51A7
    ENTRY_MESSAGE = 1
    ENTRY_CONNECT = 2
    ENTRY_RECONNECT = 3
    ENTRY_END_OF_READ = 4
    ENTRY_LOST = 5
    ENDS_READ = 1

# A peer that is sent a CLOSE and an RST at once may never see the CLOSE.
cdef double DISCONNECT_DELAY = 0.01

cdef uint32_t[256] CRC_TABLE


cdef void fill_crc_table() noexcept nogil:
    cdef uint32_t value
    cdef int byte, _bit
    for byte in range(256):
        value = <uint32_t>byte
        for _bit in range(8):
            value = (value >> 1) ^ (0xEDB88320U if value & 1 else 0U)
        CRC_TABLE[byte] = value


fill_crc_table()


cdef uint32_t crc32(const uint8_t *data, Py_ssize_t size) noexcept nogil:
    cdef uint32_t value = 0xFFFFFFFFU
    cdef Py_ssize_t i
    for i in range(size):
        value = (value >> 8) ^ CRC_TABLE[(value ^ data[i]) & 0xFF]
    return value ^ 0xFFFFFFFFU


cdef void put(uint8_t *at, uint64_t value, int width) noexcept nogil:
    cdef int i
    for i in range(width):
        at[i] = <uint8_t>(value >> (8 * i))


cdef uint32_t get32(const uint8_t *at) noexcept nogil:
    return at[0] | (<uint32_t>at[1] << 8) | (<uint32_t>at[2] << 16) | (<uint32_t>at[3] << 24)


cdef void seal(uint8_t *data, Py_ssize_t size) noexcept nogil:
    """Give every entry its checksum."""
    cdef Py_ssize_t at = 0, whole
    while at < size:
        whole = ENTRY_HEADER + <Py_ssize_t>get32(data + at + 4)
        put(data + at, crc32(data + at + 4, whole - 4), 4)
        at += whole


cdef bint may_close(int code) noexcept:
    """Whether a CLOSE may hold this code. picows lets 0 and 1006 pass, and whatever lies above 2999."""
    return 1000 <= code < 5000 and not 1004 <= code <= 1006


cdef int64_t clock_ns() noexcept nogil:
    cdef timespec now
    timespec_get(&now, TIME_UTC)
    return <int64_t>now.tv_sec * 1_000_000_000 + now.tv_nsec


@cython.final
cdef class Tap:
    """What a capture records, between the data path, which appends, and the writer's thread, which takes.

    At most `limit` bytes are held, those under way to the disk included; messages beyond that are dropped, counted in
    `lost_messages` and `lost_bytes`, and followed by an entry that says so. Appending belongs to the loop's thread,
    `take()` to the writer's.
    """

    def __cinit__(self, Py_ssize_t limit):
        if limit < 4096:
            raise ValueError(f"a capture needs a limit of at least 4096 bytes, not {limit}")
        self.limit = limit
        self.room = self.taken_room = min(limit, 1 << 20)
        self.data = <uint8_t *>malloc(self.room)
        self.taken = <uint8_t *>malloc(self.taken_room)
        if self.data == NULL or self.taken == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.data)
        free(self.taken)

    @property
    def held(self):
        """Bytes in memory that are not known to be on disk."""
        return self.size + self.taken_size

    def connect(self, bint again):
        """Record that a connection begins: the first of a decoder, or one `again`."""
        if self.unmarked_messages:
            self.append_loss(clock_ns())
        if not self.append(ENTRY_RECONNECT if again else ENTRY_CONNECT, 0, clock_ns(), NULL, 0):
            raise MemoryError

    def take(self):
        """All entries appended since the last call, or None. Entries of the call before count as written.

        Messages that were dropped are marked behind them, also where no further message comes. After a MemoryError
        nothing has changed.
        """
        cdef uint8_t *data
        cdef Py_ssize_t size, room
        cdef bytes entries
        cdef char *to
        if self.unmarked_messages:
            self.append_loss(clock_ns())
        size = self.size
        entries = PyBytes_FromStringAndSize(NULL, size)
        to = PyBytes_AS_STRING(entries)
        data, room = self.data, self.room
        self.data, self.size, self.room = self.taken, 0, self.taken_room
        self.taken, self.taken_size, self.taken_room = data, size, room
        if size == 0:
            return None
        with nogil:
            seal(data, size)
            memcpy(to, data, size)
        return entries

    cdef bint message(self, bint ends_read, int64_t recv_ns, const uint8_t *payload, Py_ssize_t size) noexcept:
        cdef Py_ssize_t need = 2 * ENTRY_HEADER + 16 + size
        if (self.size + self.taken_size + need <= self.limit
                and (self.unmarked_messages == 0 or self.append_loss(recv_ns))
                and self.append(ENTRY_MESSAGE, ENDS_READ if ends_read else 0, recv_ns, payload, size)):
            self.messages += 1
            return True
        self.unmarked_messages += 1
        self.unmarked_bytes += <uint64_t>size
        self.lost_messages += 1
        self.lost_bytes += <uint64_t>size
        return False

    cdef void end_read(self, int64_t recv_ns) noexcept:
        # After a loss there is no telling which messages the mark would end; the loss entry ends the read instead.
        if self.unmarked_messages == 0:
            self.append(ENTRY_END_OF_READ, 0, recv_ns, NULL, 0)

    cdef bint append_loss(self, int64_t recv_ns) noexcept:
        cdef uint8_t[16] payload
        put(payload, self.unmarked_messages, 8)
        put(payload + 8, self.unmarked_bytes, 8)
        if not self.append(ENTRY_LOST, 0, recv_ns, payload, 16):
            return False
        self.unmarked_messages = self.unmarked_bytes = 0
        return True

    cdef bint append(self, int kind, int flags, int64_t recv_ns, const uint8_t *payload, Py_ssize_t size) noexcept:
        cdef uint8_t *at
        if not self.reserve(ENTRY_HEADER + size):
            return False
        at = self.data + self.size
        put(at + 4, <uint64_t>size, 4)
        put(at + 8, <uint64_t>recv_ns, 8)
        at[16] = <uint8_t>kind
        at[17] = <uint8_t>flags
        put(at + 18, ENTRY_MAGIC, 2)
        if size:
            memcpy(at + ENTRY_HEADER, payload, size)
        self.size += ENTRY_HEADER + size
        return True

    cdef bint reserve(self, Py_ssize_t more) noexcept:
        cdef Py_ssize_t room = self.room
        cdef uint8_t *data
        if self.size + more <= room:
            return True
        while room < self.size + more:
            room *= 2
        data = <uint8_t *>realloc(self.data, room)
        if data == NULL:
            return False
        self.data = data
        self.room = room
        return True


@cython.final
cdef class Listener(WSListener):
    """One connection's frames: reassembled, checked where picows does not check, and fed to `decoder`.

    `owner` is called on the loop's thread: `opened(transport)`, `text(str)`, `ending()` once this side has begun to
    close, `pong(bytes)` to answer a PING that could not be answered when it came, `closed()` when the connection is
    gone, and is then forgotten; it may be set until the connection opens. What must end the feed (a KeyboardInterrupt
    in a callback, say) is kept in `fatal`; `reason` says why this side closed, `message_ns` when the last binary
    message arrived.
    Connect with `enable_auto_pong=False`: picows keeps a PING that it answers to itself, and with it the mark that
    the socket read ends.
    """

    def __cinit__(self, Decoder decoder not None, owner, Tap tap=None, Py_ssize_t max_message=10 * 1024 * 1024):
        self.decoder = decoder
        self.owner = owner
        self.tap = tap
        self.max_message = max_message
        self.read_starts = True
        self.reason = ""

    def __dealloc__(self):
        free(self.parts)

    def quit(self):
        """Take no further frame, also of the read under way. From any thread."""
        self.closing = True

    def answer_close(self, transport):
        """Answer a CLOSE that was read but not handed on yet: nothing after it changes the answer. Loop's thread."""
        handshake = transport.close_handshake
        if handshake is None or handshake.recv is None:
            return
        code = handshake.recv.code or 1000
        if may_close(code):
            transport.send_close(code)

    cpdef on_ws_connected(self, WSTransport transport):
        try:
            self.owner.opened(transport)
        except BaseException as error:
            self._die(transport, error)

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        try:
            if self.closing:
                self.finish_read()
                return
            if self.read_starts:
                self.read_starts = False
                self.read_ns = clock_ns()
                if self.decoder.timer is not None:
                    self.decoder.timer.begin_read(self.read_ns, True)
                # At an illegal frame picows closes, yet hands on what arrives until it has disconnected. The good frame
                # before the illegal one comes afterwards too, but that one is the last of its read, and the head of the
                # illegal one stands behind it.
                if ((not frame.last_in_buffer or frame.tail_size < 2)
                        and (<object>transport).is_close_frame_sent):
                    self.closing = True
                    return
            if frame.payload_size > self.max_message:
                self.closing = True
                self.finish_read()
                return
            self.frames += 1
            self.take_frame(transport, frame)
            if frame.last_in_buffer or self.closing:
                self.finish_read()
                if (<object>transport).is_close_frame_sent:
                    self.closing = True
        except BaseException as error:
            self._die(transport, error)

    cpdef on_ws_disconnected(self, WSTransport transport):
        self.closing = True
        if self.decoder.timer is not None:
            self.decoder.timer.abandon_read()
        owner, self.owner = self.owner, None
        owner.closed()

    cpdef pause_writing(self):
        self.is_writing_paused = True

    cpdef resume_writing(self):
        self.is_writing_paused = False
        data, self.unanswered = self.unanswered, None
        if data is not None and self.owner is not None:
            self.owner.pong(data)

    def _die(self, transport, error):
        # Loops differ in what they do with an exception of a protocol; out of the feed's own coroutine it gets
        # through all of them.
        self.closing = True
        self.fatal = error
        self.reason = "a callback ended the feed"
        self.owner.ending()
        transport.disconnect()

    cdef int take_frame(self, object transport, WSFrame frame) except -1:
        cdef const uint8_t *payload = <const uint8_t *>frame.payload_ptr
        cdef int kind = frame.msg_type
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            return self.refuse(transport, 1002, "reserved bits are set")
        if kind == WSMsgType.BINARY or kind == WSMsgType.TEXT:
            if self.open_type:
                return self.refuse(transport, 1002, "a data frame inside a fragmented message")
            if frame.fin:
                return self.take_data(transport, kind, payload, frame.payload_size, frame.last_in_buffer)
            self.open_type = kind
            self.parts_size = 0
            return self.take_fragment(transport, frame)
        if kind == WSMsgType.CONTINUATION:
            if not self.open_type:
                return self.refuse(transport, 1002, "a continuation of nothing")
            return self.take_fragment(transport, frame)
        if kind == WSMsgType.PING:
            self.pings += 1
            data = PyBytes_FromStringAndSize(<const char *>payload, frame.payload_size)
            if self.is_writing_paused:
                # RFC 6455, 5.5.3: the latest is answered, and a peer that reads nothing fills no memory.
                self.unanswered = data
            else:
                transport.send_pong(data)
            return 0
        if kind == WSMsgType.PONG:
            self.pongs += 1
            return 0
        if kind == WSMsgType.CLOSE:
            return self.take_close(transport, payload, frame.payload_size)
        return 0

    cdef int take_data(self, object transport, int kind, const uint8_t *payload, Py_ssize_t size,
                       bint last) except -1:
        cdef str text
        if kind == WSMsgType.BINARY:
            self.messages += 1
            self.message_ns = self.read_ns
            self.unended = True
            if self.tap is not None:
                self.end_recorded = self.tap.message(last, self.read_ns, payload, size) and last
            self.decoder.feed_message(payload, size, self.read_ns)
            return 0
        self.texts += 1
        try:
            text = PyUnicode_DecodeUTF8(<const char *>payload, size, NULL)
        except UnicodeDecodeError:
            return self.refuse(transport, 1007, "a text that is not UTF-8")
        self.owner.text(text)
        return 0

    cdef int take_fragment(self, object transport, WSFrame frame) except -1:
        cdef Py_ssize_t need = self.parts_size + frame.payload_size
        cdef Py_ssize_t room
        cdef uint8_t *parts
        cdef int kind = self.open_type
        self.fragments += 1
        if need > self.max_message:
            return self.refuse(transport, 1009, f"a message of more than {self.max_message} bytes")
        if need > self.parts_room:
            room = min(max(2 * need, 65536), self.max_message)
            parts = <uint8_t *>realloc(self.parts, room)
            if parts == NULL:
                raise MemoryError
            self.parts = parts
            self.parts_room = room
        if frame.payload_size:
            memcpy(self.parts + self.parts_size, frame.payload_ptr, frame.payload_size)
        self.parts_size = need
        if not frame.fin:
            return 0
        self.open_type = 0
        return self.take_data(transport, kind, self.parts, need, frame.last_in_buffer)

    cdef int take_close(self, object transport, const uint8_t *payload, Py_ssize_t size) except -1:
        cdef int code = 1000
        cdef str said = ""
        if size >= 2:
            code = payload[0] << 8 | payload[1]
            if not may_close(code):
                return self.refuse(transport, 1002, f"a CLOSE with code {code}")
            said = PyUnicode_DecodeUTF8(<const char *>payload + 2, size - 2, "replace")
        self.closing = self.is_closed_by_peer = True
        self.reason = f"the server closed the connection: {code} {said}".rstrip()
        transport.send_close(code)
        self.owner.ending()
        transport.disconnect()
        return 0

    cdef int finish_read(self) except -1:
        self.read_starts = True
        if not self.unended:
            if self.decoder.timer is not None:
                self.decoder.timer.end_read()
            return 0
        self.unended = False
        if self.tap is not None and not self.end_recorded:
            self.tap.end_read(self.read_ns)
        self.decoder.end_read()
        return 0

    cdef int refuse(self, object transport, int code, str reason) except -1:
        self.closing = True
        self.reason = f"protocol error of the server: {reason}"
        transport.send_close(code, reason)
        self.owner.ending()
        asyncio.get_running_loop().call_later(DISCONNECT_DELAY, transport.disconnect)
        return 0
