"""What a server may send: builders of rows and messages, and Hypothesis strategies over all their shapes."""

import math
import random
import zlib
from collections.abc import Sequence
from decimal import Decimal

from hypothesis import settings
from hypothesis import strategies as st

SECOND = 1_000_000_000
# 2023-02-01 01:30:00 UTC, a Wednesday, 09:30 in Shanghai.
MORNING = 1_675_215_000 * SECOND


def examples(times: float, most: int = 20_000) -> settings:
    """Hypothesis settings: so many times the examples of the profile, within reason in the long run."""
    return settings(max_examples=max(1, min(int(times * settings.default.max_examples), most)))


TAGS = {"trades": b"lv2", "quotes": b"lv1", "depths": b"lv10"}

CODES = ("600519", "000001", "i000001", "i399001", "127063", "00700", "aapl", "BRK.B", "12345678", "7")


def deflate(text: bytes, level: int = 6, strategy: int = zlib.Z_DEFAULT_STRATEGY, wbits: int = -15) -> bytes:
    machine = zlib.compressobj(level, zlib.DEFLATED, wbits, 8, strategy)
    return machine.compress(text) + machine.flush()


def row(level: str, code: str | bytes, *records: bytes) -> bytes:
    code = code.encode() if isinstance(code, str) else code
    return TAGS[level] + b"_" + code + b"=" + b"|".join(records)


def message(*rows: bytes, end: bytes = b"\n") -> bytes:
    return deflate(b"\n".join(rows) + end)


def trade(
    time: str = "09:30:00.000", number: int | str = 1, price: float | str = "10.00", volume: int | str = 100
) -> bytes:
    return f"{time},{number},{price},{volume}".encode()


def trades(code: str, *records: bytes) -> bytes:
    return row("trades", code, *records)


def quote(
    time: str = "09:30:00",
    name: str | bytes = "贵州茅台",
    price: str = "10.00",
    change: str = "1.23",
    amount: str = "100000.00",
    volume: str = "10000",
    bids: Sequence[tuple[str, str]] = (),
    asks: Sequence[tuple[str, str]] = (),
    *,
    order: str = "amount_first",
) -> bytes:
    """One lv1 record; bids and asks are (quantity, price), best first."""
    totals = (amount, volume) if order == "amount_first" else (volume, amount)
    fields = [time, "\0", price, change, *totals]
    for side in (bids, asks):
        for i in range(5):
            fields.extend(side[i] if i < len(side) else ("0", "0"))
    name = name.encode() if isinstance(name, str) else name
    return ",".join(fields).encode().replace(b"\0", name, 1)


def depth(
    time: str = "09:30:00",
    name: str | bytes = "贵州茅台",
    price: str = "10.00",
    last_close: str = "9.90",
    amount: str = "100000.00",
    volume: str = "10000",
    bids: Sequence[tuple[str, str]] = (),
    asks: Sequence[tuple[str, str]] = (),
    *,
    order: str = "price_first",
) -> bytes:
    """One lv10 record; bids and asks are (quantity, price), best first."""
    fields = [time, "\0", price, last_close, amount, volume]
    for side in (bids, asks):
        full = [*side, *[("0", "0")] * (10 - len(side))]
        quantities, prices = [q for q, _ in full], [p for _, p in full]
        fields += prices + quantities if order == "price_first" else quantities + prices
    name = name.encode() if isinstance(name, str) else name
    return ",".join(fields).encode().replace(b"\0", name, 1)


