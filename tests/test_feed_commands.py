"""What a feed says to the server: subscriptions, from any thread and any moment, and requests."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import jvq_fast as jvq
from ws_script import PING, TEXT, TOKEN, Peer, ScriptServer, binary, frame, serve, trade

WAIT = 20


class Ear:
    """A server that keeps the commands of each connection, and answers as `answer` says."""

    def __init__(self, answer: Callable[[str], bytes | None] = lambda command: None) -> None:
        self.connections: list[list[str]] = []
        self._answer = answer
        self._changed = threading.Condition()

    def __call__(self, peer: Peer) -> None:
        peer.accept()
        commands: list[str] = []
        with self._changed:
            self.connections.append(commands)
        while True:
            kind, payload = peer.frame()
            if kind != TEXT:
                continue
            with self._changed:
                commands.append(payload.decode())
                self._changed.notify_all()
            if (data := self._answer(payload.decode())) is not None:
                peer.send(data)

    def wait(self, count: int) -> list[str]:
        """The commands of the last connection, once there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.connections and len(self.connections[-1]) >= count, WAIT), (
                self.connections
            )
            return list(self.connections[-1])


def make(server: ScriptServer, subscriptions: Any = (), **settings: Any) -> jvq.Feed:
    return jvq.Feed(TOKEN, subscriptions, server=server.ws, **({"backoff_min": 0.01, "backoff_max": 0.02} | settings))


# --- what is a subscription ---


@pytest.mark.parametrize(
    "wrong",
    ["600519", "lv3_600519", "lv2-600519", "lv2_", "lv2_123456789", "lv2_6005 9", "lv2_600519,lv1_1", "LV2_1", ""],
)
def test_what_is_no_subscription_is_named(wrong: str) -> None:
    feed = jvq.Feed(TOKEN, ["lv1_1"])
    for use in (feed.subscribe, feed.unsubscribe, feed.replace, lambda names: jvq.Feed(TOKEN, names)):
        with pytest.raises(ValueError, match=f"not a subscription: '{wrong}'"):
            use(["lv2_600519", wrong])
        with pytest.raises(TypeError, match="a str, not 600519"):
            use([600519])
    assert feed.subscriptions == ("lv1_1",)


def test_subscriptions_keep_their_order_and_do_not_repeat() -> None:
    feed = jvq.Feed(TOKEN, ["lv2_600519", "lv1_000001", "lv2_600519", "lv10_i000001"])
    assert feed.subscriptions == ("lv2_600519", "lv1_000001", "lv10_i000001")
    feed.subscribe("lv1_000002")
    feed.unsubscribe(["lv2_600519", "lv1_999999"])
    assert feed.subscriptions == ("lv1_000001", "lv10_i000001", "lv1_000002")
    feed.replace(f"lv1_{n:06}" for n in range(3))
    assert feed.subscriptions == ("lv1_000000", "lv1_000001", "lv1_000002")


def test_more_codes_than_max_codes_are_refused_whole() -> None:
    with pytest.raises(ValueError, match="max_codes=2"):
        jvq.Feed(TOKEN, ["lv1_1", "lv1_2", "lv1_3"], max_codes=2)
    feed = jvq.Feed(TOKEN, ["lv1_1", "lv2_1", "lv10_2"], max_codes=2)
    for use in (feed.subscribe, feed.replace):
        with pytest.raises(ValueError, match="max_codes=2"):
            use(["lv1_1", "lv1_3", "lv1_4"])
    assert feed.subscriptions == ("lv1_1", "lv2_1", "lv10_2")


# --- on the wire ---


def test_the_whole_subscription_goes_out_as_one_command() -> None:
    ear = Ear()
    names = [f"lv1_{n:06}" for n in range(1076)]
    with ScriptServer(ear) as server, make(server, names):
        assert ear.wait(1) == ["all=" + ",".join(names)]


