"""Writes the table of the simulator's switches into docs/simulator.md, from the settings themselves.

python docs/switches.py
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

from jvq_fast.sim.settings import Settings

PAGE = Path(__file__).resolve().parent / "simulator.md"
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


def main() -> int:
    head, heading, _ = PAGE.read_text(encoding="utf-8").partition(HEADING)
    PAGE.write_text(head + heading + table(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
