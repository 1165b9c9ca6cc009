"""What is taken for granted about the wire, sentence by sentence, and what a walk says to each.

An `id` stays what it is from version to version, so that reports can be compared.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jvq_fast.allocation import Reply, judge
from jvq_fast.doctor.walk import LIMIT_TEXT, Command, Walk, apart
from jvq_fast.errors import AllocationRefusedError, HandshakeError
from jvq_fast.plural import plural
from jvq_fast.redact import redact

Judgement = Literal["confirmed", "refuted", "open"]
Finding = tuple[Judgement, str]

# Cancellations make up a good part of Shenzhen's stream: so many trades without one say that it has none.
_ENOUGH_TRADES = 500


@dataclass(frozen=True, slots=True)
class Statement:
    """`basis` says how it is known so far; `then` what becomes of a feed where it does not hold."""

    id: str
    basis: Literal["assumed", "documented", "seen live", "disputed", "unknown"]
    text: str
    then: str
    judge: Callable[[Walk], Finding]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a walk says to a statement, and why."""

    statement: Statement
    judgement: Judgement
    evidence: str


def verdicts(walk: Walk) -> list[Verdict]:
    """A verdict on each statement, in their order."""
    return [Verdict(each, *each.judge(walk)) for each in STATEMENTS]


def _open(why: str) -> Finding:
    return "open", why


def _counted(counter: Counter[str], good: Callable[[str], bool], nothing: str) -> Finding:
    """Confirmed where all that was seen is good, refuted where anything is not."""
    if not counter:
        return _open(nothing)
    shown = ", ".join(f"{name} {plural(count, 'time')}" for name, count in counter.most_common(6))
    return ("confirmed" if all(map(good, counter)) else "refuted"), shown


# --- allocation


def _fields(reply: Reply) -> dict[str, object] | None:
    try:
        fields = json.loads(reply.body)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _code(fields: dict[str, object]) -> str:
    code = fields.get("code")
    return json.dumps(code, ensure_ascii=False) if isinstance(code, str | int | float | None) else type(code).__name__


def _granted(walk: Walk) -> Reply | None:
    for reply in walk.allocations:
        if isinstance(reply, Reply) and isinstance(judge(reply), str):
            return reply
    return None


def _refused(walk: Walk) -> Reply | None:
    for reply in walk.allocations:
        if isinstance(reply, Reply) and isinstance(judge(reply), AllocationRefusedError):
            return reply
    return None


def _grant_form(walk: Walk) -> Finding:
    reply = _granted(walk)
    if reply is None:
        return _open("no server was granted")
    fields = _fields(reply) or {}
    shown = f"code is {_code(fields)}, fields {', '.join(map(str, fields))}"
    return ("confirmed" if fields.get("code") == "0" else "refuted"), shown


def _address_form(walk: Walk) -> Finding:
    reply = _granted(walk)
    if reply is None:
        return _open("no server was granted")
    server = str((_fields(reply) or {}).get("server")).strip()
    scheme, separator, rest = server.partition("://")
    plain = bool(separator) and "/" not in rest and "?" not in rest
    what = [f"with scheme {scheme}" if separator else "without scheme"]
    if "/" in (rest if separator else server).rstrip("/"):
        what.append("with a path")
    if server.endswith("/"):
        what.append("with a trailing slash")
    return ("confirmed" if plain else "refuted"), ", ".join(what)


def _refusal_form(walk: Walk) -> Finding:
    reply = _refused(walk)
    if reply is None:
        return _open("nothing was refused")
    fields = _fields(reply) or {}
    key = next((name for name in ("message", "msg") if fields.get(name)), None)
    kind = "a number" if isinstance(fields.get("code"), int) else "text"
    shown = f"HTTP {reply.status}, code {_code(fields)} as {kind}"
    if key is None:
        return "refuted", f"{shown}, and neither message nor msg among {', '.join(map(str, fields))}"
    return "confirmed", f"{shown}, words under {key}"


