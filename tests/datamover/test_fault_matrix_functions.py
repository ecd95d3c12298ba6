"""Every segment that moves no data, by PAD and CAT, block length and kind of tape, and its faults.

Each stands between two that do: the first leaves residue, which the function keeps whatever its
own CAT bit says (SPC-4 table 115), and the second goes on with it. What is on the tape is then told
by the model, write by write; a copy that a fault ends has done the front of that and nothing else.
"""

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from serverfree.datamover.manager import CopyManager
from serverfree.datamover.offload import Offload
from serverfree.datamover.plan import IMPLEMENTED_SEGMENTS
from serverfree.datamover.rod_tokens import RodTokens
from serverfree.scsi.copy_cscd import RodCscd
from serverfree.scsi.copy_list import THIS_UNIT
from serverfree.scsi.copy_segments import (
    BlockRangeToStream,
    DigestOfDestination,
    Locate,
    MoveReservation,
    PopulateRodRange,
    PopulateRodRanges,
    RegisterKey,
    Space,
    VerifyCscd,
    WriteFilemarks,
)
from serverfree.scsi.device import Result
from serverfree.scsi.rod_token import RodType
from serverfree.scsi.sense import Sense
from serverfree.scsi.status import Status
from support.copies import ModelFabric, forwarded, named
from support.copy_model import CopyModel, Inexact, ModelTape
from support.fake_devices import (
    FILEMARK,
    INQUIRY,
    LOCATE_10,
    READ_16,
    TEST_UNIT_READY,
    WRITE_6,
    WRITE_FILEMARKS_6,
    sense_bytes,
)
from support.fault_scene import (
    BLOCKS,
    DISK,
    FAULTS,
    FUNCTIONS,
    OTHER,
    OUT,
    PAIRS,
    PERSISTENT_RESERVE_OUT,
    SETTINGS,
    SPACE_6,
    Scene,
    Told,
    some_of,
)

FEED, FUNCTION, BEHIND, MARK = range(4)  # the segments of every list here
FEED_BYTES, BEHIND_BYTES = 3000, 1700  # which no transfers of the tape here make whole
ROD = 4  # the CSCD that is no device
ROD_BLOCKS = 9  # of which BEHIND reads some
KEYS = bytes.fromhex("0102030405060708 1112131415161718")
TRANSPORT_ID = b"\x05" * 24


@dataclass
class Verbatim:
    """A descriptor with its CAT bit set where the tables have it reserved."""

    data: bytes

    def pack(self) -> bytes:
        return self.data


@dataclass
class Function:
    """A segment, the unit and the operation code of its command, if it sends one.

    `played` does to the tape what it does. A `source` is where its sense data is forwarded.
    """

    segment: Callable[[Scene], object]
    unit: int | None = None
    opcode: int | None = None
    played: tuple = ()
    source: bool = False
    rod: bool = False


def _key(number: int) -> RegisterKey:
    return RegisterKey(number, *(int.from_bytes(KEYS[at : at + 8], "big") for at in (0, 8)))


def _move(number: int) -> MoveReservation:
    keys = (int.from_bytes(KEYS[at : at + 8], "big") for at in (0, 8))
    return MoveReservation(number, *keys, 3, TRANSPORT_ID, unregister=True)


KINDS = {
    "07": Function(lambda s: VerifyCscd(OTHER), OTHER, INQUIRY, source=True),
    "07 ready": Function(lambda s: VerifyCscd(OTHER, True), OTHER, TEST_UNIT_READY, source=True),
    "10": Function(lambda s: WriteFilemarks(OUT, 2), OUT, WRITE_FILEMARKS_6, ("10", 2)),
    "11": Function(lambda s: Space(OUT, 0, -1), OUT, SPACE_6, ("at", -1)),
    "12": Function(lambda s: Locate(OUT, 1), OUT, LOCATE_10, ("12", 1)),
    "14": Function(lambda s: _key(OTHER), OTHER, PERSISTENT_RESERVE_OUT),
    "14 tape": Function(lambda s: _key(OUT), OUT, PERSISTENT_RESERVE_OUT),
    "15": Function(lambda s: _move(OUT), OUT, PERSISTENT_RESERVE_OUT),
    "be": Function(
        lambda s: PopulateRodRanges(THIS_UNIT, ROD, ((7, 4), (1, ROD_BLOCKS - 4))), rod=True
    ),
    "bf": Function(lambda s: PopulateRodRange(THIS_UNIT, ROD, 7, ROD_BLOCKS), rod=True),
    "c1": Function(lambda s: DigestOfDestination(OUT)),
}

