"""A cartridge: a directory that keeps what a tape would.

    state.A, state.B    superblocks: identity, capacity, end of data of each partition
    part0.log           the records of partition 0 (up to `part3.log`)
    part0.idx           where they are; can be deleted
    memory.json         attributes that hosts wrote, and counts of its use

What holds after a crash at any moment: everything up to the last sync (a filemark written without
IMMED, a rewind, an unload), and behind it a prefix of what was written since, never a mixture.
"""

import os
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from serverfree.target.backstore.cartridge_errors import CartridgeError
from serverfree.target.backstore.cartridge_index import BlockIndex
from serverfree.target.backstore.cartridge_log import LOG_START, RecordLog
from serverfree.target.backstore.cartridge_memory import CartridgeMemory
from serverfree.target.backstore.cartridge_partition import Partition
from serverfree.target.backstore.cartridge_state import (
    MAX_PARTITIONS,
    Limits,
    PartitionState,
    State,
    Superblocks,
    sync_directory,
)

_WARNING_SHARE = 16  # the early-warning zone is this part of the capacity,
_WARNING_LIMIT = 1 << 30  # but not more than this


class Cartridge:
    """An open cartridge, held by this process alone until `close`."""

    def __init__(self, directory: Path, superblocks: Superblocks) -> None:
        self.directory = directory
        self._superblocks = superblocks
        self.partitions: list[Partition] = []
        self.memory = CartridgeMemory.open(directory)
        self._open = True

    @property
    def identity(self) -> uuid.UUID:
        """What tells this cartridge from every other."""
        return uuid.UUID(bytes=self._superblocks.state.cartridge)

    @property
    def capacity(self) -> int:
        """Native bytes that the whole medium takes, headers and trailers counted."""
        return self._superblocks.state.capacity

    @property
    def usable(self) -> int:
        """The native bytes of them that partitions may have (SET CAPACITY)."""
        return self._superblocks.state.usable

    @property
    def write_protected(self) -> bool:
        """Return whether the write-protect switch is on."""
        return self._superblocks.state.write_protected

    @property
    def worm(self) -> bool:
        """Return whether what is written stays: new objects come behind the end of data only."""
        return self._superblocks.state.worm

    @property
    def change_reference(self) -> int:
        """A number that is never 0, and another one after each change of what is on the tape."""
        changes = sum(partition.unsynced[0] > 0 for partition in self.partitions)
        return (self._superblocks.state.sequence + changes) % 0xFFFFFFFF + 1

    def protect(self, on: bool) -> None:
        """Move the write-protect switch. Raises OSError."""
        self._superblocks.publish(replace(self._superblocks.state, write_protected=on))

    def format(self, capacities: Sequence[int], *, usable: int | None = None) -> None:
        """Make the tape empty, with partitions of these capacities; host attributes go too.

        `usable` sets how much of the medium partitions may have from now on. A crash at any moment
        leaves the old partitions with all their data or the new ones with none. Raises ValueError
        for capacities that do not fit, OSError.
        """
        state = self._superblocks.state
        usable = state.usable if usable is None else usable
        if not 1 <= len(capacities) <= MAX_PARTITIONS or min(capacities) <= 0:
            raise ValueError(f"{len(capacities)} partitions")
        if sum(capacities) > usable or usable > state.capacity:
            raise ValueError(f"partitions of {sum(capacities)} bytes on a medium of {usable}")
        generation = 1 + max(partition.generation for partition in self.partitions)
        # 1. Logs for partitions that there were none of; nothing refers to them yet.
        for number in range(len(self.partitions), len(capacities)):
            RecordLog.create(self._path(number, "log"), number, state.cartridge)
        sync_directory(self.directory)
        # 2. From here on all partitions are the new ones: no old record is of their generation.
        new = replace(
            state,
            usable=usable,
            limits=tuple(_limits(capacity) for capacity in capacities),
            partitions=(PartitionState(generation=generation),) * len(capacities),
        )
        for partition in self.partitions:
            partition.close()
        count, self.partitions = len(self.partitions), []
        try:
            self._superblocks.publish(new)
            # 3. The old records go.
            for number in range(count):
                for kind in ("log", "idx"):
                    path = self._path(number, kind)
                    if number >= len(capacities):
                        path.unlink(missing_ok=True)
                    elif path.exists():
                        os.truncate(path, LOG_START if kind == "log" else 0)
            self.memory.attributes.clear()
            self.memory.save()
        finally:
            self._open_partitions()

    def _path(self, number: int, kind: str) -> Path:
        return self.directory / f"part{number}.{kind}"

    def sync(self) -> None:
        """Sync every partition. Raises WriteFailed."""
        for partition in self.partitions:
            partition.sync()

    def close(self) -> None:
        """Sync and let go; the files are released also if the sync fails, which is raised."""
        try:
            self.sync()
            for partition in self.partitions if self._open else ():
                partition.give_back()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Let go without a sync: what a crash would do, and what is left after a failure."""
        if self._open:
            self._open = False
            for partition in self.partitions:
                partition.close()
            self._superblocks.close()

    def _open_partitions(self) -> None:
        state = self._superblocks.state
        for number, (partition, limits) in enumerate(
            zip(state.partitions, state.limits, strict=True)
        ):
            with ExitStack() as undo:
                log = RecordLog.open(self._path(number, "log"), number, state.cartridge)
                undo.callback(log.close)
                index = BlockIndex.open(self._path(number, "idx"))
                undo.callback(index.close)
                publish = self._publisher(number)
                self.partitions.append(Partition(log, index, partition, limits, publish))
                undo.pop_all()

    def _publisher(self, number: int) -> Callable[[PartitionState], None]:
        def publish(partition: PartitionState) -> None:
            state = self._superblocks.state
            partitions = list(state.partitions)
            partitions[number] = partition
            self._superblocks.publish(replace(state, partitions=tuple(partitions)))

        return publish


def open_cartridge(
    directory: str | os.PathLike[str],
    capacity: int | None = None,
    *,
    early_warning: int | None = None,
    worm: bool = False,
) -> Cartridge:
    """Open the cartridge in a directory; with a `capacity`, make it first if it is missing.

    `capacity` counts native bytes (payload, and 72 bytes for each block or filemark);
    `early_warning` says from which of them on early warning is given, and has a default of at
    most 1 GiB before the end; a `worm` one can be written once. Raises CartridgeError in words for
    people: no cartridge there, in use by another process, another capacity than the one asked for,
    damage.
    """
    path = Path(directory)
    try:
        if not Superblocks.exist(path):
            if capacity is None:
                raise CartridgeError(f"{path}: no cartridge there")
            _create(path, capacity, early_warning, worm)
        superblocks = Superblocks.open(path)
        cartridge = Cartridge(path, superblocks)
        try:
            if capacity not in (None, cartridge.capacity):
                raise CartridgeError(
                    f"{path}: holds {cartridge.capacity} bytes, not {capacity} as asked for"
                )
            cartridge._open_partitions()
        except BaseException:
            cartridge.abandon()
            raise
    except OSError as error:
        raise CartridgeError(f"{path}: {error.strerror}") from error
    return cartridge


def _limits(capacity: int) -> Limits:
    return Limits(capacity, capacity - min(capacity // _WARNING_SHARE, _WARNING_LIMIT))


def _create(directory: Path, capacity: int, early_warning: int | None, worm: bool) -> None:
    if capacity <= 0:
        raise CartridgeError(f"{directory}: a capacity of {capacity} bytes")
    limits = _limits(capacity) if early_warning is None else Limits(capacity, early_warning)
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "part0.log"
    if log.exists() and log.stat().st_size > LOG_START:
        raise CartridgeError(
            f"{directory}: {log.name} holds records, but both superblocks are gone"
        )
    identity = uuid.uuid4().bytes
    # The superblocks come last: without them there is no cartridge, and this can be done again.
    RecordLog.create(log, 0, identity)
    BlockIndex.open(directory / "part0.idx").close()
    Superblocks.create(directory, State(identity, capacity, capacity, (limits,), worm=worm))
    sync_directory(directory.parent)
