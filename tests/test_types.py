"""A user's program type-checks strictly, and the types it sees are the promised ones."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.release_only

EXAMPLE = Path(__file__).with_name("typed_user.py")


def check(source: Path, root: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(source)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stdout + done.stderr


def test_a_users_program_checks_strictly(root):
    assert check(EXAMPLE, root) == ""


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("decoder.decode('text')", "arg-type"),
        ("decoder.on_trades = 3", "assignment"),
        ("decoder.history('600519')", "call-arg"),
        ("jvq.Decoder(nonsense=1)", "call-arg"),
        ("decoder.trades.head = 3", "misc"),
        ("jvq.Feed()", "call-arg"),
        ("jvq.Feed('0' * 32, clock='never')", "arg-type"),
        ("jvq.nothing", "attr-defined"),
    ],
)
def test_a_mistake_is_reported(root, tmp_path, line, complaint):
    source = tmp_path / "wrong.py"
    source.write_text(f"import jvq_fast as jvq\n\ndecoder = jvq.Decoder()\n{line}\n")
    report = check(source, root)
    assert f"[{complaint}]" in report
    assert report.count(": error:") == 1
