"""The Decoder against the oracle: messages of every shape, all settings, every record, flag, call and counter."""

import datetime
import itertools
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import oracle
import wire
from pair import Pair
from wire import MORNING, SECOND

MINUTE = 60 * SECOND
histories = st.sampled_from([0, 1, 4, 32, 100])
small_settings = st.fixed_dictionaries(
    {
        "capacity": st.sampled_from([1, 4, 16, 256]),
        "history": histories,
        "trading_day": st.sampled_from([None, None, "2023-02-01", datetime.date(2026, 11, 23), "1992-01-01"]),
    },
    optional={
        "clock": st.sampled_from(["exchange", "always"]),
        "lv1_order": st.sampled_from(["auto", "amount_first", "volume_first"]),
        "lv10_order": st.sampled_from(["auto", "price_first", "volume_first"]),
        "max_record": st.sampled_from([30, 150, 300, 4096, 100_000]),
        "max_inflated": st.sampled_from([100, 1000, 8 * 1024 * 1024]),
    },
)


def run(messages, **chosen):
    pair = Pair(**chosen)
    for payload, arrival in messages:
        pair.decode(payload, arrival)
    pair.check()
    return pair


@wire.examples(4, 3000)
@given(st.lists(st.tuples(wire.payloads(), wire.arrivals), min_size=1, max_size=5), small_settings)
def test_any_messages_with_any_settings(messages, chosen):
    run(messages, **chosen)


@wire.examples(1.5, 2000)
@given(st.lists(st.tuples(wire.payloads(odd=False), wire.arrivals), min_size=1, max_size=8), histories)
def test_healthy_messages(messages, history):
    run(messages, history=history)


@wire.examples(2, 2000)
@given(st.data())
def test_messages_with_both_field_orders_and_reconnects(data):
    pair = Pair(history=data.draw(histories), capacity=data.draw(st.sampled_from([8, 256])))
    both = ("amount_first", "volume_first")
    for _ in range(data.draw(st.integers(1, 8))):
        orders = data.draw(st.sampled_from([both[:1], both[1:], both]))
        pair.decode(data.draw(wire.payloads(odd=False, codes=wire.CODES[:2], orders=orders)), data.draw(wire.arrivals))
        match data.draw(st.integers(0, 6)):
            case 0:
                pair.decoder.connected()
                pair.oracle.connected()
            case 1:
                pair.decoder.resume()
                pair.oracle.resume()
        pair.check_stats()
    pair.check()


@wire.examples(10)
@given(st.lists(st.one_of(wire.good_reals, wire.good_reals, wire.bad_numbers, st.just("")), min_size=1, max_size=12))
def test_prices_are_those_of_float_bit_for_bit(texts):
    pair = run([(wire.message(wire.trades("600519", *[wire.trade(price=text) for text in texts])), MORNING)])
    assert pair.decoder.trades.head == sum(1 for text in texts if text not in wire.BAD_NUMBERS)


@wire.examples(4)
@given(
    st.lists(st.tuples(wire.positive, st.integers(0, 3), st.integers(0, 400), st.booleans()), min_size=1, max_size=6)
)
def test_decimals_near_the_point_between_two_floats_are_rounded_correctly(cases):
    """One digit more or less, however far behind, decides; exactly between, the even one wins."""
    texts = []
    for value, kind, zeros, negative in cases:
        text = wire.halfway(value)
        text = text if "." in text else text + ".0"
        if kind == 1:
            text += "0" * zeros + "1"
        elif kind == 2:
            text = text.rstrip("0")
            text = (text + "0" if text.endswith(".") else text[:-1] + str(int(text[-1]) - 1)) + "9" * (zeros + 1)
        elif kind == 3:
            text = "0" * zeros + text + "0" * zeros
        texts.append("-" + text if negative else text)
    pair = Pair(max_record=10_000)
    pair.decode(wire.message(wire.trades("600519", *[wire.trade(price=text) for text in texts])), MORNING)
    found = pair.decoder.trades.last(len(texts))["price"]
    assert found.view("i8").tolist() == [oracle_bits(text) for text in texts]


