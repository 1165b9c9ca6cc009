"""``jvq-fast status``: the counters of feeds that are running, read from their status sockets."""

import argparse
import datetime
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jvq_fast import status
from jvq_fast.cli import text
from jvq_fast.cli.interrupt import Interrupt
from jvq_fast.cli.options import seconds
from jvq_fast.errors import StatusError

__all__ = ["add_arguments", "run"]

_STEP = 0.1
_CELL = 120
_LINE = 80
_INDENT = 6
_UNITS = (("_us", 1e-6), ("_ms", 1e-3), ("_seconds", 1.0))
_LONGEST = 1e18  # another process says it, and may say anything
_CLEAR = "\x1b[H\x1b[2J"
_FACTS = ("pid", "version", "started_ns", "now_ns", "error")
# By the beginning of their names, in this order; what belongs nowhere is shown at the end, so that nothing hides.
_TOPICS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "connection",
        (
            "state", "connected", "server", "loop", "busy_poll", "subscriptions", "connects", "reconnects",
            "disconnects", "connect_failures", "allocations", "refusals", "evictions", "answers", "pings", "pongs",
            "probes", "frames", "texts", "fragments",
        ),
    ),
    (
        "faults",
        (
            "bad", "inflate_t", "inflate_c", "gaps", "stale", "server_errors", "callback_errors", "callback_hangs",
            "capture_lost", "capture_failing",
            "duplicates", "maybe_duplicate", "order_unsure", "empty_field", "id_text", "no_date", "no_price",
            "tape_only", "storage_late", "lags",
        ),
    ),
    (
        "records",
        (
            "messages", "bytes", "inflated_bytes", "rows", "batches", "records", "trades", "quotes", "depths",
            "repeats", "codes", "lv1_order", "lv10_order", "capture_messages",
        ),
    ),
    ("lag", ("lag", "backlog", "clock", "decode_seconds", "callback_seconds", "callback_running")),
)  # fmt: skip
_SHOWN = ("connection", "records", "lag", "faults")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this subcommand."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("path", nargs="?", metavar="PATH", help="the socket of a feed; by default the one that runs")
    which.add_argument("--all", action="store_true", help="all feeds of this user that are running")
    parser.add_argument("--json", action="store_true", help="print the counters as a JSON object, one line for a feed")
    parser.add_argument("--watch", type=seconds, metavar="SECONDS", help="again every so many seconds, until Ctrl-C")


def run(options: argparse.Namespace) -> int:
    """Print the counters of a running feed: connection, records, lag, faults.

    Without a path, where several feeds are running, they are listed. The exit status is 1 where a feed does not answer.
    """
    if options.watch is None:
        return _once(options)
    with Interrupt() as interrupt:
        while True:
            if not options.json:
                live = sys.stdout.isatty()
                print(_CLEAR if live else f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n", end="")
            answered = _once(options)
            sys.stdout.flush()
            if answered and options.path:
                return answered
            due = time.monotonic() + options.watch
            while (left := due - time.monotonic()) > 0 and not interrupt.requested:
                time.sleep(min(_STEP, left))
            if interrupt.requested:
                return 0
            if not options.json:
                print()


def _once(options: argparse.Namespace) -> int:
    paths = [Path(options.path)] if options.path else status.feeds()
    if not paths:
        raise StatusError("no feed of this user runs with status=True; name the socket of one that was given a path")
    several = len(paths) > 1
    failed = 0
    lines: list[tuple[str, ...]] = []
    for path in paths:
        try:
            found = status.read_status(path)
        except StatusError as error:
            if not several:
                raise
            failed = 1
            print(f"jvq-fast status: {error}", file=sys.stderr)
            continue
        if options.json:
            print(json.dumps({"path": str(path), **found}, ensure_ascii=False))
        elif several and not options.all:
            lines.append(_line(path, found))
        else:
            print("\n".join([*([""] if several and path != paths[0] else []), *_page(path, found)]))
    if lines:
        rows = (("pid", "state", "up", "records", "faults", "socket"), *lines)
        print("\n".join("".join(row).rstrip() for row in text.aligned(rows, (1, 5), _LINE)))
        print("\nOne of them: jvq-fast status SOCKET; all of them: jvq-fast status --all")
    return failed


def _line(path: Path, found: Mapping[str, Any]) -> tuple[str, ...]:
    counts = [found.get(name, 0) for name in ("bad", "bad_messages", "gaps", "stales")]
    faults = sum(count for count in counts if isinstance(count, int))
    return (
        _value("pid", found.get("pid")),
        _value("state", found.get("state", "connected" if found.get("connected") else "not connected")),
        _up(found),
        _value("records", found.get("records")),
        f"{faults:,}",
        text.clip(str(path), _CELL),
    )


def _page(path: Path, found: Mapping[str, Any]) -> list[str]:
    title = text.clip(f"feed {_value('pid', found.get('pid'))}, jvq_fast {found.get('version')}", _CELL)
    lines = [f"{title}, up {_up(found)}", f"  {text.clip(str(path), 2 * _CELL)}"]
    if found.get("error"):
        lines.append(text.clip(f"it can't tell its counters: {found['error']}", 2 * _CELL))
    topics = _sorted(found)
    for topic in (*_SHOWN, "other"):
        entries = topics[topic]
        if topic == "faults":
            entries = [(name, value) for name, value in entries if value]
            if not entries:
                lines += ["", "faults: none"]
                continue
        if entries:
            cells = [(f"  {text.clip(name, _CELL)}", _value(name, value)) for name, value in entries]
            width = max(text.width(name) for name, _ in cells)
            lines += ["", topic]
            for name, value in cells:
                lines += _fitting(text.pad(name, width, right=False), value)
    return lines


def _fitting(name: str, value: str) -> list[str]:
    """Both on a line, or the value below where that would be too long for a terminal."""
    line = f"{name}  {value}"
    return [line] if text.width(line) <= _LINE else [name.rstrip(), " " * _INDENT + value]


def _sorted(found: Mapping[str, Any]) -> dict[str, list[tuple[str, Any]]]:
    """The counters by topic, each topic in the order of `_TOPICS`."""
    topics: dict[str, list[tuple[int, str, Any]]] = {name: [] for name, _ in (*_TOPICS, ("other", ()))}
    for name, value in found.items():
        if name not in _FACTS:
            topic, place = _topic(name)
            topics[topic].append((place, name, value))
    return {
        topic: [(name, value) for _, name, value in sorted(entries, key=_place)] for topic, entries in topics.items()
    }


def _place(entry: tuple[int, str, Any]) -> int:
    return entry[0]


def _topic(name: str) -> tuple[str, int]:
    tests: Sequence[Callable[[str], bool]] = (name.__eq__, name.startswith)
    for fits in tests:
        for topic, beginnings in _TOPICS:
            for place, beginning in enumerate(beginnings):
                if fits(beginning):
                    return topic, place
    return "other", 0


def _value(name: str, value: object) -> str:
    if value is None or value == "":
        return text.BLANK
    if name == "pid":
        return str(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return text.clip(str(value), _CELL)
    for suffix, size in _UNITS:
        if name.endswith(suffix) and abs(value) < _LONGEST:
            return text.duration(value * size)
    return text.number(value) if isinstance(value, float) else f"{value:,}"


def _up(found: Mapping[str, Any]) -> str:
    begin, now = found.get("started_ns"), found.get("now_ns")
    if not isinstance(begin, int) or not isinstance(now, int):
        return text.BLANK
    return str(datetime.timedelta(seconds=max(0, now - begin) // 10**9))
