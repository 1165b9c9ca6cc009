"""What is interrupted, closed or refused for good: no order stands between two stages, and none leaves too late."""

import datetime as dt
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import journal_lines
import jvq_fast as jvq
from jvq_fast.trade import placing, wire
from jvq_fast.trade.model import SHANGHAI, Action, Intent, Order, Side, Status
from jvq_fast.trade.orders import Book
from simulator import TOKEN, Simulator

ACCOUNT, PASSWORD, PRICE = "123456789012", "password", "12.50"
WAIT = 20.0


class Prices:
    def last(self, code: str) -> Any:
        return jvq.trade.gate.Decimal(PRICE)

    def age(self, code: str) -> float:
        return 0.0

    def name(self, code: str) -> str:
        return "x"

    def limits(self, code: str) -> Any:
        return jvq.trade.gate.Decimal("11.25"), jvq.trade.gate.Decimal("13.75")


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator("--seed", "3") as running:
        yield running


def make(sim: Simulator, folder: Path, **settings: Any) -> jvq.TradeClient:
    limits = jvq.Limits(sessions=None, max_repeats=None)
    return jvq.TradeClient(
        TOKEN, ACCOUNT, PASSWORD,
        **{
            "mode": "paper", "market": Prices(), "server": sim.trade, "limits": limits, "journal": folder / "journal",
            "ticket_file": folder / "ticket", "polling": jvq.Polling(fast=0.05, slow=0.1), **settings,
        },
    )  # fmt: skip


@pytest.mark.parametrize("where", ["wire.get", "placing._order_id", "placing.message_of"])
def test_ctrl_c_at_any_place_leaves_an_order_unknown_and_frozen(
    sim: Simulator, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make(sim, tmp_path, lists_to_reject=1000) as client:
        client.orders()
        real = wire.get

        def interrupt(*arguments: Any, **options: Any) -> Any:
            if where == "wire.get" and arguments[1] in ("/buy",):
                real(*arguments, **options)
            elif where == "wire.get":
                return real(*arguments, **options)
            raise KeyboardInterrupt

        if where == "wire.get":
            monkeypatch.setattr(wire, "get", interrupt)
        else:
            monkeypatch.setattr(placing, where.rpartition(".")[2], interrupt)
        monkeypatch.setattr(client._tracker, "wake", lambda: None)
        with pytest.raises(KeyboardInterrupt):
            client.buy("000001", PRICE, 100)
        monkeypatch.undo()
        (unknown,) = client.unknown
        with pytest.raises(jvq.RiskError, match="may be at the broker"):
            client.buy("000001", PRICE, 100)
        found = client.wait(unknown, WAIT)
        assert found.intent == unknown.number


def test_nothing_leaves_after_close(sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(sim.broker()["requests"])
    client = make(sim, tmp_path)
    client.login()
    client.orders()
    reached, go = threading.Event(), threading.Event()
    real = wire._Attempt.connected

    def slow(attempt: Any, connected: Any) -> None:
        if threading.current_thread().name.endswith("/buy"):
            reached.set()
            go.wait(WAIT)
        real(attempt, connected)

    monkeypatch.setattr(wire._Attempt, "connected", slow)
    future = client.submit_buy("000001", PRICE, 100)
    assert reached.wait(WAIT)
    client.close(timeout=0.2)
    go.set()
    with pytest.raises(jvq.TradeError):
        future.result(WAIT)
    assert len(sim.broker()["requests"]) == before
    monkeypatch.undo()
    with make(sim, tmp_path) as other:
        assert not [order for order in other.orders() if order.intent is not None]


def test_an_order_in_flight_is_written_down_before_the_journal_is_given_up(sim: Simulator, tmp_path: Path) -> None:
    number = sim.fault("trade_delay", call="buy", seconds=0)
    with make(sim, tmp_path) as client:
        client.orders()
        future = client.submit_buy("000001", PRICE, 100)
        time.sleep(0.05)
    sim.clear(number)
    if future.exception(WAIT) is None:
        outcomes = [each for each in journal_lines.read(tmp_path / "journal") if each["what"] == "outcome"]
        assert [each["outcome"] for each in outcomes] == ["accepted"]


def test_a_signal_throws_the_kill_switch_while_its_own_thread_redacts(sim: Simulator, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    try:
        with make(sim, tmp_path) as client:
            client.kill_on(signal.SIGUSR1)
            main = threading.main_thread().ident
            assert main is not None
            ended = threading.Event()

            def bother() -> None:
                while not ended.wait(0.001):
                    signal.pthread_kill(main, signal.SIGUSR1)

            thread = threading.Thread(target=bother, daemon=True)
            thread.start()
            try:
                for _ in range(3):
                    client.orders()
            finally:
                ended.set()
                thread.join(WAIT)
            assert "SIGUSR1" in client.killed
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_login_that_was_refused_is_tried_again_by_hand_only(sim: Simulator, tmp_path: Path) -> None:
    number = sim.fault("trade_reject", call="login", count=0)
    begun = sim.broker()["received"].get("login", 0)
    with make(sim, tmp_path) as client:
        for _ in range(5):
            with pytest.raises(jvq.LoginError):
                client.buy("000001", PRICE, 100)
        assert sim.broker()["received"]["login"] == begun + 1
        with pytest.raises(jvq.LoginError):
            client.login()
        assert sim.broker()["received"]["login"] == begun + 2
        sim.clear(number)
        client.login()
        assert client.orders() is not None


def test_polling_that_its_budget_ended_goes_on_the_next_day(sim: Simulator, tmp_path: Path) -> None:
    now = [dt.datetime(2026, 11, 30, 10, 0, tzinfo=SHANGHAI)]
    with make(sim, tmp_path, clock=lambda: now[0], polling_budget="1.00") as client:
        client.buy("000001", "12.30", 100)
        deadline = time.monotonic() + WAIT
        while client._tracker._halted is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        lists = client.stats()["lists"]
        now[0] += dt.timedelta(days=1)
        order = client.buy("000001", "12.40", 100)
        while client.stats()["lists"] == lists:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert order.order_id


def test_numbers_that_a_broker_counts_anew_each_day_mix_up_no_orders() -> None:
    book = Book(3, dt.timedelta(seconds=5))
    monday = dt.datetime(2026, 11, 30, 10, 0, tzinfo=SHANGHAI)
    price = jvq.trade.gate.Decimal("10.00")
    for number, at in ((1, monday), (2, monday + dt.timedelta(days=1))):
        book.add(Intent(number, Action.BUY, "600000", "", price, 100, at))
        book.settle(number, jvq.Outcome.ACCEPTED, "1")
    tuesday = monday + dt.timedelta(days=1, seconds=1)
    listed = Order("1", "600000", "", Side.BUY, "证券买入", Status.FILLED, "已成", price, 100, price, 100, tuesday)
    news = book.read([listed], frozenset())
    assert [fill.order.intent for fill in news.fills] == [2]
    assert book.unknown() == ()
