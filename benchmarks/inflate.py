"""Nanoseconds per message of raw DEFLATE alone, beside zlib, libdeflate and ISA-L.

    python -m benchmarks.inflate [--rounds N] [--shapes TEXT] [--compression 6|1|9|go|all] [--json FILE]

A C program inflates the same messages by turns, with this package's decoder and with each of the three libraries whose
headers are here (Debian: zlib1g-dev libdeflate-dev libisal-dev); all are checked to make the same text of every message
before anything is measured. Each number is the median over warm rounds; the spread is the middle half of the rounds.
"""

import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.libraries import NATIVE, ROOT, compile_with, left_out, versions
from benchmarks.machine import facts, one_core
from benchmarks.rounds import quartiles, read_options, write
from benchmarks.shapes import Shape, add_options, chosen, describe

OURS = "jvq_fast"


def measure(program: Path, each: Shape, rounds: int) -> dict[str, dict[str, float]]:
    """Per contender the median and the quartiles over the rounds, in nanoseconds per message, and times ours."""
    sent = b"".join(struct.pack("=I", len(payload)) + payload for payload in each.payloads)
    ran = subprocess.run([str(program), str(rounds)], input=sent, capture_output=True, timeout=600, check=False)
    if ran.returncode:
        raise SystemExit(f"{each.name}: {ran.stderr.decode().strip() or ran.returncode}")
    result: dict[str, dict[str, float]] = {}
    for line in ran.stdout.decode().splitlines():
        name, *taken = line.split()
        low, middle, high = quartiles(map(float, taken))
        result[name] = {"message_ns": middle, "low_ns": low, "high_ns": high}
    for value in result.values():
        value["ratio"] = value["message_ns"] / result[OURS]["message_ns"]
        value["text_mb_s"] = each.text_bytes / len(each.payloads) / value["message_ns"] * 1000
    return result


def line(name: str, value: dict[str, float]) -> str:
    spread = f"({value['low_ns']:.0f}–{value['high_ns']:.0f})"
    return f"  {name:12}{value['message_ns']:10.0f} {spread:18}{value['text_mb_s']:8.0f} MB/s{value['ratio']:8.2f} ×"


def main(arguments: Sequence[str] | None = None) -> int:
    options = read_options(__doc__, 41, arguments, add_options)
    found = versions()
    machine = facts() | found
    print(f"{machine['cpu'] or machine['system']}, {machine['cores']} cores")
    print(left_out(found), end="")
    print(f"ns per message, median of {options.rounds} rounds (middle half); text; times {OURS}\n")
    results = []
    with tempfile.TemporaryDirectory() as folder, one_core():
        program = Path(folder, "inflate")
        compile_with(found, [NATIVE / "inflate.c", ROOT / "src" / "inflate.c"], program)
        for each in chosen(options):
            taken = measure(program, each, options.rounds)
            print(describe(each), *(line(name, value) for name, value in taken.items()), sep="\n", flush=True)
            results.append(
                {"shape": each.name, "source": each.source, "compression": each.compression, "contenders": taken}
            )
    write(options, machine, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
