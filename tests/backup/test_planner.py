"""Plans are played by a model of EXTENDED COPY: the tape has the pieces, the disk what was wanted,
and no command asks for more than the copy manager takes."""

import hashlib
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.backup.pieces import FromDisk, Inline, ToDisk
from serverfree.backup.planner import plan_backup, plan_restore, plan_verify
from serverfree.initiator.copy_plan import USUAL_LIMITS, Endpoint, PlanError
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_segments import (
    BlockRangeToStream,
    BlockToStream,
    DigestOfDestination,
    InlineToStream,
    Locate,
    StreamToBlock,
    StreamToBlockRange,
    StreamToDiscard,
    WriteFilemarks,
)
from serverfree.scsi.designator import Designator, DesignatorType
from serverfree.scsi.inquiry import DeviceType
from support.plan_model import PlanModel

TAPE = Endpoint(Designator(DesignatorType.NAA, bytes(range(8))), DeviceType.TAPE)
ALL_TYPES = tuple(sorted({*USUAL_LIMITS.descriptor_types, 0x08, 0x09, 0xC0, 0xC1}))
LIMITS = replace(USUAL_LIMITS, descriptor_types=ALL_TYPES, held_data_limit=1 << 16)
DISK_SIZE = 1 << 18


def disk_of(block: int, size: int = DISK_SIZE) -> Endpoint:
    name = Designator(DesignatorType.NAA, bytes(range(8, 16)))
    return Endpoint(name, DeviceType.DISK, size // block, block)


def noise(size: int) -> bytearray:
    return bytearray(hashlib.shake_128(b"disk").digest(size))


NOISE = noise(DISK_SIZE)


def content_of(pieces) -> bytes:
    return b"".join(
        piece.data
        if isinstance(piece, Inline)
        else bytes(NOISE[piece.offset : piece.offset + piece.length])
        for piece in pieces
    )


def obeys(copy: CopyList, limits) -> None:
    """The list is within the limits: the copy manager's own parser is asked, and the counts."""
    assert len(copy.segments) <= limits.maximum_segment_count
    assert len(copy.inline) <= limits.maximum_inline_data_length
    CopyList.unpack(copy.pack(), limits)
    if limits.maximum_segment_length:
        unit = max(getattr(each, "stream_transfer_length", 0) for each in copy.segments)
        for each in copy.segments:
            size = getattr(each, "number_of_bytes", 0)
            if isinstance(each, BlockToStream | StreamToBlock):
                size = each.number_of_blocks * copy.cscds[0].parameters.block_length
            if isinstance(each, BlockToStream | BlockRangeToStream | InlineToStream):
                size += unit - 1
            if not isinstance(each, StreamToDiscard):
                assert size <= limits.maximum_segment_length


@st.composite
def archives(draw, block: int):
    """Pieces as an archive has them: inline to any byte, disk data from whole blocks, padded."""
    pieces = []
    for _ in range(draw(st.integers(1, 25))):
        if draw(st.booleans()):
            size = draw(st.one_of(st.integers(1, 3000), st.sampled_from([512, 1024, 8192])))
            pieces.append(Inline(draw(st.binary(min_size=1, max_size=8)).ljust(size, b"i")))
        else:
            blocks = draw(st.integers(0, DISK_SIZE // block - 1))
            most = min(DISK_SIZE - blocks * block, 40_000)
            pieces.append(FromDisk(blocks * block, draw(st.integers(1, most))))
    return pieces


limits_of_managers = st.builds(
    replace,
    st.just(LIMITS),
    maximum_segment_count=st.sampled_from([24, 40, 100, 16384]),
    maximum_descriptor_list_length=st.sampled_from([1 << 12, 4 << 20]),
    maximum_inline_data_length=st.sampled_from([9000, 20_000, 1 << 20]),
    maximum_segment_length=st.sampled_from([0, 0, 20_000, 100_000]),
)
blocks_of_disks = st.sampled_from([512, 4096])


class TestBackup:
    @settings(max_examples=60, deadline=None)
    @given(st.data(), blocks_of_disks, st.sampled_from([512, 2048, 5000, 8192]), limits_of_managers)
    def test_the_tape_has_the_pieces_one_behind_the_other(self, data, block, unit, limits):
        pieces = data.draw(archives(block))
        size = data.draw(st.sampled_from([1, 30_000, 1 << 20]))
        content = content_of(pieces)
        model = PlanModel(bytearray(NOISE), block)
        done = 0
        for command in plan_backup(pieces, disk_of(block), TAPE, limits, unit, size, digests=True):
            obeys(command.copy, limits)
            before = model.at
            model.run(command.copy)
            assert command.archive_offset == done
            part = content[done : done + command.length]
            assert model.held == [hashlib.sha256(part).digest()]
            assert command.moved + command.inline == command.length
            assert command.length <= max(size, unit)
            done += command.length
            if not command.last:
                assert (model.at - before) * unit == command.length
        assert command.last
        assert done == len(content)
        assert model.tape[-1] is None
        assert None not in model.tape[:-1]
        assert b"".join(model.tape[:-1]) == content.ljust(-(-len(content) // unit) * unit, b"\0")

    def test_what_lies_together_is_one_segment(self):
        pieces = [FromDisk(at, 512) for at in range(0, 8192, 512)] + [Inline(b"a"), Inline(b"b")]
        (command,) = plan_backup(pieces, disk_of(512), TAPE, LIMITS, 4096)
        assert command.copy.segments == [
            BlockToStream(0, 1, 4096, 16, 0, cat=True),
            InlineToStream(1, 4096, 0, 2, cat=False),
            WriteFilemarks(1),
        ]
        assert bytes(command.copy.inline) == b"ab\0\0"

    def test_a_cut_inside_a_4096_byte_block_makes_two_ranges(self):
        pieces = [Inline(bytes(512)), FromDisk(8192, 8192)]
        first, *_ = commands = list(plan_backup(pieces, disk_of(4096), TAPE, LIMITS, 4096, 4096))
        assert first.copy.segments[-1] == BlockRangeToStream(0, 1, 4096, 3584, 2, 0, cat=False)
        assert commands[1].copy.segments == [
            BlockRangeToStream(0, 1, 4096, 4096, 2, 3584, cat=False)
        ]

    def test_only_the_last_command_pads_and_it_ends_with_a_filemark(self):
        pieces = [FromDisk(0, 100_000)]
        commands = list(plan_backup(pieces, disk_of(512), TAPE, LIMITS, 8192, 50_000))
        assert [command.last for command in commands] == [False, False, True]
        for command in commands:
            disk, tape = command.copy.cscds
            assert (disk.parameters.pad, tape.parameters.pad) == (False, command.last)
            marks = [each for each in command.copy.segments if isinstance(each, WriteFilemarks)]
            assert len(marks) == command.last
            moving = [each for each in command.copy.segments if hasattr(each, "cat")]
            assert [each.cat for each in moving] == [True] * (len(moving) - 1) + [False]

    def test_a_digest_closes_a_command_before_its_filemark(self):
        (command,) = plan_backup([Inline(b"x")], disk_of(512), TAPE, LIMITS, 512, digests=True)
        assert command.copy.segments[-2:] == [DigestOfDestination(1), WriteFilemarks(1)]

    def test_what_more_follows_after_whole_tape_blocks_and_no_padding(self):
        first = plan_backup([Inline(bytes(8192))], disk_of(512), TAPE, LIMITS, 4096, 4096,
                            digests=True, more=True)  # fmt: skip
        rest = plan_backup([Inline(b"x")], disk_of(512), TAPE, LIMITS, 4096, begin=8192)
        *before, last = commands = [*first, *rest]
        assert [command.archive_offset for command in commands] == [0, 4096, 8192]
        for command in before:
            _, tape = command.copy.cscds
            assert (tape.parameters.pad, command.last) == (False, False)
            assert isinstance(command.copy.segments[-1], DigestOfDestination)
        assert last.last

    def test_what_more_follows_after_part_of_a_tape_block_is_refused(self):
        plan = plan_backup([Inline(bytes(5000))], disk_of(512), TAPE, LIMITS, 4096, more=True)
        with pytest.raises(PlanError, match="does not end with a tape block"):
            list(plan)

    def test_inline_data_that_runs_out_ends_a_command_where_the_last_tape_block_ended(self):
        limits = replace(LIMITS, maximum_inline_data_length=10_000)
        pieces = [Inline(bytes([number]) * 3000) for number in range(8)]
        commands = list(plan_backup(pieces, disk_of(512), TAPE, limits, 4096))
        assert [command.length for command in commands] == [8192, 8192, 7616]

    def test_inline_data_shorter_than_a_tape_block_is_refused_in_words(self):
        limits = replace(LIMITS, maximum_inline_data_length=1000)
        plan = plan_backup([Inline(bytes(5000))], disk_of(512), TAPE, limits, 4096)
        with pytest.raises(PlanError, match="take smaller tape blocks"):
            list(plan)

    def test_what_the_manager_does_not_know_is_named(self):
        limits = replace(LIMITS, descriptor_types=(0x00, 0x04, 0x10, 0xE4))
        with pytest.raises(PlanError, match="08h"):
            list(plan_backup([FromDisk(0, 700)], disk_of(512), TAPE, limits, 4096))
        with pytest.raises(PlanError, match="C1h"):
            plan_backup([], disk_of(512), TAPE, limits, 4096, digests=True)

    def test_bytes_beyond_the_disk_are_refused(self):
        with pytest.raises(PlanError, match="beyond the disk"):
            list(plan_backup([FromDisk(DISK_SIZE, 1)], disk_of(512), TAPE, LIMITS, 4096))

    def test_it_takes_pieces_only_as_it_needs_them(self):
        taken = 0

        def endless():
            nonlocal taken
            while True:
                taken += 1
                yield Inline(bytes(512))

        next(plan_backup(endless(), disk_of(512), TAPE, LIMITS, 4096, 64 << 10))
        assert taken <= 129


def archive_on_tape(content: bytes, unit: int, before: int) -> list[bytes | None]:
    """Blocks of something else, then the archive, then a filemark."""
    padded = content.ljust(-(-len(content) // unit) * unit, b"\0")
    blocks = [padded[at : at + unit] for at in range(0, len(padded), unit)]
    return [b"other"] * before + blocks + [None]


@st.composite
def wishes(draw, size: int, block: int):
    """Pieces of an archive that go to places of their own, which do not overlap."""
    cuts = sorted(draw(st.sets(st.integers(0, DISK_SIZE // block), min_size=2, max_size=24)))
    places = list(pairwise(cuts))[::2]
    at, wanted = 0, []
    for start, end in draw(st.permutations(places)):
        at += draw(st.one_of(st.just(0), st.integers(0, 3000), st.integers(0, 30_000)))
        length = min((end - start) * block, size - at)
        if length <= 0:
            break
        length = draw(st.one_of(st.just(length), st.integers(1, length)))
        wanted.append(ToDisk(at, length, start * block))
        at += length
    return wanted


class TestRestore:
    CONTENT = hashlib.shake_128(b"archive").digest(400_000)

    @settings(max_examples=60, deadline=None)
    @given(
        st.data(),
        blocks_of_disks,
        st.sampled_from([512, 5000, 8192]),
        limits_of_managers,
        st.sampled_from([0, 10_000, 1 << 20]),
    )
    def test_the_disk_has_what_was_wanted_and_nothing_else(
        self, data, block, unit, limits, read_through
    ):
        wanted = data.draw(wishes(len(self.CONTENT), block))
        size = data.draw(st.sampled_from([1, 30_000, 1 << 20]))
        before = data.draw(st.integers(0, 3))
        expected = bytearray(NOISE)
        for want in wanted:
            part = self.CONTENT[want.archive_offset : want.archive_offset + want.length]
            expected[want.offset : want.offset + want.length] = part
        model = PlanModel(bytearray(NOISE), block, archive_on_tape(self.CONTENT, unit, before))
        plan = plan_restore(wanted, TAPE, disk_of(block), limits, unit, before, size, read_through)
        moved = 0
        for command in plan:
            obeys(command.copy, limits)
            model.run(command.copy)
            moved += command.moved
        assert moved == sum(want.length for want in wanted)
        assert model.disk == expected

    def test_nothing_wanted_is_no_command(self):
        assert list(plan_restore([], TAPE, disk_of(512), LIMITS, 4096, 0)) == []

    def test_a_far_piece_is_gone_to_with_nothing_left_over(self):
        wanted = [ToDisk(512, 512, 0), ToDisk(100_000, 512, 1024)]
        (command,) = plan_restore(wanted, TAPE, disk_of(512), LIMITS, 4096, 7, read_through=10_000)
        assert command.copy.segments == [
            Locate(1, 7),
            StreamToDiscard(1, 4096, 512, cat=True),
            StreamToBlock(1, 0, 4096, 1, 0, cat=False),
            Locate(1, 31),
            StreamToDiscard(1, 4096, 100_000 % 4096, cat=True),
            StreamToBlock(1, 0, 4096, 1, 2, cat=False),
        ]
        assert all(cscd.parameters.pad for cscd in command.copy.cscds)

    def test_a_near_piece_is_read_up_to(self):
        wanted = [ToDisk(0, 700, 0), ToDisk(1024, 512, 1024)]
        (command,) = plan_restore(wanted, TAPE, disk_of(512), LIMITS, 4096, 0)
        assert command.copy.segments == [
            Locate(1, 0),
            StreamToBlockRange(1, 0, 4096, 700, 0, 0, cat=True),
            StreamToDiscard(1, 4096, 324, cat=True),
            StreamToBlock(1, 0, 4096, 1, 2, cat=False),
        ]

    def test_commands_of_a_long_piece_end_where_tape_blocks_end_so_that_none_is_read_twice(self):
        model = PlanModel(bytearray(NOISE), 512, archive_on_tape(self.CONTENT, 8192, 0))
        wanted = [ToDisk(512, 200_000 // 512 * 512, 0)]
        for command in plan_restore(wanted, TAPE, disk_of(512), LIMITS, 8192, 0, 50_000):
            model.run(command.copy)
        assert model.tape_reads == -(-200_192 // 8192)


class TestVerify:
    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(1, 30_000), min_size=1, max_size=12), st.sampled_from([0, 2, 99]))
    def test_every_range_has_its_digest(self, lengths, held):
        content = TestRestore.CONTENT
        ranges, at = [], 0
        for length in lengths:
            ranges.append((at, length))
            at += length + length % 3 * 1000
        ranges = [(start, length) for start, length in ranges if start + length <= len(content)]
        limits = replace(LIMITS, held_data_limit=32 * (held or 1))
        model = PlanModel(bytearray(), 512, archive_on_tape(content, 8192, 3))
        seen = []
        for check in plan_verify(ranges, TAPE, limits, 8192, 3, 60_000):
            CopyList.unpack(check.copy.pack(), limits)
            model.run(check.copy)
            assert len(model.held) == len(check.ranges) <= limits.held_data_limit // 32
            for (start, length), digest in zip(check.ranges, model.held, strict=True):
                assert digest == hashlib.sha256(content[start : start + length]).digest()
            seen += check.ranges
        assert seen == ranges

    def test_a_manager_that_holds_nothing_is_refused(self):
        with pytest.raises(PlanError, match="holds no data"):
            plan_verify([(0, 1)], TAPE, replace(LIMITS, held_data_limit=0), 8192, 0)
