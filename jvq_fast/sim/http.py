"""The HTTP side: server allocation as the vendor does it, and what tests and tools ask the simulator."""

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jvq_fast.sim.dead import DeadServers
from jvq_fast.sim.fault_kinds import KINDS, FaultError, no_such_kind, read_body
from jvq_fast.sim.faults import Fault
from jvq_fast.sim.server import Server
from jvq_fast.sim.settings import Settings

_PATIENCE = 10.0
_LARGEST = 1 << 16
_TOKENS_KEPT = 1024
_HANGS = 600.0

Query = dict[str, list[str]]
Answer = tuple[int, str, bytes, dict[str, str]]


def _json(value: Any, status: int = 200) -> Answer:
    return status, "application/json; charset=utf-8", json.dumps(value, ensure_ascii=False).encode(), {}


def _request(line: str) -> tuple[str, str]:
    """Method and target of a request line; empty ones where it is none."""
    parts = line.split(" ")
    return (parts[0], parts[1]) if len(parts) == 3 and parts[2].startswith("HTTP/1.") else ("", "")


class Allocation:
    """``/query/server``: tells where the market data is, in any of the forms that documents show."""

    def __init__(self, settings: Settings, server: Server) -> None:
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
        return self._reply(query, self._address)

    def faulty(self, fault: Fault, query: Query) -> Answer:
        """The reply to a request that is hit by a fault."""
        values = fault.values
        kind = fault.kind.name.removeprefix("allocation_")
        if kind == "refuse":
            number = values["code"].removeprefix("-").isdecimal() and self._settings.allocation_code == "number"
            code = int(values["code"]) if number else values["code"]
            return _json({"code": code, self._settings.allocation_message: values["message"]})
        if kind == "status":
            return values["status"], "text/html", b"<html>fault</html>", {}
        if kind == "body":
            return 200, "application/json; charset=utf-8", values["body"].encode(), {}
        if kind == "huge":
            address = json.dumps({"code": "0", "server": self._address()})
            return 200, "application/json; charset=utf-8", address.encode().ljust(values["size"]), {}
        if kind == "unknown_host":
            return self._reply(query, lambda: "ws://unknown-host.invalid:80")
        if kind == "dead":
            return self._reply(query, lambda: self._dead.address(values["how"]))
        if kind == "address":
            return self._reply(query, lambda: values["server"])
        return self.answer(query)

    def _reply(self, query: Query, address: Callable[[], str]) -> Answer:
        asked = {name: query.get(name, [""])[-1] for name in ("market", "type", "token")}
        refusal = self._refusal(**{"kind" if name == "type" else name: value for name, value in asked.items()})
        if refusal:
            return _json({"code": self._code(-1), self._settings.allocation_message: refusal})
        return _json({"code": self._code(0), "server": address()})

    def _refusal(self, market: str, kind: str, token: str) -> str:
        server = self._server
        if self._settings.allocation_check and (not server.token_is_good(token) or server.faults.bad_token(token)):
            return "token无效"
        if market != "ab" or kind != "websocket":
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

    def _address(self) -> str:
        address = self._server.url
        if not self._settings.allocation_scheme:
            address = address.removeprefix("ws://")
        path = self._settings.allocation_path.strip("/")
        if path:
            address += "/" + path
        return address + ("/" if self._settings.allocation_slash else "")


