"""Who may log in at a target, and what each initiator sees of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from serverfree.iscsi.chap import Account
from serverfree.iscsi.codes import LoginStatus
from serverfree.iscsi.errors import LoginFailure
from serverfree.iscsi.login import Redirected
from serverfree.iscsi.names import Portal
from serverfree.target.units.permission import Permission

_T = TypeVar("_T")
WILDCARD = "*"


@dataclass(frozen=True, slots=True)
class LunMapping:
    """One unit of the target, under the number that the initiator knows it by."""

    lun: int
    unit: str  # its name
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """What holds for an initiator, named whole or up to a trailing `*`.

    `luns` None: every unit, at its own number. `account` None: nobody is asked who he is.
    """

    initiator: str
    luns: tuple[LunMapping, ...] | None = None
    read_only: bool = False
    account: Account | None = None

    def matches(self, initiator_name: str) -> bool:
        """Whether the entry is about this initiator."""
        if self.initiator.endswith(WILDCARD):
            return initiator_name.startswith(self.initiator[: -len(WILDCARD)])
        return initiator_name == self.initiator

    def view(
        self,
        units: Mapping[int, tuple[str, _T]],
        snapshots: Mapping[int, tuple[str, _T]] = MappingProxyType({}),
    ) -> dict[int, tuple[_T, Permission]]:
        """Return what the initiator sees, by its own LUN; `units` are (name, unit) by the target's.

        A mapping to a unit that the target does not have shows nothing. Of `snapshots`, which come
        with the names of their origins, it sees those whose origin it sees, at the target's number:
        there is no mapping for what is made while the target runs.
        """
        if self.luns is None:
            permission = Permission(read_only=self.read_only)
            return {lun: (unit, permission) for lun, (_, unit) in {**units, **snapshots}.items()}
        by_name = dict(units.values())
        mapped = {
            mapping.lun: (
                by_name[mapping.unit],
                Permission(read_only=self.read_only or mapping.read_only),
            )
            for mapping in self.luns
            if mapping.unit in by_name
        }
        names = {mapping.unit for mapping in self.luns if mapping.unit in by_name}
        for lun, (origin, unit) in snapshots.items():
            if origin in names:
                mapped.setdefault(lun, (unit, Permission(read_only=True)))
        return mapped


class AccessList:
    """The entries of one target. An exact name wins over a wildcard, a longer one over shorter."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = tuple(entries)
        self._by_precision = sorted(
            self.entries,
            key=lambda entry: (not entry.initiator.endswith(WILDCARD), len(entry.initiator)),
            reverse=True,
        )

    def allows(self, initiator_name: str) -> bool:
        """Whether this initiator is in the list at all."""
        return any(entry.matches(initiator_name) for entry in self.entries)

    def find(self, initiator_name: str) -> Entry:
        """Return the entry for an initiator. Raises LoginFailure, AUTHORIZATION FAILURE."""
        for entry in self._by_precision:
            if entry.matches(initiator_name):
                return entry
        raise LoginFailure(
            LoginStatus.AUTHORIZATION_FAILURE, f"{initiator_name} is not in the access list"
        )


@dataclass(frozen=True, slots=True)
class Redirect:
    """The target has moved to another portal, for now or for good (RFC 7143 11.13.5)."""

    portal: Portal
    permanent: bool = False

    def refusal(self) -> Redirected:
        """Return what a login ends with."""
        status = (
            LoginStatus.TARGET_MOVED_PERMANENTLY
            if self.permanent
            else LoginStatus.TARGET_MOVED_TEMPORARILY
        )
        return Redirected(status, self.portal)


ANYBODY = AccessList((Entry(WILDCARD),))
