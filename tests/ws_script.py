"""A scripted peer on a thread: it speaks HTTP or WebSocket exactly as badly as a test wants it to."""

import base64
import contextlib
import hashlib
import socket
import struct
import threading
import zlib
from collections.abc import Callable
from types import TracebackType
from typing import Self

TIMEOUT = 20.0
TOKEN = "0123456789abcdef0123456789abcdef"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def deflate(text: str) -> bytes:
    """A message body as the vendor sends it: one raw DEFLATE stream."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(text.encode()) + packer.flush()


def trade(number: int, code: str = "600519", time: str = "10:00:00.000", price: str = "1680.00") -> str:
    """A row with one trade of 100 shares."""
    return f"lv2_{code}={time},{number},{price},100\n"


def frame(kind: int, payload: bytes = b"", fin: bool = True, rsv: int = 0) -> bytes:
    """One frame, unmasked as a server's is."""
    head = bytes([fin << 7 | rsv << 4 | kind])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    if len(payload) < 1 << 16:
        return head + struct.pack(">BH", 126, len(payload)) + payload
    return head + struct.pack(">BQ", 127, len(payload)) + payload


def binary(text: str) -> bytes:
    """A frame with market data."""
    return frame(BINARY, deflate(text))


class Peer:
    """One accepted connection. All of its waits end after TIMEOUT seconds with an error."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.head = b""  # the HTTP request
        self._buffer = b""

    def send(self, *data: bytes) -> None:
        """All in one write, so that on loopback one socket read gets it."""
        self.sock.sendall(b"".join(data))

    def read_head(self) -> bytes:
        while b"\r\n\r\n" not in self._buffer:
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError("no request")
            self._buffer += data
        self.head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return self.head

    def accept(self, *first: bytes) -> None:
        """Take the WebSocket handshake; `first` goes out in the same write as the answer."""
        self.read_head()
        key = next(line for line in self.head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
        digest = hashlib.sha1(key.partition(b":")[2].strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        self.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n",
            *first,
        )

    def _read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError("closed by the client")
            self._buffer += data
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def frame(self) -> tuple[int, bytes]:
        """The next frame of the client: its type and payload."""
        first, second = self._read(2)
        size = second & 127
        if size == 126:
            (size,) = struct.unpack(">H", self._read(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self._read(8))
        mask = self._read(4)
        payload = self._read(size)
        return first & 15, bytes(b ^ mask[i % 4] for i, b in enumerate(payload))

    def text(self) -> str:
        """The next frame, which must be a TEXT."""
        kind, payload = self.frame()
        assert kind == TEXT, (kind, payload)
        return payload.decode()

    def close_code(self) -> int:
        """Read on up to a CLOSE frame; its code, 0 for none."""
        while True:
            kind, payload = self.frame()
            if kind == CLOSE:
                return int.from_bytes(payload[:2], "big")

    def until_closed(self) -> None:
        """Wait until the client is gone."""
        with contextlib.suppress(ConnectionError):
            while self.sock.recv(65536):
                pass

    def reset(self) -> None:
        """RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Script = Callable[[Peer], None]


class ScriptServer:
    """Runs the next script for each connection, the last one again and again; a script that fails fails the test.

    A script that returns closes its connection.
    """

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.heads: list[bytes] = []
        self.accepted = 0
        self._errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._peers: list[Peer] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.ws = f"ws://127.0.0.1:{self.port}"
        self.http = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(TIMEOUT)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            script = self.scripts[min(self.accepted, len(self.scripts) - 1)]
            self.accepted += 1
            peer = Peer(sock)
            self._peers.append(peer)
            thread = threading.Thread(target=self._run, args=(script, peer), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, script: Script, peer: Peer) -> None:
        try:
            script(peer)
        except ConnectionError:
            pass
        except BaseException as error:
            self._errors.append(error)
        finally:
            self.heads.append(peer.head)
            peer.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(TIMEOUT)
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(TIMEOUT)
        if self._errors and error is None:
            raise self._errors[0]


def serve(*frames: bytes, subscribed: bool = True) -> Script:
    """Take the handshake, read the subscription, send the frames, stay until the client goes."""

    def script(peer: Peer) -> None:
        peer.accept()
        if subscribed:
            peer.text()
        peer.send(*frames)
        peer.until_closed()

    return script


def reply(status: int, body: bytes, *headers: bytes) -> Script:
    """Answer an HTTP request."""

    def script(peer: Peer) -> None:
        peer.read_head()
        lines = [b"HTTP/1.1 %d Any" % status, b"Content-Length: %d" % len(body), b"Connection: close", *headers]
        peer.send(b"\r\n".join(lines), b"\r\n\r\n", body)

    return script
