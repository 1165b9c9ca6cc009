"""An order book by price level: what rests on each side, best price last. Prices are whole ticks, volumes shares."""

from bisect import insort
from collections.abc import Callable

ENOUGH = 12
DEEP = 18
TOO_DEEP = 40


class Side:
    """One side of a book. ``sign`` is +1 for bids and -1 for asks: a better price is a larger ``sign * price``."""

    __slots__ = ("_keys", "_volumes", "sign")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self._keys: list[int] = []
        self._volumes: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def best(self) -> int:
        """The best price. IndexError when the side is empty."""
        return self._keys[-1] * self.sign

    def clear(self) -> None:
        self._keys.clear()
        self._volumes.clear()

    def add(self, price: int, volume: int, plenty: int | None) -> None:
        """Rest ``volume`` more at ``price``; where more than ``plenty`` rests, half of what is there is withdrawn."""
        key = price * self.sign
        volumes = self._volumes
        resting = volumes.get(key)
        if resting is not None:
            withdrawn = resting // 2 // volume * volume
            volumes[key] = resting - withdrawn if plenty and resting > plenty else resting + volume
        else:
            insort(self._keys, key)
            volumes[key] = volume

    def take(self, volume: int) -> tuple[int, int]:
        """Fill up to ``volume`` at the best price: (price, filled)."""
        key = self._keys[-1]
        resting = self._volumes[key]
        if volume < resting:
            self._volumes[key] = resting - volume
            return key * self.sign, volume
        self._keys.pop()
        del self._volumes[key]
        return key * self.sign, resting

    def top(self, levels: int) -> list[tuple[int, int]]:
        """(price, volume) of the best ``levels``, best first; fewer where fewer rest."""
        return [(key * self.sign, self._volumes[key]) for key in self._keys[: -levels - 1 : -1]]

    def deepen(self, worst: int, widest: int, gap: Callable[[], int], volume: Callable[[], int]) -> None:
        """Keep enough levels, not too many, and none beyond the price ``worst``, close behind the best one.

        ``widest``: how far apart the best and the twelfth may lie; ``gap`` and ``volume`` draw what a new level needs.
        """
        keys = self._keys
        if len(keys) > TOO_DEEP:
            for key in keys[:-DEEP]:
                del self._volumes[key]
            del keys[:-DEEP]
        if keys and (len(keys) < ENOUGH or keys[-1] - keys[-ENOUGH] > widest):
            key = keys[-1]
            for _ in range(DEEP):
                key -= gap()
                if key < worst * self.sign:
                    break
                if key not in self._volumes:
                    insort(keys, key)
                    self._volumes[key] = volume()


class Book:
    """Both sides. ``low`` and ``high`` are the day's limits: nothing rests outside them."""

    __slots__ = ("asks", "bids", "high", "low")

    def __init__(self, low: int, high: int) -> None:
        self.low = low
        self.high = high
        self.bids = Side(+1)
        self.asks = Side(-1)

    def bid(self, price: int, volume: int, plenty: int | None = None) -> None:
        """Rest a bid at ``price``, moved so that it is inside the limits and crosses no ask; see ``Side.add``."""
        if self.asks:
            price = min(price, self.asks.best - 1)
        price = min(price, self.high)
        if price >= self.low:
            self.bids.add(price, volume, plenty)

    def ask(self, price: int, volume: int, plenty: int | None = None) -> None:
        """Rest an ask at ``price``, moved so that it is inside the limits and crosses no bid; see ``Side.add``."""
        if self.bids:
            price = max(price, self.bids.best + 1)
        price = max(price, self.low)
        if price <= self.high:
            self.asks.add(price, volume, plenty)

    def deepen(self, widest: int, gap: Callable[[], int], volume: Callable[[], int]) -> None:
        """Fill up both sides behind their best prices, see ``Side.deepen``."""
        self.bids.deepen(self.low, widest, gap, volume)
        self.asks.deepen(self.high, widest, gap, volume)
