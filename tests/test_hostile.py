"""Hostile input: whatever the bytes, decode counts them, and what was good stays good."""

import random
import zlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import oracle
import wire
from jvq_fast.decoder import Decoder
from pair import Pair
from wire import MORNING

FORCED = {"lv1_order": "amount_first", "lv10_order": "price_first", "trading_day": "2023-02-01"}
LEVELS = oracle.LEVELS


def stored(text, final=True):
    """The text in stored blocks made by hand."""
    out = b""
    parts = [text[i : i + 65_535] for i in range(0, len(text), 65_535)] or [b""]
    for i, part in enumerate(parts):
        last = final and i == len(parts) - 1
        out += bytes([last]) + len(part).to_bytes(2, "little") + (len(part) ^ 0xFFFF).to_bytes(2, "little") + part
    return out


# any bytes at all


@wire.examples(20)
@given(st.binary(max_size=200), wire.arrivals)
@example(b"", 0)
@example(b"\x03\x00", 0)
@example(b"\x07", 0)
@example(b"\x01\x00\x00\xff\xff", 0)
@example(b"\x1f\x8b\x08\x00", 0)
@example(b"x\x9c\x03\x00\x00\x00\x00\x01", 0)
def test_any_payload_is_counted(payload, arrival):
    pair = Pair(capacity=16, history=4)
    pair.decode(payload, arrival)
    pair.check()


@wire.examples(20)
@given(st.binary(max_size=400), wire.arrivals)
@example(b"lv2_600519=" + b"|" * 3000, 0)
@example(b"lv1_1=" + b"," * 25, 0)
@example(b"lv10_1=" + b"," * 45, 0)
@example(b"\n" * 5000 + b"=", 0)
@example(b"\0" * 4000, 0)
@example(b"lv2_1=::,,,", 0)
def test_any_text_is_counted(text, arrival):
    pair = Pair(capacity=16, history=4)
    pair.decode(wire.deflate(text), arrival)
    pair.check()


likely = st.lists(
    st.sampled_from(
        [
            b"lv1_",
            b"lv2_",
            b"lv10_",
            b"600519",
            b"i000001",
            b"=",
            b"|",
            b",",
            b"\n",
            b"\r",
            b"09:30:00",
            b".123",
            b"-",
            b".",
            b"0",
            b"1",
            b"99999999999999999999",
            b"\0",
            b"\xff",
            b"\xe8\x8c\x85",
            b" ",
            b":",
            b"_",
            b",,,,,,,,,,",
            b"0," * 22,
            b"0," * 40,
        ]
    ),
    max_size=60,
).map(b"".join)


@wire.examples(20)
@given(likely, wire.arrivals)
def test_any_text_of_the_protocols_own_pieces_is_counted(text, arrival):
    pair = Pair(capacity=16, history=4)
    pair.decode(wire.deflate(text), arrival)
    pair.check()


@wire.examples(5)
@given(wire.texts(), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255), st.integers(0, 3)), max_size=6))
def test_damaged_text_is_counted(text, damages):
    data = bytearray(text)
    for place, byte, kind in damages:
        at = place % (len(data) + 1)
        if kind == 0:
            data.insert(at, byte)
        elif data and kind == 1:
            del data[at : at + byte % 20]
        elif data:
            data[at % len(data)] = byte
    pair = Pair(capacity=64, history=4)
    pair.decode(wire.deflate(bytes(data)), MORNING)
    pair.check()


@wire.examples(5)
@given(
    wire.payloads(odd=False), st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 7)), min_size=1, max_size=3)
)
def test_damaged_deflate_is_counted(payload, bits):
    data = bytearray(payload)
    for place, bit in bits:
        data[place % len(data)] ^= 1 << bit
    pair = Pair(capacity=64, history=4)
    pair.decode(bytes(data), MORNING)
    pair.check()


def test_a_payload_ends_where_it_ends():
    """Every payload in a buffer of its own size, so that a sanitizer sees one byte too many."""
    text = (
        wire.row("quotes", "600519", wire.quote())
        + b"\n"
        + wire.trades("600519", *[wire.trade(number=i) for i in range(50)])
    )
    for payload in (wire.deflate(text), wire.deflate(text, 0), wire.deflate(text, 9, zlib.Z_FIXED)):
        for cut in range(len(payload)):
            decoder = Decoder(capacity=64, history=4)
            assert decoder.decode(bytearray(payload[:cut])) == 0
            stats = decoder.stats()
            assert stats["inflate_truncated"] == stats["bad_messages"] == 1
            assert stats["records"] == stats["rows"] == stats["bad"] == 0
            assert decoder.trades.head == decoder.quotes.head == 0


