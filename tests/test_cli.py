"""The command line as such: tokens, messages, exit statuses, text; no network."""

import argparse
import contextlib
import errno
import io
import math
import re
import socket
import sys

import numpy as np
import pytest

import jvq_fast as jvq
from jvq_fast.cli import complaint, main, screen, text, tokens
from jvq_fast.cli.lag import ArrivalLag, SendLag
from jvq_fast.cli.table import HEADER, Row, Table, cells
from jvq_fast.plural import plural
from jvq_fast.redact import Secret
from jvq_fast.sim.settings import Settings
from simulator import Simulator
from wire import deflate as deflated

CANARY = "c0ffee00c0ffee00c0ffee00c0ffee00"


@pytest.fixture(autouse=True)
def _no_token_around(monkeypatch):
    monkeypatch.delenv(tokens.VARIABLE, raising=False)


def deflate(text):
    return deflated(text.encode())


def options(*arguments):
    parser = argparse.ArgumentParser()
    tokens.add_arguments(parser)
    return parser.parse_args(arguments)


# --- tokens


def test_a_token_comes_from_the_option_before_the_variable(monkeypatch):
    monkeypatch.setenv(tokens.VARIABLE, "fromvariable")
    assert tokens.read(options("--token", "fromoption")) == "fromoption"


def test_a_token_comes_from_the_file_before_the_variable(monkeypatch, tmp_path):
    path = tmp_path / "token"
    path.write_text(f" {CANARY}\n")
    path.chmod(0o600)
    monkeypatch.setenv(tokens.VARIABLE, "fromvariable")
    assert tokens.read(options("--token-file", str(path))) == CANARY


def test_a_token_comes_from_the_variable(monkeypatch):
    monkeypatch.setenv(tokens.VARIABLE, CANARY)
    assert tokens.read(options()) == CANARY


def test_a_token_comes_from_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{CANARY}\n"))
    assert tokens.read(options("--token-file", "-")) == CANARY


def test_option_and_file_exclude_each_other(capsys):
    with pytest.raises(SystemExit) as ended:
        options("--token", "x", "--token-file", "y")
    assert ended.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


def test_a_token_file_that_others_can_read_is_remarked_upon(tmp_path, capsys):
    path = tmp_path / "token"
    path.write_text(CANARY)
    path.chmod(0o644)
    assert tokens.read(options("--token-file", str(path))) == CANARY
    said = capsys.readouterr().err
    assert "chmod 600" in said
    assert CANARY not in said


def test_the_help_says_that_an_option_shows_in_the_list_of_processes(capsys):
    with pytest.raises(SystemExit):
        main(["watch", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "list of processes" in said
    assert tokens.VARIABLE in said


def test_without_a_token_there_is_one_clear_line(capsys):
    assert main(["watch", "lv2_600519"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for way in ("--token-file", tokens.VARIABLE, "jvq-fast demo"):
        assert way in said


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"t\xc3\xb6ken", b"a\x00b"])
def test_a_file_without_a_token_is_refused_and_its_content_not_shown(tmp_path, capsys, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(0o600)
    assert main(["watch", "lv2_600519", "--token-file", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "holds no token" in said
    assert "words" not in said


def test_a_file_that_can_not_be_read_is_named(tmp_path, capsys):
    assert main(["watch", "lv2_600519", "--token-file", str(tmp_path / "none")]) == 2
    assert str(tmp_path / "none") in capsys.readouterr().err


# --- exit statuses and messages


def test_without_a_subcommand_the_usage_is_shown(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "usage: jvq-fast" in capsys.readouterr().err


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == f"jvq-fast {jvq.__version__}"


@pytest.mark.parametrize("command", ["demo", "watch", "sim", "replay", "doctor", "status"])
def test_every_subcommand_has_its_help(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert f"usage: jvq-fast {command}" in said
    assert max(map(text.width, said.splitlines())) <= 80
    assert not re.search(r"\(default:? *(\)|None|\(\)|\[\]|True|False|[\d.]+e)", said)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["watch", "lv3_600519"], "lv3_600519"),
        (["watch", "600519"], "600519"),
        (["watch", "lv2_600519", "--server", "ftp://x"], "ftp://x"),
        (["watch", "lv2_600519", "--allocation", "what ever"], "what ever"),
        (["watch", "lv2_600519", "--trading-day", "today"], "today"),
    ],
)
def test_settings_that_make_no_sense_are_named(monkeypatch, capsys, arguments, named):
    monkeypatch.setenv(tokens.VARIABLE, CANARY)
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("jvq-fast watch: ")
    assert said.count("\n") == 1
    assert named in said
    assert CANARY not in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["watch", CANARY],
        ["watch", "lv2_600519", f"--tokenn={CANARY}"],
        ["watch", "lv2_600519", "--clock", CANARY],
        ["watch", "lv2_600519", "--token-file", CANARY],
        ["watch", "lv2_600519", "--trading-day", CANARY],
        ["replay", CANARY],
        [CANARY],
    ],
)
def test_a_token_in_the_wrong_place_is_not_repeated(monkeypatch, capsys, arguments):
    monkeypatch.setenv(tokens.VARIABLE, "another")
    status: object = None
    with contextlib.suppress(SystemExit):
        status = main(arguments)
    assert status in (None, 1, 2)
    shown = capsys.readouterr()
    assert shown.err
    assert CANARY not in shown.err + shown.out


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--from", "25:00", "such as 09:15"),
        ("--from", "09:3x", "such as 09:15"),
        ("--day", "tomorrow", "such as 2026-11-23"),
        ("--day", "2026-11-22", "the next on which they open is 2026-11-23"),
        ("--day", "2026-10-01", "the next on which they open is 2026-10-08"),
        ("--speed", "fast", "or max"),
        ("--speed", "nan", "from 0 to 1,000,000"),
        ("--port", "70000", "1 to 65535"),
        ("--ws-port", "-1", "1 to 65535"),
        ("--seed", "x", "no whole number"),
        ("--cancels", "2", "from 0 to 1"),
        ("--ping-every", "-1", "from 0 on"),
        ("--time-digits", "12", "from 0 to 9"),
        ("--limit-up", "abc", "no code"),
        ("--replay", "/nowhere.csv", "No such file"),
        ("--fault", "half_opn", "did you mean half_open?"),
        ("--fault", "half_open:aftr=1", "it has after, "),
        ("--fault", "{half_open", "an example: {"),
    ],
)
def test_a_switch_of_the_simulator_that_makes_no_sense_is_one_line_that_says_what_would(capsys, option, value, says):
    try:
        status: object = main(["sim", option, value])
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("jvq-fast sim: ")
    assert option in said or option == "--fault"
    assert value.partition(":")[2].partition("=")[0] in said
    assert says in said


