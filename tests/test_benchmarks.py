"""The benchmarks run, what they write says what was measured, and what they are measured against reads right."""

import ctypes
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from websockets.sync.client import connect

from oracle import COLUMNS, LAYOUT, Oracle, unpack_all
from wire import MORNING, deflate, examples, texts

pytestmark = [pytest.mark.release_only, pytest.mark.skipif(os.name != "posix", reason="the C programs are POSIX's")]
needs_compiler = pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
LEVELS = {"trades": "trade", "quotes": "quote", "depths": "depth"}


@needs_compiler
def test_inflate_beside_the_libraries_that_are_here(run_python: Any, tmp_path: Path, root: Path) -> None:
    report = tmp_path / "inflate.json"
    done = run_python("-m", "benchmarks.inflate", "--rounds", "2", "--json", str(report), cwd=root, timeout=300)
    written = json.loads(report.read_text())
    assert written["rounds"] == 2
    assert written["machine"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert len(written["shapes"]) == 12
    for shape in written["shapes"]:
        assert shape["shape"] in done.stdout
        assert shape["contenders"]["jvq_fast"]["ratio"] == 1.0
        assert all(value["message_ns"] > 0 for value in shape["contenders"].values())


@needs_compiler
def test_decode_beside_everything_that_is_here(run_python: Any, tmp_path: Path, root: Path) -> None:
    report = tmp_path / "decode.json"
    arguments = ("--rounds", "2", "--shapes", "lv1, 1 row", "--compression", "all", "--json", str(report))
    done = run_python("-m", "benchmarks.decode", *arguments, cwd=root, timeout=300)
    written = json.loads(report.read_text())
    libraries = {name for name in ("zlib", "libdeflate", "ISA-L") if name in written["machine"]}
    compressions = ["6", "1", "9"]
    if shutil.which("go"):
        compressions.append("go")
    else:
        assert "without Go's compress/flate" in done.stdout
    assert [(shape["shape"], shape["compression"]) for shape in written["shapes"]] == [
        ("lv1, 1 row", compression) for compression in compressions
    ]
    for shape in written["shapes"]:
        assert shape["records_per_message"] == 1
        assert set(shape["contenders"]) == {
            "jvq_fast", "jvq_fast, handlers", "zlib, str.split", "isal, str.split", "official parser",
            "official client", *(f"C: {name}" for name in libraries),
        }  # fmt: skip
        assert shape["contenders"]["jvq_fast"]["ratio"] == 1.0
        for value in shape["contenders"].values():
            assert 0 < value["low_us"] <= value["message_us"] <= value["high_us"]
            assert value["record_ns"] == pytest.approx(value["message_us"] * 1000)
    for name in {"zlib", "libdeflate", "ISA-L"} - libraries:
        assert f"without {name}" in done.stdout


@needs_compiler
def test_latency_beside_a_peer(run_python: Any, tmp_path: Path, root: Path) -> None:
    report = tmp_path / "latency.json"
    arguments = ("--rounds", "2", "--seconds", "0.5", "--rates", "1000", "--peers", "picows", "--json", str(report))
    done = run_python("-m", "benchmarks.latency", *arguments, cwd=root, timeout=300)
    written = json.loads(report.read_text())
    assert written["machine"]["seconds"] == 0.5
    assert [each["rate"] for each in written["shapes"]] == [1000, 0]
    measured, idle = (each["contenders"] for each in written["shapes"])
    assert set(measured) == set(idle) == {"jvq_fast", "picows"}
    assert measured["jvq_fast"]["ratio"] == 1.0
    for value in measured.values():
        assert value["lost"] == 0
        assert 0 < value["p50_us"] <= value["p90_us"] <= value["p99_us"] <= value["p999_us"] <= value["max_us"]
        assert 0 < value["low_us"] <= value["high_us"]
        assert 0 < value["cpu"] < 1
    assert all(value["cpu"] >= 0 for value in idle.values())
    assert "LOST" not in done.stdout


@needs_compiler
def test_throughput_beside_a_peer(run_python: Any, tmp_path: Path, root: Path) -> None:
    report = tmp_path / "throughput.json"
    arguments = ("--rounds", "2", "--seconds", "0.5", "--open-seconds", "1", "--peers", "picows", "--json", str(report))
    done = run_python("-m", "benchmarks.throughput", *arguments, cwd=root, timeout=300)
    flood, *openings = json.loads(report.read_text())["shapes"]
    assert set(flood["contenders"]) == {"jvq_fast", "picows", "sink"}
    for value in flood["contenders"].values():
        assert 0 < value["low_s"] <= value["messages_s"] <= value["high_s"]
        assert value["lost"] == 0
    assert flood["headroom"] > 1
    assert flood["generator_measured"] == (flood["headroom"] < 3) == ("THE GENERATOR" in done.stdout)
    assert [each["shape"] for each in openings] == ["the open, in bursts", "the open, evenly"]
    for each in openings:
        (value,) = each["contenders"].values()
        assert value["published"] == value["sent"] > 500_000
        assert value["lost"] == value["seq_gap"] == 0
        assert 0 < value["p50_us"] <= value["p99_us"] <= value["max_us"]
    assert "LOST" not in done.stdout


@needs_compiler
@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler")
def test_the_client_in_cpp_takes_what_is_sent(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(root)
    from benchmarks.libraries import versions
    from benchmarks.loopback import BEAST, Loopback, beast_lacks, packets

    if lacks := beast_lacks(versions()):
        pytest.skip(lacks)
    loopback = Loopback(tmp_path, BEAST)
    _, stream = packets()
    for name in BEAST:
        run = loopback.run(name, stream, "open-loop", 10_000, 1, 0.2)
        assert run.lost == 0
        assert run.messages == len(run.lags) == 2000
        assert run.lags.min() > 0


def test_what_was_lost_and_who_falls_behind_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(root)
    from benchmarks.latency import line, summary
    from benchmarks.loopback import Run

    sent = {"sent": 1100, "warm_up": 100, "late": 0}
    found = {"wall_s": 1.0, "cpu_s": 0.5, "preempted": 0}

    def said(lost: int, lags: np.ndarray) -> str:
        value = summary([Run(sent, found, lost, lags, lags)] * 2, 1.0)
        return line("client", value | {"ratio": 1.0})

    steady = np.full(1000, 50_000)
    assert said(0, steady).split() == ["client", "50.0", "(50.0–50.0)", *["50"] * 4, "50.0%", "1.00", "×"]
    assert said(0, np.arange(1000) * 200_000).endswith("falls behind: 190 ms late at the end")
    assert said(7, steady[:0]).split() == ["client", "50.0%", "LOST", "14"]


@needs_compiler
def test_a_client_that_goes_away_ends_the_generator(root: Path, tmp_path: Path) -> None:
    program, messages = tmp_path / "generator", tmp_path / "messages"
    source = root / "benchmarks" / "native" / "generator.c"
    subprocess.run(["cc", "-std=c11", "-O2", str(source), "-o", str(program)], check=True, timeout=60)
    messages.write_bytes(struct.pack("=I", 5) + b"hello")
    command = [str(program), str(messages), "flood", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as generator:
        try:
            assert generator.stdout is not None
            port = int(generator.stdout.readline())
            with connect(f"ws://127.0.0.1:{port}", compression=None, proxy=None) as client:
                client.ping().wait(20)
                client.send("add=lv2_600519")
                assert client.recv(20) == b"hello"
                client.socket.shutdown(socket.SHUT_RDWR)
            assert "the client went away" in generator.communicate(timeout=20)[1]
            assert generator.returncode == 1
        finally:
            generator.kill()


@pytest.fixture(scope="module")
def reference(root: Path, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root)
        from benchmarks.libraries import NATIVE, compile_with
    path = tmp_path_factory.mktemp("reference") / "reference.so"
    compile_with({}, [NATIVE / "reference.c"], path, "-shared", "-fvisibility=default")
    code = ctypes.CDLL(str(path))
    code.reference_new.restype = ctypes.c_void_p
    code.reference_parse.restype = ctypes.c_size_t
    code.reference_parse.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int64]
    for name in LEVELS.values():
        last = getattr(code, f"reference_last_{name}")
        last.restype = ctypes.c_void_p
        last.argtypes = [ctypes.c_void_p]
    code.reference_free.argtypes = [ctypes.c_void_p]
    return code


@pytest.fixture(scope="module")
def parse(reference: ctypes.CDLL) -> Iterator[Callable[[bytes], tuple[int, dict[str, Any]]]]:
    """How many records it takes from a text, and the newest of each level, without what it does not know of."""
    rings = reference.reference_new()

    def run(text: bytes) -> tuple[int, dict[str, Any]]:
        stored = reference.reference_parse(rings, text + b"\n", len(text), MORNING)
        newest = {}
        for level, name in LEVELS.items():
            at = getattr(reference, f"reference_last_{name}")(rings)
            if at:
                newest[level] = known(level, unpack_all(level, ctypes.string_at(at, LAYOUT[level].size))[0])
        return stored, newest

    yield run
    reference.reference_free(rings)


def known(level: str, record: dict[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in COLUMNS[level] if name not in ("seq", "flags")}


def beginnings(text: bytes) -> list[bytes]:
    """The text up to the end of each of its records: what a parser meets last is each record once."""
    return [text[:i] for i, byte in enumerate(text) if byte in b"|\n"] + [text]


@needs_compiler
@examples(1)
@given(text=texts(odd=False, orders=["amount_first"]))
def test_the_reference_reads_what_the_oracle_reads(parse: Any, text: bytes) -> None:
    for beginning in beginnings(text):
        oracle = Oracle(trading_day="2026-11-23", lv1_order="amount_first", lv10_order="price_first")
        message = oracle.decode(deflate(beginning), MORNING)
        stored, newest = parse(beginning)
        assert stored == message.published
        for level in LEVELS:
            if oracle.tape[level]:
                assert newest[level] == known(level, oracle.tape[level][-1])


@needs_compiler
@pytest.mark.parametrize(
    "text",
    [
        b"", b"\n", b"lv2_600519", b"lv2_600519=", b"lv2_600519=09:30:00.000,1,10.00", b"lv1_600519=09:30:00,N,10.00",
        b"lv3_600519=09:30:00.000,1,10.00,100", b"lv2_123456789=09:30:00.000,1,10.00,100", b"lv10_600519=09:30:00,N",
        b"lv2_600519=09:30:00.000,1,10.00,100,B", b"lv2_600519=0930,1,10.00,100",
        b"lv2_600519=09:30:00.0000000000,1,10.00,100", b"lv2_600519=09:30:00.000,1,10.0000000000,100",
    ],
)  # fmt: skip
def test_the_reference_passes_over_what_it_can_not_read(parse: Any, text: bytes) -> None:
    assert parse(text)[0] == 0
    good = b"lv2_600519=09:30:00.000,1,10.00,100"
    assert parse(text + b"\n" + good)[0] == 1
