"""The book, the gate's counts and the bill, kept in step with the journal: what is in one is in the other.

Everything that changes goes through here, under one lock, and is on disk before it is acted upon.
"""

import datetime as dt
import threading
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from jvq_fast.errors import JournalError
from jvq_fast.trade.billing import Bill
from jvq_fast.trade.gate import Gate, Request, Situation
from jvq_fast.trade.journal import Journal
from jvq_fast.trade.listed import Key
from jvq_fast.trade.model import Action, Intent, Order, Outcome, Side, Status
from jvq_fast.trade.orders import Book, News

_COME_TO_NOTHING = (Outcome.NOT_SENT, Outcome.REJECTED)


class Ledger:
    """From any thread. `journal` is None in dry mode, where nothing has to last.

    `monotonic` is the moment of the restart, `wall` the wall clock. `tell` hears of each outcome, once it is on disk.
    """

    def __init__(
        self,
        journal: Journal | None,
        book: Book,
        gate: Gate,
        bill: Bill,
        monotonic: float,
        wall: Callable[[], float],
        tell: Callable[[Intent], None],
    ) -> None:
        self.lock = threading.RLock()
        self.book = book
        self.bill = bill
        self._gate = gate
        self._journal = journal
        self._wall = wall
        self._tell = tell
        self.trouble = ""  # what kept an outcome from being written; nothing is ordered any more
        begun = wall() - monotonic
        for entry in journal.entries if journal is not None else ():
            self._restore(entry, begun)
        if journal is not None:
            journal.entries.clear()

    # --- what a process that is gone has left ---

    def _restore(self, entry: Mapping[str, Any], begun: float) -> None:
        what = entry.get("what")
        try:
            if what == "intent":
                self._restore_intent(entry, begun)
            elif what == "outcome":
                outcome = Outcome(entry["outcome"])
                number = int(entry["number"])
                if outcome is Outcome.UNKNOWN:
                    at = dt.datetime.fromisoformat(entry["at"])
                    if entry.get("refused"):
                        self.book.refuse(number, entry.get("code", ""), entry.get("message", ""), at)
                    else:
                        self.book.lose(number, entry.get("cause", ""), at)
                else:
                    was = self.book.intent(number).outcome
                    intent = self.book.settle(
                        number,
                        outcome,
                        entry.get("order_id", ""),
                        entry.get("code", ""),
                        entry.get("message", ""),
                        by_likeness=bool(entry.get("by_likeness")),
                        by_human=bool(entry.get("by_human")),
                    )
                    self._recount(was, intent)
            elif what == "order":
                self.book.remember(_read_order(entry))
            elif what == "call":
                self.bill.count(dt.date.fromisoformat(entry["day"]), str(entry["call"]), int(entry.get("times", 1)))
            elif what == "numbers":
                self.book.reserve(int(entry["next"]) - 1)
        except (KeyError, ValueError, TypeError, ArithmeticError) as error:
            raise JournalError(f"an entry of the journal can't be read ({type(error).__name__}: {error})") from None

    def _restore_intent(self, entry: Mapping[str, Any], begun: float) -> None:
        intent = Intent(
            number=int(entry["number"]),
            action=Action(entry["action"]),
            security=str(entry["security"]),
            name=str(entry["name"]),
            price=Decimal(entry["price"]),
            volume=int(entry["volume"]),
            at=dt.datetime.fromisoformat(entry["at"]),
            order_id=str(entry["order_id"]),
            cause="the process ended before its outcome was known",
        )
        self.book.add(intent, frozenset(_read_key(text) for text in entry.get("others", ())), restored=True)
        # Seconds are those of the wall clock: the exchange's time of a simulator may be any. Clocks are set back.
        wall = float(entry.get("wall", intent.at.timestamp()))
        self._gate.count(_request_of(intent), intent.at, min(wall, self._wall()) - begun)

    # --- orders and cancels ---

    def enter(self, request: Request, name: str, usable: int | None, now: dt.datetime, monotonic: float) -> Intent:
        """Past the gate and into the journal: it may be sent now. RiskError, JournalError."""
        with self.lock:
            self._check_trouble()
            situation = Situation(now, self.book.open_orders(now.date()), usable)
            self._gate.check(request, situation, monotonic)
            intent = Intent(
                self.book.next_number,
                Action(request.side.value),
                request.code,
                name,
                request.price,
                request.volume,
                now,
            )
            return self._enter(intent, request, monotonic)

    def enter_cancel(self, order: Order, now: dt.datetime, monotonic: float) -> Intent:
        """The same for a cancel, of which the gate only counts how many go. RiskError, JournalError."""
        with self.lock:
            self._check_trouble()
            self._gate.check_rate(now, monotonic)
            intent = Intent(
                self.book.next_number,
                Action.CANCEL,
                order.code,
                order.name,
                Decimal(0),
                0,
                now,
                order_id=order.order_id,
            )
            return self._enter(intent, None, monotonic)

    def _enter(self, intent: Intent, request: Request | None, monotonic: float) -> Intent:
        others: frozenset[Key] = frozenset()
        if intent.side is not None:
            others = self.book.look_alikes(intent)
        self.book.reserve(intent.number)
        self._write(
            {
                "what": "intent", "number": intent.number, "action": intent.action, "security": intent.security,
                "name": intent.name, "price": intent.price, "volume": intent.volume, "at": intent.at,
                "wall": round(self._wall(), 3), "order_id": intent.order_id,
                "others": sorted(f"{day or ''} {number}" for day, number in others),
            }
        )  # fmt: skip
        try:
            self.book.add(intent, others)
            self._gate.count(request, intent.at, monotonic)
        except BaseException:  # Ctrl-C
            self.abandon(intent.number, Outcome.NOT_SENT)
            raise
        return intent

    def abandon(self, number: int, outcome: Outcome, cause: str = "", thread: int | None = None) -> bool:
        """Whoever sent it, or was to, gave up in mid-way: it is not left between two stages. Whether it would be."""
        with self.lock:
            if not self.book.is_under_way(number, thread):
                return False
            if outcome is Outcome.NOT_SENT:
                self.settle(number, outcome)
            else:
                self.lose(number, cause, self.book.intent(number).at)
            return True

    def _check_trouble(self) -> None:
        if self.trouble:
            raise JournalError(self.trouble)

    def settle(self, number: int, outcome: Outcome, order_id: str = "", code: str = "", message: str = "") -> Intent:
        """Its outcome is known. ValueError for an order's number that is another intent's."""
        with self.lock:
            was = self.book.intent(number).outcome
            intent = self.book.settle(number, outcome, order_id, code, message)
            self._recount(was, intent)
            self._note_outcome(intent)
            return intent

    def resolve(self, number: int, outcome: Outcome, order_id: str) -> Intent:
        """Its outcome is what a human says. ValueError as for `settle`."""
        with self.lock:
            was = self.book.intent(number).outcome
            intent = self.book.settle(number, outcome, order_id, message="as a human said", by_human=True)
            self._recount(was, intent)
            self._note_outcome(intent, by_human=True)
            return intent

    def settle_dry(self, number: int) -> Intent:
        """It was not sent, in dry mode, where the gate counts it all the same: it is to say what it would say."""
        with self.lock:
            intent = self.book.settle(number, Outcome.NOT_SENT)
            self._tell(intent)
            return intent

    def refuse(self, number: int, code: str, message: str, at: dt.datetime) -> Intent:
        """The broker said no, which has to be borne out."""
        with self.lock:
            intent = self.book.refuse(number, code, message, at)
            self._note_outcome(intent, at=at, refused=True)
            return intent

    def lose(self, number: int, cause: str, at: dt.datetime) -> Intent:
        """Nothing says what became of it."""
        with self.lock:
            intent = self.book.lose(number, cause, at)
            self._note_outcome(intent, at=at)
            return intent

    def _recount(self, was: Outcome, intent: Intent) -> None:
        """What did not reach the broker does not count in the gate."""
        request = _request_of(intent)
        if request is not None and (was in _COME_TO_NOTHING) != (intent.outcome in _COME_TO_NOTHING):
            if was in _COME_TO_NOTHING:
                self._gate.bring_back(request, intent.at)
            else:
                self._gate.take_back(request, intent.at)

    def read(self, listed: Iterable[Order], asked: frozenset[int], today: dt.date | None = None) -> News:
        """Take the broker's list of orders in."""
        with self.lock:
            news = self.book.read(listed, asked, today)
            for intent in news.reopened:
                self._note_outcome(intent, at=intent.at)
            for intent in news.settled:
                self._recount(Outcome.REJECTED if intent.number in news.late else Outcome.UNKNOWN, intent)
                by_likeness = intent.side is not None and intent.outcome is Outcome.ACCEPTED
                self._note_outcome(intent, **({"by_likeness": True} if by_likeness else {}))
            for order in news.orders:
                self._note(_entry_of(order))
            return news

    def count_call(self, day: dt.date, call: str) -> None:
        """A call left this machine, and will be charged."""
        with self.lock:
            self.bill.count(day, call)
            self._note({"what": "call", "day": day.isoformat(), "call": call})

    # --- the disk ---

    def _write(self, entry: Mapping[str, Any]) -> None:
        if self._journal is not None:
            self._journal.write(entry)

    def _note_outcome(self, intent: Intent, **more: object) -> None:
        """What can't be written has happened all the same; but nothing more is ordered then."""
        try:
            self._write(
                {
                    "what": "outcome", "number": intent.number, "outcome": intent.outcome, "order_id": intent.order_id,
                    "code": intent.code, "message": intent.message, "cause": intent.cause, **more,
                }
            )  # fmt: skip
        except JournalError as error:
            self.trouble = f"{error}; nothing is ordered until the client is made anew"
        self._tell(intent)

    def _note(self, entry: Mapping[str, Any]) -> None:
        if self._journal is not None:
            try:
                self._journal.write(entry, sync=False)
            except JournalError as error:
                self.trouble = f"{error}; nothing is ordered until the client is made anew"

    def close(self) -> None:
        """Give the journal up."""
        with self.lock:
            self.trouble = self.trouble or "the client is closed"
            if self._journal is not None:
                self._journal.close()


