"""One client of the market-data server: its commands in, its messages out."""

import asyncio
import socket
import struct
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from jvq_fast.sim.cargo import EXTRA_MARKS, Cargo, Record
from jvq_fast.sim.delivery import deliver, settle
from jvq_fast.sim.line import BINARY, CLOSE, CONTINUATION, PING, TEXT, Line, frame, unsent
from jvq_fast.sim.wire import Message

if TYPE_CHECKING:
    from jvq_fast.sim.server import Server

MAX_COMMAND = 1 << 20
_STAMPS = 1 << 20
_ON_ITS_WAY = 0.1  # seconds
_GOODBYE = 1.0  # seconds for the client to answer a CLOSE
_FORGOTTEN = 600.0  # seconds after which a connection on which nothing moves any more is given up
_PONG = 10
_DISMISSED = frame(CLOSE, (1008).to_bytes(2, "big"))
_RESET = struct.pack("ii", 1, 0)


class Stamps:
    """When each message of a connection was handed to the socket: the latest million, CLOCK_MONOTONIC nanoseconds."""

    def __init__(self) -> None:
        self._values = array("q")
        self._dropped = 0

    def add(self) -> None:
        """Stamp a message now."""
        self._values.append(time.monotonic_ns())
        if len(self._values) > 2 * _STAMPS:
            del self._values[:_STAMPS]
            self._dropped += _STAMPS

    def clear(self) -> None:
        """Keep none."""
        self._dropped += len(self._values)
        self._values = array("q")

    def since(self, number: int) -> tuple[int, bytes]:
        """Stamps of the messages from ``number`` on, 0 for the first ever: (number of the first one, int64 each)."""
        first = max(number, self._dropped)
        values = self._values[first - self._dropped :]
        values = array("q", values)
        return first, values.tobytes()


