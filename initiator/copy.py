"""A copy manager as typed verbs: EXTENDED COPY and what can be asked about it (SPC-4 5.17.3)."""

import time
from collections.abc import Sequence

from serverfree.initiator.copy_facts import held_data
from serverfree.initiator.unit import Unit
from serverfree.scsi.cdb.copy import (
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
    ReportAllRodTokens,
    WriteUsingToken,
)
from serverfree.scsi.cdb.layout import Cdb
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_page import ThirdPartyCopyPage
from serverfree.scsi.copy_results import (
    CopyOperationStatus,
    CopyStatus,
    FailureDetails,
    OperatingParameters,
    OperationStatus,
)
from serverfree.scsi.device import Pending
from serverfree.scsi.rod_token import PopulateList, Range, WriteList

_LENGTH = 512
_DATA_LENGTH = 64 << 10
_LONG = {"data", "tokens", "all-tokens"}
_UNDER_WAY = (
    CopyOperationStatus.IN_PROGRESS,
    CopyOperationStatus.IN_FOREGROUND,
    CopyOperationStatus.IN_BACKGROUND,
)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.5  # seconds between two questions


def copy_cdb(copy: CopyList, length: int) -> bytes:
    """Return the CDB that goes with a parameter list of that many bytes."""
    kind = ExtendedCopyLid4 if copy.lid4 else ExtendedCopy
    return kind(parameter_list_length=length).pack()


def status_cdb(copy: CopyList, length: int) -> Cdb:
    """Return the CDB that asks how far a copy is."""
    return _question("status", copy.list_identifier, length, copy.lid4)


def bytes_moved(copy: CopyList, answer: bytes) -> int | None:
    """Return what the answer to `status_cdb` says in bytes, None where it counts otherwise."""
    kind = OperationStatus if copy.lid4 else CopyStatus
    return kind.unpack(answer).bytes_transferred


class CopyManager(Unit):
    """The copy manager that answers at a logical unit.

    What it keeps about a copy it keeps for the nexus that asked for it: use one session for a copy
    and for the questions about it. Answers come as types, and as bytes from `response`.
    """

    def response(self, what: str, list_identifier: int = 0, *, lid4: bool = False) -> bytes:
        """Return the bytes of one of the answers that `copy_facts.DECODERS` can read."""
        if what == "capabilities":
            return self.vpd(ThirdPartyCopyPage.PAGE_CODE)
        length = _DATA_LENGTH if what in _LONG else _LENGTH
        while True:
            answer = self.fetch(_question(what, list_identifier, length, lid4), length)
            whole = 4 + int.from_bytes(answer[:4], "big")
            if whole <= length:
                return answer
            length = whole

    def operating_parameters(self) -> OperatingParameters:
        """What it can do (SA 3)."""
        return OperatingParameters.unpack(self.response("parameters"))

    def start(self, copy: CopyList) -> Pending:
        """Send a copy and return at once."""
        if not self._settled:
            self.settle()
        parameters = copy.pack()
        return self.device.submit(copy_cdb(copy, len(parameters)), data_out=parameters)

    def copy(self, copy: CopyList) -> None:
        """Run a copy to its end; raises ScsiError."""
        self.start(copy).wait().check()

    def status(self, list_identifier: int) -> CopyStatus:
        """How far a copy is (SA 0). Once it has ended, asking makes the manager forget it."""
        return CopyStatus.unpack(self.response("status", list_identifier))

    def failure(self, list_identifier: int) -> FailureDetails:
        """How a copy failed (SA 4); without a status if there is nothing to tell."""
        return FailureDetails.unpack(self.response("failure", list_identifier))

    def held_data(self, list_identifier: int) -> bytes:
        """What a copy has held for us (SA 1)."""
        return held_data(self.response("data", list_identifier))

    def operation_status(self, list_identifier: int) -> OperationStatus:
        """How far a copy is that has a list identifier of 32 bits (SA 5)."""
        return OperationStatus.unpack(self.response("status", list_identifier, lid4=True))

    def operation_data(self, list_identifier: int) -> OperationStatus:
        """The same with the data that it has held (SA 6)."""
        answer = self.response("data", list_identifier, lid4=True)
        return OperationStatus.unpack(answer, with_data=True)

    def populate_token(
        self,
        ranges: Sequence[Range],
        *,
        rod_type: int | None = None,
        inactivity: int = 0,
        list_identifier: int = 1,
    ) -> bytes:
        """POPULATE TOKEN: return a ROD token of these blocks of the unit (SBC-4 5.12).

        `inactivity` is in seconds, 0 for what the manager has by default. Raises ScsiError,
        ValueError if there is no token.
        """
        parameters = PopulateList(ranges, rod_type, inactivity).pack()
        self.run(PopulateToken(list_identifier, len(parameters)), data_out=parameters)
        tokens = self.token_information(list_identifier).tokens
        if not tokens:
            raise ValueError(f"{self.device} made no token")
        return tokens[0][1]

    def write_using_token(
        self,
        token: bytes,
        ranges: Sequence[Range],
        *,
        offset: int = 0,
        delete: bool = False,
        list_identifier: int = 1,
    ) -> int:
        """WRITE USING TOKEN: return how many blocks are written (SBC-4 5.59). Raises ScsiError.

        `offset` into what the token represents is in blocks of this unit.
        """
        parameters = WriteList(token, ranges, offset, delete).pack()
        self.run(WriteUsingToken(list_identifier, len(parameters)), data_out=parameters)
        return self.token_information(list_identifier).transfer_count

    def token_information(self, list_identifier: int) -> OperationStatus:
        """How a copy has ended, with the tokens it made; waits while it is under way (SA 7)."""
        pause = _FIRST_PAUSE
        while True:
            answer = self.response("tokens", list_identifier, lid4=True)
            status = OperationStatus.unpack(answer, with_data=True)
            if status.status not in _UNDER_WAY:
                return status
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def abort_operation(self, list_identifier: int) -> None:
        """COPY OPERATION ABORT: end a copy that has a list identifier of 32 bits."""
        self.run(CopyOperationAbort(list_identifier=list_identifier))


def _question(what: str, list_identifier: int, length: int, lid4: bool) -> Cdb:
    match what, lid4:
        case "parameters", _:
            return ReceiveCopyOperatingParameters(length)
        case "status", False:
            return ReceiveCopyStatus(list_identifier, length)
        case "status", True:
            return ReceiveCopyStatusLid4(list_identifier, length)
        case "data", False:
            return ReceiveCopyData(list_identifier, length)
        case "data", True:
            return ReceiveCopyDataLid4(list_identifier, length)
        case "tokens", True:
            return ReceiveRodTokenInformation(list_identifier, length)
        case "all-tokens", False:
            return ReportAllRodTokens(length)
        case "failure", False:
            return ReceiveCopyFailureDetails(list_identifier, length)
    raise ValueError(f"no such question of a copy manager: {what}{' (LID4)' if lid4 else ''}")
