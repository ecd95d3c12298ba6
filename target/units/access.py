"""Which commands a reservation of another nexus refuses: table 65 of SPC-4, table 13 of SBC-4.

The tables have five columns but only four different rows, so a command belongs to one of four
classes, and legality is the one table below.
"""

from enum import Enum

from serverfree.scsi.reservations import ReservationType


class Access(Enum):
    """What a command does, as reservations see it."""

    ALWAYS = 1  # "Allowed" in every column: it neither reads nor changes the medium
    READS = 2  # "Conflict" where access is exclusive
    CHANGES = 3  # "Conflict" wherever the nexus may not write
    RESERVES = 4  # a reservation command: its own rules say (table 66, SPC-2)


ALLOWED: dict[ReservationType, frozenset[Access]] = {
    kind: frozenset(
        {Access.ALWAYS, Access.RESERVES}
        if kind.exclusive_access
        else {Access.ALWAYS, Access.RESERVES, Access.READS}
    )
    for kind in ReservationType
}
"""What a nexus that neither holds a reservation nor is admitted by it may still do."""
