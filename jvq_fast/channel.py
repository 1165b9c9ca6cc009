"""What a feed wants of the server and asks it, from any thread: the subscription, its commands, and requests."""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError
from typing import Literal

from jvq_fast.connection import Connection
from jvq_fast.errors import JvqError, NotConnectedError, RequestTimeoutError, ServerError
from jvq_fast.subscriptions import checked, code_of

Request = Literal["list", "his"]


class Channel:
    """Survives connections: what is wanted stays, what was asked on a connection that is gone fails.

    Methods are for any thread, but for `begin` to `text`, which belong to the loop's. `lock` guards the connection.
    """

    def __init__(self, lock: threading.RLock, reserve: Callable[[Iterable[str]], None], max_codes: int) -> None:
        self.connection: Connection | None = None
        # From then on storage is the loop's to take, also before there is a loop.
        self.is_running = False
        self._lock = lock
        self._reserve = reserve
        self._max_codes = max_codes
        self._wanted: dict[str, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._online = asyncio.Event()
        self._commands: deque[str] = deque()
        self._replies: deque[asyncio.Future[str | JvqError]] = deque()
        # Moments of the loop's clock at which the server was last told of something it was not subscribed to.
        self.subscribed_at = 0.0

    # --- the loop's side ---

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """A run begins on the calling thread."""
        with self._lock:
            self._loop = loop
            self._thread = threading.get_ident()
            self._online = asyncio.Event()

    def end(self) -> None:
        """The run is over."""
        with self._lock:
            self._loop = None
            self._thread = 0
            self.connection = None
        self._online.set()
        self._fail_requests("the feed has ended")

    def opened(self, connection: Connection) -> None:
        """Send the whole subscription on a connection that is open."""
        with self._lock:
            self.connection = connection
            self._commands.clear()
            if self._wanted:
                self._subscribed()
                connection.send(f"all={','.join(self._wanted)}")
        self._online.set()

    def closed(self) -> None:
        """The connection is gone."""
        with self._lock:
            self.connection = None
            self._online.clear()
        self._fail_requests("the connection was lost before the reply")

    def text(self, text: str, error: ServerError | None) -> None:
        """A TEXT message answers the request that waits longest; `error` is what it is raised as."""
        while self._replies:
            reply = self._replies.popleft()
            if not reply.done():
                reply.set_result(text if error is None else error)
                break

    # --- subscription ---

    @property
    def wanted(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._wanted)

    def subscribe(self, subscriptions: str | Iterable[str]) -> None:
        names = checked(subscriptions)
        with self._lock:
            new = tuple(name for name in names if name not in self._wanted)
            self._want(new)
            self._command("add", new)

    def unsubscribe(self, subscriptions: str | Iterable[str]) -> None:
        names = checked(subscriptions)
        with self._lock:
            old = tuple(name for name in names if name in self._wanted)
            for name in old:
                del self._wanted[name]
            self._command("del", old)

    def replace(self, subscriptions: str | Iterable[str]) -> None:
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
            if not self.is_running:
                self._reserve(reserve)
            return
        if not (names or even_if_empty):
            return
        if self.connection is not None:
            self._commands.append(f"{verb}={','.join(names)}")
        if threading.get_ident() == self._thread:
            self._send_commands()
        # Storage is never taken within a message, so it waits for the loop even on its own thread.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._send_commands, reserve)

    def _send_commands(self, reserve: tuple[str, ...] = ()) -> None:
        if reserve:
            self._reserve(reserve)
        with self._lock:
            while self._commands and self.connection is not None:
                command = self._commands.popleft()
                if not command.startswith("del="):
                    self._subscribed()
                self.connection.send(command)

    def _subscribed(self) -> None:
        if self._loop is not None:
            self.subscribed_at = self._loop.time()

    # --- requests ---

    def request(self, command: Request, timeout: float) -> str:
        with self._lock:
            loop = self._loop
        if threading.get_ident() == self._thread and loop is not None:
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

    async def request_async(self, command: Request, timeout: float) -> str:
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
        connection = self.connection
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

    def _fail_requests(self, why: str) -> None:
        while self._replies:
            reply = self._replies.popleft()
            if not reply.done():
                reply.set_result(NotConnectedError(why))
