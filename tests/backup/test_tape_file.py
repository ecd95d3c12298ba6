"""Where a file begins on a tape and how it ends, on a drive of this process.

Tapes are pictures as in `support.tape`: letters are blocks, `|` filemarks.
"""

import pytest

from serverfree.backup.tape_file import (
    TapeUnusable,
    begin_file,
    cartridge_serial,
    check_tape,
    close_unfinished,
    expect_position,
)
from serverfree.initiator.tape import Stop, Tape
from serverfree.scsi.device import execute_in
from serverfree.scsi.errors import CheckCondition
from serverfree.target.units.command import Nexus
from serverfree.target.units.local_fabric import LocalDevice
from support.tape import make_drive


@pytest.fixture
def drive(tmp_path):
    return make_drive(tmp_path / "cartridge")


def tape_of(drive):
    """The initiator's view of a drive, under a nexus of its own."""
    return Tape(LocalDevice(drive.unit, Nexus("iqn.test:server", "iqn.test:target")))


def picture(tape):
    """What is on the tape, read from its beginning."""
    tape.rewind()
    buffer = memoryview(bytearray(4096))
    found = ""
    while (got := tape.read_block(buffer)) is not Stop.END_OF_DATA:
        found += "|" if isinstance(got, Stop) else chr(got[0])
    return found


@pytest.mark.parametrize(
    ("before", "block", "file"),
    [("", 0, 0), ("ab|", 3, 1), ("ab|c|", 5, 2), ("ab||", 4, 2), ("|", 1, 1)],
)
def test_a_new_file_begins_behind_the_last_filemark(drive, before, block, file):
    drive.fill(before)
    tape = tape_of(drive)
    place = begin_file(tape)
    assert (place.partition, place.first_block, place.file, place.warnings) == (0, block, file, ())
    expect_position(tape, place, block)
    assert picture(tape) == before


@pytest.mark.parametrize("before", ["a", "ab", "ab|c", "|c"])
def test_a_file_that_was_left_unfinished_is_closed_first(drive, before):
    drive.fill(before)
    tape = tape_of(drive)
    place = begin_file(tape)
    assert place.first_block == len(before) + 1
    assert "not finished" in place.warnings[0]
    tape.write_block(b"z" * 10)
    assert picture(tape) == before + "|z"


def test_overwriting_begins_at_the_beginning(drive):
    drive.fill("ab|c|")
    tape = tape_of(drive)
    place = begin_file(tape, overwrite=True)
    assert (place.first_block, place.file) == (0, 0)
    assert picture(tape) == "ab|c|", "as long as nothing is written"


def test_what_was_begun_is_closed_and_the_next_file_goes_behind_it(drive):
    drive.fill("ab|")
    tape = tape_of(drive)
    place = begin_file(tape)
    tape.write_block(b"x" * 10)
    tape.write_block(b"y" * 10)
    assert "2 blocks from block 3 on" in close_unfinished(tape, place)
    assert picture(tape) == "ab|xy|"
    assert begin_file(tape).warnings == ()


def test_nothing_is_closed_where_nothing_was_written(drive):
    drive.fill("ab|")
    tape = tape_of(drive)
    place = begin_file(tape)
    assert close_unfinished(tape, place) == "nothing was written to the tape"
    assert picture(tape) == "ab|"


def test_on_a_full_tape_what_was_begun_is_taken_back(tmp_path):
    drive = make_drive(tmp_path / "cartridge", capacity=64 << 10)
    drive.fill("ab|")
    tape = tape_of(drive)
    place = begin_file(tape)
    full = None
    for size in (4000, 100, 1):  # until not even the smallest block has room
        for _ in range(200):
            try:
                tape.write_block(b"x" * size)
            except CheckCondition as error:
                full = error
                break
    assert full is not None
    close_unfinished(tape, place)
    shown = picture(tape)
    assert shown.startswith("ab|")
    assert shown == "ab|" or shown.endswith("|"), "the data ends with a filemark"
    assert begin_file(tape).warnings == ()


def test_a_tape_that_stands_elsewhere_is_told(drive):
    drive.fill("ab|")
    tape = tape_of(drive)
    place = begin_file(tape)
    tape.rewind()
    with pytest.raises(TapeUnusable, match=r"stands at block 0 .* should stand at block 3"):
        expect_position(tape, place, 3)


def test_a_block_length_that_the_drive_does_not_take_is_refused(drive):
    with pytest.raises(TapeUnusable, match="takes blocks of"):
        check_tape(tape_of(drive), 1 << 24)


def test_a_cartridge_has_a_serial_number(drive):
    tape = tape_of(drive)
    tape.settle()
    # Our drive has a command of its own for the serial number: READ MEDIA SERIAL NUMBER.
    number = execute_in(tape.device, bytes.fromhex("ab 01 00 00 00 00 00 00 00 40 00 00"), 64)[4:]
    assert cartridge_serial(tape) == number.decode()
