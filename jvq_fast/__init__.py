"""jvQuant's compressed market feed as typed numpy records in preallocated ring buffers.

``Decoder`` turns messages into records, ``Ring`` holds them, ``Feed`` brings the messages, ``replay`` brings recorded
ones. ``TradeClient`` places orders. The wire and the units of every field are described in ``docs/``.
"""

from jvq_fast import _picows

_picows.check()

import logging as _logging
from pathlib import Path as _Path

from jvq_fast.capture import replay
from jvq_fast.decoder import Decoder
from jvq_fast.errors import (
    AccountInUseError,
    AllocationError,
    AllocationRefusedError,
    BudgetError,
    CaptureError,
    CaptureWarning,
    ConnectError,
    ConnectionLimitError,
    DataError,
    EvictedError,
    HandshakeError,
    JournalError,
    JvqError,
    KilledError,
    LoginError,
    NoMarketData,
    NotConnectedError,
    OrderNotSent,
    OrderRejected,
    OrderUnknown,
    RequestTimeoutError,
    RiskError,
    ServerError,
    StatusError,
    TicketError,
    TradeError,
    WaitTimeoutError,
)
from jvq_fast.events import Gap, Lag, Stale, State
from jvq_fast.feed import Feed
from jvq_fast.records import DEPTH, QUOTE, TRADE, Flag
from jvq_fast.redact import RedactingFilter as _RedactingFilter
from jvq_fast.ring import Ring
from jvq_fast.trade import (
    Account,
    Fill,
    Intent,
    Limits,
    Market,
    Order,
    Outcome,
    Polling,
    Position,
    Side,
    Status,
    TradeClient,
)

# What a user's handler raises may hold the token too.
_logging.getLogger("jvq_fast").addFilter(_RedactingFilter())

__version__ = "0.1.0"


def get_include() -> str:
    """The folder of the C headers that the ``.pxd`` files name: an include directory for what cimports this package."""
    return str(_Path(__file__).with_name("include"))


__all__ = [
    "DEPTH",
    "QUOTE",
    "TRADE",
    "Account",
    "AccountInUseError",
    "AllocationError",
    "AllocationRefusedError",
    "BudgetError",
    "CaptureError",
    "CaptureWarning",
    "ConnectError",
    "ConnectionLimitError",
    "DataError",
    "Decoder",
    "EvictedError",
    "Feed",
    "Fill",
    "Flag",
    "Gap",
    "HandshakeError",
    "Intent",
    "JournalError",
    "JvqError",
    "KilledError",
    "Lag",
    "Limits",
    "LoginError",
    "Market",
    "NoMarketData",
    "NotConnectedError",
    "Order",
    "OrderNotSent",
    "OrderRejected",
    "OrderUnknown",
    "Outcome",
    "Polling",
    "Position",
    "RequestTimeoutError",
    "Ring",
    "RiskError",
    "ServerError",
    "Side",
    "Stale",
    "State",
    "Status",
    "StatusError",
    "TicketError",
    "TradeClient",
    "TradeError",
    "WaitTimeoutError",
    "__version__",
    "get_include",
    "replay",
]
