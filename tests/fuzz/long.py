"""Runs the fuzz targets for long, one after another, each in as many processes as there are processors, and counts.

They take the time that no other process wants.

    python tests/fuzz/long.py                           all, ten minutes of processor time per process
    python tests/fuzz/long.py --runs 10000000 decode    ten million executions of one

Inputs that opened new ground are in build/found/TARGET, which the next run begins with; what failed is in
build/found/TARGET-failed.
"""

import argparse
import collections
import importlib.util
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.append(str(FOLDER.parent))

import builds  # noqa: E402

IN_PYTHON = ("decode", "inflate", "frames", "captures", "texts", "replies")
IN_C = ("native_inflate", "native_rows")
FOUND = builds.ROOT / "build" / "found"


class Total:
    """What the processes of a target have told so far."""

    def __init__(self, target: str, jobs: int) -> None:
        self.target = target
        self._told: list[dict[str, float]] = [{}] * jobs
        self.end = ""

    def tell(self, job: int, told: dict[str, float]) -> None:
        self._told[job] = told
        print(self, flush=True)

    def __str__(self) -> str:
        executions, seconds = (sum(each.get(what, 0) for each in self._told) for what in ("executions", "seconds"))
        kept = max(each.get("kept", 0) for each in self._told)
        rate = executions / seconds if seconds else 0
        return (
            f"{self.target:15} {executions:13,.0f} executions {seconds:9,.0f} s of processor time "
            f"{rate:9,.0f} per second {kept:6,} inputs kept{self.end}"
        )


def run(target: str, options: argparse.Namespace) -> Total:
    environment = dict(os.environ)
    if target in IN_PYTHON:
        environment["PYTHONPATH"] = str(builds.build("fuzz"))
        environment.pop("PYTHONSAFEPATH", None)
    failed = FOUND / f"{target}-failed"
    failed.mkdir(parents=True, exist_ok=True)
    known = set(failed.iterdir())
    total = Total(target, options.jobs)

    def one(job: int) -> None:
        command = [sys.executable, str(FOLDER / f"{target}.py"), "--idle", f"--seed={options.seed + job}"]
        command += [f"--corpus={FOUND / target}", f"--artifacts={failed}", f"--seconds={options.seconds}"]
        if options.runs:
            command.append(f"--runs={-(-options.runs // options.jobs)}")
        output: collections.deque[str] = collections.deque(maxlen=100)
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        ) as child:  # fmt: skip
            assert child.stdout
            for line in child.stdout:
                if line.startswith('{"executions"'):
                    total.tell(job, json.loads(line))
                else:
                    output.append(line)
        if child.returncode:
            found = sorted(map(str, set(failed.iterdir()) - known))
            total.end = f"  FAILED: {' '.join(found)}" if found else "  ENDED EARLY"
            print(*output, f"{target}: exit {child.returncode}", sep="", flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(one, range(options.jobs)))
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seconds", type=float, help="of processor time per process (default 600, or what --runs takes)"
    )
    parser.add_argument("--runs", type=int, help="executions of each target, by all processes together")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per processor)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9, help="of the first process")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(IN_PYTHON + IN_C))
    options = parser.parse_args()
    options.seconds = options.seconds or (float("inf") if options.runs else 600.0)
    unknown = set(options.targets).difference(IN_PYTHON, IN_C)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    targets = options.targets or [*IN_C, *IN_PYTHON]
    if not importlib.util.find_spec("atheris"):
        targets = left_out(targets, IN_PYTHON, "atheris (it has wheels for CPython on Linux, x86_64)")
    if not builds.has_libfuzzer():
        targets = left_out(targets, IN_C, builds.LIBFUZZER_NEEDS)
    totals = [run(target, options) for target in targets]
    print(*totals, sep="\n")
    return any(each.end for each in totals) or not totals


def left_out(targets: list[str], without: tuple[str, ...], needs: str) -> list[str]:
    missing = [target for target in targets if target in without]
    if missing:
        print(f"without {', '.join(missing)}, which need {needs}")
    return [target for target in targets if target not in without]


if __name__ == "__main__":
    sys.exit(main())
