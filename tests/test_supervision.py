"""What a feed does about each failure: the states it runs through, when it goes on, and when it stops."""

import asyncio
import datetime as dt
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import jvq_fast as jvq
from jvq_fast.offload import MAX_HANGING, HangingError, offload
from jvq_fast.staleness import Arrivals, Staleness, Verdict
from ws_script import CLOSE, PING, PONG, TEXT, TOKEN, Peer, Script, ScriptServer, binary, frame, reply, serve, trade

WAIT = 30
BOOK = ",".join(["100,9.99"] * 5 + ["100,10.01"] * 5)
LIMIT_TEXT = "-1#账户连接数已达并发上限"
# Silence of 0.5 s is too long; data beyond 0.1 s after a subscribe is no first push.
WATCHFUL: dict[str, Any] = {
    "backoff_min": 0.01,
    "backoff_max": 0.02,
    "stale_snapshots": 0.5,
    "stale_trades": 0.5,
    "probe_timeout": 0.2,
    "clock": "always",
}


def quote(number: int) -> str:
    return f"lv1_600519=10:{number // 60 % 60:02d}:{number % 60:02d},贵州茅台,10.00,0.10,100000,10000,{BOOK}\n"


class Trial:
    """A feed against scripts, up to a condition that a watcher looks at on every event."""

    def __init__(self, peer: ScriptServer, subscriptions: str | list[str] = "lv2_600519", **settings: Any) -> None:
        self.feed = jvq.Feed(TOKEN, subscriptions, **({"server": peer.ws} | WATCHFUL | settings))
        self.events: list[tuple[Any, ...]] = []
        self.until: Callable[[Trial], bool] = lambda trial: False
        for name in ("state", "connect", "disconnect", "gap", "stale", "error", "text", "batch"):
            getattr(self.feed, f"on_{name}")(lambda *arguments, name=name: self._event(name, *arguments))

    def _event(self, name: str, *arguments: Any) -> None:
        self.events.append((name, *arguments))
        if self.until(self):
            self.feed.stop()

    def of(self, name: str) -> list[Any]:
        return [event[1] for event in self.events if event[0] == name]

    def run(self, until: "Callable[[Trial], bool]", seconds: float = WAIT) -> "Trial":
        """Run it; the condition must come about, or the feed end by an error of its own."""
        self.until = until
        watchdog = threading.Timer(seconds, self.feed.stop)
        watchdog.start()
        try:
            self.feed.run()
        finally:
            watchdog.cancel()
        assert until(self), self.events
        return self

    def run_for(self, seconds: float) -> "Trial":
        watchdog = threading.Timer(seconds, self.feed.stop)
        watchdog.start()
        try:
            self.feed.run()
        finally:
            watchdog.cancel()
        return self


# Trades that were sent before a gap are dropped after it: no number is used twice.
numbers = itertools.count(1)


def lively(peer: Peer, seconds: float = 0.3, row: Callable[[int], str] = trade, *, accepted: bool = False) -> None:
    """Take the subscription and send a record every 20 ms."""
    if not accepted:
        peer.accept()
    peer.text()
    for _ in range(int(seconds / 0.02)):
        peer.send(binary(row(next(numbers))))
        time.sleep(0.02)


def answering(peer: Peer, *, pong: bool = True) -> None:
    """Answer probes until the client goes."""
    while True:
        kind, payload = peer.frame()
        if kind == TEXT and payload == b"list":
            peer.send(frame(TEXT, b"0#lv2_600519"))
        elif kind == PING and pong:
            peer.send(frame(PONG, payload))
        elif kind == CLOSE:
            return


def dead(peer: Peer) -> None:
    peer.until_closed()


def good(peer: Peer) -> None:
    """Go on sending for ever."""
    peer.accept()
    peer.text()
    while True:
        peer.send(binary(trade(next(numbers))))
        time.sleep(0.02)


def then(end: Callable[[Peer], None], seconds: float = 0.3) -> Script:
    def script(peer: Peer) -> None:
        lively(peer, seconds)
        end(peer)

    return script


def evict(text: str = LIMIT_TEXT) -> Script:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.text()
        peer.send(binary(trade(next(numbers))), frame(TEXT, text.encode()), frame(CLOSE, b"\x03\xf0"))
        peer.until_closed()

    return script


def refuse(text: str = LIMIT_TEXT) -> Script:
    def script(peer: Peer) -> None:
        peer.accept(frame(TEXT, text.encode()), frame(CLOSE, b"\x03\xf0"))
        peer.until_closed()

    return script


# --- states ---


def test_states_are_the_same_in_stats_events_and_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "jvq_fast")
    with ScriptServer(then(lambda peer: None), good) as server:
        with ScriptServer(reply(200, json.dumps({"code": "0", "server": server.ws}).encode())) as service:
            trial = Trial(server, server=None, allocation=service.http, allocation_interval=0.05)
            seen: list[tuple[str, str]] = []
            trial.feed.on_state(lambda state, reason: seen.append((state, str(trial.feed.stats()["state"]))))
            assert trial.feed.stats()["state"] == trial.feed.state == jvq.State.IDLE
            trial.run(lambda trial: len(trial.of("gap")) == 1)
    once = ["allocating", "connecting", "open", "live"]
    assert trial.of("state") == [*once, "waiting", *once, "closing", "stopped"]
    assert all(told == counted for told, counted in seen)
    logged = [record.getMessage() for record in caplog.records if record.name == "jvq_fast"]
    before = ["idle", *trial.of("state")]
    expected = [
        f"{old} -> {new}: {reason}"
        for old, (_, new, reason) in zip(before, [event for event in trial.events if event[0] == "state"], strict=False)
    ]
    assert logged == expected
    assert trial.feed.state is jvq.State.STOPPED


