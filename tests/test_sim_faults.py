"""Each fault of the simulator as a client that is not ours sees it, and the books that the simulator keeps of it."""

import contextlib
import itertools
import json
import select
import socket
import struct
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from simulator import TOKEN, Peer, Sent, Simulator, read_message

NAMES = "lv1_600519,lv2_600519,lv10_600519,lv1_000001,lv2_000001"
QUOTES = ",".join(f"lv1_60{number}" for number in range(1000, 1012))
BUSY = ("--keep-sent", "--speed", "10")


@pytest.fixture(scope="module")
def shared() -> Iterator[Simulator]:
    with Simulator(*BUSY) as simulator:
        yield simulator


@pytest.fixture
def sim(shared: Simulator) -> Iterator[Simulator]:
    """One simulator for all, without a fault and without a connection at the start of each test."""
    said = shared.errors()
    yield shared
    shared.clear()
    shared.wait(lambda stats: not any(each["open"] for each in stats["connections"]))
    assert shared.errors() == said


def newest(sim: Simulator) -> int:
    return max(int(each["id"]) for each in sim.stats()["connections"])


class Wire:
    """A client that takes the stream apart byte by byte: the frames as they are, however wrong."""

    def __init__(self, sim: Simulator, names: str = NAMES) -> None:
        url = urlsplit(sim.ws)
        self.socket = socket.create_connection((url.hostname, url.port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(
            f"GET /?token={TOKEN} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode()
        )
        self.buffer = b""
        self.reads: list[bytes] = []
        self.frames: list[tuple[int, bytes]] = []  # first byte, payload
        while b"\r\n\r\n" not in self.buffer:
            try:
                self._more()
            except BaseException:
                self.socket.close()
                raise
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        self.id = newest(sim)
        if names:
            self.send(f"all={names}")

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, command: str, first: int = 0x81) -> None:
        payload = command.encode()
        size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
        self.socket.sendall(bytes([first]) + size + b"\0\0\0\0" + payload)

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self.reads.append(data)
        self.buffer += data

    def _take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            self._more()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def frame(self) -> tuple[int, bytes]:
        """First byte and payload of the next frame; EOFError at the end, ConnectionResetError after RST."""
        first, size = self._take(2)
        if size == 126:
            size = int.from_bytes(self._take(2), "big")
        elif size == 127:
            size = int.from_bytes(self._take(8), "big")
        self.frames.append((first, self._take(size)))
        return self.frames[-1]

    def until(self, condition: Callable[[int, bytes], bool], most: int = 100_000) -> tuple[int, bytes]:
        for _ in range(most):
            got = self.frame()
            if condition(*got):
                return got
        raise AssertionError("not among so many frames")

    def ending(self) -> BaseException:
        """Read on to the end."""
        try:
            self.until(lambda first, payload: False)
        except (EOFError, ConnectionResetError) as error:
            return error
        raise AssertionError

    def silent(self, seconds: float = 0.5) -> bool:
        """Whether nothing comes for so long."""
        return not self.buffer and not select.select([self.socket], [], [], seconds)[0]

    def drain(self, quiet: float = 0.3) -> None:
        """Read all there is."""
        while not self.silent(quiet):
            self.frame()


def texts(message: bytes) -> list[tuple[str, str]]:
    """The records of a payload: name, text."""
    rows = read_message(message).rows
    return [(f"{level}_{code}", ",".join(record)) for level, code, records in rows for record in records]


def received(wire: Wire) -> list[tuple[str, str]]:
    return [record for first, payload in wire.frames if first == 0x82 for record in texts(payload)]


def readable(sent: list[Sent]) -> list[tuple[str, str]]:
    return [(each.name, each.text) for each in sent if each.readable]


def finish(sim: Simulator, wire: Wire) -> list[Sent]:
    """Clear what is subscribed to, read the rest, and compare it all with the books."""
    wire.send("all=")
    wire.until(lambda first, payload: first == 0x81 and payload.decode().startswith("0#订阅成功:0"))
    wire.drain()
    sent = sim.sent(wire.id)
    assert received(wire) == readable(sent)
    return sent


# Connections


def test_a_reset_is_a_reset_and_the_next_connection_is_fine(sim: Simulator) -> None:
    with Wire(sim) as wire:
        wire.until(lambda first, payload: first == 0x82)
        sim.fault("reset")
        assert isinstance(wire.ending(), ConnectionResetError)
    with Wire(sim) as wire:
        for _ in range(20):
            wire.until(lambda first, payload: first == 0x82)
        assert wire.id == newest(sim)
        assert not finish(sim, wire)[0].fault


def test_a_reset_after_so_many_messages_of_each_connection(sim: Simulator) -> None:
    number = sim.fault("reset", after=15, count=2)
    for _ in range(2):
        with Wire(sim) as wire:
            assert isinstance(wire.ending(), ConnectionResetError)
            assert sum(first == 0x82 for first, _ in wire.frames) == 15
            sent = sim.sent(wire.id)
            assert {(each.mark, each.fault) for each in sent} == {("good", ""), ("missing", "reset")}
            assert received(wire) == readable(sent)
    fault = next(each for each in sim.faults()["faults"] if each["id"] == number)
    assert (fault["happened"], fault["active"]) == (2, False)
    times = [each for each in sim.faults()["happened"] if each["fault"] == number]
    assert [each["message"] for each in times] == [16, 16]
    assert times[0]["time"] < times[1]["time"] < time.monotonic_ns()
    with Wire(sim) as wire:
        wire.until(lambda first, payload: len(wire.frames) > 40)


def test_half_open_sends_and_reads_nothing_and_is_no_error(sim: Simulator) -> None:
    with Wire(sim) as wire:
        wire.until(lambda first, payload: first == 0x82)
        number = sim.fault("half_open")
        wire.drain()
        wire.send("list")
        wire.send("x", first=0x89)
        assert wire.silent(1)
        with Wire(sim) as other:
            other.until(lambda first, payload: len(other.frames) > 20)
        opened = {each["id"]: each["open"] for each in sim.stats()["connections"]}
        assert opened[wire.id]
        assert next(each for each in sim.faults()["faults"] if each["id"] == number)["held"] == [wire.id]
        sim.clear(number)  # the cable is back
        wire.until(lambda first, payload: first == 0x8A)
        wire.until(lambda first, payload: first == 0x82)
        assert {each.mark for each in finish(sim, wire)} == {"good", "missing"}


@pytest.mark.parametrize("answers", [True, False])
def test_a_stall_answers_or_not_but_sends_no_data(sim: Simulator, answers: bool) -> None:
    with Wire(sim) as wire:
        wire.until(lambda first, payload: first == 0x82)
        sim.fault("stall", answers=answers, count=1, seconds=1.5)
        wire.drain(0.2)
        seen = len(wire.frames)
        wire.send("list")
        wire.send("x", first=0x89)
        if answers:
            assert wire.frame() == (0x81, f"0#{NAMES}".encode())
            assert wire.frame() == (0x8A, b"x")
            seen += 2
        assert wire.silent(0.3)
        wire.until(lambda first, payload: first == 0x82)  # after its seconds it goes on
        assert len(wire.frames) == seen + 1
        assert {(each.mark, each.fault) for each in finish(sim, wire)} == {("good", ""), ("missing", "stall")}


def test_close_has_its_code_and_waits_for_the_answer(sim: Simulator) -> None:
    with Peer(sim.url()) as peer:
        peer.send(f"all={NAMES}")
        peer.until(lambda peer: peer.count() > 20)
        sim.fault("close", code=1012, reason="维护")
        with pytest.raises(ConnectionClosedError) as closed:
            peer.until(lambda peer: False)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1012, "维护")
        assert closed.value.rcvd_then_sent
    with Wire(sim) as wire:
        sim.fault("close", code=0)
        assert isinstance(wire.ending(), EOFError)  # a client that says nothing is left after a while
        assert wire.frames[-1] == (0x88, b"")