def book(
    price: float, levels: int, *, tick: float = 0.01, start: int = 1, quantity: int = 100
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(bids, asks) around a price, as the market would have them."""
    digits = 3 if tick < 0.01 else 2
    bids = [(str(quantity * (i + 1)), f"{price - tick * (start + i):.{digits}f}") for i in range(levels)]
    asks = [(str(quantity * (i + 2)), f"{price + tick * (start + i):.{digits}f}") for i in range(levels)]
    return bids, asks


def deciding_quote(
    price: float = 10.0,
    volume: int = 10_000,
    *,
    order: str = "amount_first",
    time: str = "09:30:00",
    amount: float | None = None,
    **rest: str,
) -> bytes:
    """An lv1 record that decides the order of amount and volume."""
    bids, asks = book(price, 5)
    return quote(
        time,
        price=f"{price:.2f}",
        amount=f"{price * volume if amount is None else amount:.2f}",
        volume=str(volume),
        bids=bids,
        asks=asks,
        order=order,
        **rest,
    )


def deciding_depth(
    price: float = 10.0, *, order: str = "price_first", time: str = "09:30:00", quantity: int = 10_000, **rest: str
) -> bytes:
    """An lv10 record that decides the order of prices and quantities."""
    bids, asks = book(price, 10, quantity=quantity)
    return depth(time, price=f"{price:.2f}", bids=bids, asks=asks, order=order, **rest)


# numbers


def halfway(value: float) -> str:
    """The exact decimal text of the point between a float and the next."""
    exact = (Decimal(value) + Decimal(math.nextafter(value, math.inf))) / 2
    # Decimal's default context would round: redo it in integers.
    a, b = value.as_integer_ratio(), math.nextafter(value, math.inf).as_integer_ratio()
    top, bottom = a[0] * b[1] + b[0] * a[1], 2 * a[1] * b[1]
    shift = bottom.bit_length() - 1
    assert bottom == 1 << shift
    digits = str(top * 5**shift).rjust(shift + 1, "0")
    text = f"{digits[:-shift]}.{digits[-shift:]}".rstrip("0").rstrip(".") if shift else digits
    assert abs(Decimal(text) - exact) <= abs(exact) * Decimal("1e-20")
    return text


digits = st.text("0123456789", min_size=1, max_size=8)
cents = st.builds("{}.{:02d}".format, st.integers(0, 100_000), st.integers(0, 99))
mills = st.builds("{}.{:03d}".format, st.integers(0, 10_000), st.integers(0, 999))
fourth = st.builds("{}.{:04d}".format, st.integers(0, 10_000), st.integers(0, 9999))
long_decimals = st.builds(
    "{}.{}".format, st.text("0123456789", min_size=1, max_size=25), st.text("0123456789", min_size=1, max_size=40)
)
positive = st.floats(1e-5, 1e17, allow_subnormal=False)
halves = positive.map(halfway)
beside_halves = st.builds(
    lambda text, tail: text + (tail if "." in text else "." + tail),
    halves,
    st.sampled_from(["0", "00001", "0000000000000000001"]),
)
below_halves = halves.map(lambda t: t[:-1] + str(int(t[-1]) - 1) + "9" * 20 if "." in t else t)
shortest = positive.map(lambda x: f"{Decimal(repr(x)):f}")
extremes = st.sampled_from(
    [
        "0",
        "0.0",
        "-0",
        "-0.000",
        "00.50",
        "000123.4500",
        "9007199254740993",
        "9007199254740993.0000000000000001",
        "18446744073709551615",
        "18446744073709551616",
        "9223372036854775807.5",
        "1" + "0" * 22,
        "1" + "0" * 23,
        "8" * 30,
        "0." + "0" * 25 + "1",
        "0." + "0" * 320 + "17",
        "0." + "0" * 323 + "2",
        "0." + "0" * 330 + "9",
        "1" * 309,
        "9" * 320,
        "179769313486231580793728971405301" + "0" * 276,
        "0.1",
        "0.3",
        "2.675",
        "1.005",
        "123456789.123456789",
        "5e0"[:1],
        "2.2250738585072011" + "0" * 10,
        "0." + "0" * 307 + "22250738585072011",
        "0." + "0" * 307 + "22250738585072014",
        "6929495644600919.5",
        "3.14159265358979323846264338327950288",
        "0." + "9" * 40,
        "4503599627370497.5",
    ]
)
signed = st.builds("-{}".format, st.one_of(cents, mills, long_decimals))
good_reals = st.one_of(
    cents, cents, mills, fourth, digits, signed, long_decimals, shortest, halves, beside_halves, below_halves, extremes
)
good_wholes = st.one_of(
    st.integers(0, 10_000_000).map(str),
    st.integers(-(2**63) + 1, 2**63 - 1).map(str),
    st.builds("{}.{}".format, st.integers(-1000, 10_000), st.sampled_from(["0", "00", "000", "0" * 20])),
    st.builds("{}{}".format, st.sampled_from(["0", "000", "0" * 30]), st.integers(0, 10_000)),
    st.sampled_from(["-0", "-0.0", "9223372036854775807", "9223372036854775807.00"]),
)
BAD_NUMBERS = [
    "1.",
    ".5",
    "-",
    "-.5",
    "+1",
    " 1",
    "1 ",
    "1e5",
    "1E5",
    "nan",
    "inf",
    "-inf",
    "Infinity",
    "0x10",
    "1_000",
    "--1",
    "1.2.3",
    "1..2",
    "1-2",
    "１２",
    "٣",
    "1\0",
    "\0",
    "\r",
    "100\r",
    "\t1",
    "null",
    "None",
    "1.5f",
    "1,".rstrip(",") + "/",
    ":",
    "1:",
    "-1-",
]
bad_numbers = st.sampled_from(BAD_NUMBERS)
too_wide = st.sampled_from(
    ["9223372036854775808", "-9223372036854775809", "18446744073709551616", "18446744073709551716", "1" + "0" * 40]
)
fractional = st.builds(
    "{}.{}".format, st.integers(0, 1000), st.sampled_from(["5", "01", "10", "0000000000000000000000001"])
)

clock_fields = st.builds("{:02d}:{:02d}:{:02d}".format, st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
fractions = st.one_of(
    st.just(""),
    st.integers(0, 999).map(".{:03d}".format),
    st.text("0123456789", min_size=1, max_size=9).map(".{}".format),
)
good_times = st.one_of(
    st.builds("{}{}".format, clock_fields, fractions),
    st.sampled_from(
        ["00:00:00", "23:59:59.999999999", "23:59:59", "09:25:00.940", "15:00:00.000", "00:00:00.000000001"]
    ),
)
bad_times = st.sampled_from(
    [
        "",
        "24:00:00",
        "23:60:00",
        "23:59:60",
        "9:30:00",
        "09:30",
        "09:30:0",
        "09:30:00.",
        "09:30:00.1234567890",
        "09-30-00",
        "093000",
        "09:30:00,5".replace(",", ";"),
        "09:30:00 ",
        " 09:30:00",
        "09:30:00.12a",
        "0a:30:00",
        "-9:30:00",
        "09:30:00.-1",
        "09:30:00:00",
        "09:30:00.000.0",
        "99:99:99",
        "09:3０:00",
        "/9:30:00",
        "09:30::0",
        "0930:00:",
        "09:30:00.00\0",
    ]
)

good_ids = st.integers(0, 10_000_000).map(str)
any_ids = st.one_of(
    good_ids,
    st.integers(0, 2**63 - 1).map(str),
    st.sampled_from(
        [
            "",
            "9223372036854775807",
            "9223372036854775808",
            "18446744073709551617",
            "-1",
            "-0",
            "+1",
            "1.0",
            "007",
            "0" * 40 + "9",
            "9" * 30,
            "abc",
            "1a",
            " 1",
            "1 ",
            "é",
            "\0",
            "10\r",
            "0x1F",
            "1e3",
            "0",
        ]
    ),
    st.text(st.characters(exclude_characters=",|\n=", exclude_categories=["Cs"]), max_size=8),
)
good_names = st.sampled_from(["贵州茅台", "平安银行", "上证指数", "ST 海 航", "A", "*ST"]).map(str.encode)
any_names = st.one_of(
    good_names,
    st.text(st.characters(exclude_characters=",|\n=", exclude_categories=["Cs"]), max_size=12).map(str.encode),
    st.binary(max_size=12).map(lambda b: b.translate(None, b",|\n=")),
    st.sampled_from(
        [b"", b"\xff\xfe", b"\xe8\xb4", "贵州茅台".encode("gbk"), b"\0", b"\xc0\x80", b"\xed\xa0\x80", b" ", b"\r"]
    ),
)


def plain_snapshot(level: str, seed: int, order: str, time: str) -> list[bytes]:
    """The fields of a snapshot as a market would send it: most decide the order, some have no book or no price."""
    rng = random.Random(seed)
    price = rng.choice([1845.76, 10.0, 12.345, 101.237, 1.005, 0.98, 3.2, 250.0, 0.512])
    kind = rng.randrange(8)
    levels = 5 if level == "quotes" else 10
    bids, asks = book(price, levels, tick=rng.choice([0.01, 0.001]), quantity=rng.choice([1, 100, 10_000]))
    if kind == 0:
        bids, asks = [], []
    elif kind == 1:
        asks = []
    elif kind == 2:
        bids, asks = bids[: rng.randrange(levels)], asks[: rng.randrange(levels)]
    volume = 0 if kind == 3 else rng.randrange(1, 5_000_000)
    amount = volume * price * rng.uniform(0.9, 1.1)
    if kind == 4:
        amount = rng.uniform(0, 1e9)
    shown = 0.0 if kind == 5 else price
    text_of_volume = f"{volume}.00" if kind == 6 else str(volume)
    if level == "quotes":
        record = quote(
            time,
            b"N",
            f"{shown:.3f}",
            f"{rng.uniform(-10, 10):.2f}",
            f"{amount:.2f}",
            text_of_volume,
            bids,
            asks,
            order=order,
        )
    else:
        close = rng.choice(["0", "0.00", f"{price * 1.01:.2f}", f"{price:.3f}", "1845.76"])
        record = depth(time, b"N", f"{shown:.3f}", close, f"{amount:.2f}", text_of_volume, bids, asks, order=order)
    return record.split(b",")


@st.composite
def trade_records(draw: st.DrawFn, odd: bool = True) -> bytes:
    if not odd or draw(st.integers(0, 3)):
        parts = [draw(good_times), draw(good_ids), draw(cents), draw(st.integers(1, 100_000).map(str))]
        return ",".join(parts).encode()
    parts = [draw(good_times), draw(any_ids), draw(good_reals), draw(good_wholes)]
    match draw(st.integers(0, 12)):
        case 0:
            parts[0] = draw(bad_times)
        case 1:
            parts[2] = draw(bad_numbers)
        case 2:
            parts[3] = draw(st.one_of(bad_numbers, too_wide, fractional))
        case 3:
            parts[draw(st.integers(1, 3))] = ""
        case 4:
            parts = parts[: draw(st.integers(0, 3))]
        case 5:
            parts.append(draw(st.sampled_from(["", "B", "1"])))
        case 6:
            index = draw(st.integers(0, 3))
            parts[index] += "="
        case 7:
            parts[2] = draw(st.sampled_from(["0", "0.00", "-0.0"]))
    return ",".join(parts).encode("utf-8", "surrogateescape")


@st.composite
def snapshot_records(draw: st.DrawFn, level: str, order: str, odd: bool = True) -> bytes:
    fields = plain_snapshot(level, draw(st.integers(0, 2**16)), order, draw(good_times))
    fields[1] = draw(any_names if odd else good_names)
    if not odd or draw(st.integers(0, 2)):
        return b",".join(fields)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(fields) - 1))
        texts = st.one_of(
            good_reals, good_wholes, good_wholes, st.just(""), st.just("0"), fractional, bad_numbers, too_wide
        )
        fields[at] = draw(texts).encode()
    match draw(st.integers(0, 9)):
        case 0:
            fields[0] = draw(bad_times).encode()
        case 1:
            fields = fields[: draw(st.integers(0, len(fields) - 1))]
        case 2:
            fields.append(b"0")
        case 3:
            fields[draw(st.integers(0, len(fields) - 1))] += b"="
        case 4:
            fields[6:] = [b""] * (len(fields) - 6)
        case 5:
            fields[2:] = [b"0"] * (len(fields) - 2)
    return b",".join(fields)


bad_headers = st.one_of(
    st.sampled_from(
        [
            b"lv3_600519=",
            b"lv_600519=",
            b"_600519=",
            b"lv1_=",
            b"lv1=",
            b"lv1600519=",
            b"LV1_600519=",
            b"lv1-600519=",
            b"lv100_1=",
            b"lv2_123456789=",
            b"lv2_6005 9=",
            b"lv2_6005\xff9=",
            b" lv2_600519=",
            b"lv2__600519=",
            b"=",
            b"==",
            b"lv10_600519",
            b"lv2_",
            b"-1#",
            b"lv2_600519\r=",
            b"lv1_600519|lv1_600519=",
            b"lv2_\0=",
            b"lv0_600519=",
            b"lv12_600519=",
            b"l=",
            b"lv2_6|0=",
            b"_=",
            b"lv2_a_b=",
        ]
    ),
    st.binary(max_size=12).map(lambda b: b.replace(b"\n", b"")),
)


@st.composite
def rows(draw: st.DrawFn, odd: bool = True, codes: Sequence[str] = CODES, orders: Sequence[str] | None = None) -> bytes:
    """One row of any level, with one to several records; odd=False keeps to what a healthy server sends."""
    level = draw(st.sampled_from(["trades", "trades", "quotes", "depths"]))
    code = draw(st.sampled_from(codes))
    first = draw(st.sampled_from(orders)) if orders else "amount_first"
    if level == "trades":
        record = trade_records(odd)
    elif level == "quotes":
        record = snapshot_records(level, first, odd)
    else:
        record = snapshot_records(level, "price_first" if first == "amount_first" else "volume_first", odd)
    some = draw(st.lists(record, min_size=1, max_size=4))
    if draw(st.booleans()):
        some.insert(draw(st.integers(0, len(some))), draw(st.sampled_from(some)))
    if odd:
        match draw(st.integers(0, 20)):
            case 0:
                some.insert(draw(st.integers(0, len(some))), b"")
            case 1:
                return draw(bad_headers) + b"|".join(some)
            case 2:
                return draw(st.binary(max_size=40)).replace(b"\n", b"")
            case 3:
                return row(level, code, *some) + b"\r"
    return row(level, code, *some)


@st.composite
def encodings(draw: st.DrawFn, text: bytes) -> bytes:
    """The text as raw DEFLATE of any kind: stored, fixed and dynamic blocks, one or several."""
    level = draw(st.sampled_from([6, 0, 1, 9]))
    strategy = draw(
        st.sampled_from([zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FILTERED])
    )
    machine = zlib.compressobj(
        level, zlib.DEFLATED, draw(st.sampled_from([-15, -9])), draw(st.sampled_from([8, 1])), strategy
    )
    out, at = [], 0
    for cut in sorted(draw(st.lists(st.integers(0, len(text)), max_size=3))):
        out += [
            machine.compress(text[at:cut]),
            machine.flush(draw(st.sampled_from([zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH]))),
        ]
        at = cut
    return b"".join([*out, machine.compress(text[at:]), machine.flush()])


@st.composite
def texts(
    draw: st.DrawFn, odd: bool = True, codes: Sequence[str] = CODES, orders: Sequence[str] | None = None
) -> bytes:
    lines = draw(st.lists(rows(odd, codes, orders), max_size=6))
    if odd and draw(st.integers(0, 4)) == 0:
        lines.insert(draw(st.integers(0, len(lines))), b"")
    return b"\n".join(lines) + draw(st.sampled_from([b"\n", b"", b"\n\n"]))


@st.composite
def payloads(
    draw: st.DrawFn, odd: bool = True, codes: Sequence[str] = CODES, orders: Sequence[str] | None = None
) -> bytes:
    """Whole messages, now and then with trailing bytes, cut short, damaged, or no DEFLATE at all."""
    data = draw(encodings(draw(texts(odd, codes, orders))))
    if not odd:
        return data
    match draw(st.integers(0, 30)):
        case 0:
            return data + draw(st.binary(min_size=1, max_size=5))
        case 1:
            return data[: draw(st.integers(0, len(data) - 1))]
        case 2:
            at = draw(st.integers(0, len(data) - 1))
            return data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
        case 3:
            return draw(st.binary(max_size=30))
    return data


arrivals = st.one_of(
    st.just(0),
    st.integers(0, 86_400 * SECOND).map(MORNING.__add__),
    st.integers(700_000_000 * SECOND, 2**63 - 1),
)
