"""Every switch of the simulator changes what a client sees."""

import json
import re
import urllib.request
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.sync.client import connect

from jvq_fast.sim.deflate import deflate
from simulator import TOKEN, Peer, Simulator

TIME = r"\d\d:\d\d:\d\d"
Rows = list[list[str]]


def collect(*options: str, names: str = "lv1_600519,lv2_600519,lv10_600519", records: int = 60) -> Peer:
    with Simulator("--speed", "10", *options) as sim, Peer(sim.url()) as peer:
        peer.send(f"all={names}")
        peer.until(lambda peer: peer.count() >= records and len(peer.rows("lv10")) + len(peer.rows("lv1")) > 2)
    return peer


def test_the_defaults_are_what_the_protocol_says() -> None:
    peer = collect()
    assert peer.texts == ["0#订阅成功:3"]
    for record in peer.rows("lv2"):
        assert len(record) == 4
        assert re.fullmatch(TIME + r"\.\d{3}", record[0])
        assert re.fullmatch(r"\d+ \d+\.\d\d \d+", " ".join(record[1:]))
    assert not any(message.text.endswith("\n") for message in peer.messages)
    quote = peer.rows("lv1")[-1]
    assert re.fullmatch(TIME, quote[0])
    assert float(quote[4]) / float(quote[5]) == pytest.approx(float(quote[2]), rel=0.05)  # amount first
    depth = peer.rows("lv10")[-1]
    assert all(abs(float(price) / float(depth[2]) - 1) < 0.05 for price in depth[6:16])  # prices first


@pytest.mark.parametrize(
    ("options", "level", "holds"),
    [
        (["--lv1-order", "volume_first"], "lv1", lambda r: float(r[-1][5]) / float(r[-1][4]) > 1000),
        (["--lv10-order", "volume_first"], "lv10", lambda r: all("." in x for x in r[-1][16:26] + r[-1][36:46])
            and not any("." in x for x in r[-1][6:16] + r[-1][26:36])),
        (["--volumes", "decimals"], "lv2", lambda r: all(x[3].endswith(".00") for x in r)),
        (["--volumes", "decimals"], "lv1", lambda r: r[-1][5].endswith(".00") and r[-1][6].endswith(".00")),
        (["--ids", "text"], "lv2", lambda r: all(re.fullmatch("T[0-9a-f]+", x[1]) for x in r)),
        (["--time-digits", "0"], "lv2", lambda r: all(re.fullmatch(TIME, x[0]) for x in r)),
        (["--time-digits", "6"], "lv2", lambda r: len({x[0][-3:] for x in r}) > 5),
        (["--time-digits", "9"], "lv2", lambda r: all(re.fullmatch(TIME + r"\.\d{9}", x[0]) for x in r)),
    ],
)  # fmt: skip
def test_forms_of_numbers_and_orders_of_fields(options: list[str], level: str, holds: Callable[[Rows], bool]) -> None:
    assert holds(collect(*options).rows(level))


def test_the_slip_of_the_old_document_swaps_id_and_time_after_the_first() -> None:
    peer = collect("--lv2-second", "id_first", "--gather-ms", "5")
    rows = [records for message in peer.messages for level, _, records in message.rows if level == "lv2"]
    assert any(len(records) > 1 for records in rows)
    for first, *others in rows:
        assert ":" in first[0]
        assert all(":" in record[1] for record in others)


@pytest.mark.parametrize(
    ("form", "volume", "price"),
    [("zero", "0", "0.00"), ("bare", "0", "0"), ("blank", "", ""), ("no_price", "0", "")],
)
def test_forms_of_an_empty_level(form: str, volume: str, price: str) -> None:
    peer = collect("--empty-levels", form, "--limit-up", "600519", "--limit-down", "000001",
                   names="lv1_600519,lv10_600519,lv1_000001", records=6)  # fmt: skip
    for quote in peer.rows("lv1", "600519"):
        assert quote[16:] == [volume, price] * 5
        assert int(quote[6]) > 0
    for quote in peer.rows("lv1", "000001"):
        assert quote[6:16] == [volume, price] * 5
        assert int(quote[16]) > 0
    for depth in peer.rows("lv10"):
        assert depth[26:] == [price] * 10 + [volume] * 10


