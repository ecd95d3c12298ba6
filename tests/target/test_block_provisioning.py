"""WRITE SAME, UNMAP and GET LBA STATUS."""

from pathlib import Path

import pytest
from pyscsi.pyscsi.scsi_cdb_getlbastatus import GetLBAStatus as PyscsiGetLbaStatus

from serverfree.scsi.cdb.block import (
    GetLbaStatus,
    Read10,
    StartStopUnit,
    Unmap,
    Write10,
    WriteSame10,
    WriteSame16,
)
from serverfree.scsi.provisioning import BlockRange, pack_unmap_list
from serverfree.scsi.sense import Asc, FieldPointer, SenseKey
from serverfree.scsi.status import Status
from serverfree.target.backstore.file import open_file_store
from serverfree.target.units.block import BlockUnit
from serverfree.target.units.command import Command, Lane
from support.disk import NEXUS, Host, make_disk

BLOCK = 512
BLOCKS = 2048
SAMES = (WriteSame10, WriteSame16)


@pytest.fixture
def full(tmp_path: Path) -> Host:
    return Host(make_disk(tmp_path / "full", BLOCKS * BLOCK))


@pytest.fixture
def thin(tmp_path: Path) -> Host:
    disk = make_disk(tmp_path / "thin", BLOCKS * BLOCK, thin=True)
    if not disk.thin:
        pytest.skip(f"the file system of {tmp_path} cannot punch holes")
    return Host(disk)


def unmap(*ranges: tuple[int, int]) -> tuple[Unmap, bytes]:
    data = pack_unmap_list(BlockRange(*each) for each in ranges)
    return Unmap(parameter_list_length=len(data)), data


# WRITE SAME


@pytest.mark.parametrize("same", SAMES)
def test_write_same_repeats_its_block(full: Host, same: type[WriteSame10]) -> None:
    block = bytes(range(256)) * 2
    cdb = same(lba=10, blocks=1000)
    assert full.unit.data_out_length(cdb.pack()) == BLOCK
    assert full.unit.lane(cdb.pack()) is Lane.QUEUED
    full.good(cdb, block)
    assert full.good(Read10(lba=9, blocks=1002)) == bytes(BLOCK) + block * 1000 + bytes(BLOCK)
    full.good(same(lba=11, blocks=5), bytes(BLOCK))
    assert full.good(Read10(lba=10, blocks=7)) == block + bytes(5 * BLOCK) + block


def test_write_same_without_data_out_writes_zeros(full: Host) -> None:
    full.good(Write10(lba=0, blocks=4), b"x" * 4 * BLOCK)
    cdb = WriteSame16(ndob=True, lba=1, blocks=2)
    assert full.unit.data_out_length(cdb.pack()) == 0
    full.good(cdb)
    assert full.good(Read10(blocks=4)) == b"x" * BLOCK + bytes(2 * BLOCK) + b"x" * BLOCK


@pytest.mark.parametrize("same", SAMES)
def test_write_same_unmaps_zeros_and_writes_what_is_not(
    thin: Host, same: type[WriteSame10]
) -> None:
    thin.good(Write10(lba=0, blocks=64), b"x" * 64 * BLOCK)
    thin.good(same(unmap=True, lba=0, blocks=32), bytes(BLOCK))
    assert thin.good(Read10(blocks=33)) == bytes(32 * BLOCK) + b"x" * BLOCK
    assert runs(thin, 0)[0] == (0, 32, 1)
    thin.good(same(unmap=True, lba=0, blocks=32), b"y" * BLOCK)
    assert thin.good(Read10(blocks=33)) == b"y" * 32 * BLOCK + b"x" * BLOCK
    assert runs(thin, 0)[0] == (0, 64, 0)


@pytest.mark.parametrize("same", SAMES)
def test_write_same_refuses_what_it_must(full: Host, thin: Host, same: type[WriteSame10]) -> None:
    blocks_at = FieldPointer(same.PLACES["blocks"].byte, 7, in_cdb=True)
    for host, cdb, data, asc, pointer in (
        (full, same(), bytes(BLOCK), Asc.INVALID_FIELD_IN_CDB, blocks_at),  # WSNZ
        (full, same(blocks=2), bytes(BLOCK - 1), Asc.INVALID_FIELD_IN_CDB, blocks_at),
        (full, same(blocks=2), bytes(2 * BLOCK), Asc.INVALID_FIELD_IN_CDB, blocks_at),
        (
            full,
            same(unmap=True, blocks=1),
            bytes(BLOCK),
            Asc.INVALID_FIELD_IN_CDB,
            FieldPointer(1, 3, in_cdb=True),
        ),
        (
            thin,
            same(unmap=True, anchor=True, blocks=1),
            bytes(BLOCK),
            Asc.INVALID_FIELD_IN_CDB,
            FieldPointer(1, 4, in_cdb=True),
        ),
        (
            full,
            same(lba=BLOCKS - 1, blocks=2),
            bytes(BLOCK),
            Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE,
            FieldPointer(2, 7, in_cdb=True),
        ),
    ):
        sense = host.sense(cdb, data)
        assert (sense.key, sense.asc) == (SenseKey.ILLEGAL_REQUEST, asc)
        assert sense.pointer == pointer
    assert full.unit.data_out_length(same(lba=BLOCKS, blocks=1).pack()) == 0


