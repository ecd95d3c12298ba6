"""The disk commands that read, write and verify blocks (SBC-3 chapter 5)."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from struct import Struct

from serverfree.scsi.cdb.block import (
    BLOCKS_OF_ZERO_6,
    ByteCheck,
    PreFetch10,
    PreFetch16,
    Read6,
    Read10,
    Read12,
    Read16,
    SynchronizeCache10,
    SynchronizeCache16,
    Verify10,
    Verify12,
    Verify16,
    Write6,
    Write10,
    Write12,
    Write16,
    WriteAndVerify10,
    WriteAndVerify12,
    WriteAndVerify16,
)
from serverfree.scsi.cdb.block_long import Read32, Verify32, Write32, WriteAndVerify32
from serverfree.scsi.cdb.layout import Cdb
from serverfree.scsi.device import Buffer
from serverfree.scsi.errors import CheckCondition, illegal_request, invalid_field_in_cdb
from serverfree.scsi.opcodes import VARIABLE_LENGTH_CDB
from serverfree.scsi.sense import Asc, FieldPointer, Sense, SenseKey
from serverfree.target.backstore.base import Stored
from serverfree.target.units.access import Access
from serverfree.target.units.base import Row, table_of
from serverfree.target.units.block_device import MAXIMUM_TRANSFER, STEP, BlockDevice
from serverfree.target.units.command import Command, Handover, Lane

_CODES = {8: "B", 16: "H", 32: "I", 64: "Q"}  # of struct, by width in bits


def _fields_of_6(cdb: bytes) -> tuple[int, int]:
    return int.from_bytes(cdb[1:4], "big") & 0x1FFFFF, cdb[4] or BLOCKS_OF_ZERO_6


class Range:
    """How a command names its blocks: where LBA and number lie in its CDB, checked when read."""

    def __init__(self, layout: type[Cdb]) -> None:
        lba, blocks = layout.PLACES["lba"], layout.PLACES["blocks"]
        self._lba_pointer = FieldPointer(lba.byte, lba.bit, in_cdb=True)
        self._blocks_pointer = FieldPointer(blocks.byte, blocks.bit, in_cdb=True)
        # Several times as fast as `unpack` where both fill their bytes, as in all but 6-byte CDBs.
        self._fields: Callable[[bytes], tuple[int, int]]
        if layout.LENGTH == 6:
            self._fields = _fields_of_6
        else:
            gap = blocks.byte - lba.byte - lba.width // 8
            codes = f">{lba.byte}x{_CODES[lba.width]}{gap}x{_CODES[blocks.width]}"
            self._fields = Struct(codes).unpack_from

    def extent(self, unit: BlockDevice, cdb: bytes) -> tuple[int, int]:
        """Return offset and length in bytes, anywhere on the medium."""
        lba, blocks = self._fields(cdb)
        return unit.extent(lba, blocks, self._lba_pointer)

    def transfer(self, unit: BlockDevice, cdb: bytes) -> tuple[int, int]:
        """Return offset and length of a transfer; 5/24/00 if it is longer than block limits say."""
        lba, blocks = self._fields(cdb)
        extent = unit.extent(lba, blocks, self._lba_pointer)
        if extent[1] > MAXIMUM_TRANSFER:
            raise self.wrong_number()
        return extent

    def to_the_end(self, unit: BlockDevice, cdb: bytes) -> tuple[int, int]:
        """Return offset and length where 0 blocks means all from the LBA on."""
        offset, length = self.extent(unit, cdb)
        return offset, length or unit.size - offset

    def wrong_number(self) -> CheckCondition:
        """5/24/00 with a pointer at the number of blocks."""
        return illegal_request(Asc.INVALID_FIELD_IN_CDB, self._blocks_pointer)

    def one_block(self, unit: BlockDevice, command: Command) -> bytes:
        """Return the one block of data-out; 5/24/00 if another length came."""
        # A transport cuts what is sent to what the CDB takes; what was announced tells it apart.
        if max(len(command.data_out), command.data_in_length) != unit.block_size:
            raise self.wrong_number()
        return bytes(command.data_out)


def whole_blocks(unit: BlockDevice, data: Buffer, length: int) -> Buffer:
    """Return what came of `length` bytes of data-out, cut to whole blocks.

    An initiator may say on the transport that it sends less than its CDB asks for; of a block
    that came in part nothing is written (SPC-4 leaves that open, and half a block is no block).
    """
    if len(data) == length:
        return data
    return memoryview(data)[: min(length, len(data) - len(data) % unit.block_size)]


def data_out_of(blocks: Range) -> Callable[[BlockDevice, bytes], int]:
    """Return what tells the data-out length of a write."""

    def data_out(unit: BlockDevice, cdb: bytes) -> int:
        length = blocks.transfer(unit, cdb)[1]
        unit.require_writable()
        return length

    return data_out


def offered(layout: type[Cdb]) -> Callable[[BlockDevice], bool] | None:
    """Return what tells whether a disk has the command: 32-byte CDBs it has where it is told to.

    SBC-4 has READ(32), WRITE(32), VERIFY(32), WRITE AND VERIFY(32) and WRITE SAME(32) processed
    only with type 2 protection (5.19), and hosts rely on the 16-byte ones.
    """
    return _takes_long_cdbs if layout.OPCODE == VARIABLE_LENGTH_CDB else None


def _takes_long_cdbs(unit: BlockDevice) -> bool:
    return unit.long_cdbs


def _flags_of(layout: type[Cdb]) -> tuple[int, int]:
    """Where FUA lies: its byte, and its bit as a mask, 0 for a 6-byte CDB, which has none."""
    place = layout.PLACES.get("fua")
    return (1, 0) if place is None else (place.byte, 1 << place.bit)


def _read(layout: type[Cdb]) -> Row:
    blocks = Range(layout)
    at, fua = _flags_of(layout)

    def lane(unit: BlockDevice, cdb: bytes) -> Lane:
        return Lane.QUEUED if cdb[at] & fua or unit.slow else Lane.INLINE

    def read(unit: BlockDevice, command: Command) -> Buffer:
        cdb = command.cdb
        offset, length = blocks.transfer(unit, cdb)
        unit.read_commands += 1
        unit.read_bytes += length
        if cdb[at] & fua:
            unit.store.flush()  # "from the medium": so what is newer must be there first
        if command.read_here or not unit.reads_windows:
            if isinstance(command, Handover):
                if unit.reads_windows:
                    command.stored = Stored(unit.store, offset, length, _AtOneMoment(unit))
                return b""
            return unit.read_copy(offset, length)
        return unit.store.view(offset, length)

    return Row(
        f"READ({layout.LENGTH})",
        layout.USAGE,
        read,
        lane=lane,
        service_action=layout.SERVICE_ACTION,
        offered=offered(layout),
        access=Access.READS,
    )


def _write(layout: type[Cdb]) -> Row:
    blocks = Range(layout)
    at, fua = _flags_of(layout)

    def lane(unit: BlockDevice, cdb: bytes) -> Lane:
        # It waits for the disk with FUA, or always while there is no write cache.
        if cdb[at] & fua or not unit.write_cache or unit.slow:
            return Lane.QUEUED
        return Lane.INLINE

    def write(unit: BlockDevice, command: Command) -> None:
        cdb = command.cdb
        offset, length = blocks.transfer(unit, cdb)
        unit.require_writable()
        unit.write_commands += 1
        unit.write_bytes += length
        data = command.data_out
        if len(data) == length:
            unit.exclusion.change(offset, length, unit.store.write, data)
        elif isinstance(command, Handover):
            _take(unit, command, offset, length)
        else:
            data = whole_blocks(unit, data, length)
            unit.exclusion.change(offset, length, unit.store.write, data)
        if cdb[at] & fua or not unit.write_cache:
            unit.store.flush()

    return Row(
        f"WRITE({layout.LENGTH})",
        layout.USAGE,
        write,
        data_out=data_out_of(blocks),
        lane=lane,
        service_action=layout.SERVICE_ACTION,
        offered=offered(layout),
    )


@dataclass(frozen=True, slots=True)
class _AtOneMoment:
    """Guards what a READ has lent: not for whoever comes when atomic writes have begun."""

    unit: BlockDevice

    @property
    def valid(self) -> bool:
        return self.unit.reads_windows

    def minds(self, offset: int, length: int) -> bool:
        return False


def _take(unit: BlockDevice, command: Handover, offset: int, length: int) -> None:
    stored = command.stored
    if stored is None or stored.length != length or not stored.may_go_to(unit.store, offset):
        return
    with suppress(OSError):
        unit.exclusion.change(offset, length, unit.store.take, stored)
        command.taken = stored.valid


def _check_medium(unit: BlockDevice, command: Command, offset: int, length: int) -> None:
    """Read a range and throw it away; ReadError is what it is for."""
    unit.verify_bytes += length
    for at in range(offset, offset + length, STEP):
        unit.keep_on(command)
        unit.store.pread(at, min(STEP, offset + length - at))


def _compare(
    unit: BlockDevice,
    command: Command,
    start: int,
    end: int,
    expected: Callable[[int, int], bytes],
) -> None:
    """Compare a range with `expected(offset, length)`; E/1D/00 at the first block that differs."""
    unit.verify_bytes += end - start
    for at in range(start, end, STEP):
        unit.keep_on(command)
        length = min(STEP, end - at)
        found, wanted = unit.store.pread(at, length), expected(at, length)
        if found != wanted:
            size = unit.block_size
            first = next(
                index
                for index in count()
                if found[index * size :][:size] != wanted[index * size :][:size]
            )
            lba = (at >> unit.shift) + first
            raise CheckCondition(
                Sense(
                    SenseKey.MISCOMPARE,
                    Asc.MISCOMPARE_DURING_VERIFY_OPERATION,
                    information=lba,
                )
            )


def _compare_with_data(unit: BlockDevice, command: Command, offset: int, data: Buffer) -> None:
    view = memoryview(data)
    _compare(
        unit,
        command,
        offset,
        offset + len(view),
        lambda at, length: bytes(view[at - offset :][:length]),
    )


def _from_medium(unit: BlockDevice, offset: int, length: int) -> None:
    """Make the next read of a range come from the medium: what it holds is what is verified."""
    unit.store.flush()
    unit.store.evict(offset, length)


def _verify(layout: type[Cdb]) -> Row:
    blocks = Range(layout)
    place = layout.PLACES["byte_check"]

    def byte_check(cdb: bytes) -> int:
        return cdb[place.byte] >> place.bit - place.width + 1 & place.mask

    def data_out(unit: BlockDevice, cdb: bytes) -> int:
        match byte_check(cdb):
            case ByteCheck.DATA:
                return blocks.transfer(unit, cdb)[1]
            case ByteCheck.ONE_BLOCK if blocks.extent(unit, cdb)[1]:
                return unit.block_size
            case _:
                return 0

    def verify(unit: BlockDevice, command: Command) -> None:
        check = byte_check(command.cdb)
        match check:
            case ByteCheck.MEDIUM | ByteCheck.ONE_BLOCK:
                offset, length = blocks.extent(unit, command.cdb)
            case ByteCheck.DATA:
                offset, length = blocks.transfer(unit, command.cdb)
            case _:
                raise invalid_field_in_cdb(place.byte, place.bit)
        unit.verify_commands += 1
        _from_medium(unit, offset, length)
        if check == ByteCheck.MEDIUM or not length:
            _check_medium(unit, command, offset, length)
        elif check == ByteCheck.DATA:
            data = whole_blocks(unit, command.data_out, length)
            _compare_with_data(unit, command, offset, data)
        else:
            pattern = blocks.one_block(unit, command) * (STEP // unit.block_size)
            _compare(unit, command, offset, offset + length, lambda _, size: pattern[:size])

    return Row(
        f"VERIFY({layout.LENGTH})",
        layout.USAGE,
        verify,
        data_out=data_out,
        lane=Lane.QUEUED,
        service_action=layout.SERVICE_ACTION,
        offered=offered(layout),
        access=Access.READS,
    )


def _write_and_verify(layout: type[Cdb]) -> Row:
    blocks = Range(layout)
    place = layout.PLACES["byte_check"]

    def write_and_verify(unit: BlockDevice, command: Command) -> None:
        check = command.cdb[place.byte] >> place.bit - place.width + 1 & place.mask
        if check not in (ByteCheck.MEDIUM, ByteCheck.DATA):
            raise invalid_field_in_cdb(place.byte, place.bit)
        offset, length = blocks.transfer(unit, command.cdb)
        unit.require_writable()
        unit.write_commands += 1
        unit.write_bytes += length
        data = whole_blocks(unit, command.data_out, length)
        unit.exclusion.change(offset, length, unit.store.write, data)
        _from_medium(unit, offset, len(data))
        if check == ByteCheck.DATA:
            _compare_with_data(unit, command, offset, data)
        else:
            _check_medium(unit, command, offset, len(data))

    return Row(
        f"WRITE AND VERIFY({layout.LENGTH})",
        layout.USAGE,
        write_and_verify,
        data_out=data_out_of(blocks),
        lane=Lane.QUEUED,
        service_action=layout.SERVICE_ACTION,
        offered=offered(layout),
    )


def _synchronize_cache(layout: type[Cdb]) -> Row:
    blocks = Range(layout)

    def synchronize_cache(unit: BlockDevice, command: Command) -> None:
        """IMMED too is answered when the data is safe, which promises more than it asks for."""
        blocks.extent(unit, command.cdb)
        unit.store.flush()

    return Row(
        f"SYNCHRONIZE CACHE({layout.LENGTH})", layout.USAGE, synchronize_cache, lane=Lane.QUEUED
    )


def _pre_fetch(layout: type[Cdb]) -> Row:
    blocks = Range(layout)

    def pre_fetch(unit: BlockDevice, command: Command) -> None:
        """GOOD, not CONDITION MET: no promise that everything stays in the cache."""
        unit.store.prefetch(*blocks.to_the_end(unit, command.cdb))

    return Row(f"PRE-FETCH({layout.LENGTH})", layout.USAGE, pre_fetch, access=Access.READS)


BLOCK_IO_TABLE = table_of(
    *map(_read, (Read6, Read10, Read12, Read16, Read32)),
    *map(_write, (Write6, Write10, Write12, Write16, Write32)),
    *map(
        _write_and_verify, (WriteAndVerify10, WriteAndVerify12, WriteAndVerify16, WriteAndVerify32)
    ),
    *map(_verify, (Verify10, Verify12, Verify16, Verify32)),
    *map(_synchronize_cache, (SynchronizeCache10, SynchronizeCache16)),
    *map(_pre_fetch, (PreFetch10, PreFetch16)),
)
