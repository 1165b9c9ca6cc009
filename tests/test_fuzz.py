"""The fuzz targets of tests/fuzz: some processor time each, and in the long run ten million executions each.

Those in C take half of that time, and a hundred million executions; `make fuzz` runs all for as long as one likes.

Each runs in a child, and takes only the time of the processors that no other process wants: so they begin before the
first test of the session, and are judged after its last. Every execution is judged in full by the target's second
implementation. What fails is shown as hex, with the command that shows it again.
"""

import functools
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

import builds
import spare_time

pytestmark = [pytest.mark.release_only, pytest.mark.spare_time]

HAVE_ATHERIS = importlib.util.find_spec("atheris") is not None

FOLDER = Path(__file__).parent / "fuzz"
IN_PYTHON = ("decode", "inflate", "frames", "captures", "texts", "replies")
IN_C = ("native_inflate", "native_rows")
TARGETS = (*IN_PYTHON, *IN_C)
SECONDS = dict.fromkeys(IN_PYTHON, 40) | dict.fromkeys(IN_C, 20)
SECONDS_TO_FIND = 60  # what is planted, at most
# No test may take longer than pytest's faulthandler_timeout, so the long run comes in parts.
PARTS = 20
RUNS = dict.fromkeys(IN_PYTHON, 10_000_000 // PARTS) | dict.fromkeys(IN_C, 100_000_000 // PARTS)
TIMEOUT = 850.0
# Inputs that open new ground, for targets of which nothing but the compiled code is told to the fuzzer.
LEAST_KEPT = 100


def missing(target: str) -> str:
    """Why this target can't run here, or nothing."""
    if target in IN_C:
        return "" if builds.has_libfuzzer() else f"not fuzzed in C: needs {builds.LIBFUZZER_NEEDS}"
    return "" if HAVE_ATHERIS else "not fuzzed: atheris is not installed (it has wheels for CPython on Linux, x86_64)"


class Run:
    """A target in a child."""

    def __init__(self, target: str, artifacts: Path, *arguments: str) -> None:
        self.target = target
        self._artifacts = artifacts
        self._arguments = [f"--artifacts={artifacts}", *arguments]
        self._command = [sys.executable, str(FOLDER / f"{target}.py")]

    def run(self) -> "Run":
        self._artifacts.mkdir(parents=True, exist_ok=True)
        self._environment = dict(os.environ)
        if self.target in IN_PYTHON:
            self._environment["PYTHONPATH"] = str(builds.build("fuzz"))
        self._environment["TMPDIR"] = str(self._artifacts)  # a child that finds a fault cannot tidy up
        self._environment.pop("PYTHONSAFEPATH", None)
        self.done = self._run(*self._arguments)
        return self

    def _run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return spare_time.run(*self._command, *arguments, env=self._environment)

    @property
    def findings(self) -> list[Path]:
        return sorted(path for path in self._artifacts.iterdir() if path.is_file())

    def reproduce(self, finding: Path, *arguments: str) -> int:
        return self._run(f"--reproduce=@{finding}", *arguments).returncode

    def explain(self) -> str:
        before = ""
        if self.target in IN_PYTHON:
            before = f"  JVQ_FAST_FUZZ=1 python setup.py build\n  export PYTHONPATH={self._environment['PYTHONPATH']}\n"
        shown = [
            f"to see it again:\n{before}"
            f"  python tests/fuzz/{self.target}.py --reproduce {path.read_bytes().hex() or repr('')}"
            for path in self.findings
        ]
        return "\n".join([f"{self.target}: exit {self.done.returncode}", self.done.stdout[-8000:], *shown])

    def told(self) -> dict[str, float]:
        """The last figures that the child told."""
        figures: dict[str, float] = json.loads(self.done.stdout.strip().splitlines()[-1])
        return figures


class Runs:
    """All runs of a session of tests."""

    def __init__(self, long: bool) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="jvq_fast_fuzz_", ignore_cleanup_errors=True)
        targets = [target for target in TARGETS if not missing(target)]
        # A budget of processor time is the same for all, however many there are; one of executions is not.
        self._workers = spare_time.Workers(os.cpu_count() or 1 if long else 2 * len(targets))
        folder = Path(self._scratch.name)
        self.planted = {
            target: self._submit(
                target, folder / f"{target}-planted", "--plant", f"--seconds={SECONDS_TO_FIND}", "--seed=1"
            )
            for target in targets
        }
        self.real = {}
        for part in range(PARTS if long else 1):
            for target in targets:
                budget = f"--runs={RUNS[target]}" if long else f"--seconds={SECONDS[target]}"
                corpus = folder / "corpus" / target  # what a part found the next one begins with
                self.real[target, part] = self._submit(
                    target, folder / f"{target}-{part}", budget, f"--seed={20261123 + part}", f"--corpus={corpus}"
                )

    def _submit(self, target: str, artifacts: Path, *arguments: str) -> "Future[Run]":
        return self._workers.submit(Run(target, artifacts, "--idle", *arguments).run)


