"""What a tape drive says when something is not as asked: key, code, bits, INFORMATION, position.

Each test is one row of the sense table that SSC-4 and the drives' reference manuals agree on; the
Linux st driver takes its position and its errno from exactly these. Data goes by CDB bytes. IBM's
LTO reference (GA32-0928-06, table 16) says the same, but for two rows, noted where they are.
"""

import os

import pytest

from serverfree.scsi.sense import FieldPointer
from serverfree.scsi.status import Status
from serverfree.target.units import stream
from serverfree.target.units.command import Lane, Nexus
from serverfree.target.units.stream import StreamUnit
from support.tape import (
    LOAD,
    OVERHEAD,
    REWIND,
    TEST_UNIT_READY,
    UNLOAD,
    Drive,
    filemarks,
    locate,
    locate16,
    make_drive,
    read,
    sense,
    space,
    write,
)

BLOCKS, FILEMARKS, END_OF_DATA = 0, 1, 3


@pytest.fixture
def drive(tmp_path):
    drive = make_drive(tmp_path / "tape")
    yield drive
    drive.unit.close()


@pytest.fixture
def small(tmp_path):
    """Room for ten blocks of 1000 bytes, early warning after the eighth."""
    block = 1000 + OVERHEAD
    drive = make_drive(tmp_path / "small", capacity=10 * block, early_warning=8 * block)
    yield drive
    drive.unit.close()


def invalid_field(byte, bit=None):
    expected = sense(5, 0x2400)
    expected.pointer = FieldPointer(byte, bit, in_cdb=True)
    return expected


class TestVariableRead:
    def test_shorter_block_gives_its_data_and_the_positive_difference(self, drive):
        drive.fill("ab")
        reply = drive(read(250))
        assert bytes(reply.data) == b"a" * 100
        assert reply.sense == sense(0, 0x0000, 150, ili=True)
        assert drive.block == 1

    def test_longer_block_gives_what_was_asked_and_the_negative_difference(self, drive):
        drive.fill("ab")
        reply = drive(read(30))
        assert bytes(reply.data) == b"a" * 30
        assert reply.sense.pack()[3:7] == (-70).to_bytes(4, "big", signed=True)
        assert drive.block == 1, "the rest of the block is lost"

    def test_longer_block_counterproof_by_raw_bytes(self, drive):
        drive.fill("a")
        reply = drive(read(30))
        assert reply.status is Status.CHECK_CONDITION
        # 70h with VALID, ILI and NO SENSE, INFORMATION, additional length 10, 00/00
        assert reply.sense.pack().hex() == "f00020ffffffba0a" + "00" * 10

    def test_sili_makes_a_shorter_block_good(self, drive):
        drive.fill("ab")
        assert drive.good(read(250, sili=True)) == b"a" * 100
        assert drive.block == 1

    def test_sili_makes_a_longer_block_good_in_variable_mode(self, drive):
        drive.fill("ab")
        assert drive.good(read(30, sili=True)) == b"a" * 30
        assert drive.block == 1

    def test_sili_does_not_hide_a_longer_block_while_a_block_length_is_set(self, drive):
        drive.fill("ab")
        drive.set_block_length(512)
        reply = drive(read(30, sili=True))
        assert reply.sense == sense(0, 0x0000, -70, ili=True)
        assert bytes(reply.data) == b"a" * 30
        drive.good(REWIND)
        assert drive.good(read(250, sili=True)) == b"a" * 100, "shorter stays silent"

    @pytest.mark.parametrize("sili", [False, True])
    def test_exact_block_is_good(self, drive, sili):
        drive.fill("a")
        assert drive.good(read(100, sili=sili)) == b"a" * 100

    def test_filemark_is_reported_and_passed(self, drive):
        drive.fill("|a")
        assert drive.sense(read(77)) == sense(0, 0x0001, 77, filemark=True)
        assert (drive.block, drive.file) == (1, 1)
        assert drive.good(read(100)) == b"a" * 100

    @pytest.mark.parametrize("sili", [False, True])
    def test_end_of_data_is_blank_check_without_eom(self, drive, sili):
        drive.fill("a")
        drive.good(read(100))
        for _ in range(2):
            assert drive.sense(read(77, sili=sili)) == sense(8, 0x0005, 77)
            assert drive.block == 1

    def test_length_zero_moves_nothing(self, drive):
        drive.fill("a|")
        assert drive.good(read(0)) == b""
        assert drive.block == 0

    def test_end_of_data_in_the_early_warning_zone_has_eom(self, small):
        for _ in range(8):
            small(write(1000), bytes(1000))
        assert small.sense(read(10)) == sense(8, 0x0005, 10, eom=True)


