"""What is listed: for any well-formed code its name, price and rules, the same for the same seed."""

import datetime as dt
import random
import re
from dataclasses import dataclass
from decimal import Decimal

from jvq_fast.market_rules import Board, board, daily_limit, limit_prices, lot, tick

CODE = re.compile(r"i?[0-9]{6}")

# Name and a price of the right size; these trade briskly.
_KNOWN = {
    "600519": ("贵州茅台", "1845.76"), "000001": ("平安银行", "12.50"), "300750": ("宁德时代", "262.30"),
    "688981": ("中芯国际", "88.12"), "601318": ("中国平安", "52.36"), "600036": ("招商银行", "38.90"),
    "000858": ("五粮液", "128.40"), "002594": ("比亚迪", "231.77"), "300059": ("东方财富", "21.85"),
    "601398": ("工商银行", "6.92"), "600000": ("浦发银行", "10.31"), "600030": ("中信证券", "28.45"),
    "000002": ("万科A", "7.26"), "000725": ("京东方A", "4.12"), "601127": ("赛力斯", "118.60"),
    "688111": ("金山办公", "301.50"), "600536": ("中国软件", "42.05"), "600961": ("株冶集团", "10.88"),
    "600761": ("安徽合力", "21.50"), "605580": ("恒盛能源", "14.56"), "601825": ("沪农商行", "5.61"),
    "510300": ("沪深300ETF", "3.982"), "510050": ("上证50ETF", "2.716"), "588000": ("科创50ETF", "1.204"),
    "159915": ("创业板ETF", "2.145"), "113050": ("南银转债", "118.350"), "127063": ("贵轮转债", "121.406"),
    "128079": ("英联转债", "143.212"), "110074": ("精达转债", "151.885"), "123107": ("温氏转债", "124.880"),
    "i000001": ("上证指数", "3421.5678"), "i000300": ("沪深300", "3987.1234"), "i000016": ("上证50", "2745.6789"),
    "i399001": ("深证成指", "11023.4567"), "i399006": ("创业板指", "2311.9876"), "i000688": ("科创50", "1023.4455"),
}  # fmt: skip
_BRISK = {"600519": 300.0, "000001": 300.0}
_KNOWN_RATE = 220.0
_SLOWEST, _FASTEST = 0.2, 6.0
_ST_SHARE = 0.03
_PRICES = {Board.FUND: (0.6, 5.0), Board.BOND: (100.0, 180.0), Board.INDEX: (1000.0, 9000.0), Board.STAR: (12.0, 200.0)}


@dataclass(frozen=True, slots=True)
class Listing:
    """One security. Prices are whole ticks; ``unit`` is a tick in thousandths of a CNY (0 for an index)."""

    code: str
    name: str
    board: Board
    decimals: int
    unit: int
    minimum: int
    step: int
    st: bool
    last_close: int
    rate: float  # trades per second

    def limits(self, last_close: int, day: dt.date) -> tuple[int, int]:
        """The lowest and the highest price of a day, in ticks; (1, very high) where there is no limit."""
        ratio = daily_limit(self.code, day, st=self.st)
        if ratio is None:
            return 1, last_close * 100
        low, high = limit_prices(Decimal(last_close), ratio, Decimal(1))
        return int(low), int(high)


def listing(code: str, seed: int) -> Listing:
    """The security of a well-formed code."""
    rng = random.Random(f"listing:{seed}:{code}")
    kind = board(code)
    step = tick(code)
    decimals = -int(step.as_tuple().exponent)
    drawn = rng.random()
    st = code not in _KNOWN and kind is Board.MAIN and rng.random() < _ST_SHARE
    rate = _SLOWEST * (_FASTEST / _SLOWEST) ** rng.random()
    if code in _KNOWN:
        name, price = _KNOWN[code]
        rate = _BRISK.get(code, _KNOWN_RATE)
    else:
        low, high = _PRICES.get(kind, (4.0, 80.0))
        name = ("*ST模拟" if st else "指数" if kind is Board.INDEX else "模拟") + code[-4:]
        price = f"{low * (high / low) ** drawn:.{decimals}f}"
    size = lot(code)
    return Listing(
        code=code,
        name=name,
        board=kind,
        decimals=decimals,
        unit=0 if kind is Board.INDEX else int(step * 1000),
        minimum=size.minimum,
        step=size.step,
        st=st,
        last_close=int(Decimal(price) / step),
        rate=rate,
    )


def known_names() -> dict[str, str]:
    """The names of the codes that have one of their own."""
    return {code: name for code, (name, _) in _KNOWN.items()}
