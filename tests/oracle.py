"""A second decoder, in plain Python, against which the first is judged.

It follows the written contract and nothing else: stdlib zlib, ``bytes.split``, ``float``, ``Decimal``, ``re``,
``zoneinfo`` and lists, no code of the product. A record is a dict; ``pack`` gives the bytes it must have in memory.
"""

import datetime
import itertools
import math
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

STALE, REPEAT, NO_DATE, EMPTY_FIELD, ORDER_UNSURE, ID_TEXT, NO_PRICE = 1, 2, 4, 8, 16, 32, 64

LEVELS = ("trades", "quotes", "depths")
LEVEL_OF_TAG = {b"lv2": "trades", b"lv1": "quotes", b"lv10": "depths"}
FIELDS = {"trades": 4, "quotes": 26, "depths": 46}
LAYOUT = {
    "trades": struct.Struct("<Qqq8sqdqI4x"),
    "quotes": struct.Struct("<Qqq8sdddqI4x5d5q5d5q"),
    "depths": struct.Struct("<Qqq8sddd" + "qdI4x" + "10d10q10d10q"),
}
COLUMNS = {
    "trades": ("seq", "time", "recv", "code", "id", "price", "volume", "flags"),
    "quotes": (
        "seq",
        "time",
        "recv",
        "code",
        "price",
        "change",
        "amount",
        "volume",
        "flags",
        "bid_price",
        "bid_volume",
        "ask_price",
        "ask_volume",
    ),
    "depths": (
        "seq",
        "time",
        "recv",
        "code",
        "price",
        "last_close",
        "amount",
        "volume",
        "change",
        "flags",
        "bid_price",
        "bid_volume",
        "ask_price",
        "ask_volume",
    ),
}
FLAG_COUNTERS = {
    "stale": STALE,
    "repeats": REPEAT,
    "no_date": NO_DATE,
    "empty_field": EMPTY_FIELD,
    "order_unsure": ORDER_UNSURE,
    "id_text": ID_TEXT,
    "no_price": NO_PRICE,
}
COUNTERS = (
    "messages",
    "bytes",
    "inflated_bytes",
    "rows",
    "records",
    "trades",
    "quotes",
    "depths",
    "batches",
    "bad",
    "bad_messages",
    "inflate_corrupt",
    "inflate_truncated",
    "inflate_too_large",
    "inflate_trailing",
    "duplicates",
    "tape_only",
)
REASONS = ("fields", "number", "time", "volume", "row", "level", "code", "length", "equals")

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
FARTHEST = 2**62  # ns: an arrival beyond it is stored as given, but dates are reckoned with this one
SHANGHAI = ZoneInfo("Asia/Shanghai")

_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?")
_TIME = re.compile(rb"([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?")
_CODE = re.compile(rb"[0-9A-Za-z.]{1,8}")

Record = dict[str, Any]


class BadRecordError(Exception):
    """A record that is not one; args[0] is the set of reasons that may be given for it."""


def pack(level: str, record: Record) -> bytes:
    values: list[Any] = []
    for name in COLUMNS[level]:
        value = record[name]
        values.extend(value) if isinstance(value, list) else values.append(value)
    return LAYOUT[level].pack(*values)


def pack_all(level: str, records: Iterable[Record]) -> bytes:
    return b"".join(pack(level, record) for record in records)


def unpack_all(level: str, data: bytes) -> list[Record]:
    """For messages of failing tests only."""
    found = []
    for values in LAYOUT[level].iter_unpack(data):
        rest = list(values)
        record: Record = {}
        for name in COLUMNS[level]:
            if name[:4] in ("bid_", "ask_"):
                count = 5 if level == "quotes" else 10
                record[name], rest = rest[:count], rest[count:]
            else:
                record[name] = rest.pop(0)
        record["code"] = record["code"].rstrip(b"\0")
        found.append(record)
    return found


def inflate(payload: bytes, limit: int) -> tuple[bytes | None, str]:
    """(text, "" or "trailing") of one complete raw DEFLATE stream, or (None, "corrupt" | "truncated" | "too_large")."""
    machine = zlib.decompressobj(-15)
    try:
        text = machine.decompress(payload, limit + 1)
        if len(text) <= limit and not machine.eof:
            text += machine.decompress(machine.unconsumed_tail, limit + 1)
    except zlib.error:
        return None, "corrupt"
    if len(text) > limit:
        return None, "too_large"
    if not machine.eof:
        return None, "truncated"
    return text, "trailing" if machine.unused_data else ""


