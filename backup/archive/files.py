"""Files of a volume as members: one for each file, directory, further stream and further name."""

from collections.abc import Callable, Iterable, Iterator

from serverfree.backup.archive.member import ArchiveError, Kind, Member, Reason
from serverfree.backup.archive.writer import ArchiveWriter, Content, Flow, Unreadable
from serverfree.backup.errors import BackupError
from serverfree.backup.files import Damage, File, Stream
from serverfree.backup.ntfs.errors import NtfsError
from serverfree.backup.pieces import FromDisk, Inline, Piece

_LATEST = (1 << 63) - 1
StreamContent = Callable[[File, Stream], Iterator[bytes]]
"""Yields the whole content of a stream whose clusters do not hold it as it is."""


def in_tape_order(files: Iterable[File]) -> list[File]:
    """Return files as they are read best: by where their data lies; then directories.

    Directories come last, the deepest first: who unpacks an archive creates those that are missing
    as it goes, and gives a directory its times and attributes when nothing more comes into it.
    """
    return sorted(
        files,
        key=lambda file: (
            (1, -file.path.count("/") if file.path else 1, file.path)
            if file.is_directory
            else (0, file.first_place, file.path)
        ),
    )


class FileMembers:
    """Makes members of files, in the order given. `start` is where the volume begins on its disk.

    `skipped` tells what could not be kept: encrypted streams, whose content is somewhere else, and
    names that no archive can hold.
    """

    def __init__(self, writer: ArchiveWriter, start: int, content: StreamContent) -> None:
        self._writer = writer
        self._start = start
        self._content = content
        self.skipped: list[Damage] = []

    def members(self, files: Iterable[File]) -> Iterator[tuple[Member, Iterator[Piece]]]:
        """Yield each member with its pieces, to be used up before the next is asked for."""
        for file in files:
            for member, content in self._of(file):
                try:
                    pieces = self._writer.put(member, content)
                except ArchiveError as why:
                    self.skipped.append(Damage(file.number, str(why)))
                    if not member.stream and member.kind is not Kind.HARD_LINK:
                        break  # nothing for its streams and further names to belong to
                    continue
                yield member, pieces

    def _of(self, file: File) -> Iterator[tuple[Member, list[Content]]]:
        own = next((stream for stream in file.streams if not stream.name), None)
        if file.is_directory:
            yield self._member(file, file.path, Kind.DIRECTORY), []
        else:
            if own is not None and own.encrypted and own.size:
                self._skip_encrypted(file, own)
                return
            member = self._member(file, file.path, Kind.FILE)
            yield member, self._fill(member, file, own)
        for stream in file.streams:
            if not stream.name:
                continue
            if stream.encrypted and stream.size:
                self._skip_encrypted(file, stream)
                continue
            member = Member(
                file.path,
                Kind.FILE,
                modified=_time_of(file),
                stream=stream.name,
                number=file.number,
                sequence=file.sequence,
            )
            yield member, self._fill(member, file, stream)
        for path in file.paths[1:]:
            link = self._member(file, path, Kind.HARD_LINK)
            link.link_target, link.attributes = file.path, {}
            yield link, []

    def _member(self, file: File, path: str, kind: Kind) -> Member:
        return Member(
            path,
            kind,
            modified=_time_of(file),
            attributes=file.attributes,
            number=file.number,
            sequence=file.sequence,
        )

    def _skip_encrypted(self, file: File, stream: Stream) -> None:
        name = f"{file.path}:{stream.name}" if stream.name else file.path
        self.skipped.append(
            Damage(file.number, f"{name}: encrypted, and the key is not here; an image keeps it")
        )

    def _fill(self, member: Member, file: File, stream: Stream | None) -> list[Content]:
        """Say where the content comes from; nothing from `valid` on, which reads as zeros."""
        if stream is None:
            return []
        member.size = stream.size
        if stream.resident is not None:
            if not stream.resident:
                return []
            member.reason = Reason.RESIDENT
            return [Content(0, Inline(stream.resident[: stream.size]))]
        if stream.readable:
            return [
                Content(each.start, FromDisk(self._start + each.place, each.length))
                for each in stream.data()
            ]
        regions = _units(stream)
        if regions:
            member.reason = Reason.COMPRESSED
        picker = _Picker(lambda: self._content(file, stream))
        return [
            Content(start, Flow(length, lambda start=start, length=length: picker(start, length)))  # type: ignore[misc]
            for start, length in regions
        ]


def _time_of(file: File) -> int:
    """A file may say that it is of the year 60000; 64 bits of nanoseconds end in 2262."""
    return max(-_LATEST, min(file.modified, _LATEST))


def _units(stream: Stream) -> list[tuple[int, int]]:
    """Return what of a compressed stream is no hole: compression units that have any cluster."""
    unit = stream.compression_unit or stream.valid or 1
    regions: list[tuple[int, int]] = []
    for extent in stream.data():
        start = extent.start // unit * unit
        end = min(-(-(extent.start + extent.length) // unit) * unit, stream.valid)
        if regions and start <= sum(regions[-1]):
            regions[-1] = regions[-1][0], max(end, sum(regions[-1])) - regions[-1][0]
        else:
            regions.append((start, end - start))
    return regions


class _Picker:
    """Picks ranges, in order, out of content that comes as chunks from its beginning."""

    def __init__(self, content: Callable[[], Iterator[bytes]]) -> None:
        self._open = content
        self._chunks: Iterator[bytes] | None = None
        self._chunk = memoryview(b"")
        self._at = 0

    def __call__(self, start: int, length: int) -> Iterator[bytes]:
        """Yield the bytes of a range. Raises Unreadable where the content cannot be had."""
        try:
            if self._chunks is None:
                self._chunks = self._open()
            while length:
                if not self._chunk:
                    self._chunk = memoryview(next(self._chunks, b""))
                    if not self._chunk:
                        return
                skip = min(start - self._at, len(self._chunk))
                part = self._chunk[skip : skip + length]
                self._at += skip + len(part)
                self._chunk = self._chunk[skip + len(part) :]
                if part:
                    yield bytes(part)
                    start += len(part)
                    length -= len(part)
        except (NtfsError, BackupError) as why:
            raise Unreadable(str(why)) from why
