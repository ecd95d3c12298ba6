"""Block commands that are about the medium as a whole (SBC-4 5.4, 5.22 to 5.25, 5.30)."""

from serverfree.scsi.cdb.layout import Cdb, at, bits, cdb, flag
from serverfree.scsi.opcodes import OperationCode, ServiceAction


@cdb(OperationCode.FORMAT_UNIT)
class FormatUnit(Cdb):
    """5.4; its parameter list is in scsi.medium."""

    format_protection: int = bits(1, 7, 2)  # FMTPINFO
    long_list: bool = flag(1, 5)
    format_data: bool = flag(1, 4)  # FMTDATA
    complete_list: bool = flag(1, 3)  # CMPLST
    defect_list_format: int = bits(1, 2, 3)


@cdb(OperationCode.SANITIZE, ServiceAction.SANITIZE_OVERWRITE)
class SanitizeOverwrite(Cdb):
    """5.30.2.2; its parameter list is in scsi.medium."""

    immed: bool = flag(1, 7)
    allow_unrestricted_exit: bool = flag(1, 5)  # AUSE
    parameter_list_length: int = at(7, 2)


@cdb(OperationCode.SANITIZE, ServiceAction.SANITIZE_BLOCK_ERASE)
class SanitizeBlockErase(Cdb):
    """5.30.2.3."""

    immed: bool = flag(1, 7)
    allow_unrestricted_exit: bool = flag(1, 5)


@cdb(OperationCode.SANITIZE, ServiceAction.SANITIZE_CRYPTOGRAPHIC_ERASE)
class SanitizeCryptographicErase(Cdb):
    """5.30.2.4."""

    immed: bool = flag(1, 7)
    allow_unrestricted_exit: bool = flag(1, 5)


@cdb(OperationCode.SANITIZE, ServiceAction.SANITIZE_EXIT_FAILURE_MODE)
class SanitizeExitFailureMode(Cdb):
    """5.30.2.5."""

    immed: bool = flag(1, 7)
    allow_unrestricted_exit: bool = flag(1, 5)


@cdb(OperationCode.READ_DEFECT_DATA_10)
class ReadDefectData10(Cdb):
    """5.22."""

    primary: bool = flag(2, 4)  # REQ_PLIST
    grown: bool = flag(2, 3)  # REQ_GLIST
    format: int = bits(2, 2, 3)
    allocation_length: int = at(7, 2)


@cdb(OperationCode.READ_DEFECT_DATA_12)
class ReadDefectData12(Cdb):
    """5.23."""

    primary: bool = flag(1, 4)
    grown: bool = flag(1, 3)
    format: int = bits(1, 2, 3)
    first: int = at(2, 4)  # ADDRESS DESCRIPTOR INDEX
    allocation_length: int = at(6, 4)


@cdb(OperationCode.REASSIGN_BLOCKS)
class ReassignBlocks(Cdb):
    """5.24; its parameter list is in scsi.medium."""

    long_lba: bool = flag(1, 1)
    long_list: bool = flag(1, 0)
