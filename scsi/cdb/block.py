"""Commands of block devices (SBC-3 chapter 5). `lba` and `blocks` count logical blocks.

Protection information is not spoken here, so RDPROTECT, WRPROTECT and VRPROTECT are no fields: zero
when sent, and refused by the gate when they arrive otherwise. `group` (4.23) asks for statistics of
a group of blocks; `dpo` and the obsolete `fua_nv` and `sync_nv` (SBC-2) give hints about caches.
"""

from enum import IntEnum

from serverfree.scsi.cdb.layout import Cdb, at, bits, cdb, flag
from serverfree.scsi.opcodes import OperationCode, ServiceAction

BLOCKS_OF_ZERO_6 = 256  # what 0 means as the length of READ(6) and WRITE(6)


@cdb(OperationCode.READ_CAPACITY_10)
class ReadCapacity10(Cdb):
    """5.15. Its LBA and PMI fields are obsolete."""


@cdb(OperationCode.SERVICE_ACTION_IN_16, ServiceAction.READ_CAPACITY_16)
class ReadCapacity16(Cdb):
    """5.16. Its LBA and PMI fields are obsolete."""

    allocation_length: int = at(10, 4)


@cdb(OperationCode.READ_6)
class Read6(Cdb):
    """5.10 of SBC-2. `blocks` 0 means 256."""

    lba: int = bits(1, 4, 21)
    blocks: int = at(4)


@cdb(OperationCode.READ_10)
class Read10(Cdb):
    """5.11."""

    dpo: bool = flag(1, 4)
    fua: bool = flag(1, 3)
    fua_nv: bool = flag(1, 1)
    lba: int = at(2, 4)
    group: int = bits(6, 4, 5)
    blocks: int = at(7, 2)


@cdb(OperationCode.READ_12)
class Read12(Cdb):
    """5.12."""

    dpo: bool = flag(1, 4)
    fua: bool = flag(1, 3)
    fua_nv: bool = flag(1, 1)
    lba: int = at(2, 4)
    blocks: int = at(6, 4)
    group: int = bits(10, 4, 5)


@cdb(OperationCode.READ_16)
class Read16(Cdb):
    """5.13."""

    dpo: bool = flag(1, 4)
    fua: bool = flag(1, 3)
    fua_nv: bool = flag(1, 1)
    lba: int = at(2, 8)
    blocks: int = at(10, 4)
    group: int = bits(14, 4, 5)


@cdb(OperationCode.WRITE_6)
class Write6(Cdb):
    """5.29 of SBC-2. `blocks` 0 means 256."""

    lba: int = bits(1, 4, 21)
    blocks: int = at(4)


@cdb(OperationCode.WRITE_10)
class Write10(Cdb):
    """5.33."""

    dpo: bool = flag(1, 4)
    fua: bool = flag(1, 3)
    fua_nv: bool = flag(1, 1)
    lba: int = at(2, 4)
    group: int = bits(6, 4, 5)
    blocks: int = at(7, 2)


@cdb(OperationCode.WRITE_12)
class Write12(Cdb):
    """5.34."""

    dpo: bool = flag(1, 4)
    fua: bool = flag(1, 3)
    fua_nv: bool = flag(1, 1)
    lba: int = at(2, 4)
    blocks: int = at(6, 4)
    group: int = bits(10, 4, 5)


@cdb(OperationCode.WRITE_16)
class Write16(Cdb):
    """5.35."""

    dpo: bool = flag(1, 4)
    fua: bool = flag(1, 3)
    fua_nv: bool = flag(1, 1)
    lba: int = at(2, 8)
    blocks: int = at(10, 4)
    group: int = bits(14, 4, 5)


class ByteCheck(IntEnum):
    """BYTCHK: what VERIFY compares (5.29, table 105)."""

    MEDIUM = 0b00  # that the medium can be read; no data goes out
    DATA = 0b01  # the blocks with as many blocks of data-out
    ONE_BLOCK = 0b11  # every block with the one block of data-out


@cdb(OperationCode.WRITE_AND_VERIFY_10)
class WriteAndVerify10(Cdb):
    """5.37."""

    dpo: bool = flag(1, 4)
    byte_check: int = bits(1, 2, 2)
    lba: int = at(2, 4)
    group: int = bits(6, 4, 5)
    blocks: int = at(7, 2)


@cdb(OperationCode.WRITE_AND_VERIFY_12)
class WriteAndVerify12(Cdb):
    """5.38."""

    dpo: bool = flag(1, 4)
    byte_check: int = bits(1, 2, 2)
    lba: int = at(2, 4)
    blocks: int = at(6, 4)
    group: int = bits(10, 4, 5)


