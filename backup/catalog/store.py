"""A catalog and how a backup gets into it.

A backup is in the catalog from its first moment, as `running`; members and digests come in
batches, each on the disk when the next begins; the last transaction makes it `done`. A process
that is killed therefore leaves a backup that is complete or one that is said not to be: the next
one that begins calls it `abandoned`. Any number of processes may use one catalog at once.
"""

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid4

from serverfree.backup.archive.member import Member
from serverfree.backup.catalog import rows, schema
from serverfree.backup.catalog.facts import Backup, BackupFacts, CatalogError, Digest, State
from serverfree.backup.catalog.processes import is_alive, this_process
from serverfree.backup.catalog.query import Queries

_BUSY_TIMEOUT = 30.0  # seconds; a batch of members takes a tenth of one
_BATCH = 5000

_MEMBER_COLUMNS = ("key", "folder", "name", *rows.LISTED_COLUMNS, *rows.WHOLE_COLUMNS)
_NAMES = {"name", "stream", "link_target", "damage"}
_INSERT_MEMBER = (
    f"INSERT INTO members ({', '.join(_MEMBER_COLUMNS)}) VALUES "
    f"({', '.join('CAST(? AS TEXT)' if name in _NAMES else '?' for name in _MEMBER_COLUMNS)})"
)


def default_path() -> Path:
    """Return where the catalog of this user lies."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "serverfree" / "catalog.sqlite"


class Catalog(Queries):
    """The catalog in one file. Used by the thread that opened it; closed by `close` or `with`.

    Raises CatalogError where the file cannot be used.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        super().__init__(connection)
        self.path = path

    @classmethod
    def open(cls, path: Path | str | None = None, *, make: bool = True) -> Self:
        """Open a catalog, None for this user's. That, and with `make` any, is made if it is not
        there, for its owner's eyes.
        """
        if path is not None and not make and not Path(path).exists():
            raise CatalogError(f"there is no catalog {path}")
        path = default_path() if path is None else Path(path)
        if path.parent != Path():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _clear(path):
            # Names and access lists of files are in it. SQLite gives its other files this mode too.
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT, isolation_level=None)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA trusted_schema = OFF")
                schema.prepare(connection)
                return cls(connection, path)
            except BaseException:
                connection.close()
                raise

    def close(self) -> None:
        """Let go of the file."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything within happens or nothing; other writers wait."""
        with _clear(self.path):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self.connection.execute("ROLLBACK")
                raise

    def begin(self, facts: BackupFacts) -> "Writer":
        """Enter a backup as running and return what fills it in; it may get a UUID here.

        Running backups whose process is gone are found to be abandoned by the way. Raises
        CatalogError if the catalog has a backup of this UUID or id.
        """
        with self.transaction():
            self._note_abandoned()
            facts = self._named(facts)
            values = rows.fact_values(facts) | {
                "id": facts.uuid[:8],
                "state": State.RUNNING.value,
                "owner": this_process(),
                "blocks": 0,
                "size": 0,
                "report": "{}",
            }
            names = ", ".join(values)
            marks = ", ".join("?" * len(values))
            key = self.connection.execute(
                f"INSERT INTO backups ({names}) VALUES ({marks})", tuple(values.values())
            ).lastrowid
        assert key is not None
        return Writer(self, key)

    def _named(self, facts: BackupFacts) -> BackupFacts:
        if facts.uuid:
            facts = replace(facts, uuid=str(UUID(facts.uuid)))
            if self._taken(facts.uuid):
                raise CatalogError(f"backup {facts.uuid[:8]} is in {self.path} already")
            return facts
        while self._taken(uuid := str(uuid4())):
            pass
        return replace(facts, uuid=uuid)

    def _taken(self, uuid: str) -> bool:
        found = self.connection.execute("SELECT 1 FROM backups WHERE id = ?", (uuid[:8],))
        return found.fetchone() is not None

    def _note_abandoned(self) -> None:
        running = self.connection.execute(
            "SELECT key, owner FROM backups WHERE state = ?", (State.RUNNING.value,)
        ).fetchall()
        for key, owner in running:
            if not is_alive(owner):
                self.connection.execute(
                    "UPDATE backups SET state = ? WHERE key = ?", (State.ABANDONED.value, key)
                )

    def note_overwritten(self, by: Backup) -> None:
        """Whatever lay at the place of a backup or behind it has been lost to that backup."""
        facts = by.facts
        if not facts.medium_serial:
            return
        with self.transaction():
            self.connection.execute(
                "UPDATE backups SET state = ? WHERE state = ? AND medium_serial = ?"
                " AND partition = ? AND first_block >= ? AND uuid != ?",
                (
                    State.OVERWRITTEN.value, State.DONE.value, facts.medium_serial,
                    facts.partition, facts.first_block, by.uuid,
                ),
            )  # fmt: skip

    def remove(self, backup: Backup) -> None:
        """Take a backup out of the catalog; nothing happens to its tape, which a scan brings back.

        Raises CatalogError for one that is running, or that others hold the changes since.
        """
        if backup.state is State.RUNNING:
            raise CatalogError(f"backup {backup.id} is running")
        with self.transaction():
            since = [each.id for each in self.backups() if each.facts.parent == backup.uuid]
            if since:
                raise CatalogError(
                    f"without backup {backup.id} the changes since it are of no use: "
                    f"forget {', '.join(since)} first"
                )
            self._remove(backup.uuid)

    def make_room(self, uuid: str) -> None:
        """Within a transaction: take out a backup of this UUID that never got done.

        Raises CatalogError if it is done, or running.
        """
        self._note_abandoned()
        found = self.connection.execute("SELECT uuid, state FROM backups WHERE id = ?", (uuid[:8],))
        for known, state in found.fetchall():
            if known != uuid or state in (State.DONE.value, State.RUNNING.value):
                raise CatalogError(f"backup {known[:8]} is in {self.path} already, {state}")
            self._remove(uuid)

    def _remove(self, uuid: str) -> None:
        found = self.connection.execute("SELECT key FROM backups WHERE uuid = ?", (uuid,))
        for (key,) in found.fetchall():
            for table, columns in schema.TABLES.items():
                self.connection.execute(
                    f"DELETE FROM {table} WHERE {columns[0]} BETWEEN ? AND ?",
                    schema.bounds(table, key),
                )


