"""Messages into a Decoder and into the oracle, which must agree on every record, callback and counter.

An input is a byte that chooses the settings, and either (that byte below 128) messages as text, each behind a byte that
chooses its arrival, its encoding and what the connection did before it, with 0x1E between them; or raw DEFLATE.
"""

import functools
import random
import zlib

import harness
from harness import pick

with harness.instrumented():
    import jvq_fast.decoder

import oracle
import wire
from pair import Pair

# The handlers are the same in every execution; looking at their signatures takes more than half of one.
jvq_fast.decoder.check = lambda name, handler: None

# The oracle reads the same numbers over and over; these functions of it depend on their arguments alone.
for name in ("real", "whole", "time_of_day", "midnight", "day_of"):
    setattr(oracle, name, functools.lru_cache(1 << 16)(getattr(oracle, name)))

SMALL = {"capacity": 8, "history": 4, "max_codes": 4, "max_inflated": 4096}
SETTINGS = (
    SMALL,
    SMALL | {"trading_day": "2023-02-01"},
    SMALL | {"clock": "always", "max_codes": 1},
    SMALL | {"history": 0},
    SMALL | {"lv1_order": "volume_first", "lv10_order": "volume_first", "max_record": 60},
    SMALL | {"max_inflated": 100, "history": {"trades": 1, "quotes": 0, "depths": 2}},
    SMALL | {"capacity": 1, "history": 1},
    SMALL | {"capacity": {"trades": 64, "quotes": 2, "depths": 1}, "lv10_order": "price_first"},
)
HOUR = 3600 * wire.SECOND
ARRIVALS = (0, wire.MORNING, wire.MORNING + HOUR, wire.MORNING + 20 * HOUR, wire.MORNING - 2 * HOUR, 2**62, 2**63 - 1)
BETWEEN = b"\x1e"


def stored(text: bytes) -> bytes:
    return b"\1" + len(text).to_bytes(2, "little") + (len(text) ^ 0xFFFF).to_bytes(2, "little") + text


ENCODINGS = (
    stored,
    lambda text: wire.deflate(text, 1),
    lambda text: wire.deflate(text, 9, zlib.Z_FIXED),
    lambda text: wire.deflate(text, 9),
)


