"""Captures: what is recorded, played back, survived and announced."""

import os
import random
import stat
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

import jvq_fast as jvq
from jvq_fast import capture
from jvq_fast.capture import CONNECT, END_OF_READ, ENTRY, HEADER, LOST, MESSAGE, RECONNECT, entry, header
from jvq_fast.listener import Tap
from jvq_fast.plural import plural
from jvq_fast.recorder import Recorder
from ws_script import PING, TEXT, TOKEN, Peer, Script, ScriptServer, binary, deflate, frame, serve, trade

WAIT = 20
DAY = "2026-11-23"
LEVELS = ("trades", "quotes", "depths")


class Watched:
    """Everything that handlers of a decoder are told, as bytes."""

    def __init__(self, decoder: jvq.Decoder) -> None:
        self.decoder = decoder
        self.calls: list[Any] = []
        for name in ("on_trades", "on_quotes", "on_depths"):
            before = getattr(decoder, name)
            call = lambda code, records, name=name: self.calls.append((name, code, records.tobytes()))  # noqa: E731
            setattr(decoder, name, (*before, call))
        decoder.on_batch = (*decoder.on_batch, lambda n: self.calls.append(("on_batch", n)))

    @property
    def tapes(self) -> list[bytes]:
        return [getattr(self.decoder, level).last(1 << 20).tobytes() for level in LEVELS]


def fresh() -> Watched:
    return Watched(jvq.Decoder(trading_day=DAY))


def record(
    path: Path, *scripts: Script, until: Callable[[jvq.Feed], bool], **settings: Any
) -> tuple[jvq.Feed, Watched]:
    with ScriptServer(*scripts) as server:
        feed = jvq.Feed(
            TOKEN,
            "lv2_600519",
            server=server.ws,
            capture=path,
            trading_day=DAY,
            backoff_min=0.01,
            backoff_max=0.02,
            **settings,
        )
        watched = Watched(feed.decoder)
        feed.on_batch(lambda n: feed.stop() if until(feed) else None)
        watchdog = threading.Timer(WAIT, feed.stop)
        watchdog.start()
        feed.run()
        watchdog.cancel()
    return feed, watched


def entries(path: Path) -> list[capture.Entry]:
    with path.open("rb") as file:
        reader = capture.Reader(file, str(path))
        found = list(reader)
        assert reader.damage == ""
    return found


def write(path: Path, *parts: bytes, market: str = "ab") -> bytes:
    data = header(market, 1) + b"".join(parts)
    path.write_bytes(data)
    return data


def message(number: int, *, last: bool = True) -> bytes:
    return entry(MESSAGE, 1000 + number, deflate(trade(number)), ends_read=last)


def ids(watched: Watched) -> list[int]:
    return [int(number) for number in watched.decoder.trades.last(1 << 20)["id"]]


# --- recorded and played back ---


def test_a_replay_gives_what_was_seen_live(tmp_path: Path) -> None:
    book = ",".join(["100,9.99"] * 5 + ["100,10.01"] * 5)
    quote = f"lv1_600519=10:00:00,贵州茅台,10.00,0.10,100000,10000,{book}\n"

    def first(peer: Peer) -> None:
        peer.accept(binary(trade(1)))
        peer.text()
        peer.send(binary(trade(2) + trade(3)), binary(quote), frame(PING))
        peer.frame()
        peer.send(frame(TEXT, b"0#"), binary("nonsense\n"), frame(2, deflate(trade(4))[:5], fin=False))
        peer.send(frame(PING), frame(0, deflate(trade(4))[5:]), binary(quote), frame(TEXT, b"0#"))
        peer.frame()

    def second(peer: Peer) -> None:
        peer.accept()
        peer.text()
        peer.send(binary(trade(3) + trade(4) + trade(5)), binary(quote))
        peer.send(frame(2, b"\xff broken"), frame(PING), binary(trade(6)))
        peer.until_closed()

    path = tmp_path / "day.capture"
    feed, live = record(path, first, second, until=lambda feed: feed.trades.head == 6)
    again = fresh()
    assert jvq.replay(path, again.decoder) == feed.decoder.stats()["records"] == 9
    assert again.calls == live.calls
    assert again.tapes == live.tapes
    assert dict(again.decoder.names) == dict(feed.names)
    apart = {"storage_late"}  # the feed reserves
    assert {k: v for k, v in again.decoder.stats().items() if k not in apart} == {
        k: v for k, v in feed.decoder.stats().items() if k not in apart
    }
    assert feed.decoder.stats()["duplicates"] == 2
    assert [each.kind for each in entries(path) if each.kind in (CONNECT, RECONNECT)] == [CONNECT, RECONNECT]
    assert feed.stats()["capture_messages"] == feed.stats()["messages"]


