"""A journal of years: what it costs to open it and to order with it, and what a new one takes over."""

import datetime as dt
import logging
import os
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import journal_lines
import jvq_fast as jvq
from jvq_fast.trade import journal as journals
from jvq_fast.trade import private
from jvq_fast.trade.model import SHANGHAI, Action, Intent, Order, Outcome, Side, Status
from jvq_fast.trade.orders import Book
from trade_script import OPEN, WIDE, Broker, few_rounds, paper

__all__ = ["few_rounds"]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="elsewhere no new journal is begun")
SLOW = jvq.Polling(fast=60, slow=60)
DAY = dt.timedelta(days=1)
PRICE = Decimal("10.00")


def intent(number: int, at: dt.datetime, action: str = "buy", order_id: str = "") -> dict[str, Any]:
    return {
        "what": "intent", "number": number, "action": action, "security": "600519", "name": "", "price": "10.00",
        "volume": 0 if action == "cancel" else 100, "at": at.isoformat(), "order_id": order_id, "others": [],
    }  # fmt: skip


def outcome(number: int, said: str = "accepted", order_id: str = "", **more: Any) -> dict[str, Any]:
    return {
        "what": "outcome", "number": number, "outcome": said, "order_id": order_id, "code": "0", "message": "",
        "cause": "", **more,
    }  # fmt: skip


def order(number: int, at: dt.datetime, status: str = "working", filled: int = 0) -> dict[str, Any]:
    return {
        "what": "order", "order_id": str(number), "code": "600519", "name": "", "side": "buy", "side_text": "证券买入",
        "status": status, "status_text": "", "price": "10.00", "volume": 100, "deal_price": "10.00" if filled else "0",
        "deal_volume": filled, "at": at.isoformat(), "intent": number,
    }  # fmt: skip


def day_of_trading(first: int, many: int, day: dt.datetime) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for number in range(first, first + many):
        at = day + dt.timedelta(seconds=number - first)
        entries += [
            intent(number, at), outcome(number, order_id=str(number)), order(number, at),
            order(number, at, "filled", 100), {"what": "call", "day": str(at.date()), "call": "check_order"},
            {"what": "call", "day": str(at.date()), "call": "buy"},
        ]  # fmt: skip
    return entries


def old_and_week() -> list[dict[str, Any]]:
    """A large day of long ago, and a small order on each of the last seven."""
    week = [each for n in range(7) for each in day_of_trading(3000 + n, 1, OPEN - (6 - n) * DAY)]
    return day_of_trading(1, 2500, OPEN - 30 * DAY) + week


WEEK = list(range(3000, 3007))


def make(broker: Broker, folder: Path, entries: list[dict[str, Any]], **settings: Any) -> jvq.TradeClient:
    """A client whose journal holds what is told, whatever a client would have written."""
    opened(broker, folder).close()
    with (folder / "journal").open("ab") as file:
        file.writelines(map(journal_lines.line, entries))
    return opened(broker, folder, **settings)


def opened(broker: Broker, folder: Path, **settings: Any) -> jvq.TradeClient:
    return paper(broker, folder, limits=WIDE, polling=SLOW, budget=None, **settings)


def archives(folder: Path) -> list[Path]:
    return sorted(folder.glob("journal.until-*"))


def test_a_large_journal_is_begun_anew_with_what_is_of_use(tmp_path: Path) -> None:
    old = [each for n in range(30, 8, -1) for each in day_of_trading(1000 * n, 60, OPEN - n * DAY)]
    old = [*day_of_trading(1, 60, OPEN - 40 * DAY), intent(61, OPEN - 40 * DAY, "sell"), *old]
    old += [intent(62, OPEN - 39 * DAY), outcome(62, "unknown", refused=True, at=str(OPEN - 39 * DAY))]
    old += [
        intent(63, OPEN - 39 * DAY, "cancel", "1000"),
        intent(1000, OPEN - 39 * DAY),
        outcome(1000, order_id="1000"),
    ]
    young = [*day_of_trading(90_000, 40, OPEN - 2 * DAY), *day_of_trading(91_000, 40, OPEN)]
    with Broker() as broker:
        with make(broker, tmp_path, [*old, *young]) as client:
            assert archives(tmp_path) == [tmp_path / f"journal.until-{OPEN.date()}"]
            assert (tmp_path / "journal").stat().st_size < archives(tmp_path)[0].stat().st_size / 2
            numbers = [each.number for each in client.intents]
            last = [number for n in range(13, 8, -1) for number in range(1000 * n, 1000 * n + 60)]
            assert sorted(numbers) == [61, 62, 63, 1000, *sorted(last), *range(90_000, 90_040), *range(91_000, 91_040)]
            assert len(client.spending()) == 7
            assert [each.number for each in client.unknown] == [61, 62, 63]
            assert client.stats()["spent_buy"] == 40 * Decimal("0.20")
            assert client.stats()["spent_check_order"] == 40 * Decimal("0.02")
            found = client.order("91039")
            assert found is not None
            assert (found.status, found.deal_volume) == (Status.FILLED, 100)
            assert client.buy("000001", "10", 100).intent == 91_040
            with pytest.raises(jvq.AccountInUseError):
                opened(broker, tmp_path)
        before = [each for each in journal_lines.read(tmp_path / "journal") if each["what"] != "call"]
        with opened(broker, tmp_path) as client:
            assert [each.number for each in client.intents] == [*numbers, 91_040]
        assert [each for each in journal_lines.read(tmp_path / "journal") if each["what"] != "call"] == before
    kept = [each for each in journal_lines.read(archives(tmp_path)[0]) if each["what"] == "intent"]
    assert len(kept) == 60 * 23 + 4 + 80
    for path in (tmp_path / "journal", *archives(tmp_path)):
        assert path.stat().st_mode & 0o777 == 0o600


