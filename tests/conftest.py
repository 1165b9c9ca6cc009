"""What the whole suite shares: the long run, hypothesis profiles, real data, and children that always end.

``--long`` (or JVQ_FAST_LONG=1) runs everything whole. Without it each long test runs a seeded share of its cases,
the same share in every run with the same ``--share-seed``.
"""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
T = TypeVar("T")

hypothesis.settings.register_profile("share", max_examples=60, deadline=None, derandomize=True)
hypothesis.settings.register_profile("long", max_examples=2000, deadline=None, print_blob=True)
# For the slower builds: memory and checks count there, not the number of shapes; what fails is made small elsewhere.
hypothesis.settings.register_profile(
    "checked",
    max_examples=30,
    deadline=None,
    derandomize=True,
    phases=set(hypothesis.Phase) - {hypothesis.Phase.shrink},
)
for _profile in ("share", "long", "checked"):
    hypothesis.settings.register_profile(
        _profile,
        hypothesis.settings.get_profile(_profile),
        suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", default=os.environ.get("JVQ_FAST_LONG") == "1", help="run whole")
    parser.addoption("--share-seed", type=int, default=20261123, help="chooses the share of long tests without --long")


def pytest_configure(config: pytest.Config) -> None:
    for name in ("SIGINT", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            # As in a background job, or under nohup. Children inherit what is ignored, and not what is handled.
            signal.signal(number, lambda *_: None)
    chosen = os.environ.get("JVQ_FAST_HYPOTHESIS") or ("long" if config.getoption("--long") else "share")
    hypothesis.settings.load_profile(chosen)


def pytest_report_header(config: pytest.Config) -> list[str]:
    import jvq_fast
    from jvq_fast import _built_with

    whole = "whole" if config.getoption("--long") else f"a share, seed {config.getoption('--share-seed')}"
    return [f"jvq_fast: {Path(jvq_fast.__file__).parent}, {_built_with.VARIANT} build; long tests: {whole}"]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: bool(item.get_closest_marker("spare_time")))
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="runs in the long suite: make test-long"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    config = session.config
    if session.testsfailed or config.getoption("collectonly") or hasattr(config, "workerinput"):
        return
    spare = [item for item in session.items if item.get_closest_marker("spare_time")]
    for module in dict.fromkeys(item.getparent(pytest.Module) for item in spare):
        module.obj.begin(config.getoption("--long"))


@pytest.fixture(scope="session")
def long(pytestconfig: pytest.Config) -> bool:
    """Whether this is the long run."""
    return bool(pytestconfig.getoption("--long"))


@pytest.fixture
def share(request: pytest.FixtureRequest, long: bool) -> Callable[[Sequence[T], int], list[T]]:
    """``share(cases, n)``: all cases in the long run, else n of them, drawn by seed and test name, in their order."""
    seed = f"{request.config.getoption('--share-seed')}/{request.node.nodeid.partition('::')[2]}"

    def draw(cases: Sequence[T], n: int) -> list[T]:
        if long or n >= len(cases):
            return list(cases)
        return [cases[i] for i in sorted(random.Random(seed).sample(range(len(cases)), n))]

    return draw


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the source tree."""
    return ROOT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real market data, from JVQ_FAST_DATA, else ../shared/data beside the source tree."""
    folder = Path(os.environ.get("JVQ_FAST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real market data in {folder} (set JVQ_FAST_DATA)")
    return folder


@pytest.fixture(scope="session")
def run_python() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """``run_python(*arguments, timeout=60, check=True, cwd=None, **environment)`` runs this interpreter to its end.

    A failure shows the child's output; a child that outlives its time is killed.
    """

    def run(
        *arguments: str, timeout: float = 60, check: bool = True, cwd: Path | None = None, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        done = subprocess.run(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=cwd,
            env={**os.environ, **environment},
            check=False,
        )
        if check and done.returncode:
            pytest.fail(f"{arguments}: exit {done.returncode}\n{done.stdout[-8000:]}\n{done.stderr[-8000:]}")
        return done

    return run
