"""One run of a feed through a fault, and the verdict on it: what reached the feed's socket is the measure.

The proxy keeps every byte that it wrote to the feed. Out of them a frame reader and a decoder of their own, neither
of which shares anything with the product, make what the feed must hold.
"""

import contextlib
import random
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from types import TracebackType
from typing import Any, Self

import numpy as np

import jvq_fast as jvq
from oracle import LEVELS, Oracle
from pair import DTYPES, assert_same
from proxy import Link, Proxy
from simulator import TOKEN, Simulator

WAIT = 120.0  # nothing here takes so long; who waits longer hangs
CODES = ("600519", "000001", "600000", "300750", "601318", "127063", "510300", "688981")
CAPACITY: dict[Any, int] = {"trades": 1 << 16, "quotes": 1 << 11, "depths": 1 << 11}
HISTORY = 256
UNREAD = 0.1  # seconds for which what came may be unread when silence is judged
# Small, so that a run takes a second: everything but the numbers is as it is with the defaults.
QUICK: dict[str, Any] = {
    "backoff_min": 0.02,
    "backoff_max": 0.3,
    "allocation_interval": 0.05,
    "handshake_timeout": 0.4,
    "connect_timeout": 0.8,
    "allocation_timeout": 0.4,
    "close_timeout": 0.2,
    "stale_snapshots": 1.0,
    "stale_trades": 1.0,
    "probe_timeout": 0.25,
}
DEFAULTS: dict[str, Any] = {
    "backoff_min": 0.5,
    "backoff_max": 30.0,
    "allocation_interval": 3.0,
    "handshake_timeout": 5.0,
    "connect_timeout": 10.0,
    "allocation_timeout": 10.0,
    "close_timeout": 1.0,
    "stale_snapshots": 15.0,
    "stale_trades": 60.0,
    "probe_timeout": 3.0,
}


class StarvedError(Exception):
    """The machine kept the simulator or the proxy from work for so long that the feed saw a fault where none was."""


# --- waits that were drawn ---


class Draws:
    """Every `random.uniform` of a thread, as (when, ceiling, value): a feed draws its waits there, and nothing else."""

    def __init__(self) -> None:
        self.by_thread: dict[int, list[tuple[float, float, float]]] = {}
        self._uniform = random.uniform

    def __enter__(self) -> Self:
        random.uniform = self._draw  # type: ignore[assignment]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        random.uniform = self._uniform

    def _draw(self, low: float, high: float) -> float:
        value = self._uniform(low, high)
        self.by_thread.setdefault(threading.get_ident(), []).append((time.monotonic(), high, value))
        return value


# --- what was on the wire ---


def messages(data: bytes | bytearray, limit: int = 10 * 1024 * 1024) -> tuple[list[tuple[int, bytes]], str]:
    """The whole BINARY messages behind an HTTP response, each with the place of its end, and what comes after them.

    That is "close" for a CLOSE and "illegal" for a frame that is not allowed; nothing behind it counts.
    """
    head, found, rest = bytes(data).partition(b"\r\n\r\n")
    begin = len(head) + len(found)
    binaries: list[tuple[int, bytes]] = []
    open_kind, parts = 0, b""
    for end, first, payload in _frames(rest):
        kind, fin = first & 15, first >> 7
        size = len(payload) if payload is not None else limit + 1
        control = kind >= 8
        illegal = (
            first & 0x70
            or kind not in (0, 1, 2, 8, 9, 10)
            or size > limit
            or (control and (size > 125 or not fin))
            or (kind == 0 and not open_kind)
            or (kind in (1, 2) and open_kind)
        )
        if illegal or payload is None:
            return binaries, "illegal"
        if kind == 8:
            return binaries, "close"
        if control:
            continue
        open_kind = kind or open_kind
        parts += payload
        if len(parts) > limit:
            return binaries, "illegal"
        if fin:
            if open_kind == 2:
                binaries.append((begin + end, parts))
            else:
                try:
                    parts.decode()
                except UnicodeDecodeError:
                    return binaries, "illegal"
            open_kind, parts = 0, b""
    return binaries, ""


