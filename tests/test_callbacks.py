"""Handlers that raise, call back in, change their fellows or stop the program; and the Decoder's tables and errors."""

import gc
import logging
import threading
import weakref

import pytest

import wire
from jvq_fast.decoder import Decoder
from oracle import COUNTERS, FLAG_COUNTERS, REASONS
from wire import MORNING

LEVELS = ("trades", "quotes", "depths")
MAKE = {"trades": wire.trade, "quotes": wire.quote, "depths": wire.depth}
HANDLERS = ("on_trades", "on_quotes", "on_depths")
each_level = pytest.mark.parametrize("level", LEVELS)


def new(**chosen):
    return Decoder(**{"capacity": 64, "history": 16, **chosen})


def one(level, code="600519", count=1):
    return wire.row(level, code, *[MAKE[level](volume=str(i + 1)) for i in range(count)])


def trade_message(*numbers, code="600519"):
    return wire.message(wire.trades(code, *[wire.trade(number=number) for number in numbers]))


@each_level
def test_several_handlers_are_called_in_order_once_a_row(level):
    decoder, calls = new(), []
    setattr(decoder, "on_" + level, [lambda c, r, i=i: calls.append((i, c, len(r))) for i in range(3)])
    decoder.decode(wire.message(one(level, "600519", 2), one(level, "000001", 3)))
    assert calls == [
        (0, "600519", 2),
        (1, "600519", 2),
        (2, "600519", 2),
        (0, "000001", 3),
        (1, "000001", 3),
        (2, "000001", 3),
    ]


def test_rows_of_all_levels_are_called_in_the_order_of_the_wire():
    decoder, calls = new(), []
    for level in LEVELS:
        setattr(decoder, "on_" + level, lambda c, r, level=level: calls.append((level, c)))
    decoder.on_batch = lambda n: calls.append(("batch", n))
    rows = [("quotes", "1"), ("trades", "1"), ("depths", "2"), ("trades", "2"), ("quotes", "1"), ("trades", "1")]
    decoder.decode(wire.message(*[one(level, code) for level, code in rows]))
    assert calls == [*rows, ("batch", 6)]


def test_assigning_and_reading_handlers():
    decoder = new()

    def f(*_):
        pass

    def g(*_):
        pass

    for name in (*HANDLERS, "on_batch", "on_error"):
        assert getattr(decoder, name) == ()
        setattr(decoder, name, f)
        assert getattr(decoder, name) == (f,)
        setattr(decoder, name, [f, g, f])
        assert getattr(decoder, name) == (f, g, f)
        setattr(decoder, name, iter((g, f)))
        assert getattr(decoder, name) == (g, f)
        setattr(decoder, name, (*getattr(decoder, name), g))
        assert getattr(decoder, name) == (g, f, g)
        for wrong in (5, "f", [f, 5], object()):
            with pytest.raises(TypeError):
                setattr(decoder, name, wrong)
            assert getattr(decoder, name) == (g, f, g)
        setattr(decoder, name, ())
        assert getattr(decoder, name) == ()
        setattr(decoder, name, f)
        setattr(decoder, name, None)
        assert getattr(decoder, name) == ()


def test_on_batch_is_called_once_a_decode_with_what_was_published():
    decoder, batches = new(), []
    decoder.on_batch = batches.append
    decoder.decode(trade_message(1, 2, 3))
    decoder.decode(wire.deflate(b""))
    decoder.decode(b"garbage")
    decoder.decode(wire.message(one("quotes"), one("depths", count=2), b"bad row"))
    assert batches == [3, 0, 0, 3]
    assert decoder.stats()["batches"] == 4


class BoomError(Exception):
    pass


