"""Segment types one by one: media, sense, and what is sent to the units (SPC-4 6.4.6)."""

import threading
import time

import pytest

from serverfree.datamover.manager import CopyManager
from serverfree.initiator.session import CommandTimeout
from serverfree.scsi.copy_list import NULL_BLOCK, NULL_STREAM, CopyList
from serverfree.scsi.copy_segments import (
    BlockImage,
    BlockRangeToBlockRange,
    BlockRangeToStream,
    BlockToBlock,
    BlockToStream,
    EmbeddedToStream,
    InlineToStream,
    Locate,
    MoveReservation,
    RegisterKey,
    Space,
    StreamToBlock,
    StreamToBlockRange,
    StreamToDiscard,
    StreamToStream,
    TapeImage,
    VerifyCscd,
)
from serverfree.scsi.device import Result
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.status import Status
from support.copies import ModelFabric, aborted_sense, copy, cscd, forwarded, noise
from support.fake_devices import (
    FILEMARK,
    INQUIRY,
    READ_16,
    TEST_UNIT_READY,
    WRITE_6,
    WRITE_16,
    FakeDisk,
    FakeTape,
    check_condition,
    give,
    sense_bytes,
)

READ_BLOCK_LIMITS, SPACE_6, PERSISTENT_RESERVE_OUT = 0x05, 0x11, 0x5F


class Drive(FakeTape):
    """A tape that also tells its block limits and spaces, as far as asked here."""

    def __init__(self, *arguments, longest: int = 5000, **options) -> None:
        super().__init__(*arguments, **options)
        self.longest = longest

    def command(self, cdb, out, into):
        if cdb[0] == READ_BLOCK_LIMITS:
            return give(into, b"\0" + self.longest.to_bytes(3, "big") + b"\0\1")
        if cdb[0] == SPACE_6:
            return Result(Status.GOOD)
        return super().command(cdb, out, into)


def cdbs(device, opcode: int) -> list[bytes]:
    return [cdb for cdb in device.log if cdb[0] == opcode]


# ---------------------------------------------------------------------- ranges of bytes


@pytest.mark.parametrize(
    ("offset", "count"), [(0, 512), (5, 1), (511, 2), (3, 509), (1, 4096), (500, 30000), (0, 1)]
)
def test_bytes_go_to_bytes_and_their_neighbours_stay(offset: int, count: int, lazy: bool) -> None:
    source, destination = FakeDisk(noise(65536), lazy=lazy), FakeDisk(noise(65536, 2), 4096)
    before = bytes(destination.data)
    copy([source, destination], [BlockRangeToBlockRange(0, 1, count, 3, 2, offset, 77)])
    at, to = 3 * 512 + offset, 2 * 4096 + 77
    assert destination.data[to : to + count] == source.data[at : at + count]
    assert destination.data[:to] == before[:to]
    assert destination.data[to + count :] == before[to + count :]


@pytest.mark.parametrize("shift", [-5000, -513, -1, 0, 1, 200, 513, 70000])
def test_bytes_move_within_a_disk_onto_each_other(shift: int, lazy: bool) -> None:
    disk = FakeDisk(noise(1 << 20), most=16, lazy=lazy)
    before = bytes(disk.data)
    at, count = 100_003, 300_001
    lba, offset = divmod(at, 512)
    to, to_offset = divmod(at + shift, 512)
    copy([disk], [BlockRangeToBlockRange(0, 0, count, lba, to, offset, to_offset)])
    start = at + shift
    assert disk.data[start : start + count] == before[at : at + count]
    assert disk.data[:start] == before[:start]
    assert disk.data[start + count :] == before[start + count :]


def test_range_to_tape_stops_at_its_last_byte_and_back() -> None:
    disk, tape, copied = FakeDisk(noise(8192)), FakeTape(), FakeDisk(noise(8192, 2))
    before = bytes(copied.data)
    copy(
        [disk, tape],
        [
            BlockRangeToStream(0, 1, 1000, 700, 1, 300, cat=True),
            BlockRangeToStream(0, 1, 1000, 1500, 4, 1),
        ],
        pads=[False, True],
    )
    stream = disk.data[812:1512] + disk.data[2049:3549]
    assert b"".join(tape.blocks) == stream + bytes(800)
    copy(
        [tape, copied],
        [Locate(0, 0), StreamToBlockRange(0, 1, 1000, 2200, 2, 9)],
        pads=[True, True],
    )
    assert copied.data[1033:3233] == stream
    assert copied.data[:1033] == before[:1033]
    assert copied.data[3233:] == before[3233:]


