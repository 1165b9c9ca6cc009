"""Which faults are in force, when they happen, and what has happened."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

from jvq_fast.sim.connection import Connection
from jvq_fast.sim.fault_kinds import Spec
from jvq_fast.sim.line import CLOSE, CONTINUATION, frame

__all__ = ["Fault", "Faults"]

_HAPPENINGS_KEPT = 10_000
_ENDED_KEPT = 1000
_SHUTS = ("down", "trade_down")


class Fault:
    """One fault that was set. ``fires`` is asked for each message of a connection, or for each request."""

    def __init__(self, number: int, spec: Spec, seed: int, newest: int) -> None:
        self.number = number
        self.spec = spec
        self.kind = spec.kind
        self.values = spec.values
        self.happened = 0
        self.ended = False
        self.memory: dict[Any, Any] = {}
        self.held: set[Connection] = set()  # those that it keeps from speaking
        self.timer: asyncio.TimerHandle | None = None
        self._seed = spec.values.get("seed") or seed
        self._count = spec.values.get("count", 0)
        self._after = spec.values.get("after", 0)
        self._probability = spec.values.get("probability", 1.0)
        connection = spec.values.get("connection", "all")
        self._target = newest + 1 if connection == "next" else int(connection) if connection != "all" else 0
        self._seen: dict[int, int] = {}
        self._dice: dict[int, random.Random] = {}

    @property
    def at_once(self) -> bool:
        """Whether it waits for no message."""
        return self.kind.where in ("server", "connection") and not self._after and self._probability == 1

    @property
    def sees_messages(self) -> bool:
        """Whether it waits for a message."""
        return not (self.at_once or self.kind.standing or self.kind.where in ("allocation", "handshake", "trade"))

    @property
    def spent(self) -> bool:
        """Whether it has happened as often as it may."""
        return bool(self._count) and self.happened >= self._count

    def concerns(self, connection: int) -> bool:
        """Whether a connection is one of its own."""
        return self._target in (0, connection)

    def fires(self, connection: int, applies: Callable[[], bool] = lambda: True) -> random.Random | None:
        """Whether it hits this message of a connection (0: this request): the dice for all that is random in it.

        They depend on the seed, on the connection and on how many messages it was asked for, and on nothing else.
        """
        if self.ended or self.spent or not self.concerns(connection):
            return None
        seen = self._seen[connection] = self._seen.get(connection, 0) + 1
        if seen <= self._after or not applies():
            return None
        if self._probability < 1:
            dice = self._dice.get(connection)
            if dice is None:
                dice = self._dice[connection] = random.Random(f"when:{self._seed}:{self.number}:{connection}")
            if dice.random() >= self._probability:
                return None
        return random.Random(f"what:{self._seed}:{self.number}:{connection}:{seen}")

    def describe(self) -> dict[str, Any]:
        """What GET /fault says of it."""
        return {
            "id": self.number,
            "kind": self.kind.name,
            "parameters": self.values,
            "active": not self.ended,
            "happened": self.happened,
            "held": sorted(connection.id for connection in self.held),
        }


Hit = tuple[Fault, random.Random]


class Stricken(Protocol):
    """What faults need of the server that they strike."""

    numbers: int  # of connections so far
    on_day_change: Callable[[int, str], None] | None

    def connections(self) -> list[Connection]:
        """Those that are open."""

    def go_down(self, fault: Fault, *, cut: bool) -> None:
        """Refuse connections."""

    def come_up(self, fault: Fault) -> None:
        """The end of it."""


class Faults:
    """All faults of a server, on the loop's thread."""

    def __init__(self, server: Stricken, seed: int) -> None:
        self.armed = False  # whether any of them has to see the messages
        self.clock: Callable[[], str] = str
        self._server = server
        self._seed = seed
        self._numbers = 0
        self._active: list[Fault] = []
        self._ended: deque[Fault] = deque(maxlen=_ENDED_KEPT)
        self._happenings: deque[dict[str, Any]] = deque(maxlen=_HAPPENINGS_KEPT)

    def set(self, spec: Spec) -> Fault:
        """From now on it is in force; what happens at once has happened when this returns."""
        self._numbers += 1
        fault = Fault(self._numbers, spec, self._seed, self._server.numbers)
        self._active.append(fault)
        seconds = spec.values["seconds"]
        if seconds:
            fault.timer = asyncio.get_running_loop().call_later(seconds, self._expire, fault)
        if fault.kind.name == "bad_token" and spec.values["dismiss"]:
            for connection in self._server.connections():
                if spec.values["token"] in ("", connection.token):
                    connection.dismiss(spec.values["text"])
        if fault.at_once and not fault.kind.standing:
            if fault.kind.where == "server":
                self.happens(fault)
                self._strike_server(fault)
            else:
                targets = [each for each in self._server.connections() if fault.concerns(each.id) and not each.muted]
                if targets:
                    self.happens(fault, *targets)
                    for connection in targets:
                        self._strike(fault, connection)
        self._settle()
        return fault

    def clear(self, number: int = 0, kind: str = "") -> list[int]:
        """End those with this number or of this kind, all without either. Their numbers."""
        chosen = [each for each in self._active if number in (0, each.number) and kind in ("", each.kind.name)]
        for fault in chosen:
            self._expire(fault)
        return [fault.number for fault in chosen]

    def describe(self) -> dict[str, Any]:
        """All there were, and what happened when."""
        known = sorted((*self._ended, *self._active), key=lambda fault: fault.number)
        return {"faults": [fault.describe() for fault in known], "happened": list(self._happenings)}

    def standing(self, kind: str) -> Fault | None:
        """The latest of a kind that is in force."""
        return next((each for each in reversed(self._active) if each.kind.name == kind), None)

    def request(self, where: str) -> Hit | None:
        """The fault that hits this request."""
        for fault in tuple(self._active):
            if fault.kind.where == where and fault.kind.name != "bad_token":
                dice = fault.fires(0)
                if dice is not None:
                    self.happens(fault)
                    self._settle()
                    return fault, dice
        return None

    def trade(self, call: str) -> list[Hit]:
        """The faults that hit this request to the broker, in the order in which they were set."""
        hits = []
        for fault in tuple(self._active):
            if fault.kind.where == "trade" and call in _calls(fault):
                dice = fault.fires(0)
                if dice is not None:
                    self.happens(fault)
                    hits.append((fault, dice))
        self._settle()
        return hits

    def bad_token(self, token: str) -> Fault | None:
        """The fault that makes a good token bad for this request."""
        for fault in tuple(self._active):
            if fault.kind.name == "bad_token" and fault.values["token"] in ("", token) and fault.fires(0) is not None:
                self.happens(fault)
                self._settle()
                return fault
        return None

    def connected(self, connection: Connection) -> None:
        """A handshake is done: what waits for a connection happens."""
        for fault in tuple(self._active):
            if not connection.is_open or connection.muted:
                return
            waits = fault.at_once and fault.kind.where == "connection" and not fault.spent
            if waits and fault.concerns(connection.id):
                self.happens(fault, connection)
                self._strike(fault, connection)
        self._settle()

    def disconnected(self, connection: Connection) -> None:
        """A connection has ended."""
        for fault in tuple(self._active):
            fault.held.discard(connection)
        self._settle()

    def message(self, connection: Connection, applies: Callable[[Fault], bool]) -> Iterator[Hit]:
        """The faults that hit a connection's next message, in the order in which they were set."""
        for fault in tuple(self._active):
            dice = fault.fires(connection.id, partial(applies, fault)) if fault.sees_messages else None
            if dice is not None:
                self.happens(fault, connection)
                yield fault, dice
        self._settle()

    def happens(self, fault: Fault, *connections: Connection) -> None:
        """It happens now, once, to all of these."""
        fault.happened += 1
        for connection in connections or (None,):
            self._happenings.append(
                {
                    "fault": fault.number,
                    "kind": fault.kind.name,
                    "connection": connection.id if connection else 0,
                    "message": connection.attempts if connection else 0,
                    "time": time.monotonic_ns(),
                    "market": self.clock(),
                }
            )

    def strike(self, fault: Fault, connection: Connection) -> None:
        """Let a fault that a message set off happen to a connection, or to the server."""
        if fault.kind.where == "server":
            # Not now: the market is in the midst of telling what happened.
            asyncio.get_running_loop().call_soon(self._strike_server, fault)
        else:
            self._strike(fault, connection)

    def _strike_server(self, fault: Fault) -> None:
        if fault.kind.name in _SHUTS:
            if not fault.ended:
                self._server.go_down(fault, cut=fault.values.get("cut", False))
        elif self._server.on_day_change is not None:
            self._server.on_day_change(fault.values["days"], fault.values["at"])

    def _strike(self, fault: Fault, connection: Connection) -> None:
        values = fault.values
        kind = fault.kind.name
        if kind == "reset":
            connection.reset()
        elif kind == "half_open":
            fault.held.add(connection)
            connection.freeze()
        elif kind == "stall":
            fault.held.add(connection)
            connection.mute(kind, answers=values["answers"])
        elif kind == "close":
            reason = values["reason"].encode()[:123]
            connection.say_close(frame(CLOSE, values["code"].to_bytes(2, "big") + reason if values["code"] else b""))
        elif kind == "invalid_close":
            connection.say_close(_INVALID_CLOSES[values["how"]])
        elif kind == "evict":
            connection.dismiss(values["text"], close=values["close"])
        else:
            connection.text(values["text"])

    def _expire(self, fault: Fault) -> None:
        """Its time is over, or it is taken back: what it split is not to drip on."""
        self._end(fault)
        if fault.kind.name == "split":
            for connection in self._server.connections():
                connection.hurry()

    def _end(self, fault: Fault) -> None:
        if fault.ended:
            return
        fault.ended = True
        if fault.timer is not None:
            fault.timer.cancel()
        self._active.remove(fault)
        self._ended.append(fault)
        for connection in tuple(fault.held):
            connection.release()
        fault.held.clear()
        if fault.kind.name in _SHUTS:
            self._server.come_up(fault)
        self._settle()

    def _settle(self) -> None:
        """End what is over, and see whether messages need looking at."""
        for fault in tuple(self._active):
            if fault.spent and not fault.held and fault.kind.name not in _SHUTS:
                self._end(fault)
        self.armed = any(each.sees_messages for each in self._active)


# The calls that a value of the parameter ``call`` means, and that of the kinds that have no such parameter.
_CALLS: dict[str, tuple[str, ...]] = {
    call: (call,) for call in ("login", "check_hold", "check_order", "buy", "sale", "cancel")
} | {"order": ("buy", "sale")}
_CALLS["any"] = tuple(call for call in _CALLS if call != "order")
_CALLED = {"trade_slow_login": "login", "trade_order_status": "check_order"}


def _calls(fault: Fault) -> tuple[str, ...]:
    """The calls that a fault of trading concerns; a login needs no ticket that could have expired."""
    calls = _CALLS[fault.values.get("call") or _CALLED[fault.kind.name]]
    return calls[1:] if fault.kind.name == "trade_ticket" and calls[0] == "login" else calls


_INVALID_CLOSES = {
    "one_byte": frame(CLOSE, b"\x03"),
    "code": frame(CLOSE, (1005).to_bytes(2, "big")),
    "utf8": frame(CLOSE, (1000).to_bytes(2, "big") + b"\xff\xfe"),
    "long": frame(CLOSE, (1000).to_bytes(2, "big") + b"x" * 200),
    "fragment": frame(CLOSE, (1000).to_bytes(2, "big"), fin=False) + frame(CONTINUATION),
}
