"""The command ``jvq-fast sim``: options, the process, its life and end."""

import argparse
import asyncio
import contextlib
import dataclasses
import datetime as dt
import errno
import json
import os
import signal
import stat
import sys
import zoneinfo
from collections.abc import Callable, Iterator
from typing import Any, get_args

from jvq_fast.sim import output
from jvq_fast.sim.broker.broker import Broker
from jvq_fast.sim.broker.trade_http import Trade
from jvq_fast.sim.events import parse_clock
from jvq_fast.sim.exchange import Exchange, Source
from jvq_fast.sim.fault_kinds import KINDS, parse
from jvq_fast.sim.http import Allocation, Http
from jvq_fast.sim.port import Port
from jvq_fast.sim.pump import Pump
from jvq_fast.sim.replay import Replay, ReplayError, load
from jvq_fast.sim.server import Server
from jvq_fast.sim.settings import Settings
from jvq_fast.sim.signals import ending
from jvq_fast.sim.timeline import Timeline, first_trading_day

_ZONE = "Asia/Shanghai"
_HIGHEST_PORT = 65535
_LEFT_ALONE = 10


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= _HIGHEST_PORT):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: name one from 1 to {_HIGHEST_PORT}, or 0 for any")
    return int(text)


def _speed(text: str) -> float:
    try:
        return 0.0 if text == "max" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no speed: name a number such as 10, or max") from None


def _time_of_day(text: str) -> str:
    try:
        parse_clock(text or "00:00")
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time of day: name one such as 09:15 or 14:56:30") from None
    return text


