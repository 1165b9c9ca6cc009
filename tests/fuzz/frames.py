"""Bytes of a server, in socket reads of any size, through picows into a Listener; beside it a reader in plain Python.

The two must agree on the messages (as a capture records them, with the ends of the socket reads), the texts, the
answered pings, and how the connection was ended. The first byte of an input chooses the sizes of the reads.
"""

import asyncio
import base64
import hashlib
import io
import logging
import random
from collections.abc import Iterator
from typing import Any

import harness
from harness import pick

with harness.instrumented():
    from jvq_fast import capture, decoder
    from jvq_fast.decoder import Decoder
    from jvq_fast.listener import Listener, Tap

from picows.picows import WSAutoPingStrategy, WSProtocol

import wire
from ws_script import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame

# The handler is the same in every execution; looking at its signature takes half of one.
decoder.check = lambda name, handler: None

LIMIT = 300  # bytes in a message
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
Reads = list[list[bytes]]

# picows logs each protocol error.
LOG = logging.getLogger("jvq_fast.fuzz")
logging.disable(logging.CRITICAL)


class Future:
    """As much of a future as a protocol asks for, and of a loop: time stands still, nothing is called later."""

    is_done = False
    error: BaseException | None = None

    def done(self) -> bool:
        return self.is_done

    def set_result(self, result: Any) -> None:
        self.is_done = True

    def set_exception(self, error: BaseException) -> None:
        self.is_done, self.error = True, error

    def exception(self) -> BaseException | None:
        return self.error


class Loop:
    def create_future(self) -> Future:
        return Future()

    def call_later(self, delay: float, callback: Any, *arguments: Any) -> None:
        pass


class Wire:
    """The transport below, and its socket: keeps what is written."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.closed = False

    def get_extra_info(self, name: str) -> Any:
        return self if name == "socket" else None

    def fileno(self) -> int:
        return -1

    def setsockopt(self, *arguments: Any) -> None:
        pass

    def getsockopt(self, *arguments: Any) -> int:
        return 0

    def get_write_buffer_size(self) -> int:
        return 1  # or picows would write to the socket itself

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    abort = close


class Owner:
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.endings = 0

    def opened(self, transport: Any) -> None:
        self.transport = transport

    def text(self, text: str) -> None:
        self.texts.append(text)

    def ending(self) -> None:
        self.endings += 1

    def closed(self) -> None:
        pass


def unmask(sent: bytes) -> list[tuple[int, bytes]]:
    """The client's frames, all of them short."""
    found, at = [], 0
    while at < len(sent):
        assert sent[at] & 0xF0 == 0x80
        size = sent[at + 1]
        assert size & 0x80
        size &= 0x7F
        assert size <= 125
        mask, body = sent[at + 2 : at + 6], sent[at + 6 : at + 6 + size]
        assert len(body) == size
        found.append((sent[at] & 15, bytes(byte ^ mask[i % 4] for i, byte in enumerate(body))))
        at += 6 + size
    return found


class Product:
    """What the listener makes of the reads."""

    def __init__(self, reads: list[bytes]) -> None:
        self.decoder = Decoder(capacity=1, history=0, max_codes=1, max_inflated=4096)
        self.batches: list[int] = []
        self.decoder.on_batch = self.batches.append
        self.owner = Owner()
        tap = Tap(1 << 16)
        tap.connect(False)
        self.listener = Listener(self.decoder, self.owner, tap, LIMIT)
        protocol = WSProtocol(
            *("localhost", "/", True, lambda *_: self.listener, LOG, True, None, False, 10, 10),
            *(WSAutoPingStrategy.PING_WHEN_IDLE, False, LIMIT, {}, 2048),
        )
        transport = Wire()
        protocol.connection_made(transport)
        key = bytes(transport.sent).partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        transport.sent.clear()
        for read in [
            b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: " + accept,
            b"\r\n\r\n",
            *reads,
        ]:
            buffer = protocol.get_buffer(-1)
            buffer[: len(read)] = read
            protocol.buffer_updated(len(read))
            if transport.closed:
                break
        protocol.connection_lost(None)
        sent = unmask(bytes(transport.sent))
        self.pongs = [payload for kind, payload in sent if kind == PONG]
        closes = [int.from_bytes(payload[:2], "big") for kind, payload in sent if kind == CLOSE]
        self.close = closes[0] if closes else None
        self.reads = list(self._reads(tap))

    def _reads(self, tap: Tap) -> Iterator[list[bytes]]:
        reader = capture.Reader(io.BytesIO(capture.header("ab", 0) + (tap.take() or b"")), "tap")
        read: list[bytes] = []
        for entry in reader:
            if entry.kind == capture.MESSAGE:
                read.append(entry.payload)
            if read and (entry.ends_read or entry.kind == capture.END_OF_READ):
                yield read
                read = []
        assert not read, "a socket read without an end"
        assert not reader.damage


