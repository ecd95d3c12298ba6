"""The disk commands that happen wholly or not at all: COMPARE AND WRITE, ORWRITE, WRITE ATOMIC."""

from collections.abc import Callable
from itertools import count

from serverfree.scsi.cdb.block_atomic import (
    BitmapOperation,
    CompareAndWrite,
    OrWrite16,
    OrWrite32,
    WriteAtomic16,
)
from serverfree.scsi.device import Buffer
from serverfree.scsi.errors import CheckCondition, invalid_field_in_cdb
from serverfree.scsi.sense import Asc, Sense, SenseKey
from serverfree.target.units.base import Row, Table, table_of
from serverfree.target.units.block_device import MAXIMUM_ATOMIC, BlockDevice
from serverfree.target.units.block_io import Range, data_out_of, offered, whole_blocks
from serverfree.target.units.block_pages import MAXIMUM_COMPARE_AND_WRITE
from serverfree.target.units.command import Command, Lane

_COMPARE = Range(CompareAndWrite)
_ATOMIC = Range(WriteAtomic16)


def _compare_and_write_extent(unit: BlockDevice, cdb: bytes) -> tuple[int, int]:
    offset, length = _COMPARE.extent(unit, cdb)
    if length > MAXIMUM_COMPARE_AND_WRITE << unit.shift:
        raise _COMPARE.wrong_number()
    unit.require_writable()
    return offset, length


def _compare_and_write_data_out(unit: BlockDevice, cdb: bytes) -> int:
    return 2 * _compare_and_write_extent(unit, cdb)[1]


def _compare_and_write(unit: BlockDevice, command: Command) -> None:
    """5.3: a first half that differs from the medium is E/1D/00, with where in INFORMATION."""
    cdb = CompareAndWrite.unpack(command.cdb)
    offset, length = _compare_and_write_extent(unit, command.cdb)
    # More data than the CDB names is as wrong as less: it would be compared with the wrong half.
    if len(command.data_out) < 2 * length or command.data_in_length > 2 * length:
        raise invalid_field_in_cdb(13)
    data = memoryview(command.data_out)
    expected, wanted = bytes(data[:length]), data[length : 2 * length]
    with unit.exclusion.alone(offset, length):
        found = unit.store.pread(offset, length)
        if found != expected:
            at = next(index for index in count() if found[index] != expected[index])
            raise CheckCondition(
                Sense(
                    SenseKey.MISCOMPARE,
                    Asc.MISCOMPARE_DURING_VERIFY_OPERATION,
                    # The byte in the Data-Out Buffer, not an LBA (5.3).
                    information=at,
                )
            )
        unit.store.write(offset, wanted)
    if cdb.fua or not unit.write_cache:
        unit.store.flush()


def _combine(
    unit: BlockDevice, offset: int, data: Buffer, function: Callable[[int, int], int]
) -> None:
    """Read, combine, write. The range is the caller's alone."""
    found = unit.store.pread(offset, len(data))
    both = function(int.from_bytes(found, "big"), int.from_bytes(data, "big"))
    unit.store.write(offset, both.to_bytes(len(data), "big"))


def _or(one: int, other: int) -> int:
    return one | other


def _and(one: int, other: int) -> int:
    return one & other


def _orwrite(layout: type[OrWrite16] | type[OrWrite32]) -> Row:
    blocks = Range(layout)

    def orwrite(unit: BlockDevice, command: Command) -> None:
        cdb = layout.unpack(command.cdb)
        offset, length = blocks.transfer(unit, command.cdb)
        unit.require_writable()
        data = whole_blocks(unit, command.data_out, length)
        generations = unit.orwrite_generations
        with unit.exclusion.alone(offset, length):
            if isinstance(cdb, OrWrite16):
                if generations.performs(0):
                    _combine(unit, offset, data, _or)
            elif cdb.bitmap_operation == BitmapOperation.SET:
                if generations.performs(cdb.expected_generation):
                    _combine(unit, offset, data, _or)
            elif cdb.bitmap_operation == BitmapOperation.CHANGE_GENERATION_AND_CLEAR:
                generations.require_policy(cdb.previous_generation_processing)
                generations.require_current(cdb.expected_generation)
                _combine(unit, offset, data, _and)
                generations.advance(cdb.new_generation, cdb.previous_generation_processing)
            else:
                raise invalid_field_in_cdb(2, 2)
        if cdb.fua or not unit.write_cache:
            unit.store.flush()

    return Row(
        f"ORWRITE({layout.LENGTH})",
        layout.USAGE,
        orwrite,
        data_out=data_out_of(blocks),
        lane=Lane.QUEUED,
        service_action=layout.SERVICE_ACTION,
        offered=offered(layout),
    )


def _write_atomic_extent(unit: BlockDevice, cdb: bytes) -> tuple[int, int]:
    if WriteAtomic16.unpack(cdb).boundary:
        # MAXIMUM ATOMIC BOUNDARY SIZE is 0: there are none inside a write (5.46).
        raise invalid_field_in_cdb(10)
    offset, length = _ATOMIC.extent(unit, cdb)
    if length > MAXIMUM_ATOMIC:
        raise _ATOMIC.wrong_number()
    unit.require_writable()
    return offset, length


def _write_atomic_data_out(unit: BlockDevice, cdb: bytes) -> int:
    return _write_atomic_extent(unit, cdb)[1]


def _write_atomic(unit: BlockDevice, command: Command) -> None:
    """5.46: readers see all of it or nothing, and so does who comes after a crash."""
    offset, length = _write_atomic_extent(unit, command.cdb)
    if len(command.data_out) < length:
        raise invalid_field_in_cdb(12)  # a part of an atomic write is not written
    data = memoryview(command.data_out)[:length]
    # Windows of the map show a write while it happens; from the first atomic write on, reads of
    # this unit are copies that keep out of its way.
    unit.reads_windows = False
    if not length:
        return
    with unit.exclusion.alone(offset, length):
        unit.write_atomically(offset, data)


def _can_write_atomically(unit: BlockDevice) -> bool:
    return unit.maximum_atomic_blocks > 0


BLOCK_ATOMIC_TABLE: Table = table_of(
    Row(
        "COMPARE AND WRITE",
        CompareAndWrite.USAGE,
        _compare_and_write,
        data_out=_compare_and_write_data_out,
        lane=Lane.QUEUED,
    ),
    _orwrite(OrWrite16),
    _orwrite(OrWrite32),
    Row(
        "WRITE ATOMIC(16)",
        WriteAtomic16.USAGE,
        _write_atomic,
        data_out=_write_atomic_data_out,
        lane=Lane.QUEUED,
        offered=_can_write_atomically,
    ),
)
