"""The explicit address set, READ REVERSE, VERIFY in all its forms, append-only mode and WORM."""

import pytest

from serverfree.target.backstore.cartridge import open_cartridge
from serverfree.target.units.stream import StreamUnit
from support.tape import (
    OVERHEAD,
    REWIND,
    Drive,
    filemarks,
    invalid_field,
    locate,
    make_drive,
    read,
    sense,
    space,
    write,
)


def at(opcode, flags, block, length=0, partition=0):
    """A CDB of the explicit address set."""
    head = bytes((opcode, flags, 0, partition)) + block.to_bytes(8, "big")
    return head + length.to_bytes(3, "big") + b"\0"


READ_16, WRITE_16, MARKS_16, ERASE_16, VERIFY_16, REVERSE_16 = 0x88, 0x8A, 0x80, 0x93, 0x8F, 0x81


class TestExplicit:
    def test_read_goes_there_first(self, drive):
        drive.fill("ab|cd")
        assert drive.good(at(READ_16, 0, 3, 100)) == b"c" * 100
        assert drive.block == 4
        assert drive.good(at(READ_16, 0, 0, 100)) == b"a" * 100
        assert drive.sense(at(READ_16, 0, 2, 100)) == sense(0, 0x0001, 100, filemark=True)

    def test_read_of_blocks_of_one_length(self, drive):
        drive.fill("ab|cd")
        drive.set_block_length(100)
        assert drive.good(at(READ_16, 1, 3, 2)) == b"c" * 100 + b"d" * 100
        reply = drive(at(READ_16, 1, 0, 5))
        assert (bytes(reply.data), reply.sense) == (
            b"a" * 100 + b"b" * 100,
            sense(0, 0x0001, 3, filemark=True),
        )

    def test_beyond_the_end_of_data(self, drive):
        drive.fill("ab")
        assert drive.sense(at(READ_16, 0, 9, 100)) == sense(8, 0x0005)
        assert drive.block == 2

    def test_missing_partition(self, drive):
        drive.fill("ab")
        for opcode in (READ_16, WRITE_16, MARKS_16, ERASE_16, VERIFY_16, REVERSE_16):
            data = bytes(100) if opcode == WRITE_16 else b""
            assert drive.sense(at(opcode, 0, 0, 0 if opcode == ERASE_16 else 100, 1), data) == (
                invalid_field(3)
            )

    def test_write_overwrites_from_there(self, drive):
        drive.fill("abc")
        drive.good(at(WRITE_16, 0, 1, 4), b"new!")
        assert drive.block == 2
        assert drive.sense(read(9)) == sense(8, 0x0005, 9)
        assert drive.good(at(READ_16, 0, 1, 4)) == b"new!"

    def test_filemarks_and_erase_from_there(self, drive):
        drive.fill("abc")
        drive.good(at(MARKS_16, 0, 1, 2))
        assert (drive.block, drive.file) == (3, 2)
        drive.good(at(ERASE_16, 0, 1))
        assert (drive.block, drive.file) == (1, 0)
        assert drive.sense(space(0, 1)) == sense(8, 0x0005, 1)

    def test_early_warning_and_overflow(self, tmp_path):
        block = 1000 + OVERHEAD
        small = make_drive(tmp_path / "s", capacity=2 * block, early_warning=block)
        assert small.sense(at(WRITE_16, 0, 0, 1000), bytes(1000)) == sense(0, 2, 0, eom=True)
        small.sense(at(WRITE_16, 0, 1, 1000), bytes(1000))
        assert small.sense(at(WRITE_16, 0, 2, 1000), bytes(1000)) == (sense(0xD, 2, 1000, eom=True))
        small.unit.close()


