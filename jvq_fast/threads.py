"""Which thread is a feed's, since whatever blocks there holds up all data; and how others are started."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator

_here = threading.local()
_log = logging.getLogger("jvq_fast")
_NONE_LEFT = "can't start new thread"


def start(
    run: Callable[[], object], name: str, keep: Callable[[threading.Thread | None], object] = lambda _: None
) -> threading.Thread | None:
    """A thread that does not keep the process alive; None, and a line in the log, where none can be had.

    `keep` is told which before it begins, so that what a signal handler raises meanwhile does not hide it.
    """
    thread = threading.Thread(target=run, name=name, daemon=True)
    keep(thread)
    try:
        thread.start()
    except RuntimeError as error:
        if str(error) != _NONE_LEFT:
            raise
        keep(None)
        _log.error("%s: %s", name, error)
        return None
    return thread


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
