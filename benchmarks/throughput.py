"""Messages a second when there is no end of them, and the lag at the worst second of the market.

    python -m benchmarks.throughput [--rounds N] [--seconds S] [--open-seconds S] [--peers NAME ...] [--json FILE]

*The flood*: a generator in C (``benchmarks/native``) writes buffers of 64 frames, real level-2 packets, as fast as the
socket takes them; the clients are those of `benchmarks.latency`, each alone on a core, their callbacks the same. Beside
them a sink in C reads and throws away. It must take three times what the fastest client takes; otherwise the generator
is what was measured, and the result says so. Each number is the median over the rounds, with the middle half of them.

*The open*: 300,000 trades a second in 5,000 codes, some of which trade a hundred times as often as others, by the clock
and never waiting for the client, which is ``jvq_fast``, and ``beast-sleeping`` beside it. How the vendor sends so much
is not known, so it comes in two ways:

- in bursts  every 250 ms, the grid on which messages arrive in the recorded days, a message for each code, of one row
             with what it has traded since the last: 5,000 messages and 75,000 trades at once
- evenly     every 3 ms one message of 900 trades, a row for each code among them

Lag is from sent to the end of the callback of the message's last row; lost is what was sent and not published.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.loopback import OURS, SINK, Loopback, Run, Stream, add_options, packets, present
from benchmarks.rounds import above_zero, quartiles, read_options, write
from benchmarks.shapes import SEED, Market, deflate, describe

HEADROOM = 3.0
CODES, TRADES = 5000, 300_000  # a second
BURSTS, TICKS = 4, 333  # a second
PERCENTILES = {"p50_us": 50, "p99_us": 99, "max_us": 100}


def add_open(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--open-seconds", type=above_zero, default=10.0, help="how long the open lasts (default 10)")


def flood(loopback: Loopback, names: Sequence[str], stream: Stream, rounds: int, seconds: float) -> dict[str, Any]:
    """Per client, the sink among them, what the rounds come to."""
    runs: dict[str, list[Run]] = {name: [] for name in (*names, SINK)}
    for turn in range(rounds):
        print(f"flood, round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
        for name, done in runs.items():
            done.append(loopback.run(name, stream, "flood", seconds))
    result: dict[str, Any] = {}
    for name, done in runs.items():
        low, middle, high = quartiles(run.messages / run.seconds for run in done)
        result[name] = {"messages_s": middle, "low_s": low, "high_s": high, "lost": sum(run.lost for run in done)}
        if name != SINK:
            result[name]["cpu_us"] = statistics.median(run.found["cpu_s"] / run.messages * 1e6 for run in done)
            result[name]["ratio"] = result[OURS]["messages_s"] / middle
    return result


def flood_line(name: str, value: dict[str, Any]) -> str:
    spread = f"({value['low_s']:,.0f}–{value['high_s']:,.0f})"
    rest = f"{value['cpu_us']:8.2f}{value['ratio']:8.2f} ×" if name != SINK else ""
    lost = f"  LOST {value['lost']}" if value["lost"] else ""
    return f"  {name:18}{value['messages_s']:12,.0f} {spread:26}{rest}{lost}"


def openings() -> dict[str, tuple[Stream, float, int]]:
    """A second of *the open* in each way, with its messages a second, and how many come at once."""
    market = Market(CODES, "the open")
    draw = np.random.default_rng(SEED)
    weights = draw.lognormal(0, 1.2, CODES)
    weights /= weights.sum()

    def rows(trades: int, least: int) -> list[str]:
        counts = least + draw.multinomial(trades - least * CODES, weights)
        return [market.trades(int(counts[i]), market.codes[i]) for i in draw.permutation(CODES) if counts[i]]

    bursts = [row for _ in range(BURSTS) for row in rows(TRADES // BURSTS, 1)]
    ticks = ["\n".join(rows(TRADES // TICKS, 0)) for _ in range(TICKS)]

    def stream(texts: list[str]) -> Stream:
        return Stream(deflate([text.encode() for text in texts], "6"))

    return {
        "the open, in bursts": (stream(bursts), BURSTS * CODES, CODES),
        "the open, evenly": (stream(ticks), TICKS, 1),
    }


def the_open(loopback: Loopback, names: Sequence[str], rounds: int, seconds: float) -> dict[str, dict[str, Any]]:
    """Per way, and per client, what the rounds come to."""
    ways = openings()
    runs: dict[tuple[str, str], list[Run]] = {(way, name): [] for way in ways for name in names}
    for turn in range(rounds):
        print(f"the open, round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
        for (way, name), done in runs.items():
            stream, rate, burst = ways[way]
            done.append(loopback.run(name, stream, "open-loop", rate, burst, seconds))
    result: dict[str, dict[str, Any]] = {way: {} for way in ways}
    for (way, name), done in runs.items():
        sent = sum(ways[way][0].trades(run.sent["sent"]) for run in done)
        value: dict[str, Any] = {
            "cpu": statistics.median(run.cpu for run in done),
            "sent": sent,
            "published": sum(run.found["trades"] for run in done),
            "seq_gap": sum(run.found.get("last_seq", run.found["trades"]) - run.found["trades"] for run in done),
            "lost": sum(run.lost for run in done),
        }
        whole = [run.lags / 1000 for run in done if len(run.lags)]
        if len(whole) > 1:
            taken = np.median([np.percentile(lags, [*PERCENTILES.values()]) for lags in whole], axis=0)
            value |= dict(zip(PERCENTILES, map(float, taken), strict=True))
            value["low_us"], _, value["high_us"] = quartiles(float(np.percentile(lags, 99)) for lags in whole)
        result[way][name] = value
    return result


def open_line(name: str, value: dict[str, Any]) -> str:
    start = f"  {name:18}"
    if "p50_us" in value:
        spread = f"({value['low_us'] / 1000:,.2f}–{value['high_us'] / 1000:,.2f})"
        middle, most, worst = (value[key] / 1000 for key in PERCENTILES)
        start += f"{middle:10,.2f}{most:10,.2f} {spread:18}{worst:8,.2f}"
    lost = f"  LOST {value['lost']}" if value["lost"] else ""
    return f"{start}{value['cpu']:8.1%}  {value['published']:,} of {value['sent']:,}{lost}"


def main(arguments: Sequence[str] | None = None) -> int:
    options = read_options(__doc__, 5, arguments, add_options, add_open)
    shape, stream = packets()
    names, machine = present(options.peers)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        loopback = Loopback(Path(folder), names)
        flooded = flood(loopback, names, stream, options.rounds, options.seconds)
        print(f"flood: messages/s, median of {options.rounds} rounds (middle half); µs of CPU a message; "
              f"times the time of {OURS}\n{describe(shape)}")  # fmt: skip
        print(*(flood_line(name, value) for name, value in flooded.items()), sep="\n", flush=True)
        headroom = flooded[SINK]["messages_s"] / max(flooded[name]["messages_s"] for name in names)
        print(f"  the sink takes {headroom:.1f} times what the fastest takes")
        if headroom < HEADROOM:
            print(f"  THE GENERATOR IS WHAT WAS MEASURED: that should be {HEADROOM:.0f} times at least")
        results.append(
            {
                "shape": "flood",
                "source": shape.source,
                "headroom": headroom,
                "generator_measured": headroom < HEADROOM,
                "contenders": flooded,
            }
        )
        print(f"\nthe open, {TRADES:,} trades/s of {CODES:,} codes for {options.open_seconds:g} s: lag in ms, p50, p99 "
              "(middle half), max; CPU; trades published of those sent")  # fmt: skip
        some = [name for name in names if name in (OURS, "beast-sleeping")]
        for way, taken in the_open(loopback, some, options.rounds, options.open_seconds).items():
            print(way, *(open_line(name, value) for name, value in taken.items()), sep="\n", flush=True)
            results.append({"shape": way, "source": "generated", "contenders": taken})
    write(options, machine | {"seconds": options.seconds, "open_seconds": options.open_seconds}, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
