"""The HTTP side: server allocation as the vendor does it, and what tests and tools ask the simulator."""

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from jvq_fast.sim.broker.broker import Broker
from jvq_fast.sim.broker.trade_http import Trade
from jvq_fast.sim.dead import DeadServers
from jvq_fast.sim.fault_kinds import KINDS, FaultError, no_such_kind, read_body
from jvq_fast.sim.faults import Fault
from jvq_fast.sim.http_wire import LARGEST, Answer, Query, Request, hang, json_answer, read_request, send
from jvq_fast.sim.server import Server
from jvq_fast.sim.settings import Settings

_TOKENS_KEPT = 1024


_SCHEMES = {"websocket": "ws://", "trade": "http://"}


def _wanted(query: Query) -> str:
    """The type of server that is asked for."""
    return query.get("type", [""])[-1]


class Allocation:
    """``/query/server``: tells where the market data and the broker are, in any of the forms that documents show."""

    def __init__(self, settings: Settings, server: Server) -> None:
        self.trade = ""  # where the broker listens
        self._settings = settings
        self._server = server
        self._asked: OrderedDict[str, float] = OrderedDict()
        self._dead = DeadServers()

    def serves(self, path: str) -> bool:
        """Whether allocation answers at a path."""
        routes = {"query": ("/query/server",), "server": ("/server",)}
        return path in routes.get(self._settings.allocation_route, ("/query/server", "/server"))

    def answer(self, query: Query) -> Answer:
        """The reply to a request, always HTTP 200 as the vendor's."""
        return self._reply(query, partial(self._address, _wanted(query)))

    def faulty(self, fault: Fault, query: Query) -> Answer:
        """The reply to a request that is hit by a fault."""
        values = fault.values
        kind = fault.kind.name.removeprefix("allocation_")
        if kind == "refuse":
            number = values["code"].removeprefix("-").isdecimal() and self._settings.allocation_code == "number"
            code = int(values["code"]) if number else values["code"]
            return json_answer({"code": code, self._settings.allocation_message: values["message"]})
        if kind == "status":
            return values["status"], "text/html", b"<html>fault</html>", {}
        if kind == "body":
            return 200, "application/json; charset=utf-8", values["body"].encode(), {}
        if kind == "huge":
            address = json.dumps({"code": "0", "server": self._address(_wanted(query))})
            return 200, "application/json; charset=utf-8", address.encode().ljust(values["size"]), {}
        if kind == "unknown_host":
            return self._reply(query, lambda: f"{_SCHEMES.get(_wanted(query), 'ws://')}unknown-host.invalid:80")
        if kind == "dead":
            scheme = _SCHEMES.get(_wanted(query), "ws://")
            return self._reply(query, lambda: scheme + self._dead.address(values["how"]).removeprefix("ws://"))
        if kind == "address":
            return self._reply(query, lambda: values["server"])
        return self.answer(query)

    def _reply(self, query: Query, address: Callable[[], str]) -> Answer:
        asked = {name: query.get(name, [""])[-1] for name in ("market", "type", "token")}
        refusal = self._refusal(**{"kind" if name == "type" else name: value for name, value in asked.items()})
        if refusal:
            return json_answer({"code": self._code(-1), self._settings.allocation_message: refusal})
        return json_answer({"code": self._code(0), "server": address()})

    def _refusal(self, market: str, kind: str, token: str) -> str:
        server = self._server
        if self._settings.allocation_check and (not server.token_is_good(token) or server.faults.bad_token(token)):
            return "token无效"
        if market != "ab" or kind not in _SCHEMES:
            return "参数错误"
        now = time.monotonic()
        before = self._asked.get(token)
        self._asked[token] = now
        self._asked.move_to_end(token)
        if len(self._asked) > _TOKENS_KEPT:
            self._asked.popitem(last=False)
        if before is not None and now - before < self._settings.allocation_interval:
            return "请求过于频繁"
        return ""

    def _code(self, code: int) -> str | int:
        return code if self._settings.allocation_code == "number" else str(code)

    def _address(self, kind: str) -> str:
        address = self.trade if kind == "trade" else self._server.url
        if not self._settings.allocation_scheme:
            address = address.partition("://")[2]
        path = self._settings.allocation_path.strip("/")
        if path:
            address += "/" + path
        return address + ("/" if self._settings.allocation_slash else "")


