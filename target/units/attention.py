"""Unit attention conditions, kept per I_T nexus (SAM-5 5.14)."""

from collections.abc import Iterable
from threading import Lock

from serverfree.scsi.sense import Asc
from serverfree.target.units.command import Nexus


class Attentions:
    """What each attached nexus has yet to hear. Safe to use from several threads.

    A condition that is already queued for a nexus is not queued again, so the queue of a nexus
    that never speaks cannot grow.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._attached: set[Nexus] = set()
        # Only nexuses with something to hear have an entry: the gate asks `if pending` first.
        self.pending: dict[Nexus, list[Asc]] = {}

    def attach(self, nexus: Nexus) -> None:
        """Start to keep conditions for a nexus, with the one that says so."""
        with self._lock:
            self._attached.add(nexus)
            self.pending[nexus] = [Asc.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED]

    def detach(self, nexus: Nexus) -> None:
        """Forget a nexus."""
        with self._lock:
            self._attached.discard(nexus)
            self.pending.pop(nexus, None)

    def establish(self, asc: Asc, but: Nexus | None = None, only: Nexus | None = None) -> None:
        """Queue a condition for every attached nexus except `but`, or for `only` one."""
        with self._lock:
            for nexus in self._attached if only is None else self._attached & {only}:
                if nexus != but and asc not in (queue := self.pending.setdefault(nexus, [])):
                    queue.append(asc)

    def tell(self, nexuses: Iterable[Nexus], asc: Asc) -> None:
        """Queue a condition for those of these nexuses that are attached."""
        for nexus in nexuses:
            self.establish(asc, only=nexus)

    def attached(self) -> list[Nexus]:
        """Return the nexuses of this moment."""
        with self._lock:
            return list(self._attached)

    def take(self, nexus: Nexus) -> Asc | None:
        """Return the oldest condition of a nexus and clear it."""
        with self._lock:
            queue = self.pending.get(nexus)
            if not queue:
                return None
            asc = queue.pop(0)
            if not queue:
                del self.pending[nexus]
            return asc

    def clear(self, nexus: Nexus, asc: Asc) -> None:
        """Clear one condition that the nexus has learnt of in another way."""
        with self._lock:
            queue = self.pending.get(nexus)
            if queue and asc in queue:
                queue.remove(asc)
                if not queue:
                    del self.pending[nexus]
