"""A message taken apart into its records, each with what a fault did to it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["EXTRA_MARKS", "Cargo", "Record", "split_rows"]

# good: as the market said it. moved: that too, but out of order. extra: sent once more, or an old one. altered: can be
# read, but is not what the market said. damaged: can't be read, alone or with its whole message. missing: not sent.
_MARKS = ("good", "moved", "extra", "altered", "damaged", "missing")
EXTRA_MARKS = _MARKS[2:]


@dataclass(slots=True)
class Record:
    """One record of a row, such as ``lv2_600519`` and ``10:00:00.000,1,1680.00,100``."""

    key: str
    text: str
    mark: str = "good"
    fault: str = ""

    def become(self, mark: str, fault: str) -> None:
        """A fault did this to it, unless another did worse."""
        if _MARKS.index(mark) > _MARKS.index(self.mark):
            self.mark, self.fault = mark, fault


def split_rows(text: str) -> Iterator[tuple[str, list[str]]]:
    """The rows of a message: key and records."""
    for row in text.split("\n"):
        if row:
            key, _, records = row.partition("=")
            yield key, records.split("|")


@dataclass(slots=True)
class Cargo:
    """The rows of a message; records of a row have one key."""

    number: int  # of the message on its connection, from 1 on
    rows: list[list[Record]]
    end: str = ""  # a trailing newline
    reached: bool = True  # whether the message as a whole can be read

    @classmethod
    def of(cls, number: int, text: str) -> "Cargo":
        """The message with this text."""
        rows = [[Record(key, each) for each in records] for key, records in split_rows(text)]
        return cls(number, rows, end="\n" if text.endswith("\n") else "")

    def fresh(self, levels: tuple[str, ...]) -> list[Record]:
        """Those of these levels that no fault has touched."""
        return [record for record in self.records(levels) if record.mark == "good"]

    def records(self, levels: tuple[str, ...] = ("",)) -> list[Record]:
        """Those on their way, in order; of these levels only."""
        return [
            record for row in self.rows for record in row if record.mark != "missing" and record.key.startswith(levels)
        ]

    def text(self) -> str:
        """What goes on the wire; empty where nothing is left."""
        rows = []
        for row in self.rows:
            records = [record.text for record in row if record.mark != "missing"]
            if records:
                rows.append(f"{row[0].key}={'|'.join(records)}")
        return "\n".join(rows) + self.end if rows else ""

    def place(self, record: Record) -> tuple[int, int]:
        """Row and position of a record."""
        for at, row in enumerate(self.rows):
            for position, each in enumerate(row):
                if each is record:
                    return at, position
        raise ValueError("no record of this message")

    def spoil(self, mark: str, fault: str) -> None:
        """The message as a whole is ``damaged`` or ``missing``."""
        self.reached = False
        for row in self.rows:
            for record in row:
                if record.mark != "missing":
                    record.mark, record.fault = mark, fault

    def count(self) -> Counter[str]:
        """Records by mark, those in good order by their level as well."""
        counts: Counter[str] = Counter()
        for row in self.rows:
            for record in row:
                good = record.mark in ("good", "moved")
                counts[record.key.partition("_")[0] if good else record.mark] += 1
        return counts
