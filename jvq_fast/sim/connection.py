"""One client of the market-data server: its commands in, its messages out."""

import asyncio
import socket
import struct
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from jvq_fast.sim.cargo import EXTRA_MARKS, Cargo, Record
from jvq_fast.sim.ledger import Ledger
from jvq_fast.sim.line import BINARY, CLOSE, CONTINUATION, PING, TEXT, Line, frame, unsent
from jvq_fast.sim.settings import Settings
from jvq_fast.sim.wire import Message

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


class Host(Protocol):
    """Whom a connection tells what its client does."""

    def connected(self, connection: "Connection") -> None:
        """The handshake is done."""

    def disconnected(self, connection: "Connection") -> None:
        """It has ended, one way or another."""

    def command(self, connection: "Connection", text: str) -> None:
        """The client asks for something; for nothing, with what is no text."""

    def too_slow(self) -> None:
        """The client leaves more unread than it may, and is cut."""


class Connection(WSListener):
    """One client: its commands in, its messages out."""

    def __init__(
        self, host: Host, settings: Settings, ledger: Ledger | None, number: int, token: str, refusal: str
    ) -> None:
        self._host = host
        self._settings = settings
        self._ledger = ledger
        self.id = number
        self.token = token
        self.refusal = refusal
        self.transport: WSTransport | None = None
        self.is_open = False
        self.subscriptions: dict[str, str] = {}  # lv2_600519 -> 600519
        self.message = Message(settings.trailing_newline)
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
        self._host.connected(self)

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
            if self._settings.pong:
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
                self._host.command(self, text if self._partial_text else "")

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
                self.settle(rest, 0)
            self.is_open = False
            self._host.disconnected(self)

    def waiting(self) -> int:
        """Bytes that the client has not taken yet."""
        assert self.transport is not None
        waiting: int = self.transport.underlying_transport.get_write_buffer_size()
        return waiting if self._line is None else waiting + self._line.waiting

    def take(self) -> Message | None:
        """The message that was put together, which begins anew; None where nothing can be sent any more."""
        message, self.message = self.message, Message(self._settings.trailing_newline)
        if not self.is_open or self.transport is None or self.transport.underlying_transport.is_closing():
            return None
        self.attempts += 1
        return message

    @property
    def is_hindered(self) -> bool:
        """Whether faults there were have a part in the next message."""
        return bool(self.muted or self.late or self._line is not None)

    def send_whole(self, message: Message, text: str, payload: bytes) -> None:
        """Send a message as it is, and into the books with it; ``text`` is its text."""
        assert self.transport is not None
        self.stamps.add()
        if self._settings.fragments == 1:
            self.transport.send(WSMsgType.BINARY, payload)
        else:
            self.send_payload(payload)
        if self._ledger is not None:
            self._ledger.whole(self.id, self.attempts, text)
        self.messages += 1
        self.bytes += len(payload)
        self.trades += message.trades
        self.quotes += message.quotes
        self.depths += message.depths
        self._check_buffer()

    def settle(self, cargo: Cargo, size: int) -> None:
        """Into the books: what became of the records of a message of so many bytes."""
        counts = cargo.count()
        if cargo.reached and size:
            self.messages += 1
            self.bytes += size
            self.stamps.add()
        self.trades += counts["lv2"]
        self.quotes += counts["lv1"]
        self.depths += counts["lv10"]
        for mark in EXTRA_MARKS:
            self.faulty[mark] += counts[mark]
        if self._ledger is not None:
            self._ledger.cargo(self.id, cargo)

    def frames(self, payload: bytes) -> Iterator[bytes]:
        """A message in as many frames as the settings want."""
        size = max(1, -(-len(payload) // self._settings.fragments))
        for at in range(0, max(len(payload), 1), size):
            yield frame(CONTINUATION if at else BINARY, payload[at : at + size], fin=at + size >= len(payload))

    def send_payload(self, payload: bytes) -> None:
        """Send a message."""
        assert self.transport is not None
        self.transport.underlying_transport.write(b"".join(self.frames(payload)))
        self._check_buffer()

    def _check_buffer(self) -> None:
        if self.is_open and self.waiting() > self._settings.buffer_limit:
            self._host.too_slow()
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
