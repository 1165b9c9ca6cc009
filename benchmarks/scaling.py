"""What storing costs with many codes, and whether anything grows with the number of records.

    python -m benchmarks.scaling [--rounds N] [--json FILE]

Messages of one row with two trades, codes in random order:

- ``jvq_fast``       ``Decoder.decode``, no callbacks, histories reserved beforehand and full
- ``C loop``         the stores of the same records in the same order, and nothing else

both also with histories off, by turns in one process on one core, nanoseconds per record. The difference is what the
histories cost, by which the two are compared: inflating and parsing are the same with and without.

Then resident memory, and with valgrind (Debian: valgrind) instructions per record, after 10⁶ and after 10⁸ records; and
what a ``Meter`` adds to the instructions of a message with a handler. There the clock is read by a system call, which
counts for less than the reading without one. 5,000 codes take 1.5 GB.
"""

import ctypes
import itertools
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

import jvq_fast as jvq
from benchmarks.libraries import FLAGS, NATIVE, ROOT, compiler
from benchmarks.machine import facts, one_core
from benchmarks.rounds import quartiles, read_options, write

CODES = (1, 100, 1000, 5000)
AFTER = (10**6, 10**8)  # records, of few codes
FEW = 10
TRADES = 2  # of a message
MESSAGES = 100_000  # of a round, so that a cold start does not count
CAPACITY, HISTORY = 65536, 1024
CACHE_LINE = 64
ADVANCED_BY = 512  # trades of a message that is decoded for its number of records
DAY = "2026-11-23"
RECV = 1_795_400_000_000_000_000
SEED = 20261123
WARM_UP = 3  # rounds
OURS, PEER = "jvq_fast", "C loop"
OFF = ", histories off"


class Ring(ctypes.Structure):
    """What native/stores.c stores into."""

    _fields_ = (("storage", ctypes.c_void_p), ("capacity", ctypes.c_size_t), ("next", ctypes.c_size_t))


