"""The gate: every command of every logical unit is judged here, once, before it runs."""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, ClassVar

from serverfree.scsi.designator import Designator, locally_assigned
from serverfree.scsi.errors import (
    CheckCondition,
    ScsiError,
    illegal_request,
    invalid_field_in_parameter_list,
)
from serverfree.scsi.inquiry import DeviceType, StandardInquiry, VersionDescriptor
from serverfree.scsi.mode import ModePage
from serverfree.scsi.sense import Asc, Sense, SenseKey
from serverfree.scsi.status import Status
from serverfree.scsi.task_management import TaskManagementSupport
from serverfree.scsi.vpd import DeviceIdentification, UnitSerialNumber
from serverfree.target.backstore.state import StateFile
from serverfree.target.units.allegiance import NACA, Allegiance
from serverfree.target.units.attention import Attentions
from serverfree.target.units.command import Command, Lane, Nexus, Reply
from serverfree.target.units.permission import EVERYTHING, Permission
from serverfree.target.units.ports import ONLY_PORT
from serverfree.target.units.reservations import Reservations
from serverfree.target.units.table import Dispatch, Entry, Row, Table, merge_tables, table_of

if TYPE_CHECKING:
    from serverfree.target.units.third_party import ThirdPartyCopy

__all__ = ["Row", "Table", "Unit", "merge_tables", "table_of"]

log = logging.getLogger(__name__)

Restriction = Callable[[Row, Command], None]
"""What judges every command while something special is so; it raises ScsiError to refuse one."""

VENDOR = "SRVFREE"
REVISION = "0001"


