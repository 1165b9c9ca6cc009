"""The check that jvq_fast runs with the picows it was built with.

Cython does not compare vtable layouts. Built against one picows and run with another, frames vanish or the process
crashes, so the check comes before any extension that cimports picows, and without importing picows itself.
"""

import hashlib
import importlib.metadata
import importlib.util
import re
from pathlib import Path

REQUIREMENT = "picows>=2.3.1,<2.4"
LOWEST = (2, 3, 1)
BELOW = (2, 4)


def check() -> None:
    """Raise ImportError, with the command that mends it, unless the installed picows is the one of the build."""
    try:
        from jvq_fast._built_with import PICOWS_PXD_SHA256, PICOWS_VERSION
    except ModuleNotFoundError:
        raise ImportError(
            f"jvq_fast in {Path(__file__).parent} is not built. This mends it, in its source tree: pip install -e . "
            "(or, where it is installed elsewhere, leave the source tree)"
        ) from None

    install = f'pip install "{REQUIREMENT}"'
    rebuild = f'pip install --force-reinstall --no-cache-dir --no-binary jvq-fast jvq-fast "{REQUIREMENT}"'
    built = f"jvq_fast was built with picows {PICOWS_VERSION} (picows.pxd sha256 {PICOWS_PXD_SHA256[:16]})"

    spec = importlib.util.find_spec("picows")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"{built}, but picows is not installed. This mends it: {install}")
    folder = Path(spec.submodule_search_locations[0])
    versions = _versions(folder)
    for version in versions or ["of no known version"]:
        release = re.match(r"\d+(?:\.\d+)*", version)
        if release is None or not LOWEST <= tuple(map(int, release[0].split("."))) < BELOW:
            raise ImportError(
                f"{built} and runs with {REQUIREMENT}, but picows {version} is installed in {folder}. "
                f"This mends it: {install}"
            )
    pxd = folder / "picows.pxd"
    digest = hashlib.sha256(pxd.read_bytes()).hexdigest() if pxd.is_file() else "missing"
    if digest != PICOWS_PXD_SHA256:
        raise ImportError(
            f"{built}, but picows {versions[0]} in {folder} has another layout (picows.pxd sha256 {digest[:16]}); "
            f"frames would be lost or the process would crash. This mends it: {rebuild}"
        )


def _versions(folder: Path) -> list[str]:
    """What the package in this folder calls itself, and what its metadata says.

    The two differ where one installation hides another on the path, or was only half replaced.
    """
    versions = []
    try:
        found = re.search(r"""^__version__\s*=\s*['"]([^'"]+)['"]""", (folder / "version.py").read_text("utf-8"), re.M)
    except OSError:
        found = None
    if found:
        versions.append(found[1])
    try:
        versions.append(importlib.metadata.version("picows"))
    except importlib.metadata.PackageNotFoundError:
        pass
    return versions
