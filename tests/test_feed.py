"""The life of a feed: how it is run, stopped, interrupted, and what it raises."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import jvq_fast as jvq
from this_process import descriptors
from ws_script import PING, PONG, TOKEN, Peer, Script, ScriptServer, binary, frame, reply, serve, trade
from ws_script import TEXT as TEXT_FRAME

WAIT = 20
LOOPS = ["asyncio", "asyncio without aiofastnet", "uvloop"]


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Each kind of loop in turn: the name for Feed(loop=…)."""
    if request.param == "asyncio without aiofastnet":
        monkeypatch.setattr("jvq_fast.connection.uses_aiofastnet", lambda loop: False)
    if request.param == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed")
    return request.param.partition(" ")[0]


def stream(peer: Peer) -> None:
    """Trades 0, 1, 2, … one message each, until the client goes."""
    peer.accept()
    peer.text()
    with contextlib.suppress(OSError):
        for number in range(1_000_000):
            peer.send(binary(trade(number)))
            time.sleep(0.001)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_pings_of_a_server_that_reads_nothing_fill_no_memory(loop: Any) -> None:
    pings, last = 150_000, b"the last"
    waiting: list[int] = []
    pongs: list[bytes] = []

    def flood(peer: Peer) -> None:
        peer.accept()
        peer.text()
        many = frame(PING, b"x" * 125) * 1000
        for _ in range(pings // 1000):
            peer.send(many)
        peer.send(frame(PING, last), binary(trade(1)))
        while not pongs or pongs[-1] != last:
            kind, payload = peer.frame()
            assert kind == PONG
            pongs.append(payload)
        peer.until_closed()

    with ScriptServer(flood) as server:
        feed = make(server, loop=loop)

        @feed.on_batch
        def look(n: int) -> None:
            transport = feed._channel.connection._transport  # type: ignore[union-attr]
            waiting.append(transport.underlying_transport.get_write_buffer_size())  # type: ignore[union-attr]

        with feed:
            deadline = time.monotonic() + WAIT
            while not pongs or pongs[-1] != last:
                assert time.monotonic() < deadline, feed.stats()
                assert not feed.join(0.01)
            assert feed.stats()["pings"] == pings + 1
    assert waiting
    assert waiting[0] < 1 << 20
    assert 1 < len(pongs) < pings


def make(server: ScriptServer, **settings: Any) -> jvq.Feed:
    return jvq.Feed(TOKEN, "lv2_600519", server=server.ws, **({"backoff_min": 0.01, "backoff_max": 0.02} | settings))


@pytest.fixture
def server() -> Iterator[ScriptServer]:
    with ScriptServer(stream) as server:
        yield server


# --- stop ---


def test_stop_in_a_handler_ends_the_run(server: ScriptServer, loop: Any) -> None:
    feed = make(server, loop=loop)
    events: list[object] = []
    feed.on_connect(events.append)
    feed.on_disconnect(events.append)
    feed.on_trades(lambda code, trades: feed.stop())
    feed.run()
    assert events == [server.ws, "stopped"]
    assert not feed.connected
    assert feed.stats()["connects"] == feed.stats()["disconnects"] == 1


def test_stop_drops_the_rest_of_the_read(loop: Any) -> None:
    seen: list[int] = []
    with ScriptServer(serve(*(binary(trade(n)) for n in range(10)))) as server:
        feed = make(server, loop=loop)

        @feed.on_trades
        def on_trades(code: str, trades: Any) -> None:
            seen.extend(trades["id"])
            if seen[-1] == 3:
                feed.stop()

        feed.run()
    assert seen == [0, 1, 2, 3]
    assert feed.trades.head == 4


def test_stop_from_another_thread_ends_the_run(server: ScriptServer, loop: Any) -> None:
    feed = make(server, loop=loop)
    first = threading.Event()
    feed.on_batch(lambda n: first.set())

    def stop() -> None:
        assert first.wait(WAIT)
        feed.stop()
        feed.stop()

    thread = threading.Thread(target=stop)
    thread.start()
    feed.run()
    thread.join(WAIT)
    assert feed.trades.head > 0


def test_stop_in_a_signal_handler_ends_the_run(server: ScriptServer, loop: Any) -> None:
    feed = make(server, loop=loop)
    before = signal.signal(signal.SIGALRM, lambda *_: feed.stop())
    try:
        feed.on_connect(lambda address: signal.setitimer(signal.ITIMER_REAL, 0.05))
        feed.run()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert feed.stats()["disconnects"] == 1


def test_stop_before_the_first_run_is_remembered_for_that_run_only(server: ScriptServer) -> None:
    feed = make(server)
    feed.stop()
    feed.stop()
    feed.run()
    assert server.accepted == 0
    feed.stop()
    feed.on_trades(lambda code, trades: feed.stop())
    feed.run()
    assert server.accepted == 1


@pytest.mark.parametrize("where", ["name lookup", "connect", "handshake", "allocation", "backoff"])
def test_stop_ends_any_wait(where: str, monkeypatch: pytest.MonkeyPatch, loop: Any) -> None:
    reached, release = threading.Event(), threading.Event()

    def hang(peer: Peer) -> None:
        peer.read_head()
        reached.set()
        peer.until_closed()

    def lookup(*arguments: Any, **named: Any) -> Any:
        reached.set()
        assert release.wait(WAIT)
        raise OSError

    with ScriptServer(hang) as server:
        settings: dict[str, Any] = {"server": server.ws}
        if where == "name lookup":
            settings["server"] = "ws://nowhere.invalid:1"
            monkeypatch.setattr("socket.getaddrinfo", lookup)
        elif where == "connect":
            # A full backlog swallows the connection attempt.
            full = socket.create_server(("127.0.0.1", 0), backlog=0)
            clients = [socket.socket() for _ in range(4)]
            for client in clients:
                client.setblocking(False)
                client.connect_ex(full.getsockname())
            settings["server"] = f"ws://127.0.0.1:{full.getsockname()[1]}"
            threading.Timer(0.2, reached.set).start()
        elif where == "allocation":
            settings = {"allocation": server.http}
        elif where == "backoff":
            server.scripts = [lambda peer: peer.accept()]
            settings |= {"backoff_min": 1e6, "backoff_max": 1e6}
        feed = jvq.Feed(TOKEN, loop=loop, connect_timeout=WAIT, handshake_timeout=WAIT, **settings)
        feed.on_disconnect(lambda reason: reached.set())
        feed.start()
        assert reached.wait(WAIT)
        feed.stop()
        assert feed.join(WAIT)
        release.set()
        if where == "connect":
            for client in clients:
                client.close()
            full.close()


def test_stop_at_any_moment_of_the_start_ends_the_run_and_leaves_no_descriptor(loop: Any) -> None:
    with ScriptServer(stream) as server:
        before = len(descriptors())
        for n in range(100):
            feed = make(server, loop=loop)
            feed.start()
            time.sleep(n * 0.00005)
            feed.stop()
            assert feed.join(WAIT)
            assert not feed.connected
        gc.collect()
        assert len(descriptors()) <= before + 5


def test_a_peer_that_never_closes_does_not_hold_the_end_up() -> None:
    released = threading.Event()

    def deaf(peer: Peer) -> None:
        peer.accept(binary(trade(1)))
        assert released.wait(WAIT)

    with ScriptServer(deaf) as server:
        feed = make(server, close_timeout=0.05)
        # More than the socket takes, so that closing politely would wait for ever.
        feed.on_trades(lambda code, trades: [feed.replace(f"lv2_{n:06}" for n in range(8000)) for _ in range(60)])
        feed.on_batch(lambda n: feed.stop())
        feed.run()
        released.set()


# --- run ---


def test_a_feed_that_ended_can_be_run_again_and_drops_what_it_had(loop: Any) -> None:
    scripts: list[Script] = [serve(binary(trade(1) + trade(2))), serve(binary(trade(2) + trade(3)))]
    with ScriptServer(*scripts) as server:
        feed = make(server, loop=loop)
        gaps: list[jvq.Gap] = []
        feed.on_gap(gaps.append)
        feed.on_batch(lambda n: feed.stop())
        feed.run()
        feed.run()
    assert list(feed.trades.last(9)["id"]) == [1, 2, 3]
    assert feed.stats()["duplicates"] == 1
    assert feed.stats()["reconnects"] == 1
    assert gaps == []


def test_a_feed_runs_once_at_a_time(server: ScriptServer) -> None:
    feed = make(server)
    with feed:
        for begin in (feed.run, feed.start, lambda: asyncio.run(feed.run_async())):
            with pytest.raises(RuntimeError, match="running already"):
                begin()
    feed.start()
    feed.stop()
    assert feed.join(WAIT)


def test_run_refuses_a_running_loop_and_says_what_to_do(server: ScriptServer) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="run_async"):
            make(server).run()

    asyncio.run(main())


