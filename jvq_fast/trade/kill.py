"""The kill switch: a file, so that any process can throw it, and it holds until it is re-armed by hand.

The file's first line names this throw. Whoever trades and sees it notes it in the latch beside it, so that it holds
when the file just vanishes, and in the next process too: only `rearm`, in any process, lets orders go again.
"""

import contextlib
import re
import secrets
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

from jvq_fast.redact import redact
from jvq_fast.trade.private import replace_private

_LONGEST = 500
_OURS = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class _Latch:
    """Whether it is thrown, how often it was so far, which throw that was, and why."""

    is_thrown: bool
    number: int
    throw: str
    reason: str


class KillSwitch:
    """One for a journal. From any thread; `throw` from signal handlers too."""

    def __init__(self, journal: Path | None) -> None:
        """Without a journal (dry mode) it is this object's alone."""
        self.path = None if journal is None else journal.with_name(journal.name + ".kill")
        self._latch = None if journal is None else journal.with_name(journal.name + ".latch")
        # Re-entrant: a signal handler may come while its own thread has it.
        self._lock = threading.RLock()
        self._throw = ""
        self._reason = ""
        self._number = 0  # of this throw: whatever re-arms that one or a later one ends it
        self._is_noted = True  # in the latch; what is not, no other process can re-arm
        self._is_throwing = False

    def why(self) -> str:
        """Why nothing may be ordered; "" where it may."""
        with self._lock:
            found, latch = self._look(), self._latched()
            if found is not None:
                self._throw, self._reason = found
                if found[0] == latch.throw:
                    self._number, self._is_noted = latch.number, True
                else:
                    self._note(*found, latch.number + 1)
            elif latch.is_thrown:
                self._throw, self._reason = latch.throw, latch.reason
                self._number, self._is_noted = latch.number, True
            elif self._throw and self._number <= latch.number and self._is_noted:
                self._throw = self._reason = ""
            elif self._throw and not self._is_noted:
                self._note(self._throw, self._reason, latch.number + 1)  # the disk may be better now
            return self._reason if self._throw else ""

    def _look(self) -> tuple[str, str] | None:
        if self.path is None:
            return None
        try:
            info = self.path.lstat()
            # Any file will do: `touch` is a good way to throw it, and the same words again are another throw.
            by_hand = f"by hand {info.st_ino} {info.st_mtime_ns}"
            try:
                text = self.path.read_text(encoding="utf-8", errors="replace")
            except OSError as error:
                return by_hand, f"the kill file {self.path} can't be read: {error.strerror}"
        except FileNotFoundError:
            return None
        except OSError as error:
            return "unreadable", f"the kill file {self.path} can't be read: {error.strerror}"
        throw, _, reason = text.partition("\n")
        throw = throw if _OURS.fullmatch(throw) else by_hand
        return throw, redact(reason.strip()[:_LONGEST]) or f"the kill file {self.path} is there"

    def _latched(self) -> "_Latch":
        """What was noted last."""
        if self._latch is None:
            return _Latch(False, 0, "", "")
        try:
            first, _, reason = self._latch.read_text(encoding="utf-8", errors="replace").partition("\n")
            state, number, throw = first.split(" ", 2)
            return _Latch(state == "thrown", int(number), throw, redact(reason.strip()) or "killed")
        except FileNotFoundError:
            return _Latch(False, 0, "", "")
        except OSError as error:
            return _Latch(True, self._number, "unreadable", f"the latch {self._latch} can't be read: {error.strerror}")
        except ValueError:
            return _Latch(True, self._number, "unreadable", f"the latch {self._latch} is damaged")

    def _note(self, throw: str, reason: str, number: int) -> None:
        # What can't be written holds for this process all the same.
        self._number, self._is_noted = number, False
        if self._latch is not None:
            with contextlib.suppress(OSError):
                replace_private(self._latch, f"thrown {number} {throw}\n{reason}\n".encode(errors="replace"))
                self._is_noted = True

    def throw(self, reason: str) -> None:
        """From now on nothing is ordered, by this process and, where there is a journal, by any other that uses it."""
        with self._lock:
            if self._is_throwing:  # a signal comes while its own thread is here, and again, and again
                return
            self._is_throwing = True
            try:
                self._write(reason)
            finally:
                self._is_throwing = False

    def _write(self, reason: str) -> None:
        found = self._look()
        if found and found[0] == self._throw:
            return
        self._throw = found[0] if found else secrets.token_hex(8)
        self._reason = redact(reason)[:_LONGEST] or "killed"
        self._note(self._throw, self._reason, self._latched().number + 1)
        if self.path is not None and not found:
            with contextlib.suppress(OSError):
                replace_private(self.path, f"{self._throw}\n{self._reason}\n".encode(errors="replace"))

    def rearm(self) -> None:
        """Orders may go again. OSError where the files can't be changed; then it is as before."""
        with self._lock:
            if self.path is not None and self._latch is not None:
                found, latch = self._look(), self._latched()
                throw = found[0] if found else self._throw or latch.throw
                if throw:
                    number = max(latch.number, self._number)
                    replace_private(self._latch, f"rearmed {number} {throw}\n".encode(errors="replace"))
                try:
                    self.path.unlink(missing_ok=True)
                except OSError:
                    self._note(*(found or (throw, self._reason)), number)
                    raise
            self._throw = self._reason = ""

    def on_signal(self, number: int) -> None:
        """Let a signal throw it; its handler so far is called too. In the main thread, as Python wants it."""
        before = signal.getsignal(number)

        def handler(signum: int, frame: object) -> None:
            self.throw(f"signal {signal.Signals(signum).name}")
            if callable(before):
                before(signum, frame)  # type: ignore[arg-type]

        signal.signal(number, handler)
