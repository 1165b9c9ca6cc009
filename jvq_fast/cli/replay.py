"""``jvq-fast replay``: what a feed recorded, through a decoder, as a table and counters."""

import argparse
import datetime
import json
import sys
import time
import warnings
from typing import Any

from jvq_fast.capture import replay
from jvq_fast.cli import text
from jvq_fast.cli.complaint import UsageError
from jvq_fast.cli.options import add_trading_day
from jvq_fast.cli.table import Row, Table
from jvq_fast.decoder import Decoder
from jvq_fast.errors import CaptureWarning
from jvq_fast.records import LEVELS

__all__ = ["add_arguments", "run"]

_HEADER = ("code", "name", "last", "change", "volume", *LEVELS, "last time")
_CHINA = datetime.timezone(datetime.timedelta(hours=8))
_ALWAYS_SHOWN = ("messages", "records", "duplicates", "bad")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this subcommand."""
    parser.add_argument("file", metavar="FILE", help="what a feed recorded with capture=")
    add_trading_day(parser)
    parser.add_argument("--json", action="store_true", help="print all counters as a JSON object, as the last line")


def run(options: argparse.Namespace) -> int:
    """Decode a capture file and print the last state of every code, and the counters.

    The exit status is 1 where the file is damaged or was not recorded whole; what comes before a damage is decoded.
    """
    try:
        decoder = Decoder(trading_day=options.trading_day, clock=options.clock)
    except ValueError as error:
        raise UsageError(str(error)) from None
    begin = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        replay(options.file, decoder)
    elapsed = time.perf_counter() - begin
    damage = [str(each.message) for each in caught if issubclass(each.category, CaptureWarning)]
    stats = decoder.stats()
    lines = text.table(_HEADER, [_cells(decoder, row) for row in Table(decoder).rows(decoder.codes)], (0, 1))
    counts = [f"{name} {value:,}" for name, value in stats.items() if name in _ALWAYS_SHOWN and isinstance(value, int)]
    lines.append("   ".join([*counts, f"{elapsed:.2f} s"]))
    troubles = [
        f"{name} {stats[name]:,}"
        for name in ("bad_messages", "maybe_duplicate", "tape_only", "order_unsure", "stale", "empty_field")
        if stats[name]
    ]
    if troubles:
        lines.append("   ".join(troubles))
    print("\n".join(lines))
    for each in damage:
        print(f"jvq-fast replay: {each}", file=sys.stderr)
    if options.json:
        print(json.dumps({"file": options.file, "seconds": round(elapsed, 6), "damage": damage, **stats}))
    return 1 if damage else 0


def _cells(decoder: Decoder, row: Row) -> tuple[str, ...]:
    newest: list[Any] = []
    counts = []
    for level in LEVELS:
        ring = decoder.history(row.code, level)
        counts.append(f"{ring.head:,}")
        newest.extend(ring.last(1)["time"])
    last = datetime.datetime.fromtimestamp(max(newest) // 10**9, _CHINA)
    return (
        row.code,
        text.clip(row.name, 12),
        text.BLANK if row.last is None else text.price(row.last),
        text.BLANK if row.change is None else text.percent(row.change),
        text.BLANK if row.volume is None else text.volume(row.volume),
        *counts,
        f"{last:%Y-%m-%d %H:%M:%S}",
    )
