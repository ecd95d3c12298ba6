"""A server-free copy from end to end: name both units, plan, have a copy manager do it, report.

The server only looks at the units and talks to the copy manager; the data goes past it. What it
does move is counted at its sockets.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from serverfree.initiator.connection import Timing
from serverfree.initiator.copy import CopyManager, bytes_moved, status_cdb
from serverfree.initiator.copy_description import load_copy
from serverfree.initiator.copy_listing import describe_segment
from serverfree.initiator.copy_plan import (
    DEFAULT_TAPE_BLOCK,
    USUAL_LIMITS,
    Endpoint,
    Plan,
    PlanError,
    Step,
    choose_designator,
    plan_copy,
)
from serverfree.initiator.disk import Disk
from serverfree.initiator.session import (
    CommandTimeout,
    LogicalUnit,
    PendingCommand,
    Session,
)
from serverfree.initiator.tape import Stop, Tape
from serverfree.initiator.unit import Unit, describe, is_attention
from serverfree.initiator.urls import open_session
from serverfree.iscsi.codes import TaskResponse
from serverfree.iscsi.errors import ProtocolError
from serverfree.iscsi.names import Url
from serverfree.scsi.cdb.copy import CopyOperationAbort
from serverfree.scsi.copy_list import CopyList, ListIdUsage
from serverfree.scsi.copy_results import CopyOperationStatus, OperatingParameters
from serverfree.scsi.device import Pending, Result
from serverfree.scsi.errors import CheckCondition, ScsiError
from serverfree.scsi.inquiry import DeviceType
from serverfree.scsi.sense import Asc, Sense, SenseKey
from serverfree.scsi.status import Status

POLL_INTERVAL = 0.25
_PATIENCE = 3.0  # seconds that a copy manager has to answer when a copy is to be ended
_ANSWER = 512
_NOT_FOUND = (Asc.COPY_TARGET_DEVICE_NOT_REACHABLE, Asc.UNREACHABLE_COPY_TARGET)
_ENDED = "the copy manager has ended the copy"
_UNDER_WAY = (
    CopyOperationStatus.IN_PROGRESS,
    CopyOperationStatus.IN_FOREGROUND,
    CopyOperationStatus.IN_BACKGROUND,
)
_DONE_WELL = (
    CopyOperationStatus.COMPLETED,
    CopyOperationStatus.COMPLETED_WITH_RESIDUE,
    CopyOperationStatus.PARTIAL_TOKEN,
)
Progress = Callable[[int, int], None]
"""Called with the bytes moved so far and the bytes to move."""
Held = Callable[[bytes], object]
"""Called with the data that a copy manager has held for the application client."""


class CopyFailed(CheckCondition):
    """The copy manager gave up; the text says in which segment, and what the units said."""

    def __init__(self, sense: Sense, why: str, moved: int) -> None:
        super().__init__(sense)
        self.why = why
        self.moved = moved

    def __str__(self) -> str:
        return self.why


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy came to. `moved_bytes` were moved by the copy manager, past the server."""

    moved_bytes: int
    server_sent: int
    server_received: int
    seconds: float
    commands: int
    segments: int

    @property
    def server_bytes(self) -> int:
        """Everything that passed through the server's sockets, headers and all."""
        return self.server_sent + self.server_received


class Meter:
    """Counts what the sessions of one job move through this machine."""

    def __init__(self, timing: Timing | None = None) -> None:
        self._timing = timing
        self._sessions: list[Session] = []

    def open(self, url: str | Url) -> LogicalUnit:
        """Log in and return the unit of a URL; the caller closes its session."""
        # Of the units of a job one may have nothing to do for as long as another one winds.
        session, lun = open_session(url, timing=self._timing, attended=True)
        self._sessions.append(session)
        return session.unit(lun)

    @property
    def sent(self) -> int:
        return sum(session.bytes_sent for session in self._sessions)

    @property
    def received(self) -> int:
        return sum(session.bytes_received for session in self._sessions)


