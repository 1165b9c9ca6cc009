"""The simulator as a client sees it: allocation, commands, messages, accounts, and what it survives."""

import itertools
import json
import os
import select
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from simulator import ROOT, TOKEN, Peer, Simulator

DEMO = ["600519", "000001", "300750", "601318", "510300", "113050"]


def subscription(codes: list[str], levels: str = "lv1 lv2 lv10") -> str:
    return ",".join(f"{level}_{code}" for code in codes for level in levels.split())


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator("--seed", "11") as simulator:
        yield simulator


def allocate(sim: Simulator, query: str, *, path: str = "/query/server", proxy: bool = False) -> dict[str, str]:
    proxies = {"http": sim.http} if proxy else {}
    base = "http://jvquant.com" if proxy else sim.http
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    with opener.open(f"{base}{path}?{query}", timeout=10) as reply:
        return dict(json.loads(reply.read()))


# The process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_with_status_zero_even_in_full_flow(number: int) -> None:
    with Simulator("--speed", "max") as sim, Peer(sim.url()) as peer:
        peer.send(f"all={subscription(DEMO)}")
        peer.until(lambda peer: peer.count() > 1000)
        assert sim.stop(number) == 0
        assert sim.errors() == ""


def test_without_json_the_ready_line_is_for_people() -> None:
    command = [sys.executable, "-m", "jvq_fast.sim", "--day", "2026-11-23"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
        process.terminate()
        assert process.wait(10) == 0
    assert "http://127.0.0.1:" in line
    assert "ws://127.0.0.1:" in line
    assert "2026-11-23" in line


def test_what_it_writes_into_a_fifo_opened_for_both_is_no_end_of_its_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "fifo")
    with open(os.open(tmp_path / "fifo", os.O_RDWR), "wb", buffering=0) as fifo:  # noqa: PTH123
        program = "from jvq_fast.sim import __main__, command; command._LEFT_ALONE = 0; __main__.main()"
        process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=fifo)
        try:
            assert select.select([fifo.fileno()], [], [], 30)[0], "no line"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.5)
        finally:
            process.kill()
            process.wait(10)


@pytest.mark.parametrize("when", ["before the line", "after the line"])
def test_it_ends_with_who_reads_its_output(when: str) -> None:
    to_read, to_write = os.pipe()
    with open(to_read) as reader, open(to_write, "w") as writer:  # noqa: PTH123
        if when == "before the line":
            reader.close()
        command = [sys.executable, "-m", "jvq_fast.sim", "--json"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=writer.fileno(), stderr=subprocess.PIPE, text=True)
        try:
            if when == "after the line":
                assert json.loads(reader.readline())["http"]
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.5)
                reader.close()
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(3)  # it may be connected to yet
            assert process.communicate(timeout=30) == (None, "")
            assert process.returncode == 0
        finally:
            process.kill()
            process.wait(10)


