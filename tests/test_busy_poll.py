"""A feed that reads without waiting: the same records and the same ends as any other, and nobody is shut out."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import jvq_fast as jvq
from simulator import TOKEN, Simulator
from ws_script import PING, PONG, Peer, Script, ScriptServer, binary, frame, serve, trade

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="busy_poll does not work on Windows")

WAIT = 20
SUBSCRIPTIONS = [f"{level}_{code}" for code in ("600519", "000001") for level in ("lv1", "lv2", "lv10")]


@pytest.fixture(params=["asyncio", "asyncio without aiofastnet", "uvloop"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Each kind of loop in turn: the name for Feed(loop=…)."""
    if request.param == "asyncio without aiofastnet":
        monkeypatch.setattr("jvq_fast.connection.uses_aiofastnet", lambda loop: False)
    if request.param == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed")
    return request.param.partition(" ")[0]


@pytest.fixture
def server() -> Iterator[ScriptServer]:
    with ScriptServer(serve(binary(trade(1)))) as server:
        yield server


def make(server: ScriptServer, **settings: Any) -> jvq.Feed:
    settings = {"backoff_min": 0.01, "backoff_max": 0.02} | settings
    return jvq.Feed(TOKEN, "lv2_600519", server=server.ws, busy_poll=True, **settings)


def wait_for(condition: Any, feed: jvq.Feed) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert not feed.join(0.005), "the feed has ended"
        assert time.monotonic() < deadline, feed.stats()


def test_it_records_what_the_others_record(loop: Any) -> None:
    with Simulator("--seed", "11") as sim:
        plain, busy = (
            jvq.Feed(
                TOKEN, SUBSCRIPTIONS, allocation=sim.http, trading_day=sim.trading_day, clock="always",
                loop=loop, busy_poll=busy_poll, allocation_interval=0.1,
            )
            for busy_poll in (False, True)
        )  # fmt: skip
        with plain, busy:
            for feed in (plain, busy):
                wait_for(lambda feed=feed: feed.trades.head >= 200 and feed.quotes.head >= 4, feed)
                assert feed.stats()["busy_poll"] == int(feed is busy)
                feed.replace(())
            sent = sim.wait_still()["connections"]
            for feed in (plain, busy):
                server = next(each for each in sent if each["records"] == feed.stats()["records"])
                assert server["messages"] == feed.stats()["messages"]
            assert "lv2" not in busy.request("list", WAIT)
    records = []
    for feed in (plain, busy):
        one, _, _ = feed.trades.copy_since(0)
        records.append({(each["code"], each["id"]): each[["time", "price", "volume"]] for each in one})
        assert feed.stats()["bad"] == feed.stats()["bad_messages"] == 0
        assert feed.stats()["busy_poll"] == 0
    both = records[0].keys() & records[1].keys()
    assert len(both) > 100
    assert all(records[0][key] == records[1][key] for key in both)


def test_timers_and_tasks_of_the_loop_have_their_turn(server: ScriptServer, loop: Any) -> None:
    feed = make(server, loop=loop)
    late: list[float] = []
    tasks: list[asyncio.Task[None]] = []

    @feed.on_batch
    def on_batch(n: int) -> None:
        running = asyncio.get_running_loop()
        due = running.time() + 0.2

        def told() -> None:
            late.append(running.time() - due)
            tasks.append(running.create_task(leave()))

        async def leave() -> None:
            for _ in range(100):
                await asyncio.sleep(0)
            assert feed.stats()["busy_poll"] == 1
            feed.stop()

        running.call_at(due, told)

    feed.run()
    assert -0.1 < late[0] < 5


def test_frames_in_one_read_or_in_pieces_arrive_whole(loop: Any) -> None:
    numbers = range(1, 301)
    answered: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.accept(binary(trade(0)))
        peer.text()
        data = b"".join(binary(trade(n)) for n in numbers)
        peer.send(data[:-1])
        peer.send(data[-1:], frame(PING, b"here?"))
        kind, payload = peer.frame()
        assert kind == PONG
        answered.append(payload)
        for byte in binary(trade(301)):
            peer.send(bytes([byte]))
        peer.until_closed()

    with ScriptServer(script) as server:
        feed = make(server, loop=loop)
        seen: list[int] = []

        @feed.on_trades
        def on_trades(code: str, trades: Any) -> None:
            seen.extend(trades["id"])
            if seen[-1] == 301:
                feed.stop()

        feed.run()
    assert seen == [0, *numbers, 301]
    assert answered == [b"here?"]


@pytest.mark.parametrize("end", ["CLOSE", "FIN", "RST"])
def test_it_comes_back_when_the_connection_ends(loop: Any, end: str) -> None:
    codes: list[int] = []

    def leave(number: int) -> Script:
        def script(peer: Peer) -> None:
            peer.accept()
            peer.text()
            peer.send(binary(trade(number)))
            if end == "CLOSE":
                peer.send(frame(8, (1001).to_bytes(2, "big")))
                codes.append(peer.close_code())
            elif end == "RST":
                time.sleep(0.05)  # so that it does not overtake the trade
                peer.reset()

        return script

    with ScriptServer(leave(1), leave(2), serve(binary(trade(3)))) as server:
        feed = make(server, loop=loop)
        gaps: list[jvq.Gap] = []
        feed.on_gap(gaps.append)
        with feed:
            wait_for(lambda: feed.trades.head == 3, feed)
            assert feed.stats()["busy_poll"] == 1
    assert list(feed.trades.last(3)["id"]) == [1, 2, 3]
    assert feed.stats()["reconnects"] == len(gaps) == 2
    assert codes == ([1001, 1001] if end == "CLOSE" else [])
    reason = "the server closed the connection: 1001" if end == "CLOSE" else "the connection was lost"
    assert {gap.reason for gap in gaps} == {reason}