@pytest.mark.parametrize(
    ("how", "frames"),
    [
        ("one_byte", [(0x88, b"\x03")]),
        ("code", [(0x88, b"\x03\xed")]),
        ("utf8", [(0x88, b"\x03\xe8\xff\xfe")]),
        ("long", [(0x88, b"\x03\xe8" + b"x" * 200)]),
        ("fragment", [(0x08, b"\x03\xe8"), (0x80, b"")]),
    ],
)
def test_invalid_closes(sim: Simulator, how: str, frames: list[tuple[int, bytes]]) -> None:
    with Wire(sim) as wire:
        wire.until(lambda first, payload: first == 0x82)
        sim.fault("invalid_close", how=how)
        wire.until(lambda first, payload: (first, payload) == frames[-1])
        assert wire.frames[-len(frames) :] == frames


@pytest.mark.parametrize("close", [True, False])
def test_evict_says_its_text_and_closes(sim: Simulator, close: bool) -> None:
    with Wire(sim) as wire:
        wire.until(lambda first, payload: first == 0x82)
        sim.fault("evict", close=close)
        assert isinstance(wire.ending(), EOFError)
        last = wire.frames[-2:] if close else wire.frames[-1:]
        assert last[0] == (0x81, "-1#账户连接数已达并发上限".encode())
        assert last[1:] == ([(0x88, b"\x03\xf0")] if close else [])


