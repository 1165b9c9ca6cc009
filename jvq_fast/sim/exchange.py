"""All markets of a run in time order. One starts at its code's first subscription and sleeps while nobody listens."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol

from jvq_fast.market_rules import is_trading_day, next_trading_day, previous_trading_day
from jvq_fast.sim.events import DAY, SECOND, Event, Snapshot
from jvq_fast.sim.listing import listing
from jvq_fast.sim.market import CLOSE, Market, open_market
from jvq_fast.sim.settings import Settings
from jvq_fast.sim.timeline import Timeline

_CATCH_UP = 300 * SECOND


class Source(Protocol):
    """Where events come from. All times are moments of the timeline."""

    def listen(self, code: str) -> None:
        """Somebody listens to ``code`` from now on."""

    def forget(self, code: str) -> None:
        """Nobody listens to ``code`` any more."""

    def due(self) -> int | None:
        """When the next event comes; None while there is none to wait for."""

    def happen(self, until: int) -> Iterator[tuple[int, str, Event]]:
        """Let everything up to ``until`` happen: (moment, code, event) in order."""

    def skip(self, to: int) -> None:
        """What lies before ``to`` does not happen."""

    def snapshot(self, code: str) -> Snapshot | None:
        """The state of a code, if it is known."""


@dataclass(slots=True)
class _Running:
    market: Market
    midnight: int
    entry: int = 0  # the valid one of this market's entries in the queue; 0 while it sleeps


class Exchange:
    """The generated markets of all codes."""

    def __init__(self, settings: Settings, timeline: Timeline, start: int) -> None:
        self._settings = settings
        self._timeline = timeline
        self._start = start
        self._running: dict[str, _Running] = {}
        self._queue: list[tuple[int, int, _Running]] = []
        self._entries = 0
        self._locked = dict.fromkeys(filter(None, settings.limit_up.split(",")), 1)
        self._locked |= dict.fromkeys(filter(None, settings.limit_down.split(",")), -1)

    def listen(self, code: str) -> None:
        now = self._timeline.now()
        running = self._running.get(code)
        if running is None:
            cancels = self._settings.cancels if code[0] in "013" and not code.startswith("11") else 0.0
            market = open_market(
                listing(code, self._settings.seed),
                self._settings.seed,
                locked=self._locked.get(code, 0),
                cancels=cancels,
            )
            running = self._running[code] = _Running(market, 0)
            self._open(running, now)
        elif not running.entry:
            self._catch_up(running, now)
        if not running.entry:
            self._schedule(running)

    def forget(self, code: str) -> None:
        self._running[code].entry = 0

    def due(self) -> int | None:
        queue = self._queue
        while queue and queue[0][2].entry != queue[0][1]:
            heappop(queue)
        return queue[0][0] if queue else None

    def happen(self, until: int) -> Iterator[tuple[int, str, Event]]:
        while (due := self.due()) is not None and due <= until:
            running = heappop(self._queue)[2]
            event = running.market.step()
            if running.market.over:
                self._next_day(running)
            self._schedule(running)
            if event:
                yield due, running.market.code, event

    def skip(self, to: int) -> None:
        for running in self._running.values():
            awake = running.entry
            self._open(running, to)
            if awake:
                self._schedule(running)

    def snapshot(self, code: str) -> Snapshot | None:
        running = self._running.get(code)
        return None if running is None else running.market.snapshot(self._timeline.now() % DAY)

    def _schedule(self, running: _Running) -> None:
        self._entries += 1
        running.entry = self._entries
        heappush(self._queue, (running.midnight + running.market.due, self._entries, running))

    def _open(self, running: _Running, now: int) -> None:
        """Begin the day of ``now`` in the middle; a day without trading leaves the market where the last one closed."""
        day = self._timeline.day(now)
        clock = now % DAY
        if not is_trading_day(day):
            day, clock = previous_trading_day(day), CLOSE
        self._begin(running, day, clock)

    def _begin(self, running: _Running, day: dt.date, clock: int) -> None:
        running.midnight = self._timeline.midnight(day)
        running.market.open_day(day)
        running.market.start(clock)
        if running.market.over:
            self._next_day(running)

    def _next_day(self, running: _Running) -> None:
        day = next_trading_day(self._timeline.day(running.midnight))
        self._begin(running, day, self._start)

    def _catch_up(self, running: _Running, now: int) -> None:
        """What a sleeping market missed happens unheard; after a long sleep it just goes on, after a night it opens."""
        market = running.market
        due = running.midnight + market.due
        if now - due > _CATCH_UP:
            if self._timeline.day(now) != self._timeline.day(running.midnight):
                self._open(running, now)
            else:
                market.start(now % DAY)
                if market.over:
                    self._next_day(running)
            return
        while running.midnight + market.due <= now:
            market.step()
            if market.over:
                self._next_day(running)
