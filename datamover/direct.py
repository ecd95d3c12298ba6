"""Whole blocks from one disk to another where both lie in this process: no data need come here.

A unit of this process can read without moving what it reads, and another one take it from where
it is stored. Both obey the commands that a copy sends to any disk, READ(16) and WRITE(16), with all
that those may be refused for. What fails in between is done again through memory, where each unit
says for itself what is wrong: so a copy ends in the same way whichever way it went.
"""

from collections.abc import Callable
from functools import cache
from typing import Protocol, runtime_checkable

from serverfree.datamover.buffers import Slabs
from serverfree.datamover.endpoints import DiskRun, read_now, write_now
from serverfree.datamover.errors import CopyAborted
from serverfree.datamover.steps import Extents, Progress, Step
from serverfree.datamover.units import Aborted, CopyUnit, Role
from serverfree.scsi.device import Result
from serverfree.scsi.sense import Asc
from serverfree.scsi.status import Status

_LEAST = 32 << 10  # bytes of an extent for which it pays: many short ones are read together


@runtime_checkable
class Lender(Protocol):
    """A unit that can read without moving what it reads."""

    def lend(self, cdb: bytes) -> tuple[Result, object]:
        """Run a READ; return how it ended, and what a `Taker` can take.

        None is to be read through memory, though the command may have ended well.
        """


@runtime_checkable
class Taker(Protocol):
    """A unit that can write what another one has lent."""

    def take(self, cdb: bytes, lent: object) -> tuple[Result, bool]:
        """Run a WRITE; return how it ended, and whether it has written.

        Where it has not though it ended well, the data is for the caller to read and write.
        """


@cache
def _lends(kind: type) -> bool:
    return issubclass(kind, Lender)


@cache
def _takes(kind: type) -> bool:
    return issubclass(kind, Taker)


def goes_directly(extents: Extents) -> bool:
    """Whether these blocks can go straight from the one unit to the other, and had better."""
    return (
        _lends(type(extents.source.unit.attached))
        and _takes(type(extents.destination.unit.attached))
        and sum(blocks for _, _, blocks in extents.extents) * extents.source.block_length
        >= _LEAST * len(extents.extents)
    )


def all_of(step: Step) -> Extents | None:
    """Return what a step that has not begun does, if it moves whole blocks that go directly.

    Nothing that segments before it have left over must be there.
    """
    source, destination = step.source, step.destination
    if (
        isinstance(source, DiskRun)
        and isinstance(destination, DiskRun)
        and source.length == destination.length == step.move.processed
        and not (source.skip or destination.skip or step.read or step.holds)
        and not source.meets(destination)
    ):
        extent = source.lba, destination.lba, source.blocks
        extents = Extents(source.endpoint, destination.endpoint, step.number, [extent])
        return extents if goes_directly(extents) else None
    return None


class DirectCopy:
    """Copies `Extents` that can go directly, in their order; done when `run` returns.

    The number of blocks of an extent is that of the source's, whatever the destination's are.
    Where they are not `counted` in the segment, an error says nothing of how many are left.
    """

    def __init__(
        self,
        extents: Extents,
        slabs: Slabs,
        progress: Progress,
        aborted: Callable[[], bool],
        *,
        counted: bool = True,
    ) -> None:
        self._first, self._extents = extents.first, extents.extents
        self._source, self._destination = extents.source, extents.destination
        lender, taker = extents.source.unit.attached, extents.destination.unit.attached
        assert isinstance(lender, Lender)
        assert isinstance(taker, Taker)
        self._lender, self._taker = lender, taker
        self._slabs = slabs
        self._progress = progress
        self._aborted = aborted
        self._counted = counted
        # Bytes of a block on either side, and of all blocks that one command may move.
        self._from, self._to = extents.source.block_length, extents.destination.block_length
        disks = extents.source, extents.destination
        most = min(disk.transfer_blocks * disk.block_length for disk in disks)
        self._most = max(self._from, self._to, most - most % max(self._from, self._to))

    def run(self) -> None:
        """Copy them all. Raises CopyAborted."""
        at = 0
        while at < len(self._extents):
            count, size = self._adjacent(at)
            if count == 1 or not self._copy_together(at, count, size):
                for index in range(at, at + count):
                    self._copy(index)
            at += count

    def _adjacent(self, first: int) -> tuple[int, int]:
        """Return how many extents from here on one command could copy, and how many bytes."""
        source, destination, blocks = self._extents[first]
        source, destination = source * self._from, destination * self._to
        size = blocks * self._from
        count = 1
        for index in range(first + 1, len(self._extents)):
            source_lba, destination_lba, blocks = self._extents[index]
            if (
                source_lba * self._from != source + size
                or destination_lba * self._to != destination + size
                or size + blocks * self._from > self._most
            ):
                break
            size += blocks * self._from
            count += 1
        return count, size

    def _copy_together(self, first: int, count: int, size: int) -> bool:
        """Return whether that was done: only by itself can an extent fail in its own segment."""
        source, destination, _ = self._extents[first]
        self._progress.segments_processed = self._first + first + 1
        try:
            if self._aborted() or not self._hand_over(source, destination, size):
                return False
        except CopyAborted as failure:
            raise failure.in_segment(self._first + first) from None
        self._progress.segments_processed = self._first + first + count
        self._progress.bytes_written += size
        return True

    def _copy(self, index: int) -> None:
        source, destination, blocks = self._extents[index]
        self._progress.segments_processed = self._first + index + 1
        length = blocks * self._from
        done = 0
        try:
            while done < length:
                if self._aborted():
                    raise CopyAborted(Asc.COMMANDS_CLEARED_BY_DEVICE_SERVER)
                size = min(self._most, length - done)
                places = source + done // self._from, destination + done // self._to
                if not self._hand_over(*places, size):
                    self._copy_through_memory(*places, size)
                done += size
                self._progress.bytes_written += size
        except Aborted:
            failure = CopyAborted(Asc.COMMANDS_CLEARED_BY_DEVICE_SERVER)
        except CopyAborted as error:
            failure = error
        else:
            return
        residual = (length - done) // self._to if done and self._counted else None
        raise failure.in_segment(self._first + index, residual)

    def _hand_over(self, source: int, destination: int, size: int) -> bool:
        read = self._source.read_cdb(source, size // self._from)
        result, lent = self._lender.lend(read)
        if not _went_well(self._source.unit, Role.SOURCE, result) or lent is None:
            return False
        write = self._destination.write_cdb(destination, size // self._to)
        result, taken = self._taker.take(write, lent)
        if not _went_well(self._destination.unit, Role.DESTINATION, result) or not taken:
            return False
        for unit in (self._source.unit, self._destination.unit):
            unit.activity.commands += 1
        return True

    def _copy_through_memory(self, source: int, destination: int, size: int) -> None:
        read = self._source.run(source, size // self._from)
        write = self._destination.run(destination, size // self._to)
        chunk = self._slabs.carve(size, force=True)
        assert chunk is not None
        try:
            read_now(read, 0, chunk[0], Role.SOURCE)
            _, failure = write_now(write, 0, [chunk[0]], size)
            if failure is not None:
                raise failure
        finally:
            self._slabs.release([chunk])


def _went_well(unit: CopyUnit, role: Role, result: Result) -> bool:
    """Whether a command ended well. Raises what the unit would not say a second time."""
    if result.status is Status.GOOD:
        return True
    if not unit.may_tell_more(result):
        raise unit.failure(role, result)
    return False
