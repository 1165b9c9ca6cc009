"""A generator, a client, and a core for each: what `benchmarks.latency` and `benchmarks.throughput` are made of."""

import argparse
import importlib.metadata
import json
import select
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.client import CLIENTS
from benchmarks.libraries import FLAGS, LIBRARIES, NATIVE, ROOT, compiler, run_compiler, versions
from benchmarks.machine import cores, facts, one_core
from benchmarks.rounds import above_zero
from benchmarks.shapes import Shape, shapes

OURS = "jvq_fast"
SINK = "sink"
BEAST = {"beast-sleeping": "sleeping", "beast-spinning": "spinning"}
BEAST_FLAGS = ["-O3", "-std=c++17", "-ffp-contract=off"]
WAIT = 60.0  # seconds for what takes next to none


class Stream:
    """Messages that are sent again and again, and what a client must find in them."""

    def __init__(self, payloads: Sequence[bytes]) -> None:
        self.payloads = payloads
        texts = [zlib.decompress(payload, -zlib.MAX_WBITS) for payload in payloads]
        names = {row.partition(b"=")[0].decode() for text in texts for row in text.split(b"\n")}
        self.subscription = ",".join(sorted(names))
        self._rows = np.array([text.count(b"=") for text in texts])
        self._trades = self._rows + [text.count(b"|") for text in texts]
        self._prices = [float(text.rsplit(b",", 2)[1]) for text in texts]

    def write(self, path: Path) -> None:
        """As the generator reads it."""
        path.write_bytes(b"".join(struct.pack("=I", len(payload)) + payload for payload in self.payloads))

    def rows(self, count: int) -> Any:
        """The rows of each of the first `count` messages."""
        return np.resize(self._rows, count)

    def trades(self, count: int) -> int:
        """All trades of the first `count` messages."""
        return int(np.resize(self._trades, count).sum())

    def price(self, count: int) -> float:
        """The last of the first `count` messages."""
        return self._prices[(count - 1) % len(self._prices)]


@dataclass(frozen=True)
class Run:
    """What came of one client.

    `sent` and `found` are what the generator and the client report of themselves. `lost` is how many trades did not
    arrive, or calls of the callback where the client does not count trades. `ends` and `lags` have a value for each
    measured message, in ns: the end of the callback of its last row, monotonic, and how long after it was sent that was
    (where the generator goes by the clock). Both are empty where anything was lost.
    """

    sent: dict[str, Any]
    found: dict[str, Any]
    lost: int
    ends: Any
    lags: Any

    @property
    def messages(self) -> int:
        """How many were measured."""
        return int(self.sent["sent"] - self.sent["warm_up"])

    @property
    def seconds(self) -> float:
        """From the first to the last of them."""
        return float(self.ends[-1] - self.ends[0]) / 1e9 if len(self.ends) else float(self.found["wall_s"])

    @property
    def cpu(self) -> float:
        """The client's, seconds a second."""
        return float(self.found["cpu_s"] / self.found["wall_s"])


