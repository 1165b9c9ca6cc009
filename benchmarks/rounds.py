"""What all benchmarks share: their command line, what many rounds come to, and the file with the numbers."""

import argparse
import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any


def read_options(
    description: str | None,
    rounds: int,
    arguments: Sequence[str] | None,
    *more: Callable[[argparse.ArgumentParser], None],
) -> argparse.Namespace:
    """`rounds` by default, `json`, a path or None, and what each of ``more`` adds."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"warm rounds per shape (default {rounds})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there as well")
    for add in more:
        add(parser)
    options = parser.parse_args(arguments)
    if options.rounds < 2:
        parser.error("--rounds must be at least 2")
    return options


def quartiles(values: Iterable[float]) -> tuple[float, float, float]:
    """Lower, median, upper."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def write(options: argparse.Namespace, machine: dict[str, Any], shapes: list[dict[str, Any]]) -> None:
    """To the file of `--json`, if any."""
    if options.json:
        report = {"machine": machine, "rounds": options.rounds, "shapes": shapes}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
