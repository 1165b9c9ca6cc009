"""The feed: data, events, subscription and running, in one object that any thread may hold."""

import asyncio
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, cast

from jvq_fast.allocation import SERVICE, ServerAddress, parse_server, service_url
from jvq_fast.capture import MAX_PAYLOAD
from jvq_fast.channel import Channel
from jvq_fast.connection import uses_aiofastnet
from jvq_fast.decoder import Decoder
from jvq_fast.errors import CaptureError
from jvq_fast.events import Events, State
from jvq_fast.listener import Tap
from jvq_fast.meter import Meter
from jvq_fast.native import Handler
from jvq_fast.offload import offload
from jvq_fast.plural import plural
from jvq_fast.prices import Prices
from jvq_fast.recorder import Recorder
from jvq_fast.redact import Secret
from jvq_fast.ring import Ring
from jvq_fast.status import StatusSocket
from jvq_fast.supervisor import Settings, Supervisor
from jvq_fast.threads import feed_thread
from jvq_fast.watchdog import Watchdog

__all__ = ["Feed"]

F = TypeVar("F", bound=Callable[..., Any])
B = TypeVar("B", bound=Callable[..., Any] | Handler)
T = TypeVar("T")
Level = Literal["trades", "quotes", "depths"]
_CAPTURE_CHECK = 0.25
_log = logging.getLogger("jvq_fast")


