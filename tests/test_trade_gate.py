"""The risk gate: each limit at its value, under it and over it, and a refusal that names all three."""

import dataclasses
import datetime as dt
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import jvq_fast as jvq
from jvq_fast.market_rules import Phase
from jvq_fast.prices import Prices
from jvq_fast.trade.billing import Bill
from jvq_fast.trade.gate import Gate, Request, Situation
from jvq_fast.trade.model import SHANGHAI
from trade_script import ACCOUNT, OPEN, PASSWORD, WIDE, Broker, Clock, Market, few_rounds, paper, wait
from wire import MORNING, depth, message, quote, row
from ws_script import TOKEN

__all__ = ["few_rounds"]
D = Decimal


def dry(limits: jvq.Limits = WIDE, market: Market | None = None, clock: Clock | None = None) -> jvq.TradeClient:
    return jvq.TradeClient(TOKEN, ACCOUNT, PASSWORD, market=market or Market(), clock=clock or Clock(), limits=limits)


def refused(call: Callable[[], Any], limit: str, allowed: object, actual: object) -> str:
    with pytest.raises(jvq.RiskError) as caught:
        call()
    assert (caught.value.limit, caught.value.allowed, caught.value.actual) == (limit, allowed, actual)
    text = str(caught.value)
    assert text.startswith(f"{limit}: ")
    return text


# --- the defaults ---


def test_a_new_client_is_careful() -> None:
    limits = jvq.Limits()
    assert {field.name: getattr(limits, field.name) for field in dataclasses.fields(limits)} == {
        "max_order_volume": 10_000, "max_order_value": D(100_000), "max_daily_value": D(500_000),
        "price_band": D("0.02"), "daily_limits": True, "last_close": {}, "st": frozenset(), "ticks_and_lots": True,
        "usable": True, "max_open_orders": 10, "max_repeats": 1, "repeat_window": 5.0, "max_data_age": 10.0,
        "sessions": {Phase.OPENING_CALL, Phase.CONTINUOUS, Phase.CLOSING_CALL}, "max_per_second": 10,
        "max_per_day": 2_000, "codes": None,
    }  # fmt: skip


def test_without_a_market_nothing_is_ordered() -> None:
    with pytest.raises(jvq.NoMarketData, match="600519"):
        jvq.TradeClient(TOKEN, ACCOUNT, PASSWORD, clock=Clock()).buy("600519", "10", 100)


# --- size ---


def test_the_volume_of_an_order() -> None:
    client = dry(WIDE.replace(max_order_volume=300))
    for volume in (200, 300):
        assert client.buy("600519", "10", volume).volume == volume
    assert "400, at most 300" in refused(lambda: client.buy("600519", "10", 400), "max_order_volume", 300, 400)


def test_the_value_of_an_order() -> None:
    client = dry(WIDE.replace(max_order_value="2000"))
    for price in ("9.99", "10.00"):
        assert client.buy("600519", price, 200).price == D(price)
    text = refused(lambda: client.buy("600519", "10.01", 200), "max_order_value", D(2000), D("2002.00"))
    assert "2,002.00 CNY, at most 2,000" in text


def test_the_value_of_a_day_counts_in_dry_mode_too() -> None:
    clock = Clock()
    client = dry(WIDE.replace(max_daily_value=3000), clock=clock)
    client.buy("600519", "10", 100)
    refused(lambda: client.buy("000001", "10.01", 200), "max_daily_value", D(3000), D("3002.00"))
    client.buy("000001", "10", 200)
    text = refused(lambda: client.buy("000001", "10", 100), "max_daily_value", D(3000), D(4000))
    assert "1,000 CNY on top of the day's 3,000, at most 3,000" in text
    clock.now += dt.timedelta(days=1)
    client.buy("000001", "10", 300)


def test_a_clock_that_runs_back_over_midnight_does_not_open_the_day_again() -> None:
    clock = Clock()
    limits = WIDE.replace(max_daily_value=1000, max_per_day=3)
    client = dry(limits, clock=clock)
    client.buy("600519", "10", 100)
    clock.now -= dt.timedelta(days=1)
    refused(lambda: client.buy("000001", "10", 100), "max_daily_value", D(1000), D(2000))
    clock.now += dt.timedelta(days=1)
    refused(lambda: client.buy("000001", "10", 100), "max_daily_value", D(1000), D(2000))
    client = dry(limits.replace(max_daily_value=None), clock=clock)
    for _ in range(3):
        client.buy("600519", "10", 100)
    clock.now -= dt.timedelta(days=1)
    refused(lambda: client.buy("600519", "10", 100), "max_per_day", 3, 4)
    clock.now += dt.timedelta(days=1)
    refused(lambda: client.buy("600519", "10", 100), "max_per_day", 3, 4)


