"""What is to be restored: files with their streams, and where on the tape those lie."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from serverfree.backup.errors import BackupError


class RestoreError(BackupError):
    """A restore that cannot be, or that was given up; the target is as the message says."""


@dataclass(frozen=True, slots=True)
class Piece:
    """`length` bytes of a stream, from its byte `start` on, that lie at `archive_offset`."""

    start: int
    length: int
    archive_offset: int


@dataclass(slots=True)
class WantedStream:
    """A stream to restore.

    `content` is all of it where the catalog holds it. Otherwise the `pieces`, in the order of the
    stream, are what lies on the tape; bytes that no piece covers, and those from `valid` on, are
    zeros. With a `compression_unit` the pieces are clusters as a compressed stream keeps them
    (LZNT1), and only the server can make its content of them.
    """

    name: str
    size: int
    valid: int
    content: bytes | None = None
    pieces: tuple[Piece, ...] = ()
    compression_unit: int = 0

    def data(self) -> tuple[Piece, ...]:
        """Return the pieces as far as they are content, neighbours on the tape put together."""
        found: list[Piece] = []
        for piece in self.pieces:
            length = min(piece.length, self.valid - piece.start)
            if length <= 0:
                continue
            if found:
                last = found[-1]
                if (
                    last.start + last.length == piece.start
                    and last.archive_offset + last.length == piece.archive_offset
                ):
                    found[-1] = Piece(last.start, last.length + length, last.archive_offset)
                    continue
            found.append(Piece(piece.start, length, piece.archive_offset))
        return tuple(found)


@dataclass(slots=True)
class WantedFile:
    """A file or directory to restore, under all the `paths` that are asked for.

    Paths go from the root of the target volume, `/` between, none in front; the root itself is "".
    `attributes` are those of `files.File`. `why_not` says why its content cannot be had.
    """

    paths: tuple[str, ...]
    is_directory: bool
    modified: int
    streams: tuple[WantedStream, ...] = ()
    attributes: Mapping[str, bytes] = field(default_factory=dict)
    why_not: str = ""

    @property
    def path(self) -> str:
        """The first of its paths."""
        return self.paths[0]
