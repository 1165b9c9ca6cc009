"""What a running feed says about where the time goes, and whose fault it is."""

import asyncio
import datetime as dt
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import jvq_fast as jvq
from ws_script import TOKEN, Peer, ScriptServer, binary, trade

WAIT = 30
CHINA = dt.timezone(dt.timedelta(hours=8))
# Told apart from what a busy machine does by itself.
SETTINGS: dict[str, Any] = {"max_callback_time": 0.4, "max_feed_lag": 0.4, "max_network_lag": 1.0, "clock": "always"}


def now(late: float = 0.0) -> str:
    return (dt.datetime.now(CHINA) - dt.timedelta(seconds=late)).strftime("%H:%M:%S.%f")


def steady(late: Callable[[int], float] = lambda n: 0.0, every: float = 0.02) -> Callable[[Peer], None]:
    """A trade every 20 ms, which left the exchange `late(n)` seconds ago."""

    def script(peer: Peer) -> None:
        peer.accept()
        peer.text()
        for n in itertools.count():
            peer.send(binary(trade(n, time=now(late(n)))))
            time.sleep(every)

    return script


def run(feed: jvq.Feed, until: Callable[[list[jvq.Lag]], bool]) -> list[jvq.Lag]:
    lags: list[jvq.Lag] = []

    @feed.on_lag
    def on_lag(lag: jvq.Lag) -> None:
        lags.append(lag)
        if until(lags):
            feed.stop()

    watchdog = threading.Timer(WAIT, feed.stop)
    watchdog.start()
    feed.run()
    watchdog.cancel()
    assert until(lags), lags
    return lags


def test_a_slow_handler_is_named_and_blamed() -> None:
    with ScriptServer(steady()) as server:
        feed = jvq.Feed(TOKEN, "lv2_600519", server=server.ws, **SETTINGS)
        calls = itertools.count()

        @feed.on_trades
        def sluggish(code: str, trades: Any) -> None:
            if next(calls) == 50:
                time.sleep(0.8)

        lags = run(feed, lambda lags: any(lag.fault == "callback" for lag in lags))
    (lag,) = [lag for lag in lags if "sluggish" in lag.detail][:1]
    assert lag.fault == "callback"
    assert 0.8 <= lag.seconds < WAIT
    assert lag.threshold == 0.4
    assert "on_trades" in lag.detail
    assert "600519" in lag.detail
    stats = feed.stats()
    assert float(stats["lag_callback_max_us"]) >= 800_000
    assert feed.meter.callbacks.max >= 0.8
    assert int(stats["lags"]) >= 1


def test_an_event_handler_of_the_feed_is_blamed_too() -> None:
    with ScriptServer(steady()) as server:
        feed = jvq.Feed(TOKEN, "lv2_600519", server=server.ws, **SETTINGS)
        feed.on_state(lambda state, reason: time.sleep(0.8) if state == "live" else None)
        lags = run(feed, lambda lags: any("on_state" in lag.detail for lag in lags))
    assert {lag.fault for lag in lags if "on_state" in lag.detail} == {"callback"}


def test_a_handler_that_is_slow_before_the_first_data_is_blamed_too() -> None:
    with ScriptServer(steady()) as server:
        feed = jvq.Feed(TOKEN, "lv2_600519", server=server.ws, **SETTINGS)
        feed.on_connect(lambda address: time.sleep(0.8))
        lags = run(feed, lambda lags: any("on_connect" in lag.detail for lag in lags))
    assert {lag.fault for lag in lags if "on_connect" in lag.detail} == {"callback"}


def test_data_that_arrives_late_is_the_networks_fault() -> None:
    with ScriptServer(steady(lambda n: 5.0 if n > 60 else 0.0)) as server:
        feed = jvq.Feed(TOKEN, "lv2_600519", server=server.ws, **SETTINGS)
        lags = run(feed, lambda lags: any(lag.fault == "network" for lag in lags))
    lag = next(lag for lag in lags if lag.fault == "network")
    assert 4.5 < lag.seconds < 5 + WAIT
    assert feed.meter.network["trades"].max > 4.5


