"""Writes a capture file, in a thread of its own; the data path only appends to a `Tap`."""

import os
import stat
import threading
import time
import warnings
from collections import deque
from contextlib import closing
from typing import BinaryIO

from jvq_fast.capture import ENTRY, HEADER, LOSS, LOST, MAGIC, MESSAGE, Reader, entry, header
from jvq_fast.errors import CaptureError, CaptureWarning
from jvq_fast.forks import file_id, keep_from_children, let_go
from jvq_fast.listener import Tap
from jvq_fast.plural import plural

try:
    import fcntl
except ImportError:  # Windows: two feeds on one file are not noticed there
    fcntl = None  # type: ignore[assignment]

INTERVAL = 0.05
# Failures and losses this close together, in seconds, are one, and announced once.
QUIET = 1.0
_COPY = 1 << 20


class Recorder:
    """Takes from `tap` and appends to the file at `path`, which it makes (mode 0600) or continues.

    The constructor blocks: it reads an existing file through, moves a damaged tail to `PATH.damaged-OFFSET` with a
    CaptureWarning, and raises CaptureError where the file can't be continued. When the disk stalls or fails, entries
    wait in memory up to the tap's limit; what is lost beyond that is counted there. `news()` reports both.

    An entry is flushed when write() has returned for it, INTERVAL seconds after it came, or later by as long as the
    disk or whatever holds the GIL takes. It then outlives this process, whatever kills it, but not the machine: it is
    `close()` that syncs, before it the system writes to the disk at its own pace (Linux: within about 30 s).
    """

    def __init__(self, path: str | os.PathLike[str], market: str, tap: Tap) -> None:
        self.path = os.fspath(path)
        self._market = market
        self._tap = tap
        self._chunk: memoryview | None = None
        self._chunk_written = 0
        self._failing = False
        self._failed_at = 0.0
        self._news: deque[CaptureError] = deque()
        self._lost = self._lost_before = (0, 0)  # messages and bytes: as seen last, and before this stretch of loss
        self._losing = False
        self._lost_at = 0.0
        self._lost_when_written = 0
        self._place = os.path.abspath(self.path)  # noqa: PTH100 (the process may change its directory)
        self._astray = ""
        self._look_at = 0.0
        self._closing = threading.Event()
        self._deadline = 0.0
        self.unwritten = self.unwritten_bytes = 0
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

    @property
    def failing(self) -> bool:
        """Whether the disk does not take what waits for it. From any thread."""
        return self._failing

    def news(self) -> list[CaptureError]:
        """What went wrong since the last call: each failure of the disk and each stretch of loss when it begins and
        when it has ended, and the file if it is no longer where it was. Always from the same thread."""
        found: list[CaptureError] = []
        while self._news:
            found.append(self._news.popleft())
        before, self._lost = self._lost, (self._tap.lost_messages, self._tap.lost_bytes)
        if self._lost != before:
            self._lost_at = time.monotonic()
            if not self._losing:
                self._losing = True
                self._lost_before = before
                why = "can't be written" if self._failing else "can't keep up"
                found.append(CaptureError(f"{self.path} {why}: messages are not being recorded"))
        elif self._losing and self._loss_is_over():
            self._losing = False
            messages, size = (now - then for now, then in zip(self._lost, self._lost_before, strict=True))
            found.append(
                CaptureError(f"{self.path}: not recorded: {plural(messages, 'message')} ({plural(size, 'byte')})")
            )
        return found

    def _loss_is_over(self) -> bool:
        if self._closing.is_set():
            return True
        return self._lost_when_written == self._lost[0] and time.monotonic() - self._lost_at >= QUIET

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
        keep_from_children(file.fileno())
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
            _write(file, header(self._market, time.time_ns()))

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
        try:
            with copy:
                file.seek(offset)
                while block := file.read(_COPY):
                    _write(copy, block)
                os.fsync(copy.fileno())
        except OSError:
            os.unlink(name)  # noqa: PTH108
            raise
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
            self._look()
            self._drain()
        while not self._drain() and time.monotonic() < self._deadline:
            time.sleep(INTERVAL)
        self._finish()

    def _look(self) -> None:
        """Announce it when the file is no longer the one at its path, or was cut."""
        now = time.monotonic()
        try:
            mine = os.fstat(self._file.fileno())
            astray = "was cut by another: what follows can't be read" if mine.st_size < self._file.tell() else ""
            if not astray and now < self._look_at:
                return
            self._look_at = now + QUIET
            if not astray and not self._is_at_place(mine):
                astray = (
                    "was moved: recording goes on in the file wherever it is now"
                    if mine.st_nlink
                    else "was removed: what is recorded will be gone when the feed ends"
                )
        except OSError:
            return  # no answer is no news
        if astray and astray != self._astray:
            self._news.append(CaptureError(f"{self.path} {astray}"))
        self._astray = astray

    def _is_at_place(self, mine: os.stat_result) -> bool:
        try:
            return os.path.samestat(os.stat(self._place), mine)  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _drain(self) -> bool:
        """Write what the tap holds; False when the disk does not take it."""
        try:
            while True:
                lost = self._tap.lost_messages
                if self._chunk is None and not self._take():
                    break
                chunk = self._chunk
                assert chunk is not None
                self._chunk_written += self._file.write(chunk[self._chunk_written :]) or 0
                if self._chunk_written == len(chunk):
                    self._chunk = None
        except (OSError, MemoryError) as error:
            if not self._failing:
                self._news.append(CaptureError(f"can't write {self.path}: {_why(error)}"))
            self._failing = True
            self._failed_at = time.monotonic()
            return False
        self._lost_when_written = lost
        if self._failing and time.monotonic() - self._failed_at >= QUIET:
            self._failing = False
            self._news.append(CaptureError(f"{self.path} is being written again"))
        return True

    def _take(self) -> bool:
        taken = self._tap.take()
        self._chunk = None if taken is None else memoryview(taken)
        self._chunk_written = 0
        return self._chunk is not None

    def _finish(self) -> None:
        try:
            let_go(self._file.fileno(), file_id(self._file.fileno()))
            with closing(self._file):
                if self._chunk is not None or self._thread.ident is None:
                    self._abandon()
                os.fsync(self._file.fileno())
        except (OSError, MemoryError) as error:
            self._news.append(CaptureError(f"can't finish {self.path}: {_why(error)}"))

    def _abandon(self) -> None:
        """Give up what the disk did not take: count it, leave no half entry behind, and say so in the file."""
        torn = lost = lost_bytes = 0
        while self._chunk is not None or self._take():
            chunk = self._chunk
            assert chunk is not None
            at = 0
            while at < len(chunk):
                _, length, _, kind, _, _ = ENTRY.unpack_from(chunk, at)
                end = at + ENTRY.size + length
                if end > self._chunk_written:
                    torn += max(0, self._chunk_written - at)
                    if kind == MESSAGE:
                        self.unwritten += 1
                        self.unwritten_bytes += length
                    elif kind == LOST:
                        before = LOSS.unpack_from(chunk, at + ENTRY.size)
                        lost, lost_bytes = lost + before[0], lost_bytes + before[1]
                at = end
            self._chunk = None
        end = self._file.tell() - torn
        if torn:
            self._file.truncate(end)
        if self.unwritten:
            self._news.append(
                CaptureError(f"{self.path}: could not be written: the last {plural(self.unwritten, 'message')}")
            )
        if lost + self.unwritten:
            self._file.seek(end)
            payload = LOSS.pack(lost + self.unwritten, lost_bytes + self.unwritten_bytes)
            try:
                _write(self._file, entry(LOST, time.time_ns(), payload))
            except OSError:
                self._file.truncate(end)


def _write(file: BinaryIO, data: bytes) -> None:
    """The whole of it: unbuffered, a file that becomes full in the middle takes a part without a word."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) or 0 :]


def _why(error: OSError | MemoryError) -> str | None:
    return error.strerror if isinstance(error, OSError) else "there is no memory for it"
