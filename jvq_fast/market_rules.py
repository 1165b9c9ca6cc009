"""Rules of the Shanghai and Shenzhen exchanges: dated data and pure functions, standard library only.

Codes are bare six-digit codes, or an index with its prefix ``i``. Days are ``datetime.date``, times of day
``datetime.time`` in Asia/Shanghai, prices ``Decimal`` in CNY. Every function may be called from any thread.
"""

import datetime as dt
from bisect import bisect_right
from decimal import ROUND_HALF_UP, Decimal
from enum import Enum
from typing import NamedTuple

__all__ = [
    "CALENDAR_END",
    "CALENDAR_START",
    "CLOSURES",
    "SESSIONS",
    "UNLIMITED_DAYS",
    "Board",
    "Lot",
    "Phase",
    "Session",
    "board",
    "daily_limit",
    "is_trading_day",
    "limit_prices",
    "lot",
    "next_trading_day",
    "phase",
    "previous_trading_day",
    "tick",
]


class Board(Enum):
    """What kind of security a code is, as far as the rules of trading differ."""

    MAIN = "main"
    STAR = "STAR"
    CHINEXT = "ChiNext"
    BOND = "convertible bond"
    FUND = "ETF"
    INDEX = "index"


class Phase(Enum):
    """What the exchange does at a time of day. ``PAUSE`` is 09:25-09:30: matched, and not yet trading."""

    CLOSED = "closed"
    OPENING_CALL = "opening call auction"
    PAUSE = "pause"
    CONTINUOUS = "continuous trading"
    LUNCH = "lunch"
    CLOSING_CALL = "closing call auction"


class Session(NamedTuple):
    """A stretch of the day, from ``start`` up to but not including ``end``."""

    start: dt.time
    end: dt.time
    phase: Phase


# SSE and SZSE trading rules (2023 editions), chapter on trading hours: the same on both exchanges since 2018-08-20.
SESSIONS = (
    Session(dt.time(9, 15), dt.time(9, 25), Phase.OPENING_CALL),
    Session(dt.time(9, 25), dt.time(9, 30), Phase.PAUSE),
    Session(dt.time(9, 30), dt.time(11, 30), Phase.CONTINUOUS),
    Session(dt.time(11, 30), dt.time(13, 0), Phase.LUNCH),
    Session(dt.time(13, 0), dt.time(14, 57), Phase.CONTINUOUS),
    Session(dt.time(14, 57), dt.time(15, 0), Phase.CLOSING_CALL),
)


def phase(time: dt.time) -> Phase:
    """The phase of a trading day at ``time``."""
    for session in SESSIONS:
        if session.start <= time < session.end:
            return session.phase
    return Phase.CLOSED


def _closed(year: int, *days: str) -> frozenset[dt.date]:
    return frozenset(dt.date.fromisoformat(f"{year}-{day}") for day in days)


# Weekdays on which both exchanges are closed. Source: the notices of the SSE and the SZSE on the year's closures
# (关于…年部分节假日休市安排的通知), published each December for the year that follows.
CLOSURES = (
    _closed(
        2023, "01-02", "01-23", "01-24", "01-25", "01-26", "01-27", "04-05", "05-01", "05-02", "05-03",
        "06-22", "06-23", "09-29", "10-02", "10-03", "10-04", "10-05", "10-06",
    )
    | _closed(
        2024, "01-01", "02-09", "02-12", "02-13", "02-14", "02-15", "02-16", "04-04", "04-05", "05-01", "05-02",
        "05-03", "06-10", "09-16", "09-17", "10-01", "10-02", "10-03", "10-04", "10-07",
    )
    | _closed(
        2025, "01-01", "01-28", "01-29", "01-30", "01-31", "02-03", "02-04", "04-04", "05-01", "05-02", "05-05",
        "06-02", "10-01", "10-02", "10-03", "10-06", "10-07", "10-08",
    )
    | _closed(
        2026, "01-01", "01-02", "02-16", "02-17", "02-18", "02-19", "02-20", "02-23", "04-06", "05-01", "05-04",
        "05-05", "06-19", "09-25", "10-01", "10-02", "10-05", "10-06", "10-07",
    )
)  # fmt: skip
CALENDAR_START = dt.date(2023, 1, 1)
CALENDAR_END = dt.date(2026, 12, 31)


def is_trading_day(day: dt.date) -> bool:
    """Whether the exchanges open on ``day``. Outside ``CALENDAR_START`` … ``CALENDAR_END`` every weekday counts."""
    return day.weekday() < 5 and day not in CLOSURES


