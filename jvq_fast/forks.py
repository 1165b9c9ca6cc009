"""What a forked child must not keep: a connection it held would live on at the server, and a lock stay taken."""

import os

_held: dict[int, tuple[int, int]] = {}


def file_id(descriptor: int) -> tuple[int, int]:
    """What tells an open file from another one that is given its number later; (-1, -1) for none."""
    try:
        info = os.fstat(descriptor)
    except OSError:
        return -1, -1
    return info.st_dev, info.st_ino


def keep_from_children(descriptor: int) -> tuple[int, int]:
    """From now on, until `let_go`, what is forked has the null device in its place. Its `file_id`. From any thread."""
    held = _held[descriptor] = file_id(descriptor)
    return held


def let_go(descriptor: int, held: tuple[int, int]) -> None:
    """It is about to be closed, or was, and its number may be another's by now. From any thread."""
    if _held.get(descriptor) == held:
        _held.pop(descriptor, None)


def _drop() -> None:
    for descriptor, held in list(_held.items()):
        if file_id(descriptor) == held:
            # Not closed: whoever has the number closes it once more, and it may be another file's by then.
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, descriptor, inheritable=False)
            os.close(null)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop)
