"""Reservations of one logical unit: who may do what (SPC-4 5.13; RESERVE and RELEASE of SPC-2)."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

from serverfree.iscsi.names import target_port_name
from serverfree.scsi.errors import (
    ReservationConflict,
    illegal_request,
    invalid_field_in_cdb,
    invalid_field_in_parameter_list,
)
from serverfree.scsi.opcodes import OperationCode
from serverfree.scsi.reservations import (
    LU_SCOPE,
    FullStatus,
    MoveList,
    ReservationType,
    ReserveOutList,
)
from serverfree.scsi.sense import Asc
from serverfree.scsi.transport_id import TransportId
from serverfree.target.backstore.state import StateFile
from serverfree.target.units.access import ALLOWED, Access
from serverfree.target.units.attention import Attentions
from serverfree.target.units.command import Command, Nexus
from serverfree.target.units.ports import relative_port
from serverfree.target.units.table import Row

MAXIMUM_REGISTRATIONS = 1024
"""A bound on what initiators can make us remember."""
SECTION = "reservations"

_UNDER_RESERVE = frozenset(
    {
        OperationCode.INQUIRY,
        OperationCode.REPORT_LUNS,
        OperationCode.REQUEST_SENSE,
        OperationCode.LOG_SENSE,
        OperationCode.RELEASE_6,
        OperationCode.RELEASE_10,
    }
)
"""What other nexuses may do while RESERVE of one holds (SPC-2 table 9)."""


@dataclass(frozen=True, slots=True)
class Registration:
    """A registered reservation key; `all_ports`: it was made for every target port."""

    key: int
    all_ports: bool = False


@dataclass(slots=True)
class Held:
    """All that there is to know of persistent reservations at one moment.

    `holder` is None where there is no reservation, and also where all registrants hold it: `type`
    tells whether there is one.
    """

    registrations: dict[Nexus, Registration] = field(default_factory=dict)
    type: ReservationType | None = None
    holder: Nexus | None = None
    persist: bool = False  # APTPL

    def copy(self) -> "Held":
        """Return one to make changes to."""
        return replace(self, registrations=dict(self.registrations))

    def is_holder(self, nexus: Nexus) -> bool:
        """Whether a nexus holds the reservation (5.13.10)."""
        if self.type is not None and self.type.all_registrants:
            return nexus in self.registrations
        return self.type is not None and nexus == self.holder

    def reserve(self, nexus: Nexus, kind: ReservationType) -> None:
        """Establish a reservation."""
        self.type, self.holder = kind, None if kind.all_registrants else nexus

    def release(self) -> None:
        """Let go of the reservation."""
        self.type = self.holder = None

    def unregister(self, nexus: Nexus) -> bool:
        """Remove a registration; return whether a reservation went with it (table 71)."""
        was_holder = self.is_holder(nexus)
        self.registrations.pop(nexus, None)
        if not was_holder or (self.holder is None and self.registrations):
            return False
        self.release()
        return True

    def holder_key(self) -> int:
        """The key that READ RESERVATION reports: 0 where all registrants hold."""
        return self.registrations[self.holder].key if self.holder is not None else 0

    def to_json(self) -> Any:
        """What the state file keeps."""
        return {
            "registrations": [
                [nexus.initiator, nexus.target, f"{one.key:016x}", one.all_ports]
                for nexus, one in self.registrations.items()
            ],
            "type": self.type,
            "holder": None if self.holder is None else [self.holder.initiator, self.holder.target],
        }

    @classmethod
    def from_json(cls, value: Any) -> "Held":
        """Read what the state file kept."""
        return cls(
            {
                Nexus(initiator, target): Registration(int(key, 16), all_ports)
                for initiator, target, key, all_ports in value["registrations"]
            },
            None if value["type"] is None else ReservationType(value["type"]),
            None if value["holder"] is None else Nexus(*value["holder"]),
            persist=True,
        )


class Reservations:
    """The reservations of one unit. Safe to use from several threads.

    Each change is one indivisible event: it is made on a copy, put on stable storage if it is to
    persist, and then takes the place of what was. `restricts` is false while nothing is reserved,
    so that a gate need not ask. `ports` gives the relative identifiers of the target's ports;
    `abort` is told of nexuses whose commands PREEMPT AND ABORT ends, and returns when they have.
    """

    def __init__(
        self,
        attentions: Attentions,
        *,
        ports: Callable[[], Sequence[int]],
        attached: Callable[[], Iterable[Nexus]],
        abort: Callable[[Collection[Nexus]], None],
        changed: Callable[[], None],
        state: StateFile | None = None,
    ) -> None:
        self._attentions = attentions
        self._ports = ports
        self._attached = attached
        self._abort = abort
        self._changed = changed
        self._state = state
        self._lock = Lock()
        kept = None if state is None else state.get(SECTION)
        self._held = Held() if kept is None else Held.from_json(kept)
        self.generation = 0
        self.reserved_by: Nexus | None = None  # RESERVE of SPC-2
        self.stand_ins: dict[Nexus, Nexus] = {}
        """Nexuses that do for another what it has asked for, each with that one."""

    # What others ask

    @property
    def restricts(self) -> bool:
        """Whether any nexus is refused anything."""
        return self._held.type is not None or self.reserved_by is not None

    @property
    def can_persist(self) -> bool:
        """Whether APTPL can be kept (PTPL_C)."""
        return self._state is not None

    @property
    def persists(self) -> bool:
        """Whether reservations persist through a loss of power (PTPL_A)."""
        return self._held.persist

    def check(self, row: Row, command: Command) -> None:
        """Raise ReservationConflict if another nexus has reserved what the command would do."""
        nexus, held = command.nexus, self._held
        nexus = self.stand_ins.get(nexus, nexus)
        if self.reserved_by is not None:
            if nexus != self.reserved_by and command.cdb[0] not in _UNDER_RESERVE:
                raise ReservationConflict
            return
        kind = held.type
        if kind is None or held.is_holder(nexus):
            return
        if kind.admits_registrants and nexus in held.registrations:
            return
        access = row.access if isinstance(row.access, Access) else row.access(command.cdb)
        if access not in ALLOWED[kind]:
            raise ReservationConflict

    def keys(self) -> list[int]:
        """The registered keys, one for each nexus."""
        return [one.key for one in self._held.registrations.values()]

    def reservation(self) -> tuple[int, int] | None:
        """The holder's key and the type, None if there is no reservation."""
        held = self._held
        return None if held.type is None else (held.holder_key(), held.type)

    def full_status(self) -> list[FullStatus]:
        """A descriptor for each registered nexus, one alone for all ports of ALL_TG_PT."""
        held = self._held
        told: dict[tuple[str, str], FullStatus] = {}
        for nexus, one in held.registrations.items():
            told[nexus.initiator, "" if one.all_ports else nexus.target] = FullStatus(
                one.key,
                nexus.initiator,
                relative_port(nexus),
                one.all_ports,
                held.type if held.is_holder(nexus) else None,
            )
        return list(told.values())

    # PERSISTENT RESERVE OUT, by service action

    def register(self, nexus: Nexus, order: ReserveOutList, *, ignore_key: bool) -> None:
        """REGISTER, and REGISTER AND IGNORE EXISTING KEY (5.13.7)."""
        with self._lock:
            held = self._held.copy()
            present = held.registrations.get(nexus)
            if not ignore_key and order.key != (present.key if present else 0):
                raise ReservationConflict
            # Only a REGISTER that registers may name other ports (6.16.3).
            if order.specify_initiator_ports and (ignore_key or present is not None):
                raise invalid_field_in_parameter_list(20, 3)
            if order.persist and not self.can_persist:
                raise invalid_field_in_parameter_list(20, 0)
            told: list[tuple[Iterable[Nexus], Asc]] = []
            if not order.action_key:
                kind = held.type
                if held.unregister(nexus) and kind is not None and kind.admits_registrants:
                    told.append((held.registrations, Asc.RESERVATIONS_RELEASED))
            else:
                nexuses = self._named(nexus, order)
                if order.specify_initiator_ports:
                    for each in nexuses:
                        if each != nexus and each in held.registrations:
                            raise invalid_field_in_parameter_list(24)
                registration = Registration(order.action_key, order.all_target_ports)
                held.registrations |= dict.fromkeys(nexuses, registration)
                if len(held.registrations) > MAXIMUM_REGISTRATIONS:
                    raise illegal_request(Asc.INSUFFICIENT_REGISTRATION_RESOURCES)
            held.persist = order.persist
            self._commit(held, but=nexus, told=told, counts=True)

    def reserve(self, nexus: Nexus, order: ReserveOutList, scope: int, code: int) -> None:
        """RESERVE (5.13.9)."""
        with self._lock:
            held = self._of(nexus, order.key)
            kind = _type(scope, code)
            if held.type is not None:
                if held.is_holder(nexus) and held.type is kind:
                    return
                raise ReservationConflict
            held.reserve(nexus, kind)
            self._commit(held)

    def release(self, nexus: Nexus, order: ReserveOutList, scope: int, code: int) -> None:
        """RELEASE (5.13.11.2.2)."""
        with self._lock:
            held = self._of(nexus, order.key)
            kind = held.type
            if kind is None or not held.is_holder(nexus):
                return
            if (scope, code) != (LU_SCOPE, kind):
                raise illegal_request(Asc.INVALID_RELEASE_OF_PERSISTENT_RESERVATION)
            held.release()
            told = [(held.registrations, Asc.RESERVATIONS_RELEASED)] * kind.admits_registrants
            self._commit(held, but=nexus, told=told)

    def clear(self, nexus: Nexus, order: ReserveOutList) -> None:
        """CLEAR (5.13.11.2.7)."""
        with self._lock:
            held = self._of(nexus, order.key)
            told = [(list(held.registrations), Asc.RESERVATIONS_PREEMPTED)]
            held.registrations.clear()
            held.release()
            self._commit(held, but=nexus, told=told, counts=True)

    def preempt(
        self, nexus: Nexus, order: ReserveOutList, scope: int, code: int, *, abort: bool
    ) -> None:
        """PREEMPT (5.13.11.2.4), and PREEMPT AND ABORT (5.13.11.2.6)."""
        with self._lock:
            held = self._of(nexus, order.key)
            before, victim = held.type, order.action_key
            all_registrants = before is not None and before.all_registrants
            if not victim and not all_registrants:
                raise invalid_field_in_parameter_list(8)
            # Figure 9: the reservation too is preempted if the key is its holder's; of all
            # registrants that is key zero, and it means all the others.
            takes_over = (
                not victim
                if all_registrants
                else before is not None and victim == held.holder_key()
            )
            preempted = [
                each
                for each, one in held.registrations.items()
                if not victim or one.key == victim
                if victim or each != nexus
            ]
            if victim and not preempted:
                raise ReservationConflict
            kind = _type(scope, code) if takes_over else None
            for each in preempted:
                if not (takes_over and each == nexus):
                    held.unregister(each)
            told: list[tuple[Iterable[Nexus], Asc]] = [(preempted, Asc.REGISTRATIONS_PREEMPTED)]
            if kind is not None:
                held.reserve(nexus, kind)
                if kind is not before:
                    told.append((held.registrations, Asc.RESERVATIONS_RELEASED))
            self._commit(held, but=nexus, told=told, counts=True)
        if abort:
            # Outside the lock: commands that end may look at reservations on their way.
            self._abort(frozenset(preempted) - {nexus})

    def register_and_move(self, nexus: Nexus, order: MoveList, scope: int, code: int) -> None:
        """REGISTER AND MOVE (5.13.8)."""
        with self._lock:
            held = self._of(nexus, order.key)
            if not held.is_holder(nexus) or held.type is None or held.type.all_registrants:
                raise ReservationConflict
            if (scope, code) != (LU_SCOPE, held.type):
                raise invalid_field_in_cdb(2)
            if not order.action_key:
                raise invalid_field_in_parameter_list(8)
            if order.relative_port not in self._ports():
                raise invalid_field_in_parameter_list(18)
            if order.persist and not self.can_persist:
                raise invalid_field_in_parameter_list(17, 0)
            receiver = self._nexus(order.initiator_port, order.relative_port, nexus)
            if receiver == nexus or order.initiator_port.isid is None:
                raise invalid_field_in_parameter_list(24)
            held.registrations[receiver] = Registration(order.action_key)
            held.holder = receiver
            if order.unregister:
                held.unregister(nexus)
            held.persist = order.persist
            self._commit(held, but=nexus, counts=True)

    # RESERVE and RELEASE of SPC-2, with the exceptions of SPC-4 5.13.3

    def reserve_unit(self, nexus: Nexus) -> None:
        """RESERVE(6) and (10) for the whole unit."""
        with self._lock:
            if self._held.registrations:
                self._require_good_without_effect(nexus)
            elif self.reserved_by not in (None, nexus):
                raise ReservationConflict
            else:
                self.reserved_by = nexus
                self._changed()

    def release_unit(self, nexus: Nexus) -> None:
        """RELEASE(6) and (10); of no effect from a nexus that has reserved nothing."""
        with self._lock:
            if self._held.registrations:
                self._require_good_without_effect(nexus)
            elif self.reserved_by == nexus:
                self.reserved_by = None
                self._changed()

    def forget(self, nexus: Nexus) -> None:
        """A nexus is lost: its RESERVE ends, its registration stays (5.13.1)."""
        with self._lock:
            if self.reserved_by == nexus:
                self.reserved_by = None
                self._changed()

    def reset(self) -> None:
        """LOGICAL UNIT RESET: RESERVE ends, persistent reservations stay."""
        with self._lock:
            self.reserved_by = None
            self._changed()

    def _require_good_without_effect(self, nexus: Nexus) -> None:
        held = self._held
        admitted = held.type is not None and held.type.admits_registrants
        if not held.is_holder(nexus) and not (admitted and nexus in held.registrations):
            raise ReservationConflict

    # Shared steps

    def _of(self, nexus: Nexus, key: int) -> Held:
        """Return a copy to change, for a registered nexus that gives its own key (5.13.6)."""
        held = self._held.copy()
        registration = held.registrations.get(nexus)
        if registration is None or registration.key != key:
            raise ReservationConflict
        return held

    def _named(self, nexus: Nexus, order: ReserveOutList) -> list[Nexus]:
        """The nexuses that a REGISTER is for: ALL_TG_PT and SPEC_I_PT multiply."""
        names = [TransportId.of_port(nexus.initiator)]
        names += (name for name in order.initiator_ports if name not in names)
        ports = self._ports() if order.all_target_ports else (relative_port(nexus),)
        found = {
            self._nexus(one, port, nexus): None
            for name in names
            for one in self._ports_of_device(name)
            for port in ports
        }
        return list(found)

    def _ports_of_device(self, name: TransportId) -> list[TransportId]:
        """A port is itself; a device name stands for those of its ports that are logged in."""
        if name.isid is not None:
            return [name]
        known = {TransportId.of_port(each.initiator) for each in self._attached()}
        return sorted((port for port in known if port.name == name.name), key=str)

    def _nexus(self, name: TransportId, port: int, like: Nexus) -> Nexus:
        target = like.target.partition(",t,")[0]
        # A nexus through the same port is spelt the same, whatever spelling the transport uses.
        same = port == relative_port(like)
        return Nexus(name.port_name, like.target if same else target_port_name(target, port))

    def _commit(
        self,
        held: Held,
        *,
        but: Nexus | None = None,
        told: Iterable[tuple[Iterable[Nexus], Asc]] = (),
        counts: bool = False,
    ) -> None:
        if not held.registrations:
            held.release()
        # 1. What must outlive a loss of power is on stable storage ...
        if self._state is not None:
            self._state.put(
                SECTION, held.to_json() if held.persist and held.registrations else None
            )
        # 2. ... before any command is judged by it.
        self._held = held
        self.generation = self.generation + counts & 0xFFFFFFFF
        self._changed()
        for nexuses, asc in told:
            self._attentions.tell((each for each in nexuses if each != but), asc)


def _type(scope: int, code: int) -> ReservationType:
    """Return the type that a CDB names; 5/24/00 if scope or type is none."""
    if scope != LU_SCOPE:
        raise invalid_field_in_cdb(2, 7)
    try:
        return ReservationType(code)
    except ValueError:
        raise invalid_field_in_cdb(2, 3) from None
