"""Autobahn|Testsuite against the shipped listener: starts the hostile server, meets its cases, tells what it found.

    python tests/autobahn_client.py WSTEST FOLDER LOOP CASE...

LOOP is `asyncio` or `uvloop`, a CASE reads like `1.*`. The server binds every address, so `autobahn_suite.py` starts
this in a network namespace of its own, where loopback is still down. The findings go to FOLDER/findings.json.
"""

import array
import asyncio
import contextlib
import fcntl
import importlib.metadata
import json
import platform
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport

import jvq_fast
from jvq_fast.allocation import ServerAddress
from jvq_fast.capture import ENTRY, MESSAGE
from jvq_fast.connection import Connection, uses_aiofastnet
from jvq_fast.decoder import Decoder
from jvq_fast.listener import Tap
from jvq_fast.redact import Secret

AGENT = "jvq_fast"
PORT = 9001
MAX_MESSAGE = 10 << 20
CASE_TIME = 120.0
START_TIME = 60.0


def raise_loopback() -> None:
    """What `ip link set lo up` does, where there may be no `ip`."""
    get_flags, set_flags, up = 0x8913, 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = array.array("b", struct.pack("16sh22x", b"lo", 0))
        fcntl.ioctl(any_socket, get_flags, request)
        (flags,) = struct.unpack_from("h", request, 16)
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh22x", b"lo", flags | up))


class Echo(WSListener):
    """Hands everything to the connection's own listener, and sends back each message that came out of it.

    The listener keeps binary messages to the decoder and its tap. The tap is emptied after every frame, so messages of
    both types go back in the order they came.
    """

    def __init__(self, connection: Connection, tap: Tap) -> None:
        super().__init__()
        self.inner = connection.listener
        self.tap = tap

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @property
    def owner(self) -> Any:
        return self.inner.owner

    @owner.setter
    def owner(self, owner: Any) -> None:
        self.inner.owner = owner

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.inner.on_ws_connected(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.inner.on_ws_frame(transport, frame)
        entries, at = self.tap.take() or b"", 0
        while at < len(entries):
            _, size, _, kind, _, _ = ENTRY.unpack_from(entries, at)
            at += ENTRY.size + size
            if kind == MESSAGE and not transport.is_close_frame_sent:
                transport.send(WSMsgType.BINARY, entries[at - size : at])

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.inner.on_ws_disconnected(transport)


class Meeting:
    """One connection to the server; texts go back too where `echoing`."""

    def __init__(self, path: str, echoing: bool, **query: str) -> None:
        self.echoing = echoing
        self.texts: list[str] = []
        tap = Tap(4 * MAX_MESSAGE)
        decoder = Decoder(capacity=16, history=16)
        decoder.on_error = lambda error, where: None  # not market data; only the frames matter here
        self.connection = Connection(
            ServerAddress("ws", "127.0.0.1", PORT, path, tuple(query.items())),
            Secret("0" * 32),
            decoder,
            self,
            tap=tap,
            max_message=MAX_MESSAGE,
            close_timeout=1.0,
        )
        self.connection.listener = Echo(self.connection, tap)  # type: ignore[assignment]

    def opened(self, connection: Connection) -> None:
        """Nothing to subscribe to."""

    def text(self, text: str) -> None:
        self.texts.append(text)
        if self.echoing:
            self.connection.send(text)

    async def run(self) -> str:
        """Why the connection ended."""
        async with asyncio.timeout(CASE_TIME):
            assert await self.connection.open(10.0, 10.0, asyncio.Event())
            reason = await self.connection.ended()
        if self.connection.listener.fatal is not None:
            raise self.connection.listener.fatal
        return reason


async def ask(path: str, **query: str) -> Any:
    """The server's answer to a question."""
    meeting = Meeting(path, echoing=False, **query)
    await meeting.run()
    (text,) = meeting.texts
    return json.loads(text)


async def meet_all(progress: bool) -> tuple[dict[str, str], dict[str, str]]:
    """All cases; why each connection ended, by case, and what this side consists of."""
    count = int(await ask("/getCaseCount"))
    reasons = {}
    for number in range(1, count + 1):
        case = str((await ask("/getCaseInfo", case=str(number)))["id"])
        reasons[case] = await Meeting("/runCase", echoing=True, case=str(number), agent=AGENT).run()
        if progress:
            print(f"\r{number}/{count} {case}   ", end="", file=sys.stderr, flush=True)
    await Meeting("/updateReports", echoing=False, agent=AGENT).run()
    loop = asyncio.get_running_loop()
    aiofastnet = f", aiofastnet {importlib.metadata.version('aiofastnet')}" if uses_aiofastnet(loop) else ""
    versions = {
        "jvq_fast": jvq_fast.__version__,
        "picows": importlib.metadata.version("picows"),
        "Python": platform.python_version(),
        "loop": type(loop).__module__.partition(".")[0] + aiofastnet,
    }
    return reasons, versions


def wait_for_server(server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_TIME
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", PORT), 1):
            return
        time.sleep(0.1)
    raise SystemExit("the server did not start")


def main(wstest: str, folder: Path, loop: str, cases: list[str]) -> int:
    raise_loopback()
    reports = folder / "reports"
    spec = folder / "spec.json"
    spec.write_text(
        json.dumps(
            {
                "url": f"ws://127.0.0.1:{PORT}",
                "outdir": str(reports),
                "cases": cases,
                "exclude-cases": [],
                "exclude-agent-cases": {},
            }
        )
    )
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [wstest, "--mode", "fuzzingserver", "--spec", str(spec), "--webport", "0"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_for_server(server)
            factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
            with asyncio.Runner(loop_factory=factory) as runner:
                reasons, versions = runner.run(meet_all(sys.stderr.isatty()))
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait(10)
    index = json.loads((reports / "index.json").read_text())[AGENT]
    findings = {
        case: {"behavior": index[case]["behavior"], "close": index[case]["behaviorClose"], "reason": reasons[case]}
        for case in reasons
    }
    (folder / "findings.json").write_text(json.dumps({"versions": versions, "cases": findings}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4:]))
