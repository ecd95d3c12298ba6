"""A drive with and without a medium, unit attentions, PREVENT, and what it refuses unread."""

import pytest

from serverfree.scsi.status import Status
from serverfree.target.backstore.cartridge import open_cartridge
from serverfree.target.backstore.cartridge_errors import CartridgeError
from serverfree.target.units import stream_load
from serverfree.target.units.command import Nexus
from serverfree.target.units.stream import StreamUnit
from support.tape import (
    END_OF_DATA,
    LOAD,
    REWIND,
    TEST_UNIT_READY,
    UNLOAD,
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


@pytest.fixture
def drive(tmp_path):
    drive = make_drive(tmp_path / "tape")
    yield drive
    drive.unit.close()


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
        open_cartridge = stream_load.open_cartridge

        def slow(directory):
            seen.append(drive.sense(TEST_UNIT_READY))
            return open_cartridge(directory)

        monkeypatch.setattr(stream_load, "open_cartridge", slow)
        drive.good(LOAD)
        assert seen == [sense(2, 0x0401)]

    def test_load_of_what_cannot_be_opened(self, drive):
        drive.good(UNLOAD)
        for name in ("state.A", "state.B"):
            (drive.unit.directory / name).write_bytes(b"")
        assert drive.sense(LOAD) == sense(3, 0x5300)
        assert drive.unit.alerts == {55}
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


class TestHold:
    """HOLD=1: the cartridge is in the drive, its memory within reach, its tape not."""

    HOLD_LOAD, HOLD_UNLOAD = bytes.fromhex("1b 00 00 00 09 00"), bytes.fromhex("1b 00 00 00 08 00")
    LOADS = bytes.fromhex("8c 00 00 00 00 00 00 00 00 03 00 00 00 20 00 00")

    def loads(self, drive):
        """LOAD COUNT of the cartridge's memory."""
        return int.from_bytes(drive.good(self.LOADS)[9:17], "big")

    @pytest.fixture
    def other(self, drive):
        other = Nexus("iqn.test:other", "iqn.test:target")
        drive.unit.attach(other)
        drive.unit.attentions.take(other)
        return other

    def test_unload_keeps_it_in_the_drive(self, drive, other):
        drive.fill("ab")
        drive.good(read(100))
        drive.good(self.HOLD_UNLOAD)
        for cdb in (TEST_UNIT_READY, read(100), REWIND, locate(0)):
            assert drive.sense(cdb) == sense(2, 0x3A04)
        with pytest.raises(CartridgeError, match="in use"):
            open_cartridge(drive.unit.directory)
        assert self.loads(drive) == 1
        assert drive(TEST_UNIT_READY, nexus=other).sense == sense(2, 0x3A04), "no news"
        drive.good(LOAD)
        assert self.loads(drive) == 2
        assert drive.block == 0
        assert drive.good(read(100)) == b"a" * 100
        assert drive(TEST_UNIT_READY, nexus=other).sense == sense(6, 0x2800)

    def test_load_takes_it_up_without_mounting_it(self, drive, other):
        drive.good(UNLOAD)
        drive.good(self.HOLD_LOAD)
        assert drive.sense(TEST_UNIT_READY) == sense(2, 0x3A04)
        assert drive(TEST_UNIT_READY, nexus=other).sense == sense(6, 0x3F11)
        assert self.loads(drive) == 1
        body = bytes.fromhex("00 00 00 07 08 00 01 00 02") + b"US"
        drive.good(bytes((0x8D,)) + bytes(9) + len(body).to_bytes(4, "big") + b"\0\0", body)
        drive.good(self.HOLD_LOAD)
        assert drive(TEST_UNIT_READY, nexus=other).sense == sense(2, 0x3A04), "told once"
        drive.good(LOAD)
        drive.good(TEST_UNIT_READY)

    def test_unload_lets_go_of_it(self, drive):
        drive.good(self.HOLD_UNLOAD)
        drive.good(bytes.fromhex("1e 00 00 00 01 00"))
        assert drive.sense(UNLOAD) == sense(5, 0x5302)
        drive.good(bytes.fromhex("1e 00 00 00 00 00"))
        drive.good(UNLOAD)
        assert drive.sense(TEST_UNIT_READY) == sense(2, 0x3A00)
        assert drive.sense(self.LOADS) == sense(2, 0x3A00)
        open_cartridge(drive.unit.directory).close()
        drive.good(self.HOLD_UNLOAD)
        assert drive.sense(TEST_UNIT_READY) == sense(2, 0x3A00), "there was nothing to keep"

    def test_prevention_does_not_keep_it_mounted(self, drive):
        drive.good(bytes.fromhex("1e 00 00 00 01 00"))
        drive.good(self.HOLD_UNLOAD)
        assert drive.sense(TEST_UNIT_READY) == sense(2, 0x3A04)

    def test_what_was_written_lasts(self, drive):
        drive.good(write(4), b"last")
        partition = drive.unit.medium.partition
        drive.good(self.HOLD_UNLOAD)
        assert partition.unsynced == (0, 0)
