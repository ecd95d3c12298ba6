"""One backup's part of a catalog as bytes: the last member of its archive.

That is a small SQLite database with the tables of a catalog and one backup in them, compressed as
one zstd frame, and after it skippable frames, which every zstd passes over: one that fills up, and
a trailer that is the last 512 bytes. So the trailer is the last thing in an archive that is not
zeros, and whoever has only a tape finds from its end what is in the file before it.

What is read back may have been made by anyone. The database is opened read-only, must have exactly
our tables and nothing that could run, is read in order and checked value by value, and only what
passed is written to a database of our own.
"""

import hashlib
import io
import json
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO
from uuid import UUID

import zstandard

from serverfree.backup.archive.member import Kind, Reason
from serverfree.backup.catalog import rows, schema
from serverfree.backup.catalog.facts import Backup, CatalogError, State
from serverfree.backup.catalog.store import Catalog
from serverfree.backup.scratch import scratch_folder

TRAILER = 512

_FRAME = Struct("<II")
_SKIPPABLE = 0x184D2A53  # any of ...50h to ...5Fh
_LEVEL = 3
_PIECE = 1 << 20
_MAX_WINDOW = 128 << 20
_MAX_UNPACKED = 8 << 30
_MAX_SQL = 16 << 10
_SECONDS, _SLOWEST = 10.0, 1 << 20  # to read a database: that and a second for each MiB
_MAX_VALUE = 16 << 20  # of one text or blob; a report may be long
_SAFE_NAME = re.compile(r"(?!\.{1,2}\Z)[^/\0]*\Z")


class Damaged(CatalogError):
    """This is no packed catalog, or not a whole one."""


class Newer(CatalogError):
    """A packed catalog that a newer program has made."""


