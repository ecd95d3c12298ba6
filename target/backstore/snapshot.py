"""A point in time of a disk, and the store that reads it."""

import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from serverfree.scsi.device import Buffer
from serverfree.target.backstore.base import BlockStore, ReadError, Stored
from serverfree.target.backstore.changes import ChangedChunks
from serverfree.target.backstore.snapshot_delta import Delta

_PIECE = 1 << 20


class SnapshotError(ValueError):
    """A snapshot cannot be made or found; the message says why."""


@dataclass(eq=False, slots=True)
class Generation:
    """The time from one snapshot to the next: what changed in it, and how that was before.

    `chunks` is None where it is not known what changed. `delta` is there as long as a snapshot
    needs it: it holds the old content of every chunk in `chunks`.
    """

    number: int
    stem: str
    """Of the names of its files."""
    size: int
    """Of the disk as it began."""
    chunks: ChangedChunks | None
    delta: Delta | None
    passing: bool = False
    """Nobody will ask for what changed since its snapshot."""


@dataclass(eq=False)
class Snapshot:
    """A point in time of a disk. `SnapshotOrigin` makes them."""

    name: str
    created: float
    """Seconds since the epoch."""
    generation: int
    """Grows with every snapshot of the disk, and is never used twice."""
    size: int
    """Bytes; the disk may have grown since."""
    stem: str
    """Of the names of its files."""
    notes: Mapping[str, Any]
    """JSON values that were given when it was made, kept with it."""
    invalid_because: str = ""
    """Why it cannot be read any more; empty while it can."""
    clone: Delta | None = None
    """All of it, where the file system cloned it."""
    origin: BlockStore = field(kw_only=True, repr=False)
    later: Callable[[], Sequence[Generation]] = field(kw_only=True, repr=False)
    """The generations of this moment, the oldest first."""

    @property
    def valid(self) -> bool:
        """Whether it can be read."""
        return not self.invalid_because

    @property
    def used(self) -> int:
        """Bytes that its own files take on the storage.

        What was overwritten since a later snapshot lies with that one, for both.
        """
        if self.clone is not None:
            return self.clone.used
        return sum(
            one.delta.used
            for one in self.later()
            if one.number == self.generation and one.delta is not None
        )

    def open(self) -> BlockStore:
        """Return it as a read-only store. Reading fails once it is invalid or deleted."""
        return SnapshotStore(self)

    def needs_delta(self) -> bool:
        """Whether what is overwritten must be copied for it."""
        return self.clone is None and self.valid


class SnapshotStore:
    """A block store of the bytes as they were.

    A chunk that was overwritten since lies in the delta of the first generation in which that
    happened, all others lie on the disk. Writers of the disk save a chunk, set its bit and only
    then write; a reader reads the disk and then looks at the bits again. If none has come, no
    writer had begun before the bytes were read; else the saved chunk is taken. So neither waits
    for the other, and reading the disk itself costs nothing.
    """

    readonly = True
    can_discard = False

    def __init__(self, snapshot: Snapshot) -> None:
        self.size = snapshot.size
        self.granularity = snapshot.origin.granularity
        self.slow = snapshot.origin.slow
        self._snapshot = snapshot

    def view(self, offset: int, length: int) -> Buffer:
        """Return a copy of the bytes: a window would show what is written later."""
        return self.pread(offset, length)

    def pread(self, offset: int, length: int) -> bytes:
        """Return the bytes as they were. Raises ReadError."""
        try:
            return self._read(offset, length)
        finally:
            # Looked at last: a writer that cannot save a chunk says so before it writes.
            self._require_valid()

    def _read(self, offset: int, length: int) -> bytes:
        parts = []
        end = offset + length
        while offset < end:
            source, run = self._source(offset, end - offset)
            if source is not None:
                parts.append(source.read(offset, run))
            else:
                data = self._snapshot.origin.pread(offset, run)
                run = self._still_there(offset, run)
                parts.append(data[:run])
            offset += run
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _require_valid(self) -> None:
        if self._snapshot.invalid_because:
            raise ReadError(
                errno.EIO, f"snapshot {self._snapshot.name}: {self._snapshot.invalid_because}"
            )

    def _still_there(self, offset: int, length: int) -> int:
        """Return for how many bytes from the offset on the disk was the right place to read."""
        source, run = self._source(offset, length)
        return 0 if source is not None else run

    def _source(self, offset: int, length: int) -> tuple[Delta | None, int]:
        """Return where a byte lies, None for the disk, and how many more lie there too."""
        snapshot = self._snapshot
        if snapshot.clone is not None:
            return snapshot.clone, length
        generations = [one for one in snapshot.later() if one.number >= snapshot.generation]
        first: Delta | None = None
        end = offset + length
        at = offset
        while at < end:
            holder, boundary = self._holder(generations, at)
            if at == offset:
                first = holder
            elif holder is not first:
                break
            at = boundary
        return first, min(at, end) - offset

    def _holder(self, generations: Sequence[Generation], at: int) -> tuple[Delta | None, int]:
        """Return what holds the chunk at an offset, and where the chunk ends."""
        boundary = self.size
        for generation in generations:
            chunks = generation.chunks
            if chunks is None or generation.delta is None:
                raise ReadError(errno.EIO, f"snapshot {self._snapshot.name} is not complete")
            chunk = at >> chunks.shift
            boundary = chunk + 1 << chunks.shift
            if chunk in chunks:
                return generation.delta, boundary
        return None, boundary

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """Yield the runs of data and of holes. Raises ReadError, at the end if not before."""
        end = offset + length
        while offset < end:
            source, run = self._source(offset, min(_PIECE, end - offset))
            if source is not None:
                found = source.extents(offset, run)
            else:
                found = list(self._snapshot.origin.extents(offset, run))
                run = self._still_there(offset, run)
            for at, size, has_data in found:
                size = min(size, offset + run - at)
                if size > 0:
                    yield at, size, has_data
            offset += run
        self._require_valid()

    def prefetch(self, offset: int, length: int) -> None:
        """Most of it lies on the disk still: have that read ahead."""
        self._snapshot.origin.prefetch(offset, length)

    def write(self, offset: int, data: Buffer) -> None:
        """Refuse."""
        raise _read_only()

    def take(self, offset: int, data: Stored) -> None:
        """Refuse."""
        raise _read_only()

    @contextmanager
    def shared(self, offset: int, length: int) -> Iterator[tuple[int, int] | None]:
        """Say where in the clone; what lies on the disk may be written any time."""
        clone = self._snapshot.clone
        if clone is None:
            yield None
            return
        with clone as store, store.shared(offset, length) as place:
            yield place
        self._require_valid()

    def discard(self, offset: int, length: int) -> None:
        """Refuse."""
        raise _read_only()

    def zero(self, offset: int, length: int) -> None:
        """Refuse."""
        raise _read_only()

    def grow(self) -> bool:
        """A point in time keeps its size."""
        return False

    def flush(self) -> None:
        """Nothing was written."""

    def evict(self, offset: int, length: int) -> None:
        """What is cached is right; the disk's cache is the disk's."""

    def give_up_map(self) -> None:
        """There is none."""

    def close(self) -> None:
        """The files belong to the snapshot."""


def _read_only() -> OSError:
    return OSError(errno.EROFS, os.strerror(errno.EROFS))
