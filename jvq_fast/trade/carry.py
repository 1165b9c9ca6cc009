"""What a new journal takes over from an old one that has grown large."""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from jvq_fast.errors import JournalError
from jvq_fast.trade.model import Action, Outcome

KEPT_DAYS = 7
Entry = Mapping[str, Any]


def carried(entries: Iterable[Entry]) -> list[Entry]:
    """The last week's entries, by the youngest of them, and whatever is not known, however old; fewer lines for both.

    JournalError for entries that can't be read.
    """
    try:
        return _carried(list(entries))
    except (KeyError, ValueError, TypeError) as error:
        raise JournalError(f"an entry of the journal can't be read ({type(error).__name__}: {error})") from None


def _carried(entries: list[Entry]) -> list[Entry]:
    days = [_day_of(entry) for entry in entries]
    since = max((day for day in days if day is not None), default=dt.date.min)
    since = dt.date.fromordinal(max(since.toordinal() - KEPT_DAYS, 1))
    intents = {entry["number"]: entry for entry in entries if entry["what"] == "intent"}
    outcomes = {entry["number"]: entry for entry in entries if entry["what"] == "outcome"}
    unknown = {number for number in intents if number not in outcomes or outcomes[number]["outcome"] == Outcome.UNKNOWN}
    # A cancel of which nothing is known is looked up by the order that it names.
    named = {intents[number]["order_id"] for number in unknown if intents[number]["action"] == Action.CANCEL}
    young = {number for number, entry in intents.items() if _day(entry["at"]) >= since}
    kept = unknown | young | {number for number, entry in outcomes.items() if entry["order_id"] in named}
    latest = {(entry["order_id"], entry["at"], entry["intent"]): entry for entry in entries if entry["what"] == "order"}
    calls: Counter[tuple[str, str]] = Counter()
    first = max((entry["next"] for entry in entries if entry["what"] == "numbers"), default=1)
    carried: list[Entry] = [{"what": "numbers", "next": max([first - 1, *intents]) + 1}]
    for entry, day in zip(entries, days, strict=True):
        what = entry["what"]
        if what == "call" and day is not None and day >= since:
            calls[entry["day"], entry["call"]] += entry.get("times", 1)
        elif what == "order" and entry["intent"] in kept:
            if latest[entry["order_id"], entry["at"], entry["intent"]] is entry:
                carried.append(entry)
        elif what in ("intent", "outcome") and entry["number"] in kept:
            carried.append(entry)
    carried += [{"what": "call", "day": day, "call": call, "times": n} for (day, call), n in calls.items()]
    return carried


def _day_of(entry: Entry) -> dt.date | None:
    if entry["what"] == "intent":
        return _day(entry["at"])
    return _day(entry["day"]) if entry["what"] == "call" else None


def _day(text: str) -> dt.date:
    return dt.date.fromisoformat(text[:10])