@dataclass(frozen=True, slots=True)
class Trailer:
    """What the last 512 bytes of a packed catalog say. `length` is that of all of it, themselves
    included; `compressed` is that of the frame it begins with, and `sha256` its digest.
    """

    uuid: str
    length: int
    compressed: int
    unpacked: int
    sha256: bytes

    def pack(self) -> bytes:
        """Return the 512 bytes."""
        text = json.dumps(
            {
                "serverfree": 1,
                "uuid": self.uuid,
                "length": self.length,
                "compressed": self.compressed,
                "unpacked": self.unpacked,
                "sha256": self.sha256.hex(),
            }
        )
        body = text.encode().ljust(TRAILER - _FRAME.size)
        return _FRAME.pack(_SKIPPABLE, len(body)) + body

    @classmethod
    def unpack(cls, sector: bytes) -> "Trailer | None":
        """Read a trailer; None if these 512 bytes are none."""
        if _FRAME.unpack_from(sector) != (_SKIPPABLE, TRAILER - _FRAME.size):
            return None
        try:
            said = json.loads(sector[_FRAME.size :])
            trailer = cls(
                uuid=str(UUID(said["uuid"])),
                length=said["length"],
                compressed=said["compressed"],
                unpacked=said["unpacked"],
                sha256=bytes.fromhex(said["sha256"]),
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        lengths = (trailer.compressed, trailer.length, trailer.unpacked)
        if any(type(each) is not int for each in lengths) or len(trailer.sha256) != 32:
            return None
        fits = 0 < trailer.compressed <= trailer.length - TRAILER and trailer.length % TRAILER == 0
        return trailer if fits and 0 < trailer.unpacked <= _MAX_UNPACKED else None


# ---------------------------------------------------------------------- packing


def pack(catalog: Catalog, backup: Backup) -> bytes:
    """Return a backup, as the catalog has it now, in the form that goes on the tape."""
    with _failing_as_catalog(catalog), _beside(catalog) as folder:
        path = folder / "packed.sqlite"
        _extract(catalog, backup, path)
        unpacked = path.stat().st_size
        with path.open("rb") as source, io.BytesIO() as target:
            zstandard.ZstdCompressor(level=_LEVEL).copy_stream(source, target, size=unpacked)
            frame = target.getvalue()
    filler = -len(frame) % TRAILER
    if 0 < filler < _FRAME.size:
        filler += TRAILER
    packed = frame
    if filler:
        packed += _FRAME.pack(_SKIPPABLE, filler - _FRAME.size) + bytes(filler - _FRAME.size)
    digest = hashlib.sha256(frame).digest()
    trailer = Trailer(backup.uuid, len(packed) + TRAILER, len(frame), unpacked, digest)
    return packed + trailer.pack()


def _extract(catalog: Catalog, backup: Backup, path: Path) -> None:
    """Make a database with the rows of one backup."""
    with _scratch(path) as target:
        schema.create(target)
        schema.drop_indexes(target)
        target.execute("ATTACH ? AS whole", (str(catalog.path),))
        target.execute("BEGIN")
        (key,) = target.execute(
            "SELECT key FROM whole.backups WHERE id = ?", (backup.id,)
        ).fetchone()
        _copy(target, "whole", "main", key, 1)
        # Which process writes it is of no use to anyone who reads the tape.
        target.execute("UPDATE main.backups SET owner = ''")
        target.execute("COMMIT")


def _copy(connection: sqlite3.Connection, source: str, target: str, old: int, new: int) -> None:
    """Copy the rows of backup `old` of one attached database into another, as backup `new`."""
    for table, keys in schema.TABLES.items():
        names = schema.columns(connection, table)
        moved = (new - old) * schema.step(table)
        wanted = ", ".join(f"{name} + {moved}" if name in keys else name for name in names)
        connection.execute(
            f"INSERT INTO {target}.{table} ({', '.join(names)}) SELECT {wanted}"
            f" FROM {source}.{table} WHERE {keys[0]} BETWEEN ? AND ?",
            schema.bounds(table, old),
        )


@contextmanager
def _beside(catalog: Catalog) -> Iterator[Path]:
    """A folder for a while: where the catalog lies there is room, and /tmp may be memory."""
    with scratch_folder(".packed-", catalog.path.parent) as folder:
        yield folder


@contextmanager
def _failing_as_catalog(catalog: Catalog) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise CatalogError(f"the catalog {catalog.path} cannot be used: {error}") from error


@contextmanager
def _scratch(path: Path) -> Iterator[sqlite3.Connection]:
    """A database that is thrown away if anything goes wrong, so nothing is done for its safety."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA page_size = 4096")
        yield connection


# ---------------------------------------------------------------------- unpacking


def enter(catalog: Catalog, source: BinaryIO, trailer: Trailer, **place: Any) -> Backup:
    """Enter a packed catalog as a backup that is done and return it.

    `source` gives the packed bytes. `place` says where its archive was found, by columns of the
    table: tape serial, block, size. A backup of the same UUID that is not done gives way to it.
    Raises Damaged for what is not as `pack` makes it, CatalogError if the catalog has it already.
    """
    with _failing_as_catalog(catalog), _beside(catalog) as folder:
        _decompress(source, trailer, folder / "read.sqlite")
        checked = folder / "checked.sqlite"
        _check(folder / "read.sqlite", checked, trailer)
        return _take_over(catalog, checked, trailer, place)


def _decompress(source: BinaryIO, trailer: Trailer, path: Path) -> None:
    """Write the database to a file: never more than the trailer says, with bounded memory."""
    digest, got, left = hashlib.sha256(), 0, trailer.compressed
    # One that frames can be appended to: it stops at the end of the first.
    machine = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    limited: Any = _Limited(source, left, digest)
    try:
        with path.open("wb") as out, machine.stream_reader(limited, read_size=_PIECE) as reader:
            while piece := reader.read(_PIECE):
                got += len(piece)
                if got > trailer.unpacked:
                    raise Damaged("the catalog on the tape unpacks to more than it says")
                out.write(piece)
    except zstandard.ZstdError as error:
        raise Damaged(f"the catalog on the tape cannot be unpacked: {error}") from error
    limited.drain()
    if got != trailer.unpacked or digest.digest() != trailer.sha256:
        raise Damaged("the catalog on the tape is not what was written there")


class _Limited:
    """The first bytes of a file, digested as they are read."""

    def __init__(self, source: BinaryIO, length: int, digest: Any) -> None:
        self._source, self._left, self._digest = source, length, digest

    def read(self, length: int = -1) -> bytes:
        data = self._source.read(self._left if length < 0 else min(length, self._left))
        self._left -= len(data)
        self._digest.update(data)
        return data

    def drain(self) -> None:
        while self.read(_PIECE):
            pass


def _check(path: Path, checked: Path, trailer: Trailer) -> None:
    """Copy what is right and in order from a database of anyone's to one of our own."""
    try:
        with closing(_open_hostile(path)) as hostile, _scratch(checked) as own:
            version = _version(hostile)
            schema.create(own, version)
            _same_tables(hostile, own)
            hostile.text_factory = bytes
            own.execute("BEGIN")
            for table in schema.TABLES:
                _copy_checked(hostile, own, table)
            own.execute("COMMIT")
            own.text_factory = rows.decode_text
            _check_whole(own, trailer)
            schema.upgrade(own, version)
    except (Damaged, Newer):
        raise
    except (sqlite3.Error, ValueError) as error:
        raise Damaged(f"the catalog on the tape is damaged: {error}") from error


def _open_hostile(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None
    )
    # Pages that name each other could make even the reading of the tables' names endless.
    give_up = time.monotonic() + _SECONDS + path.stat().st_size / _SLOWEST
    connection.set_progress_handler(lambda: time.monotonic() > give_up, 100_000)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _MAX_SQL)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 0)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA mmap_size = 0")
    allowed = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_PRAGMA}

    def authorize(action: int, *_: str | None) -> int:
        return sqlite3.SQLITE_OK if action in allowed else sqlite3.SQLITE_DENY

    connection.set_authorizer(authorize)
    return connection


