"""A journal as its format says, read without the code that writes it."""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of the lines that are whole, the head included."""
    for line in path.read_bytes().split(b"\n"):
        if len(line) > 9 and line[8:9] == b" " and line[:8] == b"%08x" % zlib.crc32(line[9:]):
            yield json.loads(line[9:])


def line(entry: dict[str, Any]) -> bytes:
    """A line of it."""
    text = json.dumps(entry).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)
