"""The examples run on the simulator as their first lines say, and end at Ctrl-C."""

import ast
import io
import json
import os
import re
import runpy
import signal
import tokenize

import pytest

from commands import Command
from simulator import TOKEN, Simulator

pytestmark = pytest.mark.release_only

EXAMPLES = ("moving_average", "reader_thread")
PRINTS = {
    "moving_average": r"(600519|000001) (long|flat) at \d+\.\d\d",
    "reader_thread": r"600519 +\d+ trades, +[\d,]+ shares at \d+\.\d+ on average",
}


@pytest.fixture(scope="module")
def sim():
    with Simulator("--seed", "5") as running:
        yield running


def ready_line(sim):
    return json.dumps({"http": sim.http, "ws": sim.ws, "trade": sim.trade, "trading_day": sim.trading_day})


@pytest.mark.parametrize("environment", [{}, {"JVQ_FAST_TOKEN": "f" * 32}], ids=["no_token", "token"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_on_the_simulators_ready_line_with_and_without_a_token(root, sim, name, environment):
    """A pipe comes before the token: who writes the pipe means the simulator."""
    to_read, to_write = os.pipe()
    with open(to_read) as stdin, open(to_write, "w") as pipe:  # noqa: PTH123
        pipe.write(ready_line(sim) + "\n")
        pipe.flush()
        with Command(
            str(root / "examples" / f"{name}.py"), module=False, stdin=stdin.fileno(), **environment
        ) as command:
            for _ in range(2):
                command.wait_line(lambda text: re.match(PRINTS[name], text) is not None)
            command.interrupt(signal.SIGINT)
            assert command.end() == 0
            assert command.errors() == ""


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_with_a_token_as_on_the_vendors_feed(root, sim, name):
    with Command(
        str(root / "examples" / f"{name}.py"),
        module=False,
        JVQ_FAST_TOKEN=TOKEN,
        http_proxy=sim.http,
        no_proxy="127.0.0.1",
    ) as command:
        command.wait_line(lambda text: re.match(PRINTS[name], text) is not None)
        command.interrupt(signal.SIGINT)
        assert command.end() == 0
        assert command.errors() == ""


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("simulated", [True, False])
def test_an_example_takes_the_clock_of_its_market(root, monkeypatch, name, simulated):
    class MadeError(Exception):
        pass

    def made(*_, **settings):
        raise MadeError(settings["clock"])

    ready = '{"http": "http://127.0.0.1:9", "trading_day": "2026-11-23"}'
    monkeypatch.setattr("jvq_fast.Feed", made)
    monkeypatch.setattr("pathlib.Path.is_fifo", lambda path: simulated)
    monkeypatch.setattr("sys.stdin", io.StringIO(ready))
    monkeypatch.setenv("JVQ_FAST_TOKEN", TOKEN)
    with pytest.raises(MadeError, match="always" if simulated else "exchange"):
        runpy.run_path(str(root / "examples" / f"{name}.py"))


def test_the_strategy_has_twenty_lines(root):
    source = (root / "examples" / "moving_average.py").read_text(encoding="utf-8")
    docstring = ast.parse(source).body[0]
    lines = {
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
        and token.type != tokenize.ENDMARKER
        and token.start[0] > (docstring.end_lineno or 0)
    }
    assert len(lines) <= 20


def test_the_strategy_that_orders_gets_its_fills_back(root, sim):
    to_read, to_write = os.pipe()
    with open(to_read) as stdin, open(to_write, "w") as pipe:  # noqa: PTH123
        pipe.write(ready_line(sim) + "\n")
        pipe.flush()
        path = str(root / "examples" / "reversion.py")
        with Command(path, module=False, stdin=stdin.fileno()) as command:
            command.wait_line(lambda text: re.fullmatch(r"buy 10 at \d+\.\d+: 10 held", text) is not None)
            command.wait_line(lambda text: re.fullmatch(r"sell 10 at \d+\.\d+: 0 held", text) is not None)
            command.interrupt(signal.SIGINT)
            assert command.end() == 0
            assert command.errors() == ""


def test_all_examples_are_run(root):
    stems = {path.stem for path in (root / "examples").glob("*.py")}
    assert stems == {"__init__", "reversion", *EXAMPLES}
