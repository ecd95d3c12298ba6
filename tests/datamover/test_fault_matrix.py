"""Every segment that moves data, by PAD and CAT, block length and kind of tape, with every fault.

What a copy would write is told by the model; a copy that a fault ends has written the front of
that and nothing else, and its sense data says how much is missing (SPC-4 5.17.7.4): key, code,
segment, residual, field pointer and forwarded sense, read by hand in fixed and descriptor format.
"""

import contextlib
import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from serverfree.datamover.plan import IMPLEMENTED_SEGMENTS
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
    StreamToDigest,
    StreamToDiscard,
    StreamToDiscardHold,
    StreamToStream,
    StreamToStreamHold,
    TapeImage,
)
from serverfree.scsi.sense import Sense
from support.copies import forwarded
from support.copy_model import CopyModel, Inexact, ModelDisk
from support.fake_devices import FILEMARK, READ_6, WRITE_6, FakeDisk, sense_bytes
from support.fault_scene import (
    BLOCKS,
    DISK,
    FAULTS,
    FUNCTIONS,
    INLINE,
    OTHER,
    OUT,
    PAIRS,
    READS,
    SEGMENT,
    SETTINGS,
    TAPE,
    WRITES,
    Drive,
    Scene,
    Told,
    noise,
    some_of,
)

AT = 3  # where a disk is written


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
    "02 alike": _blocks(BlockToBlock, dc=False),
    "0d": _blocks(BlockToBlockHold, dc=False),
    "0d dc": _blocks(BlockToBlockHold, dc=True),
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
    "c0": _discard(StreamToDigest),
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


def left_out(name: str, fault: str) -> str | None:
    """Why a kind of segment cannot meet a fault, None if it can."""
    kind = KINDS[name]
    match fault:
        case "source":
            return None if kind.source is not None else "there is no copy source"
        case "destination":
            return None if kind.destination is not None else "there is no copy destination"
        case "early warning":
            return None if kind.destination == OUT else "only what is written to a tape is warned"
        case "filemark":
            if kind.source != TAPE:
                return "only a tape that is read has filemarks in the way"
            return "an image is copied with its filemarks" if name == "13" else None
    raise AssertionError(fault)


def meeting(fault: str) -> list[str]:
    """The kinds that can meet a fault."""
    return [name for name in KINDS if left_out(name, fault) is None]


def test_every_type_that_moves_data_is_here() -> None:
    assert {int(name[:2], 16) for name in KINDS} == set(IMPLEMENTED_SEGMENTS) - FUNCTIONS
    assert len(meeting("source")) + len(meeting("destination")) == 2 * len(KINDS) - 5
    assert meeting("filemark") == ["01", "0c", "03", "0e", "06", "0f", "c0", "09"]


@pytest.fixture(params=[PAIRS, pytest.param(SETTINGS, marks=pytest.mark.long)], ids=["", "all"])
def scenes(request: pytest.FixtureRequest) -> Callable[[str], Makers]:
    """Return what makes the scenes of a kind of segment; each is used once."""

    def all_of(kind: str) -> Makers:
        return [functools.partial(scene_of, kind, *setting) for setting in request.param]

    return all_of


def scene_of(kind: str, block: int, fixed: bool, pad: bool, cat: bool) -> Scene:
    """Return the scene of a segment."""
    scene = Scene(block, fixed, pad, cat)
    if kind in ("16", "02 alike"):  # between disks with blocks of one length
        content = noise(block * BLOCKS, 2)
        scene.other = scene.devices[OTHER] = FakeDisk(content, block, most=1)
        scene.model[OTHER] = ModelDisk(content, block, pad)
    elif kind == "13" and fixed:  # and between tapes of blocks of one length
        scene.out = scene.devices[OUT] = Drive(block_length=scene.tape.block_length)
    return scene


def run(scene: Scene, name: str, aborted: Callable[[], bool] = lambda: False) -> Sense | None:
    """Return the sense data of a copy with the segment in its middle, None if it ends well."""
    return scene.copy(scene.around(KINDS[name].segment(scene)), aborted)


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


def held(scene: Scene, name: str) -> bytes:
    """What is held of the segment: all that the model has processed, of C0h its digest."""
    model = CopyModel()
    played = KINDS[name].played
    assert played is not None
    with contextlib.suppress(Inexact):
        model.play(played(scene))
    return hashlib.sha256(model.held).digest() if name == "c0" else model.held


