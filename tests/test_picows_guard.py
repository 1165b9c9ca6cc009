"""Beside another picows than the one of the build, import fails with a message that helps, and nothing else happens."""

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import picows
import pytest
from packaging.requirements import Requirement

import jvq_fast
from jvq_fast import _built_with, _picows

pytestmark = pytest.mark.release_only

IMPORT = """
import json, sys
try:
    import jvq_fast
    error = None
except ImportError as raised:
    error = str(raised)
files = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
loaded = [name for name in files if name.startswith(("jvq_fast", "picows")) and files[name].endswith((".so", ".pyd"))]
print(json.dumps({"error": error, "loaded": loaded, "picows": "picows" in sys.modules}))
"""


class Scratch:
    """A virtual environment with a copy of the built jvq_fast, whose picows can be changed.

    All else comes from this interpreter's own packages, which stand behind it on the path.
    """

    def __init__(self, folder: Path) -> None:
        venv.create(folder, symlinks=True)
        self.python = folder / "bin" / "python"
        self.packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
        self.copy(Path(jvq_fast.__file__).parent)
        (self.packages / "rest.pth").write_text("\n".join(sysconfig.get_path(p) for p in ("purelib", "platlib")))

    def copy(self, package: Path) -> Path:
        target = self.packages / package.name
        shutil.copytree(package, target, ignore=shutil.ignore_patterns("__pycache__"))
        return target

    def copy_picows(self) -> Path:
        return self.copy(Path(picows.__file__).parent)

    def name_version(self, version: str) -> None:
        file = self.packages / "picows" / "version.py"
        file.write_text(file.read_text().replace(f'"{_built_with.PICOWS_VERSION}"', f'"{version}"'))

    def run_import(self) -> dict:
        done = subprocess.run(
            [self.python, "-P", "-c", IMPORT],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=self.packages,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return json.loads(done.stdout)


@pytest.fixture
def scratch(tmp_path):
    return Scratch(tmp_path / "scratch")


def assert_refused(outcome: dict, *parts: str) -> None:
    assert outcome["loaded"] == []
    assert not outcome["picows"]
    for part in (f"jvq_fast was built with picows {_built_with.PICOWS_VERSION}", "This mends it: pip install", *parts):
        assert part in outcome["error"]


def test_imports_beside_an_unchanged_copy(scratch):
    scratch.copy_picows()
    outcome = scratch.run_import()
    assert outcome["error"] is None
    assert "jvq_fast.decoder" in outcome["loaded"]


def test_refuses_a_changed_layout(scratch):
    pxd = scratch.copy_picows() / "picows.pxd"
    text = pxd.read_text()
    changed = text.replace("cdef class WSListener:", "cdef class WSListener:\n    cpdef on_something_new(self)", 1)
    assert changed != text
    pxd.write_text(changed)
    assert_refused(
        scratch.run_import(),
        _built_with.PICOWS_PXD_SHA256[:16],
        str(pxd.parent),
        'pip install --force-reinstall --no-cache-dir --no-binary jvq-fast jvq-fast "picows>=2.3.1,<2.4"',
    )


def test_refuses_a_picows_without_a_layout(scratch):
    (scratch.copy_picows() / "picows.pxd").unlink()
    assert_refused(scratch.run_import(), "sha256 missing", "--no-binary jvq-fast")


@pytest.mark.parametrize("version", ["2.3.0", "2.4.0", "2.4.0rc1", "3.0", "1.20.0", "unknown"])
def test_refuses_a_version_outside_the_range(scratch, version):
    scratch.copy_picows()
    scratch.name_version(version)
    assert_refused(scratch.run_import(), f"picows {version}", 'pip install "picows>=2.3.1,<2.4"')


@pytest.mark.parametrize("version", ["2.3.0", "2.4.0"])
def test_refuses_a_version_that_only_the_metadata_tells(scratch, version):
    metadata = scratch.copy_picows().parent / f"picows-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: picows\nVersion: {version}\n")
    assert_refused(scratch.run_import(), f"picows {version}", 'pip install "picows>=2.3.1,<2.4"')


@pytest.mark.parametrize("version", ["2.3.1", "2.3.2", "2.3.10.post1"])
def test_accepts_a_version_inside_the_range_with_the_same_layout(scratch, version):
    scratch.copy_picows()
    scratch.name_version(version)
    assert scratch.run_import()["error"] is None


def test_refuses_a_real_older_release(scratch):
    found = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", "picows"),
            *("--target", str(scratch.packages), "picows>=2.2,<2.3"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if found.returncode:
        pytest.skip(f"picows 2.2 can't be had here: {found.stderr.strip().splitlines()[-1:]}")
    (old,) = importlib.metadata.distributions(name="picows", path=[str(scratch.packages)])
    assert_refused(scratch.run_import(), f"picows {old.version} is installed", 'pip install "picows>=2.3.1,<2.4"')


def test_refuses_when_picows_is_missing(scratch):
    # Without the packages behind it on the path there is no picows at all, and nothing else that is needed.
    (scratch.packages / "rest.pth").unlink()
    assert_refused(scratch.run_import(), "picows is not installed", 'pip install "picows>=2.3.1,<2.4"')


def test_says_so_when_nothing_is_built(scratch):
    (scratch.packages / "jvq_fast" / "_built_with.py").unlink()
    assert "not built" in scratch.run_import()["error"]


def test_the_range_is_the_same_at_build_at_run_time_and_in_the_check(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())
    listed = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    ranges = {str(Requirement(line).specifier) for line in listed if line.startswith("picows")}
    assert ranges == {str(Requirement(_picows.REQUIREMENT).specifier)}
    lowest, below = (".".join(map(str, numbers)) for numbers in (_picows.LOWEST, _picows.BELOW))
    assert f"picows>={lowest},<{below}" == _picows.REQUIREMENT


def test_the_check_comes_before_every_other_import_of_the_package(root):
    source = (root / "jvq_fast" / "__init__.py").read_text()
    imports = re.findall(r"^(?:from jvq_fast|import|from) .*|^_picows\.check\(\)$", source, re.M)
    assert imports[:2] == ["from jvq_fast import _picows", "_picows.check()"]