class Http:
    """A small HTTP server for both: what the simulator is asked at one port, and what the broker is at its own."""

    def __init__(
        self,
        allocation: Allocation,
        server: Server,
        broker: Broker,
        trade: Trade,
        stats: Callable[[], dict[str, Any]],
        go: Callable[[], None],
    ) -> None:
        self._allocation = allocation
        self._server = server
        self._broker = broker
        self._trade = trade
        self._stats = stats
        self._go = go
        self._posts: dict[str, Callable[[Query, bytes], Awaitable[Answer]]] = {
            "/move": self._post_move,
            "/go": self._post_go,
            "/fault": self._post_fault,
            "/fault/clear": self._clear_faults,
        }

    async def listen(self, **where: Any) -> asyncio.Server:
        """Listen for all but the broker, which answers here too if it is asked as through a proxy."""
        return await asyncio.start_server(partial(self._client, self._serve), **where, limit=LARGEST)

    async def listen_for_trade(self, **where: Any) -> asyncio.Server:
        """Listen for the broker alone."""
        return await asyncio.start_server(partial(self._client, self._trade.serve), **where, limit=LARGEST)

    async def _client(
        self,
        serve: Callable[[Request, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        try:
            try:
                request = await read_request(reader)
            except (ValueError, asyncio.LimitOverrunError):
                return
            await serve(request, reader, writer)
        except (OSError, EOFError, TimeoutError):
            pass
        finally:
            writer.close()

    async def _serve(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if request.absolute and self._trade.serves(request.path):
            await self._trade.serve(request, reader, writer)
            return
        hit = self._server.faults.request("allocation") if self._allocates(request.method, request.path) else None
        if hit is None:
            await send(writer, await self._answer(request))
        else:
            await self._fault(hit[0], request.query, reader, writer)

    async def _fault(
        self, fault: Fault, query: Query, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer an allocation request as badly as the fault wants it."""
        if fault.kind.name == "allocation_drop":
            return
        if fault.kind.name == "allocation_hang":
            await hang(reader)
            return
        seconds = 0.0
        if fault.kind.name == "allocation_slow":
            seconds = fault.values["delay"]
            if not fault.values["drip"]:
                await asyncio.sleep(seconds)
                seconds = 0.0
        await send(writer, self._allocation.faulty(fault, query), seconds)

    def _allocates(self, method: str, path: str) -> bool:
        return method == "GET" and self._allocation.serves(path)

    async def _answer(self, request: Request) -> Answer:
        method, path, query, body, _ = request
        if not method:
            return json_answer({"error": "not a request"}, 400)
        if method == "POST" and path in self._posts:
            return await self._posts[path](query, body)
        if method == "DELETE" and path == "/fault":
            return await self._clear_faults(query, body)
        if method != "GET":
            return json_answer({"error": "no such method"}, 405)
        if self._allocation.serves(path):
            return self._allocation.answer(query)
        if path == "/stats":
            return json_answer(self._stats())
        if path == "/stamps":
            return self._stamps(query)
        if path == "/fault":
            return json_answer(self._server.faults.describe())
        if path == "/broker":
            return json_answer(self._broker.describe(query.get("account", [""])[-1]))
        if path == "/sent":
            return self._sent(query)
        return json_answer({"error": "no such page"}, 404)

    async def _post_move(self, query: Query, body: bytes) -> Answer:  # noqa: ARG002
        return json_answer({"ws": await self._server.move()})

    async def _post_go(self, query: Query, body: bytes) -> Answer:  # noqa: ARG002
        self._go()
        return json_answer({"running": True})

    async def _post_fault(self, query: Query, body: bytes) -> Answer:  # noqa: ARG002
        try:
            fault = self._server.faults.set(read_body(body))
        except FaultError as error:
            return json_answer({"error": str(error)}, 400)
        return json_answer(fault.describe())

    async def _clear_faults(self, query: Query, body: bytes) -> Answer:  # noqa: ARG002
        number, kind = query.get("id", ["0"])[-1], query.get("kind", [""])[-1]
        if not (number.isascii() and number.isdigit()):
            return json_answer({"error": f"id is the number of a fault, not {number[:100]!r}"}, 400)
        if kind and kind not in KINDS:
            return json_answer({"error": no_such_kind(kind)}, 400)
        ended = self._server.faults.clear(int(number), kind)
        await self._server.settled()
        return json_answer({"ended": ended})

    def _sent(self, query: Query) -> Answer:
        ledger = self._server.ledger
        if ledger is None:
            return json_answer({"error": "start the simulator with --keep-sent"}, 404)
        number = query.get("connection", [""])[-1]
        if not number:
            return json_answer({"connections": ledger.connections()})
        if not (number.isascii() and number.isdigit()):
            return json_answer({"error": f"connection is a number, not {number[:100]!r}"}, 400)
        return json_answer(list(ledger.entries(int(number))))

    def _stamps(self, query: Query) -> Answer:
        try:
            number, since = (int(query.get(name, ["0"])[-1]) for name in ("connection", "from"))
        except ValueError:
            return json_answer({"error": "connection and from are whole numbers"}, 400)
        found = self._server.stamps(number, max(since, 0))
        if found is None:
            return json_answer({"error": "no such connection"}, 404)
        first, values = found
        return 200, "application/octet-stream", values, {"X-First": str(first)}
