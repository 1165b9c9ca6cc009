"""Whether silence is an outage: by the trading calendar, the kind of subscription, and what the server answers.

Knows no socket and no clock. It is looked at about once a second with the time and what has arrived so far.
"""

import datetime as dt
import logging
from enum import Enum
from typing import NamedTuple

from jvq_fast.market_rules import CALENDAR_END, Phase, is_trading_day, phase
from jvq_fast.subscriptions import code_of

_CHINA = dt.timezone(dt.timedelta(hours=8))
# In units of the silence that is too long. Data so soon after a subscribe may be its first push, which also suspended
# stocks get (3 s of 15); a server that answered is asked again after so long (a minute), and left for another one
# although it answers, in an outage that was told already, after so long (5 minutes). Trades that are so late on a new
# connection, too, were late by themselves (15 s of 60).
_FIRST_PUSH = 0.2
_STILL_QUIET = 0.25
# A server that answers, and sends no trades of a few stocks, is left after so long (2 minutes).
_FEW = 2
_PROBE_AGAIN = 4
_RECONNECT_AGAIN = 20
# So many stocks are not suspended all on one day: what came yesterday is to be expected today.
_MANY = 5
_SECOND = 1_000_000_000
_log = logging.getLogger("jvq_fast")


class Watch(Enum):
    """What silence means at a time of day."""

    OFF = "closed"  # nothing at all
    WEAK = "auction"  # nothing, unless the server does not answer either: what it pushes in auctions is not known
    FULL = "trading"


