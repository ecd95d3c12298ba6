"""Copies over model disks and tapes: what ends up where, in what order, in how much memory."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serverfree.datamover import buffers
from serverfree.datamover.manager import CopyManager
from serverfree.scsi.copy_segments import (
    BlockImage,
    BlockRangeToBlockRange,
    BlockRangeToStream,
    BlockToBlock,
    BlockToStream,
    EmbeddedToStream,
    InlineToStream,
    Locate,
    Segment,
    StreamToBlock,
    StreamToBlockRange,
    StreamToDiscard,
    StreamToStream,
    WriteFilemarks,
)
from support.copies import (
    MIB,
    ModelFabric,
    aborted_sense,
    copy,
    cscd,
    noise,
)
from support.copy_model import CopyModel, Inexact, ModelDisk, ModelTape
from support.fake_devices import (
    FILEMARK,
    FakeDevice,
    FakeDisk,
    FakeTape,
)

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


def test_tape_without_aca_has_one_command_at_a_time() -> None:
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
                def wait(self, timeout=None):
                    result = pending.wait(timeout)
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
    extents = range(56, -8, -8)  # from the last to the first: none goes on where another ends
    copy([source, destination], [BlockToBlock(0, 1, 8, lba, lba) for lba in extents])
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
    st.sampled_from(
        ["00", "01", "02", "02dc", "03", "04", "05", "06", "08", "09", "0a", "0a self", "10", "12"]
    )
    | st.sampled_from(["16", "16 self"]),
    st.integers(0, 7),
    st.integers(0, 7),
    st.integers(0, 7),
    st.sampled_from([True, True, False]),
)


def kinds_self(segment: Segment) -> bool:
    return isinstance(segment, BlockRangeToBlockRange) and segment.source == segment.destination


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
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
    if any(shape[0].startswith("16") for shape in shapes):
        blocks = blocks[0], blocks[0]
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
            case "03":
                segments.append(StreamToStream(2, 3, unit, unit + 100, count * 301, cat))
                played.append(("03", model_tape, unit, model_out, unit + 100, count * 301, cat))
            case "05":
                segments.append(EmbeddedToStream(3, unit, inline[: count * 5], cat))
                played.append(("04", inline[: count * 5], model_out, unit, cat))
            case "08":
                size, at = count * 301, first * 173
                lba, offset = divmod(blocks[0] * 3 + at, blocks[0])
                segments.append(BlockRangeToStream(0, 3, unit, size, lba, offset, cat))
                at = lba * blocks[0] + offset
                played.append(("08", model_disks[0], at, size, model_out, unit, cat))
            case "09":
                size = count * 301
                lba, offset = divmod(blocks[1] * 2 + second * 173, blocks[1])
                segments.append(StreamToBlockRange(2, 1, unit, size, lba, offset, cat))
                at = lba * blocks[1] + offset
                played.append(("09", model_tape, unit, model_disks[1], at, size, cat))
            case "0a" | "0a self":
                number = 1 if kind == "0a self" else 0
                size = count * 401
                lba, offset = divmod(first * 331, blocks[number])
                to, to_offset = divmod(second * 257, blocks[1])
                segments.append(
                    BlockRangeToBlockRange(number, 1, size, lba, to, offset, to_offset, cat)
                )
                at = lba * blocks[number] + offset, to * blocks[1] + to_offset
                played.append(("0a", model_disks[number], at[0], size, model_disks[1], at[1], cat))
            case "16" | "16 self":
                number = 1 if kind == "16 self" else 0
                segments.append(BlockImage(number, 1, first * 4, 52 + second, count))
                played.append(
                    ("16", model_disks[number], first * 4, count, model_disks[1], 52 + second)
                )
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
        carried = model.source_data or model.destination_data
        if segments[number] and kinds_self(segments[number]) and carried:
            return  # with residue in front there is no way to move blocks upwards in place
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
