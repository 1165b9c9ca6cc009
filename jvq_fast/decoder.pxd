from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from jvq_fast.meter cimport Meter, jvq_delays
from jvq_fast.ring cimport Ring, jvq_ring


cdef extern from "inflate.h" nogil:
    ctypedef struct jvq_inflater:
        pass


cdef extern from "rows.h" nogil:
    ctypedef struct jvq_order:
        bint second
        bint settled
        bint forced


cdef extern from "snapshots.h" nogil:
    ctypedef struct jvq_snapshot_kernels:
        void (*publish_quote)(jvq_ring *tape, jvq_ring *history, const void *record) noexcept nogil
        void (*publish_depth)(jvq_ring *tape, jvq_ring *history, const void *record) noexcept nogil


cdef extern from "trades.h" nogil:
    ctypedef struct jvq_trade_run:
        const uint8_t *cursor
        jvq_ring *tape
        jvq_ring *history
        uint64_t code
        uint64_t seq
        int64_t recv
        int64_t midnight
        int64_t latest
        int64_t fresh_from
        uint32_t flags
        uint64_t stale
        int64_t last_time
        int64_t latest_time_of_day
    ctypedef uint64_t (*jvq_trade_publisher)(jvq_trade_run *run, uint64_t most) noexcept


cdef enum:                      # levels
    TRADES = 0
    QUOTES = 1
    DEPTHS = 2


cdef struct Text:               # bytes that are kept, with room for longer ones
    uint8_t *data
    size_t length
    size_t room


cdef struct Code:               # what is known of one security
    # What every trade needs, in one line of the cache: there are thousands of codes.
    uint64_t key                # its name, zero-padded
    jvq_ring *history[3]        # by level; NULL where that level's history is off
    int64_t last_time           # of the last trade
    int64_t latest_time_of_day  # of any trade
    bint traded
    bint marked                 # from resume() to the first trade that is clearly new

    bint is_renamed             # since the names were last written down
    jvq_ring ring[3]            # by level: its history
    uint64_t met[3]             # by level: the first message with it on this connection, by its number
    Text snapshot[3]            # the last published record of quotes and depths, as it came
    Text name
    uint64_t gap_head           # head, at the gap, of the ring that holds this code's trades
    int64_t gap_time            # last_time at the gap
    int64_t gap_latest          # latest_time_of_day at the gap
    uint8_t rest[32]            # to whole lines


cdef struct Segment:            # a row's records on the tape, waiting for their callbacks
    int level
    int code                    # index, -1 where the code has no entry
    uint64_t first
    uint64_t count


cdef struct Counters:
    uint64_t messages
    uint64_t bytes
    uint64_t inflated_bytes
    uint64_t rows
    uint64_t batches
    uint64_t bad[10]            # records, by jvq_status
    uint64_t bad_messages[5]    # by jvq_inflate_status
    uint64_t inflate_trailing
    uint64_t duplicates
    uint64_t maybe_duplicate
    uint64_t flags[7]           # records, by bit
    uint64_t tape_only
    uint64_t storage_late
    uint64_t callback_errors


cdef enum:
    FAULT_BYTES = 1024


cdef struct Fault:              # a bad record, kept for whoever looks for the reason
    int reason
    size_t length
    uint8_t data[FAULT_BYTES]


cdef class CodeMemory:
    cdef void *data
    cdef Code *codes            # each at the beginning of a line of the cache
    cdef int count


