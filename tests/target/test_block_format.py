"""Block length and capacity by MODE SELECT and FORMAT UNIT (SBC-4 6.5.2, 4.33), as hosts see it."""

import os
import time
from pathlib import Path

import pytest

from serverfree.scsi.capacity import Capacity16
from serverfree.scsi.cdb.block import Read10, ReadCapacity16, Write10
from serverfree.scsi.cdb.primary import RequestSense, TestUnitReady
from serverfree.scsi.sense import Asc, FieldPointer, Sense, SenseKey
from serverfree.target.backstore.faulty import FaultyStore
from serverfree.target.backstore.file import open_file_store
from serverfree.target.backstore.state import StateFile
from serverfree.target.units.block import BlockUnit
from support.disk import NEXUS, OTHER, Host, failure

SIZE = 1 << 20
FORMAT = bytes.fromhex("04 00 00 00 00 00")
FORMAT_WITH_LIST = bytes.fromhex("04 10 00 00 00 00")
IMMEDIATELY = bytes.fromhex("00 02 00 00")


def open_disk(folder: Path, **options: object) -> Host:
    store = open_file_store(folder / "d", SIZE, thin=bool(options.pop("thin", False)))
    return Host(BlockUnit("d", store, state=StateFile(folder / "d.state"), **options))  # type: ignore[arg-type]


@pytest.fixture
def disk(tmp_path: Path) -> Host:
    return open_disk(tmp_path)


def want(host: Host, length: int, blocks: int = 0) -> None:
    """MODE SELECT(10) with a long LBA block descriptor, as sg_format sends it."""
    descriptor = blocks.to_bytes(8, "big") + bytes(4) + length.to_bytes(4, "big")
    host.good(bytes.fromhex("55 10 00 00 00 00 00 00 18 00"), b"\0\0\0\0\1\0\0\x10" + descriptor)


def capacity(host: Host) -> tuple[int, int]:
    answer = Capacity16.unpack(host.good(ReadCapacity16(allocation_length=32)))
    return answer.last_lba + 1, answer.block_length


def told(host: Host) -> tuple[int, int]:
    """What the short block descriptor of MODE SENSE(6) says."""
    raw = host.good(bytes.fromhex("1a 00 3f 00 ff 00"))
    return int.from_bytes(raw[4:8], "big"), int.from_bytes(raw[9:12], "big")


def attentions(host: Host) -> list[int]:
    found = []
    while (sense := host(TestUnitReady()).sense) is not None:
        found.append(int(sense.asc))
    return found


@pytest.fixture
def hosts(disk: Host) -> tuple[Host, Host]:
    other = Host(disk.unit, OTHER)
    for host in (disk, other):
        disk.unit.attach(host.nexus)
        attentions(host)
    return disk, other


