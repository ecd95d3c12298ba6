"""Where a segment reads and writes: runs of blocks on a disk, of transfers on a tape.

A run is cut into commands that each move whole blocks. Whatever a unit answers to one ends here,
as data moved or as COPY ABORTED (SPC-4 5.17.7.4).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from struct import Struct
from typing import ClassVar

from serverfree.datamover.errors import CopyAborted
from serverfree.datamover.units import Aborted, CopyUnit, Issued, Role
from serverfree.scsi.cdb import block, stream
from serverfree.scsi.device import Buffer, Result
from serverfree.scsi.sense import Asc, SenseKey
from serverfree.scsi.status import Status

PIECE = 1 << 20  # bytes in one disk command
DISK_WINDOW = 4 * PIECE  # bytes of disk commands under way in one direction
DISK_DEPTH = 128  # and how many they are at most
_SMALL = 32 << 10  # commands of less travel together

# The hottest CDBs of a copy: `block.Read16(lba=..., blocks=...).pack()` takes ten times as long.
_CDB_16 = Struct(">BxQIxx")
_READ_16, _WRITE_16 = int(block.Read16.OPCODE), int(block.Write16.OPCODE)
TAPE_DEPTH = 4  # commands under way at a tape that stands still where one fails; else one
_NACA = 0x04


@dataclass(frozen=True, slots=True)
class Disk:
    """A block device as copy source or destination. `transfer_blocks` is the most per command."""

    unit: CopyUnit
    block_length: int
    blocks: int
    transfer_blocks: int
    pad: bool

    def run(self, lba: int, blocks: int) -> "DiskRun":
        """Return the run of blocks that starts at an LBA."""
        return DiskRun(self, lba, blocks)

    def range(self, lba: int, byte_offset: int, count: int) -> "DiskRun":
        """Return the run of blocks that hold `count` bytes from an offset in a block on."""
        if not count:
            return DiskRun(self, lba, 0)
        blocks = -(-(byte_offset + count) // self.block_length)
        tail = blocks * self.block_length - byte_offset - count
        return DiskRun(self, lba, blocks, byte_offset, tail)

    def read_cdb(self, lba: int, blocks: int) -> bytes:
        """Return the command that reads blocks."""
        return _CDB_16.pack(_READ_16, lba, blocks)

    def write_cdb(self, lba: int, blocks: int) -> bytes:
        """Return the command that writes blocks."""
        return _CDB_16.pack(_WRITE_16, lba, blocks)

    def holds(self, run: "DiskRun") -> bool:
        """Whether all these blocks exist."""
        return run.lba + run.blocks <= self.blocks


@dataclass(frozen=True, slots=True)
class Tape:
    """A sequential-access device as copy source or destination (implicit address mode).

    `block_length` is 0 for variable-length blocks, else that of FIXED commands. With `naca` a
    command that fails stops those behind it (SAM-5 5.9): without, a second one under way could move
    the tape on from where the first one failed.
    """

    unit: CopyUnit
    block_length: int
    pad: bool
    naca: bool = False

    def transfer_bytes(self, transfer_length: int) -> int:
        """Return how many bytes a command of this transfer length moves (SPC-4 table 138)."""
        return transfer_length * (self.block_length or 1)

    def run(self, transfer_length: int, transfers: int) -> "TapeRun":
        """Return the run of this many commands from the current position on."""
        return TapeRun(self, transfer_length, transfers)

    def write_filemarks(self, count: int, immediate: bool) -> None:
        """WRITE FILEMARKS. Raises CopyAborted."""
        self.unit.command(
            Role.DESTINATION, stream.WriteFilemarks6(immediate=immediate, count=count).pack()
        )

    def space(self, code: int, count: int) -> None:
        """SPACE, with the CODE and COUNT of the segment. Raises CopyAborted."""
        self.unit.command(Role.DESTINATION, stream.Space6(code, count).pack())

    def locate(self, identifier: int) -> None:
        """LOCATE a logical object of the current partition. Raises CopyAborted."""
        self.unit.command(Role.DESTINATION, stream.Locate10(block=identifier).pack())


@dataclass(slots=True)
class DiskRun:
    """Consecutive blocks of a disk.

    Of the first `skip` bytes are not meant, of the last `tail`: they are neither source data nor
    written with anything but what they hold.
    """

    endpoint: Disk
    lba: int
    blocks: int
    skip: int = 0
    tail: int = 0
    unit: CopyUnit = field(init=False)
    length: int = field(init=False)  # bytes, all of it
    piece: int = field(init=False)  # bytes in one command

    depth: ClassVar[int] = DISK_DEPTH
    in_order: ClassVar[bool] = False

    def __post_init__(self) -> None:
        endpoint = self.endpoint
        self.unit = endpoint.unit
        self.length = self.blocks * endpoint.block_length
        self.piece = endpoint.transfer_blocks * endpoint.block_length

    @property
    def begin(self) -> int:
        """The first byte that is meant, counted from the start of the disk."""
        return self.lba * self.endpoint.block_length + self.skip

    @property
    def end(self) -> int:
        """The byte behind the last one that is meant."""
        return self.lba * self.endpoint.block_length + self.length - self.tail

    def read(self, offset: int, buffer: memoryview) -> Issued:
        """Read what lies `offset` bytes into the run."""
        length = self.endpoint.block_length
        cdb = self.endpoint.read_cdb(self.lba + offset // length, len(buffer) // length)
        send = self.unit.enqueue if len(buffer) < _SMALL else self.unit.issue
        return send(cdb, data_in=buffer)

    def write(self, offset: int, buffers: Sequence[Buffer], size: int) -> Issued:
        """Write `size` bytes to where they belong, `offset` bytes into the run."""
        length = self.endpoint.block_length
        cdb = self.endpoint.write_cdb(self.lba + offset // length, size // length)
        send = self.unit.enqueue if size < _SMALL else self.unit.issue
        return send(cdb, data_out=buffers)

    def edges(self, offset: int, size: int) -> tuple[int, int]:
        """Return how many bytes at either end of this piece of the run are not meant."""
        return (
            0 if offset else self.skip,
            self.tail if offset + size == self.length else 0,
        )

    def residual(self, size: int) -> int:
        """Return bytes not written as INFORMATION counts them: in blocks."""
        return size // self.endpoint.block_length

    def written(self, result: Result, size: int) -> int:
        """Return how much a command that did not end well has written: of a disk, unknown."""
        return 0

    def failed(self, result: Result | None) -> None:
        """A command has not ended well: a disk has no position to keep."""

    def meets(self, other: "DiskRun | TapeRun | None") -> bool:
        """Whether both touch a block of the same unit."""
        return (
            other is not None
            and other.unit.attached is self.unit.attached
            and isinstance(other, DiskRun)
            and self.lba < other.lba + other.blocks
            and other.lba < self.lba + self.blocks
        )


@lru_cache(maxsize=64)
def _tape_cdb(writes: bool, fixed: bool, length: int, naca: bool) -> bytes:
    kind = stream.Write6 if writes else stream.Read6
    *cdb, _ = kind(fixed=fixed, length=length).pack()
    return bytes((*cdb, _NACA if naca else 0))


@dataclass(slots=True)
class TapeRun:
    """Consecutive transfers of one length at a tape's position; a command for each."""

    endpoint: Tape
    transfer_length: int
    transfers: int
    unit: CopyUnit = field(init=False)
    length: int = field(init=False)  # bytes, all of it
    piece: int = field(init=False)  # bytes in one command

    in_order: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.unit = self.endpoint.unit
        self.piece = self.endpoint.transfer_bytes(self.transfer_length)
        self.length = self.transfers * self.piece

    def read(self, offset: int, buffer: memoryview) -> Issued:
        """Read the next transfer. SILI is zero (6.4.5.4): a block of another length is an error."""
        cdb = self._cdb(writes=False)
        return self.unit.issue(cdb, data_in=buffer)

    def write(self, offset: int, buffers: Sequence[Buffer], size: int) -> Issued:
        """Write the next transfer."""
        cdb = self._cdb(writes=True)
        return self.unit.issue(cdb, data_out=buffers)

    @property
    def depth(self) -> int:
        """How many commands may be under way: one until one has ended well.

        What a unit is too busy for, or keeps for others, establishes no ACA, and could only be sent
        again if nothing is behind it.
        """
        return TAPE_DEPTH if self.endpoint.naca and self.unit.steady else 1

    def _cdb(self, *, writes: bool) -> bytes:
        endpoint = self.endpoint
        return _tape_cdb(writes, bool(endpoint.block_length), self.transfer_length, endpoint.naca)

    def failed(self, result: Result | None) -> None:
        """A command has not ended well, and nobody waits for another: let the drive go on."""
        if self.endpoint.naca and result is not None and result.status is Status.CHECK_CONDITION:
            self.unit.clear_allegiance()

    def edges(self, offset: int, size: int) -> tuple[int, int]:
        """Transfers are meant whole."""
        return 0, 0

    def residual(self, size: int) -> int:
        """Return bytes not written as INFORMATION counts them: in bytes, or blocks if FIXED."""
        return size // (self.endpoint.block_length or 1)

    def written(self, result: Result, size: int) -> int:
        """Return how much of a command with CHECK CONDITION and EOM is on the tape.

        Early warning comes with all of it written, the end of the medium with a residual in the
        drive's own INFORMATION; a drive that gives none is taken to have written nothing.
        """
        sense = result.sense
        if sense is None or not sense.eom:
            return 0
        if sense.information is not None:
            left = sense.information * (self.endpoint.block_length or 1)
            return max(0, min(size, size - left))
        return size if sense.key in (SenseKey.NO_SENSE, SenseKey.RECOVERED_ERROR) else 0

    def meets(self, other: "DiskRun | TapeRun | None") -> bool:
        """Whether both move the same tape."""
        return other is not None and other.unit.attached is self.unit.attached


