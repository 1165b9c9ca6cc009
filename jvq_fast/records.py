"""The records: what one row of the feed becomes in memory.

Every dtype is a plain C struct; the padding behind ``flags`` belongs to no field and is zero. Times are nanoseconds
since the epoch (UTC), prices and amounts are CNY, volumes are shares.
"""

import enum
from typing import Final

import numpy as np

__all__ = ["DEPTH", "DTYPES", "LEVELS", "QUOTE", "TRADE", "Flag"]


class Flag(enum.IntFlag):
    """Bits of the field ``flags``."""

    STALE = 1
    """Older than ten minutes when it arrived."""
    REPEAT = 2
    """A snapshot whose text is the one published before it for this code."""
    NO_DATE = 4
    """Neither trading day nor arrival time was known: the day is 1970-01-01."""
    EMPTY_FIELD = 8
    """A number was missing; 0 stands in its place."""
    ORDER_UNSURE = 16
    """The row contradicts the field order that was detected or forced."""
    ID_TEXT = 32
    """The trade id is no decimal number up to 2**63 - 1; -1 stands in its place."""
    NO_PRICE = 64
    """The price is 0: before the first trade of the day, or a cancellation in a trade stream."""


def _head() -> list[tuple[str, str]]:
    return [
        ("seq", "u8"),  # counts all records of a decoder from 1, over all levels
        ("time", "i8"),  # exchange time
        ("recv", "i8"),  # arrival of the socket read; 0 where the caller gave none
        ("code", "S8"),
    ]


def _book(levels: int) -> list[tuple[str, str, tuple[int]]]:
    return [
        ("bid_price", "f8", (levels,)),  # best first
        ("bid_volume", "i8", (levels,)),
        ("ask_price", "f8", (levels,)),
        ("ask_volume", "i8", (levels,)),
    ]


TRADE: Final = np.dtype(
    [
        *_head(),
        ("id", "i8"),  # channel number of the exchange, unique with the code, not without gaps
        ("price", "f8"),
        ("volume", "i8"),
        ("flags", "u4"),
    ],
    align=True,
)
"""One trade (``lv2``), 64 bytes."""

QUOTE: Final = np.dtype(
    [
        *_head(),
        ("price", "f8"),
        ("change", "f8"),  # percent of the last close
        ("amount", "f8"),  # of the day so far
        ("volume", "i8"),  # of the day so far
        ("flags", "u4"),
        *_book(5),
    ],
    align=True,
)
"""A snapshot with five levels (``lv1``), 232 bytes."""

DEPTH: Final = np.dtype(
    [
        *_head(),
        ("price", "f8"),
        ("last_close", "f8"),
        ("amount", "f8"),  # of the day so far
        ("volume", "i8"),  # of the day so far
        ("change", "f8"),  # percent, (price / last_close - 1) * 100; 0 where last_close is 0
        ("flags", "u4"),
        *_book(10),
    ],
    align=True,
)
"""A snapshot with ten levels (``lv10``), 400 bytes."""

LEVELS: Final = ("trades", "quotes", "depths")
DTYPES: Final = {"trades": TRADE, "quotes": QUOTE, "depths": DEPTH}
