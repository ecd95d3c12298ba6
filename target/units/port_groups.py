"""Asymmetric logical unit access: a state for each target port group (SPC-4 5.16.2).

A portal group is a target port, and a target port group by itself.
"""

from collections.abc import Callable, Sequence
from typing import Any

from serverfree.scsi.cdb.management import ReportTargetPortGroups, SetTargetPortGroups
from serverfree.scsi.designator import ISCSI, Association, Designator, DesignatorType
from serverfree.scsi.errors import (
    CheckCondition,
    illegal_request,
    invalid_field_in_cdb,
    invalid_field_in_parameter_list,
)
from serverfree.scsi.opcodes import OperationCode
from serverfree.scsi.port_groups import (
    AccessState,
    Cause,
    PortGroup,
    pack_port_groups,
    unpack_set_port_groups,
)
from serverfree.scsi.sense import Asc, Sense, SenseKey
from serverfree.target.units.access import Access
from serverfree.target.units.base import Row, Table, table_of
from serverfree.target.units.command import Command, Nexus
from serverfree.target.units.ports import relative_port

_LONGEST_LIST = 4096

_IN_UNAVAILABLE = frozenset(
    {
        OperationCode.INQUIRY,
        OperationCode.REPORT_LUNS,
        OperationCode.MAINTENANCE_IN,
        OperationCode.MAINTENANCE_OUT,
        OperationCode.REQUEST_SENSE,
        OperationCode.READ_BUFFER,
        OperationCode.WRITE_BUFFER,
    }
)
_IN_STANDBY = _IN_UNAVAILABLE | {
    OperationCode.LOG_SELECT,
    OperationCode.LOG_SENSE,
    OperationCode.MODE_SELECT_6,
    OperationCode.MODE_SELECT_10,
    OperationCode.MODE_SENSE_6,
    OperationCode.MODE_SENSE_10,
    OperationCode.PERSISTENT_RESERVE_IN,
    OperationCode.PERSISTENT_RESERVE_OUT,
    OperationCode.RECEIVE_DIAGNOSTIC_RESULTS,
    OperationCode.SEND_DIAGNOSTIC,
}
# State -> what is still processed (5.16.2.4.4, 5.16.2.4.5), and why the rest is not.
_RESTRICTED = {
    AccessState.STANDBY: (
        _IN_STANDBY,
        Asc.LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_STANDBY_STATE,
    ),
    AccessState.UNAVAILABLE: (
        _IN_UNAVAILABLE,
        Asc.LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_UNAVAILABLE_STATE,
    ),
}


class PortGroups:
    """The access states of one unit by target port group, active/optimized where none was set."""

    def __init__(self, ports: Callable[[], Sequence[int]], changed: Callable[[bool], None]) -> None:
        self._ports = ports
        self._changed = changed
        self._states: dict[int, AccessState] = {}
        self._cause = Cause.NONE

    def groups(self) -> list[PortGroup]:
        """Return every group."""
        return [PortGroup(port, self._state(port), (port,), self._cause) for port in self._ports()]

    def set(self, states: Sequence[tuple[int, int]]) -> bool:
        """Set states that `groups` may have; return whether anything changed. Raises 5/26/00."""
        known = self._ports()
        changed = dict(self._states)
        for index, (group, code) in enumerate(states):
            if group not in known:
                raise invalid_field_in_parameter_list(4 + 4 * index + 2)
            try:
                changed[group] = AccessState(code)
            except ValueError:
                raise invalid_field_in_parameter_list(4 + 4 * index, 3) from None
        before, self._states = self._states, changed
        self._cause = Cause.SET_TARGET_PORT_GROUPS
        self._changed(any(state in _RESTRICTED for state in changed.values()))
        return before != changed

    def check(self, row: Row, command: Command) -> None:
        """Refuse what the state of the command's port does not allow."""
        restricted = _RESTRICTED.get(self._state(relative_port(command.nexus)))
        if restricted is not None and row.opcode not in restricted[0]:
            raise CheckCondition(Sense(SenseKey.NOT_READY, restricted[1]))

    def _state(self, group: int) -> AccessState:
        return self._states.get(group, AccessState.ACTIVE_OPTIMIZED)


def port_designators(nexus: Nexus) -> tuple[Designator, ...]:
    """The target port of a nexus, and its group, as VPD page 83h names them (7.8.6)."""
    port = bytes(2) + relative_port(nexus).to_bytes(2, "big")
    return tuple(
        Designator(kind, port, association=Association.TARGET_PORT, protocol=ISCSI)
        for kind in (DesignatorType.RELATIVE_TARGET_PORT, DesignatorType.TARGET_PORT_GROUP)
    )


def _report_target_port_groups(unit: Any, command: Command) -> bytes:
    cdb = ReportTargetPortGroups.unpack(command.cdb)
    if cdb.format > 1:
        raise invalid_field_in_cdb(1, 7)
    groups = unit.port_groups.groups()
    return pack_port_groups(groups, extended=bool(cdb.format))[: cdb.allocation_length]


def _set_target_port_groups(unit: Any, command: Command) -> None:
    length = SetTargetPortGroups.unpack(command.cdb).parameter_list_length
    if not length:
        return
    try:
        if length > _LONGEST_LIST or len(command.data_out) < length:
            raise ValueError("too long, or cut short")
        states = unpack_set_port_groups(command.data_out[:length])
    except ValueError:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR) from None
    if unit.port_groups.set(states):
        unit.raise_attention(Asc.ASYMMETRIC_ACCESS_STATE_CHANGED, but=command.nexus)


def _set_length(unit: Any, cdb: bytes) -> int:
    length = SetTargetPortGroups.unpack(cdb).parameter_list_length
    return length if length <= _LONGEST_LIST else 0


PORT_GROUP_TABLE: Table = table_of(
    Row(
        "REPORT TARGET PORT GROUPS",
        ReportTargetPortGroups.USAGE,
        _report_target_port_groups,
        service_action=ReportTargetPortGroups.SERVICE_ACTION,
        access=Access.ALWAYS,
    ),
    Row(
        "SET TARGET PORT GROUPS",
        SetTargetPortGroups.USAGE,
        _set_target_port_groups,
        data_out=_set_length,
        service_action=SetTargetPortGroups.SERVICE_ACTION,
    ),
)
