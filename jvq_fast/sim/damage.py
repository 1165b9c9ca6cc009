"""What faults do to a message: to its records, to its payload, to its frames."""

import gzip
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jvq_fast.sim.cargo import Cargo, Record
from jvq_fast.sim.events import DAY, SECOND, clock_text, parse_clock
from jvq_fast.sim.line import BINARY, CONTINUATION, PING, frame

__all__ = ["FRAMES", "PAYLOADS", "RECORDS", "Frames", "bomb"]

Values = dict[str, Any]
Memory = dict[Any, Any]  # what a fault keeps from one message to the next
Late = list[tuple[int, Record]]  # records to be sent so many messages later


def _shifted(text: str, by: int) -> str:
    """A record with its time moved by microseconds, around midnight."""
    time, comma, rest = text.partition(",")
    if not time:
        return text
    digits = len(time.partition(".")[2])
    moment = (parse_clock(time) + by) % DAY
    fraction = f".{moment % SECOND:06d}000"[: digits + 1] if digits else ""
    return clock_text(moment) + fraction + comma + rest


def _retime(cargo: Cargo, by: int, fault: str) -> None:
    for record in cargo.records():
        record.text = _shifted(record.text, by)
        record.become("altered", fault)


def clock_skew(cargo: Cargo, values: Values, dice: random.Random, memory: Memory) -> Late:  # noqa: ARG001
    _retime(cargo, round(values["shift"] * SECOND), "clock_skew")
    return []


def midnight(cargo: Cargo, values: Values, dice: random.Random, memory: Memory) -> Late:  # noqa: ARG001
    if "shift" not in memory:
        first = parse_clock(cargo.records()[0].text.partition(",")[0])
        memory["shift"] = DAY - round(values["before"] * SECOND) - first
    _retime(cargo, memory["shift"], "midnight")
    return []


def crlf(cargo: Cargo, values: Values, dice: random.Random, memory: Memory) -> Late:  # noqa: ARG001
    ends = [[record for record in row if record.mark != "missing"] for row in cargo.rows]
    ends = [row for row in ends if row]
    for row in ends if cargo.end else ends[:-1]:
        row[-1].text += "\r"
        row[-1].become("altered", "crlf")
    return []


def newline(cargo: Cargo, values: Values, dice: random.Random, memory: Memory) -> Late:  # noqa: ARG001
    cargo.end = "" if cargo.end else "\n"
    return []


def field_count(cargo: Cargo, values: Values, dice: random.Random, memory: Memory) -> Late:  # noqa: ARG001
    record = dice.choice(cargo.records())
    by = values["by"] or dice.choice((-1, 1))
    fields = record.text.split(",")
    fields = fields[: max(1, len(fields) + by)] if by < 0 else fields + ["0"] * by
    record.text = ",".join(fields)
    record.become("damaged", "field_count")
    return []


def empty_field(cargo: Cargo, values: Values, dice: random.Random, memory: Memory) -> Late:  # noqa: ARG001
    record = dice.choice(cargo.records())
    fields = record.text.split(",")
    at = values["field"] if values["field"] >= 0 else dice.randrange(2, len(fields))
    fields[min(at, len(fields) - 1)] = ""
    record.text = ",".join(fields)
    record.become("altered", "empty_field")
    return []


def repeat_snapshot(cargo: Cargo, values: Values, dice: random.Random, memory: Memory) -> Late:  # noqa: ARG001
    record = dice.choice(cargo.fresh(("lv1_", "lv10_")))
    row, _ = cargo.place(record)
    again = [[Record(record.key, record.text, "extra", "repeat_snapshot")] for _ in range(values["times"])]
    cargo.rows[row + 1 : row + 1] = again
    return []


def stale_snapshot(cargo: Cargo, values: Values, dice: random.Random, memory: Memory) -> Late:  # noqa: ARG001
    record = dice.choice(cargo.fresh(("lv1_", "lv10_")))
    row, _ = cargo.place(record)
    old = Record(record.key, _shifted(record.text, -values["age"] * SECOND), "extra", "stale_snapshot")
    cargo.rows.insert(row, [old])
    if values["instead"]:
        record.become("missing", "stale_snapshot")
    return []


def duplicate_trade(cargo: Cargo, values: Values, dice: random.Random, memory: Memory) -> Late:  # noqa: ARG001
    record = dice.choice(cargo.fresh(("lv2_",)))
    again = Record(record.key, record.text, "extra", "duplicate_trade")
    if values["later"]:
        return [(values["later"], again)]
    row, position = cargo.place(record)
    cargo.rows[row].insert(position + 1, again)
    return []


def missing_trade(cargo: Cargo, values: Values, dice: random.Random, memory: Memory) -> Late:  # noqa: ARG001
    record = dice.choice(cargo.fresh(("lv2_",)))
    record.become("missing", "missing_trade")
    return []


def late_trade(cargo: Cargo, values: Values, dice: random.Random, memory: Memory) -> Late:  # noqa: ARG001
    record = dice.choice(cargo.fresh(("lv2_",)))
    row, position = cargo.place(record)
    del cargo.rows[row][position]
    if not cargo.rows[row]:
        del cargo.rows[row]
    record.become("moved", "late_trade")
    return [(values["later"], record)]


