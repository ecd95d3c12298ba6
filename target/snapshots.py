"""Snapshots as logical units: taken, shown at LUNs of their own, read, and deleted.

A LUN is the highest free one from 255 downwards: configured units count from 0 upwards, so the two
seldom meet, and below 256 it is the same number in every initiator (libiscsi, and with it QEMU,
writes what stands in a URL as a peripheral device address; SAM-5 4.7.5). When 255 are taken it goes
on from 256. It stays the same for as long as there is the snapshot.
"""

import logging
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Condition, Event, RLock
from typing import TypeVar

from serverfree.scsi.designator import locally_assigned
from serverfree.target.backstore.snapshot import Snapshot
from serverfree.target.backstore.snapshot_origin import SnapshotOrigin
from serverfree.target.session import Target
from serverfree.target.units.block import BlockUnit
from serverfree.target.units.snapshot import SnapshotUnit

log = logging.getLogger(__name__)
_T = TypeVar("_T")

CONSISTENCIES = ("crash", "fs", "app")
"""What whoever asks for a snapshot says of it: nothing was done, the file system or the application
had put everything on the disk."""

MOST_SNAPSHOTS = 1024  # of one target
MOST_WAITING = 32  # requests at once that wait for a quiet period
_TOP, _END = 255, 16384
# Notes kept with a snapshot.
_IDENTITY, _LUN, _CONSISTENCY, _BLOCK_SIZE = "identity", "lun", "consistency", "block size"


class NotFound(LookupError):
    """There is no disk or snapshot of that name."""


class Conflict(Exception):
    """What was asked for cannot be as things stand; the text says why."""


class InUse(Conflict):
    """The snapshot is being read."""


class Busy(Exception):
    """Too many wait already."""


@dataclass(slots=True, eq=False)
class ServedDisk:
    """A disk that snapshots can be taken of; `quiet` and `timeout` hold unless told otherwise."""

    target: Target
    unit: BlockUnit
    origin: SnapshotOrigin
    quiet: float
    timeout: float
    since: float
    waiting: set[Event] = field(default_factory=set)
    gone: bool = False

    def quiet_for(self) -> float:
        """Seconds since the last change; since the disk is served if nothing has changed it."""
        gate = self.origin.quiet_gate
        now = gate.clock()
        return 0.0 if gate.running else max(0.0, now - max(gate.last_change, self.since))


@dataclass(frozen=True, slots=True, eq=False)
class ServedSnapshot:
    """A snapshot and the unit that shows it."""

    disk: ServedDisk
    snapshot: Snapshot
    unit: SnapshotUnit
    lun: int
    consistency: str

    @property
    def created(self) -> str:
        """ISO 8601, UTC."""
        return datetime.fromtimestamp(self.snapshot.created, UTC).isoformat(timespec="milliseconds")


