"""The trade client: orders out, and what became of them back. An order is never sent twice and never lost from view."""

import contextlib
import datetime as dt
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar, cast

from jvq_fast.allocation import ServerAddress
from jvq_fast.errors import OrderNotSent, OrderRejected, TradeError, WaitTimeoutError
from jvq_fast.redact import Secret
from jvq_fast.threads import is_feed_thread
from jvq_fast.trade import arguments
from jvq_fast.trade.billing import Bill
from jvq_fast.trade.dispatch import Dispatcher
from jvq_fast.trade.gate import Gate, Limits, Request
from jvq_fast.trade.intake import Intake
from jvq_fast.trade.journal import Journal
from jvq_fast.trade.kill import KillSwitch
from jvq_fast.trade.ledger import Ledger
from jvq_fast.trade.market import Clock, Market, NoMarket, in_shanghai, market_clock, wall_clock
from jvq_fast.trade.model import SHANGHAI, Account, Intent, Order, Outcome, Position, Side, shown
from jvq_fast.trade.orders import WINDOW, Book
from jvq_fast.trade.placing import Entered, Placing
from jvq_fast.trade.private import default_paths
from jvq_fast.trade.queries import Queries
from jvq_fast.trade.session import Access, Mode, Session
from jvq_fast.trade.tracker import Polling, Tracker

__all__ = ["TradeClient"]

F = TypeVar("F", bound=Callable[..., Any])
Price = str | Decimal | int
_NO_SOCKET = "dry mode opens no socket: mode='paper' or 'live' asks the broker"
_log = logging.getLogger("jvq_fast")
_warned = threading.Event()


