"""One WebSocket connection to a market-data server, from the name lookup to its end."""

import asyncio
import contextlib
import functools
import ipaddress
import logging
import os
import socket
import ssl
import sys
import weakref
from typing import Any, Protocol

from picows import (
    WSCloseCode,
    WSHandshakeError,
    WSInvalidStatusError,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
)

from jvq_fast.allocation import ServerAddress
from jvq_fast.decoder import Decoder
from jvq_fast.errors import ConnectError, HandshakeError, JvqError
from jvq_fast.forks import file_id, keep_from_children, let_go
from jvq_fast.listener import Listener, Tap
from jvq_fast.offload import HangingError, offload
from jvq_fast.redact import QuietLogger, Secret, drop_frames, redact
from jvq_fast.spinner import Spinner

try:
    import fcntl
    import termios
except ImportError:  # Windows
    fcntl = termios = None  # type: ignore[assignment]

# Any size from 16 KiB on is as fast; this one need not grow while data comes.
READ_BUFFER = 1 << 20
# What the system keeps for a feed whose handlers hold it up. Measured on loopback: while a handler slept for a second
# the server got rid of 11 MB, and of 3 MB with the system's own sizing, which only grows while the feed reads.
RECEIVE_BUFFER = 4 << 20
_GRACE = 1.0
# Of a TCP connection that the other side has ended (tcp_states.h of Linux).
_CLOSE_WAIT, _LAST_ACK = 8, 9
_log = QuietLogger(logging.getLogger("jvq_fast.connection"))


class Hooks(Protocol):
    """What a connection tells, on the loop's thread."""

    def opened(self, connection: "Connection") -> None:
        """The connection is open; no frame has been looked at yet."""

    def text(self, text: str) -> None:
        """A TEXT message arrived."""


