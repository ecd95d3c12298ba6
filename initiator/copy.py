"""A copy manager as typed verbs: EXTENDED COPY(LID1) and what can be asked about it (SPC-4 6.4)."""

from serverfree.initiator.unit import Unit
from serverfree.scsi.cdb.copy import (
    ExtendedCopy,
    ReceiveCopyFailureDetails,
    ReceiveCopyOperatingParameters,
    ReceiveCopyStatus,
)
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_results import CopyStatus, FailureDetails, OperatingParameters
from serverfree.scsi.device import Pending

_LENGTH = 512


class CopyManager(Unit):
    """The copy manager that answers at a logical unit.

    What it keeps about a copy it keeps for the nexus that asked for it: use one session for a copy
    and for the questions about it.
    """

    def operating_parameters(self) -> OperatingParameters:
        """What it can do (SA 3)."""
        cdb = ReceiveCopyOperatingParameters(allocation_length=_LENGTH)
        return OperatingParameters.unpack(self.fetch(cdb, _LENGTH))

    def start(self, copy: CopyList) -> Pending:
        """Send a copy and return at once."""
        if not self._settled:
            self.settle()
        parameters = copy.pack()
        cdb = ExtendedCopy(parameter_list_length=len(parameters))
        return self.device.submit(cdb.pack(), data_out=parameters)

    def copy(self, copy: CopyList) -> None:
        """Run a copy to its end; raises ScsiError."""
        self.start(copy).wait().check()

    def status(self, list_identifier: int) -> CopyStatus:
        """How far a copy is (SA 0). Once it has ended, asking makes the manager forget it."""
        cdb = ReceiveCopyStatus(list_identifier=list_identifier, allocation_length=_LENGTH)
        return CopyStatus.unpack(self.fetch(cdb, _LENGTH))

    def failure(self, list_identifier: int) -> FailureDetails:
        """How a copy failed (SA 4); without a status if there is nothing to tell."""
        cdb = ReceiveCopyFailureDetails(list_identifier=list_identifier, allocation_length=_LENGTH)
        return FailureDetails.unpack(self.fetch(cdb, _LENGTH))
