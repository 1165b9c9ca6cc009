"""Trade clients that are killed: by themselves at an exact step of their work, or by time.

``python trade_mortal.py`` reads a task a line (JSON, the fields of `Task`), lives it in a forked child, and answers
with a line: ``died`` for a kill, else how the child ended. The steps are the calls that leave something in the world:
of a file (write, fsync, replace, truncate, unlink) and of a socket (connect, send, receive), each with a place before
it and one after it, a write with one in its middle as well. The child dies at the one with the number ``at``; below 0
it lives on, and ``trace`` gets the names of all.
"""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from jvq_fast.errors import TradeError
from jvq_fast.trade import Limits, Polling, TradeClient, private
from jvq_fast.trade.market import wall_clock
from simulator import TOKEN

ACCOUNT = "123456789012"
LISTS = 2
ORDERS = {"buy": ("000001", "11.50", 300), "sell": ("601398", "6.20", 500)}
_WRITE = os.write


@dataclasses.dataclass
class Task:
    """What a child does: a buy, a sell, or the cancel of the order that is open."""

    server: str
    folder: str
    action: str
    at: int = -1
    seconds: float = 0.0  # 0 for no end by time


class Prices:
    def last(self, code: str) -> Decimal:
        return Decimal("11.50")

    def age(self, code: str) -> float:
        return 0.1

    def name(self, code: str) -> str:
        return f"N{code}"

    def limits(self, code: str) -> tuple[Decimal, Decimal]:
        return Decimal(1), Decimal(2000)


def client_of(server: str, folder: str) -> TradeClient:
    """The same client in each life."""
    private._ROUNDS = 1
    return TradeClient(
        TOKEN, ACCOUNT, "secret password", mode="paper", server=server, market=Prices(), journal=f"{folder}/journal",
        ticket_file=f"{folder}/ticket", clock=wall_clock, limits=Limits(sessions=None, price_band=None),
        polling=Polling(fast=0.02, slow=0.05), lists_to_reject=LISTS, timeout=5.0,
    )  # fmt: skip


class Steps:
    """Counts the steps, and ends the process at its own."""

    def __init__(self, task: Task) -> None:
        self._at = task.at
        self._trace = os.open(f"{task.folder}/trace", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()
        self._count = 0

    def step(self, name: str) -> None:
        with self._lock:
            is_last = self._count == self._at
            self._count += 1
            if is_last or self._at < 0:
                _WRITE(self._trace, f"{name}\n".encode())
            if is_last:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)

    def around(self, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self.step(f"before {name}")
            result = real(*arguments, **options)
            self.step(f"after {name}")
            return result

        setattr(owner, name, call)

    def watch(self) -> None:
        for name in ("fsync", "replace", "ftruncate", "unlink"):
            self.around(os, name)
        for name in ("connect", "sendall", "recv_into"):
            self.around(socket.socket, name)
        os.write = self._torn  # type: ignore[assignment]

    def _torn(self, descriptor: int, data: Any) -> int:
        self.step("before write")
        with self._lock:
            dies_within = self._count == self._at
        if dies_within:
            _WRITE(descriptor, bytes(data)[: len(data) // 2])
        self.step("within write")
        written = _WRITE(descriptor, data)
        self.step("after write")
        return written


def live(task: Task) -> None:
    """One life. What the client said goes to ``said``, at once."""
    said = os.open(f"{task.folder}/said", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    Steps(task).watch()
    with contextlib.suppress(TradeError), client_of(task.server, task.folder) as client:
        if task.action == "cancel":
            call: Callable[[], Any] = lambda: client.cancel(client.orders()[-1])  # noqa: E731
        else:
            call = lambda: getattr(client, task.action)(*ORDERS[task.action])  # noqa: E731
        try:
            done = call()
            if task.action != "cancel":
                _WRITE(said, f"{done.intent} accepted {done.order_id}\n".encode())
        finally:
            for _ in range(LISTS):
                client.orders()


def main() -> None:
    for line in sys.stdin:
        task = Task(**json.loads(line))
        child = os.fork()
        if not child:
            try:
                live(task)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        if task.seconds:
            time.sleep(task.seconds)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print("died" if os.WIFSIGNALED(status) else f"exit {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    main()
