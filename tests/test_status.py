"""`StatusSocket`, what reads it, and `jvq-fast status`: only the owner gets an answer, and nothing waits for ever."""

import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

import pytest

import jvq_fast as jvq
from commands import Command
from jvq_fast import status
from jvq_fast.cli import main
from jvq_fast.errors import StatusError
from jvq_fast.redact import Secret
from jvq_fast.status import StatusSocket, read_status
from ws_script import ScriptServer, binary, serve, trade

WAIT = 20.0
COUNTERS = {"state": "live", "records": 1234567, "bad": 0, "gaps": 2, "lag_network_p50": 0.25, "subscriptions": 3}
CHILD = """
import sys, time
from jvq_fast.status import StatusSocket
status = StatusSocket(True if sys.argv[1] == "-" else sys.argv[1], lambda: {"records": 7, "subscriptions": 1})
print(status.path, flush=True)
time.sleep(60)
"""


@pytest.fixture
def place(monkeypatch):
    """A runtime directory with a short name: the path of a Unix socket has about 100 characters."""
    with tempfile.TemporaryDirectory(prefix="jvq") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        monkeypatch.setenv("HOME", folder)
        monkeypatch.setattr(status, "_candidates", lambda: [Path(folder) / "jvq_fast"])
        yield Path(folder)


@contextlib.contextmanager
def child(path="-"):
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        yield process, Path(process.stdout.readline().strip())
    finally:
        process.kill()
        process.wait(WAIT)
        process.stdout.close()


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def counters():
    return dict(COUNTERS)


# --- the socket


def test_it_answers_with_the_counters_and_who_it_is(place):
    before = time.time_ns()
    with StatusSocket(True, counters) as served:
        found = read_status(served.path)
    assert {name: found[name] for name in COUNTERS} == COUNTERS
    assert found["pid"] == os.getpid()
    assert found["version"] == jvq.__version__
    assert before <= found["started_ns"] <= found["now_ns"] <= time.time_ns()


def test_the_answer_is_made_when_it_is_asked_for(place):
    count = iter(range(10))
    with StatusSocket(True, lambda: {"records": next(count)}) as served:
        assert [read_status(served.path)["records"] for _ in range(3)] == [0, 1, 2]


def test_only_the_owner_can_reach_it(place):
    before = os.umask(0)
    try:
        with StatusSocket(True, counters) as served:
            assert mode(served.path) == 0o600
            assert mode(served.path.parent) == 0o700
            assert served.path.parent == place / "jvq_fast"
    finally:
        os.umask(before)


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="the system does not tell who is at the other end")
def test_another_user_gets_nothing_even_where_the_file_lets_him(place, monkeypatch):
    with StatusSocket(True, counters) as served:
        monkeypatch.setattr(status, "_peer", lambda sock: os.getuid() + 12345)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(WAIT)
            client.connect(str(served.path))
            assert client.recv(1000) == b""


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="the system does not tell who is at the other end")
def test_who_is_at_the_other_end_is_known(place):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "x"))
        listener.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(place / "x"))
            assert status._peer(client) == os.getuid()


def test_it_is_gone_when_it_is_closed_and_closing_again_does_nothing(place):
    served = StatusSocket(True, counters)
    served.close()
    assert not served.path.exists()
    served.close()
    assert not any(thread.name == "jvq_fast status" for thread in threading.enumerate())
    with pytest.raises(StatusError, match="no feed is running"):
        read_status(served.path)


def test_several_in_one_process_have_names_of_their_own(place):
    with StatusSocket(True, lambda: {"records": 1}) as one, StatusSocket(True, lambda: {"records": 2}) as other:
        assert one.path != other.path
        assert [read_status(path)["records"] for path in status.feeds()] == [1, 2]


def test_a_client_that_does_not_read_holds_up_nobody(place, monkeypatch):
    monkeypatch.setattr(status, "_CLIENT_TIME", 0.2)
    with StatusSocket(True, lambda: {"text": "x" * (4 << 20)}) as served:
        with socket.socket(socket.AF_UNIX) as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.connect(str(served.path))
            with pytest.raises(StatusError, match="does not end its answer"):
                read_status(served.path, timeout=WAIT)


