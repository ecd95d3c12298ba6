"""Block commands that happen wholly or not at all (SBC-4 5.3, 5.10, 5.11, 5.46)."""

from enum import IntEnum

from serverfree.scsi.cdb.layout import Cdb, at, bits, cdb, flag
from serverfree.scsi.opcodes import OperationCode, ServiceAction


@cdb(OperationCode.COMPARE_AND_WRITE)
class CompareAndWrite(Cdb):
    """5.3. `blocks` of data to compare with, then as many to write."""

    dpo: bool = flag(1, 4)
    fua: bool = flag(1, 3)
    fua_nv: bool = flag(1, 1)
    lba: int = at(2, 8)
    blocks: int = at(13)
    group: int = bits(14, 4, 5)


@cdb(OperationCode.ORWRITE_16)
class OrWrite16(Cdb):
    """5.10."""

    dpo: bool = flag(1, 4)
    fua: bool = flag(1, 3)
    fua_nv: bool = flag(1, 1)
    lba: int = at(2, 8)
    blocks: int = at(10, 4)
    group: int = bits(14, 4, 5)


class BitmapOperation(IntEnum):
    """BMOP of ORWRITE(32) (5.11)."""

    SET = 0b000
    CHANGE_GENERATION_AND_CLEAR = 0b001


@cdb(OperationCode.VARIABLE_LENGTH, ServiceAction.ORWRITE_32)
class OrWrite32(Cdb):
    """5.11."""

    bitmap_operation: int = bits(2, 2, 3)
    previous_generation_processing: int = bits(3, 3, 4)
    group: int = bits(6, 4, 5)
    dpo: bool = flag(10, 4)
    fua: bool = flag(10, 3)
    fua_nv: bool = flag(10, 1)
    lba: int = at(12, 8)
    expected_generation: int = at(20, 4)
    new_generation: int = at(24, 4)
    blocks: int = at(28, 4)


@cdb(OperationCode.WRITE_ATOMIC_16)
class WriteAtomic16(Cdb):
    """5.46. `boundary` 0: the whole of it is one atomic write."""

    dpo: bool = flag(1, 4)
    fua: bool = flag(1, 3)
    lba: int = at(2, 8)
    boundary: int = at(10, 2)
    blocks: int = at(12, 2)
    group: int = bits(14, 4, 5)
