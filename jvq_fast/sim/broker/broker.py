"""The paper broker: accounts that trade against the simulated market, by the exchanges' rules, with exact money.

It learns of the market through ``heed`` and ``snapshot`` alone, and the market learns nothing of it.
"""

import datetime as dt
import random
import re
import time
from collections import Counter, deque
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Protocol

from jvq_fast.market_rules import Phase, phase, previous_trading_day
from jvq_fast.sim.broker.matching import Matching
from jvq_fast.sim.broker.order_rules import (
    Refusal,
    RefusedError,
    check_cancel_time,
    check_limits,
    check_lot_to_buy,
    check_lot_to_sell,
    check_session,
    check_tick,
    next_day_only,
    read_price,
    read_volume,
)
from jvq_fast.sim.broker.orders import MILLION, Account, Fill, Holding, Order, money_text, price_text, thousandths
from jvq_fast.sim.events import DAY, MINUTE, SECOND, Event, Level, Snapshot, clock_text
from jvq_fast.sim.listing import Listing, listing
from jvq_fast.sim.market import AFTERNOON, CLOSE, CLOSING_MATCH, MORNING, OPENING_MATCH
from jvq_fast.sim.settings import Settings
from jvq_fast.sim.timeline import Timeline

__all__ = ["Broker", "Request"]

_CODE = re.compile(r"[0-9]{6}")
_REQUESTS_KEPT = 1 << 17
_STRAGGLERS = CLOSE + MINUTE  # in recorded days the last trades arrive seconds late

# What a new account holds, and how many lots at most.
_HELD = {
    "600519": 4, "000001": 200, "601398": 300, "300750": 20, "688981": 10, "510300": 400, "113050": 60, "127063": 40,
}  # fmt: skip
_ODD_HELD = "601398"
_CASH = (1_000_000, 5_000_000)

Request = dict[str, Any]


class Floor(Protocol):
    """What the broker needs of the server that knows who listens to which code."""

    @property
    def has_listeners(self) -> bool:
        """Whether anybody listens to anything."""

    def may_know(self, code: str) -> bool:
        """Whether the market of a code may run."""

    def listen(self, code: str) -> None:
        """The market of a code has one listener more."""

    def forget(self, code: str) -> None:
        """And one less."""