class TestFixedRead:
    @pytest.fixture(autouse=True)
    def _blocks_of_100(self, drive):
        drive.set_block_length(100)

    def test_several_blocks_come_in_order(self, drive):
        drive.fill("abcd")
        assert drive.good(read(3, fixed=True)) == b"a" * 100 + b"b" * 100 + b"c" * 100
        assert drive.block == 3

    def test_sili_with_fixed_is_refused(self, drive):
        drive.fill("a")
        assert drive.sense(read(1, fixed=True, sili=True)) == invalid_field(1, 1)
        assert drive.block == 0

    @pytest.mark.parametrize("cdb", [read(1, fixed=True), write(1, fixed=True)])
    def test_fixed_without_a_block_length_is_refused(self, drive, cdb):
        drive.fill("a")
        drive.set_block_length(0)
        assert drive.sense(cdb, bytes(100)) == invalid_field(1, 0)
        assert drive.block == 0
        assert drive.good(read(100)) == b"a" * 100

    @pytest.mark.parametrize(("tape", "good"), [("abCd", 2), ("Cabd", 0), ("aC", 1)])
    def test_wrong_length_is_not_counted_and_passed(self, drive, tape, good):
        drive.fill(tape)
        reply = drive(read(4, fixed=True))
        assert reply.sense == sense(0, 0x0000, 4 - good, ili=True)
        assert bytes(reply.data) == b"".join(c.encode() * 100 for c in tape[:good])
        assert drive.block == good + 1

    @pytest.mark.parametrize(("tape", "good"), [("ab|cd", 2), ("|ab", 0)])
    def test_filemark_ends_it_with_the_blocks_before(self, drive, tape, good):
        drive.fill(tape)
        reply = drive(read(4, fixed=True))
        assert reply.sense == sense(0, 0x0001, 4 - good, filemark=True)
        assert bytes(reply.data) == b"".join(c.encode() * 100 for c in tape[:good])
        assert drive.block == good + 1

    @pytest.mark.parametrize("tape", ["", "a", "abc"])
    def test_end_of_data_ends_it_with_the_blocks_before(self, drive, tape):
        drive.fill(tape)
        reply = drive(read(4, fixed=True))
        assert reply.sense == sense(8, 0x0005, 4 - len(tape))
        assert bytes(reply.data) == b"".join(c.encode() * 100 for c in tape)
        assert drive.block == len(tape)

    def test_more_than_can_be_held_at_once_is_refused(self, drive):
        drive.fill("a")
        assert drive.sense(read(0xFFFFFF, fixed=True)) == invalid_field(2)
        drive.set_block_length(1 << 20)
        assert drive.sense(read(33, fixed=True)) == invalid_field(2)
        assert drive.unit.data_out_length(write(33, fixed=True)) == 0
        assert drive.unit.data_out_length(write(2, fixed=True)) == 2 << 20


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


