"""The suite under the address and undefined-behaviour sanitizers."""

import functools
import subprocess
from concurrent.futures import Future

import pytest

import builds
import spare_time

pytestmark = pytest.mark.release_only

SERVERS = ("test_sim_*.py", "test_cli*.py", "test_official_client.py", "test_doctor.py", "test_status.py")
FAULTS = ("test_faults.py", "test_proxy.py", "test_supervision.py", "test_trading_year.py", "test_twins.py")


def environment() -> dict[str, str]:
    return {
        "LD_PRELOAD": builds.runtimes("libasan.so", "libubsan.so"),
        # The interpreter itself leaks by design. Objects come from malloc, so that a read past a payload is seen.
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "PYTHONMALLOC": "malloc",
    }


def run(files, **limit):
    assert builds.run_suite("sanitize", *sorted(files), **environment(), **limit) > 0


@functools.cache
def begin(long: bool) -> Future[None]:
    return spare_time.suites().submit(run, builds.tests(*builds.HOSTILE))


@pytest.mark.spare_time
def test_hostile_input_touches_no_foreign_memory_and_has_no_undefined_behaviour(long):
    begin(long).result(850)


@pytest.mark.long
@pytest.mark.parametrize("patterns", [SERVERS, FAULTS, None], ids=["servers", "faults", "feeds and the rest"])
def test_neither_does_the_rest_of_the_suite(patterns):
    if patterns is None:
        run(builds.tests("test_*.py") - builds.tests(*builds.HOSTILE, *SERVERS, *FAULTS), timeout=840)
    else:
        run(builds.tests(*patterns), timeout=840)


@pytest.mark.parametrize(
    ("fault", "report"),
    [
        ("overflow", "AddressSanitizer: heap-buffer-overflow"),
        ("shift", "runtime error: shift exponent"),
        ("add", "runtime error: signed integer overflow"),
    ],
)
def test_the_sanitizers_see_a_planted_fault(tmp_path, run_python, fault, report):
    settings = environment()
    source = tmp_path / "planted.c"
    source.write_text(
        "#include <stdlib.h>\n"
        "int overflow(int n) { volatile char *p = malloc((size_t)n); char c = p[n]; free((void *)p); return c; }\n"
        "int shift(int n) { return 1 << n; }\n"
        "int add(int n) { return n + 2147483647; }\n"
    )
    library = tmp_path / "planted.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", *builds.SANITIZE, source, "-o", library],
        timeout=60,
        check=True,
    )
    done = run_python("-c", f"import ctypes; ctypes.CDLL({str(library)!r}).{fault}(64)", check=False, **settings)
    assert done.returncode != 0
    assert report in done.stderr
