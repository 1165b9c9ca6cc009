"""The suite once more with the safety checks of Cython and the assertions in C turned on."""

import pytest

import builds

pytestmark = pytest.mark.release_only


def test_the_suite_passes_with_every_check_on():
    assert builds.run_suite("debug", timeout=840) > 0
