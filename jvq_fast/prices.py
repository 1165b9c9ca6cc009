"""Prices out of the rings, exact to the last digit, for whoever trades on them."""

import datetime as dt
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from jvq_fast.decoder import Decoder
from jvq_fast.market_rules import daily_limit, limit_prices, tick
from jvq_fast.records import Flag
from jvq_fast.ring import Ring

_SHANGHAI = ZoneInfo("Asia/Shanghai")
_SECOND = 1_000_000_000
_HALF_A_DIGIT = Decimal("0.005")  # of a change in percent, which has two decimals
Level = Literal["trades", "quotes", "depths"]
_FAR = 64  # records to look back where the latest one may not do
_LEVELS: tuple[Level, ...] = ("trades", "quotes", "depths")


class Prices:
    """From any thread: what is read is copied, and never torn."""

    def __init__(self, decoder: Decoder, wall_ns: Callable[[], int]) -> None:
        self._decoder = decoder
        self._wall_ns = wall_ns

    def _latest(self, code: str, level: Level, *, priced: bool = False) -> np.void | None:
        try:
            ring = self._decoder.history(code, level)
        except (KeyError, ValueError):  # not seen yet; no histories of this level
            return None
        # Shenzhen's trades have cancellations of price 0 among them, while a snapshot without a price has none.
        records = _tail(ring, _FAR if priced and level == "trades" else 1)
        if priced:
            records = records[records["price"] > 0]
        return records[-1] if len(records) else None

    def last(self, code: str) -> Decimal | None:
        """The price of the latest record that has one; a snapshot that is stale counts only where there is no other."""
        found = [record for level in _LEVELS if (record := self._latest(code, level, priced=True)) is not None]
        if not found:
            return None
        return _exact(max(found, key=lambda record: (not _is_stale(record), int(record["seq"])))["price"])

    def age(self, code: str) -> float | None:
        """Seconds since the latest record arrived. What is stale is as old as it says, however late it was pushed."""
        latest = [record for level in _LEVELS if (record := self._latest(code, level)) is not None]
        found = [int(record["time" if _is_stale(record) else "recv"]) for record in latest]
        return max(0.0, (self._wall_ns() - max(found)) / _SECOND) if found else None

    def limits(self, code: str) -> tuple[Decimal, Decimal] | None:
        """Lowest and highest price of the day."""
        depth, quote = self._todays(code, "depths"), self._todays(code, "quotes")
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

    def _todays(self, code: str, level: Level) -> np.void | None:
        """The latest record, but for one of a day that is over: it comes first after a subscription."""
        record, now = self._latest(code, level), self.exchange_time()
        if record is None or now is None or _moment(int(record["time"])).date() < now.date():
            return None
        return record

    def exchange_time(self) -> dt.datetime | None:
        """The latest time in the last records of each level, among which there may be old ones."""
        tails = [_tail(getattr(self._decoder, level), _FAR) for level in _LEVELS]
        times = [int(tail["time"].max()) for tail in tails if len(tail)]
        return _moment(max(times)) if times else None


def _tail(ring: Ring, n: int) -> NDArray[np.void]:
    return ring.copy_since(max(ring.head - n, 0))[0]


def _is_stale(record: np.void) -> bool:
    return bool(record["flags"] & Flag.STALE)


def _moment(time: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(time / _SECOND, _SHANGHAI)


def _exact(price: float) -> Decimal:
    # Of up to 15 digits the shortest text that gives this float is the one that was sent.
    return Decimal(repr(float(price)))