class TestReverse:
    def test_blocks_come_towards_the_beginning_their_bytes_in_order_with_bytord(self, drive):
        for data in (b"one", b"two"):
            drive.good(write(3), data)
        assert drive.good(bytes.fromhex("0f 04 00 00 03 00")) == b"two"
        assert drive.block == 1
        assert drive.good(bytes.fromhex("0f 04 00 00 03 00")) == b"one"
        assert drive.sense(bytes.fromhex("0f 04 00 00 03 00")) == sense(0, 0x0004, 3, eom=True)
        assert drive.block == 0

    def test_without_it_last_byte_first(self, drive):
        drive.good(write(3), b"abc")
        assert drive.good(bytes.fromhex("0f 00 00 00 03 00")) == b"cba"

    def test_mark_is_passed_towards_the_beginning(self, drive):
        drive.fill("a|b")
        drive.good(locate(2))
        assert drive.sense(bytes.fromhex("0f 04 00 00 64 00")) == (
            sense(0, 0x0001, 100, filemark=True)
        )
        assert drive.block == 1
        assert drive.good(bytes.fromhex("0f 04 00 00 64 00")) == b"a" * 100

    def test_blocks_of_one_length(self, drive):
        drive.fill("abA")
        drive.set_block_length(100)
        drive.good(space(3, 0))
        assert drive(bytes.fromhex("0f 05 00 00 02 00")).sense == sense(0, 0, 2, ili=True)
        assert drive.good(bytes.fromhex("0f 05 00 00 02 00")) == b"b" * 100 + b"a" * 100

    def test_lengths_are_reported_as_by_read(self, drive):
        drive.fill("a")
        drive.good(space(3, 0))
        reply = drive(bytes.fromhex("0f 04 00 00 c8 00"))
        assert (bytes(reply.data), reply.sense) == (b"a" * 100, sense(0, 0, 100, ili=True))
        drive.good(space(3, 0))
        assert drive.good(bytes.fromhex("0f 06 00 00 c8 00")) == b"a" * 100

    def test_from_a_place(self, drive):
        drive.fill("abc")
        assert drive.good(at(REVERSE_16, 4, 2, 100)) == b"b" * 100
        assert drive.block == 1


class TestVerify:
    def test_to_the_end_of_data(self, drive):
        drive.fill("ab|c||")
        drive.good(bytes.fromhex("13 20 00 00 00 00"))
        assert drive.block == 6

    def test_by_filemarks(self, drive):
        drive.fill("ab|c|d")
        drive.good(bytes.fromhex("13 08 00 00 02 00"))
        assert drive.block == 5
        assert drive.sense(bytes.fromhex("13 08 00 00 02 00")) == sense(8, 0x0005, 2)

    def test_compared_with_what_comes_along(self, drive):
        drive.fill("ab")
        drive.good(bytes.fromhex("13 02 00 00 64 00"), b"a" * 100)
        expected = sense(0xE, 0x1D00, 100)
        assert drive.sense(bytes.fromhex("13 02 00 00 64 00"), b"b" * 99 + b"x") == expected
        assert drive.block == 2

    def test_compared_block_by_block(self, drive):
        drive.fill("abc")
        drive.set_block_length(100)
        data = b"a" * 100 + b"X" * 100 + b"c" * 100
        assert drive.sense(bytes.fromhex("13 03 00 00 03 00"), data) == sense(0xE, 0x1D00, 2)
        assert drive.block == 2

    def test_compared_from_a_place(self, drive):
        drive.fill("ab")
        drive.good(at(VERIFY_16, 2, 1, 100), b"b" * 100)

    @pytest.mark.parametrize(
        ("flags", "bit"), [(0x28, 5), (0x22, 5), (0x0A, 3), (0x06, 2), (0x10, 4)]
    )
    def test_what_does_not_go_together(self, drive, flags, bit):
        drive.fill("ab")
        assert drive.sense(bytes((0x13, flags, 0, 0, 1, 0)), b"a") == invalid_field(1, bit)

    def test_damage_is_found(self, drive):
        drive.fill("abc")
        log = drive.unit.directory / "part0.log"
        at = log.read_bytes().index(b"b" * 100) + 5
        with log.open("r+b") as file:
            file.seek(at)
            file.write(b"?")
        assert drive.sense(bytes.fromhex("13 20 00 00 00 00")).asc == 0x1100
        assert drive.block == 2
        assert drive.unit.alerts == {3, 5}


