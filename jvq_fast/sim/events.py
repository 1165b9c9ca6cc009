"""What a market says: trades and snapshots, exact. Prices and money are decimal text, volumes shares."""

from typing import NamedTuple

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


class Trade(NamedTuple):
    """One trade. ``time`` is microseconds since midnight, Asia/Shanghai."""

    time: int
    id: int
    price: str
    volume: int


Level = tuple[str, int]  # price, volume


class Snapshot(NamedTuple):
    """The state of a code: the day's totals and the book, best level first, up to ten levels a side."""

    time: int
    name: str
    price: str
    last_close: str
    change: str
    amount: str
    volume: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]


Event = tuple[Trade, ...] | Snapshot


def percent(price: int, last_close: int) -> str:
    """The change in percent with two decimals, rounded half up: ``"1.23"``. Zero where there is no last close."""
    if not last_close:
        return "0.00"
    hundredths, rest = divmod(abs(price - last_close) * 10_000, last_close)
    hundredths += rest * 2 >= last_close
    sign = "-" if price < last_close and hundredths else ""
    return f"{sign}{hundredths // 100}.{hundredths % 100:02d}"


def clock_text(time: int) -> str:
    """``HH:MM:SS`` of microseconds since midnight."""
    seconds = time // SECOND
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def parse_clock(text: str) -> int:
    """Microseconds since midnight of ``HH:MM[:SS[.ffffff]]``. ValueError for anything else."""
    parts = text.split(":")
    whole, _, fraction = (parts[2] if len(parts) == 3 else "0").partition(".")
    numbers = [*parts[:2], whole, fraction or "0"]
    if len(parts) not in (2, 3) or not all(each.isascii() and each.isdigit() for each in numbers):
        raise ValueError(f"not a time of day: {text!r}")
    hours, minutes, seconds = map(int, numbers[:3])
    if not (hours < 24 and minutes < 60 and seconds < 60):
        raise ValueError(f"not a time of day: {text!r}")
    return hours * HOUR + minutes * MINUTE + seconds * SECOND + int(fraction[:6].ljust(6, "0"))