@functools.cache
def begin(long: bool) -> Runs:
    return Runs(long)


@pytest.fixture
def runs(long: bool) -> Runs:
    return begin(long)


@pytest.mark.parametrize("target", TARGETS)
def test_a_planted_fault_is_found_and_reproduced(target: str, runs: Runs, tmp_path: Path) -> None:
    if missing(target):
        pytest.skip(missing(target))
    by_seeds = Run(target, tmp_path, "--plant", "--only-seeds").run()
    assert by_seeds.done.returncode == 0, "the seeds find it, so this says nothing of the fuzzer\n" + by_seeds.explain()
    run = runs.planted[target].result(TIMEOUT)
    assert run.done.returncode != 0, run.explain()
    assert len(run.findings) == 1, run.explain()
    assert run.findings[0].read_bytes().hex() in run.explain()
    assert run.reproduce(run.findings[0], "--plant") != 0
    assert run.reproduce(run.findings[0]) == 0, run.explain()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "part" in metafunc.fixturenames:
        parts = PARTS if metafunc.config.getoption("--long") else 1
        # In the order in which they run, or a test would wait for others too.
        metafunc.parametrize(("part", "target"), [(part, target) for part in range(parts) for target in TARGETS])


def test_whatever_comes_nothing_crashes_and_all_agrees(target: str, part: int, runs: Runs, long: bool) -> None:
    if missing(target):
        pytest.skip(missing(target))
    run = runs.real[target, part].result(TIMEOUT)
    assert run.done.returncode == 0, run.explain()
    assert not run.findings, run.explain()
    told = run.told()
    print(target, told)
    assert told["executions"] >= (RUNS[target] if long else 1000), told
    assert told["mutations"] > told["executions"] / 2, told
    if target in ("decode", *IN_C) and part == 0:
        assert told["kept"] >= LEAST_KEPT, f"the fuzzer does not see the compiled code: {told}"


def test_the_long_run_counts_what_its_processes_did() -> None:
    if missing("native_rows"):
        pytest.skip(missing("native_rows"))
    done = spare_time.run(sys.executable, FOLDER / "long.py", "--runs=120000", "--jobs=2", "native_rows")
    assert done.returncode == 0, done.stdout[-8000:]
    assert "120,000 executions" in done.stdout.splitlines()[-1]


# Found by the fuzzer, and mended.
ONCE = {
    "data behind a CLOSE that is illegal and alone in its read": ("frames", "40880203ec820178"),
    "half a surrogate pair in a refusal": ("replies", (b"\0" + rb'{"code":"-1","message":"\ud800"}').hex()),
    "the end of a token behind what repr() escapes to its beginning": (
        "replies",
        "067b22636f6465223a20302c2022736572766572223a20223a5c756666663061316232633364346535663630373138323933613462356336"
        "643765386673227d",
    ),
}


@pytest.mark.parametrize("case", ONCE)
def test_what_failed_once_fails_no_more(case: str, run_python: Callable[..., object]) -> None:
    target, data = ONCE[case]
    run_python(str(FOLDER / f"{target}.py"), "--reproduce", data)
