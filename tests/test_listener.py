"""The listener against a peer that obeys the protocol, and one that does not."""

import asyncio
import itertools
import socket
import time
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
from picows import WSTransport, ws_connect

from jvq_fast.allocation import ServerAddress
from jvq_fast.connection import Connection
from jvq_fast.decoder import Decoder
from jvq_fast.listener import Listener, Tap
from jvq_fast.meter import Meter
from jvq_fast.redact import Secret
from ws_script import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Peer,
    Script,
    ScriptServer,
    binary,
    deflate,
    frame,
    serve,
    trade,
)

TIMEOUT = 20


class Session:
    """Owner of a listener: connects it, keeps what it is told, waits for its end."""

    def __init__(
        self, script: Script, tap: Tap | None = None, meter: Meter | None = None, pause: float = 0.0, **settings: Any
    ) -> None:
        """`pause`: what a second handler of trades takes, in seconds."""
        self.decoder = Decoder(capacity=4096, trading_day="2026-11-23")
        self.decoder.meter = meter
        self.batches: list[int] = []
        self.rows: list[list[int]] = []
        self.texts: list[str] = []
        self.errors: list[str] = []
        self.endings = 0
        self.decoder.on_batch = self.batches.append
        self.decoder.on_trades = lambda code, trades: self.rows.append(trades["id"].tolist())
        if pause:
            self.decoder.on_trades = (*self.decoder.on_trades, lambda code, trades: time.sleep(pause))
        self.decoder.on_error = lambda error, where: self.errors.append(where)
        self.sent: list[tuple[int, bytes]] = []
        self.listener = Listener(self.decoder, self, tap, **settings)
        with ScriptServer(self._keeping(script)) as server:
            asyncio.run(self._run(server.ws, settings.get("max_message", 10 << 20)))

    def _keeping(self, script: Script) -> Script:
        def run(peer: Peer) -> None:
            read = peer.frame

            def keep() -> tuple[int, bytes]:
                self.sent.append(read())
                return self.sent[-1]

            peer.frame = keep  # type: ignore[method-assign]
            script(peer)

        return run

    async def _run(self, url: str, max_frame_size: int) -> None:
        self.gone = asyncio.get_running_loop().create_future()
        transport, _ = await ws_connect(
            lambda *_: self.listener, url, enable_auto_pong=False, max_frame_size=max_frame_size
        )
        await asyncio.wait_for(self.gone, TIMEOUT)
        self.disconnect: BaseException | None = None
        try:
            await transport.wait_disconnected()
        except Exception as error:
            self.disconnect = error

    def opened(self, transport: WSTransport) -> None:
        self.transport = transport

    def text(self, text: str) -> None:
        self.texts.append(text)

    def ending(self) -> None:
        self.endings += 1

    def closed(self) -> None:
        self.gone.set_result(None)

    @property
    def ids(self) -> list[int]:
        return [number for row in self.rows for number in row]

    @property
    def recv(self) -> list[int]:
        return list(self.decoder.trades.last(4096)["recv"])

    @property
    def close_code(self) -> int | None:
        for kind, payload in self.sent:
            if kind == CLOSE:
                return int.from_bytes(payload[:2], "big")
        return None


def send_and_leave(*frames: bytes) -> Script:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.send(*frames)
        # Closing with unread data would reset the connection, and drop what is under way.
        peer.sock.shutdown(socket.SHUT_WR)
        peer.until_closed()

    return script


def send_and_hear(*frames: bytes) -> Script:
    """Send, then listen up to the client's CLOSE and until it is gone."""

    def script(peer: Peer) -> None:
        peer.accept()
        peer.send(*frames)
        peer.close_code()
        peer.until_closed()

    return script


@pytest.mark.parametrize(
    "last",
    [b"", frame(PING, b"x"), frame(PONG), frame(TEXT, b"0#ok"), frame(BINARY, b"part", fin=False), binary("\n")],
    ids=["binary", "ping", "pong", "text", "fragment", "message without rows"],
)
def test_a_socket_read_has_one_stamp_and_ends_with_its_last_frame_of_any_type(last: bytes) -> None:
    session = Session(send_and_leave(binary(trade(1) + trade(2)), frame(TEXT, b"0#"), binary(trade(3)), last))
    assert session.ids == [1, 2, 3]
    assert session.batches == [3]
    assert len(set(session.recv)) == 1


