"""``jvq-fast trade``: the account from the command line, one call at a time."""

import argparse
import contextlib
import dataclasses
import datetime as dt
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from jvq_fast.cli import accounts, tokens
from jvq_fast.cli.complaint import UsageError, fit_to_show
from jvq_fast.cli.options import add_trading_day, make_feed, seconds
from jvq_fast.cli.text import table
from jvq_fast.errors import JvqError, NoMarketData, OrderRejected, OrderUnknown, TradeError, WaitTimeoutError
from jvq_fast.feed import Feed
from jvq_fast.redact import Secret
from jvq_fast.sim import output
from jvq_fast.trade.arguments import request
from jvq_fast.trade.client import TradeClient
from jvq_fast.trade.gate import Limits
from jvq_fast.trade.kill import KillSwitch
from jvq_fast.trade.model import Intent, Order, Outcome, Side
from jvq_fast.trade.private import default_paths
from jvq_fast.trade.session import Mode

__all__ = ["add_arguments", "run"]

NOT_DONE = 4  # the exit status where an order was accepted and is open when `--wait` ends
_FIRST_DATA = 10.0
_PATIENCE = 5.0
_ASK = "jvq-fast trade resolve asks the broker's list"
_HISTORY = {"trades": 16, "quotes": 4, "depths": 4}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, help_, add, act in (
        ("login", "log in, and say until when that is good", _no_more, _login),
        ("positions", "money, and what is held", _no_more, _positions),
        ("orders", "the broker's list of orders", _no_more, _orders),
        ("buy", "place an order to buy", _add_order, _buy),
        ("sell", "place an order to sell", _add_order, _sell),
        ("cancel", "cancel an order", _add_cancel, _cancel),
        ("resolve", "say what became of an order of which it is not known", _add_resolve, _resolve),
        ("kill", "throw the kill switch: nothing is ordered with this journal any more", _add_kill, _kill),
        ("rearm", "let orders go again", _no_more, _rearm),
    ):
        action = actions.add_parser(name, help=help_, description=help_)
        add(action)
        _add_common(action)
        action.set_defaults(act=act)


def _no_more(parser: argparse.ArgumentParser) -> None:
    """Actions that need nothing else."""