def xcopy(
    mover: str | Url,
    source: str | Url,
    destination: str | Url,
    *,
    skip: int = 0,
    seek: int = 0,
    count: int | None = None,
    tape_block: int = DEFAULT_TAPE_BLOCK,
    progress: Progress | None = None,
    timing: Timing | None = None,
) -> CopyReport:
    """Copy from unit to unit by EXTENDED COPY and return what it came to.

    The arguments are those of `plan_copy`; from a tape without `count`, the file that it stands
    before is copied, as far as the disk holds it. Raises PlanError, CopyFailed, ScsiError,
    LoginFailure, SessionLost.
    """
    started = time.monotonic()
    meter = Meter(timing)
    ends = _ends(meter, source, destination, tape_block)
    if ends[0].is_tape and count is None:
        count = _tape_file_blocks(meter, source, ends[1], seek, tape_block)
    unit = meter.open(mover)
    with unit.session:
        manager = CopyManager(unit)
        limits = limits_of(manager)
        plan = plan_copy(*ends, limits, skip=skip, seek=seek, count=count, tape_block=tape_block)
        moved = run_plan(manager, plan, progress)
    return CopyReport(
        moved, meter.sent, meter.received, time.monotonic() - started, len(plan.steps),
        plan.segments,
    )  # fmt: skip


def limits_of(manager: CopyManager) -> OperatingParameters:
    """Ask a copy manager what it can do. Raises PlanError where there is none."""
    try:
        return manager.operating_parameters()
    except CheckCondition as error:
        if error.sense.asc is Asc.INVALID_COMMAND_OPERATION_CODE:
            raise PlanError(f"{manager.device} has no copy manager") from error
        raise


def dry_run(
    source: str | Url,
    destination: str | Url,
    *,
    skip: int = 0,
    seek: int = 0,
    count: int | None = None,
    tape_block: int = DEFAULT_TAPE_BLOCK,
    limits: OperatingParameters = USUAL_LIMITS,
    timing: Timing | None = None,
) -> Plan:
    """Return what `xcopy` would send; only the two units are asked, and neither is moved."""
    ends = _ends(Meter(timing), source, destination, tape_block)
    return plan_copy(*ends, limits, skip=skip, seek=seek, count=count, tape_block=tape_block)


def read_list(path: Path, timing: Timing | None = None) -> CopyList:
    """Return the parameter list that a file describes (`copy_description`).

    The units that it names by URL are asked for their designators; nothing else is sent. Raises
    DescriptionError, OSError, and what asking may raise.
    """
    meter = Meter(timing)
    return load_copy(path, lambda url: identify(meter, url))


def xcopy_list(
    mover: str | Url,
    copy: CopyList,
    *,
    progress: Progress | None = None,
    held: Held | None = None,
    timing: Timing | None = None,
) -> CopyReport:
    """Have a copy manager do one parameter list, whatever is in it, and return what it came to.

    How much it will move is not known beforehand: `progress` hears of a total of 0. `held` is
    given the data that the manager has held for us, which only this session can ask for. Raises
    CopyFailed, ScsiError, LoginFailure, SessionLost.
    """
    started = time.monotonic()
    meter = Meter(timing)
    unit = meter.open(mover)
    with unit.session:
        manager = CopyManager(unit)
        moved = run_plan(manager, Plan((Step(copy, 0),)), progress)
        if held is not None:
            number = copy.list_identifier
            data = manager.operation_data(number).data if copy.lid4 else manager.held_data(number)
            held(data or b"")
    return CopyReport(
        moved, meter.sent, meter.received, time.monotonic() - started, 1, len(copy.segments)
    )


def run_plan(manager: CopyManager, plan: Plan, progress: Progress | None = None) -> int:
    """Have a copy manager do a plan; return the bytes moved. An interrupt aborts the command."""
    moved = 0
    for step in plan.steps:
        moved += run_step(manager, step, moved, plan.size, progress)
        if progress is not None:
            progress(min(moved, plan.size or moved), plan.size)
    return moved


def run_step(
    manager: CopyManager, step: Step, before: int, total: int, progress: Progress | None
) -> int:
    """Run one command; return the bytes it moved, or its size of a manager that does not tell.

    `progress` hears of `before` and what is moved now, out of `total`. Raises as `xcopy` does.
    """
    command = step.copy
    pending = manager.start(command)
    if isinstance(pending, PendingCommand):
        result = _watch(manager, pending, command, before, total, progress)
    else:
        result = pending.wait()
    if command.immediate and result.status is Status.GOOD:
        return _follow(manager, command, before, total, progress)
    moved = _moved(manager, command)
    if result.status is Status.CHECK_CONDITION and result.sense is not None:
        if result.sense.key is not SenseKey.COMPLETED:
            raise _failure(manager, command, result.sense, before + (moved or 0))
    else:
        result.check()
    return step.size if moved is None else moved


