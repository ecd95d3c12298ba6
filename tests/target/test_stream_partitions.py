"""Partitions: mode page 11h as real hosts send it, FORMAT MEDIUM, SET CAPACITY, LOCATE with CP."""

import pytest

from serverfree.scsi.sense import FieldPointer
from serverfree.target.backstore.cartridge import open_cartridge
from support.tape import (
    OVERHEAD,
    REWIND,
    filemarks,
    locate16,
    make_drive,
    read,
    sense,
    space,
    write,
)

MB = 1_000_000
SENSE_11 = bytes.fromhex("1a 08 11 00 ff 00")
SENSE_PARTITION = bytes.fromhex("1a 08 10 00 ff 00")
POSITION_LONG = bytes.fromhex("34 06 00 00 00 00 00 00 00 00")


@pytest.fixture
def drive(tmp_path):
    drive = make_drive(tmp_path / "tape", capacity=100 * MB)
    yield drive
    drive.unit.close()


def format_medium(form):
    return bytes((4, 0, form, 0, 0, 0))


def select(drive, page):
    """MODE SELECT(6) with PF=1 and no block descriptor, as `partition_tape` of Linux st."""
    raw = bytes.fromhex("00 00 10 00") + page
    return drive(bytes((0x15, 0x10, 0, 0, len(raw), 0)), raw)


def to(partition, block=0):
    """LOCATE(16) with CP=1."""
    return bytes((0x92, 2, 0, partition)) + block.to_bytes(8, "big") + bytes(4)


def sizes(drive):
    return [each.capacity for each in drive.unit.medium.cartridge.partitions]


def test_page_of_a_medium_with_one_partition(drive):
    # 3 more possible, none defined, PSUM=3 and POFM, recognizes all, unit 10**6, 100 of them
    page = "11 0e 03 00 1c 03 06 00 00 64 00 00 00 00 00 00"
    assert drive.good(SENSE_11)[4:] == bytes.fromhex(page)


def test_as_linux_st_partitions_with_two_sizes_in_a_shorter_page(drive):
    """`mt mkpartition 30`: the rest first, then 30 MB; st cuts the page to two sizes."""
    page = bytes.fromhex("11 0a 03 01 34 03 00 00 ff ff 00 1e")
    assert select(drive, page).sense is None
    assert sizes(drive) == [100 * MB], "nothing happens before FORMAT MEDIUM"
    drive.good(format_medium(1))
    assert sizes(drive) == [70 * MB, 30 * MB]
    assert drive.good(SENSE_11)[4:] == bytes.fromhex(
        "11 0e 03 01 1c 03 06 00 00 46 00 1e 00 00 00 00"
    )


def test_as_linux_st_partitions_with_the_first_one_given(drive):
    select(drive, bytes.fromhex("11 0a 03 01 34 03 00 00 00 14 ff ff"))
    drive.good(format_medium(1))
    assert sizes(drive) == [20 * MB, 80 * MB]


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("11 0e 03 03 3c 03 06 00 00 0a 00 14 ff ff 00 1e", [10, 20, 40, 30]),
        ("11 0e 03 03 5c 03 00 00 00 00 00 00 00 00 00 00", [25, 25, 25, 25]),
        ("11 06 03 02 5c 03 00 00", [100 / 3] * 3),  # no sizes, none needed
        ("11 0a 03 01 2c 03 00 00 03 e8 ff ff", [1, 99]),  # PSUM 1: 1000 times 1000 bytes
    ],
)
def test_up_to_four_partitions(drive, page, expected):
    assert select(drive, bytes.fromhex(page)).sense is None
    drive.good(format_medium(2))
    assert sizes(drive) == [int(each * MB) for each in expected]


def test_fdp_makes_a_small_second_partition(drive):
    select(drive, bytes.fromhex("11 0a 03 01 9c 03 00 00 ff ff 00 01"))
    drive.good(format_medium(1))
    assert sizes(drive) == [93_750_000, 6_250_000]


