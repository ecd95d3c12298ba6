"""Bytes of an archive read by the server: for what is small, and what must be decompressed."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from serverfree.backup.errors import BackupError
from serverfree.backup.files import Extent
from serverfree.backup.restore.wanted import Piece, WantedStream
from serverfree.initiator.tape import Stop, Tape
from serverfree.scsi.errors import ScsiError


class TapeUnreadable(BackupError):
    """The archive cannot be read there: damaged, or not the cartridge."""


class Source(Protocol):
    """An archive of which any bytes can be read."""

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly these bytes."""


class ArchiveBytes:
    """A source as a device whose places are offsets in the archive."""

    block_length = 1

    def __init__(self, source: Source, size: int) -> None:
        self._source = source
        self.size = size

    def read_at(self, offset: int, length: int) -> bytes:
        """See Device."""
        return self._source.read(offset, length)

    def extents(self, pieces: Iterable[Piece]) -> Iterator[Extent]:
        """Yield pieces as extents at those places."""
        for piece in pieces:
            yield Extent(piece.start, piece.length, piece.archive_offset)

    def content(self, stream: WantedStream) -> bytes:
        """Return the content of a small stream that is not compressed."""
        data = bytearray(stream.size)
        for piece in stream.data():
            data[piece.start : piece.start + piece.length] = self.read_at(
                piece.archive_offset, piece.length
            )
        return bytes(data)


class TapeBytes:
    """An archive on tape. Reading in ascending order moves the tape forward only.

    `read_bytes` counts what came from the tape: whole blocks.
    """

    def __init__(self, tape: Tape, partition: int, first_block: int, tape_block: int) -> None:
        self._tape = tape
        self._partition, self._first, self._unit = partition, first_block, tape_block
        self._buffer = bytearray(tape_block)
        self._held = -1
        self._length = 0
        self._next: int | None = None
        self.read_bytes = 0

    def read(self, offset: int, length: int) -> bytes:
        """See Source. Raises TapeUnreadable."""
        parts = []
        while length:
            index, skip = divmod(offset, self._unit)
            self._load(index)
            part = bytes(self._buffer[skip : min(skip + length, self._length)])
            if not part:
                raise TapeUnreadable(f"tape block {self._first + index} ends before byte {skip}")
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return b"".join(parts)

    def moved_away(self) -> None:
        """Be told that somebody else has moved the tape."""
        self._next = None

    def _load(self, index: int) -> None:
        if index == self._held:
            return
        self._held = -1
        try:
            if index != self._next:
                self._tape.locate(self._first + index, self._partition)
            block = self._tape.read_block(memoryview(self._buffer))
        except ScsiError as error:
            self._next = None
            raise TapeUnreadable(f"tape block {self._first + index}: {error}") from error
        if isinstance(block, Stop):
            self._next = None
            raise TapeUnreadable(
                f"tape block {self._first + index} is a {block.value}: not the tape of this backup?"
            )
        self._held, self._length, self._next = index, len(block), index + 1
        self.read_bytes += len(block)
