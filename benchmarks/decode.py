"""Microseconds per message, from payload to records, beside the official client.

    python -m benchmarks.decode [--rounds N] [--json FILE]

Contenders, interleaved round by round in one process on one core:

- ``jvq_fast``            ``Decoder.decode``, no callbacks
- ``jvq_fast, handlers``  the same with a handler that does nothing for each level
- ``official parser``     jvQuant's parse classes behind the inflating and decoding its client does
- ``official client``     jvQuant's own message handler, whole, with handlers that do nothing

Each number is the median over warm rounds; the spread is the middle half of the rounds. Both sides are checked to have
made the same number of trades before anything is measured.
"""

import logging
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jvq_fast as jvq
from benchmarks.machine import facts, one_core
from benchmarks.rounds import quartiles, read_options, write
from benchmarks.shapes import Shape, describe, shapes

OURS = "jvq_fast"
RECV = 1_795_400_000_000_000_000  # an arrival after every time of the generated day
WARM_UP = 3  # rounds

Contender = Callable[[bytes], object]


def nothing(*_: object) -> None:
    """A handler that costs its call."""


def contenders() -> dict[str, Contender]:
    import jvQuant

    parse = jvQuant.websocket_client.parse

    plain = jvq.Decoder(trading_day="2026-11-23")
    handled = jvq.Decoder(trading_day="2026-11-23")
    handled.on_trades = handled.on_quotes = handled.on_depths = nothing

    def official_parser(payload: bytes) -> int:
        text = zlib.decompress(payload, -zlib.MAX_WBITS).decode("utf-8")
        rows = 0
        for row in text.split("\n"):
            if row.startswith("lv1_"):
                parse.AbLv1(row)
            elif row.startswith("lv2_"):
                parse.AbLv2(row)
            elif row.startswith("lv10"):
                parse.AbLv10(row)
            rows += 1
        return rows

    return {
        OURS: lambda payload: plain.decode(payload, RECV),
        f"{OURS}, handlers": lambda payload: handled.decode(payload, RECV),
        "official parser": official_parser,
        "official client": official_client(jvQuant.websocket_client),
    }


def official_client(module: Any) -> Contender:
    """The client's own handler of messages, on an object that was never connected."""
    import websocket

    client = module.Construct.__new__(module.Construct)
    client.logger = logging.getLogger("websocket_client")
    client.logger.setLevel(logging.INFO)
    state = {"market": "ab", "data_handle_valid": False, "log_handle_valid": False}
    for level in ("lv1", "lv2", "lv10"):
        state |= {f"ab_{level}_handle": nothing, f"ab_{level}_handle_valid": True}
    for name, value in state.items():
        setattr(client, f"_Construct__{name}", value)
    on_message = client._Construct__on_message
    binary = websocket.ABNF.OPCODE_BINARY
    return lambda payload: on_message(None, payload, binary, True)


def agree(each: Shape) -> None:
    """Both sides read the same from this shape: trade for trade, and the last price of every row."""
    import jvQuant

    parse = jvQuant.websocket_client.parse
    theirs: list[tuple[str, float]] = []
    ours: list[tuple[str, float]] = []
    for payload in each.payloads:
        for row in zlib.decompress(payload, -15).decode().split("\n"):
            if row.startswith("lv2_"):
                parsed = parse.AbLv2(row)
                theirs += [(parsed.code, deal.price) for deal in parsed.deal_list]
            elif row:
                one = parse.AbLv1(row) if row.startswith("lv1_") else parse.AbLv10(row)
                theirs.append((one.code, one.price))
    decoder = jvq.Decoder(trading_day="2026-11-23")

    def keep(code: str, records: Any) -> None:
        ours.extend((code, float(price)) for price in records["price"])

    decoder.on_trades = decoder.on_quotes = decoder.on_depths = keep
    published = sum(decoder.decode(payload, RECV) for payload in each.payloads)
    if published != each.records or ours != theirs:
        raise SystemExit(f"{each.name}: {published} of {each.records} records, not what the official parser reads")


def measure(each: Shape, running: dict[str, Contender], rounds: int) -> dict[str, dict[str, float]]:
    """Per contender the median and the quartiles over the rounds, in microseconds; all take the same messages."""
    taken: dict[str, list[float]] = {name: [] for name in running}
    for turn in range(WARM_UP + rounds):
        for name, run in running.items():
            start = time.perf_counter_ns()
            for payload in each.payloads:
                run(payload)
            elapsed = time.perf_counter_ns() - start
            if turn >= WARM_UP:
                taken[name].append(elapsed / 1000 / len(each.payloads))
    result = {}
    for name, values in taken.items():
        low, middle, high = quartiles(values)
        result[name] = {
            "message_us": middle,
            "low_us": low,
            "high_us": high,
            "record_us": middle / each.records_per_message,
        }
    return result


def line(name: str, value: dict[str, float]) -> str:
    spread = f"({value['low_us']:.2f}–{value['high_us']:.2f})"
    return f"  {name:20}{value['message_us']:10.2f} {spread:22}{value['record_us']:8.3f}{value['ratio']:8.1f} ×"


def main(arguments: Sequence[str] | None = None) -> int:
    options = read_options(__doc__, 21, arguments)

    machine = facts("numpy", "picows", "jvQuant")
    print(f"Python {machine['python']}, {machine['cpu'] or machine['system']}, {machine['cores']} cores")
    print(f"µs per message, median of {options.rounds} rounds (middle half); µs per record; times {OURS}\n")
    running = contenders()
    results = []
    with one_core():
        for each in shapes():
            agree(each)
            taken = measure(each, running, options.rounds)
            for value in taken.values():
                value["ratio"] = value["message_us"] / taken[OURS]["message_us"]
            print(describe(each), *(line(name, value) for name, value in taken.items()), sep="\n", flush=True)
            results.append(
                {
                    "shape": each.name,
                    "source": each.source,
                    "records_per_message": each.records_per_message,
                    "contenders": taken,
                }
            )
    write(options, machine, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
