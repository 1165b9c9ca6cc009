"""Every kind of fault with its parameters, and how the specification of one is read."""

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

from jvq_fast.sim.events import parse_clock

__all__ = ["KINDS", "FaultError", "Kind", "Parameter", "Spec", "no_such_kind", "parse", "read", "read_body"]

Where = Literal["allocation", "handshake", "trade", "server", "connection", "message", "frame"]


_EXAMPLE = 'an example: {"kind": "reset", "after": 500}'


class FaultError(ValueError):
    """A specification that names no fault."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: its type is that of its default, a number lies between ``low`` and ``high``."""

    name: str
    default: bool | int | float | str
    help: str
    choices: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf

    def check(self, kind: str, value: object) -> Any:
        """The value as this parameter's type. FaultError names the kind, the parameter and what was asked for."""
        wanted = type(self.default)
        good = isinstance(value, (int, float) if wanted is float else wanted)
        if isinstance(value, bool) and wanted is not bool:
            good = False
        if good and isinstance(value, (int, float)):
            good = math.isfinite(value) and self.low <= value <= self.high
        if good and self.choices:
            good = value in self.choices
        if not good:
            raise FaultError(f"fault {kind}: {self.name} is {self.wants()}, not {json.dumps(value, default=str)[:100]}")
        return float(value) if wanted is float else value  # type: ignore[arg-type]

    def wants(self) -> str:
        """What a value must be, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        name = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[type(self.default)]
        if self.low > -math.inf and self.high < math.inf:
            return f"{name} from {self.low:g} to {self.high:g}"
        return f"{name} from {self.low:g} on" if self.low > -math.inf else name


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault. ``count`` is how often it happens unless told otherwise, 0 for without end.

    ``needs`` is the level prefix of the records without which a message is none of its business.
    """

    name: str
    where: Where
    help: str
    count: int = 1
    parameters: tuple[Parameter, ...] = ()
    needs: tuple[str, ...] = ()
    standing: bool = False  # in force while it lasts, instead of happening at a time

    def common(self) -> tuple[Parameter, ...]:
        """The parameters of when and how often."""
        if self.standing:
            return _STANDING
        return _TIMES if self.where in ("allocation", "handshake", "trade", "server") else (*_TIMES, _CONNECTION)

    def takes(self) -> dict[str, Parameter]:
        """All parameters by name."""
        return {each.name: each for each in (*self.parameters, *self.common())}


_SECONDS = Parameter("seconds", 0.0, "it ends after so many seconds; 0 for never", low=0)
_STANDING = (_SECONDS,)
_TIMES = (
    Parameter("after", 0, "so many messages of each connection, or requests, pass first", low=0),
    Parameter("probability", 1.0, "then each one is hit with this probability", low=0, high=1),
    Parameter("count", 1, "how often in all, 0 for without end; without end too where seconds are given", low=0),
    _SECONDS,
    Parameter("seed", 0, "decides what is random; 0 for the simulator's seed"),
)
_CONNECTION = Parameter("connection", "all", "all, next for the next one accepted, or the number of one")
_SNAPSHOTS, _TRADES = ("lv1_", "lv10_"), ("lv2_",)
_LONGEST = 3600.0
_LARGEST = 1 << 26


def _call(default: str) -> Parameter:
    return Parameter("call", default, "which requests; order is buy or sale", choices=(
        "any", "login", "check_hold", "check_order", "buy", "sale", "order", "cancel"))  # fmt: skip


def _when(default: str) -> Parameter:
    return Parameter("when", default, "before it is done, and then it is not, or after", choices=("before", "after"))


