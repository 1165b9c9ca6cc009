"""The broker's orders as they were last listed, and whose they are."""

import datetime as dt
from collections.abc import Sequence
from decimal import Decimal

from jvq_fast.trade.model import Order, Side

Key = tuple[dt.date | None, str]
Content = tuple[str, Side | None, Decimal, int]


def day_of(key: Key) -> dt.date:
    """What to order keys by."""
    return key[0] or dt.date.min


def content_of(order: Order) -> Content:
    """What an order can be told by where its number is not known."""
    return order.code, order.side, order.price, order.volume


class Listed:
    """Orders by their keys, numbers and contents. One thread at a time uses it."""

    def __init__(self) -> None:
        self._orders: dict[Key, Order] = {}
        self._first: dict[Key, int] = {}
        self._claims: dict[Key, int] = {}
        self._numbered: dict[str, list[Key]] = {}
        self._alike: dict[Content, dict[dt.date, set[Key]]] = {}

    def see(self, key: Key, list_number: int) -> None:
        """A list has it; `put` follows. 0 is a list that a process that is gone has read."""
        if key not in self._first:
            self._first[key] = list_number
            self._numbered.setdefault(key[1], []).append(key)

    def put(self, order: Order) -> None:
        """As it is now."""
        before = self._orders.get(order.key)
        if before is None or content_of(before) != content_of(order):
            if before is not None:
                self._alike[content_of(before)][day_of(order.key)].discard(order.key)
            self._alike.setdefault(content_of(order), {}).setdefault(day_of(order.key), set()).add(order.key)
        self._orders[order.key] = order

    def get(self, key: Key) -> Order | None:
        """None for one that was not listed."""
        return self._orders.get(key)

    def __getitem__(self, key: Key) -> Order:
        return self._orders[key]

    def first_list(self, key: Key) -> int:
        """The number of the list that had it first."""
        return self._first[key]

    def claim(self, key: Key, intent: int) -> None:
        """It is an intent's."""
        self._claims[key] = intent

    def give_up(self, key: Key) -> None:
        """It is nobody's, after all."""
        self._claims.pop(key, None)

    def claimant(self, key: Key) -> int | None:
        """The number of the intent whose it is; None for nobody's."""
        return self._claims.get(key)

    def numbered(self, order_id: str) -> Sequence[Key]:
        """The orders with a broker's number, one a day at most."""
        return self._numbered.get(order_id, ())

    def alike(self, content: Content, since: dt.date = dt.date.min) -> list[Order]:
        """The orders that look so, of that day and later ones, and those without a day."""
        days = self._alike.get(content, {})
        return [self._orders[key] for day, keys in days.items() if day >= since or day == dt.date.min for key in keys]
