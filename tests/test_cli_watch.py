"""`watch` on a simulator of its own, `sim` as a subcommand, and `replay` of what was recorded."""

import json
import os
import pty
import re
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

import jvq_fast as jvq
from commands import Command
from jvq_fast.cli import main
from simulator import TOKEN, Simulator

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
NAMES = ("lv2_600519", "lv1_600519", "lv10_000001")


@pytest.fixture(scope="module")
def sim():
    with Simulator("--seed", "11") as running:
        yield running


def watching(sim, *arguments, token=TOKEN, **environment):
    return Command(
        "watch", *NAMES, "--allocation", sim.http, "--trading-day", sim.trading_day, "--clock", "always", *arguments,
        JVQ_FAST_TOKEN=token, **environment,
    )  # fmt: skip


def test_it_shows_prices_names_and_lags(sim):
    with watching(sim, "--seconds", "3", "--json") as command:
        assert command.end() == 0, command.errors()
        assert command.errors() == ""
    shown = "\n".join(command.lines[:-1])
    for word in ("600519", "贵州茅台", "平安银行", "from arrival to callback", "connected to ws://127.0.0.1"):
        assert word in shown
    assert "nan" not in shown.lower()
    assert TOKEN not in "\n".join(command.lines)
    stats = json.loads(command.lines[-1])
    assert stats["records"] == stats["trades"] + stats["quotes"] + stats["depths"] > 100
    assert stats["bad"] == stats["stale"] == 0


def test_a_server_can_be_named_instead(sim):
    with Command("watch", "lv2_600519", "--server", sim.ws, "--token", TOKEN, "--seconds", "1.5") as command:
        assert command.end() == 0, command.errors()
        assert "list of processes" in command.errors()
    assert any(line.startswith("600519") for line in command.lines)


@pytest.mark.parametrize("number", SIGNALS)
def test_ctrl_c_ends_it_without_a_word_on_stderr(sim, number):
    with watching(sim) as command:
        command.wait_line(lambda line: line.startswith("600519"))
        command.interrupt(number)
        assert command.end() == 0
        assert command.errors() == ""


def test_a_terminal_that_closes_ends_it_in_good_order(sim, tmp_path):
    """Standard output is gone then, and the signal comes twice: from the shell too."""
    path = tmp_path / "watched.jvq"
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "jvq_fast", "watch", *NAMES, "--server", sim.ws, "--clock", "always", "--capture",
         str(path), "--status"],
        stdin=its, stdout=its, stderr=its, start_new_session=True,
        env={**os.environ, "JVQ_FAST_TOKEN": TOKEN, "XDG_RUNTIME_DIR": str(tmp_path)},
    )  # fmt: skip
    os.close(its)
    try:
        shown = b""
        deadline = time.monotonic() + 40
        while b"connected to" not in shown:
            assert time.monotonic() < deadline
            shown += os.read(ours, 65536)
        assert list(tmp_path.glob("jvq_fast/*.sock"))
        os.close(ours)
        for _ in range(2):
            process.send_signal(signal.SIGHUP)
        assert process.wait(20) in (0, 1)
    finally:
        process.kill()
        process.wait()
    assert not list(tmp_path.glob("jvq_fast/*"))
    assert main(["replay", str(path)]) == 0  # the last message is whole


def test_what_nohup_started_outlives_its_terminal(sim):
    ignored = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    with Command(
        "-c", ignored, "-m", "jvq_fast", "watch", *NAMES, "--server", sim.ws, "--seconds", "2.5", module=False,
        JVQ_FAST_TOKEN=TOKEN,
    ) as command:  # fmt: skip
        command.wait_line(lambda line: line.startswith("600519"))
        command.interrupt(signal.SIGHUP)
        command.wait_line(lambda line: line.startswith("600519"))
        assert command.end() == 0, command.errors()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_display_that_can_not_be_written_ends_it_in_good_order(sim, tmp_path, unbuffered):
    path = tmp_path / "watched.jvq"
    with open("/dev/full", "w") as full:  # noqa: PTH123
        with Command(
            "watch", *NAMES, "--server", sim.ws, "--clock", "always", "--capture", str(path),
            stdout=full.fileno(), PYTHONUNBUFFERED=unbuffered, JVQ_FAST_TOKEN=TOKEN,
        ) as command:  # fmt: skip
            assert command.end() == 1
            assert command.errors() == "jvq-fast watch: can't write the output: No space left on device\n"
        assert main(["replay", str(path)]) == 0  # the last message is whole
        with Command("replay", str(path), stdout=full.fileno(), PYTHONUNBUFFERED=unbuffered) as command:
            assert command.end() == 1
            assert command.errors() == "jvq-fast replay: can't write the output: No space left on device\n"