def test_each_socket_read_has_its_own_stamp_and_batch() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        for number in range(5):
            peer.send(binary(trade(2 * number)), binary(trade(2 * number + 1)), frame(PING))
            assert peer.frame() == (PONG, b"")

    session = Session(script)
    assert session.ids == list(range(10))
    assert session.batches == [2] * 5
    assert len(set(session.recv)) == 5
    assert session.recv == sorted(session.recv)
    assert session.listener.message_ns == session.recv[-1]
    assert session.listener.pings == 5


def test_a_read_without_market_data_is_no_batch() -> None:
    session = Session(send_and_leave(frame(TEXT, b"0#ok"), frame(PING), frame(PONG)))
    assert session.batches == []
    assert session.texts == ["0#ok"]
    assert session.listener.message_ns == 0


def test_a_message_waits_for_the_handlers_before_it_in_its_read() -> None:
    meter = Meter()
    session = Session(send_and_leave(binary(trade(1)) + binary(trade(2)) + binary(trade(3))), meter=meter, pause=0.05)
    assert session.ids == [1, 2, 3]
    assert session.batches == [3]
    interval = meter.take()
    assert meter.dispatch.count == 3
    assert interval.calls == 2 * 3 + 1
    assert 0.15 <= interval.callbacks <= interval.end - interval.start
    assert 0.1 <= interval.dispatch_callbacks <= interval.dispatch
    assert interval.dispatch_own <= interval.dispatch - 0.05
    assert 0 < interval.decode < interval.end - interval.start - interval.callbacks


def test_time_between_reads_is_nobodys() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        for number in range(4):
            peer.send(binary(trade(number)), frame(TEXT, b"0#"), frame(PING))
            peer.frame()
            time.sleep(0.1)
        peer.sock.shutdown(socket.SHUT_WR)
        peer.until_closed()

    meter = Meter()
    session = Session(script, meter=meter)
    assert session.ids == [0, 1, 2, 3]
    assert session.texts == ["0#"] * 4
    interval = meter.take()
    assert interval.end - interval.start > 0.4
    assert interval.decode + interval.callbacks < 0.2


def test_frames_that_come_with_the_handshake_are_taken() -> None:
    def script(peer: Peer) -> None:
        peer.accept(binary(trade(1)), binary(trade(2)))

    session = Session(script)
    assert session.ids == [1, 2]
    assert session.batches == [2]


def test_a_stream_cut_anywhere_gives_the_same_messages() -> None:
    frames = binary(trade(1)) + frame(PING, b"ping") + binary("".join(trade(n) for n in range(2, 40)))
    frames += frame(BINARY, deflate(trade(40))[:9], fin=False) + frame(CONTINUATION, deflate(trade(40))[9:])

    def script(peer: Peer) -> None:
        peer.accept()
        for cut in range(len(frames) + 1):
            peer.send(frames[:cut])
            peer.send(frames[cut:])
            assert peer.frame() == (PONG, b"ping")

    session = Session(script)
    assert session.ids == list(range(1, 41)) * (len(frames) + 1)
    assert sum(session.batches) == len(session.ids)


@pytest.mark.parametrize("size", [0, 1, 125])
def test_a_ping_is_answered_with_its_payload(size: int) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.send(frame(PING, b"p" * size))
        assert peer.frame() == (PONG, b"p" * size)

    assert Session(script).listener.pings == 1


def test_fragments_are_joined_with_control_frames_between() -> None:
    message, text = deflate("".join(trade(n) for n in range(300))), "连接数".encode()
    frames = []
    for whole, kind in ((message, BINARY), (text, TEXT)):
        for i in range(len(whole) + 1):
            # An empty fragment is one, too, and the cut may go through a character.
            frames += [frame(kind, whole[:i], fin=False), frame(PING, b"a"), frame(CONTINUATION, b"", fin=False)]
            frames += [frame(PONG), frame(CONTINUATION, whole[i:])]
    session = Session(send_and_leave(*frames))
    assert session.ids == list(range(300)) * (len(message) + 1)
    assert session.texts == [text.decode()] * (len(text) + 1)
    assert session.listener.fragments == 3 * (len(message) + len(text) + 2)


