"""The attributes of a file record: resident ones with their value, others with their runs."""

from codecs import utf_16_le_decode
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from serverfree.backup.ntfs.errors import NtfsError
from serverfree.backup.ntfs.record import NUMBER_MASK, Record


class Type(IntEnum):
    """What an attribute is."""

    STANDARD_INFORMATION = 0x10
    ATTRIBUTE_LIST = 0x20
    FILE_NAME = 0x30
    OBJECT_ID = 0x40
    SECURITY_DESCRIPTOR = 0x50
    VOLUME_NAME = 0x60
    VOLUME_INFORMATION = 0x70
    DATA = 0x80
    INDEX_ROOT = 0x90
    INDEX_ALLOCATION = 0xA0
    BITMAP = 0xB0
    REPARSE_POINT = 0xC0
    EA_INFORMATION = 0xD0
    EA = 0xE0
    LOGGED_UTILITY_STREAM = 0x100


COMPRESSED, ENCRYPTED, SPARSE = 0x0001, 0x4000, 0x8000
COMPRESSION_MASK = 0x00FF

_END = 0xFFFFFFFF
_UINT32 = Struct("<I")
# Type, length, non-resident flag, length and offset of the name, flags, instance; then, where the
# attribute is resident, length and offset of the value.
_HEADER = Struct("<IIBBHHHIH")
# Lowest and highest VCN, offset of the runs, compression unit; allocated, data and valid size.
_NON_RESIDENT = Struct("<16xQQHH4xQQQ")


@dataclass(slots=True)
class Resident:
    """An attribute whose value lies in the record."""

    type: int
    name: str
    flags: int
    value: bytes


@dataclass(slots=True)
class NonResident:
    """A piece of an attribute that lies in clusters: those from `lowest` to `highest` of its own.

    `size`, `valid`, `unit` (a binary logarithm of clusters, 0 for none) and `flags` hold in the
    piece whose `lowest` is 0. `runs` is their packed form.
    """

    type: int
    name: str
    flags: int
    lowest: int
    highest: int
    unit: int
    size: int
    valid: int
    runs: bytes


Attribute = Resident | NonResident


def attributes(record: Record) -> Iterator[Attribute]:
    """Yield every attribute of a record, in its order; NtfsError where one is not whole."""
    data, at = record.data, record.attributes
    end = len(data)
    unpack_header, last = _HEADER.unpack_from, end - _HEADER.size
    while at <= last:
        kind, length, non_resident, name_length, name_offset, flags, _, value_length, offset = (
            unpack_header(data, at)
        )
        if kind == _END:
            return
        if length < 24 or length & 7 or at + length > end:
            raise NtfsError(f"attribute {kind:#x} of {length} bytes at byte {at} of {end}")
        if not name_length:
            name = ""
        elif name_offset + 2 * name_length > length:
            raise NtfsError(f"attribute {kind:#x} has a name that ends outside of it")
        else:
            name = text(data[at + name_offset : at + name_offset + 2 * name_length])
        if not non_resident:
            if offset + value_length > length:
                raise NtfsError(f"attribute {kind:#x} has a value that ends outside of it")
            value = data[at + offset : at + offset + value_length]
            yield Resident(kind, name, flags, value)
        elif length < _NON_RESIDENT.size:
            raise NtfsError(f"attribute {kind:#x} is too short to have runs")
        else:
            lowest, highest, runs, unit, _, size, valid = _NON_RESIDENT.unpack_from(data, at)
            if not _NON_RESIDENT.size <= runs <= length:
                raise NtfsError(f"attribute {kind:#x} has runs that begin outside of it")
            yield NonResident(
                kind, name, flags, lowest, highest, unit, size, valid, data[at + runs : at + length]
            )  # fmt: skip
        at += length
    if at + 4 > end or _UINT32.unpack_from(data, at)[0] != _END:
        raise NtfsError("its attributes have no end")


# Type, length, length and offset of the name, lowest VCN, file record, instance.
_LIST_ENTRY = Struct("<IHBBQQH")


@dataclass(slots=True)
class ListEntry:
    """A row of $ATTRIBUTE_LIST: in which record an attribute, or a piece of one, lies."""

    type: int
    name: str
    lowest: int
    record: int
    sequence: int


def list_entries(value: bytes) -> Iterator[ListEntry]:
    """Yield the rows of an $ATTRIBUTE_LIST."""
    at = 0
    while at + _LIST_ENTRY.size <= len(value):
        kind, length, name_length, name_offset, lowest, reference, _ = _LIST_ENTRY.unpack_from(
            value, at
        )
        end = name_offset + 2 * name_length
        if length < _LIST_ENTRY.size or at + length > len(value) or (name_length and end > length):
            raise NtfsError(f"row of {length} bytes at byte {at} of an attribute list")
        name = text(value[at + name_offset : at + end]) if name_length else ""
        yield ListEntry(kind, name, lowest, reference & NUMBER_MASK, reference >> 48)
        at += length


def text(data: bytes) -> str:
    """Decode a name. What is no UTF-16 comes out as the bytes that `os.fsencode` makes NTFS-3G's.

    (NTFS takes any 16-bit units; a lone surrogate is what NTFS-3G writes as three bytes.)
    """
    try:
        # `bytes.decode` would look for the codec by name each time.
        return utf_16_le_decode(data, "strict", True)[0]
    except UnicodeDecodeError:
        units = data[: len(data) & ~1].decode("utf-16-le", "surrogatepass")
        return units.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