@pytest.mark.parametrize("where", [*HANDLERS, "on_batch"])
def test_a_handler_that_raises_is_counted_and_reported_and_the_others_go_on(where):
    decoder, calls, errors = new(), [], []
    boom = BoomError("x")

    def bad(*_):
        raise boom

    good = lambda *arguments: calls.append(arguments)  # noqa: E731
    setattr(decoder, where, [good, bad, good, bad])
    decoder.on_error = lambda error, place: errors.append((error, place))
    rows = [one(level) for level in LEVELS]
    assert decoder.decode(wire.message(*rows)) == 3
    assert len(calls) == 2
    assert errors == [(boom, where), (boom, where)]
    assert decoder.stats()["callback_errors"] == 2
    assert decoder.decode(wire.message(*rows)) == 3
    assert decoder.stats()["callback_errors"] == 4
    assert decoder.stats()["batches"] == 2


def test_every_error_handler_hears_of_it():
    decoder, heard = new(), []
    decoder.on_error = [lambda e, w, i=i: heard.append((i, str(e), w)) for i in range(2)]
    decoder.on_trades = lambda *_: 1 / 0
    decoder.decode(trade_message(1))
    assert heard == [(0, "division by zero", "on_trades"), (1, "division by zero", "on_trades")]


def test_without_an_error_handler_the_log_hears_of_it(caplog):
    decoder = new()
    decoder.on_trades = lambda *_: 1 / 0
    with caplog.at_level(logging.DEBUG, "jvq_fast"):
        decoder.decode(trade_message(1))
    (record,) = [r for r in caplog.records if r.name.startswith("jvq_fast")]
    assert record.levelno >= logging.ERROR
    assert "on_trades" in record.getMessage()
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError


def test_an_error_handler_that_raises_stops_nothing(caplog):
    decoder, heard = new(), []

    def bad(error, where):
        raise BoomError("in the error handler")

    decoder.on_error = [bad, lambda e, w: heard.append((type(e), w))]
    decoder.on_trades = lambda *_: 1 / 0
    with caplog.at_level(logging.DEBUG, "jvq_fast"):
        assert decoder.decode(trade_message(1)) == 1
    assert (ZeroDivisionError, "on_trades") in heard
    assert decoder.stats()["callback_errors"] >= 1
    assert decoder.decode(trade_message(2)) == 1
    assert decoder.trades.head == 2


def test_decode_within_a_callback_is_refused():
    decoder, errors = new(), []
    payload = trade_message(1)

    def again(*_):
        with pytest.raises(RuntimeError):
            decoder.decode(payload)
        errors.append("refused")
        decoder.decode(payload)

    for name in (*HANDLERS, "on_batch"):
        setattr(decoder, name, again)
    heard = []
    decoder.on_error = lambda error, where: heard.append((type(error), where))
    assert decoder.decode(wire.message(*[one(level) for level in LEVELS])) == 3
    assert heard == [(RuntimeError, name) for name in (*HANDLERS, "on_batch")]
    assert len(errors) == 4
    assert decoder.messages == 1
    for name in (*HANDLERS, "on_batch"):
        setattr(decoder, name, None)
    assert decoder.decode(payload) == 1


def test_decode_within_an_error_handler_is_refused():
    decoder, outcome = new(), []

    def on_error(error, where):
        try:
            decoder.decode(trade_message(2))
        except RuntimeError as refused:
            outcome.append(str(refused))

    decoder.on_error = on_error
    decoder.on_trades = lambda *_: 1 / 0
    decoder.decode(trade_message(1))
    assert len(outcome) == 1
    assert decoder.trades.head == 1


def test_decode_from_another_thread_during_a_callback_is_refused():
    decoder, outcome = new(), []

    def elsewhere():
        try:
            decoder.decode(trade_message(2))
        except RuntimeError as refused:
            outcome.append(refused)

    def callback(*_):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(30)

    decoder.on_trades = callback
    decoder.decode(trade_message(1))
    assert len(outcome) == 1
    assert decoder.trades.head == 1


