"""Reads what a trade client is given. Whatever is wrong with it is named, and no secret is."""

from collections.abc import Collection
from decimal import Decimal, InvalidOperation
from typing import get_args

from jvq_fast.allocation import SERVICE, ServerAddress, service_url
from jvq_fast.redact import Secret, drop_frames
from jvq_fast.trade import wire
from jvq_fast.trade.gate import Request
from jvq_fast.trade.model import Side, shown
from jvq_fast.trade.session import Mode

_DAY = 86_400
_DIGITS = 12  # before and after the point, more than any price has


def where(
    mode: Mode, server: str | None, allocation: str | None, proxies: bool
) -> tuple[str, ServerAddress | None] | Exception:
    """The allocation service and the fixed server, or the error to raise where they are out of sight."""
    try:
        return _where(mode, server, allocation, proxies)
    except (ValueError, TypeError) as error:
        drop_frames(error)
        return error


def _where(mode: Mode, server: str | None, allocation: str | None, proxies: bool) -> tuple[str, ServerAddress | None]:
    """ValueError where a mode may not talk to them."""
    if mode not in get_args(Mode):
        raise ValueError(f"mode is 'dry', 'paper' or 'live', not {mode!r}")
    if server is not None and allocation is not None:
        raise ValueError("server and allocation exclude each other")
    if mode == "live" and server is not None:
        raise ValueError("live mode talks to the server that is allocated, not to a fixed one: leave server out")
    fixed = wire.parse_trade_server(server) if server is not None else None
    service = service_url(allocation) if allocation is not None else SERVICE
    if mode != "paper":
        return service, fixed
    if proxies:
        raise ValueError("paper mode talks to this machine alone, and uses no proxies")
    if fixed is None and allocation is None:
        raise ValueError(
            "paper mode takes the server or the allocation of a simulator, such as allocation='http://127.0.0.1:8765'"
        )
    host = fixed.host if fixed is not None else wire.host_of(service)
    if wire.reach_of(host) != "loopback":
        raise ValueError(f"paper mode talks to this machine alone, and {shown(host)} is not a loopback address")
    return service, fixed


def check_positive(**settings: float) -> None:
    """ValueError for what is no time, and for what no thread can wait for."""
    for name, value in settings.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (is_number and 0 < value <= _DAY):
            raise ValueError(f"{name} is a time in seconds above 0 and up to a day, not {value!r}")


def account(text: object) -> "Secret | Exception":
    if not isinstance(text, str):
        return TypeError(f"an account is a str of 12 digits, not {type(text).__name__}")
    if not (len(text) == 12 and text.isascii() and text.isdigit()):
        return ValueError("that is no account: it has 12 digits")
    return Secret(text)


def password(text: object) -> "Secret | Exception":
    if not isinstance(text, str):
        return TypeError(f"a password is a str, not {type(text).__name__}")
    return Secret(text) if text else ValueError("the password is empty")


def trusted(texts: object) -> frozenset[str]:
    """Texts that reject an order for sure."""
    if isinstance(texts, str) or not isinstance(texts, Collection):
        raise TypeError(f"trusted_rejections is a collection of texts, not {texts!r}")
    if not all(isinstance(text, str) and text for text in texts):
        raise ValueError(f"trusted_rejections are texts that say something, not {texts!r}")
    return frozenset(texts)


def request(side: Side, code: object, price: object, volume: object) -> Request:
    """An order as it was asked for. TypeError, for a float too, or ValueError names what is wrong with it."""
    return Request(side, _code(code), _price(price), _volume(volume))


def _code(code: object) -> str:
    if not isinstance(code, str):
        raise TypeError(f"a code is a str such as '600519', not {type(code).__name__}")
    if not (len(code) == 6 and code.isascii() and code.isdigit()):
        raise ValueError(f"a code has six digits, such as '600519': {shown(code)}")
    return code


def _price(price: object) -> Decimal:
    if isinstance(price, float):
        raise TypeError(
            f"a price is a Decimal or a str, not the float {float(price)}: pass '{float(price)}' or "
            f"Decimal('{float(price)}')"
        )
    if isinstance(price, bool) or not isinstance(price, (Decimal, str, int)):
        raise TypeError(f"a price is a Decimal or a str, not {type(price).__name__}")
    try:
        number = Decimal(price)
    except InvalidOperation:
        raise ValueError(f"that is no price: {shown(price)}") from None
    if not number.is_finite() or number <= 0:
        raise ValueError(f"a price is above 0, not {number}")
    if number.adjusted() >= _DIGITS or number != round(number, _DIGITS):
        raise ValueError(f"that is no price: {number}")
    return number


def _volume(volume: object) -> int:
    if isinstance(volume, bool) or not hasattr(volume, "__index__"):
        raise TypeError(f"a volume is an int, not {type(volume).__name__}")
    number = int(volume.__index__())
    if number <= 0:
        raise ValueError(f"a volume is above 0, not {number}")
    return number
