"""Third-party copy on a logical unit: the commands of its copy manager (SPC-4 5.17.3)."""

from collections.abc import Callable, Hashable
from typing import Any, Protocol

from serverfree.scsi.cdb.copy import (
    ExtendedCopy,
    ReceiveCopyFailureDetails,
    ReceiveCopyOperatingParameters,
    ReceiveCopyStatus,
)
from serverfree.scsi.device import Buffer
from serverfree.scsi.errors import illegal_request
from serverfree.scsi.sense import Asc
from serverfree.target.units.access import Access
from serverfree.target.units.command import Command, Lane
from serverfree.target.units.table import Row, Table, table_of


class ThirdPartyCopy(Protocol):
    """A copy manager as the logical unit that contains it sees it."""

    @property
    def maximum_parameter_list_length(self) -> int:
        """The longest parameter list that can be within its limits, in bytes."""

    def extended_copy(
        self, nexus: Hashable, parameter_list: Buffer, aborted: Callable[[], bool]
    ) -> None:
        """Carry out a parameter list of at least one byte; return when all of it is done.

        Looks at `aborted` between its steps. Raises CheckCondition.
        """

    def receive_copy_results(
        self, nexus: Hashable, service_action: int, list_identifier: int, allocation_length: int
    ) -> bytes:
        """Return the whole response of a command 84h, whatever the allocation length.

        The allocation length decides what was fetched and can be let go. Raises CheckCondition.
        """

    def vpd_page(self) -> bytes:
        """Return VPD page 8Fh, peripheral byte 0."""

    def forget(self, nexus: Hashable) -> None:
        """An I_T nexus is lost: so are the results kept for it."""

    def reset(self) -> None:
        """LOGICAL UNIT RESET: every copy ends, every result is let go."""


def _parameter_list_length(unit: Any, cdb: bytes) -> int:
    # A list that will be refused is not asked for.
    length = ExtendedCopy.unpack(cdb).parameter_list_length
    return length if length <= unit.copy_manager.maximum_parameter_list_length else 0


def _extended_copy(unit: Any, command: Command) -> None:
    manager: ThirdPartyCopy = unit.copy_manager
    length = ExtendedCopy.unpack(command.cdb).parameter_list_length
    if length > manager.maximum_parameter_list_length:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    if length:  # no list is no error and does nothing (6.4.1)
        parameter_list = memoryview(command.data_out)[:length]
        manager.extended_copy(command.nexus, parameter_list, lambda: command.aborted)


def _receive_copy_status(unit: Any, command: Command) -> bytes:
    cdb = ReceiveCopyStatus.unpack(command.cdb)
    return _receive(unit, command, cdb.list_identifier, cdb.allocation_length)


def _receive_operating_parameters(unit: Any, command: Command) -> bytes:
    cdb = ReceiveCopyOperatingParameters.unpack(command.cdb)
    return _receive(unit, command, 0, cdb.allocation_length)


def _receive_failure_details(unit: Any, command: Command) -> bytes:
    cdb = ReceiveCopyFailureDetails.unpack(command.cdb)
    return _receive(unit, command, cdb.list_identifier, cdb.allocation_length)


def _receive(unit: Any, command: Command, list_identifier: int, allocation_length: int) -> bytes:
    manager: ThirdPartyCopy = unit.copy_manager
    action = command.cdb[1] & 0x1F
    response = manager.receive_copy_results(
        command.nexus, action, list_identifier, allocation_length
    )
    return response[:allocation_length]


def _has_copy_manager(unit: Any) -> bool:
    return unit.copy_manager is not None


THIRD_PARTY_COPY_TABLE: Table = table_of(
    Row(
        "EXTENDED COPY(LID1)",
        ExtendedCopy.USAGE,
        _extended_copy,
        data_out=_parameter_list_length,
        lane=Lane.DETACHED,
        service_action=ExtendedCopy.SERVICE_ACTION,
        offered=_has_copy_manager,
    ),
    Row(
        "RECEIVE COPY STATUS(LID1)",
        ReceiveCopyStatus.USAGE,
        _receive_copy_status,
        service_action=ReceiveCopyStatus.SERVICE_ACTION,
        offered=_has_copy_manager,
        access=Access.ALWAYS,
    ),
    Row(
        "RECEIVE COPY OPERATING PARAMETERS",
        ReceiveCopyOperatingParameters.USAGE,
        _receive_operating_parameters,
        service_action=ReceiveCopyOperatingParameters.SERVICE_ACTION,
        offered=_has_copy_manager,
        access=Access.ALWAYS,
    ),
    Row(
        "RECEIVE COPY FAILURE DETAILS(LID1)",
        ReceiveCopyFailureDetails.USAGE,
        _receive_failure_details,
        service_action=ReceiveCopyFailureDetails.SERVICE_ACTION,
        offered=_has_copy_manager,
        access=Access.ALWAYS,
    ),
)
