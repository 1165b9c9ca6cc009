"""TEXT messages into what a feed makes of them, beside the same in plain Python.

What the text is about, the error it becomes (verbatim but for the token), who is told, and the reply to a request. An
input is the payload of a TEXT frame; what is no UTF-8 never comes that far.
"""

import random
import threading
from types import SimpleNamespace
from typing import Any

import harness
from harness import pick

with harness.instrumented():
    from jvq_fast.channel import Channel
    from jvq_fast.decoder import Decoder
    from jvq_fast.errors import AllocationRefusedError, ConnectionLimitError, ServerError
    from jvq_fast.events import Events
    from jvq_fast.meter import Meter
    from jvq_fast.redact import Secret
    from jvq_fast.rules import Notice, classify, ends_the_feed
    from jvq_fast.supervisor import Supervisor

from tokens import TOKEN, blotted, forms

SECRET = Secret.read(TOKEN)
LIMITS = ("并发上限", "too many connections", "connection limit")
ABOUT_TOKEN = ("token", "令牌", "密钥", "凭证", "鉴权", "认证", "授权", "登录")
NO_GOOD = (
    *("无效", "错误", "有误", "不存在", "不正确", "非法", "过期", "失效", "失败", "未", "缺"),
    *("invalid", "expired", "wrong", "bad", "unknown", "illegal", "missing", "not found", "denied"),
    *("unauthorised", "unauthorized", "revoked"),
)
LATER = (
    *("频繁", "稍后", "稍候", "重试", "繁忙", "超时", "维护", "服务器", "数据库", "连接失败"),
    *("later", "again", "retry", "busy", "timeout", "timed out", "unavailable", "temporar", "maintenance"),
)
# Letters beyond ASCII that case-blind comparison takes for ASCII ones.
FOLD = str.maketrans("\u017f\u212a\u0130\u0131", "skii")


def folded(text: str) -> str:
    return text.translate(FOLD).lower()


def is_about_token(text: str) -> bool:
    low = folded(text)
    if any(word in low for word in LATER):
        return False
    return any(word in low for word in ABOUT_TOKEN) and any(word in low for word in NO_GOOD)


def expected(text: str) -> Notice | None:
    if text[:3] != "-1#":
        return None
    low = folded(text)
    if any(word in low for word in LIMITS):
        return Notice.LIMIT
    for at in range(len(low)):
        if low.startswith("连接数", at):
            line = low[at + 3 :].partition("\n")[0]
            if any(0 <= line.find(word) <= 12 for word in ("上限", "超", "满")):
                return Notice.LIMIT
    if any(word in low for word in LATER):
        return Notice.LATER
    return Notice.TOKEN if is_about_token(text) else Notice.OTHER


def has_negative_code(text: str) -> bool:
    code, sign, _ = text.partition("#")
    return bool(sign) and code[:1] == "-" and 1 <= len(code[1:]) <= 9 and set(code[1:]) <= set("0123456789")


class Reply:
    """In place of the future of a request."""

    result: Any = None

    def done(self) -> bool:
        return self.result is not None

    def set_result(self, result: Any) -> None:
        self.result = result


class Supervised:
    """A supervisor between connections, as far as texts concern it."""

    def __init__(self) -> None:
        decoder = Decoder(capacity=1, history=0, max_codes=1)
        self.texts: list[str] = []
        self.errors: list[tuple[Exception, str]] = []
        self.channel = Channel(threading.RLock(), lambda names: None, 1)
        events = Events(decoder, Meter())
        events.add("on_text", self.texts.append)
        decoder.on_error = lambda error, where: self.errors.append((error, where))
        self.it: Any = SimpleNamespace(
            session=None, counters={"server_errors": 0}, _channel=self.channel, _events=events
        )

    def text(self, text: str) -> Reply:
        reply = Reply()
        self.channel._replies.append(reply)  # type: ignore[arg-type]
        self.texts.clear()
        self.errors.clear()
        self.it.counters["server_errors"] = 0
        Supervisor.text(self.it, text)
        assert not self.channel._replies
        return reply


SUPERVISED = Supervised()


def check(data: bytes) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    notice = expected(text)
    assert classify(text) is notice, (classify(text), notice)
    reply = SUPERVISED.text(text)
    assert SUPERVISED.texts == [text]
    assert SUPERVISED.it.counters["server_errors"] == len(SUPERVISED.errors) == has_negative_code(text)
    clean = blotted(text)
    if not has_negative_code(text):
        assert reply.result == text
    else:
        error = reply.result
        assert type(error) is (ConnectionLimitError if notice is Notice.LIMIT else ServerError)
        assert SUPERVISED.errors == [(error, "text")]
        assert error.text == clean, (error.text, clean)
        assert error.args == (clean,)
        assert str(error) == f"the server says: {clean}"
    assert ends_the_feed(AllocationRefusedError("1", text)) == is_about_token(text)


def plant() -> None:
    """A word that says of a token that it is no good is forgotten."""
    global NO_GOOD
    NO_GOOD = tuple(word for word in NO_GOOD if word != "revoked")


WORDS = tuple(
    word.encode()
    for word in (
        *(
            "-1#",
            "0#",
            "-2#",
            "#",
            "-",
            "-1",
            "\n",
            " ",
            "账户连接数已达并发上限",
            "连接数",
            "上限",
            "超",
            "满",
            "x" * 12,
        ),
        *(*LIMITS, *ABOUT_TOKEN, *NO_GOOD, *LATER, *forms(), "TO\u212aEN", "M\u0130SS\u0131NG"),
        *("\\", "%", "%25", "ß", "😀", "\0"),
    )
)


def seeds() -> list[bytes]:
    words = [
        word.encode()
        for word in ("-1#token无效", "-1#账户连接数已达并发上限", "0#ok", "", "-1#", "-12#x", "lv1_600519")
    ]
    return words + [b"-1#" + form.encode() for form in forms()]


def mutate(data: bytes, rng: random.Random) -> bytes:
    text = data.decode(errors="ignore")
    at = rng.randrange(len(text) + 1)
    word = pick(rng, *WORDS).decode()
    match rng.randrange(5):
        case 0:
            return b"-1#" + data[rng.randrange(4) :]
        case 1:
            return (text[:at] + text[at + rng.randrange(6) :]).encode()
        case 2:
            return (text[:at] + word.swapcase() + text[at:]).encode()
        case _:
            return (text[:at] + word + text[at:]).encode()


if __name__ == "__main__":
    harness.run(check, seeds, mutate, plant, longest=400)