@pytest.mark.parametrize("open_orders", [0, 1, 2, 3])
def test_open_orders(open_orders: int) -> None:
    gate = Gate(WIDE.replace(max_open_orders=2), Market())

    def check() -> None:
        gate.check(Request(jvq.Side.BUY, "600519", D(10), 100), Situation(OPEN, open_orders, None), 0.0)

    if open_orders < 2:
        check()
    else:
        text = refused(check, "max_open_orders", 2, open_orders + 1)
        assert f"{open_orders} are open, at most 2" in text


def test_open_orders_at_the_broker_end_with_their_cancellation(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE.replace(max_open_orders=2)) as client:
        first = client.buy("600519", "10", 100)
        client.buy("600519", "9.99", 100)
        refused(lambda: client.buy("600519", "9.98", 100), "max_open_orders", 2, 3)
        client.cancel(first)
        client.wait(first, 20)
        client.buy("600519", "9.98", 100)
        assert len(broker.calls("buy")) == 3


# --- price ---


@pytest.mark.parametrize("side", ["buy", "sell"])
def test_the_band_around_the_last_price(side: str) -> None:
    client = dry(WIDE.replace(price_band="0.02"))
    order = getattr(client, side)
    for price in ("9.80", "10.20", "9.81", "10.19"):
        assert order("600519", price, 100).price == D(price)
    for price in ("9.79", "10.21"):
        text = refused(lambda price=price: order("600519", price, 100), "price_band", D("0.02"), D(price))
        assert f"{price} is more than 2" in text
        assert "10.00" in text


@pytest.mark.parametrize("last", [None, D(0)])
def test_no_price_is_no_market_data(last: Decimal | None) -> None:
    market = Market()
    market.price = last
    with pytest.raises(jvq.NoMarketData, match="600519") as caught:
        dry(market=market).buy("600519", "10", 100)
    assert (caught.value.limit, caught.value.allowed) == ("price_band", D("0.02"))
    assert isinstance(caught.value, jvq.RiskError)
    dry(WIDE.replace(price_band=None), market).buy("600519", "10", 100)


def test_the_days_limits_of_the_market() -> None:
    client = dry(WIDE.replace(price_band=None))
    for price in ("9.00", "11.00"):
        assert client.buy("600519", price, 100).price == D(price)
    for price in ("8.99", "11.01"):
        call = lambda price=price: client.buy("600519", price, 100)  # noqa: E731
        text = refused(call, "daily_limits", (D("9.00"), D("11.00")), D(price))
        assert f"{price} is outside the day's 9.00 to 11.00" in text


def test_unknown_limits_are_no_market_data() -> None:
    client = dry(WIDE, Market(limits=None))
    with pytest.raises(jvq.NoMarketData, match="last_close") as caught:
        client.buy("600519", "10", 100)
    assert caught.value.limit == "daily_limits"
    dry(WIDE.replace(daily_limits=False), Market(limits=None)).buy("600519", "10", 100)


# code, last close, ST, lowest, highest: reckoned by hand.
LIMITS = [
    ("600519", "10.00", False, "9.00", "11.00"),
    ("600519", "10.05", False, "9.05", "11.06"),  # 9.045, 11.055
    ("000001", "12.34", False, "11.11", "13.57"),  # 11.106, 13.574
    ("600519", "1680.55", False, "1512.50", "1848.61"),  # 1512.495, 1848.605
    ("002001", "0.95", False, "0.86", "1.05"),  # 0.855, 1.045
    ("600519", "10.10", True, "9.60", "10.61"),  # 9.595, 10.605
    ("000001", "3.33", True, "3.16", "3.50"),  # 3.1635, 3.4965
    ("688981", "50.03", False, "40.02", "60.04"),  # 40.024, 60.036
    ("688981", "50.03", True, "40.02", "60.04"),  # ST has the board's own limit there
    ("300750", "200.01", False, "160.01", "240.01"),  # 160.008, 240.012
    ("301001", "7.77", True, "6.22", "9.32"),  # 6.216, 9.324
    ("110074", "123.456", False, "98.765", "148.147"),  # 98.7648, 148.1472
    ("128079", "101.235", False, "80.988", "121.482"),
    ("510300", "4.005", False, "3.605", "4.406"),  # 3.6045, 4.4055
    ("159915", "1.234", False, "1.111", "1.357"),  # 1.1106, 1.3574
]


