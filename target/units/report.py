"""REPORT SUPPORTED OPERATION CODES (SPC-4 6.35), read off the opcode table, and TASK MANAGEMENT
FUNCTIONS (6.36), as the target has them."""

from struct import Struct

from serverfree.scsi.cdb.primary import (
    ReportingOptions,
    ReportSupportedOperationCodes,
    ReportSupportedTaskManagementFunctions,
)
from serverfree.scsi.errors import invalid_field_in_cdb
from serverfree.target.units.base import Unit
from serverfree.target.units.command import Command
from serverfree.target.units.table import Row

_COMMAND_DESCRIPTOR = Struct(">BxHxBH")  # 6.35.2: opcode, service action, CTDP and SERVACTV, length
_ONE_COMMAND = Struct(">xBH")  # 6.35.3: CTDP and SUPPORT, CDB size
_TIMEOUTS = Struct(">HxBII")  # 6.35.4
_FUNCTIONS = Struct(">HxB")  # 6.36: what is supported, additional length
_FUNCTION_TIMEOUTS = Struct(">4xII")  # no time is promised here either
_NOT_SUPPORTED, _SUPPORTED = 0b001, 0b011


def report_supported_operation_codes(unit: Unit, command: Command) -> bytes:
    """All commands, or one with the CDB bits that it honours."""
    cdb = ReportSupportedOperationCodes.unpack(command.cdb)
    if cdb.reporting_options == ReportingOptions.ALL:
        data = _all_commands(unit, timeouts=cdb.return_timeouts)
    else:
        data = _one_command(unit, _row_asked_for(unit, cdb), timeouts=cdb.return_timeouts)
    return data[: cdb.allocation_length]


def _row_asked_for(unit: Unit, cdb: ReportSupportedOperationCodes) -> Row | None:
    found = unit.dispatch.lookup(cdb.requested_operation_code)
    one_by_action = None if isinstance(found, Row) or found is None else found
    match cdb.reporting_options:
        case ReportingOptions.ONE_WITHOUT_SERVICE_ACTION:
            if one_by_action is not None:
                raise invalid_field_in_cdb(2, 2)
        case ReportingOptions.ONE_WITH_SERVICE_ACTION:
            if isinstance(found, Row):
                raise invalid_field_in_cdb(2, 2)
        case ReportingOptions.ONE:
            if isinstance(found, Row) and cdb.requested_service_action:
                return None
        case _:
            raise invalid_field_in_cdb(2, 2)
    if one_by_action is not None:
        return one_by_action.get(cdb.requested_service_action)
    return found if isinstance(found, Row) else None


def _timeouts() -> bytes:
    # No time is promised: "0: not indicated" for both, 6.35.4.
    return _TIMEOUTS.pack(_TIMEOUTS.size - 2, 0, 0, 0)


def _all_commands(unit: Unit, *, timeouts: bool) -> bytes:
    packed = b"".join(
        _COMMAND_DESCRIPTOR.pack(
            row.opcode,
            row.service_action or 0,
            timeouts << 1 | (row.service_action is not None),
            len(row.usage),
        )
        + (_timeouts() if timeouts else b"")
        for row in unit.dispatch.rows()
    )
    return len(packed).to_bytes(4, "big") + packed


def _one_command(unit: Unit, row: Row | None, *, timeouts: bool) -> bytes:
    if row is None:
        return _ONE_COMMAND.pack(_NOT_SUPPORTED, 0)
    return (
        _ONE_COMMAND.pack(timeouts << 7 | _SUPPORTED, len(row.usage))
        + row.usage_with(unit.dispatch.control)
        + (_timeouts() if timeouts else b"")
    )


def report_supported_task_management_functions(unit: Unit, command: Command) -> bytes:
    """What the target does for this unit."""
    cdb = ReportSupportedTaskManagementFunctions.unpack(command.cdb)
    extended = _FUNCTION_TIMEOUTS.pack(0, 0) if cdb.return_extended_data else b""
    data = _FUNCTIONS.pack(unit.task_management, len(extended)) + extended
    return data[: cdb.allocation_length]