def _watch(
    manager: CopyManager,
    pending: PendingCommand,
    command: CopyList,
    before: int,
    total: int,
    progress: Progress | None,
) -> Result:
    """Wait for a command and tell how far it is; an interrupt aborts it."""
    if progress is None:
        with _ended_early(lambda: _abort(pending)):
            return pending.wait()
    asked = _HowFar(manager, command)
    with _ended_early(lambda: _abort(pending)):
        while True:
            try:
                return pending.wait(POLL_INTERVAL)
            except CommandTimeout:
                # Heard even if nothing new is known: whoever listens may want to end the copy.
                moved = before + asked.moved()
                progress(min(moved, total or moved), total)


class _HowFar:
    """How far a copy is, of a manager that may not answer: nobody waits for it for long."""

    def __init__(self, manager: CopyManager, command: CopyList) -> None:
        self._manager, self._command = manager, command
        # Whatever is kept under identifier 0 is another copy's.
        self._tells = command.list_id_usage is not ListIdUsage.NO_IDENTIFIER
        self._answer = bytearray(_ANSWER)
        self._asked: Pending | None = None
        self._moved = 0

    def moved(self) -> int:
        """Return the bytes moved, as far as the manager has told."""
        if self._tells:
            if self._asked is None:
                cdb = status_cdb(self._command, len(self._answer)).pack()
                self._asked = self._manager.device.submit(cdb, data_in=memoryview(self._answer))
            with contextlib.suppress(CommandTimeout):
                self._take(_wait(self._asked, POLL_INTERVAL))
        return self._moved

    def _take(self, result: Result) -> None:
        self._asked = None
        try:
            result.check()
        except ScsiError as error:
            self._tells = is_attention(error)
        else:
            answer = bytes(self._answer[: result.transferred])
            self._moved = bytes_moved(self._command, answer) or self._moved


@contextlib.contextmanager
def _ended_early(end: Callable[[], str]) -> Iterator[None]:
    """Have a copy end if whoever waits for it goes; an interrupt tells what became of that."""
    try:
        yield
    except BaseException as error:
        done = end()
        if done and not isinstance(error, Exception):
            error.add_note(done)
        raise


def _abort(pending: PendingCommand) -> str:
    """End a copy that is under way, and say in a few words what that came to."""
    if pending.done:
        return ""
    try:
        response = pending.abort(_PATIENCE)
    except ProtocolError as error:
        return f"the copy manager does not answer ({error}); it was left, which ends the copy"
    if response in (TaskResponse.FUNCTION_COMPLETE, TaskResponse.TASK_DOES_NOT_EXIST):
        return _ENDED
    return f"the copy manager was left, for it does not abort ({response.name})"


def _abort_operation(manager: CopyManager, command: CopyList) -> str:
    """The same of a copy in the background, which no session holds (6.3)."""
    cdb = CopyOperationAbort(list_identifier=command.list_identifier).pack()
    try:
        _wait(manager.device.submit(cdb), _PATIENCE).check()
    except (CommandTimeout, ProtocolError, ScsiError) as error:
        return f"the copy may go on, with list identifier {command.list_identifier}: {error}"
    return _ENDED


def _wait(pending: Pending, timeout: float) -> Result:
    return pending.wait(timeout) if isinstance(pending, PendingCommand) else pending.wait()


def _follow(
    manager: CopyManager, command: CopyList, before: int, total: int, progress: Progress | None
) -> int:
    """Stay with a copy that goes on in the background until it has ended (IMMED, 6.4.3.4)."""
    with _ended_early(lambda: _abort_operation(manager, command)):
        while True:
            operation = manager.operation_status(command.list_identifier)
            moved = before + (operation.bytes_transferred or 0)
            if progress is not None:
                progress(min(moved, total or moved), total)
            if operation.status not in _UNDER_WAY:
                break
            time.sleep(POLL_INTERVAL)
    if operation.status in _DONE_WELL:
        return moved - before
    sense = Sense.unpack(operation.sense) if operation.sense else Sense(SenseKey.COPY_ABORTED)
    raise _failure(manager, command, sense, moved)


def _moved(manager: CopyManager, command: CopyList) -> int | None:
    """Ask how much has been moved; None of a manager that does not tell."""
    if command.list_id_usage is ListIdUsage.NO_IDENTIFIER:
        return None  # whatever is kept under identifier 0 is another copy's
    try:
        if command.lid4:
            return manager.operation_status(command.list_identifier).bytes_transferred
        return manager.status(command.list_identifier).bytes_transferred
    except CheckCondition as error:
        if error.sense.key is SenseKey.ILLEGAL_REQUEST:
            return None
        raise


