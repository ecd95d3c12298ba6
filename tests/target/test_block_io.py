"""READ, WRITE, VERIFY and their kin on a disk."""

import errno
from pathlib import Path

import pytest
from pyscsi.pyscsi.scsi_cdb_readcapacity10 import ReadCapacity10 as PyscsiCapacity10
from pyscsi.pyscsi.scsi_cdb_readcapacity16 import ReadCapacity16 as PyscsiCapacity16

from serverfree.scsi.cdb.block import (
    PreFetch10,
    PreFetch16,
    Read6,
    Read10,
    Read12,
    Read16,
    ReadCapacity10,
    ReadCapacity16,
    StartStopUnit,
    SynchronizeCache10,
    SynchronizeCache16,
    Verify10,
    Verify12,
    Verify16,
    Write6,
    Write10,
    Write12,
    Write16,
    WriteAndVerify10,
    WriteAndVerify12,
    WriteAndVerify16,
)
from serverfree.scsi.sense import Asc, FieldPointer, SenseKey
from serverfree.scsi.status import Status
from serverfree.target.backstore.base import StoreError
from serverfree.target.backstore.file import open_file_store
from serverfree.target.units.block import BlockUnit
from serverfree.target.units.block_device import MAXIMUM_TRANSFER
from serverfree.target.units.command import Command, Lane
from support.disk import NEXUS, UNREADABLE, FaultyStore, Host, failure, make_disk

BLOCK = 512
BLOCKS = 2048  # of the disk
READS = (Read6, Read10, Read12, Read16)
WRITES = (Write6, Write10, Write12, Write16)
VERIFIES = (Verify10, Verify12, Verify16)
WRITE_AND_VERIFIES = (WriteAndVerify10, WriteAndVerify12, WriteAndVerify16)
SYNCHRONIZES = (SynchronizeCache10, SynchronizeCache16)
PRE_FETCHES = (PreFetch10, PreFetch16)


@pytest.fixture
def disk(tmp_path: Path) -> Host:
    return Host(make_disk(tmp_path / "disk", BLOCKS * BLOCK))


@pytest.fixture
def faulty(tmp_path: Path) -> FaultyStore:
    return FaultyStore(open_file_store(tmp_path / "disk", BLOCKS * BLOCK))


def pattern(blocks: int, seed: int = 1) -> bytes:
    """Blocks that all differ."""
    return b"".join((seed * 1_000_003 + i).to_bytes(4, "big") * 128 for i in range(blocks))


# Reading and writing


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("read", READS)
def test_what_one_length_writes_every_length_reads(
    disk: Host, write: type[Write10], read: type[Read10]
) -> None:
    data = pattern(3)
    assert disk.unit.data_out_length(write(lba=100, blocks=3).pack()) == 3 * BLOCK
    disk.good(write(lba=100, blocks=3), data)
    assert disk.good(read(lba=99, blocks=5)) == bytes(BLOCK) + data + bytes(BLOCK)


def test_six_byte_commands_mean_256_blocks_by_0(disk: Host) -> None:
    data = pattern(256)
    assert disk.unit.data_out_length(Write6().pack()) == len(data)
    disk.good(Write6(lba=1), data)
    assert disk.good(Read6(lba=1)) == data
    assert disk.sense(Read6(lba=BLOCKS - 255)).asc is Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE


def test_no_blocks_are_no_error(disk: Host) -> None:
    for command in (*READS[1:], *WRITES[1:], *VERIFIES, *WRITE_AND_VERIFIES):
        assert disk.good(command(lba=5)) == b""
        assert disk.unit.data_out_length(command(lba=5).pack()) == 0


@pytest.mark.parametrize("block_size", [512, 1024, 2048, 4096])
def test_blocks_may_be_larger(tmp_path: Path, block_size: int) -> None:
    disk = Host(make_disk(tmp_path / "disk", 1 << 16, block_size=block_size))
    disk.good(Write10(lba=3, blocks=1), b"x" * block_size)
    assert disk.good(Read10(lba=2, blocks=2)) == bytes(block_size) + b"x" * block_size
    assert (tmp_path / "disk").read_bytes()[3 * block_size : 4 * block_size] == b"x" * block_size


