"""Keeps a feed's connection up: allocates, connects, watches, and comes back, each failure by its rule."""

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from jvq_fast.allocation import ServerAddress, allocate, no_reply, parse_server
from jvq_fast.channel import Channel
from jvq_fast.connection import Connection
from jvq_fast.decoder import Decoder
from jvq_fast.errors import (
    AllocationError,
    ConnectError,
    DataError,
    EvictedError,
    JvqError,
    NotConnectedError,
    RequestTimeoutError,
    ServerError,
)
from jvq_fast.events import Events, Gap, Stale, State
from jvq_fast.lag import Judge
from jvq_fast.listener import Tap
from jvq_fast.meter import Meter
from jvq_fast.offload import HangingError, offload
from jvq_fast.redact import Secret, redact
from jvq_fast.rules import Backoff, Evictions, Notice, classify, ends_the_feed, is_refusal, server_error
from jvq_fast.staleness import Arrivals, Staleness, Verdict
from jvq_fast.subscriptions import code_of

# What the server complained of within so many seconds before the end of a connection is taken for its reason.
_COMPLAINT = 5.0
# A connection is refused within so many seconds of its opening; later it is evicted.
_REFUSAL = 2.0
# A server that refuses a connection and leaves it open is left after so many seconds.
_REFUSED_OPEN = 2.0
# Data that can't be read is told of at once, then so many seconds apart.
_UNREAD_AGAIN = 60.0
_UNREAD = ("bad", "inflate_corrupt", "inflate_truncated", "inflate_too_large")
# What holds the loop up is seen to this grain.
_NAP = 0.1
_COUNTED = ("frames", "texts", "pings", "pongs", "fragments")
_log = logging.getLogger("jvq_fast")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a supervisor needs to know. All times are seconds."""

    market: str
    token: Secret
    server: ServerAddress | None
    service: str
    max_message: int
    connect_timeout: float
    handshake_timeout: float
    allocation_timeout: float
    allocation_interval: float
    backoff_min: float
    backoff_max: float
    close_timeout: float
    stale_snapshots: float
    stale_trades: float
    probe_timeout: float
    eviction_limit: int
    eviction_window: float
    max_network_lag: float
    max_feed_lag: float
    max_callback_time: float
    always: bool
    busy_poll: bool


@dataclass(slots=True)
class _Session:
    """One connection that opened."""

    connection: Connection
    opened: float
    opened_ns: int
    records: int  # of all connections before
    complaint: ServerError | None = None
    notice: Notice | None = None
    complained: float = 0.0
    messages: int = 0  # that had come by then
    is_refused: bool = False
    has_spoken: bool = False  # a TEXT that was no complaint
    is_left: bool = False  # by this side, because it is refused
    reason: str = ""  # why this side gave it up


class Supervisor:
    """Runs connection after connection until it is stopped or something ends the feed.

    All of it belongs to the loop's thread; other threads may read `state`, `reason` and `counters`.
    """

    def __init__(
        self,
        settings: Settings,
        decoder: Decoder,
        meter: Meter,
        channel: Channel,
        events: Events,
        lock: threading.RLock,
        stop_requested: Callable[[], bool],
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.state = State.IDLE
        self.reason = ""
        self.tap: Tap | None = None
        self.session: _Session | None = None
        self.counters = dict.fromkeys(
            (
                "connects",
                "reconnects",
                "disconnects",
                "connect_failures",
                "allocations",
                "gaps",
                "stales",
                "lags",
                "probes",
                "probes_answered",
                "refusals",
                "evictions",
                "server_errors",
                *_COUNTED,
            ),
            0,
        )
        self._settings = settings
        self._decoder = decoder
        self._meter = meter
        self._channel = channel
        self._events = events
        self._lock = lock
        self._stop_requested = stop_requested
        self._wall_ns = wall_ns
        self._backoff = Backoff(settings.backoff_min, settings.backoff_max)
        self._staleness = Staleness(settings.stale_snapshots, settings.stale_trades, always=settings.always)
        self._lag = Judge(settings.max_network_lag, settings.max_feed_lag, settings.max_callback_time)
        self._nap = _NAP
        self._look_every = min(1.0, settings.stale_snapshots / 10, settings.stale_trades / 10)
        self._answers_ping: bool | None = None
        self._last_allocation: float | None = None
        self._gap: tuple[int, str, tuple[str, ...]] | None = None
        self._stop = asyncio.Event()
        self._interrupt: BaseException | None = None
        self._unread: dict[str, int] = {}  # what was told of it
        self._unread_told = 0.0
        self._was_dismissed = False  # the last connection ended because of the token, though it had been accepted

    # --- from outside ---

    @property
    def stopping(self) -> asyncio.Event:
        """Which run this is, for a `stop` that is to come later."""
        return self._stop

    def stop(self, run: asyncio.Event) -> None:
        """End that run, if it still lasts. On the loop's thread; before `run`, it ends at once."""
        if run is not self._stop:
            return
        run.set()
        if self.session is not None:
            self.session.connection.close()
            try:
                self._enter(State.CLOSING, "stop() was called")
            except BaseException as interrupt:
                # Out of a callback of the loop it would tear that down.
                self._interrupt = interrupt

    def begin(self) -> None:
        """A new run, on the loop's thread: forget that the last one was stopped, and what it made of its server."""
        settings = self._settings
        self._stop = asyncio.Event()
        self._interrupt = None
        self._staleness = Staleness(settings.stale_snapshots, settings.stale_trades, always=settings.always)
        self._lag = Judge(settings.max_network_lag, settings.max_feed_lag, settings.max_callback_time)
        self._answers_ping = None
        self._was_dismissed = False
        self._meter.take()

    def counted(self) -> dict[str, int]:
        """The counters, those of the connection that is open included. From any thread."""
        with self._lock:
            counters = dict(self.counters)
            if self.session is not None:
                for name in _COUNTED:
                    counters[name] += int(getattr(self.session.connection.listener, name))
        return counters

    def answers(self) -> dict[str, str]:
        """Whether the server answers probes, by their kind: "yes", "no" or "unknown". From any thread."""
        words = {None: "unknown", True: "yes", False: "no"}
        return {"answers": words[self._staleness.answers], "answers_ping": words[self._answers_ping]}

    def fail(self, error: Exception) -> None:
        """A run that did not come as far as `run`."""
        self._enter(State.FAILED, str(error) or type(error).__name__)

    async def run(self) -> None:
        """Until `stop()`. What ends the feed is raised."""
        try:
            try:
                await self._keep_connected()
            finally:
                if not isinstance(sys.exception(), KeyboardInterrupt | SystemExit):
                    self._judge_lag()
                    self._tell_unread(again=0.0)
        except asyncio.CancelledError:
            self._enter(State.STOPPED, "cancelled")
            raise
        except (KeyboardInterrupt, SystemExit) as interrupt:
            self._enter(State.STOPPED, type(interrupt).__name__)
            raise
        except BaseException as error:
            self._enter(State.FAILED, str(error) or type(error).__name__)
            raise
        else:
            self._enter(State.STOPPED, "stop() was called")
        finally:
            self._decoder.first_record = None
            self._gap = None

    def _enter(self, state: State, reason: str) -> None:
        if state is self.state:
            return
        before, self.state, self.reason = self.state, state, reason
        is_lost = state is State.WAITING and before in (State.OPEN, State.LIVE, State.PROBING)
        _log.log(logging.WARNING if is_lost else logging.INFO, "%s -> %s: %s", before, state, reason)
        self._events.tell("on_state", state, reason)

    # --- connection after connection ---

    async def _keep_connected(self) -> None:
        settings = self._settings
        self._backoff.reset()
        evictions = Evictions(settings.eviction_limit, settings.eviction_window)
        came_up = False
        while not self._stop.is_set():
            try:
                connection = await self._connect()
            except (AllocationError, ConnectError) as error:
                self.counters["connect_failures"] += 1
                if self._stop.is_set():
                    break
                if not came_up or ends_the_feed(error):
                    raise
                reason = str(error)
                self._events.report(error, "allocation" if isinstance(error, AllocationError) else "connect")
            else:
                if connection is None:
                    break
                session, reason = await self._follow(connection)
                if self._stop.is_set():
                    break
                if session is not None:
                    self._judge(session, came_up, evictions)
                came_up = True
            if not self._stop.is_set():
                await self._wait(reason)

    def _judge(self, session: _Session, came_up: bool, evictions: Evictions) -> None:
        """A connection ended: raise what ends the feed too."""
        complaint = session.complaint
        if session.notice is not Notice.TOKEN:
            self._was_dismissed = False
        if complaint is None:
            return
        if session.notice is Notice.TOKEN:
            # On a connection that had served it may be about anything; the next one will show.
            if session.is_refused or self._was_dismissed:
                raise complaint
            self._was_dismissed = True
            return
        if session.is_refused:
            self.counters["refusals"] += 1
            if not came_up:
                raise complaint
            return
        if session.notice is Notice.LATER:
            return
        self.counters["evictions"] += 1
        if evictions.add(asyncio.get_running_loop().time()):
            raise EvictedError(complaint.text, evictions.limit, evictions.window)

    async def _wait(self, reason: str) -> None:
        seconds = self._backoff.next()
        if self._settings.server is None and self._last_allocation is not None:
            seconds = max(seconds, self._last_allocation + self._settings.allocation_interval - time.monotonic())
        self._enter(State.WAITING, reason)
        await self._pause(seconds)

    async def _connect(self) -> Connection | None:
        """One attempt; None when the feed is to stop."""
        settings = self._settings
        address = settings.server or await self._allocate()
        if address is None:
            return None
        self._enter(State.CONNECTING, str(address))
        connection = Connection(
            address,
            settings.token,
            self._decoder,
            self,
            tap=self.tap,
            max_message=settings.max_message,
            close_timeout=settings.close_timeout,
            busy_poll=settings.busy_poll,
        )
        try:
            is_open = await connection.open(settings.connect_timeout, settings.handshake_timeout, self._stop)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self.session is None or task is None:
                raise
            # It opened all the same, so it is to end like any other: the next wait is cancelled in place of this one.
            task.uncancel()
            task.cancel()
            is_open = True
        return connection if is_open else None

    async def _allocate(self) -> ServerAddress | None:
        settings = self._settings
        self._enter(State.ALLOCATING, redact(settings.service))
        if self._last_allocation is not None:
            await self._pause(self._last_allocation + settings.allocation_interval - time.monotonic())
        if self._stop.is_set():
            return None
        self.counters["allocations"] += 1
        timeout = settings.allocation_timeout
        ask = partial(_find_server, settings.token, settings.market, settings.service, timeout)
        asking = asyncio.ensure_future(offload(ask, timeout, "allocation"))
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({asking, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                return None
            return asking.result()
        except HangingError as error:
            raise AllocationError(f"the allocation service was not asked: {error}") from None
        except TimeoutError:
            pass
        finally:
            asking.cancel()
            stopped.cancel()
            del asking  # an error that it holds has this frame in its traceback
            # From the end of the attempt: the service counts from when a request reaches it.
            self._last_allocation = time.monotonic()
        raise no_reply(settings.service, timeout)

    async def _follow(self, connection: Connection) -> tuple[_Session | None, str]:
        """Stay with a connection to its end; returns what became of it, and why it ended."""
        listener = connection.listener
        cancelled = None
        if self._stop.is_set():
            connection.close()  # it opened while the stop was under way
        watching = asyncio.ensure_future(self._watch(connection))
        try:
            reason = await connection.ended()
        except asyncio.CancelledError as error:
            cancelled = error
            reason = "cancelled"
        finally:
            watching.cancel()
        with self._lock:
            session, self.session = self.session, None
            for name in _COUNTED:
                self.counters[name] += int(getattr(listener, name))
            self.counters["disconnects"] += 1
        self._channel.closed()
        fatal = listener.fatal or self._interrupt
        if fatal is None and watching.done() and not watching.cancelled():
            fatal = watching.result()
        if fatal is not None:
            self._events.tell("on_disconnect", type(fatal).__name__)
            raise fatal
        if cancelled is None:
            if self._stop.is_set():
                reason = "stopped"
            elif session is not None:
                reason = self._reason(session, reason)
                if self._gap is None and (wanted := self._channel.wanted):
                    codes = tuple(dict.fromkeys(map(code_of, wanted)))
                    self._gap = (listener.message_ns or session.opened_ns, reason, codes)
        self._events.tell("on_disconnect", reason)
        if cancelled is not None:
            raise cancelled
        return session, reason

    def _reason(self, session: _Session, said: str) -> str:
        """Why a connection ended; a complaint that was not about its end is forgotten."""
        listener = session.connection.listener
        is_late = asyncio.get_running_loop().time() - session.complained > _COMPLAINT and not session.is_left
        # Data after it shows that a complaint was about something else. So does a reset, unless the words are clear.
        is_ended = listener.is_closed_by_peer or session.connection.is_ended_by_peer
        is_other = session.notice in (Notice.OTHER, Notice.LATER) and not session.is_refused and not is_ended
        if listener.messages != session.messages:
            session.is_refused = False
            # What the server had in its queue may come behind the words that are clear.
            is_other = session.notice is not Notice.LIMIT or not is_ended
        if session.reason or is_late or is_other:
            session.complaint = session.notice = None
        if session.complaint is not None:
            is_evicted = not session.is_refused and session.notice in (Notice.LIMIT, Notice.OTHER)
            return f"{'evicted' if is_evicted else 'refused'}: {session.complaint.text}"
        return session.reason or said

    # --- what the connection tells ---

    def opened(self, connection: Connection) -> None:
        """Called by the connection, on the loop's thread, before its first frame is looked at."""
        again = self.counters["connects"] > 0
        now = asyncio.get_running_loop().time()
        self.session = _Session(connection, now, self._wall_ns(), self._arrivals().records)
        self._staleness.opened(now, self._arrivals())
        self._judge_lag()  # the wait before is no interval; the first records may come before anybody looks
        if self.tap is not None:
            self.tap.connect(again)
        if again:
            self._decoder.resume()
        else:
            self._decoder.connected()
        self._decoder.first_record = self._first_record
        self.counters["connects"] += 1
        self.counters["reconnects"] += again
        self._channel.opened(connection)
        if self._stop.is_set() or self._stop_requested():
            connection.listener.quit()
        self._enter(State.OPEN, str(connection.address))
        self._events.tell("on_connect", str(connection.address))
        self.session.opened = asyncio.get_running_loop().time()  # what handlers took is not the server's

    def _first_record(self, recv_ns: int) -> None:
        self._backoff.reset()
        self._enter(State.LIVE, "data arrives")
        if self._gap is None:
            return
        start, reason, codes = self._gap
        self._gap = None
        self.counters["gaps"] += 1
        # Our wall clock may have been set back meanwhile.
        self._events.tell("on_gap", Gap(start, max(start, recv_ns), reason, codes))

    def text(self, text: str) -> None:
        """Called by the connection, on the loop's thread, for each TEXT message."""
        notice = classify(text)
        error: ServerError | None = None
        session = self.session
        if notice is None:
            if session is not None:
                session.has_spoken = True
            if is_refusal(text):
                error = ServerError(redact(text))
                self.counters["server_errors"] += 1
        else:
            error = server_error(text, notice)
            self.counters["server_errors"] += 1
            if session is not None:
                self._complained(session, error, notice)
        self._channel.text(text, error)
        self._events.tell("on_text", text)
        if error is not None:
            self._events.report(error, "text")
        if session is not None and notice is not None:
            session.complained = asyncio.get_running_loop().time()  # the end that follows could not be seen before

    def _complained(self, session: _Session, error: ServerError, notice: Notice) -> None:
        loop = asyncio.get_running_loop()
        session.complaint, session.notice, session.complained = error, notice, loop.time()
        is_first = not session.has_spoken and not session.connection.listener.messages
        session.messages = session.connection.listener.messages
        session.connection.watch_end()
        if is_first and loop.time() - session.opened < _REFUSAL:
            session.is_refused = True
            if notice in (Notice.LIMIT, Notice.TOKEN):
                loop.call_later(_REFUSED_OPEN, self._leave, session)

    def _leave(self, session: _Session) -> None:
        """A server refused the connection: it is left, unless it serves it all the same."""
        if session is self.session and not session.connection.listener.messages:
            session.is_left = True
            session.connection.close()

    # --- silence and lag ---

    def _arrivals(self) -> Arrivals:
        stats = self._decoder.stats()
        records, trades, dropped = int(stats["records"]), int(stats["trades"]), int(stats["duplicates"])
        return Arrivals(records + dropped, records + dropped - int(stats["repeats"]), trades + dropped)

    async def _watch(self, connection: Connection) -> BaseException | None:
        """Look after a connection. What goes wrong with that ends the connection, and is returned."""
        try:
            await self._look_after(connection)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            connection.abort()
            return error
        return None

    async def _look_after(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._judge_lag(connection, await self._sleep(self._look_every))
            self._tell_unread()
            session = self.session
            if session is None or session.connection is not connection or connection.listener.closing:
                continue
            subscribed, wanted = self._channel.subscribed_at, self._channel.wanted
            verdict = self._staleness.look(loop.time(), self._wall_ns(), self._arrivals(), subscribed, wanted)
            if self.state is State.OPEN and self._arrivals().records != session.records:
                # Nothing new yet, so there was no first record; yet the server serves.
                self._backoff.reset()
                self._enter(State.LIVE, "data arrives that came before")
            if verdict is not Verdict.PROBE:
                continue
            before = self.state
            self._enter(State.PROBING, self._staleness.reason)
            answered, alive = await self._probe(session)
            subscribed, wanted = self._channel.subscribed_at, self._channel.wanted
            verdict = self._staleness.probed(
                loop.time(), self._arrivals(), subscribed, wanted, answered=answered, alive=alive
            )
            if verdict is Verdict.STALE:
                self._give_up(session)
                return
            if self.state is State.PROBING:
                said = "the server answers" if answered else "the server sends" if alive else "no answer to the probe"
                self._enter(before, said)

    async def _probe(self, session: _Session) -> tuple[bool, bool]:
        """Ask the server for a sign of life; whether it answered, and whether anything at all came."""
        listener = session.connection.listener
        frames, texts, pongs = listener.frames, listener.texts, listener.pongs
        if pongs:
            self._answers_ping = True  # one that came after the answer to `list`
        self.counters["probes"] += 1
        loop, timeout = asyncio.get_running_loop(), self._settings.probe_timeout
        began = loop.time()
        is_asked = self._answers_ping is not False
        if is_asked:
            session.connection.ping()
        try:
            await self._channel.request_async("list", timeout)
        except (NotConnectedError, RequestTimeoutError, ServerError):
            pass
        if loop.time() - began > timeout + self._nap:
            # What held the loop up past the timeout may have kept the question from going out, or the answer unread.
            await self._sleep(timeout)
        if session.connection.backlog()[0]:
            await self._sleep(self._nap)  # what came in the last moment is read before it is judged
        answered = (listener.texts, listener.pongs) != (texts, pongs)
        self.counters["probes_answered"] += answered
        if listener.pongs != pongs:
            self._answers_ping = True
        elif is_asked and answered and self._answers_ping is None:
            self._answers_ping = False
        return answered, listener.frames != frames

    async def _sleep(self, seconds: float) -> float:
        """Sleep in short naps; returns by how many seconds the loop woke us too late, at worst."""
        loop = asyncio.get_running_loop()
        now, lateness = loop.time(), 0.0
        until = now + seconds
        while now < until:
            due = min(until, now + self._nap)
            await asyncio.sleep(due - now)
            now = loop.time()
            lateness = max(lateness, now - due)
        if lateness > self._nap:
            await asyncio.sleep(0)  # what came meanwhile is read first
        return lateness

    def _judge_lag(self, connection: Connection | None = None, lateness: float = 0.0) -> None:
        waiting, room = connection.backlog() if connection is not None else (0, 0)
        for lag in self._lag.look(self._meter.take(), lateness=lateness, waiting=waiting, room=room):
            self.counters["lags"] += 1
            _log.warning("lag: %s: %s", lag.fault, lag.detail)
            self._events.tell("on_lag", lag)

    def _tell_unread(self, *, again: float = _UNREAD_AGAIN) -> None:
        """Tell of data that could not be read, if there is more of it, and not before so many seconds are over."""
        now = time.monotonic()
        if self._unread_told and now - self._unread_told < again:
            return
        found = {name: count for name, count in self._decoder.stats().items() if name.startswith(_UNREAD)}
        counts = {name: int(count) - self._unread.get(name, 0) for name, count in found.items()}
        if counts["bad"] or counts["bad_messages"]:
            self._unread = {name: int(count) for name, count in found.items()}
            self._unread_told = now
            self._events.report(DataError({name: count for name, count in counts.items() if count}), "data")

    def _give_up(self, session: _Session) -> None:
        reason = self._staleness.reason
        session.reason = f"stale: {reason}"
        if not self._staleness.told:
            self._staleness.tell()
            self.counters["stales"] += 1
            _log.warning("stale: %s", reason)
            since = session.connection.listener.message_ns or session.opened_ns
            self._events.tell("on_stale", Stale(since, reason))
        session.connection.abort()

    async def _pause(self, seconds: float) -> None:
        if seconds <= 0:
            return
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({stopped}, timeout=seconds)
        finally:
            stopped.cancel()


def _find_server(token: Secret, market: str, service: str, timeout: float) -> ServerAddress:
    address = _address(allocate(token, market, service=service, timeout=timeout))
    if isinstance(address, JvqError):
        try:
            raise address
        finally:
            del address  # this frame is in its traceback
    return address


def _address(text: str) -> ServerAddress | AllocationError:
    # A server may repeat the token in the text. It stays in this frame, which is in no traceback.
    try:
        return parse_server(text)
    except ValueError as error:
        return AllocationError(f"the allocation service names a server that is of no use: {error}")
