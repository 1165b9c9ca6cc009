"""Other Pythons of this machine."""

import os
import shutil
import subprocess
from pathlib import Path


def find(version: str) -> str | None:
    """An interpreter of this version, like "3.12", that runs: a name on the path may be a shim that does not.

    Looked for in the variable PYTHON312, on the path, and among pyenv's versions, the newest first.
    """
    name = f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    installed = sorted(pyenv.glob(f"{version}.*"), key=lambda folder: [*map(int, _numbers(folder.name))], reverse=True)
    places = [
        os.environ.get(f"PYTHON{version.replace('.', '')}"),
        shutil.which(name),
        *(str(folder / "bin" / name) for folder in installed),
    ]
    ask = "import sys; sys.stdout.write('%d.%d' % sys.version_info[:2])"
    for place in filter(None, places):
        try:
            done = subprocess.run(
                [place, "-c", ask], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0 and done.stdout == version:
            return place
    return None


def _numbers(name: str) -> list[str]:
    return [part for part in name.split(".") if part.isdecimal()]