def test_a_reader_that_raises_is_told_without_a_token(place):
    token = "c0ffee00c0ffee00c0ffee00c0ffee00"
    secret = Secret.read(token)

    def broken():
        raise ValueError(f"broken {token}")

    with StatusSocket(True, broken) as served:
        found = read_status(served.path)
    assert found["error"] == "ValueError: broken ***"
    with StatusSocket(True, lambda: {"server": f"ws://h/{token}", "worst": float("inf")}) as served:
        found = read_status(served.path)
    assert (found["server"], found["worst"]) == ("ws://h/***", None)
    assert secret is not None


def test_it_answers_while_a_handler_holds_the_feed_up(place):
    decoder = jvq.Decoder()
    held, release = threading.Event(), threading.Event()

    def hold(code, trades):
        held.set()
        release.wait(WAIT)

    packer = zlib.compressobj(wbits=-15)
    payload = packer.compress(b"lv2_600519=10:00:00.000,1,10.00,100") + packer.flush()
    decoder.on_trades = hold
    feed = threading.Thread(target=decoder.decode, args=(payload,))
    with StatusSocket(True, decoder.stats) as served:
        feed.start()
        try:
            assert held.wait(WAIT)
            assert read_status(served.path)["trades"] == 1
        finally:
            release.set()
            feed.join(WAIT)


def test_a_feed_answers_while_its_handler_holds_it_up_and_no_longer_than_it_runs(place):
    held, release = threading.Event(), threading.Event()
    with ScriptServer(serve(binary(trade(1)))) as server:
        feed = jvq.Feed("0" * 32, "lv2_600519", server=server.ws, clock="always", status=place / "feed.sock")

        @feed.on_trades
        def hold(code, trades):
            held.set()
            release.wait(WAIT)

        with feed:
            try:
                assert held.wait(WAIT)
                found = read_status(place / "feed.sock")
            finally:
                release.set()
    assert (found["trades"], found["subscriptions"], found["connected"], found["pid"]) == (1, 1, 1, os.getpid())
    assert list(place.iterdir()) == []


# --- where it is


def test_a_named_path_is_taken_as_it_is(place):
    path = place / "feed.sock"
    with StatusSocket(path, counters) as served:
        assert served.path == path
        assert mode(path) == 0o600
        assert list(place.iterdir()) == [path]
        assert read_status(path)["records"] == COUNTERS["records"]
    assert list(place.iterdir()) == []


def test_a_path_in_use_is_refused_and_the_one_who_uses_it_left_alone(place):
    path = place / "feed.sock"
    with StatusSocket(path, counters):
        with pytest.raises(StatusError, match="in use by another feed"):
            StatusSocket(path, counters)
        assert read_status(path)["records"] == COUNTERS["records"]


def test_a_file_that_is_no_socket_is_never_removed(place):
    path = place / "notes"
    path.write_text("mine")
    with pytest.raises(StatusError, match="no socket"):
        StatusSocket(path, counters)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("bits", [0o777, 0o770])
def test_a_directory_that_others_write_in_is_refused(place, bits):
    open_to_all = place / "open"
    open_to_all.mkdir()
    open_to_all.chmod(bits)
    with pytest.raises(StatusError, match="other users may write"):
        StatusSocket(open_to_all / "feed.sock", counters)
    open_to_all.chmod(0o1777)
    StatusSocket(open_to_all / "feed.sock", counters).close()


def test_a_directory_that_is_missing_or_a_name_too_long_is_named(place):
    with pytest.raises(StatusError, match=r"none.*No such file"):
        StatusSocket(place / "none" / "feed.sock", counters)
    with pytest.raises(StatusError, match="too long"):
        StatusSocket(place / ("x" * 100), counters)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("what", ["open to others", "link", "file", "foreign"])