def test_what_lies_beside_a_range_is_never_more_than_its_two_blocks() -> None:
    disk = FakeDisk(noise(1 << 20))
    other = FakeDisk(bytes(1 << 20))
    copy([disk, other], [BlockRangeToBlockRange(0, 1, 100_000, 0, 0, 0, 1)])
    read = [(int.from_bytes(c[2:10], "big"), c[13]) for c in cdbs(other, READ_16)]
    assert read == [(0, 1), (195, 1)]


def test_byte_offset_beyond_a_block_points_at_its_field() -> None:
    disks = [FakeDisk(bytes(8192)), FakeDisk(bytes(8192))]
    sense = aborted_sense(disks, [BlockRangeToBlockRange(0, 1, 1, 0, 0, 512, 0)])
    assert (sense.code, sense.pointer) == (0x2600, ("segment", 28))
    sense = aborted_sense(disks, [BlockRangeToBlockRange(0, 1, 1, 0, 0, 0, 512)])
    assert (sense.code, sense.pointer) == (0x2600, ("segment", 30))
    sense = aborted_sense(disks, [BlockRangeToBlockRange(0, 1, 513, 15, 0, 0, 0)])
    assert (sense.code, sense.pointer, sense.residual) == (0x0000, ("segment", 12), None)


def test_surplus_behind_a_range_is_inexact_though_the_destination_pads() -> None:
    disk, tape = FakeDisk(bytes(4096)), FakeTape([noise(1000)] * 4)
    sense = aborted_sense(
        [tape, disk],
        [StreamToBlock(0, 1, 1000, 1, 0, cat=True), StreamToBlockRange(0, 1, 1000, 10, 2, 0)],
        pads=[False, False],
    )
    assert (sense.code, sense.segment) == (0x260A, 1)


def test_edges_that_cannot_be_read_end_the_copy_with_the_destinations_sense() -> None:
    disk, other = FakeDisk(noise(4096)), FakeDisk(bytes(4096))
    raw = sense_bytes(3, 0x1100)
    other.fail(READ_16, 0, check_condition(raw))
    sense = aborted_sense([disk, other], [BlockRangeToBlockRange(0, 1, 5, 0, 0, 0, 1)])
    assert (sense.code, sense.source, sense.destination) == (0x0D01, b"", forwarded(raw))
    assert sense.pointer == ("list", 16 + 32)
    assert not cdbs(other, WRITE_16)


def test_residual_of_a_range_counts_blocks_behind_the_failure() -> None:
    tape, disk = FakeTape([noise(1000, n) for n in range(5)]), FakeDisk(bytes(8192), most=2)
    tape.fail(0x08, 3, check_condition(sense_bytes(3, 0x1100)))
    sense = aborted_sense([tape, disk], [StreamToBlockRange(0, 1, 1000, 4500, 1, 100)])
    # Of 3000 bytes 924 went into the first two blocks beside 100 that stay, 2048 into the next
    # four; 28 fill no two blocks more. The range touches nine.
    assert (sense.code, sense.segment, sense.residual) == (0x0D01, 0, 9 - 6)
    assert disk.data[612:3584] == b"".join(noise(1000, n) for n in range(3))[:2972]
    assert not any(disk.data[:612] + disk.data[3584:])


def test_write_of_a_range_that_fails_keeps_its_neighbours() -> None:
    source, disk = FakeDisk(noise(8192)), FakeDisk(noise(8192, 2))
    before = bytes(disk.data)
    raw = sense_bytes(7, 0x2700)
    disk.fail(WRITE_16, 0, check_condition(raw))
    sense = aborted_sense([source, disk], [BlockRangeToBlockRange(0, 1, 700, 0, 3, 5, 9)])
    assert (sense.code, sense.residual, sense.destination) == (0x0D01, None, forwarded(raw))
    assert disk.data == before


# ---------------------------------------------------------------------- from tape to tape


def test_stream_to_stream_makes_blocks_of_another_length(lazy: bool) -> None:
    source = FakeTape([noise(1000, n) for n in range(6)], lazy=lazy)
    out = FakeTape(lazy=lazy)
    copy(
        [source, out],
        [StreamToStream(0, 1, 1000, 700, 2500, cat=True), StreamToStream(0, 1, 1000, 700, 3000)],
        pads=[True, True],
    )
    stream = b"".join(noise(1000, n) for n in range(6))[:5500]
    assert b"".join(out.blocks) == stream + bytes(-5500 % 700)
    assert {len(block) for block in out.blocks} == {700}
    assert source.position == 6


