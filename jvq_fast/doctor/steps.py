"""A step of the walk, and what became of it."""

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["ok", "remark", "failed", "open", "skipped"]


@dataclass(frozen=True, slots=True)
class Step:
    """What became of a step; where it did not go well, what that means and what to do."""

    name: str
    outcome: Outcome
    found: str
    means: str = ""
    todo: str = ""