def test_a_directory_of_its_own_that_is_not_private_is_refused(place, monkeypatch, what):
    path = place / "jvq_fast"
    said = "no directory"
    if what == "open to others":
        path.mkdir()
        path.chmod(0o755)
        said = "open to other users"
    elif what == "link":
        (place / "elsewhere").mkdir(mode=0o700)
        path.symlink_to(place / "elsewhere")
        said = "symbolic link"
    elif what == "file":
        path.write_text("")
    else:
        path.mkdir(mode=0o700)
        uid = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: uid + 1)
        said = "belongs to another user"
    with pytest.raises(StatusError, match=said):
        StatusSocket(True, counters)
    assert status.feeds() == []


def test_the_first_directory_that_can_be_used_is_taken(monkeypatch):
    with tempfile.TemporaryDirectory(prefix="jvq") as folder:
        home, runtime, temp = (Path(folder) / name for name in ("h", "r", "t"))
        for each in (home, runtime, temp):
            each.mkdir()
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setattr(tempfile, "tempdir", str(temp))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        assert status.directory() == runtime / "jvq_fast"
        candidates = status._candidates()
        assert candidates[-2:] == [home / ".cache" / "jvq_fast", temp / f"jvq_fast-{os.getuid()}"]
        assert candidates[1] == Path(f"/run/user/{os.getuid()}/jvq_fast")
        for number, expected in ((2, home / ".cache" / "jvq_fast"), (3, temp / f"jvq_fast-{os.getuid()}")):
            monkeypatch.setattr(status, "_candidates", lambda number=number: candidates[number:])
            assert status.directory() == expected
            assert mode(expected) == 0o700


def test_without_unix_sockets_there_is_a_clear_error(monkeypatch):
    monkeypatch.delattr(socket, "AF_UNIX")
    for attempt in (lambda: StatusSocket(True, counters), lambda: read_status("x"), status.feeds, status.directory):
        with pytest.raises(StatusError, match="this system has none"):
            attempt()


# --- processes that die or hang


def test_what_a_killed_process_left_is_cleaned_and_its_path_taken_again(place):
    path = place / "feed.sock"
    with child() as (first, left), child(path) as (second, named):
        assert read_status(left)["pid"] == first.pid
        assert read_status(named)["pid"] == second.pid
        for process in (first, second):
            process.kill()
            process.wait(WAIT)
        assert left.exists()
        with pytest.raises(StatusError, match="is gone"):
            read_status(left)
        assert status.feeds() == []
        assert not left.exists()
        assert path.exists()
        with StatusSocket(path, counters):
            assert read_status(path)["pid"] == os.getpid()


def test_a_process_that_ends_without_closing_leaves_nothing(place):
    code = CHILD.replace("time.sleep(60)", "sys.exit(3)")
    done = subprocess.run([sys.executable, "-c", code, "-"], capture_output=True, text=True, timeout=WAIT, check=False)
    assert done.returncode == 3, done.stderr
    assert done.stderr == ""
    assert not Path(done.stdout.strip()).exists()


def test_a_process_that_is_stopped_is_named_as_hanging_and_its_socket_kept(place):
    with child() as (process, path):
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)  # it goes on for a while
        with pytest.raises(StatusError, match=r"did not answer within 0\.3 s.*hangs"):
            read_status(path, timeout=0.3)
        for _ in range(20):  # its queue is full in the end
            assert status.feeds() == [path]
        with pytest.raises(StatusError, match=r"did not answer within 0\.3 s.*hangs"):
            read_status(path, timeout=0.3)
        process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + WAIT
        while True:
            with contextlib.suppress(StatusError):
                assert read_status(path)["pid"] == process.pid
                break
            assert time.monotonic() < deadline


