"""What one thread does for all that wait for it."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from jvq_fast.errors import JvqError


class Turns:
    """One at a time. Whoever has waited for one that failed, by one of `kinds`, fails as it did."""

    def __init__(self, *kinds: type[JvqError]) -> None:
        self._kinds = kinds
        self._lock = threading.Lock()
        self._taken = 0
        self._failure: tuple[type[JvqError], tuple[Any, ...]] | None = None  # of the last one

    @contextlib.contextmanager
    def take(self) -> Iterator[None]:
        """In turn."""
        taken = self._taken
        with self._lock:
            if self._failure is not None and taken != self._taken:
                kind, arguments = self._failure
                raise kind(*arguments)
            self._failure = None
            try:
                yield
            except self._kinds as error:
                self._failure = type(error), error.args
                raise
            finally:
                self._taken += 1
