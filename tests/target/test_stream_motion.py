"""SPACE and LOCATE: where the heads end up, and what the host is told of the rest of the way."""

import pytest

from support.tape import (
    BLOCKS,
    END_OF_DATA,
    FILEMARKS,
    REWIND,
    invalid_field,
    locate,
    locate16,
    read,
    sense,
    space,
    write,
)


class TestSpace:
    def test_blocks_forward(self, drive):
        drive.fill("abcd")
        drive.good(space(BLOCKS, 3))
        assert drive.good(read(100)) == b"d" * 100

    def test_blocks_back(self, drive):
        drive.fill("abcd")
        drive.good(space(END_OF_DATA, 0))
        drive.good(space(BLOCKS, -3))
        assert drive.good(read(100)) == b"b" * 100

    @pytest.mark.parametrize(("blocks", "count"), [(0, 1), (0, 5), (2, 3), (2, 100)])
    def test_blocks_forward_stop_behind_a_filemark(self, drive, blocks, count):
        drive.fill("a" * blocks + "|bcd")
        left = count - blocks
        assert drive.sense(space(BLOCKS, count)) == sense(0, 0x0001, left, filemark=True)
        assert (drive.block, drive.file) == (blocks + 1, 1)

    @pytest.mark.parametrize(("blocks", "count"), [(0, 1), (0, 5), (2, 3), (2, 100)])
    def test_blocks_back_stop_before_a_filemark(self, drive, blocks, count):
        drive.fill("xy|" + "a" * blocks)
        drive.good(space(END_OF_DATA, 0))
        left = count - blocks
        assert drive.sense(space(BLOCKS, -count)) == sense(0, 0x0001, left, filemark=True)
        assert (drive.block, drive.file) == (2, 0)

    def test_blocks_back_reach_a_filemark_exactly_without_meeting_it(self, drive):
        drive.fill("xy|ab")
        drive.good(space(END_OF_DATA, 0))
        drive.good(space(BLOCKS, -2))
        assert (drive.block, drive.file) == (3, 1)

    def test_blocks_forward_reach_a_filemark_exactly_without_meeting_it(self, drive):
        drive.fill("ab|c")
        drive.good(space(BLOCKS, 2))
        assert (drive.block, drive.file) == (2, 0)

    @pytest.mark.parametrize("code", [BLOCKS, FILEMARKS])
    def test_forward_to_end_of_data(self, drive, code):
        drive.fill("abc" if code == BLOCKS else "a|b||")
        assert drive.sense(space(code, 10)) == sense(8, 0x0005, 7)
        assert drive.block == (3 if code == BLOCKS else 5)

    @pytest.mark.parametrize("code", [BLOCKS, FILEMARKS])
    def test_back_to_beginning_of_partition(self, drive, code):
        drive.fill("abc" if code == BLOCKS else "a|b||")
        drive.good(space(END_OF_DATA, 0))
        assert drive.sense(space(code, -10)) == sense(0, 0x0004, 7, eom=True)
        assert drive.block == 0

    @pytest.mark.parametrize(("count", "block"), [(1, 2), (2, 4), (3, 5)])
    def test_filemarks_forward_end_behind_the_mark(self, drive, count, block):
        drive.fill("a|b||c")
        drive.good(space(FILEMARKS, count))
        assert (drive.block, drive.file) == (block, count)

    @pytest.mark.parametrize(("count", "block"), [(1, 4), (2, 3), (3, 1)])
    def test_filemarks_back_end_before_the_mark(self, drive, count, block):
        drive.fill("a|b||c")
        drive.good(space(END_OF_DATA, 0))
        drive.good(space(FILEMARKS, -count))
        assert (drive.block, drive.file) == (block, 3 - count)

    @pytest.mark.parametrize("code", [BLOCKS, FILEMARKS])
    def test_by_zero_is_good_and_stays(self, drive, code):
        drive.fill("a|b")
        drive.good(space(FILEMARKS, 1))
        drive.good(space(code, 0))
        assert drive.block == 2

    def test_to_end_of_data_is_good(self, drive):
        drive.fill("a|b")
        for _ in range(2):
            drive.good(space(END_OF_DATA, 5))
            assert (drive.block, drive.file) == (3, 1)

    @pytest.mark.parametrize("code", [4, 5, 15])
    def test_by_what_cannot_be_counted_is_refused(self, drive, code):
        drive.fill("a|b")
        assert drive.sense(space(code, 1)) == invalid_field(1, 3)
        assert drive.block == 0

    def test_into_and_out_of_the_early_warning_zone_is_good(self, small):
        for _ in range(9):
            small(write(1000), bytes(1000))
        small.good(space(BLOCKS, -9))
        small.good(space(BLOCKS, 9))
        small.good(space(END_OF_DATA, 0))
        assert small.sense(space(BLOCKS, 1)) == sense(8, 0x0005, 1, eom=True)

    def test_16_bytes_say_the_same(self, drive):
        drive.fill("a|b||c")
        drive.good(bytes.fromhex("91 01 00 00") + (2).to_bytes(8, "big") + bytes(4))
        assert drive.block == 4
        far = bytes.fromhex("91 00 00 00") + (-(1 << 40)).to_bytes(8, "big", signed=True) + bytes(4)
        assert drive.sense(far) == sense(0, 0x0001, None, filemark=True), "too large to report"
        assert drive.block == 3


