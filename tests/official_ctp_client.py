"""Runs the vendor's own trade client, unmodified, as a program: each line on stdin is a call, its reply goes to stdout.

``official_ctp_client.py TOKEN ACCOUNT PASSWORD``; a line is a JSON list, the name of a method and its arguments. The
client writes its ticket into the working directory. The vendor's address is fixed in it, so http_proxy leads it
elsewhere.
"""

import json
import logging
import sys

from jvQuant import ctp_client  # type: ignore[import-untyped]


def main() -> None:
    token, account, password = sys.argv[1:]
    client = ctp_client.Construct(token=token, ctp_acc=account, ctp_pwd=password, log_level=logging.WARNING)
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        print(json.dumps(getattr(client, method)(*arguments)), flush=True)


if __name__ == "__main__":
    main()