def test_an_error_that_ends_the_feed_is_its_last_state() -> None:
    with ScriptServer(reply(401, b"")) as server:
        trial = Trial(server)
        with pytest.raises(jvq.HandshakeError):
            trial.run_for(WAIT)
    assert trial.of("state") == ["connecting", "failed"]
    assert "401" in next(event[2] for event in trial.events if event[:2] == ("state", "failed"))


def test_a_capture_that_can_not_begin_is_its_last_state_too(tmp_path: Path) -> None:
    with ScriptServer(good) as server:
        trial = Trial(server, capture=tmp_path / "missing" / "capture")
        with pytest.raises(jvq.CaptureError):
            trial.run_for(WAIT)
    assert trial.of("state") == ["failed"]
    assert trial.feed.stats()["state"] == "failed"


def test_what_watches_a_connection_does_not_end_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("jvq_fast.staleness.Staleness.look", look)
    with ScriptServer(then(dead)) as server:
        trial = Trial(server)
        with pytest.raises(ZeroDivisionError, match="a bug"):
            trial.run_for(WAIT)
    assert trial.of("state")[-1] == "failed"


# --- complaints of the server ---


def test_stop_in_the_step_of_a_failing_allocation_is_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **settings: Any) -> str:
        feed.stop()
        raise jvq.AllocationError("too late")

    monkeypatch.setattr("jvq_fast.supervisor.allocate", fail)
    for _ in range(20):
        feed = jvq.Feed(TOKEN, "lv2_600519", allocation="http://127.0.0.1:9")
        feed.run()
        assert feed.state == "stopped"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_feed_from_a_handler_ends_the_connection_for_all_to_hear(error: type[BaseException]) -> None:
    with ScriptServer(good) as server:
        trial = Trial(server)

        @trial.feed.on_trades
        def interrupt(code: str, trades: object) -> None:
            raise error

        with pytest.raises(error):
            trial.run(lambda trial: False)
    assert trial.of("disconnect") == [error.__name__]
    assert trial.of("state")[-1] == "stopped"


def test_a_thread_that_can_not_start_leaves_a_feed_that_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with ScriptServer(good) as server:
        trial = Trial(server)
        with monkeypatch.context() as patch:
            patch.setattr("threading.Thread.start", full)
            with pytest.raises(RuntimeError, match="new thread"):
                trial.feed.start()
        with pytest.raises(RuntimeError, match=r"without start"):
            trial.feed.join()
        trial.run(lambda trial: bool(trial.of("batch")))


def test_threads_that_can_not_start_are_no_threads_that_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def work() -> str:
        with monkeypatch.context() as patch:
            patch.setattr("threading.Thread.start", full)
            for _ in range(MAX_HANGING):
                with pytest.raises(TimeoutError, match="new thread"):
                    await offload(lambda: "", WAIT, "test")
        return await offload(lambda: "done", WAIT, "test")

    assert asyncio.run(work()) == "done"


def test_however_many_feeds_ask_at_once_none_is_told_that_too_much_hangs() -> None:
    begun = threading.Barrier(2 * MAX_HANGING)

    def work() -> int:
        return begun.wait(WAIT)

    async def ask() -> list[int]:
        return await asyncio.gather(*(offload(work, WAIT, "test") for _ in range(2 * MAX_HANGING)))

    assert sorted(asyncio.run(ask())) == list(range(2 * MAX_HANGING))


def test_work_that_hangs_is_limited_until_it_ends() -> None:
    end = threading.Event()

    async def hang() -> None:
        hanging = (offload(lambda: end.wait(WAIT), 0.01, "test") for _ in range(MAX_HANGING))
        assert all(isinstance(each, TimeoutError) for each in await asyncio.gather(*hanging, return_exceptions=True))
        with pytest.raises(HangingError, match=f"{MAX_HANGING} threads hang already"):
            await offload(int, WAIT, "test")
        end.set()
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            try:
                assert await offload(int, WAIT, "test") == 0
            except HangingError:
                await asyncio.sleep(0.01)
            else:
                return
        raise AssertionError("for ever")

    asyncio.run(hang())


def test_ctrl_c_while_the_thread_starts_leaves_a_feed_that_runs_and_can_be_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        if thread is trial.feed._thread:
            raise KeyboardInterrupt

    with ScriptServer(good) as server:
        trial = Trial(server)
        with monkeypatch.context() as patch:
            patch.setattr("threading.Thread.start", interrupted)
            with pytest.raises(KeyboardInterrupt):
                trial.feed.start()
        with pytest.raises(RuntimeError, match="running already"):
            trial.feed.start()
        trial.feed.stop()
        assert trial.feed.join(WAIT)


