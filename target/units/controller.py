"""The standalone data mover's logical unit: a processor device with nothing but a copy manager."""

from serverfree.scsi.inquiry import DeviceType
from serverfree.target.units.base import Unit, merge_tables
from serverfree.target.units.primary import PRIMARY_TABLE
from serverfree.target.units.third_party import THIRD_PARTY_COPY_TABLE, ThirdPartyCopy


class CopyController(Unit):
    """A logical unit of device type 03h that houses a copy manager (SPC-4 5.17.2).

    Of the commands of processor devices it has none, as 5.17.2 b) allows.
    """

    TABLE = merge_tables(PRIMARY_TABLE, THIRD_PARTY_COPY_TABLE)
    kind = "copy-manager"
    device_type = DeviceType.PROCESSOR
    product = "DATA MOVER"

    def __init__(self, name: str, manager: ThirdPartyCopy, *, target: str = "") -> None:
        super().__init__(name, target=target)
        self.copy_manager = manager
