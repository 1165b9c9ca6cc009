"""Draws docs/decode.svg from the numbers of a benchmark: microseconds per record, ours beside the official client.

    python -m benchmarks.decode --json docs/decode.json
    python docs/chart.py                                    draws, and prints the sentence below the chart

Nothing here is measured or typed in: every bar and number comes from the JSON file.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# Ours calls a handler for each row; of the client only inflating and parsing are counted.
OURS, PEER = "jvq_fast, handlers", "official parser"

TITLE = "Microseconds per record, from compressed message to handler (shorter is better)"

LABELS, BARS, RIGHT = 172, 470, 118
TOP, GROUP, BAR = 64, 46, 15


@dataclass(frozen=True)
class Pair:
    """One shape of message: microseconds per record of both."""

    shape: str
    ours: float
    peer: float

    @property
    def ratio(self) -> float:
        return self.peer / self.ours


def pairs(measured: dict[str, Any]) -> list[Pair]:
    """What the chart shows, in the benchmark's order."""
    return [
        Pair(
            each["shape"],
            each["contenders"][OURS]["record_us"],
            each["contenders"][PEER]["record_us"],
        )
        for each in measured["shapes"]
    ]


def summary(measured: dict[str, Any]) -> dict[str, str]:
    """The numbers that texts may quote."""
    ratios = sorted(pair.ratio for pair in pairs(measured))
    machine = measured["machine"]
    return {
        "least": f"{ratios[0]:.0f}",
        "most": f"{ratios[-1]:.0f}",
        "client": machine["jvQuant"],
        "python": machine["python"],
        "cores": str(machine["cores"]),
        "rounds": str(measured["rounds"]),
    }


def number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def draw(measured: dict[str, Any]) -> str:
    """The chart as SVG."""
    shown = pairs(measured)
    facts = summary(measured)
    most = max(pair.peer for pair in shown)
    height = TOP + GROUP * len(shown) + 30
    width = LABELS + BARS + RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-label="Microseconds per record: jvq_fast beside the official client">',
        "<style>text{font:13px system-ui,sans-serif;fill:#1f2328}.t{font-weight:600;font-size:15px}.s{fill:#59636e}"
        ".o{fill:#0969da}.p{fill:#afb8c1}.b{fill:#fff}"
        "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.s{fill:#9198a1}.o{fill:#4493f8}.p{fill:#656c76}"
        ".b{fill:#0d1117}}</style>",
        f'<rect class="b" width="{width}" height="{height}" rx="6"/>',
        f'<text class="t" x="16" y="24">{TITLE}</text>',
        f'<rect class="o" x="16" y="36" width="12" height="12"/><text x="34" y="47">jvq_fast</text>'
        f'<rect class="p" x="110" y="36" width="12" height="12"/><text x="128" y="47">official client, '
        f"jvQuant {facts['client']}, its parser alone</text>",
    ]
    for i, pair in enumerate(shown):
        y = TOP + GROUP * i
        parts.append(f'<text x="{LABELS - 12}" y="{y + 20}" text-anchor="end">{pair.shape}</text>')
        for at, kind, value, note in (
            (y, "o", pair.ours, f"{pair.ratio:.1f} times as fast"),
            (y + BAR + 1, "p", pair.peer, ""),
        ):
            length = max(1.0, BARS * value / most)
            beside = f'{number(value)}<tspan class="s" dx="8">{note}</tspan>'
            parts.append(
                f'<rect class="{kind}" x="{LABELS}" y="{at}" width="{length:.1f}" height="{BAR}"/>'
                f'<text x="{LABELS + length + 6:.1f}" y="{at + 12}">{beside}</text>'
            )
    parts.append(
        f'<text class="s" x="16" y="{height - 12}">medians of {facts["rounds"]} warm rounds in one process; '
        f"Python {facts['python']}, {facts['cores']} cores; benchmarks/decode.py</text></svg>"
    )
    return "\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path, nargs="?", default=HERE / "decode.json", help="what --json FILE wrote")
    parser.add_argument("svg", type=Path, nargs="?", default=HERE / "decode.svg", help="the chart to write")
    options = parser.parse_args(arguments)
    measured = json.loads(options.json.read_text())
    options.svg.write_text(draw(measured))
    facts = summary(measured)
    print(f"{facts['least']} to {facts['most']} times as fast as the parser of jvQuant {facts['client']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
