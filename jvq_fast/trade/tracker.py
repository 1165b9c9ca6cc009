"""Finds out what became of orders: by polling, since nothing is pushed, and seldom, since it is charged."""

import datetime as dt
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from jvq_fast.errors import BudgetError, JvqError, LoginError
from jvq_fast.market_rules import Phase, is_trading_day, phase

_SESSIONS = (Phase.OPENING_CALL, Phase.PAUSE, Phase.CONTINUOUS, Phase.CLOSING_CALL)
_LONGEST_WAIT = 60.0


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
        self._is_halted = False
        self._was_in_session = False

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
                self._thread = threading.Thread(target=self._run, name="jvq_fast trade polls", daemon=True)
                self._thread.start()
            self._condition.notify_all()

    def resume(self) -> None:
        """The account is let in again: what was halted goes on."""
        with self._condition:
            self._is_halted = False
            self._condition.notify_all()

    def close(self, timeout: float) -> None:
        """End the thread; a poll that is under way has so many seconds."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _run(self) -> None:
        while self._wait():
            try:
                changed = self._poll()
                self._delay = (
                    self._polling.fast if changed else min(self._delay * self._polling.growth, self._polling.slow)
                )
                pause = self._delay
            except JvqError as error:
                self._failed(error)
                # A login that is refused costs money each time, and locks accounts.
                self._is_halted = isinstance(error, BudgetError) or (isinstance(error, LoginError) and bool(error.code))
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
        if self._is_halted:
            return False
        if self._has_unknown():
            return True
        now = self._clock()
        in_session = is_trading_day(now.date()) and phase(now.time()) in _SESSIONS
        # Once more after its end: what was not filled is done then.
        wanted = self._has_working() and (in_session or self._was_in_session)
        self._was_in_session = in_session
        return wanted
