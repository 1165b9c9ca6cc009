"""What the paper broker keeps of an account: its orders, its holdings, its cash. It adds up, always.

Money is whole thousandths of a CNY, and so are prices; volumes are shares, fund units or bonds.
"""

import datetime as dt
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

__all__ = ["MILLION", "Account", "Fill", "Holding", "Order", "money_text", "price_text", "thousandths"]

MILLION = 1_000_000


@lru_cache(1 << 16)
def thousandths(text: str) -> int:
    """A price of the market in thousandths of a CNY; 0 where there is none."""
    return int(Decimal(text or "0") * 1000)


def money_text(amount: int) -> str:
    """``"-1234.567"``, exact."""
    whole, rest = divmod(abs(amount), 1000)
    return f"{'-' if amount < 0 else ''}{whole}.{rest:03d}"


def price_text(price: int, decimals: int) -> str:
    """A price of whole ticks with the decimals of its ticks."""
    return money_text(price)[: decimals - 3 or None]


class Fill(NamedTuple):
    """A part of an order that was dealt. ``time`` is microseconds since midnight, ``how`` what dealt it."""

    time: int
    price: int
    volume: int
    how: str


@dataclass(slots=True, eq=False)
class Order:
    """One order. ``rest`` is what it still wants, ``reserved`` the cash that is frozen for that.

    ``ahead``: what the market has before it at its price, None where that is not known. ``came``: the time of day, in
    microseconds, from which on trades can fill it.
    """

    number: int
    buying: bool
    code: str
    price: int
    volume: int
    rest: int = 0
    came: int = 0
    ahead: int | None = None
    name: str = ""
    decimals: int = 2
    day: dt.date = dt.date.min
    time: int = 0
    amount: int = 0  # dealt so far
    fee: int = 0
    reserved: int = 0
    hidden: int = 0  # polls of which it stays missing
    ended: bool = False
    fills: list[Fill] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rest = self.rest or self.volume

    @property
    def dealt(self) -> int:
        """Shares that it has got, or given."""
        return sum(fill.volume for fill in self.fills)

    @property
    def status(self) -> str:
        """In the broker's words."""
        dealt = self.dealt
        if dealt == self.volume:
            return "已成"
        if self.ended:
            return "部撤" if dealt else "已撤"
        return "部成" if dealt else "已报"


@dataclass(slots=True)
class Holding:
    """One security of an account. ``paid`` is what it cost in all, less what its sales brought."""

    code: str
    name: str
    volume: int = 0
    locked: int = 0  # bought today, and to be sold from the next day on
    frozen: int = 0  # in orders to sell
    paid: int = 0
    began: int = 0  # volume when the day began
    paid_today: int = 0

    @property
    def usable(self) -> int:
        """What may be sold."""
        return self.volume - self.locked - self.frozen


