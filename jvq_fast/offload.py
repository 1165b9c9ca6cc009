"""Blocking work beside an event loop, in threads that never hold up the end of the program."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Work that was given up on may hang for as long as the system lets it; so many of them are more than enough.
MAX_THREADS = 16

_running = 0
_lock = threading.Lock()


async def offload(work: Callable[[], T], timeout: float, name: str) -> T:
    """Run `work` in a daemon thread, and return what it returns or raise what it raises.

    TimeoutError after `timeout` seconds, or where no thread can be started; one that was then ends by itself, unheard.
    The executor of the loop would not do: its threads are waited for when the loop is closed, and a hung name lookup
    would hang the end of the feed.
    """
    global _running  # noqa: PLW0603
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    results: list[T] = []
    errors: list[BaseException] = []
    is_awaited = True

    def run() -> None:
        global _running  # noqa: PLW0603
        try:
            results.append(work())
        except BaseException as error:
            if is_awaited:
                errors.append(error)
        finally:
            with _lock:
                _running -= 1
        try:
            loop.call_soon_threadsafe(done.set)
        except RuntimeError:
            pass  # the loop is closed, nobody waits any more

    with _lock:
        if _running >= MAX_THREADS:
            raise TimeoutError(f"{MAX_THREADS} threads hang already")
        _running += 1
    try:
        threading.Thread(target=run, name=f"jvq_fast {name}", daemon=True).start()
    except RuntimeError as error:
        with _lock:
            _running -= 1
        raise TimeoutError(str(error)) from None  # it passes, as a hanging thread does
    waiter = asyncio.ensure_future(done.wait())
    try:
        await asyncio.wait({waiter}, timeout=timeout)
    finally:
        waiter.cancel()
        is_awaited = done.is_set()
        if not is_awaited:
            errors.clear()
    if not done.is_set():
        raise TimeoutError(f"no result within {timeout:g} s")
    if errors:
        raise errors.pop()
    return results.pop()