@pytest.mark.parametrize(("code", "close", "st_", "low", "high"), LIMITS)
def test_the_days_limits_by_board_from_a_close_that_is_supplied(
    code: str, close: str, st_: bool, low: str, high: str
) -> None:
    limits = WIDE.replace(
        price_band=None, ticks_and_lots=False, last_close={code: close}, st={code} if st_ else frozenset()
    )
    client = dry(limits, Market(limits=("0.01", "0.02")))
    step = D("0.001") if "." in low and len(low.split(".")[1]) == 3 else D("0.01")
    for price in (D(low), D(high)):
        assert client.buy(code, price, 200).price == price
    for price in (D(low) - step, D(high) + step):
        refused(lambda price=price: client.buy(code, price, 200), "daily_limits", (D(low), D(high)), price)


@pytest.mark.parametrize(("code", "close", "st_", "low", "high"), LIMITS)
def test_the_days_limits_by_board_from_lv10(code: str, close: str, st_: bool, low: str, high: str) -> None:
    decoder = jvq.Decoder()
    name = "*ST海航" if st_ else "贵州茅台"
    decoder.decode(message(row("depths", code, depth(name=name, price="0", last_close=close))), MORNING)
    assert Prices(decoder, lambda: MORNING).limits(code) == (D(low), D(high))


def rounded(value: Decimal, step: Decimal) -> Decimal:
    return (value / step).to_integral_value(ROUND_HALF_UP) * step


KINDS = [
    ("600519", "0.01", "0.10"),
    ("688981", "0.01", "0.20"),
    ("110074", "0.001", "0.20"),
    ("510300", "0.001", "0.10"),
]


@given(st.sampled_from(KINDS), st.integers(50, 60_000), st.integers(-1000, 1000), st.sampled_from([False, True]))
def test_limits_from_a_two_decimal_change_hold_the_true_ones_and_no_more_than_the_doubt_demands(
    kind: tuple[str, str, str], close_ticks: int, move: int, st_name: bool
) -> None:
    """Against brute force: every close on a tick that the change could have been reckoned from."""
    code, step_text, ratio_text = kind
    step, ratio = D(step_text), D(ratio_text)
    if st_name and code == "600519":
        ratio = D("0.05")
    close = close_ticks * step
    price = rounded(close * (1 + ratio * move / 1000), step)
    if price <= 0:
        price = step
    change = rounded((price / close - 1) * 100, D("0.01"))
    decoder = jvq.Decoder()
    name = "ST海航" if st_name else "贵州茅台"
    decoder.decode(message(row("quotes", code, quote(name=name, price=str(price), change=str(change)))), MORNING)
    found = Prices(decoder, lambda: MORNING).limits(code)
    assert found is not None
    low, high = found

    half = D("0.005")
    # |100 price / close - 100 - change| <= half, free of division
    fits = lambda c: abs(100 * price - (100 + change) * c) <= half * c  # noqa: E731
    assert fits(close)
    lowest = highest = close
    while fits(lowest - step):
        lowest -= step
    while fits(highest + step):
        highest += step
    assert low == rounded(lowest * (1 - ratio), step)
    assert high == rounded(highest * (1 + ratio), step)
    assert low <= rounded(close * (1 - ratio), step) <= rounded(close * (1 + ratio), step) <= high


# --- the age of data ---


@pytest.mark.parametrize(("age", "passes"), [(0.0, True), (9.99, True), (10.0, True), (10.01, False), (1e9, False)])
def test_the_age_of_the_data(age: float, passes: bool) -> None:
    market = Market()
    market.data_age = age
    client = dry(market=market)
    if passes:
        client.buy("600519", "10", 100)
    else:
        text = refused(lambda: client.buy("600519", "10", 100), "max_data_age", 10.0, age)
        assert f"{age:.1f} s old, at most 10 s" in text