def test_the_ends_of_the_range_of_floats():
    largest = 2**1024 - 2**970  # exactly between the largest float and what would be the next
    texts = [
        str(largest),
        str(largest - 1),
        f"{largest - 1}.{'9' * 900}",
        f"{largest}.{'0' * 900}1",
        "1" * 400,
        "0." + "0" * 400 + "1",
    ]
    least = wire.halfway(0.0)
    texts += [
        least,
        least[:-1] + "4" + "9" * 50,
        least + "0" * 50 + "1",
        wire.halfway(5e-324),
        wire.halfway(2.2250738585072009e-308),
    ]
    # Just past the middle, beside subnormals of each length whose last bit is even: rounding twice goes the wrong way.
    for bits in range(2, 53):
        text = wire.halfway(struct.unpack("<d", struct.pack("<q", (1 << bits) - 2))[0])
        texts += [text + "1", text[:-1] + "4" + "9" * 30]
    texts += [
        "0" * 900 + "1." + "0" * 900,
        "0." + "0" * 300 + "1" + "0" * 900 + "1",
        "1" + "0" * 22,
        "9" * 800,
        "9" * 19,
        "9" * 20,
    ]
    pair = Pair(capacity=512, max_record=10_000)
    both = [sign + text for text in texts for sign in ("", "-")]
    pair.decode(wire.message(wire.trades("600519", *[wire.trade(price=text) for text in both])), MORNING)
    found = pair.decoder.trades.last(len(both))["price"]
    assert found.view("i8").tolist() == [oracle_bits(text) for text in both]


def oracle_bits(text):
    return struct.unpack("<q", struct.pack("<d", float(text)))[0]


def test_every_two_three_and_four_decimal_price_of_a_range(share):
    values = [f"{i // 100}.{i % 100:02d}" for i in range(0, 300_000, 7)]
    values += [f"{i // 1000}.{i % 1000:03d}" for i in range(0, 400_000, 11)]
    values += [f"{i // 10_000}.{i % 10_000:04d}" for i in range(0, 1_000_000, 31)]
    values = share(values, 12_000)
    pair = Pair(capacity=131_072, history=0)
    for i in range(0, len(values), 2000):
        pair.decode(wire.message(wire.trades("600519", *[wire.trade(price=text) for text in values[i : i + 2000]])))
    assert pair.decoder.trades.last(len(values))["price"].view("i8").tolist() == [oracle_bits(text) for text in values]


@wire.examples(4)
@given(
    st.lists(st.one_of(wire.good_wholes, wire.fractional, wire.bad_numbers, wire.too_wide, st.just("")), max_size=12)
)
@example(["9223372036854775807", "-9223372036854775807", "9223372036854775807.000", "9223372036854775807.5"])
@example(["9223372036854775808", "18446744073709551616", "18446744073709551716", "-9223372036854775809"])
def test_volumes(texts):
    run([(wire.message(wire.trades("600519", *[wire.trade(volume=text) for text in texts])), MORNING)])


@wire.examples(4)
@given(st.lists(wire.any_ids, min_size=1, max_size=12))
def test_trade_ids(texts):
    pair = run([(wire.message(wire.trades("600519", *[wire.trade(number=text) for text in texts])), MORNING)])
    found = pair.decoder.trades.last(len(texts))
    assert len(found) == len(texts)
    for text, record in zip(texts, found, strict=True):
        decimal = text.isascii() and text.isdigit() and int(text) < 2**63
        assert record["id"] == (int(text) if decimal else -1)
        assert bool(record["flags"] & oracle.ID_TEXT) is not decimal


@wire.examples(4)
@given(st.lists(st.one_of(wire.good_times, wire.bad_times), max_size=12), st.sampled_from([0, MORNING]))
def test_times_on_every_level(texts, arrival):
    rows = [wire.trades("600519", *[wire.trade(time=text) for text in texts])]
    rows += [wire.row("quotes", "600519", *[wire.quote(time=text) for text in texts])]
    rows += [wire.row("depths", "600519", *[wire.depth(time=text) for text in texts])]
    run([(wire.message(*rows), arrival)])


