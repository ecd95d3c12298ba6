"""What can be asked of a catalog. Nothing here changes it.

Paths are met as they are written or, if there is none such, without regard to case, as NTFS does.
"""

import fnmatch
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from serverfree.backup.archive.member import Data, Kind
from serverfree.backup.catalog import rows
from serverfree.backup.catalog.facts import (
    Backup,
    BackupNotFound,
    CatalogError,
    Digest,
    Entry,
    State,
)
from serverfree.backup.catalog.image_map import ImageMap
from serverfree.backup.catalog.processes import is_alive
from serverfree.backup.catalog.schema import bounds
from serverfree.backup.select import Selection

_LISTED = ", ".join(f"members.{name}" for name in rows.LISTED_COLUMNS)
_WHOLE = ", ".join(f"members.{name}" for name in rows.WHOLE_COLUMNS)


class Queries:
    """The questions, over a connection to a database of the newest version."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        connection.text_factory = rows.decode_text
        connection.create_function("fold", 1, _fold, deterministic=True)

    def _ask(self, question: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of an answer. Raises CatalogError where there is none to be had."""
        try:
            yield from self.connection.execute(question, values)
        except sqlite3.Error as error:
            raise CatalogError(f"the catalog cannot be read: {error}") from error

    # ------------------------------------------------------------------ backups

    def backups(self) -> Sequence[Backup]:
        """Return all backups, the oldest first."""
        return self._backups("ORDER BY created, key")

    def backup(self, id: str) -> Backup:
        """Return the backup whose id or UUID begins so; `latest` is the last one that is done.

        Raises BackupNotFound, which says what there is.
        """
        if id == "latest":
            done = self._backups("WHERE state = ? ORDER BY created DESC, key DESC LIMIT 1", "done")
            if not done:
                raise BackupNotFound("the catalog has no backup that is done")
            return done[0]
        if not re.fullmatch(r"[0-9a-fA-F-]{1,36}", id):
            raise BackupNotFound(f"{id!r} is no id of a backup: ids are 8 hexadecimal digits")
        prefix = id.lower()
        found = self._backups("WHERE uuid >= ? AND uuid < ? ORDER BY created", prefix, prefix + "g")
        if len(found) == 1:
            return found[0]
        if found:
            raise BackupNotFound(
                f"{id} is the beginning of {len(found)} ids: {', '.join(each.id for each in found)}"
            )
        newest = self._backups("ORDER BY created DESC LIMIT 4")
        hint = (
            f"the newest are {', '.join(each.id for each in newest)}; `serverfree backups` has all"
            if newest
            else "it is empty; `serverfree scan --tape URL` fills it from a cartridge"
        )
        raise BackupNotFound(f"the catalog has no backup {id}: {hint}")

    def by_key(self, key: int) -> Backup:
        """Return the backup with this key of its row."""
        return self._backups("WHERE key = ?", key)[0]

    def chain(self, backup: Backup) -> Sequence[Backup]:
        """Return a backup with those it holds the changes since, the full one first.

        Raises CatalogError if one is missing or not done.
        """
        chain, seen = [backup], {backup.uuid}
        while parent := chain[0].facts.parent:
            if parent in seen:
                raise CatalogError(f"backup {backup.id} is a change since itself")
            found = self._backups("WHERE uuid = ?", parent)
            if not found:
                raise CatalogError(
                    f"backup {chain[0].id} holds the changes since {parent[:8]}, "
                    "which the catalog does not have: scan its cartridge first"
                )
            if found[0].state is not State.DONE:
                raise CatalogError(
                    f"backup {chain[0].id} holds the changes since {found[0].id}, "
                    f"which is {found[0].state.value}"
                )
            chain.insert(0, found[0])
            seen.add(parent)
        return chain

    def _backups(self, condition: str, *values: object) -> Sequence[Backup]:
        columns = ("key", "owner", *rows.BACKUP_COLUMNS)
        found = self._ask(f"SELECT {', '.join(columns)} FROM backups {condition}", values)
        backups = []
        for row in found:
            values_of = dict(zip(columns, row, strict=True))
            if values_of["state"] == State.RUNNING.value and not is_alive(values_of["owner"]):
                values_of["state"] = State.ABANDONED.value
            backups.append(rows.backup_of(values_of, self._warnings(values_of["key"])))
        return backups

    def _warnings(self, key: int) -> tuple[str, ...]:
        found = self._ask("SELECT text FROM warnings WHERE backup = ? ORDER BY number", (key,))
        return tuple(text for (text,) in found)

    def _key(self, backup: Backup) -> int:
        found = self._ask("SELECT key FROM backups WHERE id = ?", (backup.id,))
        row = next(found, None)
        if row is None:
            raise BackupNotFound(f"the catalog has no backup {backup.id} any more")
        key: int = row[0]
        return key

    # ------------------------------------------------------------------ members

    def members(self, backup: Backup, paths: Sequence[str] = ()) -> Iterator[Entry]:
        """Yield the members of a backup whole, in the order of the archive, those with their
        path, folder or pattern in `paths` (see Selection); all of them where it is empty.

        Raises NothingMatches, when all have been yielded, if a path met none.
        """
        selection = Selection(paths)
        low, high = bounds("members", self._key(backup))
        # Two cursors in step: extents are in the order of their members.
        extents = self._ask(
            "SELECT member, start, length, archive_offset, disk_offset FROM extents"
            " WHERE member BETWEEN ? AND ? ORDER BY member, start",
            (low, high),
        )
        extent = next(extents, None)
        for entry, whole in self._entries(
            backup, "members.key BETWEEN ? AND ? ORDER BY members.key", low, high, columns=_WHOLE
        ):
            while extent is not None and extent[0] < entry.key:
                extent = next(extents, None)
            mine = []
            while extent is not None and extent[0] == entry.key:
                mine.append(extent[1:])
                extent = next(extents, None)
            if paths and not selection.takes(entry.member.path):
                continue
            rows.complete(entry.member, whole, mine)
            yield entry
        selection.check_all_met()

    def count(self, backup: Backup) -> int:
        """Return how many members a backup has, the files inside an image with them."""
        found = self._ask(
            "SELECT count(*) FROM members WHERE key BETWEEN ? AND ?",
            bounds("members", self._key(backup)),
        )
        return int(next(found)[0])

    def whole(self, entry: Entry) -> Entry:
        """Return an entry of a listing with all that the catalog knows of it."""
        found = self._entries(entry.backup, "members.key = ?", entry.key, columns=_WHOLE)
        for full, whole in found:
            extents = self._ask(
                "SELECT start, length, archive_offset, disk_offset FROM extents"
                " WHERE member = ? ORDER BY start",
                (entry.key,),
            )
            rows.complete(full.member, whole, extents)
            return full
        raise CatalogError(f"{entry.shown} is not in the catalog any more")

    def extents(self, entry: Entry) -> tuple[Data, ...]:
        """Return where the content of a member lies in its archive."""
        return self.whole(entry).member.data

    def pieces(self, entry: Entry) -> Sequence[tuple[Backup, Data]]:
        """Return where the content of a member lies, in its order: each piece with the backup
        whose archive holds it. For a file inside an image of changes that is any of its chain.

        Raises CatalogError where the chain is not whole.
        """
        member = self.whole(entry).member
        found = [(entry.backup, data) for data in member.data]
        missing = list(member.elsewhere)
        for backup in reversed(self.chain(entry.backup)[:-1] if missing else ()):
            places = ImageMap(self._image(backup))
            rest = []
            for each in missing:
                held, elsewhere = places.split(each.start, each.length, each.disk_offset)
                found += [(backup, data) for data in held]
                rest += elsewhere
            missing = rest
        if missing:
            raise CatalogError(
                f"{entry.shown}: {sum(each.length for each in missing)} bytes are in no backup"
            )
        return sorted(found, key=lambda piece: piece[1].start)

    def _image(self, backup: Backup) -> tuple[Data, ...]:
        """Return the data of the image in an archive."""
        found = self._entries(
            backup,
            "members.key BETWEEN ? AND ? AND kind = ? ORDER BY members.key",
            *bounds("members", self._key(backup)),
            Kind.IMAGE.value,
        )
        for entry, _ in found:
            return self.extents(entry)
        return ()

    def list(self, backup: Backup, path: str = "") -> Sequence[Entry]:
        """Return what a folder holds, by name; for a file itself, with its streams.

        Folders that have no member of their own are not in it: see `folders`. Raises CatalogError
        if there is no such path.
        """
        path = path.replace("\\", "/").strip("/")
        folder = self._folder(backup, path)
        if folder is not None:
            return [
                entry
                for entry, _ in self._entries(
                    backup, "members.folder = ? ORDER BY name, stream, members.key", folder
                )
                if entry.member.path
            ]
        entries = self.at(backup, path)
        if not entries:
            raise CatalogError(f"backup {backup.id} has no {path!r}")
        if any(entry.member.kind is Kind.DIRECTORY for entry in entries):
            return []
        return entries

    def folders(self, backup: Backup, path: str = "") -> Sequence[str]:
        """Return the paths of the folders in a folder that members lie in, sorted."""
        folder = self._folder(backup, path.replace("\\", "/").strip("/"))
        found = self._ask("SELECT path FROM folders WHERE parent = ?", (folder,))
        return sorted(each for (each,) in found)

    def at(self, backup: Backup, path: str) -> Sequence[Entry]:
        """Return the members with this path: a file, its streams; empty if there is none."""
        folder, name = rows.split_path(path)
        key = self._folder(backup, folder)
        for same in ("name = CAST(? AS TEXT)", "fold(CAST(name AS BLOB)) = fold(?)"):
            found = self._entries(
                backup,
                f"members.folder = ? AND {same} ORDER BY stream, members.key",
                key,
                rows.encode_text(name),
            )
            if entries := [entry for entry, _ in found]:
                return entries
        return []

    def find(self, pattern: str, backups: Iterable[Backup] | None = None) -> Iterator[Entry]:
        """Yield what matches a shell pattern, in the order of the backups.

        Without `/` it is held against names, otherwise against whole paths, where `*` crosses
        folders; case does not count. Streams are held against as `name:stream`.
        """
        pattern = pattern.replace("\\", "/")
        text = "name || CASE stream WHEN '' THEN '' ELSE ':' || stream END"
        if "/" in pattern:
            text = f"CASE path WHEN '' THEN '' ELSE path || '/' END || {text}"
        match = re.compile(fnmatch.translate(pattern.strip("/").casefold())).match
        for backup in self.backups() if backups is None else backups:
            self.connection.create_function("hit", 1, lambda raw: bool(match(_text(raw))))
            # All of a backup at once: whoever uses the answers may look for something else.
            found = self._entries(
                backup,
                f"members.key BETWEEN ? AND ? AND hit(CAST({text} AS BLOB)) ORDER BY members.key",
                *bounds("members", self._key(backup)),
            )
            yield from [entry for entry, _ in found]

    def digests(self, backup: Backup) -> Sequence[Digest]:
        """Return the digests of ranges of an archive, in its order."""
        found = self._ask(
            "SELECT archive_offset, length, sha256 FROM digests WHERE backup = ?"
            " ORDER BY archive_offset",
            (self._key(backup),),
        )
        return [Digest(*row) for row in found]

    def _folder(self, backup: Backup, path: str) -> int | None:
        low, high = bounds("members", self._key(backup))
        for condition in ("path = CAST(? AS TEXT)", "fold(CAST(path AS BLOB)) = fold(?)"):
            for (key,) in self._ask(
                f"SELECT key FROM folders WHERE {condition} AND key BETWEEN ? AND ?",
                (rows.encode_text(path), low, high),
            ):
                return int(key)
        return None

    def _entries(
        self, backup: Backup, condition: str, *values: object, columns: str = "NULL"
    ) -> Iterator[tuple[Entry, tuple[object, ...]]]:
        listed = 3 + len(rows.LISTED_COLUMNS)
        found = self._ask(
            f"SELECT members.key, folders.path, members.name, {_LISTED}, {columns}"
            f" FROM members JOIN folders ON folders.key = members.folder WHERE {condition}",
            values,
        )
        for row in found:
            member = rows.member_of(row[1], row[2], row[3:listed])
            yield Entry(backup, row[0], member), row[listed:]


# Functions of ours get and return blobs: not every name can be handed to Python as a text.
def _text(raw: bytes) -> str:
    return rows.decode_text(raw).casefold()


def _fold(raw: bytes) -> bytes:
    return rows.encode_text(_text(raw))
