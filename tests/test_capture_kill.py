"""`kill -9` while a feed records: whatever was flushed is read back, nothing else is, and the file goes on."""

import json
import mmap
import random
import signal
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import jvq_fast as jvq
from jvq_fast import capture
from mortal import BOARD
from ws_script import BINARY, CONTINUATION, PING, TOKEN, Peer, ScriptServer, deflate, frame, trade

pytestmark = pytest.mark.release_only

WAIT = 30
MORTAL = Path(__file__).with_name("mortal.py")
# The lives of three files, each ended by a kill; a later one begins with what the one before left behind.
ENDS = (
    ("byte", "copy", "byte", "before cut"),
    ("byte", "after cut", "time", "before write"),
    ("after write", "before sync", "time", "after sync"),
)
ROUNDS = 17
HEADER = 32


def make_stream() -> tuple[list[bytes], list[bytes]]:
    """Messages of many sizes, some of them unreadable or empty, and the frames that carry them."""
    rng = random.Random(8)
    payloads: list[bytes] = []
    frames: list[bytes] = []
    number = 0
    while len(payloads) < 4000:
        kind = rng.random()
        if kind < 0.03:
            payload = rng.choice([b"", b"\xff no deflate", b"\x03\x00"])
        else:
            count = rng.choice([1, 1, 2, 3, 17, 60, 400])
            payload = deflate("".join(trade(number + i) for i in range(count)))
            number += count
        payloads.append(payload)
        if kind > 0.95 and payload:
            cut = rng.randrange(len(payload))
            frames.append(frame(BINARY, payload[:cut], fin=False) + frame(PING) + frame(CONTINUATION, payload[cut:]))
        else:
            frames.append(frame(BINARY, payload))
    return payloads, frames


PAYLOADS, FRAMES = make_stream()


def stream(peer: Peer) -> None:
    """The whole stream, in pieces that begin and end anywhere."""
    peer.accept()
    peer.text()
    rng = random.Random(9)
    data, at = b"".join(FRAMES), 0
    while at < len(data):
        size = rng.randint(1, 3000)
        peer.send(data[at : at + size])
        at += size
        time.sleep(0.001)
    peer.until_closed()


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptServer]:
    with ScriptServer(stream) as server:
        yield server


def ids_of(payloads: list[bytes]) -> list[int]:
    """What the messages hold, read with the standard library alone."""
    found = []
    for payload in payloads:
        try:
            text = zlib.decompress(payload, wbits=-15).decode()
        except zlib.error:
            continue
        found += [int(row.split("=")[1].split(",")[1]) for row in text.split("\n") if row]
    return found


def whole_entries(data: bytes) -> tuple[int, int]:
    """Where the last whole entry ends, and how many messages there are up to there; by lengths alone."""
    at = messages = 0
    while at + 20 <= len(data):
        _, length, _, kind, _, _ = struct.unpack_from("<IIqBBH", data, at)
        if at + 20 + length > len(data):
            break
        at += 20 + length
        messages += kind == 1
    return at, messages


