"""Rings against plain lists: through append, through decode, by hand, by chance, and by two reader threads."""

import gc
import sys
import threading

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import jvq_fast as jvq
import wire
from jvq_fast.decoder import Decoder
from jvq_fast.ring import Ring

DTYPES = {"trades": jvq.TRADE, "quotes": jvq.QUOTE, "depths": jvq.DEPTH}
both_layouts = pytest.mark.parametrize("layout", ["tape", "history"])
each_level = pytest.mark.parametrize("level", list(DTYPES))


def numbered(dtype, first, count):
    """Records first+1 … first+count, every field a function of the number."""
    numbers = np.arange(first + 1, first + count + 1, dtype=np.int64)
    records = np.zeros(count, dtype)
    for name in dtype.names:
        if name == "code":
            records[name] = numbers.astype("S8")
        elif records[name].ndim == 2:
            records[name] = numbers[:, None] * 3 + np.arange(records[name].shape[1])
        else:
            records[name] = numbers
    return records


def rounded(capacity, layout):
    return 1 << (capacity - 1).bit_length() if layout == "tape" else capacity


def assert_view(view, dtype):
    assert view.dtype == dtype
    assert view.ndim == 1
    assert view.flags.c_contiguous
    assert view.flags.aligned
    assert not view.flags.writeable
    assert len(view) == 0 or not view.flags.owndata


def test_a_tape_is_rounded_up_to_a_power_of_two_and_a_history_is_not():
    for wanted in (1, 2, 3, 4, 5, 7, 8, 9, 1000, 1024, 1025):
        assert Ring(jvq.TRADE, wanted).capacity == rounded(wanted, "tape")
        assert Ring(jvq.TRADE, wanted, "tape").capacity == rounded(wanted, "tape")
        assert Ring(jvq.TRADE, wanted, "history").capacity == wanted


@both_layouts
def test_a_new_ring_is_empty_and_holds_no_storage(layout):
    ring = Ring(jvq.QUOTE, 10, layout)
    assert (ring.head, ring.claimed, ring.nbytes, len(ring)) == (0, 0, 0, 0)
    assert ring.dtype == jvq.QUOTE
    assert ring.layout == layout
    assert len(ring.last(3)) == 0
    for read in (ring.since, ring.copy_since):
        records, cursor, lost = read(0)
        assert (len(records), cursor, lost) == (0, 0, 0)
        assert records.dtype == jvq.QUOTE
    ring.append(np.zeros(0, jvq.QUOTE))
    assert ring.head == 0


@both_layouts
@each_level
def test_since_from_every_age_at_every_head(layout, level):
    dtype = DTYPES[level]
    for wanted in (1, 2, 3, 4, 7, 8):
        capacity = rounded(wanted, layout)
        for step in (1, 2, 3, capacity, capacity + 1, 3 * capacity + 2):
            ring, head = Ring(dtype, wanted, layout), 0
            while head < 5 * capacity:
                ring.append(numbered(dtype, head, step))
                head += step
                assert ring.head == ring.claimed == head
                assert len(ring) == min(head, capacity)
                model = numbered(dtype, 0, head)
                for cursor in range(head + 1):
                    start = max(cursor, head - capacity)
                    for read in (ring.since, ring.copy_since):
                        records, after, lost = read(cursor)
                        assert (after, lost) == (head, start - cursor)
                        assert records.tobytes() == model[start:].tobytes()
                    assert_view(ring.since(cursor)[0], dtype)
                for n in range(capacity + 3):
                    view = ring.last(n)
                    assert view.tobytes() == model[head - min(n, head, capacity) :].tobytes()
                    assert_view(view, dtype)


