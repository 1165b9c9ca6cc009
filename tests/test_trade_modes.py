"""Dry, paper and live can't be confused, and each request leaves once, on a connection of its own, or not at all."""

import asyncio
import builtins
import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

import jvq_fast as jvq
from trade_script import (
    ACCOUNT,
    PASSWORD,
    WAIT,
    WIDE,
    Broker,
    Clock,
    Market,
    few_rounds,
    hang,
    paper,
    reset,
    respond,
    say,
)  # fmt: skip
from ws_script import TOKEN, ScriptServer, binary, reply, serve, trade

OUTSIDE = "203.0.113.9"  # TEST-NET-3: nobody has it


class Trap:
    """A socket that listens, takes whatever comes, and counts its bytes."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self.bytes = 0
        self._last: object = None
        self._host = host
        self._threads: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, peer = self._listener.accept()
            except OSError:
                return
            if peer == self._last:
                sock.close()
                return
            self.connections += 1
            sock.settimeout(WAIT)
            thread = threading.Thread(target=self._drain, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _drain(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(65536):
                self.bytes += len(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Behind a connection of its own there is none that was not counted.
        with socket.socket(self._listener.family) as last:
            last.bind((self._host, 0))
            self._last = last.getsockname()
            last.connect((self._host, self.port))
            self._thread.join(WAIT)
        self._listener.close()
        for thread in self._threads:
            thread.join(WAIT)
            assert not thread.is_alive()


def allocate(server: str) -> ScriptServer:
    return ScriptServer(reply(200, b'{"code":"0","server":"%s"}' % server.encode()))


def client(folder: Path, **settings: Any) -> jvq.TradeClient:
    settings = {
        "market": Market(), "clock": Clock(), "limits": WIDE, "timeout": 5, "login_timeout": 5,
        "allocation_interval": 0.0,
        **settings,
    }  # fmt: skip
    if settings.get("mode") != "dry":
        settings |= {"journal": folder / "journal", "ticket_file": folder / "ticket"}
    return jvq.TradeClient(TOKEN, ACCOUNT, PASSWORD, **settings)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Host names and where they lead."""
    table: dict[str, str] = {}
    real = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        return real(table.get(host, host), *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return table


def own_address() -> str:
    """One of this machine's that is no loopback address; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((OUTSIDE, 9))
            address = str(probe.getsockname()[0])
        except OSError:
            pytest.skip("this machine has no other address than loopback")
    if address.startswith("127."):
        pytest.skip("this machine has no other address than loopback")
    return address


__all__ = ["few_rounds"]

# --- dry ---


@pytest.fixture
def no_sockets_and_no_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Whoever opens a socket or writes a file fails."""

    def fail(*arguments: Any, **options: Any) -> Any:
        raise AssertionError(arguments)

    real_os_open, real_open = os.open, builtins.open

    def os_open(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        assert not flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR), path
        return real_os_open(path, flags, *rest, **options)

    def plain_open(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        assert not set(mode) & set("wax+"), file
        return real_open(file, mode, *rest, **options)

    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.chdir(home)
    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", fail)
        patched.setattr(socket, "create_connection", fail)
        patched.setattr(socket, "getaddrinfo", fail)
        patched.setattr(os, "open", os_open)
        patched.setattr(os, "mkdir", fail)
        patched.setattr(builtins, "open", plain_open)
        yield home
    assert list(home.rglob("*")) == []


def test_dry_opens_no_socket_and_writes_no_file(no_sockets_and_no_files: Path) -> None:
    with client(no_sockets_and_no_files, mode="dry") as dry:
        order = dry.buy("600519", "10.01", 100, name="贵州茅台")
        assert order.request == ("GET /buy?token=***&ticket=***&code=600519&name=贵州茅台&price=10.01&volume=100")
        assert order.status is jvq.Status.DRY
        assert order.is_final
        assert order.order_id == ""
        sold = dry.submit_sell("000001", "9.99", 300).result(WAIT)
        assert sold.request.startswith("GET /sale?")
        assert dry.wait(order, 0) == order
        assert dry.orders() == (order, sold)
        assert [intent.outcome for intent in dry.intents] == [jvq.Outcome.NOT_SENT] * 2
        for call in (dry.login, dry.account, dry.positions):
            with pytest.raises(jvq.TradeError, match="dry mode opens no socket"):
                call()
        for what in (order, dry.intents[0], "1334564"):
            with pytest.raises(ValueError, match="order"):
                dry.cancel(what)
        dry.kill("enough")
        with pytest.raises(jvq.KilledError, match="enough"):
            dry.buy("600519", "10", 100)
        dry.rearm()
        dry.buy("600519", "10", 100)
        assert dry.stats()["spent"] == 0
        assert dry.kill_file is None


def test_dry_is_what_a_client_is_without_a_mode(no_sockets_and_no_files: Path) -> None:
    made = jvq.TradeClient(TOKEN, ACCOUNT, PASSWORD)
    assert made.mode == "dry"
    assert repr(made) == "<TradeClient dry>"


# --- paper ---


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"server": OUTSIDE}, {"server": f"http://{OUTSIDE}:80"}, {"server": "[2001:db8::1]:80"},
        {"server": "jvquant.com"}, {"server": "127.0.0.1.nip.io:80"}, {"server": "localhost.example.com:80"},
        {"server": "::ffff:203.0.113.9"}, {"server": "http://127.0.0.1@203.0.113.9:80"},
        {"allocation": "http://jvquant.com/query/server"}, {"allocation": f"http://{OUTSIDE}:8765"},
        {"allocation": "http://127.0.0.1@203.0.113.9"}, {"server": "127.0.0.1:1", "allocation": "http://127.0.0.1:1"},
        {"server": "127.0.0.1:1", "proxies": True},
    ],
    ids=str,
)  # fmt: skip
def test_paper_refuses_an_address_outside(settings: dict[str, Any], no_sockets_and_no_files: Path) -> None:
    with pytest.raises(ValueError, match=r"paper|not a server|allocation|exclude"):
        client(no_sockets_and_no_files, mode="paper", **settings)


