"""The quiet gate: who wants a point in time waits until a disk has not changed for a while."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition, Event, Lock

QUIET, TIMEOUT = 3.0, 80.0
"""Seconds without a change that are asked for, and seconds until that is given up."""

_LOOK = 0.25  # seconds between two reports of progress


@dataclass(frozen=True, slots=True)
class Quietness:
    """How far a wait has come; all in seconds."""

    asked: float
    waited: float
    last_change_age: float
    """Since the last change ended; 0 while one is going on, infinite where none is known."""
    timeout: float


class NotQuiet(Exception):
    """The disk did not stay unchanged as long as was asked for within the time-out."""

    def __init__(self, state: Quietness) -> None:
        super().__init__(
            f"no {state.asked:g} s without a write within {state.timeout:g} s: "
            f"the last one was {state.last_change_age:.3g} s ago"
        )
        self.asked, self.waited = state.asked, state.waited
        self.last_change_age, self.timeout = state.last_change_age, state.timeout


class Cancelled(Exception):
    """Whoever waited does not want to any more."""


def pause_until(cancelled: Event, seconds: float) -> bool:
    return cancelled.wait(min(seconds, threading.TIMEOUT_MAX))


class QuietGate:
    """Knows when the disk last changed and what changes it now.

    Every change stands between `enter` and `leave`. Those are all it costs: a waiter is not told
    of changes, it sleeps until the period could be over, and looks again. `clock` is monotonic
    seconds, `pause(event, seconds)` sleeps until the event is set (returns whether it is): with
    other ones nothing sleeps in tests.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[Event, float], bool] = pause_until,
        last_change: float = float("-inf"),
    ) -> None:
        self.last_change = last_change
        """By the clock, when the last change ended."""
        # What the store's changes inline: a call costs as much as all that it would do.
        self.lock = Lock()
        self.running = 0
        self.closed = False
        self.clock = clock
        self._pause = pause
        self._moved = Condition(self.lock)

    def enter(self) -> None:
        """A change begins. It waits only while a point in time is taken."""
        with self.lock:
            if self.closed:
                self.wait_until_open()
            self.running += 1

    def leave(self) -> None:
        """The change has ended, well or not."""
        with self.lock:
            self.running -= 1
            self.last_change = self.clock()
            if self.closed:
                self.tell()

    def wait_until_open(self) -> None:
        """Under the lock: wait until changes may begin again."""
        while self.closed:
            self._moved.wait()

    def tell(self) -> None:
        """Under the lock: let those look again who wait for changes to end or to begin."""
        self._moved.notify_all()

    def wait(
        self,
        quiet: float = QUIET,
        timeout: float = TIMEOUT,
        cancelled: Event | None = None,
        progress: Callable[[Quietness], None] | None = None,
    ) -> None:
        """Return when there was no change for `quiet` seconds; a disk at rest passes at once.

        Raises NotQuiet when `timeout` seconds have gone by and the period is not over: what counts
        is when changes ended, not how soon this thread is woken. Raises Cancelled once `cancelled`
        is set. `progress` is called now and then, in this thread. Any number of threads may wait.
        """
        with self.held(quiet, timeout, cancelled, progress):
            pass

    @contextmanager
    def held(
        self,
        quiet: float = QUIET,
        timeout: float = TIMEOUT,
        cancelled: Event | None = None,
        progress: Callable[[Quietness], None] | None = None,
        *,
        since: float | None = None,
    ) -> Iterator[None]:
        """Wait as `wait` does; within the block no change begins and none is under way.

        The block must be short, and must not change the disk. With `quiet` 0 changes that go on
        are let end, while new ones wait. `since` is when the waiting began, by the clock.
        """
        cancelled = cancelled or Event()
        since = self.clock() if since is None else since
        self.lock.acquire()
        try:
            while True:
                if cancelled.is_set():
                    raise Cancelled
                now = self.clock()
                state = Quietness(quiet, now - since, self._age(now), timeout)
                if quiet <= 0:
                    self._drain()
                    break
                if not self.running and self.last_change + quiet <= now:
                    if self.last_change + quiet > since + timeout:
                        raise NotQuiet(state)
                    break
                if now >= since + timeout:
                    raise NotQuiet(state)
                seconds = min(self._earliest(now, quiet), since + timeout) - now
                self.lock.release()
                try:
                    if progress is not None:
                        progress(state)
                        seconds = min(seconds, _LOOK)
                    self._pause(cancelled, seconds)
                finally:
                    self.lock.acquire()
            yield
        finally:
            self.lock.release()

    def _age(self, now: float) -> float:
        return 0.0 if self.running else now - self.last_change

    def _earliest(self, now: float, quiet: float) -> float:
        """When the period can be over: a change that is going on ends now or later."""
        return (now if self.running else self.last_change) + quiet

    def _drain(self) -> None:
        while self.closed:  # by another who drains
            self._moved.wait()
        if not self.running:
            return
        self.closed = True
        try:
            while self.running:
                self._moved.wait()
        finally:
            self.closed = False
            self._moved.notify_all()