class TestWrite:
    def test_crossing_early_warning_is_reported_though_all_is_written(self, small):
        for _ in range(7):
            small.good(write(1000), bytes(1000))
        for count in (8, 9):
            data = bytes((count,)) * 1000
            assert small.sense(write(1000), data) == sense(0, 0x0002, 0, eom=True)
            assert small.block == count
        small.good(locate(7))
        assert small.good(read(1000)) == b"\x08" * 1000

    def test_no_room_is_volume_overflow_with_all_bytes_unwritten(self, small):
        for _ in range(10):
            small(write(1000), bytes(1000))
        for _ in range(2):
            assert small.sense(write(1000), bytes(1000)) == sense(0xD, 0x0002, 1000, eom=True)
            assert small.block == 10
        small.good(space(BLOCKS, -1))
        assert small.good(read(1000)) == bytes(1000)

    def test_no_room_for_all_fixed_blocks_counts_those_left(self, small):
        small.set_block_length(1000)
        data = os.urandom(12000)
        assert small.sense(write(12, fixed=True), data) == sense(0xD, 0x0002, 2, eom=True)
        assert small.block == 10
        small.good(REWIND)
        reply = small(read(12, fixed=True))
        assert bytes(reply.data) == data[:10000]
        assert reply.sense == sense(8, 0x0005, 2, eom=True)

    def test_several_fixed_blocks_into_the_early_warning_zone_are_all_written(self, small):
        """(IBM's drives stop behind the first and say so in INFORMATION.)"""
        small.set_block_length(1000)
        data = os.urandom(9000)
        assert small.sense(write(9, fixed=True), data) == sense(0, 0x0002, 0, eom=True)
        small.good(REWIND)
        assert small.good(read(9, fixed=True)) == data

    def test_overwrite_without_room_for_one_block_destroys_nothing(self, small):
        for _ in range(9):
            small(write(1000), bytes(1000))
        small.good(locate(8))
        assert small.sense(write(3000), bytes(3000)) == sense(0xD, 0x0002, 3000, eom=True)
        assert small.good(read(1000)) == bytes(1000)

    def test_filemark_in_the_early_warning_zone(self, small):
        for _ in range(8):
            small(write(1000), bytes(1000))
        assert small.sense(filemarks(1)) == sense(0, 0x0002, 0, eom=True)
        assert (small.block, small.file) == (9, 1)
        small.good(filemarks(0))

    def test_filemarks_at_the_end_count_those_left(self, small):
        for _ in range(10):
            small(write(1000), bytes(1000))
        small.good(space(BLOCKS, -1))
        room = (1000 + OVERHEAD) // OVERHEAD
        assert small.sense(filemarks(room + 5)) == sense(0xD, 0x0002, 5, eom=True)
        assert (small.block, small.file) == (9 + room, room)
        assert small.sense(filemarks(1)) == sense(0xD, 0x0002, 1, eom=True)

    def test_programmable_early_warning_is_given_once_where_it_is_crossed(self, tmp_path):
        drive = make_drive(tmp_path / "t", capacity=6_000_000, early_warning=5_000_000)
        page = bytes.fromhex("50 01 00 1c 00 00 00 02") + bytes(24)  # 2 MB before early warning
        drive.good(bytes.fromhex("55 10 00 00 00 00 00 00 28 00"), bytes(8) + page)
        big = bytes(1_400_000)
        drive.good(write(len(big)), big)
        drive.good(write(len(big)), big)
        assert drive.sense(write(len(big)), big) == sense(0, 0x0007, 0, eom=True)
        position = drive.good(bytes.fromhex("34 00 00 00 00 00 00 00 00 00"))
        assert position[0] & 0x41 == 0x01, "BPEW, not yet EOP"
        drive.good(write(100), bytes(100))
        assert drive.sense(write(len(big)), big) == sense(0, 0x0002, 0, eom=True)
        drive.unit.close()

    def test_write_in_the_middle_ends_the_data_there(self, drive):
        drive.fill("ab|cd|")
        drive.good(locate(1))
        drive.good(write(3), b"new")
        assert drive.sense(read(10)) == sense(8, 0x0005, 10)
        drive.good(REWIND)
        assert drive.good(read(100)) == b"a" * 100
        assert drive.good(read(3)) == b"new"
        assert drive.sense(space(FILEMARKS, 1)) == sense(8, 0x0005, 1)

    def test_write_protected_cartridge(self, drive):
        drive.fill("ab")
        drive.unit.medium.cartridge.protect(True)
        for cdb, data in [
            (write(3), b"new"),
            (filemarks(1), b""),
            (bytes.fromhex("19 01 00 00 00 00"), b""),
        ]:
            assert drive.sense(cdb, data) == sense(7, 0x2700)
        assert drive.block == 0
        assert drive.good(bytes.fromhex("1a 00 00 00 0c 00"))[2] == 0x90, "WP, buffered"
        drive.good(filemarks(0))
        assert drive.good(read(100)) == b"a" * 100
        drive.good(space(END_OF_DATA, 0))

    def test_length_zero_writes_nothing(self, drive):
        drive.fill("ab")
        drive.good(write(0))
        assert drive.good(read(100)) == b"a" * 100

    def test_data_that_did_not_all_come_is_not_made_up(self, drive):
        assert drive.sense(write(10), b"short") == sense(0xB, 0x4B00, 10)
        assert drive.block == 0
        drive.set_block_length(4)
        assert drive.sense(write(3, fixed=True), b"aaaabbbbcc") == sense(0xB, 0x4B00, 1)
        assert drive.block == 2
        drive.good(REWIND)
        assert drive.good(read(2, fixed=True)) == b"aaaabbbb"

    @pytest.mark.parametrize("length", [0, 100])
    def test_overwrite_whose_data_did_not_come_destroys_nothing(self, drive, length):
        drive.fill("ab")
        drive.set_block_length(length)
        cdb = write(3, fixed=True) if length else write(100)
        assert drive.sense(cdb, b"x" * 99).asc == 0x4B00
        assert drive.block == 0
        assert [drive.good(read(100)) for _ in range(2)] == [b"a" * 100, b"b" * 100]

    def test_surplus_data_is_left_alone(self, drive):
        drive.good(write(3), b"abcdef")
        drive.good(REWIND)
        assert drive.good(read(3)) == b"abc"

    def test_longest_block(self, tmp_path):
        drive = make_drive(tmp_path / "t", capacity=1 << 25)
        data = os.urandom(1 << 16) * 255 + os.urandom((1 << 16) - 1)
        drive.good(write(0xFFFFFF), data)
        drive.good(REWIND)
        assert drive.good(read(0xFFFFFF)) == data
        drive.unit.close()

    def test_erase_drops_what_follows(self, drive):
        for bits in ("00", "01", "02", "03"):
            drive.fill("ab|c")
            drive.good(locate(1))
            drive.good(bytes.fromhex(f"19 {bits} 00 00 00 00"))
            assert drive.block == 1
            assert drive.sense(read(1)) == sense(8, 0x0005, 1)
            drive.good(REWIND)
            assert drive.good(read(100)) == b"a" * 100
            drive.good(REWIND)