@wire.examples(2)
@given(wire.payloads(odd=False), st.data())
def test_a_truncated_message_publishes_nothing(payload, data):
    cut = data.draw(st.integers(0, len(payload) - 1))
    pair = Pair(capacity=64, history=4)
    pair.decode(payload[:cut], MORNING)
    assert pair.decoder.stats()["inflate_truncated"] == 1
    assert pair.calls == []
    pair.check()


@given(wire.payloads(odd=False), st.binary(min_size=1, max_size=20))
def test_trailing_bytes_are_counted_and_cost_nothing(payload, tail):
    clean, dirty = Pair(capacity=64), Pair(capacity=64)
    assert clean.decode(payload, MORNING).published == dirty.decode(payload + tail, MORNING).published
    assert dirty.decoder.stats()["inflate_trailing"] == 1
    assert clean.decoder.stats()["inflate_trailing"] == 0
    dirty.check()


CORRUPT = {
    "reserved block type": b"\x07\x00",
    "stored lengths disagree": b"\x01\x05\x00\xff\xff12345",
    "distance before the start": bytes([0x03, 0x02, 0x00]),
    "gzip by mistake": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    "plain text": b"lv2_600519=09:30:00,1,1,1\n",
    "all ones": b"\xff" * 50,
}


@pytest.mark.parametrize("payload", [pytest.param(data, id=name) for name, data in CORRUPT.items()])
def test_corrupt_streams_publish_nothing_and_are_counted(payload):
    pair = Pair()
    pair.decode(payload, MORNING)
    stats = pair.decoder.stats()
    assert stats["bad_messages"] == 1
    assert stats["inflate_corrupt"] + stats["inflate_truncated"] == 1
    pair.check()
    pair.decode(wire.message(wire.trades("600519", wire.trade())), MORNING)
    assert pair.decoder.trades.head == 1


def test_a_stream_that_is_corrupt_behind_good_rows_publishes_none_of_them():
    text = wire.trades("600519", *[wire.trade(number=i) for i in range(1000)]) + b"\n"
    for end, reason in (
        (b"\x07", "corrupt"),
        (b"\x01\x01\x00\x01\x00x", "corrupt"),
        (b"", "truncated"),
        (b"\x01\x05", "truncated"),
    ):
        pair = Pair(capacity=64)
        pair.decode(stored(text, final=False) + end, MORNING)
        stats = pair.decoder.stats()
        assert stats["inflate_" + reason] == stats["bad_messages"] == 1
        assert stats["records"] == 0
        assert pair.decoder.trades.head == 0
        assert pair.calls == []
        pair.check()


# limits


def test_a_bomb_of_a_thousand_to_one_is_refused_at_the_limit():
    limit = 8 * 1024 * 1024
    for size in (64 * 1024 * 1024, limit + 1):
        for byte in (b"\0", b"\n", b"|"):
            machine = zlib.compressobj(9, zlib.DEFLATED, -15)
            bomb = b"".join(
                [
                    *[machine.compress(byte * 2**20) for _ in range(size >> 20)],
                    machine.compress(byte * (size & (2**20 - 1))),
                    machine.flush(),
                ]
            )
            assert size / len(bomb) > 900
            decoder = Decoder(capacity=16, history=4)
            assert decoder.decode(bomb) == 0
            stats = decoder.stats()
            assert stats["inflate_too_large"] == stats["bad_messages"] == 1
            assert stats["rows"] == stats["bad"] == stats["records"] == 0
            assert decoder.nbytes == 0
            assert decoder.decode(wire.message(wire.trades("600519", wire.trade()))) == 1


@pytest.mark.parametrize("limit", [1, 100, 1000, 32_768, 65_536, 1_000_000])
def test_the_inflated_limit_is_a_setting_and_exact(limit):
    for size, good in ((limit - 1, True), (limit, True), (limit + 1, False), (2 * limit + 1, False)):
        for level in (0, 6):
            pair = Pair(max_inflated=limit)
            pair.decode(wire.deflate(b"\n" * size, level))
            stats = pair.decoder.stats()
            assert stats["inflate_too_large"] == (0 if good else 1)
            assert stats["inflated_bytes"] == (size if good else 0)


