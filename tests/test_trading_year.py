"""A year of a feed: lunch, nights, weekends and holidays are no outage, and each outage is told, once.

Feed and server share a loop of virtual time; sockets, handshake, frames and decoder are the real ones.
"""

import asyncio
import base64
import datetime as dt
import faulthandler
import gc
import hashlib
import itertools
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import jvq_fast as jvq
from jvq_fast.market_rules import is_trading_day
from this_process import resident
from virtual_time import VirtualLoop
from ws_script import CLOSE, PING, PONG, TEXT, TOKEN, binary, frame

CHINA = dt.timezone(dt.timedelta(hours=8))
YEAR = dt.date(2025, 12, 18)  # 250 trading days from here on lie within the holidays that are known
TRADING_DAYS = 250
EVERY = 3.0  # seconds between two messages
LOOK_EVERY = 5.0
SESSIONS = ((9 * 3600 + 15 * 60, 9 * 3600 + 25 * 60), (9.5 * 3600, 11.5 * 3600), (13 * 3600, 15 * 3600))
MANY = tuple(f"lv1_60000{n}" for n in range(6))
BOOK = ",".join(["100,9.99"] * 5 + ["100,10.01"] * 5)


def clock(seconds: float) -> str:
    return f"{int(seconds) // 3600:02d}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"


def is_open(seconds: float) -> bool:
    return any(begin <= seconds < end for begin, end in SESSIONS)


