"""``jvq-fast demo``: a simulator of its own, a feed, a live table, and at the end the sum that must come out even."""

import argparse
import contextlib
import gc
import json
import secrets
import sys
import time
from dataclasses import dataclass
from typing import Any

from jvq_fast.cli.interrupt import Interrupt
from jvq_fast.cli.lag import SendLag
from jvq_fast.cli.options import add_seconds, make_feed, subscribed_codes
from jvq_fast.cli.screen import Screen, screen
from jvq_fast.cli.simulator import Sent, Simulator, bypass_proxies
from jvq_fast.cli.table import Table
from jvq_fast.cli.trading import Trading
from jvq_fast.feed import Feed

__all__ = ["add_arguments", "run"]

SUBSCRIPTIONS = (
    *(f"{level}_{code}" for code in (
        "600519", "000001", "300750", "688981", "601318", "002594", "600036", "510300", "113050", "127063",
    ) for level in ("lv1", "lv2", "lv10")),
    "lv1_i000001", "lv1_i399001",
)  # fmt: skip

_ASK_EVERY = 1.0
_STILL, _STILL_LIMIT = 0.3, 15.0
_DRAIN_LIMIT = 10.0
_STEP = 0.1
_COUNTED = ("trades", "quotes", "depths", "messages", "bytes", "repeats", "reconnects")
# The table is drawn beside the feed's thread, which waits for it so long at most.
_SWITCH_INTERVAL = 0.0005