@pytest.mark.parametrize("server", [f"http://{OUTSIDE}:80", f"{OUTSIDE}:80", "[2001:db8::1]:80", "ws://8.8.8.8"])
def test_paper_refuses_an_allocated_server_outside(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with allocate(server) as service, client(tmp_path, mode="paper", allocation=service.http) as trading:
        real = socket.socket.connect

        def connect(sock: socket.socket, address: Any) -> None:
            assert address[0] == "127.0.0.1", address
            real(sock, address)

        monkeypatch.setattr(socket.socket, "connect", connect)
        for call in (trading.login, trading.orders, lambda: trading.buy("600519", "10", 100)):
            with pytest.raises(jvq.TradeError, match="paper mode talks to this machine alone"):
                call()
        assert trading.intents == ()


def test_paper_refuses_a_name_that_leads_elsewhere_before_a_byte_leaves(tmp_path: Path, names: dict[str, str]) -> None:
    with Trap(own_address()) as trap:
        names["broker.example"] = own_address()
        with (
            allocate(f"http://broker.example:{trap.port}") as service,
            client(tmp_path, mode="paper", allocation=service.http) as trading,
        ):
            with pytest.raises(jvq.LoginError, match=r"is not on this machine"):
                trading.login()
    assert (trap.connections, trap.bytes) == (1, 0)


def test_paper_takes_a_name_that_leads_here(tmp_path: Path, names: dict[str, str]) -> None:
    names["broker.example"] = "127.0.0.1"
    with (
        Broker() as broker,
        allocate(f"http://broker.example:{broker.port}") as service,
        client(tmp_path, mode="paper", allocation=service.http) as trading,
    ):
        assert trading.buy("600519", "10", 100).order_id == "1334564"


@pytest.mark.parametrize("call", ["login", "check_order", "buy", "cancel"])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(call: str, status: int, tmp_path: Path) -> None:
    with Trap() as trap, Broker() as broker:
        away = respond(b"", status, b"Location: http://127.0.0.1:%d/" % trap.port)
        with paper(broker, tmp_path, polling=jvq.Polling(fast=60, slow=60)) as trading:
            order = trading.buy("600519", "10", 100) if call == "cancel" else None
            broker.answers[call] = away
            act = lambda: trading.cancel(order) if order else trading.buy("600519", "10", 100)  # noqa: E731
            with pytest.raises(jvq.TradeError, match=f"HTTP status {status}"):
                act()
        assert len(broker.calls(call)) == 1
    assert trap.connections == 0


# --- live ---


def live(folder: Path, service: ScriptServer, **settings: Any) -> jvq.TradeClient:
    return client(folder, mode="live", allocation=service.http, **settings)


@pytest.mark.parametrize("server", ["127.0.0.1:1", f"http://{OUTSIDE}:80", "localhost"])
def test_live_takes_no_fixed_server(server: str, no_sockets_and_no_files: Path) -> None:
    with pytest.raises(ValueError, match="live mode talks to the server that is allocated"):
        client(no_sockets_and_no_files, mode="live", server=server)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.9.9.9", "localhost", "LocalHost", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0",
     "[::]", "[::ffff:0.0.0.0]"],
)  # fmt: skip
def test_live_refuses_an_allocated_server_on_this_machine(host: str, tmp_path: Path) -> None:
    with Trap() as trap:
        with allocate(f"http://{host}:{trap.port}") as service, live(tmp_path, service) as trading:
            for call in (trading.login, trading.orders, lambda: trading.buy("600519", "10", 100)):
                with pytest.raises(jvq.TradeError, match="live mode does not talk to this machine"):
                    call()
            assert trading.intents == ()
    assert (trap.connections, trap.bytes) == (0, 0)


