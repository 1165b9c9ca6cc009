"""Messages of the sizes that matter: real level-2 packets, and generated ones from one trade to 512.

Everything is drawn from one seed, so two runs measure the same bytes.
"""

import csv
import gzip
import itertools
import os
import random
import zlib
from dataclasses import dataclass
from pathlib import Path

DATA = Path(os.environ.get("JVQ_FAST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
REAL = "lv2_5SH_20230711.csv.gz"
SEED = 20261123


@dataclass(frozen=True)
class Shape:
    """Messages of one kind: raw DEFLATE payloads, with the records and bytes of text of all of them together."""

    name: str
    source: str
    payloads: tuple[bytes, ...]
    records: int
    text_bytes: int

    @property
    def records_per_message(self) -> float:
        return self.records / len(self.payloads)


def deflate(text: str) -> bytes:
    """One raw stream as the vendor sends it, at zlib's middle level."""
    machine = zlib.compressobj(6, zlib.DEFLATED, -15)
    return machine.compress(text.encode()) + machine.flush()


def shape(name: str, source: str, texts: list[str]) -> Shape:
    records = sum(len(row.partition("=")[2].split("|")) for text in texts for row in text.split("\n") if row)
    return Shape(name, source, tuple(map(deflate, texts)), records, sum(len(text.encode()) for text in texts))


class Market:
    """A random walk of each code's price, printed as the vendor prints it."""

    def __init__(self, codes: int) -> None:
        self.random = random.Random(SEED)
        self.codes = [f"{600000 + 7 * i:06d}" for i in range(codes)]
        self.cents = {code: self.random.randrange(300, 60_000) for code in self.codes}
        self.volume = dict.fromkeys(self.codes, 0)
        self.amount = dict.fromkeys(self.codes, 0)
        self.ids = itertools.count(100_000)
        self.clock = 34_200_000

    def time(self) -> str:
        self.clock += self.random.randrange(1, 40)
        seconds, milliseconds = divmod(self.clock % 86_400_000, 1000)
        return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{milliseconds:03d}"

    def step(self, code: str) -> tuple[int, int]:
        self.cents[code] = cents = max(100, self.cents[code] + self.random.choice((-1, 0, 0, 1)))
        volume = 100 * int(self.random.paretovariate(1.2))
        self.volume[code] += volume
        self.amount[code] += volume * cents
        return cents, volume

    def trades(self, code: str, count: int) -> str:
        made = []
        for _ in range(count):
            cents, volume = self.step(code)
            made.append(f"{self.time()},{next(self.ids)},{cents / 100:.2f},{volume}")
        return f"lv2_{code}=" + "|".join(made)

    def quantity(self) -> int:
        return 100 * self.random.randrange(1, 900)

    def quote(self, code: str) -> str:
        cents, _ = self.step(code)
        fields = [self.time()[:8], "贵州茅台", f"{cents / 100:.2f}", f"{self.random.uniform(-10, 10):.2f}"]
        fields += [f"{self.amount[code] / 100:.2f}", str(self.volume[code])]
        for side in (-1, 1):
            for level in range(1, 6):
                fields += [str(self.quantity()), f"{(cents + side * level) / 100:.2f}"]
        return f"lv1_{code}=" + ",".join(fields)

    def depth(self, code: str) -> str:
        cents, _ = self.step(code)
        fields = [self.time()[:8], "贵州茅台", f"{cents / 100:.2f}", f"{cents / 100 - 0.05:.2f}"]
        fields += [f"{self.amount[code] / 100:.2f}", str(self.volume[code])]
        for side in (-1, 1):
            fields += [f"{(cents + side * level) / 100:.2f}" for level in range(1, 11)]
            fields += [str(self.quantity()) for _ in range(10)]
        return f"lv10_{code}=" + ",".join(fields)


def real_packets(every: int) -> list[str]:
    """A share of a real day: five Shanghai stocks, one message per arrival stamp, of these one in ``every``."""
    with gzip.open(DATA / REAL, "rt", encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["recv_time"])
    packets = []
    for number, (_, arrived) in enumerate(itertools.groupby(rows, lambda row: row["recv_time"])):
        if number % every:
            continue
        trades: dict[str, list[str]] = {}
        for row in arrived:
            trade = ",".join((row["time"], row["trade_id"], row["price"], row["qty"]))
            trades.setdefault(row["code"], []).append(trade)
        packets.append("\n".join(f"lv2_{code}=" + "|".join(records) for code, records in trades.items()))
    return packets


def small_packets(market: Market, limit: int) -> list[str]:
    """Generated messages as small as real ones: mostly one or two trades, one in a hundred above fifteen."""
    draw = market.random
    return [
        market.trades(draw.choice(market.codes[:5]), min(65, int(draw.paretovariate(1.5) + 0.6))) for _ in range(limit)
    ]


def shapes() -> list[Shape]:
    """Every shape, smallest first."""
    market = Market(64)
    if (DATA / REAL).is_file():
        small = shape("lv2, real packets", f"real: {REAL}", real_packets(every=10))
    else:
        small = shape("lv2, small packets", "generated: no real data here", small_packets(market, 4000))
    codes = itertools.cycle(market.codes)

    def generated(name: str, texts: list[str]) -> Shape:
        return shape(name, "generated", texts)

    def book(count: int) -> list[str]:
        return market.codes[:count]

    return [
        small,
        generated("lv2, 64 trades", [market.trades(next(codes), 64) for _ in range(200)]),
        generated("lv2, 512 trades", [market.trades(next(codes), 512) for _ in range(50)]),
        generated("lv1, 1 row", [market.quote(next(codes)) for _ in range(500)]),
        generated("lv1, 64 rows", ["\n".join(map(market.quote, book(64))) for _ in range(50)]),
        generated("lv10, 1 row", [market.depth(next(codes)) for _ in range(500)]),
        generated("lv10, 64 rows", ["\n".join(map(market.depth, book(64))) for _ in range(50)]),
    ]


def describe(each: Shape) -> str:
    """What a shape is, in a line."""
    messages = len(each.payloads)
    compressed = sum(map(len, each.payloads)) / messages
    sizes = f"{each.records_per_message:.1f} records, {each.text_bytes / messages:.0f} bytes of text"
    return f"{each.name}: {sizes}, {compressed:.0f} compressed ({each.source})"