@pytest.mark.parametrize("name", ["0b", "0c", "0d", "0d dc", "0e", "0f", "c0"])
def test_what_is_processed_is_held(name: str, scenes: Callable[[str], Makers]) -> None:
    for make in scenes(name):
        scene = make()
        sense = run(scene, name)
        # 5.17.4.5: of a copy that ended inexactly too, but no digest of a segment that failed.
        wanted = b"" if sense is not None and name == "c0" else held(make(), name)
        assert wanted or name == "c0"
        assert scene.held() == wanted


@pytest.mark.parametrize("name", KINDS)
def test_without_a_fault_the_media_are_as_the_model_says(
    name: str, scenes: Callable[[str], Makers]
) -> None:
    for make in scenes(name):
        scene = make()
        before = bytes(scene.other.data)
        entries, exact = whole(scene, name)
        sense = run(scene, name)
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
    run(scene, name)
    return range(scene.count(device, codes[device]))


@pytest.mark.parametrize("name", meeting("source"))
def test_source_fails_at_each_read(name: str, scenes: Callable[[str], Makers]) -> None:
    kind = KINDS[name]
    assert kind.source is not None
    faults = itertools.cycle(FAULTS)
    for make in scenes(name):
        for nth in some_of(reached(name, make, kind.source, READS)):
            answer, area = next(faults)
            scene = make()
            before = bytes(scene.other.data)
            entries, _ = whole(scene, name)
            scene.devices[kind.source].fail(READS[kind.source], nth, answer)
            told, _ = judge(scene, name, run(scene, name), entries, before)
            assert (told.code, told.source, told.destination) == (0x0D01, area, b"")
            assert told.pointer == ("list", 16 + 32 * kind.source)
            assert scene.count(kind.source, READS[kind.source]) >= nth + 1
            if kind.source == TAPE:
                assert scene.count(TAPE, READ_6) == nth + 1, "no read follows one that failed"
            if name == "c0":
                assert scene.held() == b"", "no digest of what was not read"


@pytest.mark.parametrize("name", meeting("destination"))
def test_destination_fails_at_each_write(name: str, scenes: Callable[[str], Makers]) -> None:
    kind = KINDS[name]
    assert kind.destination is not None
    faults = itertools.cycle(FAULTS)
    for make in scenes(name):
        for nth in some_of(reached(name, make, kind.destination, WRITES)):
            answer, area = next(faults)
            scene = make()
            before = bytes(scene.other.data)
            entries, _ = whole(scene, name)
            scene.devices[kind.destination].fail(WRITES[kind.destination], nth, answer)
            sense = run(scene, name)
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


@pytest.mark.parametrize("name", meeting("early warning"))
def test_early_warning_and_the_end_of_the_medium_at_each_write(
    name: str, scenes: Callable[[str], Makers]
) -> None:
    for make in scenes(name):
        for nth in some_of(reached(name, make, OUT, WRITES)):
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
                told, count = judge(scene, name, run(scene, name), entries, before)
                assert (told.code, told.destination) == (0x0D01, forwarded(area))
                assert count == expected
                assert scene.count(OUT, WRITE_6) == nth + 1


def _tape_image_warning(scene: Scene, name: str, entries, before: bytes) -> None:
    """A drive that copies itself says what it says; what is written is there."""
    sense = run(scene, name)
    told, _ = judge(scene, name, sense, entries, before)
    assert told.code == 0x0D01
    assert told.destination[0] == 0x02
    assert told.destination[1 + 2] & 0x40, "EOM, as the drive said"


@pytest.mark.parametrize("name", meeting("filemark"))
def test_filemark_is_met_at_each_read(name: str, scenes: Callable[[str], Makers]) -> None:
    for make in scenes(name):
        for nth in some_of(reached(name, make, TAPE, READS)):
            scene = make()
            before = bytes(scene.other.data)
            entries, _ = whole(scene, name)
            at = nth * (2 if scene.fixed else 1) + scene.fixed
            scene.tape.blocks.insert(at, FILEMARK)
            told, _ = judge(scene, name, run(scene, name), entries, before)
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
        run(scene, name, ask)
        for nth in some_of(range(asked[0])):
            scene = make()
            before = bytes(scene.other.data)
            entries, _ = whole(scene, name)
            times = itertools.count()
            sense = scene.copy(
                scene.around(kind.segment(scene)), lambda t=times, n=nth: next(t) >= n
            )
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
