"""A cartridge: a directory that keeps what a tape would.

    state.A, state.B    superblocks: identity, capacity, end of data of each partition
    part0.log           the records of partition 0 (up to `part3.log`)
    part0.idx           where they are; can be deleted

What holds after a crash at any moment: everything up to the last sync (a filemark written without
IMMED, a rewind, an unload), and behind it a prefix of what was written since, never a mixture.
"""

import os
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from serverfree.target.backstore.cartridge_errors import CartridgeError
from serverfree.target.backstore.cartridge_index import BlockIndex
from serverfree.target.backstore.cartridge_log import LOG_START, RecordLog
from serverfree.target.backstore.cartridge_partition import Limits, Partition
from serverfree.target.backstore.cartridge_state import (
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
        self._open = True

    @property
    def identity(self) -> uuid.UUID:
        """What tells this cartridge from every other."""
        return uuid.UUID(bytes=self._superblocks.state.cartridge)

    @property
    def capacity(self) -> int:
        """Native bytes that each partition takes, headers and trailers counted."""
        return self._superblocks.state.capacity

    @property
    def write_protected(self) -> bool:
        """Return whether the write-protect switch is on."""
        return self._superblocks.state.write_protected

    def protect(self, on: bool) -> None:
        """Move the write-protect switch. Raises OSError."""
        self._superblocks.publish(replace(self._superblocks.state, write_protected=on))

    def sync(self) -> None:
        """Sync every partition. Raises WriteFailed."""
        for partition in self.partitions:
            partition.sync()

    def close(self) -> None:
        """Sync and let go; the files are released also if the sync fails, which is raised."""
        try:
            self.sync()
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
        limits = Limits(state.capacity, state.early_warning)
        for number, partition in enumerate(state.partitions):
            with ExitStack() as undo:
                log = RecordLog.open(self.directory / f"part{number}.log", number, state.cartridge)
                undo.callback(log.close)
                index = BlockIndex.open(self.directory / f"part{number}.idx")
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
) -> Cartridge:
    """Open the cartridge in a directory; with a `capacity`, make it first if it is missing.

    `capacity` counts native bytes (payload, and 72 bytes for each block or filemark);
    `early_warning` says from which of them on early warning is given, and has a default of at
    most 1 GiB before the end. Raises CartridgeError in words for people: no cartridge there, in
    use by another process, another capacity than the one asked for, damage.
    """
    path = Path(directory)
    try:
        if not Superblocks.exist(path):
            if capacity is None:
                raise CartridgeError(f"{path}: no cartridge there")
            _create(path, capacity, early_warning)
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


def _create(directory: Path, capacity: int, early_warning: int | None) -> None:
    if capacity <= 0:
        raise CartridgeError(f"{directory}: a capacity of {capacity} bytes")
    if early_warning is None:
        early_warning = capacity - min(capacity // _WARNING_SHARE, _WARNING_LIMIT)
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
    Superblocks.create(directory, State(identity, capacity, early_warning))
    sync_directory(directory.parent)
