"""What a sequential-access device returns and what its mode pages hold (SSC-4 chapters 7 and 8)."""

from dataclasses import dataclass

from construct import BitsInteger, BitStruct, Const, Flag, Padding

from serverfree.scsi.mode import Page
from serverfree.scsi.structure import Structure, text


@dataclass(slots=True)
class BlockLimits(Structure):
    """READ BLOCK LIMITS data. A block has a multiple of 2 ** `granularity` bytes."""

    granularity: int = 0
    maximum: int = 0
    minimum: int = 0

    LAYOUT = BitStruct(
        Padding(3),
        "granularity" / BitsInteger(5),
        "maximum" / BitsInteger(24),
        "minimum" / BitsInteger(16),
    )


@dataclass(slots=True)
class ObjectLimit(Structure):
    """READ BLOCK LIMITS data with MLOI=1: the largest logical object identifier (20 bytes)."""

    maximum: int = 0

    LAYOUT = BitStruct(Padding(12 * 8), "maximum" / BitsInteger(64))


@dataclass(slots=True)
class ShortPosition(Structure):
    """READ POSITION data, short form (20 bytes).

    `first` is the next logical object that the initiator will transfer, `last` the next that goes
    from the object buffer to the medium. `overflow` (PERR) says that one of the numbers is larger
    than its field, `unknown` (LOLU) that there is no position to report.
    """

    beginning_of_partition: bool = False
    end_of_partition: bool = False  # between early warning and the end
    object_count_unknown: bool = False  # LOCU
    byte_count_unknown: bool = False  # BYCU
    unknown: bool = False  # LOLU, BPU in older texts
    overflow: bool = False
    programmable_early_warning: bool = False  # BPEW
    partition: int = 0
    first: int = 0
    last: int = 0
    buffered_objects: int = 0
    buffered_bytes: int = 0

    LAYOUT = BitStruct(
        "beginning_of_partition" / Flag,
        "end_of_partition" / Flag,
        "object_count_unknown" / Flag,
        "byte_count_unknown" / Flag,
        Padding(1),
        "unknown" / Flag,
        "overflow" / Flag,
        "programmable_early_warning" / Flag,
        "partition" / BitsInteger(8),
        Padding(16),
        "first" / BitsInteger(32),
        "last" / BitsInteger(32),
        Padding(8),
        "buffered_objects" / BitsInteger(24),
        "buffered_bytes" / BitsInteger(32),
    )


@dataclass(slots=True)
class LongPosition(Structure):
    """READ POSITION data, long form (32 bytes): where, in logical objects and in files."""

    beginning_of_partition: bool = False
    end_of_partition: bool = False
    marks_unknown: bool = False  # MPU: `file` is not valid
    object_unknown: bool = False  # LONU: `partition` and `block` are not valid
    programmable_early_warning: bool = False
    partition: int = 0
    block: int = 0
    file: int = 0

    LAYOUT = BitStruct(
        "beginning_of_partition" / Flag,
        "end_of_partition" / Flag,
        Padding(2),
        "marks_unknown" / Flag,
        "object_unknown" / Flag,
        Padding(1),
        "programmable_early_warning" / Flag,
        Padding(24),
        "partition" / BitsInteger(32),
        "block" / BitsInteger(64),
        "file" / BitsInteger(64),
        Padding(64),
    )


@dataclass(slots=True)
class ExtendedPosition(Structure):
    """READ POSITION data, extended form (32 bytes): the short form with wider numbers."""

    beginning_of_partition: bool = False
    end_of_partition: bool = False
    object_count_unknown: bool = False
    byte_count_unknown: bool = False
    unknown: bool = False
    overflow: bool = False
    programmable_early_warning: bool = False
    partition: int = 0
    additional_length: int = 28
    buffered_objects: int = 0
    first: int = 0
    last: int = 0
    buffered_bytes: int = 0

    LAYOUT = BitStruct(
        "beginning_of_partition" / Flag,
        "end_of_partition" / Flag,
        "object_count_unknown" / Flag,
        "byte_count_unknown" / Flag,
        Padding(1),
        "unknown" / Flag,
        "overflow" / Flag,
        "programmable_early_warning" / Flag,
        "partition" / BitsInteger(8),
        "additional_length" / BitsInteger(16),
        Padding(8),
        "buffered_objects" / BitsInteger(24),
        "first" / BitsInteger(64),
        "last" / BitsInteger(64),
        "buffered_bytes" / BitsInteger(64),
    )


