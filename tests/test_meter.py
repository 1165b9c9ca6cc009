"""What a meter says of delays, handlers and readers, against what was made to happen."""

import functools
import math
import threading
import time

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import jvq_fast as jvq
import wire
from jvq_fast.meter import Histogram, Interval, Meter

SECOND, MS, MINUTE = 10**9, 10**6, 60 * 10**9
# A bucket is an eighth of the least value in it.
WIDTH = 1 + 1 / 8


def clock_text(at: int) -> str:
    """A time of day in Shanghai, of ns since the epoch."""
    of_day = (at + 8 * 3600 * SECOND) % (86400 * SECOND)
    seconds, rest = divmod(of_day, SECOND)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest // MS:03d}"


class Market:
    """A metered decoder, and messages that arrive as late as they are told to."""

    def __init__(self, **settings) -> None:
        self.decoder = jvq.Decoder(capacity=256, history=16, **settings)
        self.meter = self.decoder.meter = Meter()
        self.number = 0

    def trade(self, at: int, late: int, code: str = "600519") -> None:
        """One trade of `at`, `late` ns on the way; both since 09:30."""
        self.number += 1
        text = wire.trade(clock_text(wire.MORNING + at), self.number)
        self.decoder.decode(wire.message(wire.trades(code, text)), wire.MORNING + at + late)

    def quote(self, at: int, late: int, code: str = "600519", price: str = "10.00") -> None:
        text = wire.quote(clock_text(wire.MORNING + at)[:8], price=price)
        self.decoder.decode(wire.message(wire.row("quotes", code, text)), wire.MORNING + at + late)

    def counted(self, level: str = "trades") -> int:
        return self.meter.network[level].count

    def worst(self) -> float | None:
        return self.meter.take().network


@pytest.fixture
def market() -> Market:
    return Market()


# --- histograms


@given(values=st.lists(st.integers(0, 2**40 - 1), min_size=1, max_size=200), p=st.floats(0, 100))
@example(values=[0], p=50.0)
@example(values=list(range(40)), p=99.9)
def test_percentiles_are_at_most_a_bucket_above_those_of_sorted_values(values, p):
    histogram = Histogram("records")
    for value in values:
        histogram.record(value)
    exact = float(np.percentile(values, p, method="inverted_cdf"))
    assert exact <= histogram.percentile(p) <= exact * WIDTH
    assert histogram.count == len(values)
    assert histogram.max == max(values)
    assert histogram.sum == sum(values)
    assert histogram.mean == pytest.approx(sum(values) / len(values))


@given(values=st.lists(st.integers(0, 2**50), max_size=200), unit=st.sampled_from(["records", "seconds"]))
def test_buckets_have_fixed_bounds_and_every_value_below_its_own(values, unit):
    scale = 1e-9 if unit == "seconds" else 1
    histogram = Histogram(unit)
    for value in values:
        histogram.record(value * scale)
    bounds = [bound for bound, _ in histogram.buckets()]
    first = 6 if unit == "seconds" else 0
    assert bounds == [*(2**bit * scale for bit in range(first, 40)), math.inf]
    expected = dict.fromkeys(bounds, 0)
    for value in values:
        # The last but one ends where the histogram does: what is above counts in the last bucket of all.
        expected[next(bound for bound in bounds if value * scale < bound)] += 1
    counted = dict(histogram.buckets())
    assert sum(counted.values()) == histogram.count == len(values)
    assert counted == expected


@pytest.mark.parametrize("bad", [-1, -0.001, math.nan, math.inf, 2**60])
def test_a_histogram_refuses_what_is_no_count(bad):
    histogram = Histogram()
    with pytest.raises(ValueError, match=r"from 0, not"):
        histogram.record(bad)
    assert histogram.count == 0


@pytest.mark.parametrize("bad", [-1, 100.1, math.nan])
def test_a_percentile_is_from_0_to_100(bad):
    with pytest.raises(ValueError, match="from 0 to 100"):
        Histogram().percentile(bad)


