"""The book of what was meant, and of what the broker lists: which order is whose. It knows no socket and no disk.

An intent whose outcome is not known is claimed by the one order of the broker's list that can be it: the same code,
side, price and volume, of the time in which it was under way, nobody else's, and not listed before it was sent. Where
more than one could be it, a human has to look.
"""

import bisect
import dataclasses
import datetime as dt
import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, auto

from jvq_fast.trade.listed import Content, Key, Listed, content_of, day_of
from jvq_fast.trade.model import Action, Fill, Intent, Order, Outcome, Side, Status

# Clocks differ, and a broker's may be a minute off.
WINDOW = dt.timedelta(seconds=60)


# That an accepted order may be missing from before somebody is told.
_LISTS_TO_SHOW = 10


class Stage(Enum):
    """Where an intent is between its entry in the journal and its outcome."""

    UNDER_WAY = auto()  # in the journal; its bytes may be leaving
    REFUSED = auto()  # the broker said no; its list of orders has to bear it out
    LOST = auto()  # nothing says what became of it
    DONE = auto()  # its outcome is known


_UNKNOWN = (Stage.LOST, Stage.REFUSED)


@dataclass(slots=True)
class _Entry:
    intent: Intent
    stage: Stage
    listed_before: int  # lists that had been read when it was sent
    ended: dt.datetime | None = None  # by the client's clock; None while it is under way
    lists_without: int = 0  # that were asked for after it had ended
    key: Key | None = None  # of its order, once that is listed
    flagged: bool = False  # a human was told
    others: frozenset[Key] = frozenset()  # that looked like it, and were listed before it was sent
    by_likeness: bool = False  # its order was told by what it looks like, and not by its number
    by_human: bool = False  # its outcome is what a human said, who may say otherwise
    thread: int = field(default_factory=threading.get_ident)  # that entered it


@dataclass(slots=True)
class News:
    """What a list of orders changed. `settled` are intents with their outcome; `remarks` are for a human."""

    settled: list[Intent] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)
    remarks: list[tuple[Intent | None, str]] = field(default_factory=list)
    late: set[int] = field(default_factory=set)  # numbers of those of `settled` that had been rejected, as it seemed
    reopened: list[Intent] = field(default_factory=list)  # accepted as an order that is another one: not known again


