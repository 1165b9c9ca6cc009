"""Payload in, records out: inflates and parses a message into the rings, then calls the strategy."""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.long cimport PyLong_CheckExact
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

import datetime
from asyncio import CancelledError
from collections.abc import Mapping
from operator import index as as_index

from jvq_fast.handlers import Failures, check
from jvq_fast.records import DTYPES, LEVELS, Flag
from jvq_fast.subscriptions import checked

from jvq_fast.meter cimport Meter, jvq_delays_record
from jvq_fast.native cimport Depth, Handler, Quote, Trade
from jvq_fast.ring cimport jvq_history_prefetch, jvq_publish, jvq_ring_at, take_together

__all__ = ["Decoder"]

cdef extern from "inflate.h" nogil:
    enum:
        JVQ_INFLATED
        JVQ_INFLATE_ROOM
        JVQ_INFLATE_CORRUPT
        JVQ_INFLATE_TRUNCATED
    void jvq_inflater_init(jvq_inflater *inflater)
    int jvq_inflate(jvq_inflater *inflater, const uint8_t *data, size_t size, uint8_t *out, size_t room,
                    size_t *written, size_t *consumed)

cdef extern from "trades.h" nogil:
    enum:
        JVQ_USUAL_LENGTH
    jvq_trade_publisher jvq_choose_trade_publisher(int processor)

cdef extern from "processor.h" nogil:
    int jvq_this_processor()

cdef extern from "snapshots.h" nogil:
    const jvq_snapshot_kernels *jvq_choose_snapshot_kernels(int processor)

cdef extern from "rows.h" nogil:
    enum:
        JVQ_STALE
        JVQ_REPEAT
        JVQ_NO_DATE
        JVQ_ID_TEXT
        JVQ_TRADE_FIELDS
        JVQ_QUOTE_FIELDS
        JVQ_DEPTH_FIELDS
        JVQ_TEXT_MARGIN
        JVQ_OK
        JVQ_BAD_ROW
        JVQ_BAD_LEVEL
        JVQ_BAD_CODE
    ctypedef struct jvq_text:
        const uint8_t *start
        size_t length
    ctypedef struct jvq_trade:
        uint64_t seq
        int64_t time
        int64_t recv
        char code[8]
        int64_t id
        double price
        int64_t volume
        uint32_t flags
    ctypedef struct jvq_quote:
        uint64_t seq
        int64_t time
        int64_t recv
        char code[8]
        double price
        double change
        double amount
        int64_t volume
        uint32_t flags
        double bid_price[5]
        int64_t bid_volume[5]
        double ask_price[5]
        int64_t ask_volume[5]
    ctypedef struct jvq_depth:
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
        double bid_price[10]
        int64_t bid_volume[10]
        double ask_price[10]
        int64_t ask_volume[10]
    bint jvq_is_code_byte(uint8_t byte)
    int jvq_parse_code(const uint8_t *p, uint64_t *code)
    int jvq_parse_trade(const uint8_t **cursor, size_t limit, jvq_trade *out, int64_t *time_of_day)
    int jvq_parse_quote(const uint8_t **cursor, size_t limit, const jvq_snapshot_kernels *kernels, bint is_index,
                        jvq_order *order, jvq_quote *out, int64_t *time_of_day, jvq_text *name)
    int jvq_parse_depth(const uint8_t **cursor, size_t limit, const jvq_snapshot_kernels *kernels, jvq_order *order,
                        jvq_depth *out, int64_t *time_of_day, jvq_text *name)
    int jvq_fault(const uint8_t *start, const uint8_t *end, size_t limit, int fields, int first)
    void jvq_order_restart(jvq_order *order)

ctypedef union AnyRecord:
    jvq_trade trade
    jvq_quote quote
    jvq_depth depth

# What all records begin with.
ctypedef struct Head:
    uint64_t seq
    int64_t time
    int64_t recv
    uint64_t code

cdef enum:
    # Beside a busy Python thread each re-acquisition of the GIL may wait for the switch interval, so a message must
    # be worth it.
    RELEASE_GIL_FROM = 32768    # bytes, compressed
    FIRST_TEXT_ROOM = 262144
    FAULTS_KEPT = 16
    CACHE_LINE = 64
    SNAPSHOT_ROOM = 768         # longer than any snapshot seen, so that it is taken once

cdef int64_t SECOND = 1_000_000_000
cdef int64_t DAY = 86_400 * SECOND
cdef int64_t ZONE = 8 * 3600 * SECOND           # Asia/Shanghai, without daylight saving since 1991
cdef int64_t AHEAD = 300 * SECOND               # the exchange's clock may be ahead of ours by this
cdef int64_t STALE_AFTER = 600 * SECOND
cdef int64_t MARK_ENDS_AFTER = 60 * SECOND
cdef int64_t FARTHEST = 1 << 62                 # 146 years from the epoch; leaves room to add to
cdef uint64_t COMPARISONS = 100_000_000         # after a gap: a fraction of a second
cdef int64_t NEVER = 0x7FFFFFFFFFFFFFFF

cdef tuple REASONS = ("ok", "fields", "number", "time", "volume", "equals", "length", "row", "level", "code")
cdef tuple TAGS = ("lv2", "lv1", "lv10")            # by level
cdef tuple HANDLER_NAMES = ("on_trades", "on_quotes", "on_depths")
cdef dict LV1_ORDERS = {"amount_first": False, "volume_first": True}
cdef dict LV10_ORDERS = {"price_first": False, "volume_first": True}