@pytest.mark.parametrize(
    "command",
    [
        *READS,
        *WRITES,
        *VERIFIES,
        *WRITE_AND_VERIFIES,
        *SYNCHRONIZES,
        *PRE_FETCHES,
    ],
)
def test_a_range_past_the_end_is_refused_and_its_data_not_asked_for(
    disk: Host, command: type[Read10]
) -> None:
    widest = command.PLACES["lba"].mask
    for lba, blocks in ((BLOCKS - 1, 2), (BLOCKS, 1), (BLOCKS + 1, 1), (widest, 1), (widest, 200)):
        cdb = command(lba=lba, blocks=blocks)
        assert disk.unit.data_out_length(cdb.pack()) == 0
        sense = disk.sense(cdb, bytes(blocks * BLOCK))
        assert sense.key is SenseKey.ILLEGAL_REQUEST
        assert sense.asc is Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE
        place = command.PLACES["lba"]
        assert sense.pointer == FieldPointer(place.byte, place.bit, in_cdb=True)
    disk.good(command(lba=BLOCKS - 1, blocks=1), bytes(BLOCK))


@pytest.mark.parametrize("command", [Read10, Read12, Read16, Write10, Write12, Write16, *VERIFIES])
def test_protection_information_is_refused(disk: Host, command: type[Read10]) -> None:
    for protect in range(1, 8):
        cdb = bytearray(command(blocks=1).pack())
        cdb[1] |= protect << 5
        sense = disk.sense(bytes(cdb))
        assert sense.asc is Asc.INVALID_FIELD_IN_CDB
        assert sense.pointer is not None
        assert sense.pointer.byte == 1
        assert sense.pointer.bit in (5, 6, 7)


@pytest.mark.parametrize("command", [Read12, Read16, Write12, Write16, *WRITE_AND_VERIFIES[1:]])
def test_a_transfer_beyond_block_limits_is_refused(tmp_path: Path, command: type[Read12]) -> None:
    disk = Host(make_disk(tmp_path / "disk", 2 * MAXIMUM_TRANSFER, thin=True))
    most = MAXIMUM_TRANSFER // BLOCK
    limits = disk.good(bytes.fromhex("12 01 b0 00 40 00"))
    assert int.from_bytes(limits[8:12], "big") == most
    sense = disk.sense(command(blocks=most + 1))
    assert (sense.asc, sense.pointer) == (
        Asc.INVALID_FIELD_IN_CDB,
        FieldPointer(command.PLACES["blocks"].byte, 7, in_cdb=True),
    )
    assert disk.unit.data_out_length(command(blocks=most + 1).pack()) == 0
    if command in (Read12, Read16):
        assert len(disk(command(blocks=most)).data) == MAXIMUM_TRANSFER


@pytest.mark.parametrize(("sent", "written"), [(0, 0), (511, 0), (512, 1), (1023, 1), (1024, 2)])
def test_of_less_data_than_asked_for_whole_blocks_are_written(
    disk: Host, sent: int, written: int
) -> None:
    data = b"x" * 3 * BLOCK
    disk.good(Write10(lba=10, blocks=3), data[:sent])
    assert disk.good(Read10(lba=10, blocks=3)) == data[: written * BLOCK].ljust(3 * BLOCK, b"\0")


def test_a_reply_that_is_read_here_is_no_window(disk: Host) -> None:
    cdb = Read10(blocks=1).pack()
    window = disk.unit.execute(Command(NEXUS, cdb)).data
    copy = disk.unit.execute(Command(NEXUS, cdb, read_here=True)).data
    disk.good(Write10(blocks=1), b"x" * BLOCK)
    assert (bytes(window), bytes(copy)) == (b"x" * BLOCK, bytes(BLOCK))


# The cache