def test_a_text_comes_among_the_data(sim: Simulator) -> None:
    with Wire(sim) as wire:
        wire.until(lambda first, payload: first == 0x82)
        sim.fault("text", text="-9#维护", after=5)
        wire.until(lambda first, payload: (first, payload) == (0x81, "-9#维护".encode()))
        assert not any(each.fault for each in finish(sim, wire))


def test_one_connection_the_next_one_or_all(sim: Simulator) -> None:
    with Wire(sim) as one, Wire(sim) as two:
        sim.fault("reset", connection=one.id)
        assert isinstance(one.ending(), ConnectionResetError)
        sim.fault("evict", connection="next", text="-1#next")
        two.drain() if two.silent(0) else two.frame()
        with Wire(sim) as three:
            assert isinstance(three.ending(), (EOFError, ConnectionResetError))
            assert (0x81, b"-1#next") in three.frames
        with Wire(sim) as four:
            four.until(lambda first, payload: first == 0x82)
            sim.fault("reset")
            for wire in (two, four):
                assert isinstance(wire.ending(), ConnectionResetError)


# The server


@pytest.mark.parametrize("cut", [True, False])
def test_down_refuses_connections_on_its_port_until_it_is_over(sim: Simulator, cut: bool) -> None:
    with Wire(sim) as wire:
        wire.until(lambda first, payload: first == 0x82)
        number = sim.fault("down", cut=cut)
        if cut:
            assert isinstance(wire.ending(), EOFError | ConnectionResetError)
        else:
            wire.until(lambda first, payload: first == 0x82, 10)
        with pytest.raises(ConnectionRefusedError):
            Wire(sim)
        assert allocate(sim)["server"] == sim.ws
        sim.clear(number)
    with Wire(sim) as wire:
        wire.until(lambda first, payload: first == 0x82)
    sim.fault("down", seconds=0.5)
    began = time.monotonic()
    while True:
        try:
            Wire(sim, "").socket.close()
        except (ConnectionRefusedError, EOFError):
            assert time.monotonic() - began < 10
            time.sleep(0.02)
        else:
            break
    assert time.monotonic() - began > 0.3


def test_a_server_that_is_down_can_move(sim: Simulator) -> None:
    sim.fault("down")
    sim.move()
    with Wire(sim) as wire:
        wire.until(lambda first, payload: first == 0x82)
    sim.clear()
    with Wire(sim) as wire:
        wire.until(lambda first, payload: first == 0x82)


@pytest.mark.parametrize(("over_limit", "loser"), [("refuse", 1), ("evict", 0)])
def test_the_quota_can_change_at_run_time(sim: Simulator, over_limit: str, loser: int) -> None:
    sim.fault("quota", limit=1, over_limit=over_limit)
    with Wire(sim) as one, Wire(sim) as two:
        peers = (one, two)
        peers[loser].ending()
        assert (0x81, "-1#账户连接数已达并发上限".encode()) in peers[loser].frames
        peers[1 - loser].until(lambda first, payload: first == 0x82)
        sim.clear()
        with Wire(sim, "") as three:
            three.send("list")
            assert three.frame() == (0x81, b"0#")


def test_a_day_change_jumps_to_the_next_trading_day() -> None:
    with Simulator("--day", "2026-11-20", "--keep-sent", "--speed", "40") as sim, Wire(sim) as wire:

        def quote_at(clock: str) -> list[str]:
            wire.until(lambda first, payload: first == 0x82 and f"lv10_600519={clock}" in read_message(payload).text)
            return next(text for name, text in reversed(received(wire)) if name == "lv10_600519").split(",")

        before = quote_at("09:30:1")
        sim.fault("day_change", at="10:30")
        assert sim.stats()["trading_day"] == "2026-11-23"
        after = quote_at("10:30:1")
        assert after[3] != before[3]  # the last close
        assert int(after[5]) < int(before[5]) * 10  # the day's volume began anew
        sim.fault("day_change", days=2, after=10)
        quote_at("09:30:1")
        assert sim.stats()["trading_day"] == "2026-11-25"
        finish(sim, wire)


# Allocation


def ask(sim: Simulator, timeout: float = 10.0) -> tuple[int, bytes]:
    url = f"{sim.http}/query/server?market=ab&type=websocket&token={TOKEN}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def allocate(sim: Simulator) -> dict[str, Any]:
    return dict(json.loads(ask(sim)[1]))


