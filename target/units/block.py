"""The disk: a direct access block device (SBC-3) over a block store."""

from serverfree.target.units.base import merge_tables
from serverfree.target.units.block_atomic import BLOCK_ATOMIC_TABLE
from serverfree.target.units.block_device import BlockDevice
from serverfree.target.units.block_io import BLOCK_IO_TABLE
from serverfree.target.units.block_medium import BLOCK_MEDIUM_TABLE
from serverfree.target.units.block_provisioning import BLOCK_PROVISIONING_TABLE
from serverfree.target.units.block_sanitize import BLOCK_SANITIZE_TABLE
from serverfree.target.units.data_buffer import BUFFER_TABLE
from serverfree.target.units.diagnostics import DIAGNOSTIC_TABLE
from serverfree.target.units.identity import IDENTITY_TABLE
from serverfree.target.units.logs import LOG_TABLE
from serverfree.target.units.port_groups import PORT_GROUP_TABLE
from serverfree.target.units.primary import MODE_SELECT_SAVING_TABLE, PRIMARY_TABLE
from serverfree.target.units.reservation_commands import RESERVATION_TABLE
from serverfree.target.units.third_party import THIRD_PARTY_COPY_TABLE


class BlockUnit(BlockDevice):
    """A disk with all its commands; with a copy manager also those of third-party copy."""

    TABLE = merge_tables(
        PRIMARY_TABLE,
        RESERVATION_TABLE,
        BLOCK_IO_TABLE,
        BLOCK_PROVISIONING_TABLE,
        BLOCK_ATOMIC_TABLE,
        BLOCK_MEDIUM_TABLE,
        BLOCK_SANITIZE_TABLE,
        MODE_SELECT_SAVING_TABLE,
        LOG_TABLE,
        DIAGNOSTIC_TABLE,
        BUFFER_TABLE,
        IDENTITY_TABLE,
        PORT_GROUP_TABLE,
        THIRD_PARTY_COPY_TABLE,
    )
