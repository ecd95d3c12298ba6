"""One structure of a real volume is spoilt: that file is reported and all the others are read."""

import errno
from collections.abc import Callable
from struct import pack_into, unpack_from

import pytest

from serverfree.backup.files import Damage
from serverfree.backup.ntfs import NtfsError, Volume
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.sense import Asc, Sense, SenseKey
from support.ntfs_memory import MemoryDevice, demo_volume, fix_up, undo_fix_up

RECORD = 1024
FILES = 105


@pytest.fixture(scope="module")
def device() -> MemoryDevice:
    return demo_volume()


def place_of(device: MemoryDevice, number: int) -> int:
    (extent,) = Volume.open(device).table.extents
    return extent.place + number * RECORD


def number_of(device: MemoryDevice, path: str) -> int:
    return next(file.number for file in Volume.open(device).files() if path in file.paths)


def edit(device: MemoryDevice, number: int, change: Callable[[bytearray], None]) -> MemoryDevice:
    """Return the volume with a record changed as a writer would have written it."""
    place = place_of(device, number)
    record = bytearray(undo_fix_up(device.read_at(place, RECORD)))
    change(record)
    return device.change({place: fix_up(bytes(record))})


def attribute_at(record: bytes, kind: int) -> int:
    """Return where the first attribute of this type begins in a record."""
    at = int.from_bytes(record[20:22], "little")
    while unpack_from("<I", record, at)[0] != kind:
        at += unpack_from("<I", record, at + 4)[0]
    return at


def walk(device: MemoryDevice) -> tuple[set[str], list[Damage]]:
    volume = Volume.open(device)
    return {file.path for file in volume.files()}, volume.damage


def test_a_torn_record_is_damage_and_the_rest_is_read(device: MemoryDevice) -> None:
    whole, _ = walk(device)
    number = number_of(device, "Documents/LICENSE.txt")
    place = place_of(device, number)
    found, damage = walk(device.change({place + 510: b"\xee\xee"}))
    assert whole - found == {"Documents/LICENSE.txt"}
    assert [(each.number, each.why.split(":")[0]) for each in damage] == [(number, "torn")]


def test_a_directory_that_lies_in_itself_ends(device: MemoryDevice) -> None:
    letters = number_of(device, "Documents/Letters")

    def into_itself(record: bytearray) -> None:
        name = attribute_at(record, 0x30) + 24
        reference = letters | int.from_bytes(record[16:18], "little") << 48
        pack_into("<Q", record, name, reference)

    found, damage = walk(edit(device, letters, into_itself))
    assert not any(path.startswith("Documents/Letters") for path in found)
    assert "Documents/LICENSE.txt" in found
    assert len(damage) == FILES - len(found)
    assert all("lies in itself" in each.why for each in damage)


def test_two_directories_in_each_other_end(device: MemoryDevice) -> None:
    documents, letters = (number_of(device, path) for path in ("Documents", "Documents/Letters"))

    def into_letters(record: bytearray) -> None:
        pack_into("<Q", record, attribute_at(record, 0x30) + 24, letters | 1 << 48)

    found, damage = walk(edit(device, documents, into_letters))
    assert not any(path.startswith("Documents") for path in found)
    assert len(found) + len(damage) == FILES


def test_a_file_whose_directory_is_gone_is_damage(device: MemoryDevice) -> None:
    number = number_of(device, "Documents/empty.txt")

    def stale(record: bytearray) -> None:
        name = attribute_at(record, 0x30) + 24
        record[name + 6] += 1  # the sequence number of the directory it was in

    found, damage = walk(edit(device, number, stale))
    assert "Documents/empty.txt" not in found
    assert [each.number for each in damage] == [number]
    assert "which is gone" in damage[0].why


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a\0b"])
def test_a_name_that_would_lead_elsewhere_is_damage(device: MemoryDevice, name: str) -> None:
    number = number_of(device, "Documents/empty.txt")

    def rename(record: bytearray) -> None:
        value = attribute_at(record, 0x30) + 24
        record[value + 64] = len(name)
        record[value + 66 : value + 66 + 2 * len(name)] = name.encode("utf-16-le")

    found, damage = walk(edit(device, number, rename))
    assert len(found) == FILES - 1
    assert [each.number for each in damage] == [number]


def test_the_first_record_is_read_from_the_mirror_where_it_is_torn(device: MemoryDevice) -> None:
    whole, _ = walk(device)
    found, damage = walk(device.change({place_of(device, 0) + 1022: b"\xee\xee"}))
    assert found == whole
    assert [each.number for each in damage] == [0, 0]  # found when it is opened and when it is read
    assert "mirror" in damage[0].why