def test_allocation_refused_with_a_status_and_with_what_is_no_reply(sim: Simulator) -> None:
    sim.fault("allocation_refuse", code="-7", message="余额不足")
    assert allocate(sim) == {"code": "-7", "message": "余额不足"}
    assert allocate(sim) == {"code": "0", "server": sim.ws}
    sim.fault("allocation_status", status=502, count=2)
    assert [ask(sim)[0] for _ in range(3)] == [502, 502, 200]
    sim.fault("allocation_body", body="[1,2")
    assert ask(sim) == (200, b"[1,2")
    sim.fault("allocation_huge", size=300_000)
    assert len(ask(sim)[1]) == 300_000
    sim.fault("allocation_address", server="http//:x", after=1)
    assert [allocate(sim)["server"] for _ in range(2)] == [sim.ws, "http//:x"]


def test_allocation_names_servers_that_are_not_there(sim: Simulator) -> None:
    sim.fault("allocation_unknown_host")
    assert urlsplit(allocate(sim)["server"]).hostname.endswith(".invalid")  # type: ignore[union-attr]
    sim.fault("allocation_dead")
    dead = urlsplit(allocate(sim)["server"])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((dead.hostname, dead.port), timeout=5)
    sim.fault("allocation_dead", how="silent")
    silent = urlsplit(allocate(sim)["server"])
    with pytest.raises(TimeoutError):
        socket.create_connection((silent.hostname, silent.port), timeout=0.5)


def test_allocation_slow_dripping_hanging_and_dropped(sim: Simulator) -> None:
    for drip in (False, True):
        sim.fault("allocation_slow", delay=0.5, drip=drip)
        began = time.monotonic()
        assert allocate(sim)["server"] == sim.ws
        assert time.monotonic() - began > 0.4
    sim.fault("allocation_hang")
    with pytest.raises(TimeoutError):
        ask(sim, timeout=0.5)
    sim.fault("allocation_drop")
    with pytest.raises((ConnectionError, urllib.error.URLError)):
        ask(sim)
    assert allocate(sim)["server"] == sim.ws


# The handshake


def test_a_good_token_becomes_bad_and_good_again(sim: Simulator) -> None:
    with Peer(sim.url()) as peer, Peer(sim.url("d" * 32)) as other:
        sim.fault("bad_token", token=TOKEN, dismiss=True)
        assert peer.text() == "-1#token无效"
        with pytest.raises(ConnectionClosed):
            peer.step()
        assert allocate(sim)["code"] == "-1"
        with Peer(sim.url()) as again:
            assert again.text() == "-1#token无效"
        other.send("list")
        assert other.text() == "0#"
        sim.fault("bad_token", how="http")
        sim.clear(kind="bad_token")
        sim.fault("bad_token", how="http", count=1)
        with pytest.raises(InvalidStatus) as refused:
            Peer(sim.url())
        assert refused.value.response.status_code == 401
        assert allocate(sim)["code"] == "0"
        with Peer(sim.url()) as good:
            good.send("list")
            assert good.text() == "0#"


def test_handshakes_refused_dropped_or_never_answered(sim: Simulator) -> None:
    for status in (503, 404, 302, 200):
        sim.fault("handshake_status", status=status)
        with pytest.raises(InvalidStatus) as refused:
            Peer(sim.url())
        assert refused.value.response.status_code == status
    sim.fault("handshake_drop")
    with pytest.raises(EOFError):
        Wire(sim)
    sim.fault("handshake_hang")
    with pytest.raises(TimeoutError):
        Peer(sim.url(), open_timeout=0.7)
    with Peer(sim.url()) as good:
        good.send("list")
        assert good.text() == "0#"


# Frames


@pytest.mark.parametrize("how", ["close", "reset", "silent"])
def test_a_connection_ends_in_the_middle_of_a_frame(sim: Simulator, how: str) -> None:
    sim.fault("cut", how=how, after=10)
    with Wire(sim) as wire:
        if how == "silent":
            wire.socket.settimeout(0.7)
            with pytest.raises(TimeoutError):
                wire.ending()
        else:
            assert isinstance(wire.ending(), ConnectionResetError if how == "reset" else EOFError)
        assert sum(first == 0x82 for first, _ in wire.frames) == 10
        sent = sim.sent(wire.id)
        assert {each.mark for each in sent if each.message == 11} == {"damaged"}
        assert received(wire) == readable(sent)


def test_a_cut_at_a_chosen_byte(sim: Simulator) -> None:
    for at in (0, 1, 2, 7):
        sim.fault("cut", at=at)
        with Wire(sim) as wire:
            wire.ending()
            stream = b"".join(wire.reads).partition(b"\r\n\r\n")[2]
            frames = b"".join(bytes([first, len(payload)]) + payload for first, payload in wire.frames)
            assert len(stream) == len(frames) + at


