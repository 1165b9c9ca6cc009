"""The ticket of a login, and the file that keeps it for the next process: for its owner's eyes alone."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jvq_fast.allocation import ServerAddress
from jvq_fast.errors import TicketError
from jvq_fast.redact import Secret
from jvq_fast.trade.private import beside, complaint, mark_of, new_salt, replace_private, sweep
from jvq_fast.trade.wire import parse_trade_server

# It is renewed before it ends by so many seconds, or by a tenth of its life where that is less.
_MARGIN = 120.0
_LARGEST = 1 << 16
# A link is not followed, and a pipe not waited for.
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@dataclass(frozen=True, slots=True)
class Ticket:
    """A login: good with the server that gave it, until `expires`, seconds since the epoch."""

    secret: Secret
    server: ServerAddress
    expires: float
    lifetime: float

    def is_good(self, now: float) -> bool:
        """Whether it may be used, with time to spare."""
        return now < self.expires - min(_MARGIN, self.lifetime / 10)


class TicketFile:
    """Keeps one ticket, whole or not at all. TicketError where others could read it, or it can't be written."""

    def __init__(self, path: Path, owner: Secret, mode: str, now: Callable[[], float] = time.time) -> None:
        """`owner` is whatever a login depends on."""
        self._path = path
        self._owner = owner
        self._mode = mode
        self._now = now

    def load(self) -> Ticket | None:
        """The ticket of this owner, while it is good; None where there is none."""
        sweep(self._path)
        try:
            descriptor = os.open(self._path, os.O_RDONLY | _FLAGS)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TicketError(f"the ticket file {self._path} can't be read: {error.strerror}") from None
        try:
            why = complaint(descriptor)
            if why:
                raise TicketError(f"the ticket file {self._path} is not used: {why}, or delete it")
            data = os.read(descriptor, _LARGEST)
        finally:
            os.close(descriptor)
        return self._read(data)

    def _read(self, data: bytes) -> Ticket | None:
        # What is not ours, or not whole, is as good as none: the next login replaces it.
        try:
            kept = json.loads(data)
            if kept["mode"] != self._mode or kept["owner"] != mark_of(self._owner.reveal(), kept["salt"]):
                return None
            server = parse_trade_server(kept["server"])
            ticket = Ticket(Secret(str(kept["ticket"])), server, float(kept["expires"]), float(kept["lifetime"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        return ticket if ticket.is_good(self._now()) else None

    def check(self) -> None:
        """TicketError where `save` would fail: before a login, which costs money."""
        try:
            replace_private(beside(self._path), b"", keep=False)
        except OSError as error:
            raise TicketError(f"the ticket file {self._path} can't be written: {error.strerror}") from None

    def save(self, ticket: Ticket) -> None:
        """Put a new one in place of the old one."""
        why = self._write(ticket)
        if why:
            # Raised here, where no frame holds the ticket as text.
            raise TicketError(f"the ticket file {self._path} can't be written: {why}")

    def _write(self, ticket: Ticket) -> str:
        """What stood against it."""
        salt = new_salt()
        kept = {
            "mode": self._mode,
            "salt": salt,
            "owner": mark_of(self._owner.reveal(), salt),
            "server": f"{ticket.server.scheme}://{_host(ticket.server)}:{ticket.server.port}{ticket.server.path}",
            "ticket": ticket.secret.reveal(),
            "expires": ticket.expires,
            "lifetime": ticket.lifetime,
        }
        try:
            replace_private(self._path, json.dumps(kept).encode())
        except OSError as error:
            return error.strerror or type(error).__name__
        return ""

    def drop(self) -> None:
        """Forget it: the broker does not take it any more."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise TicketError(f"the ticket file {self._path} can't be removed: {error.strerror}") from None


def _host(server: ServerAddress) -> str:
    return f"[{server.host}]" if ":" in server.host else server.host
