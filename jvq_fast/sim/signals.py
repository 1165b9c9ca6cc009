"""The signals that end a command in good order."""

import signal

__all__ = ["HANGUP", "ending"]

HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none


def ending() -> list[signal.Signals]:
    """Ctrl-C, SIGTERM, and the closing of the terminal, unless that was told to be ignored, as nohup does."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:
        numbers.append(HANGUP)
    return numbers
