"""What a feed says of what goes wrong: nothing is swallowed, nothing floods the log."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import jvq_fast as jvq
from jvq_fast import handlers, supervisor, watchdog
from ws_script import BINARY, TEXT, TOKEN, Peer, ScriptServer, binary, deflate, frame, serve, trade

WAIT = 20
CUT = frame(BINARY, deflate(trade(9))[:-3])
BAD = binary("lv2_600519=10:00:00.000,7,1680.00\n")


def run(*frames: bytes, until: Callable[[jvq.Feed], Any], prepare: Callable[[jvq.Feed], Any]) -> jvq.Feed:
    """Run a feed that is sent these frames until a condition holds."""
    with ScriptServer(serve(*frames)) as server:
        feed = jvq.Feed(TOKEN, "lv2_600519", server=server.ws, clock="always")
        prepare(feed)
        with feed:
            deadline = time.monotonic() + WAIT
            while not until(feed):
                assert time.monotonic() < deadline, feed.stats()
                assert not feed.join(0.01)
    return feed


def test_data_that_cant_be_read_is_told_at_once_and_the_rest_at_the_end() -> None:
    is_told = threading.Event()
    told: list[tuple[str, dict[str, int]]] = []

    def on_error(error: Exception, where: str) -> None:
        assert isinstance(error, jvq.DataError)
        told.append((where, error.counts))
        is_told.set()

    def script(peer: Peer) -> None:
        peer.accept()
        peer.text()
        peer.send(BAD, CUT, CUT, binary(trade(1)))
        assert is_told.wait(WAIT)
        peer.send(CUT, binary(trade(2)))
        peer.until_closed()

    with ScriptServer(script) as server:
        feed = jvq.Feed(TOKEN, "lv2_600519", server=server.ws, clock="always", stale_trades=1.0)
        feed.on_error(on_error)
        with feed:
            deadline = time.monotonic() + WAIT
            while feed.trades.head < 2:
                assert time.monotonic() < deadline
                assert not feed.join(0.01)
            time.sleep(0.3)  # it looks every 0.1 s
            assert len(told) == 1, "told twice within a minute"
    assert told == [
        ("data", {"bad": 1, "bad_fields": 1, "bad_messages": 2, "inflate_truncated": 2}),
        ("data", {"bad_messages": 1, "inflate_truncated": 1}),
    ]
    assert feed.stats()["bad_messages"] == 3


def test_it_is_told_again_a_minute_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_UNREAD_AGAIN", 0.0)
    errors: list[Exception] = []
    run(BAD, BAD, until=lambda feed: errors, prepare=lambda feed: feed.on_error(lambda e, where: errors.append(e)))
    assert str(errors[0]) == "2 records and 0 messages could not be read: bad_fields 2"


def test_without_a_handler_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    run(CUT, until=lambda feed: caplog.records, prepare=lambda feed: caplog.set_level(logging.ERROR, "jvq_fast"))
    assert caplog.messages == ["data: DataError: 0 records and 1 message could not be read: inflate_truncated 1"]


def test_good_data_is_no_news() -> None:
    errors: list[Exception] = []
    run(
        binary(trade(1)),
        until=lambda feed: feed.trades.head,
        prepare=lambda feed: feed.on_error(lambda e, where: errors.append(e)),
    )
    assert errors == []


def test_a_subscription_that_the_server_refuses_is_told() -> None:
    errors: list[tuple[str, str]] = []
    feed = run(
        frame(TEXT, "-2#订阅代码错误:lv2_6005".encode()),
        binary(trade(1)),
        until=lambda feed: errors and feed.trades.head,
        prepare=lambda feed: feed.on_error(lambda error, where: errors.append((where, str(error)))),
    )
    assert errors == [("text", "the server says: -2#订阅代码错误:lv2_6005")]
    stats = feed.stats()
    assert (stats["server_errors"], stats["refusals"], stats["evictions"], stats["connects"]) == (1, 0, 0, 1)


@pytest.mark.parametrize("text", ["0#订阅成功", "成功", "-#", "-1", "#-2#"])
def test_other_texts_are_no_error(text: str) -> None:
    errors: list[Exception] = []
    run(
        frame(TEXT, text.encode()),
        binary(trade(1)),
        until=lambda feed: feed.trades.head,
        prepare=lambda feed: feed.on_error(lambda error, where: errors.append(error)),
    )
    assert errors == []


def test_a_handler_that_always_fails_is_logged_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1000.0
    monkeypatch.setattr(handlers.time, "monotonic", lambda: now)

    def fail(code: str, trades: object) -> None:
        raise LookupError("here")

    decoder = jvq.Decoder()
    decoder.on_trades = fail
    for _ in range(100):
        decoder.decode(deflate(trade(1)))
    assert caplog.messages == ["on_trades raised LookupError"]
    assert caplog.records[0].exc_info is not None
    now += 60.0
    decoder.decode(deflate(trade(1)))
    assert caplog.messages[1:] == ["on_trades raised LookupError, and 99 times more in the 60 s before"]
    assert decoder.stats()["callback_errors"] == 101
    # Another error is another story.
    decoder.on_trades = lambda code, trades: 1 // 0
    decoder.decode(deflate(trade(1)))
    assert caplog.messages[2:] == ["on_trades raised ZeroDivisionError"]


def test_an_on_error_that_fails_floods_nothing_either(caplog: pytest.LogCaptureFixture) -> None:
    decoder = jvq.Decoder()
    decoder.on_trades = decoder.on_error = lambda one, other: 1 // 0
    for _ in range(100):
        decoder.decode(deflate(trade(1)))
    assert caplog.messages == ["on_error raised ZeroDivisionError when told of on_trades"]
    assert decoder.stats()["callback_errors"] == 200


@pytest.mark.parametrize("event", ["connect", "state", "text", "trades", "batch", "gap", "disconnect", "error"])
def test_a_cancelled_future_in_a_handler_ends_no_feed(event: str) -> None:
    errors: list[tuple[BaseException, str]] = []

    def fail(*_: object) -> None:
        raise asyncio.CancelledError

    with ScriptServer(
        serve(frame(TEXT, b"0#hello"), BAD, binary(trade(1)), subscribed=False),
        serve(binary(trade(2)), subscribed=False),
    ) as server:
        feed = jvq.Feed(TOKEN, "lv2_600519", server=server.ws, backoff_min=0.01)
        getattr(feed, f"on_{event}")(fail)
        feed.on_error(lambda error, where: errors.append((error, where)))
        with feed:
            deadline = time.monotonic() + WAIT
            while feed.trades.head < 1 or not (errors or event in ("disconnect", "gap")):
                assert time.monotonic() < deadline
                assert not feed.join(0.01)
            feed._loop.call_soon_threadsafe(feed._channel.connection.abort)  # type: ignore[union-attr]
            while feed.trades.head < 2 or not errors:
                assert time.monotonic() < deadline
                assert not feed.join(0.01)
            assert feed.state is jvq.State.LIVE
    assert feed.stats()["callback_errors"] >= 1
    if event != "error":
        assert f"on_{event}" in {where for _, where in errors}


def test_a_token_in_what_a_handler_raises_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail(code: str, trades: object) -> None:
        raise LookupError(f"http://example.com/?token={TOKEN}")

    formatter = logging.Formatter()
    run(binary(trade(1)), until=lambda feed: caplog.records, prepare=lambda feed: feed.on_trades(fail))
    text = "\n".join(map(formatter.format, caplog.records))
    assert "LookupError: http://example.com/?token=***" in text
    assert TOKEN not in text


@pytest.mark.parametrize(
    ("event", "handler"),
    [
        ("trades", lambda code: None),
        ("quotes", lambda: None),
        ("batch", lambda one, two: None),
        ("error", lambda error: None),
        ("gap", lambda: None),
        ("state", lambda state: None),
        ("text", lambda text, *, also: None),
    ],
)
def test_a_handler_that_cant_be_called_is_refused_at_once(event: str, handler: Callable[..., Any]) -> None:
    feed = jvq.Feed(TOKEN)
    with pytest.raises(TypeError, match=rf"on_{event} calls handler\(\w+(, \w+)*\), but .*argument"):
        getattr(feed, f"on_{event}")(handler)


class Counting:
    def __call__(self, n: int) -> None:
        pass


@pytest.mark.parametrize("handler", [print, [].append, lambda n, more=1: None, lambda *all: None, Counting()])
def test_whatever_can_be_called_is_a_handler(handler: Callable[..., Any]) -> None:
    assert jvq.Feed(TOKEN).on_batch(handler) is handler


def test_a_handler_that_hangs_is_told_while_it_hangs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watchdog, "HUNG", 0.2)
    monkeypatch.setattr(watchdog, "_LOOK_EVERY", 0.02)
    caplog.set_level(logging.ERROR, "jvq_fast")
    told: list[bool] = []

    def wait_for_ever(n: int) -> None:
        deadline = time.monotonic() + WAIT
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.01)
        told.append(bool(caplog.records))
        time.sleep(0.3)  # one call is told once

    feed = run(binary(trade(1)), until=lambda feed: told, prepare=lambda feed: feed.on_batch(wait_for_ever))
    assert told == [True]
    assert feed.stats()["callback_hangs"] == len(caplog.records) == 1
    assert "on_batch handler" in caplog.messages[0]
    assert "wait_for_ever" in caplog.messages[0]
    assert "in wait_for_ever\n    time.sleep(0.01)" in caplog.messages[0]


def test_a_feed_whose_handlers_return_leaves_no_watchdog_behind() -> None:
    feed = run(binary(trade(1)), until=lambda feed: feed.trades.head, prepare=lambda feed: None)
    assert feed.stats()["callback_hangs"] == 0
    assert feed._watchdog._thread is None


@pytest.mark.parametrize("name", ["max_network_lag", "max_feed_lag", "max_callback_time", "connect_timeout"])
@pytest.mark.parametrize("value", ["1", 0, -1.0, None, float("nan")])
def test_times_are_numbers(name: str, value: object) -> None:
    settings: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=rf"{name} is a time in seconds above 0, not "):
        jvq.Feed(TOKEN, **settings)