def _version(hostile: sqlite3.Connection) -> int:
    application = hostile.execute("PRAGMA application_id").fetchone()[0]
    version: int = hostile.execute("PRAGMA user_version").fetchone()[0]
    if application != schema.APPLICATION_ID or version < 1:
        raise Damaged("the catalog on the tape is a database of something else")
    if version > schema.VERSION:
        raise Newer(
            f"the catalog on the tape is of version {version}, this program knows up to "
            f"{schema.VERSION}: use the newer serverfree that wrote it"
        )
    return version


def _same_tables(hostile: sqlite3.Connection, own: sqlite3.Connection) -> None:
    """Hold what the database declares against ours, word by word: no view, trigger, virtual table
    or generated column passes.
    """
    question = "SELECT type, name, tbl_name, sql FROM sqlite_schema"
    ours = {row for row in own.execute(question) if row[0] == "table" or row[3] is None}
    declared = hostile.execute(question)
    seen = set()
    for row in declared:
        if row not in ours or row in seen:
            raise Damaged("the catalog on the tape declares what no catalog has")
        seen.add(row)
    if seen != ours:
        raise Damaged("the catalog on the tape lacks a table")


def _copy_checked(hostile: sqlite3.Connection, own: sqlite3.Connection, table: str) -> None:
    declared = schema.columns(own, table)
    names = ", ".join(declared)
    marks = ", ".join("CAST(? AS TEXT)" if kind == "TEXT" else "?" for kind, _ in declared.values())
    keys = 2 if table in ("extents", "digests", "warnings") else 1
    own.executemany(
        f"INSERT INTO {table} ({names}) VALUES ({marks})",
        _checked(hostile.execute(f"SELECT {names} FROM {table}"), table, declared, keys),
    )


