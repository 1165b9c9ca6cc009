"""The house rules that tools can check: style, types, stubs that agree with the extensions, warnings in our C."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.release_only

STRICT = [
    *("-std=c11", "-O2", "-ffp-contract=off", "-Werror", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion"),
    *("-Wstrict-prototypes", "-Wmissing-prototypes", "-Wpointer-arith", "-Wcast-align", "-Wwrite-strings", "-Wundef"),
    *("-Wvla", "-Wdouble-promotion", "-Wformat=2"),
]


def run(*command: str, cwd: Path) -> None:
    # cython-lint starts pycodestyle by name.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"


def tool(name: str) -> str:
    """A console script of this environment, on the path or not."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} is not installed"
    return found


def extensions(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / "src").glob("*.pyx"))


def test_ruff(root):
    run(tool("ruff"), "check", ".", cwd=root)


def test_cython_lint(root):
    files = [*(root / "src").glob("*.pyx"), *(root / "jvq_fast").rglob("*.pxd")]
    run(tool("cython-lint"), *map(str, files), cwd=root)


@pytest.mark.parametrize("what", ["package", "benchmarks"])
def test_mypy_strict(root, what):
    arguments = {"package": ["--package", "jvq_fast"], "benchmarks": ["--package", "benchmarks"]}[what]
    run(sys.executable, "-m", "mypy", "--strict", *arguments, cwd=root)


def test_mypy_strict_on_the_examples(root):
    examples = sorted(map(str, (root / "examples").glob("*.py")))
    assert examples
    run(sys.executable, "-m", "mypy", "--strict", *examples, cwd=root)


def test_stubs_agree_with_the_extensions(root):
    modules = [f"jvq_fast.{name}" for name in extensions(root)]
    # Where instances have a C layout no other base can be mixed in: that is known and not worth a line in each stub.
    run(sys.executable, "-m", "mypy.stubtest", "--ignore-disjoint-bases", *modules, cwd=root)


def test_every_extension_has_its_interface_and_its_types(root):
    for name in extensions(root):
        assert (root / "jvq_fast" / f"{name}.pxd").exists()
        assert (root / "jvq_fast" / f"{name}.pyi").exists()


def test_our_c_compiles_without_a_warning(root):
    compiler = shutil.which("cc")
    assert compiler, "no C compiler"
    for source in sorted((root / "src").glob("*.c")):
        run(compiler, *STRICT, "-Ijvq_fast/include", "-fsyntax-only", str(source), cwd=root)
    for header in sorted((root / "jvq_fast" / "include").glob("*.h")):
        run(compiler, *STRICT, "-fsyntax-only", "-x", "c", "-Wno-unused-function", str(header), cwd=root)


def test_a_kernel_needs_no_python(root):
    for source in (*(root / "src").glob("*.c"), *(root / "jvq_fast" / "include").glob("*.h")):
        assert "Python.h" not in source.read_text(), source.name