def test_a_gap_over_which_our_clock_is_set_back_does_not_end_before_it_began() -> None:
    later = 2**62
    with ScriptServer(good) as server:
        trial = Trial(server)
        trial.feed._supervisor._gap = (later, "reset", ("600519",))  # as a clock that ran ahead leaves it
        trial.run(lambda trial: bool(trial.of("gap")))
    (gap,) = trial.of("gap")
    assert gap.start == gap.end == later


def test_three_evictions_within_a_minute_mean_a_twin_and_end_the_feed() -> None:
    with ScriptServer(evict()) as server:
        trial = Trial(server)
        with pytest.raises(
            jvq.EvictedError, match=r"another process uses this token.*账户连接数已达并发上限"
        ) as caught:
            trial.run_for(WAIT)
        assert server.accepted == 3
    assert isinstance(caught.value, jvq.ConnectionLimitError)
    assert (caught.value.times, caught.value.seconds, caught.value.text) == (3, 60, LIMIT_TEXT)
    assert trial.feed.stats()["evictions"] == 3
    assert trial.feed.state is jvq.State.FAILED
    assert trial.of("disconnect") == [f"evicted: {LIMIT_TEXT}"] * 3


def test_evictions_far_apart_do_not_end_the_feed() -> None:
    with ScriptServer(*[evict()] * 4, good) as server:
        trial = Trial(server, eviction_window=0.0001).run(lambda trial: len(trial.of("gap")) == 4)
    assert trial.feed.stats()["evictions"] == 4


def test_an_unknown_complaint_before_a_close_is_an_eviction_too() -> None:
    with ScriptServer(evict("-1#something new")) as server, pytest.raises(jvq.EvictedError):
        Trial(server).run_for(WAIT)


def test_resets_never_end_the_feed() -> None:
    with ScriptServer(*[then(Peer.reset, seconds=0.02)] * 12, good) as server:
        trial = Trial(server).run(lambda trial: len(trial.of("gap")) == 12)
    assert trial.feed.stats()["evictions"] == 0
    assert trial.of("error") == []


def test_a_complaint_long_before_the_end_is_not_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jvq_fast.supervisor._COMPLAINT", 0.1)

    def script(peer: Peer) -> None:
        peer.accept()
        peer.text()
        peer.send(binary(trade(next(numbers))), frame(TEXT, "-1#订阅代码错误".encode()))
        time.sleep(0.4)

    with ScriptServer(*[script] * 4, good) as server:
        trial = Trial(server).run(lambda trial: len(trial.of("gap")) == 4)
    assert trial.feed.stats()["evictions"] == 0
    assert trial.feed.stats()["server_errors"] == 4


def test_a_reset_after_a_complaint_about_something_else_is_no_eviction() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.text()
        peer.send(binary(trade(next(numbers))), frame(TEXT, "-1#代码错误 lv2_999999".encode()))
        time.sleep(0.05)
        peer.reset()

    with ScriptServer(*[script] * 4, good) as server:
        trial = Trial(server).run(lambda trial: len(trial.of("gap")) == 4)
    assert trial.feed.stats()["evictions"] == 0


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("pause", [0.0, 0.05])
def test_a_server_that_complains_and_ends_the_connection_without_a_close_evicts(loop: str, pause: float) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.text()
        peer.send(binary(trade(next(numbers))), frame(TEXT, "-1#连接已在别处建立".encode()))
        time.sleep(pause)

    with ScriptServer(*[script] * 3, good) as server:
        trial = Trial(server, loop=loop)
        with pytest.raises(jvq.EvictedError, match="别处"):
            trial.run(lambda trial: False)
    assert trial.of("disconnect") == ["evicted: -1#连接已在别处建立"] * 3


def test_data_after_a_complaint_shows_that_it_was_about_something_else() -> None:
    def script(peer: Peer) -> None:
        peer.accept(frame(TEXT, f"{LIMIT_TEXT}, -1#token无效".encode()))
        peer.text()
        peer.send(binary(trade(next(numbers))))
        time.sleep(0.05)
        peer.reset()

    with ScriptServer(*[script] * 4, good) as server:
        trial = Trial(server).run(lambda trial: len(trial.of("gap")) == 4)
    assert trial.feed.stats()["evictions"] == trial.feed.stats()["refusals"] == 0


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("last", [frame(CLOSE, b"\x03\xf0"), b""], ids=["close", "end"])
def test_what_a_server_had_in_its_queue_may_come_behind_the_words_of_an_eviction(loop: str, last: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.text()
        first, second = (binary(trade(next(numbers))) for _ in range(2))
        peer.send(first, frame(TEXT, LIMIT_TEXT.encode()), second, last)
        if last:
            peer.until_closed()

    with ScriptServer(script) as server, pytest.raises(jvq.EvictedError):
        Trial(server, loop=loop).run_for(WAIT)
    assert server.accepted == 3


def test_a_token_refused_on_a_connection_that_served_is_judged_by_the_next_one() -> None:
    dismissed = evict("-1#lv10未授权")
    with ScriptServer(dismissed, good) as server:
        trial = Trial(server).run(lambda trial: len(trial.of("gap")) == 1)
    assert trial.feed.stats()["evictions"] == 0
    with ScriptServer(dismissed) as server:
        with pytest.raises(jvq.ServerError, match="lv10未授权"):
            Trial(server).run_for(WAIT)
        assert server.accepted == 2


@pytest.mark.parametrize(
    "text",
    [
        "-1#登录失败，请重试",
        "-1#鉴权服务器连接失败",
        "-1#行情服务器未登录交易所",
        "-1#系统维护",
        "-1#token busy, retry",
    ],
)
def test_what_passes_by_itself_ends_no_feed(text: str) -> None:
    with ScriptServer(*[evict(text)] * 4, *[refuse(text)] * 2, good) as server:
        trial = Trial(server).run(lambda trial: len(trial.of("gap")) == 4)
    stats = trial.feed.stats()
    assert (stats["evictions"], stats["refusals"], stats["server_errors"]) == (0, 2, 6)


def test_each_loss_is_logged_as_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "jvq_fast")
    with ScriptServer(*[then(Peer.reset, seconds=0.02)] * 3, good) as server:
        Trial(server).run(lambda trial: len(trial.of("gap")) == 3)
    assert [each.split(":")[0] for each in caplog.messages] == ["live -> waiting"] * 3


