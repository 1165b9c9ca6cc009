"""Finds out what became of orders: by polling, since nothing is pushed, and seldom, since it is charged."""

import datetime as dt
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from jvq_fast.errors import BudgetError, JvqError, LoginError, TradeError
from jvq_fast.market_rules import Phase, is_trading_day, phase
from jvq_fast.threads import start

_SESSIONS = (Phase.OPENING_CALL, Phase.PAUSE, Phase.CONTINUOUS, Phase.CLOSING_CALL)
_LONGEST_WAIT = 60.0
# Polls after the end of a session: the last fills are listed a little later, and what was not filled is done then.
_AFTER_CLOSE = 10


@dataclass(frozen=True, slots=True)
class Polling:
    """When the broker's list of orders is asked for. Seconds.

    `fast` after an order, a cancel or any change, then longer and longer up to `slow`, while there are orders that may
    be filled; at no other time, and not outside sessions, unless the outcome of an order is unknown. After a failure it
    waits for `retry` at least.
    """

    fast: float = 1.0
    slow: float = 15.0
    growth: float = 1.5
    retry: float = 5.0

    def __post_init__(self) -> None:
        if not (0 < self.fast <= self.slow and self.growth >= 1 and self.retry > 0):
            raise ValueError(f"0 < fast <= slow, growth >= 1 and retry > 0 are wanted, not {self}")


class Tracker:
    """A thread that polls. `poll` asks once, and may raise what the client's queries raise."""

    def __init__(
        self,
        polling: Polling,
        poll: Callable[[], bool],
        has_unknown: Callable[[], bool],
        has_working: Callable[[], bool],
        clock: Callable[[], dt.datetime],
        failed: Callable[[JvqError], None],
    ) -> None:
        """`poll` tells whether anything changed; `failed` is told why there was no list."""
        self._polling = polling
        self._poll = poll
        self._has_unknown = has_unknown
        self._has_working = has_working
        self._clock = clock
        self._failed = failed
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._delay = polling.fast
        self._due = 0.0
        self._is_closed = False
        self._halted: dt.date | None = None  # the day on which polling ended, by the budget or a login refused
        self._is_locked_out = False
        self._left_after_close = _AFTER_CLOSE

    def wake(self) -> None:
        """Something was sent: poll soon. From any thread; starts the tracker's own if need be."""
        with self._condition:
            if self._is_closed:
                return
            self._delay = self._polling.fast
            self._due = (
                min(self._due, time.monotonic() + self._delay) if self._thread else time.monotonic() + self._delay
            )
            if self._thread is None:
                start(self._run, "jvq_fast trade polls", self._keep)
            self._condition.notify_all()

    def _keep(self, thread: threading.Thread | None) -> None:
        self._thread = thread

    def resume(self) -> None:
        """The account is let in again: what was halted goes on."""
        with self._condition:
            self._halted = None
            self._is_locked_out = False
            self._condition.notify_all()

    def close(self, timeout: float) -> None:
        """End the thread; a poll that is under way has so many seconds."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._is_closed:
            try:
                if not self._wait():
                    break
                changed = self._poll()
                self._delay = (
                    self._polling.fast if changed else min(self._delay * self._polling.growth, self._polling.slow)
                )
                pause = self._delay
            except Exception as error:
                self._failed(error if isinstance(error, JvqError) else TradeError(f"{type(error).__name__}: {error}"))
                self._is_locked_out = isinstance(error, LoginError) and bool(error.code)
                if isinstance(error, BudgetError):
                    self._halted = self._clock().date()
                pause = max(self._polling.retry, self._delay)
                self._delay = min(self._delay * 2, _LONGEST_WAIT)
            with self._condition:
                self._due = time.monotonic() + pause

    def _wait(self) -> bool:
        """Until a poll is due; False at the end."""
        with self._condition:
            while not self._is_closed:
                left = self._due - time.monotonic()
                if left <= 0 and self._is_wanted():
                    return True
                # The clock may be the market's, which tells nobody when a session begins.
                self._condition.wait(left if left > 0 else self._polling.fast if self._has_working() else _LONGEST_WAIT)
            return False

    def _is_wanted(self) -> bool:
        now = self._clock()
        if self._is_locked_out or (self._halted is not None and now.date() <= self._halted):
            return False
        if self._has_unknown():
            return True
        if not self._has_working():
            return False
        if is_trading_day(now.date()) and phase(now.time()) in _SESSIONS:
            self._left_after_close = _AFTER_CLOSE
            return True
        self._left_after_close -= 1
        return self._left_after_close >= 0