class Account:
    """Cash, holdings and orders of one account. ``cash`` is free, ``frozen`` waits in orders to buy."""

    def __init__(self, index: int, name: str, cash: int, holdings: list[Holding], millionths: int) -> None:
        """``millionths``: commission on every fill."""
        self.index = index
        self.name = name
        self.cash = cash
        self.frozen = 0
        self.fees = 0
        self.holdings = {holding.code: holding for holding in holdings}
        self.orders: dict[int, Order] = {}
        self._millionths = millionths
        self._cash_at_start = cash
        self._held_at_start = {holding.code: holding.volume for holding in holdings}

    def holding(self, code: str, name: str = "") -> Holding:
        """The holding of a code; an empty one is made where there is none."""
        return self.holdings.setdefault(code, Holding(code, name))

    def commission(self, amount: int) -> int:
        """The fees of an order of which so much was dealt, rounded half up."""
        return (amount * self._millionths + MILLION // 2) // MILLION

    def cost(self, price: int, volume: int) -> int:
        """What must be free to buy."""
        return price * volume + self.commission(price * volume)

    def begin(self, order: Order) -> None:
        """An order is accepted: what it needs is frozen."""
        self.orders[order.number] = order
        if order.buying:
            self._reserve(order)
        else:
            self.holding(order.code, order.name).frozen += order.rest

    def fill(self, order: Order, fill: Fill, *, next_day: bool) -> None:
        """A part of an order was dealt. ``next_day``: what is bought may only be sold from the next day on."""
        order.fills.append(fill)
        order.rest -= fill.volume
        amount = fill.price * fill.volume
        order.amount += amount
        fee = self.commission(order.amount) - order.fee
        order.fee += fee
        self.fees += fee
        holding = self.holding(order.code, order.name)
        paid = (amount if order.buying else -amount) + fee
        holding.paid += paid
        holding.paid_today += paid
        self.cash -= paid
        if order.buying:
            holding.volume += fill.volume
            if next_day:
                holding.locked += fill.volume
            self._reserve(order)
        else:
            holding.volume -= fill.volume
            holding.frozen -= fill.volume
        order.ended = not order.rest

    def end(self, order: Order) -> None:
        """What is left of an order is given up, and free again."""
        order.ended = True
        if not order.buying:
            self.holding(order.code).frozen -= order.rest
        self._reserve(order)

    def _reserve(self, order: Order) -> None:
        needed = 0
        if order.buying and not order.ended:
            left = order.price * order.rest
            needed = left + self.commission(order.amount + left) - order.fee
        self.cash += order.reserved - needed
        self.frozen += needed - order.reserved
        order.reserved = needed

    def new_day(self) -> None:
        """What was bought may be sold from now on; the day's earnings begin anew."""
        for holding in self.holdings.values():
            holding.locked = holding.paid_today = 0
            holding.began = holding.volume

    def audit(self) -> list[str]:
        """What does not add up, reckoned anew from the fills: nothing, unless there is an error in here."""
        wrong = []
        cash, fees = self._cash_at_start, 0
        held = dict(self._held_at_start)
        selling: dict[str, int] = {}
        for order in self.orders.values():
            amount = sum(fill.price * fill.volume for fill in order.fills)
            fee = self.commission(amount)
            fees += fee
            cash -= (amount if order.buying else -amount) + fee
            sign = 1 if order.buying else -1
            held[order.code] = held.get(order.code, 0) + sign * order.dealt
            if not order.buying and not order.ended:
                selling[order.code] = selling.get(order.code, 0) + order.rest
            beyond = [fill for fill in order.fills if (fill.price - order.price) * sign > 0 or fill.volume <= 0]
            if beyond or order.dealt + order.rest != order.volume or (order.dealt == order.volume and not order.ended):
                wrong.append(f"order {order.number} and its fills")
        working = [order for order in self.orders.values() if order.buying and not order.ended]
        if cash != self.cash + self.frozen:
            wrong.append(f"cash is {money_text(self.cash + self.frozen)} instead of {money_text(cash)}")
        if self.cash < 0 or self.frozen != sum(order.reserved for order in self.orders.values()):
            wrong.append("frozen cash")
        if any(order.reserved < order.price * order.rest for order in working):
            wrong.append("an order without its cash")
        if fees != self.fees:
            wrong.append("fees")
        for code, holding in self.holdings.items():
            if holding.volume != held.get(code, 0) or holding.frozen != selling.get(code, 0):
                wrong.append(f"{code}: {holding.volume} shares, {holding.frozen} of them in orders")
            if min(holding.usable, holding.locked, holding.frozen) < 0:
                wrong.append(f"{code}: more is in orders than there is")
        return wrong

    def sums(self) -> dict[str, Any]:
        """Cash and shares at the start and now, and what was dealt between."""
        fills = [(order.buying, fill) for order in self.orders.values() for fill in order.fills]
        bought, sold = (sum(f.price * f.volume for buying, f in fills if buying is side) for side in (True, False))
        return {
            "cash_at_start": money_text(self._cash_at_start),
            "bought": money_text(bought),
            "sold": money_text(sold),
            "fees": money_text(self.fees),
            "cash_now": money_text(self.cash + self.frozen),
            "shares_at_start": self._held_at_start,
            "shares_now": {code: holding.volume for code, holding in self.holdings.items()},
        }
