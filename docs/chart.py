"""Draws the charts of this folder, each NAME.png from the NAME.json that a benchmark wrote; needs the extra `bench`.

    python -m benchmarks.decode --json docs/decode.json         so also latency and throughput
    python docs/chart.py                                        draws all, and prints the sentence that each bears out

Nothing here is measured or typed in: every bar and number comes from the JSON file. The PNG holds the SHA-256 of the
one it was drawn from, as `Source`.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
OURS, OFFICIAL, IN_C = "jvq_fast", "official parser", "C: "
SPINNING, IN_CYTHON, CLIENT = "jvq_fast-spinning", "jvq_fast-cython", "official"
BEAST, BEAST_SPINNING = "beast-sleeping", "beast-spinning"
COLOURS = {"ours": "#0969da", "ours, other": "#54aeff", "C": "#57606a", "C, other": "#8c959f", "official": "#c4cbd2",
           "picows": "#f2a65a", "aiohttp": "#f6c48f", "websockets": "#fae1c4"}  # fmt: skip
# What is drawn of the clients, each with a label and a colour.
CLIENTS = {
    OURS: ("jvq_fast on uvloop", "ours"),
    IN_CYTHON: ("jvq_fast, handler in Cython", "ours, other"),
    SPINNING: ("jvq_fast, busy_poll", "ours, other"),
    BEAST: ("C++: Boost.Beast", "C"),
    BEAST_SPINNING: ("C++: Boost.Beast, spinning", "C, other"),
    "picows": ("picows in Python", "picows"),
    "aiohttp": ("aiohttp", "aiohttp"),
    "websockets": ("websockets", "websockets"),
    CLIENT: ("the official client", "official"),
}


@dataclass(frozen=True)
class Series:
    """Bars of one kind: a value for each group, None where there is none, and what is said beside it."""

    label: str
    colour: str
    values: list[float | None]
    notes: list[str]


@dataclass(frozen=True)
class Chart:
    """Groups of horizontal bars, shorter is better, on a logarithmic axis."""

    title: str
    axis: str
    groups: list[str]
    series: list[Series]
    footnote: str
    sentence: str


def number(value: float) -> str:
    return f"{value:,.2f}" if value < 10 else f"{value:,.0f}"


def times(value: float) -> str:
    return f"{value:.2f} ×" if value < 10 else f"{value:.0f} ×"


def between(values: Sequence[float], digits: int) -> str:
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def machine(measured: dict[str, Any], *names: str) -> str:
    """What a footnote says of where the numbers come from; of the names, those that were there."""
    facts = measured["machine"]
    versions = "".join(f", {name} {facts[name]}" for name in names if name in facts)
    return (
        f"medians of {measured['rounds']} warm rounds; Python {facts['python']}{versions}; {facts['cores']} cores, "
        f"{facts['cpu']}"
    )


def decode(measured: dict[str, Any]) -> Chart:
    """Nanoseconds per record of the messages that zlib compressed at level 6."""
    shapes = [each for each in measured["shapes"] if each["compression"] == "6"]
    taken = [{name: value["record_ns"] for name, value in each["contenders"].items()} for each in shapes]
    best = [min((value for name, value in each.items() if name.startswith(IN_C)), default=None) for each in taken]

    ours = [each[OURS] for each in taken]
    official = [each[OFFICIAL] / each[OURS] for each in taken]
    in_c = [value / each for value, each in zip(best, ours, strict=True) if value is not None]

    def beside(label: str, colour: str, values: list[float | None]) -> Series:
        notes = [times(value / each) if value is not None else "" for value, each in zip(values, ours, strict=True)]
        return Series(label, COLOURS[colour], values, notes)

    series = [Series(OURS, COLOURS["ours"], list(ours), [""] * len(ours))]
    sentence = f"{between(official, 0)} times as fast as the parser of jvQuant {measured['machine']['jvQuant']}"
    if in_c:
        series.append(beside("the best of zlib, libdeflate and ISA-L, with a parser in C", "C", best))
        sentence += f", {between(in_c, 2)} times as fast as the best in C"
    series.append(beside("the official client's parser", "official", [each[OFFICIAL] for each in taken]))
    return Chart(
        title="From compressed message to records: nanoseconds per record, shorter is better",
        axis="ns per record, logarithmic",
        groups=[each["shape"] for each in shapes],
        series=series,
        footnote=machine(measured, "jvQuant", "zlib", "libdeflate", "ISA-L"),
        sentence=sentence,
    )


def clients(groups: Sequence[dict[str, float]], among: Sequence[str]) -> list[Series]:
    """Of each client that is there, its values, each with how many times ours of the group that is."""
    series = []
    for name in (name for name in CLIENTS if name in among and any(name in each for each in groups)):
        label, colour = CLIENTS[name]
        notes = [times(each[name] / each[OURS]) if name in each and name != OURS else "" for each in groups]
        series.append(Series(label, COLOURS[colour], [each.get(name) for each in groups], notes))
    return series


def latency(measured: dict[str, Any]) -> Chart:
    """Microseconds from the socket to the end of a callback, by rate; clients that fall behind are left out."""
    shapes = [each for each in measured["shapes"] if each["rate"]]
    groups = [
        {name: value["p50_us"] for name, value in each["contenders"].items()
         if "p50_us" in value and not value["falls_behind"]}
        for each in shapes
    ]  # fmt: skip
    first = groups[0]
    sentence = f"{number(first[OURS])} µs from the socket to the end of a Python callback at {shapes[0]['shape']}"
    if BEAST in first:
        sentence += f", {first[OURS] / first[BEAST]:.2f} times what a Boost.Beast client in C++ takes"
    if SPINNING in first:
        sentence += f"; {number(first[SPINNING])} µs with `busy_poll`"
        if BEAST_SPINNING in first:
            sentence += f", {first[SPINNING] / first[BEAST_SPINNING]:.2f} times one that spins"
    return Chart(
        title="From the socket to the end of the callback: median in microseconds, shorter is better",
        axis="µs, logarithmic",
        groups=[each["shape"] for each in shapes],
        series=clients(groups, [name for name in CLIENTS if name != IN_CYTHON]),
        footnote=machine(measured, "uvloop", "Boost", "jvQuant", "websockets", "aiohttp", "picows"),
        sentence=sentence,
    )


def throughput(measured: dict[str, Any]) -> Chart:
    """Nanoseconds a message in a flood."""
    flood = next(each for each in measured["shapes"] if each["shape"] == "flood")
    taken = {name: 1e9 / value["messages_s"] for name, value in flood["contenders"].items() if name in CLIENTS}
    sentence = f"a flood of {flood['contenders'][OURS]['messages_s']:,.0f} messages/s"
    if CLIENT in taken:
        sentence += f", {taken[CLIENT] / taken[OURS]:.0f} times what the official client takes"
    if BEAST in taken:
        sentence += f" and {taken[BEAST] / taken[OURS]:.2f} times the Boost.Beast client"
        if IN_CYTHON in taken:
            sentence += f" ({taken[BEAST] / taken[IN_CYTHON]:.2f} times with a handler in Cython)"
    return Chart(
        title="A flood of real packets over loopback: nanoseconds per message, shorter is better",
        axis="ns per message, logarithmic",
        groups=["flood"],
        series=clients([taken], [name for name in CLIENTS if name not in (SPINNING, BEAST_SPINNING)]),
        footnote=machine(measured, "uvloop", "Boost", "jvQuant", "websockets", "aiohttp", "picows"),
        sentence=sentence,
    )


CHARTS: dict[str, Callable[[dict[str, Any]], Chart]] = {
    "decode": decode,
    "latency": latency,
    "throughput": throughput,
}


def draw(chart: Chart, source: str, png: Path) -> None:
    from matplotlib.figure import Figure

    kinds = len(chart.series)
    bar = 0.8 / kinds
    columns = min(kinds, 4)
    top = 0.37 + 0.18 * -(-kinds // columns)  # inches: the title and the legend
    height = 0.6 + top + 0.18 * (kinds + 0.6) * len(chart.groups)
    figure = Figure(figsize=(9, height))
    axes = figure.add_axes((0.22, 0.6 / height, 0.75, 1 - (0.6 + top) / height))
    for i, each in enumerate(chart.series):
        there = [(group, value) for group, value in enumerate(each.values) if value is not None]
        axes.barh([group + (i + 0.5) * bar for group, _ in there], [value for _, value in there],
                  height=bar * 0.92, color=each.colour, label=each.label)  # fmt: skip
        for group, value in there:
            text = f"{number(value)}   {each.notes[group]}".rstrip()
            axes.annotate(text, (value, group + (i + 0.5) * bar), (4, 0), textcoords="offset points", va="center",
                          fontsize=7.5, weight="bold" if i == 0 else "normal")  # fmt: skip
    values = [value for each in chart.series for value in each.values if value is not None]
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlim(min(values) / 2, max(values) * 2.2)
    axes.set_yticks([group + 0.4 for group in range(len(chart.groups))], chart.groups, fontsize=9)
    axes.set_ylim(len(chart.groups), -0.2)
    axes.set_xlabel(chart.axis, fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", color="#e6e8eb", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.text(0.01, 1 - 0.2 / height, chart.title, fontsize=11, weight="bold")
    figure.legend(loc="upper left", bbox_to_anchor=(0, 1 - 0.22 / height), ncols=columns, frameon=False, fontsize=8)
    figure.text(0.01, 0.05 / height, chart.footnote, fontsize=7, color="#59636e")
    figure.savefig(png, dpi=160, metadata={"Source": source})


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CHARTS)}; all by default")
    parser.add_argument("--folder", type=Path, default=HERE, help="where the JSON files are, and the charts go")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - CHARTS.keys():
        parser.error(f"no chart is called {', '.join(sorted(unknown))}")
    for name in options.names or CHARTS:
        written = (options.folder / f"{name}.json").read_bytes()
        chart = CHARTS[name](json.loads(written))
        draw(chart, hashlib.sha256(written).hexdigest(), options.folder / f"{name}.png")
        print(f"{name}: {chart.sentence}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