def _frames(rest: bytes) -> Iterator[tuple[int, int, bytes | None]]:
    """End, first byte and payload of the frames; None for the payload where length or mask are none of a server's."""
    at = 0
    while len(rest) >= at + 2:
        first, size = rest[at], rest[at + 1]
        if size & 128:
            yield at, first, None
            return
        head = 2 + {126: 2, 127: 8}.get(size, 0)
        if len(rest) < at + head:
            return
        least = {126: 126, 127: 1 << 16}.get(size, 0)
        if size > 125:
            size = int.from_bytes(rest[at + 2 : at + head], "big")
        if not least <= size < 1 << 31:
            yield at, first, None
            return
        if len(rest) < at + head + size:
            return
        at += head + size
        yield at, first, rest[at - size : at]


# --- the run ---


@dataclass
class Span:
    """One connection as the feed had it: from `on_connect` to `on_disconnect`."""

    link: Link
    began: float
    cpu_began: float
    before: int  # the decoder's count of messages
    after: int = -1
    ended: float = 0.0
    cpu_ended: float = 0.0
    reason: str = ""
    ends: list[int] = field(default_factory=list)  # places in the stream behind messages that published something
    last_recv: int = 0  # of the latest record there was when it ended
    wanted: tuple[str, ...] = ()


@dataclass
class Figures:
    """What a run measured. Seconds."""

    late: list[float] = field(default_factory=list)  # beyond the waits drawn and the allocation floor
    back: list[float] = field(default_factory=list)  # from the server's return to the connection
    down: float = 0.0
    cpu_down: float = 0.0  # of the feed's thread
    attempts: int = 0  # while down
    gaps: int = 0
    unread: int = 0  # messages that an RST took from the feed's socket buffer


