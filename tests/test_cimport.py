"""The package as other Cython code uses it: its .pxd files and headers, wherever it is installed."""

import sys
import sysconfig
import time

import pytest

import jvq_fast as jvq
import wire
from jvq_fast.meter import Meter

SOURCE = """
from jvq_fast.decoder cimport Decoder
from jvq_fast.meter cimport Meter
from jvq_fast.ring cimport Ring, jvq_ring_at

def newest_seq(Decoder decoder):
    cdef Ring tape = decoder.trades
    return (<unsigned long long *>jvq_ring_at(tape.ring, tape.ring.head - 1, tape.ring.head))[0]

def begin_read(Meter meter, long long recv_ns):
    meter.begin_read(recv_ns, True)
"""
SETUP = """
from pathlib import Path
import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
import jvq_fast

includes = [jvq_fast.get_include(), np.get_include()]
user = Extension("user", ["user.pyx"], include_dirs=includes)
# Cython looks for .pxd files along sys.path, where an editable install is not.
packages = [str(Path(jvq_fast.__file__).parent.parent)]
setup(name="user", ext_modules=cythonize([user], include_path=packages, language_level=3))
"""


@pytest.fixture(scope="module")
def user(tmp_path_factory, run_python):
    """The extension above, built and imported."""
    tmp_path = tmp_path_factory.mktemp("user")
    (tmp_path / "user.pyx").write_text(SOURCE)
    (tmp_path / "setup.py").write_text(SETUP)
    run_python("setup.py", "-q", "build_ext", "--inplace", cwd=tmp_path, timeout=300)
    assert list(tmp_path.glob(f"user*{sysconfig.get_config_var('EXT_SUFFIX')}"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        import user

        yield user
    sys.modules.pop("user")


@pytest.mark.release_only
def test_a_users_extension_reads_a_ring_in_c(user):
    decoder = jvq.Decoder(capacity=8)
    decoder.decode(wire.message(*[wire.trades("600519", wire.trade(number=n)) for n in range(11)]))
    assert user.newest_seq(decoder) == int(decoder.trades.last(1)["seq"][0]) == 11


@pytest.mark.release_only
def test_a_clock_that_is_set_is_no_lag(user):
    decoder = jvq.Decoder()
    meter = decoder.meter = Meter()
    start, second = time.time_ns(), 10**9

    def arrives(number, late):
        trade = wire.trade(f"09:30:{number:02d}.000", number)
        decoder.decode(wire.message(wire.trades("600519", trade)), wire.MORNING + number * second + late)

    for number, ahead in enumerate([0, 0, 50, 50, -30, -30]):
        user.begin_read(meter, start + time.monotonic_ns() + ahead * second)
        arrives(number, ahead * second + 40_000_000)
        if number:
            assert meter.skew == pytest.approx(ahead, abs=2)
    assert meter.network["trades"].count == 5
    assert meter.network["trades"].max < 2
    # What lets time pass between two reads is no clock that is set.
    user.begin_read(meter, start + time.monotonic_ns() - 30 * second)
    arrives(6, 20 * second - 30 * second)
    assert meter.network["trades"].max == pytest.approx(20, abs=2)
