"""The suite once more with the safety checks of Cython and the assertions in C turned on."""

import functools
from concurrent.futures import Future

import pytest

import builds
import spare_time

pytestmark = pytest.mark.release_only

# These test what is written in Python: the simulator, the command line, the tests' own tools, the rules of coming back.
PYTHON_ALONE = (
    *("test_sim_*.py", "test_cli*.py", "test_market_rules.py", "test_readme.py", "test_examples.py", "test_doctor.py"),
    *("test_status.py", "test_proxy.py", "test_lag.py", "test_supervision.py", "test_trading_year.py", "test_twins.py"),
)


@functools.cache
def begin(long: bool) -> Future[int]:
    return spare_time.suites().submit(builds.run_suite, "debug", *sorted(builds.tests(*builds.HOSTILE)))


@pytest.mark.spare_time
def test_hostile_input_passes_with_every_check_on(long):
    assert begin(long).result(850) > 0


@pytest.mark.long
def test_so_does_the_rest_of_the_suite():
    files = builds.tests("test_*.py") - builds.tests(*builds.HOSTILE, *PYTHON_ALONE)
    assert builds.run_suite("debug", *sorted(files), timeout=840) > 0
