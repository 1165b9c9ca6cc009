"""Whose fault a lag is, by scripted intervals."""

import dataclasses
import tracemalloc

import pytest

from jvq_fast.events import Lag
from jvq_fast.lag import Judge
from jvq_fast.meter import Interval

SLOW = {"slowest_where": "on_trades", "slowest_handler": "my_strategy.on_tick", "slowest_code": "600519", "calls": 1}


class Seconds:
    """A judge, and intervals that follow each other; each lasts a second where nothing else is said."""

    def __init__(self, **settings: float) -> None:
        self.judge = Judge(**settings)
        self.now = 1000.0

    def look(
        self, *, lasts: float = 1.0, ago: float = 0.0, lateness: float = 0.0, waiting: int = 0, **seen
    ) -> list[Lag]:
        """`ago`: how long before the end of the interval its late message was read."""
        start, self.now = self.now, self.now + lasts
        if "network" in seen:
            seen["network_at"] = self.now - ago
        interval = Interval(start, self.now, **seen)
        return self.judge.look(interval, lateness=lateness, waiting=waiting, room=4_200_000)

    def quiet(self, seconds: int = 1) -> None:
        for _ in range(seconds):
            assert self.look(network=0.0) == []


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.mark.parametrize("name", ["max_network_lag", "max_feed_lag", "max_callback_time"])
@pytest.mark.parametrize("value", [0, -1.0, float("nan")])
def test_a_threshold_is_above_zero(name, value):
    with pytest.raises(ValueError, match=f"{name} is a time in seconds above 0"):
        Judge(**{name: value})


def test_nothing_is_told_below_the_thresholds(seconds):
    seconds.quiet(3)
    for _ in range(3):
        assert seconds.look(network=3.0, dispatch=0.25, dispatch_own=0.25, slowest=0.1, lateness=0.25, **SLOW) == []


# --- the network


def test_late_data_is_the_networks_while_we_were_idle(seconds):
    seconds.quiet(10)
    (lag,) = seconds.look(network=4.2, callbacks=0.1, decode=0.05)
    assert (lag.fault, lag.seconds, lag.threshold) == ("network", 4.2, 3.0)
    assert lag.detail.startswith("data arrived 4.200 s late: 0.100 s of that time went into handlers, 0.050 s into")


def test_late_data_is_the_callbacks_that_did_not_let_us_read(seconds):
    seconds.quiet(5)
    # The handler ends, the timer comes before the next read.
    (first,) = seconds.look(lasts=5.1, callbacks=5.0, slowest=5.0, lateness=5.0, **SLOW)
    assert (first.fault, first.seconds) == ("callback", 5.0)
    (second,) = seconds.look(network=4.9, ago=0.99)
    assert (second.fault, second.seconds, second.threshold) == ("callback", 4.9, 3.0)
    assert "my_strategy.on_tick took 5.000 s for 600519" in second.detail


def test_late_data_is_the_callbacks_within_one_interval(seconds):
    # The late message is read before the timer comes.
    lags = seconds.look(lasts=5.2, callbacks=5.0, slowest=5.0, lateness=4.9, network=4.8, ago=0.1, **SLOW)
    assert [lag.fault for lag in lags] == ["callback", "callback"]
    assert [lag.threshold for lag in lags] == [3.0, 0.1]


def test_many_quick_calls_can_be_to_blame(seconds):
    for _ in range(5):
        assert seconds.look(network=1.0, callbacks=0.9, calls=9000, slowest=0.001) == []
    (lag,) = seconds.look(network=3.5, callbacks=0.9, calls=9000, slowest=0.001)
    assert lag.fault == "callback"


@pytest.mark.parametrize("ours", [{"decode": 0.9}, {"lateness": 0.9}, {"decode": 0.4, "lateness": 0.9}])
def test_late_data_is_the_feeds_while_it_was_busy_or_its_loop_stalled(ours):
    seconds = Seconds(max_feed_lag=10.0)
    for _ in range(5):
        assert seconds.look(network=1.0, **ours) == []
    (lag,) = seconds.look(network=3.5, **ours)
    assert lag.fault == "feed"


