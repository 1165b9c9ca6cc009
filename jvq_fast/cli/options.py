"""Options that several subcommands share, and what they mean for a feed."""

import argparse
import math
from collections.abc import Sequence
from typing import Any

from jvq_fast.cli.complaint import UsageError
from jvq_fast.feed import Feed

__all__ = ["add_seconds", "add_trading_day", "make_feed", "seconds", "subscribed_codes"]


def seconds(text: str) -> float:
    """A time in seconds above 0, as the type of an option."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds: it must be a number above 0")
    return value


def add_seconds(parser: argparse.ArgumentParser) -> None:
    """Add --seconds."""
    parser.add_argument("--seconds", type=seconds, metavar="N", help="end after N seconds; without it Ctrl-C ends it")


def add_trading_day(parser: argparse.ArgumentParser) -> None:
    """Add --trading-day and --clock."""
    parser.add_argument(
        "--trading-day",
        metavar="YYYY-MM-DD",
        help="day of the times on the wire, which carry none; the simulator names its own. By default it follows from "
        "the arrival",
    )
    parser.add_argument(
        "--clock",
        choices=("exchange", "always"),
        default="exchange",
        help="'always' flags no record as stale and expects data day and night: for the simulator, which keeps its own "
        "hours (default %(default)s)",
    )


def make_feed(token: str, subscriptions: Sequence[str], **settings: Any) -> Feed:
    """A feed; UsageError for settings that make no sense."""
    try:
        return Feed(token, subscriptions, **settings)
    except ValueError as error:
        raise UsageError(str(error)) from None


def subscribed_codes(feed: Feed) -> list[str]:
    """The codes of a feed's subscriptions, in order."""
    return list(dict.fromkeys(each.partition("_")[2] for each in feed.subscriptions))
