"""Writes a capture file, in a thread of its own; the data path only appends to a `Tap`."""

import os
import stat
import threading
import time
import warnings
from collections import deque
from typing import BinaryIO

from jvq_fast.capture import ENTRY, HEADER, MAGIC, MESSAGE, Reader, header
from jvq_fast.errors import CaptureError, CaptureWarning
from jvq_fast.listener import Tap

try:
    import fcntl
except ImportError:  # Windows: two feeds on one file are not noticed there
    fcntl = None  # type: ignore[assignment]

INTERVAL = 0.05
_COPY = 1 << 20


class Recorder:
    """Takes from `tap` and appends to the file at `path`, which it makes (mode 0600) or continues.

    The constructor blocks: it reads an existing file through, moves a damaged tail to `PATH.damaged-OFFSET` with a
    CaptureWarning, and raises CaptureError where the file can't be continued. When the disk stalls or fails, entries
    wait in memory up to the tap's limit; what is lost beyond that is counted there. `news()` reports both.
    """

    def __init__(self, path: str | os.PathLike[str], market: str, tap: Tap) -> None:
        self.path = os.fspath(path)
        self._market = market
        self._tap = tap
        self._chunk: memoryview | None = None
        self._chunk_written = 0
        self._failing = False
        self._news: deque[CaptureError] = deque()
        self._lost_seen = 0
        self._losing = False
        self._closing = threading.Event()
        self._deadline = 0.0
        self.unwritten = 0
        self._file = self._open()
        self._thread = threading.Thread(target=self._run, name="jvq_fast capture", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def close(self, timeout: float) -> None:
        """Write what is left, sync it to disk and close the file. Blocks for about `timeout` seconds at most."""
        self._deadline = time.monotonic() + timeout
        self._closing.set()
        if self._thread.ident is None:
            self._finish()
            return
        self._thread.join(timeout + 2 * INTERVAL)
        if self._thread.is_alive():
            self._news.append(CaptureError(f"{self.path} is still being written, its end may be missing"))

    def news(self) -> list[CaptureError]:
        """What went wrong since the last call: once per failure of the disk, at begin and end of each loss."""
        lost = self._tap.lost_messages
        found: list[CaptureError] = []
        while self._news:
            found.append(self._news.popleft())
        if lost != self._lost_seen:
            if not self._losing:
                found.append(CaptureError(f"{self.path} can't keep up: messages are not being recorded"))
            self._losing = True
        elif self._losing:
            self._losing = False
            found.append(
                CaptureError(f"{self.path}: {lost} messages ({self._tap.lost_bytes} bytes) have not been recorded")
            )
        self._lost_seen = lost
        return found

    def _open(self) -> BinaryIO:
        try:
            # Unbuffered: what was written is with the system, and a failed write is known at once.
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
            file = os.fdopen(descriptor, "r+b", buffering=0)
        except OSError as error:
            raise CaptureError(f"can't open {self.path}: {error.strerror}") from None
        try:
            self._continue(file)
        except OSError as error:
            file.close()
            raise CaptureError(f"can't write {self.path}: {error.strerror}") from None
        except BaseException:
            file.close()
            raise
        return file

    def _continue(self, file: BinaryIO) -> None:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise CaptureError(f"{self.path} is not a regular file")
        if fcntl is not None:
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise CaptureError(f"{self.path} is being written by another feed") from None
        end = self._scan(info.st_size)
        if end < info.st_size:
            self._set_aside(file, end)
        file.seek(end)
        if end == 0:
            file.write(header(self._market, time.time_ns()))

    def _scan(self, size: int) -> int:
        """The offset up to which the file is whole."""
        if size == 0:
            return 0
        with open(self.path, "rb", buffering=_COPY) as file:  # noqa: PTH123
            if size < HEADER.size and (start := file.read(size))[: len(MAGIC)] == MAGIC[: len(start)]:
                return 0  # its writer was stopped within the header
            file.seek(0)
            reader = Reader(file, self.path)
            if reader.market != self._market:
                raise CaptureError(f"{self.path} is a capture of market {reader.market!r}, not {self._market!r}")
            for _ in reader:
                pass
            return reader.end

    def _set_aside(self, file: BinaryIO, offset: int) -> None:
        copy, name = self._new_file(f"{self.path}.damaged-{offset}")
        with copy:
            file.seek(offset)
            while block := file.read(_COPY):
                copy.write(block)
            os.fsync(copy.fileno())
        file.truncate(offset)
        warnings.warn(
            f"{self.path} was damaged at byte {offset}; what stood there is now in {name}", CaptureWarning, stacklevel=2
        )

    def _new_file(self, name: str) -> tuple[BinaryIO, str]:
        for number in range(1000):
            free = f"{name}.{number}" if number else name
            try:
                descriptor = os.open(free, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
            except FileExistsError:
                continue
            return os.fdopen(descriptor, "wb", buffering=0), free
        raise CaptureError(f"there are too many files {name}*")

    def _run(self) -> None:
        while not self._closing.wait(INTERVAL):
            self._drain()
        while not self._drain() and time.monotonic() < self._deadline:
            time.sleep(INTERVAL)
        self._finish()

    def _drain(self) -> bool:
        """Write what the tap holds; False when the disk does not take it."""
        while self._chunk is not None or self._take():
            chunk = self._chunk
            assert chunk is not None
            try:
                self._chunk_written += self._file.write(chunk[self._chunk_written :]) or 0
            except OSError as error:
                if not self._failing:
                    self._failing = True
                    self._news.append(CaptureError(f"can't write {self.path}: {error.strerror}"))
                return False
            self._failing = False
            if self._chunk_written == len(chunk):
                self._chunk = None
        return True

    def _take(self) -> bool:
        taken = self._tap.take()
        self._chunk = None if taken is None else memoryview(taken)
        self._chunk_written = 0
        return self._chunk is not None

    def _finish(self) -> None:
        try:
            if self._chunk is not None or self._thread.ident is None:
                self._abandon()
            os.fsync(self._file.fileno())
        except OSError as error:
            self._news.append(CaptureError(f"can't finish {self.path}: {error.strerror}"))
        finally:
            self._file.close()

    def _abandon(self) -> None:
        """Give up what the disk did not take: count it, and leave no half entry behind."""
        torn = 0
        while self._chunk is not None or self._take():
            chunk = self._chunk
            assert chunk is not None
            at = 0
            while at < len(chunk):
                _, length, _, kind, _, _ = ENTRY.unpack_from(chunk, at)
                end = at + ENTRY.size + length
                if end > self._chunk_written:
                    self.unwritten += kind == MESSAGE
                    torn += max(0, self._chunk_written - at)
                at = end
            self._chunk = None
        if torn:
            self._file.truncate(self._file.tell() - torn)
        if self.unwritten:
            self._news.append(CaptureError(f"{self.path}: the last {self.unwritten} messages could not be written"))
