"""What was meant to be done and what became of it, on disk before the first byte of it leaves this machine.

A line an entry: eight hex digits of CRC-32 over what follows, a blank, a JSON object. It holds no secret: the account
is marked, not named. Who holds the file open holds it alone.
"""

import datetime as dt
import errno
import itertools
import json
import logging
import os
import zlib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from jvq_fast.errors import AccountInUseError, JournalError
from jvq_fast.forks import keep_from_children, let_go
from jvq_fast.redact import Secret
from jvq_fast.trade.carry import carried
from jvq_fast.trade.locks import try_lock
from jvq_fast.trade.private import beside, complaint, mark_of, new_salt, open_private, sweep, sync_folder

VERSION = 1
# Where a journal that is opened is larger, a new one is begun, if that is less than half as large.
LARGE = 1 << 20
_log = logging.getLogger("jvq_fast")
Entry = dict[str, Any]


class Journal:
    """An open journal. One thread at a time uses it.

    `entries` are those it held when it was opened. JournalError where it can't be used: it is another account's or
    another mode's, others could read it, or it is damaged in a line that was written whole; AccountInUseError where
    another process has it.
    """

    def __init__(self, path: Path, account: Secret, mode: str) -> None:
        self.path = path
        self.entries: list[Entry] = []
        self._broken = ""
        self._descriptor = -1
        while not self._open():
            pass
        try:
            self._end = self._read()
            if self.entries:
                head = self.entries.pop(0)
                self._check(head, account, mode)
                sweep(path)
                if self._end > LARGE and os.name == "posix":  # elsewhere an open file can't be renamed
                    self._roll(head)
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

    def _open(self) -> bool:
        """Open it for this process alone; False where another one has put a new one in its place meanwhile."""
        path = self.path
        try:
            self._take(open_private(path, os.O_RDWR | os.O_APPEND))
        except OSError as error:
            why = "it is a link" if error.errno == errno.ELOOP else error.strerror
            raise JournalError(f"the journal {path} can't be opened: {why}") from None
        try:
            try:
                is_free = try_lock(self._descriptor)
            except OSError as error:
                raise JournalError(f"the journal {path} can't be locked: {error.strerror}") from None
            if not is_free:
                raise AccountInUseError(
                    f"the journal {path} is in use, by another process or another client of this one: one account is "
                    "traded by one client; end the other one"
                )
            why = complaint(self._descriptor)
            if why:
                raise JournalError(f"the journal {path} is not used: {why}")
            try:
                is_this = os.path.samestat(os.fstat(self._descriptor), path.stat())
            except FileNotFoundError:
                is_this = False
        except BaseException:
            self._give_up()
            raise
        if not is_this:
            self._give_up()
        return is_this

    def _take(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._held = keep_from_children(descriptor)

    def _give_up(self) -> None:
        let_go(self._descriptor, self._held)
        os.close(self._descriptor)
        self._descriptor = -1

    def _roll(self, head: Entry) -> None:
        """Begin a new file with what is still of use. The old one stays beside it."""
        entries = [dict(entry) for entry in carried(self.entries)]
        data = b"".join(map(_line, [head, *entries]))
        if len(data) > self._end // 2:
            return
        last = max((entry["at"][:10] for entry in self.entries if entry["what"] == "intent"), default="")
        new, old = beside(self.path), _free_name(self.path, last)
        try:
            descriptor = open_private(new, os.O_RDWR | os.O_APPEND | os.O_EXCL)
            try:
                if not try_lock(descriptor):
                    raise OSError(0, "a new file is locked")
                _write_all(descriptor, data)
                os.fsync(descriptor)
                if not old.exists():
                    os.link(self.path, old)
                sync_folder(self.path)
                new.replace(self.path)
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            _log.warning("the journal %s is large, and no new one can be begun: %s", self.path, error.strerror)
            new.unlink(missing_ok=True)
            return
        except BaseException:  # Ctrl-C
            new.unlink(missing_ok=True)
            raise
        self._give_up()
        self._take(descriptor)
        self._end, self.entries = len(data), entries
        sync_folder(self.path)

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
                if end >= 0:
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
            _write_all(self._descriptor, line)
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
            self._give_up()


def _write_all(descriptor: int, data: bytes) -> None:
    written = 0
    while written < len(data):
        written += os.write(descriptor, data[written:])


def _free_name(path: Path, day: str) -> Path:
    """For the old file, by the day of its last intent; it has that name already where a kill came in between."""
    names: Iterable[str] = (f"{path.name}.until-{day}" + (f"-{n}" if n else "") for n in itertools.count())
    return next(old for old in map(path.with_name, names) if not old.exists() or old.samefile(path))


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