def test_an_empty_histogram_is_all_zero():
    histogram = Histogram()
    assert (histogram.count, histogram.sum, histogram.max, histogram.mean, histogram.percentile(99)) == (0, 0, 0, 0, 0)
    assert sum(count for _, count in histogram.buckets()) == 0
    with pytest.raises(ValueError, match="'seconds' or 'records', not 'hours'"):
        Histogram("hours")


# --- from the exchange to us


def test_nothing_is_measured_without_a_meter():
    decoder = jvq.Decoder()
    assert decoder.meter is None
    assert decoder.trades.readers is None
    with pytest.raises(TypeError):
        decoder.meter = object()


def test_a_meter_shows_its_figures(market):
    assert repr(Meter()) == "Meter(network p99=0 s, dispatch p99=0 s, callbacks p99=0 s, calls=0, skew=unknown)"
    market.decoder.on_trades = lambda code, trades: None
    for late in (2 * SECOND, 2 * SECOND, 5 * SECOND):
        market.trade(market.number * SECOND, late)
    shown = repr(market.meter)
    assert shown.startswith("Meter(network p99=3 s, dispatch p99=")
    assert shown.endswith("calls=3, skew=2 s)")


def test_the_least_delay_is_the_skew_and_what_exceeds_it_is_lag(market):
    assert market.meter.skew is None
    for at, late in enumerate([900, 250, 300, 240, 1240]):
        market.trade(at * SECOND, late * MS)
    assert market.meter.skew == pytest.approx(0.240)
    # The first is not counted. Each is judged by what was known by then.
    assert market.counted() == 4
    lags = market.meter.network["trades"]
    assert lags.max == pytest.approx(1.0)
    assert lags.sum == pytest.approx(0 + 0.050 + 0 + 1.0)
    interval = market.meter.take()
    assert interval.network == pytest.approx(1.0)
    assert interval.start < interval.network_at < interval.end
    assert market.worst() is None


@pytest.mark.parametrize("ahead", [-20 * MINUTE, -2 * SECOND, 3 * MINUTE])
def test_a_clock_that_is_off_counts_as_skew_not_as_lag(ahead):
    # "ahead" of ours: of minutes, so that the dates still fit; STALE is not what is looked at here.
    market = Market(trading_day="2023-02-01", clock="always")
    for at, late in enumerate([50, 40, 45, 60]):
        market.trade(at * SECOND, late * MS - ahead)
    assert market.meter.skew == pytest.approx(0.040 - ahead / SECOND)
    assert market.worst() == pytest.approx(0.020)


def test_the_baseline_is_of_the_last_minutes(market):
    market.trade(0, 0)
    market.trade(SECOND, 10 * MS)
    for minute in range(1, 13):
        market.trade(minute * MINUTE, 40 * MS)
        if minute <= 5:
            assert market.meter.skew == pytest.approx(0.010)
    assert market.meter.skew == pytest.approx(0.040)
    assert market.meter.network["trades"].max == pytest.approx(0.030)


def test_the_baseline_outlasts_lunch_but_no_night(market):
    market.trade(0, 0)
    market.trade(SECOND, 10 * MS)
    market.trade(90 * MINUTE, 2000 * MS)
    assert market.worst() == pytest.approx(1.990)
    market.trade(90 * MINUTE + 4 * 3600 * SECOND, 5000 * MS)
    assert market.worst() == 0.0
    assert market.meter.skew == pytest.approx(5.0)


@pytest.mark.parametrize("level", ["trades", "quotes"])
def test_what_comes_first_for_a_code_is_not_counted(market, level):
    send = getattr(market, level[:-1])
    send(0, 0)
    send(SECOND, 100 * MS, "000001")
    assert market.counted(level) == 0
    assert market.meter.skew is None
    send(2 * SECOND, 100 * MS)
    send(3 * SECOND, 100 * MS, "000001")
    assert market.counted(level) == 2
    # as old as the server likes, and no lag
    market.decoder.resume()
    send(4 * SECOND, 300 * SECOND)
    assert market.counted(level) == 2
    assert market.worst() == pytest.approx(0)
    send(5 * SECOND, 200 * MS)
    assert market.counted(level) == 3
    # subscribing once more makes the server send its last snapshot again
    market.decoder.reserve([{"trades": "lv2", "quotes": "lv1"}[level] + "_600519"])
    send(6 * SECOND, 300 * SECOND)
    assert market.counted(level) == 3