def test_a_volume_without_either_first_record_cannot_be_opened(device: MemoryDevice) -> None:
    mirror = Volume.open(device).boot.mirror * 4096
    harm = {place_of(device, 0): b"BAAD", mirror: b"BAAD"}
    with pytest.raises(NtfsError, match="mirror"):
        Volume.open(device.change(harm))


def test_runs_outside_of_the_volume_are_damage(device: MemoryDevice) -> None:
    number = number_of(device, "Documents/LICENSE.txt")

    def far_away(record: bytearray) -> None:
        data = attribute_at(record, 0x80)
        runs = data + unpack_from("<H", record, data + 0x20)[0]
        length = record[runs] & 15
        offset = record[runs] >> 4
        record[runs + 1 + length : runs + 1 + length + offset] = b"\xff" * (offset - 1) + b"\x80"

    found, damage = walk(edit(device, number, far_away))
    assert "Documents/LICENSE.txt" not in found
    assert [each.number for each in damage] == [number]
    assert "stream ''" in damage[0].why


def test_a_size_of_2_to_the_60th_is_damage_at_once(device: MemoryDevice) -> None:
    number = number_of(device, "Documents/LICENSE.txt")

    def huge(record: bytearray) -> None:
        data = attribute_at(record, 0x80)
        pack_into("<QQQ", record, data + 0x28, 1 << 60, 1 << 60, 1 << 60)

    _, damage = walk(edit(device, number, huge))
    assert [(each.number, each.why) for each in damage] == [
        (number, "stream '' is larger than its clusters")
    ]


@pytest.mark.parametrize("number", [6, 9])
def test_file_system_files_of_2_to_the_60th_bytes_end(device: MemoryDevice, number: int) -> None:
    def huge(record: bytearray) -> None:
        data = attribute_at(record, 0x80)
        pack_into("<QQ", record, data + 0x30, 1 << 60, 1 << 60)

    changed = edit(device, number, huge)
    assert len(walk(changed)[0]) == FILES
    assert Volume.open(changed).used() == Volume.open(device).used()


def test_the_dirty_flag(device: MemoryDevice) -> None:
    def dirty(record: bytearray) -> None:
        record[attribute_at(record, 0x70) + 24 + 10] |= 1

    assert not Volume.open(device).facts.dirty
    assert Volume.open(edit(device, 3, dirty)).facts.dirty


@pytest.mark.parametrize(
    ("place", "data", "why"),
    [
        (3, b"FAT32   ", "boot sector is another's"),
        (0x0B, b"\x01\x02", "sectors of 513 bytes"),
        (0x0D, b"\x03", "3 sectors in a cluster"),
        (0x0D, b"\xe0", "sectors in a cluster"),
        (0x30, b"\xff" * 8, "begins at cluster"),
        (0x40, b"\x7f", "file record"),
        (0x28, b"\xff" * 7, "on 335544320 of the device"),
    ],
)
def test_boot_sectors_that_no_volume_has(
    device: MemoryDevice, place: int, data: bytes, why: str
) -> None:
    with pytest.raises(NtfsError, match=why):
        Volume.open(device.change({place: data}))


def test_a_device_too_small_for_a_boot_sector() -> None:
    with pytest.raises(NtfsError):
        Volume.open(MemoryDevice(100, {}))


class Worn:
    """A device some of whose bytes cannot be read, as a disk says it or as a file does."""

    def __init__(self, device: MemoryDevice, places: set[int], error: Exception) -> None:
        self._device, self._places, self._error = device, places, error
        self.size, self.block_length = device.size, device.block_length

    def read_at(self, offset: int, length: int) -> bytes:
        if any(offset <= place < offset + length for place in self._places):
            raise self._error
        return self._device.read_at(offset, length)


@pytest.mark.parametrize(
    "error",
    [
        CheckCondition(Sense(SenseKey.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR)),
        OSError(errno.EIO, "Input/output error"),
    ],
)
def test_records_that_the_disk_cannot_read_are_damage(
    device: MemoryDevice, error: Exception
) -> None:
    number = number_of(device, "Documents/LICENSE.txt") & ~3  # four records in a block of 4 KiB
    whole = {file.path: file.number for file in Volume.open(device).files()}
    volume = Volume.open(Worn(device, {place_of(device, number)}, error))
    found = {file.path for file in volume.files()}
    lost = [path for path, at in whole.items() if number <= at < number + 4]
    assert whole.keys() - found == set(lost)
    assert [each.number for each in volume.damage] == [None, *range(number, number + 4)]


def test_a_lost_connection_is_no_damage(device: MemoryDevice) -> None:
    place = place_of(device, 100)
    with pytest.raises(ConnectionResetError):
        list(Volume.open(Worn(device, {place}, ConnectionResetError())).files())
