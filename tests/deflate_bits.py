"""Raw DEFLATE streams that no compressor writes: blocks with any set of code lengths, legal or not."""

import random
from collections.abc import Iterable, Sequence

LENGTHS_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
LENGTH_EXTRAS = [0] * 8 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4 + [5] * 4 + [0]
DISTANCE_EXTRAS = [0, 0, *(extra for extra in range(14) for _ in (0, 1))]


class Bits:
    """A stream under construction, least significant bit first."""

    def __init__(self) -> None:
        self._value = 0
        self._n = 0

    def put(self, value: int, n: int) -> None:
        self._value |= (value & ((1 << n) - 1)) << self._n
        self._n += n

    def align(self) -> None:
        self._n += -self._n % 8

    def bytes(self) -> bytes:
        return self._value.to_bytes((self._n + 7) // 8, "little")


def codes(lengths: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Symbol to code, first bit lowest, and its length; of illegal lengths whatever comes out."""
    found = {}
    code = 0
    for bits in range(1, 16):
        for symbol, length in enumerate(lengths):
            if length == bits:
                text = f"{code & ((1 << bits) - 1):0{bits}b}"
                found[symbol] = int(text[::-1], 2), bits
                code += 1
        code <<= 1
    return found


def full_lengths(rng: random.Random, symbols: Iterable[int], size: int, longest: int = 15) -> list[int]:
    """Lengths of a complete code for some symbols of `size`: leaves of a tree that is split at random."""
    symbols = list(symbols)
    leaves = [0]
    deep = rng.random() < 0.5
    while len(leaves) < len(symbols):
        open_ = [i for i, depth in enumerate(leaves) if depth < longest]
        i = max(open_, key=lambda i: leaves[i]) if deep and rng.random() < 0.8 else rng.choice(open_)
        depth = leaves.pop(i) + 1
        leaves += [depth, depth]
    rng.shuffle(leaves)
    lengths = [0] * size
    for symbol, depth in zip(symbols, leaves, strict=True):
        lengths[symbol] = max(depth, 1)
    return lengths


def put_lengths(bits: Bits, rng: random.Random, literals: Sequence[int], distances: Sequence[int]) -> None:
    """The header of a dynamic block, runs and repeats at will."""
    n_literals = max(257, len(literals) - next((i for i, n in enumerate(reversed(literals)) if n), 0))
    n_distances = max(1, len(distances) - next((i for i, n in enumerate(reversed(distances)) if n), 0))
    n_literals = min(max(n_literals, rng.choice([257, 257, 286])), 286)
    plain = [*literals[:n_literals], *distances[:n_distances]]
    told: list[tuple[int, int, int]] = []
    at = 0
    while at < len(plain):
        run = next((i for i in range(at, len(plain)) if plain[i] != plain[at]), len(plain)) - at
        if plain[at] == 0 and run >= 11 and rng.random() < 0.9:
            run = min(run, 138)
            told.append((18, run - 11, 7))
        elif plain[at] == 0 and run >= 3 and rng.random() < 0.9:
            run = min(run, 10)
            told.append((17, run - 3, 3))
        elif at and plain[at] == plain[at - 1] and run >= 3 and rng.random() < 0.8:
            run = min(run, 6)
            told.append((16, run - 3, 2))
        else:
            run = 1
            told.append((plain[at], 0, 0))
        at += run
    used = sorted({symbol for symbol, _, _ in told})
    if len(used) == 1:
        used.append(0 if used[0] else 1)
    lengths = full_lengths(rng, used, 19, 7)
    table = codes(lengths)
    n = max(4, max(i for i, symbol in enumerate(LENGTHS_ORDER) if lengths[symbol]) + 1)
    bits.put(n_literals - 257, 5)
    bits.put(n_distances - 1, 5)
    bits.put(n - 4, 4)
    for symbol in LENGTHS_ORDER[:n]:
        bits.put(lengths[symbol], 3)
    for symbol, extra, n_extra in told:
        bits.put(*table[symbol])
        bits.put(extra, n_extra)


def block(bits: Bits, rng: random.Random, *, last: bool, far: bool = True) -> None:
    """A dynamic block of a random code and random symbols of it, matches among them where something precedes."""
    literals = full_lengths(rng, {*rng.sample(range(286), rng.choice([1, 2, 5, 25, 120, 285])), 256}, 286)
    if rng.random() < 0.1:
        literals = [0] * 286
        literals[256] = 1
    distances = [0] * 30
    some = rng.sample(range(30), rng.choice([0, 1, 2, 5, 30]))
    if len(some) > 1:
        distances = full_lengths(rng, some, 30)
    elif some:
        distances[some[0]] = 1
    bits.put(int(last), 1)
    bits.put(2, 2)
    put_lengths(bits, rng, literals, distances)
    literal_codes, distance_codes = codes(literals), codes(distances)
    plain = [symbol for symbol in literal_codes if symbol < 256]
    matches = [symbol for symbol in literal_codes if symbol > 256] if distance_codes and far else []
    for _ in range(rng.choice([0, 1, 10, 400])):
        if matches and rng.random() < 0.3:
            symbol = rng.choice(matches)
            bits.put(*literal_codes[symbol])
            extra = LENGTH_EXTRAS[symbol - 257]
            bits.put(rng.randrange(1 << extra), extra)
            distance = rng.choice(list(distance_codes))
            bits.put(*distance_codes[distance])
            extra = DISTANCE_EXTRAS[distance]
            bits.put(rng.randrange(1 << extra), extra)
        elif plain:
            bits.put(*literal_codes[rng.choice(plain)])
    bits.put(*literal_codes[256])


def stored(bits: Bits, data: bytes, *, last: bool) -> None:
    bits.put(int(last), 1)
    bits.put(0, 2)
    bits.align()
    bits.put(len(data), 16)
    bits.put(len(data) ^ 0xFFFF, 16)
    for byte in data:
        bits.put(byte, 8)


def stream(seed: int) -> bytes:
    """Some blocks, with something to match before those that match; sound but for distances that are too far."""
    rng = random.Random(seed)
    bits = Bits()
    if rng.random() < 0.8:
        stored(bits, rng.randbytes(rng.choice([0, 3, 300, 33_000])), last=False)
    for _ in range(rng.choice([0, 0, 1, 3])):
        block(bits, rng, last=False)
    block(bits, rng, last=True)
    return bits.bytes()
