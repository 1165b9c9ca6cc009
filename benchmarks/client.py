"""One client of `benchmarks.latency` and `benchmarks.throughput`, in a process of its own.

    python -m benchmarks.client NAME PORT STAMPS SUBSCRIPTION

It connects to the generator on 127.0.0.1 and subscribes. Its callback reads the last price and appends
``time.monotonic_ns()`` to a list, which becomes the file STAMPS, one int64 each: jvq_fast and the official client are
called once a row, the others once a message. Between the generator's texts "0#begin" and "0#end" it takes its CPU time;
what came of it is printed in JSON. All but the official client, which has a thread and a blocking socket, run on uvloop
if that is installed.
"""

import asyncio
import importlib
import json
import os
import resource
import sys
import threading
import time
from array import array
from collections.abc import Callable, Coroutine
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from benchmarks.peers import zlib_and_split

DAY = "2026-11-23"
TOKEN = "benchmark"


def used() -> tuple[float, float, int]:
    """The time, the CPU time, and how often something else was given the core."""
    return time.monotonic(), time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


class Measured:
    """What a client notes: `price` and `stamps` by its callback, the rest by `hear`."""

    def __init__(self) -> None:
        self.price = 0.0
        self.stamps: list[int] = []
        self.found: dict[str, Any] = {}
        self.compiled: Any = None
        self._begun = (0.0, 0.0, 0)

    def take(self) -> None:
        """What a compiled handler noted."""
        if self.compiled is not None:
            self.price = self.compiled.price
            self.stamps[:] = array("q", self.compiled.taken())

    def hear(self, text: str) -> bool:
        """True where the text says that it is over."""
        if text == "0#begin":
            self.found["warm_up"] = len(self.stamps)
            self._begun = used()
        elif text == "0#end":
            spent = (now - begun for now, begun in zip(used(), self._begun, strict=True))
            self.found |= zip(("wall_s", "cpu_s", "preempted"), spent, strict=True)
            return True
        return False


def split(measured: Measured) -> Callable[[bytes], None]:
    """A callback for whole messages: zlib, `str.split`, and the price of the last trade."""
    parse = zlib_and_split()
    keep, now = measured.stamps.append, time.monotonic_ns

    def handle(payload: bytes) -> None:
        measured.price = parse(payload, 0)[-1][3]
        keep(now())

    return handle


def run(main: Coroutine[Any, Any, None]) -> None:
    """On uvloop, else on asyncio."""
    make: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with suppress(ImportError):
        import uvloop

        make = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=make) as runner:
        runner.run(main)


def in_python(measured: Measured) -> Callable[[str, Any], None]:
    """A handler of rows."""
    keep, now = measured.stamps.append, time.monotonic_ns

    def on_trades(_code: str, trades: Any) -> None:
        measured.price = trades["price"][-1]
        keep(now())

    return on_trades


def in_cython(measured: Measured) -> Any:
    """The same, compiled now if it has not been. Its notes stay with it until `Measured.take`."""
    import pyximport

    # The compiler speaks on standard output, which is for the result.
    with redirect_stdout(sys.stderr):
        pyximport.install(build_dir=str(Path("build", "bench", "cython")), language_level=3)
        handler = importlib.import_module("benchmarks.native.handler").Stamps()
    measured.compiled = handler
    return handler


def jvq_fast(
    measured: Measured, port: int, subscription: str, handler: Callable[[Measured], Any] = in_python, **settings: Any
) -> None:
    import jvq_fast as jvq

    feed = jvq.Feed(TOKEN, subscription.split(","), server=f"127.0.0.1:{port}", trading_day=DAY, **settings)
    feed.on_trades(handler(measured))

    @feed.on_text
    def on_text(text: str) -> None:
        measured.take()
        if measured.hear(text):
            feed.stop()

    feed.on_disconnect(lambda *_: feed.stop())
    feed.run()
    measured.take()
    stats = feed.stats()
    measured.found["trades"] = feed.trades.head
    measured.found["bad"] = stats["bad"]
    if feed.trades.head:
        measured.found["last_seq"] = int(feed.trades.last(1)["seq"][0])