@both_layouts
def test_wrong_cursors_and_counts_are_errors_and_change_nothing(layout):
    ring = Ring(jvq.TRADE, 4, layout)
    for head in (0, 3, 9):
        ring.append(numbered(jvq.TRADE, ring.head, head - ring.head))
        for read in (ring.since, ring.copy_since):
            for cursor in (head + 1, head + 1000, 2**62, -1, -(2**62)):
                with pytest.raises(ValueError):
                    read(cursor)
            for cursor in (2**63, 2**64, -(2**64)):
                with pytest.raises((ValueError, OverflowError)):
                    read(cursor)
            for cursor in ("0", None, 0.5, b"1"):
                with pytest.raises((TypeError, ValueError)):
                    read(cursor)
        with pytest.raises(ValueError):
            ring.last(-1)
        for n in ("0", None, 0.5):
            with pytest.raises((TypeError, ValueError)):
                ring.last(n)
        assert len(ring.last(2**62)) == min(head, 4)
        assert ring.head == head
        assert ring.since(np.int64(head))[1] == head


@pytest.mark.parametrize("capacity", [0, -1, -(2**40)])
@both_layouts
def test_a_ring_needs_a_positive_capacity(layout, capacity):
    with pytest.raises(ValueError):
        Ring(jvq.TRADE, capacity, layout)


def test_wrong_settings_of_a_ring_are_refused():
    with pytest.raises(ValueError):
        Ring(jvq.TRADE, 4, "queue")
    with pytest.raises((TypeError, ValueError)):
        Ring(jvq.TRADE, "4")
    with pytest.raises((MemoryError, ValueError, OverflowError)):
        Ring(jvq.DEPTH, 2**62).append(numbered(jvq.DEPTH, 0, 1))
    with pytest.raises((MemoryError, ValueError, OverflowError)):
        Ring(jvq.DEPTH, 2**62, "history").append(numbered(jvq.DEPTH, 0, 1))


@both_layouts
def test_append_refuses_other_records(layout):
    ring = Ring(jvq.TRADE, 4, layout)
    ring.append(numbered(jvq.TRADE, 0, 2))
    for wrong in (numbered(jvq.QUOTE, 0, 1), np.zeros(64, np.uint8), np.zeros(3), "abc", None, 5, object()):
        with pytest.raises((TypeError, ValueError)):
            ring.append(wrong)
    assert ring.head == 2
    assert ring.last(4).tobytes() == numbered(jvq.TRADE, 0, 2).tobytes()


@both_layouts
def test_append_takes_strided_and_reversed_records(layout):
    ring = Ring(jvq.TRADE, 8, layout)
    ring.append(numbered(jvq.TRADE, 0, 8)[::2])
    ring.append(numbered(jvq.TRADE, 8, 3)[::-1])
    assert ring.last(8)["seq"].tolist() == [1, 3, 5, 7, 11, 10, 9]


@both_layouts
def test_a_ring_can_be_fed_from_its_own_views(layout):
    for capacity in (3, 4, 8):
        for k in range(capacity + 1):
            ring = Ring(jvq.TRADE, capacity, layout)
            size = ring.capacity
            model = list(range(1, 2 * size + 1))
            ring.append(numbered(jvq.TRADE, 0, 2 * size))
            for _ in range(5):
                ring.append(ring.last(min(k, size)))
                model += model[len(model) - min(k, size) :]
                assert ring.last(size)["seq"].tolist() == model[-size:]


@both_layouts
def test_reserve_takes_all_storage_before_the_first_record(layout):
    ring = Ring(jvq.TRADE, 100, layout)
    ring.reserve()
    taken = ring.nbytes
    assert taken >= 2 * ring.capacity * 64
    ring.reserve()
    for _ in range(10):
        ring.append(numbered(jvq.TRADE, ring.head, 77))
    assert ring.nbytes == taken
    assert ring.last(10).tobytes() == numbered(jvq.TRADE, 760, 10).tobytes()


@both_layouts
def test_views_share_the_storage_and_a_copy_does_not(layout):
    ring = Ring(jvq.TRADE, 4, layout)
    ring.append(numbered(jvq.TRADE, 0, 3))
    again = ring.last(2)
    assert np.shares_memory(again, ring.last(3))
    assert np.shares_memory(again, ring.since(0)[0])
    copy = ring.copy_since(0)[0]
    assert not np.shares_memory(copy, again)
    before = copy.tobytes()
    ring.append(numbered(jvq.TRADE, 3, 50))
    assert copy.tobytes() == before