def test_data_that_never_came_is_no_market_data() -> None:
    market = Market()
    market.data_age = None
    with pytest.raises(jvq.NoMarketData) as caught:
        dry(market=market).buy("600519", "10", 100)
    assert (caught.value.limit, caught.value.allowed, caught.value.actual) == ("max_data_age", 10.0, None)
    dry(WIDE.replace(max_data_age=None), market).buy("600519", "10", 100)


# --- sessions ---

DAYS = {"2026-11-25": True, "2026-11-28": False, "2026-11-29": False, "2026-10-01": False, "2026-02-16": False}


@pytest.mark.parametrize("day", DAYS)
@pytest.mark.parametrize(
    ("time", "passes"),
    [
        ("09:14:59.999", False), ("09:15", True), ("09:24:59", True), ("09:25", False), ("09:29:59.999999", False),
        ("09:30", True), ("11:29:59.999", True), ("11:30", False), ("12:59:59", False), ("13:00", True),
        ("14:56:59", True), ("14:57", True), ("14:59:59.999", True), ("15:00", False), ("23:00", False),
        ("00:00", False),
    ],
)  # fmt: skip
def test_sessions(day: str, time: str, passes: bool) -> None:
    clock = Clock(dt.datetime.fromisoformat(f"{day}T{time}").replace(tzinfo=SHANGHAI))
    client = dry(clock=clock)
    if passes and DAYS[day]:
        client.buy("600519", "10", 100)
        return
    with pytest.raises(jvq.RiskError, match=f"{day} {time[:5]}") as caught:
        client.buy("600519", "10", 100)
    assert caught.value.limit == "sessions"
    assert caught.value.allowed == "closing call auction, continuous trading, opening call auction"
    told = {"09:2": Phase.PAUSE, "11:3": Phase.LUNCH, "12:5": Phase.LUNCH}.get(time[:4], Phase.CLOSED)
    assert caught.value.actual is (told if DAYS[day] else Phase.CLOSED)
    assert ("no trading day" in str(caught.value)) is not DAYS[day]


def test_sessions_of_ones_own_choice() -> None:
    clock = Clock(OPEN.replace(hour=9, minute=20))
    refused(
        lambda: dry(WIDE.replace(sessions={Phase.CONTINUOUS}), clock=clock).buy("600519", "10", 100),
        "sessions", "continuous trading", Phase.OPENING_CALL,
    )  # fmt: skip
    clock.now = OPEN.replace(day=28, hour=3)
    dry(WIDE.replace(sessions=None), clock=clock).buy("600519", "10", 100)


def test_a_clock_of_another_zone_is_read_in_shanghai() -> None:
    clock = Clock(OPEN.astimezone(dt.UTC))
    assert clock.now.hour == 2
    order = dry(clock=clock).buy("600519", "10", 100)
    assert order.at == OPEN
    clock.now = OPEN.replace(hour=20).astimezone(dt.UTC)  # noon there
    with pytest.raises(jvq.RiskError, match="sessions"):
        dry(clock=clock).buy("600519", "10", 100)


# --- ticks and lots: code, its tick, volumes to buy that are good, and that are not ---

BOARDS = {
    "main": ("600519", "0.01", [100, 200, 1000], [1, 50, 99, 101, 150, 250]),
    "main, Shenzhen": ("002001", "0.01", [100, 300], [10, 110, 199]),
    "STAR": ("688981", "0.01", [200, 201, 250, 1234], [1, 100, 199]),
    "ChiNext": ("300750", "0.01", [100, 500], [1, 99, 101, 201]),
    "ETF": ("510300", "0.001", [100, 1000], [1, 10, 150]),
    "ETF, Shenzhen": ("159915", "0.001", [100], [99]),
    "bond, Shanghai": ("110074", "0.001", [10, 20, 150], [1, 5, 15, 101]),
    "bond, Shenzhen": ("128079", "0.001", [10, 100], [9, 11]),
}


