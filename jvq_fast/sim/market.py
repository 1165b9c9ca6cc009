"""The market of one code: order flow in, trades and snapshots out, the same for the same seed.

A market is a clockwork: ``start`` winds it up for the rest of a day, ``due`` is the time of its next event, ``step``
lets that event happen; ``over`` says that the day has no more. Nothing outside changes what it does, so when it is
asked makes no difference to what it says.
Trades are said before the snapshot that counts them; shares and money are whole numbers throughout.
"""

import datetime as dt
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator

from jvq_fast.market_rules import Board
from jvq_fast.sim.book import Book
from jvq_fast.sim.events import HOUR, MINUTE, SECOND, Event, Level, Snapshot, Trade, percent
from jvq_fast.sim.listing import Listing

OPENING_CALL = 9 * HOUR + 15 * MINUTE
OPENING_MATCH = 9 * HOUR + 25 * MINUTE
MORNING = (9 * HOUR + 30 * MINUTE, 11 * HOUR + 30 * MINUTE)
AFTERNOON = (13 * HOUR, 14 * HOUR + 57 * MINUTE)
CLOSING_MATCH = 15 * HOUR
CLOSE = 15 * HOUR + 10 * SECOND
SNAPSHOT_EVERY = 3 * SECOND
LEVELS = 10

# How many trades an incoming order makes, per thousand orders, as arrivals of five Shanghai stocks on 2023-07-11 were
# distributed; the rest, up to 60, is the tail.
_COUNTS = {
    1: 510, 2: 205, 3: 100, 4: 54, 5: 33, 6: 22, 7: 15, 8: 11, 9: 8, 10: 6, 11: 5, 12: 4, 13: 4, 14: 3, 15: 3, 16: 2,
    17: 2, 18: 2, 20: 2, 23: 2, 26: 2, 30: 1, 36: 1, 44: 1, 60: 1,
}  # fmt: skip
_COUNT_OF = [count for count, weight in _COUNTS.items() for _ in range(weight)]
_MEAN_COUNT = sum(_COUNT_OF) / len(_COUNT_OF)
_SIZES = (1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 5, 6, 8, 10)
# Orders follow orders: this share of them comes within milliseconds of the one before.
_FOLLOWING = 0.35
_FOLLOWING_AFTER = 5_000
_ODD_LOTS = 0.01
_TYPICAL_ORDER = 20_000_000  # thousandths of a CNY


