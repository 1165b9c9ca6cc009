"""The suite once more with the safety checks of Cython and the assertions in C turned on."""

import pytest

import builds

pytestmark = pytest.mark.release_only

# These test what is written in Python: the simulator, the command line, the tests' own tools, the rules of coming back.
PYTHON_ALONE = (
    *("test_sim_*.py", "test_cli*.py", "test_market_rules.py", "test_readme.py", "test_examples.py", "test_doctor.py"),
    *("test_status.py", "test_proxy.py", "test_lag.py", "test_supervision.py", "test_trading_year.py", "test_twins.py"),
)


def test_the_suite_passes_with_every_check_on(long):
    files = builds.tests("test_*.py") - builds.tests(*PYTHON_ALONE) if long else builds.tests(*builds.HOSTILE)
    assert builds.run_suite("debug", *sorted(files), timeout=840) > 0
