"""Where the time goes between the exchange and a handler: the only part of the data path with a clock."""

cimport cython
from libc.stdint cimport int64_t, uint64_t

from collections import namedtuple

from jvq_fast.records import LEVELS

__all__ = ["Call", "Histogram", "Interval", "Meter"]

cdef extern from "atomics.h" nogil:
    uint64_t jvq_load_relaxed(const uint64_t *p)

cdef extern from "clock.h" nogil:
    int64_t jvq_clock_ns()

cdef extern from "histogram.h" nogil:
    enum:
        JVQ_HISTOGRAM_BITS
    uint64_t jvq_histogram_floor(unsigned bucket)

cdef extern from "delay.h" nogil:
    void jvq_delay_shift(jvq_delay *delay, int64_t by)

cdef double NS = 1e-9
cdef int64_t CLOCK_STEP = 50_000_000    # more than this between two reads, and our wall clock was set
cdef uint64_t NONE = 0xFFFFFFFFFFFFFFFF
cdef int FIRST_BOUND = 6                # 64 ns: nothing that is timed here takes less


Interval = namedtuple(
    "Interval",
    ("start", "end", "callbacks", "decode", "calls", "network", "network_at", "dispatch", "dispatch_callbacks",
     "dispatch_own", "slowest", "slowest_where", "slowest_handler", "slowest_code"),
    defaults=(0.0, 0.0, 0, None, 0.0, 0.0, 0.0, 0.0, 0.0, "", "", ""), module="jvq_fast.meter",
)
Interval.__doc__ = """What a Meter saw between two calls of ``take``; times in seconds.

start, end: on the clock of ``time.monotonic``. callbacks, decode: spent in handlers, and in decoding and publishing;
calls: of handlers. network: by how much the latest of the messages came late (None where none could be judged), and
network_at when it was read. dispatch:
the longest way of a message from its socket read to its first handler, dispatch_callbacks how much of it earlier
handlers of that read took; dispatch_own: the longest such way without what handlers took. slowest: the longest call of
a handler, slowest_where its event ("on_trades"), slowest_handler its name, slowest_code the code ("" where there is
none).
"""

Call = namedtuple("Call", ("where", "handler", "began", "seconds"), module="jvq_fast.meter")
Call.__doc__ = """A call of a handler: its event ("on_trades") and name, since when (ns, monotonic), how long (s)."""


@cython.final
cdef class Histogram:
    """Counts in fixed buckets, eight per power of two: percentiles are at most an eighth too high.

    unit: "seconds" (up to 18 minutes, in ns) or "records". What is above the last bucket counts in it; ``max`` and
    ``mean`` are exact.

    One thread at a time records, any may read. A reader may see a value counted whose sum is still to come.
    """

    def __cinit__(self, unit="seconds"):
        if unit not in ("seconds", "records"):
            raise ValueError(f"unit must be 'seconds' or 'records', not {unit!r}")
        self.unit = unit
        self.scale = NS if unit == "seconds" else 1.0

    def record(self, value):
        """Counts a value: seconds or records, from 0. ValueError where it is below, or is no number."""
        if not 0 <= value < 1 << 60:
            raise ValueError(f"a histogram counts numbers from 0, not {value!r}")
        jvq_histogram_record(&self.data, round(value / self.scale), 1)

    @property
    def count(self):
        """Values recorded."""
        cdef uint64_t count = 0
        cdef int i
        for i in range(JVQ_HISTOGRAM_BUCKETS):
            count += jvq_load_relaxed(&self.data.buckets[i])
        return count

    @property
    def max(self):
        """The largest value, 0.0 before there is one."""
        return jvq_load_relaxed(&self.data.max) * self.scale

    @property
    def sum(self):
        """All values together."""
        return jvq_load_relaxed(&self.data.sum) * self.scale

    @property
    def mean(self):
        """The average, 0.0 before there is a value."""
        cdef object count = self.count
        return self.sum / count if count else 0.0

    def percentile(self, p):
        """No more than ``p`` percent of the values are above this, which is the end of a bucket or ``max``.

        0.0 before there is a value. ValueError where p is not from 0 to 100.
        """
        cdef uint64_t[JVQ_HISTOGRAM_BUCKETS] counts
        cdef uint64_t count = 0, seen = 0, most
        cdef double wanted
        cdef int i
        if not 0 <= p <= 100:
            raise ValueError(f"a percentile is a number from 0 to 100, not {p!r}")
        for i in range(JVQ_HISTOGRAM_BUCKETS):
            counts[i] = jvq_load_relaxed(&self.data.buckets[i])
            count += counts[i]
        if count == 0:
            return 0.0
        wanted = max(count * <double>p / 100, 1.0)
        for i in range(JVQ_HISTOGRAM_BUCKETS - 1):
            seen += counts[i]
            if seen >= wanted:
                most = jvq_histogram_floor(i + 1) - 1
                return min(most * self.scale, self.max)
        return self.max

    def buckets(self):
        """``[(bound, count), …]`` by powers of two: so many values were below the bound and not below the one before.

        The bounds are the same for every histogram of a unit; the last is infinite.
        """
        cdef unsigned i = 0
        cdef int bit
        cdef uint64_t count = 0
        buckets = []
        for bit in range(FIRST_BOUND if self.unit == "seconds" else 0, JVQ_HISTOGRAM_BITS):
            while jvq_histogram_floor(i) < <uint64_t>1 << bit:
                count += jvq_load_relaxed(&self.data.buckets[i])
                i += 1
            buckets.append(((<uint64_t>1 << bit) * self.scale, count))
            count = 0
        while i < JVQ_HISTOGRAM_BUCKETS:
            count += jvq_load_relaxed(&self.data.buckets[i])
            i += 1
        buckets.append((float("inf"), count))
        return buckets

    def __repr__(self):
        return (f"Histogram({self.unit}, count={self.count}, p50={self.percentile(50):.3g}, "
                f"p99={self.percentile(99):.3g}, max={self.max:.3g})")