PARAMETERS = {
    "14": b"\x00" + KEYS + bytes(8),
    "14 tape": b"\x00" + KEYS + bytes(8),
    "15": b"\x07" + KEYS + bytes.fromhex("00 02 0003 00000018") + TRANSPORT_ID,
}
"""The service action and the parameter list of PERSISTENT RESERVE OUT."""


def left_out(name: str, fault: str) -> str | None:
    """Why a function cannot meet a fault, None if it can."""
    function = KINDS[name]
    match fault:
        case "command":
            if function.rod:
                return "it asks the unit that it is part of, and sends no command"
            return "it sends no command" if function.unit is None else None
        case "early warning":
            return None if name == "10" else "only a command that writes on a tape is warned"
        case "filemark":
            if name == "12":
                return "filemarks count as logical objects for LOCATE"
            return None if name == "11" else "only a command that moves the tape meets one"
        case "medium":
            return None if function.rod else "only a ROD keeps blocks of the unit's own medium"
    raise AssertionError(fault)


def meeting(fault: str) -> list[str]:
    """The functions that can meet a fault."""
    return [name for name in KINDS if left_out(name, fault) is None]


def test_every_type_that_moves_no_data_is_here() -> None:
    assert {int(name[:2], 16) for name in KINDS} == FUNCTIONS
    assert set(IMPLEMENTED_SEGMENTS) >= FUNCTIONS
    assert meeting("command") == [name for name in KINDS if name not in ("be", "bf", "c1")]
    faults = ("early warning", "filemark", "medium")
    assert [meeting(fault) for fault in faults] == [["10"], ["11"], ["be", "bf"]]


# ---------------------------------------------------------------------- what a list does


class OwnMedium:
    """The blocks of a scene's disk, as RODs are made of them. Some reads, or keeping, can fail."""

    rod_types = frozenset({RodType.ACCESS_UPON_REFERENCE})

    def __init__(self, scene: Scene) -> None:
        self.disk = scene.disk
        self.block_length, self.blocks = scene.block, BLOCKS
        self.cannot_keep = self.cannot_read = False
        self.valid = True
        self.released = 0

    def capacity(self) -> bytes:
        return bytes(32)

    def hold(self, rod_type: RodType, ranges: Sequence[tuple[int, int]]) -> "OwnMedium":
        if self.cannot_keep:
            raise OSError("no space left")
        return self

    def read(self, offset: int, length: int) -> bytes:
        if self.cannot_read:
            raise OSError("unreadable")
        return bytes(self.disk.data[offset : offset + length])

    def release(self) -> None:
        self.released += 1


