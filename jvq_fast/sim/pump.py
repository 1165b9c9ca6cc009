"""Moves events from the source to the server as time goes by. Nothing wakes while there is nothing to wait for."""

import asyncio
import time
from collections.abc import Callable, Container

from jvq_fast.market_rules import next_trading_day
from jvq_fast.sim.events import SECOND, Event, parse_clock
from jvq_fast.sim.exchange import Source
from jvq_fast.sim.server import Server
from jvq_fast.sim.settings import Settings
from jvq_fast.sim.timeline import Timeline

_SLICE = 0.01  # seconds of work before the loop gets its turn
_LONGEST_WAIT = 3600.0
_PAUSE = 8 * SECOND  # a market that says nothing for longer is at lunch, or closed
_LATE = 1.0  # seconds behind beyond which the clock is set back instead of catching up
_ENOUGH = 1 << 18  # bytes waiting for a reader at which full speed waits for it
_FULL_SPEED_GATHER = 80


class Pump:
    """Plays a source to a server along a timeline."""

    def __init__(
        self, settings: Settings, timeline: Timeline, source: Source, server: Server, failed: Callable[[], None]
    ) -> None:
        """``failed`` is called when an error of ours ends the market; the error itself goes to the loop's handler."""
        self.slipped = 0
        self.watched: Container[str] = ()  # codes whose events on_event hears, after those who are subscribed
        self.on_event: Callable[[int, str, Event], None] | None = None
        self._settings = settings
        self._timeline = timeline
        self._source = source
        self._server = server
        self._failed = failed
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        per_gather = settings.gather_ms * (_FULL_SPEED_GATHER if timeline.full_speed else settings.speed)
        self._gather = 0 if settings.replay else max(0, int(per_gather * SECOND / 1000) - 1)
        self._day = timeline.day(timeline.now())
        server.on_listen = self._listen
        server.on_forget = source.forget
        server.snapshot_of = source.snapshot
        server.on_day_change = self.change_day

    def change_day(self, days: int, at: str) -> None:
        """Go on so many trading days later at a time of day; what lies between never happens."""
        day = self._timeline.day(self._timeline.now())
        for _ in range(days):
            day = next_trading_day(day)
        moment = self._timeline.midnight(day) + parse_clock(at)
        self._timeline.jump(moment)
        self._source.skip(moment)
        self._wake()

    def go(self) -> None:
        """Let time run, if it does not yet."""
        if not self._timeline.running:
            self._timeline.run()
        self._wake()

    def _listen(self, code: str) -> None:
        timeline = self._timeline
        if not timeline.running and not self._settings.hold:
            timeline.run()
        if not self._settings.calendar and not self._settings.replay and timeline.resting(timeline.now()):
            timeline.jump(timeline.after_rest(timeline.now()))
        self._source.listen(code)
        self._wake()

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._timer = None
        try:
            wait = self._work()
        except BaseException:
            self._failed()
            raise
        if wait is not None:
            self._timer = asyncio.get_running_loop().call_later(wait, self._turn)

    def _work(self) -> float | None:
        """Send what is due; how long to wait for more, None for until somebody listens."""
        timeline, source, server = self._timeline, self._source, self._server
        if not timeline.running:
            return None
        enough = time.monotonic() + _SLICE
        while True:
            due = source.due()
            if due is None:
                return None
            now = timeline.now()
            ready = due + self._gather
            if ready > now and not timeline.full_speed:
                if self._settings.calendar or due - now < _PAUSE:
                    return min(timeline.seconds_until(ready), _LONGEST_WAIT)
                if not timeline.resting(now):  # yet: the session may end before the next event
                    return _PAUSE / SECOND / timeline.speed / 4
                timeline.jump(due)
                continue
            if timeline.full_speed:
                if not server.has_listeners:
                    return None
                if self._blocked():
                    return 0.002
            elif now - ready > _LATE * timeline.speed * SECOND:
                self.slipped += now - ready
                timeline.jump(ready)
            for moment, code, event in source.happen(ready):
                server.put(code, event)
                if self.on_event is not None and code in self.watched:
                    self.on_event(moment, code, event)
            server.flush()
            timeline.reach(ready)
            if timeline.day(ready) != self._day:
                self._day = timeline.day(ready)
                server.new_day()
            if time.monotonic() > enough:
                return 0.0

    def _blocked(self) -> bool:
        """Whether a reader has enough to read; one that takes nothing for long is cut."""
        now = time.monotonic()
        blocked = False
        for connection in self._server.connections():
            waiting = connection.waiting()
            if waiting < _ENOUGH:
                continue
            if waiting != connection.waited[1]:
                connection.waited = now, waiting
            if now - connection.waited[0] > self._settings.stall_seconds:
                self._server.too_slow()
                connection.cut()
            else:
                blocked = True
        return blocked
