"""Third-party copy on a logical unit: the commands of its copy manager (SPC-4 5.17.3)."""

from collections.abc import Callable, Hashable
from typing import Any, Protocol

from serverfree.scsi.cdb.copy import (
    ChangeAliases,
    CopyOperationAbort,
    ExtendedCopy,
    ExtendedCopyLid4,
    PopulateToken,
    ReceiveCopyData,
    ReceiveCopyDataLid4,
    ReceiveCopyFailureDetails,
    ReceiveCopyOperatingParameters,
    ReceiveCopyStatus,
    ReceiveCopyStatusLid4,
    ReceiveRodTokenInformation,
    ReportAliases,
    ReportAllRodTokens,
    WriteUsingToken,
)
from serverfree.scsi.cdb.layout import Cdb
from serverfree.scsi.device import Buffer
from serverfree.scsi.errors import CheckCondition, illegal_request
from serverfree.scsi.sense import Asc, Sense, SenseKey
from serverfree.target.units.access import Access
from serverfree.target.units.command import Command, Lane, Reply
from serverfree.target.units.table import SERVICE_ACTION_MASK, Row, Table, table_of


class ThirdPartyCopy(Protocol):
    """A copy manager as the logical unit that contains it sees it."""

    @property
    def maximum_parameter_list_length(self) -> int:
        """The longest parameter list that can be within its limits, in bytes."""

    def extended_copy(
        self,
        nexus: Hashable,
        parameter_list: Buffer,
        aborted: Callable[[], bool],
        *,
        lid4: bool = False,
    ) -> Sense | None:
        """Carry out a parameter list of at least one byte, of EXTENDED COPY(LID4) with `lid4`.

        Returns when all of it is done or goes on in the background; the sense data that is to go
        with GOOD. Looks at `aborted` between its steps. Raises CheckCondition.
        """

    def copy_operation_abort(
        self, nexus: Hashable, list_identifier: int, aborted: Callable[[], bool]
    ) -> None:
        """End a copy under way; return when nothing of it moves any more. Raises CheckCondition."""

    def receive_copy_results(
        self, nexus: Hashable, service_action: int, list_identifier: int, allocation_length: int
    ) -> bytes:
        """Return the whole response of a command 84h, whatever the allocation length.

        The allocation length decides what was fetched and can be let go. Raises CheckCondition.
        """

    @property
    def makes_tokens(self) -> bool:
        """Whether it knows POPULATE TOKEN and WRITE USING TOKEN."""

    @property
    def knows_tokens(self) -> bool:
        """Whether it knows RECEIVE ROD TOKEN INFORMATION and REPORT ALL ROD TOKENS."""

    def populate_token(
        self,
        nexus: Hashable,
        list_identifier: int,
        parameter_list: Buffer,
        aborted: Callable[[], bool],
    ) -> None:
        """Make a token by a parameter list of at least one byte. Raises CheckCondition."""

    def write_using_token(
        self,
        nexus: Hashable,
        list_identifier: int,
        parameter_list: Buffer,
        aborted: Callable[[], bool],
    ) -> None:
        """Write what a token stands for; return when it is done or goes on in the background.

        Looks at `aborted` between its steps. Raises CheckCondition.
        """

    @property
    def has_aliases(self) -> bool:
        """Whether it knows CHANGE ALIASES and REPORT ALIASES."""

    def change_aliases(self, nexus: Hashable, parameter_list: Buffer) -> None:
        """Change the alias list of a nexus. Raises CheckCondition."""

    def report_aliases(self, nexus: Hashable) -> bytes:
        """Return the whole response of REPORT ALIASES."""

    def vpd_page(self) -> bytes:
        """Return VPD page 8Fh, peripheral byte 0."""

    def forget(self, nexus: Hashable) -> None:
        """An I_T nexus is lost: so are the results kept for it."""

    def reset(self) -> None:
        """LOGICAL UNIT RESET: every copy ends, every result is let go."""


def _stated_length(cdb: bytes) -> int:
    return int.from_bytes(cdb[10:14], "big")  # LID1 and LID4 alike


