"""What of a disk goes into a backup: volumes in partitions, chosen and read where they lie."""

import hashlib

import pytest

from serverfree.backup.archive.writer import ArchiveWriter
from serverfree.backup.catalog.facts import Mode
from serverfree.backup.contents import Wish, read_contents, volume_start
from serverfree.backup.device import FileDevice
from serverfree.backup.errors import BackupError
from serverfree.backup.ntfs.errors import NtfsError
from serverfree.backup.ntfs.volume import Volume
from serverfree.backup.pieces import FromDisk

pytestmark = pytest.mark.peer

MIB = 1 << 20
VOLUME = 64 * MIB


def entry(kind: int, start: int, size: int) -> bytes:
    """A partition of an MBR, from bytes."""
    return (
        bytes([0, 0, 0, 0, kind, 0, 0, 0])
        + (start // 512).to_bytes(4, "little")
        + (size // 512).to_bytes(4, "little")
    )


@pytest.fixture
def disk(ntfs_images, tmp_path):
    """A disk with an MBR: something else, then a volume, then another one; and what it is of."""
    image = ntfs_images.get("plain")
    content = image.path.read_bytes()
    assert len(content) == VOLUME
    other = 66 * MIB
    table = bytearray(512)
    table[446:494] = (
        entry(0x83, 512 << 10, 256 << 10) + entry(7, MIB, VOLUME) + entry(7, other, VOLUME)
    )
    table[510:512] = b"\x55\xaa"
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.write(table)
        file.seek(512 << 10)
        file.write(b"another system")
        file.seek(MIB)
        file.write(content)
        file.seek(other)
        file.write(content)
    with FileDevice(str(path)) as device:
        yield device, image


def digest(pieces) -> str:
    return hashlib.sha256(b"".join(pieces)).hexdigest()


def pieces_of(contents):
    """Every member with its pieces."""
    return [(member, list(pieces)) for member, pieces in contents.parts(ArchiveWriter())]


def test_several_volumes_have_to_be_told_apart(disk):
    device, _ = disk
    with pytest.raises(BackupError, match=r"say which --partition.* 2, 3"):
        read_contents(device, Wish(Mode.FILES))
    with pytest.raises(BackupError, match="partition 1 is no NTFS volume: NTFS is on 2, 3"):
        read_contents(device, Wish(Mode.FILES, partition=1))


def test_files_lie_where_their_partition_does(disk):
    device, image = disk
    contents = read_contents(device, Wish(Mode.FILES, ("folder 0",), partition=3))
    assert contents.volume.start == 66 * MIB
    checked = 0
    for member, pieces in pieces_of(contents):
        places = [piece for piece in pieces if isinstance(piece, FromDisk)]
        if places:
            data = b"".join(device.read_at(each.offset, each.length) for each in places)
            expected = image.manifest.streams[member.path, member.stream]
            assert hashlib.sha256(data).hexdigest() == expected.sha256
            assert all(each.offset >= 66 * MIB for each in places)
            checked += 1
    assert checked >= 2


def test_an_image_has_the_volume_and_all_that_is_not_of_it(disk):
    device, _ = disk
    contents = read_contents(device, Wish(Mode.IMAGE, partition=2, name="all"))
    ((member, pieces),) = pieces_of(contents)
    assert (member.path, member.size) == ("all.img", device.size)
    there = [(piece.offset, piece.length) for piece in pieces if isinstance(piece, FromDisk)]

    def holds(start: int, end: int) -> bool:
        return any(at <= start and end <= at + length for at, length in there)

    assert holds(0, MIB), "the partition table and the partition before"
    assert holds(66 * MIB, 66 * MIB + 4096), "the other volume"
    assert not holds(MIB, MIB + VOLUME), "of this one what is in use"
    assert not holds(66 * MIB, 66 * MIB + VOLUME), "and of that one too"
    assert contents.volume.start == MIB
    assert any(each.path == "folder 0" for each in contents.inside())


def test_an_image_of_several_volumes_has_what_is_in_use_of_each(disk, tmp_path):
    device, image = disk
    contents = read_contents(device, Wish(Mode.IMAGE, name="all"))
    assert contents.volume is None
    assert "2 NTFS volumes (partitions 2, 3)" in contents.remarks[-1]
    assert "--partition" in contents.remarks[-1]
    ((_, pieces),) = pieces_of(contents)
    assert list(contents.inside()) == []
    assert contents.to_move < 2 * VOLUME, "not what is free"
    restored = tmp_path / "restored.img"
    with restored.open("wb") as file:
        file.truncate(device.size)
        for piece in pieces:
            if isinstance(piece, FromDisk):
                file.seek(piece.offset)
                file.write(device.read_at(piece.offset, piece.length))
    assert restored.read_bytes()[512 << 10 : MIB].startswith(b"another system")
    with FileDevice(str(restored)) as again:
        for partition in (2, 3):
            volume = Volume.open(again, volume_start(again, partition))
            streams = {
                (file.path, stream.name): hashlib.sha256(
                    b"".join(volume.read_stream(file, stream))
                ).hexdigest()
                for file in volume.files()
                for stream in file.streams
                if stream.readable
            }
            there = image.manifest.streams
            assert streams.items() >= {key: one.sha256 for key, one in there.items()}.items()


def test_a_volume_without_a_bitmap_is_copied_whole(disk, monkeypatch):
    device, _ = disk
    used = Volume.used

    def damaged(volume):
        if volume.facts.start > MIB:
            raise NtfsError("the bitmap is torn")
        return used(volume)

    monkeypatch.setattr(Volume, "used", damaged)
    contents = read_contents(device, Wish(Mode.IMAGE, name="all"))
    assert any("partition 3" in each and "torn" in each for each in contents.remarks)
    ((_, pieces),) = pieces_of(contents)
    there = [(piece.offset, piece.length) for piece in pieces if isinstance(piece, FromDisk)]
    assert any(at <= 66 * MIB and at + length >= 66 * MIB + VOLUME for at, length in there)


def test_what_is_no_volume_says_why(tmp_path):
    path = tmp_path / "zeros.img"
    path.write_bytes(bytes(MIB))
    with FileDevice(str(path)) as device:
        for wish in (Wish(Mode.FILES), Wish(partition=0), Wish(partition=1)):
            with pytest.raises(BackupError, match=r"cannot be read|no partition"):
                read_contents(device, wish)


def test_an_image_of_what_is_no_volume_has_every_block(tmp_path):
    path = tmp_path / "other.img"
    path.write_bytes(b"another file system" + bytes(MIB))
    size = path.stat().st_size // 512 * 512
    with path.open("r+b") as file, FileDevice(str(path)) as device:
        file.truncate(size)
        contents = read_contents(device, Wish(name="raw"))
        assert contents.volume is None
        assert "every block" in contents.remarks[0]
        changes = read_contents(device, Wish(name="raw"), [(4096, 512)])
        ((member, pieces),) = pieces_of(contents)
        assert list(contents.inside()) == []
    assert [(each.start, each.length) for each in member.data] == [(0, member.size)]
    assert sum(each.length for each in pieces if isinstance(each, FromDisk)) == member.size
    assert changes.to_move == 512


def test_an_image_takes_no_paths(disk):
    device, _ = disk
    with pytest.raises(BackupError, match="--mode files"):
        read_contents(device, Wish(Mode.IMAGE, ("folder 0",), partition=2))
