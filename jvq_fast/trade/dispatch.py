"""Calls the handlers of a trade client, one at a time, on a thread of its own: never on the feed's."""

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from jvq_fast.handlers import Failures, check
from jvq_fast.threads import start

_log = logging.getLogger("jvq_fast")
NAMES = ("on_intent", "on_order", "on_fill", "on_error")


class Dispatcher:
    """Handlers by event, called in the order of events. `tell` and `add` are for any thread."""

    def __init__(self) -> None:
        self._handlers: dict[str, tuple[Callable[..., Any], ...]] = dict.fromkeys(NAMES, ())
        self._queue: queue.SimpleQueue[tuple[str, tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._failures = Failures()
        self.errors = 0

    def add(self, name: str, handler: Callable[..., Any]) -> None:
        """One more handler. TypeError where the event could not call it."""
        check(name, handler)
        with self._lock:
            self._handlers[name] += (handler,)

    def tell(self, name: str, *arguments: Any) -> None:
        """Have the handlers called; where no thread can be had, behind the next event. Else errors are logged."""
        if not self._handlers[name]:
            if name == "on_error":
                _log.warning("trade, %s: %s", arguments[1], arguments[0])
            return
        self._queue.put((name, arguments))
        with self._lock:
            if self._thread is None:
                start(self._run, "jvq_fast trade events", self._keep)

    def _keep(self, thread: threading.Thread | None) -> None:
        self._thread = thread

    def close(self, timeout: float) -> None:
        """Let what was told be heard, for so many seconds, and end the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            if thread is not threading.current_thread():
                thread.join(timeout)

    def _run(self) -> None:
        while (told := self._queue.get()) is not None:
            name, arguments = told
            for handler in self._handlers[name]:
                try:
                    handler(*arguments)
                except BaseException as error:  # SystemExit too: it would end this thread and nothing else
                    self.errors += 1
                    self._failures.log(name, error)