def test_a_fragmented_message_is_held_to_the_limit() -> None:
    parts = [frame(BINARY, b"x" * 400, fin=False), frame(CONTINUATION, b"x" * 600, fin=False)]
    session = Session(send_and_hear(*parts, frame(CONTINUATION, b"x"), binary(trade(1))), max_message=1000)
    assert session.close_code == 1009
    assert session.listener.messages == 0
    assert "1000 bytes" in session.listener.reason


def test_a_frame_is_held_to_the_limit_and_those_before_it_count() -> None:
    session = Session(send_and_hear(binary(trade(1)), frame(BINARY, b"x" * 1001)), max_message=1000)
    assert session.close_code == 1009
    assert session.ids == [1]
    assert session.batches == [1]


FAULTS = {
    "rsv1": (frame(BINARY, b"x", rsv=4), 1002),
    "rsv2": (frame(TEXT, b"x", rsv=2), 1002),
    "rsv3": (frame(PING, b"x", rsv=1), 1002),
    "rsv on close": (frame(CLOSE, b"\x03\xe8", rsv=1), 1002),
    "stray continuation": (frame(CONTINUATION, b"x"), 1002),
    "stray unfinished continuation": (frame(CONTINUATION, b"x", fin=False), 1002),
    "data inside fragments": (frame(BINARY, b"x", fin=False) + frame(BINARY, b"y"), 1002),
    "text inside fragments": (frame(BINARY, b"x", fin=False) + frame(TEXT, b"y"), 1002),
    "new fragments inside fragments": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y", fin=False), 1002),
    "continuation after the end": (
        frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"y") + frame(CONTINUATION, b"z"),
        1002,
    ),
    "text not UTF-8": (frame(TEXT, b"\xff"), 1007),
    "text with a surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "joined text not UTF-8": (frame(TEXT, b"\xe4", fin=False) + frame(CONTINUATION, b"x"), 1007),
    "unknown opcode": (frame(3, b"x"), 1002),
    "fragmented ping": (frame(PING, b"x", fin=False), 1002),
    "long ping": (frame(PING, b"x" * 126), 1002),
    "close with one byte": (frame(CLOSE, b"\x03"), 1002),
    "close not UTF-8": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
} | {
    f"close {code}": (frame(CLOSE, code.to_bytes(2, "big")), 1002)
    for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_protocol_error_is_refused_and_only_what_came_before_it_counts(fault: str) -> None:
    frames, code = FAULTS[fault]
    session = Session(send_and_hear(binary(trade(1)), frames, binary(trade(2)), frame(TEXT, b"late")))
    assert session.close_code == code
    assert session.ids == [1]
    assert session.batches == [1]
    assert "late" not in session.texts
    assert session.listener.fatal is None
    assert session.listener.reason or session.disconnect


def test_after_a_protocol_error_later_reads_are_ignored() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.send(binary(trade(1)), frame(BINARY, b"x", rsv=4))
        assert peer.close_code() == 1002
        peer.send(binary(trade(2)))
        peer.until_closed()

    assert Session(script).ids == [1]


def test_after_a_frame_that_picows_refuses_later_reads_are_ignored() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.send(frame(3))
        assert peer.close_code() == 1002
        peer.send(binary(trade(1)), binary(trade(2)))
        peer.until_closed()

    assert Session(script).ids == []


@pytest.mark.parametrize("code", [None, 1000, 1001, 1003, 1007, 1011, 1012, 3000, 4999])
def test_a_close_is_answered_with_its_code_and_ends_the_connection(code: int | None) -> None:
    payload = b"" if code is None else code.to_bytes(2, "big") + "再见".encode()
    session = Session(send_and_hear(binary(trade(1)), frame(CLOSE, payload), binary(trade(2)), frame(CLOSE, payload)))
    assert session.close_code == (code or 1000)
    assert session.ids == [1]
    assert session.batches == [1]
    assert session.listener.closing
    assert session.endings == 1
    assert str(code or 1000) in session.listener.reason
    assert ("再见" in session.listener.reason) == (code is not None)


@pytest.mark.parametrize(
    ("code", "answer"),
    [(b"", 1000), (b"\x03\xe8", 1000), (b"\x0f\xa0", 4000), (b"\x03\xee", 1002), (b"\xff\xff", 1002)],
)
@pytest.mark.parametrize("more", [frame(CLOSE), frame(3), frame(PING, b"x" * 126)], ids=["close", "opcode", "size"])
def test_nothing_after_a_close_changes_its_answer(code: bytes, answer: int, more: bytes) -> None:
    # picows reads one frame ahead, and would answer the second one before the listener has the first.
    codes: list[int] = []

    def script(peer: Peer) -> None:
        peer.accept()
        peer.send(binary(trade(1)), frame(CLOSE, code), more)
        codes.append(peer.close_code())
        peer.until_closed()

    class Hooks:
        def opened(self, connection: Connection) -> None: ...
        def text(self, text: str) -> None: ...

    async def run(port: int) -> str:
        connection = Connection(
            ServerAddress("ws", "127.0.0.1", port),
            Secret("0" * 32),
            decoder,
            Hooks(),
            tap=None,
            max_message=1 << 20,
            close_timeout=1.0,
        )
        async with asyncio.timeout(TIMEOUT):
            assert await connection.open(TIMEOUT, TIMEOUT, asyncio.Event())
            return await connection.ended()

    decoder = Decoder(capacity=16, history=16, trading_day="2026-11-23")
    with ScriptServer(script) as server:
        reason = asyncio.run(run(server.port))
    assert codes == [answer]
    assert decoder.trades.head == 1
    assert ("server closed" in reason) == (answer != 1002)


def test_a_handler_that_raises_does_not_end_the_connection() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.send(binary(trade(1)), binary(trade(2)))

    class Failing(Session):
        @property
        def rows(self) -> Any:
            raise ZeroDivisionError

        @rows.setter
        def rows(self, _: Any) -> None: ...

    session = Failing(script)
    assert session.errors == ["on_trades"] * 2
    assert session.batches == [2]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["on_trades", "on_batch", "text", "opened"])
