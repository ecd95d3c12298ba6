"""The tables of a catalog, version by version, and how a database gets to the newest.

Keys of folders and members carry the key of their backup in their upper half, so that all rows of
a backup are one range: found, copied and deleted without an index of its own.
"""

import sqlite3

from serverfree.backup.catalog.facts import CatalogError

APPLICATION_ID = 0x53524643  # "SRFC", in the header of every catalog file
KEY_BITS = 32

# One script for each version; what is published is never edited, only followed by another.
SCRIPTS: tuple[str, ...] = (
    """
    CREATE TABLE backups (
        key INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        uuid TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        mode TEXT NOT NULL,
        state TEXT NOT NULL,
        owner TEXT NOT NULL,
        created INTEGER NOT NULL,
        finished INTEGER,
        disk_designator TEXT NOT NULL,
        disk_serial TEXT NOT NULL,
        disk_url TEXT NOT NULL,
        disk_size INTEGER NOT NULL,
        tape_url TEXT NOT NULL,
        medium_serial TEXT NOT NULL,
        drive_serial TEXT NOT NULL,
        partition INTEGER NOT NULL,
        file INTEGER,
        first_block INTEGER NOT NULL,
        tape_block INTEGER NOT NULL,
        blocks INTEGER NOT NULL,
        size INTEGER NOT NULL,
        volume TEXT,
        consistency TEXT NOT NULL,
        generation INTEGER,
        parent TEXT NOT NULL,
        report TEXT NOT NULL
    );
    CREATE TABLE folders (
        key INTEGER PRIMARY KEY,
        parent INTEGER,
        path TEXT NOT NULL
    );
    CREATE TABLE members (
        key INTEGER PRIMARY KEY,
        folder INTEGER NOT NULL,
        name TEXT NOT NULL,
        stream TEXT NOT NULL,
        kind TEXT NOT NULL,
        size INTEGER NOT NULL,
        modified INTEGER NOT NULL,
        header_offset INTEGER NOT NULL,
        end_offset INTEGER NOT NULL,
        link_target TEXT NOT NULL,
        number INTEGER,
        sequence INTEGER,
        server_bytes INTEGER NOT NULL,
        reason TEXT,
        damage TEXT NOT NULL,
        attributes BLOB NOT NULL,
        resident BLOB,
        compression_unit INTEGER NOT NULL,
        valid INTEGER
    );
    CREATE TABLE extents (
        member INTEGER NOT NULL,
        start INTEGER NOT NULL,
        length INTEGER NOT NULL,
        archive_offset INTEGER,
        disk_offset INTEGER,
        PRIMARY KEY (member, start)
    ) WITHOUT ROWID;
    CREATE TABLE digests (
        backup INTEGER NOT NULL,
        archive_offset INTEGER NOT NULL,
        length INTEGER NOT NULL,
        sha256 BLOB NOT NULL,
        PRIMARY KEY (backup, archive_offset)
    ) WITHOUT ROWID;
    CREATE TABLE warnings (
        backup INTEGER NOT NULL,
        number INTEGER NOT NULL,
        text TEXT NOT NULL,
        PRIMARY KEY (backup, number)
    ) WITHOUT ROWID;
    CREATE INDEX folders_by_path ON folders (path);
    CREATE INDEX folders_by_parent ON folders (parent);
    CREATE INDEX members_by_folder ON members (folder, name, stream);
    """,
)
VERSION = len(SCRIPTS)

# Of every table: the columns that hold keys, which change when a backup moves to another catalog.
TABLES: dict[str, tuple[str, ...]] = {
    "backups": ("key",),
    "folders": ("key", "parent"),
    "members": ("key", "folder"),
    "extents": ("member",),
    "digests": ("backup",),
    "warnings": ("backup",),
}
# Those that hold the key of the backup itself.
PLAIN = frozenset({"backups", "digests", "warnings"})


def prepare(connection: sqlite3.Connection) -> None:
    """Bring a catalog, or an empty database, to the newest version: wholly or not at all.

    Raises CatalogError for a database that is no catalog, or one of a newer program. The
    connection is in autocommit mode.
    """
    version = _version(connection)
    if version == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have come first.
        upgrade(connection, _version(connection))
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    """Return the version of a catalog, 0 for an empty database; raises CatalogError for others."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID:
        if version or connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
            raise CatalogError("this is a database of something else, not a catalog")
        return 0
    if version > VERSION:
        raise CatalogError(
            f"this catalog is of version {version}, this program knows up to {VERSION}: "
            f"use the newer serverfree that wrote it"
        )
    return version


def columns(connection: sqlite3.Connection, table: str) -> dict[str, tuple[str, bool]]:
    """Return the columns of a table in order: each with its type and whether it may be NULL."""
    found = connection.execute(f"PRAGMA table_info({table})")
    return {row[1]: (row[2], not (row[3] or row[5])) for row in found}


def create(connection: sqlite3.Connection, version: int = VERSION) -> None:
    """Make an empty catalog of a version."""
    for script in SCRIPTS[:version]:
        _run(connection, script)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {version}")


def upgrade(connection: sqlite3.Connection, version: int) -> None:
    """Bring a catalog of a version to the newest, within the transaction that is open or without
    one.
    """
    for script in SCRIPTS[version:]:
        _run(connection, script)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def drop_indexes(connection: sqlite3.Connection) -> None:
    """Leave out what only makes a catalog quick to ask."""
    for (name,) in connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
    ).fetchall():
        connection.execute(f"DROP INDEX {name}")


def _run(connection: sqlite3.Connection, script: str) -> None:
    """Run the statements of a script within the transaction that is open."""
    for statement in script.split(";"):  # executescript() would commit first
        if statement.strip():
            connection.execute(statement)


def bounds(table: str, backup: int) -> tuple[int, int]:
    """Return the least and the greatest value that the first key of a table has in a backup."""
    if table in PLAIN:
        return backup, backup
    return backup << KEY_BITS, ((backup + 1) << KEY_BITS) - 1


def step(table: str) -> int:
    """Return how far the keys of a table are from those of the next backup."""
    return 1 if table in PLAIN else 1 << KEY_BITS
