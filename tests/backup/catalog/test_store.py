"""How a backup gets into a catalog, with several processes at it and some of them killed."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from serverfree.backup.archive.member import Data, Kind, Member
from serverfree.backup.catalog import schema, store
from serverfree.backup.catalog.facts import (
    BackupFacts,
    BackupNotFound,
    CatalogError,
    Digest,
    Mode,
    State,
)
from serverfree.backup.catalog.store import Catalog, default_path
from serverfree.backup.files import VolumeFacts

VOLUME = VolumeFacts("NTFS", 1 << 20, 1 << 30, 512, 4096, "Daten", "0123", False)


def facts(**more):
    return BackupFacts(**({"name": "disk", "mode": Mode.FILES, "created": 1} | more))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "catalog.sqlite"


def test_what_is_known_of_a_backup_comes_back(path):
    known = facts(
        mode=Mode.IMAGE, created=1_800_000_000_123_456_789, disk_designator="naa.3", file=4,
        uuid="00000000-1111-4222-8333-444444444444", medium_serial="CART1", tape_block=1 << 18,
        volume=VOLUME, consistency="fs", generation=7, first_block=99, disk_serial="d",
        parent="10000000-1111-4222-8333-444444444444", disk_size=1 << 40, disk_url="iscsi://x/y/0",
    )  # fmt: skip
    with Catalog.open(path) as catalog:
        writer = catalog.begin(known)
        assert (writer.backup.facts, writer.backup.state) == (known, State.RUNNING)
        writer.note(first_block=100, consistency="app")
        writer.warn("the volume is dirty")
        writer.add_digest(Digest(0, 10, b"a" * 32))
        writer.add_digest(Digest(10, 20, b"b" * 32))
        done = writer.finish({"moved_bytes": 5}, blocks=3, size=4)
    with Catalog.open(path) as catalog:
        again = catalog.backup("00000000")
        assert again == done
        assert (again.state, again.blocks, again.size) == (State.DONE, 3, 4)
        assert (again.facts.first_block, again.facts.consistency) == (100, "app")
        assert again.facts.volume == VOLUME
        assert (again.report, again.warnings) == ({"moved_bytes": 5}, ("the volume is dirty",))
        assert again.finished
        assert list(catalog.digests(again)) == [Digest(0, 10, b"a" * 32), Digest(10, 20, b"b" * 32)]


def test_a_backup_of_a_known_id_is_refused(path):
    with Catalog.open(path) as catalog:
        uuid = catalog.begin(facts()).backup.uuid
        with pytest.raises(CatalogError, match="already"):
            catalog.begin(facts(uuid=uuid))


def test_an_exception_makes_a_backup_failed_and_says_why(path):
    with Catalog.open(path) as catalog:
        with pytest.raises(OSError), catalog.begin(facts()) as writer:
            raise OSError("the drive is gone")
        assert writer.backup.state is State.FAILED
        assert writer.backup.warnings == ("the drive is gone",)


def test_a_removed_backup_leaves_nothing(path):
    with Catalog.open(path) as catalog:
        kept = catalog.begin(facts())
        gone = catalog.begin(facts())
        for writer in (kept, gone):
            writer.add_member(Member("a/b", Kind.FILE, 1, data=(Data(0, 1, 0),)))
            writer.add_digest(Digest(0, 1, b"d" * 32))
            writer.warn("w")
        removed = gone.finish({}, blocks=1, size=1)
        catalog.remove(removed)
        counts = {
            table: catalog.connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in schema.TABLES
        }
        # Of the one that stays: the root and "a", one of everything else.
        assert counts == {table: 2 if table == "folders" else 1 for table in schema.TABLES}
        with pytest.raises(BackupNotFound):
            catalog.digests(removed)


def test_what_is_running_or_has_changes_since_is_not_removed(path):
    with Catalog.open(path) as catalog:
        writer = catalog.begin(facts())
        with pytest.raises(CatalogError, match="is running"):
            catalog.remove(writer.backup)
        full = writer.finish({}, blocks=1, size=1)
        change = catalog.begin(facts(parent=full.uuid)).finish({}, blocks=1, size=1)
        with pytest.raises(CatalogError, match=f"forget {change.id} first"):
            catalog.remove(full)
        catalog.remove(change)
        catalog.remove(full)
        assert catalog.backups() == []


def test_the_catalog_is_for_its_owner_only(path):
    with Catalog.open(path) as catalog:
        catalog.begin(facts())
        for each in path.parent.glob("catalog.sqlite*"):
            assert each.stat().st_mode & 0o077 == 0, each


def test_the_catalog_lies_in_the_data_folder_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with Catalog.open() as catalog:
        assert catalog.path == default_path() == tmp_path / "data/serverfree/catalog.sqlite"


def test_a_newer_catalog_is_refused_and_left_alone(path):
    Catalog.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    connection.close()
    with pytest.raises(CatalogError, match=f"of version {schema.VERSION + 1}"):
        Catalog.open(path)


def test_the_database_of_something_else_is_refused_and_left_alone(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE accounts (money)")
    connection.close()
    with pytest.raises(CatalogError, match="something else"):
        Catalog.open(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("accounts",)]
    connection.close()


def test_what_is_no_database_is_refused(path):
    path.write_bytes(b"\xffno database" * 1000)
    with pytest.raises(CatalogError, match="cannot be used"):
        Catalog.open(path)


def test_a_catalog_of_an_older_version_is_brought_up_to_date(path, monkeypatch):
    with Catalog.open(path) as catalog:
        catalog.begin(facts(name="old")).finish({}, blocks=1, size=2)
    following = "ALTER TABLE backups ADD COLUMN colour TEXT; CREATE TABLE more (key INTEGER)"
    monkeypatch.setattr(schema, "SCRIPTS", (*schema.SCRIPTS, following))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    with Catalog.open(path) as catalog:
        assert catalog.backups()[0].facts.name == "old"
        assert "colour" in schema.columns(catalog.connection, "backups")
        version = catalog.connection.execute("PRAGMA user_version").fetchone()[0]
        assert version == schema.VERSION


def test_a_migration_that_fails_changes_nothing(path, monkeypatch):
    Catalog.open(path).close()
    version = schema.VERSION
    following = "CREATE TABLE more (key INTEGER); CREATE TABLE backups (nonsense)"
    monkeypatch.setattr(schema, "SCRIPTS", (*schema.SCRIPTS, following))
    monkeypatch.setattr(schema, "VERSION", version + 1)
    with pytest.raises(CatalogError, match="already exists"):
        Catalog.open(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (version,)
        assert not connection.execute("SELECT 1 FROM sqlite_schema WHERE name='more'").fetchone()
    connection.close()


def test_a_catalog_of_version_1_as_it_was_published_is_understood(path):
    # Made when version 1 was: what lies in it must stay readable for ever.
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(Path(__file__).with_name("version_1.sql").read_text())
    with Catalog.open(path) as catalog:
        (backup,) = catalog.backups()
        assert (backup.id, backup.state, backup.facts.name) == ("0a1b2c3d", State.DONE, "Daten")
        assert backup.facts.volume == VOLUME
        assert backup.warnings == ("the volume is dirty",)
        first, second = catalog.members(backup)
        assert (first.shown, first.member.data) == ("Users/a.txt", (Data(0, 600, 1536),))
        assert first.member.attributes == {"ntfs_acl": b"\x01\x02"}
        assert (second.shown, second.member.resident) == ("Users/a.txt:s", b"tiny")
        assert list(catalog.digests(backup)) == [Digest(0, 262144, bytes(range(32)))]


WRITER = """
import sys
from serverfree.backup.archive.member import Data, Kind, Member
from serverfree.backup.catalog.facts import BackupFacts, Mode
from serverfree.backup.catalog.store import Catalog
with Catalog.open(sys.argv[1]) as catalog:
    writer = catalog.begin(BackupFacts(name=sys.argv[2], mode=Mode.FILES, created=1))
    print(writer.id, flush=True)
    number = 0
    while number < int(sys.argv[3]):
        writer.add_members(
            Member(f"f{i % 9}/{i}", Kind.FILE, i, data=(Data(0, i, i),))
            for i in range(number, number + 500)
        )
        number += 500
        print(number, flush=True)
    writer.finish({}, blocks=1, size=1)
