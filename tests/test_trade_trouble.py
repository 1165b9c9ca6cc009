"""What a process can meet in mid-order: no more threads, signals, other days, files that fail, its own end."""

import dataclasses
import datetime as dt
import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from decimal import Decimal
from pathlib import Path

import pytest

import journal_lines
import jvq_fast as jvq
from jvq_fast import threads
from jvq_fast.allocation import ServerAddress, parse_server, service_url
from jvq_fast.trade.gate import Gate, Request, Situation
from jvq_fast.trade.kill import KillSwitch
from jvq_fast.trade.ticket import Ticket
from jvq_fast.trade.tracker import Tracker
from jvq_fast.trade.turns import Turns
from trade_script import ACCOUNT, OPEN, WAIT, WIDE, Broker, Clock, Market, few_rounds, hang, paper, reset, say, wait
from ws_script import TOKEN, Peer

__all__ = ["few_rounds"]
SLOW = jvq.Polling(fast=60, slow=60)


# --- no more threads ---


def deny(monkeypatch: pytest.MonkeyPatch, name: str, times: int) -> None:
    """The system has no thread for whoever has such a name, so many times."""
    real, left = threading.Thread.start, [times]

    def start(thread: threading.Thread) -> None:
        if name in thread.name and left[0]:
            left[0] -= 1
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)


