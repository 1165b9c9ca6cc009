"""What the table shows of each code, read from a decoder's histories by any thread."""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from jvq_fast.cli import text
from jvq_fast.cli.lag import Percentiles
from jvq_fast.decoder import Decoder
from jvq_fast.records import LEVELS
from jvq_fast.ring import Ring

__all__ = ["HEADER", "LEFT", "Row", "Table", "cells"]

HEADER = ("code", "name", "last", "change", "volume", "trades/s", "age", "lag p50", "lag p99")
LEFT = (0, 1)
_NAME = 12
_WINDOW = 5.0


class Row(NamedTuple):
    """One code; what is not known is None."""

    code: str
    name: str
    last: float | None
    change: float | None
    volume: int | None
    rate: float | None
    age: float | None
    lag: Percentiles | None  # microseconds


class Table:
    """The rows of some codes, in their order. It reads the histories of the decoder, which must not be off."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._heads: deque[tuple[float, dict[str, int]]] = deque()

    def rows(self, codes: Iterable[str], lags: Mapping[str, Percentiles] | None = None) -> list[Row]:
        """One row for each code, as things stand now; trades per second are those of the last few seconds."""
        now, clock = time.time_ns(), time.monotonic()
        heads: dict[str, int] = {}
        rows = []
        for code in codes:
            newest: dict[str, np.void] = {}
            for level in LEVELS:
                try:
                    ring = self._decoder.history(code, level)
                except KeyError:
                    continue
                if level == "trades":
                    heads[code] = ring.head
                record = _newest(ring)
                if record is not None:
                    newest[level] = record
            rows.append(self._row(code, newest, heads.get(code), clock, now, (lags or {}).get(code)))
        self._heads.append((clock, heads))
        while len(self._heads) > 2 and clock - self._heads[1][0] >= _WINDOW:
            self._heads.popleft()
        return rows

    def _row(
        self, code: str, newest: dict[str, np.void], head: int | None, clock: float, now: int, lag: Percentiles | None
    ) -> Row:
        priced = [each for each in newest.values() if each["price"] > 0]
        snapshots = [newest[level] for level in ("quotes", "depths") if level in newest]
        snapshot = max(snapshots, key=_seq) if snapshots else None
        return Row(
            code=code,
            name=self._decoder.label(code) or "",
            last=float(max(priced, key=_seq)["price"]) if priced else None,
            change=float(snapshot["change"]) if snapshot is not None and snapshot["price"] > 0 else None,
            volume=int(snapshot["volume"]) if snapshot is not None else None,
            rate=self._rate(code, head, clock),
            age=(now - max(int(each["recv"]) for each in newest.values())) / 1e9 if newest else None,
            lag=lag,
        )

    def _rate(self, code: str, head: int | None, clock: float) -> float | None:
        if not head:
            return None
        for then, heads in self._heads:
            if clock > then:
                return (head - heads.get(code, 0)) / (clock - then)
        return None


def _seq(record: np.void) -> int:
    return int(record["seq"])


def _newest(ring: Ring) -> np.void | None:
    head = ring.head
    if head == 0:
        return None
    records, _, _ = ring.copy_since(head - 1)
    return records[-1] if len(records) else None


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, one cell for each entry of `HEADER`."""
    return (
        row.code,
        text.clip(row.name, _NAME),
        text.BLANK if row.last is None else text.price(row.last),
        text.BLANK if row.change is None else text.percent(row.change),
        text.BLANK if row.volume is None else text.volume(row.volume),
        text.BLANK if row.rate is None else f"{row.rate:,.1f}",
        text.BLANK if row.age is None else text.age(row.age),
        *((text.BLANK,) * 2 if row.lag is None else (f"{each:,.0f}" for each in row.lag)),
    )