class Feed:
    """Market data of one account and one market, in numpy rings, for as long as it runs.

    `token` is the account's; `subscriptions` are prefixed codes like "lv2_600519". The server is allocated by the
    vendor, or by `allocation` ("http://host:port"), or fixed by `server` ("ws://host:port", any form the vendor uses).
    `capture` is a path to record to (see `replay`). `loop` is "auto" (uvloop where it is installed), "asyncio" or
    "uvloop", and holds for `run` and `start`. With `busy_poll` the thread never sleeps while it is connected: lowest
    latency for one core, whole, not on Windows. `market` to `max_record` are the decoder's settings, see `Decoder`.

    All times are seconds: `connect_timeout` for name lookup, connection and handshake together, `handshake_timeout` for
    the handshake alone, `allocation_timeout` for an allocation, `allocation_interval` the least time between two,
    `backoff_min` and `backoff_max` the ceiling of the random wait before the first and the later attempts to come back,
    `close_timeout` for saying goodbye; `stale_snapshots` and `stale_trades` the silence that is too long in trading
    hours while any snapshot is subscribed, or trades only, and `probe_timeout` for an answer before it is judged. With
    `clock="always"` silence is judged day and night. `eviction_limit` evictions within `eviction_window` end the feed.
    `on_lag` tells when `max_network_lag`, `max_feed_lag` or `max_callback_time` is passed: by how much more than usual
    data arrives late, from the socket read to the first handler, and one call of a handler.
    `status` opens a socket for `jvq-fast status` while the feed runs: True for a name of its own, or a path.
    `max_message` limits a WebSocket message in bytes, `capture_limit` the bytes that wait in memory for the disk.

    The storage that the subscriptions will fill is taken at once, so `history` knows their codes from the start.
    Handlers run on the feed's thread, between two socket reads or within one, and hold it up while they run. Until the
    feed runs any thread may use the object; while it runs, those methods that say so. A feed that has ended can be run
    again. ValueError or TypeError for wrong arguments, at once.
    """

    def __init__(
        self,
        token: str,
        subscriptions: str | Iterable[str] = (),
        *,
        market: str = "ab",
        server: str | None = None,
        allocation: str | None = None,
        trading_day: str | date | None = None,
        capacity: int | Mapping[Level, int] = 65536,
        history: int | Mapping[Level, int] = 1024,
        capture: str | os.PathLike[str] | None = None,
        clock: Literal["exchange", "always"] = "exchange",
        loop: Literal["auto", "asyncio", "uvloop"] = "auto",
        busy_poll: bool = False,
        lv1_order: Literal["auto", "amount_first", "volume_first"] = "auto",
        lv10_order: Literal["auto", "price_first", "volume_first"] = "auto",
        max_codes: int = 8192,
        max_inflated: int = 8 * 1024 * 1024,
        max_record: int = 4096,
        max_message: int = 10 * 1024 * 1024,
        connect_timeout: float = 10.0,
        handshake_timeout: float = 5.0,
        allocation_timeout: float = 10.0,
        allocation_interval: float = 3.0,
        backoff_min: float = 0.5,
        backoff_max: float = 30.0,
        close_timeout: float = 1.0,
        stale_snapshots: float = 15.0,
        stale_trades: float = 60.0,
        probe_timeout: float = 3.0,
        eviction_limit: int = 3,
        eviction_window: float = 60.0,
        max_network_lag: float = 3.0,
        max_feed_lag: float = 0.25,
        max_callback_time: float = 0.1,
        status: str | os.PathLike[str] | Literal[True] | None = None,
        capture_limit: int = 64 * 1024 * 1024,
    ) -> None:
        self._market = market
        # Whatever is raised shows this frame in its traceback: it must hold no text that may hold a token.
        both = server is not None and allocation is not None
        parts = (
            Secret.read(token),
            _tried(parse_server, server),
            _tried(service_url, SERVICE if allocation is None else allocation),
        )
        token, server, allocation = "", None, None
        error = next((part for part in parts if isinstance(part, Exception)), None)
        self._token, self._server, self._service = cast("tuple[Secret, ServerAddress | None, str]", parts)
        del parts
        if error is not None:
            raise error
        if both:
            raise ValueError("server and allocation exclude each other")
        _check_positive(
            connect_timeout=connect_timeout,
            handshake_timeout=handshake_timeout,
            allocation_timeout=allocation_timeout,
            close_timeout=close_timeout,
            backoff_min=backoff_min,
            stale_snapshots=stale_snapshots,
            stale_trades=stale_trades,
            probe_timeout=probe_timeout,
            eviction_window=eviction_window,
        )
        if eviction_limit < 1:
            raise ValueError(f"eviction_limit is at least 1, not {eviction_limit!r}")
        if allocation_interval < 0:
            raise ValueError(f"allocation_interval is a time in seconds, not {allocation_interval!r}")
        if backoff_max < backoff_min:
            raise ValueError(f"backoff_max {backoff_max!r} is below backoff_min {backoff_min!r}")
        if not 1 <= max_message <= MAX_PAYLOAD:
            raise ValueError(f"max_message is 1 to {MAX_PAYLOAD} bytes, not {max_message!r}")
        if loop not in ("auto", "asyncio", "uvloop"):
            raise ValueError(f"loop is 'auto', 'asyncio' or 'uvloop', not {loop!r}")
        if not isinstance(busy_poll, bool):
            raise TypeError(f"busy_poll is True or False, not {busy_poll!r}")
        if busy_poll and sys.platform == "win32":
            raise ValueError("busy_poll does not work on Windows")
        if busy_poll and self._server is not None and self._server.is_encrypted:
            raise ValueError(f"{self._server} is encrypted: busy_poll reads plain connections only")
        self._loop_factory = _loop_factory(loop)
        self._capture = None if capture is None else os.fspath(capture)
        self._status = status
        self._capture_limit = max(capture_limit, 2 * max_message)
        self.decoder = Decoder(
            market=market,
            capacity=capacity,
            history=history,
            trading_day=trading_day,
            clock=clock,
            lv1_order=lv1_order,
            lv10_order=lv10_order,
            max_codes=max_codes,
            max_inflated=max_inflated,
            max_record=max_record,
        )
        self._prices = Prices(self.decoder, self._wall_ns)
        self.meter = self.decoder.meter = Meter()
        self._events = Events(self.decoder, self.meter)
        self._watchdog = Watchdog(self.meter)

        # Guards what more than one thread touches. Re-entrant, since a signal handler may call stop() at any point.
        self._lock = threading.RLock()
        self._channel = Channel(self._lock, self._reserve, max_codes)
        self._channel.subscribe(subscriptions)
        settings = Settings(
            market=market,
            token=self._token,
            server=self._server,
            service=self._service,
            max_message=max_message,
            connect_timeout=connect_timeout,
            handshake_timeout=handshake_timeout,
            allocation_timeout=allocation_timeout,
            allocation_interval=allocation_interval,
            backoff_min=backoff_min,
            backoff_max=backoff_max,
            close_timeout=close_timeout,
            stale_snapshots=stale_snapshots,
            stale_trades=stale_trades,
            probe_timeout=probe_timeout,
            eviction_limit=eviction_limit,
            eviction_window=eviction_window,
            max_network_lag=max_network_lag,
            max_feed_lag=max_feed_lag,
            max_callback_time=max_callback_time,
            always=clock == "always",
            busy_poll=busy_poll,
        )
        self._supervisor = Supervisor(
            settings,
            self.decoder,
            self.meter,
            self._channel,
            self._events,
            self._lock,
            lambda: self._stop_requested,
            self._wall_ns,
        )
        self._running = False
        self._process = 0  # in which it runs, or ran; one that is forked has the object, and no thread
        self._ever_ran = False
        self._stop_requested = False
        self._thread: threading.Thread | None = None
        self._thread_error: BaseException | None = None
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_name = ""
        self._tap: Tap | None = None
        self._recorder: Recorder | None = None
        self._captured = dict.fromkeys(("messages", "lost_messages", "lost_bytes"), 0)

    # A seam for tests that live through a year in a minute.
    _wall_ns = staticmethod(time.time_ns)

    def __setattr__(self, name: str, value: object) -> None:
        # A handler that is assigned, as it is to a Decoder, would never be called.
        if name.startswith("on_"):
            raise AttributeError(f"write @feed.{name} or feed.{name}(handler): handlers of a feed are not assigned")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        if not hasattr(self, "_supervisor"):  # a traceback of a failing constructor may show it
            return f"<Feed {self._market}>"
        return f"<Feed {self._market} {self.state}, {plural(len(self._channel.wanted), 'subscription')}>"

    # --- data ---

    @property
    def trades(self) -> Ring:
        """The tape of all trades; `last` and `since` belong to handlers, `copy_since` to any thread."""
        return self.decoder.trades

    @property
    def quotes(self) -> Ring:
        """The tape of all five-level snapshots."""
        return self.decoder.quotes

    @property
    def depths(self) -> Ring:
        """The tape of all ten-level snapshots."""
        return self.decoder.depths

    def history(self, code: str, level: Level) -> Ring:
        """One code's own ring; `level` is "trades", "quotes" or "depths". KeyError for a code not seen or reserved."""
        return self.decoder.history(code, level)

    @property
    def names(self) -> Mapping[str, str]:
        """Names by code, as the snapshots gave them."""
        return self.decoder.names

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """What is wanted now, in order. From any thread."""
        return self._channel.wanted

    @property
    def connected(self) -> bool:
        """Whether a connection is open. From any thread."""
        return self._channel.connection is not None

    @property
    def state(self) -> State:
        """Where the feed is, as `on_state` tells it. From any thread."""
        return self._supervisor.state

    # --- prices, as a trade client wants them ---

    def last(self, code: str) -> Decimal | None:
        """The last price of a code, CNY, exact; None before there is one. From any thread; needs the code's history."""
        return self._prices.last(code)

    def age(self, code: str) -> float | None:
        """Seconds since a record of a code arrived; None where none did. From any thread; needs the code's history.

        What is `STALE`, as the first push after a subscription may be, is as old as its time says.
        """
        return self._prices.age(code)

    def name(self, code: str) -> str:
        """The name of a code, "" before a snapshot gave one. From any thread."""
        return self.decoder.names.get(code, "")

    def limits(self, code: str) -> tuple[Decimal, Decimal] | None:
        """The day's lowest and highest price of a code, CNY. From any thread; needs the code's history.

        Exact from lv10; from lv1, whose change has two decimals, as wide as the doubt about the last close makes them.
        None where neither has come, or there is no limit. A new listing's first five days are not known here.
        """
        return self._prices.limits(code)

    def exchange_time(self) -> datetime | None:
        """The latest time of the exchange in any record, aware, Asia/Shanghai; None before there is one. Any thread."""
        return self._prices.exchange_time()

    def stats(self) -> dict[str, int | float | str]:
        """The counters of decoder, feed and meter, by name; see docs/counters.md. From any thread."""
        stats: dict[str, int | float | str] = {**self.decoder.stats(), **self.meter.stats()}
        stats["callback_errors"] = int(stats["callback_errors"]) + self._events.errors
        stats["callback_hangs"] = self._watchdog.hangs
        with self._lock:
            stats.update(self._supervisor.counted())
            for name, count in self._captured.items():
                stats[f"capture_{name}"] = count + (int(getattr(self._tap, name)) if self._tap is not None else 0)
            stats["capture_failing"] = int(self._recorder is not None and self._recorder.failing)
            stats.update(self._supervisor.answers())
            connection = self._channel.connection
            stats["connected"] = int(connection is not None)
            stats["server"] = str(connection.address) if connection is not None else ""
            stats["busy_poll"] = int(connection is not None and connection.is_spinning)
            stats["backlog_bytes"] = connection.backlog()[0] if connection is not None else 0
            stats["subscriptions"] = len(self._channel.wanted)
            stats["state"] = str(self._supervisor.state)
            stats["loop"] = self._loop_name
        return stats

    # --- handlers ---

    def on_trades(self, handler: B) -> B:
        """`handler(code, trades)` for each row of trades; `trades` is a view that the tape overwrites later."""
        self.decoder.on_trades = (*self.decoder.on_trades, handler)
        return handler

    def on_quotes(self, handler: B) -> B:
        """`handler(code, quotes)` for each row of five-level snapshots."""
        self.decoder.on_quotes = (*self.decoder.on_quotes, handler)
        return handler

    def on_depths(self, handler: B) -> B:
        """`handler(code, depths)` for each row of ten-level snapshots."""
        self.decoder.on_depths = (*self.decoder.on_depths, handler)
        return handler

    def on_batch(self, handler: F) -> F:
        """`handler(n)` after each socket read that held market data; `n` is the number of records it brought."""
        self.decoder.on_batch = (*self.decoder.on_batch, handler)
        return handler

    def on_error(self, handler: F) -> F:
        """`handler(exception, where)` for what went wrong and did not end the feed; without one it is logged.

        `where` is the name of the handler that raised, or "allocation", "connect", "text", "data" (a `DataError`, at
        once and then once a minute), "reserve" or "capture". What handlers raise is logged once a minute.
        """
        self.decoder.on_error = (*self.decoder.on_error, handler)
        return handler

    def on_connect(self, handler: F) -> F:
        """`handler(server)` when a connection is open and the subscription sent; `server` is its address, a str."""
        self._events.add("on_connect", handler)
        return handler

    def on_disconnect(self, handler: F) -> F:
        """`handler(reason)` when that connection is gone, by `stop()` too; `reason` is a str."""
        self._events.add("on_disconnect", handler)
        return handler

    def on_state(self, handler: F) -> F:
        """`handler(state, reason)` when the feed goes from one `State` to another; `reason` is a str."""
        self._events.add("on_state", handler)
        return handler

    def on_stale(self, handler: F) -> F:
        """`handler(stale)`, a `Stale`, once when data that should be coming is not; then the feed connects anew."""
        self._events.add("on_stale", handler)
        return handler

    def on_lag(self, handler: F) -> F:
        """`handler(lag)`, a `Lag`, when a threshold is passed: how long, and whose fault it is."""
        self._events.add("on_lag", handler)
        return handler

    def on_gap(self, handler: F) -> F:
        """`handler(gap)`, a `Gap`, once per gap, before the handlers of the first message with records after it."""
        self._events.add("on_gap", handler)
        return handler

    def on_text(self, handler: F) -> F:
        """`handler(text)` for each TEXT message of the server, as it came."""
        self._events.add("on_text", handler)
        return handler

    # --- subscription ---

    def subscribe(self, subscriptions: str | Iterable[str]) -> None:
        """Subscribe to one more, or several. From any thread, and from handlers."""
        self._channel.subscribe(subscriptions)

    def unsubscribe(self, subscriptions: str | Iterable[str]) -> None:
        """Give up one or several; what is not subscribed is passed over. From any thread, and from handlers."""
        self._channel.unsubscribe(subscriptions)

    def replace(self, subscriptions: str | Iterable[str]) -> None:
        """Replace the whole subscription; `()` clears it. From any thread, and from handlers."""
        self._channel.replace(subscriptions)

    def _reserve(self, names: Iterable[str]) -> None:
        try:
            self.decoder.reserve(names)
        except (ValueError, MemoryError) as error:
            self._events.report(error, "reserve")

    # --- requests ---

    def request(self, command: Literal["list", "his"], timeout: float = 5.0) -> str:
        """Ask the server, and return the next TEXT message. From any thread but the feed's own; blocks.

        "list" is what this connection is subscribed to, "his" what the account was subscribed to today. Waits for a
        connection if there is none. RequestTimeoutError, NotConnectedError, or ServerError for a reply of `-1#…`. The
        protocol has no request numbers: a reply that comes after its timeout is taken for that of the next request.
        """
        return self._channel.request(command, timeout)

    async def request_async(self, command: Literal["list", "his"], timeout: float = 5.0) -> str:
        """The same for coroutines on the feed's loop."""
        return await self._channel.request_async(command, timeout)

    # --- running ---

    def run(self) -> None:
        """Run until `stop()`, in a loop of its own; Ctrl-C is a KeyboardInterrupt as usual.

        A first connection that fails is raised: AllocationError, ConnectError, ServerError or what lies below them.
        Once connected, the feed comes back by itself. RuntimeError when it runs already, or in a running loop.
        """
        if _in_running_loop():
            raise RuntimeError("run() can't be called from a running event loop: await run_async()")
        self._begin()
        try:
            self._run_loop()
        finally:
            self._end()

    async def run_async(self) -> None:
        """The same in the caller's loop. Cancelling it closes the connection and the capture."""
        self._begin()
        try:
            await self._serve()
        finally:
            self._end()

    def start(self) -> Self:
        """Run in a daemon thread; see `join`."""
        self._begin()
        self._thread_error = None
        self._thread = threading.Thread(target=self._run_thread, name="jvq_fast feed", daemon=True)
        self._ready.clear()
        self._ended.clear()
        try:
            self._thread.start()
        except Exception:  # at Ctrl-C the thread runs, and waits for `stop`
            self._end()
            self._thread = None
            raise
        self._ready.wait()
        return self

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the thread has ended; False when it has not within `timeout` seconds. In a forked child, True.

        What ended it, if it was not `stop()`, is raised here. From any thread but the feed's own.
        """
        thread = self._thread
        if thread is None:
            raise RuntimeError("join() without start()")
        if self._process != os.getpid():
            return True
        if thread is threading.current_thread():
            raise RuntimeError("join() on the feed's own thread would wait for itself")
        # Interrupted by Ctrl-C, Thread.join() takes a thread for ended that is not (Python before 3.13).
        if not self._ended.wait(timeout):
            return False
        thread.join()
        if self._thread_error is not None:
            raise self._thread_error
        return True

    def stop(self) -> None:
        """End it: no handler is called for a message that was not begun. From any thread, handler or signal handler.

        Called again, or after the end, or in a forked child, it does nothing; called before the first run, that run
        ends at once.
        """
        if self._process not in (0, os.getpid()):
            return
        with self._lock:
            if not self._running and self._ever_ran:
                return
            self._stop_requested = True
            connection = self._channel.connection
            if connection is not None:
                connection.listener.quit()
            if self._loop is not None:
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._supervisor.stop, self._supervisor.stopping)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        try:
            self.join()
        except BaseException as own:
            if error is None:
                raise
            _log.error("the feed had ended: %s: %s", type(own).__name__, own)

    def _begin(self) -> None:
        with self._lock:
            if self._running:
                raise RuntimeError("the feed is running already")
            self._running = self._channel.is_running = True
            self._process = os.getpid()

    def _end(self) -> None:
        with self._lock:
            self._running = self._channel.is_running = False
            self._ever_ran = True
            self._stop_requested = False

    def _run_thread(self) -> None:
        try:
            self._run_loop()
        except BaseException as error:
            self._thread_error = error
        finally:
            self._end()
            self._ready.set()
            self._ended.set()

    def _run_loop(self) -> None:
        with asyncio.Runner(loop_factory=self._loop_factory) as runner:
            try:
                interrupt = runner.run(self._serve_in_own_loop())
            except KeyboardInterrupt:
                # Raised by the runner once it has cancelled all tasks, whose tracebacks say nothing to whom they reach.
                interrupt = KeyboardInterrupt()
        if interrupt is not None:
            raise interrupt from None

    async def _serve_in_own_loop(self) -> BaseException | None:
        # Raised out of a task, these two tear the loop down in mid-air and are reported as never retrieved.
        try:
            await self._serve()
        except (KeyboardInterrupt, SystemExit) as interrupt:
            return interrupt
        return None

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        with self._lock:
            self._loop = loop
            self._channel.begin(loop)
            self._supervisor.begin()
            if self._stop_requested:
                self._supervisor.stop(self._supervisor.stopping)
            module = type(loop).__module__.partition(".")[0]
            self._loop_name = "asyncio+aiofastnet" if uses_aiofastnet(loop) else module
        self._ready.set()
        try:
            async with contextlib.AsyncExitStack() as stack:
                stack.enter_context(feed_thread())
                try:
                    if self._status is not None:
                        stack.enter_context(StatusSocket(self._status, self.stats))
                    if self._capture is not None:
                        await stack.enter_async_context(self._recording(self._capture))
                except Exception as error:
                    self._supervisor.fail(error)
                    raise
                self._reserve(self.subscriptions)
                stack.enter_context(self._watchdog)
                await self._supervisor.run()
        finally:
            with self._lock:
                self._loop = None
            self._channel.end()

    @contextlib.asynccontextmanager
    async def _recording(self, path: str) -> AsyncIterator[None]:
        tap = Tap(self._capture_limit)
        try:
            recorder = await offload(partial(Recorder, path, self._market, tap), 3600.0, "capture")
        except TimeoutError as error:
            raise CaptureError(f"can't open {path}: {error}") from None
        recorder.start()
        with self._lock:
            self._tap = self._supervisor.tap = tap
            self._recorder = recorder
        watch = asyncio.ensure_future(self._watch(recorder))
        try:
            yield
        finally:
            watch.cancel()
            try:
                await offload(partial(recorder.close, 10.0), 15.0, "capture end")
            except TimeoutError as error:
                self._events.report(CaptureError(f"can't finish {path}: {error}"), "capture")
            with self._lock:
                self._tap = self._supervisor.tap = self._recorder = None
                self._captured["messages"] += tap.messages - recorder.unwritten
                self._captured["lost_messages"] += tap.lost_messages + recorder.unwritten
                self._captured["lost_bytes"] += tap.lost_bytes
            for _ in range(2):
                self._report_capture(recorder)

    async def _watch(self, recorder: Recorder) -> None:
        while True:
            await asyncio.sleep(_CAPTURE_CHECK)
            self._report_capture(recorder)

    def _report_capture(self, recorder: Recorder) -> None:
        for error in recorder.news():
            self._events.report(error, "capture")


def _tried(parse: Callable[[str], T], text: str | None) -> T | Exception | None:
    """What `parse` returns or raises; None for None."""
    try:
        return None if text is None else parse(text)
    except (TypeError, ValueError) as error:
        return error.with_traceback(None)


def _in_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _check_positive(**settings: float) -> None:
    for name, value in settings.items():
        is_number: bool = isinstance(value, int | float)
        if not (is_number and value > 0):
            raise ValueError(f"{name} is a time in seconds above 0, not {value!r}")


def _loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if loop != "asyncio":
        try:
            import uvloop
        except ImportError:
            if loop == "uvloop":
                raise ImportError("loop='uvloop', but uvloop is not installed: pip install uvloop") from None
        else:
            return uvloop.new_event_loop
    return asyncio.new_event_loop