def test_a_clock_that_is_wrong_is_no_lag_but_named() -> None:
    with ScriptServer(steady(lambda n: -20.0)) as server:
        feed = jvq.Feed(TOKEN, "lv2_600519", server=server.ws, **(SETTINGS | {"max_network_lag": 3.0}))
        lags: list[jvq.Lag] = []
        feed.on_lag(lags.append)
        watchdog = threading.Timer(2.5, feed.stop)
        watchdog.start()
        feed.run()
    assert [lag for lag in lags if lag.fault == "network"] == []
    skew = feed.meter.skew
    assert skew is not None
    assert -20.5 < skew < -19
    assert float(feed.stats()["clock_skew_ms"]) == pytest.approx(skew * 1000, abs=1)


def test_a_loop_that_is_held_up_by_others_is_the_feeds_fault_and_not_a_handlers() -> None:
    async def main(feed: jvq.Feed, lags: list[jvq.Lag]) -> None:
        running = asyncio.ensure_future(feed.run_async())
        for _ in range(20):
            await asyncio.sleep(0.3)
            time.sleep(0.9)
            if lags:
                break
        await asyncio.sleep(0.1)
        feed.stop()
        await running

    with ScriptServer(steady()) as server:
        feed = jvq.Feed(TOKEN, "lv2_600519", server=server.ws, **SETTINGS)
        feed.on_trades(lambda code, trades: None)
        lags: list[jvq.Lag] = []
        feed.on_lag(lags.append)
        asyncio.run(main(feed, lags))
    assert lags[0].fault == "feed"


def test_a_socket_that_fills_up_behind_a_slow_handler_is_told() -> None:
    """Nobody reads while a handler runs: what the system holds for us is bounded, and then the server waits."""
    row = trade(1, time="10:00:00.000")
    flood = binary(row) * 2000

    def script(peer: Peer) -> None:
        peer.accept()
        peer.text()
        while True:
            peer.send(flood)

    with ScriptServer(script) as server:
        # The time of that trade stands still, which looks like an ever slower network.
        feed = jvq.Feed(TOKEN, "lv2_600519", server=server.ws, **(SETTINGS | {"max_network_lag": 3600}))
        batches = itertools.count()
        backlogs: list[int] = []

        @feed.on_batch
        def on_batch(n: int) -> None:
            if next(batches) % 3 == 2:
                # Until no more fits, however slow the machine is.
                began, waiting = time.monotonic(), [-1]
                while waiting[-1] != waiting[max(0, len(waiting) - 10)] or time.monotonic() < began + 1:
                    time.sleep(0.05)
                    waiting.append(int(feed.stats()["backlog_bytes"]))
                    if time.monotonic() > began + 8:
                        break
                backlogs.append(waiting[-1])

        lags = run(feed, lambda lags: any("wait in the socket" in lag.detail for lag in lags))
    assert max(backlogs) > 1 << 20
    # Where decoding all that waited takes long too, as in a slow build, that is told besides.
    assert "callback" in {lag.fault for lag in lags if "wait in the socket" in lag.detail}


def test_a_handler_that_hangs_is_seen_while_it_hangs() -> None:
    release = threading.Event()
    with ScriptServer(steady()) as server:
        feed = jvq.Feed(TOKEN, "lv2_600519", server=server.ws, **SETTINGS)

        @feed.on_trades
        def hanging(code: str, trades: Any) -> None:
            release.wait(WAIT)

        with feed:
            deadline = time.monotonic() + WAIT
            while float((stats := feed.stats())["callback_running_seconds"]) < 0.5:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            release.set()
            assert "on_trades" in str(stats["callback_running"])
            assert "hanging" in str(stats["callback_running"])
    assert feed.stats()["callback_running"] == ""


def test_readers_are_measured_by_their_distance_from_the_head() -> None:
    with ScriptServer(steady(every=0.001)) as server:
        feed = jvq.Feed(TOKEN, "lv2_600519", server=server.ws, **SETTINGS)
        with feed:
            deadline = time.monotonic() + WAIT
            while feed.trades.head < 200 and time.monotonic() < deadline:
                time.sleep(0.01)
            feed.trades.copy_since(0)
            assert feed.meter.readers["trades"].max >= 200
            assert int(feed.stats()["lag_readers_max"]) >= 200


@pytest.mark.parametrize("name", ["max_network_lag", "max_feed_lag", "max_callback_time"])
def test_thresholds_are_positive_times(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        jvq.Feed(TOKEN, **{name: 0})