def _checked(
    found: Iterator[tuple[Any, ...]], table: str, declared: dict[str, tuple[str, bool]], keys: int
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a table if each value is of its type and all are in the order of their
    keys. Without the latter a small file could give rows without end: pages that name each other.
    """
    kinds = [
        (name, int if kind == "INTEGER" else bytes, optional)
        for name, (kind, optional) in declared.items()
    ]
    texts = {name for name, (kind, _) in declared.items() if kind == "TEXT"}
    columns = {name: index for index, name in enumerate(declared)}
    check = _CHECKS.get(table)
    last: tuple[Any, ...] = ()
    for row in found:
        for value, (name, kind, optional) in zip(row, kinds, strict=True):
            if type(value) is not kind and not (value is None and optional):
                raise Damaged(f"the catalog on the tape has a {table}.{name} of another type")
            if value is not None and name in texts:
                rows.decode_text(bytes(value))
        key = row[:keys]
        if key <= last:
            raise Damaged(f"the catalog on the tape has its {table} out of order")
        last = key
        low, high = schema.bounds(table, 1)
        if not low <= key[0] <= high:
            raise Damaged(f"the catalog on the tape has {table} of no backup")
        if check is not None and not check(row, columns):
            raise Damaged(f"the catalog on the tape has {table} that cannot be")
        yield row


def _right_folder(row: tuple[Any, ...], at: dict[str, int]) -> bool:
    path = rows.decode_text(row[at["path"]])
    return not path or all(map(_right_name, path.split("/")))


def _right_name(name: str) -> bool:
    # Whoever restores joins names to paths: none may lead out of where it is put.
    return bool(name and _SAFE_NAME.match(name))


def _right_member(row: tuple[Any, ...], at: dict[str, int]) -> bool:
    name = rows.decode_text(row[at["name"]])
    Kind(row[at["kind"]].decode())
    reason = row[at["reason"]]
    if reason is not None:
        Reason(reason.decode())
    rows.unpack_attributes(row[at["attributes"]])
    sizes = ("size", "header_offset", "end_offset", "server_bytes", "compression_unit")
    valid = row[at["valid"]]
    return (
        (not name or _right_name(name))
        and all(row[at[each]] >= 0 for each in sizes)
        and (valid is None or valid >= 0)
    )


def _right_extent(row: tuple[Any, ...], at: dict[str, int]) -> bool:
    offsets = [row[at[each]] for each in ("archive_offset", "disk_offset")]
    known = [each for each in offsets if each is not None]
    return len(known) == 1 and min(row[at["start"]], row[at["length"]], *known) >= 0


def _right_digest(row: tuple[Any, ...], at: dict[str, int]) -> bool:
    offset, length, digest = (row[at[each]] for each in ("archive_offset", "length", "sha256"))
    return bool(offset >= 0 and length > 0 and len(digest) == hashlib.sha256().digest_size)


_CHECKS = {
    "folders": _right_folder,
    "members": _right_member,
    "extents": _right_extent,
    "digests": _right_digest,
}


def _check_whole(own: sqlite3.Connection, trailer: Trailer) -> None:
    """Check what one row alone does not tell."""
    names = ", ".join(rows.BACKUP_COLUMNS)
    found = own.execute(f"SELECT {names} FROM backups").fetchall()
    if len(found) != 1:
        raise Damaged(f"the catalog on the tape has {len(found)} backups instead of one")
    backup = rows.backup_of(dict(zip(rows.BACKUP_COLUMNS, found[0], strict=True)), ())
    if backup.uuid != trailer.uuid or backup.id != trailer.uuid[:8]:
        raise Damaged("the catalog on the tape is that of another backup")
    for question in (
        "SELECT 1 FROM members WHERE folder NOT IN (SELECT key FROM folders)",
        "SELECT 1 FROM extents WHERE member NOT IN (SELECT key FROM members)",
        "SELECT 1 FROM folders WHERE parent IS NOT NULL AND parent NOT IN"
        " (SELECT key FROM folders)",
    ):
        if own.execute(f"{question} LIMIT 1").fetchone():
            raise Damaged("the catalog on the tape has parts that belong to nothing")


def _take_over(catalog: Catalog, checked: Path, trailer: Trailer, place: dict[str, Any]) -> Backup:
    """Copy a checked database into the catalog, all at once."""
    connection = catalog.connection
    connection.execute("ATTACH ? AS packed", (str(checked),))
    try:
        with catalog.transaction():
            catalog.make_room(trailer.uuid)
            (newest,) = connection.execute("SELECT max(key) FROM main.backups").fetchone()
            key = (newest or 0) + 1
            _copy(connection, "packed", "main", 1, key)
            values = {"state": State.DONE.value, **place}
            sets = ", ".join(f"{name} = ?" for name in values)
            connection.execute(
                f"UPDATE main.backups SET {sets} WHERE key = ?", (*values.values(), key)
            )
    finally:
        connection.execute("DETACH packed")
    return catalog.by_key(key)