@pytest.mark.parametrize("digits", range(1, 10))
def test_fractions_of_a_second_of_each_length(digits):
    fraction = "123456789"[:digits]
    pair = run([(wire.message(wire.trades("600519", wire.trade(time="09:30:00." + fraction))), MORNING)])
    assert pair.decoder.trades.last(1)["time"][0] == MORNING + int(fraction.ljust(9, "0"))


def at(text):
    """ns of a moment in Shanghai."""
    moment, _, fraction = text.partition(".")
    return int(datetime.datetime.fromisoformat(moment + "+08:00").timestamp()) * SECOND + int(fraction.ljust(9, "0"))


@pytest.mark.parametrize(
    ("clock", "arrival", "wanted", "stale"),
    [
        # Friday's snapshot, seen on Monday before the opening, gets Sunday.
        ("15:00:00", "2026-11-23T08:50:00", "2026-11-22T15:00:00", True),
        ("08:55:00", "2026-11-23T08:50:00", "2026-11-23T08:55:00", False),
        ("08:55:00.000000001", "2026-11-23T08:50:00", "2026-11-22T08:55:00.000000001", True),
        ("08:54:59.999999999", "2026-11-23T08:50:00", "2026-11-23T08:54:59.999999999", False),
        ("08:40:00", "2026-11-23T08:50:00", "2026-11-23T08:40:00", False),
        ("08:39:59.999999999", "2026-11-23T08:50:00", "2026-11-23T08:39:59.999999999", True),
        ("08:40:00", "2026-11-23T08:50:00.000000001", "2026-11-23T08:40:00", True),
        # Midnight, from both sides.
        ("23:59:59", "2026-11-23T00:00:00", "2026-11-22T23:59:59", False),
        ("00:00:00", "2026-11-22T23:59:59", "2026-11-23T00:00:00", False),
        ("00:00:00", "2026-11-22T23:55:00", "2026-11-23T00:00:00", False),
        ("00:00:00", "2026-11-22T23:54:59.999999999", "2026-11-22T00:00:00", True),
        ("00:04:00", "2026-11-22T23:59:00", "2026-11-23T00:04:00", False),
        ("00:04:00.000000001", "2026-11-22T23:59:00", "2026-11-22T00:04:00.000000001", True),
        ("23:55:00", "2026-11-23T00:04:59", "2026-11-22T23:55:00", False),
        ("23:54:00", "2026-11-23T00:04:59", "2026-11-22T23:54:00", True),
        ("00:00:00", "2026-11-23T00:00:00", "2026-11-23T00:00:00", False),
        # New Year, and the end of a leap February.
        ("23:59:59", "2027-01-01T00:00:01", "2026-12-31T23:59:59", False),
        ("23:59:59", "2028-03-01T00:00:01", "2028-02-29T23:59:59", False),
        ("00:00:00", "2028-02-28T23:59:59", "2028-02-29T00:00:00", False),
    ],
)
@pytest.mark.parametrize("mode", ["exchange", "always"])
def test_dates_come_from_arrival(clock, arrival, wanted, stale, mode):
    for message in (
        wire.message(wire.trades("600519", wire.trade(time=clock))),
        wire.message(wire.row("quotes", "600519", wire.quote(time=clock, price="1"))),
        wire.message(wire.row("depths", "600519", wire.depth(time=clock, price="1"))),
    ):
        pair = run([(message, at(arrival))], clock=mode)
        (level,) = [level for level in oracle.LEVELS if getattr(pair.decoder, level).head]
        record = getattr(pair.decoder, level).last(1)[0]
        assert record["time"] == at(wanted)
        assert record["recv"] == at(arrival)
        assert record["flags"] == (oracle.STALE if stale and mode == "exchange" else 0)


