"""From events to what stands on the wire: records, rows, the text of a message."""

from collections.abc import Iterable

from jvq_fast.market_rules import Board, board, lot
from jvq_fast.sim.events import SECOND, Level, Snapshot, Trade, clock_text
from jvq_fast.sim.settings import Settings

_EMPTY = {"zero": ("0", "0.00"), "bare": ("0", "0"), "blank": ("", ""), "no_price": ("0", "")}
_BLANK = Snapshot(0, "", "", "", "", "", 0, (), ())


class Wire:
    """Writes records as the settings want them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._second = -1
        self._clock = ""
        self._empty = _EMPTY[settings.empty_levels]
        self._suffix = ".00" if settings.volumes == "decimals" else ""
        self._plain = (
            settings.ids == "decimal"
            and settings.time_digits == 3
            and settings.lv2_second == "time_first"
            and not self._suffix
        )
        self._snapshot: Snapshot = _BLANK
        self._code = ""
        self._records = ["", ""]

    @property
    def place_matters(self) -> bool:
        """Whether a trade is written differently at the start of a row and after it."""
        return self._settings.lv2_second == "id_first"

    def trades(self, trades: Iterable[Trade], start: int = 0) -> str:
        """Records of an lv2 row, joined, from number ``start`` in their row on."""
        if not self._plain:
            return "|".join([self._trade(number, trade) for number, trade in enumerate(trades, start)])
        records = []
        for time, id_, price, volume in trades:
            second, rest = divmod(time, SECOND)
            if second != self._second:
                self._second, self._clock = second, clock_text(time)
            records.append(f"{self._clock}.{rest // 1000:03d},{id_},{price},{volume}")
        return "|".join(records)

    def _trade(self, number: int, trade: Trade) -> str:
        digits = self._settings.time_digits
        time = clock_text(trade.time)
        if digits:
            time += "." + f"{trade.time % SECOND:06d}000"[:digits]
        id_ = str(trade.id) if self._settings.ids == "decimal" else f"T{trade.id:x}"
        if number and self._settings.lv2_second == "id_first":
            time, id_ = id_, time
        return f"{time},{id_},{trade.price},{trade.volume}{self._suffix}"

    def quote(self, code: str, snapshot: Snapshot) -> str:
        """The record of an lv1 row: five levels, quantity before price. Empty where none is to be sent."""
        return self._both(code, snapshot)[0]

    def depth(self, code: str, snapshot: Snapshot) -> str:
        """The record of an lv10 row: ten levels, prices and quantities apart. Empty where none is to be sent."""
        return self._both(code, snapshot)[1]

    def _both(self, code: str, snapshot: Snapshot) -> list[str]:
        if snapshot is not self._snapshot or code != self._code:
            self._snapshot, self._code = snapshot, code
            self._records = [self._quote(code, snapshot), self._depth(code, snapshot)]
        return self._records

    def _quote(self, code: str, snapshot: Snapshot) -> str:
        fields = [clock_text(snapshot.time), snapshot.name, snapshot.price, snapshot.change]
        totals = [snapshot.amount, self._day_volume(code, snapshot.volume)]
        fields += totals if self._settings.lv1_order == "amount_first" else totals[::-1]
        if code.startswith("i") and self._settings.index_rows != "full":
            return ",".join(fields) if self._settings.index_rows == "short" else ""
        for side in (snapshot.bids, snapshot.asks):
            for level in range(5):
                fields += self._level(side, level)
        return ",".join(fields)

    def _depth(self, code: str, snapshot: Snapshot) -> str:
        fields = [clock_text(snapshot.time), snapshot.name, snapshot.price, snapshot.last_close]
        fields += [snapshot.amount, self._day_volume(code, snapshot.volume)]
        if code.startswith("i") and self._settings.index_rows != "full":
            return ",".join(fields) if self._settings.index_rows == "short" else ""
        for side in (snapshot.bids, snapshot.asks):
            volumes, prices = zip(*(self._level(side, level) for level in range(10)), strict=True)
            for block in (prices, volumes) if self._settings.lv10_order == "price_first" else (volumes, prices):
                fields += block
        return ",".join(fields)

    def _level(self, side: tuple[Level, ...], level: int) -> tuple[str, str]:
        if level >= len(side) or not side[level][1]:
            return self._empty
        price, volume = side[level]
        return f"{volume}{self._suffix}", price

    def _day_volume(self, code: str, volume: int) -> str:
        if self._settings.volume_unit == "lots" and board(code) in (Board.BOND, Board.FUND):
            volume //= lot(code).step
        return f"{volume}{self._suffix}"


class Message:
    """The rows of a message in the making.

    Records of one code and level share a row, but never so that a snapshot and the trades around it change places.
    """

    __slots__ = ("_newline", "_open", "_rows", "depths", "quotes", "size", "trades")

    def __init__(self, trailing_newline: bool) -> None:
        self._newline = "\n" if trailing_newline else ""
        self._rows: list[str] = []
        self._open: dict[str, int] = {}
        self.trades = self.quotes = self.depths = 0
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._rows)

    def continues(self, code: str) -> bool:
        """Whether the next trades of a code continue a row."""
        return "lv2_" + code in self._open

    def add_trades(self, code: str, text: str, count: int) -> None:
        """Append ``count`` trades to the code's row."""
        self._open.pop("lv1_" + code, None)
        self._open.pop("lv10_" + code, None)
        self._add("lv2_" + code, text)
        self.trades += count

    def add_quote(self, code: str, text: str) -> None:
        """Append one lv1 record."""
        self._open.pop("lv2_" + code, None)
        self._add("lv1_" + code, text)
        self.quotes += 1

    def add_depth(self, code: str, text: str) -> None:
        """Append one lv10 record."""
        self._open.pop("lv2_" + code, None)
        self._add("lv10_" + code, text)
        self.depths += 1

    def _add(self, key: str, text: str) -> None:
        self.size += len(text)
        at = self._open.get(key)
        if at is None:
            self._open[key] = len(self._rows)
            self._rows.append(f"{key}={text}")
        else:
            self._rows[at] += "|" + text

    def text(self) -> str:
        """All of it."""
        return "\n".join(self._rows) + self._newline
