"""A random life of a trade client on real threads and sockets, against the paper broker in its own process."""

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import jvq_fast as jvq
from jvq_fast.errors import AccountInUseError, OrderUnknown, RiskError, TradeError
from jvq_fast.market_rules import lot, tick
from jvq_fast.trade import Intent, Limits, Outcome, Polling, TradeClient
from simulator import TOKEN, Simulator

CODES = ("000001", "601398", "113050", "510300")
WAIT = 60.0
TIMEOUT = 1.0
# Kind and parameters; a fault hits the next call that it concerns.
FAULTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("trade_reply_lost", {"how": "close"}),
    ("trade_reply_lost", {"how": "hang"}),
    ("trade_reply_lost", {"when": "before"}),
    ("trade_reply_lost", {"call": "cancel"}),
    ("trade_reset", {"when": "before"}),
    ("trade_reset", {"when": "after"}),
    ("trade_delay", {"call": "order", "when": "before", "delay": TIMEOUT * 1.3}),
    ("trade_delay", {"call": "order", "when": "after", "delay": TIMEOUT * 1.3}),
    ("trade_delay", {"call": "order", "when": "after", "delay": TIMEOUT / 2}),
    ("trade_slow_login", {"delay": TIMEOUT * 1.5}),
    ("trade_ticket", {}),
    ("trade_reject", {}),
    ("trade_reject", {"call": "cancel"}),
    ("trade_error_after", {}),
    ("trade_error_after", {"call": "cancel"}),
    ("trade_empty_id", {"accepted": True}),
    ("trade_empty_id", {"accepted": False}),
    ("trade_missing", {"polls": 2}),
    ("trade_missing", {"polls": 5}),
    ("trade_order_status", {}),
    ("trade_numbers", {}),
    ("trade_numbers", {"call": "order"}),
    ("trade_fields", {}),
    ("trade_fields", {"call": "order"}),
    ("trade_status", {"call": "order", "status": 502}),
    ("trade_status", {"call": "order", "when": "before"}),
    ("trade_html", {}),
    ("trade_html", {"call": "order"}),
    ("trade_truncated", {}),
    ("trade_truncated", {"call": "order"}),
)
LIMITS = Limits(
    max_order_volume=3_000, max_order_value=Decimal(60_000), max_open_orders=6, max_repeats=2, repeat_window=2.0,
    max_data_age=60.0, sessions=None,
)  # fmt: skip


