"""Commands of every kind of device (SPC-4 chapter 6)."""

from enum import IntEnum

from serverfree.scsi.cdb.layout import Cdb, at, bits, cdb, flag
from serverfree.scsi.opcodes import OperationCode, ServiceAction


@cdb(OperationCode.TEST_UNIT_READY)
class TestUnitReady(Cdb):
    """6.47."""

    __test__ = False  # not a test case, whatever its name


@cdb(OperationCode.REQUEST_SENSE)
class RequestSense(Cdb):
    """6.39. `desc` asks for descriptor format."""

    desc: bool = flag(1, 0)
    allocation_length: int = at(4)


@cdb(OperationCode.INQUIRY)
class Inquiry(Cdb):
    """6.6."""

    evpd: bool = flag(1, 0)
    page_code: int = at(2)
    allocation_length: int = at(3, 2)


class SelectReport(IntEnum):
    """Which LUNs REPORT LUNS lists (6.33, table 293)."""

    ADDRESSED = 0x00
    WELL_KNOWN = 0x01
    ALL = 0x02


@cdb(OperationCode.REPORT_LUNS)
class ReportLuns(Cdb):
    """6.33."""

    select_report: int = at(2)
    allocation_length: int = at(6, 4)


class PageControl(IntEnum):
    """Which values MODE SENSE returns (6.13, table 174)."""

    CURRENT = 0
    CHANGEABLE = 1
    DEFAULT = 2
    SAVED = 3


@cdb(OperationCode.MODE_SENSE_6)
class ModeSense6(Cdb):
    """6.13."""

    disable_block_descriptors: bool = flag(1, 3)
    page_control: int = bits(2, 7, 2)
    page_code: int = bits(2, 5, 6)
    subpage_code: int = at(3)
    allocation_length: int = at(4)


@cdb(OperationCode.MODE_SENSE_10)
class ModeSense10(Cdb):
    """6.14."""

    long_lba_accepted: bool = flag(1, 4)
    disable_block_descriptors: bool = flag(1, 3)
    page_control: int = bits(2, 7, 2)
    page_code: int = bits(2, 5, 6)
    subpage_code: int = at(3)
    allocation_length: int = at(7, 2)


@cdb(OperationCode.MODE_SELECT_6)
class ModeSelect6(Cdb):
    """6.11."""

    page_format: bool = flag(1, 4, default=True)
    save_pages: bool = flag(1, 0)
    parameter_list_length: int = at(4)


@cdb(OperationCode.MODE_SELECT_10)
class ModeSelect10(Cdb):
    """6.12."""

    page_format: bool = flag(1, 4, default=True)
    save_pages: bool = flag(1, 0)
    parameter_list_length: int = at(7, 2)


class ReportingOptions(IntEnum):
    """What REPORT SUPPORTED OPERATION CODES is asked (6.35, table 295)."""

    ALL = 0b000
    ONE_WITHOUT_SERVICE_ACTION = 0b001
    ONE_WITH_SERVICE_ACTION = 0b010
    ONE = 0b011


@cdb(OperationCode.MAINTENANCE_IN, ServiceAction.REPORT_SUPPORTED_OPERATION_CODES)
class ReportSupportedOperationCodes(Cdb):
    """6.35."""

    return_timeouts: bool = flag(2, 7)
    reporting_options: int = bits(2, 2, 3)
    requested_operation_code: int = at(3)
    requested_service_action: int = at(4, 2)
    allocation_length: int = at(6, 4)


@cdb(OperationCode.MAINTENANCE_IN, ServiceAction.REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS)
class ReportSupportedTaskManagementFunctions(Cdb):
    """6.36."""

    return_extended_data: bool = flag(2, 7)
    allocation_length: int = at(6, 4)
