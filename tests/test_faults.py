"""Every kind of fault by many seeds: the feed comes back, holds what came, says what may be missing, is not busy."""

import random
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Queue
from typing import Any

import numpy as np
import pytest

import jvq_fast as jvq
from fault_run import DEFAULTS, HISTORY, QUICK, WAIT, Draws, Figures, Run, StarvedError, describe
from proxy import Proxy
from simulator import TOKEN, Simulator

SEEDS = range(50)
SHARE = 1
WORKERS = 4
WITH_DEFAULTS = 10  # one seed of so many runs with the feed's own settings
OPTIONS = ("--speed", "2", "--gather-ms", "4")
LATE = 1.0  # seconds, for 99 of 100 returns of the server
BUSY = 0.05  # of a core
STARVED = 2  # runs that are tried again on a machine too busy to keep the data coming
ANY = 1_000

Fault = Callable[[Run], None]


class Kind:
    """A kind of fault: what it does in a run, and what that run may show.

    `losses` is how many connections end in it at least and at most, `stales` how often silence is announced. `way` is
    that of `Run`, and `history`. `once`: no trade is sent twice on a connection. `tedious`: it takes long with the
    feed's own settings.
    """

    def __init__(
        self,
        fault: Fault,
        *,
        losses: tuple[int, int] = (1, 1),
        stales: tuple[int, int] = (0, 0),
        way: str = "any",
        once: bool = True,
        tedious: bool = False,
        history: int = HISTORY,
    ) -> None:
        self.fault = fault
        self.losses = losses
        self.stales = stales
        self.way = way
        self.once = once
        self.history = history
        self.tedious = tedious or stales[1] > 0


KINDS: dict[str, Kind] = {}


def kind(**properties: Any) -> Callable[[Fault], Fault]:
    def add(fault: Fault) -> Fault:
        KINDS[fault.__name__] = Kind(fault, **properties)
        return fault

    return add


# --- by the proxy: the connection ends ---


@kind()
def reset(run: Run) -> None:
    run.pause(0.3)
    run.returned()
    run.proxy.reset()
    run.stir()
    run.back()


@kind()
def reset_of_the_feeds_side(run: Run) -> None:
    """The server takes the old connection for alive meanwhile."""
    run.pause(0.3)
    run.returned()
    run.proxy.reset("client")
    run.stir()
    run.back()
    run.proxy.heal()


@kind()
def fin(run: Run) -> None:
    run.pause(0.3)
    run.returned()
    run.proxy.close()
    run.stir()
    run.back()


@kind(losses=(1, ANY))
def cut_anywhere(run: Run) -> None:
    """Each connection ends after some bytes, in the handshake or in a frame."""
    size = run.rng.choice((0, 1, 100, 150, 200, run.rng.randrange(20_000)))
    run.proxy.set("down", truncate=size, abrupt=run.rng.random() < 0.5)
    run.gone()
    run.stir()
    run.pause(0.5)
    run.proxy.heal()
    run.returned()
    run.proxy.close()
    run.back()


@kind(losses=(1, ANY))
def commands_cut(run: Run) -> None:
    """Each connection ends after some bytes of the feed's, in its request or in its subscription."""
    run.proxy.set("up", truncate=run.rng.randrange(400), abrupt=run.rng.random() < 0.5)
    run.feed.replace(run.feed.subscriptions)
    run.pause(0.1)
    run.proxy.reset()
    run.gone()
    run.stir()
    run.pause(0.5)
    run.proxy.heal()
    run.returned()
    run.proxy.close()
    run.back()


@kind(losses=(1, ANY))
def flapping(run: Run) -> None:
    for _ in range(run.rng.randint(2, 12)):
        run.proxy.reset()
        run.pause(0.15)
    run.gone()
    run.stir()
    run.returned()
    run.proxy.reset()
    run.back()


# --- by the proxy: and can't be made again at once ---


@kind()
def refused(run: Run) -> None:
    run.proxy.refuse()
    run.proxy.reset()
    run.gone()
    run.stir()
    run.pause(1)
    run.returned()
    run.proxy.accept()
    run.back()


@kind(tedious=True)
def handshake_unanswered(run: Run) -> None:
    run.proxy.half_open("down")
    run.proxy.reset()
    run.gone()
    run.stir()
    run.pause(1)
    run.returned()
    run.proxy.heal()
    run.back()


@kind(way="allocation")
def moved(run: Run) -> None:
    run.pause(0.3)
    run.returned()
    run.proxy.move()
    run.stir()
    run.back()


