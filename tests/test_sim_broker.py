"""The paper broker against tables written by hand: the exchanges' rules, the queue; money and shares add up."""

import contextlib
import datetime as dt
import random
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jvq_fast.sim.broker.broker import Broker
from jvq_fast.sim.broker.order_rules import Refusal, RefusedError
from jvq_fast.sim.broker.orders import Account, Holding, Order
from jvq_fast.sim.events import DAY, SECOND, Snapshot, Trade, parse_clock
from jvq_fast.sim.settings import Settings
from jvq_fast.sim.timeline import Timeline
from simulator import ROOT

FRIDAY, MONDAY = dt.date(2026, 11, 27), dt.date(2026, 11, 30)
CLOSES = {
    "600000": "10.05", "600519": "100.00", "300750": "100.00", "688981": "100.00", "113050": "100.000",
    "510300": "4.000", "600001": "10.00", "000001": "10.00",
}  # fmt: skip
NAMES = {"600001": "*ST模拟"}
MILLION = 1_000_000_000  # CNY in thousandths

Levels = list[tuple[str, int]]


class Floor:
    """Knows who listens; the market of a code that nobody listens to says nothing."""

    def __init__(self) -> None:
        self.listeners: dict[str, int] = {}

    @property
    def has_listeners(self) -> bool:
        return any(self.listeners.values())

    def may_know(self, code: str) -> bool:
        return True

    def listen(self, code: str) -> None:
        self.listeners[code] = self.listeners.get(code, 0) + 1

    def forget(self, code: str) -> None:
        self.listeners[code] -= 1
        assert self.listeners[code] >= 0


class Script:
    """A market that a test writes line by line, and a broker that hears of it."""

    def __init__(self, time: str = "10:00", day: dt.date = FRIDAY, **switches: Any) -> None:
        self.timeline = Timeline(day, parse_clock(time), 0)
        self.floor = Floor()
        self.snapshots: dict[str, Snapshot] = {}
        self.broker = Broker(Settings(**switches), self.timeline, self.floor, self.snapshots.get, lambda: None)
        self._ids = 0
        for code in CLOSES:
            self.book(code, [], [])

    def at(self, time: str, day: dt.date = FRIDAY) -> "Script":
        self.timeline.jump(self.timeline.midnight(day) + parse_clock(time))
        return self

    def _heed(self, code: str, event: Any) -> None:
        if code in self.broker.watched:
            self.broker.heed(self.timeline.now(), code, event)

    def book(self, code: str, bids: Levels, asks: Levels) -> None:
        close = CLOSES[code]
        time = self.timeline.now() % DAY
        snapshot = Snapshot(time, NAMES.get(code, "名称"), close, close, "0.00", "0.00", 0, tuple(bids), tuple(asks))
        self.snapshots[code] = snapshot
        self._heed(code, snapshot)

    def trade(self, code: str, *trades: tuple[str, int]) -> None:
        time = self.timeline.now() % DAY
        self._ids += 1
        self._heed(code, tuple(Trade(time, self._ids, price, volume) for price, volume in trades))

    def account(self, cash: int = MILLION, name: str = "310000000001", **held: int) -> Account:
        """An account with so much cash and these holdings, by code with a letter before it."""
        self.broker.advance()
        holdings = [Holding(code[1:], "名称", volume, began=volume) for code, volume in held.items()]
        account = Account(len(self.broker._accounts) + 1, name, cash, holdings, 0)
        self.broker._accounts[name] = account
        return account

    def buy(self, account: Account, code: str, price: str, volume: int | str) -> Order:
        return self.broker.place(account, code, price, str(volume), buying=True)

    def sell(self, account: Account, code: str, price: str, volume: int | str) -> Order:
        return self.broker.place(account, code, price, str(volume), buying=False)

    def check(self) -> None:
        """Everything adds up, and the market runs for those codes that have a working order."""
        assert self.broker.describe()["wrong"] == []
        working: dict[str, int] = {}
        for account in self.broker._accounts.values():
            for order in account.orders.values():
                working[order.code] = working.get(order.code, 0) + (not order.ended)
        assert {code: n for code, n in self.floor.listeners.items() if n} == {c: n for c, n in working.items() if n}


