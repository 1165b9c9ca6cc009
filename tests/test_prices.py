"""What a feed says of prices to whoever trades on them: exact, the newest, from any thread."""

import datetime as dt
import threading
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import jvq_fast as jvq
from jvq_fast.decoder import Decoder
from jvq_fast.prices import Prices
from jvq_fast.records import Flag
from jvq_fast.trade.model import SHANGHAI
from wire import MORNING, SECOND, depth, message, quote, row, trade, trades
from ws_script import TOKEN

D = Decimal
CODE = "600519"
WAIT = 20


def feed(**settings: int) -> jvq.Feed:
    return jvq.Feed(TOKEN, ["lv1_600519"], server="127.0.0.1:1", **settings)  # type: ignore[arg-type]


def prices(*rows: bytes, recv: int = MORNING, decoder: Decoder | None = None) -> Prices:
    decoder = decoder or Decoder()
    decoder.decode(message(*rows), recv)
    return Prices(decoder, lambda: recv)


def test_a_feed_is_a_market() -> None:
    here = feed()
    market: jvq.Market = here
    assert (market.last(CODE), market.age(CODE), market.name(CODE), market.limits(CODE)) == (None, None, "", None)
    assert here.exchange_time() is None
    here.decoder.decode(
        message(
            row("quotes", CODE, quote("09:29:58", price="1680.55", change="1.00")),
            row("depths", CODE, depth("09:29:59", price="1680.57", last_close="1663.90")),
            trades(CODE, trade("09:30:00.120", 1, "1680.56")),
        ),
        MORNING,
    )
    assert market.last(CODE) == D("1680.56")
    assert market.name(CODE) == "贵州茅台"
    assert market.limits(CODE) == (D("1497.51"), D("1830.29"))
    assert here.exchange_time() == dt.datetime(2023, 2, 1, 9, 30, 0, 120_000, tzinfo=SHANGHAI)
    age = market.age(CODE)
    assert age is not None
    assert age > 0


@pytest.mark.parametrize("level", ["trades", "quotes", "depths"])
def test_the_newest_record_of_any_level_tells_the_price(level: str) -> None:
    decoder = Decoder()
    builders = {
        "trades": lambda price: trades(CODE, trade(price=price)),
        "quotes": lambda price: row("quotes", CODE, quote(price=price)),
        "depths": lambda price: row("depths", CODE, depth(price=price)),
    }
    for other, build in builders.items():
        if other != level:
            prices(build("10.00"), decoder=decoder)
    assert prices(builders[level]("10.01"), decoder=decoder).last(CODE) == D("10.01")
    for other, build in builders.items():
        if other != level:
            assert prices(build("9.99"), decoder=decoder).last(CODE) == D("9.99")


def test_a_price_of_0_is_none() -> None:
    """Halted, or a cancellation in the stream of trades."""
    assert prices(trades(CODE, trade(price="0"))).last(CODE) is None
    found = prices(row("quotes", CODE, quote(price="10.00")), trades(CODE, trade(price="0.00")))
    assert found.last(CODE) == 10
    assert found.age(CODE) == 0
    assert prices(row("quotes", CODE, quote(price="0"))).limits(CODE) is None
    assert prices(row("depths", CODE, depth(price="0", last_close="0"))).limits(CODE) is None


def test_a_trade_of_price_0_does_not_hide_the_trades_before_it() -> None:
    assert prices(trades(CODE, trade(number=1, price="10.00"), trade(number=2, price="0"))).last(CODE) == 10


def test_codes_are_kept_apart() -> None:
    found = prices(trades(CODE, trade(price="10.00")), trades("000001", trade(price="20.00")))
    assert (found.last(CODE), found.last("000001"), found.last("000002")) == (10, 20, None)
    assert found.age("000002") is None
    assert found.limits("000002") is None


@given(st.integers(1, 10**9), st.integers(0, 4))
def test_prices_are_the_decimals_that_were_sent(number: int, digits: int) -> None:
    text = f"{D(number).scaleb(-digits):f}"
    assert prices(trades(CODE, trade(price=text))).last(CODE) == D(text)
    assert prices(row("quotes", CODE, quote(price=text, change="0.00"))).last(CODE) == D(text)


def test_age_is_since_the_latest_arrival() -> None:
    decoder = Decoder()
    now = MORNING
    found = Prices(decoder, lambda: now)
    decoder.decode(message(row("quotes", CODE, quote())), MORNING)
    decoder.decode(message(trades(CODE, trade())), MORNING + 2 * SECOND)
    now = MORNING + 5 * SECOND
    assert found.age(CODE) == 3.0
    now = MORNING - SECOND  # a clock that was set back
    assert found.age(CODE) == 0.0


def test_a_stale_snapshot_is_as_old_as_it_says() -> None:
    """After a subscription the first push may be the last one of the day before."""
    decoder = Decoder()
    friday = row("quotes", CODE, quote("15:00:00", price="10.00"))
    monday = MORNING + 5 * 86_400 * SECOND - 600 * SECOND  # 09:20
    decoder.decode(message(friday), monday)
    found = Prices(decoder, lambda: monday)
    assert decoder.quotes.copy_since(0)[0]["flags"][0] & Flag.STALE
    age = found.age(CODE)
    assert age is not None
    assert age > 3600
    decoder.decode(message(trades(CODE, trade("09:20:00.000", price="10.50"))), monday)
    assert found.age(CODE) == 0.0


