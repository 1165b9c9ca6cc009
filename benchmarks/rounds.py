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
    parser.add_argument("--rounds", type=int, default=rounds, help=f"of each measurement, 2 or more (default {rounds})")
    parser.add_argument("--json", type=writable, metavar="FILE", help="write the numbers there as well")
    for add in more:
        add(parser)
    options = parser.parse_args(arguments)
    if options.rounds < 2:
        parser.error(f"--rounds must be at least 2, not {options.rounds}")
    return options


def writable(text: str) -> Path:
    """A file that can be written once all is measured, for argparse."""
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder, or in none that is there")
    return path


def above_zero(text: str) -> float:
    """A number for argparse."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return value


def at_least_one(text: str) -> int:
    """A whole number for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return value


def quartiles(values: Iterable[float]) -> tuple[float, float, float]:
    """Lower, median, upper."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def write(options: argparse.Namespace, machine: dict[str, Any], shapes: list[dict[str, Any]]) -> None:
    """To the file of `--json`, if any."""
    if options.json:
        report = {"machine": machine, "rounds": options.rounds, "shapes": shapes}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
