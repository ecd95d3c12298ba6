"""The copy sources and copy destinations of one copy: from CSCD DESCRIPTOR IDs to open units."""

from collections.abc import Callable, Hashable

from serverfree.datamover.copy_rods import CopyRods
from serverfree.datamover.endpoints import PIECE, Disk, Tape
from serverfree.datamover.errors import CopyAborted, UnitUnreachable, in_descriptor
from serverfree.datamover.rods import RodDevice
from serverfree.datamover.units import (
    BLOCK_TYPES,
    Activity,
    AllegiantUnit,
    AttachedUnit,
    CopyUnit,
    Facts,
    Outbox,
    Role,
    SociableUnit,
)
from serverfree.scsi.copy_cscd import (
    CSCD_LENGTH,
    AddressCscd,
    BlockParameters,
    Cscd,
    Extension,
    IdentificationCscd,
    Ipv6Cscd,
    RodCscd,
    StreamParameters,
)
from serverfree.scsi.copy_list import NULL_BLOCK, NULL_STREAM, THIS_UNIT, CopyList
from serverfree.scsi.designator import Designator
from serverfree.scsi.device import Result
from serverfree.scsi.inquiry import DeviceType
from serverfree.scsi.sense import Asc, FieldPointer

_SOURCE_FIELD, _DESTINATION_FIELD = 4, 6  # bytes in a segment descriptor
_LAST_POINTED = 0xFFFF

Endpoint = Disk | Tape


class _Nothing:
    """Behind a null logical unit: no command may be sent there (table 148 note b)."""

    def __init__(self) -> None:
        self.facts: Facts | None = None
        self.identity = id(self)

    def submit(self, *_: object, **__: object) -> None:
        raise AssertionError("a null logical unit is sent no command")

    def close(self, *, broken: bool = False) -> None:
        pass


class _RodUnit(CopyUnit):
    """A ROD, which can become invalid while a copy reads it."""

    def failure(self, role: Role, result: Result | None) -> CopyAborted:
        """Of one that is not valid any more, that it cannot be reached (5.17.7.5.1)."""
        assert isinstance(self.attached, RodDevice)
        return super().failure(role, result) if self.attached.rod.valid else self.unreachable()