def test_only_what_asks_for_it_is_flushed(faulty: FaultyStore) -> None:
    disk = Host(BlockUnit("disk", faulty))

    def flushes(cdb: Write10 | Read10 | SynchronizeCache10) -> bool:
        faulty.calls.clear()
        disk.good(cdb, bytes(BLOCK))
        return "flush" in faulty.calls

    assert not flushes(Write10(blocks=1))
    assert not flushes(Write10(blocks=1, dpo=True, fua_nv=True))
    assert flushes(Write10(blocks=1, fua=True))
    assert faulty.calls == ["write", "flush"]
    assert not flushes(Read10(blocks=1))
    assert flushes(Read10(blocks=1, fua=True))
    assert faulty.calls == ["flush", "view"]
    assert flushes(SynchronizeCache10())
    assert flushes(SynchronizeCache10(immed=True, lba=5, blocks=1))
    disk.unit.write_cache = False  # type: ignore[attr-defined]
    assert flushes(Write10(blocks=1))


def test_a_six_byte_lba_is_not_taken_for_fua(faulty: FaultyStore) -> None:
    disk = Host(BlockUnit("disk", faulty))
    lba = 0x080000  # would be FUA in a longer CDB
    for cdb in (Read6(lba=lba, blocks=1), Write6(lba=lba, blocks=1)):
        assert disk.unit.lane(cdb.pack()) is Lane.INLINE
        assert disk.sense(cdb).asc is Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE
    assert faulty.calls == []


def test_what_waits_for_the_disk_is_queued(disk: Host) -> None:
    assert disk.unit.lane(Read16(blocks=1).pack()) is Lane.INLINE
    assert disk.unit.lane(Write10(blocks=1).pack()) is Lane.INLINE
    for cdb in (
        Read10(fua=True),
        Write16(fua=True),
        SynchronizeCache10(),
        SynchronizeCache16(),
        Verify10(),
        WriteAndVerify12(),
        StartStopUnit(),
    ):
        assert disk.unit.lane(cdb.pack()) is Lane.QUEUED
    disk.unit.write_cache = False  # type: ignore[attr-defined]
    assert disk.unit.lane(Write6(blocks=1).pack()) is Lane.QUEUED


# Verifying


@pytest.mark.parametrize("verify", VERIFIES)
def test_verify_compares_with_the_data(disk: Host, verify: type[Verify10]) -> None:
    data = bytearray(pattern(5))
    disk.good(Write10(lba=20, blocks=5), data)
    cdb = verify(byte_check=1, lba=20, blocks=5)
    assert disk.unit.data_out_length(cdb.pack()) == len(data)
    disk.good(cdb, data)
    data[3 * BLOCK + 7] ^= 1
    sense = disk.sense(cdb, data)
    assert (sense.key, sense.asc) == (
        SenseKey.MISCOMPARE,
        Asc.MISCOMPARE_DURING_VERIFY_OPERATION,
    )
    assert sense.information == 23
    disk.good(verify(byte_check=1, lba=20, blocks=3), data[: 3 * BLOCK])


@pytest.mark.parametrize("verify", VERIFIES)
def test_verify_compares_every_block_with_one(disk: Host, verify: type[Verify10]) -> None:
    disk.good(Write10(lba=20, blocks=5), b"x" * 5 * BLOCK)
    cdb = verify(byte_check=3, lba=20, blocks=5)
    assert disk.unit.data_out_length(cdb.pack()) == BLOCK
    disk.good(cdb, b"x" * BLOCK)
    longer = verify(byte_check=3, lba=20, blocks=6)
    assert disk.sense(longer, b"x" * BLOCK).information == 25
    short = disk.sense(cdb, b"x" * (BLOCK - 1))
    assert short.asc is Asc.INVALID_FIELD_IN_CDB


@pytest.mark.parametrize("verify", VERIFIES)
def test_verify_of_the_medium_takes_no_data(disk: Host, verify: type[Verify10]) -> None:
    cdb = verify(lba=0, blocks=BLOCKS)
    assert disk.unit.data_out_length(cdb.pack()) == 0
    disk.good(cdb)


