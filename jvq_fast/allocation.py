"""The vendor's allocation service: which server to connect to."""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import requests

from jvq_fast.errors import AllocationError, AllocationRefusedError
from jvq_fast.quiet_http import quiet_session
from jvq_fast.redact import BLOT, Secret, drop_frames, guard_http_logs, os_cause, redact

SERVICE = "http://jvquant.com/query/server"
PATH = "/query/server"
MAX_REPLY = 64 * 1024
_SHOWN = 200

_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_PORTS = {"ws": 80, "wss": 443}


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A market-data server. `str()` is fit to be shown: it leaves out the query."""

    scheme: str
    host: str
    port: int
    path: str = ""
    query: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return redact(f"{self.scheme}://{host}:{self.port}{self.path}")

    __repr__ = __str__

    @property
    def is_encrypted(self) -> bool:
        """Whether the connection goes through TLS."""
        return self.scheme == "wss"

    def url(self, token: Secret) -> str:
        """The URL to connect to, with the token in it: for the one call that needs it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        query = urlencode([*self.query, ("token", token.reveal())])
        return f"{self.scheme}://{host}:{self.port}{self.path}?{query}"


def parse_server(text: str) -> ServerAddress:
    """Read `host:port`, with or without a scheme, path, query or trailing slash. ValueError names the input.

    A token in the query is left out: the feed's own takes its place.
    """
    if not isinstance(text, str):
        raise TypeError(f"a server is a str, not {type(text).__name__}")
    address = _read_server(text.strip())
    shown = _address(text)
    del text
    if address is None:
        raise ValueError(f"not a server: {redact(repr(shown))}; it should read like 'ws://1.2.3.4:21966'")
    return address


def _address(text: str) -> str:
    """An address in a message: without its query and what stands before an @."""
    plain = re.sub(r"^((?:[^:/?#@]+://)?).*@", rf"\1{BLOT}@", text, flags=re.DOTALL)
    return redact(plain.partition("?")[0])[:_SHOWN]


def _read_server(text: str) -> ServerAddress | None:
    if not text.isprintable() or " " in text:
        return None
    try:
        parts = urlsplit(text if "://" in text else f"ws://{text}")
        scheme = _SCHEMES.get(parts.scheme)
        host, port = parts.hostname, parts.port
        query = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return None
    if scheme is None or not host or port == 0 or "@" in parts.netloc or parts.fragment:
        return None
    path = "" if parts.path == "/" else quote(parts.path, safe="/%:@!$&'()*+,;=~-._")
    return ServerAddress(
        scheme, host, port or _PORTS[scheme], path, tuple((k, v) for k, v in query if k.lower() != "token")
    )


def service_url(text: str) -> str:
    """The URL of a service: `http://host:port` gets `/query/server` appended. ValueError names the input."""
    if not isinstance(text, str):
        raise TypeError(f"allocation is a str, not {type(text).__name__}")
    url = _read_service(text.strip())
    shown = _address(text)
    del text
    if url is None:
        raise ValueError(f"not an allocation service: {redact(repr(shown))}; it should read like 'http://host:port'")
    return url


def _read_service(text: str) -> str | None:
    if not text.isprintable() or " " in text:
        return None
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        return None
    if "@" in parts.netloc or parts.query or parts.fragment:
        return None
    return f"{parts.scheme}://{parts.netloc}{PATH if parts.path in ('', '/') else parts.path}"


@dataclass(frozen=True, slots=True)
class Reply:
    """What the service sent, as it came: headers and body may repeat the token. `seconds` is how long it took."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    seconds: float


def allocate(
    token: Secret,
    market: str = "ab",
    kind: str = "websocket",
    *,
    service: str = SERVICE,
    timeout: float = 10.0,
    proxies: bool = True,
) -> str:
    """Ask the service for a server, as text. Blocks: `timeout` in seconds is for each wait, and for the reply's body.

    `kind` is "websocket", "trade" or "sql". One request: no redirect is followed, nothing is tried twice. `proxies`:
    those of the environment are used. AllocationRefusedError when the service says no, else AllocationError.
    """
    guard_http_logs()
    outcome = _ask(token, market, kind, service, timeout, proxies)
    # Raised here and not where it arose: the frames there hold the token, and tracebacks show frames.
    if isinstance(outcome, BaseException):
        try:
            raise outcome
        finally:
            del outcome  # this frame is in its traceback
    return outcome


def _ask(token: Secret, market: str, kind: str, service: str, timeout: float, proxies: bool) -> str | BaseException:
    reply = exchange(token, market, kind, service, timeout, proxies=proxies)
    return judge(reply) if isinstance(reply, Reply) else reply


def exchange(
    token: Secret, market: str, kind: str, service: str, timeout: float, *, proxies: bool = True
) -> Reply | BaseException:
    """One request and its reply, or the error to raise where the reply is out of sight; see `allocate`."""
    begin = time.monotonic()
    deadline = begin + timeout
    try:
        with quiet_session(proxies=proxies) as session:
            with session.get(
                service,
                params={"market": market, "type": kind, "token": token.reveal()},
                headers={"Accept-Encoding": "identity"},
                timeout=timeout,
                allow_redirects=False,
                stream=True,
            ) as response:
                body = bytearray()
                # Byte by byte (out of a buffer), or a reply that trickles in would go past the deadline unseen.
                for chunk in response.iter_content(1):
                    body += chunk
                    if len(body) > MAX_REPLY:
                        return AllocationError(f"{_name_of(service)} sent more than {MAX_REPLY} bytes")
                    if time.monotonic() > deadline:
                        return AllocationError(f"{_name_of(service)} sent no whole reply within {timeout:g} s")
                return Reply(response.status_code, dict(response.headers), bytes(body), time.monotonic() - begin)
    except requests.Timeout as error:
        drop_frames(error)
        return no_reply(service, timeout)
    except requests.RequestException as error:
        cause = os_cause(error)
        drop_frames(error)
        return AllocationError(f"{_name_of(service)} can't be reached: {cause}")
    except Exception as error:
        # urllib3 lets some faults of a reply through as they are.
        drop_frames(error)
        return AllocationError(f"the reply of {_name_of(service)} can't be read: {type(error).__name__}")
    except BaseException as error:
        return type(error)()


def no_reply(service: str, timeout: float) -> AllocationError:
    """The error for a service that did not reply in time."""
    return AllocationError(f"{_name_of(service)} did not reply within {timeout:g} s")


def _name_of(service: str) -> str:
    """What errors call a service: by its host and port alone."""
    return f"the allocation service {redact(urlsplit(service).netloc)}"


def judge(answer: Reply) -> str | AllocationError:
    """The server that a reply names, or why there is none."""
    status = answer.status
    try:
        reply = json.loads(answer.body)
    except (ValueError, RecursionError):
        reply = None
    if not isinstance(reply, dict):
        if status != requests.codes.ok:
            return AllocationError(f"the allocation service answered with HTTP status {status}")
        return AllocationError("the allocation service's reply is not a JSON object")
    code = reply.get("code")
    if code is None and status != requests.codes.ok:
        return AllocationError(f"the allocation service answered with HTTP status {status}")
    if code in ("0", 0) and code is not False:
        server = reply.get("server")
        if isinstance(server, str) and server.strip():
            return server.strip()
        return AllocationError("the allocation service's reply names no server")
    message = reply.get("message") or reply.get("msg") or ""
    return AllocationRefusedError(_shown(code), _shown(message), status)


def _shown(value: object) -> str:
    # JSON may hold halves of surrogate pairs, which no terminal and no file takes.
    return redact(str(value)).encode(errors="replace").decode()[:_SHOWN]