def test_a_slow_handler_of_a_disconnect_is_named() -> None:
    with ScriptServer(then(Peer.reset, seconds=0.02), good) as server:
        trial = Trial(server, max_callback_time=0.1)
        lags: list[jvq.Lag] = []
        trial.feed.on_lag(lags.append)

        @trial.feed.on_disconnect
        def send_mail(reason: str) -> None:
            if len(trial.of("gap")) == 0:
                time.sleep(0.3)

        trial.run(lambda trial: len(trial.of("gap")) == 1)
    assert [lag.fault for lag in lags] == ["callback"]
    assert "on_disconnect handler" in lags[0].detail
    assert "send_mail took 0.3" in lags[0].detail


def test_twins_on_a_server_that_acknowledges_nothing_and_has_no_data_do_not_fight_for_ever() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.text()
        time.sleep(2.5)
        peer.send(frame(TEXT, LIMIT_TEXT.encode()), frame(CLOSE, b"\x03\xf0"))
        peer.until_closed()

    with ScriptServer(script) as server, pytest.raises(jvq.EvictedError):
        Trial(server, stale_trades=60).run_for(WAIT)
    assert server.accepted == 3


def test_refusals_on_the_way_back_are_reported_and_do_not_end_the_feed() -> None:
    with ScriptServer(then(lambda peer: None), *[refuse()] * 5, good) as server:
        trial = Trial(server).run(lambda trial: len(trial.of("gap")) == 1)
    stats = trial.feed.stats()
    assert (stats["refusals"], stats["evictions"]) == (5, 0)
    assert [type(error) for error in trial.of("error")] == [jvq.ConnectionLimitError] * 5
    assert trial.of("text") == [LIMIT_TEXT] * 5
    assert trial.of("disconnect")[1:-1] == [f"refused: {LIMIT_TEXT}"] * 5


@pytest.mark.parametrize("text", ["-1#token无效", "-1#Token invalid or expired", "-1#鉴权失败"])
def test_a_token_that_is_no_longer_accepted_ends_the_feed(text: str) -> None:
    with ScriptServer(then(lambda peer: None), refuse(text)) as server:
        trial = Trial(server)
        with pytest.raises(jvq.ServerError) as caught:
            trial.run_for(WAIT)
        assert server.accepted == 2
    assert caught.value.text == text


@pytest.mark.parametrize("status", [401, 403])
def test_a_handshake_that_is_not_authorized_ends_the_feed(status: int) -> None:
    with ScriptServer(then(lambda peer: None), reply(status, b"")) as server:
        with pytest.raises(jvq.HandshakeError) as caught:
            Trial(server).run_for(WAIT)
        assert server.accepted == 2
    assert caught.value.status == status


def test_an_allocation_that_refuses_the_token_ends_the_feed() -> None:
    with ScriptServer(then(lambda peer: None)) as server:
        fine = reply(200, json.dumps({"code": "0", "server": server.ws}).encode())
        no = reply(200, json.dumps({"code": "-1", "message": "token无效"}).encode())
        with ScriptServer(fine, no) as service:
            trial = Trial(server, server=None, allocation=service.http, allocation_interval=0)
            with pytest.raises(jvq.AllocationRefusedError, match="token"):
                trial.run_for(WAIT)
            assert service.accepted == 2


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (503, "token service error: backend unknown"),
        (200, "token请求过于频繁，连接失败，请稍后再试"),
        (200, "余额不足"),
    ],
)
def test_an_allocation_refused_for_the_moment_does_not_end_the_feed(status: int, message: str) -> None:
    with ScriptServer(then(lambda peer: None), good) as server:
        fine = reply(200, json.dumps({"code": "0", "server": server.ws}).encode())
        no = reply(status, json.dumps({"code": "-1", "message": message}).encode())
        with ScriptServer(fine, no, no, fine) as service:
            trial = Trial(server, server=None, allocation=service.http, allocation_interval=0)
            trial.run(lambda trial: len(trial.of("gap")) == 1)
    assert [type(error) for error in trial.of("error")] == [jvq.AllocationRefusedError] * 2


