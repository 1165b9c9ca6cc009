"""A random life of a trade client against a model broker, in virtual time, and the verdict from the broker's own book.

`World(seed, folder).run()` is one schedule: orders, cancels, everything that a broker and a network can do to them,
other people's orders that look the same, restarts, crashes, lost power, second clients, and a human who answers. The
client is the real one with its journal on disk; what is in the place of the network begins below `wire.get`. Nothing
waits: the client's polls come when the world moves on, and other calls come while one is under way.
"""

import datetime as dt
import heapq
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import journal_lines
import jvq_fast as jvq
from jvq_fast.errors import (
    AccountInUseError,
    JvqError,
    OrderNotSent,
    OrderRejected,
    OrderUnknown,
    RiskError,
    TradeError,
)
from jvq_fast.market_rules import Phase, lot, phase, tick
from jvq_fast.redact import Secret
from jvq_fast.trade import Intent, Limits, Order, Outcome, Polling, TradeClient, wire
from jvq_fast.trade.dispatch import Dispatcher
from jvq_fast.trade.model import SHANGHAI
from jvq_fast.trade.tracker import Tracker
from model_broker import FOREIGN, Deal, ModelBroker
from simulator import TOKEN

ACCOUNT = "123456789012"
TRUSTED = "当前时间不允许委托"
PRICES = {
    "600519": Decimal("1250.00"), "000001": Decimal("11.50"), "601398": Decimal("6.20"), "113050": Decimal("118.000")
}  # fmt: skip
MARGIN = Decimal("0.02")

# What may become of a call, beside that it is answered as it should be.
LOST = ("reset before", "no reply after", "reset after", "html before", "5xx after", "truncated")
FAULTS = {
    "buy": (
        "refused connection", "slow connection", *LOST, "late", "late", "slow", "slow", "slow", "too slow", "rejected",
        "trusted", "expired", "error after", "empty id", "empty id and not accepted", "missing", "missing", "numbers",
        "field", "duplicate id", "code beside id", "no code",
    ),
    "cancel": (
        "refused connection", "slow connection", *LOST, "late", "slow", "too slow", "rejected", "expired",
        "error after", "numbers", "no code",
    ),
    "check_order": (
        "refused connection", *LOST, "rejected", "expired", "numbers", "no list", "row twice", "damaged row",
        "damaged rows", "unknown status", "reversed", "reversed",
    ),
    "check_hold": ("refused connection", *LOST, "rejected", "expired", "numbers", "field"),
    "login": ("refused connection", *LOST, "slow login", "rejected", "no ticket", "numbers", "short", "no expiry"),
}  # fmt: skip
FAULTS["sale"] = FAULTS["buy"]


class CrashError(BaseException):
    """The process ends here: nothing of the client's is carried out any more."""


class Clock:
    """Virtual time, in seconds since the schedule began."""

    def __init__(self, begin: dt.datetime) -> None:
        self._begin = begin
        self.seconds = 0.0

    def now(self) -> dt.datetime:
        return self._begin + dt.timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return 1000.0 + self.seconds

    def time(self) -> float:
        return self.now().timestamp()


class Prices:
    """A market that knows everything, until it is stale."""

    def __init__(self) -> None:
        self.stale = False

    def last(self, code: str) -> Decimal | None:
        return PRICES.get(code)

    def age(self, code: str) -> float | None:
        return (60.0 if self.stale else 0.5) if code in PRICES else None

    def name(self, code: str) -> str:
        return f"N{code}"

    def limits(self, code: str) -> tuple[Decimal, Decimal] | None:
        price = PRICES[code]
        return price * Decimal("0.99"), price * Decimal("1.10")


class HandTracker(Tracker):
    """Polls when it is told to, on the caller's thread, if it would poll at all."""

    def wake(self) -> None:
        pass

    def step(self) -> None:
        if self._is_wanted():
            try:
                self._poll()
            except JvqError as error:
                self._failed(error)


class HandDispatcher(Dispatcher):
    """Calls the handlers at once."""

    def tell(self, name: str, *arguments: Any) -> None:
        for handler in self._handlers[name]:
            handler(*arguments)


