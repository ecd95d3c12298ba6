"""What an archive is made of, before any command is: a sequence of pieces.

The archive writer yields pieces; the planner turns them into EXTENDED COPY segments, inline data
into inline -> stream and disk data into block -> stream. Their lengths added up are offsets in the
archive, and with that places on the tape: block `first + offset // tape_block`, byte
`offset % tape_block` of it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Inline:
    """Bytes that come from the server: headers, maps, padding, resident data."""

    data: bytes

    @property
    def length(self) -> int:
        return len(self.data)


@dataclass(frozen=True, slots=True)
class FromDisk:
    """`length` bytes of the source disk from byte `offset` of the disk (not of the volume).

    They go to the tape without passing through the server. `offset` is a whole number of the
    disk's blocks; `length` need not be.
    """

    offset: int
    length: int


Piece = Inline | FromDisk


@dataclass(frozen=True, slots=True)
class ToDisk:
    """A piece on its way back: `length` bytes from byte `archive_offset` of an archive to `offset`
    of a disk. `offset` is a whole number of the disk's blocks; so is `length`, or it is rounded up
    by whoever plans only where the surplus is the caller's to overwrite.
    """

    archive_offset: int
    length: int
    offset: int
