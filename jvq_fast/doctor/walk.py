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

from jvq_fast.allocation import Reply, ServerAddress, exchange, judge, no_reply, parse_server
from jvq_fast.capture import CONNECT, END_OF_READ, ENDS_READ, ENTRY, LOST, MESSAGE, entry
from jvq_fast.connection import Connection, Hooks
from jvq_fast.decoder import Decoder
from jvq_fast.doctor import machine
from jvq_fast.doctor.evidence import Evidence, Message, look
from jvq_fast.doctor.hours import Hours, hours
from jvq_fast.doctor.steps import Outcome, Step
from jvq_fast.errors import AllocationRefusedError, ConnectError, HandshakeError
from jvq_fast.listener import Listener, Tap
from jvq_fast.offload import offload
from jvq_fast.plural import plural
from jvq_fast.redact import Secret, redact
from jvq_fast.subscriptions import code_of

PING = b"jvq_fast doctor"
SECOND_PING = b"jvq_fast doctor again"
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
# Seconds. Data is missed after half the time that is listened, within these bounds, where it never paused for a third
# of that before. Trades alone may pause for longer.
_LEAST_SILENCE = 2.0
_SILENCE = 10.0
_SILENCE_OF_TRADES = 60.0
# Of messages, beside a first push of each subscription after add= and after all=: data was flowing.
_FLOW = 10
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
    pinged_ns: int = 0
    ping_seconds: float | None = None
    frames: Counter[str] = field(default_factory=Counter)
    fragments: Counter[int] = field(default_factory=Counter)  # messages by frames, from two on
    lost_messages: int = 0
    opened_ns: int = 0
    last_frame_ns: int = 0
    last_record_ns: int = 0
    over_ns: int = 0  # the connection ended, or nothing more was waited for
    ended: str = ""
    died: bool = False  # it stayed open, and not even what is always answered was answered
    interrupted: bool = False  # nothing more was waited for from some point on
    unfinished: list[str] = field(default_factory=lambda: ["commands", "ping", "data"])  # steps, by their names
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

    def is_due(self, sent_ns: int) -> bool:
        """Whether an answer that did not come by now is missing: later than that the server was still heard."""
        return self.last_frame_ns >= sent_ns + int(self.plan.reply_timeout * 1e9)

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
        self.last_ns = 0
        self._parts = 0

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
        self.last_ns = time.time_ns()
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

    def _listen(self, request: object, response: object) -> WSListener:
        super()._listen(request, response)
        return self.frames


