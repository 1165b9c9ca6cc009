"""Nothing allocated per message, memory flat over time and as large as the formula says."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import jvq_fast as jvq

pytestmark = [
    pytest.mark.release_only,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc and preloads into glibc"),
]

MIB = 1 << 20
CHILD = str(Path(__file__).with_name("flat.py"))


@pytest.fixture
def child(run_python):
    def run(*arguments: object, timeout: float = 120, **environment: str) -> dict[str, int]:
        done = run_python(CHILD, *map(str, arguments), timeout=timeout, **environment)
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    compiler = shutil.which("cc")
    assert compiler, "no C compiler"
    library = tmp_path_factory.mktemp("counter") / "counter.so"
    source = Path(__file__).with_name("allocation_counter.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", source, "-o", library, "-ldl"], timeout=60, check=True)
    return str(library)


@pytest.mark.parametrize("objects", ["pymalloc", "malloc"])
def test_decode_calls_no_allocator_once_levels_and_codes_are_known(child, counter, objects):
    # With malloc every Python object that no free list keeps is counted as well.
    counted = child("calls", LD_PRELOAD=counter, PYTHONMALLOC=objects)
    assert counted["allocating"] >= counted["messages"] > 0, "the counter does not count"
    assert counted["nothing"] == 0, "the loop itself allocates"
    assert counted["records"] > 0
    assert counted["decode"] == 0
    assert counted["delays"] > 0, "the meter measured nothing"
    assert counted["metered"] == 0


def test_memory_is_flat_over_ten_million_records(child):
    grown = child("grow", 10_000_000, timeout=600)
    assert grown["records"] >= 10_000_000
    assert grown["seen"] > grown["records"]
    assert grown["growth"] < MIB


def test_five_thousand_codes_cost_what_the_formula_says(child, long):
    codes, history = 5000, 1024 if long else 256
    filled = child("fill", codes, history, timeout=600)
    tapes = 2 * 4096 * (jvq.TRADE.itemsize + jvq.QUOTE.itemsize)
    histories = codes * 2 * (history * jvq.TRADE.itemsize + history // 4 * jvq.QUOTE.itemsize)
    assert filled["published"] == codes * 4
    assert filled["nbytes"] == filled["sum"] == tapes + histories
    assert filled["late"] == 0
    assert filled["last_volume"] == 300
    for measured in (filled["reserved"], filled["growth"]):
        assert abs(measured - filled["nbytes"]) <= 0.05 * filled["nbytes"]


def test_nbytes_counts_each_level_that_is_used_and_no_other():
    decoder = jvq.Decoder(capacity={"trades": 1000, "quotes": 64, "depths": 64}, history=40)
    assert decoder.nbytes == 0
    decoder.reserve(["lv2_600519"])
    trades = 2 * (1024 + 40) * jvq.TRADE.itemsize
    assert decoder.nbytes == trades
    decoder.reserve(["lv2_600519", "lv1_000001"])
    quotes = 2 * (64 + 10) * jvq.QUOTE.itemsize
    assert decoder.nbytes == trades + quotes
    decoder.reserve(["lv10_000001", "lv10_600519"])
    assert decoder.nbytes == trades + quotes + 2 * (64 + 2 * 2) * jvq.DEPTH.itemsize
