"""Two processes with one token, and a server that allows one connection: each ends in a defined state."""

import json
import subprocess
import sys
import threading
import time
from typing import Any

from websockets.sync.client import connect

from simulator import TOKEN, Simulator

WAIT = 60
PROGRAM = """
import json, sys, threading
import jvq_fast as jvq

feed = jvq.Feed(sys.argv[2], "lv2_600519", allocation=sys.argv[1], clock="always", allocation_interval=0.2)

@feed.on_state
def on_state(state, reason):
    print(json.dumps(["state", state, reason]), flush=True)

threading.Thread(target=lambda: (sys.stdin.read(), feed.stop()), daemon=True).start()
try:
    feed.run()
except jvq.JvqError as error:
    print(json.dumps(["error", type(error).__name__, str(error)]), flush=True)
print(json.dumps(["end", feed.stats()["evictions"], feed.stats()["refusals"]]), flush=True)
"""


class Twin:
    """A process with a feed, and what it told."""

    def __init__(self, sim: Simulator) -> None:
        self.told: list[list[Any]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, sim.http, TOKEN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.told.append(json.loads(line))

    def __enter__(self) -> "Twin":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()

    def states(self) -> list[str]:
        return [what for kind, what, _ in list(self.told) if kind == "state"]

    def until(self, state: str) -> None:
        deadline = time.monotonic() + WAIT
        while state not in self.states()[-1:]:
            assert time.monotonic() < deadline, self.told
            time.sleep(0.02)

    def stop(self) -> list[list[Any]]:
        """Let it end in good order; everything it told."""
        if self.process.poll() is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
        try:
            self.process.wait(WAIT)
        finally:
            self.process.kill()
        return self.told


def test_where_the_oldest_is_evicted_one_of_two_ends_by_itself_and_the_other_goes_on() -> None:
    with Simulator("--limit", "1", "--over-limit", "evict") as sim, Twin(sim) as first:
        first.until("live")
        with Twin(sim) as second:
            deadline = time.monotonic() + WAIT
            while "failed" not in first.states() + second.states():
                assert time.monotonic() < deadline, (first.told, second.told)
                time.sleep(0.02)
            ended, other = (first, second) if "failed" in first.states() else (second, first)
            ended.process.wait(WAIT)
            other.until("live")
            connections = len(sim.stats()["connections"])
            time.sleep(2)
            assert other.states()[-1] == "live"
            assert len(sim.stats()["connections"]) == connections  # the fight is over
            other.stop()
    error = next(told for told in ended.told if told[0] == "error")
    assert error[1] == "EvictedError"
    assert "another process uses this token" in error[2]
    assert ended.told[-1][:2] == ["end", 3]
    assert other.states()[-1] == "stopped"
    assert 5 <= connections <= 8


def test_where_the_new_one_is_refused_it_ends_and_does_not_disturb_the_other() -> None:
    with Simulator("--limit", "1", "--over-limit", "refuse") as sim, Twin(sim) as first:
        first.until("live")
        with Twin(sim) as second:
            second.process.wait(WAIT)
            told = second.stop()
        assert first.states().count("live") == 1
        first.stop()
    assert next(each for each in told if each[0] == "error")[1] == "ConnectionLimitError"
    assert "failed" in second.states()
    assert first.states() == ["allocating", "connecting", "open", "live", "closing", "stopped"]


def test_one_that_lost_its_place_waits_for_it_without_disturbing_whoever_has_it() -> None:
    with Simulator() as sim, connect(sim.url()) as other, Twin(sim) as twin:
        other.send("all=lv1_000001")
        twin.until("live")
        sim.fault("quota", limit=1, over_limit="refuse")
        sim.fault("reset", connection=2)
        deadline = time.monotonic() + WAIT
        while twin.states().count("waiting") < 4:
            assert time.monotonic() < deadline, twin.told
            time.sleep(0.02)
        assert not any(each[0] == "error" for each in twin.told)
        other.send("list")
        while "lv1_000001" not in str(other.recv(timeout=WAIT)):
            pass
        other.close()
        twin.until("live")
        twin.stop()
    assert twin.told[-1][0] == "end"
    assert twin.told[-1][1] == 0
    assert twin.told[-1][2] >= 3
    assert twin.states()[-1] == "stopped"
