"""Shows a table and what stands below it: live with rich on a terminal, else as lines every few seconds."""

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from jvq_fast.cli.table import HEADER, LEFT, Row, cells
from jvq_fast.cli.text import aligned, table

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["Lines", "Screen", "screen"]

_LINES_EVERY = 5.0
_FIRST_LINES = 1.0
_MOST_LINES = 40
_AROUND_TABLE = 4


class Screen(Protocol):
    """Use as a context manager. `every` is how often, in seconds, it wants to be updated."""

    every: float

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def update(self, rows: Sequence[Row], below: Sequence[str], *, final: bool = False) -> None:
        """Show this; `final` is the last time, whatever was shown a moment ago."""

    def say(self, line: str) -> None:
        """Show a line that stays."""


def screen(*, plain: bool = False) -> Screen:
    """The best one that is to be had here; `plain` asks for lines."""
    if not plain and sys.stdout.isatty():
        try:
            return _Live()
        except ImportError:
            pass
    return Lines()


class Lines:
    """Lines on standard output, flushed: after a second, then every few seconds, and at the end."""

    every = 1.0

    def __init__(self) -> None:
        self._due = time.monotonic() + _FIRST_LINES

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def update(self, rows: Sequence[Row], below: Sequence[str], *, final: bool = False) -> None:
        now = time.monotonic()
        if not final and now < self._due:
            return
        self._due = now + _LINES_EVERY
        lines = table(HEADER, [cells(row) for row in rows[:_MOST_LINES]], LEFT)
        if len(rows) > _MOST_LINES:
            lines.append(f"… and {len(rows) - _MOST_LINES} more")
        print("\n".join([*lines, *below]), end="\n" if final else "\n\n", flush=True)

    def say(self, line: str) -> None:
        print(line, flush=True)


class _Live:
    """A table that is redrawn in place. ImportError without rich."""

    every = 0.5

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        self._text = Text
        self._console = Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, traceback)

    def update(self, rows: Sequence[Row], below: Sequence[str], *, final: bool = False) -> None:  # noqa: ARG002
        self._live.update(self._drawn(rows, below), refresh=True)

    def say(self, line: str) -> None:
        self._console.print(line, markup=False)

    def _drawn(self, rows: Sequence[Row], below: Sequence[str]) -> "Text":
        # One text of whole lines: rich's own table takes ten times as long to draw, and the feed's thread waits for it.
        room = max(1, self._console.height - _AROUND_TABLE - len(below))
        shown = rows if len(rows) <= room else rows[: room - 1]
        header, *lines = aligned((HEADER, *map(cells, shown)), LEFT, self._console.width)
        drawn = self._text(no_wrap=True, overflow="ellipsis", end="")
        drawn.append("".join(header) + "\n", "bold")
        for row, line in zip(shown, lines, strict=True):
            # Red is up and green is down where these shares are traded.
            style = "red" if (row.change or 0) > 0 else "green" if (row.change or 0) < 0 else ""
            drawn.append("".join(line[:2]))
            drawn.append("".join(line[2:4]), style)
            drawn.append("".join(line[4:]) + "\n")
        if len(shown) < len(rows):
            drawn.append(f"… and {len(rows) - len(shown)} more\n")
        drawn.append("\n" + "\n".join(below))
        return drawn