class Snapshots:
    """All snapshots of the disks that a process serves. Safe from several threads.

    A lock is held while units come and go (`changing`), but nobody waits under it: not for a quiet
    period, nor for readers of a snapshot that is deleted, nor for its files. Who looks at what
    there is needs none: it is replaced, never changed. `prepare` is called with a target and a unit
    before the unit is added.
    """

    def __init__(self, prepare: Callable[[Target, SnapshotUnit], None]) -> None:
        self._lock = RLock()
        self._gone = Condition(self._lock)
        self._prepare = prepare
        self._disks: tuple[ServedDisk, ...] = ()
        self._shown: tuple[ServedSnapshot, ...] = ()
        self._going: list[ServedSnapshot] = []  # deleted, but still read or on the storage
        self._promised: dict[str, tuple[Target, int]] = {}  # names and LUNs of those to come
        self._closed = False

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Nobody else makes units come and go meanwhile; what was going before has gone."""
        with self._lock:
            self._gone.wait_for(lambda: not self._going)
            yield

    # ---------------------------------------------------------------- disks come and go

    def adopt(self, target: Target, unit: BlockUnit, quiet: float, timeout: float) -> None:
        """Take snapshots of this unit from now on, and show those that there are.

        The target has all its configured units by then. Once more changes nothing.
        """
        origin = unit.store
        if not isinstance(origin, SnapshotOrigin):
            return
        with self._lock:
            if any(disk.unit is unit for disk in self._disks):
                return
            disk = ServedDisk(target, unit, origin, quiet, timeout, origin.quiet_gate.clock())
            self._disks = *self._disks, disk
            for snapshot in origin.snapshots():
                try:
                    self._show(disk, snapshot, self._kept_lun(disk, snapshot))
                except (OSError, ValueError) as error:  # the disk is served all the same
                    log.error("snapshot %s of %s: %s", snapshot.name, unit.name, error)

    def leave(self, unit: object) -> None:
        """A unit will be served no longer: nobody waits for it, and its snapshots are shown no
        more. They stay on the storage."""
        with self.changing():
            for disk in [each for each in self._disks if each.unit is unit]:
                self._disks = tuple(each for each in self._disks if each is not disk)
                disk.gone = True
                for cancelled in disk.waiting:
                    cancelled.set()
                for shown in [each for each in self._shown if each.disk is disk]:
                    self._hide(shown)()

    def close(self) -> None:
        """Nobody waits any more, and nothing new is taken."""
        with self._lock:
            self._closed = True
            for disk in self._disks:
                for cancelled in disk.waiting:
                    cancelled.set()
        with self.changing():
            pass

    def luns(self, target: Target) -> dict[int, str]:
        """Return what snapshots have taken of a target's LUNs, by number with their names."""
        with self._lock:
            kept = (*self._shown, *self._going)
            taken = {one.lun: one.snapshot.name for one in kept if one.disk.target is target}
            taken |= {lun: name for name, (where, lun) in self._promised.items() if where is target}
            return taken

    # ---------------------------------------------------------------- looking

    def disks(self) -> Sequence[ServedDisk]:
        """Return the disks of this moment."""
        return self._disks

    def all(self) -> Sequence[ServedSnapshot]:
        """Return the snapshots of this moment, those of a disk oldest first."""
        return self._shown

    def disk(self, wanted: str) -> ServedDisk:
        """Return the disk of this name or designator. Raises NotFound, Conflict for two."""
        return _only(
            wanted, "disk", [d for d in self._disks if _is_named(d.unit.name, d.unit, wanted)]
        )

    def find(self, wanted: str) -> ServedSnapshot:
        """Return the snapshot of this name or designator. Raises NotFound, Conflict for two."""
        return _only(
            wanted,
            "snapshot",
            [s for s in self._shown if _is_named(s.snapshot.name, s.unit, wanted)],
        )

    # ---------------------------------------------------------------- doing

    def create(
        self,
        wanted: str,
        *,
        quiet: float | None = None,
        timeout: float | None = None,
        name: str | None = None,
        consistency: str = CONSISTENCIES[0],
        cancelled: Event | None = None,
    ) -> ServedSnapshot:
        """Wait for the quiet period, take a snapshot, and show it to whoever sees the disk.

        Raises NotFound, Conflict, Busy, NotQuiet, Cancelled (also when the disk goes while we
        wait), OSError.
        """
        cancelled = cancelled or Event()
        with self._promise(wanted, name, cancelled) as (disk, chosen, lun):
            snapshot = disk.origin.create(
                chosen,
                disk.quiet if quiet is None else quiet,
                disk.timeout if timeout is None else timeout,
                cancelled=cancelled,
                notes={
                    _IDENTITY: uuid.uuid4().hex,
                    _LUN: lun,
                    _CONSISTENCY: consistency,
                    _BLOCK_SIZE: disk.unit.block_size,  # the disk may be formatted otherwise
                },
            )
            with self._lock:
                if disk.gone:  # it has been closed with its origin, and is there when that is back
                    raise Conflict(f"disk {disk.unit.name} is served no longer")
                try:
                    shown = self._show(disk, snapshot, lun)
                except BaseException:
                    disk.origin.delete(chosen)
                    raise
                disk.target.refresh()
        return shown

    def delete(self, wanted: str, *, force: bool = False) -> None:
        """Show a snapshot no longer and give its space back.

        While somebody reads it (see SnapshotUnit.use) that is InUse, unless by force: then the
        commands that read it end. Raises NotFound, Conflict.
        """
        with self._lock:
            shown = self.find(wanted)
            user = shown.unit.use()
            if user is not None and not force:
                raise InUse(f"snapshot {shown.snapshot.name} is in use: {user}")
            end = self._hide(shown)
            self._going.append(shown)  # its name and its LUN are still taken
        try:
            # 1. Nobody can reach it any more ...
            end()
            # 2. ... before it goes.
            shown.disk.origin.delete(shown.snapshot.name)
        except (OSError, ValueError):
            with self._lock:
                self._show(shown.disk, shown.snapshot, shown.lun)
                shown.disk.target.refresh()
            raise
        finally:
            with self._lock:
                self._going.remove(shown)
                self._gone.notify_all()

    def changes(self, wanted: str, since: int) -> tuple[list[tuple[int, int]], bool]:
        """Return what changed from a generation to a snapshot: (offset, length) in bytes.

        False: not all is known, and everything has to be taken for changed.
        """
        shown = self.find(wanted)
        return shown.disk.origin.changes(since, shown.snapshot.name)

    # ---------------------------------------------------------------- how

    @contextmanager
    def _promise(
        self, wanted: str, name: str | None, cancelled: Event
    ) -> Iterator[tuple[ServedDisk, str, int]]:
        """Keep a name and a LUN for a snapshot that is waited for."""
        with self._lock:
            disk = self.disk(wanted)
            if self._closed or len(self._promised) >= MOST_WAITING:
                raise Busy(f"{len(self._promised)} snapshots are being waited for already")
            taken = {one.snapshot.name for one in (*self._shown, *self._going)}
            taken |= set(self._promised)
            # One that cannot be shown has its name all the same.
            taken |= {each.name for each in disk.origin.snapshots()}
            if name is None:
                name = _fresh_name(disk.unit.name, taken)
            elif name in taken | {unit.name for unit in disk.target.units.values()}:
                raise Conflict(f"there is a snapshot or unit {name} already")
            lun = self._free_lun(disk.target)
            self._promised[name] = disk.target, lun
            disk.waiting.add(cancelled)
        try:
            yield disk, name, lun
        finally:
            with self._lock:
                del self._promised[name]
                disk.waiting.discard(cancelled)

    def _show(self, disk: ServedDisk, snapshot: Snapshot, lun: int) -> ServedSnapshot:
        block_size = int(snapshot.notes.get(_BLOCK_SIZE, disk.unit.block_size))
        identity = str(snapshot.notes.get(_IDENTITY) or f"generation {snapshot.generation}")
        unit = SnapshotUnit(
            snapshot.name,
            snapshot.open(),
            designator=locally_assigned(disk.target.name, disk.unit.name, f"snapshot {identity}"),
            origin=disk.unit.name,
            block_size=block_size,
            physical_size=disk.unit.block_size << disk.unit.physical_exponent,
            long_cdbs=disk.unit.long_cdbs,
            target=disk.target.name,
        )
        self._prepare(disk.target, unit)
        disk.target.add(lun, unit)
        consistency = str(snapshot.notes.get(_CONSISTENCY, CONSISTENCIES[0]))
        shown = ServedSnapshot(disk, snapshot, unit, lun, consistency)
        self._shown = *self._shown, shown
        return shown

    def _hide(self, shown: ServedSnapshot) -> Callable[[], None]:
        """Show it no more; what is returned waits for its readers to end."""
        self._shown = tuple(each for each in self._shown if each is not shown)
        return shown.disk.target.hide_unit(shown.lun)

    def _kept_lun(self, disk: ServedDisk, snapshot: Snapshot) -> int:
        """Return the LUN that a snapshot had, or another if a configured unit has that now."""
        lun = snapshot.notes.get(_LUN)
        taken = self._taken(disk.target)
        if isinstance(lun, int) and 0 <= lun < _END and lun not in taken:
            return lun
        other = self._free_lun(disk.target)
        log.warning("snapshot %s moves from LUN %s to %d", snapshot.name, lun, other)
        return other

    def _free_lun(self, target: Target) -> int:
        if len(self.luns(target)) >= MOST_SNAPSHOTS:
            raise Conflict(f"{target.name} has {MOST_SNAPSHOTS} snapshots; delete some")
        taken = self._taken(target)
        below = (lun for lun in range(_TOP, 0, -1) if lun not in taken)
        above = (lun for lun in range(_TOP + 1, _END) if lun not in taken)
        lun = next(below, None) or next(above, None)
        if lun is None:
            raise Conflict(f"{target.name} has no LUN left")
        return lun

    def _taken(self, target: Target) -> set[int]:
        """LUNs of units, of snapshots to come, and those that initiators know other units by."""
        mapped = {mapping.lun for entry in target.access.entries for mapping in entry.luns or ()}
        return set(target.units) | set(self.luns(target)) | mapped


def _fresh_name(disk: str, taken: Collection[str]) -> str:
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in disk)
    stem = f"{plain.strip('-')[:32] or 'disk'}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    if stem not in taken:
        return stem
    return next(name for n in range(2, len(taken) + 3) if (name := f"{stem}-{n}") not in taken)


def _is_named(name: str, unit: BlockUnit, wanted: str) -> bool:
    return wanted == name or wanted.upper() == unit.serial


def _only(wanted: str, kind: str, found: Sequence[_T]) -> _T:
    if not found:
        raise NotFound(f"there is no {kind} {wanted}")
    if len(found) > 1:
        raise Conflict(
            f"{len(found)} of them are named {wanted}: name the {kind} by its designator"
        )
    return found[0]
