"""What the interpreter's zlib says of a raw stream: the verdict that `inflate` has to reach as well."""

import zlib

INFLATED, ROOM, CORRUPT, TRUNCATED = range(4)
Verdict = tuple[int, int, bytes]  # status, consumed where it is inflated, output where it is not corrupt


def settled(status: int, consumed: int, output: bytes) -> Verdict:
    """A verdict without what does not count."""
    return status, consumed if status == INFLATED else 0, output if status != CORRUPT else b""


def of_zlib(room: int, data: bytes) -> Verdict:
    """Of at least one byte of room: zlib takes none for no limit."""
    machine = zlib.decompressobj(-15)
    try:
        output = machine.decompress(data, room)
    except zlib.error:
        return settled(CORRUPT, 0, b"")
    if machine.eof:
        return settled(INFLATED, len(data) - len(machine.unused_data), output)
    return settled(ROOM if len(output) == room else TRUNCATED, 0, output)