def test_every_byte_in_a_write_of_its_own(sim: Simulator) -> None:
    with Wire(sim, "lv1_600519") as wire:
        wire.until(lambda first, payload: first == 0x82)
        sim.fault("split", count=2, pause=0.01)
        wire.reads.clear()
        for _ in range(2):
            wire.until(lambda first, payload: first == 0x82)
        whole = sum(len(payload) + 2 for first, payload in wire.frames[-2:])
        assert sum(len(read) == 1 for read in wire.reads) > whole * 0.8  # a slow reader may find two
        assert {each.mark for each in finish(sim, wire)} == {"good"}


def test_what_is_split_does_not_drip_on_when_the_fault_is_over(sim: Simulator) -> None:
    for seconds in (0.0, 0.2):
        number = sim.fault("split", at="every", pause=0.5, seconds=seconds)
        with Wire(sim) as wire:
            wire.until(lambda first, payload: first == 0x81)
            time.sleep(0.3)
            if not seconds:
                sim.clear(number)
            sent = time.monotonic()
            for _ in range(20):
                wire.frame()
            assert time.monotonic() - sent < 20  # at two bytes a second it would take minutes
            finish(sim, wire)


def test_every_split_of_a_frame_in_turn(sim: Simulator) -> None:
    sim.fault("split", at="next", pause=0.01)
    with Wire(sim, "lv1_600519,lv1_000001,lv1_300750,lv1_601318") as wire:
        wire.until(lambda first, payload: len(wire.frames) == 16)
        ends = set(itertools.accumulate(map(len, wire.reads)))
        at, number, found = len(b"".join(wire.reads).partition(b"\r\n\r\n")[0]) + 4, 0, 0
        for first, payload in wire.frames:
            if first == 0x82:
                number += 1
                found += at + number in ends
            at += len(payload) + (2 if len(payload) < 126 else 4)
        assert number == 15
        assert found > 10  # a slow reader may find two writes at once
        sim.clear()
        finish(sim, wire)


def test_fragments_with_pings_between(sim: Simulator) -> None:
    with Peer(sim.url()) as peer:
        peer.send(f"all={NAMES}")
        sim.fault("fragments", pieces=4, pings=2)
        peer.until(lambda peer: peer.count() > 100)
        peer.send("all=")
        peer.until(lambda peer: len(peer.texts) == 2)
        peer.drain(0.3)
        sent = sim.sent(newest(sim))
        assert [record for payload in peer.payloads for record in texts(payload)] == readable(sent)
        assert {each.mark for each in sent} == {"good"}
    with Wire(sim) as wire:
        wire.until(lambda first, payload: first == 0x80)
        kinds = [first for first, _ in wire.frames if first != 0x81]
        assert kinds == [0x02, 0x89, 0x89, 0x00, 0x89, 0x89, 0x00, 0x89, 0x89, 0x80]


def test_reserved_bits_and_frames_that_are_too_large(sim: Simulator) -> None:
    sim.fault("rsv", bits=5)
    with Wire(sim) as wire:
        first, payload = wire.until(lambda first, payload: first & 0x70)
        assert first == 0x82 | 5 << 4
        assert texts(payload) == [(each.name, each.text) for each in finish(sim, wire) if each.fault == "rsv"]
    sim.fault("oversize", size=1 << 50, after=3)
    with Wire(sim) as wire:
        wire.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            wire.ending()
        stream = b"".join(wire.reads)
        assert b"\x82\x7f" + struct.pack(">Q", 1 << 50) in stream
        assert sim.stats()["connections"][-1]["messages"] == 3
    sim.fault("rsv")
    with Peer(sim.url()) as peer:
        peer.send(f"all={NAMES}")
        with pytest.raises(ConnectionClosed):
            peer.until(lambda peer: False)


# Payloads


def payload_of(sim: Simulator, kind: str, **parameters: Any) -> tuple[bytes, list[Sent], Wire]:
    """The payload of a message hit by a fault, and what the books say of that message."""
    sim.fault(kind, after=4, count=1, **parameters)
    with Wire(sim) as wire:
        for _ in range(8):
            wire.until(lambda first, payload: first == 0x82)
        wire.send("all=")
        wire.until(lambda first, payload: first == 0x81)
        wire.drain()
        data = [payload for first, payload in wire.frames if first == 0x82]
        sent = sim.sent(wire.id)
        sim.clear()
        return data[4], [each for each in sent if each.message == 5], wire


def test_a_truncated_stream(sim: Simulator) -> None:
    for cut in (0, 1, 3):
        payload, sent, _ = payload_of(sim, "truncated", cut=cut)
        inflate = zlib.decompressobj(-15)
        inflate.decompress(payload)
        assert not inflate.eof
        assert {(each.mark, each.fault) for each in sent} == {("damaged", "truncated")}


