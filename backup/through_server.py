"""The same archive without a copy manager: blocks read and written by this machine, counted."""

import hashlib
from collections.abc import Callable, Iterable, Iterator

from serverfree.backup.catalog.facts import Digest
from serverfree.backup.pieces import FromDisk, Inline, Piece
from serverfree.initiator.disk import Disk
from serverfree.initiator.tape import Tape

Moved = Callable[[int], None]
"""Called with the bytes that have been read of the disk so far."""


def content_of(
    pieces: Iterable[Piece], disk: Disk, moved: Moved | None = None
) -> Iterator[bytes | memoryview]:
    """Yield an archive's bytes; a chunk is good until the next one is asked for."""
    block_length = disk.capacity().block_length
    read = 0
    for piece in pieces:
        if isinstance(piece, Inline):
            yield piece.data
            continue
        for chunk in _range(disk, block_length, piece):
            read += len(chunk)
            yield chunk
            if moved is not None:
                moved(read)


def _range(disk: Disk, block_length: int, piece: FromDisk) -> Iterator[memoryview]:
    first, skip = divmod(piece.offset, block_length)
    blocks = -(-(skip + piece.length) // block_length)
    left = piece.length
    for chunk in disk.chunks(first, blocks):
        part = chunk[skip : skip + left]
        skip = 0
        left -= len(part)
        yield part


def write_archive(
    content: Iterable[bytes | memoryview],
    tape: Tape,
    tape_block: int,
    grain: int,
    digested: Callable[[Digest], None],
    begin: int = 0,
) -> int:
    """Write an archive, from its byte `begin` on, to tape in whole blocks, zeros behind its end;
    return where it ends.

    Every `grain` bytes, a whole number of tape blocks, `digested` is told their SHA-256; the rest
    comes last. Raises ScsiError.
    """
    block = bytearray(tape_block)
    filled = 0
    total = start = begin
    digest = hashlib.sha256()
    for chunk in content:
        view = memoryview(chunk)
        while len(view):
            part = view[: tape_block - filled]
            block[filled : filled + len(part)] = part
            filled += len(part)
            view = view[len(part) :]
            if filled == tape_block:
                tape.write_block(block)
                digest.update(block)
                total += filled
                filled = 0
                if total - start == grain:
                    digested(Digest(start, grain, digest.digest()))
                    start, digest = total, hashlib.sha256()
    if filled:
        digest.update(block[:filled])
        tape.write_block(bytes(block[:filled]) + bytes(tape_block - filled))
        total += filled
    if total > start:
        digested(Digest(start, total - start, digest.digest()))
    return total
