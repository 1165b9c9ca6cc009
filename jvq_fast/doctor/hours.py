"""Whether the market trades, so that silence means something."""

import datetime as dt
from dataclasses import dataclass

from jvq_fast.doctor.evidence import CHINA
from jvq_fast.market_rules import (
    CALENDAR_END,
    CALENDAR_START,
    SESSIONS,
    Phase,
    is_trading_day,
    next_trading_day,
    phase,
)


@dataclass(frozen=True, slots=True)
class Hours:
    """`data_expected`: silence would be a fault. `text` says what the exchanges do, for people."""

    data_expected: bool
    text: str


def hours(now_ns: int, *, real_time: bool) -> Hours:
    """What the exchanges do at a moment; a simulator that keeps hours of its own always sends."""
    if not real_time:
        return Hours(True, "the server keeps hours of its own (--clock always)")
    now = dt.datetime.fromtimestamp(now_ns / 1e9, CHINA)
    day = now.date()
    at = f"{now:%A %Y-%m-%d %H:%M:%S} in Shanghai"
    doubt = "" if CALENDAR_START <= day <= CALENDAR_END else "; the holidays of this year are not known here"
    what = phase(now.time()) if is_trading_day(day) else Phase.CLOSED
    if what is Phase.CONTINUOUS:
        return Hours(not doubt, f"it is {at}, {what.value}{doubt}")
    opens = [each.start for each in SESSIONS if each.phase is Phase.CONTINUOUS and each.start > now.time()]
    if is_trading_day(day) and opens:
        nearest = f"today at {opens[0]:%H:%M}"
    else:
        nearest = f"on {next_trading_day(day)} at {SESSIONS[2].start:%H:%M}"
    return Hours(False, f"outside trading hours: it is {at}, {what.value}; trading goes on {nearest}{doubt}")
