"""The trade server and the ticket: allocated, logged in to and renewed, one at a time; and the six calls."""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jvq_fast.allocation import ServerAddress, allocate
from jvq_fast.errors import AllocationError, LoginError, TicketError, TradeError
from jvq_fast.redact import Secret
from jvq_fast.trade import wire
from jvq_fast.trade.model import message_of, shown
from jvq_fast.trade.ticket import Ticket, TicketFile
from jvq_fast.trade.turns import Turns

Mode = Literal["dry", "paper", "live"]
_log = logging.getLogger("jvq_fast")
_SHORT_LIFETIME = 900.0
_LONGEST_LIFETIME = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Access:
    """Where the calls go, and how long they may take, in seconds."""

    mode: Mode
    service: str
    server: ServerAddress | None
    timeout: float
    login_timeout: float
    allocation_timeout: float
    allocation_interval: float
    proxies: bool


class Session:
    """Logs in when there is no good ticket. `call` may be used from any thread, and blocks for at most its timeout.

    `bill` is told the name of each call of which a byte may have left.
    """

    def __init__(
        self,
        token: Secret,
        account: Secret,
        password: Secret,
        access: Access,
        ticket_file: Path | None,
        bill: Callable[[str], None],
        allow: Callable[[str], None],
    ) -> None:
        self._token = token
        self._account = account
        self._password = password
        self._access = access
        # Another token, another broker: another login.
        owner = Secret("\n".join((account.reveal(), token.reveal(), str(access.server or access.service))))
        self._file = None if ticket_file is None else TicketFile(ticket_file, owner, access.mode)
        del owner
        self._bill = bill
        self._allow = allow
        self._turns = Turns(LoginError, AllocationError)
        self._lock = threading.Lock()
        self._ticket: Ticket | None = None
        self._is_loaded = False
        self._asked = float("-inf")
        self._refused: tuple[str, ...] = ()  # what the last login was refused with

    @property
    def reach(self) -> wire.Reach:
        """Where connections have to lead."""
        return "outside" if self._access.mode == "live" else "loopback"

    def ticket(self, *, by_hand: bool = False, at_any_cost: bool = False) -> Ticket:
        """A good one, from a login if need be. LoginError, AllocationError, TicketError, BudgetError.

        A login that was refused is tried again `by_hand` only: it costs money each time, and locks accounts.
        `at_any_cost`: the budget does not stand against the login.
        """
        # While another thread logs in, this one waits for that login to end, which has its timeout and costs money.
        with self._turns.take():
            if self._file is not None and not self._is_loaded:
                kept = self._file.load()
                if kept is not None and self._fits(kept.server):
                    self._ticket = kept
            self._is_loaded = True
            current = self._ticket  # another thread may drop it at any moment
            if current is None or not current.is_good(time.time()):
                if self._refused and not by_hand:
                    raise LoginError(*self._refused)
                if self._file is not None:
                    self._file.check()
                ticket = self._log_in(at_any_cost)
                self._refused = ()
                with self._lock:
                    self._ticket = ticket
                    if self._file is not None:
                        self._file.save(ticket)
                return ticket
            return current

    def has_ticket(self) -> bool:
        """Whether `ticket` would return one at once."""
        ticket = self._ticket
        return ticket is not None and ticket.is_good(time.time())

    def _fits(self, server: ServerAddress) -> bool:
        fixed = self._access.server
        return (fixed is None or fixed == server) and wire.reach_of(server.host) in (None, self.reach)

    def drop(self, ticket: Ticket) -> None:
        """The broker does not take it: the next call logs in, unless that has happened."""
        with self._lock:
            if self._ticket is ticket:
                self._ticket = None
                if self._file is not None:
                    self._file.drop()

    def _log_in(self, at_any_cost: bool) -> Ticket:
        server = self._access.server or self._allocate()
        reach = wire.reach_of(server.host)
        if reach not in (None, self.reach):
            raise TradeError(_wrong_reach(self._access.mode, server))
        if not at_any_cost:
            self._allow("login")
        query = {"token": self._token, "acc": self._account, "pass": self._password}
        begun = time.time()
        outcome = self._get(server, "/login", query, self._access.login_timeout)
        if isinstance(outcome, (wire.NotSent, wire.Lost)):
            raise LoginError(f"login at {server}: {outcome.cause}")
        ticket = _read_ticket(outcome.body, server, begun)
        if isinstance(ticket, LoginError):
            self._refused = (f"{ticket}; login() tries again", ticket.code, ticket.message)
            raise ticket
        return ticket

    def _allocate(self) -> ServerAddress:
        access = self._access
        time.sleep(max(0.0, self._asked + access.allocation_interval - time.monotonic()))
        try:
            return self._ask_for_server(access)
        finally:
            self._asked = time.monotonic()

    def _ask_for_server(self, access: Access) -> ServerAddress:
        text = allocate(
            self._token,
            "ab",
            "trade",
            service=access.service,
            timeout=access.allocation_timeout,
            proxies=access.proxies,
        )
        server = _read_server(text)
        del text
        if isinstance(server, AllocationError):
            raise server
        return server

    def call(
        self,
        ticket: Ticket,
        name: str,
        query: dict[str, str] | None = None,
        *,
        may_send: Callable[[], str] = str,
    ) -> wire.Outcome:
        """One call with a ticket. Nothing is raised. Of a server that can't be reached the ticket is forgotten."""
        signed: dict[str, str | Secret] = {"token": self._token, "ticket": ticket.secret, **(query or {})}
        outcome = self._get(ticket.server, f"/{name}", signed, self._access.timeout, may_send)
        if isinstance(outcome, wire.NotSent) and not outcome.was_refused and self._access.server is None:
            try:
                self.drop(ticket)  # old servers go away
            except TicketError as error:
                _log.warning("%s", error)
        return outcome

    def _get(
        self,
        server: ServerAddress,
        path: str,
        query: wire.Query,
        timeout: float,
        may_send: Callable[[], str] = str,
    ) -> wire.Outcome:
        try:
            outcome = wire.get(
                server, path, query, timeout, reach=self.reach, may_send=may_send, proxies=self._access.proxies
            )
        except BaseException:  # Ctrl-C: it may have left
            self._bill(path.strip("/"))
            raise
        if not isinstance(outcome, wire.NotSent):
            self._bill(path.strip("/"))
        return outcome