def _interval(walk: Walk) -> Finding:
    if len(walk.allocations) < 2:
        return _open("not tried; --second-allocation tries it")
    second = walk.allocations[1]
    apart = (walk.asked_ns[1] - walk.asked_ns[0]) / 1e9
    if not isinstance(second, Reply) or _granted(walk) is not walk.allocations[0]:
        return _open("one of the two had no reply to judge by")
    outcome = judge(second)
    if isinstance(outcome, AllocationRefusedError):
        return "confirmed", f"the second, {apart:.1f} s after the first, was refused: {outcome}"
    if isinstance(outcome, str):
        return "refuted", f"the second, {apart:.1f} s after the first, was granted"
    return _open(f"the second, {apart:.1f} s after the first, got a reply of no use: {outcome}")


# --- texts


def _refusals(walk: Walk) -> list[str]:
    return [text for text in walk.texts if text.startswith("-1#")]


def _bad_token(walk: Walk) -> Finding:
    error = walk.handshake_error
    if isinstance(error, HandshakeError) and 400 <= error.status < 500:
        return "confirmed", f"HTTP {error.status}; that is so if it is the token that is bad"
    others = [text for text in _refusals(walk) if LIMIT_TEXT not in text]
    if others and walk.ended:
        return "confirmed", f"the handshake succeeded, then {others[0]!r} and the end; if it is the token that is bad"
    if isinstance(error, HandshakeError):
        return _open(f"the handshake failed in another way: {error}")
    return _open("the token was accepted" if walk.opening_seconds is not None else "no server was reached")


def _limit_text(walk: Walk) -> Finding:
    refusals = _refusals(walk)
    if any(LIMIT_TEXT in text for text in refusals):
        when = "at once" if walk.greetings else "later: another connection took the place of this one"
        return "confirmed", f"{refusals[0]!r}, {when}"
    return _open("the account is not at its limit")


def _acknowledgements(walk: Walk) -> list[Command]:
    return [each for each in walk.commands if "=" in each.text]


def _judged(walk: Walk, commands: list[Command]) -> list[Command]:
    """Without those whose answer could not be heard any more: from then on the connection may have been dead."""
    return [each for each in commands if each.replies or walk.is_due(each.sent_ns)]


def _success_text(walk: Walk) -> Finding:
    sent = _acknowledgements(walk)
    if not sent:
        return _open("no command was sent")
    commands = _judged(walk, sent)
    if not commands:
        return _open(f"no reply to {plural(len(sent), 'command')}, nor anything else after them")
    replies = [each.replies[0][1] for each in commands if each.replies]
    if not replies:
        if not walk.stats.get("records"):
            return _open(f"no reply to {plural(len(commands), 'command')}, and no data that would show they succeeded")
        return "refuted", f"no reply to {plural(len(commands), 'command')}; data shows that they succeeded"
    good = [text for text in replies if text.startswith("0#")]
    shown = f"{len(good)} of {len(replies)} replies begin with 0#, the first reply is {redact(replies[0])[:100]!r}"
    if len(good) == len(replies):
        return "confirmed", shown
    if any(text.startswith("-") for text in replies):
        return _open(f"a command failed: {shown}")
    return "refuted", shown


def _list_reply(walk: Walk) -> Finding:
    asked = [each for each in walk.commands if each.text in ("list", "his")]
    if not asked:
        return _open("nothing was asked")
    commands = _judged(walk, asked)
    if not commands:
        return _open(f"no reply to {plural(len(asked), 'request')}, nor anything else after them")
    answered = [each for each in commands if each.replies]
    if not answered:
        return "refuted", f"no reply to {plural(len(commands), 'request')}"
    delays = ", ".join(f"{each.text} {each.replies[0][0] * 1000:.1f} ms" for each in answered)
    first = [each for each in answered if each.text == "list"][:1]
    if first and all(name in first[0].replies[0][1] for name in walk.plan.subscriptions):
        return "confirmed", delays
    return "refuted", f"{delays}; it does not name what was subscribed to"


def _pong(walk: Walk) -> Finding:
    if walk.ping_seconds is not None:
        return "confirmed", f"answered after {walk.ping_seconds * 1000:.1f} ms"
    if not walk.pinged_ns or walk.ended:
        return _open("no ping was sent" if not walk.pinged_ns else "the connection ended")
    if not walk.is_due(walk.pinged_ns):
        return _open("no answer, nor anything else after it")
    return "refuted", f"no answer within {walk.plan.reply_timeout:g} s"