class TestDamagedMedium:
    """A block that cannot be read is passed, as on HP's drives, so that a reader gets at the next.

    (IBM's stay before it.)
    """

    @pytest.fixture
    def damaged(self, drive):
        """`a b c d`, of which b can no longer be read."""
        drive.fill("abcd")
        log = drive.unit.medium.cartridge.directory / "part0.log"
        raw = log.read_bytes()
        at = raw.index(b"b" * 100) + 50
        with log.open("r+b") as file:
            file.seek(at)
            file.write(b"?")
        return drive

    def test_variable_read(self, damaged):
        damaged.good(read(100))
        assert damaged.sense(read(100, sili=True)) == sense(3, 0x1100, 100)
        assert damaged.block == 2
        assert damaged.good(read(100)) == b"c" * 100

    def test_fixed_read_counts_the_good_blocks_before(self, damaged):
        damaged.set_block_length(100)
        reply = damaged(read(4, fixed=True))
        assert reply.sense == sense(3, 0x1100, 3)
        assert bytes(reply.data) == b"a" * 100
        assert damaged.block == 2

    def test_space_and_locate_pass_it(self, damaged):
        damaged.good(space(BLOCKS, 3))
        damaged.good(space(BLOCKS, -1))
        assert damaged.good(read(100)) == b"c" * 100
        damaged.good(locate(1))
        assert damaged.sense(bytes.fromhex("13 00 00 00 64 00")) == sense(3, 0x1100, 100)


