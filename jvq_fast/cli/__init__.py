"""The command ``jvq-fast``: its subcommands, and how each of them ends."""

import argparse
import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from jvq_fast import __version__
from jvq_fast.cli import demo, doctor, replay, status, trade, watch
from jvq_fast.cli.complaint import UsageError, as_commands, explained, fit_to_show
from jvq_fast.errors import JvqError, OrderUnknown
from jvq_fast.sim import command as sim
from jvq_fast.sim import output

__all__ = ["main"]

_FAILED, _MISUSED, _UNKNOWN, _INTERRUPTED = 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 1 when it failed, 2 for a wrong command line, 130 for Ctrl-C.

    `trade` has two more: 3 where it is not known whether an order or a cancel is at the broker, 4 where an order that
    was to be waited for is open.
    A failure is one line on stderr, without a traceback and without a token.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell, >&-; print() would take the other for it
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal in GBK knows no µ
    # What a feed logs, the commands show or leave out in their own way.
    logging.getLogger("jvq_fast").addHandler(logging.NullHandler())
    options = _parser().parse_args(arguments)
    status = 0
    try:
        status = _run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output has gone
        output.forget()
        return status or _FAILED
    except OSError as error:
        if not output.is_of_output(error):
            raise
        output.forget()
        _complain(options.command, output.complaint(error))
        return status or _FAILED
    return status


def _run(options: argparse.Namespace) -> int:
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except UsageError as error:
        _complain(options.command, str(error))
        return _MISUSED
    except OrderUnknown as error:
        _complain(options.command, explained(error))
        return _UNKNOWN
    except JvqError as error:
        _complain(options.command, explained(error))
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED


def _complain(command: str, text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may have gone with the output
        print(f"jvq-fast {command}: {fit_to_show(as_commands(text))}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """Shows what it can't make sense of, but no token among it; of a subcommand in one line."""

    def error(self, message: str) -> NoReturn:
        if self.get_default("run") is None and self.get_default("act") is None:
            super().error(fit_to_show(message))
        self.exit(_MISUSED, f"{self.prog}: {fit_to_show(message)}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="jvq-fast", description="jvQuant's market feed as numpy records, and a local jvQuant to try it on."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, help_, module in (
        ("demo", "simulator, feed and a live table; nothing else is needed", demo),
        ("watch", "a live table of any feed", watch),
        ("sim", "run the simulator, a local jvQuant", sim),
        ("replay", "decode what a feed recorded", replay),
        ("doctor", "try the way from the token to the data, and report", doctor),
        ("status", "the counters of a feed that is running", status),
        ("trade", "an account: log in, look, order, cancel", trade),
    ):
        description = (module.run.__doc__ or "").partition("\n")[0]
        command = commands.add_parser(name, help=help_, description=description)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser
