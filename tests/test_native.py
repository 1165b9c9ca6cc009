"""Handlers written in Cython, built as a user builds them, and the arrays that Python handlers are lent."""

import itertools
import json
import os
import re
import shutil
import signal
import sys
import sysconfig
import warnings
import weakref

import numpy as np
import pytest

import jvq_fast as jvq
import wire
from commands import Command
from jvq_fast.native import Handler
from simulator import Simulator

pytestmark = pytest.mark.release_only

SOURCE = """
from jvq_fast.native cimport Depth, Handler, Quote, Trade

def sizes():
    return sizeof(Trade), sizeof(Quote), sizeof(Depth)

cdef class Keeps(Handler):
    cdef public list kept
    cdef public object raises
    def __init__(self):
        self.kept = []
    cdef int on_trades(self, const Trade *trades, Py_ssize_t count) except -1:
        self.kept.append([trades[i] for i in range(count)])
        if self.raises is not None:
            raise self.raises
        return 0
    cdef int on_quotes(self, const Quote *quotes, Py_ssize_t count) except -1:
        self.kept.append([quotes[i] for i in range(count)])
        return 0
    cdef int on_depths(self, const Depth *depths, Py_ssize_t count) except -1:
        self.kept.append([depths[i] for i in range(count)])
        return 0

cdef class Lazy(Handler):
    pass

cdef class Minus(Handler):
    cdef int on_trades(self, const Trade *trades, Py_ssize_t count) except -1:
        return -1
    cdef int on_quotes(self, const Quote *quotes, Py_ssize_t count) except? -1:
        return -1
    cdef int on_depths(self, const Depth *depths, Py_ssize_t count) except? -1:
        return -1
"""
LEVELS = {"trades": wire.trade, "quotes": wire.quote, "depths": wire.depth}


def cythonize(folder, name, run_python):
    """What `cythonize -i -3` does; the folder of the package is named since an editable install is on no path."""
    package = str(jvq.__path__[0]).rpartition("jvq_fast")[0]
    run_python("-m", "Cython.Build.Cythonize", "-i", "-3", f"{name}.pyx", cwd=folder, timeout=300, PYTHONPATH=package)
    assert list(folder.glob(f"{name}*{sysconfig.get_config_var('EXT_SUFFIX')}"))


@pytest.fixture(scope="module")
def native(tmp_path_factory, run_python):
    folder = tmp_path_factory.mktemp("native")
    (folder / "keeps.pyx").write_text(SOURCE)
    cythonize(folder, "keeps", run_python)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        import keeps

        yield keeps
    sys.modules.pop("keeps")


def message(level, count=3, code="600519"):
    return wire.message(wire.row(level, code, *[LEVELS[level](volume=str(100 * (i + 1))) for i in range(count)]))


def test_the_structs_are_the_records(native):
    assert native.sizes() == (jvq.TRADE.itemsize, jvq.QUOTE.itemsize, jvq.DEPTH.itemsize)


@pytest.mark.parametrize("level", LEVELS)
def test_a_native_handler_gets_the_records_of_each_row_as_the_tape_holds_them(native, level):
    decoder, handler = jvq.Decoder(capacity=64), native.Keeps()
    setattr(decoder, "on_" + level, handler)
    decoder.decode(message(level, 3))
    decoder.decode(message(level, 2, "000001"))
    assert [len(row) for row in handler.kept] == [3, 2]
    tape = getattr(decoder, level).last(5)
    for given, held in zip(itertools.chain(*handler.kept), tape, strict=True):
        assert given.pop("zero") == 0
        assert given["code"].rstrip(b"\0") == held["code"]
        assert {name: value for name, value in given.items() if name != "code"} == {
            name: held[name].tolist() for name in held.dtype.names if name != "code"
        }


def test_native_and_python_handlers_are_called_in_order_and_one_that_raises_stops_nobody(native):
    decoder, handler, calls, errors = jvq.Decoder(capacity=64), native.Keeps(), [], []
    handler.raises = ValueError("no")
    decoder.on_trades = [handler, lambda code, trades: calls.append((code, len(trades), len(handler.kept)))]
    decoder.on_error = lambda error, where: errors.append((str(error), where))
    decoder.decode(message("trades"))
    assert calls == [("600519", 3, 1)]
    assert errors == [("no", "on_trades")]
    assert decoder.stats()["callback_errors"] == 1


def test_what_ends_a_program_gets_through_a_native_handler(native):
    decoder, handler = jvq.Decoder(capacity=64), native.Keeps()
    handler.raises = KeyboardInterrupt()
    decoder.on_trades = handler
    with pytest.raises(KeyboardInterrupt):
        decoder.decode(message("trades"))
    assert decoder.trades.head == 3


@pytest.mark.parametrize("level", LEVELS)
def test_a_handler_that_overrides_nothing_is_named(native, level):
    decoder, errors = jvq.Decoder(capacity=64), []
    setattr(decoder, "on_" + level, native.Lazy())
    decoder.on_error = lambda error, where: errors.append((type(error), str(error), where))
    decoder.decode(message(level))
    where = "on_" + level
    assert errors == [
        (NotImplementedError, f"Lazy is registered for {where}, not overridden in Cython", where)
    ]


