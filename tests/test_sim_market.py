"""The generated market by itself: conservation, books, rules of the exchange, the same for the same seed."""

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jvq_fast.market_rules import Board, board, daily_limit, limit_prices, lot, tick
from jvq_fast.sim.events import HOUR, MINUTE, SECOND, Snapshot, Trade, clock_text, parse_clock, percent
from jvq_fast.sim.listing import listing
from jvq_fast.sim.market import Market, open_market

DAY = dt.date(2026, 11, 23)
OPEN = 9 * HOUR + 30 * MINUTE
PREFIXES = (  # noqa: SIM905
    "600 601 603 605 688 689 000 001 002 003 300 301 302 110 111 113 118 123 127 128 510 560 588 159 430 900 i000 i399"
).split()
codes = st.builds(
    lambda prefix, rest: prefix + f"{rest:03d}",
    st.sampled_from(PREFIXES),
    st.integers(0, 999),
)
known = st.sampled_from(["600519", "000001", "300750", "688981", "510300", "113050", "159915", "588000", "i000001"])


def started(code: str, seed: int = 1, at: int = OPEN, **options: float) -> Market:
    market = open_market(listing(code, seed), seed, **options)  # type: ignore[arg-type]
    market.open_day(DAY)
    market.start(at)
    return market


def events(market: Market) -> Iterator[tuple[Trade, ...] | Snapshot]:
    while not market.over:
        event = market.step()
        if event:
            yield event


def check_conservation(stream: Iterator[tuple[Trade, ...] | Snapshot]) -> int:
    volume, amount, price = 0, Decimal(0), None
    snapshots = 0
    for event in stream:
        if isinstance(event, Snapshot):
            snapshots += 1
            assert (event.volume, Decimal(event.amount)) == (volume, amount)
            assert price in (None, event.price)
        else:
            for trade in event:
                assert trade.volume > 0
                volume += trade.volume
                amount += trade.volume * Decimal(trade.price)
                price = trade.price
    return snapshots


@given(code=codes | known, seed=st.integers(0, 2**32), at=st.integers(9 * HOUR, 15 * HOUR))
def test_totals_of_every_snapshot_are_the_trades_before_it(code: str, seed: int, at: int) -> None:
    market = started(code, seed, at)
    if board(code) is Board.INDEX:
        assert all(isinstance(event, Snapshot) for event in islice(events(market), 50))
    else:
        check_conservation(islice(events(market), 3000))


@pytest.mark.parametrize("code", ["605099", "000004", "128080"])
def test_a_whole_day_conserves_from_the_auction_to_the_close(code: str) -> None:
    stream = list(events(started(code, 3, 9 * HOUR)))
    assert check_conservation(iter(stream)) > 4800
    times = [event.time if isinstance(event, Snapshot) else event[0].time for event in stream]
    assert clock_text(times[0]) < "09:15:04"
    assert clock_text(times[-1]).startswith("15:00:0")
    trades = [trade for event in stream if not isinstance(event, Snapshot) for trade in event]
    opening = {trade.price for trade in trades if trade.time < 9 * HOUR + 26 * MINUTE}
    closing = {trade.price for trade in trades if trade.time >= 15 * HOUR}
    assert len(opening) == len(closing) == 1
    assert not [trade for trade in trades if 14 * HOUR + 57 * MINUTE <= trade.time < 15 * HOUR]
    assert not [trade for trade in trades if 11 * HOUR + 30 * MINUTE <= trade.time < 13 * HOUR]


@given(code=codes | known, seed=st.integers(0, 2**32))
def test_books_and_trades_agree_and_keep_the_rules(code: str, seed: int) -> None:
    kind = board(code)
    if kind is Board.INDEX:
        return
    market = started(code, seed)
    step = tick(code)
    last_close = Decimal(market.snapshot(OPEN).last_close)
    ratio = daily_limit(code, DAY, st=market.listing.st)
    assert ratio is not None
    low, high = limit_prices(last_close, ratio, step)
    size = lot(code)
    for _ in range(400):
        before = market.snapshot(market.due)
        check_book(before, low, high, step)
        best = {before.bids[0][0], before.asks[0][0]} if before.bids and before.asks else set()
        event = market.step()
        if isinstance(event, Snapshot) or not event:
            continue
        assert not best or event[0].price in best
        buying = best and event[0].price == before.asks[0][0]
        side = before.asks if buying else before.bids
        assert len({trade.price for trade in event} - {price for price, _ in side}) <= max(0, len(event) - len(side))
        prices = [Decimal(trade.price) for trade in event]
        assert prices == sorted(prices, reverse=not buying)
        for trade in event:
            assert low <= Decimal(trade.price) <= high
            if size.step > 1 and kind in (Board.BOND, Board.FUND):
                assert trade.volume % size.step == 0


def check_book(snapshot: Snapshot, low: Decimal, high: Decimal, step: Decimal) -> None:
    bids = [Decimal(price) for price, _ in snapshot.bids]
    asks = [Decimal(price) for price, _ in snapshot.asks]
    assert bids == sorted(set(bids), reverse=True)
    assert asks == sorted(set(asks))
    if bids and asks:
        assert bids[0] < asks[0]
    assert len(bids) == 10 or bids[-1] - low < step * 2000
    for price in (*bids, *asks):
        assert low <= price <= high
        assert price % step == 0
    assert all(volume > 0 for _, volume in (*snapshot.bids, *snapshot.asks))


