"""A feed that records until it is killed: by its parent, or by itself at an exact place of its work on the file.

``python mortal.py JSON`` with ``ws``, ``capture``, ``witness``, ``board``, ``kind`` and ``at``. What the recorder hands
to write() goes to ``witness`` first, at the same offsets. ``board`` is shared memory, three u8: 1 once the feed begins
and 2 once it has died at its place, the offset up to which write() has returned, and the messages of the feed.
"""

import io
import json
import mmap
import os
import signal
import struct
import sys
from typing import Any

import jvq_fast as jvq
from jvq_fast import recorder
from ws_script import TOKEN

BOARD = struct.Struct("<QQQ")
# Where it kills itself: at a byte of the capture (counted from where this life begins), before or after a write by its
# number, when it syncs at its end, and while it sets a damaged tail aside.
PLACES = ("byte", "before write", "after write", "before sync", "after sync", "copy", "before cut", "after cut")


class Life:
    """Shows what was flushed, and ends the process at its place."""

    def __init__(self, board: str, witness: str, kind: str, at: int) -> None:
        with open(board, "r+b") as file:  # noqa: PTH123
            self.board = mmap.mmap(file.fileno(), BOARD.size)
        self.witness = os.open(witness, os.O_WRONLY | os.O_CREAT, 0o600)
        self.kind, self.at = kind, at
        self.writes = 0
        self.begin = -1

    def show(self, index: int, value: int) -> None:
        struct.pack_into("<Q", self.board, 8 * index, value)

    def die(self) -> None:
        self.show(0, 2)
        os.kill(os.getpid(), signal.SIGKILL)
        while True:
            signal.pause()


class Capture(io.FileIO):
    life: Life

    def write(self, data: Any) -> int:
        life, at = self.life, self.tell()
        if life.begin < 0:
            life.begin = at
        life.writes += 1
        os.pwrite(life.witness, data, at)
        place = life.begin + life.at
        if life.kind == "byte" and place < at + len(data):
            super().write(bytes(data)[: max(0, place - at)])
            life.die()
        if life.kind == "before write" and life.writes > life.at:
            life.die()
        written = super().write(data)
        if life.kind == "after write" and life.writes > life.at:
            life.die()
        life.show(1, at + written)
        return written

    def truncate(self, size: int | None = None) -> int:
        if self.life.kind == "before cut":
            self.life.die()
        result = super().truncate(size)
        if self.life.kind == "after cut":
            self.life.die()
        return result


class Copy(io.FileIO):
    life: Life

    def write(self, data: Any) -> int:
        if self.life.kind == "copy":
            super().write(bytes(data)[: len(data) // 2])
            self.life.die()
        return super().write(data)


class System:
    """`os`, as the recorder sees it."""

    def __init__(self, life: Life) -> None:
        self._life = life

    def fdopen(self, descriptor: int, mode: str, buffering: int) -> io.FileIO:
        assert buffering == 0
        file = (Capture if mode == "r+b" else Copy)(descriptor, mode)
        file.life = self._life
        return file

    def fsync(self, descriptor: int) -> None:
        if self._life.kind == "before sync":
            self._life.die()
        os.fsync(descriptor)
        if self._life.kind == "after sync":
            self._life.die()

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def main(ws: str, capture: str, witness: str, board: str, kind: str, at: int) -> None:
    life = Life(board, witness, kind, at)
    recorder.os = System(life)  # type: ignore[attr-defined]
    feed = jvq.Feed(TOKEN, "lv2_600519", server=ws, capture=capture, trading_day="2026-11-23", capacity=1024)

    @feed.on_batch
    def on_batch(n: int) -> None:
        life.show(2, feed.decoder.messages)
        if kind.endswith("sync") and feed.decoder.messages > at:
            feed.stop()

    life.show(0, 1)
    feed.run()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
