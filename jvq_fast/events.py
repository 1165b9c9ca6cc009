"""What a feed tells besides data: its events and who listens to them."""

import logging
from asyncio import CancelledError
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from jvq_fast.decoder import Decoder
from jvq_fast.handlers import Failures, check
from jvq_fast.meter import Meter

NAMES = ("on_connect", "on_disconnect", "on_state", "on_gap", "on_stale", "on_lag", "on_text")
_log = logging.getLogger("jvq_fast")


class State(StrEnum):
    """Where a feed is. `stats()["state"]`, `on_state` and the log say the same."""

    IDLE = "idle"  # not run yet
    ALLOCATING = "allocating"  # asks for a server
    CONNECTING = "connecting"  # name lookup, connection, handshake
    OPEN = "open"  # connected and subscribed; no record yet
    LIVE = "live"  # records arrive
    PROBING = "probing"  # none arrived for too long: the server is being asked
    CLOSING = "closing"  # saying goodbye
    WAITING = "waiting"  # for the next attempt
    STOPPED = "stopped"  # ended by `stop()` or by whoever runs it
    FAILED = "failed"  # ended by an error, which `run` or `join` raises


@dataclass(frozen=True, slots=True)
class Gap:
    """Data may be missing between `start` and `end`, both ns since the epoch UTC, by arrival.

    `start` is the arrival of the last message before the connection was lost (its opening where none had come), `end`
    that of the first message with records after it. `codes` are those that were subscribed when it was lost, bare.
    """

    start: int
    end: int
    reason: str
    codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stale:
    """Data should be coming and is not. The feed leaves the connection for another one.

    `since` is the arrival of the last message, ns since the epoch UTC (the connection's opening where none had come).
    """

    since: int
    reason: str


@dataclass(frozen=True, slots=True)
class Lag:
    """Data comes to the handlers later than the feed's settings allow; see `Judge` for how the fault is found.

    `fault`: "network" (late when it arrived), "feed" (held up between arrival and handlers by us or by what else runs
    on the loop) or "callback" (held up by handlers). `seconds` is what was measured, `threshold` the setting that it
    passed, `detail` names the handler and says what else is known.
    """

    fault: Literal["network", "feed", "callback"]
    seconds: float
    threshold: float
    detail: str


class Events:
    """Calls handlers in the order they came; one that raises is counted and reported, and the next one is called."""

    def __init__(self, decoder: Decoder, meter: Meter) -> None:
        self._decoder = decoder
        self._meter = meter
        self._handlers: dict[str, tuple[Callable[..., Any], ...]] = dict.fromkeys(NAMES, ())
        self._failures = Failures()
        self.errors = 0

    def add(self, name: str, handler: Callable[..., Any]) -> None:
        check(name, handler)
        self._handlers[name] += (handler,)

    def tell(self, name: str, *arguments: object) -> None:
        for handler in self._handlers[name]:
            self._meter.begin_call(handler, name)
            try:
                handler(*arguments)
            except (Exception, CancelledError) as error:  # CancelledError of a future that it looked at
                self.errors += 1
                self.report(error, name)
            finally:
                self._meter.end_call(handler, name)

    def report(self, error: Any, where: str) -> None:
        """To the handlers of `on_error`, which are the decoder's; to the log where there are none."""
        handlers = self._decoder.on_error
        if not handlers:
            if where in NAMES:
                self._failures.log(where, error)
            else:
                _log.error("%s: %s: %s", where, type(error).__name__, error)
        for handler in handlers:
            self._meter.begin_call(handler, "on_error")
            try:
                handler(error, where)
            except (Exception, CancelledError) as second:
                self.errors += 1
                self._failures.log("on_error", second, f"on_error raised {type(second).__name__} when told of {where}")
            finally:
                self._meter.end_call(handler, "on_error")
