"""The feed end to end, against the simulator in a process of its own."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jvq_fast as jvq
from simulator import TOKEN, Simulator

WAIT = 60
CODES = ["600519", "000001", "600000", "300750"]
SUBSCRIPTIONS = [f"{level}_{code}" for code in CODES for level in ("lv1", "lv2", "lv10")]


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator("--seed", "11") as sim:
        yield sim


def make(sim: Simulator, subscriptions: Any = SUBSCRIPTIONS, **settings: Any) -> jvq.Feed:
    settings = {"allocation_interval": 0.1, "backoff_min": 0.05, "backoff_max": 0.5} | settings
    return jvq.Feed(TOKEN, subscriptions, allocation=sim.http, trading_day=sim.trading_day, clock="always", **settings)


def wait_for(condition: Any, feed: jvq.Feed, seconds: float = WAIT) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert not feed.join(0.02), "the feed has ended"
        assert time.monotonic() < deadline, feed.stats()


def drained(sim: Simulator, feed: jvq.Feed) -> dict[str, Any]:
    """The simulator's own counts, once it has stopped sending to this feed and all of it has arrived."""
    feed.replace(())
    stats = sim.wait_still()
    wait_for(lambda: int(feed.stats()["messages"]) == stats["total"]["messages"], feed)
    return stats


def test_every_record_that_was_sent_is_there(sim: Simulator, tmp_path: Path) -> None:
    feed = make(sim, capture=tmp_path / "c")
    counts = {"trades": 0, "quotes": 0, "depths": 0}
    batches: list[int] = []
    codes: set[str] = set()

    def count(level: str) -> Any:
        def handler(code: str, records: np.ndarray) -> None:
            assert set(records["code"]) == {code.encode()}
            counts[level] += len(records)
            codes.add(code)

        return handler

    feed.on_trades(count("trades"))
    feed.on_quotes(count("quotes"))
    feed.on_depths(count("depths"))
    feed.on_batch(batches.append)
    with feed:
        wait_for(lambda: feed.trades.head >= 300 and feed.quotes.head >= 8 and feed.depths.head >= 8, feed)
        assert "lv2_600519" in feed.request("list", timeout=WAIT)
        sent = drained(sim, feed)["total"]
        stats = feed.stats()
    for level, number in counts.items():
        assert number == sent[level] == getattr(feed, level).head == stats[level], level
    assert sum(batches) == sent["records"] == stats["records"]
    assert stats["bad"] == stats["bad_messages"] == stats["storage_late"] == 0
    assert codes == set(CODES) == set(feed.names)
    assert stats["lv1_order"] == "amount_first"
    decoder = jvq.Decoder(trading_day=sim.trading_day, clock="always")
    assert jvq.replay(tmp_path / "c", decoder) == stats["records"]
    for level in counts:
        live, again = getattr(feed, level), getattr(decoder, level)
        assert live.last(live.head).tobytes() == again.last(again.head).tobytes()