def _pings(walk: Walk) -> Finding:
    if walk.opening_seconds is None:
        return _open("there was no connection")
    count = walk.frames["ping"]
    if count:
        return "refuted", f"{plural(count, 'ping')} of the server"
    if walk.listened < 60 or walk.died:
        return _open(f"no ping within {walk.listened:.0f} s, and pings may be minutes apart")
    return "confirmed", f"no ping within {walk.listened:.0f} s"


# --- messages


def _raw_deflate(walk: Walk) -> Finding:
    return _counted(walk.evidence.containers, lambda name: name == "raw DEFLATE", "no message arrived")


def _blocks(walk: Walk) -> Finding:
    found = walk.evidence
    if not found.blocks:
        return _open("no message arrived")
    shown = ", ".join(f"{name} {count:,}" for name, count in found.blocks.most_common())
    several = "several kinds" if len(found.blocks) > 1 else "one kind"
    judgement: Judgement = "confirmed" if len(found.blocks) > 1 else "open"
    return judgement, f"{several} in {plural(found.streams_walked, 'message')}: {shown}"


def _fragmentation(walk: Walk) -> Finding:
    if not walk.evidence.looked_at:
        return _open("no message arrived")
    if walk.fragments:
        return "refuted", f"{plural(walk.fragments.total(), 'message')} in up to {max(walk.fragments)} frames"
    return "confirmed", f"{plural(walk.evidence.looked_at, 'message')} of one frame"


def _utf8(walk: Walk) -> Finding:
    return _counted(walk.evidence.utf8, lambda name: name == "valid", "no message arrived")


def _ending(walk: Walk) -> Finding:
    return _counted(walk.evidence.endings, lambda name: name == "no newline", "no message arrived")


def _stale_push(walk: Walk) -> Finding:
    ages = [
        (name, push.age)
        for name, push in walk.evidence.first_pushes.items()
        if push.age is not None and not name.startswith("lv2_")
    ]
    if not ages:
        return _open("no snapshot arrived whose age could be told")
    if walk.evidence.clocks_apart is not None:
        return _open(
            f"all data, not the first alone, was {apart(walk.evidence.clocks_apart)} than this machine's clock"
        )
    name, oldest = max(ages, key=lambda each: abs(each[1]))
    if not walk.hours.data_expected:
        return _open(f"the oldest, {name}, was {oldest:.0f} s old, and the market does not trade")
    return ("confirmed" if oldest > 60 else "refuted"), f"the oldest, {name}, was {oldest:.1f} s old"


def _repeats(walk: Walk) -> Finding:
    found = walk.evidence
    if found.snapshots < 2:
        return _open("fewer than two snapshots arrived")
    if found.repeats:
        return "confirmed", f"{found.repeats:,} of {found.snapshots:,} snapshots equal the one before"
    return _open(f"none of {found.snapshots:,} snapshots, which says little")


# --- records


def _field_count(level: str, wanted: int) -> Callable[[Walk], Finding]:
    def counted(walk: Walk) -> Finding:
        counter = Counter({f"{name} fields": count for name, count in walk.evidence.fields[level].items()})
        return _counted(counter, lambda name: name == f"{wanted} fields", f"no {level} record arrived")

    return counted


def _votes(counter: Counter[str], expected: str, other: str, level: str) -> Finding:
    if not counter:
        return _open(f"no {level} record that could tell arrived")
    shown = ", ".join(f"{name} {count:,}" for name, count in counter.most_common())
    if counter[expected] == counter[other]:
        return _open(f"as many for the one as for the other: {shown}")
    return ("confirmed" if counter[expected] > counter[other] else "refuted"), f"records that tell: {shown}"


def _amount_first(walk: Walk) -> Finding:
    return _votes(walk.evidence.lv1_order, "amount first", "volume first", "lv1")


def _prices_first(walk: Walk) -> Finding:
    return _votes(walk.evidence.lv10_order, "prices first", "quantities first", "lv10")


def _volume_unit(walk: Walk) -> Finding:
    counter = walk.evidence.volume_unit
    units = sum(count for name, count in counter.items() if name.endswith("units"))
    lots = sum(count for name, count in counter.items() if "lots of" in name)
    shown = ", ".join(f"{name} {count:,}" for name, count in counter.most_common())
    if not units and not lots:
        return _open(shown or "no snapshot of a bond or fund that has traded arrived")
    if lots:
        return "refuted", shown
    return "confirmed", shown