@pytest.mark.parametrize("host", ["broker.example", "127.1", "2130706433", "0x7f.1", "localhost.", "sub.localhost"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_live_refuses_a_name_that_leads_to_this_machine_before_a_byte_leaves(
    host: str, scheme: str, tmp_path: Path, names: dict[str, str]
) -> None:
    names |= {"broker.example": "127.0.0.1", "localhost.": "127.0.0.1", "sub.localhost": "127.0.0.1"}
    with Trap() as trap:
        with allocate(f"{scheme}://{host}:{trap.port}") as service, live(tmp_path, service) as trading:
            for call in (trading.login, trading.orders, lambda: trading.buy("600519", "10", 100)):
                with pytest.raises(jvq.LoginError, match="is not on another machine"):
                    call()
            assert trading.intents == ()
            assert trading.stats()["spent"] == 0
    assert (trap.connections, trap.bytes) == (3, 0)


def test_live_refuses_a_server_that_moves_to_this_machine_after_the_login(
    tmp_path: Path, names: dict[str, str]
) -> None:
    """The name led elsewhere when the account was let in; the order finds it here."""
    names["broker.example"] = own_address()
    with Broker() as broker, Trap() as trap:
        relay = socket.create_server((own_address(), trap.port))
        ended = threading.Event()

        def answer() -> None:
            with contextlib.suppress(OSError):
                while not ended.is_set():
                    sock, _ = relay.accept()
                    with sock, socket.create_connection(("127.0.0.1", broker.port), WAIT) as there:
                        sock.settimeout(WAIT)
                        there.sendall(sock.recv(65536))
                        while data := there.recv(65536):
                            sock.sendall(data)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with allocate(f"http://broker.example:{trap.port}") as service, live(tmp_path, service) as trading:
            trading.login()
            trading.orders()
            names["broker.example"] = "127.0.0.1"
            with pytest.raises(jvq.OrderNotSent, match=r"127\.0\.0\.1 is not on another machine"):
                trading.buy("600519", "10", 100)
            assert [intent.outcome for intent in trading.intents] == [jvq.Outcome.NOT_SENT]
            assert trading.unknown == ()
        ended.set()
        with contextlib.suppress(OSError):
            relay.shutdown(socket.SHUT_RDWR)
        relay.close()
        thread.join(WAIT)
        assert [call for call, _ in broker.requests] == ["login", "check_order"]
    assert (trap.connections, trap.bytes) == (1, 0)


# --- what the environment has to say ---


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ~/.netrc for every host."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login mallory password sesame\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))


def test_credentials_of_the_environment_are_not_sent(credentials: None, tmp_path: Path) -> None:
    with Broker() as broker, allocate(broker.http) as service:
        with paper(broker, tmp_path, server=None, allocation=service.http) as trading:
            order = trading.buy("600519", "10", 100)
            trading.account()
            trading.cancel(order)
    heads = broker.heads + service.heads
    assert len(heads) >= 6
    assert not any(b"uthorization" in head or b"ookie" in head for head in heads)


def test_proxies_of_the_environment_are_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Trap() as proxy, Broker() as broker, allocate(broker.http) as service:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        with paper(broker, tmp_path, server=None, allocation=service.http) as trading:
            trading.buy("600519", "10", 100)
        assert len(broker.calls("buy")) == 1
    assert proxy.connections == 0


def test_proxies_that_are_asked_for_are_used_and_get_no_credentials(
    credentials: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Broker() as broker, allocate(f"http://{OUTSIDE}:7777") as service:
        monkeypatch.setenv("http_proxy", broker.http)
        with live(tmp_path, service, proxies=True) as trading:
            trading.login()
    assert broker.heads[0].startswith(f"GET http://{OUTSIDE}:7777/login?".encode())
    assert not any(b"uthorization" in head for head in broker.heads + service.heads)


def test_where_no_proxy_stands_between_live_still_refuses_this_machine(
    tmp_path: Path, names: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names["broker.example"] = "127.0.0.1"
    monkeypatch.setenv("no_proxy", "127.0.0.1,broker.example")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with Trap() as trap:
        with (
            allocate(f"http://broker.example:{trap.port}") as service,
            live(tmp_path, service, proxies=True) as trading,
        ):
            with pytest.raises(jvq.LoginError, match="is not on another machine"):
                trading.login()
    assert trap.bytes == 0


# --- once ---


def _close(peer: Any) -> None:
    peer.sock.close()


def _half(peer: Any) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")


FAULTS: dict[str, Callable[[Any], None]] = {
    "reset": reset,
    "closed": _close,
    "half a reply": _half,
    "500": respond(b"", 500),
    "502": respond(b"<html>", 502),
    "503, retry": respond(b"", 503, b"Retry-After: 0"),
    "413, retry": respond(b"", 413, b"Retry-After: 0"),
    "408": respond(b"", 408),
    "401": respond(b"", 401, b"WWW-Authenticate: Basic"),
    "not JSON": respond(b"{"),
    "ticket expired": say(code="-2", message="ticket expired"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", ["login", "check_hold", "check_order", "buy", "sale", "cancel"])
def test_whatever_goes_wrong_nothing_is_sent_twice(call: str, fault: str, tmp_path: Path) -> None:
    with Broker() as broker:
        with paper(broker, tmp_path, polling=jvq.Polling(fast=60, slow=60), lists_to_reject=1, limits=WIDE) as trading:
            if call == "cancel":
                order = trading.buy("600519", "10", 100)
            elif call == "sale":
                trading.orders()
            broker.answers[call] = FAULTS[fault]
            before = broker.connections
            actions: dict[str, Callable[[], object]] = {
                "login": trading.login, "check_hold": trading.account, "check_order": trading.orders,
                "buy": lambda: trading.buy("600519", "10.01", 100), "sale": lambda: trading.sell("600519", "10", 100),
                "cancel": lambda: trading.cancel(order),
            }  # fmt: skip
            with pytest.raises(jvq.TradeError):
                actions[call]()
            assert len(broker.calls(call)) == 1
            kinds = [name for name, _ in broker.requests]
            assert len(kinds) == broker.connections
            assert broker.connections > before


def test_each_order_has_a_connection_of_its_own(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, polling=jvq.Polling(fast=60, slow=60)) as trading:
        trading.login()
        trading.orders()
        for number in range(5):
            trading.buy("600519", f"10.0{number}", 100)
        assert broker.connections == len(broker.requests) == 7
        assert all(b"onnection: close" in head for head in broker.heads)
        assert all(head.startswith(b"GET /") for head in broker.heads)


def test_an_order_that_finds_nobody_was_not_sent(tmp_path: Path) -> None:
    with Broker() as broker:
        trading = paper(broker, tmp_path)
        trading.login()
        trading.orders()
    with pytest.raises(jvq.OrderNotSent, match="refused") as caught:
        trading.buy("600519", "10", 100)
    assert caught.value.intent.outcome is jvq.Outcome.NOT_SENT
    assert trading.unknown == ()
    trading.close()


def test_an_order_that_hangs_is_unknown_and_sent_once(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, timeout=0.3, limits=WIDE) as trading:
        trading.orders()
        broker.answers["buy"] = hang
        with pytest.raises(jvq.OrderUnknown, match=r"no reply within 0\.3 s"):
            trading.buy("600519", "10", 100)
        with pytest.raises(jvq.RiskError, match="unknown"):
            trading.buy("600519", "10.01", 100)
        assert len(broker.calls("buy")) == 1


# --- threads and processes ---


def test_blocking_calls_are_refused_on_the_thread_of_a_feed(tmp_path: Path) -> None:
    with Broker() as broker, ScriptServer(serve(binary(trade(1)))) as server:
        feed = jvq.Feed(TOKEN, "lv2_600519", server=server.ws)
        trading = paper(broker, tmp_path)
        order = trading.buy("600519", "10", 100)
        before = len(broker.requests)
        raised: list[str] = []
        futures: list[Any] = []

        @feed.on_trades
        def on_trades(code: str, trades: Any) -> None:
            calls: list[Callable[[], object]] = [
                trading.login, trading.account, trading.positions, trading.orders,
                lambda: trading.buy("600519", "10.01", 100), lambda: trading.sell("600519", "10", 100),
                lambda: trading.cancel(order), lambda: trading.wait(order, 1),
            ]  # fmt: skip
            for call in calls:
                try:
                    call()
                except RuntimeError as error:
                    raised.append(str(error))
            assert len(trading.intents) == 1
            futures.extend(
                [
                    trading.submit_buy("600519", "10.01", 100),
                    trading.submit_sell("600519", "10", 100),
                    trading.submit_cancel(order),
                ]
            )
            feed.stop()

        watchdog = threading.Timer(WAIT, feed.stop)
        watchdog.start()
        feed.run()
        watchdog.cancel()
        assert len(raised) == 8
        assert all("submit_buy" in text for text in raised)
        assert [future.result(WAIT) is not None for future in futures] == [True] * 3
        assert len(broker.requests) > before
        # The same thread is free again once the feed has ended.
        trading.orders()
        trading.close()


def test_blocking_calls_are_refused_beside_a_feed_in_a_loop_of_ones_own(tmp_path: Path) -> None:
    with ScriptServer(serve(binary(trade(1)))) as server:
        feed = jvq.Feed(TOKEN, "lv2_600519", server=server.ws)
        dry = client(tmp_path, mode="dry")
        raised: list[str] = []

        @feed.on_batch
        def on_batch(n: int) -> None:
            try:
                dry.buy("600519", "10", 100)
            except RuntimeError as error:
                raised.append(str(error))
            feed.stop()

        asyncio.run(asyncio.wait_for(feed.run_async(), WAIT))
        assert len(raised) == 1
        assert dry.intents == ()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_is_refused(tmp_path: Path) -> None:
    with Broker() as broker, paper(broker, tmp_path, limits=WIDE) as trading:
        order = trading.buy("600519", "10", 100)
        broker.answers["buy"] = reset
        with pytest.raises(jvq.OrderUnknown):
            trading.buy("600519", "10.01", 100)
        (unknown,) = trading.unknown
        journal = (tmp_path / "journal").read_bytes()
        requests = len(broker.calls("login", "buy", "sale", "cancel", "check_hold"))
        calls: list[Callable[[], object]] = [
            trading.login, trading.orders, trading.account, trading.positions, trading.start,
            lambda: trading.buy("600519", "10", 100), lambda: trading.sell("600519", "10", 100),
            lambda: trading.cancel(order), lambda: trading.wait(order, 1),
            lambda: trading.submit_buy("600519", "10", 100), lambda: trading.submit_sell("600519", "10", 100),
            lambda: trading.submit_cancel(order), lambda: trading.resolve(unknown, "rejected"),
        ]  # fmt: skip
        child = os.fork()
        if not child:
            status = 1
            try:
                refused = 0
                for call in calls:
                    try:
                        call()
                    except jvq.TradeError as error:
                        refused += "forked" in str(error)
                trading.close()
                status = 0 if refused == len(calls) else 2 + refused
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(broker.calls("login", "buy", "sale", "cancel", "check_hold")) == requests
        assert (tmp_path / "journal").read_bytes()[: len(journal)] == journal
        # The parent goes on: its journal is still its own.
        with pytest.raises(jvq.AccountInUseError):
            paper(broker, tmp_path)
        assert trading.resolve(unknown, "rejected").outcome is jvq.Outcome.REJECTED


def test_a_closed_client_is_refused(tmp_path: Path) -> None:
    with Broker() as broker:
        trading = paper(broker, tmp_path, limits=WIDE, polling=jvq.Polling(fast=60, slow=60))
        trading.orders()
        broker.answers["buy"] = reset
        with pytest.raises(jvq.OrderUnknown) as caught:
            trading.buy("600519", "10.01", 100)
        trading.close()
        trading.close()
        unknown = caught.value.intent
        calls: list[Callable[[], object]] = [
            trading.login, trading.orders, lambda: trading.buy("600519", "10", 100),
            lambda: trading.submit_buy("600519", "10", 100), lambda: trading.resolve(unknown, "rejected"),
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(jvq.TradeError, match="closed"):
                call()
        assert trading.unknown == (unknown,)
        with paper(broker, tmp_path, limits=WIDE, polling=jvq.Polling(fast=60, slow=60)) as again:
            assert [each.number for each in again.unknown] == [unknown.number]
