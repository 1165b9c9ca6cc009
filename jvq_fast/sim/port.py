"""A port to listen on that can be shut for a while: nobody can connect then, and it stays ours."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["Port"]


class Port:
    """``listen(**where)`` begins to listen, at ``host`` and ``port`` or on a socket ``sock`` that is bound already."""

    def __init__(self, listen: Callable[..., Awaitable[asyncio.Server]]) -> None:
        self.number = 0
        self._listen = listen
        self._listening: asyncio.Server | None = None
        self._parked: socket.socket | None = None  # holds the port while nobody listens there
        self._shut: set[object] = set()
        self._reopening: asyncio.Task[None] | None = None

    async def open(self, host: str, port: int) -> None:
        """Listen, on any port for 0; where it listened before it does no more."""
        old = self._listening
        await self._open({"host": host, "port": port})
        if old is not None:
            old.close()
        if self._parked is not None:
            self._parked.close()
            self._parked = None

    async def _open(self, where: dict[str, Any]) -> None:
        self._listening = await self._listen(**where)
        self.number = self._listening.sockets[0].getsockname()[1]

    def shut(self, why: object) -> None:
        """Refuse connections until ``reopen``."""
        self._shut.add(why)
        if self._listening is not None:
            family = self._listening.sockets[0].family
            address = self._listening.sockets[0].getsockname()
            self._listening.close()
            self._listening = None
            self._parked = socket.socket(family, socket.SOCK_STREAM)
            self._parked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._parked.bind(address)

    def reopen(self, why: object) -> None:
        """The end of a ``shut``; with the last of them it listens again."""
        self._shut.discard(why)
        if not self._shut and self._parked is not None:
            parked, self._parked = self._parked, None
            self._reopening = asyncio.get_running_loop().create_task(self._open({"sock": parked}))

    async def settled(self) -> None:
        """Wait until it listens again, if it is about to."""
        if self._reopening is not None:
            await self._reopening

    def close(self) -> None:
        """Listen no more."""
        if self._listening is not None:
            self._listening.close()
        if self._parked is not None:
            self._parked.close()