@dataclass
class Trial:
    """A list with a function in its middle, on a scene of its own."""

    name: str
    scene: Scene
    medium: OwnMedium = field(init=False)

    def __post_init__(self) -> None:
        self.medium = OwnMedium(self.scene)

    @property
    def function(self) -> Function:
        return KINDS[self.name]

    def segments(self) -> list:
        scene = self.scene
        raw = bytearray(self.function.segment(scene).pack())
        raw[1] |= scene.cat
        source = ROD if self.function.rod else DISK
        feed, behind = (
            BlockRangeToStream(one, OUT, scene.out_transfer, size, lba, offset, cat)
            for one, size, lba, offset, cat in (
                (DISK, FEED_BYTES, 1, 100, True),
                (source, BEHIND_BYTES, 2, 7, scene.cat),
            )
        )
        return [feed, Verbatim(bytes(raw)), behind, WriteFilemarks(OUT)]

    def run(self, aborted: Callable[[], bool] = lambda: False) -> Sense | None:
        manager, cscds = None, []
        if self.function.rod:
            tokens = RodTokens("iqn.2026-11.com.example:t")
            manager = CopyManager(
                ModelFabric(*self.scene.devices),
                own_unit=named(DISK),
                offload=Offload(named(DISK), tokens, self.medium),
            )
            cscds = [RodCscd(THIS_UNIT, RodType.ACCESS_UPON_REFERENCE)]
        segments = self.segments()
        return self.scene.copy(segments, aborted, more_cscds=cscds, manager=manager)

    def rod_content(self) -> bytes:
        size, data = self.scene.block, self.scene.model[DISK].content
        if self.name == "bf":
            return data[7 * size : (7 + ROD_BLOCKS) * size]
        return data[7 * size : 11 * size] + data[size : (1 + ROD_BLOCKS - 4) * size]

    def play(self) -> "Course":
        """Let the model do the whole list, and note each thing it does to the tape."""
        scene, course, model = self.scene, Course(self.scene), CopyModel()
        disk, tape = scene.model[DISK], course
        model.play(("08", disk, scene.block + 100, FEED_BYTES, tape, scene.out_unit, True))
        course.segment = FUNCTION
        match self.function.played:
            case ("at", step):
                tape.at += step
                tape.note()
            case ("12", number):
                model.play(("12", tape, number))
                tape.note()
            case ("10", number):
                model.play(("10", tape, number))
        course.segment = BEHIND
        start, source = 2 * scene.block + 7, disk
        if self.function.rod:
            source = type(disk)(self.rod_content(), disk.block)
        try:
            model.play(("08", source, start, BEHIND_BYTES, tape, scene.out_unit, scene.cat))
        except Inexact:
            course.inexact = True
            return course
        course.segment = MARK
        model.play(("10", tape, 1))
        return course


class Course(ModelTape):
    """The tape of the model, and every state that it goes through.

    `steps` has of each change the segment and how much it wrote, as INFORMATION counts it.
    """

    def __init__(self, scene: Scene) -> None:
        super().__init__(list(scene.out.blocks), scene.out.position, scene.pad)
        self.length = scene.out.block_length
        self.segment = FEED
        self.inexact = False
        self.states = [(self.records, self.at)]
        self.steps: list[tuple[int, int]] = []

    def write(self, record: bytes | None) -> None:
        step = self.length or len(record or b"") or 1
        pieces = (
            [record[at : at + step] for at in range(0, len(record), step)] if record else [None]
        )
        self.records = [*self.records[: self.at], *pieces]
        self.at += len(pieces)
        self.note(len(pieces) if self.length else len(record or b""))

    def note(self, written: int = 0) -> None:
        self.states.append((self.records, self.at))
        self.steps.append((self.segment, written))

    def before(self, segment: int) -> int:
        """How many changes earlier segments make."""
        return sum(one < segment for one, _ in self.steps)


def judge(trial: Trial, course: Course, sense: Sense | None) -> tuple[Told, int]:
    """Hold a copy that has failed to what its sense data says; return that, and how far it came."""
    assert sense is not None, "the fault was met"
    told, out = Told.of(sense), trial.scene.out
    first, last = course.before(told.segment), course.before(told.segment + 1)
    now = (out.blocks, out.position)
    reached = [at for at in range(first, last + 1) if course.states[at] == now]
    if trial.name == "15" and told.segment == FUNCTION:  # it is done when all else is
        reached = [at for at, state in enumerate(course.states) if state == now]
    assert reached, "nothing of later segments is there, and all of earlier ones"
    written = sum(size for _, size in course.steps[first : reached[0]])
    left = sum(size for _, size in course.steps[reached[0] : last])
    counted = told.segment in (FEED, BEHIND) and written
    assert told.residual == (left if counted else None)
    return told, reached[0]


@pytest.fixture(params=[PAIRS, pytest.param(SETTINGS, marks=pytest.mark.long)], ids=["", "all"])
def trials(request: pytest.FixtureRequest) -> Callable[[str], list[Callable[[], Trial]]]:
    """Return what makes the trials of a function; each is used once."""

    def all_of(name: str) -> list[Callable[[], Trial]]:
        return [lambda s=setting: Trial(name, Scene(*s)) for setting in request.param]

    return all_of


Trials = Callable[[str], list[Callable[[], Trial]]]


def sent(trial: Trial) -> list[bytes]:
    """The commands that the function itself has sent."""
    function = trial.function
    if function.unit is None:
        return []
    log = trial.scene.devices[function.unit].log
    last_mark = bytes([WRITE_FILEMARKS_6, 0, 0, 0, 1, 0])  # that of the last segment
    return [cdb for cdb in log if cdb[0] == function.opcode and cdb != last_mark]