def test_a_write_same_beyond_block_limits_is_refused(tmp_path: Path) -> None:
    disk = Host(make_disk(tmp_path / "disk", 4 << 30, block_size=4096, thin=True))
    most = int.from_bytes(disk.good(bytes.fromhex("12 01 b0 00 40 00"))[36:44], "big")
    disk.good(WriteSame16(ndob=True, blocks=most))
    sense = disk.sense(WriteSame16(ndob=True, blocks=most + 1))
    assert (sense.asc, sense.pointer) == (
        Asc.INVALID_FIELD_IN_CDB,
        FieldPointer(10, 7, in_cdb=True),
    )


def test_a_write_same_that_is_aborted_stops(full: Host) -> None:
    command = Command(NEXUS, WriteSame10(blocks=1).pack(), b"x" * BLOCK, aborted=True)
    assert full.unit.execute(command).status is Status.TASK_ABORTED
    assert full.good(Read10(blocks=1)) == bytes(BLOCK)


def test_a_readonly_disk_is_neither_filled_nor_freed(tmp_path: Path) -> None:
    disk = Host(make_disk(tmp_path / "disk", BLOCKS * BLOCK, readonly=True))
    for cdb in (WriteSame10(blocks=1), WriteSame16(ndob=True, unmap=True, blocks=1)):
        sense = disk.sense(cdb, bytes(BLOCK))
        assert (sense.key, sense.asc) == (SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)


# UNMAP


def test_unmapped_blocks_read_as_zeros_and_their_neighbours_do_not(thin: Host) -> None:
    thin.good(Write10(lba=0, blocks=100), b"x" * 100 * BLOCK)
    cdb, data = unmap((10, 3), (20, 40), (5, 0), (BLOCKS, 0))
    assert thin.unit.data_out_length(cdb.pack()) == len(data)
    thin.good(cdb, data)
    expected = bytearray(b"x" * 100 * BLOCK)
    expected[10 * BLOCK : 13 * BLOCK] = bytes(3 * BLOCK)
    expected[20 * BLOCK : 60 * BLOCK] = bytes(40 * BLOCK)
    assert thin.good(Read10(blocks=100)) == bytes(expected)


def test_nothing_is_unmapped_if_one_range_is_bad(thin: Host) -> None:
    thin.good(Write10(lba=0, blocks=8), b"x" * 8 * BLOCK)
    for bad in ((BLOCKS - 1, 2), (BLOCKS + 1, 0), ((1 << 64) - 1, 1)):
        sense = thin.sense(*unmap((0, 8), bad))
        assert sense.asc is Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE
        assert sense.pointer == FieldPointer(8 + 16)
    assert thin.good(Read10(blocks=8)) == b"x" * 8 * BLOCK


def test_a_list_that_is_cut_short_is_refused(thin: Host) -> None:
    thin.good(Write10(lba=0, blocks=8), b"x" * 8 * BLOCK)
    _, data = unmap((0, 8))
    for length in range(1, len(data)):
        sense = thin.sense(Unmap(parameter_list_length=length), data[:length])
        assert sense.asc is Asc.PARAMETER_LIST_LENGTH_ERROR
        late = thin.sense(Unmap(parameter_list_length=len(data)), data[:length])
        assert late.asc is Asc.PARAMETER_LIST_LENGTH_ERROR
    assert thin.good(Read10(blocks=8)) == b"x" * 8 * BLOCK
    thin.good(Unmap())
    thin.good(Unmap(parameter_list_length=8), bytes(8))


def test_a_full_disk_has_no_unmap(full: Host) -> None:
    assert full.sense(Unmap()).asc is Asc.INVALID_COMMAND_OPERATION_CODE


