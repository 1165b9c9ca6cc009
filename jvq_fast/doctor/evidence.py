"""What messages show of the wire: read with the standard library, so that it is evidence about the decoder too.

Everything here is bounded: a server may send what it likes.
"""

import itertools
import re
import statistics
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from jvq_fast.doctor import blocks
from jvq_fast.market_rules import Board, board, lot
from jvq_fast.redact import redact

CHINA = timezone(timedelta(hours=8))
# Of text, in a message and in all. What comes beyond is counted and not looked at.
MAX_INFLATED = 8 << 20
MAX_LOOKED_AT = 16 << 20
MAX_WALKED = 256 << 10
_MAX_BROKEN = 64 << 10
_MAX_NAMES = 64
_MAX_CODES = 4096
_MAX_RECORDS = 1 << 16
_RECORD = 32  # what looking at a record costs beside its bytes, in bytes
_STALE = 600.0
APART = 60.0
_NEXT = 1_000_000_000  # ns after the first push: what has a later time than all before is none of it
_FIELDS = {"lv1": 26, "lv2": 4, "lv10": 46}
_TIME = re.compile(r"(\d\d):(\d\d):(\d\d)(?:\.(\d{0,9}))?", re.ASCII)
_NUMBER = re.compile(r"-?\d+(?:\.\d*)?", re.ASCII)
_STOCKS = (Board.MAIN, Board.STAR, Board.CHINEXT)


@dataclass(frozen=True, slots=True)
class Message:
    """A binary message: `recv` is its arrival in ns, `ends_read` that it was the last of its socket read."""

    recv: int
    ends_read: bool
    payload: bytes = field(repr=False)


@dataclass(slots=True)
class Sizes:
    """Of some numbers the smallest, the median, the 99th percentile and the largest."""

    values: list[int] = field(default_factory=list, repr=False)

    def summary(self) -> dict[str, float] | None:
        if not self.values:
            return None
        ordered = sorted(self.values)
        at = min(len(ordered) - 1, int(0.99 * len(ordered)))
        return {"min": ordered[0], "median": statistics.median(ordered), "p99": ordered[at], "max": ordered[-1]}


@dataclass(slots=True)
class FirstPush:
    """The first record of a subscription: how long after it was asked for, and how old it was, both seconds."""

    delay: float
    age: float | None


@dataclass(slots=True)
class Evidence:
    """What was counted. Counters are by form: an empty Counter says that nothing of the kind was seen."""

    looked_at: int = 0
    passed_over: int = 0
    # Numbers of messages that hold a token, or may.
    secretive: set[int] = field(default_factory=set)
    containers: Counter[str] = field(default_factory=Counter)
    blocks: Counter[str] = field(default_factory=Counter)
    streams_walked: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    utf8: Counter[str] = field(default_factory=Counter)
    compressed: Sizes = field(default_factory=Sizes)
    inflated: Sizes = field(default_factory=Sizes)
    rows: Sizes = field(default_factory=Sizes)
    records: Sizes = field(default_factory=Sizes)
    names: dict[str, str] = field(default_factory=dict)
    fields: dict[str, Counter[str]] = field(default_factory=lambda: {level: Counter() for level in _FIELDS})
    times: dict[str, Counter[str]] = field(default_factory=lambda: {level: Counter() for level in _FIELDS})
    odd_rows: int = 0
    lv1_order: Counter[str] = field(default_factory=Counter)
    lv10_order: Counter[str] = field(default_factory=Counter)
    empty_levels: Counter[str] = field(default_factory=Counter)
    index_rows: Counter[str] = field(default_factory=Counter)
    volume_unit: Counter[str] = field(default_factory=Counter)
    trade_order: Counter[str] = field(default_factory=Counter)
    trade_order_later: Counter[str] = field(default_factory=Counter)
    ids: Counter[str] = field(default_factory=Counter)
    volumes: Counter[str] = field(default_factory=Counter)
    trades: Counter[str] = field(default_factory=Counter)
    priceless: Counter[str] = field(default_factory=Counter)
    repeats: int = 0
    snapshots: int = 0
    duplicates: int = 0
    first_pushes: dict[str, FirstPush] = field(default_factory=dict)
    least_age: float | None = None
    # Of all records, the age that is nearest to none; and whether the times of a subscription went on.
    nearest_age: float | None = None
    is_moving: bool = False

    @property
    def clocks_apart(self) -> float | None:
        """Seconds by which all that came is older than this machine's clock says, negative where it is newer; None
        where that is about none, or can't be told: what stands still may be a code that does not trade."""
        age = self.nearest_age
        return age if age is not None and self.is_moving and abs(age) >= APART else None