def arrivals(feed: jvq.Feed) -> np.ndarray:
    """When each record came, over all levels, in order."""
    return np.sort(
        np.concatenate([getattr(feed, level).last(1 << 17)["recv"] for level in ("trades", "quotes", "depths")])
    )


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_server_goes_away_and_comes_back_elsewhere(sim: Simulator, loop: str) -> None:
    """The subscription is restored, no trade comes twice, none is missing that was sent after, each gap is reported."""
    if loop == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed")
    feed = make(sim, capacity=1 << 17, loop=loop)
    moves = 3
    gaps: list[jvq.Gap] = []
    ends: list[int] = []
    events: list[str] = []
    at_connect: list[tuple[int, int]] = []

    @feed.on_connect
    def on_connect(server: str) -> None:
        events.append("connect")
        at_connect.append((feed.trades.head, int(feed.stats()["duplicates"])))

    @feed.on_disconnect
    def on_disconnect(reason: str) -> None:
        events.append("disconnect")
        ends.append(int(arrivals(feed)[-1]))

    feed.on_gap(gaps.append)
    with feed:
        for move in range(moves):
            head = feed.trades.head
            wait_for(lambda head=head: feed.trades.head >= head + 200, feed)
            address = sim.move()
            wait_for(lambda move=move: len(gaps) == move + 1, feed)
            assert feed.stats()["server"] == address
        head = feed.trades.head
        wait_for(lambda: feed.trades.head >= head + 200, feed)
        assert sim.stats()["connections"][-1]["subscriptions"] == SUBSCRIPTIONS
        feed.replace(())
        sent = sim.wait_still()["connections"]
        trades, duplicates = at_connect[-1]

        def arrived() -> int:
            return feed.trades.head - trades + int(feed.stats()["duplicates"]) - duplicates

        wait_for(lambda: arrived() >= sent[-1]["trades"], feed)
    assert arrived() == sent[-1]["trades"]
    assert events == ["connect", "disconnect"] * (moves + 1)
    assert len(sent) == moves + 1
    stats = feed.stats()
    assert stats["gaps"] == stats["reconnects"] == len(gaps) == moves
    records, _, lost = feed.trades.copy_since(0)
    assert lost == 0
    keys = set(zip(records["code"].tolist(), records["id"].tolist(), strict=True))
    assert len(keys) == len(records)
    recv = arrivals(feed)
    for gap, end in zip(gaps, ends, strict=False):
        assert gap.start == end
        assert gap.end == recv[np.searchsorted(recv, end, side="right")]
        assert gap.codes == tuple(dict.fromkeys(name.partition("_")[2] for name in SUBSCRIPTIONS))


def test_subscribing_and_unsubscribing_while_the_market_moves(sim: Simulator) -> None:
    feed = make(sim, ["lv2_600519"])
    with feed:
        wait_for(lambda: feed.trades.head >= 20, feed)
        feed.subscribe("lv2_000001")
        wait_for(lambda: "000001" in feed.decoder.codes and feed.history("000001", "trades").head >= 5, feed)
        feed.unsubscribe("lv2_600519")
        assert "lv2_600519" not in feed.request("list", WAIT)
        head = feed.history("600519", "trades").head
        quiet = feed.history("000001", "trades").head
        wait_for(lambda: feed.history("000001", "trades").head >= quiet + 20, feed)
        assert feed.history("600519", "trades").head == head
        listed = sim.stats()["connections"][-1]["subscriptions"]
    assert listed == ["lv2_000001"]


def test_unsubscribing_in_the_callback_stops_the_code(sim: Simulator) -> None:
    feed = make(sim, ["lv2_600519", "lv2_000001"])
    feed.on_trades(lambda code, trades: feed.unsubscribe("lv2_600519") if code == "600519" else None)
    with feed:
        wait_for(lambda: feed.history("000001", "trades").head >= 50, feed)
        sim.wait(lambda stats: stats["connections"][-1]["subscriptions"] == ["lv2_000001"])


def test_the_subscription_of_two_feeds_is_their_own(sim: Simulator) -> None:
    with make(sim, ["lv2_600519"]) as one, make(sim, ["lv2_000001"]) as other:
        wait_for(lambda: one.trades.head >= 20 and other.trades.head >= 20, one)
    assert set(one.trades.last(20)["code"]) == {b"600519"}
    assert set(other.trades.last(20)["code"]) == {b"000001"}


def test_a_handler_that_blocks_for_a_second_misses_nothing(sim: Simulator) -> None:
    feed = make(sim)
    blocked = threading.Event()

    @feed.on_batch
    def block(n: int) -> None:
        if feed.trades.head >= 50 and not blocked.is_set():
            blocked.set()
            time.sleep(1)

    with feed:
        wait_for(lambda: blocked.is_set() and feed.trades.head >= 200, feed)
        sent = drained(sim, feed)["total"]
        assert feed.stats()["records"] == sent["records"]
    assert feed.stats()["disconnects"] == 1
