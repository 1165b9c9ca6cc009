"""`kill -9` between any two steps of an order: the next life knows of it, and nothing is sent again."""

import contextlib
import datetime as dt
import json
import os
import queue
import random
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

import journal_lines
from jvq_fast.errors import OrderUnknown
from jvq_fast.redact import Secret
from jvq_fast.trade import Intent, Outcome, private
from jvq_fast.trade.model import SHANGHAI
from model_broker import FOREIGN, Deal, ModelBroker
from trade_mortal import LISTS, ORDERS, Task, client_of

pytestmark = pytest.mark.release_only

WAIT = 60.0
MORTAL = Path(__file__).with_name("trade_mortal.py")
# What is asked for, and how the broker takes it.
SCENES = (
    ("buy", "accepted"),
    ("sell", "accepted"),
    ("cancel", "accepted"),
    ("buy", "lost"),
    ("sell", "rejected"),
    ("buy", "never taken"),
)
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Desk(HTTPServer):
    """Serves a model broker, one request after the other."""

    broker: ModelBroker
    manner: str
    orders: int  # that came, cancels included

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # who is killed does not read its reply


class Window(BaseHTTPRequestHandler):
    server: Desk
    timeout = WAIT

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        reply = self.reply(parts.path.strip("/"), dict(parse_qsl(parts.query)))
        if reply is not None:
            body = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def reply(self, call: str, query: dict[str, str]) -> dict[str, Any] | None:
        """None: the connection just ends."""
        server, broker = self.server, self.server.broker
        if call == "login":
            return {"code": "0", "message": "", "ticket": "a1b2c3d4e5f6", "expire": "9000"}
        if call == "check_order":
            return broker.listed()
        if call == "check_hold":
            return broker.holdings()
        if call not in ("buy", "sale", "cancel"):
            return {}
        server.orders += 1
        if server.manner == "never taken":
            return None
        if server.manner == "rejected":
            return {"code": "-1", "message": "系统拒绝该委托", "order_id": ""}
        if call == "cancel":
            why = broker.cancel(query["order_id"])
            return {"code": "-1" if why else "0", "message": why}
        order = broker.place(query, buying=call == "buy", tag=server.orders)
        assert isinstance(order, Deal)
        return None if server.manner == "lost" else {"code": "0", "message": "", "order_id": order.number}


