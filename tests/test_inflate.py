"""`inflate` by itself, in a process where a byte too far is fatal, beside the interpreter's zlib: the same verdict on
every stream, legal or not, the same output, and the same place where the stream ends."""

import itertools
import os
import random
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

import builds
import deflate_bits
from deflate_streams import GO_STREAMS, by_go, by_others, by_zlib, few_texts, texts, unframed
from inflate_judge import CORRUPT, INFLATED, ROOM, TRUNCATED, Verdict, of_zlib, settled

pytestmark = [pytest.mark.release_only, pytest.mark.skipif(os.name != "posix", reason="guard pages are POSIX's")]

Case = tuple[int, bytes]  # room, message
BATCH = 4000
CHECKED = ("-O1", "-g", *builds.SANITIZE)


@pytest.fixture(scope="module", params=["as it is", "for any processor", "with sanitizers"])
def inflate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Verdict]]:
    program = tmp_path_factory.mktemp("inflate") / "inflate"
    flags = CHECKED if request.param == "with sanitizers" else ("-O3",)
    arguments = ["plain"] if request.param == "for any processor" else []
    sources = [builds.ROOT / "tests" / "inflate_guarded.c", builds.ROOT / "src" / "inflate.c"]
    include = f"-I{builds.ROOT / 'jvq_fast' / 'include'}"
    done = subprocess.run(
        [os.environ.get("CC", "cc"), *flags, include, *map(str, sources), "-o", str(program)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if done.returncode and flags is CHECKED:
        pytest.skip(f"this compiler has no sanitizers: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr

    def run(cases: Iterable[Case]) -> list[Verdict]:
        sent = b"".join(struct.pack("=II", room, len(data)) + data for room, data in cases)
        ran = subprocess.run([str(program), *arguments], input=sent, capture_output=True, timeout=600, check=False)
        assert ran.returncode == 0, (ran.returncode, ran.stderr[-4000:].decode(errors="replace"))
        verdicts, at = [], 0
        while at < len(ran.stdout):
            status, consumed, written = struct.unpack_from("=III", ran.stdout, at)
            at += 12 + written
            verdicts.append(settled(status, consumed, ran.stdout[at - written : at]))
        return verdicts

    return run


def agree(inflate: Callable[..., list[Verdict]], cases: Iterable[Case]) -> dict[int, int]:
    """The same of all; how many ended in which way."""
    counts = dict.fromkeys(range(4), 0)
    source = iter(cases)
    while batch := list(itertools.islice(source, BATCH)):
        ours = inflate(batch)
        assert len(ours) == len(batch)
        for case, verdict in zip(batch, ours, strict=True):
            wanted = of_zlib(*case)
            counts[wanted[0]] += 1
            assert verdict == wanted, (case[0], case[1].hex(), verdict, wanted)
    return counts


# --- what there is to inflate ---


def damaged(rng: random.Random, data: bytes) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return data[: rng.randrange(len(data) + 1)]
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice([1, 1, 2, 5])):
        # Where the tables are, half of the time.
        at = rng.randrange(min(len(changed), 60)) if rng.random() < 0.5 else rng.randrange(len(changed))
        changed[at] = changed[at] ^ 1 << rng.randrange(8) if kind == 1 else rng.randrange(256)
    return bytes(changed)


def roomy(data: bytes) -> Case:
    return 1 << 17, data


# --- the tests ---


@pytest.mark.parametrize("source", [by_zlib, by_others])
def test_what_compressors_write(source: Callable[..., Iterator[bytes]], inflate: Callable[..., list[Verdict]]) -> None:
    streams = list(source(random.Random(1)))
    counts = agree(inflate, map(roomy, streams))
    assert counts == {INFLATED: len(streams), ROOM: 0, CORRUPT: 0, TRUNCATED: 0}
    agree(inflate, ((1 << 17, each + b"behind it") for each in streams))
    exact = [(max(len(zlib.decompress(each, -15)), 1), each) for each in streams]
    assert agree(inflate, exact)[INFLATED] == len(streams)
    short = [(room - 1, each) for room, each in exact if room > 1]
    assert agree(inflate, short)[ROOM] == len(short)


def test_what_go_wrote(inflate: Callable[..., list[Verdict]]) -> None:
    streams = list(unframed(GO_STREAMS.read_bytes()))
    per_text = len(streams) // len(few_texts())
    expected = [text for text in few_texts() for _ in range(per_text)]
    assert [output for _, _, output in inflate(map(roomy, streams))] == expected
    assert agree(inflate, map(roomy, streams))[INFLATED] == len(streams)
    agree(inflate, (roomy(each[:n]) for each in streams if len(each) < 200 for n in range(len(each))))


def test_what_go_writes(inflate: Callable[..., list[Verdict]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(builds.ROOT)
    from benchmarks.shapes import shapes

    plain = list(texts(random.Random(7)))
    for shape in shapes():
        plain += [zlib.decompress(payload, -15) for payload in shape.payloads[:60]]
    streams = by_go(plain)
    if streams is None:
        pytest.skip("of Go's streams only those in deflate_go.bin are tested: there is no Go here (Debian: golang-go)")
    assert agree(inflate, map(roomy, streams))[INFLATED] == len(streams) == 22 * len(plain)


def test_any_code_lengths(inflate: Callable[..., list[Verdict]], long: bool) -> None:
    """Codes as skewed as can be, links of every depth, single codes, blocks without distances."""
    streams = [deflate_bits.stream(seed) for seed in range(20_000 if long else 1_500)]
    counts = agree(inflate, map(roomy, streams))
    assert counts[INFLATED] > len(streams) / 4
    assert counts[CORRUPT] > len(streams) / 20
    rng = random.Random(2)
    counts = agree(inflate, (roomy(damaged(rng, each)) for each in streams if len(each) < 3_000 for _ in range(3)))
    assert min(counts[status] for status in (INFLATED, CORRUPT, TRUNCATED)) > 20


def test_damage_anywhere(inflate: Callable[..., list[Verdict]], long: bool) -> None:
    rng = random.Random(3)
    streams = [each for each in by_zlib(rng) if len(each) < 3_000]
    cases = (
        (rng.choice([1 << 17, rng.randrange(1, 400)]), damaged(rng, rng.choice(streams)))
        for _ in range(400_000 if long else 20_000)
    )
    counts = agree(inflate, cases)
    assert min(counts.values()) > 200


def test_truncation_at_every_byte_and_every_room(inflate: Callable[..., list[Verdict]]) -> None:
    rng = random.Random(4)
    streams = [each for each in by_zlib(rng) if 4 < len(each) < 120]
    for each in rng.sample(streams, 40) + [deflate_bits.stream(seed) for seed in (3, 5)]:
        if len(each) > 400:
            continue
        agree(inflate, (roomy(each[:n]) for n in range(len(each))))
        agree(inflate, ((room, each) for room in range(1, 400)))


def test_every_input_of_up_to_two_bytes_and_a_share_of_three(inflate: Callable[..., list[Verdict]], long: bool) -> None:
    short = (bytes(each) for n in range(3) for each in itertools.product(range(256), repeat=n))
    agree(inflate, map(roomy_enough, short))
    rng = random.Random(5)
    three = (n.to_bytes(3, "little") for n in (range(1 << 24) if long else rng.sample(range(1 << 24), 40_000)))
    agree(inflate, map(roomy_enough, three))


def roomy_enough(data: bytes) -> Case:
    return 300, data


def test_random_bytes(inflate: Callable[..., list[Verdict]], long: bool) -> None:
    rng = random.Random(6)
    cases = (
        (rng.choice([2000, 60, 1]), first(rng) + rng.randbytes(rng.randrange(80)))
        for _ in range(300_000 if long else 20_000)
    )
    agree(inflate, cases)


def first(rng: random.Random) -> bytes:
    """Dynamic blocks mostly: random ones hardly ever come past their lengths."""
    return bytes([rng.choice([5, 5, 4, 3, rng.randrange(256)]) | rng.randrange(256) & 0xF8])


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", TRUNCATED), (b"\x07", CORRUPT), (b"\x03\x00", INFLATED), (b"\x03", TRUNCATED),
        (b"\x01\x00\x00\xff\xff", INFLATED), (b"\x01\x00\x00\xff\xfe", CORRUPT), (b"\x01\x05\x00\xfa\xff", TRUNCATED),
        (b"\x4b\x04\x12", CORRUPT),  # a distance beyond the beginning
    ],
)  # fmt: skip
def test_a_few_by_hand(data: bytes, status: int, inflate: Callable[..., list[Verdict]]) -> None:
    (verdict,) = inflate([roomy(data)])
    assert verdict[0] == status == of_zlib(*roomy(data))[0]


def test_real_packets(inflate: Callable[..., list[Verdict]], data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JVQ_FAST_DATA", str(data_dir))
    monkeypatch.syspath_prepend(builds.ROOT)
    from benchmarks.shapes import shapes

    for shape in shapes():
        counts = agree(inflate, map(roomy, shape.payloads))
        assert counts[INFLATED] == len(shape.payloads)


def test_the_largest_tables_fit() -> None:
    """The header's figures are no less than what the worst codes need."""
    header = (builds.ROOT / "jvq_fast" / "include" / "inflate.h").read_text()
    assert f"JVQ_LITERALS_ROOM = {most_entries(288, 11)}" in header
    assert f"JVQ_DISTANCES_ROOM = {most_entries(32, 8)}" in header


def most_entries(symbols: int, root: int) -> int:
    """No more has a table with an index of `root` bits for a complete code of so many symbols of up to 15 bits.

    A sub-table with an index of `s` bits has a longest code of `s` bits more than the root, and takes at least `s` + 1
    codes (one each of 1 to `s` - 1 bits more, and two of `s`). Whatever else the code is, it takes the root's other
    entries, with one code each or fewer.
    """
    best = 0
    # How many codes lie in links, by how many links: the root's other entries need at least one code in all if any.
    for links in range(1, (1 << root) + 1):
        rest = (1 << root) - links
        # Codes of up to `root` bits cover `rest` entries: at least the ones in its binary form.
        least = bin(rest).count("1")
        left = symbols - least
        if left < 2 * links:
            break
        sizes = [1] * links
        budget = left - 2 * links
        at = 0
        while at < links and budget:
            more = min(15 - root - 1, budget)
            sizes[at] += more
            budget -= more
            at += 1
        best = max(best, (1 << root) + sum(1 << size for size in sizes))
    return best
