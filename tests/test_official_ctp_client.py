"""The vendor's own trade client, unmodified and in a process of its own, trades with the paper broker."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from dealer import ACCOUNT, PASSWORD, Dealer
from simulator import TOKEN, Simulator

PROGRAM = Path(__file__).with_name("official_ctp_client.py")


class Official:
    """The vendor's client, running."""

    def __init__(self, sim: Simulator, directory: Path, *, no_proxy: str = "127.0.0.1") -> None:
        without = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        environment = without | {"http_proxy": sim.http, "no_proxy": no_proxy}
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), TOKEN, ACCOUNT, PASSWORD],
            env=environment, cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def __call__(self, method: str, *arguments: str) -> Any:
        """What a method of the client returns."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([method, *arguments]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self) -> str:
        """Let it end; what it wrote to stderr."""
        return self.process.communicate(timeout=30)[1]

    def kill(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator("--seed", "5") as running:
        yield running


@pytest.mark.parametrize("no_proxy", ["127.0.0.1", ""])
def test_login_holdings_buy_sell_orders_and_cancel(sim: Simulator, tmp_path: Path, no_proxy: str) -> None:
    """Straight to the broker, and all by way of the proxy."""
    assert version("jvQuant") == "1.20.5"
    official = Official(sim, tmp_path, no_proxy=no_proxy)
    try:
        held = official("check_hold")
        assert (held["code"], held["message"]) == ("0", "")
        assert all(re.fullmatch(r"-?\d+\.\d\d", held[name]) for name in ("total", "usable", "day_earn", "hold_earn"))
        before = {each["code"]: each for each in held["hold_list"]}
        assert all(
            set(each) == {"code", "name", "hold_vol", "usable_vol", "day_earn", "hold_earn"}
            and all(isinstance(value, str) for value in each.values())
            for each in before.values()
        )
        bought = official("buy", "113050", "南银转债", "130.000", "100")
        assert (bought["code"], re.fullmatch(r"\d+", bought["order_id"]) is not None) == ("0", True)
        assert set(bought) == {"code", "message", "order_id"}
        sold = official("sale", "000001", "平安银行", "13.00", "100")
        assert sold["code"] == "0"
        refused = official("buy", "000001", "平安银行", "20.00", "100")
        assert refused == {"code": "-106", "message": "委托价格超过涨跌停限制", "order_id": ""}
        orders = {each["order_id"]: each for each in official("check_order")["list"]}
        first = orders[bought["order_id"]]
        assert first | {"time": "", "day": ""} == {
            "order_id": bought["order_id"], "day": "", "time": "", "code": "113050", "name": "南银转债",
            "type": "证券买入", "status": "已成", "order_price": "130.000", "order_volume": "100",
            "deal_price": first["deal_price"], "deal_volume": "100",
        }  # fmt: skip
        assert re.fullmatch(r"\d{6}", first["time"])
        assert first["day"] == sim.trading_day.replace("-", "")
        assert 110 < float(first["deal_price"]) < 130
        assert (orders[sold["order_id"]]["type"], orders[sold["order_id"]]["status"]) == ("证券卖出", "已报")
        cancelled = official("cancel", sold["order_id"])
        assert cancelled["code"] == "0"
        assert cancelled["message"]
        after = {each["code"]: each for each in official("check_hold")["hold_list"]}
        assert int(after["113050"]["hold_vol"]) == int(before["113050"]["hold_vol"]) + 100
        assert after["000001"]["usable_vol"] == before["000001"]["usable_vol"]
        # Another client that logs in sees the same.
        dealer = Dealer(sim)
        assert dealer.orders() == {each["order_id"]: each for each in official("check_order")["list"]}
        assert {code: each["hold_vol"] for code, each in dealer.holdings().items()} == {
            code: each["hold_vol"] for code, each in after.items()
        }
        assert dealer.orders()[sold["order_id"]]["status"] == "已撤"
        kept = json.loads((tmp_path / f"ctp_{ACCOUNT}_ticket.json").read_text("utf-8"))
        assert (kept["ctp_acc"], kept["expire"]) == (ACCOUNT, "9000")
        assert abs(int(kept["login_stamp"]) - time.time()) < 60
    finally:
        official.kill()
    assert sim.broker()["wrong"] == []


def test_it_goes_on_with_the_ticket_of_its_file(sim: Simulator, tmp_path: Path) -> None:
    for _ in range(2):
        official = Official(sim, tmp_path)
        try:
            assert official("check_hold")["code"] == "0"
            said = official.end()
        finally:
            official.kill()
    assert "已使用指定ticket" in said