@pytest.mark.parametrize("uv", [False, True])
def test_run_async_lives_in_the_callers_loop(server: ScriptServer, uv: bool) -> None:
    factory = pytest.importorskip("uvloop").new_event_loop if uv else None
    feed = make(server)
    loops = []
    feed.on_batch(lambda n: loops.append(asyncio.get_running_loop()))

    async def main() -> None:
        running = asyncio.create_task(feed.run_async())
        while feed.trades.head < 5:
            await asyncio.sleep(0.01)
        feed.stop()
        await asyncio.wait_for(running, WAIT)
        assert set(loops) == {asyncio.get_running_loop()}

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(asyncio.wait_for(main(), WAIT))
    assert str(feed.stats()["loop"]).startswith("uvloop" if uv else "asyncio")


def test_run_async_cancelled_closes_the_connection(server: ScriptServer) -> None:
    feed = make(server)
    reasons: list[str] = []
    feed.on_disconnect(reasons.append)

    async def main() -> None:
        running = asyncio.create_task(feed.run_async())
        while not feed.trades.head:
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not feed.connected

    asyncio.run(asyncio.wait_for(main(), WAIT))
    assert reasons == ["cancelled"]


@pytest.mark.parametrize("where", ["connecting", "open", "connect", "live", "probing", "waiting"])
def test_run_async_cancelled_in_a_handler_ends_in_good_order(where: str, loop: Any) -> None:
    told: list[str] = []
    with ScriptServer(serve(binary(trade(1)))) as server:
        feed = make(server, loop=loop, stale_trades=0.2, probe_timeout=0.1, clock="always")
        running: list[asyncio.Task[None]] = []

        def tell(what: str) -> None:
            told.append(what)
            if what == where:
                running[0].cancel()

        feed.on_state(lambda state, reason: tell(state))
        feed.on_connect(lambda address: tell("connect"))
        feed.on_disconnect(lambda reason: tell("disconnect"))
        feed.on_trades(lambda code, trades: tell("trade"))

        async def main() -> None:
            running.append(asyncio.ensure_future(feed.run_async()))
            with pytest.raises(asyncio.CancelledError):
                await running[0]
            before = list(told)
            await asyncio.sleep(0.1)
            assert told == before

        with asyncio.Runner(loop_factory=feed._loop_factory) as runner:
            runner.run(asyncio.wait_for(main(), WAIT))
        gc.collect()
    assert told[-1] == "stopped"
    assert told.count("connect") == told.count("disconnect") == (where != "connecting")
    assert feed.stats()["connects"] == feed.stats()["disconnects"]


