"""What the broker is asked: its list of orders and of positions."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jvq_fast.errors import OrderUnknown, TradeError
from jvq_fast.trade import wire
from jvq_fast.trade.dispatch import Dispatcher
from jvq_fast.trade.gate import Request
from jvq_fast.trade.ledger import Ledger
from jvq_fast.trade.market import Clock
from jvq_fast.trade.model import Account, Order, UnreadableError, message_of, read_account, read_order, shown
from jvq_fast.trade.orders import News
from jvq_fast.trade.session import Session, code_of


@dataclass(frozen=True, slots=True)
class Held:
    """A list of positions, and what it may not know."""

    account: Account
    next_number: int
    open_sales: frozenset[int]


class Queries:
    """From any thread; each call blocks for the session's timeouts at most. TradeError where there is no reply of use.

    `changed` is called when a list of orders brought news.
    """

    def __init__(
        self, session: Session, ledger: Ledger, events: Dispatcher, clock: Clock, changed: Callable[[], None]
    ) -> None:
        self._session = session
        self._ledger = ledger
        self._events = events
        self._clock = clock
        self._changed = changed
        self._lock = threading.Lock()
        self._held: Held | None = None
        self.has_polled = False

    def poll(self, *, by_itself: bool = False) -> tuple[bool, tuple[Order, ...]]:
        """Whether the broker's list of orders brought news, and the list. `by_itself`: nobody asked for it."""
        with self._lock:
            with self._ledger.lock:
                asked = self._ledger.book.asked()
            listed, failure = _read_orders(self._ask("check_order", by_itself=by_itself))
            if listed is None:
                assert failure is not None
                raise failure
            if failure is not None:
                # A list in which something can't be read can't show that an order is not in it.
                asked = frozenset()
                self._events.tell("on_error", failure, "poll")
            news = self._ledger.read(listed, asked, self._clock().date())
            self.has_polled = True
        self._tell(news)
        with self._ledger.lock:
            known = tuple(map(self._ledger.book.known, listed))
        return bool(news.settled or news.orders), known

    def _tell(self, news: News) -> None:
        if news.fills:
            self._held = None
        for order in news.orders:
            self._events.tell("on_order", order)
        for fill in news.fills:
            self._events.tell("on_fill", fill)
        for intent, remark in news.remarks:
            failure = OrderUnknown(f"{intent} {remark}", intent) if intent is not None else TradeError(remark)
            self._events.tell("on_error", failure, "order")
        if news.settled or news.orders:
            self._changed()

    def account(self) -> Account:
        """Money and positions."""
        return self._ask_positions().account

    def _ask_positions(self) -> Held:
        with self._ledger.lock:
            number, open_sales = self._ledger.book.next_number, self._ledger.book.open_sales()
        account = _read_account(self._ask("check_hold"))
        if isinstance(account, TradeError):
            raise account
        held = self._held = Held(account, number, open_sales)
        return held

    def held(self, request: Request) -> Held:
        """What is held; asked for where what is known of it leaves no room for a sale."""
        return self._roomy(request) or self._ask_positions()

    def has_room(self, request: Request) -> bool:
        """Whether `held` will ask the broker nothing."""
        return self._roomy(request) is not None

    def _roomy(self, request: Request) -> Held | None:
        held = self._held
        return held if held is not None and self.usable(held, request.code) >= request.volume else None

    def usable(self, held: Held, code: str) -> int:
        """What may be sold of a code now; what was bought since does not count."""
        usable = sum(each.usable for each in held.account.positions if each.code == code)
        with self._ledger.lock:
            sold = self._ledger.book.sold_since(code, held.next_number, held.open_sales)
        return max(usable - sold, 0)

    def _ask(self, call: str, *, by_itself: bool = False) -> dict[str, Any]:
        """The reply to a query. One that is refused lets the next one log in anew."""
        with self._ledger.lock:
            self._ledger.bill.check(self._clock().date(), call, polling=by_itself)
        ticket = self._session.ticket()
        outcome = self._session.call(ticket, call)
        if not isinstance(outcome, wire.Reply):
            raise TradeError(f"{call} at {ticket.server}: {outcome.cause}")
        code = code_of(outcome.body)
        if code != "0":
            self._session.drop(ticket)
            raise TradeError(f"the broker refused {call}: code {code or 'missing'}, {message_of(outcome.body)}")
        return outcome.body


# Errors are raised where the reply is out of sight: it may repeat a secret, and tracebacks show frames.


def _read_orders(reply: Mapping[str, Any]) -> tuple[list[Order] | None, TradeError | None]:
    """What can be read of a list of orders, None where it is no list; and what is wrong with it."""
    rows = reply.get("list")
    if not isinstance(rows, list):
        return None, TradeError(f"the broker's list of orders is none: {shown(rows)}")
    listed, unreadable = [], []
    for row in rows:
        try:
            listed.append(read_order(row))
        except UnreadableError as error:
            unreadable.append(str(error))
    if not unreadable:
        return listed, None
    return listed, TradeError(f"{len(unreadable)} of {len(rows)} orders can't be read: {unreadable[0]}")


def _read_account(reply: Mapping[str, Any]) -> Account | TradeError:
    try:
        return read_account(reply)
    except UnreadableError as error:
        return TradeError(f"the broker's list of positions can't be read: {error}")
