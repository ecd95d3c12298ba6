"""Blocks of one disk straight to another: both lie in this process, so no data need come here.

A unit of this process can read without moving what it reads, and another one take it from where
it is stored. Both obey the commands that a copy sends to any disk, READ(16) and WRITE(16), with all
that those may be refused for. What fails in between is done again through memory, where each unit
says for itself what is wrong: so a copy ends in the same way whichever way it went.
"""

from collections.abc import Callable
from functools import cache
from typing import Protocol, runtime_checkable

from serverfree.datamover.buffers import ByteQueue, Slabs
from serverfree.datamover.endpoints import Disk, DiskRun, finish_read, finish_write
from serverfree.datamover.errors import CopyAborted
from serverfree.datamover.steps import Progress, Step
from serverfree.datamover.units import Aborted, CopyUnit, Issued, Role
from serverfree.scsi.device import Result
from serverfree.scsi.status import Status

DIRECT = 32 << 10
"""Bytes of a segment for which it pays: many small ones are read together."""


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


def may_go_directly(source: Disk, destination: Disk) -> bool:
    """Whether blocks of one disk can go straight to the other."""
    return _lends(type(source.unit.attached)) and _takes(type(destination.unit.attached))


def goes_directly(step: Step, source_data: ByteQueue, destination_data: ByteQueue) -> bool:
    """Whether a step moves whole blocks between two units of this process, and nothing else.

    The two queues hold what segments before it have left over.
    """
    source, destination = step.source, step.destination
    return (
        isinstance(source, DiskRun)
        and isinstance(destination, DiskRun)
        and source.length >= DIRECT
        and source.length == destination.length == step.move.processed
        and not (source.skip or destination.skip or step.read)
        and not (source_data.length or destination_data.length or step.holds)
        and may_go_directly(source.endpoint, destination.endpoint)
        and not source.meets(destination)
    )


def copy_directly(step: Step, slabs: Slabs, progress: Progress, check: Callable[[], None]) -> None:
    """Do all of a step that `goes_directly`, no write being under way.

    `check` raises Aborted where the copy is to end. Raises CopyAborted, Aborted.
    """
    source, destination = step.source, step.destination
    assert isinstance(source, DiskRun)
    assert isinstance(destination, DiskRun)
    step.read = step.to_read
    block = max(source.endpoint.block_length, destination.endpoint.block_length)
    piece = max(block, min(source.piece, destination.piece) // block * block)
    for offset in range(0, source.length, piece):
        check()
        size = min(piece, source.length - offset)
        try:
            if not _hand_over(source, destination, offset, size):
                _copy_through_memory(source, destination, offset, size, slabs)
        except CopyAborted as error:
            raise error.in_segment(step.number, step.residual) from None
        step.written += size
        progress.bytes_written += size


def _hand_over(source: DiskRun, destination: DiskRun, offset: int, size: int) -> bool:
    lender, taker = source.unit.attached, destination.unit.attached
    assert isinstance(lender, Lender)
    assert isinstance(taker, Taker)
    result, lent = lender.lend(source.endpoint.read_cdb(*_place(source, offset, size)))
    if not _went_well(source.unit, Role.SOURCE, result) or lent is None:
        return False
    write = destination.endpoint.write_cdb(*_place(destination, offset, size))
    result, taken = taker.take(write, lent)
    return _went_well(destination.unit, Role.DESTINATION, result) and taken


def _place(run: DiskRun, offset: int, size: int) -> tuple[int, int]:
    length = run.endpoint.block_length
    return run.lba + offset // length, size // length


def _went_well(unit: CopyUnit, role: Role, result: Result) -> bool:
    """Whether a command ended well. Raises what the unit would not say a second time."""
    if result.status is Status.GOOD:
        unit.activity.commands += 1
        return True
    if not unit.may_tell_more(result):
        raise unit.failure(role, result)
    return False


def _copy_through_memory(
    source: DiskRun, destination: DiskRun, offset: int, size: int, slabs: Slabs
) -> None:
    chunk = slabs.carve(size, force=True)
    assert chunk is not None
    try:
        issued = source.read(offset, chunk[0])
        _end(source, issued, lambda: finish_read(source, issued, size))
        written = destination.write(offset, [chunk[0]], size)
        _end(destination, written, lambda: _finish_write(destination, written, size))
    finally:
        slabs.release([chunk])


def _end(run: DiskRun, issued: Issued, finish: Callable[[], None]) -> None:
    try:
        finish()
    except Aborted:
        issued.settle(run.unit.give_up)  # the buffer must not change hands before
        raise


def _finish_write(run: DiskRun, issued: Issued, size: int) -> None:
    failure = finish_write(run, issued, size)[1]
    if failure is not None:
        raise failure
