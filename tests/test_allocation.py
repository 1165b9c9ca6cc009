"""Allocation: what is asked, which replies are understood, what each failure becomes."""

import asyncio
import json
import threading
import time
from urllib.parse import parse_qs, urlsplit

import pytest

import jvq_fast as jvq
from jvq_fast.allocation import SERVICE, allocate, parse_server, service_url
from jvq_fast.redact import Secret
from ws_script import TOKEN, Peer, Script, ScriptServer, reply, serve


def secret() -> Secret:
    made = Secret.read(TOKEN)
    assert isinstance(made, Secret)
    return made


def ask(script: Script, timeout: float = 5.0) -> tuple[str, list[bytes]]:
    with ScriptServer(script) as server:
        text = allocate(secret(), service=service_url(server.http), timeout=timeout)
    return text, server.heads


def failure(script: Script, timeout: float = 5.0) -> jvq.AllocationError:
    with pytest.raises(jvq.AllocationError) as caught:
        ask(script, timeout)
    return caught.value


def test_one_request_in_the_documented_form() -> None:
    text, heads = ask(reply(200, b'{"code":"0","server":"ws://1.2.3.4:21966"}'))
    assert text == "ws://1.2.3.4:21966"
    assert len(heads) == 1
    method, target, _ = heads[0].split(b"\r\n")[0].split(b" ")
    url = urlsplit(target.decode())
    assert method == b"GET"
    assert url.path == "/query/server"
    assert parse_qs(url.query) == {"market": ["ab"], "type": ["websocket"], "token": [TOKEN]}


@pytest.mark.parametrize("code", ['"0"', "0"])
def test_code_zero_is_success_as_text_and_as_number(code: str) -> None:
    assert ask(reply(200, b'{"code":%s,"server":" 1.2.3.4:1 "}' % code.encode()))[0] == "1.2.3.4:1"


@pytest.mark.parametrize("status", [200, 401, 403, 500])
@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"code": "-1", "message": "token错误"}, "-1", "token错误"),
        ({"code": -1, "msg": "no balance"}, "-1", "no balance"),
        ({"code": "1", "message": "", "msg": "both"}, "1", "both"),
        ({"code": "1"}, "1", ""),
        ({"code": "1", "server": "ws://1.2.3.4:1"}, "1", ""),
    ],
)
def test_any_other_code_is_a_refusal(status: int, body: dict[str, object], code: str, message: str) -> None:
    error = failure(reply(status, json.dumps(body).encode()))
    assert isinstance(error, jvq.AllocationRefusedError)
    assert (error.code, error.message) == (code, message)
    assert code in str(error)
    assert message in str(error)


def test_a_refusal_with_half_a_surrogate_pair_can_be_printed() -> None:
    error = failure(reply(200, b'{"code":"-1","message":"\\ud800 no"}'))
    assert str(error).encode() == b"the allocation service refused: code -1, ? no"


def reset(peer: Peer) -> None:
    peer.read_head()
    peer.reset()


def garbage(peer: Peer) -> None:
    peer.read_head()
    peer.send(b"\x00\xff" * 100 + b"\r\n\r\n")


def bad_chunks(peer: Peer) -> None:
    peer.read_head()
    peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")


def never(peer: Peer) -> None:
    peer.read_head()
    peer.until_closed()


def trickle(peer: Peer) -> None:
    peer.read_head()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
    for _ in range(100):
        time.sleep(0.1)
        peer.send(b" ")