@pytest.mark.parametrize("name", KINDS)
def test_without_a_fault_residue_goes_past_it(name: str, trials: Trials) -> None:
    for make in trials(name):
        trial = make()
        scene, course = trial.scene, trial.play()
        sense = trial.run()
        assert (scene.out.blocks, scene.out.position) == course.states[-1]
        if course.inexact:
            told, _ = judge(trial, course, sense)
            assert (told.code, told.segment) == (0x260A, BEHIND)
        else:
            assert sense is None
        assert len(sent(trial)) == (name in meeting("command"))
        if name in PARAMETERS:
            device = scene.devices[trial.function.unit or 0]
            assert device.reservations == [PARAMETERS[name]]
        if name == "15":
            assert scene.out.log[-1][0] == PERSISTENT_RESERVE_OUT, "when all else is done"
        if name.startswith("07"):
            asked = [INQUIRY, TEST_UNIT_READY] if name == "07 ready" else [INQUIRY]
            assert [cdb[0] for cdb in scene.other.log] == asked
        if name == "c1":
            start = scene.block + 100
            stream = scene.model[DISK].content[start : start + FEED_BYTES]
            assert scene.held() == hashlib.sha256(stream).digest(), "with what waits as residue"
        if trial.function.rod:
            assert trial.medium.released


CONFLICT = Result(Status.RESERVATION_CONFLICT)