@cython.final
cdef class Meter:
    """Measures one decoder: ``decoder.meter = Meter()``. It stays the same over reconnects.

    A delay says how much later our clock showed the arrival than the exchange's the event. Difference of the clocks and
    way can't be told apart, so the least delay of the last 5 to 10 minutes is the baseline (``skew``), and a record is
    late by what it exceeds it. A delay that jumps by more than an hour is another day or another clock: it begins a
    baseline, and counts nowhere. Nor do records flagged REPEAT, STALE or NO_DATE, or without arrival, nor what a code's
    first message on a connection holds.

    ``take``, ``begin_call`` and ``end_call`` belong to the thread that decodes, everything else to any.
    """

    def __cinit__(self):
        self.excesses = tuple([Histogram() for _ in LEVELS])
        self.distances = tuple([Histogram("records") for _ in LEVELS])
        self.dispatch = Histogram()
        self.callbacks = Histogram()
        cdef int level
        for level in range(3):
            self.delays.levels[level].excess = &(<Histogram>self.excesses[level]).data
        self.delays.late = NONE
        self.start = jvq_clock_ns()
        self.slowest_where = self.running_where = ""
        self.last = Interval(self.start * NS, self.start * NS)

    @property
    def network(self):
        """By level: how late records arrived, less the baseline; lv1 and lv10 have whole seconds, so up to 1 s more."""
        return dict(zip(LEVELS, self.excesses, strict=True))

    @property
    def readers(self):
        """By level: how far behind the tape's head ``since`` and ``copy_since`` were asked for records."""
        return dict(zip(LEVELS, self.distances, strict=True))

    @property
    def skew(self):
        """Seconds that our clock is ahead of the exchange's, shortest way included; None before it is known.

        From trades where there were any: their times have milliseconds.
        """
        cdef int level
        for level in range(3):
            if self.delays.levels[level].is_known:
                return self.delays.levels[level].baseline * NS
        return None

    def take(self):
        """What was measured since the last call, an ``Interval``, and starts anew. The decoding thread."""
        cdef int64_t now = jvq_clock_ns()
        handler, self.slowest_handler = self.slowest_handler, None
        code, self.slowest_code = self.slowest_code, None
        where, self.slowest_where = self.slowest_where, ""
        self.last = Interval(
            self.start * NS, now * NS, self.called_ns * NS, self.decoded_ns * NS, self.calls,
            self.network * NS if self.network_read else None, self.network_read * NS, self.worst_dispatch * NS,
            self.worst_dispatch_callbacks * NS, self.worst_own * NS,
            self.slowest * NS, where, name_of(handler), code or "",
        )
        self.start = now
        self.called_before += self.called_ns
        self.decoded_before += self.decoded_ns
        self.called_ns = self.decoded_ns = 0
        self.calls = self.network = 0
        self.network_read = 0
        self.worst_dispatch = self.worst_dispatch_callbacks = self.worst_own = self.slowest = 0
        return self.last

    def running_call(self):
        """The ``Call`` of a handler that has not returned, None while there is none. Any thread.

        One that hangs ends in no histogram: here it shows while it runs.
        """
        cdef int64_t began = self.mark
        handler, where = self.running, self.running_where
        if self.depth <= 0:
            return None
        return Call(where, name_of(handler), began, max(0, jvq_clock_ns() - began) * NS)

    def stats(self):
        """Figures by name; see docs/counters.md."""
        cdef Histogram network
        network = next((each for each in self.excesses if each.count), self.excesses[0])
        last = self.last
        stats = {}
        for name, histogram, latest in (("network", network, last.network or 0.0),
                                        ("dispatch", self.dispatch, last.dispatch),
                                        ("callback", self.callbacks, last.slowest)):
            stats[f"lag_{name}_p50_us"] = microseconds(histogram.percentile(50))
            stats[f"lag_{name}_p99_us"] = microseconds(histogram.percentile(99))
            stats[f"lag_{name}_max_us"] = microseconds(histogram.max)
            stats[f"lag_{name}_now_us"] = microseconds(latest)
        stats["lag_readers_max"] = max([int(each.max) for each in self.distances])
        stats["callback_seconds"] = (self.called_before + self.called_ns) * NS
        stats["decode_seconds"] = (self.decoded_before + self.decoded_ns) * NS
        call = self.running_call()
        stats["callback_running"] = f"{call.where} {call.handler}" if call else ""
        stats["callback_running_seconds"] = round(call.seconds, 6) if call else 0.0
        skew = self.skew
        stats["clock_skew_ms"] = 0.0 if skew is None else round(skew * 1e3, 3)
        return stats

    def __repr__(self):
        cdef Histogram network = next((each for each in self.excesses if each.count), self.excesses[0])
        skew = self.skew
        return (f"Meter(network p99={network.percentile(99):.3g} s, dispatch p99={self.dispatch.percentile(99):.3g} s, "
                f"callbacks p99={self.callbacks.percentile(99):.3g} s, calls={self.callbacks.count}, "
                f"skew={'unknown' if skew is None else f'{skew:.3g} s'})")

    # --- the thread that decodes ---

    def begin_call(self, handler, str where):
        """Before a handler that the decoder does not call: its time counts as the handlers'. Needs ``end_call``."""
        if self.depth == 0:
            if self.is_reading:
                self.account()
            else:
                self.mark = jvq_clock_ns()
        self.enter_call(handler, where)

    def end_call(self, handler, str where, str code=""):
        """After it. ``handler`` is kept until ``take``, ``where`` is its event."""
        self.depth -= 1
        if self.depth == 0:
            self.called(handler, where, code)

    cdef void enter_call(self, handler, str where) noexcept:
        """Before a handler, where all time up to now is accounted for."""
        self.depth += 1
        if self.depth == 1:
            self.running, self.running_where = handler, where

    cdef void leave_call(self, handler, str where, str code) noexcept:
        self.depth -= 1
        self.called(handler, where, code)

    cdef void begin_read(self, int64_t recv_ns, bint is_live) noexcept:
        """A socket read begins; ``is_live`` if ``recv_ns`` is now."""
        cdef int64_t offset
        cdef int level
        self.mark = self.read_ns = jvq_clock_ns()
        self.is_reading = True
        self.is_unaccounted = self.read_dispatched = False
        self.read_callbacks = 0
        self.depth = 0
        if is_live:
            offset = recv_ns - self.mark
            if self.has_offset and not -CLOCK_STEP <= offset - self.offset <= CLOCK_STEP:
                for level in range(3):
                    jvq_delay_shift(&self.delays.levels[level], offset - self.offset)
            self.offset = offset
            self.has_offset = True

    cdef void begin_message(self) noexcept:
        self.delays.late = NONE
        self.message_dispatched = False
        self.is_unaccounted = True

    cdef void end_message(self) noexcept:
        if self.delays.late != NONE and self.delays.late >= self.network:
            self.network = self.delays.late
            self.network_read = self.read_ns

    cdef void begin_dispatch(self) noexcept:
        """Just before handlers are called for records."""
        cdef int64_t lag
        self.account()
        if not self.message_dispatched:
            self.message_dispatched = self.read_dispatched = True
            lag = self.mark - self.read_ns
            jvq_histogram_record(&self.dispatch.data, lag, 1)
            if lag > self.worst_dispatch:
                self.worst_dispatch = lag
                self.worst_dispatch_callbacks = self.read_callbacks
            self.worst_own = max(self.worst_own, lag - self.read_callbacks)

    cdef void begin_batch(self) noexcept:
        """Just before ``on_batch``, which is the first to hear of records where nobody else does."""
        self.message_dispatched = self.read_dispatched
        self.begin_dispatch()

    cdef void end_read(self) noexcept:
        if self.is_unaccounted:
            self.account()
        self.is_reading = False

    cdef void abandon_read(self) noexcept:
        """The connection is gone, and the last read perhaps not ended."""
        self.is_reading = self.is_unaccounted = False

    cdef void forget_delays(self) noexcept:
        """The next record of each level begins a baseline."""
        cdef int level
        for level in range(3):
            self.delays.levels[level].is_known = False

    cdef void account(self) noexcept:
        """All since ``mark`` was decoding."""
        cdef int64_t now = jvq_clock_ns()
        self.decoded_ns += now - self.mark
        self.mark = now
        self.is_unaccounted = False

    cdef void called(self, handler, str where, code) noexcept:
        """All since ``mark`` was a handler's."""
        cdef int64_t now = jvq_clock_ns()
        cdef int64_t spent = now - self.mark
        self.mark = now
        self.calls += 1
        self.called_ns += spent
        self.read_callbacks += spent
        jvq_histogram_record(&self.callbacks.data, spent, 1)
        if spent > self.slowest:
            self.slowest = spent
            self.slowest_handler = handler
            self.slowest_where = where
            self.slowest_code = code


cdef double microseconds(double seconds):
    return round(seconds * 1e6, 3)


cdef str name_of(handler):
    """How a user would find it: module and name, of what a partial or a callable object stands for."""
    if handler is None:
        return ""
    try:
        while hasattr(handler, "func"):
            handler = handler.func
        if not hasattr(handler, "__qualname__"):
            handler = type(handler)
        return f"{handler.__module__}.{handler.__qualname__}"
    except Exception:
        return object.__repr__(handler)
