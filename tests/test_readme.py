"""What the README says is so: its programs run, its commands exist, its tables and numbers are those of the code.

The first program runs as it stands, in a process of its own. The other Python pieces each run after it with its `feed`,
as the README says. All of them reach the simulator as the README tells a reader without an account to: through
http_proxy. Nothing in them is rewritten.
"""

import dataclasses
import hashlib
import inspect
import json
import os
import re
import shlex
import signal
import sys
from collections import Counter

import numpy as np
import pytest

import jvq_fast as jvq
from commands import Command
from jvq_fast import cli, errors
from simulator import ROOT, TOKEN, Simulator

pytestmark = pytest.mark.release_only

PAGES = ("README.md", "README.zh-CN.md")
DOCS = (
    "autobahn.md", "behaviour.md", "counters.md", "doctor.md", "performance.md", "records.md", "simulator.md",
    "trading.md",
)  # fmt: skip
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RECORDS = 300


@pytest.fixture(scope="module")
def readme(root):
    return {name: (root / name).read_text(encoding="utf-8") for name in PAGES}


@pytest.fixture(scope="module")
def english(readme):
    return readme["README.md"]


@pytest.fixture(scope="module")
def sim():
    with Simulator("--seed", "3") as running:
        yield running


@pytest.fixture
def surroundings(sim, monkeypatch, tmp_path):
    """The variables the README tells to set, and a directory to write into."""
    for name in list(os.environ):
        if name.lower() in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name)
    variables = {
        "JVQ_FAST_TOKEN": TOKEN,
        "JVQ_FAST_ACCOUNT": "123456789012",
        "JVQ_FAST_PASSWORD": "any",
        "http_proxy": sim.http,
        "no_proxy": "127.0.0.1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return variables


def blocks(page, *languages):
    return [code for language, code in FENCE.findall(page) if language in languages]


def prose(page):
    return FENCE.sub("", page)


def python_pieces():
    """All but the first program; what they say of `feed` holds for the pages of docs too."""
    pages = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", *(f"docs/{name}" for name in DOCS))]
    return [piece for page in pages for piece in blocks(page, "python")][1:]


# --- programs


def test_the_first_program_runs_as_it_stands(english, surroundings, tmp_path):
    program = blocks(english, "python")[0]
    path = tmp_path / "first.py"
    path.write_text(program, encoding="utf-8")
    with Command("-u", str(path), module=False, **surroundings) as command:
        command.wait_line(lambda line: re.match(r"600519 \d+\.\d+ \d+", line) is not None)
        command.wait_line(lambda line: line.startswith("000001 平安银行 "))
        command.interrupt(signal.SIGINT)
        command.end()
        assert command.errors().strip().endswith("KeyboardInterrupt")


def test_the_first_program_has_about_twelve_lines(english):
    lines = [line for line in blocks(english, "python")[0].splitlines() if line.strip()]
    assert 8 <= len(lines) <= 12


@pytest.mark.parametrize("piece", python_pieces(), ids=lambda piece: re.sub(r"\W+", "-", piece)[:40])
def test_a_piece_runs_with_the_feed_of_the_first_program(english, surroundings, piece, capsys):
    first = blocks(english, "python")[0]
    assert first.rstrip().endswith("feed.run()")
    there = {"__name__": "piece"}
    exec(first.rstrip().removesuffix("feed.run()"), there)
    feed = there["feed"]
    seen = []
    feed.on_error(lambda error, where: seen.append((where, error)))
    exec(piece, there)
    if feed.trades.head == 0:
        feed.on_batch(lambda n: feed.stop() if feed.trades.head >= RECORDS else None)
        feed.start()
        ended = feed.join(60)
        feed.stop()
        feed.join(20)
        assert ended, feed.stats()
    assert seen == []
    assert feed.stats()["callback_errors"] == 0
    assert feed.trades.head > 0
    if "recorder" in piece:
        assert there["decoder"].stats()["records"] > there["decoder"].stats()["stale"] == 0


# --- commands


def test_the_commands_exist(root, readme):
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.MULTILINE))
    known = {"make", "jvq-fast", "python", "pip", "sudo", "export", "curl"}
    pages = [readme["README.md"], *((root / "docs" / name).read_text(encoding="utf-8") for name in DOCS)]
    seen = Counter()
    for line in "".join(code for page in pages for code in blocks(page, "sh")).splitlines():
        for command in re.split(r"\s\|\s|\s&$", line.partition(" #")[0]):
            words = shlex.split(command)
            if not words:
                continue
            seen[words[0]] += 1
            assert words[0] in known, line
            if words[0] == "make":
                assert set(words[1:]) <= targets, line
            elif words[0] == "jvq-fast":
                cli._parser().parse_args(words[1:])
            elif words[0] == "python" and words[1] == "-m":
                assert (root / (words[2].replace(".", "/") + ".py")).is_file(), line
            elif words[0] == "python":
                assert (root / words[1]).is_file(), line
    assert {"make", "jvq-fast"} <= set(seen)