def look(messages: Sequence[Message], asked_ns: int, *, real_time: bool) -> Evidence:
    """Everything that can be counted. `asked_ns` is when the subscription was sent; `real_time` says that the times on
    the wire are those of now, as the vendor's are and a simulator's are not."""
    return _Reader(asked_ns, real_time).read(messages)


class _Reader:
    def __init__(self, asked_ns: int, real_time: bool) -> None:
        self._found = Evidence()
        self._asked_ns = asked_ns
        self._real_time = real_time
        self._budget = MAX_LOOKED_AT
        self._walk_budget = MAX_WALKED
        self._last: dict[tuple[str, str], str] = {}
        self._seen: set[tuple[str, str]] = set()
        self._bonds: list[tuple[str, float, float, float]] = []
        self._newest: dict[str, tuple[int, str]] = {}  # by subscription: its first arrival, its latest time

    def read(self, messages: Sequence[Message]) -> Evidence:
        found = self._found
        for number, message in enumerate(messages):
            if self._budget <= 0:
                found.passed_over = len(messages) - number
                break
            found.looked_at += 1
            self._message(number, message)
        self._units()
        return found

    def _message(self, number: int, message: Message) -> None:
        found = self._found
        payload = message.payload
        found.compressed.values.append(len(payload))
        text, container, rest = _inflate(payload)
        self._budget -= max(len(text), len(payload), 64)
        found.containers[container] += 1
        if container == "too large" or (container == "corrupt" and len(payload) > _MAX_BROKEN):
            found.secretive.add(number)  # not all of it was seen
            return
        shown = text.decode("utf-8", "replace")
        if any(redact(each) != each for each in (shown, payload.decode("latin-1"), rest.decode("utf-8", "replace"))):
            found.secretive.add(number)
        if not container.startswith("raw DEFLATE"):
            return
        found.inflated.values.append(len(text))
        self._walk(payload, len(text))
        found.utf8["valid" if _is_utf8(text) else "invalid"] += 1
        found.endings[_ending(shown)] += 1
        rows = [row for row in shown.replace("\r", "").split("\n") if row]
        found.rows.values.append(len(rows))
        for row in rows:
            self._row(row, message.recv)
            if self._budget <= 0:
                break

    def _walk(self, payload: bytes, size: int) -> None:
        if size > self._walk_budget:
            return
        self._walk_budget -= size + 512
        try:
            found = blocks.kinds(payload)
        except ValueError:
            return
        self._found.streams_walked += 1
        self._found.blocks.update(found)

    def _row(self, row: str, recv: int) -> None:
        found = self._found
        head, equals, body = row.partition("=")
        level, underscore, code = head.partition("_")
        if not equals or not underscore or level not in _FIELDS:
            found.odd_rows += 1
            return
        records = body.split("|", _MAX_RECORDS)
        self._budget -= _RECORD * len(records)
        found.records.values.append(len(records))
        for place, record in enumerate(records):
            fields = record.split(",")
            if level == "lv2":
                self._trade(code, record, fields, place, recv)
            else:
                self._snapshot(level, code, record, fields, recv)

    def _trade(self, code: str, record: str, fields: list[str], place: int, recv: int) -> None:
        found = self._found
        found.fields["lv2"][str(len(fields))] += 1
        if len(fields) != _FIELDS["lv2"]:
            return
        is_time = [_TIME.fullmatch(each) is not None for each in fields[:2]]
        order = {(True, False): "time first", (False, True): "id first"}.get((is_time[0], is_time[1]), "unclear")
        (found.trade_order_later if place else found.trade_order)[order] += 1
        if order == "id first":
            fields = [fields[1], fields[0], *fields[2:]]
        time, id_, price, volume = fields
        self._time("lv2", f"lv2_{code}", time, recv)
        found.ids["decimal" if id_.isascii() and id_.isdigit() else "empty" if not id_ else "text"] += 1
        found.volumes["integer" if volume.isdigit() else "decimals" if _NUMBER.fullmatch(volume) else "other"] += 1
        where = _exchange(code)
        found.trades[where] += 1
        found.priceless[where] += _number(price) == 0
        key = code, record
        found.duplicates += key in self._seen
        self._seen.add(key)

    def _snapshot(self, level: str, code: str, record: str, fields: list[str], recv: int) -> None:
        found = self._found
        is_index = code.startswith("i")
        found.snapshots += 1
        found.repeats += self._last.get((level, code)) == record
        self._last[level, code] = record
        if len(found.names) < _MAX_NAMES and len(fields) > 1:
            found.names[code] = redact(fields[1])[:40]
        self._time(level, f"{level}_{code}", fields[0], recv)
        whole = len(fields) == _FIELDS[level]
        if is_index:
            empty = whole and not any(_number(each) for each in fields[6:])
            if level == "lv1":
                found.index_rows["empty book" if empty else "with a book" if whole else f"{len(fields)} fields"] += 1
        else:
            found.fields[level][str(len(fields))] += 1
        if not whole:
            return
        self._levels(level, fields)
        price, *totals = (_number(fields[at]) for at in (2, 4, 5))
        if level == "lv1" and not is_index and price and totals[0] and totals[1]:
            if board(code) in _STOCKS:
                self._amount_order(price, totals[0], totals[1])
            elif board(code) in (Board.BOND, Board.FUND):
                self._bonds.append((code, price, totals[0], totals[1]))
        if level == "lv10" and price:
            self._depth_order(price, fields)

    def _amount_order(self, price: float, first: float, second: float) -> None:
        if abs(price - 1) < 0.02:
            return
        forward, backward = (0.7 < ratio / price < 1.4 for ratio in (first / second, second / first))
        if forward != backward:
            self._found.lv1_order["amount first" if forward else "volume first"] += 1

    def _depth_order(self, price: float, fields: list[str]) -> None:
        def are_prices(texts: list[str], sign: int) -> bool:
            values = [value for value in map(_number, texts) if value]
            steps = itertools.pairwise(values)
            return (
                len(values) > 1
                and all(0.7 < value / price < 1.4 for value in values)
                and all(sign * (b - a) > 0 for a, b in steps)
            )

        first = are_prices(fields[6:16], -1) or are_prices(fields[26:36], 1)
        second = are_prices(fields[16:26], -1) or are_prices(fields[36:46], 1)
        if first != second:
            self._found.lv10_order["prices first" if first else "quantities first"] += 1

    def _levels(self, level: str, fields: list[str]) -> None:
        if level == "lv1":
            pairs: Iterable[tuple[str, str]] = zip(fields[6::2], fields[7::2], strict=True)
        else:
            sides = (fields[6:26], fields[26:46])
            pairs = [pair for side in sides for pair in zip(side[:10], side[10:], strict=True)]
            # Which of a pair is the quantity does not matter where both are empty; "100," and ",100" do not occur.
        for one, other in pairs:
            if not _number(one) and not _number(other):
                forms = {"blank" if not each else "zero" if _number(each) == 0 else "other" for each in (one, other)}
                self._found.empty_levels[" and ".join(sorted(forms))] += 1

    def _time(self, level: str, subscription: str, text: str, recv: int) -> None:
        found = self._found
        match = _TIME.fullmatch(text)
        if match is None:
            found.times[level]["other"] += 1
            return
        digits = match[4]
        found.times[level]["HH:MM:SS" + ("" if digits is None else f".{'f' * len(digits)}")] += 1
        age = None
        if self._real_time:
            age = _age(recv, match)
            if abs(age) < _STALE and (found.least_age is None or age < found.least_age):
                found.least_age = age
            if found.nearest_age is None or abs(age) < abs(found.nearest_age):
                found.nearest_age = age
            self._move(subscription, text, recv)
        if subscription not in found.first_pushes and len(found.first_pushes) < _MAX_CODES:
            found.first_pushes[redact(subscription)] = FirstPush((recv - self._asked_ns) / 1e9, age)

    def _move(self, subscription: str, text: str, recv: int) -> None:
        first, latest = self._newest.get(subscription, (recv, ""))
        if latest and text > latest and recv >= first + _NEXT:
            self._found.is_moving = True
        if len(self._newest) < _MAX_CODES or subscription in self._newest:
            self._newest[subscription] = first, max(latest, text)

    def _units(self) -> None:
        found = self._found
        swapped = found.lv1_order["volume first"] > found.lv1_order["amount first"]
        for code, price, first, second in self._bonds:
            amount, volume = (second, first) if swapped else (first, second)
            ratio = amount / volume / price
            kind = "bond" if board(code) is Board.BOND else "fund"
            if 0.7 < ratio < 1.4:
                found.volume_unit[f"{kind} units"] += 1
            elif 0.7 < ratio / lot(code).step < 1.4:
                found.volume_unit[f"{kind} lots of {lot(code).step}"] += 1
            else:
                found.volume_unit[f"{kind} unclear"] += 1


