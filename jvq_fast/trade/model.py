"""Orders, positions and accounts as the broker tells them, and what this side means to do."""

import datetime as dt
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from jvq_fast.redact import redact

SHANGHAI = ZoneInfo("Asia/Shanghai")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_WHOLE = re.compile(r"[0-9]+(?:\.0+)?")
_LONGEST_NUMBER = 30
_SHOWN = 200
_LONG_SECRET = 12


class Side(StrEnum):
    """Which way an order goes."""

    BUY = "buy"
    SELL = "sell"


class Status(StrEnum):
    """Where an order is. The broker's own word is kept beside it; a word that is not known is `UNKNOWN_TEXT`."""

    DRY = "dry"  # not sent, since the client is in dry mode
    ACCEPTED = "accepted"  # the broker took it, and no list of orders has shown it yet
    PENDING = "pending"  # 未报
    WORKING = "working"  # 已报
    PARTLY_FILLED = "partly filled"  # 部成
    FILLED = "filled"  # 已成
    CANCELLED = "cancelled"  # 已撤
    PARTLY_CANCELLED = "partly cancelled"  # 部撤: some of it was filled, the rest is cancelled
    UNKNOWN_TEXT = "unknown text"

    @property
    def is_final(self) -> bool:
        """Whether nothing more can happen to it."""
        return self in (Status.DRY, Status.FILLED, Status.CANCELLED, Status.PARTLY_CANCELLED)


# PROTOCOL: types and statuses that clients which trade live have met. All others are texts that stay texts.
_SIDES = {"证券买入": Side.BUY, "证券卖出": Side.SELL}
_STATUSES = {
    "未报": Status.PENDING,
    "已报": Status.WORKING,
    "部成": Status.PARTLY_FILLED,
    "已成": Status.FILLED,
    "已撤": Status.CANCELLED,
    "部撤": Status.PARTLY_CANCELLED,
}


class Outcome(StrEnum):
    """What is known of an order or a cancel that was asked for."""

    NOT_SENT = "not sent"  # no byte of it left this machine
    REJECTED = "rejected"  # the broker said no, and its list of orders bears it out
    ACCEPTED = "accepted"
    UNKNOWN = "unknown"  # it may be at the broker


class Action(StrEnum):
    """What an intent is to do."""

    BUY = "buy"
    SELL = "sell"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Intent:
    """One order or cancel that was asked for, as the journal has it, from before its first byte left.

    `number` names it in this journal for ever. `price` in CNY and `volume` are 0 for a cancel. `at` is the client's
    clock, aware. `order_id` is the broker's once it is accepted, and for a cancel that of the order. `code` and
    `message` are what the broker said, `cause` is why the outcome is not known.
    """

    number: int
    action: Action
    security: str
    name: str
    price: Decimal
    volume: int
    at: dt.datetime
    outcome: Outcome = Outcome.UNKNOWN
    order_id: str = ""
    code: str = ""
    message: str = ""
    cause: str = ""

    @property
    def side(self) -> Side | None:
        """Of an order; None for a cancel."""
        return None if self.action is Action.CANCEL else Side(self.action.value)

    @property
    def value(self) -> Decimal:
        """Price times volume, CNY."""
        return self.price * self.volume

    def __str__(self) -> str:
        if self.action is Action.CANCEL:
            return f"intent {self.number}: cancel order {self.order_id}"
        return f"intent {self.number}: {self.action} {self.volume:,} {self.security} at {self.price}"


@dataclass(frozen=True, slots=True)
class Order:
    """An order at the broker. Prices in CNY, volumes in shares, units or bonds.

    `at` is when the broker took it, aware, Asia/Shanghai (None before a list of orders has shown it). `deal_price` is
    the mean of its fills, 0 without any. `side` is None, and `status` `UNKNOWN_TEXT`, where the broker's `side_text` or
    `status_text` is not known. `intent` is the number of this client's intent, None for an order of somebody else's.
    `request` is what would have been sent, in dry mode.
    """

    order_id: str
    code: str
    name: str
    side: Side | None
    side_text: str
    status: Status
    status_text: str
    price: Decimal
    volume: int
    deal_price: Decimal
    deal_volume: int
    at: dt.datetime | None
    intent: int | None = None
    request: str = ""

    @property
    def is_final(self) -> bool:
        """Whether nothing more can happen to it."""
        return self.status.is_final

    @property
    def key(self) -> tuple[dt.date | None, str]:
        """What names it: brokers count from 1 every day."""
        return (self.at.date() if self.at else None), self.order_id


@dataclass(frozen=True, slots=True)
class Fill:
    """More of an order was filled: `volume` of it, `price` CNY on average, since what was known before."""

    order: Order
    volume: int
    price: Decimal


@dataclass(frozen=True, slots=True)
class Position:
    """What is held of one security. Sold-out ones stay listed with 0. `usable` may be sold today. Gains in CNY."""

    code: str
    name: str
    volume: int
    usable: int
    day_earn: Decimal
    hold_earn: Decimal


@dataclass(frozen=True, slots=True)
class Account:
    """Money of the account, CNY, and what it holds."""

    total: Decimal
    usable: Decimal
    day_earn: Decimal
    hold_earn: Decimal
    positions: tuple[Position, ...]


