"""What a trade client has to know of the market."""

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Protocol

from jvq_fast.trade.model import SHANGHAI

Clock = Callable[[], dt.datetime]


class Market(Protocol):
    """Prices to judge an order by; a `Feed` is one. All of it may be called from any thread.

    A market may also have `exchange_time() -> datetime | None`, the latest time of the exchange, aware: it is the
    client's clock outside live mode.
    """

    def last(self, code: str) -> Decimal | None:
        """The last price, CNY; None without one."""

    def age(self, code: str) -> float | None:
        """Seconds since data of the code last arrived; None where none ever did."""

    def name(self, code: str) -> str:
        """The security's name, "" where it is not known."""

    def limits(self, code: str) -> tuple[Decimal, Decimal] | None:
        """The day's lowest and highest price, CNY; None where they are not known."""


class NoMarket:
    """Knows nothing, so that nothing is ordered."""

    def last(self, code: str) -> Decimal | None:  # noqa: ARG002
        return None

    def age(self, code: str) -> float | None:  # noqa: ARG002
        return None

    def name(self, code: str) -> str:  # noqa: ARG002
        return ""

    def limits(self, code: str) -> tuple[Decimal, Decimal] | None:  # noqa: ARG002
        return None


def wall_clock() -> dt.datetime:
    """The time in Shanghai."""
    return dt.datetime.now(SHANGHAI)


def in_shanghai(clock: Clock) -> Clock:
    """The same clock, whose times tell Shanghai's date and time of day. ValueError for a time without a zone."""

    def now() -> dt.datetime:
        time = clock()
        if time.tzinfo is None:
            raise ValueError(f"the clock tells a time without a zone: {time}")
        return time.astimezone(SHANGHAI)

    return now


def market_clock(market: object) -> Clock | None:
    """The latest exchange time that a market saw, the wall clock before it saw any; None where it tells none."""
    told: Callable[[], dt.datetime | None] | None = getattr(market, "exchange_time", None)
    if told is None:
        return None
    latest = told  # for the type checker

    def now() -> dt.datetime:
        return latest() or wall_clock()

    return now