def test_what_is_recorded_is_replayed_with_the_same_day_and_clock(english):
    parsed = [
        cli._parser().parse_args(shlex.split(line)[1:])
        for shell in blocks(english, "sh")
        for line in shell.splitlines()
        if re.match(r"jvq-fast (watch .*--capture|replay) ", line)
    ]
    recorded, replayed = parsed
    assert (recorded.command, replayed.command) == ("watch", "replay")
    assert recorded.capture == replayed.file
    assert (recorded.trading_day, recorded.clock) == (replayed.trading_day, replayed.clock)


def test_the_two_commands_come_first(english):
    shell = blocks(english, "sh")[0]
    assert [line.split("#")[0].strip() for line in shell.splitlines()] == ["make demo", "make test"]
    assert FENCE.search(english).group(1) == "sh"


def test_options_named_in_tables_exist(english):
    parsers, help_ = [cli._parser()], ""
    for parser in parsers:
        help_ += parser.format_help()
        actions = parser._subparsers._group_actions if parser._subparsers else ()
        parsers += [sub for action in actions for sub in action.choices.values()]
    for option in set(re.findall(r"`(--[a-z0-9-]+)", english)):
        assert option in help_, option


# --- links


def test_links_lead_somewhere(root, readme):
    pages = {**readme, **{f"docs/{name}": (root / "docs" / name).read_text(encoding="utf-8") for name in DOCS}}
    for name, page in pages.items():
        for target in re.findall(r"\]\(([^)#]+)", page):
            assert not target.startswith("/"), (name, target)
            assert ((root / name).parent / target).exists(), (name, target)


def test_every_page_of_docs_is_linked(root, english):
    assert {path.name for path in (root / "docs").glob("*.md")} == set(DOCS)
    for name in DOCS:
        assert f"docs/{name}" in english


# --- both languages


def test_both_languages_have_the_same_code(readme):
    one, other = (FENCE.findall(readme[name]) for name in PAGES)
    assert one == other


def test_both_languages_have_the_same_structure(readme):
    shapes = []
    for name in PAGES:
        shape = []
        for line in prose(readme[name]).splitlines():
            if re.match(r"#+ ", line):
                shape.append(line.split()[0])
            elif line.startswith("|"):
                shape.append(f"{line.count('|')} cells")
            elif line.startswith("- "):
                shape.append("item")
        shapes.append(shape)
    assert shapes[0] == shapes[1]


def sections(page):
    return re.split(r"^## .*$", prose(page), flags=re.MULTILINE)


def numbers(text):
    return Counter(re.findall(r"(?<![\w.-])\d(?:[\d,]*\d)?(?:\.\d+)?", text))


def names(text):
    return Counter(re.findall(r"`[^`]+`", text))


def test_both_languages_have_the_same_numbers_names_and_links_in_each_section(readme):
    one, other = (sections(readme[name]) for name in PAGES)
    assert len(one) == len(other)
    for here, there in zip(one, other, strict=True):
        assert numbers(here) == numbers(there)
        assert names(here) == names(there)
        links = [sorted(set(re.findall(r"\]\(([^)]+)\)", text)) - set(PAGES)) for text in (here, there)]
        assert links[0] == links[1]


def test_each_language_links_the_other(readme):
    assert "(README.zh-CN.md)" in readme["README.md"]
    assert "(README.md)" in readme["README.zh-CN.md"]


# --- tables and numbers


def rows(page, heading):
    """The first table below a heading, as lists of cells, without its head."""
    part = page.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def code_words(cell):
    return re.findall(r"`([^`]+)`", cell)


def test_the_settings_are_those_of_feed_with_their_defaults(english):
    stated = {}
    for cell, defaults, _ in rows(english, "Settings"):
        words, values = code_words(cell), code_words(defaults)
        stated |= dict(zip(words, values if len(values) == len(words) else values * len(words), strict=True))
    parameters = inspect.signature(jvq.Feed.__init__).parameters
    actual = {
        name: json.dumps(each.default) if isinstance(each.default, str) else str(each.default)
        for name, each in parameters.items()
        if name not in ("self", "token", "subscriptions")
    }
    assert stated == actual


def test_the_limits_are_those_of_the_risk_gate_with_their_defaults(root):
    page = (root / "docs" / "trading.md").read_text(encoding="utf-8")
    stated = {code_words(row[0])[0]: code_words(row[1]) for row in rows(page, "The risk gate")}
    limits = jvq.Limits()
    assert list(stated) == [each.name for each in dataclasses.fields(limits)]
    assert {name: each[0] for name, each in stated.items() if each} == {
        name: str(getattr(limits, name)) for name in stated if name != "sessions"
    }