def test_trailing_bytes(sim: Simulator) -> None:
    payload, sent, _ = payload_of(sim, "trailing_bytes", size=9)
    inflate = zlib.decompressobj(-15)
    text = inflate.decompress(payload)
    assert len(inflate.unused_data) == 9
    assert text.decode().count("=") <= len(readable(sent))
    assert {each.mark for each in sent} == {"good"}


@pytest.mark.parametrize(("form", "bits"), [("gzip", 31), ("zlib", 15)])
def test_gzip_and_zlib_by_mistake(sim: Simulator, form: str, bits: int) -> None:
    payload, sent, _ = payload_of(sim, "gzip", form=form)
    with pytest.raises(zlib.error):
        zlib.decompressobj(-15).decompress(payload)
    assert b"=" in zlib.decompress(payload, bits)
    assert {each.mark for each in sent} == {"damaged"}


def test_a_huge_message_and_a_bomb(sim: Simulator) -> None:
    payload, sent, wire = payload_of(sim, "huge", size=300_000)
    assert len(payload) > 300_000
    assert texts(payload) == readable(sent)
    assert {each.mark for each in sent} == {"good", "extra"}
    payload, sent, wire = payload_of(sim, "bomb", size=1 << 25)
    data = [payload for first, payload in wire.frames if first == 0x82]
    assert len(data[5]) < 100_000
    assert zlib.decompress(data[5], -15) == b"\n" * (1 << 25)
    assert {each.mark for each in sim.sent(wire.id)} == {"good"}


def test_ends_of_lines(sim: Simulator) -> None:
    sim.fault("newline", count=0)
    sim.fault("crlf", count=0)
    with Wire(sim) as wire:
        wire.until(lambda first, payload: len(wire.frames) > 20)
        wire.send("all=")
        wire.until(lambda first, payload: first == 0x81)
        wire.drain()
        for first, payload in wire.frames:
            if first == 0x82:
                lines = zlib.decompress(payload, -15).split(b"\n")
                assert lines.pop() == b""
                assert lines
                assert all(line.endswith(b"\r") for line in lines)
        assert received(wire) == readable(sim.sent(wire.id))


# Records


def hit(sim: Simulator, kind: str, names: str = NAMES, **parameters: Any) -> list[Sent]:
    """The books of a connection, compared with what came, after a fault of records happened a few times."""
    number = sim.fault(kind, **{"after": 5, "probability": 0.5, "count": 6, **parameters})
    with Wire(sim, names) as wire:
        while next(each for each in sim.faults()["faults"] if each["id"] == number)["happened"] < 6:
            wire.until(lambda first, payload: first == 0x82)
        for _ in range(5):
            wire.until(lambda first, payload: first == 0x82)
        sim.clear()
        finish_any(sim, wire)
    sim.wait(lambda stats: not any(each["open"] for each in stats["connections"]))
    sent = sim.sent(wire.id)  # with what was to come later still
    faulty = [each for each in sent if each.fault]
    assert {each.fault for each in faulty} in ({kind}, {kind, "closed"})
    stats = next(each for each in sim.stats()["connections"] if each["id"] == wire.id)
    for mark, count in stats["faulty"].items():
        assert count == sum(each.mark == mark for each in sent)
    assert stats["records"] == sum(each.mark in ("good", "moved") for each in sent)
    return sent


def finish_any(sim: Simulator, wire: Wire) -> None:
    """As ``finish``, where records that can't be read are still text on the wire."""
    wire.send("all=")
    wire.until(lambda first, payload: first == 0x81 and payload.decode().startswith("0#订阅成功:0"))
    wire.drain()
    assert received(wire) == [(each.name, each.text) for each in sim.sent(wire.id) if each.mark != "missing"]


WIDTHS = {"lv1": 26, "lv2": 4, "lv10": 46}


def test_wrong_field_counts(sim: Simulator) -> None:
    for each in hit(sim, "field_count"):
        wrong = len(each.text.split(",")) - WIDTHS[each.name.partition("_")[0]]
        assert (abs(wrong), each.mark) in ((0, "good"), (1, "damaged"))
    assert any(len(each.text.split(",")) == 1 for each in hit(sim, "field_count", by=-3, names="lv2_600519"))


def test_empty_fields(sim: Simulator) -> None:
    for each in hit(sim, "empty_field"):
        assert (each.text.split(",").count(""), each.mark) in ((0, "good"), (1, "altered"))
    blank = [each for each in hit(sim, "empty_field", field=1, names="lv2_600519") if each.fault]
    assert all(each.text.split(",")[1] == "" for each in blank)