class Participants:
    """The CSCDs that a parameter list names, each opened when a segment first needs it.

    `open_unit` finds a unit (`UnitUnreachable` if there is none); `own_unit` is the one that
    contains the copy manager, named by CSCD DESCRIPTOR ID FFFFh; `activity` is that of the copy,
    `rods` are those that its list names.
    """

    def __init__(
        self,
        copy_list: CopyList,
        open_unit: Callable[[Designator | AddressCscd], AttachedUnit],
        own_unit: Designator | None = None,
        activity: Activity | None = None,
        rods: CopyRods | None = None,
    ) -> None:
        self.rods = rods or CopyRods()
        self._list = copy_list
        self._open = open_unit
        self._own_unit = own_unit
        self._activity = activity
        self._outbox = Outbox()
        self._units: dict[Hashable, AttachedUnit] = {}
        self._endpoints: dict[int, Endpoint] = {}
        self._opened: list[CopyUnit] = []
        self._null = CopyUnit(_Nothing(), None)  # type: ignore[arg-type]

    def disk(self, cscd_id: int, role: Role) -> Disk:
        """Return a block device. Raises CopyAborted."""
        endpoint = self._endpoint(cscd_id, role)
        if not isinstance(endpoint, Disk):
            raise _wrong_role(role)
        return endpoint

    def tape(self, cscd_id: int, role: Role) -> Tape:
        """Return a sequential-access device. Raises CopyAborted."""
        endpoint = self._endpoint(cscd_id, role)
        if not isinstance(endpoint, Tape):
            raise _wrong_role(role)
        return endpoint

    def drive(self, cscd_id: int, role: Role) -> Tape:
        """Return a sequential-access device that there really is. Raises CopyAborted."""
        tape = self.tape(cscd_id, role)
        self.require_unit(tape, role)
        return tape

    def require_unit(self, endpoint: Endpoint, role: Role) -> None:
        """Raise CopyAborted for a null logical unit: this would send it a command."""
        if self.is_null(endpoint):
            raise _unreachable(role)

    def is_null(self, endpoint: Endpoint) -> bool:
        """Whether it is a null logical unit, which is sent no command (table 148)."""
        return endpoint.unit is self._null

    def unit(self, cscd_id: int, role: Role) -> CopyUnit:
        """Return a unit, ready for commands. Raises CopyAborted."""
        endpoint = self._endpoint(cscd_id, role)
        self.require_unit(endpoint, role)
        return endpoint.unit

    def verify(self, cscd_id: int, *, ready: bool) -> None:
        """See that a CSCD can be reached, and with `ready` is; a token, that it is valid.

        Raises CopyAborted (6.4.6.9).
        """
        if cscd_id in (NULL_BLOCK, NULL_STREAM):
            if ready:
                raise _unreachable(Role.SOURCE)
            return
        named = self._list.cscds[cscd_id] if cscd_id < len(self._list.cscds) else None
        if isinstance(named, RodCscd) and named.rod_type:
            return  # populated or not: no error, and no end to its being populated
        unit, cscd = self._attached(cscd_id, Role.SOURCE)
        unit.verify(Role.SOURCE, None if cscd is None else cscd.device_type, ready=ready)

    def close(self) -> None:
        """Hand back every unit."""
        broken = {id(unit.attached) for unit in self._opened if unit.broken}
        for attached in self._units.values():
            attached.close(broken=id(attached) in broken)
        self._units.clear()

    # ------------------------------------------------------------------ opening

    def _endpoint(self, cscd_id: int, role: Role) -> Endpoint:
        known = self._endpoints.get(cscd_id)
        if known is None:
            known = self._endpoints[cscd_id] = self._open_endpoint(cscd_id, role)
        return known

    def _open_endpoint(self, cscd_id: int, role: Role) -> Endpoint:
        # A null unit has no descriptor, so no PAD and no block length: whatever is counted in
        # its blocks would take a command.
        if cscd_id == NULL_BLOCK:
            return Disk(self._null, 1, 0, 1, pad=False)
        if cscd_id == NULL_STREAM:
            return Tape(self._null, 0, pad=False)
        unit, cscd = self._attached(cscd_id, role)
        facts = unit.prepare(role, None if cscd is None else cscd.device_type)
        if facts.device_type in BLOCK_TYPES:
            return _open_disk(unit, facts, cscd)
        if facts.device_type == DeviceType.TAPE:
            return _open_tape(unit, facts, cscd)
        raise _wrong_role(role)

    def _attached(self, cscd_id: int, role: Role) -> tuple[CopyUnit, Cscd | None]:
        cscd: Cscd | None = None
        pointer: FieldPointer | None = None
        if cscd_id < len(self._list.cscds):
            cscd = self._list.cscds[cscd_id]
            at = self._list.cscds_at + cscd_id * CSCD_LENGTH
            pointer = FieldPointer(at) if at <= _LAST_POINTED else None
            if isinstance(cscd, Extension):
                raise CopyAborted(Asc.INVALID_FIELD_IN_PARAMETER_LIST, _named_by(role))
            if isinstance(cscd, RodCscd):
                return self._rod(cscd_id, role, pointer), None
            if isinstance(cscd, Ipv6Cscd) and not cscd.extended:
                raise CopyAborted(Asc.INVALID_FIELD_IN_PARAMETER_LIST, FieldPointer(at + 32))
            name: Designator | AddressCscd = (
                cscd.designator if isinstance(cscd, IdentificationCscd) else cscd
            )
        elif cscd_id == THIS_UNIT and self._own_unit is not None:
            name = self._own_unit
        else:
            raise _unreachable(role)  # no descriptor has this number
        unit = CopyUnit(self._attach(name, pointer), pointer, self._activity, self._outbox)
        self._opened.append(unit)
        return unit, cscd

    def _rod(self, cscd_id: int, role: Role, pointer: FieldPointer | None) -> CopyUnit:
        try:
            device = self.rods.device(cscd_id)
        except UnitUnreachable:
            raise _unreachable(role) from None
        unit = _RodUnit(device, pointer, self._activity)
        if not device.rod.valid:
            raise unit.unreachable()
        return unit

    def _attach(self, name: Designator | AddressCscd, pointer: FieldPointer | None) -> AttachedUnit:
        # One way to a unit, however many descriptors and designators name it: so its commands
        # keep their order, and a read of what is still to be written there is noticed.
        try:
            attached = self._beside(name) or self._open(name)
        except UnitUnreachable:
            raise CopyAborted(Asc.COPY_TARGET_DEVICE_NOT_REACHABLE, pointer) from None
        present = self._units.setdefault(attached.identity, attached)
        if present is not attached:
            attached.close()
        return present

    def _beside(self, name: Designator | AddressCscd) -> AttachedUnit | None:
        """Look for a unit where others of this copy are."""
        if isinstance(name, Designator):
            for present in self._units.values():
                if isinstance(present, SociableUnit):
                    attached = present.beside(name)
                    if attached is not None:
                        return attached
        return None


def _open_disk(unit: CopyUnit, facts: Facts, cscd: Cscd | None) -> Disk:
    stated = cscd.parameters if cscd is not None else BlockParameters()
    assert isinstance(stated, BlockParameters), "the parameter list pairs them by device type"
    length = facts.block_length or 0
    if not length or stated.block_length not in (0, length):
        # Blocks of another length than the unit's would be cut or run over without a word.
        raise _contradicts(unit, 29)
    transfer = max(1, PIECE // length)
    if facts.transfer_blocks:
        transfer = min(transfer, facts.transfer_blocks)
    return Disk(unit, length, facts.blocks, transfer, stated.pad)


def _open_tape(unit: CopyUnit, facts: Facts, cscd: Cscd | None) -> Tape:
    stated = cscd.parameters if cscd is not None else StreamParameters()
    assert isinstance(stated, StreamParameters), "the parameter list pairs them by device type"
    if stated.fixed and facts.block_length not in (None, stated.block_length):
        raise _contradicts(unit, 29)
    naca = facts.normal_aca and isinstance(unit.attached, AllegiantUnit)
    return Tape(unit, stated.block_length, stated.pad, naca)


def _contradicts(unit: CopyUnit, byte: int) -> CopyAborted:
    """The unit is not what this byte of its CSCD descriptor says."""
    start = unit.pointer
    pointer = FieldPointer(start.byte + byte) if start is not None else None
    return CopyAborted(Asc.INVALID_FIELD_IN_PARAMETER_LIST, pointer)


def _wrong_role(role: Role) -> CopyAborted:
    return CopyAborted(Asc.INVALID_OPERATION_FOR_COPY_SOURCE_OR_DESTINATION, _named_by(role))


def _unreachable(role: Role) -> CopyAborted:
    return CopyAborted(Asc.UNREACHABLE_COPY_TARGET, _named_by(role))


def _named_by(role: Role) -> FieldPointer:
    """The field of the segment descriptor that names the CSCD."""
    return in_descriptor(_SOURCE_FIELD if role is Role.SOURCE else _DESTINATION_FIELD)
