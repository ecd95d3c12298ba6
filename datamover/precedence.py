"""Which copy goes first: the PRIORITY of EXTENDED COPY (SPC-4 6.4.3.3).

Priorities go from 0, the most urgent, to 7; all other commands of the device server have 1. What
copies of one copy manager compete for is given out in turns: memory to begin with, then one step
after another, a step being one or a few commands. The most urgent go first, and what is less
urgent by d has one turn for every 2**d of theirs: so it is slow beside them, and never stands
still. Copies of one priority take turns in the order in which they came.

Commands of hosts are carried out by the thread that received them, at once, whatever copies there
are. So they never wait for a copy, as the clause has it for copies of priority 2 and up; nor for
one of priority 0, which goes before other copies only.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from threading import Event, Lock

PRIORITIES = 8
_TURN = 1 << (PRIORITIES - 1)
_QUIET = (
    0.01  # seconds without a step: it waits for its units then, and others need not wait for it
)


class Shares:
    """What each priority has coming to it for the turns that more urgent ones had meanwhile."""

    def __init__(self) -> None:
        self._earned = [0] * PRIORITIES

    def served(self, priority: int, waiting: Sequence[Sized]) -> list[int]:
        """One of the most urgent has had a turn; return the priorities that have earned one by it.

        `waiting` has who waits, by priority.
        """
        due = []
        for below in range(priority + 1, PRIORITIES):
            if waiting[below]:
                self._earned[below] += _TURN >> (below - priority)
                if self._earned[below] >= _TURN:
                    self._earned[below] -= _TURN
                    due.append(below)
        return due


class Precedence:
    """The order of the steps of copies under way. Safe to use from any thread.

    Where all are equally urgent, a step costs one look at `mixed`. `quiet` is the time in seconds
    after which a copy that takes no step is not waited for.
    """

    def __init__(
        self, *, quiet: float = _QUIET, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.mixed = False
        self._quiet = quiet
        self._clock = clock
        self._lock = Lock()  # guards all that follows
        self._members = [0] * PRIORITIES
        self._moved = [-math.inf] * PRIORITIES
        self._waiting: list[deque[Event]] = [deque() for _ in range(PRIORITIES)]
        self._shares = Shares()

    @contextmanager
    def member(self, priority: int, aborted: Callable[[], bool]) -> Iterator[Callable[[], bool]]:
        """A copy is under way as long as the block is. Yields what it calls before each step.

        That returns what `aborted` says, once it is this copy's turn or it is to end.
        """

        def turn() -> bool:
            if self.mixed:
                self._wait(priority, aborted)
            return aborted()

        self._join(priority, 1)
        try:
            yield turn
        finally:
            self._join(priority, -1)

    def _join(self, priority: int, change: int) -> None:
        with self._lock:
            self._members[priority] += change
            if change > 0:
                self._moved[priority] = self._clock()
            self.mixed = sum(map(bool, self._members)) > 1
            first = next((p for p, members in enumerate(self._members) if members), PRIORITIES)
            for waiting in self._waiting[: first + 1]:  # nobody is more urgent than these
                _release(waiting)

    def _wait(self, priority: int, aborted: Callable[[], bool]) -> None:
        """Take part in the turns, and return when this one's has come."""
        with self._lock:
            self._moved[priority] = self._clock()
            if not self._others_first(priority):
                for below in self._shares.served(priority, self._waiting):
                    self._waiting[below].popleft().set()
                return
            turn = Event()
            waiting = self._waiting[priority]
            waiting.append(turn)
            # Whoever stands further behind has longer to wait in any case.
            patience = self._quiet * len(waiting)
        while not turn.wait(patience):
            with self._lock:
                if not turn.is_set() and not self._others_first(priority):
                    _release(waiting)
                elif not turn.is_set() and aborted():
                    waiting.remove(turn)
                    return

    def _others_first(self, priority: int) -> bool:
        """Whether any more urgent copy is taking steps."""
        since = self._clock() - self._quiet
        return any(
            self._members[above] and self._moved[above] >= since for above in range(priority)
        )


def _release(waiting: deque[Event]) -> None:
    while waiting:
        waiting.popleft().set()
