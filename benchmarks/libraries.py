"""The C libraries that inflate, as far as their headers are here, and how programs that use them are compiled."""

import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ROOT / "benchmarks" / "native"
FLAGS = ["-O3", "-std=c11", "-ffp-contract=off", "-fvisibility=hidden", "-fPIC"]  # what setup.py compiles with


@dataclass(frozen=True)
class Library:
    """One library: its header, what the header calls its version, how to link it, and who brings it."""

    header: str
    version: str
    link: str
    define: str
    package: str


LIBRARIES = {
    "zlib": Library("zlib.h", "ZLIB_VERSION", "z", "WITH_ZLIB", "zlib1g-dev"),
    "libdeflate": Library("libdeflate.h", "LIBDEFLATE_VERSION_STRING", "deflate", "WITH_LIBDEFLATE", "libdeflate-dev"),
    "ISA-L": Library(
        "isa-l.h", "ISAL_MAJOR_VERSION.ISAL_MINOR_VERSION.ISAL_PATCH_VERSION", "isal", "WITH_ISAL", "libisal-dev"
    ),
}


def compiler(plus: bool = False) -> list[str]:
    """The command of that of C, or of that of C++."""
    return shlex.split(os.environ.get("CXX", "c++") if plus else os.environ.get("CC", "cc"))


def run_compiler(*arguments: str, text: str = "", plus: bool = False) -> str:
    """What it prints; a compiler that is not there or fails ends the program, and says why."""
    command = [*compiler(plus), *arguments]
    try:
        ran = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=True)
    except FileNotFoundError:
        raise SystemExit(f"no compiler {command[0]!r} (Debian: apt-get install {'g++' if plus else 'gcc'})") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{shlex.join(command)}\n{error.stderr[-2000:]}") from None
    return ran.stdout


def versions() -> dict[str, str]:
    """The compiler, and each library that is here."""
    asked = "".join(
        f"#if __has_include(<{each.header}>)\n#include <{each.header}>\nfound {name}: {each.version}\n#endif\n"
        for name, each in LIBRARIES.items()
    )
    lines = run_compiler("-E", "-P", "-x", "c", "-", text=asked).splitlines()
    found = (line.removeprefix("found ").partition(": ") for line in lines if line.startswith("found "))
    compiler = run_compiler("--version").partition("\n")[0]
    return {"compiler": compiler, **{name: version.replace(" ", "").strip('"') for name, _, version in found}}


def left_out(found: dict[str, str]) -> str:
    """A line for each library that is not among the `versions` found."""
    return "".join(
        f"without {name}: its headers are not here (Debian: apt-get install {each.package})\n"
        for name, each in LIBRARIES.items()
        if name not in found
    )


def compile_with(found: dict[str, str], sources: Sequence[Path], out: Path, *flags: str) -> None:
    """A program, or with ``-shared`` a library, that may use the libraries found."""
    uses = [each for name, each in LIBRARIES.items() if name in found]
    run_compiler(
        *FLAGS,
        *flags,
        *(f"-D{each.define}" for each in uses),
        f"-I{ROOT / 'jvq_fast' / 'include'}",
        *map(str, sources),
        *(f"-l{each.link}" for each in uses),
        "-o",
        str(out),
    )
