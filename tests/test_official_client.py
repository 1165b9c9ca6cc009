"""The vendor's own client agrees: every field it takes from the wire is ours, and what it derives follows from ours.

It runs unmodified in a process of its own beside our feed; both listen to the same market from its first event on.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import jvq_fast as jvq
from simulator import TOKEN, Simulator

CODES = ["600519", "000001", "688981", "113050", "i000001"]
TRADED = CODES[:-1]
NAMES = [f"{level}_{code}" for level in ("lv1", "lv2", "lv10") for code in CODES]
PROGRAM = Path(__file__).with_name("official_client.py")
WAIT = 60.0


class Official:
    """The vendor's client, running."""

    def __init__(self, sim: Simulator, path: Path) -> None:
        self._path = path
        without = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        environment = without | {"http_proxy": sim.http, "no_proxy": "127.0.0.1"}
        command = [sys.executable, str(PROGRAM), TOKEN, str(path), *CODES]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def end(self) -> str:
        """Let it clear its subscription and end; what it wrote to stderr."""
        return self.process.communicate("\n", timeout=WAIT)[1]

    def kill(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def rows(self, level: str) -> list[dict[str, Any]]:
        """What its handlers were given, in order."""
        lines = (line.split(" ", 1) for line in self._path.read_text("utf-8").splitlines())
        return [json.loads(text) for kind, text in lines if kind == level]


class Both(NamedTuple):
    official: Official
    trades: list[tuple[str, np.ndarray]]  # a row each, as our handlers were given them
    quotes: list[tuple[str, np.ndarray]]
    depths: list[tuple[str, np.ndarray]]
    names: dict[str, str]
    sent: list[int]  # trades on each connection, by the simulator's count


def subscribed(stats: dict[str, Any]) -> list[int]:
    """How many subscriptions each connection has."""
    return [len(each["subscriptions"]) for each in stats["connections"]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    assert version("jvQuant") == "1.20.5"
    path = tmp_path_factory.mktemp("official") / "rows"
    # Messages that gather five market seconds: the index has rows of several snapshots.
    with Simulator("--seed", "5", "--hold", "--speed", "20", "--gather-ms", "250") as sim:
        feed = jvq.Feed(
            TOKEN, NAMES, allocation=sim.http, trading_day=sim.trading_day, clock="always", allocation_interval=0.0
        )
        kept: dict[str, list[tuple[str, np.ndarray]]] = {"trades": [], "quotes": [], "depths": []}
        feed.on_trades(lambda code, records: kept["trades"].append((code, records.copy())))
        feed.on_quotes(lambda code, records: kept["quotes"].append((code, records.copy())))
        feed.on_depths(lambda code, records: kept["depths"].append((code, records.copy())))
        official = Official(sim, path)
        try:
            sim.wait(lambda stats: subscribed(stats) == [len(NAMES)])
            with feed:
                sim.wait(lambda stats: subscribed(stats) == [len(NAMES)] * 2)
                sim.go()
                sim.wait(lambda stats: all(each["records"] > 80_000 for each in stats["connections"]))
                feed.replace(())
                errors = official.end()
                stats = sim.wait_still()
                deadline = time.monotonic() + WAIT
                while feed.stats()["messages"] != stats["connections"][1]["messages"]:
                    assert time.monotonic() < deadline, feed.stats()
                    time.sleep(0.02)
                names = dict(feed.names)
        finally:
            official.kill()
        assert "Exception" not in errors, errors
        assert "Error" not in errors, errors
        assert not feed.stats()["bad"]
        counts = [int(each["trades"]) for each in stats["connections"]]
        yield Both(official, kept["trades"], kept["quotes"], kept["depths"], names, counts)


def clock(time: int, digits: int) -> str:
    """A record's time as the wire writes it."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(time) // 1000, hours=8)
    return moment.strftime("%H:%M:%S") + (f".{moment.microsecond // 1000:03d}" if digits else "")


def by_code(rows: list[tuple[str, np.ndarray]], code: str) -> list[np.ndarray]:
    return [records for row_code, records in rows if row_code == code]


@pytest.mark.parametrize("code", TRADED)
def test_its_trades_are_our_trades(both: Both, code: str) -> None:
    rows = [row for row in both.official.rows("lv2") if row["code"] == code]
    theirs = {deal["deal_id"]: deal for row in rows for deal in row["deal_list"]}
    ours = np.concatenate(by_code(both.trades, code))
    assert len(set(ours["id"])) == len(ours)
    common = min(len(theirs), len(ours))
    assert common > 2000
    for trade in ours[:common]:
        deal = theirs[str(trade["id"])]
        assert deal["time"] == clock(trade["time"], 3)
        assert deal["price"] == trade["price"]
        assert deal["volume"] == trade["volume"]


def test_the_comparison_is_of_ten_thousand_records_and_misses_none(both: Both) -> None:
    theirs = sum(len(row["deal_list"]) for row in both.official.rows("lv2"))
    ours = sum(len(records) for _, records in both.trades)
    assert [theirs, ours] == both.sent
    assert min(theirs, ours) > 10_000


@pytest.mark.parametrize("code", TRADED)
def test_what_it_derives_from_a_row_of_trades_follows_from_ours(both: Both, code: str) -> None:
    theirs = [row for row in both.official.rows("lv2") if row["code"] == code]
    ours = by_code(both.trades, code)
    common = min(len(theirs), len(ours))
    assert common > 10
    for row, records in zip(theirs[:common], ours, strict=False):
        amount = sum(int(trade["volume"]) * float(trade["price"]) for trade in records)
        volume = int(records["volume"].sum())
        assert row["volume"] == volume
        assert row["amount"] == round(amount, 2)
        assert row["average_price"] == round(amount / volume, 3)


def last_of_each_row(rows: list[tuple[str, np.ndarray]], code: str) -> list[Any]:
    """The official client keeps only the last record of a row of snapshots."""
    return [records[-1] for records in by_code(rows, code)]


@pytest.mark.parametrize("code", CODES)
def test_its_quotes_are_our_quotes(both: Both, code: str) -> None:
    theirs = [row for row in both.official.rows("lv1") if row["code"] == code]
    ours = last_of_each_row(both.quotes, code)
    common = min(len(theirs), len(ours))
    assert common > 10
    for row, quote in zip(theirs[:common], ours, strict=False):
        assert row["time"] == clock(quote["time"], 0)
        assert row["name"] == both.names[code]
        assert (row["price"], row["ratio"], row["amount"]) == (quote["price"], quote["change"], quote["amount"])
        assert row["volume"] == quote["volume"]
        check_book(row, quote, 5)


@pytest.mark.parametrize("code", CODES)
def test_its_ten_levels_are_our_depths(both: Both, code: str) -> None:
    theirs = [row for row in both.official.rows("lv10") if row["code"] == code]
    ours = last_of_each_row(both.depths, code)
    common = min(len(theirs), len(ours))
    assert common > 10
    for row, depth in zip(theirs[:common], ours, strict=False):
        assert row["time"] == clock(depth["time"], 0)
        assert row["name"] == both.names[code]
        assert (row["price"], row["last_close"], row["amount"]) == (
            depth["price"],
            depth["last_close"],
            depth["amount"],
        )
        assert row["volume"] == depth["volume"]
        check_book(row, depth, 10)
        assert row["ratio"] == round(100 * (float(depth["price"]) / float(depth["last_close"]) - 1), 2)
        assert depth["change"] == (depth["price"] / depth["last_close"] - 1) * 100


def check_book(row: dict[str, Any], record: Any, levels: int) -> None:
    for side, name in (("b", "bid"), ("s", "ask")):
        assert [row[f"{side}{level}p"] for level in range(1, levels + 1)] == list(record[f"{name}_price"])
        assert [row[f"{side}{level}"] for level in range(1, levels + 1)] == list(record[f"{name}_volume"])


def test_where_it_keeps_only_the_last_of_several_snapshots_we_keep_all(both: Both) -> None:
    assert any(len(records) > 1 for records in by_code(both.quotes, "i000001"))
    theirs = sum(row["code"] == "i000001" for row in both.official.rows("lv1"))
    assert sum(len(records) for records in by_code(both.quotes, "i000001")) > theirs