def test_the_file_is_private_and_says_what_it_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        record(tmp_path / "c", serve(binary(trade(1))), until=lambda feed: True)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o600
    with (tmp_path / "c").open("rb") as file:
        reader = capture.Reader(file, "c")
    assert reader.market == "ab"
    assert abs(time.time_ns() - reader.created) < 600e9


def test_messages_are_recorded_as_they_came(tmp_path: Path) -> None:
    payloads = [deflate(trade(1)), b"", b"\x00\xff not deflate", deflate("".join(trade(n) for n in range(2, 5000)))]
    frames = [frame(2, payload) for payload in payloads]
    feed, _ = record(tmp_path / "c", serve(*frames), until=lambda feed: feed.decoder.messages == 4)
    found = [each for each in entries(tmp_path / "c") if each.kind == MESSAGE]
    assert [each.payload for each in found] == payloads
    assert feed.trades.last(1)["recv"][0] == found[-1].recv


def test_a_second_run_continues_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c"
    record(path, serve(binary(trade(1))), until=lambda feed: True)
    size = path.stat().st_size
    start = path.read_bytes()
    record(path, serve(binary(trade(2))), until=lambda feed: True)
    assert path.read_bytes()[:size] == start
    watched = fresh()
    assert jvq.replay(str(path), watched.decoder) == 2
    assert ids(watched) == [1, 2]


def test_a_feed_run_twice_records_the_second_connection_as_another_one(tmp_path: Path) -> None:
    with ScriptServer(serve(binary(trade(1))), serve(binary(trade(1) + trade(2)))) as server:
        feed = jvq.Feed(TOKEN, "lv2_600519", server=server.ws, capture=tmp_path / "c", trading_day=DAY)
        live = Watched(feed.decoder)
        feed.on_batch(lambda n: feed.stop())
        feed.run()
        feed.run()
    watched = fresh()
    jvq.replay(tmp_path / "c", watched.decoder)
    assert watched.calls == live.calls
    assert ids(watched) == [1, 2]


def test_an_empty_capture_plays_nothing(tmp_path: Path) -> None:
    write(tmp_path / "c")
    watched = fresh()
    assert jvq.replay(tmp_path / "c", watched.decoder) == 0
    assert watched.calls == []


# --- damage ---


def test_a_capture_cut_anywhere_is_read_up_to_there_and_the_place_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c"
    parts = [entry(CONNECT, 1), message(1, last=False), message(2), entry(RECONNECT, 2), message(3, last=False)]
    parts.append(entry(END_OF_READ, 3))
    data = write(path, *parts)
    edges = [HEADER.size]
    for part in parts:
        edges.append(edges[-1] + len(part))
    for size in range(HEADER.size, len(data) + 1):
        path.write_bytes(data[:size])
        whole = max(edge for edge in edges if edge <= size)
        wanted = [n for n, edge in ((1, edges[2]), (2, edges[3]), (3, edges[5])) if edge <= size]
        watched = fresh()
        if whole == size:
            assert jvq.replay(path, watched.decoder) == len(wanted)
        else:
            with pytest.warns(jvq.CaptureWarning, match=f"cut off at byte {whole}$"):
                assert jvq.replay(path, watched.decoder) == len(wanted)
        assert ids(watched) == wanted
        assert sum(call[1] for call in watched.calls if call[0] == "on_batch") == len(wanted)


