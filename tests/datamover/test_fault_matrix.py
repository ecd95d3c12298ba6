"""Every segment that moves data, by PAD and CAT, block length and kind of tape, with every fault.

What a copy would write is told by the model; a copy that a fault ends has written the front of
that and nothing else, and its sense data says how much is missing (SPC-4 5.17.7.4): key, code,
segment, residual, field pointer and forwarded sense, read by hand in fixed and descriptor format.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from serverfree.datamover.manager import CopyManager
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_segments import (
    BlockImage,
    BlockRangeToBlockRange,
    BlockRangeToStream,
    BlockToBlock,
    BlockToBlockHold,
    BlockToStream,
    BlockToStreamHold,
    EmbeddedToStream,
    InlineToStream,
    Segment,
    StreamToBlock,
    StreamToBlockHold,
    StreamToBlockRange,
    StreamToDiscard,
    StreamToDiscardHold,
    StreamToStream,
    StreamToStreamHold,
    TapeImage,
    VerifyCscd,
    WriteFilemarks,
)
from serverfree.scsi.device import Result
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.sense import Sense
from support.copies import NEXUS, ModelFabric, SenseBytes, cscd, forwarded
from support.copies import noise as make_noise
from support.copy_model import CopyModel, Inexact, ModelDisk, ModelTape
from support.fake_devices import (
    FILEMARK,
    READ_6,
    READ_16,
    WRITE_6,
    WRITE_16,
    CarrierLost,
    FakeDevice,
    FakeDisk,
    FakeTape,
    check_condition,
    give,
    sense_bytes,
)

noise = functools.cache(make_noise)

DISK, OTHER, TAPE, OUT = range(4)  # the devices, and their CSCD descriptors
SEGMENT = 1  # the one that is tried; before it stands a look at a CSCD, behind it a filemark
BLOCKS = 24
AT = 3  # where a disk is written
INLINE = noise(64, 9)
READ_BLOCK_LIMITS = 0x05

FIXED_SENSE = sense_bytes(3, 0x1100, information=7)
DESCRIPTOR_SENSE = bytes.fromhex("72 03 11 00 00 00 00 0c 00 0a 80 00 00 00 00 00 00 00 00 07")
READS = {DISK: READ_16, OTHER: READ_16, TAPE: READ_6, OUT: READ_6}
WRITES = {DISK: WRITE_16, OTHER: WRITE_16, TAPE: WRITE_6, OUT: WRITE_6}


class Drive(FakeTape):
    """A tape that says how long its blocks may be: a tape image is asked for with such reads."""

    def command(self, cdb: bytes, out: bytes, into: memoryview | None) -> Result:
        if cdb[0] == READ_BLOCK_LIMITS:
            return give(into, bytes.fromhex("00 00 20 00 00 01"))
        return super().command(cdb, out, into)


@dataclass
class Scene:
    """Two disks and two tapes, once as devices and once as the model's values.

    Transfers of a tape are one block, or two blocks with `fixed`; disks take a block a command.
    """

    block: int
    fixed: bool
    pad: bool
    cat: bool
    devices: list[FakeDevice] = field(init=False)

    def __post_init__(self) -> None:
        self.other_block = 4608 - self.block
        self.unit, self.out_unit = (600, 1024) if self.fixed else (700, 900)
        contents = noise(self.block * BLOCKS, 1), noise(self.other_block * BLOCKS, 2)
        records = [noise(self.unit, 3 + n) for n in range(40)]
        half = self.unit // 2
        pieces = [part for one in records for part in (one[:half], one[half:])]
        self.tape = Drive(pieces if self.fixed else records, half if self.fixed else 0)
        self.out = Drive(block_length=512 if self.fixed else 0)
        self.disk = FakeDisk(contents[0], self.block, most=1)
        self.other = FakeDisk(contents[1], self.other_block, most=1)
        self.devices = [self.disk, self.other, self.tape, self.out]
        self.model = [
            ModelDisk(contents[0], self.block, self.pad),
            ModelDisk(contents[1], self.other_block, self.pad),
            ModelTape(list(records), 0, self.pad),
            ModelTape([], 0, self.pad),
        ]

    @property
    def transfer(self) -> int:
        """TRANSFER LENGTH of a read of the tape."""
        return 2 if self.fixed else self.unit

    @property
    def out_transfer(self) -> int:
        return 2 if self.fixed else self.out_unit

    def copy(self, segment: Segment, aborted: Callable[[], bool] = lambda: False) -> Sense | None:
        """Return the sense data that a copy ends with, None if it ends well."""
        cscds = [cscd(number, one, pad=self.pad) for number, one in enumerate(self.devices)]
        segments = [VerifyCscd(DISK), segment, WriteFilemarks(OUT)]
        manager = CopyManager(ModelFabric(*self.devices))
        try:
            manager.extended_copy(NEXUS, CopyList(cscds, segments, INLINE).pack(), aborted)
        except CheckCondition as error:
            return error.sense
        finally:
            assert not any(device._queue for device in self.devices), "nothing is under way"
        return None

    def count(self, device: int, opcode: int) -> int:
        return sum(cdb[0] == opcode for cdb in self.devices[device].log)


@dataclass(frozen=True)
class Kind:
    """A segment as it is sent and as the model plays it. `counted`: it has a transfer count."""

    source: int | None
    destination: int | None
    segment: Callable[[Scene], Segment]
    played: Callable[[Scene], tuple] | None
    counted: bool = True


def _to_stream(kind: type[BlockToStream]) -> Kind:
    return Kind(
        DISK, OUT,
        lambda s: kind(DISK, OUT, s.out_transfer, 5, 2, s.cat),
        lambda s: ("00", s.model[DISK], 2, 5, s.model[OUT], s.out_unit, s.cat),
    )  # fmt: skip


def _to_block(kind: type[StreamToBlock]) -> Kind:
    return Kind(
        TAPE, OTHER,
        lambda s: kind(TAPE, OTHER, s.transfer, 4, AT, s.cat),
        lambda s: ("01", s.model[TAPE], s.unit, s.model[OTHER], AT, 4, s.cat),
    )  # fmt: skip


def _blocks(kind: type[BlockToBlock], dc: bool) -> Kind:
    def count(scene: Scene) -> int:
        if dc:
            return 2 if scene.other_block == 4096 else 9
        return 20 if scene.block == 512 else 2

    return Kind(
        DISK, OTHER,
        lambda s: kind(DISK, OTHER, count(s), 1, AT, s.cat, dc),
        lambda s: ("02", s.model[DISK], 1, count(s), s.model[OTHER], AT, s.cat, dc),
    )  # fmt: skip


def _to_tape(kind: type[StreamToStream]) -> Kind:
    return Kind(
        TAPE, OUT,
        lambda s: kind(TAPE, OUT, s.transfer, s.out_transfer, 3000, s.cat),
        lambda s: ("03", s.model[TAPE], s.unit, s.model[OUT], s.out_unit, 3000, s.cat),
    )  # fmt: skip


def _discard(kind: type[StreamToDiscard]) -> Kind:
    return Kind(
        TAPE, None,
        lambda s: kind(TAPE, s.transfer, 2000, s.cat),
        lambda s: ("06", s.model[TAPE], s.unit, 2000, s.cat),
    )  # fmt: skip


KINDS = {
    "00": _to_stream(BlockToStream),
    "0b": _to_stream(BlockToStreamHold),
    "01": _to_block(StreamToBlock),
    "0c": _to_block(StreamToBlockHold),
    "02": _blocks(BlockToBlock, dc=False),
    "02 dc": _blocks(BlockToBlock, dc=True),
    "0d": _blocks(BlockToBlockHold, dc=False),
    "03": _to_tape(StreamToStream),
    "0e": _to_tape(StreamToStreamHold),
    "04": Kind(
        None, OUT,
        lambda s: InlineToStream(OUT, 2 if s.fixed else 20, 4, 60, s.cat),
        lambda s: ("04", INLINE[4:64], s.model[OUT], 1024 if s.fixed else 20, s.cat),
    ),
    "05": Kind(
        None, OUT,
        lambda s: EmbeddedToStream(OUT, 2 if s.fixed else 20, INLINE, s.cat),
        lambda s: ("04", INLINE, s.model[OUT], 1024 if s.fixed else 20, s.cat),
    ),
    "06": _discard(StreamToDiscard),
    "0f": _discard(StreamToDiscardHold),
    "08": Kind(
        DISK, OUT,
        lambda s: BlockRangeToStream(DISK, OUT, s.out_transfer, 3000, 1, 100, s.cat),
        lambda s: (
            "08", s.model[DISK], s.block + 100, 3000, s.model[OUT], s.out_unit, s.cat,
        ),
    ),
    "09": Kind(
        TAPE, OTHER,
        lambda s: StreamToBlockRange(TAPE, OTHER, s.transfer, 6000, AT, 200, s.cat),
        lambda s: (
            "09", s.model[TAPE], s.unit, s.model[OTHER], AT * s.other_block + 200, 6000, s.cat,
        ),
    ),
    "0a": Kind(
        DISK, OTHER,
        lambda s: BlockRangeToBlockRange(DISK, OTHER, 6000, 1, AT, 100, 200, s.cat),
        lambda s: (
            "0a", s.model[DISK], s.block + 100, 6000, s.model[OTHER], AT * s.other_block + 200,
            s.cat,
        ),
    ),
    "13": Kind(TAPE, OUT, lambda s: TapeImage(TAPE, OUT, 0), None, counted=False),
    "16": Kind(DISK, OTHER, lambda s: BlockImage(DISK, OTHER, 2, AT, 5), None),
}  # fmt: skip


Makers = Sequence[Callable[[], "Scene"]]

SETTINGS = list(itertools.product((512, 4096), *[(False, True)] * 3))
"""Block length, fixed, PAD, CAT: every way a segment may be set."""

PAIRS = [(512, False, False, False), (4096, False, True, True), (512, True, False, True)]
PAIRS += [(4096, True, True, False)]
"""Some of them: every two of the latter three meet in each combination."""


@pytest.fixture(params=[PAIRS, pytest.param(SETTINGS, marks=pytest.mark.long)], ids=["", "all"])
def scenes(request: pytest.FixtureRequest) -> Callable[[str], Makers]:
    """Return what makes the scenes of a kind of segment; each is used once."""

    def all_of(kind: str) -> Makers:
        return [functools.partial(scene_of, kind, *setting) for setting in request.param]

    return all_of


def scene_of(kind: str, block: int, fixed: bool, pad: bool, cat: bool) -> Scene:
    """Return the scene of a segment."""
    scene = Scene(block, fixed, pad, cat)
    if kind == "16":  # between disks with blocks of one length
        content = noise(block * BLOCKS, 2)
        scene.other = scene.devices[OTHER] = FakeDisk(content, block, most=1)
        scene.model[OTHER] = ModelDisk(content, block, pad)
    elif kind == "13" and fixed:  # and between tapes of blocks of one length
        scene.out = scene.devices[OUT] = Drive(block_length=scene.tape.block_length)
    return scene


def whole(scene: Scene, name: str) -> tuple[list[bytes | None], bool]:
    """Return what the segment writes, one entry for each block or record, and if it is exact."""
    exact = True
    played = KINDS[name].played
    if played is not None:
        model = CopyModel()
        try:
            model.play(played(scene))
        except Inexact:
            exact = False
    elif name == "16":
        size = scene.block
        source, other = scene.model[DISK], scene.model[OTHER]
        data = source.content[2 * size : 7 * size]
        other.content = other.content[: AT * size] + data + other.content[(AT + 5) * size :]
    else:
        scene.model[OUT].records = list(scene.tape.blocks)
        return list(scene.tape.blocks), True
    if KINDS[name].destination == OUT:
        records = scene.model[OUT].records
        if scene.fixed:
            records = [part for one in records for part in (one[:512], one[512:])]
        return records, exact
    if KINDS[name].destination is None:
        return [], exact
    size = scene.other.block_length
    before, after = bytes(scene.other.data), scene.model[OTHER].content
    ends = [n for n in range(BLOCKS) if before[n * size :][:size] != after[n * size :][:size]]
    assert ends == list(range(AT, AT + len(ends))), "the example writes one run of blocks"
    return [after[n * size : (n + 1) * size] for n in ends], exact


def written(scene: Scene, name: str, before: bytes, entries: list[bytes | None]) -> int:
    """Return how many of the entries are on the medium, and see that nothing else is."""
    if KINDS[name].destination == OUT:
        count = len(scene.out.blocks)
        assert scene.out.blocks == entries[:count]
        assert scene.out.position == count, "the drive stands behind what it has"
        return count
    size, content = scene.other.block_length, bytes(scene.other.data)
    expected = bytearray(before)
    for count, entry in enumerate([*entries, b""]):
        if content == expected:
            return count
        at = (AT + count) * size
        expected[at : at + size] = entry or b""
    raise AssertionError("the disk holds something that the copy was not to write")


@dataclass
class Told:
    """What sense data of both formats says, which must be the same."""

    code: int
    segment: int
    residual: int | None
    source: bytes
    destination: bytes
    pointer: tuple[str, int] | None

    @classmethod
    def of(cls, sense: Sense) -> "Told":
        fixed = SenseBytes(sense.pack())
        told = cls(
            fixed.code, fixed.segment, fixed.residual, fixed.source, fixed.destination,
            fixed.pointer,
        )  # fmt: skip
        if told.source and told.destination:  # the first area ends where the second begins
            told.source = told.source[: -len(told.destination)]
        assert told == cls.of_descriptors(sense.pack_descriptors())
        return told

    @classmethod
    def of_descriptors(cls, raw: bytes) -> "Told":
        """SPC-4 4.5.2: 72h, key, code, then descriptors of type and length."""
        assert (raw[0], raw[1], raw[7]) == (0x72, 0x0A, len(raw) - 8)
        told = cls(int.from_bytes(raw[2:4], "big"), 0, None, b"", b"", None)
        at = 8
        while at < len(raw):
            kind, length = raw[at], raw[at + 1]
            body = raw[at + 2 : at + 2 + length]
            match kind:
                case 0x00:
                    assert body[0] == 0x80
                    told.residual = int.from_bytes(body[2:10], "big")
                case 0x01:
                    told.segment = int.from_bytes(body[8:10], "big")
                case 0x02:
                    where = "segment" if body[2] & 0x20 else "list"
                    told.pointer = where, int.from_bytes(body[3:5], "big")
                case 0x0C if body[0] == 1:
                    told.source = body[1:]
                case 0x0C if body[0] == 2:
                    told.destination = body[1:]
                case _:
                    raise AssertionError(f"descriptor {kind:02X}h in {raw.hex(' ')}")
            at += 2 + length
        return told


def judge(scene: Scene, name: str, sense: Sense | None, entries, before: bytes) -> tuple[Told, int]:
    """Hold a copy that has failed to what its sense data says; return that and what is written."""
    assert sense is not None, "the fault was met"
    told = Told.of(sense)
    assert told.segment == SEGMENT
    kind = KINDS[name]
    count = 0 if kind.destination is None else written(scene, name, before, entries)
    if not count or not kind.counted:
        assert told.residual is None
    else:
        left = entries[count:]
        size = sum(map(len, left)) if kind.destination == OUT and not scene.fixed else len(left)
        assert told.residual == size
    return told, count


@pytest.mark.parametrize("name", KINDS)
def test_without_a_fault_the_media_are_as_the_model_says(
    name: str, scenes: Callable[[str], Makers]
) -> None:
    for make in scenes(name):
        scene = make()
        before = bytes(scene.other.data)
        entries, exact = whole(scene, name)
        sense = scene.copy(KINDS[name].segment(scene))
        if exact:
            assert sense is None
            assert scene.out.blocks[-1] is FILEMARK, "the segment behind it came too"
            scene.out.blocks.pop()
            scene.out.position -= 1
        else:
            assert sense is not None
            told = Told.of(sense)
            assert (told.code, told.segment) == (0x260A, SEGMENT)
        if KINDS[name].destination is not None:
            assert written(scene, name, before, entries) == len(entries)


def reached(name: str, make: Callable[[], Scene], device: int | None, codes) -> range:
    """Return the numbers of the commands that a copy without a fault sends to one device."""
    if device is None:
        return range(0)
    scene = make()
    scene.copy(KINDS[name].segment(scene))
    return range(scene.count(device, codes[device]))


FAULTS = (
    (check_condition(FIXED_SENSE), forwarded(FIXED_SENSE)),
    (check_condition(DESCRIPTOR_SENSE), forwarded(DESCRIPTOR_SENSE)),
    (CarrierLost(), b""),
)
"""What a command ends with, and what of that is forwarded. They take turns."""


@pytest.mark.parametrize("name", [name for name in KINDS if KINDS[name].source is not None])
def test_source_fails_at_each_read(name: str, scenes: Callable[[str], Makers]) -> None:
    kind = KINDS[name]
    assert kind.source is not None
    faults = itertools.cycle(FAULTS)
    for make in scenes(name):
        for nth in _some(reached(name, make, kind.source, READS)):
            answer, area = next(faults)
            scene = make()
            before = bytes(scene.other.data)
            entries, _ = whole(scene, name)
            scene.devices[kind.source].fail(READS[kind.source], nth, answer)
            told, _ = judge(scene, name, scene.copy(kind.segment(scene)), entries, before)
            assert (told.code, told.source, told.destination) == (0x0D01, area, b"")
            assert told.pointer == ("list", 16 + 32 * kind.source)
            assert scene.count(kind.source, READS[kind.source]) >= nth + 1
            if kind.source == TAPE:
                assert scene.count(TAPE, READ_6) == nth + 1, "no read follows one that failed"


@pytest.mark.parametrize("name", [name for name in KINDS if KINDS[name].destination is not None])
def test_destination_fails_at_each_write(name: str, scenes: Callable[[str], Makers]) -> None:
    kind = KINDS[name]
    assert kind.destination is not None
    faults = itertools.cycle(FAULTS)
    for make in scenes(name):
        for nth in _some(reached(name, make, kind.destination, WRITES)):
            answer, area = next(faults)
            scene = make()
            before = bytes(scene.other.data)
            entries, _ = whole(scene, name)
            scene.devices[kind.destination].fail(WRITES[kind.destination], nth, answer)
            sense = scene.copy(kind.segment(scene))
            if kind.destination == OTHER:
                # Blocks of a disk may be written in any order: those behind may be there already.
                _forget_behind(scene, before, nth)
            told, count = judge(scene, name, sense, entries, before)
            assert (told.code, told.source, told.destination) == (0x0D01, b"", area)
            assert told.pointer == ("list", 16 + 32 * kind.destination)
            assert count == nth * (2 if kind.destination == OUT and scene.fixed else 1)
            if kind.destination == OUT:
                assert scene.count(OUT, WRITE_6) == nth + 1, "no write follows one that failed"


def _forget_behind(scene: Scene, before: bytes, nth: int) -> None:
    end = (AT + nth) * scene.other.block_length
    scene.other.data[end:] = before[end:]


@pytest.mark.parametrize("name", [name for name in KINDS if KINDS[name].destination == OUT])
def test_early_warning_and_the_end_of_the_medium_at_each_write(
    name: str, scenes: Callable[[str], Makers]
) -> None:
    kind = KINDS[name]
    for make in scenes(name):
        for nth in _some(reached(name, make, OUT, WRITES)):
            for at_the_end in (False, True):
                scene = make()
                before = bytes(scene.other.data)
                entries, _ = whole(scene, name)
                unit = 2 if scene.fixed else 1
                used = sum(len(entry or b"") for entry in entries[: nth * unit])
                if at_the_end:  # with two blocks to a transfer, one of them still fits
                    part = scene.fixed and name != "13"
                    scene.out.capacity = used + (512 if part else 0)
                    expected = nth * unit + part
                    left = 1 if part else unit if scene.fixed else len(entries[nth] or b"")
                    area = sense_bytes(13, 0x0002, eom=True, information=left)
                else:
                    scene.out.early_warning = used
                    expected = (nth + 1) * unit
                    area = sense_bytes(0, 0x0002, eom=True, information=0)
                if name == "13":
                    _tape_image_warning(scene, name, entries, before)
                    continue
                told, count = judge(scene, name, scene.copy(kind.segment(scene)), entries, before)
                assert (told.code, told.destination) == (0x0D01, forwarded(area))
                assert count == expected
                assert scene.count(OUT, WRITE_6) == nth + 1


def _tape_image_warning(scene: Scene, name: str, entries, before: bytes) -> None:
    """A drive that copies itself says what it says; what is written is there."""
    sense = scene.copy(KINDS[name].segment(scene))
    told, _ = judge(scene, name, sense, entries, before)
    assert told.code == 0x0D01
    assert told.destination[0] == 0x02
    assert told.destination[1 + 2] & 0x40, "EOM, as the drive said"


@pytest.mark.parametrize("name", [n for n in KINDS if KINDS[n].source == TAPE and n != "13"])
def test_filemark_is_met_at_each_read(name: str, scenes: Callable[[str], Makers]) -> None:
    kind = KINDS[name]
    for make in scenes(name):
        for nth in _some(reached(name, make, TAPE, READS)):
            scene = make()
            before = bytes(scene.other.data)
            entries, _ = whole(scene, name)
            at = nth * (2 if scene.fixed else 1) + scene.fixed
            scene.tape.blocks.insert(at, FILEMARK)
            told, _ = judge(scene, name, scene.copy(kind.segment(scene)), entries, before)
            left = 1 if scene.fixed else scene.unit
            area = sense_bytes(0, 0x0001, filemark=True, information=left)
            assert (told.code, told.source) == (0x0D01, forwarded(area))
            assert scene.tape.position == at + 1, "just behind the filemark"


@pytest.mark.parametrize("name", KINDS)
def test_abort_at_each_moment(name: str, scenes: Callable[[str], Makers]) -> None:
    kind = KINDS[name]
    for make in scenes(name):
        asked = [0]

        def ask(asked: list[int] = asked) -> bool:
            asked[0] += 1
            return False

        scene = make()
        scene.copy(kind.segment(scene), ask)
        for nth in _some(range(asked[0])):
            scene = make()
            before = bytes(scene.other.data)
            entries, _ = whole(scene, name)
            times = itertools.count()
            sense = scene.copy(kind.segment(scene), lambda t=times, n=nth: next(t) >= n)
            if sense is None:
                assert nth, "whoever asks first is told at once"
                continue
            if Told.of(sense).segment != SEGMENT:
                assert not scene.count(TAPE, READ_6) or nth
                continue
            if Told.of(sense).code == 0x260A:
                continue  # it ended by itself before anybody asked again
            told, _ = judge(scene, name, sense, entries, before)
            assert (told.code, told.source, told.destination) == (0x2F02, b"", b"")


def _some(numbers: range) -> list[int]:
    """The first and the last, and one in the middle."""
    return sorted({numbers[0], numbers[len(numbers) // 2], numbers[-1]}) if numbers else []