class Loopback:
    """The programs, compiled into a folder, and runs of them."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._folder = folder
        self._stream: Stream | None = None
        for name in ("generator", SINK):
            run_compiler(*FLAGS, str(NATIVE / f"{name}.c"), "-o", self._path(name))
        if BEAST.keys() & set(names):
            include = f"-I{ROOT / 'jvq_fast' / 'include'}"
            parser = self._path("reference.o")
            run_compiler(*FLAGS, include, "-c", str(NATIVE / "reference.c"), "-o", parser)
            sources = [str(NATIVE / "beast.cpp"), parser]
            run_compiler(*BEAST_FLAGS, include, *sources, "-ldeflate", "-o", self._path("beast"), plus=True)

    def run(self, name: str, stream: Stream, mode: str, *numbers: float) -> Run:
        """One client takes the stream from a generator in that mode. What fails or hangs ends the program."""
        if self._stream is not stream:
            stream.write(self._folder / "messages")
            self._stream = stream
        for each in ("stamps", "ends"):
            (self._folder / each).write_bytes(b"")
        arguments = [self._path("messages"), mode, *map(str, numbers)]
        if mode == "open-loop":
            arguments.append(self._path("stamps"))
        with one_core(0):
            generator = start(self._path("generator"), *arguments)
        try:
            port = first_line(generator)
            with one_core(-1):
                client = start(*self._command(name, port, stream))
            try:
                found = finish(client, name)
            finally:
                stop(client)
            sent = finish(generator, "the generator")
        finally:
            stop(generator)
        return self._judged(name, stream, sent, found)

    def _path(self, name: str) -> str:
        return str(self._folder / name)

    def _command(self, name: str, port: str, stream: Stream) -> list[str]:
        if name == SINK:
            return [self._path(SINK), port]
        python = [sys.executable, "-m", "benchmarks.client", name]
        program = [self._path("beast"), BEAST[name]] if name in BEAST else python
        return [*program, port, self._path("ends"), stream.subscription]

    def _judged(self, name: str, stream: Stream, sent: dict[str, Any], found: dict[str, Any]) -> Run:
        stamps, ends = (np.fromfile(self._folder / each, np.int64) for each in ("stamps", "ends"))
        count = sent["sent"]
        if name == SINK or not count:
            return Run(sent, found, 0, ends, stamps)
        by_row = name in CLIENTS and CLIENTS[name].by_row
        calls = np.cumsum(stream.rows(count)) if by_row else np.arange(1, count + 1)
        trades = stream.trades(count)
        lost = max(trades - found.get("trades", trades), int(calls[-1]) - len(ends))
        if len(ends) != calls[-1]:
            return Run(sent, found, lost, ends[:0], ends[:0])
        if found["price"] != stream.price(count):
            raise SystemExit(f"{name} takes {found['price']} for the last price, which is {stream.price(count)}")
        ends = ends[calls - 1]
        lags = ends - stamps if len(stamps) else stamps
        return Run(sent, found, lost, ends[sent["warm_up"] :], lags[sent["warm_up"] :])


def start(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def first_line(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    if not select.select([program.stdout], [], [], WAIT)[0]:
        raise SystemExit("the generator does not begin")
    line = program.stdout.readline().strip()
    if not line:
        finish(program, "the generator")
    return line


def finish(program: subprocess.Popen[str], name: str) -> dict[str, Any]:
    """What a program reports that ends in time and without an error."""
    try:
        out, err = program.communicate(timeout=2 * WAIT)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"{name} does not end") from None
    if program.returncode:
        raise SystemExit(f"{name} failed ({program.returncode}): {err.strip()[-2000:]}")
    report: dict[str, Any] = json.loads(out)
    return report


def stop(program: subprocess.Popen[str]) -> None:
    """End it, if it has not ended."""
    program.kill()
    with suppress(subprocess.TimeoutExpired):
        program.communicate(timeout=WAIT)


def packets() -> tuple[Shape, Stream]:
    """Real packets of one stock, of one row each."""
    (each,) = shapes(only="lv2, real packets of 600519")
    return each, Stream(each.payloads)


def add_options(parser: argparse.ArgumentParser) -> None:
    """``peers`` and ``seconds``."""
    peers = [*(name for name in CLIENTS if name != OURS), *BEAST]
    parser.add_argument(
        "--peers", nargs="+", metavar="NAME", choices=peers, default=peers,
        help=f"who is measured beside {OURS}, all by default: {' '.join(peers)}",
    )  # fmt: skip
    parser.add_argument("--seconds", type=above_zero, default=3.0, help="how long each run lasts (default 3)")


def present(peers: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Who of us and the peers can run here, and the machine. Prints both, and what is missing."""
    found = versions()
    lacking = {name: beast_lacks(found) if name in BEAST else package_lacks(CLIENTS[name].package) for name in peers}
    names = [OURS, *(name for name in peers if not lacking[name])]
    packages = {CLIENTS[name].package for name in names if name in CLIENTS} | {"numpy", "uvloop"}
    machine = facts(*sorted(each for each in packages if not package_lacks(each)))
    machine["compiler"] = found["compiler"]
    if BEAST.keys() & set(names):
        machine |= {"libdeflate": found["libdeflate"], "Boost": boost()}
        machine["C++ compiler"] = run_compiler("--version", plus=True).partition("\n")[0]
    print(f"Python {machine['python']}, {machine['cpu'] or machine['system']}, {machine['cores']} cores")
    shown = [name for name in (*sorted(packages), "Boost", "libdeflate") if name in machine]
    print(", ".join(f"{name} {machine[name]}" for name in shown))
    for name, why in lacking.items():
        if why:
            print(f"without {name}: {why}")
    if package_lacks("uvloop"):
        print("without uvloop, all run on asyncio (pip install uvloop)")
    if len(cores()) < 2:
        print("one core for generator and client: what is measured is how they take turns")
    return names, machine


def package_lacks(package: str) -> str:
    """Why a client can't run that needs this package; empty where it can."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return f"it is not installed (pip install {package})"
    return ""


def boost() -> str:
    """Its version; empty where it is not here."""
    header = "boost/version.hpp"
    text = f"#if __has_include(<{header}>)\n#include <{header}>\nfound BOOST_LIB_VERSION\n#endif\n"
    return run_compiler("-E", "-P", "-x", "c++", "-", text=text, plus=True).partition("found ")[2].strip(' "\n')


def beast_lacks(found: dict[str, str]) -> str:
    """Why the C++ client can't be compiled, with these libraries found; empty where it can."""
    if not shutil.which(compiler(plus=True)[0]):
        return "no C++ compiler (Debian: apt-get install g++)"
    packages = [] if boost() else ["libboost-dev"]
    if "libdeflate" not in found:
        packages.append(LIBRARIES["libdeflate"].package)
    return f"its headers are not here (Debian: apt-get install {' '.join(packages)})" if packages else ""
