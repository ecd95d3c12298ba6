"""Commands that manage a unit rather than use it (SPC-4 chapter 6)."""

from serverfree.scsi.cdb.layout import Cdb, at, bits, cdb, flag
from serverfree.scsi.opcodes import OperationCode, ServiceAction


@cdb(OperationCode.LOG_SELECT)
class LogSelect(Cdb):
    """6.7. `reset` (PCR) sets parameters to zero, `save` (SP) saves them."""

    reset: bool = flag(1, 1)
    save: bool = flag(1, 0)
    page_control: int = bits(2, 7, 2)
    page_code: int = bits(2, 5, 6)
    subpage_code: int = at(3)
    parameter_list_length: int = at(7, 2)


@cdb(OperationCode.LOG_SENSE)
class LogSense(Cdb):
    """6.8."""

    save: bool = flag(1, 0)
    page_control: int = bits(2, 7, 2)
    page_code: int = bits(2, 5, 6)
    subpage_code: int = at(3)
    parameter_pointer: int = at(5, 2)
    allocation_length: int = at(7, 2)


@cdb(OperationCode.SEND_DIAGNOSTIC)
class SendDiagnostic(Cdb):
    """6.42."""

    self_test_code: int = bits(1, 7, 3)
    page_format: bool = flag(1, 4)
    self_test: bool = flag(1, 2)
    device_offline: bool = flag(1, 1)
    unit_offline: bool = flag(1, 0)
    parameter_list_length: int = at(3, 2)


@cdb(OperationCode.RECEIVE_DIAGNOSTIC_RESULTS)
class ReceiveDiagnosticResults(Cdb):
    """6.28."""

    page_code_valid: bool = flag(1, 0)
    page_code: int = at(2)
    allocation_length: int = at(3, 2)


@cdb(OperationCode.READ_BUFFER)
class ReadBuffer(Cdb):
    """6.18."""

    mode: int = bits(1, 4, 5)
    buffer: int = at(2)
    offset: int = at(3, 3)
    allocation_length: int = at(6, 3)


@cdb(OperationCode.WRITE_BUFFER)
class WriteBuffer(Cdb):
    """6.49."""

    mode: int = bits(1, 4, 5)
    buffer: int = at(2)
    offset: int = at(3, 3)
    parameter_list_length: int = at(6, 3)


@cdb(OperationCode.MAINTENANCE_IN, ServiceAction.REPORT_IDENTIFYING_INFORMATION)
class ReportIdentifyingInformation(Cdb):
    """6.32."""

    allocation_length: int = at(6, 4)
    type: int = bits(10, 7, 7)


@cdb(OperationCode.MAINTENANCE_OUT, ServiceAction.SET_IDENTIFYING_INFORMATION)
class SetIdentifyingInformation(Cdb):
    """6.43."""

    parameter_list_length: int = at(6, 4)
    type: int = bits(10, 7, 7)


@cdb(OperationCode.MAINTENANCE_IN, ServiceAction.REPORT_TIMESTAMP)
class ReportTimestamp(Cdb):
    """6.38."""

    allocation_length: int = at(6, 4)


@cdb(OperationCode.MAINTENANCE_OUT, ServiceAction.SET_TIMESTAMP)
class SetTimestamp(Cdb):
    """6.46."""

    parameter_list_length: int = at(6, 4)


@cdb(OperationCode.MAINTENANCE_IN, ServiceAction.REPORT_TARGET_PORT_GROUPS)
class ReportTargetPortGroups(Cdb):
    """6.37. `format` 1 asks for the extended header."""

    format: int = bits(1, 7, 3)
    allocation_length: int = at(6, 4)


@cdb(OperationCode.MAINTENANCE_OUT, ServiceAction.SET_TARGET_PORT_GROUPS)
class SetTargetPortGroups(Cdb):
    """6.45."""

    parameter_list_length: int = at(6, 4)
