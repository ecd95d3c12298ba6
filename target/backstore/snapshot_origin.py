"""A store over another that keeps points in time of it, and remembers what changed since.

What is promised:

- A snapshot shows the bytes of the moment when it was taken, or its reading fails. Both hold over
  clean restarts and kill -9, whatever the process was doing: old content is saved, its bit set and
  only then the disk written, all in the page cache, which outlives the process.
- After a loss of power, or a crash of the kernel, snapshots that were copied are invalid, because
  the kernel may have put the new content on the medium before the old. To forbid it that would
  take two syncs for each chunk. Clones that the file system made (Btrfs, XFS) stay valid.
- A file of the disk that was changed while it was not served is noticed after a clean stop; then
  too copied snapshots are invalid and what changed is not known.
- The disk comes first: where old content cannot be saved, for want of space or by a failure, the
  snapshots are invalid, their space is given back, and the write goes on.

Copies lie in chains: a chunk is saved once, for the newest snapshot, and older ones find it there.
So a write costs the same with one snapshot and with ten, and the bits that say what was saved are
the bits that say what changed since: one map serves both. The price is that the saved chunks of a
deleted snapshot stay until no older one needs them. Nothing is ever merged.
"""

import errno
import logging
import math
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Condition, Event, Lock
from typing import Any

from serverfree.scsi.device import Buffer
from serverfree.target.backstore.base import BlockStore, Stored, StoreError
from serverfree.target.backstore.changes import ChangedChunks, extents_of, union
from serverfree.target.backstore.quiet import QUIET, TIMEOUT, QuietGate, Quietness, pause_until
from serverfree.target.backstore.snapshot import Generation, Snapshot, SnapshotError
from serverfree.target.backstore.snapshot_delta import Cloner, Delta, runs_of_data
from serverfree.target.backstore.snapshot_state import (
    CHANGED,
    CLONE,
    DELTA,
    SnapshotState,
    boot_id,
    fingerprint,
)

__all__ = ["Snapshot", "SnapshotError", "SnapshotOrigin"]

log = logging.getLogger(__name__)

CHUNK = 64 << 10
"""Bytes that are copied at once. Measured: 4 KiB chunks make a random write cheaper and take a
tenth of the space, but a map and a delta sixteen times as fine; 1 MiB copies all of a disk soon."""
_CHUNKS = (4 << 10, 1 << 20)