def fills(order: Order) -> list[tuple[str, int]]:
    return [(f"{Decimal(fill.price) / 1000:.2f}", fill.volume) for fill in order.fills]


def outcome(script: Script, account: Account, side: str, code: str, price: str, volume: int | str) -> str:
    """The code of the refusal; 0 where there is none."""
    try:
        (script.buy if side == "buy" else script.sell)(account, code, price, volume)
    except RefusedError as refused:
        return refused.code if refused.message else "no text"
    finally:
        script.check()
    return "0"


# Rules. -101 price, -102 volume, -103 code, -104 time, -105 tick, -106 limits, -107 lot, -108 odd lot, -109 cash,
# -110 shares.


@pytest.mark.parametrize(
    ("code", "price", "expected"),
    [
        ("600519", "100.01", "0"), ("600519", "100.001", "-105"), ("600519", "100.010", "0"), ("600519", "99", "0"),
        ("113050", "100.001", "0"), ("113050", "100.0005", "-105"), ("510300", "4.001", "0"),
        ("510300", "4.0001", "-105"), ("300750", "99.995", "-105"), ("688981", "99.99", "0"),
        # Daily limits: 10 % main board, 20 % ChiNext, STAR and bonds, 5 % ST, 10 % funds.
        ("600519", "110.00", "0"), ("600519", "110.01", "-106"), ("600519", "90.00", "0"), ("600519", "89.99", "-106"),
        ("300750", "120.00", "0"), ("300750", "120.01", "-106"), ("300750", "80.00", "0"), ("300750", "79.99", "-106"),
        ("688981", "120.00", "0"), ("688981", "120.01", "-106"), ("113050", "120.000", "0"),
        ("113050", "120.001", "-106"), ("113050", "80.000", "0"), ("113050", "79.999", "-106"),
        ("600001", "10.50", "0"), ("600001", "10.51", "-106"), ("600001", "9.50", "0"), ("600001", "9.49", "-106"),
        ("510300", "4.400", "0"), ("510300", "4.401", "-106"),
        # 10.05 × 1.1 is 11.055, 10.05 × 0.9 is 9.045: both are rounded half up.
        ("600000", "11.06", "0"), ("600000", "11.07", "-106"), ("600000", "9.05", "0"), ("600000", "9.04", "-106"),
        # No prices, no codes.
        ("600519", "", "-101"), ("600519", "0", "-101"), ("600519", "0.00", "-101"), ("600519", "-1", "-101"),
        ("600519", "1e2", "-101"), ("600519", "nan", "-101"), ("600519", "１００", "-101"), ("60051", "100", "-103"),
        ("i000001", "3000", "-103"), ("AAPL", "100", "-103"), ("", "100", "-103"), ("6005190", "100", "-103"),
    ],
)  # fmt: skip
def test_prices(code: str, price: str, expected: str) -> None:
    script = Script()
    assert outcome(script, script.account(), "buy", code, price, 200) == expected


@pytest.mark.parametrize(
    ("side", "code", "held", "volume", "expected"),
    [
        ("buy", "600519", 0, 100, "0"), ("buy", "600519", 0, 99, "-107"), ("buy", "600519", 0, 150, "-107"),
        ("buy", "600519", 0, 0, "-102"), ("buy", "600519", 0, "100.00", "-102"), ("buy", "600519", 0, "-100", "-102"),
        ("buy", "600519", 0, "", "-102"), ("buy", "300750", 0, 300, "0"), ("buy", "300750", 0, 201, "-107"),
        ("buy", "688981", 0, 200, "0"), ("buy", "688981", 0, 201, "0"), ("buy", "688981", 0, 199, "-107"),
        ("buy", "688981", 0, 100, "-107"), ("buy", "113050", 0, 10, "0"), ("buy", "113050", 0, 15, "-107"),
        ("buy", "113050", 0, 5, "-107"), ("buy", "510300", 0, 100, "0"), ("buy", "510300", 0, 110, "-107"),
        ("sell", "600519", 500, 100, "0"), ("sell", "600519", 500, 500, "0"), ("sell", "600519", 500, 600, "-110"),
        ("sell", "600519", 500, 50, "-107"), ("sell", "600519", 0, 100, "-110"),
        # An odd lot is sold whole, alone or with whole lots.
        ("sell", "600519", 550, 50, "0"), ("sell", "600519", 550, 550, "0"), ("sell", "600519", 550, 150, "0"),
        ("sell", "600519", 550, 500, "0"), ("sell", "600519", 550, 30, "-108"), ("sell", "600519", 550, 130, "-108"),
        ("sell", "600519", 50, 50, "0"), ("sell", "600519", 50, 20, "-108"), ("sell", "113050", 25, 5, "0"),
        ("sell", "113050", 25, 3, "-108"), ("sell", "113050", 25, 20, "0"),
        # STAR: 200 and more by one share; a rest below 200 whole.
        ("sell", "688981", 500, 201, "0"), ("sell", "688981", 500, 150, "-107"), ("sell", "688981", 150, 150, "0"),
        ("sell", "688981", 150, 100, "-108"), ("sell", "688981", 200, 199, "-107"),
    ],
)  # fmt: skip
def test_volumes(side: str, code: str, held: int, volume: int | str, expected: str) -> None:
    script = Script()
    account = script.account(**{f"c{code}": held})
    assert outcome(script, account, side, code, CLOSES[code], volume) == expected


