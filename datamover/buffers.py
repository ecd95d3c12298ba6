"""Memory of running copies: bounded for all of them together, reused, handed on without copying."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Lock

from serverfree.datamover.precedence import PRIORITIES, Shares
from serverfree.scsi.copy_list import NORMAL_PRIORITY

MIB = 1 << 20
SLAB = MIB
DEFAULT_LIMIT = 64 * MIB
_KEPT_SLABS = 4  # idle memory of a pool
_POLL_SECONDS = 0.1


@dataclass(slots=True, eq=False)
class _Place:
    """Where somebody stands in line."""

    size: int
    granted: Event = field(default_factory=Event)


class BufferPool:
    """What the copies of a process may hold in buffers, `limit` bytes in all."""

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self.limit = limit
        self._lock = Lock()  # guards all that follows
        self._free: list[bytearray] = []
        self._unreserved = limit
        self._line: list[deque[_Place]] = [deque() for _ in range(PRIORITIES)]
        self._shares = Shares()
        self._owed: deque[int] = deque()  # priorities whose turn it is before more urgent ones

    @contextmanager
    def reserve(
        self, size: int, aborted: Callable[[], bool], priority: int = NORMAL_PRIORITY
    ) -> Iterator[int]:
        """Set `size` bytes aside (no more than the limit), waiting until they are to be had.

        All at once, so that copies never wait for each other with memory in hand, and in turns
        (`datamover.precedence`): nobody is overtaken for needing more. Yields how many they are, or
        0 if `aborted` said so first.
        """
        place = _Place(min(size, self.limit))
        with self._lock:
            self._line[priority].append(place)
            self._serve()
        try:
            while not place.granted.wait(_POLL_SECONDS):
                if aborted():
                    break
            yield place.size if place.granted.is_set() else 0
        finally:
            self._leave(place, priority)

    def _serve(self) -> None:
        """Give memory to those whose turn it is, as long as there is enough."""
        while (priority := self._next()) is not None:
            line = self._line[priority]
            if line[0].size > self._unreserved:
                return
            place = line.popleft()
            self._unreserved -= place.size
            place.granted.set()
            if self._owed:
                self._owed.popleft()
            else:
                self._owed.extend(self._shares.served(priority, self._line))

    def _next(self) -> int | None:
        while self._owed and not self._line[self._owed[0]]:
            self._owed.popleft()
        if self._owed:
            return self._owed[0]
        return next((priority for priority, line in enumerate(self._line) if line), None)

    def _leave(self, place: _Place, priority: int) -> None:
        with self._lock:
            if place.granted.is_set():
                self._unreserved += place.size
            else:
                self._line[priority].remove(place)
            self._serve()  # whoever gives up makes way for one who needs less

    def take(self, size: int) -> bytearray:
        """Return a buffer of `size` bytes, of whatever content."""
        if size == SLAB:
            with self._lock:
                if self._free:
                    return self._free.pop()
        return bytearray(size)

    def give(self, buffer: bytearray) -> None:
        """Take a buffer back that nobody looks at any more."""
        if len(buffer) == SLAB:
            with self._lock:
                if len(self._free) < _KEPT_SLABS:
                    self._free.append(buffer)


class Slab:
    """A buffer from which reads are carved; it is free again when all they hold is let go."""

    __slots__ = ("at", "buffer", "live", "view")

    def __init__(self, buffer: bytearray) -> None:
        self.buffer = buffer
        self.view = memoryview(buffer)
        self.at = 0
        self.live = 0


Chunk = tuple[memoryview, Slab | None]
"""A run of bytes and the slab it lies in; None where the bytes are somebody else's."""


class Slabs:
    """The slabs of one copy, within its `budget` of bytes."""

    def __init__(self, pool: BufferPool, budget: int) -> None:
        self._pool = pool
        self._budget = budget
        self._current: Slab | None = None
        self.held = 0

    def carve(self, size: int, *, force: bool = False) -> Chunk | None:
        """Return `size` bytes in one piece, None if they are beyond the budget.

        `force` is for the one who could not go on without: it holds nothing that it could let go.
        """
        slab = self._current
        if slab is None or len(slab.buffer) - slab.at < size:
            new = max(size, SLAB)
            if self.held + new > self._budget and not force:
                return None
            if slab is not None and not slab.live:
                self._free(slab)
            slab = self._current = Slab(self._pool.take(new))
            self.held += new
        start = slab.at
        slab.at += size
        slab.live += size
        return slab.view[start : slab.at], slab

    def release(self, chunks: "list[Chunk] | deque[Chunk]") -> None:
        """Let go of chunks."""
        for view, slab in chunks:
            if slab is None:
                continue
            slab.live -= len(view)
            if not slab.live:
                if slab is self._current:
                    slab.at = 0
                else:
                    self._free(slab)

    def _free(self, slab: Slab) -> None:
        self.held -= len(slab.buffer)
        self._pool.give(slab.buffer)


class ByteQueue:
    """Bytes in order, as chunks: the source data or the destination data of a copy."""

    __slots__ = ("_chunks", "length")

    def __init__(self) -> None:
        self._chunks: deque[Chunk] = deque()
        self.length = 0

    def append(self, chunk: Chunk) -> None:
        """Add a chunk at the end."""
        self._chunks.append(chunk)
        self.length += len(chunk[0])

    def views(self) -> Iterator[memoryview]:
        """Yield the bytes, which stay where they are."""
        return (view for view, _ in self._chunks)

    def take(self, size: int) -> list[Chunk]:
        """Remove the first `size` bytes, of which there are as many, and return them."""
        taken: list[Chunk] = []
        self.length -= size
        while size:
            view, slab = self._chunks[0]
            if len(view) <= size:
                taken.append(self._chunks.popleft())
                size -= len(view)
            else:
                taken.append((view[:size], slab))
                self._chunks[0] = (view[size:], slab)
                break
        return taken
