"""Subscriptions as the caller writes them: checked, in order, without repetition."""

import re
from collections.abc import Iterable

_FORM = re.compile(r"(?:lv1|lv2|lv10)_([0-9A-Za-z.]{1,8})", re.ASCII)


def checked(subscriptions: str | Iterable[str]) -> tuple[str, ...]:
    """One subscription or several, each like "lv2_600519". ValueError, or TypeError, names the one that is wrong."""
    names = (subscriptions,) if isinstance(subscriptions, str) else tuple(subscriptions)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"a subscription is a str, not {name!r}")
        if not _FORM.fullmatch(name):
            raise ValueError(f"not a subscription: {name!r}; it should read like 'lv2_600519' (lv1, lv2 or lv10)")
    return tuple(dict.fromkeys(names))


def code_of(subscription: str) -> str:
    """The bare code: "600519" of "lv2_600519"."""
    return subscription.partition("_")[2]
