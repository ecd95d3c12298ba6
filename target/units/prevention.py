"""PREVENT ALLOW MEDIUM REMOVAL, of disks and tapes alike (SBC-4 5.15)."""

from typing import Protocol

from serverfree.scsi.cdb.stream import PreventAllowMediumRemoval
from serverfree.scsi.errors import invalid_field_in_cdb
from serverfree.target.units.access import Access
from serverfree.target.units.command import Command, Nexus

_ALLOW, _PREVENT = 0, 1


class Removable(Protocol):
    """A unit with a medium that can be removed, unless one of `preventing` minds."""

    preventing: set[Nexus]


def prevent_allow_medium_removal(unit: Removable, command: Command) -> None:
    """PREVENT ALLOW MEDIUM REMOVAL, remembered for each nexus."""
    cdb = PreventAllowMediumRemoval.unpack(command.cdb)
    if cdb.prevent not in (_ALLOW, _PREVENT):
        raise invalid_field_in_cdb(4, 1)
    if cdb.prevent == _PREVENT:
        unit.preventing.add(command.nexus)
    else:
        unit.preventing.discard(command.nexus)


def prevent_access(cdb: bytes) -> Access:
    """To allow removal is allowed (SPC-4 table 65): it takes back only what this nexus asked."""
    return Access.CHANGES if cdb[4] & 0x03 else Access.ALWAYS
