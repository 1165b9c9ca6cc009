"""What the fault proxy does to a connection, shown with plain sockets; and that a feed can use it."""

import contextlib
import json
import queue
import random
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import jvq_fast as jvq
from proxy import Faults, Proxy
from simulator import TOKEN, Simulator
from this_process import descriptors
from ws_script import ScriptServer, reply, serve

TIMEOUT = 10.0
DATA = bytes(range(256)) * 16


@contextlib.contextmanager
def pair(**settings: Any) -> Iterator[tuple[Proxy, socket.socket, socket.socket]]:
    """A proxy and one connection through it: the client's end and the server's."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(TIMEOUT)
        proxy = stack.enter_context(Proxy(f"127.0.0.1:{listener.getsockname()[1]}", **settings))
        yield proxy, *connect(proxy, listener, stack)


def connect(proxy: Proxy, listener: socket.socket, stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    client = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port), TIMEOUT))
    server = stack.enter_context(listener.accept()[0])
    for sock in (client, server):
        sock.settimeout(TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client, server


def read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        assert more, f"ended after {len(data)} of {size} bytes"
        data += more
    return data


def rest(sock: socket.socket) -> bytes:
    """All up to the FIN."""
    data = b""
    while more := sock.recv(65536):
        data += more
    return data


def ask_for(sock: socket.socket, data: bytes) -> bytes:
    sock.sendall(data)
    return sock.recv(1)


def is_silent(sock: socket.socket, seconds: float = 0.2) -> bool:
    sock.settimeout(seconds)
    try:
        data = sock.recv(1)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(TIMEOUT)
    raise AssertionError(f"{data!r}")


def test_without_faults_everything_passes_both_ways() -> None:
    big = random.Random(1).randbytes(3_000_000)
    with pair(record=True) as (proxy, client, server):
        client.sendall(b"up")
        assert read(server, 2) == b"up"
        writer = threading.Thread(target=server.sendall, args=(big,))
        writer.start()
        assert read(client, len(big)) == big
        writer.join(TIMEOUT)
        (link,) = proxy.links
        proxy.wait(lambda: link.down.written == len(big))
        assert bytes(link.down.data or b"") == big
        assert proxy.counters() == {
            "connections": 1,
            "open": 1,
            "allocations": 0,
            "up_read": 2,
            "up_written": 2,
            "up_swallowed": 0,
            "up_corrupted": 0,
            "down_read": len(big),
            "down_written": len(big),
            "down_swallowed": 0,
            "down_corrupted": 0,
        }


@pytest.mark.parametrize("first", ["client", "server"])
def test_an_end_is_handed_on_and_leaves_the_other_direction_open(first: str) -> None:
    with pair() as (proxy, client, server):
        one, other = (client, server) if first == "client" else (server, client)
        one.sendall(b"last words")
        one.shutdown(socket.SHUT_WR)
        assert rest(other) == b"last words"
        other.sendall(DATA)
        other.close()
        assert rest(one) == DATA
        proxy.wait(lambda: not proxy.open_links)


def test_a_reader_that_reads_nothing_holds_its_writer_up() -> None:
    with pair() as (_, client, server):
        server.setblocking(False)
        sent = 0
        idle_since = time.monotonic()
        while time.monotonic() < idle_since + 0.5 and sent < 1 << 28:
            with contextlib.suppress(BlockingIOError):
                sent += server.send(bytes(1 << 16))
                idle_since = time.monotonic()
        assert sent < 1 << 26
        assert len(read(client, sent)) == sent


def test_delay_and_jitter_keep_the_order() -> None:
    with pair(down=Faults(delay=0.05, jitter=0.05), record=True) as (_, client, server):
        began = time.monotonic()
        for i in range(0, len(DATA), 64):
            server.sendall(DATA[i : i + 64])
            time.sleep(0.001)
        assert read(client, 1) == DATA[:1]
        assert time.monotonic() - began >= 0.05
        assert read(client, len(DATA) - 1) == DATA[1:]
        client.sendall(b"not delayed")
        assert read(server, 11) == b"not delayed"


def test_bandwidth_is_a_ceiling() -> None:
    with pair(down=Faults(bandwidth=20_000)) as (_, client, server):
        began = time.monotonic()
        server.sendall(DATA)
        assert read(client, len(DATA)) == DATA
        assert time.monotonic() - began >= len(DATA) / 20_000 * 0.9


def test_merge_makes_one_write_of_many() -> None:
    with pair(down=Faults(merge=0.3)) as (proxy, client, server):
        for i in range(100):
            server.sendall(DATA[i : i + 1])
        assert client.recv(4096) == DATA[:100]
        proxy.wait(lambda: proxy.links[0].down.pieces == 1)


@pytest.mark.parametrize(("split", "pieces"), [(1, 12), (5, 3), ((1, 2), 8), ((7, 100), 2)])
def test_split_makes_many_writes_of_one(split: Any, pieces: int) -> None:
    with pair(down=Faults(split=split, pause=0.02)) as (proxy, client, server):
        server.sendall(b"twelve bytes")
        reads = []
        while len(b"".join(reads)) < 12:
            reads.append(client.recv(100))
        assert b"".join(reads) == b"twelve bytes"
        proxy.wait(lambda: proxy.links[0].down.pieces == pieces)
        sizes = [split] if isinstance(split, int) else split
        assert len(reads[0]) == sizes[0]


def test_split_of_much_stays_complete() -> None:
    big = random.Random(2).randbytes(100_000)
    with pair(down=Faults(split=1)) as (proxy, client, server):
        server.sendall(big)
        assert read(client, len(big)) == big
        proxy.wait(lambda: proxy.links[0].down.pieces == len(big))


@pytest.mark.parametrize("abrupt", [False, True])
@pytest.mark.parametrize("size", [0, 1, 1000])
def test_truncate_ends_both_sides_after_so_many_bytes(size: int, abrupt: bool) -> None:
    with pair() as (proxy, client, server):
        server.sendall(b"before")
        assert read(client, 6) == b"before"
        proxy.set("down", truncate=size, abrupt=abrupt)
        if abrupt:
            with pytest.raises(ConnectionError):
                ask_for(server, DATA)
            with pytest.raises(ConnectionError):
                read(client, len(DATA))
        else:
            server.sendall(DATA)
            assert rest(client) == DATA[:size]
            assert server.recv(1) == b""
        assert proxy.links[0].down.written == 6 + size
        assert not proxy.open_links


def test_truncate_counts_on_each_connection_from_its_start() -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        proxy = stack.enter_context(Proxy(f"127.0.0.1:{listener.getsockname()[1]}", up=Faults(truncate=3)))
        for _ in range(3):
            client, server = connect(proxy, listener, stack)
            client.sendall(b"abcdef")
            assert rest(server) == b"abc"
            assert rest(client) == b""


def test_corrupt_changes_the_places_named_and_only_those() -> None:
    with pair(down=Faults(corrupt={0, 77, 4095})) as (proxy, client, server):
        server.sendall(DATA[:100])
        server.sendall(DATA[100:])
        got = read(client, len(DATA))
        assert [i for i in range(len(DATA)) if got[i] != DATA[i]] == [0, 77, 4095]
        assert proxy.counters()["down_corrupted"] == 3
        proxy.set("down", corrupt={1})
        server.sendall(DATA)
        got = read(client, len(DATA))
        assert [i for i in range(len(DATA)) if got[i] != DATA[i]] == [1]


def test_corruption_by_rate_follows_from_the_seed() -> None:
    def damaged(seed: int) -> bytes:
        with pair(seed=seed, down=Faults(corrupt_rate=0.01)) as (_, client, server):
            server.sendall(DATA)
            return read(client, len(DATA))

    one, same, other = damaged(1), damaged(1), damaged(2)
    assert one == same != other
    assert 10 < sum(a != b for a, b in zip(one, DATA, strict=True)) < 100


def test_reset_of_both_sides() -> None:
    with pair() as (proxy, client, server):
        proxy.reset()
        for sock in (client, server):
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        assert not proxy.open_links


@pytest.mark.parametrize("side", ["client", "server"])
def test_reset_of_one_side_leaves_the_other_half_open(side: Any) -> None:
    with pair() as (proxy, client, server):
        proxy.reset(side)
        gone, left = (client, server) if side == "client" else (server, client)
        with pytest.raises(ConnectionResetError):
            gone.recv(1)
        left.sendall(DATA)
        assert is_silent(left)
        assert len(proxy.open_links) == 1
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            left.recv(1)


def test_close_is_a_fin_on_both_sides() -> None:
    with pair() as (proxy, client, server):
        server.sendall(DATA)
        assert read(client, len(DATA)) == DATA
        proxy.close()
        assert rest(client) == rest(server) == b""
        assert not proxy.open_links


@pytest.mark.parametrize("direction", ["up", "down", "both"])
def test_half_open_swallows_without_an_error(direction: Any) -> None:
    with pair() as (proxy, client, server):
        proxy.half_open(direction)
        for name, sender, receiver in (("up", client, server), ("down", server, client)):
            sender.sendall(DATA)
            if direction in (name, "both"):
                assert is_silent(receiver)
            else:
                assert read(receiver, len(DATA)) == DATA
        proxy.wait(lambda: proxy.counters()["open"] == 1)
        lost = proxy.counters()
        assert lost["up_swallowed"] == (len(DATA) if direction != "down" else 0)
        assert lost["down_swallowed"] == (len(DATA) if direction != "up" else 0)


def test_half_open_for_the_connections_there_are() -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(TIMEOUT)
        proxy = stack.enter_context(Proxy(f"127.0.0.1:{listener.getsockname()[1]}"))
        client, server = connect(proxy, listener, stack)
        proxy.half_open(lasting=False)
        server.sendall(DATA)
        assert is_silent(client)
        client, server = connect(proxy, listener, stack)
        server.sendall(DATA)
        assert read(client, len(DATA)) == DATA


@pytest.mark.parametrize("how", ["close", "reset"])
def test_half_open_hides_the_end_of_either_side(how: str) -> None:
    with pair() as (proxy, client, server):
        proxy.half_open()
        if how == "reset":
            server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        server.close()
        assert is_silent(client)
        client.sendall(DATA)
        assert is_silent(client)
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_heal_leaves_a_connection_alone_that_has_lost_nothing() -> None:
    with pair(down=Faults(delay=0.05)) as (proxy, client, server):
        proxy.heal()
        server.sendall(DATA)
        assert read(client, len(DATA)) == DATA


def test_refuse_and_accept_on_the_same_port() -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(TIMEOUT)
        proxy = stack.enter_context(Proxy(f"127.0.0.1:{listener.getsockname()[1]}"))
        client, server = connect(proxy, listener, stack)
        for _ in range(2):
            proxy.refuse()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", proxy.port), TIMEOUT)
            # What was connected stays connected, and nobody else gets the port.
            server.sendall(b"still there")
            assert read(client, 11) == b"still there"
            with pytest.raises(OSError, match="in use"), socket.socket() as other:
                other.bind(("127.0.0.1", proxy.port))
            proxy.accept()
            connect(proxy, listener, stack)


def test_move_resets_and_listens_elsewhere() -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(TIMEOUT)
        proxy = stack.enter_context(Proxy(f"127.0.0.1:{listener.getsockname()[1]}"))
        client, _ = connect(proxy, listener, stack)
        old = proxy.port
        proxy.move()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert proxy.port != old
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", old), TIMEOUT)
        client, server = connect(proxy, listener, stack)
        server.sendall(b"here")
        assert read(client, 4) == b"here"


def test_a_server_that_refuses_shows_as_a_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with Proxy(f"127.0.0.1:{port}") as proxy:
        with pytest.raises(ConnectionResetError):
            # The RST may come before the connect is noticed to be done.
            with socket.create_connection(("127.0.0.1", proxy.port), TIMEOUT) as client:
                client.recv(1)
        proxy.wait(lambda: not proxy.open_links)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda proxy: proxy.set("sideways", delay=1),
        lambda proxy: proxy.set("up", delay=-1),
        lambda proxy: proxy.set("up", split=(3, 0)),
        lambda proxy: proxy.retarget("nowhere"),
    ],
)
def test_wrong_arguments(wrong: Callable[[Proxy], None]) -> None:
    with Proxy("127.0.0.1:1") as proxy, pytest.raises(ValueError):
        wrong(proxy)


def left() -> int:
    """Open descriptors, but for files and the pipes of children that other tests have running."""
    return sum(not each.partition(" ")[2].startswith(("pipe:", "/")) for each in descriptors())


def test_nothing_is_left_behind() -> None:
    def run() -> None:
        with pair() as (proxy, client, server):
            urllib.request.urlopen(proxy.http + "/query/server", timeout=TIMEOUT).close()
            proxy.set("both", delay=30)
            client.sendall(DATA)
            server.sendall(DATA)
            proxy.wait(lambda: proxy.counters()["down_read"] == len(DATA))
        with pair() as (proxy, _, _):
            proxy.close()
        with pair() as (proxy, _, _):
            proxy.half_open()
            proxy.refuse()
        proxy.stop()

    run()
    threads, before = set(threading.enumerate()), left()
    for _ in range(5):
        run()
    assert set(threading.enumerate()) == threads
    assert left() == before


def ask(service: str) -> Any:
    with urllib.request.urlopen(f"{service}/query/server?market=ab&type=websocket&token={TOKEN}", timeout=TIMEOUT) as r:
        return json.loads(r.read())


def test_allocation_leads_through_the_proxy() -> None:
    with Proxy("127.0.0.1:1") as proxy:
        assert ask(proxy.http) == {"code": "0", "server": proxy.ws}
        proxy.move()
        assert ask(proxy.http) == {"code": "0", "server": proxy.ws}
        assert len(proxy.allocations) == proxy.counters()["allocations"] == 2


def test_allocation_is_asked_of_the_service_and_its_refusals_are_handed_on() -> None:
    def hang_up(peer: Any) -> None:
        peer.read_head()

    with ScriptServer(serve(b"hello", subscribed=False)) as market:
        good = reply(200, json.dumps({"code": "0", "server": f"{market.ws}/", "more": 1}).encode())
        refusal = reply(200, b'{"code":"-1","message":"no"}')
        with ScriptServer(good, refusal, reply(503, b"busy"), reply(200, b"[]"), hang_up) as service:
            with Proxy("127.0.0.1:1", allocation=service.http) as proxy:
                assert ask(proxy.http) == {"code": "0", "server": proxy.ws, "more": 1}
                with socket.create_connection(("127.0.0.1", proxy.port), TIMEOUT) as client:
                    client.sendall(b"GET / HTTP/1.1\r\nSec-WebSocket-Key: x\r\n\r\n")
                    assert client.recv(100).startswith(b"HTTP/1.1 101")
                assert ask(proxy.http) == {"code": "-1", "message": "no"}
                with pytest.raises(urllib.error.HTTPError, match="503") as caught:
                    ask(proxy.http)
                caught.value.close()
                assert ask(proxy.http) == []
                with pytest.raises(OSError):
                    ask(proxy.http)


def test_a_proxy_before_the_allocation_service() -> None:
    with Proxy("127.0.0.1:1") as market, Proxy(market.http) as front:
        assert ask(f"http://{front.address}")["server"] == market.ws
        front.refuse()
        with pytest.raises(OSError, match="refused"):
            ask(f"http://{front.address}")


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator("--seed", "5", "--speed", "10") as sim:
        yield sim


@pytest.mark.parametrize("way", ["server", "allocation"])
def test_a_feed_through_the_proxy(sim: Simulator, way: str) -> None:
    with Proxy(sim.ws, allocation=sim.http) as proxy:
        where: Any = {"server": proxy.ws} if way == "server" else {"allocation": proxy.http}
        feed = jvq.Feed(
            TOKEN,
            ["lv2_600519", "lv1_600519"],
            clock="always",
            backoff_min=0.01,
            backoff_max=0.02,
            allocation_interval=0.02,
            **where,
        )
        batches: queue.Queue[int] = queue.Queue()
        gaps: list[jvq.Gap] = []
        feed.on_batch(batches.put)
        feed.on_gap(gaps.append)
        with feed:
            batches.get(timeout=TIMEOUT)
            for loss in range(1, 4):
                if way == "allocation":
                    proxy.move()
                else:
                    proxy.reset()
                proxy.wait(lambda loss=loss: len(gaps) == loss)
            assert feed.stats()["server"] == proxy.ws
        assert len(proxy.links) == 4
        assert len(proxy.allocations) == (4 if way == "allocation" else 0)
