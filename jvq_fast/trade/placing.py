"""The way of an order and of a cancel: past the gate, into the journal, onto the wire once, and to an outcome."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

from jvq_fast.errors import (
    JvqError,
    KilledError,
    OrderNotSent,
    OrderRejected,
    OrderUnknown,
    RiskError,
)
from jvq_fast.trade import wire
from jvq_fast.trade.gate import Request
from jvq_fast.trade.kill import KillSwitch
from jvq_fast.trade.ledger import Ledger
from jvq_fast.trade.market import Clock
from jvq_fast.trade.model import Intent, Order, Outcome, Side, Status, UnreadableError, identifier, message_of
from jvq_fast.trade.queries import Queries
from jvq_fast.trade.session import Session, code_of
from jvq_fast.trade.ticket import Ticket
from jvq_fast.trade.turns import Turns

T = TypeVar("T")
_CALLS = {Side.BUY: "buy", Side.SELL: "sale"}


@dataclass(frozen=True, slots=True)
class Entered:
    """What is in the journal and may be sent, with the ticket to send it with; None in dry mode."""

    intent: Intent
    ticket: Ticket | None


class Placing:
    """From any thread, each call blocks. `wake` is called when something has to be found out about.

    `session` is None in dry mode. A refusal is borne out by `lists_to_reject` lists of orders, `pause` seconds apart,
    but for the texts in `trusted`.
    """

    def __init__(
        self,
        session: Session | None,
        queries: Queries,
        ledger: Ledger,
        switch: KillSwitch,
        clock: Clock,
        wake: Callable[[], None],
        lists_to_reject: int,
        pause: float,
        trusted: frozenset[str],
    ) -> None:
        self.dry: list[Order] = []
        self._session = session
        self._queries = queries
        self._ledger = ledger
        self._switch = switch
        self._clock = clock
        self._wake = wake
        self._lists_to_reject = lists_to_reject
        self._pause = pause
        self._trusted = trusted
        self._first = Turns(JvqError)
        self._in_flight = threading.Condition()
        self._mine = threading.local()  # of a call in its own thread: which intent, and whether it went
        self._numbers: set[int] = set()  # of what was entered and has no outcome yet
        self._is_closed = False

    def place(self, request: Request, name: str) -> Order:
        """`enter` and `send`, with no gap in which Ctrl-C could leave an intent between two stages."""
        return self._way(lambda: self.send(self.enter(request, name)))

    def place_cancel(self, order: Order) -> Intent:
        """`enter_cancel` and `send_cancel`, see `place`."""
        return self._way(lambda: self.send_cancel(self.enter_cancel(order)))

    def _way(self, go: Callable[[], T]) -> T:
        mine = self._mine
        mine.number, mine.was_dispatched = None, False
        try:
            return go()
        except BaseException as error:
            if mine.number is not None:
                outcome = Outcome.UNKNOWN if mine.was_dispatched else Outcome.NOT_SENT
                # Where the gate refused it, the number may be another thread's by now.
                cause = f"interrupted by {type(error).__name__}"
                if self._ledger.abandon(mine.number, outcome, cause, threading.get_ident()):
                    self._is_over(mine.number)
            raise

    # --- before a byte leaves ---

    def enter(self, request: Request, name: str) -> Entered:
        """Everything that can be known before; RiskError and whatever the queries raise."""
        self._check_killed()
        ticket = self._ticket(_CALLS[request.side])
        self._check_frozen(request)
        held = self._queries.held(request) if ticket is not None and request.side is Side.SELL else None
        with self._ledger.lock:
            self._check_killed()
            self._check_frozen(request)
            now = self._clock()
            if ticket is not None:
                # Once more: a login and the lists it took have been paid for since.
                self._ledger.bill.check(now.date(), _CALLS[request.side])
            # Another sale may have come between.
            usable = self._queries.usable(held, request.code) if held is not None else None
            self._mine.number = self._ledger.book.next_number
            return self._entered(self._ledger.enter(request, name, usable, now, time.monotonic()), ticket)

    def is_prepared(self, request: Request) -> bool:
        """Whether `enter` will ask the broker nothing."""
        if self._session is None:
            return True
        if not (self._queries.has_polled and self._session.has_ticket()):
            return False
        return request.side is Side.BUY or self._queries.has_room(request)

    def enter_cancel(self, order: Order) -> Entered:
        """The same for a cancel, which nothing holds back but the gate's limits of how many go."""
        ticket = self._session.ticket(at_any_cost=True) if self._session is not None else None
        with self._ledger.lock:
            self._mine.number = self._ledger.book.next_number
            return self._entered(self._ledger.enter_cancel(order, self._clock(), time.monotonic()), ticket)

    def _entered(self, intent: Intent, ticket: Ticket | None) -> Entered:
        with self._in_flight:
            self._numbers.add(intent.number)
        return Entered(intent, ticket)

    def _ticket(self, call: str) -> Ticket | None:
        """A ticket, and room in the budget; None in dry mode.

        What a process that is gone has left is looked up first, and which orders were there before is known then.
        """
        if self._session is None:
            return None
        with self._ledger.lock:
            self._ledger.bill.check(self._clock().date(), call)
        self._session.ticket()
        with self._first.take():
            if not self._queries.has_polled:
                self._queries.poll()
        return self._session.ticket()

    def _check_killed(self, intent: Intent | None = None) -> None:
        why = self._switch.why()
        if why:
            what = "nothing is ordered" if intent is None else f"{intent} was not sent"
            raise KilledError("kill switch", "off", "on", f"{what}: {why}; rearm() ends it")

    def _check_frozen(self, request: Request) -> None:
        with self._ledger.lock:
            held_up = self._ledger.book.frozen(request.code, request.side)
        if held_up is not None:
            raise RiskError(
                "unknown", "none", held_up.number,
                f"{held_up} may be at the broker, so no other order to {request.side} {request.code} goes; "
                "it is being looked up, and resolve() ends it",
            )  # fmt: skip

    # --- an order ---

    def send(self, entered: Entered) -> Order:
        """Once, or not at all. The order that was accepted, or an error that says what became of it."""
        with self._carrying(entered):
            return self._send(entered)

    def never(self, entered: Entered) -> None:
        """It is not going to be sent."""
        with self._carrying(entered):
            self._ledger.abandon(entered.intent.number, Outcome.NOT_SENT)

    @contextlib.contextmanager
    def _carrying(self, entered: Entered) -> Iterator[None]:
        """Whatever comes out of it, Ctrl-C too, the intent is not left between two stages."""
        try:
            yield
        except BaseException as error:
            cause = f"interrupted by {type(error).__name__}"
            self._ledger.abandon(entered.intent.number, Outcome.UNKNOWN, cause)
            self._wake()
            raise
        finally:
            self._is_over(entered.intent.number)

    def _is_over(self, number: int) -> None:
        with self._in_flight:
            self._numbers.discard(number)
            self._in_flight.notify_all()

    def close(self, timeout: float) -> None:
        """Nothing is sent any more; what was sent has so many seconds for its reply."""
        self._is_closed = True
        deadline = time.monotonic() + timeout
        with self._in_flight:
            while self._numbers and (left := deadline - time.monotonic()) > 0:
                self._in_flight.wait(left)

    def _may_send(self) -> str:
        return "the client is closed" if self._is_closed else self._switch.why()

    def _may_cancel(self) -> str:
        return "the client is closed" if self._is_closed else ""

    def _send(self, entered: Entered) -> Order:
        intent, ticket = entered.intent, entered.ticket
        assert intent.side is not None
        query = {
            "code": intent.security, "name": intent.name, "price": f"{intent.price:f}", "volume": str(intent.volume)
        }  # fmt: skip
        if self._session is None:
            return self._send_in_dry_mode(intent, query)
        assert ticket is not None
        outcome = self._dispatch(ticket, _CALLS[intent.side], query, self._may_send)
        if isinstance(outcome, wire.NotSent):
            settled = self._ledger.settle(intent.number, Outcome.NOT_SENT)
            self._check_killed(settled)
            raise OrderNotSent(f"{settled} was not sent: {outcome.cause}", settled)
        if isinstance(outcome, wire.Lost):
            raise self._lost(intent, outcome.cause)
        code, message, order_id = code_of(outcome.body), message_of(outcome.body), _order_id(outcome.body)
        if code == "0" and order_id:
            return self._accepted(intent, order_id, message)
        if code in ("", "0") or order_id:
            what = "no code" if not code else "no order id" if not order_id else f"code {code} beside an order id"
            raise self._lost(intent, f"the broker's reply has {what}" + (f": {message}" if message else ""))
        if message in self._trusted:
            raise _rejected(self._ledger.settle(intent.number, Outcome.REJECTED, "", code, message))
        self._ledger.refuse(intent.number, code, message, self._clock())
        found = self._bear_out(intent.number, self._lists_to_reject)
        with self._ledger.lock:
            order = self._ledger.book.order(found.number)
        assert order is not None
        return order

    def _send_in_dry_mode(self, intent: Intent, query: dict[str, str]) -> Order:
        settled = self._ledger.settle_dry(intent.number)
        assert settled.side is not None
        told = "&".join(f"{name}={value}" for name, value in {"token": "***", "ticket": "***", **query}.items())
        order = Order(
            order_id="", code=settled.security, name=settled.name, side=settled.side, side_text="", status=Status.DRY,
            status_text="", price=settled.price, volume=settled.volume, deal_price=Decimal(0), deal_volume=0,
            at=settled.at, intent=settled.number, request=f"GET /{_CALLS[settled.side]}?{told}",
        )  # fmt: skip
        self.dry.append(order)
        return order

    def _accepted(self, intent: Intent, order_id: str, message: str) -> Order:
        try:
            settled = self._ledger.settle(intent.number, Outcome.ACCEPTED, order_id, "0", message)
        except ValueError as error:
            raise self._lost(intent, f"the broker's reply makes no sense: {error}") from None
        self._wake()
        with self._ledger.lock:
            order = self._ledger.book.order(settled.number)
        assert order is not None
        return order

    # --- a cancel ---

    def send_cancel(self, entered: Entered) -> Intent:
        """The cancel that the broker took, or an error that says what became of it."""
        with self._carrying(entered):
            return self._send_cancel(entered)

    def _send_cancel(self, entered: Entered) -> Intent:
        intent, ticket = entered.intent, entered.ticket
        if self._session is None:
            return self._ledger.settle(intent.number, Outcome.NOT_SENT)
        assert ticket is not None
        outcome = self._dispatch(ticket, "cancel", {"order_id": intent.order_id}, self._may_cancel)
        if isinstance(outcome, wire.NotSent):
            settled = self._ledger.settle(intent.number, Outcome.NOT_SENT)
            raise OrderNotSent(f"{settled} was not sent: {outcome.cause}", settled)
        if isinstance(outcome, wire.Lost):
            raise self._lost(intent, outcome.cause)
        code, message = code_of(outcome.body), message_of(outcome.body)
        if not code:
            raise self._lost(intent, "the broker's reply has no code")
        if code == "0":
            settled = self._ledger.settle(intent.number, Outcome.ACCEPTED, "", code, message)
            self._wake()
            return settled
        self._ledger.refuse(intent.number, code, message, self._clock())
        return self._bear_out(intent.number, 1)

    # --- both ---

    def _dispatch(
        self,
        ticket: Ticket,
        call: str,
        query: dict[str, str],
        may_send: Callable[[], str],
    ) -> wire.Outcome:
        assert self._session is not None
        self._mine.was_dispatched = True
        return self._session.call(ticket, call, query, may_send=may_send)

    def _lost(self, intent: Intent, cause: str) -> OrderUnknown:
        lost = self._ledger.lose(intent.number, cause, self._clock())
        self._wake()
        return OrderUnknown(f"{lost} may be at the broker: {cause}. Don't send it again: it is being looked up", lost)

    def _bear_out(self, number: int, lists: int) -> Intent:
        """The broker said no, and its list of orders has to show that it meant it. The intent, if it was accepted."""
        failure = ""
        for turn in range(lists):
            if turn:
                time.sleep(self._pause)
            try:
                self._queries.poll()
            except JvqError as error:
                failure = f", and its list could not be read: {error}"
        with self._ledger.lock:
            now = self._ledger.book.intent(number)
        if now.outcome is Outcome.ACCEPTED:
            return now
        if now.outcome is Outcome.REJECTED:
            raise _rejected(now)
        self._wake()
        raise OrderUnknown(
            f"{now}: the broker said no ({now.code}, {now.message}){failure}. It is being looked up", now
        )


def _rejected(intent: Intent) -> OrderRejected:
    return OrderRejected(
        f"{intent} was rejected: code {intent.code}, {intent.message}", intent, intent.code, intent.message
    )


def _order_id(body: dict[str, object]) -> str:
    value = body.get("order_id")
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        return ""
    try:
        return identifier(str(value).strip())
    except UnreadableError:
        return ""
