"""Which thread is a feed's: whatever blocks there holds up all data."""

import contextlib
import threading
from collections.abc import Iterator

_here = threading.local()


@contextlib.contextmanager
def feed_thread() -> Iterator[None]:
    """Around the run of a feed in the current thread."""
    _here.feeds = getattr(_here, "feeds", 0) + 1
    try:
        yield
    finally:
        _here.feeds -= 1


def is_feed_thread() -> bool:
    """Whether a feed runs in the current thread."""
    return bool(getattr(_here, "feeds", 0))