@both_layouts
def test_a_view_can_not_be_written_through(layout):
    ring = Ring(jvq.TRADE, 4, layout)
    ring.append(numbered(jvq.TRADE, 0, 3))
    for view in (ring.last(2), ring.since(0)[0]):
        with pytest.raises(ValueError):
            view["price"] = 0
        with pytest.raises(ValueError):
            view[0] = view[1]
        with pytest.raises(ValueError):
            view.flags.writeable = True
        with pytest.raises(ValueError):
            view.setflags(write=True)
        base = view.base
        while isinstance(base, np.ndarray):
            assert not base.flags.writeable
            base = base.base
    assert ring.last(4).tobytes() == numbered(jvq.TRADE, 0, 3).tobytes()


def use_memory_again():
    """What a freed block of a ring's size would be overwritten by."""
    kept = []
    for size in (200, 4_000, 20_000, 100_000, 1_000_000):
        kept += [np.full(size, 0xAB, np.uint8) for _ in range(20)]
    return kept


@both_layouts
def test_views_outlive_the_name_of_their_ring(layout):
    for capacity in (4, 64, 4096):
        ring = Ring(jvq.TRADE, capacity, layout)
        ring.append(numbered(jvq.TRADE, 0, 3 * capacity))
        views = [ring.last(3), ring.since(3 * capacity - 2)[0], ring.last(capacity)[1:3]]
        texts = [view.tobytes() for view in views]
        del ring
        gc.collect()
        kept = use_memory_again()
        assert [view.tobytes() for view in views] == texts
        del kept


def test_views_and_rings_outlive_their_decoder():
    decoder = Decoder(capacity=64, history=16)
    batches = []
    decoder.on_trades = lambda code, records: batches.append(records)
    decoder.decode(wire.message(wire.trades("600519", *[wire.trade(number=i) for i in range(10)])))
    tape, history = decoder.trades, decoder.history("600519", "trades")
    views = [*batches, tape.last(4), history.last(4), tape.since(2)[0]]
    texts = [view.tobytes() for view in views]
    batches.clear()
    del decoder
    gc.collect()
    kept = use_memory_again()
    assert [view.tobytes() for view in views] == texts
    assert (tape.head, history.head) == (10, 10)
    assert tape.last(10)["id"].tolist() == history.last(10)["id"].tolist() == list(range(10))
    del kept


def test_a_decoder_hands_out_the_same_ring_every_time():
    decoder = Decoder(capacity=64, history=16)
    assert decoder.trades is decoder.trades
    decoder.decode(wire.message(wire.trades("600519", wire.trade())))
    assert decoder.history("600519", "trades") is decoder.history("600519", "trades")


