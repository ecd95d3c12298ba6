"""WRITE, WRITE FILEMARKS and ERASE: early warning, no room, protection, and data that did not come.

IBM's LTO reference (GA32-0928-06, table 16) says the same, but where it is noted.
"""

import os
import resource

import pytest

from support.tape import (
    BLOCKS,
    END_OF_DATA,
    FILEMARKS,
    OVERHEAD,
    REWIND,
    filemarks,
    locate,
    make_drive,
    read,
    sense,
    space,
    write,
)


def set_programmable_zone(drive, megabytes):
    """MODE SELECT(10) of PEWS: the zone begins so far before early warning."""
    page = bytes.fromhex("50 01 00 1c 00 00") + megabytes.to_bytes(2, "big") + bytes(24)
    drive.good(bytes.fromhex("55 10 00 00 00 00 00 00 28 00"), bytes(8) + page)


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

    @pytest.mark.parametrize("fixed", [False, True])
    def test_full_host_disk_is_volume_overflow_with_what_was_not_written(self, drive, fixed):
        """Far from the end of the cartridge: the file system beneath it has no more room."""
        data = os.urandom(50_000)
        blocks = [data[at : at + 5000] for at in range(0, 50_000, 5000)]
        if fixed:
            drive.set_block_length(5000)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (22_000, hard))
        try:
            if fixed:
                refused = drive.sense(write(10, fixed=True), data)
            else:
                for block in blocks[:4]:
                    drive.good(write(5000), block)
                refused = drive.sense(write(5000), blocks[4])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert refused == sense(0xD, 0x0002, 6 if fixed else 5000, eom=True)
        assert drive.block == 4
        drive.good(REWIND)
        drive.set_block_length(0)
        assert [drive.good(read(5000)) for _ in range(4)] == blocks[:4]
        assert drive.sense(read(1)) == sense(8, 0x0005, 1)
        drive.good(write(5000), blocks[4])

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
        set_programmable_zone(drive, 2)
        big = bytes(1_400_000)
        drive.good(write(len(big)), big)
        drive.good(write(len(big)), big)
        assert drive.sense(write(len(big)), big) == sense(0, 0x0007, 0, eom=True)
        position = drive.good(bytes.fromhex("34 00 00 00 00 00 00 00 00 00"))
        assert position[0] & 0x41 == 0x01, "BPEW, not yet EOP"
        drive.good(write(100), bytes(100))
        assert drive.sense(write(len(big)), big) == sense(0, 0x0002, 0, eom=True)
        drive.unit.close()

    @pytest.fixture
    def zoned(self, tmp_path):
        """6 MB, early warning from 5 MB on, the programmable one 2 MB before that."""
        drive = make_drive(tmp_path / "t", capacity=6_000_000, early_warning=5_000_000)
        set_programmable_zone(drive, 2)
        yield drive
        drive.unit.close()

    def test_programmable_early_warning_comes_before_early_warning(self, zoned):
        """Where one write crosses both, its turn comes first (GA32-0928-06 4.8)."""
        zoned.good(write(2_900_000), bytes(2_900_000))
        assert zoned.sense(write(2_200_000), bytes(2_200_000)) == sense(0, 0x0007, 0, eom=True)
        assert zoned.sense(filemarks(1)) == sense(0, 0x0002, 0, eom=True)

    def test_programmable_early_warning_that_was_not_given_comes_with_the_next_write(self, zoned):
        set_programmable_zone(zoned, 0)
        zoned.good(write(3_500_000), bytes(3_500_000))
        set_programmable_zone(zoned, 2)
        assert zoned.sense(filemarks(1)) == sense(0, 0x0007, 0, eom=True)
        zoned.good(filemarks(1))

    def test_programmable_early_warning_is_given_again_when_the_zone_is_entered_again(self, zoned):
        for _ in range(2):
            assert zoned.sense(write(3_500_000), bytes(3_500_000)) == sense(0, 7, 0, eom=True)
            zoned.good(write(1), b"x")
            zoned.good(REWIND)

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
