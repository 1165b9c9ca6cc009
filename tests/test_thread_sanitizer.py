"""The rings' readers under the thread sanitizer: the C alone, and the extensions with threads of Python."""

import subprocess
import time
from pathlib import Path

import pytest

import builds

pytestmark = pytest.mark.release_only

STRESS = Path(__file__).with_name("ring_stress.c")
REPORT = "WARNING: ThreadSanitizer: data race"
# Words of 8 bytes, and bytes where a record is not made of such.
RINGS = [
    (layout, capacity, size) for layout in ("tape", "history") for capacity in (1, 64, 1024) for size in (64, 400, 13)
]

# Two threads read a tape, by way of argv[1], while a message is decoded without the GIL.
READ = """
import sys, threading, zlib
import jvq_fast as jvq

decoder = jvq.Decoder(capacity=4096, trading_day="2026-11-23")
trades = "|".join(f"09:30:00.{i % 1000:03d},{i + 1},1688.88,200" for i in range(4000))
machine = zlib.compressobj(0, zlib.DEFLATED, -15)
payload = machine.compress(f"lv2_600519={trades}\\n".encode()) + machine.flush()
assert len(payload) > 32768
decoder.decode(payload)
done = threading.Event()


def read():
    while not done.is_set():
        if sys.argv[1] == "last":
            decoder.trades.last(4096).tobytes()
        else:
            decoder.trades.copy_since(decoder.trades.head - 4000)


threads = [threading.Thread(target=read) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(50):
    decoder.decode(payload)
done.set()
for thread in threads:
    thread.join()
print("read")
"""


def environment() -> dict[str, str]:
    return {"LD_PRELOAD": builds.runtimes("libtsan.so"), "TSAN_OPTIONS": "exitcode=66:halt_on_error=1"}


@pytest.fixture(scope="module")
def stress(tmp_path_factory):
    """``stress(sanitized, *arguments)`` runs the C program."""
    builds.runtimes("libtsan.so")
    folder = tmp_path_factory.mktemp("stress")
    for name, flags in {"plain": ["-O3"], "sanitized": ["-O1", "-g", "-fsanitize=thread", "-Wno-tsan"]}.items():
        include = f"-I{builds.ROOT / 'jvq_fast' / 'include'}"
        subprocess.run(
            [
                "cc",
                "-std=gnu11",
                "-Wall",
                "-Wextra",
                "-Werror",
                *flags,
                "-pthread",
                include,
                STRESS,
                "-o",
                folder / name,
            ],
            timeout=60,
            check=True,
        )

    def run(sanitized: bool, *arguments: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(folder / ("sanitized" if sanitized else "plain")), *map(str, arguments)],
            env={"TSAN_OPTIONS": "exitcode=66:halt_on_error=1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.mark.parametrize(("layout", "capacity", "size"), RINGS)
def test_three_readers_in_c_race_with_no_writer_and_get_sound_records(stress, layout, capacity, size, long):
    for sanitized, records in ((True, 10_000), (False, 100_000)):
        done = stress(sanitized, layout, capacity, size, records * (20 if long else 1), 3)
        assert done.returncode == 0, done.stdout + done.stderr
        assert " torn 0\n" in done.stdout


@pytest.mark.parametrize("layout", ["tape", "history"])
@pytest.mark.parametrize(
    ("fault", "sanitized", "code"),
    # A copy that believes what was overwritten meanwhile races with nobody, and is wrong.
    [("plain", True, 66), ("trusting", False, 1)],
)
def test_what_is_planted_in_c_is_found(stress, layout, fault, sanitized, code):
    # On a busy machine the threads of one run may never meet.
    until = time.monotonic() + 120
    while not (done := stress(sanitized, layout, 256, 400, 1_000_000, 3, fault)).returncode:
        assert time.monotonic() < until, done.stdout + done.stderr
    assert done.returncode == code, done.stdout + done.stderr
    assert (REPORT in done.stderr) == sanitized
    assert sanitized or " torn 0\n" not in done.stdout


@pytest.mark.long
def test_copies_of_a_ring_race_with_no_decoder_and_views_on_a_foreign_thread_do(run_python):
    settings = {**environment(), "PYTHONPATH": str(builds.build("thread")), "PYTHONSAFEPATH": "1"}
    good = run_python("-c", READ, "copy", check=False, timeout=300, **settings)
    assert (good.returncode, good.stdout) == (0, "read\n"), good.stderr
    # last() belongs to the writer's thread.
    bad = run_python("-c", READ, "last", check=False, timeout=300, **settings)
    assert bad.returncode == 66, bad.stderr
    assert REPORT in bad.stderr


@pytest.mark.long
def test_what_more_than_one_thread_touches_has_no_data_race(root):
    names = ("ring", "meter", "callbacks", "feed_commands", "feed_reconnect")
    files = [str(root / "tests" / f"test_{name}.py") for name in names]
    assert builds.run_suite("thread", *files, timeout=840, **environment()) > 0