class Run:
    """A feed behind a proxy before a simulator. In its block faults are made; `finish` ends it and judges."""

    def __init__(
        self,
        sim: Simulator,
        draws: Draws,
        seed: str,
        *,
        settings: dict[str, Any],
        way: str = "any",
        history: int = HISTORY,
    ) -> None:
        """`way` is "server", "allocation", "front" (allocation through a proxy too), or "any" of the first two."""
        self._stack = contextlib.ExitStack()
        self.sim = sim
        self.draws = draws
        self.rng = random.Random(seed)
        self.settings = settings
        self.proxy = Proxy(sim.ws, allocation=sim.http, seed=self.rng.getrandbits(32), record=True)
        way = self.rng.choice(("server", "allocation")) if way == "any" else way
        self.allocates = way != "server"
        self.front = Proxy(self.proxy.http) if way == "front" else None
        codes = self.rng.sample(CODES, self.rng.randint(2, 4))
        levels = ("lv2", "lv1", "lv10")
        wanted = [f"lv2_{codes[0]}", *(f"{self.rng.choice(levels)}_{code}" for code in codes)]
        where: dict[str, Any] = {"server": self.proxy.ws}
        if self.front is not None:
            where = {"allocation": self.front.address}
        elif self.allocates:
            where = {"allocation": self.proxy.http}
        self.feed = jvq.Feed(
            TOKEN,
            dict.fromkeys(wanted),
            **where,
            trading_day=sim.trading_day,
            clock="always",
            capacity=CAPACITY,
            history=history,
            **settings,
        )
        self.history = history
        self.spans: list[Span] = []
        self.gaps: list[jvq.Gap] = []
        self.stales: list[tuple[float, jvq.Stale]] = []  # when, monotonic seconds
        self.states: list[tuple[float, str, str]] = []
        self.errors: list[tuple[str, Exception]] = []
        self.texts: list[str] = []
        self.returns: list[float] = []
        self.figures = Figures()
        self._began, self._ended = time.monotonic(), 0.0
        self._thread = 0
        feed = self.feed
        feed.on_connect(self._connected)
        feed.on_disconnect(self._disconnected)
        feed.on_gap(self.gaps.append)
        feed.on_error(lambda error, where: self.errors.append((where, error)))
        feed.on_text(self.texts.append)
        feed.on_stale(self._stale)
        feed.on_state(lambda state, reason: self.states.append((time.monotonic(), str(state), reason)))

    def _connected(self, server: str) -> None:
        self._thread = threading.get_ident()
        count = int(self.feed.decoder.messages)
        self.spans.append(Span(self.proxy.links[-1], time.monotonic(), time.thread_time(), count))

    def _disconnected(self, reason: str) -> None:
        span = self.spans[-1]
        span.after = int(self.feed.decoder.messages)
        span.ended, span.cpu_ended, span.reason = time.monotonic(), time.thread_time(), reason
        span.last_recv = max(int(ring.last(1)["recv"][0]) if ring.head else 0 for ring in self._rings())
        span.wanted = self.feed.subscriptions

    def _stale(self, stale: jvq.Stale) -> None:
        self.stales.append((time.monotonic(), stale))

    def _rings(self) -> list[jvq.Ring]:
        return [getattr(self.feed, level) for level in LEVELS]

    def __enter__(self) -> Self:
        self.feed.start()
        try:
            self.records(1)
        except (jvq.AllocationError, jvq.ConnectError) as error:
            self._close()
            raise StarvedError("no first connection, though nothing is in its way") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.feed.stop()
            assert self.feed.join(WAIT), "stop() does not end the feed"
        finally:
            self._close()
            assert not [error for proxy in (self.front, self.proxy) if proxy is not None for error in proxy.errors]

    def _close(self) -> None:
        if self.sim.process.poll() is None:
            self.sim.clear()
        self._stack.close()
        for proxy in (self.front, self.proxy):
            if proxy is not None:
                proxy.stop()

    # --- what kinds of fault are made of ---

    @property
    def head(self) -> int:
        """Records published so far."""
        return sum(ring.head for ring in self._rings())

    def wait(self, condition: Callable[[], Any], what: str = "") -> None:
        """Until it holds; AssertionError when it takes too long or the feed ends."""
        deadline = time.monotonic() + WAIT
        while not condition():
            assert not self.feed.join(0.005), f"the feed has ended before {what or condition}"
            assert time.monotonic() < deadline, f"never: {what or condition}; {self}"

    def records(self, number: int = 1) -> None:
        """Wait for so many records more."""
        head = self.head
        self.wait(lambda: self.head >= head + number, f"{number} records")

    def settle(self) -> None:
        """Wait until data has come for so long that more is to be expected."""
        span = self.spans[-1]
        until = span.began + 0.3 * max(self.settings["stale_snapshots"], self.settings["stale_trades"])
        self.wait(lambda: time.monotonic() > until, "settled")
        self.records(1)

    def lost_and_back(self) -> None:
        """Wait for the first connection to end by what was done, and for a record on another one."""
        self.gone()
        self.returned(self.spans[0].ended)
        self.stir()
        self.back()

    def back_again(self) -> None:
        """Wait for a record on a connection made since all those that are lost."""
        losses = self.losses
        self.wait(lambda: len(self.spans) > losses, "back")
        self.records(1)

    def back_in_the_end(self) -> None:
        """The same; the simulator's faults in the way end by themselves, the last one is the server's return."""
        self.back_again()
        self.returned(self.sim.faults()["happened"][-1]["time"] / 1e9)

    def pause(self, most: float) -> None:
        """Up to so many seconds."""
        time.sleep(self.rng.uniform(0, most))

    def stir(self) -> None:
        """Change what is wanted, perhaps."""
        code = self.rng.choice(CODES)
        name = f"{self.rng.choice(('lv1', 'lv2', 'lv10'))}_{code}"
        wanted = self.feed.subscriptions
        way = self.rng.randrange(5)
        if way == 0:
            self.feed.subscribe([name, f"lv2_{code}"])
        elif way == 1 and len(wanted) > 1:
            # What keeps records coming stays.
            self.feed.unsubscribe(self.rng.choice(wanted[1:]))
        elif way == 2:
            self.feed.replace(dict.fromkeys([wanted[0], name]))

    def simulator(self, *options: str) -> Simulator:
        """One that takes the place of the one there is; it ends with the run."""
        self.sim = self._stack.enter_context(Simulator(*options))
        self.proxy.retarget(self.sim.ws)
        return self.sim

    def fault(self, kind: str, **parameters: Any) -> None:
        """Have the simulator make a fault, on the connection of this feed."""
        self.sim.fault(kind, **parameters)

    def gone(self, number: int = 1) -> None:
        """Wait until so many connections have ended."""
        self.wait(lambda: self.losses >= number, f"loss {number}")

    @property
    def losses(self) -> int:
        """Connections that have ended."""
        return sum(span.after >= 0 for span in self.spans)

    def returned(self, when: float = 0.0) -> None:
        """The server is as good as ever from now on, or from some moment on."""
        self.returns.append(when or time.monotonic())

    def back(self) -> None:
        """Wait for a record on a connection that was made since the server returned."""
        returned = self.returns[-1]
        self.wait(lambda: self.spans and self.spans[-1].began >= returned and self.spans[-1].after < 0, "back")
        self.records(1)
        self.wait(lambda: self.feed.stats()["state"] == self.states[-1][1] == "live", "live")

    def __repr__(self) -> str:
        ends = [(round(span.ended - span.began, 3), span.reason) for span in self.spans]
        return f"<Run {self.feed!r} {ends} {self.states[-8:]} {self.proxy.counters()}>"

    # --- the verdict ---

    def finish(self) -> None:
        """The subscription, then everything that came; the feed is stopped in between."""
        self._check_subscription()
        self._drain()
        self.feed.stop()
        assert self.feed.join(WAIT), "stop() does not end the feed"
        self._ended = time.monotonic()
        assert self.spans[-1].reason == "stopped"
        assert self.states[-1][1] == self.feed.stats()["state"] == "stopped"
        self._check_records()
        self._check_gaps()
        self._check_waits()
        self._measure()

    def _on_server(self) -> dict[str, Any]:
        """The simulator's view of the latest connection that is open; {} while there is none."""
        found = [each for each in self.sim.stats()["connections"] if each["open"]]
        return found[-1] if found else {}

    def _check_subscription(self) -> None:
        self.wait(
            lambda: self._on_server().get("subscriptions") == list(self.feed.subscriptions),
            f"{self.feed.subscriptions} at the server, which has {self._on_server()}",
        )
        assert [link for link in self.proxy.open_links if not link.up.ended] == [self.spans[-1].link]

    def _drain(self) -> None:
        """Until all that was sent on the last connection is there."""
        self.feed.replace(())
        self.wait(lambda: self._on_server().get("subscriptions") == [], "an empty subscription")
        link = self.spans[-1].link
        quiet, deadline = 0, time.monotonic() + WAIT
        while quiet < 3:
            assert time.monotonic() < deadline, f"never quiet: {self}"
            before = self.sim.stats()["total"]["messages"], link.down.read, self.feed.stats()["messages"]
            time.sleep(0.02)
            after = self.sim.stats()["total"]["messages"], link.down.read, self.feed.stats()["messages"]
            still = before == after and link.down.written + link.down.swallowed == link.down.read
            quiet = quiet + 1 if still else 0

    def _check_records(self) -> None:
        """Byte for byte what a decoder of another make finds in what came through the proxy."""
        oracle = Oracle(CAPACITY, self.history, self.sim.trading_day, clock="always")
        came: list[int] = []
        for number, span in enumerate(self.spans):
            assert span.link.down.data is not None
            sent, end = messages(span.link.down.data)
            taken = span.after - span.before
            what = f"connection {number}, {span.reason!r}, {end!r}: {taken} messages of {len(sent)} that came"
            assert taken <= len(sent), what
            # What the proxy wrote once the feed had closed the connection did not come.
            closed = span.ended - (UNREAD if span.reason.startswith("stale") else 0.0)
            written = max((count for when, count in span.link.down.moments if when <= closed), default=0)
            due = len(messages(span.link.down.data[:written])[0])
            # What an RST overtakes is lost in the system, and it is all that may be.
            assert taken >= due or span.link.abrupt, what
            self.figures.unread += max(0, due - taken)
            oracle.resume() if number else oracle.connected()
            came.append(0)
            for place, payload in sent[:taken]:
                if published := oracle.decode(payload).published:
                    came[-1] += published
                    span.ends.append(place)
        self.came = came
        for level in LEVELS:
            ring = getattr(self.feed, level)
            assert ring.head <= CAPACITY[level]
            found = np.frombuffer(bytearray(ring.last(ring.head).tobytes()), DTYPES[level])
            found["recv"] = 0
            assert_same(level, found, oracle.tape[level])
        stats = self.feed.stats()
        wanted = {name: oracle.counters[name] for name in ("duplicates", "bad", "bad_messages", "rows", "trades")}
        assert {name: stats[name] for name in wanted} == wanted

    def check_silences(self, least: int, most: int) -> None:
        """As many as there were; and each one was one."""
        limit = min(self.settings["stale_snapshots"], self.settings["stale_trades"])
        assert len(self.stales) == self.feed.stats()["stales"]
        assert len(self.stales) >= least
        for when, stale in self.stales:
            silence = when - self._latest_data(when - UNREAD)
            assert silence >= 0.8 * limit, (silence, stale)
        if len(self.stales) > most:
            raise StarvedError(f"{len(self.stales)} silences instead of {most}: {self.stales}")

    def _latest_data(self, when: float) -> float:
        """When the proxy had handed on the last record before some moment; else when the connection began."""
        span = [span for span in self.spans if span.began <= when][-1]
        moments = span.link.down.moments
        passed = (moments[bisect_left(moments, end, key=itemgetter(1))][0] for end in span.ends)
        return max((moment for moment in passed if moment <= when), default=span.began)

    def check_trades_once(self) -> None:
        """No trade twice. For faults that do not have the server send one twice on a connection."""
        trades = self.feed.trades.last(self.feed.trades.head)
        # Two simulators may give the same number to different trades.
        keys = Counter(trades[["code", "id", "time", "price", "volume"]].tolist())
        twice = [key for key, times in keys.items() if times > 1]
        assert not twice, twice[:5]

    def _check_gaps(self) -> None:
        """One for each stretch without a connection that ends in a record, with the right ends."""
        recv = np.sort(np.concatenate([ring.last(ring.head)["recv"] for ring in self._rings()]))
        lost: Span | None = None
        first = 0
        wanted: list[tuple[Span, int]] = []
        for span, came in zip(self.spans, self.came, strict=True):
            if lost is not None and came:
                wanted.append((lost, int(recv[first])))
                lost = None
            if lost is None and span.wanted:
                lost = span
            first += came
        assert len(self.gaps) == len(wanted) == self.feed.stats()["gaps"], (self.gaps, self.came, self)
        for gap, (span, end) in zip(self.gaps, wanted, strict=True):
            assert gap.end == end
            # Messages without records count as arrivals, and the opening where nothing arrived.
            assert span.last_recv <= gap.start < gap.end
            assert gap.reason == span.reason
            assert gap.codes == tuple(dict.fromkeys(name.partition("_")[2] for name in span.wanted))
        self.figures.gaps = len(wanted)

    def _check_waits(self) -> None:
        least, most = self.settings["backoff_min"], self.settings["backoff_max"]
        for _, ceiling, value in self._drawn():
            assert least <= ceiling <= most
            assert 0 <= value <= ceiling
        for before, after in pairwise(self.proxy.allocations):
            assert after - before >= self.settings["allocation_interval"], self.proxy.allocations

    def _drawn(self) -> list[tuple[float, float, float]]:
        # The number of a thread that has ended is given to another one.
        drawn = self.draws.by_thread.get(self._thread, [])
        return [draw for draw in drawn if self._began <= draw[0] <= self._ended]

    def _measure(self) -> None:
        figures = self.figures
        for span, following in pairwise(self.spans):
            figures.down += following.began - span.ended
            figures.cpu_down += following.cpu_began - span.cpu_ended
            figures.attempts += sum(span.ended <= when <= following.began for when, _, _ in self._drawn())
        for returned in self.returns:
            began = next((span.began for span in self.spans if span.began >= returned), None)
            if began is None:
                continue
            figures.back.append(began - returned)
            figures.late.append(began - max(returned, self._may_take_until(returned, began)))

    def _may_take_until(self, returned: float, began: float) -> float:
        """Until when the waits that were drawn, and the floor between two allocations, keep a feed from coming back.

        What was under way at the return may be over later; its end is the first draw.
        """
        drawn = self._drawn()
        waits = [(when, value) for when, _, value in drawn if returned <= when <= began]
        inforce = [when + value for when, _, value in drawn if when < returned]
        until = max([returned, *inforce[-1:]]) if not waits else waits[0][0] + sum(value for _, value in waits)
        if self.allocates:
            # The floor counts from the end of the allocation before the one that led to this connection.
            ends = [after for (_, state, _), (after, _, _) in pairwise(self.states) if state == "allocating"]
            ends = [end for end in ends if end < began]
            if len(ends) > 1:
                until = max(until, ends[-2] + self.settings["allocation_interval"])
        return until


def describe(figures: list[Figures]) -> dict[str, float]:
    """The figures of many runs, for the report of a long run."""

    def percentile(values: list[float], share: float) -> float:
        return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0

    late = [value for each in figures for value in each.late]
    back = [value for each in figures for value in each.back]
    down, cpu = sum(each.down for each in figures), sum(each.cpu_down for each in figures)
    return {
        "runs": len(figures),
        "gaps": sum(each.gaps for each in figures),
        "returns": len(late),
        "late_p50": round(percentile(late, 0.5), 4),
        "late_p99": round(percentile(late, 0.99), 4),
        "late_max": round(max(late, default=0.0), 4),
        "back_p99": round(percentile(back, 0.99), 4),
        "down": round(down, 1),
        "cpu_while_down": round(cpu / down, 4) if down else 0.0,
        "attempts": sum(each.attempts for each in figures),
        "unread_after_rst": sum(each.unread for each in figures),
    }
