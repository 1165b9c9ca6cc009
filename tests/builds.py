"""Builds of the extensions other than the release: where they lie, how the suite runs under them."""

import fcntl
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

import spare_time

ROOT = Path(__file__).resolve().parent.parent

_building = threading.Lock()
_failed: dict[str, str] = {}
NICE = ("nice", "-n", "10")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")

LIBFUZZER = (
    *("-std=c11", "-O2", "-g", "-UNDEBUG", "-ffp-contract=off", "-fno-omit-frame-pointer"),
    *("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=undefined"),
    # What is compared with what taught the fuzzer nothing here, and told it in half of the time.
    "-fno-sanitize-coverage=trace-cmp",
)
LIBFUZZER_NEEDS = "clang with libFuzzer, and zlib's header (Debian: clang libclang-rt-dev zlib1g-dev)"


# The tests of what meets hostile input and moves memory. The rest of the suite has its turn in the long run.
HOSTILE = (
    "test_records.py",
    "test_ring.py",
    "test_decoder_*.py",
    "test_field_order.py",
    "test_hostile.py",
    "test_resume.py",
    "test_listener.py",
    "test_meter.py",
    "test_callbacks.py",
)


def tests(*patterns: str) -> set[str]:
    """The paths of the test files that match."""
    found = {str(path) for pattern in patterns for path in (ROOT / "tests").glob(pattern)}
    assert found, patterns
    return found


def build(variant: str) -> Path:
    """Build a variant of setup.py's (what is built already stays), returning the folder to import from."""
    with _building:
        assert variant not in _failed, _failed[variant]
        return _build(variant)


@functools.cache
def _build(variant: str) -> Path:
    folder = ROOT / "build"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        # The child holds it too: one that outlives its session of tests is waited for by the next.
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = spare_time.run(
            *NICE,
            *(sys.executable, "setup.py", "build_py", "--force", "build", "-j2"),
            cwd=ROOT,
            env={**os.environ, f"JVQ_FAST_{variant.upper()}": "1"},
            pass_fds=[lock.fileno()],
        )
    if done.returncode:
        _failed[variant] = done.stdout[-8000:]
        pytest.fail(_failed[variant])
    return ROOT / "build" / variant / f"lib-{sys.implementation.cache_tag}"


@functools.cache
def has_libfuzzer() -> bool:
    """Whether fuzz targets in C can be compiled."""
    source = (
        "#include <zlib.h>\nint LLVMFuzzerTestOneInput(const Bytef *d, size_t n) { return d && n && zlibVersion(); }"
    )
    with tempfile.TemporaryDirectory() as folder:
        command = ["clang", *LIBFUZZER, "-x", "c", "-", "-lz", "-o", str(Path(folder, "target"))]
        try:
            done = subprocess.run(command, input=source.encode(), capture_output=True, timeout=300, check=False)
        except FileNotFoundError:
            return False
    return done.returncode == 0


def runtimes(*libraries: str) -> str:
    """The sanitizers' libraries, for LD_PRELOAD: an uninstrumented interpreter has to load them before all others."""
    compiler = shutil.which("cc")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("the sanitizers need Linux and a C compiler")
    found = []
    for library in libraries:
        name = subprocess.run(
            [compiler, f"-print-file-name={library}"], capture_output=True, text=True, timeout=60, check=True
        ).stdout.strip()
        if not Path(name).is_absolute():
            pytest.skip(f"this compiler has no {library}")
        found.append(str(Path(name).resolve()))
    return " ".join(found)


def run_suite(variant: str, *arguments: str, timeout: float = spare_time.PATIENCE, **environment: str) -> int:
    """Run pytest under a build, in a child; returns how many tests passed, fails with the child's output."""
    child = {
        **os.environ,
        # The folder of the build, not the source tree, is where this child and its own children import from.
        "PYTHONPATH": str(build(variant)),
        "PYTHONSAFEPATH": "1",
        "JVQ_FAST_HYPOTHESIS": "checked",
        "JVQ_FAST_LONG": "0",
        **environment,
    }
    done = spare_time.run(
        *NICE,
        # Only Python's own streams are captured: a sanitizer's report must outlive the process that it ends.
        *(sys.executable, "-m", "pytest", "--capture=sys", "-p", "no:cacheprovider", "-m", "not release_only"),
        *("--numprocesses=2", "--dist=loadfile", *arguments),
        cwd=ROOT,
        env=child,
        timeout=timeout,
    )
    output = done.stdout
    assert done.returncode == 0, output[-20000:]
    assert f"{variant} build" in output, output[:2000]
    passed = re.search(r"(\d+) passed", output)
    assert passed, output[-2000:]
    return int(passed[1])
