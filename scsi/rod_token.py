"""ROD tokens: what names a representation of data outside its copy manager.

SPC-4 5.17.6.4 and 5.17.6.5; the parameter lists of POPULATE TOKEN and WRITE USING TOKEN, SBC-4
5.12.2 and 5.59.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from struct import Struct
from typing import ClassVar

from construct import Bytes, BytesInteger, Int16ub, Int32ub, Padding
from construct import Struct as Layout

from serverfree.scsi.device import Buffer
from serverfree.scsi.errors import CheckCondition, illegal_request, invalid_field_in_parameter_list
from serverfree.scsi.sense import Asc, FieldPointer
from serverfree.scsi.structure import Structure


class RodType(IntEnum):
    """ROD types (SPC-4 table 110, SBC-4 table 30)."""

    FROM_TOKEN = 0x00000000
    ACCESS_UPON_REFERENCE = 0x00010000
    POINT_IN_TIME = 0x00800000
    CHANGE_VULNERABLE = 0x00800001
    PERSISTENT = 0x00800002
    ANY_POINT_IN_TIME = 0x0080FFFF
    BLOCK_DEVICE_ZERO = 0xFFFF0001


TOKEN_LENGTH = 512
MANAGEMENT_TOKEN_LENGTH = 96
"""Header and body of a token, without what makes it hard to guess (5.17.6.4)."""
ROD_TOKEN_LENGTH = 0x01F8
"""ROD TOKEN LENGTH of every token here (table 113)."""


@dataclass(frozen=True)
class RodToken(Structure):
    """A generic ROD token (table 112).

    `creator` is the CSCD descriptor E4h of the unit whose copy manager made it, `device` the READ
    CAPACITY(16) data from byte 8 on (SBC-4 4.28.5), `target` a designation descriptor; all of them
    padded with zeros.
    """

    type: int
    identifier: bytes = bytes(8)
    creator: bytes = bytes(32)
    bytes_represented: int = 0
    device: bytes = bytes(32)
    target: bytes = bytes(128)
    secret: bytes = bytes(256)
    length: int = ROD_TOKEN_LENGTH

    LAYOUT = Layout(
        "type" / Int32ub,
        Padding(2),
        "length" / Int16ub,
        "identifier" / Bytes(8),
        "creator" / Bytes(32),
        "bytes_represented" / BytesInteger(16),
        Padding(32),
        "device" / Bytes(32),
        "target" / Bytes(128),
        "secret" / Bytes(256),
    )


ZERO_TOKEN = RodToken(RodType.BLOCK_DEVICE_ZERO).pack()
"""The block device zero ROD token (SBC-4 4.28.4): known to everybody, it stands for zeros."""

Range = tuple[int, int]
"""A block device range descriptor (SBC-4 table 73): first LBA, number of blocks."""
_RANGE = Struct(">QI4x")
RANGE_LENGTH = _RANGE.size


@dataclass(frozen=True, slots=True)
class PopulateList:
    """POPULATE TOKEN parameter list (SBC-4 table 72).

    `rod_type` None (RTV=0) leaves the type to the copy manager, `inactivity` 0 the time-out in
    seconds.
    """

    ranges: Sequence[Range]
    rod_type: int | None = None
    inactivity: int = 0
    immediate: bool = False

    _HEADER: ClassVar[Struct] = Struct(">HBxIIxxH")
    LENGTH: ClassVar[int] = _HEADER.size
    INACTIVITY_AT: ClassVar[int] = 4
    TYPE_AT: ClassVar[int] = 8
    RANGES_AT: ClassVar[int] = 16

    def pack(self) -> bytes:
        """The list on the wire."""
        ranges = _pack_ranges(self.ranges)
        head = self._HEADER.pack(
            self.LENGTH + len(ranges) - 2,
            (self.rod_type is not None) << 1 | self.immediate,
            self.inactivity,
            self.rod_type or 0,
            len(ranges),
        )
        return head + ranges

    @classmethod
    def unpack(cls, data: Buffer, maximum: int) -> "PopulateList":
        """Read a list that may hold `maximum` ranges. Raises ILLEGAL REQUEST."""
        if len(data) < cls.LENGTH:
            raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
        length, flags, inactivity, rod_type, ranges = cls._HEADER.unpack_from(data)
        if length < cls.LENGTH + RANGE_LENGTH - 2:
            raise invalid_field_in_parameter_list(0)
        return cls(
            _unpack_ranges(data, cls.RANGES_AT, min(ranges, length + 2 - cls.LENGTH), maximum),
            rod_type if flags & 2 else None,
            inactivity,
            bool(flags & 1),
        )


@dataclass(frozen=True, slots=True)
class WriteList:
    """WRITE USING TOKEN parameter list (SBC-4 table 159).

    `offset` is where in the ROD to begin, in blocks of the unit that is written.
    """

    token: bytes
    ranges: Sequence[Range]
    offset: int = 0
    delete_token: bool = False
    immediate: bool = False

    _HEADER: ClassVar[Struct] = Struct(">HB5xQ512s6xH")
    LENGTH: ClassVar[int] = _HEADER.size
    OFFSET_AT: ClassVar[int] = 8
    TOKEN_AT: ClassVar[int] = 16
    RANGES_AT: ClassVar[int] = 536

    def pack(self) -> bytes:
        """The list on the wire."""
        ranges = _pack_ranges(self.ranges)
        head = self._HEADER.pack(
            self.LENGTH + len(ranges) - 2,
            self.delete_token << 1 | self.immediate,
            self.offset,
            self.token,
            len(ranges),
        )
        return head + ranges

    @classmethod
    def unpack(cls, data: Buffer, maximum: int) -> "WriteList":
        """Read a list that may hold `maximum` ranges. Raises ILLEGAL REQUEST."""
        if len(data) < cls.LENGTH:
            raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
        length, flags, offset, token, ranges = cls._HEADER.unpack_from(data)
        if length < cls.LENGTH + RANGE_LENGTH - 2 or length != ranges + cls.LENGTH - 2:
            raise invalid_field_in_parameter_list(0)
        return cls(
            token,
            _unpack_ranges(data, cls.RANGES_AT, ranges, maximum),
            offset,
            bool(flags & 2),
            bool(flags & 1),
        )


def _pack_ranges(ranges: Sequence[Range]) -> bytes:
    return b"".join(_RANGE.pack(lba, blocks) for lba, blocks in ranges)


def _unpack_ranges(data: Buffer, at: int, length: int, maximum: int) -> list[Range]:
    if length < RANGE_LENGTH:
        raise invalid_field_in_parameter_list(at - 2)
    count = min(length, len(data) - at) // RANGE_LENGTH  # one in part is none
    if count > maximum:
        raise illegal_request(Asc.TOO_MANY_SEGMENT_DESCRIPTORS, FieldPointer(at - 2))
    return list(_RANGE.iter_unpack(bytes(data[at : at + count * RANGE_LENGTH])))


def check_ranges(ranges: Sequence[Range], blocks: int, at: int | None) -> None:
    """Hold ranges to a medium of so many blocks, and to naming no block twice.

    `at` is where their list begins in the parameter list, None where it cannot be pointed at.
    Raises ILLEGAL REQUEST.
    """
    for number, (lba, count) in enumerate(ranges):
        if lba + count > blocks:
            raise _wrong_range(Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE, at, number)
    order = sorted((lba, number) for number, (lba, count) in enumerate(ranges) if count)
    for (first, earlier), (lba, number) in pairwise(order):
        if first + ranges[earlier][1] > lba:
            worse = max(earlier, number)
            raise _wrong_range(Asc.INVALID_FIELD_IN_PARAMETER_LIST, at, worse)


def _wrong_range(asc: Asc, at: int | None, number: int) -> CheckCondition:
    pointer = None if at is None else FieldPointer(at + number * RANGE_LENGTH)
    return illegal_request(asc, pointer)