@pytest.mark.parametrize("name", meeting("command"))
def test_its_command_fails(name: str, trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    function = KINDS[name]
    assert function.unit is not None
    assert function.opcode is not None
    faults = (*FAULTS, (CONFLICT, b"\x18"))
    for number, make in enumerate(trials(name) * 2):
        answer, area = faults[(number + number // len(faults)) % len(faults)]
        trial = make()
        course = trial.play()
        for nth in range(100 if answer is CONFLICT else 1):
            trial.scene.devices[function.unit].fail(function.opcode, nth, answer)
        told, reached = judge(trial, course, trial.run())
        if name == "15" and course.inexact:
            assert (told.code, told.segment) == (0x260A, BEHIND), "the first error is told"
            continue
        assert told.segment == FUNCTION
        assert told.pointer == ("list", 16 + 32 * function.unit)
        if function.opcode == INQUIRY:
            assert (told.code, told.source, told.destination) == (0x0D02, b"", b"")
        else:
            areas = (area, b"") if function.source else (b"", area)
            assert (told.code, told.source, told.destination) == (0x0D01, *areas)
        done = len(course.steps) if name == "15" else course.before(FUNCTION)
        assert reached == done, "nothing comes after it, and of 15h all has come before"


@pytest.mark.parametrize("name", meeting("early warning"))
@pytest.mark.parametrize("full", [False, True])
def test_a_mark_near_the_end_of_the_medium(name: str, full: bool, trials: Trials) -> None:
    for make in trials(name):
        trial = make()
        course, out = trial.play(), trial.scene.out
        out.full, out.warns_marks = full, True
        told, reached = judge(trial, course, trial.run())
        area = sense_bytes(13 if full else 0, 0x0002, eom=True, information=2 if full else 0)
        assert (told.code, told.segment, told.destination) == (0x0D01, FUNCTION, forwarded(area))
        assert told.pointer == ("list", 16 + 32 * OUT)
        assert reached == course.before(FUNCTION) + (0 if full else 2), "a warned mark is there"


SPACED = {
    "filemark": sense_bytes(0, 0x0001, filemark=True, information=1),
    "beginning": sense_bytes(0, 0x0004, eom=True, information=1),
    "end": sense_bytes(8, 0x0005, information=1),
}


@pytest.mark.parametrize("name", meeting("filemark"))
@pytest.mark.parametrize("met", SPACED)
def test_spacing_is_stopped(name: str, met: str, trials: Trials) -> None:
    """Where the drive stands then is where it says, and the copy leaves it there."""
    for make in trials(name):
        trial = make()
        out = trial.scene.out
        if met != "beginning":
            out.blocks, out.position = [FILEMARK], 1
        feed = trial.play()
        size = feed.states[feed.before(FUNCTION)][1]
        count = {"filemark": -size, "beginning": -size - 1, "end": 1}[met]
        segments = trial.segments()
        segments[FUNCTION] = Space(OUT, 0, count)
        sense = trial.scene.copy(segments)
        assert sense is not None
        told = Told.of(sense)
        assert (told.code, told.segment, told.residual) == (0x0D01, FUNCTION, None)
        assert told.destination == forwarded(SPACED[met])
        assert out.blocks == feed.states[feed.before(FUNCTION)][0]
        assert out.position == (size if met == "end" else 0)


def test_locating_what_is_not_there() -> None:
    for setting in PAIRS:
        trial = Trial("12", Scene(*setting))
        course, out, segments = trial.play(), trial.scene.out, trial.segments()
        segments[FUNCTION] = Locate(OUT, 1000)
        sense = trial.scene.copy(segments)
        assert sense is not None
        told = Told.of(sense)
        assert (told.code, told.segment, told.residual) == (0x0D01, FUNCTION, None)
        assert told.destination == forwarded(sense_bytes(8, 0x0005))
        assert (out.blocks, out.position) == course.states[course.before(FUNCTION)]


@pytest.mark.parametrize("name", meeting("medium"))
def test_blocks_of_its_own_that_cannot_be_kept_or_read(name: str, trials: Trials) -> None:
    for make in trials(name):
        trial = make()
        course = trial.play()
        trial.medium.cannot_keep = True
        told, reached = judge(trial, course, trial.run())
        at = 16 if name == "be" else 8
        assert (told.code, told.segment, told.pointer) == (0x550C, FUNCTION, ("segment", at))
        assert reached == course.before(FUNCTION)

        trial = make()
        course = trial.play()
        trial.medium.cannot_read = True
        told, reached = judge(trial, course, trial.run())
        assert (told.code, told.segment) == (0x0D01, BEHIND)
        assert told.pointer == ("list", 16 + 32 * ROD)
        assert told.source == forwarded(sense_bytes(3, 0x1100))
        assert trial.medium.released

        trial = make()
        course = trial.play()
        trial.medium.valid = False
        told, reached = judge(trial, course, trial.run())
        assert (told.code, told.segment, told.source) == (0x0D02, BEHIND, b"")
        assert told.pointer == ("list", 16 + 32 * ROD)
        assert reached == course.before(BEHIND)


@pytest.mark.parametrize("name", KINDS)
def test_the_segments_beside_it_fail(name: str, trials: Trials) -> None:
    """Before it, and it does nothing; behind it, and what it was to do last is done (6.4.6.18)."""
    for make in trials(name):
        trial = make()
        course = trial.play()
        trial.scene.disk.fail(READ_16, 0, FAULTS[0][0])
        told, reached = judge(trial, course, trial.run())
        assert (told.code, told.segment, reached) == (0x0D01, FEED, 0)
        assert sent(trial) == []
        trial = make()
        course = trial.play()
        writes = course.before(FUNCTION)
        trial.scene.out.fail(WRITE_6, writes, FAULTS[1][0])
        told, reached = judge(trial, course, trial.run())
        assert (told.code, told.segment, told.destination) == (0x0D01, BEHIND, FAULTS[1][1])
        assert reached == course.before(BEHIND)
        assert len(sent(trial)) == (name in meeting("command"))


@pytest.mark.parametrize("name", KINDS)
def test_abort_at_each_moment(name: str, trials: Trials) -> None:
    for make in trials(name):
        asked = itertools.count()
        trial = make()
        trial.run(lambda count=asked: bool(next(count) < 0))
        for nth in some_of(range(next(asked))):
            trial = make()
            course = trial.play()
            times = itertools.count()
            sense = trial.run(lambda count=times, end=nth: next(count) >= end)
            if sense is None:
                assert nth, "whoever asks first is told at once"
                continue
            told, _ = judge(trial, course, sense)
            if told.code == 0x260A:
                assert course.inexact
                continue  # it ended by itself before anybody asked again
            assert (told.code, told.source, told.destination) == (0x2F02, b"", b"")
            if name == "15":
                assert bool(trial.scene.out.reservations) == (told.segment > FUNCTION)