def test_snapshots_repeated_and_stale(sim: Simulator) -> None:
    for each, before in pairs(hit(sim, "repeat_snapshot", times=2, names=QUOTES)):
        if each.mark == "extra":
            assert each.text == before.text
    sent = hit(sim, "stale_snapshot", age=900, names=QUOTES)
    for after, each in pairs(sent):
        if each.mark == "extra":
            assert seconds(after.text) - seconds(each.text) == 900
            assert after.text.partition(",")[2] == each.text.partition(",")[2]
    sent = hit(sim, "stale_snapshot", instead=True, names=QUOTES)
    assert sum(each.mark == "missing" for each in sent) == sum(each.mark == "extra" for each in sent) == 6


def pairs(sent: list[Sent]) -> list[tuple[Sent, Sent]]:
    return list(zip(sent[1:], sent, strict=False))


def seconds(text: str) -> float:
    hours, minutes, rest = text.partition(",")[0].split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def test_trades_twice_missing_and_late(sim: Simulator) -> None:
    names = "lv2_600519,lv2_000001"
    for later in (0, 3):
        sent = hit(sim, "duplicate_trade", later=later, names=names)
        extra = [each for each in sent if each.mark == "extra"]
        assert len(extra) in range(4, 7)  # those of the last messages may have been due too late
        good = {(each.name, each.text): each.message for each in sent if each.mark == "good"}
        assert all(each.message - good[each.name, each.text] == later for each in extra)
    sent = hit(sim, "missing_trade", names=names)
    assert sum(each.mark == "missing" for each in sent) == 6
    sent = hit(sim, "late_trade", later=2, names=names)
    moved = [number for number, each in enumerate(sent) if each.mark == "moved"]
    assert moved
    late = 0
    for number in moved:
        ids = [int(each.text.split(",")[1]) for each in sent[:number] if each.name == sent[number].name]
        late += max(ids, default=0) > int(sent[number].text.split(",")[1])
    assert late >= 2  # before others of them the code had no trade


def test_clocks_that_are_wrong(sim: Simulator) -> None:
    with Wire(sim) as wire:
        wire.until(lambda first, payload: len(wire.frames) > 20)
        honest = seconds(received(wire)[-1][1])
        sim.fault("clock_skew", shift=-7200.5)
        wire.drain(0.01) if wire.silent(0) else None
        number = len(wire.frames)
        wire.until(lambda first, payload: len(wire.frames) > number + 200)
        assert seconds(received(wire)[-1][1]) < honest - 7000
        assert {each.mark for each in finish(sim, wire)} == {"good", "altered"}
    sim.clear()
    sim.fault("midnight", before=2)
    with Wire(sim) as wire:
        wire.until(lambda first, payload: len(received(wire)) > 30 and received(wire)[-1][1].startswith("00:00:0"))
        times = [text.partition(",")[0] for name, text in received(wire) if name == "lv2_600519"]
        assert any(time.startswith("23:59:5") for time in times)
        finish(sim, wire)


@pytest.mark.parametrize("seed", [1, 2])
def test_all_of_these_at_once_and_the_books_are_right(sim: Simulator, seed: int) -> None:
    kinds = [
        "repeat_snapshot", "stale_snapshot", "field_count", "empty_field", "duplicate_trade", "missing_trade",
        "late_trade", "clock_skew", "midnight", "trailing_bytes", "truncated", "gzip", "crlf", "newline", "huge",
        "split", "fragments", "text",
    ]  # fmt: skip
    extra: dict[str, dict[str, Any]] = {"huge": {"size": 2000}, "split": {"pause": 0.0}, "late_trade": {"later": 3}}
    for kind in kinds:
        sim.fault(kind, probability=0.12, count=0, seed=seed, **extra.get(kind, {}))
    with Peer(sim.url()) as peer:
        peer.send(f"all={NAMES},{QUOTES}")
        number = newest(sim)
        frames: list[str | bytes] = [peer.socket.recv(timeout=10) for _ in range(300)]
        while {each["kind"] for each in sim.faults()["happened"] if each["connection"] == number} < set(kinds):
            frames += [peer.socket.recv(timeout=10) for _ in range(100)]
            assert len(frames) < 20_000
        sim.clear()
        peer.send("all=")
        while frames[-1] != "0#订阅成功:0":
            frames.append(peer.socket.recv(timeout=10))
        payloads = [frame for frame in frames if isinstance(frame, bytes)]
    sim.wait(lambda stats: not any(each["open"] for each in stats["connections"]))
    sent = sim.sent(number)
    whole = {"truncated", "gzip"}
    expected = [
        [(each.name, each.text) for each in records if each.mark != "missing"]
        for records in (list(group) for _, group in itertools.groupby(sent, lambda each: each.message))
        if not any(each.fault in whole for each in records)
    ]
    got = []
    for payload in payloads:
        inflate = zlib.decompressobj(-15)
        with contextlib.suppress(zlib.error):
            text = inflate.decompress(payload)
            if inflate.eof:  # a text cut short may end within a character
                rows = (row.partition("=") for row in text.decode().split("\n") if row)
                got.append([(name, text) for name, _, texts in rows for text in texts.split("|")])
    assert got == [message for message in expected if message]
    assert len(got) > 100


