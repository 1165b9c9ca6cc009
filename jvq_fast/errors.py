"""Everything `jvq_fast` raises of its own: `JvqError`, and below it one class per thing the caller can act on.

No message, argument or attribute of these errors ever holds an account token, and no exception chained to one does.
"""

from collections.abc import Mapping
from typing import Any

from jvq_fast.plural import plural

__all__ = [
    "AccountInUseError",
    "AllocationError",
    "AllocationRefusedError",
    "BudgetError",
    "CaptureError",
    "CaptureWarning",
    "ConnectError",
    "ConnectionLimitError",
    "DataError",
    "EvictedError",
    "HandshakeError",
    "JournalError",
    "JvqError",
    "KilledError",
    "LoginError",
    "NoMarketData",
    "NotConnectedError",
    "OrderNotSent",
    "OrderRejected",
    "OrderUnknown",
    "RequestTimeoutError",
    "RiskError",
    "ServerError",
    "StatusError",
    "TicketError",
    "TradeError",
    "WaitTimeoutError",
]

_SUMS = ("bad", "bad_messages")


class JvqError(Exception):
    """Base of every error of this package. Wrong arguments are `ValueError` or `TypeError` as everywhere in Python."""


class AllocationError(JvqError):
    """No server was allocated: the service can't be reached, is too slow, or its reply is of no use. Try later."""


class AllocationRefusedError(AllocationError):
    """The allocation service answered and said no: look at the token, the balance and the market.

    `code` and `message` are the service's own, as text, `status` that of HTTP.
    """

    def __init__(self, code: str, message: str, status: int = 200) -> None:
        super().__init__(code, message, status)
        self.code = code
        self.message = message
        self.status = status

    def __str__(self) -> str:
        return f"the allocation service refused: code {self.code}" + (f", {self.message}" if self.message else "")


class ConnectError(JvqError):
    """The market-data server can't be reached: unknown host, refused, reset, or too slow."""


class HandshakeError(ConnectError):
    """The server was reached but did not open a WebSocket: `status` is its HTTP status, 0 where it sent none.

    A 4xx usually means that the token is not accepted.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message, status)
        self.message = message
        self.status = status

    def __str__(self) -> str:
        return self.message


class ServerError(JvqError):
    """The market-data server sent a text with a negative code, like `-1#…`: `text`, a token in it blotted out."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"the server says: {self.text}"


class ConnectionLimitError(ServerError):
    """The account has as many connections as it may have: end another one, or raise the balance."""


class EvictedError(ConnectionLimitError):
    """The server took the connection away time and again: another process uses the token. One of the two must end."""

    def __init__(self, text: str, times: int, seconds: float) -> None:
        super().__init__(text)
        self.args = (text, times, seconds)
        self.times = times
        self.seconds = seconds

    def __str__(self) -> str:
        return (
            f"evicted {plural(self.times, 'time')} within {self.seconds:g} s, so most likely another process uses this "
            f"token: end one of the two. The server says: {self.text}"
        )


class NotConnectedError(JvqError):
    """The feed has no connection to send a request on, or lost it before the reply."""


class RequestTimeoutError(JvqError, TimeoutError):
    """No reply to a request within its time."""


class DataError(JvqError):
    """Market data came that could not be read, and is not in the rings.

    `counts` says how much since the last such error, by the names of docs/counters.md: `bad` records, `bad_messages`,
    and the reasons of both. `feed.decoder.bad_records` has the latest of the records.
    """

    def __init__(self, counts: Mapping[str, int]) -> None:
        super().__init__(dict(counts))
        self.counts = dict(counts)

    def __str__(self) -> str:
        reasons = ", ".join(f"{name} {count}" for name, count in self.counts.items() if name not in _SUMS)
        records, messages = (self.counts.get(name, 0) for name in _SUMS)
        return f"{plural(records, 'record')} and {plural(messages, 'message')} could not be read: {reasons}"


class TradeError(JvqError):
    """Base of what the trade client raises. As such: a query that failed; nothing was ordered by it."""


class LoginError(TradeError):
    """The broker did not let the account in: `code` and `message` are its own, "" where no reply could be read."""

    def __init__(self, why: str, code: str = "", message: str = "") -> None:
        super().__init__(why, code, message)
        self.why = why
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.why


class _OrderError(TradeError):
    """What became of an order or a cancel that was asked for: `intent` is its entry in the journal."""

    def __init__(self, why: str, intent: Any) -> None:
        super().__init__(why, intent)
        self.why = why
        self.intent = intent

    def __str__(self) -> str:
        return self.why


class OrderNotSent(_OrderError):  # noqa: N818
    """Not a byte of it left this machine: it is safe to order again."""


class OrderRejected(_OrderError):  # noqa: N818
    """The broker said no, and its list of orders bears it out. `code` and `message` are the broker's own."""

    def __init__(self, why: str, intent: Any, code: str = "", message: str = "") -> None:
        super().__init__(why, intent)
        self.args = (why, intent, code, message)
        self.code = code
        self.message = message


class OrderUnknown(_OrderError):  # noqa: N818
    """It may be at the broker, or not. DON'T ORDER AGAIN: the client looks it up, `client.wait(error.intent)` waits.

    Until it is known, new orders of the same code and side are refused. What can't be found out is for a human:
    look at the broker's own screen, then `client.resolve(intent, …)`.
    """


class RiskError(TradeError):
    """Refused by the risk gate before anything left: `limit` names it, `allowed` is its value, `actual` the order's."""

    def __init__(self, limit: str, allowed: object, actual: object, why: str) -> None:
        super().__init__(limit, allowed, actual, why)
        self.limit = limit
        self.allowed = allowed
        self.actual = actual
        self.why = why

    def __str__(self) -> str:
        return f"{self.limit}: {self.why}"


class NoMarketData(RiskError):  # noqa: N818
    """Refused: there is no price, or no limit prices, to judge the order by."""


class KilledError(RiskError):
    """Refused: the kill switch is on, and stays on until `rearm()`."""


class BudgetError(TradeError):
    """The day's budget for the broker's fees is used up."""


class JournalError(TradeError):
    """The journal can't be used or written: without it nothing is ordered."""


class AccountInUseError(JournalError):
    """Another process trades with this journal: one account, one process."""


class TicketError(TradeError):
    """The file of the ticket can't be used: others may read it, or it can't be written."""


class WaitTimeoutError(TradeError, TimeoutError):
    """An order was not done in the time that `wait` was given. It goes on as before."""


class CaptureError(JvqError):
    """A capture file can't be used: not a capture, another market or version, in use, or not writable."""


class StatusError(JvqError):
    """A status socket can't be made, or a feed's can't be read; the message says why and what to do."""


class CaptureWarning(UserWarning):
    """A capture file is damaged or incomplete; the message names the byte offset."""
