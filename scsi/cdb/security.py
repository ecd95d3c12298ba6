"""SECURITY PROTOCOL IN and OUT (SPC-4 6.40, 6.41)."""

from serverfree.scsi.cdb.layout import Cdb, at, cdb, flag
from serverfree.scsi.opcodes import OperationCode


@cdb(OperationCode.SECURITY_PROTOCOL_IN)
class SecurityProtocolIn(Cdb):
    """SECURITY PROTOCOL IN. With `increments` (INC_512) the length counts 512 bytes."""

    protocol: int = at(1)
    specific: int = at(2, 2)
    increments: bool = flag(4, 7)
    allocation_length: int = at(6, 4)


@cdb(OperationCode.SECURITY_PROTOCOL_OUT)
class SecurityProtocolOut(Cdb):
    """SECURITY PROTOCOL OUT."""

    protocol: int = at(1)
    specific: int = at(2, 2)
    increments: bool = flag(4, 7)
    transfer_length: int = at(6, 4)