FAILURES: dict[str, tuple[Script, str]] = {
    "5xx": (reply(503, b"<html>busy</html>"), "503"),
    "5xx with JSON without a code": (reply(502, b"{}"), "502"),
    "not JSON": (reply(200, b"hello"), "JSON"),
    "not an object": (reply(200, b'["0"]'), "JSON"),
    "deep": (reply(200, b"[" * 60000), "JSON"),
    "not UTF-8": (reply(200, b'{"code":"0","server":"\xff"}'), "JSON"),
    "empty": (reply(200, b""), "JSON"),
    "no server": (reply(200, b'{"code":"0"}'), "no server"),
    "empty server": (reply(200, b'{"code":"0","server":" "}'), "no server"),
    "server of another type": (reply(200, b'{"code":"0","server":5}'), "no server"),
    "too long": (reply(200, b" " * 70000), "65536 bytes"),
    "reset": (reset, "reset"),
    "garbage": (garbage, "reach"),
    "bad chunks": (bad_chunks, "re"),
    "a bomb": (reply(200, b"\x1f\x8b\x08\x00", b"Content-Encoding: gzip"), "re"),
    "redirect": (reply(302, b"", b"Location: http://127.0.0.1:1/elsewhere"), "302"),
    "no answer": (never, "within 0.5 s"),
    "trickle": (trickle, "within 0.5 s"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_reply_that_is_of_no_use_is_an_allocation_error(kind: str) -> None:
    script, words = FAILURES[kind]
    error = failure(script, 0.5 if "within" in words else 5.0)
    assert type(error) is jvq.AllocationError
    assert words in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None


def test_nothing_there() -> None:
    with ScriptServer(never) as server:
        pass
    with pytest.raises(jvq.AllocationError, match="Connection refused"):
        allocate(secret(), service=service_url(server.http))


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ScriptServer(reply(200, b'{"code":"0","server":"ws://127.0.0.1:9"}')) as proxy:
        monkeypatch.setenv("http_proxy", proxy.http)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert allocate(secret(), service=SERVICE) == "ws://127.0.0.1:9"
    assert proxy.heads[0].startswith(b"GET http://jvquant.com/query/server?")


@pytest.mark.parametrize(
    ("text", "shown", "url"),
    [
        ("ws://1.2.3.4:21966", "ws://1.2.3.4:21966", "ws://1.2.3.4:21966?token=T"),
        ("ws://1.2.3.4:21966/", "ws://1.2.3.4:21966", "ws://1.2.3.4:21966?token=T"),
        ("1.2.3.4:21966", "ws://1.2.3.4:21966", "ws://1.2.3.4:21966?token=T"),
        (" host:1/path ", "ws://host:1/path", "ws://host:1/path?token=T"),
        ("host:1/path/", "ws://host:1/path/", "ws://host:1/path/?token=T"),
        ("http://1.2.3.4:8080", "ws://1.2.3.4:8080", "ws://1.2.3.4:8080?token=T"),
        ("https://host", "wss://host:443", "wss://host:443?token=T"),
        ("wss://host/x", "wss://host:443/x", "wss://host:443/x?token=T"),
        ("host", "ws://host:80", "ws://host:80?token=T"),
        ("ws://h:1?src=pip&token=old", "ws://h:1", "ws://h:1?src=pip&token=T"),
        ("ws://h:1/p?src=pip", "ws://h:1/p", "ws://h:1/p?src=pip&token=T"),
        ("WS://H:1", "ws://h:1", "ws://h:1?token=T"),
        ("ws://[::1]:5", "ws://[::1]:5", "ws://[::1]:5?token=T"),
    ],
)
def test_every_form_of_a_server_is_understood(text: str, shown: str, url: str) -> None:
    address = parse_server(text)
    assert str(address) == shown
    assert address.url(secret()) == url.replace("T", TOKEN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "ws://",
        "ftp://h:1",
        "h:0",
        "h:99999",
        "h:x",
        "ws://u:p@h:1",
        "ws://h:1#f",
        "ws://[::1",
        "a b:1",
        "h\n:1",
    ],
)
def test_what_is_no_server_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="not a server"):
        parse_server(text)
    with pytest.raises(ValueError, match="not a server"):
        jvq.Feed(TOKEN, server=text)


def test_the_service_is_the_vendors_unless_another_is_named() -> None:
    assert SERVICE == "http://jvquant.com/query/server" == service_url("jvquant.com")
    assert service_url("http://127.0.0.1:5") == "http://127.0.0.1:5/query/server"
    assert service_url("127.0.0.1:5/") == "http://127.0.0.1:5/query/server"
    assert service_url("https://h/server") == "https://h/server"
    for text in ("", "ws://h:1", "http://", "http://h:1?token=x", "http://u@h", "http://h:x", "h h"):
        with pytest.raises(ValueError, match="not an allocation service"):
            service_url(text)
        with pytest.raises(ValueError, match="not an allocation service"):
            jvq.Feed(TOKEN, allocation=text)