@pytest.mark.parametrize("known", ["two words", "tökèn", f"{CANARY}, {CANARY}"])
def test_a_token_that_no_client_can_have_is_refused_and_not_shown(capsys, known):
    assert main(["sim", "--tokens", known]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--tokens" in said
    assert "none that a client can have" in said
    assert known not in said
    assert CANARY not in said


def test_tokens_that_clients_accept_are_known_to_the_simulator():
    assert Settings(tokens=f"abc,{CANARY}").tokens == f"abc,{CANARY}"


def test_a_closed_day_is_lived_through_with_calendar():
    with Simulator("--day", "2026-11-22", "--calendar") as sim:
        assert sim.trading_day == "2026-11-22"


def test_a_port_that_is_taken_is_named(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["sim", "--port", port]) == 1
    assert f"--port {port} is taken" in capsys.readouterr().err


def test_a_subcommand_without_what_it_needs_says_so_in_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["watch"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "SUBSCRIPTION" in said
    assert "jvq-fast watch --help" in said


@pytest.mark.parametrize("command", [["demo", "--seconds"], ["status", "--watch"]], ids=" ".join)
@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_a_time_that_is_none_is_refused_with_what_would_do(command, seconds, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command, seconds])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert command[1] in said
    assert f"'{seconds}'" in said
    assert "must be a number above 0" in said


def test_an_error_that_is_not_of_the_output_is_not_called_that(monkeypatch):
    def fail(options):
        raise FileNotFoundError(errno.ENOENT, "none", "a file")

    monkeypatch.setattr("jvq_fast.cli.replay.run", fail)
    with pytest.raises(FileNotFoundError):
        main(["replay", "any"])


@pytest.mark.parametrize("how", [["--server", "ws://127.0.0.1:9"], ["--allocation", "http://127.0.0.1:9"]])
def test_a_server_that_is_not_there_is_one_line_without_the_token(monkeypatch, capsys, how):
    monkeypatch.setenv(tokens.VARIABLE, CANARY)
    assert main(["watch", "lv2_600519", *how]) == 1
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "refused; check" in said.err
    assert CANARY not in said.err + said.out


def test_every_error_has_advice_but_the_base():
    errors = [
        jvq.AllocationError("x"),
        jvq.AllocationRefusedError("-1", "no"),
        jvq.ConnectError("x"),
        jvq.HandshakeError("x", 401),
        jvq.ServerError("-1#x"),
        jvq.ConnectionLimitError("-1#x"),
        jvq.CaptureError("x"),
        complaint.SimulatorError("x"),
    ]
    for error in errors:
        assert "; " in complaint.explained(error)


def test_a_message_is_one_line_and_holds_no_token():
    secret = Secret.read(CANARY)
    assert complaint.explained(jvq.JvqError(f"one\ntwo {CANARY}")) == "one two ***"
    assert secret is not None


def test_the_module_runs_as_the_command(run_python):
    done = run_python("-m", "jvq_fast", "--version")
    assert done.stdout.strip() == f"jvq-fast {jvq.__version__}"


# --- text


@pytest.mark.parametrize(
    ("given", "cells_"), [("", 0), ("abc", 3), ("贵州茅台", 8), ("万科A", 5), ("e\u0301", 1), ("Ａ", 2)]
)
def test_width_counts_cells(given, cells_):
    assert text.width(given) == cells_


@pytest.mark.parametrize("cells_", range(1, 14))
def test_what_is_clipped_fits_and_what_fits_is_left_alone(cells_):
    for given in ("贵州茅台", "沪深300ETF", "abcdefgh", "a贵b州c"):
        clipped = text.clip(given, cells_)
        assert text.width(clipped) <= cells_
        assert clipped == given or clipped.endswith("…")
        assert clipped == given or text.width(given) > cells_


def test_a_terminal_is_told_nothing_by_a_name():
    assert text.clip("\x1b[2Jname\x07\n", 20) == "?[2Jname??"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1845.7, "1845.70"),
        (12.5, "12.50"),
        (3.982, "3.982"),
        (3421.5678, "3421.5678"),
        (100.0, "100.00"),
        (0.1, "0.10"),
    ],
)
def test_prices_show_the_decimals_they_have_and_two_at_least(value, shown):
    assert text.price(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(1.234, "+1.23%"), (-0.5, "-0.50%"), (0.001, "0.00%"), (-0.001, "0.00%")])