# Errors are raised where what was read is out of sight: it may repeat a secret, and tracebacks show frames.


def _read_server(text: str) -> ServerAddress | AllocationError:
    try:
        return wire.parse_trade_server(text)
    except ValueError as error:
        return AllocationError(f"the allocation service names no trade server: {error}")


def _read_ticket(reply: Mapping[str, Any], server: ServerAddress, begun: float) -> Ticket | LoginError:
    code, message, ticket = code_of(reply), message_of(reply), reply.get("ticket")
    if code != "0":
        return LoginError(f"the broker refused the login: code {code or 'missing'}, {message}", code, message)
    if not isinstance(ticket, (str, int)) or isinstance(ticket, bool) or not str(ticket):
        return LoginError("the broker's reply to the login has no ticket", code, message)
    lifetime = _lifetime(reply.get("expire"))
    return Ticket(Secret(str(ticket)), server, begun + lifetime, lifetime)


def _wrong_reach(mode: Mode, server: ServerAddress) -> str:
    if mode == "paper":
        return f"paper mode talks to this machine alone, and {server} is another one"
    return f"live mode does not talk to this machine, and {server} is on it: a simulator takes mode='paper'"


def code_of(body: Mapping[str, object]) -> str:
    """The code of a reply, as text; "" where there is none."""
    code = body.get("code")
    if isinstance(code, bool) or not isinstance(code, (str, int)):
        return ""
    return shown(str(code).strip())


def _lifetime(value: object) -> float:
    """Seconds that a ticket is good for; not long where the broker says nothing sensible."""
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = math.nan
    # One that is over at once would be a login, and its fee, for every call.
    return min(seconds, _LONGEST_LIFETIME) if seconds > 0 else _SHORT_LIFETIME
