"""Raw DEFLATE as compressors write it: zlib, libdeflate, ISA-L, zopfli and Go.

Go's streams of a few generated texts are in ``deflate_go.bin``, so that they are tested where there is no Go too; with
Go here ``python tests/deflate_streams.py`` writes that file anew.
"""

import itertools
import random
import shutil
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
GO_STREAMS = HERE / "deflate_go.bin"


def trades(rng: random.Random) -> str:
    return ",".join(
        f"09:30:0{rng.randrange(10)}.{rng.randrange(1000)},{rng.randrange(10**6)},1688.{n}" for n in range(900)
    )


def texts(rng: random.Random) -> Iterator[bytes]:
    some = trades(rng)
    yield from (b"", b"x", b"abc" * 100, bytes(300), rng.randbytes(200), rng.randbytes(40_000), bytes(70_000))
    for size in (20, 70, 300, 2_000, 20_000):
        yield some[:size].encode()
        yield bytes(rng.choice(b"0123456789.,|") for _ in range(size))
    yield b"".join(rng.randbytes(3) * rng.randrange(1, 90) for _ in range(400))


def by_zlib(rng: random.Random, longest: int = 1 << 20) -> Iterator[bytes]:
    """Of the texts that are no longer."""
    strategies = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED)
    flushes = (zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_PARTIAL_FLUSH, zlib.Z_BLOCK)
    for text in texts(rng):
        if len(text) > longest:
            continue
        for level, strategy in itertools.product(range(10), strategies):
            machine = zlib.compressobj(level, zlib.DEFLATED, -rng.randrange(9, 16), rng.randrange(1, 10), strategy)
            if rng.random() < 0.4:
                half = len(text) // 2
                yield (
                    machine.compress(text[:half])
                    + machine.flush(rng.choice(flushes))
                    + machine.compress(text[half:])
                    + machine.flush()
                )
            else:
                yield machine.compress(text) + machine.flush()


def by_others(rng: random.Random, longest: int = 1 << 20) -> Iterator[bytes]:
    """Of the texts that are no longer."""
    import deflate
    import zopfli.zlib
    from isal import igzip_lib

    for text in texts(rng):
        if len(text) > longest:
            continue
        for level in (1, 6, 9, 12):
            yield bytes(deflate.deflate_compress(text, level))
        for level in (0, 1, 2, 3):
            yield igzip_lib.compress(text, level, flag=igzip_lib.COMP_DEFLATE)
        if len(text) < 5_000:
            yield zopfli.zlib.compress(text)[2:-4]  # without zlib's own head and checksum


def by_go(of: Iterable[bytes]) -> list[bytes] | None:
    """Every level's, whole and flushed; None without Go."""
    go = shutil.which("go")
    if go is None:
        return None
    sent = b"".join(map(framed, of))
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "deflate")
        subprocess.run([go, "build", "-o", program, HERE / "deflate.go"], check=True, cwd=folder, timeout=300)
        made = subprocess.run([program], input=sent, stdout=subprocess.PIPE, check=True, timeout=600).stdout
    return list(unframed(made))


def framed(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def unframed(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        yield data[at + 4 : at + 4 + size]
        at += 4 + size


def few_texts() -> list[bytes]:
    """Those whose streams are in the file."""
    some = trades(random.Random(0)).encode()
    return [b"", b"x", b"abc" * 100, some[:20], some[:70], some[:300]]


if __name__ == "__main__":
    streams = by_go(few_texts())
    assert streams is not None, "there is no Go here (Debian: golang-go)"
    GO_STREAMS.write_bytes(b"".join(map(framed, streams)))
