"""What passes between a transport and a logical unit: a command in, a reply out."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from serverfree.scsi.device import Buffer
from serverfree.scsi.sense import Asc, Sense
from serverfree.scsi.status import Status
from serverfree.scsi.task_management import TaskManagementSupport
from serverfree.target.backstore.base import Stored
from serverfree.target.units.permission import EVERYTHING, Permission


@dataclass(frozen=True, slots=True)
class Nexus:
    """An I_T nexus (SAM-5 4.8): initiator port name and target port name as the transport has them.

    Unit attentions, reservations and copy list identifiers are kept per nexus.
    """

    initiator: str
    target: str


@dataclass(slots=True)
class Command:
    """A command as a logical unit sees it: complete, with all the data that came out for it.

    `data_out` is valid until `execute` returns and may hold less than the CDB asks for (the
    initiator's Expected Data Transfer Length was short): the unit then uses whole blocks of it.
    `data_in_length` is how much the initiator will take; the unit need not cut its reply to it.
    `read_here` says that the reply's data will be read in this process (a data digest, a copy
    between units of one target) and must not be a window of a map: a bad sector behind it would be
    SIGBUS.
    `aca` is whether it has the ACA task attribute.
    `aborted` is set by task management while the command runs; long operations look at it between
    steps and stop.
    """

    nexus: Nexus
    cdb: bytes
    data_out: Buffer = b""
    data_in_length: int = 0
    read_here: bool = False
    aca: bool = False
    aborted: bool = False


@dataclass(slots=True)
class Handover(Command):
    """A READ or WRITE of a disk whose data stays where it is stored, from the one to the other.

    A READ that ends well says in `stored` where the data lies, None if it has to be read to be as
    it was at one moment. A WRITE takes it from there; where it ends well, but not with `taken`, it
    could not be done so: read and write the data, and whatever is wrong will show.
    """

    stored: Stored | None = None
    taken: bool = False


@dataclass(slots=True)
class Reply:
    """How a command ended. Data may come with CHECK CONDITION (a short tape block).

    `after` is what the unit would do while the answer is on its way, to be quicker with the next
    command. It is short, need not be called at all, and never raises.
    """

    data: Buffer = b""
    status: Status = Status.GOOD
    sense: Sense | None = None
    after: Callable[[], None] | None = field(default=None, compare=False)


class Lane(Enum):
    """Where a command may run (design: nothing that can block holds up a connection)."""

    INLINE = 1  # short and from memory or page cache: on the connection's own thread
    QUEUED = 2  # may wait for a device: on the unit's worker, in order
    DETACHED = 3  # runs for long (a copy): on a thread of its own, the unit stays usable


class LogicalUnit(Protocol):
    """What a transport needs of a logical unit."""

    name: str
    kind: str  # "disk", "tape", "copy-manager", "snapshot": as the ready line prints it
    snapshot_of: str | None  # the name of the unit that it is a snapshot of
    ordered: bool  # no command may overtake a queued one (a tape has a position, a disk has not)
    lun_inventory: Callable[[Nexus], Sequence[int]]  # what REPORT LUNS lists; set by the target
    ports: Callable[[], Sequence[int]]  # relative target port identifiers; set by the target
    abort_commands: Callable[[Collection[Nexus]], None]  # PREEMPT AND ABORT; set by the target
    task_management: TaskManagementSupport  # what the target does for it; set by the target

    def lane(self, cdb: bytes) -> Lane:
        """Return where this CDB, of full length, may run. Cheap; never raises."""

    def data_out_length(self, cdb: bytes) -> int:
        """Return how many bytes the CDB transfers out, 0 if none or if it will be refused.

        Asked before data is solicited, so that a refused CDB never costs its data.
        """

    def execute(self, command: Command) -> Reply:
        """Run a command to its end. Never raises: every error is a status with its sense."""

    def attach(self, nexus: Nexus, permission: Permission = EVERYTHING) -> None:
        """A nexus has come up, with this permission; it has a power-on unit attention to hear."""

    def permit(self, nexus: Nexus, permission: Permission) -> None:
        """What the nexus may do here has changed."""

    def permission(self, nexus: Nexus) -> Permission:
        """Return what this nexus may do, whatever others may."""

    def detach(self, nexus: Nexus) -> None:
        """A nexus is lost: what was kept for it goes."""

    def raise_attention(
        self, asc: Asc, *, but: Nexus | None = None, only: Nexus | None = None
    ) -> None:
        """Queue a unit attention for every attached nexus except `but`, or for `only` one."""

    @property
    def faulted(self) -> Nexus | None:
        """The nexus that has an ACA condition here."""

    def clear_allegiance(self, nexus: Nexus) -> None:
        """CLEAR ACA."""

    def distrust_map(self) -> None:
        """The kernel could not read memory that a reply pointed to: read by calls from now on."""

    def reset(self) -> None:
        """LOGICAL UNIT RESET (SAM-5 6.3.3); attentions for all nexuses."""

    def close(self) -> None:
        """Put everything acknowledged on stable storage and let go of it."""
