"""Vital product data pages (SPC-4 7.8, SBC-3 6.6). Each class packs and reads a whole page.

Byte 0, the peripheral qualifier and device type, is left 0: INQUIRY fills it in for every page.
"""

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import ClassVar, Self

from construct import BitsInteger, BitStruct, Default, Flag, Padding

from serverfree.scsi.designator import Designator, unpack_designators
from serverfree.scsi.device import Buffer
from serverfree.scsi.structure import Structure

_HEADER = Struct(">BBH")
HEADER_LENGTH = _HEADER.size


def pack_page(code: int, body: bytes) -> bytes:
    """A VPD page: its header, peripheral byte 0, and its body."""
    return _HEADER.pack(0, code, len(body)) + body


def unpack_page(code: int, data: Buffer) -> bytes:
    """Return the body of a page as far as it is present; ValueError if it is another page."""
    raw = bytes(data)
    if len(raw) < HEADER_LENGTH or raw[1] != code:
        raise ValueError(f"not VPD page {code:02X}h: {raw[:HEADER_LENGTH].hex(' ') or 'no data'}")
    length = _HEADER.unpack_from(raw)[2]
    return raw[HEADER_LENGTH : HEADER_LENGTH + length]


@dataclass(frozen=True, slots=True)
class SupportedPages:
    """Page 00h (7.8.13): the page codes in ascending order, 00h among them."""

    PAGE_CODE: ClassVar[int] = 0x00
    codes: tuple[int, ...]

    def pack(self) -> bytes:
        """The whole page."""
        return pack_page(self.PAGE_CODE, bytes(self.codes))

    @classmethod
    def unpack(cls, data: Buffer) -> Self:
        """Read a whole page; ValueError if it is not one."""
        return cls(tuple(unpack_page(cls.PAGE_CODE, data)))


@dataclass(frozen=True, slots=True)
class UnitSerialNumber:
    """Page 80h (7.8.15)."""

    PAGE_CODE: ClassVar[int] = 0x80
    serial: str

    def pack(self) -> bytes:
        """The whole page."""
        return pack_page(self.PAGE_CODE, self.serial.encode("ascii"))

    @classmethod
    def unpack(cls, data: Buffer) -> Self:
        """Read a whole page; ValueError if it is not one."""
        return cls(unpack_page(cls.PAGE_CODE, data).decode("ascii", "replace").strip(" \0"))


@dataclass(frozen=True, slots=True)
class DeviceIdentification:
    """Page 83h (7.8.6): the names of the unit, its port and its device."""

    PAGE_CODE: ClassVar[int] = 0x83
    designators: tuple[Designator, ...]

    def pack(self) -> bytes:
        """The whole page."""
        return pack_page(self.PAGE_CODE, b"".join(one.pack() for one in self.designators))

    @classmethod
    def unpack(cls, data: Buffer) -> Self:
        """Read a whole page; ValueError if it is not one."""
        return cls(tuple(unpack_designators(unpack_page(cls.PAGE_CODE, data))))


class _FixedPage(Structure):
    """A page whose body is a fixed layout."""

    PAGE_CODE: ClassVar[int]

    def pack(self) -> bytes:
        """The whole page."""
        return pack_page(self.PAGE_CODE, super().pack())

    @classmethod
    def unpack(cls, data: Buffer) -> Self:
        """Read a whole page; ValueError if it is not one. What it is too short for reads as 0."""
        return super().unpack(unpack_page(cls.PAGE_CODE, data))


@dataclass
class ExtendedInquiry(_FixedPage):
    """Page 86h (7.8.7): which task attributes and cache there are."""

    PAGE_CODE = 0x86
    protection_types: int = 0  # SPT
    head_of_queue: bool = False
    ordered: bool = False
    simple: bool = True
    volatile_cache: bool = False
    maximum_sense_length: int = 0

    LAYOUT = BitStruct(
        Padding(2),
        "protection_types" / BitsInteger(3),
        Padding(3),
        Padding(5),
        "head_of_queue" / Flag,
        "ordered" / Flag,
        "simple" / Flag,
        Padding(7),
        "volatile_cache" / Flag,
        Padding(6 * 8),
        "maximum_sense_length" / BitsInteger(8),
        Padding(50 * 8),
    )


@dataclass(frozen=True, slots=True)
class ManagementAddresses:
    """Page 85h (7.8.9): network addresses (service type, URL) to manage the unit at."""

    PAGE_CODE: ClassVar[int] = 0x85
    addresses: tuple[tuple[int, str], ...] = ()

    def pack(self) -> bytes:
        """The whole page."""
        body = b""
        for service, url in self.addresses:
            text = url.encode() + b"\0"
            text += bytes(-len(text) % 4)
            body += bytes((service, 0)) + len(text).to_bytes(2, "big") + text
        return pack_page(self.PAGE_CODE, body)