@pytest.mark.parametrize("kind", BOARDS)
def test_ticks_by_board(kind: str) -> None:
    code, step, good, _ = BOARDS[kind]
    client = dry()
    tick = D(step)
    for price in (D(10), D(10) + tick, D(10) - tick):
        assert client.buy(code, price, good[0]).price == price
    for price in (D(10) + tick / 10, D(10) - tick / 2, D(10) + tick / D(10) ** 9):
        text = refused(lambda price=price: client.buy(code, price, good[0]), "tick", tick, price)
        assert f"no multiple of the tick {step}" in text
    dry(WIDE.replace(ticks_and_lots=False)).buy(code, D(10) + tick / 10, good[0])


@pytest.mark.parametrize("kind", BOARDS)
def test_lots_by_board(kind: str) -> None:
    code, _, good, bad = BOARDS[kind]
    client = dry()
    for volume in good:
        assert client.buy(code, "10", volume).volume == volume
        assert client.sell(code, "10", volume).volume == volume
    for volume in bad:
        refused(lambda volume=volume: client.buy(code, "10", volume), "lot", good[0], volume)
    dry(WIDE.replace(ticks_and_lots=False)).buy(code, "10", bad[0])


# code, usable, volumes that may be sold, and that may not
ODD = [
    ("600519", 50, [50], [1, 49]),
    ("600519", 150, [50, 100, 150], [1, 49, 51, 149]),
    ("600519", 1234, [34, 100, 134, 1200, 1234], [1, 33, 35, 135, 1233]),
    ("688981", 199, [199], [1, 100, 198]),
    ("688981", 250, [200, 201, 249, 250], [1, 50, 199]),
    ("110074", 7, [7], [1, 6]),
    ("110074", 25, [5, 10, 15, 20, 25], [1, 4, 6, 24]),
    ("510300", 130, [30, 100, 130], [29, 31, 101]),
]


@pytest.mark.parametrize(("code", "usable", "good", "bad"), ODD)
def test_odd_lots_are_sold_whole_and_never_bought(code: str, usable: int, good: list[int], bad: list[int]) -> None:
    gate = Gate(WIDE, Market())
    situation = Situation(OPEN, 0, usable)
    for volume in good:
        gate.check(Request(jvq.Side.SELL, code, D(10), volume), situation, 0.0)
    for volume in bad:
        with pytest.raises(jvq.RiskError, match="sold whole") as caught:
            gate.check(Request(jvq.Side.SELL, code, D(10), volume), situation, 0.0)
        assert caught.value.limit == "lot"
        with pytest.raises(jvq.RiskError, match="lot"):
            gate.check(Request(jvq.Side.BUY, code, D(10), volume), situation, 0.0)


@pytest.mark.parametrize("usable", [0, 100, 300])
def test_no_more_is_sold_than_is_usable(usable: int) -> None:
    gate = Gate(WIDE, Market())
    situation = Situation(OPEN, 0, usable)
    if usable:
        gate.check(Request(jvq.Side.SELL, "600519", D(10), usable), situation, 0.0)
    order = Request(jvq.Side.SELL, "600519", D(10), usable + 100)
    text = refused(lambda: gate.check(order, situation, 0.0), "usable", usable, usable + 100)
    assert f"{usable + 100} to sell, {usable} of 600519 usable" in text
    gate.check(Request(jvq.Side.BUY, "600519", D(10), usable + 100), situation, 0.0)
    Gate(WIDE.replace(usable=False), Market()).check(order, situation, 0.0)


def test_usable_is_what_the_broker_says_less_what_was_sold_since(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE) as client:
        client.sell("600519", "10", 600)
        client.sell("600519", "10.01", 400)
        assert len(broker.calls("check_hold")) == 1
        # The broker still says 1,000; it was asked after both.
        client.sell("600519", "10.02", 1000)
        assert len(broker.calls("check_hold")) == 2
        refused(lambda: client.sell("000001", "10", 100), "usable", 0, 100)
        refused(lambda: client.sell("600519", "10", 1100), "usable", 1000, 1100)


# --- rates and repeats ---


def test_orders_and_cancels_per_second() -> None:
    gate = Gate(WIDE.replace(max_per_second=3), Market())
    for at in (0.0, 0.4, 0.8):
        gate.check_rate(OPEN, at)
        gate.count(None, OPEN, at)
    for at in (0.8, 0.999):
        assert "3 orders and cancels" in refused(lambda at=at: gate.check_rate(OPEN, at), "max_per_second", 3, 4)
    gate.check_rate(OPEN, 1.0)
    gate.count(None, OPEN, 1.0)
    refused(lambda: gate.check_rate(OPEN, 1.39), "max_per_second", 3, 4)
    gate.check_rate(OPEN, 1.5)