"""


def start_writer(path, name, members):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(members)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.served
def test_several_processes_write_at_once_while_others_read(path):
    writers = [start_writer(path, f"w{n}", 4000) for n in range(3)]
    with Catalog.open(path) as catalog:
        while any(each.poll() is None for each in writers):
            for backup in catalog.backups():
                found = [e.member for e in catalog.members(backup)]
                assert len(found) % 500 == 0, "batches are seen whole or not at all"
                assert all(m.data == (Data(0, m.size, m.size),) for m in found)
        for each in writers:
            each.communicate()
            assert each.returncode == 0
        assert [(b.state, catalog.count(b)) for b in catalog.backups()] == [(State.DONE, 4000)] * 3


@pytest.mark.served
@pytest.mark.parametrize("after", [1, 3, 7])
def test_a_killed_writer_leaves_whole_batches_and_an_abandoned_backup(path, after):
    writer = start_writer(path, "killed", 1_000_000)
    id = writer.stdout.readline().strip()
    reached = 0
    for _ in range(after):
        reached = int(writer.stdout.readline())
    time.sleep(0.003 * after)  # somewhere within the next batch
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()
    with Catalog.open(path) as catalog:
        backup = catalog.backup(id)
        assert backup.state is State.ABANDONED
        assert catalog.count(backup) >= reached
        assert catalog.count(backup) % 500 == 0
        assert catalog.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        catalog.begin(facts(created=2)).finish({}, blocks=1, size=1)
        states = catalog.connection.execute("SELECT state FROM backups ORDER BY created")
        assert [state for (state,) in states] == ["abandoned", "done"]


def test_a_running_backup_of_this_process_is_not_abandoned(path):
    with Catalog.open(path) as catalog, Catalog.open(path) as other:
        one = catalog.begin(facts())
        other.begin(facts())
        assert one.backup.state is State.RUNNING


def test_a_busy_catalog_is_waited_for_and_then_told(path, monkeypatch):
    monkeypatch.setattr(store, "_BUSY_TIMEOUT", 0.1)
    with Catalog.open(path) as catalog, Catalog.open(path) as other, catalog.transaction():
        begun = time.monotonic()
        with pytest.raises(CatalogError, match="locked"):
            other.begin(facts())
        assert time.monotonic() - begun >= 0.1
