"""Archives as bytes, for tests: pieces put together with a disk that is a byte string."""

from collections.abc import Iterable

from serverfree.backup.archive.files import FileMembers, in_tape_order
from serverfree.backup.archive.image import put_catalog
from serverfree.backup.archive.member import Member
from serverfree.backup.archive.read import ArchiveReader
from serverfree.backup.archive.writer import ArchiveWriter
from serverfree.backup.files import File, Stream
from serverfree.backup.pieces import Inline, Piece


def put_together(pieces: Iterable[Piece], disk: bytes) -> bytes:
    return b"".join(
        piece.data if isinstance(piece, Inline) else disk[piece.offset :][: piece.length]
        for piece in pieces
    )


def archive_of(
    files: Iterable[File], disk: bytes, *, start: int = 0, content=None, catalog: bytes = b""
) -> tuple[bytes, list[Member], list]:
    """Return an archive of files, its members, and what was skipped."""
    writer = ArchiveWriter()
    parts = [put_together(writer.begin({"id": "test"}), disk)]
    members = []
    made = FileMembers(writer, start, content or (lambda file, stream: iter(())))
    for member, pieces in made.members(in_tape_order(files)):
        members.append(member)
        parts.append(put_together(pieces, disk))
    if catalog:
        member, pieces = put_catalog(writer, "test", catalog, 0)
        members.append(member)
        parts.append(put_together(pieces, disk))
    parts.append(put_together(writer.end(), disk))
    archive = b"".join(parts)
    assert len(archive) == writer.offset
    return archive, members, made.skipped


def members_of(archive: bytes) -> list[Member]:
    """Read an archive back to its end."""
    reader = ArchiveReader(lambda offset, length: archive[offset : offset + length])
    members = list(reader.members())
    assert reader.complete
    return members


def content_of(member: Member, archive: bytes) -> bytes:
    """What a member holds, holes and all."""
    content = bytearray(member.size)
    for data in member.data:
        part = archive[data.archive_offset :][: data.length]
        content[data.start : data.start + data.length] = part
    return bytes(content)


def true_content(stream: Stream, disk: bytes, start: int = 0) -> bytes:
    """What a stream holds by the facts alone: zeros but for its clusters up to `valid`."""
    if stream.resident is not None:
        return stream.resident
    content = bytearray(max([stream.size, *(each.start + each.length for each in stream.extents)]))
    for extent in stream.extents:
        part = disk[start + extent.place :][: extent.length]
        content[extent.start : extent.start + extent.length] = part
    return bytes(content[: stream.valid]).ljust(stream.size, b"\0")