class Unit:
    """A logical unit: its opcode table, its identity, its unit attentions.

    A subclass states its `TABLE` (merge_tables(PRIMARY_TABLE, ...)), `kind`, `device_type`,
    `product`, and overrides the hooks below. Rows run functions or methods that get the unit and
    the command; they see only commands whose bits the row honours, from nexuses with nothing to
    be told first. `execute` may be called from several threads at once.

    `name` is unique within `target`, the name of the target that shows the unit; both together
    make the designator, which so survives restarts. `state` keeps what must outlive the process
    (reservations with APTPL, saved mode pages); without it the unit says that it cannot.
    """

    TABLE: ClassVar[Table] = {}
    kind: str = "unit"
    device_type: int = DeviceType.UNKNOWN
    product: str = ""
    snapshot_of: str | None = None
    ordered: bool = False
    normal_aca: ClassVar[bool] = True
    version_descriptors: ClassVar[tuple[VersionDescriptor, ...]] = (
        VersionDescriptor.SAM_5,
        VersionDescriptor.SPC_4,
        VersionDescriptor.ISCSI,
    )

    def __init__(self, name: str, *, target: str = "", state: StateFile | None = None) -> None:
        self.name = name
        self.state = state
        self.designator: Designator = locally_assigned(target, name)
        self.serial: str = self.designator.identifier.hex().upper()
        self.lun_inventory: Callable[[Nexus], Sequence[int]] = lambda nexus: (0,)
        """The LUNs that REPORT LUNS lists to a nexus; the target replaces it."""
        self.task_management = TaskManagementSupport(0)
        """The functions that there are for this unit; the target, which does them, sets it."""
        self.permissions: dict[Nexus, Permission] = {}
        """Of the nexuses that may not do everything."""
        self.attentions = Attentions()
        self.ports: Callable[[], Sequence[int]] = lambda: (ONLY_PORT,)
        """The relative identifiers of the target's ports; a target with several replaces it."""
        self.abort_commands: Callable[[Collection[Nexus]], None] = lambda nexuses: None
        """Ends the commands of these nexuses and returns when they have; the target replaces it."""
        self.restrictions: tuple[Restriction, ...] = ()
        """What the gate asks before a command runs; empty but for special times."""
        self._restricting = Lock()
        self.descriptor_sense = False
        """Whether sense data is sent in descriptor format (D_SENSE)."""
        self.reservations = Reservations(
            self.attentions,
            ports=lambda: self.ports(),
            attached=self.attentions.attached,
            abort=self._abort_preempted,
            changed=self._reservations_changed,
            state=state,
        )
        self._reservations_changed()
        self._copy_manager: ThirdPartyCopy | None = None
        self.allegiance = Allegiance(lambda on: self.restrict(self._check_allegiance, on))
        self.dispatch = self._dispatch()
        # What `data_out_length` looked up last: mostly the same object comes to `execute` next.
        self._checked: tuple[bytes, Entry] | None = None

    # What a subclass says of itself

    def standard_inquiry(self) -> StandardInquiry:
        """Return the standard INQUIRY data."""
        return StandardInquiry(
            device_type=self.device_type,
            normal_aca=self.normal_aca,
            third_party_copy=self._copy_manager is not None,
            vendor=VENDOR,
            product=self.product,
            revision=REVISION,
            version_descriptors=self.version_descriptors,
        )

    def vpd_pages(self) -> dict[int, bytes]:
        """Return the vital product data pages by page code, whole, without page 00h.

        Byte 0 of each is filled in by INQUIRY.
        """
        pages = {
            UnitSerialNumber.PAGE_CODE: UnitSerialNumber(self.serial).pack(),
            DeviceIdentification.PAGE_CODE: DeviceIdentification((self.designator,)).pack(),
        }
        if self._copy_manager is not None:
            page = bytes(self._copy_manager.vpd_page())
            pages[page[1]] = page
        return pages

    def mode_pages(self, nexus: Nexus | None) -> Sequence[ModePage]:
        """Return the mode pages as a nexus has them, in ascending order of page code.

        None is a nexus that has never set a page of its own (SPC-4 7.5.3, mode page policy).
        """
        return ()

    def mode_medium(self) -> tuple[int, int]:
        """Return MEDIUM TYPE and DEVICE-SPECIFIC PARAMETER of the mode parameter header."""
        return 0, 0

    def mode_block_descriptor(self, *, long_lba: bool) -> bytes:
        """Return the mode parameter block descriptor; none by default."""
        return b""

    @contextmanager
    def selecting_modes(self) -> Iterator[None]:
        """What MODE SELECT changes within changes wholly or, if it raises, not at all."""
        yield

    def select_mode_page(self, page: bytes, nexus: Nexus) -> None:
        """Take a page from MODE SELECT, of known code and length and changed only where allowed.

        May raise ScsiError, with a pointer into the page. When it returns, other nexuses are told
        that mode parameters changed.
        """
        raise illegal_request(Asc.INVALID_FIELD_IN_PARAMETER_LIST)

    def select_mode_medium(self, medium_type: int, device_specific: int) -> None:
        """Take the header fields from MODE SELECT. By default they change nothing."""

    def select_block_descriptor(self, descriptor: bytes, offset: int, nexus: Nexus) -> None:
        """Take a block descriptor from MODE SELECT; it lies `offset` bytes into the list.

        By default only the present one is welcome.
        """
        present = self.mode_block_descriptor(long_lba=len(descriptor) == 16)
        if descriptor != present:
            raise invalid_field_in_parameter_list(offset)

    def require_ready(self) -> None:
        """Raise the NOT READY sense of a unit that has no medium; TEST UNIT READY asks."""

    def pollable_sense(self) -> Sense:
        """Return what REQUEST SENSE says while no attention is pending (SPC-4 5.11.2)."""
        try:
            self.require_ready()
        except CheckCondition as not_ready:
            return not_ready.sense
        return Sense(SenseKey.NO_SENSE)

    def save_mode_pages(self) -> None:
        """Keep the current values of the mode pages that can be saved for the next process."""

    def port_designators(self, nexus: Nexus) -> Sequence[Designator]:
        """Return the designators of the target port that a nexus comes through, for page 83h."""
        return ()

    def sense_of(self, error: OSError) -> Sense:
        """Return what a failure of the storage is to an initiator."""
        return Sense(SenseKey.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE)

    # Third-party copy

    @property
    def copy_manager(self) -> "ThirdPartyCopy | None":
        """What answers EXTENDED COPY and RECEIVE COPY RESULTS here; set once, before use."""
        return self._copy_manager

    @copy_manager.setter
    def copy_manager(self, manager: "ThirdPartyCopy | None") -> None:
        self._copy_manager = manager
        self.dispatch = self._dispatch()

    def _dispatch(self) -> Dispatch:
        return Dispatch(self, self.TABLE, NACA if self.normal_aca else 0)

    # The gate

    def execute(self, command: Command) -> Reply:
        """Run a command to its end. Never raises: every error is a status with its sense."""
        try:
            checked = self._checked
            if checked is not None and checked[0] is command.cdb:
                entry = checked[1]
            else:
                entry = self.dispatch.find(command.cdb)
            # `pending` is empty but for the first command of a nexus: one truth test.
            if self.attentions.pending and not entry.row.in_attention:
                self.allegiance.check(command)  # what does not run is not told either
                asc = self.attentions.take(command.nexus)
                if asc is not None:
                    return self._check_condition(command, Sense(SenseKey.UNIT_ATTENTION, asc))
            if self.permissions:
                self._require_permission(command)
            if self.restrictions:
                for restriction in self.restrictions:
                    restriction(entry.row, command)
            outcome = entry.run(self, command)
            if isinstance(outcome, Reply):
                if outcome.status is Status.CHECK_CONDITION:
                    self._fault(command)
                return outcome
            return Reply(outcome) if outcome is not None else Reply()
        except CheckCondition as error:
            return self._check_condition(command, error.sense)
        except ScsiError as error:
            return Reply(status=error.status)
        except OSError as error:
            log.error("%s: command %s: %s", self.name, bytes(command.cdb).hex(" "), error)
            return self._check_condition(command, self.sense_of(error))
        except Exception:
            log.exception("%s: command %s failed", self.name, bytes(command.cdb).hex(" "))
            return self._check_condition(
                command, Sense(SenseKey.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE)
            )

    def _check_condition(self, command: Command, sense: Sense) -> Reply:
        self._fault(command)
        sense.descriptor_format = self.descriptor_sense
        return Reply(status=Status.CHECK_CONDITION, sense=sense)

    def _fault(self, command: Command) -> None:
        if self.normal_aca and command.cdb:
            self.allegiance.fault(command)

    def _check_allegiance(self, row: Row, command: Command) -> None:
        self.allegiance.check(command)

    @property
    def faulted(self) -> Nexus | None:
        """The nexus that has an ACA condition here."""
        return self.allegiance.faulted

    def clear_allegiance(self, nexus: Nexus) -> None:
        """CLEAR ACA (SAM-5 7.5)."""
        self.allegiance.clear(nexus)

    def _abort_preempted(self, nexuses: Collection[Nexus]) -> None:
        """PREEMPT AND ABORT: their commands end, and an ACA condition of theirs (SAM-5 5.9.2.6)."""
        self.abort_commands(nexuses)
        for nexus in nexuses:
            self.allegiance.clear(nexus)

    def restrict(self, restriction: Restriction, on: bool) -> None:
        """Have the gate ask this before every command, or no more."""
        with self._restricting:
            others = tuple(each for each in self.restrictions if each != restriction)
            self.restrictions = (*others, restriction) if on else others

    def _reservations_changed(self) -> None:
        self.restrict(self.reservations.check, self.reservations.restricts)

    def lane(self, cdb: bytes) -> Lane:
        """Return where this CDB, of full length, may run. Cheap; never raises."""
        entry = self.dispatch.peek(cdb)
        lane = Lane.INLINE if entry is None else entry.lane
        return lane if isinstance(lane, Lane) else lane(self, cdb)

    def data_out_length(self, cdb: bytes) -> int:
        """Return how many bytes the CDB transfers out, 0 if none or if it will be refused."""
        try:
            entry = self.dispatch.find(cdb)
            self._checked = cdb, entry
            length = entry.row.data_out
            return length(self, cdb) if length is not None else 0
        except ScsiError:
            return 0

    # What the transport tells

    def attach(self, nexus: Nexus, permission: Permission = EVERYTHING) -> None:
        """A nexus has come up, with this permission; it has a power-on unit attention to hear."""
        self.permit(nexus, permission)
        self.attentions.attach(nexus)

    def permit(self, nexus: Nexus, permission: Permission) -> None:
        """What the nexus may do here has changed."""
        if permission == EVERYTHING:
            self.permissions.pop(nexus, None)
        else:
            self.permissions[nexus] = permission

    def permission(self, nexus: Nexus) -> Permission:
        """Return what this nexus may do, whatever others may."""
        return self.permissions.get(nexus, EVERYTHING)

    def _require_permission(self, command: Command) -> None:
        permission = self.permissions.get(command.nexus)
        if permission is None:
            return
        sense = permission.refusal(self.device_type, command.cdb)
        if sense is not None:
            raise CheckCondition(sense)

    def detach(self, nexus: Nexus) -> None:
        """A nexus is lost: what was kept for it goes."""
        self.permissions.pop(nexus, None)
        self.attentions.detach(nexus)
        self.allegiance.clear(nexus)
        self.reservations.forget(nexus)
        if self._copy_manager is not None:
            self._copy_manager.forget(nexus)

    def raise_attention(
        self, asc: Asc, *, but: Nexus | None = None, only: Nexus | None = None
    ) -> None:
        """Queue a unit attention for every attached nexus except `but`, or for `only` one."""
        self.attentions.establish(asc, but, only)

    def distrust_map(self) -> None:
        """The kernel could not read memory that a reply pointed to; nothing here is mapped."""

    def reset(self) -> None:
        """LOGICAL UNIT RESET (SAM-5 6.3.3): volatile settings go back, every nexus is told."""
        self.allegiance.reset()
        self.reservations.reset()
        if self._copy_manager is not None:
            self._copy_manager.reset()
        self.raise_attention(Asc.BUS_DEVICE_RESET_FUNCTION_OCCURRED)

    def close(self) -> None:
        """Put everything acknowledged on stable storage and let go of it."""
