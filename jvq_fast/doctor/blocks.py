"""Which kinds of blocks a DEFLATE stream (RFC 1951) is made of: no other part looks at blocks one by one."""

STORED, FIXED, DYNAMIC = "stored", "fixed", "dynamic"

_LENGTHS_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
_END = 256
_LENGTH_BITS = (*(0,) * 8, *(bits for bits in range(1, 6) for _ in range(4)), 0)
_DISTANCE_BITS = (0, 0, *(bits for bits in range(14) for _ in range(2)))
_FIXED_LENGTHS = (8,) * 144 + (9,) * 112 + (7,) * 24 + (8,) * 8

_Code = dict[tuple[int, int], int]


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self.symbols = 0

    def take(self, count: int) -> int:
        value = 0
        for i in range(count):
            value |= (self._data[self._at >> 3] >> (self._at & 7) & 1) << i
            self._at += 1
        return value

    def skip_stored(self) -> None:
        self._at = (self._at + 7) & ~7
        size = self.take(16)
        self.take(16)
        self._at += 8 * size

    def symbol(self, code: _Code) -> int:
        self.symbols += 1
        value = 0
        for length in range(1, 16):
            value = value << 1 | self.take(1)
            symbol = code.get((length, value))
            if symbol is not None:
                return symbol
        raise ValueError("no such code")


def _code(lengths: tuple[int, ...] | list[int]) -> _Code:
    code: _Code = {}
    value = previous = 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths) if length):
        value <<= length - previous
        previous = length
        code[length, value] = symbol
        value += 1
    return code


def _dynamic(bits: _Bits) -> tuple[_Code, _Code]:
    literals, distances, metas = bits.take(5) + 257, bits.take(5) + 1, bits.take(4) + 4
    meta = [0] * 19
    for place in _LENGTHS_ORDER[:metas]:
        meta[place] = bits.take(3)
    code = _code(meta)
    lengths: list[int] = []
    while len(lengths) < literals + distances:
        symbol = bits.symbol(code)
        if symbol < 16:
            lengths.append(symbol)
        elif symbol == 16:
            lengths += lengths[-1:] * (bits.take(2) + 3)
        else:
            lengths += [0] * (bits.take(3) + 3 if symbol == 17 else bits.take(7) + 11)
    return _code(lengths[:literals]), _code(lengths[literals : literals + distances])


def kinds(stream: bytes, most: int = 1 << 16) -> list[str]:
    """The kinds of a stream's blocks, in order. ValueError for what is no such stream or has over `most` symbols."""
    bits = _Bits(stream)
    found = []
    try:
        while True:
            final, kind = bits.take(1), bits.take(2)
            found.append((STORED, FIXED, DYNAMIC)[kind])
            if kind == 0:
                bits.skip_stored()
            else:
                literals, distances = (_code(_FIXED_LENGTHS), _code((5,) * 30)) if kind == 1 else _dynamic(bits)
                while (symbol := bits.symbol(literals)) != _END:
                    if symbol > _END:
                        bits.take(_LENGTH_BITS[symbol - 257])
                        bits.take(_DISTANCE_BITS[bits.symbol(distances)])
                    if bits.symbols > most:
                        raise ValueError(f"more than {most} symbols")
            if final:
                return found
    except IndexError:
        raise ValueError("no DEFLATE stream") from None