def _empty_levels(walk: Walk) -> Finding:
    return _counted(walk.evidence.empty_levels, lambda name: name == "zero", "no empty level arrived")


def _index_rows(walk: Walk) -> Finding:
    asked = [name for name in walk.plan.subscriptions if name.startswith("lv1_i")]
    nothing = f"no row of {', '.join(asked)} arrived" if asked else "no index was subscribed to"
    return _counted(walk.evidence.index_rows, lambda name: name == "empty book", nothing)


def _time_first(walk: Walk) -> Finding:
    return _counted(walk.evidence.trade_order, lambda name: name == "time first", "no trade arrived")


def _time_first_later(walk: Walk) -> Finding:
    nothing = "no row with several trades arrived"
    return _counted(walk.evidence.trade_order_later, lambda name: name == "time first", nothing)


def _milliseconds(walk: Walk) -> Finding:
    return _counted(walk.evidence.times["lv2"], lambda name: name == "HH:MM:SS.fff", "no trade arrived")


def _snapshot_seconds(walk: Walk) -> Finding:
    counter = walk.evidence.times["lv1"] + walk.evidence.times["lv10"]
    return _counted(counter, lambda name: name == "HH:MM:SS", "no snapshot arrived")


def _decimal_ids(walk: Walk) -> Finding:
    return _counted(walk.evidence.ids, lambda name: name == "decimal", "no trade arrived")


def _whole_volumes(walk: Walk) -> Finding:
    return _counted(walk.evidence.volumes, lambda name: name == "integer", "no trade arrived")


def _cancellations(walk: Walk) -> Finding:
    trades, priceless = walk.evidence.trades, walk.evidence.priceless
    if priceless["Shenzhen"]:
        return (
            "confirmed",
            f"{priceless['Shenzhen']:,} of {plural(trades['Shenzhen'], 'trade')} of Shenzhen have price 0",
        )
    if trades["Shenzhen"] >= _ENOUGH_TRADES:
        return "refuted", f"none of {plural(trades['Shenzhen'], 'trade')} of Shenzhen has price 0"
    return _open(f"none of {plural(trades['Shenzhen'], 'trade')} of Shenzhen has price 0; {_ENOUGH_TRADES} would tell")


def _unique_trades(walk: Walk) -> Finding:
    found = walk.evidence
    count = sum(found.trades.values())
    if not count:
        return _open("no trade arrived")
    return ("refuted" if found.duplicates else "confirmed"), f"{found.duplicates:,} of {count:,} came twice"


