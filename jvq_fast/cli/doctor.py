"""``jvq-fast doctor``: from the token to the data, step by step, with a report that may be shown to others."""

import argparse
import asyncio
import contextlib
import secrets
import sys
from dataclasses import replace
from typing import Any

from jvq_fast.allocation import SERVICE, parse_server, service_url
from jvq_fast.cli import tokens
from jvq_fast.cli.complaint import UsageError, fit_to_show
from jvq_fast.cli.interrupt import Interrupt
from jvq_fast.cli.options import add_trading_day, seconds
from jvq_fast.cli.simulator import Simulator, bypass_proxies
from jvq_fast.decoder import Decoder
from jvq_fast.doctor.report import Files, OutputError, Report, make
from jvq_fast.doctor.walk import ALLOCATION_INTERVAL, Plan, Walk, walk
from jvq_fast.plural import plural
from jvq_fast.redact import Secret
from jvq_fast.subscriptions import checked

__all__ = ["add_arguments", "run"]

# One for each level, and what only an index, a bond and a fund can tell.
SUBSCRIPTIONS = ("lv1_600519", "lv2_000001", "lv10_600519", "lv1_i000001", "lv1_113050", "lv1_510300")
_SECONDS = 15.0
_INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this subcommand."""
    parser.add_argument(
        "subscriptions",
        nargs="*",
        metavar="SUBSCRIPTION",
        help=f"what to subscribe to (default {' '.join(SUBSCRIPTIONS)}); the account is billed for it as for any other",
    )
    tokens.add_arguments(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--allocation", metavar="URL", help="ask this allocation service for a server, not the vendor's")
    where.add_argument("--server", metavar="URL", help="connect to this server, such as ws://1.2.3.4:21966")
    where.add_argument("--sim", action="store_true", help="try it on a simulator of its own; no token is needed")
    add_trading_day(parser)
    parser.add_argument(
        "--seconds", type=seconds, default=_SECONDS, metavar="N", help="listen for N seconds (default %(default)g)"
    )
    parser.add_argument(
        "--second-allocation",
        action="store_true",
        help=f"ask for a server twice, to see whether that is refused within {ALLOCATION_INTERVAL:g} s",
    )
    parser.add_argument(
        "--output", metavar="DIR", help="write the report, as text and as JSON, and a short capture into this directory"
    )
    parser.add_argument("--json", action="store_true", help="print the report as a JSON object")


def run(options: argparse.Namespace) -> int:
    """Walk from the token to the data, tell what was found, and judge what is taken for granted about the server.

    It makes one connection, which counts against the account's limit: a feed that runs on the same token may be
    evicted, or this be refused. The exit status is 0 where all that is needed works, 130 where it was interrupted: the
    report is then of what was seen by then.
    """
    with contextlib.ExitStack() as stack:
        interrupt = stack.enter_context(Interrupt())
        if options.sim:
            if options.token is not None or options.token_file is not None:
                raise UsageError("--sim has a token of its own")
            bypass_proxies()
            token = secrets.token_hex(16)
            # A server that does what is taken for granted: by default the simulator sends no cancellations.
            simulator = stack.enter_context(Simulator(["--tokens", token, "--cancels", "0.1"]))
            plan = _plan(options, token, simulator.http)
            plan = replace(plan, trading_day=simulator.trading_day, clock="always")
        else:
            plan = _plan(options, tokens.read(options), options.allocation)
        files = stack.enter_context(contextlib.closing(Files(options.output))) if options.output else None
        try:
            walked = _walked(plan, interrupt)
            report = make(walked)
            try:
                written = [] if files is None else _write(files, walked, report)
            except OutputError:
                print(report.json if options.json else report.text, end="", flush=True)
                raise
        except KeyboardInterrupt:
            kept = f"; no report in {options.output}" if options.output else ""
            print(f"jvq-fast doctor: interrupted twice: the report was not made{kept}", file=sys.stderr)
            return _INTERRUPTED
    print(report.json if options.json else report.text, end="")
    told = sys.stderr if options.json else sys.stdout
    for line in written:
        print(line, file=told)
    if walked.interrupted:
        kept = f"written to {options.output}" if written else "printed, and written nowhere"
        print(f"jvq-fast doctor: interrupted: the report of what was seen by then is {kept}", file=sys.stderr)
        return _INTERRUPTED
    return 0 if walked.ok else 1


def _plan(options: argparse.Namespace, token: str, allocation: str | None) -> Plan:
    secret = Secret.read(token)
    if isinstance(secret, Exception):
        raise UsageError(str(secret)) from None
    try:
        Decoder(trading_day=options.trading_day)
        return Plan(
            secret,
            checked(options.subscriptions or SUBSCRIPTIONS),
            SERVICE if allocation is None else service_url(allocation),
            None if options.server is None else parse_server(options.server),
            options.trading_day,
            options.clock,
            options.seconds,
            options.second_allocation,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None


def _walked(plan: Plan, interrupt: Interrupt) -> Walk:
    def say(line: str) -> None:
        print(fit_to_show(f"{line} …"), file=sys.stderr, flush=True)

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(walk(plan, say, lambda: interrupt.requested))


def _loop_factory() -> Any:
    """What a feed would take."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _write(files: Files, walked: Walk, report: Report) -> list[str]:
    left_out = files.write(walked, report)
    lines = ["", "written, for you alone to read:", *(f"  {path}" for path in files.paths)]
    if left_out:
        lines.append(f"{plural(left_out, 'message')} left out of the capture, because of the token")
    lines.append(
        "They hold no token. Look through them before you pass them on: the replies name what the account has "
        "subscribed to, and the capture is market data"
    )
    return lines
