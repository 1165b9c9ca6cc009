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
    """Entries of the last days on which something was ordered, and whatever is not known, however old; fewer lines.

    JournalError for entries that can't be read.
    """
    try:
        return _carried(list(entries))
    except (KeyError, ValueError, TypeError) as error:
        raise JournalError(f"an entry of the journal can't be read ({type(error).__name__}: {error})") from None


def _carried(entries: list[Entry]) -> list[Entry]:
    intents = {entry["number"]: entry for entry in entries if entry["what"] == "intent"}
    outcomes = {entry["number"]: entry for entry in entries if entry["what"] == "outcome"}
    unknown = {number for number in intents if number not in outcomes or outcomes[number]["outcome"] == Outcome.UNKNOWN}
    # A cancel of which nothing is known is looked up by the order that it names.
    named = {intents[number]["order_id"] for number in unknown if intents[number]["action"] == Action.CANCEL}
    # Days that were counted, and not a time: a clock that was wrong once must not make today old.
    last = set(sorted({_day(entry["at"]) for entry in intents.values()})[-KEPT_DAYS:])
    young = {number for number, entry in intents.items() if _day(entry["at"]) in last}
    paid = set(sorted({_day(entry["day"]) for entry in entries if entry["what"] == "call"})[-KEPT_DAYS:])
    kept = unknown | young | {number for number, entry in outcomes.items() if entry["order_id"] in named}
    latest = {(entry["order_id"], entry["at"], entry["intent"]): entry for entry in entries if entry["what"] == "order"}
    calls: Counter[tuple[str, str]] = Counter()
    first = max((entry["next"] for entry in entries if entry["what"] == "numbers"), default=1)
    carried: list[Entry] = [{"what": "numbers", "next": max([first - 1, *intents]) + 1}]
    for entry in entries:
        what = entry["what"]
        if what == "call" and _day(entry["day"]) in paid:
            calls[entry["day"], entry["call"]] += entry.get("times", 1)
        elif what == "order" and entry["intent"] in kept:
            if latest[entry["order_id"], entry["at"], entry["intent"]] is entry:
                carried.append(entry)
        elif what in ("intent", "outcome") and entry["number"] in kept:
            carried.append(entry)
    carried += [{"what": "call", "day": day, "call": call, "times": n} for (day, call), n in calls.items()]
    return carried


def _day(text: str) -> dt.date:
    return dt.date.fromisoformat(text[:10])
