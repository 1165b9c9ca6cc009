"""A Decoder and the oracle side by side: both are fed the same, and must agree after every message."""

import datetime
from collections.abc import Iterable
from typing import Any

import numpy as np

import jvq_fast as jvq
import oracle
from jvq_fast.decoder import Decoder
from jvq_fast.ring import Ring
from oracle import LEVELS, Message, Oracle, Record

DTYPES = {"trades": jvq.TRADE, "quotes": jvq.QUOTE, "depths": jvq.DEPTH}
Call = tuple[str, str, bytes]


def assert_same(level: str, found: np.ndarray, wanted: Iterable[Record]) -> None:
    """The same bytes: every field bit for bit, and zeros between them."""
    wanted = list(wanted)
    data, expected = found.tobytes(), oracle.pack_all(level, wanted)
    if data == expected:
        return
    size = oracle.LAYOUT[level].size
    assert len(found) == len(wanted), f"{len(found)} {level}, should be {len(wanted)}"
    for i in range(len(wanted)):
        if data[i * size : (i + 1) * size] != expected[i * size : (i + 1) * size]:
            got = oracle.unpack_all(level, data[i * size : (i + 1) * size])[0]
            want = oracle.unpack_all(level, expected[i * size : (i + 1) * size])[0]
            different = {name: (got[name], want[name]) for name in want if repr(got[name]) != repr(want[name])}
            raise AssertionError(f"{level}[{i}] (found, wanted): {different or 'padding'}; record {want}")


class Pair:
    """Settings are those of Decoder; both sides get them."""

    def __init__(
        self,
        capacity: int | dict[str, int] = 256,
        history: int | dict[str, int] = 32,
        trading_day: str | datetime.date | None = None,
        **settings: Any,
    ) -> None:
        self.decoder = Decoder("ab", capacity, history, trading_day, **settings)
        self.oracle = Oracle(capacity, history, trading_day, **settings)
        self.calls: list[Call] = []
        self.batches: list[int] = []
        self.decoder.on_trades = lambda code, records: self._called("trades", code, records)
        self.decoder.on_quotes = lambda code, records: self._called("quotes", code, records)
        self.decoder.on_depths = lambda code, records: self._called("depths", code, records)
        self.decoder.on_batch = self.batches.append
        self.errors: list[tuple[BaseException, str]] = []
        self.decoder.on_error = lambda error, where: self.errors.append((error, where))

    def _called(self, level: str, code: str, records: np.ndarray) -> None:
        assert records.dtype == DTYPES[level]
        assert records.flags.c_contiguous
        assert records.flags.aligned
        assert not records.flags.writeable
        assert len(records) > 0
        self.calls.append((level, code, records.tobytes()))

    def decode(self, payload: bytes, recv: int = 0) -> Message:
        self.calls.clear()
        self.batches.clear()
        published = self.decoder.decode(payload, recv)
        message = self.oracle.decode(payload, recv)
        assert not self.errors, self.errors
        assert published == message.published
        assert self.batches == [message.published]
        self.check_calls(message)
        return message

    def check_calls(self, message: Message) -> None:
        """One call a row, in the rows' order; a message larger than a quarter of a tape may come in more parts."""
        whole = message.published <= min(self.oracle.capacity.values()) // 4
        calls = list(self.calls)
        for row in message.rows:
            size = oracle.LAYOUT[row.level].size
            wanted = oracle.pack_all(row.level, row.records)
            got, parts = b"", 0
            while len(got) < len(wanted):
                assert calls, f"no call for {len(row.records)} {row.level} of {row.code}"
                level, code, data = calls.pop(0)
                assert (level, code) == (row.level, row.code)
                got, parts = got + data, parts + 1
            assert got == wanted, (
                oracle.unpack_all(row.level, got),
                oracle.unpack_all(row.level, wanted),
            )
            assert parts == 1 or not whole, f"{parts} calls for a row of {len(wanted) // size}"
        assert not calls, calls

    def check(self) -> None:
        """Rings, histories, names, codes and counters."""
        for level in LEVELS:
            self.check_ring(level, getattr(self.decoder, level), self.oracle.tape[level], self.oracle.held(level))
            if self.oracle.history[level]:
                for code, known in self.oracle.codes.items():
                    ring = self.decoder.history(code, level)
                    self.check_ring(level, ring, getattr(known, level), self.oracle.history_of(code, level))
        assert dict(self.decoder.names) == self.oracle.names
        assert self.decoder.messages == self.oracle.counters["messages"]
        self.check_stats()

    def check_ring(self, level: str, ring: Ring, ever: list[Record], held: list[Record]) -> None:
        assert ring.head == len(ever)
        assert len(ring) == len(held)
        assert_same(level, ring.last(len(held)), held)

    def check_stats(self) -> None:
        stats = self.decoder.stats()
        wanted: dict[str, Any] = dict(self.oracle.counters)
        for level, name in (("quotes", "lv1_order"), ("depths", "lv10_order")):
            wanted[name] = self.oracle.order[level].now
            wanted[name + "_source"] = self.oracle.order[level].source
        wanted["codes"] = len(self.oracle.codes)
        different = {name: (stats.get(name), wanted[name]) for name in wanted if stats.get(name) != wanted[name]}
        assert not different, f"(found, wanted): {different}"
        assert self.oracle.least_doubts <= int(stats["maybe_duplicate"]) <= self.oracle.most_doubts
        bad = self.oracle.bad
        assert sum(int(stats["bad_" + reason]) for reason in oracle.REASONS) == stats["bad"]
        for reason in oracle.REASONS:
            least = sum(count for reasons, _, count in bad if reasons == {reason})
            most = sum(count for reasons, _, count in bad if reason in reasons)
            assert least <= int(stats["bad_" + reason]) <= most, reason
        kept = self.decoder.bad_records
        assert [data for _, data in kept] == [data[:1024] for _, data, _ in bad[-16:]]
        for (reason, _), (reasons, _, _) in zip(kept, bad[-16:], strict=True):
            assert reason.removeprefix("bad_") in reasons