class File:
    """One capture through all its lives."""

    def __init__(self, folder: Path, server: ScriptServer) -> None:
        self.path = folder / "day.capture"
        self.folder = folder
        self.server = server
        self.good = b""  # the bytes that must never change again
        self.lives: list[list[bytes]] = []  # the messages of each life
        self.set_aside: list[bytes] = []

    def live(self, kind: str, at: int, seconds: float) -> None:
        """One life and its end: `seconds` after it began, or by itself at its place."""
        number = len(self.lives)
        board, witness = self.folder / f"board{number}", self.folder / f"witness{number}"
        board.write_bytes(bytes(BOARD.size))
        before = self.path.read_bytes() if self.path.exists() else b""
        if kind in ("copy", "before cut", "after cut") and before == self.good:
            kind, seconds = "time", 0.3  # there is no tail to set aside
        task = {"ws": self.server.ws, "capture": str(self.path), "witness": str(witness), "board": str(board)}
        with board.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as shared:
            child = subprocess.Popen(
                [sys.executable, str(MORTAL), json.dumps({**task, "kind": kind, "at": at})],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            try:
                deadline = time.monotonic() + WAIT
                while not BOARD.unpack(shared[:])[0] and child.poll() is None:
                    assert time.monotonic() < deadline, "it never began"
                    time.sleep(0.001)
                try:
                    child.wait(seconds)
                except subprocess.TimeoutExpired:
                    child.kill()
                _, errors = child.communicate(timeout=WAIT)
            finally:
                child.kill()
                child.wait()
            state, flushed, _ = BOARD.unpack(shared[:])
        assert child.returncode == -signal.SIGKILL, errors.decode()
        assert kind == "time" or state == 2, f"it did not die at {kind} {at}"
        self.check(before, witness.read_bytes() if witness.exists() else b"", flushed)

    def check(self, before: bytes, witness: bytes, flushed: int) -> None:
        data = self.path.read_bytes() if self.path.exists() else b""
        tail = before[len(self.good) :]
        self.lives.append([])
        if data == before:
            assert flushed == 0
        else:
            if tail:
                asides = [each.read_bytes() for each in self.folder.glob("day.capture.damaged-*")]
                assert tail in asides
            # It holds what the recorder handed over, from the begin, as far as write() had returned or further.
            begin = len(self.good)
            assert data[:begin] == self.good
            assert data[begin:] == witness[begin : len(data)]
            assert len(data) >= flushed
        self.read_back(data, witness, flushed)

    def read_back(self, data: bytes, witness: bytes, flushed: int) -> None:
        if len(data) < HEADER:
            assert self.good == b""
            if self.path.exists():
                with pytest.raises(jvq.CaptureError, match="not a capture"):
                    jvq.replay(self.path, jvq.Decoder())
            return
        begin = max(len(self.good), HEADER)
        size, _ = whole_entries(data[begin:])
        _, least = whole_entries(witness[begin:flushed])
        whole = begin + size
        known = [payload for life in self.lives for payload in life]
        with self.path.open("rb") as file:
            payloads = [entry.payload for entry in capture.Reader(file, "c") if entry.kind == capture.MESSAGE]
        assert payloads[: len(known)] == known
        mine = payloads[len(known) :]
        assert mine == PAYLOADS[: len(mine)]
        assert len(mine) >= least
        self.lives[-1] = mine
        decoder = jvq.Decoder(trading_day="2026-11-23", capacity=1024)
        ids: list[int] = []
        decoder.on_trades = lambda code, trades: ids.extend(trades["id"].tolist())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            jvq.replay(self.path, decoder)
        assert ids == [number for life in self.lives for number in ids_of(life)]
        told = [str(each.message) for each in caught]
        assert told == ([f"{self.path}: an entry is cut off at byte {whole}"] if whole < len(data) else [])
        assert {each.category for each in caught} <= {jvq.CaptureWarning}
        self.good = data[:whole]

    def end_well(self) -> None:
        """A last life that is not killed."""
        torn = self.path.stat().st_size > len(self.good) if self.path.exists() else False
        feed = jvq.Feed(TOKEN, "lv2_600519", server=self.server.ws, capture=self.path, trading_day="2026-11-23")
        feed.on_batch(lambda n: feed.stop() if feed.decoder.messages > 30 else None)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with feed:
                assert feed.join(WAIT)
        assert [each.category for each in caught] == [jvq.CaptureWarning] * torn
        count = int(feed.stats()["capture_messages"])
        assert count == feed.decoder.messages > 30
        data = self.path.read_bytes()
        self.lives.append([])
        self.read_back(data, data, len(data))
        assert self.lives[-1] == PAYLOADS[:count]
        assert self.good == data


def test_what_was_flushed_before_a_kill_is_read_back_and_nothing_else(
    tmp_path: Path, server: ScriptServer, share: Callable[..., list[int]]
) -> None:
    """204 kills in the long run, 12 without: at seeded times, and at exact places of the work on the file."""
    messages = torn = 0
    for number in share(range(ROUNDS), 1):
        for ends in ENDS:
            rng = random.Random(f"{number} {ends}")
            folder = tmp_path / f"{number}-{ends[0]}-{ends[1]}"
            folder.mkdir()
            file = File(folder, server)
            for kind in ends:
                at = {
                    "byte": rng.choice([rng.randrange(HEADER + 40), rng.randrange(200_000)]),
                    "before write": rng.randrange(8),
                    "after write": rng.randrange(8),
                }.get(kind, rng.randrange(300))
                file.live(kind, at, rng.uniform(0, 0.6) if kind == "time" else WAIT / 3)
                torn += file.path.exists() and file.path.stat().st_size > len(file.good)
            file.end_well()
            messages += sum(map(len, file.lives[:-1]))
    assert messages > 100
    assert torn > 0