@pytest.mark.parametrize(
    ("time", "order", "cancel"),
    [
        ("09:14:59", "-104", ""), ("09:15", "0", "0"), ("09:19:59", "0", "0"), ("09:20", "0", "-113"),
        ("09:24:59", "0", "-113"), ("09:25", "-104", "-113"), ("09:29:59", "-104", "-113"), ("09:30", "0", "0"),
        ("11:29:59", "0", "0"), ("11:30", "-104", "-113"), ("12:59:59", "-104", "-113"), ("13:00", "0", "0"),
        ("14:56:59", "0", "0"), ("14:57", "0", "-113"), ("14:59:59", "0", "-113"), ("15:00", "-104", "-113"),
        ("15:00:20", "-104", "-112"), ("20:00", "-104", "-112"),
    ],
)  # fmt: skip
def test_sessions(time: str, order: str, cancel: str) -> None:
    script = Script("09:15")
    account = script.account()
    early = script.buy(account, "600519", "100.00", 100)
    script.at(time)
    assert outcome(script, account, "buy", "600519", "100.00", 100) == order
    if cancel:
        try:
            script.broker.cancel(account, str(early.number))
            got = "0"
        except RefusedError as refused:
            got = refused.code
        assert got == cancel
    script.check()


def test_cash_is_frozen_at_the_orders_price_and_what_a_better_price_saves_comes_back() -> None:
    script = Script()
    account = script.account(cash=20_000_000)  # 20,000 CNY
    script.book("600519", [("99.98", 100)], [("99.99", 100), ("100.00", 1000)])
    assert outcome(script, account, "buy", "600519", "100.01", 200) == "-109"  # 20,002
    order = script.buy(account, "600519", "100.00", 100)
    assert (fills(order), order.status) == ([("99.99", 100)], "已成")
    assert (account.cash, account.frozen) == (10_001_000, 0)
    resting = script.buy(account, "600519", "99.00", 100)
    assert (account.cash, account.frozen, resting.status) == (101_000, 9_900_000, "已报")
    assert outcome(script, account, "buy", "600000", "10.05", 100) == "-109"
    script.broker.cancel(account, str(resting.number))
    assert (account.cash, account.frozen, resting.status) == (10_001_000, 0, "已撤")
    script.check()


def test_what_a_sale_brings_may_be_spent_at_once() -> None:
    script = Script()
    account = script.account(cash=0, c600519=100)
    script.book("600519", [("99.98", 100)], [])
    script.sell(account, "600519", "99.00", 100)
    assert account.cash == 9_998_000
    assert account.holdings["600519"].volume == 0
    assert outcome(script, account, "buy", "600000", "10.00", 900) == "0"