class IllegalError(Exception):
    """A frame that no server may send: args[0] is the code of the CLOSE that answers it."""


class Model:
    """RFC 6455, the client's side, in plain words: whole frames first, then what they mean together."""

    def __init__(self, reads: list[bytes]) -> None:
        self.reads: Reads = []
        self.texts: list[str] = []
        self.pongs: list[bytes] = []
        self.close: int | None = None
        self.open = 0
        self.parts = b""
        self.done = False
        self.is_unsure = False
        data = b""
        for number, read in enumerate(reads):
            data += read
            frames, data, illegal = self._split(data)
            self.read: list[bytes] = []
            for i, (first, payload) in enumerate(frames):
                # What can't be a frame is noticed while the one before it is still to be looked at.
                if illegal is not None and i == len(frames) - 1 and self.close is None:
                    self.close = illegal
                if not self.done:
                    try:
                        self._take(first & 0x80, first >> 4 & 7, first & 15, payload)
                    except IllegalError as error:
                        self._end(error.args[0])
            if self.read:
                self.reads.append(self.read)
            if illegal is not None:
                self._end(illegal)
            if self.done:
                self.is_unsure = not frames and self._looks_like_before(data, reads[number + 1 :])
                break

    def _looks_like_before(self, data: bytes, reads: list[bytes]) -> bool:
        """picows passes over a CLOSE that is illegal; alone in its read, the listener does not hear of it. Then one
        frame with the head of another behind it, in a later read, looks like one that stands before something illegal.
        """
        is_passed = True
        for read in reads:
            if is_passed:
                if data[0] & 0x8F != 0x80 | CLOSE or data[1] > 125:
                    return False
                data = data[2 + data[1] :]
            frames, data, illegal = self._split(data + read)
            if frames:
                return len(frames) == 1 and len(data) >= 2
            is_passed = illegal is not None
        return False

    def _split(self, data: bytes) -> tuple[list[tuple[int, bytes]], bytes, int | None]:
        """(first byte and payload of each whole frame, the rest, code where something illegal follows)"""
        frames = []
        while len(data) >= 2:
            kind, size, head = data[0] & 15, data[1], 2
            if kind not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG) or size & 0x80:
                return frames, data, 1002
            if kind >= 8 and (not data[0] & 0x80 or size > 125):
                return frames, data, 1002
            if size >= 126:
                wide = 2 if size == 126 else 8
                if len(data) < 2 + wide:
                    break
                size, head = int.from_bytes(data[2 : 2 + wide], "big"), 2 + wide
                if size < (126 if wide == 2 else 65536) or size >> 63:
                    return frames, data, 1002
            if kind < 8 and size > LIMIT:
                return frames, data, 1009
            if len(data) < head + size:
                break
            payload = data[head : head + size]
            if kind == CLOSE:
                code = self._bad_close(payload) or (1002 if any(first & 15 == CLOSE for first, _ in frames) else 0)
                if code:
                    return frames, data, code
            frames.append((data[0], payload))
            data = data[head + size :]
        return frames, data, None

    def _bad_close(self, payload: bytes) -> int:
        if len(payload) == 1:
            return 1002
        code = int.from_bytes(payload[:2], "big") if payload else 1000
        # 0 and 1006 are left to the listener.
        if code < 3000 and code not in (0, 1000, 1001, 1002, 1003, *range(1006, 1015)):
            return 1002
        try:
            payload[2:].decode()
        except UnicodeDecodeError:
            return 1007
        return 0

    def _end(self, code: int) -> None:
        self.done = True
        if self.close is None:
            self.close = code

    def _take(self, fin: int, reserved: int, kind: int, payload: bytes) -> None:
        if reserved:
            raise IllegalError(1002)
        if kind == PING:
            if self.close is None:  # nothing is sent after a CLOSE
                self.pongs.append(payload)
        elif kind == CLOSE:
            code = int.from_bytes(payload[:2], "big") if payload else 1000
            if code in (0, 1006) or code >= 5000:
                raise IllegalError(1002)
            self._end(code)
        elif kind != PONG:
            if (kind == CONTINUATION) != (self.open != 0):
                raise IllegalError(1002)
            self.open = self.open or kind
            self.parts += payload
            if len(self.parts) > LIMIT:
                raise IllegalError(1009)
            if fin:
                whole, kind = self.parts, self.open
                self.parts, self.open = b"", 0
                self._message(kind, whole)

    def _message(self, kind: int, payload: bytes) -> None:
        if kind == BINARY:
            self.read.append(payload)
            return
        try:
            self.texts.append(payload.decode())
        except UnicodeDecodeError:
            raise IllegalError(1007) from None


