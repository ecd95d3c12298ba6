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

import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event
from typing import Any

from serverfree.scsi.device import Buffer
from serverfree.target.backstore.base import BlockStore, Stored, StoreError
from serverfree.target.backstore.copy_before_write import CopyBeforeWrite
from serverfree.target.backstore.quiet import QUIET, TIMEOUT, QuietGate, Quietness, pause_until
from serverfree.target.backstore.snapshot import Generation, Snapshot, SnapshotError
from serverfree.target.backstore.snapshot_delta import Cloner
from serverfree.target.backstore.snapshot_history import SnapshotHistory
from serverfree.target.backstore.snapshot_state import SnapshotState, boot_id, fingerprint

__all__ = ["Snapshot", "SnapshotError", "SnapshotOrigin"]

log = logging.getLogger(__name__)

CHUNK = 64 << 10
"""Bytes that are copied at once. Measured: 4 KiB chunks make a random write cheaper and take a
tenth of the space, but a map and a delta sixteen times as fine; 1 MiB copies all of a disk soon."""
_CHUNKS = (4 << 10, 1 << 20)


class SnapshotOrigin:
    """A disk's store through which all its changes go: a BlockStore, and its snapshots.

    Every change passes the quiet gate and has old content saved first (`CopyBeforeWrite`); which
    snapshots there are is the `SnapshotHistory`'s. Reading is the inner store's own. Safe to use
    from several threads.
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
        self._source = source
        self._wants_clones = clone
        self._cloner: Cloner | None = None
        self._closed = False
        self.quiet_gate = QuietGate(clock, pause, _last_change(source, clock))
        self._acquire, self._release = self.quiet_gate.lock.acquire, self.quiet_gate.lock.release
        self._clock = clock
        self._history = SnapshotHistory(
            store,
            SnapshotState(folder, source, boot()),
            chunk.bit_length() - 1,
            max(1, keep),
            self.quiet_gate.lock,
        )
        self._kept = CopyBeforeWrite(store, self._history, limit)
        self._before = self._kept.before
        if self._history.generations:
            self._kept.grown()
            self._history.trim()
            self._history.save()

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
            if self._history.current is not None:
                self._before(offset, len(data))
            self._write(offset, data)
        except OSError as error:
            if not self._kept.made_room(error):
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
            if not self._kept.made_room(error):
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
            self._kept.grown()
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
        safe = self._history.sync()
        try:
            self.store.close()
            # 2. ... before the state says so.
            if self._history.generations and safe:
                self._history.save(clean=True)
        finally:
            if self._cloner is not None:
                self._cloner.close()
            self._history.close()

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
        history = self._history
        history.take_name(name)
        since = self.quiet_gate.clock()
        stem = uuid.uuid4().hex
        draft: Generation | None = None
        try:
            cloner = self._find_cloner()
            draft = history.draft(stem, self.size, passing=passing)
            if cloner is not None:
                # A clone begins with writing out what is dirty: let there be little.
                self.quiet_gate.wait(quiet, timeout, cancelled, progress)
                self.store.flush()
            with self.quiet_gate.held(quiet, timeout, cancelled, progress, since=since):
                descriptor = self._clone(cloner, stem)
                snapshot = history.begin(name, draft, self.size, dict(notes or {}))
        except BaseException:
            history.give_up(name, draft)
            raise
        try:
            if descriptor is not None:
                self._finish_clone(snapshot, descriptor)
            history.keep_begun(snapshot)
        except BaseException:
            self.delete(name)
            raise
        return snapshot

    def snapshots(self) -> list[Snapshot]:
        """Return those there are, the oldest first, invalid ones too."""
        return list(self._history.snapshots)

    def delete(self, name: str) -> None:
        """Remove a snapshot, whoever reads it. Raises SnapshotError if there is none.

        The space of what it alone needs is given back. What changed since it is remembered. If
        that it is gone cannot be kept, it is there again after a restart, and invalid.
        """
        self._history.delete(name)

    def forget(self, reason: str) -> None:
        """Make all snapshots invalid and remove the old content that they hold. Raises OSError.

        They stay in the list until they are deleted.
        """
        self._history.forget(reason)

    def changes(self, since: int, name: str) -> tuple[list[tuple[int, int]], bool]:
        """Return the (offset, length) that changed from generation `since` to a snapshot.

        They are whole chunks, ascending, with what the disk has grown by. False says that it is
        not known, because the generation is too old, of another disk, or ended in a crash; the
        extents are all of the snapshot then. Raises SnapshotError if there is no such snapshot.
        """
        return self._history.changes(since, name)

    # ---------------------------------------------------------------- clones

    def _find_cloner(self) -> Cloner | None:
        if self._wants_clones and self._cloner is None and self._source is not None:
            folder = self._history.folder
            folder.mkdir(parents=True, exist_ok=True)
            self._cloner = Cloner.probe(self._source, folder)
            self._wants_clones = self._cloner is not None
        return self._cloner

    def _clone(self, cloner: Cloner | None, stem: str) -> int | None:
        if cloner is None:
            return None
        try:
            return cloner.clone(self._history.clone_path(stem))
        except OSError as error:
            log.warning("the disk cannot be cloned, so it is copied: %s", error.strerror)
            return None

    def _finish_clone(self, snapshot: Snapshot, descriptor: int) -> None:
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._history.add_clone(snapshot)


def _last_change(source: Path | None, clock: Callable[[], float]) -> float:
    """By the clock, when a file was last written: by an earlier process, as far as we know."""
    if not fingerprint(source):
        return float("-inf")
    assert source is not None
    return clock() - max(0.0, time.time() - source.stat().st_mtime)
