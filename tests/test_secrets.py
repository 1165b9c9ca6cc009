"""A canary for a token, through every path that fails: it must not show anywhere but on the wire."""

import asyncio
import copy
import gc
import json
import logging
import pickle
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus

import pytest

import jvq_fast as jvq
from jvq_fast.allocation import allocate, service_url
from jvq_fast.redact import Secret, redact
from ws_script import BINARY, CLOSE, TEXT, Peer, Script, ScriptServer, binary, frame, reply, serve, trade

# Only ever a global: the tracebacks that are searched show the locals of the tests, too.
CANARIES = ["c0ffee5ca1ab1e0ddba11feedfacef00", "s+p/e=c.i-a_l~42+/=="]
CANARY = CANARIES[0]
WAIT = 20


def spelled_out() -> bytes:
    return "".join(f"%{ord(c):02X}" for c in CANARY).encode()


def echoes() -> bytes:
    """The token as a server may repeat it."""
    return b" ".join([CANARY.encode(), quote(CANARY, safe="").encode(), quote_plus(CANARY).encode(), spelled_out()])


class Everything(logging.Handler):
    """Formats each record in every way a host might, local variables included."""

    def __init__(self) -> None:
        super().__init__(level=0)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))
        self.texts.append(repr(vars(record)))
        if record.exc_info and record.exc_info[1] is not None:
            self.texts += anatomy(record.exc_info[1])


def anatomy(error: BaseException) -> list[str]:
    """All that can be seen of an exception: itself, its attributes, what is chained to it, all frames' locals."""
    seen: list[BaseException] = []
    texts: list[str] = []
    queue: list[BaseException | None] = [error]
    while queue:
        one = queue.pop()
        if one is None or any(one is other for other in seen):
            continue
        seen.append(one)
        texts += [str(one), repr(one), repr(one.args), repr(getattr(one, "__dict__", "")), repr(one.__reduce__())]
        texts += traceback.TracebackException.from_exception(one, capture_locals=True).format()
        queue += [one.__cause__, one.__context__, *(each for each in one.args if isinstance(each, BaseException))]
    return texts


def found_in(texts: list[str]) -> list[str]:
    plain = CANARY.lower()
    return [
        text for text in texts for spelling in (text, unquote(text), unquote_plus(text)) if plain in spelling.lower()
    ]


