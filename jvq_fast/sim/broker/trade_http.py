"""The broker as its clients see it: six calls by HTTP GET, their replies, tickets, and what faults make of it all."""

import asyncio
import json
import random
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from jvq_fast.sim.broker.broker import Broker
from jvq_fast.sim.broker.order_rules import Refusal, RefusedError
from jvq_fast.sim.broker.orders import Account, Order, money_text, price_text
from jvq_fast.sim.events import clock_text
from jvq_fast.sim.fault_kinds import Spec
from jvq_fast.sim.faults import Hit
from jvq_fast.sim.http_wire import Answer, Request, hang, json_answer, reset, send
from jvq_fast.sim.server import Server
from jvq_fast.sim.settings import Settings

__all__ = ["Trade"]

_CALLS = ("login", "check_hold", "check_order", "buy", "sale", "cancel")
_ORDERS = ("buy", "sale", "cancel")
_ACCOUNT = re.compile(r"[0-9]{12}")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_NO_NUMBERS = ("ticket", "ctp_acc", "name")
_TICKETS_KEPT = 10_000
_CENT = 10

Reply = dict[str, Any]
Values = dict[str, str]


class _Ticket(NamedTuple):
    token: str
    account: str
    ends: float  # time.monotonic()


class Trade:
    """The six calls, as PROTOCOL has them: every number a text, refusals with a code of their own."""

    def __init__(self, settings: Settings, broker: Broker, server: Server) -> None:
        self._settings = settings
        self._broker = broker
        self._server = server
        self._tickets: OrderedDict[str, _Ticket] = OrderedDict()
        self._calls: dict[str, Callable[[Values], Reply]] = {
            "login": self._login,
            "check_hold": self._check_hold,
            "check_order": self._check_order,
            "buy": lambda values: self._order(values, buying=True),
            "sale": lambda values: self._order(values, buying=False),
            "cancel": self._cancel,
        }

    def serves(self, path: str) -> bool:
        """Whether a path, with whatever stands before its last part, is one of the calls."""
        return path.rpartition("/")[2] in _CALLS

    async def serve(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a request, or do what faults want instead."""
        if not self.serves(request.path):
            await send(writer, json_answer({"error": "no such page"}, 404 if request.method else 400))
            return
        if request.method != "GET":
            await send(writer, json_answer({"error": "no such method"}, 405))
            return
        call = request.path.rpartition("/")[2]
        values = {name: texts[-1] for name, texts in request.query.items()}
        self._broker.received[call] += 1
        hits = self._server.faults.trade(call)
        note = self._note(call, values, hits)
        for fault, _ in hits:
            kind, given = fault.kind.name, fault.values
            if kind == "trade_slow_login" or (kind == "trade_delay" and given["when"] == "before"):
                await asyncio.sleep(given["delay"])
            elif kind == "trade_ticket":
                self._tickets.pop(values.get("ticket", ""), None)
            elif kind in _CUTS and given["when"] == "before":
                await self._cut(fault.spec, reader, writer)
                return
        reply = self._instead(hits)
        if reply is None:
            reply = self._done(call, values, note, hits)
        for name, change in _CHANGES.items():
            for fault, dice in hits:
                if fault.kind.name == name:
                    change(reply, fault.values, dice)
        answer = self._answer(reply, hits)
        for fault, _ in hits:
            kind, given = fault.kind.name, fault.values
            if kind == "trade_delay" and given["when"] == "after":
                await asyncio.sleep(given["delay"])
            elif kind in _CUTS:
                await self._cut(fault.spec, reader, writer)
                return
        await send(writer, answer)

    def _note(self, call: str, values: Values, hits: list[Hit]) -> dict[str, Any]:
        if call not in _ORDERS:
            return {}
        ticket = self._tickets.get(values.get("ticket", ""))
        note = self._broker.note(call, self._broker.account(ticket.account) if ticket else None, values)
        note["faults"] = [fault.kind.name for fault, _ in hits]
        return note

    def _done(self, call: str, values: Values, note: dict[str, Any], hits: list[Hit]) -> Reply:
        try:
            reply = self._calls[call](values)
        except RefusedError as refused:
            reply = {"code": refused.code, "message": refused.message}
            if call in ("buy", "sale"):
                reply["order_id"] = ""
        note["result"] = reply["code"]
        if call in ("buy", "sale") and reply["order_id"]:
            note["accepted"] = reply["order_id"]
            for fault, _ in hits:
                if fault.kind.name == "trade_missing":
                    self._broker.hide(int(reply["order_id"]), fault.values["polls"])
        return reply

    def _instead(self, hits: list[Hit]) -> Reply | None:
        """The reply of a fault to a request that is not done."""
        for fault, _ in hits:
            if fault.kind.name == "trade_reject":
                return {"code": fault.values["code"], "message": fault.values["message"], "order_id": ""}
            if fault.kind.name == "trade_empty_id" and not fault.values["accepted"]:
                return {"code": "0", "message": "", "order_id": ""}
        return None

    def _answer(self, reply: Reply, hits: list[Hit]) -> Answer:
        status, kind, body, extra = json_answer(reply)
        for fault, dice in hits:
            name, given = fault.kind.name, fault.values
            if name == "trade_truncated":
                cut = given["cut"] or dice.randrange(1, len(body))
                body = body[: max(len(body) - cut, 0)]
            elif name in _PAGES:
                return _page(fault.spec)
        return status, kind, body, extra

    async def _cut(self, fault: Spec, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """No reply, or a page that is none."""
        if fault.kind.name in _PAGES:
            await send(writer, _page(fault))
        elif fault.kind.name == "trade_reset":
            reset(writer)
        elif fault.values["how"] == "hang":
            await hang(reader)

    # The calls

    def _login(self, values: Values) -> Reply:
        token, name = values.get("token", ""), values.get("acc", "")
        if not self._server.token_is_good(token):
            raise RefusedError(Refusal.TOKEN)
        if not _ACCOUNT.fullmatch(name) or not values.get("pass"):
            raise RefusedError(Refusal.LOGIN)
        self._broker.account(name)
        ticket = secrets.token_hex(16)
        self._tickets[ticket] = _Ticket(token, name, time.monotonic() + self._settings.ticket_seconds)
        if len(self._tickets) > _TICKETS_KEPT:
            self._tickets.popitem(last=False)
        return {
            "code": "0",
            "message": "",
            "ticket": ticket,
            "expire": str(self._settings.ticket_seconds),
            "ctp_acc": name,
            "login_stamp": str(int(time.time())),
        }

    def _account(self, values: Values) -> Account:
        token = values.get("token", "")
        if not self._server.token_is_good(token):
            raise RefusedError(Refusal.TOKEN)
        ticket = self._tickets.get(values.get("ticket", ""))
        if ticket is None or ticket.token != token or time.monotonic() >= ticket.ends:
            raise RefusedError(Refusal.TICKET)
        return self._broker.account(ticket.account)

    def _check_hold(self, values: Values) -> Reply:
        account = self._account(values)
        held = []
        total = account.cash + account.frozen
        day_sum = hold_sum = 0
        for holding in account.holdings.values():
            price, close = self._broker.price(holding.code)
            worth = price * holding.volume
            day = worth - close * holding.began - holding.paid_today
            hold = worth - holding.paid
            total, day_sum, hold_sum = total + worth, day_sum + day, hold_sum + hold
            held.append(
                {
                    "code": holding.code,
                    "name": holding.name,
                    "hold_vol": str(holding.volume),
                    "usable_vol": str(holding.usable),
                    "day_earn": _cents(day),
                    "hold_earn": _cents(hold),
                }
            )
        return {
            "code": "0",
            "message": "",
            "total": _cents(total),
            "usable": _cents(account.cash),
            "day_earn": _cents(day_sum),
            "hold_earn": _cents(hold_sum),
            "hold_list": held,
        }

    def _check_order(self, values: Values) -> Reply:
        account = self._account(values)
        listed = []
        for order in self._broker.todays(account):
            if order.hidden:
                order.hidden -= 1
            else:
                listed.append(_entry(order))
        return {"code": "0", "message": "", "list": listed}

    def _order(self, values: Values, *, buying: bool) -> Reply:
        account = self._account(values)
        code, price, volume = (values.get(name, "") for name in ("code", "price", "volume"))
        order = self._broker.place(account, code, price, volume, buying=buying)
        return {"code": "0", "message": "委托成功", "order_id": str(order.number)}

    def _cancel(self, values: Values) -> Reply:
        self._broker.cancel(self._account(values), values.get("order_id", ""))
        return {"code": "0", "message": "撤单委托已提交"}


def _cents(amount: int) -> str:
    """Money as the broker writes it: rounded down to cents."""
    return money_text(amount // _CENT * _CENT)[:-1]


def _entry(order: Order) -> Reply:
    dealt = order.dealt
    mean = (2 * order.amount + dealt) // (2 * dealt) if dealt else 0
    return {
        "order_id": str(order.number),
        "day": order.day.strftime("%Y%m%d"),
        "time": clock_text(order.time).replace(":", ""),
        "code": order.code,
        "name": order.name,
        "type": "证券买入" if order.buying else "证券卖出",
        "status": order.status,
        "order_price": price_text(order.price, order.decimals),
        "order_volume": str(order.volume),
        "deal_price": money_text(mean),
        "deal_volume": str(dealt),
    }


# Faults

_PAGES = ("trade_status", "trade_html")
_CUTS = ("trade_reply_lost", "trade_reset", *_PAGES)


def _page(fault: Spec) -> Answer:
    if fault.kind.name == "trade_status":
        return fault.values["status"], "text/html", b"<html>fault</html>", {}
    return 200, "text/html; charset=utf-8", fault.values["body"].encode(), {}


def _entries(reply: Reply) -> list[Reply]:
    return [entry for value in reply.values() if isinstance(value, list) for entry in value]


def _order_status(reply: Reply, given: dict[str, Any], dice: random.Random) -> None:  # noqa: ARG001
    entries = _entries(reply)
    for entry in entries if given["which"] == "all" else entries[-1:]:
        if "status" in entry:
            entry["status"] = given["text"]


def _error_after(reply: Reply, given: dict[str, Any], dice: random.Random) -> None:  # noqa: ARG001
    reply.clear()
    reply |= {"code": given["code"], "message": given["message"]}


def _empty_id(reply: Reply, given: dict[str, Any], dice: random.Random) -> None:  # noqa: ARG001
    reply["order_id"] = ""


def _fields(reply: Reply, given: dict[str, Any], dice: random.Random) -> None:
    entries = _entries(reply)
    field = given["field"] or dice.choice(sorted({name for each in (reply, *entries) for name in each}))
    for each in (reply, *entries):
        each.pop(field, None)


def _numbers(reply: Reply, given: dict[str, Any], dice: random.Random) -> None:  # noqa: ARG001
    for each in (reply, *_entries(reply)):
        for name, value in each.items():
            if name in _NO_NUMBERS or (name == "code" and each is not reply):
                continue
            if isinstance(value, str) and _NUMBER.fullmatch(value):
                each[name] = json.loads(value.lstrip("0") or "0") if "." not in value else float(value)


_CHANGES: dict[str, Callable[[Reply, dict[str, Any], random.Random], None]] = {
    "trade_error_after": _error_after,
    "trade_empty_id": _empty_id,
    "trade_order_status": _order_status,
    "trade_fields": _fields,
    "trade_numbers": _numbers,
}
