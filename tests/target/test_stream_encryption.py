"""Encryption and compression: pages as stenc sends and reads them, and records."""

import os

import pytest

from serverfree.target.backstore.cartridge_coding import Key, Place
from serverfree.target.backstore.cartridge_errors import DamagedRecord
from serverfree.target.backstore.cartridge_log import StoredBlock
from serverfree.target.units.command import Nexus
from support.tape import LOAD, OVERHEAD, REWIND, UNLOAD, locate, make_drive, read, sense, write

KEY = bytes.fromhex("00112233445566778899aabbccddeeff" * 2)
SECRET = b"nobody shall find these words on the tape"
OTHER = Nexus("iqn.test:other", "iqn.test:target")


@pytest.fixture
def drive(tmp_path):
    drive = make_drive(tmp_path / "tape")
    yield drive
    drive.unit.close()


def page(*, encryption=2, decryption=2, key=KEY, scope=0x40, flags=0x40, kad_format=0, kads=b""):
    """A Set Data Encryption page, laid out as in stenc's own tests."""
    body = bytes((scope, flags, encryption, decryption, 1, 0, kad_format)) + bytes(7)
    body += len(key).to_bytes(2, "big") + key + kads
    return bytes((0, 0x10)) + len(body).to_bytes(2, "big") + body


def out(data):
    return bytes((0xB5, 0x20, 0, 0x10, 0, 0)) + len(data).to_bytes(4, "big") + b"\0\0"


def page_in(code, protocol=0x20):
    return bytes((0xA2, protocol, 0, code, 0, 0, 0, 0, 0x20, 0, 0, 0))


def set_key(drive, nexus=None, **what):
    data = page(**what)
    reply = drive(out(data), data, nexus)
    assert reply.sense is None
    drive.unit.attentions.pending.clear()


OFF = {"encryption": 0, "decryption": 0, "key": b""}


class TestPages:
    def test_stencs_enable_command_byte_by_byte(self, drive):
        data = (
            bytes.fromhex("00 10 00 40 40 40 02 02 01 00 02 00 00 00 00 00 00 00 00 20")
            + KEY
            + bytes.fromhex("00 00 00 0c")
            + b"Hello world!"
        )
        drive.good(out(data), data)
        # scope 2/2, modes 2/2, algorithm 1, instance 1, set by this protocol, no raw reading
        expected = "00 20 00 24 42 02 02 01 00 00 00 01 11 02 00 00 00 00 00 00 00 00 00 00"
        assert drive.good(page_in(0x20)) == (
            bytes.fromhex(expected) + bytes.fromhex("00 00 00 0c") + b"Hello world!"
        )

    def test_stencs_disable_command_byte_by_byte(self, drive):
        set_key(drive)
        data = bytes.fromhex("00 10 00 10 40 40 00 00 01 00 00 00 00 00 00 00 00 00 00 00")
        drive.good(out(data), data)
        assert drive.good(page_in(0x20))[4:8] == bytes(4)
        assert not drive.unit.encryption

    def test_lists_of_protocols_and_pages(self, drive):
        assert drive.good(page_in(0, protocol=0)) == bytes(6) + bytes.fromhex("00 02 00 20")
        assert drive.good(page_in(0)) == bytes.fromhex(
            "00 00 00 0e 00 00 00 01 00 10 00 11 00 12 00 20 00 21"
        )
        assert drive.good(page_in(1)) == bytes.fromhex("00 01 00 02 00 10")

    def test_capabilities_name_aes_256_gcm(self, drive):
        data = drive.good(page_in(0x10))
        assert data[:4] == bytes.fromhex("00 10 00 28")
        descriptor = data[20:]
        assert descriptor[:4] == bytes.fromhex("01 00 00 14")
        assert descriptor[6:12] == bytes.fromhex("00 20 00 3c 00 20")
        assert descriptor[-4:] == bytes.fromhex("00 01 00 14")

    def test_512_byte_increments(self, drive):
        cdb = bytes((0xA2, 0x20, 0, 0x20, 0x80, 0, 0, 0, 0, 2, 0, 0))
        assert len(drive.good(cdb)) == 512

    @pytest.mark.parametrize(
        ("what", "byte"),
        [
            ({"scope": 0x60}, 4),
            ({"scope": 0x41}, 4),  # LOCK
            ({"flags": 0x80}, 5),  # check external encryption mode
            ({"flags": 0x48}, 5),  # a supplemental key
            ({"encryption": 1}, 6),
            ({"encryption": 3}, 6),
            ({"decryption": 1}, 7),
            ({"kad_format": 3}, 10),
            ({"key": KEY[:16]}, 18),
            ({"kads": bytes((2, 0, 0, 1, 0))}, 52),
            ({"kads": bytes((0, 0, 0, 33)) + bytes(33)}, 52),
        ],
    )
    def test_what_cannot_be_is_refused(self, drive, what, byte):
        data = page(**what)
        refused = drive.sense(out(data), data)
        assert (refused.key, refused.asc, refused.pointer.byte) == (5, 0x2600, byte)
        assert not drive.unit.encryption

    @pytest.mark.parametrize("cut", [3, 10, 19, 30, 51])
    def test_torn_page(self, drive, cut):
        data = page()[:cut]
        assert drive.sense(out(data), data).asc == 0x1A00

    def test_others_learn_of_parameters_for_all(self, drive):
        drive.unit.attach(OTHER)
        drive.unit.attentions.take(OTHER)
        data = page()
        drive.good(out(data), data)
        assert drive(bytes(6), nexus=OTHER).sense.asc == 0x2A11
        assert drive.unit.encryption.parameters(OTHER).key is not None

    def test_parameters_of_a_nexus_are_its_own(self, drive):
        set_key(drive, scope=0x20)
        assert drive(page_in(0x20), nexus=OTHER).data[4:7] == bytes(3)
        assert drive.good(page_in(0x20))[4:7] == bytes.fromhex("21 02 02")
        drive.unit.detach(drive.nexus)
        assert not drive.unit.encryption


