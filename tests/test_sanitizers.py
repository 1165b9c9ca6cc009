"""Hostile input and the rings under the address and undefined-behaviour sanitizers."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import builds

pytestmark = pytest.mark.release_only

SUITES = (
    "test_records.py",
    "test_ring.py",
    "test_decoder_*.py",
    "test_field_order.py",
    "test_hostile.py",
    "test_resume.py",
    "test_listener.py",
    "test_meter.py",
)


def runtimes() -> list[str]:
    """The sanitizers' libraries, which an uninstrumented interpreter has to load before all others."""
    compiler = shutil.which("cc")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("the sanitizers need Linux and a C compiler")
    found = []
    for library in ("libasan.so", "libubsan.so"):
        name = subprocess.run(
            [compiler, f"-print-file-name={library}"], capture_output=True, text=True, timeout=60, check=True
        ).stdout.strip()
        if not Path(name).is_absolute():
            pytest.skip(f"this compiler has no {library}")
        found.append(str(Path(name).resolve()))
    return found


def environment() -> dict[str, str]:
    return {
        "LD_PRELOAD": " ".join(runtimes()),
        # The interpreter itself leaks by design. Objects come from malloc, so that a read past a payload is seen.
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "PYTHONMALLOC": "malloc",
    }


def test_hostile_input_touches_no_foreign_memory_and_has_no_undefined_behaviour(root):
    settings = environment()
    files = sorted(str(path) for pattern in SUITES for path in (root / "tests").glob(pattern))
    assert builds.run_suite("sanitize", *files, timeout=840, **settings) > 0


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