def test_ctrl_c_ends_an_attempt_to_connect(sim):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        server = f"ws://127.0.0.1:{mute.getsockname()[1]}"
        with Command("watch", "lv2_600519", "--server", server, JVQ_FAST_TOKEN=TOKEN) as command:
            command.wait_line(lambda line: line == "connecting")
            command.interrupt()
            assert command.end() == 0
            assert command.errors() == ""


@pytest.mark.parametrize("route", ["--allocation", "--server"])
def test_a_refusal_is_one_line_and_status_1(sim, route):
    address = sim.http if route == "--allocation" else sim.ws
    with Command("watch", "lv2_600519", route, address, JVQ_FAST_TOKEN="notatoken") as command:
        assert command.end() == 1
        said = command.errors()
    assert said.count("\n") == 1
    assert "token无效" in said
    assert "check the token" in said
    assert "notatoken" not in said + "\n".join(command.lines)


def test_a_gap_is_shown(sim):
    with watching(sim) as command:
        command.wait_line(lambda line: line.startswith("600519"))
        sim.move()
        told = time.strftime("%H:%M:%S")
        line = command.wait_line(lambda line: "gap of " in line)
        at = re.fullmatch(r"(\d\d:\d\d:\d\d) gap of \d+\.\d s: .+", line)
        assert at, line
        assert told <= at[1] <= time.strftime("%H:%M:%S") or told > "23:50"
        command.interrupt()
        assert command.end() == 0


def test_what_it_captures_is_replayed(sim, tmp_path):
    path = tmp_path / "watched.jvq"
    with watching(sim, "--seconds", "1.5", "--json", "--capture", str(path)) as command:
        assert command.end() == 0, command.errors()
        live = json.loads(command.lines[-1])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Command("replay", str(path), "--trading-day", sim.trading_day, "--clock", "always", "--json") as command:
        assert command.end() == 0, command.errors()
        again = json.loads(command.lines[-1])
    for name in ("records", "trades", "quotes", "depths", "messages", "bytes", "repeats", "bad"):
        assert again[name] == live[name]
    shown = "\n".join(command.lines)
    assert "贵州茅台" in shown
    assert f"{sim.trading_day} 09:3" in shown


def test_a_capture_that_is_cut_off_is_read_up_to_there_and_status_1(sim, tmp_path, capsys):
    path = tmp_path / "whole.jvq"
    with watching(sim, "--seconds", "1", "--capture", str(path)) as command:
        assert command.end() == 0, command.errors()
    whole = path.read_bytes()
    (tmp_path / "cut.jvq").write_bytes(whole[: len(whole) - 3])
    assert main(["replay", str(tmp_path / "cut.jvq"), "--json"]) == 1
    shown = capsys.readouterr()
    assert "at byte" in shown.err
    assert shown.err.count("\n") == 1
    found = json.loads(shown.out.splitlines()[-1])
    decoder = jvq.Decoder()
    with pytest.warns(jvq.CaptureWarning):
        assert jvq.replay(tmp_path / "cut.jvq", decoder) == found["records"] > 0
    assert len(found["damage"]) == 1


@pytest.mark.parametrize("content", [b"", b"no capture at all, but long enough to have a header"])
def test_what_is_no_capture_is_refused(tmp_path, capsys, content):
    path = tmp_path / "text"
    path.write_bytes(content)
    assert main(["replay", str(path)]) == 1
    said = capsys.readouterr().err
    assert "not a capture file" in said
    assert said.count("\n") == 1


def test_a_capture_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["replay", str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err


def test_ctrl_c_ends_a_replay_without_a_traceback(monkeypatch, capsys):
    def interrupted(path, decoder):
        raise KeyboardInterrupt

    monkeypatch.setattr("jvq_fast.cli.replay.replay", interrupted)
    assert main(["replay", "any"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("number", SIGNALS)
def test_the_simulator_runs_as_a_subcommand_until_a_signal(number):
    with Command("sim", "--json") as command:
        ready = json.loads(command.wait_line(lambda line: line.startswith("{")))
        assert ready.keys() >= {"http", "ws", "trading_day"}
        command.interrupt(number)
        assert command.end() == 0
        assert command.errors() == ""