@pytest.mark.parametrize("command", [*VERIFIES, *WRITE_AND_VERIFIES])
def test_a_byte_check_that_is_reserved_is_refused(disk: Host, command: type[Verify10]) -> None:
    reserved = (2,) if command in VERIFIES else (2, 3)
    for byte_check in reserved:
        sense = disk.sense(command(byte_check=byte_check, blocks=1), bytes(BLOCK))
        assert (sense.asc, sense.pointer) == (
            Asc.INVALID_FIELD_IN_CDB,
            FieldPointer(1, 2, in_cdb=True),
        )


@pytest.mark.parametrize("byte_check", [0, 1])
@pytest.mark.parametrize("command", WRITE_AND_VERIFIES)
def test_write_and_verify_writes_durably_and_reads_back(
    faulty: FaultyStore, command: type[WriteAndVerify10], byte_check: int
) -> None:
    disk = Host(BlockUnit("disk", faulty))
    data = pattern(2)
    cdb = command(byte_check=byte_check, lba=7, blocks=2)
    assert disk.unit.data_out_length(cdb.pack()) == len(data)
    disk.good(cdb, data)
    assert faulty.calls == ["write", "flush", "evict", "pread"]
    assert disk.good(Read10(lba=7, blocks=2)) == data


def test_a_verify_that_is_aborted_stops(disk: Host) -> None:
    command = Command(NEXUS, Verify10(blocks=BLOCKS).pack(), aborted=True)
    assert disk.unit.execute(command).status is Status.TASK_ABORTED


# Errors of the storage


@pytest.mark.parametrize(
    ("operation", "error", "cdb", "key", "asc"),
    [
        ("view", UNREADABLE, Read10(blocks=1), SenseKey.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR),
        (
            "pread",
            UNREADABLE,
            Verify10(blocks=1),
            SenseKey.MEDIUM_ERROR,
            Asc.UNRECOVERED_READ_ERROR,
        ),
        ("write", failure(errno.EIO), Write10(blocks=1), SenseKey.MEDIUM_ERROR, Asc.WRITE_ERROR),
        (
            "write",
            failure(errno.ENOSPC),
            Write10(blocks=1),
            SenseKey.DATA_PROTECT,
            Asc.SPACE_ALLOCATION_FAILED_WRITE_PROTECT,
        ),
        (
            "flush",
            failure(errno.ENOSPC),
            SynchronizeCache10(),
            SenseKey.DATA_PROTECT,
            Asc.SPACE_ALLOCATION_FAILED_WRITE_PROTECT,
        ),
        (
            "flush",
            failure(errno.EIO),
            Write10(blocks=1, fua=True),
            SenseKey.MEDIUM_ERROR,
            Asc.WRITE_ERROR,
        ),
        (
            "write",
            failure(errno.EROFS),
            Write10(blocks=1),
            SenseKey.DATA_PROTECT,
            Asc.WRITE_PROTECTED,
        ),
    ],
)
def test_a_failure_of_the_storage_has_its_sense(
    faulty: FaultyStore, operation: str, error: OSError, cdb: Read10, key: SenseKey, asc: Asc
) -> None:
    disk = Host(BlockUnit("disk", faulty))
    faulty.faults[operation] = error
    sense = disk.sense(cdb, bytes(BLOCK))
    assert (sense.key, sense.asc) == (key, asc)
    faulty.faults.clear()
    disk.good(cdb, bytes(BLOCK))


def test_when_the_kernel_cannot_read_the_map_it_is_given_up(faulty: FaultyStore) -> None:
    BlockUnit("disk", faulty).distrust_map()
    assert faulty.calls == ["give_up_map"]


# Protection, geometry, power


@pytest.mark.parametrize("command", [*WRITES, *WRITE_AND_VERIFIES])
def test_a_readonly_disk_takes_no_writes(tmp_path: Path, command: type[Write10]) -> None:
    disk = Host(make_disk(tmp_path / "disk", BLOCKS * BLOCK, readonly=True))
    assert disk.unit.data_out_length(command(blocks=1).pack()) == 0
    sense = disk.sense(command(blocks=1), b"x" * BLOCK)
    assert (sense.key, sense.asc) == (SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)
    assert disk.good(Read10(blocks=1)) == bytes(BLOCK)
    disk.good(SynchronizeCache10())


