"""Which of two fields is which: detected, forced, left open and contradicted, both ways round, on lv1 and lv10."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle
import wire
from pair import Pair
from wire import MORNING

LV1 = ("amount_first", "volume_first")
LV10 = ("price_first", "volume_first")
both_lv1 = pytest.mark.parametrize("order", LV1)
both_lv10 = pytest.mark.parametrize("order", LV10)
CASES = [("quotes", order) for order in LV1] + [("depths", order) for order in LV10]
every_order = pytest.mark.parametrize(("level", "order"), CASES)
BIDS, ASKS = list(range(99, 89, -1)), list(range(101, 111))
SMALL, ZERO = list(range(1, 11)), [0] * 10
STAT = {"quotes": "lv1_order", "depths": "lv10_order"}


def other(level, order):
    return next(o for o in (LV1 if level == "quotes" else LV10) if o != order)


def default(level):
    return "amount_first" if level == "quotes" else "price_first"


def deciding(level, order, serial=0, **rest):
    """A record that votes for the order; the totals or quantities are whole both ways, so that it is never bad."""
    time = f"09:{30 + serial // 60:02d}:{serial % 60:02d}"
    if level == "quotes":
        return wire.deciding_quote(10.0, 10_000 + serial, order=order, time=time, amount=100_000 + 10 * serial, **rest)
    bids, asks = wire.book(100, 10, tick=1, quantity=1000 + serial)
    bids, asks = ([(q, p.split(".")[0]) for q, p in side] for side in (bids, asks))
    return wire.depth(time, price="100", bids=bids, asks=asks, order=order, **rest)


def feed(pair, level, *records, code="600519"):
    """The records, one message each; gives the published ones."""
    before = getattr(pair.decoder, level).head
    for record in records:
        pair.decode(wire.message(wire.row(level, code, record)), MORNING)
    return getattr(pair.decoder, level).since(before)[0]


def state(pair, level):
    stats = pair.decoder.stats()
    assert stats[STAT[level]] == pair.oracle.order[level].now
    assert stats[STAT[level] + "_source"] == pair.oracle.order[level].source
    return stats[STAT[level]], stats[STAT[level] + "_source"]


def read_right(level, record):
    """Whether a published record was read in the order in which deciding() wrote it."""
    if level == "quotes":
        return bool(record["amount"] > record["volume"])
    return record["bid_price"].tolist() == BIDS


@every_order
def test_three_rows_settle_the_order_and_two_do_not(level, order):
    pair = Pair()
    for serial in range(2):
        feed(pair, level, deciding(level, order, serial))
        assert state(pair, level) == (default(level), "default")
    feed(pair, level, deciding(level, order, 2))
    assert state(pair, level) == (order, "detected")
    feed(pair, level, *[deciding(level, order, serial) for serial in range(3, 9)])
    assert state(pair, level) == (order, "detected")
    assert pair.decoder.stats()["order_unsure"] == 0
    pair.check()


@every_order
def test_rows_before_the_third_are_read_by_default_and_the_third_as_detected(level, order):
    records = [deciding(level, order, serial) for serial in range(5)]
    one_by_one = feed(Pair(), level, *records)
    pair = Pair()
    pair.decode(wire.message(wire.row(level, "600519", *records)), MORNING)
    together = getattr(pair.decoder, level).last(5)
    for published in (one_by_one, together):
        assert len(published) == 5
        assert not published["flags"].any()
        for serial, record in enumerate(published):
            right = serial >= 2 or order == default(level)
            assert read_right(level, record) is right
            if level == "quotes":
                totals = [100_000 + 10 * serial, 10_000 + serial]
                assert [record["amount"], record["volume"]] == (totals if right else totals[::-1])
            else:
                wrote = [BIDS, [(1000 + serial) * (i + 1) for i in range(10)]]
                found = [record["bid_price"].tolist(), record["bid_volume"].tolist()]
                assert found == (wrote if right else wrote[::-1])
    pair.check()


@every_order
def test_a_settled_order_is_contradicted_flagged_and_never_flips(level, order):
    pair = Pair()
    feed(pair, level, *[deciding(level, order, serial) for serial in range(3)])
    against = feed(pair, level, *[deciding(level, other(level, order), serial) for serial in range(3, 23)])
    assert (against["flags"] == oracle.ORDER_UNSURE).all()
    assert len(against) == 20
    assert state(pair, level) == (order, "detected")
    agreeing = feed(pair, level, deciding(level, order, 30))
    assert not agreeing["flags"].any()
    assert pair.decoder.stats()["order_unsure"] == 20
    pair.check()


@every_order
def test_a_forced_order_holds_from_the_first_row_and_is_never_detected_away(level, order):
    pair = Pair(**{STAT[level]: order})
    assert state(pair, level) == (order, "forced")
    published = feed(pair, level, *[deciding(level, order, serial) for serial in range(5)])
    assert not published["flags"].any()
    assert all(read_right(level, record) for record in published)
    against = feed(pair, level, *[deciding(level, other(level, order), serial) for serial in range(5, 15)])
    assert (against["flags"] == oracle.ORDER_UNSURE).all()
    assert state(pair, level) == (order, "forced")
    for begin in ("connected", "resume"):
        getattr(pair.decoder, begin)()
        getattr(pair.oracle, begin)()
        assert state(pair, level) == (order, "forced")
    pair.check()


@every_order
def test_a_forced_order_is_contradicted_by_the_very_first_row(level, order):
    pair = Pair(**{STAT[level]: order})
    (record,) = feed(pair, level, deciding(level, other(level, order)))
    assert record["flags"] == oracle.ORDER_UNSURE


@every_order
def test_of_mixed_votes_the_first_three_of_a_kind_settle(level, order):
    pair = Pair()
    wrong = other(level, order)
    for serial, vote in enumerate([order, wrong, wrong, order]):
        published = feed(pair, level, deciding(level, vote, serial))
        assert not published["flags"].any()
        assert state(pair, level) == (default(level), "default")
    feed(pair, level, deciding(level, order, 10))
    assert state(pair, level) == (order, "detected")
    pair.check()


@every_order
def test_votes_of_all_codes_count_together(level, order):
    pair = Pair()
    for serial, code in enumerate(["600519", "000001", "127063"]):
        feed(pair, level, deciding(level, order, serial), code=code)
    assert state(pair, level) == (order, "detected")


@pytest.mark.parametrize("begin", ["connected", "resume"])
@every_order
def test_detection_starts_anew_at_each_connection(level, order, begin):
    pair = Pair()

    def connect():
        getattr(pair.decoder, begin)()
        getattr(pair.oracle, begin)()

    feed(pair, level, *[deciding(level, order, serial) for serial in range(2)])
    connect()
    feed(pair, level, *[deciding(level, order, serial) for serial in range(2, 4)])
    assert state(pair, level) == (default(level), "default")
    feed(pair, level, deciding(level, order, 4))
    assert state(pair, level) == (order, "detected")
    connect()
    assert state(pair, level) == (default(level), "default")
    wrong = other(level, order)
    published = feed(pair, level, *[deciding(level, wrong, serial) for serial in range(5, 8)])
    assert not published["flags"].any()
    assert state(pair, level) == (wrong, "detected")
    pair.check()


def test_the_two_levels_are_detected_apart():
    for first in LV1:
        for second in LV10:
            pair = Pair()
            feed(pair, "quotes", *[deciding("quotes", first, serial) for serial in range(3)])
            assert state(pair, "depths") == ("price_first", "default")
            feed(pair, "depths", *[deciding("depths", second, serial) for serial in range(3)])
            assert state(pair, "quotes") == (first, "detected")
            assert state(pair, "depths") == (second, "detected")


def test_an_order_may_be_forced_on_one_level_and_detected_on_the_other():
    pair = Pair(lv1_order="volume_first")
    feed(pair, "depths", *[deciding("depths", "volume_first", serial) for serial in range(3)])
    assert state(pair, "quotes") == ("volume_first", "forced")
    assert state(pair, "depths") == ("volume_first", "detected")
    pair = Pair(lv10_order="price_first")
    feed(pair, "quotes", *[deciding("quotes", "volume_first", serial) for serial in range(3)])
    assert state(pair, "quotes") == ("volume_first", "detected")
    assert state(pair, "depths") == ("price_first", "forced")


def undecided_quotes():
    bids, asks = wire.book(10, 5)
    full = {"bids": bids, "asks": asks}
    yield "index", wire.quote(price="3000.00", amount="300000.00", volume="100", **full), "i000001"
    yield "index in an ordinary guise", wire.deciding_quote(10.0, 1000), "i399001"
    yield "empty book", wire.quote(price="10.00", amount="100000.00", volume="10000"), "600519"
    yield (
        "book of empty fields",
        wire.quote(price="10", amount="100000", volume="10000", bids=[("", "")] * 5, asks=[("", "")] * 5),
        "600519",
    )
    yield (
        "book of quantities without prices",
        wire.quote(price="10", amount="100000", volume="10000", bids=[("5", "0")] * 5, asks=[("5", "0")] * 5),
        "600519",
    )
    yield "no volume", wire.quote(price="10.00", amount="100000.00", volume="0", **full), "600519"
    yield "no amount", wire.quote(price="10.00", amount="0", volume="100000", **full), "600519"
    yield "volume missing", wire.quote(price="10.00", amount="100000.00", volume="", **full), "600519"
    yield "no price", wire.quote(price="0.00", amount="100000.00", volume="10000", **full), "600519"
    yield "price missing", wire.quote(price="", amount="100000.00", volume="10000", **full), "600519"
    for price in ("1.00", "0.98", "0.981", "1.019", "1.02", "1"):
        yield f"price {price}", wire.quote(price=price, amount="1000000", volume="1000000", **full), "510050"
    yield "bond counted in lots", wire.quote(price="101.20", amount="1012000.00", volume="1000", **full), "127063"
    yield "neither order near", wire.quote(price="10.00", amount="130000", volume="10000", **full), "600519"
    yield "neither order near, below", wire.quote(price="10.00", amount="70000", volume="10000", **full), "600519"


@pytest.mark.parametrize(("record", "code"), [pytest.param(*case[1:], id=case[0]) for case in undecided_quotes()])
def test_lv1_rows_that_can_not_decide_leave_the_order_open(record, code):
    pair = Pair()
    published = feed(pair, "quotes", *[record] * 6, code=code)
    assert len(published) == 6
    assert state(pair, "quotes") == ("amount_first", "default")
    assert not (published["flags"] & oracle.ORDER_UNSURE).any()
    feed(pair, "quotes", *[deciding("quotes", "volume_first", serial) for serial in range(3)])
    assert state(pair, "quotes") == ("volume_first", "detected")
    published = feed(pair, "quotes", record, code=code)
    assert not (published["flags"] & oracle.ORDER_UNSURE).any()
    pair.check()


@pytest.mark.parametrize("side", ["bids", "asks"])
@pytest.mark.parametrize("place", range(5))
@both_lv1
def test_one_price_anywhere_in_the_lv1_book_is_enough(order, place, side):
    levels = [("0", "0")] * place + [("100", "10.00")]
    pair = Pair()
    feed(pair, "quotes", *[wire.quote(price="10", amount="100000", volume="10000", order=order, **{side: levels})] * 3)
    assert state(pair, "quotes") == (order, "detected")


@pytest.mark.parametrize(
    ("amount", "volume", "decides"),
    [("124900", "10000", True), ("125100", "10000", False), ("75100", "10000", True), ("74900", "10000", False)],
)
@both_lv1
def test_lv1_fits_within_a_quarter_of_the_price(order, amount, volume, decides):
    pair = Pair()
    bids, asks = wire.book(10, 5)
    record = wire.quote(price="10.00", amount=amount, volume=volume, bids=bids, asks=asks, order=order)
    feed(pair, "quotes", *[record] * 3)
    assert state(pair, "quotes") == ((order, "detected") if decides else ("amount_first", "default"))


@pytest.mark.parametrize("price", ["1.021", "1.05", "0.979", "0.95", "1.2", "0.85"])
@both_lv1
def test_lv1_near_one_goes_to_the_nearer_order(order, price):
    bids, asks = wire.book(float(price), 5, tick=0.001)
    amount = f"{round(float(price) * 10_000_000)}"
    record = wire.quote(price=price, amount=amount, volume="10000000", bids=bids, asks=asks, order=order)
    pair = Pair()
    feed(pair, "quotes", *[record] * 3)
    assert state(pair, "quotes") == (order, "detected")


def test_lv1_ratio_within_two_percent_of_one_decides_nothing():
    bids, asks = wire.book(1.03, 5, tick=0.001)
    pair = Pair()
    for amount, decides in (("10190000", False), ("9810000", False), ("10210000", True)):
        feed(pair, "quotes", *[wire.quote(price="1.03", amount=amount, volume="10000000", bids=bids, asks=asks)] * 3)
        assert state(pair, "quotes")[1] == ("detected" if decides else "default")


def test_a_row_whose_only_fault_is_a_fraction_where_the_volume_should_be_votes():
    pair = Pair()
    records = [wire.deciding_quote(10.0, 1000 + i, order="volume_first", amount=10_000.25 + i) for i in range(5)]
    published = feed(pair, "quotes", *records)
    assert state(pair, "quotes") == ("volume_first", "detected")
    assert published["volume"].tolist() == [1002, 1003, 1004]
    assert published["amount"].tolist() == [10_002.25, 10_003.25, 10_004.25]
    assert pair.decoder.stats()["bad_volume"] == 2
    pair.check()
    bids, asks = wire.book(10, 10)
    pair = Pair()
    published = feed(
        pair,
        "depths",
        *[wire.depth(price="10.00", bids=bids, asks=asks, order="volume_first", volume=str(i)) for i in range(5)],
    )
    assert state(pair, "depths") == ("volume_first", "detected")
    assert published["volume"].tolist() == [2, 3, 4]
    assert published["bid_price"][0].tolist() == [float(price) for _, price in bids]
    assert pair.decoder.stats()["bad_volume"] == 2
    pair.check()


@pytest.mark.parametrize("fault", [(0, b"9:30"), (2, b"1O.00"), (3, b"x"), (7, b"1.2.3"), (25, b"-"), (4, b"1=")])
@both_lv1
def test_bad_lv1_rows_do_not_vote(order, fault):
    pair = Pair()
    at, wrong = fault
    for serial in range(5):
        fields = deciding("quotes", order, serial).split(b",")
        fields[at] = wrong
        feed(pair, "quotes", b",".join(fields))
    feed(pair, "quotes", *[b",".join(deciding("quotes", order, s).split(b",")[:-1]) for s in range(5)])
    assert state(pair, "quotes") == ("amount_first", "default")
    assert pair.decoder.stats()["bad"] == 10
    pair.check()


@pytest.mark.parametrize(
    "fault", [(0, b"24:00:00"), (2, b""), (2, b"ten"), (3, b"+1"), (4, b"."), (30, b"1 "), (45, b"=")]
)
@both_lv10
def test_bad_lv10_rows_do_not_vote(order, fault):
    pair = Pair()
    at, wrong = fault
    for serial in range(5):
        fields = deciding("depths", order, serial).split(b",")
        fields[at] = wrong
        feed(pair, "depths", b",".join(fields))
    assert state(pair, "depths") == ("price_first", "default")
    pair.check()


def test_a_quantity_beyond_int64_costs_its_row_but_not_the_vote():
    bids, asks = wire.book(10, 10)
    bids[3] = ("9223372036854775808", bids[3][1])
    pair = Pair()
    feed(pair, "depths", *[wire.depth(price="10.00", bids=bids, asks=asks, volume=str(i)) for i in range(3)])
    assert state(pair, "depths") == ("price_first", "detected")
    assert pair.decoder.stats()["bad_volume"] == 3
    pair.check()


@pytest.mark.parametrize("level", ["quotes", "depths"])
def test_a_fraction_where_both_orders_want_a_whole_number_is_no_vote(level):
    pair = Pair()
    for serial in range(5):
        fields = deciding(level, "volume_first", serial).split(b",")
        fields[6 if level == "quotes" else 5] = b"100.5"
        feed(pair, level, b",".join(fields))
    assert state(pair, level) == (default(level), "default")
    assert pair.decoder.stats()["bad_volume"] == 5
    pair.check()


@both_lv1
def test_a_contradicting_lv1_row_that_is_bad_under_the_settled_order_is_bad(order):
    pair = Pair()
    feed(pair, "quotes", *[deciding("quotes", order, serial) for serial in range(3)])
    contrary = wire.deciding_quote(10.0, 1000, order=other("quotes", order), amount=10_000.25)
    assert len(feed(pair, "quotes", contrary)) == 0
    assert pair.decoder.stats()["bad_volume"] == 1
    assert pair.decoder.stats()["order_unsure"] == 0
    assert state(pair, "quotes") == (order, "detected")
    pair.check()


def lv10_blocks(blocks, price="100"):
    """An lv10 record of four blocks of ten."""
    head = ["09:30:00", "N", price, "99", "1000000", "10000"]
    return ",".join([*head, *[str(number) for block in blocks for number in block]]).encode()


def undecided_depths():
    yield "empty book", [ZERO, ZERO, ZERO, ZERO]
    yield "both orders fit", [BIDS, BIDS, ASKS, ASKS]
    yield "no order fits", [SMALL, SMALL, SMALL, SMALL]
    yield "quantities only, first", [SMALL, ZERO, SMALL, ZERO]
    yield "zero before a price", [[0, *BIDS[1:]], SMALL, ASKS, SMALL]
    yield "zero among prices", [[99, 98, 0, 96, *ZERO[4:]], SMALL, ASKS, SMALL]
    yield "two equal bids", [[99, 99, *BIDS[2:]], SMALL, ASKS, SMALL]
    yield "two equal asks", [BIDS, SMALL, [101, 101, *ASKS[2:]], SMALL]
    yield "bids rising", [BIDS[::-1], SMALL, ASKS, SMALL]
    yield "asks falling", [BIDS, SMALL, ASKS[::-1], SMALL]
    yield "bids below half", [[99, 49, *ZERO[2:]], SMALL, ASKS, SMALL]
    yield "asks above double", [BIDS, SMALL, [101, 201, *ZERO[2:]], SMALL]
    yield "negative price", [[99, -98, *ZERO[2:]], SMALL, ASKS, SMALL]


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("blocks", [pytest.param(case[1], id=case[0]) for case in undecided_depths()])
def test_lv10_rows_that_can_not_decide_leave_the_order_open(blocks, swapped):
    if swapped:
        blocks = [blocks[1], blocks[0], blocks[3], blocks[2]]
    pair = Pair()
    published = feed(pair, "depths", *[lv10_blocks(blocks)] * 6)
    assert len(published) == 6
    assert not (published["flags"] & oracle.ORDER_UNSURE).any()
    assert state(pair, "depths") == ("price_first", "default")
    feed(pair, "depths", *[deciding("depths", "volume_first", serial) for serial in range(3)])
    published = feed(pair, "depths", lv10_blocks(blocks))
    assert not (published["flags"] & oracle.ORDER_UNSURE).any()
    pair.check()


@pytest.mark.parametrize("price", ["0", "0.00", "", "-100"])
def test_lv10_rows_without_a_price_decide_nothing(price):
    pair = Pair()
    feed(pair, "depths", *[lv10_blocks([SMALL, BIDS, SMALL, ASKS], price)] * 5)
    assert state(pair, "depths") == ("price_first", "default")
    pair.check()


def deciding_depths():
    yield "full book", [BIDS, SMALL, ASKS, SMALL]
    yield "one bid", [[99, *ZERO[1:]], [5, *ZERO[1:]], ZERO, ZERO]
    yield "one ask", [ZERO, ZERO, [101, *ZERO[1:]], [5, *ZERO[1:]]]
    yield "limit up: bids only", [BIDS, SMALL, ZERO, ZERO]
    yield "limit down: asks only", [ZERO, ZERO, ASKS, SMALL]
    yield (
        "half a book",
        [[*BIDS[:5], *ZERO[5:]], [*SMALL[:5], *ZERO[5:]], [*ASKS[:3], *ZERO[3:]], [*SMALL[:3], *ZERO[3:]]],
    )
    yield "at half and double", [[99, 50, *ZERO[2:]], SMALL, [101, 200, *ZERO[2:]], SMALL]


@both_lv10
@pytest.mark.parametrize("blocks", [pytest.param(case[1], id=case[0]) for case in deciding_depths()])
def test_lv10_rows_that_decide(blocks, order):
    if order == "volume_first":
        blocks = [blocks[1], blocks[0], blocks[3], blocks[2]]
    pair = Pair()
    published = feed(pair, "depths", *[lv10_blocks(blocks)] * 4)
    assert state(pair, "depths") == (order, "detected")
    last = published[-1]
    prices = [blocks[0], blocks[2]] if order == "price_first" else [blocks[1], blocks[3]]
    assert [last["bid_price"].tolist(), last["ask_price"].tolist()] == prices
    pair.check()


def test_the_settling_row_takes_effect_within_its_message():
    pair = Pair()
    records = [wire.deciding_quote(10.0, 1000 + i, order="volume_first", amount=10_000 + 10 * i) for i in range(6)]
    rows = [
        wire.row("quotes", code, record) for code, record in zip(["1", "2", "3", "1", "2", "3"], records, strict=True)
    ]
    pair.decode(wire.message(*rows), MORNING)
    assert pair.decoder.quotes.last(6)["volume"].tolist() == [10_000, 10_010, 1002, 1003, 1004, 1005]


def test_a_message_that_does_not_inflate_has_no_vote():
    pair = Pair()
    text = wire.row("quotes", "600519", *[deciding("quotes", "volume_first", serial) for serial in range(3)])
    pair.decode(wire.deflate(text)[:-1], MORNING)
    assert state(pair, "quotes") == ("amount_first", "default")


def test_unknown_orders_are_refused():
    from jvq_fast.decoder import Decoder

    for wrong in ("volume", "price_first", "", None, "AUTO"):
        with pytest.raises((ValueError, TypeError)):
            Decoder(lv1_order=wrong)
    for wrong in ("amount_first", "x", None):
        with pytest.raises((ValueError, TypeError)):
            Decoder(lv10_order=wrong)


@wire.examples(3)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(CASES),
            st.booleans(),  # whole numbers both ways, or as the market writes them
            st.integers(0, 12),
        ),
        max_size=30,
    ),
    st.sampled_from(["auto", *LV1]),
    st.sampled_from(["auto", *LV10]),
)
def test_any_sequence_of_votes_agrees_with_the_oracle(steps, lv1, lv10):
    pair = Pair(lv1_order=lv1, lv10_order=lv10)
    for serial, ((level, order), whole, event) in enumerate(steps):
        if event == 0:
            pair.decoder.connected()
            pair.oracle.connected()
        if whole:
            record = deciding(level, order, serial)
        elif level == "quotes":
            record = wire.deciding_quote(12.34, 1000 + serial, order=order, amount=12_340.25)
        else:
            record = wire.deciding_depth(12.34, order=order)
        feed(pair, level, record)
        state(pair, level)
    pair.check()
