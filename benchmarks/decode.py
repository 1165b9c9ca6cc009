"""From payload to records: microseconds per message, nanoseconds per record, megabytes of text per second.

    python -m benchmarks.decode [--rounds N] [--shapes TEXT] [--compression 6|1|9|go|all] [--json FILE]

Contenders, interleaved round by round in one process on one core:

- ``jvq_fast``            ``Decoder.decode``, no callbacks
- ``jvq_fast, handlers``  the same with a handler that does nothing for each level
- ``C: ...``              zlib, libdeflate or ISA-L and a plain parser with one ring a level (``benchmarks/native``),
                          whichever have their headers here (Debian: zlib1g-dev libdeflate-dev libisal-dev)
- ``zlib, str.split``     the standard library's zlib, and the text split into lists of numbers
- ``isal, str.split``     the same with the package isal
- ``official parser``     jvQuant's parse classes behind the inflating and decoding its client does
- ``official client``     jvQuant's own message handler, whole, with handlers that do nothing

The C ones are measured within C; all others by a loop in Python around their call. In a round each passes over the
messages as often as fills some milliseconds. What is measured is the thread's processor time: nothing here waits, and a
neighbour on the core must not be counted. Each number is the median over warm rounds; the spread is the middle half
of the rounds. Before anything is measured all are checked to read the same: as many records, the same prices and, of
those in C, the same last record of every message.
"""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import jvq_fast as jvq
from benchmarks import libraries
from benchmarks.compositions import Composition, compositions
from benchmarks.machine import facts, one_core
from benchmarks.peers import Run, isal_and_split, official_client, official_parser, prices_of, zlib_and_split
from benchmarks.rounds import quartiles, read_options, write
from benchmarks.shapes import Shape, add_options, chosen, describe

OURS = "jvq_fast"
OFFICIAL = "official parser"
IN_C = "C: "
DAY = "2026-11-23"  # the reference parser's
RECV = 1_795_400_000_000_000_000  # an arrival after every time of the generated day
WARM_UP = 3  # rounds
ROUND_NS = 20_000_000

# Goes n times through the messages of a shape, and returns the nanoseconds that took.
Passes = Callable[[int], int]


def nothing(*_: object) -> None:
    """A handler that costs its call."""


def passes(run: Run, payloads: Sequence[bytes]) -> Passes:
    def timed(repeat: int) -> int:
        start = time.thread_time_ns()
        for _ in range(repeat):
            for payload in payloads:
                run(payload, RECV)
        return time.thread_time_ns() - start

    return timed


def contenders(each: Shape, in_c: dict[str, Composition]) -> dict[str, Passes]:
    plain, handled = jvq.Decoder(trading_day=DAY), jvq.Decoder(trading_day=DAY)
    handled.on_trades = handled.on_quotes = handled.on_depths = nothing
    return {
        OURS: passes(plain.decode, each.payloads),
        f"{OURS}, handlers": passes(handled.decode, each.payloads),
        **{name: one.passes(each.payloads, RECV, each.records) for name, one in in_c.items()},
        "zlib, str.split": passes(zlib_and_split(), each.payloads),
        "isal, str.split": passes(isal_and_split(), each.payloads),
        OFFICIAL: passes(official_parser(), each.payloads),
        "official client": passes(official_client(nothing), each.payloads),
    }


