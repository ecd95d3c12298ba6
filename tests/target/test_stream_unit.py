"""What a tape drive says of itself, and what can be set."""

import os
from threading import Thread

import pytest

from serverfree.scsi.sense import FieldPointer
from serverfree.scsi.status import Status
from serverfree.target.units.command import Nexus
from support.tape import (
    LOAD,
    OVERHEAD,
    REWIND,
    UNLOAD,
    filemarks,
    locate,
    make_drive,
    read,
    sense,
    space,
    write,
)

POSITION = bytes.fromhex("34 00 00 00 00 00 00 00 00 00")
POSITION_VENDOR = bytes.fromhex("34 01 00 00 00 00 00 00 00 00")
POSITION_LONG = bytes.fromhex("34 06 00 00 00 00 00 00 00 00")
POSITION_EXTENDED = bytes.fromhex("34 08 00 00 00 00 00 00 ff 00")


@pytest.fixture
def drive(tmp_path):
    drive = make_drive(tmp_path / "tape")
    yield drive
    drive.unit.close()


def test_inquiry_is_that_of_a_removable_tape(drive):
    data = drive.good(bytes.fromhex("12 00 00 00 60 00"))
    assert data[0] == 0x01
    assert data[1] == 0x80, "RMB"
    assert data[8:16] == b"SRVFREE "
    assert (0x0520).to_bytes(2, "big") in data[58:74], "SSC-4"


def test_block_limits(drive):
    assert drive.good(bytes.fromhex("05 00 00 00 00 00")) == bytes.fromhex("00 ff ff fb 00 01")


class TestReadPosition:
    def test_short_forms_agree(self, drive):
        drive.fill("ab|c")
        drive.good(locate(3))
        expected = bytes.fromhex("00 00 00 00 00 00 00 03 00 00 00 03") + bytes(8)
        assert drive.good(POSITION) == expected
        assert drive.good(POSITION_VENDOR) == expected

    def test_beginning_of_partition(self, drive):
        assert drive.good(POSITION) == bytes.fromhex("80") + bytes(19)
        assert drive.good(POSITION_LONG) == bytes.fromhex("80") + bytes(31)

    def test_long_form_counts_files(self, drive):
        drive.fill("ab|c||")
        drive.good(locate(4))
        assert drive.good(POSITION_LONG) == bytes(8) + bytes.fromhex(
            "00 00 00 00 00 00 00 04 00 00 00 00 00 00 00 01"
        ) + bytes(8)
        drive.good(space(3, 0))
        assert (drive.block, drive.file) == (6, 3)

    def test_what_a_power_failure_could_take_is_in_the_buffer(self, drive):
        drive.good(write(100), bytes(100))
        drive.good(filemarks(1))
        assert drive.good(POSITION)[4:] == bytes.fromhex("00000002 00000002 00000000 00000000")
        drive.good(write(100), bytes(100))
        drive.good(filemarks(1, immediate=True))
        size = 100 + 2 * OVERHEAD
        assert drive.good(POSITION)[4:] == bytes.fromhex("00000004 00000002 00000002") + (
            size.to_bytes(4, "big")
        )
        assert drive.good(POSITION_EXTENDED) == bytes.fromhex(
            "00 00 00 1c 00 00 00 02 00 00 00 00 00 00 00 04 00 00 00 00 00 00 00 02"
        ) + size.to_bytes(8, "big")
        drive.good(filemarks(0))
        assert drive.good(POSITION)[4:] == bytes.fromhex("00000004 00000004 00000000 00000000")

    def test_extended_form_is_cut_to_its_allocation_length(self, drive):
        assert len(drive.good(bytes.fromhex("34 08 00 00 00 00 00 00 05 00"))) == 5

    def test_end_of_partition_from_early_warning_on(self, tmp_path):
        drive = make_drive(tmp_path / "t", capacity=3000, early_warning=1000)
        drive.good(write(100), bytes(100))
        assert drive.good(POSITION)[0] == 0
        drive(write(900), bytes(900))
        for form in (POSITION, POSITION_LONG, POSITION_EXTENDED):
            assert drive.good(form)[0] & 0xC0 == 0x40
        drive.unit.close()