@pytest.mark.parametrize("mode", ["exchange", "always"])
@pytest.mark.parametrize(
    ("clock", "arrival", "stale"),
    [
        ("15:00:00", "2026-11-23T15:10:00", False),
        ("15:00:00", "2026-11-23T15:10:00.000000001", True),
        ("15:00:00", "2026-11-23T09:00:00", False),
        ("15:00:00", "2026-11-24T09:00:00", True),
        ("15:00:00", "2026-11-20T09:00:00", False),
        ("15:00:00", None, False),
    ],
)
def test_an_explicit_trading_day_wins(clock, arrival, stale, mode):
    for day in ("2026-11-23", datetime.date(2026, 11, 23)):
        message = wire.message(wire.trades("600519", wire.trade(time=clock)))
        pair = run([(message, at(arrival) if arrival else 0)], trading_day=day, clock=mode)
        record = pair.decoder.trades.last(1)[0]
        assert record["time"] == at("2026-11-23T15:00:00")
        assert record["flags"] == (oracle.STALE if stale and mode == "exchange" else 0)


def test_without_day_and_arrival_the_day_is_the_first_of_1970_and_flagged():
    pair = run([(wire.message(wire.trades("600519", wire.trade(time="09:30:00"), wire.trade(time="00:00:00"))), 0)])
    records = pair.decoder.trades.last(2)
    assert records["time"].tolist() == [at("1970-01-01T09:30:00"), at("1970-01-01T00:00:00")]
    assert records["flags"].tolist() == [oracle.NO_DATE] * 2
    assert not records["recv"].any()


@wire.examples(4)
@given(
    clock=st.integers(0, 86_400 * SECOND - 1),
    arrival=st.integers(694_224_000 * SECOND, 2**62),
    near=st.sampled_from([None, 0, -300 * SECOND, 600 * SECOND]),
    off=st.integers(-2, 2),
    mode=st.sampled_from(["exchange", "always"]),
    day=st.sampled_from([None, None, "2026-11-23"]),
)
def test_any_time_with_any_arrival(clock, arrival, near, off, mode, day):
    """With near, the record's time is that far before arrival, give or take some ns: where the rules change."""
    if near is not None:
        clock = (arrival - near + off + 8 * 3600 * SECOND) % oracle.DAY
    seconds, ns = divmod(clock, SECOND)
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{ns:09d}"
    pair = run([(wire.message(wire.trades("600519", wire.trade(time=text))), arrival)], clock=mode, trading_day=day)
    time = int(pair.decoder.trades.last(1)["time"][0])
    if day is None:
        assert time <= arrival + 5 * MINUTE
        assert time + oracle.DAY > arrival + 5 * MINUTE


@given(st.lists(st.tuples(st.sampled_from(["quotes", "depths"]), wire.any_names), min_size=1, max_size=8))
def test_names_of_any_bytes_are_decoded_with_replacement(cases):
    rows = [
        wire.row(level, str(i % 3), (wire.quote if level == "quotes" else wire.depth)(name=name))
        for i, (level, name) in enumerate(cases)
    ]
    pair = run([(wire.message(*rows), 0)])
    for code, name in pair.decoder.names.items():
        assert name in [n.decode("utf-8", "replace") for _, n in cases]
        assert len(code) == 1


def test_the_empty_message_and_blank_lines_publish_nothing():
    for text in (b"", b"\n", b"\n\n\n"):
        pair = run([(wire.deflate(text), MORNING)])
        assert pair.decoder.stats()["rows"] == 0
        assert pair.decoder.stats()["bad"] == 0
        assert pair.decoder.stats()["bad_messages"] == 0


def test_several_records_of_a_snapshot_row_are_all_kept_oldest_first():
    for level, make in (("quotes", wire.quote), ("depths", wire.depth)):
        records = [make(time=f"09:30:0{i}", volume=str(i)) for i in range(9)]
        pair = run([(wire.message(wire.row(level, "600519", *records)), MORNING)])
        assert getattr(pair.decoder, level).last(9)["volume"].tolist() == list(range(9))


