"""Prices out of the rings, exact to the last digit, for whoever trades on them."""

import datetime as dt
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np

from jvq_fast.decoder import Decoder
from jvq_fast.market_rules import daily_limit, limit_prices, tick

_SHANGHAI = ZoneInfo("Asia/Shanghai")
_SECOND = 1_000_000_000
_HALF_A_DIGIT = Decimal("0.005")  # of a change in percent, which has two decimals
Level = Literal["trades", "quotes", "depths"]
_LEVELS: tuple[Level, ...] = ("trades", "quotes", "depths")


class Prices:
    """From any thread: what is read is copied, and never torn."""

    def __init__(self, decoder: Decoder, wall_ns: Callable[[], int]) -> None:
        self._decoder = decoder
        self._wall_ns = wall_ns

    def _latest(self, code: str, level: Level) -> np.void | None:
        try:
            ring = self._decoder.history(code, level)
        except KeyError:
            return None
        head = ring.head
        if not head:
            return None
        records = ring.copy_since(head - 1)[0]
        return records[-1] if len(records) else None

    def last(self, code: str) -> Decimal | None:
        """The price of the latest record that has one."""
        found = [record for level in _LEVELS if (record := self._latest(code, level)) is not None]
        found = [record for record in found if record["price"] > 0]
        return _exact(max(found, key=lambda record: int(record["seq"]))["price"]) if found else None

    def age(self, code: str) -> float | None:
        """Seconds since the latest record arrived."""
        found = [int(record["recv"]) for level in _LEVELS if (record := self._latest(code, level)) is not None]
        return max(0.0, (self._wall_ns() - max(found)) / _SECOND) if found else None

    def limits(self, code: str) -> tuple[Decimal, Decimal] | None:
        """Lowest and highest price of the day."""
        depth, quote = self._latest(code, "depths"), self._latest(code, "quotes")
        step = tick(code)
        if depth is not None and depth["last_close"] > 0:
            lowest = highest = _exact(depth["last_close"])
            time = int(depth["time"])
        elif quote is not None and quote["price"] > 0:
            price, change = _exact(quote["price"]), _exact(quote["change"])
            least, most = change - _HALF_A_DIGIT, change + _HALF_A_DIGIT
            if least <= -100:
                return None
            lowest, highest = 100 * price / (100 + most), 100 * price / (100 + least)
            time = int(quote["time"])
        else:
            return None
        name = self._decoder.names.get(code, "")
        day = _moment(time).date()
        ratio = daily_limit(code, day, st="ST" in name)
        if ratio is None:
            return None
        # The last close is a multiple of the tick, so the doubt ends at the next ones within.
        lowest = (lowest / step).to_integral_value(ROUND_CEILING) * step
        highest = (highest / step).to_integral_value(ROUND_FLOOR) * step
        if lowest > highest:
            return None
        return limit_prices(lowest, ratio, step)[0], limit_prices(highest, ratio, step)[1]

    def exchange_time(self) -> dt.datetime | None:
        """The latest time in any record."""
        times = []
        for level in _LEVELS:
            ring = getattr(self._decoder, level)
            if head := ring.head:
                times += ring.copy_since(head - 1)[0]["time"].tolist()
        return _moment(max(times)) if times else None


def _moment(time: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(time / _SECOND, _SHANGHAI)


def _exact(price: float) -> Decimal:
    # Of up to 15 digits the shortest text that gives this float is the one that was sent.
    return Decimal(repr(float(price)))
