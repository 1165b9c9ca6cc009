"""The judge of silence alone: what is quiet is no outage, whatever is subscribed meanwhile, and an outage is told."""

import csv
import datetime as dt
import gzip
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from jvq_fast.staleness import Arrivals, Staleness, Verdict

CHINA = dt.timezone(dt.timedelta(hours=8))
DAY = int(dt.datetime(2023, 7, 11, tzinfo=CHINA).timestamp())
OPEN, NOON, AFTERNOON, CLOSE = 9.5 * 3600, 11.5 * 3600, 13 * 3600, 15 * 3600
Wanted = Callable[[float], tuple[str, ...]]


def live(times: Iterable[float], wanted: Wanted, begin: float, end: float, pushes: bool = False) -> list[float]:
    """A server that answers every probe and sends trades (or snapshots) at these times; when an outage is told."""
    judge = Staleness(15.0, 60.0, always=False)
    due = sorted(times)
    arrivals, at, told, subscribed, before = Arrivals(), 0, [], begin, wanted(begin)
    judge.opened(begin, arrivals)
    now = begin
    while now < end:
        now += 1.0
        while at < len(due) and due[at] <= now:
            at += 1
            arrivals = Arrivals(arrivals.records + 1, arrivals.news + 1, arrivals.trades + (not pushes))
        names = wanted(now)
        if set(names) - set(before):
            subscribed = now
        before = names
        wall = int((DAY + now) * 1e9)
        if judge.look(now, wall, arrivals, subscribed, names) is Verdict.PROBE:
            verdict = judge.probed(now, arrivals, subscribed, names, answered=True, alive=True)
            if verdict is Verdict.STALE:
                if not judge.told:
                    judge.tell()
                    told.append(now)
                judge.opened(now + 2, arrivals)
                now += 2
    return told


def of(*names: str) -> Wanted:
    return lambda now: names


@pytest.mark.parametrize("code", ["600536", "600961", "600761", "605580", "601825"])
def test_a_real_day_of_a_single_stock_has_no_outage(data_dir: Path, code: str) -> None:
    with gzip.open(data_dir / "lv2_5SH_20230711.csv.gz", "rt") as file:
        stamps = [row["recv_time"].split(":") for row in csv.DictReader(file) if row["code"] == code]
    times = [int(hours) * 3600 + int(minutes) * 60 + float(seconds) for hours, minutes, seconds in stamps]
    assert len(times) > 1000
    assert live(times, of(f"lv2_{code}"), OPEN - 60, CLOSE) == []


@pytest.mark.parametrize("every", [5, 15, 30])
def test_a_stock_that_is_seldom_traded_is_hardly_ever_taken_for_an_outage(every: float) -> None:
    told = 0
    for seed in range(5):
        rng, at, times = random.Random(seed), OPEN, []
        while at < CLOSE:
            at += rng.expovariate(1 / every)
            times.append(at)
        told += len(live(times, of("lv2_600519"), OPEN, CLOSE))
    assert told <= 5  # one a day


def test_an_outage_of_a_stock_that_trades_is_told_within_two_minutes() -> None:
    (told,) = live([OPEN + 2 * n for n in range(900)], of("lv2_600519"), OPEN, OPEN + 3600)
    assert 1800 + 60 <= told - OPEN <= 1800 + 125


def test_what_was_subscribed_a_moment_ago_has_its_own_time() -> None:
    five = tuple(f"lv2_60000{n}" for n in range(5))
    others = tuple(f"lv2_60100{n}" for n in range(5))
    for later in (others, (five[0], *others), (*five[:1], *(f"lv2_0000{n:02d}" for n in range(80)))):
        first = five if later is others else five[:1]
        told = live([], lambda now, first=first, later=later: first if now < OPEN + 59 else later, OPEN, OPEN + 115)
        assert told == []
    told = live([], lambda now: ("lv1_600519",) if now < OPEN + 14 else ("lv1_000001",), OPEN, OPEN + 27)
    assert told == []


@pytest.mark.parametrize("every", [2, 3, 5, 60])
def test_an_outage_is_told_however_often_the_subscription_changes(every: int) -> None:
    def wanted(now: float) -> tuple[str, ...]:
        at = int(now - OPEN) // every
        return tuple(f"lv1_{600000 + n}" for n in range(at, at + 300))

    stops = OPEN + 600
    (told,) = live([OPEN + n for n in range(600) for _ in range(100)], wanted, OPEN, OPEN + 900, pushes=True)
    assert stops + 10 <= told <= stops + 40


def test_a_silent_connection_is_left_as_soon_as_its_time_is_over() -> None:
    assert live([], of("lv1_600519"), OPEN, OPEN + 20) == [OPEN + 16]