_ALL = (
    # Allocation
    Kind("allocation_refuse", "allocation", "the request is refused", parameters=(
        Parameter("code", "-1", "code of the reply"), Parameter("message", "服务器繁忙", "text of the reply"))),
    Kind("allocation_status", "allocation", "an HTTP status instead of a reply", parameters=(
        Parameter("status", 503, "the status", low=200, high=599),)),
    Kind("allocation_body", "allocation", "a reply that is not what it should be", parameters=(
        Parameter("body", "<html>bad gateway</html>", "the whole body"),)),
    Kind("allocation_huge", "allocation", "a reply with so many bytes", parameters=(
        Parameter("size", 1 << 20, "bytes", low=100, high=_LARGEST),)),
    Kind("allocation_slow", "allocation", "the reply comes late", parameters=(
        Parameter("delay", 2.0, "seconds", low=0, high=_LONGEST),
        Parameter("drip", False, "byte by byte over this time instead of whole at its end"))),
    Kind("allocation_hang", "allocation", "no reply; the connection stays open"),
    Kind("allocation_drop", "allocation", "no reply; the connection is closed"),
    Kind("allocation_unknown_host", "allocation", "the server named is a host that nobody knows"),
    Kind("allocation_dead", "allocation", "the server named does not take connections", parameters=(
        Parameter("how", "refused", "it refuses them, or does not answer at all", choices=("refused", "silent")),)),
    Kind("allocation_address", "allocation", "the server named is no address", parameters=(
        Parameter("server", "ws://:port", "the address"),)),
    # Handshake
    Kind("bad_token", "handshake", "tokens that were good are bad, at allocation and at the handshake", count=0,
        parameters=(
        Parameter("token", "", "which one; all without it"),
        Parameter("how", "text", "handshake, text and close, or HTTP 401", choices=("text", "http")),
        Parameter("text", "-1#token无效", "the text"),
        Parameter("dismiss", False, "connections that are open are told and closed too"))),
    Kind("handshake_status", "handshake", "the handshake is refused", parameters=(
        Parameter("status", 503, "HTTP status", low=200, high=599),)),
    Kind("handshake_hang", "handshake", "the handshake is never answered"),
    Kind("handshake_drop", "handshake", "closed instead of a handshake"),
    # Trading: those that hit one request add up
    Kind("trade_reply_lost", "trade", "no reply", parameters=(
        _call("order"), _when("after"),
        Parameter("how", "close", "the connection is closed, or stays open", choices=("close", "hang")))),
    Kind("trade_reset", "trade", "RST instead of a reply", parameters=(_call("order"), _when("after"))),
    Kind("trade_delay", "trade", "it takes long", parameters=(
        _call("any"), Parameter("delay", 2.0, "seconds", low=0, high=_LONGEST),
        Parameter("when", "after", "before it is done, or between that and the reply", choices=("before", "after")))),
    Kind("trade_slow_login", "trade", "a login takes long", parameters=(
        Parameter("delay", 30.0, "seconds", low=0, high=_LONGEST),)),
    Kind("trade_ticket", "trade", "the ticket has expired", parameters=(_call("any"),)),
    Kind("trade_reject", "trade", "it is refused", parameters=(
        _call("order"), Parameter("code", "-1", "code of the reply"),
        Parameter("message", "系统拒绝该委托", "text of the reply"))),
    Kind("trade_error_after", "trade", "it is done, and the reply says that it failed", parameters=(
        _call("order"), Parameter("code", "-1", "code of the reply"),
        Parameter("message", "系统繁忙", "text of the reply"))),
    Kind("trade_empty_id", "trade", "code 0 and no order id", parameters=(
        Parameter("call", "order", "which requests; order is both", choices=("buy", "sale", "order")),
        Parameter("accepted", True, "the order is accepted all the same"))),
    Kind("trade_missing", "trade", "an order that is accepted is missing from the first polls", parameters=(
        Parameter("call", "order", "which requests; order is both", choices=("buy", "sale", "order")),
        Parameter("polls", 2, "of check_order", low=1, high=1_000_000))),
    Kind("trade_order_status", "trade", "orders have an unknown status", parameters=(
        Parameter("text", "废单", "the status"),
        Parameter("which", "all", "orders of the reply, or the newest alone", choices=("all", "newest")))),
    Kind("trade_numbers", "trade", "numbers instead of texts", parameters=(_call("any"),)),
    Kind("trade_fields", "trade", "a field is missing, in lists from each entry", parameters=(
        _call("any"), Parameter("field", "", "which; any one without it"))),
    Kind("trade_status", "trade", "an HTTP status instead of a reply", parameters=(
        _call("any"), _when("after"), Parameter("status", 502, "the status", low=200, high=599))),
    Kind("trade_html", "trade", "HTML instead of JSON", parameters=(
        _call("any"), _when("after"), Parameter("body", "<html>bad gateway</html>", "the whole body"))),
    Kind("trade_truncated", "trade", "the JSON ends early", parameters=(
        _call("any"), Parameter("cut", 0, "bytes missing; 0 for any number", low=0))),
    # The server
    Kind("down", "server", "nobody can connect: the listening socket is closed until the fault ends", parameters=(
        Parameter("cut", True, "connections that are open are cut"),)),
    Kind("trade_down", "server", "nobody can connect to the broker: as down, for its port"),
    Kind("quota", "server", "another limit of connections per token", standing=True, parameters=(
        Parameter("limit", 1, "connections per token; 0 for any number", low=0),
        Parameter("over_limit", "refuse", "beyond it the new one or the oldest must go", choices=("refuse", "evict")))),
    Kind("day_change", "server", "the market jumps to a later trading day", parameters=(
        Parameter("days", 1, "trading days", low=1, high=1000), Parameter("at", "09:30", "time of day, HH:MM[:SS]"))),
    # A connection
    Kind("reset", "connection", "RST"),
    Kind("half_open", "connection", "not a byte any more, and nothing is read; no error"),
    Kind("stall", "connection", "no data any more; the connection stays open", parameters=(
        Parameter("answers", True, "commands and pings are answered"),)),
    Kind("close", "connection", "a CLOSE frame", parameters=(
        Parameter("code", 1001, "its code; 0 for none", low=0, high=4999), Parameter("reason", "", "its reason"))),
    Kind("invalid_close", "connection", "a CLOSE frame that is not allowed", parameters=(
        Parameter("how", "one_byte", "one byte, a code that is none, a reason that is no UTF-8, too long, in fragments",
            choices=("one_byte", "code", "utf8", "long", "fragment")),)),
    Kind("evict", "connection", "a text, and the connection is closed", parameters=(
        Parameter("text", "-1#账户连接数已达并发上限", "the text"),
        Parameter("close", True, "with a CLOSE frame; else the TCP connection just ends"))),
    Kind("text", "connection", "a TEXT frame", parameters=(Parameter("text", "-3#系统维护", "the text"),)),
    # Frames: at most one of these hits a message
    Kind("cut", "frame", "the connection ends in the middle of a frame", parameters=(
        Parameter("at", -1, "bytes of the frame that are sent; -1 for any number", low=-1),
        Parameter("how", "close", "then it is closed, reset, or silent for ever",
            choices=("close", "reset", "silent")))),
    Kind("split", "frame", "a frame goes out in several TCP writes", count=0, parameters=(
        Parameter("at", "every", "a write for each byte; one split, each time a byte later; one anywhere; at byte",
            choices=("every", "next", "random", "byte")),
        Parameter("byte", 1, "where to split", low=1),
        Parameter("pause", 0.001, "seconds between two writes", low=0, high=60))),
    Kind("fragments", "frame", "a message in fragments with pings between", count=0, parameters=(
        Parameter("pieces", 3, "fragments; some may be empty", low=2, high=1000),
        Parameter("pings", 1, "pings between two fragments", low=0, high=100))),
    Kind("rsv", "frame", "reserved bits are set", parameters=(
        Parameter("bits", 4, "RSV1 is 4, RSV2 2, RSV3 1", low=1, high=7),)),
    Kind("oversize", "frame", "a frame that says it is larger than anybody takes; its beginning comes", parameters=(
        Parameter("size", 1 << 40, "bytes it says it has", low=1 << 16, high=(1 << 63) - 1),)),
    # Messages
    Kind("truncated", "message", "the DEFLATE stream ends early", parameters=(
        Parameter("cut", 0, "bytes missing; 0 for any number", low=0),)),
    Kind("trailing_bytes", "message", "bytes behind the DEFLATE stream", parameters=(
        Parameter("size", 4, "bytes", low=1, high=1 << 20),)),
    Kind("gzip", "message", "gzip or zlib instead of raw DEFLATE", parameters=(
        Parameter("form", "gzip", "which", choices=("gzip", "zlib")),)),
    Kind("huge", "message", "its own records again and again, not compressed", parameters=(
        Parameter("size", 1 << 20, "bytes of text, at least", low=1, high=_LARGEST),)),
    Kind("bomb", "message", "a further message that inflates to very much", parameters=(
        Parameter("size", 1 << 26, "bytes", low=1, high=1 << 30),)),
    Kind("crlf", "message", "rows end in CR LF"),
    Kind("newline", "message", "a trailing newline where there is none otherwise, and the other way round"),
    # Records
    Kind("field_count", "message", "a record has a field too many or too few", parameters=(
        Parameter("by", 0, "fields more, less if negative; 0 for any of -1 and 1", low=-100, high=100),)),
    Kind("empty_field", "message", "a field of a record is empty", parameters=(
        Parameter("field", -1, "its index; -1 for any number but the time and the id", low=-1, high=45),)),
    Kind("repeat_snapshot", "message", "a snapshot again", needs=_SNAPSHOTS, parameters=(
        Parameter("times", 1, "how often", low=1, high=1000),)),
    Kind("stale_snapshot", "message", "a snapshot with an old time before the right one", needs=_SNAPSHOTS, parameters=(
        Parameter("age", 900, "seconds that it is older", low=1, high=86399),
        Parameter("instead", False, "in its place"))),
    Kind("duplicate_trade", "message", "a trade again", needs=_TRADES, parameters=(
        Parameter("later", 0, "messages later; 0 for right behind it", low=0, high=1 << 20),)),
    Kind("missing_trade", "message", "a trade is left out", needs=_TRADES),
    Kind("late_trade", "message", "a trade comes out of order", needs=_TRADES, parameters=(
        Parameter("later", 1, "messages later", low=1, high=1 << 20),)),
    Kind("clock_skew", "message", "exchange times are shifted", count=0, parameters=(
        Parameter("shift", 60.0, "seconds; earlier if negative", low=-86400, high=86400),)),
    Kind("midnight", "message", "exchange times are shifted so that they pass midnight", count=0, parameters=(
        Parameter("before", 5.0, "seconds before midnight at which it begins", low=0, high=86400),)),
)  # fmt: skip

KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _ALL}


@dataclass(frozen=True, slots=True)
class Spec:
    """A fault that was asked for: all its parameters, and those that were given."""

    kind: Kind
    values: dict[str, Any]
    given: dict[str, Any] = field(default_factory=dict)


def no_such_kind(name: object) -> str:
    """What to say of a kind that there is not: those there are, the likeliest first."""
    shown = json.dumps(name, ensure_ascii=False)[:100]
    meant = difflib.get_close_matches(name, KINDS, n=1) if isinstance(name, str) else []
    hint = f"did you mean {meant[0]}? There are" if meant else "there are"
    return f"no fault of the kind {shown}; {hint} {', '.join([*meant, *(each for each in KINDS if each not in meant)])}"


def read(asked: object) -> Spec:
    """The fault of an object as ``POST /fault`` takes it. FaultError names what is wrong."""
    if not isinstance(asked, dict):
        raise FaultError(f"a fault is an object with a kind; {_EXAMPLE}")
    given = dict(asked)
    name = given.pop("kind", None)
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise FaultError(no_such_kind(name))
    takes = kind.takes()
    values = {each.name: each.default for each in takes.values()}
    if "count" in values:
        values["count"] = 0 if given.get("seconds") else kind.count
    for key, value in given.items():
        if key not in takes:
            raise FaultError(f"fault {kind.name} has no parameter {key[:100]!r}; it has {', '.join(takes)}")
        if key == "connection":
            value = str(value)  # noqa: PLW2901
            if value not in ("all", "next") and not (value.isascii() and value.isdigit()):
                raise FaultError(f"fault {kind.name}: connection is all, next or a number, not {value[:100]!r}")
        if kind.name == "day_change" and key == "at":
            _clock(kind.name, value)
        values[key] = takes[key].check(kind.name, value)
        if key == "status" and value not in set(HTTPStatus):
            raise FaultError(f"fault {kind.name}: there is no HTTP status {value}")
    return Spec(kind, values, given)


