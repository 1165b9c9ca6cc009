"""Damaged capture files through `Reader` and `replay`; beside them a reader in plain Python.

The two must agree on the entries, on where the damage begins, and on what a decoder is told. An input is a file; some
(by their checksum, so that they stay the same ones) are replayed from a file of the system too, and continued by a
`Recorder`, which must keep what is whole and set the rest aside.
"""

import io
import os
import random
import tempfile
import warnings
from pathlib import Path
from typing import Any
from zlib import crc32

import harness

with harness.instrumented():
    from jvq_fast import capture
    from jvq_fast.errors import CaptureError, CaptureWarning
    from jvq_fast.listener import Tap
    from jvq_fast.recorder import Recorder

Call = tuple[Any, ...]
KINDS = {1: "message", 2: "connect", 3: "reconnect", 4: "end", 5: "lost"}


class Model:
    """What the text at the top of jvq_fast/capture.py says."""

    def __init__(self, data: bytes) -> None:
        self.is_capture = (
            len(data) >= 32
            and data[:8] == b"\x89JVQCAP\n"
            and crc32(data[:28]).to_bytes(4, "little") == data[28:32]
            and data[8:12] == b"\1\0\0\0"
        )
        self.entries: list[tuple[int, int, bool, int, bytes]] = []
        self.end = 32
        while self.is_capture and (size := self._entry(data, self.end)):
            self.end += size
        self.is_whole = self.end == len(data)

    def _entry(self, data: bytes, at: int) -> int:
        """Takes the entry at this offset; returns its size, 0 where there is none that is whole."""
        head = data[at : at + 20]
        if len(head) < 20 or head[18:] != b"\xa7\x51":
            return 0
        size = 20 + int.from_bytes(head[4:8], "little")
        arrival = int.from_bytes(head[8:16], "little", signed=True)
        whole = data[at : at + size]
        if len(whole) < size or crc32(whole[4:]).to_bytes(4, "little") != whole[:4]:
            return 0
        if head[16] not in KINDS or not 0 <= arrival <= 2**62 or (head[16] == 5 and size != 36):
            return 0
        self.entries.append((at, head[16], head[17] & 1 == 1, arrival, whole[20:]))
        return size

    def calls(self) -> list[Call]:
        """What a decoder must be told."""
        found: list[Call] = []
        is_open = False
        for _, kind, ends_read, arrival, payload in self.entries:
            if kind == 1:
                found.append(("decode_part", payload, arrival))
                is_open = not ends_read
                if ends_read:
                    found.append(("end_read",))
                continue
            if is_open:
                found.append(("end_read",))
                is_open = False
            if kind in (2, 3):
                found.append(("connected",) if kind == 2 else ("resume",))
        return found + [("end_read",)] * is_open