def test_what_must_end_the_program_is_kept_and_ends_the_connection(kind: type[BaseException], where: str) -> None:
    class Interrupted(Session):
        def __init__(self) -> None:
            self.after = 0
            super().__init__(serve(binary(trade(1)), frame(TEXT, b"hello"), binary(trade(2)), subscribed=False))

        async def _run(self, url: str, max_frame_size: int) -> None:
            def interrupt(*_: object) -> None:
                self.after += 1
                raise kind

            if where in ("text", "opened"):
                setattr(self, where, interrupt)
            else:
                setattr(self.decoder, where, interrupt)
            await super()._run(url, max_frame_size)

    session = Interrupted()
    assert isinstance(session.listener.fatal, kind)
    assert session.after == 1
    assert session.endings == 1


def test_quit_within_a_message_ends_the_read_after_it() -> None:
    class Quitting(Session):
        async def _run(self, url: str, max_frame_size: int) -> None:
            def stop(code: str, trades: Any) -> None:
                self.rows.append(trades["id"].tolist())
                self.listener.quit()
                self.transport.disconnect()

            self.decoder.on_trades = stop
            await super()._run(url, max_frame_size)

    session = Quitting(serve(binary(trade(1)), binary(trade(2)), subscribed=False))
    assert session.ids == [1]
    assert session.batches == [1]


# --- any sequence of frames, against a model of RFC 6455 ---

KINDS = st.sampled_from([BINARY, TEXT, CONTINUATION, PING, PONG])


@st.composite
def some_frame(draw: st.DrawFn, number: "list[int]") -> tuple[int, bytes, bool, int]:
    kind = draw(KINDS)
    payload: bytes
    if kind == BINARY:
        number[0] += 1
        payload = deflate(trade(number[0]))
    elif kind in (TEXT, CONTINUATION):
        payload = draw(st.sampled_from([b"", b"abc", "限".encode(), b"\xe9", b"\x99\x90"]))
    else:
        payload = draw(st.binary(max_size=8))
    control = kind in (PING, PONG)
    # Faults must be rare, or no sequence gets far.
    rsv = draw(st.sampled_from([0] * 40 + [1, 2, 4]))
    return kind, payload, control or draw(st.sampled_from([True, True, False])), rsv


