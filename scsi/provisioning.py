"""Parameter lists of logical block provisioning: UNMAP (SBC-3 5.28.2), GET LBA STATUS (5.3.2)."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Self

from serverfree.scsi.device import Buffer

_UNMAP_HEADER = Struct(">HH4x")
_UNMAP_DESCRIPTOR = Struct(">QI4x")
UNMAP_HEADER_LENGTH = _UNMAP_HEADER.size
UNMAP_DESCRIPTOR_LENGTH = _UNMAP_DESCRIPTOR.size

_STATUS_HEADER = Struct(">I4x")
_STATUS_DESCRIPTOR = Struct(">QIB3x")


@dataclass(frozen=True, slots=True)
class BlockRange:
    """`blocks` logical blocks from `lba` on."""

    lba: int
    blocks: int


def pack_unmap_list(ranges: Iterable[BlockRange]) -> bytes:
    """The parameter list of UNMAP."""
    body = b"".join(_UNMAP_DESCRIPTOR.pack(each.lba, each.blocks) for each in ranges)
    return _UNMAP_HEADER.pack(len(body) + UNMAP_HEADER_LENGTH - 2, len(body)) + body


def unpack_unmap_list(data: Buffer) -> list[BlockRange]:
    """Return the ranges of a parameter list of UNMAP.

    A last descriptor that UNMAP BLOCK DESCRIPTOR DATA LENGTH cuts short is left out, as 5.28.2
    asks. Raises ValueError where the list ends before that length says.
    """
    if len(data) < UNMAP_HEADER_LENGTH:
        raise ValueError(f"header of {len(data)} bytes")
    _, length = _UNMAP_HEADER.unpack_from(data)
    if UNMAP_HEADER_LENGTH + length > len(data):
        raise ValueError(f"descriptors of {length} bytes in a list of {len(data)}")
    length -= length % UNMAP_DESCRIPTOR_LENGTH
    body = memoryview(data)[UNMAP_HEADER_LENGTH : UNMAP_HEADER_LENGTH + length]
    return [BlockRange(lba, blocks) for lba, blocks in _UNMAP_DESCRIPTOR.iter_unpack(body)]


class Provisioning(IntEnum):
    """PROVISIONING STATUS (5.3.2.2)."""

    MAPPED = 0
    DEALLOCATED = 1
    ANCHORED = 2


@dataclass(frozen=True, slots=True)
class LbaStatus:
    """One LBA status descriptor."""

    lba: int
    blocks: int
    status: int

    @classmethod
    def unpack_list(cls, data: Buffer) -> list[Self]:
        """Return the descriptors of GET LBA STATUS parameter data, as far as they are present."""
        raw = bytes(data)
        if len(raw) < _STATUS_HEADER.size:
            return []
        length = _STATUS_HEADER.unpack_from(raw)[0] - 4
        body = raw[_STATUS_HEADER.size :][: max(0, length)]
        body = body[: len(body) - len(body) % _STATUS_DESCRIPTOR.size]
        return [cls(*values) for values in _STATUS_DESCRIPTOR.iter_unpack(body)]


def pack_lba_status(descriptors: Iterable[LbaStatus]) -> bytes:
    """The parameter data of GET LBA STATUS."""
    body = b"".join(
        _STATUS_DESCRIPTOR.pack(each.lba, each.blocks, each.status) for each in descriptors
    )
    return _STATUS_HEADER.pack(len(body) + _STATUS_HEADER.size - 4) + body
