"""Where units were seen on the network, and whether two ways lead to one target.

A unit is what its designators say, wherever it is seen. But ours, and those of many others, are
made of the target's name, and two systems may have been given the same one: by mistake, or because
neither was given any. Then nobody can say which of the two a designator means.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from serverfree.datamover.units import CARRIER_FAILURES
from serverfree.initiator.session import Session
from serverfree.iscsi.errors import SessionLost
from serverfree.iscsi.names import Portal
from serverfree.scsi.designator import Designator

Key = tuple[int, int, bytes]
LogIn = Callable[[str, Portal, bytes | None], Session]
"""Logs in at the target of this name behind this portal, with this ISID if one is given."""


def key_of(designator: Designator) -> Key:
    """What two designators share that name the same thing (`Designator.same`), to look up by."""
    return int(designator.association), int(designator.type), designator.identifier


@dataclass(frozen=True, slots=True)
class Path:
    """Where a unit was seen: a target, its portals in the order to try, a LUN.

    The first portal is the one that told of the target, the others are those it told of.
    """

    target: str
    portals: tuple[Portal, ...]
    lun: int

    @property
    def reached(self) -> tuple[str, int]:
        """The address of the portal that told of the target."""
        return _address(self.portals[0])

    def announces(self, other: "Path") -> bool:
        """Whether the target says that it is also where the other path begins."""
        return other.reached in map(_address, self.portals)


def find_doubled(found: Mapping[Key, Sequence[Path]], log_in: LogIn) -> dict[Key, str]:
    """Return the units that two targets of one name have, with what to do about it."""
    doubled: dict[Key, str] = {}
    judged: dict[tuple[str, tuple[str, int], tuple[str, int]], str] = {}
    for key, paths in found.items():
        for one, other in combinations(paths, 2):
            pair = one.target, one.reached, other.reached
            if one.target == other.target and pair not in judged:
                judged[pair] = doubled_by(one, other, log_in)
            if why := judged.get(pair):
                doubled[key] = why
    return doubled


def doubled_by(one: Path, other: Path, log_in: LogIn) -> str:
    """Say what is wrong with two paths to a unit, nothing if they are two ways to one target.

    They are if the targets' names differ, for then its designator is its maker's word; if one
    announces the address of the other; and if a session by the one gives way to a session of the
    same ISID by the other, which it does at one target port only (RFC 7143 6.3.5).
    """
    if one.target != other.target or one.announces(other) or other.announces(one):
        return ""
    if _gives_way(one, other, log_in):
        return ""
    return (
        f"two targets are named {one.target}, at {one.portals[0]} and at {other.portals[0]}, and "
        "both have a unit of that name: give one of them another --iqn"
    )


def _gives_way(one: Path, other: Path, log_in: LogIn) -> bool:
    try:
        with log_in(one.target, one.portals[0], None) as first:
            log_in(other.target, other.portals[0], first.isid).close()
            return _is_lost(first)
    except CARRIER_FAILURES:
        return False


def _is_lost(session: Session) -> bool:
    try:
        session.ping()
    except SessionLost:
        return True
    return False


def _address(portal: Portal) -> tuple[str, int]:
    return portal.host, portal.port
