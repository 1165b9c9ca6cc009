"""The demo: simulator, feed and table in one command, and a sum that comes out even."""

import json
import os
import signal
import time
import urllib.request

import pytest

from commands import Command, running, wait_gone
from jvq_fast.cli import main
from jvq_fast.cli import simulator as simulators

KEYS = {"sent", "received", "lost", "duplicates", "bad", "lag_us_p50", "lag_us_p99"}
FEW = ("lv2_600519", "lv1_600519", "lv10_000001", "lv2_000001")
_seeds = iter(range(1_000_000 + os.getpid() * 100, 10**9))


@pytest.fixture
def seed():
    """A seed of this test's own, by which its simulator is found among all processes; in the end it must be gone."""
    word = str(next(_seeds))
    yield word
    wait_gone(word)


def result(command):
    return json.loads(command.lines[-1])


def simulator_of(command):
    return command.wait_line(lambda line: "simulator at" in line).split()[2].rstrip(",")


def post(url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, method="POST", data=b""), timeout=20) as reply:
        return reply.read()


def test_every_record_of_the_default_market_arrives_and_is_counted(seed):
    with Command("demo", "--seconds", "3", "--json", "--seed", seed) as command:
        assert command.end() == 0, command.errors()
        assert command.errors() == ""
        found = result(command)
    assert found.keys() >= KEYS
    assert found["sent"] == found["received"] + found["duplicates"] + found["lost"] + found["bad"]
    assert found["lost"] == found["bad"] == 0
    assert found["received"] == found["trades"] + found["quotes"] + found["depths"] > 1000
    assert min(found["trades"], found["quotes"], found["depths"]) > 0
    assert 0 < found["lag_us_p50"] <= found["lag_us_p99"]
    assert found["lag_samples"] > 100
    shown = "\n".join(command.lines)
    for word in ("贵州茅台", "trades/s", "p99", "sent", "received", "lost", "duplicate", "bad", "reconnects"):
        assert word in shown
    assert "nan" not in shown.lower()


def test_a_server_that_moves_in_the_middle_changes_nothing_in_the_sum(seed):
    with Command("demo", *FEW, "--json", "--seed", seed) as command:
        address = simulator_of(command)
        command.wait_line(lambda line: line.startswith("600519"))
        post(address + "/move")
        command.wait_line(lambda line: "reconnects 1" in line)
        command.interrupt()
        assert command.end() == 0, command.errors()
        found = result(command)
    assert found["reconnects"] == 1
    assert found["sent"] == found["received"] + found["duplicates"]
    assert found["lost"] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_ends_it_early_with_the_whole_account(seed, number):
    with Command("demo", *FEW, "--json", "--seed", seed) as command:
        command.wait_line(lambda line: line.startswith("600519"))
        command.interrupt(number)
        assert command.end() == 0
        assert command.errors() == ""
        found = result(command)
    assert found["sent"] == found["received"] > 0


def test_a_second_ctrl_c_ends_it_at_once(seed):
    with Command("demo", *FEW, "--seed", seed) as command:
        command.wait_line(lambda line: line.startswith("600519"))
        command.interrupt()
        time.sleep(0.2)
        command.interrupt()
        assert command.end() in (0, 130)
        assert command.errors() == ""


def test_killed_outright_it_leaves_no_simulator_behind(seed):
    with Command("demo", *FEW, "--seed", seed) as command:
        simulator_of(command)
        assert len(running(seed)) == 2
        command.process.kill()
        command.process.wait(10)
        wait_gone(seed)


def test_a_reader_that_goes_away_ends_it_without_a_traceback(seed):
    read, write = os.pipe()
    with Command("demo", *FEW, "--seed", seed, stdout=write) as command:
        os.close(write)
        os.read(read, 1)
        os.close(read)
        assert command.process.wait(40) == 1
        assert command.errors() == ""


def test_a_simulator_that_dies_is_one_line_and_status_1(seed):
    with Command("demo", *FEW, "--seed", seed) as command:
        command.wait_line(lambda line: line.startswith("600519"))
        for process in running(seed):
            if process != command.process.pid:
                os.kill(process, signal.SIGKILL)
        assert command.end() == 1
        said = command.errors()
    assert "simulator" in said
    assert said.count("\n") == 1


def test_a_proxy_in_the_environment_is_not_asked(seed):
    nowhere = "http://127.0.0.1:9"
    proxies = {"http_proxy": nowhere, "HTTP_PROXY": nowhere, "all_proxy": nowhere, "no_proxy": "", "NO_PROXY": ""}
    with Command("demo", *FEW, "--seconds", "0.5", "--seed", seed, **proxies) as command:
        assert command.end() == 0, command.errors()


