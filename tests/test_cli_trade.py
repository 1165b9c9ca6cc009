"""``jvq-fast trade`` against the simulator: what each action prints, and how it ends."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from simulator import TOKEN, Simulator

ACCOUNT, PASSWORD = "123456789012", "pass word%41"
Trade = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator("--seed", "3") as running:
        yield running


@pytest.fixture
def trade(sim: Simulator, tmp_path: Path) -> Trade:
    environment = {
        **os.environ,
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "JVQ_FAST_TOKEN": TOKEN,
        "JVQ_FAST_ACCOUNT": ACCOUNT,
        "JVQ_FAST_PASSWORD": PASSWORD,
    }

    def run(
        *arguments: str, allocation: bool = True, stdout: int = subprocess.PIPE, **more: str
    ) -> "subprocess.CompletedProcess[str]":
        if allocation:
            arguments = (*arguments, "--allocation", sim.http)
        if arguments[0] in ("buy", "sell"):
            arguments = (*arguments, "--trading-day", sim.trading_day, "--clock", "always")
        return subprocess.run(
            [sys.executable, "-m", "jvq_fast", "trade", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            env=environment | more,
            check=False,
        )

    return run


def good(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def last_price(trade: Trade) -> str:
    """From a refusal, which names it."""
    refused = trade("buy", "000001", "100", "--price", "1.00")
    assert refused.returncode == 1
    return refused.stderr.rsplit("last price ", 1)[1].strip()


def test_an_account_by_hand(trade: Trade, tmp_path: Path) -> None:
    assert "logged in, good until" in good(trade("login", "--paper"))
    assert good(trade("positions", "--paper")).splitlines()[-1].startswith("total ")
    price = last_price(trade)
    bought = json.loads(good(trade("buy", "000001", "100", "--price", price, "--paper", "--json")))
    assert bought["code"] == "000001"
    assert bought["order_id"]
    low = f"{float(price) * 0.985:.2f}"
    resting = json.loads(good(trade("buy", "000001", "200", "--price", low, "--paper", "--json")))
    listed = good(trade("orders", "--paper"))
    assert bought["order_id"] in listed
    assert "working" in listed
    assert "took the cancellation" in good(trade("cancel", resting["order_id"], "--paper"))
    orders = json.loads(good(trade("orders", "--paper", "--json")))
    assert {each["order_id"]: each["status"] for each in orders}[resting["order_id"]] == "cancelled"
    assert good(trade("resolve", "--paper")) == "nothing is unknown\n"
    done = trade("resolve", "1", "rejected", "--paper")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is not unknown" in done.stderr
    # What lies there is its owner's alone, and names nobody.
    for path in (tmp_path / "state" / "jvq_fast" / "trade").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
        assert ACCOUNT not in path.name
        assert ACCOUNT.encode() not in path.read_bytes()


def test_nothing_is_sent_unless_a_mode_says_so(trade: Trade, sim: Simulator) -> None:
    before = sim.broker()["requests"]
    told = good(trade("buy", "000001", "100", "--price", last_price(trade)))
    assert told.startswith("not sent, since neither --paper nor --live says so: GET /buy?token=***&ticket=***")
    assert sim.broker()["requests"] == before
    for action in (("login",), ("positions",), ("orders",), ("cancel", "1"), ("resolve",), ("kill",), ("rearm",)):
        done = trade(*action, allocation=action[0] not in ("kill", "rearm"))
        assert done.returncode == 2, action
        assert "--live" in done.stderr


def test_live_is_not_for_a_simulator_and_paper_for_nothing_else(trade: Trade) -> None:
    done = trade("positions", "--live")
    assert done.returncode == 1
    assert "live mode does not talk to this machine" in done.stderr
    done = trade("positions", "--paper", "--allocation", "http://192.0.2.1", allocation=False)
    assert done.returncode == 2
    assert "192.0.2.1 is not a loopback address" in done.stderr


def test_the_kill_switch_from_another_process(trade: Trade, tmp_path: Path) -> None:
    price = last_price(trade)
    good(trade("orders", "--paper"))
    assert "nothing is ordered any more" in good(trade("kill", "--paper", "--reason", "lunch", allocation=False))
    done = trade("buy", "000001", "100", "--price", price, "--paper")
    assert done.returncode == 1
    assert "lunch" in done.stderr
    assert "`jvq-fast trade rearm` ends it" in done.stderr
    assert good(trade("rearm", "--paper", allocation=False)) == "orders go again\n"
    good(trade("buy", "000001", "100", "--price", price, "--paper"))
    # A name that was mistyped, in a hurry perhaps.
    done = trade("kill", "--journal", str(tmp_path / "jurnal"), allocation=False)
    assert done.returncode == 0
    assert "nobody trades with it yet" in done.stderr


def test_an_order_that_is_unknown_or_not_done_has_an_exit_status_of_its_own(trade: Trade, sim: Simulator) -> None:
    price = last_price(trade)
    low = f"{float(price) * 0.985:.2f}"
    waited = trade("buy", "000001", "100", "--price", low, "--paper", "--wait", "0.5", "--json")
    assert waited.returncode == 4
    assert "is still not done after 0.5 s" in waited.stderr
    resting = json.loads(waited.stdout)
    assert resting["order_id"]

    sim.fault("trade_reply_lost", call="buy", when="after", count=1)
    found = trade("buy", "000001", "200", "--price", low, "--paper", "--json")
    assert found.returncode == 0, "the broker's list has shown it within a few seconds"
    assert json.loads(found.stdout)["volume"] == 200

    sim.fault("trade_reply_lost", call="buy", when="before", count=1)
    lost = trade("buy", "000001", "300", "--price", low, "--paper", "--json")
    assert lost.returncode == 3
    assert "`jvq-fast trade resolve` looks it up" in lost.stderr
    assert "the connection ended without a whole reply" in lost.stderr
    intent = json.loads(lost.stdout)
    assert intent["outcome"] == "unknown"
    told = good(trade("resolve", "--paper"))
    assert f"jvq-fast trade resolve {intent['number']} with accepted ORDER, rejected or not-sent" in told
    again = trade("buy", "000001", "300", "--price", low, "--paper")
    assert (again.returncode, again.stdout) == (1, "")

    number = str(intent["number"])
    wrong = trade("resolve", number, "accepted", "4242", "--paper")
    assert wrong.returncode == 0
    assert "the broker's list has no order 4242" in wrong.stderr
    assert good(trade("resolve", number, "not-sent", "--paper")).endswith("not sent\n")
    assert good(trade("resolve", "--paper")) == "nothing is unknown\n"
    assert trade("cancel", "4242", "--paper").returncode == 1
    good(trade("cancel", resting["order_id"], "--paper"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full, a disk that is always full")
def test_an_order_that_is_at_the_broker_did_not_fail_where_the_output_does(
    trade: Trade, sim: Simulator, tmp_path: Path
) -> None:
    price = last_price(trade)
    low = f"{float(price) * 0.985:.2f}"
    for output in ("full", "gone"):
        with full_output(output) as stdout:
            done = trade("buy", "000001", "100", "--price", low, "--paper", stdout=stdout)
        assert done.returncode == 4, done.stderr
        number = re.search(r"order (\d+) was accepted", done.stderr)
        assert number is not None
        good(trade("cancel", number[1], "--paper"))
        sim.fault("trade_reply_lost", call="buy", when="before", count=1)
        with full_output(output) as stdout:
            done = trade("buy", "000001", "200", "--price", low, "--paper", "--json", stdout=stdout)
        assert done.returncode == 3, done.stderr
        assert "don't order again" in done.stderr
        unknown = json.loads(good(trade("resolve", "--paper", "--json")))
        good(trade("resolve", str(unknown[0]["number"]), "not-sent", "--paper"))


@contextlib.contextmanager
def full_output(kind: str) -> Iterator[int]:
    """A full disk, or a reader that has gone."""
    if kind == "full":
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        other, descriptor = os.pipe()
        os.close(other)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def test_paper_asks_the_vendor_for_nothing(trade: Trade) -> None:
    for action in (("buy", "000001", "100", "--price", "1.00"), ("login",), ("orders",)):
        done = trade(*action, "--paper", allocation=False, http_proxy="http://127.0.0.1:1")
        assert done.returncode == 2
        assert "--allocation http" in done.stderr or "--allocation 'http" in done.stderr


def test_a_login_is_that_of_a_token_and_a_broker(trade: Trade, sim: Simulator) -> None:
    good(trade("login", "--paper"))
    begun = sim.broker()["received"]["login"]
    good(trade("login", "--paper"))
    assert sim.broker()["received"]["login"] == begun
    good(trade("login", "--paper", JVQ_FAST_TOKEN="f" * 32))
    assert sim.broker()["received"]["login"] == begun + 1
    done = trade("login", "--paper", "--allocation", "http://127.0.0.1:1", allocation=False)
    assert done.returncode == 1


def test_a_ticket_that_can_not_be_kept_is_not_paid_for(trade: Trade, sim: Simulator, tmp_path: Path) -> None:
    begun = sim.broker()["received"].get("login", 0)
    done = trade("login", "--paper", "--ticket-file", str(tmp_path / "nowhere" / "ticket"))
    assert done.returncode == 1
    assert "can't be written" in done.stderr
    assert sim.broker()["received"].get("login", 0) == begun


def test_without_its_salt_the_journals_of_an_account_are_not_forgotten(trade: Trade, tmp_path: Path) -> None:
    good(trade("orders", "--paper"))
    salt = tmp_path / "state" / "jvq_fast" / "trade" / "salt"
    kept = salt.read_bytes()
    salt.unlink()
    for damage in (None, b"", b"not hexadecimal at all, is it? no", kept[:-1]):
        if damage is not None:
            salt.write_bytes(damage)
        done = trade("resolve", "--paper")
        assert done.returncode == 1
        assert str(salt) in done.stderr
        assert "put it back" in done.stderr
    salt.write_bytes(kept)
    good(trade("orders", "--paper"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("buy", "000001", "100", "--price", "abc"), "abc"),
        (("buy", "00001", "100", "--price", "12.50"), "00001"),
        (("sell", "000001", "0", "--price", "12.50"), "above 0"),
        (("buy", "000001", "100", "--price", "12.50", "--limit", "colour=1"), "colour"),
        (("buy", "000001", "100", "--price", "12.50", "--limit", "max_per_second=201"), "max_per_second"),
        (("buy", "000001", "100"), "--price"),
        (("sing",), "sing"),
    ],
)
def test_what_makes_no_sense_is_one_line_that_names_it(trade: Trade, arguments: tuple[str, ...], named: str) -> None:
    done = trade(*arguments)
    assert done.returncode == 2
    assert named in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_limit_is_named_and_can_be_set(trade: Trade) -> None:
    price = last_price(trade)
    done = trade("buy", "000001", "300", "--price", price, "--limit", "max_order_volume=200")
    assert (done.returncode, done.stderr) == (1, "jvq-fast trade: max_order_volume: 300, at most 200\n")
    good(trade("buy", "000001", "100", "--price", "1.00", "--limit", "price_band=none", "--limit", "daily_limits=off"))


def test_secrets_on_the_command_line_are_warned_of_and_shown_by_nothing(trade: Trade, tmp_path: Path) -> None:
    done = trade("login", "--paper", "--password", "hunter2!", "--account", "210987654321")
    assert done.returncode == 0
    assert done.stderr.count("list of processes") == 2
    for secret in ("hunter2!", "210987654321", TOKEN):
        assert secret not in done.stdout + done.stderr
    path = tmp_path / "password"
    path.write_text("from a file\n")
    path.chmod(0o644)
    done = trade("login", "--paper", "--password-file", str(path))
    assert done.returncode == 0
    assert "chmod 600" in done.stderr
    path.chmod(0o600)
    good(trade("login", "--paper", "--password-file", str(path)))
    done = trade("login", "--paper", JVQ_FAST_PASSWORD="")
    assert done.returncode == 2
    assert "--password-file" in done.stderr