# What is said of them


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"kind": "nonsense"}, "nonsense"),
        ({}, "null"),
        ({"kind": "reset", "colour": 1}, "colour"),
        ({"kind": "reset", "after": -1}, "after"),
        ({"kind": "reset", "after": True}, "after"),
        ({"kind": "reset", "after": "1"}, "after"),
        ({"kind": "reset", "probability": 1.5}, "probability"),
        ({"kind": "reset", "connection": "one"}, "connection"),
        ({"kind": "stall", "answers": 1}, "answers"),
        ({"kind": "split", "at": "end"}, "every"),
        ({"kind": "handshake_status", "status": 599}, "599"),
        ({"kind": "day_change", "at": "25:00"}, "25:00"),
        ({"kind": "quota", "count": 1}, "count"),
        ({"kind": "allocation_drop", "connection": 1}, "connection"),
    ],
)
def test_a_bad_specification_is_refused_and_named(sim: Simulator, asked: dict[str, Any], named: str) -> None:
    kind = asked.pop("kind", None)
    with pytest.raises(ValueError, match=named):
        sim.fault(kind, **asked)
    assert not any(each["active"] for each in sim.faults()["faults"])


@pytest.mark.parametrize("body", [b"", b"kind=reset", b'{"kind":', b"\xff", b"[" * 5000])
def test_a_body_that_is_no_json_is_answered_with_an_example(sim: Simulator, body: bytes) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        sim.request("/fault", method="POST", data=body)
    with refused.value as error:
        assert error.code == 400
        said = json.loads(error.read())["error"]
    assert "is no JSON" in said
    assert '{"kind": "reset", "after": 500}' in said


def test_a_kind_that_is_nearly_right_is_answered_with_the_right_one(sim: Simulator) -> None:
    with pytest.raises(ValueError, match=r"did you mean half_open\? There are half_open, .*clock_skew"):
        sim.fault("half-open")


@pytest.mark.parametrize("text", ["nonsense", "reset:after", "reset:after=x", '{"kind":', "stall:answers=yes"])
def test_a_bad_switch_ends_the_simulator(text: str) -> None:
    with pytest.raises(AssertionError, match=r"jvq-fast sim: .*fault"):
        Simulator("--fault", text)


def test_faults_by_switch() -> None:
    with Simulator("--keep-sent", "--fault", "close:after=3,code=1013", "--fault", '{"kind":"rsv","after":1}') as sim:
        with Wire(sim) as wire:
            wire.ending()
            assert [first for first, _ in wire.frames if first != 0x81] == [0x82, 0xC2, 0x82, 0x88]


def test_what_happens_depends_on_the_seed_alone() -> None:
    def run(seed: int) -> list[tuple[str, int, str]]:
        with Simulator("--keep-sent", "--hold", "--speed", "max") as sim, Wire(sim) as wire:
            wire.until(lambda first, payload: first == 0x81)
            for kind in ("duplicate_trade", "field_count", "truncated", "missing_trade"):
                sim.fault(kind, probability=0.05, count=0, seed=seed)
            sim.fault("reset", probability=0.02, seed=seed)
            sim.go()
            assert isinstance(wire.ending(), ConnectionResetError)
            happened = [(each["kind"], each["message"], "") for each in sim.faults()["happened"]]
            return happened + [(each.name, each.message, each.text) for each in sim.sent(wire.id) if each.fault]

    first = run(5)
    assert len(first) > 3
    assert run(5) == first
    assert run(6) != first


def test_the_books_are_off_by_default_and_a_run_without_faults_has_only_good_records() -> None:
    with Simulator() as sim:
        with pytest.raises(urllib.error.HTTPError) as refused, contextlib.closing(Wire(sim).socket):
            sim.sent(1)
        with refused.value as error:
            assert b"--keep-sent" in error.read()
    with Simulator("--keep-sent") as sim, Wire(sim) as wire:
        wire.until(lambda first, payload: len(received(wire)) > 200)
        sent = finish(sim, wire)
        stats = sim.stats()["connections"][0]
        assert stats["records"] == len(sent)
        assert not any(stats["faulty"].values())
        assert {each.mark for each in sent} == {"good"}
        assert [each.message for each in sent][-1] == stats["messages"]
