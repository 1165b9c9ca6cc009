"""``python -m jvq_fast.cli.leash …``: the simulator, for as long as its standard input is open.

Whoever holds the other end of the pipe may end in any way, killed included: the simulator ends with it.
"""

import os
import signal
import sys
import threading

from jvq_fast.sim.__main__ import main


def _end_with_input() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_input, daemon=True).start()
    sys.exit(main())
