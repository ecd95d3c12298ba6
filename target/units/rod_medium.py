"""A disk's blocks as what representations of data are made of (SPC-4 5.17.6.2)."""

import secrets
from collections.abc import Collection, Sequence

from serverfree.datamover.rods import Hold
from serverfree.scsi.device import Buffer
from serverfree.scsi.rod_token import RodType
from serverfree.target.backstore.base import BlockStore, Stored
from serverfree.target.backstore.snapshot_origin import Snapshot, SnapshotOrigin
from serverfree.target.units.block import BlockUnit
from serverfree.target.units.block_medium import capacity_16

ROD_SNAPSHOT = "rod-"
"""How the names of snapshots begin that RODs are made of. They are nobody's LUN."""

MOST_KEPT = 16
"""Snapshots of one disk for RODs at once: those that people take need room too."""

_ALWAYS = frozenset(
    (RodType.ACCESS_UPON_REFERENCE, RodType.CHANGE_VULNERABLE, RodType.ANY_POINT_IN_TIME)
)
_KEPT = _ALWAYS | {RodType.POINT_IN_TIME, RodType.PERSISTENT}


class RodMedium:
    """The blocks of a disk.

    Points in time that outlast a write need a store that keeps what was there (a SnapshotOrigin),
    or one that is never written; without, there are those that a write makes invalid. Snapshots
    that an earlier process has left behind for tokens that ended with it are removed.
    """

    def __init__(self, unit: BlockUnit) -> None:
        self._unit = unit
        if isinstance(unit.store, SnapshotOrigin):
            for snapshot in unit.store.snapshots():
                if snapshot.name.startswith(ROD_SNAPSHOT):
                    unit.store.delete(snapshot.name)

    @property
    def rod_types(self) -> Collection[RodType]:
        """The types that `hold` can make."""
        store = self._unit.store
        return _KEPT if store.readonly or isinstance(store, SnapshotOrigin) else _ALWAYS

    @property
    def block_length(self) -> int:
        """Bytes of a block."""
        return self._unit.block_size

    @property
    def blocks(self) -> int:
        """How many there are."""
        return self._unit.blocks

    def capacity(self) -> bytes:
        """Return the parameter data of READ CAPACITY(16)."""
        return capacity_16(self._unit).pack()

    def hold(self, rod_type: RodType, ranges: Sequence[tuple[int, int]]) -> Hold:
        """Keep byte ranges as they are. Raises OSError or ValueError if that cannot be."""
        unit = self._unit
        if rod_type is RodType.ACCESS_UPON_REFERENCE or unit.store.readonly:
            return _Reference(unit.store)
        if rod_type is RodType.CHANGE_VULNERABLE:
            return _Watched(unit, ranges)
        assert isinstance(unit.store, SnapshotOrigin), "there is no such type without"
        kept = sum(one.name.startswith(ROD_SNAPSHOT) for one in unit.store.snapshots())
        if kept >= MOST_KEPT:
            raise ValueError(f"{unit.name} keeps {kept} points in time for tokens already")
        return _Kept(unit.store)


class _Reference:
    """The medium as it is."""

    valid = True

    def __init__(self, store: BlockStore) -> None:
        self._store = store

    def read(self, offset: int, length: int) -> Buffer:
        return self._store.pread(offset, length)

    def lend(self, offset: int, length: int) -> Stored:
        return Stored(self._store, offset, length)

    def release(self) -> None:
        pass


class _Watched:
    """The medium until one of these ranges changes."""

    def __init__(self, unit: BlockUnit, ranges: Sequence[tuple[int, int]]) -> None:
        self.valid = True
        self._store, self._exclusion = unit.store, unit.exclusion
        self._ranges = [(offset, offset + length) for offset, length in ranges]
        with unit.exclusion.watching(self._changes, unit.store.size):
            pass  # no change that is under way has escaped

    def _changes(self, offset: int, length: int) -> None:
        # Before anything changes: who reads, and finds it valid afterwards, has read what was.
        if self.minds(offset, length):
            self.valid = False
            self.release()

    def minds(self, offset: int, length: int) -> bool:
        end = offset + length
        return any(first < end and offset < last for first, last in self._ranges)

    def read(self, offset: int, length: int) -> Buffer:
        return self._store.pread(offset, length)

    def lend(self, offset: int, length: int) -> Stored:
        return Stored(self._store, offset, length, self)

    def release(self) -> None:
        self._exclusion.unwatch(self._changes)


class _Kept:
    """A snapshot that is there for this alone."""

    def __init__(self, origin: SnapshotOrigin) -> None:
        self._origin = origin
        name = ROD_SNAPSHOT + secrets.token_hex(8)
        self._snapshot: Snapshot | None = origin.create(name, quiet=0, passing=True)
        try:
            self._store = self._snapshot.open()
        except BaseException:
            origin.delete(name)
            raise

    @property
    def valid(self) -> bool:
        return self._snapshot is not None and self._snapshot.valid

    def read(self, offset: int, length: int) -> Buffer:
        return self._store.pread(offset, length)

    def lend(self, offset: int, length: int) -> Stored:
        return Stored(self._store, offset, length)

    def release(self) -> None:
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is not None:
            self._store.close()
            self._origin.delete(snapshot.name)