@dataclass(slots=True)
class DensityDescriptor(Structure):
    """Density support data block descriptor. `capacity` is in units of 1,000,000 bytes."""

    primary_code: int = 0
    secondary_code: int = 0
    writable: bool = False
    duplicate: bool = False
    default: bool = False
    bits_per_mm: int = 0
    media_width: int = 0  # tenths of a millimetre
    tracks: int = 0
    capacity: int = 0
    organization: str = ""
    name: str = ""
    description: str = ""

    LAYOUT = BitStruct(
        "primary_code" / BitsInteger(8),
        "secondary_code" / BitsInteger(8),
        "writable" / Flag,
        "duplicate" / Flag,
        "default" / Flag,
        Padding(5),
        Padding(16),
        "bits_per_mm" / BitsInteger(24),
        "media_width" / BitsInteger(16),
        "tracks" / BitsInteger(16),
        "capacity" / BitsInteger(32),
        "organization" / text(8),
        "name" / text(8),
        "description" / text(20),
    )


@dataclass(slots=True)
class MediumTypeDescriptor(Structure):
    """REPORT DENSITY SUPPORT descriptor of a kind of medium (MEDIUM TYPE=1)."""

    medium_type: int = 0
    descriptor_length: int = 52
    densities: int = 1
    density: int = 0
    media_width: int = 0
    medium_length: int = 0
    organization: str = ""
    name: str = ""
    description: str = ""

    LAYOUT = BitStruct(
        "medium_type" / BitsInteger(8),
        Padding(8),
        "descriptor_length" / BitsInteger(16),
        "densities" / BitsInteger(8),
        "density" / BitsInteger(8),
        Padding(8 * 8),
        "media_width" / BitsInteger(16),
        "medium_length" / BitsInteger(16),
        Padding(16),
        "organization" / text(8),
        "name" / text(8),
        "description" / text(20),
    )


@dataclass(slots=True)
class TapeBlockDescriptor(Structure):
    """The mode parameter block descriptor of a tape. `block_length` 0: blocks of any length."""

    density: int = 0
    blocks: int = 0
    block_length: int = 0

    LAYOUT = BitStruct(
        "density" / BitsInteger(8),
        "blocks" / BitsInteger(24),
        Padding(8),
        "block_length" / BitsInteger(24),
    )


@dataclass
class TapeErrorRecovery(Page):
    """Page 01h of a tape. No retries are made, none need be."""

    PAGE_CODE = 0x01
    LAYOUT = BitStruct(Padding(10 * 8))


@dataclass
class DisconnectReconnect(Page):
    """Page 02h (SPC-4 7.5.12): nothing in it applies to iSCSI but the burst length, 0 for any."""

    PAGE_CODE = 0x02
    LAYOUT = BitStruct(Padding(14 * 8))


@dataclass
class DataCompression(Page):
    """Page 0Fh."""

    PAGE_CODE = 0x0F
    enabled: bool = False  # DCE
    capable: bool = False  # DCC
    decompression_enabled: bool = False  # DDE
    compression_algorithm: int = 0
    decompression_algorithm: int = 0

    LAYOUT = BitStruct(
        "enabled" / Flag,
        "capable" / Flag,
        Padding(6),
        "decompression_enabled" / Flag,
        Padding(7),
        "compression_algorithm" / BitsInteger(32),
        "decompression_algorithm" / BitsInteger(32),
        Padding(32),
    )


@dataclass
class DeviceConfiguration(Page):
    """Page 10h."""

    PAGE_CODE = 0x10
    active_partition: int = 0
    object_identifiers: bool = False  # LOIS
    report_early_warning: bool = False  # REW: READ reports it too
    eod_generation: bool = False  # EEG
    synchronize_at_early_warning: bool = False  # SEW
    software_write_protect: bool = False  # SWP
    compression_algorithm: int = 0

    LAYOUT = BitStruct(
        Padding(8),
        "active_partition" / BitsInteger(8),
        Padding(8),
        Padding(8),
        Padding(16),
        Padding(1),
        "object_identifiers" / Flag,
        Padding(5),
        "report_early_warning" / Flag,
        Padding(8),
        Padding(3),
        "eod_generation" / Flag,
        "synchronize_at_early_warning" / Flag,
        "software_write_protect" / Flag,
        Padding(2),
        Padding(24),
        "compression_algorithm" / BitsInteger(8),
        Padding(8),
    )


@dataclass
class DeviceConfigurationExtension(Structure):
    """Page 10h, subpage 01h. `early_warning_size` is PEWS, in units of 1,000,000 bytes.

    `write_mode` 1 is append-only: what is on the medium is not overwritten.
    """

    write_mode: int = 0
    early_warning_size: int = 0

    LAYOUT = BitStruct(
        Const(0x50, BitsInteger(8)),  # SPF=1
        Const(0x01, BitsInteger(8)),
        Const(0x1C, BitsInteger(16)),
        Padding(8),
        "write_mode" / BitsInteger(4),
        Padding(4),
        "early_warning_size" / BitsInteger(16),
        Padding(24 * 8),
    )
