"""Which order is whose, where lists, replies and restarts come in an awkward order."""

import dataclasses
import datetime as dt
from decimal import Decimal
from pathlib import Path

import pytest

from jvq_fast.errors import RiskError
from jvq_fast.redact import Secret
from jvq_fast.trade.billing import Bill
from jvq_fast.trade.gate import Gate, Limits, Request
from jvq_fast.trade.journal import Journal
from jvq_fast.trade.ledger import Ledger
from jvq_fast.trade.model import SHANGHAI, Order, Outcome, Side, Status
from jvq_fast.trade.orders import Book

NOON = dt.datetime(2026, 11, 23, 10, 0, tzinfo=SHANGHAI)
LONGEST = dt.timedelta(seconds=5)
WANTED = Request(Side.BUY, "000001", Decimal("11.50"), 100)
LIMITS = Limits(max_data_age=None, price_band=None, daily_limits=False, max_repeats=1, max_daily_value=None)


@pytest.fixture(autouse=True)
def quick_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jvq_fast.trade.private._ROUNDS", 1)


class Market:
    def last(self, code: str) -> None: ...
    def age(self, code: str) -> None: ...
    def name(self, code: str) -> str:
        return ""

    def limits(self, code: str) -> None: ...


class Lives:
    """A ledger and its journal, through restarts. `now` is in seconds from NOON."""

    def __init__(self, path: Path, limits: Limits = LIMITS) -> None:
        self._path = path
        self._limits = limits
        self._journal: Journal | None = None
        self.begin(0)

    def begin(self, now: float) -> None:
        self.wall = 1e9 + now
        if self._journal is not None:
            self._journal.close()
        self._journal = Journal(self._path, Secret("123456789012"), "paper")
        self.book = Book(3, LONGEST)
        bill = Bill({}, None, None)
        gate = Gate(self._limits, Market())
        self.ledger = Ledger(self._journal, self.book, gate, bill, 1000.0 + now, lambda: self.wall, lambda intent: None)

    def enter(self, now: float, wanted: Request = WANTED) -> int:
        self.wall = 1e9 + now
        return self.ledger.enter(wanted, "", None, at(now), 1000.0 + now).number

    def read(self, *orders: Order):
        return self.ledger.read(orders, self.book.asked())


def at(seconds: float) -> dt.datetime:
    return NOON + dt.timedelta(seconds=seconds)


def listed(order_id: str, seconds: float, filled: int = 0, volume: int = 100, code: str = "000001") -> Order:
    return Order(
        order_id=order_id, code=code, name="", side=Side.BUY, side_text="证券买入",
        status=Status.FILLED if filled == volume else Status.WORKING, status_text="已报", price=Decimal("11.50"),
        volume=volume, deal_price=Decimal("11.50") if filled else Decimal(0), deal_volume=filled, at=at(seconds),
    )  # fmt: skip


@pytest.fixture
def lives(tmp_path: Path) -> Lives:
    return Lives(tmp_path / "journal")


def test_a_fill_that_was_listed_before_the_reply_came_is_told_by_the_next_list(lives: Lives) -> None:
    number = lives.enter(0)
    assert not lives.read(listed("7", 1, 100)).fills  # whose it is, the reply will say
    lives.ledger.settle(number, Outcome.ACCEPTED, "7", "0")
    assert lives.book.order(number).is_final
    assert lives.book.working(NOON.date()), "nothing would ask for another list"
    news = lives.read(listed("7", 1, 100))
    assert [(fill.order.intent, fill.volume) for fill in news.fills] == [(number, 100)]
    assert not lives.book.working(NOON.date())
    assert not lives.read(listed("7", 1, 100)).fills


def test_what_was_listed_before_an_order_was_sent_is_not_taken_for_it_after_a_restart_either(lives: Lives) -> None:
    lives.read(listed("6", -20))
    number = lives.enter(0)
    lives.begin(10)
    for _ in range(3):
        news = lives.read(listed("6", -20))
    assert lives.book.intent(number).outcome is Outcome.UNKNOWN
    assert [remark[0].number for remark in news.remarks] == [number]
    lives.read(listed("6", -20), listed("7", 1))
    assert lives.book.intent(number).order_id == "7"


@pytest.mark.parametrize("restarts", [False, True])
def test_a_second_order_that_fits_a_claim_is_shown_to_a_human(lives: Lives, restarts: bool) -> None:
    number = lives.enter(0)
    lives.ledger.lose(number, "a test", at(5))
    assert not lives.read(listed("8", 9)).remarks  # somebody else's, while the own one is not listed yet
    assert lives.book.intent(number).order_id == "8"
    if restarts:
        lives.begin(20)
    news = lives.read(listed("8", 9), listed("7", 1))
    ((intent, told),) = news.remarks
    assert intent.number == number
    assert "order 8" in told
    assert "order 7" in told
    assert not lives.read(listed("8", 9), listed("7", 1)).remarks