@pytest.mark.parametrize(
    ("start", "count", "end"),
    [(0, 1, 2), (0, 2, 5), (0, 3, 9), (10, -2, 7), (6, -2, 3), (9, -3, 6)],
)
def test_space_over_marks_in_a_row(drive, start, count, end):
    drive.fill("a|b||c|||d")
    drive.good(locate(start))
    drive.good(space(2, count))
    assert drive.block == end


@pytest.mark.parametrize(
    ("tape", "start", "count", "expected", "end"),
    [
        ("a|b||c|||d", 0, 4, sense(8, 0x0005, 4), 10),
        ("a|b||c|||d", 10, -4, sense(0, 0x0004, 4, eom=True), 0),
        ("a|||b||", 0, 4, sense(8, 0x0005, 2), 7),
        ("a|||b||", 6, 2, sense(8, 0x0005, 1), 7),
        ("||b|||c", 7, -5, sense(0, 0x0004, 3, eom=True), 0),
        ("||b|||c", 1, -2, sense(0, 0x0004, 1, eom=True), 0),
        ("", 0, 1, sense(8, 0x0005, 1), 0),
    ],
)
def test_space_over_more_marks_in_a_row_than_there_are(drive, tape, start, count, expected, end):
    """Those just before the end that it came to count as done (GA32-0928-06 table 16)."""
    drive.fill(tape)
    drive.good(locate(start))
    assert drive.sense(space(2, count)) == expected
    assert drive.block == end


def test_limits_and_densities(drive):
    assert drive.good(bytes.fromhex("05 00 00 00 00 00")) == bytes.fromhex("00 ff ff fb 00 01")
    limit = drive.good(bytes.fromhex("05 01 00 00 00 00"))
    assert limit == bytes(12) + bytes.fromhex("ff ff ff ff ff ff ff fe")
    kinds = drive.good(bytes.fromhex("44 02 00 00 00 00 00 00 ff 00"))
    assert kinds[:10] == bytes.fromhex("00 3a 00 00 00 00 00 34 01 f0")
    assert kinds[24:32] == b"SRVFREE "
    assert len(kinds) == 60


def test_media_serial_number_is_the_cartridges(drive):
    serial = drive.good(bytes.fromhex("ab 01 00 00 00 00 00 00 00 ff 00 00"))
    assert serial[:4] == bytes((0, 0, 0, 32))
    assert serial[4:].decode() == drive.unit.medium.cartridge.identity.hex.upper()


def test_nothing_is_buffered_that_could_be_recovered(drive):
    drive.fill("ab")
    assert drive.sense(bytes.fromhex("14 00 00 00 64 00")) == sense(0, 0x0005, 100, eom=True)


def test_what_a_failed_sync_left_is_recovered_in_order(drive, monkeypatch):
    drive.good(write(2), b"on")
    drive.good(filemarks(0))
    for data in (b"not", b"sure"):
        drive.good(write(len(data)), data)
    drive.good(filemarks(1, immediate=True))

    def fail(fd):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fdatasync", fail)
    assert drive.sense(filemarks(0)) == sense(3, 0x0C00)
    assert drive.unit.alerts == {3, 6}
    recover = bytes.fromhex("14 02 00 00 64 00")
    assert [drive.good(recover), drive.good(recover)] == [b"not", b"sure"]
    assert drive.sense(recover) == sense(0, 0x0001, 100, filemark=True)
    assert drive.sense(recover) == sense(0, 0x0005, 100, eom=True)


APPEND_ONLY = bytes.fromhex("00 00 10 00 50 01 00 1c 00 10") + bytes(26)


def allow(what, block, partition=0):
    return bytes((0x82, 0, what, partition)) + block.to_bytes(8, "big") + bytes(4)


