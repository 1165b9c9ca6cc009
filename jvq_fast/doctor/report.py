"""The report of a walk, for people and as JSON, and the files of both: without the token, whoever repeated it."""

import datetime as dt
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from jvq_fast.allocation import Reply
from jvq_fast.capture import header
from jvq_fast.doctor.evidence import CHINA, Evidence
from jvq_fast.doctor.statements import Verdict, verdicts
from jvq_fast.doctor.walk import Walk
from jvq_fast.errors import JvqError
from jvq_fast.redact import redact

__all__ = ["Files", "OutputError", "Report", "make"]

VERSION = 1
CAPTURE_LIMIT = 4 << 20
_SHOWN = 2000
_HEADERS = ("date", "server", "content-type", "location", "via")
_NAMES = {"text": "doctor.txt", "json": "doctor.json", "capture": "doctor.jvq"}
_MARKS = {"ok": "ok", "remark": "REMARK", "failed": "FAILED", "open": "open", "skipped": "skipped"}
_ORDER = ("refuted", "confirmed", "open")


class OutputError(JvqError):
    """The files of a report can't be written."""


@dataclass(frozen=True, slots=True)
class Report:
    """`facts` is the JSON object, `text` the same for people; in neither does the token stand."""

    facts: dict[str, Any]
    text: str

    @property
    def json(self) -> str:
        """The object as text, with a newline at its end."""
        # Once more as a whole: what was clean in pieces stays clean where they meet.
        return redact(json.dumps(self.facts, ensure_ascii=False, indent=1)) + "\n"


def make(walk: Walk) -> Report:
    """The report of a walk."""
    facts = _clean(_facts(walk))
    return Report(facts, redact("\n".join(_lines(facts))) + "\n")