def test_a_number_that_was_listed_before_or_as_another_order_is_not_believed(lives: Lives) -> None:
    lives.read(listed("6", -20), listed("5", -20, volume=300))
    number = lives.enter(0)
    with pytest.raises(ValueError, match="order 6 was there before it was sent"):
        lives.ledger.settle(number, Outcome.ACCEPTED, "6", "0")
    with pytest.raises(ValueError, match="order 5 is another one"):
        lives.ledger.settle(number, Outcome.ACCEPTED, "5", "0")


def test_an_accepted_order_that_turns_out_to_be_another_one_is_looked_up_again(lives: Lives) -> None:
    number = lives.enter(0)
    lives.ledger.settle(number, Outcome.ACCEPTED, "8", "0")
    news = lives.read(listed("8", 1, volume=300))
    assert [remark[0].number for remark in news.remarks] == [number]
    assert lives.book.frozen("000001", Side.BUY).number == number
    lives.begin(10)
    assert lives.book.intent(number).outcome is Outcome.UNKNOWN
    lives.read(listed("8", 1, volume=300), listed("7", 1))
    assert lives.book.intent(number).order_id == "7"


def test_a_cancel_of_which_no_list_says_anything_is_shown_to_a_human(lives: Lives) -> None:
    order = lives.enter(0)
    lives.ledger.settle(order, Outcome.ACCEPTED, "7", "0")
    lives.read(listed("7", 1))
    number = lives.ledger.enter_cancel(lives.book.order(order), at(10), 1010.0).number
    lives.ledger.lose(number, "a test", at(15))
    remarks = [remark for _ in range(4) for remark in lives.read(listed("7", 1)).remarks]
    assert [intent.number for intent, _ in remarks] == [number]


def test_a_refused_cancel_waits_for_a_word_that_is_known(lives: Lives) -> None:
    order = lives.enter(0)
    lives.ledger.settle(order, Outcome.ACCEPTED, "7", "0")
    lives.read(listed("7", 1))
    number = lives.ledger.enter_cancel(lives.book.order(order), at(10), 1010.0).number
    lives.ledger.refuse(number, "-1", "busy", at(11))
    waiting = dataclasses.replace(listed("7", 1), status=Status.UNKNOWN_TEXT, status_text="已报待撤")
    lives.read(waiting)
    assert lives.book.intent(number).outcome is Outcome.UNKNOWN
    lives.read(dataclasses.replace(waiting, status=Status.CANCELLED, status_text="已撤"))
    assert lives.book.intent(number).outcome is Outcome.ACCEPTED


def test_an_order_that_is_listed_twice_is_one(lives: Lives) -> None:
    number = lives.enter(0)
    lives.ledger.lose(number, "a test", at(5))
    lives.read(listed("7", 1), listed("7", 1))
    assert lives.book.intent(number).order_id == "7"


def test_a_refused_order_that_was_found_takes_no_second_one(lives: Lives) -> None:
    number = lives.enter(0)
    lives.ledger.refuse(number, "-1", "no", at(1))
    for _ in range(3):
        lives.read()
    assert lives.book.intent(number).outcome is Outcome.REJECTED
    lives.read(listed("7", 1))
    lives.book._entries[number].by_likeness = False
    news = lives.read(listed("7", 1), listed("8", 2))
    assert (lives.book.intent(number).order_id, news.settled, news.orders) == ("7", [], [])


def test_repeats_and_orders_a_second_are_counted_across_a_restart(tmp_path: Path) -> None:
    lives = Lives(tmp_path / "journal", LIMITS.replace(max_per_second=2))
    lives.enter(0)
    lives.begin(0.2)
    with pytest.raises(RiskError, match="the same order 2 times"):
        lives.enter(0.3)
    lives.enter(0.3, Request(Side.BUY, "000001", Decimal("11.40"), 100))
    lives.begin(0.4)
    with pytest.raises(RiskError, match="within a second"):
        lives.enter(0.5, Request(Side.BUY, "000001", Decimal("11.30"), 100))
    lives.enter(1.1, Request(Side.BUY, "000001", Decimal("11.30"), 100))


def test_taking_an_old_order_back_leaves_a_later_one_counted(lives: Lives) -> None:
    first = lives.enter(0)
    lives.enter(6)
    lives.ledger.settle(first, Outcome.NOT_SENT)
    with pytest.raises(RiskError, match="the same order 2 times"):
        lives.enter(7)


@pytest.mark.parametrize("restarts", [False, True])
def test_a_refused_order_that_is_at_the_broker_all_the_same_counts_for_the_day(tmp_path: Path, restarts: bool) -> None:
    lives = Lives(tmp_path / "journal", LIMITS.replace(max_daily_value=Decimal(2000)))
    number = lives.enter(0)
    lives.ledger.refuse(number, "-1", "", at(1))
    for _ in range(3):
        lives.read()
    assert lives.book.intent(number).outcome is Outcome.REJECTED
    lives.read(listed("7", 1))
    assert lives.book.intent(number).outcome is Outcome.ACCEPTED
    if restarts:
        lives.begin(20)
    with pytest.raises(RiskError, match="on top of the day's"):
        lives.enter(30)
