"""Orders in the background: past the gate one after the other, then each on its way by itself."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from jvq_fast.errors import TradeError
from jvq_fast.threads import start
from jvq_fast.trade.gate import Request
from jvq_fast.trade.model import Intent, Order
from jvq_fast.trade.placing import Entered, Placing

T = TypeVar("T")
# Orders that wait until the broker has answered something, a login say. Each has a thread.
_MOST_WAITING = 32
_NO_THREAD = "the system gives this process no more threads"


class Intake:
    """From any thread; nothing waits here. What hangs holds up nothing else, and no future's callback does."""

    def __init__(self, placing: Placing) -> None:
        self._placing = placing
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._is_closed = False
        self._waiting = 0

    def order(self, read: Callable[[], Request], enter: Callable[[Request], Entered]) -> "Future[Order]":
        """An order, entered in turn unless the broker has to be asked something before it can be."""
        future: Future[Order] = Future()

        def begin() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                request = read()
                if self._placing.is_prepared(request):
                    self._send(future, enter(request))
                else:
                    self._wait(future, lambda: self._placing.send(enter(request)))
            except BaseException as error:
                _fail(future, error)

        with self._lock:
            if self._is_closed:
                raise TradeError("the client is closed")
            if self._thread is None and start(self._run, "jvq_fast trade intake", self._keep) is None:
                raise TradeError(_NO_THREAD)
            self._queue.put(begin)
        return future

    def _send(self, future: "Future[Order]", entered: Entered) -> None:
        if not _start(future, lambda: self._placing.send(entered)):
            self._placing.never(entered)
            raise TradeError(_NO_THREAD)

    def _wait(self, future: "Future[Order]", act: Callable[[], Order]) -> None:
        with self._lock:
            if self._waiting >= _MOST_WAITING:
                raise TradeError(f"{_MOST_WAITING} orders wait already for the broker to answer something before them")
            self._waiting += 1
        if not _start(future, act, self._waited):
            self._waited()
            raise TradeError(_NO_THREAD)

    def _waited(self) -> None:
        with self._lock:
            self._waiting -= 1

    def cancel(self, enter: Callable[[], Entered]) -> "Future[Intent]":
        """A cancel, which waits for no order."""
        future: Future[Intent] = Future()
        future.set_running_or_notify_cancel()
        if not _start(future, lambda: self._placing.send_cancel(enter())):
            raise TradeError(_NO_THREAD)
        return future

    def _keep(self, thread: threading.Thread | None) -> None:
        self._thread = thread

    def _run(self) -> None:
        while (begin := self._queue.get()) is not None:
            begin()

    def close(self, timeout: float) -> None:
        """What was taken in is entered, for so many seconds."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
            self._queue.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)


def _start(future: "Future[T]", act: Callable[[], T], ended: Callable[[], None] = lambda: None) -> bool:
    """Whether there was a thread for it."""

    def fulfil() -> None:
        try:
            result = act()
        except BaseException as error:
            ended()
            future.set_exception(error)
        else:
            ended()
            future.set_result(result)

    return start(fulfil, "jvq_fast trade order") is not None


def _fail(future: "Future[T]", error: BaseException) -> None:
    # Callbacks of the future may wait for another one, which is behind this one.
    if start(lambda: future.set_exception(error), "jvq_fast trade refusal") is None:
        future.set_exception(error)
