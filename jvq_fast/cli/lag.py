"""Lag of callbacks: noted cheaply on the feed's thread, worked out by the thread that shows it."""

import time
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jvq_fast.decoder import Decoder

__all__ = ["ArrivalLag", "Percentiles", "SendLag"]

Stamps = Callable[[int, int], tuple[int, NDArray[np.int64]]]
Percentiles = tuple[float, float]

_NOTES = 1 << 16
_KEPT = 1 << 20
_RECENT = 1 << 13


class _Notes:
    """Two whole numbers and a code per callback: the latest 65,536, in arrays that are made once."""

    def __init__(self) -> None:
        self._first = array("q", bytes(8 * _NOTES))
        self._second = array("q", bytes(8 * _NOTES))
        self._codes = [""] * _NOTES
        self._written = self._read = 0

    def add(self, code: str, first: int, second: int) -> None:
        i = self._written & (_NOTES - 1)
        self._first[i] = first
        self._second[i] = second
        self._codes[i] = code
        self._written += 1

    def take(self) -> tuple[list[int], list[int], list[str]]:
        """All since the last time, as far as they are still there. From one other thread."""
        end = self._written
        begin = max(self._read, end - _NOTES)
        self._read = end
        where = [i & (_NOTES - 1) for i in range(begin, end)]
        first, second = [self._first[i] for i in where], [self._second[i] for i in where]
        codes = [self._codes[i] for i in where]
        # What the writer came round to in the meantime is not what it was.
        lapped = max(0, self._written + 1 - _NOTES - begin)
        return first[lapped:], second[lapped:], codes[lapped:]


class _Lags:
    """Microseconds by code, the last million of them."""

    def __init__(self) -> None:
        self._lags: NDArray[np.float64] = np.empty(_KEPT)
        self._codes: NDArray[np.int32] = np.empty(_KEPT, np.int32)
        self._numbers: dict[str, int] = {}
        self.samples = 0

    def keep(self, codes: Sequence[str], lags: NDArray[np.float64]) -> None:
        slots = (self.samples + np.arange(len(lags))) % _KEPT
        self._lags[slots] = lags
        self._codes[slots] = [self._numbers.setdefault(code, len(self._numbers)) for code in codes]
        self.samples += len(lags)

    def overall(self) -> Percentiles | None:
        """p50 and p99 of all that is kept."""
        return _percentiles(np.sort(self._lags[: min(self.samples, _KEPT)]))

    def recent(self) -> Percentiles | None:
        """p50 and p99 of the latest few thousand callbacks."""
        return _percentiles(np.sort(self._lags[self._latest()]))

    def by_code(self) -> dict[str, Percentiles]:
        """p50 and p99 of each code among the latest few thousand callbacks."""
        recent = self._latest()
        codes, lags = self._codes[recent], self._lags[recent]
        order = np.lexsort((lags, codes))
        codes, lags = codes[order], lags[order]
        found = {}
        for code, number in self._numbers.items():
            low, high = np.searchsorted(codes, (number, number + 1))
            percentiles = _percentiles(lags[low:high])
            if percentiles:
                found[code] = percentiles
        return found

    def _latest(self) -> NDArray[np.int64]:
        return (self.samples - 1 - np.arange(min(self.samples, _RECENT))) % _KEPT


class ArrivalLag(_Lags):
    """From the arrival of a socket read to the callback of each of its rows."""

    def __init__(self) -> None:
        super().__init__()
        self._notes = _Notes()

    def note(self, code: str, records: NDArray[Any]) -> None:
        """A handler of on_trades, on_quotes and on_depths."""
        self._notes.add(code, time.time_ns(), int(records["recv"][0]))

    def work_off(self) -> None:
        """Take over what was noted since the last time; on the thread that shows it."""
        called, arrived, codes = self._notes.take()
        self.keep(codes, (np.array(called, np.int64) - np.array(arrived, np.int64)) / 1000)


class SendLag(_Lags):
    """From the moment the simulator sends a message to the callback of each of its rows.

    Messages are matched with the simulator's stamps by their number within the connection.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self._decoder = decoder
        self._notes = _Notes()
        self._starts: list[int] = []  # messages decoded before each connection
        self._connections: dict[int, int] = {}

    def note(self, code: str, _records: object) -> None:
        """A handler of on_trades, on_quotes and on_depths."""
        self._notes.add(code, time.monotonic_ns(), self._decoder.messages)

    def connected(self, _server: str) -> None:
        """A handler of on_connect: the simulator counts the messages of each connection from 0."""
        self._starts.append(self._decoder.messages)

    @property
    def connections(self) -> int:
        """How many connections were opened so far."""
        return len(self._starts)

    def belongs(self, nth: int, connection: int) -> None:
        """The `nth` connection opened here, from 1, is the simulator's number `connection`."""
        self._connections.setdefault(nth - 1, connection)

    def work_off(self, stamps: Stamps) -> None:
        """Match what was noted since the last time; `stamps(connection, since)` is the simulator's."""
        called, messages, codes = self._notes.take()
        first = 0
        while first < len(messages):
            nth = bisect_right(self._starts, messages[first] - 1) - 1
            end = self._starts[nth + 1] if nth + 1 < len(self._starts) else messages[-1]
            last = bisect_right(messages, end, first)
            if nth in self._connections:
                numbers = np.array(messages[first:last], np.int64) - 1 - self._starts[nth]
                offset, sent = stamps(self._connections[nth], int(numbers[0]))
                places = numbers - offset
                known = np.flatnonzero((places >= 0) & (places < len(sent)))
                lags = (np.array(called[first:last], np.int64)[known] - sent[places[known]]) / 1000
                self.keep([codes[first + i] for i in known], lags)
            first = max(last, first + 1)


def _percentiles(rising: NDArray[np.float64]) -> Percentiles | None:
    count = len(rising)
    return (float(rising[count // 2]), float(rising[count * 99 // 100])) if count else None
