"""Runs: where the clusters of an attribute lie."""

from collections.abc import Sequence

from serverfree.backup.files import Extent
from serverfree.backup.ntfs.attribute import NonResident
from serverfree.backup.ntfs.boot import Boot
from serverfree.backup.ntfs.errors import NtfsError

# What a signed offset of 64 bits can say at most, in bytes of a stream.
_LARGEST = 1 << 63


def unpack_runs(runs: bytes) -> list[tuple[int | None, int]]:
    """Decode packed runs to (first cluster on the volume or None for a hole, clusters).

    The low half of the first byte tells the bytes of the length, unsigned, the high half those of
    the distance from the run before, signed.
    """
    found: list[tuple[int | None, int]] = []
    place, at, end = 0, 0, len(runs)
    while at < end:
        head = runs[at]
        if not head:
            return found
        middle = at + 1 + (head & 15)
        after = middle + (head >> 4)
        if after > end or head & 15 > 8 or head >> 4 > 8:
            raise NtfsError("a run ends outside of its attribute")
        length = int.from_bytes(runs[at + 1 : middle], "little")
        if not length:
            raise NtfsError("a run has no clusters")
        if after == middle:
            found.append((None, length))
        else:
            place += int.from_bytes(runs[middle:after], "little", signed=True)
            found.append((place, length))
        at = after
    # An end mark may be cut off where the runs fill their attribute.
    return found


class Joiner:
    """Extents of an attribute out of its pieces, which come in the order of their clusters.

    NtfsError where they leave a gap, lie outside of the volume, or are more than it has.
    """

    def __init__(self, boot: Boot) -> None:
        self._cluster, self._clusters = boot.cluster_size, boot.clusters
        self._position = self._used = 0
        self.extents: list[Extent] = []

    def add(self, piece: NonResident) -> None:
        """Go on with the piece that begins where the last one has ended."""
        cluster, clusters, position = self._cluster, self._clusters, self._position
        extents = self.extents
        start = length = place = 0
        if piece.lowest != position:
            raise NtfsError(f"its runs go on at cluster {piece.lowest}, not at {position}")
        if extents:
            last = extents.pop()
            start, length, place = last.start, last.length, last.place
        for first, count in unpack_runs(piece.runs):
            if first is not None:
                self._used += count
                if first < 0 or first + count > clusters or self._used > clusters:
                    raise NtfsError(f"a run of {count} clusters at {first} of {clusters}")
                if first * cluster == place + length and position * cluster == start + length:
                    length += count * cluster
                else:
                    if length:
                        extents.append(Extent(start, length, place))
                    start, length, place = position * cluster, count * cluster, first * cluster
            position += count
        if length:
            extents.append(Extent(start, length, place))
        # An attribute without clusters has the highest VCN -1.
        if position != (piece.highest + 1) & 0xFFFFFFFFFFFFFFFF or position * cluster > _LARGEST:
            raise NtfsError(f"its runs end at cluster {position}, not behind {piece.highest}")
        self._position = position


def join(pieces: Sequence[NonResident], boot: Boot) -> tuple[Extent, ...]:
    """Return the extents of an attribute from all of its pieces, neighbours merged."""
    joiner = Joiner(boot)
    if len(pieces) > 1:
        pieces = sorted(pieces, key=_lowest)
    for piece in pieces:
        joiner.add(piece)
    return tuple(joiner.extents)


def _lowest(piece: NonResident) -> int:
    return piece.lowest
