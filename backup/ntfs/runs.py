"""Runs: where the clusters of an attribute lie."""

from collections.abc import Iterable

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


def join(pieces: Iterable[NonResident], boot: Boot) -> tuple[Extent, ...]:
    """Return the extents of an attribute from all of its pieces, neighbours merged.

    NtfsError where they do not cover it from its first cluster to its last, lie outside of the
    volume, or are more than it has.
    """
    cluster, clusters = boot.cluster_size, boot.clusters
    position, used = 0, 0
    extents: list[Extent] = []
    start = length = 0
    place = -1
    for piece in sorted(pieces, key=_lowest):
        if piece.lowest != position:
            raise NtfsError(f"its runs go on at cluster {piece.lowest}, not at {position}")
        for first, count in unpack_runs(piece.runs):
            if first is not None:
                used += count
                if first < 0 or first + count > clusters or used > clusters:
                    raise NtfsError(f"a run of {count} clusters at {first} of {clusters}")
                if first * cluster == place + length and position * cluster == start + length:
                    length += count * cluster
                else:
                    if length:
                        extents.append(Extent(start, length, place))
                    start, length, place = position * cluster, count * cluster, first * cluster
            position += count
        # An attribute without clusters has the highest VCN -1.
        if position != (piece.highest + 1) & 0xFFFFFFFFFFFFFFFF or position * cluster > _LARGEST:
            raise NtfsError(f"its runs end at cluster {position}, not behind {piece.highest}")
    if length:
        extents.append(Extent(start, length, place))
    return tuple(extents)


def _lowest(piece: NonResident) -> int:
    return piece.lowest
