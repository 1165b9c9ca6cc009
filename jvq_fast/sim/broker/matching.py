"""Where paper orders stand in the market's book of one code, and what fills them. The market never learns of them.

An order takes what is visible at its price or better, and rests behind what is visible at its price on its own side.
Trades at its price take what was before it first; trades and levels through its price are its own. A share of the
market, whether it stood in the book or was traded, goes to one paper order at most: what was taken of a level is the
front of its queue, which the market's own trades and withdrawals are reckoned to use up first. Paper orders do not
trade with each other. Prices are thousandths of a CNY.
"""

from collections.abc import Callable, Iterable

from jvq_fast.sim.broker.orders import Order

__all__ = ["Matching"]

# Behind so many visible levels of a side there may be more.
_VISIBLE = 5

Filled = Callable[[Order, int, int, str], None]


class _Side:
    """One side of the market's book as far as it is visible, and what paper orders took of it."""

    def __init__(self, sign: int) -> None:
        """``sign`` is +1 for bids and -1 for asks: a better price is a larger ``sign * price``."""
        self.sign = sign
        self.volumes: dict[int, int] = {}
        self.taken: dict[int, int] = {}
        self._out_of_sight: dict[int, int] = {}  # last volume seen of levels of which something was taken

    @property
    def best(self) -> int | None:
        if not self.volumes:
            return None
        return max(self.volumes) if self.sign > 0 else min(self.volumes)

    def ahead(self, price: int) -> int | None:
        """What is visible at a price; None where it lies behind all that is visible."""
        if price in self.volumes:
            return self.volumes[price]
        return None if self._hides(price, self.volumes) else 0

    def _hides(self, price: int, levels: dict[int, int]) -> bool:
        if len(levels) < _VISIBLE:
            return False
        return price < min(levels) if self.sign > 0 else price > max(levels)

    def show(self, levels: Iterable[tuple[int, int]]) -> None:
        """This is what the market has now."""
        new = {price: volume for price, volume in levels if price and volume}
        for price in tuple(self.taken):
            before = self.volumes.get(price, self._out_of_sight.pop(price, 0))
            if price in new:
                self._use(price, before - new[price])
            elif self._hides(price, new):
                self._out_of_sight[price] = before
            else:
                del self.taken[price]
        self.volumes = new

    def wear(self, price: int, volume: int) -> None:
        """The market traded so much at a price: all better levels are gone."""
        while (best := self.best) is not None and (best - price) * self.sign > 0:
            del self.volumes[best]
            self.taken.pop(best, None)
        if best == price:
            self._use(price, volume)
            self.volumes[price] -= min(volume, self.volumes[price])
            if not self.volumes[price]:
                del self.volumes[price]

    def _use(self, price: int, volume: int) -> None:
        left = self.taken.get(price, 0) - max(volume, 0)
        if left > 0:
            self.taken[price] = min(left, self.taken[price])
        else:
            self.taken.pop(price, None)

    def within(self, limit: int) -> list[int]:
        """Visible prices that an order with this limit may trade at, best first."""
        prices = [price for price in self.volumes if (price - limit) * self.sign >= 0]
        return sorted(prices, key=lambda price: -price * self.sign)

    def take(self, price: int, volume: int) -> int:
        """Take up to ``volume`` of what nobody took yet; how much it was."""
        taken = self.taken.get(price, 0)
        got = min(volume, self.volumes[price] - taken)
        if got > 0:
            self.taken[price] = taken + got
        return max(got, 0)


