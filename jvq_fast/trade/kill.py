"""The kill switch: a file, so that any process can throw it, and it holds until it is re-armed by hand.

The file's first line names this throw. Whoever trades and sees it notes it in the latch beside it, so that it holds
when the file just vanishes, and in the next process too: only `rearm`, in any process, lets orders go again.
"""

import contextlib
import secrets
import signal
import threading
from pathlib import Path

from jvq_fast.redact import redact
from jvq_fast.trade.private import replace_private

_LONGEST = 500


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
        self._is_noted = False  # in the latch; what is not, no other process can re-arm
        self._is_throwing = False

    def why(self) -> str:
        """Why nothing may be ordered; "" where it may."""
        with self._lock:
            found, (state, throw, reason) = self._look(), self._latched()
            if found is not None:
                self._is_noted = found[0] == throw or self._note("thrown", *found)
            elif state == "thrown":
                found, self._is_noted = (throw, reason), True
            elif state == "rearmed" and self._is_noted:
                self._throw = self._reason = ""
            if found is not None:
                self._throw, self._reason = found
            return self._reason if self._throw else ""

    def _look(self) -> tuple[str, str] | None:
        if self.path is None:
            return None
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
            info = self.path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            return "unreadable", f"the kill file {self.path} can't be read: {error.strerror}"
        throw, _, reason = text.partition("\n")
        # Any file will do: `touch` is a good way to throw it.
        throw = redact(throw.strip())[:_LONGEST] or f"by hand {info.st_ino} {info.st_mtime_ns}"
        return throw, redact(reason.strip()[:_LONGEST]) or f"the kill file {self.path} is there"

    def _latched(self) -> tuple[str, str, str]:
        """What was noted last: thrown or rearmed, which throw, and why."""
        if self._latch is None:
            return "", "", ""
        try:
            first, _, reason = self._latch.read_text(encoding="utf-8", errors="replace").partition("\n")
        except FileNotFoundError:
            return "", "", ""
        except OSError as error:
            return "thrown", "unreadable", f"the latch {self._latch} can't be read: {error.strerror}"
        state, _, throw = first.partition(" ")
        return state, throw, redact(reason.strip()) or "killed"

    def _note(self, state: str, throw: str, reason: str = "") -> bool:
        """Whether it is on disk; what can't be written holds for this process all the same."""
        if self._latch is None:
            return False
        try:
            replace_private(self._latch, f"{state} {throw}\n{reason}\n".encode(errors="replace"))
        except OSError:
            return False
        return True

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
        self._is_noted = self._note("thrown", self._throw, self._reason)
        if self.path is not None and not found:
            with contextlib.suppress(OSError):
                replace_private(self.path, f"{self._throw}\n{self._reason}\n".encode(errors="replace"))

    def rearm(self) -> None:
        """Orders may go again. OSError where the files can't be changed; then it is as before."""
        with self._lock:
            if self.path is not None and self._latch is not None:
                found = self._look()
                throw = found[0] if found else self._throw or self._latched()[1]
                if throw:
                    replace_private(self._latch, f"rearmed {throw}\n".encode(errors="replace"))
                self.path.unlink(missing_ok=True)
            self._throw = self._reason = ""

    def on_signal(self, number: int) -> None:
        """Let a signal throw it; its handler so far is called too. In the main thread, as Python wants it."""
        before = signal.getsignal(number)

        def handler(signum: int, frame: object) -> None:
            self.throw(f"signal {signal.Signals(signum).name}")
            if callable(before):
                before(signum, frame)  # type: ignore[arg-type]

        signal.signal(number, handler)