@pytest.mark.parametrize("name", ["trade order", "trade intake", "trade"])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_what_is_submitted_ends_also_where_there_is_no_thread_for_it(
    name: str, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        order = client.buy("600519", "10", 100)
        client.account()
        deny(monkeypatch, name, times)
        told: list[object] = []
        for n, submit in enumerate((client.submit_buy, client.submit_sell, client.submit_buy, client.submit_buy)):
            try:
                told.append(submit("600519", f"10.0{n}", 100).exception(WAIT))
            except jvq.TradeError as error:
                told.append(error)
        assert told[-1] is None
        assert all(error is None or isinstance(error, jvq.TradeError) for error in told)
        assert len(broker.calls("buy", "sale")) == 1 + told.count(None)
        assert [each.outcome.value for each in client.intents].count("accepted") == 1 + told.count(None)
        assert {each.outcome for each in client.intents} <= {jvq.Outcome.ACCEPTED, jvq.Outcome.NOT_SENT}
        client.submit_cancel(order).result(WAIT)


def test_an_accepted_order_is_one_without_a_thread_for_handlers_or_polls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Broker() as broker:
        with paper(broker, tmp_path, limits=WIDE) as client:
            told: list[jvq.Intent] = []
            client.on_intent(told.append)
            deny(monkeypatch, "trade events", 1)
            assert client.buy("600519", "10", 100).order_id
            monkeypatch.undo()
            monkeypatch.setattr("jvq_fast.trade.private._ROUNDS", 1)
            deny(monkeypatch, "trade polls", 1)
            assert client.buy("000001", "10", 100).order_id
            wait(lambda: [each.number for each in told] == [1, 2])
            polls = len(broker.calls("check_order"))
            client.buy("000002", "10", 100)
            wait(lambda: len(broker.calls("check_order")) > polls)
        paper(broker, tmp_path).close()


def test_news_of_a_list_are_told_once_there_is_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        broker.answers["buy"] = reset
        for code in ("600519", "000001"):
            with pytest.raises(jvq.OrderUnknown):
                client.buy(code, "10", 100)
        for query in broker.calls("buy"):
            broker.add("buy", query)
        told: list[jvq.Intent] = []
        orders: list[jvq.Order] = []
        client.on_intent(told.append)
        client.on_order(orders.append)
        deny(monkeypatch, "trade events", 1)
        client.orders()
        client.orders()
        wait(lambda: len(told) == len(orders) == 2)
        outcomes = [each for each in journal_lines.read(tmp_path / "journal") if each["what"] == "outcome"]
        assert [each["outcome"] for each in outcomes] == ["unknown", "unknown", "accepted", "accepted"]


def test_orders_that_wait_for_a_login_are_so_many_and_no_more(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW, login_timeout=1.0) as client:
        broker.answers["login"] = hang
        before = threading.active_count()
        futures = [client.submit_buy("600519", "10", 100) for _ in range(300)]
        wait(lambda: sum(future.done() for future in futures) >= 268)
        assert threading.active_count() - before < 50
        errors = [future.exception(WAIT) for future in futures]
        assert sum(isinstance(error, jvq.LoginError) for error in errors) == 32
        assert sum("wait already" in str(error) for error in errors) == 268
        assert len(broker.calls("login")) == 1
        del broker.answers["login"]
        client.submit_buy("600519", "10", 100).result(WAIT)


# --- signals, and the end ---


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
def test_what_a_signal_handler_raises_makes_no_order_safe_to_send_again(tmp_path: Path) -> None:
    class DeadlineError(RuntimeError):
        pass

    def handler(number: int, frame: object) -> None:
        raise DeadlineError

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
            client.orders()
            release = threading.Event()

            def read(call: str, query: dict[str, str]) -> None:
                if call == "buy":
                    assert release.wait(WAIT)

            broker.before = read
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(DeadlineError):
                client.buy("600519", "10", 100)
            release.set()
            assert [each.outcome for each in client.intents] == [jvq.Outcome.UNKNOWN]
            with pytest.raises(jvq.RiskError, match="may be at the broker"):
                client.buy("600519", "10", 100)
            wait(lambda: len(broker.rows) == 1)
            client.orders()
            assert client.intents[0].outcome is jvq.Outcome.ACCEPTED
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_kill_signal_that_is_sent_again_and_again_does_not_hide_an_order(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    ended = threading.Event()
    try:
        with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
            client.orders()
            client.kill_on(signal.SIGUSR1)
            main = threading.main_thread().ident
            assert main is not None

            def read(call: str, query: dict[str, str]) -> None:
                if call == "buy":
                    time.sleep(0.3)

            def bother() -> None:
                wait(lambda: bool(broker.calls("buy")))
                while not ended.wait(0.0005):
                    signal.pthread_kill(main, signal.SIGUSR1)

            broker.before = read
            thread = threading.Thread(target=bother, daemon=True)
            thread.start()
            try:
                order = client.buy("600519", "10", 100)
            finally:
                ended.set()
                thread.join(WAIT)
            assert (order.order_id, len(broker.rows)) == ("1334564", 1)
            assert "SIGUSR1" in client.killed
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_what_is_submitted_while_the_client_closes_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Broker() as broker:
        client = paper(broker, tmp_path, limits=WIDE, polling=SLOW)
        client.orders()
        client.submit_buy("000001", "10", 100).result(WAIT)
        reached, go = threading.Event(), threading.Event()
        real, ends = client._check_open, list[object]()

        def check() -> None:
            real()
            if threading.current_thread().name == "strategy":
                reached.set()
                assert go.wait(WAIT)

        def submit() -> None:
            try:
                ends.append(client.submit_buy("600519", "10", 100).exception(WAIT))
            except jvq.TradeError as error:
                ends.append(error)

        monkeypatch.setattr(client, "_check_open", check)
        thread = threading.Thread(target=submit, name="strategy", daemon=True)
        thread.start()
        assert reached.wait(WAIT)
        client.close(1)
        go.set()
        thread.join(WAIT)
        assert len(ends) == 1
        assert isinstance(ends[0], jvq.TradeError)


# --- another day ---


@pytest.fixture
def clock() -> Clock:
    return Clock(OPEN)


@pytest.fixture
def days(clock: Clock, tmp_path: Path) -> Iterator[tuple[Broker, jvq.TradeClient]]:
    with Broker(clock) as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        yield broker, client


def tomorrow(broker: Broker, clock: Clock) -> None:
    """Brokers count anew each day."""
    clock.now += dt.timedelta(days=1)
    broker.rows.clear()


def test_todays_list_is_todays(days: tuple[Broker, jvq.TradeClient], clock: Clock) -> None:
    broker, client = days
    mine = client.buy("600519", "10", 100)
    client.orders()
    tomorrow(broker, clock)
    number = broker.add("buy", {"code": "000001", "name": "x", "price": "10.50", "volume": "300"})  # by hand
    assert number == mine.order_id
    (listed,) = client.orders()
    assert (listed.code, listed.volume, listed.intent) == ("000001", 300, None)
    found = client.order(number)
    assert found is not None
    assert found.code == "000001"
    yesterday = client.order(mine)
    assert yesterday is not None
    assert yesterday.code == "600519"
    assert client.cancel(number).security == "000001"


def test_an_order_of_yesterday_is_not_cancelled_today(days: tuple[Broker, jvq.TradeClient], clock: Clock) -> None:
    broker, client = days
    mine = client.buy("600519", "10", 100)
    client.orders()
    tomorrow(broker, clock)
    today = client.buy("000001", "10.05", 300)
    client.orders()
    assert today.order_id == mine.order_id
    for yesterday in (mine, client.order(mine), client.intents[0]):
        with pytest.raises(ValueError, match="a day that is over"):
            client.cancel(yesterday)  # type: ignore[arg-type]
    assert broker.calls("cancel") == []
    assert broker.rows[0]["status"] == "已报"


def test_a_lost_cancel_is_judged_by_the_order_of_its_day(days: tuple[Broker, jvq.TradeClient], clock: Clock) -> None:
    broker, client = days
    mine = client.buy("600519", "10", 100)
    client.orders()
    broker.answers["cancel"] = reset
    with pytest.raises(jvq.OrderUnknown):
        client.cancel(mine)
    tomorrow(broker, clock)
    broker.add("buy", {"code": "000001", "name": "x", "price": "10.50", "volume": "300"})
    broker.rows[0] |= {"status": "已撤"}
    for _ in range(4):
        client.orders()
    assert [each.outcome for each in client.unknown] == [jvq.Outcome.UNKNOWN]


def test_yesterdays_open_orders_are_neither_polled_for_nor_counted(
    days: tuple[Broker, jvq.TradeClient], clock: Clock
) -> None:
    broker, client = days
    client.buy("600519", "10", 100)
    client.orders()
    assert client._has_working()
    tomorrow(broker, clock)
    assert not client._has_working()
    assert client._book.open_orders(clock.now.date()) == 0


# --- clocks, numbers, journals ---


def test_a_clock_that_is_fast_refuses_neither_a_reply_nor_a_human(tmp_path: Path) -> None:
    clock = Clock(OPEN)
    with (
        Broker(Clock(OPEN - dt.timedelta(seconds=90))) as broker,
        paper(broker, tmp_path, limits=WIDE, clock=clock, polling=SLOW) as client,
    ):
        client.orders()

        def listed_before_the_reply(peer: Peer) -> None:
            number = broker.add("buy", broker.calls("buy")[-1])
            client.orders()
            say(code="0", message="", order_id=number)(peer)

        broker.answers["buy"] = listed_before_the_reply
        assert client.buy("600519", "10", 100).order_id == "1334564"
        broker.answers["buy"] = reset
        with pytest.raises(jvq.OrderUnknown) as caught:
            client.buy("000001", "10", 100)
        number = broker.add("buy", broker.calls("buy")[-1])
        client.orders()
        assert len(client.unknown) == 1
        assert client.resolve(caught.value.intent, "accepted", f" {number}\n").order_id == number
        assert client.order(caught.value.intent) is not None


def test_to_wait_for_a_cancel_of_somebody_elses_order_asks_for_lists(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE) as client:
        number = broker.add("buy", {"code": "000001", "name": "x", "price": "10.50", "volume": "300"})
        client.orders()
        assert client.wait(client.cancel(number), WAIT).status is jvq.Status.CANCELLED


def test_an_order_of_another_journal_is_taken_for_no_other(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        order = client.buy("000001", "10", 100)
        client.orders()
        mine = client.order(order)
        assert mine is not None
        strange = dataclasses.replace(mine, intent=77)
        assert client.order(strange) == mine
        stranger = dataclasses.replace(mine, order_id="42", code="600519")
        assert client.order(stranger) == stranger
        with pytest.raises(jvq.WaitTimeoutError):
            client.wait(stranger, 0.05)
        intent = dataclasses.replace(client.intents[0], at=OPEN + dt.timedelta(seconds=1))
        assert client.order(intent) is None
        for act in (lambda: client.wait(intent, 0.05), lambda: client.cancel(intent)):
            with pytest.raises(ValueError, match="no"):
                act()
        assert broker.calls("cancel") == []


def test_an_order_number_that_is_the_account_is_none(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        broker.answers["buy"] = say(code="0", message="", order_id=ACCOUNT)
        with pytest.raises(jvq.OrderUnknown) as caught:
            client.buy("600519", "10", 100)
        assert ACCOUNT not in repr(caught.value) + (tmp_path / "journal").read_text()


def test_a_lock_that_the_system_does_not_give_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with Broker() as broker, pytest.raises(jvq.JournalError, match="can't be locked: No locks available"):
        paper(broker, tmp_path)


def test_a_list_in_which_something_can_not_be_read_shows_no_order_to_be_missing(tmp_path: Path) -> None:
    with (
        Broker() as broker,
        paper(broker, tmp_path, limits=WIDE, polling=jvq.Polling(fast=0.01, slow=60, retry=60)) as client,
    ):
        told: list[str] = []
        client.on_error(lambda error, where: told.append(str(error)))
        client.orders()
        broker.rows.append({"order_id": "1", "day": "never"})
        broker.answers["buy"] = say(code="-3", message="no money")
        with pytest.raises(jvq.OrderUnknown):
            client.buy("600519", "10", 100)
        for _ in range(4):
            client.orders()
        assert [each.outcome for each in client.unknown] == [jvq.Outcome.UNKNOWN]
        assert not any("in none of the broker's lists" in each for each in told)
        broker.rows.clear()
        for _ in range(3):
            client.orders()
        assert client.intents[0].outcome is jvq.Outcome.REJECTED


# --- what may be sold ---


def test_two_sales_at_once_sell_no_more_than_there_is(tmp_path: Path) -> None:
    lock = threading.Lock()

    def take(call: str, query: dict[str, str]) -> None:
        if call == "sale":
            with lock:
                broker.held[0]["usable_vol"] = str(int(broker.held[0]["usable_vol"]) - int(query["volume"]))

    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        broker.before = take
        client.account()  # 1,000 may be sold
        futures = [client.submit_sell("600519", f"10.0{n}", 300) for n in range(9)]
        errors = [future.exception(WAIT) for future in futures]
        assert errors.count(None) == 3
        assert {each.limit for each in errors if isinstance(each, jvq.RiskError)} == {"usable"}
        begin = threading.Barrier(9)
        ends: list[object] = []

        def sell(number: int) -> None:
            begin.wait(WAIT)
            try:
                ends.append(client.sell("000002", f"10.0{number}", 300))
            except jvq.RiskError as error:
                ends.append(error)

        broker.held = [{**broker.held[0], "code": "000002", "usable_vol": "1000"}]
        client.account()
        threads = [threading.Thread(target=sell, args=(n,), daemon=True) for n in range(9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        assert sum(isinstance(each, jvq.Order) for each in ends) == 3


def test_a_fill_in_mid_sale_does_not_make_it_one_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        client.buy("000001", "10", 100)
        client.account()
        broker.rows[0] |= {"status": "已成", "deal_volume": "100", "deal_price": "10"}
        real = client._queries.held

        def held(request: object) -> object:
            found = real(request)  # type: ignore[arg-type]
            client.orders()  # brings the fill
            return found

        monkeypatch.setattr(client._queries, "held", held)
        assert client.sell("600519", "10", 100).side is jvq.Side.SELL


# --- the ticket ---


def test_a_ticket_that_can_not_be_removed_makes_no_order_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Broker() as broker:
        client = paper(broker, tmp_path, limits=WIDE, polling=SLOW)
        client.orders()
        object.__setattr__(client._session._access, "server", None)  # as one that was allocated
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name == "ticket":
            raise OSError(30, "Read-only file system")
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    with client, pytest.raises(jvq.OrderNotSent):
        client.buy("600519", "10", 100)
    assert [each.outcome for each in client.intents] == [jvq.Outcome.NOT_SENT]


def test_a_call_ends_in_its_time_while_another_thread_logs_in(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW, login_timeout=WAIT) as client:
        order = client.buy("600519", "10", 100)
        entered = client._placing.enter_cancel(order)
        assert entered.ticket is not None
        object.__setattr__(client._session._access, "server", None)
        client._session._allocate = lambda: ServerAddress("http", "127.0.0.1", broker.port)  # type: ignore[method-assign]
        client._session.drop(entered.ticket)
        release = threading.Event()

        def before(call: str, query: dict[str, str]) -> None:
            assert call != "login" or release.wait(WAIT)

        broker.before = before
        logged_in: Future[object] = Future()
        threading.Thread(target=lambda: logged_in.set_result(client.login()), daemon=True).start()
        wait(lambda: len(broker.calls("login")) == 2)
        gone = dataclasses.replace(entered.ticket, server=ServerAddress("http", "127.0.0.1", 1))
        with pytest.raises(jvq.OrderNotSent):
            client._placing.send_cancel(dataclasses.replace(entered, ticket=gone))
        assert not logged_in.done()
        release.set()
        logged_in.result(WAIT)
        new = client._session.ticket()
        client._session.drop(gone)  # a late reply to a call with the old one
        assert client._session.ticket() is new


def test_whoever_waited_for_a_turn_that_went_well_has_no_old_failure() -> None:
    turns = Turns(jvq.LoginError)
    with pytest.raises(jvq.LoginError), turns.take():
        raise jvq.LoginError("no")
    begun, release, ends = threading.Event(), threading.Event(), list[str]()

    def well() -> None:
        with turns.take():
            begun.set()
            assert release.wait(WAIT)

    def behind() -> None:
        with turns.take():
            ends.append("in turn")

    first, second = threading.Thread(target=well, daemon=True), threading.Thread(target=behind, daemon=True)
    first.start()
    assert begun.wait(WAIT)
    second.start()
    time.sleep(0.05)
    release.set()
    first.join(WAIT)
    second.join(WAIT)
    assert ends == ["in turn"]


# --- the kill switch and other processes ---


def test_re_arming_ends_every_throw_before_it_whoever_saw_which(tmp_path: Path) -> None:
    trading, by_hand = KillSwitch(tmp_path / "journal"), KillSwitch(tmp_path / "journal")
    trading.throw("a signal")
    by_hand.rearm()
    KillSwitch(tmp_path / "journal").throw("from the command line")
    by_hand.rearm()
    assert by_hand.why() == ""
    assert trading.why() == ""


def test_a_look_in_the_middle_of_re_arming_does_not_throw_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trading, by_hand = KillSwitch(tmp_path / "journal"), KillSwitch(tmp_path / "journal")
    (tmp_path / "journal.kill").touch()
    real, seen = Path.unlink, list[str]()

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name == "journal.kill":
            seen.append(trading.why())
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    by_hand.rearm()
    assert len(seen) == 1
    assert seen[0]
    assert trading.why() == by_hand.why() == ""


def test_a_latch_that_can_not_be_read_holds(tmp_path: Path) -> None:
    KillSwitch(tmp_path / "journal").throw("x")
    (tmp_path / "journal.kill").unlink()
    (tmp_path / "journal.latch").unlink()
    (tmp_path / "journal.latch").mkdir()
    assert "can't be read" in KillSwitch(tmp_path / "journal").why()


def test_what_could_not_be_written_is_re_armed_by_its_own_process_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trading, by_hand = KillSwitch(tmp_path / "journal"), KillSwitch(tmp_path / "journal")
    by_hand.throw("before")
    by_hand.rearm()

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("jvq_fast.trade.kill.replace_private", full)
        trading.throw("the disk is full")
    assert trading.why() == "the disk is full"
    trading.rearm()
    assert trading.why() == ""


def test_a_reason_in_bytes_that_are_no_text_stops_all_the_same(tmp_path: Path) -> None:
    switch = KillSwitch(tmp_path / "journal")
    switch.throw(os.fsdecode(b"disk \xff full"))
    assert (tmp_path / "journal.kill").exists()
    assert "full" in KillSwitch(tmp_path / "journal").why()


def test_only_its_owner_reads_why(tmp_path: Path) -> None:
    KillSwitch(tmp_path / "journal").throw("a reason")
    for name in ("journal.kill", "journal.latch"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0, name


def test_a_secret_in_the_first_line_of_a_kill_file_goes_no_further(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        (tmp_path / "journal.kill").write_text(f"{TOKEN}\n")
        assert client.killed
        assert TOKEN not in (tmp_path / "journal.latch").read_text()


# --- polls ---


class Asked:
    """A tracker by hand: what it wants at a time."""

    def __init__(self) -> None:
        self.now, self.working, self.failure = OPEN, True, Exception()
        self.polls = 0
        polling = jvq.Polling(fast=0.01, slow=0.01, retry=0.01)
        self.tracker = Tracker(
            polling, self._poll, lambda: False, lambda: self.working, lambda: self.now, lambda error: None
        )

    def _poll(self) -> bool:
        self.polls += 1
        if self.polls == 1:
            raise self.failure
        return False


def test_a_login_that_was_refused_ends_the_polls_until_it_is_made_good() -> None:
    asked = Asked()
    asked.failure = jvq.LoginError("no", "-1", "no")
    asked.tracker.wake()
    wait(lambda: asked.polls == 1)
    time.sleep(0.2)
    assert asked.polls == 1
    asked.tracker.resume()
    wait(lambda: asked.polls > 3)
    asked.tracker.close(WAIT)


def test_after_the_end_of_a_session_ten_more_lists_are_asked_for_and_no_more() -> None:
    asked = Asked()
    asked.tracker.wake()
    wait(lambda: asked.polls > 3)
    asked.now += dt.timedelta(hours=6)
    time.sleep(0.3)
    begun = asked.polls
    time.sleep(0.3)
    assert asked.polls == begun
    asked.now += dt.timedelta(hours=18)
    wait(lambda: asked.polls > begun)
    asked.tracker.close(WAIT)


# --- in the midst of things ---


def test_a_ticket_that_is_dropped_while_it_is_looked_at_is_still_no_dry_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        standing = client.buy("600519", "10", 100)
        real = Ticket.is_good

        def is_good(ticket: Ticket, now: float) -> bool:
            good = real(ticket, now)
            client._session.drop(ticket)  # as another thread would
            return good

        monkeypatch.setattr(Ticket, "is_good", is_good)
        assert client.buy("000001", "10", 100).status is jvq.Status.ACCEPTED
        assert client.cancel(standing).outcome is jvq.Outcome.ACCEPTED
        with pytest.raises(jvq.RiskError) as caught:
            client.sell("600519", "10", 5000)
        assert caught.value.limit == "usable"
        assert (len(broker.calls("buy")), len(broker.calls("cancel"))) == (2, 1)


@pytest.mark.parametrize("act", ["buy", "cancel"])
def test_ctrl_c_between_the_journal_and_the_wire_means_not_sent(
    act: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with Broker() as broker, paper(broker, tmp_path, limits=WIDE.replace(max_open_orders=2), polling=SLOW) as client:
        order = client.buy("600519", "10", 100)
        with monkeypatch.context() as patched:
            patched.setattr(client._placing, "send" if act == "buy" else "send_cancel", interrupted)
            with pytest.raises(KeyboardInterrupt):
                client.buy("000001", "10", 100) if act == "buy" else client.cancel(order)
        assert client.intents[-1].outcome is jvq.Outcome.NOT_SENT
        assert client._placing._numbers == set()
        client.buy("000001", "10", 100)
        begun = time.monotonic()
        client.close()
        assert time.monotonic() - begun < WAIT / 4
    assert len(broker.calls("buy")) == 2


def test_what_the_gate_refuses_abandons_nobody_elses_number(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE.replace(max_order_volume=100), polling=SLOW) as client:
        client.orders()
        release = threading.Event()

        def before(call: str, query: dict[str, str]) -> None:
            assert call != "buy" or release.wait(WAIT)

        broker.before = before
        future = client.submit_buy("600519", "10", 100)
        wait(lambda: len(broker.calls("buy")) == 1)
        for _ in range(3):
            with pytest.raises(jvq.RiskError):
                client.buy("000001", "10", 200)
        release.set()
        assert future.result(WAIT).intent == 1
        assert [each.outcome for each in client.intents] == [jvq.Outcome.ACCEPTED]


def test_a_close_that_is_interrupted_gives_the_journal_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with Broker() as broker:
        client = paper(broker, tmp_path, limits=WIDE, polling=SLOW)
        client.orders()
        monkeypatch.setattr(client._intake, "close", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.close()
        paper(broker, tmp_path).close()


def test_a_refused_login_stays_one_whatever_comes_after_it(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        broker.answers["login"] = say(code="-1", message="wrong password")
        with pytest.raises(jvq.LoginError, match="wrong password"):
            client.orders()
        broker.answers["login"] = reset
        with pytest.raises(jvq.LoginError, match="reset"):
            client.login()
        with pytest.raises(jvq.LoginError, match="wrong password"):
            client.orders()
        assert len(broker.calls("login")) == 2
        del broker.answers["login"]
        client.login()
        client.orders()


def test_a_thread_that_has_begun_is_kept_whatever_a_signal_handler_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[threading.Thread | None] = []
    done = threading.Event()
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        real(thread)
        raise RuntimeError("of a handler")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="of a handler"):
        threads.start(done.set, "any", kept.append)
    assert done.wait(WAIT)
    assert len(kept) == 1
    assert kept[0] is not None


# --- whose order it is ---


def test_an_order_that_is_another_one_now_is_given_up(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        fills: list[jvq.Fill] = []
        client.on_fill(fills.append)
        order = client.buy("600519", "10", 100)
        client.orders()
        broker.rows[0] |= {"code": "000001", "order_volume": "300"}
        client.orders()
        assert [each.number for each in client.unknown] == [1]
        broker.rows[0] |= {"status": "已成", "deal_volume": "300", "deal_price": "10"}
        (listed,) = client.orders()
        assert (listed.code, listed.intent) == ("000001", None)
        with pytest.raises(ValueError, match="is not known to be order"):
            client.cancel(order)
        time.sleep(0.1)
        assert fills == []
        assert broker.calls("cancel") == []


def test_a_warning_comes_also_after_an_earlier_one(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
        errors: list[str] = []
        client.on_error(lambda error, where: errors.append(str(error)))
        broker.answers["buy"] = reset
        with pytest.raises(jvq.OrderUnknown) as caught:
            client.buy("600519", "10", 100)
        for _ in range(4):
            client.orders()
        wait(lambda: len(errors) == 1)
        client.resolve(caught.value.intent, "accepted", "999999")
        for _ in range(11):
            client.orders()
        wait(lambda: len(errors) == 2)
        assert "should be order 999999" in errors[1]


def test_orders_of_yesterday_that_nobody_listed_raise_no_alarm(
    days: tuple[Broker, jvq.TradeClient], clock: Clock
) -> None:
    broker, client = days
    errors: list[str] = []
    client.on_error(lambda error, where: errors.append(str(error)))
    client.buy("600519", "10", 100)
    tomorrow(broker, clock)
    for _ in range(12):
        client.orders()
    time.sleep(0.1)
    assert errors == []


def test_an_order_of_another_client_is_asked_for_first(tmp_path: Path) -> None:
    with Broker() as broker:
        with paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
            order = client.buy("600519", "10", 100)
        (tmp_path / "journal").unlink()
        with paper(broker, tmp_path, limits=WIDE, polling=SLOW) as client:
            for stranger in (order, dataclasses.replace(order, intent=None)):
                with pytest.raises(ValueError, match=r"orders\(\) asks the broker"):
                    client.cancel(stranger)
            client.orders()
            client.cancel(order.order_id)


def test_a_day_that_was_wrong_once_is_no_day_of_the_others() -> None:
    gate = Gate(WIDE.replace(max_per_day=2, max_daily_value=Decimal(2500)), Market())
    order = Request(jvq.Side.BUY, "600519", Decimal(10), 100)
    for far in (OPEN + dt.timedelta(days=1500), OPEN, OPEN):
        gate.count(order, far, 0.0)
    with pytest.raises(jvq.RiskError) as caught:
        gate.check_rate(OPEN, 100.0)
    assert caught.value.limit == "max_per_day"
    gate.check_rate(OPEN + dt.timedelta(days=1), 100.0)
    gate.check(order, Situation(OPEN + dt.timedelta(days=1), 0, None), 100.0)


# --- the switch, once more ---


def test_the_same_words_again_are_another_throw(tmp_path: Path) -> None:
    switch, path = KillSwitch(tmp_path / "journal"), tmp_path / "journal.kill"
    for _ in range(3):
        path.write_text("stop\n")
        assert switch.why()
        path.unlink()
        assert switch.why()
        assert KillSwitch(tmp_path / "journal").why()
        KillSwitch(tmp_path / "journal").rearm()
        assert switch.why() == ""
        time.sleep(0.02)


def test_a_signal_in_the_midst_of_a_look_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switch = KillSwitch(tmp_path / "journal")
    switch.throw("before")
    KillSwitch(tmp_path / "journal").rearm()
    real, come = switch._latched, [True]

    def latched() -> object:
        seen = real()
        if come:
            come.clear()
            switch.throw("a signal")
        return seen

    monkeypatch.setattr(switch, "_latched", latched)
    assert switch.why() == "a signal"


def test_a_re_arming_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switch = KillSwitch(tmp_path / "journal")
    switch.throw("stop")
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        raise OSError(1, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", unlink)
        with pytest.raises(OSError, match="not permitted"):
            switch.rearm()
    real(tmp_path / "journal.kill")
    assert switch.why()
    assert KillSwitch(tmp_path / "journal").why()


def test_what_could_not_be_written_is_written_once_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trading, by_hand = KillSwitch(tmp_path / "journal"), KillSwitch(tmp_path / "journal")

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("jvq_fast.trade.kill.replace_private", full)
        trading.throw("the disk is full")
        assert trading.why() == "the disk is full"
    assert trading.why() == "the disk is full"
    assert by_hand.why() == "the disk is full"
    by_hand.rearm()
    assert trading.why() == ""


@pytest.mark.parametrize(
    "text",
    ["http://me:hunter2@1.2.3.4:80", "http://me:hunter2/x@1.2.3.4:80", "me:hunter2?x@host", "http://a@b:hunter2@c"],
)
def test_no_part_of_a_password_in_an_address_is_shown(text: str) -> None:
    for read in (service_url, parse_server):
        with pytest.raises(ValueError, match=r"\*\*\*@") as caught:
            read(text)
        assert "hunter2" not in str(caught.value)