@pytest.mark.parametrize(("form", "fields"), [("full", {26, 46}), ("short", {6}), ("none", set())])
def test_forms_of_an_index_row(form: str, fields: set[int]) -> None:
    peer = collect("--index-rows", form, names="lv1_i000001,lv10_i000001,lv1_600519", records=12)
    assert {len(record) for level in ("lv1", "lv10") for record in peer.rows(level, "i000001")} == fields


def test_volumes_of_bonds_and_funds_may_be_lots() -> None:
    names = "lv1_113050,lv2_113050,lv1_510300,lv2_510300,lv1_600519,lv2_600519"
    peer = collect("--volume-unit", "lots", names=names, records=300)
    for code, unit in (("113050", 10), ("510300", 100), ("600519", 1)):
        volume = 0
        for message in peer.messages:
            for level, row_code, records in message.rows:
                for record in records if row_code == code else ():
                    if level == "lv2":
                        volume += int(record[3])
                    else:
                        assert int(record[5]) * unit == volume


def test_cancellations_at_price_zero_come_from_shenzhen_only() -> None:
    peer = collect("--cancels", "0.5", names="lv2_000001,lv2_600519,lv1_i000001", records=400)
    assert any(float(record[2]) == 0 for record in peer.rows("lv2", "000001"))
    assert all(float(record[2]) > 0 for record in peer.rows("lv2", "600519"))


def test_a_trailing_newline() -> None:
    assert all(message.text.endswith("\n") for message in collect("--trailing-newline").messages)


def test_gathering_makes_fewer_and_larger_messages() -> None:
    peer = collect("--gather-ms", "100", records=1500)
    assert peer.count() / len(peer.messages) > 20


def block_type(payload: bytes) -> int:
    return payload[0] >> 1 & 3


@pytest.mark.parametrize(("kind", "types"), [("stored", {0}), ("fixed", {1}), ("dynamic", {2}), ("mixed", {0, 1, 2})])
def test_kinds_of_deflate_blocks(kind: str, types: set[int]) -> None:
    peer = collect("--deflate", kind)
    assert {block_type(payload) for payload in peer.payloads} == types


def test_a_flushed_stream_ends_in_an_empty_stored_block() -> None:
    assert all(payload.endswith(b"\x01\x00\x00\xff\xff") for payload in collect("--deflate", "flushed").payloads)


def test_the_level_of_compression() -> None:
    def size(level: str) -> int:
        peer = collect("--deflate-level", level, "--gather-ms", "50", "--seed", "4", records=4000)
        return sum(map(len, peer.payloads)) * 1000 // sum(len(message.text.encode()) for message in peer.messages)

    assert size("9") < size("1")


texts = st.text("0123456789.,:|", max_size=3000).map(str.encode)


@given(data=st.binary(max_size=3000) | texts, level=st.integers(1, 9))
def test_whatever_the_kind_of_block_zlib_reads_it_back(data: bytes, level: int) -> None:
    for kind in ("auto", "dynamic", "fixed", "stored", "flushed", "mixed"):
        inflate = zlib.decompressobj(-15)
        assert inflate.decompress(deflate(kind, level)(data)) == data
        assert inflate.eof
        assert not inflate.unused_data


def test_a_skewed_text_still_gets_a_legal_code() -> None:
    data = b"".join(bytes([symbol]) * (1 << symbol) for symbol in range(18))  # would need codes longer than 15 bits
    assert zlib.decompress(deflate("dynamic", 6)(data), -15) == data


