"""What the system says of the process that asks."""

import contextlib
import os
from pathlib import Path


def resident() -> int:
    """Bytes in memory; 0 where the system does not say."""
    try:
        # Path() keeps every name it sees, and would grow by looking.
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return 0


def descriptors() -> list[str]:
    """The number of each open descriptor and what it is of; empty where the system does not say."""
    found = []
    for number in os.listdir("/proc/self/fd") if Path("/proc/self/fd").is_dir() else ():  # noqa: PTH208
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.append(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")  # noqa: PTH115
    return found
