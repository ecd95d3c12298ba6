"""A target's own units as copy sources and copy destinations, reached without the network."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count

from serverfree.datamover.errors import UnitUnreachable
from serverfree.datamover.units import Facts
from serverfree.scsi.designator import Designator
from serverfree.scsi.device import Buffer, Result
from serverfree.target.backstore.base import Stored
from serverfree.target.units.base import Unit
from serverfree.target.units.command import Command, Handover, LogicalUnit, Nexus
from serverfree.target.units.permission import EVERYTHING, Permission

COPIES = "copy manager,"
"""How the initiator port names of copies within a target begin."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """A command that has ended already."""

    result: Result

    def wait(self, timeout: float | None = None) -> Result:
        return self.result


class LocalDevice:
    """A unit of this process as a device: `submit` runs the command before it returns.

    The copy has a nexus of its own with the unit, like every other initiator.
    """

    def __init__(
        self, unit: LogicalUnit, nexus: Nexus, permission: Permission = EVERYTHING
    ) -> None:
        self.identity = id(unit)
        self.facts: Facts | None = None
        self._unit = unit
        self._nexus = nexus
        unit.attach(nexus, permission)

    def submit(
        self,
        cdb: bytes,
        *,
        data_out: Buffer | Sequence[Buffer] = b"",
        data_in: memoryview | None = None,
    ) -> _Ended:
        """Run a command."""
        if not isinstance(data_out, bytes | bytearray | memoryview):
            data_out = data_out[0] if len(data_out) == 1 else b"".join(data_out)
        room = 0 if data_in is None else len(data_in)
        reply = self._unit.execute(Command(self._nexus, cdb, data_out, room, read_here=True))
        size = min(len(reply.data), room)
        if data_in is not None and size:
            data_in[:size] = memoryview(reply.data)[:size]
        return _Ended(Result(reply.status, reply.sense, size))

    def lend(self, cdb: bytes) -> tuple[Result, Stored | None]:
        """Run a READ of a disk, and say where what it reads is stored."""
        command = Handover(self._nexus, cdb, read_here=True)
        reply = self._unit.execute(command)
        return Result(reply.status, reply.sense), command.stored

    def take(self, cdb: bytes, lent: object) -> tuple[Result, bool]:
        """Run a WRITE of a disk, its data from where it is stored; say whether that was done."""
        assert isinstance(lent, Stored)
        command = Handover(self._nexus, cdb, stored=lent)
        reply = self._unit.execute(command)
        return Result(reply.status, reply.sense), command.taken

    def stand_in_for(self, nexus: Nexus) -> None:
        """Reservations see this nexus in every command."""
        if isinstance(self._unit, Unit):
            self._unit.reservations.stand_ins[self._nexus] = nexus

    def close(self, *, broken: bool = False) -> None:
        """The nexus of the copy ends."""
        if isinstance(self._unit, Unit):
            self._unit.reservations.stand_ins.pop(self._nexus, None)
        self._unit.detach(self._nexus)


class LocalFabric:
    """The units of one target; `units` is asked at every opening, for they come and go.

    `permission` says what the initiator of a nexus may do at a unit, None if it does not even see
    it: a copy that it asks for may do no more.
    """

    def __init__(
        self,
        target: str,
        units: Callable[[], Iterable[LogicalUnit]],
        *,
        permission: Callable[[Hashable, LogicalUnit], Permission | None] = (
            lambda nexus, unit: EVERYTHING
        ),
    ) -> None:
        self._target = target
        self._units = units
        self._permission = permission
        self._numbers = count(1)

    def open(self, designator: Designator, nexus: Hashable = None) -> LocalDevice:
        """Return the unit with this designator. Raises UnitUnreachable."""
        for unit in self._units():
            if isinstance(unit, Unit) and designator.same(unit.designator):
                permission = self._permission(nexus, unit)
                if permission is not None:
                    own = Nexus(f"{COPIES}{next(self._numbers)}", self._target)
                    return LocalDevice(unit, own, permission)
        raise UnitUnreachable(f"{self._target} has no unit {designator}")

    def open_for(self, designator: Designator, nexus: Hashable) -> LocalDevice:
        """Return the unit with this designator, to do there what this nexus itself may do.

        A reservation that lets the nexus through lets the device through. Raises UnitUnreachable.
        """
        device = self.open(designator, nexus)
        if isinstance(nexus, Nexus):
            device.stand_in_for(nexus)
        return device
