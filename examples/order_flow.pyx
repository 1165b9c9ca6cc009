"""What went through each stock so far, counted in Cython: no Python object is made for a trade.

In a folder of its own, with this file in it, where ../jvq_fast is the repository; Cython does not look into an editable
install:

pip install ../jvq_fast cython 'setuptools>=77'
cythonize -i -3 order_flow.pyx
jvq-fast sim --json | python -c "import order_flow"          on the simulator, whatever the token; Ctrl-C ends both
JVQ_FAST_TOKEN=… python -c "import order_flow"               on the vendor's feed
"""

cimport cython
from jvq_fast.native cimport Handler, Trade
from libc.stdint cimport int64_t
from libc.string cimport memcmp

import contextlib
import json
import os
import time
from pathlib import Path

import jvq_fast as jvq


@cython.final
cdef class OrderFlow(Handler):
    """Turnover, shares and last price of one stock since this was made."""

    cdef bytes code
    cdef readonly double turnover       # CNY
    cdef readonly int64_t shares
    cdef readonly double last_price     # CNY

    def __init__(self, str code):
        self.code = code.encode("ascii").ljust(8, b"\0")

    cdef int on_trades(self, const Trade *trades, Py_ssize_t count) except -1:
        cdef Py_ssize_t i
        if memcmp(trades[0].code, <const char *>self.code, 8) != 0:     # all of a call have the same
            return 0
        for i in range(count):
            self.turnover += trades[i].price * trades[i].volume
            self.shares += trades[i].volume
        self.last_price = trades[count - 1].price
        return 0


sim = json.loads(input()) if Path("/dev/stdin").is_fifo() else {}
token = "0" * 32 if sim else os.environ["JVQ_FAST_TOKEN"]
feed = jvq.Feed(token, ["lv2_600519", "lv2_000001"], allocation=sim.get("http"), trading_day=sim.get("trading_day"),
                clock="always" if sim else "exchange")
flows = {code: OrderFlow(code) for code in ("600519", "000001")}
for flow in flows.values():
    feed.on_trades(flow)
with contextlib.suppress(KeyboardInterrupt), feed:
    while True:
        time.sleep(1)
        for code, flow in flows.items():
            print(f"{code} {flow.shares:11,} shares for {flow.turnover:18,.2f} CNY, last at {flow.last_price:.2f}", flush=True)
