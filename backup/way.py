"""By whom the content is moved: a copy manager if it can, this machine only if that was allowed."""

from dataclasses import dataclass

from serverfree.backup.copying import one_line
from serverfree.backup.errors import BackupError
from serverfree.backup.pieces import Inline
from serverfree.backup.planner import can_digest, plan_backup
from serverfree.backup.site import Site
from serverfree.initiator.copy_plan import Endpoint, PlanError, Step
from serverfree.initiator.xcopy import limits_of, run_step
from serverfree.iscsi.errors import ProtocolError
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_results import OperatingParameters
from serverfree.scsi.copy_segments import VerifyCscd
from serverfree.scsi.errors import ScsiError


@dataclass(frozen=True, slots=True)
class Way:
    """How content gets to the tape: without `limits` through this machine, for the reason `why`."""

    limits: OperatingParameters | None
    why: str = ""

    @property
    def digests(self) -> bool:
        """Whether the copy manager tells digests of what it moves."""
        return self.limits is not None and can_digest(self.limits)


class Refused(BackupError):
    """The copy manager cannot do this backup."""


def choose_way(
    site: Site, disk: Endpoint, tape: Endpoint, tape_block: int, *, through_server: bool
) -> Way:
    """Ask the copy manager whether it can do the job; nothing is moved or written.

    Raises Refused if it cannot and the server is not to take its place.
    """
    if site.mover_url is None:
        why = "no copy manager was named"
    else:
        try:
            return Way(_ask(site, disk, tape, tape_block))
        except PlanError as error:
            why = one_line(error)
        except (ScsiError, ProtocolError) as error:
            why = one_line(error)
    if not through_server:
        raise Refused(
            f"the copy manager cannot do it: {why}; nothing was written; "
            "--allow-through-server would copy through this machine"
        )
    return Way(None, why)


def _ask(site: Site, disk: Endpoint, tape: Endpoint, tape_block: int) -> OperatingParameters:
    limits = limits_of(site.manager)
    # Whatever the segments are going to be, these it has to know.
    plan_backup([Inline(b"")], disk, tape, limits, tape_block)
    if VerifyCscd.TYPE in limits.descriptor_types:
        # It tells whether it reaches both units (SPC-4 6.4.6.9) before anything is moved.
        units = CopyList(
            [disk.cscd(pad=False), tape.cscd(pad=False)],
            [VerifyCscd(0), VerifyCscd(1)],
            list_identifier=1,
        )
        run_step(site.manager, Step(units, 0), 0, 0, None)
    return limits
