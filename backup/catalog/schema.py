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
        archive_offset INTEGER NOT NULL,
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
    CREATE INDEX members_by_name ON members (name);
    """,
)
VERSION = len(SCRIPTS)


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
        version = _version(connection)
        for script in SCRIPTS[version:]:
            run_script(connection, script)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
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


def run_script(connection: sqlite3.Connection, script: str) -> None:
    """Run the statements of a script within the transaction that is open."""
    for statement in script.split(";"):  # executescript() would commit first
        if statement.strip():
            connection.execute(statement)


def key_range(backup: int) -> tuple[int, int]:
    """Return the least and the greatest key that folders and members of a backup can have."""
    return backup << KEY_BITS, ((backup + 1) << KEY_BITS) - 1
