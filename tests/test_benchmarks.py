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
