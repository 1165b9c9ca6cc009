"""Raw DEFLATE (RFC 1951) with blocks of the kind that is asked for: one complete stream per message."""

import zlib
from collections import Counter
from collections.abc import Callable
from functools import partial
from heapq import heapify, heappop, heappush

Deflate = Callable[[bytes], bytes]

_WINDOW, _MEMORY = -13, 6  # 8 KiB: more than a message holds as a rule, and much cheaper to set up than 32 KiB
_END = 256
_LENGTHS_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)


def deflate(kind: str, level: int) -> Deflate:
    """The function that compresses a message; ``kind``: auto, dynamic, fixed, stored, flushed, mixed (all in turn)."""
    kinds: dict[str, Deflate] = {
        "auto": partial(_zlib, level, zlib.Z_DEFAULT_STRATEGY),
        "fixed": partial(_zlib, level, zlib.Z_FIXED),
        "stored": partial(_zlib, 0, zlib.Z_DEFAULT_STRATEGY),
        "flushed": partial(_flushed, level),
        "dynamic": dynamic,
    }
    if kind != "mixed":
        return kinds[kind]
    turns = list(kinds.values())

    def mixed(data: bytes) -> bytes:
        turns.append(turns.pop(0))
        return turns[-1](data)

    return mixed


def _zlib(level: int, strategy: int, data: bytes) -> bytes:
    stream = zlib.compressobj(level, zlib.DEFLATED, _WINDOW, _MEMORY, strategy)
    return stream.compress(data) + stream.flush()


def _flushed(level: int, data: bytes) -> bytes:
    stream = zlib.compressobj(level, zlib.DEFLATED, _WINDOW, _MEMORY)
    half = len(data) // 2
    first = stream.compress(data[:half]) + stream.flush(zlib.Z_SYNC_FLUSH)
    rest = stream.compress(data[half:]) + stream.flush(zlib.Z_SYNC_FLUSH)
    return first + rest + b"\x01\x00\x00\xff\xff"


class _Bits:
    def __init__(self) -> None:
        self._value = 0
        self._size = 0

    def put(self, value: int, size: int) -> None:
        self._value |= value << self._size
        self._size += size

    def done(self) -> bytes:
        return self._value.to_bytes((self._size + 7) // 8, "little")


def _lengths(counts: dict[int, int], limit: int) -> dict[int, int]:
    """Huffman code lengths, none above ``limit``: counts are flattened until they fit."""
    while True:
        heap: list[tuple[int, int, tuple[int, ...]]]
        heap = [(count, symbol, (symbol,)) for symbol, count in counts.items()]
        heapify(heap)
        lengths = dict.fromkeys(counts, 1 if len(counts) == 1 else 0)
        while len(heap) > 1:
            one, other = heappop(heap), heappop(heap)
            for symbol in one[2] + other[2]:
                lengths[symbol] += 1
            heappush(heap, (one[0] + other[0], one[1], one[2] + other[2]))
        if max(lengths.values()) <= limit:
            return lengths
        counts = {symbol: count // 2 + 1 for symbol, count in counts.items()}


def _codes(lengths: dict[int, int]) -> dict[int, tuple[int, int]]:
    """Canonical codes, bits already reversed for writing: symbol -> (code, length)."""
    codes = {}
    code = previous = 0
    for length, symbol in sorted((length, symbol) for symbol, length in lengths.items()):
        code <<= length - previous
        previous = length
        codes[symbol] = int(f"{code:0{length}b}"[::-1], 2), length
        code += 1
    return codes


def dynamic(data: bytes) -> bytes:
    """One block with its own code, literals only, however little there is to compress."""
    counts: dict[int, int] = Counter(data)
    counts[_END] = 1
    lengths = _lengths(counts, 15)
    literals = _codes(lengths)
    # 257 literal/length codes and two distance codes of one bit, which a decoder wants complete though none is used.
    written = [lengths.get(symbol, 0) for symbol in range(257)] + [1, 1]
    meta_lengths = _lengths(Counter(written), 7)
    meta = _codes(meta_lengths)
    out = _Bits()
    out.put(1, 1)
    out.put(2, 2)
    out.put(0, 5)
    out.put(1, 5)
    out.put(len(_LENGTHS_ORDER) - 4, 4)
    for symbol in _LENGTHS_ORDER:
        out.put(meta_lengths.get(symbol, 0), 3)
    for length in written:
        out.put(*meta[length])
    for symbol in (*data, _END):
        out.put(*literals[symbol])
    return out.done()