def agree(each: Shape, in_c: dict[str, Composition]) -> None:
    """All read the same from this shape: the price of every record, and in C the last record of every message."""
    decoder = jvq.Decoder(trading_day=DAY)
    ours: list[tuple[str, float]] = []
    handled: list[Any] = []

    def keep(code: str, records: Any) -> None:
        ours.extend((code, float(price)) for price in records["price"])

    decoder.on_trades = decoder.on_quotes = decoder.on_depths = keep
    parse, handle, splitters = official_parser(), official_client(handled.append), (zlib_and_split(), isal_and_split())
    records = 0
    for payload in each.payloads:
        ours.clear()
        handled.clear()
        records += decoder.decode(payload, RECV)
        handle(payload, RECV)
        theirs = [[(record[0], record[3]) for record in split(payload, RECV)] for split in splitters]
        theirs += [[pair for one in parsed for pair in prices_of(one)] for parsed in (parse(payload, RECV), handled)]
        if any(read != ours for read in theirs):
            raise SystemExit(f"{each.name}: not all read the same prices from {payload.hex()}")
        for name, one in in_c.items():
            one.passes([payload], RECV, len(ours))(1)
            for level, ring in (("trade", decoder.trades), ("quote", decoder.quotes), ("depth", decoder.depths)):
                if ring.head and not same(one.last(level), ring.last(1)[0]):
                    raise SystemExit(f"{each.name}: {name} reads another {level} from {payload.hex()}")
    if records != each.records:
        raise SystemExit(f"{each.name}: {records} of {each.records} records")


def same(one: Any, other: Any) -> bool:
    """Two records, but for `seq` and `flags`."""
    return all(np.array_equal(one[name], other[name]) for name in one.dtype.names if name not in ("seq", "flags"))


def measure(each: Shape, running: dict[str, Passes], rounds: int) -> dict[str, dict[str, float]]:
    """Per contender the median and the quartiles over the rounds, in microseconds per message, and what follows."""
    messages = len(each.payloads)
    for run in running.values():
        run(1)
    repeats = {name: 1 + ROUND_NS // run(1) for name, run in running.items()}
    taken: dict[str, list[float]] = {name: [] for name in running}
    for turn in range(WARM_UP + rounds):
        for name, run in running.items():
            elapsed = run(repeats[name])
            if turn >= WARM_UP:
                taken[name].append(elapsed / 1000 / repeats[name] / messages)
    result = {}
    for name, values in taken.items():
        low, middle, high = quartiles(values)
        result[name] = {
            "message_us": middle,
            "low_us": low,
            "high_us": high,
            "record_ns": middle * 1000 / each.records_per_message,
            "text_mb_s": each.text_bytes / messages / middle,
        }
    for value in result.values():
        value["ratio"] = value["message_us"] / result[OURS]["message_us"]
    return result


def line(name: str, value: dict[str, float]) -> str:
    spread = f"({value['low_us']:.2f}–{value['high_us']:.2f})"
    rates = f"{value['record_ns']:9.0f} ns{value['text_mb_s']:8.0f} MB/s"
    return f"  {name:20}{value['message_us']:10.2f} µs {spread:18}{rates}{value['ratio']:8.2f} ×"


def verdict(taken: dict[str, dict[str, float]]) -> str:
    """How many times as fast as the best in C, where there is one, and as the official parser."""
    best = min((name for name in taken if name.startswith(IN_C)), key=lambda name: taken[name]["ratio"], default=None)
    in_c = f"{taken[best]['ratio']:.2f} times as fast as the best in C ({best.removeprefix(IN_C)}), " if best else ""
    return f"  = {in_c}{taken[OFFICIAL]['ratio']:.1f} times as fast as the official parser"


def main(arguments: Sequence[str] | None = None) -> int:
    options = read_options(__doc__, 21, arguments, add_options)
    found = libraries.versions()
    machine = facts("numpy", "picows", "jvQuant", "isal") | found
    print(f"Python {machine['python']}, {machine['cpu'] or machine['system']}, {machine['cores']} cores")
    print(libraries.left_out(found), end="")
    print(f"per message, median of {options.rounds} rounds (middle half); per record; text; times {OURS}\n")
    in_c = {f"{IN_C}{name}": one for name, one in compositions(found).items()}
    results = []
    with one_core():
        for each in chosen(options):
            agree(each, in_c)
            taken = measure(each, contenders(each, in_c), options.rounds)
            print(
                describe(each),
                *(line(name, value) for name, value in taken.items()),
                verdict(taken),
                "",
                sep="\n",
                flush=True,
            )
            results.append(
                {
                    "shape": each.name,
                    "source": each.source,
                    "compression": each.compression,
                    "messages": len(each.payloads),
                    "records_per_message": each.records_per_message,
                    "contenders": taken,
                }
            )
    write(options, machine, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
