"""Runs the simulator in a process of its own, for tests, and asks it things."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zlib
from array import array
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("JVQ_FAST_DATA", ROOT / ".." / "shared" / "data"))
TOKEN = "0123456789abcdef0123456789abcdef"
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Simulator:
    """``with Simulator("--seed", "7") as sim:`` — options as on the command line; ready when the block begins.

    ``http``, ``ws``, ``trade`` and ``trading_day`` are those of the ready line. Leaving the block ends the process.
    """

    def __init__(self, *options: str, timeout: float = 60.0) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by __exit__)
        command = [sys.executable, "-m", "jvq_fast.sim", "--json", *options]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=self._errors, text=True)
        lines: queue.Queue[str] = queue.Queue()
        assert self.process.stdout is not None
        stdout = self.process.stdout
        threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True).start()
        try:
            ready = json.loads(lines.get(timeout=timeout))
        except (queue.Empty, ValueError):
            self.stop()
            errors = self.errors()
            self._errors.close()
            raise AssertionError(f"the simulator did not start: {errors}") from None
        self.http: str = ready["http"]
        self.ws: str = ready["ws"]
        self.trade: str = ready["trade"]
        self.trading_day: str = ready["trading_day"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._errors.close()

    def url(self, token: str = TOKEN) -> str:
        """The address a client connects to."""
        return f"{self.ws}?token={token}"

    def errors(self) -> str:
        """What the process wrote to stderr."""
        self._errors.seek(0)
        return self._errors.read()

    def request(self, path: str, *, method: str = "GET", data: bytes = b"", timeout: float = 20.0) -> bytes:
        """The body of a reply."""
        request = urllib.request.Request(self.http + path, method=method, data=data if method == "POST" else None)
        with _OPENER.open(request, timeout=timeout) as reply:
            return bytes(reply.read())

    def stats(self) -> dict[str, Any]:
        """GET /stats."""
        return dict(json.loads(self.request("/stats")))

    def stamps(self, connection: int, since: int = 0) -> list[int]:
        """GET /stamps: when each message of a connection was sent, monotonic nanoseconds."""
        return list(array("q", self.request(f"/stamps?connection={connection}&from={since}")))

    def move(self) -> str:
        """POST /move: every connection is cut; the new address, which ``ws`` is from now on."""
        self.ws = json.loads(self.request("/move", method="POST"))["ws"]
        return self.ws

    def fault(self, kind: str, **parameters: Any) -> int:
        """POST /fault: let something go wrong; the fault's number. ValueError with what is said against it."""
        body = json.dumps({"kind": kind, **parameters}).encode()
        try:
            return int(json.loads(self.request("/fault", method="POST", data=body))["id"])
        except urllib.error.HTTPError as error:
            with error:
                raise ValueError(json.loads(error.read())["error"]) from None

    def faults(self) -> dict[str, Any]:
        """GET /fault: ``faults``, and in ``happened`` what did and when."""
        return dict(json.loads(self.request("/fault")))

    def clear(self, number: int = 0, kind: str = "") -> None:
        """DELETE /fault: end one fault, those of a kind, or all."""
        self.request(f"/fault?id={number}&kind={kind}", method="DELETE")

    def sent(self, connection: int) -> "list[Sent]":
        """GET /sent: what a connection was sent, record by record; needs the option --keep-sent."""
        return [Sent(*entry) for entry in json.loads(self.request(f"/sent?connection={connection}"))]

    def broker(self, account: str = "") -> dict[str, Any]:
        """GET /broker: accounts, orders with their fills, the requests received, and what does not add up."""
        return dict(json.loads(self.request(f"/broker?account={account}")))

    def go(self) -> None:
        """POST /go: start a market that was started with --hold."""
        self.request("/go", method="POST")

    def wait(self, condition: Callable[[dict[str, Any]], bool], timeout: float = 30.0) -> dict[str, Any]:
        """The first /stats for which ``condition`` holds; AssertionError after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            stats = self.stats()
            if condition(stats):
                return stats
            assert time.monotonic() < deadline, f"not in {timeout} s: {stats}"
            time.sleep(0.02)

    def wait_still(self, timeout: float = 30.0, quiet: float = 0.3) -> dict[str, Any]:
        """The /stats once nothing has been sent for ``quiet`` seconds."""
        deadline = time.monotonic() + timeout
        before = self.stats()
        while True:
            time.sleep(quiet)
            after = self.stats()
            if after["total"] == before["total"]:
                return after
            assert time.monotonic() < deadline, f"still sending after {timeout} s"
            before = after

    def stop(self, number: int = signal.SIGTERM, timeout: float = 10.0) -> int:
        """End the process; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(timeout)
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()