def test_all_records_of_a_codes_first_message_are_passed_over(market):
    row = wire.trades("600519", wire.trade("09:29:00.000", 1), wire.trade("09:30:00.000", 2))
    market.decoder.decode(wire.message(row, row), wire.MORNING)
    assert market.counted() == 0


def test_repeats_stale_records_and_those_without_arrival_are_not_counted(market):
    market.quote(0, 0)
    market.quote(3 * SECOND, 100 * MS)
    assert market.counted("quotes") == 1
    market.quote(3 * SECOND, 4 * SECOND)
    assert market.decoder.stats()["repeats"] == 1
    market.quote(6 * SECOND, 601 * SECOND)
    assert market.decoder.stats()["stale"] == 1
    market.decoder.decode(wire.message(wire.row("quotes", "600519", wire.quote("09:30:09"))))
    assert market.decoder.stats()["no_date"] == 1
    assert market.counted("quotes") == 1
    assert market.worst() == 0


def test_codes_without_an_entry_are_not_judged():
    market = Market(max_codes=1)
    for at in range(3):
        market.trade(at * SECOND, 0)
        market.trade(at * SECOND, at * SECOND, "000001")
    assert market.decoder.stats()["tape_only"] == 3
    assert market.counted() == 2


@pytest.mark.parametrize("jump", [61 * MINUTE, -61 * MINUTE, 24 * 60 * MINUTE, -24 * 60 * MINUTE])
def test_a_jump_of_hours_begins_a_new_baseline(jump):
    market = Market(trading_day="2023-02-01", clock="always")
    for at in range(3):
        market.trade(at * SECOND, 40 * MS)
    market.trade(3 * SECOND, 40 * MS + jump)
    market.trade(4 * SECOND, 90 * MS + jump)
    assert market.meter.network["trades"].max == pytest.approx(0.050)
    assert market.meter.skew == pytest.approx(0.040 + jump / SECOND)


@pytest.mark.parametrize("usual", [True, False])
def test_trades_of_one_moment_count_as_one_by_one(usual):
    """A run of trades that are read at once, and one that a trade of another form breaks."""
    market = Market(clock="always")
    market.trade(0, 0)
    market.trade(SECOND, 40 * MS)
    late = 61 * MINUTE
    volume = "100" if usual else "100.00"
    texts = [wire.trade(clock_text(wire.MORNING + 2 * SECOND), n, volume=volume) for n in range(10, 15)]
    market.decoder.decode(wire.message(wire.trades("600519", *texts)), wire.MORNING + 2 * SECOND + late)
    assert market.counted() == 1 + 4  # the first one shows the jump, and is none of them
    assert market.worst() == 0.0


def test_a_server_that_begins_its_day_again_after_a_reconnect_is_not_late():
    market = Market(trading_day="2023-02-01", clock="always")
    market.trade(30 * MINUTE, 40 * MS)
    market.trade(30 * MINUTE + SECOND, 40 * MS)
    market.decoder.resume()
    for at in range(3):
        market.trade(at * SECOND, 30 * MINUTE)
    assert market.counted() == 3
    assert market.meter.network["trades"].max == 0
    assert market.meter.skew == 30 * 60


def test_what_the_network_held_back_over_a_reconnect_is_late(market):
    market.trade(0, 40 * MS)
    market.trade(SECOND, 40 * MS)
    market.decoder.resume()
    market.trade(2 * SECOND, 40 * MS)
    market.trade(3 * SECOND, 5040 * MS)
    assert market.worst() == pytest.approx(5.0)


def test_times_that_run_faster_than_ours_are_no_lag():
    market = Market(trading_day="2023-02-01", clock="always")
    for step in range(200):
        market.trade(step * 10 * SECOND, -step * 9 * SECOND)
    assert market.counted() == 199
    assert market.meter.network["trades"].max == 0


