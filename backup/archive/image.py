"""A whole disk as one member: a sparse image, of what is in use or of what has changed."""

from collections.abc import Iterable, Iterator

from serverfree.backup.archive.member import ArchiveError, Kind, Member, Reason
from serverfree.backup.archive.writer import ArchiveWriter, Content
from serverfree.backup.files import VolumeFacts
from serverfree.backup.pieces import FromDisk, Inline, Piece

Extents = list[tuple[int, int]]
"""(offset, length) on a disk, ascending, apart from each other."""
CATALOG_FOLDER = ".serverfree"


Used = tuple[VolumeFacts, Iterable[tuple[int, int]]]
"""A volume, and the (place, length) in it of all that is in use."""


def disk_extents(volumes: Iterable[Used], disk_size: int) -> Extents:
    """Return what of a disk an image holds: what its volumes use, and all that is in none of them.

    Outside of them lie partition tables, boot loaders and other file systems, of which no more is
    known.
    """
    everything, at = [], 0
    for volume, used in sorted(volumes, key=lambda each: each[0].start):
        everything.append((at, volume.start - at))
        everything += [(volume.start + place, length) for place, length in used]
        at = max(at, min(volume.start + volume.size, disk_size))
    everything.append((at, disk_size - at))
    return _joined(sorted(everything))


def changed_extents(extents: Extents, changed: Iterable[tuple[int, int]]) -> Extents:
    """Return what two lists of extents, both ascending, have in common."""
    common: Extents = []
    others = iter(changed)
    other = next(others, None)
    for offset, length in extents:
        end = offset + length
        while other is not None and sum(other) <= offset:
            other = next(others, None)
        while other is not None and other[0] < end:
            low, high = max(offset, other[0]), min(end, sum(other))
            common.append((low, high - low))
            if sum(other) > end:
                break
            other = next(others, None)
    return _joined(common)


def put_image(
    writer: ArchiveWriter,
    name: str,
    extents: Extents,
    disk_size: int,
    block_length: int,
    modified: int,
) -> tuple[Member, Iterator[Piece]]:
    """Return the member `NAME.img` and its pieces. Extents are widened to whole disk blocks."""
    whole: Extents = []
    for offset, length in extents:
        low = offset // block_length * block_length
        high = min(-(-(offset + length) // block_length) * block_length, disk_size)
        if high > low:
            whole.append((low, high - low))
    if whole and sum(whole[-1]) > disk_size:
        raise ArchiveError(f"an extent ends at {sum(whole[-1])}, the disk at {disk_size}")
    member = Member(f"{name}.img", Kind.IMAGE, disk_size, modified)
    content = [Content(offset, FromDisk(offset, length)) for offset, length in _joined(whole)]
    return member, writer.put(member, content)


def put_catalog(
    writer: ArchiveWriter, identifier: str, packed: bytes, modified: int
) -> tuple[Member, Iterator[Piece]]:
    """Return the member that holds the catalog of the backup itself, and its pieces."""
    path = f"{CATALOG_FOLDER}/catalog-{identifier}.sqlite.zst"
    member = Member(path, Kind.CATALOG, len(packed), modified, reason=Reason.CATALOG)
    return member, writer.put(member, [Content(0, Inline(packed))])


def _joined(extents: Iterable[tuple[int, int]]) -> Extents:
    joined: Extents = []
    for offset, length in extents:
        if length <= 0:
            continue
        if joined and offset <= sum(joined[-1]):
            start = joined[-1][0]
            joined[-1] = start, max(offset + length, sum(joined[-1])) - start
        else:
            joined.append((offset, length))
    return joined
