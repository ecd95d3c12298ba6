"""Partition tables, made by hand from the layouts of UEFI 2.10 chapter 5."""

import binascii
import random
import uuid

import pytest

from serverfree.backup.partitions import Partition, PartitionError, partitions
from support.ntfs_memory import MemoryDevice, demo_volume

MIB = 1 << 20
BASIC_DATA = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"


def disk(changes: dict[int, bytes], size: int = 64 * MIB, block: int = 512) -> MemoryDevice:
    device = MemoryDevice(size, {}).change(changes)
    device.block_length = block
    return device


def mbr(*entries: tuple[int, int, int]) -> bytes:
    table = b"".join(
        b"\0\0\0\0" + bytes([kind]) + b"\0\0\0" + start.to_bytes(4, "little")
        + count.to_bytes(4, "little")
        for kind, start, count in entries
    )  # fmt: skip
    return bytes(446) + table.ljust(64, b"\0") + b"\x55\xaa"


def gpt(entries: list[tuple[str, int, int, str]], block: int = 512) -> dict[int, bytes]:
    """Return a protective MBR, a header in block 1, its table, and both again at the end."""
    last = 64 * MIB // block - 1
    table = b"".join(
        uuid.UUID(kind).bytes_le + uuid.uuid4().bytes_le + first.to_bytes(8, "little")
        + end.to_bytes(8, "little") + bytes(8) + name.encode("utf-16-le").ljust(72, b"\0")
        for kind, first, end, name in entries
    ).ljust(128 * 128, b"\0")  # fmt: skip
    blocks = len(table) // block

    def header(here: int, other: int, place: int) -> bytes:
        usable = (2 + blocks).to_bytes(8, "little") + (last - blocks - 1).to_bytes(8, "little")
        data = b"EFI PART" + bytes.fromhex("00000100 5c000000 00000000 00000000")
        data += here.to_bytes(8, "little") + other.to_bytes(8, "little") + usable + bytes(16)
        data += place.to_bytes(8, "little") + (128).to_bytes(4, "little") * 2
        data += binascii.crc32(table).to_bytes(4, "little")
        return data[:16] + binascii.crc32(data).to_bytes(4, "little") + data[20:]

    return {
        0: mbr((0xEE, 1, last)),
        block: header(1, last, 2),
        2 * block: table,
        (last - blocks) * block: table,
        last * block: header(last, 1, last - blocks),
    }


def test_primary_partitions_of_an_mbr() -> None:
    found = partitions(disk({0: mbr((7, 2048, 4096), (0, 0, 0), (0x83, 8192, 1000))}))
    assert found == [
        Partition(1, MIB, 2 * MIB, "07", ""),
        Partition(3, 4 * MIB, 512_000, "83", ""),
    ]


def test_logical_partitions_count_from_5() -> None:
    changes = {
        0: mbr((7, 2048, 2048), (0x0F, 8192, 65_536)),
        8192 * 512: mbr((7, 2048, 4096), (5, 16_384, 10_000)),
        (8192 + 16_384) * 512: mbr((7, 2048, 1000)),
    }
    assert [(each.number, each.start // 512) for each in partitions(disk(changes))] == [
        (1, 2048), (5, 8192 + 2048), (6, 8192 + 16_384 + 2048),
    ]  # fmt: skip


def test_extended_partitions_that_lead_back_to_themselves_end() -> None:
    changes = {0: mbr((5, 8192, 65_536)), 8192 * 512: mbr((7, 1, 10), (5, 0, 65_536))}
    assert len(partitions(disk(changes))) == 1


@pytest.mark.parametrize("block", [512, 4096])
def test_gpt(block: int) -> None:
    tables = gpt([(BASIC_DATA, 512, 1023, "Daten"), (BASIC_DATA, 1024, 2047, "")], block)
    found = partitions(disk(tables, block=block))
    assert found == [
        Partition(1, 512 * block, 512 * block, BASIC_DATA, "Daten"),
        Partition(2, 1024 * block, 1024 * block, BASIC_DATA, ""),
    ]


@pytest.mark.parametrize("harm", [{512 + 40: b"x"}, {512: b"x"}, {1024 + 33: b"x"}])
def test_the_backup_gpt_is_read_where_the_first_is_damaged(harm: dict[int, bytes]) -> None:
    device = disk(gpt([(BASIC_DATA, 2048, 4095, "volume")]))
    assert partitions(device.change(harm)) == partitions(device) != []


def test_a_gpt_with_no_whole_copy_is_an_error() -> None:
    device = disk(gpt([(BASIC_DATA, 2048, 4095, "volume")]))
    with pytest.raises(PartitionError, match="checksum"):
        partitions(device.change({512 + 40: b"x", 64 * MIB - 512 + 40: b"x"}))


def test_a_volume_without_partition_table_has_no_partitions() -> None:
    assert partitions(demo_volume()) == []
    assert partitions(disk({})) == []


def test_partitions_outside_of_the_disk_are_left_out() -> None:
    assert partitions(disk({0: mbr((7, 2048, 0xFFFFFFFF), (7, 2048, 2048))})) == [
        Partition(2, MIB, MIB, "07", "")
    ]


def test_tables_of_random_bytes_end_with_partitions_or_the_one_error() -> None:
    chance = random.Random(3)
    whole = disk(gpt([(BASIC_DATA, 2048, 4095, "volume")]))
    extended = disk({0: mbr((7, 1, 9), (5, 64, 9999)), 64 * 512: mbr((7, 1, 9), (5, 64, 99))})
    for _ in range(2000):
        device = chance.choice((whole, extended))
        place = chance.choice((446, 512, 1024, 64 * 512 + 446)) + chance.randrange(64)
        changed = device.change({place: chance.randbytes(chance.choice((1, 4, 40)))})
        try:
            found = partitions(changed)
        except PartitionError:
            continue
        for each in found:
            assert 0 <= each.start < each.start + each.size <= device.size
