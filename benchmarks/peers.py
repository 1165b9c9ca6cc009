"""The Python that this package is measured beside: jvQuant's own client, and what one writes without it."""

import logging
import zlib
from collections.abc import Callable
from typing import Any

# Payload and arrival, as `Decoder.decode` takes them; what it returns is kept by nobody.
Run = Callable[[bytes, int], Any]


def official_parser() -> Run:
    """jvQuant's parse classes behind the inflating and decoding that its client does: a list of its objects."""
    from jvQuant.websocket_client import parse

    def run(payload: bytes, _recv: int) -> list[Any]:
        parsed: list[Any] = []
        for row in zlib.decompress(payload, -zlib.MAX_WBITS).decode("utf-8").split("\n"):
            if row.startswith("lv1_"):
                parsed.append(parse.AbLv1(row))
            elif row.startswith("lv2_"):
                parsed.append(parse.AbLv2(row))
            elif row.startswith("lv10"):
                parsed.append(parse.AbLv10(row))
        return parsed

    return run


def official_client(handle: Callable[[Any], object]) -> Run:
    """The client's own handler of messages, whole, on an object that was never connected."""
    import websocket
    from jvQuant import websocket_client

    client = websocket_client.Construct.__new__(websocket_client.Construct)
    client.logger = logging.getLogger("websocket_client")
    client.logger.setLevel(logging.INFO)
    state = {"market": "ab", "data_handle_valid": False, "log_handle_valid": False}
    for level in ("lv1", "lv2", "lv10"):
        state |= {f"ab_{level}_handle": handle, f"ab_{level}_handle_valid": True}
    for name, value in state.items():
        setattr(client, f"_Construct__{name}", value)
    on_message = client._Construct__on_message
    binary = websocket.ABNF.OPCODE_BINARY
    return lambda payload, _recv: on_message(None, payload, binary, True)


def prices_of(parsed: Any) -> list[tuple[str, float]]:
    """Code and price of every trade or of the snapshot that one of the client's objects holds."""
    deals = getattr(parsed, "deal_list", [parsed])
    return [(parsed.code, each.price) for each in deals]


def split_parser(decompress: Callable[[bytes, int], bytes]) -> Run:
    """``str.split`` into lists: code, time, id, price and volume of a trade, else code, time, name and the numbers."""

    def run(payload: bytes, _recv: int) -> list[list[Any]]:
        records: list[list[Any]] = []
        for row in decompress(payload, -zlib.MAX_WBITS).decode().split("\n"):
            head, _, rest = row.partition("=")
            level, _, code = head.partition("_")
            if level == "lv2":
                for record in rest.split("|"):
                    time, number, price, volume = record.split(",")
                    records.append([code, time, int(number), float(price), float(volume)])
            elif level in ("lv1", "lv10"):
                for record in rest.split("|"):
                    time, name, *numbers = record.split(",")
                    records.append([code, time, name, *map(float, numbers)])
        return records

    return run


def zlib_and_split() -> Run:
    return split_parser(zlib.decompress)


def isal_and_split() -> Run:
    from isal import isal_zlib

    return split_parser(isal_zlib.decompress)
