"""The command line that every fuzz target has, and how a target takes only the time that nobody else wants."""

import argparse
import ctypes
import os
import signal
import sys
import tempfile
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of processor time")
    parser.add_argument("--runs", type=int, default=sys.maxsize, help="executions")
    parser.add_argument("--seed", type=int, default=20261123)
    parser.add_argument("--corpus", type=Path, help="folder that keeps what opened new ground, and is begun with")
    parser.add_argument("--artifacts", type=Path, default=Path(tempfile.gettempdir()), help="folder for what failed")
    parser.add_argument(
        "--idle", action="store_true", help="take the time that no other process wants, and end with the parent"
    )
    parser.add_argument("--plant", action="store_true", help="plant the fault that must be found")
    parser.add_argument("--only-seeds", action="store_true", help="check the seeds and end")
    parser.add_argument("--reproduce", help="one input, in hex, or @FILE")
    return parser.parse_args()


def given(reproduce: str) -> bytes:
    """The input that `--reproduce` names."""
    return Path(reproduce[1:]).read_bytes() if reproduce.startswith("@") else bytes.fromhex(reproduce)


def end_with_parent() -> None:
    """However that one ends: nobody would hear of a finding any more."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def idle() -> None:
    """This process and its children take the time that no other wants."""
    end_with_parent()
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def limits(options: argparse.Namespace) -> tuple[str, str]:
    """The fuzzer's own limits on one input. They go by the clock on the wall, and an idle process may stand still."""
    seconds = 300 if options.idle else 20
    return f"-timeout={seconds}", f"-report_slow_units={seconds}"
