"""Task management (RFC 7143 11.5, 4.2.3.3; SAM-5 7): what each function ends, and when it is over.

A request is answered when every command that it concerns has really ended: those whose data is
still on its way, on whichever connection, and those that run. Their own answer is silence, and for
initiators that did not ask a unit attention (TAS is 0).
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import TYPE_CHECKING

from serverfree.iscsi.codes import TaskFunction, TaskResponse
from serverfree.scsi.opcodes import OperationCode
from serverfree.scsi.sense import Asc
from serverfree.scsi.task_management import TaskManagementSupport as Support
from serverfree.target.task_set import TaskSet

if TYPE_CHECKING:
    from serverfree.target.session import Session
    from serverfree.target.units.command import Nexus

_RESERVE_OUT = OperationCode.PERSISTENT_RESERVE_OUT
Answer = Callable[[TaskResponse], None]


@dataclass(slots=True, eq=False)
class Steps:
    """Calls `then` once all steps are done. Safe to use from several threads."""

    then: Callable[[], None]
    _left: int = 1
    _lock: Lock = field(default_factory=Lock)

    def add(self) -> Callable[[], None]:
        """Add a step and return what says that it is done, to be called once."""
        with self._lock:
            self._left += 1
        return self._done

    def no_more(self) -> None:
        """All steps have been added."""
        self._done()

    def _done(self) -> None:
        with self._lock:
            self._left -= 1
            over = self._left == 0
        if over:
            self.then()


def manage(session: "Session", function: int, lun: int, answer: Answer) -> None:
    """Do a function that concerns all commands of a unit or a target, then `answer`.

    Runs on the thread of the session's connection; `answer` may be called by any.
    """
    if function in _OF_A_UNIT:
        task_set = session.task_sets.get(lun)
        if task_set is None:
            answer(TaskResponse.LUN_DOES_NOT_EXIST)
        else:
            _OF_A_UNIT[TaskFunction(function)](session, task_set, answer)
    elif function in _OF_A_TARGET:
        _OF_A_TARGET[TaskFunction(function)](session, answer)
    elif function == TaskFunction.TASK_REASSIGN:  # asks for ErrorRecoveryLevel 2
        answer(TaskResponse.REASSIGNMENT_NOT_SUPPORTED)
    else:
        answer(TaskResponse.FUNCTION_NOT_SUPPORTED)


def abort_commands(
    sessions: "Collection[Session]", task_set: TaskSet, nexuses: "Collection[Nexus]"
) -> None:
    """End what some nexuses have under way at a unit, and return when it has ended.

    Not for a connection's own thread: it waits for the others.
    """
    over = Event()
    ended = Steps(over.set)
    running = ended.add()

    def told(lost: TaskSet, nexus: "Nexus") -> None:
        lost.unit.raise_attention(Asc.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR, only=nexus)

    def abort_jobs() -> None:
        jobs = [job for job in task_set.jobs() if job.command.nexus in nexuses]
        for job in jobs:
            told(task_set, job.command.nexus)
        # One that does the same to us waits for our end as we would for its.
        task_set.abort([job for job in jobs if job.command.cdb[0] != _RESERVE_OUT], running)

    begun = Steps(abort_jobs)
    for each in sessions:
        if each.nexus in nexuses:
            each.link.forget({task_set}, quiet=begun.add(), told=told)
    begun.no_more()
    ended.no_more()
    over.wait()


def _abort_task_set(session: "Session", task_set: TaskSet, answer: Answer) -> None:
    """The commands of this nexus; nobody is told, since who asked knows."""
    steps = Steps(lambda: answer(TaskResponse.FUNCTION_COMPLETE))
    session.link.forget({task_set}, quiet=steps.add(), through=steps.add)
    mine = [job for job in task_set.jobs() if job.command.nexus == session.nexus]
    task_set.abort(mine, steps.add())
    steps.no_more()


def _clear_aca(session: "Session", task_set: TaskSet, answer: Answer) -> None:
    task_set.unit.clear_allegiance(session.nexus)
    answer(TaskResponse.FUNCTION_COMPLETE)


def _clear_task_set(session: "Session", task_set: TaskSet, answer: Answer) -> None:
    """The commands of every nexus; those that lost some are told (SAM-5 5.14)."""

    def told(lost: TaskSet, nexus: "Nexus") -> None:
        if nexus != session.nexus:
            lost.unit.raise_attention(Asc.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR, only=nexus)

    _end_all(session, {task_set}, lambda: answer(TaskResponse.FUNCTION_COMPLETE), told)


def _reset_unit(session: "Session", task_set: TaskSet, answer: Answer) -> None:
    def reset() -> None:
        task_set.unit.reset()
        answer(TaskResponse.FUNCTION_COMPLETE)

    _end_all(session, {task_set}, reset)


def _reset_target_warm(session: "Session", answer: Answer) -> None:
    """All the units that the initiator knows (11.5.1)."""
    task_sets = set(session.task_sets.values())

    def reset() -> None:
        for task_set in task_sets:
            task_set.unit.reset()
        answer(TaskResponse.FUNCTION_COMPLETE)

    _end_all(session, task_sets, reset)


def _reset_target_cold(session: "Session", answer: Answer) -> None:
    """As power on (11.5.1): every unit, and every session ends, the asking one with its answer.

    Not for an initiator that may see a part of the target only: it would reach beyond that.
    """
    target = session.target
    task_sets = set(target.task_sets.values())
    if set(session.task_sets.values()) != task_sets:
        answer(TaskResponse.AUTHORIZATION_FAILED)
        return

    def reset() -> None:
        for task_set in task_sets:
            task_set.unit.reset()
        answer(TaskResponse.FUNCTION_COMPLETE)
        for each in target.sessions():
            each.link.end_session()

    _end_all(session, task_sets, reset)


def _end_all(
    session: "Session",
    task_sets: Collection[TaskSet],
    then: Callable[[], None],
    told: "Callable[[TaskSet, Nexus], None]" = lambda task_set, nexus: None,
) -> None:
    """End the commands of some units, whoever sent them, and call `then`; `told` of each lost."""
    ended = Steps(then)
    running = ended.add()

    def abort_jobs() -> None:
        aborted = Steps(running)
        for task_set in task_sets:
            jobs = task_set.jobs()
            for job in jobs:
                told(task_set, job.command.nexus)
            task_set.abort(jobs, aborted.add())
        aborted.no_more()

    # First what is still collecting data: once no connection can begin a command that came before
    # the request, what runs is all that there is to end.
    begun = Steps(abort_jobs)
    for each in session.target.sessions():
        # 4.2.3.3 a: data that was asked for is waited for only where the request came from.
        through = ended.add if each is session else None
        each.link.forget(task_sets, quiet=begun.add(), told=told, through=through)
    begun.no_more()
    ended.no_more()


_OF_A_UNIT = {
    TaskFunction.ABORT_TASK_SET: _abort_task_set,
    TaskFunction.CLEAR_ACA: _clear_aca,
    TaskFunction.CLEAR_TASK_SET: _clear_task_set,
    TaskFunction.LOGICAL_UNIT_RESET: _reset_unit,
}
_OF_A_TARGET = {
    TaskFunction.TARGET_WARM_RESET: _reset_target_warm,
    TaskFunction.TARGET_COLD_RESET: _reset_target_cold,
}
_NAMES = {
    TaskFunction.TARGET_WARM_RESET: Support.TARGET_RESET,
    TaskFunction.TARGET_COLD_RESET: Support.TARGET_RESET,
}


def supported_functions() -> Support:
    """Return what is done here, ABORT TASK by the connection itself, as SPC-4 names it."""
    support = Support.ABORT_TASK
    for function in (*_OF_A_UNIT, *_OF_A_TARGET):
        support |= _NAMES.get(function) or Support[function.name]
    return support
