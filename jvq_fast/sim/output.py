"""Standard output that can't be written: what is said of it, and that it is said once."""

import contextlib
import errno
import io
import os
import sys

__all__ = ["complaint", "forget", "is_of_output"]


_FAULTS = {getattr(errno, name, None) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "ENXIO", "EBADF")} - {None}


def is_of_output(error: OSError) -> bool:
    """Whether an error that nobody caught is standard output's: a full disk, or a terminal that has gone.

    Files and sockets of ours have errors of their own, which name them.
    """
    return error.filename is None and error.errno in _FAULTS


def forget() -> None:
    """Drop what is still to be written: it would fail once more when the interpreter ends."""
    with contextlib.suppress(io.UnsupportedOperation), open(os.devnull, "w") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), sys.stdout.fileno())


def complaint(error: OSError) -> str:
    """Why standard output can't be written, for people."""
    return f"can't write the output: {error.strerror or error}"