def test_residual_of_stream_to_stream_counts_bytes() -> None:
    source, out = FakeTape([noise(1000)] * 6), FakeTape()
    out.fail(WRITE_6, 2, check_condition(sense_bytes(3, 0x0C00)))
    sense = aborted_sense([source, out], [StreamToStream(0, 1, 1000, 500, 3000)])
    assert (sense.code, sense.residual) == (0x0D01, 2000)
    assert sense.destination == forwarded(sense_bytes(3, 0x0C00))


def test_embedded_data_joins_like_inline_data() -> None:
    tape = FakeTape()
    copy(
        [tape],
        [EmbeddedToStream(0, 8, b"abcde", cat=True), InlineToStream(0, 8, 0, 3)],
        inline=b"xyz",
    )
    assert tape.blocks == [b"abcdexyz"]


def test_stream_to_stream_between_disks_is_refused_before_anything_happens() -> None:
    disks = [FakeDisk(bytes(4096)), FakeDisk(bytes(4096))]
    with pytest.raises(CheckCondition) as caught:
        copy(disks, [BlockToBlock(0, 1, 1, 0, 0), StreamToStream(0, 1, 1, 1, 1)])
    raw = caught.value.sense.pack()
    assert (raw[2], raw[12:14]) == (5, b"\x26\x09")
    assert not disks[1].log


# ---------------------------------------------------------------------- whole media


def test_block_image_ends_with_the_smaller_disk() -> None:
    source, destination = FakeDisk(noise(8192)), FakeDisk(noise(4096, 2))
    kept = bytes(destination.data[:1024])
    copy([source, destination], [BlockImage(0, 1, 1, 2, 0)])
    assert destination.data == kept + source.data[512 : 512 + 3072]
    copy([source, destination], [BlockImage(0, 1, 16, 0, 0), BlockImage(0, 1, 99, 99, 5)])
    assert destination.data[:1024] == kept


def test_block_image_leaves_residue_alone() -> None:
    disk, other, tape = FakeDisk(noise(8192)), FakeDisk(bytes(8192)), FakeTape()
    copy(
        [disk, tape, other],
        [
            BlockToStream(0, 1, 1000, 1, 0, cat=True),
            BlockImage(0, 2, 4, 4, 2),
            BlockToStream(0, 1, 1024, 1, 1),
        ],
    )
    assert tape.blocks == [bytes(disk.data[:1024])]
    assert other.data[2048:3072] == disk.data[2048:3072]


def test_block_image_needs_blocks_of_one_length() -> None:
    disks = [FakeDisk(bytes(8192)), FakeDisk(bytes(8192), 4096)]
    assert aborted_sense(disks, [BlockImage(0, 1, 0, 0, 1)]).code == 0x0D03


def test_tape_image_keeps_blocks_and_marks_to_the_end_of_data() -> None:
    blocks = [b"a" * 5000, b"b", FILEMARK, FILEMARK, b"c" * 77, FILEMARK]
    source, out = Drive(blocks), FakeTape([b"before", b"gone"])
    out.position = 1
    copy([source, out], [TapeImage(0, 1, 0)])
    assert out.blocks == [b"before", *blocks]
    assert source.position == len(blocks)


@pytest.mark.parametrize(("count", "copied"), [(1, 3), (2, 6), (3, 7)])
def test_tape_image_stops_behind_consecutive_filemarks(count: int, copied: int) -> None:
    blocks = [b"a", b"b", FILEMARK, b"c", FILEMARK, FILEMARK, b"d"]
    source, out = Drive(blocks), FakeTape()
    copy([source, out], [TapeImage(0, 1, count)])
    assert out.blocks == blocks[:copied]
    assert source.position == copied


def test_tape_image_of_fixed_blocks() -> None:
    blocks = [*[noise(512, n) for n in range(5)], FILEMARK, noise(512, 9)]
    source = Drive(blocks, 512)
    out, loose = FakeTape(block_length=512), FakeTape()
    copy([source, out], [TapeImage(0, 1, 0)])
    assert out.blocks == blocks
    source.position = 0
    copy([source, loose], [TapeImage(0, 1, 0)])
    assert loose.blocks == blocks