class Market(ABC):
    """What all codes have in common: the day, its totals, and the snapshot grid."""

    def __init__(self, listing: Listing, seed: int) -> None:
        self.listing = listing
        self.code = listing.code
        self.due = 0
        self.over = True
        self._rng = random.Random(f"market:{seed}:{listing.code}")
        self._flow: Iterator[int] = iter(())
        self._said: Event | None = None
        self._texts: dict[int, str] = {}
        self._close = listing.last_close
        self._price = 0
        self._volume = 0
        self._amount = 0
        self._changed = True
        self._last: Snapshot | None = None
        self._auction: tuple[int, int, int] | None = None
        self._phase_shift = self._rng.randrange(SNAPSHOT_EVERY)

    def open_day(self, day: dt.date) -> None:
        """A new day: the price becomes the last close, the totals start at zero."""
        self._close = self._price or self._close
        self._price = self._volume = self._amount = 0
        self._changed = True
        self._last = None
        self._auction = None
        self._prepare(day)

    def start(self, time: int) -> None:
        """Run on from ``time``, microseconds since midnight, whatever came before on this day."""
        self._auction = None
        self._flow = self._day(time)
        self._wind()

    def step(self) -> Event | None:
        """Let the event that is due happen, and say what it made public, if anything."""
        self._said = None
        self._wind()
        return self._said

    def _wind(self) -> None:
        due = next(self._flow, None)
        self.over = due is None
        if due is not None:
            self.due = due

    def snapshot(self, time: int) -> Snapshot:
        """The state at ``time``; the last snapshot published, unchanged, where nothing happened since."""
        if self._last is not None and not self._changed:
            return self._last
        bids, asks = self._levels()
        price = self._price or (0 if self._auction else self._close)
        return Snapshot(
            time=time,
            name=self.listing.name,
            price=self._text(price),
            last_close=self._text(self._close),
            change=percent(price, self._close) if price else "0.00",
            amount=self._amount_text(),
            volume=self._volume,
            bids=bids,
            asks=asks,
        )

    @abstractmethod
    def _prepare(self, day: dt.date) -> None: ...

    @abstractmethod
    def _levels(self) -> tuple[tuple[Level, ...], tuple[Level, ...]]: ...

    def _amount_text(self) -> str:
        cents = self._amount // 10
        return f"{cents // 100}.{cents % 100:02d}"

    def _text(self, price: int) -> str:
        text = self._texts.get(price)
        if text is None:
            if len(self._texts) > 4096:
                self._texts.clear()
            decimals = self.listing.decimals
            one = 10**decimals
            text = self._texts[price] = f"{price // one}.{price % one:0{decimals}d}"
        return text

    def _publish(self, time: int) -> None:
        self._said = self._last = self.snapshot(time)
        self._changed = False

    def _day(self, time: int) -> Iterator[int]:
        if time < MORNING[0]:
            yield from self._opening_call(max(time, OPENING_CALL))
        for begin, end in (MORNING, AFTERNOON):
            if time < end:
                yield from self._continuous(max(time, begin), end)
        yield from self._closing_call(max(time, AFTERNOON[1]))

    @abstractmethod
    def _opening_call(self, time: int) -> Iterator[int]: ...

    @abstractmethod
    def _continuous(self, begin: int, end: int) -> Iterator[int]: ...

    @abstractmethod
    def _closing_call(self, time: int) -> Iterator[int]: ...

    def _grid(self, time: int) -> int:
        """The first time of the snapshot grid after ``time``."""
        return time + SNAPSHOT_EVERY - (time - self._phase_shift) % SNAPSHOT_EVERY


class IndexMarket(Market):
    """An index: a level that drifts, turnover that grows, no book and no trades."""

    def _prepare(self, day: dt.date) -> None:  # noqa: ARG002
        self._level = float(self._close)

    def _levels(self) -> tuple[tuple[Level, ...], tuple[Level, ...]]:
        return (), ()

    def _opening_call(self, time: int) -> Iterator[int]:
        if time < OPENING_MATCH:
            yield OPENING_MATCH
            yield from self._one(OPENING_MATCH)

    def _continuous(self, begin: int, end: int) -> Iterator[int]:
        time = self._grid(begin)
        while time < end:
            yield time
            yield from self._one(time)
            time += SNAPSHOT_EVERY

    def _closing_call(self, time: int) -> Iterator[int]:
        if time < CLOSING_MATCH:
            yield CLOSING_MATCH
            yield from self._one(CLOSING_MATCH)

    def _one(self, time: int) -> Iterator[int]:
        self._level *= math.exp(self._rng.gauss(0.0, 1e-4))
        self._price = round(self._level)
        turnover = self._rng.randrange(50_000_000, 400_000_000)
        self._volume += turnover // 12
        self._amount += turnover * 1000
        self._changed = True
        self._publish(time)
        return iter(())


