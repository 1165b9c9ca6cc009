"""The HTTP side: server allocation as the vendor does it, and what tests and tools ask the simulator."""

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jvq_fast.sim.server import Server
from jvq_fast.sim.settings import Settings

_PATIENCE = 10.0
_LARGEST = 1 << 16
_TOKENS_KEPT = 1024

Answer = tuple[int, str, bytes, dict[str, str]]


def _json(value: Any, status: int = 200) -> Answer:
    return status, "application/json; charset=utf-8", json.dumps(value, ensure_ascii=False).encode(), {}


class Allocation:
    """``/query/server``: tells where the market data is, in any of the forms that documents show."""

    def __init__(self, settings: Settings, server: Server) -> None:
        self._settings = settings
        self._server = server
        self._asked: OrderedDict[str, float] = OrderedDict()

    def serves(self, path: str) -> bool:
        """Whether allocation answers at a path."""
        routes = {"query": ("/query/server",), "server": ("/server",)}
        return path in routes.get(self._settings.allocation_route, ("/query/server", "/server"))

    def answer(self, query: dict[str, list[str]]) -> Answer:
        """The reply to a request, always HTTP 200 as the vendor's."""
        asked = {name: query.get(name, [""])[-1] for name in ("market", "type", "token")}
        refusal = self._refusal(**{"kind" if name == "type" else name: value for name, value in asked.items()})
        if refusal:
            return _json({"code": self._code(-1), self._settings.allocation_message: refusal})
        return _json({"code": self._code(0), "server": self._address()})

    def _refusal(self, market: str, kind: str, token: str) -> str:
        if self._settings.allocation_check and not self._server.token_is_good(token):
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
        self._posts: dict[str, Callable[[], Awaitable[Answer]]] = {"/move": self._post_move, "/go": self._post_go}

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
                if size.isdigit() and 0 < int(size) <= _LARGEST:
                    await reader.readexactly(int(size))
                status, kind, body, extra = await self._answer(lines[0])
                reply = [
                    f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
                    f"Content-Type: {kind}",
                    f"Content-Length: {len(body)}",
                    "Connection: close",
                    *(f"{name}: {value}" for name, value in extra.items()),
                ]
                writer.write("\r\n".join(reply).encode() + b"\r\n\r\n" + body)
                await writer.drain()
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError, TimeoutError):
            pass
        finally:
            writer.close()

    async def _answer(self, request_line: str) -> Answer:
        parts = request_line.split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            return _json({"error": "not a request"}, 400)
        method, target, _ = parts
        url = urlsplit(target)
        query = parse_qs(url.query)
        if method == "POST" and url.path in self._posts:
            return await self._posts[url.path]()
        if method != "GET":
            return _json({"error": "no such method"}, 405)
        if self._allocation.serves(url.path):
            return self._allocation.answer(query)
        if url.path == "/stats":
            return _json(self._stats())
        if url.path == "/stamps":
            return self._stamps(query)
        return _json({"error": "no such page"}, 404)

    async def _post_move(self) -> Answer:
        return _json({"ws": await self._server.move()})

    async def _post_go(self) -> Answer:
        self._go()
        return _json({"running": True})

    def _stamps(self, query: dict[str, list[str]]) -> Answer:
        try:
            number, since = (int(query.get(name, ["0"])[-1]) for name in ("connection", "from"))
        except ValueError:
            return _json({"error": "connection and from are whole numbers"}, 400)
        found = self._server.stamps(number, max(since, 0))
        if found is None:
            return _json({"error": "no such connection"}, 404)
        first, values = found
        return 200, "application/octet-stream", values, {"X-First": str(first)}