@pytest.mark.parametrize(
    ("code", "same_day"), [("600519", False), ("510300", False), ("688981", False), ("113050", True)]
)
def test_what_was_bought_may_be_sold_the_next_day_and_bonds_at_once(code: str, same_day: bool) -> None:
    script = Script()
    account = script.account()
    price = CLOSES[code]
    script.book(code, [], [(price, 1000)])
    script.buy(account, code, price, 200)
    holding = account.holdings[code]
    assert (holding.volume, holding.usable) == (200, 200 if same_day else 0)
    assert outcome(script, account, "sell", code, price, 200) == ("0" if same_day else "-110")
    script.at("09:30", MONDAY)
    script.broker.advance()
    assert (holding.volume, holding.usable) == (200, 200)
    script.book(code, [], [])
    assert outcome(script, account, "sell", code, price, 200) == "0"
    assert holding.usable == 0
    assert outcome(script, account, "sell", code, price, 200) == "-110"


def test_what_rests_at_the_close_is_cancelled_and_the_next_day_lists_only_its_own() -> None:
    script = Script()
    account = script.account(c600519=300)
    script.book("600519", [("99.98", 100)], [("100.00", 100)])
    part = script.buy(account, "600519", "100.00", 300)
    whole = script.sell(account, "600519", "101.00", 300)
    assert (part.status, account.frozen, account.holdings["600519"].usable) == ("部成", 20_000_000, 0)
    script.at("15:00:05").broker.advance()
    assert part.status == "部成"
    script.at("15:00:10").broker.advance()
    assert (part.status, whole.status) == ("部撤", "已撤")
    assert (account.frozen, account.holdings["600519"].usable) == (0, 300)
    assert script.broker.todays(account) == [part, whole]
    script.at("09:30", MONDAY)
    assert script.broker.todays(account) == []
    script.check()


def test_orders_of_several_days_are_listed_if_that_is_wanted() -> None:
    script = Script(order_days=2)
    account = script.account()
    order = script.buy(account, "600519", "99.00", 100)
    script.at("09:30", MONDAY)
    assert script.broker.todays(account) == [order]
    assert order.status == "已撤"
    script.at("09:30", MONDAY + dt.timedelta(days=1))
    assert script.broker.todays(account) == []


def test_an_order_is_cancelled_once_and_only_by_its_own_account() -> None:
    script = Script()
    one, other = script.account(), script.account(name="310000000002")
    order = script.buy(one, "600519", "99.00", 100)
    for account, number, code in ((other, str(order.number), "-111"), (one, "1", "-111"), (one, "x", "-111")):
        with pytest.raises(RefusedError) as refused:
            script.broker.cancel(account, number)
        assert refused.value.code == code
    script.broker.cancel(one, str(order.number))
    with pytest.raises(RefusedError) as refused:
        script.broker.cancel(one, str(order.number))
    assert refused.value.code == "-112"


def test_commission_is_frozen_and_charged_on_the_sum_of_an_orders_fills() -> None:
    script = Script(commission=0.00025)
    account = script.broker.account("310000000001")
    cash = account.cash
    script.book("600519", [], [("99.99", 100), ("100.00", 100)])
    order = script.buy(account, "600519", "100.00", 300)
    assert (order.amount, order.fee) == (19_999_000, 5_000)  # 4.99975, half up
    assert account.cash == cash - 19_999_000 - 5_000 - 10_000_000 - 2_500
    script.check()


# The queue


def test_a_marketable_order_takes_what_is_visible_at_its_price_or_better_and_the_rest_rests() -> None:
    script = Script()
    account = script.account()
    script.book("600519", [("99.98", 500)], [("99.99", 100), ("100.00", 300), ("100.01", 500)])
    order = script.buy(account, "600519", "100.00", 1000)
    assert fills(order) == [("99.99", 100), ("100.00", 300)]
    assert (order.status, order.ahead) == ("部成", 0)
    script.check()


def test_visible_quantity_is_not_taken_twice_until_the_market_changes_it() -> None:
    script = Script()
    one, other = script.account(), script.account(name="310000000002")
    asks = [("100.00", 300), ("100.01", 100)]
    script.book("600519", [], asks)
    assert fills(script.buy(one, "600519", "100.00", 200)) == [("100.00", 200)]
    again = script.buy(other, "600519", "100.00", 200)
    assert fills(again) == [("100.00", 100)]
    script.book("600519", [], asks)  # nothing has changed
    assert fills(again) == [("100.00", 100)]
    script.broker.cancel(other, str(again.number))
    assert fills(script.buy(one, "600519", "100.00", 100)) == []
    third = script.buy(other, "600519", "100.00", 500)
    script.book("600519", [], [("100.00", 400), ("100.01", 100)])  # 100 more, which go to the one that came first
    assert fills(third) == []
    script.book("600519", [], [("100.00", 650), ("100.01", 100)])
    assert fills(third) == [("100.00", 250)]
    script.book("600519", [], [("100.01", 100)])  # gone, and new
    script.book("600519", [], [("100.00", 50), ("100.01", 100)])
    assert fills(third) == [("100.00", 250), ("100.00", 50)]
    script.check()


