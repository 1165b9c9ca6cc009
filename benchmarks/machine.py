"""What was measured on, and how to stay on one core of it."""

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jvq_fast as jvq


def cores() -> list[int]:
    """The cores that this process may use; empty where the platform can't say, or pin it to one."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []


@contextmanager
def one_core(core: int = -1) -> Iterator[None]:
    """Stay on one of the `cores`, as does what is started meanwhile; where the platform can't, as before."""
    before = cores()
    if not before:
        yield
        return
    os.sched_setaffinity(0, {before[core]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def facts(*packages: str) -> dict[str, Any]:
    """Python, system, processor and versions; a package that is not here ends the program."""
    model = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": model,
        "cores": os.cpu_count(),
        "jvq_fast": jvq.__version__,
        **{name: version(name) for name in packages},
    }


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise SystemExit(f"{package} is not installed: python -m pip install --editable '.[bench]'") from None
