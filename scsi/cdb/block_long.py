"""Block commands with a CDB of 32 bytes (SBC-4 chapter 5).

What they have beyond the 16-byte ones is for protection information, which is not spoken here:
those fields are reserved. BMOP, PREVIOUS GENERATION PROCESSING and the like are in block_atomic.
"""

from serverfree.scsi.cdb.layout import Cdb, at, bits, cdb, flag
from serverfree.scsi.opcodes import OperationCode, ServiceAction


@cdb(OperationCode.VARIABLE_LENGTH, ServiceAction.READ_32)
class Read32(Cdb):
    """5.19."""

    group: int = bits(6, 4, 5)
    dpo: bool = flag(10, 4)
    fua: bool = flag(10, 3)
    lba: int = at(12, 8)
    blocks: int = at(28, 4)


@cdb(OperationCode.VARIABLE_LENGTH, ServiceAction.WRITE_32)
class Write32(Cdb):
    """5.43."""

    group: int = bits(6, 4, 5)
    dpo: bool = flag(10, 4)
    fua: bool = flag(10, 3)
    lba: int = at(12, 8)
    blocks: int = at(28, 4)


@cdb(OperationCode.VARIABLE_LENGTH, ServiceAction.VERIFY_32)
class Verify32(Cdb):
    """5.39."""

    group: int = bits(6, 4, 5)
    dpo: bool = flag(10, 4)
    byte_check: int = bits(10, 2, 2)
    lba: int = at(12, 8)
    blocks: int = at(28, 4)


@cdb(OperationCode.VARIABLE_LENGTH, ServiceAction.WRITE_AND_VERIFY_32)
class WriteAndVerify32(Cdb):
    """5.47."""

    group: int = bits(6, 4, 5)
    dpo: bool = flag(10, 4)
    byte_check: int = bits(10, 2, 2)
    lba: int = at(12, 8)
    blocks: int = at(28, 4)


@cdb(OperationCode.VARIABLE_LENGTH, ServiceAction.WRITE_SAME_32)
class WriteSame32(Cdb):
    """5.54. With `ndob` there is no data-out and the block is all zeros."""

    group: int = bits(6, 4, 5)
    anchor: bool = flag(10, 4)
    unmap: bool = flag(10, 3)
    ndob: bool = flag(10, 0)
    lba: int = at(12, 8)
    blocks: int = at(28, 4)


@cdb(OperationCode.VARIABLE_LENGTH, ServiceAction.GET_LBA_STATUS_32)
class GetLbaStatus32(Cdb):
    """5.7. `report_type` 0: every LBA from `lba` on; `scan_length` 0: to the end."""

    report_type: int = at(10)
    lba: int = at(12, 8)
    scan_length: int = at(20, 4)
    element_identifier: int = at(24, 4)
    allocation_length: int = at(28, 4)
