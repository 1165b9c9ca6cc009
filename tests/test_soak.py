"""A soak: real days through a network that fails all the time. What arrives is published, and nothing grows."""

import faulthandler
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from fault_run import messages as messages_of
from jvq_fast import capture
from oracle import LAYOUT, LEVELS, Code, Oracle, Record, pack_all, unpack_all
from proxy import Link, Proxy
from simulator import Simulator

pytestmark = pytest.mark.release_only

TIMES = 10
SPEED = 50
PACE = 4.0  # seconds, the most between two changes of the network, and of silence before the feed asks
SOAKED = Path(__file__).with_name("soaked.py")
MIB = 1 << 20
# The C library's allocator keeps a few MiB of what was freed, more or less of it by chance. So it hands back what is
# free, and what is resident is what is held.
HANDS_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "1"}
SETTINGS: dict[str, Any] = {
    "clock": "always",
    "backoff_min": 0.1,
    "backoff_max": 1.0,
    "allocation_interval": 0.2,
    "allocation_timeout": 2.0,
    "connect_timeout": 2.0,
    "handshake_timeout": 1.0,
    "stale_snapshots": PACE,
    "stale_trades": PACE,
    "probe_timeout": 0.5,
    "capture_limit": 4 << 20,
    "max_message": 1 << 20,
}
DAYS = {
    "a stock with snapshots": (
        ["lv2_600519_20230201.csv.gz", "lv1_600519_20230201.csv.gz"],
        ["lv2_600519", "lv1_600519"],
    ),
    "five stocks": (
        ["lv2_5SH_20230711.csv.gz"],
        [f"lv2_{code}" for code in ("600536", "600961", "600761", "605580", "601825")],
    ),
}


# --- the feed ---