async def walk(plan: Plan, say: Callable[[str], None], is_cancelled: Callable[[], bool]) -> Walk:
    """Walk as far as it goes. `say` is called with what is being done; once `is_cancelled`, nothing more is waited for.

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
        self._decoder.on_batch = self._arrived
        self._longest_pause = 0
        self._probe: Command | None = None
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
        walk.interrupted = self._is_cancelled()
        if address is None:
            for name in ("connection", "commands", "ping", "data"):
                self._note(name, "skipped", "there is no server to go to")
            return
        walk.address = address
        await self._with(address)
        walk.interrupted = self._is_cancelled()

    def _note(self, name: str, outcome: Outcome, found: str, means: str = "", todo: str = "") -> None:
        self.walk.steps.append(Step(name, outcome, found, means, todo))

    # --- allocation

    async def _allocate(self) -> ServerAddress | None:
        if self._plan.server is not None:
            self._note("allocation", "skipped", f"the server was named: {self._plan.server}")
            return self._plan.server
        self._say("asking for a server")
        reply = await self._ask()
        if reply is None:
            self._note("allocation", "open", "interrupted before there was a reply", "", "run it again, to its end")
            return None
        address = self._read_allocation(reply)
        if self._plan.second_allocation and not self._is_cancelled():
            await self._ask_again()
        return address

    async def _ask(self) -> Reply | BaseException | None:
        """The reply, or what there was instead of one; None where nobody waited for it to the end."""
        plan = self._plan
        timeout = plan.allocation_timeout
        self.walk.asked_ns.append(time.time_ns())
        ask = partial(exchange, plan.token, "ab", "websocket", plan.service, timeout)
        reply: Reply | BaseException
        asking = asyncio.ensure_future(offload(ask, timeout + 1, "allocation"))
        if not await self._done_before_cancelled(asking):
            self.walk.asked_ns.pop()
            return None
        try:
            reply = asking.result()
        except TimeoutError:
            reply = no_reply(plan.service, timeout)
        self.walk.allocations.append(reply)
        return reply

    async def _done_before_cancelled(self, task: "asyncio.Future[Any]") -> bool:
        """Wait for a task for as long as anybody wants to know; then it is cancelled."""
        while not task.done() and not self._is_cancelled():
            await asyncio.wait({task}, timeout=_STEP)
        if task.done():
            return True
        task.cancel()
        return False

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
        if reply is None:
            return
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
        stop = asyncio.Event()
        opening = asyncio.ensure_future(connection.open(plan.connect_timeout, plan.handshake_timeout, stop))
        while not opening.done():
            await asyncio.wait({opening}, timeout=_STEP)
            if self._is_cancelled():
                stop.set()
        try:
            if not opening.result():
                self._note("connection", "open", "interrupted before it was open", "", "run it again, to its end")
                for name in ("commands", "ping", "data"):
                    self._note(name, "skipped", "there is no connection")
                return
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
            self.walk.over_ns = self.walk.over_ns or time.time_ns()
            self.walk.last_frame_ns = connection.frames.last_ns
            connection.close()
            await asyncio.wait({ending}, timeout=plan.close_timeout + 1)
            connection.abort()
            if not ending.done():
                ending.cancel()
            self._collect()
        if connection.listener.fatal is not None:
            raise connection.listener.fatal
        self._judge(connection)

    async def _end(self, connection: Connection) -> None:
        reason = await connection.ended()
        if not self._closing:
            self.walk.ended = reason
            self.walk.over_ns = time.time_ns()
        self._ended.set()
        self._news.set()

    def opened(self, connection: Connection) -> None:
        """Called by the connection."""
        self._connection = cast("_ObservedConnection", connection)
        self._opened = time.monotonic()
        self.walk.opened_ns = time.time_ns()
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

    def _arrived(self, records: int) -> None:
        walk = self.walk
        if not records or self._closing:
            return
        now = time.time_ns()
        if walk.last_record_ns:
            self._longest_pause = max(self._longest_pause, now - walk.last_record_ns)
        walk.last_record_ns = now

    async def _use(self) -> None:
        await self._wait(_GREETING, until=lambda: bool(self.walk.greetings))
        if self._is_refused(self.walk.greetings):
            await self._wait(_GREETING, until=lambda: False)  # the end follows
            return
        if not self._is_cancelled():
            self._say("trying the commands")
            await self._try_commands()
        self._finish("commands")
        if not self._is_cancelled():
            await self._try_ping()
        self._finish("ping")
        if self._is_cancelled():
            return
        seconds = self._plan.seconds
        self._say(f"listening for {seconds:g} s")
        begin = time.monotonic()
        await self._wait(seconds, until=lambda: False)
        self.walk.listened = time.monotonic() - begin
        self._finish("data")
        await self._ask_the_silent()

    def _finish(self, name: str) -> None:
        if not self._is_cancelled():
            self.walk.unfinished.remove(name)

    async def _ask_the_silent(self) -> None:
        """Ask a server of which nothing comes any more for something, so that its death is told from silence."""
        connection, now = self._connection, time.time_ns()
        if connection is None or connection.frames.transport is None or self._is_cancelled() or self._ended.is_set():
            return
        silence = now - max(connection.frames.last_ns, self.walk.opened_ns)
        if silence < int(_LEAST_SILENCE * 1e9):
            return
        self._say(f"nothing came for {_seconds(silence)}: asking for a sign of life")
        self._probe = probe = Command("list", now)
        self.walk.commands.append(probe)
        connection.send(probe.text)
        connection.frames.transport.send_ping(SECOND_PING)
        await self._wait(self._plan.reply_timeout, until=lambda: bool(probe.replies))
        await self._wait(_AFTERTHOUGHT, until=lambda: False)

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

    def _is_refused(self, texts: list[tuple[float, str]]) -> bool:
        return any(text.startswith("-1#") for _, text in texts)

    def _judge_commands(self) -> None:
        commands = [each for each in self.walk.commands if each is not self._probe]
        if not commands or any(self._is_refused(each.replies) for each in commands):
            return  # told with the data
        silent = [each for each in commands if not each.replies]
        found = f"{len(commands) - len(silent)} of {len(commands)} commands answered"
        after = [each for each in silent if not self.walk.is_due(each.sent_ns)]
        if after and self.walk.interrupted:
            self._note(
                "commands", "open", f"{found}; interrupted",
                "it was not waited for what had not come yet", "run it again, to its end",
            )  # fmt: skip
            return
        if after and (self.walk.died or self.walk.ended):
            self._note(
                "commands", "open", f"{found}; {len(after)} were not, when nothing came any more",
                "that is a consequence of the connection's end, and says nothing about the commands", "see server",
            )  # fmt: skip
            return
        if len(silent) == len(commands):
            self._note(
                "commands", "remark", f"{plural(len(commands), 'command')}, no reply",
                "the server acknowledges nothing, or does not take commands; what was subscribed to shows in the data",
                "nothing, if data arrives; `request()` of a feed will time out",
            )  # fmt: skip
            return
        if silent:
            names = dict.fromkeys("".join(each.text.partition("=")[:2]) for each in silent)
            self._note(
                "commands", "remark", f"{found}, not {', '.join(names)}",
                "the server acknowledges only some of what it is told; what was subscribed to shows in the data",
                "nothing, if data arrives; `request()` of a feed will time out for these",
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
        self.walk.pinged_ns = time.time_ns()
        connection.frames.transport.send_ping(PING)
        await self._wait(self._plan.reply_timeout, until=lambda: connection.frames.ponged > 0)
        if connection.frames.ponged:
            self.walk.ping_seconds = connection.frames.ponged - begin

    def _judge_ping(self) -> None:
        walk = self.walk
        if walk.ping_seconds is not None:
            self._note("ping", "ok", f"answered after {walk.ping_seconds * 1000:.1f} ms")
        elif not walk.pinged_ns:
            return
        elif walk.interrupted and not walk.is_due(walk.pinged_ns):
            self._note(
                "ping", "open", "interrupted before an answer",
                "it was not waited for what had not come yet", "run it again, to its end",
            )  # fmt: skip
        elif (walk.died or walk.ended) and not walk.is_due(walk.pinged_ns):
            self._note(
                "ping", "open", "not answered, when nothing came any more",
                "that is a consequence of the connection's end, and says nothing about pings", "see server",
            )  # fmt: skip
        else:
            self._note(
                "ping", "ok", f"not answered within {self._plan.reply_timeout:g} s: silence is judged by data alone"
            )

    # --- data

    def _judge(self, connection: _ObservedConnection) -> None:
        walk = self.walk
        walk.interrupted = self._is_cancelled()
        unanswered = self._unanswered()
        walk.died = bool(unanswered) and not walk.ended
        self._judge_commands()
        self._judge_ping()
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
        elif walk.died:
            since = max(walk.last_frame_ns, walk.opened_ns)
            self._note(
                "server", "failed",
                f"nothing came for the last {_seconds(walk.over_ns - since)} of "
                f"{_seconds(walk.over_ns - walk.opened_ns)}, nor an answer to {', '.join(unanswered)}",
                "the connection died without a word, or the server hangs: it had answered before; a feed would notice "
                "by the silence, come back, allocate anew and report a gap",
                "run it again; if it stays so, look for what forgets connections in between, such as NAT or a VPN, and "
                "attach the report",
            )  # fmt: skip
        if not walk.commands:
            self._note("data", "skipped", "nothing was subscribed to")
            return
        self._judge_arrival()
        self._judge_clock()
        self._judge_decoding()

    def _unanswered(self) -> list[str]:
        """What was asked since the last frame, had its time, and is of a kind that was answered before."""
        walk = self.walk
        known = {_kind(each.text) for each in walk.commands if each.replies}
        asked = [(_kind(each.text), each.sent_ns) for each in walk.commands if not each.replies]
        if walk.ping_seconds is not None and self._probe is not None:
            known.add("a ping")
            asked.append(("a ping", self._probe.sent_ns))
        late = walk.over_ns - int(self._plan.reply_timeout * 1e9)
        return list(dict.fromkeys(kind for kind, at in asked if kind in known and walk.last_frame_ns < at <= late))

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
        silence = walk.over_ns - walk.last_record_ns
        if walk.last_record_ns:
            whole = walk.over_ns - walk.opened_ns
            counts += f"; the last of them {_seconds(silence)} before the end of {_seconds(whole)}"
        if walk.interrupted and "data" in walk.unfinished:
            counts += f"; interrupted after {walk.listened:.1f} of {self._plan.seconds:g} s"
        is_over = walk.died or bool(walk.ended)
        limit = min(_SILENCE, max(_LEAST_SILENCE, self._plan.seconds / 2)) * 1e9
        is_silent = bool(walk.last_record_ns) and not is_over and silence >= max(limit, 3 * self._longest_pause)
        then = hours(walk.over_ns, real_time=self._plan.clock == "exchange")
        is_trading = walk.hours.data_expected and then.data_expected
        if is_silent and is_trading and self._is_missed(silence, wanted):
            self._note(
                "data", "failed", f"records: {counts}",
                f"{self._manner()}; a feed would notice by the silence, come back and report a gap",
                "run it again; if it stays so, allocate anew later and attach the report",
            )  # fmt: skip
        elif not missing and is_silent:
            reason = "the codes may be quiet" if is_trading else "the market does not trade all of this time"
            self._note(
                "data", "remark", f"records: {counts}", f"{self._manner()}; {reason}",
                "run it again while the market trades, with codes that trade all the time, such as lv1_600519",
            )  # fmt: skip
        elif walk.died or (is_over and missing):
            self._note(
                "data", "open" if missing else "remark", f"records: {counts}",
                "that no more came is a consequence of the connection's end", "see server",
            )  # fmt: skip
        elif not missing:
            self._note("data", "ok", f"records: {counts}")
        elif walk.interrupted:
            self._note(
                "data", "open", f"records: {counts}",
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

    def _judge_clock(self) -> None:
        seconds = self.walk.evidence.clocks_apart
        if seconds is None:
            return
        by_server = "the server lags far behind" if seconds > 0 else "the server is ahead of its time"
        self._note(
            "clock", "remark", f"all data is {apart(seconds)} than this machine's clock",
            f"this machine's clock is wrong, or {by_server}, or it is a simulator or a replay, which keeps a time of "
            "its own; a feed may flag all of it STALE, and none of these ages says anything",
            "for a simulator or a replay pass --clock always; else set the clock (see `timedatectl`), or allocate anew",
        )  # fmt: skip

    def _is_missed(self, silence: int, levels: list[str]) -> bool:
        """Whether so long a silence is no quiet stock's."""
        if levels == ["lv2"] and silence < _SILENCE_OF_TRADES * 1e9:
            return False
        return int(self.walk.stats["messages"]) >= 2 * len(self._plan.subscriptions) + _FLOW

    def _manner(self) -> str:
        if self.walk.last_frame_ns > self.walk.last_record_ns:
            return "the server answers, and sends no more data"
        return "nothing comes any more; it was never heard to answer, so it may be dead as well"

    def _judge_decoding(self) -> None:
        walk, stats = self.walk, self.walk.stats
        bad, unread = int(stats["bad"]), int(stats["bad_messages"])
        if not stats["messages"]:
            self._note("decoding", "open", "there was nothing to decode")
            return
        found = f"{plural(int(stats['records']), 'record')} out of {plural(int(stats['messages']), 'message')}"
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
        found += f"; not readable: {plural(bad, 'record')} and {plural(unread, 'message')}: {'; '.join(reasons)}"
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


def apart(seconds: float) -> str:
    """How much older or newer, in words; negative seconds are newer."""
    size = f"{abs(seconds) / 60:.0f} min" if abs(seconds) >= 600 else f"{abs(seconds):.0f} s"
    return f"{size} {'older' if seconds > 0 else 'newer'}"


def _seconds(ns: int) -> str:
    return f"{ns / 1e9:.1f} s"


def _kind(text: str) -> str:
    """What a server that answers one of answers all of."""
    return "a subscription" if "=" in text else text


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