# Where a dict leaves a level out. Quotes come less often than trades, depths are larger: fewer of them are kept.
cdef dict CAPACITY = dict.fromkeys(LEVELS, 65536)
cdef dict HISTORY_SHARES = {"trades": 1, "quotes": 4, "depths": 16}
cdef dict HISTORY = {level: 1024 // share for level, share in HISTORY_SHARES.items()}


class _Names(Mapping):
    """Security names by code, as the feed last wrote them."""

    def __init__(self, decoder):
        self._decoder = decoder

    def __getitem__(self, code):
        label = self._decoder.label(code)
        if label is None:
            raise KeyError(code)
        return label

    def __iter__(self):
        return iter([code for code in self._decoder.codes if self._decoder.label(code) is not None])

    def __len__(self):
        return sum(1 for _ in self)

    def __repr__(self):
        return repr(dict(self))


@cython.final
cdef class CodeMemory:
    """What is known of all codes, for the decoder and for the rings of their histories, which may outlive it."""

    def __cinit__(self, size_t codes):
        self.data = calloc(codes + 1, sizeof(Code))
        if self.data == NULL:
            raise MemoryError()
        self.codes = <Code *>((<size_t>self.data + CACHE_LINE - 1) & ~<size_t>(CACHE_LINE - 1))

    def __dealloc__(self):
        cdef int i, level
        for i in range(self.count):
            free(self.codes[i].name.data)
            for level in range(3):
                free(self.codes[i].snapshot[level].data)
        free(self.data)


@cython.final
cdef class Decoder:
    """Decodes the feed's messages into rings and calls the handlers. It knows no socket and no clock.

    Parameters
    ----------
    market: "ab" (Shanghai and Shenzhen).
    capacity: records on the tape of each level, rounded up to a power of two, or a dict by level
        ("trades", "quotes", "depths").
    history: trades in each code's own ring, with a quarter of that in quotes and a sixteenth in depths (at least 1);
        or a dict by level; 0 turns a level's histories off.
    trading_day: the day of the times of day on the wire, "YYYY-MM-DD" or a date. Without it the day follows from
        ``recv_ns``: the latest that puts a record at or before ``recv_ns`` + 5 minutes.
    clock: "exchange" flags records that are older than 10 minutes at arrival as STALE; "always" does not judge.
    lv1_order, lv10_order: "auto" detects which way round the vendor writes amount and volume (lv1) and each side's
        prices and quantities (lv10); or "amount_first", "price_first", or for either "volume_first".
    max_codes: codes that get histories, names and REPEAT; further ones are on the tape only, and counted.
    max_inflated: bytes of text in a message; a larger one is refused.
    max_record: bytes of text in a record; a longer one is bad.

    Raises ValueError or TypeError, naming the argument, where one is out of range or of the wrong type.

    One thread at a time uses a decoder; handlers run in it, within ``decode``. From other threads ``history``,
    ``names``, ``codes``, ``stats`` and ``Ring.copy_since`` are safe.
    """

    def __cinit__(self, market="ab", capacity=65536, history=1024, trading_day=None, *,
                  clock="exchange", lv1_order="auto", lv10_order="auto", max_codes=8192,
                  max_inflated=8 * 1024 * 1024, max_record=4096):
        self.trade_handlers = self.quote_handlers = self.depth_handlers = ()
        self.batch_handlers = self.error_handlers = ()
        self.failures = Failures()
        self.code_names = []
        self.code_labels = []
        self.histories = []
        if market != "ab":
            raise ValueError(f"market must be 'ab', not {market!r}: other markets are not decoded")
        if clock not in ("exchange", "always"):
            raise ValueError(f"clock must be 'exchange' or 'always', not {clock!r}")
        self.judges_staleness = clock == "exchange"
        check_limit("max_codes", max_codes, 1, 1 << 20)
        check_limit("max_inflated", max_inflated, 1, 1 << 30)
        check_limit("max_record", max_record, 1, 1 << 20)
        capacities = by_level("capacity", capacity, CAPACITY, dict.fromkeys(LEVELS, 1), 1)
        lengths = by_level("history", history, HISTORY, HISTORY_SHARES, 0)
        self.trades, self.quotes, self.depths = [
            Ring(DTYPES[name], capacities[name]) for name in LEVELS]
        cdef int level
        for level in range(3):
            self.tapes[level] = self.tape(level).ring
            self.part[level] = max(self.tapes[level].capacity // 4, <uint64_t>1)
            self.history_length[level] = lengths[LEVELS[level]]
        force(&self.lv1_order, "lv1_order", lv1_order, LV1_ORDERS)
        force(&self.lv10_order, "lv10_order", lv10_order, LV10_ORDERS)
        self.day = as_date(trading_day)
        self.has_day = self.day is not None
        if self.has_day:
            self.day_start = (self.day - datetime.date(1970, 1, 1)).days * DAY - ZONE
        self.max_codes = max_codes
        self.max_inflated = max_inflated
        self.max_record = max_record

        self.slot_mask = (1 << (2 * <int>max_codes - 1).bit_length()) - 1
        self.text_room = min(<size_t>FIRST_TEXT_ROOM, self.max_inflated + 2)
        self.code_memory = CodeMemory(max_codes)
        self.codes = self.code_memory.codes
        self.slots = <int *>malloc((self.slot_mask + 1) * sizeof(int))
        self.text = <uint8_t *>calloc(self.text_room + JVQ_TEXT_MARGIN, 1)
        self.faults = <Fault *>calloc(FAULTS_KEPT, sizeof(Fault))
        self.inflater = <jvq_inflater *>malloc(sizeof(jvq_inflater))
        if not (self.slots and self.text and self.faults and self.inflater):
            raise MemoryError()
        jvq_inflater_init(self.inflater)
        self.publish_trades = jvq_choose_trade_publisher(jvq_this_processor())
        self.snapshot_kernels = jvq_choose_snapshot_kernels(jvq_this_processor())
        self.run_of_trades.tape = self.tapes[TRADES]
        memset(self.slots, 0xFF, (self.slot_mask + 1) * sizeof(int))

    def __dealloc__(self):
        free(self.slots)
        free(self.text)
        free(self.faults)
        free(self.segments)
        free(self.inflater)

    # --- what the user calls ---

    def decode(self, payload, recv_ns=0):
        """Decodes one message as if it were a socket read of its own. Returns the number of records published.

        payload: bytes-like, one raw DEFLATE stream. recv_ns: arrival, ns since the epoch, 0 where it is not known.

        All of the message is published before the first handler is called (in parts, where it is larger than a
        quarter of a tape). Bad data is counted, never raised. TypeError where ``payload`` is no contiguous buffer or
        ``recv_ns`` no integer, RuntimeError from within a handler of this decoder.
        """
        cdef Py_ssize_t published = self.take_part(payload, recv_ns)
        self.end_read()
        return published

    def decode_part(self, payload, recv_ns=0):
        """``decode`` for a message that does not end a socket read: ``on_batch`` waits for ``end_read``."""
        return self.take_part(payload, recv_ns)

    cdef Py_ssize_t take_part(self, payload, recv_ns) except -1:
        cdef int64_t recv = recv_ns if PyLong_CheckExact(recv_ns) else as_index(recv_ns)
        cdef Py_buffer buffer
        if PyBytes_CheckExact(payload):     # what it nearly always is needs no asking
            return self.take_bytes(<const uint8_t *>PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), recv)
        try:
            PyObject_GetBuffer(payload, &buffer, PyBUF_SIMPLE)
        except (BufferError, ValueError) as error:      # numpy's word for it is ValueError
            raise TypeError(f"payload must be contiguous bytes: {error}") from None
        try:
            return self.take_bytes(<const uint8_t *>buffer.buf, buffer.len, recv)
        finally:
            PyBuffer_Release(&buffer)

    cdef Py_ssize_t take_bytes(self, const uint8_t *data, Py_ssize_t size, int64_t recv_ns) except -1:
        if self.timer is not None and not self.is_busy:
            self.timer.begin_read(recv_ns, False)
        return self.feed_message(data, size, recv_ns)

    cpdef int end_read(self) except -1:
        """A socket read is over: calls ``on_batch`` with the number of records published since the last call."""
        cdef uint64_t batch = self.batch
        self.enter()
        self.batch = 0
        self.count.batches += 1
        try:
            if self.batch_handlers:
                if self.timer is not None:
                    self.timer.begin_batch()
                self.dispatch_batch(batch)
        finally:
            self.is_busy = False
            if self.timer is not None:
                self.timer.end_read()
        return 0

    def reserve(self, subscriptions):
        """Takes the storage of the levels and histories that these subscriptions ("lv2_600519", …) will fill.

        What is not reserved is taken at its first record, on the data path, and counted as ``storage_late``.
        For the thread that decodes.
        Raises ValueError, or TypeError, for what is no subscription, and ValueError where there are more than
        ``max_codes``.
        """
        cdef int level, index
        cdef uint64_t key
        cdef list rings = []
        try:
            for subscription in checked(subscriptions):
                tag, _, name = subscription.partition("_")
                level = TAGS.index(tag)
                key = key_of(name)
                index = self.find(key)
                if index < 0:
                    index = self.learn(key)
                if index < 0:
                    raise ValueError(f"no room for the code {name!r}: max_codes is {self.max_codes}")
                self.codes[index].met[level] = 0        # what the server sends first is as old as it likes
                rings += [self.tape(level), self.histories[index][level]]
        finally:        # of what is known, whatever was wrong with others
            take_together([ring for ring in dict.fromkeys(rings) if ring is not None])

    def connected(self):
        """A new connection begins: field orders are detected anew.

        With ``clock="always"`` so is what a usual delay is: what serves then may have another time of day.
        """
        jvq_order_restart(&self.lv1_order)
        jvq_order_restart(&self.lv10_order)
        self.connected_at = self.count.messages
        if self.timer is not None and not self.judges_staleness:
            self.timer.forget_delays()

    def resume(self):
        """A connection was lost and is back: ``connected()``, and trades that come again are dropped.

        A trade is dropped, and counted as ``duplicates``, only if its id, time of day, price and volume are those of a
        trade of the same code from before the gap that is still held. This ends for each code at its first new trade
        more than 60 s past its last one before the gap. What is too old to judge by what is held is published and
        counted as ``maybe_duplicate``; ids that are text are never dropped. Where histories are off the tape is
        searched. After 100 million comparisons, which only a broken server can cause, the rest is too old to judge.
        """
        cdef Code *code
        cdef int i
        self.comparisons_left = COMPARISONS
        for i in range(self.code_count):
            code = &self.codes[i]
            if code.traded:
                code.marked = True
                code.gap_head = self.store_of(code).head
                code.gap_time = code.last_time
                code.gap_latest = code.latest_time_of_day
        self.connected()

    def history(self, code, level):
        """The ring of one code's own records. Any thread.

        level: "trades", "quotes" or "depths". Raises KeyError where the code was neither reserved nor seen, ValueError
        where there is no such level or its histories are off.
        """
        if level not in LEVELS:
            raise ValueError(f"level must be one of {', '.join(LEVELS)}, not {level!r}")
        cdef int index = self.index_of(code)
        if index < 0:
            raise KeyError(f"no record of {code!r} so far; reserve() makes its history beforehand")
        ring = self.histories[index][LEVELS.index(level)]
        if ring is None:
            raise ValueError(f"the histories of {level} are off")
        return ring

    @property
    def names(self):
        """Security names by code, a live mapping. Any thread."""
        return _Names(self)

    def label(self, code):
        """The security's name as the feed last wrote it, or None. Any thread."""
        cdef int index = self.index_of(code)
        return self.code_labels[index] if index >= 0 else None

    @property
    def codes(self):
        """The codes that have histories, in the order they were met. Any thread."""
        return list(self.code_names)

    @property
    def nbytes(self):
        """Bytes of all ring storage held: tapes and histories."""
        return (self.trades.nbytes + self.quotes.nbytes + self.depths.nbytes
                + sum(ring.nbytes for rings in self.histories for ring in rings if ring is not None))

    @property
    def messages(self):
        """Messages decoded so far, bad ones included."""
        return self.count.messages

    @property
    def trading_day(self):
        """The day given, "YYYY-MM-DD", or None."""
        return None if self.day is None else self.day.isoformat()

    @property
    def bad_records(self):
        """The last 16 bad records: ``(reason, bytes)``, oldest first; the bytes are cut at 1,024."""
        cdef uint64_t i
        cdef Fault *fault
        kept = []
        for i in range(self.fault_count - min(self.fault_count, <uint64_t>FAULTS_KEPT), self.fault_count):
            fault = &self.faults[i % FAULTS_KEPT]
            kept.append((f"bad_{REASONS[fault.reason]}", fault.data[:fault.length]))
        return kept

    def stats(self):
        """Counters by name, since the decoder was made. Any thread.

        messages, bytes, inflated_bytes, rows, batches; records and of each level; bad records in all and by reason;
        bad messages in all and by reason (``inflate_…``); ``inflate_trailing`` messages that went on behind their
        stream and were published; records by flag; the field orders in force and where they come from.
        """
        cdef Counters *count = &self.count
        cdef int i
        stats = {
            "messages": count.messages, "bytes": count.bytes, "inflated_bytes": count.inflated_bytes,
            "rows": count.rows, "records": self.seq, "trades": self.trades.head, "quotes": self.quotes.head,
            "depths": self.depths.head, "batches": count.batches,
            "bad": sum([count.bad[i] for i in range(1, 10)]),
        }
        for i in range(1, 10):
            stats["bad_" + REASONS[i]] = count.bad[i]
        stats["bad_messages"] = sum([count.bad_messages[i] for i in range(1, 5)])
        stats["inflate_too_large"] = count.bad_messages[JVQ_INFLATE_ROOM]
        stats["inflate_corrupt"] = count.bad_messages[JVQ_INFLATE_CORRUPT]
        stats["inflate_truncated"] = count.bad_messages[JVQ_INFLATE_TRUNCATED]
        stats["inflate_trailing"] = count.inflate_trailing
        stats["duplicates"] = count.duplicates
        stats["maybe_duplicate"] = count.maybe_duplicate
        for flag in Flag:
            stats["repeats" if flag is Flag.REPEAT else flag.name.lower()] = count.flags[flag.bit_length() - 1]
        stats["codes"] = self.code_count
        stats["tape_only"] = count.tape_only
        stats["storage_late"] = count.storage_late
        stats["callback_errors"] = count.callback_errors
        stats["lv1_order"] = list(LV1_ORDERS)[self.lv1_order.second]
        stats["lv1_order_source"] = source_of(&self.lv1_order)
        stats["lv10_order"] = list(LV10_ORDERS)[self.lv10_order.second]
        stats["lv10_order_source"] = source_of(&self.lv10_order)
        return stats

    @property
    def meter(self):
        """The ``Meter`` that measures this decoder, its handlers and its tapes' readers; None for no measuring.

        RuntimeError where it is assigned from within a handler.
        """
        return self.timer

    @meter.setter
    def meter(self, Meter meter):
        cdef int level
        if self.is_busy:
            raise RuntimeError("this decoder is at work: a handler must not change its meter")
        self.timer = meter
        for level in range(3):
            self.tape(level).readers = None if meter is None else meter.distances[level]

    # --- handlers ---

    @property
    def on_trades(self):
        """Handlers ``f(code, trades)``, called in order, once for each row that published trades.

        Assign a callable, a ``jvq_fast.native.Handler``, several in an iterable, or None; the value read is a tuple. A
        batch is a view into the tape: see Ring for how long it is good. Where nothing refers to it afterwards, the next
        call gets the same array with other records. A handler that raises is counted and reported to ``on_error``, and
        the next one is called; what is no Exception (KeyboardInterrupt) leaves ``decode``, with the message published
        and its remaining handlers uncalled.
        """
        return self.trade_handlers

    @on_trades.setter
    def on_trades(self, handlers):
        self.trade_handlers = as_handlers("on_trades", handlers)
        self.is_heard[TRADES] = len(self.trade_handlers) > 0

    @property
    def on_quotes(self):
        """Handlers ``f(code, quotes)``; see ``on_trades``."""
        return self.quote_handlers

    @on_quotes.setter
    def on_quotes(self, handlers):
        self.quote_handlers = as_handlers("on_quotes", handlers)
        self.is_heard[QUOTES] = len(self.quote_handlers) > 0

    @property
    def on_depths(self):
        """Handlers ``f(code, depths)``; see ``on_trades``."""
        return self.depth_handlers

    @on_depths.setter
    def on_depths(self, handlers):
        self.depth_handlers = as_handlers("on_depths", handlers)
        self.is_heard[DEPTHS] = len(self.depth_handlers) > 0

    @property
    def on_batch(self):
        """Handlers ``f(n)``, called after the last message of a socket read; n records were published in it."""
        return self.batch_handlers

    @on_batch.setter
    def on_batch(self, handlers):
        self.batch_handlers = as_handlers("on_batch", handlers)

    @property
    def on_error(self):
        """Handlers ``f(exception, where)`` for exceptions of the other handlers; without one they are logged."""
        return self.error_handlers

    @on_error.setter
    def on_error(self, handlers):
        self.error_handlers = as_handlers("on_error", handlers)

    # --- the way of a message ---

    cdef int enter(self) except -1:
        if self.is_busy:
            raise RuntimeError("this decoder is at work: a handler must not decode with it")
        self.is_busy = True
        return 0

    cdef Py_ssize_t feed_message(self, const uint8_t *data, Py_ssize_t size, int64_t recv_ns) except -1:
        self.enter()
        self.message_seq = self.seq
        self.count.messages += 1
        self.count.bytes += size
        self.date(recv_ns)
        self.delays = NULL
        if self.timer is not None:
            self.timer.begin_message()
            if recv_ns:
                self.delays = &self.timer.delays
        try:
            if size >= RELEASE_GIL_FROM:
                with nogil:
                    self.run(data, size)
            else:
                self.run(data, size)
            if self.interrupt is None:
                self.dispatch()
            else:
                raise self.interrupt
        finally:
            self.interrupt = None
            self.drop_pending()
            self.batch += self.seq - self.message_seq
            self.is_busy = False
            if self.timer is not None:
                self.timer.end_message()
        return self.seq - self.message_seq

    cdef int run(self, const uint8_t *data, size_t size) except -1 nogil:
        cdef const uint8_t *p
        cdef const uint8_t *end
        cdef size_t written = 0
        if self.inflate(data, size, &written) != JVQ_INFLATED:
            return 0
        self.count.inflated_bytes += written
        p = self.text
        end = p + written
        self.text[written] = b"\n"      # the parsers stop here, whatever the text is
        while p < end:
            if p[0] != b"\n":
                p = self.parse_row(p)
            p += 1
        return 0

    cdef int inflate(self, const uint8_t *data, size_t size, size_t *written) except -1 nogil:
        """Inflates into self.text, which keeps one byte free behind the text."""
        cdef size_t consumed = 0
        cdef size_t longest = self.max_inflated + 2     # one more than allowed, to see that it is too large
        cdef int status
        cdef uint8_t *larger
        while True:
            status = jvq_inflate(self.inflater, data, size, self.text, self.text_room - 1, written, &consumed)
            if status != JVQ_INFLATE_ROOM or self.text_room >= longest:
                break
            larger = <uint8_t *>calloc(min(4 * self.text_room, longest) + JVQ_TEXT_MARGIN, 1)
            if larger == NULL:
                with gil:
                    raise MemoryError("no memory to inflate a message")
            free(self.text)
            self.text = larger
            self.text_room = min(4 * self.text_room, longest)
        if status == JVQ_INFLATED and written[0] > self.max_inflated:
            status = JVQ_INFLATE_ROOM
        if status != JVQ_INFLATED:
            self.count.bad_messages[status] += 1
        elif consumed < size:
            self.count.inflate_trailing += 1
        return status

    cdef void date(self, int64_t recv_ns) noexcept nogil:
        """Finds the day that this message's times belong to."""
        cdef jvq_trade_run *run = &self.run_of_trades
        self.arrival = min(max(recv_ns, -FARTHEST), FARTHEST)
        run.recv = recv_ns
        run.flags = 0
        run.fresh_from = self.arrival - STALE_AFTER if self.judges_staleness and recv_ns else -NEVER
        run.latest = NEVER
        if self.has_day:
            run.midnight = self.day_start
        elif recv_ns == 0:
            run.midnight = -ZONE
            run.flags = JVQ_NO_DATE
        else:
            run.latest = self.arrival + AHEAD
            run.midnight = run.latest - of_day(run.latest)

    cdef const uint8_t *parse_row(self, const uint8_t *row) except NULL nogil:
        """Publishes the records of a row; returns its end."""
        cdef const uint8_t *p
        cdef int level, length, index
        cdef uint64_t key
        self.count.rows += 1
        self.row_is_open = False
        if memcmp(row, <const char *>b"lv2_", 4) == 0:
            level = TRADES
            p = row + 4
        elif memcmp(row, <const char *>b"lv1_", 4) == 0:
            level = QUOTES
            p = row + 4
        elif memcmp(row, <const char *>b"lv10_", 5) == 0:
            level = DEPTHS
            p = row + 5
        else:
            return self.refuse_row(row)
        length = jvq_parse_code(p, &key)
        if length == 0:
            return self.refuse_row(row)
        p += length
        index = self.find(key)
        if level == TRADES:
            if index >= 0:
                jvq_history_prefetch(&self.codes[index].ring[TRADES], sizeof(jvq_trade), sizeof(jvq_trade))
            return self.parse_trades(p, key, index)
        if index >= 0:
            jvq_history_prefetch(&self.codes[index].ring[level], sizeof(jvq_quote), self.tapes[level].itemsize)
        while True:
            p = self.parse_snapshot(p + 1, level, key, &index)
            if p[0] == b"\n":
                return p

    cdef const uint8_t *parse_trades(self, const uint8_t *equals, uint64_t key, int index) except NULL nogil:
        """Publishes a row's trades, the usual ones at once and others one by one; returns the row's end."""
        cdef const uint8_t *p = equals
        cdef jvq_trade_run *run = &self.run_of_trades
        cdef Code *code
        cdef uint64_t count
        while True:
            if index >= 0 and self.pending[TRADES] < self.part[TRADES]:
                code = &self.codes[index]
                run.history = code.history[TRADES]
                if (not code.marked and self.max_record >= JVQ_USUAL_LENGTH and run.tape.storage != NULL
                        and (run.history == NULL or run.history.storage != NULL)):
                    run.cursor = p
                    run.code = key
                    run.seq = self.seq
                    run.latest_time_of_day = code.latest_time_of_day
                    count = self.publish_trades(run, self.part[TRADES] - self.pending[TRADES])
                    if count:
                        self.seq = run.seq
                        code.traded = True
                        code.last_time = run.last_time
                        code.latest_time_of_day = run.latest_time_of_day
                        if run.flags:
                            self.count_flags(run.flags, count)
                        if run.stale:
                            self.count_flags(JVQ_STALE, run.stale)
                        if self.delays != NULL:
                            self.note_delays(code, count)
                        if self.is_heard[TRADES]:
                            self.await_callback(TRADES, index, run.tape.head - count, count)
                        p = run.cursor
                        if p[0] == b"\n":
                            return p
            p = self.parse_trade(p + 1, key, &index)
            if p[0] == b"\n":
                return p

    cdef const uint8_t *parse_trade(self, const uint8_t *text, uint64_t key, int *index) except NULL nogil:
        """Parses and publishes one trade; returns its end."""
        cdef const uint8_t *p = text
        cdef jvq_ring *tape = self.tapes[TRADES]
        cdef jvq_ring *history = NULL
        cdef jvq_trade record
        cdef Code *code = NULL
        cdef int64_t time_of_day = 0
        cdef int status

        if self.pending[TRADES] >= self.part[TRADES]:
            self.dispatch_part()
        status = jvq_parse_trade(&p, self.max_record, &record, &time_of_day)
        if status != JVQ_OK:
            return self.refuse_record(text, TRADES, status)
        record.recv = self.run_of_trades.recv
        memcpy(record.code, &key, sizeof(key))
        record.time = self.time_of(time_of_day)
        record.flags |= self.flags_of(record.time)
        if index[0] < 0:
            index[0] = self.meet(key)
        elif self.codes[index[0]].marked and self.is_duplicate(&self.codes[index[0]], record.time, record.id,
                                                               record.price, record.volume, record.flags):
            self.count.duplicates += 1
            return p
        if index[0] >= 0:
            code = &self.codes[index[0]]
            code.traded = True
            code.last_time = record.time
            code.latest_time_of_day = max(code.latest_time_of_day, time_of_day)
            history = code.history[TRADES]
            if self.delays != NULL:
                self.note_delay(code, TRADES, record.time, record.flags, 1)
        if record.flags:
            self.count_flags(record.flags, 1)
        if tape.storage == NULL or (history != NULL and history.storage == NULL):
            self.take_late(TRADES, index[0])
        self.seq += 1
        record.seq = self.seq
        jvq_publish(tape, history, &record, sizeof(record))
        if self.is_heard[TRADES]:
            self.await_callback(TRADES, index[0], tape.head - 1, 1)
        return p

    cdef const uint8_t *parse_snapshot(self, const uint8_t *text, int level, uint64_t key,
                                       int *index) except NULL nogil:
        """Parses and publishes one quote or depth; returns its end.

        It is parsed beside the ring and copied: what turns out bad has overwritten nothing.
        """
        cdef const uint8_t *p = text
        cdef jvq_ring *tape = self.tapes[level]
        cdef jvq_ring *history = NULL
        cdef AnyRecord record
        cdef Head *head = <Head *>&record
        cdef uint32_t *flags
        cdef Code *code = NULL
        cdef Text *snapshot
        cdef jvq_text name
        cdef int64_t time_of_day = 0
        cdef int status

        if self.pending[level] >= self.part[level]:
            self.dispatch_part()
        if level == QUOTES:
            status = jvq_parse_quote(&p, self.max_record, self.snapshot_kernels, (<uint8_t *>&key)[0] == b"i",
                                     &self.lv1_order, &record.quote, &time_of_day, &name)
            flags = &record.quote.flags
        else:
            status = jvq_parse_depth(&p, self.max_record, self.snapshot_kernels, &self.lv10_order, &record.depth,
                                     &time_of_day, &name)
            flags = &record.depth.flags
        if status != JVQ_OK:
            return self.refuse_record(text, level, status)
        head.recv = self.run_of_trades.recv
        head.code = key
        head.time = self.time_of(time_of_day)
        flags[0] |= self.flags_of(head.time)
        if index[0] < 0:
            index[0] = self.meet(key)
        if index[0] >= 0:
            code = &self.codes[index[0]]
            history = code.history[level]
            snapshot = &code.snapshot[level]
            if is_same(snapshot, text, p - text):
                flags[0] |= JVQ_REPEAT
            else:
                keep(snapshot, text, p - text, SNAPSHOT_ROOM)
            if name.length and not is_same(&code.name, name.start, name.length):
                keep(&code.name, name.start, name.length, 0)
                code.is_renamed = self.has_renamed = True
            if self.delays != NULL:
                self.note_delay(code, level, head.time, flags[0], 1)
        if flags[0]:
            self.count_flags(flags[0], 1)
        if tape.storage == NULL or (history != NULL and history.storage == NULL):
            self.take_late(level, index[0])
        self.seq += 1
        head.seq = self.seq
        if level == QUOTES:
            self.snapshot_kernels.publish_quote(tape, history, &record)
        else:
            self.snapshot_kernels.publish_depth(tape, history, &record)
        if self.is_heard[level]:
            self.await_callback(level, index[0], tape.head - 1, 1)
        return p

    cdef inline int64_t time_of(self, int64_t time_of_day) noexcept nogil:
        cdef int64_t time = self.run_of_trades.midnight + time_of_day
        return time - DAY if time > self.run_of_trades.latest else time

    cdef inline uint32_t flags_of(self, int64_t time) noexcept nogil:
        """What all levels are flagged with alike."""
        return self.run_of_trades.flags | (JVQ_STALE if time < self.run_of_trades.fresh_from else 0)

    cdef inline void count_flags(self, uint32_t flags, uint64_t records) noexcept nogil:
        cdef int bit
        for bit in range(7):
            if flags >> bit & 1:
                self.count.flags[bit] += records

    cdef void note_delay(self, Code *code, int level, int64_t time, uint32_t flags, uint64_t records) noexcept nogil:
        if code.met[level] <= self.connected_at:
            code.met[level] = self.count.messages
        elif code.met[level] != self.count.messages and not flags & (JVQ_REPEAT | JVQ_STALE | JVQ_NO_DATE):
            jvq_delays_record(self.delays, level, time, self.arrival, records)

    cdef void note_delays(self, Code *code, uint64_t count) noexcept nogil:
        """Of the newest trades, all of one code."""
        cdef jvq_ring *tape = self.tapes[TRADES]
        cdef const jvq_trade *trades = <const jvq_trade *>jvq_ring_at(tape, tape.head - count, tape.head)
        cdef uint64_t first = 0, last = 0
        while last < count:     # many have one time
            first = last
            while (last < count and trades[last].time == trades[first].time
                    and trades[last].flags == trades[first].flags):
                last += 1
            self.note_delay(code, TRADES, trades[first].time, trades[first].flags, last - first)

    # These take the GIL; in a function of their own they cost nothing where they are not needed.

    cdef int meet(self, uint64_t key) except -2 with gil:
        """The index of a code that was not known; -1 where there is no room for it."""
        cdef int index = self.learn(key)
        if index < 0:
            self.count.tape_only += 1
        return index

    cdef int take_late(self, int level, int index) except -1 with gil:
        """The storage of the tape, and of the history of the code with this index."""
        cdef Ring ring
        for ring in (self.tape(level), None if index < 0 else (<list>self.histories[index])[level]):
            if ring is not None and ring.ring.storage == NULL:
                self.count.storage_late += 1
                ring.take()
        return 0

    cdef const uint8_t *refuse_row(self, const uint8_t *row) noexcept nogil:
        """Counts every record of a row whose head can't be read; returns the row's end."""
        cdef const uint8_t *p = row
        cdef int records = 1, reason
        cdef bint has_level = False
        cdef const uint8_t *equals = NULL
        while p[0] != b"\n":
            if equals == NULL:
                has_level |= p[0] == b"_"
                if p[0] == b"=":
                    equals = p
            records += p[0] == b"|"
            p += 1
        if equals == NULL or not has_level:
            reason = JVQ_BAD_ROW
        elif starts_with(row, b"lv2_") or starts_with(row, b"lv1_") or starts_with(row, b"lv10_"):
            reason = JVQ_BAD_CODE
        else:
            reason = JVQ_BAD_LEVEL
        self.count.bad[reason] += records
        self.keep_fault(reason, row, p)
        return p

    cdef const uint8_t *refuse_record(self, const uint8_t *text, int level, int reason) noexcept nogil:
        cdef const uint8_t *end = text
        cdef int fields = (JVQ_TRADE_FIELDS if level == TRADES else
                           JVQ_QUOTE_FIELDS if level == QUOTES else JVQ_DEPTH_FIELDS)
        while end[0] != b"|" and end[0] != b"\n":
            end += 1
        reason = jvq_fault(text, end, self.max_record, fields, reason)
        self.count.bad[reason] += 1
        self.keep_fault(reason, text, end)
        return end

    cdef void keep_fault(self, int reason, const uint8_t *start, const uint8_t *end) noexcept nogil:
        cdef Fault *fault = &self.faults[self.fault_count % FAULTS_KEPT]
        fault.reason = reason
        fault.length = min(<size_t>(end - start), <size_t>FAULT_BYTES)
        memcpy(fault.data, start, fault.length)
        self.fault_count += 1

    # --- duplicates after a gap ---

    cdef jvq_ring *store_of(self, Code *code) noexcept nogil:
        """Where this code's trades are looked up: its history, or the tape where histories are off."""
        return code.history[TRADES] if code.history[TRADES] != NULL else self.tapes[TRADES]

    cdef bint is_duplicate(self, Code *code, int64_t time, int64_t id, double price, int64_t volume,
                           uint32_t flags) noexcept nogil:
        """Whether this trade of a marked code came before the gap already."""
        cdef const jvq_trade *held
        cdef jvq_ring *store = self.store_of(code)
        cdef uint64_t first = store.head - store.capacity if store.head > store.capacity else 0
        cdef uint64_t i
        cdef int64_t time_of_day = of_day(time)
        cdef bint is_candidate = not flags & JVQ_ID_TEXT and time_of_day <= code.gap_latest
        cdef bint is_judged = first == 0        # nothing from before the gap is gone

        if is_candidate and first < code.gap_head:
            i = code.gap_head - first
            if self.comparisons_left < i:
                is_judged = False
            else:
                # the newest first: a server goes back by little
                held = <const jvq_trade *>jvq_ring_at(store, first, store.head)
                while i > 0:
                    i -= 1
                    if (held[i].id == id and (<const Head *>&held[i]).code == code.key
                            and held[i].price == price and held[i].volume == volume
                            and of_day(held[i].time) == time_of_day):
                        self.comparisons_left -= code.gap_head - first - i
                        return True
                self.comparisons_left -= code.gap_head - first
        if time > code.gap_time + MARK_ENDS_AFTER:
            code.marked = False
        elif is_candidate and not is_judged:
            # trades are not sent in the order of their times, so any that was overwritten may have been this one
            self.count.maybe_duplicate += 1
        return False

    # --- callbacks ---

    cdef int await_callback(self, int level, int index, uint64_t record, uint64_t count) except -1 nogil:
        """Adds published records to their row's batch, from number ``record`` on."""
        cdef Segment *segment
        cdef Segment *larger
        cdef size_t room
        if not self.row_is_open:
            if self.segment_count == self.segment_room:
                room = max(2 * self.segment_room, <size_t>64)
                larger = <Segment *>realloc(self.segments, room * sizeof(Segment))
                if larger == NULL:
                    with gil:
                        raise MemoryError("no memory for the callbacks of a message")
                self.segments = larger
                self.segment_room = room
            segment = &self.segments[self.segment_count]
            segment.level = level
            segment.code = index
            segment.first = record
            segment.count = 0
            self.segment_count += 1
            self.row_is_open = True
        self.segments[self.segment_count - 1].count += count
        self.pending[level] += count
        return 0

    cdef int dispatch(self) except -1:
        """Calls the handlers for all that is pending; the caller drops it, whatever comes out of them."""
        cdef size_t i
        cdef object hook = self.first_record
        if self.has_renamed:
            self.relabel()
        if hook is not None and self.seq > self.message_seq:
            self.first_record = None
            try:
                hook(self.run_of_trades.recv)
            except (Exception, CancelledError) as error:
                self.report(error, "first_record")
        if self.timer is not None and self.segment_count:
            self.timer.begin_dispatch()
        for i in range(self.segment_count):
            self.dispatch_row(&self.segments[i])
        return 0

    cdef int dispatch_row(self, Segment *segment) except -1:
        cdef int level = segment.level
        cdef Ring tape = self.tape(level)
        cdef const uint8_t *records = jvq_ring_at(tape.ring, segment.first, tape.ring.head)
        cdef Py_ssize_t count = segment.count
        cdef Meter timer = self.timer
        cdef object batch = None
        cdef str where = <str>HANDLER_NAMES[level]
        cdef str code = (<str>self.code_names[segment.code] if segment.code >= 0 else
                         code_of((<const Head *>records).code))
        for handler in self.handlers(level):
            try:
                if timer is not None:
                    timer.enter_call(handler, where)
                try:
                    if not isinstance(handler, Handler):
                        if batch is None:
                            batch = tape.lend(segment.first, count)
                        handler(code, batch)
                    elif call(<Handler>handler, level, records, count) == -1:
                        raise SystemError(f"{type(handler).__name__}.{where} returned -1 without an exception")
                finally:
                    if timer is not None:
                        timer.leave_call(handler, where, code)
            except (Exception, CancelledError) as error:  # CancelledError of a future that it looked at
                self.report(error, where)
        return 0

    cdef int dispatch_part(self) except -1 with gil:
        """Makes room for more of a large message. An interrupt waits until all of the message is published."""
        if self.interrupt is None:
            try:
                self.dispatch()
            except BaseException as interrupt:
                self.interrupt = interrupt
        self.drop_pending()
        return 0

    cdef void drop_pending(self) noexcept nogil:
        self.segment_count = 0
        self.pending[0] = self.pending[1] = self.pending[2] = 0
        self.row_is_open = False

    cdef int relabel(self) except -1:
        """Writes down the names that changed: all at once, since each alone would wait for the GIL."""
        cdef Code *code
        cdef int i
        self.has_renamed = False
        for i in range(self.code_count):
            code = &self.codes[i]
            if code.is_renamed:
                code.is_renamed = False
                self.code_labels[i] = (<const char *>code.name.data)[:code.name.length].decode("utf-8", "replace")
        return 0

    cdef int dispatch_batch(self, uint64_t batch) except -1:
        cdef Meter timer = self.timer
        for handler in self.batch_handlers:
            try:
                if timer is not None:
                    timer.enter_call(handler, "on_batch")
                try:
                    handler(batch)
                finally:
                    if timer is not None:
                        timer.leave_call(handler, "on_batch", "")
            except (Exception, CancelledError) as error:
                self.report(error, "on_batch")
        return 0

    cdef int report(self, object error, str where) except -1:
        self.count.callback_errors += 1
        if not self.error_handlers:
            self.failures.log(where, error)
        for handler in self.error_handlers:
            if self.timer is not None:
                self.timer.begin_call(handler, "on_error")
            try:
                handler(error, where)
            except (Exception, CancelledError) as second:
                self.count.callback_errors += 1
                self.failures.log("on_error", second, f"on_error raised {type(second).__name__} when told of {where}")
            finally:
                if self.timer is not None:
                    self.timer.end_call(handler, "on_error")
        return 0

    cdef tuple handlers(self, int level):
        return (self.trade_handlers if level == TRADES else
                self.quote_handlers if level == QUOTES else self.depth_handlers)

    cdef Ring tape(self, int level):
        return self.trades if level == TRADES else self.quotes if level == QUOTES else self.depths

    # --- codes ---

    cdef int find(self, uint64_t key) noexcept nogil:
        """The index of a code, or -1."""
        cdef uint64_t slot = hash_of(key) & self.slot_mask
        while self.slots[slot] >= 0:
            if self.codes[self.slots[slot]].key == key:
                return self.slots[slot]
            slot = (slot + 1) & self.slot_mask
        return -1

    cdef int learn(self, uint64_t key) except -2:
        """Makes an entry for a code; -1 where there is no room. Its histories take their storage later."""
        cdef int index, level
        cdef uint64_t slot
        cdef Code *code
        cdef list rings = [None, None, None]
        cdef str name = code_of(key)
        for level in range(3):
            if self.history_length[level]:
                rings[level] = Ring(DTYPES[LEVELS[level]], self.history_length[level], "history")
        # making the rings may have let another thread run, which may have made this entry or taken the last one
        index = self.find(key)
        if index >= 0:
            return index
        index = self.code_count
        if index == self.max_codes:
            return -1
        code = &self.codes[index]
        code.key = key
        code.latest_time_of_day = -1
        for level in range(3):
            if rings[level] is not None:
                (<Ring>rings[level]).move_to(&code.ring[level], self.code_memory)
                code.history[level] = &code.ring[level]
        self.code_names.append(name)
        self.code_labels.append(None)
        self.histories.append(rings)
        self.code_count += 1
        self.code_memory.count = self.code_count
        slot = hash_of(key) & self.slot_mask
        while self.slots[slot] >= 0:
            slot = (slot + 1) & self.slot_mask
        self.slots[slot] = index
        return index

    cdef int index_of(self, code) except -2:
        return self.find(key_of(code)) if isinstance(code, str) and is_code(code) else -1


def struct_layout():
    """Offset and size of each field of the C structs, and under "" the whole size: what the dtypes must equal."""
    cdef AnyRecord r
    cdef char *base = <char *>&r
    shared = {"seq": (<char *>&r.trade.seq - base, sizeof(r.trade.seq)),
              "time": (<char *>&r.trade.time - base, sizeof(r.trade.time)),
              "recv": (<char *>&r.trade.recv - base, sizeof(r.trade.recv)),
              "code": (<char *>&r.trade.code - base, sizeof(r.trade.code))}
    return {
        "TRADE": shared | {
            "id": (<char *>&r.trade.id - base, sizeof(r.trade.id)),
            "price": (<char *>&r.trade.price - base, sizeof(r.trade.price)),
            "volume": (<char *>&r.trade.volume - base, sizeof(r.trade.volume)),
            "flags": (<char *>&r.trade.flags - base, sizeof(r.trade.flags)),
            "": (0, sizeof(jvq_trade)),
        },
        "QUOTE": shared | {
            "price": (<char *>&r.quote.price - base, sizeof(r.quote.price)),
            "change": (<char *>&r.quote.change - base, sizeof(r.quote.change)),
            "amount": (<char *>&r.quote.amount - base, sizeof(r.quote.amount)),
            "volume": (<char *>&r.quote.volume - base, sizeof(r.quote.volume)),
            "flags": (<char *>&r.quote.flags - base, sizeof(r.quote.flags)),
            "bid_price": (<char *>&r.quote.bid_price - base, sizeof(r.quote.bid_price)),
            "bid_volume": (<char *>&r.quote.bid_volume - base, sizeof(r.quote.bid_volume)),
            "ask_price": (<char *>&r.quote.ask_price - base, sizeof(r.quote.ask_price)),
            "ask_volume": (<char *>&r.quote.ask_volume - base, sizeof(r.quote.ask_volume)),
            "": (0, sizeof(jvq_quote)),
        },
        "DEPTH": shared | {
            "price": (<char *>&r.depth.price - base, sizeof(r.depth.price)),
            "last_close": (<char *>&r.depth.last_close - base, sizeof(r.depth.last_close)),
            "amount": (<char *>&r.depth.amount - base, sizeof(r.depth.amount)),
            "volume": (<char *>&r.depth.volume - base, sizeof(r.depth.volume)),
            "change": (<char *>&r.depth.change - base, sizeof(r.depth.change)),
            "flags": (<char *>&r.depth.flags - base, sizeof(r.depth.flags)),
            "bid_price": (<char *>&r.depth.bid_price - base, sizeof(r.depth.bid_price)),
            "bid_volume": (<char *>&r.depth.bid_volume - base, sizeof(r.depth.bid_volume)),
            "ask_price": (<char *>&r.depth.ask_price - base, sizeof(r.depth.ask_price)),
            "ask_volume": (<char *>&r.depth.ask_volume - base, sizeof(r.depth.ask_volume)),
            "": (0, sizeof(jvq_depth)),
        },
    }


cdef inline bint starts_with(const uint8_t *text, const char *prefix) noexcept nogil:
    while prefix[0] and text[0] == <uint8_t>prefix[0]:
        text += 1
        prefix += 1
    return prefix[0] == 0


cdef inline int call(Handler handler, int level, const uint8_t *records, Py_ssize_t count) except? -1:
    if level == TRADES:
        return handler.on_trades(<const Trade *>records, count)
    if level == QUOTES:
        return handler.on_quotes(<const Quote *>records, count)
    return handler.on_depths(<const Depth *>records, count)


cdef inline uint64_t hash_of(uint64_t key) noexcept nogil:
    # Fibonacci hashing; the high bits are the mixed ones
    return (key * <uint64_t>0x9E3779B97F4A7C15) >> 32


cdef inline int64_t of_day(int64_t time) noexcept nogil:
    cdef int64_t rest = (time + ZONE) % DAY
    return rest + DAY if rest < 0 else rest


cdef inline bint is_same(const Text *text, const uint8_t *data, size_t length) noexcept nogil:
    return text.length == length and (length == 0 or memcmp(text.data, data, length) == 0)


cdef inline void keep(Text *text, const uint8_t *data, size_t length, size_t least_room) noexcept nogil:
    """Remembers bytes. Without memory for them nothing is remembered."""
    cdef uint8_t *larger
    if length > text.room or text.data == NULL:
        larger = <uint8_t *>realloc(text.data, max(length, least_room, <size_t>1))
        if larger == NULL:
            text.length = 0
            return
        text.data = larger
        text.room = max(length, least_room, <size_t>1)
    memcpy(text.data, data, length)
    text.length = length


cdef bint is_code(str name):
    return 1 <= len(name) <= 8 and all([ord(letter) < 128 and jvq_is_code_byte(ord(letter)) for letter in name])


cdef str code_of(uint64_t key):
    return (<const char *>&key)[:8].rstrip(b"\0").decode("ascii")


cdef uint64_t key_of(str name):
    cdef uint64_t key = 0
    cdef bytes raw = name.encode("ascii")
    memcpy(&key, <const char *>raw, len(raw))
    return key


cdef check_limit(str name, value, least, most):
    try:
        number = as_index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    value = number
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most}, not {value!r}")