@pytest.mark.parametrize("recv", [1, -1, 2**63 - 1, -(2**63), 2**62])
def test_no_arrival_is_too_far_to_be_reckoned_with(recv):
    market = Market(trading_day="2023-02-01", clock="always")
    for at in range(3):
        market.trade(at * SECOND, 0)
        market.number += 1
        text = wire.trade("09:30:00.000", market.number)
        market.decoder.decode(wire.message(wire.trades("600519", text)), recv)
    assert market.decoder.stats()["trades"] == 6
    assert market.meter.network["trades"].max == 0


def test_a_message_is_as_late_as_its_newest_record(market):
    market.trade(0, 0)
    market.trade(SECOND, 0)
    old, new = wire.trade("09:30:02.000", 10), wire.trade("09:30:58.000", 11)
    market.decoder.decode(wire.message(wire.trades("600519", old, new)), wire.MORNING + MINUTE)
    assert market.worst() == pytest.approx(2.0)
    assert market.meter.network["trades"].max == pytest.approx(58.0)


def test_levels_have_their_own_baselines(market):
    for at in range(0, 9, 3):
        market.trade(at * SECOND, 40 * MS)
        market.quote(at * SECOND, 700 * MS, price=f"1{at}.00")
    assert market.counted("trades") == market.counted("quotes") == 2
    assert market.counted("depths") == 0
    assert market.worst() == pytest.approx(0)
    assert market.meter.skew == pytest.approx(0.040)


# --- handlers


def sleeps(seconds: float):
    def handler(*_: object) -> None:
        time.sleep(seconds)

    return handler


def test_a_slow_handler_is_measured_and_named(market):
    class Strategy:
        def on_tick(self, code, trades):
            if code == "000001":
                time.sleep(0.05)

    market.decoder.on_trades = [lambda code, trades: None, Strategy().on_tick]
    for code in ("600519", "000001", "600036"):
        market.trade(0, 0, code)
    interval = market.meter.take()
    assert isinstance(interval, Interval)
    assert interval.slowest_handler == f"{__name__}.{Strategy.on_tick.__qualname__}"
    assert (interval.slowest_where, interval.slowest_code) == ("on_trades", "000001")
    assert 0.05 <= interval.slowest <= interval.callbacks <= interval.end - interval.start
    assert interval.calls == 6
    assert market.meter.callbacks.count == 6
    assert market.meter.callbacks.max == interval.slowest
    empty = market.meter.take()
    assert (empty.calls, empty.callbacks, empty.slowest, empty.slowest_handler) == (0, 0, 0, "")
    assert empty.start == interval.end


class Callable:
    def __call__(self, *_: object) -> None:
        time.sleep(0.001)


class Nameless(Callable):
    def __getattr__(self, name: str) -> None:
        raise RuntimeError("looked at")


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (Callable(), f"{__name__}.Callable"),
        (functools.partial(functools.partial(Callable()), 1), f"{__name__}.Callable"),
        (functools.partial(sleeps(0.001), 1), f"{__name__}.sleeps.<locals>.handler"),
        (time.sleep, "time.sleep"),
    ],
)
def test_a_handler_is_named_whatever_it_is(market, handler, name):
    market.meter.begin_call(print, "on_gap")
    market.meter.end_call(handler, "on_gap")
    interval = market.meter.take()
    assert (interval.slowest_handler, interval.slowest_where, interval.slowest_code) == (name, "on_gap", "")


def test_a_handler_that_has_no_name_does_not_raise(market):
    market.meter.begin_call(print, "on_gap")
    market.meter.end_call(Nameless(), "on_gap")
    assert "Nameless object at" in market.meter.take().slowest_handler


def test_a_handler_that_raises_is_measured_and_so_is_who_hears_of_it(market):
    def raises(code, trades):
        time.sleep(0.02)
        raise ValueError("no")

    heard = []

    def on_error(error, where):
        heard.append(where)
        time.sleep(0.04)

    market.decoder.on_trades = raises
    market.decoder.on_error = on_error
    market.trade(0, 0)
    interval = market.meter.take()
    assert heard == ["on_trades"]
    assert (interval.slowest_where, interval.calls) == ("on_error", 2)
    assert interval.callbacks >= 0.06
    assert interval.decode < 0.02
    assert market.decoder.stats()["callback_errors"] == 1


