"""What was meant to be done and what became of it, on disk before the first byte of it leaves this machine.

A line an entry: eight hex digits of CRC-32 over what follows, a blank, a JSON object. It holds no secret: the account
is marked, not named. Who holds the file open holds it alone.
"""

import datetime as dt
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from jvq_fast.errors import AccountInUseError, JournalError
from jvq_fast.forks import keep_from_children, let_go
from jvq_fast.redact import Secret
from jvq_fast.trade.locks import try_lock
from jvq_fast.trade.private import complaint, mark_of, new_salt, open_private, sync_folder

VERSION = 1
Entry = dict[str, Any]


class Journal:
    """An open journal. One thread at a time uses it.

    `entries` are those it held when it was opened. JournalError where it can't be used: it is another account's or
    another mode's, others could read it, or it is damaged before its last line; AccountInUseError where another process
    has it.
    """

    def __init__(self, path: Path, account: Secret, mode: str) -> None:
        self.path = path
        self.entries: list[Entry] = []
        self._broken = ""
        try:
            self._descriptor = open_private(path, os.O_RDWR | os.O_APPEND)
        except OSError as error:
            raise JournalError(f"the journal {path} can't be opened: {error.strerror}") from None
        self._held = keep_from_children(self._descriptor)
        try:
            if not try_lock(self._descriptor):
                raise AccountInUseError(
                    f"the journal {path} is another process's: one account is traded by one process; end the other one"
                )
            why = complaint(self._descriptor)
            if why:
                raise JournalError(f"the journal {path} is not used: {why}")
            self._end = self._read()
            if self.entries:
                self._check(self.entries.pop(0), account, mode)
            else:
                sync_folder(path)  # it is new, or whoever made it came no further
                salt = new_salt()
                self.write(
                    {
                        "what": "journal",
                        "version": VERSION,
                        "mode": mode,
                        "salt": salt,
                        "account": mark_of(account.reveal(), salt),
                    }
                )
        except BaseException:
            self.close()
            raise

    def _read(self) -> int:
        """All entries; what a kill left of the last one is cut off. Where the good ones end."""
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            data = file.read()
        at = 0
        while at < len(data):
            end = data.find(b"\n", at)
            entry = _parse(data[at:end]) if end >= 0 else None
            if entry is None:
                if 0 <= end < len(data) - 1:
                    raise JournalError(
                        f"the journal {self.path} is damaged at byte {at}: look at it, and at the broker's own list of "
                        "orders, before anything is ordered; then move it away"
                    )
                os.ftruncate(self._descriptor, at)
                os.fsync(self._descriptor)
                break
            self.entries.append(entry)
            at = end + 1
        return at

    def _check(self, head: Entry, account: Secret, mode: str) -> None:
        if head.get("what") != "journal" or head.get("version") != VERSION:
            raise JournalError(f"{self.path} is no journal of this version")
        if head.get("mode") != mode:
            raise JournalError(f"the journal {self.path} is of mode {head.get('mode')}, not {mode}")
        if head.get("account") != mark_of(account.reveal(), str(head.get("salt"))):
            raise JournalError(f"the journal {self.path} is another account's")

    def write(self, entry: Mapping[str, Any], *, sync: bool = True) -> None:
        """Add an entry; with `sync` it is on disk when this returns. After a JournalError it is not there."""
        if self._broken:
            raise JournalError(self._broken)
        line = _line(entry)
        try:
            written = 0
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
            if sync:
                os.fsync(self._descriptor)
            self._end += len(line)
        except OSError as error:
            self._take_back()
            raise JournalError(f"the journal {self.path} can't be written: {error.strerror}") from None
        except BaseException:  # Ctrl-C
            self._take_back()
            raise

    def _take_back(self) -> None:
        # Half a line would bury what follows it; and of what was not synced, nobody knows whether it is there.
        try:
            os.ftruncate(self._descriptor, self._end)
        except OSError as error:
            self._broken = f"the journal {self.path} is damaged and can't be mended: {error.strerror}"

    def close(self) -> None:
        """Give it up for another process. A second time does nothing."""
        if self._descriptor >= 0:
            self._broken = f"the journal {self.path} is closed"
            let_go(self._descriptor, self._held)
            os.close(self._descriptor)
            self._descriptor = -1


def read(path: Path) -> Iterator[Entry]:
    """The entries of a journal that may be in use, the head included; JournalError where it can't be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise JournalError(f"the journal {path} can't be read: {error.strerror}") from None
    for line in data.split(b"\n"):
        entry = _parse(line)
        if entry is not None:
            yield entry


def _line(entry: Mapping[str, Any]) -> bytes:
    text = json.dumps(entry, default=_plain, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dt.datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no place in a journal")


def _parse(line: bytes) -> Entry | None:
    try:
        if line[8:9] != b" " or int(line[:8], 16) != zlib.crc32(line[9:]):
            return None
        entry = json.loads(line[9:])
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
