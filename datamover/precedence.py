"""Which copy goes first: the PRIORITY of EXTENDED COPY (SPC-4 6.4.3.3).

Priorities go from 0, the most urgent, to 7; all other commands of the device server have 1. What
copies of one copy manager compete for is given out in turns: memory to begin with, then one step
after another, a step being one or a few commands. The most urgent go first, and what is less
urgent by d has one turn for every 2**d of theirs, and of steps no fewer than twenty in a second: so
it is slow beside them, and never stands still. Who takes no steps, because its units keep it
waiting, is not waited for. Copies of one priority take turns in the order in which they came.

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
_QUIET = 0.01  # seconds without a step after which copies may be waiting for their units
_PACES = 4  # and so many of their mean intervals
_SLOWEST = 0.25  # seconds between steps: slower copies are not reckoned to have a pace
_LONGEST = 0.05  # seconds until one of those that wait goes on anyway


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

    Where all are equally urgent, a step costs one look at `mixed`. `quiet` and `longest` are in
    seconds: how long copies without a step are waited for at least, and at most.
    """

    def __init__(
        self,
        *,
        quiet: float = _QUIET,
        longest: float = _LONGEST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.mixed = False
        self._quiet = quiet
        self._longest = longest
        self._clock = clock
        self._lock = Lock()  # guards all that follows
        self._members = [0] * PRIORITIES
        self._moved = [-math.inf] * PRIORITIES
        self._interval = [0.0] * PRIORITIES  # between two steps, the mean of the latest
        self._waiting: list[deque[Event]] = [deque() for _ in range(PRIORITIES)]
        self._served = [0.0] * PRIORITIES  # when one of those waiting last had a turn
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
            now = self._clock()
            self._step(priority, now)
            if not self._others_first(priority, now):
                for below in self._shares.served(priority, self._waiting):
                    self._serve(below, now)
                return
            turn, waiting = Event(), self._waiting[priority]
            if not waiting:
                self._served[priority] = now
            waiting.append(turn)
            # Whoever stands further behind has longer to wait in any case.
            patience = self._longest * len(waiting)
        while not turn.wait(patience):
            with self._lock:
                if turn.is_set():
                    return
                now = self._clock()
                if not self._others_first(priority, now):
                    _release(waiting)
                elif aborted():
                    waiting.remove(turn)
                    return
                elif now - self._served[priority] >= self._longest:
                    self._serve(priority, now)
                patience = self._longest

    def _step(self, priority: int, now: float) -> None:
        since = min(now - self._moved[priority], _SLOWEST)
        self._interval[priority] += (since - self._interval[priority]) / 8
        self._moved[priority] = now

    def _serve(self, priority: int, now: float) -> None:
        """The first of those waiting goes on."""
        self._waiting[priority].popleft().set()
        self._served[priority] = now

    def _others_first(self, priority: int, now: float) -> bool:
        """Whether any more urgent copy is taking steps."""
        return any(
            self._members[above]
            and now - self._moved[above] <= max(self._quiet, _PACES * self._interval[above])
            for above in range(priority)
        )


def _release(waiting: deque[Event]) -> None:
    while waiting:
        waiting.popleft().set()