class Sent(NamedTuple):
    """A record that a connection was sent, or was to be sent.

    ``mark``: good; moved: good, but out of order; extra: sent once more, or an old one; altered: it can be read, but is
    not what the market said; damaged: it can't be read, alone or with its message; missing: it was not sent.
    """

    message: int  # counted from 1, those that were not sent included
    mark: str
    fault: str
    name: str  # lv2_600519
    text: str

    @property
    def readable(self) -> bool:
        """Whether a client that gets the message whole can read it."""
        return self.mark in ("good", "moved", "extra", "altered")


class Message(NamedTuple):
    """A payload, inflated: its text and its rows, (level, code, records), in order."""

    text: str
    rows: list[tuple[str, str, list[list[str]]]]


def read_message(payload: bytes) -> Message:
    """Inflate with the standard library, split: nothing here is shared with the simulator or the decoder."""
    inflate = zlib.decompressobj(-15)
    text = (inflate.decompress(payload) + inflate.flush()).decode()
    assert inflate.eof
    assert not inflate.unused_data
    rows = []
    for row in text.split("\n"):
        if row:
            head, _, body = row.partition("=")
            level, _, code = head.partition("_")
            rows.append((level, code, [record.split(",") for record in body.split("|")]))
    return Message(text, rows)


class Peer:
    """A client that is not ours: ``websockets`` and the standard library. Every wait has a timeout."""

    def __init__(self, url: str, **options: Any) -> None:
        options = {
            "compression": None, "max_size": None, "ping_interval": None, "proxy": None, "open_timeout": 10,
            "close_timeout": 1, **options,
        }  # fmt: skip
        self._stack = contextlib.ExitStack()
        self.socket = self._stack.enter_context(connect(url, **options))
        self.texts: list[str] = []
        self.messages: list[Message] = []
        self.payloads: list[bytes] = []
        self._records = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def send(self, command: str) -> None:
        """Send a command."""
        self.socket.send(command)

    def step(self, timeout: float = 10.0) -> str | Message:
        """The next frame, kept as well. TimeoutError, or the library's ConnectionClosed."""
        frame = self.socket.recv(timeout=timeout)
        if isinstance(frame, str):
            self.texts.append(frame)
            return frame
        self.payloads.append(frame)
        message = read_message(frame)
        self.messages.append(message)
        self._records += sum(len(records) for _, _, records in message.rows)
        return message

    def text(self, timeout: float = 10.0) -> str:
        """The next TEXT frame."""
        deadline = time.monotonic() + timeout
        while not isinstance(frame := self.step(max(0.0, deadline - time.monotonic())), str):
            pass
        return frame

    def until(self, condition: Callable[["Peer"], bool], timeout: float = 30.0) -> None:
        """Read until ``condition`` holds. TimeoutError after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while not condition(self):
            self.step(max(0.0, deadline - time.monotonic()))

    def drain(self, quiet: float = 0.5) -> None:
        """Read what there is until nothing comes for ``quiet`` seconds or the connection ends."""
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            while True:
                self.step(quiet)

    def rows(self, level: str, code: str | None = None) -> list[list[str]]:
        """All records received of a level, in order."""
        return [
            record
            for message in self.messages
            for row_level, row_code, records in message.rows
            for record in records
            if row_level == level and code in (None, row_code)
        ]

    def count(self) -> int:
        """Records received."""
        return self._records