def huge(cargo: Cargo, values: Values, dice: random.Random, memory: Memory) -> Late:  # noqa: ARG001
    text = [(record.key, record.text) for record in cargo.records() if record.mark != "damaged"]
    once = sum(len(key) + len(record) + 2 for key, record in text) or values["size"] + 1
    for _ in range(values["size"] // once):
        cargo.rows += [[Record(key, record, "extra", "huge")] for key, record in text]
    return []


RECORDS: dict[str, Callable[[Cargo, Values, random.Random, Memory], Late]] = {
    each.__name__: each
    for each in (
        clock_skew, midnight, crlf, newline, field_count, empty_field, repeat_snapshot, stale_snapshot,
        duplicate_trade, missing_trade, late_trade, huge,
    )
}  # fmt: skip


def truncated(payload: bytes, text: bytes, values: Values, dice: random.Random) -> bytes:  # noqa: ARG001
    return payload[: max(0, len(payload) - (values["cut"] or dice.randint(1, len(payload))))]


def trailing_bytes(payload: bytes, text: bytes, values: Values, dice: random.Random) -> bytes:  # noqa: ARG001
    return payload + dice.randbytes(values["size"])


def wrapped(payload: bytes, text: bytes, values: Values, dice: random.Random) -> bytes:  # noqa: ARG001
    return gzip.compress(text, mtime=0) if values["form"] == "gzip" else zlib.compress(text)


def stored(payload: bytes, text: bytes, values: Values, dice: random.Random) -> bytes:  # noqa: ARG001
    stream = zlib.compressobj(0, zlib.DEFLATED, -15)
    return stream.compress(text) + stream.flush()


# Whether the message can be read all the same, and how its payload is made of the right one and of the text. In the
# order in which they are done; nothing is done to what can't be read, or it might by chance be read after all.
PAYLOADS: dict[str, tuple[bool, Callable[[bytes, bytes, Values, random.Random], bytes]]] = {
    "huge": (True, stored),
    "gzip": (False, wrapped),
    "truncated": (False, truncated),
    "trailing_bytes": (True, trailing_bytes),
}


@lru_cache(maxsize=2)
def bomb(size: int) -> bytes:
    """A payload that inflates to so many newlines."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    chunk = b"\n" * min(size, 1 << 20)
    parts = [stream.compress(chunk) for _ in range(size // len(chunk))]
    return b"".join(parts) + stream.compress(b"\n" * (size % len(chunk))) + stream.flush()


@dataclass(frozen=True, slots=True)
class Frames:
    """A message as it goes on the wire: TCP writes, ``pause`` seconds apart, and what comes ``then``."""

    pieces: list[bytes]
    pause: float = 0.0
    readable: bool = True
    then: str = ""  # close, reset, silent


def cut(payload: bytes, values: Values, dice: random.Random, memory: Memory) -> Frames:  # noqa: ARG001
    whole = frame(BINARY, payload)
    at = dice.randrange(1, len(whole)) if values["at"] < 0 else min(values["at"], len(whole) - 1)
    return Frames([whole[:at]], readable=False, then=values["how"])


def split(payload: bytes, values: Values, dice: random.Random, memory: Memory) -> Frames:
    whole = frame(BINARY, payload)
    if values["at"] == "every":
        return Frames([whole[at : at + 1] for at in range(len(whole))], values["pause"])
    if values["at"] == "next":
        memory["at"] = memory.get("at", 0) + 1
        at = (memory["at"] - 1) % (len(whole) - 1) + 1
    else:
        at = dice.randrange(1, len(whole)) if values["at"] == "random" else min(values["byte"], len(whole) - 1)
    return Frames([whole[:at], whole[at:]], values["pause"])


def fragments(payload: bytes, values: Values, dice: random.Random, memory: Memory) -> Frames:  # noqa: ARG001
    ends = sorted(dice.randint(0, len(payload)) for _ in range(values["pieces"] - 1))
    parts = [payload[begin:end] for begin, end in zip([0, *ends], [*ends, len(payload)], strict=True)]
    pings = b"".join(frame(PING, bytes([number % 256])) for number in range(values["pings"]))
    last = len(parts) - 1
    frames = [frame(CONTINUATION if number else BINARY, part, fin=number == last) for number, part in enumerate(parts)]
    return Frames([pings.join(frames)])


def rsv(payload: bytes, values: Values, dice: random.Random, memory: Memory) -> Frames:  # noqa: ARG001
    return Frames([frame(BINARY, payload, rsv=values["bits"])], readable=False)


def oversize(payload: bytes, values: Values, dice: random.Random, memory: Memory) -> Frames:  # noqa: ARG001
    return Frames([frame(BINARY, payload, size=max(values["size"], len(payload) + 1))], readable=False, then="silent")


FRAMES: dict[str, Callable[[bytes, Values, random.Random, Memory], Frames]] = {
    each.__name__: each for each in (cut, split, fragments, rsv, oversize)
}