def test_a_resting_order_waits_behind_what_was_visible_when_it_came() -> None:
    script = Script()
    account = script.account()
    script.book("600519", [("99.98", 500), ("99.97", 200)], [("100.00", 500)])
    order = script.buy(account, "600519", "99.98", 300)
    assert order.ahead == 500
    script.trade("600519", ("99.98", 400))
    assert (order.ahead, fills(order)) == (100, [])
    script.book("600519", [("99.98", 900), ("99.97", 200)], [("100.00", 500)])  # others came, behind it
    assert order.ahead == 100
    script.trade("600519", ("99.98", 250))
    assert fills(order) == [("99.98", 150)]
    script.trade("600519", ("99.98", 100))
    assert fills(order) == [("99.98", 150), ("99.98", 100)]
    script.trade("600519", ("99.98", 900))
    assert (fills(order)[-1], order.status) == (("99.98", 50), "已成")
    script.check()


def test_what_is_withdrawn_before_it_lets_it_move_up() -> None:
    script = Script()
    order = script.buy(script.account(), "600519", "99.98", 100)
    assert order.ahead == 0  # an empty book
    script.book("600519", [("99.98", 500)], [])
    order = script.buy(script.account(name="310000000002"), "600519", "99.98", 100)
    script.book("600519", [("99.98", 120)], [])
    assert order.ahead == 120
    script.book("600519", [("99.97", 120)], [])
    assert order.ahead == 0


def test_trades_through_its_price_and_levels_through_it_are_its_own() -> None:
    script = Script()
    account = script.account()
    script.book("600519", [("99.98", 500)], [("100.00", 500)])
    order = script.buy(account, "600519", "99.98", 1000)
    script.trade("600519", ("99.98", 500), ("99.97", 200))
    assert fills(order) == [("99.98", 200)]
    script.book("600519", [("99.95", 100)], [("99.96", 300), ("99.98", 100)])
    assert fills(order) == [("99.98", 200), ("99.98", 300), ("99.98", 100)]
    script.book("600519", [("99.95", 100)], [("99.96", 300), ("99.98", 100)])
    assert order.rest == 400
    script.check()


def test_trades_that_lift_asks_fill_no_order_to_buy() -> None:
    script = Script()
    buyer, seller = script.account(), script.account(name="310000000002", c600519=1000)
    script.book("600519", [("99.98", 100)], [("100.00", 500)])
    bid = script.buy(buyer, "600519", "100.00", 600)  # takes all, 100 rest where the market still shows its asks
    ask = script.sell(seller, "600519", "100.00", 200)
    assert (bid.rest, ask.ahead) == (100, 500)
    script.trade("600519", ("100.00", 600))
    assert (bid.rest, fills(ask)) == (100, [("100.00", 100)])
    script.check()


def test_orders_at_one_price_are_filled_in_the_order_in_which_they_came() -> None:
    script = Script()
    one, other = script.account(), script.account(name="310000000002")
    script.book("600519", [("99.98", 300)], [("100.00", 500)])
    first = script.buy(one, "600519", "99.98", 200)
    script.book("600519", [("99.98", 600)], [("100.00", 500)])
    second = script.buy(other, "600519", "99.98", 200)
    better = script.buy(other, "600519", "99.99", 100)
    assert (first.ahead, second.ahead, better.ahead) == (300, 600, 0)
    # 100 for the better price, 300 of the market, 200 for the first, 100 of the 300 that stand before the second.
    script.trade("600519", ("99.98", 700))
    assert (fills(better), fills(first), fills(second)) == ([("99.99", 100)], [("99.98", 200)], [])
    assert second.ahead == 200
    script.trade("600519", ("99.98", 250))
    assert fills(second) == [("99.98", 50)]
    script.check()


