"""Writes the tables of the simulator's faults and switches into docs/simulator.md, from the code itself.

python docs/switches.py
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from jvq_fast.sim.fault_kinds import KINDS, Parameter
from jvq_fast.sim.settings import Settings

PAGE = Path(__file__).resolve().parent / "simulator.md"
FAULTS = "here with their defaults, and those of the second table:\n\n"
HEADING = "## Switches\n\n"


def flag(field: "dataclasses.Field[Any]") -> str:
    """The switch as it stands on the command line."""
    name = {"start": "from"}.get(field.name, field.name).replace("_", "-")
    return f"--[no-]{name}" if field.default is True else f"--{name}"


def shown(default: object) -> str:
    """A default; nothing where there is none."""
    if isinstance(default, bool):
        return "on" if default else "off"
    return "" if default in (None, "", ()) else f"`{default}`"


def row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table() -> str:
    """One row for each switch."""
    lines = [row("switch", "default", "does"), "|---|---|---|"]
    for field in dataclasses.fields(Settings):
        choices = " ".join(f"`{choice}`" for choice in field.metadata["choices"] or ())
        does = f"{field.metadata['help']}: {choices}" if choices else str(field.metadata["help"])
        lines.append(row(f"`{flag(field)}`", shown(field.default), does))
    return "\n".join(lines) + "\n"


def parameter(each: Parameter) -> str:
    """A parameter with its default, what it does and what it may be."""
    default = str(each.default).lower() if isinstance(each.default, bool) else each.default
    choices = " " + " ".join(f"`{choice}`" for choice in each.choices) if each.choices else ""
    return f"`{each.name}={default}` {each.help}{choices}"


def faults() -> str:
    """One row for each kind of fault, and one for each parameter that many of them take."""
    lines = [row("fault", "count", "what happens", "parameters"), "|---|---|---|---|"]
    for kind in KINDS.values():
        own = "<br>".join(map(parameter, kind.parameters))
        count = "" if kind.standing else str(kind.count or "no end")
        lines.append(row(f"`{kind.name}`", count, kind.help, own))
    lines += ["", row("parameter of", "", ""), "|---|---|---|"]
    commons = {each.name: each for kind in KINDS.values() for each in kind.common()}
    for name, each in commons.items():
        takers = [kind.name for kind in KINDS.values() if each in kind.common()]
        others = [kind for kind in KINDS if kind not in takers]
        these = f"all but `{others[0]}`" if len(others) == 1 else f"`{takers[0]}` and all below it" if others else "all"
        assert len(others) < 2 or takers == list(KINDS)[-len(takers) :]
        default = "" if name == "count" else f"`{name}={each.default}`"
        lines.append(row(these, default or "`count`", each.help))
    return "\n".join(lines) + "\n\n"


def main() -> int:
    head, heading, rest = PAGE.read_text(encoding="utf-8").partition(FAULTS)
    _, switches, _ = rest.partition(HEADING)
    PAGE.write_text(head + heading + faults() + switches + table(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
