"""Runs the vendor's own client, unmodified, as a program: what its handlers are given goes to a file, a line each.

``official_client.py TOKEN FILE CODE…``: subscribes to lv1, lv2 and lv10 of the codes; a line on stdin clears the
subscription, and the answer to that, behind all data, ends it. The vendor's address is fixed in the client, so
http_proxy leads it elsewhere.
"""

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jvQuant import websocket_client  # type: ignore[import-untyped]


def main() -> None:
    token, path, *codes = sys.argv[1:]
    with Path(path).open("w", encoding="utf-8") as out:

        def keep(level: str) -> Callable[[Any], None]:
            return lambda row: print(level, json.dumps(row.get_map()), file=out)

        cleared = threading.Event()
        clearing = False

        def answered(text: str) -> None:
            if clearing and text.startswith("0#订阅"):
                cleared.set()

        client = websocket_client.Construct(
            market="ab",
            token=token,
            log_handle=answered,
            ab_lv1_handle=keep("lv1"),
            ab_lv2_handle=keep("lv2"),
            ab_lv10_handle=keep("lv10"),
        )
        client.add_lv2(codes)
        client.add_lv1(codes)
        client.add_lv10(codes)
        sys.stdin.readline()
        clearing = True
        client.cmd("all=")
        if not cleared.wait(60):
            sys.exit("the subscription was not cleared")
        client.disconnect()
        client.thread_join()


if __name__ == "__main__":
    main()
