"""Clusters for streams whose content is to be copied: which, and by which program.

The driver gives clusters to what is written through it, fast, and zeros written into the shadow
are never sent anywhere. ntfsfallocate gives them without a write, at the price of a process.
"""

from serverfree.backup.restore.creation import Work
from serverfree.backup.restore.wanted import WantedFile, WantedStream
from serverfree.backup.restore.workshop import Mounted, Workshop

Ranges = list[tuple[int, int]]
"""Offsets in a stream and lengths, in order."""

_SMALL = 64 << 10
_SMALL_NAMED = 16 << 20  # ntfsfallocate may damage files with many named streams (2022.10.3)
_BUDGET = 4 << 30  # bytes of the shadow, on a disk of this machine
_CHUNK = bytes(1 << 17)
_SPARSE_OR_COMPRESSED = 0x0200 | 0x0800  # of ntfs_attrib


def ranges_of(file: WantedFile, stream: WantedStream, cluster: int) -> Ranges:
    """Return what of a stream is to have clusters: whole ones, but for the end of the stream.

    A file that is neither sparse nor compressed has them all, whether they hold something or not.
    """
    attributes = int.from_bytes(file.attributes.get("ntfs_attrib", b"")[:4], "little")
    if attributes and not attributes & _SPARSE_OR_COMPRESSED and stream.size:
        return [(0, stream.size)]
    ranges: Ranges = []
    for piece in stream.data():
        first = piece.start // cluster * cluster
        last = min(-(-(piece.start + piece.length) // cluster) * cluster, stream.size)
        if ranges and first <= sum(ranges[-1]):
            ranges[-1] = ranges[-1][0], last - ranges[-1][0]
        else:
            ranges.append((first, last - first))
    return ranges


class Allocator:
    """Gives streams their clusters: small ones at once, the others when nothing is mounted."""

    def __init__(self, workshop: Workshop, cluster: int) -> None:
        self._workshop, self._cluster = workshop, cluster
        self._left = _BUDGET
        self._later: list[tuple[Work, WantedStream, Ranges]] = []

    def now(self, mounted: Mounted, work: Work, stream: WantedStream) -> None:
        """Give a stream, which is empty, its clusters if it is small, or remember it."""
        ranges = ranges_of(work.file, stream, self._cluster)
        length = sum(length for _, length in ranges)
        if length > min(self._left, _SMALL_NAMED if stream.name else _SMALL):
            self._later.append((work, stream, ranges))
            return
        self._left -= length
        with mounted.at(work.path, stream.name).open("r+b", buffering=0) as file:
            for offset, size in ranges:
                file.seek(offset)
                while size:
                    size -= file.write(_CHUNK[:size])
            if not ranges or sum(ranges[-1]) < stream.size:
                file.truncate(stream.size)

    def later(self, *options: str) -> None:
        """Give the others theirs; the shadow is not mounted."""
        grown = []
        for work, stream, ranges in self._later:
            for offset, length in ranges:
                self._workshop.allocate(work.path, stream.name, offset, length)
            if sum(ranges[-1]) < stream.size:
                grown.append((work, stream))
        if grown:
            # What has no clusters at its end has a hole there.
            with self._workshop.mounted(*options) as mounted:
                for work, stream in grown:
                    mounted.truncate(work.path, stream.name, stream.size)