def test_messages_in_fragments_with_pings_between_messages() -> None:
    with Simulator("--fragments", "3", "--ping-every", "0.05") as sim:
        with connect(sim.url(), compression=None, proxy=None, ping_interval=None) as client:
            client.send("all=lv2_600519")
            client.recv(timeout=10)
            for _ in range(20):
                fragments = list(client.recv_streaming())
                assert len(fragments) in (2, 3)
                assert zlib.decompress(b"".join(fragments), -15).startswith(b"lv2_600519=")  # type: ignore[arg-type]


@pytest.mark.parametrize(("option", "answered"), [("--pong", True), ("--no-pong", False)])
def test_pings_are_answered_or_not(option: str, answered: bool) -> None:
    with Simulator(option) as sim, Peer(sim.url()) as peer:
        pong = peer.socket.ping()
        peer.send("list")
        peer.text()
        assert pong.wait(timeout=0.5) is answered


@pytest.mark.parametrize(
    ("options", "add", "list_"),
    [
        (["--ack", "text"], "添加成功:1", "lv1_600519"),
        (["--ack", "none"], None, "lv1_600519"),
        (["--ack-text", "好"], "0#好", "0#lv1_600519"),
        (["--ack", "json"], {"code": "0", "message": "添加成功:1"}, {"code": "0", "message": "lv1_600519"}),
    ],
)
def test_forms_of_replies(options: list[str], add: object, list_: object) -> None:
    with Simulator(*options) as sim, Peer(sim.url()) as peer:
        peer.send("add=lv1_600519")
        peer.send("list")
        for expected in (add, list_) if add else (list_,):
            text = peer.text()
            assert (json.loads(text) if isinstance(expected, dict) else text) == expected


def test_at_most_so_many_codes() -> None:
    with Simulator("--max-codes", "2") as sim, Peer(sim.url()) as peer:
        peer.send("add=lv1_600519,lv1_000001,lv1_000002,lv2_000001")
        peer.text()
        peer.send("list")
        assert peer.text() == "0#lv1_600519,lv1_000001,lv2_000001"


def allocate(sim: Simulator, path: str = "/query/server", token: str = TOKEN) -> dict[str, object]:
    url = f"{sim.http}{path}?market=ab&type=websocket&token={token}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as reply:
        return dict(json.loads(reply.read()))


@pytest.mark.parametrize(
    ("options", "address"),
    [
        (["--no-allocation-scheme"], "{host}"),
        (["--allocation-slash"], "ws://{host}/"),
        (["--allocation-path", "/feed/ab"], "ws://{host}/feed/ab"),
        (["--no-allocation-scheme", "--allocation-path", "feed", "--allocation-slash"], "{host}/feed/"),
    ],
)
def test_forms_of_the_address(options: list[str], address: str) -> None:
    with Simulator(*options) as sim:
        assert allocate(sim)["server"] == address.format(host=sim.ws.removeprefix("ws://"))


def test_forms_of_an_allocation_reply() -> None:
    with Simulator("--allocation-code", "number", "--allocation-message", "msg", "--allocation-interval", "60") as sim:
        assert allocate(sim)["code"] == 0
        again = allocate(sim)
        assert again["code"] == -1
        assert again["msg"]
        assert allocate(sim, token="e" * 32)["code"] == 0
    with Simulator("--no-allocation-check") as sim:
        assert allocate(sim, token="bad")["code"] == "0"


@pytest.mark.parametrize(("route", "other"), [("query", "/server"), ("server", "/query/server")])
def test_the_route_of_allocation(route: str, other: str) -> None:
    with Simulator("--allocation-route", route) as sim:
        assert allocate(sim, "/query/server" if route == "query" else "/server")["code"] == "0"
        with pytest.raises(urllib.request.HTTPError):  # type: ignore[attr-defined]
            allocate(sim, other)


def test_ports_of_ones_choice() -> None:
    with Simulator() as free:
        http, ws = free.http.rpartition(":")[2], free.ws.rpartition(":")[2]
    with Simulator("--port", http, "--ws-port", ws) as sim:
        assert sim.http.endswith(":" + http)
        assert sim.ws.endswith(":" + ws)