def test_another_block_length_holds_once_the_disk_is_formatted(
    hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    disk, other = hosts
    disk.good(Write10(lba=3, blocks=1), b"x" * 512)
    want(disk, 4096)
    # 6.5.2.2: MODE SENSE tells what was asked for, READ CAPACITY what is.
    assert told(disk) == (256, 4096)
    assert capacity(disk) == (2048, 512)
    assert disk.good(Read10(lba=3, blocks=1)) == b"x" * 512
    assert attentions(other) == [0x2A01]
    disk.good(FORMAT)
    assert capacity(disk) == told(disk) == (256, 4096)
    assert attentions(disk) == []
    assert attentions(other) == [0x2A09, 0x3F03]
    assert disk.good(Read10(blocks=256)) == bytes(SIZE)
    disk.good(Write10(lba=255, blocks=1), b"y" * 4096)
    assert disk.sense(Read10(lba=256, blocks=1)).asc is Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE
    limits = disk.good(bytes.fromhex("12 01 b0 00 40 00"))
    assert int.from_bytes(limits[8:12], "big") == (32 << 20) // 4096
    assert disk.good(bytes.fromhex("1a 08 03 00 ff 00"))[4 + 12 : 4 + 14] == b"\x10\x00"
    disk.unit.close()
    again = open_disk(tmp_path)
    assert capacity(again) == told(again) == (256, 4096)
    assert again.good(Read10(lba=255, blocks=1)) == b"y" * 4096
    want(again, 512)
    again.good(FORMAT)
    assert capacity(again) == (2048, 512)
    assert StateFile(tmp_path / "d.state").get("format") is None  # as the command line has it


def test_a_pattern_fills_blocks_of_the_new_length(disk: Host) -> None:
    want(disk, 1024)
    pattern = bytes(range(1, 201)) * 5  # more than one old block
    disk.good(FORMAT_WITH_LIST, b"\0\x08\0\0" + b"\0\1" + len(pattern).to_bytes(2, "big") + pattern)
    assert disk.good(Read10(lba=7, blocks=1)) == (pattern * 2)[:1024]


def test_fewer_blocks_hold_at_once_and_for_ever(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    disk, other = hosts
    disk.good(Write10(lba=2047, blocks=1), b"z" * 512)
    want(disk, 512, 1000)
    assert capacity(disk) == told(disk) == (1000, 512)
    assert attentions(disk) == []
    assert attentions(other) == [0x2A09, 0x2A01]
    assert disk.sense(Read10(lba=999, blocks=2)).asc is Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE
    status = disk.good(bytes.fromhex("9e 12") + bytes(8) + bytes.fromhex("00001000 0000"))
    assert sum(int.from_bytes(status[at + 8 : at + 12]) for at in range(8, len(status), 16)) == 1000
    want(disk, 512)  # 0: the capacity stays
    assert capacity(disk) == (1000, 512)
    disk.unit.reset()
    disk.unit.close()
    again = open_disk(tmp_path)
    assert capacity(again) == (1000, 512)
    want(again, 512, (1 << 64) - 1)  # all there is
    assert capacity(again) == (2048, 512)
    assert again.good(Read10(lba=2047, blocks=1)) == b"z" * 512


def test_a_disk_with_fewer_blocks_does_not_grow_and_one_with_all_does(
    disk: Host, tmp_path: Path
) -> None:
    want(disk, 512, 2048)  # what it has: no wish for later
    os.truncate(tmp_path / "d", 2 * SIZE)
    assert capacity(disk) == (4096, 512)
    want(disk, 512, 1000)
    os.truncate(tmp_path / "d", 3 * SIZE)
    assert capacity(disk) == (1000, 512)


def test_blocks_and_length_together_hold_after_the_format(disk: Host) -> None:
    want(disk, 4096, 100)
    assert capacity(disk) == (2048, 512)
    disk.good(FORMAT_WITH_LIST, IMMEDIATELY)
    deadline = time.monotonic() + 20
    while disk(TestUnitReady()).sense is not None:
        assert time.monotonic() < deadline
    assert capacity(disk) == (100, 4096)


@pytest.mark.parametrize(
    ("descriptor", "byte"),
    [
        ("00 00 00 00 00 00 02 08", 9),  # 520 bytes
        ("00 00 00 00 00 00 00 00", 9),
        ("00 00 08 01 00 00 02 00", 4),  # more than there is
        ("00 00 01 01 00 00 10 00", 4),
    ],
)
def test_what_cannot_be_changes_nothing(disk: Host, descriptor: str, byte: int) -> None:
    sense = disk.sense(bytes.fromhex("15 10 00 00 0c 00"), bytes.fromhex("00000008" + descriptor))
    assert (sense.key, sense.asc) == (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)
    assert sense.pointer == FieldPointer(byte)
    assert told(disk) == capacity(disk) == (2048, 512)


def test_a_wish_ends_with_a_reset(disk: Host) -> None:
    want(disk, 4096)
    disk.unit.reset()
    assert told(disk) == (2048, 512)


def test_a_read_only_disk_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "d").write_bytes(bytes(SIZE))
    store = open_file_store(tmp_path / "d", readonly=True)
    disk = Host(BlockUnit("d", store, state=StateFile(tmp_path / "s")))
    data = bytes.fromhex("00000008 00000000 00001000")
    assert disk.sense(bytes.fromhex("15 10 00 00 0c 00"), data).asc is Asc.WRITE_PROTECTED


def test_a_format_that_was_interrupted_leaves_a_corrupt_disk_until_the_next(
    tmp_path: Path,
) -> None:
    disk = open_disk(tmp_path, operation_rate=4 << 20)
    want(disk, 4096)
    disk.good(FORMAT_WITH_LIST, IMMEDIATELY)
    under_way = Sense.unpack(disk.good(RequestSense(allocation_length=252)))
    assert under_way.asc is Asc.LOGICAL_UNIT_NOT_READY_FORMAT_IN_PROGRESS
    disk.unit.close()
    again = open_disk(tmp_path)
    for cdb in (TestUnitReady(), Read10(blocks=1), Write10(blocks=1)):
        sense = again.sense(cdb, bytes(512))
        assert (sense.key, sense.asc) == (SenseKey.MEDIUM_ERROR, Asc.MEDIUM_FORMAT_CORRUPTED)
    again.good(bytes.fromhex("48 9f 00 00 00 00 00 00 00 00"))  # EXIT FAILURE MODE is not for this
    assert again.sense(Read10(blocks=1)).asc is Asc.MEDIUM_FORMAT_CORRUPTED
    assert capacity(again) == (2048, 512)
    want(again, 4096)
    again.good(FORMAT)
    assert capacity(again) == (256, 4096)
    assert again.good(Read10(blocks=1)) == bytes(4096)
    again.unit.close()
    assert capacity(open_disk(tmp_path)) == (256, 4096)


def test_a_format_that_fails_is_a_corrupt_disk_of_the_old_length(tmp_path: Path) -> None:
    class Failing(FaultyStore):
        broken = False

        def flush(self) -> None:
            if self.broken:
                raise failure(5)
            super().flush()

    store = Failing(open_file_store(tmp_path / "d", SIZE))
    disk = Host(BlockUnit("d", store, state=StateFile(tmp_path / "d.state")))
    want(disk, 4096)
    store.broken = True
    sense = disk.sense(FORMAT)
    assert (sense.key, sense.asc) == (SenseKey.MEDIUM_ERROR, Asc.MEDIUM_FORMAT_CORRUPTED)
    assert capacity(disk) == (2048, 512)
    store.broken = False
    disk.good(FORMAT)
    assert capacity(disk) == (256, 4096)
    disk.unit.attach(NEXUS)
    assert attentions(disk) == [0x2900]
