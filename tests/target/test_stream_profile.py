"""What a drive gives itself out as: every place that software looks at, and what it relies on."""

from pathlib import Path

import pytest

from serverfree.target.backstore.cartridge import open_cartridge
from serverfree.target.config import ConfigError, TapeConfig
from serverfree.target.units.command import Nexus
from serverfree.target.units.stream import StreamUnit
from serverfree.target.units.stream_profile import OWN, PROFILES
from support.tape import REWIND, Drive, read, sense, space, write

INQUIRY = bytes.fromhex("12 00 00 00 60 00")
MODE_SENSE = bytes.fromhex("1a 00 3f 00 ff 00")
DENSITIES = bytes.fromhex("44 00 00 00 00 00 00 ff ff 00")
MEDIA = bytes.fromhex("44 03 00 00 00 00 00 ff ff 00")

# LTFS: ibm_tape.c (names), tape_ops.h (densities), tape_drivers.h (data and WORM cartridges).
KNOWN = {
    "lto5": (b"ULT3580-TD5", 0x58, 0x58, 0x5C),
    "lto6": (b"ULT3580-TD6", 0x5A, 0x68, 0x6C),
    "lto7": (b"ULT3580-TD7", 0x5C, 0x78, 0x7C),
    "lto8": (b"ULT3580-TD8", 0x5E, 0x88, 0x8C),
    "lto9": (b"ULT3580-TD9", 0x60, 0x98, 0x9C),
}


def drive_of(folder: Path, name: str, *, worm: bool = False) -> Drive:
    cartridge = open_cartridge(folder, 1 << 20, worm=worm)
    nexus = Nexus("iqn.test:initiator", "iqn.test:target")
    unit = StreamUnit("t", cartridge, target="iqn.test:target", profile=PROFILES[name])
    unit.attach(nexus)
    unit.attentions.take(nexus)
    return Drive(unit, nexus)


def test_every_generation_that_was_asked_for():
    assert set(PROFILES) == {"own", *KNOWN}


@pytest.mark.parametrize("worm", [False, True])
@pytest.mark.parametrize("name", KNOWN)
def test_names_and_codes_are_those_of_ltfs(tmp_path, name, worm):
    product, density, data_medium, worm_medium = KNOWN[name]
    drive = drive_of(tmp_path / "tape", name, worm=worm)
    inquiry = drive.good(INQUIRY)
    assert (inquiry[8:16], inquiry[16:32]) == (b"IBM     ", product.ljust(16))
    header = drive.good(MODE_SENSE)
    assert header[1] == (worm_medium if worm else data_medium)
    assert header[4] == density
    found = drive.good(DENSITIES)
    assert (found[4], found[5]) == (density, density)
    assert found[20:28] == b"LTO-CVE "
    assert found[28:36].rstrip() == b"U-" + name[3:].encode() + (b"16" if name < "lto7" else b"32")
    assert drive.good(MEDIA)[4] == header[1]
    drive.unit.close()


@pytest.mark.parametrize(("name", "level"), [("lto5", b"B170"), ("lto8", b"HB81")])
def test_firmware_is_not_older_than_ltfs_demands(tmp_path, name, level):
    """LTFS 2.4.8 refuses these two generations below a level, compared as four bytes."""
    drive = drive_of(tmp_path / "tape", name)
    assert drive.good(INQUIRY)[32:36] >= level
    drive.unit.close()


def test_a_drive_is_what_it_was_in_all_else(tmp_path):
    drive = drive_of(tmp_path / "tape", "lto8")
    # Its density is one that can be set, also after a reset; another's is not.
    select = bytes.fromhex("15 10 00 00 0c 00")
    for code, taken in ((0x5E, True), (0x00, True), (0x7F, True), (0xF0, False)):
        data = bytes((0, 0, 0x10, 8, code)) + bytes(7)
        assert (drive(select, data).sense is None) == taken
        drive.unit.attentions.pending.clear()
    drive.unit.reset()
    drive.unit.attentions.pending.clear()
    assert drive.good(MODE_SENSE)[4] == 0x5E
    drive.good(write(3), b"abc")
    drive.good(REWIND)
    assert drive.good(read(3)) == b"abc"
    drive.unit.close()


@pytest.fixture
def damaged(tmp_path):
    """An LTO with the blocks `a b c d`, of which b can no longer be read."""
    drive = drive_of(tmp_path / "tape", "lto7")
    for letter in b"abcd":
        drive.good(write(100), bytes((letter,)) * 100)
    drive.good(REWIND)
    log = drive.unit.medium.cartridge.directory / "part0.log"
    at = log.read_bytes().index(b"b" * 100) + 50
    with log.open("r+b") as file:
        file.seek(at)
        file.write(b"?")
    yield drive
    drive.unit.close()


class TestDamagedMedium:
    """IBM's LTO stays at a block that cannot be read (GA32-0928-06 table 16, "Read Perm").

    LTFS counts on it: it reads such a block again without LOCATE, and would take the next for it.
    """

    def test_read_again_it_is_the_same_error_and_never_the_next_block(self, damaged):
        damaged.good(read(100))
        for _ in range(3):
            assert damaged.sense(read(100)) == sense(3, 0x1100, 100)
            assert damaged.block == 1
        damaged.good(space(0, 1))
        assert damaged.good(read(100)) == b"c" * 100

    def test_fixed_blocks_end_at_it(self, damaged):
        damaged.set_block_length(100)
        reply = damaged(read(4, fixed=True))
        assert reply.sense == sense(3, 0x1100, 3)
        assert bytes(reply.data) == b"a" * 100
        assert damaged.block == 1

    @pytest.mark.parametrize(
        "verify", ["13 00 00 00 64 00", "13 20 00 00 00 00"], ids=["block", "to the end of data"]
    )
    def test_verify(self, damaged, verify):
        damaged.good(space(0, 1))
        assert damaged.sense(bytes.fromhex(verify)).asc == 0x1100
        assert damaged.block == 1


def test_without_a_profile_it_is_our_own(tmp_path):
    drive = drive_of(tmp_path / "tape", "own")
    assert drive.unit.profile is OWN
    assert drive.good(INQUIRY)[8:32] == b"SRVFREE TAPE            "
    assert drive.good(MODE_SENSE)[1:5:3] == b"\x00\xf0"
    drive.unit.close()


def test_the_setting():
    assert TapeConfig.parse("t=folder").profile == "own"
    assert TapeConfig.parse("t=folder,profile=lto9").profile == "lto9"
    with pytest.raises(ConfigError, match=r"profile=lto4; there are own, lto5, lto6, lto7"):
        TapeConfig.parse("t=folder,profile=lto4")


def test_performance_page_says_what_ltfs_asks_for(tmp_path):
    drive = drive_of(tmp_path / "tape", "lto8")
    page = bytes.fromhex("4d 00 77 00 00 00 00 00 ff 00")
    assert drive.good(page)[4:] == bytes.fromhex("00 01 03 01 01")
    drive.unit.count_read_error(drive.unit.medium)
    assert drive.good(page)[4:] == bytes.fromhex("00 01 03 01 00")
    drive.unit.close()
