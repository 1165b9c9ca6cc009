"""Slow work beside the feed: the main thread copies what is new twice a second, the feed never waits for it.

jvq-fast sim --json | python examples/reader_thread.py      on the simulator, whatever the token; Ctrl-C ends both
JVQ_FAST_TOKEN=… python examples/reader_thread.py           on the vendor's feed
"""

import contextlib
import json
import os
from pathlib import Path

import jvq_fast as jvq

sim: dict[str, str] = json.loads(input()) if Path("/dev/stdin").is_fifo() else {}
token = "0" * 32 if sim else os.environ["JVQ_FAST_TOKEN"]
names = ["lv2_600519", "lv2_000001"]
feed = jvq.Feed(
    token, names, allocation=sim.get("http"), trading_day=sim.get("trading_day"), clock="always" if sim else "exchange"
)

with contextlib.suppress(KeyboardInterrupt), feed:
    cursor = 0
    while not feed.join(timeout=0.5):  # raises what ended the feed, if anything did
        trades, cursor, lost = feed.trades.copy_since(cursor)
        for code in ("600519", "000001"):
            own = trades[trades["code"] == code.encode()]
            volume = own["volume"].sum()
            if volume:
                average = (own["price"] * own["volume"]).sum() / volume
                print(f"{code} {len(own):4} trades, {volume:9,} shares at {average:.3f} on average", flush=True)
        if lost:
            print(f"{lost} trades were overwritten before they were read: a larger capacity= keeps more", flush=True)
