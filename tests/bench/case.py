"""One row of the table: what is measured, and what each side reached in each run."""

import statistics
from dataclasses import dataclass, field

MiB = 1 << 20


@dataclass(slots=True)
class Case:
    """What is measured, in which unit, against whom.

    The CPU lists hold the microseconds that the server's process took for one request.
    """

    name: str
    unit: str
    rival: str
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    our_cpu: list[float] = field(default_factory=list)
    their_cpu: list[float] = field(default_factory=list)

    @property
    def cpu(self) -> str:
        """Return both sides' median CPU time per request, for people."""
        if not self.our_cpu:
            return ""
        return f"{statistics.median(self.our_cpu):.0f} / {statistics.median(self.their_cpu):.0f}"

    @property
    def ratio(self) -> float:
        """Return our median over the rival's."""
        return statistics.median(self.ours) / statistics.median(self.theirs)
