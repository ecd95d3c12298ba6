"""The disk: a direct access block device (SBC-3) over a block store."""

from serverfree.target.units.base import merge_tables
from serverfree.target.units.block_device import BlockDevice
from serverfree.target.units.block_io import BLOCK_IO_TABLE
from serverfree.target.units.block_provisioning import BLOCK_PROVISIONING_TABLE
from serverfree.target.units.primary import PRIMARY_TABLE
from serverfree.target.units.reservation_commands import RESERVATION_TABLE
from serverfree.target.units.third_party import THIRD_PARTY_COPY_TABLE


class BlockUnit(BlockDevice):
    """A disk with all its commands; with a copy manager also those of third-party copy."""

    TABLE = merge_tables(
        PRIMARY_TABLE,
        RESERVATION_TABLE,
        BLOCK_IO_TABLE,
        BLOCK_PROVISIONING_TABLE,
        THIRD_PARTY_COPY_TABLE,
    )