def test_a_stop_that_comes_too_late_does_not_end_the_next_run(server: ScriptServer) -> None:
    feed = make(server)
    runs: list[int] = []
    feed.on_batch(lambda n: feed.stop())
    feed.on_disconnect(lambda reason: feed.stop())

    async def main() -> None:
        for _ in range(3):
            await feed.run_async()
            runs.append(int(feed.stats()["connects"]))

    asyncio.run(asyncio.wait_for(main(), WAIT))
    assert runs == [1, 2, 3]


def test_run_async_cancelled_while_connecting_leaves_nothing_open() -> None:
    def hang(peer: Peer) -> None:
        peer.read_head()
        peer.until_closed()

    with ScriptServer(hang) as server:

        async def main() -> None:
            feed = make(server)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(feed.run_async(), 0.3)
            assert len(asyncio.all_tasks()) == 1

        asyncio.run(main(), debug=True)
        assert server.accepted == 1


# --- start and join ---


def test_join_waits_and_says_whether_it_has_ended(server: ScriptServer) -> None:
    feed = make(server)
    with pytest.raises(RuntimeError, match="without start"):
        feed.join()
    assert feed.start() is feed
    assert feed.join(0.01) is False
    feed.stop()
    assert feed.join(WAIT) is True
    assert feed.join() is True


