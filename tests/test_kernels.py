"""The kernels that this processor can run beside those for any: the same of every row, nothing read beyond it."""

import collections
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import builds

pytestmark = [pytest.mark.release_only, pytest.mark.skipif(os.name != "posix", reason="guard pages are POSIX's")]

SOURCES = ("tests/kernels_beside.c", "src/trades.c", "src/snapshots.c", "src/rows.c", "src/decimal.c")
CHECKED = ("-O1", "-g", *builds.SANITIZE)


@pytest.fixture(scope="module", params=["as they are", "with sanitizers"])
def beside(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("kernels") / "kernels_beside"
    flags = CHECKED if request.param == "with sanitizers" else ("-O3",)
    done = subprocess.run(
        [os.environ.get("CC", "cc"), "-std=c11", "-ffp-contract=off", *flags, f"-I{builds.ROOT / 'jvq_fast/include'}",
         *[str(builds.ROOT / source) for source in SOURCES], "-lm", "-o", str(program)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if done.returncode and flags is CHECKED:
        pytest.skip(f"this compiler has no sanitizers: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    return program


def digits(rng: random.Random, most: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(rng.randrange(1, most + 1)))


def number(rng: random.Random) -> str:
    kind = rng.randrange(12)
    if kind < 4:
        return digits(rng, 7)
    if kind < 8:
        return f"{digits(rng, 5)}.{digits(rng, 4)}"
    if kind == 8:
        return f"{digits(rng, 18)}.{digits(rng, 10)}"
    if kind == 9:
        return "-" + rng.choice([digits(rng, 6), f"{digits(rng, 3)}.{digits(rng, 3)}", "0.00", "0"])
    if kind == 10:
        return digits(rng, 24)
    return rng.choice(["", ".", "5.", ".5", "-", "--1", "1.2.3", "100.00", "1e5", "+1", " 1", "１", "0", "0.0000000"])


def trade(rng: random.Random) -> str:
    clock = f"{rng.randrange(30):02d}:{rng.randrange(70):02d}:{rng.randrange(70):02d}"
    usual = f"{rng.randrange(8, 16):02d}:{rng.randrange(60):02d}:{rng.randrange(60):02d}"
    fraction = rng.choice([f".{rng.randrange(1000):03d}"] * 60 + ["", ".5", ".123456789", "."])
    fields = [rng.choice([usual] * 30 + [clock]) + fraction, digits(rng, rng.choice([6, 7, 8, 8, 8, 8, 9]))]
    fields += [number(rng) if rng.random() < 0.04 else f"{digits(rng, 4)}.{digits(rng, 3)}"]
    fields += [number(rng) if rng.random() < 0.04 else digits(rng, 7)]
    return ",".join(fields)


def snapshot(rng: random.Random) -> str:
    """A quote or a depth, in one of its two orders of fields; nearly always with numbers as they usually are."""
    price = rng.randrange(1, 10 ** rng.choice([3, 4, 5, 6, 7]))
    decimals = rng.choice([2, 2, 2, 2, 3, 1])

    def real(units: int) -> str:
        if rng.random() < 0.004:
            return number(rng)
        return f"{units / 10**decimals:.{decimals}f}"

    def side(levels: int, step: int) -> tuple[list[str], list[str]]:
        there = rng.choice([levels, levels, levels, rng.randrange(levels + 1)])
        prices = [real(max(0, price + step * i)) if i <= there else "0.00" for i in range(1, levels + 1)]
        volumes = [str(100 * rng.randrange(10 ** rng.choice([2, 4, 6]))) if i <= there else "0" for i in range(levels)]
        if rng.random() < 0.02:
            volumes[rng.randrange(levels)] = number(rng)
        return prices, volumes

    swaps = rng.random() < 0.5
    volume = rng.randrange(10 ** rng.choice([1, 5, 9, 15]))
    totals = [real(volume * price), str(volume)]
    fields = [f"{rng.randrange(9, 16):02d}:{rng.randrange(60):02d}:{rng.randrange(60):02d}"]
    fields += [rng.choice(["贵州茅台", "", "A" * rng.randrange(40)]), real(price)]
    if rng.random() < 0.5:
        fields += [f"{rng.uniform(-11, 11):.2f}", *(totals[::-1] if swaps else totals)]
        for step in (-1, 1):
            fields += [text for pair in zip(*side(5, step)[::-1], strict=True) for text in pair]
    else:
        fields += [real(price + 1), *totals]
        for step in (-1, 1):
            prices, volumes = side(10, step)
            fields += volumes + prices if swaps else prices + volumes
    if rng.random() < 0.02:
        del fields[rng.randrange(len(fields))]
    return ",".join(fields)


def damaged(rng: random.Random, row: str) -> str:
    at = rng.randrange(len(row) + 1)
    return (
        row[:at]
        + rng.choice(["", ",", "|", ".", "-", ":", "=", "9", "\t", "价", "\x00", "/"])
        + row[at + rng.randrange(2) :]
    )


def rows(rng: random.Random, count: int) -> Iterator[str]:
    for _ in range(count):
        if rng.random() < 0.4:
            row = "=" + "|".join(trade(rng) for _ in range(rng.choice([1, 1, 2, 5, 40])))
        else:
            row = "=" + snapshot(rng) + rng.choice(["", "", "|09:30:00"])
        yield damaged(rng, row) if rng.random() < 0.2 else row


def test_all_kernels_make_the_same_of_every_row(beside: Path, long: bool) -> None:
    rng = random.Random(20261128)
    published = settled = 0
    parsed: collections.Counter[str] = collections.Counter()
    for _ in range(40 if long else 4):
        sent = [row.replace("\n", "") for row in rows(rng, 5000)]
        ran = subprocess.run(
            [str(beside)],
            input="".join(row + "\n" for row in sent).encode(),
            capture_output=True,
            timeout=300,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr[-4000:].decode(errors="replace")
        lines = ran.stdout.decode().splitlines()
        kernels = len(lines) // (5 * len(sent))
        assert len(lines) == 5 * kernels * len(sent)
        for i, row in enumerate(sent):
            plain, *others = (lines[5 * at : 5 * at + 5] for at in range(i * kernels, (i + 1) * kernels))
            assert all(other == plain for other in others), row
            assert "the mirror differs" not in plain[0], row
            published += int(plain[0].split()[1])
            parsed.update(line.split(" at ")[0] for line in plain[1:])
            settled += sum("settled=1" in line for line in plain[1:])
    assert published > 10_000
    assert min(parsed["quote 1"], parsed["depth 1"], settled) > 1000