def test_a_server_that_refuses_and_does_not_close_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jvq_fast.supervisor._REFUSED_OPEN", 0.1)

    def script(peer: Peer) -> None:
        peer.accept(frame(TEXT, LIMIT_TEXT.encode()))
        peer.until_closed()

    with ScriptServer(then(lambda peer: None), script, good) as server:
        trial = Trial(server).run(lambda trial: len(trial.of("gap")) == 1)
    assert trial.feed.stats()["refusals"] == 1


def test_a_server_that_refuses_and_takes_its_time_to_close_has_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jvq_fast.supervisor._REFUSED_OPEN", 0.2)
    monkeypatch.setattr("jvq_fast.supervisor._COMPLAINT", 0.1)

    def script(peer: Peer) -> None:
        peer.accept(frame(TEXT, LIMIT_TEXT.encode()))
        peer.until_closed()

    with ScriptServer(script) as server, pytest.raises(jvq.ConnectionLimitError):
        Trial(server).run_for(WAIT)


def test_a_server_that_warns_of_the_limit_and_serves_is_not_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jvq_fast.supervisor._REFUSED_OPEN", 0.1)

    def script(peer: Peer) -> None:
        peer.accept(frame(TEXT, LIMIT_TEXT.encode()))
        lively(peer, 1, accepted=True)

    with ScriptServer(script) as server:
        trial = Trial(server).run(lambda trial: trial.feed.trades.head >= 30)
        assert server.accepted == 1
    assert trial.feed.stats()["refusals"] == 0


def test_a_first_connection_with_data_was_not_refused() -> None:
    """A code that the server does not know is complained of first; what ends the connection later is something else."""

    def script(peer: Peer) -> None:
        peer.accept()
        peer.text()
        peer.send(frame(TEXT, "-1#订阅代码错误".encode()), binary(trade(next(numbers))))

    with ScriptServer(script, good) as server:
        trial = Trial(server).run(lambda trial: len(trial.of("gap")) == 1)
    assert trial.feed.stats()["refusals"] == 0


def test_a_complaint_about_a_probe_is_no_eviction() -> None:
    def script(peer: Peer) -> None:
        lively(peer)
        while peer.frame()[0] != TEXT:
            pass
        peer.send(frame(TEXT, b"-1#unknown command"))
        peer.until_closed()

    with ScriptServer(*[script] * 4, good) as server:
        trial = Trial(server).run(lambda trial: len(trial.of("gap")) == 4)
    assert trial.feed.stats()["evictions"] == 0
    assert all(reason.startswith("stale: ") for reason in trial.of("disconnect")[:4])


# --- the pace ---


def test_allocation_is_asked_again_each_time_and_never_faster_than_its_interval() -> None:
    moments: list[float] = []
    with ScriptServer(*[then(lambda peer: None, seconds=0.02)] * 4, good) as server:
        answer = reply(200, json.dumps({"code": "0", "server": server.ws}).encode())

        def script(peer: Peer) -> None:
            moments.append(time.monotonic())
            answer(peer)

        with ScriptServer(script) as service:
            trial = Trial(server, server=None, allocation=service.http, allocation_interval=0.3)
            trial.run(lambda trial: len(trial.of("gap")) == 4)
    assert len(moments) == trial.feed.stats()["allocations"] == 5
    assert min(later - earlier for earlier, later in itertools.pairwise(moments)) >= 0.3


def test_with_a_fixed_server_nothing_waits_for_the_allocation_interval() -> None:
    with ScriptServer(*[then(lambda peer: None, seconds=0.02)] * 4, good) as server:
        began = time.monotonic()
        Trial(server, allocation_interval=3600).run(lambda trial: len(trial.of("gap")) == 4)
        assert time.monotonic() - began < WAIT


# --- silence ---


def test_a_connection_that_died_without_a_word_is_probed_announced_once_and_left() -> None:
    with ScriptServer(then(dead), good) as server:
        trial = Trial(server).run(lambda trial: bool(trial.of("gap")))
    (stale,) = trial.of("stale")
    (gap,) = trial.of("gap")
    assert "no answer" in stale.reason
    assert gap.reason == f"stale: {stale.reason}"
    assert stale.since == gap.start < gap.end
    assert trial.of("state")[:5] == ["connecting", "open", "live", "probing", "waiting"]
    stats = trial.feed.stats()
    assert (stats["stales"], stats["probes"], stats["probes_answered"]) == (1, 1, 0)


def test_a_server_that_answers_and_sends_no_more_data_is_left_too() -> None:
    with ScriptServer(then(answering), good) as server:
        trial = Trial(server).run(lambda trial: bool(trial.of("gap")))
    (stale,) = trial.of("stale")
    assert "though the server answers" in stale.reason
    stats = trial.feed.stats()
    assert stats["probes"] == stats["probes_answered"] == 2  # a single stock may be quiet for twice as long
    assert (stats["answers"], stats["answers_ping"]) == ("yes", "yes")
    assert stats["pongs"] == 2