def test_one_sequence_runs_over_all_levels_in_the_order_of_the_wire():
    rows = []
    for i in range(4):
        rows += [
            wire.trades("600519", wire.trade(number=i), wire.trade(number=i)),
            wire.row("depths", "000001", wire.depth(volume=str(i))),
            wire.row("quotes", "i000001", wire.quote(volume=str(i))),
        ]
    pair = run([(wire.message(*rows), MORNING), (wire.message(*rows), MORNING)])
    assert sorted(
        itertools.chain(*[getattr(pair.decoder, level).last(99)["seq"].tolist() for level in oracle.LEVELS])
    ) == list(range(1, 33))
    assert pair.decoder.trades.last(99)["seq"].tolist()[:4] == [1, 2, 5, 6]


def test_repeat_is_the_text_last_published_for_code_and_level():
    a, b = wire.quote(volume="1"), wire.quote(volume="2")
    bad = wire.quote(volume="x")
    pair = Pair()
    cases = [
        ("600519", a, False),
        ("600519", a, True),
        ("600519", b, False),
        ("600519", a, False),
        ("000001", a, False),
        ("600519", bad, None),
        ("600519", a, True),
        ("600519", wire.quote(volume="1.0"), False),
        ("600519", wire.quote(volume="1", time="09:30:01"), False),
        ("600519", wire.quote(volume="1", name="B"), False),
        ("000001", a, True),
    ]
    for code, record, repeat in cases:
        before = pair.decoder.quotes.head
        pair.decode(wire.message(wire.row("quotes", code, record)), MORNING)
        if repeat is None:
            assert pair.decoder.quotes.head == before
        else:
            assert bool(pair.decoder.quotes.last(1)["flags"][0] & oracle.REPEAT) is repeat
    pair.decode(wire.message(wire.row("depths", "600519", wire.depth()), wire.row("quotes", "000001", a)), MORNING)
    pair.decode(wire.message(wire.row("depths", "600519", wire.depth()), wire.trades("600519", wire.trade())), MORNING)
    pair.decode(wire.message(wire.trades("600519", wire.trade())), MORNING)
    assert pair.decoder.stats()["repeats"] == 5
    assert not pair.decoder.trades.last(2)["flags"].any()
    pair.check()


@pytest.mark.parametrize("level", ["quotes", "depths"])
def test_a_snapshot_that_differs_in_any_one_byte_is_no_repeat(level):
    record = {"quotes": wire.quote, "depths": wire.depth}[level]("09:30:00.000", name="N")
    pair = Pair(capacity=64)
    for i in range(len(record)):
        if record[i : i + 1] in b",.:":
            continue
        other = record[:i] + (b"1" if record[i : i + 1] == b"0" else b"0") + record[i + 1 :]
        rows = [wire.row(level, "600519", text) for text in (record, record, other, other, record)]
        pair.decode(wire.message(*rows), MORNING)
        found = getattr(pair.decoder, level).last(5)["flags"] & oracle.REPEAT
        assert found.tolist()[1:] == [2, 0, 2, 0]
    pair.check()


def test_repeats_within_one_row_and_with_long_names_are_seen():
    record = wire.quote(name="茅" * 300)
    pair = run([(wire.message(wire.row("quotes", "600519", record, record, record)), MORNING)], capacity=4)
    assert [int(flag) & oracle.REPEAT for flag in pair.decoder.quotes.last(3)["flags"]] == [0, 2, 2]
    longer = wire.quote(name="茅" * 300 + "台")
    pair.decode(wire.message(wire.row("quotes", "600519", longer, record, record)), MORNING)
    assert [int(flag) & oracle.REPEAT for flag in pair.decoder.quotes.last(3)["flags"]] == [0, 0, 2]
    pair.check()


@wire.examples(2)
@given(
    price=st.one_of(wire.cents, wire.mills, wire.good_reals, st.just("0")),
    close=st.one_of(wire.cents, wire.mills, wire.good_reals, st.sampled_from(["0", "0.00", "-0", ""])),
)
def test_derived_change(price, close):
    pair = run([(wire.message(wire.row("depths", "600519", wire.depth(price=price, last_close=close))), MORNING)])
    record = pair.decoder.depths.last(1)[0]
    p, c = float(price or 0), float(close or 0)
    assert (record["change"] == ((p / c - 1) * 100 if c else 0.0)) or record["change"] != record["change"]