def _day(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day: name one such as 2026-11-23") from None


_TYPES: dict[Any, Callable[[str], Any]] = {int: _whole, float: _number}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all options of the simulator, one for each of the ``Settings``, to a parser."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=_port, default=0, metavar="N", help="port of the HTTP side; by default any")
    parser.add_argument("--ws-port", type=_port, default=0, metavar="N", help="port of the market data; by default any")
    parser.add_argument("--trade-port", type=_port, default=0, metavar="N", help="port of the broker; by default any")
    parser.add_argument("--json", action="store_true", help="say where it listens in one line of JSON")
    special: dict[str, dict[str, Any]] = {
        "speed": {"type": _speed, "metavar": "N"},
        "limit_up": {"metavar": "CODES"},
        "limit_down": {"metavar": "CODES"},
        "tokens": {"metavar": "TOKENS"},
        "allocation_path": {"metavar": "PATH"},
        "start": {"type": _time_of_day, "flag": "--from", "metavar": "HH:MM"},
        "day": {"type": _day, "metavar": "YYYY-MM-DD"},
        "replay": {"nargs": "+", "metavar": "FILE"},
        "fault": {"action": "append", "metavar": "KIND[:KEY=VALUE,…]"},
    }
    for each in dataclasses.fields(Settings):
        options = dict(special.get(each.name, {}))
        flag = options.pop("flag", "--" + each.name.replace("_", "-"))
        options |= {"dest": each.name, "default": [] if options.get("action") == "append" else each.default}
        options["help"] = (each.metadata["help"] + _default(each.default)).replace("%", "%%")
        if each.metadata["choices"]:
            options["choices"] = each.metadata["choices"]
        if each.type is bool:
            options["action"] = argparse.BooleanOptionalAction if each.default else "store_true"
        elif "type" not in options and not get_args(each.type):
            options["type"] = _TYPES.get(each.type, each.type)
            if not each.metadata["choices"]:
                options.setdefault("metavar", "TEXT" if each.type is str else "N")
        parser.add_argument(flag, **options)
    parser.usage = "%(prog)s [options]"
    parser.epilog = f"Kinds of fault: {', '.join(KINDS)}. Their parameters are in docs/simulator.md."


def _default(value: object) -> str:
    """What a help text says of a default; nothing of one that says nothing."""
    if isinstance(value, bool):
        return " (the default)" if value else ""
    if isinstance(value, int | float):
        return f" (default {value:,})" if isinstance(value, int) else f" (default {value:g})"
    return f" (default {value})" if value else ""


def run(args: argparse.Namespace) -> int:
    """Run a local jvQuant until Ctrl-C, or until the program that reads its output through a pipe has left it alone.

    SIGTERM and the closing of its terminal end it as Ctrl-C does. The exit status: 0, 1 when it fails, 2 for arguments
    that make no sense.
    """
    try:
        values = {each.name: getattr(args, each.name) for each in dataclasses.fields(Settings)}
        settings = Settings(**{**values, "replay": tuple(values["replay"]), "fault": tuple(values["fault"])})
        items = load(settings.replay) if settings.replay else []
        if settings.replay and not items:
            raise ReplayError(f"--replay {' '.join(settings.replay)}: no row to send")
    except (ValueError, ReplayError) as error:
        print(f"jvq-fast sim: {error}", file=sys.stderr)
        return 2
    try:
        return asyncio.run(_serve(args, settings, items))
    except (_ListenError, OverflowError) as error:
        print(f"jvq-fast sim: {error}", file=sys.stderr)
        return 1


async def _serve(args: argparse.Namespace, settings: Settings, items: list[Any]) -> int:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def end(status: int) -> None:
        if not ended.done():
            ended.set_result(status)

    for number in ending():
        try:
            loop.add_signal_handler(number, end, 0)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(end, 0))

    start = parse_clock(settings.start or "09:30")
    source: Source
    if items:
        first = items[0][0]
        begins = start if settings.start else first[1]
        timeline = Timeline(dt.date.fromisoformat(first[0]), begins, settings.speed)
        source = Replay(items, timeline)
    else:
        today = dt.datetime.now(zoneinfo.ZoneInfo(_ZONE)).date()
        timeline = Timeline(settings.day or first_trading_day(today), start, settings.speed)
        source = Exchange(settings, timeline, start)
    server = Server(settings, args.host)
    pump = Pump(settings, timeline, source, server, lambda: end(1))
    broker = Broker(settings, timeline, server, source.snapshot, source.due)
    pump.watched, pump.on_event = broker.watched, broker.heed
    trade = Trade(settings, broker, server)
    allocation = Allocation(settings, server)

    def stats() -> dict[str, Any]:
        return {
            "trading_day": timeline.day(timeline.now()).isoformat(),
            "ws": server.url,
            "trade": allocation.trade,
            "time": timeline.text(),
            "running": timeline.running,
            "finished": timeline.running and bool(items) and source.due() is None,
            "slipped_seconds": pump.slipped / 1e6,
            **server.stats(),
        }

    asked = 0

    def in_use() -> bool:
        nonlocal asked
        before, asked = asked, broker.received.total()
        return bool(server.connections()) or asked != before

    http = Http(allocation, server, broker, trade, stats, pump.go)
    with _listening("--ws-port", args.host, args.ws_port):
        await server.open(args.ws_port)
    server.faults.clock = timeline.text
    http_port = server.ports["http"] = Port(http.listen)
    trade_port = server.ports["trade_down"] = Port(http.listen_for_trade)
    try:
        for flag, port, number in (("--port", http_port, args.port), ("--trade-port", trade_port, args.trade_port)):
            with _listening(flag, args.host, number):
                await port.open(args.host, number)
    except _ListenError:
        server.close()
        raise
    allocation.trade = f"http://{args.host}:{trade_port.number}"
    for text in settings.fault:
        server.faults.set(parse(text))
    pings = asyncio.create_task(_ping(settings.ping_every, server)) if settings.ping_every else None
    ready = {
        "http": f"http://{args.host}:{http_port.number}",
        "ws": server.url,
        "trade": allocation.trade,
        "trading_day": timeline.day(timeline.now()).isoformat(),
    }
    if args.json:
        line = json.dumps(ready)
    else:
        line = f"{ready['http']} allocates {ready['ws']}, broker {ready['trade']}, trading day {ready['trading_day']}"
    try:
        print(line, flush=True)
    except OSError as error:
        output.forget()
        if isinstance(error, BrokenPipeError):
            end(0)
        else:
            print(f"jvq-fast sim: {output.complaint(error)}", file=sys.stderr)
            end(1)
    else:
        _end_with_reader(loop, in_use, lambda: end(0))
    status = await ended
    if pings is not None:
        pings.cancel()
    server.close()
    return status


class _ListenError(Exception):
    pass


@contextlib.contextmanager
def _listening(flag: str, host: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _ListenError(f"{flag} {port} is taken on {host}: name another, or 0 for any") from None
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise _ListenError(f"can't listen on {host}, port {port}: {why}: look at --host and {flag}") from None


def _end_with_reader(loop: asyncio.AbstractEventLoop, in_use: Callable[[], bool], end: Callable[[], None]) -> None:
    """In ``jvq-fast sim | program`` the program's end is the simulator's, or the shell would wait for ever.

    Some read the line, close the pipe, and go on to connect: they have _LEFT_ALONE seconds.
    """
    with contextlib.suppress(ImportError, AttributeError, OSError, ValueError, NotImplementedError):
        import fcntl

        written = sys.stdout.fileno()
        # One that was opened for both is readable by what is written to it.
        is_for_writing = fcntl.fcntl(written, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
        if stat.S_ISFIFO(os.fstat(written).st_mode) and is_for_writing:

            def gone() -> None:
                loop.remove_reader(written)
                look(_LEFT_ALONE)

            def look(left: int) -> None:
                if left == 0:
                    end()
                else:
                    loop.call_later(1.0, look, _LEFT_ALONE if in_use() else left - 1)

            loop.add_reader(written, gone)  # the end to write to becomes readable only by an error


async def _ping(seconds: float, server: Server) -> None:
    while True:
        await asyncio.sleep(seconds)
        for connection in server.connections():
            connection.ping()
