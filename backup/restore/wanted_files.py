"""What the catalog has of files, as what is to be restored."""

from collections.abc import Iterable, Sequence

from serverfree.backup.archive.member import Kind, Member
from serverfree.backup.catalog.facts import Backup, Entry
from serverfree.backup.catalog.store import Catalog
from serverfree.backup.restore.archives import Archives
from serverfree.backup.restore.wanted import Piece, WantedFile, WantedStream

_CONTENT = (Kind.FILE, Kind.DIRECTORY)


class WantedFiles:
    """Gathers files, with their streams and links, from members of a backup."""

    def __init__(self, catalog: Catalog, backup: Backup, archives: Archives) -> None:
        self._catalog, self._backup, self._archives = catalog, backup, archives
        self.skipped: list[str] = []

    def select(self, paths: Sequence[str]) -> list[WantedFile]:
        """Return the files with their path, folder or pattern in `paths`; all if it is empty.

        Raises NothingMatches, CatalogError.
        """
        members: dict[str, list[Entry]] = {}
        links: dict[str, list[str]] = {}
        for entry in self._catalog.members(self._backup, paths):
            member = entry.member
            if member.kind is Kind.HARD_LINK:
                links.setdefault(member.link_target, []).append(member.path)
            elif member.kind in _CONTENT:
                members.setdefault(member.path, []).append(entry)
            elif member.kind in (Kind.SYMBOLIC_LINK, Kind.OTHER):
                self.skipped.append(f"{entry.shown}: a {member.kind.value} is not restored")
        found = [self._file(entries, links.pop(path, [])) for path, entries in members.items()]
        for target, paths_of in links.items():
            # The content is kept under a path that was not asked for.
            entries = [
                self._catalog.whole(entry)
                for entry in self._catalog.at(self._backup, target)
                if entry.member.kind in _CONTENT
            ]
            if entries:
                found.append(self._file(entries, paths_of, own=False))
            else:
                self.skipped += [f"{path}: {target}, its content, is missing" for path in paths_of]
        return found

    def _file(
        self, entries: Iterable[Entry], links: Sequence[str], *, own: bool = True
    ) -> WantedFile:
        entries = sorted(entries, key=lambda entry: entry.member.stream)
        main = entries[0].member
        paths = ((main.path,) if own else ()) + tuple(dict.fromkeys(links))
        file = WantedFile(
            paths, main.kind is Kind.DIRECTORY, main.modified, attributes=main.attributes
        )
        streams = []
        for entry in entries:
            if entry.member.damage:
                if not entry.member.stream and not file.is_directory:
                    file.why_not = entry.member.damage
                else:
                    self.skipped.append(f"{entry.shown}: {entry.member.damage}")
                continue
            if entry.member.stream or not file.is_directory:
                streams.append(self._stream(entry))
        file.streams = tuple(streams)
        return file

    def _stream(self, entry: Entry) -> WantedStream:
        member = entry.member
        valid = member.size if member.valid is None else member.valid
        stream = WantedStream(member.stream, member.size, valid)
        if member.resident is not None:
            stream.content = member.resident
        else:
            stream.pieces = self._pieces(entry, member)
            stream.compression_unit = member.compression_unit
        return stream

    def _pieces(self, entry: Entry, member: Member) -> tuple[Piece, ...]:
        places = (
            self._catalog.pieces(entry)
            if member.elsewhere
            else [(entry.backup, data) for data in member.data]
        )
        offset = self._archives.offset
        return tuple(
            Piece(data.start, data.length, offset(backup, data.archive_offset))
            for backup, data in places
        )


def under(folder: str, files: Iterable[WantedFile]) -> None:
    """Have files restored below a folder, which has a path from the root."""
    folder = folder.replace("\\", "/").strip("/")
    if folder:
        for file in files:
            file.paths = tuple(f"{folder}/{path}" if path else folder for path in file.paths)
