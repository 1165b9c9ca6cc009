"""Blocking work beside an event loop, in threads that never hold up the end of the program."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Work that was given up on may hang for as long as the system lets it; so many of them are more than enough.
MAX_HANGING = 64

_hanging = 0
_lock = threading.Lock()


class HangingError(TimeoutError):
    """Too much of what was given up on hangs still, in this process."""


async def offload(work: Callable[[], T], timeout: float, name: str) -> T:
    """Run `work` in a daemon thread, and return what it returns or raise what it raises.

    TimeoutError after `timeout` seconds, or where no thread can be started; one that was then ends by itself, unheard.
    HangingError where too many did not yet. The executor of the loop would not do: its threads are waited for when the
    loop is closed, and a hung name lookup would hang the end of the feed.
    """
    global _hanging  # noqa: PLW0603
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    results: list[T] = []
    errors: list[BaseException] = []
    is_awaited, has_ended = True, False

    def run() -> None:
        global _hanging  # noqa: PLW0603
        nonlocal has_ended
        try:
            results.append(work())
        except BaseException as error:
            with _lock:
                if is_awaited:
                    errors.append(error)
        with _lock:
            has_ended = True
            if not is_awaited:
                _hanging -= 1
        try:
            loop.call_soon_threadsafe(done.set)
        except RuntimeError:
            pass  # the loop is closed, nobody waits any more

    if _hanging >= MAX_HANGING:
        raise HangingError(f"{MAX_HANGING} threads hang already")
    try:
        threading.Thread(target=run, name=f"jvq_fast {name}", daemon=True).start()
    except RuntimeError as error:
        raise TimeoutError(str(error)) from None  # it passes, as a hanging thread does
    waiter = asyncio.ensure_future(done.wait())
    try:
        await asyncio.wait({waiter}, timeout=timeout)
    finally:
        waiter.cancel()
        with _lock:
            is_awaited = has_ended  # from here on it may end, and is not heard any more
            _hanging += not is_awaited
        if not is_awaited:
            errors.clear()
    if not is_awaited:
        raise TimeoutError(f"no result within {timeout:g} s")
    if errors:
        raise errors.pop()
    return results.pop()
