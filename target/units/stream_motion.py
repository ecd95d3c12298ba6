"""SPACE, LOCATE, REWIND and READ POSITION of a tape (SSC-4 6.5, 7.3, 7.7, 7.9).

Whatever leaves the end of data first puts on stable storage what was written there. What SPACE did
not get done is a positive number in both directions, as on HP's, IBM's and Quantum's drives
(Exabyte's give a negative one; Linux st takes either). A partition that there is not is an invalid
field and moves nothing: SSC names no other sense, and mhvtl and scsi_debug do the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from serverfree.scsi.cdb.stream import (
    Destination,
    Locate10,
    Locate16,
    ReadPositionExtended,
    Space6,
    Space16,
    SpaceCode,
)
from serverfree.scsi.errors import invalid_field_in_cdb
from serverfree.scsi.tape import ExtendedPosition, LongPosition, ShortPosition
from serverfree.target.units.command import Command
from serverfree.target.units.stream_medium import (
    Medium,
    beginning_of_partition,
    filemark_detected,
    on_medium,
)

if TYPE_CHECKING:
    from serverfree.target.units.stream import StreamUnit

_U24, _U32 = 0xFFFFFF, 0xFFFFFFFF


@on_medium
def rewind(unit: StreamUnit, medium: Medium, command: Command) -> None:
    """REWIND."""
    medium.cartridge.sync()
    medium.block = 0


# SPACE


@on_medium
def space(unit: StreamUnit, medium: Medium, command: Command) -> None:
    """SPACE(6) and SPACE(16)."""
    wide = command.cdb[0] == Space16.OPCODE
    cdb = Space16.unpack(command.cdb) if wide else Space6.unpack(command.cdb)
    distance = cdb.distance
    move: Callable[[Medium, int], None]
    match cdb.code:
        case SpaceCode.BLOCKS:
            move = _space_blocks_forward if distance > 0 else _space_blocks_back
        case SpaceCode.FILEMARKS:
            move = _space_filemarks_forward if distance > 0 else _space_filemarks_back
        case SpaceCode.SEQUENTIAL_FILEMARKS:
            move = _space_runs_forward if distance > 0 else _space_runs_back
        case SpaceCode.END_OF_DATA:
            move = _space_to_end_of_data
        case _:
            raise invalid_field_in_cdb(1, 3)
    medium.cartridge.sync()
    move(medium, abs(distance))


def _space_to_end_of_data(medium: Medium, _: int) -> None:
    medium.block = medium.partition.eod


def _space_blocks_forward(medium: Medium, count: int) -> None:
    partition = medium.partition
    after_mark = partition.start_of_file(partition.file_at(medium.block) + 1)
    limit = partition.eod if after_mark is None else after_mark - 1
    blocks = limit - medium.block
    if count <= blocks:
        medium.block += count
    elif after_mark is None:
        medium.block = partition.eod
        raise medium.end_of_data(count - blocks)
    else:
        medium.block = after_mark
        raise filemark_detected(count - blocks)


def _space_blocks_back(medium: Medium, count: int) -> None:
    partition = medium.partition
    file = partition.file_at(medium.block)
    # A file that the block is in has a start.
    start = partition.start_of_file(file) or 0
    blocks = medium.block - start
    if count <= blocks:
        medium.block -= count
    elif file:
        medium.block = start - 1
        raise filemark_detected(count - blocks)
    else:
        medium.block = 0
        raise beginning_of_partition(count - blocks)


def _space_filemarks_forward(medium: Medium, count: int) -> None:
    partition = medium.partition
    file = partition.file_at(medium.block)
    target = partition.start_of_file(file + count)
    if target is None:
        marks = partition.file_at(partition.eod) - file
        medium.block = partition.eod
        raise medium.end_of_data(count - marks)
    medium.block = target


def _space_filemarks_back(medium: Medium, count: int) -> None:
    partition = medium.partition
    file = partition.file_at(medium.block)
    if not count:
        return
    if count > file:
        medium.block = 0
        raise beginning_of_partition(count - file)
    # The heads come to rest on the beginning's side of the last mark passed.
    after_mark = partition.start_of_file(file - count + 1)
    assert after_mark, "a mark before the position lies after the beginning"
    medium.block = after_mark - 1


def _space_runs_forward(medium: Medium, count: int) -> None:
    """Go behind the next place where `count` filemarks lie in a row (SSC-4 6.10).

    Where there is none, those that lie just before the end are done (GA32-0928-06 table 16).
    """
    eod = medium.partition.eod
    done = 0
    for run in _runs(medium, 1):
        if len(run) >= count:
            medium.block = run[count - 1] + 1
            return
        done = len(run) if run[-1] == eod - 1 else 0
    medium.block = eod
    raise medium.end_of_data(count - done)


def _space_runs_back(medium: Medium, count: int) -> None:
    """Go before the last such place."""
    if not count:
        return
    done = 0
    for run in _runs(medium, -1):
        if len(run) >= count:
            medium.block = run[count - 1]
            return
        done = len(run) if run[-1] == 0 else 0
    medium.block = 0
    raise beginning_of_partition(count - done)


def _runs(medium: Medium, step: int) -> Iterator[range]:
    """Yield the marks from the position on that lie side by side, each run from its near end."""
    partition = medium.partition
    number = partition.file_at(medium.block) + (step > 0)
    run = range(0)
    while number > 0 and (start := partition.start_of_file(number)) is not None:
        mark = start - 1
        if run and mark == run[-1] + step:
            run = range(run[0], mark + step, step)
        else:
            if run:
                yield run
            run = range(mark, mark + step, step)
        number += step
    if run:
        yield run


# LOCATE


@on_medium
def locate10(unit: StreamUnit, medium: Medium, command: Command) -> None:
    """LOCATE(10). Addresses of the vendor's own form (BT=1) are logical object identifiers too."""
    cdb = Locate10.unpack(command.cdb)
    if cdb.change_partition and cdb.partition >= len(medium.cartridge.partitions):
        raise invalid_field_in_cdb(8)
    medium.locate(cdb.partition if cdb.change_partition else None, cdb.block)


@on_medium
def locate16(unit: StreamUnit, medium: Medium, command: Command) -> None:
    """LOCATE(16)."""
    cdb = Locate16.unpack(command.cdb)
    if cdb.destination not in list(Destination):
        raise invalid_field_in_cdb(1, 4)
    if cdb.change_partition and cdb.partition >= len(medium.cartridge.partitions):
        raise invalid_field_in_cdb(3)
    number = cdb.partition if cdb.change_partition else medium.number
    partition = medium.cartridge.partitions[number]
    match cdb.destination:
        case Destination.LOGICAL_FILE:
            target = partition.start_of_file(cdb.identifier)
        case Destination.END_OF_DATA:
            target = partition.eod
        case _:
            target = cdb.identifier
    medium.locate(number, target)


# READ POSITION


@on_medium
def read_position_short(unit: StreamUnit, medium: Medium, command: Command) -> bytes:
    """READ POSITION, short form."""
    first, last, objects, size = _buffer(medium)
    return ShortPosition(
        beginning_of_partition=not medium.block,
        end_of_partition=medium.in_early_warning,
        overflow=first > _U32,
        programmable_early_warning=_in_programmable_zone(unit, medium),
        partition=medium.number,
        first=first if first <= _U32 else 0,
        last=last if first <= _U32 else 0,
        object_count_unknown=objects > _U24,
        byte_count_unknown=size > _U32,
        buffered_objects=objects if objects <= _U24 else 0,
        buffered_bytes=size if size <= _U32 else 0,
    ).pack()


@on_medium
def read_position_long(unit: StreamUnit, medium: Medium, command: Command) -> bytes:
    """READ POSITION, long form."""
    return LongPosition(
        beginning_of_partition=not medium.block,
        end_of_partition=medium.in_early_warning,
        programmable_early_warning=_in_programmable_zone(unit, medium),
        partition=medium.number,
        block=medium.block,
        file=medium.partition.file_at(medium.block),
    ).pack()


@on_medium
def read_position_extended(unit: StreamUnit, medium: Medium, command: Command) -> bytes:
    """READ POSITION, extended form."""
    first, last, objects, size = _buffer(medium)
    return ExtendedPosition(
        beginning_of_partition=not medium.block,
        end_of_partition=medium.in_early_warning,
        programmable_early_warning=_in_programmable_zone(unit, medium),
        partition=medium.number,
        object_count_unknown=objects > _U24,
        buffered_objects=objects if objects <= _U24 else 0,
        first=first,
        last=last,
        buffered_bytes=size,
    ).pack()[: ReadPositionExtended.unpack(command.cdb).allocation_length]


def _buffer(medium: Medium) -> tuple[int, int, int, int]:
    """First and last object location, objects and bytes in the buffer.

    The page cache is the drive's object buffer: what is in it is not yet sure to last.
    """
    if not medium.at_eod:
        return medium.block, medium.block, 0, 0
    objects, size = medium.partition.unsynced
    return medium.block, medium.block - objects, objects, size


def _in_programmable_zone(unit: StreamUnit, medium: Medium) -> bool:
    partition = medium.partition
    return unit.modes.early_warning_size > 0 and partition.used_at(
        medium.block
    ) >= unit.programmable_early_warning(partition)
