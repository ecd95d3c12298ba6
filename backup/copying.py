"""Commands of a copy manager at known places of a tape, and again where a fault may pass.

A command is the grain: it begins and ends where a tape block does, at a position that was planned.
If it fails because something was away for a moment, the tape is brought back to where the command
began and it is sent again; what it had written is written over.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from serverfree.backup.errors import BackupError
from serverfree.backup.planner import Command
from serverfree.backup.site import Site
from serverfree.backup.tape_file import TapePlace, TapeUnusable, expect_position
from serverfree.initiator.copy_plan import Step
from serverfree.initiator.session import CommandTimeout
from serverfree.initiator.xcopy import CopyFailed, Progress, run_step
from serverfree.iscsi.errors import LoginFailure, SessionLost
from serverfree.scsi.copy_segments import WriteFilemarks
from serverfree.scsi.errors import CheckCondition, ScsiError
from serverfree.scsi.sense import Asc, Sense, SenseKey
from serverfree.scsi.status import Status

_SETTLED = 0.5  # seconds in which a tape that somebody still writes to would move

# What another try may find gone. Anything else is as it will be: the medium, the request.
_PASSING_KEYS = (SenseKey.UNIT_ATTENTION, SenseKey.ABORTED_COMMAND, SenseKey.NOT_READY)
_PASSING_STATUS = (Status.BUSY, Status.TASK_SET_FULL, Status.TASK_ABORTED)
_UNREACHABLE = (
    Asc.UNREACHABLE_COPY_TARGET,
    Asc.THIRD_PARTY_DEVICE_FAILURE,
    Asc.COPY_TARGET_DEVICE_NOT_REACHABLE,
)
Fault = (SessionLost, LoginFailure, CommandTimeout, ScsiError)
"""What a command, or a look at the tape, may end with."""


FULL = "the cartridge is full: load another one and start again"


class OutOfTape(BackupError):
    """The cartridge is full."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a command is sent, and how many seconds are let pass before it is sent again."""

    tries: int = 6
    pause: float = 1.0

    def before(self, attempt: int) -> float:
        """Seconds before a later try; each waits twice as long as the one before."""
        return self.pause * (1 << (attempt - 2))


@dataclass(slots=True)
class Copying:
    """Runs commands, one behind the other, from the first block of a tape file on.

    `warnings` tells what had to be done twice. `total` is how many bytes are to be moved, as far
    as that is known; `holding` says whether commands hold data for us, which `run` returns.
    """

    site: Site
    place: TapePlace
    tape_block: int
    holding: bool = False
    total: int = 0
    progress: Progress | None = None
    patience: Patience = field(default_factory=Patience)
    sleep: Callable[[float], None] = time.sleep
    warnings: list[str] = field(default_factory=list)
    moved: int = 0
    begun: bool = False
    """Whether anything may have been written."""

    def run(self, command: Command) -> bytes:
        """Run one command to its end and return what the manager holds for us of it.

        Raises OutOfTape, TapeUnusable, or the last fault.
        """
        attempt = 1
        while True:
            try:
                return self._run(command)
            except Fault as error:
                if is_end_of_tape(error):
                    raise OutOfTape(FULL) from error
                if not may_pass(error):
                    raise
                attempt = self._recover(command, attempt, error)

    def _run(self, command: Command) -> bytes:
        site = self.site
        expect_position(site.tape, self.place, self._blocks_before(command))
        self.begun = True
        step = Step(command.copy, command.length)
        moved = run_step(site.manager, step, self.moved, self.total, self.progress)
        held = b""
        if self.holding:
            held = site.manager.held_data(command.copy.list_identifier)
        expect_position(site.tape, self.place, self._blocks_behind(command))
        self.moved += moved
        if self.progress is not None:
            self.progress(min(self.moved, self.total or self.moved), self.total)
        return held

    def _recover(self, command: Command, attempt: int, fault: Exception) -> int:
        """Bring everything back to where the command began; return the number of the next try."""
        block = self._blocks_before(command)
        while True:
            attempt += 1
            if attempt > self.patience.tries:
                raise fault
            self.sleep(self.patience.before(attempt))
            try:
                self.site.renew()
                self._return_to(block)
            except Fault as error:
                if isinstance(error, CheckCondition) and error.sense.key is SenseKey.BLANK_CHECK:
                    raise TapeUnusable(
                        f"the tape has lost what was written before block {block}"
                    ) from error
                if not may_pass(error):
                    raise
                fault = error
                continue
            self.warnings.append(f"went on from tape block {block} after: {one_line(fault)}")
            return attempt

    def _return_to(self, block: int) -> None:
        """Bring the tape back to a block, when nobody moves it any more."""
        tape = self.site.tape
        before, now = None, tape.position()
        while before != now:
            self.sleep(_SETTLED)
            before, now = now, tape.position()
        tape.locate(block, self.place.partition)

    def _blocks_before(self, command: Command) -> int:
        return self.place.first_block + command.archive_offset // self.tape_block

    def _blocks_behind(self, command: Command) -> int:
        blocks = -(-(command.archive_offset + command.length) // self.tape_block)
        marks = sum(
            segment.filemark_count
            for segment in command.copy.segments
            if isinstance(segment, WriteFilemarks)
        )
        return self.place.first_block + blocks + marks


def may_pass(error: Exception) -> bool:
    """Tell whether a fault may be gone when the same is tried again."""
    if isinstance(error, SessionLost | LoginFailure | CommandTimeout):
        return True
    if isinstance(error, CopyFailed):
        return _copy_may_pass(error.sense)
    if isinstance(error, CheckCondition):
        return error.sense.key in _PASSING_KEYS
    return isinstance(error, ScsiError) and error.status in _PASSING_STATUS


def _copy_may_pass(sense: Sense) -> bool:
    answers = [area for area in (sense.forwarded_source, sense.forwarded_destination) if area]
    if answers:
        return all(_answer_may_pass(area) for area in answers)
    return sense.asc in _UNREACHABLE or sense.key in _PASSING_KEYS


def _answer_may_pass(area: bytes) -> bool:
    """Judge a unit's own answer to the copy manager: a status byte and its sense data."""
    if len(area) > 1:
        return Sense.unpack(area[1:]).key in _PASSING_KEYS
    return area[0] in _PASSING_STATUS


def is_end_of_tape(error: Exception) -> bool:
    """Tell whether a fault is that the tape is full, or so near its end that a copy stops."""
    if not isinstance(error, CheckCondition):
        return False
    area = error.sense.forwarded_destination
    sense = Sense.unpack(area[1:]) if len(area) > 1 else error.sense
    if sense.key is SenseKey.VOLUME_OVERFLOW:
        return True
    # Early warning: what was written is on tape, but a copy manager goes no further.
    return len(area) > 1 and sense.key is SenseKey.NO_SENSE and sense.eom


def one_line(error: BaseException) -> str:
    """Return what an error says, with where it comes from, in one line."""
    where = getattr(error, "__notes__", [])
    return " ".join(": ".join([*where, str(error) or type(error).__name__]).split())