def _failure(manager: CopyManager, command: CopyList, sense: Sense, moved: int) -> CopyFailed:
    """Say what went wrong, with what the manager has kept about it (SA 4)."""
    with contextlib.suppress(ScsiError, ValueError):
        kept = (
            manager.operation_status(command.list_identifier).sense
            if command.lid4
            else manager.failure(command.list_identifier).sense
        )
        if len(kept) > len(sense.raw):
            sense = Sense.unpack(kept)
    words = [str(sense)]
    if sense.key is SenseKey.COPY_ABORTED:
        number = sense.command_specific & 0xFFFF
        if number < len(command.segments):
            words.append(f"in segment {number} ({describe_segment(command.segments[number])})")
        for name, area in (
            ("source", sense.forwarded_source),
            ("destination", sense.forwarded_destination),
        ):
            if area:
                words.append(f"the {name} answered {_forwarded(area)}")
    if sense.asc in _NOT_FOUND:
        words.append("no --reach of the copy manager leads to that unit, or to two: see its log")
    if sense.pointer is not None:
        where = "segment" if sense.pointer.in_segment else "parameter list"
        words.append(f"field pointer: byte {sense.pointer.byte} of the {where}")
    failure = CopyFailed(sense, "; ".join(words), moved)
    failure.add_note(str(manager.device))
    return failure


def _forwarded(area: bytes) -> str:
    """Read a unit's own answer: a status byte and its sense data (5.17.7.4)."""
    try:
        status = Status(area[0]).name
    except ValueError:
        status = f"status {area[0]:02X}h"
    return f"{status}: {Sense.unpack(area[1:])}" if len(area) > 1 else status


def _ends(
    meter: Meter, source: str | Url, destination: str | Url, tape_block: int
) -> tuple[Endpoint, Endpoint]:
    ends = _examine(meter, source, tape_block), _examine(meter, destination, tape_block)
    if ends[0].designator == ends[1].designator and _address(source) != _address(destination):
        raise PlanError(
            f"{source} and {destination} have one designator: if they are two units, give one of "
            "the targets another --iqn; if they are one, name it by one address"
        )
    return ends


def _address(url: str | Url) -> tuple[str, int]:
    parsed = Url.parse(url) if isinstance(url, str) else url
    return parsed.host, parsed.port


def _examine(meter: Meter, url: str | Url, tape_block: int) -> Endpoint:
    """Find out what a unit is and whether it can be used as the copy wants."""
    end = identify(meter, url)
    if end.is_tape:
        device = meter.open(url)
        with device.session:
            tape = Tape(device)
            tape.ready()
            limits = tape.block_limits()
        if not limits.minimum <= tape_block <= (limits.maximum or tape_block):
            raise PlanError(
                f"{device} takes blocks of {limits.minimum} to {limits.maximum} bytes, "
                f"not of {tape_block}"
            )
    return end


def identify(meter: Meter, url: str | Url) -> Endpoint:
    """Find out what a unit is and how a copy manager can name it."""
    device = meter.open(url)
    with device.session:
        unit = Unit(device)
        facts = unit.inquiry()
        if facts.qualifier or facts.device_type not in (DeviceType.DISK, DeviceType.TAPE):
            raise PlanError(f"{device} is {describe(facts)}; a copy is between disks and tapes")
        designator = choose_designator(unit.identification().designators)
        if facts.device_type == DeviceType.TAPE:
            return Endpoint(designator, DeviceType.TAPE)
        size = Disk(device).capacity()
        return Endpoint(designator, DeviceType.DISK, size.blocks, size.block_length)


def _tape_file_blocks(
    meter: Meter, url: str | Url, disk: Endpoint, seek: int, tape_block: int
) -> int:
    """Return how many blocks of the disk the tape file holds that the tape stands before.

    Its length is that of its tape blocks, the last of which may be padded: it is cut to the disk.
    """
    device = meter.open(url)
    with device.session:
        tape = Tape(device)
        start = tape.position().block
        stop = tape.space_filemarks(1)
        end = tape.position().block - (1 if stop is None else 0)
        tape.locate(start)
    if stop not in (None, Stop.END_OF_DATA):
        raise PlanError(f"{device}: {stop.value if stop else ''} before the end of the file")
    if end == start:
        raise PlanError(
            f"{device} stands at block {start}, where no file begins: rewind or locate first"
        )
    return min((end - start) * tape_block // disk.block_length, disk.blocks - seek)
