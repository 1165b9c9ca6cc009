"""Capture files: raw messages as they arrived, and how to play them into a `Decoder`.

A file is a header and entries, all numbers little-endian, all times ns since the epoch UTC. Header, 32 bytes: magic
(8), version u4, market S8, creation time i8, CRC-32 of the 28 bytes before u4. Entry: CRC-32 of all that follows u4,
payload length u4, arrival time i8, kind u1, flags u1, 0x51A7 u2, payload. Kinds: 1 a binary message as it came (flag 1:
the last one of its socket read), 2 the first connection, 3 another connection, 4 a socket read with messages ended in
some other frame, 5 messages lost before they were written (payload: how many u8, their bytes u8).

What a file holds when its writer, or the machine, died is said in `jvq_fast.recorder.Recorder`.
"""

import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from jvq_fast.decoder import Decoder
from jvq_fast.errors import CaptureError, CaptureWarning
from jvq_fast.plural import plural

__all__ = ["replay"]

MAGIC = b"\x89JVQCAP\n"
VERSION = 1
HEADER = struct.Struct("<8sI8sqI")
ENTRY = struct.Struct("<IIqBBH")
ENTRY_MAGIC = 0x51A7
ENDS_READ = 1
MESSAGE, CONNECT, RECONNECT, END_OF_READ, LOST = range(1, 6)
LOSS = struct.Struct("<QQ")
# No writer makes larger ones; a length beyond it is damage, and never read.
MAX_PAYLOAD = 64 * 1024 * 1024
_BUFFER = 1 << 20
_LATEST = 1 << 62  # the year 2116


class Entry(NamedTuple):
    """One entry: `offset` is where it begins in the file, `recv` its arrival in ns."""

    offset: int
    kind: int
    ends_read: bool
    recv: int
    payload: bytes


def header(market: str, created_ns: int) -> bytes:
    """The first bytes of a file."""
    body = HEADER.pack(MAGIC, VERSION, market.encode(), created_ns, 0)[:-4]
    return body + zlib.crc32(body).to_bytes(4, "little")


def entry(kind: int, recv: int, payload: bytes = b"", *, ends_read: bool = False) -> bytes:
    """One entry as it stands in a file."""
    rest = ENTRY.pack(0, len(payload), recv, kind, ENDS_READ if ends_read else 0, ENTRY_MAGIC)[4:] + payload
    return zlib.crc32(rest).to_bytes(4, "little") + rest


class Reader:
    """Iterates over the entries of a file up to the first damaged one; `end` is then the offset of its first byte.

    `damage` says what is wrong there, and is "" where the file simply ends. CaptureError when it is no capture file.
    Holds one entry at a time, whatever a length in the file claims.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        head = file.read(HEADER.size)
        if head[: len(MAGIC)] != MAGIC or len(head) < HEADER.size:
            raise CaptureError(f"{name} is not a capture file")
        _, version, market, self.created, crc = HEADER.unpack(head)
        if zlib.crc32(head[:-4]) != crc:
            raise CaptureError(f"{name} has a damaged header")
        if version != VERSION:
            raise CaptureError(f"{name} is a capture file of version {version}, this reads version {VERSION}")
        self.market = market.rstrip(b"\0").decode("ascii", "replace")
        self.end = HEADER.size
        self.damage = ""

    def __iter__(self) -> Iterator[Entry]:
        read, unpack, crc32 = self._file.read, ENTRY.unpack, zlib.crc32
        size = ENTRY.size
        while head := read(size):
            if len(head) < size:
                self.damage = "an entry is cut off"
                return
            crc, length, recv, kind, flags, magic = unpack(head)
            if magic != ENTRY_MAGIC or length > MAX_PAYLOAD:
                self.damage = "what stands there is no entry"
                return
            if length > _BUFFER and length > os.fstat(self._file.fileno()).st_size - self.end:
                self.damage = "an entry is cut off"
                return
            payload = read(length)
            if len(payload) < length:
                self.damage = "an entry is cut off"
                return
            if crc32(payload, crc32(head[4:])) != crc:
                self.damage = "a checksum does not match"
                return
            if not MESSAGE <= kind <= LOST or (kind == LOST and length != LOSS.size):
                self.damage = "an entry is of an unknown kind"
                return
            if not 0 <= recv <= _LATEST:
                self.damage = "an entry has no time"
                return
            offset = self.end
            self.end += size + length
            yield Entry(offset, kind, bool(flags & ENDS_READ), recv, payload)


def replay(path: str | os.PathLike[str], decoder: Decoder) -> int:
    """Play a capture into a decoder; returns the number of records published.

    `connected()`, `resume()` and `end_read()` (and with it `on_batch`) come where they came live, so that a fresh
    decoder with the same settings publishes the same records, `seq` and `recv` included. A damaged entry ends it, with
    a CaptureWarning that names the byte offset, and messages that the capture itself had lost are announced with one.
    CaptureError when the file can't be read or is no capture. The calling thread becomes the decoder's writer.
    """
    name = os.fspath(path)
    records = 0
    unended = False
    try:
        file = open(path, "rb", buffering=_BUFFER)  # noqa: SIM115, PTH123
    except OSError as error:
        raise CaptureError(f"can't read {name}: {error.strerror}") from None
    with file:
        reader = Reader(file, name)
        for offset, kind, ends_read, recv, payload in reader:
            if kind == MESSAGE:
                records += decoder.decode_part(payload, recv)
                unended = not ends_read
                if ends_read:
                    decoder.end_read()
                continue
            if unended:
                decoder.end_read()
                unended = False
            if kind == CONNECT:
                decoder.connected()
            elif kind == RECONNECT:
                decoder.resume()
            elif kind == LOST:
                messages, size = LOSS.unpack(payload)
                lost = f"{plural(messages, 'message')} ({plural(size, 'byte')})"
                warnings.warn(f"{name}: not recorded before byte {offset}: {lost}", CaptureWarning, stacklevel=2)
        if unended:
            decoder.end_read()
        if reader.damage:
            warnings.warn(f"{name}: {reader.damage} at byte {reader.end}", CaptureWarning, stacklevel=2)
    return records
