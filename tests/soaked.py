"""A feed in a process of its own that hands on every record as bytes, and says on request how it is.

``python soaked.py JSON``: ``folder``, ``subscriptions``, ``allocation``, ``settings``. Records go to ``trades``,
``quotes`` and ``depths`` in the folder, the capture to ``capture``. Each line on stdin is answered with one of JSON;
the end of stdin stops the feed.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import jvq_fast as jvq
from this_process import descriptors, resident

TOKEN = "0123456789abcdef0123456789abcdef"


def main(folder: str, subscriptions: list[str], allocation: str, settings: dict[str, Any]) -> None:
    place = Path(folder)
    feed = jvq.Feed(TOKEN, subscriptions, allocation=allocation, capture=place / "capture", **settings)
    counts: Counter[str] = Counter()
    for level in ("trades", "quotes", "depths"):
        file = (place / level).open("wb", buffering=1 << 16)
        getattr(feed, f"on_{level}")(lambda code, records, file=file: file.write(records))
    feed.on_gap(lambda gap: counts.update(("gaps_told",)))
    feed.on_stale(lambda stale: counts.update(("stales_told",)))
    feed.on_error(lambda error, where: counts.update((f"error_{where}",)))
    feed.start()
    for _ in sys.stdin:
        print(json.dumps({**feed.stats(), **counts, **now()}), flush=True)
    feed.stop()
    feed.join(60)
    print(json.dumps({**feed.stats(), **counts, **now()}), flush=True)


def now() -> dict[str, Any]:
    return {"resident": resident(), "descriptors": descriptors()}


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