class TestServices:
    """What every kind of unit has, at this one."""

    def test_timestamp_as_sg_timestamp_sets_it(self, drive):
        stamp = bytes.fromhex("00 00 00 00 01 8f 00 00 00 00 00 00")
        drive.good(bytes.fromhex("a4 0f 00 00 00 00 00 00 00 0c 00 00"), stamp)
        data = drive.good(bytes.fromhex("a3 0f 00 00 00 00 00 00 00 0c 00 00"))
        assert data[:3] == bytes.fromhex("00 0a 02")
        assert 0 <= int.from_bytes(data[4:10], "big") - 0x018F00000000 < 60_000

    def test_echo_buffer(self, drive):
        drive.good(bytes.fromhex("3b 0a 00 00 00 00 00 00 04 00"), b"echo")
        assert drive.good(bytes.fromhex("3c 0a 00 00 00 00 00 00 04 00")) == b"echo"

    def test_extended_self_test_finds_damage_and_moves_nothing(self, drive, tmp_path):
        drive.fill("abc")
        drive.good(bytes.fromhex("1d c0 00 00 00 00"))
        assert drive.block == 0
        log = drive.unit.medium.cartridge.directory / "part0.log"
        with log.open("r+b") as file:
            file.seek(-20, 2)
            file.write(b"XXXX")
        assert drive.sense(bytes.fromhex("1d c0 00 00 00 00")) == sense(4, 0x3E03)
        assert drive.block == 0

    def test_reservation_of_another_nexus(self, drive):
        """The table of SSC-4: only what neither moves nor tells of the medium is let by."""
        other = Nexus("iqn.test:other", "iqn.test:target")
        drive.unit.attach(other)
        drive.unit.attentions.take(other)
        register = bytes(8) + b"otherkey" + bytes(8)
        drive(bytes.fromhex("5f 00 00 00 00 00 00 00 18 00"), register, other)
        reserve = b"otherkey" + bytes(16)
        reply = drive(bytes.fromhex("5f 01 03 00 00 00 00 00 18 00"), reserve, other)
        assert reply.status is Status.GOOD
        for cdb, data in ((write(1), b"x"), (read(1), b""), (REWIND, b""), (space(3, 0), b"")):
            assert drive(cdb, data).status is Status.RESERVATION_CONFLICT
            assert drive(cdb, data, other).status is not Status.RESERVATION_CONFLICT
        drive.good(bytes.fromhex("05 00 00 00 00 00"))


COMPRESSION = "0f 0e c0 80 000000ff 000000ff 00000000"


