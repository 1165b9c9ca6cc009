"""What each failure means for a feed: go on, or stop; and how long to wait before going on."""

import random
import re
from collections import deque
from enum import Enum

from jvq_fast.errors import AllocationRefusedError, ConnectionLimitError, HandshakeError, JvqError, ServerError
from jvq_fast.redact import redact

ERROR_PREFIX = "-1#"
_UNAUTHORIZED = (401, 403)

# Texts known from use are few (PROTOCOL: only that of the connection limit); the words are what services of this kind
# write. What none of them fits is OTHER, and never stops a feed that was up.
_LIMIT = re.compile(r"并发上限|连接数.{0,12}(?:上限|超|满)|too many connections|connection limit", re.IGNORECASE)
_TOKEN = re.compile(r"token|令牌|密钥|凭证|鉴权|认证|授权|登录", re.IGNORECASE)
_NO_GOOD = re.compile(
    r"无效|错误|有误|不存在|不正确|非法|过期|失效|失败|未|缺"
    r"|invalid|expired|wrong|bad|unknown|illegal|missing|not found|denied|unauthori[sz]ed|revoked",
    re.IGNORECASE,
)


# The grammar of texts is code#message; of the codes only -1 is known.
_REFUSAL = re.compile(r"-[0-9]{1,9}#")
# What passes by itself, whatever else the text says.
_LATER = re.compile(
    r"频繁|稍[后候]|重试|繁忙|超时|维护|服务器|数据库|连接失败"
    r"|later|again|retry|busy|timeout|timed out|unavailable|temporar|maintenance",
    re.IGNORECASE,
)
_SERVER_FAULT = 500  # of HTTP statuses, from here on


class Notice(Enum):
    """What a text that begins with `-1#` is about."""

    LIMIT = "connection limit"
    TOKEN = "bad token"
    LATER = "passes by itself"
    OTHER = "other"


def classify(text: str) -> Notice | None:
    """What the server complains of; None for a text that is no complaint."""
    if not text.startswith(ERROR_PREFIX):
        return None
    if _LIMIT.search(text):
        return Notice.LIMIT
    if _LATER.search(text):
        return Notice.LATER
    return Notice.TOKEN if _is_about_token(text) else Notice.OTHER


def is_refusal(text: str) -> bool:
    """Whether a text that is no complaint says no all the same, as to a subscription: `-2#…`."""
    return _REFUSAL.match(text) is not None


def server_error(text: str, notice: Notice) -> ServerError:
    """The error for such a text, kept verbatim but for a token in it."""
    return (ConnectionLimitError if notice is Notice.LIMIT else ServerError)(redact(text))


def ends_the_feed(error: JvqError) -> bool:
    """Whether trying again is of no use: the token is not accepted."""
    if isinstance(error, AllocationRefusedError):
        return error.status < _SERVER_FAULT and _is_about_token(error.message)
    return isinstance(error, HandshakeError) and error.status in _UNAUTHORIZED


def _is_about_token(text: str) -> bool:
    return bool(_TOKEN.search(text) and _NO_GOOD.search(text) and not _LATER.search(text))


class Backoff:
    """Waits between attempts: anything up to a ceiling that doubles from `least` to `most` seconds."""

    def __init__(self, least: float, most: float) -> None:
        self._least = least
        self._most = most
        self._ceiling = least

    def reset(self) -> None:
        """Begin afresh."""
        self._ceiling = self._least

    def next(self) -> float:
        """How long to wait now."""
        ceiling = self._ceiling
        self._ceiling = min(self._most, 2 * ceiling)
        return random.uniform(0, ceiling)


class Evictions:
    """Tells a twin, which takes the connection away each time we come back, from a server that did so once."""

    def __init__(self, limit: int, window: float) -> None:
        self.limit = limit
        self.window = window
        self._moments: deque[float] = deque(maxlen=limit)

    def add(self, now: float) -> bool:
        """One more, at a moment in seconds; whether it was one too many."""
        self._moments.append(now)
        return len(self._moments) == self.limit and now - self._moments[0] <= self.window
