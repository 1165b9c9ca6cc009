"""Long while the average of the last 20 trades is above that of the last 200, judged after every socket read.

jvq-fast sim --json | python examples/moving_average.py      on the simulator, whatever the token; Ctrl-C ends both
JVQ_FAST_TOKEN=… python examples/moving_average.py           on the vendor's feed
"""

import contextlib
import json
import os
from pathlib import Path

import jvq_fast as jvq

sim: dict[str, str] = json.loads(input()) if Path("/dev/stdin").is_fifo() else {}
token = "0" * 32 if sim else os.environ["JVQ_FAST_TOKEN"]
feed = jvq.Feed(token, ["lv2_600519", "lv2_000001"], allocation=sim.get("http"), trading_day=sim.get("trading_day"),
                clock="always" if sim else "exchange")  # fmt: skip
position = {"600519": "flat", "000001": "flat"}


@feed.on_batch
def judge(_records: int) -> None:
    for code, held in position.items():
        prices = feed.history(code, "trades").last(200)["price"]
        wanted = "long" if len(prices) == 200 and prices[-20:].mean() > prices.mean() else "flat"
        if wanted != held:
            position[code] = wanted
            print(f"{code} {wanted:4} at {prices[-1]:.2f}", flush=True)


with contextlib.suppress(KeyboardInterrupt):
    feed.run()