def test_join_on_the_feeds_own_thread_would_wait_for_itself(server: ScriptServer) -> None:
    feed = make(server)
    errors: list[Exception] = []
    feed.on_error(lambda error, where: errors.append(error))

    @feed.on_batch
    def on_batch(n: int) -> None:
        feed.stop()
        feed.join()

    feed.start()
    assert feed.join(WAIT)
    assert "own thread" in str(errors[0])


def in_a_block(server: ScriptServer, error: type[Exception] | None = None) -> None:
    with make(server) as feed:
        assert feed._ended.wait(WAIT)
        if error is not None:
            raise error


def test_an_error_of_the_thread_is_raised_in_join_and_at_the_end_of_a_with_block() -> None:
    with ScriptServer(reply(403, b"")) as server:
        feed = make(server).start()
        for _ in range(2):
            with pytest.raises(jvq.HandshakeError):
                feed.join(WAIT)
        with pytest.raises(jvq.HandshakeError):
            in_a_block(server)


def test_an_error_in_a_with_block_is_not_hidden(caplog: pytest.LogCaptureFixture) -> None:
    with ScriptServer(reply(403, b"")) as server:
        with pytest.raises(ZeroDivisionError):
            in_a_block(server, ZeroDivisionError)
    assert "403" in caplog.text


def test_a_with_block_stops_the_feed(server: ScriptServer) -> None:
    with make(server) as feed:
        while not feed.trades.head:
            time.sleep(0.01)
    assert not feed.connected
    assert feed.join()


# --- what comes out of a run ---


def unusable(peer: Peer) -> None:
    peer.read_head()
    peer.send(b"\x00\x01\x02 nonsense\r\n\r\n")


def silent(peer: Peer) -> None:
    peer.read_head()
    peer.until_closed()


def refusing(text: str) -> Script:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.send(frame(TEXT_FRAME, text.encode()))

    return script


FIRST = {
    "HTTP 401": (reply(401, b""), jvq.HandshakeError, "401"),
    "HTTP 200": (reply(200, b"hello"), jvq.HandshakeError, "200"),
    "redirect": (reply(302, b"", b"Location: ws://127.0.0.1:1/"), jvq.HandshakeError, "302"),
    "closed": (lambda peer: peer.read_head(), jvq.HandshakeError, "during the handshake"),
    "garbage": (unusable, jvq.HandshakeError, "no WebSocket server"),
    "silent": (silent, jvq.ConnectError, "in time|within"),
    "refused by text": (refusing("-1#token错误"), jvq.ServerError, "-1#token错误"),
    "too many": (refusing("-1#账户连接数已达并发上限"), jvq.ConnectionLimitError, "并发上限"),
}


@pytest.mark.parametrize("kind", FIRST)
def test_a_first_connection_that_fails_is_raised(kind: str, loop: Any) -> None:
    script, error, words = FIRST[kind]
    with ScriptServer(script) as server:
        feed = make(server, loop=loop, handshake_timeout=0.3, connect_timeout=5)
        with pytest.raises(error, match=words) as caught:
            feed.run()
        assert server.accepted == 1
    assert type(caught.value) is error or kind == "silent"
    assert caught.value.__cause__ is None
    if kind.startswith("HTTP"):
        assert caught.value.status == int(words)  # type: ignore[attr-defined]