class TestReadiness:
    def test_no_medium(self):
        nexus = Nexus("i", "t")
        empty = Drive(StreamUnit("empty", None), nexus)
        for cdb in (
            TEST_UNIT_READY,
            read(1),
            write(0),
            filemarks(0),
            space(END_OF_DATA, 0),
            locate(0),
            REWIND,
            LOAD,
            bytes.fromhex("34 00 00 00 00 00 00 00 00 00"),
            bytes.fromhex("19 00 00 00 00 00"),
        ):
            assert empty.sense(cdb) == sense(2, 0x3A00)
        empty.good(UNLOAD)
        empty.good(bytes.fromhex("05 00 00 00 00 00"))

    def test_unloaded_then_loaded(self, drive):
        other = Nexus("iqn.test:other", "iqn.test:target")
        drive.unit.attach(other)
        assert drive(TEST_UNIT_READY, nexus=other).sense == sense(6, 0x2900)
        assert drive(TEST_UNIT_READY, nexus=other).status is Status.GOOD
        drive.fill("ab")
        drive.good(read(100))
        drive.good(UNLOAD)
        assert drive.sense(TEST_UNIT_READY) == sense(2, 0x3A00)
        assert drive.sense(read(100)) == sense(2, 0x3A00)
        drive.good(LOAD)
        assert drive.block == 0
        assert drive.good(read(100)) == b"a" * 100
        assert drive(TEST_UNIT_READY, nexus=other).sense == sense(6, 0x2800)
        assert drive(TEST_UNIT_READY, nexus=other).status is Status.GOOD

    def test_load_of_a_loaded_medium_rewinds_and_tells_no_one(self, drive):
        other = Nexus("iqn.test:other", "iqn.test:target")
        drive.unit.attach(other)
        drive(TEST_UNIT_READY, nexus=other)
        drive.fill("ab")
        drive.good(read(100))
        drive.good(LOAD)
        assert drive.block == 0
        assert drive(TEST_UNIT_READY, nexus=other).status is Status.GOOD

    def test_while_loading(self, drive, monkeypatch):
        drive.good(UNLOAD)
        seen = []
        open_cartridge = stream.open_cartridge

        def slow(directory):
            seen.append(drive.sense(TEST_UNIT_READY))
            return open_cartridge(directory)

        monkeypatch.setattr(stream, "open_cartridge", slow)
        drive.good(LOAD)
        assert seen == [sense(2, 0x0401)]

    def test_load_of_what_cannot_be_opened(self, drive):
        drive.good(UNLOAD)
        for name in ("state.A", "state.B"):
            (drive.unit._directory / name).write_bytes(b"")
        assert drive.sense(LOAD) == sense(3, 0x5300)
        assert drive.sense(TEST_UNIT_READY) == sense(2, 0x3A00)

    def test_power_on_is_told_first(self, drive):
        new = Nexus("iqn.test:new", "iqn.test:target")
        drive.unit.attach(new)
        reply = drive(read(1), nexus=new)
        assert reply.sense == sense(6, 0x2900)
        assert reply.sense.pack()[0] == 0x70

    def test_removal_is_prevented_until_every_nexus_allows_it(self, drive):
        other = Nexus("iqn.test:other", "iqn.test:target")
        drive.unit.attach(other)
        drive(TEST_UNIT_READY, nexus=other)
        prevent, allow = bytes.fromhex("1e 00 00 00 01 00"), bytes.fromhex("1e 00 00 00 00 00")
        drive.good(prevent)
        drive(prevent, nexus=other)
        drive.good(allow)
        assert drive.sense(UNLOAD) == sense(5, 0x5302)
        drive.unit.detach(other)
        drive.good(UNLOAD)
        drive.good(LOAD)
        drive.good(prevent)
        drive.unit.reset()
        assert drive.sense(UNLOAD) == sense(6, 0x2903)
        drive.good(UNLOAD)
        assert drive.sense(bytes.fromhex("1e 00 00 00 02 00")) == invalid_field(4, 1)

    def test_unknown_operation_code(self, drive):
        assert drive.sense(bytes.fromhex("0c 00 00 00 00 00")) == sense(5, 0x2000)

    @pytest.mark.parametrize(
        ("cdb", "byte", "bit"),
        [
            ("08 04 00 00 01 00", 1, 2),
            ("0a 02 00 00 01 00", 1, 1),
            ("10 02 00 00 01 00", 1, 1),
            ("01 80 00 00 00 00", 1, 7),
            ("1b 00 00 00 08 00", 4, 3),
            ("1b 00 00 00 05 00", 4, 2),
            ("05 02 00 00 00 00", 1, 1),
            ("34 02 00 00 00 00 00 00 00 00", 1, 4),
            ("34 00 00 00 00 00 00 00 20 00", 8, 5),
        ],
    )
    def test_field_that_is_not_honoured_is_pointed_at(self, drive, cdb, byte, bit):
        drive.fill("a")
        assert drive.sense(bytes.fromhex(cdb), b"x") == invalid_field(byte, bit)
        assert drive.block == 0


class TestLanes:
    """What may hold up a connection is not run on it."""

    def test_reads_and_appends_are_inline_and_motion_is_not(self, drive):
        lane = drive.unit.lane
        drive.fill("ab|")
        assert lane(read(1)) is Lane.INLINE
        assert lane(write(1)) is Lane.QUEUED, "it would cut the tape"
        drive.good(space(END_OF_DATA, 0))
        assert lane(write(1)) is Lane.INLINE
        for cdb in (filemarks(1), space(0, 1), locate(0), REWIND, LOAD, UNLOAD):
            assert lane(cdb) is Lane.QUEUED
        with drive.unit.lock:
            assert lane(read(1)) is Lane.QUEUED
            assert lane(write(1)) is Lane.QUEUED
        drive.good(UNLOAD)
        assert lane(write(1)) is Lane.QUEUED

    def test_unbuffered_writes_wait_for_the_medium(self, drive):
        drive.good(bytes.fromhex("15 10 00 00 04 00"), bytes(4))
        assert drive.unit.lane(write(1)) is Lane.QUEUED
