"""Ctrl-C, SIGTERM and a closed terminal as a wish to end, which the command grants at a point that suits it."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from jvq_fast.sim.signals import HANGUP, ending

__all__ = ["Interrupt"]


class Interrupt:
    """``with Interrupt() as interrupt:`` — the first signal sets ``interrupt.requested``; one more ends the block at
    once, as a KeyboardInterrupt. Outside the main thread it changes nothing, since signals do not arrive there."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in ending():
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        # A terminal that closes says so twice, by the shell and by itself: that is no impatience.
        if self.requested and number != HANGUP:
            raise KeyboardInterrupt
        self.requested = True