def cut(data: bytes) -> list[bytes]:
    """The rest of the input in socket reads."""
    how, rest = data[0], data[1:]
    if how < 64:
        return [rest] if rest else []
    if how < 128:
        size = how - 63
        return [rest[i : i + size] for i in range(0, len(rest), size)]
    if how >= 192:
        return split(rest)
    rng = random.Random(how)
    reads = []
    while rest:
        size = rng.randrange(1, 40)
        reads.append(rest[:size])
        rest = rest[size:]
    return reads


def check(data: bytes) -> None:
    if not data:
        return
    reads = cut(data)
    asyncio._set_running_loop(Loop())  # type: ignore[arg-type]
    try:
        product = Product(reads)
    finally:
        asyncio._set_running_loop(None)
    model = Model(reads)
    listener = product.listener
    assert listener.fatal is None, listener.fatal
    if model.is_unsure:
        # One frame with the head of another behind it, in a later read, looks like one before something illegal.
        assert sum(map(len, product.reads)) + len(product.owner.texts) <= (
            sum(map(len, model.reads)) + len(model.texts) + 1
        )
        return
    assert product.reads == model.reads, (product.reads, model.reads)
    assert product.owner.texts == model.texts, (product.owner.texts, model.texts)
    assert product.close == model.close, (product.close, model.close)
    assert product.pongs == model.pongs, (product.pongs, model.pongs)
    assert len(product.batches) == len(model.reads)
    assert listener.messages == product.decoder.messages == sum(map(len, model.reads))


def plant() -> None:
    """The model forgets the beginning of a message within which a PING came."""
    take = Model._take

    def wrong(self: Model, fin: int, reserved: int, kind: int, payload: bytes) -> None:
        if kind == PING and len(self.parts) > 9:
            self.parts = b""
        take(self, fin, reserved, kind, payload)

    Model._take = wrong  # type: ignore[method-assign]


PAYLOADS = (
    *(b"", b"x", b"0#ok", "-1#账户连接数已达并发上限".encode(), b"\xe8\xb4", b"\xff"),
    *(b"a" * 125, b"b" * 126, b"c" * 299),
    # of a CLOSE
    *(b"\x03\xe8", b"\x03\xe8bye", b"\x03\xec", b"\x03\xee", b"\x0b\xb8", b"\x13\x88"),
    *(b"\x03\xe8\xff", b"\0\0", b"\x03"),
    wire.message(wire.trades("600519", wire.trade())),
)
KINDS = (CONTINUATION, TEXT, BINARY, BINARY, PING, PONG, CLOSE)


def seeds() -> list[bytes]:
    parts = frame(BINARY, b"one", fin=False) + frame(CONTINUATION, b"two", fin=False)
    whole = [frame(kind, payload) for kind in KINDS for payload in PAYLOADS if kind < 8 or len(payload) <= 125]
    found = [b"\0" + one + frame(BINARY, b"last") for one in whole]
    found += [bytes([how]) + parts + frame(CONTINUATION, b"end") + frame(TEXT, b"0#") for how in (0, 64, 70, 128, 200)]
    found += [b"\0" + parts + one for one in whole[::5]]
    return found


def split(data: bytes) -> list[bytes]:
    """The frames of the input, as far as there are any, then the rest."""
    found = []
    while len(data) >= 2:
        size, head = data[1] & 127, 2
        if size >= 126:
            size, head = int.from_bytes(data[2:4], "big"), 4
        found.append(data[: head + size])
        data = data[head + size :]
    return [*found, data] if data else found


def mutate(data: bytes, rng: random.Random) -> bytes:
    how, frames = data[:1] or b"\0", split(data[1:])
    at = rng.randrange(len(frames) + 1)
    match rng.randrange(7):
        case 0:
            return bytes([rng.randrange(256)]) + data[1:]
        case 1 | 2:
            new = frame(KINDS[rng.randrange(len(KINDS))], pick(rng, *PAYLOADS), fin=rng.random() < 0.6)
            frames.insert(at, new)
        case 3:
            del frames[at : at + 1]
        case 4:
            frames.insert(at, pick(rng, *frames, b""))
        case 5 if at < len(frames):
            frames[at] = bytes([frames[at][0] ^ 1 << rng.randrange(8)]) + frames[at][1:]
        case _:
            parts = [frame(BINARY, pick(rng, *PAYLOADS), fin=False)]
            parts += [frame(CONTINUATION, pick(rng, *PAYLOADS), fin=False) for _ in range(rng.randrange(3))]
            parts += [frame(CONTINUATION, pick(rng, *PAYLOADS))]
            frames[at:at] = parts
    return how + b"".join(frames)


if __name__ == "__main__":
    harness.run(check, seeds, mutate, plant, longest=1000)
