"""The files inside an image: where in its archive the content of each lies.

So that a single file can be restored from the image of a disk. What an image of changes does not
hold lies at the same place of the disk in one of those before it.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from serverfree.backup.archive.member import Data, Elsewhere, Kind, Member
from serverfree.backup.files import Extent, File, Stream


class ImageMap:
    """Places of a disk in an archive, by the data of its image: `start` is that on the disk."""

    def __init__(self, data: Sequence[Data]) -> None:
        self._data = sorted(data, key=lambda each: each.start)
        self._starts = [each.start for each in self._data]

    def split(
        self, start: int, length: int, disk_offset: int
    ) -> tuple[list[Data], list[Elsewhere]]:
        """Return where `length` bytes of a stream from `start` on are in the archive, which lie at
        `disk_offset` of the disk; and what of them the image does not hold.
        """
        held, elsewhere = [], []
        at, end, shift = disk_offset, disk_offset + length, start - disk_offset
        index = max(bisect_right(self._starts, at) - 1, 0)
        while at < end:
            each = self._data[index] if index < len(self._data) else None
            if each is None or each.start >= end:
                elsewhere.append(Elsewhere(at + shift, end - at, at))
                break
            stop = each.start + each.length
            if stop <= at:
                index += 1
                continue
            if each.start > at:
                elsewhere.append(Elsewhere(at + shift, each.start - at, at))
                at = each.start
            size = min(stop, end) - at
            held.append(Data(at + shift, size, each.archive_offset + at - each.start))
            at += size
        return held, elsewhere


def members_of_image(
    files: Iterable[File], image: Sequence[Data], volume_start: int
) -> Iterator[Member]:
    """Yield the files, streams and hard links of a volume as members without headers of their own
    (`end_offset` 0). `image` is the data of the image's member, `volume_start` where the volume
    begins on its disk. `damage` says of what is encrypted that only the whole image brings it back.
    """
    places = ImageMap(image)
    for file in files:
        yield _main(file, places, volume_start)
        for stream in file.streams:
            if stream.name:
                member = _member(file, file.path, Kind.FILE)
                member.stream = stream.name
                _fill(member, stream, places, volume_start)
                yield member
        for path in file.paths[1:]:
            link = _member(file, path, Kind.HARD_LINK)
            link.link_target = file.path
            yield link


def _main(file: File, places: ImageMap, volume_start: int) -> Member:
    kind = Kind.DIRECTORY if file.is_directory else Kind.FILE
    member = _member(file, file.path, kind)
    member.attributes = file.attributes
    own = next((stream for stream in file.streams if not stream.name), None)
    if own is not None:
        _fill(member, own, places, volume_start)
    return member


def _member(file: File, path: str, kind: Kind) -> Member:
    return Member(path, kind, modified=file.modified, number=file.number, sequence=file.sequence)


def _fill(member: Member, stream: Stream, places: ImageMap, volume_start: int) -> None:
    member.size = stream.size
    if stream.resident is not None:
        member.resident = stream.resident
        return
    if stream.encrypted:
        member.damage = "encrypted: only a restore of the whole image brings it back"
        return
    if stream.compressed:
        member.compression_unit, member.valid = stream.compression_unit, stream.valid
    extents: Iterable[Extent] = stream.extents if stream.compressed else stream.data()
    held: list[Data] = []
    elsewhere: list[Elsewhere] = []
    for extent in extents:
        here, there = places.split(extent.start, extent.length, volume_start + extent.place)
        held += here
        elsewhere += there
    member.data, member.elsewhere = tuple(held), tuple(elsewhere)