def test_numbers_are_never_given_twice(tmp_path: Path) -> None:
    """Even where nothing but the number is left of an intent, and after several new journals."""
    low = [each for n in range(7) for each in day_of_trading(1 + n, 1, OPEN - (6 - n) * DAY)]
    with Broker() as broker:
        with make(broker, tmp_path, day_of_trading(10, 2500, OPEN - 30 * DAY) + low) as client:
            assert len(archives(tmp_path)) == 1
            assert [each.number for each in client.intents] == [1, 2, 3, 4, 5, 6, 7]
            spent = client.spending()[OPEN.date()]["check_order"]
        for turn in (1, 2):
            filler = [{"what": "call", "day": str(OPEN.date()), "call": "check_order"}] * 16_000
            with make(broker, tmp_path, filler) as client:
                assert len(archives(tmp_path)) == 1 + turn
                assert client.spending()[OPEN.date()]["check_order"] == spent + turn * 16_000 * Decimal("0.02")
        with opened(broker, tmp_path) as client:
            assert client.buy("600519", "10", 100).intent == 2510


def test_a_date_that_was_wrong_once_does_not_make_today_old(tmp_path: Path) -> None:
    wrong = [
        {"what": "call", "day": "2031-01-01", "call": "login"},
        intent(9000, OPEN + 2000 * DAY),
        outcome(9000, "rejected"),
    ]
    with Broker() as broker, make(broker, tmp_path, [*old_and_week(), *wrong]) as client:
        assert len(archives(tmp_path)) == 1
        assert [each.number for each in client.intents] == [*WEEK[1:], 9000]


def test_what_fails_behind_a_new_journal_is_taken_back_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Broker() as broker, make(broker, tmp_path, old_and_week()) as client:
        client.orders()
        path = tmp_path / "journal"
        whole, real = path.read_bytes(), os.write

        def full(descriptor: int, data: Any) -> int:
            real(descriptor, bytes(data)[:20])
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("jvq_fast.trade.journal.os.write", full)
            with pytest.raises(jvq.JournalError):
                client.buy("000001", "10", 100)
        assert path.read_bytes() == whole


def test_a_small_journal_or_one_of_this_week_goes_on(tmp_path: Path) -> None:
    with Broker() as broker:
        for folder, entries in (
            (tmp_path / "small", day_of_trading(1, 100, OPEN - 30 * DAY)),
            (tmp_path / "young", [each for n in (1, 2) for each in day_of_trading(n * 3000, 2500, OPEN - n * DAY)]),
        ):
            folder.mkdir()
            make(broker, folder, entries).close()
            assert archives(folder) == []