class TestModes:
    def test_header_and_descriptor_as_linux_st_asks(self, drive):
        assert drive.good(bytes.fromhex("1a 00 00 00 0c 00")) == bytes.fromhex(
            "0b 00 10 08  f0 00 00 00 00 00 00 00"
        )
        drive.set_block_length(0x200)
        assert drive.good(bytes.fromhex("5a 00 00 00 00 00 00 00 10 00")) == bytes.fromhex(
            "00 0e 00 10 00 00 00 08  f0 00 00 00 00 00 02 00"
        )

    @pytest.mark.parametrize("density", ["00", "7f", "f0"])
    def test_density_default_same_and_own(self, drive, density):
        data = bytes.fromhex(f"00 00 10 08 {density} 00 00 00 00 00 04 00")
        drive.good(bytes.fromhex("15 10 00 00 0c 00"), data)
        assert drive.good(bytes.fromhex("1a 00 00 00 0c 00"))[4:] == bytes.fromhex(
            "f0 00 00 00 00 00 04 00"
        )

    @pytest.mark.parametrize(
        ("data", "byte", "bit"),
        [
            ("00 00 10 08 58 00 00 00 00 00 04 00", 4, None),
            ("00 00 10 08 00 00 00 01 00 00 04 00", 5, None),
            ("00 00 10 04 00 00 00 00", 3, None),
            ("00 00 20 00", 2, 6),
            # Unbuffered mode would do, and a block length, but for what comes behind them.
            ("00 00 00 08 58 00 00 00 00 00 04 00", 4, None),
            ("00 00 00 08 00 00 00 00 00 00 04 00 0f 0e 80 80" + "00" * 12, 14, 6),
            # Compression would do, but for a write mode that is none.
            (f"00 00 10 00 {COMPRESSION} 50 01 00 1c 00 f0" + "00" * 26, 25, 7),
            ("00 00 10 00 0f 0e 80 80" + "00" * 12, 6, 6),  # a drive that cannot compress
            ("00 00 10 00 10 0e 00 01" + "00" * 12, 7, 0),  # another partition
        ],
    )
    def test_what_cannot_be_is_refused_and_changes_nothing(self, drive, data, byte, bit):
        raw = bytes.fromhex(data)
        before = drive.good(bytes.fromhex("1a 00 3f ff ff 00"))
        cdb = bytes.fromhex("15 10 00 00") + bytes((len(raw), 0))
        expected = sense(5, 0x2600)
        expected.pointer = FieldPointer(byte, bit)
        assert drive.sense(cdb, raw) == expected
        assert drive.good(bytes.fromhex("1a 00 3f ff ff 00")) == before

    @pytest.mark.parametrize(
        ("code", "page"),
        [
            ("01", "01 0a" + "00" * 10),
            ("02", "02 0e" + "00" * 14),
            ("0a", "0a 0a" + "00" * 10),
            ("0f", "0f 0e 40 80 00 00 00 ff 00 00 00 ff 00 00 00 00"),
            ("10", "10 0e 00 00 00 00 00 00 40 00 10 00 00 00 00 00"),
        ],
    )
    def test_page(self, drive, code, page):
        data = drive.good(bytes.fromhex(f"1a 08 {code} 00 ff 00"))
        assert data[4:] == bytes.fromhex(page)

    def test_software_write_protect(self, drive):
        drive.good(
            bytes.fromhex("15 10 00 00 14 00"),
            bytes.fromhex("00 00 10 00 10 0e 00 00 00 00 00 00 40 00 14 00 00 00 00 00"),
        )
        assert drive.sense(write(1), b"x") == sense(7, 0x2700)
        assert drive.good(bytes.fromhex("1a 08 00 00 04 00"))[2] == 0x90
        drive.unit.reset()
        assert drive(write(1), b"x").sense == sense(6, 0x2903)
        drive.good(write(1), b"x")

    def test_change_is_told_to_the_other_nexuses_once(self, drive):
        other = Nexus("iqn.test:other", "iqn.test:target")
        drive.unit.attach(other)
        drive(bytes(6), nexus=other)
        drive.set_block_length(512)
        assert drive(bytes(6), nexus=other).sense == sense(6, 0x2A01)
        drive.set_block_length(512)
        assert drive(bytes(6), nexus=other).sense is None

    def test_unbuffered_write_lasts(self, drive):
        drive.good(bytes.fromhex("15 10 00 00 04 00"), bytes(4))
        drive.good(write(5), b"hello")
        assert drive.good(POSITION)[8:12] == (1).to_bytes(4, "big")
        assert drive.unit.medium.partition.unsynced == (0, 0)


def test_density_report(drive):
    data = drive.good(bytes.fromhex("44 01 00 00 00 00 00 ff ff 00"))
    assert data[:4] == bytes.fromhex("00 36 00 00")
    assert data[4:7] == bytes.fromhex("f0 f0 a0")
    assert len(data) == 56


def test_supported_operation_codes_list_the_service_actions_of_read_position(drive):
    data = drive.good(bytes.fromhex("a3 0c 00 00 00 00 00 00 ff ff 00 00"))
    listed = {
        (data[at], int.from_bytes(data[at + 2 : at + 4], "big")) for at in range(4, len(data), 8)
    }
    assert {(0x34, 0), (0x34, 1), (0x34, 6), (0x34, 8)} <= listed
    assert {(0x08, 0), (0x0A, 0), (0x10, 0), (0x11, 0), (0x2B, 0), (0x92, 0)} <= listed