def is_uvloop(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this is a loop of uvloop."""
    return type(loop).__module__.partition(".")[0] == "uvloop"


def uses_aiofastnet(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether picows' own transports carry the connection: faster than asyncio's, slower than uvloop's."""
    if is_uvloop(loop):
        return False
    try:
        import aiofastnet  # noqa: F401
    except ImportError:
        return False
    return True


@functools.cache
def _receive_buffer() -> int:
    """RECEIVE_BUFFER, or 0 where the system would cut it down: a small fixed buffer is worse than its own sizing."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        granted = probe.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    return RECEIVE_BUFFER if granted >= RECEIVE_BUFFER else 0


class _ParserLog(QuietLogger):
    """The log of one connection's parser, which reports an illegal frame here just before it answers it with a CLOSE.

    By then it may have read, and not yet handed on, the server's own CLOSE.
    """

    def __init__(self, connection: "Connection") -> None:
        super().__init__(_log.logger)
        self._connection = weakref.ref(connection)

    def error(self, msg: object, *args: object, **kwargs: Any) -> None:
        connection = self._connection()
        if connection is not None:
            connection.misread()
        super().error(msg, *args, **kwargs)


class Connection:
    """Use: `await open(…)`, then `await ended()`. `listener` counts what came through it."""

    def __init__(
        self,
        address: ServerAddress,
        token: Secret,
        decoder: Decoder,
        hooks: Hooks,
        *,
        tap: Tap | None,
        max_message: int,
        close_timeout: float,
        busy_poll: bool = False,
    ) -> None:
        self.address = address
        self.listener = Listener(decoder, None, tap, max_message)
        self._token = token
        self._hooks = hooks
        self._max_message = max_message
        self._close_timeout = close_timeout
        self._busy_poll = busy_poll
        self._spinner: Spinner | None = None
        self._transport: WSTransport | None = None
        self._socket: socket.socket | None = None
        self._socket_id = (0, 0)
        self._descriptor = -1
        self._kept: socket.socket | None = None
        self.is_ended_by_peer = False  # in order, with a CLOSE or without; needs `watch_end`
        self._loop = asyncio.get_running_loop()
        self._closed: asyncio.Future[None] = self._loop.create_future()

    async def open(self, connect_timeout: float, handshake_timeout: float, stop: asyncio.Event) -> bool:
        """Connect. False when `stop` was set before; ConnectError, and HandshakeError below it, when it fails."""
        task = self._loop.create_task(self._connect(connect_timeout, handshake_timeout))
        stopped = self._loop.create_task(stop.wait())
        try:
            await asyncio.wait({task, stopped}, timeout=connect_timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            in_time = task.done()
            await self._give_up(task)
            if self._transport is None and task.done():
                self._release_socket()
        error = None if task.cancelled() else task.result()
        if self._transport is not None and error is None:
            return True
        if stop.is_set():
            return False
        if in_time and error is not None:
            try:
                raise error
            finally:
                del error, task  # this frame is in its traceback
        if in_time:
            raise HandshakeError(f"{self.address} closed the connection during the handshake")
        raise ConnectError(f"{self.address} gave no connection within {connect_timeout:g} s")

    async def _connect(self, connect_timeout: float, handshake_timeout: float) -> BaseException | None:
        if self._busy_poll and self.address.is_encrypted:
            return ConnectError(f"{self.address} is encrypted: busy_poll reads plain connections only")
        # Failures are returned, not raised: the frames they come through hold the URL, and tracebacks show frames.
        try:
            await ws_connect(
                self._listen,
                self.address.url(self._token),
                websocket_handshake_timeout=handshake_timeout,
                logger_name=_ParserLog(self),
                enable_auto_pong=False,
                max_frame_size=self._max_message,
                max_redirects=0,
                proxy=None,
                read_buffer_init_size=READ_BUFFER,
                socket_factory=functools.partial(self._make_socket, connect_timeout),
                use_aiofastnet=uses_aiofastnet(self._loop),
            )
        except asyncio.CancelledError:
            self._shut_socket()
            return ConnectError("cancelled")
        except BaseException as error:
            self._shut_socket()
            explained = self._explain(error)
            drop_frames(error)
            return explained
        return None

    def _listen(self, _request: object, _response: object) -> WSListener:
        # Not before, and no longer than the connection lasts: the two hold each other.
        self.listener.owner = self
        return self.listener

    async def _make_socket(self, timeout: float, _url: object) -> socket.socket:
        addresses = await self._resolve(timeout)
        for i, (family, address) in enumerate(addresses, 1):
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                if uses_aiofastnet(self._loop):
                    # It may leave a descriptor registered that it has closed, and this one may have got its number.
                    self._loop.remove_reader(sock.fileno())
                if size := _receive_buffer():
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
                # One address that swallows packets must not use up the time of the others.
                async with asyncio.timeout(timeout if i == len(addresses) else timeout / len(addresses)):
                    await self._loop.sock_connect(sock, address)
            except OSError:
                sock.close()
                if i == len(addresses):
                    raise
            except BaseException:
                sock.close()
                raise
            else:
                # From here on the loop's transport owns the descriptor, and closes it.
                self._socket = sock
                self._descriptor = sock.fileno()
                self._socket_id = keep_from_children(self._descriptor)
                return sock
        raise ConnectError(f"{self.address}: the name has no address")

    async def _resolve(self, timeout: float) -> list[tuple[int, Any]]:
        lookup = functools.partial(socket.getaddrinfo, self.address.host, self.address.port, type=socket.SOCK_STREAM)
        try:
            ipaddress.ip_address(self.address.host)
        except ValueError:
            found = await offload(lookup, timeout, "name lookup")
        else:
            found = lookup(flags=socket.AI_NUMERICHOST)
        return [(family, address) for family, _, _, _, address in found]

    def _explain(self, error: BaseException) -> BaseException:
        if isinstance(error, JvqError):
            return error.with_traceback(None)
        if isinstance(error, WSInvalidStatusError):
            status = int(error.response.status) if error.response is not None else 0
            return HandshakeError(f"{self.address} answered the handshake with HTTP status {status}", status)
        if isinstance(error, WSHandshakeError):
            return HandshakeError(f"{self.address} is no WebSocket server: {redact(str(error))[:200]}")
        if isinstance(error, socket.gaierror):
            return ConnectError(f"{self.address}: the name can't be looked up ({error.strerror})")
        if isinstance(error, HangingError):
            return ConnectError(f"{self.address}: the name was not looked up: {error}")
        if isinstance(error, TimeoutError):
            what = "answered no handshake" if self._socket is not None else "gave no connection"
            return (HandshakeError if self._socket is not None else ConnectError)(f"{self.address} {what} in time")
        if isinstance(error, ssl.SSLError):  # an OSError too, with numbers of its own
            what = getattr(error, "verify_message", "") or error.reason or type(error).__name__
            return HandshakeError(f"{self.address}: no secure connection: {what}")
        if isinstance(error, OSError):
            # asyncio puts words of its own in strerror.
            what = os.strerror(error.errno) if error.errno else type(error).__name__
            return ConnectError(f"{self.address} can't be reached: {what}")
        if isinstance(error, Exception):
            return ConnectError(f"{self.address} can't be reached: {type(error).__name__}")
        return type(error)()

    def _shut_socket(self) -> None:
        """Let the transport find its connection closed, where there is no other way to reach it."""
        if self._socket is not None and self._transport is None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _release_socket(self) -> None:
        sock, self._socket = self._socket, None
        let_go(self._descriptor, self._socket_id)
        if sock is None or sock.fileno() == -1:
            return
        if is_uvloop(self._loop) and file_id(sock.fileno()) != self._socket_id:
            # A connection that ends within its first moments is closed by libuv before uvloop has tied the object to
            # it. Left like that, the object would close the number again later, when it is another file's.
            # One that was reset before picows gave it to the loop is nobody's yet, and closed here.
            sock.detach()
        else:
            sock.close()

    async def _give_up(self, task: "asyncio.Task[BaseException | None]") -> None:
        """End an attempt that is still under way."""
        if task.done():
            return
        if self._socket is not None:
            # Cancelled during the handshake, picows would leave the transport open.
            self._shut_socket()
            await asyncio.wait({task}, timeout=_GRACE)
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_GRACE)
        self.abort()

    def opened(self, transport: WSTransport) -> None:
        """Called by the listener."""
        self._transport = transport
        if self._busy_poll:
            self._spinner = Spinner(self._loop, transport.underlying_transport, self._descriptor)
            self._spinner.start()
        if not self.listener.closing:
            self._hooks.opened(self)

    def text(self, text: str) -> None:
        """Called by the listener."""
        self._hooks.text(text)

    def ending(self) -> None:
        """Called by the listener: this side has begun to close. A peer that is gone may not let it come to an end."""
        self._loop.call_later(self._close_timeout, self.abort)

    def misread(self) -> None:
        """Called by the parser's log: an illegal frame is about to be answered."""
        if self._transport is not None:
            self.listener.answer_close(self._transport)

    def watch_end(self) -> None:
        """Let `is_ended_by_peer` tell, once the connection is gone, whether the server closed it or it was reset."""
        if self._kept is None and self._socket is not None and hasattr(socket, "TCP_INFO"):
            with contextlib.suppress(OSError):
                # The loop closes its descriptor with the connection, and does not say how that ended.
                self._kept = self._socket.dup()
                keep_from_children(self._kept.fileno())

    def closed(self) -> None:
        """Called by the listener: the connection is gone."""
        if self._spinner is not None:
            self._spinner.stop()
        kept, self._kept = self._kept, None
        if kept is not None:
            let_go(kept.fileno(), file_id(kept.fileno()))
            with kept, contextlib.suppress(OSError):
                state = kept.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
                self.is_ended_by_peer = state in (_CLOSE_WAIT, _LAST_ACK)
        if not self._closed.done():
            self._closed.set_result(None)

    def pong(self, payload: bytes) -> None:
        """Called by the listener: the socket takes an answer that it did not take before."""
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send_pong(payload)

    def send(self, text: str) -> None:
        """Send a TEXT frame. On the loop's thread."""
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send(WSMsgType.TEXT, text)

    def ping(self) -> None:
        """Send a PING. On the loop's thread."""
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send_ping(b"")

    @property
    def is_spinning(self) -> bool:
        """Whether it is read without waiting. From any thread."""
        return self._spinner is not None and self._spinner.is_spinning

    def backlog(self) -> tuple[int, int]:
        """Bytes that wait in the socket to be read, and how many fit there at least; 0 where it is not known."""
        sock = self._socket
        if fcntl is None or sock is None:
            return 0, 0
        try:
            waiting = int.from_bytes(fcntl.ioctl(sock, termios.FIONREAD, bytes(4)), sys.byteorder)
            # Linux grants twice what was asked for, and may use half of it for its own book-keeping.
            room = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
        except (OSError, ValueError):  # ValueError: the loop's thread has closed it
            return 0, 0
        return waiting, room

    def close(self) -> None:
        """Say goodbye and close. On the loop's thread; harmless when it is closing already."""
        transport = self._transport
        if transport is None or transport.is_disconnected:
            return
        self.listener.quit()
        self.ending()
        if not transport.is_close_frame_sent:
            transport.send_close(WSCloseCode.OK)
        transport.disconnect()

    def abort(self) -> None:
        """Close without a word. On the loop's thread."""
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.disconnect(graceful=False)

    async def ended(self) -> str:
        """Wait until the connection is gone; returns why. Cancelled, it closes the connection first."""
        try:
            await asyncio.wait({self._closed})
        except asyncio.CancelledError:
            self.close()
            self.abort()
            await asyncio.wait({self._closed}, timeout=_GRACE)
            if self._closed.done():
                self._release_socket()
            raise
        self._release_socket()
        reason = self.listener.reason
        try:
            if self._transport is not None:
                await self._transport.wait_disconnected()
        except Exception as error:
            reason = reason or f"protocol error of the server: {error}"
        self._transport = None
        return redact(reason or "the connection was lost")