class TestAppendOnly:
    @pytest.fixture
    def careful(self, drive):
        drive.fill("ab|c||")
        drive.good(bytes((0x15, 0x10, 0, 0, len(APPEND_ONLY), 0)), APPEND_ONLY)
        return drive

    @pytest.mark.parametrize("block", [0, 1, 2, 3, 4])
    def test_what_is_there_is_not_overwritten(self, careful, block):
        careful.good(locate(block))
        refused = sense(7, 0x5A02)  # IBM LTO SCSI Reference 4.2.3
        assert careful.sense(write(1), b"x") == refused
        assert careful.sense(filemarks(1)) == refused
        assert careful.sense(bytes.fromhex("19 01 00 00 00 00")) == refused
        assert careful.block == block
        careful.good(space(3, 0))
        assert careful.block == 6

    @pytest.mark.parametrize("block", [5, 6])
    def test_append_points(self, careful, block):
        careful.good(locate(block))
        careful.good(write(1), b"x")
        assert careful.block == block + 1

    def test_an_empty_tape_can_be_written(self, drive):
        drive.good(bytes((0x15, 0x10, 0, 0, len(APPEND_ONLY), 0)), APPEND_ONLY)
        drive.good(write(1), b"x")

    def test_allowed_once_here(self, careful):
        careful.good(locate(1))
        careful.good(allow(1, 1))
        careful.good(write(1), b"x")
        careful.good(locate(0))
        assert careful.sense(write(1), b"x") == sense(7, 0x5A02)

    def test_a_step_away_it_is_not_allowed_any_more(self, careful):
        careful.good(allow(1, 0))
        careful.good(read(100))
        careful.good(REWIND)
        assert careful.sense(write(1), b"x") == sense(7, 0x5A02)

    def test_allowed_elsewhere_than_here(self, careful):
        assert careful.sense(allow(1, 1)) == sense(5, 0x3B00)
        assert careful.sense(allow(1, 0, partition=1)) == invalid_field(3)
        assert careful.sense(allow(3, 0)) == invalid_field(2, 3)

    def test_format_has_to_be_allowed_as_such(self, careful):
        format_medium = bytes.fromhex("04 00 00 00 00 00")
        assert careful.sense(format_medium) == sense(7, 0x5A02)
        careful.good(allow(1, 0))
        assert careful.sense(format_medium) == sense(7, 0x5A02)
        careful.good(allow(2, 0))
        careful.good(format_medium)

    def test_command_is_for_this_mode_only(self, drive):
        assert drive.sense(allow(1, 0)) == sense(5, 0x200C)


class TestWorm:
    @pytest.fixture
    def worm(self, tmp_path, drive):
        cartridge = open_cartridge(tmp_path / "worm", 1 << 20, worm=True)
        unit = StreamUnit("worm", cartridge, target="iqn.test:target")
        yield Drive(unit, drive.nexus)
        unit.close()

    def test_what_is_written_stays(self, worm):
        worm.fill("ab|")
        refused = sense(7, 0x300C)
        for cdb, data in (
            (write(1), b"x"),
            (filemarks(1), b""),
            (bytes.fromhex("19 01 00 00 00 00"), b""),
            (bytes.fromhex("04 00 00 00 00 00"), b""),
            (bytes.fromhex("0b 00 00 80 00 00"), b""),
        ):
            worm.unit.alerts.clear()
            assert worm.sense(cdb, data) == refused
            assert worm.unit.alerts == {60}
        assert worm.good(read(100)) == b"a" * 100

    def test_more_can_be_added(self, worm):
        worm.fill("a|")
        worm.good(space(3, 0))
        worm.good(write(1), b"b")
        worm.good(filemarks(2))
        worm.good(space(1, -1))
        worm.good(write(1), b"c")  # over the second of the two marks that end a tape

    def test_allow_overwrite_does_not_help(self, worm):
        worm.fill("a|")
        worm.good(bytes((0x15, 0x10, 0, 0, len(APPEND_ONLY), 0)), APPEND_ONLY)
        worm.good(allow(1, 0))
        assert worm.sense(write(1), b"x") == sense(7, 0x300C)

    def test_it_says_so(self, worm):
        assert worm.good(bytes.fromhex("1a 08 1d 00 ff 00"))[4:12] == bytes.fromhex(
            "1d 1e 01 00 00 02 00 00"
        )
        assert worm.good(bytes.fromhex("12 01 b0 00 ff 00")) == bytes.fromhex("01 b0 00 02 01 00")
