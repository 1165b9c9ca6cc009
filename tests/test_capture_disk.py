"""A capture on a disk that is full, or whose file goes away: the feed goes on, and says what is not recorded."""

import os
import queue
import resource
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import jvq_fast as jvq
from jvq_fast import capture
from jvq_fast.capture import LOSS, LOST, MESSAGE, entry, header
from jvq_fast.plural import plural
from jvq_fast.recorder import Recorder
from ws_script import TOKEN, Peer, ScriptServer, binary, deflate, trade

WAIT = 20
LIMIT = 1 << 16
QUIET = 0.3


class SmallDisk:
    """A file system of 256 KiB of its own; only root may mount one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"a small disk can't be mounted here: {done.stderr.strip()}")

    def fill(self, path: Path, room: int = 0) -> None:
        with (self.folder / "ballast").open("wb", buffering=0) as ballast:
            try:
                while ballast.write(b"x" * 4096):
                    pass
            except OSError:
                pass

    def free(self) -> None:
        (self.folder / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


class LimitedFiles:
    """No file of this process may grow beyond a size; whoever runs it may set that."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self, path: Path, room: int = 0) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, self._before[1]))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)

    close = free


@pytest.fixture(params=[SmallDisk, LimitedFiles], ids=["small disk", "limited files"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk | LimitedFiles]:
    folder = tmp_path / "disk"
    folder.mkdir()
    disk = request.param(folder)
    try:
        yield disk
    finally:
        disk.free()
        disk.close()


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[LimitedFiles]:
    limited = LimitedFiles(tmp_path)
    yield limited
    limited.free()


class Recording:
    """A feed that records what the test has the server send: trades, one a message, numbered from 0."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.errors: list[str] = []
        self.sent = 0
        self._frames: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._server = ScriptServer(self._serve)
        self.feed = jvq.Feed(
            TOKEN,
            "lv2_600519",
            server=self._server.ws,
            capture=path,
            capture_limit=LIMIT,
            max_message=4096,
            trading_day="2026-11-23",
        )
        self.feed.on_error(lambda error, where: self.errors.append(f"{where}: {error}"))

    def _serve(self, peer: Peer) -> None:
        peer.accept()
        peer.text()
        while data := self._frames.get(timeout=WAIT):
            peer.send(data)
        peer.until_closed()

    def __enter__(self) -> "Recording":
        self._server.__enter__()
        self.feed.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._frames.put(b"")
        self.feed.stop()
        self.feed.join(WAIT)
        self._server.__exit__(*error)

    def send(self, count: int) -> None:
        """And wait until the feed has them."""
        for number in range(self.sent, self.sent + count):
            self._frames.put(binary(trade(number)))
        self.sent += count
        self.until(lambda: self.feed.trades.head == self.sent)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT
        while not condition():
            assert time.monotonic() < deadline, (self.errors, self.feed.stats())
            time.sleep(0.005)

    def written(self) -> None:
        """Wait until nothing waits in memory."""
        self.until(lambda: self.feed._tap is not None and self.feed._tap.held == 0)

    def lost(self) -> int:
        return int(self.feed.stats()["capture_lost_messages"])


def entries(path: Path) -> list[capture.Entry]:
    with path.open("rb") as file:
        reader = capture.Reader(file, str(path))
        found = list(reader)
        assert reader.damage == ""
    return found


def losses(path: Path) -> list[int]:
    return [LOSS.unpack(each.payload)[0] for each in entries(path) if each.kind == LOST]


def ids(path: Path) -> list[int]:
    decoder = jvq.Decoder(trading_day="2026-11-23")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jvq.CaptureWarning)
        jvq.replay(path, decoder)
    return [int(number) for number in decoder.trades.last(1 << 16)["id"]]


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """News is looked for often, so that whatever is told too often shows soon."""
    monkeypatch.setattr("jvq_fast.feed._CAPTURE_CHECK", 0.01)
    monkeypatch.setattr("jvq_fast.recorder.QUIET", QUIET)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end does not wait for a disk."""
    close = Recorder.close
    monkeypatch.setattr(Recorder, "close", lambda recorder, timeout: close(recorder, 0.2))


@pytest.mark.usefixtures("watchful")
def test_a_full_disk_costs_messages_that_are_counted_announced_once_and_marked(disk: SmallDisk | LimitedFiles) -> None:
    path = disk.folder / "day.capture"
    with Recording(path) as recording:
        recording.send(10)
        recording.written()
        disk.fill(path)
        recording.send(200)  # more than what is left of the last page
        recording.until(lambda: len(recording.errors) == 1)
        recording.send(3000)
        recording.until(lambda: len(recording.errors) == 2)
        # It stays full, and now and then a message comes. It is still the same loss.
        for _ in range(20):
            before = recording.lost()
            recording.send(1)
            assert recording.lost() == before + 1
            time.sleep(0.03)
        assert len(recording.errors) == 2, recording.errors
        disk.free()
        # Marked before anything else comes.
        recording.until(lambda: len(recording.errors) == 4)
        lost = recording.lost()
        assert sum(losses(path)) == lost
        recording.send(50)
        recording.written()
        # Long enough for another announcement, if there were one.
        time.sleep(2 * QUIET)
        assert recording.lost() == lost
    assert len(recording.errors) == 4, recording.errors
    assert recording.errors[0].startswith(f"capture: can't write {path}: ")
    assert recording.errors[1] == f"capture: {path} can't be written: messages are not being recorded"
    again = f"capture: {path} is being written again"
    assert again in recording.errors[2:]
    recording.errors.remove(again)
    size = sum(len(deflate(trade(number))) for number in range(3230 - lost, 3230))
    assert recording.errors[2] == f"capture: {path}: not recorded: {plural(lost, 'message')} ({plural(size, 'byte')})"
    stats = recording.feed.stats()
    assert (stats["capture_lost_messages"], stats["capture_lost_bytes"]) == (lost, size)
    assert stats["capture_messages"] == 3280 - lost
    assert 0 < lost < 3000
    assert ids(path) == [*range(3230 - lost), *range(3230, 3280)]
    assert sum(losses(path)) == lost


@pytest.mark.usefixtures("watchful")
def test_a_second_full_disk_is_announced_again(limited: LimitedFiles, tmp_path: Path) -> None:
    path = tmp_path / "c"
    with Recording(path) as recording:
        for times in (1, 2):
            recording.send(10)
            recording.written()
            limited.fill(path)
            recording.send(1)
            recording.until(lambda times=times: len(recording.errors) == 2 * times - 1)
            assert recording.feed.stats()["capture_failing"] == 1
            limited.free()
            recording.written()
            recording.until(lambda times=times: len(recording.errors) == 2 * times)
            assert recording.feed.stats()["capture_failing"] == 0
    told = [f"capture: can't write {path}: File too large", f"capture: {path} is being written again"]
    assert recording.errors == told * 2
    assert losses(path) == []
    assert ids(path) == list(range(22))


@pytest.mark.usefixtures("watchful", "impatient")
@pytest.mark.parametrize("room", [0, 20, 50, 300])
def test_a_disk_that_stays_full_leaves_a_whole_file_that_names_the_loss_where_it_fits(
    limited: LimitedFiles, tmp_path: Path, room: int
) -> None:
    path = tmp_path / "c"
    with Recording(path) as recording:
        recording.send(10)
        recording.written()
        limited.fill(path, room)
        recording.send(20)
        recording.until(lambda: len(recording.errors) == 1)
    limited.free()
    held = ids(path)
    assert held == list(range(len(held)))
    assert (len(held) > 10) == (room == 300)
    lost = 30 - len(held)
    assert recording.errors[1:] == [f"capture: {path}: could not be written: the last {plural(lost, 'message')}"]
    assert recording.feed.stats()["capture_lost_messages"] == lost
    assert recording.feed.stats()["capture_messages"] == len(held)
    # 36 bytes for the mark; what else fits between two messages hangs on their size.
    fits = {0: [], 20: [], 50: [lost]}
    assert losses(path) == fits.get(room, losses(path))
    assert losses(path) in ([], [lost])


def test_a_disk_that_is_full_at_the_start_is_raised_and_the_file_can_be_used_later(
    limited: LimitedFiles, tmp_path: Path
) -> None:
    path = tmp_path / "c"
    path.touch()
    limited.fill(path, 10)
    with ScriptServer(lambda peer: peer.accept(binary(trade(1)))) as server:
        feed = jvq.Feed(TOKEN, server=server.ws, capture=path)
        feed.on_connect(lambda address: feed.stop())
        with pytest.raises(jvq.CaptureError, match=f"can't write {path}: File too large"):
            feed.run()
        assert server.accepted == 0
        limited.free()
        feed = jvq.Feed(TOKEN, server=server.ws, capture=path)
        feed.on_batch(lambda n: feed.stop())
        with pytest.warns(jvq.CaptureWarning, match="damaged-0"):
            feed.run()
    assert ids(path) == [1]


def test_a_damaged_tail_is_kept_where_there_is_no_room_to_set_it_aside(limited: LimitedFiles, tmp_path: Path) -> None:
    path = tmp_path / "c"
    good = header("ab", 1) + entry(MESSAGE, 1, deflate(trade(1)), ends_read=True)
    content = good + os.urandom(9000)
    path.write_bytes(content)
    # A file may grow to 4,096 bytes: the copy is taken in part, first without an error.
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    feed = jvq.Feed(TOKEN, server="ws://127.0.0.1:9", capture=path)
    for _ in range(3):
        with pytest.raises(jvq.CaptureError, match="File too large"):
            feed.run()
    limited.free()
    assert path.read_bytes() == content
    assert [each.name for each in tmp_path.iterdir()] == ["c"]


@pytest.mark.usefixtures("watchful")
def test_a_disk_that_takes_little_by_little_is_one_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room comes and goes, as it does where others write too."""
    turns = 0

    class Scarce(Recorder):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self._file, self._real = self, self._file  # type: ignore[assignment]

        def write(self, data: Any) -> int:
            nonlocal turns
            turns += 1
            if turns <= 20 and turns % 2:
                raise OSError(5, "Input/output error")
            return self._real.write(data) or 0

        def close(self, timeout: float | None = None) -> None:  # type: ignore[override]
            if timeout is None:
                self._real.close()
            else:
                super().close(timeout)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

    monkeypatch.setattr("jvq_fast.feed.Recorder", Scarce)
    with Recording(tmp_path / "c") as recording:
        while turns <= 20:
            recording.send(1)
            recording.written()
        recording.until(lambda: len(recording.errors) >= 2)
    told = [f"capture: can't write {tmp_path / 'c'}: Input/output error"]
    assert recording.errors == [*told, f"capture: {tmp_path / 'c'} is being written again"]
    assert ids(tmp_path / "c") == list(range(recording.sent))


@pytest.mark.usefixtures("watchful")
@pytest.mark.parametrize("what", ["moved", "removed", "replaced", "the directory is removed"])
def test_a_file_that_goes_away_is_announced_once(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "c"
    with Recording(path) as recording:
        recording.send(5)
        recording.written()
        # A relative path would now mean another place; that alone is no news.
        monkeypatch.chdir(tmp_path)
        if what == "moved":
            path.rename(tmp_path / "elsewhere")
        else:
            path.unlink()
        if what == "replaced":
            path.write_text("another")
        if what == "the directory is removed":
            folder.rmdir()
        recording.until(lambda: bool(recording.errors))
        recording.send(5)
        time.sleep(1.5 * QUIET)
    words = "was moved: recording goes on" if what == "moved" else "was removed: what is recorded will be gone"
    assert len(recording.errors) == 1, recording.errors
    assert recording.errors[0].startswith(f"capture: {path} {words}")
    assert recording.feed.trades.head == 10
    if what == "moved":
        assert ids(tmp_path / "elsewhere") == list(range(10))


@pytest.mark.usefixtures("watchful")
def test_a_file_that_another_cuts_is_announced_once(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with Recording(path) as recording:
        recording.send(5)
        recording.written()
        os.truncate(path, 40)
        recording.until(lambda: bool(recording.errors))
        for _ in range(5):
            recording.send(1)
            recording.written()
    assert recording.errors == [f"capture: {path} was cut by another: what follows can't be read"]


@pytest.mark.usefixtures("watchful")
def test_a_change_of_directory_is_no_news(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    with Recording(Path("c")) as recording:
        recording.send(1)
        monkeypatch.chdir(tmp_path / "other")
        time.sleep(1.5 * QUIET)
        recording.send(1)
    assert recording.errors == []
    assert ids(tmp_path / "c") == [0, 1]
