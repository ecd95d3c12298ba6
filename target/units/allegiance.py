"""Auto contingent allegiance: after an error nothing more happens until the host says so.

A host that has several commands under way at a device with a position wants the one that fails to
be the last: those behind it must not run as if nothing had been. With NACA=1 in its CONTROL byte,
CHECK CONDITION establishes an ACA condition (SAM-5 5.9), and until the host has cleared it every
other command ends with ACA ACTIVE, those that were under way already included: QErr is of no
consequence, because a command is in the task set here only from when it runs.
"""

from collections.abc import Callable

from serverfree.scsi.errors import UnexpectedStatus
from serverfree.scsi.opcodes import OperationCode, control_at
from serverfree.scsi.status import Status
from serverfree.target.units.command import Command, Nexus

NACA = 0x04
_PREEMPT_AND_ABORT = 0x05
_SERVICE_ACTION = 0x1F


def wants_allegiance(cdb: bytes) -> bool:
    """Whether an error of this command is to establish an ACA condition."""
    at = control_at(cdb)
    return at < len(cdb) and bool(cdb[at] & NACA)


class Allegiance:
    """The ACA condition of one unit.

    `faulted` is the nexus whose command has established it, None while there is none; `guard` is
    told whether `check` is to be asked before every command.
    """

    def __init__(self, guard: Callable[[bool], None]) -> None:
        self.faulted: Nexus | None = None
        self._guard = guard

    def fault(self, command: Command) -> None:
        """A command has ended with CHECK CONDITION.

        One with the ACA attribute ends the condition, or replaces it (SAM-5 5.9.2.5).
        """
        if wants_allegiance(command.cdb):
            self.faulted = command.nexus
            self._guard(True)
        elif command.aca:
            self.clear(command.nexus)

    def clear(self, nexus: Nexus) -> None:
        """CLEAR ACA, or the loss of a nexus: of no effect unless it is the faulted one."""
        if self.faulted == nexus:
            self.faulted = None
            self._guard(False)

    def reset(self) -> None:
        """A reset ends the condition, whoever has it."""
        if self.faulted is not None:
            self.clear(self.faulted)

    def check(self, command: Command) -> None:
        """Raise ScsiError for a command that may not run now (SAM-5 5.9.2.2, 5.9.2.3).

        The faulted nexus may send commands with the ACA attribute, others PREEMPT AND ABORT.
        """
        faulted = self.faulted
        if faulted is None:
            return
        cdb = command.cdb
        if command.nexus == faulted:
            if not command.aca:
                raise UnexpectedStatus(Status.ACA_ACTIVE)
        elif (
            cdb[0] != OperationCode.PERSISTENT_RESERVE_OUT
            or cdb[1] & _SERVICE_ACTION != _PREEMPT_AND_ABORT
        ):
            raise UnexpectedStatus(Status.ACA_ACTIVE if wants_allegiance(cdb) else Status.BUSY)
