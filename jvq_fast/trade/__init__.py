"""Trading: the client, its limits and what it tells. Everything else here is its own affair."""

from jvq_fast.trade.client import TradeClient
from jvq_fast.trade.gate import Limits
from jvq_fast.trade.market import Market
from jvq_fast.trade.model import Account, Action, Fill, Intent, Order, Outcome, Position, Side, Status
from jvq_fast.trade.tracker import Polling

__all__ = [
    "Account",
    "Action",
    "Fill",
    "Intent",
    "Limits",
    "Market",
    "Order",
    "Outcome",
    "Polling",
    "Position",
    "Side",
    "Status",
    "TradeClient",
]
