"""The risk gate: every order passes it before anything leaves this machine. It knows no socket, disk or clock."""

import dataclasses
import datetime as dt
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NoReturn, TypeVar

from jvq_fast.errors import NoMarketData, RiskError
from jvq_fast.market_rules import Lot, Phase, daily_limit, is_trading_day, limit_prices, lot, phase, tick
from jvq_fast.trade.market import Market
from jvq_fast.trade.model import Side, amount

# The exchanges' line for high-frequency trading is 300 orders and cancels a second or 20,000 a day on one account
# (rules on programme trading of 2024, in force since 2025-07-07). Limits are held below it, whatever is asked for.
CEILING_PER_SECOND = 200
CEILING_PER_DAY = 15_000
_SESSIONS = frozenset({Phase.OPENING_CALL, Phase.CONTINUOUS, Phase.CLOSING_CALL})
_CLOCK_RUNS_BACK = dt.timedelta(days=3)
T = TypeVar("T")
_MONEY = ("max_order_value", "max_daily_value")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the risk gate lets through. Each may be set; None turns one off where its type says so.

    `max_order_volume`: shares, units or bonds of one order; `max_order_value`, `max_daily_value`: CNY of one order and
    of a day's orders that may have reached the broker. `price_band`: how far from the last price, as a ratio (2 % is
    what the exchanges allow beyond the best quote in continuous trading). `daily_limits`: refuse prices outside the
    day's. `last_close`: CNY by code, for codes whose limit prices the feed can't tell; `st`: codes under special
    treatment among them. `ticks_and_lots`: refuse what the exchange would. `usable`: sell no more than may be sold.
    `max_open_orders`: at the broker and not done. `max_repeats`: the same code, side, price and volume within
    `repeat_window` seconds. `max_data_age`: seconds since the code's last data. `sessions`: when to order.
    `max_per_second`, `max_per_day`: orders and cancels, at most 200 and 15,000. `codes`: all others are refused.
    """

    max_order_volume: int | None = 10_000
    max_order_value: Decimal | None = Decimal(100_000)
    max_daily_value: Decimal | None = Decimal(500_000)
    price_band: Decimal | None = Decimal("0.02")
    daily_limits: bool = True
    last_close: Mapping[str, Decimal] = field(default_factory=dict)
    st: Collection[str] = frozenset()
    ticks_and_lots: bool = True
    usable: bool = True
    max_open_orders: int | None = 10
    max_repeats: int | None = 1
    repeat_window: float = 5.0
    max_data_age: float | None = 10.0
    sessions: Collection[Phase] | None = _SESSIONS
    max_per_second: int = 10
    max_per_day: int = 2_000
    codes: Collection[str] | None = None

    def __post_init__(self) -> None:
        for name, ceiling in (("max_per_second", CEILING_PER_SECOND), ("max_per_day", CEILING_PER_DAY)):
            value = getattr(self, name)
            if not _is_whole(value) or not 1 <= value <= ceiling:
                raise ValueError(f"{name} is a whole number from 1 to {ceiling:,}, not {value!r}")
        for name in ("max_order_volume", "max_open_orders", "max_repeats"):
            value = getattr(self, name)
            if value is not None and (not _is_whole(value) or value < 0):
                raise ValueError(f"{name} is a whole number or None, not {value!r}")
        for name in (*_MONEY, "price_band"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, amount(name, value))
        for name in ("max_data_age", "repeat_window"):
            value = getattr(self, name)
            if value is None and name == "max_data_age":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
                raise ValueError(f"{name} is a time in seconds, not {value!r}")
        object.__setattr__(
            self,
            "last_close",
            {code: amount(f"last_close of {code}", price) for code, price in self.last_close.items()},
        )
        for code, price in self.last_close.items():
            if not price:
                raise ValueError(f"last_close of {code} is above 0")
        if self.sessions is not None and not all(isinstance(each, Phase) for each in self.sessions):
            raise TypeError("sessions are a collection of phases, such as jvq_fast.market_rules.Phase.CONTINUOUS")
        if isinstance(self.codes, str) or isinstance(self.st, str):
            raise TypeError("codes and st are collections of codes, not one str")

    def replace(self, **changes: Any) -> "Limits":
        """The same with some of them changed."""
        return dataclasses.replace(self, **changes)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Request:
    """An order as it was asked for."""

    side: Side
    code: str
    price: Decimal
    volume: int

    @property
    def value(self) -> Decimal:
        """CNY."""
        return self.price * self.volume


def _is_good_volume(order: Request, size: Lot, usable: int) -> bool:
    if order.volume >= size.minimum and order.volume % size.step == 0:
        return True
    if order.side is Side.BUY or not usable:
        return False
    if size.step == 1:
        return order.volume == usable < size.minimum
    return order.volume % size.step == usable % size.step and order.volume <= usable


@dataclass(frozen=True, slots=True)
class Situation:
    """What else the gate has to know. `usable` is None where it is not known and not asked for (dry mode)."""

    now: dt.datetime
    open_orders: int
    usable: int | None


class Gate:
    """Judges orders, and counts what was let through. One thread at a time uses it."""

    def __init__(self, limits: Limits, market: Market) -> None:
        self.limits = limits
        self._market = market
        self._second: deque[float] = deque()
        self._repeats: deque[tuple[float, dt.datetime, Request]] = deque()
        # By day, since a clock may be wrong for a while; see `_of_day`.
        self._counts: dict[dt.date, int] = {}
        self._values: dict[dt.date, Decimal] = {}

    # --- judging ---

    def check(self, order: Request, situation: Situation, monotonic: float) -> None:
        """RiskError names the limit that stands against it. Nothing is counted yet."""
        limits = self.limits
        if limits.codes is not None and order.code not in limits.codes:
            self._refuse("codes", "an allow-list", order.code, f"{order.code} is not in the allow-list")
        self._check_session(situation.now)
        self._check_rules(order, situation)
        self._check_size(order, situation)
        self._check_price(order, situation.now)
        self._check_repeats(order, monotonic)
        self.check_rate(situation.now, monotonic)

    def _check_session(self, now: dt.datetime) -> None:
        sessions = self.limits.sessions
        if sessions is None:
            return
        here = phase(now.time()) if is_trading_day(now.date()) else Phase.CLOSED
        if here not in sessions:
            told = ", ".join(sorted(each.value for each in sessions))
            what = here.value if is_trading_day(now.date()) else "no trading day"
            self._refuse("sessions", told, here, f"at {now:%Y-%m-%d %H:%M:%S} it is {what}; orders go in {told}")

    def _check_rules(self, order: Request, situation: Situation) -> None:
        limits = self.limits
        usable = situation.usable
        if order.side is Side.SELL and limits.usable and usable is not None and order.volume > usable:
            self._refuse("usable", usable, order.volume, f"{order.volume:,} to sell, {usable:,} of {order.code} usable")
        if not limits.ticks_and_lots:
            return
        step = tick(order.code)
        if order.price % step:
            self._refuse("tick", step, order.price, f"the price {order.price} is no multiple of the tick {step}")
        size = lot(order.code)
        if not _is_good_volume(order, size, usable or 0):
            rule = f"lots of {size.step}" if size.step == size.minimum else f"{size.minimum} and then by {size.step}"
            why = f"{order.volume:,} of {order.code}: orders are {rule}"
            if order.side is Side.SELL:
                why += ", and a smaller rest is sold whole"
            self._refuse("lot", size.minimum, order.volume, why)

    def _check_size(self, order: Request, situation: Situation) -> None:
        limits = self.limits
        most = limits.max_order_volume
        if most is not None and order.volume > most:
            self._refuse("max_order_volume", most, order.volume, f"{order.volume:,}, at most {most:,}")
        if limits.max_order_value is not None and order.value > limits.max_order_value:
            self._refuse(
                "max_order_value", limits.max_order_value, order.value,
                f"{order.value:,} CNY, at most {limits.max_order_value:,}",
            )  # fmt: skip
        spent = sum(self._of_day(self._values, situation.now), Decimal(0))
        if limits.max_daily_value is not None and spent + order.value > limits.max_daily_value:
            self._refuse(
                "max_daily_value", limits.max_daily_value, spent + order.value,
                f"{order.value:,} CNY on top of the day's {spent:,}, at most {limits.max_daily_value:,}",
            )  # fmt: skip
        if limits.max_open_orders is not None and situation.open_orders >= limits.max_open_orders:
            self._refuse(
                "max_open_orders", limits.max_open_orders, situation.open_orders + 1,
                f"{situation.open_orders} are open, at most {limits.max_open_orders}",
            )  # fmt: skip

    def _check_price(self, order: Request, now: dt.datetime) -> None:
        limits, market, code = self.limits, self._market, order.code
        if limits.max_data_age is not None:
            age = market.age(code)
            if age is None:
                raise NoMarketData("max_data_age", limits.max_data_age, None, f"no data of {code} has arrived")
            if age > limits.max_data_age:
                self._refuse(
                    "max_data_age", limits.max_data_age, age,
                    f"the data of {code} is {age:.1f} s old, at most {limits.max_data_age:g} s",
                )  # fmt: skip
        if limits.price_band is not None:
            last = market.last(code)
            if last is None or last <= 0:
                raise NoMarketData("price_band", limits.price_band, None, f"no price of {code} is known")
            if abs(order.price - last) > limits.price_band * last:
                self._refuse(
                    "price_band", limits.price_band, order.price,
                    f"{order.price} is more than {limits.price_band:%} from the last price {last}",
                )  # fmt: skip
        if limits.daily_limits:
            found = self._limit_prices(code, now.date())
            if found is None:
                raise NoMarketData(
                    "daily_limits", None, None,
                    f"the limit prices of {code} are not known: subscribe to lv1 or lv10 of it, or give its last_close",
                )  # fmt: skip
            low, high = found
            if not low <= order.price <= high:
                self._refuse(
                    "daily_limits", (low, high), order.price, f"{order.price} is outside the day's {low} to {high}"
                )

    def _limit_prices(self, code: str, day: dt.date) -> tuple[Decimal, Decimal] | None:
        close = self.limits.last_close.get(code)
        if close is None:
            return self._market.limits(code)
        ratio = daily_limit(code, day, st=code in self.limits.st)
        if ratio is None:
            return tick(code), Decimal("Infinity")
        return limit_prices(close, ratio, tick(code))

    def _check_repeats(self, order: Request, monotonic: float) -> None:
        limits = self.limits
        if limits.max_repeats is None:
            return
        repeats = sum(each == order for at, _, each in self._repeats if monotonic - at < limits.repeat_window)
        if repeats >= limits.max_repeats:
            self._refuse(
                "max_repeats", limits.max_repeats, repeats + 1,
                f"the same order {repeats + 1} times within {limits.repeat_window:g} s, at most {limits.max_repeats}",
            )  # fmt: skip

    def check_rate(self, now: dt.datetime, monotonic: float) -> None:
        """RiskError where one more order or cancel would be too many."""
        limits = self.limits
        while self._second and monotonic - self._second[0] >= 1.0:
            self._second.popleft()
        if len(self._second) >= limits.max_per_second:
            self._refuse(
                "max_per_second", limits.max_per_second, len(self._second) + 1,
                f"{len(self._second)} orders and cancels went within a second, at most {limits.max_per_second}",
            )  # fmt: skip
        count = sum(self._of_day(self._counts, now))
        if count >= limits.max_per_day:
            self._refuse(
                "max_per_day", limits.max_per_day, count + 1,
                f"{count:,} orders and cancels went today, at most {limits.max_per_day:,}",
            )  # fmt: skip

    def _refuse(self, limit: str, allowed: object, actual: object, why: str) -> NoReturn:
        raise RiskError(limit, allowed, actual, why)

    # --- counting ---

    def count(self, order: Request | None, now: dt.datetime, monotonic: float) -> None:
        """An order, or a cancel, was let through, by a process that is gone perhaps; the oldest come first."""
        day = now.date()
        self._counts[day] = self._counts.get(day, 0) + 1
        while self._second and monotonic - self._second[0] >= 1.0:
            self._second.popleft()
        self._second.append(monotonic)
        if order is None:
            return
        self._values[day] = self._values.get(day, Decimal(0)) + order.value
        while self._repeats and monotonic - self._repeats[0][0] >= self.limits.repeat_window:
            self._repeats.popleft()
        self._repeats.append((monotonic, now, order))

    def _of_day(self, counted: Mapping[dt.date, T], now: dt.datetime) -> list[T]:
        """What was counted on the day, and on the two behind it.

        A clock that is the market's may run back over midnight, which must not begin the day's counts anew.
        """
        return [what for day, what in counted.items() if dt.timedelta(0) <= day - now.date() < _CLOCK_RUNS_BACK]

    def take_back(self, order: Request, now: dt.datetime) -> None:
        """It did not reach the broker: its value counts no more, and it may be repeated."""
        self._values[now.date()] -= order.value
        for each in self._repeats:
            if each[1:] == (now, order):
                self._repeats.remove(each)
                break

    def bring_back(self, order: Request, now: dt.datetime) -> None:
        """It did reach the broker, in spite of what was thought: its value counts again."""
        self._values[now.date()] += order.value