def test_behind_five_visible_levels_the_queue_is_not_known_until_it_comes_into_sight() -> None:
    script = Script()
    account = script.account()
    script.book("600519", [(f"99.9{n}", 100) for n in range(9, 4, -1)], [])
    order = script.buy(account, "600519", "99.90", 100)
    assert order.ahead is None
    script.trade("600519", ("99.95", 100))
    script.book("600519", [("99.92", 100), ("99.90", 700)], [])
    assert order.ahead == 700
    script.trade("600519", ("99.92", 100), ("99.90", 750))
    assert fills(order) == [("99.90", 50)]


@pytest.mark.parametrize(("call", "match", "late"), [("09:16", "09:25", "09:24"), ("14:58", "15:00", "14:59")])
def test_in_a_call_orders_rest_and_are_filled_at_its_price(call: str, match: str, late: str) -> None:
    script = Script(call)
    account = script.account(c600519=500)
    script.book("600519", [("100.00", 900)], [("100.00", 900)])  # the virtual match
    bids = [script.buy(account, "600519", price, 100) for price in ("100.00", "100.05", "99.99")]
    asks = [script.sell(account, "600519", price, 100) for price in ("100.02", "99.90")]
    script.at(late).book("600519", [("100.01", 900)], [("100.01", 900)])
    assert not any(order.fills for order in bids + asks)
    script.at(match).trade("600519", ("100.01", 60), ("100.01", 1000))
    assert [fills(order) for order in bids] == [[], [("100.01", 100)], []]
    assert [fills(order) for order in asks] == [[], [("100.01", 100)]]
    script.check()


def test_a_call_that_matches_little_goes_to_the_better_price_first() -> None:
    script = Script("09:16")
    account = script.account()
    first, better = (script.buy(account, "600519", price, 200) for price in ("100.01", "100.02"))
    script.at("09:25").trade("600519", ("100.00", 300))
    assert (fills(better), fills(first)) == ([("100.00", 200)], [("100.00", 100)])
    script.at("09:25:05").book("600519", [("100.01", 400)], [("100.02", 400)])
    assert first.ahead == 400
    script.at("09:30").trade("600519", ("100.01", 350))
    assert (first.ahead, first.rest) == (50, 100)
    script.check()


def test_what_a_call_leaves_over_takes_nothing_before_trading_goes_on() -> None:
    script = Script("09:16")
    order = script.buy(script.account(), "600519", "100.05", 300)
    script.at("09:25").trade("600519", ("100.00", 100))
    script.at("09:25:05").book("600519", [("100.00", 400)], [("100.01", 400)])
    assert fills(order) == [("100.00", 100)]
    script.at("09:30:01").book("600519", [("100.00", 400)], [("100.01", 400)])
    assert fills(order) == [("100.00", 100), ("100.05", 200)]
    script.check()


def test_where_there_is_no_book_trades_alone_fill() -> None:
    script = Script()
    script.snapshots.clear()
    account = script.account()
    order = script.buy(account, "600519", "99.98", 300)
    assert order.ahead is None
    script.trade("600519", ("99.99", 100))
    script.trade("600519", ("99.98", 200))
    script.trade("600519", ("99.50", 50))
    assert fills(order) == [("99.98", 200), ("99.98", 50)]
    script.check()


def test_a_trade_that_happened_before_an_order_came_does_not_fill_it() -> None:
    script = Script(replay=("recorded.csv",))  # where trades arrive late
    order = script.buy(script.account(), "600519", "99.98", 300)
    script.broker.heed(script.timeline.now(), "600519", (Trade(parse_clock("09:59:59"), 1, "99.90", 500),))
    assert not order.fills
    script.check()


def test_cancellations_of_the_market_fill_nothing() -> None:
    script = Script()
    order = script.buy(script.account(), "000001", "10.00", 100)
    script.trade("000001", ("0.00", 500))
    assert order.fills == []