def test_any_flipped_bit_is_noticed(tmp_path: Path, share: Callable[..., list[int]]) -> None:
    path = tmp_path / "c"
    parts = [message(n) for n in range(1, 5)]
    data = write(path, *parts)
    for bit in share(range(8 * HEADER.size, 8 * len(data)), 300):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        path.write_bytes(broken)
        watched = fresh()
        with pytest.warns(jvq.CaptureWarning, match="at byte") as caught:
            jvq.replay(path, watched.decoder)
        at = int(str(caught[0].message).rpartition(" ")[2])
        assert at <= bit // 8 < at + len(parts[1]) + 4
        assert ids(watched) == list(range(1, 1 + (at - HEADER.size) // len(parts[0])))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (ENTRY.pack(0, 2**32 - 1, 0, MESSAGE, 0, 0x51A7), "no entry"),
        (ENTRY.pack(0, 64 << 20, 0, MESSAGE, 0, 0x51A7) + b"x" * 100, "cut off"),
        (ENTRY.pack(0, 5, 0, MESSAGE, 0, 0) + b"x" * 5, "no entry"),
        (ENTRY.pack(0, 5, 0, MESSAGE, 0, 0x51A7) + b"x" * 5, "checksum"),
        (entry(0, 0), "unknown kind"),
        (entry(9, 0), "unknown kind"),
        (entry(LOST, 0, b"short"), "unknown kind"),
        (b"\0" * 4096, "no entry"),
    ],
)
def test_hostile_entries_end_the_replay_and_take_no_memory(tmp_path: Path, damage: bytes, words: str) -> None:
    path = tmp_path / "c"
    size = len(write(path, message(1)))
    with path.open("ab") as file:
        file.write(damage + message(2))
    watched = fresh()
    tracemalloc.start()
    try:
        with pytest.warns(jvq.CaptureWarning, match=f"{words}.* at byte {size}$"):
            assert jvq.replay(path, watched.decoder) == 1
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@hypothesis.given(data=st.data())
def test_any_bytes_are_read_without_harm(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever stands in a file: records of whole entries, and an end. Never a crash, never an invented record."""
    path = tmp_path_factory.getbasetemp() / "hostile"
    parts = [message(n) for n in range(1, 6)]
    content = bytearray(header("ab", 1) + b"".join(parts))
    for _ in range(data.draw(st.integers(0, 4))):
        begin = data.draw(st.integers(HEADER.size, len(content)))
        end = data.draw(st.integers(begin, min(len(content), begin + 60)))
        content[begin:end] = data.draw(
            st.one_of(
                st.binary(max_size=60),
                st.builds(ENTRY.pack, *[st.integers(0, 2**32 - 1)] * 2, st.integers(-(2**63), 2**63 - 1),
                          st.integers(0, 255), st.integers(0, 255), st.just(0x51A7)),
                st.builds(entry, st.integers(1, 5), st.integers(0, 2**61), st.binary(max_size=20)),
            )
        )  # fmt: skip
    path.write_bytes(content)
    watched = fresh()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jvq.CaptureWarning)
        count = jvq.replay(path, watched.decoder)
    assert count == watched.decoder.trades.head
    assert set(ids(watched)) <= {1, 2, 3, 4, 5}


def test_a_recorded_time_that_is_none_ends_the_replay_as_damage(tmp_path: Path) -> None:
    path = tmp_path / "c"
    size = len(write(path, message(1)))
    with path.open("ab") as file:
        file.write(entry(MESSAGE, -5, deflate(trade(2)), ends_read=True))
    with pytest.warns(jvq.CaptureWarning, match=f"at byte {size}$"):
        assert jvq.replay(path, fresh().decoder) == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"time,price\n", header("ab", 1)[:-1], b"\0" * 100, header("ab", 1)[:-4] + b"\0" * 40],
    ids=["empty", "short", "text", "cut header", "zeros", "damaged header"],
)
def test_what_is_no_capture_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(jvq.CaptureError, match=str(tmp_path / "c")):
        jvq.replay(tmp_path / "c", fresh().decoder)


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(jvq.CaptureError, match=str(path)):
            jvq.replay(path, fresh().decoder)


def test_a_capture_of_another_version_is_named(tmp_path: Path) -> None:
    import zlib

    body = HEADER.pack(capture.MAGIC, 2, b"ab", 1, 0)[:-4]
    (tmp_path / "c").write_bytes(body + zlib.crc32(body).to_bytes(4, "little"))
    with pytest.raises(jvq.CaptureError, match="version 2"):
        jvq.replay(tmp_path / "c", fresh().decoder)


# --- continuing a file ---


@pytest.mark.parametrize("tail", [message(2)[:-1], b"\0" * 700, message(3)[:5] + message(4), b"x"])
def test_a_damaged_tail_is_set_aside_whole_and_the_file_continued(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "c"
    good = write(path, message(1))
    for times in range(3):
        with path.open("ab") as file:
            file.write(tail)
        size = path.stat().st_size - len(tail)
        with pytest.warns(jvq.CaptureWarning, match=f"byte {size}; .*damaged-{size}"):
            record(path, serve(binary(trade(10 + times))), until=lambda feed: True)
        aside = tmp_path / f"c.damaged-{size}"
        assert aside.read_bytes() == tail
        assert stat.S_IMODE(aside.stat().st_mode) == 0o600
    assert path.read_bytes().startswith(good)
    watched = fresh()
    jvq.replay(path, watched.decoder)
    assert ids(watched) == [1, 10, 11, 12]


def test_nothing_that_was_set_aside_before_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "c"
    write(path, b"tail")
    (tmp_path / "c.damaged-32").write_bytes(b"precious")
    with pytest.warns(jvq.CaptureWarning, match=r"damaged-32\.1"):
        record(path, serve(binary(trade(1))), until=lambda feed: True)
    assert (tmp_path / "c.damaged-32").read_bytes() == b"precious"
    assert (tmp_path / "c.damaged-32.1").read_bytes() == b"tail"


def test_a_file_that_ended_within_its_header_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "c"
    path.write_bytes(header("ab", 1)[:20])
    with pytest.warns(jvq.CaptureWarning, match="damaged-0"):
        record(path, serve(binary(trade(1))), until=lambda feed: True)
    assert (tmp_path / "c.damaged-0").read_bytes() == header("ab", 1)[:20]
    assert jvq.replay(path, fresh().decoder) == 1


@pytest.mark.parametrize("content", [b"precious notes", header("hk", 1), header("ab", 1)[:-1] + b"\0"])
def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c"
    path.write_bytes(content)
    with pytest.raises(jvq.CaptureError, match=str(path)):
        record(path, serve(binary(trade(1))), until=lambda feed: True)
    assert path.read_bytes() == content
    assert [each.name for each in tmp_path.iterdir()] == ["c"]


def test_a_place_that_can_not_be_written_is_raised_before_anything_is_connected(tmp_path: Path) -> None:
    with ScriptServer(serve()) as server:
        for path in (tmp_path, tmp_path / "missing" / "c", Path("/dev/null")):
            feed = jvq.Feed(TOKEN, server=server.ws, capture=path)
            with pytest.raises(jvq.CaptureError, match=str(path)):
                feed.run()
        assert server.accepted == 0


def test_two_feeds_do_not_write_one_file(tmp_path: Path) -> None:
    with ScriptServer(serve(subscribed=False)) as server:
        with jvq.Feed(TOKEN, server=server.ws, capture=tmp_path / "c") as feed:
            while not feed.connected:
                time.sleep(0.01)
            with pytest.raises(jvq.CaptureError, match="another feed"):
                jvq.Feed(TOKEN, server=server.ws, capture=tmp_path / "c").run()
    assert [each.kind for each in entries(tmp_path / "c")] == [CONNECT]


# --- a disk that stalls or fails ---


class Disk:
    """Stands before the file of a recorder: takes, refuses in the middle, or hangs."""

    def __init__(self, recorder: Recorder) -> None:
        self._file = recorder._file
        self.mode = "takes"
        self.release = threading.Event()
        self.refused = threading.Event()
        recorder._file = self  # type: ignore[assignment]

    def write(self, data: Any) -> int:
        if self.mode == "hangs":
            self.refused.set()
            assert self.release.wait(WAIT)
        if self.mode == "full":
            if len(data) > 7 and random.random() < 0.5:
                return self._file.write(data[:7]) or 0
            self.refused.set()
            raise OSError(28, "No space left on device")
        return self._file.write(data) or 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[Disk]:
    """The disks of the recorders that feeds make."""
    disks: list[Disk] = []

    class Watched(Recorder):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            disks.append(Disk(self))

    monkeypatch.setattr("jvq_fast.feed.Recorder", Watched)
    return disks


def stream(count: int) -> Script:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.text()
        for number in range(0, count, 50):
            peer.send(*(binary(trade(n)) for n in range(number, min(count, number + 50))))
        peer.until_closed()

    return script


@pytest.mark.parametrize("mode", ["full", "hangs"])
def test_a_disk_that_recovers_in_time_loses_nothing_and_never_stops_the_feed(
    tmp_path: Path, disk: list[Disk], mode: str
) -> None:
    count = 20000
    errors: list[tuple[Exception, str]] = []
    with ScriptServer(stream(count)) as server:
        feed = jvq.Feed(TOKEN, "lv2_600519", server=server.ws, capture=tmp_path / "c", trading_day=DAY)
        live = Watched(feed.decoder)
        feed.on_connect(lambda address: setattr(disk[0], "mode", mode))
        feed.on_error(lambda error, where: errors.append((error, where)))

        @feed.on_batch
        def on_batch(n: int) -> None:
            if feed.trades.head == count:
                assert disk[0].refused.wait(WAIT)
                disk[0].mode = "takes"
                disk[0].release.set()
                feed.stop()

        feed.run()
    watched = fresh()
    jvq.replay(tmp_path / "c", watched.decoder)
    assert watched.calls == live.calls
    assert feed.stats()["capture_messages"] == count
    assert feed.stats()["capture_lost_messages"] == 0
    words = {(where, str(error)) for error, where in errors}
    assert words == (
        {("capture", f"can't write {tmp_path / 'c'}: No space left on device")} if mode == "full" else set()
    )


@pytest.mark.parametrize("mode", ["full", "hangs"])
def test_what_memory_can_not_hold_is_counted_announced_and_marked_in_the_file(
    tmp_path: Path, disk: list[Disk], mode: str
) -> None:
    errors: list[tuple[Exception, str]] = []
    resumed = threading.Event()
    count = 3000

    def script(peer: Peer) -> None:
        peer.accept()
        peer.text()
        peer.send(binary(trade(0)))
        peer.frame()
        for number in range(1, count):
            peer.send(binary(trade(number)))
        assert resumed.wait(WAIT)
        for number in range(count, count + 100):
            peer.send(binary(trade(number)))
        peer.until_closed()

    with ScriptServer(script) as server:
        feed = jvq.Feed(
            TOKEN,
            "lv2_600519",
            server=server.ws,
            capture=tmp_path / "c",
            max_message=4096,
            capture_limit=1 << 16,
            trading_day=DAY,
        )
        live = Watched(feed.decoder)
        feed.on_error(lambda error, where: errors.append((error, where)))

        def recover() -> None:
            while int(feed.stats()["capture_lost_messages"]) == 0 or feed.trades.head < count or len(errors) < 1:
                time.sleep(0.01)
            disk[0].mode = "takes"
            disk[0].release.set()
            tap = feed._tap
            while tap is not None and tap.held > 1000:
                time.sleep(0.01)
            resumed.set()

        recovering = threading.Thread(target=recover)

        @feed.on_batch
        def on_batch(n: int) -> None:
            if feed.trades.head == 1:
                disk[0].mode = mode
                recovering.start()
                feed.subscribe("lv2_000001")
            if feed.trades.head == count + 100:
                feed.stop()

        feed.run()
        recovering.join(WAIT)
    stats = feed.stats()
    lost = int(stats["capture_lost_messages"])
    assert 0 < lost < count
    assert stats["capture_messages"] == count + 100 - lost
    assert {where for _, where in errors} == {"capture"}
    assert any("not being recorded" in str(error) for error, _ in errors)
    assert any(plural(lost, "message") in str(error) for error, _ in errors)
    watched = fresh()
    with pytest.warns(jvq.CaptureWarning, match="not recorded before byte") as caught:
        jvq.replay(tmp_path / "c", watched.decoder)
    assert sum(int(str(each.message).split(": ")[2].split(" ")[0].replace(",", "")) for each in caught) == lost
    held = ids(watched)
    assert len(held) == count + 100 - lost
    assert set(held) < set(ids(live))
    assert held[-100:] == list(range(count, count + 100))


def test_a_disk_that_never_recovers_ends_with_a_count_and_a_file_that_can_be_read(tmp_path: Path) -> None:
    random.seed(1)
    tap = Tap(1 << 20)
    recorder = Recorder(tmp_path / "c", "ab", tap)
    recorder.start()
    tap.connect(False)
    while tap.held:
        time.sleep(0.01)
    disk = Disk(recorder)
    disk.mode = "full"
    for _ in range(50):
        tap.connect(True)
    recorder.close(0.3)
    assert any("No space left" in str(error) for error in recorder.news())
    kinds = [each.kind for each in entries(tmp_path / "c")]
    assert kinds[0] == CONNECT
    assert len(kinds) < 51


def test_a_recorder_that_hangs_does_not_hold_the_end_up(tmp_path: Path) -> None:
    tap = Tap(1 << 20)
    recorder = Recorder(tmp_path / "c", "ab", tap)
    disk = Disk(recorder)
    disk.mode = "hangs"
    recorder.start()
    tap.connect(False)
    assert disk.refused.wait(WAIT)
    recorder.close(0.1)
    assert "still being written" in str(recorder.news()[0])
    disk.release.set()
    recorder._thread.join(WAIT)
    assert [each.kind for each in entries(tmp_path / "c")] == [CONNECT]
