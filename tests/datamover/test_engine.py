"""Copies over a model disk and a model tape: what ends up where, and how a fault is told."""

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serverfree.datamover import buffers
from serverfree.datamover.errors import CopyAborted, UnitUnreachable
from serverfree.datamover.manager import CopyManager
from serverfree.scsi.copy_cscd import (
    BlockParameters,
    IdentificationCscd,
    ProcessorParameters,
    StreamParameters,
)
from serverfree.scsi.copy_list import THIS_UNIT, CopyList
from serverfree.scsi.copy_segments import (
    BlockToBlock,
    BlockToStream,
    InlineToStream,
    Locate,
    Segment,
    StreamToBlock,
    StreamToDiscard,
    WriteFilemarks,
)
from serverfree.scsi.designator import Designator, DesignatorType
from serverfree.scsi.device import Result
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.status import Status
from support.copy_model import CopyModel, Inexact, ModelDisk, ModelTape
from support.fake_devices import (
    FILEMARK,
    INQUIRY,
    LOCATE_10,
    READ_16,
    READ_CAPACITY_16,
    TEST_UNIT_READY,
    WRITE_6,
    WRITE_16,
    WRITE_FILEMARKS_6,
    CarrierLost,
    FakeDevice,
    FakeDisk,
    FakeTape,
    check_condition,
    sense_bytes,
)

NEXUS = "initiator"
MIB = 1 << 20


def named(number: int) -> Designator:
    return Designator(DesignatorType.NAA, bytes([0x30, 0, 0, 0, 0, 0, 0, number]))


class ModelFabric:
    """Devices by the number in their name."""

    def __init__(self, *devices: FakeDevice) -> None:
        self.devices = devices

    def open(self, designator: Designator) -> FakeDevice:
        number = designator.identifier[-1]
        if number >= len(self.devices):
            raise UnitUnreachable(str(designator))
        return self.devices[number]


def cscd(number: int, device: FakeDevice, *, pad: bool = False, **changes: int):
    """The descriptor of the device with this number, telling the truth about it."""
    if isinstance(device, FakeTape):
        fixed = changes.get("fixed", bool(device.block_length))
        length = changes.get("block_length", device.block_length if fixed else 0)
        return IdentificationCscd(named(number), StreamParameters(length, bool(fixed), pad), 1)
    length = changes.get("block_length", device.block_length)
    return IdentificationCscd(named(number), BlockParameters(length, pad), 0)


def copy(
    devices: Sequence[FakeDevice],
    segments: Sequence[Segment],
    *,
    pads: Sequence[bool] = (),
    inline: bytes = b"",
    cscds: Sequence[IdentificationCscd] | None = None,
    aborted: Callable[[], bool] = lambda: False,
    manager: CopyManager | None = None,
) -> None:
    if cscds is None:
        cscds = [
            cscd(number, device, pad=pad)
            for number, (device, pad) in enumerate(
                itertools.zip_longest(devices, pads, fillvalue=False)
            )
        ]
    manager = manager or CopyManager(ModelFabric(*devices))
    manager.extended_copy(NEXUS, CopyList(cscds, segments, inline).pack(), aborted)


def aborted_sense(*arguments, **options) -> "SenseBytes":
    with pytest.raises(CheckCondition) as caught:
        copy(*arguments, **options)
    return SenseBytes(caught.value.sense.pack())


class SenseBytes:
    """Fixed format sense data of COPY ABORTED, picked apart by hand (SPC-4 4.5.3, 5.17.7.4)."""

    def __init__(self, raw: bytes) -> None:
        assert raw[2] & 0x0F == 0x0A, f"COPY ABORTED is expected, not {raw.hex(' ')}"
        assert raw[7] == len(raw) - 8
        self.code = int.from_bytes(raw[12:14], "big")
        self.residual = int.from_bytes(raw[3:7], "big") if raw[0] & 0x80 else None
        self.segment = int.from_bytes(raw[10:12], "big")
        source, destination = raw[8], raw[9]
        self.source = raw[source:] if source else b""
        self.destination = raw[destination:] if destination else b""
        self.pointer: tuple[str, int] | None = None
        if raw[15] & 0x80:
            where = "segment" if raw[15] & 0x20 else "list"
            self.pointer = where, int.from_bytes(raw[16:18], "big")


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture(params=[False, True], ids=["at once", "lazy"])
def lazy(request: pytest.FixtureRequest) -> bool:
    return request.param


# ---------------------------------------------------------------------- what ends up where


