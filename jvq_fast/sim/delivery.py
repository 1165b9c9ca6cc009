"""How a message goes out while faults are about: through all that hit it, and into the books as what became of it."""

from collections.abc import Callable

from jvq_fast.sim.cargo import Cargo
from jvq_fast.sim.connection import Connection
from jvq_fast.sim.damage import FRAMES, PAYLOADS, RECORDS, Frames, bomb
from jvq_fast.sim.faults import Fault, Faults
from jvq_fast.sim.line import BINARY, frame

__all__ = ["deliver"]


def deliver(connection: Connection, faults: Faults, text: str, deflated: Callable[[str], bytes]) -> None:
    """Send the message with this text, or what faults leave of it."""
    cargo = Cargo.of(connection.attempts, text)
    if connection.muted:
        cargo.spoil("missing", connection.muted)
        connection.settle(cargo, 0)
        return
    _add_late(connection, cargo)
    payloads = []
    frames = None
    bombs = []

    def applies(fault: Fault) -> bool:
        if fault.kind.where == "frame":
            return frames is None and bool(cargo.text())
        if fault.kind.needs:
            return bool(cargo.fresh(fault.kind.needs))
        return fault.kind.where != "message" or bool(cargo.records())

    for fault, dice in faults.message(connection, applies):
        kind = fault.kind.name
        if fault.kind.where == "server":
            faults.strike(fault, connection)
        elif fault.kind.where == "connection":
            if kind != "text":
                cargo.spoil("missing", kind)
                connection.settle(cargo, 0)
            faults.strike(fault, connection)
            if kind != "text":
                return
        elif fault.kind.where == "frame":
            frames = fault, dice
        elif kind == "bomb":
            bombs.append(bomb(fault.values["size"]))
        else:
            if kind in RECORDS:
                late = RECORDS[kind](cargo, fault.values, dice, fault.memory)
                connection.late += [(connection.attempts + later, record) for later, record in late]
            if kind in PAYLOADS:
                payloads.append((fault, dice))
    whole = cargo.text()
    if not whole:
        connection.settle(cargo, 0)
    else:
        payload = deflated(whole)
        for kind, (readable, change) in PAYLOADS.items():
            for fault, dice in payloads:
                if fault.kind.name == kind and cargo.reached:
                    payload = change(payload, whole.encode(), fault.values, dice)
                    if not readable:
                        cargo.spoil("damaged", kind)
        if frames is None:
            _send(connection, cargo, payload)
        else:
            fault, dice = frames
            made = FRAMES[fault.kind.name](payload, fault.values, dice, fault.memory)
            _send_framed(connection, cargo, payload, fault.kind.name, made)
    for each in bombs:
        connection.write([frame(BINARY, each)])


def _add_late(connection: Connection, cargo: Cargo) -> None:
    """What is due of the records that were to come later; those of what is subscribed to no more never come."""
    if not connection.late:
        return
    due = [record for at, record in connection.late if at <= connection.attempts]
    connection.late = [(at, record) for at, record in connection.late if at > connection.attempts]
    for record in due:
        if record.key not in connection.subscriptions:
            record.become("missing", record.fault)
        cargo.rows.append([record])


def _send(connection: Connection, cargo: Cargo, payload: bytes) -> None:
    if not connection.line_is_busy:
        connection.settle(cargo, len(payload))
        connection.send_payload(payload)
        return
    _write(connection, cargo, payload, Frames([b"".join(connection.frames(payload))]))


def _send_framed(connection: Connection, cargo: Cargo, payload: bytes, fault: str, frames: Frames) -> None:
    if not frames.readable:
        cargo.spoil("damaged", fault)
    _write(connection, cargo, payload, frames)
    if frames.then == "silent":
        connection.mute(fault, answers=False)
    elif frames.then:
        connection.hurry()
        if frames.then == "reset":
            connection.reset()
        else:
            connection.end()


def _write(connection: Connection, cargo: Cargo, payload: bytes, frames: Frames) -> None:
    def done(written: bool) -> None:
        if not written:
            cargo.spoil("missing", "closed")
        connection.settle(cargo, len(payload))

    connection.write(frames.pieces, frames.pause, done)
