"""Random lives of a trade client, with faults, crashes and other people's orders, judged by the broker's own book."""

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import jvq_fast as jvq
from simulator import TOKEN, Simulator
from trade_paper_run import CODES, PaperLife
from trade_run import World

pytestmark = pytest.mark.release_only

PARTS = 40  # a test that takes more than 15 minutes ends the run
SCHEDULES = 10_400
SHARE = 160
HTTP_PARTS = 3
ENOUGH = 5  # failures to look at
# What a run of that many has to have met, for its verdict to mean something.
MET = (
    "accepted", "OrderNotSent", "OrderRejected", "OrderUnknown", "LoginError", "orders at the broker", "foreign",
    "cancels at the broker", "order ended accepted", "order ended rejected", "order ended not sent",
    "cancel ended accepted", "cancel ended rejected", "crash", "lost power", "crash in a call", "resolved",
    "second client refused", "gate: unknown", "gate: max_repeats", "gate: max_open_orders", "gate: max_daily_value",
    "gate: max_per_second", "KilledError", "journal begun anew",
)  # fmt: skip


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """A folder for many small files, in memory where there is such a place."""
    return Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path


@pytest.fixture(scope="module")
def totals() -> Counter[str]:
    return Counter()


@pytest.mark.parametrize("part", range(PARTS))
def test_no_order_is_sent_twice_or_lost_from_view(
    part: int,
    memory: Path,
    totals: Counter[str],
    share: Callable[..., list[int]],
    record_property: Callable[[str, object], None],
) -> None:
    """10,400 schedules in the long run, 160 without."""
    counts: Counter[str] = Counter()
    failures: list[Exception] = []
    seeds = share(range(part, SCHEDULES, PARTS), SHARE // PARTS)
    for seed in seeds:
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            world = World(seed, Path(folder))
            try:
                counts += world.run()
            except Exception as error:
                error.add_note(f"seed {seed}, after {dict(world.counts)}")
                failures.append(error)
        if len(failures) == ENOUGH:
            break
    record_property("schedules", len(seeds))
    record_property("outcomes", dict(sorted(counts.items())))
    print(f"{len(seeds)} schedules: {dict(sorted(counts.items()))}")
    if failures:
        raise ExceptionGroup("schedules", failures)
    totals += counts
    totals["schedules"] += len(seeds)


def test_the_schedules_met_all_that_they_are_for(
    long: bool, totals: Counter[str], record_property: Callable[[str, object], None]
) -> None:
    if not long or totals["schedules"] < SCHEDULES:
        pytest.skip("judges all schedules together, in the long suite: make test-long")
    record_property("outcomes", dict(sorted(totals.items())))
    print(f"all schedules: {dict(sorted(totals.items()))}")
    assert not [name for name in MET if not totals[name]]


@pytest.fixture(scope="module")
def market() -> Iterator[tuple[Simulator, jvq.Feed]]:
    with Simulator("--seed", "11") as sim:
        feed = jvq.Feed(
            TOKEN, [f"lv10_{code}" for code in CODES], allocation=sim.http, trading_day=sim.trading_day, clock="always"
        )
        with feed:
            sim.wait(lambda _: all(feed.last(code) for code in CODES))
            yield sim, feed


@pytest.mark.parametrize("part", range(HTTP_PARTS))
def test_the_paper_broker_and_the_client_agree_whatever_happened_between_them(
    part: int,
    market: tuple[Simulator, jvq.Feed],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    share: Callable[..., list[int]],
    record_property: Callable[[str, object], None],
) -> None:
    """150 schedules over HTTP in the long run, 3 without."""
    monkeypatch.setattr("jvq_fast.trade.private._ROUNDS", 1)
    counts: Counter[str] = Counter()
    failures: list[Exception] = []
    seeds = share(range(part, 150, HTTP_PARTS), 1)
    for seed in seeds:
        folder = tmp_path / str(seed)
        folder.mkdir()
        life = PaperLife(*market, seed, folder)
        try:
            counts += life.run()
        except Exception as error:
            error.add_note(f"seed {seed}, after {dict(life.counts)}")
            failures.append(error)
        if len(failures) == ENOUGH:
            break
    record_property("schedules_over_http", len(seeds))
    record_property("outcomes_over_http", dict(sorted(counts.items())))
    print(f"{len(seeds)} schedules over HTTP: {dict(sorted(counts.items()))}")
    if failures:
        raise ExceptionGroup("schedules over HTTP", failures)
