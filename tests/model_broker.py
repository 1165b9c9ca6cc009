"""A broker in plain Python that shares nothing with the product: one account, its orders, its cash and its shares.

It accepts what it is told to, deals what it is told to, and writes down what came to it. Replies are the dicts of
PROTOCOL §3. Money is exact. Not for two threads at a time.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

FOREIGN = "somebody else"
HELD = {"600519": 1_000, "000001": 20_000, "601398": 20_000, "113050": 2_000}
CASH = Decimal(3_000_000)


@dataclass(eq=False)
class Deal:
    """One order in the broker's book; `tag` says whose it is, and is told to nobody."""

    number: str
    tag: Any
    code: str
    buying: bool
    price: Decimal
    volume: int
    at: dt.datetime
    fills: list[tuple[int, Decimal]] = field(default_factory=list)
    ended: bool = False
    hidden: int = 0  # lists from which it stays missing

    @property
    def content(self) -> tuple[str, bool, Decimal, int]:
        return self.code, self.buying, self.price, self.volume

    @property
    def dealt(self) -> int:
        return sum(volume for volume, _ in self.fills)

    @property
    def is_open(self) -> bool:
        return not self.ended and self.dealt < self.volume

    @property
    def status(self) -> str:
        if self.dealt == self.volume:
            return "已成"
        if self.ended:
            return "部撤" if self.dealt else "已撤"
        return "部成" if self.dealt else "已报"

    def row(self) -> dict[str, Any]:
        paid = sum((volume * price for volume, price in self.fills), Decimal(0))
        mean = (paid / self.dealt).quantize(Decimal("0.001")) if self.dealt else Decimal(0)
        return {
            "order_id": self.number, "day": f"{self.at:%Y%m%d}", "time": f"{self.at:%H%M%S}", "code": self.code,
            "name": f"N{self.code}", "type": "证券买入" if self.buying else "证券卖出", "status": self.status,
            "order_price": f"{self.price:f}", "order_volume": str(self.volume), "deal_price": f"{mean:f}",
            "deal_volume": str(self.dealt),
        }  # fmt: skip


class ModelBroker:
    """`clock` is its own, aware."""

    def __init__(self, clock: Callable[[], dt.datetime], number: int = 100_000) -> None:
        self.clock = clock
        self.orders: list[Deal] = []
        self.cancelled: list[str] = []  # numbers of orders whose cancellation was asked for and done
        self.cash = CASH
        self.held = dict(HELD)
        self.locked = dict.fromkeys(HELD, 0)  # bought today
        self._number = number

    def order(self, number: str) -> Deal | None:
        return next((each for each in self.orders if each.number == number), None)

    # --- what is done to it ---

    def place(self, query: Mapping[str, str], *, buying: bool, tag: Any) -> Deal | str:
        """The order, or in words why not."""
        code, price, volume = query["code"], Decimal(query["price"]), int(query["volume"])
        if buying and price * volume > self.free:
            return "可用资金不足"
        if not buying and volume > self.usable(code):
            return "可用证券数量不足"
        self._number += 1
        order = Deal(str(self._number), tag, code, buying, price, volume, self.clock())
        self.orders.append(order)
        return order

    def cancel(self, number: str) -> str:
        """Why not, in words; "" where it is done."""
        order = self.order(number)
        if order is None:
            return "委托编号不存在"
        if not order.is_open:
            return "委托已完成"
        order.ended = True
        self.cancelled.append(number)
        return ""

    def deal(self, order: Deal, volume: int, price: Decimal) -> None:
        """So much of an order is dealt at this price, or better for its owner than it asked for."""
        assert order.is_open
        assert 0 < volume <= order.volume - order.dealt
        assert price <= order.price if order.buying else price >= order.price
        order.fills.append((volume, price))
        if order.buying:
            self.cash -= volume * price
            self.held[order.code] += volume
            self.locked[order.code] += volume
        else:
            self.cash += volume * price
            self.held[order.code] -= volume

    # --- what it has ---

    @property
    def free(self) -> Decimal:
        waiting = (each.price * (each.volume - each.dealt) for each in self.orders if each.is_open and each.buying)
        return self.cash - sum(waiting, Decimal(0))

    def usable(self, code: str) -> int:
        selling = (
            each.volume - each.dealt for each in self.orders if each.is_open and not each.buying and each.code == code
        )
        return self.held.get(code, 0) - self.locked.get(code, 0) - sum(selling)

    def audit(self) -> None:
        """Cash and shares reckoned anew from the fills."""
        cash, held = CASH, dict(HELD)
        for each in self.orders:
            sign = 1 if each.buying else -1
            assert each.dealt <= each.volume
            for volume, price in each.fills:
                cash -= sign * volume * price
                held[each.code] += sign * volume
        assert (cash, held) == (self.cash, self.held)
        assert self.free >= 0
        assert all(self.usable(code) >= 0 for code in held)

    # --- its replies ---

    def listed(self) -> dict[str, Any]:
        """The reply to `check_order`."""
        rows = []
        for each in self.orders:
            if each.hidden:
                each.hidden -= 1
            else:
                rows.append(each.row())
        return {"code": "0", "message": "", "list": rows}

    def holdings(self) -> dict[str, Any]:
        """The reply to `check_hold`."""
        rows = [
            {
                "code": code, "name": f"N{code}", "hold_vol": str(volume), "usable_vol": str(self.usable(code)),
                "day_earn": "0", "hold_earn": "-1.50",
            }
            for code, volume in self.held.items()
        ]  # fmt: skip
        total, free = f"{self.cash:f}", f"{self.free:f}"
        return {
            "code": "0", "message": "", "total": total, "usable": free, "day_earn": "0", "hold_earn": "0",
            "hold_list": rows,
        }  # fmt: skip