def test_handlers_and_feed_together_are_blamed_on_the_larger_part(seconds):
    for callbacks, decode, fault in [(0.4, 0.3, "callback"), (0.3, 0.4, "feed"), (0.2, 0.2, "network")]:
        seconds = Seconds()
        for _ in range(5):
            seconds.look(network=1.0, callbacks=callbacks, decode=decode)
        (lag,) = seconds.look(network=3.5, callbacks=callbacks, decode=decode)
        assert lag.fault == fault


def test_what_happened_after_the_late_message_came_is_not_to_blame(seconds):
    seconds.quiet(10)
    (network, callback) = seconds.look(lasts=11.0, ago=10.5, network=3.5, callbacks=10.0, slowest=10.0, **SLOW)
    assert (network.fault, callback.fault) == ("network", "callback")


def test_what_happened_long_before_is_not_to_blame(seconds):
    seconds.look(lasts=60.0, callbacks=60.0, slowest=60.0, **SLOW)
    seconds.quiet(4)
    (lag,) = seconds.look(network=4.0)
    assert lag.fault == "network"


# --- once per excursion


def test_each_threshold_is_told_when_it_is_passed_and_again_after_it_was_kept(seconds):
    for seen in (
        {"network": 3.5},
        {"dispatch": 0.3, "dispatch_own": 0.3},
        {"slowest": 0.2, **SLOW},
        {"waiting": 3_400_000},
    ):
        below = {"network": 0.0}
        told = [len(seconds.look(**each)) for each in (seen, seen, seen, below, seen, below, below, seen)]
        assert told == [1, 0, 0, 0, 1, 0, 0, 1]
        seconds.quiet(5)


def test_silence_does_not_end_a_lag_of_the_network(seconds):
    told = [len(seconds.look(network=late)) for late in (3.5, None, 3.6, None, None, 3.5)]
    assert told == [1, 0, 0, 0, 0, 0]
    seconds.quiet()
    assert len(seconds.look(network=3.5)) == 1


def test_thresholds_are_apart_from_each_other(seconds):
    assert [lag.fault for lag in seconds.look(network=3.5)] == ["network"]
    assert [lag.fault for lag in seconds.look(network=3.5, slowest=0.2, **SLOW)] == ["callback"]
    assert [lag.fault for lag in seconds.look(network=3.5, slowest=0.2, dispatch_own=0.3, dispatch=0.3, **SLOW)] == [
        "feed"
    ]


def test_the_settings_hold():
    seconds = Seconds(max_network_lag=0.5, max_feed_lag=0.05, max_callback_time=0.01)
    lags = seconds.look(network=0.6, dispatch=0.06, dispatch_own=0.06, slowest=0.02, **SLOW)
    assert [(lag.fault, lag.threshold) for lag in lags] == [("network", 0.5), ("feed", 0.05), ("callback", 0.01)]


# --- from the socket read to the handler


def test_a_way_of_our_own_is_ours(seconds):
    (lag,) = seconds.look(dispatch=0.4, dispatch_callbacks=0.1, dispatch_own=0.3)
    assert (lag.fault, lag.seconds, lag.threshold) == ("feed", 0.3, 0.25)
    assert lag.detail == "0.300 s from the socket read to a handler, besides what handlers took"


def test_a_way_that_earlier_handlers_held_up_is_theirs(seconds):
    (lag,) = seconds.look(dispatch=0.4, dispatch_callbacks=0.39, dispatch_own=0.01, slowest=0.05, **SLOW)
    assert (lag.fault, lag.seconds, lag.threshold) == ("callback", 0.4, 0.25)
    assert lag.detail.endswith("0.390 s of them in handlers of that read: on_trades handler my_strategy.on_tick took "
                               "0.050 s for 600519")  # fmt: skip


def test_a_way_that_both_held_up_is_the_larger_parts(seconds):
    (lag,) = seconds.look(dispatch=0.4, dispatch_callbacks=0.19, dispatch_own=0.21, slowest=0.01, **SLOW)
    assert lag.fault == "feed"


def test_a_loop_that_is_held_up_by_others_is_ours(seconds):
    (lag,) = seconds.look(lasts=2.5, lateness=1.5, callbacks=0.2)
    assert (lag.fault, lag.threshold) == ("feed", 0.25)
    assert lag.seconds == pytest.approx(1.3)
    assert lag.detail == "the event loop was held up for 1.300 s by what is no handler of the feed"