@pytest.fixture(params=CANARIES, ids=["hex", "special"], autouse=True)
def canary(request: pytest.FixtureRequest) -> Iterator[None]:
    global CANARY
    CANARY = request.param
    yield
    CANARY = CANARIES[0]


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Everything]:
    """Everything that is logged, by anyone, at any level, with asyncio's debug mode on."""
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    gc.collect()
    gc.freeze()
    handler = Everything()
    root = logging.getLogger()
    before = root.level
    levels = {
        name: logging.getLogger(name).level for name in ("asyncio", "picows", "urllib3", "aiofastnet", "jvq_fast")
    }
    root.addHandler(handler)
    root.setLevel(1)
    for name in levels:
        logging.getLogger(name).setLevel(1)
    yield handler
    gc.unfreeze()
    root.removeHandler(handler)
    root.setLevel(before)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def talkative(kind: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """A loop in debug mode that logs each handle it runs."""

    def make() -> asyncio.AbstractEventLoop:
        loop = pytest.importorskip("uvloop").new_event_loop() if kind == "uvloop" else asyncio.new_event_loop()
        loop.set_debug(True)
        loop.slow_callback_duration = 0
        return loop  # type: ignore[no-any-return]

    return make


def head_with(line: bytes) -> Script:
    def script(peer: Peer) -> None:
        peer.read_head()
        peer.send(line)

    return script


def hang(peer: Peer) -> None:
    peer.read_head()
    peer.until_closed()


def reset_head(peer: Peer) -> None:
    peer.read_head()
    peer.reset()


def lazily(make: Callable[[], Script]) -> Script:
    """The canary differs between tests, so scripts with it in them are made when they run."""

    def script(peer: Peer) -> None:
        make()(peer)

    return script


def talk(*frames: Callable[[], bytes]) -> Script:
    return lazily(lambda: cut(*(each() for each in frames)))


def cut(*frames: bytes) -> Script:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.text()
        peer.send(*frames)
        time.sleep(0.05)

    return script


def json_reply(**content: Any) -> bytes:
    return json.dumps(content).encode()


def echo() -> str:
    return echoes().decode()


ALLOCATION: dict[str, Script] = {
    "5xx": lazily(lambda: reply(500, echoes(), b"X-Echo: " + echoes())),
    "4xx": lazily(lambda: reply(404, echoes())),
    "not JSON": lazily(lambda: reply(200, echoes())),
    "refused, echoed": lazily(lambda: reply(200, json_reply(code="-1", message="bad token " + echo()))),
    "refused, echoed in msg": lazily(lambda: reply(200, json_reply(code=echo(), msg=[echo()]))),
    "refused, spelled out": lazily(lambda: reply(401, json_reply(code="1", message=spelled_out().decode()))),
    "no server": lazily(lambda: reply(200, json_reply(code="0", echo=echo()))),
    "useless server": lazily(lambda: reply(200, json_reply(code="0", server="ftp://" + CANARY))),
    "server at an unknown host": lazily(
        lambda: reply(200, json_reply(code="0", server=f"ws://{re.sub('[^a-z0-9]', '', CANARY)}.invalid:1/{CANARY}"))
    ),
    "server with a token": lazily(lambda: reply(200, json_reply(code="0", server="127.0.0.1:1/?token=" + CANARY))),
    "redirect": lazily(lambda: reply(302, b"", b"Location: http://127.0.0.1:1/?token=" + quote(CANARY).encode())),
    "timeout": hang,
    "reset": reset_head,
    "closed": lambda peer: None,
    "garbage": lazily(lambda: head_with(echoes() + b"\r\n\r\n")),
    "bad header": lazily(lambda: head_with(b"HTTP/1.1 200 OK\r\n" + echoes() + b"\r\n\r\n")),
    "bad length": lazily(lambda: head_with(b"HTTP/1.1 200 OK\r\nContent-Length: " + echoes() + b"\r\n\r\n")),
    "bad chunk": lazily(
        lambda: head_with(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + echoes() + b"\r\n")
    ),
    "bad status": lazily(lambda: head_with(b"HTTP/1.1 " + echoes() + b"\r\n\r\n")),
    "incomplete": lazily(lambda: head_with(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + echoes())),
}

SERVER: dict[str, Script] = {
    "4xx": lazily(lambda: reply(401, echoes(), b"X-Echo: " + echoes())),
    "5xx": lazily(lambda: reply(503, echoes())),
    "redirect": lazily(lambda: reply(307, b"", b"Location: ws://127.0.0.1:1/?token=" + quote(CANARY).encode())),
    "garbage": lazily(lambda: head_with(echoes() + b"\r\n\r\n")),
    "bad status": lazily(lambda: head_with(b"HTTP/1.1 101 " + echoes() + b"\r\n\r\n")),
    "bad header": lazily(lambda: head_with(b"HTTP/1.1 101 Any\r\n" + echoes() + b"\r\n\r\n")),
    "bad upgrade": lazily(lambda: head_with(b"HTTP/1.1 101 Any\r\nUpgrade: " + echoes() + b"\r\n\r\n")),
    "too long": lazily(lambda: head_with(b"HTTP/1.1 101 Any\r\nX: " + echoes() * 500)),
    "timeout": hang,
    "reset": reset_head,
    "closed": lambda peer: None,
    "refused by text": talk(lambda: frame(TEXT, b"-1#" + echoes())),
    "refused by a spelled out text": talk(lambda: frame(TEXT, b"-1#" + spelled_out())),
    "goodbye": talk(lambda: frame(TEXT, b"-1#x"), lambda: frame(CLOSE, b"\x03\xf0" + CANARY.encode())),
    "bad text": talk(lambda: frame(TEXT, b"-1#x"), lambda: frame(TEXT, echoes() + b"\xff")),
    "bad goodbye": talk(lambda: frame(TEXT, b"-1#x"), lambda: frame(CLOSE, b"\x03\xe8" + CANARY.encode() + b"\xff")),
    "protocol error": talk(lambda: frame(TEXT, b"-1#x"), lambda: frame(BINARY, echoes(), rsv=4)),
}


class Trial:
    """A feed against scripts, and all that can be seen of it from outside."""

    def __init__(self, logs: Everything, *, loop: str, **settings: Any) -> None:
        self._logs = logs
        self.texts: list[str] = []
        self.feed = jvq.Feed(
            CANARY,
            ["lv2_600519"],
            backoff_min=0.01,
            backoff_max=0.01,
            allocation_interval=0,
            handshake_timeout=0.3,
            connect_timeout=1,
            allocation_timeout=0.3,
            **settings,
        )
        self.feed._loop_factory = talkative(loop)
        self.feed.on_connect(self._keep)
        self.feed.on_disconnect(self._keep)
        self.feed.on_gap(self._keep)
        self.errors = 0
        self.feed.on_error(self._failed)

    def _keep(self, what: object) -> None:
        self.texts.append(repr(what))

    def _failed(self, error: Exception, where: str) -> None:
        self.errors += 1
        self.texts += anatomy(error)
        self.texts += [where, repr(self.feed), repr(vars(self.feed)), repr(self.feed.stats())]

    def run(self) -> BaseException | None:
        watchdog = threading.Timer(WAIT, self.feed.stop)
        watchdog.start()
        raised: BaseException | None = None
        try:
            self.feed.run()
        except jvq.JvqError as error:
            raised = error
            self.texts += anatomy(error)
        finally:
            watchdog.cancel()
        self.texts += [repr(self.feed), repr(vars(self.feed)), repr(self.feed.stats())]
        return raised

    def clean(self) -> bool:
        gc.collect()
        assert self._logs.texts
        assert found_in(self.texts) == []
        assert found_in(self._logs.texts) == []
        return True


@pytest.mark.parametrize("path", ALLOCATION)
def test_allocation_that_fails_shows_nothing(path: str, logs: Everything) -> None:
    with ScriptServer(ALLOCATION[path]) as service:
        trial = Trial(logs, loop="asyncio", allocation=service.http)
        assert isinstance(trial.run(), (jvq.AllocationError, jvq.ConnectError))
    assert trial.clean()


def test_an_allocation_service_with_the_token_in_its_path_is_told_without_it(logs: Everything) -> None:
    reasons: list[str] = []
    with ScriptServer(reply(500, b"")) as service:
        trial = Trial(logs, loop="asyncio", allocation=f"{service.http}/{CANARY}")
        trial.feed.on_state(lambda state, reason: reasons.append(reason))
        assert isinstance(trial.run(), jvq.AllocationError)
    assert len(reasons) == 2
    assert found_in(reasons + logs.texts) == []


@pytest.mark.parametrize("path", SERVER)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_connection_that_fails_shows_nothing(path: str, loop: str, logs: Everything) -> None:
    with ScriptServer(SERVER[path]) as server:
        trial = Trial(logs, loop=loop, server=server.ws)
        assert isinstance(trial.run(), (jvq.ConnectError, jvq.ServerError))
    assert trial.clean()


@pytest.mark.parametrize("canary", CANARIES[:1], ids=["hex"], indirect=True)
@pytest.mark.parametrize("path", [*SERVER, *(f"allocation: {each}" for each in ALLOCATION)])
def test_a_failure_on_the_way_back_shows_nothing(path: str, logs: Everything) -> None:
    """The same once connected, when most failures are reported instead of raised."""
    kind, _, name = path.rpartition(": ")
    first = cut(binary(trade(1)))
    with ScriptServer(first, SERVER[name]) if not kind else ScriptServer(first) as server:
        good = lazily(lambda: reply(200, json_reply(code="0", server=server.ws)))
        with ScriptServer(good, ALLOCATION[name] if kind else good) as service:
            trial = Trial(logs, loop="asyncio", allocation=service.http)
            trial.feed.on_error(lambda error, where: trial.feed.stop())
            raised = trial.run()
            # A token that is not accepted ends the feed.
            assert (raised is None) == bool(trial.errors)
    assert trial.clean()


def test_nothing_there_shows_nothing(logs: Everything) -> None:
    with ScriptServer(hang) as gone:
        pass
    for settings in ({"allocation": gone.http}, {"server": gone.ws}):
        trial = Trial(logs, loop="asyncio", **settings)
        assert isinstance(trial.run(), jvq.JvqError)
        assert trial.clean()


def test_an_unknown_host_shows_nothing(logs: Everything) -> None:
    for settings in ({"allocation": "http://nowhere.invalid"}, {"server": "nowhere.invalid"}):
        trial = Trial(logs, loop="asyncio", **settings)
        assert isinstance(trial.run(), jvq.JvqError)
        assert trial.clean()


def test_a_proxy_that_refuses_shows_nothing(logs: Everything, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ScriptServer(ALLOCATION["5xx"]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.http)
        trial = Trial(logs, loop="asyncio")
        assert isinstance(trial.run(), jvq.AllocationError)
    assert CANARY.encode() in proxy.heads[0] or quote_plus(CANARY).encode() in proxy.heads[0]
    assert trial.clean()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_feed_that_works_shows_nothing(loop: str, logs: Everything) -> None:
    with ScriptServer(serve(binary(trade(1)))) as server:
        good = lazily(lambda: reply(200, json_reply(code="0", server=f"{server.ws}/?token={CANARY}")))
        with ScriptServer(good) as service:
            trial = Trial(logs, loop=loop, allocation=service.http)
            trial.feed.on_batch(lambda n: trial.feed.stop())
            assert trial.run() is None
    assert CANARY.encode() in server.heads[0] or quote_plus(CANARY).encode() in server.heads[0]
    assert trial.clean()
    assert any("urllib3" in text for text in logs.texts)


def test_a_feed_that_is_cancelled_shows_nothing(logs: Everything) -> None:
    errors: list[BaseException] = []

    async def main(**settings: Any) -> None:
        trial = Trial(logs, loop="asyncio", **settings)
        try:
            await asyncio.wait_for(trial.feed.run_async(), 0.15)
        except TimeoutError as error:
            errors.append(error)
        assert trial.clean()

    with ScriptServer(hang) as server:
        for settings in ({"server": server.ws}, {"allocation": server.http}):
            asyncio.run(main(**settings), debug=True)
    assert len(errors) == 2
    assert found_in([text for error in errors for text in anatomy(error)]) == []


def test_an_interrupted_attempt_shows_nothing(logs: Everything, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> Any:
        raise KeyboardInterrupt

    with ScriptServer(hang) as server:
        monkeypatch.setattr("jvq_fast.connection.Connection._resolve", interrupt)
        trial = Trial(logs, loop="asyncio", server=server.ws)
        with pytest.raises(KeyboardInterrupt) as caught:
            trial.run()
        monkeypatch.undo()
        monkeypatch.setattr("requests.Session.get", interrupt)
        token = Secret.read(CANARY)
        with pytest.raises(KeyboardInterrupt) as caught_there:
            allocate(token, service=service_url(server.http))  # type: ignore[arg-type]
    assert found_in(anatomy(caught.value) + anatomy(caught_there.value)) == []


def test_what_a_handler_raises_shows_no_token(logs: Everything) -> None:
    with ScriptServer(serve(binary(trade(1)))) as server:
        trial = Trial(logs, loop="asyncio", server=server.ws)

        @trial.feed.on_trades
        def fail(code: str, trades: Any) -> None:
            trial.feed.stop()
            raise ZeroDivisionError

        assert trial.run() is None
        assert trial.errors == 1
    assert trial.clean()


def test_wrong_arguments_show_no_token() -> None:
    def raised(**settings: Any) -> BaseException:
        """Made in a frame of its own: a caller that holds the token in a local shows it himself."""
        try:
            jvq.Feed(settings.pop("token", None) or globals()["CANARY"], **settings)
        except (ValueError, TypeError) as error:
            error.__traceback__ = error.__traceback__.tb_next if error.__traceback__ else None
            return error
        raise AssertionError(settings)

    errors = [
        raised(server="ftp://h?token=" + CANARY),
        raised(server="ftp://h/" + CANARY),
        raised(allocation="http://h?token=" + CANARY),
        raised(allocation="ws://" + CANARY),
        raised(subscriptions=["lv2-600519"]),
        raised(loop="none"),
        raised(market="none"),
        raised(capacity=-1),
        raised(server=CANARY, allocation="http://h/" + CANARY),
        raised(server="h?token=" + CANARY, max_message=-1),
        raised(token=CANARY + " "),
        raised(token=CANARY.encode()),
    ]
    texts = [text for error in errors for text in anatomy(error)]
    assert found_in(texts) == []


def test_a_secret_hides_and_can_not_be_copied_out() -> None:
    secret = Secret.read(CANARY)
    assert isinstance(secret, Secret)
    assert found_in([repr(secret), str(secret), f"{secret}", f"{secret!r}", repr([secret])]) == []
    assert secret.reveal() == CANARY
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="Secret"):
            way(secret)
    assert Secret.read(secret) is secret


def test_redaction_knows_every_spelling() -> None:
    secret = Secret.read(CANARY)
    assert secret is not None
    for spelling in (
        CANARY,
        CANARY.upper(),
        quote(CANARY, safe=""),
        spelled_out().decode(),
        spelled_out().decode().lower(),
        quote(spelled_out().decode()),
        json.dumps("".join(f"\\u{ord(c):04x}" for c in CANARY)).strip('"'),
        "".join(f"\\u{ord(c):04X}" for c in CANARY),
    ):
        assert redact(f"before {spelling} after") == "before *** after"
    assert redact("nothing to see") == "nothing to see"


def test_the_hosts_logging_keeps_its_records(logs: Everything) -> None:
    """The filter blots tokens out; other users of the HTTP client see their own records unchanged."""
    assert isinstance(Secret.read(CANARY), Secret)
    with ScriptServer(reply(200, b"{}")) as server:
        with pytest.raises(jvq.AllocationError):
            allocate(Secret.read(CANARY), service=service_url(server.http))  # type: ignore[arg-type]
    logger = logging.getLogger("urllib3.connectionpool")
    logger.debug("GET %s %d", "/other", 7)
    assert any(text == "GET /other 7" for text in logs.texts)
    assert len([each for each in logger.filters if type(each).__name__ == "RedactingFilter"]) == 1
    assert logging.getLogger().level == 1
