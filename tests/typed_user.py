"""What a user writes; the type checker reads it, nothing runs it."""

from collections.abc import Mapping
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import jvq_fast as jvq
from jvq_fast.events import Lag
from jvq_fast.lag import Judge
from jvq_fast.meter import Meter

Records = NDArray[np.void]

decoder = jvq.Decoder(market="ab", capacity=65536, history={"trades": 1024}, trading_day="2026-11-23")


def on_trades(code: str, trades: Records) -> None:
    assert_type(decoder.history(code, "trades"), jvq.Ring)
    print(code, float(trades["price"][-1]))


def on_batch(records: int) -> None:
    print(records)


def on_error(error: BaseException, where: str) -> None:
    print(where, error)


decoder.on_trades = on_trades
decoder.on_trades = [on_trades, on_trades]
decoder.on_trades = None
decoder.on_batch = on_batch
decoder.on_error = on_error
assert_type(decoder.decode(b"", recv_ns=0), int)
assert_type(decoder.decode(bytearray()), int)
assert_type(decoder.trades, jvq.Ring)
assert_type(decoder.trades.head, int)
assert_type(decoder.trades.last(5), Records)
records, cursor, lost = decoder.quotes.copy_since(0)
assert_type(records, Records)
assert_type((cursor, lost), tuple[int, int])
assert_type(decoder.names, Mapping[str, str])
assert_type(decoder.stats(), dict[str, int | str])
assert_type(decoder.nbytes, int)
decoder.meter = meter = Meter()
assert_type(meter.skew, float | None)
assert_type(meter.dispatch.percentile(99), float)
assert_type(meter.network["trades"].buckets(), list[tuple[float, int]])
assert_type(Judge(max_network_lag=1.0).look(meter.take(), lateness=0.1), list[Lag])
assert_type(jvq.TRADE, np.dtype[np.void])
assert_type(jvq.Flag.STALE | jvq.Flag.REPEAT, jvq.Flag)

feed = jvq.Feed("0" * 32, subscriptions=["lv2_600519", "lv1_000001"], server="ws://127.0.0.1:1", clock="always")


@feed.on_trades
def first(code: str, trades: Records) -> None:
    print(code, trades["volume"].sum())


@feed.on_gap
def gap(missing: jvq.Gap) -> None:
    assert_type(missing.start, int)
    assert_type(missing.codes, tuple[str, ...])


def again() -> None:
    first("600519", feed.trades.last(1))
    gap(jvq.Gap(0, 1, "lost", ("lv2_600519",)))


async def in_my_loop() -> None:
    await feed.run_async()


def in_a_thread() -> None:
    with feed:
        assert_type(feed.request("list", timeout=5), str)
        feed.subscribe(["lv1_600519"])
        feed.unsubscribe(["lv1_600519"])
        feed.replace(["lv1_600519"])
    feed.start()
    feed.stop()
    feed.join(timeout=5)


def replay(path: str, anything: Any) -> None:
    jvq.replay(path, decoder)
