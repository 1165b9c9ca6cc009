"""Text for terminals: cells that Chinese characters take two of, numbers that line up."""

import unicodedata
from collections.abc import Sequence

__all__ = [
    "BLANK",
    "age",
    "aligned",
    "clip",
    "duration",
    "number",
    "pad",
    "percent",
    "price",
    "table",
    "volume",
    "width",
]

BLANK = "–"


def width(text: str) -> int:
    """Cells of a terminal that a text takes."""
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


def clip(text: str, cells: int) -> str:
    """The text, cut to so many cells, without anything a terminal would act upon."""
    text = "".join(each if each.isprintable() else "?" for each in text)
    if width(text) <= cells:
        return text
    while text and width(text) > cells - 1:
        text = text[:-1]
    return text + "…"


def pad(text: str, cells: int, *, right: bool) -> str:
    """The text, filled with blanks up to so many cells."""
    filling = " " * (cells - width(text))
    return filling + text if right else text + filling


def price(value: float) -> str:
    """A price with the decimals it has, two at least."""
    text = f"{value:.4f}".rstrip("0")
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals:0<2}"


def percent(value: float) -> str:
    """A change in percent with its sign; none where it rounds to zero."""
    text = f"{value:+.2f}%"
    return text[1:] if float(text[:-1]) == 0 else text


def volume(shares: int) -> str:
    """A number of shares, in millions from a thousand of these on: an index has tens of thousands."""
    return f"{shares:,}" if shares < 10**9 else f"{shares / 1e6:,.1f}M"


def age(seconds: float) -> str:
    """A length of time in few characters."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    for limit, unit, size in ((100, "s", 1), (6000, "m", 60), (360_000, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def number(value: float) -> str:
    """A number with its thousands and three digits, without an exponent; zeros at the end are left out."""
    decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 6
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def duration(seconds: float) -> str:
    """A length of time with three digits, in the unit that suits it; it may be negative."""
    if not seconds:
        return "0"
    for limit, unit, size in ((1e-3, "µs", 1e-6), (1.0, "ms", 1e-3), (100.0, "s", 1.0), (6000.0, "min", 60.0),
                              (360_000.0, "h", 3600.0)):  # fmt: skip
        if abs(seconds) < limit:
            return f"{number(seconds / size)} {unit}"
    return f"{number(seconds / 86400)} d"


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int], room: int | None = None) -> list[list[str]]:
    """The cells of a table filled to the width of their columns, a gap before each but the first.

    The columns of the numbers in `left` are flush left, the others flush right. The gap is of two cells, of one where
    the lines would be longer than `room`.
    """
    cells = [max(map(width, column)) for column in zip(*rows, strict=True)]
    gap = "  " if room is None or sum(cells) + 2 * (len(cells) - 1) <= room else " "
    return [[gap * (i > 0) + pad(cell, cells[i], right=i not in left) for i, cell in enumerate(row)] for row in rows]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    """Lines of a table."""
    return ["".join(row).rstrip() for row in aligned((header, *rows), left)]
