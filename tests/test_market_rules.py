"""The rules of the exchanges: calendar, sessions, boards, ticks, lots, daily limits."""

import datetime as dt
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jvq_fast import market_rules as rules
from jvq_fast.market_rules import Board, Phase

D = dt.date


@pytest.mark.parametrize(("year", "days"), [(2023, 242), (2024, 242), (2025, 243), (2026, 242)])
def test_a_year_has_as_many_trading_days_as_the_exchanges_counted(year: int, days: int) -> None:
    every = (D(year, 1, 1) + dt.timedelta(days=number) for number in range(366))
    assert sum(rules.is_trading_day(day) for day in every if day.year == year) == days


def test_every_closure_is_a_weekday_inside_the_calendar() -> None:
    for day in rules.CLOSURES:
        assert day.weekday() < 5
        assert rules.CALENDAR_START <= day <= rules.CALENDAR_END


@pytest.mark.parametrize(
    ("day", "following"),
    [
        (D(2023, 1, 20), D(2023, 1, 30)),
        (D(2024, 2, 8), D(2024, 2, 19)),
        (D(2025, 9, 30), D(2025, 10, 9)),
        (D(2026, 2, 13), D(2026, 2, 24)),
        (D(2026, 11, 20), D(2026, 11, 23)),
        (D(2023, 2, 1), D(2023, 2, 2)),
    ],
)
def test_holidays_and_weekends_are_stepped_over_both_ways(day: dt.date, following: dt.date) -> None:
    assert rules.next_trading_day(day) == following
    assert rules.previous_trading_day(following) == day


def test_beyond_the_calendar_weekdays_count_as_open() -> None:
    assert rules.is_trading_day(D(2027, 10, 1))
    assert not rules.is_trading_day(D(2027, 10, 2))


@pytest.mark.parametrize(
    ("clock", "phase"),
    [
        ("09:14:59.999", Phase.CLOSED), ("09:15", Phase.OPENING_CALL), ("09:25", Phase.PAUSE),
        ("09:30", Phase.CONTINUOUS), ("11:29:59", Phase.CONTINUOUS), ("11:30", Phase.LUNCH),
        ("13:00", Phase.CONTINUOUS), ("14:57", Phase.CLOSING_CALL), ("14:59:59", Phase.CLOSING_CALL),
        ("15:00", Phase.CLOSED), ("00:00", Phase.CLOSED),
    ],
)  # fmt: skip
def test_phases_of_the_day(clock: str, phase: Phase) -> None:
    assert rules.phase(dt.time.fromisoformat(clock)) is phase


@pytest.mark.parametrize(
    ("codes", "board", "tick", "lot"),
    [
        ("600519 601398 603259 605580 000001 001979 002594 003816", Board.MAIN, "0.01", (100, 100)),
        ("688981 689009", Board.STAR, "0.01", (200, 1)),
        ("300750 301269 302132", Board.CHINEXT, "0.01", (100, 100)),
        ("110074 111010 113050 118031 123107 127063 128079", Board.BOND, "0.001", (10, 10)),
        ("510300 560010 588000 159915", Board.FUND, "0.001", (100, 100)),
        ("i000001 i399006", Board.INDEX, "0.0001", (100, 100)),
    ],
)
def test_board_tick_and_lot_follow_from_the_code(codes: str, board: Board, tick: str, lot: tuple[int, int]) -> None:
    for code in codes.split():
        assert rules.board(code) is board
        assert rules.tick(code) == Decimal(tick)
        assert rules.lot(code) == lot


@pytest.mark.parametrize(
    ("code", "day", "options", "limit"),
    [
        ("600519", D(2026, 1, 5), {}, "0.10"),
        ("600519", D(2026, 1, 5), {"st": True}, "0.05"),
        ("688981", D(2026, 1, 5), {"st": True}, "0.20"),
        ("300750", D(2020, 8, 21), {}, "0.10"),
        ("300750", D(2020, 8, 24), {}, "0.20"),
        ("113050", D(2022, 7, 29), {}, None),
        ("113050", D(2022, 8, 1), {}, "0.20"),
        ("510300", D(2026, 1, 5), {}, "0.10"),
        ("i000001", D(2026, 1, 5), {}, None),
        ("688981", D(2026, 1, 5), {"days_listed": 5}, None),
        ("688981", D(2026, 1, 5), {"days_listed": 6}, "0.20"),
        ("600519", D(1990, 12, 19), {}, None),
    ],
)
def test_daily_limits_are_dated(code: str, day: dt.date, options: dict[str, int], limit: str | None) -> None:
    expected = None if limit is None else Decimal(limit)
    assert rules.daily_limit(code, day, **options) == expected


@pytest.mark.parametrize(
    ("close", "ratio", "tick", "low", "high"),
    [
        ("12.35", "0.10", "0.01", "11.12", "13.59"),  # 11.115 and 13.585: half goes up
        ("1845.76", "0.10", "0.01", "1661.18", "2030.34"),
        ("118.350", "0.20", "0.001", "94.680", "142.020"),
        ("6.50", "0.05", "0.01", "6.18", "6.83"),  # 6.175 and 6.825
    ],
)
def test_limit_prices_are_rounded_half_up(close: str, ratio: str, tick: str, low: str, high: str) -> None:
    assert rules.limit_prices(Decimal(close), Decimal(ratio), Decimal(tick)) == (Decimal(low), Decimal(high))


@given(
    close=st.decimals("0.01", "5000", places=2),
    ratio=st.sampled_from([Decimal("0.05"), Decimal("0.10"), Decimal("0.20")]),
)
def test_limit_prices_are_on_the_tick_and_around_the_last_close(close: Decimal, ratio: Decimal) -> None:
    tick = Decimal("0.01")
    low, high = rules.limit_prices(close, ratio, tick)
    assert low <= close <= high
    assert low % tick == high % tick == 0
    assert abs(low - close * (1 - ratio)) <= tick / 2
    assert abs(high - close * (1 + ratio)) <= tick / 2