def test_another_process_keeps_its_lock_while_a_journal_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that had opened the old file before it was renamed does not take it for the journal."""
    entries = old_and_week()
    with Broker() as broker:
        opened(broker, tmp_path).close()
        with (tmp_path / "journal").open("ab") as file:
            file.writelines(map(journal_lines.line, entries))
        real, others = journals.try_lock, list[jvq.TradeClient]()

        def try_lock(descriptor: int) -> bool:
            if not others:
                monkeypatch.setattr(journals, "try_lock", real)
                others.append(opened(broker, tmp_path))
                assert len(archives(tmp_path)) == 1
                others[0].close()  # the old file is free now
            return real(descriptor)

        monkeypatch.setattr(journals, "try_lock", try_lock)
        with opened(broker, tmp_path) as client:
            assert [each.number for each in client.intents] == WEEK
            client.buy("000001", "10", 100)
            with pytest.raises(jvq.AccountInUseError):
                opened(broker, tmp_path)
        assert len(archives(tmp_path)) == 1
        last = [each["number"] for each in journal_lines.read(tmp_path / "journal") if each["what"] == "intent"][-1]
        assert last == 3007


@pytest.mark.parametrize("call", ["link", "fsync", "write"])
def test_where_none_can_be_begun_the_old_one_goes_on(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    entries = old_and_week()
    with Broker() as broker:
        opened(broker, tmp_path).close()
        with (tmp_path / "journal").open("ab") as file:
            file.writelines(map(journal_lines.line, entries))

        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
            patched.setattr(os, call, fail)
            client = opened(broker, tmp_path)
        assert "no new one can be begun: No space left on device" in caplog.text
        with client:
            assert len(client.intents) == 2507
            client.buy("000001", "10", 100)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["journal", "ticket"]


@pytest.mark.parametrize("step", ["_write_all", "sync_folder", "replace"])
def test_a_kill_while_one_is_begun_loses_nothing(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = old_and_week()

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        os._exit(9)

    with Broker() as broker:
        opened(broker, tmp_path).close()
        with (tmp_path / "journal").open("ab") as file:
            file.writelines(map(journal_lines.line, entries))
        child = os.fork()
        if not child:
            try:
                if step == "replace":
                    Path.replace = killed  # type: ignore[method-assign,assignment]
                else:
                    setattr(journals, step, killed)
                opened(broker, tmp_path)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        monkeypatch.setattr(private, "_IN_USE", -1.0)
        with opened(broker, tmp_path) as client:
            assert [each.number for each in client.intents] == WEEK
        assert sorted(path.name for path in tmp_path.iterdir()) == ["journal", f"journal.until-{OPEN.date()}"]
        assert sum(each["what"] == "intent" for each in journal_lines.read(archives(tmp_path)[0])) == 2507


def calls_of(act: Callable[[], object]) -> int:
    """Python functions that are called, which is what a machine under load does not change."""
    count = 0

    def see(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(see)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


def book_of(many: int) -> Book:
    """With so many orders that are done, refused and cancelled, all alike."""
    book = Book(3, dt.timedelta(seconds=5))
    noon = dt.datetime(2026, 11, 25, 10, 0, tzinfo=SHANGHAI)
    for number in range(1, many + 1):
        at = noon + dt.timedelta(seconds=10 * number)
        action = (Action.BUY, Action.SELL, Action.CANCEL)[number % 3]
        book.add(
            Intent(number, action, "600519", "", Decimal("10.00"), 100, at, order_id="3" if number % 3 == 2 else "")
        )
        if number % 4:
            book.settle(number, Outcome.ACCEPTED, str(number))
        else:
            book.settle(number, Outcome.REJECTED, "", "-1", "no")
        if action is not Action.CANCEL and number % 4:
            side = Side(action.value)
            done = Order(str(number), "600519", "", side, "", Status.FILLED, "", PRICE, 100, PRICE, 100, at)
            book.read([done], frozenset())
            book.working(at.date())
    return book


def work(book: Book) -> None:
    """An order, from before its entry to its list."""
    at = dt.datetime(2026, 11, 26, 10, 0, tzinfo=SHANGHAI)
    number = book.next_number
    assert book.frozen("600519", Side.SELL) is None
    book.open_orders(at.date())
    held = book.open_sales()
    book.sold_since("600519", number - 3, held)
    new = Intent(number, Action.SELL, "600519", "", PRICE, 100, at)
    assert not book.look_alikes(new)
    book.add(new)
    book.lose(number, "a timeout", at)
    assert [each.number for each in book.unknown()] == [number]
    listed = Order("77", "600519", "", Side.SELL, "", Status.WORKING, "", PRICE, 100, Decimal(0), 0, at)
    news = book.read([listed], book.asked())
    assert [each.order_id for each in news.settled] == ["77"]
    assert book.find("77") is not None
    assert len(book.working(at.date())) == 1


def test_thousands_of_old_orders_do_not_make_a_new_one_dearer() -> None:
    """Every order and every list would look through all of them otherwise, under the lock of the feed's callbacks."""
    work(book_of(40))
    few, many = book_of(40), book_of(4000)
    assert calls_of(lambda: work(many)) <= calls_of(lambda: work(few)) * 1.5


def test_opening_takes_time_in_proportion(tmp_path: Path) -> None:
    counts = []
    with Broker() as broker:
        for many in (200, 2000):
            folder = tmp_path / str(many)
            folder.mkdir()
            make(broker, folder, day_of_trading(1, many, OPEN)).close()
            counts.append(calls_of(lambda folder=folder: opened(broker, folder).close()))  # type: ignore[misc]
    assert counts[1] < counts[0] * 15