def test_a_handler_that_ends_everything_is_measured_too(market):
    def ends(code, trades):
        time.sleep(0.02)
        raise KeyboardInterrupt

    market.decoder.on_trades = ends
    with pytest.raises(KeyboardInterrupt):
        market.trade(0, 0)
    assert market.meter.take().slowest >= 0.02
    market.decoder.on_trades = None
    market.trade(SECOND, 0)
    assert market.meter.take().calls == 0


def test_time_is_either_the_handlers_or_ours(market):
    market.decoder.on_trades = sleeps(0.03)
    market.decoder.on_batch = sleeps(0.02)
    begin = time.monotonic()
    market.trade(0, 0)
    took = time.monotonic() - begin
    interval = market.meter.take()
    assert interval.callbacks >= 0.05
    assert 0 < interval.decode < took - 0.05
    assert interval.callbacks + interval.decode <= took
    assert interval.calls == 2
    stats = market.meter.stats()
    assert stats["callback_seconds"] == pytest.approx(interval.callbacks)
    assert stats["decode_seconds"] == pytest.approx(interval.decode)


def test_a_message_waits_for_the_handlers_of_those_before_it(market):
    market.decoder.on_trades = sleeps(0.03)
    messages = [wire.message(wire.trades("600519", wire.trade(number=n))) for n in range(3)]
    slow = market.meter
    # within one message each row waits for the rows before it, and the message itself for nobody
    market.decoder.decode(wire.message(*[wire.trades(code, wire.trade()) for code in ("600519", "000001")]))
    interval = slow.take()
    assert slow.dispatch.count == 1
    assert interval.dispatch < 0.03
    assert interval.dispatch_callbacks == 0
    assert interval.dispatch_own == interval.dispatch
    for message in messages:
        market.decoder.decode_part(message)
    market.decoder.end_read()
    assert slow.dispatch.count == 4


def test_on_batch_is_the_first_to_hear_where_nobody_else_does(market):
    market.decoder.on_batch = lambda n: None
    market.trade(0, 0)
    assert market.meter.dispatch.count == 1
    market.decoder.on_trades = lambda code, trades: None
    market.trade(SECOND, 0)
    assert market.meter.dispatch.count == 2
    assert market.meter.callbacks.count == 3


def test_a_large_message_is_dispatched_in_parts_and_measured_once():
    market = Market()
    market.decoder.on_trades = sleeps(0.005)
    market.decoder.decode(wire.message(*[wire.trades("600519", wire.trade(number=n)) for n in range(200)]))
    assert market.decoder.stats()["trades"] == 200
    assert market.meter.dispatch.count == 1
    interval = market.meter.take()
    assert interval.calls == 200
    assert interval.callbacks >= 1.0
    assert interval.dispatch < 0.5
    assert interval.decode < 0.5


def test_what_a_feed_calls_itself_is_a_handlers_time_and_not_twice(market):
    def gap(recv_ns):
        market.meter.begin_call(print, "on_gap")
        time.sleep(0.03)
        market.meter.end_call(gap, "on_gap")

    def outer(code, trades):
        market.meter.begin_call(print, "on_gap")
        time.sleep(0.02)
        market.meter.end_call(outer, "on_connect")

    market.decoder.first_record = gap
    market.decoder.on_trades = outer
    begin = time.monotonic()
    market.trade(0, 0)
    took = time.monotonic() - begin
    interval = market.meter.take()
    assert interval.calls == 2
    assert (interval.slowest_where, interval.slowest) == ("on_gap", pytest.approx(0.03, abs=0.02))
    assert 0.05 <= interval.callbacks <= took
    assert interval.dispatch >= 0.03
    assert interval.dispatch_callbacks >= 0.03
    assert interval.dispatch_own < 0.03
    assert interval.decode < 0.03


def test_a_handler_does_not_change_the_meter(market):
    refused = []

    def handler(code, trades):
        try:
            market.decoder.meter = None
        except RuntimeError as error:
            refused.append(str(error))

    market.decoder.on_trades = handler
    market.trade(0, 0)
    assert refused == ["this decoder is at work: a handler must not change its meter"]
    market.decoder.meter = None
    market.trade(SECOND, 0)
    assert market.meter.callbacks.count == 1