@kind(way="front")
def allocation_refused(run: Run) -> None:
    assert run.front is not None
    run.front.refuse()
    run.proxy.reset()
    run.gone()
    run.stir()
    run.pause(1)
    run.returned()
    run.front.accept()
    run.back()


@kind(way="front", tedious=True)
def allocation_unanswered(run: Run) -> None:
    assert run.front is not None
    run.front.half_open(run.rng.choice(("down", "both")))
    run.proxy.reset()
    run.gone()
    run.pause(1)
    run.returned()
    run.front.heal()
    run.back()


@kind(way="front")
def allocation_cut(run: Run) -> None:
    assert run.front is not None
    run.front.set("down", truncate=run.rng.randrange(200), abrupt=run.rng.random() < 0.5)
    run.proxy.reset()
    run.gone()
    run.pause(1)
    run.returned()
    run.front.heal()
    run.back()


# --- by the proxy: silence ---


@kind(stales=(1, 1))
def half_open(run: Run) -> None:
    """The connection is dead, without an error; a new one is well."""
    run.settle()
    run.returned()
    run.proxy.half_open(run.rng.choice(("down", "both")), lasting=False)
    run.stir()
    run.back()
    run.proxy.heal()


@kind(stales=(1, 1))
def everything_swallowed(run: Run) -> None:
    """So are new ones, for a while: all of it is one outage."""
    run.settle()
    run.proxy.half_open(run.rng.choice(("down", "both")))
    run.gone()
    run.stir()
    run.pause(1)
    run.returned()
    run.proxy.heal()
    run.back()


@kind()
def commands_swallowed(run: Run) -> None:
    """The server hears nothing any more, and data comes as ever."""
    run.proxy.half_open("up")
    run.stir()
    run.records(20)
    run.returned()
    run.proxy.heal()
    run.back()


# --- by the proxy: the connection goes on ---


@kind(losses=(0, 0))
def slow(run: Run) -> None:
    for _ in range(3):
        run.proxy.set("both", delay=run.rng.uniform(0, 0.05), jitter=run.rng.uniform(0, 0.15))
        run.stir()
        run.pause(0.3)
    run.records(20)
    run.proxy.heal()


@kind(losses=(0, 0))
def narrow(run: Run) -> None:
    run.proxy.set("down", bandwidth=run.rng.uniform(15_000, 100_000))
    run.stir()
    run.pause(0.6)
    run.records(20)
    run.proxy.heal()


@kind(losses=(0, 0))
def merged(run: Run) -> None:
    run.proxy.set("both", merge=run.rng.uniform(0.01, 0.25))
    run.stir()
    run.records(200)
    run.proxy.heal()


@kind(losses=(0, 0))
def every_byte_alone(run: Run) -> None:
    run.proxy.set("both", split=1)
    run.stir()
    run.records(300)
    run.proxy.heal()


@kind(losses=(0, 0))
def split_anywhere(run: Run) -> None:
    sizes = [run.rng.choice((1, 2, 3, 7, 60, 500)) for _ in range(run.rng.randint(1, 9))]
    run.proxy.set("both", split=sizes, pause=run.rng.choice((0.0, 0.0, 0.0002)))
    run.stir()
    run.records(300)
    run.proxy.heal()


@kind(losses=(1, ANY), stales=(0, ANY), once=False)
def corrupted(run: Run) -> None:
    run.proxy.set("down", corrupt_rate=10 ** run.rng.uniform(-4, -1.5))
    run.pause(0.8)
    run.proxy.heal()
    run.returned()
    run.proxy.close()
    run.back()


@kind(losses=(1, ANY))
def weather(run: Run) -> None:
    """Everything at once, again and again."""
    run.returned()
    for _ in range(run.rng.randint(2, 5)):
        run.proxy.set("both", **run.rng.choice(WEATHER))
        run.stir()
        run.pause(0.2)
        if run.rng.random() < 0.5:
            run.proxy.set("both", **run.rng.choice(WEATHER))
        run.rng.choice((run.proxy.reset, run.proxy.close))()
    run.proxy.heal()
    run.returned()
    run.proxy.reset()
    run.back()


WEATHER: list[dict[str, Any]] = [
    {"delay": 0.02, "jitter": 0.05},
    {"split": 1},
    {"split": (1, 50)},
    {"merge": 0.05},
    {"bandwidth": 30_000.0},
    {"truncate": 700, "abrupt": True},
    {"truncate": 5000},
]


# --- by the simulator: the connection ends ---


@kind()
def server_resets(run: Run) -> None:
    run.fault("reset", after=run.rng.randrange(20))
    run.lost_and_back()


