"""A TCP proxy on loopback that makes the network worse, for tests: between any client and any server.

    with Proxy(sim.ws, allocation=sim.http, seed=7) as proxy:
        feed = Feed(token, subscriptions, allocation=proxy.http)    # or server=proxy.ws
        ...
        proxy.set("down", delay=0.01, jitter=0.05, split=1)
        proxy.half_open()
        proxy.heal()

Directions are "up", from client to server, "down", and "both". What is switched is in force when the method returns.
What happens follows from the seed, the number of the connection and the bytes; only their timing is the system's.
"""

import contextlib
import heapq
import http.client
import ipaddress
import json
import random
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, fields, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

TIMEOUT = 20.0
LINGER = 2.0  # how long a side that was sent a FIN may take to send its own
_CHUNK = 1 << 16
_HELD = 1 << 22  # bytes on their way in one direction, beyond which its sender has to wait
_TURN = 256  # pieces written before others get their turn
_READ, _WRITE = select.EPOLLIN, select.EPOLLOUT

Direction = Literal["up", "down", "both"]
Side = Literal["client", "server", "both"]


@dataclass(frozen=True)
class Faults:
    """What happens to one direction of every connection. Places are counted from where the fault begins.

    `delay` and `jitter`, the most that comes on top of it, are seconds; bytes never overtake one another. `bandwidth`
    is bytes a second. `merge` keeps what arrives within so many seconds for one write. `split` cuts writes into pieces
    of these sizes, used in turn, with `pause` seconds between two. `truncate` ends the connection after so many bytes,
    by a FIN, or an RST where `abrupt` is set. `corrupt` changes the bytes at these places; `corrupt_rate` is the share
    of bytes that change. `swallow` takes everything, an end included, and hands on nothing.
    """

    delay: float = 0.0
    jitter: float = 0.0
    bandwidth: float = 0.0
    merge: float = 0.0
    split: int | Sequence[int] = 0
    pause: float = 0.0
    truncate: int | None = None
    abrupt: bool = False
    corrupt: Collection[int] = ()
    corrupt_rate: float = 0.0
    swallow: bool = False

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, int | float) and value < 0:
                raise ValueError(f"{each.name} can't be below 0, as {value!r} is")
        if not isinstance(self.split, int) and not all(size > 0 for size in self.split):
            raise ValueError(f"split takes sizes above 0, not {self.split!r}")


class Flow:
    """One direction of a connection. Counters: bytes `read`, `written`, `swallowed` and `corrupted`.

    Where the proxy records, `data` is what was written, and `moments` when: (monotonic seconds, `written` by then).
    """

    def __init__(self, link: "Link", faults: Faults, rng: random.Random, records: bool) -> None:
        self.link = link
        self.read = self.written = self.swallowed = self.corrupted = 0
        self.data = bytearray() if records else None
        self.moments: list[tuple[float, int]] = []
        self.faults = faults
        self.rng = rng
        self.begun = 0  # `read` when the faults in force began
        self.paused = False
        self.ended = False
        self.held = 0
        self.queue: deque[tuple[float, bytes | Callable[[], None]]] = deque()
        self.offset = 0  # how much of the first in the queue is written
        self.window = 0.0  # until when bytes are merged
        self.ready_at = 0.0  # when the next write may be
        self.pieces = 0


class Link:
    """One connection through the proxy: `number` from 0, the `up` and `down` flows, `opened` (monotonic seconds).

    `abrupt` says that it was reset: what the client's system held for it may never be read.
    """

    def __init__(self, number: int, client: socket.socket, server: socket.socket) -> None:
        self.number = number
        self.opened = time.monotonic()
        self.closed: float | None = None
        self.abrupt = False
        self.client = client
        self.server = server
        self.up: Flow
        self.down: Flow

    @property
    def open(self) -> bool:
        """Whether the proxy still holds it."""
        return self.closed is None

    def __repr__(self) -> str:
        return f"<Link {self.number} up {self.up.written}/{self.up.read} down {self.down.written}/{self.down.read}>"


