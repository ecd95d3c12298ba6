"""Targets and their sessions: who is logged in, and to what (RFC 7143 4.4, 6.3)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

from serverfree.iscsi.codes import LoginStatus
from serverfree.iscsi.errors import LoginFailure
from serverfree.iscsi.login import TargetLogin
from serverfree.iscsi.names import initiator_port_name, target_port_name
from serverfree.target.task_set import TaskSet
from serverfree.target.units.command import LogicalUnit, Nexus
from serverfree.target.units.missing import MissingUnit

PORTAL_GROUP = 1
_ADDRESSES = 256  # LUNs below this have two spellings, SAM-5 4.7.4


class Link(Protocol):
    """What a session needs of the connection that carries it."""

    def drop(self) -> None:
        """End the connection and return when its commands have been settled."""

    def forget_incomplete(self, task_set: TaskSet) -> None:
        """Drop the connection's commands of a unit whose data has not yet come."""


@dataclass(slots=True, eq=False)
class Session:
    """One I_T nexus and the connection that carries it."""

    target: "Target"
    nexus: Nexus
    isid: bytes
    tsih: int
    link: Link


@dataclass(slots=True, eq=False)
class Target:
    """A target: its name, its logical units by LUN, its sessions. Safe from several threads."""

    name: str
    units: Sequence[LogicalUnit]
    alias: str = ""
    task_sets: dict[int, TaskSet] = field(default_factory=dict)  # by LUN as a PDU has it
    missing: TaskSet = field(init=False)  # answers for every other LUN
    _sessions: dict[int, Session] = field(default_factory=dict)  # by TSIH
    _last_tsih: int = 0
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        absent = MissingUnit()
        absent.lun_inventory = self.luns
        self.missing = TaskSet(absent)
        for lun, unit in enumerate(self.units):
            unit.lun_inventory = self.luns
            task_set = TaskSet(unit)
            for address in lun_addresses(lun):
                self.task_sets[address] = task_set

    def establish(self, login: TargetLogin, link: Link) -> Session:
        """Make the session of a finished login; an older one of the same port ends (6.3.5).

        Raises LoginFailure for a second connection: MaxConnections is 1.
        """
        if login.requested_tsih:
            with self._lock:
                known = login.requested_tsih in self._sessions
            if known:
                raise LoginFailure(
                    LoginStatus.CANNOT_INCLUDE_IN_SESSION, "one connection a session"
                )
            raise LoginFailure(
                LoginStatus.SESSION_DOES_NOT_EXIST, f"no session {login.requested_tsih}"
            )
        nexus = Nexus(
            initiator_port_name(login.initiator_name, login.isid),
            target_port_name(self.name, PORTAL_GROUP),
        )
        while old := self._find(nexus):
            old.link.drop()
            self.remove(old)
        with self._lock:
            session = Session(self, nexus, login.isid, self._new_tsih(), link)
            self._sessions[session.tsih] = session
        for unit in self.units:
            unit.attach(nexus)
        return session

    def remove(self, session: Session) -> None:
        """The session has ended; what the units kept for its nexus goes."""
        with self._lock:
            if self._sessions.pop(session.tsih, None) is None:
                return
        for unit in self.units:
            unit.detach(session.nexus)

    def luns(self) -> Sequence[int]:
        """Return the LUNs that there are: what REPORT LUNS lists."""
        return range(len(self.units))

    def sessions(self) -> list[Session]:
        """Return the sessions of this moment."""
        with self._lock:
            return list(self._sessions.values())

    def close(self) -> None:
        """End every session, then put the units' data on stable storage and let go of them."""
        for session in self.sessions():
            session.link.drop()
        for task_set in set(self.task_sets.values()):
            task_set.close()
        for unit in self.units:
            unit.close()

    def _find(self, nexus: Nexus) -> Session | None:
        with self._lock:
            return next((s for s in self._sessions.values() if s.nexus == nexus), None)

    def _new_tsih(self) -> int:
        while True:
            self._last_tsih = self._last_tsih % 0xFFFF + 1
            if self._last_tsih not in self._sessions:
                return self._last_tsih


def lun_addresses(lun: int) -> Iterable[int]:
    """Yield the 8-byte LUN fields, as numbers, that name this LUN.

    Peripheral device addressing below 256, flat space addressing for all (SAM-5 4.7.5, 4.7.6).
    """
    if lun < _ADDRESSES:
        yield lun << 48
    yield (0x4000 | lun) << 48