cdef class Decoder:
    cdef readonly Ring trades
    cdef readonly Ring quotes
    cdef readonly Ring depths
    # None, or called with recv_ns once, before the callbacks of the next message that publishes
    cdef public object first_record
    cdef Meter timer            # None: nothing is measured

    cdef jvq_ring *tapes[3]
    cdef uint64_t part[3]       # so many records of one message are dispatched at once
    cdef uint64_t history_length[3]
    cdef bint is_heard[3]       # there are callbacks

    cdef CodeMemory code_memory
    cdef Code *codes            # in it
    cdef int code_count
    cdef int max_codes
    cdef int *slots             # open addressing by key: index into codes, or -1
    cdef uint64_t slot_mask
    cdef list code_names        # by index
    cdef list code_labels       # by index: the security's own name, or None
    cdef list histories         # by index: [Ring or None] by level, keeping Code.history alive

    cdef Segment *segments
    cdef size_t segment_count
    cdef size_t segment_room
    cdef bint row_is_open       # the last segment belongs to the row that is being parsed
    cdef uint64_t pending[3]    # records in segments

    cdef jvq_inflater *inflater
    cdef jvq_trade_publisher publish_trades
    cdef const jvq_snapshot_kernels *snapshot_kernels
    cdef uint8_t *text
    cdef size_t text_room
    cdef size_t max_inflated
    cdef size_t max_record

    cdef jvq_order lv1_order
    cdef jvq_order lv10_order
    cdef object day             # datetime.date or None
    cdef bint has_day
    cdef int64_t day_start
    cdef bint judges_staleness

    # of the message in work
    cdef jvq_trade_run run_of_trades        # with what dates and flags the records of all levels
    cdef int64_t arrival        # when it came, where that is far enough from the ends of int64 to reckon with
    cdef uint64_t message_seq
    cdef jvq_delays *delays     # NULL where nothing is measured, or the arrival is not known

    cdef object interrupt       # raised by a callback in the middle of the message
    cdef bint has_renamed
    cdef uint64_t comparisons_left      # of trades with those before the gap

    cdef uint64_t connected_at  # messages before this connection
    cdef uint64_t seq
    cdef uint64_t batch         # records since the last on_batch
    cdef bint is_busy
    cdef Counters count
    cdef Fault *faults
    cdef uint64_t fault_count

    cdef tuple trade_handlers
    cdef tuple quote_handlers
    cdef tuple depth_handlers
    cdef tuple batch_handlers
    cdef tuple error_handlers
    cdef object failures

    cpdef int end_read(self) except -1
    cdef Py_ssize_t take_part(self, payload, recv_ns) except -1
    cdef Py_ssize_t take_bytes(self, const uint8_t *data, Py_ssize_t size, int64_t recv_ns) except -1
    cdef Py_ssize_t feed_message(self, const uint8_t *data, Py_ssize_t size, int64_t recv_ns) except -1
    cdef int enter(self) except -1

    cdef int run(self, const uint8_t *data, size_t size) except -1 nogil
    cdef int inflate(self, const uint8_t *data, size_t size, size_t *written) except -1 nogil
    cdef void date(self, int64_t recv_ns) noexcept nogil
    cdef const uint8_t *parse_row(self, const uint8_t *row) except NULL nogil
    cdef const uint8_t *parse_trades(self, const uint8_t *equals, uint64_t key, int index) except NULL nogil
    cdef const uint8_t *parse_trade(self, const uint8_t *text, uint64_t key, int *index) except NULL nogil
    cdef const uint8_t *parse_snapshot(self, const uint8_t *text, int level, uint64_t key, int *index) except NULL nogil
    cdef int64_t time_of(self, int64_t time_of_day) noexcept nogil
    cdef uint32_t flags_of(self, int64_t time) noexcept nogil
    cdef void count_flags(self, uint32_t flags, uint64_t records) noexcept nogil
    cdef void note_delays(self, Code *code, uint64_t count) noexcept nogil
    cdef void note_delay(self, Code *code, int level, int64_t time, uint32_t flags, uint64_t records) noexcept nogil
    cdef int meet(self, uint64_t key) except -2 with gil
    cdef const uint8_t *refuse_row(self, const uint8_t *row) noexcept nogil
    cdef const uint8_t *refuse_record(self, const uint8_t *text, int level, int reason) noexcept nogil
    cdef void keep_fault(self, int reason, const uint8_t *start, const uint8_t *end) noexcept nogil

    cdef int find(self, uint64_t key) noexcept nogil
    cdef int learn(self, uint64_t key) except -2
    cdef int index_of(self, code) except -2
    cdef jvq_ring *store_of(self, Code *code) noexcept nogil
    cdef bint is_duplicate(self, Code *code, int64_t time, int64_t id, double price, int64_t volume,
                           uint32_t flags) noexcept nogil
    cdef int await_callback(self, int level, int index, uint64_t record, uint64_t count) except -1 nogil
    cdef int dispatch(self) except -1
    cdef int dispatch_part(self) except -1 with gil
    cdef void drop_pending(self) noexcept nogil
    cdef int relabel(self) except -1
    cdef int take_late(self, int level, int index) except -1 with gil
    cdef Ring tape(self, int level)
    cdef tuple handlers(self, int level)
    cdef int dispatch_row(self, Segment *segment) except -1
    cdef int dispatch_batch(self, uint64_t batch) except -1
    cdef int report(self, object error, str where) except -1