def test_a_server_that_answers_no_ping_is_not_pinged_again() -> None:
    pings: list[bytes] = []

    def script(peer: Peer) -> None:
        lively(peer, 0.02)
        while True:
            kind, payload = peer.frame()
            if kind == PING:
                pings.append(payload)
            elif kind == TEXT:
                peer.send(frame(TEXT, b"0#lv2_600519"))

    with ScriptServer(script) as server:
        trial = Trial(server, stale_trades=0.1, probe_timeout=0.3)
        trial.run(lambda trial: len(trial.of("text")) >= 3)
    assert len(pings) == 1
    assert trial.feed.stats()["answers_ping"] == "no"


def test_suspended_stocks_are_no_outage() -> None:
    """A first push, and nothing more, from a server that answers."""

    def script(peer: Peer) -> None:
        peer.accept()
        peer.text()
        peer.send(binary(quote(1)))
        answering(peer)

    with ScriptServer(script) as server:
        trial = Trial(server, "lv1_600519").run_for(2.5)
        assert server.accepted == 1
    assert trial.of("stale") == trial.of("gap") == []
    assert 1 <= int(trial.feed.stats()["probes"]) <= 3
    assert trial.of("state")[2:5] == ["live", "probing", "live"]


def test_a_suspended_stock_whose_snapshot_comes_again_and_again_is_no_outage() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.text()
        for _ in range(5):
            peer.send(binary(quote(1)))
            time.sleep(0.1)
        answering(peer)

    with ScriptServer(script) as server:
        trial = Trial(server, "lv1_600519").run_for(2.5)
        assert server.accepted == 1
    assert trial.of("stale") == []


def test_many_stocks_without_a_single_trade_are_an_outage() -> None:
    def silent(peer: Peer) -> None:
        peer.accept()
        peer.text()
        answering(peer)

    names = [f"lv2_{code}" for code in range(600500, 600510)]
    with ScriptServer(silent, good) as server:
        trial = Trial(server, names).run(lambda trial: bool(trial.of("gap")))
    assert len(trial.of("stale")) == 1


def test_trades_of_many_stocks_are_no_first_push_however_soon_they_come() -> None:
    def script(peer: Peer) -> None:
        lively(peer, 0.04)
        answering(peer)

    names = [f"lv2_{code}" for code in range(600510, 600520)]
    with ScriptServer(script, good) as server:
        trial = Trial(server, names).run(lambda trial: bool(trial.of("gap")))
    assert len(trial.of("stale")) == 1


def test_a_server_that_only_repeats_itself_is_live_and_the_gap_lasts() -> None:
    number = next(numbers)

    def again(peer: Peer) -> None:
        peer.accept()
        peer.text()
        peer.send(binary(trade(number)))
        time.sleep(0.6)
        peer.send(binary(trade(next(numbers))))
        peer.until_closed()

    def first(peer: Peer) -> None:
        peer.accept()
        peer.text()
        peer.send(binary(trade(number)))

    with ScriptServer(first, again) as server:
        trial = Trial(server, stale_trades=5).run(lambda trial: bool(trial.of("gap")))
    told = [event[1] for event in trial.events if event[0] in ("state", "gap")]
    assert told[4:8] == ["connecting", "open", "live", *trial.of("gap")]
    assert trial.feed.stats()["duplicates"] == 1


def test_without_even_a_first_push_snapshots_are_an_outage_which_is_announced_once() -> None:
    def silent(peer: Peer) -> None:
        peer.accept()
        peer.text()
        answering(peer)

    def lively_quotes(peer: Peer) -> None:
        lively(peer, 0.3, quote)
        answering(peer)

    with ScriptServer(silent, silent, silent, lively_quotes, good) as server:
        trial = Trial(server, "lv1_600519").run(lambda trial: len(trial.of("stale")) == 2)
        assert server.accepted == 4
    assert trial.feed.stats()["stales"] == 2


def test_an_outage_is_announced_once_however_often_the_feed_comes_back_in_vain() -> None:
    def silent(peer: Peer) -> None:
        peer.accept()
        peer.text()
        dead(peer)

    with ScriptServer(then(dead), silent, silent, good) as server:
        trial = Trial(server).run(lambda trial: bool(trial.of("gap")))
        assert server.accepted == 4
    assert len(trial.of("stale")) == 1
    assert len(trial.of("gap")) == 1


def test_data_during_the_probe_ends_it() -> None:
    def script(peer: Peer) -> None:
        lively(peer)
        while peer.frame() != (TEXT, b"list"):
            pass
        for _ in range(30):
            peer.send(binary(trade(next(numbers))))
            time.sleep(0.02)
        peer.until_closed()

    with ScriptServer(script) as server:
        trial = Trial(server, probe_timeout=0.5)
        trial.run(lambda trial: trial.feed.trades.head >= 40)
        assert server.accepted == 1
    assert trial.of("stale") == []