def test_arguments_of_the_wrong_type_are_named() -> None:
    with pytest.raises(TypeError, match="server is a str, not int"):
        jvq.Feed(TOKEN, server=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="allocation is a str, not int"):
        jvq.Feed(TOKEN, allocation=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="exclude"):
        jvq.Feed(TOKEN, server="h:1", allocation="h:1")


# --- as the feed uses it ---


def test_the_loop_goes_on_while_an_allocation_hangs_and_stop_does_not_wait_for_it() -> None:
    with ScriptServer(never) as server:
        feed = jvq.Feed(TOKEN, allocation=server.http, allocation_timeout=60)

        async def main() -> int:
            running = asyncio.create_task(feed.run_async())
            ticks = 0
            while not server.accepted:
                await asyncio.sleep(0.01)
                ticks += 1
            await asyncio.sleep(0.05)
            feed.stop()
            await asyncio.wait_for(running, 10)
            return ticks

        assert asyncio.run(asyncio.wait_for(main(), 20)) > 0


def test_an_allocation_that_hangs_is_given_up_at_its_timeout() -> None:
    def slow_head(peer: Peer) -> None:
        peer.read_head()
        for _ in range(100):
            time.sleep(0.1)
            peer.send(b"H")

    with ScriptServer(slow_head) as server:
        with pytest.raises(jvq.AllocationError, match=r"within 0\.3 s"):
            jvq.Feed(TOKEN, allocation=server.http, allocation_timeout=0.3).run()


def test_a_server_that_can_not_be_read_is_an_allocation_error() -> None:
    with ScriptServer(reply(200, b'{"code":"0","server":"nowhere at all"}')) as server:
        with pytest.raises(jvq.AllocationError, match=r"of no use.*nowhere at all"):
            jvq.Feed(TOKEN, allocation=server.http).run()


@pytest.mark.parametrize(
    "form", ["ws://127.0.0.1:{}", "127.0.0.1:{}", "127.0.0.1:{}/deep/path/", "http://127.0.0.1:{}/"]
)
def test_the_feed_connects_to_every_form(form: str) -> None:
    with ScriptServer(serve(subscribed=False)) as market:
        body = json.dumps({"code": "0", "server": form.format(market.port)}).encode()
        with ScriptServer(reply(200, body)) as service:
            feed = jvq.Feed(TOKEN, allocation=service.http)
            feed.on_connect(lambda server: feed.stop())
            feed.run()
    target = urlsplit(market.heads[0].split(b" ")[1].decode())
    assert parse_qs(target.query) == {"token": [TOKEN]}


def test_each_attempt_allocates_anew_and_allocations_keep_their_distance() -> None:
    with ScriptServer(lambda peer: peer.accept()) as market:
        answer = reply(200, json.dumps({"code": "0", "server": f"127.0.0.1:{market.port}"}).encode())
        for interval, enough in ((0.0, 4), (600.0, 1)):
            with ScriptServer(answer) as service:
                feed = jvq.Feed(
                    TOKEN, allocation=service.http, allocation_interval=interval, backoff_min=0.001, backoff_max=0.001
                )
                left = threading.Semaphore(0)
                feed.on_disconnect(lambda reason, left=left: left.release())
                with feed:
                    for _ in range(enough):
                        assert left.acquire(timeout=20)
                    assert interval == 0 or not left.acquire(timeout=0.5)
                # the last one may have been begun and given up before it reached the service
                assert service.accepted <= feed.stats()["allocations"] <= service.accepted + 1
                assert service.accepted >= enough


def test_a_fixed_server_is_not_allocated_and_knows_no_distance() -> None:
    with ScriptServer(lambda peer: peer.accept()) as market:
        feed = jvq.Feed(TOKEN, server=market.ws, allocation_interval=600, backoff_min=0.001, backoff_max=0.001)
        left = threading.Semaphore(0)
        feed.on_disconnect(lambda reason: left.release())
        with feed:
            for _ in range(4):
                assert left.acquire(timeout=20)
        assert feed.stats()["allocations"] == 0
