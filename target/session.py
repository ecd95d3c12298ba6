"""Targets and their sessions: who is logged in, and to what (RFC 7143 4.4, 6.3)."""

from collections.abc import Callable, Collection, Container, Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Protocol

from serverfree.iscsi.codes import LoginStatus
from serverfree.iscsi.errors import LoginFailure
from serverfree.iscsi.login import TargetLogin
from serverfree.iscsi.names import initiator_port_name, target_port_name
from serverfree.iscsi.negotiation import KEYS, Parameters
from serverfree.scsi.sense import Asc
from serverfree.target.access import ANYBODY, AccessList, Redirect
from serverfree.target.task_management import Steps, abort_commands, supported_functions
from serverfree.target.task_set import TaskSet
from serverfree.target.units.command import LogicalUnit, Nexus
from serverfree.target.units.missing import MissingUnit
from serverfree.target.units.permission import Permission

PORTAL_GROUP = 1
MAX_SESSIONS = 1024
# What a connection that is not the leading one takes over from it.
_SESSION_WIDE = [key.field for key in KEYS.values() if key.leading_only]
_ADDRESSES = 256  # LUNs below this have two spellings, SAM-5 4.7.4


class Link(Protocol):
    """What a session needs of the connection that carries it."""

    def drop(self) -> None:
        """End the connection and return when its commands have been settled."""

    def end_session(self) -> None:
        """Tell the initiator that the session ends, and end it, soon."""

    def tell_luns_changed(self) -> None:
        """Tell the initiator that REPORT LUNS has something new, without waiting to be asked."""

    def forget(
        self,
        task_sets: Collection[TaskSet],
        *,
        quiet: Callable[[], None],
        told: Callable[[TaskSet, Nexus], None] = ...,
        through: Callable[[], Callable[[], None]] | None = None,
    ) -> None:
        """Drop the connection's commands of some units whose data has not all come.

        `told` hears of each. `quiet` is called, by any thread, once none of them can begin any
        more. With `through`, which gives a step to call, data that was asked for is waited for.
        """


@dataclass(slots=True, eq=False)
class Session:
    """One I_T nexus and the connection that carries it.

    `task_sets` is what the initiator sees, by LUN as a PDU has it; it changes while the session
    lives. `luns` are the numbers in it.
    """

    target: "Target"
    initiator_name: str
    nexus: Nexus
    isid: bytes
    tsih: int
    cid: int
    link: Link
    parameters: Parameters  # as the leading connection agreed on them
    missing: TaskSet  # answers for every other LUN
    task_sets: dict[int, TaskSet] = field(default_factory=dict)
    luns: tuple[int, ...] = ()


class Target:
    """A target: its name, its logical units by LUN, its sessions. Safe from several threads.

    `access` says who may log in and what each initiator sees; `groups` are the tags of the portal
    groups it is reached through, None all; with `redirect` it lives elsewhere. All may be changed
    while it is served: `refresh` then tells the sessions.
    """

    def __init__(
        self,
        name: str,
        units: Sequence[LogicalUnit] = (),
        *,
        alias: str = "",
        access: AccessList = ANYBODY,
        groups: Container[int] | None = None,
        redirect: Redirect | None = None,
        max_sessions: int = MAX_SESSIONS,
    ) -> None:
        """`units` get LUNs from 0; `add` takes more, at any LUN."""
        self.name = name
        self.alias = alias
        self.access = access
        self.groups = groups
        self.redirect = redirect
        self.max_sessions = max_sessions
        self.ports: Sequence[int] = (PORTAL_GROUP,)
        """The tags of the portal groups that lead here, each a target port of its own."""
        self.units: dict[int, LogicalUnit] = {}
        self.task_sets: dict[int, TaskSet] = {}  # every unit, by LUN as a PDU has it
        self._by_lun: dict[int, TaskSet] = {}
        self._sessions: dict[int, Session] = {}  # by TSIH
        self._seen: dict[Nexus, Session] = {}
        self._last_tsih = 0
        self._lock = Lock()
        self._layout = Lock()  # held while units come and go and sessions are given theirs
        absent = MissingUnit()
        absent.lun_inventory = self.luns
        self.missing = TaskSet(absent)
        for lun, unit in enumerate(units):
            self.add(lun, unit)

    # ---------------------------------------------------------------- units

    def add(self, lun: int, unit: LogicalUnit) -> None:
        """Serve a unit at a LUN that is free; `refresh` shows it to the sessions there are."""
        assert lun not in self.units
        unit.lun_inventory = self.luns
        unit.task_management = supported_functions()
        unit.ports = lambda: self.ports
        task_set = TaskSet(unit)
        unit.abort_commands = lambda nexuses: abort_commands(self.sessions(), task_set, nexuses)
        with self._layout:
            self.units[lun] = unit
            self._by_lun[lun] = task_set
            for address in lun_addresses(lun):
                self.task_sets[address] = task_set

    def remove_unit(self, lun: int) -> None:
        """Serve a unit no longer: its commands end, then it is closed."""
        self.hide_unit(lun)()

    def hide_unit(self, lun: int) -> Callable[[], None]:
        """Show a unit no longer; what is returned waits for its commands to end and closes it."""
        with self._layout:
            unit, task_set = self.units.pop(lun), self._by_lun.pop(lun)
            for address in lun_addresses(lun):
                del self.task_sets[address]
        self.refresh()

        def end() -> None:
            # No connection may be about to begin a command of it: the maps have changed, and each
            # has been through with what it had in hand.
            quiet = Event()
            steps = Steps(quiet.set)
            for session in self.sessions():
                session.link.forget({task_set}, quiet=steps.add())
            steps.no_more()
            quiet.wait()
            task_set.close()
            unit.close()

        return end

    def refresh(self) -> None:
        """Give every session what its initiator may see now; who sees a change is told (3F/0E)."""
        for session in self.sessions():
            before = dict(session.task_sets)
            with suppress(LoginFailure):  # not in the list any more: it keeps what it has
                self._show(session)
            if session.task_sets != before:
                for task_set in set(session.task_sets.values()):
                    task_set.unit.raise_attention(
                        Asc.REPORTED_LUNS_DATA_HAS_CHANGED, only=session.nexus
                    )
                session.link.tell_luns_changed()

    def _show(self, session: Session) -> None:
        """Set what a session sees; units that are new to it are attached, others let go of."""
        entry = self.access.find(session.initiator_name)
        with self._layout:
            named: dict[int, tuple[str, TaskSet]] = {}
            snapshots: dict[int, tuple[str, TaskSet]] = {}
            for lun, task_set in self._by_lun.items():
                origin = task_set.unit.snapshot_of
                if origin is None:
                    named[lun] = task_set.unit.name, task_set
                else:
                    snapshots[lun] = origin, task_set
            view = entry.view(named, snapshots)
            before = set(session.task_sets.values())
            for task_set, permission in view.values():
                if task_set in before:
                    task_set.unit.permit(session.nexus, permission)
                else:
                    task_set.unit.attach(session.nexus, permission)
            now = {
                address: task_set
                for lun, (task_set, _) in view.items()
                for address in lun_addresses(lun)
            }
            # In place, and never empty in between: the connection's thread looks things up here.
            session.task_sets.update(now)
            for address in session.task_sets.keys() - now.keys():
                del session.task_sets[address]
            session.luns = tuple(sorted(view))
            for task_set in before - set(now.values()):
                task_set.unit.detach(session.nexus)

    def luns(self, nexus: Nexus) -> Sequence[int]:
        """Return the LUNs that there are for a nexus: what REPORT LUNS lists to it."""
        session = self._seen.get(nexus)
        return sorted(self.units) if session is None else session.luns

    def permission(self, nexus: Hashable, unit: LogicalUnit) -> Permission | None:
        """Return what the initiator of a session may do at a unit, None if it does not see it."""
        session = self._seen.get(nexus) if isinstance(nexus, Nexus) else None
        if session is None or all(each.unit is not unit for each in session.task_sets.values()):
            return None
        return unit.permission(session.nexus)

    # ---------------------------------------------------------------- sessions

    def establish(self, login: TargetLogin, link: Link) -> Session:
        """Make the session of a finished login; an older one of the same port ends (6.3.5).

        With a TSIH, the connection takes the place of the one that the session has. Raises
        LoginFailure for a second connection (MaxConnections is 1), for an initiator that is not in
        the access list, and when there are too many sessions.
        """
        if login.requested_tsih:
            return self._reinstate_connection(login, link)
        nexus = Nexus(
            initiator_port_name(login.initiator_name, login.isid),
            target_port_name(self.name, login.policy.portal_group_tag),
        )
        while old := self._find(nexus):
            old.link.drop()
            self.remove(old)
        with self._lock:
            if len(self._sessions) >= self.max_sessions:
                raise LoginFailure(
                    LoginStatus.OUT_OF_RESOURCES, f"{self.name} has {self.max_sessions} sessions"
                )
            session = Session(
                self,
                login.initiator_name,
                nexus,
                login.isid,
                self._new_tsih(),
                login.cid,
                link,
                login.parameters,
                self.missing,
            )
            self._sessions[session.tsih] = session
            self._seen[nexus] = session
        try:
            self._show(session)
        except LoginFailure:
            self.remove(session)
            raise
        return session

    def _reinstate_connection(self, login: TargetLogin, link: Link) -> Session:
        """Let a new connection of the same CID replace one that is broken, known or not (6.3.4).

        The commands of the old one end; the nexus lives on, so that no unit notices.
        """
        with self._lock:
            session = self._sessions.get(login.requested_tsih)
            if session is None or (session.initiator_name, session.isid, session.nexus.target) != (
                login.initiator_name,
                login.isid,
                target_port_name(self.name, login.policy.portal_group_tag),
            ):
                raise LoginFailure(
                    LoginStatus.SESSION_DOES_NOT_EXIST, f"no session {login.requested_tsih}"
                )
            if session.cid != login.cid:
                raise LoginFailure(LoginStatus.TOO_MANY_CONNECTIONS, "one connection a session")
            old, session.link = session.link, link
        old.drop()
        for name in _SESSION_WIDE:
            setattr(login.parameters, name, getattr(session.parameters, name))
        return session

    def remove(self, session: Session, link: Link | None = None) -> None:
        """The session has ended; what the units kept for its nexus goes.

        With `link`, that connection has, which was the session's unless another took its place.
        """
        with self._lock:
            if link not in (None, session.link):
                return
            if self._sessions.pop(session.tsih, None) is None:
                return
            self._seen.pop(session.nexus, None)
        with self._layout:
            for task_set in set(session.task_sets.values()):
                task_set.unit.detach(session.nexus)

    def sessions(self) -> list[Session]:
        """Return the sessions of this moment."""
        with self._lock:
            return list(self._sessions.values())

    def close(self) -> None:
        """End every session, then put the units' data on stable storage and let go of them."""
        for session in self.sessions():
            session.link.drop()
        for task_set in self._by_lun.values():
            task_set.close()
        for unit in self.units.values():
            unit.close()

    def _find(self, nexus: Nexus) -> Session | None:
        with self._lock:
            return self._seen.get(nexus)

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