class TradeClient:
    """Places and cancels orders of one account, and keeps track of them.

    `mode`: "dry" opens no socket and returns what would have been sent; "paper" talks to this machine alone, to a
    simulator; "live" talks to the server that is allocated, with real money. `account` has 12 digits. `market` says
    what the risk gate has to know of prices; a `Feed` that is subscribed to lv1 or lv10 of the codes does. `server`
    (paper alone) is a fixed trade server, `allocation` another allocation service than the vendor's. `limits` are those
    of the risk gate. `journal` and `ticket_file` are paths; without them they lie in the user's state directory, in
    files that do not name the account (dry mode keeps neither). One process has a journal at a time.

    `trusted_rejections` are texts of the broker that reject an order for sure; any other refusal is unknown until
    `lists_to_reject` lists of orders have borne it out. `fees` are CNY by call, `budget` what a day's calls may cost,
    `polling_budget` what they may have cost when the client polls by itself. `clock` tells the time of the exchange,
    aware: by default Shanghai's wall clock in live mode, else the latest exchange time of the market. `timeout` is
    seconds for a call, `login_timeout` for a login, `allocation_timeout` for an allocation, and `allocation_interval`
    the least time between two. `proxies`: use those of the environment.

    Calls that block (`buy`, `sell`, `cancel`, `wait`, `login`, `account`, `positions`, `orders`) are for any thread but
    a feed's: there they raise RuntimeError. `submit_buy`, `submit_sell` and `submit_cancel` return futures at once, in
    any thread. Handlers are called on a thread of the client's own, one at a time.

    ValueError or TypeError for wrong arguments; JournalError, AccountInUseError and TicketError for the files.
    """

    def __init__(
        self,
        token: str,
        account: str,
        password: str,
        *,
        mode: Mode = "dry",
        market: Market | None = None,
        server: str | None = None,
        allocation: str | None = None,
        limits: Limits | None = None,
        journal: str | os.PathLike[str] | None = None,
        ticket_file: str | os.PathLike[str] | None = None,
        trusted_rejections: Collection[str] = (),
        fees: Mapping[str, Decimal] | None = None,
        budget: Decimal | None = Decimal(20),
        polling_budget: Decimal | None = Decimal(10),
        polling: Polling | None = None,
        clock: Clock | None = None,
        timeout: float = 5.0,
        login_timeout: float = 45.0,
        allocation_timeout: float = 10.0,
        allocation_interval: float = 3.0,
        lists_to_reject: int = 3,
        proxies: bool = False,
    ) -> None:
        # Whatever is raised shows this frame in its traceback: it must hold no secret as text.
        secrets = (Secret.read(token), arguments.account(account), arguments.password(password))
        token = account = password = ""
        place = arguments.where(mode, server, allocation, proxies)
        server = allocation = None
        error = next((each for each in (*secrets, place) if isinstance(each, Exception)), None)
        if error is not None:
            del secrets
            raise error
        service, fixed = cast("tuple[str, ServerAddress | None]", place)
        own_token, own_account, own_password = cast("tuple[Secret, Secret, Secret]", secrets)
        arguments.check_positive(timeout=timeout, login_timeout=login_timeout, allocation_timeout=allocation_timeout)
        if not isinstance(lists_to_reject, int) or lists_to_reject < 1:
            raise ValueError(f"lists_to_reject is a whole number from 1 on, not {lists_to_reject!r}")
        if limits is not None and not isinstance(limits, Limits):
            raise TypeError(f"limits are Limits, not {type(limits).__name__}")
        texts = arguments.trusted(trusted_rejections)
        self.mode: Mode = mode
        self._market: Market = market if market is not None else NoMarket()
        told = market_clock(market)
        self._clock: Clock = in_shanghai(clock or (wall_clock if mode == "live" or told is None else told))
        self._process = os.getpid()
        polling = polling or Polling()
        bill = Bill(fees or {}, budget, polling_budget)
        # A simulator's day is not the wall clock's.
        window = None if mode == "paper" and clock is None and told is None else WINDOW
        self._book = Book(lists_to_reject, dt.timedelta(seconds=timeout), window)
        kept = tickets = None
        if mode != "dry":
            if journal is None or ticket_file is None:
                default_journal, default_tickets = default_paths(own_account, mode)
                journal = default_journal if journal is None else journal
                ticket_file = default_tickets if ticket_file is None else ticket_file
            tickets = Path(ticket_file)
            kept = Journal(Path(journal), own_account, mode)
        try:
            gate = Gate(limits or Limits(), self._market)
            self._events = Dispatcher()
            self._ledger = Ledger(
                kept, self._book, gate, bill, time.monotonic(), time.time,
                lambda intent: self._events.tell("on_intent", intent),
            )  # fmt: skip
        except BaseException:
            if kept is not None:
                kept.close()
            raise
        self._switch = KillSwitch(kept.path if kept is not None else None)
        access = Access(mode, service, fixed, timeout, login_timeout, allocation_timeout, allocation_interval, proxies)
        self._session = Session(
            own_token, own_account, own_password, access, tickets, self._count_call, self._check_budget
        )
        self._news = threading.Condition()
        self._waiters = 0
        self._queries = Queries(self._session, self._ledger, self._events, self._clock, self._tell)
        self._tracker = Tracker(
            polling,
            lambda: self._queries.poll(by_itself=True)[0],
            lambda: bool(self.unknown),
            self._has_working,
            self._clock,
            lambda failure: self._events.tell("on_error", failure, "poll"),
        )
        self._placing = Placing(
            None if mode == "dry" else self._session,
            self._queries,
            self._ledger,
            self._switch,
            self._clock,
            self._tracker.wake,
            lists_to_reject,
            polling.fast,
            texts,
        )
        self._intake = Intake(self._placing)
        self._is_closed = False
        if mode == "live" and not _warned.is_set():
            _warned.set()
            _log.warning("the vendor's trade interface is plain HTTP: who sits on the way can read and change orders")

    def __repr__(self) -> str:
        return f"<TradeClient {getattr(self, 'mode', 'unfinished')}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a TradeClient has files, threads and secrets, and can't be pickled")

    # --- queries ---

    def login(self) -> dt.datetime:
        """Log in, unless there is a good ticket; until when it is good, aware.

        LoginError, AllocationError, TicketError, BudgetError.
        A login that the broker refused is not tried again by the client itself; this call does.
        """
        self._check_query()
        ticket = self._session.ticket(by_hand=True)
        self._tracker.resume()
        return dt.datetime.fromtimestamp(ticket.expires, SHANGHAI)

    def account(self) -> Account:
        """Money and positions, asked for now. TradeError where the broker does not tell; LoginError and the like."""
        self._check_query()
        return self._queries.account()

    def positions(self) -> tuple[Position, ...]:
        """What is held, asked for now, sold-out ones with 0 included; see `account`."""
        return self.account().positions

    def orders(self) -> tuple[Order, ...]:
        """The broker's list of orders, asked for now, others' included; in dry mode those that were not sent."""
        self._check_blocking()
        if self.mode == "dry":
            return tuple(self._placing.dry)
        return self._queries.poll()[1]

    def order(self, order: Order | Intent | str) -> Order | None:
        """An order as it was last listed, by itself, its intent or the broker's number. From any thread.

        A number stands for the order of the latest day that has it. None for what this journal and no list knows.
        """
        with self._ledger.lock:
            if isinstance(order, Intent):
                return self._book.order(order.number) if self._book.has(order) else None
            if isinstance(order, Order):
                return self._book.latest(order)
            return self._book.find(order)

    @property
    def intents(self) -> tuple[Intent, ...]:
        """All that was asked for and that the journal still has, oldest first. From any thread."""
        with self._ledger.lock:
            return self._book.intents()

    @property
    def unknown(self) -> tuple[Intent, ...]:
        """Orders and cancels of which it is not known whether the broker has them. From any thread."""
        with self._ledger.lock:
            return self._book.unknown()

    def stats(self) -> dict[str, int | str | Decimal]:
        """Counters: intents by outcome, lists read, CNY spent today in all and by call. From any thread."""
        with self._ledger.lock:
            intents = self._book.intents()
            day = self._clock().date()
            stats: dict[str, int | str | Decimal] = {"mode": self.mode, "intents": len(intents)}
            for outcome in Outcome:
                stats[outcome.value.replace(" ", "_")] = sum(each.outcome is outcome for each in intents)
            stats["lists"] = self._book.lists
            stats["handler_errors"] = self._events.errors
            stats["killed"] = self._switch.why()
            stats["spent"] = self._ledger.bill.spent(day)
            for call, spent in self._ledger.bill.by_call(day).items():
                stats[f"spent_{call}"] = spent
            return stats

    def spending(self) -> dict[dt.date, dict[str, Decimal]]:
        """CNY by day and call, of the days that the journal still has. From any thread."""
        with self._ledger.lock:
            return self._ledger.bill.days()

    # --- orders ---

    def buy(self, code: str, price: Price, volume: int, *, name: str | None = None) -> Order:
        """Buy at `price` CNY or less. The order that the broker accepted.

        OrderNotSent, OrderRejected, OrderUnknown; with nothing sent: a RiskError, JournalError, LoginError and others,
        TypeError for a price that is a float. `name` is the security's, by default the market's.
        """
        return self._place(Side.BUY, code, price, volume, name)

    def sell(self, code: str, price: Price, volume: int, *, name: str | None = None) -> Order:
        """Sell at `price` CNY or more; else as `buy`."""
        return self._place(Side.SELL, code, price, volume, name)

    def cancel(self, order: Order | Intent | str) -> Intent:
        """Ask for the cancellation of an order, named by itself, its intent or the broker's number.

        The broker has taken it when this returns; what becomes of the order shows in its list. Errors as for `buy`.
        Neither the kill switch nor what is unknown holds it back, only the gate's limits of how many go.
        """
        self._check_blocking()
        return self._placing.place_cancel(self._cancellable(order))

    def submit_buy(self, code: str, price: Price, volume: int, *, name: str | None = None) -> "Future[Order]":
        """`buy` in the background: a future of the same order or error. From any thread, a feed's included; no wait.

        What is submitted passes the gate in the order in which it came, but for orders before which the broker has to
        be asked (a login, what may be sold): those hold up no other.
        """
        return self._submit(Side.BUY, code, price, volume, name)

    def submit_sell(self, code: str, price: Price, volume: int, *, name: str | None = None) -> "Future[Order]":
        """`sell` in the background, see `submit_buy`."""
        return self._submit(Side.SELL, code, price, volume, name)

    def submit_cancel(self, order: Order | Intent | str) -> "Future[Intent]":
        """`cancel` in the background, see `submit_buy`; it waits for no order that was submitted before."""
        self._check_open()
        return self._intake.cancel(lambda: self._placing.enter_cancel(self._cancellable(order)))

    def wait(self, order: Order | Intent, timeout: float) -> Order:
        """Wait until an order is done, or an intent is known and its order done: as it is then.

        The order of a cancel is the one that it cancels. WaitTimeoutError after `timeout` seconds; OrderRejected or
        OrderNotSent for an intent that came to nothing. It waits for the client's own polls, so it learns nothing when
        those may not be paid for.
        """
        self._check_blocking()
        deadline = time.monotonic() + timeout
        with self._waiting():
            while True:
                found = self._done(order)
                if found is not None:
                    return found
                self._check_open()
                left = deadline - time.monotonic()
                if left <= 0:
                    unknown = {each.number for each in self.unknown}
                    what = "unknown" if isinstance(order, Intent) and order.number in unknown else "not done"
                    raise WaitTimeoutError(f"{_named(order)} is still {what} after {timeout:g} s")
                self._news.wait(min(left, 1.0))

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        """Somebody wants lists, of another client's order perhaps."""
        with self._news:
            self._waiters += 1
            try:
                self._tracker.wake()
                yield
            finally:
                self._waiters -= 1

    def _done(self, order: Order | Intent) -> Order | None:
        if isinstance(order, Order) and order.is_final:
            return order
        with self._ledger.lock:
            latest = self.order(order)
            if isinstance(order, Intent):
                if not self._book.has(order):
                    raise ValueError(f"this journal has no {order}")
                intent: Intent | None = self._book.intent(order.number)
            else:
                intent = self._book.intent_of(order)
        if intent is not None and intent.outcome is Outcome.REJECTED:
            raise OrderRejected(f"{intent} was rejected: {intent.message}", intent, intent.code, intent.message)
        if intent is not None and intent.outcome is Outcome.NOT_SENT:
            raise OrderNotSent(f"{intent} was not sent", intent)
        is_known = intent is None or intent.outcome is Outcome.ACCEPTED
        return latest if is_known and latest is not None and latest.is_final else None

    def resolve(self, intent: Intent | int, outcome: Outcome | str, order_id: str = "") -> Intent:
        """A human's answer to what became of an unknown intent; it goes into the journal, and the freeze ends.

        `outcome` is "accepted" (with the broker's `order_id`), "rejected" or "not sent". Another answer may follow,
        until a list shows the order. ValueError for an intent whose outcome is known. From any thread.
        """
        self._check_open()
        if not isinstance(order_id, str):
            raise TypeError(f"a broker's number is a str, not {type(order_id).__name__}: pass {str(order_id)!r}")
        number = intent.number if isinstance(intent, Intent) else intent
        order_id = order_id.strip()
        answer = Outcome(outcome)
        if answer is Outcome.UNKNOWN:
            raise ValueError("unknown is what it is already: say 'accepted', 'rejected' or 'not sent'")
        with self._ledger.lock:
            try:
                found = self._book.intent(number)
            except KeyError:
                raise ValueError(f"there is no intent {number}") from None
            if not self._book.may_be_resolved(number):
                as_ = f" as order {found.order_id}" if found.outcome is Outcome.ACCEPTED and found.side else ""
                raise ValueError(f"{found} is not unknown: it is {found.outcome}{as_}")
            settled = self._ledger.resolve(number, answer, order_id)
        self._tell()
        if self.mode != "dry":
            self._tracker.wake()
        return settled

    def _place(self, side: Side, code: str, price: Price, volume: int, name: str | None) -> Order:
        self._check_blocking()
        request = arguments.request(side, code, price, volume)
        return self._placing.place(request, self._name(request, name))

    def _name(self, request: Request, name: str | None) -> str:
        return name if name is not None else self._market.name(request.code)

    def _enter(self, request: Request, name: str | None) -> Entered:
        self._check_open()
        return self._placing.enter(request, self._name(request, name))

    def _cancellable(self, order: Order | Intent | str) -> Order:
        """ValueError for what can't be cancelled, or is not known to be what it was."""
        self._check_open()
        with self._ledger.lock:
            found = self.order(order)
            intent = self._book.intent_of(order) if isinstance(order, Order) else None
            if found is not None and intent is not None and intent.order_id != found.order_id:
                raise ValueError(f"{intent} is not known to be order {found.order_id} any more")
            if found is None or (found.at is None and not self._book.is_mine(found)):
                raise ValueError(f"there is no {_named(order)}: orders() asks the broker for its list")
            if found.is_final:
                raise ValueError(f"order {found.order_id} is done: {found.status}")
            if self._book.is_over(found, self._clock().date()):
                raise ValueError(
                    f"order {found.order_id} is of a day that is over, and its number may be another's now"
                )
            return found

    def _submit(self, side: Side, code: str, price: Price, volume: int, name: str | None) -> "Future[Order]":
        self._check_open()
        return self._intake.order(
            lambda: arguments.request(side, code, price, volume), lambda request: self._enter(request, name)
        )

    # --- the kill switch ---

    @property
    def killed(self) -> str:
        """Why nothing is ordered; "" where orders go. From any thread."""
        return self._switch.why()

    @property
    def kill_file(self) -> Path | None:
        """What throws the switch by being there; None in dry mode."""
        return self._switch.path

    def kill(self, reason: str = "") -> None:
        """From now on nothing is ordered, until `rearm`. Cancels go. From any thread and from signal handlers."""
        self._switch.throw(reason or "kill() was called")

    def kill_on(self, number: int) -> None:
        """Let a signal throw the kill switch; its handler so far is called too. In the main thread."""
        self._switch.on_signal(number)

    def rearm(self) -> None:
        """Orders go again. By hand: nothing calls it by itself. From any thread."""
        self._switch.rearm()

    # --- handlers ---

    def on_intent(self, handler: F) -> F:
        """`handler(intent)` when it is known what became of an order or a cancel, and when that is not known.

        Its `outcome` says which. Whoever waits for one that was unknown learns here that it was rejected.
        """
        self._events.add("on_intent", handler)
        return handler

    def on_order(self, handler: F) -> F:
        """`handler(order)` when the broker's list shows a change of one of this client's orders."""
        self._events.add("on_order", handler)
        return handler

    def on_fill(self, handler: F) -> F:
        """`handler(fill)`, a `Fill`, when more of one of this client's orders was filled."""
        self._events.add("on_fill", handler)
        return handler

    def on_error(self, handler: F) -> F:
        """`handler(exception, where)` for what a human should see; without one it is logged.

        `where` is "poll" for what the broker could not be asked, "order" for what its list says that should not be.
        """
        self._events.add("on_error", handler)
        return handler

    # --- life ---

    def start(self) -> Self:
        """Find out, in the background, about what a process that is gone has left. `with client:` does it too."""
        self._check_open()
        if self.mode != "dry" and (self.unknown or self._has_working()):
            self._tracker.wake()
        return self

    def close(self, timeout: float = 10.0) -> None:
        """End the client's threads, each given so many seconds, and give the journal up. Open orders stay open.

        What has no connection yet is not sent any more, and what was sent has that time for its reply; else it is
        unknown to whoever opens the journal next.
        """
        if self._is_closed or self._process != os.getpid():
            return
        self._is_closed = True
        try:
            self._intake.close(timeout)
            self._placing.close(timeout)
            self._tracker.close(timeout)
            self._events.close(timeout)
        finally:
            self._ledger.close()
            self._tell()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _count_call(self, call: str) -> None:
        self._ledger.count_call(self._clock().date(), call)

    def _check_budget(self, call: str) -> None:
        with self._ledger.lock:
            self._ledger.bill.check(self._clock().date(), call)

    def _has_working(self) -> bool:
        with self._ledger.lock:
            return bool(self._waiters or self._book.working(self._clock().date()))

    def _tell(self) -> None:
        with self._news:
            self._news.notify_all()

    def _check_open(self) -> None:
        if self._process != os.getpid():
            raise TradeError("this client belongs to the process that this one was forked from: make another one")
        if self._is_closed:
            raise TradeError("the client is closed")

    def _check_blocking(self) -> None:
        self._check_open()
        if is_feed_thread():
            raise RuntimeError("this call would hold up the feed: use submit_buy, submit_sell or submit_cancel here")

    def _check_query(self) -> None:
        self._check_blocking()
        if self.mode == "dry":
            raise TradeError(_NO_SOCKET)


def _named(order: Order | Intent | str) -> str:
    if isinstance(order, Order):
        return f"order {order.order_id or order.intent}"
    return str(order) if isinstance(order, Intent) else f"order {shown(order)}"
