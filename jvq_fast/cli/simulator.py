"""The simulator as a child process, and what it says of itself."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from jvq_fast.cli.complaint import SimulatorError

__all__ = ["Sent", "Simulator", "bypass_proxies"]

_START, _REPLY, _END = 30.0, 10.0, 5.0
_SHOWN = 300


def bypass_proxies() -> None:
    """Allocation follows the proxies of the environment; a simulator of this machine is not behind them."""
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))


@dataclass(frozen=True, slots=True)
class Sent:
    """What went on the wire so far, and the connection that is open now, 0 where there is none.

    `idle` says that nothing is subscribed to any more.
    """

    records: int
    messages: int
    connection: int
    idle: bool


class Simulator:
    """``with Simulator(options) as sim:`` — ready when the block begins; when it ends, the process is gone.

    SimulatorError where it does not start or does not answer.
    """

    def __init__(self, options: Sequence[str] = ()) -> None:
        self._options = options
        # Its own address must never be asked of a proxy.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __enter__(self) -> Self:
        self._stderr = tempfile.TemporaryFile()
        # A session of its own: Ctrl-C goes to all processes of the terminal, and this one is needed to the end.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jvq_fast.cli.leash", "--json", *self._options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,
        )
        try:
            ready = self._ready_line()
        except BaseException:
            self._end()
            raise
        self.http: str = ready["http"]
        self.trade: str = ready["trade"]
        self.trading_day: str = ready["trading_day"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def sent(self) -> Sent:
        """What it has sent by its own count."""
        stats = json.loads(self._get("/stats")[0])
        opened = [each for each in stats["connections"] if each["open"]]
        return Sent(
            records=stats["total"]["records"],
            messages=stats["total"]["messages"],
            connection=opened[-1]["id"] if opened else 0,
            idle=not any(each["subscriptions"] for each in opened),
        )

    def stamps(self, connection: int, since: int) -> tuple[int, NDArray[np.int64]]:
        """When it sent a connection's messages, from number `since` on: (number of the first, CLOCK_MONOTONIC ns)."""
        body, first = self._get(f"/stamps?connection={connection}&from={since}")
        return int(first or since), np.frombuffer(body, "<i8").astype(np.int64)

    def _get(self, path: str) -> tuple[bytes, str]:
        try:
            with self._opener.open(self.http + path, timeout=_REPLY) as reply:
                return reply.read(), reply.headers.get("X-First", "")
        except (OSError, ValueError) as error:
            raise SimulatorError(f"the simulator does not answer: {self._last_words() or error}") from None

    def _ready_line(self) -> Any:
        line = b""

        def read() -> None:
            nonlocal line
            assert self.process.stdout is not None
            line = self.process.stdout.readline()

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        reader.join(_START)
        try:
            return json.loads(line)
        except ValueError:
            pass
        why = self._last_words() or f"it was not ready within {_START:g} s"
        raise SimulatorError(f"the simulator did not start: {why}")

    def _last_words(self) -> str:
        time.sleep(0.1)
        status = self.process.poll()
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        said = lines[-1][:_SHOWN] if lines else ""
        return said if said or status is None else f"it ended with status {status}"

    def _end(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.process.terminate()
        try:
            self.process.wait(_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._stderr.close()
