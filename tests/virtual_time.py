"""An event loop whose clock jumps to the next timer whenever nothing is left to do: a year passes in minutes.

Both ends of each connection must live in this loop, or time would run away from the other one.
"""

import asyncio
import selectors
from typing import Any


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout:
            self.loop.now += timeout
        elif not ready and timeout is None:
            ready = super().select(1.0)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """`now` is its clock, in seconds from 0."""

    def __init__(self) -> None:
        selector = _Selector()
        selector.loop = self
        self.now = 0.0
        super().__init__(selector)
        # Half a year in, the system's 1 ns is less than two neighbouring times differ by: no timer would ever be due.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self.now
