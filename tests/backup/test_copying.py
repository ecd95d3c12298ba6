"""Commands at planned places of a tape: sent again where a fault may pass, given up where not."""

from dataclasses import dataclass, field

import pytest

from serverfree.backup.copying import Copying, OutOfTape, Patience, is_end_of_tape, may_pass
from serverfree.backup.plan_frame import Command
from serverfree.backup.tape_file import TapePlace, TapeUnusable
from serverfree.initiator.tape import Position
from serverfree.initiator.xcopy import CopyFailed
from serverfree.iscsi.errors import SessionLost
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_results import CopyStatus
from serverfree.scsi.copy_segments import WriteFilemarks
from serverfree.scsi.device import Result
from serverfree.scsi.errors import CheckCondition, ReservationConflict, UnexpectedStatus
from serverfree.scsi.sense import Asc, Sense, SenseKey
from serverfree.scsi.status import Status

BLOCK = 1000
FIRST = 7


def aborted(asc: Asc, *, source: bytes = b"", destination: bytes = b"") -> Sense:
    return Sense(
        SenseKey.COPY_ABORTED, asc, forwarded_source=source, forwarded_destination=destination
    )


def answer(key: SenseKey, asc: int, *, eom: bool = False) -> bytes:
    """A unit's answer as a copy manager forwards it."""
    return bytes([Status.CHECK_CONDITION]) + Sense(key, asc, eom=eom).pack()


LOST = SessionLost("gone")
UNREACHABLE = aborted(Asc.COPY_TARGET_DEVICE_NOT_REACHABLE)
FULL = aborted(
    Asc.THIRD_PARTY_DEVICE_FAILURE, destination=answer(SenseKey.VOLUME_OVERFLOW, 2, eom=True)
)
EARLY_WARNING = aborted(
    Asc.THIRD_PARTY_DEVICE_FAILURE, destination=answer(SenseKey.NO_SENSE, 2, eom=True)
)
WORN = aborted(
    Asc.THIRD_PARTY_DEVICE_FAILURE, destination=answer(SenseKey.MEDIUM_ERROR, Asc.WRITE_ERROR)
)
RESET = aborted(Asc.THIRD_PARTY_DEVICE_FAILURE, source=answer(SenseKey.UNIT_ATTENTION, 0x2900))


@dataclass
class Tape:
    """A tape by its position alone: what has been written counts up to `end`."""

    at: int = FIRST
    end: int = FIRST
    moved_by_others: int = 0

    def position(self) -> Position:
        return Position(0, self.at + self.moved_by_others, None, False, False)

    def locate(self, block: int, partition: int | None = None) -> None:
        if block > self.end:
            raise CheckCondition(Sense(SenseKey.BLANK_CHECK, Asc.END_OF_DATA_DETECTED))
        self.at = block


@dataclass
class Pending:
    result: Result

    def wait(self) -> Result:
        return self.result


@dataclass
class Manager:
    """Ends each command as the script says: None well, a number after so many blocks in silence."""

    tape: Tape
    script: list[object]
    begun_at: list[int] = field(default_factory=list)
    device: str = "manager"

    def start(self, copy: CopyList) -> Pending:
        self.begun_at.append(self.tape.at)
        end = self.script.pop(0) if self.script else None
        if isinstance(end, Exception):
            self.tape.at += 1  # some of it has been written
            self.tape.end = self.tape.at
            raise end
        if isinstance(end, Sense):
            self.tape.at += 1
            self.tape.end = self.tape.at
            return Pending(Result(Status.CHECK_CONDITION, end))
        self.tape.at += 2 + len(copy.segments) if end is None else end
        self.tape.end = self.tape.at
        return Pending(Result(Status.GOOD))

    def status(self, identifier: int) -> CopyStatus:
        return CopyStatus(transfer_count=2 * BLOCK)

    def held_data(self, identifier: int) -> bytes:
        return bytes([identifier]) * 32

    def failure(self, identifier: int) -> object:
        raise ValueError("nothing kept")


@dataclass
class Site:
    tape: Tape
    manager: Manager
    renewed: int = 0
    lose: int = 0
    """How often to be out of reach when it is tried."""

    def renew(self) -> None:
        self.renewed += 1
        if self.lose:
            self.lose -= 1
            raise LOST