def _request_of(intent: Intent) -> Request | None:
    if intent.side is None:
        return None
    return Request(intent.side, intent.security, intent.price, intent.volume)


def _entry_of(order: Order) -> dict[str, Any]:
    return {
        "what": "order", "order_id": order.order_id, "code": order.code, "name": order.name,
        "side": order.side, "side_text": order.side_text, "status": order.status, "status_text": order.status_text,
        "price": order.price, "volume": order.volume, "deal_price": order.deal_price,
        "deal_volume": order.deal_volume, "at": order.at, "intent": order.intent,
    }  # fmt: skip


def _read_key(text: str) -> Key:
    day, _, number = text.partition(" ")
    return (dt.date.fromisoformat(day) if day else None), number


def _read_order(entry: Mapping[str, Any]) -> Order:
    return Order(
        order_id=str(entry["order_id"]),
        code=str(entry["code"]),
        name=str(entry["name"]),
        side=Side(entry["side"]) if entry["side"] is not None else None,
        side_text=str(entry["side_text"]),
        status=Status(entry["status"]),
        status_text=str(entry["status_text"]),
        price=Decimal(entry["price"]),
        volume=int(entry["volume"]),
        deal_price=Decimal(entry["deal_price"]),
        deal_volume=int(entry["deal_volume"]),
        at=dt.datetime.fromisoformat(entry["at"]) if entry["at"] else None,
        intent=entry["intent"],
    )
