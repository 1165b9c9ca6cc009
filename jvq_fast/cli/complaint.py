"""What the command line says when it can't go on: the cause and what to do, in one line."""

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
from jvq_fast.redact import redact

__all__ = ["SimulatorError", "UsageError", "explained"]


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


def explained(error: JvqError) -> str:
    """Cause and advice in one line, without any token."""
    cause = redact(" ".join(str(error).split())) or type(error).__name__
    advice = next((text for kind, text in _ADVICE if isinstance(error, kind)), "")
    return f"{cause}; {advice}" if advice else cause
