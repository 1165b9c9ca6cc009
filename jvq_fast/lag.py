"""Whose fault a lag is: judged once a second from what a `Meter` measured. No clock, no socket, no loop of its own."""

from array import array
from sys import intern
from typing import Literal, NamedTuple

from jvq_fast.events import Lag
from jvq_fast.meter import Interval

__all__ = ["Judge"]

# Intervals that are remembered. No lag is told from a longer one: records that are older than ten minutes are STALE.
_KEPT = 1200
_FULL = 0.8


class _Worst(NamedTuple):
    """The slowest call of an interval."""

    slowest: float
    slowest_where: str
    slowest_handler: str
    slowest_code: str


class _Past:
    """The latest intervals: when they were, what handlers and everything else that is ours took, the slowest call.

    All of its memory is taken at once: a feed that runs for a year has the same from the start.
    """

    def __init__(self) -> None:
        self._numbers = array("d", bytes(8 * 5 * _KEPT))
        self._names = [("", "", "")] * _KEPT
        self._added = 0

    def add(self, interval: Interval, own: float) -> None:
        at = self._added % _KEPT
        slowest = interval.slowest if interval.calls else -1.0
        self._numbers[5 * at : 5 * at + 5] = array(
            "d", (interval.start, interval.end, interval.callbacks, own, slowest)
        )
        self._names[at] = (interval.slowest_where, intern(interval.slowest_handler), intern(interval.slowest_code))
        self._added += 1

    def spent(self, start: float, end: float) -> tuple[float, float, _Worst | None]:
        """Seconds between two times that went into handlers and into what else is ours; the slowest call then.

        Within an interval nothing is known of when, so a part of it gets its share.
        """
        handlers = own = 0.0
        worst, worst_at = -1.0, 0
        for number in range(self._added - 1, max(0, self._added - _KEPT) - 1, -1):
            at = number % _KEPT
            began, ended, callbacks, ours, slowest = self._numbers[5 * at : 5 * at + 5]
            if ended <= start:
                break
            length = ended - began
            shared = min(end, ended) - max(start, began)
            if length <= 0 or shared <= 0:
                continue
            handlers += callbacks * shared / length
            own += ours * shared / length
            if slowest > worst:
                worst, worst_at = slowest, at
        return handlers, own, _Worst(worst, *self._names[worst_at]) if worst >= 0 else None


class Judge:
    """Tells when a threshold, in seconds, is passed, and who is to blame. One thread.

    `max_network_lag`: of arrival, beyond the shortest of the last minutes. `max_feed_lag`: from the socket read to the
    first handler. `max_callback_time`: of one call of a handler. ValueError where one is not above 0.
    """

    def __init__(
        self, max_network_lag: float = 3.0, max_feed_lag: float = 0.25, max_callback_time: float = 0.1
    ) -> None:
        given = {
            "max_network_lag": max_network_lag,
            "max_feed_lag": max_feed_lag,
            "max_callback_time": max_callback_time,
        }
        for name, value in given.items():
            is_number: bool = isinstance(value, int | float)
            if not (is_number and value > 0):
                raise ValueError(f"{name} is a time in seconds above 0, not {value!r}")
        self._max_network = max_network_lag
        self._max_feed = max_feed_lag
        self._max_callback = max_callback_time
        self._past = _Past()
        self._passed: set[str] = set()

    def look(self, interval: Interval, *, lateness: float = 0.0, waiting: int = 0, room: int = 0) -> list[Lag]:
        """What is to be told after this interval, mostly nothing.

        Each threshold is told once, when it is passed, and again after an interval below it. `lateness` is by how many
        seconds the loop called later than it was asked to, `waiting` the bytes in the socket, `room` what fits there; 0
        where that is not known. A socket that is 80 % full is told like a threshold: `seconds` are then those the
        culprit took in this interval.
        """
        stall = max(0.0, lateness - interval.callbacks - interval.decode)
        own = interval.decode + stall
        self._past.add(interval, own)
        is_full = room > 0 and waiting >= _FULL * room

        lags = []
        # Without a record there is nothing to say about the network: a lag may well go on.
        if interval.network is not None and self._passes("network", interval.network > self._max_network):
            lags.append(self._network(interval.network, interval.network_at))
        is_slow = self._passes("callback", interval.slowest > self._max_callback)
        if self._passes("feed", max(interval.dispatch, stall) > self._max_feed):
            lag = self._feed(interval, stall)
            # One slow handler is told once.
            if not (is_slow and lag.fault == "callback"):
                lags.append(lag)
        if is_slow:
            lags.append(Lag("callback", interval.slowest, self._max_callback, _slowest(interval)))
        if self._passes("socket", is_full):
            self._add_socket(lags, interval, own)
        if is_full:
            told = f"; {waiting / 1e6:.1f} of {room / 1e6:.1f} MB wait in the socket"
            lags = [Lag(lag.fault, lag.seconds, lag.threshold, lag.detail + told) for lag in lags]
        return lags

    def _passes(self, name: str, is_above: bool) -> bool:
        """Whether the threshold is passed just now."""
        was_above = name in self._passed
        (self._passed.add if is_above else self._passed.discard)(name)
        return is_above and not was_above

    def _network(self, late: float, at: float) -> Lag:
        handlers, own, worst = self._past.spent(at - late, at)
        ours = f"{handlers:.3f} s of that time went into handlers, {own:.3f} s into the feed and its loop"
        fault: Literal["network", "feed", "callback"] = "network"
        if handlers + own > late / 2:
            fault = "callback" if handlers >= own else "feed"
            if fault == "callback" and worst is not None:
                ours += f", {_slowest(worst)}"
        return Lag(fault, late, self._max_network, f"data arrived {late:.3f} s late: {ours}")

    def _feed(self, interval: Interval, stall: float) -> Lag:
        waited, handlers = interval.dispatch, interval.dispatch_callbacks
        if interval.dispatch_own > self._max_feed:
            detail = f"{interval.dispatch_own:.3f} s from the socket read to a handler, besides what handlers took"
            return Lag("feed", interval.dispatch_own, self._max_feed, detail)
        if waited > self._max_feed:
            detail = (
                f"{waited:.3f} s from the socket read to a handler, {handlers:.3f} s of them in handlers of that read: "
                f"{_slowest(interval)}"
            )
            return Lag("callback" if 2 * handlers >= waited else "feed", waited, self._max_feed, detail)
        detail = f"the event loop was held up for {stall:.3f} s by what is no handler of the feed"
        return Lag("feed", stall, self._max_feed, detail)

    def _add_socket(self, lags: list[Lag], interval: Interval, own: float) -> None:
        """Blames a full socket, where what is told already does not blame the same one."""
        fault: Literal["feed", "callback"] = "callback" if interval.callbacks > own else "feed"
        if any(lag.fault == fault for lag in lags):
            return
        passed = interval.end - interval.start
        if fault == "callback":
            detail = f"handlers took {interval.callbacks:.3f} of {passed:.3f} s: {_slowest(interval)}"
            lags.append(Lag(fault, interval.callbacks, self._max_callback, detail))
        else:
            detail = f"the feed and its loop took {own:.3f} of {passed:.3f} s"
            lags.append(Lag(fault, own, self._max_feed, detail))


def _slowest(interval: Interval | _Worst) -> str:
    code = f" for {interval.slowest_code}" if interval.slowest_code else ""
    return f"{interval.slowest_where} handler {interval.slowest_handler} took {interval.slowest:.3f} s{code}"
