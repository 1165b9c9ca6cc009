"""``jvq-fast watch``: the table of any feed, the vendor's or a simulator's."""

import argparse
import json
import time
from collections import deque

from jvq_fast.cli import tokens
from jvq_fast.cli.complaint import explained
from jvq_fast.cli.interrupt import Interrupt
from jvq_fast.cli.lag import ArrivalLag
from jvq_fast.cli.options import add_seconds, add_trading_day, make_feed, subscribed_codes
from jvq_fast.cli.screen import Screen, screen
from jvq_fast.cli.table import Table
from jvq_fast.cli.text import clip
from jvq_fast.errors import JvqError
from jvq_fast.events import Gap, Lag
from jvq_fast.feed import Feed
from jvq_fast.redact import redact
from jvq_fast.rules import is_refusal

__all__ = ["add_arguments", "run"]

_STEP = 0.1
_SHOWN = 200
_MOST_LINES = 1000
# The table shows the newest record of a code, and only trades are looked up after a reconnect.
_HISTORY = {"trades": 1024, "quotes": 4, "depths": 4}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this subcommand."""
    parser.add_argument(
        "subscriptions", nargs="+", metavar="SUBSCRIPTION", help="such as lv1_600519, lv2_600519, lv10_600519"
    )
    tokens.add_arguments(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--allocation", metavar="URL", help="ask this allocation service for a server, not the vendor's")
    where.add_argument("--server", metavar="URL", help="connect to this server, such as ws://1.2.3.4:21966")
    add_trading_day(parser)
    parser.add_argument("--capture", metavar="FILE", help="record what arrives, for `jvq-fast replay`")
    parser.add_argument("--status", action="store_true", help="let `jvq-fast status` read the counters meanwhile")
    add_seconds(parser)
    parser.add_argument("--json", action="store_true", help="print all counters as a JSON object, as the last line")


def run(options: argparse.Namespace) -> int:
    """Show a live table of subscriptions; Ctrl-C ends it."""
    feed = make_feed(
        tokens.read(options),
        options.subscriptions,
        allocation=options.allocation,
        server=options.server,
        trading_day=options.trading_day,
        clock=options.clock,
        capture=options.capture,
        status=options.status or None,
        history=_HISTORY,
    )
    with Interrupt() as interrupt, screen() as show:
        _Watch(feed, show).run(interrupt, options.seconds)
    if options.json:
        print(json.dumps(feed.stats()))
    return 0


class _Watch:
    def __init__(self, feed: Feed, show: Screen) -> None:
        self._feed = feed
        self._show = show
        self._codes = subscribed_codes(feed)
        self._table = Table(feed.decoder)
        self._lag = ArrivalLag()
        self._state = "connecting"
        # Shown by the thread that draws: a terminal that is stopped or gone is nothing to the feed's.
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        for event in (feed.on_trades, feed.on_quotes, feed.on_depths):
            event(self._lag.note)
        feed.on_connect(self._connected)
        feed.on_disconnect(self._disconnected)
        feed.on_gap(self._gap)
        feed.on_lag(self._lags)
        feed.on_text(self._text)
        feed.on_error(self._error)

    def run(self, interrupt: Interrupt, seconds: float | None) -> None:
        end = time.monotonic() + seconds if seconds else float("inf")
        draw = 0.0
        try:
            try:
                self._feed.start()
                while not interrupt.requested and (now := time.monotonic()) < end:
                    self._say_all()
                    if now >= draw:
                        draw = now + self._show.every
                        self._draw()
                    if self._feed.join(max(0.0, min(_STEP, end - now))):
                        break
            finally:
                self._feed.stop()
                self._feed.join()
        finally:
            self._say_all()
        self._draw(final=True)

    def _say_all(self) -> None:
        while self._lines:
            self._show.say(self._lines.popleft())

    def _draw(self, *, final: bool = False) -> None:
        stats = self._feed.stats()
        counts = (
            f"received {stats['records']:,}   duplicate {stats['duplicates']:,}   bad {stats['bad']:,}   "
            f"reconnects {stats['reconnects']}   gaps {stats['gaps']}"
        )
        self._lag.work_off()
        lag = self._lag.recent()
        below = [counts]
        if lag is not None:
            below.append(f"lag from arrival to callback: median {lag[0]:,.0f} µs, 99th percentile {lag[1]:,.0f} µs")
        if not final:
            below.append(self._state)
        self._show.update(self._table.rows(self._codes, self._lag.by_code()), below, final=final)

    # What follows is called on the feed's thread.

    def _connected(self, server: str) -> None:
        self._state = f"connected to {server}"

    def _disconnected(self, reason: str) -> None:
        self._state = f"disconnected: {reason}"
        if reason != "stopped":
            self._note(self._state)

    def _gap(self, gap: Gap) -> None:
        self._note(f"gap of {(gap.end - gap.start) / 1e9:.1f} s: {gap.reason}")

    def _lags(self, lag: Lag) -> None:
        self._note(f"lag, {lag.fault}: {lag.detail}")

    def _text(self, text: str) -> None:
        if not is_refusal(text):
            self._note(f"the server says: {clip(redact(text), _SHOWN)}")

    def _error(self, error: Exception, where: str) -> None:
        self._note(f"{where}: {explained(error) if isinstance(error, JvqError) else redact(repr(error))}")

    def _note(self, line: str) -> None:
        self._lines.append(f"{time.strftime('%H:%M:%S')} {line}")