class Writer:
    """A backup on its way into a catalog. Ends with `finish` or `fail`.

    As a context manager it makes a backup failed that ends with an exception.
    """

    def __init__(self, catalog: Catalog, key: int) -> None:
        self._catalog, self._key = catalog, key
        self._connection = catalog.connection
        self._first = schema.bounds("members", key)[0]
        self._members = self._folders = self._warnings = 0
        self._folder_keys: dict[str, int] = {}
        self._ended = False

    @property
    def backup(self) -> Backup:
        """The backup as the catalog has it now."""
        return self._catalog.by_key(self._key)

    @property
    def id(self) -> str:
        """Eight hexadecimal digits."""
        return self.backup.id

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and not self._ended:
            self.fail(str(error) or type(error).__name__)

    def note(self, **facts: Any) -> None:
        """Change what is known of the backup, by the names of BackupFacts; not its UUID."""
        current = rows.fact_values(replace(self.backup.facts, **facts))
        sets = ", ".join(f"{name} = ?" for name in facts)
        with self._catalog.transaction():
            self._connection.execute(
                f"UPDATE backups SET {sets} WHERE key = ?",
                (*(current[name] for name in facts), self._key),
            )

    def add_member(self, member: Member) -> None:
        """See `add_members`, which is much quicker for many."""
        self.add_members((member,))

    def add_members(self, members: Iterable[Member]) -> None:
        """Enter members, in the order of the archive; on the disk when it returns."""
        source = iter(members)
        while batch := list(islice(source, _BATCH)):
            with self._catalog.transaction():
                self._add(batch)

    def _add(self, batch: list[Member]) -> None:
        values, extents = [], []
        for member in batch:
            folder, name = rows.split_path(member.path)
            self._members += 1
            key = self._first + self._members
            values.append(
                (key, self._folder(folder), rows.encode_text(name), *rows.member_values(member))
            )
            extents += [(key, *each) for each in rows.extent_values(member)]
        self._connection.executemany(_INSERT_MEMBER, values)
        self._connection.executemany("INSERT INTO extents VALUES (?, ?, ?, ?, ?)", extents)

    def _folder(self, path: str) -> int:
        """Return the key of a folder; it and those that it lies in are entered if they are new."""
        key = self._folder_keys.get(path)
        if key is None:
            parent = self._folder(rows.split_path(path)[0]) if path else None
            self._folders += 1
            key = self._folder_keys[path] = self._first + self._folders
            self._connection.execute(
                "INSERT INTO folders VALUES (?, ?, CAST(? AS TEXT))",
                (key, parent, rows.encode_text(path)),
            )
        return key

    def add_digest(self, digest: Digest) -> None:
        """Enter the digest of a range of the archive; on the disk when it returns."""
        self.add_digests((digest,))

    def add_digests(self, digests: Iterable[Digest]) -> None:
        """Enter digests; on the disk when it returns."""
        values = [(self._key, each.archive_offset, each.length, each.sha256) for each in digests]
        with self._catalog.transaction():
            self._connection.executemany("INSERT INTO digests VALUES (?, ?, ?, ?)", values)

    def warn(self, text: str) -> None:
        """Enter something that whoever looks at this backup should know."""
        with self._catalog.transaction():
            self._warnings += 1
            self._connection.execute(
                "INSERT INTO warnings VALUES (?, ?, CAST(? AS TEXT))",
                (self._key, self._warnings, rows.encode_text(text)),
            )

    def finish(self, report: Mapping[str, Any], *, blocks: int, size: int) -> Backup:
        """Make the backup done: all of it is on tape, `blocks` tape blocks for `size` bytes."""
        self._end(State.DONE, report, blocks, size)
        return self.backup

    def fail(self, why: str, report: Mapping[str, Any] | None = None) -> Backup:
        """Make the backup failed; what is known of it stays."""
        self.warn(why)
        self._end(State.FAILED, report or {}, 0, 0)
        return self.backup

    def _end(self, state: State, report: Mapping[str, Any], blocks: int, size: int) -> None:
        with self._catalog.transaction():
            # The members and digests are on the disk; this makes the backup one to restore from.
            self._connection.execute(
                "UPDATE backups SET state = ?, finished = ?, blocks = ?, size = ?, report = ?"
                " WHERE key = ?",
                (state.value, time.time_ns(), blocks, size, json.dumps(report), self._key),
            )
        self._ended = True


@contextmanager
def _clear(path: Path) -> Iterator[None]:
    """Turn what SQLite says into one line that names the file."""
    try:
        yield
    except sqlite3.Error as error:
        raise CatalogError(f"the catalog {path} cannot be used: {error}") from error
    except CatalogError as error:
        error.add_note(str(path))
        raise
