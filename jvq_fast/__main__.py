"""``python -m jvq_fast``: the command line."""

import sys

from jvq_fast.cli import main

if __name__ == "__main__":
    sys.exit(main())