@pytest.mark.parametrize(
    "page",
    [
        "11 0e 03 04 3c 03 06 00 00 01 00 01 00 01 00 01",  # a fifth
        "11 0e 03 01 3c 03 06 00 ff ff ff ff 00 00 00 00",  # two rests
        "11 0e 03 01 3c 03 06 00 00 5a 00 14 00 00 00 00",  # 90 + 20 MB
        "11 0e 03 01 3c 03 06 00 00 64 ff ff 00 00 00 00",  # no rest
        "11 0e 03 01 3c 03 06 00 00 00 ff ff 00 00 00 00",  # an empty one
        "11 0e 03 01 1c 03 06 00 00 0a ff ff 00 00 00 00",  # no way chosen
        "11 0e 03 01 7c 03 06 00 00 0a ff ff 00 00 00 00",  # two ways chosen
    ],
)
def test_partitions_that_cannot_be(drive, page):
    expected = sense(5, 0x2600)
    expected.pointer = FieldPointer(4 + 3)  # behind the header
    assert select(drive, bytes.fromhex(page)).sense == expected
    drive.good(format_medium(1))
    assert sizes(drive) == [100 * MB]


def test_page_sent_back_as_it_came_changes_nothing(drive):
    page = drive.good(SENSE_11)[4:]
    assert select(drive, page).sense is None
    drive.good(write(5), b"stays")
    drive.good(REWIND)
    assert drive.good(read(5)) == b"stays"


class TestTwo:
    """A tape of 70 and 30 MB."""

    @pytest.fixture
    def two(self, drive):
        select(drive, bytes.fromhex("11 0a 03 01 34 03 00 00 ff ff 00 1e"))
        drive.good(format_medium(1))
        return drive

    def test_each_has_its_own_data_and_end(self, two):
        two.good(write(3), b"one")
        two.good(to(1))
        two.good(write(3), b"two")
        two.good(filemarks(1))
        assert two.good(SENSE_PARTITION)[7] == 1, "ACTIVE PARTITION"
        two.good(to(0))
        assert two.good(read(3)) == b"one"
        assert two.sense(read(3)) == sense(8, 0x0005, 3)
        two.good(to(1))
        assert two.good(read(3)) == b"two"

    def test_load_goes_to_the_beginning_of_the_first(self, two):
        two.good(to(1))
        two.good(bytes.fromhex("1b 00 00 00 01 00"))
        assert two.good(POSITION_LONG)[4:16] == bytes(12)

    def test_rewind_and_space_stay_in_the_partition(self, two):
        two.good(to(1))
        two.good(write(3), b"two")
        two.good(REWIND)
        position = two.good(POSITION_LONG)
        assert (position[0] & 0x80, position[4:8]) == (0x80, b"\0\0\0\1")
        two.good(space(3, 0))
        assert two.good(POSITION_LONG)[4:16] == b"\0\0\0\1" + bytes(7) + b"\1"

    @pytest.mark.parametrize(
        ("cdb", "byte"),
        [(to(2), 3), (bytes.fromhex("2b 02 00 00 00 00 00 00 02 00"), 8)],
    )
    def test_missing_partition_is_pointed_at_and_nothing_moves(self, two, cdb, byte):
        two.good(write(3), b"one")
        expected = sense(5, 0x2400)
        expected.pointer = FieldPointer(byte, in_cdb=True)
        assert two.sense(cdb) == expected
        assert two.block == 1

    def test_partition_counts_only_with_cp(self, two):
        two.good(write(3), b"one")
        two.good(bytes((0x92, 0, 0, 1)) + bytes(12))
        assert two.good(POSITION_LONG)[4:16] == bytes(12)

    def test_survives_unload_and_the_process(self, two):
        two.good(to(1))
        two.good(write(3), b"two")
        two.unit.medium.cartridge.sync()
        two.unit.medium.cartridge.abandon()
        again = open_cartridge(two.unit.medium.cartridge.directory)
        assert [bytes(again.partitions[1].read(0)), again.partitions[0].eod] == [b"two", 0]
        again.close()

    @pytest.mark.parametrize("cdb", [format_medium(0), bytes.fromhex("0b 00 00 ff ff 00")])
    def test_format_elsewhere_than_at_the_beginning(self, two, cdb):
        two.good(to(1))
        assert two.sense(cdb) == sense(5, 0x3B0C)
        two.good(to(0))
        two.good(write(1), b"x")
        assert two.sense(cdb) == sense(5, 0x3B0C)

    def test_format_empties_and_makes_one_again(self, two):
        two.good(write(3), b"one")
        two.good(to(1))
        two.good(write(3), b"two")
        two.good(to(0))
        two.good(format_medium(0))
        assert sizes(two) == [100 * MB]
        assert two.sense(read(3)) == sense(8, 0x0005, 3)
        directory = two.unit.medium.cartridge.directory
        assert sorted(path.name for path in directory.glob("part*")) == ["part0.idx", "part0.log"]

    def test_early_warning_and_overflow_come_in_each(self, tmp_path):
        drive = make_drive(tmp_path / "small", capacity=100_000)
        drive.unit.medium.cartridge.format([80_000, 20_000])
        drive.good(to(1))
        assert drive.sense(write(19_000), bytes(19_000)) == sense(0, 0x0002, 0, eom=True)
        assert drive.sense(write(1000), bytes(1000)) == sense(0xD, 0x0002, 1000, eom=True)
        drive.good(to(0))
        drive.good(write(60_000), bytes(60_000))
        drive.unit.close()