def test_decoding_with_a_meter_publishes_the_same(market):
    plain = jvq.Decoder(capacity=256, history=16)
    seen = {decoder: [] for decoder in (plain, market.decoder)}
    for decoder, calls in seen.items():
        decoder.on_trades = lambda code, trades, calls=calls: calls.append((code, trades.tobytes()))
        for n in range(300):
            row = wire.trades("600519", wire.trade(number=n), b"nonsense", wire.trade(number=-n))
            decoder.decode(wire.message(row, wire.row("quotes", "600519", wire.quote())), wire.MORNING + n)
    assert seen[plain] == seen[market.decoder] != []
    assert plain.stats() == market.decoder.stats()
    for level in ("trades", "quotes"):
        expected, measured = getattr(plain, level).last(256), getattr(market.decoder, level).last(256)
        assert expected.tobytes() == measured.tobytes() != b""


# --- readers


def test_a_readers_distance_is_what_it_asked_for(market):
    for n in range(300):
        market.trade(n * MS, 0)
    tape = market.decoder.trades
    for ask in (tape.since, tape.copy_since):
        for cursor in (300, 299, 200, 0):
            ask(cursor)
    distances = market.meter.readers["trades"]
    assert distances is tape.readers
    assert (distances.count, distances.max, distances.sum) == (8, 300, 2 * (0 + 1 + 100 + 300))
    assert market.meter.readers["quotes"].count == 0
    assert market.meter.stats()["lag_readers_max"] == 300
    with pytest.raises(ValueError, match="outside this ring"):
        tape.since(301)
    assert distances.count == 8
    market.decoder.meter = None
    tape.since(0)
    assert distances.count == 8


def test_many_readers_are_counted_one_by_one(market):
    # Copies of more than 64 KiB let other threads in while they run.
    decoder = market.decoder = jvq.Decoder(capacity=4096, history=0)
    decoder.meter = market.meter
    row = wire.trades("600519", *[wire.trade(number=n) for n in range(500)])
    for _ in range(9):
        decoder.decode(wire.message(row))

    def read():
        for _ in range(300):
            decoder.trades.copy_since(4500 - 2000)
            decoder.trades.copy_since(4500)

    threads = [threading.Thread(target=read, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    distances = market.meter.readers["trades"]
    assert (distances.count, distances.sum) == (4 * 600, 4 * 300 * 2000)


def test_figures_are_read_from_another_thread_while_it_decodes():
    market = Market()
    market.decoder.on_trades = lambda code, trades: None
    done = threading.Event()
    seen, failed = [], []

    def look():
        try:
            while not done.is_set():
                stats = market.meter.stats()
                count = market.meter.callbacks.count
                assert sum(n for _, n in market.meter.callbacks.buckets()) >= count
                assert stats["lag_callback_p50_us"] <= stats["lag_callback_p99_us"]
                seen.append(count)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    step = 0
    while time.monotonic() < deadline and (len(seen) < 200 or step < 2000):
        market.trade(step * MS, 0)
        step += 1
    done.set()
    thread.join(30)
    assert not thread.is_alive()
    assert failed == []
    assert seen == sorted(seen)
    assert len(seen) >= 200
    assert market.meter.callbacks.count == step


def test_stats_have_the_same_names_before_and_after_data(market):
    before = market.meter.stats()
    assert set(before.values()) <= {0, ""}
    for at in range(3):
        market.trade(at * SECOND, (40 + 10 * at) * MS)
    market.meter.take()
    after = market.meter.stats()
    assert before.keys() == after.keys()
    assert after["clock_skew_ms"] == 50
    assert after["lag_network_max_us"] == after["lag_network_now_us"] == 10_000


def test_what_is_no_message_begins_no_read(market):
    with pytest.raises(TypeError):
        market.decoder.decode(5, 1)
    market.meter.begin_call(print, "on_text")
    market.meter.end_call(print, "on_text")
    assert market.meter.stats()["decode_seconds"] == 0
