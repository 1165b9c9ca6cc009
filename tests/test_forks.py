"""A forked child keeps nothing of a feed: neither its connection nor its capture, and it waits for nothing."""

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import jvq_fast as jvq
from ws_script import TOKEN, ScriptServer, binary, serve, trade

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
WAIT = 20


def in_child(work: Callable[[], object]) -> None:
    """Fork, and do it there; AssertionError where it fails or hangs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks where there are threads
        child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    deadline = time.monotonic() + WAIT
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            raise AssertionError("the child hangs")
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(status) == 0


def opened() -> set[tuple[int, int]]:
    """What the descriptors of this process are of: sockets, pipes and files, as device and number."""
    found = set()
    for number in range(256):
        try:
            info = os.fstat(number)
        except OSError:
            continue
        found.add((info.st_dev, info.st_ino))
    return found


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_child_holds_neither_connection_nor_capture(tmp_path: Path, loop: str) -> None:
    path = tmp_path / "capture.jvq"
    with ScriptServer(serve(binary(trade(1)))) as server:
        feed = jvq.Feed(TOKEN, "lv2_600519", server=server.ws, loop=loop, capture=path)  # type: ignore[arg-type]
        with feed:
            deadline = time.monotonic() + WAIT
            while not feed.trades.head:
                assert time.monotonic() < deadline
                assert not feed.join(0.01)
            connection = feed._channel.connection
            assert connection is not None
            sock = connection._socket_id
            file = path.stat().st_dev, path.stat().st_ino
            assert {sock, file} <= opened()

            def look() -> None:
                assert not {sock, file} & opened()

            in_child(look)
            assert {sock, file} <= opened()
            assert feed.connected


def test_a_child_that_leaves_the_block_of_a_feed_waits_for_nothing() -> None:
    with ScriptServer(serve(binary(trade(1)))) as server:
        with jvq.Feed(TOKEN, "lv2_600519", server=server.ws) as feed:
            deadline = time.monotonic() + WAIT
            while not feed.trades.head:
                assert time.monotonic() < deadline
                assert not feed.join(0.01)

            def leave() -> None:
                assert feed.join() is True
                feed.stop()
                feed.__exit__(None, None, None)

            in_child(leave)
            assert feed.connected
        assert feed.state is jvq.State.STOPPED
