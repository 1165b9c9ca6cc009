"""The feed: allocates a server, connects, subscribes, and comes back by itself."""

import asyncio
import contextlib
import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import CancelledError
from datetime import date
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, cast

from jvq_fast.allocation import SERVICE, ServerAddress, allocate, parse_server, service_url
from jvq_fast.capture import MAX_PAYLOAD
from jvq_fast.connection import Connection, uses_aiofastnet
from jvq_fast.decoder import Decoder
from jvq_fast.errors import (
    AllocationError,
    ConnectError,
    ConnectionLimitError,
    JvqError,
    NotConnectedError,
    RequestTimeoutError,
    ServerError,
)
from jvq_fast.events import Events, Gap
from jvq_fast.listener import Tap
from jvq_fast.offload import offload
from jvq_fast.recorder import Recorder
from jvq_fast.redact import Secret, redact
from jvq_fast.ring import Ring
from jvq_fast.subscriptions import checked, code_of

__all__ = ["Feed", "Gap"]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
Level = Literal["trades", "quotes", "depths"]
_LIMIT_TEXT = "并发上限"
_COUNTED = ("frames", "texts", "pings", "fragments")
_CAPTURE_CHECK = 0.25
_log = logging.getLogger("jvq_fast")


class Feed:
    """Market data of one account and one market, in numpy rings, for as long as it runs.

    `token` is the account's; `subscriptions` are prefixed codes like "lv2_600519". The server is allocated by the
    vendor, or by `allocation` ("http://host:port"), or fixed by `server` ("ws://host:port", any form the vendor uses).
    `capture` is a path to record to (see `replay`). `loop` is "auto" (uvloop where it is installed), "asyncio" or
    "uvloop", and holds for `run` and `start`. `market` to `max_record` are the decoder's settings, see `Decoder`.

    All times are seconds: `connect_timeout` for name lookup, connection and handshake together, `handshake_timeout` for
    the handshake alone, `allocation_timeout` for an allocation, `allocation_interval` the least time between two,
    `backoff_min` and `backoff_max` the ceiling of the random wait before the first and the later attempts to come back,
    `close_timeout` for saying goodbye. `max_message` limits a WebSocket message in bytes, `capture_limit` the bytes
    that wait in memory for the disk.

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
        capture_limit: int = 64 * 1024 * 1024,
    ) -> None:
        self._market = market
        self._wanted: dict[str, None] = {}
        self._running = False
        self._connection: Connection | None = None
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
        )
        if allocation_interval < 0:
            raise ValueError(f"allocation_interval is a time in seconds, not {allocation_interval!r}")
        if backoff_max < backoff_min:
            raise ValueError(f"backoff_max {backoff_max!r} is below backoff_min {backoff_min!r}")
        if not 1 <= max_message <= MAX_PAYLOAD:
            raise ValueError(f"max_message is 1 to {MAX_PAYLOAD} bytes, not {max_message!r}")
        if loop not in ("auto", "asyncio", "uvloop"):
            raise ValueError(f"loop is 'auto', 'asyncio' or 'uvloop', not {loop!r}")
        self._loop_factory = _loop_factory(loop)
        self._capture = None if capture is None else os.fspath(capture)
        self._capture_limit = max(capture_limit, 2 * max_message)
        self._max_codes = max_codes
        self._max_message = max_message
        self._connect_timeout = connect_timeout
        self._handshake_timeout = handshake_timeout
        self._allocation_timeout = allocation_timeout
        self._allocation_interval = allocation_interval
        self._close_timeout = close_timeout
        self._backoff = _Backoff(backoff_min, backoff_max)
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
        self._events = Events(self.decoder)
        self._want(checked(subscriptions))
        self._reserve(self._wanted)

        # Guards what more than one thread touches. Re-entrant, since a signal handler may call stop() at any point.
        self._lock = threading.RLock()
        self._ever_ran = False
        self._stop_requested = False
        self._thread: threading.Thread | None = None
        self._thread_error: BaseException | None = None
        self._ready = threading.Event()
        self._ended = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._stop = asyncio.Event()
        self._online = asyncio.Event()
        self._commands: deque[str] = deque()
        self._replies: deque[asyncio.Future[str | JvqError]] = deque()

        self._tap: Tap | None = None
        self._last_allocation: float | None = None
        self._opened_ns = 0
        self._message_ns = 0
        self._refusal: ServerError | None = None
        self._gap: tuple[int, str, tuple[str, ...]] | None = None
        self._loop_name = ""
        self._counters = dict.fromkeys(
            (
                "connects",
                "reconnects",
                "disconnects",
                "connect_failures",
                "allocations",
                "gaps",
                *_COUNTED,
                "server_errors",
                "capture_messages",
                "capture_lost_messages",
                "capture_lost_bytes",
            ),
            0,
        )

    def __setattr__(self, name: str, value: object) -> None:
        # A handler that is assigned, as it is to a Decoder, would never be called.
        if name.startswith("on_"):
            raise AttributeError(f"write @feed.{name} or feed.{name}(handler): handlers of a feed are not assigned")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        state = "connected" if self.connected else "running" if self._running else "idle"
        return f"<Feed {self._market} {state}, {len(self._wanted)} subscriptions>"

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
        with self._lock:
            return tuple(self._wanted)

    @property
    def connected(self) -> bool:
        """Whether a connection is open. From any thread."""
        return self._connection is not None

    def stats(self) -> dict[str, int | str]:
        """The decoder's counters and the feed's, by name. From any thread."""
        stats = dict(self.decoder.stats())
        stats["callback_errors"] = int(stats["callback_errors"]) + self._events.errors
        with self._lock:
            stats.update(self._counters)
            if self._connection is not None:
                for name in _COUNTED:
                    stats[name] = self._counters[name] + int(getattr(self._connection.listener, name))
            if self._tap is not None:
                for name in ("messages", "lost_messages", "lost_bytes"):
                    stats[f"capture_{name}"] = self._counters[f"capture_{name}"] + int(getattr(self._tap, name))
            stats["connected"] = int(self._connection is not None)
            stats["server"] = str(self._connection.address) if self._connection is not None else ""
            stats["loop"] = self._loop_name
        return stats

    # --- handlers ---

    def on_trades(self, handler: F) -> F:
        """`handler(code, trades)` for each row of trades; `trades` is a view that the tape overwrites later."""
        self.decoder.on_trades = (*self.decoder.on_trades, handler)
        return handler

    def on_quotes(self, handler: F) -> F:
        """`handler(code, quotes)` for each row of five-level snapshots."""
        self.decoder.on_quotes = (*self.decoder.on_quotes, handler)
        return handler

    def on_depths(self, handler: F) -> F:
        """`handler(code, depths)` for each row of ten-level snapshots."""
        self.decoder.on_depths = (*self.decoder.on_depths, handler)
        return handler

    def on_batch(self, handler: F) -> F:
        """`handler(n)` after each socket read that held market data; `n` is the number of records it brought."""
        self.decoder.on_batch = (*self.decoder.on_batch, handler)
        return handler

    def on_error(self, handler: F) -> F:
        """`handler(exception, where)` for what went wrong and did not end the feed; without one it is logged.

        `where` is the name of the handler that raised, or "allocation", "connect", "text", "reserve" or "capture".
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
        names = checked(subscriptions)
        with self._lock:
            new = tuple(name for name in names if name not in self._wanted)
            self._want(new)
            self._command("add", new)

    def unsubscribe(self, subscriptions: str | Iterable[str]) -> None:
        """Give up one or several; what is not subscribed is passed over. From any thread, and from handlers."""
        names = checked(subscriptions)
        with self._lock:
            old = tuple(name for name in names if name in self._wanted)
            for name in old:
                del self._wanted[name]
            self._command("del", old)

    def replace(self, subscriptions: str | Iterable[str]) -> None:
        """Replace the whole subscription; `()` clears it. From any thread, and from handlers."""
        names = checked(subscriptions)
        with self._lock:
            before, self._wanted = self._wanted, {}
            try:
                self._want(names)
            except ValueError:
                self._wanted = before
                raise
            self._command("all", names, even_if_empty=True)

    def _want(self, names: tuple[str, ...]) -> None:
        codes = {code_of(name) for name in (*self._wanted, *names)}
        if len(codes) > self._max_codes:
            raise ValueError(f"{len(codes)} codes are more than max_codes={self._max_codes}")
        self._wanted.update(dict.fromkeys(names))

    def _command(self, verb: str, names: tuple[str, ...], *, even_if_empty: bool = False) -> None:
        reserve = names if verb != "del" else ()
        if self._loop is None:
            if not self._running:
                self._reserve(reserve)
            return
        if not (names or even_if_empty):
            return
        if self._connection is not None:
            self._commands.append(f"{verb}={','.join(names)}")
        if threading.get_ident() == self._loop_thread:
            self._send_commands()
        # Storage is never taken within a message, so it waits for the loop even on its own thread.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._send_commands, reserve)

    def _send_commands(self, reserve: tuple[str, ...] = ()) -> None:
        if reserve:
            self._reserve(reserve)
        with self._lock:
            while self._commands and self._connection is not None:
                self._connection.send(self._commands.popleft())

    def _reserve(self, names: Iterable[str]) -> None:
        try:
            self.decoder.reserve(names)
        except ValueError as error:
            self._events.report(error, "reserve")

    # --- requests ---

    def request(self, command: Literal["list", "his"], timeout: float = 5.0) -> str:
        """Ask the server, and return the next TEXT message. From any thread but the feed's own; blocks.

        "list" is what this connection is subscribed to, "his" what the account was subscribed to today. Waits for a
        connection if there is none. RequestTimeoutError, NotConnectedError, or ServerError for a reply of `-1#…`. The
        protocol has no request numbers: a reply that comes after its timeout is taken for that of the next request.
        """
        with self._lock:
            loop = self._loop
        if threading.get_ident() == self._loop_thread and loop is not None:
            raise RuntimeError("request() on the feed's own thread would wait for itself: await request_async()")
        if loop is None:
            raise NotConnectedError("the feed is not running")
        asking = self.request_async(command, timeout)
        try:
            reply = asyncio.run_coroutine_threadsafe(asking, loop)
        except RuntimeError:
            asking.close()
            raise NotConnectedError("the feed has ended") from None
        try:
            # A handler may hold the loop up, and with it the timeout there.
            return reply.result(timeout + 0.25)
        except CancelledError:
            raise NotConnectedError("the feed has ended") from None
        except TimeoutError as error:
            reply.cancel()
            if isinstance(error, JvqError):
                raise
            raise RequestTimeoutError(f"no reply to {command!r} within {timeout:g} s") from None

    async def request_async(self, command: Literal["list", "his"], timeout: float = 5.0) -> str:
        """The same for coroutines on the feed's loop."""
        if command not in ("list", "his"):
            raise ValueError(f"a request is 'list' or 'his', not {command!r}")
        if self._loop is None:
            raise NotConnectedError("the feed is not running")
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            raise RuntimeError("request_async() belongs to the feed's own loop; from elsewhere use request()")
        deadline = loop.time() + timeout
        waiting = loop.create_task(self._online.wait())
        try:
            await asyncio.wait({waiting}, timeout=timeout)
        finally:
            waiting.cancel()
        connection = self._connection
        if connection is None:
            raise NotConnectedError(f"no connection within {timeout:g} s" if self._loop else "the feed has ended")
        reply: asyncio.Future[str | JvqError] = loop.create_future()
        self._replies.append(reply)
        connection.send(command)
        try:
            await asyncio.wait({reply}, timeout=max(0.0, deadline - loop.time()))
        finally:
            if reply in self._replies:
                self._replies.remove(reply)
            reply.cancel()
        if reply.cancelled():
            raise RequestTimeoutError(f"no reply to {command!r} within {timeout:g} s")
        answer = reply.result()
        if isinstance(answer, JvqError):
            raise answer
        return answer

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
        self._thread.start()
        self._ready.wait()
        return self

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the thread has ended; False when it has not within `timeout` seconds.

        What ended it, if it was not `stop()`, is raised here. From any thread but the feed's own.
        """
        thread = self._thread
        if thread is None:
            raise RuntimeError("join() without start()")
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

        Called again, or after the end, it does nothing; called before the first run, that run ends at once.
        """
        with self._lock:
            if not self._running and self._ever_ran:
                return
            self._stop_requested = True
            if self._connection is not None:
                self._connection.listener.quit()
            if self._loop is not None:
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._stop_now)

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
            self._running = True

    def _end(self) -> None:
        with self._lock:
            self._running = False
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
            interrupt = runner.run(self._serve_in_own_loop())
        if interrupt is not None:
            raise interrupt

    def _stop_now(self) -> None:
        self._stop.set()
        if self._connection is not None:
            self._connection.close()

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
            self._loop_thread = threading.get_ident()
            self._stop = asyncio.Event()
            self._online = asyncio.Event()
            if self._stop_requested:
                self._stop.set()
            module = type(loop).__module__.partition(".")[0]
            self._loop_name = "asyncio+aiofastnet" if uses_aiofastnet(loop) else module
        self._ready.set()
        try:
            async with contextlib.AsyncExitStack() as stack:
                if self._capture is not None:
                    await stack.enter_async_context(self._recording(self._capture))
                self._reserve(self.subscriptions)
                await self._keep_connected()
        finally:
            self.decoder.first_record = None
            with self._lock:
                self._loop = None
                self._loop_thread = 0
                self._connection = None
                self._gap = None
            self._online.set()
            self._fail_requests("the feed has ended")

    async def _keep_connected(self) -> None:
        self._backoff.reset()
        came_up = False
        while not self._stop.is_set():
            try:
                connection = await self._connect()
            except (AllocationError, ConnectError) as error:
                self._counters["connect_failures"] += 1
                if not came_up:
                    raise
                self._events.report(error, "allocation" if isinstance(error, AllocationError) else "connect")
            else:
                if connection is None:
                    break
                reason = await self._follow(connection)
                if self._stop.is_set():
                    break
                if self._refusal is not None and not came_up:
                    raise self._refusal
                came_up = True
                _log.info("disconnected: %s", reason)
            if not self._stop.is_set():
                await self._pause(self._backoff.next())

    async def _connect(self) -> Connection | None:
        """One attempt; None when the feed is to stop."""
        address = self._server or await self._allocate()
        if address is None:
            return None
        connection = Connection(
            address,
            self._token,
            self.decoder,
            self,
            tap=self._tap,
            max_message=self._max_message,
            close_timeout=self._close_timeout,
        )
        if not await connection.open(self._connect_timeout, self._handshake_timeout, self._stop):
            return None
        return connection

    async def _allocate(self) -> ServerAddress | None:
        if self._last_allocation is not None:
            await self._pause(self._last_allocation + self._allocation_interval - time.monotonic())
        if self._stop.is_set():
            return None
        self._last_allocation = time.monotonic()
        self._counters["allocations"] += 1
        timeout = self._allocation_timeout
        ask = partial(_find_server, self._token, self._market, self._service, timeout)
        asking = asyncio.ensure_future(offload(ask, timeout, "allocation"))
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({asking, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                return None
            return asking.result()
        except TimeoutError:
            pass
        finally:
            asking.cancel()
            stopped.cancel()
        raise AllocationError(f"the allocation service did not reply within {timeout:g} s")

    async def _follow(self, connection: Connection) -> str:
        """Stay with a connection to its end; returns why it ended."""
        listener = connection.listener
        cancelled = None
        if self._stop.is_set():
            connection.close()  # it opened while the stop was under way
        try:
            reason = await connection.ended()
        except asyncio.CancelledError as error:
            cancelled = error
        with self._lock:
            self._connection = None
            self._online.clear()
            for name in _COUNTED:
                self._counters[name] += int(getattr(listener, name))
        self._counters["disconnects"] += 1
        self._fail_requests("the connection was lost before the reply")
        if listener.fatal is not None:
            raise listener.fatal
        if cancelled is not None:
            self._events.tell("on_disconnect", "cancelled")
            raise cancelled
        if self._stop.is_set():
            reason = "stopped"
        elif self._gap is None and self._wanted:
            codes = tuple(dict.fromkeys(map(code_of, self.subscriptions)))
            self._gap = (listener.message_ns or self._opened_ns, reason, codes)
        self._events.tell("on_disconnect", reason)
        return reason

    def opened(self, connection: Connection) -> None:
        """Called by the connection, on the loop's thread, before its first frame is looked at."""
        again = self._counters["connects"] > 0
        self._refusal = None
        self._opened_ns = time.time_ns()
        if self._tap is not None:
            self._tap.connect(again)
        if again:
            self.decoder.resume()
        else:
            self.decoder.connected()
        self.decoder.first_record = self._first_record
        with self._lock:
            self._connection = connection
            self._counters["connects"] += 1
            self._counters["reconnects"] += again
            self._commands.clear()
            if self._wanted:
                connection.send(f"all={','.join(self._wanted)}")
            if self._stop_requested:
                connection.listener.quit()
        self._online.set()
        self._events.tell("on_connect", str(connection.address))

    def _first_record(self, recv_ns: int) -> None:
        self._backoff.reset()
        if self._gap is None:
            return
        start, reason, codes = self._gap
        self._gap = None
        self._counters["gaps"] += 1
        self._events.tell("on_gap", Gap(start, recv_ns, reason, codes))

    def text(self, text: str) -> None:
        """Called by the connection, on the loop's thread, for each TEXT message."""
        error: ServerError | None = None
        if text.startswith("-1#"):
            kind = ConnectionLimitError if _LIMIT_TEXT in text else ServerError
            error = kind(redact(text))
            self._counters["server_errors"] += 1
            young = time.time_ns() - self._opened_ns < self._connect_timeout * 1e9
            if young and self._connection is not None and not self._connection.listener.messages:
                self._refusal = error
        while self._replies:
            reply = self._replies.popleft()
            if not reply.done():
                reply.set_result(text if error is None else error)
                break
        self._events.tell("on_text", text)
        if error is not None:
            self._events.report(error, "text")

    def _fail_requests(self, why: str) -> None:
        while self._replies:
            reply = self._replies.popleft()
            if not reply.done():
                reply.set_result(NotConnectedError(why))

    async def _pause(self, seconds: float) -> None:
        if seconds <= 0:
            return
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({stopped}, timeout=seconds)
        finally:
            stopped.cancel()

    @contextlib.asynccontextmanager
    async def _recording(self, path: str) -> AsyncIterator[None]:
        tap = Tap(self._capture_limit)
        recorder = await offload(partial(Recorder, path, self._market, tap), 3600.0, "capture")
        recorder.start()
        with self._lock:
            self._tap = tap
        watch = asyncio.ensure_future(self._watch(recorder))
        try:
            yield
        finally:
            watch.cancel()
            await offload(partial(recorder.close, 10.0), 15.0, "capture end")
            with self._lock:
                self._tap = None
                self._counters["capture_messages"] += tap.messages - recorder.unwritten
                self._counters["capture_lost_messages"] += tap.lost_messages + recorder.unwritten
                self._counters["capture_lost_bytes"] += tap.lost_bytes
            for _ in range(2):
                self._report_capture(recorder)

    async def _watch(self, recorder: Recorder) -> None:
        while True:
            await asyncio.sleep(_CAPTURE_CHECK)
            self._report_capture(recorder)

    def _report_capture(self, recorder: Recorder) -> None:
        for error in recorder.news():
            self._events.report(error, "capture")


class _Backoff:
    """Waits between attempts: anything up to a ceiling that doubles from `least` to `most` seconds."""

    def __init__(self, least: float, most: float) -> None:
        self._least = least
        self._most = most
        self._ceiling = least

    def reset(self) -> None:
        self._ceiling = self._least

    def next(self) -> float:
        ceiling = self._ceiling
        self._ceiling = min(self._most, 2 * ceiling)
        return random.uniform(0, ceiling)


def _tried(parse: Callable[[str], T], text: str | None) -> T | Exception | None:
    """What `parse` returns or raises; None for None."""
    try:
        return None if text is None else parse(text)
    except (TypeError, ValueError) as error:
        return error.with_traceback(None)


def _find_server(token: Secret, market: str, service: str, timeout: float) -> ServerAddress:
    address = _address(allocate(token, market, service=service, timeout=timeout))
    if isinstance(address, AllocationError):
        raise address
    return address


def _address(text: str) -> ServerAddress | AllocationError:
    # A server may repeat the token in the text. It stays in this frame, which is in no traceback.
    try:
        return parse_server(text)
    except ValueError as error:
        return AllocationError(f"the allocation service names a server that is of no use: {error}")


def _in_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _check_positive(**settings: float) -> None:
    for name, value in settings.items():
        if not value > 0:
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
