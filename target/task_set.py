"""The commands of one logical unit that do not run on a connection's own thread.

A unit has one worker that runs its QUEUED commands in order, and a thread for each DETACHED one
(a copy may take hours; the unit stays usable). Task attributes are obeyed here (SAM-5 8.6): an
ORDERED command waits for all before it and holds back all behind it, one for the HEAD OF QUEUE
waits for nothing. Task management marks commands as aborted here and learns when they have really
ended: a response to an abort that comes earlier would lie (SAM-5 7).
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from threading import Condition, Event, Thread

from serverfree.iscsi.codes import TaskAttribute
from serverfree.target.units.command import Command, Lane, LogicalUnit, Reply

Done = Callable[[Reply | None], None]


@dataclass(slots=True, eq=False)
class Job:
    """A command on its way. `done` is called once, from whatever thread ends it.

    It gets None if the command was aborted before it ran.
    """

    command: Command
    done: Done
    attribute: int = TaskAttribute.SIMPLE
    lane: Lane = Lane.QUEUED


@dataclass(slots=True, eq=False)
class _Waiter:
    remaining: set[Job]
    callback: Callable[[], None]


@dataclass(slots=True, eq=False)
class TaskSet:
    """The queue and the threads of one unit. Safe to use from several threads.

    `held`: a command that comes now may not run before those that are here, unless it is for the
    head of the queue.
    """

    unit: LogicalUnit
    held: bool = False
    _change: Condition = field(default_factory=Condition)
    _queue: deque[Job] = field(default_factory=deque)
    _jobs: set[Job] = field(default_factory=set)  # queued and running
    _detached: set[Job] = field(default_factory=set)  # those of them with a thread of their own
    _barriers: int = 0  # those of them that are ORDERED
    _waiters: list[_Waiter] = field(default_factory=list)
    _worker: Thread | None = None
    _closed: bool = False

    @property
    def idle(self) -> bool:
        """Whether no command is here, so that even an ORDERED one has nothing to wait for."""
        return not self._jobs

    def submit(self, job: Job) -> None:
        """Run a command where its lane says and when its attribute lets it.

        INLINE ones that have to wait are queued.
        """
        with self._change:
            free = job.lane is Lane.DETACHED and not self.held
            self._jobs.add(job)
            self._barriers += job.attribute == TaskAttribute.ORDERED
            # Where order matters it is only put first: the command that runs is not interrupted.
            at_once = job.attribute == TaskAttribute.HEAD_OF_QUEUE and not self.unit.ordered
            if at_once or (free and job.attribute != TaskAttribute.ORDERED):
                self._detach(job)
                return
            if job.attribute == TaskAttribute.HEAD_OF_QUEUE:
                self._queue.appendleft(job)
            else:
                self._queue.append(job)
            self._hold()
            if self._worker is None:
                self._worker = Thread(target=self._work, name=f"unit {self.unit.name}", daemon=True)
                self._worker.start()
            self._change.notify_all()

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
                    self._remove(job)
                    never_run.append(job)
                else:
                    remaining.add(job)
            self._change.notify_all()
            if remaining:
                self._waiters.append(_Waiter(remaining, then))
        for job in never_run:
            job.done(None)
        if not remaining:
            then()

    def jobs(self) -> list[Job]:
        """Return the commands of this moment, whoever sent them."""
        with self._change:
            return list(self._jobs)

    def close(self) -> None:
        """Abort what runs, wait for it, end the worker."""
        ended = Event()
        self.abort(self.jobs(), ended.set)
        ended.wait()
        with self._change:
            self._closed = True
            self._change.notify_all()
        if self._worker is not None:
            self._worker.join()

    def _hold(self) -> None:
        """See whether later commands have to wait; the lock is held."""
        in_turn = self.unit.ordered and len(self._jobs) > len(self._detached)
        self.held = in_turn or self._barriers > 0

    def _remove(self, job: Job) -> None:
        self._jobs.discard(job)
        self._detached.discard(job)
        self._barriers -= job.attribute == TaskAttribute.ORDERED
        self._hold()

    def _detach(self, job: Job) -> None:
        self._detached.add(job)
        self._hold()
        Thread(
            target=self._run, args=(job,), name=f"unit {self.unit.name} detached", daemon=True
        ).start()

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._may_begin() or self._closed)
                if not self._queue:
                    return
                job = self._queue.popleft()
                if job.lane is Lane.DETACHED and job.attribute != TaskAttribute.ORDERED:
                    self._detach(job)
                    continue
            # An ORDERED command, even a long one, runs here: what is behind it has to wait.
            self._run(job)

    def _may_begin(self) -> bool:
        """Whether the first of the queue may; the lock is held."""
        if not self._queue:
            return False
        return self._queue[0].attribute != TaskAttribute.ORDERED or not self._detached

    def _run(self, job: Job) -> None:
        reply = self.unit.execute(job.command)
        # First out of the set, then answered: the initiator's next command may come inline.
        with self._change:
            self._remove(job)
            self._change.notify_all()
            for waiter in self._waiters:
                waiter.remaining.discard(job)
            idle = [waiter for waiter in self._waiters if not waiter.remaining]
            self._waiters = [waiter for waiter in self._waiters if waiter.remaining]
        job.done(reply)
        for waiter in idle:
            waiter.callback()
