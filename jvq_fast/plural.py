"""Numbers of things in messages."""

__all__ = ["plural"]


def plural(number: int, thing: str) -> str:
    """``1 message``, ``2,000 messages``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
