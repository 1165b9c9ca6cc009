"""The suite once more with the safety checks of Cython and the assertions in C turned on."""

import pytest

import builds

pytestmark = pytest.mark.release_only

# These test Python alone, the simulator's or the command line's, which no build changes.
PYTHON_ALONE = ("test_sim_*.py", "test_cli*.py", "test_market_rules.py", "test_readme.py", "test_examples.py")


def test_the_suite_passes_with_every_check_on():
    left_out = [f"--ignore-glob=tests/{pattern}" for pattern in PYTHON_ALONE]
    assert builds.run_suite("debug", *left_out, timeout=840) > 0
