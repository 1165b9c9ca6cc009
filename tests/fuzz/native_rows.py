"""Records of all levels into the parsers by themselves, for this processor and for lesser ones, beside a slow reading.

What comes before and after them is decode.py's. The seeds are all shapes of records, several that settle a field order,
and the real rows where they are at hand.
"""

import itertools
import zlib
from collections.abc import Iterator
from decimal import Context, Decimal

import libfuzzer

import wire
from benchmarks.shapes import shapes

LONGEST = 1200
LEVELS = {b"lv2": 0, b"lv1": 1, b"lv10": 2}
SETTINGS = (0, 1, 2, 4, 8, 16, 32, 64, 80, 128)  # as in native/rows.c
TOKENS = (
    *(b"09:30:00", b"09:30:00.123", b"23:59:59.123456789", b"24:00:00", b"0.00", b"100.000", b"-0", b"-1.5", b",,"),
    *(b"9007199254740993", b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808", b"1e3", b"="),
    *(b"0.1000000000000000055511151231257827", b"179769313486231570000", b"00000000", b".00000000", b"00000001"),
)


def records() -> Iterator[tuple[int, bytes]]:
    # Between the two smallest numbers: as many digits decide as ever can.
    halfway = format(Context(prec=1100).multiply(Decimal.from_float(5e-324), Decimal("1.5")), "f")
    trades = [wire.trade(number=n, volume=100 * n) for n in range(1, 4)]
    yield 0, b"|".join(trades)
    yield 0, wire.trade(number="A1", price="0.00", volume="100.00")
    for price in ("0." + "0" * 330 + "49", "9" * 400, "1" + "0" * 400 + ".5", halfway):
        yield 0, wire.trade(price=price)
    bids, asks = wire.book(10.0, 10)
    quotes = [wire.deciding_quote(order=order) for order in ("amount_first", "volume_first")]
    depths = [wire.depth(bids=bids, asks=asks, order=order) for order in ("price_first", "volume_first")]
    for level, snapshots in ((1, quotes), (2, depths)):
        for one, other in itertools.permutations(snapshots):
            yield level, one
            votes = [one, one, one, other] if level == 1 else [one, one, one]
            yield level, b"|".join(votes)[:LONGEST]
    yield 1, wire.quote()
    yield 2, wire.depth(price="0", last_close="0")
    for shape in shapes():
        for payload in shape.payloads[:20]:
            for row in zlib.decompress(payload, -15).splitlines()[:2]:
                head, _, text = row.partition(b"=")
                yield LEVELS[head.partition(b"_")[0]], text


def seeds() -> list[bytes]:
    return [
        bytes([level, setting]) + text for level, text in records() if len(text) + 2 <= LONGEST for setting in SETTINGS
    ]


if __name__ == "__main__":
    sources = [str(libfuzzer.ROOT / "src" / f"{name}.c") for name in ("rows", "trades", "snapshots", "decimal")]
    libfuzzer.run("rows", (*sources, "-lm"), seeds, longest=LONGEST, tokens=TOKENS)