def watch(wall_ns: int) -> Watch:
    """At a moment, ns since the epoch UTC. Past the calendar's end every weekday is a trading day."""
    moment = dt.datetime.fromtimestamp(wall_ns // _SECOND, _CHINA)
    if not is_trading_day(moment.date()):
        return Watch.OFF
    now = phase(moment.time())
    if now is Phase.CONTINUOUS:
        return Watch.FULL
    return Watch.WEAK if now in (Phase.OPENING_CALL, Phase.CLOSING_CALL) else Watch.OFF


class Arrivals(NamedTuple):
    """What arrived so far, over all connections."""

    records: int = 0  # of any kind, those included that were dropped as repeated
    news: int = 0  # less the snapshots that were as the one before, which suspended stocks get too
    trades: int = 0  # which no stock gets that is suspended


class Verdict(Enum):
    """What is to be done."""

    FINE = "fine"
    PROBE = "probe"
    STALE = "stale"


class Staleness:
    """The judge of one feed, over all its connections. All times are seconds of one monotonic clock.

    `snapshots` and `trades` are the seconds of silence that are too long while any snapshot is subscribed, or trades
    only; `always` watches day and night.
    """

    def __init__(self, snapshots: float, trades: float, *, always: bool) -> None:
        self._snapshots = snapshots
        self._trades = trades
        self._always = always
        self._warned = False
        self._watch = Watch.OFF
        self._day = 0
        self._wanted: tuple[str, ...] = ()
        self._opened = 0.0
        self._since = 0.0  # when the present silence began
        self._arrivals = self._first = Arrivals()  # by now, and when this connection opened
        self._was_pushed = False  # a first push came on this connection
        self._has_traded = False  # data came in beyond a first push: it is to be expected again
        self._told = False  # an outage, and no data beyond a first push came since
        self._believed_until = 0.0
        self._patience = 0.0  # a silence that turned out to be none of the server's, today
        self._suspect: float | None = None  # silence that ended a connection although its server answered
        self._answers: bool | None = None  # whether the server answers probes; None: not known
        self._unanswered = False
        self._since_when: dict[str, float] = {}  # what is wanted on this connection, and since when
        self._pushes = 0  # first pushes that may be on their way: of the snapshots subscribed since the last data
        self.reason = ""

    @property
    def answers(self) -> bool | None:
        """Whether the server answers probes at all; None where it is not known."""
        return self._answers

    def opened(self, now: float, arrivals: Arrivals) -> None:
        """A connection opened."""
        self._opened = self._since = now
        self._arrivals = self._first = arrivals
        self._was_pushed = False
        self._believed_until = 0.0
        self._since_when = {}
        self._pushes = 0

    def look(
        self, now: float, wall_ns: int, arrivals: Arrivals, subscribed_at: float, wanted: tuple[str, ...]
    ) -> Verdict:
        """FINE, or PROBE with its `reason`: the server is to be asked, then `probed` called.

        `subscribed_at` is when the last subscribe was sent.
        """
        self._turn(now, wall_ns, wanted)
        self._change(now, wanted)
        self._arrived(now, arrivals, subscribed_at, wanted)
        limit = self._limit(wanted)
        if limit is None or self._watch is Watch.OFF:
            self._since = now
            return Verdict.FINE
        if now - self._since < limit:
            # A server that left a probe unanswered is tried on a connection known to be alive: it may be its manner.
            if self._unanswered and self._answers is None and arrivals != self._first:
                self.reason = "data comes: finding out whether this server answers probes, since it left one unanswered"
                return Verdict.PROBE
            return Verdict.FINE
        if now < self._believed_until:
            return Verdict.FINE
        self.reason = _no_data(now - self._since)
        return Verdict.PROBE

    def probed(
        self,
        now: float,
        arrivals: Arrivals,
        subscribed_at: float,
        wanted: tuple[str, ...],
        *,
        answered: bool,
        alive: bool,
    ) -> Verdict:
        """After a probe: FINE, or STALE with its `reason`. `alive`: something came, be it an answer or not."""
        if answered:
            self._answers = True
        self._change(now, wanted)
        self._arrived(now, arrivals, subscribed_at, wanted)
        limit = self._limit(wanted)
        silence = now - self._since
        if limit is None or silence < limit:
            if not answered and self._unanswered and self._answers is None:
                self._answers = False
            return Verdict.FINE
        if not alive and (self._answers or (self._answers is None and self._watch is Watch.FULL)):
            self._unanswered = True
            return self._stale(f"{_no_data(silence)}, and no answer to a probe")
        if self._expects(now, silence, wanted):
            self._suspect = self._since
            said = "though the server answers" if alive else "from a server that never answers"
            return self._stale(f"{_no_data(silence)}, {said}")
        # Where it is only too soon to say, it is asked again sooner.
        is_quiet = not self._has_traded and len(self._settled(now, wanted)) == len(wanted)
        self._believed_until = now + (_PROBE_AGAIN * limit if is_quiet else limit)
        return Verdict.FINE

    @property
    def told(self) -> bool:
        """Whether the present outage is known already: no data beyond a first push came since `tell`."""
        return self._told

    def tell(self) -> None:
        """The outage is being told."""
        self._told = True

    def _stale(self, reason: str) -> Verdict:
        self.reason = reason
        self._has_traded = False
        return Verdict.STALE

    def _limit(self, wanted: tuple[str, ...]) -> float | None:
        if not wanted:
            return None
        return self._trades if _only_trades(wanted) else self._snapshots

    def _expects(self, now: float, silence: float, wanted: tuple[str, ...]) -> bool:
        if self._watch is not Watch.FULL:
            return False
        limit = self._limit(wanted) or 0.0
        settled = self._settled(now, wanted)
        if not settled or (_only_trades(settled) and _are_many(wanted) and not _are_many(settled)):
            return False
        # Not even a first push, which suspended stocks get too, of snapshots; or not one trade of many stocks.
        nothing = self._arrivals == self._first and (not _only_trades(settled) or _are_many(settled))
        if self._told:
            return silence >= (limit if nothing else _RECONNECT_AGAIN * limit)
        if _only_trades(wanted) and not _are_many(wanted):
            limit *= _FEW  # any of a few stocks may be quiet for longer than the others together
        return silence >= max(limit, 2 * self._patience) if self._has_traded else nothing

    def _settled(self, now: float, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """What has been subscribed for so long that its silence says something."""
        limit = self._limit(wanted) or 0.0
        return tuple(name for name in wanted if now - self._since_when.get(name, now) >= limit)

    def _arrived(self, now: float, arrivals: Arrivals, subscribed_at: float, wanted: tuple[str, ...]) -> None:
        before, self._arrivals = self._arrivals, arrivals
        if arrivals.records == before.records:
            return
        limit = self._limit(wanted) or self._snapshots
        may_be_pushed = now - max(self._opened, subscribed_at) <= _FIRST_PUSH * limit
        pushes, news = self._pushes, arrivals.news - before.news
        self._pushes = max(0, pushes - news) if may_be_pushed else 0
        if _are_many(wanted):
            may_be_pushed = may_be_pushed and news <= pushes  # no more first pushes than there were subscriptions
        has_traded = arrivals.trades != before.trades and _are_many(wanted)
        if has_traded or (arrivals.news != before.news and not may_be_pushed):
            quiet = self._was_pushed or _only_trades(wanted)
            enough = limit * (_STILL_QUIET if _only_trades(wanted) else 1)
            if self._suspect is not None and quiet and now - self._opened > enough:
                # A new connection had brought no more than the old one: the stocks were quiet, not the server.
                self._patience = max(self._patience, now - self._suspect)
            elif self._has_traded and self._since > self._opened and _only_trades(wanted):
                # So long a pause is nothing unusual for these stocks.
                self._patience = max(self._patience, now - self._since)
            self._suspect = None
            self._has_traded = True
            self._told = False
        elif may_be_pushed:
            self._was_pushed = True
        self._since = now
        self._believed_until = 0.0

    def _change(self, now: float, wanted: tuple[str, ...]) -> None:
        """Silence under one subscription says little about another."""
        before, self._wanted = self._wanted, wanted
        if len(self._since_when) != len(wanted) or wanted != before:
            known = self._since_when
            self._pushes += sum(not name.startswith("lv2_") for name in wanted if name not in known)
            begin = now if known else self._opened
            self._since_when = {name: known.get(name, begin) for name in wanted}
        if wanted is before or wanted == before:
            return
        if (self._limit(wanted) or 0.0) < (self._limit(before) or 0.0):
            self._since = now
        if not _are_many(wanted) and not set(before) <= set(wanted):
            self._has_traded = False  # what traded may be what is gone

    def _turn(self, now: float, wall_ns: int, wanted: tuple[str, ...]) -> None:
        """Silence begins anew with each phase of the day, patience with each day."""
        before, self._watch = self._watch, Watch.FULL if self._always else watch(wall_ns)
        if self._watch is not before:
            self._since = now
            self._believed_until = 0.0
        day = (wall_ns + 8 * 3600 * _SECOND) // (86_400 * _SECOND)
        if day != self._day:
            self._day = day
            self._patience = 0.0
            if not _are_many(wanted):
                self._has_traded = False
            if not self._always and not self._warned and dt.date(1970, 1, 1) + dt.timedelta(days=day) > CALENDAR_END:
                self._warned = True
                _log.warning("holidays are known up to %s only: from now on every weekday is taken for a trading day",
                             CALENDAR_END)  # fmt: skip


def _no_data(silence: float) -> str:
    return f"no data for {silence:.0f} s" if silence >= 1 else f"no data for {silence:.1f} s"


def _only_trades(wanted: tuple[str, ...]) -> bool:
    return all(name.startswith("lv2_") for name in wanted)


def _are_many(wanted: tuple[str, ...]) -> bool:
    return len(set(map(code_of, wanted))) >= _MANY