class PaperLife:
    """One schedule; `counts` says what happened."""

    def __init__(self, sim: Simulator, feed: jvq.Feed, seed: int, folder: Path) -> None:
        self._sim = sim
        self._feed = feed
        self._folder = folder
        self._account = f"{900_000_000_000 + seed}"
        self.rng = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.fills: Counter[str] = Counter()
        self.flagged_now: set[int] = set()
        self.by_human: set[int] = set()
        self.futures: list[Future[Any]] = []
        self._last: dict[str, Any] = {}
        self.client = self._open()

    def run(self) -> Counter[str]:
        try:
            for _ in range(self.rng.choice([5, 8, 12])):
                self._step()
            self._finish()
        finally:
            self._sim.clear()
            self.client.close()
        return self.counts

    def _open(self) -> TradeClient:
        client = TradeClient(
            TOKEN, self._account, "secret password", mode="paper", market=self._feed, allocation=self._sim.http,
            journal=self._folder / "journal", ticket_file=self._folder / "ticket", limits=LIMITS, budget=None,
            polling_budget=None, polling=Polling(fast=0.1, slow=0.5, retry=0.2), timeout=TIMEOUT,
        )  # fmt: skip
        self.flagged_now = flagged = set()
        fills = self.fills

        @client.on_fill
        def on_fill(fill: jvq.Fill) -> None:
            fills[fill.order.order_id] += fill.volume

        @client.on_error
        def on_error(error: Exception, where: str) -> None:
            if isinstance(error, OrderUnknown):
                flagged.add(error.intent.number)

        return client.start()

    def _step(self) -> None:
        rng = self.rng
        if rng.random() < 0.6:
            kind, parameters = rng.choice(FAULTS)
            self._sim.fault(kind, **parameters)
            self.counts[kind] += 1
        steps = [self._order, self._cancel, self._poll, self._restart, self._crash, self._second]
        rng.choices(steps, [9, 2, 1, 1, 1, 0.3])[0]()

    def _try(self, call: Callable[[], object]) -> None:
        try:
            call()
            self.counts["done"] += 1
        except (TradeError, ValueError) as error:
            name = f"gate: {error.limit}" if isinstance(error, RiskError) else type(error).__name__
            self.counts[name] += 1

    def _order(self) -> None:
        rng = self.rng
        code = rng.choice(CODES)
        minimum, step = lot(code)
        volume = minimum + step * rng.choice([0, 1, 3, 200])
        last = self._feed.last(code)
        assert last is not None
        price = last + tick(code) * rng.choice([-3, 0, 0, 2, 400])
        side = rng.choice(["buy", "buy", "sell"])
        if rng.random() < 0.5:
            self._try(lambda: getattr(self.client, side)(code, price, volume))
        else:
            self.futures += [
                getattr(self.client, f"submit_{side}")(code, price, volume) for _ in range(rng.choice([1, 2]))
            ]
            if rng.random() < 0.5:
                self._gather()

    def _gather(self) -> None:
        for future in self.futures:
            self._try(partial(future.result, WAIT))
        self.futures.clear()

    def _cancel(self) -> None:
        orders = [self.client.order(each) for each in self.client.intents]
        open_ = [each for each in orders if each is not None and not each.is_final]
        if open_:
            self._try(lambda: self.client.cancel(self.rng.choice(open_)))

    def _poll(self) -> None:
        self._try(self.client.orders)

    def _restart(self) -> None:
        self._gather()
        self.client.close()
        self._continue()

    def _crash(self) -> None:
        """What was on its way is lost with the process; what was told was told."""
        self._gather()
        self.client._tracker.close(WAIT)
        kept = self.client._ledger._journal
        assert kept is not None
        with self.client._ledger.lock:
            os.close(kept._descriptor)
            kept._descriptor, kept._broken = -1, "this process is gone"
        self.client.close()
        self._continue()

    def _continue(self) -> None:
        known = {each.number: each for each in self.client.intents}
        self.client = self._open()
        for each in self.client.intents:
            before = known.pop(each.number)
            if before.outcome is not Outcome.UNKNOWN:
                assert (each.outcome, each.order_id) == (before.outcome, before.order_id)
        assert not known
        self.counts["restarts"] += 1

    def _second(self) -> None:
        try:
            self._open()
        except AccountInUseError:
            self.counts["second client refused"] += 1
        else:
            raise AssertionError("two clients have one journal")

    # --- the end ---

    def _described(self) -> dict[str, Any]:
        return dict(json.loads(self._sim.request(f"/broker?account={self._account}")))

    def _finish(self) -> None:
        self._gather()
        self._sim.clear()
        time.sleep(TIMEOUT)  # what was delayed before it was accepted
        self._until(lambda: self.client.orders() is not None)
        self._until(lambda: {each.number for each in self.client.unknown} <= self.flagged_now)
        for intent in self.client.unknown:
            self._resolve(intent)
        assert not self.client.unknown
        self._until(self._has_all_told)
        self.client.close()
        self._judge(self._last, self._last["accounts"][0])

    def _has_all_told(self) -> bool:
        """Whether nothing was dealt while the client read its list, and nothing is missing from that any more."""
        before = self._described()["accounts"]
        listed = {order.order_id for order in self.client.orders()}
        self._last = self._described()
        return bool(self._last["accounts"] == before and listed == {each["order_id"] for each in before[0]["orders"]})

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT
        while True:
            try:
                if condition():
                    return
                self.client.orders()
            except TradeError as error:
                self.counts[type(error).__name__] += 1
            assert time.monotonic() < deadline, self.client.unknown
            time.sleep(0.05)

    def _resolve(self, intent: Intent) -> None:
        orders = self._described()["accounts"][0]["orders"]
        claimed = {each.order_id for each in self.client.intents if each.side and each.outcome is Outcome.ACCEPTED}
        if intent.side is None:
            (order,) = [each for each in orders if each["order_id"] == intent.order_id]
            answer = ("accepted" if order["ended"] else "rejected", "")
        else:
            fitting = [each["order_id"] for each in orders if _content(each) == _wanted(intent)]
            free = [each for each in fitting if each not in claimed]
            answer = ("accepted", free[0]) if free else ("not sent", "")
        try:
            self.client.resolve(intent, *answer)
        except ValueError:
            # It was looked up in the meantime.
            assert intent.number not in {each.number for each in self.client.unknown}
        else:
            self.counts["resolved"] += 1
            self.by_human.add(intent.number)

    def _judge(self, described: dict[str, Any], account: dict[str, Any]) -> None:
        assert described["wrong"] == []
        sums = {name: Decimal(each) for name, each in account["sums"].items() if isinstance(each, str)}
        assert sums["cash_now"] == sums["cash_at_start"] - sums["bought"] + sums["sold"] - sums["fees"]
        intents = [each for each in self.client.intents if each.side is not None]
        orders = {each["order_id"]: each for each in account["orders"]}
        claims = {each.order_id: each for each in intents if each.outcome is Outcome.ACCEPTED}
        assert len(claims) == sum(each.outcome is Outcome.ACCEPTED for each in intents)
        assert claims.keys() == orders.keys()
        for order_id, intent in claims.items():
            assert _content(orders[order_id]) == _wanted(intent)
            assert self.fills[order_id] == orders[order_id]["dealt"]
        for order in orders.values():
            price, volume = Decimal(order["price"]), order["volume"]
            assert volume <= LIMITS.max_order_volume
            assert price * volume <= LIMITS.max_order_value
        sent = [each for each in intents if each.outcome is not Outcome.NOT_SENT or each.number in self.by_human]
        requests = [each for each in described["requests"] if each["call"] in ("buy", "sale")]
        # A request with a ticket that has expired has no account any more.
        assert len(orders) <= len(requests) <= len(sent)
        asked = Counter(_wanted(each) for each in sent)
        came = Counter(
            ("buy" if each["call"] == "buy" else "sell", each["code"], Decimal(each["price"]), int(each["volume"]))
            for each in requests
        )
        assert came <= asked
        self.counts["orders at the broker"] += len(orders)
        self.counts["fills told"] += sum(self.fills.values())
        for intent in intents:
            self.counts[f"order ended {intent.outcome}"] += 1


def _content(order: dict[str, Any]) -> tuple[str, str, Decimal, int]:
    return order["side"], order["code"], Decimal(order["price"]), order["volume"]


def _wanted(intent: Intent) -> tuple[str, str, Decimal, int]:
    assert intent.side is not None
    return intent.side.value, intent.security, intent.price, intent.volume
