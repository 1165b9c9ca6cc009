"""A running feed's counters, through a Unix socket that only its owner can use: both ends of it.

A client connects, gets one JSON object and the end; it sends nothing. Where the system has no Unix sockets (Windows),
a StatusError says so.
"""

import contextlib
import errno
import itertools
import json
import math
import os
import selectors
import socket
import stat
import struct
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from jvq_fast.errors import StatusError
from jvq_fast.redact import redact

__all__ = ["StatusSocket", "directory", "feeds", "read_status"]

_NAME = "jvq_fast"
_SUFFIX = ".sock"
_CLIENT_TIME = 2.0
_BACKLOG = 8
_LARGEST = 1 << 20
_LONGEST_PATH = 103  # bytes; Linux takes 107, other systems fewer
_OTHERS = 0o077
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid

_numbers = itertools.count(1)


class StatusSocket:
    """``with StatusSocket(True, read) as status:`` — answers each client with `read()` and a few facts, until `close`.

    `path` is True for a name of its own in `directory()`, or the path of the socket; the socket that a process left
    there which is gone is replaced. `read` returns flat counters, such as a feed's `stats()`; it is called on a daemon
    thread, which goes on while a handler holds the feed up. To them come `pid`, `started_ns` and `now_ns` (ns since the
    epoch UTC) and `version`. Clients are answered one at a time, and get two seconds each.
    StatusError where the socket can't be made.
    """

    def __init__(self, path: str | os.PathLike[str] | Literal[True], read: Callable[[], Mapping[str, Any]]) -> None:
        _require_unix_sockets()
        self._read = read
        self._started_ns = time.time_ns()
        if path is True:
            self.path = directory() / f"{os.getpid()}-{next(_numbers)}{_SUFFIX}"
            _clean(self.path.parent)
        else:
            self.path = Path(os.path.abspath(os.fspath(path)))  # noqa: PTH100 (resolve() would follow a link)
            _check_parent(self.path)
        self._listener, identity = _listen(self.path)
        self._wake, self._woken = socket.socketpair()
        # Whoever forgets close(), or ends by an exception, leaves no socket behind.
        self._remove = weakref.finalize(self, _unlink, self.path, identity, os.getpid())
        _open.add(self)
        self._thread = threading.Thread(target=self._serve, name="jvq_fast status", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Unlink the socket and end the thread. From any thread; harmless when called again."""
        self._remove()
        _open.discard(self)
        with contextlib.suppress(OSError):
            self._wake.send(b"\0")
        if self._thread is not threading.current_thread():
            # A `read` that hangs must not hang the end of the feed.
            self._thread.join(_CLIENT_TIME)

    def _serve(self) -> None:
        with self._listener, self._woken, selectors.DefaultSelector() as selector:
            self._listener.setblocking(False)
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                if any(key.fileobj is self._woken for key, _ in selector.select()):
                    break
                try:
                    client, _ = self._listener.accept()
                except OSError as error:
                    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                        time.sleep(0.1)  # the client still waits, and select() would say so at once
                    continue
                with client, contextlib.suppress(OSError):
                    if _may_ask(client):
                        client.settimeout(_CLIENT_TIME)
                        client.sendall(self._answer())
        self._wake.close()

    def _answer(self) -> bytes:
        try:
            answer = dict(self._read())
        except Exception as error:
            answer = {"error": redact(f"{type(error).__name__}: {error}")}
        from jvq_fast import __version__

        answer |= {
            "pid": os.getpid(),
            "started_ns": self._started_ns,
            "now_ns": time.time_ns(),
            "version": __version__,
        }
        return json.dumps({name: _plain(value) for name, value in answer.items()}, ensure_ascii=False).encode() + b"\n"

    def _abandon(self) -> None:
        """In a child that was forked: a copy of the listening socket would keep clients waiting when its owner dies."""
        self._listener.close()
        self._wake.close()
        self._woken.close()


_open: "weakref.WeakSet[StatusSocket]" = weakref.WeakSet()


def _abandon_all() -> None:
    for each in list(_open):
        each._abandon()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)


def directory() -> Path:
    """Where this user's feeds have their sockets; made where it is missing, mode 0700.

    It is `$XDG_RUNTIME_DIR/jvq_fast`, or that below `/run/user/UID`, `~/.cache` or, with the user's number in its name,
    the folder for temporary files: the first that can be used. StatusError where there is none.
    """
    _require_unix_sockets()
    refused = []
    for path in _candidates():
        why = _make_private(path)
        if not why:
            return path
        refused.append(why)
    raise StatusError(f"no place for status sockets: {'; '.join(refused)}. Name a path in a directory of your own")


def feeds() -> list[Path]:
    """The sockets of this user's feeds that are running now, oldest first; those of the dead are removed."""
    _require_unix_sockets()
    found = []
    # All of them: a service may have chosen another place than a shell would.
    for where in _candidates():
        if _fault(where):
            continue
        _clean(where)
        for path in where.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(OSError):
                found.append((path.lstat().st_mtime_ns, path))
    return [path for _, path in sorted(found)]


def read_status(path: str | os.PathLike[str], timeout: float = 3.0) -> dict[str, Any]:
    """What the feed at a socket says of itself. StatusError where there is none, or it says nothing in `timeout` s."""
    _require_unix_sockets()
    shown = os.fspath(path)
    deadline = time.monotonic() + timeout
    answer = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(timeout)
            client.connect(shown)
            if not _is_own(client):
                raise StatusError(f"{shown} belongs to another user's process: not asked")
            while chunk := client.recv(65536):
                answer += chunk
                left = deadline - time.monotonic()
                if left <= 0 or len(answer) > _LARGEST:
                    raise StatusError(f"{shown} does not end its answer: that is no feed")
                client.settimeout(left)
    except (TimeoutError, BlockingIOError):
        raise StatusError(
            f"the feed at {shown} did not answer within {timeout:g} s: its process is stopped or hangs; look at it, "
            "and end it if it does not come back"
        ) from None
    except OSError as error:
        raise StatusError(_why_not(shown, error)) from None
    try:
        status = json.loads(answer)
    except (ValueError, RecursionError):
        status = None
    if not isinstance(status, dict):
        raise StatusError(f"what answers at {shown} is no feed")
    return status


def _why_not(path: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"no feed is running at {path}: there is no such socket. A feed has one with status=True or status=PATH"
    if isinstance(error, ConnectionRefusedError):
        if not _is_socket(path):
            return f"{path} is no socket: name that of a feed, which has one with status=True or status=PATH"
        return f"no feed is running at {path}: the process that made the socket is gone"
    if isinstance(error, PermissionError):
        return f"no permission for {path}: a status socket is its owner's alone. Ask as the user who runs the feed"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return f"the feed at {path} hung up: it is ending, or it takes this for another user's process"
    return f"{path} can't be read: {error.strerror or error}"


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(Path(path).stat().st_mode)
    except OSError:
        return True  # it has gone meanwhile


def _require_unix_sockets() -> None:
    if not hasattr(socket, "AF_UNIX"):
        raise StatusError("a feed's status is read through a Unix socket, and this system has none: use stats()")


def _candidates() -> list[Path]:
    found = []
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):  # noqa: PTH117
        found.append(Path(runtime) / _NAME)
    found.append(Path("/run/user") / str(os.getuid()) / _NAME)
    with contextlib.suppress(RuntimeError):
        found.append(Path.home() / ".cache" / _NAME)
    found.append(Path(tempfile.gettempdir()) / f"{_NAME}-{os.getuid()}")
    return found


def _make_private(path: Path) -> str:
    """Make the directory where it is missing; what is wrong with it, or ""."""
    try:
        if path.parent.name == ".cache":
            path.parent.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
    except OSError as error:
        return f"{path}: {error.strerror}"
    return _fault(path)


def _fault(path: Path) -> str:
    """What is wrong with a directory, or "" where its owner can use it, and nobody else."""
    try:
        info = path.lstat()
        if stat.S_ISLNK(info.st_mode):
            return f"{path} is a symbolic link"
        if not stat.S_ISDIR(info.st_mode):
            return f"{path} is no directory"
        if info.st_uid != os.getuid():
            return f"{path} belongs to another user"
        if info.st_mode & _OTHERS:
            return f"{path} is open to other users (chmod 700 it)"
        if not os.access(path, os.W_OK | os.X_OK):
            return f"{path} can't be written"
    except OSError as error:
        return f"{path}: {error.strerror}"
    return ""


def _check_parent(path: Path) -> None:
    """StatusError where others could put a socket of theirs in the place of this one."""
    try:
        info = path.parent.stat()
    except OSError as error:
        raise StatusError(f"can't make {path}: {path.parent}: {error.strerror}") from None
    if not stat.S_ISDIR(info.st_mode):
        raise StatusError(f"can't make {path}: {path.parent} is no directory")
    if info.st_uid not in (0, os.getuid()):
        raise StatusError(f"{path.parent} belongs to another user: name a path in a directory of your own")
    if info.st_mode & 0o022 and not info.st_mode & stat.S_ISVTX:
        raise StatusError(f"other users may write in {path.parent}: name a path in a directory of your own")


def _listen(path: Path) -> tuple[socket.socket, tuple[int, int]]:
    """A socket that listens at a path, and which file that is."""
    with _alone_in(path.parent):
        return _listen_alone(path)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One process and thread at a time looks at what is there and puts its own in place."""
    import fcntl  # where there are sockets with names, there is this

    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        yield  # what is wrong with it shows in a moment
        return
    try:
        with contextlib.suppress(OSError):  # of file systems that know no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _listen_alone(path: Path) -> tuple[socket.socket, tuple[int, int]]:
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise StatusError(f"{path} is too long for a socket: name a path of {_LONGEST_PATH} bytes at most")
    try:
        info = path.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StatusError(f"can't make {path}: {error.strerror}") from None
    else:
        if not stat.S_ISSOCK(info.st_mode):
            raise StatusError(f"{path} exists and is no socket: name another path")
        if not _is_dead(path):
            raise StatusError(f"{path} is in use by another feed: name another path")
    # It listens before it has its name: a socket with that name that refuses is a dead one, always.
    unnamed = path.with_name(f".{os.getpid()}-{next(_numbers)}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # On Linux the file gets the mode that the socket has; elsewhere there is a moment until the next line.
        with contextlib.suppress(OSError):
            os.fchmod(listener.fileno(), 0o600)
        listener.bind(os.fspath(unnamed))
        unnamed.chmod(0o600)
        listener.listen(_BACKLOG)
        info = unnamed.lstat()
        unnamed.rename(path)
    except OSError as error:
        listener.close()
        with contextlib.suppress(OSError):
            unnamed.unlink()
        raise StatusError(f"can't make {path}: {error.strerror or error}") from None
    return listener, (info.st_dev, info.st_ino)


def _unlink(path: Path, identity: tuple[int, int], pid: int) -> None:
    if os.getpid() != pid:
        return
    with contextlib.suppress(OSError):
        info = path.lstat()
        if (info.st_dev, info.st_ino) == identity:
            path.unlink()


def _clean(where: Path) -> None:
    for path in where.glob(f"*{_SUFFIX}"):
        if _is_dead(path):
            with contextlib.suppress(OSError):
                path.unlink()


def _is_dead(path: Path) -> bool:
    """Whether it is a socket that nobody listens at; a process that merely hangs still does."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            probe.connect(os.fspath(path))
    except ConnectionRefusedError:
        return True
    except OSError:
        pass
    return False


def _may_ask(client: socket.socket) -> bool:
    return _peer(client) in (None, 0, os.getuid())


def _is_own(server: socket.socket) -> bool:
    return os.getuid() == 0 or _peer(server) in (None, 0, os.getuid())


def _peer(sock: socket.socket) -> int | None:
    """The user at the other end; None where the system does not tell."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    return int(uid)


def _plain(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return redact(value)
    return value if isinstance(value, bool | int | float | None) else redact(str(value))
