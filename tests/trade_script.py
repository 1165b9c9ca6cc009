"""A market, a clock and a broker that do exactly what a test of the trade client says."""

import datetime as dt
import json
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import pytest

import jvq_fast as jvq
from jvq_fast.trade.model import SHANGHAI
from ws_script import TOKEN, Peer, Script, ScriptServer

ACCOUNT = "123456789012"
PASSWORD = "pass word"
WAIT = 20.0
OPEN = dt.datetime(2026, 11, 25, 10, 0, tzinfo=SHANGHAI)  # a Wednesday
Query = dict[str, str]


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks of accounts are slow to make on purpose, and thousands of files are made here."""
    monkeypatch.setattr("jvq_fast.trade.private._ROUNDS", 1)


class Market:
    """What `TradeClient` asks of a market: the same for every code, but for what stands in `prices`."""

    def __init__(self, price: str = "10.00", limits: tuple[str, str] | None = ("9.00", "11.00")) -> None:
        self.price: Decimal | None = Decimal(price)
        self.prices: dict[str, Decimal] = {}
        self.data_age: float | None = 0.0
        self.band = None if limits is None else (Decimal(limits[0]), Decimal(limits[1]))

    def last(self, code: str) -> Decimal | None:
        return self.prices.get(code, self.price)

    def age(self, code: str) -> float | None:
        return self.data_age

    def name(self, code: str) -> str:
        return "精达转债"

    def limits(self, code: str) -> tuple[Decimal, Decimal] | None:
        return self.band


class Clock:
    """Stands still until it is told to go."""

    def __init__(self, now: dt.datetime = OPEN) -> None:
        self.now = now

    def __call__(self) -> dt.datetime:
        return self.now


def respond(body: bytes, status: int = 200, *headers: bytes) -> Script:
    """An answer to a request that was read."""

    def script(peer: Peer) -> None:
        lines = [b"HTTP/1.1 %d Any" % status, b"Content-Length: %d" % len(body), b"Connection: close", *headers]
        peer.send(b"\r\n".join(lines), b"\r\n\r\n", body)

    return script


def say(**content: Any) -> Script:
    """An answer in JSON."""
    return respond(json.dumps(content).encode())


def reset(peer: Peer) -> None:
    """No answer, but an RST."""
    peer.reset()


def hang(peer: Peer) -> None:
    """No answer, until the client goes."""
    peer.until_closed()


class Broker:
    """Speaks PROTOCOL §3 on loopback and keeps every request, in the order of arrival.

    `answers` by call take the place of what it does by itself; `before` is called when a request was read and counted.
    """

    def __init__(self, clock: Callable[[], dt.datetime] | None = None) -> None:
        self.clock = clock or Clock()
        self.requests: list[tuple[str, Query]] = []
        self.heads: list[bytes] = []
        self.rows: list[dict[str, str]] = []
        self.held: list[dict[str, str]] = [holding("600519", 1000, 1000)]
        self.answers: dict[str, Script] = {}
        self.before: Callable[[str, Query], None] = lambda call, query: None
        self.ticket = "9f1d4c7e5b2a"
        self.expire: object = "9000"
        self._lock = threading.Lock()
        self._server = ScriptServer(self._serve)
        self.http = self._server.http
        self.port = self._server.port

    @property
    def connections(self) -> int:
        return self._server.accepted

    def calls(self, *names: str) -> list[Query]:
        """The requests of some calls."""
        with self._lock:
            return [query for call, query in self.requests if call in names]

    def _serve(self, peer: Peer) -> None:
        head = peer.read_head()
        parts = urlsplit(head.split(b" ", 2)[1].decode())
        call, query = parts.path.strip("/"), dict(parse_qsl(parts.query, keep_blank_values=True))
        with self._lock:
            self.requests.append((call, query))
            self.heads.append(head)
        self.before(call, query)
        answer = self.answers.get(call)
        if answer is None:
            with self._lock:
                answer = say(**self._answer(call, query))
        answer(peer)

    def _answer(self, call: str, query: Query) -> dict[str, Any]:
        good = {"code": "0", "message": ""}
        if call == "login":
            return {**good, "ticket": self.ticket, "expire": self.expire}
        if call == "check_hold":
            money = dict.fromkeys(("total", "usable", "day_earn", "hold_earn"), "1000000.00")
            return {**good, **money, "hold_list": self.held}
        if call == "check_order":
            return {**good, "list": self.rows}
        if call in ("buy", "sale"):
            return {**good, "order_id": self.add(call, query)}
        if call == "cancel":
            for row in self.rows:
                if row["order_id"] == query["order_id"]:
                    row["status"] = "已撤"
            return good
        return {"code": "-1", "message": "no such call"}

    def add(self, call: str, query: Query) -> str:
        """Take an order; its number."""
        now = self.clock()
        number = str(1334564 + len(self.rows))
        self.rows.append(
            {
                "order_id": number, "day": f"{now:%Y%m%d}", "time": f"{now:%H%M%S}", "code": query["code"],
                "name": query["name"], "type": "证券买入" if call == "buy" else "证券卖出", "status": "已报",
                "order_price": query["price"], "order_volume": query["volume"], "deal_price": "0", "deal_volume": "0",
            }
        )  # fmt: skip
        return number

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.__exit__(kind, error, traceback)


def holding(code: str, volume: int, usable: int) -> dict[str, str]:
    return {
        "code": code, "name": "", "hold_vol": str(volume), "usable_vol": str(usable), "day_earn": "0", "hold_earn": "0"
    }  # fmt: skip


def paper(broker: Broker, folder: Path, **settings: Any) -> jvq.TradeClient:
    """A client of the broker whose files lie in a folder, and whose gate is wide open but for what a test sets."""
    settings = {
        "mode": "paper", "market": Market(), "clock": broker.clock, "journal": folder / "journal",
        "ticket_file": folder / "ticket", "polling": jvq.Polling(fast=0.05, slow=0.1, retry=0.05), "timeout": WAIT,
        "allocation_interval": 0.0,
        **settings,
    }  # fmt: skip
    if "server" not in settings and "allocation" not in settings:
        settings["server"] = broker.http
    return jvq.TradeClient(
        settings.pop("token", TOKEN), settings.pop("account", ACCOUNT), settings.pop("password", PASSWORD), **settings
    )


WIDE = jvq.Limits(
    max_order_volume=None, max_order_value=None, max_daily_value=None, max_open_orders=None, max_repeats=None,
    max_per_second=200, max_per_day=15_000,
)  # fmt: skip


def wait(condition: Callable[[], bool]) -> None:
    """Until it holds. AssertionError after WAIT seconds."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