def test_tape_image_has_no_residual_and_forwards_what_the_drive_says() -> None:
    source, out = Drive([b"a" * 100] * 4), FakeTape()
    raw = sense_bytes(3, 0x0C00, information=100)
    out.fail(WRITE_6, 2, check_condition(raw))
    sense = aborted_sense([source, out], [TapeImage(0, 1, 0)])
    assert (sense.code, sense.residual, sense.destination) == (0x0D01, None, forwarded(raw))
    assert (source.position, len(out.blocks)) == (3, 2)


def test_block_longer_than_the_drive_says_is_a_failure_of_the_source() -> None:
    source, out = Drive([b"a" * 100, b"b" * 6000]), FakeTape()
    sense = aborted_sense([source, out], [TapeImage(0, 1, 0)])
    assert sense.code == 0x0D01
    assert sense.source
    assert out.blocks == [b"a" * 100]


# ---------------------------------------------------------------------- functions


def test_space_goes_to_the_drive_as_it_stands() -> None:
    tape = Drive([b"a"])
    copy([tape], [Space(0, 1, -2)])
    assert cdbs(tape, SPACE_6) == [bytes.fromhex("11 01 fffffe 00")]
    disk = FakeDisk(bytes(512))
    assert aborted_sense([disk], [Space(0, 1, 1)]).code == 0x260C


def test_verify_leaves_unit_attentions_to_others() -> None:
    disk = FakeDisk(bytes(4096))
    disk.attentions = 1
    copy([disk], [VerifyCscd(0)])
    assert {cdb[0] for cdb in disk.log} == {INQUIRY}
    assert disk.attentions == 1


def test_verify_by_test_unit_ready_reports_what_it_says() -> None:
    disk = FakeDisk(bytes(4096))
    copy([disk], [VerifyCscd(0, test_unit_ready=True)])
    assert len(cdbs(disk, TEST_UNIT_READY)) == 1
    raw = sense_bytes(2, 0x0401)
    disk.fail(TEST_UNIT_READY, 1, check_condition(raw))
    sense = aborted_sense([disk], [VerifyCscd(0), VerifyCscd(0, test_unit_ready=True)])
    assert (sense.code, sense.segment, sense.source) == (0x0D01, 1, forwarded(raw))


def test_verify_of_what_is_not_there() -> None:
    disk = FakeDisk(bytes(4096))
    sense = aborted_sense([disk], [VerifyCscd(0)], cscds=[cscd(5, disk)])
    assert (sense.code, sense.pointer) == (0x0D02, ("list", 16))
    sense = aborted_sense([disk], [VerifyCscd(1)])
    assert (sense.code, sense.pointer) == (0x0804, ("segment", 4))
    disk.device_type = 5
    assert aborted_sense([disk], [VerifyCscd(0)]).code == 0x0D03


class Reserved(FakeDisk):
    def __init__(self) -> None:
        super().__init__(bytes(4096))
        self.parameters: list[bytes] = []

    def command(self, cdb, out, into):
        if cdb[0] == PERSISTENT_RESERVE_OUT:
            self.parameters.append(out)
            return Result(Status.GOOD)
        return super().command(cdb, out, into)


def test_key_is_registered_at_the_destination() -> None:
    disk = Reserved()
    copy([disk], [RegisterKey(0, 0x0102030405060708, 0x1112131415161718)])
    assert cdbs(disk, PERSISTENT_RESERVE_OUT) == [bytes.fromhex("5f 00 00 0000 00000018 00")]
    assert disk.parameters == [bytes.fromhex("0102030405060708 1112131415161718") + bytes(8)]


class ReservedDrive(FakeTape):
    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.parameters: list[bytes] = []

    def command(self, cdb, out, into):
        if cdb[0] == PERSISTENT_RESERVE_OUT:
            self.parameters.append(out)
            return Result(Status.GOOD)
        return super().command(cdb, out, into)


MOVE = MoveReservation(0, 1, 2, 3, b"\x05" * 24, unregister=True)
MOVE_PARAMETERS = bytes.fromhex("0000000000000001 0000000000000002 00 02 0003 00000018" + "05" * 24)


def test_reservation_moves_when_all_else_is_done() -> None:
    tape, disk = ReservedDrive([noise(512)] * 4), FakeDisk(bytes(4096))
    copy([tape, disk], [MOVE, StreamToBlock(0, 1, 512, 4, 0)])
    assert tape.log[-1] == bytes.fromhex("5f 07 00 0000 00000030 00")
    assert tape.parameters == [MOVE_PARAMETERS]


