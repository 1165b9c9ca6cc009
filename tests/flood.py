"""A server in a process of its own that writes prebuilt buffers of frames as fast as they are taken.

    with Flood() as flood:
        feed = Feed(TOKEN, server=flood.ws)

As a program it prints its port, serves one connection after the other, and ends with its standard input.
"""

import os
import random
import socket
import subprocess
import sys
import threading
from types import TracebackType
from typing import Self

from ws_script import Peer, binary

FRAMES = 64
BUFFERS = 64


def packet(chance: random.Random, number: int) -> tuple[str, int]:
    """A message as large as real ones of one brisk stock: mostly one or two trades, now and then many."""
    trades = min(65, 1 + int(chance.expovariate(0.6)))
    millisecond = chance.randrange(14_400_000)
    rows = []
    for _ in range(trades):
        hours, rest = divmod(millisecond, 3_600_000)
        minutes, rest = divmod(rest, 60_000)
        seconds, thousandths = divmod(rest, 1000)
        price = 1450 + chance.randrange(500) / 100
        rows.append(
            f"{9 + hours:02}:{minutes:02}:{seconds:02}.{thousandths:03},{number},{price:.2f},{chance.randrange(1, 9)}00"
        )
        number += chance.randrange(1, 9)
    return "lv2_600519=" + "|".join(rows) + "\n", number


def buffers() -> list[bytes]:
    chance, number, built = random.Random(519), 1_000_000, []
    for _ in range(BUFFERS):
        frames = []
        for _ in range(FRAMES):
            text, number = packet(chance, number)
            frames.append(binary(text))
        built.append(b"".join(frames))
    return built


def serve_for_ever() -> None:
    built = buffers()
    # The parent is gone when standard input ends, however it went.
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        sock, _ = listener.accept()
        try:
            Peer(sock).accept()
            while True:
                for data in built:
                    sock.sendall(data)
        except OSError:
            sock.close()


class Flood:
    """The process."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.ws = f"ws://127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait(10)


if __name__ == "__main__":
    serve_for_ever()
