"""READ BUFFER and WRITE BUFFER (SPC-4 6.18, 6.49): a buffer to test a path with, and an echo."""

from enum import IntEnum
from typing import Protocol

from serverfree.scsi.cdb.management import ReadBuffer, WriteBuffer
from serverfree.scsi.errors import illegal_request, invalid_field_in_cdb
from serverfree.scsi.sense import Asc
from serverfree.target.units.access import Access
from serverfree.target.units.base import Row, Table, table_of
from serverfree.target.units.command import Command, Nexus

SIZE = 64 << 10
"""Bytes of buffer 0, and of the echo buffer."""


class BufferMode(IntEnum):
    """MODE of both commands."""

    HEADER_AND_DATA = 0x00
    DATA = 0x02
    DESCRIPTOR = 0x03
    ECHO = 0x0A
    ECHO_DESCRIPTOR = 0x0B


class DataBuffer:
    """Buffer 0 and the echo buffer of a unit, with who wrote the latter."""

    def __init__(self) -> None:
        self.content = bytearray(SIZE)
        self.echo: tuple[Nexus, bytes] | None = None


class Buffered(Protocol):
    """A unit with a buffer."""

    data_buffer: DataBuffer


def _read_buffer(unit: Buffered, command: Command) -> bytes:
    cdb = ReadBuffer.unpack(command.cdb)
    buffer, allocation = unit.data_buffer, cdb.allocation_length
    match cdb.mode:
        case BufferMode.ECHO:  # BUFFER ID and OFFSET are ignored (6.18.7)
            if buffer.echo is None:
                raise illegal_request(Asc.COMMAND_SEQUENCE_ERROR)
            nexus, data = buffer.echo
            if nexus != command.nexus:
                raise illegal_request(Asc.ECHO_BUFFER_OVERWRITTEN)
            return data[:allocation]
        case BufferMode.ECHO_DESCRIPTOR:
            return SIZE.to_bytes(4, "big")[:allocation]
        case BufferMode.DESCRIPTOR:  # any offset is on a boundary of one byte: 2 to the power 0
            size = 0 if cdb.buffer else SIZE
            return (b"\0" + size.to_bytes(3, "big"))[:allocation]
        case BufferMode.HEADER_AND_DATA:
            _require_place(cdb.buffer, cdb.offset)
            if cdb.offset:
                raise invalid_field_in_cdb(3)
            header = b"\0" + SIZE.to_bytes(3, "big")
            return (header + bytes(buffer.content[:allocation]))[:allocation]
        case BufferMode.DATA:
            _require_place(cdb.buffer, cdb.offset)
            return bytes(buffer.content[cdb.offset : cdb.offset + allocation])
        case _:
            raise invalid_field_in_cdb(1, 4)


def _write_buffer(unit: Buffered, command: Command) -> None:
    cdb = WriteBuffer.unpack(command.cdb)
    length = _checked_length(cdb)
    if len(command.data_out) < length:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    data = bytes(command.data_out[:length])
    match cdb.mode:
        case BufferMode.ECHO:
            unit.data_buffer.echo = (command.nexus, data)
        case BufferMode.DATA:
            unit.data_buffer.content[cdb.offset : cdb.offset + length] = data
        case _:  # 6.49.2: a header of four bytes, reserved, goes before
            unit.data_buffer.content[: max(0, length - 4)] = data[4:]


def _checked_length(cdb: WriteBuffer) -> int:
    """The length of a list that fits; 5/24/00 for one that does not. Microcode is not taken."""
    length, room = cdb.parameter_list_length, SIZE
    match cdb.mode:
        case BufferMode.ECHO:
            pass
        case BufferMode.DATA:
            _require_place(cdb.buffer, cdb.offset)
            room -= cdb.offset
        case BufferMode.HEADER_AND_DATA:
            _require_place(cdb.buffer, cdb.offset)
            if cdb.offset:
                raise invalid_field_in_cdb(3)
            room += 4
        case _:
            raise invalid_field_in_cdb(1, 4)
    if length > room:
        raise invalid_field_in_cdb(6)
    return length


def _write_length(unit: Buffered, cdb: bytes) -> int:
    return _checked_length(WriteBuffer.unpack(cdb))


def _require_place(buffer: int, offset: int) -> None:
    if buffer:
        raise invalid_field_in_cdb(2)
    if offset > SIZE:
        raise invalid_field_in_cdb(3)


BUFFER_TABLE: Table = table_of(
    Row("READ BUFFER", ReadBuffer.USAGE, _read_buffer, access=Access.READS),
    Row("WRITE BUFFER", WriteBuffer.USAGE, _write_buffer, data_out=_write_length),
)