def test_reservation_moves_despite_an_error_that_comes_after_it() -> None:
    tape, disk = ReservedDrive([noise(512)]), FakeDisk(bytes(4096))
    sense = aborted_sense([tape, disk], [MOVE, StreamToBlock(0, 1, 512, 4, 0)])
    assert (sense.code, sense.segment) == (0x0D01, 1)
    assert tape.parameters == [MOVE_PARAMETERS]
    sense = aborted_sense([tape, disk], [StreamToBlock(0, 1, 512, 4, 0), MOVE])
    assert sense.segment == 0
    assert len(tape.parameters) == 1


def test_reservation_that_does_not_move_is_the_error_of_its_segment() -> None:
    tape = ReservedDrive()
    for nth in range(100):
        tape.fail(PERSISTENT_RESERVE_OUT, nth, Result(Status.RESERVATION_CONFLICT))
    sense = aborted_sense([tape], [VerifyCscd(0), MOVE, VerifyCscd(0)])
    assert (sense.code, sense.segment, sense.destination) == (0x0D01, 1, b"\x18")
    disk = FakeDisk(bytes(512))
    assert aborted_sense([disk], [MOVE]).code == 0x260C


# ---------------------------------------------------------------------- null units


def test_null_units_settle_residue_without_a_command() -> None:
    disk, tape = FakeDisk(noise(4096)), FakeTape([noise(1000)] * 3)
    copy(
        [tape, disk],
        [
            StreamToBlock(0, 1, 1000, 1, 0, cat=True),
            # With PAD in neither there must be nothing left: so there is none after this.
            StreamToDiscard(NULL_STREAM, 1, 488, cat=True),
            StreamToDiscard(NULL_STREAM, 1, 0),
            BlockToBlock(NULL_BLOCK, NULL_BLOCK, 0, 0, 0),
            VerifyCscd(NULL_BLOCK),
        ],
    )
    assert disk.data[:512] == noise(1000)[:512]


@pytest.mark.parametrize(
    ("segment", "pointer"),
    [
        (StreamToDiscard(NULL_STREAM, 1, 1), 4),
        (BlockToStream(NULL_BLOCK, 0, 512, 1, 0), 4),
        (StreamToBlock(0, NULL_BLOCK, 1000, 1, 0), 6),
        (BlockRangeToBlockRange(NULL_BLOCK, NULL_BLOCK, 1, 0, 0, 0, 0), 4),
        (InlineToStream(NULL_STREAM, 2, 0, 3), 6),
        (VerifyCscd(NULL_STREAM, test_unit_ready=True), 4),
        (Space(NULL_STREAM, 1, 1), 6),
        (VerifyCscd(0xC002), 4),
        (VerifyCscd(0xF800), 4),
        (VerifyCscd(0xFFFF), 4),  # no unit of its own here
    ],
)
def test_null_unit_that_would_need_a_command_is_unreachable(segment, pointer: int) -> None:
    tape = FakeTape([noise(1000)] * 3)
    sense = aborted_sense([tape], [segment], inline=b"abc")
    assert (sense.code, sense.pointer) == (0x0804, ("segment", pointer))


# ---------------------------------------------------------------------- an end within a wait


class Hanging(FakeDisk):
    """A disk that never answers a READ; its commands end when the way to it is given up."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.gone = threading.Event()
        self.asked = threading.Event()

    def submit(self, cdb, **data):
        if cdb[0] != READ_16:
            return super().submit(cdb, **data)
        self.asked.set()
        gone = self.gone

        class Never:
            def wait(self, timeout=None):
                if gone.wait(timeout):
                    raise ConnectionResetError("gone")
                raise CommandTimeout("no answer")

        return Never()

    def close(self, *, broken=False):
        super().close(broken=broken)
        if broken:
            self.gone.set()


def test_copy_is_aborted_while_a_unit_says_nothing() -> None:
    disk, other = Hanging(noise(4096)), FakeDisk(bytes(4096))
    manager = CopyManager(ModelFabric(disk, other))
    copy_list = CopyList(
        [cscd(0, disk), cscd(1, other)],
        [BlockToBlock(0, 1, 8, 0, 0)],
        list_identifier=3,
        lid4=True,
        immediate=True,
    )
    manager.extended_copy("a", copy_list.pack(), lambda: False, lid4=True)
    assert disk.asked.wait(20)
    begun = time.monotonic()
    manager.copy_operation_abort("a", 3, lambda: False)
    assert time.monotonic() - begun < 3
    assert True in disk.closed
    assert manager.receive_copy_results("a", 5, 3, 100)[5] == 0x60
