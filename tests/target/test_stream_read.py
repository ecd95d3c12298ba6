"""READ: data, residual, bits and position for every length, mark and end that it can meet.

Each test is one row of the sense table that SSC-4 and the drives' reference manuals agree on; the
Linux st driver takes its position and its errno from exactly these. Data goes by CDB bytes, to the
unit directly and over iSCSI.
"""

import pytest

from serverfree.scsi.status import Status
from support.tape import (
    BLOCKS,
    REWIND,
    invalid_field,
    locate,
    read,
    sense,
    space,
    write,
)


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
