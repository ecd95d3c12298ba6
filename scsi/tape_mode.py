"""Mode pages of a tape that say more than a bit or two (SSC-4 8.4)."""

from dataclasses import dataclass, field
from enum import IntEnum

from construct import Array, BitsInteger, BitStruct, Const, Flag, Padding

from serverfree.scsi.mode import Page
from serverfree.scsi.structure import Structure

REST = 0xFFFF  # a partition of what the others leave
MAX_ADDITIONAL = 3
_UNIT_BYTES = {0: 1, 1: 1000, 2: 1_000_000}  # PSUM; 3: 10 ** PARTITION UNITS


@dataclass
class MediumPartition(Page):
    """Page 11h: how FORMAT MEDIUM is to partition the medium, or how it is partitioned.

    Of FDP, SDP (equal parts) and IDP (`sizes`) one is set by who wants partitions made.
    """

    PAGE_CODE = 0x11
    maximum_additional: int = MAX_ADDITIONAL
    additional: int = 0
    fixed: bool = False  # FDP
    select: bool = False  # SDP
    initiator: bool = False  # IDP
    unit_of_measure: int = 3  # PSUM
    on_format: bool = True  # POFM: FORMAT MEDIUM makes them, not MODE SELECT
    recognition: int = 3  # the drive knows its format and partitions when it sees them
    units: int = 0
    sizes: list[int] = field(default_factory=lambda: [0] * (MAX_ADDITIONAL + 1))

    LAYOUT = BitStruct(
        "maximum_additional" / BitsInteger(8),
        "additional" / BitsInteger(8),
        "fixed" / Flag,
        "select" / Flag,
        "initiator" / Flag,
        "unit_of_measure" / BitsInteger(2),
        "on_format" / Flag,
        Padding(2),
        "recognition" / BitsInteger(8),
        Padding(4),
        "units" / BitsInteger(4),
        Padding(8),
        "sizes" / Array(MAX_ADDITIONAL + 1, BitsInteger(16)),
    )
    SHORTEST = 8  # the sizes of partitions that are not wanted need not come

    @property
    def unit_bytes(self) -> int:
        """Bytes that a size counts."""
        return _UNIT_BYTES.get(self.unit_of_measure) or int(10**self.units)

    @classmethod
    def of(cls, capacities: tuple[int, ...]) -> "MediumPartition":
        """Return the page that describes partitions of these capacities."""
        units = 6
        while sum(capacities) // 10**units >= REST:
            units += 1
        sizes = [max(1, capacity // 10**units) for capacity in capacities]
        sizes += [0] * (MAX_ADDITIONAL + 1 - len(sizes))
        return cls(additional=len(capacities) - 1, units=units, sizes=sizes)

    def capacities(self, usable: int) -> tuple[int, ...]:
        """Return the partitions that the page asks for on a medium of `usable` bytes.

        Raises ValueError where that cannot be. One partition always has all of the medium.
        """
        count = self.additional + 1
        if self.additional > MAX_ADDITIONAL or self.fixed + self.select + self.initiator != 1:
            raise ValueError(f"{count} partitions, or not one way to make them")
        if self.fixed:
            # The small one is for an index, as on an LTO drive.
            return usable - usable // 16, usable // 16
        if self.select:
            return (usable // count,) * count
        if count == 1:
            return (usable,)
        sizes = self.sizes[:count]
        if 0 in sizes or sizes.count(REST) > 1:
            raise ValueError(f"partition sizes {sizes}")
        taken = sum(size * self.unit_bytes for size in sizes if size != REST)
        capacities = tuple(
            usable - taken if size == REST else size * self.unit_bytes for size in sizes
        )
        if min(capacities) <= 0 or sum(capacities) > usable:
            raise ValueError(f"partitions of {capacities} on a medium of {usable}")
        return capacities


class ProtectionMethod(IntEnum):
    """LOGICAL BLOCK PROTECTION METHOD."""

    NONE = 0
    REED_SOLOMON = 1
    CRC32C = 2


PROTECTION_LENGTH = 4


@dataclass
class ControlDataProtection(Structure):
    """Page 0Ah, subpage F0h: which protection information blocks travel with."""

    method: int = ProtectionMethod.NONE
    information_length: int = 0
    writes: bool = False  # LBP_W
    reads: bool = False  # LBP_R
    recovers: bool = False  # RBDP: RECOVER BUFFERED DATA

    LAYOUT = BitStruct(
        Const(0x4A, BitsInteger(8)),  # SPF=1
        Const(0xF0, BitsInteger(8)),
        Const(0x1C, BitsInteger(16)),
        "method" / BitsInteger(8),
        Padding(2),
        "information_length" / BitsInteger(6),
        "writes" / Flag,
        "reads" / Flag,
        "recovers" / Flag,
        Padding(5),
        Padding(25 * 8),
    )


@dataclass
class TapePowerCondition(Page):
    """Page 1Ah (SPC-4 7.5.13): a file needs no rest, no timer is ever enabled."""

    PAGE_CODE = 0x1A
    LAYOUT = BitStruct(Padding(38 * 8))


@dataclass
class TapeInformationalExceptions(Page):
    """Page 1Ch of a tape (SSC-4 8.4.9). TapeAlert flags are read from log page 2Eh."""

    PAGE_CODE = 0x1C
    disabled: bool = True  # DEXCPT: no command fails to tell of a TapeAlert flag

    LAYOUT = BitStruct(
        Padding(4),
        "disabled" / Flag,
        Padding(3),
        Padding(9 * 8),
    )


@dataclass
class MediumConfiguration(Page):
    """Page 1Dh: what can be overwritten on the medium in the drive."""

    PAGE_CODE = 0x1D
    worm: bool = False  # WORMM
    label_restrictions: int = 0
    filemark_restrictions: int = 0

    LAYOUT = BitStruct(
        Padding(7),
        "worm" / Flag,
        Padding(8),
        "label_restrictions" / BitsInteger(8),
        "filemark_restrictions" / BitsInteger(8),
        Padding(26 * 8),
    )
