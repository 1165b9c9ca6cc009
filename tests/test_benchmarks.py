"""The benchmarks run, and what they write says what was measured."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.release_only, pytest.mark.skipif(os.name != "posix", reason="the C programs are POSIX's")]


def test_inflate_beside_the_libraries_that_are_here(run_python: Any, tmp_path: Path, root: Path) -> None:
    report = tmp_path / "inflate.json"
    done = run_python("-m", "benchmarks.inflate", "--rounds", "2", "--json", str(report), cwd=root, timeout=300)
    written = json.loads(report.read_text())
    assert written["rounds"] == 2
    assert written["machine"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert len(written["shapes"]) >= 7
    for shape in written["shapes"]:
        assert shape["shape"] in done.stdout
        assert shape["contenders"]["jvq_fast"]["ratio"] == 1.0
        assert all(value["message_ns"] > 0 for value in shape["contenders"].values())


def test_scaling(run_python: Any, tmp_path: Path, root: Path) -> None:
    report = tmp_path / "scaling.json"
    few = f"""
from benchmarks import scaling

if __name__ == "__main__":
    scaling.CODES, scaling.AFTER = (1, 30), (50_000, 100_000)
    scaling.main(["--rounds", "2", "--json", {str(report)!r}])
"""
    done = run_python("-c", few, cwd=root, timeout=300)
    one, thirty, earlier, later, *metered = json.loads(report.read_text())["shapes"]
    assert (one["codes"], thirty["codes"]) == (1, 30)
    assert thirty["memory"]["nbytes"] - one["memory"]["nbytes"] == 29 * 2 * 1024 * 64
    for shape in (one, thirty):
        for name in ("jvq_fast", "C loop"):
            assert shape["contenders"][name]["record_ns"] > 0
            assert shape["contenders"][f"{name}, histories off"]["record_ns"] > 0
    assert later["records"] == 100_000
    if not metered:
        pytest.skip("no instructions are counted: " + done.stdout.splitlines()[-3])
    assert later["instructions"] == pytest.approx(earlier["instructions"], rel=1e-3)
    assert 0 < metered[0]["instructions"]["histograms"] < metered[0]["instructions"]["message"]
