"""Microseconds from the socket to the end of the callback, at a fixed rate of messages.

    python -m benchmarks.latency [--rounds N] [--seconds S] [--rates N ...] [--peers NAME ...] [--json FILE]

A generator in C (``benchmarks/native``) sends real level-2 packets over loopback at 1,000, 10,000 and 50,000 messages a
second. It has a core of its own, stamps each message as it is sent, and never waits for the client, so a client that is
late pays for all that it is late with. Each client runs alone on another core, in a process of its own, and is measured
once it has taken half a second of messages. Its callback reads the last price and keeps the time.

- ``jvq_fast``            a `Feed` with ``on_trades``, on uvloop; ``jvq_fast-asyncio`` on asyncio
- ``jvq_fast-cython``     the same on uvloop with a handler in Cython
- ``jvq_fast-spinning``   the same on uvloop with ``busy_poll``
- ``beast-sleeping``      C++: Boost.Beast, libdeflate and a plain parser; it waits for data in a blocking read
- ``beast-spinning``      the same, asking for data without ever sleeping
- ``official``            jvQuant's own client
- ``websockets``, ``aiohttp``, ``picows``    these on uvloop, with zlib and `str.split`

In each round every client runs once at every rate, and once without any message. Each percentile is the median over the
rounds, the spread that of the middle half of the rounds. CPU is the client's while it is measured.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.loopback import OURS, Loopback, Run, add_options, packets, present
from benchmarks.rounds import at_least_one, quartiles, read_options, write
from benchmarks.shapes import describe

PERCENTILES = {"p50_us": 50, "p90_us": 90, "p99_us": 99, "p999_us": 99.9, "max_us": 100}
FALLS_BEHIND = 0.01  # seconds a second by which the lag grows


def add_rates(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rates",
        type=at_least_one,
        nargs="+",
        metavar="N",
        default=[1000, 10_000, 50_000],
        help="messages a second (default 1000 10000 50000)",
    )


def summary(runs: list[Run], seconds: float) -> dict[str, Any]:
    """What the rounds of one client at one rate come to; percentiles of those in which nothing was lost."""
    result: dict[str, Any] = {
        "cpu": statistics.median(run.cpu for run in runs),
        "preempted": statistics.median(run.found["preempted"] for run in runs),
        "generator_late": statistics.median(run.sent["late"] / max(1, run.sent["sent"]) for run in runs),
        "lost": sum(run.lost for run in runs),
    }
    whole = [run.lags / 1000 for run in runs if len(run.lags)]
    if len(whole) > 1:
        taken = np.median([np.percentile(lags, [*PERCENTILES.values()]) for lags in whole], axis=0)
        result |= dict(zip(PERCENTILES, map(float, taken), strict=True))
        result["low_us"], _, result["high_us"] = quartiles(float(np.median(lags)) for lags in whole)
        parts = [np.array_split(lags, 10) for lags in whole]
        first, last = (statistics.median(float(np.median(part[at])) for part in parts) for at in (0, -1))
        result |= {"last_us": last, "falls_behind": last - first > FALLS_BEHIND * seconds * 1e6}
    return result


def line(name: str, value: dict[str, Any]) -> str:
    notes = f"  LOST {value['lost']}" if value["lost"] else ""
    if "p50_us" not in value:
        return f"  {name:18}{value['cpu']:7.1%}{notes}"
    spread = f"({value['low_us']:,.1f}–{value['high_us']:,.1f})"
    rest = "".join(f"{value[key]:11,.0f}" for key in PERCENTILES if key != "p50_us")
    if value["falls_behind"]:
        notes += f"  falls behind: {value['last_us'] / 1000:,.0f} ms late at the end"
    return f"  {name:18}{value['p50_us']:11,.1f} {spread:22}{rest}{value['cpu']:8.1%}{value['ratio']:11,.2f} ×{notes}"


def main(arguments: Sequence[str] | None = None) -> int:
    options = read_options(__doc__, 5, arguments, add_options, add_rates)
    shape, stream = packets()
    names, machine = present(options.peers)
    rates = [*options.rates, 0]
    runs: dict[tuple[int, str], list[Run]] = {(rate, name): [] for rate in rates for name in names}
    with tempfile.TemporaryDirectory() as folder:
        loopback = Loopback(Path(folder), names)
        for turn in range(options.rounds):
            print(f"round {turn + 1} of {options.rounds}", file=sys.stderr, flush=True)
            for (rate, name), done in runs.items():
                done.append(loopback.run(name, stream, "open-loop", rate, 1, options.seconds))
    print(f"{describe(shape)}\nµs from sent to the end of the callback: p50 (middle half of {options.rounds} rounds), "
          f"p90, p99, p99.9, max; CPU; p50 times {OURS}\n")  # fmt: skip
    results = []
    for rate in rates:
        taken = {name: summary(runs[rate, name], options.seconds) for name in names}
        title = f"{rate:,} messages/s" if rate else "no messages, CPU"
        for value in taken.values():
            if "p50_us" in value and "p50_us" in taken[OURS]:
                value["ratio"] = value["p50_us"] / taken[OURS]["p50_us"]
        print(title, *(line(name, value) for name, value in taken.items()), sep="\n")
        late = max(value["generator_late"] for value in taken.values())
        print(f"  the generator was late by itself with up to {late:.1%} of the messages")
        results.append({"shape": title, "source": shape.source, "rate": rate, "contenders": taken})
    write(options, machine | {"seconds": options.seconds}, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
