"""Runs ``jvq-fast`` in a process of its own, for tests: reads what it prints as it comes, and always ends it."""

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

# LINES and COLUMNS would be taken for the size of a terminal that a test made; xdist sets them.
_OTHERS = ("JVQ_FAST_TOKEN", "LINES", "COLUMNS")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(_OTHERS)}


class Command:
    """``with Command("watch", "lv2_600519", JVQ_FAST_TOKEN="…") as command:``; leaving it kills what is left."""

    def __init__(
        self,
        *arguments: str,
        module: bool = True,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        **environment: str,
    ) -> None:
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, *(("-m", "jvq_fast") if module else ()), *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=self._stderr,
            text=True,
            env={**ENVIRONMENT, **environment},
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        if self.process.stdin is not None:
            self.process.stdin.close()
        while self._queue.get(timeout=10) is not None:
            pass
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._stderr.close()

    def wait_line(self, condition: Callable[[str], bool], timeout: float = 40.0) -> str:
        """The next line that satisfies a condition; AssertionError where it does not come."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no such line: {self.lines[-20:]} {self.errors()}") from None
            if line is None:
                self._queue.put(None)
                raise AssertionError(f"it ended without such a line: {self.lines[-20:]} {self.errors()}")
            self.lines.append(line)
            if condition(line):
                return line

    def interrupt(self, number: int = signal.SIGINT) -> None:
        """Ctrl-C, or another signal."""
        self.process.send_signal(number)

    def end(self, timeout: float = 40.0) -> int:
        """Wait for the end; the exit status. `lines` is then all it printed."""
        status = self.process.wait(timeout)
        while (line := self._queue.get(timeout=10)) is not None:
            self.lines.append(line)
        self._queue.put(None)
        return status

    def errors(self) -> str:
        """What it wrote to stderr so far."""
        self._stderr.seek(0)
        return self._stderr.read()


def running(mark: str) -> list[int]:
    """The processes that have a word in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if mark.encode() in words:
            found.append(int(path.parent.name))
    return found


def wait_gone(mark: str, timeout: float = 20.0) -> None:
    """AssertionError where a process with this word in its command line is still there after so many seconds."""
    deadline = time.monotonic() + timeout
    while left := running(mark):
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.05)