SHARED_BY_ALL, PER_NEXUS = 0b00, 0b11  # MODE PAGE POLICY: one copy for all nexuses, or one each


@dataclass(frozen=True, slots=True)
class ModePagePolicy:
    """Page 87h (7.8.10): (page, subpage, policy) of mode pages; 3Fh and FFh stand for the rest."""

    PAGE_CODE: ClassVar[int] = 0x87
    policies: tuple[tuple[int, int, int], ...] = ((0x3F, 0xFF, SHARED_BY_ALL),)

    def pack(self) -> bytes:
        """The whole page."""
        body = b"".join(bytes((page, sub, policy, 0)) for page, sub, policy in self.policies)
        return pack_page(self.PAGE_CODE, body)


@dataclass
class BlockLimits(_FixedPage):
    """Page B0h (SBC-3 6.6.3). Lengths count logical blocks; 0 means that no limit is reported."""

    PAGE_CODE = 0xB0
    write_same_non_zero: bool = False  # WSNZ: WRITE SAME of 0 blocks is refused
    maximum_compare_and_write_length: int = 0
    optimal_transfer_length_granularity: int = 0
    maximum_transfer_length: int = 0
    optimal_transfer_length: int = 0
    maximum_prefetch_length: int = 0
    maximum_unmap_lba_count: int = 0
    maximum_unmap_block_descriptor_count: int = 0
    optimal_unmap_granularity: int = 0
    unmap_granularity_alignment_valid: bool = False
    unmap_granularity_alignment: int = 0
    maximum_write_same_length: int = 0
    # SBC-4 6.6.4; 0 for a unit without WRITE ATOMIC.
    maximum_atomic_transfer_length: int = 0
    atomic_alignment: int = 0
    atomic_transfer_length_granularity: int = 0
    maximum_atomic_transfer_length_with_boundary: int = 0
    maximum_atomic_boundary_size: int = 0

    LAYOUT = BitStruct(
        Padding(7),
        "write_same_non_zero" / Flag,
        "maximum_compare_and_write_length" / BitsInteger(8),
        "optimal_transfer_length_granularity" / BitsInteger(16),
        "maximum_transfer_length" / BitsInteger(32),
        "optimal_transfer_length" / BitsInteger(32),
        "maximum_prefetch_length" / BitsInteger(32),
        "maximum_unmap_lba_count" / BitsInteger(32),
        "maximum_unmap_block_descriptor_count" / BitsInteger(32),
        "optimal_unmap_granularity" / BitsInteger(32),
        "unmap_granularity_alignment_valid" / Flag,
        "unmap_granularity_alignment" / BitsInteger(31),
        "maximum_write_same_length" / BitsInteger(64),
        "maximum_atomic_transfer_length" / BitsInteger(32),
        "atomic_alignment" / BitsInteger(32),
        "atomic_transfer_length_granularity" / BitsInteger(32),
        "maximum_atomic_transfer_length_with_boundary" / BitsInteger(32),
        "maximum_atomic_boundary_size" / BitsInteger(32),
    )


NON_ROTATING = 1  # MEDIUM ROTATION RATE
READS_WITHOUT_ERROR = 0b01  # WABEREQ and WACEREQ


@dataclass
class BlockDeviceCharacteristics(_FixedPage):
    """Page B1h (SBC-3 6.6.2)."""

    PAGE_CODE = 0xB1
    rotation_rate: int = NON_ROTATING
    # How blocks read that were not written since (WABEREQ, WACEREQ; SBC-4 table 240).
    read_after_block_erase: int = READS_WITHOUT_ERROR
    read_after_cryptographic_erase: int = READS_WITHOUT_ERROR

    LAYOUT = BitStruct(
        "rotation_rate" / BitsInteger(16),
        Padding(8),
        "read_after_block_erase" / BitsInteger(2),
        "read_after_cryptographic_erase" / BitsInteger(2),
        Padding(4),
        Padding(56 * 8),
    )


class ProvisioningType(IntEnum):
    """PROVISIONING TYPE, SBC-3 table 213."""

    FULL = 0
    RESOURCE = 1
    THIN = 2


@dataclass
class LogicalBlockProvisioning(_FixedPage):
    """Page B2h (SBC-3 6.6.4): how blocks can be unmapped and what they read as then."""

    PAGE_CODE = 0xB2
    unmap: bool = False  # LBPU
    write_same_16: bool = False  # LBPWS
    write_same_10: bool = False  # LBPWS10
    reads_zeros: bool = False  # LBPRZ
    provisioning_type: int = ProvisioningType.FULL

    LAYOUT = BitStruct(
        "threshold_exponent" / Default(BitsInteger(8), 0),
        "unmap" / Flag,
        "write_same_16" / Flag,
        "write_same_10" / Flag,
        Padding(2),
        "reads_zeros" / Flag,
        Padding(2),
        Padding(5),
        "provisioning_type" / BitsInteger(3),
        Padding(8),
    )