def copying(*script: object, **more):
    tape = Tape()
    site = Site(tape, Manager(tape, list(script)), **more)
    pauses: list[float] = []
    made = Copying(
        site, TapePlace(0, FIRST, None), BLOCK, holding=True, patience=Patience(4, 1.0),
        sleep=pauses.append,
    )  # fmt: skip
    return made, site, pauses


def command(number: int, *, last: bool = False) -> Command:
    """Two tape blocks; the last one has half a block less, and a filemark."""
    segments = [WriteFilemarks(1)] if last else []
    length = 2 * BLOCK - 500 * last
    copy = CopyList(segments=segments, list_identifier=number + 1)
    return Command(copy, number * 2 * BLOCK, length, length, 0, last)


def test_commands_follow_each_other_and_bring_their_digests():
    made, site, pauses = copying()
    assert [made.run(command(n, last=n == 2)) for n in range(3)] == [
        bytes([n]) * 32 for n in (1, 2, 3)
    ]
    assert site.manager.begun_at == [7, 9, 11]
    assert site.tape.at == 14, "two blocks and the filemark"
    assert (pauses, made.warnings, made.moved) == ([], [], 6 * BLOCK)


@pytest.mark.parametrize("fault", [LOST, UNREACHABLE, RESET])
def test_a_fault_that_may_pass_brings_the_tape_back_and_tries_again(fault):
    made, site, _ = copying(None, fault, fault)
    made.run(command(0))
    made.run(command(1))
    assert site.manager.begun_at == [7, 9, 9, 9]
    assert site.renewed == 2
    assert [warning.startswith("went on from tape block 9") for warning in made.warnings] == [
        True,
        True,
    ]


def test_pauses_grow_and_trying_ends():
    made, site, pauses = copying(*[LOST] * 9)
    with pytest.raises(SessionLost):
        made.run(command(0))
    assert len(site.manager.begun_at) == 4
    assert [pause for pause in pauses if pause >= 1] == [1, 2, 4]


def test_what_cannot_be_reached_again_counts_as_a_try():
    made, site, _ = copying(LOST, lose=2)
    made.run(command(0))
    assert (site.manager.begun_at, site.renewed) == ([7, 7], 3)
    made, site, _ = copying(LOST, lose=9)
    with pytest.raises(SessionLost):
        made.run(command(0))
    assert site.renewed == 3


@pytest.mark.parametrize("sense", [FULL, EARLY_WARNING])
def test_a_full_tape_is_not_tried_again(sense):
    made, site, _ = copying(None, sense)
    made.run(command(0))
    with pytest.raises(OutOfTape, match="full"):
        made.run(command(1))
    assert site.manager.begun_at == [7, 9]
    assert made.begun


def test_a_bad_medium_is_not_tried_again():
    made, site, _ = copying(WORN)
    with pytest.raises(CopyFailed):
        made.run(command(0))
    assert site.manager.begun_at == [7]


@pytest.mark.parametrize("written", [1, 3])
def test_a_command_that_ends_elsewhere_than_planned_is_an_error(written):
    made, _, _ = copying(written)
    with pytest.raises(TapeUnusable, match="should stand at block 9"):
        made.run(command(0))


def test_nothing_is_sent_where_somebody_else_has_moved_the_tape():
    made, site, _ = copying()
    site.tape.moved_by_others = 3
    with pytest.raises(TapeUnusable, match="something else moves it"):
        made.run(command(0))
    assert site.manager.begun_at == []
    assert not made.begun


def test_a_tape_that_has_lost_what_was_written_is_told():
    made, site, _ = copying(None, LOST)
    made.run(command(0))

    def forget() -> None:
        site.tape.end = site.tape.at = FIRST

    site.renew = forget
    with pytest.raises(TapeUnusable, match="lost what was written before block 9"):
        made.run(command(1))


def test_what_may_pass_and_what_does_not():
    assert may_pass(UnexpectedStatus(Status.BUSY))
    assert may_pass(CheckCondition(Sense(SenseKey.UNIT_ATTENTION, 0x2900)))
    assert not may_pass(ReservationConflict())
    assert not may_pass(CheckCondition(Sense(SenseKey.ILLEGAL_REQUEST, 0x2400)))
    assert not may_pass(ValueError("ours"))
    assert is_end_of_tape(CheckCondition(Sense(SenseKey.VOLUME_OVERFLOW, 2, eom=True)))
    assert not is_end_of_tape(CheckCondition(Sense(SenseKey.NO_SENSE, 2, eom=True)))