def _clock(kind: str, value: object) -> None:
    try:
        parse_clock(str(value))
    except ValueError:
        raise FaultError(f"fault {kind}: at is a time of day such as 09:30, not {str(value)[:100]!r}") from None


def parse(text: str) -> Spec:
    """The fault of a command line: ``kind``, ``kind:key=value,key=value`` or JSON. FaultError names what is wrong."""
    if text.lstrip().startswith("{"):
        try:
            return read(json.loads(text))
        except json.JSONDecodeError as error:
            raise FaultError(f"fault {text[:100]!r} is no JSON: {error}; {_EXAMPLE}") from None
    name, _, rest = text.strip().partition(":")
    asked: dict[str, Any] = {"kind": name}
    takes = KINDS[name].takes() if name in KINDS else {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise FaultError(f"fault {name}: {part[:100]!r} is not key=value")
        asked[key] = _typed(takes[key].default, value) if key in takes else value
    return read(asked)


def read_body(body: bytes) -> Spec:
    """The fault of a body of ``POST /fault``. FaultError names what is wrong."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        why = error if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise FaultError(f"the body {body[:100].decode(errors='replace')!r} is no JSON: {why}; {_EXAMPLE}") from None
    return read(asked)


def _typed(default: object, text: str) -> object:
    """A text as the type of a default, or as it is, which the check then names."""
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(text, text)
    for wanted in (int, float):
        if isinstance(default, wanted):
            try:
                return wanted(text)
            except ValueError:
                return text
    return text
