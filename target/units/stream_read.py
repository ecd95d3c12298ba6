"""READ, READ REVERSE, VERIFY and RECOVER BUFFERED DATA of a tape (SSC-4 5.3, 6.4 to 6.6, 7.6).

What comes back with CHECK CONDITION is as exact as the data: an initiator takes its position and
its byte counts from INFORMATION, ILI, FILEMARK and EOM.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from serverfree.scsi.cdb.stream import (
    Read6,
    Read16,
    ReadReverse6,
    ReadReverse16,
    RecoverBufferedData,
    Verify6,
    Verify16,
    Write6,
    Write16,
)
from serverfree.scsi.device import Buffer
from serverfree.scsi.errors import CheckCondition, invalid_field_in_cdb
from serverfree.scsi.sense import Asc, SenseKey
from serverfree.scsi.status import Status
from serverfree.scsi.tape_protection import protection_information
from serverfree.target.backstore.cartridge_errors import DamagedRecord
from serverfree.target.backstore.cartridge_index import Entry
from serverfree.target.backstore.cartridge_log import RecordType
from serverfree.target.units.command import Command, Reply
from serverfree.target.units.stream_medium import (
    Medium,
    beginning_of_partition,
    check_condition,
    filemark_detected,
    medium_error,
    on_medium,
)

if TYPE_CHECKING:
    from serverfree.target.units.stream import StreamUnit

# More than any initiator asks for at once, little enough to be held for each of many commands, and
# done soon enough not to keep a connection.
MAX_FIXED_TRANSFER = 32 << 20
MAX_FIXED_BLOCKS = 1 << 16

# A READ(6) names no place: the same bytes come again and again.
_read6 = lru_cache(16)(Read6.unpack)
_FILEMARK = int(RecordType.FILEMARK)

Take = Callable[[int], Buffer]  # the next block, given what is left to do for INFORMATION


def fixed_block_length(
    unit: StreamUnit,
    cdb: Read6
    | Read16
    | ReadReverse6
    | ReadReverse16
    | RecoverBufferedData
    | Write6
    | Write16
    | Verify6
    | Verify16,
) -> int:
    """Return the block length that FIXED=1 refers to, 0 for FIXED=0; refuse what cannot be."""
    if not cdb.fixed:
        return 0
    length = unit.modes.block_length
    if not length:
        raise invalid_field_in_cdb(1, 0)
    if cdb.length > MAX_FIXED_BLOCKS or cdb.length * length > MAX_FIXED_TRANSFER:
        raise invalid_field_in_cdb(2 if cdb.LENGTH == 6 else 12)
    return length


@on_medium
def read(unit: StreamUnit, medium: Medium, command: Command) -> Reply | Buffer | None:
    """READ(6) and READ(16)."""
    wide = command.cdb[0] == Read16.OPCODE
    cdb = Read16.unpack(command.cdb) if wide else _read6(command.cdb)
    block_length = _check(unit, cdb)
    if isinstance(cdb, Read16):
        medium.begin_at(cdb.partition, cdb.object)
    goes_on = medium.block == medium.read_up_to
    outcome = _read(unit, cdb, block_length, lambda left: _forward(unit, medium, command, left))
    medium.read_up_to = medium.block
    if not goes_on:
        return outcome
    reply = outcome if isinstance(outcome, Reply) else Reply(outcome or b"")
    reply.after = partial(_read_ahead, unit, medium)
    return reply


def _read_ahead(unit: StreamUnit, medium: Medium) -> None:
    """Have the next block ready while the host takes the last one."""
    # Whoever holds the lock does something that was asked for.
    if unit.lock.acquire(blocking=False):
        try:
            if unit.medium is medium:
                medium.partition.read_ahead(medium.block)
        finally:
            unit.lock.release()


@on_medium
def read_reverse(unit: StreamUnit, medium: Medium, command: Command) -> Reply | Buffer | None:
    """READ REVERSE(6) and (16)."""
    wide = command.cdb[0] == ReadReverse16.OPCODE
    cdb = ReadReverse16.unpack(command.cdb) if wide else ReadReverse6.unpack(command.cdb)
    block_length = _check(unit, cdb)
    if isinstance(cdb, ReadReverse16):
        medium.begin_at(cdb.partition, cdb.object)
    in_order = cdb.byte_order

    def take(left: int) -> Buffer:
        data = _backward(unit, medium, command, left)
        return data if in_order else bytes(data)[::-1]

    return _read(unit, cdb, block_length, take)


@on_medium
def recover_buffered_data(
    unit: StreamUnit, medium: Medium, command: Command
) -> Reply | Buffer | None:
    """RECOVER BUFFERED DATA: what was taken for the medium and is not sure to be on it.

    Blocks come in the order they were written in (first in, first out). What is there beyond them
    is told as SSC has it and Fujitsu's M2488 does (Product Guide CG00000-011503, 4-3.21.2 and .4):
    NO SENSE, INFORMATION as of READ; END-OF-DATA DETECTED with EOM is SSC's, the guide names none.
    """
    cdb = RecoverBufferedData.unpack(command.cdb)
    block_length = _check(unit, cdb)
    partition = medium.partition

    def take(left: int) -> Buffer:
        # Only a failed sync leaves anything in the buffer: else a later one will put it on tape.
        objects = partition.unsynced[0] if partition.failed else 0
        if medium.recovered >= objects:
            raise check_condition(SenseKey.NO_SENSE, Asc.END_OF_DATA_DETECTED, left, eom=True)
        block = partition.eod - objects + medium.recovered
        medium.recovered += 1
        entry = partition.entry(block)
        if entry.type == _FILEMARK:
            raise filemark_detected(left)
        data = _block(unit, medium, command, block, entry, left)
        protection = unit.modes.protection(command.nexus)
        if not protection.recovers:
            return data
        return bytes(data) + protection_information(protection.method, data)

    return _read(unit, cdb, block_length, take)


_Read = Read6 | Read16 | ReadReverse6 | ReadReverse16 | RecoverBufferedData


def _check(unit: StreamUnit, cdb: _Read) -> int:
    if cdb.fixed and cdb.suppress_incorrect_length:
        raise invalid_field_in_cdb(1, 1)
    return fixed_block_length(unit, cdb)


def _read(unit: StreamUnit, cdb: _Read, block_length: int, take: Take) -> Reply | Buffer | None:
    if not cdb.length:
        return None
    if cdb.fixed:
        return _fixed(take, cdb.length, block_length)
    silent = cdb.suppress_incorrect_length
    return _variable(take, cdb.length, silent, silent and not unit.modes.block_length)


def _variable(take: Take, length: int, shorter_is_fine: bool, longer_is_fine: bool) -> Outcome:
    """Read one block of whatever length; where it is not `length`, ILI and the difference."""
    data = take(length)
    actual = len(data)
    if actual == length:
        return data
    if shorter_is_fine if actual < length else longer_is_fine:
        return data[:length]
    # Negative, in two's complement, where the block was longer and its rest is skipped.
    return _with_data(data[:length], _incorrect_length(length - actual))


def _fixed(take: Take, count: int, length: int) -> Outcome:
    """Read `count` blocks of one length; a condition ends it with the good blocks before it."""
    blocks: list[Buffer] = []
    try:
        while len(blocks) < count:
            residual = count - len(blocks)
            data = take(residual)
            if len(data) != length:
                raise _incorrect_length(residual)
            blocks.append(data)
    except CheckCondition as condition:
        return _with_data(b"".join(blocks), condition)
    return blocks[0] if count == 1 else b"".join(blocks)


Outcome = Reply | Buffer


def _forward(unit: StreamUnit, medium: Medium, command: Command, residual: int) -> Buffer:
    """Return the block that the heads stand before and pass it, or raise what is there instead."""
    partition = medium.partition
    block = medium.block
    if block >= partition.eod:
        raise medium.end_of_data(residual)
    medium.block = block + 1
    entry = partition.entry(block)
    if entry.type == _FILEMARK:
        raise filemark_detected(residual)
    return _protected(unit, command, _passed(unit, medium, command, block, entry, residual))


def _passed(
    unit: StreamUnit, medium: Medium, command: Command, block: int, entry: Entry, residual: int
) -> Buffer:
    """Return the block that the heads have just passed; some drives stay where they cannot read."""
    try:
        return _block(unit, medium, command, block, entry, residual)
    except CheckCondition:
        if unit.profile.stays_at_damage:
            medium.block = block
        raise


def _backward(unit: StreamUnit, medium: Medium, command: Command, residual: int) -> Buffer:
    """The same towards the beginning."""
    block = medium.block - 1
    if block < 0:
        raise beginning_of_partition(residual)
    medium.block = block
    entry = medium.partition.entry(block)
    if entry.type == _FILEMARK:
        raise filemark_detected(residual)
    return _protected(unit, command, _block(unit, medium, command, block, entry, residual))


def _block(
    unit: StreamUnit, medium: Medium, command: Command, block: int, entry: Entry, residual: int
) -> Buffer:
    """Return a block decoded.

    One that cannot be read is MEDIUM ERROR 11/00 with the heads behind it, as on HP's drives, so
    that a reader gets at the next (IBM's stay before it, GA32-0928-06 table 16). It is so too for
    blocks that travel with protection information: the medium's check has failed, not theirs,
    which IBM's drives keep on the medium and call HARDWARE ERROR 10/01 (4.9.5).
    """
    life = medium.life
    try:
        stored = medium.partition.read_entry(block, entry)
        data: Buffer = stored.payload
        if stored.coding or unit.encryption:
            data = unit.encryption.decoded(stored, medium, block, command.nexus)
    except DamagedRecord as error:
        unit.count_read_error(medium)
        raise medium_error(Asc.UNRECOVERED_READ_ERROR, residual) from error
    life.blocks_read += 1
    life.bytes_read += len(data)
    life.stored_read += len(stored.payload)
    return data


def _protected(unit: StreamUnit, command: Command, data: Buffer) -> Buffer:
    """Return a block as the nexus wants to have it."""
    protection = unit.modes.protection(command.nexus)
    if not protection.reads:
        return data
    return bytes(data) + protection_information(protection.method, data)


def _incorrect_length(residual: int) -> CheckCondition:
    return check_condition(
        SenseKey.NO_SENSE, Asc.NO_ADDITIONAL_SENSE_INFORMATION, residual, ili=True
    )


def _with_data(data: Buffer, condition: CheckCondition) -> Reply:
    return Reply(data, Status.CHECK_CONDITION, condition.sense)


# VERIFY


def verify_length(unit: StreamUnit, cdb: bytes) -> int:
    """Bytes of data-out that a VERIFY asks for: none, unless they are to be compared."""
    verify = _unpack_verify(cdb)
    if not verify.compare:
        return 0
    return verify.length * (fixed_block_length(unit, verify) or 1)


def _unpack_verify(cdb: bytes) -> Verify6 | Verify16:
    return Verify16.unpack(cdb) if cdb[0] == Verify16.OPCODE else Verify6.unpack(cdb)


@on_medium
def verify(unit: StreamUnit, medium: Medium, command: Command) -> Reply | None:
    """VERIFY(6) and (16): every bit is read and, decoded, held to what was written.

    So it is with and without VLBPM, which asks that the method of page 0Ah/F0h be used for it: a
    record's own CRC covers the bytes that the method's would be computed from. Without a method
    there is nothing that it could mean.
    """
    cdb = _unpack_verify(command.cdb)
    if cdb.protected and not unit.modes.protection(command.nexus).method:
        raise invalid_field_in_cdb(1, 4)
    if cdb.to_end_of_data and (cdb.by_filemarks or cdb.compare):
        raise invalid_field_in_cdb(1, 5)
    if cdb.compare and cdb.by_filemarks:
        raise invalid_field_in_cdb(1, 3)
    if cdb.compare and cdb.immediate:
        raise invalid_field_in_cdb(1, 2)
    counted = not (cdb.to_end_of_data or cdb.by_filemarks)
    block_length = fixed_block_length(unit, cdb) if counted else 0
    if isinstance(cdb, Verify16):
        medium.begin_at(cdb.partition, cdb.object)
    if cdb.to_end_of_data:
        _verify_objects(unit, medium, command, marks=None)
        return None
    if not cdb.length:
        return None
    if cdb.by_filemarks:
        left = _verify_objects(unit, medium, command, marks=cdb.length)
        if left:
            raise medium.end_of_data(left)
        return None
    if cdb.compare:
        _compare(unit, medium, command, cdb.length, block_length)
        return None
    take: Take = lambda left: _forward(unit, medium, command, left)  # noqa: E731
    if cdb.fixed:
        outcome = _fixed(take, cdb.length, block_length)
    else:
        outcome = _variable(take, cdb.length, False, False)
    return Reply(status=outcome.status, sense=outcome.sense) if type(outcome) is Reply else None


def _verify_objects(unit: StreamUnit, medium: Medium, command: Command, marks: int | None) -> int:
    """Read up to the end of data, or behind so many filemarks; return how many were missing."""
    partition = medium.partition
    while not medium.at_eod and not command.aborted and marks != 0:
        block = medium.block
        medium.block += 1
        entry = partition.entry(block)
        if entry.type != _FILEMARK:
            _passed(unit, medium, command, block, entry, marks or 0)
        elif marks:
            marks -= 1
    return marks or 0


def _compare(
    unit: StreamUnit, medium: Medium, command: Command, length: int, block_length: int
) -> None:
    expected = memoryview(command.data_out)
    size = block_length or length
    count = length if block_length else 1
    if len(expected) < size * count:
        raise check_condition(SenseKey.ABORTED_COMMAND, Asc.DATA_PHASE_ERROR, length)
    for done in range(count):
        left = count - done if block_length else length
        data = _forward(unit, medium, command, left)
        if len(data) != size:
            raise _incorrect_length(left if block_length else length - len(data))
        if data != expected[done * size : (done + 1) * size]:
            asc = Asc.MISCOMPARE_DURING_VERIFY_OPERATION
            raise check_condition(SenseKey.MISCOMPARE, asc, left)