def official(measured: Measured, port: int, subscription: str) -> None:
    from jvQuant import websocket_client

    class Allocation(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"code": "0", "server": f"ws://127.0.0.1:{port}"}).encode())

        def log_message(self, *_: object) -> None:
            """Nothing to say."""

    # The address it asks for a server is fixed in it, so it is led elsewhere by a proxy.
    server = HTTPServer(("127.0.0.1", 0), Allocation)
    server.timeout = 30
    os.environ |= {"http_proxy": f"http://127.0.0.1:{server.server_port}", "no_proxy": "127.0.0.1"}
    threading.Thread(target=server.handle_request, daemon=True).start()
    keep, now = measured.stamps.append, time.monotonic_ns

    def on_row(row: Any) -> None:
        measured.price = row.deal_list[-1].price
        keep(now())

    def on_text(text: str) -> None:
        if measured.hear(text):
            client.disconnect()

    client = websocket_client.Construct(market="ab", token=TOKEN, log_handle=on_text, ab_lv2_handle=on_row)
    client.add_lv2([name.removeprefix("lv2_") for name in subscription.split(",")])
    client.thread_join()


def websockets(measured: Measured, port: int, subscription: str) -> None:
    from websockets.asyncio.client import connect

    async def main() -> None:
        handle = split(measured)
        async with connect(
            f"ws://127.0.0.1:{port}", compression=None, max_size=None, ping_interval=None, proxy=None
        ) as connection:
            await connection.send(f"add={subscription}")
            async for message in connection:
                if isinstance(message, bytes):
                    handle(message)
                elif measured.hear(message):
                    break

    run(main())


def aiohttp(measured: Measured, port: int, subscription: str) -> None:
    from aiohttp import ClientSession, WSMsgType

    async def main() -> None:
        handle = split(measured)
        url = f"ws://127.0.0.1:{port}"
        async with ClientSession() as session, session.ws_connect(url, max_msg_size=0) as connection:
            await connection.send_str(f"add={subscription}")
            async for message in connection:
                if message.type is WSMsgType.BINARY:
                    handle(message.data)
                elif message.type is WSMsgType.TEXT and measured.hear(message.data):
                    break

    run(main())


def picows(measured: Measured, port: int, subscription: str) -> None:
    from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

    handle = split(measured)

    class Listener(WSListener):
        def on_ws_connected(self, transport: WSTransport) -> None:
            transport.send(WSMsgType.TEXT, f"add={subscription}".encode())

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            if frame.msg_type == WSMsgType.BINARY:
                handle(frame.get_payload_as_bytes())
            elif frame.msg_type == WSMsgType.TEXT and measured.hear(frame.get_payload_as_utf8_text()):
                transport.send_close(WSCloseCode.OK)
            elif frame.msg_type == WSMsgType.CLOSE:
                transport.disconnect()

    async def main() -> None:
        # Behind uvloop's own transports it is faster than with those of aiofastnet.
        transport, _ = await ws_connect(Listener, f"ws://127.0.0.1:{port}", use_aiofastnet=False)
        await transport.wait_disconnected()

    run(main())


@dataclass(frozen=True)
class Client:
    """How it runs, on what package, and whether its callback takes a row or a whole message."""

    run: Callable[[Measured, int, str], None]
    package: str
    by_row: bool = False


CLIENTS = {
    "jvq_fast": Client(partial(jvq_fast, loop="auto"), "picows", by_row=True),
    "jvq_fast-cython": Client(partial(jvq_fast, handler=in_cython), "Cython", by_row=True),
    "jvq_fast-asyncio": Client(partial(jvq_fast, loop="asyncio"), "picows", by_row=True),
    "jvq_fast-spinning": Client(partial(jvq_fast, loop="auto", busy_poll=True), "picows", by_row=True),
    "official": Client(official, "jvQuant", by_row=True),
    "websockets": Client(websockets, "websockets"),
    "aiohttp": Client(aiohttp, "aiohttp"),
    "picows": Client(picows, "picows"),
}


def main() -> None:
    name, port, path, subscription = sys.argv[1:]
    measured = Measured()
    CLIENTS[name].run(measured, int(port), subscription)
    with Path(path).open("wb") as file:
        array("q", measured.stamps).tofile(file)
    print(json.dumps({"price": float(measured.price), **measured.found}))


if __name__ == "__main__":
    main()
