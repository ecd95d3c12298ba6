"""Commands of third-party copy, those with one-byte list identifiers (SPC-4 5.17.3)."""

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