def test_a_bomb_of_records_is_refused_before_the_first():
    record = wire.trade()
    text = wire.trades("600519", *[record] * 400_000)
    assert len(text) > 8 * 1024 * 1024
    payload = wire.deflate(text)
    assert len(text) / len(payload) > 200
    decoder = Decoder(capacity=16, history=4)
    assert decoder.decode(payload) == 0
    assert decoder.stats()["inflate_too_large"] == 1
    decoder = Decoder(capacity=16, history=4, max_inflated=16 * 1024 * 1024)
    assert decoder.decode(payload) == 400_000
    assert decoder.trades.head == 400_000


def test_a_message_at_the_limit_of_bad_records_is_counted_to_the_last():
    limit = 1 << 20
    for text, count in (
        (b"lv2_600519=" + b"|" * (limit - 11), limit - 10),
        (b"|" * limit, limit + 1),
        (b"=\n" * (limit // 2), limit // 2),
        (b"a\n" * (limit // 2), limit // 2),
        (b"x" * limit, 1),
        (b"lv2_600519=" + b"," * (limit - 11), 1),
        (b"lv1_600519=" + b"1" * (limit - 11), 1),
    ):
        decoder = Decoder(capacity=16, history=4, max_inflated=limit)
        assert decoder.decode(wire.deflate(text)) == 0
        stats = decoder.stats()
        assert stats["bad"] == count
        assert stats["bad_messages"] == 0
        assert len(decoder.bad_records) <= 16
        assert all(len(data) <= 1024 for _, data in decoder.bad_records)


def test_the_record_limit_is_a_setting():
    record = wire.trade(price="1." + "0" * 1000)
    for limit, good in ((100, 0), (4096, 1)):
        decoder = Decoder(capacity=16, history=4, max_record=limit)
        assert decoder.decode(wire.message(wire.trades("600519", record))) == good
        assert decoder.stats()["bad_length"] == 1 - good


def test_the_code_limit_is_a_setting_and_codes_beyond_it_stay_on_the_tape():
    decoder = Decoder(capacity=256, history=4, max_codes=3)
    for i in range(100):
        assert decoder.decode(wire.message(wire.trades(f"c{i}", wire.trade(number=i)))) == 1
    assert decoder.trades.last(100)["id"].tolist() == list(range(100))
    assert decoder.trades.last(1)["code"][0] == b"c99"
    stats = decoder.stats()
    assert stats["codes"] == 3
    assert stats["tape_only"] == 97
    assert list(decoder.codes) == ["c0", "c1", "c2"]
    assert decoder.history("c2", "trades").head == 1
    with pytest.raises(KeyError):
        decoder.history("c3", "trades")


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_codes": -1},
        {"max_inflated": 0},
        {"max_inflated": -1},
        {"max_record": 0},
        {"max_record": -5},
        {"capacity": 0},
        {"capacity": -1},
        {"history": -1},
        {"clock": "sun"},
        {"trading_day": "yesterday"},
        {"trading_day": "2026-02-30"},
        {"market": "zz"},
        {"capacity": {"ticks": 4}},
        {"history": {"ticks": 4}},
        {"capacity": "many"},
        {"trading_day": 5},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises((ValueError, TypeError)):
        Decoder(**wrong)


# one record's bytes replaced


def healthy_rows(rng):
    """(level, code, records) of a message; every record is good and no two are the same."""
    rows, serial = [], rng.randrange(1000) * 1000
    for _ in range(rng.randrange(1, 6)):
        level = rng.choice(LEVELS)
        code = rng.choice(["600519", "000001", "i000001"])
        records = []
        for _ in range(rng.randrange(1, 6)):
            serial += 1
            if level == "trades":
                records.append(wire.trade(number=serial, price=f"{rng.uniform(1, 99):.2f}", volume=serial))
            elif level == "quotes":
                records.append(wire.deciding_quote(10.0, serial, amount=10 * serial))
            else:
                records.append(wire.deciding_depth(10.0, quantity=serial))
        rows.append((level, code, records))
    return rows


def published(decoder, calls):
    """All records by level and code, without seq and the flag REPEAT."""
    found = {}
    for code, records in calls:
        plain = np.frombuffer(bytearray(records.tobytes()), records.dtype)  # a copy that keeps the padding
        plain["seq"] = 0
        plain["flags"] &= ~oracle.REPEAT & 0xFFFFFFFF
        size = plain.dtype.itemsize
        data = plain.tobytes()
        found.setdefault((size, code), []).extend(data[i : i + size] for i in range(0, len(data), size))
    return found


def decode_rows(rows):
    decoder = Decoder(capacity=4096, history=0, **FORCED)
    calls = []
    for name in ("on_trades", "on_quotes", "on_depths"):
        setattr(decoder, name, lambda code, records: calls.append((code, records)))
    decoder.decode(wire.message(*[wire.row(level, code, *records) for level, code, records in rows]), MORNING)
    return decoder, published(decoder, calls)


def replacement(rng, record):
    """Any bytes but | and newline, near and far from the record that was there."""
    kind = rng.randrange(7)
    if kind == 0:
        data = rng.randbytes(rng.randrange(60))
    elif kind == 1:
        data = bytearray(record)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        data = bytes(data)
    elif kind == 2:
        data = record[: rng.randrange(len(record))]
    elif kind == 3:
        data = b"".join(
            rng.choices([b",", b"=", b"0", b"-", b".", b":", b"\xff", b"\0", b"lv2_600519="], k=rng.randrange(80))
        )
    elif kind == 4:
        data = record + rng.randbytes(rng.randrange(5000))
    elif kind == 5:
        at = rng.randrange(len(record))
        data = record[:at] + rng.randbytes(rng.randrange(4)) + record[at:]
    else:
        data = b""
    return data.translate(None, b"|\n")


def test_replacing_one_records_bytes_leaves_every_other_record_intact(share):
    for seed in share(range(20_000), 1500):
        rng = random.Random(seed)
        rows = healthy_rows(rng)
        _, before = decode_rows(rows)
        assert sum(map(len, before.values())) == sum(len(records) for _, _, records in rows)
        at = rng.randrange(len(rows))
        level, code, records = rows[at]
        which = rng.randrange(len(records))
        place = sum(len(r) for lv, c, r in rows[:at] if (lv, c) == (level, code)) + which
        key = ({"trades": 64, "quotes": 232, "depths": 400}[level], code)
        changed = [*records[:which], replacement(rng, records[which]), *records[which + 1 :]]
        decoder, after = decode_rows([*rows[:at], (level, code, changed), *rows[at + 1 :]])
        rest = list(before[key])
        del rest[place]
        found = list(after.get(key, []))
        if len(found) == len(rest) + 1:
            del found[place]
        else:
            assert decoder.stats()["bad"] == 1, seed
        assert found == rest, seed
        for other in before:
            if other != key:
                assert after[other] == before[other], seed
        assert set(after) <= set(before), seed


@wire.examples(3)
@given(st.integers(0, 2**32), st.binary(max_size=300), st.data())
def test_replacing_one_record_by_any_bytes_agrees_with_the_oracle(seed, data, draw):
    rng = random.Random(seed)
    rows = healthy_rows(rng)
    *_, records = rows[draw.draw(st.integers(0, len(rows) - 1))]
    records[draw.draw(st.integers(0, len(records) - 1))] = data.translate(None, b"|\n")
    pair = Pair(capacity=256, **FORCED)
    pair.decode(wire.message(*[wire.row(*row[:2], *row[2]) for row in rows]), MORNING)
    pair.check()


def test_a_flood_of_damaged_messages_leaves_a_decoder_that_works(share):
    decoder = Decoder(capacity=64, history=8)
    good = wire.message(wire.trades("600519", wire.trade()), wire.row("depths", "600519", wire.depth()))
    total = 0
    for seed in share(range(200_000), 5000):
        rng = random.Random(seed)
        data = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        total += decoder.decode(bytes(data), rng.randrange(2**62))
    before = decoder.stats()["records"]
    assert before == total
    assert decoder.decode(good, MORNING) == 2
    assert decoder.trades.last(1)["id"][0] == 1


@pytest.mark.parametrize("arrival", [1, -1, -(2**63), -(10**18), 10**9, 10**18, 2**62, 2**62 + 1, 2**63 - 1])
def test_any_arrival_is_survived(arrival):
    decoder = Decoder(capacity=64, history=8)
    times = ["00:00:00", "23:59:59.999999999", "09:30:00"]
    assert decoder.decode(wire.message(wire.trades("600519", *[wire.trade(time=time) for time in times])), arrival) == 3
    records = decoder.trades.last(3)
    assert (records["recv"] == arrival).all()
    reckoned = max(-oracle.FARTHEST, min(arrival, oracle.FARTHEST)) + 300 * wire.SECOND
    assert (records["time"] <= reckoned).all()
    assert (records["time"] > reckoned - oracle.DAY).all()


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31", "1600-02-29", "2262-04-12"])
def test_any_trading_day_is_survived_or_refused(day):
    try:
        decoder = Decoder(capacity=64, history=8, trading_day=day)
    except (ValueError, OverflowError):
        return
    assert decoder.decode(wire.message(wire.trades("600519", wire.trade())), MORNING) == 1