class TestBlocks:
    def test_on_the_medium_there_is_no_plain_text(self, drive, tmp_path):
        set_key(drive)
        drive.good(write(len(SECRET)), SECRET)
        drive.good(REWIND)
        assert drive.good(read(len(SECRET))) == SECRET
        drive.unit.close()
        for path in (tmp_path / "tape").iterdir():
            assert SECRET[:10] not in path.read_bytes()
            assert KEY not in path.read_bytes()

    @pytest.mark.parametrize(
        ("what", "asc"),
        [
            (OFF, 0x7401),
            ({"key": bytes(32)}, 0x7403),
            ({"key": bytes(32), "decryption": 3}, 0x7403),
        ],
    )
    def test_without_the_key(self, drive, what, asc):
        set_key(drive)
        drive.good(write(len(SECRET)), SECRET)
        drive.good(REWIND)
        set_key(drive, **what)
        for _ in range(2):
            assert drive.sense(read(100)) == sense(7, asc)
            assert drive.block == 0, "the heads stay before it"
        set_key(drive)
        assert drive.good(read(len(SECRET))) == SECRET

    def test_plain_block_while_decrypting(self, drive):
        drive.good(write(5), b"plain")
        drive.good(REWIND)
        set_key(drive)
        assert drive.sense(read(5)) == sense(7, 0x7402)
        set_key(drive, decryption=3)
        assert drive.good(read(5)) == b"plain"

    def test_reset_and_the_end_of_the_process_forget_the_key(self, drive, tmp_path):
        set_key(drive)
        drive.good(write(len(SECRET)), SECRET)
        drive.unit.reset()
        drive.unit.attentions.pending.clear()
        drive.good(REWIND)
        assert drive.sense(read(100)) == sense(7, 0x7401)

    def test_key_goes_with_the_medium_if_so_wished(self, drive):
        set_key(drive, flags=0x44)
        drive.good(UNLOAD)
        drive.good(LOAD)
        assert not drive.unit.encryption

    def test_length_and_sense_are_those_of_the_block(self, drive):
        set_key(drive)
        drive.good(write(100), b"a" * 100)
        drive.good(REWIND)
        assert drive(read(150)).sense == sense(0, 0, 50, ili=True)
        drive.set_block_length(100)
        drive.good(REWIND)
        assert drive.good(read(1, fixed=True)) == b"a" * 100

    def test_one_block_cannot_stand_in_for_another(self):
        key, place = Key(KEY), Place(b"c" * 16, 0, 5)
        sealed = key.sealed(StoredBlock(SECRET, len(SECRET)), place)
        assert bytes(key.opened(sealed, place).payload) == SECRET
        for other in (Place(b"d" * 16, 0, 5), Place(b"c" * 16, 1, 5), Place(b"c" * 16, 0, 6)):
            with pytest.raises(DamagedRecord):
                key.opened(sealed, other)
        for at in range(len(sealed.payload)):
            changed = bytearray(sealed.payload)
            changed[at] ^= 1
            with pytest.raises(ValueError):
                key.opened(sealed._replace(payload=bytes(changed)), place)

    def test_next_block_status(self, drive):
        drive.good(write(5), b"plain")
        kads = bytes((0, 0, 0, 4)) + b"name" + bytes((1, 0, 0, 2)) + b"id"
        set_key(drive, kad_format=2, kads=kads, decryption=3)
        drive.good(write(len(SECRET)), SECRET)
        assert drive.good(page_in(0x21))[12] == 0x22, "at end of data: not a block"
        drive.good(REWIND)
        assert drive.good(page_in(0x21)) == bytes.fromhex("00 21 00 0c") + bytes(8) + (
            bytes.fromhex("33 00 00 00")
        )
        drive.good(locate(1))
        named = bytes.fromhex("00 01 00 04") + b"name"
        assert drive.good(page_in(0x21)) == bytes.fromhex("00 21 00 1a") + bytes(7) + (
            bytes.fromhex("01 35 01 01 02") + named + bytes.fromhex("01 02 00 02") + b"id"
        )
        set_key(drive, key=bytes(32), decryption=3)
        assert drive.good(page_in(0x21))[12] == 0x36, "another key"

    @pytest.mark.parametrize("encrypted", [False, True])
    def test_next_block_status_of_a_damaged_block_is_not_known(self, drive, tmp_path, encrypted):
        if encrypted:
            set_key(drive)
        drive.good(write(len(SECRET)), SECRET)
        drive.good(REWIND)
        with (tmp_path / "tape" / "part0.log").open("r+b") as log:
            log.seek(-OVERHEAD, 2)  # in its payload
            log.write(b"????")
        assert drive.good(page_in(0x21)) == bytes.fromhex("00 21 00 0c") + bytes(8) + (
            bytes.fromhex("11 00 00 00")
        )
        assert drive.sense(read(100)) == sense(3, 0x1100, 100)