def test_pyscsi_reads_the_capacity(disk: Host) -> None:
    short = PyscsiCapacity10.unmarshall_datain(disk.good(ReadCapacity10()))
    assert short == {"returned_lba": BLOCKS - 1, "block_length": BLOCK}
    long = PyscsiCapacity16.unmarshall_datain(disk.good(ReadCapacity16(allocation_length=32)))
    assert (long["returned_lba"], long["block_length"]) == (BLOCKS - 1, BLOCK)
    assert (long["lbpme"], long["lbprz"], long["prot_en"]) == (0, 0, 0)
    assert len(disk.good(ReadCapacity16(allocation_length=12))) == 12


def test_a_disk_beyond_two_tebibytes_sends_for_the_long_form(tmp_path: Path) -> None:
    disk = Host(make_disk(tmp_path / "disk", (1 << 32) * BLOCK + BLOCK, thin=True))
    assert disk.good(ReadCapacity10()) == bytes.fromhex("ff ff ff ff 00 00 02 00")
    long = disk.good(ReadCapacity16(allocation_length=32))
    assert long[:8] == (1 << 32).to_bytes(8, "big")
    disk.good(Write16(lba=1 << 32, blocks=1), b"x" * BLOCK)
    assert disk.good(Read16(lba=1 << 32, blocks=1)) == b"x" * BLOCK
    sense = disk.sense(Verify16(byte_check=1, lba=1 << 32, blocks=1), bytes(BLOCK))
    assert sense.asc is Asc.MISCOMPARE_DURING_VERIFY_OPERATION
    assert sense.information is None  # more than fixed format holds
    assert disk.good(bytes.fromhex("1a 00 08 00 ff 00"))[4:8] == b"\xff" * 4


@pytest.mark.parametrize("command", [*READS, *WRITES, *VERIFIES, *PRE_FETCHES])
def test_a_stopped_disk_moves_no_data(disk: Host, command: type[Read10]) -> None:
    disk.good(StartStopUnit(start=False))
    sense = disk.sense(command(blocks=1), bytes(BLOCK))
    assert (sense.key, sense.asc) == (
        SenseKey.NOT_READY,
        Asc.LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED,
    )
    disk.unit.reset()
    disk.good(command(blocks=1), bytes(BLOCK))


def test_stopping_flushes_unless_told_not_to(faulty: FaultyStore) -> None:
    disk = Host(BlockUnit("disk", faulty))
    disk.good(StartStopUnit(no_flush=True))
    assert faulty.calls == []
    disk.good(StartStopUnit(immed=True))
    assert faulty.calls == ["flush"]


@pytest.mark.parametrize(
    ("cdb", "byte", "bit"),
    [
        (StartStopUnit(load_eject=True), 4, 1),
    ],
)
def test_what_only_removable_disks_do_is_refused(
    disk: Host, cdb: StartStopUnit, byte: int, bit: int
) -> None:
    sense = disk.sense(cdb)
    assert sense.pointer == FieldPointer(byte, bit, in_cdb=True)


@pytest.mark.parametrize("command", PRE_FETCHES)
def test_pre_fetch_names_a_range_or_the_rest(
    faulty: FaultyStore, command: type[PreFetch10]
) -> None:
    disk = Host(BlockUnit("disk", faulty))
    for cdb in (command(lba=5, blocks=7), command(lba=5), command(lba=BLOCKS - 1, immed=True)):
        disk.good(cdb)
    assert faulty.calls == ["prefetch"] * 3


def test_a_disk_that_cannot_be_says_why(tmp_path: Path) -> None:
    store = open_file_store(tmp_path / "disk", 4096 + 512)
    with pytest.raises(StoreError, match="block size 513, must be one of"):
        BlockUnit("disk", store, block_size=513)
    with pytest.raises(StoreError, match="4608 bytes are not whole blocks of 4096"):
        BlockUnit("disk", store, block_size=4096)


def test_closing_closes_the_store(faulty: FaultyStore) -> None:
    BlockUnit("disk", faulty).close()
    assert faulty.calls == ["close"]
