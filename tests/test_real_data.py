"""Real market data through the Decoder: the known totals of a day, and the oracle's records to the last bit."""

import csv
import datetime
import functools
import gzip
import itertools
from decimal import Decimal

import pytest

import wire
from oracle import Oracle
from pair import Pair
from wire import SECOND

DAY = "2023-02-01"
TRADES, QUOTES, FIVE = "lv2_600519_20230201", "lv1_600519_20230201", "lv2_5SH_20230711"


@functools.cache
def lines_of(path):
    with gzip.open(path, "rt", encoding="ascii") as file:
        return list(csv.DictReader(file))


def stamp(date, clock):
    """ns since the epoch of a date and a time of day in Shanghai."""
    hms, _, fraction = clock.partition(".")
    moment = datetime.datetime.fromisoformat(f"{date}T{hms}+08:00")
    return int(moment.timestamp()) * SECOND + int(fraction.ljust(9, "0") or 0)


def trade_messages(lines):
    """(payload, arrival) as a server would have sent them: by arrival stamp, stably, one row a code."""
    ordered = sorted(lines, key=lambda line: line["recv_time"])
    for arrival, group in itertools.groupby(ordered, key=lambda line: (line["date"], line["recv_time"])):
        codes = {}
        for line in group:
            record = f"{line['time']},{line['trade_id']},{line['price']},{line['qty']}".encode()
            codes.setdefault(line["code"], []).append(record)
        yield wire.message(*[wire.trades(code, *records) for code, records in codes.items()]), stamp(*arrival)


def quote_messages(lines):
    for line in lines:
        price, close = Decimal(line["price"]), Decimal(line["pre_close"])
        change = f"{(price / close - 1) * 100:.2f}" if close else "0.00"
        bids, asks = ([(line[f"{side}{i}"], line[f"{side}{i}p"]) for i in range(1, 6)] for side in "bs")
        record = wire.quote(
            line["time"][:8], "贵州茅台", line["price"], change, line["amount"], line["volume"], bids, asks
        )
        yield wire.message(wire.row("quotes", line["code"], record)), stamp(line["date"], line["time"])


def test_the_oracle_knows_the_totals_of_the_day(data_dir):
    lines = lines_of(data_dir / f"{TRADES}.csv.gz")
    oracle = Oracle(trading_day=DAY)
    for payload, arrival in trade_messages(lines):
        oracle.decode(payload, arrival)
    trades = oracle.tape["trades"]
    assert len(trades) == 27_135
    assert sum(trade["volume"] for trade in trades) == 3_397_389
    cents = sum(round(trade["price"] * 100) * trade["volume"] for trade in trades)
    assert cents == 624_467_892_461
    assert oracle.counters["bad"] == 0


def test_a_day_of_trades(data_dir):
    pair = Pair(capacity=32768, history=32768)
    for payload, arrival in trade_messages(lines_of(data_dir / f"{TRADES}.csv.gz")):
        pair.decode(payload, arrival)
    pair.check()
    trades = pair.decoder.trades.last(32768)
    assert len(trades) == 27_135
    assert int(trades["volume"].sum()) == 3_397_389
    cents = (trades["price"] * 100).round().astype("i8") * trades["volume"]
    assert int(cents.sum()) == 624_467_892_461
    assert len(set(trades["id"].tolist())) == 27_135


@pytest.mark.parametrize("trading_day", [DAY, None])
def test_a_day_of_quotes(data_dir, trading_day):
    pair = Pair(capacity=8192, history=32768, trading_day=trading_day)
    lines = lines_of(data_dir / f"{QUOTES}.csv.gz")
    for payload, arrival in quote_messages(lines):
        pair.decode(payload, arrival)
    pair.check()
    stats = pair.decoder.stats()
    assert (stats["lv1_order"], stats["lv1_order_source"]) == ("amount_first", "detected")
    assert stats["order_unsure"] == stats["bad"] == 0
    quotes = pair.decoder.quotes.last(8192)
    assert len(quotes) == len(lines)
    assert quotes["price"].tolist() == [float(line["price"]) for line in lines]
    assert quotes["amount"].tolist() == [float(line["amount"]) for line in lines]
    assert quotes["volume"].tolist() == [int(line["volume"]) for line in lines]
    assert quotes["time"].tolist() == [stamp(line["date"], line["time"][:8]) for line in lines]
    for side, name in (("b", "bid"), ("s", "ask")):
        for i in range(5):
            assert quotes[f"{name}_price"][:, i].tolist() == [float(line[f"{side}{i + 1}p"]) for line in lines]
            assert quotes[f"{name}_volume"][:, i].tolist() == [int(line[f"{side}{i + 1}"]) for line in lines]


def test_a_day_of_five_stocks_through_small_rings(data_dir, long):
    pair = Pair(capacity=4096, history=1000)
    messages = trade_messages(lines_of(data_dir / f"{FIVE}.csv.gz"))
    for payload, arrival in messages if long else itertools.islice(messages, 12_000):
        pair.decode(payload, arrival)
    pair.check()
    assert len(pair.oracle.codes) == 5
    assert pair.oracle.counters["bad"] == 0


def test_a_day_in_messages_of_every_size(data_dir):
    """The same records, however the server packs them: one a message, or thousands."""
    lines = sorted(lines_of(data_dir / f"{TRADES}.csv.gz")[:6000], key=lambda line: line["recv_time"])
    records = [f"{line['time']},{line['trade_id']},{line['price']},{line['qty']}".encode() for line in lines]
    first = None
    for size in (1, 7, 64, 512, 6000):
        pair = Pair(capacity=8192, history=100, trading_day=DAY)
        for i in range(0, len(records), size):
            pair.decode(wire.message(wire.trades("600519", *records[i : i + size])))
        pair.check()
        data = pair.decoder.trades.last(8192).tobytes()
        first = first or data
        assert data == first


def test_a_reconnect_in_the_middle_of_the_day_repeats_nothing(data_dir):
    messages = list(trade_messages(lines_of(data_dir / f"{TRADES}.csv.gz")[:8000]))
    pair = Pair(capacity=16384, history=4096)
    cut = len(messages) * 2 // 3
    for payload, arrival in messages[:cut]:
        pair.decode(payload, arrival)
    pair.decoder.resume()
    pair.oracle.resume()
    for payload, arrival in messages[cut - 40 :]:
        pair.decode(payload, arrival)
    pair.check()
    stats = pair.decoder.stats()
    assert stats["duplicates"] > 0
    assert stats["trades"] == 8000