def test_a_stale_snapshot_that_comes_late_is_not_the_last_price() -> None:
    decoder = Decoder()
    decoder.decode(message(trades(CODE, trade("09:30:00.000", price="10.50"))), MORNING)
    decoder.decode(message(row("quotes", CODE, quote("09:10:00", price="10.00"))), MORNING)
    assert Prices(decoder, lambda: MORNING).last(CODE) == D("10.50")


def test_the_limits_of_the_day_before_are_not_todays() -> None:
    decoder = Decoder()
    decoder.decode(message(row("depths", CODE, depth("15:00:00", price="11.00", last_close="10.00"))), MORNING)
    found = Prices(decoder, lambda: MORNING)
    decoder.decode(message(trades(CODE, trade("09:30:00.000", price="11.10"))), MORNING)
    assert found.limits(CODE) is None
    decoder.decode(message(row("depths", CODE, depth("09:30:00", price="11.10", last_close="11.00"))), MORNING)
    assert found.limits(CODE) == (D("9.90"), D("12.10"))


def test_exchange_time_is_the_latest_and_old_records_do_not_turn_it_back() -> None:
    decoder = Decoder()
    found = Prices(decoder, lambda: MORNING)
    assert found.exchange_time() is None
    decoder.decode(message(trades(CODE, trade("09:29:59.500"))), MORNING)
    decoder.decode(message(row("quotes", CODE, quote("09:29:57"))), MORNING)
    latest = dt.datetime(2023, 2, 1, 9, 29, 59, 500_000, tzinfo=SHANGHAI)
    assert found.exchange_time() == latest
    decoder.decode(message(trades("000001", trade("15:00:00.000"))), MORNING)  # yesterday's
    assert found.exchange_time() == latest
    decoder.decode(message(row("depths", CODE, depth("09:30:00"))), MORNING)
    told = found.exchange_time()
    assert told == dt.datetime(2023, 2, 1, 9, 30, tzinfo=SHANGHAI)
    assert told is not None
    assert told.utcoffset() == dt.timedelta(hours=8)


def test_limits_prefer_the_close_of_lv10_to_the_change_of_lv1() -> None:
    decoder = Decoder()
    decoder.decode(message(row("quotes", CODE, quote(price="100.00", change="0.00"))), MORNING)
    wide = Prices(decoder, lambda: MORNING).limits(CODE)
    assert wide == (D("90.00"), D("110.00"))
    decoder.decode(message(row("quotes", CODE, quote(price="1000.00", change="0.00"))), MORNING)
    wide = Prices(decoder, lambda: MORNING).limits(CODE)
    assert wide == (D("899.96"), D("1100.06"))  # closes from 999.95 to 1,000.05 could be it; 899.955, 1100.055
    decoder.decode(message(row("depths", CODE, depth(price="1000.00", last_close="1000.01"))), MORNING)
    assert Prices(decoder, lambda: MORNING).limits(CODE) == (D("900.01"), D("1100.01"))


@pytest.mark.parametrize("change", ["-100.00", "-100.01", "-99.999", "1e9"[:1] + "00000000"])
def test_a_change_that_can_not_be_gives_no_limits_or_wide_ones(change: str) -> None:
    found = prices(row("quotes", CODE, quote(price="10.00", change=change))).limits(CODE)
    if found is not None:
        assert found[0] <= found[1]


def test_an_index_has_no_limits() -> None:
    assert prices(row("depths", "i000001", depth(price="3300.12", last_close="3300.00"))).limits("i000001") is None


def test_without_histories_nothing_is_known() -> None:
    decoder = Decoder(history=0)
    found = prices(row("quotes", CODE, quote()), trades(CODE, trade()), decoder=decoder)
    assert (found.last(CODE), found.age(CODE), found.limits(CODE)) == (None, None, None)
    assert found.exchange_time() is not None


def test_reading_from_other_threads_while_the_writer_runs() -> None:
    """Price, change and close of a record belong together: whatever is read is one of what was sent, whole."""
    here = feed(history=4, capacity=64)
    decoder = here.decoder
    steps = [(f"{100 + n}.00", f"{100 + n}.00") for n in range(50)]
    messages = [
        message(
            row("quotes", CODE, quote(price=price, change="0.00")),
            row("depths", CODE, depth(price=price, last_close=close)),
            trades(CODE, *[trade(number=i, price=price) for i in range(8)]),
        )
        for price, close in steps
    ]
    wanted = {D(price) for price, _ in steps}
    limits = {(D(close) * 9 / 10, D(close) * 11 / 10) for _, close in steps}
    decoder.decode(messages[0], MORNING)
    stop, faults, reads = threading.Event(), [], [0, 0, 0]

    def read(index: int) -> None:
        while not stop.is_set():
            last, band, age, now = here.last(CODE), here.limits(CODE), here.age(CODE), here.exchange_time()
            if last not in wanted or band not in limits or age is None or now is None:
                faults.append((last, band, age, now))
            reads[index] += 1

    readers = [threading.Thread(target=read, args=(index,), daemon=True) for index in range(3)]
    for reader in readers:
        reader.start()
    done = 0
    while min(reads) < 100 and done < 200_000:
        decoder.decode(messages[done % 50], MORNING)
        done += 1
    stop.set()
    for reader in readers:
        reader.join(WAIT)
        assert not reader.is_alive()
    assert faults == []
    assert min(reads) > 0