cdef dict by_level(str name, value, dict defaults, dict shares, int least):
    """The records of each level that a setting means: a number for all, or a dict by level."""
    if isinstance(value, Mapping):
        unknown = [level for level in value if level not in LEVELS]
        if unknown:
            raise ValueError(f"{name} has no level {unknown[0]!r}; the levels are {', '.join(LEVELS)}")
        for level in value:
            check_limit(f"{name} of {level}", value[level], least, 1 << 32)
        return defaults | dict(value)
    check_limit(name, value, least, 1 << 32)
    return {level: max(value // shares[level], 1) if value else 0 for level in LEVELS}


cdef int force(jvq_order *order, str name, value, dict orders) except -1:
    if value != "auto":
        if not isinstance(value, str) or value not in orders:
            raise ValueError(f"{name} must be 'auto' or one of {', '.join(map(repr, orders))}, not {value!r}")
        order.second = orders[value]
        order.settled = order.forced = True
    return 0


cdef str source_of(const jvq_order *order):
    return "forced" if order.forced else "detected" if order.settled else "default"


cdef as_date(day):
    if day is None:
        return None
    if isinstance(day, datetime.datetime):
        day = day.date()
    if isinstance(day, str):
        try:
            day = datetime.date.fromisoformat(day)
        except ValueError:
            raise ValueError(f"trading_day must be 'YYYY-MM-DD', not {day!r}") from None
    if not isinstance(day, datetime.date):
        raise TypeError(f"trading_day must be 'YYYY-MM-DD', a date or None, not {type(day).__name__}")
    if not 1970 <= day.year < 2116:
        raise ValueError(f"trading_day {day} is outside 1970 to 2115")
    return day


cdef tuple as_handlers(str name, handlers):
    if handlers is None:
        return ()
    several = (handlers,) if callable(handlers) or isinstance(handlers, Handler) else tuple(handlers)
    for handler in several:
        check(name, handler)
    return several
