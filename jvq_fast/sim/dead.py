"""Addresses of servers that take no connection, for as long as the process lives."""

import contextlib
import socket

__all__ = ["DeadServers"]

_ROOM = 8  # more than enough to fill a backlog of none


class DeadServers:
    """One that refuses, and one that is silent: the port is bound but nobody listens, or the backlog is full."""

    def __init__(self) -> None:
        self._addresses: dict[str, str] = {}
        self._sockets: list[socket.socket] = []

    def address(self, how: str) -> str:
        """``refused`` or ``silent``."""
        if how not in self._addresses:
            server = socket.socket()
            self._sockets.append(server)
            server.bind(("127.0.0.1", 0))
            name = server.getsockname()
            if how == "silent":
                server.listen(0)
                for _ in range(_ROOM):
                    client = socket.socket()
                    self._sockets.append(client)
                    client.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        client.connect(name)
            self._addresses[how] = f"ws://127.0.0.1:{name[1]}"
        return self._addresses[how]
