"""What happens when the connection is lost: the feed comes back, restores, and says what may be missing."""

import asyncio
import gc
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import jvq_fast as jvq
from jvq_fast.connection import Connection
from this_process import descriptors
from ws_script import (
    BINARY,
    CLOSE,
    PING,
    TEXT,
    TOKEN,
    Peer,
    Script,
    ScriptServer,
    binary,
    deflate,
    frame,
    reply,
    serve,
    trade,
)

WAIT = 20
FAST = {"backoff_min": 0.01, "backoff_max": 0.02}


class Log:
    """Every event of a feed in its order, with the id of each trade."""

    def __init__(self, feed: jvq.Feed) -> None:
        self.events: list[tuple[Any, ...]] = []
        for name in ("connect", "disconnect", "gap", "batch", "error"):
            getattr(feed, f"on_{name}")(lambda *arguments, name=name: self.events.append((name, *arguments)))
        feed.on_trades(lambda code, trades: self.events.extend(("trade", int(number)) for number in trades["id"]))

    def of(self, name: str) -> list[Any]:
        return [event[1] for event in self.events if event[0] == name]

    @property
    def names(self) -> list[str]:
        return [event[0] for event in self.events]


def run(*scripts: Script, until: Callable[[Log], bool], **settings: Any) -> tuple[jvq.Feed, Log, ScriptServer]:
    """Run a feed against the scripts, up to the end of the socket read at which the log is as it should be."""
    with ScriptServer(*scripts) as server:
        feed = jvq.Feed(TOKEN, "lv2_600519", server=server.ws, **(FAST | settings))
        log = Log(feed)
        # Behind the log, so that the events of this read are complete.
        feed.on_batch(lambda n: feed.stop() if until(log) else None)
        watchdog = threading.Timer(WAIT, feed.stop)
        watchdog.start()
        try:
            feed.run()
        finally:
            watchdog.cancel()
        assert until(log), log.events
    return feed, log, server


def seen(*ids: int) -> Callable[[Log], bool]:
    return lambda log: log.of("trade")[-len(ids) :] == list(ids)


def cut(*frames: bytes) -> Script:
    """Send and close, without a word."""

    def script(peer: Peer) -> None:
        peer.accept()
        peer.text()
        peer.send(*frames)

    return script


def reset(*frames: bytes) -> Script:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.text()
        peer.send(*frames)
        time.sleep(0.05)
        peer.reset()

    return script