class Files:
    """The three files of a report in a directory, made at once with mode 0600, so that a walk is not made in vain.

    OutputError where the directory can't be made or written, or holds one of them already.
    """

    def __init__(self, directory: str) -> None:
        self.paths: list[str] = []
        self._directory = directory
        self._open: dict[str, int] = {}
        try:
            Path(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
            for kind, name in _NAMES.items():
                path = os.path.join(directory, name)  # noqa: PTH118
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
                self._open[kind] = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o600)
                self.paths.append(path)
        except FileExistsError as error:
            self.discard()
            raise OutputError(f"{error.filename} exists, and is left as it is: name another directory") from None
        except OSError as error:
            self.discard()
            raise OutputError(f"can't write {directory}: {error.strerror}: name another directory") from None

    def close(self) -> None:
        """Remove them again, unless they were written."""
        if self._open:
            self.discard()

    def discard(self) -> None:
        """Remove them again."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        for path in self.paths:
            Path(path).unlink(missing_ok=True)
        self.paths.clear()

    def write(self, walk: Walk, report: Report) -> int:
        """Fill them; returns how many messages were left out of the capture, because they held the token."""
        chunks, left_out = walk.capture(CAPTURE_LIMIT)
        contents = {
            "text": report.text.encode(errors="replace"),
            "json": report.json.encode(errors="replace"),
            "capture": header("ab", walk.started_ns) + b"".join(chunks),
        }
        try:
            for kind in _NAMES:
                with os.fdopen(self._open.pop(kind), "wb") as file:
                    file.write(contents[kind])
        except BaseException as error:
            self.discard()
            if isinstance(error, OSError):
                raise OutputError(
                    f"can't write the report to {self._directory}: {error.strerror}; it is printed instead"
                ) from None
            raise
        return left_out


def _clean(value: Any) -> Any:
    """The same without any token; long texts are cut, after that."""
    if isinstance(value, str):
        value = redact(value.encode(errors="replace").decode())
        return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}… ({len(value):,} characters)"
    if isinstance(value, Mapping):
        return {_clean(str(name)): _clean(each) for name, each in value.items()}
    if isinstance(value, Sequence):
        return [_clean(each) for each in value]
    return value


# --- facts


def _facts(walk: Walk) -> dict[str, Any]:
    plan = walk.plan
    return {
        "report": VERSION,
        "ok": walk.ok,
        "interrupted": walk.interrupted,
        "unfinished": walk.unfinished if walk.interrupted else [],
        "at": dt.datetime.fromtimestamp(walk.started_ns / 1e9, CHINA).isoformat(timespec="seconds"),
        "hours": walk.hours.text,
        "asked": {
            "subscriptions": list(plan.subscriptions),
            "allocation": None if plan.server is not None else plan.service,
            "server": None if walk.address is None else str(walk.address),
            "clock": plan.clock,
            "seconds": plan.seconds,
        },
        "machine": walk.machine,
        "steps": [
            {"name": step.name, "outcome": step.outcome, "found": step.found, "means": step.means, "todo": step.todo}
            for step in walk.steps
        ],
        "allocation": [_allocation(reply) for reply in walk.allocations],
        "texts": _texts(walk),
        "detected": _detected(walk),
        "assumptions": [
            {
                "id": each.statement.id,
                "basis": each.statement.basis,
                "text": each.statement.text,
                "judgement": each.judgement,
                "evidence": each.evidence,
                "then": each.statement.then,
            }
            for each in _in_order(verdicts(walk))
        ],
        "counters": walk.stats,
    }


def _in_order(found: list[Verdict]) -> list[Verdict]:
    return sorted(found, key=lambda each: _ORDER.index(each.judgement))


def _allocation(reply: Reply | BaseException) -> dict[str, Any]:
    if not isinstance(reply, Reply):
        return {"error": str(reply) or type(reply).__name__}
    return {
        "status": reply.status,
        "milliseconds": round(reply.seconds * 1000, 1),
        "headers": {name.lower(): value for name, value in reply.headers.items() if name.lower() in _HEADERS},
        "body": reply.body.decode("utf-8", "replace"),
    }


def _texts(walk: Walk) -> list[dict[str, Any]]:
    def replies(found: list[tuple[float, str]]) -> list[dict[str, Any]]:
        return [{"milliseconds": round(delay * 1000, 1), "text": text} for delay, text in found]

    unasked = [{"command": None, "replies": replies(walk.greetings)}] if walk.greetings else []
    return [*unasked, *({"command": each.text, "replies": replies(each.replies)} for each in walk.commands)]


def _detected(walk: Walk) -> dict[str, Any]:
    found, stats = walk.evidence, walk.stats
    return {
        "opening_milliseconds": _milliseconds(walk.opening_seconds),
        "open_seconds": _since_opening(walk, walk.over_ns),
        "last_frame_seconds": _since_opening(walk, max(walk.last_frame_ns, walk.last_record_ns)),
        "last_record_seconds": _since_opening(walk, walk.last_record_ns),
        "frames": dict(walk.frames),
        "fragmented_messages": walk.fragments.total(),
        "most_frames_per_message": max(walk.fragments, default=1),
        "server_pings": walk.frames["ping"],
        "ping_answered": None if not walk.pinged_ns else walk.ping_seconds is not None,
        "ping_milliseconds": _milliseconds(walk.ping_seconds),
        "messages": int(stats.get("messages", 0)),
        "messages_looked_at": found.looked_at,
        "messages_passed_over": found.passed_over + walk.lost_messages,
        "bytes_compressed": found.compressed.summary(),
        "bytes_inflated": found.inflated.summary(),
        "rows_per_message": found.rows.summary(),
        "records_per_row": found.records.summary(),
        "containers": dict(found.containers),
        "messages_whose_blocks_were_counted": found.streams_walked,
        "deflate_blocks": dict(found.blocks),
        "endings": dict(found.endings),
        "names": found.names,
        "lv1_order": stats.get("lv1_order"),
        "lv1_order_source": stats.get("lv1_order_source"),
        "lv10_order": stats.get("lv10_order"),
        "lv10_order_source": stats.get("lv10_order_source"),
        "empty_levels": dict(found.empty_levels),
        "index_rows": dict(found.index_rows),
        "fields": {level: dict(counter) for level, counter in found.fields.items()},
        "times": {level: dict(counter) for level, counter in found.times.items()},
        "trade_ids": dict(found.ids),
        "trade_volumes": dict(found.volumes),
        "trades_at_price_0": dict(found.priceless),
        "duplicate_trades": found.duplicates,
        "repeated_snapshots": found.repeats,
        "odd_rows": found.odd_rows,
        "first_pushes": _first_pushes(walk, found),
        "clock": _clock(walk, found),
    }


def _since_opening(walk: Walk, at_ns: int) -> float | None:
    return round((at_ns - walk.opened_ns) / 1e9, 3) if walk.opened_ns and at_ns else None


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)


def _first_pushes(walk: Walk, found: Evidence) -> dict[str, dict[str, float | None]]:
    return {
        name: {
            "after_seconds": round(push.delay, 3),
            "age_seconds": None if push.age is None else round(push.age, 3),
        }
        for name, push in found.first_pushes.items()
        if name in walk.plan.subscriptions
    }


def _clock(walk: Walk, found: Evidence) -> dict[str, Any]:
    """Our clock beside the exchange's stamps, and beside the allocation service's Date, which has whole seconds."""
    ahead = None
    for reply, asked_ns in zip(walk.allocations, walk.asked_ns, strict=True):
        if isinstance(reply, Reply):
            headers = {name.lower(): value for name, value in reply.headers.items()}
            try:
                stamp = parsedate_to_datetime(headers.get("date", "")).timestamp()
            except (ValueError, OverflowError):
                continue
            ahead = round(asked_ns / 1e9 + reply.seconds / 2 - stamp - 0.5, 1)
            break
    least = found.least_age if found.clocks_apart is None else found.clocks_apart
    return {
        "least_seconds_from_stamp_to_arrival": None if least is None else round(least, 3),
        "seconds_ahead_of_allocation_service": ahead,
    }


# --- for people


def _lines(facts: dict[str, Any]) -> list[str]:
    lines = [
        f"jvq-fast doctor, {facts['at']}, jvq_fast {facts['machine'].get('jvq_fast')}",
        facts["hours"],
        "",
        "STEPS",
    ]
    for step in facts["steps"]:
        lines.append(f"  {_MARKS[step['outcome']]:8} {step['name']}: {step['found']}")
        for title, key in (("means", "means"), ("do", "todo")):
            if step[key]:
                lines.append(f"           {title}: {step[key]}")
    lines += ["", "REPLIES, AS THEY CAME"]
    for reply in facts["allocation"]:
        if "error" in reply:
            lines.append(f"  allocation: {reply['error']}")
        else:
            headers = ", ".join(f"{name}: {value}" for name, value in reply["headers"].items())
            lines += [
                f"  allocation: HTTP {reply['status']} after {reply['milliseconds']} ms ({headers})",
                f"      {reply['body']}",
            ]
    for each in facts["texts"]:
        lines.append(f"  {each['command'] or 'unasked'}")
        lines += [f"      {reply['milliseconds']:>8} ms  {reply['text']}" for reply in each["replies"]]
        if not each["replies"]:
            lines.append("      no reply")
    lines += ["", "DETECTED"]
    for name, value in facts["detected"].items():
        if value not in (None, "", 0) and (shown := _flat(value)):
            lines.append(f"  {name.replace('_', ' ')}: {shown}")
    counts = Counter(each["judgement"] for each in facts["assumptions"])
    summary = ", ".join(f"{counts[judgement]} {judgement}" for judgement in _ORDER)
    lines += ["", f"WHAT IS TAKEN FOR GRANTED: {summary}"]
    for each in facts["assumptions"]:
        lines += [
            f"  {each['judgement']:9} {each['id']} ({each['basis']}): {each['text']}",
            f"            {each['evidence']}",
        ]
        if each["judgement"] == "refuted":
            lines.append(f"            so: {each['then']}")
    interrupted = ["INTERRUPTED: it was not waited for what had not come by then"] if facts["interrupted"] else []
    lines += ["", *interrupted, _end(facts)]
    return [_printable(line) for line in lines]


def _end(facts: dict[str, Any]) -> str:
    failed = [step["name"] for step in facts["steps"] if step["outcome"] == "failed"]
    if failed:
        return f"NOT WELL: {', '.join(failed)}"
    unjudged = [step["name"] for step in facts["steps"] if step["outcome"] == "open"]
    if facts["unfinished"]:
        names = dict.fromkeys((*unjudged, *facts["unfinished"]))
        return f"What was finished works; not finished: {', '.join(names)}"
    if unjudged:
        return f"What could be tried works; not judged: {', '.join(unjudged)}"
    remarks = [step["name"] for step in facts["steps"] if step["outcome"] == "remark"]
    return "All that is needed works" + (f"; see the remarks on {', '.join(remarks)}" if remarks else "")


def _flat(value: object) -> str:
    if isinstance(value, dict):
        entries = {name: each for name, each in value.items() if each not in (None, {})}
        return ", ".join(
            f"{name} ({_flat(each)})" if isinstance(each, dict) else f"{name}: {_flat(each)}"
            for name, each in entries.items()
        )
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _printable(line: str) -> str:
    """The line without anything a terminal would act upon."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in line)
