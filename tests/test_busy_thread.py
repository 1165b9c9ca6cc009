"""The feed beside a thread that never lets go of the interpreter by itself."""

import threading
import time

import pytest

import jvq_fast as jvq
from flood import Flood
from ws_script import TOKEN

ROUNDS = 20
ENOUGH = 5
WINDOW = 0.3


class BusyThread:
    """A pure-Python loop, on and off."""

    def __init__(self) -> None:
        self._on = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while True:
            self._on.wait()
            if self._ended:
                return
            while self._on.is_set() and not self._ended:
                for _ in range(100):
                    number += 1

    def set(self, on: bool) -> None:
        if on:
            self._on.set()
        else:
            self._on.clear()

    def end(self) -> None:
        self._ended = True
        self._on.set()
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.mark.release_only
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_busy_thread_takes_at_most_half_of_the_throughput(loop: str) -> None:
    """Measured in turns within one run, best against best: on a shared machine anything may slow a single turn down.

    A decoder that gave the interpreter up for each message would come to less than a hundredth.
    """
    if loop == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed")
    with Flood() as flood:
        feed = jvq.Feed(TOKEN, server=flood.ws, loop=loop)  # type: ignore[arg-type]
        batches = 0

        @feed.on_batch
        def on_batch(n: int) -> None:
            nonlocal batches
            batches += 1

        busy = BusyThread()
        best = {False: 0.0, True: 0.0}
        try:
            with feed:
                deadline = time.monotonic() + 30
                while feed.decoder.messages < 100_000:
                    assert not feed.join(0.01)
                    assert time.monotonic() < deadline
                for turn in range(ROUNDS):
                    for on in (False, True):
                        busy.set(on)
                        time.sleep(0.05)
                        began, before = time.perf_counter(), feed.decoder.messages
                        time.sleep(WINDOW)
                        count, took = feed.decoder.messages - before, time.perf_counter() - began
                        best[on] = max(best[on], count / took)
                    if turn + 1 >= ENOUGH and best[True] >= 0.5 * best[False]:
                        break
                busy.set(False)
        finally:
            busy.end()
    assert batches > 0
    assert feed.stats()["bad"] == 0
    assert best[True] >= 0.5 * best[False], best
