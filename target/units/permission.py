"""What one nexus may do at one logical unit, where it may not do everything.

The gate asks once for each command of such a nexus; whoever may do everything is not asked for.
"""

from dataclasses import dataclass

from serverfree.scsi.inquiry import DeviceType
from serverfree.scsi.opcodes import VARIABLE_LENGTH_CDB, ServiceAction
from serverfree.scsi.sense import Asc, Sense, SenseKey

# Commands that change what is on the medium (SBC-4 table 13, SSC-3 table 12), by device type. An
# operation code with service actions counts as a whole, but for those of READ_ACTIONS.
ALTERING: dict[int, frozenset[int]] = {
    DeviceType.DISK: frozenset(
        (
            *(0x04, 0x07, 0x48),  # FORMAT UNIT, REASSIGN BLOCKS, SANITIZE
            *(0x0A, 0x2A, 0xAA, 0x8A, 0x7F),  # WRITE(6), (10), (12), (16), (32)
            *(0x2E, 0xAE, 0x8E),  # WRITE AND VERIFY
            *(0x41, 0x93, 0x42),  # WRITE SAME(10), (16), UNMAP
            *(0x89, 0x8B, 0x9C),  # COMPARE AND WRITE, ORWRITE(16), WRITE ATOMIC(16)
            *(0x3F, 0x9F),  # WRITE LONG(10), (16)
            *(0x51, 0x53, 0x50),  # XPWRITE, XDWRITEREAD, XDWRITE
        )
    ),
    DeviceType.TAPE: frozenset(
        (
            *(0x04, 0x0B),  # FORMAT MEDIUM, SET CAPACITY
            *(0x0A, 0x8A),  # WRITE(6), (16)
            *(0x10, 0x80),  # WRITE FILEMARKS(6), (16)
            *(0x19, 0x93),  # ERASE(6), (16)
            *(0x8D, 0x82),  # WRITE ATTRIBUTE, ALLOW OVERWRITE
        )
    ),
}
READ_ACTIONS = {
    VARIABLE_LENGTH_CDB: frozenset(
        (ServiceAction.READ_32, ServiceAction.VERIFY_32, ServiceAction.GET_LBA_STATUS_32)
    )
}


@dataclass(frozen=True, slots=True)
class Permission:
    """What a nexus may do. `read_only`: nothing that changes the medium."""

    read_only: bool = False

    def refusal(self, device_type: int, cdb: bytes) -> Sense | None:
        """Return the sense that refuses a CDB, None if it may run."""
        opcode = cdb[0]
        if not self.read_only or opcode not in ALTERING.get(device_type, ()):
            return None
        actions = READ_ACTIONS.get(opcode)
        if actions is not None and int.from_bytes(cdb[8:10], "big") in actions:
            return None
        return Sense(SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)


EVERYTHING = Permission()