class Http:
    """A small HTTP/1.1 server, one request a connection, request lines in origin and in absolute form."""

    def __init__(
        self,
        allocation: Allocation,
        server: Server,
        stats: Callable[[], dict[str, Any]],
        go: Callable[[], None],
    ) -> None:
        self._allocation = allocation
        self._server = server
        self._stats = stats
        self._go = go
        self._posts: dict[str, Callable[[Query, bytes], Awaitable[Answer]]] = {
            "/move": self._post_move,
            "/go": self._post_go,
            "/fault": self._post_fault,
            "/fault/clear": self._clear_faults,
        }

    async def open(self, host: str, port: int) -> asyncio.Server:
        """Listen."""
        return await asyncio.start_server(self._client, host, port, limit=_LARGEST)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                lines = head.split("\r\n")
                named = (line.partition(":") for line in lines[1:])
                headers = {name.strip().lower(): value.strip() for name, _, value in named}
                size = headers.get("content-length", "0")
                sent = await reader.readexactly(int(size)) if size.isdigit() and 0 < int(size) <= _LARGEST else b""
            method, target = _request(lines[0])
            url = urlsplit(target)
            query = parse_qs(url.query)
            hit = self._server.faults.request("allocation") if self._allocates(method, url.path) else None
            if hit is None:
                answer = await self._answer(method, url.path, query, sent)
                await self._send(writer, answer)
            else:
                await self._fault(hit[0], query, reader, writer)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError, TimeoutError):
            pass
        finally:
            writer.close()

    async def _send(self, writer: asyncio.StreamWriter, answer: Answer, seconds: float = 0.0) -> None:
        """Write an answer, spread over so many seconds."""
        status, kind, body, extra = answer
        reply = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in extra.items()),
        ]
        data = "\r\n".join(reply).encode() + b"\r\n\r\n" + body
        size = 1 if seconds else len(data)
        for at in range(0, len(data), size):
            async with asyncio.timeout(_PATIENCE):
                writer.write(data[at : at + size])
                await writer.drain()
            if seconds:
                await asyncio.sleep(seconds / len(data))

    async def _fault(
        self, fault: Fault, query: Query, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer an allocation request as badly as the fault wants it."""
        if fault.kind.name == "allocation_drop":
            return
        if fault.kind.name == "allocation_hang":
            async with asyncio.timeout(_HANGS):
                while await reader.read(_LARGEST):
                    pass
            return
        seconds = 0.0
        if fault.kind.name == "allocation_slow":
            seconds = fault.values["delay"]
            if not fault.values["drip"]:
                await asyncio.sleep(seconds)
                seconds = 0.0
        await self._send(writer, self._allocation.faulty(fault, query), seconds)

    def _allocates(self, method: str, path: str) -> bool:
        return method == "GET" and self._allocation.serves(path)

    async def _answer(self, method: str, path: str, query: Query, body: bytes) -> Answer:
        if not method:
            return _json({"error": "not a request"}, 400)
        if method == "POST" and path in self._posts:
            return await self._posts[path](query, body)
        if method == "DELETE" and path == "/fault":
            return await self._clear_faults(query, body)
        if method != "GET":
            return _json({"error": "no such method"}, 405)
        if self._allocation.serves(path):
            return self._allocation.answer(query)
        if path == "/stats":
            return _json(self._stats())
        if path == "/stamps":
            return self._stamps(query)
        if path == "/fault":
            return _json(self._server.faults.describe())
        if path == "/sent":
            return self._sent(query)
        return _json({"error": "no such page"}, 404)

    async def _post_move(self, query: Query, body: bytes) -> Answer:  # noqa: ARG002
        return _json({"ws": await self._server.move()})

    async def _post_go(self, query: Query, body: bytes) -> Answer:  # noqa: ARG002
        self._go()
        return _json({"running": True})

    async def _post_fault(self, query: Query, body: bytes) -> Answer:  # noqa: ARG002
        try:
            fault = self._server.faults.set(read_body(body))
        except FaultError as error:
            return _json({"error": str(error)}, 400)
        return _json(fault.describe())

    async def _clear_faults(self, query: Query, body: bytes) -> Answer:  # noqa: ARG002
        number, kind = query.get("id", ["0"])[-1], query.get("kind", [""])[-1]
        if not (number.isascii() and number.isdigit()):
            return _json({"error": f"id is the number of a fault, not {number[:100]!r}"}, 400)
        if kind and kind not in KINDS:
            return _json({"error": no_such_kind(kind)}, 400)
        ended = self._server.faults.clear(int(number), kind)
        await self._server.settled()
        return _json({"ended": ended})

    def _sent(self, query: Query) -> Answer:
        ledger = self._server.ledger
        if ledger is None:
            return _json({"error": "start the simulator with --keep-sent"}, 404)
        number = query.get("connection", [""])[-1]
        if not number:
            return _json({"connections": ledger.connections()})
        if not (number.isascii() and number.isdigit()):
            return _json({"error": f"connection is a number, not {number[:100]!r}"}, 400)
        return _json(list(ledger.entries(int(number))))

    def _stamps(self, query: Query) -> Answer:
        try:
            number, since = (int(query.get(name, ["0"])[-1]) for name in ("connection", "from"))
        except ValueError:
            return _json({"error": "connection and from are whole numbers"}, 400)
        found = self._server.stamps(number, max(since, 0))
        if found is None:
            return _json({"error": "no such connection"}, 404)
        first, values = found
        return 200, "application/octet-stream", values, {"X-First": str(first)}
