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
        raise ImportError("jvq_fast is not built here. In its source tree: pip install -e .") from None

    install = f'pip install "{REQUIREMENT}"'
    rebuild = f'pip install --force-reinstall --no-cache-dir --no-binary jvq-fast jvq-fast "{REQUIREMENT}"'
    built = f"jvq_fast was built with picows {PICOWS_VERSION} (picows.pxd sha256 {PICOWS_PXD_SHA256[:16]})"

    spec = importlib.util.find_spec("picows")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"{built}, but picows is not installed. This mends it: {install}")
    folder = Path(spec.submodule_search_locations[0])
    version = _version(folder)
    release = re.match(r"\d+(?:\.\d+)*", version)
    numbers = tuple(map(int, release[0].split("."))) if release else ()
    if not LOWEST <= numbers < BELOW:
        raise ImportError(
            f"{built} and runs with {REQUIREMENT}, but picows {version or 'of no known version'} is installed "
            f"in {folder}. This mends it: {install}"
        )
    pxd = folder / "picows.pxd"
    digest = hashlib.sha256(pxd.read_bytes()).hexdigest() if pxd.is_file() else "missing"
    if digest != PICOWS_PXD_SHA256:
        raise ImportError(
            f"{built}, but picows {version} in {folder} has another layout (picows.pxd sha256 {digest[:16]}); "
            f"frames would be lost or the process would crash. This mends it: {rebuild}"
        )


def _version(folder: Path) -> str:
    """The version that the package in this folder names; that of the metadata where it names none.

    The two differ where one installation hides another on the path.
    """
    try:
        found = re.search(r"""^__version__\s*=\s*['"]([^'"]+)['"]""", (folder / "version.py").read_text("utf-8"), re.M)
    except OSError:
        found = None
    if found:
        return found[1]
    try:
        return importlib.metadata.version("picows")
    except importlib.metadata.PackageNotFoundError:
        return ""
