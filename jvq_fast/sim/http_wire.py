"""HTTP/1.1 as far as the simulator speaks it: one request a connection, targets in origin and in absolute form."""

import asyncio
import json
import socket
import struct
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

__all__ = ["LARGEST", "Answer", "Query", "Request", "hang", "json_answer", "read_request", "reset", "send"]

LARGEST = 1 << 16
_PATIENCE = 10.0
_HANGS = 600.0

Query = dict[str, list[str]]
Answer = tuple[int, str, bytes, dict[str, str]]


class Request(NamedTuple):
    """What a client asks for; ``method`` is empty where it is no request. ``absolute``: as a proxy is asked."""

    method: str
    path: str
    query: Query
    body: bytes
    absolute: bool


def json_answer(value: Any, status: int = 200) -> Answer:
    """An answer in JSON."""
    return status, "application/json; charset=utf-8", json.dumps(value, ensure_ascii=False).encode(), {}


async def read_request(reader: asyncio.StreamReader) -> Request:
    """A connection's request. OSError, EOFError, ValueError, TimeoutError or LimitOverrunError where none comes."""
    async with asyncio.timeout(_PATIENCE):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = head.split("\r\n")
        named = (line.partition(":") for line in lines[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in named}
        size = headers.get("content-length", "0")
        body = await reader.readexactly(int(size)) if size.isdigit() and 0 < int(size) <= LARGEST else b""
    parts = lines[0].split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        return Request("", "", {}, body, False)
    method, target, _ = parts
    if target.startswith("/"):  # // too, after an address that ends with a slash
        path, _, query = target.partition("?")
        return Request(method, path, parse_qs(query), body, False)
    url = urlsplit(target)
    return Request(method, url.path, parse_qs(url.query), body, bool(url.netloc))


async def send(writer: asyncio.StreamWriter, answer: Answer, seconds: float = 0.0) -> None:
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


async def hang(reader: asyncio.StreamReader) -> None:
    """Say nothing until the client goes."""
    async with asyncio.timeout(_HANGS):
        while await reader.read(LARGEST):
            pass


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST."""
    connected: socket.socket = writer.get_extra_info("socket")
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