def _parameter_list_length(unit: Any, cdb: bytes) -> int:
    # A list that will be refused is not asked for.
    length = _stated_length(cdb)
    return length if length <= unit.copy_manager.maximum_parameter_list_length else 0


def _extended_copy(unit: Any, command: Command) -> Reply | None:
    manager: ThirdPartyCopy = unit.copy_manager
    length = _stated_length(command.cdb)
    if length > manager.maximum_parameter_list_length:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    if not length:
        return None  # no list is no error and does nothing (6.4.1)
    sense = manager.extended_copy(
        command.nexus,
        memoryview(command.data_out)[:length],
        lambda: command.aborted,
        lid4=command.cdb[1] & SERVICE_ACTION_MASK == ExtendedCopyLid4.SERVICE_ACTION,
    )
    return None if sense is None else Reply(sense=sense)


def _copy_operation_abort(unit: Any, command: Command) -> None:
    cdb = CopyOperationAbort.unpack(command.cdb)
    unit.copy_manager.copy_operation_abort(
        command.nexus, cdb.list_identifier, lambda: command.aborted
    )


_LONGEST_TOKEN_LIST = (1 << 16) + 1  # bytes that its own length field can tell


def _token_list_length(unit: Any, cdb: bytes) -> int:
    length = _stated_length(cdb)
    return length if length <= _LONGEST_TOKEN_LIST else 0


def _token_command(kind: type[PopulateToken | WriteUsingToken]) -> Callable[[Any, Command], None]:
    """Return what runs POPULATE TOKEN or WRITE USING TOKEN."""
    populates = kind is PopulateToken

    def run(unit: Any, command: Command) -> None:
        cdb = kind.unpack(command.cdb)
        length = cdb.parameter_list_length
        if length > _LONGEST_TOKEN_LIST:
            raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
        manager: ThirdPartyCopy = unit.copy_manager
        act = manager.populate_token if populates else manager.write_using_token
        if not populates:
            unit.require_writable()
            if unit.permission(command.nexus).read_only:
                raise CheckCondition(Sense(SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED))
        unit.require_ready()
        if length:  # no list is no error and does nothing (SBC-4 5.12.1, 5.59.1)
            parameter_list = memoryview(command.data_out)[:length]
            act(command.nexus, cdb.list_identifier, parameter_list, lambda: command.aborted)

    return run


_NamesACopy = (
    ReceiveCopyStatus
    | ReceiveCopyData
    | ReceiveCopyFailureDetails
    | ReceiveCopyStatusLid4
    | ReceiveCopyDataLid4
    | ReceiveRodTokenInformation
)


def _receive_by(
    kind: type[_NamesACopy],
) -> Callable[[Any, Command], bytes]:
    """Return what runs a command whose CDB names a copy."""

    def receive(unit: Any, command: Command) -> bytes:
        cdb = kind.unpack(command.cdb)
        return _receive(unit, command, cdb.list_identifier, cdb.allocation_length)

    return receive


def _report_all_rod_tokens(unit: Any, command: Command) -> bytes:
    cdb = ReportAllRodTokens.unpack(command.cdb)
    return _receive(unit, command, 0, cdb.allocation_length)


def _receive_operating_parameters(unit: Any, command: Command) -> bytes:
    cdb = ReceiveCopyOperatingParameters.unpack(command.cdb)
    return _receive(unit, command, 0, cdb.allocation_length)


def _receive(unit: Any, command: Command, list_identifier: int, allocation_length: int) -> bytes:
    manager: ThirdPartyCopy = unit.copy_manager
    action = command.cdb[1] & SERVICE_ACTION_MASK
    response = manager.receive_copy_results(
        command.nexus, action, list_identifier, allocation_length
    )
    return response[:allocation_length]


_LONGEST_ALIASES = 1 << 20  # bytes of a list that is asked for


def _change_aliases(unit: Any, command: Command) -> None:
    length = ChangeAliases.unpack(command.cdb).parameter_list_length
    if length > _LONGEST_ALIASES:
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
    if length:
        unit.copy_manager.change_aliases(command.nexus, memoryview(command.data_out)[:length])


