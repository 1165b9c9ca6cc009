"""Files that only their owner can read, and what they say of an account without naming it."""

import contextlib
import hashlib
import os
import re
import secrets
import stat
import time
from pathlib import Path

from jvq_fast.errors import JournalError
from jvq_fast.redact import Secret

# An account has 12 digits, so few that a plain hash is undone by trying them all.
_ROUNDS = 200_000
_OTHERS = 0o077
_IN_USE = 60.0  # s: a younger one may be another process's, which is about to put it in its place


def new_salt() -> str:
    """For `mark_of`."""
    return secrets.token_hex(16)


def mark_of(account: str, salt: str) -> str:
    """What tells an account from another one, and does not name it."""
    return hashlib.pbkdf2_hmac("sha256", account.encode(), bytes.fromhex(salt), _ROUNDS).hex()[:32]


def default_paths(account: Secret, mode: str) -> tuple[Path, Path]:
    """Journal and ticket file of an account in the user's state folder, which is made if need be, for its owner alone.

    Who has not this user's salt is not told by the names which account it is. JournalError.
    """
    base = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():  # as its specification says
        base = Path.home() / ".local" / "state"
    folder = base / "jvq_fast" / "trade"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        salt = _salt(folder)
    except OSError as error:
        raise JournalError(
            f"the folder {folder} for the journal can't be used: {error.strerror}; name other files, or set "
            "XDG_STATE_HOME"
        ) from None
    name = f"{mark_of(account.reveal(), salt)[:16]}-{mode}"
    return folder / f"{name}.journal", folder / f"{name}.ticket"


def _salt(folder: Path) -> str:
    path = folder / "salt"
    # In this order: another process may make both between the two looks.
    if any(folder.glob("*.journal")) and not path.exists():
        raise JournalError(
            f"{path} is missing, and without it nobody can tell whose the journals in {folder} are: put it back, or "
            "move them away once nothing in them is unknown"
        )
    salt = create_private(path, new_salt().encode())
    if not re.fullmatch(rb"[0-9a-f]{32}", salt):
        raise JournalError(f"{path} is damaged, and the journals in {folder} are named by it: put it back")
    return salt.decode()


def complaint(descriptor: int) -> str:
    """Why an open file is not private; "" where it is. Only POSIX knows owners and modes."""
    info = os.fstat(descriptor)
    if not stat.S_ISREG(info.st_mode):
        return "it is no plain file"
    if os.name != "posix":
        return ""
    if info.st_uid != os.geteuid():
        return "it belongs to another user"
    if info.st_mode & _OTHERS:
        return "others can read it: chmod 600 it"
    return ""


def open_private(path: Path, flags: int) -> int:
    """Open a file, and create it for its owner alone. A link is not followed."""
    return os.open(path, flags | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0), 0o600)


def sync_folder(path: Path) -> None:
    """Make the name of a new file last, where the system can."""
    if os.name != "posix":
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def create_private(path: Path, data: bytes) -> bytes:
    """Make a private file unless it is there; what it holds then. Processes that do so at once agree on it."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    new = beside(path)
    replace_private(new, data)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(new, path)
    finally:
        new.unlink(missing_ok=True)
    return path.read_bytes()


def beside(path: Path) -> Path:
    """A name for a file that is to take the place of another one."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


def sweep(path: Path) -> None:
    """Remove what a process that was killed has left `beside` a file."""
    names = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}")
    with contextlib.suppress(OSError):
        for left in path.parent.iterdir():
            if names.fullmatch(left.name) and time.time() - left.lstat().st_mtime > _IN_USE:
                left.unlink()


def replace_private(path: Path, data: bytes, *, keep: bool = True) -> None:
    """Put a private file in place of another one, whole or not at all; or just try whether that is possible."""
    new = beside(path)
    try:
        descriptor = open_private(new, os.O_WRONLY | os.O_EXCL)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if keep:
            new.replace(path)
        else:
            new.unlink()
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path)