class Killing:
    """The broker, and the process that the clients are children of."""

    def __init__(self) -> None:
        self.server = Desk(("127.0.0.1", 0), Window)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        self._nursery = subprocess.Popen(
            [sys.executable, str(MORTAL)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self.outcomes: Counter[str] = Counter()

    def _listen(self) -> None:
        assert self._nursery.stdout is not None
        for line in self._nursery.stdout:
            self._answers.put(line.strip())

    def close(self) -> None:
        assert self._nursery.stdin is not None
        self._nursery.stdin.close()
        try:
            self._nursery.wait(WAIT)
        finally:
            self._nursery.kill()
            self._nursery.wait()
            assert self._nursery.stdout is not None
            self._nursery.stdout.close()
            self.server.shutdown()
            self._thread.join(WAIT)
            self.server.server_close()

    def trace(self, folder: Path, action: str, manner: str) -> list[str]:
        """The steps of a life that nothing ends."""
        self._prepare(folder, action, manner)
        assert self._live(Task(self.url, str(folder), action)) == "exit 0"
        return (folder / "trace").read_text().split("\n")[:-1]

    def kill(self, folder: Path, action: str, manner: str, at: int, seconds: float = 0.0) -> bool:
        """Whether the client was killed, and not done before; the next life is looked at in any case."""
        before = self._prepare(folder, action, manner)
        is_dead = self._live(Task(self.url, str(folder), action, at, seconds)) == "died"
        # Requests are served in the order in which they came: when this one is, all of the dead are.
        _OPENER.open(f"{self.url}/nothing", timeout=WAIT).close()
        self._look(folder, before)
        return is_dead

    def _live(self, task: Task) -> str:
        assert self._nursery.stdin is not None
        self._nursery.stdin.write(json.dumps(vars(task)) + "\n")
        self._nursery.stdin.flush()
        return self._answers.get(timeout=WAIT)

    def _prepare(self, folder: Path, action: str, manner: str) -> Deal | None:
        """A broker that has somebody else's order of the same looks already, and in case of a cancel the client's."""
        folder.mkdir()
        server = self.server
        server.broker = ModelBroker(lambda: dt.datetime.now(SHANGHAI))
        server.manner, server.orders = "accepted", 0
        for each, (code, price, volume) in ORDERS.items():
            query = {"code": code, "price": price, "volume": str(volume)}
            server.broker.place(query, buying=each == "buy", tag=FOREIGN)
        own = None
        if action == "cancel":
            with client_of(self.url, str(folder)) as client:
                own = server.broker.order(client.buy("000001", "11.40", 100).order_id)
        server.manner, server.orders = manner, 0
        return own

    def _look(self, folder: Path, before: Deal | None) -> None:
        """What the next life knows."""
        server, broker, path = self.server, self.server.broker, folder / "journal"
        had, sent = path.read_bytes() if path.exists() else b"", server.orders
        if had:
            whole = had.rpartition(b"\n")[0].count(b"\n") + (b"\n" in had)
            assert len(list(journal_lines.read(path))) == whole
        flagged: set[int] = set()
        client = client_of(self.url, str(folder))
        try:
            client.on_error(lambda error, _: flagged.add(error.intent.number) if _is_unknown(error) else None)
            said = folder / "said"
            for line in said.read_text().split("\n")[:-1] if said.exists() else ():
                number, outcome, order_id = line.split()
                (intent,) = [each for each in client.intents if each.number == int(number)]
                assert (intent.outcome.value, intent.order_id) == (outcome, order_id)
            for _ in range(LISTS + 1):
                client.orders()
            intents = client.intents
        finally:
            client.close()
        assert server.orders == sent, "the next life sent something by itself"
        orders = [each for each in intents if each.side is not None]
        own = [each for each in broker.orders if each.tag != FOREIGN]
        assert sorted(each.order_id for each in orders if each.outcome is Outcome.ACCEPTED) == [
            each.number for each in own
        ]
        assert len(own) <= len(orders)
        for each in orders:
            if each.outcome is Outcome.ACCEPTED:
                order = broker.order(each.order_id)
                assert order is not None
                assert order.content == (each.security, each.side == "buy", each.price, each.volume)
        for each in intents:
            assert each.outcome is not Outcome.UNKNOWN or each.number in flagged
        if before is not None:
            self._look_at_cancel(before, [each for each in intents if each.side is None])
        assert len([*journal_lines.read(path)]) == path.read_bytes().count(b"\n")
        last = intents[-1] if intents else None
        self.outcomes["no intent" if last is None else f"{last.action} {last.outcome}"] += 1

    def _look_at_cancel(self, order: Deal, cancels: list[Intent]) -> None:
        assert len(cancels) <= 1
        if order.ended:
            assert [each.outcome for each in cancels] == [Outcome.ACCEPTED]
        else:
            assert all(each.outcome is not Outcome.ACCEPTED for each in cancels)


def _is_unknown(error: Exception) -> bool:
    return isinstance(error, OrderUnknown)


@pytest.fixture(scope="module")
def process() -> Iterator[Killing]:
    with contextlib.closing(Killing()) as killing:
        yield killing


@pytest.fixture
def killing(process: Killing, monkeypatch: pytest.MonkeyPatch) -> Killing:
    monkeypatch.setattr("jvq_fast.trade.private._ROUNDS", 1)
    process.outcomes = Counter()
    return process


@pytest.mark.parametrize(("action", "manner"), SCENES)
def test_the_next_life_knows_of_every_order_and_sends_nothing(
    action: str,
    manner: str,
    tmp_path: Path,
    killing: Killing,
    share: Callable[..., list[Any]],
    record_property: Callable[[str, object], None],
) -> None:
    """More than 400 kills in the long run, about 20 without."""
    points = list(enumerate(killing.trace(tmp_path / "whole", action, manner)))
    assert len(points) > 40
    names: Counter[str] = Counter()
    kills = 0
    for at, name in share(points, 4):
        if killing.kill(tmp_path / str(at), action, manner, at):
            kills += 1
            names[name] += 1
    _report(record_property, kills, killing.outcomes, names)
    assert kills >= 2


def test_the_next_life_knows_of_every_order_after_a_kill_at_any_time(
    tmp_path: Path, killing: Killing, share: Callable[..., list[int]], record_property: Callable[[str, object], None]
) -> None:
    kills = 0
    lives = []
    for action, manner in SCENES:
        begun = time.monotonic()
        killing.trace(tmp_path / f"{action} {manner}", action, manner)
        lives.append(time.monotonic() - begun)
    life = min(lives)
    for number in share(range(120), 5):
        rng = random.Random(number)
        action, manner = rng.choice(SCENES)
        kills += killing.kill(tmp_path / str(number), action, manner, 1 << 30, rng.uniform(0, life))
    _report(record_property, kills, killing.outcomes, Counter())
    assert kills


def test_the_names_of_files_are_the_same_in_every_process_from_the_first_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("jvq_fast.trade.private._ROUNDS", 1)
    salt = tmp_path / "jvq_fast" / "trade" / "salt"
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(lambda _: private.default_paths(Secret("123456789012"), "live"), range(32)))
    assert len(names) == 1
    assert salt.stat().st_ino in synced


def test_a_client_whose_paths_are_given_leaves_the_state_directory_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    client_of("http://127.0.0.1:9", str(tmp_path)).close()
    assert not (tmp_path / "state").exists()


def _report(
    record_property: Callable[[str, object], None], kills: int, outcomes: Counter[str], names: Counter[str]
) -> None:
    record_property("kills", kills)
    record_property("after_kills", dict(outcomes))
    record_property("kills_by_step", dict(names))
    print(f"{kills} kills; after them {dict(outcomes)}; steps {dict(names)}")