Run = DiskRun | TapeRun


@dataclass(frozen=True, slots=True)
class Edges:
    """What stays as it is in the first and in the last block that a segment writes."""

    first: memoryview
    last: memoryview

    def around(self, views: list[memoryview], front: int, back: int) -> list[memoryview]:
        """Return the views of a piece with what belongs in front of them and behind."""
        if front:
            views.insert(0, self.first)
        if back:
            views.append(self.last)
        return views


NO_EDGES = Edges(memoryview(b""), memoryview(b""))


def check_read(run: Run, result: Result | None, size: int, role: Role = Role.SOURCE) -> None:
    """Raise CopyAborted unless a read has brought all that it was to bring."""
    unit = run.unit
    if result is None or result.status is not Status.GOOD:
        run.failed(result)
        raise unit.failure(role, result)
    if result.transferred < size:
        raise CopyAborted(Asc.COPY_TARGET_DEVICE_DATA_UNDERRUN, unit.pointer)
    if result.transferred > size:
        raise CopyAborted(Asc.COPY_TARGET_DEVICE_DATA_OVERRUN, unit.pointer)
    unit.steady = True


def finish_write(
    run: Run, issued: Issued, size: int, *, alone: bool = True
) -> tuple[int, CopyAborted | None]:
    """Wait for a write; return what it has written, and the failure if it was one.

    `alone` is whether no other command is under way behind it, so that it may be sent again: a tape
    that was too busy for this one may not have been for those. Raises Aborted.
    """
    result = issued.wait(again=alone or not run.in_order)
    if result is not None and result.status is Status.GOOD:
        run.unit.steady = True
        return size, None
    run.failed(result)
    failure = run.unit.failure(Role.DESTINATION, result)
    return (0 if result is None else run.written(result, size)), failure


def read_now(run: DiskRun, offset: int, into: memoryview, role: Role) -> None:
    """Read whole blocks of a run and wait for them. Raises CopyAborted, Aborted."""
    for at in range(0, len(into), run.piece):
        view = into[at : at + run.piece]
        issued = run.read(offset + at, view)
        with _settled(run, issued):
            check_read(run, issued.wait(), len(view), role)


def write_now(
    run: DiskRun, offset: int, buffers: Sequence[Buffer], size: int
) -> tuple[int, CopyAborted | None]:
    """Write whole blocks of a run, by one command, and wait for it as `finish_write` does."""
    issued = run.write(offset, buffers, size)
    with _settled(run, issued):
        return finish_write(run, issued, size)


@contextmanager
def _settled(run: DiskRun, issued: Issued) -> Iterator[None]:
    """Where the copy ends meanwhile, have the command end first: its buffers are in use."""
    try:
        yield
    except Aborted:
        issued.settle(run.unit.give_up)
        raise