@pytest.mark.parametrize("level", ["trades", "quotes", "depths"])
def test_each_number_missing_is_flagged_and_zero(level):
    make = {"trades": wire.trade, "quotes": wire.quote, "depths": wire.depth}[level]
    fields = make().split(b",")
    for i in range(len(fields)):
        changed = [*fields[:i], b"", *fields[i + 1 :]]
        pair = run([(wire.message(wire.row(level, "600519", b",".join(changed))), MORNING)])
        ring = getattr(pair.decoder, level)
        if i == 0:
            assert ring.head == 0
            assert pair.decoder.stats()["bad_time"] == 1
            continue
        flags = int(ring.last(1)["flags"][0])
        if i == 1:
            assert flags == (oracle.ID_TEXT if level == "trades" else 0)
        else:
            assert flags == oracle.EMPTY_FIELD | (oracle.NO_PRICE if i == 2 else 0)


@pytest.mark.parametrize("level", ["trades", "quotes", "depths"])
def test_each_field_that_is_wrong_makes_its_record_bad_and_no_other(level):
    make = {"trades": wire.trade, "quotes": wire.quote, "depths": wire.depth}[level]
    fields = make().split(b",")
    for i in range(len(fields)):
        for wrong in (b"x", b"1.", b"1=1", b" 1", b"1 ", b"+1", b"1e1", b"--1"):
            changed = b",".join([*fields[:i], wrong, *fields[i + 1 :]])
            pair = run([(wire.message(wire.row(level, "600519", make(), changed, make())), MORNING)])
            good = 3 if i == 1 and wrong != b"1=1" else 2
            assert getattr(pair.decoder, level).head == good


@pytest.mark.parametrize("extra", [-1, 1])
@pytest.mark.parametrize("level", ["trades", "quotes", "depths"])
def test_one_field_more_or_less_is_a_bad_record(level, extra):
    make = {"trades": wire.trade, "quotes": wire.quote, "depths": wire.depth}[level]
    fields = make().split(b",")
    record = b",".join(fields[:-1] if extra < 0 else [*fields, b"0"])
    pair = run([(wire.message(wire.row(level, "600519", record, make())), MORNING)])
    assert pair.decoder.stats()["bad_fields"] == 1
    assert getattr(pair.decoder, level).head == 1


@pytest.mark.parametrize(
    ("text", "reason", "count"),
    [
        (b"lv2_600519", "row", 1),
        (b"garbage|more", "row", 2),
        (b"lv3_600519=1|2|3", "level", 3),
        (b"LV2_600519=1", "level", 1),
        (b"lv2_=1|2", "code", 2),
        (b"lv2_123456789=1", "code", 1),
        (b"lv2_60 519=1", "code", 1),
        (b"lv2_600519\xff=1|2", "code", 2),
        (b"lv2_a_b=1", "code", 1),
        (b"lv2_600519=", "fields", 1),
        (b"lv2_600519=|", "fields", 2),
        (b"lv2_600519=09:30:00,1,1,1=", "equals", 1),
        (b"lv1_600519=" + wire.quote(name="a=b"), "equals", 1),
        (b"lv2_600519=9:30:00,1,1,1", "time", 1),
        (b"lv2_600519=09:30:00,1,1.0.0,1", "number", 1),
        (b"lv2_600519=09:30:00,1,1,1.5", "volume", 1),
        (b"lv2_600519=09:30:00,1,1,1\r", "number", 1),
        (b"lv2_600519=09:30:00,1,1," + b"0" * 5000, "length", 1),
    ],
)
def test_bad_rows_and_records_are_counted_by_reason_and_kept(text, reason, count):
    good = wire.trades("600519", wire.trade())
    pair = run([(wire.message(good, text, good), MORNING)])
    stats = pair.decoder.stats()
    assert stats["bad"] == stats["bad_" + reason] == count
    assert pair.decoder.trades.head == 2
    kept = pair.decoder.bad_records
    assert kept
    assert all(why == "bad_" + reason and isinstance(data, bytes) and len(data) <= 1024 for why, data in kept)
    assert all(data in text for _, data in kept)


