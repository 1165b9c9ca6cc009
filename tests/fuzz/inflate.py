"""Raw DEFLATE into `inflate` by itself and into the interpreter's zlib: the same verdict, output and end of the stream.

An input is two bytes that choose the room for the output, and a stream.
"""

import ctypes
import os
import random
import subprocess
import tempfile
import zlib
from pathlib import Path

import harness

import deflate_bits
from inflate_judge import INFLATED, Verdict, of_zlib, settled

ROOT = Path(__file__).resolve().parent.parent.parent
WATCHED = ("-fsanitize-coverage=trace-pc,trace-cmp",)
ROOMS = (1 << 16, 300, 40, 1)


def _load() -> ctypes.CDLL:
    """`inflate` with its branches seen by the fuzzer, where the compiler can do that."""
    with tempfile.TemporaryDirectory() as folder:
        watched, teller, library = Path(folder, "inflate.o"), Path(folder, "coverage.o"), Path(folder, "inflate.so")
        compiler = (os.environ.get("CC", "cc"), "-O1", "-g", "-fPIC", f"-I{ROOT / 'jvq_fast' / 'include'}")
        subprocess.run([*compiler, *WATCHED, "-c", ROOT / "src" / "inflate.c", "-o", watched], check=True, timeout=120)
        subprocess.run([*compiler, "-c", ROOT / "tests" / "fuzz" / "coverage.c", "-o", teller], check=True, timeout=120)
        subprocess.run([compiler[0], "-shared", watched, teller, "-ldl", "-o", library], check=True, timeout=120)
        return ctypes.CDLL(str(library))


_library = _load()
_inflater = ctypes.create_string_buffer(1 << 16)  # more than it needs
_library.jvq_inflater_init(_inflater)
_written, _consumed = ctypes.c_size_t(), ctypes.c_size_t()
_out = ctypes.create_string_buffer((1 << 16) + 8)
_planted = False


def ours(data: bytes, room: int) -> Verdict:
    status = _library.jvq_inflate(
        _inflater, data, ctypes.c_size_t(len(data)), _out, ctypes.c_size_t(room),
        ctypes.byref(_written), ctypes.byref(_consumed),
    )  # fmt: skip
    return settled(status, _consumed.value, ctypes.string_at(_out, _written.value))


def judge(data: bytes, room: int) -> Verdict:
    status, consumed, output = of_zlib(room, data)
    wrong = _planted and status == INFLATED and len(output) == 7
    return status, consumed + wrong, output


def check(data: bytes) -> None:
    if len(data) < 2:
        return
    room = ROOMS[data[0] % len(ROOMS)] + data[1] % 8
    assert ours(data[2:], room) == judge(data[2:], room)


def seeds() -> list[bytes]:
    texts = (b"", b"x", b"09:30:00.123,17,1688.88,200|" * 5, bytes(range(256)) * 2, bytes(70_000))
    found = []
    for text in texts:
        for level, strategy in (
            (0, 0),
            (1, 0),
            (6, 0),
            (9, 0),
            (6, zlib.Z_FIXED),
            (6, zlib.Z_HUFFMAN_ONLY),
            (6, zlib.Z_RLE),
        ):
            machine = zlib.compressobj(level, zlib.DEFLATED, -15, 8, strategy)
            stream = machine.compress(text) + machine.flush()
            if len(stream) < 1000:
                found += [b"\0\0" + stream, b"\1\0" + stream]
    return found + [b"\0\0" + each for each in map(deflate_bits.stream, range(60)) if len(each) < 1000]


def mutate(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.01:  # it takes its time
        return data[:2] + deflate_bits.stream(rng.getrandbits(32))
    changed = bytearray(data or b"\0\0\3\0")
    kind = rng.randrange(4)
    at = rng.randrange(len(changed))
    if kind == 0:
        changed[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del changed[at:]
    elif kind == 2:
        other = zlib.compressobj(rng.randrange(1, 10), zlib.DEFLATED, -15, 9, rng.randrange(5))
        changed[at:] = other.compress(rng.randbytes(rng.randrange(4)) * rng.randrange(1, 50)) + other.flush()
    else:
        changed[at:at] = rng.randbytes(1 + rng.randrange(3))
    return bytes(changed)


def plant() -> None:
    global _planted
    _planted = True


if __name__ == "__main__":
    harness.run(check, seeds, mutate, plant, longest=2000)