def time_of_day(text: bytes) -> int:
    match = _TIME.fullmatch(text)
    if match is None:
        raise BadRecordError({"time"})
    hour, minute, second = (int(match[i]) for i in (1, 2, 3))
    if hour > 23 or minute > 59 or second > 59:
        raise BadRecordError({"time"})
    fraction = match[4] or b""
    return (hour * 3600 + minute * 60 + second) * SECOND + int(fraction.ljust(9, b"0"))


def real(text: bytes) -> tuple[float, bool]:
    """(value, was it missing)."""
    if not text:
        return 0.0, True
    if _NUMBER.fullmatch(text) is None:
        raise BadRecordError({"number"})
    return float(text), False


def whole(text: bytes) -> tuple[int, bool]:
    if not text:
        return 0, True
    if _NUMBER.fullmatch(text) is None:
        raise BadRecordError({"number"})
    value = Decimal(text.decode())
    number = value.to_integral_value()
    if number != value:
        raise BadRecordError({"volume"})
    if not -(2**63) <= number < 2**63:
        raise BadRecordError({"volume"})
    return int(number), False


def trade_id(text: bytes) -> int | None:
    if re.fullmatch(rb"[0-9]+", text) is None:
        return None
    number = Decimal(text.decode())
    return int(number) if number < 2**63 else None


def midnight(day: datetime.date) -> int:
    """ns since the epoch of the day's first instant in Shanghai."""
    return int(datetime.datetime(day.year, day.month, day.day, tzinfo=SHANGHAI).timestamp()) * SECOND


def day_of(clock_time: int, recv: int) -> datetime.date:
    """The latest date that puts the time of day at or before recv + 5 minutes."""
    seconds, ns = divmod(recv + 300 * SECOND, SECOND)
    local = datetime.datetime.fromtimestamp(seconds, SHANGHAI)
    day = local.date()
    while midnight(day) + clock_time > seconds * SECOND + ns:
        day -= datetime.timedelta(days=1)
    return day


@dataclass
class Parsed:
    """What the text of one good record says under one field order."""

    values: Record
    empty: bool


def lv1_vote(code: str, texts: list[bytes]) -> str | None:
    if code.startswith("i"):
        return None
    price, first, second = (real(texts[i])[0] for i in (2, 4, 5))
    book = [real(texts[i])[0] for i in range(7, 26, 2)]
    if not (price > 0 and abs(price - 1) > 0.02 + 1e-9 and first > 0 and second > 0 and any(p > 0 for p in book)):
        return None
    distances = {}
    for order, ratio in (("amount_first", first / second), ("volume_first", second / first)):
        if abs(ratio / price - 1) <= 0.25 and abs(ratio - 1) > 0.02 + 1e-9:
            distances[order] = abs(math.log(ratio / price))
    return min(distances, key=lambda order: distances[order]) if distances else None


def lv10_vote(texts: list[bytes]) -> str | None:
    price = real(texts[2])[0]
    if not price > 0:
        return None
    numbers = [real(text)[0] for text in texts[6:]]
    blocks = [numbers[i : i + 10] for i in (0, 10, 20, 30)]

    def fits(bids: list[float], asks: list[float]) -> bool:
        some = False
        for side, sign in ((bids, -1), (asks, 1)):
            standing = [p for p in side if p != 0]
            if any(side[len(standing) :]):
                return False
            if any(sign * b <= sign * a for a, b in itertools.pairwise(standing)):
                return False
            if not all(0.5 * price <= p <= 2 * price for p in standing):
                return False
            some = some or bool(standing)
        return some

    fitting = [
        order for order, (b, a) in (("price_first", (0, 2)), ("volume_first", (1, 3))) if fits(blocks[b], blocks[a])
    ]
    return fitting[0] if len(fitting) == 1 else None