class Stores:
    """The C loop with rings of its own; their memory comes from where the decoder's does."""

    def __init__(self, library: ctypes.CDLL, codes: int, histories: bool) -> None:
        self._store = library.store
        self._memory: list[Any] = []
        self._made = ctypes.create_string_buffer(8 * CACHE_LINE)
        self._tape = self._ring(CAPACITY)
        self._histories = (Ring * codes)(*(self._ring(HISTORY) for _ in range(codes))) if histories else None

    def _ring(self, records: int) -> Ring:
        memory = np.zeros(2 * records * CACHE_LINE + CACHE_LINE, np.uint8)
        memory.fill(0)  # touched, as the decoder's
        self._memory.append(memory)
        return Ring(-(-memory.ctypes.data // CACHE_LINE) * CACHE_LINE, records, 0)

    def __call__(self, codes: Any, records: int) -> None:
        """So many records of each of the codes."""
        address, count = ctypes.c_void_p(codes.ctypes.data), ctypes.c_size_t(len(codes))
        tape = ctypes.byref(self._tape)
        self._store(self._made, tape, self._histories, address, count, ctypes.c_size_t(records))


def compiled(name: str, folder: Path) -> Path | None:
    """A library of native/, compiled as the package is; None where what it includes is not here."""
    library = folder / f"{name}.so"
    command = [*compiler(), *FLAGS, "-fvisibility=default", "-shared", f"-I{ROOT / 'jvq_fast' / 'include'}"]
    done = subprocess.run([*command, str(NATIVE / f"{name}.c"), "-o", str(library)], capture_output=True, check=False)
    return None if done.returncode else library


def resident() -> int:
    """Bytes of memory that this process has; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGESIZE") if statm.exists() else 0


def deflate(text: str) -> bytes:
    machine = zlib.compressobj(6, zlib.DEFLATED, -15)
    return machine.compress(text.encode()) + machine.flush()


def book(count: int) -> list[str]:
    """So many codes."""
    return [f"{600000 + 7 * i:06d}" for i in range(count)]


def message(code: str, rng: random.Random) -> bytes:
    """Two trades of one moment."""
    seconds, milliseconds = divmod(rng.randrange(60_000), 1000)
    time, number = f"09:30:{seconds:02d}.{10 * (milliseconds // 10):03d}", rng.randrange(10**6, 10**7)
    price = f"{rng.randrange(300, 60_000) / 100:.2f}"
    trades = (f"{time},{number + i},{price},{100 * rng.randrange(1, 20)}" for i in range(TRADES))
    return deflate(f"lv2_{code}=" + "|".join(trades))


def reserved(codes: Sequence[str], history: int = HISTORY) -> jvq.Decoder:
    decoder = jvq.Decoder(capacity=CAPACITY, history=history, trading_day=DAY, clock="always")
    decoder.reserve([f"lv2_{code}" for code in codes])
    return decoder


def fillers(codes: Sequence[str], records: Sequence[int]) -> Iterator[bytes]:
    """Messages with so many records of each code: easily inflated, and all of one trade."""
    for code, count in zip(codes, records, strict=True):
        for begun in range(0, count, ADVANCED_BY):
            trades = min(count - begun, ADVANCED_BY)
            yield deflate(f"lv2_{code}=" + "|".join(["09:30:00.000,1,10.00,100"] * trades))


def advance(decoder: jvq.Decoder, codes: Sequence[str], records: int) -> None:
    """On to so many records in all, those of all codes alike."""
    missing = records - decoder.trades.head
    messages = list(fillers(codes, [ADVANCED_BY] * len(codes)))
    for each in itertools.islice(itertools.cycle(messages), max(0, missing // ADVANCED_BY)):
        decoder.decode(each, RECV)


def measure(library: Path, count: int, rounds: int) -> dict[str, Any]:
    """With so many codes: nanoseconds per record of all contenders, of the histories alone, and memory."""
    rng = random.Random(SEED)
    names = book(count)
    order = rng.choices(range(count), k=MESSAGES)
    payloads = [message(names[i], rng) for i in order]
    before = resident()
    kept = reserved(names)
    memory = {"nbytes": kept.nbytes, "resident": resident() - before if before else None}
    tape = reserved(names, 0)
    loaded = ctypes.CDLL(str(library))
    stores, tape_stores = Stores(loaded, count, True), Stores(loaded, count, False)
    # Full, and every history at another place, so that their last halves do not move at the same time.
    begun = [2 * HISTORY + rng.randrange(HISTORY) for _ in range(count)]
    for filler in fillers(names, begun):
        kept.decode(filler, RECV)
        tape.decode(filler, RECV)
    for contender in (stores, tape_stores):
        contender(np.repeat(np.arange(count, dtype=np.uint32), begun), 1)
    codes = np.array(order, np.uint32)

    def decode(decoder: jvq.Decoder) -> None:
        for payload in payloads:
            decoder.decode(payload, RECV)

    running: dict[str, Callable[[], None]] = {
        OURS: lambda: decode(kept),
        OURS + OFF: lambda: decode(tape),
        PEER: lambda: stores(codes, TRADES),
        PEER + OFF: lambda: tape_stores(codes, TRADES),
    }
    taken: dict[str, list[float]] = {name: [] for name in running}
    with one_core():
        for turn in range(WARM_UP + rounds):
            for name, run in running.items():
                start = time.perf_counter_ns()
                run()
                elapsed = time.perf_counter_ns() - start
                if turn >= WARM_UP:
                    taken[name].append(elapsed / MESSAGES / TRADES)
    for name in (OURS, PEER):
        pairs = zip(taken[name], taken[name + OFF], strict=True)
        taken[name + ", histories"] = [on - off for on, off in pairs]
    contenders = {}
    for name, values in taken.items():
        low, middle, high = quartiles(values)
        contenders[name] = {"record_ns": middle, "low_ns": low, "high_ns": high}
    ratio = contenders[OURS + ", histories"]["record_ns"] / contenders[PEER + ", histories"]["record_ns"]
    return {"contenders": contenders, "histories_ratio": ratio, "memory": memory}


def growth(after: Sequence[int]) -> list[int]:
    """Resident bytes after so many records, of which the first number is taken for warm."""
    codes = book(FEW)
    decoder = reserved(codes)
    sizes = []
    for records in after:
        advance(decoder, codes, records)
        sizes.append(resident())
    return sizes


def alone(function: Callable[..., Any], *arguments: object) -> Any:
    """Its result, of a process of its own: what others took and gave back would spoil its memory."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def counts(folder: Path, after: Sequence[int]) -> dict[str, float]:
    """Instructions per record or message by what was counted, see counted.py; nothing where valgrind is not here."""
    valgrind, library = shutil.which("valgrind"), compiled("count", folder)
    if valgrind is None or library is None:
        return {}
    options = ("--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder / 'callgrind'}")
    done = subprocess.run(
        [valgrind, *options, sys.executable, "-m", "benchmarks.counted", str(library), *map(str, after)],
        cwd=ROOT, capture_output=True, text=True, timeout=3600, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"callgrind: {done.stderr[-2000:]}")
    units = {name: int(number) for number, _, name in (line.partition(" ") for line in done.stdout.splitlines())}
    found = {}
    for dump in folder.glob("callgrind.*"):
        text = dump.read_text()
        name = re.search(r"^desc: Trigger: Client Request: (.+)$", text, re.MULTILINE)
        total = re.search(r"^totals: (\d+)$", text, re.MULTILINE)
        if name and total:
            found[name[1]] = int(total[1]) / units[name[1]]
    return found


def describe(count: int, memory: dict[str, Any]) -> str:
    grown = "" if memory["resident"] is None else f", resident memory grew by {memory['resident'] / 1e6:.0f} MB"
    return f"{count:,} code{'s' * (count > 1)}: {memory['nbytes'] / 1e6:.0f} MB of rings{grown}"


def line(name: str, value: dict[str, float]) -> str:
    return f"  {name:24}{value['record_ns']:8.1f} ({value['low_ns']:.1f}–{value['high_ns']:.1f})"


def after(records: int) -> str:
    return f"after {records:,}"


def metered(counted: dict[str, float]) -> dict[str, Any]:
    """What a Meter costs a message of two trades with a handler; prints it."""
    message, plain = counted["handler and meter"], counted["handler"]
    # the delay of trades that have one time, the dispatch, the call
    histograms = 3 * (counted["histogram"] - counted["its loop"])
    print(
        f"{TRADES} trades, a handler and a Meter: {message:,.0f} instructions per message; "
        f"the Meter {message - plain:.0f} ({(message - plain) / message:.1%}), "
        f"of these its histograms {histograms:.0f} ({histograms / message:.1%})"
    )
    instructions = {"message": message, "without_meter": plain, "histograms": histograms}
    return {"shape": "metered", "instructions": instructions}


def main(arguments: Sequence[str] | None = None) -> int:
    options = read_options(__doc__, 21, arguments)
    machine = facts("numpy")
    print(f"Python {machine['python']}, {machine['cpu'] or machine['system']}, {machine['cores']} cores")
    print(f"ns per record, median of {options.rounds} rounds (middle half)\n")
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = compiled("stores", folder)
        if library is None:
            raise SystemExit("the C loop can't be compiled")
        for count in CODES:
            taken = alone(measure, library, count, options.rounds)
            print(describe(count, taken["memory"]))
            print(*(line(*each) for each in taken["contenders"].items()), sep="\n")
            print(f"  histories: {taken['histories_ratio']:.2f} × the C loop's", flush=True)
            results.append({"shape": f"{count} codes", "codes": count, **taken})

        sizes = alone(growth, AFTER)
        counted = counts(folder, AFTER)
    print()
    if not counted:
        print("without instructions: valgrind and its headers are not here (Debian: valgrind)")
    for records, size in zip(AFTER, sizes, strict=True):
        found = {"instructions": counted.get(after(records)), "resident": size or None}
        told = [f"{found['instructions']:,.2f} instructions per record"] if counted else []
        told += [f"{size / 1e6:,.1f} MB resident"] if size else []
        print(f"{after(records)} records: {', '.join(told)}")
        results.append({"shape": f"after {records} records", "records": records, **found})
    if counted:
        results.append(metered(counted))
    write(options, machine, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