@pytest.mark.parametrize(
    "options",
    [["--from", "25:00"], ["--speed", "fast"], ["--time-digits", "10"], ["--replay", "/nowhere.csv"], ["--day", "x"]],
)
def test_options_that_make_no_sense_end_it_with_status_two(options: list[str]) -> None:
    command = [sys.executable, "-m", "jvq_fast.sim", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.count("Traceback") == 0
    assert done.stderr


def test_it_needs_no_processor_while_nobody_listens() -> None:
    def used() -> float:
        fields = Path(f"/proc/{sim.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    with Simulator("--speed", "max") as sim:
        for _ in range(2):
            before = used()
            time.sleep(1)
            assert used() - before < 0.2
            with Peer(sim.url()) as peer:
                peer.send(f"all={subscription(DEMO)}")
                peer.until(lambda peer: peer.count() > 100)
            sim.wait(lambda stats: not any(each["open"] for each in stats["connections"]))


# Allocation


@pytest.mark.parametrize("path", ["/query/server", "/server"])
@pytest.mark.parametrize("proxy", [False, True])
def test_allocation_answers_in_origin_and_in_absolute_form(sim: Simulator, path: str, proxy: bool) -> None:
    reply = allocate(sim, f"market=ab&type=websocket&token={TOKEN}", path=path, proxy=proxy)
    assert reply == {"code": "0", "server": sim.ws}


@pytest.mark.parametrize(
    "query",
    ["market=ab&type=websocket&token=short", "market=ab&type=websocket", f"market=mars&type=websocket&token={TOKEN}",
     f"market=ab&type=nothing&token={TOKEN}", ""],
)  # fmt: skip
def test_allocation_refuses_what_is_wrong(sim: Simulator, query: str) -> None:
    reply = allocate(sim, query)
    assert reply["code"] != "0"
    assert reply["message"]
    assert "server" not in reply


@pytest.mark.parametrize(
    "raw",
    [b"\r\n\r\n", b"GET\r\n\r\n", b"\x00" * 70_000, b"GET /stats HTTP/9\r\n\r\n", b"POST /stats HTTP/1.1\r\n\r\n",
     b"GET http://[::1 HTTP/1.1\r\n\r\n", b"GET /stamps?connection=x HTTP/1.1\r\n\r\n", b"GET /no HTTP/1.1\r\n\r\n"],
)  # fmt: skip
def test_bad_http_requests_hurt_nobody(sim: Simulator, raw: bytes) -> None:
    url = urlsplit(sim.http)
    with socket.create_connection((url.hostname, url.port), timeout=10) as client:
        client.sendall(raw)
        client.shutdown(socket.SHUT_WR)
        try:
            reply = client.recv(100)
        except ConnectionResetError:
            reply = b""
    assert reply == b"" or reply.split()[1] in (b"400", b"404", b"405")
    assert sim.stats()["ws"] == sim.ws


# Commands


def test_add_del_all_list_and_his_do_what_they_say(sim: Simulator) -> None:
    token = "a" * 32
    with Peer(sim.url(token)) as peer:

        def ask(command: str) -> str:
            peer.send(command)
            return peer.text()

        assert ask("list") == "0#"
        assert ask("add=lv1_600036,lv2_600036").startswith("0#")
        assert ask("add=lv10_000002,lv1_600036").startswith("0#")
        assert ask("list") == "0#lv1_600036,lv2_600036,lv10_000002"
        assert ask("del=lv2_600036,lv1_999999").startswith("0#")
        assert ask("list") == "0#lv1_600036,lv10_000002"
        assert ask("all=lv2_300059").startswith("0#")
        assert ask("list") == "0#lv2_300059"
        assert ask("his") == "0#lv1_600036,lv2_600036,lv10_000002,lv2_300059"
        assert ask("all=").startswith("0#")
        assert ask("list") == "0#"
    with Peer(sim.url(token)) as again:
        again.send("his")
        assert "lv2_300059" in again.text()


@pytest.mark.parametrize("command", ["ping", "", "all", "lv1_600519", "add", "ADD=lv1_600519", "sub=lv1_1", "=", "\0"])
def test_an_unknown_command_is_answered_and_changes_nothing(sim: Simulator, command: str) -> None:
    with Peer(sim.url()) as peer:
        peer.send("all=lv1_i000001")
        peer.text()
        peer.send(command)
        assert peer.text().startswith("-2#")
        peer.send("list")
        assert peer.text() == "0#lv1_i000001"


def test_malformed_codes_are_named_and_the_others_are_taken(sim: Simulator) -> None:
    with Peer(sim.url()) as peer:
        peer.send("add=lv1_600036,lv3_600036,lv1_60003,lv1_ab0001,lv2_i399001,junk")
        reply = peer.text()
        assert reply.startswith("-2#")
        assert "lv3_600036" in reply
        peer.send("list")
        assert peer.text() == "0#lv1_600036,lv2_i399001"


def test_every_subscription_gets_a_snapshot_at_once_and_no_other_record(sim: Simulator) -> None:
    codes = [f"60{n:04d}" for n in range(5000, 5050)]
    with Peer(sim.url()) as peer:
        peer.send(f"all={subscription(codes, 'lv1 lv10')}")
        peer.until(lambda peer: bool(peer.messages))
        first = peer.messages[0]
        assert sorted((level, code) for level, code, _ in first.rows) == sorted(
            (level, code) for code in codes for level in ("lv1", "lv10")
        )
        peer.drain(0.2)
        assert not peer.rows("lv2")
        peer.send("add=lv1_605000")
        assert peer.text().startswith("0#")
        before = len(peer.rows("lv1", "605000"))
        peer.send("list")
        peer.text()
        assert len(peer.rows("lv1", "605000")) == before  # already subscribed: no new push


def test_a_thousand_codes_in_one_command_and_in_fragments(sim: Simulator) -> None:
    names = [f"lv1_00{n:04d}" for n in range(1100)]
    command = "all=" + ",".join(names)
    with Peer(sim.url()) as peer:
        peer.socket.send([command[:5000], command[5000:5001], command[5001:]])
        peer.until(lambda peer: peer.count() >= 1100)
        peer.send("list")
        assert peer.text() == "0#" + ",".join(names)


def test_clearing_the_subscription_silences_the_connection(sim: Simulator) -> None:
    with Peer(sim.url()) as peer:
        peer.send(f"all={subscription(DEMO)}")
        peer.until(lambda peer: peer.count() > 500)
        peer.send("all=")
        while not peer.text().startswith("0#订阅成功:0"):
            pass
        received = peer.count()
        still = sim.wait_still()
        peer.drain(0.3)
        assert peer.count() == received
        mine = [each for each in still["connections"] if each["open"]]
        assert [each["records"] for each in mine] == [received]
        assert mine[0]["subscriptions"] == []


# What is sent


@pytest.fixture(scope="module")
def seen() -> Iterator[tuple[Peer, dict[str, object]]]:
    with Simulator("--seed", "3") as sim, Peer(sim.url()) as peer:
        peer.send(f"all={subscription([*DEMO, 'i000001'])}")
        peer.until(lambda peer: len(peer.rows("lv10")) > 25 and peer.count() > 4000)
        peer.send("all=")
        peer.until(lambda peer: len(peer.texts) == 2)
        stats = sim.wait_still()
        stats["stamps"] = sim.stamps(1)
        stats["late stamps"] = sim.stamps(1, len(peer.messages) - 3)
        yield peer, stats


def test_stats_and_stamps_count_what_was_received(seen: tuple[Peer, dict[str, object]]) -> None:
    peer, stats = seen
    mine = stats["connections"][0]  # type: ignore[index]
    assert mine["records"] == peer.count()
    assert (mine["trades"], mine["quotes"], mine["depths"]) == tuple(
        len(peer.rows(level)) for level in ("lv2", "lv1", "lv10")
    )
    assert mine["messages"] == len(peer.messages)
    assert mine["bytes"] == sum(map(len, peer.payloads))
    assert {key: mine[key] for key in stats["total"]} == stats["total"]  # type: ignore[attr-defined]
    stamps = stats["stamps"]
    assert isinstance(stamps, list)
    assert len(stamps) == len(peer.messages)
    assert stamps == sorted(stamps)
    assert stamps[-1] <= time.monotonic_ns()
    assert stats["late stamps"] == stamps[-3:]


def test_totals_of_snapshots_equal_the_trades_that_came_before_them(seen: tuple[Peer, dict[str, object]]) -> None:
    peer, _ = seen
    volume = dict.fromkeys(DEMO, 0)
    amount = dict.fromkeys(DEMO, Decimal(0))
    last: dict[str, str] = {}
    checked = 0
    for message in peer.messages:
        for level, code, records in message.rows:
            for record in records:
                if level == "lv2":
                    volume[code] += int(record[3])
                    amount[code] += int(record[3]) * Decimal(record[2])
                    last[code] = record[2]
                elif code in volume:
                    assert (Decimal(record[4]), int(record[5])) == (amount[code], volume[code])
                    assert record[2] == last.get(code, record[2])
                    checked += 1
    assert checked > 35
    assert all(volume.values())


def test_the_five_and_the_ten_level_book_are_one_book(seen: tuple[Peer, dict[str, object]]) -> None:
    peer, _ = seen
    for code in DEMO:
        quotes, depths = peer.rows("lv1", code), peer.rows("lv10", code)
        assert len(quotes) == len(depths) >= 3
        for quote, depth in zip(quotes, depths, strict=True):
            assert len(quote) == 26
            assert len(depth) == 46
            assert quote[:3] == depth[:3]
            assert quote[4:6] == depth[4:6]
            for at, start in ((6, 6), (16, 26)):
                five = list(zip(quote[at + 1 : at + 10 : 2], quote[at : at + 10 : 2], strict=True))
                ten = list(zip(depth[start : start + 10], depth[start + 10 : start + 20], strict=True))
                assert five == ten[:5]
            assert Decimal(depth[6]) < Decimal(depth[26])


def test_an_index_has_an_empty_book_and_no_trades(seen: tuple[Peer, dict[str, object]]) -> None:
    peer, _ = seen
    quotes = peer.rows("lv1", "i000001")
    assert len(quotes) > 2
    assert all(quote[6:] == ["0", "0.00"] * 10 for quote in quotes)
    assert all(len(depth) == 46 for depth in peer.rows("lv10", "i000001"))
    assert not peer.rows("lv2", "i000001")


def test_messages_look_like_real_packets_and_the_market_is_brisk(seen: tuple[Peer, dict[str, object]]) -> None:
    peer, stats = seen
    trades = [sum(len(records) for level, _, records in m.rows if level == "lv2") for m in peer.messages]
    trades = [count for count in trades if count]
    assert statistics.median(trades) in (1, 2, 3)
    assert statistics.quantiles(trades, n=100)[98] > 10
    assert max(trades) > 30
    assert 50 < statistics.median(len(message.text.encode()) for message in peer.messages) < 110
    clock = str(stats["time"])
    hours, minutes, seconds = clock.split(":")
    elapsed = (int(hours) * 60 + int(minutes) - 570) * 60 + float(seconds)
    # The clock is read after the market went silent, so this is less than what it sent per second.
    assert peer.count() / elapsed > 900
    for code in ("600519", "000001"):
        assert len(peer.rows("lv2", code)) / elapsed > 5


def test_ids_and_times_of_a_code_only_go_up(seen: tuple[Peer, dict[str, object]]) -> None:
    peer, _ = seen
    for code in DEMO:
        ids = [int(record[1]) for record in peer.rows("lv2", code)]
        assert ids == sorted(set(ids))
        assert max(b - a for a, b in itertools.pairwise(ids)) > 1  # a channel's numbers have gaps
        times = [record[0] for record in peer.rows("lv2", code)]
        assert times == sorted(times)


def test_the_same_seed_and_subscription_give_the_same_market() -> None:
    def run(seed: str) -> dict[tuple[str, str], list[list[str]]]:
        with Simulator("--seed", seed, "--hold", "--speed", "max") as sim, Peer(sim.url()) as peer:
            peer.send(f"add={subscription(DEMO[:2], 'lv2')}")
            peer.send(f"add={subscription(DEMO[:2], 'lv1 lv10')}")
            peer.until(lambda peer: len(peer.texts) == 2)
            sim.go()
            peer.until(lambda peer: min(len(peer.rows("lv1", code)) for code in DEMO[:2]) > 5)
        return {
            (level, code): peer.rows(level, code)[:length]
            for level, length in (("lv2", 500), ("lv1", 5), ("lv10", 5))
            for code in DEMO[:2]
        }

    assert run("21") == run("21")
    assert run("21") != run("22")


def test_with_hold_nothing_moves_before_go() -> None:
    with Simulator("--hold") as sim, Peer(sim.url()) as peer:
        peer.send("all=lv1_600519,lv2_600519")
        peer.until(lambda peer: peer.count() == 1)
        peer.drain(0.4)
        assert peer.count() == 1
        assert sim.stats()["time"] == "09:30:00.000"
        sim.go()
        peer.until(lambda peer: peer.count() > 20)


def test_after_unsubscribing_the_market_goes_on() -> None:
    with Simulator("--speed", "20") as sim, Peer(sim.url()) as peer:
        peer.send("all=lv1_600519,lv2_600519")
        peer.until(lambda peer: peer.count() > 200)
        peer.send("all=")
        peer.until(lambda peer: len(peer.texts) == 2)
        ids = [int(record[1]) for record in peer.rows("lv2")]
        before = peer.rows("lv1")[-1]
        clock = sim.stats()["time"]
        sim.wait(lambda stats: stats["time"] > clock[:-4] + ".999")
        peer.messages.clear()
        received = peer.count()
        peer.send("all=lv1_600519,lv2_600519")
        peer.until(lambda peer: peer.count() > received + 200)
        first = peer.rows("lv1")[0]
        assert int(first[5]) > int(before[5])
        assert first[0] > before[0]
        later = [int(record[1]) for record in peer.rows("lv2")]
        assert min(later) > max(ids) + 10


def test_a_second_connection_is_told_the_state_of_now_and_the_same_events() -> None:
    with Simulator() as sim, Peer(sim.url()) as one:
        one.send("all=lv1_600519,lv2_600519")
        one.until(lambda peer: peer.count() > 300)
        with Peer(sim.url()) as two:
            two.send("all=lv1_600519,lv2_600519")
            two.until(lambda peer: len(peer.rows("lv1")) > 2)
            start, volume, amount = True, 0, Decimal(0)
            for message in two.messages:
                for level, _, records in message.rows:
                    for record in records:
                        if level == "lv2":
                            volume += int(record[3])
                            amount += int(record[3]) * Decimal(record[2])
                        elif start:
                            start, volume, amount = False, int(record[5]), Decimal(record[4])
                        else:
                            assert (Decimal(record[4]), int(record[5])) == (amount, volume)
            last = int(two.rows("lv2")[-1][1])
            one.until(lambda peer: int(peer.rows("lv2")[-1][1]) >= last)
        mine = {record[1]: record for record in one.rows("lv2")}
        assert all(mine[record[1]] == record for record in two.rows("lv2"))


# The day


def test_lunch_and_night_are_skipped_and_the_next_day_has_the_last_close() -> None:
    with Simulator("--from", "11:29:50", "--speed", "100", "--day", "2026-11-20") as sim, Peer(sim.url()) as peer:
        peer.send("all=lv1_600519")
        peer.until(lambda peer: peer.rows("lv1")[-1:] > [["13:00"]])
        assert not [record for record in peer.rows("lv1") if "11:30:10" < record[0] < "13:00:00"]
    with Simulator("--from", "14:59:50", "--speed", "20", "--day", "2026-11-20") as sim, Peer(sim.url()) as peer:
        assert sim.trading_day == "2026-11-20"
        peer.send("all=lv2_600519,lv10_600519")
        sim.wait(lambda stats: stats["trading_day"] == "2026-11-23")
        sim.wait(lambda stats: stats["time"] > "15:00:00")
        peer.send("all=")
        peer.until(lambda peer: len(peer.texts) == 2)
        depths = peer.rows("lv10")
        days = [number for number in range(1, len(depths)) if depths[number][0] < depths[number - 1][0]]
        assert len(days) >= 1
        assert depths[days[0]][3] == depths[days[0] - 1][2]
        ids = [int(record[1]) for record in peer.rows("lv2")]
        assert len(ids) == len(set(ids)) > 0


def test_with_calendar_lunch_is_lived_through() -> None:
    with Simulator("--from", "11:29:55", "--speed", "50", "--calendar") as sim, Peer(sim.url()) as peer:
        peer.send("all=lv1_600519")
        sim.wait(lambda stats: "11:30:30" < stats["time"] < "12:59:00")
        peer.drain(0.3)
        assert peer.rows("lv1")[-1][0] == "11:30:00"


def test_from_the_auction_on_the_opening_trades_come_at_0925() -> None:
    with Simulator("--from", "09:15", "--speed", "600") as sim, Peer(sim.url()) as peer:
        peer.send("all=lv1_600519,lv2_600519")
        peer.until(lambda peer: len(peer.rows("lv2")) > 100)
        trades = peer.rows("lv2")
        assert trades[0][0].startswith("09:25:00.")
        opening = {record[2] for record in trades if record[0] < "09:26"}
        assert len(opening) == 1
        assert not [record for record in trades if "09:26" < record[0] < "09:30"]
        before = [record for record in peer.rows("lv1") if record[0] < "09:25"]
        assert len(before) > 100
        assert {record[5] for record in before} == {"0"}


# What it survives


def test_moving_cuts_everybody_and_goes_on_elsewhere_with_new_ids() -> None:
    with Simulator() as sim, Peer(sim.url()) as one:
        old = sim.ws
        one.send("all=lv2_600519")
        one.until(lambda peer: peer.count() > 100)
        sim.move()
        with pytest.raises(ConnectionClosed):
            one.until(lambda peer: False)
        assert sim.ws != old
        assert allocate(sim, f"market=ab&type=websocket&token={TOKEN}")["server"] == sim.ws
        with pytest.raises(OSError):
            Peer(f"{old}?token={TOKEN}")
        with Peer(sim.url()) as two:
            two.send("all=lv2_600519")
            two.until(lambda peer: peer.count() > 100)
            first = [int(record[1]) for record in one.rows("lv2")]
            second = [int(record[1]) for record in two.rows("lv2")]
            assert min(second) > max(first)
            assert two.rows("lv2")[0][0] > one.rows("lv2")[-1][0]
        stats = sim.stats()
        assert len(stats["connections"]) == 2
        assert stats["total"]["records"] == sum(each["records"] for each in stats["connections"])


def handshake(sim: Simulator, **options: int | bytes) -> socket.socket:
    url = urlsplit(sim.ws)
    client = socket.create_connection((url.hostname, url.port), timeout=10)
    for name, value in options.items():
        client.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
    client.sendall(
        f"GET /?token={TOKEN} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n".encode()
    )
    reply = b""
    while b"\r\n\r\n" not in reply:
        reply += client.recv(4096)
    assert reply.startswith(b"HTTP/1.1 101")
    return client


def frame(payload: bytes, first: int = 0x81) -> bytes:
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return bytes([first]) + size + b"\0\0\0\0" + payload


@pytest.mark.parametrize(
    "garbage",
    [b"\xff" * 100, frame(b"\xff\xfe\xfd"), frame(b"add=" + b"lv1_" * 4000), frame(b"x", 0x80), frame(b"x" * 125, 0x88),
     frame(b"all=lv1_600519", 0x82), b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", frame(b"", 0x89) * 200],
    ids=["noise", "bad utf-8", "endless list", "stray continuation", "bad close", "binary", "huge frame", "pings"],
)  # fmt: skip
def test_a_client_that_sends_garbage_hurts_nobody(sim: Simulator, garbage: bytes) -> None:
    with Peer(sim.url()) as peer:
        peer.send("all=lv2_600519")
        peer.until(lambda peer: peer.count() > 10)
        with handshake(sim) as client:
            client.sendall(garbage)
            before = peer.count()
            peer.until(lambda peer: peer.count() > before + 50)
        before = peer.count()
        peer.until(lambda peer: peer.count() > before + 50)
    assert sim.errors() == ""


def test_a_client_that_vanishes_is_forgotten(sim: Simulator) -> None:
    sim.wait(lambda stats: not any(each["open"] for each in stats["connections"]))
    with handshake(sim, SO_LINGER=struct.pack("ii", 1, 0)) as client:
        client.sendall(frame(b"all=lv2_600519,lv1_600519"))
        sim.wait(lambda stats: any(each["open"] and each["records"] > 10 for each in stats["connections"]))
    sim.wait(lambda stats: not any(each["open"] for each in stats["connections"]))
    sim.wait_still()


@pytest.mark.parametrize("speed", ["50", "max"])
def test_a_reader_that_is_too_slow_is_cut_and_counted_and_the_others_lose_nothing(speed: str) -> None:
    options = ["--speed", speed, "--buffer-limit", "400000", "--stall-seconds", "0.5", "--deflate", "stored"]
    with Simulator(*options) as sim, Peer(sim.url()) as peer:
        with handshake(sim, SO_RCVBUF=4096) as slow:
            slow.sendall(frame(f"all={subscription(DEMO)}".encode()))
            sim.wait(lambda stats: len(stats["connections"]) == 2)
            peer.send("all=lv2_600519")
            deadline = time.monotonic() + 60
            while not sim.stats()["slow_readers_cut"]:
                peer.step()
                assert time.monotonic() < deadline
            peer.until(lambda peer: peer.count() > 100)
        stats = sim.stats()
        assert stats["slow_readers_cut"] == 1
        assert [each["open"] for each in stats["connections"]] == [True, False]
        peer.send("all=")
        peer.until(lambda peer: len(peer.texts) == 2)
        assert sim.wait_still()["connections"][0]["records"] == peer.count()


# Who may connect


@pytest.mark.parametrize("path", ["?token={}", "/?token={}", "/some/path?token={}", "?src=pip&token={}&x=1"])
def test_the_token_may_come_on_any_path_among_other_keys(sim: Simulator, path: str) -> None:
    with Peer(sim.ws + path.format(TOKEN)) as peer:
        peer.send("list")
        assert peer.text() == "0#"


@pytest.mark.parametrize("token", ["", "short", "g" * 32, "a" * 33])
def test_a_bad_token_gets_a_text_and_a_close(sim: Simulator, token: str) -> None:
    with Peer(sim.url(token)) as peer:
        assert peer.text().startswith("-1#")
        with pytest.raises(ConnectionClosed):
            peer.step()


def test_a_bad_token_can_be_refused_by_http() -> None:
    with Simulator("--bad-token", "http", "--tokens", f"{'b' * 32},{'c' * 32}") as sim:
        with pytest.raises(InvalidStatus) as refused:
            Peer(sim.url())
        assert refused.value.response.status_code == 401
        assert allocate(sim, f"market=ab&type=websocket&token={TOKEN}")["code"] == "-1"
        for token in ("b" * 32, "c" * 32):
            with Peer(sim.url(token)) as peer:
                peer.send("list")
                assert peer.text() == "0#"


def test_over_the_limit_the_new_one_is_refused() -> None:
    with Simulator("--limit", "1") as sim, Peer(sim.url()) as one, Peer(sim.url("d" * 32)):
        one.send("list")
        one.text()
        with Peer(sim.url()) as two:
            assert two.text() == "-1#账户连接数已达并发上限"
            with pytest.raises(ConnectionClosed):
                two.step()
        one.send("list")
        assert one.text() == "0#"


def test_over_the_limit_the_oldest_is_evicted() -> None:
    options = ["--limit", "2", "--over-limit", "evict", "--limit-text=-1#满"]
    with Simulator(*options) as sim, Peer(sim.url()) as one, Peer(sim.url()) as two, Peer(sim.url()) as three:
        assert one.text() == "-1#满"
        with pytest.raises(ConnectionClosed):
            one.step()
        for peer in (two, three):
            peer.send("list")
            assert peer.text() == "0#"


def test_unknown_pages_are_not_found(sim: Simulator) -> None:
    with pytest.raises(urllib.error.HTTPError):
        sim.request("/query")
    with pytest.raises(urllib.error.HTTPError):
        sim.request("/stamps?connection=9999")
