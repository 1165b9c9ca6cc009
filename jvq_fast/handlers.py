"""What a handler has to be, and how the failures of one are logged."""

import inspect
import logging
import time

from jvq_fast.native import Handler

_ARGUMENTS = {
    "on_trades": ("code", "trades"),
    "on_quotes": ("code", "quotes"),
    "on_depths": ("code", "depths"),
    "on_batch": ("n",),
    "on_error": ("exception", "where"),
    "on_connect": ("server",),
    "on_disconnect": ("reason",),
    "on_state": ("state", "reason"),
    "on_gap": ("gap",),
    "on_stale": ("stale",),
    "on_lag": ("lag",),
    "on_text": ("text",),
    "on_intent": ("intent",),
    "on_order": ("order",),
    "on_fill": ("fill",),
}
_NATIVE = ("on_trades", "on_quotes", "on_depths")
# One that fails fails thousands of times a second.
_AGAIN = 60.0
_log = logging.getLogger("jvq_fast")


def check(name: str, handler: object) -> None:
    """TypeError where an event of this name could not call the handler, or would have to await it."""
    if isinstance(handler, Handler):
        if name not in _NATIVE:
            raise TypeError(f"{name} has no method of a Handler: register a callable")
        return
    if isinstance(handler, type) and issubclass(handler, Handler):
        raise TypeError(f"{name} takes a handler, not its class: register {handler.__name__}()")
    if not callable(handler):
        raise TypeError(f"{name} takes a callable, not {handler!r}")
    if inspect.iscoroutinefunction(handler):
        raise TypeError(f"{name} calls its handlers and does not await them: {handler!r} is a coroutine function")
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):  # of some that are written in C
        return
    arguments = _ARGUMENTS[name]
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise TypeError(f"{name} calls handler({', '.join(arguments)}), but {handler!r}: {error}") from None


class Failures:
    """Logs what handlers raise: the same of the same event at most once a minute, then with how many there were."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, type[BaseException]], tuple[float, int]] = {}

    def log(self, where: str, error: BaseException, what: str = "") -> None:
        """One more, with its traceback; `what` replaces "WHERE raised TYPE"."""
        key = where, type(error)
        now = time.monotonic()
        last, more = self._told.get(key, (0.0, 0))
        if last and now - last < _AGAIN:
            self._told[key] = last, more + 1
            return
        self._told[key] = now, 0
        since = f", and {more} times more in the {now - last:.0f} s before" if more else ""
        _log.error("%s%s", what or f"{where} raised {type(error).__name__}", since, exc_info=error)