STATEMENTS: tuple[Statement, ...] = (
    Statement(
        "allocation-grant", "documented",
        'A server is granted by code "0", a string, and named under server.',
        "a number does as well", _grant_form,
    ),
    Statement(
        "allocation-address", "seen live",
        "The server's address has a scheme, and neither a path nor a slash at its end.",
        "all forms the vendor ever showed are read", _address_form,
    ),
    Statement(
        "allocation-refusal", "assumed",
        "A refusal is any other code, as text or as a number, and its words are under message or msg.",
        "the refusal is reported without the service's words", _refusal_form,
    ),
    Statement(
        "allocation-interval", "documented",
        "A token that asks again within 3 s is refused.",
        "nothing: a feed never asks more often", _interval,
    ),
    Statement(
        "bad-token", "assumed",
        "A bad token gets HTTP 4xx at the handshake; or the handshake, a text that begins with -1#, and the end.",
        "a feed takes it for a lost connection and goes on trying", _bad_token,
    ),
    Statement(
        "limit-text", "seen live",
        f"Beyond the account's connections a text says so: it begins with -1# and contains {LIMIT_TEXT}.",
        "a feed takes it for a lost connection and goes on trying", _limit_text,
    ),
    Statement(
        "success-text", "assumed",
        "A command that was carried out is acknowledged by a text that begins with 0#.",
        "nothing: acknowledgements are handed on and not read", _success_text,
    ),
    Statement(
        "list-reply", "documented",
        "list and his are answered with one text, and list names what the connection is subscribed to.",
        "request() times out, or its reply needs reading in another way", _list_reply,
    ),
    Statement(
        "answers-ping", "unknown",
        "The server answers a ping of the protocol.",
        "a silent connection is judged by its data alone", _pong,
    ),
    Statement(
        "no-server-pings", "unknown",
        "The server sends no pings of its own.",
        "nothing: they are answered", _pings,
    ),
    Statement(
        "raw-deflate", "documented",
        "A message is one complete raw DEFLATE stream with nothing around it.",
        "such messages can't be read; bytes behind the stream are passed over, and counted", _raw_deflate,
    ),
    Statement(
        "several-block-kinds", "unknown",
        "Messages have DEFLATE blocks of more than one kind.",
        "nothing: all kinds are read", _blocks,
    ),
    Statement(
        "one-frame", "documented",
        "A message comes in one frame.",
        "nothing: fragments are put together", _fragmentation,
    ),
    Statement(
        "utf-8", "documented",
        "The text of a message is valid UTF-8.",
        "names are shown with replacement characters", _utf8,
    ),
    Statement(
        "no-last-newline", "unknown",
        "The last row of a message has no newline.",
        "nothing: both are read", _ending,
    ),
    Statement(
        "stale-first-push", "seen live",
        "The first push after subscribing may be a stale snapshot.",
        "nothing: what is older than ten minutes is flagged STALE", _stale_push,
    ),
    Statement(
        "repeats", "seen live",
        "Identical snapshots repeat.",
        "nothing: those that do are flagged REPEAT", _repeats,
    ),
    Statement(
        "lv1-fields", "documented", "An lv1 record has 26 fields.",
        "such records are counted as bad", _field_count("lv1", 26),
    ),
    Statement(
        "lv1-amount-first", "disputed", "In lv1 the day's amount stands before its volume.",
        "the order is detected, once per connection; what came before is read the wrong way round", _amount_first,
    ),
    Statement(
        "lv1-volume-unit", "assumed", "The day's volume of bonds and funds counts units, as that of stocks does.",
        "volumes of bonds and funds are lots", _volume_unit,
    ),
    Statement(
        "empty-levels", "assumed", "A level of the book without orders is written as numbers, zeros.",
        "empty fields become 0 and are flagged EMPTY_FIELD", _empty_levels,
    ),
    Statement(
        "index-rows", "assumed", "An index has lv1 rows of 26 fields whose book is empty.",
        "rows with fewer fields are counted as bad", _index_rows,
    ),
    Statement(
        "snapshot-time", "documented", "The time of a snapshot is HH:MM:SS.",
        "up to nine fraction digits are read", _snapshot_seconds,
    ),
    Statement(
        "lv2-fields", "documented", "An lv2 record has 4 fields.",
        "such records are counted as bad", _field_count("lv2", 4),
    ),
    Statement(
        "lv2-time-first", "documented", "The first trade of a row has its time before its id.",
        "such records are counted as bad", _time_first,
    ),
    Statement(
        "lv2-time-first-later", "disputed", "So have the trades of a row after the first.",
        "such records are counted as bad", _time_first_later,
    ),
    Statement(
        "lv2-milliseconds", "documented", "The time of a trade has three fraction digits.",
        "up to nine are read", _milliseconds,
    ),
    Statement(
        "lv2-decimal-ids", "seen live", "A trade id is a decimal number.",
        "the trade has id -1, is flagged ID_TEXT and never dropped as a duplicate", _decimal_ids,
    ),
    Statement(
        "lv2-whole-volumes", "seen live", "The volume of a trade is written without decimals.",
        "nothing: zeros after the point are read, other decimals are bad", _whole_volumes,
    ),
    Statement(
        "lv2-cancellations", "assumed", "Shenzhen's stream has cancellations, as trades at price 0.",
        "nothing: a trade at price 0 is flagged NO_PRICE", _cancellations,
    ),
    Statement(
        "lv2-once", "unknown", "No trade is sent twice on a connection.",
        "both are published: nothing is dropped within a connection", _unique_trades,
    ),
    Statement(
        "lv10-fields", "documented", "An lv10 record has 46 fields.",
        "such records are counted as bad", _field_count("lv10", 46),
    ),
    Statement(
        "lv10-prices-first", "disputed", "In lv10 each side has its ten prices before its ten quantities.",
        "the order is detected, once per connection; what came before is read the wrong way round", _prices_first,
    ),
)  # fmt: skip