class AppendMachine(RuleBasedStateMachine):
    """One ring, fed by append, and a list."""

    layout = "tape"

    @initialize(level=st.sampled_from(list(DTYPES)), capacity=st.integers(1, 17))
    def begin(self, level, capacity):
        self.dtype = DTYPES[level]
        self.ring = Ring(self.dtype, capacity, self.layout)
        self.capacity = rounded(capacity, self.layout)
        self.model = []  # the number of each record ever appended
        self.views = []  # (index of its first record, view)

    def expect(self, start, stop):
        return b"".join(numbered(self.dtype, n - 1, 1).tobytes() for n in self.model[start:stop])

    @rule(count=st.integers(0, 60))
    def append(self, count):
        first = self.model[-1] if self.model else 0
        self.ring.append(numbered(self.dtype, first, count))
        self.model += range(first + 1, first + count + 1)

    @rule(count=st.integers(0, 20))
    def append_own_last(self, count):
        view = self.ring.last(count)
        self.ring.append(view)
        held = min(count, len(self.model), self.capacity)
        self.model += self.model[len(self.model) - held :]

    @rule(count=st.integers(0, 40))
    def last(self, count):
        view = self.ring.last(count)
        held = min(count, len(self.model), self.capacity)
        start = len(self.model) - held
        assert view.tobytes() == self.expect(start, None)
        assert_view(view, self.dtype)
        self.views.append((start, view))

    @rule(age=st.integers(0, 80), copied=st.booleans())
    def since(self, age, copied):
        head = len(self.model)
        cursor = max(0, head - age)
        records, after, lost = (self.ring.copy_since if copied else self.ring.since)(cursor)
        start = max(cursor, head - self.capacity)
        assert (after, lost) == (head, start - cursor)
        assert records.tobytes() == self.expect(start, head)
        if not copied:
            assert_view(records, self.dtype)
            self.views.append((start, records))

    @rule(ahead=st.integers(1, 5))
    def a_cursor_ahead_is_an_error(self, ahead):
        for read in (self.ring.since, self.ring.copy_since):
            with pytest.raises(ValueError):
                read(len(self.model) + ahead)

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def drop_a_view(self, data):
        self.views.pop(data.draw(st.integers(0, len(self.views) - 1)))

    @invariant()
    def counters_agree(self):
        if hasattr(self, "ring"):
            assert self.ring.head == self.ring.claimed == len(self.model)
            assert len(self.ring) == min(len(self.model), self.capacity)

    @invariant()
    def a_view_is_good_until_it_is_lapped(self):
        for start, view in getattr(self, "views", ()):
            good = max(start, len(self.model) - self.capacity)
            if good < start + len(view):
                assert view[good - start :].tobytes() == self.expect(good, start + len(view))


class AppendToHistoryMachine(AppendMachine):
    layout = "history"


class DecodeMachine(RuleBasedStateMachine):
    """A decoder of small rings, two codes, three levels, and a list of sequence numbers for each ring."""

    @initialize(capacity=st.sampled_from([1, 2, 4, 8, 16]), history=st.sampled_from([0, 1, 2, 3, 5, 16, 20]))
    def begin(self, capacity, history):
        self.decoder = Decoder(capacity=capacity, history=dict.fromkeys(DTYPES, history))
        self.capacity, self.history = capacity, history
        self.tape = {level: [] for level in DTYPES}
        self.codes = {(code, level): [] for code in ("600519", "i000001") for level in DTYPES}
        self.cursors = {}
        self.seq = 0
        self.seen = []
        self.decoder.on_trades = self.called
        self.decoder.on_quotes = self.called
        self.decoder.on_depths = self.called

    def called(self, code, records):
        assert_view(records, records.dtype)
        self.seen += [
            (code, int(seq), int(volume)) for seq, volume in zip(records["seq"], records["volume"], strict=True)
        ]

    def rings(self):
        for level in DTYPES:
            yield getattr(self.decoder, level), self.tape[level], self.capacity
        if self.history:
            for (code, level), model in self.codes.items():
                if model:
                    yield self.decoder.history(code, level), model, self.history

    @rule(
        parts=st.lists(
            st.tuples(st.sampled_from(list(DTYPES)), st.sampled_from(["600519", "i000001"]), st.integers(1, 40)),
            max_size=4,
        )
    )
    def decode(self, parts):
        rows, wanted = [], []
        for level, code, count in parts:
            records = []
            for _ in range(count):
                self.seq += 1
                volume = str(self.seq * 7)
                if level == "trades":
                    records.append(wire.trade(number=self.seq, volume=volume))
                else:
                    records.append((wire.quote if level == "quotes" else wire.depth)(volume=volume))
                self.tape[level].append(self.seq)
                self.codes[code, level].append(self.seq)
                wanted.append((code, self.seq, self.seq * 7))
            rows.append(wire.row(level, code, *records))
        self.seen.clear()
        assert self.decoder.decode(wire.message(*rows)) == len(wanted)
        assert self.seen == wanted

    @rule(n=st.integers(0, 45))
    def last(self, n):
        for ring, model, capacity in self.rings():
            held = min(n, len(model), capacity)
            view = ring.last(n)
            assert view["seq"].tolist() == model[len(model) - held :]
            assert_view(view, ring.dtype)

    @rule(age=st.integers(0, 90), copied=st.booleans())
    def since(self, age, copied):
        for ring, model, capacity in self.rings():
            cursor = max(0, len(model) - age)
            start = max(cursor, len(model) - capacity)
            records, after, lost = (ring.copy_since if copied else ring.since)(cursor)
            assert (after, lost) == (len(model), start - cursor)
            assert records["seq"].tolist() == model[start:]
            assert records["volume"].tolist() == [7 * seq for seq in model[start:]]

    @rule(copied=st.booleans())
    def follow(self, copied):
        """A reader that keeps its cursor gets every record once, or is told."""
        for i, (ring, model, capacity) in enumerate(self.rings()):
            if i >= 3:
                break
            cursor = self.cursors.get((copied, i), 0)
            records, after, lost = (ring.copy_since if copied else ring.since)(cursor)
            assert cursor + lost + len(records) == after == len(model)
            assert lost == max(0, len(model) - capacity - cursor)
            self.cursors[copied, i] = after

    @invariant()
    def heads_agree(self):
        if hasattr(self, "decoder"):
            for ring, model, capacity in self.rings():
                assert ring.head == ring.claimed == len(model)
                assert ring.capacity == capacity
                assert len(ring) == min(len(model), capacity)


