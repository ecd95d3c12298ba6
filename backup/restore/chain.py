"""A chain of images as one: what was backed up last of each place of the disk, each place once."""

from bisect import bisect_right
from collections.abc import Sequence

from serverfree.backup.archive.member import Data
from serverfree.backup.pieces import ToDisk

_Part = tuple[int, int, int]
"""Place on the disk, length, offset in the archives."""


def newest(images: Sequence[Sequence[Data]]) -> list[ToDisk]:
    """Return the pieces of a chain of images, the oldest first, as they lie on the disk in the end.

    `Data.start` is the place on the disk. Every byte is in at most one piece. In order of places.
    """
    taken: list[_Part] = []
    for image in reversed(images):
        free = [
            part
            for data in sorted(image, key=lambda data: data.start)
            for part in _uncovered(taken, data)
        ]
        taken = sorted(taken + free)
    return [ToDisk(offset, length, place) for place, length, offset in taken]


def _uncovered(taken: Sequence[_Part], data: Data) -> list[_Part]:
    """Return what of an extent lies in none of the parts."""
    found = []
    at, end = data.start, data.start + data.length
    index = max(bisect_right(taken, (at, 1 << 62, 0)) - 1, 0)
    while at < end:
        if index == len(taken) or taken[index][0] >= end:
            found.append((at, end - at, data.archive_offset + at - data.start))
            break
        place, length, _ = taken[index]
        if place > at:
            found.append((at, place - at, data.archive_offset + at - data.start))
        at = max(at, place + length)
        index += 1
    return found


def gaps(pieces: Sequence[ToDisk], size: int) -> list[tuple[int, int]]:
    """Return (offset, length) of what of a disk no piece covers. `pieces` are in order."""
    found, at = [], 0
    for piece in pieces:
        if piece.offset > at:
            found.append((at, piece.offset - at))
        at = max(at, piece.offset + piece.length)
    if at < size:
        found.append((at, size - at))
    return found
