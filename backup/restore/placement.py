"""Where each byte of a stream goes: what lies on the tape laid over what the target allocated.

Pure functions. Offsets of results are bytes of the target volume.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from serverfree.backup.files import Extent
from serverfree.backup.restore.wanted import Piece, RestoreError


@dataclass(frozen=True, slots=True)
class Move:
    """`length` bytes from the archive to a place that begins a block; where they end within one,
    the rest of that block is to be zeros.
    """

    archive_offset: int
    length: int
    place: int


@dataclass(frozen=True, slots=True)
class Mixed:
    """One block that more than one piece goes into, or one that does not begin it.

    It is put together by the server: `parts` are (offset in the block, archive offset, length).
    """

    place: int
    parts: tuple[tuple[int, int, int], ...]


@dataclass(slots=True)
class Placement:
    """What fills the clusters of streams. `zeros` are (place, length), whole blocks."""

    moves: list[Move] = field(default_factory=list)
    zeros: list[tuple[int, int]] = field(default_factory=list)
    mixed: list[Mixed] = field(default_factory=list)


def place(
    pieces: Sequence[Piece], extents: Iterable[Extent], valid: int, block: int, into: Placement
) -> None:
    """Lay the pieces of a stream, in order and clipped at `valid`, over its extents at the target.

    Everything up to `valid` is filled, with zeros where no piece lies. Extents begin at whole
    blocks of the stream and of the volume. Raises RestoreError where a piece has no room.
    """
    room = 0
    index = 0
    for extent in extents:
        if extent.start % block or extent.place % block:
            raise RestoreError(f"clusters at {extent.place} are not whole blocks of {block}")
        end = min(extent.start + extent.length, -(-valid // block) * block)
        while index < len(pieces) and pieces[index].start + pieces[index].length <= extent.start:
            index += 1
        at, scan = extent.start, index
        delta = extent.place - extent.start
        while at < end:
            piece = pieces[scan] if scan < len(pieces) else None
            if piece is None or piece.start >= end:
                into.zeros.append((at + delta, end - at))
                at = end
                continue
            stop = min(piece.start + piece.length, end)
            if at + block <= piece.start:
                whole = piece.start // block * block
                into.zeros.append((at + delta, whole - at))
                at = whole
            elif at >= piece.start and _alone(pieces, scan, at, stop, end, block):
                # Whole blocks, and a last one whose rest is zeros if nothing else goes there.
                shared = stop < end and _shares(pieces, scan, stop, block)
                length = (stop - at) // block * block if shared else stop - at
                into.moves.append(Move(piece.archive_offset + at - piece.start, length, at + delta))
                room += length
                at += -(-length // block) * block
            else:
                parts = tuple(_parts(pieces, scan, at, at + block))
                into.mixed.append(Mixed(at + delta, parts))
                room += sum(length for _, _, length in parts)
                at += block
            while scan < len(pieces) and pieces[scan].start + pieces[scan].length <= at:
                scan += 1
    wanted = sum(piece.length for piece in pieces)
    if room != wanted:
        raise RestoreError(f"{wanted - room} bytes of {wanted} have no clusters at the target")


def _alone(pieces: Sequence[Piece], index: int, at: int, stop: int, end: int, block: int) -> bool:
    """Tell whether the block at `at` has no other piece in it than this one."""
    return at + block <= stop or stop == end or not _shares(pieces, index, stop, block)


def _shares(pieces: Sequence[Piece], index: int, stop: int, block: int) -> bool:
    """Tell whether the next piece begins in the block in which this one stops."""
    if stop % block == 0 or index + 1 >= len(pieces):
        return False
    return pieces[index + 1].start < -(-stop // block) * block


def _parts(
    pieces: Sequence[Piece], index: int, start: int, end: int
) -> Iterable[tuple[int, int, int]]:
    for piece in pieces[index:]:
        if piece.start >= end:
            return
        first, last = max(piece.start, start), min(piece.start + piece.length, end)
        if first < last:
            yield first - start, piece.archive_offset + first - piece.start, last - first