def test_attempts_that_end_at_once_leave_no_descriptor(loop: Any) -> None:
    def at_once(peer: Peer) -> None:
        peer.sock.shutdown(socket.SHUT_RDWR)

    with ScriptServer(at_once) as server:
        before = len(descriptors())
        for _ in range(50):
            with pytest.raises(jvq.ConnectError):
                make(server, loop=loop).run()
        gc.collect()
        assert len(descriptors()) <= before + 5


def test_a_server_that_is_not_there_is_raised(loop: Any) -> None:
    with ScriptServer(silent) as server:
        pass
    with pytest.raises(jvq.ConnectError, match=f"127.0.0.1:{server.port} can't be reached: .*refused"):
        make(server, loop=loop).run()


def test_a_name_that_is_not_known_is_raised(loop: Any) -> None:
    with pytest.raises(jvq.ConnectError, match=r"nowhere\.invalid.*looked up"):
        jvq.Feed(TOKEN, server="nowhere.invalid:80", loop=loop).run()


def test_the_total_time_to_connect_is_bounded(loop: Any) -> None:
    with ScriptServer(silent) as server:
        with pytest.raises(jvq.ConnectError, match=r"within 0\.3 s"):
            make(server, loop=loop, connect_timeout=0.3, handshake_timeout=WAIT).run()


def go(feed: jvq.Feed, way: str) -> None:
    if way == "run":
        feed.run()
    elif way == "start":
        feed.start().join(WAIT)
    else:
        with asyncio.Runner(loop_factory=feed._loop_factory) as runner:
            runner.run(feed.run_async())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["on_trades", "on_batch", "on_connect", "on_text", "on_gap", "on_disconnect"])