class StockMarket(Market):
    """A share, a fund or a bond. ``locked``: +1 at the upper limit all day, no asks; -1 at the lower, no bids."""

    def __init__(self, listing: Listing, seed: int, *, locked: int = 0, cancels: float = 0.0) -> None:
        super().__init__(listing, seed)
        self._locked = locked
        self._cancels = cancels
        self._id = self._rng.randrange(1, 10_000)
        orders = listing.rate / _MEAN_COUNT
        self._calm = (SECOND / orders - _FOLLOWING * _FOLLOWING_AFTER / 2) / (1 - _FOLLOWING)
        self._book = Book(1, 1)
        self._fair = 0.0

    def _prepare(self, day: dt.date) -> None:
        listing = self.listing
        close = self._close
        low, high = listing.limits(close, day)
        self._book = Book(low, high)
        self._step = max(0.05, close * 3e-5)
        self._spread = max(1, round(close * 1e-4))
        unit_cost = close * listing.unit * listing.step
        self._scale = 1 if listing.board is Board.STAR else max(1, _TYPICAL_ORDER // unit_cost)
        self._plenty = 60 * listing.minimum * self._scale
        self._odd = listing.step == 100 and listing.board in (Board.MAIN, Board.CHINEXT)
        margin = (high - low) // 10
        self._low, self._high = low + margin, high - margin
        if self._locked:
            self._fair = float(high if self._locked > 0 else low)
        else:
            self._fair = min(max(close * (1 + self._rng.gauss(0.0, 0.003)), self._low), self._high)
        self._fill_book()

    def _fill_book(self) -> None:
        book = self._book
        book.bids.clear()
        book.asks.clear()
        centre = round(self._fair)
        if self._locked > 0:
            book.bid(book.high, 100 * self._plenty)
        elif self._locked < 0:
            book.ask(book.low, 100 * self._plenty)
        else:
            book.bid(centre - 1, self._resting())
            book.ask(centre + 1, self._resting())
        self._deepen()

    def _deepen(self) -> None:
        self._book.deepen(max(20, 12 * self._spread), self._gap, self._resting)

    def _gap(self) -> int:
        return 1 + int(self._rng.random() * self._spread)

    def _order(self) -> int:
        """The size of an order that may be bought: the minimum and steps above it."""
        listing = self.listing
        if listing.step == 1:
            return listing.minimum + int(self._rng.random() * 2 * listing.minimum)
        return _SIZES[int(self._rng.random() * 16)] * listing.step * self._scale

    def _resting(self) -> int:
        return self._order() * (2 + int(self._rng.random() * 8))

    def _levels(self) -> tuple[tuple[Level, ...], tuple[Level, ...]]:
        text = self._text
        if self._auction is not None:
            # As the exchanges show a call: the price it would match at and how much on both sides, then, without a
            # price, what is left over on one of them.
            price, matched, left = self._auction
            here = (text(price), matched)
            nothing = text(0)
            return (here, (nothing, max(left, 0))), (here, (nothing, max(-left, 0)))
        book = self._book
        return (
            tuple((text(price), volume) for price, volume in book.bids.top(LEVELS)),
            tuple((text(price), volume) for price, volume in book.asks.top(LEVELS)),
        )

    def _trade(self, time: int, price: int, volume: int) -> Trade:
        self._id += 1 + int(self._rng.random() ** 4 * 40)
        self._volume += volume
        self._amount += price * volume * self.listing.unit
        self._price = price
        return Trade(time, self._id, self._text(price), volume)

    def _continuous(self, begin: int, end: int) -> Iterator[int]:
        random = self._rng.random
        trade_at = begin + int(random() * min(self._calm, SECOND))
        publish_at = self._grid(begin)
        while True:
            if trade_at < publish_at:
                time = trade_at
                if time >= end:
                    break
                yield time
                self._burst(time)
                following = random() < _FOLLOWING
                trade_at += 1 + int(
                    random() * _FOLLOWING_AFTER if following else -math.log(1.0 - random()) * self._calm
                )
            else:
                time = publish_at
                if time >= end:
                    break
                yield time
                self._publish(time)
                publish_at += SNAPSHOT_EVERY
        yield end
        self._publish(end)

    def _burst(self, time: int) -> None:
        """One incoming order walks the book; then new orders come to rest around what the code is worth."""
        random = self._rng.random
        book = self._book
        bids, asks = book.bids, book.asks
        fair = self._fair = min(max(self._fair + (random() - 0.5) * self._step, self._low), self._high)
        if bids and asks:
            lean = 0.5 + (2 * fair - bids.best - asks.best) / (8 * self._spread)
            buying = random() < min(max(lean, 0.15), 0.85)
        else:
            buying = bool(asks)
        side = asks if buying else bids
        trades = []
        count = _COUNT_OF[int(random() * len(_COUNT_OF))]
        odd = self._odd and not buying and random() < _ODD_LOTS
        while count and len(side) > 1:
            count -= 1
            size = self._order()
            if odd and not count:
                size += 1 + int(random() * 98)
            price, filled = side.take(size)
            trades.append(self._trade(time, price, filled))
        if not trades and side:
            price, filled = side.take(self._order())
            trades.append(self._trade(time, price, filled))
        self._rest(fair)
        if not self._locked:
            self._deepen()
        self._changed = True
        if self._cancels and random() < self._cancels:
            trades.append(self._cancel(time))
        self._said = tuple(trades)

    def _cancel(self, time: int) -> Trade:
        self._id += 1
        return Trade(time, self._id, self._text(0), self._order())

    def _rest(self, fair: float) -> None:
        random = self._rng.random
        book = self._book
        if self._locked:
            away = 1 + int(random() * 5)
            if self._locked > 0:
                book.bid(book.high - away, self._resting(), self._plenty)
                queue = book.bids.top(1)[0][1]
            else:
                book.ask(book.low + away, self._resting(), self._plenty)
                queue = book.asks.top(1)[0][1]
            if queue < 20 * self._plenty:
                self._fill_book()
            return
        reach = 3 * self._spread
        if random() < 0.7 or not book.bids:
            book.bid(math.ceil(fair) - 1 - int(random() * reach), self._resting(), self._plenty)
        if random() < 0.7 or not book.asks:
            book.ask(math.floor(fair) + 1 + int(random() * reach), self._resting(), self._plenty)

    def _call(self, begin: int, end: int, price: int) -> Iterator[int]:
        """A call auction up to its match: what would trade is published as it grows."""
        rng = self._rng
        matched = 0
        time = begin + int(rng.random() * SNAPSHOT_EVERY)
        target = int(20 * self.listing.rate) + 1
        while time < end:
            matched += int(rng.random() * target * 6 * SNAPSHOT_EVERY / (end - begin)) + (matched == 0)
            wobble = round(rng.gauss(0.0, self._spread) * (end - time) / (end - begin))
            shown = min(max(price + wobble, self._book.low), self._book.high)
            step = self.listing.step if self.listing.step > 1 else self.listing.minimum
            left = int(rng.gauss(0.0, 5.0)) * step
            self._auction = (shown, matched * step * self._scale, left)
            self._changed = True
            yield time
            self._publish(time)
            time += SNAPSHOT_EVERY
        match_at = end + int(rng.random() * SECOND)
        yield match_at
        self._auction = None
        self._match(match_at, price, max(matched, 1))

    def _match(self, time: int, price: int, matched: int) -> None:
        """All trades of a call, at its one price."""
        step = self.listing.step if self.listing.step > 1 else self.listing.minimum
        left = matched * step * self._scale
        pieces = 1 + min(matched, 40 + int(self._rng.random() * 160))
        trades = []
        while left > 0:
            size = left if pieces <= 1 else min(left, _SIZES[int(self._rng.random() * 16)] * step * self._scale)
            pieces -= 1
            left -= size
            trades.append(self._trade(time, price, size))
        self._changed = True
        self._said = tuple(trades)

    def _opening_call(self, time: int) -> Iterator[int]:
        price = round(self._fair)
        if time < OPENING_MATCH:
            yield from self._call(time, OPENING_MATCH, price)
            for after in (1, 4):
                time = OPENING_MATCH + after * SECOND
                yield time
                self._publish(time)

    def _closing_call(self, time: int) -> Iterator[int]:
        if time < CLOSING_MATCH:
            price = self._price or round(self._fair)
            yield from self._call(time, CLOSING_MATCH, price)
            self._fair = float(price)
            self._fill_book()
        for after in (2, 5, 8):
            if time < CLOSING_MATCH + after * SECOND:
                yield CLOSING_MATCH + after * SECOND
                self._publish(CLOSING_MATCH + after * SECOND)


def open_market(listing: Listing, seed: int, *, locked: int = 0, cancels: float = 0.0) -> Market:
    """The market of a listing. ``cancels``: how often an order is followed by a cancellation at price 0."""
    if listing.board is Board.INDEX:
        return IndexMarket(listing, seed)
    return StockMarket(listing, seed, locked=locked, cancels=cancels)