def test_what_it_captures_is_replayed_to_the_last_record(seed, tmp_path):
    path = str(tmp_path / "demo.jvq")
    with Command("demo", *FEW, "--seconds", "1", "--json", "--seed", seed, "--capture", path) as command:
        assert command.end() == 0, command.errors()
        found = result(command)
    with Command("replay", path, "--trading-day", found["trading_day"], "--json") as command:
        assert command.end() == 0, command.errors()
        again = result(command)
    assert [again[name] for name in ("records", "trades", "quotes", "depths", "messages")] == [
        found[name] for name in ("received", "trades", "quotes", "depths", "messages")
    ]


def test_a_wrong_subscription_is_named_and_ends_the_simulator(seed):
    with Command("demo", "lv7_600519", "--seed", seed) as command:
        assert command.end() == 2
        assert "lv7_600519" in command.errors()
        assert command.errors().count("\n") == 1


@pytest.mark.parametrize("more", [3, -3])
def test_a_sum_that_is_not_even_is_status_1(monkeypatch, capsys, more):
    honest = simulators.Simulator.sent

    def sent(self):
        true = honest(self)
        return simulators.Sent(true.records + more, true.messages, true.connection, true.idle)

    monkeypatch.setattr(simulators.Simulator, "sent", sent)
    monkeypatch.setattr("jvq_fast.cli.demo._DRAIN_LIMIT", 0.5)
    assert main(["demo", *FEW, "--seconds", "0.5", "--json"]) == 1
    shown = capsys.readouterr().out.splitlines()
    found = json.loads(shown[-1])
    assert found["lost"] == more
    assert found["sent"] == found["received"] + found["duplicates"] + found["lost"] + found["bad"]
    assert "NOT even" in shown[-2]


def test_a_simulator_that_does_not_come_to_rest_is_status_1(monkeypatch, capsys):
    honest = simulators.Simulator.sent
    monkeypatch.setattr("jvq_fast.cli.demo._STILL_LIMIT", 0.5)

    def sent(self):
        true = honest(self)
        return simulators.Sent(true.records, true.messages, true.connection, False)

    monkeypatch.setattr(simulators.Simulator, "sent", sent)
    assert main(["demo", *FEW, "--seconds", "0.5"]) == 1
    assert "did not come to rest" in capsys.readouterr().out


def test_a_simulator_that_can_not_start_says_why():
    with pytest.raises(simulators.SimulatorError, match="speed"):
        with simulators.Simulator(["--speed", "-1"]):
            pass


def test_with_a_terminal_the_table_is_live_and_fits(seed):
    pytest.importorskip("rich")
    pty = pytest.importorskip("pty")
    import fcntl
    import struct
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 84, 0, 0))
    with Command("demo", "--seconds", "2", "--seed", seed, stdout=follower, TERM="xterm-256color") as command:
        os.close(follower)
        shown = b""
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline:
            try:
                piece = os.read(leader, 65536)
            except OSError:
                break
            if not piece:
                break
            shown += piece
        os.close(leader)
        assert command.process.wait(20) == 0, command.errors()
    screen = shown.decode()
    assert "\x1b[" in screen
    assert "贵州茅台" in screen
    assert "… and " in screen
    assert "All " in screen


@pytest.mark.parametrize(
    "arguments", [["demo", "--seconds", "1"], ["doctor", "--sim", "--seconds", "0.3"]], ids=lambda words: words[0]
)
def test_a_reader_that_has_gone_ends_a_command_without_a_word_about_it(arguments):
    to_read, to_write = os.pipe()
    os.close(to_read)
    with open(to_write, "wb") as pipe:  # noqa: PTH123
        with Command(*arguments, stdout=pipe.fileno()) as command:
            assert command.end() == 1
            assert not [line for line in command.errors().splitlines() if not line.endswith(" …")]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "arguments",
    [["demo", "--seconds", "1"], ["doctor", "--sim", "--seconds", "0.3"], ["sim"]],
    ids=lambda words: words[0],
)
def test_an_output_that_can_not_be_written_is_one_line(arguments, unbuffered):
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        with Command(*arguments, stdout=full.fileno(), PYTHONUNBUFFERED=unbuffered) as command:
            assert command.end() == 1
            said = [line for line in command.errors().splitlines() if not line.endswith(" …")]
    assert said == [f"jvq-fast {arguments[0]}: can't write the output: No space left on device"]


def test_what_is_meant_for_a_closed_standard_error_goes_nowhere(run_python):
    program = "import os, sys; os.close(2); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    done = run_python("-c", program, "-m", "jvq_fast", "doctor", "--sim", "--json", "--seconds", "0.3", check=False)
    assert json.loads(done.stdout)["report"]


def test_standard_output_may_be_closed(run_python):
    program = "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    done = run_python("-c", program, "-m", "jvq_fast", "demo", "--seconds", "0.5")
    assert done.stderr == ""