@dataclass
class Order:
    """The field order of one level: in force by default, by three votes, or by the user's word."""

    default: str
    forced: str | None
    votes: dict[str, int] = field(default_factory=dict)
    settled: str | None = None

    @property
    def now(self) -> str:
        return self.forced or self.settled or self.default

    @property
    def source(self) -> str:
        return "forced" if self.forced else "detected" if self.settled else "default"

    def start_anew(self) -> None:
        self.votes, self.settled = {}, None

    def count(self, vote: str | None) -> bool:
        """Takes a row's vote; true if the row contradicts the order in force."""
        if vote is None:
            return False
        if self.forced or self.settled:
            return vote != self.now
        self.votes[vote] = self.votes.get(vote, 0) + 1
        if self.votes[vote] == 3:
            self.settled = vote
        return False


@dataclass
class Code:
    """What is known of one code."""

    trades: list[Record] = field(default_factory=list)
    quotes: list[Record] = field(default_factory=list)
    depths: list[Record] = field(default_factory=list)
    text: dict[str, bytes] = field(default_factory=dict)
    before_gap: int | None = None  # number of trades published when the mark was set; None: no mark
    last_time: int | None = None


@dataclass
class Row:
    """One row that published something: what its callbacks must be given."""

    level: str
    code: str
    records: list[Record]


@dataclass
class Message:
    published: int
    rows: list[Row]


