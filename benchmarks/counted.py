"""What `benchmarks.scaling` counts the instructions of: runs in callgrind, which writes a dump per name.

    python -m benchmarks.counted LIBRARY RECORDS...     the library is native/count.c

Prints, for each name, of how many records or messages the dump is.
"""

import ctypes
import random
import sys
from collections.abc import Callable, Sequence
from functools import partial

import jvq_fast as jvq
from benchmarks.scaling import FEW, HISTORY, RECV, TRADES, advance, after, reserved
from benchmarks.shapes import SEED, Market, deflate
from jvq_fast.meter import Meter

DIFFERENT = 8  # messages of each code
METERED = 2000  # messages
RECORDED = 100_000  # values


def nothing(*_: object) -> None:
    """A handler that costs its call."""


def main(arguments: Sequence[str]) -> None:
    library = ctypes.CDLL(arguments[0])
    begin, end = library.begin, library.end  # looked up here, so that it is not counted

    def count(name: str, units: int, run: Callable[[], object]) -> None:
        begin()
        run()
        end(name.encode())
        print(units, name)

    market = Market(FEW)
    different = [deflate(market.trades(code, TRADES)) for code in market.codes for _ in range(DIFFERENT)]
    # The length of a history for each code: wherever they stand, the last half of each moves once.
    messages = different * (HISTORY // TRADES // DIFFERENT)
    random.Random(SEED).shuffle(messages)

    def decode(decoder: jvq.Decoder, messages: Sequence[bytes]) -> None:
        for message in messages:
            decoder.decode(message, RECV)

    decoder = reserved(market.codes)
    decode(decoder, messages)
    for records in map(int, arguments[1:]):
        advance(decoder, market.codes, records)
        count(after(records), len(messages) * TRADES, partial(decode, decoder, messages))

    for name, meter in (("handler", None), ("handler and meter", Meter())):
        decoder = reserved(market.codes)
        decoder.on_trades = nothing
        decoder.meter = meter
        decode(decoder, messages[:METERED])
        count(name, METERED, partial(decode, decoder, messages[:METERED]))

    rng = random.Random(SEED)
    histogram = ctypes.create_string_buffer(1 << 13)  # more than it needs
    values = (ctypes.c_uint64 * RECORDED)(*(int(rng.lognormvariate(9, 2)) for _ in range(RECORDED)))
    count("histogram", RECORDED, partial(library.record, histogram, values, ctypes.c_size_t(RECORDED)))


if __name__ == "__main__":
    main(sys.argv[1:])