def test_what_ends_the_program_comes_out_of_every_way_to_run(
    kind: type[BaseException], where: str, loop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def once(peer: Peer) -> None:
        peer.accept()
        peer.text()
        peer.send(frame(TEXT_FRAME, b"0#ok"), binary(trade(server.accepted)))

    def interrupt(*_: object) -> None:
        raise kind("from a handler")

    for way in ("run", "start", "run_async"):
        with ScriptServer(once) as server:
            feed = make(server, loop=loop)
            getattr(feed, where)(interrupt)
            with pytest.raises(kind, match="from a handler"):
                go(feed, way)
            assert not feed.connected
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize("where", ["on_stale", "on_lag", "probing", "waiting", "closing", "stopped"])
def test_what_ends_the_program_comes_out_of_what_is_told_beside_the_data(
    where: str, loop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt("from a handler")

    watchful: dict[str, Any] = {"stale_trades": 0.2, "probe_timeout": 0.1, "clock": "always"}
    for way in ("run", "run_async"):
        with ScriptServer(serve(binary(trade(1)))) as server:
            feed = make(server, loop=loop, max_callback_time=0.01, **watchful)
            if where.startswith("on_"):
                getattr(feed, where)(interrupt)
                feed.on_trades(lambda code, trades: time.sleep(0.02))
            else:
                feed.on_state(lambda state, reason: interrupt() if state == where else None)
            if where in ("closing", "stopped"):
                feed.on_batch(lambda n, feed=feed: feed.stop())
            watchdog = threading.Timer(WAIT, feed.stop)
            watchdog.start()
            with pytest.raises(KeyboardInterrupt, match="from a handler"):
                go(feed, way)
            watchdog.cancel()
            assert not feed.connected
            assert feed.state == "stopped"
        gc.collect()
    assert "never retrieved" not in caplog.text


def test_an_exception_of_any_handler_is_reported_and_the_feed_goes_on(loop: Any) -> None:
    def twice(peer: Peer) -> None:
        peer.accept()
        peer.text()
        peer.send(frame(TEXT_FRAME, b"0#ok"), binary(trade(server.accepted)))

    names = ["on_connect", "on_text", "on_trades", "on_batch", "on_disconnect", "on_gap"]
    with ScriptServer(twice) as server:
        feed = make(server, loop=loop)
        seen: list[str] = []

        def fail(*_: object) -> None:
            raise ZeroDivisionError

        for name in names:
            getattr(feed, name)(fail)

        @feed.on_error
        def report(error: BaseException, where: str) -> None:
            assert isinstance(error, ZeroDivisionError)
            seen.append(where)
            if where == "on_gap":
                feed.stop()
            raise ZeroDivisionError("in on_error itself")

        feed.run()
    assert set(names) <= set(seen)
    assert int(feed.stats()["callback_errors"]) >= len(names)


SCRIPT = """
import asyncio, signal, sys
import jvq_fast as jvq
feed = jvq.Feed("{token}", "lv2_600519", server=sys.argv[1], loop=sys.argv[3])
feed.on_connect(lambda server: print("connected", flush=True))
{extra}
try:
    if sys.argv[2] == "run":
        feed.run()
    elif sys.argv[2] == "run_async":
        with asyncio.Runner(loop_factory=feed._loop_factory) as runner:
            runner.run(feed.run_async())
    else:
        with feed:
            feed.join()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def interrupted_child(script: str, server: ScriptServer, way: str, loop: str, presses: int = 1) -> str:
    child = subprocess.Popen(
        [sys.executable, "-c", script.replace("{token}", TOKEN), server.ws, way, loop],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "connected\n"
        for _ in range(presses):
            time.sleep(0.2)
            child.send_signal(signal.SIGINT)
        output, errors = child.communicate(timeout=WAIT)
    finally:
        child.kill()
        child.wait(WAIT)
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
    assert errors == ""
    assert child.returncode == 0
    return output


@pytest.mark.parametrize("way", ["run", "run_async", "start"])
@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_ctrl_c_is_a_keyboard_interrupt_and_says_goodbye(way: str, kind: str) -> None:
    codes: list[int] = []

    def script(peer: Peer) -> None:
        peer.accept()
        peer.text()
        codes.append(peer.close_code())

    with ScriptServer(script) as server:
        assert interrupted_child(SCRIPT.replace("{extra}", ""), server, way, kind) == "interrupted\n"
    assert codes == [1000]


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_the_traceback_of_ctrl_c_is_short(kind: str) -> None:
    script = SCRIPT.replace("{extra}", "import traceback").replace(
        'print("interrupted", flush=True)', "traceback.print_exc(file=sys.stdout)"
    )
    with ScriptServer(stream) as server:
        lines = interrupted_child(script, server, "run", kind).splitlines()
    assert lines[-1] == "KeyboardInterrupt"
    assert "CancelledError" not in lines
    assert len(lines) < 10, lines


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_ctrl_c_twice_ends_a_handler_that_never_returns(kind: str) -> None:
    extra = """
@feed.on_trades
def forever(code, trades):
    while True:
        pass
"""
    with ScriptServer(stream) as server:
        assert interrupted_child(SCRIPT.replace("{extra}", extra), server, "run", kind, 2) == "interrupted\n"


# --- settings ---


def test_the_loop_is_chosen_and_named(server: ScriptServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def loop_of(**settings: Any) -> str:
        feed = make(server, **settings)
        assert feed.stats()["loop"] == ""
        feed.on_connect(lambda address: feed.stop())
        feed.run()
        return str(feed.stats()["loop"])

    pytest.importorskip("uvloop", reason="uvloop is not installed")
    assert loop_of() == loop_of(loop="uvloop") == "uvloop"
    assert loop_of(loop="asyncio").startswith("asyncio")
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert loop_of().startswith("asyncio")
    with pytest.raises(ImportError, match="pip install uvloop"):
        make(server, loop="uvloop")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loop": "trio"}, "'trio'"),
        ({"connect_timeout": 0}, "connect_timeout"),
        ({"handshake_timeout": -1}, "handshake_timeout"),
        ({"allocation_timeout": 0}, "allocation_timeout"),
        ({"allocation_interval": -1}, "allocation_interval"),
        ({"close_timeout": float("nan")}, "close_timeout"),
        ({"backoff_min": 2, "backoff_max": 1}, "backoff_max 1"),
        ({"max_message": 0}, "max_message"),
        ({"market": "xx"}, "xx"),
        ({"clock": "sun"}, "sun"),
        ({"trading_day": "tomorrow"}, "tomorrow"),
        ({"capacity": 0}, "0"),
    ],
)
def test_wrong_settings_are_named_at_once(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        jvq.Feed(TOKEN, **settings)


@pytest.mark.parametrize("token", ["", " ", "a b", "line\n", "中文", "tab\t", "a&b", "a#b", "a'b", "a%41"])
def test_a_text_that_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="token"):
        jvq.Feed(token)


def test_registering_returns_the_function(server: ScriptServer) -> None:
    feed = make(server)

    def handler(*_: object) -> None: ...

    for name in ["trades", "quotes", "depths", "batch", "error", "connect", "disconnect", "gap", "text"]:
        assert getattr(feed, f"on_{name}")(handler) is handler
    with pytest.raises(TypeError):
        feed.on_text(None)  # type: ignore[arg-type]


def test_handlers_are_called_in_order_of_registration(loop: Any) -> None:
    with ScriptServer(serve(binary(trade(1)))) as server:
        feed = make(server, loop=loop)
        order: list[str] = []
        feed.on_connect(lambda address: order.append("connect 1"))
        feed.on_connect(lambda address: order.append("connect 2"))
        feed.on_trades(lambda code, trades: order.append("trades 1"))
        feed.on_trades(lambda code, trades: order.append("trades 2"))
        feed.on_batch(lambda n: order.append("batch"))
        feed.on_batch(lambda n: feed.stop())
        feed.run()
    assert order == ["connect 1", "connect 2", "trades 1", "trades 2", "batch"]


def test_stats_and_data_can_be_read_from_another_thread_while_it_runs(server: ScriptServer) -> None:
    with make(server) as feed:
        heads = []
        while feed.trades.head < 50:
            stats = feed.stats()
            records, cursor, lost = feed.trades.copy_since(0)
            assert len(records) + lost == cursor
            assert int(stats["trades"]) <= feed.trades.head
            heads.append(int(stats["frames"]))
            time.sleep(0.002)
        assert feed.stats()["connected"] == 1
        assert feed.stats()["server"] == server.ws
        assert "live" in repr(feed)
        assert heads == sorted(heads)
    assert feed.stats()["connected"] == 0
    assert feed.stats()["messages"] == feed.stats()["frames"]
    assert feed.history("600519", "trades").head == feed.trades.head


def test_the_backlog_of_a_socket_that_is_just_being_closed_is_none(server: ScriptServer) -> None:
    """Another thread asks for it at any moment."""

    class Socket:
        numbers = iter([0, -1])

        def fileno(self) -> int:
            return next(self.numbers)

        def getsockopt(self, *_: object) -> int:
            raise OSError

    with make(server) as feed:
        deadline = time.monotonic() + WAIT
        while not feed.connected:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        connection = feed._channel.connection
        assert connection is not None
        sock, connection._socket = connection._socket, Socket()  # type: ignore[assignment]
        try:
            assert connection.backlog() == (0, 0)
        finally:
            connection._socket = sock


def test_a_handler_that_is_assigned_is_refused_with_the_right_way() -> None:
    feed = jvq.Feed(TOKEN)
    with pytest.raises(AttributeError, match="@feed"):
        feed.on_trades = print  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("event", ["on_trades", "on_batch", "on_gap", "on_error"])
def test_a_coroutine_function_is_no_handler(event: str) -> None:
    async def handler(*_: object) -> None: ...

    with pytest.raises(TypeError, match="await"):
        getattr(jvq.Feed(TOKEN), event)(handler)
