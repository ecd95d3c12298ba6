"""Standard INQUIRY data (SPC-4 6.6.2)."""

from dataclasses import dataclass
from enum import IntEnum

from construct import Array, BitsInteger, BitStruct, Default, ExprAdapter, Flag, Padding

from serverfree.scsi.structure import Structure, text


class DeviceType(IntEnum):
    """PERIPHERAL DEVICE TYPE, SPC-4 table 143."""

    DISK = 0x00
    TAPE = 0x01
    PROCESSOR = 0x03
    CD_DVD = 0x05
    MEDIUM_CHANGER = 0x08
    ENCLOSURE = 0x0D
    UNKNOWN = 0x1F


class Qualifier(IntEnum):
    """PERIPHERAL QUALIFIER, SPC-4 table 142."""

    CONNECTED = 0
    NOT_CONNECTED = 1
    NOT_SUPPORTED = 3


class VersionDescriptor(IntEnum):
    """Standards that a unit claims, without a version (SPC-4 table 144)."""

    SAM_5 = 0x00A0
    SPC_4 = 0x0460
    SBC_3 = 0x04C0
    SSC_4 = 0x0520
    ISCSI = 0x0960


SPC_4 = 6  # VERSION


_DESCRIPTORS = ExprAdapter(
    Array(8, BitsInteger(16)),
    lambda raw, _: tuple(code for code in raw if code),
    lambda codes, _: (*codes, *(0,) * 8)[:8],
)


@dataclass(slots=True)
class StandardInquiry(Structure):
    """What a logical unit says it is. Texts come without their padding."""

    device_type: int = DeviceType.UNKNOWN
    qualifier: int = Qualifier.CONNECTED
    removable: bool = False
    version: int = SPC_4
    normal_aca: bool = False  # NORMACA
    third_party_copy: bool = False  # 3PC
    explicit_access_states: bool = False  # TPGS 10b: SET TARGET PORT GROUPS, no implicit changes
    protect: bool = False
    vendor: str = ""
    product: str = ""
    revision: str = ""
    version_descriptors: tuple[int, ...] = ()

    LAYOUT = BitStruct(
        "qualifier" / BitsInteger(3),
        "device_type" / BitsInteger(5),
        "removable" / Flag,
        Padding(7),
        "version" / BitsInteger(8),
        Padding(2),
        "normal_aca" / Flag,
        "hierarchical" / Default(Flag, True),  # HISUP: LUNs as SAM-5 4.7 has them
        "format" / Default(BitsInteger(4), 2),
        "additional_length" / Default(BitsInteger(8), 91),
        Padding(2),
        "explicit_access_states" / Flag,
        Padding(1),
        "third_party_copy" / Flag,
        Padding(2),
        "protect" / Flag,
        Padding(8),
        Padding(6),
        "command_queuing" / Default(Flag, True),
        Padding(1),
        "vendor" / text(8),
        "product" / text(16),
        "revision" / text(4),
        Padding(20 * 8 + 16),
        "version_descriptors" / _DESCRIPTORS,
        Padding(22 * 8),
    )