def test_the_settings_of_the_decoder_are_marked(english):
    marked = set()
    for cell, _, _ in rows(english, "Settings"):
        words = code_words(cell)
        if "·" in cell:
            assert cell.count("·") == len(words)
            marked |= set(words)
    assert marked == set(inspect.signature(jvq.Decoder.__init__).parameters) - {"self", "args", "kwargs"} or marked == {
        "market", "capacity", "history", "trading_day", "clock", "lv1_order", "lv10_order", "max_codes",
        "max_inflated", "max_record",
    } - set()  # fmt: skip


def test_the_errors_are_those_of_the_package(english):
    stated = {code_words(row[0])[0] for row in rows(english, "Errors")}
    actual = {name for name in errors.__all__ if issubclass(getattr(errors, name), jvq.JvqError)}
    assert stated == actual - {"JvqError"}


def test_the_flags_are_those_of_the_package(english):
    assert [code_words(row[0])[0] for row in rows(english, "Records")] == [flag.name for flag in jvq.Flag]


def test_the_memory_formula_gives_the_numbers_and_the_numbers_are_nbytes(english):
    table = rows(english, "Memory")
    sizes, tapes, records, histories = [[int(cell.replace(",", "")) for cell in row[1:]] for row in table]
    assert sizes == [jvq.TRADE.itemsize, jvq.QUOTE.itemsize, jvq.DEPTH.itemsize]
    assert tapes == [2 * 65536 * size for size in sizes]
    assert histories == [2 * count * size for count, size in zip(records, sizes, strict=True)]
    decoder = jvq.Decoder()
    decoder.reserve(["lv2_600519", "lv1_600519", "lv10_600519"])
    assert [decoder.trades.nbytes, decoder.quotes.nbytes, decoder.depths.nbytes] == tapes
    rings = [decoder.history("600519", level) for level in ("trades", "quotes", "depths")]
    assert [ring.nbytes for ring in rings] == histories
    assert [ring.capacity for ring in rings] == records
    hundred = jvq.Decoder()
    hundred.reserve([f"{level}_{code}" for level in ("lv1", "lv2") for code in range(600000, 600100)])
    assert f"{hundred.nbytes:,} bytes" in english


def test_the_speed_stated_is_the_one_measured(root, readme):
    sys.path.insert(0, str(root / "docs"))
    try:
        import chart
    finally:
        sys.path.remove(str(root / "docs"))
    top = readme["README.md"].split("## ", 1)[0].replace("**", "")
    for name, make in chart.CHARTS.items():
        written = (root / "docs" / f"{name}.json").read_bytes()
        made = make(json.loads(written))
        assert made.sentence in top
        drawn = (root / "docs" / f"{name}.png").read_bytes()
        assert b"Source\0" + hashlib.sha256(written).hexdigest().encode() in drawn, "run python docs/chart.py"


# --- docs


def test_the_switches_and_the_faults_are_those_of_the_simulator(root):
    sys.path.insert(0, str(root / "docs"))
    try:
        import switches
    finally:
        sys.path.remove(str(root / "docs"))
    page = (root / "docs" / "simulator.md").read_text(encoding="utf-8")
    tables = switches.FAULTS + switches.faults() + switches.HEADING + switches.table()
    assert page.endswith(tables), "run python docs/switches.py"


def test_the_counters_are_those_of_stats(root, sim):
    page = (root / "docs" / "counters.md").read_text(encoding="utf-8")
    stated = {word for line in page.splitlines() if line.startswith("| `") for word in code_words(line)}
    actual = set(jvq.Feed(TOKEN, server=sim.ws).stats())
    assert stated >= actual
    assert stated - actual <= {"=", "-1#", "max_codes", "default", "detected", "forced"}


def test_the_fields_are_those_of_the_records(root):
    page = (root / "docs" / "records.md").read_text(encoding="utf-8")
    for name, dtype in (("TRADE", jvq.TRADE), ("QUOTE", jvq.QUOTE), ("DEPTH", jvq.DEPTH)):
        part = page.split(f"## {name}, ")[1].split("\n## ")[0]
        assert part.startswith(f"{dtype.itemsize} bytes")
        stated = {}
        for line in part.splitlines():
            if re.match(r"\| \d", line):
                offset, fields, kind, _ = (cell.strip() for cell in line.strip("|").split("|"))
                for field in code_words(fields):
                    stated[field] = (int(offset), kind) if kind else None
        assert list(stated) == list(dtype.names)
        for field, what in stated.items():
            if what is None:
                continue
            found, offset = dtype.fields[field][:2]
            base, shape = found.base, found.shape
            letters = f"{base.kind}{base.itemsize}".upper() if base.kind == "S" else f"{base.kind}{base.itemsize}"
            assert what == (offset, f"{shape[0]} × {letters}" if shape else letters)
    assert np.dtype("u8").itemsize == 8
