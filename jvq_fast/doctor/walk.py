"""The walk: machine, allocation, connection, subscription, data. Each step ends in time, and a failed one is told.

It uses the parts a feed is made of, and one connection, no more.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, cast

from picows import WSFrame, WSListener, WSMsgType, WSTransport

from jvq_fast.allocation import Reply, ServerAddress, exchange, judge, parse_server
from jvq_fast.capture import CONNECT, END_OF_READ, ENDS_READ, ENTRY, LOST, MESSAGE, entry
from jvq_fast.connection import Connection, Hooks
from jvq_fast.decoder import Decoder
from jvq_fast.doctor import machine
from jvq_fast.doctor.evidence import Evidence, Message, look
from jvq_fast.doctor.hours import Hours, hours
from jvq_fast.doctor.steps import Outcome, Step
from jvq_fast.errors import AllocationError, AllocationRefusedError, ConnectError, HandshakeError
from jvq_fast.listener import Listener, Tap
from jvq_fast.offload import offload
from jvq_fast.redact import Secret, redact
from jvq_fast.subscriptions import code_of

PING = b"jvq_fast doctor"
LIMIT_TEXT = "并发上限"
ALLOCATION_INTERVAL = 3.0
_MAX_HELD = 32 << 20
_MAX_MESSAGE = 10 << 20
_MAX_TEXTS = 1000
_TAP = 16 << 20
_STEP = 0.05
_AFTERTHOUGHT = 0.05
_GREETING = 0.5
_BEFORE_DETECTION = 8
_KEPT = 1024
_SPELLED_TOKEN = 400
_LEVELS = {"lv1": "quotes", "lv2": "trades", "lv10": "depths"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. Times are seconds; with `server` nothing is allocated; `reply_timeout` is for each command."""

    token: Secret
    subscriptions: tuple[str, ...]
    service: str
    server: ServerAddress | None = None
    trading_day: str | None = None
    clock: Literal["exchange", "always"] = "exchange"
    seconds: float = 15.0
    second_allocation: bool = False
    allocation_timeout: float = 10.0
    connect_timeout: float = 10.0
    handshake_timeout: float = 5.0
    reply_timeout: float = 3.0
    close_timeout: float = 1.0


@dataclass(slots=True)
class Command:
    """A command and the texts that followed it: (seconds after it, text as it came)."""

    text: str
    sent_ns: int
    replies: list[tuple[float, str]] = field(default_factory=list, repr=False)


@dataclass(slots=True)
class Walk:
    """Everything that was seen. Texts are as they came, the token included where a server repeats it: see `report`."""

    plan: Plan
    hours: Hours
    started_ns: int
    machine: dict[str, Any] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    allocations: list[Reply | BaseException] = field(default_factory=list, repr=False)
    asked_ns: list[int] = field(default_factory=list)
    address: ServerAddress | None = None
    handshake_error: ConnectError | None = None
    opening_seconds: float | None = None
    greetings: list[tuple[float, str]] = field(default_factory=list, repr=False)
    commands: list[Command] = field(default_factory=list)
    ping_seconds: float | None = None
    pinged: bool = False
    frames: Counter[str] = field(default_factory=Counter)
    fragments: Counter[int] = field(default_factory=Counter)  # messages by frames, from two on
    lost_messages: int = 0
    ended: str = ""
    listened: float = 0.0
    entries: list[tuple[int, Message]] = field(default_factory=list, repr=False)
    evidence: Evidence = field(default_factory=Evidence)
    stats: dict[str, int | str] = field(default_factory=dict)
    bad_records: list[tuple[str, bytes]] = field(default_factory=list, repr=False)

    @property
    def ok(self) -> bool:
        """Whether all that is needed works."""
        return not any(step.outcome == "failed" for step in self.steps)

    @property
    def texts(self) -> list[str]:
        """All texts of the server."""
        return [text for _, text in self.greetings] + [text for each in self.commands for _, text in each.replies]

    def capture(self, limit: int) -> tuple[list[bytes], int]:
        """Entries of a capture file of about `limit` bytes, and how many messages are left out because of the token."""
        chunks: list[bytes] = []
        size = number = left_out = 0
        for kind, message in self.entries:
            if kind == MESSAGE:
                number += 1
                if number > self.evidence.looked_at or size > limit:
                    break
                if number - 1 in self.evidence.secretive:
                    left_out += 1
                    continue
            chunks.append(entry(kind, message.recv, message.payload, ends_read=message.ends_read))
            size += len(chunks[-1])
        return chunks, left_out


