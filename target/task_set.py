"""The commands of one logical unit that do not run on a connection's own thread.

A unit has one worker that runs its QUEUED commands in order, and a thread for each DETACHED one
(a copy may take hours; the unit stays usable). Task management marks commands as aborted here and
learns when they have really ended: a response to an abort that comes earlier would lie (SAM-5 7).
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from threading import Condition, Thread

from serverfree.target.units.command import Command, Lane, LogicalUnit, Reply

Done = Callable[[Reply | None], None]


@dataclass(slots=True, eq=False)
class Job:
    """A command on its way. `done` is called once, from whatever thread ends it.

    It gets None if the command was aborted before it ran.
    """

    command: Command
    done: Done


@dataclass(slots=True, eq=False)
class _Waiter:
    remaining: set[Job]
    callback: Callable[[], None]


@dataclass(slots=True, eq=False)
class TaskSet:
    """The queue and the threads of one unit. Safe to use from several threads."""

    unit: LogicalUnit
    _change: Condition = field(default_factory=Condition)
    _queue: deque[Job] = field(default_factory=deque)
    _jobs: set[Job] = field(default_factory=set)  # queued and running
    _ordered: int = 0  # jobs of the QUEUED lane, queued and running
    _waiters: list[_Waiter] = field(default_factory=list)
    _worker: Thread | None = None
    _closed: bool = False

    @property
    def busy(self) -> bool:
        """Whether a QUEUED command is still to end; what came later may not overtake it."""
        return self._ordered > 0

    def submit(self, job: Job, lane: Lane) -> None:
        """Run a command where its lane says; INLINE ones are queued behind those before them."""
        with self._change:
            self._jobs.add(job)
            if lane is not Lane.DETACHED:
                self._ordered += 1
                self._queue.append(job)
                if self._worker is None:
                    self._worker = Thread(
                        target=self._work, name=f"unit {self.unit.name}", daemon=True
                    )
                    self._worker.start()
                self._change.notify_all()
                return
        Thread(
            target=self._run, args=(job,), name=f"unit {self.unit.name} detached", daemon=True
        ).start()

    def abort(self, jobs: Iterable[Job], then: Callable[[], None]) -> None:
        """Abort these commands and call `then` once all of them have ended.

        Commands that have not begun end at once; others when they look at `aborted`, or by
        themselves. `then` may be called before this returns.
        """
        never_run: list[Job] = []
        with self._change:
            remaining = set()
            for job in jobs:
                if job not in self._jobs:
                    continue
                job.command.aborted = True
                if job in self._queue:
                    self._queue.remove(job)
                    self._ordered -= 1
                    self._jobs.discard(job)
                    never_run.append(job)
                else:
                    remaining.add(job)
            if remaining:
                self._waiters.append(_Waiter(remaining, then))
        for job in never_run:
            job.done(None)
        if not remaining:
            then()

    def abort_all(self, then: Callable[[], None]) -> None:
        """Abort every command of the unit, whoever sent it (LOGICAL UNIT RESET)."""
        with self._change:
            jobs = list(self._jobs)
        self.abort(jobs, then)

    def close(self) -> None:
        """Abort what runs, wait for it, end the worker."""
        ended = Condition()
        finished: list[bool] = []

        def then() -> None:
            with ended:
                finished.append(True)
                ended.notify_all()

        self.abort_all(then)
        with ended:
            ended.wait_for(lambda: bool(finished))
        with self._change:
            self._closed = True
            self._change.notify_all()
        if self._worker is not None:
            self._worker.join()

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._queue or self._closed)
                if not self._queue:
                    return
                job = self._queue.popleft()
            self._run(job, ordered=True)

    def _run(self, job: Job, ordered: bool = False) -> None:
        reply = self.unit.execute(job.command)
        # First out of the set, then answered: the initiator's next command may come inline.
        with self._change:
            self._jobs.discard(job)
            if ordered:
                self._ordered -= 1
            for waiter in self._waiters:
                waiter.remaining.discard(job)
            idle = [waiter for waiter in self._waiters if not waiter.remaining]
            self._waiters = [waiter for waiter in self._waiters if waiter.remaining]
        job.done(reply)
        for waiter in idle:
            waiter.callback()