def test_orders_and_cancels_per_day() -> None:
    clock = Clock()
    client = dry(WIDE.replace(max_per_day=5), clock=clock)
    for _ in range(5):
        client.buy("600519", "10", 100)
    assert "5 orders and cancels went today" in refused(lambda: client.buy("600519", "10", 100), "max_per_day", 5, 6)
    clock.now += dt.timedelta(days=1)
    client.buy("600519", "10", 100)


def test_cancels_count_as_orders_do(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE.replace(max_per_day=3)) as client:
        first, second = client.buy("600519", "10", 100), client.buy("600519", "9.99", 100)
        client.cancel(first)
        refused(lambda: client.cancel(second), "max_per_day", 3, 4)
        refused(lambda: client.buy("600519", "10", 100), "max_per_day", 3, 4)
        assert len(broker.calls("buy", "cancel")) == 3


def test_the_day_counts_what_a_process_that_is_gone_has_ordered(tmp_path: Path) -> None:
    limits = WIDE.replace(max_per_day=3, max_daily_value=3000)
    with Broker() as broker:
        with paper(broker, tmp_path, limits=limits) as client:
            client.buy("600519", "10", 100)
            client.buy("600519", "9.99", 100)
        with paper(broker, tmp_path, limits=limits) as client:
            refused(lambda: client.buy("600519", "10.02", 100), "max_daily_value", D(3000), D("3001.00"))
            client.buy("600519", "10", 100)
            with pytest.raises(jvq.RiskError, match=r"max_per_day|max_daily_value"):
                client.buy("600519", "10", 100)
        assert len(broker.calls("buy")) == 3


def test_the_ceilings_are_fixed() -> None:
    assert jvq.Limits(max_per_second=200, max_per_day=15_000).max_per_second == 200
    for settings in ({"max_per_second": 201}, {"max_per_day": 15_001}, {"max_per_second": 10**9}, {"max_per_day": 0}):
        with pytest.raises(ValueError, match=r"200|15,000"):
            jvq.Limits(**settings)
        with pytest.raises(ValueError, match=r"200|15,000"):
            jvq.Limits().replace(**settings)


def test_at_the_ceiling_no_more_goes_whatever_the_limits_are() -> None:
    gate = Gate(WIDE, Market())
    for _ in range(200):
        gate.check_rate(OPEN, 0.0)
        gate.count(None, OPEN, 0.0)
    refused(lambda: gate.check_rate(OPEN, 0.5), "max_per_second", 200, 201)
    for n in range(200, 15_000):
        gate.check_rate(OPEN, float(n))
        gate.count(None, OPEN, float(n))
    refused(lambda: gate.check_rate(OPEN, 1e6), "max_per_day", 15_000, 15_001)


def test_repeats_within_a_window() -> None:
    gate = Gate(WIDE.replace(max_repeats=2, repeat_window=5.0), Market())
    order = Request(jvq.Side.BUY, "600519", D(10), 100)
    situation = Situation(OPEN, 0, None)
    for at in (0.0, 3.0):
        gate.check(order, situation, at)
        gate.count(order, OPEN, at)
    text = refused(lambda: gate.check(order, situation, 4.99), "max_repeats", 2, 3)
    assert "3 times within 5 s, at most 2" in text
    same_value = dataclasses.replace(order, price=D("10.00"))
    refused(lambda: gate.check(same_value, situation, 4.99), "max_repeats", 2, 3)
    for change in ({"price": D("10.01")}, {"volume": 200}, {"code": "000001"}, {"side": jvq.Side.SELL}):
        gate.check(dataclasses.replace(order, **change), Situation(OPEN, 0, 1000), 4.99)
    gate.check(order, situation, 5.0)


def test_repeats_count_in_dry_mode_too() -> None:
    client = dry(jvq.Limits(repeat_window=1000))
    client.buy("600519", "10", 100)
    refused(lambda: client.buy("600519", D("10.00"), 100), "max_repeats", 1, 2)
    client.buy("600519", "10.01", 100)