def test_of_two_threads_that_decode_at_once_one_is_refused_and_nothing_is_lost():
    decoder, published, strange = new(capacity=4096, history=0), [], []
    # Stored and large: the GIL is let go while such a message is decoded.
    text = wire.trades("600519", *[wire.trade(number=i) for i in range(3000)])
    payload = wire.deflate(text, level=0)
    assert len(payload) > 65_536

    def hammer():
        for _ in range(60):
            try:
                published.append(decoder.decode(payload))
            except RuntimeError:
                pass
            except BaseException as error:
                strange.append(error)

    threads = [threading.Thread(target=hammer) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert strange == []
    assert set(published) <= {3000}
    assert decoder.trades.head == sum(published) == 3000 * decoder.messages
    assert decoder.trades.last(3000)["id"].tolist() == list(range(3000))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("where", [*HANDLERS, "on_batch"])
def test_what_is_no_exception_leaves_decode_and_the_decoder_usable(where, kind):
    decoder, batches, errors = new(), [], []

    def stop(*_):
        raise kind("now")

    setattr(decoder, where, stop)
    decoder.on_error = lambda error, place: errors.append(place)
    if where != "on_batch":
        decoder.on_batch = batches.append
    rows = [one(level) for level in LEVELS]
    with pytest.raises(kind):
        decoder.decode(wire.message(*rows))
    assert errors == []
    assert [getattr(decoder, level).head for level in LEVELS] == [1, 1, 1]
    setattr(decoder, where, None)
    decoder.on_batch = batches.append
    calls = []
    for level in LEVELS:
        setattr(decoder, "on_" + level, lambda c, r, level=level: calls.append((level, len(r))))
    batches.clear()
    assert decoder.decode(wire.message(*rows)) == 3
    assert calls == [(level, 1) for level in LEVELS]
    assert len(batches) == 1
    assert batches[0] >= 3
    assert decoder.trades.last(2)["seq"].tolist() == [1, 4]
    assert decoder.stats()["records"] == 6


def test_what_is_no_exception_in_an_error_handler_leaves_decode_too():
    decoder = new()

    def on_error(error, where):
        raise KeyboardInterrupt

    decoder.on_error = on_error
    decoder.on_trades = lambda *_: 1 / 0
    with pytest.raises(KeyboardInterrupt):
        decoder.decode(trade_message(1))
    decoder.on_error = decoder.on_trades = None
    assert decoder.decode(trade_message(2)) == 1
    assert decoder.trades.head == 2


def test_an_interrupt_in_the_midst_of_a_message_in_parts_leaves_a_usable_decoder():
    decoder, seen = new(capacity=16), []

    def stop(code, records):
        seen.extend(records["id"].tolist())
        raise KeyboardInterrupt

    decoder.on_trades = stop
    with pytest.raises(KeyboardInterrupt):
        decoder.decode(trade_message(*range(100)))
    assert seen == list(range(len(seen)))
    decoder.on_trades = lambda code, records: seen.extend(records["id"].tolist())
    seen.clear()
    assert decoder.decode(trade_message(7, 8, 9)) == 3
    assert seen == [7, 8, 9]
    head = decoder.trades.head
    assert decoder.trades.last(1)["seq"][0] == head
    assert decoder.stats()["trades"] == head


def test_handlers_may_be_changed_within_a_callback():
    decoder, calls = new(), []

    def first(code, records):
        calls.append(("first", code))
        decoder.on_trades = [second]

    def second(code, records):
        calls.append(("second", code))
        decoder.on_trades = None

    decoder.on_trades = [first, lambda code, records: calls.append(("beside", code))]
    decoder.decode(trade_message(1))
    assert calls[0] == ("first", "600519")
    assert decoder.on_trades == (second,)
    calls.clear()
    decoder.decode(trade_message(2))
    assert calls == [("second", "600519")]
    calls.clear()
    decoder.decode(trade_message(3))
    assert calls == []


def test_a_handler_that_drops_the_last_reference_to_itself_and_its_fellows():
    decoder = new()

    class Handler:
        def __call__(self, code, records):
            decoder.on_trades = None
            gc.collect()
            seen.append(records["id"].tolist())

    seen = []
    decoder.on_trades = [Handler() for _ in range(10)]
    decoder.decode(wire.message(*[wire.trades("600519", wire.trade(number=i)) for i in range(5)]))
    assert seen
    assert decoder.on_trades == ()


def test_handlers_may_reserve_and_read_and_reconnect_within_a_callback():
    decoder, seen = new(), []

    def callback(code, records):
        seen.append(
            (decoder.trades.head, decoder.history(code, "trades").last(9)["id"].tolist(), decoder.stats()["trades"])
        )
        decoder.reserve(["lv1_600519", "lv2_000001", "lv10_300750"])
        assert decoder.codes
        assert decoder.nbytes > 0
        assert decoder.names == {}
        try:
            decoder.resume()
        except RuntimeError:
            seen.append("refused")

    errors = []
    decoder.on_error = lambda error, where: errors.append(error)
    decoder.on_trades = callback
    decoder.decode(trade_message(1, 2))
    decoder.decode(trade_message(3, 4))
    assert not errors
    assert [entry for entry in seen if entry != "refused"] == [(2, [1, 2], 2), (4, [1, 2, 3, 4], 4)]


def test_no_handler_is_called_for_rows_without_a_good_record():
    decoder, calls = new(), []
    decoder.on_trades = lambda *arguments: calls.append(arguments)
    decoder.decode(wire.message(wire.trades("600519", b"bad"), wire.trades("600519", b""), b"lv2_="))
    assert calls == []


def test_a_batch_that_is_kept_stays_good_until_it_is_lapped():
    decoder, kept = new(capacity=64), []
    decoder.on_trades = lambda code, records: kept.append(records)
    for i in range(20):
        decoder.decode(trade_message(2 * i, 2 * i + 1))
    assert [batch["id"].tolist() for batch in kept] == [[2 * i, 2 * i + 1] for i in range(20)]


def test_a_decoder_with_handlers_that_refer_to_it_is_collected():
    decoder = new()

    class Strategy:
        pass

    strategy = Strategy()
    strategy.decoder = decoder
    strategy.callback = lambda code, records, strategy=strategy: None
    decoder.on_trades = strategy.callback
    decoder.decode(trade_message(1))
    gone = weakref.ref(strategy)
    del decoder, strategy
    gc.collect()
    assert gone() is None


# tables


def test_names_are_a_table_by_code_that_can_not_be_written():
    decoder = new()
    assert dict(decoder.names) == {}
    rows = [
        wire.row("quotes", "600519", wire.quote(name="贵州茅台")),
        wire.row("depths", "000001", wire.depth(name="平安银行")),
    ]
    decoder.decode(wire.message(*rows, wire.trades("300750", wire.trade())))
    assert decoder.names == {"600519": "贵州茅台", "000001": "平安银行"}
    assert decoder.names["600519"] == "贵州茅台"
    assert "300750" not in decoder.names
    with pytest.raises(KeyError):
        decoder.names["300750"]
    with pytest.raises(TypeError):
        decoder.names["600519"] = "x"
    decoder.decode(wire.message(wire.row("quotes", "600519", wire.quote(name="XD贵州茅"))))
    assert decoder.names["600519"] == "XD贵州茅"
    decoder.decode(wire.message(wire.row("quotes", "600519", wire.quote(name="bad", volume="x"))))
    assert decoder.names["600519"] == "XD贵州茅"
    decoder.decode(wire.message(wire.row("quotes", "600519", wire.quote(name=b"\xe8\xb4\xff"))))
    assert decoder.names["600519"] == b"\xe8\xb4\xff".decode("utf-8", "replace")


def test_names_are_there_at_the_callback():
    decoder, seen = new(), []
    decoder.on_quotes = lambda code, records: seen.append(decoder.names[code])
    decoder.decode(wire.message(wire.row("quotes", "600519", wire.quote(name="茅台"))))
    assert seen == ["茅台"]


def test_history_of_unknown_codes_levels_and_of_none():
    decoder = new()
    with pytest.raises(KeyError):
        decoder.history("600519", "trades")
    decoder.decode(trade_message(1))
    assert decoder.history("600519", "trades").head == 1
    for level in ("lv2", "trade", "", "TRADES"):
        with pytest.raises(ValueError):
            decoder.history("600519", level)
    with pytest.raises(KeyError):
        decoder.history("lv2_600519", "trades")
    assert decoder.history("600519", "quotes").head == 0
    off = new(history=0)
    off.decode(trade_message(1))
    for level in LEVELS:
        with pytest.raises(ValueError):
            off.history("600519", level)


def test_reserve_takes_storage_before_the_first_record():
    decoder = new()
    decoder.reserve(["lv2_600519", "lv1_000001", "lv10_i000001"])
    taken = decoder.nbytes
    rings = [
        decoder.trades,
        decoder.quotes,
        decoder.depths,
        decoder.history("600519", "trades"),
        decoder.history("000001", "quotes"),
        decoder.history("i000001", "depths"),
    ]
    assert all(ring.nbytes > 0 for ring in rings)
    assert taken == sum(ring.nbytes for ring in rings)
    assert sorted(decoder.codes) == ["000001", "600519", "i000001"]
    decoder.decode(wire.message(one("trades"), one("quotes", "000001"), one("depths", "i000001")))
    assert decoder.nbytes == taken
    assert decoder.stats()["storage_late"] == 0
    decoder.reserve(["lv2_600519"])
    assert decoder.nbytes == taken
    assert decoder.history("600519", "trades").head == 1


def test_storage_that_was_not_reserved_is_taken_late_and_counted():
    decoder = new()
    decoder.reserve(["lv2_600519"])
    decoder.decode(trade_message(1))
    assert decoder.stats()["storage_late"] == 0
    decoder.decode(trade_message(1, code="000001"))
    assert decoder.stats()["storage_late"] == 1
    decoder.decode(wire.message(one("quotes", "600519")))
    assert decoder.stats()["storage_late"] == 3
    decoder.decode(wire.message(one("quotes", "600519"), one("trades", "000001")))
    assert decoder.stats()["storage_late"] == 3


def test_reserve_with_history_off_takes_the_tape_only():
    decoder = new(history=0)
    decoder.reserve(["lv2_600519"])
    assert decoder.nbytes == decoder.trades.nbytes > 0
    assert decoder.quotes.nbytes == 0


@pytest.mark.parametrize(
    "wrong",
    [
        "600519",
        "lv3_600519",
        "lv2_",
        "lv2",
        "",
        "_600519",
        "lv2_123456789",
        "lv2_60 519",
        "LV2_600519",
        "lv2_600519,lv2_000001",
        "add=lv2_600519",
        "lv2_600519=",
        "lv2_茅台",
    ],
)
def test_a_malformed_subscription_is_refused_and_takes_nothing(wrong):
    decoder = new()
    with pytest.raises(ValueError):
        decoder.reserve([wrong])
    with pytest.raises(ValueError):
        decoder.reserve(["lv2_600519", wrong])
    assert wrong not in decoder.codes


def test_reserving_more_codes_than_allowed_is_refused():
    decoder = new(max_codes=2)
    decoder.reserve(["lv2_1", "lv1_1", "lv2_2"])
    with pytest.raises(ValueError):
        decoder.reserve(["lv2_3"])
    decoder.reserve(["lv10_2"])
    assert sorted(decoder.codes) == ["1", "2"]


def test_a_code_beyond_the_limit_is_on_the_tape_only_and_counted():
    decoder, calls = new(max_codes=1), []
    decoder.on_trades = lambda code, records: calls.append((code, records["id"].tolist()))
    decoder.decode(
        wire.message(
            wire.trades("1", wire.trade(number=1)), wire.trades("2", wire.trade(number=2), wire.trade(number=3))
        )
    )
    assert calls == [("1", [1]), ("2", [2, 3])]
    assert decoder.trades.last(3)["code"].tolist() == [b"1", b"2", b"2"]
    assert decoder.stats()["tape_only"] == 2
    assert decoder.codes == ["1"]
    with pytest.raises(KeyError):
        decoder.history("2", "trades")


def test_stats_and_tables_are_copies():
    decoder = new()
    decoder.decode(trade_message(1))
    stats, codes = decoder.stats(), decoder.codes
    stats["records"] = 99
    codes.append("x")
    decoder.bad_records.append(("x", b""))
    assert decoder.stats()["records"] == 1
    assert decoder.codes == ["600519"]
    assert decoder.bad_records == []


def test_stats_has_every_counter_from_the_start():
    wanted = [*COUNTERS, *FLAG_COUNTERS, *("bad_" + reason for reason in REASONS)]
    wanted += ["codes", "storage_late", "callback_errors"]
    stats = new().stats()
    assert {name: stats[name] for name in wanted} == dict.fromkeys(wanted, 0)
    orders = {
        "lv1_order": "amount_first",
        "lv1_order_source": "default",
        "lv10_order": "price_first",
        "lv10_order_source": "default",
    }
    assert {name: stats[name] for name in orders} == orders
    assert all(type(value) in (int, str) for value in stats.values())


def test_many_codes_are_each_kept_apart():
    decoder = new(capacity=8192, history={"trades": 2, "quotes": 1, "depths": 1})
    codes = [f"{i:06d}" for i in range(5000)]
    for first in range(0, 5000, 500):
        decoder.decode(
            wire.message(*[wire.trades(code, wire.trade(number=int(code))) for code in codes[first : first + 500]]),
            MORNING,
        )
    assert decoder.codes == codes
    for code in codes:
        assert decoder.history(code, "trades").last(2)["id"].tolist() == [int(code)]


def test_an_interrupt_in_the_middle_of_a_large_message_loses_none_of_it():
    decoder, calls = new(capacity=16), []

    def interrupted(code, trades):
        calls.append(len(trades))
        raise KeyboardInterrupt

    decoder.on_trades = interrupted
    with pytest.raises(KeyboardInterrupt):
        decoder.decode(trade_message(*range(20)))
    assert calls == [4]
    assert decoder.trades.head == 20
    decoder.on_trades = lambda code, trades: calls.append(len(trades))
    assert decoder.decode(trade_message(20)) == 1
    assert calls == [4, 1]


@pytest.mark.parametrize("recv", [1.5, "1", None])
def test_an_arrival_that_is_no_integer_is_a_type_error(recv):
    decoder = new()
    for decode in (decoder.decode, decoder.decode_part):
        with pytest.raises(TypeError):
            decode(trade_message(1), recv)
    assert decoder.messages == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("capacity", None), ("history", "a"), ("max_codes", 1.9), ("capacity", {1: 2, "x": 1}), ("lv1_order", ["x"])],
)
def test_a_setting_of_the_wrong_type_is_named(name, value):
    with pytest.raises((TypeError, ValueError), match=name):
        new(**{name: value})


def test_reserving_beside_a_writer_loses_no_record():
    names = [f"lv2_{number:06d}" for number in range(600_000, 600_300)]
    decoder = new(capacity=4096, history=8, max_codes=400)
    large = wire.message(*[one("trades", name[4:], 2) for name in names])
    helper = threading.Thread(target=lambda: decoder.reserve(names))
    helper.start()
    for _ in range(5):
        decoder.decode(large)
    helper.join(30)
    assert decoder.trades.head == 3000
    assert sorted(decoder.codes) == [name[4:] for name in names]
    assert all(decoder.history(name[4:], "trades").last(8)["volume"].all() for name in names)
