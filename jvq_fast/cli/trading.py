"""The example strategy at work in the demo, with paper money: its orders and fills as lines below the table."""

import tempfile
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jvq_fast.cli.complaint import fit_to_show
from jvq_fast.feed import Feed
from jvq_fast.trade.client import TradeClient
from jvq_fast.trade.model import Fill, Order

__all__ = ["Trading"]

_ACCOUNT, _PASSWORD = "100000000001", "any will do"
_SHOWN = 5


class Trading:
    """``with Trading(feed, server, token) as trading:`` — trades while the feed runs."""

    def __init__(self, feed: Feed, server: str, token: str) -> None:
        from jvq_fast.examples.reversion import Reversion

        self._folder = tempfile.TemporaryDirectory(prefix="jvq_fast_demo_")
        self._client = TradeClient(
            token,
            _ACCOUNT,
            _PASSWORD,
            mode="paper",
            market=feed,
            server=server,
            budget=None,
            polling_budget=None,
            journal=Path(self._folder.name, "journal"),
            ticket_file=Path(self._folder.name, "ticket"),
        )
        self._latest: deque[str] = deque(maxlen=_SHOWN)
        self._orders: dict[str, Order] = {}
        self._fills = self._errors = 0
        self._client.on_order(self._changed)
        self._client.on_fill(self._filled)
        self._client.on_error(self._failed)
        self._strategy = Reversion(feed, self._client, say=self._say)

    def __enter__(self) -> Self:
        self._client.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()
        self._folder.cleanup()

    def _say(self, line: str) -> None:
        self._latest.append(f"  {line}")

    def _changed(self, order: Order) -> None:
        self._orders[order.order_id] = order
        self._say(
            f"{order.at:%H:%M:%S} order {order.order_id}: {order.side} {order.volume} {order.code} at {order.price}, "
            f"{order.status}"
        )

    def _filled(self, fill: Fill) -> None:  # noqa: ARG002
        self._fills += 1

    def _failed(self, error: Exception, where: str) -> None:
        self._errors += 1
        self._say(f"{where}: {fit_to_show(str(error))}")

    def lines(self) -> list[str]:
        """How it stands, and the latest orders."""
        stats = self._client.stats()
        return [
            f"strategy: {stats['accepted']} accepted, {stats['rejected']} rejected, {stats['unknown']} unknown, "
            f"{self._fills} fills, {self._strategy.held} held; fees {stats['spent']} CNY",
            *self._latest,
        ]

    def figures(self) -> dict[str, Any]:
        """For the result."""
        stats = self._client.stats()
        return {
            "orders": len(self._orders),
            "fills": self._fills,
            "unknown": stats["unknown"],
            "trade_errors": self._errors,
            "held": self._strategy.held,
        }