class TestLocate:
    @pytest.mark.parametrize("block", [0, 2, 3, 5, 6])
    def test_any_object_up_to_end_of_data(self, drive, block):
        drive.fill("ab|cd|")
        drive.good(locate(block))
        assert drive.block == block
        drive.good(REWIND)
        drive.good(locate16(block))
        assert drive.block == block

    @pytest.mark.parametrize(
        "cdb",
        [locate(4), locate(0xFFFFFFFF), locate16(4), locate16((1 << 64) - 1), locate16(2, 1)],
    )
    def test_past_end_of_data_is_blank_check_at_end_of_data(self, drive, cdb):
        drive.fill("a|b")
        assert drive.sense(cdb) == sense(8, 0x0005, None)
        assert drive.block == 3

    def test_past_end_of_data_in_the_early_warning_zone_has_eom(self, small):
        for _ in range(8):
            small(write(1000), bytes(1000))
        small.good(REWIND)
        assert small.sense(locate(99)) == sense(8, 0x0005, None, eom=True)

    @pytest.mark.parametrize(
        ("cdb", "byte"),
        [
            (bytes.fromhex("2b 02 00 00 00 00 00 00 01 00"), 8),
            (bytes.fromhex("92 02 00 01 00 00 00 00 00 00 00 00 00 00 00 00"), 3),
        ],
    )
    def test_missing_partition_is_refused_and_nothing_moves(self, drive, cdb, byte):
        drive.fill("ab")
        drive.good(read(100))
        assert drive.sense(cdb) == invalid_field(byte)
        assert drive.block == 1

    def test_partition_counts_only_with_cp(self, drive):
        drive.fill("ab")
        drive.good(bytes.fromhex("2b 00 00 00 00 00 01 00 07 00"))
        assert drive.block == 1
        drive.good(bytes.fromhex("2b 02 00 00 00 00 02 00 00 00"))
        assert drive.block == 2

    def test_block_type_bit_as_mt_seek_sends_it(self, drive):
        drive.fill("ab|c")
        drive.good(bytes.fromhex("2b 04 00 00 00 00 03 00 00 00"))
        assert drive.good(read(100)) == b"c" * 100

    @pytest.mark.parametrize(("file", "block"), [(0, 0), (1, 2), (2, 4), (3, 5)])
    def test_by_file(self, drive, file, block):
        drive.fill("a|b||c")
        drive.good(locate16(file, 1))
        assert (drive.block, drive.file) == (block, file)

    def test_to_end_of_data(self, drive):
        drive.fill("a|b")
        drive.good(locate16(0, 3))
        assert drive.block == 3

    def test_unknown_destination_is_refused(self, drive):
        assert drive.sense(locate16(0, 2)) == invalid_field(1, 4)


@pytest.mark.parametrize(
    ("cdb", "block"),
    [
        ("01 01 00 00 00 00", 0),  # REWIND
        ("2b 01 00 00 00 00 02 00 00 00", 2),  # LOCATE(10)
        ("92 01 00 00 00 00 00 00 00 00 00 02 00 00 00 00", 2),  # LOCATE(16)
        ("13 04 00 00 64 00", 2),  # VERIFY(6)
        ("10 01 00 00 01 00", 2),  # WRITE FILEMARKS(6)
        ("19 02 00 00 00 00", 1),  # ERASE(6)
        ("93 02 00 00 00 00 00 00 00 00 00 02 00 00 00 00", 2),  # ERASE(16)
        ("1b 01 00 00 01 00", 0),  # LOAD
        ("1b 00 00 00 03 00", 0),  # LOAD and wind the tape to and fro (RETEN)
    ],
)
def test_immediate_forms_are_done_when_they_are_answered(drive, cdb, block):
    drive.fill("abc")
    drive.good(read(100))
    drive.good(bytes.fromhex(cdb))
    assert drive.block == block


@pytest.mark.parametrize("cdb", ["04 01 00 00 00 00", "04 02 00 00 00 00", "0b 01 00 ff ff 00"])
def test_immediate_and_verified_formats(drive, cdb):
    drive.fill("abc")
    drive.good(bytes.fromhex(cdb))
    assert drive.sense(read(100)) == sense(8, 0x0005, 100)


@pytest.mark.parametrize("cdb", ["1b 01 00 00 00 00", "1b 00 00 00 04 00", "1b 00 00 00 02 00"])
def test_unload_at_once_at_the_end_or_after_winding(drive, cdb):
    """There is no tape to leave at one end or the other."""
    drive.fill("abc")
    drive.good(bytes.fromhex(cdb))
    assert drive.sense(bytes(6)) == sense(2, 0x3A00)
    drive.good(bytes.fromhex("1b 00 00 00 01 00"))
    assert drive.good(read(100)) == b"a" * 100