class UnreadableError(Exception):
    """A reply, or a part of one, that is not what it should be; the message names the field and shows no secret."""


def amount(name: str, value: object) -> Decimal:
    """A setting of money or of a ratio. TypeError for a float, ValueError for what is no number from 0 on."""
    if isinstance(value, float):
        raise TypeError(
            f"{name} is a Decimal, a str or an int, not the float {float(value)}: pass Decimal('{float(value)}')"
        )
    try:
        number = Decimal(value) if isinstance(value, (Decimal, str, int)) and not isinstance(value, bool) else None
    except ArithmeticError:
        number = None
    if number is None or not number.is_finite() or number < 0:
        raise ValueError(f"{name} is a number from 0 on, not {value}")
    return number


def money(value: object, field: str) -> Decimal:
    """A number of a reply, a string or not. UnreadableError names the field."""
    text = _text_of_number(value)
    if text is None or not _NUMBER.fullmatch(text):
        raise UnreadableError(f"{field} is no number: {shown(value)}")
    return Decimal(text)


def whole(value: object, field: str) -> int:
    """A volume of a reply. UnreadableError names the field."""
    text = _text_of_number(value)
    if text is None or not _WHOLE.fullmatch(text):
        raise UnreadableError(f"{field} is no whole number: {shown(value)}")
    return int(Decimal(text))


def _text_of_number(value: object) -> str | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, Decimal)):
        text = f"{value:f}" if isinstance(value, Decimal) else str(value)
    elif isinstance(value, str):
        text = value.strip().replace(",", "")
    else:
        return None
    return text if len(text) <= _LONGEST_NUMBER and text.isascii() else None


def shown(value: object) -> str:
    """A part of a reply in a message: no secret, not long, printable."""
    text = json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (list, dict)) else str(value)
    return redact(text).encode(errors="replace").decode()[:_SHOWN]


def identifier(text: str) -> str:
    """A number or code of the broker's, as it is: passwords are short, and one that is a part of it is chance.

    UnreadableError where a token or the like is in it.
    """
    if len(text) > _SHOWN or redact(text, _LONG_SECRET) != text:
        raise UnreadableError("what should be a number or a code repeats a secret, or is too long")
    return text


def message_of(body: Mapping[str, Any]) -> str:
    """What a reply says in words."""
    return shown(body.get("message") or body.get("msg") or "")


def _text(row: Mapping[str, Any], field: str) -> str:
    value = row.get(field)
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise UnreadableError(f"{field} is missing" if value is None else f"{field} is no text: {shown(value)}")


def read_order(row: object) -> Order:
    """One of `list` of `/check_order`. UnreadableError says what is wrong with it."""
    if not isinstance(row, Mapping):
        raise UnreadableError(f"an order is no object: {shown(row)}")
    order_id = identifier(_text(row, "order_id"))
    if not order_id:
        raise UnreadableError("order_id is empty")
    day, clock = _text(row, "day"), _text(row, "time").zfill(6)
    try:
        at = dt.datetime.strptime(day + clock, "%Y%m%d%H%M%S").replace(tzinfo=SHANGHAI)
    except ValueError:
        raise UnreadableError(f"day and time are none: {shown(day)} {shown(clock)}") from None
    side_text, status_text = _text(row, "type"), _text(row, "status")
    return Order(
        order_id=order_id,
        code=identifier(_text(row, "code")),
        name=shown(row.get("name", "")),
        side=_SIDES.get(side_text),
        side_text=shown(side_text),
        status=_STATUSES.get(status_text, Status.UNKNOWN_TEXT),
        status_text=shown(status_text),
        price=money(row.get("order_price"), "order_price"),
        volume=whole(row.get("order_volume"), "order_volume"),
        deal_price=_or_zero(row, "deal_price", money),
        deal_volume=_or_zero(row, "deal_volume", whole),
        at=at,
    )


def _or_zero(row: Mapping[str, Any], field: str, read: Any) -> Any:
    # What was not filled has no price; brokers leave it empty.
    return read("0" if row.get(field) == "" else row.get(field), field)


def read_account(reply: Mapping[str, Any]) -> Account:
    """The reply of `/check_hold`. UnreadableError says what is wrong with it."""
    rows = reply.get("hold_list")
    if not isinstance(rows, list):
        raise UnreadableError(f"hold_list is no list: {shown(rows)}")
    return Account(
        total=money(reply.get("total"), "total"),
        usable=money(reply.get("usable"), "usable"),
        day_earn=money(reply.get("day_earn"), "day_earn"),
        hold_earn=money(reply.get("hold_earn"), "hold_earn"),
        positions=tuple(map(_read_position, rows)),
    )


def _read_position(row: object) -> Position:
    if not isinstance(row, Mapping):
        raise UnreadableError(f"a position is no object: {shown(row)}")
    return Position(
        code=identifier(_text(row, "code")),
        name=shown(row.get("name", "")),
        volume=whole(row.get("hold_vol"), "hold_vol"),
        usable=whole(row.get("usable_vol"), "usable_vol"),
        day_earn=money(row.get("day_earn"), "day_earn"),
        hold_earn=money(row.get("hold_earn"), "hold_earn"),
    )