@pytest.mark.parametrize("level", LEVELS)
def test_a_handler_that_returns_a_failure_without_an_exception_is_named(native, level):
    decoder, errors = jvq.Decoder(capacity=64), []
    setattr(decoder, "on_" + level, native.Minus())
    decoder.on_error = lambda error, where: errors.append((type(error), str(error), where))
    decoder.decode(message(level))
    where = "on_" + level
    assert errors == [(SystemError, f"Minus.{where} returned -1 without an exception", where)]


def test_the_class_of_a_handler_is_none(native):
    with pytest.raises(TypeError, match=r"on_trades takes a handler, not its class: register Keeps\(\)"):
        jvq.Decoder(capacity=64).on_trades = native.Keeps
    with pytest.raises(TypeError, match=r"register Keeps\(\)"):
        jvq.Feed("0" * 32).on_quotes(native.Keeps)


def test_an_event_without_a_method_refuses_a_native_handler():
    decoder = jvq.Decoder(capacity=64)
    with pytest.raises(TypeError, match="on_batch has no method of a Handler: register a callable"):
        decoder.on_batch = Handler()
    feed = jvq.Feed("0" * 32)
    with pytest.raises(TypeError, match="on_gap"):
        feed.on_gap(Handler())


def test_a_native_handler_is_timed_and_named_as_any_other(native):
    decoder, handler = jvq.Decoder(capacity=64), native.Keeps()
    decoder.on_trades = handler
    decoder.meter = meter = jvq.meter.Meter()
    decoder.decode(message("trades"), 1_795_400_000_000_000_000)
    assert meter.callbacks.count == 1
    assert meter.take().slowest_handler == "keeps.Keeps"


def test_the_example_is_built_and_runs_as_its_first_lines_say(root, tmp_path, run_python):
    shutil.copy(root / "examples" / "order_flow.pyx", tmp_path)
    cythonize(tmp_path, "order_flow", run_python)
    to_read, to_write = os.pipe()
    with Simulator("--seed", "5") as sim, os.fdopen(to_read) as stdin, os.fdopen(to_write, "w") as pipe:
        ready = {"http": sim.http, "ws": sim.ws, "trade": sim.trade, "trading_day": sim.trading_day}
        pipe.write(json.dumps(ready) + "\n")
        pipe.flush()
        with Command(
            "-c", "import order_flow", module=False, stdin=stdin.fileno(), PYTHONPATH=str(tmp_path)
        ) as command:
            shown = r"(600519|000001) +[1-9][\d,]* shares for +[\d,]+\.\d\d CNY, last at \d+\.\d\d"
            for _ in range(2):
                command.wait_line(lambda text: re.match(shown, text) is not None)
            command.interrupt(signal.SIGINT)
            assert command.end() == 0
            assert command.errors() == ""


# --- arrays lent to handlers ---


def batches(decoder, count=4):
    for number in range(count):
        decoder.decode(message("trades", number % 3 + 1))


def test_an_array_that_nobody_keeps_is_lent_again():
    decoder, seen = jvq.Decoder(capacity=64), []
    decoder.on_trades = lambda _, trades: seen.append((id(trades), len(trades), trades["volume"].tolist()))
    batches(decoder)
    assert len({address for address, *_ in seen}) == 1
    assert [length for _, length, _ in seen] == [1, 2, 3, 1]
    assert all(volumes == [100 * (i + 1) for i in range(length)] for _, length, volumes in seen)


KEEP = {
    "the array": lambda trades: trades,
    "a field": lambda trades: trades["volume"],
    "a record": lambda trades: trades[0],
    "a slice": lambda trades: trades[1:],
    "a memoryview": memoryview,
    "an array of its buffer": lambda trades: np.frombuffer(trades, jvq.TRADE),
    "its flags": lambda trades: trades.flags,
    "an iterator": iter,
}


@pytest.mark.parametrize("keep", KEEP.values(), ids=KEEP)
def test_what_a_handler_keeps_stays_what_it_was(keep):
    decoder, kept = jvq.Decoder(capacity=64), []

    @lambda handler: setattr(decoder, "on_trades", handler)
    def _(_code, trades):
        kept.append((keep(trades), trades.copy()))

    batches(decoder, 9)
    for number, (thing, copy) in enumerate(kept):
        assert thing is not None
        again = keep(decoder.trades.since(sum(n % 3 + 1 for n in range(number)))[0][: len(copy)])
        if isinstance(thing, np.ndarray):
            assert np.array_equal(thing, again)
        elif isinstance(thing, np.void | memoryview):
            assert bytes(thing) == bytes(again)
        elif hasattr(thing, "__next__"):
            assert [record.tolist() for record in thing] == copy.tolist()


@pytest.mark.parametrize("change", ["shape", "dtype", "strides", "weakref"])
def test_an_array_that_a_handler_changed_is_not_lent_again(change):
    decoder, seen, references = jvq.Decoder(capacity=64), [], []

    @lambda handler: setattr(decoder, "on_trades", handler)
    def _(_code, trades):
        seen.append((trades.shape, trades.dtype, trades["volume"].tolist()))
        if change == "weakref":
            references.append(weakref.ref(trades))
        elif change == "shape":
            trades.shape = (len(trades), 1)
        elif change == "dtype":
            trades.dtype = np.dtype("V64")
        else:
            trades.strides = (0,)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # numpy's, of setting what it would rather not have set
        batches(decoder)
    assert seen == [((n,), jvq.TRADE, [100 * (i + 1) for i in range(n)]) for n in (1, 2, 3, 1)]
    assert all(reference() is None for reference in references[:-1])