def test_what_did_not_leave_may_be_repeated() -> None:
    gate = Gate(WIDE.replace(max_repeats=1, max_daily_value=1000), Market())
    order = Request(jvq.Side.BUY, "600519", D(10), 100)
    gate.count(order, OPEN, 0.0)
    refused(lambda: gate.check(order, Situation(OPEN, 0, None), 0.1), "max_daily_value", D(1000), D(2000))
    gate.take_back(order, OPEN)
    gate.check(order, Situation(OPEN, 0, None), 0.1)


def test_the_allow_list() -> None:
    client = dry(WIDE.replace(codes=["600519"]))
    client.buy("600519", "10", 100)
    text = refused(lambda: client.buy("000001", "10", 100), "codes", "an allow-list", "000001")
    assert "000001 is not in the allow-list" in text
    with pytest.raises(jvq.RiskError, match="codes"):
        dry(WIDE.replace(codes=())).buy("600519", "10", 100)


def test_a_refusal_leaves_nothing_behind() -> None:
    client = dry(jvq.Limits(max_per_day=1))
    for _ in range(5):
        with pytest.raises(jvq.RiskError, match="max_order_volume"):
            client.buy("600519", "10", 20_000)
    assert client.intents == ()
    client.buy("600519", "10", 100)


# --- what an order may be made of ---


@pytest.mark.parametrize("price", [1680.5, 0.1, 10.0])
def test_a_float_is_no_price_and_is_told_what_to_pass(price: float) -> None:
    for call in (dry().buy, dry().sell):
        with pytest.raises(TypeError, match=f"'{price!r}' or Decimal\\('{price!r}'\\)"):
            call("600519", price, 100)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "price",
    ["", "abc", "NaN", "Infinity", "-Infinity", "0", "-1", "0.00", D("NaN"), D("sNaN"), D("-1"), D(0), 0, "1e40",
     "1e-40", D(10) ** 30, "1" * 100],
)  # fmt: skip
def test_what_is_no_price_is_a_value_error(price: str | Decimal | int) -> None:
    with pytest.raises(ValueError, match="price"):
        dry().buy("600519", price, 100)


@pytest.mark.parametrize("price", [True, None, b"10", object(), [10]])
def test_other_types_are_no_prices(price: object) -> None:
    with pytest.raises(TypeError, match="Decimal or a str"):
        dry().buy("600519", price, 100)  # type: ignore[arg-type]


@pytest.mark.parametrize("price", ["10", "10.0", " 10.00", "1e1", D("1E+1"), 10, D("10.000")])
def test_a_price_is_sent_as_plain_digits(price: str | Decimal | int) -> None:
    order = dry().buy("600519", price, 100)
    assert order.price == 10
    assert "price=10" in order.request
    assert "E" not in order.request.partition("price=")[2]


@pytest.mark.parametrize("volume", [0, -100, True, 100.0, "100", None, D(100)])
def test_what_is_no_volume_is_refused(volume: object) -> None:
    with pytest.raises((ValueError, TypeError), match="volume"):
        dry().buy("600519", "10", volume)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "code", ["", "60051", "6005190", "sh600519", "lv1_600519", "６００５１９", None, 600519, b"600519"]
)
def test_what_is_no_code_is_refused(code: object) -> None:
    with pytest.raises((ValueError, TypeError), match="code"):
        dry().buy(code, "10", 100)  # type: ignore[arg-type]


