"""After a reconnect: no trade twice, none lost, and a word about what could not be judged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracle
import wire
from pair import Pair
from wire import SECOND

DAY = "2026-11-23"


def clock(seconds, ns=0):
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}" + (f".{ns:09d}" if ns else "")


OPEN = 34_200  # 09:30:00


def made(*numbers, at=OPEN, price="10.00", volume=100):
    return [wire.trade(clock(at), number, price, volume) for number in numbers]


class Feed(Pair):
    def __init__(self, **chosen):
        super().__init__(**{"trading_day": DAY, **chosen})

    def send(self, *records, code="600519", arrival=0):
        """The ids of the trades that were published."""
        before = self.decoder.trades.head
        self.decode(wire.message(wire.trades(code, *records)), arrival)
        return self.decoder.trades.since(before)[0]["id"].tolist()

    def resume(self):
        self.decoder.resume()
        self.oracle.resume()

    def connected(self):
        self.decoder.connected()
        self.oracle.connected()

    def count(self, name):
        return self.decoder.stats()[name]


def test_without_a_reconnect_nothing_is_ever_dropped():
    feed = Feed()
    for _ in range(3):
        assert feed.send(*made(1, 2, 3)) == [1, 2, 3]
    feed.connected()
    assert feed.send(*made(1, 2, 3)) == [1, 2, 3]
    assert feed.count("duplicates") == feed.count("maybe_duplicate") == 0
    feed.check()


@pytest.mark.parametrize("history", [32, 0])
def test_trades_from_before_the_gap_are_dropped_and_counted(history):
    feed = Feed(history=history)
    feed.send(*made(1, 2, 3))
    feed.resume()
    assert feed.send(*made(2, 3, 4)) == [4]
    assert feed.count("duplicates") == 2
    assert feed.count("trades") == 4
    assert feed.count("maybe_duplicate") == 0
    feed.check()


def test_a_row_of_duplicates_only_calls_nobody():
    feed = Feed()
    feed.send(*made(1, 2))
    feed.resume()
    assert feed.send(*made(1, 2)) == []
    assert feed.calls == []
    assert feed.batches == [0]


@pytest.mark.parametrize(
    "changed",
    [
        {"number": 9},
        {"time": clock(OPEN, 1)},
        {"time": clock(OPEN + 1)},
        {"time": clock(OPEN - 1)},
        {"price": "10.01"},
        {"volume": 101},
        {"volume": -100},
    ],
)
@pytest.mark.parametrize("history", [32, 0])
def test_a_trade_that_differs_in_anything_is_new(history, changed):
    feed = Feed(history=history)
    same = {"time": clock(OPEN), "number": 1, "price": "10.00", "volume": 100}
    feed.send(wire.trade(**same))
    feed.resume()
    different = {**same, **changed}
    assert feed.send(wire.trade(**different)) == [different["number"]]
    assert feed.send(wire.trade(**same)) == []
    assert feed.count("duplicates") == 1
    feed.check()


def test_another_spelling_of_the_same_trade_is_a_repeat():
    feed = Feed()
    feed.send(wire.trade("09:30:00.000", "7", "10.00", "100"))
    feed.resume()
    assert feed.send(wire.trade("09:30:00", "007", "10.0", "100.00")) == []
    assert feed.count("duplicates") == 1


def test_time_of_day_is_compared_whatever_the_date():
    feed = Feed(trading_day=None)
    evening = wire.MORNING
    feed.send(wire.trade("09:30:00", 1), arrival=0)  # of 1970
    feed.resume()
    assert feed.send(wire.trade("09:30:00", 1), arrival=evening) == []
    assert feed.send(wire.trade("09:30:00", 2), arrival=evening) == [2]
    feed.check()


def test_codes_are_judged_apart():
    feed = Feed()
    feed.send(*made(1, 2), code="600519")
    feed.send(*made(3), code="000001")
    feed.resume()
    assert feed.send(*made(1, 2), code="000001") == [1, 2]
    assert feed.send(*made(3), code="600519") == [3]
    assert feed.send(*made(1), code="600519") == []
    assert feed.send(*made(1), code="300750") == [1]
    assert feed.count("duplicates") == 1
    feed.check()


def test_only_trades_from_before_the_gap_are_compared():
    """A duplicate within one connection is published as it came."""
    feed = Feed()
    feed.send(*made(1))
    feed.resume()
    assert feed.send(*made(5)) == [5]
    assert feed.send(*made(5)) == [5]
    assert feed.send(*made(5, 5)) == [5, 5]
    assert feed.send(*made(1)) == []
    feed.check()


def test_a_trade_is_dropped_as_often_as_it_comes_again():
    feed = Feed()
    feed.send(*made(1))
    feed.resume()
    assert feed.send(*made(1, 1)) == []
    assert feed.send(*made(1)) == []
    assert feed.count("duplicates") == 3


def test_smaller_ids_that_are_not_held_are_new():
    feed = Feed()
    feed.send(*made(100, 101))
    feed.resume()
    assert feed.send(*made(5, 99, 100)) == [5, 99]
    feed.check()


@pytest.mark.parametrize("history", [32, 0])
def test_text_ids_are_never_dropped(history):
    feed = Feed(history=history)
    feed.send(*made("a", "", "99999999999999999999"))
    feed.resume()
    assert feed.send(*made("a", "", "99999999999999999999")) == [-1, -1, -1]
    assert feed.count("duplicates") == 0
    feed.check()


@pytest.mark.parametrize(
    ("seconds", "ns", "ends"), [(60, 0, False), (59, 999_999_999, False), (60, 1, True), (61, 0, True)]
)
def test_the_mark_ends_at_a_new_trade_more_than_a_minute_past_the_last_before_the_gap(seconds, ns, ends):
    feed = Feed()
    feed.send(*made(1, at=OPEN - 100), *made(2))
    feed.resume()
    assert feed.send(*made(1, at=OPEN - 100)) == []
    assert feed.send(wire.trade(clock(OPEN + seconds, ns), 3)) == [3]
    assert feed.send(*made(2)) == ([2] if ends else [])
    feed.check()


def test_the_minute_runs_from_the_codes_last_trade_not_its_latest():
    """Arrival runs backwards in real data; the last one published counts."""
    feed = Feed()
    feed.send(*made(1, at=OPEN + 50), *made(2, at=OPEN))
    feed.resume()
    assert feed.send(wire.trade(clock(OPEN + 61), 3)) == [3]
    assert feed.send(*made(1, at=OPEN + 50)) == [1]
    feed.check()


def test_a_repeat_does_not_end_the_mark():
    feed = Feed()
    feed.send(*made(1, at=OPEN + 500), *made(2, at=OPEN))
    feed.resume()
    assert feed.send(*made(1, at=OPEN + 500)) == []
    assert feed.send(*made(2, at=OPEN)) == []
    feed.check()


def test_the_trade_that_ends_the_mark_and_all_after_it_are_published():
    feed = Feed()
    feed.send(*made(1, 2))
    feed.resume()
    assert feed.send(*made(1), *made(3, at=OPEN + 100), *made(2)) == [3, 2]
    feed.check()


def test_the_mark_of_each_code_ends_by_itself():
    feed = Feed()
    feed.send(*made(1), code="600519")
    feed.send(*made(1), code="000001")
    feed.resume()
    assert feed.send(*made(2, at=OPEN + 100), code="600519") == [2]
    assert feed.send(*made(1), code="600519") == [1]
    assert feed.send(*made(1), code="000001") == []
    feed.check()


def test_each_reconnect_marks_anew_with_all_that_came_before_it():
    feed = Feed()
    feed.send(*made(1))
    feed.resume()
    feed.send(*made(2, at=OPEN + 100))
    assert feed.send(*made(1)) == [1]
    feed.resume()
    assert feed.send(*made(1), *made(2, at=OPEN + 100), *made(3)) == [3]
    feed.resume()
    feed.resume()
    assert feed.send(*made(3), *made(4)) == [4]
    feed.check()


@pytest.mark.parametrize("history", [4, 0])
def test_what_the_store_is_too_short_to_judge_is_published_and_counted(history):
    feed = Feed(history=history, capacity=4)
    feed.send(*made(*range(10)))
    feed.resume()
    assert feed.send(*made(6)) == []
    assert feed.send(*made(3)) == [3]
    assert feed.count("maybe_duplicate") == 1
    feed.check()


def test_a_store_that_holds_all_from_before_the_gap_leaves_no_doubt():
    feed = Feed(history=8, capacity=8)
    feed.send(*made(*range(4)))
    feed.resume()
    assert feed.send(*made(10, 11)) == [10, 11]
    assert feed.count("maybe_duplicate") == 0
    feed.check()


@pytest.mark.parametrize("history", [4, 0])
def test_a_trade_later_than_all_before_the_gap_leaves_no_doubt(history):
    """However short the store, and however many trades of the same moment came since."""
    feed = Feed(history=history, capacity=4)
    feed.send(*made(*range(10)))
    feed.resume()
    assert feed.send(*made(20, 21, 22, at=OPEN + 5)) == [20, 21, 22]
    assert feed.send(*made(23, 24, at=OPEN + 4)) == [23, 24]
    assert feed.count("maybe_duplicate") == 0
    feed.check()


def test_a_repeat_of_what_was_overwritten_is_counted_though_it_is_younger_than_what_is_held():
    feed = Feed(history=1)
    feed.send(*made(0, at=OPEN + 40), *made(1, at=OPEN))
    feed.resume()
    assert feed.send(*made(0, at=OPEN + 40)) == [0]
    assert feed.count("maybe_duplicate") == 1
    feed.check()


def test_trades_after_the_gap_may_push_those_before_it_out_of_the_store():
    feed = Feed(history=4, capacity=4)
    feed.send(*made(1, 2, 3))
    feed.resume()
    assert feed.send(*made(10, 11, 12)) == [10, 11, 12]
    feed.send(*made(3))
    feed.send(*made(1))
    feed.check()


def test_with_history_off_the_tape_holds_the_trades_of_all_codes():
    feed = Feed(history=0, capacity=8)
    feed.send(*made(1), code="600519")
    feed.send(*made(*range(20, 27)), code="000001")
    feed.resume()
    assert feed.send(*made(1), code="600519") == []
    feed.send(*made(30, 31), code="000001")
    assert feed.send(*made(1), code="600519") == [1]
    assert feed.count("maybe_duplicate") >= 1
    feed.check()


def test_a_history_longer_than_the_tape_is_what_counts():
    feed = Feed(history={"trades": 32, "quotes": 1, "depths": 1}, capacity=4)
    feed.send(*made(*range(20)))
    feed.resume()
    assert feed.send(*made(*range(20)), *made(77)) == [77]
    feed.check()


def test_snapshots_are_never_dropped():
    feed = Feed()
    rows = [wire.row("quotes", "600519", wire.quote()), wire.row("depths", "600519", wire.depth())]
    feed.decode(wire.message(*rows))
    feed.resume()
    feed.decode(wire.message(*rows))
    assert feed.decoder.quotes.head == feed.decoder.depths.head == 2
    assert feed.decoder.quotes.last(1)["flags"][0] & oracle.REPEAT
    feed.check()


def test_reserved_codes_without_a_trade_have_nothing_to_repeat():
    feed = Feed()
    feed.decoder.reserve(["lv2_600519", "lv1_600519"])
    feed.resume()
    assert feed.send(*made(1, 1)) == [1, 1]
    assert feed.count("duplicates") == feed.count("maybe_duplicate") == 0


def test_resume_before_anything_and_on_tape_only_codes():
    feed = Feed(max_codes=1)
    feed.resume()
    feed.send(*made(1), code="600519")
    feed.send(*made(1), code="000001")
    feed.resume()
    assert feed.send(*made(1), code="600519") == []
    assert feed.send(*made(2), code="000001") == [2]


def test_sequence_numbers_have_no_hole_where_a_repeat_was_dropped():
    feed = Feed()
    feed.send(*made(1, 2))
    feed.resume()
    feed.send(*made(1, 3, 2, 4))
    assert feed.decoder.trades.last(4)["seq"].tolist() == [1, 2, 3, 4]
    assert feed.decoder.trades.last(4)["id"].tolist() == [1, 2, 3, 4]


def test_repeats_among_new_trades_leave_one_whole_batch():
    feed = Feed(capacity=256)
    feed.send(*made(1, 2, 3))
    feed.resume()
    feed.send(*made(10, 1, 11, 2, 12, 3, 13))
    assert len(feed.calls) == 1


def test_a_message_larger_than_the_tape_after_a_reconnect():
    for history in (32, 0):
        feed = Feed(history=history, capacity=8)
        feed.send(*made(*range(6)))
        feed.resume()
        numbers = [*range(100), *range(6), *range(50)]
        feed.send(*made(*numbers))
        feed.check()


steps = st.lists(
    st.one_of(
        st.just("resume"),
        st.lists(
            st.tuples(
                st.integers(0, 12),
                st.integers(0, 3),
                st.sampled_from(["10.00", "10.01"]),
                st.sampled_from(["600519", "000001"]),
            ),
            min_size=1,
            max_size=12,
        ),
    ),
    max_size=12,
)


@wire.examples(8)
@given(steps, st.sampled_from([0, 1, 3, 8, 64]), st.sampled_from([1, 4, 16, 64]), st.sampled_from([DAY, None]))
def test_any_sequence_of_trades_and_reconnects_agrees_with_the_oracle(sequence, history, capacity, day):
    feed = Feed(history=history, capacity=capacity, trading_day=day)
    for step in sequence:
        if step == "resume":
            feed.resume()
            continue
        rows = []
        for number, minute, price, code in step:
            text = "x" if number == 12 else number
            rows.append(wire.trades(code, wire.trade(clock(OPEN + minute * 40), text, price)))
        feed.decode(wire.message(*rows), wire.MORNING + 100 * SECOND if day is None else 0)
    feed.check()