class Soaked:
    """The process of the feed."""

    def __init__(self, folder: Path, subscriptions: list[str], allocation: str) -> None:
        task = {"folder": str(folder), "subscriptions": subscriptions, "allocation": allocation, "settings": SETTINGS}
        self._errors = (folder / "stderr").open("w")
        self.process = subprocess.Popen(
            [sys.executable, str(SOAKED), json.dumps(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **HANDS_BACK},
        )

    def ask(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        watchdog = threading.Timer(90, self.process.kill)
        watchdog.start()
        line = self.process.stdout.readline()
        watchdog.cancel()
        assert line, self.errors()
        return dict(json.loads(line))

    def end(self) -> dict[str, Any]:
        """Stop the feed; its last words."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        answer = self._answer()
        assert self.process.wait(60) == 0
        assert "Traceback" not in self.errors(), self.errors()
        return answer

    def errors(self) -> str:
        return Path(self._errors.name).read_text()

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        for stream in (self.process.stdin, self.process.stdout, self._errors):
            if stream is not None:
                stream.close()


# --- the network ---


class Weather:
    """Changes what the network does, by seed, for up to PACE seconds each time.

    `rough` are the numbers of the links that may have lost bytes.
    """

    KINDS = (
        *("calm", "late", "split", "merged", "narrow", "close"),
        *("reset", "move", "away", "half_open", "truncate", "corrupt"),
    )

    def __init__(self, proxy: Proxy, seed: str) -> None:
        self.proxy = proxy
        self.rng = random.Random(seed)
        self.count: dict[str, int] = {}
        self.rough: set[int] = set()

    def change(self) -> None:
        """One kind of weather, its while, and calm afterwards."""
        kind = self.rng.choice(self.KINDS)
        self.count[kind] = self.count.get(kind, 0) + 1
        getattr(self, kind)()
        time.sleep(self.rng.uniform(0.2, 1) * PACE)
        self.clear()

    def clear(self) -> None:
        for link in self.proxy.open_links:
            if any(flow.swallowed or flow.corrupted or flow.faults.truncate for flow in (link.up, link.down)):
                self.rough.add(link.number)
        self.proxy.heal()

    def mark(self) -> None:
        """What is open now may lose something."""
        self.rough.update(link.number for link in self.proxy.open_links)

    def calm(self) -> None:
        pass

    def late(self) -> None:
        self.proxy.set("both", delay=self.rng.uniform(0, 0.1), jitter=self.rng.uniform(0, 0.3))

    def split(self) -> None:
        self.proxy.set("both", split=self.rng.choice([1, 2, 7, (1, 100, 3), 1000]))

    def merged(self) -> None:
        self.proxy.set("down", merge=self.rng.uniform(0, 0.5))

    def narrow(self) -> None:
        self.proxy.set("down", bandwidth=self.rng.uniform(2_000, 50_000))

    def close(self) -> None:
        self.proxy.close()

    def reset(self) -> None:
        self.mark()
        self.proxy.reset()

    def move(self) -> None:
        self.mark()
        self.proxy.move()

    def away(self) -> None:
        self.proxy.refuse()
        self.mark()
        self.proxy.reset()

    def half_open(self) -> None:
        self.mark()
        self.proxy.half_open(self.rng.choice(["both", "down", "up"]), lasting=self.rng.random() < 0.5)
        # Long enough for the feed to find out by itself, now and then.
        time.sleep(self.rng.choice([0, 0, 1.3]) * PACE)

    def truncate(self) -> None:
        self.mark()
        self.proxy.set("down", truncate=self.rng.randrange(30_000), abrupt=self.rng.random() < 0.5)

    def corrupt(self) -> None:
        self.mark()
        self.proxy.set("down", corrupt_rate=10 ** self.rng.uniform(-5, -2.5))


# --- the verdict ---


class Referee(Oracle):
    """An oracle for many days: it forgets what a feed with the same history can't hold any more."""

    def resume(self) -> None:
        for known in self.codes.values():
            for level in LEVELS:
                del getattr(known, level)[: -max(1, self.history[level])]
        super().resume()

    def _is_duplicate(self, known: Code, trade: Record, clock_time: int, time: int, flags: int) -> bool:
        if known.before_gap is not None and len(known.trades) - self.history["trades"] >= known.before_gap:
            # Nothing from before the gap is held, so it is none; what may end the mark is as ever.
            if known.last_time is None or time > known.last_time + 60_000_000_000:
                known.before_gap = None
            return False
        return super()._is_duplicate(known, trade, clock_time, time, flags)


def sections(path: Path) -> Iterator[tuple[int, list[tuple[bytes, int]]]]:
    """What was captured, by connection: whether it is the first or another one, and its messages with their times."""
    with path.open("rb") as file:
        reader = capture.Reader(file, str(path))
        kind, found = 0, []
        for entry in reader:
            if entry.kind in (capture.CONNECT, capture.RECONNECT):
                if kind:
                    yield kind, found
                kind, found = entry.kind, []
            elif entry.kind == capture.MESSAGE:
                found.append((entry.payload, entry.recv))
            assert entry.kind != capture.LOST
        assert reader.damage == ""
        if kind:
            yield kind, found


def check_next(level: str, file: BinaryIO, wanted: list[Record]) -> None:
    """That a file goes on with these records."""
    expected = pack_all(level, wanted)
    found = file.read(len(expected))
    if found != expected:
        size = LAYOUT[level].size
        at = next(i for i in range(0, len(expected), size) if found[i : i + size] != expected[i : i + size])
        got = unpack_all(level, found[at : at + size]) if len(found) >= at + size else "nothing"
        raise AssertionError(f"{level}: found {got}, should be {wanted[at // size]}")


def check_records(folder: Path) -> Referee:
    """Every record that the feed handed on is the oracle's, out of the captured messages, byte by byte."""
    referee = Referee(clock="always")
    files = {level: (folder / level).open("rb") for level in LEVELS}
    try:
        for kind, found in sections(folder / "capture"):
            referee.connected() if kind == capture.CONNECT else referee.resume()
            for payload, recv in found:
                referee.decode(payload, recv)
            for level in LEVELS:
                check_next(level, files[level], referee.tape[level])
                referee.tape[level].clear()
            referee.bad.clear()
        assert not any(file.read(1) for file in files.values())
    finally:
        for file in files.values():
            file.close()
    return referee


def check_arrivals(folder: Path, links: list[Link], rough: set[int]) -> tuple[int, int]:
    """Every message that was captured came through the proxy, in its order; a link that lost nothing gave all it had.

    Returns how many messages came through, and how many of them an RST took from the socket, or a feed that had gone.
    """
    came = [[payload for _, payload in messages_of(link.down.data or b"")[0]] for link in links]
    at = captured = 0
    whole = set()
    for _, found in sections(folder / "capture"):
        payloads = [payload for payload, _ in found]
        captured += len(payloads)
        if not payloads:
            continue
        while at < len(came) and came[at][: len(payloads)] != payloads:
            at += 1
        assert at < len(came), f"{len(payloads)} captured messages that no connection brought"
        if len(payloads) == len(came[at]):
            whole.add(at)
        at += 1
    for number, sent in enumerate(came):
        assert number in whole or number in rough or not sent, f"link {number} of {len(came)}: messages are missing"
    total = sum(map(len, came))
    return total, total - captured


# --- the run ---


@pytest.mark.long
@pytest.mark.parametrize("day", ["a stock with snapshots", "five stocks"])
def test_real_days_through_a_bad_network(
    tmp_path: Path, data_dir: Path, day: str, record_property: Callable[[str, object], None]
) -> None:
    """Ten times the whole day at 50 times its speed: 52 minutes for each of the two days.

    Memory is compared with that after the second of the ten: what keeps a number of things, such as the looks at the
    lag, has as many by then.
    """
    faulthandler.cancel_dump_traceback_later()  # it takes longer than a test may; every wait in it ends
    names, subscriptions = DAYS[day]
    files = [str(data_dir / name) for name in names]
    measures: list[dict[str, Any]] = []
    folder = tmp_path / "feed"
    folder.mkdir()
    soaked = None
    with Proxy("127.0.0.1:9", seed=1, record=True) as proxy:
        weather = Weather(proxy, day)
        try:
            for _ in range(TIMES):
                with Simulator("--speed", str(SPEED), "--replay", *files) as sim:
                    proxy.retarget(sim.ws)
                    soaked = soaked or Soaked(folder, subscriptions, proxy.http)
                    sim.wait(lambda stats: stats["total"]["records"] > 0, timeout=60)
                    deadline = time.monotonic() + 900
                    while not sim.stats()["finished"]:
                        assert time.monotonic() < deadline, "the day does not end"
                        weather.change()
                    measures.append(measure(proxy, soaked))
                    weather.mark()
            last = soaked.end()
        finally:
            if soaked is not None:
                soaked.close()
        referee = check_records(folder)
        came, unread = check_arrivals(folder, proxy.links, weather.rough)
    warm = measures[2:]
    base, final = measures[1], measures[-1]
    figures = {
        "day": day,
        "records": last["records"],
        "messages": last["messages"],
        "came": came,
        "unread": unread,
        "resident": [each["resident"] for each in measures],
        "descriptors": [len(each["descriptors"]) for each in measures],
        **{name: last.get(name, 0) for name in ("reconnects", "gaps", "stales", "duplicates", "bad", "bad_messages")},
        "weather": weather.count,
    }
    print(json.dumps(figures))
    record_property("soak", json.dumps(figures))
    for name in ("records", "trades", "quotes", "duplicates", "bad", "bad_messages", "rows", "repeats", "stale"):
        assert last[name] == referee.counters[name], name
    assert last["messages"] == last["capture_messages"] == referee.counters["messages"]
    assert last["capture_lost_messages"] == last["callback_errors"] == 0
    assert last.get("gaps_told", 0) == last["gaps"] <= last["disconnects"]
    assert last["reconnects"] > 10 * TIMES
    assert len(weather.count) == len(Weather.KINDS)
    assert last["records"] > 200_000
    assert max(each["resident"] for each in warm) - base["resident"] <= MIB, figures
    assert {len(each["descriptors"]) for each in measures} == {len(base["descriptors"])}, measures
    assert final["state"] in ("open", "live")


def measure(proxy: Proxy, soaked: Soaked) -> dict[str, Any]:
    """How the feed is once everything has arrived, on a connection that has not brought anything yet."""
    settle(proxy, soaked)
    # What a connection's read buffer takes up depends on the largest read it has seen.
    proxy.close()
    return settle(proxy, soaked)


def settle(proxy: Proxy, soaked: Soaked) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    quiet = 0
    before: dict[str, Any] = {}
    while quiet < 4:
        assert time.monotonic() < deadline, f"no rest: {before}"
        time.sleep(0.1)
        answer = soaked.ask()
        held = sum(link.down.read - link.down.written - link.down.swallowed for link in proxy.open_links)
        still = answer["connected"] and not held and answer["messages"] == before.get("messages")
        quiet, before = quiet + 1 if still else 0, answer
    return before