@kind()
def server_says_goodbye(run: Run) -> None:
    run.fault("close", code=run.rng.choice((0, 1000, 1001, 1011, 1012, 3000, 4999)), reason="moving")
    run.lost_and_back()


@kind()
def server_says_goodbye_wrongly(run: Run) -> None:
    run.fault("invalid_close", how=run.rng.choice(("one_byte", "code", "utf8", "long", "fragment")))
    run.lost_and_back()


@kind()
def evicted(run: Run) -> None:
    text = run.rng.choice(("-1#账户连接数已达并发上限", "-1#连接已在别处建立"))
    run.fault("evict", text=text, close=run.rng.random() < 0.5)
    run.lost_and_back()
    assert run.feed.stats()["evictions"] == 1
    assert text in run.texts
    assert text in run.spans[0].reason


@kind()
def cut_in_a_frame(run: Run) -> None:
    run.fault("cut", how=run.rng.choice(("close", "reset")), after=run.rng.randrange(20))
    run.lost_and_back()


@kind()
def reserved_bits(run: Run) -> None:
    run.fault("rsv", bits=run.rng.randint(1, 7), after=run.rng.randrange(20))
    run.lost_and_back()


@kind()
def oversize_frame(run: Run) -> None:
    run.fault("oversize", size=1 << run.rng.randint(24, 62), after=run.rng.randrange(20))
    run.lost_and_back()


# --- by the simulator: and can't be made again at once ---


@kind()
def server_is_down(run: Run) -> None:
    down = run.sim.fault("down", cut=True)
    run.gone()
    run.stir()
    run.pause(1)
    run.returned()
    run.sim.clear(down)
    run.back()


