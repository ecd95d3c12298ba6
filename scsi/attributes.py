"""Attributes of a medium auxiliary memory (SPC-4 7.4): identifiers, formats, the list they come in.

`HOST` says what hosts may write; all others are the device's or the medium's own.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

_ATTRIBUTE = Struct(">HBH")
_READ_ONLY = 0x80
LIST_HEADER = 4


class Format(IntEnum):
    """FORMAT of an attribute."""

    BINARY = 0
    ASCII = 1
    TEXT = 2


class AttributeId(IntEnum):
    """Attribute identifiers, SPC-4 tables 411 to 425."""

    REMAINING_CAPACITY_IN_PARTITION = 0x0000
    MAXIMUM_CAPACITY_IN_PARTITION = 0x0001
    TAPEALERT_FLAGS = 0x0002
    LOAD_COUNT = 0x0003
    MAM_SPACE_REMAINING = 0x0004
    ASSIGNING_ORGANIZATION = 0x0005
    FORMATTED_DENSITY_CODE = 0x0006
    INITIALIZATION_COUNT = 0x0007
    VOLUME_CHANGE_REFERENCE = 0x0009
    DEVICE_AT_LAST_LOAD = 0x020A  # to 020D, one for each of the last four
    TOTAL_MIB_WRITTEN = 0x0220
    TOTAL_MIB_READ = 0x0221
    MIB_WRITTEN_SINCE_LOAD = 0x0222
    MIB_READ_SINCE_LOAD = 0x0223
    MEDIUM_MANUFACTURER = 0x0400
    MEDIUM_SERIAL_NUMBER = 0x0401
    MEDIUM_ASSIGNING_ORGANIZATION = 0x0404
    MEDIUM_DENSITY_CODE = 0x0405
    MAM_CAPACITY = 0x0407
    MEDIUM_TYPE = 0x0408
    MEDIUM_TYPE_INFORMATION = 0x0409
    APPLICATION_VENDOR = 0x0800
    APPLICATION_NAME = 0x0801
    APPLICATION_VERSION = 0x0802
    USER_MEDIUM_TEXT_LABEL = 0x0803
    DATE_AND_TIME_LAST_WRITTEN = 0x0804
    TEXT_LOCALIZATION_IDENTIFIER = 0x0805
    BARCODE = 0x0806
    OWNING_HOST_TEXTUAL_NAME = 0x0807
    MEDIA_POOL = 0x0808
    PARTITION_USER_TEXT_LABEL = 0x0809
    LOAD_UNLOAD_AT_PARTITION = 0x080A
    APPLICATION_FORMAT_VERSION = 0x080B
    VOLUME_COHERENCY_INFORMATION = 0x080C
    MEDIUM_GLOBALLY_UNIQUE_IDENTIFIER = 0x0820
    MEDIA_POOL_GLOBALLY_UNIQUE_IDENTIFIER = 0x0821


@dataclass(frozen=True, slots=True)
class HostAttribute:
    """What a host may write: a format, at most so many bytes, of each partition or of all."""

    format: Format
    length: int
    per_partition: bool = False


HOST: dict[int, HostAttribute] = {
    AttributeId.APPLICATION_VENDOR: HostAttribute(Format.ASCII, 8),
    AttributeId.APPLICATION_NAME: HostAttribute(Format.ASCII, 32),
    AttributeId.APPLICATION_VERSION: HostAttribute(Format.ASCII, 8),
    AttributeId.USER_MEDIUM_TEXT_LABEL: HostAttribute(Format.TEXT, 160),
    AttributeId.DATE_AND_TIME_LAST_WRITTEN: HostAttribute(Format.ASCII, 12),
    AttributeId.TEXT_LOCALIZATION_IDENTIFIER: HostAttribute(Format.BINARY, 1),
    AttributeId.BARCODE: HostAttribute(Format.ASCII, 32),
    AttributeId.OWNING_HOST_TEXTUAL_NAME: HostAttribute(Format.TEXT, 80),
    AttributeId.MEDIA_POOL: HostAttribute(Format.TEXT, 160),
    AttributeId.PARTITION_USER_TEXT_LABEL: HostAttribute(Format.ASCII, 16, per_partition=True),
    AttributeId.LOAD_UNLOAD_AT_PARTITION: HostAttribute(Format.BINARY, 1),
    AttributeId.APPLICATION_FORMAT_VERSION: HostAttribute(Format.ASCII, 16),
    AttributeId.VOLUME_COHERENCY_INFORMATION: HostAttribute(
        Format.BINARY, 1024, per_partition=True
    ),
    AttributeId.MEDIUM_GLOBALLY_UNIQUE_IDENTIFIER: HostAttribute(Format.BINARY, 36),
    AttributeId.MEDIA_POOL_GLOBALLY_UNIQUE_IDENTIFIER: HostAttribute(Format.BINARY, 36),
    # 1623h: the lock of LTFS, from the range that is the vendors'
    0x1623: HostAttribute(Format.BINARY, 1),
}


@dataclass(frozen=True, slots=True)
class MediumAttribute:
    """An attribute on the wire."""

    identifier: int
    format: int
    value: bytes
    read_only: bool = False

    def pack(self) -> bytes:
        """The attribute, its header before its value."""
        flags = self.read_only * _READ_ONLY | self.format
        return _ATTRIBUTE.pack(self.identifier, flags, len(self.value)) + self.value


def binary(identifier: int, value: int, length: int) -> MediumAttribute:
    """A number that only the device writes."""
    return MediumAttribute(identifier, Format.BINARY, value.to_bytes(length, "big"), True)


def ascii_text(identifier: int, value: str, length: int) -> MediumAttribute:
    """A text that only the device writes, padded with spaces."""
    raw = value.encode("ascii", "replace")[:length].ljust(length)
    return MediumAttribute(identifier, Format.ASCII, raw, True)


def pack_values(attributes: Iterable[MediumAttribute]) -> bytes:
    """The list that READ ATTRIBUTE returns with their values."""
    body = b"".join(attribute.pack() for attribute in attributes)
    return len(body).to_bytes(LIST_HEADER, "big") + body


def pack_identifiers(identifiers: Iterable[int]) -> bytes:
    """The list that it returns without."""
    body = b"".join(identifier.to_bytes(2, "big") for identifier in identifiers)
    return len(body).to_bytes(LIST_HEADER, "big") + body


def unpack_values(raw: bytes) -> list[tuple[int, MediumAttribute]]:
    """Read a list of attributes with their values: each with the offset where it begins.

    Its header's own length is not looked at: WRITE ATTRIBUTE ignores it (SPC-4 6.48), and LTFS
    counts the header in. Raises ValueError where the last attribute is not all there.
    """
    if len(raw) < LIST_HEADER:
        raise ValueError("the list is shorter than its header")
    found, at = [], LIST_HEADER
    while at < len(raw):
        start = at
        if at + _ATTRIBUTE.size > len(raw):
            raise ValueError("an attribute ends behind the list")
        identifier, flags, length = _ATTRIBUTE.unpack_from(raw, at)
        at += _ATTRIBUTE.size
        if at + length > len(raw):
            raise ValueError("an attribute ends behind the list")
        value = raw[at : at + length]
        found.append((start, MediumAttribute(identifier, flags & 3, value, bool(flags >> 7))))
        at += length
    return found