class TestDurability:
    """What a command with a promise has put on stable storage when it ends."""

    @pytest.mark.parametrize(
        "promise", [filemarks(1), filemarks(0), REWIND, locate(0), UNLOAD, space(0, -1), LOAD]
    )
    def test_nothing_written_before_is_left_unsynced(self, drive, promise):
        partition = drive.unit.medium.partition
        drive.good(write(5), b"hello")
        assert partition.unsynced[0] == 1
        drive.good(promise)
        assert partition.unsynced == (0, 0)

    @pytest.mark.parametrize("cdb", [filemarks(1, immediate=True), filemarks(0, immediate=True)])
    def test_immediate_promises_nothing(self, drive, cdb):
        drive.good(write(5), b"hello")
        drive.good(cdb)
        assert drive.unit.medium.partition.unsynced[0]

    def test_failed_sync_is_a_write_error_until_the_cartridge_is_loaded_again(
        self, drive, monkeypatch
    ):
        drive.good(write(5), b"saved")
        drive.good(filemarks(1))
        drive.good(write(4), b"lost")

        def fail(fd):
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fail)
            assert drive.sense(filemarks(1)) == sense(3, 0x0C00)
        # The kernel may have forgotten what it could not write: a second try must not succeed.
        assert drive.sense(filemarks(1)) == sense(3, 0x0C00, 1)
        assert drive.sense(write(1), b"x") == sense(3, 0x0C00, 1)
        assert drive.sense(REWIND) == sense(3, 0x0C00)
        assert drive.sense(UNLOAD) == sense(3, 0x0C00)
        drive.good(LOAD)
        assert drive.good(read(5)) == b"saved"
        drive.good(space(3, 0))
        drive.good(write(1), b"x")
        drive.good(filemarks(1))


class TestVerify:
    """VERIFY(6) ends as READ(6) does, and brings no data."""

    def test_good(self, drive):
        drive.fill("abc")
        assert drive.good(bytes.fromhex("13 00 00 00 64 00")) == b""
        drive.set_block_length(100)
        assert drive.good(bytes.fromhex("13 01 00 00 02 00")) == b""
        assert drive.block == 3

    @pytest.mark.parametrize(
        ("tape", "cdb", "expected"),
        [
            ("A", "13 00 00 00 64 00", sense(0, 0x0000, -100, ili=True)),
            ("|", "13 00 00 00 64 00", sense(0, 0x0001, 100, filemark=True)),
            ("aA", "13 01 00 00 05 00", sense(0, 0x0000, 4, ili=True)),
            ("aa", "13 01 00 00 05 00", sense(8, 0x0005, 3)),
        ],
    )
    def test_sense(self, drive, tape, cdb, expected):
        drive.fill(tape)
        drive.set_block_length(100)
        reply = drive(bytes.fromhex(cdb))
        assert (bytes(reply.data), reply.sense) == (b"", expected)


class TestSeveralConnections:
    def test_blocks_written_at_once_stay_whole(self, drive):
        """Four threads write, each its own kind of block: none is lost, split or mixed."""

        def work(letter):
            for _ in range(100):
                drive.good(write(700), letter * 700)

        threads = [Thread(target=work, args=(bytes((65 + number,)),)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        drive.good(REWIND)
        blocks = [drive.good(read(700)) for _ in range(400)]
        assert all(block == block[:1] * 700 for block in blocks)
        assert sorted(block[0] for block in blocks) == sorted(list(b"ABCD") * 100)
        assert drive.sense(read(700)) == sense(8, 0x0005, 700)

    def test_readiness_does_not_wait_for_motion(self, drive):
        with drive.unit.lock:  # as a long command holds it
            drive.good(bytes(6))
            drive.good(bytes.fromhex("12 00 00 00 24 00"))
            drive.good(bytes.fromhex("1a 00 00 00 0c 00"))
