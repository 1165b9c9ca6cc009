"""The broker hangs on an order from a feed's callback: the feed goes on as if there were no order.

Nothing here looks at a clock of the machine. What is compared was measured in the same run, or waits for the other.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import jvq_fast as jvq
from simulator import Simulator
from trade_script import ACCOUNT, PASSWORD, WAIT, WIDE, Broker, few_rounds, paper, wait
from ws_script import TOKEN, Peer, ScriptServer, binary, trade

__all__ = ["few_rounds"]
CODE = "000001"
HANG = 10.0


class Stream:
    """A trade of 600519 every time the one before it has been heard of, or a little later."""

    def __init__(self) -> None:
        self.heard = threading.Event()
        self.ended = threading.Event()

    def __call__(self, peer: Peer) -> None:
        peer.accept()
        peer.text()
        number = 0
        while not self.ended.is_set():
            number += 1
            self.heard.clear()
            peer.send(binary(trade(number)))
            self.heard.wait(0.05)
        peer.until_closed()


ORDERS: dict[str, tuple[str, Callable[[jvq.TradeClient], "Future[Any]"]]] = {
    "buy": ("buy", lambda client: client.submit_buy("600519", "10", 100)),
    "sell": ("sale", lambda client: client.submit_sell("600519", "10", 100)),
    "cancel": ("cancel", lambda client: client.submit_cancel("1334564")),
    "list of positions": ("check_hold", lambda client: client.submit_sell("600519", "10", 100)),
    "login": ("login", lambda client: client.submit_buy("600519", "10", 100)),
    "list of orders": ("check_order", lambda client: client.submit_buy("600519", "10", 100)),
}


@pytest.mark.parametrize("kind", ORDERS)
def test_the_broker_hangs_until_the_feed_has_gone_on(kind: str, tmp_path: Path) -> None:
    """If the order held the feed up, or the next order, this would never end."""
    call, order = ORDERS[kind]
    release = threading.Event()
    stream = Stream()
    with Broker() as broker, ScriptServer(stream) as server, paper(broker, tmp_path, limits=WIDE) as client:
        if kind == "cancel":
            client.buy("600519", "9.99", 100)
        if kind not in ("login", "list of orders", "cancel"):
            client.orders()

        def before(name: str, query: dict[str, str]) -> None:
            if name == call:
                assert release.wait(WAIT)

        broker.before = before
        feed = jvq.Feed(TOKEN, "lv2_600519", server=server.ws)
        futures: list[Future[Any]] = []
        counts = {"before": 0, "during": 0}

        @feed.on_trades
        def on_trades(code: str, trades: Any) -> None:
            if futures and not futures[0].done():
                counts["during"] += broker.calls(call) != []
            elif not futures:
                counts["before"] += 1
                if counts["before"] == 100:
                    futures.append(order(client))
            if counts["during"] == 300:
                release.set()
                feed.stop()
            stream.heard.set()

        watchdog = threading.Timer(WAIT, feed.stop)
        watchdog.start()
        try:
            feed.run()
        finally:
            watchdog.cancel()
            was_released = release.is_set()
            release.set()
            stream.ended.set()
        assert was_released
        assert counts["during"] == 300
        assert futures[0].result(WAIT) is not None


def test_a_hanging_order_does_not_hold_up_the_next_ones_nor_a_cancel(tmp_path: Path) -> None:
    release = threading.Event()
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE) as client:
        standing = client.buy("600519", "9.99", 100)

        def before(call: str, query: dict[str, str]) -> None:
            if call == "buy" and query["code"] == "000001":
                assert release.wait(WAIT)

        broker.before = before
        hung = client.submit_buy("000001", "10", 100)
        wait(lambda: any(query["code"] == "000001" for query in broker.calls("buy")))
        assert client.submit_buy("600519", "10", 100).result(WAIT).order_id
        assert client.submit_cancel(standing).result(WAIT).outcome is jvq.Outcome.ACCEPTED
        assert not hung.done()
        release.set()
        assert hung.result(WAIT).order_id


@pytest.mark.parametrize("call", ["check_hold", "check_order"])
def test_what_an_order_asks_first_does_not_hold_up_a_cancel(call: str, tmp_path: Path) -> None:
    release = threading.Event()
    with Broker() as broker:
        with paper(broker, tmp_path, limits=WIDE) as client:
            standing = client.buy("600519", "9.99", 100)
        with paper(broker, tmp_path, limits=WIDE) as client:
            if call == "check_hold":
                client.orders()

            def before(name: str, query: dict[str, str]) -> None:
                if name == call:
                    assert release.wait(WAIT)

            asked = len(broker.calls(call))
            broker.before = before
            hung = client.submit_sell("600519", "10", 100)
            wait(lambda: len(broker.calls(call)) > asked)
            future = client.submit_cancel(standing)
            wait(lambda: len(broker.calls("cancel")) == 1)
            assert not hung.done()
            release.set()
            assert future.result(WAIT).outcome is jvq.Outcome.ACCEPTED
            assert hung.result(WAIT).order_id


def test_the_feeds_lag_is_as_without_an_order_while_the_simulators_broker_hangs(tmp_path: Path) -> None:
    """With an order that hangs for ten seconds as without one: whatever was sent arrives, and no callback is slower."""
    with Simulator("--seed", "11") as sim:
        feed = jvq.Feed(
            TOKEN, [f"lv1_{CODE}", f"lv2_{CODE}", f"lv10_{CODE}"], allocation=sim.http, trading_day=sim.trading_day,
            clock="always",
        )  # fmt: skip
        client = jvq.TradeClient(
            TOKEN, ACCOUNT, PASSWORD, mode="paper", market=feed, allocation=sim.http, journal=tmp_path / "journal",
            ticket_file=tmp_path / "ticket", timeout=3 * HANG, polling=jvq.Polling(fast=60, slow=60),
        )  # fmt: skip
        wanted = threading.Event()
        futures: list[Future[jvq.Order]] = []
        busy: dict[str, list[float]] = {"without": [], "with": []}

        @feed.on_trades
        def on_trades(code: str, trades: Any) -> None:
            if wanted.is_set() and not futures:
                price = feed.last(code)
                assert price is not None
                futures.append(client.submit_buy(code, price, 100))

        def catch_up(times: int, phase: str) -> None:
            """So many times: all that was sent by now arrives, and how long the callbacks took meanwhile."""
            for _ in range(times):
                sent = int(sim.stats()["total"]["records"])
                wait(lambda sent=sent: int(feed.stats()["records"]) >= sent)
                busy[phase].append(feed.meter.take().slowest)

        with feed, client:
            wait(lambda: feed.depths.head > 0)
            client.orders()
            sim.fault("trade_delay", call="buy", delay=HANG, when="before")
            feed.meter.take()
            catch_up(20, "without")
            wanted.set()
            wait(lambda: any(each["kind"] == "trade_delay" for each in sim.faults()["happened"]))
            first = int(feed.stats()["records"])
            catch_up(20, "with")
            assert not futures[0].done()
            wait(lambda: futures[0].done() or int(feed.stats()["records"]) > first + 500)
            catch_up(1, "with")
            assert not futures[0].done()
            assert int(feed.stats()["records"]) >= first + 500
            order = futures[0].result(3 * HANG)
            assert order.order_id
            assert len(client.intents) == 1
        # The slowest callback of each stretch: half of them are no slower with an order than the slowest without.
        median = sorted(busy["with"])[len(busy["with"]) // 2]
        assert median <= max(busy["without"])
        assert max(busy["with"]) < HANG / 2