def test_nothing_is_sent_for_an_empty_subscription() -> None:
    ear = Ear()
    with ScriptServer(ear) as server:
        feed = make(server)
        connected = threading.Event()
        feed.on_connect(lambda address: connected.set())
        with feed:
            assert connected.wait(WAIT)
            feed.subscribe("lv1_000001")
            feed.replace(())
            assert ear.wait(2) == ["add=lv1_000001", "all="]


def test_changes_go_out_in_their_order_and_only_when_there_are_any() -> None:
    ear = Ear()
    with ScriptServer(ear) as server:
        feed = make(server, ["lv2_600519"])
        with feed:
            ear.wait(1)
            feed.subscribe(["lv2_600519", "lv1_600519", "lv1_000001"])
            feed.subscribe("lv1_600519")
            feed.unsubscribe(["lv1_600519", "lv1_999999"])
            feed.unsubscribe("lv1_600519")
            feed.replace(["lv10_600519"])
            feed.replace([])
            assert ear.wait(5) == [
                "all=lv2_600519",
                "add=lv1_600519,lv1_000001",
                "del=lv1_600519",
                "all=lv10_600519",
                "all=",
            ]


def test_what_many_threads_ask_for_is_what_the_server_gets() -> None:
    ear = Ear()
    with ScriptServer(ear) as server, make(server, ["lv1_0"]) as feed:
        ear.wait(1)

        def change(thread: int) -> None:
            for n in range(100):
                feed.subscribe(f"lv1_{thread}{n:05}")
                if n % 3:
                    feed.unsubscribe(f"lv1_{thread}{n:05}")

        threads = [threading.Thread(target=change, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
        wanted = set(feed.subscriptions)
        feed.replace(["lv1_end"])
        commands = ear.wait(1)
        while commands[-1] != "all=lv1_end":
            commands = ear.wait(len(commands) + 1)
    held: set[str] = set()
    for command in commands[:-1]:
        verb, _, names = command.partition("=")
        held = held - {names} if verb == "del" else held | {names}
    assert held == wanted


def test_handlers_can_change_the_subscription() -> None:
    ear = Ear(lambda command: binary(trade(1)) if command.startswith("all=") else binary(trade(2)))
    with ScriptServer(ear) as server:
        feed = make(server, ["lv2_600519"])
        feed.on_connect(lambda address: feed.subscribe("lv1_000001"))

        @feed.on_trades
        def on_trades(code: str, trades: Any) -> None:
            if trades["id"][0] == 1:
                feed.unsubscribe(f"lv2_{code}")
                feed.subscribe(["lv1_000002", "lv1_000003"])

        with feed:
            assert ear.wait(4)[:2] == ["all=lv2_600519", "add=lv1_000001"]
            assert sorted(ear.wait(4)[2:4]) == ["add=lv1_000002,lv1_000003", "del=lv2_600519"]
        assert feed.subscriptions == ("lv1_000001", "lv1_000002", "lv1_000003")


def test_what_changed_while_the_feed_was_away_is_part_of_the_next_subscription() -> None:
    ear = Ear()
    away = threading.Event()

    def first(peer: Peer) -> None:
        peer.accept()
        peer.text()

    def closed(peer: Peer) -> None:
        away.set()
        peer.read_head()
        assert changed.wait(WAIT)

    changed = threading.Event()
    with ScriptServer(first, closed, ear) as server, make(server, ["lv2_600519"]) as feed:
        assert away.wait(WAIT)
        feed.subscribe("lv1_000001")
        feed.unsubscribe("lv2_600519")
        feed.subscribe("lv1_000002")
        changed.set()
        assert ear.wait(1) == ["all=lv1_000001,lv1_000002"]


# --- storage ---


def test_what_is_subscribed_has_its_storage_before_its_first_record() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        assert peer.text() == "all=lv2_600519"
        peer.send(binary(trade(1)))
        assert peer.text() == "add=lv2_000001"
        # The storage is taken on the feed's loop, soon after the command is sent.
        time.sleep(0.2)
        peer.send(binary(trade(2, "000001")))
        peer.until_closed()

    with ScriptServer(script) as server:
        feed = make(server, ["lv2_600519"])

        @feed.on_trades
        def on_trades(code: str, trades: Any) -> None:
            if code == "000001":
                feed.stop()
            else:
                feed.subscribe("lv2_000001")

        assert feed.history("600519", "trades").nbytes > 0
        feed.run()
    assert feed.stats()["storage_late"] == 0
    assert feed.history("000001", "trades").head == 1


def test_codes_that_have_no_room_any_more_are_reported_not_refused() -> None:
    with ScriptServer(serve(binary(trade(1, "1") + trade(2, "2")))) as server:
        feed = make(server, ["lv2_1", "lv2_2"], max_codes=2)
        errors: list[tuple[Exception, str]] = []
        feed.on_error(lambda error, where: errors.append((error, where)))
        feed.on_batch(lambda n: feed.stop())
        feed.run()
        feed.replace(["lv2_3"])
        feed.run()
    assert {where for _, where in errors} == {"reserve"}
    assert "'3'" in str(errors[0][0])


# --- requests ---


def lists(command: str) -> bytes | None:
    return frame(TEXT, f"0#{command}".encode()) if command in ("list", "his") else None


def test_a_request_returns_the_next_text() -> None:
    ear = Ear(lists)
    with ScriptServer(ear) as server:
        feed = make(server, "lv2_600519")
        texts: list[str] = []
        feed.on_text(texts.append)
        with feed:
            assert feed.request("list", timeout=WAIT) == "0#list"
            assert feed.request("his", WAIT) == "0#his"
        assert texts == ["0#list", "0#his"]
        assert ear.connections[0][-2:] == ["list", "his"]


def test_requests_of_many_threads_each_get_a_reply() -> None:
    ear = Ear(lists)
    with ScriptServer(ear) as server, make(server) as feed:
        replies: list[str] = []

        def ask() -> None:
            for _ in range(20):
                replies.append(feed.request("list", WAIT))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT)
    assert replies == ["0#list"] * 80


def test_a_request_without_a_reply_ends_at_its_timeout() -> None:
    ear = Ear()
    with ScriptServer(ear) as server, make(server) as feed:
        with pytest.raises(jvq.RequestTimeoutError, match=r"'list' within 0\.1 s"):
            feed.request("list", timeout=0.1)
        with pytest.raises(TimeoutError):
            feed.request("his", timeout=0.1)


def test_a_request_ends_at_its_timeout_although_a_handler_holds_the_loop_up() -> None:
    released = threading.Event()
    with ScriptServer(serve(binary(trade(1)), subscribed=False)) as server:
        feed = make(server)
        held = threading.Event()
        feed.on_batch(lambda n: (held.set(), released.wait(WAIT)))
        with feed:
            assert held.wait(WAIT)
            with pytest.raises(jvq.RequestTimeoutError):
                feed.request("list", timeout=0.1)
            released.set()


def test_a_refusal_is_raised_by_the_request_and_reported() -> None:
    ear = Ear(lambda command: frame(TEXT, "-1#无此命令".encode()) if command == "his" else None)
    with ScriptServer(ear) as server:
        feed = make(server)
        errors: list[tuple[Exception, str]] = []
        texts: list[str] = []
        feed.on_error(lambda error, where: errors.append((error, where)))
        feed.on_text(texts.append)
        with feed:
            with pytest.raises(jvq.ServerError, match="无此命令"):
                feed.request("his", timeout=WAIT)
        assert texts == ["-1#无此命令"]
        assert [(type(error), where) for error, where in errors] == [(jvq.ServerError, "text")]
        assert feed.stats()["server_errors"] == 1


def test_a_request_waits_for_the_connection() -> None:
    def slow(peer: Peer) -> None:
        time.sleep(0.3)
        Ear(lists)(peer)

    with ScriptServer(slow) as server, make(server) as feed:
        assert feed.request("list", timeout=WAIT) == "0#list"
    with ScriptServer(lambda peer: peer.until_closed()) as server, make(server) as feed:
        with pytest.raises(jvq.NotConnectedError, match=r"no connection within 0\.1 s"):
            feed.request("list", timeout=0.1)


def test_a_request_fails_when_the_connection_or_the_feed_ends() -> None:
    def lose(peer: Peer) -> None:
        peer.accept()
        peer.frame()  # a request; of the connection after it, the end of the feed perhaps

    with ScriptServer(lose) as server, make(server) as feed:
        with pytest.raises(jvq.NotConnectedError, match="lost"):
            feed.request("list", timeout=WAIT)
    with pytest.raises(jvq.NotConnectedError, match="not running"):
        feed.request("list")
    with pytest.raises(jvq.NotConnectedError, match="not running"):
        asyncio.run(feed.request_async("list"))

    asked = threading.Event()

    def listen(peer: Peer) -> None:
        peer.accept()
        peer.text()
        asked.set()
        peer.until_closed()

    with ScriptServer(listen) as server, make(server) as feed:
        stopper = threading.Thread(target=lambda: (asked.wait(WAIT), feed.stop()))
        stopper.start()
        with pytest.raises(jvq.NotConnectedError):
            feed.request("list", timeout=WAIT)
        stopper.join(WAIT)


def test_a_request_on_the_feeds_own_thread_would_wait_for_itself() -> None:
    ear = Ear(lists)
    with ScriptServer(ear) as server:
        feed = make(server)
        errors: list[Exception] = []
        replies: list[str] = []
        feed.on_error(lambda error, where: errors.append(error))

        async def ask() -> None:
            replies.append(await feed.request_async("list", WAIT))
            feed.stop()

        tasks: list[asyncio.Task[None]] = []

        @feed.on_connect
        def on_connect(address: str) -> None:
            tasks.append(asyncio.get_running_loop().create_task(ask()))
            feed.request("list")

        feed.run()
    assert isinstance(errors[0], RuntimeError)
    assert "request_async" in str(errors[0])
    assert replies == ["0#list"]


def test_request_async_belongs_to_the_feeds_loop() -> None:
    ear = Ear(lists)
    with ScriptServer(ear) as server, make(server) as feed:
        ear_ready = feed.request("list", WAIT)
        assert ear_ready == "0#list"
        with pytest.raises(RuntimeError, match="own loop"):
            asyncio.run(feed.request_async("list"))
        with pytest.raises(ValueError, match="'all='"):
            feed.request("all=")  # type: ignore[arg-type]


# --- texts ---


@pytest.mark.parametrize("text", ["", "0#", "hello", "行情", "x-1#", '{"a":1}', "a\nb"])
def test_texts_go_to_their_handlers_as_they_came(text: str) -> None:
    with ScriptServer(serve(frame(TEXT, text.encode()), frame(PING, b""), subscribed=False)) as server:
        feed = make(server)
        texts: list[str] = []
        errors: list[Exception] = []
        feed.on_error(lambda error, where: errors.append(error))

        @feed.on_text
        def on_text(text: str) -> None:
            texts.append(text)
            feed.stop()

        feed.run()
    assert texts == [text]
    assert errors == []


def test_a_refusal_is_classified() -> None:
    refusals = ["-1#账户连接数已达并发上限", "-1#", "-1#other"]
    frames = [binary(trade(1)), *(frame(TEXT, text.encode()) for text in refusals)]
    with ScriptServer(serve(*frames, subscribed=False)) as server:
        feed = make(server)
        errors: list[Any] = []

        @feed.on_error
        def on_error(error: Any, where: str) -> None:
            assert where == "text"
            errors.append(error)
            if len(errors) == 3:
                feed.stop()

        feed.run()
    assert [type(error) for error in errors] == [jvq.ConnectionLimitError, jvq.ServerError, jvq.ServerError]
    assert [error.text for error in errors] == refusals