@cdb(OperationCode.WRITE_AND_VERIFY_16)
class WriteAndVerify16(Cdb):
    """5.39."""

    dpo: bool = flag(1, 4)
    byte_check: int = bits(1, 2, 2)
    lba: int = at(2, 8)
    blocks: int = at(10, 4)
    group: int = bits(14, 4, 5)


@cdb(OperationCode.VERIFY_10)
class Verify10(Cdb):
    """5.29."""

    dpo: bool = flag(1, 4)
    byte_check: int = bits(1, 2, 2)
    lba: int = at(2, 4)
    group: int = bits(6, 4, 5)
    blocks: int = at(7, 2)


@cdb(OperationCode.VERIFY_12)
class Verify12(Cdb):
    """5.30."""

    dpo: bool = flag(1, 4)
    byte_check: int = bits(1, 2, 2)
    lba: int = at(2, 4)
    blocks: int = at(6, 4)
    group: int = bits(10, 4, 5)


@cdb(OperationCode.VERIFY_16)
class Verify16(Cdb):
    """5.31."""

    dpo: bool = flag(1, 4)
    byte_check: int = bits(1, 2, 2)
    lba: int = at(2, 8)
    blocks: int = at(10, 4)
    group: int = bits(14, 4, 5)


@cdb(OperationCode.PRE_FETCH_10)
class PreFetch10(Cdb):
    """5.8. `blocks` 0 means up to the last block."""

    immed: bool = flag(1, 1)
    lba: int = at(2, 4)
    group: int = bits(6, 4, 5)
    blocks: int = at(7, 2)


@cdb(OperationCode.PRE_FETCH_16)
class PreFetch16(Cdb):
    """5.9. `blocks` 0 means up to the last block."""

    immed: bool = flag(1, 1)
    lba: int = at(2, 8)
    blocks: int = at(10, 4)
    group: int = bits(14, 4, 5)


@cdb(OperationCode.SYNCHRONIZE_CACHE_10)
class SynchronizeCache10(Cdb):
    """5.24. `blocks` 0 means up to the last block."""

    sync_nv: bool = flag(1, 2)
    immed: bool = flag(1, 1)
    lba: int = at(2, 4)
    group: int = bits(6, 4, 5)
    blocks: int = at(7, 2)


@cdb(OperationCode.SYNCHRONIZE_CACHE_16)
class SynchronizeCache16(Cdb):
    """5.25. `blocks` 0 means up to the last block."""

    sync_nv: bool = flag(1, 2)
    immed: bool = flag(1, 1)
    lba: int = at(2, 8)
    blocks: int = at(10, 4)
    group: int = bits(14, 4, 5)


@cdb(OperationCode.UNMAP)
class Unmap(Cdb):
    """5.28; its parameter list is in scsi.provisioning."""

    anchor: bool = flag(1, 0)
    group: int = bits(6, 4, 5)
    parameter_list_length: int = at(7, 2)


@cdb(OperationCode.WRITE_SAME_10)
class WriteSame10(Cdb):
    """5.42. `blocks` 0 means up to the last block, where WSNZ of block limits allows that."""

    anchor: bool = flag(1, 4)
    unmap: bool = flag(1, 3)
    lba: int = at(2, 4)
    group: int = bits(6, 4, 5)
    blocks: int = at(7, 2)


@cdb(OperationCode.WRITE_SAME_16)
class WriteSame16(Cdb):
    """5.43. With `ndob` there is no data-out and the block is all zeros."""

    anchor: bool = flag(1, 4)
    unmap: bool = flag(1, 3)
    ndob: bool = flag(1, 0)
    lba: int = at(2, 8)
    blocks: int = at(10, 4)
    group: int = bits(14, 4, 5)


@cdb(OperationCode.SERVICE_ACTION_IN_16, ServiceAction.GET_LBA_STATUS)
class GetLbaStatus(Cdb):
    """5.3; its parameter data is in scsi.provisioning."""

    lba: int = at(2, 8)
    allocation_length: int = at(10, 4)


@cdb(OperationCode.START_STOP_UNIT)
class StartStopUnit(Cdb):
    """5.21."""

    immed: bool = flag(1, 0)
    power_condition_modifier: int = bits(3, 3, 4)
    power_condition: int = bits(4, 7, 4)
    no_flush: bool = flag(4, 2)
    load_eject: bool = flag(4, 1)
    start: bool = flag(4, 0)