def test_a_change_has_a_sign_unless_it_is_none(value, shown):
    assert text.percent(value) == shown


@pytest.mark.parametrize(
    ("shares", "shown"),
    [(0, "0"), (132_466_855, "132,466,855"), (9_132_466_855, "9,132.5M"), (51_234_500_000, "51,234.5M")],
)
def test_volumes_are_exact_up_to_a_thousand_million(shares, shown):
    assert text.volume(shares) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-1, "0.0 s"), (0.44, "0.4 s"), (12.4, "12 s"), (150, "2 m"), (7200, "2 h"), (86400 * 9, "9 d")],
)
def test_ages_are_short(seconds, shown):
    assert text.age(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0"),
        (0.0000004, "0.4 µs"),
        (0.0008125, "812 µs"),
        (0.0125, "12.5 ms"),
        (0.9999, "1,000 ms"),
        (3.0, "3 s"),
        (-12_800.0, "-3.56 h"),
        (250.0, "4.17 min"),
        (86400.0 * 500, "500 d"),
    ],
)
def test_lengths_of_time_have_their_unit_and_three_digits(seconds, shown):
    assert text.duration(seconds) == shown


def test_columns_line_up_with_names_of_any_width():
    lines = text.table(
        ("code", "name", "n"), [("600519", "贵州茅台", "1"), ("1", "A", "1,000"), ("2", "", "–")], (0, 1)
    )
    assert {text.width(line) for line in lines} == {6 + 2 + 8 + 2 + 5}
    assert lines[1].index("贵") == lines[2].index("A") == 8


def test_columns_move_together_where_there_is_little_room():
    rows = (("code", "name", "n"), ("600519", "贵州茅台", "1"))
    assert text.width("".join(text.aligned(rows, (0, 1), 19)[1])) == 6 + 2 + 8 + 2 + 1
    assert text.width("".join(text.aligned(rows, (0, 1), 18)[1])) == 6 + 1 + 8 + 1 + 1


def test_a_table_of_large_numbers_fits_a_terminal_of_eighty_columns():
    row = Row("i399001", "沪深300ETF", 11022.581, -10.01, 9_132_466_855, 312.6, 2.6, (12_133.0, 99_178.0))
    assert text.width("".join(text.aligned((HEADER, cells(row)), (0, 1), 80)[1])) <= 80


# --- the table


def quote(code, price, volume=0, change="0.10"):
    book = ",".join(["100,9.99"] * 5 + ["100,10.01"] * 5)
    return f"lv1_{code}=09:30:03,平安银行,{price},{change},1000.0,{volume},{book}"


def test_a_row_takes_the_newest_price_of_any_level():
    decoder = jvq.Decoder(trading_day="2026-11-23")
    decoder.decode(deflate(quote("000001", "10.00", 500)))
    assert Table(decoder).rows(["000001"])[0].last == 10.0
    decoder.decode(deflate("lv2_000001=09:30:04.000,1,10.02,100"))
    row = Table(decoder).rows(["000001"])[0]
    assert (row.last, row.volume, row.change, row.name) == (10.02, 500, 0.10, "平安银行")
    decoder.decode(deflate("lv2_000001=09:30:05.000,2,0,100"))
    assert Table(decoder).rows(["000001"])[0].last == 10.0