@st.composite
def frame_sequence(draw: st.DrawFn) -> list[tuple[int, bytes, bool, int]]:
    number = [0]
    return [draw(some_frame(number)) for _ in range(draw(st.integers(0, 30)))]


def model(frames: list[tuple[int, bytes, bool, int]]) -> tuple[int, int, list[str], int | None]:
    """Messages, pings, texts, and the code of the refusal."""
    messages = pings = 0
    texts: list[str] = []
    kind_open, parts = 0, b""
    for kind, payload, fin, rsv in frames:
        if rsv:
            return messages, pings, texts, 1002
        if kind in (PING, PONG):
            pings += kind == PING
            continue
        if (kind == CONTINUATION) != bool(kind_open):
            return messages, pings, texts, 1002
        if kind != CONTINUATION:
            kind_open, parts = kind, b""
        parts += payload
        if not fin:
            continue
        if kind_open == TEXT:
            try:
                texts.append(parts.decode())
            except UnicodeDecodeError:
                return messages, pings, texts, 1007
        else:
            messages += 1
        kind_open = 0
    return messages, pings, texts, None


@hypothesis.given(frames=frame_sequence(), cuts=st.lists(st.integers(0, 2000), max_size=3))
@hypothesis.settings(max_examples=2 * hypothesis.settings.default.max_examples)
def test_any_sequence_of_frames_is_taken_as_the_protocol_says(
    frames: list[tuple[int, bytes, bool, int]], cuts: list[int]
) -> None:
    data = b"".join(frame(*each) for each in frames)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    messages, pings, texts, code = model(frames)

    def script(peer: Peer) -> None:
        peer.accept()
        for begin, end in itertools.pairwise(edges):
            if end > begin:
                peer.send(data[begin:end])
        if code is None:
            peer.send(frame(CLOSE))
        peer.close_code()
        peer.until_closed()

    session = Session(script)
    assert session.close_code == (code or 1000)
    assert session.listener.messages == messages
    assert session.listener.pings == pings
    assert session.texts == texts
    assert sum(session.batches) == len(session.ids)
    assert [payload for kind, payload in session.sent if kind == PONG] == [
        payload for kind, payload, _, _ in frames if kind == PING
    ][:pings]


def test_the_tap_gets_each_message_and_where_reads_end() -> None:
    from jvq_fast.capture import END_OF_READ, ENTRY, MESSAGE

    tap = Tap(1 << 20)

    def script(peer: Peer) -> None:
        peer.accept()
        for last in (b"", frame(PING)):
            peer.send(binary(trade(1)), binary(trade(2)), last, *[frame(PING)] * (not last))
            peer.frame()
        peer.send(binary(trade(3)))

    session = Session(script, tap)
    view = tap.take()
    assert view is not None
    data, entries, at = bytes(view), [], 0
    while at < len(data):
        _, length, recv, kind, flags, _ = ENTRY.unpack_from(data, at)
        entries.append((kind, flags, data[at + ENTRY.size : at + ENTRY.size + length]))
        assert recv in session.recv
        at += ENTRY.size + length
    one, two, three = (deflate(trade(n)) for n in (1, 2, 3))
    read = [(MESSAGE, 0, one), (MESSAGE, 0, two), (END_OF_READ, 0, b"")]
    assert entries == [*read, *read, (MESSAGE, 1, three)]
    assert tap.take() is None
    assert tap.messages == 5


def test_a_tap_that_nobody_empties_is_bounded_and_counts_what_it_loses() -> None:
    tap = Tap(1 << 16)
    count = 3000
    session = Session(send_and_leave(*(binary(trade(n)) for n in range(count))), tap)
    assert session.ids == list(range(count))
    assert tap.held <= 1 << 16
    assert tap.messages + tap.lost_messages == count
    assert 0 < tap.messages < count
    assert tap.lost_bytes == sum(len(deflate(trade(n))) for n in range(tap.messages, count))


def test_a_listener_needs_a_decoder() -> None:
    with pytest.raises(TypeError):
        Listener(None, object())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="4096"):
        Tap(1)