def test_the_last_16_bad_records_are_kept_cut_to_1024_bytes():
    pair = Pair()
    for i in range(40):
        records = [b"bad %d %d" % (i, k) + b"x" * (2000 if k == 2 else 0) for k in range(3)]
        pair.decode(wire.message(wire.trades("600519", *records)), MORNING)
    kept = pair.decoder.bad_records
    assert len(kept) == 16
    assert kept[-1] == ("bad_fields", b"bad 39 2" + b"x" * 1016)
    assert kept[0] == ("bad_fields", b"bad 34 2" + b"x" * 1016)
    pair.check()


@wire.examples(2)
@given(
    st.lists(st.one_of(wire.trade_records(), wire.snapshot_records("quotes", "amount_first")), min_size=1, max_size=20)
)
def test_bad_records_name_a_true_reason(records):
    pair = run([(wire.message(wire.trades("600519", *records), wire.row("depths", "1", *records)), MORNING)])
    assert len(pair.decoder.bad_records) == min(16, len(pair.oracle.bad))


@pytest.mark.parametrize("level", ["trades", "quotes", "depths"])
def test_a_record_may_be_as_long_as_the_limit_and_no_longer(level):
    make = {"trades": wire.trade, "quotes": wire.quote, "depths": wire.depth}[level]
    record = make(price="1" + "0" * 300 + "." + "0" * 200)
    for limit, good in ((len(record) - 1, 0), (len(record), 1), (len(record) + 1, 1)):
        pair = run([(wire.message(wire.row(level, "600519", record)), MORNING)], max_record=limit)
        assert getattr(pair.decoder, level).head == good


def test_codes_of_every_allowed_shape_and_none_other():
    good = ["0", "z", "Z", ".", "BRK.B", "12345678", "i000001", "aapl", "AaZz09.."]
    bad = ["", "123456789", "a b", "a-b", "é", "a,b", "a\0", "a/b", "a:b", "a@", "[", "`", "{"]
    pair = Pair()
    for code in good + bad:
        pair.decode(
            wire.message(
                *[
                    wire.row(level, code.encode(), make())
                    for level, make in (("trades", wire.trade), ("quotes", wire.quote), ("depths", wire.depth))
                ]
            ),
            MORNING,
        )
    assert set(pair.decoder.codes) == set(good)
    assert pair.decoder.stats()["bad_code"] == 3 * len(bad)
    pair.check()


@pytest.mark.parametrize("payload_type", [bytes, bytearray, memoryview])
def test_any_contiguous_buffer_is_a_payload(payload_type):
    import array

    import numpy as np

    pair = Pair()
    data = wire.message(wire.trades("600519", wire.trade()))
    assert pair.decoder.decode(payload_type(data), MORNING) == 1
    assert pair.decoder.decode(memoryview(b"x" + data)[1:], MORNING) == 1
    assert pair.decoder.decode(np.frombuffer(data, np.uint8), MORNING) == 1
    assert pair.decoder.decode(array.array("B", data), MORNING) == 1
    assert pair.decoder.trades.head == 4


def test_what_is_no_contiguous_buffer_is_a_type_error_and_changes_nothing():
    import numpy as np

    pair = Pair()
    data = wire.message(wire.trades("600519", wire.trade()))
    spread = np.repeat(np.frombuffer(data, np.uint8), 2)[::2]
    for wrong in (None, 5, "text", [1, 2], memoryview(data)[::-1], memoryview(bytes(8) * 2)[::2], spread, object()):
        with pytest.raises(TypeError):
            pair.decoder.decode(wrong)
    with pytest.raises(TypeError):
        pair.decoder.decode()
    with pytest.raises((TypeError, OverflowError)):
        pair.decoder.decode(data, "now")
    with pytest.raises(OverflowError):
        pair.decoder.decode(data, 2**70)
    assert pair.decoder.messages == 0
    assert pair.batches == []
    pair.decode(data, MORNING)
    pair.check()
