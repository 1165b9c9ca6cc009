"""Work that needs no quiet machine: in children, which begin before the first test and are judged after the last.

A test with the mark `spare_time` has a ``begin(long)`` in its module, which the session calls first; it submits the
work, and the test waits for it. Children of such work yield to all others by ``nice`` or more.
"""

import atexit
import functools
import queue
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

# A child waits for its time while the other tests take it all.
PATIENCE = 3600.0

_children: set["subprocess.Popen[str]"] = set()
_ended = False


class Workers:
    """Threads that do what is submitted, in its order. They and their children end with the session."""

    def __init__(self, number: int) -> None:
        self._waiting: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        atexit.register(_end)  # here, so that it comes before the end of folders that were made for the children
        for _ in range(number):
            threading.Thread(target=self._work, daemon=True).start()

    def submit(self, function: Callable[..., T], *arguments: Any) -> "Future[T]":
        """Have it called; what it raises, a skip included, is raised by the result."""
        future: Future[T] = Future()
        self._waiting.put((functools.partial(function, *arguments), future))
        return future

    def _work(self) -> None:
        while not _ended:
            function, future = self._waiting.get()
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)


@functools.cache
def suites() -> Workers:
    """Who compiles and runs whole suites, one after another: each of them keeps all processors busy."""
    return Workers(1)


def run(*command: object, timeout: float = PATIENCE, **options: Any) -> "subprocess.CompletedProcess[str]":
    """`subprocess.run` with the output as text, stderr in it, of a child that does not outlive the session."""
    with subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        **options,
    ) as child:
        _children.add(child)
        if _ended:
            child.kill()
        try:
            output, _ = child.communicate(timeout=timeout)
        except BaseException:
            child.kill()
            raise
        finally:
            _children.discard(child)
    return subprocess.CompletedProcess(child.args, child.returncode, output)


def _end() -> None:
    global _ended
    _ended = True
    for child in tuple(_children):
        child.kill()
