"""The market-data server: connections, their subscriptions, what was sent to whom and when."""

import asyncio
import json
import logging
import re
import socket
import struct
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from jvq_fast.sim.cargo import EXTRA_MARKS, Cargo, Record
from jvq_fast.sim.deflate import deflate
from jvq_fast.sim.delivery import deliver, settle
from jvq_fast.sim.events import Event, Snapshot
from jvq_fast.sim.faults import Fault, Faults
from jvq_fast.sim.ledger import Entry, Ledger
from jvq_fast.sim.line import BINARY, CLOSE, CONTINUATION, PING, TEXT, Line, frame, unsent
from jvq_fast.sim.settings import Settings
from jvq_fast.sim.wire import Message, Wire

# What a client does wrong is its own affair.
_log = logging.getLogger("jvq_fast.sim.websocket")
_log.setLevel(logging.CRITICAL)

_SUBSCRIPTION = re.compile(r"(?:lv1|lv2|lv10)_(i?[0-9]{6})")
_TOKEN = re.compile(r"[0-9a-fA-F]{32}")
_MAX_COMMAND = 1 << 20
_MAX_MESSAGE = 1 << 20
_STAMPS = 1 << 20
_CLOSED_KEPT = 64
_CLOSED_STAMPED = 4
_ACCOUNTS_KEPT = 1024
_ON_ITS_WAY = 0.1  # seconds
_GOODBYE = 1.0  # seconds for the client to answer a CLOSE
_FORGOTTEN = 600.0  # seconds after which a connection on which nothing moves any more is given up
_PONG = 10
_DISMISSED = frame(CLOSE, (1008).to_bytes(2, "big"))
_RESET = struct.pack("ii", 1, 0)


class Stamps:
    """When each message of a connection was handed to the socket: the latest million, CLOCK_MONOTONIC nanoseconds."""

    def __init__(self) -> None:
        self._values = array("q")
        self._dropped = 0

    def add(self) -> None:
        """Stamp a message now."""
        self._values.append(time.monotonic_ns())
        if len(self._values) > 2 * _STAMPS:
            del self._values[:_STAMPS]
            self._dropped += _STAMPS

    def clear(self) -> None:
        """Keep none."""
        self._dropped += len(self._values)
        self._values = array("q")

    def since(self, number: int) -> tuple[int, bytes]:
        """Stamps of the messages from ``number`` on, 0 for the first ever: (number of the first one, int64 each)."""
        first = max(number, self._dropped)
        values = self._values[first - self._dropped :]
        values = array("q", values)
        return first, values.tobytes()