class TestCapacity:
    def test_half_of_the_medium_in_one_partition(self, drive):
        drive.good(write(3), b"old")
        drive.good(REWIND)
        drive.good(bytes.fromhex("0b 00 00 80 00 00"))
        assert sizes(drive) == [100 * MB * 0x8000 // 0xFFFF]
        assert drive.sense(read(3)) == sense(8, 0x0005, 3)
        drive.good(bytes.fromhex("0b 00 00 ff ff 00"))
        assert sizes(drive) == [100 * MB]

    def test_partitions_are_made_within_it(self, drive):
        drive.good(bytes.fromhex("0b 00 00 80 00 00"))
        assert (
            select(drive, bytes.fromhex("11 0a 03 01 3c 03 06 00 ff ff 00 3c")).sense.asc == 0x2600
        )
        assert select(drive, bytes.fromhex("11 0a 03 01 3c 03 06 00 ff ff 00 1e")).sense is None
        drive.good(format_medium(1))
        assert sizes(drive) == [100 * MB * 0x8000 // 0xFFFF - 30 * MB, 30 * MB]

    def test_what_another_medium_made_impossible_is_noticed_by_format(self, drive):
        select(drive, bytes.fromhex("11 0a 03 01 3c 03 06 00 ff ff 00 3c"))
        drive.unit.medium.cartridge.format([50 * MB], usable=50 * MB)
        assert drive.sense(format_medium(1)) == sense(5, 0x2602)

    @pytest.mark.parametrize("cdb", [format_medium(0), bytes.fromhex("0b 00 00 ff ff 00")])
    def test_write_protection(self, drive, cdb):
        drive.unit.medium.cartridge.protect(True)
        assert drive.sense(cdb) == sense(7, 0x2700)


def test_a_position_of_another_partition_is_not_this_ones(tmp_path):
    """LOCATE to a block that only the other partition has is end of data here."""
    drive = make_drive(tmp_path / "t", capacity=10 * MB)
    drive.unit.medium.cartridge.format([5 * MB, 5 * MB])
    drive.good(to(1))
    for _ in range(3):
        drive.good(write(10), bytes(10))
    drive.good(to(0))
    assert drive.sense(locate16(2)) == sense(8, 0x0005)
    drive.unit.close()


def test_nothing_of_a_partition_that_went_is_left(tmp_path):
    """Partitions made anew hold nothing, whatever their logs held before."""
    drive = make_drive(tmp_path / "t", capacity=10 * MB)
    cartridge = drive.unit.medium.cartridge
    for _ in range(3):
        cartridge.format([5 * MB, 5 * MB])
        for partition in cartridge.partitions:
            assert partition.eod == 0
            partition.append([b"x" * 100])
        cartridge.sync()
        cartridge.format([10 * MB])
        assert cartridge.partitions[0].eod == 0
        assert cartridge.partitions[0].used == 0
        cartridge.partitions[0].append([b"y" * 100])
        assert cartridge.partitions[0].used == 100 + OVERHEAD
    drive.unit.close()
