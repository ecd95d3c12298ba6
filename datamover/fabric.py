"""How a copy manager finds the logical units that a parameter list designates."""

from typing import Protocol

from serverfree.datamover.units import AttachedUnit
from serverfree.scsi.designator import Designator


class Fabric(Protocol):
    """The units that a copy manager can reach."""

    def open(self, designator: Designator) -> AttachedUnit:
        """Return a way to the unit with this designator that nobody else uses until it is closed.

        Raises UnitUnreachable.
        """
