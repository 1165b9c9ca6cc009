"""Each other Python that is here builds the source distribution, imports the wheel and reads a message with it."""

import functools
import os
import shutil
import sys
import tempfile
from concurrent.futures import Future
from pathlib import Path

import pytest

import spare_time
from builds import NICE, ROOT
from interpreters import find

pytestmark = [pytest.mark.release_only, pytest.mark.spare_time]

OTHERS = [version for version in ("3.12", "3.13", "3.11") if version != f"3.{sys.version_info.minor}"]

SMOKE = """
import zlib
import jvq_fast as jvq
from pathlib import Path

machine = zlib.compressobj(6, zlib.DEFLATED, -15)
text = "lv2_600519=09:30:00.123,17,1688.88,200|09:30:00.5,18,1688.9,100\\n"
payload = machine.compress(text.encode()) + machine.flush()
d = jvq.Decoder(trading_day="2026-11-23")
seen = []
d.on_trades = lambda code, trades: seen.append((code, trades["price"].tolist()))
assert d.decode(payload, 0) == 2
assert seen == [("600519", [1688.88, 1688.9])], seen
assert d.history("600519", "trades").last(1)["volume"][0] == 100
feed = jvq.Feed("0" * 32, ["lv2_600519"], server="ws://127.0.0.1:9")
folder = Path(jvq.__file__).parent
assert "site-packages" in folder.parts, folder
for name in ("ring", "decoder", "listener"):
    assert (folder / f"{name}.pxd").exists() and (folder / f"{name}.pyi").exists()
assert (folder / "py.typed").exists()
print("works")
"""


def run(*command: object, **options: object) -> str:
    done = spare_time.run(*NICE, *command, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout[-8000:]}"
    return done.stdout


def make_sdist(folder: Path) -> Path:
    """The source distribution, made with the build tools of this environment."""
    make = "from setuptools import build_meta; import sys; print(build_meta.build_sdist(sys.argv[1]))"
    # A copy, for the build leaves its metadata beside the sources.
    tree = folder / "tree"
    left_out = shutil.ignore_patterns(".*", "build", "dist", "*.so", "__pycache__", "*.egg-info", "_built_with.py")
    shutil.copytree(ROOT, tree, ignore=left_out)
    run(sys.executable, "-c", make, folder, cwd=tree)
    (made,) = folder.glob("jvq_fast-*.tar.gz")
    return made


def check(version: str) -> None:
    python = find(version)
    if python is None:
        pytest.skip(f"no Python {version} that runs (set PYTHON{version.replace('.', '')} to one)")
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    with tempfile.TemporaryDirectory(prefix="jvq_fast_version_", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        sdist = make_sdist(folder)
        run(python, "-m", "venv", folder / "venv", env=environment)
        inside = folder / "venv" / "bin" / "python"
        run(inside, "-m", "pip", "install", "--quiet", "--no-cache-dir", sdist, env=environment, cwd=folder)
        assert "works" in run(inside, "-W", "error", "-c", SMOKE, env=environment, cwd=folder)
        assert "usage" in run(folder / "venv" / "bin" / "jvq-fast", "--help", env=environment, cwd=folder)


@functools.cache
def begin(long: bool) -> dict[str, Future[None]]:
    versions = OTHERS if long else OTHERS[:1]
    return {version: spare_time.suites().submit(check, version) for version in versions}


@pytest.mark.parametrize(
    "version", [OTHERS[0], *(pytest.param(version, marks=pytest.mark.long) for version in OTHERS[1:])]
)
def test_builds_from_the_source_distribution_and_runs(version: str, long: bool) -> None:
    begin(long)[version].result(850)