def test_odd_lots_are_sold_and_then_only_now_and_then() -> None:
    stream = islice(events(started("000001")), 20_000)
    trades = [trade for event in stream if not isinstance(event, Snapshot) for trade in event]
    odd = sum(trade.volume % 100 != 0 for trade in trades)
    assert 0 < odd < len(trades) * 0.05


@given(code=codes | known, seed=st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_market_whoever_looks_at_it(code: str, seed: int) -> None:
    one, other = started(code, seed), started(code, seed)
    for _ in range(200):
        other.snapshot(other.due)
        assert one.due == other.due
        assert one.step() == other.step()


def test_another_seed_or_code_gives_another_market() -> None:
    streams = {
        (code, seed): tuple(islice(events(started(code, seed)), 20)) for code in ("600519", "600520") for seed in (1, 2)
    }
    assert len(set(streams.values())) == 4


@pytest.mark.parametrize("code", ["600123", "i000001"])
def test_a_new_day_starts_from_the_close_with_new_totals_and_other_ids(code: str) -> None:
    market = started(code, 5, 14 * HOUR)
    ids: list[int] = []
    day = DAY
    for _ in range(3):
        seen = list(events(market))
        ids += [trade.id for event in seen if not isinstance(event, Snapshot) for trade in event]
        snapshots = [event for event in seen if isinstance(event, Snapshot)]
        close = snapshots[-1].price
        assert snapshots[-1].volume > 0
        day += dt.timedelta(days=1)
        market.open_day(day)
        market.start(14 * HOUR)
        first = market.snapshot(14 * HOUR)
        assert (first.last_close, first.volume, first.amount, first.price) == (close, 0, "0.00", close)
    assert ids == sorted(set(ids))


@pytest.mark.parametrize(("locked", "side", "limit"), [(1, "asks", 1), (-1, "bids", 0)])
def test_a_locked_market_has_one_side_and_one_price(locked: int, side: str, limit: int) -> None:
    market = started("600123", locked=locked)
    low_high = market.listing.limits(market.listing.last_close, DAY)
    price = f"{low_high[limit] // 100}.{low_high[limit] % 100:02d}"
    seen = list(islice(events(market), 2000))
    check_conservation(iter(seen))
    for event in seen:
        if isinstance(event, Snapshot):
            assert getattr(event, side) == ()
            assert {event.bids, event.asks} != {()}
            book = event.bids or event.asks
            assert book[0][0] == price
        else:
            assert {trade.price for trade in event} == {price}


def test_cancellations_have_price_zero_and_count_for_nothing() -> None:
    market = started("000001", cancels=1.0)
    volume = 0
    cancelled = 0
    for event in islice(events(market), 500):
        if isinstance(event, Snapshot):
            assert event.volume == volume
        else:
            volume += sum(trade.volume for trade in event if trade.price != "0.00")
            cancelled += sum(trade.price == "0.00" for trade in event)
    assert cancelled > 300


def test_the_auction_is_shown_as_the_exchanges_do_and_matched_at_the_price_shown() -> None:
    market = started("600519", at=9 * HOUR + 15 * MINUTE)
    shown = None
    for event in events(market):
        if not isinstance(event, Snapshot):
            break
        shown = event
        assert event.price == "0.00"
        assert event.volume == 0
        assert event.bids[0] == event.asks[0]
        assert event.bids[1][0] == event.asks[1][0] == "0.00"
        assert not (event.bids[1][1] and event.asks[1][1])
    assert shown is not None
    assert not isinstance(event, Snapshot)
    assert 9 * HOUR + 25 * MINUTE <= event[0].time < 9 * HOUR + 25 * MINUTE + SECOND
    assert len(event) > 20
    assert abs(Decimal(event[0].price) - Decimal(shown.bids[0][0])) < Decimal("1")


def test_brisk_codes_trade_briskly_and_orders_come_in_bursts() -> None:
    for code in ("600519", "000001"):
        stream = list(islice(events(started(code)), 20_000))
        counts = sorted(len(event) for event in stream if not isinstance(event, Snapshot))
        end = stream[-1].time if isinstance(stream[-1], Snapshot) else stream[-1][0].time
        assert sum(counts) * SECOND / (end - OPEN) > 200
        assert counts[len(counts) // 4] == 1
        assert counts[-1] == 60


@pytest.mark.parametrize(
    ("price", "close", "text"),
    [(1010, 1000, "1.00"), (990, 1000, "-1.00"), (1000, 1000, "0.00"), (10005, 10000, "0.05"), (20001, 20000, "0.01"),
     (19999, 20000, "-0.01"), (200001, 200000, "0.00"), (199_999_9, 2_000_000, "0.00"), (5, 0, "0.00")],
)  # fmt: skip
def test_change_is_percent_rounded_half_up(price: int, close: int, text: str) -> None:
    assert percent(price, close) == text


def test_times_of_day_are_read_and_written() -> None:
    assert parse_clock("09:30") == OPEN
    assert parse_clock("09:30:01.5") == OPEN + 1_500_000
    assert clock_text(parse_clock("23:59:59.999999")) == "23:59:59"
    for bad in ("", "9", "24:00", "09:60", "09:30:60", "a:b", "09:30:01:02"):
        with pytest.raises(ValueError):
            parse_clock(bad)
