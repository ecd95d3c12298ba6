"""Logical block protection: what travels behind blocks, of which nexus, and what is stored."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from serverfree.scsi.sense import FieldPointer
from serverfree.scsi.status import Status
from serverfree.target.units.command import Nexus
from support.tape import (
    REWIND,
    Drive,
    filemarks,
    invalid_field,
    make_drive,
    read,
    sense,
    space,
    write,
)

# The check string, and what RFC 3720 B.4 and LTFS's rs_gf256_enc put behind it.
PLAIN = b"123456789"
PROTECTED = {1: PLAIN + bytes.fromhex("4b4f673a"), 2: PLAIN + bytes.fromhex("839206e3")}
OTHER = Nexus("iqn.test:other", "iqn.test:target")
WRITES, READS, RECOVERS = 0x80, 0x40, 0x20


def select(method: int, flags: int) -> tuple[bytes, bytes]:
    """MODE SELECT(6) of the Control Data Protection page."""
    length = 4 if method else 0
    data = bytes.fromhex("00 00 10 00 4a f0 00 1c") + bytes((method, length, flags)) + bytes(25)
    return bytes((0x15, 0x10, 0, 0, len(data), 0)), data


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    drive = make_drive(tmp_path / "tape")
    drive.unit.attach(OTHER)
    drive.unit.attentions.take(OTHER)
    yield drive
    drive.unit.close()


@pytest.fixture(params=[1, 2])
def guarded(drive: Drive, request: pytest.FixtureRequest) -> tuple[Drive, bytes]:
    """A drive that protects writes and reads, and a block as it travels."""
    drive.good(*select(request.param, WRITES | READS))
    return drive, PROTECTED[request.param]


Guarded = tuple[Drive, bytes]


def test_it_travels_and_is_not_stored(guarded: Guarded) -> None:
    drive, block = guarded
    drive.good(write(13), block)
    drive.good(REWIND)
    assert drive.good(read(13)) == block
    assert bytes(drive.unit.medium.partition.read(0)) == PLAIN


def test_lengths_count_it(guarded: Guarded) -> None:
    drive, block = guarded
    drive.good(write(13), block)
    drive.good(REWIND)
    reply = drive(read(10))
    assert (bytes(reply.data), reply.sense) == (block[:10], sense(0, 0x0000, -3, ili=True))
    drive.good(REWIND)
    drive.set_block_length(13)
    assert drive.good(read(1, fixed=True)) == block


@pytest.mark.parametrize("bit", range(0, 13 * 8, 7))
def test_a_wrong_bit_anywhere_is_refused_and_nothing_stored(guarded: Guarded, bit: int) -> None:
    drive, block = guarded
    bad = bytearray(block)
    bad[bit // 8] ^= 1 << bit % 8
    assert drive.sense(write(13), bytes(bad)) == sense(4, 0x1001, 13)
    assert drive.unit.medium.partition.eod == 0


def test_one_wrong_block_of_several(guarded: Guarded) -> None:
    drive, good = guarded
    drive.set_block_length(13)
    bad = good[:-1] + b"\0"
    assert drive.sense(write(3, fixed=True), good + bad + good) == sense(4, 0x1001, 3)
    drive.good(write(2, fixed=True), good * 2)
    drive.good(REWIND)
    assert drive.good(read(2, fixed=True)) == good * 2


@pytest.mark.parametrize("length", [1, 4])
def test_a_block_of_nothing_else_is_refused(guarded: Guarded, length: int) -> None:
    drive, _ = guarded
    expected = sense(5, 0x2400)
    expected.pointer = FieldPointer(2, in_cdb=True)
    assert drive.sense(write(length), bytes(length)) == expected


def test_verify_by_the_method_needs_one(drive: Drive) -> None:
    drive.good(write(9), PLAIN)
    drive.good(REWIND)
    by_method = bytes.fromhex("13 10 00 00 09 00")  # VLBPM
    assert drive.sense(by_method) == invalid_field(1, 4)
    drive.good(*select(1, WRITES))
    drive.good(by_method)
    drive.good(*select(1, READS))
    drive.good(REWIND)
    drive.good(by_method[:4] + b"\x0d\0")  # a block is as long as READ would give it


def test_what_one_method_wrote_the_other_reads(drive: Drive) -> None:
    drive.good(*select(1, WRITES))
    drive.good(write(13), PROTECTED[1])
    for method in (2, 1):
        drive.good(REWIND)
        drive.good(*select(method, READS))
        assert drive.good(read(13)) == PROTECTED[method]
    drive.good(REWIND)
    drive.good(*select(0, 0))
    assert drive.good(read(9)) == PLAIN


def test_writes_and_reads_are_set_apart(drive: Drive) -> None:
    drive.good(*select(2, READS))
    drive.good(write(9), PLAIN)
    drive.good(REWIND)
    assert drive.good(read(13)) == PROTECTED[2]
    drive.good(*select(2, WRITES))
    drive.good(write(13), PROTECTED[2])
    drive.good(REWIND)
    drive.good(space(0, 1))
    assert drive.good(read(9)) == PLAIN


class TestNexuses:
    """Who has not asked for it neither gets it nor has to bring it, and is not told."""

    def test_of_each_its_own(self, drive: Drive) -> None:
        drive.good(*select(1, WRITES | READS))
        assert drive(write(9), PLAIN, OTHER).status is Status.GOOD
        drive.good(write(13), PROTECTED[1])
        drive.good(REWIND)
        assert drive.good(read(13)) == PROTECTED[1]
        assert bytes(drive(read(9), nexus=OTHER).data) == PLAIN

    def test_the_page_says_what_holds_for_who_asks(self, drive: Drive) -> None:
        drive.good(*select(1, WRITES))
        sense_page = bytes.fromhex("1a 08 0a f0 ff 00")
        assert drive.good(sense_page)[8:11] == bytes((1, 4, WRITES))
        assert bytes(drive(sense_page, nexus=OTHER).data)[8:11] == bytes(3)

    def test_no_other_hears_of_it(self, drive: Drive) -> None:
        drive.good(*select(1, WRITES))
        assert drive(bytes(6), nexus=OTHER).sense is None
        drive.set_block_length(512)
        assert drive(bytes(6), nexus=OTHER).sense == sense(6, 0x2A01)

    def test_loss_of_the_nexus_and_a_reset_end_it(self, drive: Drive) -> None:
        drive.good(*select(1, WRITES))
        drive.unit.detach(drive.nexus)
        drive.unit.attach(drive.nexus)
        drive.unit.attentions.take(drive.nexus)
        drive.good(write(9), PLAIN)
        drive.good(*select(1, WRITES))
        drive.unit.reset()
        drive.unit.attentions.take(drive.nexus)
        drive.good(write(9), PLAIN)

    def test_a_list_that_fails_later_changes_nothing(self, drive: Drive) -> None:
        _, data = select(1, WRITES)
        data += bytes.fromhex("10 0e 00 01") + bytes(12)  # another partition
        assert drive.sense(bytes((0x15, 0x10, 0, 0, len(data), 0)), data).asc == 0x2600
        drive.good(write(9), PLAIN)


def test_what_is_recovered_has_it_only_if_asked_for(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        drive.good(write(9), PLAIN)

    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fdatasync", fail)
    assert drive.sense(filemarks(0)) == sense(3, 0x0C00)
    recover = bytes.fromhex("14 00 00 00 09 00")
    drive.good(*select(1, READS))
    assert drive.good(recover) == PLAIN
    drive.good(*select(1, RECOVERS))
    assert drive.good(recover[:4] + b"\x0d\0") == PROTECTED[1]


@pytest.mark.parametrize(
    ("page", "byte"),
    [("01 05 c0", 5), ("02 08 c0", 5), ("00 00 80", 6), ("00 00 20", 6), ("03 04 00", 4)],
)
def test_what_there_is_not(drive: Drive, page: str, byte: int) -> None:
    data = bytes.fromhex("00 00 10 00 4a f0 00 1c" + page) + bytes(25)
    refused = drive.sense(bytes.fromhex("15 10 00 00 24 00"), data)
    assert refused.pointer is not None
    assert (refused.asc, refused.pointer.byte) == (0x2600, 4 + byte)  # behind the header


def test_the_drive_says_so_wherever_it_is_looked_for(drive: Drive) -> None:
    """(GA32-0928-06 4.9.1.1: PROTECT, SPT, and room for it in the longest block.)"""
    assert drive.good(bytes.fromhex("12 01 b5 00 ff 00")) == bytes.fromhex(
        "01 b5 00 0c 00 00 00 00 03 01 04 c0 03 02 04 c0"
    )
    assert drive.good(bytes.fromhex("12 00 00 00 60 00"))[5] & 1, "PROTECT"
    assert drive.good(bytes.fromhex("12 01 86 00 ff 00"))[4] & 0b0011_1000 == 0b001 << 3, "SPT"
    longest = int.from_bytes(drive.good(bytes.fromhex("05 00 00 00 00 00"))[1:4], "big")
    assert longest + 4 <= 0xFFFFFF
    # Page 0Ah/F0h one for each nexus, the rest shared
    assert drive.good(bytes.fromhex("12 01 87 00 ff 00")) == bytes.fromhex(
        "01 87 00 08 0a f0 03 00 3f ff 00 00"
    )
