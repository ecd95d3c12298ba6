"""READ, VERIFY, WRITE, WRITE FILEMARKS and ERASE of a tape (SSC-4 5.3 to 5.8, 6.2).

What comes back with CHECK CONDITION is as exact as the data: an initiator takes its position and
its byte counts from INFORMATION, ILI, FILEMARK and EOM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from serverfree.scsi.cdb.stream import Read6, Verify6, Write6, WriteFilemarks6
from serverfree.scsi.device import Buffer
from serverfree.scsi.errors import CheckCondition, invalid_field_in_cdb
from serverfree.scsi.sense import Asc, SenseKey
from serverfree.scsi.status import Status
from serverfree.target.backstore.cartridge_errors import DamagedRecord, NoRoom, WriteFailed
from serverfree.target.backstore.cartridge_log import RecordType
from serverfree.target.units.command import Command, Reply
from serverfree.target.units.stream_medium import Medium, check_condition, medium_error, on_medium

if TYPE_CHECKING:
    from serverfree.target.units.stream import StreamUnit

# More than any initiator asks for at once, little enough to be held for each of many commands, and
# done soon enough not to keep a connection.
MAX_FIXED_TRANSFER = 32 << 20
MAX_FIXED_BLOCKS = 1 << 16
_MARKS_AT_A_TIME = 4096


def _block_length(unit: StreamUnit, cdb: Read6 | Write6 | Verify6) -> int:
    """Return the block length that FIXED=1 refers to, 0 for FIXED=0; refuse what cannot be."""
    if not cdb.fixed:
        return 0
    length = unit.modes.block_length
    if not length:
        raise invalid_field_in_cdb(1, 0)
    if cdb.length > MAX_FIXED_BLOCKS or cdb.length * length > MAX_FIXED_TRANSFER:
        raise invalid_field_in_cdb(2)
    return length


# Reading


@on_medium
def read(unit: StreamUnit, medium: Medium, command: Command) -> Reply | Buffer | None:
    """READ(6)."""
    cdb = Read6.unpack(command.cdb)
    if cdb.fixed and cdb.suppress_incorrect_length:
        raise invalid_field_in_cdb(1, 1)
    block_length = _block_length(unit, cdb)
    if not cdb.length:
        return None
    if cdb.fixed:
        return _read_fixed(medium, cdb.length, block_length)
    silent = cdb.suppress_incorrect_length
    return _read_variable(medium, cdb.length, silent, silent and not unit.modes.block_length)


@on_medium
def verify(unit: StreamUnit, medium: Medium, command: Command) -> Reply | None:
    """VERIFY(6): a READ(6) whose data goes nowhere."""
    cdb = Verify6.unpack(command.cdb)
    block_length = _block_length(unit, cdb)
    if not cdb.length:
        return None
    if cdb.fixed:
        outcome = _read_fixed(medium, cdb.length, block_length)
    else:
        outcome = _read_variable(medium, cdb.length, False, False)
    return Reply(status=outcome.status, sense=outcome.sense) if type(outcome) is Reply else None


def _read_variable(
    medium: Medium, length: int, shorter_is_fine: bool, longer_is_fine: bool
) -> Reply | Buffer:
    """Read one block of whatever length; where it is not `length`, ILI and the difference."""
    data = _next_block(medium, length)
    actual = len(data)
    if actual == length:
        return data
    if shorter_is_fine if actual < length else longer_is_fine:
        return data[:length]
    # Negative, in two's complement, where the block was longer and its rest is skipped.
    return _with_data(data[:length], _incorrect_length(length - actual))


def _read_fixed(medium: Medium, count: int, length: int) -> Reply | Buffer:
    """Read `count` blocks of one length; a condition ends it with the good blocks before it."""
    blocks: list[memoryview] = []
    try:
        while len(blocks) < count:
            residual = count - len(blocks)
            data = _next_block(medium, residual)
            if len(data) != length:
                raise _incorrect_length(residual)
            blocks.append(data)
    except CheckCondition as condition:
        return _with_data(b"".join(blocks), condition)
    return blocks[0] if count == 1 else b"".join(blocks)


def _next_block(medium: Medium, residual: int) -> memoryview:
    """Return the block that the heads stand before and pass it, or raise what is there instead."""
    partition = medium.partition
    if medium.at_eod:
        raise medium.end_of_data(residual)
    entry = partition.entry(medium.block)
    medium.block += 1
    if entry.type == RecordType.FILEMARK:
        raise check_condition(SenseKey.NO_SENSE, Asc.FILEMARK_DETECTED, residual, filemark=True)
    try:
        return partition.read_entry(medium.block - 1, entry)
    except DamagedRecord as error:
        raise medium_error(Asc.UNRECOVERED_READ_ERROR, residual) from error


def _incorrect_length(residual: int) -> CheckCondition:
    return check_condition(
        SenseKey.NO_SENSE, Asc.NO_ADDITIONAL_SENSE_INFORMATION, residual, ili=True
    )


def _with_data(data: Buffer, condition: CheckCondition) -> Reply:
    return Reply(data, Status.CHECK_CONDITION, condition.sense)


# Writing


def write_length(unit: StreamUnit, cdb: bytes) -> int:
    """Bytes of data-out that a WRITE(6) asks for."""
    write = Write6.unpack(cdb)
    return write.length * (_block_length(unit, write) or 1)


@on_medium
def write(unit: StreamUnit, medium: Medium, command: Command) -> None:
    """WRITE(6)."""
    cdb = Write6.unpack(command.cdb)
    length = _block_length(unit, cdb) or cdb.length
    asked = cdb.length if cdb.fixed else 1
    if not cdb.length:
        return
    unit.require_writable(medium)
    data = command.data_out
    if len(data) == length and asked == 1:
        blocks = [data]
    else:
        view = memoryview(data)
        whole = min(asked, len(view) // length)
        blocks = [view[at : at + length] for at in range(0, whole * length, length)]
    begin = medium.partition.used_at(medium.block)
    counted = 1 if cdb.fixed else length  # INFORMATION is in blocks or in bytes
    try:
        # Without a whole block there is nothing to write, and nothing to overwrite the tape with.
        done = _append(medium, blocks, length) if blocks else 0
    except _Incomplete as stop:
        raise stop.condition((asked - stop.done) * counted) from stop
    if done < asked:
        # The transport brought less than the CDB says; nothing is made up in its place.
        left = (asked - done) * counted
        raise check_condition(SenseKey.ABORTED_COMMAND, Asc.DATA_PHASE_ERROR, left)
    if not unit.modes.buffered:
        medium.partition.sync()
    _warn(unit, medium, begin)


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


def _append(medium: Medium, blocks: list[Buffer], length: int) -> int:
    """Write blocks at the position, or filemarks for empty ones; return how many.

    What lay behind the position goes, unless not even the first block has room there.
    """
    partition = medium.partition
    if not partition.has_room(medium.block, length):
        raise _Incomplete(0, room=True)
    partition.cut(medium.block)
    before = partition.eod
    try:
        if length:
            partition.append(blocks)
        else:
            partition.mark(len(blocks))
    except (NoRoom, WriteFailed) as error:
        raise _Incomplete(partition.eod - before, isinstance(error, NoRoom)) from error
    finally:
        medium.block = partition.eod
    return partition.eod - before


def _warn(unit: StreamUnit, medium: Medium, begin: int) -> None:
    """Raise early warning after a write that went well from `begin` on."""
    partition = medium.partition
    if medium.in_early_warning:
        asc = Asc.END_OF_PARTITION_MEDIUM_DETECTED
    elif begin < unit.programmable_early_warning(partition) <= partition.used:
        asc = Asc.PROGRAMMABLE_EARLY_WARNING_DETECTED
    else:
        return
    raise check_condition(SenseKey.NO_SENSE, asc, 0, eom=True)


@on_medium
def write_filemarks(unit: StreamUnit, medium: Medium, command: Command) -> None:
    """WRITE FILEMARKS(6): with IMMED=0 a promise about everything written before, and the marks."""
    cdb = WriteFilemarks6.unpack(command.cdb)
    if not cdb.count:
        if not cdb.immediate:
            medium.cartridge.sync()
        return
    unit.require_writable(medium)
    begin = medium.partition.used_at(medium.block)
    left = cdb.count
    try:
        while left and not command.aborted:
            left -= _append(medium, [b""] * min(left, _MARKS_AT_A_TIME), 0)
    except _Incomplete as stop:
        if stop.room and not cdb.immediate:
            medium.cartridge.sync()  # what is there keeps the promise
        raise stop.condition(left - stop.done) from stop
    if not cdb.immediate:
        medium.cartridge.sync()
    _warn(unit, medium, begin)


@on_medium
def erase(unit: StreamUnit, medium: Medium, command: Command) -> None:
    """ERASE(6), long or short: the position becomes the end of data."""
    unit.require_writable(medium)
    medium.partition.cut(medium.block)
    medium.cartridge.sync()
