"""Buys ten bonds when they are cheaper than on average of late, and sells them when they are dearer: feed in, orders
out, fills back.

jvq-fast sim --json | python examples/reversion.py      on the simulator, with paper money; Ctrl-C ends both
jvq-fast demo --strategy                                the same, in a table
"""

import contextlib
import json
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from decimal import Decimal
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import jvq_fast as jvq

CODE = "113050"  # a convertible bond, which may be sold on the day on which it was bought
EDGE = Decimal("0.030")  # CNY that a fill is worth beyond the last price
PATIENCE = 5_000_000_000  # ns that an order may wait
PAUSE = 1_000_000_000  # ns between two orders: what is refused once is refused again
TOKEN, ACCOUNT, PASSWORD = "0" * 32, "100000000001", "any will do"


class Reversion:
    """One order at a time. Two threads meet here: the feed's judges, the client's hears what became of the order."""

    def __init__(
        self,
        feed: jvq.Feed,
        client: jvq.TradeClient,
        code: str = CODE,
        volume: int = 10,
        say: Callable[[str], None] = print,
    ) -> None:
        self.feed, self.client, self.code, self.volume, self.say = feed, client, code, volume, say
        self.held = 0
        self.busy = False
        self.order: jvq.Order | None = None
        self.since = 0
        feed.on_trades(self.judge)
        client.on_intent(self.decided)
        client.on_order(self.changed)
        client.on_fill(self.filled)

    def judge(self, code: str, trades: NDArray[np.void]) -> None:
        """On the feed's thread: what is submitted does not hold it up."""
        prices = self.feed.history(self.code, "trades").last(200)["price"]
        if code != self.code or len(prices) < 200:
            return
        now = trades[-1]["time"]
        if self.busy:
            if self.order is not None and now > self.since + PATIENCE:
                self.client.submit_cancel(self.order)
                self.order = None
            return
        if now < self.since + PAUSE:
            return
        price = Decimal(str(prices[-1]))
        if self.held < self.volume and prices[-1] < prices.mean():
            self.submit(self.client.submit_buy, price + EDGE, now)
        elif self.held >= self.volume and prices[-1] > prices.mean():
            self.submit(self.client.submit_sell, price - EDGE, now)

    def submit(self, submit: "Callable[[str, Decimal, int], Future[jvq.Order]]", limit: Decimal, now: int) -> None:
        self.busy, self.order, self.since = True, None, now
        submit(self.code, limit, self.volume).add_done_callback(self.sent)

    def sent(self, future: "Future[jvq.Order]") -> None:
        """Refused here, it has no intent; of all that have one, `decided` hears."""
        error = future.exception()
        if error is not None:
            self.say(f"not ordered: {error}")
            if not isinstance(error, jvq.OrderUnknown | jvq.OrderRejected | jvq.OrderNotSent):
                self.busy = False

    def decided(self, intent: jvq.Intent) -> None:
        """While nobody knows, it stays busy: the broker's list tells, or a human."""
        if intent.action == "cancel" or intent.outcome is jvq.Outcome.UNKNOWN:
            return
        if intent.outcome is jvq.Outcome.ACCEPTED:
            self.order = self.client.order(intent)
        else:
            self.busy = False

    def changed(self, order: jvq.Order) -> None:
        if order.is_final:
            self.busy = False

    def filled(self, fill: jvq.Fill) -> None:
        self.held += fill.volume if fill.order.side is jvq.Side.BUY else -fill.volume
        self.say(f"{fill.order.side} {fill.volume} at {fill.price}: {self.held} held")


def main() -> None:
    try:
        sim = json.loads(input()) if Path("/dev/stdin").is_fifo() else {}
        sim["http"], sim["trade"], sim["trading_day"]
    except (ValueError, KeyError, TypeError):
        raise SystemExit("jvq-fast sim --json | python examples/reversion.py") from None
    feed = jvq.Feed(
        TOKEN, [f"lv1_{CODE}", f"lv2_{CODE}"], allocation=sim["http"], trading_day=sim["trading_day"], clock="always"
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        client = jvq.TradeClient(
            TOKEN, ACCOUNT, PASSWORD, mode="paper", market=feed, server=sim["trade"], budget=None, polling_budget=None,
            journal=Path(folder, "journal"), ticket_file=Path(folder, "ticket"),
        )  # fmt: skip
        with client, feed:
            Reversion(feed, client, say=partial(print, flush=True))
            feed.join()


if __name__ == "__main__":
    main()