class Connection(WSListener):
    """One client: its commands in, its messages out."""

    def __init__(self, server: "Server", number: int, token: str, refusal: str) -> None:
        self.server = server
        self.id = number
        self.token = token
        self.refusal = refusal
        self.transport: WSTransport | None = None
        self.is_open = False
        self.subscriptions: dict[str, str] = {}  # lv2_600519 -> 600519
        self.message = Message(server.settings.trailing_newline)
        self.stamps = Stamps()
        self.messages = self.bytes = self.trades = self.quotes = self.depths = 0
        self.waited = 0.0, 0  # since when how many bytes have waited
        self.attempts = 0  # messages that were to be sent, whatever became of them
        self.muted = ""  # the fault that keeps it from sending
        self.answers = True  # commands and pings
        self.faulty = dict.fromkeys(EXTRA_MARKS, 0)  # records by what a fault made of them
        self.late: list[tuple[int, Record]] = []  # records to go with a later message: its number
        self._line: Line | None = None
        self._broken = False  # the client waits for the rest of a frame
        self._leaving = False  # CLOSE is sent, the client's is awaited
        self._partial = bytearray()
        self._partial_text = False

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.is_open = True
        self.server.connected(self)

    def on_ws_disconnected(self, transport: WSTransport) -> None:  # noqa: ARG002
        self.close()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if not self.is_open:
            if self._leaving and kind == WSMsgType.CLOSE:
                transport.disconnect()
            return
        if kind == WSMsgType.CLOSE:
            self.hurry()
            if self.answers:
                transport.send_close(WSCloseCode.OK)
            self.close()
            transport.disconnect()
        elif kind == WSMsgType.PING:
            if self.server.settings.pong:
                self._control(_PONG, frame.get_payload_as_bytes())
        elif kind in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
            if kind != WSMsgType.CONTINUATION:
                self._partial.clear()
                self._partial_text = kind == WSMsgType.TEXT
            self._partial += frame.get_payload_as_bytes()
            if len(self._partial) > _MAX_COMMAND:
                self.cut()
            elif frame.fin:
                text = self._partial.decode("utf-8", "replace").strip()
                self._partial.clear()
                self.server.command(self, text if self._partial_text else "")

    def _control(self, kind: int, payload: bytes) -> None:
        """Send a frame that is no market data."""
        if not self.is_open or self.transport is None or not self.answers:
            return
        if self.transport.underlying_transport.is_closing():
            return
        if self.line_is_busy:
            self.write([frame(kind, payload)])
        else:
            self.transport.send(WSMsgType(kind), payload)
        self._check_buffer()

    def text(self, text: str) -> None:
        """Send a TEXT frame."""
        self._control(TEXT, text.encode())

    def ping(self) -> None:
        """Send a ping."""
        self._control(PING, b"")

    def dismiss(self, text: str, *, close: bool = True) -> None:
        """Say why, and close in good order; without ``close``, without a CLOSE frame."""
        self.text(text)
        self.end(_DISMISSED if close and self.answers else b"")

    def end(self, last: bytes = b"") -> None:
        """Close the TCP connection behind all there is to send."""
        if self.is_open and self.transport is not None:
            self.write([last])
            self.hurry()
            self.transport.disconnect()
        self.close()

    def say_close(self, frames: bytes) -> None:
        """Send this as CLOSE, and end when the client has answered or had its time."""
        if self.is_open and self.transport is not None:
            self.write([frames])
            self.hurry()
            self._leaving = True
            asyncio.get_running_loop().call_later(_GOODBYE, self.transport.disconnect)
        self.close()

    def reset(self) -> None:
        """RST, as soon as the client's side has taken what was sent: RST throws away what is still on its way."""
        if not self.is_open or self.transport is None:
            return
        transport, loop = self.transport, asyncio.get_running_loop()
        connected = transport.underlying_transport.get_extra_info("socket")
        until = loop.time() + _ON_ITS_WAY
        self.close()

        def attempt() -> None:
            if not transport.is_disconnected:
                waiting = unsent(connected) or transport.underlying_transport.get_write_buffer_size()
                if waiting and loop.time() < until:
                    loop.call_later(0.001, attempt)
                    return
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                transport.disconnect(graceful=False)

        attempt()

    def mute(self, fault: str, *, answers: bool) -> None:
        """No market data any more, and no answers either unless told so; what the client says is read."""
        self.muted = self.muted or fault
        self.answers = self.answers and answers

    def freeze(self) -> None:
        """As if the cable had been cut: nothing is sent or read."""
        self.mute("half_open", answers=False)
        self._broken = self._broken or self.line_is_busy
        if self._line is not None:
            self._line.abandon()
        if self.transport is not None:
            self.transport.underlying_transport.pause_reading()
            asyncio.get_running_loop().call_later(_FORGOTTEN, self.release)

    def release(self) -> None:
        """The end of ``mute`` and ``freeze``: it goes on, unless the client waits for the rest of a frame."""
        if not self.is_open or self.transport is None or not self.muted:
            return
        self.muted, self.answers = "", True
        self.transport.underlying_transport.resume_reading()
        if self._broken:
            self.cut()

    def write(
        self, pieces: Sequence[bytes], pause: float = 0.0, done: Callable[[bool], None] | None = None
    ) -> None:
        """Write bytes, each piece on its own and ``pause`` seconds apart, behind what is being written so."""
        if self.transport is None or not self.is_open:
            if done:
                done(False)
            return
        if self._line is None:
            self._line = Line(self.transport.underlying_transport)
        self._line.write(pieces, pause, done)
        self._check_buffer()

    @property
    def line_is_busy(self) -> bool:
        """Whether a frame is being written piece by piece."""
        return self._line is not None and self._line.busy

    def hurry(self) -> None:
        """Write what is being written piece by piece at once."""
        if self._line is not None:
            self._line.hurry()

    def cut(self) -> None:
        """End it without a word."""
        if self.transport is not None:
            self.transport.disconnect(graceful=False)
        self.close()

    def close(self) -> None:
        """Nothing more is sent; what was sent stays known."""
        if self.is_open:
            if self._line is not None:
                self._line.abandon()
            if self.late:
                rest = Cargo(self.attempts, [[record] for _, record in self.late])
                rest.spoil("missing", "closed")
                settle(self, rest, 0)
            self.is_open = False
            self.server.disconnected(self)

    def waiting(self) -> int:
        """Bytes that the client has not taken yet."""
        assert self.transport is not None
        waiting: int = self.transport.underlying_transport.get_write_buffer_size()
        return waiting if self._line is None else waiting + self._line.waiting

    def flush(self, deflated: Callable[[str], bytes]) -> None:
        """Send the message that was put together."""
        message = self.message
        trades, quotes, depths = message.trades, message.quotes, message.depths
        text = message.take()
        if not self.is_open or self.transport is None or self.transport.underlying_transport.is_closing():
            return
        self.attempts += 1
        if self.server.faults.armed or self.muted or self.late or self._line is not None:
            deliver(self, text, deflated)
            return
        payload = deflated(text)
        self.stamps.add()
        if self.server.settings.fragments == 1:
            self.transport.send(WSMsgType.BINARY, payload)
        else:
            self.send_payload(payload)
        if self.server.ledger is not None:
            self.server.ledger.whole(self.id, self.attempts, text)
        self.messages += 1
        self.bytes += len(payload)
        self.trades += trades
        self.quotes += quotes
        self.depths += depths
        self._check_buffer()

    def frames(self, payload: bytes) -> Iterator[bytes]:
        """A message in as many frames as the settings want."""
        size = max(1, -(-len(payload) // self.server.settings.fragments))
        for at in range(0, max(len(payload), 1), size):
            yield frame(CONTINUATION if at else BINARY, payload[at : at + size], fin=at + size >= len(payload))

    def send_payload(self, payload: bytes) -> None:
        """Send a message."""
        assert self.transport is not None
        self.transport.underlying_transport.write(b"".join(self.frames(payload)))
        self._check_buffer()

    def _check_buffer(self) -> None:
        if self.is_open and self.waiting() > self.server.settings.buffer_limit:
            self.server.slow_readers_cut += 1
            self.cut()

    def stats(self) -> dict[str, Any]:
        """What /stats says of it."""
        return {
            "id": self.id,
            "open": self.is_open,
            "subscriptions": list(self.subscriptions),
            "messages": self.messages,
            "bytes": self.bytes,
            "trades": self.trades,
            "quotes": self.quotes,
            "depths": self.depths,
            "records": self.trades + self.quotes + self.depths,
            "faulty": dict(self.faulty),
        }


class _NoResponse(WSUpgradeResponse):
    """A handshake accepted without a word."""

    def __init__(self) -> None:
        model = WSUpgradeResponse.create_101_response()
        self.version, self.status, self.headers, self.body = model.version, model.status, model.headers, model.body

    def to_bytes(self) -> bytearray:
        return bytearray()


class _Unheard(WSListener):
    """A client whose handshake is never answered, or cut short."""

    def __init__(self, fault: Fault) -> None:
        self._drop = fault.kind.name == "handshake_drop"

    def on_ws_connected(self, transport: WSTransport) -> None:
        if self._drop:
            transport.disconnect()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        pass


def _refuse(status: int, body: bytes = b"") -> WSUpgradeResponseWithListener:
    response = WSUpgradeResponse.create_ok_response(body)
    response.status = HTTPStatus(status)
    return WSUpgradeResponseWithListener(response, None)


class Server:
    """All connections. It is told of events by ``put`` and sends them at ``flush``; all on the loop's thread."""

    def __init__(self, settings: Settings, host: str) -> None:
        self.settings = settings
        self.slow_readers_cut = 0
        self.on_listen: Callable[[str], None] | None = None
        self.on_forget: Callable[[str], None] | None = None
        self.snapshot_of: Callable[[str], Snapshot | None] | None = None
        self.on_day_change: Callable[[int, str], None] | None = None
        self.numbers = 0  # of connections so far
        self.faults = Faults(self, settings.seed)
        self.ledger = Ledger() if settings.keep_sent else None
        self._host = host
        self._port = 0
        self._listening: asyncio.Server | None = None
        self._parked: socket.socket | None = None  # holds the port while nobody listens there
        self._down: set[Fault] = set()
        self._coming_up: asyncio.Task[None] | None = None
        self._connections: dict[int, Connection] = {}
        self._closed: deque[Connection] = deque(maxlen=_CLOSED_KEPT)
        self._past = dict.fromkeys(("messages", "bytes", "trades", "quotes", "depths", "records"), 0)
        self._subscribers: dict[str, dict[Connection, None]] = {}
        self._listeners: dict[str, int] = {}
        self._known: set[str] = set()
        self._history: dict[str, dict[str, None]] = {}
        self._touched: dict[Connection, None] = {}
        self._wire = Wire(settings)
        self._deflate = deflate(settings.deflate, settings.deflate_level)
        self._tokens = set(filter(None, settings.tokens.split(",")))
        self._payload: tuple[str, bytes] = ("", b"")

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"ws://{self._host}:{self._port}"

    @property
    def has_listeners(self) -> bool:
        """Whether anybody is subscribed to anything."""
        return bool(self._listeners)

    async def open(self, port: int) -> None:
        """Listen on a port, 0 for any."""
        await self._listen({"host": self._host, "port": port})

    async def _listen(self, where: dict[str, Any]) -> None:
        self._listening = await ws_create_server(
            self._accept,
            **where,
            max_frame_size=_MAX_COMMAND,
            enable_auto_pong=False,
            websocket_handshake_timeout=10,
            use_aiofastnet=False,
            logger_name=_log,
        )
        self._port = self._listening.sockets[0].getsockname()[1]

    async def move(self) -> str:
        """Cut every connection and listen on another port; nothing else changes. The new address."""
        old = self._listening
        await self.open(0)
        if old is not None:
            old.close()
        if self._parked is not None:
            self._parked.close()
            self._parked = None
        for connection in self.connections():
            connection.cut()
        return self.url

    def go_down(self, fault: Fault, *, cut: bool) -> None:
        """Refuse connections until ``come_up``; the port stays ours. ``cut``: those that are open are cut."""
        self._down.add(fault)
        if self._listening is not None:
            family = self._listening.sockets[0].family
            address = self._listening.sockets[0].getsockname()
            self._listening.close()
            self._listening = None
            self._parked = socket.socket(family, socket.SOCK_STREAM)
            self._parked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._parked.bind(address)
        if cut:
            for connection in self.connections():
                connection.cut()

    def come_up(self, fault: Fault) -> None:
        """The end of a ``go_down``; with the last of them it listens again."""
        self._down.discard(fault)
        if not self._down and self._parked is not None:
            parked, self._parked = self._parked, None
            self._coming_up = asyncio.get_running_loop().create_task(self._listen({"sock": parked}))

    def close(self) -> None:
        """Stop listening and cut every connection."""
        if self._listening is not None:
            self._listening.close()
        if self._parked is not None:
            self._parked.close()
        for connection in self.connections():
            connection.cut()

    def connections(self) -> list[Connection]:
        """Those that are open."""
        return list(self._connections.values())

    def token_is_good(self, token: str) -> bool:
        """Whether a token is one of those known, or of the right form."""
        return token in self._tokens if self._tokens else _TOKEN.fullmatch(token) is not None

    def _accept(self, request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener:
        query = parse_qs(urlsplit(request.path.decode("latin-1")).query)
        token = query.get("token", [""])[-1]
        hit = self.faults.request("handshake")
        if hit is not None:
            fault, _ = hit
            if fault.kind.name == "handshake_status":
                return _refuse(fault.values["status"])
            return WSUpgradeResponseWithListener(_NoResponse(), _Unheard(fault))
        refusal, how = "", self.settings.bad_token
        if not self.token_is_good(token):
            refusal = self.settings.bad_token_text
        elif (bad := self.faults.bad_token(token)) is not None:
            refusal, how = bad.values["text"], bad.values["how"]
        if refusal and how == "http":
            return _refuse(401, b"bad token")
        self.numbers += 1
        return Connection(self, self.numbers, token, refusal)

    def connected(self, connection: Connection) -> None:
        """A handshake is done."""
        limit, over_limit = self.settings.limit, self.settings.over_limit
        quota = self.faults.standing("quota")
        if quota is not None:
            limit, over_limit = quota.values["limit"], quota.values["over_limit"]
        others = [other for other in self.connections() if other.token == connection.token]
        self._connections[connection.id] = connection
        if connection.refusal:
            connection.dismiss(connection.refusal)
        elif limit and len(others) >= limit:
            loser = others[0] if over_limit == "evict" else connection
            if quota is not None:
                self.faults.happens(quota, loser)
            loser.dismiss(self.settings.limit_text)
        self.faults.connected(connection)

    def disconnected(self, connection: Connection) -> None:
        """A connection has ended, one way or another."""
        self._replace(connection, ())
        self._touched.pop(connection, None)
        if self._connections.pop(connection.id, None) is not None:
            stats = connection.stats()
            for name in self._past:
                self._past[name] += stats[name]
            self._closed.append(connection)
            if len(self._closed) > _CLOSED_STAMPED:
                self._closed[-1 - _CLOSED_STAMPED].stamps.clear()
            self.faults.disconnected(connection)

    def command(self, connection: Connection, text: str) -> None:
        """Do what a client asks for, and say so."""
        verb, equals, argument = text.partition("=")
        if text in ("list", "his"):
            which = connection.subscriptions if text == "list" else self._history.get(connection.token, {})
            connection.text(self._reply(",".join(which)))
            return
        if not equals or verb not in ("add", "del", "all"):
            connection.text("-2#未知指令")
            return
        wanted = [name for name in argument.split(",") if name]
        bad = [name for name in wanted if not _SUBSCRIPTION.fullmatch(name)]
        good = dict.fromkeys(name for name in wanted if _SUBSCRIPTION.fullmatch(name))
        before = connection.subscriptions
        if verb == "add":
            self._replace(connection, (*before, *good))
        elif verb == "del":
            self._replace(connection, [name for name in before if name not in good])
        else:
            self._replace(connection, good)
        done = {"add": "添加", "del": "删除", "all": "订阅"}[verb]
        if bad:
            connection.text(f"-2#订阅代码错误:{','.join(bad)[:200]}")
        elif self.settings.ack != "none":
            connection.text(self._reply(self.settings.ack_text or f"{done}成功:{len(good)}"))
        self._first_push(connection, before)

    def _reply(self, text: str) -> str:
        if self.settings.ack == "json":
            return json.dumps({"code": "0", "message": text}, ensure_ascii=False)
        return text if self.settings.ack in ("text", "none") else f"0#{text}"

    def _replace(self, connection: Connection, names: Iterable[str]) -> None:
        """Make ``names`` the connection's whole subscription."""
        before = connection.subscriptions
        after: dict[str, str] = {}
        for name in names:
            code = name.partition("_")[2]
            if code in self._known or len(self._known) < self.settings.max_codes:
                after[name] = code
                self._known.add(code)
        connection.subscriptions = after
        for name, code in after.items():
            if name not in before:
                self._subscribers.setdefault(name, {})[connection] = None
                self._listeners[code] = self._listeners.get(code, 0) + 1
                if self._listeners[code] == 1 and self.on_listen:
                    self.on_listen(code)
        for name, code in before.items():
            if name not in after:
                subscribers = self._subscribers[name]
                del subscribers[connection]
                if not subscribers:
                    del self._subscribers[name]
                self._listeners[code] -= 1
                if not self._listeners[code]:
                    del self._listeners[code]
                    if self.on_forget:
                        self.on_forget(code)
        if after:
            history = self._history.setdefault(connection.token, {})
            history |= dict.fromkeys(after)
            if len(self._history) > _ACCOUNTS_KEPT:
                del self._history[next(iter(self._history))]

    def _first_push(self, connection: Connection, before: dict[str, str]) -> None:
        for name, code in connection.subscriptions.items():
            if name in before or name.startswith("lv2_"):
                continue
            snapshot = self.snapshot_of(code) if self.snapshot_of else None
            if snapshot is not None:
                self._put_snapshot(connection, name.startswith("lv10_"), code, snapshot)
        if connection.message:
            connection.flush(self._deflated)
        self._touched.pop(connection, None)

    def new_day(self) -> None:
        """What an account has subscribed to today begins anew with what it is subscribed to."""
        self._history.clear()
        for connection in self.connections():
            if connection.subscriptions:
                self._history.setdefault(connection.token, {}).update(dict.fromkeys(connection.subscriptions))

    def put(self, code: str, event: Event) -> None:
        """An event happened: it goes into the next message of everybody who is subscribed to it."""
        if isinstance(event, Snapshot):
            for depth, level in ((False, "lv1_"), (True, "lv10_")):
                for connection in tuple(self._subscribers.get(level + code, ())):
                    self._put_snapshot(connection, depth, code, event)
            return
        subscribers = self._subscribers.get("lv2_" + code)
        if subscribers:
            text = self._wire.trades(event)
            for connection in tuple(subscribers):
                if self._wire.place_matters:
                    text = self._wire.trades(event, connection.message.continues(code))
                connection.message.add_trades(code, text, len(event))
                self._put(connection)

    def _put_snapshot(self, connection: Connection, depth: bool, code: str, snapshot: Snapshot) -> None:
        if depth:
            if self.settings.replay:  # the files have five levels
                return
            text = self._wire.depth(code, snapshot)
            if text:
                connection.message.add_depth(code, text)
        else:
            text = self._wire.quote(code, snapshot)
            if text:
                connection.message.add_quote(code, text)
        if text:
            self._put(connection)

    def _put(self, connection: Connection) -> None:
        self._touched[connection] = None
        if connection.message.size > _MAX_MESSAGE:
            connection.flush(self._deflated)

    def flush(self) -> None:
        """Send the messages."""
        for connection in tuple(self._touched):
            if connection.message:
                connection.flush(self._deflated)
        self._touched.clear()

    def _deflated(self, text: str) -> bytes:
        """The payload of a text; connections with the same subscription get the same one."""
        if text != self._payload[0]:
            self._payload = text, self._deflate(text.encode())
        return self._payload[1]

    def stats(self) -> dict[str, Any]:
        """Connections, the latest of those that are gone included, and the sum over all there ever were."""
        connections = [connection.stats() for connection in (*self._closed, *self.connections())]
        total = {
            name: past + sum(each[name] for each in connections if each["open"]) for name, past in self._past.items()
        }
        return {
            "connections": sorted(connections, key=lambda each: each["id"]),
            "total": total,
            "slow_readers_cut": self.slow_readers_cut,
        }

    def stamps(self, number: int, since: int) -> tuple[int, bytes] | None:
        """Send times of a connection's messages, see ``Stamps.since``; None for an unknown connection."""
        for connection in (*self.connections(), *self._closed):
            if connection.id == number:
                return connection.stamps.since(since)
        return None

    async def settled(self) -> None:
        """Wait until it listens again, if it is about to."""
        if self._coming_up is not None:
            await self._coming_up

    def sent(self, number: int) -> Iterator[Entry] | None:
        """What a connection was sent, see ``Ledger``; None where that is not kept."""
        return None if self.ledger is None else self.ledger.entries(number)
