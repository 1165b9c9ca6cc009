"""``python -m jvq_fast.sim``: the simulator."""

import argparse
import sys

from jvq_fast.sim.command import add_arguments, run


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m jvq_fast.sim", description="A local jvQuant.")
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