def test_what_is_not_known_is_a_dash_and_never_nan():
    decoder = jvq.Decoder(trading_day="2026-11-23")
    decoder.reserve(["lv2_600519"])
    decoder.decode(deflate(quote("000002", "0", 0)))
    rows = Table(decoder).rows(["600519", "000001", "000002"])
    assert cells(rows[0]) == ("600519", "", *("–",) * 7)
    assert cells(rows[1]) == ("000001", "", *("–",) * 7)
    assert cells(rows[2])[2:4] == ("–", "–")
    assert all(len(cells(row)) == len(HEADER) for row in rows)


def test_trades_per_second_are_those_between_two_looks(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("jvq_fast.cli.table.time.monotonic", lambda: clock[0])
    decoder = jvq.Decoder(trading_day="2026-11-23")
    table = Table(decoder)
    decoder.decode(deflate("lv2_600519=" + "|".join(f"09:30:00.000,{i},10.0,100" for i in range(10))))
    assert table.rows(["600519"])[0].rate is None
    clock[0] += 2
    decoder.decode(deflate("lv2_600519=" + "|".join(f"09:30:01.000,{i},10.0,100" for i in range(50, 70))))
    assert table.rows(["600519"])[0].rate == 10.0
    for _ in range(10):
        clock[0] += 1
        rate = table.rows(["600519"])[0].rate
    assert rate == 0.0


def some_rows(count):
    return [Row(f"{i:06}", "贵州茅台", 10.0, (-1) ** i, 100, 1.5, 0.1, (50.0, 99.0)) for i in range(count)]


def test_lines_come_at_the_end_whatever_was_shown_before(capsys):
    with screen.Lines() as lines:
        lines.update(some_rows(2), ["below"])
        assert capsys.readouterr().out == ""
        lines.update(some_rows(2), ["below"], final=True)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split()[:3] == ["code", "name", "last"]
    assert shown[-1] == "below"
    assert len(shown) == 4


def test_a_long_table_is_cut_and_says_so(capsys):
    screen.Lines().update(some_rows(60), [], final=True)
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 42
    assert shown[-1] == "… and 20 more"


def test_without_a_terminal_there_are_lines(capsys):
    assert isinstance(screen.screen(), screen.Lines)


def test_without_rich_there_are_lines(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert isinstance(screen.screen(), screen.Lines)


# --- lag


def test_lags_are_matched_by_message_number_over_several_connections():
    decoder = jvq.Decoder(trading_day="2026-11-23")
    lag = SendLag(decoder)
    decoder.on_trades = lag.note
    times = iter(range(1_000_000, 10_000_000, 10_000))
    stamps = {7: [], 9: []}

    def message(connection, code):
        stamps[connection].append(next(times))
        monkey.setattr("jvq_fast.cli.lag.time.monotonic_ns", lambda: stamps[connection][-1] + 5_000)
        decoder.decode(deflate(f"lv2_{code}=09:30:00.000,1,10.0,100"))

    def answer(connection, since):
        return since, np.array(stamps[connection][since:], np.int64)

    with pytest.MonkeyPatch.context() as monkey:
        lag.connected("ws://one")
        lag.belongs(lag.connections, 7)
        for _ in range(3):
            message(7, "600519")
        lag.work_off(answer)
        message(7, "600519")
        lag.connected("ws://two")
        lag.belongs(lag.connections, 9)
        message(9, "000001")
        lag.work_off(answer)
    assert lag.samples == 5
    assert lag.overall() == lag.recent() == (5.0, 5.0)
    assert lag.by_code() == {"600519": (5.0, 5.0), "000001": (5.0, 5.0)}


def test_a_connection_that_is_not_known_is_left_out():
    decoder = jvq.Decoder(trading_day="2026-11-23")
    lag = SendLag(decoder)
    decoder.on_trades = lag.note
    lag.connected("ws://one")
    decoder.decode(deflate("lv2_600519=09:30:00.000,1,10.0,100"))
    lag.work_off(lambda connection, since: pytest.fail("nothing to ask"))
    assert lag.samples == 0
    assert lag.overall() is None
    assert lag.by_code() == {}


def test_more_callbacks_than_are_noted_lose_the_oldest():
    lag = ArrivalLag()
    record = np.zeros(1, jvq.TRADE)
    for _ in range(70_000):
        lag.note("600519", record)
    lag.work_off()
    assert 65_000 < lag.samples <= 65_536
    overall = lag.overall()
    assert overall is not None
    assert all(map(math.isfinite, overall))


@pytest.mark.parametrize(("number", "shown"), [(0, "0 messages"), (1, "1 message"), (2000, "2,000 messages")])
def test_one_thing_is_no_plural(number, shown):
    assert plural(number, "message") == shown
