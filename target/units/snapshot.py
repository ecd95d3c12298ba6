"""A snapshot as a logical unit: a disk that may only be read, and that knows whether it is."""

import time
from collections.abc import Callable
from threading import Lock

from serverfree.scsi.designator import Designator
from serverfree.scsi.opcodes import OperationCode
from serverfree.target.backstore.base import BlockStore
from serverfree.target.units.block import BlockUnit
from serverfree.target.units.command import Command, Nexus, Reply
from serverfree.target.units.local_fabric import COPIES
from serverfree.target.units.permission import EVERYTHING, Permission

RECENTLY = 5.0
"""Seconds after its last read in which a snapshot counts as being read.

A copy manager that reaches it over the network holds nothing open here, and between two of its
reads it may have to wait for a tape."""

# What wants the data, not only to know what is there.
_READS = frozenset(
    {
        OperationCode.READ_6,
        OperationCode.READ_10,
        OperationCode.READ_12,
        OperationCode.READ_16,
        OperationCode.VERIFY_10,
        OperationCode.VERIFY_12,
        OperationCode.VERIFY_16,
        OperationCode.VARIABLE_LENGTH,
        OperationCode.EXTENDED_COPY,
    }
)


class SnapshotUnit(BlockUnit):
    """A read-only disk over the store of a snapshot of the unit named `origin`.

    `identity` tells it from every other snapshot there was: a later one of the same name is another
    unit, with another designator, and no host takes the one for the other.
    """

    kind = "snapshot"
    product = "SNAPSHOT"

    def __init__(
        self,
        name: str,
        store: BlockStore,
        *,
        designator: Designator,
        origin: str,
        block_size: int,
        physical_size: int = 0,
        long_cdbs: bool = False,
        target: str = "",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            name,
            store,
            block_size=block_size,
            physical_size=physical_size,
            long_cdbs=long_cdbs,
            target=target,
        )
        self.designator = designator
        self.serial = designator.identifier.hex().upper()
        self.snapshot_of = origin
        self._now = now
        self._lock = Lock()
        self._running = 0
        self._last_read: float | None = None
        self._copies: set[Nexus] = set()

    def execute(self, command: Command) -> Reply:
        """Run a command, and remember that and when the data was wanted."""
        if command.cdb[0] not in _READS:
            return super().execute(command)
        with self._lock:
            self._running += 1
        try:
            return super().execute(command)
        finally:
            with self._lock:
                self._running -= 1
                self._last_read = self._now()

    def attach(self, nexus: Nexus, permission: Permission = EVERYTHING) -> None:
        """A nexus has come up; one of a copy of this process holds the snapshot until it ends."""
        if nexus.initiator.startswith(COPIES):
            self._copies.add(nexus)
        super().attach(nexus, permission)

    def detach(self, nexus: Nexus) -> None:
        """A nexus is lost."""
        self._copies.discard(nexus)
        super().detach(nexus)

    def use(self) -> str | None:
        """Say who would miss the snapshot now, None if nobody is known to.

        Known are: reads under way, copies of this process that have it open, whoever has reserved
        it, and whoever read it within RECENTLY, which is how a copy manager elsewhere is noticed.
        """
        with self._lock:
            running, last = self._running, self._last_read
        if running:
            return f"{running} commands are reading it"
        if self._copies:
            return "a copy has it open"
        if self.reservations.restricts:
            return "it is reserved"
        if last is not None and (age := self._now() - last) < RECENTLY:
            return f"it was read {age:.1f} seconds ago"
        return None