def next_trading_day(day: dt.date) -> dt.date:
    """The first trading day after ``day``."""
    day += dt.timedelta(days=1)
    while not is_trading_day(day):
        day += dt.timedelta(days=1)
    return day


def previous_trading_day(day: dt.date) -> dt.date:
    """The last trading day before ``day``."""
    day -= dt.timedelta(days=1)
    while not is_trading_day(day):
        day -= dt.timedelta(days=1)
    return day


# By prefix, longest first. Prefixes that are not listed count as main board.
_BOARDS = {
    "688": Board.STAR, "689": Board.STAR,
    "300": Board.CHINEXT, "301": Board.CHINEXT, "302": Board.CHINEXT,
    "110": Board.BOND, "111": Board.BOND, "113": Board.BOND, "118": Board.BOND,
    "123": Board.BOND, "127": Board.BOND, "128": Board.BOND,
    "51": Board.FUND, "56": Board.FUND, "58": Board.FUND, "159": Board.FUND,
}  # fmt: skip


def board(code: str) -> Board:
    """The board of a code, from its prefix."""
    if code.startswith("i"):
        return Board.INDEX
    return _BOARDS.get(code[:3]) or _BOARDS.get(code[:2]) or Board.MAIN


def tick(code: str) -> Decimal:
    """The smallest price step, CNY. An index has none; its level is published with four decimals."""
    kind = board(code)
    if kind is Board.INDEX:
        return Decimal("0.0001")
    return Decimal("0.001") if kind in (Board.FUND, Board.BOND) else Decimal("0.01")


class Lot(NamedTuple):
    """An order to buy has at least ``minimum`` units and goes up by ``step``; a rest below may only be sold, whole."""

    minimum: int
    step: int


def lot(code: str) -> Lot:
    """The size of orders: shares, ETF units or bonds."""
    kind = board(code)
    if kind is Board.STAR:
        return Lot(200, 1)
    return Lot(10, 10) if kind is Board.BOND else Lot(100, 100)


# Ratio in force from a day on. ChiNext: reform of 2020-08-24. STAR: since its opening. Convertible bonds: rules of
# 2022-08-01, before which there was no limit. ST: 5 % on the main board (under revision); on STAR and ChiNext ST has
# the board's own limit.
_LIMITS: dict[Board, tuple[tuple[dt.date, Decimal | None], ...]] = {
    Board.MAIN: ((dt.date(1996, 12, 16), Decimal("0.10")),),
    Board.STAR: ((dt.date(2019, 7, 22), Decimal("0.20")),),
    Board.CHINEXT: ((dt.date(2009, 10, 30), Decimal("0.10")), (dt.date(2020, 8, 24), Decimal("0.20"))),
    Board.BOND: ((dt.date(2022, 8, 1), Decimal("0.20")),),
    Board.FUND: ((dt.date(1998, 4, 7), Decimal("0.10")),),
    Board.INDEX: (),
}
_ST_LIMITS: tuple[tuple[dt.date, Decimal | None], ...] = ((dt.date(1998, 4, 22), Decimal("0.05")),)
# A share's first trading days have no limit (main board: registration reform of 2023-04-10).
UNLIMITED_DAYS = 5


def daily_limit(code: str, day: dt.date, *, st: bool = False, days_listed: int | None = None) -> Decimal | None:
    """How far the price may move from the last close on ``day``, as a ratio; None where there is no limit.

    ``st``: under special treatment. ``days_listed``: trading days since listing, the first one 1; None for long ago.
    """
    kind = board(code)
    if days_listed is not None and days_listed <= UNLIMITED_DAYS and kind in (Board.MAIN, Board.STAR, Board.CHINEXT):
        return None
    dated = _ST_LIMITS if st and kind is Board.MAIN else _LIMITS[kind]
    at = bisect_right([since for since, _ in dated], day)
    return dated[at - 1][1] if at else None


def limit_prices(last_close: Decimal, ratio: Decimal, step: Decimal) -> tuple[Decimal, Decimal]:
    """The lowest and the highest price of a day: ``last_close`` × (1 ∓ ``ratio``), rounded half up to ``step``."""

    def rounded(price: Decimal) -> Decimal:
        return (price / step).to_integral_value(ROUND_HALF_UP) * step

    return rounded(last_close * (1 - ratio)), rounded(last_close * (1 + ratio))