def test_disk_goes_to_tape_and_back(lazy: bool) -> None:
    content = noise(5 * MIB)
    disk, copied = FakeDisk(content, lazy=lazy), FakeDisk(bytes(len(content)), 4096, lazy=lazy)
    tape = FakeTape(lazy=lazy)
    blocks = len(content) // 512
    copy(
        [disk, tape],
        [
            BlockToStream(0, 1, 0x40000, 1001, 0, cat=True),
            BlockToStream(0, 1, 0x40000, blocks - 1001, 1001),
            WriteFilemarks(1, 2),
        ],
    )
    assert [len(block) for block in tape.blocks[:-2]] == [0x40000] * 20
    assert tape.blocks[-2:] == [FILEMARK, FILEMARK]
    assert b"".join(tape.blocks[:-2]) == content
    copy([tape, copied], [Locate(0, 0), StreamToBlock(0, 1, 0x40000, len(content) // 4096, 0)])
    assert copied.data == content


@pytest.mark.parametrize("source_block", [512, 4096])
@pytest.mark.parametrize("destination_block", [512, 520, 4096])
@pytest.mark.parametrize("dc", [False, True])
def test_disk_to_disk_between_block_lengths(
    source_block: int, destination_block: int, dc: bool
) -> None:
    content = noise(512 * 520)
    source = FakeDisk(content, source_block)
    destination = FakeDisk(bytes(512 * 520 + 4 * 4160), destination_block)
    moved = 4096 * 65  # whole blocks of every length here
    blocks = moved // (destination_block if dc else source_block)
    copy([source, destination], [BlockToBlock(0, 1, blocks, 0, 2, dc=dc)])
    start = 2 * destination_block
    assert destination.data[start : start + moved] == content[:moved]
    assert not any(destination.data[:start])
    assert not any(destination.data[start + moved :])


@pytest.mark.parametrize(("block_length", "transfer"), [(0, 3000), (1000, 3), (512, 6)])
def test_fixed_and_variable_tape(block_length: int, transfer: int, lazy: bool) -> None:
    content = noise(512 * 100)
    disk, tape = FakeDisk(content, lazy=lazy), FakeTape(block_length=block_length, lazy=lazy)
    copied = FakeDisk(bytes(len(content)), lazy=lazy)
    unit = transfer * (block_length or 1)
    copy([disk, tape], [BlockToStream(0, 1, transfer, 100, 0)], pads=[False, True])
    assert {len(block) for block in tape.blocks} == {block_length or transfer}
    assert b"".join(tape.blocks) == content + bytes(-len(content) % unit)
    copy(
        [tape, copied],
        [Locate(0, 0), StreamToBlock(0, 1, transfer, 100, 0)],
        pads=[True, True],
    )
    assert copied.data == content


def test_inline_data_disk_data_and_padding_become_one_stream() -> None:
    disk, tape = FakeDisk(noise(2048)), FakeTape()
    inline = b"head" + b"tail...."
    copy(
        [disk, tape],
        [
            InlineToStream(1, 1000, 0, 4, cat=True),
            BlockToStream(0, 1, 1000, 4, 0, cat=True),
            InlineToStream(1, 1000, 4, 7, cat=True),
            InlineToStream(1, 1000, 0, 0),
            WriteFilemarks(1),
        ],
        pads=[False, True],
        inline=inline,
    )
    stream = b"head" + disk.data + b"tail..."
    assert tape.blocks[-1] is FILEMARK
    assert b"".join(tape.blocks[:-1]) == stream + bytes(-len(stream) % 1000)
    assert [len(block) for block in tape.blocks[:-1]] == [1000] * 3


def test_filemark_does_not_flush_what_is_left_over() -> None:
    disk, tape = FakeDisk(noise(1024)), FakeTape()
    copy(
        [disk, tape],
        [
            BlockToStream(0, 1, 1000, 1, 0, cat=True),
            WriteFilemarks(1),
            BlockToStream(0, 1, 1000, 1, 1, cat=True),
        ],
    )
    assert tape.blocks == [FILEMARK, bytes(disk.data[:1000])]


def test_discard_then_extent_across_tape_blocks() -> None:
    stream = noise(8 * 1000)
    tape = FakeTape([stream[at : at + 1000] for at in range(0, 8000, 1000)])
    disk = FakeDisk(bytes(8 * 512))
    copy(
        [tape, disk],
        [
            Locate(0, 1),
            StreamToDiscard(0, 1000, 1500, cat=True),
            StreamToBlock(0, 1, 1000, 3, 2),
            Locate(0, 6),
            StreamToBlock(0, 1, 1000, 1, 7),
        ],
        pads=[True, True],
    )
    assert disk.data[2 * 512 : 5 * 512] == stream[2500 : 2500 + 3 * 512]
    assert disk.data[7 * 512 :] == stream[6000:6512]
    assert not any(disk.data[: 2 * 512])
    assert not any(disk.data[5 * 512 : 7 * 512])
    assert tape.position == 7


def test_block_length_zero_is_asked_of_the_disk() -> None:
    source, destination = FakeDisk(noise(8192), 4096), FakeDisk(bytes(8192), 4096)
    cscds = [cscd(0, source, block_length=0), cscd(1, destination, block_length=0)]
    copy([source, destination], [BlockToBlock(0, 1, 2, 0, 0)], cscds=cscds)
    assert destination.data == source.data


@pytest.mark.parametrize("shift", [-3, -1, 0, 1, 3, 2000])
def test_copy_within_a_disk_onto_its_own_blocks(shift: int, lazy: bool) -> None:
    content = noise(7 * MIB)
    disk = FakeDisk(content, lazy=lazy, most=200)  # a shift of more than what is read ahead
    start, blocks = 3, 10000
    copy([disk], [BlockToBlock(0, 0, blocks, start, start + shift)])
    expected = bytearray(content)
    moved = content[start * 512 : (start + blocks) * 512]
    expected[(start + shift) * 512 : (start + shift + blocks) * 512] = moved
    assert disk.data == expected


def test_segments_that_read_what_earlier_ones_wrote(lazy: bool) -> None:
    disk, other = FakeDisk(noise(64 * 512), lazy=lazy), FakeDisk(bytes(64 * 512), lazy=lazy)
    original = bytes(disk.data)
    copy(
        [disk, other],
        [BlockToBlock(0, 0, 8, 0, 8), BlockToBlock(0, 0, 16, 0, 16), BlockToBlock(0, 1, 32, 0, 0)],
    )
    assert other.data[: 32 * 512] == original[: 8 * 512] * 4


def test_two_descriptors_of_one_disk_keep_its_order(lazy: bool) -> None:
    disk = FakeDisk(noise(64 * 512), lazy=lazy)
    original = bytes(disk.data)
    cscds = [cscd(0, disk), cscd(0, disk, pad=True)]
    copy(
        [disk],
        [BlockToBlock(0, 1, 8, 0, 8), BlockToBlock(1, 0, 16, 0, 16)],
        cscds=cscds,
    )
    assert disk.data[16 * 512 : 32 * 512] == original[: 8 * 512] * 2


def test_two_names_of_one_disk_are_one_disk(lazy: bool) -> None:
    disk = FakeDisk(noise(64 * 512), lazy=lazy)
    original = bytes(disk.data)

    class Alias(FakeDisk):
        """Another way to the same disk: another queue, the same blocks."""

    alias = Alias(b"", lazy=lazy)
    alias.data, alias.identity = disk.data, disk.identity
    copy(
        [disk, alias],
        [BlockToBlock(0, 1, 8, 0, 8), BlockToBlock(1, 0, 16, 0, 16), BlockToBlock(0, 1, 32, 0, 1)],
    )
    assert disk.data[512 : 33 * 512] == original[: 8 * 512] * 4
    assert sorted([disk.closed, alias.closed]) == [[False], [False]]


# ---------------------------------------------------------------------- order and memory


def test_disk_is_read_ahead_and_written_in_depth() -> None:
    source, destination = FakeDisk(noise(16 * MIB), lazy=True), FakeDisk(bytes(16 * MIB), lazy=True)
    copy([source, destination], [BlockToBlock(0, 1, 32768, 0, 0)])
    assert destination.data == source.data
    assert source.deepest >= 4
    assert destination.deepest >= 4


def test_tape_has_one_command_at_a_time() -> None:
    disk, tape = FakeDisk(noise(4 * MIB), lazy=True), FakeTape(lazy=True)
    copy([disk, tape], [BlockToStream(0, 1, 0x10000, 8192, 0)])
    copy([tape, disk], [Locate(0, 0), StreamToBlock(0, 1, 0x10000, 8192, 0)])
    assert tape.deepest == 1


def test_tape_is_not_read_before_earlier_segments_are_written() -> None:
    """SPC-4 6.4.5.4, seen in the order of commands at both devices."""
    events: list[str] = []

    class Noted:
        def __init__(self, device: FakeDevice, name: str) -> None:
            self.device, self.name = device, name
            self.identity, self.facts = name, None

        def submit(self, cdb, **data):
            pending, name = self.device.submit(cdb, **data), self.name
            events.append(f"{name} {cdb[0]:02x}")

            class Waited:
                def wait(self):
                    result = pending.wait()
                    events.append(f"{name} {cdb[0]:02x} done")
                    return result

            return Waited()

        def close(self, *, broken=False):
            pass

    tape = Noted(FakeTape([noise(512)] * 4, lazy=True), "tape")
    disk = Noted(FakeDisk(bytes(4096), lazy=True), "disk")
    cscds = [cscd(0, tape.device), cscd(1, disk.device)]
    segments = [StreamToBlock(0, 1, 512, 2, 0), StreamToBlock(0, 1, 512, 2, 2)]
    copy([tape, disk], segments, cscds=cscds)
    reads = [at for at, event in enumerate(events) if event == "tape 08"]
    writes_done = [at for at, event in enumerate(events) if event == "disk 8a done"]
    assert len(reads) == 4
    assert writes_done[0] < reads[2], events
    assert len(writes_done) == 2


def test_disk_is_read_ahead_across_segments() -> None:
    source, destination = FakeDisk(noise(64 * 512), lazy=True), FakeDisk(bytes(64 * 512), lazy=True)
    copy([source, destination], [BlockToBlock(0, 1, 8, n * 8, n * 8) for n in range(8)])
    assert destination.data == source.data
    assert source.deepest >= 4


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes of buffers were out after each that was taken."""
    levels: list[int] = [0]
    out = [0]
    take = buffers.BufferPool.take

    def counted(self: buffers.BufferPool, size: int) -> bytearray:
        out[0] += size
        levels.append(out[0])
        return take(self, size)

    def given(self: buffers.BufferPool, buffer: bytearray) -> None:
        out[0] -= len(buffer)

    monkeypatch.setattr(buffers.BufferPool, "take", counted)
    monkeypatch.setattr(buffers.BufferPool, "give", given)
    return levels


def test_memory_stays_within_its_bound_however_small_the_reads(held: list[int]) -> None:
    disk, tape = FakeDisk(noise(48 * MIB), lazy=True), FakeTape(lazy=True)
    # One block at a time first: each read pins no more than its own bytes.
    tiny = [BlockToStream(0, 1, 0x400000, 1, n, cat=True) for n in range(6000)]
    rest = 48 * 2048 - 6000
    bulk = [
        BlockToStream(0, 1, 0x400000, 8192, 6000 + n, cat=True) for n in range(0, rest - 8192, 8192)
    ]
    copy([disk, tape], [*tiny, *bulk], pads=[True, True])
    assert b"".join(tape.blocks) == disk.data[: len(tape.blocks) * 0x400000]
    assert len(tape.blocks) >= 10
    assert max(held) <= 18 * MIB


def test_copy_keeps_to_a_pool_smaller_than_its_depth(held: list[int]) -> None:
    source, destination = FakeDisk(noise(16 * MIB), lazy=True), FakeDisk(bytes(16 * MIB), lazy=True)
    manager = CopyManager(ModelFabric(source, destination), pool=buffers.BufferPool(3 * MIB))
    copy([source, destination], [BlockToBlock(0, 1, 32768, 0, 0)], manager=manager)
    assert destination.data == source.data
    assert max(held) == 3 * MIB


def test_small_pool_is_enough_for_the_longest_tape_transfer() -> None:
    disk, tape = FakeDisk(noise(48 * MIB)), FakeTape()
    manager = CopyManager(ModelFabric(disk, tape), pool=buffers.BufferPool(MIB))
    copy(
        [disk, tape],
        [BlockToStream(0, 1, 0xFFFE00, 65535, 0, cat=True)],
        manager=manager,
    )
    assert b"".join(tape.blocks) == disk.data[: 2 * 0xFFFE00]


# ---------------------------------------------------------------------- against the model


SHAPE = st.tuples(
    st.sampled_from(["00", "01", "02", "02dc", "04", "06", "10", "12"]),
    st.integers(0, 7),
    st.integers(0, 7),
    st.integers(0, 7),
    st.sampled_from([True, True, False]),
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    shapes=st.lists(SHAPE, min_size=1, max_size=9),
    blocks=st.tuples(*[st.sampled_from([512, 520, 1024])] * 2),
    unit=st.sampled_from([512, 700, 1500]),
    pads=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    most=st.sampled_from([0, 1, 2]),
    slab=st.sampled_from([1024, 4096, MIB]),
    is_lazy=st.booleans(),
)
def test_media_agree_with_the_model(shapes, blocks, unit, pads, most, slab, is_lazy) -> None:
    """Random lists over two disks and a tape of records; what is on them at the end is the same."""
    contents = [noise(blocks[0] * 60, 1), noise(blocks[1] * 60, 2)]
    records = [noise(unit, 3 + n) for n in range(9 * 14)]  # more than any list reads
    disks = [
        FakeDisk(content, length, most=most, lazy=is_lazy)
        for content, length in zip(contents, blocks, strict=True)
    ]
    tape, out = FakeTape(records, lazy=is_lazy), FakeTape(lazy=is_lazy)
    model_disks = [
        ModelDisk(content, length, pad)
        for content, length, pad in zip(contents, blocks, pads[:2], strict=True)
    ]
    model_tape, model_out = ModelTape(list(records), 0, pads[2]), ModelTape([], 0, pads[2])
    inline = noise(64, 9)
    segments: list[Segment] = []
    played: list[tuple] = []
    for kind, first, second, count, cat in shapes:
        match kind:
            case "00":
                segments.append(BlockToStream(0, 3, unit, count, first * 4, cat))
                played.append(("00", model_disks[0], first * 4, count, model_out, unit, cat))
            case "01":
                segments.append(StreamToBlock(2, 1, unit, count, second * 4, cat))
                played.append(("01", model_tape, unit, model_disks[1], second * 4, count, cat))
            case "02" | "02dc":
                dc = kind == "02dc"
                segments.append(BlockToBlock(0, 1, count, first * 4, second * 4, cat, dc))
                played.append(
                    ("02", model_disks[0], first * 4, count, model_disks[1], second * 4, cat, dc)
                )
            case "04":
                size = count * 5
                segments.append(InlineToStream(3, unit, first * 4, size, cat))
                data = inline[first * 4 : first * 4 + size]
                played.append(("04", data, model_out, unit, cat))
            case "06":
                segments.append(StreamToDiscard(2, unit, count * 99, cat))
                played.append(("06", model_tape, unit, count * 99, cat))
            case "10":
                segments.append(WriteFilemarks(3, count % 3))
                played.append(("10", model_out, count % 3))
            case "12":
                segments.append(Locate(2, first))
                played.append(("12", model_tape, first))
    model, failed = CopyModel(), None
    for number, segment in enumerate(played):
        try:
            model.play(segment, last=number == len(played) - 1)
        except Inexact:
            failed = number
            break
    cscds = [
        cscd(0, disks[0], pad=pads[0]),
        cscd(1, disks[1], pad=pads[1]),
        cscd(2, tape, pad=pads[2]),
        cscd(3, out, pad=pads[2]),
    ]
    patch = pytest.MonkeyPatch()
    patch.setattr(buffers, "SLAB", slab)
    try:
        if failed is None:
            copy([*disks, tape, out], segments, cscds=cscds, inline=inline)
        else:
            sense = aborted_sense([*disks, tape, out], segments, cscds=cscds, inline=inline)
            assert (sense.code, sense.segment) == (0x260A, failed)
    finally:
        patch.undo()
    assert disks[0].data == contents[0]
    assert disks[1].data == model_disks[1].content
    assert out.blocks == model_out.records
    assert tape.position == model_tape.at


# ---------------------------------------------------------------------- faults during a segment

MEDIUM_ERROR = sense_bytes(3, 0x1100, information=7)


def forwarded(raw: bytes) -> bytes:
    return bytes([0x02]) + raw


def test_source_error_tells_its_own_sense_and_what_is_left() -> None:
    source, destination = FakeDisk(noise(4 * MIB)), FakeDisk(bytes(4 * MIB), 4096)
    source.fail(READ_16, 2, check_condition(MEDIUM_ERROR))
    sense = aborted_sense(
        [source, destination],
        [BlockToBlock(0, 1, 1, 0, 0, cat=True), BlockToBlock(0, 1, 8191, 1, 0)],
    )
    # Read 0 is the first segment's block, read 1 the first MiB of the second, read 2 fails.
    assert (sense.code, sense.segment) == (0x0D01, 1)
    assert sense.source == forwarded(MEDIUM_ERROR)
    assert sense.destination == b""
    assert sense.pointer == ("list", 16)
    assert sense.residual == 1024 - 256  # blocks of 4096: one MiB of four is there
    assert destination.data[:MIB] == source.data[:MIB]
    assert not any(destination.data[MIB:])


def test_source_error_before_anything_is_written_has_no_residual() -> None:
    source, tape = FakeDisk(noise(4096)), FakeTape()
    source.fail(READ_16, 0, check_condition(MEDIUM_ERROR))
    sense = aborted_sense([source, tape], [BlockToStream(0, 1, 1024, 8, 0)])
    assert (sense.code, sense.residual, sense.segment) == (0x0D01, None, 0)


def test_destination_error_points_at_its_descriptor() -> None:
    source, destination = FakeDisk(noise(4 * MIB)), FakeDisk(bytes(4 * MIB))
    failure = sense_bytes(3, 0x0C00)
    destination.fail(WRITE_16, 1, check_condition(failure))
    sense = aborted_sense([source, destination], [BlockToBlock(0, 1, 8192, 0, 0)])
    assert (sense.code, sense.segment) == (0x0D01, 0)
    assert sense.destination == forwarded(failure)
    assert sense.source == b""
    assert sense.pointer == ("list", 16 + 32)
    assert sense.residual == 8192 - 2048


def test_error_of_an_earlier_segment_is_told_though_a_later_one_is_under_way(lazy: bool) -> None:
    source, destination = FakeDisk(noise(64 * 512), lazy=lazy), FakeDisk(bytes(64 * 512), lazy=lazy)
    destination.fail(WRITE_16, 1, check_condition(sense_bytes(3, 0x0C00)))
    segments = [BlockToBlock(0, 1, 8, n * 8, n * 8) for n in range(8)]
    sense = aborted_sense([source, destination], segments)
    assert (sense.segment, sense.residual) == (1, None)


@pytest.mark.parametrize(("block_length", "transfer", "left"), [(0, 1024, 3072), (512, 2, 6)])
def test_residual_of_a_tape_is_bytes_or_with_fixed_blocks(
    block_length: int, transfer: int, left: int
) -> None:
    disk, tape = FakeDisk(noise(4096)), FakeTape(block_length=block_length)
    tape.fail(WRITE_6, 1, check_condition(sense_bytes(3, 0x0C00)))
    sense = aborted_sense([disk, tape], [BlockToStream(0, 1, transfer, 8, 0)])
    assert (sense.code, sense.residual) == (0x0D01, left)


@pytest.mark.parametrize("block_length", [0, 1024])
def test_early_warning_ends_the_copy_with_its_block_counted(block_length: int) -> None:
    disk, tape = FakeDisk(noise(8192)), FakeTape(block_length=block_length, early_warning=3000)
    transfer = 1 if block_length else 1024
    sense = aborted_sense([disk, tape], [BlockToStream(0, 1, transfer, 16, 0)])
    assert sense.code == 0x0D01
    assert len(tape.blocks) == 3
    assert sense.residual == (5 if block_length else 5 * 1024)
    assert sense.destination == forwarded(sense_bytes(0, 0x0002, eom=True, information=0))


def test_end_of_medium_counts_only_what_the_drive_says_is_written() -> None:
    disk, tape = FakeDisk(noise(8192)), FakeTape(block_length=512, capacity=512 * 5)
    sense = aborted_sense([disk, tape], [BlockToStream(0, 1, 2, 16, 0)])
    # Two transfers of two blocks, then one of which one block is written.
    assert len(tape.blocks) == 5
    assert sense.residual == 16 - 5


def test_end_of_medium_with_nothing_written_has_no_residual() -> None:
    disk, tape = FakeDisk(noise(8192)), FakeTape(capacity=100)
    sense = aborted_sense([disk, tape], [BlockToStream(0, 1, 1024, 16, 0)])
    assert (sense.code, sense.residual) == (0x0D01, None)


def test_filemark_in_the_way(lazy: bool) -> None:
    tape = FakeTape([noise(512)] * 3 + [FILEMARK] + [noise(512)] * 9, lazy=lazy)
    disk = FakeDisk(bytes(8192), lazy=lazy)
    sense = aborted_sense([tape, disk], [StreamToBlock(0, 1, 512, 8, 0)])
    assert sense.code == 0x0D01
    assert sense.source == forwarded(sense_bytes(0, 0x0001, filemark=True, information=512))
    assert tape.position == 4, "no read follows the one that failed"
    assert sense.residual is None, "the blocks before it wait for a whole piece"


def test_short_tape_block() -> None:
    tape = FakeTape([noise(1024), noise(1000), noise(1024)])
    sense = aborted_sense([tape, FakeDisk(bytes(8192))], [StreamToBlock(0, 1, 1024, 6, 0)])
    assert sense.code == 0x0D01
    assert sense.source == forwarded(sense_bytes(0, 0, ili=True, information=24))
    assert tape.position == 2


def test_end_of_data_while_discarding() -> None:
    sense = aborted_sense([FakeTape([noise(512)])], [StreamToDiscard(0, 512, 1000)])
    assert (sense.code, sense.residual) == (0x0D01, None)
    assert sense.source == forwarded(sense_bytes(8, 0x0005, information=512))


@pytest.mark.parametrize(
    ("opcode", "segment"), [(WRITE_FILEMARKS_6, WriteFilemarks(0)), (LOCATE_10, Locate(0, 3))]
)
def test_tape_function_that_fails_has_no_residual(opcode: int, segment: Segment) -> None:
    tape = FakeTape()
    tape.fail(opcode, 0, check_condition(MEDIUM_ERROR))
    sense = aborted_sense([tape], [segment])
    assert (sense.code, sense.residual, sense.destination) == (
        0x0D01,
        None,
        forwarded(MEDIUM_ERROR),
    )


def test_data_underrun_with_good_status() -> None:
    source, destination = FakeDisk(noise(4096)), FakeDisk(bytes(4096))
    source.fail(READ_16, 0, Result(Status.GOOD, transferred=4095))
    sense = aborted_sense([source, destination], [BlockToBlock(0, 1, 8, 0, 0)])
    assert (sense.code, sense.pointer) == (0x0D04, ("list", 16))


def test_busy_and_task_set_full_are_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    source, destination = FakeDisk(noise(4096)), FakeDisk(bytes(4096))
    for nth in range(3):
        source.fail(READ_16, nth, Result(Status.BUSY))
        destination.fail(WRITE_16, nth, Result(Status.TASK_SET_FULL))
    copy([source, destination], [BlockToBlock(0, 1, 8, 0, 0)])
    assert destination.data == source.data


def test_busy_for_ever_is_a_failure_with_the_status_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    source, destination = FakeDisk(noise(4096)), FakeDisk(bytes(4096))
    for nth in range(100):
        source.fail(READ_16, nth, Result(Status.BUSY))
    sense = aborted_sense([source, destination], [BlockToBlock(0, 1, 8, 0, 0)])
    assert (sense.code, sense.source) == (0x0D01, b"\x08")
    assert 1 < sum(slept) < 15


def test_reservation_conflict_is_a_failure_with_the_status_alone() -> None:
    source, destination = FakeDisk(noise(4096)), FakeDisk(bytes(4096))
    destination.fail(WRITE_16, 0, Result(Status.RESERVATION_CONFLICT))
    sense = aborted_sense([source, destination], [BlockToBlock(0, 1, 8, 0, 0)])
    assert (sense.code, sense.destination) == (0x0D01, b"\x18")


def test_lost_carrier_is_a_failure_without_sense_and_breaks_the_unit() -> None:
    source, destination = FakeDisk(noise(4096)), FakeDisk(bytes(4096))
    source.fail(READ_16, 0, CarrierLost())
    sense = aborted_sense([source, destination], [BlockToBlock(0, 1, 8, 0, 0)])
    assert (sense.code, sense.source, sense.pointer) == (0x0D01, b"", ("list", 16))
    assert (source.closed, destination.closed) == ([True], [False])


@pytest.mark.parametrize("steps", [0, 3, 8])
def test_abort_ends_the_copy_between_steps(steps: int, lazy: bool) -> None:
    source, destination = FakeDisk(noise(8 * MIB), lazy=lazy), FakeDisk(bytes(8 * MIB), lazy=lazy)
    asked: Iterator[int] = itertools.count()
    sense = aborted_sense(
        [source, destination],
        [BlockToBlock(0, 1, 16384, 0, 0)],
        aborted=lambda: next(asked) > steps,
    )
    assert (sense.code, sense.segment) == (0x2F02, 0)
    assert not source._queue
    assert not destination._queue
    assert source.closed == destination.closed == [False]


# ---------------------------------------------------------------------- faults before a segment


def test_missing_descriptor_is_unreachable() -> None:
    disk = FakeDisk(noise(4096))
    sense = aborted_sense([disk], [BlockToBlock(0, 0, 1, 0, 4), BlockToBlock(0, 1, 1, 0, 4)])
    assert (sense.code, sense.segment, sense.pointer) == (0x0804, 1, ("segment", 6))
    sense = aborted_sense([disk], [BlockToBlock(0xC000, 0, 1, 0, 4)])
    assert (sense.code, sense.segment, sense.pointer) == (0x0804, 0, ("segment", 4))


def test_unknown_unit_is_not_reachable() -> None:
    disk = FakeDisk(noise(4096))
    cscds = [cscd(0, disk), cscd(9, disk)]
    sense = aborted_sense([disk], [BlockToBlock(0, 1, 1, 0, 4)], cscds=cscds)
    assert (sense.code, sense.pointer) == (0x0D02, ("list", 48))
    assert not [one for one in disk.log if one[0] in (READ_16, WRITE_16)]


def test_unit_that_does_not_answer_inquiry_is_not_reachable() -> None:
    source, destination = FakeDisk(noise(4096)), FakeDisk(bytes(4096))
    destination.fail(INQUIRY, 0, CarrierLost())
    sense = aborted_sense([source, destination], [BlockToBlock(0, 1, 1, 0, 4)])
    assert (sense.code, sense.pointer) == (0x0D02, ("list", 48))
    assert destination.closed == [True]


def test_unit_that_is_not_there_any_more_is_not_reachable() -> None:
    source, destination = FakeDisk(noise(4096)), FakeDisk(bytes(4096))
    destination.qualifier = 3
    assert aborted_sense([source, destination], [BlockToBlock(0, 1, 1, 0, 4)]).code == 0x0D02


def test_tape_that_is_said_to_be_a_disk() -> None:
    disk, tape = FakeDisk(noise(4096)), FakeTape()
    cscds = [cscd(0, disk), IdentificationCscd(named(1), BlockParameters(512), 0)]
    sense = aborted_sense([disk, tape], [BlockToBlock(0, 1, 1, 0, 0)], cscds=cscds)
    assert (sense.code, sense.pointer) == (0x0D03, ("list", 48))
    assert tape.blocks == []
    assert not [one for one in disk.log if one[0] == READ_16]


@pytest.mark.parametrize(
    ("segment", "byte"),
    [
        (BlockToBlock(0, 1, 1, 0, 0), 6),
        (BlockToStream(0, 0, 512, 1, 0), 6),
        (BlockToStream(1, 1, 512, 1, 0), 4),
        (StreamToBlock(0, 0, 512, 1, 0), 4),
        (StreamToDiscard(0, 512, 1), 4),
        (InlineToStream(0, 512, 0, 0), 6),
        (WriteFilemarks(0), 6),
        (Locate(0, 0), 6),
    ],
)
def test_descriptor_of_the_wrong_kind_for_the_segment(segment: Segment, byte: int) -> None:
    sense = aborted_sense([FakeDisk(noise(4096)), FakeTape()], [segment])
    assert (sense.code, sense.pointer) == (0x260C, ("segment", byte))


def test_processor_cannot_be_copied_from() -> None:
    disk, processor = FakeDisk(noise(4096)), FakeTape()
    processor.device_type = 3
    cscds = [cscd(0, disk), IdentificationCscd(named(1), ProcessorParameters(), 3)]
    sense = aborted_sense([disk, processor], [BlockToStream(0, 1, 512, 1, 0)], cscds=cscds)
    assert (sense.code, sense.pointer) == (0x260C, ("segment", 6))


def test_block_length_that_is_not_the_units() -> None:
    disk, tape = FakeDisk(noise(8192), 4096), FakeTape(block_length=512)
    cscds = [cscd(0, disk, block_length=512), cscd(1, tape)]
    sense = aborted_sense([disk, tape], [BlockToStream(0, 1, 1, 1, 0)], cscds=cscds)
    assert (sense.code, sense.pointer) == (0x2600, ("list", 16 + 29))
    cscds = [cscd(0, disk), cscd(1, tape, block_length=1024)]
    sense = aborted_sense([disk, tape], [BlockToStream(0, 1, 1, 1, 0)], cscds=cscds)
    assert (sense.code, sense.pointer) == (0x2600, ("list", 48 + 29))
    assert tape.blocks == []


@pytest.mark.parametrize(
    ("segment", "byte"),
    [
        (BlockToBlock(0, 1, 2, 7, 0), 12),
        (BlockToBlock(0, 1, 2, 0, 7), 20),
        (BlockToBlock(0, 1, 1, 1 << 63, 0), 12),
    ],
)
def test_segment_beyond_the_end_of_a_disk_moves_nothing(segment: Segment, byte: int) -> None:
    source, destination = FakeDisk(noise(4096)), FakeDisk(bytes(4096))
    sense = aborted_sense([source, destination], [segment])
    assert (sense.code, sense.pointer) == (0x0000, ("segment", byte))
    assert not [one for one in (*source.log, *destination.log) if one[0] in (READ_16, WRITE_16)]


def test_inline_data_that_is_not_there() -> None:
    sense = aborted_sense([FakeTape()], [InlineToStream(0, 512, 8, 9)], inline=bytes(16))
    assert (sense.code, sense.pointer) == (0x260B, ("segment", 12))


def test_tape_transfer_beyond_what_the_manager_does() -> None:
    tape = FakeTape(block_length=4096)
    sense = aborted_sense([tape], [StreamToDiscard(0, 4096, 1)])
    assert (sense.code, sense.pointer) == (0x2600, ("segment", 9))


def test_earlier_segments_are_done_when_a_later_one_is_refused(lazy: bool) -> None:
    source, destination = FakeDisk(noise(4096), lazy=lazy), FakeDisk(bytes(4096), lazy=lazy)
    segments = [BlockToBlock(0, 1, 4, 0, 0), BlockToBlock(0, 7, 4, 4, 4)]
    sense = aborted_sense([source, destination], segments)
    assert (sense.code, sense.segment, sense.residual) == (0x0804, 1, None)
    assert destination.data == source.data[:2048] + bytes(2048)


def test_unexpected_inexact_segment_comes_after_what_was_written() -> None:
    disk, tape = FakeDisk(noise(4096)), FakeTape()
    sense = aborted_sense([disk, tape], [BlockToStream(0, 1, 1000, 8, 0)])
    assert (sense.code, sense.segment, sense.residual) == (0x260A, 0, 0)
    assert b"".join(tape.blocks) == disk.data[:4000]


# ---------------------------------------------------------------------- first contact


def test_unit_attentions_are_heard_before_the_first_read_or_write() -> None:
    disk, tape = FakeDisk(noise(4096)), FakeTape()
    disk.attentions, tape.attentions = 3, 2
    copy([disk, tape], [BlockToStream(0, 1, 1024, 8, 0)])
    assert b"".join(tape.blocks) == disk.data


def test_unit_that_is_not_ready() -> None:
    no_medium = sense_bytes(2, 0x3A00)
    disk, tape = FakeDisk(noise(4096)), FakeTape()
    tape.fail(TEST_UNIT_READY, 0, check_condition(no_medium))
    sense = aborted_sense([disk, tape], [BlockToStream(0, 1, 1024, 8, 0)])
    assert (sense.code, sense.destination) == (0x0D01, forwarded(no_medium))


def test_attentions_without_end_are_a_failure() -> None:
    disk, tape = FakeDisk(noise(4096)), FakeTape()
    disk.attentions = 1000
    sense = aborted_sense([disk, tape], [BlockToStream(0, 1, 1024, 8, 0)])
    assert sense.code == 0x0D01
    assert sense.source[:1] == b"\x02"


def test_units_that_are_known_are_not_asked_again_until_something_changes() -> None:
    source, destination = FakeDisk(noise(4096)), FakeDisk(bytes(4096))
    copy([source, destination], [BlockToBlock(0, 1, 1, 0, 0)])
    source.log.clear()
    copy([source, destination], [BlockToBlock(0, 1, 1, 0, 0)])
    assert [one[0] for one in source.log] == [TEST_UNIT_READY, READ_16]
    source.log.clear()
    source.attentions = 1
    copy([source, destination], [BlockToBlock(0, 1, 1, 0, 0)])
    asked = [one[0] for one in source.log]
    assert INQUIRY in asked
    assert READ_CAPACITY_16 in asked


def test_disk_without_the_long_read_capacity() -> None:
    class OldDisk(FakeDisk):
        def command(self, cdb, out, into):
            if cdb[0] == 0x25:
                last = len(self.data) // self.block_length - 1
                into[:8] = last.to_bytes(4, "big") + self.block_length.to_bytes(4, "big")
                return Result(Status.GOOD, transferred=8)
            if cdb[0] == READ_CAPACITY_16:
                return check_condition(sense_bytes(5, 0x2000))
            return super().command(cdb, out, into)

    source, destination = OldDisk(noise(4096)), FakeDisk(bytes(4096))
    copy([source, destination], [BlockToBlock(0, 1, 8, 0, 0)])
    assert destination.data == source.data


def test_commands_keep_to_what_the_disk_takes_at_once() -> None:
    source, destination = FakeDisk(noise(4 * MIB), most=100), FakeDisk(bytes(4 * MIB), most=64)
    copy([source, destination], [BlockToBlock(0, 1, 8192, 0, 0)])
    assert destination.data == source.data


def test_this_unit_needs_no_descriptor() -> None:
    disk, other = FakeDisk(noise(4096)), FakeDisk(bytes(4096))
    manager = CopyManager(ModelFabric(disk, other), own_unit=named(0))
    cscds = [cscd(1, other)]
    copy([disk, other], [BlockToBlock(THIS_UNIT, 0, 8, 0, 0)], cscds=cscds, manager=manager)
    assert other.data == disk.data


def test_error_is_a_check_condition_of_the_common_family() -> None:
    assert issubclass(CopyAborted, CheckCondition)


# ---------------------------------------------------------------------- whatever is sent


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    is_lazy=st.booleans(),
)
def test_any_list_ends_well_or_with_sense_and_leaves_nothing_under_way(changes, is_lazy) -> None:
    disk, other = FakeDisk(noise(64 * 512), lazy=is_lazy), FakeDisk(bytes(32768), lazy=is_lazy)
    tape = FakeTape(lazy=is_lazy)
    devices = [disk, other, tape]
    segments = [
        BlockToStream(0, 2, 1024, 3, 1, cat=True),
        InlineToStream(2, 1024, 4, 9),
        WriteFilemarks(2),
        Locate(2, 0),
        StreamToDiscard(2, 1024, 100, cat=True),
        StreamToBlock(2, 1, 1024, 2, 0),
        BlockToBlock(0, 1, 9, 5, 9, cat=True),
    ]
    cscds = [cscd(number, device, pad=True) for number, device in enumerate(devices)]
    data = bytearray(CopyList(cscds, segments, bytes(16)).pack())
    for at, value in changes:
        if at < len(data):
            data[at] = value
    manager = CopyManager(ModelFabric(*devices))
    with contextlib.suppress(CheckCondition):
        manager.extended_copy(NEXUS, data, lambda: False)
    assert not any(device._queue for device in devices)
    assert not any(any(device.closed) for device in devices), "none of them was broken"
