"""WRITE, WRITE FILEMARKS and ERASE of a tape (SSC-4 5.2, 5.5 to 5.8, 6.2, 6.11, 6.12)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from serverfree.scsi.cdb.stream import (
    Erase6,
    Erase16,
    Write6,
    Write16,
    WriteFilemarks6,
    WriteFilemarks16,
)
from serverfree.scsi.device import Buffer
from serverfree.scsi.errors import CheckCondition, invalid_field_in_cdb
from serverfree.scsi.sense import Asc, SenseKey
from serverfree.scsi.tape_mode import PROTECTION_LENGTH
from serverfree.scsi.tape_protection import protection_information
from serverfree.target.backstore.cartridge_coding import Place, compressed
from serverfree.target.backstore.cartridge_errors import NoRoom, WriteFailed
from serverfree.target.backstore.cartridge_log import StoredBlock
from serverfree.target.units.command import Command, Nexus
from serverfree.target.units.stream_medium import Medium, check_condition, medium_error, on_medium
from serverfree.target.units.stream_read import fixed_block_length

if TYPE_CHECKING:
    from serverfree.target.units.stream import StreamUnit

_MARKS_AT_A_TIME = 4096
# A WRITE(6) names no place: the same bytes come again and again.
_write6 = lru_cache(16)(Write6.unpack)


def write_length(unit: StreamUnit, cdb: bytes) -> int:
    """Bytes of data-out that a WRITE asks for."""
    write = _unpack_write(cdb)
    return write.length * (fixed_block_length(unit, write) or 1)


def _unpack_write(cdb: bytes) -> Write6 | Write16:
    return Write16.unpack(cdb) if cdb[0] == Write16.OPCODE else _write6(cdb)


@on_medium
def write(unit: StreamUnit, medium: Medium, command: Command) -> None:
    """WRITE(6) and WRITE(16)."""
    cdb = _unpack_write(command.cdb)
    length = fixed_block_length(unit, cdb) or cdb.length
    asked = cdb.length if cdb.fixed else 1
    if not cdb.length:
        return
    protection = unit.modes.protection(command.nexus)
    if protection.writes and length <= PROTECTION_LENGTH:
        raise invalid_field_in_cdb(12 if cdb.LENGTH == 16 else 2)
    if isinstance(cdb, Write16):
        medium.begin_at(cdb.partition, cdb.object)
    unit.require_writable(medium)
    data = command.data_out
    blocks: Sequence[Buffer]
    if len(data) == length and asked == 1:
        blocks = [data]
    else:
        view = memoryview(data)
        whole = min(asked, len(view) // length)
        blocks = [view[at : at + length] for at in range(0, whole * length, length)]
    _arm(unit, medium)
    counted = 1 if cdb.fixed else length  # INFORMATION is in blocks or in bytes
    if protection.writes:
        blocks = _without_protection(blocks, protection.method, asked * counted)
    stored: Sequence[Buffer | StoredBlock] = blocks
    if unit.modes.compression or unit.encryption:
        stored = _coded(unit, medium, command.nexus, blocks)
    try:
        # Without a whole block there is nothing to write, and nothing to overwrite the tape with.
        done = _append(medium, stored) if stored else 0
    except _Incomplete as stop:
        if not stop.room:
            unit.count_write_error(medium)
        raise stop.condition((asked - stop.done) * counted) from stop
    if done < asked:
        # The transport brought less than the CDB says; nothing is made up in its place.
        left = (asked - done) * counted
        raise check_condition(SenseKey.ABORTED_COMMAND, Asc.DATA_PHASE_ERROR, left)
    if not unit.modes.buffered:
        medium.partition.sync()
    _warn(unit, medium)


def _without_protection(blocks: Sequence[Buffer], method: int, residual: int) -> Sequence[Buffer]:
    """Return blocks without the CRC that they came with. None is stored if one is wrong."""
    bare = []
    for block in blocks:
        data = bytes(block[:-PROTECTION_LENGTH])
        if protection_information(method, data) != block[-PROTECTION_LENGTH:]:
            asc = Asc.LOGICAL_BLOCK_GUARD_CHECK_FAILED
            raise check_condition(SenseKey.HARDWARE_ERROR, asc, residual)
        bare.append(data)
    return bare


def _coded(
    unit: StreamUnit, medium: Medium, nexus: Nexus, blocks: Sequence[Buffer]
) -> Sequence[StoredBlock]:
    """Return blocks compressed and encrypted, as the drive is set."""
    key = unit.encryption.key_for_writing(nexus)
    identity = medium.cartridge.identity.bytes
    coded = []
    for number, block in enumerate(blocks, medium.block):
        one = compressed(block) if unit.modes.compression else StoredBlock(block, len(block))
        if key:
            one = key.sealed(one, Place(identity, medium.number, number))
        coded.append(one)
    return coded


class _Incomplete(Exception):
    """Only `done` objects could be written, for a reason that is either room or a failure."""

    def __init__(self, done: int, room: bool) -> None:
        super().__init__(done)
        self.done = done
        self.room = room

    def condition(self, residual: int) -> CheckCondition:
        """The sense, with what was not written."""
        if self.room:
            return check_condition(
                SenseKey.VOLUME_OVERFLOW,
                Asc.END_OF_PARTITION_MEDIUM_DETECTED,
                residual,
                eom=True,
            )
        return medium_error(Asc.WRITE_ERROR, residual)


def _append(medium: Medium, blocks: Sequence[Buffer | StoredBlock], marks: int = 0) -> int:
    """Write blocks at the position, or `marks` filemarks; return how many.

    What lay behind the position goes, unless not even the first block has room there.
    """
    partition = medium.partition
    first = blocks[0] if blocks else b""
    if not partition.has_room(
        medium.block, len(first.payload if isinstance(first, StoredBlock) else first)
    ):
        raise _Incomplete(0, room=True)
    partition.cut(medium.block)
    before = partition.eod
    medium.recovered = 0
    try:
        if blocks:
            partition.append(blocks)
        else:
            partition.mark(marks)
    except (NoRoom, WriteFailed) as error:
        raise _Incomplete(partition.eod - before, isinstance(error, NoRoom)) from error
    finally:
        medium.block = now = partition.eod
        _count(medium, blocks, now - before)
    return now - before


def _count(medium: Medium, blocks: Sequence[Buffer | StoredBlock], done: int) -> None:
    life = medium.life
    if not blocks:
        life.marks_written += done
        return
    life.blocks_written += done
    for block in blocks[:done]:
        if isinstance(block, StoredBlock):
            life.bytes_written += block.length
            life.stored_written += len(block.payload)
        else:
            life.bytes_written += len(block)
            life.stored_written += len(block)


def _arm(unit: StreamUnit, medium: Medium) -> None:
    """Let programmable early warning be given again if a write begins before its zone."""
    if medium.warned is not None:
        partition = medium.partition
        if partition.used_at(medium.block) < unit.programmable_early_warning(partition):
            medium.warned = None


def _warn(unit: StreamUnit, medium: Medium) -> None:
    """Raise early warning after a write that went well.

    The programmable one comes once, and first even where a write crosses both; a write that had
    something else to tell leaves it to the next (GA32-0928-06 4.8).
    """
    partition = medium.partition
    if (
        unit.modes.early_warning_size
        and medium.warned != medium.number
        and partition.used >= unit.programmable_early_warning(partition)
    ):
        medium.warned = medium.number
        asc = Asc.PROGRAMMABLE_EARLY_WARNING_DETECTED
    elif partition.used >= partition.early_warning:
        asc = Asc.END_OF_PARTITION_MEDIUM_DETECTED
    else:
        return
    raise check_condition(SenseKey.NO_SENSE, asc, 0, eom=True)


@on_medium
def write_filemarks(unit: StreamUnit, medium: Medium, command: Command) -> None:
    """WRITE FILEMARKS: with IMMED=0 a promise about everything written before, and the marks."""
    wide = command.cdb[0] == WriteFilemarks16.OPCODE
    cdb = WriteFilemarks16.unpack(command.cdb) if wide else WriteFilemarks6.unpack(command.cdb)
    if isinstance(cdb, WriteFilemarks16):
        medium.begin_at(cdb.partition, cdb.object)
    if not cdb.count:
        if not cdb.immediate:
            medium.cartridge.sync()
        return
    unit.require_writable(medium)
    _arm(unit, medium)
    left = cdb.count
    try:
        while left and not command.aborted:
            left -= _append(medium, (), min(left, _MARKS_AT_A_TIME))
    except _Incomplete as stop:
        if not stop.room:
            unit.count_write_error(medium)
        elif not cdb.immediate:
            medium.cartridge.sync()  # what is there keeps the promise
        raise stop.condition(left - stop.done) from stop
    if not cdb.immediate:
        medium.cartridge.sync()
    _warn(unit, medium)


@on_medium
def erase(unit: StreamUnit, medium: Medium, command: Command) -> None:
    """ERASE, long or short: the position becomes the end of data."""
    if command.cdb[0] == Erase16.OPCODE:
        cdb = Erase16.unpack(command.cdb)
        medium.begin_at(cdb.partition, cdb.object)
    else:
        Erase6.unpack(command.cdb)
    unit.require_writable(medium)
    medium.partition.erase(medium.block)
    medium.cartridge.sync()
