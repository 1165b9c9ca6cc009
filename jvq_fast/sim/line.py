"""Writes to a connection's socket in pieces, each a TCP write of its own, with pauses between them."""

import asyncio
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence

if sys.platform == "linux":
    from fcntl import ioctl
    from termios import TIOCOUTQ

__all__ = ["BINARY", "CLOSE", "CONTINUATION", "PING", "TEXT", "Line", "frame", "unsent"]

CONTINUATION, TEXT, BINARY, CLOSE, PING = 0, 1, 2, 8, 9


def frame(kind: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, size: int | None = None) -> bytes:
    """One frame as a server sends it, unmasked. ``size``: the length it claims instead of its own."""
    head = bytes([fin << 7 | rsv << 4 | kind])
    size = len(payload) if size is None else size
    if size < 126:
        return head + bytes([size]) + payload
    if size < 1 << 16:
        return head + b"\x7e" + size.to_bytes(2, "big") + payload
    return head + b"\x7f" + size.to_bytes(8, "big") + payload


def unsent(connected: socket.socket) -> int:
    """Bytes that the system holds because the other side has not acknowledged them; 0 where it does not tell."""
    if sys.platform == "linux":
        return int.from_bytes(ioctl(connected.fileno(), TIOCOUTQ, bytes(4)), sys.byteorder)
    else:  # noqa: RET505 (or mypy finds the rest unreachable)
        return 0


class Line:
    """What has begun to be written in pieces is written to its end before anything else is."""

    def __init__(self, transport: asyncio.WriteTransport) -> None:
        self._transport = transport
        self._queue: deque[tuple[bytes, float, Callable[[bool], None] | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.waiting = 0

    @property
    def busy(self) -> bool:
        """Whether something is still to be written."""
        return self._timer is not None

    def write(self, pieces: Sequence[bytes], pause: float = 0.0, done: Callable[[bool], None] | None = None) -> None:
        """Write pieces, ``pause`` seconds apart; then ``done(True)``, or ``done(False)`` if it comes to nothing."""
        for number, piece in enumerate(pieces, 1):
            last = number == len(pieces)
            self._queue.append((piece, 0.0 if last else pause, done if last else None))
            self.waiting += len(piece)
        if not self.busy:
            self._turn()

    def _turn(self) -> None:
        self._timer = None
        while self._queue:
            pause = self._one()
            if pause:
                self._timer = asyncio.get_running_loop().call_later(pause, self._turn)
                return

    def _one(self) -> float:
        piece, pause, done = self._queue.popleft()
        self.waiting -= len(piece)
        lost = self._transport.is_closing()
        if not lost:
            self._transport.write(piece)
        if done:
            done(not lost)
        return pause

    def hurry(self) -> None:
        """Write all there is at once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue:
            self._one()

    def abandon(self) -> None:
        """Write no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        queue, self._queue = self._queue, deque()
        self.waiting = 0
        for _, _, done in queue:
            if done:
                done(False)