def test_a_server_that_never_answers_probes_is_no_outage_while_its_stocks_are_quiet() -> None:
    """Its silence is taken for an outage once; on the next connection it turns out to be its manner."""

    def script(peer: Peer) -> None:
        lively(peer)
        dead(peer)

    def quiet(peer: Peer) -> None:
        peer.accept()
        peer.text()
        peer.send(binary(trade(next(numbers))))
        dead(peer)

    with ScriptServer(script, quiet) as server:
        trial = Trial(server, "lv2_600519").run_for(4)
        assert server.accepted == 2
    assert len(trial.of("stale")) == 1
    assert trial.feed.stats()["answers"] == "no"


def test_a_probe_says_why_it_asks() -> None:
    judge = Staleness(15.0, 60.0, always=True)
    wanted, nothing, wall = ("lv1_600519",), Arrivals(), 1_700_000_000 * 10**9
    judge.opened(0.0, nothing)
    assert judge.look(0.0, wall, nothing, 0.0, wanted) is Verdict.FINE
    assert judge.look(15.4, wall, nothing, 0.0, wanted) is Verdict.PROBE
    assert judge.reason == "no data for 15 s"
    assert judge.probed(18.0, nothing, 0.0, wanted, answered=False, alive=False) is Verdict.STALE
    assert judge.reason == "no data for 18 s, and no answer to a probe"
    judge.opened(20.0, nothing)
    assert judge.look(21.0, wall, Arrivals(1, 1, 0), 20.0, wanted) is Verdict.PROBE
    assert judge.reason.startswith("data comes: finding out whether this server answers probes")


