"""Parameter data of READ CAPACITY (SBC-3 5.15.2, 5.16.2)."""

from dataclasses import dataclass

from construct import BitsInteger, BitStruct, Flag, Padding

from serverfree.scsi.structure import Structure

CAPACITY_10_MAXIMUM = 0xFFFFFFFF  # "more than 32 bits hold": ask READ CAPACITY(16)


@dataclass
class Capacity10(Structure):
    """READ CAPACITY(10): the last LBA, or CAPACITY_10_MAXIMUM where 32 bits do not hold it."""

    last_lba: int = 0
    block_length: int = 0

    LAYOUT = BitStruct("last_lba" / BitsInteger(32), "block_length" / BitsInteger(32))


@dataclass
class Capacity16(Structure):
    """READ CAPACITY(16).

    `physical_exponent`: a physical block holds 2 to its power logical blocks. `thin` (LBPME):
    logical block provisioning management. `reads_zeros` (LBPRZ): unmapped blocks read as zeros.
    """

    last_lba: int = 0
    block_length: int = 0
    protected: bool = False
    physical_exponent: int = 0
    thin: bool = False
    reads_zeros: bool = False
    lowest_aligned_lba: int = 0

    LAYOUT = BitStruct(
        "last_lba" / BitsInteger(64),
        "block_length" / BitsInteger(32),
        Padding(7),
        "protected" / Flag,
        Padding(4),
        "physical_exponent" / BitsInteger(4),
        "thin" / Flag,
        "reads_zeros" / Flag,
        "lowest_aligned_lba" / BitsInteger(14),
        Padding(16 * 8),
    )
