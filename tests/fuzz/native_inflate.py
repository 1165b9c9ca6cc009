"""Raw DEFLATE into `inflate` by itself and into zlib's C library, compared in C: a hundred times what Python can do.

The seeds are streams of all compressors there are, of random codes, and the real packets where they are at hand.
"""

import random
from collections.abc import Iterator

import libfuzzer

import deflate_bits
from benchmarks.shapes import shapes
from deflate_streams import GO_STREAMS, by_others, by_zlib, unframed

LONGEST = 2000
HEADS = (b"\0\0", b"\5\0", b"\2\7")  # the largest room, for any processor; a little room


def streams() -> Iterator[bytes]:
    rng = random.Random(1)
    yield from by_zlib(rng, 400)
    yield from by_others(rng, 400)
    yield from unframed(GO_STREAMS.read_bytes())
    yield from map(deflate_bits.stream, range(300))
    for shape in shapes():
        yield from shape.payloads[:40]


def seeds() -> list[bytes]:
    return [HEADS[i % len(HEADS)] + each for i, each in enumerate(streams()) if len(each) + 2 <= LONGEST]


if __name__ == "__main__":
    libfuzzer.run("inflate", (str(libfuzzer.ROOT / "src" / "inflate.c"), "-lz"), seeds, longest=LONGEST)