def _aliases_length(unit: Any, cdb: bytes) -> int:
    length = ChangeAliases.unpack(cdb).parameter_list_length
    return length if length <= _LONGEST_ALIASES else 0


def _report_aliases(unit: Any, command: Command) -> bytes:
    response: bytes = unit.copy_manager.report_aliases(command.nexus)
    return response[: ReportAliases.unpack(command.cdb).allocation_length]


def _has_aliases(unit: Any) -> bool:
    return unit.copy_manager is not None and unit.copy_manager.has_aliases


def _makes_tokens(unit: Any) -> bool:
    return unit.copy_manager is not None and unit.copy_manager.makes_tokens


def _knows_tokens(unit: Any) -> bool:
    return unit.copy_manager is not None and unit.copy_manager.knows_tokens


def _has_copy_manager(unit: Any) -> bool:
    return unit.copy_manager is not None


def _row(
    name: str,
    cdb: type[Cdb],
    run: Callable[[Any, Command], Any],
    data_out: Callable[[Any, bytes], int] | None = None,
    lane: Lane = Lane.INLINE,
    offered: Callable[[Any], bool] = _has_copy_manager,
    access: Access = Access.CHANGES,
) -> Row:
    return Row(
        name,
        cdb.USAGE,
        run,
        data_out=data_out,
        lane=lane,
        service_action=cdb.SERVICE_ACTION,
        offered=offered,
        access=access,
    )


THIRD_PARTY_COPY_TABLE: Table = table_of(
    _row(
        "EXTENDED COPY(LID1)",
        ExtendedCopy,
        _extended_copy,
        data_out=_parameter_list_length,
        lane=Lane.DETACHED,
    ),
    _row(
        "EXTENDED COPY(LID4)",
        ExtendedCopyLid4,
        _extended_copy,
        data_out=_parameter_list_length,
        lane=Lane.DETACHED,
    ),
    _row(
        "POPULATE TOKEN",
        PopulateToken,
        _token_command(PopulateToken),
        data_out=_token_list_length,
        lane=Lane.DETACHED,
        offered=_makes_tokens,
        access=Access.READS,
    ),
    _row(
        "WRITE USING TOKEN",
        WriteUsingToken,
        _token_command(WriteUsingToken),
        data_out=_token_list_length,
        lane=Lane.DETACHED,
        offered=_makes_tokens,
    ),
    _row("COPY OPERATION ABORT", CopyOperationAbort, _copy_operation_abort, lane=Lane.DETACHED),
    _row("RECEIVE COPY STATUS(LID1)", ReceiveCopyStatus, _receive_by(ReceiveCopyStatus)),
    _row("RECEIVE COPY DATA(LID1)", ReceiveCopyData, _receive_by(ReceiveCopyData)),
    _row(
        "RECEIVE COPY OPERATING PARAMETERS",
        ReceiveCopyOperatingParameters,
        _receive_operating_parameters,
    ),
    _row(
        "RECEIVE COPY FAILURE DETAILS(LID1)",
        ReceiveCopyFailureDetails,
        _receive_by(ReceiveCopyFailureDetails),
    ),
    _row("RECEIVE COPY STATUS(LID4)", ReceiveCopyStatusLid4, _receive_by(ReceiveCopyStatusLid4)),
    _row("RECEIVE COPY DATA(LID4)", ReceiveCopyDataLid4, _receive_by(ReceiveCopyDataLid4)),
    _row(
        "RECEIVE ROD TOKEN INFORMATION",
        ReceiveRodTokenInformation,
        _receive_by(ReceiveRodTokenInformation),
        offered=_knows_tokens,
    ),
    _row(
        "REPORT ALL ROD TOKENS",
        ReportAllRodTokens,
        _report_all_rod_tokens,
        offered=_knows_tokens,
    ),
    _row(
        "CHANGE ALIASES",
        ChangeAliases,
        _change_aliases,
        data_out=_aliases_length,
        offered=_has_aliases,
    ),
    _row("REPORT ALIASES", ReportAliases, _report_aliases, offered=_has_aliases),
)
