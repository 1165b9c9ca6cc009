"""Replies of the allocation service, and the addresses in them, beside plain rules for both.

Whatever comes, the outcome is an address that can be connected to, a ValueError, or an error of the AllocationError
family; no message holds the token. The first byte of an input chooses the HTTP status, the rest is the body.
"""

import json
import random
from urllib.parse import parse_qsl, urlsplit

import harness
from harness import pick

with harness.instrumented():
    from jvq_fast.allocation import Reply, ServerAddress, judge, parse_server, service_url
    from jvq_fast.errors import AllocationError, AllocationRefusedError
    from jvq_fast.redact import Secret

from picows.url import parse_url
from tokens import TOKEN, blotted, forms

SECRET = Secret.read(TOKEN)
STATUSES = (200, 200, 200, 401, 404, 500, 503)
SHOWN = 200


def check(data: bytes) -> None:
    status, body = STATUSES[data[0] % len(STATUSES)] if data else 200, data[1:]
    outcome = judge(Reply(status, {}, body, 0.0))
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        reply = None
    if isinstance(outcome, str):
        assert isinstance(reply, dict)
        assert reply["code"] == "0" or (reply["code"] == 0 and not isinstance(reply["code"], bool))
        assert outcome
        assert outcome == reply["server"].strip()
        check_address(outcome)
        return
    assert isinstance(outcome, AllocationError)
    check_message(str(outcome))
    if body.count(b"[") + body.count(b"{") > 900:
        return  # what is nested too deeply depends on how deep the caller stands
    code = reply.get("code") if isinstance(reply, dict) else None
    refused = isinstance(reply, dict) and code not in ("0", 0) and (code is not None or status == 200)
    refused = refused or (isinstance(reply, dict) and code is False)
    assert isinstance(outcome, AllocationRefusedError) == refused
    if isinstance(outcome, AllocationRefusedError):
        assert isinstance(outcome.code, str)
        assert isinstance(outcome.message, str)
        assert max(len(outcome.code), len(outcome.message)) <= SHOWN
        said = reply.get("message") or reply.get("msg")
        if isinstance(said, str) and said.isprintable():
            assert outcome.message == blotted(said)[:SHOWN]
    elif not isinstance(reply, dict):
        assert (str(status) in str(outcome)) == (status != 200)


def check_message(text: str) -> None:
    assert blotted(text) == text
    text.encode()  # it can be printed


def check_address(text: str) -> None:
    for read in (parse_server, service_url):
        try:
            found = read(text)
        except ValueError as error:
            check_message(f"{error} {error.__cause__} {error.__context__}")
            continue
        if isinstance(found, ServerAddress):
            check_server(found)
        else:
            parts = urlsplit(found)
            assert parts.scheme in ("http", "https")
            assert parts.hostname
            assert not parts.query
            assert not parts.fragment


def check_server(address: ServerAddress) -> None:
    check_message(str(address))
    url = address.url(SECRET)
    assert not any(c.isspace() or not c.isprintable() for c in url)
    parts = urlsplit(url)
    assert (parts.scheme, parts.hostname, parts.port) == (address.scheme, address.host, address.port)
    assert address.scheme in ("ws", "wss")
    assert 0 < address.port < 65536
    query = parse_qsl(parts.query, keep_blank_values=True)
    assert [value for name, value in query if name.lower() == "token"] == [TOKEN]
    try:
        used = parse_url(url)
    except UnicodeError:
        return  # no name in the sense of IDNA; the attempt to connect says so
    assert (used.port, used.is_secure) == (address.port, address.scheme == "wss")
    used.resource_name.encode("ascii")
    assert parse_server(url) == address


def plant() -> None:
    """No address is thought to use TLS on its own port."""
    global check_server
    right = check_server

    def wrong(address: ServerAddress) -> None:
        right(address)
        assert address.scheme == "ws" or address.port != 443

    check_server = wrong


SERVERS = (
    *("ws://1.2.3.4:21966", "1.2.3.4:1", "host", "http://h:8080/", "ws://[::1]:5", "ws://h/p?src=pip&a=", "h:0"),
    *("h:65536", "ftp://h", "ws://u:p@h", "ws://h#f", "ws://h:x", "ws://", "://", "[", "ws://[::1"),
    *("h/\u00e9?\u00e9=1", "\u8d35.cn:1"),
    *("h?" + form for form in forms()),
    *("h/" + form for form in forms()),
    "h?Token=" + TOKEN,
    TOKEN + ":1",
)
PIECES = (
    *(piece.encode() for piece in SERVERS),
    *(b'{"code":', b'"0"', b"0", b"0.0", b"-0", b"false", b"true", b"null", b'"-1"', b"{}", b"[]", b"NaN", b"1e999"),
    *(b',"server":', b',"message":', b',"msg":', b"}", b'"', b"\\", b'"\\ud800"', b'"\\u0000"', b"\xff"),
    *(b"\xef\xbb\xbf", "token错误".encode(), b" ", b"\n", b"\t", b":", b"/", b"?", b"#", b"@", b"%"),
    *(b"%0d%0a", b"https://", b"wss://", b"[" * 400),
    *(form.encode() for form in forms()),
)


def reply(server: object, code: object = "0") -> bytes:
    return json.dumps({"code": code, "server": server}, ensure_ascii=False).encode()


def seeds() -> list[bytes]:
    found = [b"\0" + reply(server) for server in SERVERS]
    found += [b"\0" + reply(None, code) for code in ("0", 0, "-1", None)]
    found += [b"\3" + body for body in (b"", b"<html>", b"[]", '{"code":"-1","message":"token错误"}'.encode())]
    found += [b"\0" + json.dumps({"code": "1", "msg": form}).encode() for form in forms()]
    return found


def mutate(data: bytes, rng: random.Random) -> bytes:
    at = 1 + rng.randrange(len(data) + 1)
    match rng.randrange(8):
        case 0:
            return bytes([rng.randrange(len(STATUSES))]) + data[1:]
        case 1:
            return data[:1] + reply(pick(rng, *PIECES).decode(errors="replace"), rng.choice(("0", 0)))
        case 2:
            kind = rng.choice(("message", "msg", "code"))
            return b"\0" + json.dumps({"code": -1, kind: pick(rng, *PIECES).decode(errors="replace")}).encode()
        case 3 | 4:
            try:
                said = json.loads(data[1:])
                server = said["server"]
            except (ValueError, RecursionError, TypeError, KeyError):
                return data + pick(rng, *PIECES)
            text = server if isinstance(server, str) else ""
            place = rng.randrange(len(text) + 1)
            piece = pick(rng, *PIECES).decode(errors="replace")
            said["server"] = text[:place] + piece + text[place + rng.randrange(5) :]
            return data[:1] + json.dumps(said).encode()
        case 5:
            return data[:at] + data[at + rng.randrange(8) :]
        case 6:
            depth = rng.randrange(1000)
            return data[:1] + b'{"code":' + b"[" * depth + b"]" * depth + b',"msg":' + pick(rng, *PIECES) + b"}"
        case _:
            return data[:at] + pick(rng, *PIECES) + data[at:]


if __name__ == "__main__":
    harness.run(check, seeds, mutate, plant, longest=2500)