LOSSES: dict[str, tuple[Script, str]] = {
    "closed": (cut(binary(trade(1))), "lost"),
    "reset": (reset(binary(trade(1))), "lost"),
    "said goodbye": (serve(binary(trade(1)), frame(CLOSE, b"\x03\xe9moving")), "1001 moving"),
    "protocol error": (serve(binary(trade(1)), frame(BINARY, b"", rsv=4)), "reserved bits"),
    "protocol error seen by picows": (serve(binary(trade(1)), frame(7)), "opcode"),
    "cut in a frame": (cut(binary(trade(1)), binary(trade(99))[:-3]), "lost"),
    "cut in a message": (cut(binary(trade(1)), frame(BINARY, deflate(trade(99))[:9], fin=False)), "lost"),
    "evicted": (cut(binary(trade(1)), frame(TEXT, "-1#账户连接数已达并发上限".encode())), "evicted: -1#"),
    "said goodbye badly": (serve(binary(trade(1)), frame(CLOSE, b"\x00\x00")), "CLOSE with code 0"),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_after_any_loss_the_feed_comes_back_and_reports_one_gap(loss: str) -> None:
    script, words = LOSSES[loss]
    feed, log, server = run(script, serve(binary(trade(1) + trade(2))), until=seen(2))
    names = [name for name in log.names if name != "error"]
    first, second = ["connect", "trade", "batch", "disconnect"], ["connect", "gap", "trade", "batch", "disconnect"]
    assert names == first + second
    assert log.of("trade") == [1, 2]
    assert words in log.of("disconnect")[0]
    assert log.of("disconnect")[1] == "stopped"
    (gap,) = log.of("gap")
    before, after = feed.trades.last(2)
    assert (gap.start, gap.end) == (before["recv"], after["recv"])
    assert gap.reason == log.of("disconnect")[0]
    assert gap.codes == ("600519",)
    stats = feed.stats()
    assert (stats["connects"], stats["reconnects"], stats["disconnects"], stats["gaps"]) == (2, 1, 2, 1)
    assert stats["duplicates"] == 1
    assert server.accepted == 2


def test_attempts_that_fail_on_the_way_back_are_reported_and_go_on() -> None:
    failures: list[Script] = [reply(503, b""), lambda peer: peer.read_head(), reply(404, b"")]
    feed, log, _ = run(cut(binary(trade(1))), *failures, serve(binary(trade(2))), until=seen(2))
    errors = [(type(error), where) for _, error, where in (event for event in log.events if event[0] == "error")]
    assert errors == [(jvq.HandshakeError, "connect")] * 3
    assert feed.stats()["connect_failures"] == 3
    assert len(log.of("gap")) == 1
    assert log.of("trade") == [1, 2]


def test_allocation_that_fails_on_the_way_back_is_reported_and_goes_on() -> None:
    with ScriptServer(cut(binary(trade(1))), serve(binary(trade(2)))) as market:
        good = reply(200, b'{"code":"0","server":"127.0.0.1:%d"}' % market.port)
        bad = [
            reply(500, b""),
            reply(200, b"no"),
            reply(200, b'{"code":"1"}'),
            reply(200, b'{"code":"0","server":"?"}'),
        ]
        with ScriptServer(good, *bad, good) as service:
            feed = jvq.Feed(TOKEN, "lv2_600519", allocation=service.http, allocation_interval=0, **FAST)
            log = Log(feed)
            feed.on_batch(lambda n: feed.stop() if log.of("trade") == [1, 2] else None)
            feed.run()
        assert service.accepted == 6
    assert [event[2] for event in log.events if event[0] == "error"] == ["allocation"] * 4
    assert type(log.of("error")[2]) is jvq.AllocationRefusedError
    assert feed.stats()["allocations"] == 6
    assert feed.stats()["connect_failures"] == 4


def test_a_gap_lasts_until_a_record_comes_however_many_connections_that_takes() -> None:
    feed, log, _ = run(
        cut(binary(trade(1)), frame(PING)),
        cut(frame(TEXT, b"0#")),
        reset(binary("\n"), binary("garbage\n")),
        serve(binary(trade(2))),
        until=seen(2),
    )
    (gap,) = log.of("gap")
    assert (gap.start, gap.end) == tuple(feed.trades.last(2)["recv"])
    assert gap.reason == log.of("disconnect")[0]
    assert feed.stats()["gaps"] == 1
    assert feed.stats()["connects"] == 4


def test_each_gap_is_reported_once() -> None:
    scripts = [cut(binary(trade(n)), binary(trade(n + 10))) for n in range(5)]
    feed, log, _ = run(*scripts, serve(binary(trade(20)), binary(trade(21))), until=seen(20, 21))
    assert len(log.of("gap")) == feed.stats()["gaps"] == 5
    for gap, later in zip(log.of("gap"), log.of("gap")[1:], strict=False):
        assert gap.start < gap.end <= later.start


def test_a_connection_lost_before_its_first_message_is_a_gap_from_its_opening() -> None:
    began = time.time_ns()
    feed, log, _ = run(cut(), serve(binary(trade(1))), until=seen(1))
    (gap,) = log.of("gap")
    assert began < gap.start < gap.end == feed.trades.last(1)["recv"][0]


def test_start_stop_and_an_empty_subscription_are_no_gap() -> None:
    with ScriptServer(lambda peer: peer.accept(), serve(binary(trade(1)), subscribed=False)) as server:
        feed = jvq.Feed(TOKEN, server=server.ws, **FAST)
        log = Log(feed)
        feed.on_batch(lambda n: feed.stop())
        feed.run()
        feed.run()
    assert log.of("gap") == []
    assert feed.stats()["connects"] == 3


def test_a_gap_names_what_was_subscribed_when_it_began() -> None:
    with ScriptServer(cut(binary(trade(1))), serve(binary(trade(2)))) as server:
        feed = jvq.Feed(TOKEN, ["lv2_600519", "lv1_600519"], server=server.ws, **FAST)
        log = Log(feed)
        feed.on_disconnect(lambda reason: feed.replace("lv2_600519"))
        feed.on_batch(lambda n: feed.stop() if log.of("trade") == [1, 2] else None)
        feed.run()
    assert log.of("gap")[0].codes == ("600519",)


def test_field_orders_are_detected_anew_on_each_connection() -> None:
    def snapshot(first: str, second: str, time: str) -> str:
        book = ",".join(["100,9.99"] * 5 + ["100,10.01"] * 5)
        return f"lv1_600000={time},name,10.00,0.10,{first},{second},{book}\n"

    amount_first = [binary(snapshot("100000", "10000", f"10:00:0{n}")) for n in range(3)]
    volume_first = [binary(snapshot("10000", "100000", f"10:01:0{n}")) for n in range(3)]
    orders: list[object] = []
    with ScriptServer(cut(*amount_first), serve(*volume_first)) as server:
        feed = jvq.Feed(TOKEN, "lv1_600000", server=server.ws, **FAST)

        @feed.on_batch
        def on_batch(n: int) -> None:
            stats = feed.stats()
            orders.append((stats["lv1_order"], stats["lv1_order_source"]))
            if feed.quotes.head == 6:
                feed.stop()

        feed.run()
    assert ("amount_first", "detected") in orders
    assert orders[-1] == ("volume_first", "detected")


def test_waits_grow_to_their_ceiling_and_start_afresh_after_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    ceilings: list[float] = []

    def uniform(low: float, high: float) -> float:
        assert low == 0
        ceilings.append(high)
        return 0.0

    monkeypatch.setattr("random.uniform", uniform)
    quiet, lively = cut(frame(TEXT, b"0#")), cut(binary(trade(1)))
    run(*[quiet] * 5, lively, quiet, serve(binary(trade(2))), until=seen(2), backoff_min=0.5, backoff_max=3)
    assert ceilings == [0.5, 1, 2, 3, 3, 0.5, 1]


def test_a_refusal_after_data_came_is_an_eviction_and_does_not_end_the_feed() -> None:
    evict = cut(binary(trade(1)), frame(TEXT, "-1#账户连接数已达并发上限".encode()))
    _, log, _ = run(evict, evict, serve(binary(trade(2))), until=seen(2))
    assert [type(error) for error in log.of("error")] == [jvq.ConnectionLimitError] * 2
    assert log.of("trade") == [1, 2]


def test_a_handler_that_blocks_loses_nothing() -> None:
    numbers = list(range(2000))

    def script(peer: Peer) -> None:
        peer.accept()
        peer.text()
        for number in numbers:
            peer.send(binary(trade(number)))
        peer.until_closed()

    with ScriptServer(script) as server:
        feed = jvq.Feed(TOKEN, "lv2_600519", server=server.ws)
        log = Log(feed)

        @feed.on_batch
        def on_batch(n: int) -> None:
            if len(log.of("batch")) == 1:
                time.sleep(1)
            if len(log.of("trade")) == len(numbers):
                feed.stop()

        feed.run()
    assert log.of("trade") == numbers
    assert sum(log.of("batch")) == len(numbers)


def test_a_handler_that_decodes_with_the_feeds_own_decoder_is_told() -> None:
    with ScriptServer(serve(binary(trade(1)))) as server:
        feed = jvq.Feed(TOKEN, "lv2_600519", server=server.ws)
        log = Log(feed)
        feed.on_trades(lambda code, trades: feed.decoder.decode(deflate(trade(2))))
        feed.on_batch(lambda n: feed.stop())
        feed.run()
    assert [type(error) for error in log.of("error")] == [RuntimeError]
    assert log.of("trade") == [1]


def test_names_come_with_snapshots() -> None:
    book = ",".join(["100,9.99"] * 5 + ["100,10.01"] * 5)
    row = f"lv1_600519=10:00:00,贵州茅台,10.00,0.10,100000,10000,{book}\n"
    with ScriptServer(serve(binary(row))) as server:
        feed = jvq.Feed(TOKEN, "lv1_600519", server=server.ws)
        feed.on_batch(lambda n: feed.stop())
        feed.run()
    assert dict(feed.names) == {"600519": "贵州茅台"}


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_connection_reset_before_its_handshake_leaves_no_descriptor(
    monkeypatch: pytest.MonkeyPatch, loop: Any
) -> None:
    """Reset so early that no transport has taken the socket yet."""
    make = Connection._make_socket

    async def slowly(connection: Connection, *arguments: Any) -> Any:
        sock = await make(connection, *arguments)
        await asyncio.sleep(0.02)
        return sock

    monkeypatch.setattr(Connection, "_make_socket", slowly)
    steady = serve(binary(trade(1)))
    with ScriptServer(cut(binary(trade(1))), *[Peer.reset] * 20, steady) as server:
        feed = jvq.Feed(TOKEN, "lv2_600519", server=server.ws, loop=loop, **FAST)
        counts: list[int] = []
        feed.on_connect(lambda address: counts.append(len(descriptors())))
        watchdog = threading.Timer(WAIT, feed.stop)
        watchdog.start()
        feed.on_connect(lambda address: feed.stop() if len(counts) == 2 else None)
        feed.run()
        watchdog.cancel()
    assert feed.stats()["connect_failures"] == 20
    assert counts[1] - counts[0] < 10, counts


def say_nothing(peer: Peer) -> None:
    peer.until_closed()


def leave(peer: Peer) -> None:
    """Before the handshake."""


def go_wrong(peer: Peer) -> None:
    peer.accept()
    peer.send(b"\xf1\x00")  # reserved bits
    peer.until_closed()


def look_away(peer: Peer) -> None:
    peer.read_head()
    peer.send(b"HTTP/1.1 503 Not Now\r\nContent-Length: 0\r\n\r\n")


def garbage_after(scripts: list[Script], answers: list[Script], **settings: Any) -> int:
    """Objects that only the collector can free, from the end of the first connection to the first record of the last.

    `answers`, where there are any, are the allocation service's between the first and the last.
    """
    left: list[int] = []
    with ScriptServer(cut(binary(trade(1))), *scripts, serve(binary(trade(2)))) as server:
        fine = reply(200, json.dumps({"code": "0", "server": server.ws}).encode())
        with ScriptServer(fine, *answers, fine) as service:
            where = {"allocation": service.http, "allocation_interval": 0.0} if answers else {"server": server.ws}
            feed = jvq.Feed(TOKEN, "lv2_600519", **(FAST | where | settings))
            feed.on_error(lambda error, where: None)
            feed.on_disconnect(lambda reason: gc.collect() if feed.stats()["connects"] == 1 else None)

            @feed.on_gap
            def collect(gap: jvq.Gap) -> None:
                left.append(gc.collect())
                feed.stop()

            watchdog = threading.Timer(WAIT, feed.stop)
            watchdog.start()
            gc.disable()
            try:
                feed.run()
            finally:
                gc.enable()
                watchdog.cancel()
    return left[0]


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("script", [cut(), Peer.reset, leave, say_nothing, look_away, go_wrong])
def test_a_connection_that_is_gone_leaves_nothing_to_the_garbage_collector(script: Script, loop: Any) -> None:
    assert garbage_after([script] * 6, [], loop=loop, handshake_timeout=0.2) == 0


@pytest.mark.parametrize("answer", [reply(500, b"<html>"), reply(200, b"{}"), Peer.reset, leave, say_nothing])
def test_neither_does_an_allocation(answer: Script) -> None:
    assert garbage_after([], [answer] * 6, allocation_timeout=0.2) == 0
