"""Tokens that do not show: not in a repr, a message, a traceback or a log."""

import logging
import re
import threading
import weakref
from collections.abc import MutableMapping
from typing import Any, NoReturn

BLOT = "***"
_TOKEN = re.compile(r"[0-9A-Za-z._~+/=-]+", re.ASCII)


def _in_any_form(character: str) -> str:
    """A pattern: as itself, percent-encoded (repeatedly, too) or as JSON writes it; servers may echo any of them."""
    percent = "".join(f"%(?:25){{0,3}}{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
    units = character.encode("utf-16-be", "surrogatepass")
    escaped = "".join(rf"\\{{1,4}}u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
    forms = [re.escape(character), percent, escaped]
    if character == " ":
        forms.append(r"\+")
    elif character in "\"'/\\":
        forms.append(rf"\\{{1,4}}{re.escape(character)}")
    return f"(?:{'|'.join(forms)})"


_known: "weakref.WeakSet[Secret]" = weakref.WeakSet()
# Re-entrant: the handler of a signal that throws the kill switch may come while its own thread has it.
_known_lock = threading.RLock()


class Secret:
    """A token, an account, a password or a ticket. Its repr and str are `Secret(***)`.

    `reveal()` is the text, for the line that sends it. Tokens are made by `read`. From the moment it exists, `redact`
    blots it out wherever it stands.
    """

    __slots__ = ("__weakref__", "_pattern", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._pattern = re.compile("".join(map(_in_any_form, text)), re.IGNORECASE)
        with _known_lock:
            _known.add(self)

    @classmethod
    def read(cls, text: object) -> "Secret | TypeError | ValueError":
        """A Secret of the text, or the error to raise where the text is out of sight: it can't be a token.

        The vendor's are 32 hex digits; whatever stands in a URL and a repr as it is will do.
        """
        if isinstance(text, cls):
            return text
        if not isinstance(text, str):
            return TypeError(f"a token is a str, not {type(text).__name__}")
        if not _TOKEN.fullmatch(text):
            return ValueError("that is no token: it should be 32 hex digits")
        return cls(text)

    def reveal(self) -> str:
        """The token itself."""
        return self._text

    def __len__(self) -> int:
        return len(self._text)

    def blot(self, text: str) -> str:
        """The text without this token, percent-encoded or not."""
        return self._pattern.sub(BLOT, text)

    def __repr__(self) -> str:
        return f"Secret({BLOT})"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not for pickling")


def redact(text: str, shortest: int = 0) -> str:
    """The text without any secret that is known at this moment, of so many characters at least. From any thread."""
    with _known_lock:
        secrets = list(_known)
    for secret in secrets:
        if len(secret) >= shortest:
            text = secret.blot(text)
    return text


class RedactingFilter(logging.Filter):
    """Blots tokens out of a logger's records, tracebacks included; never drops one.

    `always_text`: a traceback goes on as text even where no token is in it.
    """

    def __init__(self, *, always_text: bool = False) -> None:
        super().__init__()
        self._always_text = always_text

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except Exception:
            message = f"{record.msg} {record.args}"
        clean = redact(message)
        if clean != message:
            record.msg, record.args = clean, ()
        if record.exc_info:
            text = logging.Formatter().formatException(record.exc_info)
            clean = redact(text)
            if self._always_text or clean != text:
                # A handler that formats it by itself could show local variables, so only the text goes on.
                record.exc_text = clean
                record.exc_info = None
        return True


# The loggers of urllib3 that write the path, the token included, at DEBUG.
_LOGGERS = ("urllib3.connectionpool", "urllib3.connection", "urllib3.poolmanager", "urllib3.util.retry")
_FILTER = RedactingFilter(always_text=True)


def drop_frames(error: BaseException) -> None:
    """Forget the tracebacks of an error and of all it came from.

    Their frames hold the token, and may hold the error that holds them.
    """
    seen: list[BaseException] = []
    found: list[object] = [error]
    while found:
        one = found.pop()
        if isinstance(one, BaseException) and not any(one is each for each in seen):
            seen.append(one)
            one.__traceback__ = None
            found += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]


def os_cause(error: BaseException) -> str:
    """What the system said, without what the libraries put around it: they put the URL there."""
    seen: list[BaseException] = []
    queue: list[object] = [error]
    while queue:
        one = queue.pop(0)
        if not isinstance(one, BaseException) or one in seen:
            continue
        seen.append(one)
        if isinstance(one, OSError) and one.strerror:
            return redact(str(one.strerror))
        queue += [getattr(one, "reason", None), one.__cause__, one.__context__, *one.args]
    return type(error).__name__


def guard_http_logs() -> None:
    """Put the redacting filter on the HTTP client's loggers, once; nothing else about them changes."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)


class QuietLogger(logging.LoggerAdapter[logging.Logger]):
    """For a library that logs secrets at its own levels below DEBUG: those are off, the rest is redacted."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logger, {})

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        return level >= logging.DEBUG and super().isEnabledFor(level)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if not self.isEnabledFor(level):
            return
        kwargs.pop("exc_info", None)
        super().log(level, "%s", redact(str(msg) % args if args else str(msg)), **kwargs)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs
