"""How a copy manager finds the logical units that a parameter list designates."""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from serverfree.datamover.errors import UnitUnreachable
from serverfree.datamover.paths import Key, Path, doubled_by, find_doubled, key_of
from serverfree.datamover.units import CARRIER_FAILURES, AttachedUnit, Facts
from serverfree.initiator.connection import Timing
from serverfree.initiator.discovery import discover
from serverfree.initiator.secrets import NOBODY, Login
from serverfree.initiator.session import (
    LogicalUnit,
    PendingCommand,
    PendingCommands,
    Session,
)
from serverfree.iscsi.names import DEFAULT_PORT, DiscoveredTarget, Portal
from serverfree.scsi.cdb.primary import Inquiry
from serverfree.scsi.designator import Association, Designator
from serverfree.scsi.device import Buffer, Order, execute_in
from serverfree.scsi.errors import ScsiError
from serverfree.scsi.vpd import DeviceIdentification

log = logging.getLogger(__name__)

DATAMOVER_NAME = "iqn.2026-11.com.example:datamover"
_PAGE_LENGTH = 4096
_MOST_UNITS = 4096  # of one target; what a target says must not fill our memory
_MOST_IDLE = 32  # sessions kept for the next copy
_IDLE_SECONDS = 60.0
_SURVEY_LASTS = 60.0  # seconds, in which another target of a name may come and not be noticed
_FAILURES = (*CARRIER_FAILURES, ScsiError, ValueError)


class Fabric(Protocol):
    """The units that a copy manager can reach."""

    def open(self, designator: Designator, nexus: Hashable = None) -> AttachedUnit:
        """Return a way to the unit with this designator that nobody else uses until it is closed.

        `nexus` is whoever has asked for the copy: it gets only what it could itself reach.
        Raises UnitUnreachable.
        """


@runtime_checkable
class ActingFabric(Protocol):
    """A fabric that knows who stands behind a command, where a unit asks that of reservations."""

    def open_for(self, designator: Designator, nexus: Hashable) -> AttachedUnit:
        """Return a way to a unit where commands count as this nexus's own. As `open` otherwise."""


@runtime_checkable
class PortalFabric(Protocol):
    """A fabric that also knows units by where they are: for CSCD descriptors E5h, E6h and EAh."""

    def open_at(self, portal: Portal, lun: int, nexus: Hashable = None) -> AttachedUnit:
        """Return a way to the unit with this LUN behind this portal. Raises UnitUnreachable.

        The portal has an address in numbers, and port 0 where that was not said.
        """

    def open_named(self, target: str, lun: int, nexus: Hashable = None) -> AttachedUnit:
        """Return a way to the unit with this LUN of the target. Raises UnitUnreachable."""


@dataclass(slots=True, eq=False)
class _Link:
    """A session, and what copies have learnt of the units behind it.

    `users` counts the units that a copy has open behind it; it is `lost` once one of them no longer
    answers. The portal counts: several targets on a network may have the same name by mistake, or
    by default, and then each has units of its own.
    """

    target: str
    portal: Portal
    session: Session
    facts: dict[int, Facts] = field(default_factory=dict)
    idle_since: float = 0.0
    users: int = 0
    lost: bool = False


class NetworkUnit:
    """A unit reached through a session that one copy has for itself and its other units there.

    One is enough: a target has a thread less to change to, and the commands for all its units come
    and end together.
    """

    def __init__(self, fabric: "NetworkFabric", link: _Link, lun: int, identity: Key) -> None:
        self.identity = identity
        self._fabric = fabric
        self._link: _Link | None = link
        link.users += 1
        self._lun = lun
        self._unit: LogicalUnit = link.session.unit(lun)
        self.facts = link.facts.get(lun)

    def submit(
        self,
        cdb: bytes,
        *,
        data_out: Buffer | Sequence[Buffer] = b"",
        data_in: memoryview | None = None,
    ) -> PendingCommand:
        """Send a command and return at once. Raises SessionLost."""
        return self._unit.submit(cdb, data_out=data_out, data_in=data_in)

    def enqueue(
        self,
        cdb: bytes,
        *,
        data_out: Buffer | Sequence[Buffer] = b"",
        data_in: memoryview | None = None,
    ) -> PendingCommand:
        """Have a command sent with the next one or by `flush`. Raises SessionLost."""
        return self._unit.enqueue(cdb, data_out=data_out, data_in=data_in)

    def submit_all(self, commands: Sequence[Order]) -> PendingCommands:
        """Send commands together and return at once. Raises SessionLost."""
        return self._unit.submit_all(commands)

    def beside(self, designator: Designator) -> "NetworkUnit | None":
        """Return the unit with this designator if the same session leads there."""
        return None if self._link is None else self._fabric._open_beside(self._link, designator)

    def clear_allegiance(self) -> bool:
        """Let the unit go on after an error with NACA; tell if it does. Raises SessionLost."""
        return self._unit.clear_allegiance()

    def flush(self) -> None:
        """Send what was enqueued."""
        self._unit.session.flush()

    def close(self, *, broken: bool = False) -> None:
        """Give the session back for the next copy, or let go of it if it no longer answers."""
        link, self._link = self._link, None
        if link is None:
            return
        link.users -= 1
        if self.facts is None:
            link.facts.pop(self._lun, None)
        else:
            link.facts[self._lun] = self.facts
        if broken:
            link.lost = True
            link.session.close()
        elif not link.users and not link.lost:
            self._fabric._keep(link)


class NetworkFabric:
    """The units behind the targets that some portals know.

    A unit is found by SendTargets at each portal of `reach`, REPORT LUNS and VPD page 83h; what
    was found is remembered, and looked for anew when a designator is unknown or its unit gone.
    A target that announces addresses which cannot be reached is tried at the portal that told of
    it first of all. A unit that two targets of one name seem to have is not given out, for it may
    be the wrong one. `login` is who we are to targets that ask. Sessions outlive their copy and
    serve the next one; each serves one at a time. Safe to use from any thread.
    """

    def __init__(
        self,
        reach: Sequence[Portal | tuple[str, int]],
        *,
        initiator_name: str = DATAMOVER_NAME,
        timing: Timing | None = None,
        login: Login = NOBODY,
    ) -> None:
        self._login = login
        self._reach = [one if isinstance(one, Portal) else Portal(*one) for one in reach]
        self._initiator_name = initiator_name
        self._timing = timing
        self._lock = threading.Lock()  # guards what follows, never held while the network is asked
        self._paths: dict[Key, list[Path]] = {}
        self._idle: list[_Link] = []
        self._closed = False
        self._doubled: dict[Key, str] = {}  # why nobody can say which unit is meant
        self._silent: set[Portal] = set()  # had nothing to say in the last survey
        self._surveyed_at = 0.0
        self._discovering = threading.Lock()
        self._discoveries = 0

    def open(self, designator: Designator, nexus: Hashable = None) -> NetworkUnit:
        """Return the unit with this designator. Raises UnitUnreachable.

        What may be reached is what the targets show to this fabric's own initiator name.
        """
        if self._discoveries and time.monotonic() - self._surveyed_at > _SURVEY_LASTS:
            self._discover(self._discoveries, spare=self._silent)
        seen = self._discoveries
        unit = self._open_known(designator)
        if unit is None:
            self._discover(seen)
            unit = self._open_known(designator)
        if unit is None:
            raise UnitUnreachable(f"no unit {designator} at {', '.join(map(str, self._reach))}")
        return unit

    def open_at(self, portal: Portal, lun: int, nexus: Hashable = None) -> NetworkUnit:
        """Return the unit with this LUN behind this portal. Raises UnitUnreachable.

        A parameter list must not make the mover knock at any door: the portal is one of `reach`.
        It names no target, so exactly one of those there must have that LUN.
        """
        if portal.port == 0:
            portal = Portal(portal.host, DEFAULT_PORT)
        if not any(_is_at(one, portal) for one in self._reach):
            raise UnitUnreachable(f"{portal} is not one of the portals to reach")
        at_portal = [Path(one.name, (portal,), lun) for one in self._targets_at(portal)]
        return self._only_one(at_portal, f"LUN {lun} at {portal}")

    def open_named(self, target: str, lun: int, nexus: Hashable = None) -> NetworkUnit:
        """Return the unit with this LUN of the target. Raises UnitUnreachable.

        The target is looked for at every portal of `reach`, and nowhere else. If several have
        that name, one of them only may have such a unit.
        """
        paths = [
            Path(target, (portal, *one.portals), lun)
            for portal in self._reach
            for one in self._targets_at(portal)
            if one.name == target
        ]
        if not paths:
            raise UnitUnreachable(f"no target {target} at {', '.join(map(str, self._reach))}")
        return self._only_one(paths, f"LUN {lun} of {target}")

    def _only_one(self, paths: Sequence[Path], wanted: str) -> NetworkUnit:
        """Return the one unit that these paths lead to, by the first of those that do."""
        found: dict[Key | None, tuple[_Link, Path]] = {}
        doubled = ""
        for path in paths:
            for link in self._links(path):
                try:
                    if path.lun in link.session.report_luns():
                        names = [key_of(one) for one in _designators(link.session, path.lun)]
                        first = found.setdefault(min(names, default=None), (link, path))
                        if first[0] is not link:  # another way to a unit that is found
                            self._keep(link)
                            doubled = doubled or doubled_by(first[1], path, self._log_in)
                    else:
                        self._keep(link)
                except _FAILURES as error:
                    log.warning("cannot ask %s for its units: %s", path.target, error)
                    link.session.close()
                    continue
                break
        if len(found) != 1 or None in found or doubled:
            for link, _ in found.values():
                self._keep(link)
            raise UnitUnreachable(f"{wanted}: {doubled or f'there are {len(found)}'}")
        ((name, (link, path)),) = found.items()
        assert name is not None
        return NetworkUnit(self, link, path.lun, name)

    def close(self) -> None:
        """Log out everywhere; what is still in use is let go of when it is handed back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for link in idle:
            link.session.close()

    # ------------------------------------------------------------------ units that are known

    def _open_known(self, designator: Designator) -> NetworkUnit | None:
        key = key_of(designator)
        with self._lock:
            paths, doubled = list(self._paths.get(key, ())), self._doubled.get(key)
        if doubled is not None:
            raise UnitUnreachable(f"{designator}: {doubled}")
        for path in paths:
            for link in self._links(path):
                # Whether the session still lives, and whether the LUN still is that unit.
                try:
                    unit = self._unit_at(link, path.lun, key)
                except _FAILURES as error:
                    log.info("%s: %s", path.target, error)
                    link.session.close()
                    continue
                if unit is not None:
                    return unit
                self._keep(link)
                break
        return None

    def _open_beside(self, link: _Link, designator: Designator) -> NetworkUnit | None:
        key = key_of(designator)
        with self._lock:
            paths = () if key in self._doubled else tuple(self._paths.get(key, ()))
        for path in paths:
            if path.target == link.target and link.portal in path.portals and not link.lost:
                with contextlib.suppress(*_FAILURES):
                    unit = self._unit_at(link, path.lun, key)
                    if unit is not None:
                        return unit
        return None

    def _unit_at(self, link: _Link, lun: int, key: Key) -> NetworkUnit | None:
        """Return the unit with this LUN if that is one of its names. Raises one of _FAILURES."""
        names = {key_of(one) for one in _designators(link.session, lun)}
        # The least of its names: the same whichever of them was asked for.
        return NetworkUnit(self, link, lun, min(names)) if key in names else None

    def _links(self, path: Path) -> Iterator[_Link]:
        """Yield idle sessions with the target, then a new one if there can be one."""
        while (link := self._take_idle(path)) is not None:
            yield link
        for portal in path.portals:
            try:
                yield _Link(path.target, portal, self._log_in(path.target, portal))
            except CARRIER_FAILURES as error:
                log.info("%s at %s: %s", path.target, portal, error)
            else:
                return

    def _log_in(self, target: str, portal: Portal, isid: bytes | None = None) -> Session:
        return Session(
            portal.host,
            portal.port,
            target,
            self._initiator_name,
            timing=self._timing,
            credentials=self._login.credentials,
            mutual=self._login.mutual,
            attended=True,
            isid=isid,
        )

    # ------------------------------------------------------------------ idle sessions

    def _take_idle(self, path: Path) -> _Link | None:
        with self._lock:
            mine = [
                link
                for link in self._idle
                if link.target == path.target and link.portal in path.portals
            ]
            if not mine:
                return None
            # One that knows the unit already saves asking it.
            best = max(mine, key=lambda link: (path.lun in link.facts, link.idle_since))
            self._idle.remove(best)
            return best

    def _keep(self, link: _Link) -> None:
        now = link.idle_since = time.monotonic()
        with self._lock:
            if not self._closed:
                self._idle.append(link)
            stale = [one for one in self._idle if now - one.idle_since > _IDLE_SECONDS]
            stale += self._idle[: max(0, len(self._idle) - len(stale) - _MOST_IDLE)]
            self._idle = [one for one in self._idle if one not in stale]
            if self._closed:
                stale.append(link)
        for one in stale:
            one.session.close()

    # ------------------------------------------------------------------ discovery

    def _discover(self, seen: int, *, spare: Collection[Portal] = ()) -> None:
        """Look at every portal anew but those spared, unless another thread has since `seen`."""
        with self._discovering:
            if self._discoveries != seen:
                return
            found: dict[Key, list[Path]] = {}
            silent = set(spare)
            for portal in self._reach:
                targets = [] if portal in spare else self._targets_at(portal)
                for target in targets:
                    self._survey(target, portal, found)
                if not targets:
                    silent.add(portal)
            doubled = find_doubled(found, self._log_in)
            for why in sorted(set(doubled.values())):
                log.error("%s", why)
            with self._lock:
                self._paths, self._doubled, self._silent = found, doubled, silent
                self._surveyed_at = time.monotonic()
                self._discoveries += 1

    def _targets_at(self, portal: Portal) -> list[DiscoveredTarget]:
        try:
            return discover(
                portal.host,
                portal.port,
                self._initiator_name,
                timing=self._timing,
                credentials=self._login.credentials,
                mutual=self._login.mutual,
            )
        except _FAILURES as error:
            log.warning("cannot discover at %s: %s", portal, error)
            return []

    def _survey(
        self, target: DiscoveredTarget, reached_at: Portal, found: dict[Key, list[Path]]
    ) -> None:
        """Add the units of a target."""
        portals = tuple(
            {(one.host, one.port): one for one in (reached_at, *target.portals)}.values()
        )
        for link in self._links(Path(target.name, portals, 0)):
            try:
                for lun in link.session.report_luns()[:_MOST_UNITS]:
                    path = Path(target.name, portals, lun)
                    for designator in _designators(link.session, lun):
                        paths = found.setdefault(key_of(designator), [])
                        if path not in paths:
                            paths.append(path)
            except _FAILURES as error:
                log.warning("cannot ask %s for its units: %s", target.name, error)
                link.session.close()
                continue
            self._keep(link)
            return


def _is_at(reached: Portal, portal: Portal) -> bool:
    """Whether a portal, maybe by a name, is at this address."""
    if reached.port != portal.port:
        return False
    with contextlib.suppress(OSError):
        addresses = socket.getaddrinfo(reached.host, reached.port, type=socket.SOCK_STREAM)
        return any(address[4][0] == portal.host for address in addresses)
    return False


def _designators(session: Session, lun: int) -> Iterator[Designator]:
    """Yield what names the logical unit in its VPD page 83h; nothing if it has no such page."""
    cdb = Inquiry(
        evpd=True, page_code=DeviceIdentification.PAGE_CODE, allocation_length=_PAGE_LENGTH
    )
    page = b""
    with contextlib.suppress(ScsiError):
        page = execute_in(session.unit(lun), cdb.pack(), _PAGE_LENGTH)
    if page:
        for designator in DeviceIdentification.unpack(page).designators:
            if designator.association == Association.LOGICAL_UNIT:
                yield designator
