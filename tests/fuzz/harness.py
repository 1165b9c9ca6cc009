"""Runs a fuzz target under Atheris: mutates, counts, ends in time, and shows the input that failed.

A target is a script with `check(data)`, which raises where the product is wrong, `seeds()`, `mutate(data, rng)`, which
knows the input's structure, and `plant()`, which makes the judge wrong in one place, so that a test can show that the
target would find such a difference.

    python tests/fuzz/decode.py --seconds 60            a minute of processor time
    python tests/fuzz/decode.py --runs 10000000 --corpus found/decode
    python tests/fuzz/decode.py --reproduce 6c7632      one input, in hex (or @FILE)

With the extensions of the fuzz build on the path (JVQ_FAST_FUZZ=1 python setup.py build) the fuzzer sees the branches
of the compiled code too; with any other build only those of the Python modules.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from options import given, idle, limits, read_options

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

SLOW = 5.0

REPRODUCES = "--reproduce" in sys.argv
if not REPRODUCES:
    import atheris

    # Atheris loads these two itself, but later, and the fuzzer takes a mutator only from what stands before it.
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
    from atheris import custom_mutator  # noqa: F401

    sys.setdlopenflags(flags)
    from atheris import core_with_libfuzzer

    # Read by tests/fuzz/coverage.c when an extension is loaded, so it stands above every import of the product.
    os.environ["JVQ_FAST_LIBFUZZER"] = core_with_libfuzzer.__file__


def instrumented() -> contextlib.AbstractContextManager[object]:
    """For the import of the product's Python modules: the fuzzer sees their branches."""
    if REPRODUCES:
        return contextlib.nullcontext()
    return atheris.instrument_imports(include=["jvq_fast"])


def pick(rng: random.Random, *choices: bytes) -> bytes:
    return choices[rng.randrange(len(choices))]


def run(
    check: Callable[[bytes], None],
    seeds: Callable[[], list[bytes]],
    mutate: Callable[[bytes, random.Random], bytes],
    plant: Callable[[], None],
    *,
    longest: int,
) -> None:
    """The target's command line. Ends the process: 0 when the budget is used up without a finding."""
    options = read_options()
    if options.plant:
        plant()
    if options.reproduce is not None or options.only_seeds:
        for data in seeds() if options.only_seeds else [given(options.reproduce)]:
            check(data)
        print("no fault")
        return
    if options.idle:
        idle()
    _Run(check, mutate, options).fuzz(seeds(), longest)


class _Run:
    def __init__(
        self,
        check: Callable[[bytes], None],
        mutate: Callable[[bytes, random.Random], bytes],
        options: argparse.Namespace,
    ) -> None:
        self._check = check
        self._mutate = mutate
        self._options = options
        self._executions = self._mutations = 0
        self._rng = random.Random()
        self._begin = self._told = time.process_time()

    def fuzz(self, seeds: list[bytes], longest: int) -> None:
        options = self._options
        self._scratch = Path(tempfile.mkdtemp(prefix="jvq_fast_fuzz"))
        self._found = options.corpus or self._scratch / "found"
        begin = self._scratch / "begin"
        for folder in (begin, self._found):
            folder.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds):
            assert len(seed) <= longest, f"a seed of {len(seed)} bytes"
            (begin / f"{number:04}").write_bytes(seed)
        arguments = [
            sys.argv[0],
            f"-seed={options.seed}",
            f"-max_len={longest}",
            "-len_control=0",
            *limits(options),
            "-rss_limit_mb=2048",
            "-verbosity=0",
            f"-artifact_prefix={options.artifacts}/",
            str(self._found),  # the first folder gets what opens new ground
            str(begin),
        ]
        atheris.Setup(arguments, self._once, custom_mutator=self._change)
        atheris.Fuzz()

    def _change(self, data: bytes, longest: int, seed: int) -> bytes:
        self._mutations += 1
        rng = self._rng
        rng.seed(seed)
        for _ in range(1 + rng.randrange(3)):
            data = atheris.Mutate(data, longest) if rng.random() < 0.4 else self._mutate(bytes(data), rng)
        return data[:longest]

    def _once(self, data: bytes) -> None:
        begin = time.process_time()
        self._check(data)
        took = time.process_time() - begin
        assert took < SLOW, f"took {took:.0f} s of the processor"
        self._executions += 1
        if self._executions % 64 == 0 or self._executions == self._options.runs:
            self._look()

    def _look(self) -> None:
        now = time.process_time()
        used = now - self._begin
        over = used >= self._options.seconds or self._executions >= self._options.runs
        if over or now - self._told >= 60:
            self._told = now
            told = {
                "executions": self._executions,
                "mutations": self._mutations,
                "kept": len(list(self._found.iterdir())),  # inputs that opened new ground
                "seconds": round(used, 1),
            }
            print(json.dumps(told), flush=True)
        if over:
            shutil.rmtree(self._scratch)
            os._exit(0)  # there is no way back out of libFuzzer