# --- settings ---


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"max_order_volume": -1}, ValueError), ({"max_order_volume": 1.5}, ValueError),
        ({"max_order_volume": True}, ValueError), ({"max_order_value": -1}, ValueError),
        ({"max_order_value": 100_000.0}, TypeError), ({"max_order_value": "much"}, ValueError),
        ({"max_daily_value": D("NaN")}, ValueError), ({"max_daily_value": D("Infinity")}, ValueError),
        ({"price_band": 0.02}, TypeError), ({"price_band": "-0.01"}, ValueError), ({"price_band": True}, ValueError),
        ({"last_close": {"600519": 10.0}}, TypeError), ({"last_close": {"600519": "x"}}, ValueError),
        ({"last_close": {"600519": 0}}, ValueError),
        ({"max_open_orders": -1}, ValueError), ({"max_repeats": "1"}, ValueError), ({"repeat_window": -1}, ValueError),
        ({"repeat_window": None}, ValueError), ({"repeat_window": float("nan")}, ValueError),
        ({"max_data_age": -0.1}, ValueError), ({"max_data_age": float("nan")}, ValueError),
        ({"max_data_age": True}, ValueError), ({"max_per_second": 0}, ValueError),
        ({"max_per_second": None}, ValueError),
        ({"max_per_second": 10.0}, ValueError), ({"max_per_day": "2000"}, ValueError), ({"codes": "600519"}, TypeError),
        ({"st": "600519"}, TypeError), ({"sessions": ["continuous"]}, TypeError), ({"sessions": "lunch"}, TypeError),
        ({"no_such_limit": 1}, TypeError),
    ],
)  # fmt: skip
def test_wrong_limits_are_refused(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        jvq.Limits(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "wet"}, {"timeout": 0}, {"timeout": float("nan")}, {"timeout": float("inf")}, {"login_timeout": -1},
        {"timeout": 1e300}, {"login_timeout": float("inf")}, {"allocation_timeout": "5"}, {"lists_to_reject": 0},
        {"lists_to_reject": 1.5}, {"fees": {"buys": D(1)}}, {"fees": {"buy": 0.2}}, {"fees": {"buy": D(-1)}},
        {"budget": D(-1)}, {"budget": 20.0}, {"polling_budget": "much"}, {"trusted_rejections": "no money"},
        {"trusted_rejections": [""]}, {"limits": {"max_per_day": 1}},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        jvq.TradeClient(TOKEN, ACCOUNT, PASSWORD, **settings)


# --- money ---

DAY = OPEN.date()


def test_the_budget_at_and_over() -> None:
    bill = Bill({}, D("0.40"), None)
    for _ in range(2):
        bill.check(DAY, "buy")
        bill.count(DAY, "buy")
    with pytest.raises(jvq.BudgetError, match=r"check_order costs 0\.02 CNY, and 0\.40 of the day's budget of 0\.40"):
        bill.check(DAY, "check_order")
    bill.check(DAY + dt.timedelta(days=1), "buy")


def test_polling_stops_before_trading_does() -> None:
    bill = Bill({}, D("0.42"), D("0.20"))
    bill.check(DAY, "check_order", polling=True)
    bill.count(DAY, "buy")
    with pytest.raises(jvq.BudgetError, match=r"polling_budget of 0\.20"):
        bill.check(DAY, "check_order", polling=True)
    bill.check(DAY, "check_order")
    bill.check(DAY, "buy")
    assert bill.by_call(DAY)["buy"] == D("0.20")


def test_fees_of_ones_own_and_no_budget() -> None:
    bill = Bill({"buy": D(3)}, None, None)
    for _ in range(100):
        bill.check(DAY, "buy")
        bill.count(DAY, "buy")
    bill.count(DAY, "sale")
    assert bill.spent(DAY) == D("300.20")


@pytest.mark.parametrize("budget", ["0.71", "0.72"])
def test_an_order_that_the_budget_has_no_room_for_is_not_sent(tmp_path: Path, budget: str) -> None:
    """A login, a list of orders and the order: 0.50, 0.02 and 0.20 CNY."""
    with Broker() as broker, paper(broker, tmp_path, budget=D(budget), polling_budget=D(0)) as client:
        if budget == "0.72":
            client.buy("600519", "10", 100)
        else:
            with pytest.raises(jvq.BudgetError):
                client.buy("600519", "10", 100)
            assert client.intents == ()
        assert [call for call, _ in broker.requests] == ["login", "check_order", "buy"][: 3 if budget == "0.72" else 2]
        assert client.stats()["spent"] == D("0.72" if budget == "0.72" else "0.52")
        with pytest.raises(jvq.BudgetError):
            client.sell("600519", "10", 100)
        wait(lambda: len(client.intents) == (budget == "0.72"))


def test_a_cancel_goes_although_the_budget_is_used_up(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, budget=D("0.72"), polling_budget=D(0)) as client:
        order = client.buy("600519", "10", 100)
        with pytest.raises(jvq.BudgetError):
            client.orders()
        (tmp_path / "ticket").unlink()
        client._session._ticket = None  # it has come to its end
        client.cancel(order)
        assert [call for call, _ in broker.requests][-2:] == ["login", "cancel"]


def test_a_clock_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="without a zone"):
        dry(clock=Clock(OPEN.replace(tzinfo=None))).buy("600519", "10", 100)