def test_a_loop_that_handlers_hold_up_is_not_ours(seconds):
    (lag,) = seconds.look(lasts=2.5, lateness=1.5, callbacks=1.5, slowest=1.5, **SLOW)
    assert lag.fault == "callback"


# --- callbacks, and the socket that they let fill


def test_a_slow_call_is_named(seconds):
    (lag,) = seconds.look(callbacks=1.234, slowest=1.234, **SLOW)
    assert lag == Lag("callback", 1.234, 0.1, "on_trades handler my_strategy.on_tick took 1.234 s for 600519")


def test_a_call_without_a_code_is_named_too(seconds):
    (lag,) = seconds.look(slowest=0.5, calls=1, slowest_where="on_batch", slowest_handler="a.b")
    assert lag.detail == "on_batch handler a.b took 0.500 s"


def test_a_slow_call_and_what_waited_for_it_are_one(seconds):
    seen = {"dispatch": 0.5, "dispatch_callbacks": 0.45, "slowest": 0.45, "callbacks": 0.45}
    (lag,) = seconds.look(**seen, **SLOW)
    assert (lag.fault, lag.seconds) == ("callback", 0.45)
    assert seconds.look(**seen, **SLOW) == []


def test_a_slow_call_and_the_socket_it_let_fill_are_one(seconds):
    (lag,) = seconds.look(lasts=2.2, callbacks=1.234, slowest=1.234, lateness=1.2, waiting=3_900_000, **SLOW)
    assert lag.detail == (
        "on_trades handler my_strategy.on_tick took 1.234 s for 600519; 3.9 of 4.2 MB wait in the socket"
    )


@pytest.mark.parametrize(
    ("seen", "fault", "detail"),
    [
        (
            {"callbacks": 0.9, "decode": 0.1, "slowest": 0.09, **SLOW},
            "callback",
            "handlers took 0.900 of 1.000 s: on_trades handler my_strategy.on_tick took 0.090 s for 600519; "
            "4.1 of 4.2 MB wait in the socket",
        ),
        (
            {"callbacks": 0.1, "decode": 0.7},
            "feed",
            "the feed and its loop took 0.700 of 1.000 s; 4.1 of 4.2 MB wait in the socket",
        ),
    ],
)
def test_a_socket_that_fills_is_told_with_who_did_it(seconds, seen, fault, detail):
    (lag,) = seconds.look(waiting=4_100_000, **seen)
    assert (lag.fault, lag.detail) == (fault, detail)
    assert lag.seconds == seen["callbacks" if fault == "callback" else "decode"]
    assert lag.threshold == (0.1 if fault == "callback" else 0.25)


def test_a_socket_is_full_at_80_percent(seconds):
    assert seconds.look(waiting=3_359_999) == []
    assert len(seconds.look(waiting=3_360_000)) == 1


def test_a_full_socket_is_told_also_where_the_slow_calls_were_told_before(seconds):
    assert len(seconds.look(callbacks=0.9, slowest=0.9, **SLOW)) == 1
    (lag,) = seconds.look(callbacks=0.9, slowest=0.9, waiting=4_000_000, **SLOW)
    assert lag.detail.endswith("4.0 of 4.2 MB wait in the socket")


def test_late_network_and_a_full_socket_are_two_things(seconds):
    seconds.quiet(9)
    faults = [lag.fault for lag in seconds.look(network=3.5, waiting=4_000_000)]
    assert faults == ["network", "feed"]


def test_an_unknown_socket_is_not_judged():
    judge = Judge()
    assert judge.look(Interval(0.0, 1.0), waiting=10**9) == []


def test_years_of_intervals_take_no_more_memory_than_the_first_minutes(seconds):
    def look(times):
        for _ in range(times):
            seconds.look(network=0.0)

    look(10)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        look(1200)
        early, _ = tracemalloc.get_traced_memory()
        look(4000)
        late, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert early - before < 128 * 1024
    assert late - early < 16 * 1024


def test_a_lag_does_not_change():
    lag = Lag("network", 4.0, 3.0, "late")
    with pytest.raises(dataclasses.FrozenInstanceError):
        lag.seconds = 0.0  # type: ignore[misc]
