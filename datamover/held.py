"""Held data: what a copy keeps of the data it processed, for the application client (5.17.4.5)."""

from collections import deque

from serverfree.datamover.buffers import MIB

HELD_DATA_LIMIT = MIB


class HeldData:
    """The most recent `limit` bytes held in one copy; `discarded` once there were more (HDD)."""

    def __init__(self, limit: int = HELD_DATA_LIMIT) -> None:
        self.limit = limit
        self.discarded = False
        self.length = 0
        self._pieces: deque[bytes] = deque()

    def add(self, data: bytes | memoryview) -> None:
        """Hold these bytes; older ones go where there are too many."""
        self._pieces.append(bytes(data[-self.limit :]))
        self.length += len(self._pieces[-1])
        if len(data) > self.limit:
            self.discarded = True
        while self.length > self.limit:
            self.discarded = True
            oldest = self._pieces.popleft()
            surplus = min(len(oldest), self.length - self.limit)
            self.length -= surplus
            if surplus < len(oldest):
                self._pieces.appendleft(oldest[surplus:])

    def backwards(self) -> "Backwards":
        """Hold what is processed from its end to its start, as if it had come in order."""
        return Backwards(self)

    def bytes(self) -> bytes:
        """What is held, the oldest first."""
        return b"".join(self._pieces)

    def drop(self) -> None:
        """Let go of everything."""
        self._pieces.clear()
        self.length = 0


class Backwards:
    """Pieces of held data, the last one first."""

    def __init__(self, held: HeldData) -> None:
        self._held = held
        self._pieces: list[bytes] = []
        self._length = 0

    def add(self, data: bytes | memoryview) -> None:
        """Take the piece in front of those that came before."""
        if self._length < self._held.limit:
            self._pieces.append(bytes(data))
        self._length += len(data)

    def done(self) -> None:
        """All pieces have come."""
        for piece in reversed(self._pieces):
            self._held.add(piece)
        if self._length > self._held.limit:
            self._held.discarded = True
