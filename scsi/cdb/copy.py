"""Commands of third-party copy (SPC-4 5.17.3)."""

from serverfree.scsi.cdb.layout import Cdb, at, cdb
from serverfree.scsi.opcodes import OperationCode, ServiceAction


@cdb(OperationCode.EXTENDED_COPY, ServiceAction.EXTENDED_COPY_LID1)
class ExtendedCopy(Cdb):
    """EXTENDED COPY(LID1), 6.5: what to copy is in the parameter list."""

    parameter_list_length: int = at(10, 4)


@cdb(OperationCode.RECEIVE_COPY_RESULTS, ServiceAction.RECEIVE_COPY_STATUS_LID1)
class ReceiveCopyStatus(Cdb):
    """RECEIVE COPY STATUS(LID1), 6.25."""

    list_identifier: int = at(2)
    allocation_length: int = at(10, 4)


@cdb(OperationCode.RECEIVE_COPY_RESULTS, ServiceAction.RECEIVE_COPY_OPERATING_PARAMETERS)
class ReceiveCopyOperatingParameters(Cdb):
    """6.22."""

    allocation_length: int = at(10, 4)


@cdb(OperationCode.RECEIVE_COPY_RESULTS, ServiceAction.RECEIVE_COPY_FAILURE_DETAILS_LID1)
class ReceiveCopyFailureDetails(Cdb):
    """RECEIVE COPY FAILURE DETAILS(LID1), 6.23."""

    list_identifier: int = at(2)
    allocation_length: int = at(10, 4)


@cdb(OperationCode.RECEIVE_COPY_RESULTS, ServiceAction.RECEIVE_COPY_DATA_LID1)
class ReceiveCopyData(Cdb):
    """RECEIVE COPY DATA(LID1), 6.21."""

    list_identifier: int = at(2)
    allocation_length: int = at(10, 4)


@cdb(OperationCode.EXTENDED_COPY, ServiceAction.EXTENDED_COPY_LID4)
class ExtendedCopyLid4(Cdb):
    """EXTENDED COPY(LID4), 6.4."""

    parameter_list_length: int = at(10, 4)


@cdb(OperationCode.EXTENDED_COPY, ServiceAction.COPY_OPERATION_ABORT)
class CopyOperationAbort(Cdb):
    """6.3."""

    list_identifier: int = at(2, 4)


@cdb(OperationCode.RECEIVE_COPY_RESULTS, ServiceAction.RECEIVE_COPY_STATUS_LID4)
class ReceiveCopyStatusLid4(Cdb):
    """RECEIVE COPY STATUS(LID4), 6.24."""

    list_identifier: int = at(2, 4)
    allocation_length: int = at(10, 4)


@cdb(OperationCode.RECEIVE_COPY_RESULTS, ServiceAction.RECEIVE_COPY_DATA_LID4)
class ReceiveCopyDataLid4(Cdb):
    """RECEIVE COPY DATA(LID4), 6.20."""

    list_identifier: int = at(2, 4)
    allocation_length: int = at(10, 4)


@cdb(OperationCode.EXTENDED_COPY, ServiceAction.POPULATE_TOKEN)
class PopulateToken(Cdb):
    """SBC-4 5.12: which blocks is in the parameter list."""

    list_identifier: int = at(6, 4)
    parameter_list_length: int = at(10, 4)


@cdb(OperationCode.EXTENDED_COPY, ServiceAction.WRITE_USING_TOKEN)
class WriteUsingToken(Cdb):
    """SBC-4 5.59: the token, and where to, is in the parameter list."""

    list_identifier: int = at(6, 4)
    parameter_list_length: int = at(10, 4)


@cdb(OperationCode.RECEIVE_COPY_RESULTS, ServiceAction.RECEIVE_ROD_TOKEN_INFORMATION)
class ReceiveRodTokenInformation(Cdb):
    """6.26."""

    list_identifier: int = at(2, 4)
    allocation_length: int = at(10, 4)


@cdb(OperationCode.RECEIVE_COPY_RESULTS, ServiceAction.REPORT_ALL_ROD_TOKENS)
class ReportAllRodTokens(Cdb):
    """6.31."""

    allocation_length: int = at(10, 4)


@cdb(OperationCode.MAINTENANCE_OUT, ServiceAction.CHANGE_ALIASES)
class ChangeAliases(Cdb):
    """6.2."""

    parameter_list_length: int = at(6, 4)


@cdb(OperationCode.MAINTENANCE_IN, ServiceAction.REPORT_ALIASES)
class ReportAliases(Cdb):
    """6.30."""

    allocation_length: int = at(6, 4)