def test_unmap_is_refused_where_writing_is(thin: Host) -> None:
    assert isinstance(thin.unit, BlockUnit)
    thin.unit.software_write_protect = True
    cdb, data = unmap((0, 8))
    assert thin.unit.data_out_length(cdb.pack()) == 0
    assert thin.sense(cdb, data).asc is Asc.WRITE_PROTECTED
    thin.unit.software_write_protect = False
    anchored = thin.sense(Unmap(anchor=True, parameter_list_length=24), data)
    assert anchored.pointer == FieldPointer(1, 0, in_cdb=True)
    thin.good(StartStopUnit())
    assert thin.sense(cdb, data).key is SenseKey.NOT_READY


# GET LBA STATUS, and what the pages say


def runs(disk: Host, lba: int, allocation_length: int = 4096) -> list[tuple[int, int, int]]:
    data = disk.good(GetLbaStatus(lba=lba, allocation_length=allocation_length))
    read = PyscsiGetLbaStatus.unmarshall_datain(data)["lbas"]
    return [(each["lba"], each["num_blocks"], each["p_status"]) for each in read]


def test_lba_status_tells_mapped_from_deallocated(thin: Host) -> None:
    assert runs(thin, 0) == [(0, BLOCKS, 1)]
    thin.good(Write10(lba=64, blocks=8), b"x" * 8 * BLOCK)
    thin.good(Write10(lba=128, blocks=16), b"x" * 16 * BLOCK)
    everything = [(0, 64, 1), (64, 8, 0), (72, 56, 1), (128, 16, 0), (144, BLOCKS - 144, 1)]
    assert runs(thin, 0) == everything
    assert runs(thin, 68) == [(68, 4, 0), *everything[2:]]
    assert runs(thin, BLOCKS - 1) == [(BLOCKS - 1, 1, 1)]
    assert runs(thin, 0, 8 + 2 * 16) == everything[:2]


def test_a_block_that_is_a_hole_only_in_part_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    small = Host(make_disk(path, 1 << 16, thin=True))
    assert isinstance(small.unit, BlockUnit)
    if small.unit.store.granularity != 4096:
        pytest.skip("the file system allocates in other sizes")
    small.good(Write10(lba=0, blocks=128), b"x" * (1 << 16))
    small.good(*unmap((1, 15)))  # of the two pages only the second is freed
    assert runs(small, 0)[:2] == [(0, 8, 0), (8, 8, 1)]
    assert small.good(Read10(blocks=2)) == b"x" * BLOCK + bytes(BLOCK)


def test_lba_status_past_the_end_is_refused(thin: Host) -> None:
    sense = thin.sense(GetLbaStatus(lba=BLOCKS, allocation_length=24))
    assert (sense.asc, sense.pointer) == (
        Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE,
        FieldPointer(2, 7, in_cdb=True),
    )


def test_the_pages_say_what_the_disk_can_do(thin: Host, full: Host) -> None:
    assert thin.good(bytes.fromhex("12 01 b2 00 40 00")) == bytes.fromhex("00 b2 00 04 00 e4 02 00")
    assert full.good(bytes.fromhex("12 01 b2 00 40 00")) == bytes.fromhex("00 b2 00 04 00 00 00 00")
    capacity = bytes.fromhex("9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00")
    assert thin.good(capacity)[14] == 0xC0
    assert full.good(capacity)[14] == 0x00
    thin_limits, full_limits = (
        host.good(bytes.fromhex("12 01 b0 00 40 00")) for host in (thin, full)
    )
    assert thin_limits[20:28] == bytes.fromhex("ff ff ff ff 00 00 0f ff")
    assert full_limits[20:28] == bytes(8)
    assert thin_limits[4] == full_limits[4] == 1  # WSNZ


@pytest.mark.parametrize(("physical", "granularity"), [(512, 1), (4096, 8)])
def test_what_a_disk_prefers_is_told_for_random_and_for_streaming_access(
    tmp_path: Path, physical: int, granularity: int
) -> None:
    store = open_file_store(tmp_path / "disk", 1 << 20)
    disk = Host(BlockUnit("disk", store, physical_size=physical))
    limits = disk.good(bytes.fromhex("12 01 b0 00 40 00"))
    # A physical block, 1 MiB; 32 MiB at the most (SBC-4 H.3.5.2).
    assert limits[6:8] == granularity.to_bytes(2, "big")
    assert limits[12:16] == bytes.fromhex("00 00 08 00")
    assert limits[8:12] == bytes.fromhex("00 01 00 00")


def test_a_store_that_frees_large_pieces_only_is_no_reason_for_large_transfers(thin: Host) -> None:
    assert isinstance(thin.unit, BlockUnit)
    thin.unit.store.granularity = 64 << 20  # of a thin pool: more than a field of 16 bits holds
    limits = thin.good(bytes.fromhex("12 01 b0 00 40 00"))
    assert limits[6:8] == bytes.fromhex("00 01")
    assert limits[28:32] == bytes.fromhex("00 02 00 00")