def check(data: bytes) -> None:
    if not data:
        return
    pair = Pair(**SETTINGS[data[0] % len(SETTINGS)])
    if data[0] >= 128:
        pair.decode(data[1:], wire.MORNING)
    else:
        for message in data[1:].split(BETWEEN):
            how = message[0] if message else 0
            match how % 4:
                case 1:
                    pair.decoder.connected()
                    pair.oracle.connected()
                case 2:
                    pair.decoder.resume()
                    pair.oracle.resume()
            payload = ENCODINGS[how // 4 % 4](message[1:])
            pair.decode(payload, ARRIVALS[how // 16 % len(ARRIVALS)])
    pair.check()


def plant() -> None:
    """The oracle takes a volume with a fraction of zeros for a bad one, unless the fraction has one or two digits."""
    whole = oracle.whole

    def wrong(text: bytes) -> tuple[int, bool]:
        if text.partition(b".")[2].startswith(b"000"):
            raise oracle.BadRecordError({"volume"})
        return whole(text)

    oracle.whole = wrong


TIMES = (b"09:30:00", b"09:30:00.123", b"09:31:01", b"15:00:00.123456789", b"23:59:59", b"00:00:00", b"24:00:00")
NUMBERS = (
    *(b"0", b"-0", b"0.00", b"1", b"100", b"10.00", b"-1.5", b"1845.76", b"100.00", b"0.5", b"00012", b"1.005"),
    *(b"9007199254740993", b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808", b"1e3", b"."),
    *(b"0.1000000000000000055511151231257827", b"179769313486231570000", b"5.", b".5", b"--1", b"+1", b"", b" 1"),
    b"0." + b"0" * 30 + b"1",
)
TEXTS = ("贵州茅台".encode(), b"\xff\xfe", b"N", b"abc", b"\0", b"=", b"|", b",", b"\n", b"\r", b"\n\n", b",,")
CODES = (b"600519", b"000001", b"i000001", b"BRK.B", b"12345678", b"123456789", b"7", b"", b"6005 9")
HEADS = (b"lv1_", b"lv2_", b"lv10_", b"lv3_", b"lv2", b"LV2_", b"_", b"-1#")


def rows() -> list[bytes]:
    trades = [wire.trade(number=n, volume=100 * n) for n in range(1, 4)]
    bids, asks = wire.book(10.0, 10)
    quotes = [wire.deciding_quote(order=order) for order in ("amount_first", "volume_first")]
    depths = [wire.depth(bids=bids, asks=asks, order=order) for order in ("price_first", "volume_first")]
    return [
        wire.trades("600519", *trades),
        wire.trades("000001", trades[0], trades[0]),
        *(wire.row("quotes", "600519", quote) for quote in quotes),
        wire.row("quotes", "i000001", wire.quote()),
        *(wire.row("depths", "600519", depth) for depth in depths),
        wire.row("depths", "127063", wire.depth(price="0", last_close="0")),
        b"lv2_600519",
    ]


ROWS = rows()


def seeds() -> list[bytes]:
    found = [bytes([how, 16 + how]) + row for how in range(8) for row in ROWS]
    found += [b"\0\x10" + row + BETWEEN + b"\x12" + row for row in ROWS]
    found += [bytes([128]) + encode(row + b"\n") for row in ROWS for encode in ENCODINGS]
    found += [b"\0\x10" + b"\n".join(ROWS[:3]), b"\0\x18" + b"\n".join([ROWS[2]] * 3)]
    return found


def mutate(data: bytes, rng: random.Random) -> bytes:
    if not data or rng.random() < 0.02:
        return bytes([rng.randrange(256)]) + data[1:]
    if data[0] < 128:
        return data[:1] + _mutate_text(data[1:], rng)
    try:
        text = zlib.decompressobj(-15).decompress(data[1:], 4096)
    except zlib.error:
        text = pick(rng, *ROWS)
    machine = zlib.compressobj(rng.randrange(10), zlib.DEFLATED, -15, 8, rng.randrange(5))
    return data[:1] + machine.compress(_mutate_text(text, rng)) + machine.flush()


def _mutate_text(text: bytes, rng: random.Random) -> bytes:
    match rng.randrange(8):
        case 0:
            return text + b"\n" + pick(rng, *ROWS)
        case 1:
            return text + BETWEEN + bytes([rng.randrange(128)]) + pick(rng, text[1:], *ROWS)
        case 2:
            lines = text.split(b"\n")
            lines.insert(rng.randrange(len(lines) + 1), pick(rng, *lines, *ROWS))
            return b"\n".join(lines)
        case 3:
            records = text.split(b"|")
            records.insert(rng.randrange(len(records) + 1), pick(rng, *records).rpartition(b"=")[2])
            return b"|".join(records)
        case 4:
            return text.replace(pick(rng, *CODES), pick(rng, *CODES), 1)
        case 5:
            return text.replace(pick(rng, *HEADS), pick(rng, *HEADS), 1)
        case _:
            fields = text.split(b",")
            at = rng.randrange(len(fields))
            if rng.random() < 0.1:
                del fields[at]
            elif rng.random() < 0.5:
                fields[at] = pick(rng, *NUMBERS, *TIMES, *TEXTS, *fields)
            else:
                fields[at] = str(rng.randrange(10 ** rng.randrange(1, 20))).encode()
                if rng.random() < 0.5:
                    fields[at] += b"." + str(rng.randrange(1000)).encode()[: rng.randrange(1, 4)]
            return b",".join(fields)


if __name__ == "__main__":
    harness.run(check, seeds, mutate, plant, longest=600)
