"""One row of the table: what is measured, and what each side reached in each run."""

import statistics
from dataclasses import dataclass, field

MiB = 1 << 20


@dataclass(slots=True)
class Case:
    """What is measured, in which unit, against whom.

    The CPU lists hold the microseconds that the server's process took for one request, or the
    data mover's for 256 KiB or one extent.
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
        sides = [f"{statistics.median(one):.0f}" for one in (self.our_cpu, self.their_cpu) if one]
        return " / ".join(sides)

    @property
    def ratio(self) -> float:
        """Return our median over the rival's."""
        return statistics.median(self.ours) / statistics.median(self.theirs)

    @property
    def spread(self) -> str:
        """Return the lowest and highest ratio of the rounds, for people; "" of a single one."""
        if len(self.ours) != len(self.theirs) or len(self.ours) < 2:
            return ""
        rounds = [one / other for one, other in zip(self.ours, self.theirs, strict=True)]
        return f"{min(rounds):.2f}-{max(rounds):.2f}"
