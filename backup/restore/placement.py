"""Where each byte of a stream goes: what lies on the tape laid over what the target allocated.

Pure functions. Places are bytes of the target volume.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from serverfree.backup.files import Extent
from serverfree.backup.restore.wanted import Piece, RestoreError


@dataclass(frozen=True, slots=True)
class Move:
    """`length` bytes of the archive that go to `place`, of any alignment."""

    archive_offset: int
    length: int
    place: int


@dataclass(slots=True)
class Placement:
    """What fills the clusters of streams: first the zeros, then the moves, which lie over them.

    `zeros` are (place, length), whole blocks.
    """

    moves: list[Move] = field(default_factory=list)
    zeros: list[tuple[int, int]] = field(default_factory=list)

    @property
    def moved(self) -> int:
        """Bytes that come from the tape."""
        return sum(move.length for move in self.moves)


def place_stream(
    pieces: Sequence[Piece], extents: Iterable[Extent], valid: int, block: int, into: Placement
) -> None:
    """Lay the pieces of a stream over its extents at the target, both in the stream's order.

    Every byte up to `valid` that has a cluster gets a content, zeros where no piece lies. Pieces
    end at `valid` or before it. Raises RestoreError where a piece has no cluster.
    """
    index, placed = 0, 0
    for extent in extents:
        if extent.start % block or extent.place % block:
            raise RestoreError(f"clusters at {extent.place} are no whole blocks of {block}")
        at, end = extent.start, min(extent.start + extent.length, valid)
        delta = extent.place - extent.start
        while index < len(pieces) and pieces[index].start < end:
            piece = pieces[index]
            first, last = max(piece.start, at), min(piece.start + piece.length, end)
            if first < last:
                _zero(at + delta, first + delta, block, into)
                into.moves.append(
                    Move(piece.archive_offset + first - piece.start, last - first, first + delta)
                )
                placed += last - first
                at = last
            if piece.start + piece.length > end:
                break
            index += 1
        _zero(at + delta, end + delta, block, into)
    wanted = sum(piece.length for piece in pieces)
    if placed != wanted:
        raise RestoreError(f"{wanted - placed} bytes of {wanted} have no clusters at the target")


def _zero(start: int, end: int, block: int, into: Placement) -> None:
    """Zero the blocks that a range without a piece touches."""
    if start < end:
        first = start // block * block
        into.zeros.append((first, -(-end // block) * block - first))
