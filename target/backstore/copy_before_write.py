"""Saves what a disk holds before it changes, and notes that it does."""

import errno
from collections.abc import Sequence
from threading import Condition, Lock

from serverfree.target.backstore.base import BlockStore
from serverfree.target.backstore.snapshot import Generation
from serverfree.target.backstore.snapshot_delta import runs_of_data
from serverfree.target.backstore.snapshot_history import SnapshotHistory

_PIECE = 1 << 20  # most bytes that are read and saved by one call
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class CopyBeforeWrite:
    """What every change of a disk goes through first.

    A chunk is saved once in a generation, into its delta, and then its bit is set; where no
    snapshot needs it, only the bit is. Nothing here fails: where old content cannot be kept, the
    snapshots are lost. Safe to use from several threads.
    """

    def __init__(
        self, store: BlockStore, history: SnapshotHistory, limit: int | None = None
    ) -> None:
        self.limit = limit
        """The most bytes that old content may take."""
        self._store, self._history, self._shift = store, history, history.shift
        # Which chunks are being saved now, so that no two threads save one.
        self._claimed: set[int] = set()
        self._claims = Condition(Lock())

    def before(self, offset: int, length: int) -> None:
        """Have the old content of a range saved, and noted that it changes."""
        generation = self._history.current
        if generation is None or not length:
            return
        shift = self._shift
        first, last = offset >> shift, offset + length - 1 >> shift
        assert generation.chunks is not None
        bits = generation.chunks.bits
        if first == last and bits[first >> 3] >> (first & 7) & 1:
            return  # as nearly always
        for chunk in range(first, last + 1):
            if not bits[chunk >> 3] >> (chunk & 7) & 1:
                break
        else:
            return
        step = max(1, _PIECE >> shift)
        for at in range(chunk, last + 1, step):
            self._save_chunks(generation, range(at, min(at + step, last + 1)))

    def grown(self) -> None:
        """The disk has become longer: what is behind its old end has changed."""
        generation = self._history.current
        if generation is None:
            return
        assert generation.chunks is not None
        with self._claims:
            try:
                generation.chunks.grow(generation.size, self._store.size)
            except OSError as error:
                generation.chunks.give_up_file()
                self._history.lose(f"cannot keep what changed: {error.strerror}")
                generation.chunks.grow(generation.size, self._store.size)

    def made_room(self, error: OSError) -> bool:
        """Give the space of snapshots to the disk, if that is what it lacks."""
        if error.errno not in _NO_SPACE or not self._history.copying:
            return False
        self._history.lose("the disk needed the space")
        return True

    def _save_chunks(self, generation: Generation, wanted: range) -> None:
        """Return when all of these are saved, by this thread or by others."""
        chunks = generation.chunks
        assert chunks is not None
        while True:
            with self._claims:
                missing = [chunk for chunk in wanted if chunk not in chunks]
                if not missing:
                    return
                if not self._history.copying:
                    self._note(generation, missing)
                    return
                mine = [chunk for chunk in missing if chunk not in self._claimed]
                if not mine:
                    self._claims.wait()
                    continue
                self._claimed.update(mine)
            try:
                self._copy(generation, mine)
            finally:
                with self._claims:
                    self._note(generation, mine)
                    self._claimed.difference_update(mine)
                    self._claims.notify_all()

    def _note(self, generation: Generation, chunks: Sequence[int]) -> None:
        assert generation.chunks is not None
        try:
            generation.chunks.add(chunks)
        except OSError as error:
            # Whoever believed the file after a kill would miss a change: let there be none.
            generation.chunks.give_up_file()
            self._history.lose(f"cannot keep what changed: {error.strerror}")
            generation.chunks.add(chunks)

    def _copy(self, generation: Generation, chunks: Sequence[int]) -> None:
        """Put old content into the delta; where that fails, no snapshot is valid any more."""
        delta = generation.delta
        if delta is None:
            return
        try:
            for offset, length in _joined(chunks, self._shift, self._store.size):
                found = list(self._store.extents(offset, length))
                for at, size in runs_of_data(found, _PIECE):
                    self._require_room(size)
                    delta.write(at, self._store.pread(at, size))
        except OSError as error:
            self._history.lose(f"old content cannot be saved: {error.strerror}")

    def _require_room(self, size: int) -> None:
        if self.limit is None:
            return
        generations = self._history.generations
        used = sum(one.delta.used for one in generations if one.delta is not None)
        if used + size > self.limit:
            raise OSError(errno.ENOSPC, f"it would take more than {self.limit} bytes")


def _joined(chunks: Sequence[int], shift: int, size: int) -> list[tuple[int, int]]:
    """Return the (offset, length) of ascending chunks, neighbours joined."""
    joined: list[tuple[int, int]] = []
    for chunk in chunks:
        start = chunk << shift
        length = min(1 << shift, size - start)
        if joined and sum(joined[-1]) == start:
            joined[-1] = (joined[-1][0], joined[-1][1] + length)
        else:
            joined.append((start, length))
    return joined