class Oracle:
    """Feed it what the Decoder is fed, with the same settings; compare."""

    def __init__(
        self,
        capacity: int | dict[str, int] = 65536,
        history: int | dict[str, int] = 1024,
        trading_day: str | datetime.date | None = None,
        *,
        clock: str = "exchange",
        lv1_order: str = "auto",
        lv10_order: str = "auto",
        max_codes: int = 8192,
        max_inflated: int = 8 * 1024 * 1024,
        max_record: int = 4096,
    ) -> None:
        capacities = capacity if isinstance(capacity, dict) else dict.fromkeys(LEVELS, capacity)
        self.capacity = {level: 1 << (capacities.get(level, 65536) - 1).bit_length() for level in LEVELS}
        if isinstance(history, dict):
            self.history = {level: history[level] for level in LEVELS}
        else:
            share = {"trades": 1, "quotes": 4, "depths": 16}
            self.history = {level: max(1, history // share[level]) if history else 0 for level in LEVELS}
        self.trading_day = datetime.date.fromisoformat(trading_day) if isinstance(trading_day, str) else trading_day
        self.clock = clock
        self.order = {
            "quotes": Order("amount_first", None if lv1_order == "auto" else lv1_order),
            "depths": Order("price_first", None if lv10_order == "auto" else lv10_order),
        }
        self.max_codes, self.max_inflated, self.max_record = max_codes, max_inflated, max_record
        self.tape: dict[str, list[Record]] = {level: [] for level in LEVELS}
        self.codes: dict[str, Code] = {}
        self.names: dict[str, str] = {}
        self.seq = 0
        # One for every bad record or row head: reasons that may be given for it, its bytes, how many records it cost.
        self.bad: list[tuple[set[str], bytes, int]] = []
        # maybe_duplicate must be at least the repeats that could not be seen, and at most all that met a short store.
        self.least_doubts = self.most_doubts = 0
        self.counters: dict[str, int] = dict.fromkeys([*COUNTERS, *FLAG_COUNTERS], 0)

    # connection

    def connected(self) -> None:
        for order in self.order.values():
            order.start_anew()

    def resume(self) -> None:
        self.connected()
        for known in self.codes.values():
            known.before_gap = len(known.trades)
            known.last_time = known.trades[-1]["time"] if known.trades else None

    # data

    def decode(self, payload: bytes, recv: int = 0) -> Message:
        counters = self.counters
        counters["messages"] += 1
        counters["bytes"] += len(payload)
        counters["batches"] += 1
        text, remark = inflate(payload, self.max_inflated)
        if text is None:
            counters["bad_messages"] += 1
            counters["inflate_" + remark] += 1
            return Message(0, [])
        if remark:
            counters["inflate_trailing"] += 1
        counters["inflated_bytes"] += len(text)
        first = self.seq
        rows = []
        for line in text.split(b"\n"):
            if line:
                counters["rows"] += 1
                row = self._row(line, recv)
                if row is not None and row.records:
                    rows.append(row)
        return Message(self.seq - first, rows)

    def _row(self, line: bytes, recv: int) -> Row | None:
        header, equals, rest = line.partition(b"=")
        tag, underscore, code_text = header.partition(b"_")
        reasons = set()
        if not equals:
            reasons = {"row"}
        elif not underscore:
            reasons = {"row", "level"}
        elif tag not in LEVEL_OF_TAG:
            reasons = {"level"}
        if _CODE.fullmatch(code_text) is None and equals:
            reasons |= {"code"}
        if reasons:
            self._bad(reasons, line, 1 + line.count(b"|"))
            return None
        level, code = LEVEL_OF_TAG[tag], code_text.decode()
        row = Row(level, code, [])
        for text in rest.split(b"|"):
            try:
                record = self._record(level, code, text, recv)
            except BadRecordError as error:
                self._bad(error.args[0], text)
                continue
            if record is not None:
                row.records.append(record)
        return row

    def _bad(self, reasons: set[str], text: bytes, count: int = 1) -> None:
        self.counters["bad"] += count
        self.bad.append((set(reasons), text, count))

    def _record(self, level: str, code: str, text: bytes, recv: int) -> Record | None:
        reasons: set[str] = set()
        if len(text) > self.max_record:
            reasons.add("length")
        if b"=" in text:
            reasons.add("equals")
        texts = text.split(b",")
        if len(texts) != FIELDS[level]:
            reasons.add("fields")
            raise BadRecordError(reasons)
        contradicts = False
        if level != "trades":
            order = self.order[level]
            if not reasons and self._may_vote(level, texts, order):
                contradicts = order.count(lv1_vote(code, texts) if level == "quotes" else lv10_vote(texts))
        faults, clock_time = self._faults(level, texts, self._now(level))
        if reasons or faults:
            raise BadRecordError(reasons | faults)
        parsed = self._parse(level, texts, self._now(level))
        record = parsed.values
        flags = EMPTY_FIELD if parsed.empty else 0
        if contradicts:
            flags |= ORDER_UNSURE
        if record["price"] == 0:
            flags |= NO_PRICE
        if level == "trades" and trade_id(texts[1]) is None:
            flags |= ID_TEXT
        arrival = max(-FARTHEST, min(recv, FARTHEST))
        if self.trading_day is not None:
            time = midnight(self.trading_day) + clock_time
        elif recv:
            time = midnight(day_of(clock_time, arrival)) + clock_time
        else:
            time = midnight(datetime.date(1970, 1, 1)) + clock_time
            flags |= NO_DATE
        if recv and self.clock == "exchange" and time < arrival - 600 * SECOND:
            flags |= STALE
        known = self._know(code)
        if level == "trades":
            if known is not None and self._is_duplicate(known, record, clock_time, time, flags):
                return None
        elif known is not None:
            if known.text.get(level) == text:
                flags |= REPEAT
            known.text[level] = text
            if texts[1]:
                self.names[code] = texts[1].decode("utf-8", "replace")
        self.seq += 1
        record |= {"seq": self.seq, "time": time, "recv": recv, "code": code.encode(), "flags": flags}
        record["_clock"] = clock_time
        self.tape[level].append(record)
        if known is not None:
            getattr(known, level).append(record)
        else:
            self.counters["tape_only"] += 1
        self.counters["records"] += 1
        self.counters[level] += 1
        for name, flag in FLAG_COUNTERS.items():
            self.counters[name] += bool(flags & flag)
        return record

    def _now(self, level: str) -> str:
        return self.order[level].now if level in self.order else ""

    def _know(self, code: str) -> Code | None:
        if code not in self.codes:
            if len(self.codes) >= self.max_codes:
                return None
            self.codes[code] = Code()
        return self.codes[code]

    def _is_duplicate(self, known: Code, trade: Record, clock_time: int, time: int, flags: int) -> bool:
        if known.before_gap is None:
            return False
        before = known.trades[: known.before_gap]
        if self.history["trades"]:
            gone = max(0, len(known.trades) - self.history["trades"])
            lost, held = before[:gone], before[gone:]
        else:
            on_tape = {id(r) for r in self.tape["trades"][-self.capacity["trades"] :]}
            gone = max(0, len(self.tape["trades"]) - self.capacity["trades"])
            lost, held = [r for r in before if id(r) not in on_tape], [r for r in before if id(r) in on_tape]
        key = (trade["id"], clock_time, trade["price"], trade["volume"])
        if not flags & ID_TEXT and any(_key(r) == key for r in held):
            self.counters["duplicates"] += 1
            return True
        if known.last_time is None or time > known.last_time + 60 * SECOND:
            known.before_gap = None
        elif not flags & ID_TEXT:
            self.least_doubts += any(_key(r) == key for r in lost)
            self.most_doubts += gone > 0 and clock_time <= max((r["_clock"] for r in before), default=-1)
        return False

    def _may_vote(self, level: str, texts: list[bytes], order: Order) -> bool:
        """A good row, or one whose only fault is no int64 where only the order in force wants a volume."""
        faults = self._faults(level, texts, order.now)[0]
        fixed = [6, 8, 10, 12, 14, 16, 18, 20, 22, 24] if level == "quotes" else [5]
        return faults <= {"volume"} and not any(_no_volume(texts[i]) for i in fixed)

    def _faults(self, level: str, texts: list[bytes], order: str) -> tuple[set[str], int]:
        """Every reason for which the record may be called bad, and its time of day."""
        found: set[str] = set()
        clock_time = 0
        try:
            clock_time = time_of_day(texts[0])
        except BadRecordError as error:
            found |= error.args[0]
        for kind, indices in _kinds(level, order):
            for i in indices:
                try:
                    kind(texts[i])
                except BadRecordError as error:
                    found |= error.args[0]
        return found, clock_time

    def _parse(self, level: str, texts: list[bytes], order: str) -> Parsed:
        empty = False

        def take(kind: Any, index: int) -> Any:
            nonlocal empty
            value, missing = kind(texts[index])
            empty = empty or missing
            return value

        values: Record = {}
        if level == "trades":
            number = trade_id(texts[1])
            values["id"] = -1 if number is None else number
            values["price"] = take(real, 2)
            values["volume"] = take(whole, 3)
        elif level == "quotes":
            amount, volume = (4, 5) if order == "amount_first" else (5, 4)
            values["price"] = take(real, 2)
            values["change"] = take(real, 3)
            values["amount"] = take(real, amount)
            values["volume"] = take(whole, volume)
            for side, at in (("bid", 6), ("ask", 16)):
                values[side + "_volume"] = [take(whole, at + 2 * i) for i in range(5)]
                values[side + "_price"] = [take(real, at + 2 * i + 1) for i in range(5)]
        else:
            values["price"] = take(real, 2)
            values["last_close"] = take(real, 3)
            values["amount"] = take(real, 4)
            values["volume"] = take(whole, 5)
            price, close = values["price"], values["last_close"]
            values["change"] = 0.0 if close == 0 else (price / close - 1) * 100
            price_at, volume_at = (0, 10) if order == "price_first" else (10, 0)
            for side, at in (("bid", 6), ("ask", 26)):
                values[side + "_price"] = [take(real, at + price_at + i) for i in range(10)]
                values[side + "_volume"] = [take(whole, at + volume_at + i) for i in range(10)]
        return Parsed(values, empty)

    # what must be there afterwards

    def held(self, level: str) -> list[Record]:
        return self.tape[level][-self.capacity[level] :]

    def history_of(self, code: str, level: str) -> list[Record]:
        records: list[Record] = getattr(self.codes[code], level)
        return records[-self.history[level] :]


def _no_volume(text: bytes) -> bool:
    try:
        whole(text)
    except BadRecordError:
        return True
    return False


def _key(trade: Record) -> tuple[int, int, float, int]:
    return trade["id"], trade["_clock"], trade["price"], trade["volume"]


def _kinds(level: str, order: str) -> Iterator[tuple[Any, list[int]]]:
    """(real or whole, indices of the fields that must be such a number)."""
    if level == "trades":
        yield real, [2]
        yield whole, [3]
    elif level == "quotes":
        amount, volume = (4, 5) if order == "amount_first" else (5, 4)
        yield real, [2, 3, amount, *range(7, 26, 2)]
        yield whole, [volume, *range(6, 26, 2)]
    else:
        price_at, volume_at = (6, 16) if order == "price_first" else (16, 6)
        yield real, [2, 3, 4, *range(price_at, price_at + 10), *range(price_at + 20, price_at + 30)]
        yield whole, [5, *range(volume_at, volume_at + 10), *range(volume_at + 20, volume_at + 30)]
