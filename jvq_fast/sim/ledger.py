"""What each connection was sent, record by record, and what faults did to it."""

from collections import deque
from collections.abc import Iterator

from jvq_fast.sim.cargo import Cargo, split_rows

__all__ = ["Entry", "Ledger"]

_MESSAGES_KEPT = 1 << 20

Entry = tuple[int, str, str, str, str]  # number of the message, mark, fault, key, record


class Ledger:
    """The latest million messages of all connections."""

    def __init__(self) -> None:
        self._messages: deque[tuple[int, int, str | Cargo]] = deque(maxlen=_MESSAGES_KEPT)

    def whole(self, connection: int, number: int, text: str) -> None:
        """A message was sent as it is."""
        self._messages.append((connection, number, text))

    def cargo(self, connection: int, cargo: Cargo) -> None:
        """A message that may have met a fault is done with."""
        self._messages.append((connection, cargo.number, cargo))

    def connections(self) -> list[int]:
        """Those that it knows."""
        return sorted({connection for connection, _, _ in self._messages})

    def entries(self, connection: int) -> Iterator[Entry]:
        """The records of a connection, in the order in which they were sent."""
        for each, number, message in self._messages:
            if each != connection:
                continue
            if isinstance(message, str):
                for key, records in split_rows(message):
                    for record in records:
                        yield number, "good", "", key, record
            else:
                for row in message.rows:
                    for one in row:
                        yield number, one.mark, one.fault, one.key, one.text