def run_machine(machine):
    machine.TestCase.settings = settings(stateful_step_count=30)
    return machine.TestCase


class TestAppendToTape(run_machine(AppendMachine)):  # type: ignore[misc]
    pass


class TestAppendToHistory(run_machine(AppendToHistoryMachine)):  # type: ignore[misc]
    pass


class TestDecodeIntoRings(run_machine(DecodeMachine)):  # type: ignore[misc]
    pass


def one_level_message(level, code, first, count):
    make = {
        "trades": lambda i: wire.trade(number=i, volume=i),
        "quotes": lambda i: wire.quote(volume=str(i)),
        "depths": lambda i: wire.depth(volume=str(i)),
    }[level]
    return wire.message(wire.row(level, code, *[make(i) for i in range(first, first + count)]))


@each_level
def test_a_message_up_to_a_quarter_of_the_tape_is_published_whole_before_its_callbacks(level):
    decoder = Decoder(capacity=64, history=0)
    heads = []
    setattr(decoder, "on_" + level, lambda code, records: heads.append((len(records), getattr(decoder, level).head)))
    decoder.decode(one_level_message(level, "600519", 1, 16))
    assert heads == [(16, 16)]


@each_level
@pytest.mark.parametrize("factor", [0.5, 1, 1.5, 4, 10])
def test_a_message_larger_than_the_tape_reaches_its_callbacks_whole(level, factor):
    decoder = Decoder(capacity=64, history=dict.fromkeys(DTYPES, 8))
    seen = []
    setattr(decoder, "on_" + level, lambda code, records: seen.append(records["volume"].tolist()))
    batches = []
    decoder.on_batch = batches.append
    count = int(64 * factor)
    assert decoder.decode(one_level_message(level, "600519", 1, count)) == count
    assert [volume for part in seen for volume in part] == list(range(1, count + 1))
    assert max(map(len, seen)) <= 16
    assert batches == [count]
    assert getattr(decoder, level).last(100)["volume"].tolist() == list(range(max(1, count - 63), count + 1))
    assert decoder.history("600519", level).last(100)["volume"].tolist() == list(range(count - 7, count + 1))


def test_many_small_rows_in_a_message_larger_than_the_tape_are_all_called_in_order():
    decoder = Decoder(capacity=16, history=4)
    seen = []
    decoder.on_trades = lambda code, records: seen.append((code, records["id"].tolist()))
    rows, wanted = [], []
    for i in range(100):
        code = f"{600000 + i % 7}"
        rows.append(wire.trades(code, wire.trade(number=2 * i), wire.trade(number=2 * i + 1)))
        wanted.append((code, [2 * i, 2 * i + 1]))
    decoder.decode(wire.message(*rows))
    flat = [(code, number) for code, numbers in seen for number in numbers]
    assert flat == [(code, number) for code, numbers in wanted for number in numbers]


