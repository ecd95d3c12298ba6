"""Which points in time a disk has, and the generations that they live on: in memory and on file."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from serverfree.target.backstore.base import BlockStore
from serverfree.target.backstore.changes import ChangedChunks, extents_of, union
from serverfree.target.backstore.snapshot import Generation, Snapshot, SnapshotError
from serverfree.target.backstore.snapshot_delta import Delta
from serverfree.target.backstore.snapshot_state import CHANGED, CLONE, DELTA, SnapshotState

log = logging.getLogger(__name__)

_MOST_SNAPSHOTS = 64
_MOST_FOR_EACH = 4  # generations, passing ones among them, for each that is to be kept


class SnapshotHistory:
    """The snapshots of a disk, the generations between them, and their files.

    `lock` is that of the quiet gate: it guards the tuples and what follows from them.
    """

    def __init__(
        self, store: BlockStore, state: SnapshotState, shift: int, keep: int, lock: Lock
    ) -> None:
        """Take up what an earlier process left. `shift` is that of chunks, `keep` as of the origin.

        Raises OSError, StoreError.
        """
        self._store, self._state, self._keep, self._lock = store, state, keep, lock
        kept = state.load(store, shift, lambda: self.generations)
        self.shift = kept.shift
        self._last_number = kept.last_number
        self.generations: Sequence[Generation] = tuple(kept.generations)
        """The oldest first."""
        self.snapshots: Sequence[Snapshot] = tuple(kept.snapshots)
        self._names = {one.name for one in kept.snapshots}
        self.current = kept.generations[-1] if kept.is_current else None
        """Where changes are noted; None while no one can ask for them."""
        self.copying = False
        """Whether a snapshot needs what changes."""
        self._look_whether_to_copy()
        self._saving = Lock()  # of the state: one at a time, the newest last

    @property
    def folder(self) -> Path:
        """Where everything lies; it need not be there before there is something."""
        return self._state.folder

    def clone_path(self, stem: str) -> Path:
        """Where the clone of a snapshot lies."""
        return self._state.path(stem, CLONE)

    def find(self, name: str) -> Snapshot:
        """Return the snapshot of this name. Raises SnapshotError."""
        for snapshot in self.snapshots:
            if snapshot.name == name:
                return snapshot
        raise SnapshotError(f"there is no snapshot {name}")

    def changes(self, since: int, name: str) -> tuple[list[tuple[int, int]], bool]:
        """See SnapshotOrigin."""
        snapshot = self.find(name)
        if since == snapshot.generation:
            return [], True
        between = [one for one in self.generations if since <= one.number < snapshot.generation]
        maps = [one.chunks for one in between if one.chunks is not None]
        if not maps or len(maps) != snapshot.generation - since:
            return [(0, snapshot.size)], False
        return extents_of(union(maps), self.shift, snapshot.size), True

    # ---------------------------------------------------------------- beginning

    def take_name(self, name: str) -> None:
        """Have nobody else take the name of a snapshot to come. Raises SnapshotError."""
        with self._lock:
            if name in self._names:
                raise SnapshotError(f"there is a snapshot {name} already: delete it first")
            if len(self._names) >= _MOST_SNAPSHOTS:
                raise SnapshotError(f"{_MOST_SNAPSHOTS} snapshots are the most: delete one first")
            self._names.add(name)

    def draft(self, stem: str, size: int, *, passing: bool) -> Generation:
        """Make the files of a generation before it begins; both are empty and sparse."""
        self.folder.mkdir(parents=True, exist_ok=True)
        chunks = ChangedChunks.make(self._state.path(stem, CHANGED), size, self.shift)
        try:
            delta = Delta.make(self._state.path(stem, DELTA), size)
        except BaseException:
            chunks.give_up_file()
            raise
        return Generation(0, stem, size, chunks, delta, passing)

    def give_up(self, name: str, draft: Generation | None) -> None:
        """There will be no such snapshot."""
        self._names.discard(name)
        if draft is not None:
            _remove(draft)

    def begin(self, name: str, draft: Generation, size: int, notes: Mapping[str, Any]) -> Snapshot:
        """Within the gate: from here on changes belong to the next generation."""
        assert draft.chunks is not None
        if size != draft.size:  # it has grown while the gate was waited for
            draft.chunks.resize(size)
            draft.size = size
        # Numbers go on, and begin with the time: those of a folder that was lost do not come again.
        draft.number = self._last_number + 1 if self._last_number else int(time.time())
        # Whoever comes after a kill finds in which order generations began.
        draft.chunks.begin(draft.number)
        self._last_number = draft.number
        snapshot = Snapshot(
            name, time.time(), draft.number, size, draft.stem, notes,
            origin=self._store, later=lambda: self.generations,
        )  # fmt: skip
        self.generations = (*self.generations, draft)
        self.snapshots = (*self.snapshots, snapshot)
        self.current = draft
        self.copying = True
        return snapshot

    def keep_begun(self, snapshot: Snapshot) -> None:
        """A snapshot is complete: have it, and the end of what was before, kept. Raises OSError."""
        # 1. What changed up to the snapshot is on stable storage: it can be believed for ever ...
        for generation in self.generations:
            if generation.number < snapshot.generation and generation.chunks is not None:
                generation.chunks.sync()
        # 2. ... before the state says that it ended.
        self._trim_and_save()

    def add_clone(self, snapshot: Snapshot) -> None:
        """The file system has a clone of it, on stable storage. Raises OSError, StoreError."""
        snapshot.clone = Delta.load(self.clone_path(snapshot.stem), readonly=True)
        with self._lock:
            self._look_whether_to_copy()

    # ---------------------------------------------------------------- ending

    def delete(self, name: str) -> None:
        """See SnapshotOrigin."""
        with self._lock:
            snapshot = self.find(name)
            snapshot.invalid_because = snapshot.invalid_because or "it has been deleted"
            self.snapshots = tuple(one for one in self.snapshots if one is not snapshot)
        try:
            self._trim_and_save()
        except OSError:
            self._save_if_possible()  # its files have gone, which may have made the space for it
        finally:
            if snapshot.clone is not None:
                snapshot.clone.destroy()
            self._names.discard(name)

    def forget(self, reason: str) -> None:
        """See SnapshotOrigin."""
        with self._lock:
            given_up = list(self.snapshots)
            for snapshot in given_up:
                snapshot.invalid_because = snapshot.invalid_because or reason
        if not given_up:
            return
        # 1. No later process believes them ...
        self.save()
        # 2. ... before anything of theirs is missing.
        with self._lock:
            self._look_whether_to_copy()
        for generation in reversed(self.generations):
            if generation.delta is not None:
                generation.delta.destroy()
        for snapshot in given_up:
            if snapshot.clone is not None:
                snapshot.clone.destroy()
            # What an earlier process could not remove has not been opened by this one.
            self.clone_path(snapshot.stem).unlink(missing_ok=True)

    def lose(self, reason: str) -> None:
        """Old content is missing: give up all copied snapshots, before the disk is changed."""
        with self._lock:
            lost = [one for one in self.snapshots if one.needs_delta()]
            for snapshot in lost:
                snapshot.invalid_because = reason
            deltas = [one.delta for one in self.generations if one.delta is not None]
        # The newest first: all snapshots need that one, so its absence tells a later process,
        # even where nothing can be written any more. Others may not stop copying before.
        for delta in reversed(deltas):
            try:
                delta.destroy()
            except OSError as error:
                log.error("%s cannot be removed: %s", delta.path, error.strerror)
        with self._lock:
            self._look_whether_to_copy()
        for snapshot in lost:
            log.error("snapshot %s is invalid: %s", snapshot.name, reason)
        if lost:
            self._save_if_possible()

    def _look_whether_to_copy(self) -> None:
        self.copying = any(one.needs_delta() for one in self.snapshots)

    # ---------------------------------------------------------------- keeping

    def trim(self) -> list[Generation]:
        """Let go of generations that no one can ask for; return them, to be removed."""
        with self._lock:
            oldest = self._oldest_needed()
            passed = self.generations[: self._first_kept()]
            gone = [one for one in passed if one.number < oldest]
            self.generations = tuple(one for one in self.generations if one not in gone)
            return gone

    def _oldest_needed(self) -> float:
        """Return the oldest generation whose old content a snapshot lives on; the lock is held."""
        needed = (one.generation for one in self.snapshots if one.needs_delta())
        return min(needed, default=math.inf)

    def _first_kept(self) -> int:
        """Return the place of the oldest generation that is kept to tell what changed."""
        counted = 0
        for place in range(len(self.generations) - 1, -1, -1):
            behind = len(self.generations) - 1 - place
            if counted == self._keep or behind == _MOST_FOR_EACH * self._keep:
                return place + 1
            counted += not self.generations[place].passing
        return 0

    def _trim_and_save(self) -> None:
        gone = self.trim()
        try:
            # 1. A later process does not look for a snapshot that was deleted ...
            self.save()
        finally:
            # 2. ... before its files go; where that cannot be kept, it finds that they are missing.
            for generation in gone:
                _remove(generation)
            self._drop_deltas()
            # 3. Only now may old content be lost.
            with self._lock:
                self._look_whether_to_copy()

    def _drop_deltas(self) -> None:
        with self._lock:
            oldest = self._oldest_needed()
            idle = []
            for generation in self.generations:
                if generation.delta is not None and (generation.number < oldest):
                    idle.append(generation.delta)
                    generation.delta = None
        for delta in idle:
            delta.destroy()

    def _save_if_possible(self) -> None:
        """Where it is not, a later process finds that files are missing."""
        try:
            self.save()
        except OSError as error:
            log.error("%s: %s", self.folder, error.strerror)

    def save(self, *, clean: bool = False) -> None:
        """Have a later process find all this; `clean` says that it may believe it. Raises OSError.

        It may where all is on stable storage and the disk is closed.
        """
        with self._saving:
            with self._lock:
                generations, snapshots = self.generations, self.snapshots
                last = self._last_number
            self._state.save(self.shift, last, generations, snapshots, clean=clean)

    def sync(self) -> bool:
        """Put what is kept of all generations on stable storage; return whether that was done."""
        try:
            for generation in self.generations:
                # Which chunks are saved must not be found without what is saved.
                if generation.delta is not None:
                    generation.delta.sync()
                if generation.chunks is not None:
                    generation.chunks.sync()
        except OSError as error:
            # What the kernel could not write it may forget: let no later process believe it.
            for generation in self.generations:
                if generation.chunks is not None:
                    generation.chunks.give_up_file()
            self.lose(f"old content cannot be put on stable storage: {error.strerror}")
            return False
        return True

    def close(self) -> None:
        """Let go of all files."""
        for generation in self.generations:
            if generation.delta is not None:
                generation.delta.close()
            if generation.chunks is not None:
                generation.chunks.close()
        for snapshot in self.snapshots:
            if snapshot.clone is not None:
                snapshot.clone.close()


def _remove(generation: Generation) -> None:
    if generation.delta is not None:
        generation.delta.destroy()
    if generation.chunks is not None:
        generation.chunks.give_up_file()
