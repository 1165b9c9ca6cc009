"""One HTTP request that is sent once or not at all, and what is known of it afterwards.

The vendor's interface has no name for an order that the client could choose, so nothing here sends anything twice: no
retry, no redirect, a fresh connection for each request. What failed before its first byte left is told apart from all
else.
"""

import ipaddress
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit

import requests
from urllib3.connection import HTTPConnection, HTTPSConnection

from jvq_fast.allocation import ServerAddress, parse_server
from jvq_fast.quiet_http import Quiet, quiet_session
from jvq_fast.redact import Secret, drop_frames, guard_http_logs, os_cause
from jvq_fast.threads import start

MAX_REPLY = 4 << 20
_CHUNK = 1 << 16
Reach = Literal["loopback", "outside"]


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply. `body` is its JSON object; numbers in it are int or Decimal."""

    body: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class NotSent:
    """Not a byte left this machine. `was_refused`: since it may not, on a connection that was there."""

    cause: str
    was_refused: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """It was sent, perhaps in part, and there is no reply that says what became of it."""

    cause: str


Outcome = Reply | NotSent | Lost
Query = Mapping[str, str | Secret]


def parse_trade_server(text: str) -> ServerAddress:
    """Read `http://host:port`, with or without a scheme, path or trailing slash. ValueError names the input."""
    address = parse_server(text)
    return ServerAddress(
        "https" if address.scheme == "wss" else "http", address.host, address.port, address.path.rstrip("/")
    )


def host_of(url: str) -> str:
    """The host of an allocation service."""
    return urlsplit(url).hostname or ""


def reach_of(host: str) -> Reach | None:
    """Where an address or `localhost` leads; None for a name, which has to be looked up to know."""
    if host == "localhost":
        return "loopback"
    try:
        return _reach(host)
    except ValueError:
        return None


def _reach(address: str) -> Reach:
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    # An unspecified address connects to this machine.
    inside = (
        ip.is_loopback or ip.is_unspecified or (mapped is not None and (mapped.is_loopback or mapped.is_unspecified))
    )
    return "loopback" if inside else "outside"


class _RefusedError(Exception):
    """Raised on a connected socket before a byte is written to it."""


class _Attempt:
    """Where one request stands. The thread that sends it and the one that waits for it meet here."""

    def __init__(self, reach: Reach, may_send: Callable[[], str]) -> None:
        self._reach = reach
        self._may_send = may_send
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._given_up = False
        self.may_have_left = False
        self.outcome: Outcome | None = None
        self.ended = threading.Event()

    def check_reach(self, connected: socket.socket) -> None:
        """_RefusedError where a connection leads to where it must not."""
        peer = str(connected.getpeername()[0])
        if _reach(peer) != self._reach:
            wanted = "this machine" if self._reach == "loopback" else "another machine"
            raise _RefusedError(f"{peer} is not on {wanted}")

    def connected(self, connected: socket.socket) -> None:
        """The connection is there, and not a byte of the request was written. _RefusedError where none may be."""
        with self._lock:
            why = "given up while it was connecting" if self._given_up else self._may_send()
            if why:
                raise _RefusedError(why)
            self._socket = connected
            self.may_have_left = True

    def give_up(self) -> bool:
        """Whether a byte may have left; if none did, none will."""
        with self._lock:
            self._given_up = True
            if self._socket is not None:
                try:
                    self._socket.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # it is closed already
            return self.may_have_left


class _Watched(Quiet):
    _attempt: _Attempt

    def _new_conn(self) -> Any:
        """Name lookup and TCP; nothing is written where it leads astray, not even what begins TLS."""
        connected = super()._new_conn()  # type: ignore[misc]
        if self.proxy is None:  # type: ignore[attr-defined]
            try:
                self._attempt.check_reach(connected)
            except BaseException:
                connected.close()
                raise
        return connected

    def connect(self) -> None:
        """TLS, if any; then the attempt may still refuse to send."""
        super().connect()  # type: ignore[misc]
        self._attempt.connected(self.sock)  # type: ignore[attr-defined]


class _Http(_Watched, HTTPConnection):
    def __init__(self, *args: Any, attempt: _Attempt, **options: Any) -> None:
        super().__init__(*args, **options)
        self._attempt = attempt


class _Https(_Watched, HTTPSConnection):
    def __init__(self, *args: Any, attempt: _Attempt, **options: Any) -> None:
        super().__init__(*args, **options)
        self._attempt = attempt


def get(
    server: ServerAddress,
    path: str,
    query: Query,
    timeout: float,
    *,
    reach: Reach,
    may_send: Callable[[], str] = str,
    proxies: bool = False,
) -> Outcome:
    """Send one request, and tell what is known of it after at most `timeout` seconds. Nothing is raised.

    `reach`: where the connection has to lead, looked at before a byte is written. `proxies`: those of the environment
    are used; where one is, what it connects to is its affair. `may_send` is asked last, on the connected socket: a text
    is why not.
    """
    guard_http_logs()
    attempt = _Attempt(reach, may_send)
    host = f"[{server.host}]" if ":" in server.host else server.host
    url = f"{server.scheme}://{host}:{server.port}{server.path}{path}"
    try:
        if start(partial(_run, attempt, url, query, timeout, proxies), f"jvq_fast trade {path}") is None:
            return NotSent("the system gives this process no more threads")
        is_over = attempt.ended.wait(timeout)
    except BaseException:  # Ctrl-C, or whatever else a signal handler raises
        attempt.give_up()
        raise
    if not is_over:
        return _late(attempt.give_up(), timeout)
    assert attempt.outcome is not None
    return attempt.outcome


def _late(may_have_left: bool, timeout: float) -> Outcome:
    return Lost(f"no reply within {timeout:g} s") if may_have_left else NotSent(f"no connection in {timeout:g} s")


def _run(attempt: _Attempt, url: str, query: Query, timeout: float, proxies: bool) -> None:
    try:
        attempt.outcome = _exchange(attempt, url, query, timeout, proxies)
    except BaseException as error:
        refused = isinstance(error, _RefusedError)
        cause = str(error) if refused else os_cause(error)
        if attempt.may_have_left and cause == type(error).__name__:  # the system had nothing to say
            cause = f"the connection ended without a whole reply ({cause})"
        is_late = isinstance(error, requests.Timeout)
        drop_frames(error)
        if is_late:
            attempt.outcome = _late(attempt.may_have_left, timeout)
        else:
            attempt.outcome = Lost(cause) if attempt.may_have_left else NotSent(cause, refused)
    finally:
        attempt.ended.set()


def _exchange(attempt: _Attempt, url: str, query: Query, timeout: float, proxies: bool) -> Outcome:
    deadline = time.monotonic() + timeout
    # Only this thread, whose frames nobody sees, has the secrets as text.
    plain = {name: value.reveal() if isinstance(value, Secret) else value for name, value in query.items()}
    http, https = partial(_Http, attempt=attempt), partial(_Https, attempt=attempt)
    with quiet_session(proxies=proxies, http=http, https=https) as session:
        with session.get(
            url + "?" + urlencode(plain),
            headers={"Accept-Encoding": "identity", "Connection": "close"},
            timeout=timeout,
            allow_redirects=False,
            stream=True,
        ) as response:
            body = b""
            for chunk in response.iter_content(_CHUNK):
                body += chunk
                if len(body) > MAX_REPLY:
                    return Lost(f"a reply of more than {MAX_REPLY} bytes")
                if time.monotonic() > deadline:
                    return Lost(f"no whole reply within {timeout:g} s")
            status = response.status_code
    if status != requests.codes.ok:
        return Lost(f"HTTP status {status}")
    try:
        reply = json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError):
        return Lost("a reply that is no JSON")
    return Reply(reply) if isinstance(reply, dict) else Lost("a reply that is no JSON object")
