"""Messages of the sizes that matter: real level-2 packets, and generated ones from one record to 512.

Each shape is drawn from a seed of its own, so two runs measure the same bytes, whatever else they measure.
"""

import argparse
import csv
import gzip
import itertools
import os
import random
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

DATA = Path(os.environ.get("JVQ_FAST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
DEFLATE = Path(__file__).resolve().parent / "native" / "deflate.go"
SEED = 20261123

# How the texts are compressed: by zlib at a level, or by what Go's standard library does by default.
COMPRESSIONS = {"6": "zlib level 6", "1": "zlib level 1", "9": "zlib level 9", "go": "Go's compress/flate"}


@dataclass(frozen=True)
class Shape:
    """Messages of one kind: raw DEFLATE payloads, with the records and bytes of text of all of them together."""

    name: str
    source: str
    compression: str
    payloads: tuple[bytes, ...]
    records: int
    text_bytes: int

    @property
    def records_per_message(self) -> float:
        return self.records / len(self.payloads)


@dataclass(frozen=True)
class Day:
    """One day of real level-2 packets, and what others are like it: its codes and their prices, how volumes are spread
    (the exponent of Pareto's distribution of lots), and how many of 10,000 packets carry how many trades."""

    file: str
    every: int
    cents: dict[str, int]
    lots: float
    trades: dict[int, int]


DAYS = {
    "lv2, real packets": Day(
        "lv2_5SH_20230711.csv.gz",
        every=10,
        cents={"600536": 5086, "600761": 2145, "600961": 923, "601825": 547, "605580": 1442},
        lots=0.8,
        trades={1: 4808, 2: 1967, 3: 1044, 4: 657, 5: 399, 6: 273, 7: 190, 8: 143, 10: 279, 15: 173, 25: 55, 40: 12},
    ),
    "lv2, real packets of 600519": Day(
        "lv2_600519_20230201.csv.gz",
        every=4,
        cents={"600519": 183_500},
        lots=2.8,
        trades={1: 6936, 2: 1810, 3: 581, 4: 246, 5: 141, 6: 81, 7: 43, 8: 33, 10: 66, 15: 33, 25: 20, 60: 10},
    ),
}


def clock(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds % 86_400_000, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest:03d}"


class Market:
    """A random walk of each code's price, printed as the vendor prints it; the codes come by turns."""

    def __init__(self, codes: int, seed: str) -> None:
        self.random = random.Random(f"{SEED} {seed}")
        self.codes = [f"{600000 + 7 * i:06d}" for i in range(codes)]
        self.turn = itertools.cycle(self.codes)
        self.cents = {code: self.random.randrange(300, 60_000) for code in self.codes}
        self.volume = dict.fromkeys(self.codes, 0)
        self.amount = dict.fromkeys(self.codes, 0)
        self.ids = itertools.count(1_000_000)
        self.milliseconds = 34_200_000

    def time(self) -> str:
        self.milliseconds += self.random.randrange(1, 40)
        return clock(self.milliseconds)

    def step(self, code: str) -> tuple[int, int]:
        self.cents[code] = cents = max(100, self.cents[code] + self.random.choice((-1, 0, 0, 1)))
        volume = 100 * int(self.random.paretovariate(1.2))
        self.volume[code] += volume
        self.amount[code] += volume * cents
        return cents, volume

    def trades(self, count: int, code: str = "") -> str:
        code = code or next(self.turn)
        made = []
        for _ in range(count):
            cents, volume = self.step(code)
            made.append(f"{self.time()},{next(self.ids)},{cents / 100:.2f},{volume}")
        return f"lv2_{code}=" + "|".join(made)

    def quantity(self) -> int:
        return 100 * self.random.randrange(1, 900)

    def quote(self) -> str:
        code = next(self.turn)
        cents, _ = self.step(code)
        fields = [self.time()[:8], "贵州茅台", f"{cents / 100:.2f}", f"{self.random.uniform(-10, 10):.2f}"]
        fields += [f"{self.amount[code] / 100:.2f}", str(self.volume[code])]
        for side in (-1, 1):
            for level in range(1, 6):
                fields += [str(self.quantity()), f"{(cents + side * level) / 100:.2f}"]
        return f"lv1_{code}=" + ",".join(fields)

    def depth(self) -> str:
        code = next(self.turn)
        cents, _ = self.step(code)
        fields = [self.time()[:8], "贵州茅台", f"{cents / 100:.2f}", f"{cents / 100 - 0.05:.2f}"]
        fields += [f"{self.amount[code] / 100:.2f}", str(self.volume[code])]
        for side in (-1, 1):
            fields += [f"{(cents + side * level) / 100:.2f}" for level in range(1, 11)]
            fields += [str(self.quantity()) for _ in range(10)]
        return f"lv10_{code}=" + ",".join(fields)


def real_packets(day: Day) -> list[str]:
    """A share of a real day, one message per arrival stamp: of these one in ``day.every``."""
    with gzip.open(DATA / day.file, "rt", encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["recv_time"])
    packets = []
    for number, (_, arrived) in enumerate(itertools.groupby(rows, lambda row: row["recv_time"])):
        if number % day.every:
            continue
        trades: dict[str, list[str]] = {}
        for row in arrived:
            trade = ",".join((row["time"], row["trade_id"], row["price"], row["qty"]))
            trades.setdefault(row["code"], []).append(trade)
        packets.append("\n".join(f"lv2_{code}=" + "|".join(records) for code, records in trades.items()))
    return packets


def like_real_packets(day: Day) -> list[str]:
    """Generated messages with as many trades as those of the day, and their codes, prices, volumes, times and ids."""
    draw = random.Random(f"{SEED} {day.file}")
    codes, cents = [*day.cents], dict(day.cents)
    milliseconds, number = 34_200_000, 10_000
    packets = []
    for size in draw.choices([*day.trades], [*day.trades.values()], k=4000):
        milliseconds += 10 * draw.randrange(1, 700)
        number += draw.randrange(1, 2400)
        code = draw.choice(codes)
        trades: dict[str, list[str]] = {}
        for _ in range(size):
            if draw.random() < 0.15:
                code = draw.choice(codes)
                milliseconds += 10
                number += draw.randrange(9)
            cents[code] += draw.choice((-1, 0, 0, 0, 0, 1))
            number += 1
            volume = 100 * int(draw.paretovariate(day.lots))
            trade = f"{clock(milliseconds)},{number},{cents[code] / 100:.2f},{volume}"
            trades.setdefault(code, []).append(trade)
        packets.append("\n".join(f"lv2_{code}=" + "|".join(records) for code, records in trades.items()))
    return packets


def trades(count: int) -> Callable[[Market], str]:
    return lambda market: market.trades(count)


def rows(row: Callable[[Market], str], count: int) -> Callable[[Market], str]:
    return lambda market: "\n".join(row(market) for _ in range(count))


# What makes a message of each shape, and how many: enough that no branch predictor learns them by heart.
GENERATED = {
    "lv2, 1 trade": (trades(1), 4000),
    "lv2, 4 trades": (trades(4), 2000),
    "lv2, 16 trades": (trades(16), 500),
    "lv2, 64 trades": (trades(64), 200),
    "lv2, 512 trades": (trades(512), 50),
    "lv1, 1 row": (rows(Market.quote, 1), 1000),
    "lv1, 8 rows": (rows(Market.quote, 8), 200),
    "lv1, 64 rows": (rows(Market.quote, 64), 50),
    "lv10, 1 row": (rows(Market.depth, 1), 1000),
    "lv10, 8 rows": (rows(Market.depth, 8), 200),
}


def texts(name: str) -> tuple[str, list[bytes]]:
    """Where the messages of a shape come from, and their texts."""
    if name in GENERATED:
        make, count = GENERATED[name]
        market = Market(64, name)
        source, made = "generated", [make(market) for _ in range(count)]
    elif (DATA / DAYS[name].file).is_file():
        source, made = f"real: {DAYS[name].file}", real_packets(DAYS[name])
    else:
        source = f"generated, like them: no {DAYS[name].file} here"
        made = like_real_packets(DAYS[name])
    return source, [text.encode() for text in made]


def deflate(every: Sequence[bytes], compression: str) -> list[bytes]:
    """One raw stream of each text, as a server would send it."""
    if compression == "go":
        return deflate_in_go(every)
    streams = []
    for text in every:
        machine = zlib.compressobj(int(compression), zlib.DEFLATED, -15)
        streams.append(machine.compress(text) + machine.flush())
    return streams


def deflate_in_go(every: Sequence[bytes]) -> list[bytes]:
    sent = b"".join(struct.pack("<I", len(text)) + text for text in every)
    ran = subprocess.run(["go", "run", str(DEFLATE)], input=sent, capture_output=True, timeout=300, check=False)
    if ran.returncode:
        raise SystemExit(f"{DEFLATE.name} does not run: {ran.stderr.decode()[-2000:]}")
    streams, at = [], 0
    while at < len(ran.stdout):
        (size,) = struct.unpack_from("<I", ran.stdout, at)
        streams.append(ran.stdout[at + 4 : at + 4 + size])
        at += 4 + size
    return streams


def shapes(compression: str = "6", only: str = "") -> list[Shape]:
    """The shapes whose names contain ``only``, smallest messages first."""
    made = {name: texts(name) for name in (*DAYS, *GENERATED) if only in name}
    streams = iter(deflate([text for _, each in made.values() for text in each], compression))
    found = []
    for name, (source, each) in made.items():
        records = sum(text.count(b"=") + text.count(b"|") for text in each)
        payloads = tuple(itertools.islice(streams, len(each)))
        found.append(Shape(name, source, compression, payloads, records, sum(map(len, each))))
    return found


def add_options(parser: argparse.ArgumentParser) -> None:
    """``shapes`` and ``compression``, for `chosen`."""
    parser.add_argument("--shapes", default="", metavar="TEXT", help="only the shapes with this in their name")
    parser.add_argument(
        "--compression", default="6", choices=[*COMPRESSIONS, "all"], help="what compressed the messages (default 6)"
    )


def chosen(options: argparse.Namespace) -> Iterator[Shape]:
    """The shapes asked for, compressed in each way asked for; says what can't be made here."""
    some = False
    for compression in COMPRESSIONS if options.compression == "all" else [options.compression]:
        if compression == "go" and not shutil.which("go"):
            print("without Go's compress/flate: no go on the path (Debian: apt-get install golang-go)\n")
            continue
        for each in shapes(compression, options.shapes):
            some = True
            yield each
    if not some:
        made = " or ".join(repr(name) for name in (*DAYS, *GENERATED))
        raise SystemExit(f"nothing to measure: no {options.shapes!r} in {made}, or not with this compression")


def describe(each: Shape) -> str:
    """What a shape is, in a line."""
    messages = len(each.payloads)
    compressed = sum(map(len, each.payloads)) / messages
    sizes = f"{each.records_per_message:.1f} records, {each.text_bytes / messages:.0f} bytes of text"
    return f"{each.name}: {sizes}, {compressed:.0f} by {COMPRESSIONS[each.compression]} ({each.source})"
