"""Orders in the background: past the gate one after the other, then each on its way by itself."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from jvq_fast.trade.gate import Request
from jvq_fast.trade.model import Intent, Order
from jvq_fast.trade.placing import Entered, Placing

T = TypeVar("T")


class Intake:
    """From any thread; nothing waits here. What hangs holds up nothing else, and no future's callback does."""

    def __init__(self, placing: Placing) -> None:
        self._placing = placing
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def order(self, read: Callable[[], Request], enter: Callable[[Request], Entered]) -> "Future[Order]":
        """An order, entered in turn unless the broker has to be asked something before it can be."""
        future: Future[Order] = Future()

        def begin() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                request = read()
                if not self._placing.is_prepared(request):
                    _start(future, lambda: self._placing.send(enter(request)))
                    return
                entered = enter(request)
                try:
                    _start(future, lambda: self._placing.send(entered))
                except BaseException:
                    self._placing.never(entered)
                    raise
            except BaseException as error:
                _start(future, lambda error=error: _raise(error))  # type: ignore[misc]

        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="jvq_fast trade intake", daemon=True)
                self._thread.start()
        self._queue.put(begin)
        return future

    def cancel(self, enter: Callable[[], Entered]) -> "Future[Intent]":
        """A cancel, which waits for no order."""
        future: Future[Intent] = Future()

        def act() -> Intent:
            return self._placing.send_cancel(enter())

        if future.set_running_or_notify_cancel():
            _start(future, act)
        return future

    def _run(self) -> None:
        while (begin := self._queue.get()) is not None:
            begin()

    def close(self, timeout: float) -> None:
        """What was taken in is entered, for so many seconds."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            self._queue.put(None)
            if thread is not threading.current_thread():
                thread.join(timeout)


def _start(future: "Future[T]", act: Callable[[], T]) -> None:
    threading.Thread(target=_fulfil, args=(future, act), name="jvq_fast trade order", daemon=True).start()


def _fulfil(future: "Future[T]", act: Callable[[], T]) -> None:
    try:
        future.set_result(act())
    except BaseException as error:
        future.set_exception(error)


def _raise(error: BaseException) -> Any:
    raise error