class Book:
    """All intents of a journal and all orders that were listed. One thread at a time uses it.

    `lists_to_reject` lists without a match bear a refusal out. `longest` is how long an order may be under way.
    `window` is how far the broker's clock may be off, None where it can't be compared with the client's.
    """

    def __init__(self, lists_to_reject: int, longest: dt.timedelta, window: dt.timedelta | None = WINDOW) -> None:
        self.lists = 0  # that were read
        self._lists_to_reject = lists_to_reject
        self._longest = longest
        self._window = window
        self._listed = Listed()
        self._next = 1
        self._entries: dict[int, _Entry] = {}
        # A journal holds thousands: what every order and every list looks through has to be few.
        self._open: dict[int, _Entry] = {}  # not DONE
        self._watched: dict[int, _Entry] = {}  # accepted orders, those that are done left out in time
        self._unlisted: dict[int, _Entry] = {}  # accepted orders that no list has shown
        self._guessed: dict[int, _Entry] = {}  # by_likeness
        self._sales: dict[str, list[int]] = {}  # by code
        self._rejected: dict[Content, dict[dt.date, dict[int, _Entry]]] = {}
        self._numbered: dict[str, list[_Entry]] = {}  # that have, or had, a broker's number

    # --- intents ---

    @property
    def next_number(self) -> int:
        """That of the next intent."""
        return self._next

    def reserve(self, number: int) -> None:
        """No other intent gets this number, whatever becomes of this one."""
        self._next = max(self._next, number + 1)

    def is_under_way(self, number: int, thread: int | None = None) -> bool:
        """Whether an intent was entered, by a certain thread perhaps, and nothing is known of it yet."""
        entry = self._entries.get(number)
        return entry is not None and entry.stage is Stage.UNDER_WAY and thread in (None, entry.thread)

    def look_alikes(self, intent: Intent) -> frozenset[Key]:
        """The orders listed so far that an intent that is sent now could be taken for."""
        since = dt.date.min if self._window is None else (intent.at - self._window).date()
        alike = self._listed.alike(_wanted(intent), since)
        return frozenset(order.key for order in alike if not self._is_before(order, intent))

    def _is_before(self, order: Order, intent: Intent) -> bool:
        """Whether the broker had an order before an intent could reach it."""
        return self._window is not None and order.at is not None and order.at < intent.at - self._window

    def add(self, intent: Intent, others: frozenset[Key] = frozenset(), *, restored: bool = False) -> None:
        """It is in the journal now, and may be sent. `restored`: by a process that is gone, so nobody waits for it.

        `others` are its `look_alikes`.
        """
        if restored:
            entry = _Entry(intent, Stage.LOST, 0, intent.at + self._longest, others=others)
        else:
            entry = _Entry(intent, Stage.UNDER_WAY, self.lists, others=others)
        self._entries[intent.number] = entry
        self._next = max(self._next, intent.number + 1)
        if intent.action is Action.SELL:
            self._sales.setdefault(intent.security, []).append(intent.number)
        if intent.order_id:
            self._numbered.setdefault(intent.order_id, []).append(entry)
        self._file(entry)

    def _file(self, entry: _Entry) -> None:
        """Where an entry is to be found, after each change of it."""
        number, intent = entry.intent.number, entry.intent
        is_accepted = entry.stage is Stage.DONE and intent.side is not None and intent.outcome is Outcome.ACCEPTED
        for where, belongs in (
            (self._open, entry.stage is not Stage.DONE),
            (self._watched, is_accepted),
            (self._unlisted, is_accepted and entry.key is None),
            (self._guessed, entry.by_likeness),
        ):
            if belongs:
                where[number] = entry
            else:
                where.pop(number, None)
        if intent.side is not None and intent.outcome is Outcome.REJECTED:
            days = self._rejected.setdefault(_wanted(intent), {})
            days.setdefault(intent.at.date(), {})[number] = entry
        elif _wanted(intent) in self._rejected:
            self._rejected[_wanted(intent)].get(intent.at.date(), {}).pop(number, None)

    def refuse(self, number: int, code: str, message: str, at: dt.datetime) -> Intent:
        """The broker said no: `lists_to_reject` lists will tell."""
        entry = self._entries[number]
        entry.intent = dataclasses.replace(entry.intent, code=code, message=message, cause="refused, not checked yet")
        entry.stage, entry.ended, entry.lists_without = Stage.REFUSED, at, 0
        self._file(entry)
        return entry.intent

    def lose(self, number: int, cause: str, at: dt.datetime) -> Intent:
        """Nothing says what became of it."""
        entry = self._entries[number]
        order_id = "" if entry.intent.side is not None else entry.intent.order_id
        entry.intent = dataclasses.replace(entry.intent, outcome=Outcome.UNKNOWN, order_id=order_id, cause=cause)
        entry.stage, entry.ended, entry.lists_without, entry.flagged = Stage.LOST, at, 0, False
        self._file(entry)
        return entry.intent

    def settle(
        self,
        number: int,
        outcome: Outcome,
        order_id: str = "",
        code: str = "",
        message: str = "",
        *,
        by_likeness: bool = False,
        by_human: bool = False,
    ) -> Intent:
        """Its outcome is known. ValueError for an order's number that is another intent's, or can't be this one's."""
        entry = self._entries[number]
        intent = entry.intent
        if intent.side is not None:
            intent = dataclasses.replace(intent, order_id="")  # a human may have named another one before
        if intent.side is not None and outcome is Outcome.ACCEPTED:
            if not order_id:
                raise ValueError("an accepted order has a number")
            if self._is_taken(order_id, entry):
                raise ValueError(f"order {order_id} is another intent's")
            self._check_number(order_id, entry)
            intent = dataclasses.replace(intent, order_id=order_id)
            self._numbered.setdefault(order_id, []).append(entry)
        if code or message:
            intent = dataclasses.replace(intent, code=code, message=message)
        entry.intent, entry.stage = dataclasses.replace(intent, outcome=outcome, cause=""), Stage.DONE
        entry.by_likeness, entry.by_human, entry.lists_without = by_likeness, by_human, 0
        entry.flagged = entry.flagged and not by_human
        if entry.key is None and intent.side is not None and outcome is Outcome.ACCEPTED:
            key = self._listed_as(entry)
            if key is not None:
                self._give(key, entry)
        self._file(entry)
        return entry.intent

    def _give(self, key: Key, entry: _Entry) -> None:
        entry.key = key
        self._listed.claim(key, entry.intent.number)

    def _check_number(self, order_id: str, entry: _Entry) -> None:
        """ValueError where the order that is listed with a number can't be an intent's."""
        keys = [key for key in self._listed.numbered(order_id) if self._listed.first_list(key)]
        if self._window is not None:
            keys = [key for key in keys if key[0] == entry.intent.at.date()]
        key = max(keys, key=day_of, default=None)
        if key is None:
            return
        order = self._listed[key]
        if not _is_same(entry.intent, order):
            raise ValueError(f"order {order_id} is another one")
        if self._listed.first_list(key) <= entry.listed_before or key in entry.others:
            raise ValueError(f"order {order_id} was there before it was sent")

    def _is_taken(self, order_id: str, entry: _Entry) -> bool:
        return any(
            other is not entry
            and other.intent.order_id == order_id
            and other.intent.side is not None
            and other.intent.at.date() == entry.intent.at.date()
            for other in self._numbered.get(order_id, ())
        )

    def _listed_as(self, entry: _Entry) -> Key | None:
        """The key of the listed order that has the number of an accepted intent; brokers count anew each day."""
        keys = [
            key
            for key in self._listed.numbered(entry.intent.order_id)
            if self._listed.first_list(key) > entry.listed_before and self._listed.claimant(key) is None
        ]
        if self._window is not None:
            keys = [key for key in keys if key[0] == entry.intent.at.date()]
        return max(keys, key=day_of, default=None)

    def intent(self, number: int) -> Intent:
        """KeyError for a number that no intent has."""
        return self._entries[number].intent

    def intents(self) -> tuple[Intent, ...]:
        """All, oldest first."""
        return tuple(entry.intent for entry in self._entries.values())

    def unknown(self) -> tuple[Intent, ...]:
        """Those whose outcome is not known and that are not on their way, oldest first."""
        return tuple(entry.intent for entry in self._unknown())

    def _unknown(self) -> list[_Entry]:
        # What is looked up a second time was put in again, behind younger ones.
        found = [entry for entry in self._open.values() if entry.stage in _UNKNOWN]
        return sorted(found, key=lambda entry: entry.intent.number)

    def may_be_resolved(self, number: int) -> bool:
        """Whether a human may say what became of it: it is unknown, or all that is known is what a human said."""
        entry = self._entries[number]
        return entry.stage in _UNKNOWN or (entry.by_human and entry.key is None)

    def frozen(self, code: str, side: Side) -> Intent | None:
        """The order of this code and side that has to be found out about before another one."""
        for entry in self._unknown():
            if entry.intent.side is side and entry.intent.security == code:
                return entry.intent
        return None

    # --- orders ---

    def order(self, number: int) -> Order | None:
        """The order that an intent became, or is to cancel, as it was last listed; None where there is none yet."""
        entry = self._entries[number]
        intent = entry.intent
        if intent.side is None:
            return self.find(intent.order_id, intent.at.date())
        return self._order(entry)

    def _order(self, entry: _Entry) -> Order | None:
        intent = entry.intent
        if entry.key is not None:
            return dataclasses.replace(self._listed[entry.key], intent=intent.number)
        if intent.side is None or intent.outcome is not Outcome.ACCEPTED:
            return None
        return Order(
            order_id=intent.order_id, code=intent.security, name=intent.name, side=intent.side, side_text="",
            status=Status.ACCEPTED, status_text="", price=intent.price, volume=intent.volume,
            deal_price=Decimal(0), deal_volume=0, at=None, intent=intent.number,
        )  # fmt: skip

    def find(self, order_id: str, day: dt.date | None = None) -> Order | None:
        """The order with a broker's number, whosever it is: of a day, or of the latest, since they count anew each."""
        mine = {id(each): each for each in self._numbered.get(order_id, ()) if each.intent.order_id == order_id}
        found = [order for order in map(self._order, mine.values()) if order is not None]
        keys = [key for key in self._listed.numbered(order_id) if self._listed.get(key) is not None]
        found += [self.listed(key) for key in keys]
        if day is not None and self._window is not None:
            found = [order for order in found if self._day_of(order) == day]
        return max(found, key=lambda order: (self._day_of(order), order.intent or 0), default=None)

    def latest(self, order: Order) -> Order:
        """An order as it is now; itself where nothing newer is known of it."""
        intent = self.intent_of(order)
        mine = self._order(self._entries[intent.number]) if intent is not None else None
        if mine is not None and mine.order_id == order.order_id:
            return mine
        return self.listed(order.key) if self._listed.get(order.key) is not None else order

    def intent_of(self, order: Order) -> Intent | None:
        """The intent that an order names; None where it is another journal's."""
        entry = self._entries.get(order.intent) if order.intent is not None else None
        return entry.intent if entry is not None and entry.intent.security == order.code else None

    def has(self, intent: Intent | int) -> bool:
        """Whether an intent is one of this book's, which another journal's may have the number of."""
        number = intent.number if isinstance(intent, Intent) else intent
        entry = self._entries.get(number)
        return entry is not None and (isinstance(intent, int) or entry.intent.at == intent.at)

    def known(self, listed: Order) -> Order:
        """What is known of an order that was listed; itself where its number was another one's."""
        order = self.listed(listed.key)
        return order if order.code == listed.code else listed

    def listed(self, key: Key) -> Order:
        """An order that was listed, with the intent that it is."""
        return dataclasses.replace(self._listed[key], intent=self._listed.claimant(key))

    def is_mine(self, order: Order) -> bool:
        """Whether an order is one of this book's intents by its number too."""
        intent = self.intent_of(order)
        return intent is not None and intent.order_id == order.order_id

    def _day_of(self, order: Order) -> dt.date:
        if order.at is not None:
            return order.at.date()
        intent = self.intent_of(order)
        return intent.at.date() if intent is not None else dt.date.min

    def is_over(self, order: Order, day: dt.date) -> bool:
        """Whether the day of an order has passed: nothing can happen to it, and its number may be another's."""
        return self._window is not None and self._day_of(order) < day

    def working(self, day: dt.date) -> tuple[Order, ...]:
        """This client's orders of a day that may still be filled, or of which the next list has news to tell."""
        found = []
        for number, entry in list(self._watched.items()):
            order = self._order(entry)
            assert order is not None
            if order.is_final and (entry.key is None or self._listed[entry.key].intent == number):
                del self._watched[number]
            elif (order.at or entry.intent.at).date() >= day:
                found.append(order)
        return tuple(found)

    def open_orders(self, day: dt.date) -> int:
        """How many orders may be at the broker and not done, those included of which nothing is known."""
        return sum(entry.intent.side is not None for entry in self._open.values()) + len(self.working(day))

    def open_sales(self) -> frozenset[int]:
        """The sales that a list of positions asked for now may or may not know of."""
        return frozenset(number for number, entry in self._open.items() if entry.intent.action is Action.SELL)

    def sold_since(self, code: str, next_number: int, open_then: frozenset[int]) -> int:
        """Volume of the sales of a code that a list of positions may not know: see `next_number`, `open_sales`."""
        sales = self._sales.get(code, [])
        since = sales[bisect.bisect_left(sales, next_number) :]
        return sum(
            entry.intent.volume
            for entry in map(self._entries.__getitem__, {*since, *open_then.intersection(sales)})
            if entry.stage is not Stage.DONE or entry.intent.outcome is Outcome.ACCEPTED
        )

    def remember(self, order: Order) -> None:
        """What a process that is gone was told of an order. After its intent was settled."""
        self._listed.see(order.key, 0)
        self._listed.put(order)
        entry = self._entries.get(order.intent) if order.intent is not None else None
        if entry is not None:
            self._give(order.key, entry)
            self._file(entry)

    # --- what the broker lists ---

    def asked(self) -> frozenset[int]:
        """For `read`: the intents that a list asked for now has to know."""
        return frozenset(entry.intent.number for entry in self._unknown())

    def read(self, listed: Iterable[Order], asked: frozenset[int], today: dt.date | None = None) -> News:
        """Take a list of orders in that was asked for when `asked` was so. Lists of `today` have today's orders."""
        listed = list({order.key: order for order in listed}.values())
        news = News()
        self.lists += 1
        for order in listed:
            self._listed.see(order.key, self.lists)
        alike: dict[Content, list[Order]] = {}
        self._adopt(listed, news)
        for order in listed:
            if self._listed.claimant(order.key) is None:
                alike.setdefault(content_of(order), []).append(order)
        self._claim(alike, news)
        self._doubt(alike, news)
        for order in listed:
            self._update(order, news)
        for number in sorted(asked):
            self._judge(self._entries[number], news)
        for entry in self._unlisted.values():
            entry.lists_without += 1
            is_old = today is not None and self._window is not None and entry.intent.at.date() < today
            if entry.lists_without >= _LISTS_TO_SHOW and not is_old:
                self._flag(entry, f"should be order {entry.intent.order_id}, and no list has it: look", news)
        return news

    def _adopt(self, listed: list[Order], news: News) -> None:
        """Accepted intents find their orders by the number."""
        free = {order.key: order for order in listed if self._listed.claimant(order.key) is None}
        numbers = {order.order_id for order in free.values()}
        for number, entry in list(self._unlisted.items()):
            intent = entry.intent
            if intent.order_id in numbers:
                key = self._listed_as(entry)
                if key in free and not _is_same(intent, free[key]):
                    cause = f"the broker said that it is order {intent.order_id}, and that is another one"
                    news.reopened.append(self.lose(number, cause, intent.at + self._longest))
                    news.remarks.append((entry.intent, f"is looked up again: {cause}"))
                elif key is not None:
                    self._give(key, entry)
                    self._file(entry)

    def _can_be(self, entry: _Entry, order: Order) -> bool:
        intent = entry.intent
        if _wanted(intent) != content_of(order) or self._listed.claimant(order.key) is not None:
            return False
        if self._listed.first_list(order.key) <= entry.listed_before or order.key in entry.others:
            return False
        if self._window is None or order.at is None:
            return True
        ended = entry.ended or intent.at + self._longest
        return not self._is_before(order, intent) and order.at <= ended + self._window

    def _claim(self, alike: dict[Content, list[Order]], news: News) -> None:
        """Give orders to the intents that they must be: first to the unknown, then to those that were refused."""
        under_way = [entry for entry in self._open.values() if entry.stage is Stage.UNDER_WAY and entry.intent.side]
        unknown = [entry for entry in self._unknown() if entry.intent.side]
        for wanted in (unknown, self._refused_like(alike)):
            for entry in wanted:
                fitting = [order for order in alike.get(_wanted(entry.intent), ()) if self._can_be(entry, order)]
                if not fitting or any(self._can_be(other, order) for other in under_way for order in fitting):
                    continue  # the reply of one that is under way will name its order
                rivals = [other for other in wanted if any(self._can_be(other, order) for order in fitting)]
                if len(fitting) > len(rivals):
                    ids = ", ".join(order.order_id for order in fitting)
                    self._flag(entry, f"may be any of the orders {ids}: say which with resolve()", news)
                    continue
                order = min(fitting, key=lambda each: (each.at or entry.intent.at, each.order_id))
                if entry.intent.outcome is Outcome.REJECTED:
                    self._flag(entry, f"was refused, and is at the broker all the same as order {order.order_id}", news)
                    news.late.add(entry.intent.number)
                self._give(order.key, entry)
                entry.intent = dataclasses.replace(
                    entry.intent, outcome=Outcome.ACCEPTED, order_id=order.order_id, cause=""
                )
                self._numbered.setdefault(order.order_id, []).append(entry)
                entry.stage, entry.by_likeness = Stage.DONE, True
                self._file(entry)
                news.settled.append(entry.intent)

    def _refused_like(self, alike: dict[Content, list[Order]]) -> list[_Entry]:
        """Those that were rejected and that listed orders could be all the same."""
        found: list[_Entry] = []
        for content, orders in alike.items():
            days = self._rejected.get(content, {})
            wanted: Collection[dt.date] = days
            if self._window is not None and all(order.at is not None for order in orders):
                # No session goes over midnight.
                wanted = {
                    (order.at + off).date() for order in orders if order.at for off in (-self._window, self._window)
                }
            found += [entry for day in wanted for entry in days.get(day, {}).values()]
        return sorted(found, key=lambda entry: entry.intent.number)

    def _doubt(self, alike: dict[Content, list[Order]], news: News) -> None:
        """What took an order by its looks alone may have taken the wrong one: another that fits turns up."""
        for entry in list(self._guessed.values()):
            fitting = alike.get(_wanted(entry.intent), ())
            order = next((order for order in fitting if self._can_be(entry, order)), None)
            if order is not None:
                entry.by_likeness = False
                self._file(entry)
                was = entry.intent.order_id
                news.remarks.append(
                    (entry.intent, f"was taken to be order {was}, and may be order {order.order_id} as well: look")
                )

    def _update(self, order: Order, news: News) -> None:
        before = self._listed.get(order.key)
        number = self._listed.claimant(order.key)
        order = dataclasses.replace(order, intent=number)
        if before is not None and (before.code != order.code or {before.side, order.side} == set(Side)):
            news.remarks.append((None, f"order {order.order_id}: the broker lists another one under this number now"))
            if number is not None and before.is_final:
                return  # of what is done, that is what is known
            self._listed.put(dataclasses.replace(order, intent=None))
            if number is not None:
                entry = self._entries[number]
                entry.key = None
                self._listed.give_up(order.key)
                news.reopened.append(self.lose(number, "its number is another order's now", entry.intent.at))
            return
        if before is not None and order.deal_volume < before.deal_volume:
            news.remarks.append((None, f"order {order.order_id}: the broker lists less of it as filled than before"))
            return
        self._listed.put(order)
        if number is None or (before is not None and before.intent == number and _essence(before) == _essence(order)):
            return
        news.orders.append(order)
        self._watched[number] = self._entries[number]
        told = before if before is not None and before.intent == number else None
        filled = order.deal_volume - (told.deal_volume if told is not None else 0)
        if filled:
            cost = order.deal_price * order.deal_volume
            if told is not None:
                cost -= told.deal_price * told.deal_volume
            news.fills.append(Fill(order, filled, cost / filled))
        if order.status is Status.UNKNOWN_TEXT and (told is None or told.status_text != order.status_text):
            news.remarks.append((None, f"order {order.order_id}: the status {order.status_text!r} is not known"))

    def _judge(self, entry: _Entry, news: News) -> None:
        """What a list without a match says of a refusal, and any list of a cancel."""
        if entry.stage not in _UNKNOWN:
            return
        entry.lists_without += 1
        enough = entry.lists_without >= self._lists_to_reject
        outcome = None
        if entry.intent.action is Action.CANCEL:
            outcome = self._cancelled(entry)
            if outcome is None and enough:
                self._flag(entry, "may still be done: cancel again, or say what became of it with resolve()", news)
        elif entry.stage is Stage.REFUSED and enough:
            outcome = Outcome.REJECTED
        elif enough:
            self._flag(entry, "is in none of the broker's lists so far: look there, then say so with resolve()", news)
        if outcome is not None:
            entry.intent = dataclasses.replace(entry.intent, outcome=outcome, cause="")
            entry.stage = Stage.DONE
            self._file(entry)
            news.settled.append(entry.intent)

    def _cancelled(self, entry: _Entry) -> Outcome | None:
        order = self.find(entry.intent.order_id, entry.intent.at.date())
        if order is None or order.at is None or order.status is Status.UNKNOWN_TEXT:
            return None  # some brokers have a word for what is being cancelled
        if order.status in (Status.CANCELLED, Status.PARTLY_CANCELLED):
            return Outcome.ACCEPTED
        if order.is_final or entry.stage is Stage.REFUSED:
            return Outcome.REJECTED
        return None

    def _flag(self, entry: _Entry, what: str, news: News) -> None:
        if not entry.flagged:
            entry.flagged = True
            news.remarks.append((entry.intent, what))


def _wanted(intent: Intent) -> Content:
    return intent.security, intent.side, intent.price, intent.volume


def _is_same(intent: Intent, order: Order) -> bool:
    """Whether an order that is an intent's by its number is it by its looks, as far as the broker's words are known."""
    side = order.side or intent.side
    return (intent.security, intent.side, intent.price, intent.volume) == (order.code, side, order.price, order.volume)


def _essence(order: Order) -> tuple[object, ...]:
    return order.status, order.status_text, order.deal_volume, order.deal_price, order.price, order.volume
