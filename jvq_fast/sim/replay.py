"""Real days from CSV files: trades in the order they arrived, snapshots at their own time."""

import csv
import datetime as dt
import gzip
import zlib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import TextIO

from jvq_fast.sim.events import Event, Snapshot, Trade, parse_clock, percent
from jvq_fast.sim.listing import known_names
from jvq_fast.sim.timeline import Timeline

_SHOWN = 200
_TRADES = {"date", "code", "time", "trade_id", "price", "qty", "recv_time"}
_QUOTES = {"date", "code", "time", "pre_close", "price", "amount", "volume"} | {
    f"{side}{level}{what}" for side in "bs" for level in range(1, 6) for what in ("", "p")
}

# The day, the time of day at which it goes on the wire, and 0 for a trade, 1 for a snapshot: trades go first.
_Order = tuple[str, int, int]
_Item = tuple[_Order, str, Event]


class ReplayError(Exception):
    """A file that is neither trades nor snapshots, or has a bad row."""


def load(paths: tuple[str, ...]) -> list[_Item]:
    """All events of the files in the order in which they are sent.

    Trades are sorted stably by arrival; those of a code that arrived together are one event.
    """
    items: list[_Item] = []
    for path in paths:
        try:
            items += _read(path)
        except (OSError, EOFError, zlib.error) as error:
            why = getattr(error, "strerror", None) or error
            raise ReplayError(f"--replay {path}: {why}; name CSV files of trades or snapshots") from None
    items.sort(key=lambda item: item[0])
    return list(_together(items))


def _read(path: str) -> list[_Item]:
    opened: TextIO
    with (
        gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else Path(path).open(encoding="utf-8") as opened
    ):
        reader = csv.DictReader(opened)
        try:
            columns = set(reader.fieldnames or ())
            if columns >= _TRADES:
                return [_trade(row) for row in map(_whole, reader)]
            if columns >= _QUOTES:
                return [_quote(row) for row in map(_whole, reader)]
        except (ValueError, ArithmeticError, csv.Error) as error:
            raise ReplayError(f"--replay {path}, line {reader.line_num}: {error}") from None
    found = ", ".join(sorted(columns))[:_SHOWN] or "nothing"
    raise ReplayError(f"--replay {path} has neither the columns of trades nor those of snapshots, but {found}")


def _whole(row: dict[str, str]) -> dict[str, str]:
    if None in row.values():
        raise ValueError("too few fields")
    dt.date.fromisoformat(row["date"])
    return row


def _trade(row: dict[str, str]) -> _Item:
    trade = Trade(parse_clock(row["time"]), int(row["trade_id"]), row["price"], int(row["qty"]))
    return (row["date"], parse_clock(row["recv_time"]), 0), row["code"], (trade,)


def _quote(row: dict[str, str]) -> _Item:
    time = parse_clock(row["time"])
    code = row["code"]
    price, last_close = (int(Decimal(row[name]) * 10_000) for name in ("price", "pre_close"))
    snapshot = Snapshot(
        time=time,
        name=_NAMES.get(code, code),
        price=row["price"],
        last_close=row["pre_close"],
        change=percent(price, last_close) if price else "0.00",
        amount=row["amount"],
        volume=int(row["volume"]),
        bids=tuple((row[f"b{level}p"], int(row[f"b{level}"])) for level in range(1, 6)),
        asks=tuple((row[f"s{level}p"], int(row[f"s{level}"])) for level in range(1, 6)),
    )
    return (row["date"], time, 1), code, snapshot


_NAMES = known_names()


def _together(items: list[_Item]) -> Iterator[_Item]:
    held: _Item | None = None
    for item in items:
        if held and item[:2] == held[:2] and item[0][2] == 0:
            held = (*held[:2], (*held[2], *item[2]))
            continue
        if held:
            yield held
        held = item
    if held:
        yield held


class Replay:
    """The events of files as a source. Codes that are in no file are silent."""

    def __init__(self, items: list[_Item], timeline: Timeline) -> None:
        """``timeline`` begins on the first day of ``items``; what lies before its start is left out."""
        self._events: list[tuple[int, str, Event]] = []
        start = timeline.now()
        for (day, time, _), code, event in items:
            moment = timeline.midnight(dt.date.fromisoformat(day)) + time
            if moment >= start:
                self._events.append((moment, code, event))
        self._next = 0
        self._last: dict[str, Snapshot] = {}

    def listen(self, code: str) -> None:
        """Nothing to do: all codes run."""

    def forget(self, code: str) -> None:
        """Nothing to do: all codes run."""

    def due(self) -> int | None:
        return self._events[self._next][0] if self._next < len(self._events) else None

    def happen(self, until: int) -> Iterator[tuple[int, str, Event]]:
        while self._next < len(self._events) and self._events[self._next][0] <= until:
            event = self._events[self._next]
            self._next += 1
            if isinstance(event[2], Snapshot):
                self._last[event[1]] = event[2]
            yield event

    def skip(self, to: int) -> None:
        while self._next < len(self._events) and self._events[self._next][0] < to:
            self._next += 1

    def snapshot(self, code: str) -> Snapshot | None:
        return self._last.get(code)
