"""The vital product data of a disk besides that of every unit (SPC-4 7.8, SBC-4 6.6)."""

from typing import TYPE_CHECKING

from serverfree.scsi.vpd import (
    BlockDeviceCharacteristics,
    BlockLimits,
    ExtendedInquiry,
    LogicalBlockProvisioning,
    ManagementAddresses,
    ModePagePolicy,
    ProvisioningType,
)

if TYPE_CHECKING:
    from serverfree.target.units.block_device import BlockDevice

MAXIMUM_WRITE_SAME = 1 << 30
"""Bytes that one WRITE SAME may fill: a bound on how long it holds up the unit's queue."""
OPTIMAL_TRANSFER = 1 << 20
"""Bytes of a READ or WRITE: of the sizes that `make bench` tries the one that streams best."""
MAXIMUM_UNMAP_DESCRIPTORS = 4095
"""As many as fit a list of 65,535 bytes."""
MAXIMUM_COMPARE_AND_WRITE = 255
"""Blocks: as many as the field holds."""

_LIMITLESS = 0xFFFFFFFF


def block_vpd_pages(unit: "BlockDevice") -> dict[int, bytes]:
    """Pages 85h, 86h, 87h, B0h, B1h and B2h."""
    thin = unit.thin
    physical = 1 << unit.physical_exponent
    pages = (
        ManagementAddresses(),
        ExtendedInquiry(volatile_cache=True),
        ModePagePolicy(),
        BlockLimits(
            # "0 blocks" for "the rest of the disk" is an accident that waits to happen.
            write_same_non_zero=True,
            maximum_compare_and_write_length=MAXIMUM_COMPARE_AND_WRITE,
            # What random and what streaming access is best done in (SBC-4 H.3.5.2). A granularity
            # above the physical block is how a RAID tells of its stripes, and mkfs believes it; in
            # what pieces the store frees is told by the unmap granularity alone.
            optimal_transfer_length_granularity=physical,
            optimal_transfer_length=OPTIMAL_TRANSFER >> unit.shift,
            maximum_transfer_length=unit.maximum_blocks,
            maximum_unmap_lba_count=_LIMITLESS if thin else 0,
            maximum_unmap_block_descriptor_count=MAXIMUM_UNMAP_DESCRIPTORS if thin else 0,
            optimal_unmap_granularity=(
                max(unit.store.granularity >> unit.shift, physical) if thin else 0
            ),
            unmap_granularity_alignment_valid=thin,
            maximum_write_same_length=MAXIMUM_WRITE_SAME >> unit.shift,
            # The journal takes any length at any block, so there is no alignment to keep.
            maximum_atomic_transfer_length=unit.maximum_atomic_blocks,
        ),
        BlockDeviceCharacteristics(),
        LogicalBlockProvisioning(
            unmap=thin,
            write_same_16=thin,
            write_same_10=thin,
            reads_zeros=thin,
            provisioning_type=ProvisioningType.THIN if thin else ProvisioningType.FULL,
        ),
    )
    return {page.PAGE_CODE: page.pack() for page in pages}