def test_capacity_may_differ_by_level():
    decoder = Decoder(capacity={"trades": 5, "quotes": 4, "depths": 1}, history={"trades": 3, "quotes": 0, "depths": 1})
    assert [decoder.trades.capacity, decoder.quotes.capacity, decoder.depths.capacity] == [8, 4, 1]
    decoder.reserve(["lv2_600519", "lv10_600519"])
    assert decoder.history("600519", "trades").capacity == 3
    assert decoder.history("600519", "depths").capacity == 1
    with pytest.raises(ValueError):
        decoder.history("600519", "quotes")


def test_one_number_for_history_is_shared_out_over_the_levels():
    for n in (1, 3, 15, 16, 100, 1024):
        decoder = Decoder(capacity=8, history=n)
        decoder.reserve(["lv1_600519", "lv2_600519", "lv10_600519"])
        capacities = [decoder.history("600519", level).capacity for level in DTYPES]
        assert capacities == [n, max(1, n // 4), max(1, n // 16)]


# One writer, two readers


def rows_of(level, first, count):
    """Records first … first + count - 1, whose every number is a function of their own."""
    if level == "trades":
        return [b"09:30:00.000,%d,%d.25,%d" % (i, i, i % 100_003) for i in range(first, first + count)]
    fields, head = (26, b"09:30:00,N") if level == "quotes" else (46, b"09:30:00,N")
    return [head + b",%d" % i * (fields - 2) for i in range(first, first + count)]


def assert_not_torn(level, records, first, cycle):
    """Record number first … : seq, and all that follows from it; after a cycle the numbers begin again."""
    numbers = np.arange(first, first + len(records), dtype=np.int64)
    assert np.array_equal(records["seq"].astype(np.int64), numbers), "a record that is out of its place"
    numbers = (numbers - 1) % cycle + 1
    assert (records["code"] == b"600519").all()
    assert len(records) == 0 or (records["time"] == records["time"][0]).all()
    if level == "trades":
        assert np.array_equal(records["id"], numbers)
        assert np.array_equal(records["price"], numbers + 0.25)
        assert np.array_equal(records["volume"], numbers % 100_003)
        assert not records["flags"].any()
        return
    for name in ("price", "amount", "volume"):
        assert np.array_equal(records[name], numbers), name
    for name in ("bid_price", "bid_volume", "ask_price", "ask_volume"):
        assert (records[name] == numbers[:, None]).all(), name


class Reader(threading.Thread):
    """Follows a ring with copy_since until the writer is done; notes what it saw."""

    def __init__(self, level, ring, stop, cycle):
        super().__init__(daemon=True)
        self.level, self.ring, self.stop, self.cycle = level, ring, stop, cycle
        self.read = self.lost = self.calls = 0
        self.error = None

    def run(self):
        try:
            cursor = 0
            while True:
                done = self.stop.is_set()
                records, after, lost = self.ring.copy_since(cursor)
                self.calls += 1
                assert lost >= 0
                assert after == cursor + lost + len(records)
                assert len(records) <= self.ring.capacity
                assert_not_torn(self.level, records, cursor + lost + 1, self.cycle)
                cursor, self.read, self.lost = after, self.read + len(records), self.lost + lost
                if done and cursor == self.ring.head:
                    return
        except BaseException as error:
            self.error = error


def race(level, rings, write, total, cycle, timeout=120):
    stop = threading.Event()
    readers = [Reader(level, ring, stop, cycle) for ring in rings]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for reader in readers:
            reader.start()
        write(lambda: any(reader.error for reader in readers))
    finally:
        stop.set()
        for reader in readers:
            reader.join(timeout)
        sys.setswitchinterval(interval)
    assert not any(reader.is_alive() for reader in readers)
    for reader in readers:
        if reader.error is not None:
            raise reader.error
    assert [reader.read + reader.lost for reader in readers] == [total] * len(readers)
    return readers


@each_level
@pytest.mark.parametrize("message_bytes", [2_000, 100_000])
def test_two_reader_threads_never_see_a_torn_or_invented_record(level, message_bytes, long):
    size = len(rows_of(level, 100_000, 1)[0]) + 1
    per_message = max(1, message_bytes // size)
    messages = 40 if message_bytes > 32_768 else 400
    # Stored blocks: compressed size is the size of the text, so that the large ones let the GIL go.
    payloads = [
        wire.deflate(wire.row(level, "600519", *rows_of(level, 1 + i * per_message, per_message)), level=0)
        for i in range(messages)
    ]
    assert all((len(payload) > 32_768) == (message_bytes > 32_768) for payload in payloads)
    cycle, cycles = messages * per_message, 20 * (10 if long else 1)
    for capacity in (64, 4096):
        decoder = Decoder(capacity=capacity, history=dict.fromkeys(DTYPES, 50), trading_day="2026-11-23")
        decoder.reserve([{"trades": "lv2", "quotes": "lv1", "depths": "lv10"}[level] + "_600519"])
        rings = [getattr(decoder, level), decoder.history("600519", level)]

        def write(failed, decoder=decoder):
            for _ in range(cycles):
                for payload in payloads:
                    assert decoder.decode(payload) == per_message
                if failed():
                    break

        race(level, rings, write, cycles * cycle, cycle)


@both_layouts
def test_readers_of_an_appended_ring_never_see_a_torn_record(layout, long):
    ring = Ring(jvq.TRADE, 100, layout)
    ring.reserve()
    blocks, total = [], 0
    for i in range(2_000 * (10 if long else 1)):
        count = 1 + i * 37 % 150
        blocks.append((total, count))
        total += count

    def write(failed):
        for first, count in blocks:
            numbers = np.arange(first + 1, first + count + 1)
            records = np.zeros(count, jvq.TRADE)
            records["code"] = b"600519"
            records["seq"] = records["id"] = numbers
            records["price"] = numbers + 0.25
            records["volume"] = numbers % 100_003
            ring.append(records)
            if failed():
                break

    race("trades", [ring, ring], write, total, total)


def test_a_reader_that_is_never_there_costs_the_writer_nothing_and_is_told_all_it_lost():
    decoder = Decoder(capacity=16, history=4)
    text = wire.row("trades", "600519", *rows_of("trades", 1, 5_000))
    decoder.decode(wire.deflate(text))
    records, after, lost = decoder.trades.copy_since(0)
    assert (after, lost, len(records)) == (5_000, 4_984, 16)
    records, after, lost = decoder.history("600519", "trades").copy_since(10)
    assert (after, lost, len(records)) == (5_000, 4_986, 4)


@both_layouts
def test_no_view_can_be_made_writable(layout):
    ring = Ring(jvq.TRADE, 4, layout)
    ring.append(np.zeros(3, jvq.TRADE))
    view = ring.last(2)
    with pytest.raises(ValueError):
        view.flags.writeable = True
    with pytest.raises((AttributeError, TypeError)):
        view.base.flags.writeable = True
    with pytest.raises(TypeError):
        memoryview(view.base)


def test_a_ring_that_no_memory_can_hold_is_refused():
    with pytest.raises(ValueError, match="memory"):
        Ring("V8388608", 2**40)


def test_a_record_that_is_refused_overwrites_nothing():
    decoder = jvq.Decoder(capacity=4, trading_day="2026-11-23")
    for i in range(6):
        decoder.decode(wire.message(f"lv2_600519=09:30:0{i},{i},10.0{i},100".encode()))
    across_the_seam, before = decoder.trades.since(2)[0], decoder.trades.since(2)[0].copy()
    decoder.resume()
    for text in ("lv2_600519=09:30:09,9,10.09,0.5", "lv2_600519=09:30:05,5,10.05,100"):
        assert decoder.decode(wire.message(text.encode())) == 0
    assert np.array_equal(across_the_seam, before)
    assert decoder.trades.claimed == decoder.trades.head == 6
    assert decoder.trades.copy_since(2)[2] == 0
