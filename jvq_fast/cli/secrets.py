"""Files and options that hold what nobody else may see."""

import os
import sys
from pathlib import Path

from jvq_fast.cli.complaint import UsageError

__all__ = ["read_file", "warn"]

_OTHERS = 0o077


def read_file(path: str, name: str) -> str:
    """The first line of a file that holds a `name`. UsageError where it can't be read; a warning where others can."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        shared = os.name == "posix" and Path(path).stat().st_mode & _OTHERS
    except OSError as error:
        raise UsageError(f"can't read the {name} file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"the {name} file {path} holds no {name}: it is no plain text") from None
    if shared:
        print(f"jvq-fast: other users may read the {name} file {path}: chmod 600 {path}", file=sys.stderr)
    return text.lstrip("\r\n").partition("\n")[0]


def warn(option: str, instead: str) -> None:
    """Say that a secret stood on the command line."""
    print(
        f"jvq-fast: every user of this machine can read what follows {option} in the list of processes; use {instead}",
        file=sys.stderr,
    )