class Matching:
    """The paper orders of one code. ``filled(order, price, volume, how)`` hears of each fill."""

    def __init__(self, filled: Filled) -> None:
        self._filled = filled
        self._bids, self._asks = _Side(+1), _Side(-1)
        self._orders: list[Order] = []
        self._seen = False  # whether there was a book at all

    @property
    def idle(self) -> bool:
        """Whether there is no order, and nothing taken that is to be remembered."""
        return not (self._orders or self._bids.taken or self._asks.taken)

    def come(self, order: Order) -> None:
        """A new order in continuous trading."""
        opposite = self._asks if order.buying else self._bids
        for price in opposite.within(order.price):
            self._give(order, price, opposite.take(price, order.rest), "book")
            if not order.rest:
                return
        if self._seen:
            order.ahead = (self._bids if order.buying else self._asks).ahead(order.price)
        self._orders.append(order)

    def wait(self, order: Order) -> None:
        """A new order in a call auction."""
        order.ahead = None
        self._orders.append(order)

    def leave(self, order: Order) -> None:
        """An order is no more."""
        if order in self._orders:
            self._orders.remove(order)

    def close(self) -> tuple[Order, ...]:
        """The end of the day: what is left of the orders; the book is forgotten."""
        left, self._orders = tuple(self._orders), []
        self._bids, self._asks, self._seen = _Side(+1), _Side(-1), False
        return left

    def show(self, bids: Iterable[tuple[int, int]], asks: Iterable[tuple[int, int]], *, trading: bool = True) -> None:
        """The market's book is this now: (price, volume) of each level. Not ``trading``: it fills nothing yet."""
        self._seen = True
        self._bids.show(bids)
        self._asks.show(asks)
        for order in self._orders:
            seen = (self._bids if order.buying else self._asks).ahead(order.price)
            if seen is not None:
                order.ahead = seen if order.ahead is None else min(order.ahead, seen)
        if not trading:
            return
        for buying, opposite in ((True, self._asks), (False, self._bids)):
            best = opposite.best
            for order in self._by_priority(buying, best) if best is not None else ():
                for price in opposite.within(order.price):
                    self._give(order, order.price, opposite.take(price, order.rest), "level")
                    if not order.rest:
                        break
        self._clear()

    def trade(self, price: int, volume: int, time: int, *, late: bool = False) -> None:
        """The market traded in continuous trading. ``late``: the book that was shown last is later than this."""
        ask, bid = self._asks.best, self._bids.best
        lifted = ask is not None and price >= ask
        hit = bid is not None and price <= bid
        left = volume
        if hit or not lifted:
            left = self._pass(True, price, left, time)
        if lifted or not hit:
            self._pass(False, price, left, time)
        self._clear()
        if not late:
            if lifted:
                self._asks.wear(price, volume)
            if hit:
                self._bids.wear(price, volume)

    def _pass(self, buying: bool, price: int, left: int, time: int) -> int:
        """Give traded shares to the orders of one side that they met; how many are left."""
        used = 0  # of what the market had before them at this price
        met = []
        for order in self._by_priority(buying, price):
            if order.came > time:
                continue
            if order.price == price:
                if order.ahead is None and self._seen:
                    continue
                waits = min(left, max((order.ahead or 0) - used, 0))
                used += waits
                left -= waits
                met.append(order)
            else:
                order.ahead = 0
            got = min(left, order.rest)
            left -= got
            self._give(order, order.price, got, "trade")
        for order in met:
            if order.ahead is not None:
                order.ahead = max(order.ahead - used, 0)
        return left

    def match(self, price: int, volume: int) -> None:
        """A call auction matched so much at one price."""
        for buying in (True, False):
            left = volume
            for order in self._by_priority(buying, price):
                got = min(left, order.rest)
                left -= got
                self._give(order, price, got, "auction")
        for order in self._orders:
            order.ahead = None
        self._clear()

    def _by_priority(self, buying: bool, price: int) -> list[Order]:
        """The orders of one side that may trade at a price, the first to be filled first."""
        sign = 1 if buying else -1
        chosen = [
            order
            for order in self._orders
            if order.buying is buying and order.rest and (order.price - price) * sign >= 0
        ]
        chosen.sort(key=lambda order: -order.price * sign)  # stable: those that came first stay first
        return chosen

    def _give(self, order: Order, price: int, volume: int, how: str) -> None:
        if volume:
            self._filled(order, price, volume, how)

    def _clear(self) -> None:
        if any(not order.rest for order in self._orders):
            self._orders = [order for order in self._orders if order.rest]
