"""Runs a fuzz target in C: libFuzzer mutates, and the sanitizers of addresses and undefined behaviour watch.

A target is `native/NAME.c`, which calls abort() where the product is wrong; with PLANTED defined its judge is wrong in
one place, so that a test can show that the target would find such a difference. The script beside has the seeds. The
command line is that of harness.py's targets.
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from options import end_with_parent, given, idle, limits, read_options

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

import builds  # noqa: E402

# The fuzzer is started anew after each part: it tells how many executions there were when it ends.
FIRST_PART, PART_SECONDS = 50_000, 60


def compiled(name: str, folder: Path, *arguments: str) -> Path:
    """The target as a program."""
    program = folder / name
    source, include = ROOT / "tests" / "fuzz" / "native" / f"{name}.c", ROOT / "jvq_fast" / "include"
    subprocess.run(
        ["clang", *builds.LIBFUZZER, f"-I{include}", source, *arguments, "-o", program], check=True, timeout=300
    )
    return program


def run(
    name: str,
    arguments: Sequence[str],
    seeds: Callable[[], Iterable[bytes]],
    *,
    longest: int,
    tokens: Sequence[bytes] = (),
) -> None:
    """The target's command line. ``arguments`` of clang: the product's sources, and libraries."""
    options = read_options()
    if options.idle:
        idle()
    if not builds.has_libfuzzer():
        sys.exit(f"this target needs {builds.LIBFUZZER_NEEDS}")
    with tempfile.TemporaryDirectory(prefix="jvq_fast_fuzz") as scratch:
        folder = Path(scratch)
        program = compiled(name, folder, *(["-DPLANTED"] if options.plant else []), *arguments)
        begin, found = folder / "begin", options.corpus or folder / "found"
        for each in (begin, found, options.artifacts):
            each.mkdir(parents=True, exist_ok=True)
        inputs = [given(options.reproduce)] if options.reproduce is not None else seeds()
        for number, data in enumerate(inputs):
            assert len(data) <= longest, f"a seed of {len(data)} bytes"
            (begin / f"{number:05}").write_bytes(data)
        if options.reproduce is not None or options.only_seeds:
            ran = run_program(program, *sorted(begin.iterdir()))
            print("no fault" if ran.returncode == 0 else ran.stdout[-8000:])
            sys.exit(ran.returncode)
        more = [f"-max_len={longest}"]
        if tokens:
            dictionary = folder / "tokens"
            dictionary.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in each) + '"\n' for each in tokens))
            more.append(f"-dict={dictionary}")
        fuzz(program, options, found, begin, more)


def fuzz(program: Path, options: argparse.Namespace, found: Path, begin: Path, more: Sequence[str]) -> None:
    """Until the budget is used up; tells after each part. Ends the process where something is found."""
    executions = mutations = 0
    before = processor_seconds()
    size = FIRST_PART
    for part in itertools.count():
        known = len(list(found.iterdir())) + len(list(begin.iterdir()))
        ran = run_program(
            program, *more, f"-seed={options.seed + 1000 * part}", f"-runs={min(size, options.runs - executions)}",
            f"-artifact_prefix={options.artifacts}/", *limits(options),
            "-print_final_stats=1", found, begin,  # the first folder gets what opens new ground
        )  # fmt: skip
        if ran.returncode:
            print(ran.stdout[-8000:], flush=True)
            sys.exit(ran.returncode)
        stats = dict(line.split(":")[-2:] for line in ran.stdout.splitlines() if line.startswith("stat::"))
        done = int(stats["number_of_executed_units"])
        executions += done
        mutations += max(0, done - known)
        used = processor_seconds() - before
        told = {
            "executions": executions,
            "mutations": mutations,
            "kept": len(list(found.iterdir())),  # inputs that opened new ground
            "seconds": round(used, 1),
        }
        print(json.dumps(told), flush=True)
        if used >= options.seconds or executions >= options.runs:
            return
        size = max(FIRST_PART, int(executions / used * min(PART_SECONDS, options.seconds - used)))


def run_program(program: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    # What was freed is never looked at again; a long memory of it would be a slow one.
    asan = "quarantine_size_mb=1:detect_leaks=0"
    # A smaller input in place of each that is known would be a file every hundred executions.
    options = ("-rss_limit_mb=2048", "-detect_leaks=0", "-reduce_inputs=0")
    return subprocess.run(
        [str(program), *options, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
        env={**os.environ, "ASAN_OPTIONS": asan, "UBSAN_OPTIONS": "print_stacktrace=1"},
        preexec_fn=end_with_parent,
    )  # fmt: skip


def processor_seconds() -> float:
    """Of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
