"""The package as other Cython code uses it: its .pxd files and headers, wherever it is installed."""

import sys
import sysconfig

import pytest

import jvq_fast as jvq
import wire

SOURCE = """
from jvq_fast.decoder cimport Decoder
from jvq_fast.ring cimport Ring, jvq_ring_at

def newest_seq(Decoder decoder):
    cdef Ring tape = decoder.trades
    return (<unsigned long long *>jvq_ring_at(&tape.ring, tape.ring.head - 1, tape.ring.head))[0]
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


@pytest.mark.release_only
def test_a_users_extension_reads_a_ring_in_c(tmp_path, run_python, monkeypatch):
    (tmp_path / "user.pyx").write_text(SOURCE)
    (tmp_path / "setup.py").write_text(SETUP)
    run_python("setup.py", "-q", "build_ext", "--inplace", cwd=tmp_path, timeout=300)
    assert list(tmp_path.glob(f"user*{sysconfig.get_config_var('EXT_SUFFIX')}"))
    monkeypatch.syspath_prepend(str(tmp_path))
    import user

    decoder = jvq.Decoder(capacity=8)
    decoder.decode(wire.message(*[wire.trades("600519", wire.trade(number=n)) for n in range(11)]))
    assert user.newest_seq(decoder) == int(decoder.trades.last(1)["seq"][0]) == 11
    sys.modules.pop("user")