def _add_common(parser: argparse.ArgumentParser) -> None:
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--paper", action="store_true", help="trade on a simulator of this machine, see --allocation")
    mode.add_argument("--live", action="store_true", help="trade for real; without either no order is sent")
    parser.add_argument(
        "--allocation", metavar="URL",
        help="ask this allocation service, not the vendor's: the \"http\" of a simulator, such as http://127.0.0.1:8765",
    )  # fmt: skip
    tokens.add_arguments(parser)
    accounts.add_arguments(parser)
    parser.add_argument("--journal", metavar="FILE", help="what was ordered (default: in your state directory)")
    parser.add_argument("--ticket-file", metavar="FILE", help="keeps the login (default: in your state directory)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _add_order(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("code", metavar="CODE", help="such as 600519")
    parser.add_argument("volume", metavar="VOLUME", type=int, help="shares, units or bonds")
    parser.add_argument("--price", metavar="CNY", required=True, help="the limit: buy at this price or less")
    parser.add_argument(
        "--wait", metavar="N", type=seconds,
        help="then wait up to N seconds until it is done, and print it once more; exit status 4 where it is not",
    )  # fmt: skip
    parser.add_argument(
        "--limit", metavar="NAME=VALUE", action="append", default=[],
        help=f"another limit of the risk gate, or none: {', '.join(_SETTABLE)}",
    )  # fmt: skip
    add_trading_day(parser)


def _add_cancel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("order_id", metavar="ORDER", help="the broker's number of it")


def _add_resolve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("intent", metavar="INTENT", nargs="?", type=int, help="its number; without it all are listed")
    parser.add_argument(
        "outcome", metavar="OUTCOME", nargs="?", choices=("accepted", "rejected", "not-sent"),
        help="accepted, rejected or not-sent, as the broker's own screen shows it",
    )  # fmt: skip
    parser.add_argument("order_id", metavar="ORDER", nargs="?", default="", help="the broker's number, if accepted")


def _add_kill(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", default="", help="what whoever is refused is told")


def run(options: argparse.Namespace) -> int:
    """Log in, look, order, cancel: dry unless --paper or --live says otherwise."""
    act: Callable[[argparse.Namespace], int] = options.act
    return act(options)


def _mode(options: argparse.Namespace) -> Mode:
    return "live" if options.live else "paper" if options.paper else "dry"


def _make(options: argparse.Namespace, market: Feed | None = None, limits: Limits | None = None) -> TradeClient:
    try:
        return TradeClient(
            tokens.read(options),
            accounts.read_account(options),
            accounts.read_password(options),
            mode=_mode(options),
            market=market,
            allocation=options.allocation,
            limits=limits,
            journal=options.journal,
            ticket_file=options.ticket_file,
        )
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from None


def _asking(options: argparse.Namespace) -> TradeClient:
    if _mode(options) == "dry":
        raise UsageError(f"{options.action} asks the broker: say --paper with --allocation, or --live")
    return _make(options)


def _login(options: argparse.Namespace) -> int:
    with _asking(options) as client:
        until = client.login()
    _print(options, {"good_until": until.isoformat()}, f"logged in, good until {until:%Y-%m-%d %H:%M:%S}")
    return 0


def _positions(options: argparse.Namespace) -> int:
    with _asking(options) as client:
        account = client.account()
    lines = table(
        ("code", "name", "volume", "usable", "gain today", "gain"),
        [
            (each.code, each.name, f"{each.volume:,}", f"{each.usable:,}", f"{each.day_earn:,}", f"{each.hold_earn:,}")
            for each in account.positions
        ],
        (0, 1),
    )
    lines.append(f"total {account.total:,} CNY, usable {account.usable:,}, today {account.day_earn:+,}")
    _print(options, dataclasses.asdict(account), "\n".join(lines))
    return 0


def _orders(options: argparse.Namespace) -> int:
    with _asking(options) as client:
        orders = client.orders()
    _print(options, [dataclasses.asdict(each) for each in orders], "\n".join(_order_lines(orders)))
    return 0


def _order_lines(orders: Sequence[Order]) -> list[str]:
    if not orders:
        return ["no orders"]
    return table(
        ("order", "time", "code", "name", "side", "price", "volume", "filled", "at", "status"),
        [
            (
                each.order_id or "–", f"{each.at:%H:%M:%S}" if each.at else "–", each.code, each.name,
                each.side or each.side_text, str(each.price), f"{each.volume:,}", f"{each.deal_volume:,}",
                str(each.deal_price), f"{each.status} {each.status_text}".strip(),
            )
            for each in orders
        ],
        (0, 1, 2, 3, 4, 9),
    )  # fmt: skip


def _buy(options: argparse.Namespace) -> int:
    return _order(options, lambda client: client.buy(options.code, options.price, options.volume))


def _sell(options: argparse.Namespace) -> int:
    return _order(options, lambda client: client.sell(options.code, options.price, options.volume))


def _order(options: argparse.Namespace, place: Callable[[TradeClient], Order]) -> int:
    try:
        request(Side(options.action), options.code, options.price, options.volume)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from None
    if options.paper and options.allocation is None:
        raise UsageError("name a simulator: --allocation http://127.0.0.1:8765")
    limits = _limits(options.limit)
    with _prices(options) as feed, _make(options, feed, limits) as client:
        try:
            try:
                order = place(client)
            except OrderUnknown as error:
                _say(f"{error.intent} may be at the broker: don't order again; it is looked for")
                order = _look_up(options, client, error)
        except KeyboardInterrupt:
            for intent in client.unknown:
                _say(f"{intent} may be at the broker: don't order again; {_ASK}")
            raise
        status = _print_order(options, order)
        if options.wait and client.mode != "dry":
            try:
                order = client.wait(order, options.wait)
            except WaitTimeoutError as error:
                _say(str(error))
                return NOT_DONE
            status = _print_order(options, order)
    return status


def _look_up(options: argparse.Namespace, client: TradeClient, error: OrderUnknown) -> Order:
    """What the client's own polls find out within a few seconds; the error itself where that is nothing."""
    number = error.intent.number
    deadline = time.monotonic() + _PATIENCE
    while number in {each.number for each in client.unknown} and time.monotonic() < deadline:
        time.sleep(0.05)
    order = client.order(error.intent)
    (intent,) = (each for each in client.intents if each.number == number)
    if order is not None:
        return order
    if intent.outcome is Outcome.REJECTED:
        raise OrderRejected(f"{intent} was rejected: {intent.message}", intent, intent.code, intent.message)
    if options.json:
        with contextlib.suppress(OSError):  # what is unknown is more than an output that fails
            print(json.dumps(dataclasses.asdict(intent), default=_plain, ensure_ascii=False), flush=True)
    raise error


def _say(text: str) -> None:
    print(f"jvq-fast trade: {fit_to_show(text)}", file=sys.stderr)


def _print_order(options: argparse.Namespace, order: Order) -> int:
    """The exit status: an order that is at the broker did not fail, whatever becomes of the output."""
    text = f"not sent, since neither --paper nor --live says so: {order.request}" if order.request else ""
    try:
        _print(options, dataclasses.asdict(order), text or "\n".join(_order_lines([order])))
        sys.stdout.flush()
    except OSError as error:
        if order.request or not (isinstance(error, BrokenPipeError) or output.is_of_output(error)):
            raise
        output.forget()
        _say(f"order {order.order_id} was accepted, and the output can't be written")
        return NOT_DONE
    return 0


@contextlib.contextmanager
def _prices(options: argparse.Namespace) -> Iterator[Feed]:
    """A feed of the code, once it has prices and limits, or long enough has been waited for them."""
    feed = make_feed(
        tokens.read(options),
        [f"lv1_{options.code}", f"lv10_{options.code}"],
        allocation=options.allocation,
        trading_day=options.trading_day,
        clock=options.clock,
        history=_HISTORY,
    )
    with feed:
        deadline = time.monotonic() + _FIRST_DATA
        while feed.last(options.code) is None or feed.limits(options.code) is None:
            if feed.join(0.05) or time.monotonic() > deadline:
                raise NoMarketData("price", None, None, f"no data of {options.code} came within {_FIRST_DATA:g} s")
        yield feed


def _cancel(options: argparse.Namespace) -> int:
    with _asking(options) as client:
        client.orders()
        try:
            intent = client.cancel(options.order_id)
        except ValueError as error:
            raise TradeError(str(error)) from None
    _print(options, dataclasses.asdict(intent), f"order {options.order_id}: the broker took the cancellation")
    return 0


def _resolve(options: argparse.Namespace) -> int:
    with _asking(options) as client:
        listed = _ask_once(client)
        if options.intent is None:
            unknown = client.unknown
            _print(
                options,
                [dataclasses.asdict(each) for each in unknown],
                "\n".join(_told(each) for each in unknown) or "nothing is unknown",
            )
            return 0
        if options.outcome is None:
            raise UsageError("say what became of it: accepted (with the broker's number), rejected or not-sent")
        try:
            intent = client.resolve(options.intent, options.outcome.replace("-", " "), options.order_id)
        except ValueError as error:
            raise UsageError(str(error)) from None
    is_order = intent.outcome is Outcome.ACCEPTED and intent.side is not None
    if is_order and listed is not None and intent.order_id not in listed:
        _say(f"the broker's list has no order {intent.order_id}: if that was a mistake, resolve {intent.number} again")
    _print(options, dataclasses.asdict(intent), f"{intent}: {intent.outcome}")
    return 0


def _ask_once(client: TradeClient) -> set[str] | None:
    """The numbers of the broker's list, which may tell what a human would have to; None where it can't be had."""
    try:
        return {order.order_id for order in client.orders()}
    except JvqError as error:
        _say(f"the broker's list can't be had: {error}")
        return None


def _told(intent: Intent) -> str:
    ways = "accepted ORDER, rejected or not-sent" if intent.side is not None else "accepted or rejected"
    return (
        f"{intent}, {intent.at:%Y-%m-%d %H:%M:%S}: {intent.cause or 'not known'}; once you know, "
        f"jvq-fast trade resolve {intent.number} with {ways}"
    )


def _switch(options: argparse.Namespace) -> KillSwitch:
    """By the journal's path alone, so that it can be thrown while another process trades."""
    if options.journal is not None:
        journal = Path(options.journal)
    elif _mode(options) == "dry":
        raise UsageError("whose orders? Say --live, --paper or --journal FILE")
    else:
        journal, _ = default_paths(Secret(accounts.read_account(options)), _mode(options))
    if not journal.exists():
        _say(f"there is no journal {journal}: nobody trades with it yet, so this stops nobody who trades now")
    return KillSwitch(journal)


def _kill(options: argparse.Namespace) -> int:
    switch = _switch(options)
    switch.throw(options.reason or "jvq-fast trade kill")
    assert switch.path is not None
    if not switch.path.exists():
        raise UsageError(f"can't write {switch.path}: nothing is stopped")
    _print(options, {"killed": switch.why()}, f"nothing is ordered any more: {switch.path}")
    return 0


def _rearm(options: argparse.Namespace) -> int:
    switch = _switch(options)
    was = switch.why()
    try:
        switch.rearm()
    except OSError as error:
        raise UsageError(f"can't re-arm {switch.path}: {error.strerror}") from None
    _print(options, {"killed": switch.why()}, "orders go again" if was else "nothing was thrown: orders go")
    return 0


_SETTABLE = tuple(
    each.name for each in dataclasses.fields(Limits) if each.name not in ("last_close", "st", "sessions", "codes")
)


def _limits(settings: Sequence[str]) -> Limits:
    changes: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if name not in _SETTABLE or not equals:
            raise UsageError(f"--limit {setting} is not NAME=VALUE with one of {', '.join(_SETTABLE)}")
        changes[name] = _value(name, text)
    try:
        return Limits(**changes)
    except (ValueError, TypeError) as error:
        raise UsageError(f"--limit: {error}") from None


def _value(name: str, text: str) -> object:
    default = getattr(Limits(), name)
    if text.lower() == "none":
        return None
    try:
        if isinstance(default, bool):
            return {"on": True, "off": False}[text]
        if isinstance(default, int):
            return int(text)
        return float(text) if isinstance(default, float) else Decimal(text)
    except (ValueError, KeyError, InvalidOperation):
        kinds = {bool: "on or off", int: "a whole number or none"}
        wants = kinds.get(type(default), "a number or none")
        raise UsageError(f"--limit {name} is {wants}, not {text}") from None


def _print(options: argparse.Namespace, value: Any, text: str) -> None:
    print(json.dumps(value, default=_plain, ensure_ascii=False) if options.json else text)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, dt.datetime) else str(value)
