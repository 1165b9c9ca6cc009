"""Tells of a handler that does not return: the feed's own thread can't, for it is in there."""

import logging
import sys
import threading
import traceback
from types import TracebackType
from typing import Self

from jvq_fast.meter import Meter

HUNG = 5.0  # seconds in one call
_LOOK_EVERY = 1.0
_log = logging.getLogger("jvq_fast")


class Watchdog:
    """A thread beside the one that makes it, which logs each call of a handler that lasts for `HUNG` seconds, once.

    The entry has the stack of the handler. `hangs` counts them.
    """

    def __init__(self, meter: Meter) -> None:
        self.hangs = 0
        self._meter = meter
        self._watched = 0
        self._told = 0
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._watched = threading.get_ident()
        self._done.clear()
        thread = threading.Thread(target=self._watch, name="jvq_fast watchdog", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left; a feed is worth more than its watchdog
            _log.warning("no watchdog: %s", error)
        except BaseException:  # at Ctrl-C it runs
            self._done.set()
            raise
        else:
            self._thread = thread
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _watch(self) -> None:
        while not self._done.wait(_LOOK_EVERY):
            call = self._meter.running_call()
            if call is None or call.seconds < HUNG or call.began == self._told:
                continue
            self._told = call.began
            self.hangs += 1
            frame = sys._current_frames().get(self._watched)
            stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
            del frame
            _log.error(
                "%s handler %s has not returned for %.0f s; nothing is read meanwhile. It is here:\n%s",
                *(call.where, call.handler, call.seconds, stack),
            )
