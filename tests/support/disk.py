"""A disk driven by CDBs without sockets, and stores that fail on request."""

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from serverfree.scsi.cdb.layout import Cdb
from serverfree.scsi.device import Buffer
from serverfree.scsi.sense import Sense
from serverfree.scsi.status import Status
from serverfree.target.backstore.base import BlockStore, ReadError, Stored
from serverfree.target.backstore.file import open_file_store
from serverfree.target.units.base import Unit
from serverfree.target.units.block import BlockUnit
from serverfree.target.units.command import Command, Nexus, Reply

NEXUS = Nexus("iqn.2026-11.com.example:host,i,0x400001370000", "iqn.2026-11.com.example:t,t,0x0001")
OTHER = Nexus("iqn.2026-11.com.example:other,i,0x400001370000", NEXUS.target)


@dataclass
class Host:
    """An initiator at a unit: CDBs go as iSCSI carries them, sense comes back as it travels."""

    unit: Unit
    nexus: Nexus = NEXUS

    def __call__(self, cdb: Cdb | bytes, data: Buffer = b"") -> Reply:
        """Run a command, its data-out cut to what the CDB asks for as a transport does."""
        raw = (cdb.pack() if isinstance(cdb, Cdb) else cdb).ljust(16, b"\0")
        return self.unit.execute(Command(self.nexus, raw, data))

    def good(self, cdb: Cdb | bytes, data: Buffer = b"") -> bytes:
        """Run a command that must end with GOOD; return its data."""
        reply = self(cdb, data)
        assert (reply.status, reply.sense) == (Status.GOOD, None), str(reply.sense)
        return bytes(reply.data)

    def sense(self, cdb: Cdb | bytes, data: Buffer = b"") -> Sense:
        """Run a command that must end with CHECK CONDITION and no data; return its sense."""
        reply = self(cdb, data)
        assert reply.status is Status.CHECK_CONDITION
        assert reply.sense is not None
        assert not reply.data
        return Sense.unpack(reply.sense.pack())


def make_disk(
    path: Path,
    size: int = 1 << 20,
    *,
    block_size: int = 512,
    thin: bool = False,
    readonly: bool = False,
) -> BlockUnit:
    """A disk over a file, which is made where it is missing."""
    if readonly and not path.exists():
        path.write_bytes(bytes(size))
    store = open_file_store(path, None if readonly else size, thin=thin, readonly=readonly)
    return BlockUnit("disk", store, block_size=block_size, target="iqn.2026-11.com.example:t")


def failure(code: int) -> OSError:
    """The error that the operating system raises with this errno."""
    return OSError(code, os.strerror(code))


@dataclass
class FaultyStore:
    """A store over another whose operations fail while they have an error in `faults`."""

    store: BlockStore
    faults: dict[str, OSError] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.size, self.readonly = self.store.size, self.store.readonly
        self.can_discard, self.granularity = self.store.can_discard, self.store.granularity
        self.slow = self.store.slow

    def _may_fail(self, operation: str) -> None:
        self.calls.append(operation)
        if operation in self.faults:
            raise self.faults[operation]

    def view(self, offset: int, length: int) -> Buffer:
        """See BlockStore."""
        self._may_fail("view")
        return self.store.view(offset, length)

    def pread(self, offset: int, length: int) -> bytes:
        """See BlockStore."""
        self._may_fail("pread")
        return self.store.pread(offset, length)

    def write(self, offset: int, data: Buffer) -> None:
        """See BlockStore."""
        self._may_fail("write")
        self.store.write(offset, data)

    def take(self, offset: int, data: Stored) -> None:
        """See BlockStore."""
        self._may_fail("take")
        self.store.take(offset, data)

    def shared(self, offset: int, length: int) -> AbstractContextManager[tuple[int, int] | None]:
        """See BlockStore."""
        self._may_fail("shared")
        return self.store.shared(offset, length)

    def flush(self) -> None:
        """See BlockStore."""
        self._may_fail("flush")
        self.store.flush()

    def discard(self, offset: int, length: int) -> None:
        """See BlockStore."""
        self._may_fail("discard")
        self.store.discard(offset, length)

    def zero(self, offset: int, length: int) -> None:
        """See BlockStore."""
        self._may_fail("zero")
        self.store.zero(offset, length)

    def prefetch(self, offset: int, length: int) -> None:
        """See BlockStore."""
        self._may_fail("prefetch")
        self.store.prefetch(offset, length)

    def evict(self, offset: int, length: int) -> None:
        """See BlockStore."""
        self._may_fail("evict")
        self.store.evict(offset, length)

    def extents(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """See BlockStore."""
        self._may_fail("extents")
        return self.store.extents(offset, length)

    def grow(self) -> bool:
        """See BlockStore."""
        return self.store.grow()

    def give_up_map(self) -> None:
        """See BlockStore."""
        self._may_fail("give_up_map")
        self.store.give_up_map()

    def close(self) -> None:
        """See BlockStore."""
        self._may_fail("close")
        self.store.close()


UNREADABLE = ReadError(errno.EIO, os.strerror(errno.EIO))
