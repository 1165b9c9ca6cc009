"""Real days, sent by the simulator: every record of the files, in the order and the groups in which they arrived."""

import csv
import gzip
from decimal import Decimal
from pathlib import Path

import pytest

from simulator import DATA, Peer, Simulator

TRADES = DATA / "lv2_600519_20230201.csv.gz"
QUOTES = DATA / "lv1_600519_20230201.csv.gz"
FIVE = DATA / "lv2_5SH_20230711.csv.gz"

real = pytest.mark.skipif(not TRADES.exists(), reason=f"no real data in {DATA}; JVQ_FAST_DATA says where it is")


def read(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt") as file:
        return list(csv.DictReader(file))


def play(files: list[Path], names: str, *options: str, records: int) -> Peer:
    with Simulator("--speed", "max", "--replay", *map(str, files), *options) as sim, Peer(sim.url()) as peer:
        peer.send(f"all={names}")
        peer.until(lambda peer: peer.count() >= records, timeout=120)
        stats = sim.wait(lambda stats: bool(stats["finished"]))
        peer.drain(0.2)
        assert stats["total"]["records"] == peer.count() == records
    return peer


@pytest.fixture(scope="module")
def day() -> Peer:
    return play([QUOTES, TRADES], "lv1_600519,lv2_600519,lv10_600519", records=27_135 + 5_109)


@real
def test_the_day_of_600519_is_sent_whole(day: Peer) -> None:
    trades = day.rows("lv2")
    assert len(trades) == 27_135
    assert sum(int(record[3]) for record in trades) == 3_397_389
    assert sum(int(record[3]) * Decimal(record[2]) for record in trades) == Decimal("6244678924.61")


@real
def test_trades_are_the_files_and_grouped_by_arrival(day: Peer) -> None:
    rows = sorted(read(TRADES), key=lambda row: row["recv_time"])
    assert day.rows("lv2") == [[row["time"], row["trade_id"], row["price"], row["qty"]] for row in rows]
    groups: dict[str, int] = {}
    for row in rows:
        groups[row["recv_time"]] = groups.get(row["recv_time"], 0) + 1
    sent = [sum(len(records) for level, _, records in m.rows if level == "lv2") for m in day.messages]
    assert [count for count in sent if count] == list(groups.values())


@real
def test_snapshots_are_the_files(day: Peer) -> None:
    rows = sorted(read(QUOTES), key=lambda row: row["time"])
    book = [f"{side}{level}{what}" for side in "bs" for level in range(1, 6) for what in ("", "p")]
    quotes = day.rows("lv1")
    assert len(quotes) == len(rows)
    for record, row in zip(quotes, rows, strict=True):
        assert record[:3] == [row["time"][:8], "贵州茅台", row["price"]]
        assert record[4:] == [row["amount"], row["volume"], *(row[column] for column in book)]
        price, close = Decimal(row["price"]), Decimal(row["pre_close"])
        change = ((price / close - 1) * 100) if price else Decimal(0)
        assert abs(Decimal(record[3]) - change) <= Decimal("0.005")


@real
def test_trades_come_in_time_with_the_snapshots(day: Peer) -> None:
    arrivals = {row["trade_id"]: row["recv_time"] for row in read(TRADES)}
    latest = ""
    for message in day.messages:
        for level, _, records in message.rows:
            for record in records:
                moment = arrivals[record[1]] if level == "lv2" else record[0]
                assert moment >= latest
                latest = moment


@real
def test_several_codes_share_a_message_when_they_arrived_together() -> None:
    names = ",".join(f"lv2_{code}" for code in ("600536", "600961", "600761", "605580", "601825"))
    peer = play([FIVE], names, records=109_616)
    assert sum(int(record[3]) for record in peer.rows("lv2")) == 71_020_304
    stamps = {row["recv_time"] for row in read(FIVE)}
    assert len(peer.messages) == len(stamps)
    assert any(len(message.rows) > 1 for message in peer.messages)
    for code in ("600536", "605580"):
        rows = sorted((row for row in read(FIVE) if row["code"] == code), key=lambda row: row["recv_time"])
        assert [record[1] for record in peer.rows("lv2", code)] == [row["trade_id"] for row in rows]


@real
def test_days_follow_each_other_and_each_is_announced() -> None:
    files = ["--speed", "0", "--replay", str(FIVE), str(TRADES), "--from", "14:59:59"]
    with Simulator(*files) as sim, Peer(sim.url()) as peer:
        assert sim.trading_day == "2023-02-01"
        peer.send("all=lv2_600519,lv2_605580")
        sim.wait(lambda stats: bool(stats["finished"]), timeout=60)
        peer.drain()
        assert sim.stats()["trading_day"] == "2023-07-11"
        codes = [code for message in peer.messages for _, code, _ in message.rows]
        assert codes == sorted(codes)  # 600519 on the first day, from its close on, 605580 on the second
        assert {"600519", "605580"} == set(codes)


HEAD = "date,code,time,trade_id,price,qty,recv_time\n"


def test_true_speed_keeps_the_time_between_arrivals_and_skips_lunch(tmp_path: Path) -> None:
    file = tmp_path / "trades.csv"
    file.write_text(
        HEAD + "2023-02-01,600519,11:29:58.000,1,10.0000,100,11:29:58.100\n"
        "2023-02-01,600519,11:29:58.000,2,10.001,100,11:29:58.600\n"
        "2023-02-01,600519,13:00:00.000,3,10.1,100,13:00:00.200\n"
    )
    with Simulator("--replay", str(file)) as sim, Peer(sim.url()) as peer:
        peer.send("all=lv2_600519")
        peer.until(lambda peer: peer.count() == 3)
        stamps = sim.stamps(1)
        assert stamps[1] - stamps[0] > 0.45e9
        assert [record[2] for record in peer.rows("lv2")] == ["10.0000", "10.001", "10.1"]


@pytest.mark.parametrize(
    "text",
    ["", "a,b,c\n1,2,3\n", HEAD, HEAD + "2023-02-01,600519,11:29:58.000,x,10.00,100,11:29:58.100\n",
     HEAD + "1. 2. 2023,600519,11:29:58.000,1,10.00,100,11:29:58.100\n",
     HEAD + "2023-02-01,600519,noon,1,10.00,100,11:29:58.100\n", HEAD + "2023-02-01,600519\n"],
)  # fmt: skip
def test_a_file_that_cannot_be_replayed_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.csv"
    file.write_text(text)
    with pytest.raises(AssertionError, match="jvq-fast sim: "):
        Simulator("--replay", str(file))


def test_a_gzipped_file_that_ends_early_is_refused_and_named(tmp_path: Path) -> None:
    file = tmp_path / "short.csv.gz"
    file.write_bytes(gzip.compress(HEAD.encode() * 100)[:-10])
    with pytest.raises(AssertionError, match=r"jvq-fast sim: --replay .*short\.csv\.gz"):
        Simulator("--replay", str(file))
