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
from benchmarks.scaling import FEW, HISTORY, RECV, SEED, TRADES, advance, after, book, message, reserved
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

    rng = random.Random(SEED)
    codes = book(FEW)
    different = [message(code, rng) for code in codes for _ in range(DIFFERENT)]
    # The length of a history for each code: wherever they stand, the last half of each moves once.
    messages = different * (HISTORY // TRADES // DIFFERENT)
    rng.shuffle(messages)

    def decode(decoder: jvq.Decoder, messages: Sequence[bytes]) -> None:
        for each in messages:
            decoder.decode(each, RECV)

    decoder = reserved(codes)
    decode(decoder, messages)
    for records in map(int, arguments[1:]):
        advance(decoder, codes, records)
        count(after(records), len(messages) * TRADES, partial(decode, decoder, messages))

    for name, meter in (("handler", None), ("handler and meter", Meter())):
        decoder = reserved(codes)
        decoder.on_trades = nothing
        decoder.meter = meter
        decode(decoder, messages[:METERED])
        count(name, METERED, partial(decode, decoder, messages[:METERED]))

    histogram = ctypes.create_string_buffer(1 << 13)  # more than it needs
    values = (ctypes.c_uint64 * RECORDED)(*(int(rng.lognormvariate(9, 2)) for _ in range(RECORDED)))
    count("histogram", RECORDED, partial(library.record, histogram, values, ctypes.c_size_t(RECORDED)))
    count("its loop", RECORDED, partial(library.walk, values, ctypes.c_size_t(RECORDED)))


if __name__ == "__main__":
    main(sys.argv[1:])