class TestCompression:
    @pytest.fixture
    def compressing(self, drive):
        drive.good(
            bytes.fromhex("15 10 00 00 14 00"),
            bytes.fromhex("00 00 10 00 0f 0e c0 80 00 00 00 ff 00 00 00 ff 00 00 00 00"),
        )
        return drive

    def test_takes_less_room_and_comes_back(self, compressing):
        data = b"tape " * 20_000
        compressing.good(write(len(data)), data)
        assert compressing.unit.medium.partition.used < len(data) // 50
        compressing.good(REWIND)
        assert compressing.good(read(len(data))) == data
        page = compressing.good(bytes.fromhex("4d 00 72 00 00 00 00 01 00 00"))
        ratio = int.from_bytes(page[14:16], "big")
        assert page[10:12] == b"\0\1"
        assert ratio > 5000, "hundredths"

    def test_what_does_not_get_shorter_stays_as_it_is(self, compressing):
        data = os.urandom(1000)
        compressing.good(write(1000), data)
        assert compressing.unit.medium.partition.used == 1000 + OVERHEAD
        compressing.good(REWIND)
        assert compressing.good(read(1000)) == data

    def test_holds_more_than_its_capacity(self, compressing):
        for _ in range(20):
            compressing.good(write(100_000), bytes(100_000))
        assert compressing.block == 20

    def test_before_encryption(self, compressing):
        set_key(compressing)
        data = b"tape " * 20_000
        compressing.good(write(len(data)), data)
        assert compressing.unit.medium.partition.used < 1000
        compressing.good(REWIND)
        assert compressing.good(page_in(0x21))[12] == 0x45
        assert compressing.good(read(len(data))) == data
