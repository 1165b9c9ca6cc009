"""What the command line says when it can't go on: the cause and what to do, in one line."""

import re

from jvq_fast.errors import (
    AllocationError,
    AllocationRefusedError,
    CaptureError,
    ConnectError,
    ConnectionLimitError,
    HandshakeError,
    JvqError,
    ServerError,
)
from jvq_fast.redact import BLOT, redact

__all__ = ["SimulatorError", "UsageError", "as_commands", "explained", "fit_to_show"]

# What an error's text calls the library's own, for whoever has only the command.
_COMMANDS = (
    ("rearm()", "`jvq-fast trade rearm`"),
    ("resolve()", "`jvq-fast trade resolve`"),
    ("orders()", "`jvq-fast trade orders`"),
    ("login()", "`jvq-fast trade login`"),
    ("mode='paper'", "--paper"),
    ("allocation='http", "--allocation 'http"),
    ("It is being looked up", "`jvq-fast trade resolve` looks it up"),
    ("it is being looked up", "`jvq-fast trade resolve` looks it up"),
)
_LIKE_A_TOKEN = re.compile(r"\b[0-9a-fA-F]{32}\b")


class UsageError(Exception):
    """The command line makes no sense, or lacks something: exit status 2."""


class SimulatorError(JvqError):
    """The simulator did not start, ended by itself, or does not answer."""


# From the most to the least specific: the first that fits is shown.
_ADVICE: tuple[tuple[type[JvqError], str], ...] = (
    (AllocationRefusedError, "check the token and the account's balance"),
    (AllocationError, "check the network and --allocation, or name a server with --server"),
    (HandshakeError, "check the token and the address"),
    (ConnectError, "check the address and that the server is up"),
    (ConnectionLimitError, "end another connection of this account, or raise its balance"),
    (ServerError, "check the token and the subscriptions"),
    (CaptureError, "name another file"),
    (SimulatorError, "try `jvq-fast sim` by itself to see what it says"),
)


def fit_to_show(text: str) -> str:
    """The text without any token, known or mistyped where another word belongs."""
    return _LIKE_A_TOKEN.sub(BLOT, redact(text))


def as_commands(text: str) -> str:
    """What the library advises, in words of the command line."""
    for call, command in _COMMANDS:
        text = text.replace(call, command)
    return text


def explained(error: JvqError) -> str:
    """Cause and advice in one line, without any token."""
    cause = fit_to_show(" ".join(str(error).split())) or type(error).__name__
    advice = next((text for kind, text in _ADVICE if isinstance(error, kind)), "")
    return f"{cause}; {advice}" if advice else cause
