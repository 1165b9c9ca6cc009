"""Which orders the paper broker refuses, and in which words."""

import datetime as dt
import re
from decimal import Decimal
from enum import Enum

from jvq_fast.market_rules import Board, Phase, board, daily_limit, limit_prices, lot, phase, tick

__all__ = [
    "Refusal",
    "RefusedError",
    "check_cancel_time",
    "check_limits",
    "check_lot_to_buy",
    "check_lot_to_sell",
    "check_session",
    "check_tick",
    "next_day_only",
    "read_price",
    "read_volume",
]

_PRICE = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_VOLUME = re.compile(r"[0-9]{1,12}")
_SESSIONS = (Phase.OPENING_CALL, Phase.CONTINUOUS, Phase.CLOSING_CALL)
_LAST_CANCEL_OF_OPENING_CALL = dt.time(9, 20)


class Refusal(Enum):
    """Code and text of each refusal."""

    TOKEN = ("-1", "token无效")
    LOGIN = ("-1", "资金账号或密码错误")
    TICKET = ("-1", "ticket无效或已过期,请重新登录")
    PRICE = ("-101", "委托价格格式错误")
    VOLUME = ("-102", "委托数量格式错误")
    CODE = ("-103", "证券代码不存在")
    SESSION = ("-104", "当前时间不允许委托")
    TICK = ("-105", "委托价格不是最小变动价位的整数倍")
    LIMIT = ("-106", "委托价格超过涨跌停限制")
    LOT = ("-107", "委托数量不是交易单位的整数倍或低于最低数量")
    ODD = ("-108", "零股须一次性全部卖出")
    CASH = ("-109", "可用资金不足")
    SHARES = ("-110", "可用证券数量不足")
    ORDER_ID = ("-111", "委托编号不存在")
    ENDED = ("-112", "委托已完成,不能撤单")
    NO_CANCEL = ("-113", "当前时段不允许撤单")


class RefusedError(Exception):
    """The broker does not do what was asked."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value[1])
        self.code, self.message = refusal.value


def read_price(text: str) -> Decimal:
    """The price of an order."""
    if not _PRICE.fullmatch(text) or not Decimal(text):
        raise RefusedError(Refusal.PRICE)
    return Decimal(text)


def read_volume(text: str) -> int:
    """The volume of an order."""
    if not _VOLUME.fullmatch(text) or not int(text):
        raise RefusedError(Refusal.VOLUME)
    return int(text)


def check_session(time: dt.time) -> None:
    """Orders are taken in both call auctions and in continuous trading."""
    if phase(time) not in _SESSIONS:
        raise RefusedError(Refusal.SESSION)


def check_cancel_time(time: dt.time) -> None:
    """Orders can be cancelled up to 09:20 and in continuous trading."""
    now = phase(time)
    if now is Phase.OPENING_CALL and time < _LAST_CANCEL_OF_OPENING_CALL:
        return
    if now is not Phase.CONTINUOUS:
        raise RefusedError(Refusal.NO_CANCEL)


def check_tick(code: str, price: Decimal) -> None:
    """A price is a whole number of ticks."""
    if price % tick(code):
        raise RefusedError(Refusal.TICK)


def check_limits(code: str, day: dt.date, last_close: Decimal, price: Decimal, *, st: bool) -> None:
    """A price is within the day's limits."""
    ratio = daily_limit(code, day, st=st)
    if ratio is not None and last_close:
        low, high = limit_prices(last_close, ratio, tick(code))
        if not low <= price <= high:
            raise RefusedError(Refusal.LIMIT)


def check_lot_to_buy(code: str, volume: int) -> None:
    """An order to buy has a least volume and goes up in steps."""
    minimum, step = lot(code)
    if volume < minimum or (volume - minimum) % step:
        raise RefusedError(Refusal.LOT)


def check_lot_to_sell(code: str, volume: int, usable: int) -> None:
    """What is no whole lot may be sold if nothing but whole lots is left, see ``market_rules.Lot``."""
    minimum, step = lot(code)
    if step == 1:
        if volume < minimum and volume != usable:
            raise RefusedError(Refusal.ODD if usable < minimum else Refusal.LOT)
    elif volume % step:
        odd = usable % step
        if not odd:
            raise RefusedError(Refusal.LOT)
        if volume % step != odd:
            raise RefusedError(Refusal.ODD)


def next_day_only(code: str) -> bool:
    """Whether what is bought may be sold from the next trading day on: shares and funds, not convertible bonds."""
    return board(code) is not Board.BOND