class Connection(WSListener):
    """One client: its commands in, its messages out."""

    def __init__(self, server: "Server", number: int, token: str, refusal: str) -> None:
        self.server = server
        self.id = number
        self.token = token
        self.refusal = refusal
        self.transport: WSTransport | None = None
        self.is_open = False
        self.subscriptions: dict[str, str] = {}  # lv2_600519 -> 600519
        self.message = Message(server.settings.trailing_newline)
        self.stamps = Stamps()
        self.messages = self.bytes = self.trades = self.quotes = self.depths = 0
        self.waited = 0.0, 0  # since when how many bytes have waited
        self.attempts = 0  # messages that were to be sent, whatever became of them
        self.muted = ""  # the fault that keeps it from sending
        self.answers = True  # commands and pings
        self.faulty = dict.fromkeys(EXTRA_MARKS, 0)  # records by what a fault made of them
        self.late: list[tuple[int, Record]] = []  # records to go with a later message: its number
        self._line: Line | None = None
        self._broken = False  # the client waits for the rest of a frame
        self._leaving = False  # CLOSE is sent, the client's is awaited
        self._partial = bytearray()
        self._partial_text = False

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.is_open = True
        self.server.connected(self)

    def on_ws_disconnected(self, transport: WSTransport) -> None:  # noqa: ARG002
        self.close()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if not self.is_open:
            if self._leaving and kind == WSMsgType.CLOSE:
                transport.disconnect()
            return
        if kind == WSMsgType.CLOSE:
            self.hurry()
            if self.answers:
                transport.send_close(WSCloseCode.OK)
            self.close()
            transport.disconnect()
        elif kind == WSMsgType.PING:
            if self.server.settings.pong:
                self._control(_PONG, frame.get_payload_as_bytes())
        elif kind in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
            if kind != WSMsgType.CONTINUATION:
                self._partial.clear()
                self._partial_text = kind == WSMsgType.TEXT
            self._partial += frame.get_payload_as_bytes()
            if len(self._partial) > MAX_COMMAND:
                self.cut()
            elif frame.fin:
                text = self._partial.decode("utf-8", "replace").strip()
                self._partial.clear()
                self.server.command(self, text if self._partial_text else "")

    def _control(self, kind: int, payload: bytes) -> None:
        """Send a frame that is no market data."""
        if not self.is_open or self.transport is None or not self.answers:
            return
        if self.transport.underlying_transport.is_closing():
            return
        if self.line_is_busy:
            self.write([frame(kind, payload)])
        else:
            self.transport.send(WSMsgType(kind), payload)
        self._check_buffer()

    def text(self, text: str) -> None:
        """Send a TEXT frame."""
        self._control(TEXT, text.encode())

    def ping(self) -> None:
        """Send a ping."""
        self._control(PING, b"")

    def dismiss(self, text: str, *, close: bool = True) -> None:
        """Say why, and close in good order; without ``close``, without a CLOSE frame."""
        self.text(text)
        self.end(_DISMISSED if close and self.answers else b"")

    def end(self, last: bytes = b"") -> None:
        """Close the TCP connection behind all there is to send."""
        if self.is_open and self.transport is not None:
            self.write([last])
            self.hurry()
            self.transport.disconnect()
        self.close()

    def say_close(self, frames: bytes) -> None:
        """Send this as CLOSE, and end when the client has answered or had its time."""
        if self.is_open and self.transport is not None:
            self.write([frames])
            self.hurry()
            self._leaving = True
            asyncio.get_running_loop().call_later(_GOODBYE, self.transport.disconnect)
        self.close()

    def reset(self) -> None:
        """RST, as soon as the client's side has taken what was sent: RST throws away what is still on its way."""
        if not self.is_open or self.transport is None:
            return
        transport, loop = self.transport, asyncio.get_running_loop()
        connected = transport.underlying_transport.get_extra_info("socket")
        until = loop.time() + _ON_ITS_WAY
        self.close()

        def attempt() -> None:
            if not transport.is_disconnected:
                waiting = unsent(connected) or transport.underlying_transport.get_write_buffer_size()
                if waiting and loop.time() < until:
                    loop.call_later(0.001, attempt)
                    return
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                transport.disconnect(graceful=False)

        attempt()

    def mute(self, fault: str, *, answers: bool) -> None:
        """No market data any more, and no answers either unless told so; what the client says is read."""
        self.muted = self.muted or fault
        self.answers = self.answers and answers

    def freeze(self) -> None:
        """As if the cable had been cut: nothing is sent or read."""
        self.mute("half_open", answers=False)
        self._broken = self._broken or self.line_is_busy
        if self._line is not None:
            self._line.abandon()
        if self.transport is not None:
            self.transport.underlying_transport.pause_reading()
            asyncio.get_running_loop().call_later(_FORGOTTEN, self.release)

    def release(self) -> None:
        """The end of ``mute`` and ``freeze``: it goes on, unless the client waits for the rest of a frame."""
        if not self.is_open or self.transport is None or not self.muted:
            return
        self.muted, self.answers = "", True
        self.transport.underlying_transport.resume_reading()
        if self._broken:
            self.cut()

    def write(self, pieces: Sequence[bytes], pause: float = 0.0, done: Callable[[bool], None] | None = None) -> None:
        """Write bytes, each piece on its own and ``pause`` seconds apart, behind what is being written so."""
        if self.transport is None or not self.is_open:
            if done:
                done(False)
            return
        if self._line is None:
            self._line = Line(self.transport.underlying_transport)
        self._line.write(pieces, pause, done)
        self._check_buffer()

    @property
    def line_is_busy(self) -> bool:
        """Whether a frame is being written piece by piece."""
        return self._line is not None and self._line.busy

    def hurry(self) -> None:
        """Write what is being written piece by piece at once."""
        if self._line is not None:
            self._line.hurry()

    def cut(self) -> None:
        """End it without a word."""
        if self.transport is not None:
            self.transport.disconnect(graceful=False)
        self.close()

    def close(self) -> None:
        """Nothing more is sent; what was sent stays known."""
        if self.is_open:
            if self._line is not None:
                self._line.abandon()
            if self.late:
                rest = Cargo(self.attempts, [[record] for _, record in self.late])
                rest.spoil("missing", "closed")
                settle(self, rest, 0)
            self.is_open = False
            self.server.disconnected(self)

    def waiting(self) -> int:
        """Bytes that the client has not taken yet."""
        assert self.transport is not None
        waiting: int = self.transport.underlying_transport.get_write_buffer_size()
        return waiting if self._line is None else waiting + self._line.waiting

    def flush(self, deflated: Callable[[str], bytes]) -> None:
        """Send the message that was put together."""
        message = self.message
        trades, quotes, depths = message.trades, message.quotes, message.depths
        text = message.take()
        if not self.is_open or self.transport is None or self.transport.underlying_transport.is_closing():
            return
        self.attempts += 1
        if self.server.faults.armed or self.muted or self.late or self._line is not None:
            deliver(self, text, deflated)
            return
        payload = deflated(text)
        self.stamps.add()
        if self.server.settings.fragments == 1:
            self.transport.send(WSMsgType.BINARY, payload)
        else:
            self.send_payload(payload)
        if self.server.ledger is not None:
            self.server.ledger.whole(self.id, self.attempts, text)
        self.messages += 1
        self.bytes += len(payload)
        self.trades += trades
        self.quotes += quotes
        self.depths += depths
        self._check_buffer()

    def frames(self, payload: bytes) -> Iterator[bytes]:
        """A message in as many frames as the settings want."""
        size = max(1, -(-len(payload) // self.server.settings.fragments))
        for at in range(0, max(len(payload), 1), size):
            yield frame(CONTINUATION if at else BINARY, payload[at : at + size], fin=at + size >= len(payload))

    def send_payload(self, payload: bytes) -> None:
        """Send a message."""
        assert self.transport is not None
        self.transport.underlying_transport.write(b"".join(self.frames(payload)))
        self._check_buffer()

    def _check_buffer(self) -> None:
        if self.is_open and self.waiting() > self.server.settings.buffer_limit:
            self.server.slow_readers_cut += 1
            self.cut()

    def stats(self) -> dict[str, Any]:
        """What /stats says of it."""
        return {
            "id": self.id,
            "open": self.is_open,
            "subscriptions": list(self.subscriptions),
            "messages": self.messages,
            "bytes": self.bytes,
            "trades": self.trades,
            "quotes": self.quotes,
            "depths": self.depths,
            "records": self.trades + self.quotes + self.depths,
            "faulty": dict(self.faulty),
        }
