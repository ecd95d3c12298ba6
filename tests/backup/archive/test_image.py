"""A disk as one member: what of it, and that it comes back as it was."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from serverfree.backup.archive.image import changed_extents, disk_extents, put_image
from serverfree.backup.archive.member import Kind
from serverfree.backup.archive.pax import END
from serverfree.backup.archive.writer import ArchiveWriter
from serverfree.backup.files import VolumeFacts
from support.archives import content_of, members_of, put_together

DISK = hashlib.shake_128(b"disk").digest(1 << 16)


def volume(start: int, size: int) -> VolumeFacts:
    return VolumeFacts("NTFS", start, size, 512, 4096, "", "", False)


@st.composite
def extents(draw):
    cuts = sorted(draw(st.sets(st.integers(0, 128), max_size=16)))
    pairs = zip(cuts[::2], cuts[1::2], strict=False)
    return [(low * 512, (high - low) * 512) for low, high in pairs]


def blocks(found) -> set[int]:
    return {number for low, length in found for number in range(low // 512, (low + length) // 512)}


@given(extents(), extents())
def test_what_has_changed_of_what_is_in_use(used, changed):
    common = changed_extents(used, changed)
    assert blocks(common) == blocks(used) & blocks(changed)
    ends = [low + length for low, length in common]
    assert all(end < low for end, (low, _) in zip(ends, common[1:], strict=False))


def test_what_is_not_the_volume_is_kept_whole():
    used = [(0, 4096), (8192, 4096), (32768 - 512, 512)]
    found = disk_extents([(volume(16384, 32768), used)], 65536)
    assert found == [(0, 20480), (24576, 4096), (48640, 16896)]


def test_a_volume_that_is_the_whole_disk():
    assert disk_extents([(volume(0, 65536), [(0, 512)])], 65536) == [(0, 512)]


def test_of_several_volumes_what_is_used_of_each_is_kept():
    two = [(volume(32768, 16384), [(0, 512)]), (volume(4096, 8192), [(1024, 512), (7680, 512)])]
    assert disk_extents(two, 65536) == [
        (0, 4096), (5120, 512), (11776, 32768 - 11776 + 512), (49152, 16384),
    ]  # fmt: skip
    assert disk_extents([], 65536) == [(0, 65536)]
    inside = [(volume(0, 65536), [(0, 512)]), (volume(4096, 4096), [(512, 512)])]
    assert disk_extents(inside, 65536) == [(0, 512), (4608, 512)], "tables may say anything"


@given(extents(), st.sampled_from([512, 4096]))
def test_an_image_holds_its_extents_in_whole_blocks_and_holes_elsewhere(used, block):
    writer = ArchiveWriter()
    member, pieces = put_image(writer, "disk", used, len(DISK), block, 0)
    archive = put_together(pieces, DISK) + END
    assert members_of(archive) == [member]
    assert (member.path, member.kind, member.size) == ("disk.img", Kind.IMAGE, len(DISK))
    assert all(data.start % block == data.length % block == 0 for data in member.data)
    expected = bytearray(len(DISK))
    for number in blocks(used):
        low = number * 512 // block * block
        expected[low : low + block] = DISK[low : low + block]
    assert content_of(member, archive) == expected