@dataclass(frozen=True, slots=True)
class Tally:
    """Where the records of this demo's connections are, from the first push on; REPEAT snapshots count like all others.

    `sent` is the simulator's count, the others are the decoder's. What is not accounted for is lost; a negative number
    would be records that nobody sent.
    """

    sent: int
    received: int
    duplicates: int
    bad: int

    @property
    def lost(self) -> int:
        return self.sent - self.received - self.duplicates - self.bad


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this subcommand."""
    parser.add_argument(
        "subscriptions",
        nargs="*",
        metavar="SUBSCRIPTION",
        help="what to subscribe to, such as lv2_600519 (default: 12 codes at all levels they have)",
    )
    add_seconds(parser)
    parser.add_argument("--json", action="store_true", help="print the result as a JSON object, as the last line")
    parser.add_argument("--seed", type=int, default=1, help="seed of the generated market (default %(default)s)")
    parser.add_argument("--capture", metavar="FILE", help="record what arrives, for `jvq-fast replay`")
    parser.add_argument(
        "--strategy", action="store_true", help="trade on paper with the strategy of examples/reversion.py"
    )


def run(options: argparse.Namespace) -> int:
    """Start the simulator, feed on it, show a live table, and compare what was sent with what arrived.

    The exit status is 0 only if nothing was lost and nothing was bad.
    """
    bypass_proxies()
    # Known to nobody else, so that all the simulator sends, it sends to this demo.
    token = secrets.token_hex(16)
    with contextlib.ExitStack() as stack:
        interrupt = stack.enter_context(Interrupt())
        simulator = stack.enter_context(Simulator(["--seed", str(options.seed), "--tokens", token]))
        feed = make_feed(
            token,
            options.subscriptions or SUBSCRIPTIONS,
            allocation=simulator.http,
            trading_day=simulator.trading_day,
            clock="always",
            capture=options.capture,
        )
        trading = stack.enter_context(Trading(feed, simulator.trade, token)) if options.strategy else None
        demo = _Demo(feed, simulator, interrupt, trading)
        gc.collect()
        gc.freeze()
        interval = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_INTERVAL)
        try:
            with screen() as show:
                result = demo.run(show, options.seconds)
        finally:
            sys.setswitchinterval(interval)
    print(_verdict(result))
    if options.json:
        print(json.dumps(result))
    return 0 if result["ok"] else 1


class _Demo:
    def __init__(self, feed: Feed, simulator: Simulator, interrupt: Interrupt, trading: Trading | None) -> None:
        self._feed = feed
        self._trading = trading
        self._simulator = simulator
        self._interrupt = interrupt
        self._codes = subscribed_codes(feed)
        self._lag = SendLag(feed.decoder)
        self._table = Table(feed.decoder)
        self._last_error = ""
        self._sent = self._overdue = 0
        for event in (feed.on_trades, feed.on_quotes, feed.on_depths):
            event(self._lag.note)
        feed.on_connect(self._lag.connected)
        feed.on_error(self._note_error)

    def run(self, show: Screen, seconds: float | None) -> dict[str, Any]:
        show.say(f"simulator at {self._simulator.http}, trading day {self._simulator.trading_day}")
        self._feed.start()
        try:
            begin = time.monotonic()
            self._watch(show, begin + seconds if seconds else float("inf"))
            elapsed = time.monotonic() - begin
            self._feed.replace(())
            came_to_rest = self._wait_still()
            tally = self._drain()
            self._match()
            self._show(show, tally, tally.lost, final=True)
        finally:
            self._feed.stop()
            self._feed.join()
        return self._result(tally, elapsed, came_to_rest)

    def _watch(self, show: Screen, end: float) -> None:
        ask = draw = 0.0
        while not self._interrupt.requested and (now := time.monotonic()) < end:
            if now >= ask:
                ask = now + _ASK_EVERY
                self._match()
            if now >= draw:
                draw = now + show.every
                tally = self._tally(self._sent)
                self._show(show, tally, max(0, self._overdue - tally.sent + tally.lost))
            if self._feed.join(max(0.0, min(_STEP, end - now))):
                break

    def _match(self) -> Sent:
        """Ask the simulator what it sent, and match the lags."""
        opened = self._lag.connections
        # What was on the wire a second ago should be here now; what was sent just now may be on its way.
        self._overdue = self._sent
        sent = self._simulator.sent()
        self._sent = sent.records
        if sent.connection and opened and opened == self._lag.connections:
            self._lag.belongs(opened, sent.connection)
        self._lag.work_off(self._simulator.stamps)
        return sent

    def _wait_still(self) -> bool:
        end = time.monotonic() + _STILL_LIMIT
        before = None
        while time.monotonic() < end:
            now = self._simulator.sent()
            if now.idle and before is not None and (before.records, before.messages) == (now.records, now.messages):
                return True
            before = now
            if self._feed.join(_STILL):
                return False
        return False

    def _drain(self) -> Tally:
        end = time.monotonic() + _DRAIN_LIMIT
        sent = self._simulator.sent().records
        while True:
            tally = self._tally(sent)
            if tally.lost <= 0 or time.monotonic() > end or self._feed.join(_STEP):
                return tally

    def _tally(self, sent: int) -> Tally:
        stats = self._feed.decoder.stats()
        return Tally(sent, int(stats["records"]), int(stats["duplicates"]), int(stats["bad"]))

    def _show(self, show: Screen, tally: Tally, lost: int, *, final: bool = False) -> None:
        reconnects = self._feed.stats()["reconnects"]
        lag = self._lag.overall() if final else self._lag.recent()
        # Between two answers of the simulator its count is behind ours.
        sent = tally.sent if final else max(tally.sent, tally.received + tally.duplicates + tally.bad)
        below = [
            f"sent {sent:,}   received {tally.received:,}   lost {lost:,}   duplicate {tally.duplicates:,}   "
            f"bad {tally.bad:,}   reconnects {reconnects}"
        ]
        if lag is not None:
            below.append(f"lag from send to callback: median {lag[0]:,.0f} µs, 99th percentile {lag[1]:,.0f} µs")
        if self._trading is not None:
            below += self._trading.lines()
        if self._last_error:
            below.append(self._last_error)
        show.update(self._table.rows(self._codes, self._lag.by_code()), below, final=final)

    def _note_error(self, error: Exception, where: str) -> None:
        self._last_error = f"{where}: {type(error).__name__}: {error}"

    def _result(self, tally: Tally, elapsed: float, came_to_rest: bool) -> dict[str, Any]:
        stats = self._feed.stats()
        lag = self._lag.overall()
        return {
            "ok": came_to_rest and tally.lost == 0 and tally.bad == 0,
            "sent": tally.sent,
            "received": tally.received,
            "lost": tally.lost,
            "duplicates": tally.duplicates,
            "bad": tally.bad,
            "lag_us_p50": round(lag[0], 1) if lag else None,
            "lag_us_p99": round(lag[1], 1) if lag else None,
            "lag_samples": self._lag.samples,
            "seconds": round(elapsed, 3),
            "records_per_second": round(tally.received / elapsed, 1) if elapsed else 0.0,
            **{name: stats[name] for name in _COUNTED},
            "came_to_rest": came_to_rest,
            "loop": stats["loop"],
            "trading_day": self._simulator.trading_day,
            **(self._trading.figures() if self._trading is not None else {}),
        }


def _verdict(result: dict[str, Any]) -> str:
    if result["ok"]:
        return f"All {result['sent']:,} records arrived, {result['records_per_second']:,.0f} a second."
    why = "" if result["came_to_rest"] else "; the simulator did not come to rest"
    return f"NOT even: {result['lost']:,} lost, {result['bad']:,} bad of {result['sent']:,} sent{why}."