def _inflate(payload: bytes) -> tuple[bytes, str, bytes]:
    """The text, or what there is of it; what the payload turned out to be; what may be hidden behind the stream."""
    stream = zlib.decompressobj(-15)
    try:
        text = stream.decompress(payload, MAX_INFLATED)
    except zlib.error:
        for name, window in (("gzip", 31), ("zlib", 15)):
            try:
                return zlib.decompressobj(window).decompress(payload, MAX_INFLATED), name, b""
            except zlib.error:
                pass
        return _as_far_as_it_goes(payload[:_MAX_BROKEN]), "corrupt", b""
    if stream.eof and stream.unused_data:
        return text, "raw DEFLATE and more", _as_far_as_it_goes(stream.unused_data[:_MAX_BROKEN])
    if stream.eof:
        return text, "raw DEFLATE", b""
    return text, "too large" if stream.unconsumed_tail or len(text) >= MAX_INFLATED else "cut off", b""


def _as_far_as_it_goes(payload: bytes) -> bytes:
    stream = zlib.decompressobj(-15)
    text = bytearray()
    try:
        for at in range(len(payload)):
            text += stream.decompress(payload[at : at + 1], MAX_INFLATED)
            if len(text) > MAX_INFLATED:
                break
    except zlib.error:
        pass
    return bytes(text)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _ending(text: str) -> str:
    return "CR LF" if text.endswith("\r\n") else "newline" if text.endswith("\n") else "no newline"


def _number(text: str) -> float | None:
    return float(text[:40]) if _NUMBER.fullmatch(text) else None


def _exchange(code: str) -> str:
    return "Shenzhen" if code[:1] in ("0", "1", "2", "3") and code[:2] not in ("11",) else "Shanghai"


def _age(recv: int, match: re.Match[str]) -> float:
    """Seconds from a time of day to an arrival, the nearest such moment."""
    now = datetime.fromtimestamp(recv / 1e9, CHINA)
    of_day = now.hour * 3600 + now.minute * 60 + now.second + now.microsecond / 1e6
    hours, minutes, seconds = (int(match[i]) for i in (1, 2, 3))
    then = hours * 3600 + minutes * 60 + seconds + float(f"0.{match[4] or 0}")
    return (of_day - then + 43200) % 86400 - 43200
