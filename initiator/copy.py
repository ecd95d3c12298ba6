"""A copy manager as typed verbs: EXTENDED COPY and what can be asked about it (SPC-4 5.17.3)."""

from serverfree.initiator.copy_facts import held_data
from serverfree.initiator.unit import Unit
from serverfree.scsi.cdb.copy import (
    CopyOperationAbort,
    ExtendedCopy,
    ExtendedCopyLid4,
    ReceiveCopyData,
    ReceiveCopyDataLid4,
    ReceiveCopyFailureDetails,
    ReceiveCopyOperatingParameters,
    ReceiveCopyStatus,
    ReceiveCopyStatusLid4,
)
from serverfree.scsi.cdb.layout import Cdb
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_page import ThirdPartyCopyPage
from serverfree.scsi.copy_results import (
    CopyStatus,
    FailureDetails,
    OperatingParameters,
    OperationStatus,
)
from serverfree.scsi.device import Pending

_LENGTH = 512
_DATA_LENGTH = 64 << 10


def copy_cdb(copy: CopyList, length: int) -> bytes:
    """Return the CDB that goes with a parameter list of that many bytes."""
    kind = ExtendedCopyLid4 if copy.lid4 else ExtendedCopy
    return kind(parameter_list_length=length).pack()


class CopyManager(Unit):
    """The copy manager that answers at a logical unit.

    What it keeps about a copy it keeps for the nexus that asked for it: use one session for a copy
    and for the questions about it. Answers come as types, and as bytes from `response`.
    """

    def response(self, what: str, list_identifier: int = 0, *, lid4: bool = False) -> bytes:
        """Return the bytes of one of the answers that `copy_facts.DECODERS` can read."""
        if what == "capabilities":
            return self.vpd(ThirdPartyCopyPage.PAGE_CODE)
        length = _DATA_LENGTH if what == "data" else _LENGTH
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
        case "failure", False:
            return ReceiveCopyFailureDetails(list_identifier, length)
    raise ValueError(f"no such question of a copy manager: {what}{' (LID4)' if lid4 else ''}")