# It adds up


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_money_and_shares_are_conserved_whatever_happens(seed: int) -> None:
    rng = random.Random(seed)
    script = Script("09:15", commission=rng.choice([0.0, 0.0003]))
    accounts = [script.broker.account(f"31000000000{n}") for n in range(3)]
    codes = ["600519", "113050", "000001"]
    clock, day = parse_clock("09:15"), FRIDAY
    traded: dict[str, int] = dict.fromkeys(codes, 0)

    def price(code: str) -> str:
        return f"{Decimal(CLOSES[code]) + Decimal(rng.randrange(-8, 9)) / 100:.2f}"

    for _ in range(150):
        code = rng.choice(codes)
        account = rng.choice(accounts)
        action = rng.random()
        if action < 0.45:
            place = script.buy if rng.random() < 0.55 else script.sell
            with contextlib.suppress(RefusedError):
                place(account, code, price(code), rng.choice([10, 100, 200, 1000, 3000, 55]))
        elif action < 0.55 and account.orders:
            with contextlib.suppress(RefusedError):
                script.broker.cancel(account, str(rng.choice(list(account.orders))))
        elif action < 0.75:
            volume = rng.randrange(1, 20) * 100
            script.trade(code, (price(code), volume))
            traded[code] += volume
            for buying in (True, False):
                mine = [o for each in accounts for o in each.orders.values() if (o.code, o.buying) == (code, buying)]
                got = sum(fill.volume for o in mine for fill in o.fills if fill.how in ("trade", "auction"))
                assert got <= traded[code]
        elif action < 0.93:
            middle = Decimal(CLOSES[code]) + Decimal(rng.randrange(-6, 7)) / 100
            bids, asks = (
                [(f"{middle + sign * Decimal(n) / 100:.2f}", rng.randrange(1, 30) * 100) for n in range(1, 7)]
                for sign in (-1, 1)
            )
            script.book(code, bids, asks)
        else:
            clock += rng.randrange(1, 40) * 60 * SECOND
            if clock >= DAY:
                clock, day = parse_clock("09:15"), day + dt.timedelta(days=3 if day == FRIDAY else 1)
            script.timeline.jump(script.timeline.midnight(day) + clock)
        script.check()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_a_share_of_the_book_goes_to_one_order_at_most(seed: int) -> None:
    """What all orders took at a price is never more than what there was of it, and what came to it since."""
    rng = random.Random(seed)
    script = Script()
    accounts = [script.account(name=f"31000000000{n}") for n in range(3)]
    volumes = {f"100.0{n}": rng.randrange(1, 20) * 100 for n in range(5)}
    there = dict(volumes)
    script.book("600519", [], list(volumes.items()))
    for _ in range(60):
        if rng.random() < 0.6:
            script.buy(rng.choice(accounts), "600519", f"100.0{rng.randrange(6)}", rng.randrange(1, 8) * 100)
        else:
            price = rng.choice(list(volumes))
            new = max(volumes[price] + rng.randrange(-5, 6) * 100, 0)
            there[price] += max(new - volumes[price], 0)
            volumes[price] = new
            script.book("600519", [], [level for level in volumes.items() if level[1]])
        taken = sum(order.dealt for account in accounts for order in account.orders.values())
        assert taken <= sum(there.values())
        at_their_price: dict[str, int] = {}
        for account in accounts:
            for order in account.orders.values():
                for fill in order.fills:
                    if fill.how == "book":
                        key = f"{Decimal(fill.price) / 1000:.2f}"
                        at_their_price[key] = at_their_price.get(key, 0) + fill.volume
        assert all(volume <= there[price] for price, volume in at_their_price.items())
    script.check()


def test_an_account_is_the_same_for_the_same_seed_and_number() -> None:
    def start(seed: int, name: str) -> Any:
        return Script(seed=seed).broker.account(name).sums()

    assert start(1, "310000000001") == start(1, "310000000001")
    assert start(1, "310000000001") != start(2, "310000000001")
    assert start(1, "310000000001") != start(1, "310000000002")


def test_every_refusal_is_in_the_docs() -> None:
    rows = [row for row in (ROOT / "docs" / "simulator.md").read_text("utf-8").splitlines() if row.startswith("| `-1")]
    for refusal in Refusal:
        code, text = refusal.value
        assert any(row.startswith(f"| `{code}` ") and f"`{text}`" in row for row in rows), refusal
