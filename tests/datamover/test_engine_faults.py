"""How a fault in a copy is told, by the letter of SPC-4 5.17.7.4, and what it leaves behind."""

import contextlib
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.datamover.manager import CopyManager
from serverfree.scsi.copy_cscd import (
    BlockParameters,
    IdentificationCscd,
    ProcessorParameters,
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
from serverfree.scsi.device import Result
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.status import Status
from support.copies import (
    MIB,
    NEXUS,
    ModelFabric,
    aborted_sense,
    copy,
    cscd,
    forwarded,
    named,
    noise,
)
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
    FakeDisk,
    FakeTape,
    check_condition,
    sense_bytes,
)

# ---------------------------------------------------------------------- faults during a segment

MEDIUM_ERROR = sense_bytes(3, 0x1100, information=7)


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
    segments = [BlockToBlock(0, 1, 8, n * 8, (7 - n) * 8) for n in range(8)]
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


CONFLICT = Result(Status.RESERVATION_CONFLICT)


def test_reservation_that_is_given_up_in_a_moment_does_not_end_the_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    source, destination = FakeDisk(noise(4096)), FakeDisk(bytes(4096))
    for nth in range(2):
        source.fail(READ_16, nth, CONFLICT)
        destination.fail(WRITE_16, nth, CONFLICT)
    copy([source, destination], [BlockToBlock(0, 1, 8, 0, 0)])
    assert destination.data == source.data


def test_reservation_conflict_that_stays_is_a_failure_with_the_status_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    source, destination = FakeDisk(noise(4096)), FakeDisk(bytes(4096))
    for nth in range(100):
        destination.fail(WRITE_16, nth, CONFLICT)
    sense = aborted_sense([source, destination], [BlockToBlock(0, 1, 8, 0, 0)])
    assert (sense.code, sense.destination) == (0x0D01, b"\x18")
    assert 0.1 < sum(slept) < 1


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
    sense = aborted_sense([tape], [StreamToDiscard(0, 4097, 1)])
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