@dataclass(frozen=True)
class Arrival:
    """An order that came to the broker, whatever became of it."""

    content: tuple[str, bool, Decimal, int]
    at: float
    listed: frozenset[str]  # the orders that the client had been shown before


def content_of(intent: Intent) -> tuple[str, bool, Decimal, int]:
    return intent.security, intent.action.value == "buy", intent.price, intent.volume


def as_numbers(body: Any) -> Any:
    """The same reply with numbers for texts; codes of securities stay texts, since 000001 is no number."""
    if isinstance(body, list):
        return [as_numbers(each) for each in body]
    changed = dict(body)
    for name, value in body.items():
        if isinstance(value, list):
            changed[name] = as_numbers(value)
        elif name not in ("name", "message", "ticket") and not (name == "code" and "order_price" in body):
            try:
                number = Decimal(value)
            except ArithmeticError:
                continue
            if not (name == "code" and "hold_vol" in body):
                changed[name] = int(number) if number == int(number) and "." not in value else number
    return changed


class World:
    """One schedule. `counts` says what happened; AssertionError says what should not have."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = rng = random.Random(seed)
        self.counts: Counter[str] = Counter()
        hour, minute = rng.choice([(9, 31), (10, 15), (13, 5), (11, 28), (14, 20)])
        self.clock = Clock(dt.datetime(2026, 11, 23, hour, minute, tzinfo=SHANGHAI))
        self.skew = dt.timedelta(seconds=rng.choice([0, 0, 0, 2, -3, 20]))
        self.broker = ModelBroker(lambda: self.clock.now() + self.skew)
        self.market = Prices()
        self.trouble = rng.choice([0.0, 0.1, 0.3, 0.3, 0.6, 0.85])
        self.limits = Limits(
            max_order_volume=2_000,
            max_order_value=Decimal(130_000),
            max_daily_value=Decimal(rng.choice([60_000, 400_000, 2_000_000])),
            max_open_orders=rng.choice([2, 5, 20]),
            max_repeats=rng.choice([1, 2, 3]),
            repeat_window=rng.choice([2.0, 5.0, 12.0]),
            max_per_second=rng.choice([2, 4, 10]),
            max_per_day=rng.choice([15, 60]),
            price_band=MARGIN,
            codes=frozenset(PRICES),
        )
        self.budget = rng.choice([None, None, None, Decimal(3)])
        self.journal_path = folder / "journal"
        self.ticket_path = folder / "ticket"
        self.ticket = ""
        self.logins = 0
        self.depth = 0
        self.is_calm = False
        self.power_was_lost = False
        self.fuse = -1  # so many more steps until it crashes; -1 for never
        self.fuse_is_power = False
        self.synced = 0
        self.before_crash: dict[int, Intent] = {}
        self.pending: list[tuple[float, int, int, Callable[[], None]]] = []  # due, order, intent, what happens
        self.arrivals: dict[int, Arrival] = {}
        self.cancel_arrivals: dict[int, float] = {}
        self.cancels_done: set[int] = set()
        self.listed: set[str] = set()
        self.fills: Counter[str] = Counter()
        self.flagged: set[int] = set()  # in all lives
        self.flagged_now: set[int] = set()  # in this one
        self.by_human: dict[int, Outcome] = {}
        self.client: TradeClient

    # --- the run ---

    def run(self, steps: int = 0) -> Counter[str]:
        with self._patched():
            self.client = self._open()
            for _ in range(steps or self.rng.choice([6, 12, 12, 25, 40])):
                self._survive(self._step)
            self._finish()
        return self.counts

    @contextmanager
    def _patched(self) -> Iterator[None]:
        clock = self.clock
        times = SimpleNamespace(sleep=self._advance, monotonic=clock.monotonic, time=clock.time)
        with (
            mock.patch("jvq_fast.trade.wire.get", self._get),
            mock.patch("jvq_fast.trade.placing.time", times),
            mock.patch("jvq_fast.trade.session.time", times),
            mock.patch("jvq_fast.trade.client.time", times),
            mock.patch("jvq_fast.trade.ticket.TicketFile.__init__.__defaults__", (clock.time,)),
            mock.patch("jvq_fast.trade.client.Tracker", HandTracker),
            mock.patch("jvq_fast.trade.client.Dispatcher", HandDispatcher),
            mock.patch("jvq_fast.trade.private._ROUNDS", 1),
            mock.patch(
                "jvq_fast.trade.model.redact", lambda text, *_: text
            ),  # half of the time, and others look at secrets
            mock.patch("os.fsync", self._fsync),
            mock.patch("jvq_fast.trade.journal.LARGE", 0 if self.rng.random() < 0.3 else 1 << 20),
        ):
            yield

    def _survive(self, action: Callable[[], None]) -> None:
        try:
            action()
        except CrashError:
            self.counts["crash in a call"] += 1
            self._reopen()

    def _step(self) -> None:
        rng = self.rng
        if self.client.killed and rng.random() < 0.5:
            self.client.rearm()
        self.market.stale = self.market.stale and rng.random() < 0.5
        name, action = rng.choices(
            [
                ("order", self._order),
                ("cancel", self._cancel),
                ("poll", self._poll),
                ("wait", lambda: self._advance(rng.choice([0.1, 0.4, 1, 1, 3, 8, 30]), poll=True)),
                ("foreign", self._foreign),
                ("deals", self._deals),
                ("restart", self._restart),
                ("crash", self._crash),
                ("fuse", self._light),
                ("second", self._second),
                ("human", self._human),
                ("switch", self._switch),
                ("stale", self._stale),
                ("account", lambda: self._try(self.client.account)),
            ],
            [42, 10, 6, 16, 5, 6, 3, 2, 3, 1, 4, 2, 1, 1],
        )[0]
        self.counts[f"step: {name}"] += 1
        action()

    # --- what the client is asked for ---

    def _try(self, call: Callable[[], object]) -> object:
        """Everything that a call may end with, counted; whatever else it raises is an error of the client's."""
        known = len(self.client.intents)
        failure: Exception
        try:
            return call()
        except (TradeError, ValueError) as error:
            failure = error
        name = type(failure).__name__
        if isinstance(failure, (OrderNotSent, OrderRejected, OrderUnknown)):
            number = failure.intent.number
            if isinstance(failure, OrderNotSent):
                assert number not in self.arrivals
                assert number not in self.cancel_arrivals
        elif type(failure) is RiskError:
            assert self.depth or len(self.client.intents) == known
            name = f"gate: {failure.limit}"
        elif type(failure) is ValueError:
            assert "order" in str(failure)
        self.counts[name] += 1
        return None

    def _order(self) -> None:
        rng = self.rng
        code = rng.choice(["000001", "000001", "601398", "113050", "600519"])
        minimum, step = lot(code)
        volume = minimum if code == "600519" else minimum + step * rng.choice([0, 0, 1, 4])
        price = PRICES[code] + tick(code) * rng.choice([0, 0, 1, -2])
        if rng.random() < 0.08:
            price += rng.choice([PRICES[code] * MARGIN, tick(code) / 2, -PRICES[code] * MARGIN])
        if rng.random() < 0.06:
            volume = rng.choice([volume + 1, volume * 50, 2_000, 2_100, 7])
        if rng.random() < 0.03:
            code = "600000"
        call = self.client.buy if rng.random() < 0.6 else self.client.sell
        for _ in range(rng.choice([1, 1, 1, 1, 2, 3])):
            done = self._try(lambda: call(code, price, volume))
            if done is not None:
                assert isinstance(done, Order)
                self.counts["accepted"] += 1
        if rng.random() < 0.7:
            self._advance(rng.choice([0.2, 1, 2, 6]), poll=rng.random() < 0.7)

    def _cancel(self) -> None:
        orders = [each for each in (self.client.order(each) for each in self.client.intents) if each is not None]
        choices: list[Any] = [each for each in orders if each.intent is not None and not each.is_final] or orders
        if not choices:
            return
        chosen = self.rng.choice(choices)
        if self._try(lambda: self.client.cancel(chosen)) is not None:
            self.counts["cancel accepted"] += 1

    def _poll(self) -> None:
        self._try(self.client.orders)

    def _switch(self) -> None:
        if self.client.killed:
            self.client.rearm()
        else:
            self.client.kill("a test")

    def _stale(self) -> None:
        self.market.stale = not self.market.stale

    # --- what happens beside it ---

    def _advance(self, seconds: float, poll: bool = False) -> None:
        until = self.clock.seconds + seconds
        while self.pending and self.pending[0][0] <= until:
            due, _, _, happen = heapq.heappop(self.pending)
            self.clock.seconds = max(self.clock.seconds, due)
            happen()
        self.clock.seconds = until
        if self.rng.random() < 0.5:
            self._deals()
        if poll:
            tracker = self.client._tracker
            assert isinstance(tracker, HandTracker)
            tracker.step()

    def _deals(self) -> None:
        for order in self.broker.orders:
            if order.is_open and self.rng.random() < 0.4:
                rest = order.volume - order.dealt
                better = tick(order.code) * self.rng.choice([0, 0, 1])
                price = order.price - better if order.buying else order.price + better
                self.broker.deal(order, self.rng.choice([rest, rest, max(rest // 2, 1)]), price)

    def _foreign(self) -> None:
        """Somebody else's order on the same account, most often with what the client ordered."""
        rng = self.rng
        if self.arrivals and rng.random() < 0.8:
            code, buying, price, volume = rng.choice(list(self.arrivals.values())[-4:]).content
        else:
            code, buying, price, volume = "000001", True, PRICES["000001"], 100
        placed = self.broker.place(
            {"code": code, "price": str(price), "volume": str(volume)}, buying=buying, tag=FOREIGN
        )
        if isinstance(placed, Deal):
            self.counts["foreign"] += 1
            if rng.random() < 0.2:
                self.broker.cancel(placed.number)

    def _human(self) -> None:
        """Looks at the broker's own screen for what was flagged, once nothing is on its way any more."""
        for intent in self.client.unknown:
            if intent.number in self.flagged_now and not any(each[2] == intent.number for each in self.pending):
                self._resolve(intent)

    def _resolve(self, intent: Intent) -> None:
        number = intent.number
        self.counts["resolved"] += 1
        no = self.rng.choice([Outcome.REJECTED, Outcome.NOT_SENT])
        if intent.side is None:
            answer, order_id = (Outcome.ACCEPTED, "") if number in self.cancels_done else (no, "")
        else:
            claimed = {each.order_id for each in self.client.intents if each.side and each.outcome is Outcome.ACCEPTED}
            same = [each for each in self.broker.orders if each.content == content_of(intent)]
            free = [each.number for each in same if each.number not in claimed and each.tag != FOREIGN]
            own = [each.number for each in same if each.tag == number and each.number in free]
            found = own or [each for each in free if self._is_orphan(each)]
            answer, order_id = (Outcome.ACCEPTED, found[0]) if found else (no, "")
        self.by_human[number] = answer
        self.client.resolve(intent, answer.value, order_id)

    def _is_orphan(self, order_id: str) -> bool:
        """An own order, the intent of which took a look-alike."""
        order = self.broker.order(order_id)
        assert order is not None
        return next(each for each in self.client.intents if each.number == order.tag).outcome is Outcome.ACCEPTED

    # --- lives ---

    def _open(self) -> TradeClient:
        before = self.journal_path.stat().st_ino if self.journal_path.exists() else None
        client = TradeClient(
            TOKEN, ACCOUNT, "secret password", mode="paper", server="http://127.0.0.1:9", market=self.market,
            limits=self.limits, journal=self.journal_path, ticket_file=self.ticket_path, clock=self.clock.now,
            budget=self.budget, polling_budget=None, polling=Polling(fast=1.0), trusted_rejections=[TRUSTED],
        )  # fmt: skip
        after = self.journal_path.stat()
        if before not in (None, after.st_ino):
            self.counts["journal begun anew"] += 1
            self.synced = after.st_size
        client.on_fill(self._on_fill)
        client.on_error(self._on_error)
        client.on_order(self._on_order)
        self.flagged_now = set()
        return client.start()

    def _on_fill(self, fill: jvq.Fill) -> None:
        assert fill.order.intent is not None
        assert fill.volume > 0
        worse = fill.price - fill.order.price if fill.order.side == "buy" else fill.order.price - fill.price
        assert worse < Decimal("0.5"), fill  # the mean that the broker lists is rounded
        self.fills[fill.order.order_id] += fill.volume

    def _on_order(self, order: Order) -> None:
        assert order.intent is not None

    def _on_error(self, error: Exception, where: str) -> None:
        assert where in ("poll", "order")
        if isinstance(error, OrderUnknown):
            self.flagged.add(error.intent.number)
            self.flagged_now.add(error.intent.number)

    def _restart(self) -> None:
        before = {each.number: each for each in self.client.intents}
        self.client.close()
        self._continue(before, exact=True)

    def _crash(self, power: bool | None = None) -> None:
        self._end_life(power=self.rng.random() < 0.4 if power is None else power)
        self._reopen()

    def _end_life(self, *, power: bool) -> None:
        kept = self.client._ledger._journal
        assert kept is not None
        self.before_crash = {each.number: each for each in self.client.intents}
        if kept._descriptor >= 0:
            os.close(kept._descriptor)
        kept._descriptor, kept._broken = -1, "this process is gone"
        self.client._is_closed = True
        if power:
            self.power_was_lost = True
            os.truncate(self.journal_path, self.synced)
        self.counts["lost power" if power else "crash"] += 1

    def _light(self) -> None:
        """Crash somewhere in what comes next."""
        self.fuse = self.rng.randrange(1, 14)
        self.fuse_is_power = self.rng.random() < 0.5

    def _burn(self) -> None:
        if self.fuse > 0:
            self.fuse -= 1
            if not self.fuse:
                self.fuse = -1
                self._end_life(power=self.fuse_is_power)
                raise CrashError

    def _fsync(self, descriptor: int) -> None:
        info = os.fstat(descriptor)
        client = getattr(self, "client", None)
        is_journal = self.journal_path.exists() and os.path.samestat(info, self.journal_path.stat())
        if client is not None and not client._is_closed:
            self._burn()
        if is_journal:
            self.synced = info.st_size
        if client is not None and not client._is_closed:
            self._burn()

    def _reopen(self) -> None:
        self._continue(self.before_crash, exact=False)

    def _continue(self, before: Mapping[int, Intent], *, exact: bool) -> None:
        """The next life has all that the one before had begun, and sends nothing by itself."""
        self.depth = 0
        self.market.stale = False
        sent = len(self.arrivals), len(self.cancel_arrivals)
        self.client = self._open()
        assert (len(self.arrivals), len(self.cancel_arrivals)) == sent
        self._read_journal()
        after = {each.number: each for each in self.client.intents}
        for number in (*self.arrivals, *self.cancel_arrivals):
            assert number in after
        for number, arrival in self.arrivals.items():
            assert content_of(after[number]) == arrival.content
        for number, intent in before.items():
            if exact:
                assert after[number].outcome is intent.outcome
                assert after[number].order_id == intent.order_id
            elif number in after and after[number].outcome is not Outcome.UNKNOWN:
                assert after[number].outcome is intent.outcome

    def _second(self) -> None:
        try:
            self._open()
        except AccountInUseError:
            self.counts["second client refused"] += 1
        else:
            raise AssertionError("two clients have one journal")

    def _read_journal(self) -> None:
        data = self.journal_path.read_bytes()
        assert len(list(journal_lines.read(self.journal_path))) == data.count(b"\n")

    # --- the network and the broker ---

    def _draw(self, call: str) -> str:
        trouble = self.trouble if call in ("buy", "sale", "cancel") else self.trouble / 2
        if self.is_calm or self.rng.random() >= trouble:
            return ""
        what = self.rng.choice(FAULTS[call])
        self.counts[f"fault: {what}"] += 1
        return what

    def _get(
        self,
        server: object,
        path: str,
        query: Mapping[str, Any],
        timeout: float,
        *,
        reach: str | None,
        may_send: Callable[[], str] = str,
        proxies: bool = False,
    ) -> wire.Outcome:
        assert (reach, proxies) == ("loopback", False)
        call = path.strip("/")
        plain = {name: each.reveal() if isinstance(each, Secret) else each for name, each in query.items()}
        self._burn()
        what = self._draw(call)
        if what == "refused connection":
            return wire.NotSent("Connection refused")
        if what == "slow connection":
            self._advance(timeout)
            return wire.NotSent("no connection")
        why = may_send()
        if why:
            return wire.NotSent(why)
        life = self.client
        reply = self._answer(call, plain, what, timeout)
        assert life is self.client
        self._burn()
        if isinstance(reply, str):
            return wire.Lost(reply)
        if what == "numbers":
            reply = as_numbers(reply)
        return wire.Reply(json.loads(json.dumps(reply, default=float), parse_float=Decimal))

    def _answer(self, call: str, query: dict[str, str], what: str, timeout: float) -> Any:
        """A reply, or why there is none."""
        order_number = self._arrive(call, query) if call in ("buy", "sale") else 0
        cancel_number = self._arrive_cancel(query) if call == "cancel" else 0
        self._burn()
        if what.endswith("before"):
            return what
        if call == "login":
            reply = self._login(what)
        elif what == "expired" or query["ticket"] != self.ticket:
            self.ticket = ""
            return {"code": "-1", "message": "ticket无效或已过期,请重新登录"}
        elif what == "rejected":
            return {"code": "-1", "message": "系统拒绝该委托", "order_id": ""}
        elif call in ("buy", "sale"):
            return self._take(call, query, what, timeout, order_number)
        elif call == "cancel":
            return self._take_cancel(query, what, timeout, cancel_number)
        elif call == "check_order":
            reply = self._list(what)
        else:
            reply = self.broker.holdings()
            if what == "field":
                del self.rng.choice([reply, *reply["hold_list"]])[self.rng.choice(["code"])]
        return what if what in LOST else reply

    def _login(self, what: str) -> Any:
        if what == "slow login":
            self._advance(30)
        if what == "rejected":
            return {"code": "-1", "message": "资金账号或密码错误"}
        self.logins += 1
        self.ticket = f"ticket {self.logins % 10}"  # few of them: each new secret costs a millisecond
        reply = {"code": "0", "message": "", "ticket": self.ticket, "expire": "9000"}
        if what == "no ticket":
            del reply["ticket"]
        if what == "short":
            reply["expire"] = "20"
        if what == "no expiry":
            del reply["expire"]
        return reply

    def _take(self, call: str, query: dict[str, str], what: str, timeout: float, number: int) -> Any:
        rng = self.rng

        def accept() -> Deal | str:
            placed = self.broker.place(query, buying=call == "buy", tag=number)
            if isinstance(placed, Deal):
                if what == "missing":
                    placed.hidden = rng.randint(1, 6)
                if rng.random() < 0.3:
                    self._deals()
            return placed

        if what == "trusted":
            return {"code": "-5", "message": TRUSTED, "order_id": ""}
        if what == "empty id and not accepted":
            return {"code": "0", "message": "", "order_id": ""}
        if what == "late":
            self._later(rng.uniform(timeout, 45), number, accept)
            self._meanwhile()
            self._advance(timeout)
            return "no reply in time"
        order = accept()
        self._burn()
        if isinstance(order, str):
            return {"code": "-110", "message": order, "order_id": ""}
        if what in ("slow", "too slow"):
            self._meanwhile()
            self._advance(timeout if what == "too slow" else rng.uniform(0, timeout))
        if what in LOST or what == "too slow":
            return what
        reply = {"code": "0", "message": "委托成功", "order_id": order.number}
        if what == "error after":
            return {"code": "-1", "message": "系统繁忙"}
        if what == "empty id":
            reply["order_id"] = ""
        elif what == "field":
            del reply[rng.choice(["code", "message", "order_id"])]
        elif what == "no code":
            del reply["code"]
        elif what == "code beside id":
            reply["code"] = "-1"
        elif what == "duplicate id":
            others = [
                each.number
                for each in self.broker.orders
                if each is not order and (each.tag != FOREIGN or each.content != order.content)
            ]
            reply["order_id"] = rng.choice(others or [order.number])
        return reply

    def _take_cancel(self, query: dict[str, str], what: str, timeout: float, number: int) -> Any:
        def accept() -> str:
            why = self.broker.cancel(query["order_id"])
            if not why:
                self.cancels_done.add(number)
            return why

        if what == "late":
            self._later(self.rng.uniform(timeout, 45), number, accept)
            self._advance(timeout)
            return "no reply in time"
        why = accept()
        self._burn()
        if what in ("slow", "too slow"):
            self._meanwhile()
            self._advance(timeout if what == "too slow" else self.rng.uniform(0, timeout))
        if what in LOST or what == "too slow":
            return what
        if what == "no code":
            return {"message": why}
        if what == "error after" or why:
            return {"code": "-1", "message": why or "系统繁忙"}
        return {"code": "0", "message": "撤单委托已提交"}

    def _list(self, what: str) -> Any:
        reply = self.broker.listed()
        rows = reply["list"]
        if what == "no list":
            return {"code": "0", "message": "", "list": None}
        if rows and what == "row twice":
            rows.append(dict(self.rng.choice(rows)))
        if rows and what in ("damaged row", "damaged rows"):
            name = self.rng.choice([each for each in rows[0] if each != "name"])
            for each in rows if what == "damaged rows" else [self.rng.choice(rows)]:
                del each[name]
        if rows and what == "unknown status":
            self.rng.choice(rows)["status"] = "废单"
        if what == "reversed":
            rows.reverse()
        if what not in LOST:
            self.listed |= {str(each.get("order_id")) for each in rows}
        return reply

    def _later(self, seconds: float, number: int, happen: Callable[[], Any]) -> None:
        heapq.heappush(self.pending, (self.clock.seconds + seconds, len(self.arrivals), number, happen))

    def _meanwhile(self) -> None:
        """While a call is under way, other threads of the client go on."""
        if self.depth >= 2:
            return
        self.depth += 1
        for _ in range(self.rng.choice([0, 1, 1, 2])):
            self._advance(self.rng.choice([0.0, 0.1, 1.0]))
            self.rng.choice([self._order, self._order, self._cancel, self._poll, self._poll, self._foreign])()
        self.depth -= 1

    # --- what must hold when something comes to the broker ---

    def _arrive(self, call: str, query: dict[str, str]) -> int:
        client, limits, now = self.client, self.limits, self.clock.seconds
        intent = [each for each in client.intents if each.side is not None][-1]
        number = intent.number
        content = query["code"], call == "buy", Decimal(query["price"]), int(query["volume"])
        assert content == content_of(intent)
        assert number not in self.arrivals, "an intent is sent twice"
        assert f'"number":{number},'.encode() in self.journal_path.read_bytes()[: self.synced]
        assert not client.killed
        for each in client.unknown:
            assert each.side is None or (each.security, each.side) != (intent.security, intent.side), "it is frozen"
        code, _, price, volume = content
        minimum, step = lot(code)
        last = PRICES[code]
        assert not self.market.stale
        assert phase(self.clock.now().time()) in (Phase.OPENING_CALL, Phase.CONTINUOUS, Phase.CLOSING_CALL)
        assert abs(price - last) <= last * MARGIN
        assert last * Decimal("0.99") <= price <= last * Decimal("1.10")
        assert price % tick(code) == 0
        assert volume >= minimum
        assert (volume - minimum) % step == 0
        assert limits.max_order_volume is None or volume <= limits.max_order_volume
        assert limits.max_order_value is None or price * volume <= limits.max_order_value
        assert limits.codes is None or code in limits.codes
        known = {each.number: each for each in client.intents}
        live = {n: a for n, a in self.arrivals.items() if known[n].outcome in (Outcome.ACCEPTED, Outcome.UNKNOWN)}
        same = [a for a in live.values() if a.content == content and now - a.at < limits.repeat_window - 1e-6]
        assert limits.max_repeats is None or len(same) < limits.max_repeats, "max_repeats"
        value = sum((a.content[2] * a.content[3] for a in live.values()), Decimal(0))
        assert limits.max_daily_value is None or value + price * volume <= limits.max_daily_value, "max_daily_value"
        claimed = {each.order_id for each in known.values() if each.side and each.outcome is Outcome.ACCEPTED}
        open_ = [
            each
            for each in self.broker.orders
            if each.is_open and each.tag in live and (each.number in claimed or known[each.tag] in client.unknown)
        ]
        assert limits.max_open_orders is None or len(open_) < limits.max_open_orders, "max_open_orders"
        self._check_rate()
        self.arrivals[number] = Arrival(content, now, frozenset(self.listed))
        self.counts["orders at the broker"] += 1
        return number

    def _arrive_cancel(self, query: dict[str, str]) -> int:
        intent = [each for each in self.client.intents if each.side is None][-1]
        assert intent.number not in self.cancel_arrivals, "a cancel is sent twice"
        assert query["order_id"] == intent.order_id
        self._check_rate()
        self.cancel_arrivals[intent.number] = self.clock.seconds
        self.counts["cancels at the broker"] += 1
        return intent.number

    def _check_rate(self) -> None:
        times = [*(each.at for each in self.arrivals.values()), *self.cancel_arrivals.values()]
        assert sum(self.clock.seconds - each < 1.0 - 1e-6 for each in times) < self.limits.max_per_second, (
            "max_per_second"
        )
        assert len(times) < self.limits.max_per_day, "max_per_day"

    # --- the end ---

    def _finish(self) -> None:
        """Everything is well again: what is unknown is claimed, or flagged and resolved, and all adds up."""
        self.is_calm, self.fuse = True, -1
        self.market.stale = False
        if self.budget is not None:
            self.budget = None
            self._restart()
        elif self.rng.random() < 0.3:
            self.rng.choice([self._restart, self._crash])()
        self._advance(60)
        self._try(self.client.login)
        for turn in range(10):
            self._advance(1)
            self._poll()
            if turn > 3 and not any(each.hidden for each in self.broker.orders):
                break
        for intent in self.client.unknown:
            assert intent.number in self.flagged_now, f"{intent} is unknown, and nobody was told: {intent.cause}"
            self._resolve(intent)
        assert not self.client.unknown
        while any(each.is_open for each in self.broker.orders):
            self._deals()
        self._poll()
        self._poll()
        self._judge()
        final = {each.number: (each.outcome, each.order_id) for each in self.client.intents}
        self.client.close()
        self.client = self._open()
        assert {each.number: (each.outcome, each.order_id) for each in self.client.intents} == final
        told = Counter(self.fills)
        self._poll()
        assert self.power_was_lost or self.fills == told
        self.client.close()
        self._read_journal()

    def _judge(self) -> None:
        broker, intents = self.broker, {each.number: each for each in self.client.intents}
        broker.audit()
        claims: dict[str, Intent] = {}
        for number, intent in intents.items():
            self.counts[f"{'order' if intent.side else 'cancel'} ended {intent.outcome}"] += 1
            if intent.side is None:
                self._judge_cancel(intent)
                continue
            order = next((each for each in broker.orders if each.tag == number), None)
            if intent.outcome is Outcome.ACCEPTED:
                assert intent.order_id not in claims, "two intents have one order"
                claims[intent.order_id] = intent
            elif intent.outcome is Outcome.NOT_SENT and number not in self.by_human:
                assert number not in self.arrivals
                assert order is None
        for order_id, intent in claims.items():
            order = broker.order(order_id)
            assert order is not None, f"{intent} has order {order_id}, which there is not"
            assert order.content == content_of(intent)
            if order.tag == FOREIGN:
                # Only what can't be told from its own: it came later, and nothing else says whose it is.
                arrival = self.arrivals.get(intent.number)
                assert arrival is None or order_id not in arrival.listed, f"{intent} has somebody else's {order_id}"
                self.counts["took a look-alike"] += 1
            elif order.tag != intent.number:
                self.counts["took its twin's"] += 1
        for order in broker.orders:
            if order.tag != FOREIGN and order.number not in claims:
                assert order.tag in self.flagged, f"order {order.number} of intent {order.tag} is lost from view"
                self.counts["left to a human"] += 1
            told = self.fills[order.number]
            if order.number not in claims:
                assert told == 0
            elif self.power_was_lost:
                assert told >= order.dealt
            else:
                assert told == order.dealt, f"order {order.number}: {told} of {order.dealt} told"
        own = [each.tag for each in broker.orders if each.tag != FOREIGN]
        assert (
            len(own) == len(set(own)) <= len(self.arrivals) <= sum(each.side is not None for each in intents.values())
        )

    def _judge_cancel(self, intent: Intent) -> None:
        if intent.outcome is Outcome.NOT_SENT and intent.number not in self.by_human:
            assert intent.number not in self.cancel_arrivals
        if intent.number in self.cancels_done:
            assert intent.outcome is Outcome.ACCEPTED, f"{intent} was done, and is {intent.outcome}"