class Told:
    """In the decoder's place: writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def decode_part(self, payload: bytes, arrival: int) -> int:
        self.calls.append(("decode_part", payload, arrival))
        return len(payload)

    def connected(self) -> None:
        self.calls.append(("connected",))

    def resume(self) -> None:
        self.calls.append(("resume",))

    def end_read(self) -> None:
        self.calls.append(("end_read",))


class File(io.BytesIO):
    """A file in memory. Its size is asked for where an entry claims to be large."""

    descriptor = os.memfd_create("capture")

    def fileno(self) -> int:
        os.ftruncate(self.descriptor, len(self.getbuffer()))
        return self.descriptor


def check(data: bytes) -> None:
    model = Model(data)
    try:
        reader = capture.Reader(File(data), "it")
    except CaptureError:
        assert not model.is_capture
        return
    assert model.is_capture
    assert [tuple(entry) for entry in reader] == model.entries
    assert (reader.end, not reader.damage) == (model.end, model.is_whole)
    assert reader.market == data[12:20].rstrip(b"\0").decode("ascii", "replace")
    if crc32(data) % 8 == 0:
        check_replay(data, model)
    if crc32(data) % 128 == 1:
        check_recorder(data, model)


DESCRIPTOR = os.memfd_create("replay")
PATH = f"/proc/self/fd/{DESCRIPTOR}"


def check_replay(data: bytes, model: Model) -> None:
    os.ftruncate(DESCRIPTOR, 0)
    os.pwrite(DESCRIPTOR, data, 0)
    told = Told()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        published = capture.replay(PATH, told)  # type: ignore[arg-type]
    calls = model.calls()
    assert told.calls == calls
    assert published == sum(len(call[1]) for call in calls if call[0] == "decode_part")
    said = [str(warning.message) for warning in caught if warning.category is CaptureWarning]
    wanted = [f"before byte {entry[0]}: " for entry in model.entries if entry[1] == 5]
    wanted += [] if model.is_whole else [f"at byte {model.end}."]
    assert len(said) == len(caught) == len(wanted)
    assert all(end in f"{text}." for text, end in zip(said, wanted, strict=True)), (said, wanted)


def check_recorder(data: bytes, model: Model) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        path = Path(folder, "it")
        path.write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CaptureWarning)
                Recorder(path, "ab", Tap(4096)).close(1)
        except CaptureError:
            assert data[12:20] != b"ab" + bytes(6)
            assert path.read_bytes() == data
            return
        assert path.read_bytes() == data[: model.end]
        aside = [found.read_bytes() for found in Path(folder).iterdir() if found != path]
        assert aside == ([] if model.is_whole else [data[model.end :]])


def plant() -> None:
    """The model takes a sixth kind of entry."""
    KINDS[6] = "another"


def entry(kind: int, payload: bytes = b"", *, flags: int = 0, arrival: int = 1_675_215_000_000_000_000) -> bytes:
    rest = len(payload).to_bytes(4, "little") + arrival.to_bytes(8, "little") + bytes([kind, flags]) + b"\xa7\x51"
    return crc32(rest + payload).to_bytes(4, "little") + rest + payload


def header() -> bytes:
    body = b"\x89JVQCAP\n\1\0\0\0ab\0\0\0\0\0\0" + bytes(8)
    return body + crc32(body).to_bytes(4, "little")


def seeds() -> list[bytes]:
    loss = (3).to_bytes(8, "little") + (99).to_bytes(8, "little")
    entries = [entry(2), entry(1, b"one", flags=1), entry(1, b"two"), entry(4), entry(3), entry(5, loss), entry(1)]
    whole = header() + b"".join(entries)
    return [b"", header(), whole, whole[:-1], *(header() + one for one in entries), header() + whole]


def seal(data: bytes) -> bytes:
    """The file with checksums that match, as far as its lengths lead to entries."""
    file = bytearray(data)
    file[28:32] = crc32(file[:28]).to_bytes(4, "little")
    at = 32
    while at + 20 <= len(file):
        end = at + 20 + int.from_bytes(file[at + 4 : at + 8], "little")
        if end > len(file):
            break
        file[at : at + 4] = crc32(file[at + 4 : end]).to_bytes(4, "little")
        at = end
    return bytes(file)


def mutate(data: bytes, rng: random.Random) -> bytes:
    if len(data) < 52 or rng.random() < 0.02:
        return seeds()[rng.randrange(len(seeds()))]
    if rng.random() < 0.4:
        return seal(data)
    places = [32]  # of entries
    while places[-1] + 20 <= len(data):
        places.append(places[-1] + 20 + int.from_bytes(data[places[-1] + 4 : places[-1] + 8], "little"))
    chosen = rng.randrange(len(places) - 1)
    at, end = places[chosen], places[chosen + 1]
    match rng.randrange(6):
        case 0:
            return data[:at] + data[end:]
        case 1:
            return data[:end] + data[at:]
        case 2:
            return data[: rng.randrange(len(data))]
        case 3:
            new = bytes(rng.randrange(256) for _ in range(rng.randrange(20)))
            return data[:at] + entry(rng.randrange(7), new, flags=rng.randrange(3)) + data[at:]
        case 4:
            return seal(data[: at + 16] + bytes([rng.randrange(7)]) + data[at + 17 :])
        case _:
            field = at + rng.randrange(20)
            return seal(data[:field] + bytes([rng.choice((0, 1, 20, 127, 128, 255))]) + data[field + 1 :])


if __name__ == "__main__":
    harness.run(check, seeds, mutate, plant, longest=600)
