"""Several commands under way at a tape: allowed where ACA stops those behind one that fails.

A drive without ACA gets one at a time; what happens there is judged elsewhere, and everything but
speed must be the same with ACA: what is on the tape, where it stands, what the sense data says.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverfree.scsi.copy_segments import BlockToStream, Locate, StreamToBlock, WriteFilemarks
from serverfree.scsi.device import Result
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.status import Status
from support.copies import MIB, SenseBytes, copy, noise
from support.fake_devices import (
    FILEMARK,
    READ_6,
    WRITE_6,
    CarrierLost,
    FakeDisk,
    FakeTape,
    check_condition,
    sense_bytes,
)

BLOCK = 2048
CONTENT = noise(32 * BLOCK)
OUT = [
    BlockToStream(0, 1, BLOCK, 40, 0),
    WriteFilemarks(1, 1),
    BlockToStream(0, 1, BLOCK, 80, 40),
]
BACK = [Locate(0, 0), StreamToBlock(0, 1, BLOCK, 128, 0)]


def tape(*, aca: bool, **options) -> FakeTape:
    drive = FakeTape(lazy=True, **options)
    drive.normal_aca = aca
    return drive


def outcome(drive: FakeTape, disk: FakeDisk, devices, segments) -> tuple:
    """All that can be seen of a copy: sense data, media, position."""
    try:
        copy(devices, segments)
        sense = None
    except CheckCondition as error:
        raw = error.sense.pack()
        SenseBytes(raw)
        sense = raw
    assert not drive.faulted, "the condition is cleared, whatever happened"
    return sense, drive.blocks, drive.position, bytes(disk.data)


def test_writes_and_reads_of_a_segment_are_under_way_together():
    disk, drive = FakeDisk(noise(4 * MIB), lazy=True), tape(aca=True)
    copy([disk, drive], [BlockToStream(0, 1, 0x10000, 8192, 0)])
    assert drive.deepest == 4
    assert b"".join(drive.blocks) == disk.data
    drive.deepest = 0
    copied = FakeDisk(bytes(4 * MIB), lazy=True)
    copy([drive, copied], [Locate(0, 0), StreamToBlock(0, 1, 0x10000, 8192, 0)])
    assert drive.deepest == 4
    assert copied.data == disk.data


@pytest.mark.parametrize("opcode", [WRITE_6, READ_6])
def test_only_commands_with_naca_are_sent_together(opcode):
    disk, drive = FakeDisk(CONTENT, lazy=True), tape(aca=True)
    copy([disk, drive], OUT)
    drive.position = 0
    drive.blocks = [block for block in drive.blocks if block is not FILEMARK]
    copy([drive, disk], [StreamToBlock(0, 1, BLOCK, 100, 0)])
    sent = [cdb for cdb in drive.log if cdb[0] == opcode]
    assert sent
    assert all(cdb[5] == 0x04 for cdb in sent)


FAULTS = {
    "medium error": check_condition(sense_bytes(3, 0x0C00)),
    "unit attention": check_condition(sense_bytes(6, 0x2800)),
    "nothing more": CarrierLost("gone"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("nth", [0, 1, 4, 9, 10, 11, 29])
def test_a_write_that_fails_is_the_last(fault, nth):
    seen = []
    for aca in (False, True):
        disk, drive = FakeDisk(CONTENT, lazy=True), tape(aca=aca)
        drive.fail(WRITE_6, nth, FAULTS[fault])
        if fault == "nothing more":
            drive.fail(WRITE_6, nth + 1, FAULTS[fault])
            drive.fail(WRITE_6, nth + 2, FAULTS[fault])
            drive.fail(WRITE_6, nth + 3, FAULTS[fault])
        seen.append(outcome(drive, disk, [disk, drive], OUT))
    assert seen[0] == seen[1]
    assert len([block for block in seen[1][1] if block]) == nth


@settings(max_examples=40, deadline=None)
@given(
    early_warning=st.none() | st.integers(0, 30 * BLOCK),
    capacity=st.none() | st.integers(0, 31 * BLOCK),
    fixed=st.booleans(),
)
def test_early_warning_and_the_end_of_the_medium_are_met_at_the_same_block(
    early_warning, capacity, fixed
):
    seen = []
    for aca in (False, True):
        disk = FakeDisk(CONTENT, lazy=True)
        drive = tape(
            aca=aca,
            early_warning=early_warning,
            capacity=capacity,
            block_length=512 if fixed else 0,
        )
        length = BLOCK // 512 if fixed else BLOCK
        segments = [
            BlockToStream(0, 1, length, 40, 0),
            WriteFilemarks(1, 1),
            BlockToStream(0, 1, length, 80, 40),
        ]
        seen.append(outcome(drive, disk, [disk, drive], segments))
    assert seen[0] == seen[1]


@settings(max_examples=40, deadline=None)
@given(
    filemark=st.none() | st.integers(0, 31),
    short=st.none() | st.integers(0, 31),
    bad=st.none() | st.integers(0, 31),
)
def test_reading_stops_at_the_same_object(filemark, short, bad):
    blocks: list[bytes | None] = [CONTENT[at : at + BLOCK] for at in range(0, len(CONTENT), BLOCK)]
    if short is not None:
        blocks[short] = blocks[short][:1000]
    if filemark is not None:
        blocks[filemark] = FILEMARK
    seen = []
    for aca in (False, True):
        disk, drive = FakeDisk(bytes(len(CONTENT)), lazy=True), tape(aca=aca)
        drive.blocks = list(blocks)
        if bad is not None:
            drive.fail(READ_6, bad, check_condition(sense_bytes(3, 0x1100)))
        seen.append(outcome(drive, disk, [drive, disk], BACK))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("opcode", [WRITE_6, READ_6])
def test_a_command_that_is_too_busy_to_run_is_not_sent_again_behind_others(opcode):
    """BUSY establishes no ACA: those behind may have run, the order is lost, the copy ends."""
    disk, drive = FakeDisk(CONTENT, lazy=True), tape(aca=True)
    drive.blocks = [CONTENT[at : at + BLOCK] for at in range(0, len(CONTENT), BLOCK)]
    drive.fail(opcode, 3, Result(Status.BUSY))
    devices, segments = ([disk, drive], OUT) if opcode == WRITE_6 else ([drive, disk], BACK)
    sense, *_ = outcome(drive, disk, devices, segments)
    assert sense is not None
    told = SenseBytes(sense)
    assert (told.destination if opcode == WRITE_6 else told.source) == b"\x08"


def test_a_condition_that_cannot_be_cleared_ends_with_the_nexus():
    disk, drive = FakeDisk(CONTENT, lazy=True), tape(aca=True)
    drive.clears_aca = False
    drive.fail(WRITE_6, 4, FAULTS["medium error"])
    with pytest.raises(CheckCondition):
        copy([disk, drive], OUT)
    assert drive.closed == [True]
    assert disk.closed == [False]


@pytest.mark.parametrize("status", [Status.BUSY, Status.RESERVATION_CONFLICT])
def test_the_first_one_goes_alone_and_is_sent_again(status):
    disk, drive = FakeDisk(CONTENT, lazy=True), tape(aca=True)
    drive.fail(WRITE_6, 0, Result(status))
    drive.fail(WRITE_6, 1, Result(status))
    copy([disk, drive], [BlockToStream(0, 1, BLOCK, 128, 0)])
    assert b"".join(drive.blocks) == CONTENT


def test_the_last_one_is_sent_again_where_the_unit_was_busy():
    disk, drive = FakeDisk(CONTENT, lazy=True), tape(aca=True)
    drive.fail(WRITE_6, 9, Result(Status.BUSY))
    copy([disk, drive], [BlockToStream(0, 1, BLOCK, 40, 0)])
    assert b"".join(drive.blocks) == CONTENT[: 10 * BLOCK]
