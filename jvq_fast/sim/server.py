"""The market-data server: connections, their subscriptions, what was sent to whom and when."""

import asyncio
import json
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

from picows import (
    WSListener,
    WSUpgradeRequest,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from jvq_fast.sim.connection import MAX_COMMAND, Connection
from jvq_fast.sim.deflate import deflate
from jvq_fast.sim.delivery import deliver
from jvq_fast.sim.events import Event, Snapshot
from jvq_fast.sim.faults import Fault, Faults
from jvq_fast.sim.handshake import NoResponse, Unheard, refuse
from jvq_fast.sim.ledger import Entry, Ledger
from jvq_fast.sim.port import Port
from jvq_fast.sim.settings import Settings
from jvq_fast.sim.wire import Wire

# What a client does wrong is its own affair.
_log = logging.getLogger("jvq_fast.sim.websocket")
_log.setLevel(logging.CRITICAL)

_SUBSCRIPTION = re.compile(r"(?:lv1|lv2|lv10)_(i?[0-9]{6})")
_TOKEN = re.compile(r"[0-9a-fA-F]{32}")
_MAX_MESSAGE = 1 << 20
_CLOSED_KEPT = 64
_CLOSED_STAMPED = 4
_ACCOUNTS_KEPT = 1024


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
        self._port = Port(self._listen)
        self.ports = {"down": self._port}  # by the fault that shuts it
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
        return f"ws://{self._host}:{self._port.number}"

    @property
    def has_listeners(self) -> bool:
        """Whether anybody is subscribed to anything."""
        return bool(self._listeners)

    async def open(self, port: int) -> None:
        """Listen on a port, 0 for any."""
        await self._port.open(self._host, port)

    async def _listen(self, **where: Any) -> asyncio.Server:
        return await ws_create_server(
            self._accept,
            **where,
            max_frame_size=MAX_COMMAND,
            enable_auto_pong=False,
            websocket_handshake_timeout=10,
            use_aiofastnet=False,
            logger_name=_log,
        )

    async def move(self) -> str:
        """Cut every connection and listen on another port; nothing else changes. The new address."""
        await self.open(0)
        for connection in self.connections():
            connection.cut()
        return self.url

    def go_down(self, fault: Fault, *, cut: bool) -> None:
        """Refuse connections until ``come_up``; the port stays ours. ``cut``: those that are open are cut."""
        self.ports[fault.kind.name].shut(fault)
        if cut:
            for connection in self.connections():
                connection.cut()

    def come_up(self, fault: Fault) -> None:
        """The end of a ``go_down``; with the last of them it listens again."""
        self.ports[fault.kind.name].reopen(fault)

    def close(self) -> None:
        """Stop listening, here and at the other ports, and cut every connection."""
        for port in self.ports.values():
            port.close()
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
                return refuse(fault.values["status"])
            return WSUpgradeResponseWithListener(NoResponse(), Unheard(fault))
        refusal, how = "", self.settings.bad_token
        if not self.token_is_good(token):
            refusal = self.settings.bad_token_text
        elif (bad := self.faults.bad_token(token)) is not None:
            refusal, how = bad.values["text"], bad.values["how"]
        if refusal and how == "http":
            return refuse(401, b"bad token")
        self.numbers += 1
        return Connection(self, self.settings, self.ledger, self.numbers, token, refusal)

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

    def too_slow(self) -> None:
        """A client leaves more unread than it may, and is cut."""
        self.slow_readers_cut += 1

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
            if self.may_know(code):
                after[name] = code
        connection.subscriptions = after
        for name, code in after.items():
            if name not in before:
                self._subscribers.setdefault(name, {})[connection] = None
                self.listen(code)
        for name, code in before.items():
            if name not in after:
                subscribers = self._subscribers[name]
                del subscribers[connection]
                if not subscribers:
                    del self._subscribers[name]
                self.forget(code)
        if after:
            history = self._history.setdefault(connection.token, {})
            history |= dict.fromkeys(after)
            if len(self._history) > _ACCOUNTS_KEPT:
                del self._history[next(iter(self._history))]

    def may_know(self, code: str) -> bool:
        """Whether the market of a code may run: there is room for so many, which from now on has this one too."""
        if code not in self._known and len(self._known) >= self.settings.max_codes:
            return False
        self._known.add(code)
        return True

    def listen(self, code: str) -> None:
        """Somebody more wants the market of a code to run: a subscription, or an order."""
        self._listeners[code] = self._listeners.get(code, 0) + 1
        if self._listeners[code] == 1 and self.on_listen:
            self.on_listen(code)

    def forget(self, code: str) -> None:
        """The end of a ``listen``."""
        self._listeners[code] -= 1
        if not self._listeners[code]:
            del self._listeners[code]
            if self.on_forget:
                self.on_forget(code)

    def _first_push(self, connection: Connection, before: dict[str, str]) -> None:
        for name, code in connection.subscriptions.items():
            if name in before or name.startswith("lv2_"):
                continue
            snapshot = self.snapshot_of(code) if self.snapshot_of else None
            if snapshot is not None:
                self._put_snapshot(connection, name.startswith("lv10_"), code, snapshot)
        if connection.message:
            self._send(connection)
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
            self._send(connection)

    def flush(self) -> None:
        """Send the messages."""
        for connection in tuple(self._touched):
            if connection.message:
                self._send(connection)
        self._touched.clear()

    def _send(self, connection: Connection) -> None:
        message = connection.take()
        if message is None:
            return
        text = message.text()
        if self.faults.armed or connection.is_hindered:
            deliver(connection, self.faults, text, self._deflated)
        else:
            connection.send_whole(message, text, self._deflated(text))

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
        """Wait until all ports listen again that are about to."""
        for port in self.ports.values():
            await port.settled()

    def sent(self, number: int) -> Iterator[Entry] | None:
        """What a connection was sent, see ``Ledger``; None where that is not kept."""
        return None if self.ledger is None else self.ledger.entries(number)