def test_a_child_that_was_forked_neither_answers_nor_removes_the_socket(place):
    code = """
import os, signal, sys, time
from jvq_fast.status import StatusSocket
status = StatusSocket(True, dict)
pid = os.fork()
if pid == 0:
    status.close()
    sys.exit(0)  # as a program ends, exit handlers included
os.waitpid(pid, 0)
grandchild = os.fork()
if grandchild == 0:
    time.sleep(30)
    os._exit(0)
print(status.path, status.path.exists(), grandchild, flush=True)
os._exit(0)
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        path, exists, grandchild = process.stdout.readline().split()
        try:
            process.wait(WAIT)
            assert exists == "True"
            # The one that made it has died without a word; the child lives, and has no part in it.
            with pytest.raises(StatusError, match=r"is gone|hung up"):
                read_status(path)
        finally:
            os.kill(int(grandchild), signal.SIGKILL)


@pytest.mark.parametrize("answer", [b"", b"no json", b"[1]", b"[" * 100000])
def test_what_is_no_feed_is_called_that(place, answer):
    path = place / "other.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve():
            client, _ = listener.accept()
            with client:
                client.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        with pytest.raises(StatusError, match="no feed"):
            read_status(path, timeout=WAIT)
        server.join(WAIT)


def test_a_path_that_may_not_be_opened_says_so(place, monkeypatch):
    if os.getuid() == 0:  # who may open everything
        monkeypatch.setattr(socket.socket, "connect", lambda *_: (_ for _ in ()).throw(PermissionError(13, "denied")))
    locked = place / "locked"
    locked.mkdir(mode=0)
    try:
        with pytest.raises(StatusError, match="its owner's alone"):
            read_status(locked / "feed.sock")
    finally:
        locked.chmod(0o700)


# --- the command


def test_the_command_shows_the_only_feed_by_topic(place, capsys):
    with StatusSocket(True, lambda: {**COUNTERS, "brand_new": 5}) as served:
        assert main(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"feed {os.getpid()}, jvq_fast {jvq.__version__}, up 0:00:0")
    assert lines[1] == f"  {served.path}"
    topics = [line for line in lines[2:] if line and not line.startswith(" ")]
    assert topics == ["connection", "records", "lag", "faults", "other"]
    shown = {line.split()[0]: line.split()[1] for line in lines[2:] if line.startswith("  ")}
    assert shown == {
        "state": "live", "subscriptions": "3", "records": "1,234,567", "lag_network_p50": "0.25", "gaps": "2",
        "brand_new": "5",
    }  # fmt: skip


def test_every_counter_of_a_feed_belongs_to_a_topic(place, capsys):
    feed = jvq.Feed("0" * 32, "lv2_600519", server="ws://127.0.0.1:1")
    with StatusSocket(True, feed.stats):
        assert main(["status"]) == 0
    said = capsys.readouterr().out
    assert "other" not in said
    assert "faults: none" in said
    assert {name for name, value in feed.stats().items() if value} <= set(said.split())


def test_numbers_are_shown_for_people_and_the_object_keeps_them_as_they_are(place, capsys):
    counted = {
        "clock_skew_ms": -12_800_123.456, "lag_network_p99_us": 1812.5, "decode_seconds": 0.000_051,
        "callback_running": "on_trades " + "strategies.long_named_module." * 3 + "judge", "bytes": 12_345_678_901,
        "rate": 1.5e9, "empty": "", "far_seconds": 10**400,
    }  # fmt: skip
    with StatusSocket(True, lambda: counted):
        assert main(["status"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert main(["status", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
    shown = {line.split()[0]: line.split(maxsplit=1)[1:] for line in lines if line.startswith("  ")}
    assert shown["clock_skew_ms"] == ["-3.56 h"]
    assert shown["lag_network_p99_us"] == ["1.81 ms"]
    assert shown["decode_seconds"] == ["51 µs"]
    assert shown["bytes"] == ["12,345,678,901"]
    assert shown["empty"] == ["–"]
    assert shown["far_seconds"] == []
    assert shown["rate"] == ["1,500,000,000"]
    assert lines[lines.index("  callback_running") + 1].strip() == counted["callback_running"]
    assert {name: found[name] for name in counted} == counted


def test_the_page_of_a_feed_fits_a_terminal(place, capsys):
    feed = jvq.Feed("0" * 32, "lv2_600519", server="ws://127.0.0.1:1")
    with StatusSocket(True, lambda: {**feed.stats(), "bytes": 10**15, "lag_network_max_us": 1.28e13}) as served:
        assert main(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > 80 and str(served.path) not in line] == []


def test_the_command_prints_the_object(place, capsys):
    with StatusSocket(True, counters) as served:
        assert main(["status", str(served.path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["path"] == str(served.path)
    assert {name: found[name] for name in COUNTERS} == COUNTERS


def test_the_command_lists_several_and_shows_them_all_when_asked(place, capsys):
    with StatusSocket(True, counters) as one, child() as (process, path):
        assert main(["status"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert {str(one.path), str(path)} == {line.split()[-1] for line in lines[1:3]}
        assert str(process.pid) in lines[2].split()
        assert "1,234,567" in lines[1].split()
        assert main(["status", "--all"]) == 0
        pages = capsys.readouterr().out
        assert pages.count("jvq_fast " + jvq.__version__) == 2
        assert main(["status", "--all", "--json"]) == 0
        assert [json.loads(line)["pid"] for line in capsys.readouterr().out.splitlines()] == [os.getpid(), process.pid]


def test_the_command_says_when_no_feed_is_running(place, capsys):
    assert main(["status"]) == 1
    assert "no feed of this user runs" in capsys.readouterr().err
    assert main(["status", str(place / "none.sock")]) == 1
    said = capsys.readouterr().err
    assert "no such socket" in said
    assert said.count("\n") == 1


def test_the_command_goes_on_where_one_of_several_hangs(place, capsys):
    with StatusSocket(True, counters), child() as (process, path):
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)  # it goes on for a while
        assert main(["status", "--all"]) == 1
        said = capsys.readouterr()
    assert "1,234,567" in said.out
    assert f"{path} did not answer" in said.err


def test_watching_repeats_until_it_is_interrupted(place):
    with StatusSocket(True, counters) as served:
        with Command("status", str(served.path), "--watch", "0.1", "--json") as command:
            for _ in range(3):
                assert json.loads(command.wait_line(lambda line: True))["records"] == COUNTERS["records"]
            command.interrupt()
            assert command.end() == 0
            assert command.errors() == ""


def test_what_is_watched_into_a_file_has_its_time_above_each_block(place):
    with StatusSocket(True, counters) as served:
        with Command("status", str(served.path), "--watch", "0.1") as command:
            for _ in range(3):
                line = command.wait_line(lambda line: re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", line) is not None)
                assert abs(time.mktime(time.strptime(line, "%Y-%m-%d %H:%M:%S")) - time.time()) < 60
                assert command.wait_line(lambda line: True).startswith("feed ")
            command.interrupt()
            assert command.end() == 0


def test_a_file_that_is_no_socket_is_called_that(place, tmp_path, capsys):
    path = tmp_path / "today.jvq"
    path.write_bytes(b"")
    assert main(["status", str(path)]) == 1
    said = capsys.readouterr().err
    assert f"{path} is no socket" in said
    assert "is gone" not in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_watching_ends_by_a_signal_as_by_ctrl_c(place, number):
    with StatusSocket(True, counters) as served:
        with Command("status", str(served.path), "--watch", "60") as command:
            command.wait_line(lambda line: line.startswith("feed "))
            command.interrupt(number)
            assert command.end() == 0
            assert command.errors() == ""


def test_watching_ends_with_the_feed(place):
    with StatusSocket(True, counters) as served:
        with Command("status", str(served.path), "--watch", "0.1", "--json") as command:
            command.wait_line(lambda line: True)
            served.close()
            assert command.end() == 1
            assert "no feed is running" in command.errors()


def test_what_a_feed_says_can_not_act_upon_the_terminal(place, capsys):
    with StatusSocket(True, lambda: {"server": "\x1b[2Jx", "\x1b[1m": 1}):
        assert main(["status"]) == 0
    assert "\x1b" not in capsys.readouterr().out