CHINA = dt.timezone(dt.timedelta(hours=8))


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-11-20 10:00:00", True),  # a Friday
        ("2026-11-20 12:00:00", False),
        ("2026-11-20 20:00:00", False),
        ("2026-11-21 10:00:00", False),  # Saturday
        ("2026-10-01 10:00:00", False),  # National Day
    ],
)
def test_silence_is_judged_by_the_trading_calendar(moment: str, is_open: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = int(dt.datetime.fromisoformat(moment).replace(tzinfo=CHINA).timestamp()) * 1_000_000_000
    began = time.monotonic_ns()
    monkeypatch.setattr(jvq.Feed, "_wall_ns", staticmethod(lambda: begin + time.monotonic_ns() - began))
    with ScriptServer(then(dead), good) as server:
        trial = Trial(server, clock="exchange").run_for(1.5)
    assert len(trial.of("stale")) == is_open
    assert bool(trial.feed.stats()["probes"]) == is_open


def test_nothing_subscribed_is_no_silence() -> None:
    with ScriptServer(serve(subscribed=False)) as server:
        trial = Trial(server)
        trial.feed.replace(())
        trial.run_for(1.5)
    assert trial.of("state") == ["connecting", "open", "closing", "stopped"]


def test_past_the_last_holiday_known_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begin = int(dt.datetime(2027, 1, 4, 10, tzinfo=CHINA).timestamp()) * 1_000_000_000
    began = time.monotonic_ns()
    monkeypatch.setattr(jvq.Feed, "_wall_ns", staticmethod(lambda: begin + time.monotonic_ns() - began))
    with ScriptServer(then(dead), good) as server:
        trial = Trial(server, clock="exchange").run(lambda trial: bool(trial.of("gap")))
    assert len(trial.of("stale")) == 1
    warnings = [record for record in caplog.records if "holidays are known" in record.getMessage()]
    assert len(warnings) == 1
    assert "2026-12-31" in warnings[0].getMessage()


def test_stop_ends_a_probe_at_once() -> None:
    with ScriptServer(then(dead)) as server:
        trial = Trial(server, probe_timeout=3600)
        began = time.monotonic()
        trial.run(lambda trial: "probing" in trial.of("state"))
        assert time.monotonic() - began < WAIT / 2
    assert trial.of("state")[-2:] == ["closing", "stopped"]


def test_what_is_unsubscribed_while_the_server_is_asked_is_no_outage() -> None:
    def script(peer: Peer) -> None:
        lively(peer)
        while peer.frame() != (TEXT, b"all="):
            pass
        peer.send(frame(TEXT, b"0#"))
        peer.until_closed()

    with ScriptServer(script) as server:
        trial = Trial(server, probe_timeout=3)
        trial.feed.on_state(lambda state, reason: trial.feed.replace(()) if state == "probing" else None)
        trial.run(lambda trial: trial.of("state")[2:5] == ["live", "probing", "live"])
        assert server.accepted == 1
    assert trial.of("stale") == []


def test_snapshots_added_to_trades_that_are_quiet_are_given_their_time() -> None:
    def script(peer: Peer) -> None:
        lively(peer, 0.2)
        peer.text()
        for _ in range(10):
            time.sleep(0.2)
            peer.send(binary(quote(next(numbers))))

    with ScriptServer(script) as server:
        trial = Trial(server, stale_trades=60, stale_snapshots=0.8)
        later = threading.Timer(1.5, trial.feed.subscribe, ["lv1_600519"])
        later.start()
        trial.run(lambda trial: trial.feed.quotes.head >= 8)
        assert server.accepted == 1
    assert trial.feed.stats()["probes"] == 0


def test_stocks_that_traded_and_are_not_wanted_any_more_do_not_make_suspended_ones_an_outage() -> None:
    def script(peer: Peer) -> None:
        lively(peer, 0.3, quote)
        peer.text()
        peer.send(binary(quote(next(numbers)).replace("600519", "000001")))
        answering(peer)

    with ScriptServer(script) as server:
        trial = Trial(server, "lv1_600519")
        later = threading.Timer(0.4, trial.feed.replace, ["lv1_000001"])
        later.start()
        trial.run_for(2.5)
        assert server.accepted == 1
    assert trial.of("stale") == []
    assert int(trial.feed.stats()["probes"]) >= 1


def test_data_after_an_unsubscribe_is_no_first_push() -> None:
    def script(peer: Peer) -> None:
        lively(peer, 0.6)
        answering(peer)

    names = [f"lv2_{number}" for number in range(600500, 600600)]
    with ScriptServer(script, good) as server:
        trial = Trial(server, [*names, "lv2_600519"])
        trial.feed.on_batch(lambda n: trial.feed.unsubscribe(names.pop()))
        trial.run(lambda trial: bool(trial.of("stale")))


def test_data_is_no_answer_to_a_probe() -> None:
    """Whether a server answers probes is found out where it sends data, too."""
    with ScriptServer(then(dead), good) as server:
        trial = Trial(server).run(lambda trial: trial.feed.stats()["answers"] == "no")
        assert server.accepted == 2
    assert len(trial.of("stale")) == 1
    assert trial.feed.stats()["probes_answered"] == 0


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_answer_that_waits_behind_a_loop_that_is_held_up_counts(loop: str) -> None:
    def script(peer: Peer) -> None:
        lively(peer)
        while True:
            kind, payload = peer.frame()
            if kind == TEXT and payload == b"list":
                time.sleep(0.05)
                peer.send(frame(TEXT, b"0#"), binary(trade(next(numbers))))
            elif kind == CLOSE:
                return

    async def main(feed: jvq.Feed, other: jvq.Feed) -> None:
        running = [asyncio.ensure_future(each.run_async()) for each in (feed, other)]
        while int(feed.stats()["probes"]) < 3:
            await asyncio.sleep(0.01)
        for each in (feed, other):
            each.stop()
        await asyncio.gather(*running)

    with ScriptServer(script) as server, ScriptServer(good) as busy:
        trial = Trial(server, loop=loop)
        other = jvq.Feed(TOKEN, "lv2_600519", server=busy.ws)
        probes: list[str] = []
        trial.feed.on_state(lambda state, reason: probes.append(state) if state == "probing" else None)
        other.on_trades(lambda code, trades: time.sleep(0.5) if probes and probes.pop() else None)
        with asyncio.Runner(loop_factory=trial.feed._loop_factory) as runner:
            runner.run(asyncio.wait_for(main(trial.feed, other), WAIT))
        assert server.accepted == 1
    assert trial.of("stale") == []


def test_another_run_tells_its_outages_anew() -> None:
    def first_push(peer: Peer) -> None:
        peer.accept()
        peer.text()
        peer.send(binary(trade(next(numbers))))
        dead(peer)

    with ScriptServer(then(dead), first_push) as server:
        trial = Trial(server)
        trial.run(lambda trial: len(trial.of("stale")) == 1)
        trial.run(lambda trial: len(trial.of("stale")) == 2)


@pytest.mark.parametrize(
    "settings",
    [
        {"stale_snapshots": 0},
        {"stale_trades": -1},
        {"probe_timeout": 0},
        {"eviction_limit": 0},
        {"eviction_window": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        jvq.Feed(TOKEN, **settings)


# --- handlers that are slow, sockets that are reset ---


def then_reset(peer: Peer) -> None:
    """Serve for a moment."""
    peer.accept()
    peer.text()
    peer.send(binary(trade(next(numbers))))
    time.sleep(0.1)
    peer.reset()


def test_a_refusal_is_one_however_long_the_handler_of_the_connection_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jvq_fast.supervisor._REFUSAL", 0.2)
    with ScriptServer(then_reset, *[refuse()] * 6, good) as server:
        trial = Trial(server)
        trial.feed.on_connect(lambda where: time.sleep(0.4))
        trial.run(lambda trial: bool(trial.of("gap")))
    stats = trial.feed.stats()
    assert (stats["refusals"], stats["evictions"]) == (6, 0)


def test_an_eviction_is_one_however_long_the_handler_of_its_words_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jvq_fast.supervisor._COMPLAINT", 0.2)
    with ScriptServer(*[evict()] * 4) as server:
        trial = Trial(server)
        trial.feed.on_text(lambda text: time.sleep(0.4))
        with pytest.raises(jvq.EvictedError):
            trial.run(lambda trial: False)
    assert trial.feed.stats()["evictions"] == 3


def test_what_another_attempt_left_in_the_loop_fails_no_attempt() -> None:
    """A transport may leave a descriptor registered that it has closed, and the next socket gets its number."""

    def gone(peer: Peer) -> None:
        peer.reset()

    with ScriptServer(then_reset, *[gone] * 60, good) as server:
        trial = Trial(server, loop="asyncio", backoff_min=0.001, backoff_max=0.002)
        trial.run(lambda trial: bool(trial.of("gap")))
    said = [str(error) for error in trial.of("error")]
    assert len(said) >= 60
    assert not [each for each in said if "No such file" in each]