@kind(way="server", losses=(2, 2), history=1 << 13)
def server_dies_and_sends_its_day_again(run: Run) -> None:
    """What it sends first is known already."""
    seed = ("--seed", str(run.rng.randrange(1000)), *OPTIONS)
    first = run.simulator(*seed)
    losses = run.losses
    run.proxy.reset()
    run.gone(losses + 1)
    head = run.feed.trades.head
    run.back_again()
    run.records(200)
    first.process.kill()
    run.gone(losses + 2)
    known = run.feed.trades.copy_since(head)[0]
    run.stir()
    wanted = [name.removeprefix("lv2_").encode() for name in run.feed.subscriptions]
    again = np.isin(known["code"], wanted).sum()  # what is not wanted any more does not come again
    run.simulator(*seed)
    run.back_again()
    run.wait(lambda: int(run.feed.stats()["duplicates"]) >= min(20, again // 2), "trades that are known")
    latest = known["time"].max(initial=0)
    run.wait(lambda: run.feed.trades.copy_since(run.feed.trades.head - 1)[0]["time"].max() > latest, "new trades")


def handshakes(name: str, **parameters: Any) -> None:
    def fault(run: Run) -> None:
        each = {key: run.rng.choice(values) for key, values in parameters.items()}
        run.fault(name, count=run.rng.randint(1, 3), **each)
        run.proxy.reset()
        run.gone()
        run.stir()
        run.back_in_the_end()

    fault.__name__ = name
    kind(tedious=True)(fault)


handshakes("handshake_status", status=(400, 404, 429, 500, 503, 302))
handshakes("handshake_hang")
handshakes("handshake_drop")


def allocations(name: str, **parameters: Any) -> None:
    def fault(run: Run) -> None:
        each = {key: run.rng.choice(values) for key, values in parameters.items()}
        run.fault(name, count=run.rng.randint(1, 3), **each)
        run.proxy.reset()
        run.gone()
        run.stir()
        run.back_in_the_end()

    fault.__name__ = name
    kind(way="allocation", tedious=True)(fault)


allocations("allocation_refuse", code=("-1", "7"), message=("服务器繁忙", "请求过于频繁"))
allocations("allocation_status", status=(302, 404, 500, 502, 503))
allocations(
    "allocation_body", body=("", "<html>bad gateway</html>", "[]", "{}", '{"code":"0"}', '{"code":"0","server":""}')
)
allocations("allocation_huge")
allocations("allocation_slow", delay=(1.0, 2.0), drip=(False, True))
allocations("allocation_hang")
allocations("allocation_drop")
allocations("allocation_unknown_host")
allocations("allocation_dead", how=("refused", "silent"))
allocations("allocation_address", server=("ws://:port", "ws://", "://", "ws://1.2.3.4:99999"))


@kind(losses=(2, ANY))
def too_many_connections(run: Run) -> None:
    """The server takes the connection that was lost for alive, and allows no second one."""
    quota = run.sim.fault("quota", limit=1, over_limit="refuse")
    run.proxy.reset("client")
    run.gone(2)
    run.stir()
    run.pause(0.5)
    run.returned()
    run.sim.clear(quota)
    run.back()
    assert run.feed.stats()["evictions"] == 0
    assert run.feed.stats()["refusals"] == run.losses - 1
    run.proxy.heal()


# --- by the simulator: silence ---


@kind(stales=(1, 1))
def server_is_half_open(run: Run) -> None:
    run.settle()
    run.fault("half_open")
    run.lost_and_back()


@kind(stales=(1, 1))
def server_stalls(run: Run) -> None:
    run.settle()
    run.fault("stall", answers=run.rng.random() < 0.5)
    run.lost_and_back()


@kind(losses=(1, ANY), stales=(1, 1))
def server_stalls_again_and_again(run: Run) -> None:
    """New connections are silent too: all of it is one outage, told once."""
    run.settle()
    stall = run.sim.fault("stall", count=0, answers=run.rng.random() < 0.5)
    run.gone()
    run.stir()
    time.sleep(run.rng.uniform(1.5, 3))
    run.sim.clear(stall)
    run.settle()


@kind(stales=(1, 1))
def silent_in_a_frame(run: Run) -> None:
    run.settle()
    run.fault("cut", how="silent", after=run.rng.randrange(20))
    run.lost_and_back()


# --- by the simulator: the connection goes on ---


def contents(name: str, once: bool = True, needs: Sequence[str] = (), **parameters: Any) -> None:
    def fault(run: Run) -> None:
        each = {key: run.rng.choice(values) for key, values in parameters.items()}
        times = {"probability": run.rng.uniform(0.02, 1), "count": run.rng.randint(1, 10)}
        number = run.sim.fault(name, seed=run.rng.randint(1, 1 << 30), **(times | each))
        run.stir()
        run.feed.subscribe(needs)
        run.wait(lambda: next(f for f in run.sim.faults()["faults"] if f["id"] == number)["happened"], name)
        run.records(100)
        run.sim.clear(number)

    fault.__name__ = name
    kind(losses=(0, 0), once=once)(fault)


contents("fragments", pieces=(2, 3, 50), pings=(0, 1, 3))
contents("split", at=("every", "next", "random"), pause=(0.0, 0.0001))
contents("truncated")
contents("trailing_bytes", size=(1, 4, 1000))
contents("gzip", form=("gzip", "zlib"))
contents("huge", size=(10_000, 100_000), once=False, count=(1, 2))
contents("bomb", size=(1 << 20, 1 << 23, (1 << 23) + 1, 1 << 26), count=(1, 2))
contents("crlf")
contents("newline")
contents("field_count", by=(-3, -1, 1, 2))
contents("empty_field")
SNAPSHOTS = ("lv1_600519", "lv10_600519")
contents("repeat_snapshot", needs=SNAPSHOTS, times=(1, 3), probability=(1.0,), count=(1, 2))
contents("stale_snapshot", needs=SNAPSHOTS, instead=(False, True), probability=(1.0,), count=(1, 2))
contents("duplicate_trade", later=(0, 1, 20), once=False)
contents("missing_trade")
contents("late_trade", later=(1, 3, 20))
contents("clock_skew", shift=(-600.0, -1.5, 2.0, 40.0))
contents("midnight", before=(0.0, 1.0))


@kind(losses=(0, 0))
def day_change(run: Run) -> None:
    run.fault("day_change", days=run.rng.randint(1, 3))
    run.records(100)


@kind(losses=(0, 0))
def notices(run: Run) -> None:
    """Texts that are no complaint."""
    for text in ("-3#系统维护", "hello", "0#", "#", "-1", ""):
        run.fault("text", text=text)
    run.records(20)


# --- the runs ---


def play(name: str, seed: int, sim: Simulator, draws: Draws, long: bool) -> Figures:
    """One run; an AssertionError says how to have it again."""
    what = KINDS[name]
    defaults = seed % WITH_DEFAULTS == 0 and (long or not what.tedious)
    settings = DEFAULTS if defaults else QUICK
    try:
        with Run(sim, draws, f"{name}/{seed}", settings=settings, way=what.way, history=what.history) as run:
            try:
                what.fault(run)
                run.finish()
            except AssertionError:
                if len(run.stales) > what.stales[1]:
                    run.check_silences(*what.stales)  # where the machine was too busy, nothing else can be said
                raise
            if what.stales[1] < ANY:
                run.check_silences(*what.stales)
            assert what.losses[0] <= run.losses - 1 <= what.losses[1], run  # one more by stop()
            if what.once:
                run.check_trades_once()
            return run.figures
    except BaseException as error:
        error.add_note(f"play({name!r}, {seed}) with {'the defaults' if defaults else 'QUICK'}")
        raise


class Crew:
    """Runs on a few threads, each with a simulator of its own."""

    def __init__(self, long: bool) -> None:
        self._long = long
        self._sims: Queue[Simulator] = Queue()
        self._all: list[Simulator] = []
        self._pool = ThreadPoolExecutor(WORKERS)
        self._draws = Draws()
        self.runs: dict[str, dict[int, Future[Figures]]] = {}
        self.starved: list[str] = []

    def __enter__(self) -> "Crew":
        self._draws.__enter__()
        for number in range(WORKERS):
            self._all.append(Simulator("--seed", str(number + 1), *OPTIONS))
            self._sims.put(self._all[-1])
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._draws.__exit__(None, None, None)
        for sim in self._all:
            sim.__exit__(None, None, None)

    def submit(self, name: str, seeds: list[int]) -> None:
        self.runs[name] = {seed: self._pool.submit(self._play, name, seed) for seed in seeds}

    def _play(self, name: str, seed: int) -> Figures:
        sim = self._sims.get()
        try:
            for again in range(STARVED, -1, -1):
                try:
                    return play(name, seed, sim, self._draws, self._long)
                except StarvedError as error:
                    self.starved.append(f"play({name!r}, {seed}): {error}")
                    if not again:
                        raise
            raise AssertionError
        finally:
            self._sims.put(sim)


@pytest.fixture(scope="module")
def crew(request: pytest.FixtureRequest, long: bool) -> Iterator[Crew]:
    """All runs of the tests that were chosen are under way."""
    rng = random.Random(request.config.getoption("--share-seed"))
    chosen = {item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")}
    with Crew(long) as crew:
        for name in KINDS:
            seeds = list(SEEDS) if long else sorted(rng.sample(SEEDS, SHARE))
            if name in chosen:
                crew.submit(name, seeds)
        yield crew


def test_a_feed_that_is_down_is_not_busy(long: bool) -> None:
    """All of this process, the threads that ask for an allocation included. The feeds have their default settings."""
    seconds = 30.0 if long else 4.0
    with Simulator(*OPTIONS) as sim, Proxy(sim.ws) as one, Proxy(sim.ws) as other, Proxy(sim.ws) as third:
        with Proxy(other.http) as front:
            wheres: list[dict[str, Any]] = [
                {"server": one.ws},
                {"allocation": front.address},
                {"allocation": third.http},
            ]
            more: dict[str, Any] = {"clock": "always", "capacity": 1024}
            feeds = [jvq.Feed(TOKEN, "lv2_600519", **more, **where) for where in wheres]
            try:
                for feed in feeds:
                    feed.start()
                for feed in feeds:
                    deadline = time.monotonic() + WAIT
                    while not feed.trades.head:
                        assert time.monotonic() < deadline, feed
                        assert not feed.join(0.01)
                one.refuse()
                front.refuse()
                third.half_open()
                for proxy in (one, other):
                    proxy.reset()
                third.reset()
                time.sleep(0.5)
                began, cpu = time.monotonic(), time.process_time()
                time.sleep(seconds)
                share = (time.process_time() - cpu) / (time.monotonic() - began)
                assert not any(feed.connected for feed in feeds)
            finally:
                for feed in feeds:
                    feed.stop()
                for feed in feeds:
                    assert feed.join(WAIT)
    assert share < BUSY * len(feeds)


@pytest.mark.parametrize("name", KINDS)
def test_the_feed_comes_through(name: str, crew: Crew) -> None:
    failed = []
    for seed, future in crew.runs[name].items():
        try:
            future.result(10 * WAIT)
        except Exception as error:
            failed.append((seed, error))
    if failed:
        seed, first = failed[0]
        story = "".join(traceback.format_exception(first))
        pytest.fail(
            f"{len(failed)} of {len(crew.runs[name])} runs, the first with seed {seed}:\n{story}", pytrace=False
        )


def test_it_is_back_in_time_and_was_not_busy(crew: Crew, long: bool) -> None:
    """Over all runs. What a loaded machine adds must not fail a default run."""
    figures = [
        future.result(10 * WAIT)
        for runs in crew.runs.values()
        for future in runs.values()
        if future.exception(10 * WAIT) is None
    ]
    found = describe(figures)
    print(f"\n{found}, starved and repeated: {crew.starved}")
    assert found["gaps"] >= len(figures) / 3
    assert found["late_p99"] < (LATE if long else 10 * LATE)
    assert found["cpu_while_down"] < BUSY
