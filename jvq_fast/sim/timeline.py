"""Market time: microseconds since midnight of the first day, running at any speed, skipping what nobody waits for."""

import datetime as dt
import time

from jvq_fast.market_rules import is_trading_day, next_trading_day
from jvq_fast.sim.events import DAY, SECOND, clock_text
from jvq_fast.sim.market import AFTERNOON, CLOSE, MORNING, OPENING_CALL


class Timeline:
    """The market's clock. It stands at ``start`` until ``run``; at full speed it stands where ``reach`` put it."""

    def __init__(self, first_day: dt.date, start: int, speed: float) -> None:
        self.first_day = first_day
        self.speed = speed
        self.running = False
        self._start = start % DAY
        self._market = start
        self._wall = 0.0

    @property
    def full_speed(self) -> bool:
        """Whether time goes as fast as the readers take it."""
        return self.speed == 0

    def run(self) -> None:
        """Let time go on from where it stands."""
        self.running = True
        self._wall = time.monotonic()

    def now(self) -> int:
        """Market time."""
        if not self.running or self.full_speed:
            return self._market
        return self._market + int((time.monotonic() - self._wall) * self.speed * SECOND)

    def jump(self, to: int) -> None:
        """Go on from ``to``."""
        self._market = to
        self._wall = time.monotonic()

    def reach(self, to: int) -> None:
        """At full speed: time has come as far as ``to``."""
        if self.full_speed and to > self._market:
            self._market = to

    def seconds_until(self, moment: int) -> float:
        """Real seconds from now until ``moment``."""
        return (moment - self.now()) / SECOND / self.speed

    def day(self, moment: int) -> dt.date:
        """The calendar day of ``moment``."""
        return self.first_day + dt.timedelta(days=moment // DAY)

    def midnight(self, day: dt.date) -> int:
        """The moment at which ``day`` begins."""
        return (day - self.first_day).days * DAY

    def resting(self, moment: int) -> bool:
        """Whether nothing can happen at ``moment``: lunch, night, no trading day."""
        clock = moment % DAY
        if MORNING[1] + SECOND < clock < AFTERNOON[0]:
            return True
        return not OPENING_CALL <= clock < CLOSE or not is_trading_day(self.day(moment))

    def after_rest(self, moment: int) -> int:
        """When trading goes on: ``moment`` itself, 13:00 after lunch, the start of the next day after the close."""
        if not self.resting(moment):
            return moment
        clock = moment % DAY
        day = self.day(moment)
        if is_trading_day(day) and clock < CLOSE:
            return moment - clock + (AFTERNOON[0] if clock > MORNING[0] else max(OPENING_CALL, self._start))
        return self.midnight(next_trading_day(day)) + self._start

    def text(self) -> str:
        """The time of day, to the millisecond."""
        clock = self.now() % DAY
        return f"{clock_text(clock)}.{clock // 1000 % 1000:03d}"


def first_trading_day(today: dt.date) -> dt.date:
    """``today`` if the exchanges open, or the next day on which they do."""
    return today if is_trading_day(today) else next_trading_day(today)
