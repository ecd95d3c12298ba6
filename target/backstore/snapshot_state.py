"""What of snapshots and generations outlives a process, and what may be believed of it."""

import contextlib
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serverfree.target.backstore.base import BlockStore, StoreError
from serverfree.target.backstore.changes import ChangedChunks
from serverfree.target.backstore.snapshot import Generation, Snapshot
from serverfree.target.backstore.snapshot_delta import Delta
from serverfree.target.backstore.state import StateFile

CHANGED, DELTA, CLONE = ".changed", ".delta", ".clone"
_STATE = "state"
_SECTION = "snapshots"
_CLEAN = "clean"

_LOST_POWER = "the machine stopped before the old content was safe"
_CHANGED_OUTSIDE = "the disk was changed while it was not served"
_INCOMPLETE = "what it needs of old content is missing"


def boot_id() -> str:
    """Return what is another after each start of the kernel, and so of its page cache."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def fingerprint(source: Path | None) -> list[int]:
    """Return what changes when a file is written; nothing of a device."""
    if source is None:
        return []
    found = source.stat()
    if not stat.S_ISREG(found.st_mode):
        return []
    return [found.st_ino, found.st_size, found.st_mtime_ns]


@dataclass(slots=True)
class Kept:
    """What is there at the start: nothing, or what an earlier process left."""

    shift: int
    last_number: int = 0
    generations: list[Generation] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    is_current: bool = False
    """Whether the last of the generations may go on."""


class SnapshotState:
    """The folder of a disk's snapshots: a state file, and files that it names.

    The state says under which start of the kernel the files are in use. A process that finds them
    in use under the same start takes over from one that was killed: what that one wrote is all in
    the page cache. After another start what was not synced may be lost, and then what was copied
    cannot be told from what was not. After a clean end everything was synced, and the state tells
    how the disk's file looked.
    """

    def __init__(self, folder: Path, source: Path | None, boot: str) -> None:
        self.folder = folder
        self._source = source
        self._boot = boot
        self._file = StateFile(folder / _STATE)

    def load(
        self, store: BlockStore, shift: int, later: Callable[[], Sequence[Generation]]
    ) -> Kept:
        """Return what is there and can be believed, and remove files that belong to nothing.

        What was made with another chunk size goes on with it while a snapshot is there.
        """
        record = self._file.get(_SECTION)
        if record is None:
            self._sweep(())
            return Kept(shift)
        if record["snapshots"]:
            shift = record["shift"]
        elif record["shift"] != shift:
            record = {**record, "generations": []}
        doubt = self._doubt(record)
        kept = Kept(shift, record["last_number"])
        for one in [*record["generations"], *self._begun_since(record, store.size)]:
            kept.generations.append(self._generation(one, shift))
            kept.last_number = max(kept.last_number, one["number"])
        if kept.generations:
            last = kept.generations[-1]
            if doubt and last.chunks is not None:
                last.chunks.close()
                last.chunks = None
            kept.is_current = last.chunks is not None
        for one in record["snapshots"]:
            snapshot = Snapshot(**one, origin=store, later=later)
            kept.snapshots.append(snapshot)
            if snapshot.valid:
                self._find_content(snapshot, kept.generations, doubt)
        self._sweep(kept.generations, kept.snapshots)
        return kept

    def _doubt(self, record: Mapping[str, Any]) -> str:
        """Return why what lies in the folder may not match the disk, empty if it does."""
        if record["state"] != _CLEAN:
            return "" if record["state"] == self._boot else _LOST_POWER
        return "" if record["fingerprint"] == fingerprint(self._source) else _CHANGED_OUTSIDE

    def _begun_since(self, record: Mapping[str, Any], size: int) -> list[Mapping[str, Any]]:
        """Return generations that began, and were to be kept when the process was killed.

        No one was told of their snapshots, but what they hold may be all there is of old content.
        """
        if not record["generations"]:
            return []
        known = {one["stem"] for one in record["generations"]}
        found: list[Mapping[str, Any]] = []
        for path in self.folder.glob("*" + CHANGED):
            number = ChangedChunks.number_in(path)
            if path.stem not in known and number > record["last_number"]:
                found.append({"number": number, "stem": path.stem, "size": size})
        return sorted(found, key=lambda one: one["number"])

    def _generation(self, record: Mapping[str, Any], shift: int) -> Generation:
        stem, size = record["stem"], record["size"]
        chunks = None
        delta = None
        with contextlib.suppress(OSError):
            chunks = ChangedChunks.load(self.path(stem, CHANGED), size, shift)
        with contextlib.suppress(OSError, StoreError):
            delta = Delta.load(self.path(stem, DELTA))
        passing = record.get("passing", False)
        return Generation(record["number"], stem, size, chunks, delta, passing)

    def _find_content(
        self, snapshot: Snapshot, generations: Sequence[Generation], doubt: str
    ) -> None:
        with contextlib.suppress(OSError, StoreError):
            # A clone was synced before it was in the state, and shares nothing with the disk
            # that a change of the disk would reach.
            snapshot.clone = Delta.load(self.path(snapshot.stem, CLONE), readonly=True)
            return
        needed = [one for one in generations if one.number >= snapshot.generation]
        whole = all(one.chunks is not None and one.delta is not None for one in needed)
        if doubt:
            snapshot.invalid_because = doubt
        elif not needed or not whole:
            snapshot.invalid_because = _INCOMPLETE

    def path(self, stem: str, kind: str) -> Path:
        """Return where a file of a generation or snapshot lies."""
        return self.folder / (stem + kind)

    def save(
        self,
        shift: int,
        last_number: int,
        generations: Sequence[Generation],
        snapshots: Sequence[Snapshot],
        *,
        clean: bool = False,
    ) -> None:
        """Keep this, all at once. `clean` says that all is synced and the disk is closed.

        Raises OSError.
        """
        self._file.put(
            _SECTION,
            {
                "state": _CLEAN if clean else self._boot,
                "fingerprint": fingerprint(self._source) if clean else [],
                "shift": shift,
                "last_number": last_number,
                "generations": [
                    {
                        "number": one.number,
                        "stem": one.stem,
                        "size": one.size,
                        "passing": one.passing,
                    }
                    for one in generations
                ],
                "snapshots": [
                    {
                        "name": one.name,
                        "created": one.created,
                        "generation": one.generation,
                        "size": one.size,
                        "stem": one.stem,
                        "notes": dict(one.notes),
                        "invalid_because": one.invalid_because,
                    }
                    for one in snapshots
                ],
            },
        )

    def _sweep(self, generations: Sequence[Generation], snapshots: Sequence[Snapshot] = ()) -> None:
        """Remove what a process had begun, or had not come to remove, when it was killed."""
        if not self.folder.is_dir():
            return
        wanted = {one.stem + kind for one in generations for kind in (CHANGED, DELTA)}
        wanted |= {one.stem + CLONE for one in snapshots}
        for path in self.folder.iterdir():
            if path.suffix in (CHANGED, DELTA, CLONE) and path.name not in wanted:
                path.unlink(missing_ok=True)
