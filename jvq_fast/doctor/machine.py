"""What of this machine matters to a feed."""

import asyncio
import importlib.metadata
import platform
import socket
import sys
from typing import Any

import jvq_fast
from jvq_fast import _built_with, _picows
from jvq_fast.connection import RECEIVE_BUFFER, is_uvloop, uses_aiofastnet
from jvq_fast.doctor.steps import Step


def examine(loop: asyncio.AbstractEventLoop) -> tuple[dict[str, Any], list[Step]]:
    """Versions and limits, and the steps that judge them."""
    granted = receive_buffer()
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "jvq_fast": jvq_fast.__version__,
        "build": _built_with.VARIANT,
        "picows_built_with": _built_with.PICOWS_VERSION,
        **{name: _version(name) for name in ("picows", "numpy", "requests", "uvloop", "aiofastnet")},
        "loop": "uvloop" if is_uvloop(loop) else "asyncio+aiofastnet" if uses_aiofastnet(loop) else "asyncio",
        "receive_buffer_wanted": RECEIVE_BUFFER,
        "receive_buffer_granted": granted,
    }
    try:
        _picows.check()
    except ImportError as error:
        steps = [Step("picows", "failed", str(error), "frames would be lost, or the process would crash", "see there")]
    else:
        steps = [Step("picows", "ok", f"{facts['picows']}, of the layout that jvq_fast was built with")]
    uvloop = "" if facts["uvloop"] or sys.platform == "win32" else "; uvloop is not installed, asyncio takes its place"
    steps.insert(0, Step("machine", "ok", f"Python {facts['python']}, {facts['system']}, loop {facts['loop']}{uvloop}"))
    if granted >= RECEIVE_BUFFER:
        steps.append(Step("receive buffer", "ok", f"{granted:,} bytes"))
    else:
        steps.append(
            Step(
                "receive buffer",
                "remark",
                f"the system grants {granted:,} of {RECEIVE_BUFFER:,} bytes, so its own sizing is used",
                "a handler that holds the feed up fills it sooner, and then the server's, which may cut the connection",
                f"sysctl -w net.core.rmem_max={RECEIVE_BUFFER}",
            )
        )
    return facts, steps


def receive_buffer() -> int:
    """What the system grants a socket that asks for as much as a feed does."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        return probe.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
