"""Every switch of the simulator, with its default: what the protocol says, the likeliest where it is silent."""

import datetime as dt
import math
from dataclasses import dataclass, field
from typing import Any

from jvq_fast.market_rules import is_trading_day, next_trading_day
from jvq_fast.redact import Secret
from jvq_fast.sim.fault_kinds import parse
from jvq_fast.sim.listing import CODE

_RANGES: dict[str, tuple[float, float]] = {
    "speed": (0, 1_000_000),
    "gather_ms": (0, 60_000),
    "cancels": (0, 1),
    "time_digits": (0, 9),
    "deflate_level": (1, 9),
    "fragments": (1, math.inf),
    "ping_every": (0, math.inf),
    "limit": (0, math.inf),
    "allocation_interval": (0, math.inf),
    "buffer_limit": (1, math.inf),
    "stall_seconds": (0, math.inf),
    "max_codes": (1, math.inf),
    "ticket_seconds": (1, math.inf),
    "order_days": (1, 1000),
    "commission": (0, 0.1),
}


def _switch(default: Any, help_: str, *choices: str) -> Any:
    return field(default=default, metadata={"help": help_, "choices": choices or None})


@dataclass(frozen=True, slots=True)
class Settings:
    """How the market runs and how the server speaks. Frozen: a running simulator keeps the settings it began with."""

    # The market
    seed: int = _switch(1, "seed of the generated market")
    speed: float = _switch(1.0, "market seconds per second; 0 or 'max' for as fast as the readers take it")
    start: str = _switch("", "time at which every day starts; by default 09:30, or where a replay begins")
    day: dt.date | None = _switch(  # noqa: RUF009
        None, "the first trading day; by default today or the next one; with --calendar any day"
    )
    calendar: bool = _switch(False, "live through lunch, nights and holidays instead of skipping them")
    hold: bool = _switch(False, "the market waits for POST /go instead of the first subscription")
    gather_ms: float = _switch(0.25, "events of this many milliseconds of real time share a message")
    limit_up: str = _switch("", "codes, comma-separated, that are at their upper limit all day")
    limit_down: str = _switch("", "codes, comma-separated, that are at their lower limit all day")
    cancels: float = _switch(0.0, "share of Shenzhen orders followed by a cancellation, a trade at price 0")
    replay: tuple[str, ...] = _switch((), "send these CSV files, gzipped or not, instead of a generated market")
    # Records
    lv1_order: str = _switch("amount_first", "order of lv1's amount and volume", "amount_first", "volume_first")
    lv10_order: str = _switch("price_first", "order inside each side of lv10", "price_first", "volume_first")
    lv2_second: str = _switch("time_first", "id and time of a row's records after the first", "time_first", "id_first")
    empty_levels: str = _switch(
        "zero", "an empty level's quantity and price: 0,0.00 · 0,0 · both blank · 0 and a blank price",
        "zero", "bare", "blank", "no_price",
    )  # fmt: skip
    index_rows: str = _switch("full", "an index row: all fields, those before the book, none", "full", "short", "none")
    volumes: str = _switch("integer", "volumes written 100 or 100.00", "integer", "decimals")
    volume_unit: str = _switch("shares", "unit of a bond's or a fund's day volume", "shares", "lots")
    ids: str = _switch("decimal", "trade ids: decimal digits, or text", "decimal", "text")
    time_digits: int = _switch(3, "fraction digits of lv2 times, 0 to 9")
    # Messages
    trailing_newline: bool = _switch(False, "end each payload with a newline")
    deflate: str = _switch(
        "auto", "DEFLATE blocks: what zlib finds best, of one kind, several and an empty last one, or by turns",
        "auto", "dynamic", "fixed", "stored", "flushed", "mixed",
    )  # fmt: skip
    deflate_level: int = _switch(6, "zlib's level, 1 to 9")
    fragments: int = _switch(1, "frames per message")
    ping_every: float = _switch(0.0, "send a ping every so many seconds, 0 for none")
    pong: bool = _switch(True, "answer pings")
    # Replies
    ack: str = _switch("code", "acknowledgement: 0#text, the text alone, JSON, or none", "code", "text", "json", "none")
    ack_text: str = _switch("", "text of every acknowledgement instead of one that says what was done")
    # Who may connect
    tokens: str = _switch("", "the tokens known, comma-separated; by default any 32 hexadecimal digits")
    bad_token: str = _switch("text", "a bad token gets the handshake, a text and a close, or HTTP 401", "text", "http")
    bad_token_text: str = _switch("-1#token无效", "text for a bad token")
    limit: int = _switch(0, "connections per token; 0 for any number")
    over_limit: str = _switch("refuse", "beyond it the new one is refused or the oldest evicted", "refuse", "evict")
    limit_text: str = _switch("-1#账户连接数已达并发上限", "text for a connection refused or evicted")
    # Allocation
    allocation_route: str = _switch("both", "/query/server, /server, or both", "both", "query", "server")
    allocation_check: bool = _switch(True, "allocation refuses a bad token")
    allocation_interval: float = _switch(0.0, "refuse a token that asks again within so many seconds")
    allocation_message: str = _switch("message", "key of the text of a refusal", "message", "msg")
    allocation_code: str = _switch("string", "type of the code in a reply", "string", "number")
    allocation_scheme: bool = _switch(True, "the address returned has its scheme")
    allocation_path: str = _switch("", "path of the address returned, such as /feed")
    allocation_slash: bool = _switch(False, "the address returned ends with a slash")
    # The broker
    ticket_seconds: int = _switch(9000, "seconds for which a ticket is good")
    order_days: int = _switch(1, "trading days whose orders check_order lists, today's included")
    commission: float = _switch(0.0, "commission on what is dealt, as a share of its amount, such as 0.00025")
    # Faults
    fault: tuple[str, ...] = _switch((), "let this go wrong: kind:key=value,key=value or JSON; may be repeated")
    keep_sent: bool = _switch(False, "keep what each connection was sent, for GET /sent")
    # Limits
    buffer_limit: int = _switch(16 << 20, "bytes that may wait for a slow reader before it is cut")
    stall_seconds: float = _switch(10.0, "at full speed a reader that takes nothing for so long is cut")
    max_codes: int = _switch(10_000, "codes whose markets may run at once")

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                wanted = f"from {low:,} on" if high == math.inf else f"from {low:,} to {high:,}"
                raise ValueError(f"--{name.replace('_', '-')} is a number {wanted}, not {value}")
        for name in ("limit_up", "limit_down"):
            for code in filter(None, getattr(self, name).split(",")):
                if not CODE.fullmatch(code):
                    raise ValueError(f"--{name.replace('_', '-')}: {code!r} is no code, such as 600519")
        if self.day is not None and not (self.calendar or self.replay or is_trading_day(self.day)):
            raise ValueError(
                f"--day {self.day}: the exchanges are closed on that day; the next on which they open is "
                f"{next_trading_day(self.day)}"
            )
        for token in filter(None, self.tokens.split(",")):
            if isinstance(Secret.read(token), Exception):
                raise ValueError("--tokens: one of them is none that a client can have: it should be 32 hex digits")
        for text in self.fault:
            parse(text)
