"""Installs Autobahn|Testsuite, runs it against the listener in a network namespace, and writes the table of it.

    python tests/autobahn_suite.py              print the tables
    python tests/autobahn_suite.py --write      into docs/autobahn.md
    python tests/autobahn_suite.py '7.1.*'      some cases

It needs Linux, network namespaces (as root, or where users may make them), Python 2.7 (in the variable PYTHON27, on the
path or under pyenv), a C compiler, and for the installation, which stays in build/autobahn, a package index.
"""

import argparse
import collections
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from interpreters import find

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
PAGE = ROOT / "docs" / "autobahn.md"
REQUIREMENTS = TESTS / "autobahn-requirements.txt"
# The last release that makes environments for Python 2.7.
VIRTUALENV = "virtualenv==20.21.1"
LOOPS = ("asyncio", "uvloop")

GROUPS = {
    1: "framing",
    2: "pings and pongs",
    3: "reserved bits",
    4: "opcodes",
    5: "fragmentation",
    6: "UTF-8",
    7: "closing",
    9: "limits and throughput",
    10: "automatic fragmentation",
    12: "compression, whole messages",
    13: "compression, parameters",
}
COLUMNS = ("OK", "NON-STRICT", "INFORMATIONAL", "over the limit", "UNIMPLEMENTED", "FAILED")
Findings = dict[str, Any]
Counts = dict[int, collections.Counter[str]]


class CantRunError(Exception):
    """What this machine lacks."""


def run(*command: object, timeout: float, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )


def must(what: str, *command: object, **environment: str) -> None:
    done = run(*command, timeout=900, **environment)
    if done.returncode:
        raise CantRunError(f"{what} failed: {' '.join(done.stdout.split()[-60:])}")


def install() -> Path:
    """The server's program, installed unless it is already."""
    python = find("2.7")
    if python is None:
        raise CantRunError("no Python 2.7 (set PYTHON27 to one, or install one with pyenv)")
    key = hashlib.sha256(f"{python}\n{VIRTUALENV}\n".encode() + REQUIREMENTS.read_bytes()).hexdigest()[:12]
    folder = ROOT / "build" / "autobahn" / key
    program, ready = folder / "env" / "bin" / "wstest", folder / "ready"
    if not ready.exists():
        tools = folder / "tools"
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target")
        must("installing virtualenv", *pip, tools, VIRTUALENV)
        make = (sys.executable, "-m", "virtualenv", "--clear", "--no-download", "--no-periodic-update")
        must("making the environment", *make, "--python", python, folder / "env", PYTHONPATH=str(tools))
        inside = folder / "env" / "bin" / "python"
        pip = (inside, "-m", "pip", "install", "--quiet", "--no-deps", "--requirement")
        must("installing the testsuite", *pip, REQUIREMENTS, PYTHONPATH="")
        ready.touch()
    return program


def namespace() -> list[str]:
    """The command that puts another one into a network namespace."""
    probe = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r}); from autobahn_client import raise_loopback; raise_loopback()"
    )
    said = ""
    # The server ends with its client, however that one ends.
    alone = ["--net", "--pid", "--fork", "--kill-child"]
    for prefix in (["unshare", *alone], ["unshare", "--map-root-user", *alone]):
        try:
            done = run(*prefix, sys.executable, "-c", probe, timeout=60)
        except FileNotFoundError:
            raise CantRunError("no program unshare (util-linux)") from None
        if done.returncode == 0:
            return prefix
        said = said or done.stdout.strip().splitlines()[-1]
    raise CantRunError(f"no network namespace can be made: {said}")


def meet(loop: str, cases: list[str]) -> Findings:
    """Run the cases; `versions` of both sides, and by case its `behavior`, `close` and our `reason`."""
    program, prefix = install(), namespace()
    with tempfile.TemporaryDirectory() as folder:
        done = run(*prefix, sys.executable, TESTS / "autobahn_client.py", program, folder, loop, *cases, timeout=840)
        found = Path(folder, "findings.json")
        if done.returncode or not found.exists():
            log = Path(folder, "server.log")
            server = log.read_text(errors="replace")[-4000:] if log.exists() else ""
            raise AssertionError(f"exit {done.returncode}\n{done.stdout[-8000:]}\n--- the server:\n{server}")
        findings: Findings = json.loads(found.read_text())
    ask = "import autobahntestsuite as a, autobahn, twisted, sys; print(' '.join((a.version, autobahn.version, "
    ask += "twisted.__version__, sys.version.split()[0])))"
    testsuite, autobahn, twisted, python = run(program.with_name("python"), "-c", ask, timeout=60).stdout.split()[-4:]
    findings["server"] = {
        "Autobahn|Testsuite": testsuite,
        "Autobahn": autobahn,
        "Twisted": twisted,
        "Python": python,
    }
    return findings


def verdict(case: str, finding: dict[str, str]) -> str:
    """The column that a case belongs to; the worse one of how it went and how it was closed."""
    if case.startswith("9.") and "FAILED" in finding.values() and "exceeding max allowed size" in finding["reason"]:
        return "over the limit"
    behavior, close = finding["behavior"], finding["close"]
    if behavior == "UNIMPLEMENTED":
        return behavior
    for bad in (behavior, close):
        if bad not in COLUMNS:
            return "FAILED"
    return max(behavior, close, key=COLUMNS.index)


def count(findings: Findings) -> Counts:
    """How many cases of each group belong to each column."""
    counts: Counts = {}
    for case, finding in findings["cases"].items():
        counts.setdefault(int(case.partition(".")[0]), collections.Counter())[verdict(case, finding)] += 1
    return counts


def table(findings: Findings) -> str:
    """Versions, and a row for each group."""
    rows = [["group", "cases", *COLUMNS], ["---", *["--:"] * (1 + len(COLUMNS))]]
    for group, counter in sorted(count(findings).items()):
        cells = (counter.total(), *(counter[column] for column in COLUMNS))
        rows.append([f"{group} {GROUPS.get(group, '')}", *map(str, cells)])
    ours, theirs = (
        ", ".join(f"{name} {findings[side][name]}" for name in findings[side]) for side in ("versions", "server")
    )
    return f"Client: {ours}. Server: {theirs}.\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def read_page() -> dict[str, Counts]:
    """The counts of the committed page, by loop."""
    pages: dict[str, Counts] = {}
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        loop, _, body = section.partition("\n")
        counts = pages.setdefault(loop, {})
        for line in body.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if cells[0][:1].isdecimal():
                numbers = dict(zip(COLUMNS, map(int, cells[2:]), strict=True))
                counts[int(cells[0].split()[0])] = collections.Counter({k: n for k, n in numbers.items() if n})
    return pages


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=["*"], help="patterns like 7.1.*; default: all")
    parser.add_argument("--write", action="store_true", help="write docs/autobahn.md")
    arguments = parser.parse_args()
    if arguments.write and arguments.cases != ["*"]:
        parser.error("the page holds all cases")
    sections, failed = "", False
    for loop in LOOPS:
        try:
            findings = meet(loop, arguments.cases)
        except CantRunError as error:
            print(f"can't run here: {error}", file=sys.stderr)
            return 2
        sections += f"\n## {loop}\n\n{table(findings)}"
        for case, finding in findings["cases"].items():
            if verdict(case, finding) == "FAILED":
                failed = True
                print(f"{loop}: {case} failed: {finding}", file=sys.stderr)
    if arguments.write:
        head, _, _ = PAGE.read_text(encoding="utf-8").partition("\n## ")
        PAGE.write_text(head + sections, encoding="utf-8")
    else:
        print(sections)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