class Server:
    """Sends to every connection while the market is open, answers, and breaks when it is told to."""

    def __init__(self, loop: VirtualLoop, codes: tuple[str, ...]) -> None:
        self.loop = loop
        self.codes = codes
        self.writers: list[asyncio.StreamWriter] = []
        self.dead: set[asyncio.StreamWriter] = set()  # as if the cable were cut
        self.mute: set[asyncio.StreamWriter] = set()  # no data, but answers
        self.suspended: set[int] = set()  # days on which nothing is traded
        self.sent = self.accepted = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Server":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._pump = asyncio.ensure_future(self._send())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pump.cancel()
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(self._pump, *self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.accepted += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            key = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
            digest = hashlib.sha1(key.partition(b":")[2].strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
            )
            while True:
                first, second = await reader.readexactly(2)
                size = second & 127
                if size == 126:
                    (size,) = struct.unpack(">H", await reader.readexactly(2))
                mask = await reader.readexactly(4)
                data = bytes(b ^ mask[i % 4] for i, b in enumerate(await reader.readexactly(size)))
                if writer in self.dead:
                    continue
                if first & 15 == CLOSE:
                    break
                if first & 15 == PING:
                    writer.write(frame(PONG, data))
                elif data == b"list":
                    writer.write(frame(TEXT, b"0#" + ",".join(self.codes).encode()))
                elif data.startswith(b"all="):
                    writer.write(frame(TEXT, "0#订阅成功".encode()))
                    writer.write(self._message(self.last_open))  # the first push
                    self.writers.append(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            if writer in self.writers:
                self.writers.remove(writer)
            self.dead.discard(writer)
            self.mute.discard(writer)
            writer.close()

    last_open = 15 * 3600.0 - EVERY

    def _message(self, seconds: float) -> bytes:
        rows = (f"{name}={clock(seconds)},x,10.00,0.10,{self.sent}000,{self.sent}00,{BOOK}" for name in self.codes)
        return binary("\n".join(rows))

    async def _send(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            day, seconds = divmod(self.loop.now, 86_400)
            if not is_open(seconds) or not is_trading_day(YEAR + dt.timedelta(days=day)) or day in self.suspended:
                continue
            self.last_open = seconds
            self.sent += 1
            message = self._message(seconds)
            for writer in self.writers:
                if writer not in self.dead and writer not in self.mute:
                    writer.write(message)


class Life:
    """A feed, its server, and what it told, in seconds from the start of the year."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, codes: tuple[str, ...]) -> None:
        self.loop = VirtualLoop()
        begin = int(dt.datetime.combine(YEAR, dt.time(), CHINA).timestamp())
        monkeypatch.setattr(jvq.Feed, "_wall_ns", staticmethod(lambda: int((begin + self.loop.now) * 1e9)))
        self.codes = codes
        self.stales: list[tuple[float, str]] = []
        self.gaps: list[tuple[float, str]] = []

    def run(self, script: Callable[[Server], Any]) -> jvq.Feed:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            return runner.run(self._live(script))

    async def _live(self, script: Callable[[Server], Any]) -> jvq.Feed:
        async with Server(self.loop, self.codes) as server:
            feed = jvq.Feed(TOKEN, self.codes, server=server.url, capacity=1024, history=64)
            feed._supervisor._look_every = feed._supervisor._nap = LOOK_EVERY
            feed.on_stale(lambda stale: self.stales.append((self.loop.now, stale.reason)))
            feed.on_gap(lambda gap: self.gaps.append((self.loop.now, gap.reason)))
            feed.on_error(lambda error, where: None)
            running = asyncio.ensure_future(feed.run_async())
            try:
                await script(server)
            finally:
                feed.stop()
                await running
        return feed


def trading_days(n: int) -> list[int]:
    """The first n trading days of the year, as days from its start."""
    days = (day for day in itertools.count() if is_trading_day(YEAR + dt.timedelta(days=day)))
    return list(itertools.islice(days, n))


@pytest.fixture
def days(long: bool) -> list[int]:
    return trading_days(TRADING_DAYS if long else 5)


def until(loop: VirtualLoop, moment: float) -> Any:
    # A year may take longer than a test may, but no day of it.
    faulthandler.dump_traceback_later(300, file=2, exit=True)
    return asyncio.sleep(moment - loop.now)


def test_a_quiet_year_has_no_false_alarm(monkeypatch: pytest.MonkeyPatch, days: list[int]) -> None:
    life = Life(monkeypatch, MANY)
    memory: list[int] = []

    async def script(server: Server) -> None:
        for day in days:
            await until(life.loop, (day + 1) * 86_400)
            gc.collect()
            memory.append(resident())
        assert server.accepted == 1

    feed = life.run(script)
    assert life.stales == life.gaps == []
    assert feed.stats()["probes"] == 0
    # Every message of every day: 10 + 120 + 120 minutes, and the first push.
    assert feed.quotes.head == (len(days) * 5000 + 1) * len(MANY)
    assert memory[-1] - memory[len(memory) // 2] < 1 << 20, [size >> 10 for size in memory]


def plan(seed: int, days: list[int]) -> Iterator[tuple[float, str]]:
    """Moments and kinds of outages: one or two a day, at any hour, but not so near to each other that they melt."""
    rng = random.Random(seed)
    for day in days:
        hours = sorted(rng.sample(range(24), rng.randint(1, 2)))
        for hour in hours:
            # Not within the last minute of a session, where it may show before it or after.
            yield day * 86_400 + hour * 3600 + rng.uniform(0, 1700), rng.choice(["dead", "mute", "reset"])


# Where silence counts. In auctions a server that answers is believed, since what it pushes there is not known.
AUCTIONS = ((9.25 * 3600, 9.25 * 3600 + 600), (14.95 * 3600, 15 * 3600))
CONTINUOUS = ((9.5 * 3600, 11.5 * 3600), (13 * 3600, 14.95 * 3600))
WATCHED = {"dead": sorted(AUCTIONS + CONTINUOUS), "mute": CONTINUOUS}


def due(moment: float, kind: str) -> float:
    """When silence that begins at a moment begins to count."""
    day, seconds = divmod(moment, 86_400)
    while True:
        if is_trading_day(YEAR + dt.timedelta(days=day)):
            for begin, end in WATCHED[kind]:
                if seconds < end - 60:
                    return float(day * 86_400 + max(seconds, begin))
        day, seconds = day + 1, 0.0


def test_each_outage_of_a_year_is_told_once(monkeypatch: pytest.MonkeyPatch, days: list[int]) -> None:
    life = Life(monkeypatch, MANY)
    outages = list(plan(1, days))
    injected: list[tuple[float, str]] = []

    async def script(server: Server) -> None:
        for moment, kind in outages:
            await until(life.loop, moment)
            (writer,) = server.writers
            if writer in server.dead or writer in server.mute:
                continue  # the last one still lasts: it began while the market was closed
            injected.append((moment, kind))
            if kind == "reset":
                writer.transport.abort()
            else:
                (server.dead if kind == "dead" else server.mute).add(writer)
        await until(life.loop, (days[-1] + 5) * 86_400)  # past a weekend

    feed = life.run(script)
    silent = [(moment, kind) for moment, kind in injected if kind != "reset"]
    assert len(life.gaps) == len(injected)
    assert len(life.stales) == len(silent)
    late = []
    for number, ((told, reason), (moment, kind)) in enumerate(zip(life.stales, silent, strict=True)):
        assert ("no answer" in reason) == (kind == "dead"), (told, reason, moment, kind)
        # Before the first probe it is not known whether the server answers any, so auctions pass.
        late.append(told - due(moment, kind if number else "mute"))
    # 15 s of silence, the grain at which it is looked at, and 3 s for an answer.
    assert min(late) >= 15 - EVERY
    assert max(late) <= 15 + 2 * LOOK_EVERY + 3 + EVERY, sorted(late)[-5:]
    assert feed.stats()["gaps"] == len(injected)


def test_a_stock_that_is_suspended_for_days_is_no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(monkeypatch, MANY[:1])
    days = trading_days(9)

    async def script(server: Server) -> None:
        server.suspended = set(days[3:7])
        await until(life.loop, (days[-1] + 1) * 86_400)
        assert server.accepted == 1

    feed = life.run(script)
    assert life.stales == life.gaps == []
    assert feed.quotes.head == (len(days) - 4) * 5000 + 1
    assert int(feed.stats()["probes"]) > 4