def test_stop_from_another_thread_ends_it_and_its_use_of_the_core(server: ScriptServer, loop: Any) -> None:
    feed = make(server, loop=loop)
    for _ in range(2):
        with feed:
            wait_for(lambda: feed.connected and feed.stats()["busy_poll"] == 1, feed)
            feed.stop()
            assert feed.join(WAIT)
    assert feed.stats()["busy_poll"] == 0
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.25


def test_stop_in_a_handler_drops_the_rest_of_the_read(loop: Any) -> None:
    with ScriptServer(serve(*(binary(trade(n)) for n in range(10)))) as server:
        feed = make(server, loop=loop)
        feed.on_trades(lambda code, trades: feed.stop() if trades["id"][-1] == 3 else None)
        feed.run()
    assert feed.trades.head == 4


def test_other_threads_go_on_and_leave_the_feed_its_share(loop: Any) -> None:
    """One that asks for the interpreter again and again, and one that computes."""

    def script(peer: Peer) -> None:
        peer.accept()
        with contextlib.suppress(OSError):
            for number in range(1_000_000):
                peer.send(binary(trade(number)))
                time.sleep(0.001)

    with ScriptServer(script) as server, make(server, loop=loop) as feed:
        wait_for(lambda: feed.stats()["busy_poll"] == 1, feed)
        began = time.monotonic()
        for _ in range(300):
            time.sleep(0.0001)
        head = feed.trades.head
        while feed.trades.head < head + 50:
            assert time.monotonic() < began + WAIT


def test_it_runs_in_a_loop_of_the_callers(server: ScriptServer) -> None:
    feed = make(server)

    async def main() -> None:
        running = asyncio.create_task(feed.run_async())
        while not feed.trades.head:
            await asyncio.sleep(0.01)
        assert feed.stats()["busy_poll"] == 1
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert feed.stats()["busy_poll"] == 0

    asyncio.run(asyncio.wait_for(main(), WAIT))


PROGRAM = """
import sys
import jvq_fast as jvq

feed = jvq.Feed("0123456789abcdef0123456789abcdef", "lv2_600519", server=sys.argv[1], loop=sys.argv[2], busy_poll=True)
feed.on_batch(lambda n: print("data", flush=True))
try:
    feed.run()
except KeyboardInterrupt:
    print("interrupted", feed.state, flush=True)
"""


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_ctrl_c_ends_it(server: ScriptServer, name: str) -> None:
    if name == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed")
    child = subprocess.Popen([sys.executable, "-c", PROGRAM, server.ws, name], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "data\n"
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=WAIT)
    finally:
        child.kill()
        child.wait()
    assert out == "interrupted stopped\n"


def test_what_a_handler_raises_to_end_the_program_ends_it(server: ScriptServer, loop: Any) -> None:
    feed = make(server, loop=loop)

    @feed.on_batch
    def leave(n: int) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        feed.run()
    assert feed.stats()["busy_poll"] == 0


def test_other_threads_may_ask_for_its_state_all_the_time(loop: Any) -> None:
    scripts: list[Script] = [lambda peer: peer.accept(binary(trade(1)))]
    with ScriptServer(*scripts) as server:
        feed = make(server, loop=loop)
        ended = threading.Event()
        states: set[object] = set()

        def ask() -> None:
            while not ended.is_set():
                states.add(feed.stats()["busy_poll"])

        thread = threading.Thread(target=ask)
        with feed:
            thread.start()
            wait_for(lambda: int(feed.stats()["reconnects"]) >= 20, feed)
            ended.set()
            thread.join(WAIT)
    assert states <= {0, 1}


@pytest.mark.parametrize("value", [1, None, "yes", 0.5])
def test_it_is_a_bool(value: Any) -> None:
    with pytest.raises(TypeError, match="busy_poll is True or False"):
        jvq.Feed(TOKEN, busy_poll=value)


def test_it_reads_no_encrypted_connection() -> None:
    with pytest.raises(ValueError, match="is encrypted"):
        jvq.Feed(TOKEN, server="wss://127.0.0.1:1", busy_poll=True)


def test_an_encrypted_server_from_the_allocation_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jvq_fast.supervisor.allocate", lambda *_, **__: "wss://127.0.0.1:1")
    with pytest.raises(jvq.ConnectError, match="encrypted"):
        jvq.Feed(TOKEN, allocation="http://127.0.0.1:1", busy_poll=True).run()


def test_it_is_refused_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jvq_fast.feed.sys.platform", "win32")
    with pytest.raises(ValueError, match="Windows"):
        jvq.Feed(TOKEN, busy_poll=True)
