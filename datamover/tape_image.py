"""Tape image copy: what lies on a tape, block by block and mark by mark, onto another.

SPC-4 6.4.6.16. One command at a time, at both drives: wherever the copy ends, the source stands
behind the last thing read and the destination has everything before it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from serverfree.datamover.buffers import Slabs
from serverfree.datamover.endpoints import PIECE, Tape
from serverfree.datamover.errors import CopyAborted
from serverfree.datamover.units import CopyUnit, Role
from serverfree.scsi.cdb import stream
from serverfree.scsi.device import Result
from serverfree.scsi.sense import Asc, SenseKey
from serverfree.scsi.status import Status
from serverfree.scsi.tape import BlockLimits


@dataclass(slots=True)
class _Met:
    """What a read has met: data of `size` bytes, and behind it a filemark, the end or neither."""

    size: int
    filemark: bool = False
    end: bool = False


def copy_tape_image(
    source: Tape,
    destination: Tape,
    filemarks: int,
    most: int,
    slabs: Slabs,
    check: Callable[[], None],
    moved: Callable[[memoryview], None],
) -> None:
    """Copy until `filemarks` consecutive filemarks are copied (0: however many), or to the end.

    Blocks of more than `most` bytes are not read. `check` raises where the copy is to end; `moved`
    gets to see what has been written. Raises CopyAborted; the residue is never calculated.
    """
    size = _read_size(source, most)
    chunk = slabs.carve(size, force=True)
    assert chunk is not None
    buffer = chunk[0]
    consecutive = 0
    try:
        while True:
            check()
            met = _read(source, buffer)
            if met.size:
                consecutive = 0
                _write(source, destination, buffer[: met.size])
                moved(buffer[: met.size])
            if met.filemark:
                destination.write_filemarks(1, immediate=False)
                consecutive += 1
            if met.end or (filemarks and consecutive == filemarks):
                return
    finally:
        slabs.release([chunk])


def _read_size(source: Tape, most: int) -> int:
    """Return the bytes of one READ: the longest block there can be, or some of fixed length."""
    if source.block_length:
        return max(1, PIECE // source.block_length) * source.block_length
    limits = memoryview(bytearray(BlockLimits.size()))
    result = source.unit.command(Role.SOURCE, stream.ReadBlockLimits().pack(), data_in=limits)
    if result.transferred < len(limits):
        raise CopyAborted(Asc.COPY_TARGET_DEVICE_DATA_UNDERRUN, source.unit.pointer)
    return min(BlockLimits.unpack(limits).maximum or most, most)


def _read(source: Tape, buffer: memoryview) -> _Met:
    length = source.block_length
    cdb = stream.Read6(fixed=bool(length), length=len(buffer) // (length or 1)).pack()
    unit = source.unit
    result = unit.ask(cdb, data_in=buffer)
    if result is not None and result.status is Status.GOOD:
        if result.transferred < len(buffer):
            raise CopyAborted(Asc.COPY_TARGET_DEVICE_DATA_UNDERRUN, unit.pointer)
        return _Met(len(buffer))
    met = None if result is None else _exception(result, len(buffer), fixed=bool(length))
    if met is None:
        raise unit.failure(Role.SOURCE, result)
    return met


def _exception(result: Result, size: int, *, fixed: bool) -> _Met | None:
    """Return what a CHECK CONDITION says there is on the tape, None where it is a failure."""
    sense = result.sense
    if sense is None:
        return None
    before = result.transferred if fixed else 0
    if sense.filemark:
        return _Met(before, filemark=True)
    if sense.key is SenseKey.BLANK_CHECK or sense.eom:
        return _Met(before, end=True)
    shorter = 0 if sense.information is None else sense.information
    # SILI is zero in a copy (6.4.5.4), so a short block speaks up; INFORMATION is by how much.
    short = sense.ili and not fixed and sense.key is SenseKey.NO_SENSE and shorter > 0
    return _Met(result.transferred) if short and result.transferred == size - shorter else None


def _write(source: Tape, destination: Tape, data: memoryview) -> None:
    """Write what one read brought: blocks as long as they were."""
    length = destination.block_length
    if length:
        if source.block_length not in (0, length) or len(data) % length:
            # The image would have blocks of another length.
            raise CopyAborted(Asc.UNEXPECTED_INEXACT_SEGMENT)
        _write_one(destination.unit, data, len(data) // length, fixed=True)
        return
    step = source.block_length or len(data)
    for at in range(0, len(data), step):
        _write_one(destination.unit, data[at : at + step], step, fixed=False)


def _write_one(unit: CopyUnit, data: memoryview, length: int, *, fixed: bool) -> None:
    unit.command(Role.DESTINATION, stream.Write6(fixed=fixed, length=length).pack(), data_out=data)