class Broker:
    """All accounts, all orders. On the loop's thread."""

    def __init__(
        self,
        settings: Settings,
        timeline: Timeline,
        floor: Floor,
        snapshot: Callable[[str], Snapshot | None],
        due: Callable[[], int | None],
    ) -> None:
        """``snapshot`` is the state of a code, ``due`` when the market's next event comes."""
        self.watched: set[str] = set()  # codes whose events it wants to hear
        self.received: Counter[str] = Counter()  # by call
        self.requests: deque[Request] = deque(maxlen=_REQUESTS_KEPT)  # those that order or cancel
        self._settings = settings
        self._timeline = timeline
        self._floor = floor
        self._snapshot = snapshot
        self._due = due
        self._accounts: dict[str, Account] = {}
        self._matchings: dict[str, Matching] = {}
        self._shown: dict[str, Snapshot] = {}
        self._owners: dict[int, Account] = {}
        self._day = timeline.day(timeline.now())
        # One that was started anew is another broker: whoever remembers orders of the one before must not meet theirs.
        since = int(time.time()) % 86_400 * 1000
        self._numbers = since + random.Random(f"orders:{settings.seed}").randrange(1_000_000, 2_000_000)
        self._now = 0

    # Accounts

    def account(self, name: str) -> Account:
        """The account with this number of twelve digits; what it begins with depends on the seed and the number."""
        self.advance()
        account = self._accounts.get(name)
        if account is None:
            rng = random.Random(f"account:{self._settings.seed}:{name}")
            cash = rng.randrange(*_CASH) * 1000 + rng.randrange(100) * 10
            holdings = [self._initial(code, most, rng) for code, most in _HELD.items()]
            millionths = round(self._settings.commission * MILLION)
            account = self._accounts[name] = Account(len(self._accounts) + 1, name, cash, holdings, millionths)
        return account

    def _initial(self, code: str, most: int, rng: random.Random) -> Holding:
        listed = listing(code, self._settings.seed)
        volume = listed.minimum + rng.randrange(most) * max(listed.step, 10)
        if code == _ODD_HELD:
            volume += rng.randrange(1, 100)
        cost = listed.last_close * rng.randrange(80, 120) // 100 * listed.unit
        return Holding(code, listed.name, volume, paid=cost * volume, began=volume)

    def price(self, code: str) -> tuple[int, int]:
        """Last price and last close of a code."""
        snapshot = self._snapshot(code)
        if snapshot is None:
            close = _listed_close(listing(code, self._settings.seed))
            return close, close
        close = thousandths(snapshot.last_close)
        return thousandths(snapshot.price) or close, close

    # Time

    def time(self) -> dt.time:
        """Time of day in the market."""
        clock = self._timeline.now() % DAY // SECOND
        return dt.time(clock // 3600, clock // 60 % 60, clock % 60)

    def advance(self, now: int | None = None) -> None:
        """What the time brings: orders end with their day, and with a new day what was bought may be sold."""
        now = self._timeline.now() if now is None else now
        day = self._timeline.day(now)
        if day > self._day:
            self._close()
            self._day = day
            for account in self._accounts.values():
                account.new_day()
        elif now % DAY >= CLOSE:
            due = self._due()
            if due is None or due > self._timeline.midnight(day) + _STRAGGLERS:
                self._close()

    def _close(self) -> None:
        for code, matching in tuple(self._matchings.items()):
            for order in matching.close():
                self._owners[order.number].end(order)
                self._floor.forget(code)
            self._settle(code)

    # Orders

    def place(self, account: Account, code: str, price: str, volume: str, *, buying: bool) -> Order:
        """A new order, accepted, and filled as far as the book has it. RefusedError says why not."""
        wanted, size = read_price(price), read_volume(volume)
        if not _CODE.fullmatch(code) or not self._floor.may_know(code):
            raise RefusedError(Refusal.CODE)
        self._end_pause()
        self._floor.listen(code)  # which ends a night or a lunch that nobody waited for
        order = None
        try:
            self.advance()
            snapshot = self._snapshot(code)
            self._check(account, code, wanted, size, snapshot, buying=buying)
            order = self._accept(account, code, wanted, size, snapshot, buying=buying)
        finally:
            if order is None:
                self._floor.forget(code)
        self._settle(code)
        return order

    def _end_pause(self) -> None:
        """At full speed time stands while nobody listens: it may not stand for ever where no order is taken."""
        timeline, settings = self._timeline, self._settings
        stands = timeline.full_speed and timeline.running and not self._floor.has_listeners
        if not stands or settings.calendar or settings.replay:
            return
        now = timeline.now()
        clock = now % DAY
        if OPENING_MATCH <= clock < MORNING[0]:
            timeline.jump(now - clock + MORNING[0])
        elif MORNING[1] <= clock < AFTERNOON[0]:
            timeline.jump(now - clock + AFTERNOON[0])
        elif CLOSING_MATCH <= clock < CLOSE:
            timeline.jump(now - clock + CLOSE)

    def _check(
        self, account: Account, code: str, price: Decimal, volume: int, snapshot: Snapshot | None, *, buying: bool
    ) -> None:
        check_session(self.time())
        check_tick(code, price)
        if buying:
            check_lot_to_buy(code, volume)
        if snapshot is not None:
            check_limits(code, self._day, Decimal(snapshot.last_close), price, st="ST" in snapshot.name)
        if buying:
            if account.cost(int(price * 1000), volume) > account.cash:
                raise RefusedError(Refusal.CASH)
        else:
            holding = account.holdings.get(code)
            if holding is None or volume > holding.usable:
                raise RefusedError(Refusal.SHARES)
            check_lot_to_sell(code, volume, holding.usable)

    def _accept(
        self, account: Account, code: str, price: Decimal, volume: int, snapshot: Snapshot | None, *, buying: bool
    ) -> Order:
        listed = listing(code, self._settings.seed)
        now = self._timeline.now()
        due = self._due()
        self._numbers += 1 + self._numbers % 7
        order = Order(
            number=self._numbers,
            buying=buying,
            code=code,
            price=int(price * 1000),
            volume=volume,
            came=(now if due is None else min(now, due)) % DAY,
            name=snapshot.name if snapshot is not None else listed.name,
            decimals=listed.decimals,
            day=self._day,
            time=now % DAY,
        )
        self._owners[order.number] = account
        account.begin(order)
        matching = self._matchings.get(code)
        if matching is None:
            matching = self._matchings[code] = Matching(self._filled)
        self._now = now % DAY
        if phase(self.time()) is Phase.CONTINUOUS:
            self._show(code, matching, snapshot)
            matching.come(order)
        else:
            matching.wait(order)
        return order

    def cancel(self, account: Account, number: str) -> Order:
        """End an order of this account. RefusedError says why not."""
        self.advance()
        order = account.orders.get(int(number)) if re.fullmatch("[0-9]{1,18}", number) else None
        if order is None:
            raise RefusedError(Refusal.ORDER_ID)
        if order.ended:
            raise RefusedError(Refusal.ENDED)
        check_cancel_time(self.time())
        self._matchings[order.code].leave(order)
        account.end(order)
        self._floor.forget(order.code)
        self._settle(order.code)
        return order

    def todays(self, account: Account) -> list[Order]:
        """The orders that the broker lists, the oldest first."""
        self.advance()
        since = self._day
        for _ in range(self._settings.order_days - 1):
            since = previous_trading_day(since)
        return [order for order in account.orders.values() if order.day >= since]

    def hide(self, number: int, polls: int) -> None:
        """Let an order be missing from so many polls."""
        self._owners[number].orders[number].hidden = polls

    def _filled(self, order: Order, price: int, volume: int, how: str) -> None:
        account = self._owners[order.number]
        account.fill(order, Fill(self._now, price, volume, how), next_day=next_day_only(order.code))
        if order.ended:
            self._floor.forget(order.code)

    # The market

    def heed(self, moment: int, code: str, event: Event) -> None:
        """An event of a code that is watched."""
        self.advance(moment)
        matching = self._matchings.get(code)
        if matching is None:
            return
        self._now = moment % DAY
        if isinstance(event, Snapshot):
            if OPENING_MATCH <= event.time < AFTERNOON[1]:
                self._show(code, matching, event, trading=event.time >= MORNING[0])
        else:
            shown = self._shown.get(code) if self._settings.replay else None  # where trades arrive late
            for trade in event:
                price = thousandths(trade.price)
                if price and _continuous(trade.time):
                    late = shown is not None and trade.time <= shown.time
                    matching.trade(price, trade.volume, trade.time, late=late)
            matched = [(thousandths(each.price), each.volume) for each in event if _matched(each.time)]
            for price in dict.fromkeys(price for price, _ in matched if price):
                matching.match(price, sum(volume for each, volume in matched if each == price))
        self._settle(code)

    def _show(self, code: str, matching: Matching, snapshot: Snapshot | None, *, trading: bool = True) -> None:
        """Let the queue see a book; a replay has no newer one than its last snapshot, which is not seen twice."""
        if snapshot is None or snapshot is self._shown.get(code) or snapshot.time < OPENING_MATCH:
            return
        if trading:
            self._shown[code] = snapshot
        matching.show(_levels(snapshot.bids), _levels(snapshot.asks), trading=trading)

    def _settle(self, code: str) -> None:
        """Watch a code as long as there is something to watch it for."""
        matching = self._matchings.get(code)
        if matching is None or matching.idle:
            self._matchings.pop(code, None)
            self._shown.pop(code, None)
            self.watched.discard(code)
        else:
            self.watched.add(code)

    # What tests ask

    def describe(self, name: str = "") -> dict[str, Any]:
        """What GET /broker says: everything, or of one account."""
        self.advance()
        accounts = [each for each in self._accounts.values() if name in ("", each.name)]
        indexes = {each.index for each in accounts}
        return {
            "day": self._day.isoformat(),
            "time": self._timeline.text(),
            "received": dict(self.received),
            "accounts": [self._describe_account(each) for each in accounts],
            "requests": [each for each in self.requests if not name or each["account"] in indexes],
            "wrong": [f"account {each.index}: {text}" for each in accounts for text in each.audit()],
        }

    def _describe_account(self, account: Account) -> dict[str, Any]:
        return {
            "index": account.index,
            "account": "*" * 8 + account.name[-4:],
            "cash": money_text(account.cash),
            "frozen": money_text(account.frozen),
            "fees": money_text(account.fees),
            "holdings": [
                {
                    "code": each.code,
                    "volume": each.volume,
                    "usable": each.usable,
                    "locked": each.locked,
                    "frozen": each.frozen,
                }
                for each in account.holdings.values()
            ],
            "orders": [_describe_order(each) for each in account.orders.values()],
            "sums": account.sums(),
        }

    def note(self, call: str, account: Account | None, query: dict[str, str]) -> Request:
        """A request that orders or cancels has come; what becomes of it is written into what this returns."""
        side = {"buy": "buy", "sale": "sell"}.get(call, "")
        asked = {name: query.get(name, "") for name in (("code", "price", "volume") if side else ("order_id",))}
        request: Request = {
            "number": self.received.total(),
            "call": call,
            "account": account.index if account is not None else 0,
            **asked,
            "market": self._timeline.text(),
            "time": time.monotonic_ns(),
            "result": "",  # 0, or the code of the refusal; nothing where it never came to it
            "accepted": "",  # the order's id
            "faults": [],
        }
        self.requests.append(request)
        return request


def _describe_order(order: Order) -> dict[str, Any]:
    return {
        "order_id": str(order.number),
        "day": order.day.isoformat(),
        "time": clock_text(order.time),
        "side": "buy" if order.buying else "sell",
        "code": order.code,
        "price": price_text(order.price, order.decimals),
        "volume": order.volume,
        "dealt": order.dealt,
        "amount": money_text(order.amount),
        "fee": money_text(order.fee),
        "reserved": money_text(order.reserved),
        "status": order.status,
        "ended": order.ended,
        "ahead": order.ahead,
        "fills": [
            {"time": clock_text(each.time), "price": money_text(each.price), "volume": each.volume, "how": each.how}
            for each in order.fills
        ],
    }


def _listed_close(listed: Listing) -> int:
    return listed.last_close * listed.unit


def _levels(levels: tuple[Level, ...]) -> list[tuple[int, int]]:
    return [(thousandths(price), volume) for price, volume in levels]


def _continuous(clock: int) -> bool:
    """Lunch counts too: trades of its first moment belong to the morning."""
    return MORNING[0] <= clock < AFTERNOON[1]


def _matched(clock: int) -> bool:
    """Whether trades of this time are a call auction's."""
    return OPENING_MATCH <= clock < MORNING[0] or clock >= AFTERNOON[1]