_PIECE = 1 << 20  # most bytes that are read and saved by one call
_MOST_SNAPSHOTS = 64
_MOST_FOR_EACH = 4  # generations, passing ones among them, for each that is to be kept
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class SnapshotOrigin:
    """A disk's store through which all its changes go: a BlockStore, and its snapshots.

    Reading is the inner store's own. Safe to use from several threads.
    """

    def __init__(
        self,
        store: BlockStore,
        folder: Path,
        *,
        source: Path | None = None,
        chunk: int = CHUNK,
        limit: int | None = None,
        keep: int = 16,
        clone: bool = True,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[Event, float], bool] = pause_until,
        boot: Callable[[], str] = boot_id,
    ) -> None:
        """Take up what an earlier process left. Raises OSError, StoreError.

        `folder` holds what is kept; it is made when there is something. `source` is the file that
        the store is over: how lately it was written counts as its last change, a file system may
        clone it unless `clone` is False, and changes behind our back are noticed. `limit` is the
        most bytes that old content may take. `keep` says how many generations are kept to tell
        what changed.
        """
        if chunk & (chunk - 1) or not _CHUNKS[0] <= chunk <= _CHUNKS[1]:
            raise StoreError(f"chunks of {chunk} bytes: must be a power of two, 4 KiB to 1 MiB")
        self.store = store
        self.readonly, self.can_discard = store.readonly, store.can_discard
        self.granularity, self.slow = store.granularity, store.slow
        self.size = store.size
        # Bound to this object they would cost a call more on each read.
        self.view, self.pread = store.view, store.pread
        self.extents, self.prefetch, self.shared = store.extents, store.prefetch, store.shared
        self.evict, self.give_up_map = store.evict, store.give_up_map
        self.flush = store.flush
        self._write, self._discard, self._zero = store.write, store.discard, store.zero
        self._source, self._limit, self._keep = source, limit, max(1, keep)
        self._wants_clones = clone
        self._cloner: Cloner | None = None
        self._state = SnapshotState(folder, source, boot())
        kept = self._state.load(store, chunk.bit_length() - 1, lambda: self._generations)
        self._shift = kept.shift
        self._last_number = kept.last_number
        self._closed = False
        self.quiet_gate = QuietGate(clock, pause, _last_change(source, clock))
        """Its lock guards the tuples and what follows from them."""
        self._acquire, self._release = self.quiet_gate.lock.acquire, self.quiet_gate.lock.release
        self._clock = clock
        self._generations: Sequence[Generation] = tuple(kept.generations)
        self._snapshots: Sequence[Snapshot] = tuple(kept.snapshots)
        self._names = {one.name for one in kept.snapshots}
        self._current = kept.generations[-1] if kept.is_current else None
        """Where changes are noted; None while no one can ask for them."""
        self._copying = any(one.needs_delta() for one in self._snapshots)
        # Which chunks are being saved now, so that no two threads save one.
        self._claimed: set[int] = set()
        self._claims = Condition(Lock())
        self._saving = Lock()  # of the state: one at a time, the newest last
        if self._generations:
            if self._current is not None:
                self._take_in_growth(self._current)
            self._trim()
            self._save()

    # ---------------------------------------------------------------- changing

    def write(self, offset: int, data: Buffer) -> None:
        """See BlockStore."""
        # Between these calls nothing raises; `with` would cost twice as much, on every write.
        gate = self.quiet_gate
        self._acquire()
        if gate.closed:
            gate.wait_until_open()
        gate.running += 1
        self._release()
        try:
            if self._current is not None:
                self._before(offset, len(data))
            self._write(offset, data)
        except OSError as error:
            if not self._made_room(error):
                raise
            self._write(offset, data)
        finally:
            self._acquire()
            gate.running -= 1
            gate.last_change = self._clock()
            if gate.closed:
                gate.tell()
            self._release()

    def take(self, offset: int, data: Stored) -> None:
        """See BlockStore."""
        self._change(lambda offset, _: self.store.take(offset, data), offset, data.length)

    def discard(self, offset: int, length: int) -> None:
        """See BlockStore."""
        self._change(self._discard, offset, length)

    def zero(self, offset: int, length: int) -> None:
        """See BlockStore."""
        self._change(self._zero, offset, length)

    def _change(self, operation: Callable[[int, int], None], offset: int, length: int) -> None:
        self.quiet_gate.enter()
        try:
            self._before(offset, length)
            operation(offset, length)
        except OSError as error:
            if not self._made_room(error):
                raise
            operation(offset, length)
        finally:
            self.quiet_gate.leave()

    def grow(self) -> bool:
        """See BlockStore. Snapshots keep their size."""
        if not self.store.grow():
            return False
        self.quiet_gate.enter()  # no snapshot in between: its map would be too short
        try:
            if self._current is not None:
                self._take_in_growth(self._current)
            self.size = self.store.size
        finally:
            self.quiet_gate.leave()
        return True

    def close(self) -> None:
        """See BlockStore. Everything is synced, so that it can be believed at the next start."""
        if self._closed:
            return
        self._closed = True
        # 1. What the disk was before is on stable storage, and what it is ...
        safe = self._sync()
        try:
            self.store.close()
            # 2. ... before the state says so.
            if self._generations and safe:
                self._save(clean=True)
        finally:
            if self._cloner is not None:
                self._cloner.close()
            for generation in self._generations:
                _let_go(generation)
            for snapshot in self._snapshots:
                if snapshot.clone is not None:
                    snapshot.clone.close()

    def _sync(self) -> bool:
        try:
            for generation in self._generations:
                # Which chunks are saved must not be found without what is saved.
                if generation.delta is not None:
                    generation.delta.sync()
                if generation.chunks is not None:
                    generation.chunks.sync()
        except OSError as error:
            # What the kernel could not write it may forget: let no later process believe it.
            for generation in self._generations:
                if generation.chunks is not None:
                    generation.chunks.give_up_file()
            self._invalidate(f"old content cannot be put on stable storage: {error.strerror}")
            return False
        return True

    # ---------------------------------------------------------------- saving old content

    def _before(self, offset: int, length: int) -> None:
        """Have the old content of a range saved, and noted that it changes. Never fails."""
        generation = self._current
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

    def _save_chunks(self, generation: Generation, wanted: range) -> None:
        """Return when all of these are saved, by this thread or by others."""
        chunks = generation.chunks
        assert chunks is not None
        while True:
            with self._claims:
                missing = [chunk for chunk in wanted if chunk not in chunks]
                if not missing:
                    return
                if not self._copying:
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
            self._invalidate(f"cannot keep what changed: {error.strerror}")
            generation.chunks.add(chunks)

    def _copy(self, generation: Generation, chunks: Sequence[int]) -> None:
        """Put old content into the delta; where that fails, no snapshot is valid any more."""
        delta = generation.delta
        if delta is None:
            return
        try:
            for offset, length in _joined(chunks, self._shift, self.store.size):
                found = list(self.store.extents(offset, length))
                for at, size in runs_of_data(found, _PIECE):
                    self._require_room(size)
                    delta.write(at, self.store.pread(at, size))
        except OSError as error:
            self._invalidate(f"old content cannot be saved: {error.strerror}")

    def _require_room(self, size: int) -> None:
        if self._limit is None:
            return
        used = sum(one.delta.used for one in self._generations if one.delta is not None)
        if used + size > self._limit:
            raise OSError(errno.ENOSPC, f"it would take more than {self._limit} bytes")

    def _made_room(self, error: OSError) -> bool:
        """Give the space of snapshots to the disk, if that is what it lacks."""
        if error.errno not in _NO_SPACE or not self._copying:
            return False
        self._invalidate("the disk needed the space")
        return True

    def _invalidate(self, reason: str) -> None:
        """Old content is missing: give up all copied snapshots, before the disk is changed."""
        with self.quiet_gate.lock:
            lost = [one for one in self._snapshots if one.needs_delta()]
            for snapshot in lost:
                snapshot.invalid_because = reason
            deltas = [one.delta for one in self._generations if one.delta is not None]
        # The newest first: all snapshots need that one, so its absence tells a later process,
        # even where nothing can be written any more. Others may not stop copying before.
        for delta in reversed(deltas):
            try:
                delta.destroy()
            except OSError as error:
                log.error("%s cannot be removed: %s", delta.path, error.strerror)
        with self.quiet_gate.lock:
            self._copying = any(one.needs_delta() for one in self._snapshots)
        for snapshot in lost:
            log.error("snapshot %s is invalid: %s", snapshot.name, reason)
        if lost:
            self._save_if_possible()

    def _take_in_growth(self, generation: Generation) -> None:
        assert generation.chunks is not None
        with self._claims:
            try:
                generation.chunks.grow(generation.size, self.store.size)
            except OSError as error:
                generation.chunks.give_up_file()
                self._invalidate(f"cannot keep what changed: {error.strerror}")
                generation.chunks.grow(generation.size, self.store.size)

    # ---------------------------------------------------------------- snapshots

    def create(
        self,
        name: str,
        quiet: float = QUIET,
        timeout: float = TIMEOUT,
        *,
        cancelled: Event | None = None,
        progress: Callable[[Quietness], None] | None = None,
        notes: Mapping[str, Any] | None = None,
        passing: bool = False,
    ) -> Snapshot:
        """Wait until nothing changed for `quiet` seconds, and take a snapshot at that moment.

        Changes are held up only while the moment is noted in memory. The snapshot is kept when
        this returns. `notes` are JSON values to keep with it. The generation that a `passing` one
        begins is not counted among those that are kept to tell what changed. Raises NotQuiet,
        Cancelled, SnapshotError for a name that is taken, OSError and StoreError where the files
        cannot be made.
        """
        self._take_name(name)
        since = self.quiet_gate.clock()
        stem = uuid.uuid4().hex
        draft: Generation | None = None
        try:
            cloner = self._find_cloner()
            draft = self._draft(stem)
            draft.passing = passing
            if cloner is not None:
                # A clone begins with writing out what is dirty: let there be little.
                self.quiet_gate.wait(quiet, timeout, cancelled, progress)
                self.store.flush()
            with self.quiet_gate.held(quiet, timeout, cancelled, progress, since=since):
                descriptor = self._clone(cloner, stem)
                snapshot = self._switch(name, draft, dict(notes or {}))
        except BaseException:
            self._names.discard(name)
            if draft is not None:
                _remove(draft)
            raise
        try:
            if descriptor is not None:
                self._finish_clone(snapshot, descriptor)
            self._keep_switch(snapshot)
        except BaseException:
            self.delete(name)
            raise
        return snapshot

    def snapshots(self) -> list[Snapshot]:
        """Return those there are, the oldest first, invalid ones too."""
        return list(self._snapshots)

    def delete(self, name: str) -> None:
        """Remove a snapshot, whoever reads it. Raises SnapshotError if there is none.

        The space of what it alone needs is given back. What changed since it is remembered. If
        that it is gone cannot be kept, it is there again after a restart, and invalid.
        """
        with self.quiet_gate.lock:
            snapshot = self._find(name)
            snapshot.invalid_because = snapshot.invalid_because or "it has been deleted"
            self._snapshots = tuple(one for one in self._snapshots if one is not snapshot)
        try:
            self._trim_and_save()
        except OSError:
            self._save_if_possible()  # its files have gone, which may have made the space for it
        finally:
            if snapshot.clone is not None:
                snapshot.clone.destroy()
            self._names.discard(name)

    def forget(self, reason: str) -> None:
        """Make all snapshots invalid and remove the old content that they hold. Raises OSError.

        They stay in the list until they are deleted.
        """
        with self.quiet_gate.lock:
            given_up = list(self._snapshots)
            for snapshot in given_up:
                snapshot.invalid_because = snapshot.invalid_because or reason
        if not given_up:
            return
        # 1. No later process believes them ...
        self._save()
        # 2. ... before anything of theirs is missing.
        with self.quiet_gate.lock:
            self._copying = any(one.needs_delta() for one in self._snapshots)
        for generation in reversed(self._generations):
            if generation.delta is not None:
                generation.delta.destroy()
        for snapshot in given_up:
            if snapshot.clone is not None:
                snapshot.clone.destroy()
            # What an earlier process could not remove has not been opened by this one.
            self._state.path(snapshot.stem, CLONE).unlink(missing_ok=True)

    def changes(self, since: int, name: str) -> tuple[list[tuple[int, int]], bool]:
        """Return the (offset, length) that changed from generation `since` to a snapshot.

        They are whole chunks, ascending, with what the disk has grown by. False says that it is
        not known, because the generation is too old, of another disk, or ended in a crash; the
        extents are all of the snapshot then. Raises SnapshotError if there is no such snapshot.
        """
        snapshot = self._find(name)
        if since == snapshot.generation:
            return [], True
        between = [one for one in self._generations if since <= one.number < snapshot.generation]
        maps = [one.chunks for one in between if one.chunks is not None]
        if not maps or len(maps) != snapshot.generation - since:
            return [(0, snapshot.size)], False
        return extents_of(union(maps), self._shift, snapshot.size), True

    def _find(self, name: str) -> Snapshot:
        for snapshot in self._snapshots:
            if snapshot.name == name:
                return snapshot
        raise SnapshotError(f"there is no snapshot {name}")

    def _take_name(self, name: str) -> None:
        with self.quiet_gate.lock:
            if name in self._names:
                raise SnapshotError(f"there is a snapshot {name} already: delete it first")
            if len(self._names) >= _MOST_SNAPSHOTS:
                raise SnapshotError(f"{_MOST_SNAPSHOTS} snapshots are the most: delete one first")
            self._names.add(name)

    def _draft(self, stem: str) -> Generation:
        """Make the files of a generation before it begins; both are empty and sparse."""
        self._state.folder.mkdir(parents=True, exist_ok=True)
        size = self.size
        chunks = ChangedChunks.make(self._state.path(stem, CHANGED), size, self._shift)
        try:
            delta = Delta.make(self._state.path(stem, DELTA), size)
        except BaseException:
            chunks.give_up_file()
            raise
        return Generation(0, stem, size, chunks, delta)

    def _switch(self, name: str, draft: Generation, notes: Mapping[str, Any]) -> Snapshot:
        """Within the gate: from here on changes belong to the next generation."""
        size = self.size
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
            origin=self.store, later=lambda: self._generations,
        )  # fmt: skip
        self._generations = (*self._generations, draft)
        self._snapshots = (*self._snapshots, snapshot)
        self._current = draft
        self._copying = True
        return snapshot

    def _keep_switch(self, snapshot: Snapshot) -> None:
        # 1. What changed up to the snapshot is on stable storage: it can be believed for ever ...
        for generation in self._generations:
            if generation.number < snapshot.generation and generation.chunks is not None:
                generation.chunks.sync()
        # 2. ... before the state says that it ended.
        self._trim_and_save()

    def _find_cloner(self) -> Cloner | None:
        if self._wants_clones and self._cloner is None and self._source is not None:
            self._state.folder.mkdir(parents=True, exist_ok=True)
            self._cloner = Cloner.probe(self._source, self._state.folder)
            self._wants_clones = self._cloner is not None
        return self._cloner

    def _clone(self, cloner: Cloner | None, stem: str) -> int | None:
        if cloner is None:
            return None
        try:
            return cloner.clone(self._state.path(stem, CLONE))
        except OSError as error:
            log.warning("the disk cannot be cloned, so it is copied: %s", error.strerror)
            return None

    def _finish_clone(self, snapshot: Snapshot, descriptor: int) -> None:
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        snapshot.clone = Delta.load(self._state.path(snapshot.stem, CLONE), readonly=True)
        with self.quiet_gate.lock:
            self._copying = any(one.needs_delta() for one in self._snapshots)

    # ---------------------------------------------------------------- keeping

    def _trim(self) -> list[Generation]:
        """Let go of generations that no one can ask for, and of deltas that none needs."""
        with self.quiet_gate.lock:
            oldest = self._oldest_needed()
            passed = self._generations[: self._first_kept()]
            gone = [one for one in passed if one.number < oldest]
            self._generations = tuple(one for one in self._generations if one not in gone)
            return gone

    def _oldest_needed(self) -> float:
        """Return the oldest generation whose old content a snapshot lives on; the lock is held."""
        needed = (one.generation for one in self._snapshots if one.needs_delta())
        return min(needed, default=math.inf)

    def _first_kept(self) -> int:
        """Return the place of the oldest generation that is kept to tell what changed."""
        counted = 0
        for place in range(len(self._generations) - 1, -1, -1):
            behind = len(self._generations) - 1 - place
            if counted == self._keep or behind == _MOST_FOR_EACH * self._keep:
                return place + 1
            counted += not self._generations[place].passing
        return 0

    def _trim_and_save(self) -> None:
        gone = self._trim()
        try:
            # 1. A later process does not look for a snapshot that was deleted ...
            self._save()
        finally:
            # 2. ... before its files go; where that cannot be kept, it finds that they are missing.
            for generation in gone:
                _remove(generation)
            self._drop_deltas()
            # 3. Only now may old content be lost.
            with self.quiet_gate.lock:
                self._copying = any(one.needs_delta() for one in self._snapshots)

    def _drop_deltas(self) -> None:
        with self.quiet_gate.lock:
            oldest = self._oldest_needed()
            idle = []
            for generation in self._generations:
                if generation.delta is not None and (generation.number < oldest):
                    idle.append(generation.delta)
                    generation.delta = None
        for delta in idle:
            delta.destroy()

    def _save_if_possible(self) -> None:
        """Where it is not, a later process finds that files are missing."""
        try:
            self._save()
        except OSError as error:
            log.error("%s: %s", self._state.folder, error.strerror)

    def _save(self, *, clean: bool = False) -> None:
        with self._saving:
            with self.quiet_gate.lock:
                generations, snapshots = self._generations, self._snapshots
                last = self._last_number
            self._state.save(self._shift, last, generations, snapshots, clean=clean)


def _last_change(source: Path | None, clock: Callable[[], float]) -> float:
    """By the clock, when a file was last written: by an earlier process, as far as we know."""
    if not fingerprint(source):
        return float("-inf")
    assert source is not None
    return clock() - max(0.0, time.time() - source.stat().st_mtime)


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


def _let_go(generation: Generation) -> None:
    if generation.delta is not None:
        generation.delta.close()
    if generation.chunks is not None:
        generation.chunks.close()


def _remove(generation: Generation) -> None:
    if generation.delta is not None:
        generation.delta.destroy()
    if generation.chunks is not None:
        generation.chunks.give_up_file()