class _Frames(WSListener):
    """Stands before a connection's listener and counts the frames that it gets."""

    def __init__(self, listener: Listener, news: asyncio.Event) -> None:
        self._listener = listener
        self._news = news
        self.counts: Counter[str] = Counter()
        self.fragments: Counter[int] = Counter()
        self.transport: WSTransport | None = None
        self.ponged = 0.0
        self._parts = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listener, name)

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self._listener.on_ws_connected(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if not self._listener.closing:
            self._count(frame)
        self._listener.on_ws_frame(transport, frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._listener.on_ws_disconnected(transport)

    def _count(self, frame: WSFrame) -> None:
        kind = frame.msg_type
        self.counts[WSMsgType(kind).name.lower()] += 1
        self.counts["reads"] += bool(frame.last_in_buffer)
        self.counts["reserved_bits"] += bool(frame.rsv1 or frame.rsv2 or frame.rsv3)
        if kind == WSMsgType.PONG and frame.get_payload_as_bytes() == PING:
            self.ponged = time.monotonic()
            self._news.set()
        if kind in (WSMsgType.BINARY, WSMsgType.TEXT, WSMsgType.CONTINUATION):
            self._parts = self._parts + 1 if kind == WSMsgType.CONTINUATION else 1
            if frame.fin and self._parts > 1:
                self.fragments[self._parts] += 1


class _ObservedConnection(Connection):
    def __init__(
        self, plan: Plan, address: ServerAddress, decoder: Decoder, hooks: Hooks, tap: Tap, news: asyncio.Event
    ) -> None:
        super().__init__(
            address, plan.token, decoder, hooks, tap=tap, max_message=_MAX_MESSAGE, close_timeout=plan.close_timeout
        )
        self.frames = _Frames(self.listener, news)
        self.listener = cast("Listener", self.frames)


async def walk(plan: Plan, say: Callable[[str], None], is_cancelled: Callable[[], bool]) -> Walk:
    """Walk as far as it goes. `say` is called with what is being done; once `is_cancelled`, no more data is waited for.

    Blocks nothing for longer than its timeouts together, and raises nothing that a server can bring about.
    """
    walker = _Walker(plan, say, is_cancelled)
    await walker.run()
    return walker.walk


class _Walker:
    def __init__(self, plan: Plan, say: Callable[[str], None], is_cancelled: Callable[[], bool]) -> None:
        self._plan = plan
        self._say = say
        self._is_cancelled = is_cancelled
        now = time.time_ns()
        self.walk = Walk(plan, hours(now, real_time=plan.clock == "exchange"), now)
        self._decoder = Decoder(trading_day=plan.trading_day, clock=plan.clock)
        self._tap = Tap(_TAP)
        self._connection: _ObservedConnection | None = None
        self._ended = asyncio.Event()
        self._texts = 0
        self._news = asyncio.Event()
        self._opened = 0.0
        self._held = 0
        self._closing = False

    async def run(self) -> None:
        walk = self.walk
        facts, steps = machine.examine(asyncio.get_running_loop())
        walk.machine = facts
        walk.steps += steps
        address = await self._allocate()
        if address is None:
            for name in ("connection", "commands", "ping", "data"):
                self._note(name, "skipped", "there is no server to go to")
            return
        walk.address = address
        await self._with(address)

    def _note(self, name: str, outcome: Outcome, found: str, means: str = "", todo: str = "") -> None:
        self.walk.steps.append(Step(name, outcome, found, means, todo))

    # --- allocation

    async def _allocate(self) -> ServerAddress | None:
        if self._plan.server is not None:
            self._note("allocation", "skipped", f"the server was named: {self._plan.server}")
            return self._plan.server
        self._say("asking for a server")
        reply = await self._ask()
        address = self._read_allocation(reply)
        if self._plan.second_allocation:
            await self._ask_again()
        return address

    async def _ask(self) -> Reply | BaseException:
        plan = self._plan
        timeout = plan.allocation_timeout
        self.walk.asked_ns.append(time.time_ns())
        ask = partial(exchange, plan.token, "ab", "websocket", plan.service, timeout)
        reply: Reply | BaseException
        try:
            reply = await offload(ask, timeout + 1, "allocation")
        except TimeoutError:
            reply = AllocationError(f"the allocation service did not reply within {timeout:g} s")
        self.walk.allocations.append(reply)
        return reply

    def _read_allocation(self, reply: Reply | BaseException) -> ServerAddress | None:
        named = judge(reply) if isinstance(reply, Reply) else reply
        if isinstance(named, str):
            try:
                address = parse_server(named)
            except ValueError as error:
                self._note(
                    "allocation", "failed", str(error),
                    "the service answered, and what it names is no server", "try later; attach this report to a report",
                )  # fmt: skip
                return None
            assert isinstance(reply, Reply)
            self._note("allocation", "ok", f"{address} in {reply.seconds * 1000:.0f} ms")
            return address
        if isinstance(named, AllocationRefusedError):
            means, todo = (
                "the service was reached and does not want to serve this token",
                "check the token, the account's balance and its market; wait 3 s before asking again",
            )
        elif isinstance(reply, Reply):
            means, todo = (
                "something answered that does not speak as the service does: the service is out of order, or a proxy "
                "or a portal of the network stands in its place",
                "look at the reply; try later; check http_proxy, which allocation follows",
            )
        else:
            means, todo = (
                "no allocation, no data: the service, the network on the way to it, or the name lookup does not work",
                "check the network and http_proxy, which allocation follows; or name a server with --server",
            )
        self._note("allocation", "failed", str(named), means, todo)
        return None

    async def _ask_again(self) -> None:
        self._say("asking once more at once, as you wished")
        reply = await self._ask()
        apart = (self.walk.asked_ns[-1] - self.walk.asked_ns[0]) / 1e9
        named = judge(reply) if isinstance(reply, Reply) else reply
        what = "granted" if isinstance(named, str) else f"refused: {named}"
        self._note("second allocation", "ok", f"asked {apart:.1f} s after the first: {what}")

    # --- connection

    async def _with(self, address: ServerAddress) -> None:
        plan, walk = self._plan, self.walk
        self._say(f"connecting to {address}")
        connection = _ObservedConnection(plan, address, self._decoder, self, self._tap, self._news)
        begin = time.monotonic()
        try:
            await connection.open(plan.connect_timeout, plan.handshake_timeout, asyncio.Event())
        except ConnectError as error:
            walk.handshake_error = error
            if isinstance(error, HandshakeError):
                means = "the server was reached, and opened no WebSocket; a 4xx usually means that it refuses the token"
                todo = "check the token; allocate anew, since addresses go out of use; a proxy in between may refuse"
            else:
                means, todo = "the server was not reached", "check the network; allocate anew, since servers go away"
            self._note("connection", "failed", str(error), means, todo)
            for name in ("commands", "ping", "data"):
                self._note(name, "skipped", "there is no connection")
            return
        walk.opening_seconds = time.monotonic() - begin
        self._note("connection", "ok", f"open after {walk.opening_seconds * 1000:.1f} ms")
        ending = asyncio.ensure_future(self._end(connection))
        try:
            await self._use()
        finally:
            self._closing = True
            connection.close()
            await asyncio.wait({ending}, timeout=plan.close_timeout + 1)
            connection.abort()
            if not ending.done():
                ending.cancel()
            self._collect()
        if connection.listener.fatal is not None:
            raise connection.listener.fatal
        self._judge_data(connection)

    async def _end(self, connection: Connection) -> None:
        reason = await connection.ended()
        if not self._closing:
            self.walk.ended = reason
        self._ended.set()
        self._news.set()

    def opened(self, connection: Connection) -> None:
        """Called by the connection."""
        self._connection = cast("_ObservedConnection", connection)
        self._opened = time.monotonic()
        self._tap.connect(False)
        self._decoder.connected()

    def text(self, text: str) -> None:
        """Called by the connection."""
        self._texts += 1
        if self._texts > _MAX_TEXTS:
            return
        commands = self.walk.commands
        if commands:
            commands[-1].replies.append(((time.time_ns() - commands[-1].sent_ns) / 1e9, text))
        else:
            self.walk.greetings.append((time.monotonic() - self._opened, text))
        self._news.set()

    async def _use(self) -> None:
        await self._wait(_GREETING, until=lambda: bool(self.walk.greetings))
        if self._is_refused(self.walk.greetings):
            await self._wait(_GREETING, until=lambda: False)  # the end follows
            return
        self._say("trying the commands")
        await self._try_commands()
        await self._try_ping()
        seconds = self._plan.seconds
        self._say(f"listening for {seconds:g} s")
        begin = time.monotonic()
        await self._wait(seconds, until=lambda: False)
        self.walk.listened = time.monotonic() - begin

    async def _wait(self, seconds: float, *, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if until() or self._is_cancelled() or self._ended.is_set():
                break
            self._news.clear()
            news = asyncio.ensure_future(self._news.wait())
            await asyncio.wait({news}, timeout=min(_STEP, left))
            news.cancel()
            self._collect()

    def _collect(self) -> None:
        """Take what arrived out of the tap."""
        chunk = self._tap.take()
        at = 0
        while chunk is not None and at < len(chunk):
            _, length, recv, kind, flags, _ = ENTRY.unpack_from(chunk, at)
            at += ENTRY.size
            if kind in (MESSAGE, CONNECT, END_OF_READ, LOST):
                self._held += length
                if self._held > _MAX_HELD:
                    self.walk.lost_messages += kind == MESSAGE
                else:
                    message = Message(recv, bool(flags & ENDS_READ), chunk[at : at + length])
                    self.walk.entries.append((kind, message))
            at += length

    # --- commands

    async def _try_commands(self) -> None:
        names = self._plan.subscriptions
        whole = ",".join(names)
        script = [f"add={whole}", "list", f"del={names[-1]}", "list", f"all={whole}", "list", "his"]
        silent = 0
        for text in script:
            if self._is_cancelled() or (silent > 1 and not self.walk.texts):
                break
            command = Command(text, time.time_ns())
            self.walk.commands.append(command)
            assert self._connection is not None
            self._connection.send(text)
            patience = self._plan.reply_timeout
            if "=" in text and any("=" in each.text and not each.replies for each in self.walk.commands[:-1]):
                patience /= 3
            await self._wait(patience, until=lambda command=command: bool(command.replies))  # type: ignore[misc]
            await self._wait(_AFTERTHOUGHT, until=lambda: False)
            silent += not command.replies
            if self._is_refused(command.replies):
                await self._wait(_GREETING, until=lambda: False)
            if self._ended.is_set():
                break
        self._judge_commands()

    def _is_refused(self, texts: list[tuple[float, str]]) -> bool:
        return any(text.startswith("-1#") for _, text in texts)

    def _judge_commands(self) -> None:
        commands = self.walk.commands
        answered = sum(bool(each.replies) for each in commands)
        if any(self._is_refused(each.replies) for each in commands):
            return  # told with the data
        if not answered:
            self._note(
                "commands", "remark", f"{len(commands)} commands, no reply",
                "the server acknowledges nothing, or does not take commands; what was subscribed to shows in the data",
                "nothing, if data arrives; `request()` of a feed will time out",
            )  # fmt: skip
            return
        listed = [each.replies[0][1] for each in commands if each.text == "list" and each.replies]
        last = self._plan.subscriptions[-1]
        remark = ""
        if len(listed) == 3:
            wanted = [name for name in self._plan.subscriptions if name not in listed[0] or name not in listed[2]]
            if wanted:
                remark = f"`list` does not name {', '.join(wanted[:5])}, which was subscribed to"
            elif _names(listed[1], last):
                remark = f"`list` still names {last} after del="
        found = f"{answered} of {len(commands)} commands answered"
        if remark:
            self._note(
                "commands", "remark", f"{found}; {remark}",
                "the server does not do what it was told, or words its replies in another way than is known",
                "look at the replies below",
            )  # fmt: skip
        else:
            self._note("commands", "ok", found)

    async def _try_ping(self) -> None:
        connection = self._connection
        if connection is None or self._ended.is_set() or connection.frames.transport is None:
            return
        self._say("sending a ping")
        begin = time.monotonic()
        connection.frames.transport.send_ping(PING)
        self.walk.pinged = True
        await self._wait(self._plan.reply_timeout, until=lambda: connection.frames.ponged > 0)
        if connection.frames.ponged:
            self.walk.ping_seconds = connection.frames.ponged - begin
            self._note("ping", "ok", f"answered after {self.walk.ping_seconds * 1000:.1f} ms")
        elif not self._ended.is_set():
            self._note(
                "ping", "ok", f"not answered within {self._plan.reply_timeout:g} s: silence is judged by data alone"
            )

    # --- data

    def _judge_data(self, connection: _ObservedConnection) -> None:
        walk = self.walk
        walk.frames = connection.frames.counts
        walk.fragments = connection.frames.fragments
        walk.lost_messages += int(self._tap.lost_messages)
        walk.stats = dict(self._decoder.stats())
        walk.bad_records = list(self._decoder.bad_records)
        messages = [message for kind, message in walk.entries if kind == MESSAGE]
        asked = walk.commands[0].sent_ns if walk.commands else walk.started_ns
        walk.evidence = look(messages, asked, real_time=self._plan.clock == "exchange")
        refusal = next((text for text in walk.texts if text.startswith("-1#")), None)
        if refusal is not None:
            if LIMIT_TEXT in refusal:
                means = "the account has as many connections as it may have"
                todo = "end another connection of this account, or raise its balance"
            else:
                means = "the server says no, in words of its own"
                todo = "check the token, the balance and the subscriptions"
            self._note("server", "failed", f"the server refuses: {refusal}", means, todo)
        elif walk.ended:
            self._note(
                "server", "failed", walk.ended,
                "the connection did not last; a feed would come back, allocate anew and report a gap",
                "run it again; if it stays so, attach the report",
            )  # fmt: skip
        if not walk.commands:
            self._note("data", "skipped", "nothing was subscribed to")
            return
        self._judge_arrival()
        self._judge_decoding()

    def _judge_arrival(self) -> None:
        walk = self.walk
        seen = {level: int(walk.stats[name]) for level, name in _LEVELS.items()}
        wanted = list(dict.fromkeys(name.partition("_")[0] for name in self._plan.subscriptions))
        missing = [level for level in wanted if not seen[level]]
        counts = ", ".join(f"{seen[level]:,} of {level}" for level in wanted)
        arrived = {*walk.evidence.first_pushes}
        silent = [name for name in self._plan.subscriptions if name not in arrived]
        if silent and len(silent) < len(self._plan.subscriptions):
            counts += f"; none of {', '.join(silent[:8])}"
        if not missing:
            self._note("data", "ok", f"records: {counts}")
        elif self._is_cancelled():
            self._note(
                "data", "open", f"records: {counts}; interrupted",
                "it was not waited for what had not come yet", "run it again, to its end",
            )  # fmt: skip
        elif not walk.hours.data_expected:
            self._note(
                "data", "open", f"records: {counts}; {walk.hours.text}",
                "no data is expected now, so its absence says nothing", "run it again while the market trades",
            )  # fmt: skip
        elif not walk.stats["messages"]:
            self._note(
                "data", "failed", f"connected, and no data within {walk.listened:.0f} s; {walk.hours.text}",
                "the server took the connection and sends nothing: the subscription was not accepted, the codes do not "
                "trade, or the server is out of order",
                "look at the replies; try codes that trade all the time, such as lv1_600519; allocate anew",
            )  # fmt: skip
        else:
            codes = ", ".join(code_of(name) for name in self._plan.subscriptions if name.partition("_")[0] in missing)
            self._note(
                "data", "failed", f"records: {counts}",
                f"nothing came of {', '.join(missing)}: these codes ({codes}) are suspended or hardly trade, or the "
                "account may not have that level",
                "try other codes, or listen longer with --seconds; look at the replies and at the account's plan",
            )  # fmt: skip

    def _judge_decoding(self) -> None:
        walk, stats = self.walk, self.walk.stats
        bad, unread = int(stats["bad"]), int(stats["bad_messages"])
        if not stats["messages"]:
            self._note("decoding", "open", "there was nothing to decode")
            return
        found = f"{stats['records']:,} records out of {stats['messages']:,} messages"
        reasons = [
            f"{name} {value:,}"
            for name, value in stats.items()
            if value and name.startswith(("bad_", "inflate_")) and isinstance(value, int)
        ]
        if not bad and not unread:
            self._note("decoding", "ok", found)
            return
        if walk.bad_records:
            reason, record = walk.bad_records[0]
            reasons.append(f"the first ({reason}): {_shown(record)}")
        found += f"; not readable: {bad:,} records and {unread:,} messages: {'; '.join(reasons)}"
        orders = [
            f'{level}_order="{stats[f"{level}_order"]}"'
            for level in ("lv1", "lv10")
            if stats[f"{level}_order_source"] == "detected" and stats[f"{level}_order"] == "volume_first"
        ]
        if orders and not unread and bad == int(stats["bad_volume"]) <= _BEFORE_DETECTION:
            self._note(
                "decoding", "remark", found,
                "the server has another order of fields than is usual: what came before that was detected was read the "
                "wrong way round, and lost where no volume stood in a volume's place",
                f"name the order to the feed, so that nothing is lost: {', '.join(orders)}",
            )  # fmt: skip
            return
        self._note(
            "decoding", "failed", found,
            "the wire differs from what is known; what could not be read is lost to a feed, which counts it",
            "attach the report and the capture to a bug report",
        )  # fmt: skip


def _shown(record: bytes) -> str:
    text = redact(record.decode("utf-8", "replace"))
    # The decoder keeps so many bytes: what it cut in two there may have been the token.
    return (text[:-_SPELLED_TOKEN] if len(record) >= _KEPT else text)[:300]


def _names(text: str, name: str) -> bool:
    """Whether a list names a subscription, and not only a longer one."""
    at = text.find(name)
    while at >= 0:
        after = text[at + len(name) : at + len(name) + 1]
        if not after.isalnum():
            return True
        at = text.find(name, at + 1)
    return False