class Proxy:
    """Listens at once; leaving the block ends its threads and closes what it opened.

    `target` is "1.2.3.4:port" with or without a scheme. `allocation` is the service whose replies `http` hands on, with
    this proxy in the place of the server they name, which becomes the target, unless it is no such address; without a
    service `http` always names this proxy. `record` keeps what was written in each direction.

    Methods are for any thread.
    """

    def __init__(
        self,
        target: str,
        *,
        allocation: str | None = None,
        seed: int = 0,
        record: bool = False,
        up: Faults | None = None,
        down: Faults | None = None,
    ) -> None:
        self.seed = seed
        self.links: list[Link] = []
        self.allocations: list[float] = []  # when each was asked, monotonic seconds
        self.errors: list[BaseException] = []
        self._target = _address(target)
        self._service = allocation
        self._records = record
        self._faults = {"up": up or Faults(), "down": down or Faults()}
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timed = 0
        self._sockets: dict[int, tuple[int, Callable[[int], None]]] = {}
        self._running = True
        self._answers: ThreadingHTTPServer | None = None
        self._answering: threading.Thread | None = None
        self._asking: set[http.client.HTTPConnection] = set()
        self._epoll = select.epoll()
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._listener: socket.socket | None = None
        self._reserve()
        self._listen()
        self._watch(self._woken, _READ, lambda _: self._serve_calls())
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        if self.errors and error is None:
            raise self.errors[0]

    # --- where it is ---

    @property
    def address(self) -> str:
        """ "127.0.0.1:port"."""
        return f"127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        """The address as a market-data server's."""
        return f"ws://{self.address}"

    @property
    def http(self) -> str:
        """An allocation service that leads through this proxy."""
        if self._answers is None:
            self._answers = _Answers(self._allocate)
            self._answering = threading.Thread(
                target=self._answers.serve_forever, kwargs={"poll_interval": 0.05}, name="allocation", daemon=True
            )
            self._answering.start()
        return f"http://127.0.0.1:{self._answers.server_port}"

    # --- what it has seen ---

    @property
    def open_links(self) -> list[Link]:
        """The connections that the proxy still holds, the half-open ones included."""
        return [link for link in self.links if link.open]

    def counters(self) -> dict[str, int]:
        """Sums over all connections."""
        links = list(self.links)
        sums = {"connections": len(links), "open": len(self.open_links), "allocations": len(self.allocations)}
        for direction in ("up", "down"):
            for name in ("read", "written", "swallowed", "corrupted"):
                sums[f"{direction}_{name}"] = sum(getattr(getattr(link, direction), name) for link in links)
        return sums

    def wait(self, condition: Callable[[], Any], timeout: float = TIMEOUT) -> None:
        """Until the condition holds; AssertionError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"not in {timeout} s: {self.counters()}"
            time.sleep(0.005)

    # --- faults ---

    def set(self, direction: Direction, **faults: Any) -> None:
        """Switch these faults, see `Faults`, for the connections there are and those to come; others stay as set."""

        def switch() -> None:
            for name in _directions(direction):
                self._faults[name] = replace(self._faults[name], **faults)
                for link in self.open_links:
                    self._switch(getattr(link, name), self._faults[name])

        self._call(switch)

    def half_open(self, direction: Direction = "both", *, lasting: bool = True) -> None:
        """From now on everything is swallowed, without an error on either side; unless lasting, new ones are well."""
        if lasting:
            self.set(direction, swallow=True)
            return

        def swallow() -> None:
            for name in _directions(direction):
                for link in self.open_links:
                    self._switch(getattr(link, name), Faults(swallow=True))

        self._call(swallow)

    def heal(self) -> None:
        """No faults any more, and listening. Connections that have lost bytes can't go on: they are reset."""

        def heal() -> None:
            for name in ("up", "down"):
                self._faults[name] = Faults()
            for link in self.open_links:
                if link.up.swallowed or link.down.swallowed or link.up.faults.swallow or link.down.faults.swallow:
                    self._end(link, abrupt=True)
                else:
                    self._switch(link.up, Faults())
                    self._switch(link.down, Faults())
            if self._listener is None:
                self._listen()

        self._call(heal)

    def reset(self, side: Side = "both") -> None:
        """RST on every connection. Given one side, the other is left half-open: it hears nothing of it."""

        def reset() -> None:
            for link in self.open_links:
                if side == "both":
                    self._end(link, abrupt=True)
                    continue
                for flow in (link.up, link.down):
                    self._switch(flow, Faults(swallow=True))
                    flow.queue.clear()
                    flow.held = flow.offset = 0
                link.abrupt |= side == "client"
                gone = link.client if side == "client" else link.server
                if gone.fileno() != -1:
                    self._close(gone, abrupt=True)

        self._call(reset)

    def close(self) -> None:
        """FIN on both sides of every connection; what is held back here is lost."""

        def close() -> None:
            for link in self.open_links:
                self._end(link, abrupt=False)

        self._call(close)

    def refuse(self) -> None:
        """Stop listening: new connections are refused. Nobody else gets the port."""
        self._call(self._unlisten)

    def accept(self) -> None:
        """Listen again."""
        self._call(lambda: self._listen() if self._listener is None else None)

    def move(self) -> None:
        """As a server that goes away and comes back elsewhere: everything is reset, and `ws` is another port."""

        def move() -> None:
            self._unlisten()
            for link in self.open_links:
                self._end(link, abrupt=True)
            self._reservation.close()
            self._reserve()
            self._listen()

        self._call(move)

    def retarget(self, target: str) -> None:
        """Where connections go from now on."""
        self._target = _address(target)

    def stop(self) -> None:
        """End everything, abruptly. Called again it does nothing."""
        if self._answers is not None:
            self._answers.shutdown()
            for asking in tuple(self._asking):
                with contextlib.suppress(OSError, AttributeError):
                    asking.sock.shutdown(socket.SHUT_RDWR)
            self._answers.server_close()
            assert self._answering is not None
            self._answering.join(TIMEOUT)
            self._answers = None
        if self._running:
            self._running = False
            self._wake.send(b"\0")
            self._thread.join(TIMEOUT)
            assert not self._thread.is_alive(), "the proxy's thread does not end"
            self._wake.close()
            self._woken.close()

    # --- the thread ---

    def _call(self, work: Callable[[], Any]) -> None:
        if not self._thread.is_alive():
            raise RuntimeError("the proxy has ended")
        done: Future[Any] = Future()
        self._calls.append((work, done))
        self._wake.send(b"\0")
        done.result(TIMEOUT)

    def _serve_calls(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        while self._calls:
            work, done = self._calls.popleft()
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

    def _run(self) -> None:
        try:
            while self._running:
                wait = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1
                for number, events in self._epoll.poll(wait):
                    # An event of the same round may have closed it.
                    if number in self._sockets:
                        self._sockets[number][1](events)
                now = time.monotonic()
                while self._timers and self._timers[0][0] <= now:
                    heapq.heappop(self._timers)[2]()
        except BaseException as error:
            self.errors.append(error)
        finally:
            for link in self.links:
                self._end(link, abrupt=True)
                for sock in (link.client, link.server):
                    self._close(sock, abrupt=True)
            self._unlisten()
            self._reservation.close()
            self._epoll.close()
            while self._calls:
                self._calls.popleft()[1].set_exception(RuntimeError("the proxy has ended"))

    def _at(self, when: float, work: Callable[[], None]) -> None:
        self._timed += 1
        heapq.heappush(self._timers, (when, self._timed, work))

    def _watch(self, sock: socket.socket, events: int, handler: Callable[[int], None]) -> None:
        """Events 0 are no watch at all: epoll reports errors to whoever is registered, for ever."""
        number = sock.fileno()
        before = self._sockets.pop(number, (0, handler))[0]
        if events:
            self._sockets[number] = events, handler
            if not before:
                self._epoll.register(number, events)
            elif before != events:
                self._epoll.modify(number, events)
        elif before:
            self._epoll.unregister(number)

    def _reserve(self) -> None:
        # Bound and never listening: connections to it are refused, and the port stays ours while nobody listens.
        self._reservation = socket.socket()
        self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reservation.bind(("127.0.0.1", 0))
        self.port = self._reservation.getsockname()[1]

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listener.setblocking(False)
        self._watch(self._listener, _READ, lambda _: self._accept())

    def _unlisten(self) -> None:
        if self._listener is not None:
            self._watch(self._listener, 0, lambda _: None)
            self._listener.close()
            self._listener = None

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        server = socket.socket()
        server.setblocking(False)
        try:
            server.connect(self._target)
        except BlockingIOError:
            pass  # until it is connected, it can't be read or written
        except OSError:
            server.close()
            _linger_zero(client)
            client.close()
            return
        link = Link(len(self.links), client, server)
        link.up = Flow(link, self._faults["up"], random.Random(f"{self.seed}/{link.number}/up"), self._records)
        link.down = Flow(link, self._faults["down"], random.Random(f"{self.seed}/{link.number}/down"), self._records)
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.links.append(link)
        self._rewatch(link)

    # --- one connection ---

    def _rewatch(self, link: Link, blocked: Flow | None = None) -> None:
        """Have each socket watched for what is wanted of it; `blocked` is a flow whose writer must wait."""
        for sock, source, sink in ((link.client, link.up, link.down), (link.server, link.down, link.up)):
            if sock.fileno() == -1:
                continue
            events = 0 if source.ended or source.paused else _READ
            if sink is blocked:
                events |= _WRITE
            elif sock.fileno() in self._sockets:
                events |= self._sockets[sock.fileno()][0] & _WRITE
            self._watch(sock, events, self._handler(source, sink))

    def _handler(self, source: Flow, sink: Flow) -> Callable[[int], None]:
        def handle(events: int) -> None:
            link = source.link
            if events & _WRITE:
                self._writable(sink)
            if events & ~_WRITE and link.open and not source.ended and not source.paused:
                self._readable(source)

        return handle

    def _ends(self, flow: Flow) -> tuple[socket.socket, socket.socket]:
        link = flow.link
        return (link.client, link.server) if flow is link.up else (link.server, link.client)

    def _switch(self, flow: Flow, faults: Faults) -> None:
        flow.faults = faults
        flow.begun = flow.read
        flow.pieces = 0
        if faults.truncate == 0 and not flow.ended:
            self._queue(flow, lambda: self._end(flow.link, abrupt=faults.abrupt))

    def _readable(self, flow: Flow) -> None:
        link, faults = flow.link, flow.faults
        try:
            data = self._ends(flow)[0].recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            flow.ended = True
            self._rewatch(link)
            if not faults.swallow:
                self._queue(flow, lambda: self._end(link, abrupt=True))
            return
        at = flow.read - flow.begun
        flow.read += len(data)
        if faults.swallow:
            flow.swallowed += len(data)
            flow.ended = not data
        elif not data:
            flow.ended = True
            self._queue(flow, lambda: self._finish(flow))
        else:
            cut = faults.truncate is not None and at + len(data) >= faults.truncate
            if faults.truncate is not None:
                data = data[: max(0, faults.truncate - at)]
            if data:
                self._queue(flow, self._corrupted(flow, data, at))
            if cut:
                flow.ended = True
                self._queue(flow, lambda: self._end(link, abrupt=faults.abrupt))
        if link.open:
            self._rewatch(link)

    def _corrupted(self, flow: Flow, data: bytes, at: int) -> bytes:
        faults = flow.faults
        if not faults.corrupt and not faults.corrupt_rate:
            return data
        changed = bytearray(data)
        for i in range(len(data)):
            if at + i in faults.corrupt or (faults.corrupt_rate and flow.rng.random() < faults.corrupt_rate):
                changed[i] ^= flow.rng.randrange(1, 256)
                flow.corrupted += 1
        return bytes(changed)

    def _queue(self, flow: Flow, item: bytes | Callable[[], None]) -> None:
        now = time.monotonic()
        faults = flow.faults
        due = now + faults.delay + (flow.rng.uniform(0, faults.jitter) if faults.jitter else 0.0)
        if faults.merge and isinstance(item, bytes):
            if due > flow.window:
                flow.window = due + faults.merge
            due = flow.window
        if flow.queue:
            due = max(due, flow.queue[-1][0])
        if isinstance(item, bytes):
            flow.held += len(item)
            flow.paused = flow.held >= _HELD
            if flow.queue and flow.queue[-1][0] == due and isinstance(last := flow.queue[-1][1], bytes):
                flow.queue[-1] = due, last + item
                return
        flow.queue.append((due, item))
        if len(flow.queue) == 1:
            self._write(flow)

    def _writable(self, flow: Flow) -> None:
        sock = self._ends(flow)[1]
        events, handler = self._sockets[sock.fileno()]
        self._watch(sock, events & ~_WRITE, handler)
        self._write(flow)

    def _write(self, flow: Flow) -> None:
        """Write what is due, and see to it that the rest comes later."""
        link = flow.link
        sink = self._ends(flow)[1]
        pieces = 0
        while flow.queue and link.open and sink.fileno() != -1:
            due, item = flow.queue[0]
            when = max(due, flow.ready_at)
            now = time.monotonic()
            pieces += 1
            if when > now or pieces > _TURN:
                self._at(when, lambda: self._write(flow))
                return
            if not isinstance(item, bytes):
                flow.queue.popleft()
                item()
                continue
            piece = item[flow.offset : flow.offset + self._next_size(flow, len(item))]
            try:
                sent = sink.send(piece)
            except BlockingIOError:
                self._rewatch(link, blocked=flow)
                return
            except OSError:
                self._end(link, abrupt=True)
                return
            self._sent(flow, piece[:sent], now)
            flow.offset += sent
            if flow.offset == len(item):
                flow.queue.popleft()
                flow.offset = 0

    def _next_size(self, flow: Flow, most: int) -> int:
        faults = flow.faults
        if faults.split:
            sizes = (faults.split,) if isinstance(faults.split, int) else faults.split
            most = min(most, sizes[flow.pieces % len(sizes)])
        if faults.bandwidth:
            most = min(most, max(1, int(faults.bandwidth / 100)))
        return most

    def _sent(self, flow: Flow, data: bytes, now: float) -> None:
        faults = flow.faults
        flow.pieces += 1
        flow.written += len(data)
        flow.held -= len(data)
        if flow.data is not None:
            flow.data += data
            flow.moments.append((now, flow.written))
        flow.ready_at = now + faults.pause if faults.split else now
        if faults.bandwidth:
            flow.ready_at = max(flow.ready_at, now + len(data) / faults.bandwidth)
        if flow.paused and flow.held < _HELD // 2:
            flow.paused = False
            self._rewatch(flow.link)

    def _finish(self, flow: Flow) -> None:
        """The sender has said FIN: so it is said to the receiver, and when both have, the connection is over."""
        link = flow.link
        with contextlib.suppress(OSError):
            self._ends(flow)[1].shutdown(socket.SHUT_WR)
        if link.up.ended and link.down.ended and not link.up.queue and not link.down.queue:
            link.closed = time.monotonic()
            for sock in (link.client, link.server):
                self._close(sock, abrupt=False)

    def _end(self, link: Link, abrupt: bool) -> None:
        """End a connection on both sides; not abruptly, the other ends have some time to say FIN as well."""
        if not link.open:
            return
        link.closed = time.monotonic()
        link.abrupt |= abrupt
        for flow in (link.up, link.down):
            flow.queue.clear()
            flow.held = flow.offset = 0
        for sock in (link.client, link.server):
            if sock.fileno() == -1:
                continue
            if abrupt:
                self._close(sock, abrupt=True)
                continue
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
            # Closed with unread bytes in it, a socket sends an RST.
            self._watch(sock, _READ, self._drainer(sock))
            self._at(time.monotonic() + LINGER, lambda sock=sock: self._close(sock, abrupt=False))  # type: ignore[misc]

    def _drainer(self, sock: socket.socket) -> Callable[[int], None]:
        def drain(_: int) -> None:
            with contextlib.suppress(BlockingIOError):
                try:
                    if sock.recv(_CHUNK):
                        return
                except ConnectionError:
                    pass
                self._close(sock, abrupt=False)

        return drain

    def _close(self, sock: socket.socket, abrupt: bool) -> None:
        if sock.fileno() == -1:
            return
        self._watch(sock, 0, lambda _: None)
        if abrupt:
            _linger_zero(sock)
        sock.close()

    # --- allocation ---

    def _allocate(self, path: str) -> tuple[int, bytes] | None:
        """The reply to an allocation; None for a connection that ends without one."""
        self.allocations.append(time.monotonic())
        if self._service is None:
            return 200, json.dumps({"code": "0", "server": self.ws}).encode()
        asking = http.client.HTTPConnection(*_address(self._service), timeout=TIMEOUT)
        self._asking.add(asking)
        try:
            asking.request("GET", path)
            response = asking.getresponse()
            status, body = response.status, response.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            self._asking.discard(asking)
            asking.close()
        try:
            reply = json.loads(body)
            self.retarget(reply["server"])
        except (ValueError, TypeError, KeyError, AttributeError):
            return status, body
        return status, json.dumps(reply | {"server": self.ws}, ensure_ascii=False).encode()


class _Answers(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, answer: Callable[[str], tuple[int, bytes] | None]) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = TIMEOUT

            def do_GET(self) -> None:
                found = answer(self.path)
                if found is None:
                    self.close_connection = True
                    return
                status, body = found
                self.send_response(status)
                self.send_header("Content-Type", "application/json; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Paths hold tokens."""

        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, *_: Any) -> None:
        """A client that goes away is no error here."""


def _address(text: str) -> tuple[str, int]:
    parts = urlsplit(text if "://" in text else f"tcp://{text}")
    if not parts.hostname or not parts.port:
        raise ValueError(f"not a target: {text!r}; it should read like '127.0.0.1:8765'")
    return str(ipaddress.IPv4Address(parts.hostname)), parts.port


def _directions(direction: Direction) -> Iterator[Literal["up", "down"]]:
    if direction not in ("up", "down", "both"):
        raise ValueError(f"a direction is 'up', 'down' or 'both', not {direction!r}")
    if direction != "down":
        yield "up"
    if direction != "up":
        yield "down"


def _linger_zero(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
