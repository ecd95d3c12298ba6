"""One backup packed for the tape: read back as it was, and whatever an enemy makes of it."""

import hashlib
import io
import random
import sqlite3
import subprocess
import tracemalloc
from contextlib import closing

import pytest
import zstandard

from serverfree.backup.archive.member import Data, Elsewhere, Kind, Member, Reason
from serverfree.backup.catalog import schema
from serverfree.backup.catalog.facts import BackupFacts, CatalogError, Digest, Mode, State
from serverfree.backup.catalog.packed import TRAILER, Damaged, Trailer, enter, pack
from serverfree.backup.catalog.store import Catalog
from serverfree.backup.files import VolumeFacts

MEMBERS = (
    Member("", Kind.DIRECTORY, header_offset=512, end_offset=1024),
    Member(
        "a/\ud800/b", Kind.FILE, 9000, 5, header_offset=1024, end_offset=9728,
        data=(Data(0, 8000, 1536),), elsewhere=(Elsewhere(8192, 808, 1 << 30),),
        attributes={"ntfs_acl": b"\1\2", "ntfs_times": b"3" * 32}, number=64, sequence=2,
    ),
    Member("a/\ud800/b", Kind.FILE, 4, stream="s", reason=Reason.RESIDENT, resident=b"tiny"),
    Member("a/c", Kind.HARD_LINK, link_target="a/\ud800/b", damage="torn", compression_unit=65536),
)  # fmt: skip
VOLUME = VolumeFacts("NTFS", 1 << 20, 1 << 30, 512, 4096, "Daten", "0123", False)


@pytest.fixture
def catalog(tmp_path):
    with Catalog.open(tmp_path / "catalog.sqlite") as opened:
        yield opened


@pytest.fixture
def other(tmp_path):
    with Catalog.open(tmp_path / "other.sqlite") as opened:
        # Something in it, so that keys have to change.
        opened.begin(BackupFacts(name="first", mode=Mode.FILES, created=1)).add_members(MEMBERS)
        yield opened


@pytest.fixture
def backup(catalog):
    catalog.begin(BackupFacts(name="else", mode=Mode.FILES, created=1)).add_members(MEMBERS)
    writer = catalog.begin(
        BackupFacts(name="disk", mode=Mode.IMAGE, created=2, volume=VOLUME, tape_block=4096)
    )
    writer.add_members(MEMBERS)
    writer.add_digest(Digest(0, 4096, b"d" * 32))
    writer.warn("dirty")
    return writer.backup


def open_packed(packed):
    trailer = Trailer.unpack(packed[-TRAILER:])
    assert trailer is not None
    return io.BytesIO(packed), trailer


def test_a_backup_comes_back_as_it_was_with_its_place_on_the_tape(catalog, backup, other):
    again = enter(other, *open_packed(pack(catalog, backup)), first_block=9, blocks=4, size=16000)
    assert (again.uuid, again.state, again.warnings) == (backup.uuid, State.DONE, ("dirty",))
    assert (again.facts.first_block, again.blocks, again.size) == (9, 4, 16000)
    assert again.facts.volume == VOLUME
    assert [e.member for e in other.members(again)] == list(MEMBERS)
    assert list(other.digests(again)) == list(catalog.digests(backup))
    assert [e.shown for e in other.list(again, "a/\ud800")] == ["a/\ud800/b", "a/\ud800/b:s"]
    assert len(other.backups()) == 2


def test_it_is_whole_sectors_and_ends_with_its_trailer(catalog, backup):
    packed = pack(catalog, backup)
    trailer = Trailer.unpack(packed[-TRAILER:])
    assert len(packed) % 512 == 0
    assert packed[-1], "so that zeros behind it can be told from it"
    assert (trailer.uuid, trailer.length) == (backup.uuid, len(packed))
    assert trailer.sha256 == hashlib.sha256(packed[: trailer.compressed]).digest()


def test_which_process_wrote_it_does_not_go_on_the_tape(catalog, backup):
    packed = pack(catalog, backup)
    raw = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    (owner,) = catalog.connection.execute("SELECT owner FROM backups LIMIT 1").fetchone()
    assert owner.encode() not in raw


@pytest.mark.peer
def test_zstd_and_sqlite_alone_can_read_it(catalog, backup, tmp_path):
    (tmp_path / "c.zst").write_bytes(pack(catalog, backup))
    subprocess.run(["zstd", "-dq", tmp_path / "c.zst"], check=True)
    with closing(sqlite3.connect(tmp_path / "c")) as connection:
        found = connection.execute("SELECT name, mode FROM backups").fetchall()
    assert found == [("disk", "image")]


def test_one_that_is_there_already_is_refused(catalog, backup, other):
    packed = pack(catalog, backup)
    enter(other, *open_packed(packed))
    with pytest.raises(CatalogError, match="already"):
        enter(other, *open_packed(packed))
    assert len(other.backups()) == 2


# ---------------------------------------------------------------------- not what it was


def refused(other, packed, trailer, match="catalog on the tape"):
    """What is damaged is told as such, and the catalog stays as it was."""
    before = other.backups()
    with pytest.raises(Damaged, match=match):
        enter(other, io.BytesIO(packed), trailer)
    assert other.backups() == before
    counted = [
        other.connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        for table in schema.TABLES
    ]
    assert counted == [(1,), (3,), (4,), (2,), (0,), (0,)]


@pytest.mark.parametrize("keep", [0, 10, 500, -600])
def test_a_truncated_one_is_refused(catalog, backup, other, keep):
    packed = pack(catalog, backup)
    trailer = Trailer.unpack(packed[-TRAILER:])
    refused(other, packed[: keep if keep >= 0 else trailer.compressed + keep], trailer)


def test_changed_bytes_are_noticed(catalog, backup, other):
    packed, source = pack(catalog, backup), random.Random(1)
    trailer = Trailer.unpack(packed[-TRAILER:])
    for _ in range(20):
        at = source.randrange(trailer.compressed)
        damaged = bytearray(packed)
        damaged[at] ^= source.randrange(1, 256)
        refused(other, bytes(damaged), trailer)


def test_a_trailer_that_makes_no_sense_is_none():
    whole = Trailer("00000000-0000-4000-8000-000000000000", 1024, 512, 10, bytes(32)).pack()
    assert Trailer.unpack(whole) is not None
    for said in (
        b"[]", b"{}", b"[" * 400, b'{"uuid": 1}', b"\xff" * 300, b"null",
        whole[8:].replace(b"512", b'"x"'), whole[8:].replace(b"512", b"-1"),
        whole[8:].replace(b"1024", b"1023"), whole[8:].replace(b"1024", b"9e99"),
        whole[8:].replace(b'"compressed": 512', b'"compressed": true'),
    ):  # fmt: skip
        assert Trailer.unpack(whole[:8] + said.ljust(504)[:504]) is None, said
    assert Trailer.unpack(bytes(512)) is None


def forged(raw, uuid, **lies):
    """Pack any bytes as if they were a catalog."""
    frame = zstandard.ZstdCompressor(level=3).compress(raw)
    said = {"unpacked": len(raw), "compressed": len(frame)} | lies
    length = -(-len(frame) // 512) * 512 + TRAILER
    digest = hashlib.sha256(frame).digest()
    trailer = Trailer(uuid, length, said["compressed"], said["unpacked"], digest)
    return frame, trailer


def test_a_bomb_does_not_go_off(other, backup):
    raw = bytes(256 << 20)
    packed, trailer = forged(raw, backup.uuid, unpacked=1 << 20)
    del raw
    assert len(packed) < 64 << 10
    tracemalloc.start()
    refused(other, packed, trailer, "more than it says")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 << 20


def test_what_is_no_database_is_refused(other, backup):
    for raw in (b"no database", bytes(8192), b"SQLite format 3\0" + bytes(4096)):
        refused(other, *forged(raw, backup.uuid))


@pytest.fixture
def forge(catalog, backup, tmp_path):
    """Change the packed database by SQL, and pack it again."""

    def change(*statements):
        path = tmp_path / "forged.sqlite"
        frame = pack(catalog, backup)
        path.write_bytes(zstandard.ZstdDecompressor().decompressobj().decompress(frame))
        with closing(sqlite3.connect(path)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()
        return forged(path.read_bytes(), backup.uuid)

    return change


def test_the_unchanged_one_is_taken(forge, other):
    assert enter(other, *as_file(forge())).state is State.DONE


def as_file(packed):
    return io.BytesIO(packed[0]), packed[1]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW v AS SELECT * FROM members",
        "CREATE TRIGGER t AFTER INSERT ON members BEGIN DELETE FROM backups; END",
        "CREATE VIRTUAL TABLE f USING fts5(x)",
        "CREATE TABLE more (x)",
        "CREATE INDEX i ON members (lower(name))",
        "ALTER TABLE members ADD COLUMN g TEXT AS (upper(name))",
        "ALTER TABLE members RENAME TO others",
        "DROP TABLE digests",
        "CREATE INDEX members_by_folder ON members (folder)",
    ],
)
def test_what_no_catalog_declares_is_refused(forge, other, statement):
    refused(other, *forge(statement), "declares|lacks")


def test_a_view_in_place_of_a_table_is_refused(forge, other):
    refused(
        other,
        *forge(
            "ALTER TABLE members RENAME TO others",
            "CREATE VIEW members AS WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r)"
            " SELECT x FROM r",
        ),
        "declares",
    )


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE members SET size = 'large'",
        "UPDATE members SET size = 1.5",
        "UPDATE members SET size = -1",
        "UPDATE members SET name = x'ff'",
        "UPDATE members SET name = CAST(x'fffe' AS TEXT)",
        "UPDATE members SET kind = 'device'",
        "UPDATE members SET reason = 'whim'",
        "UPDATE members SET attributes = x'00'",
        "UPDATE members SET attributes = x'0001ffffffff41'",
        "UPDATE members SET attributes = zeroblob(20000000)",
        "UPDATE members SET name = '..'",
        "UPDATE members SET name = '.'",
        "UPDATE members SET name = 'a/b'",
        "UPDATE members SET name = 'a' || char(0)",
        "UPDATE members SET folder = 17",
        "UPDATE members SET key = key + (1 << 32)",
        "UPDATE members SET valid = -1",
        "UPDATE folders SET path = '/etc' WHERE path != ''",
        "UPDATE folders SET path = '../x' WHERE path != ''",
        "UPDATE folders SET parent = 5",
        "UPDATE extents SET member = member + 1000",
        "UPDATE extents SET archive_offset = -1 WHERE archive_offset IS NOT NULL",
        "UPDATE extents SET archive_offset = NULL, disk_offset = NULL",
        "UPDATE extents SET length = -1",
        "UPDATE digests SET sha256 = x'00'",
        "UPDATE digests SET backup = 2",
        "UPDATE warnings SET text = x'ff'",
        "UPDATE backups SET report = '[]'",
        "UPDATE backups SET mode = 'magic'",
        "UPDATE backups SET state = 'splendid'",
        "UPDATE backups SET volume = '{}'",
        "UPDATE backups SET volume = '[1'",
        "UPDATE backups SET report = '" + "[" * 100_000 + "'",
        "UPDATE backups SET uuid = '00000000-0000-4000-8000-000000000000'",
        "UPDATE backups SET id = '00000000'",
        "UPDATE backups SET key = 2",
        "DELETE FROM backups",
        "INSERT INTO backups SELECT 2, 'ffffffff', 'ffffffff', name, mode, state, owner, created,"
        " finished, disk_designator, disk_serial, disk_url, disk_size, tape_url, medium_serial,"
        " drive_serial, partition, file, first_block, tape_block, blocks, size, volume,"
        " consistency, generation, parent, report FROM backups",
        "PRAGMA application_id = 1",
        "PRAGMA user_version = 0",
    ],
)
def test_values_that_cannot_be_are_refused(forge, other, statement):
    refused(other, *forge(statement))


def test_a_catalog_of_a_newer_version_is_told_from_a_damaged_one(forge, other):
    with pytest.raises(CatalogError, match="newer serverfree") as caught:
        enter(other, *as_file(forge(f"PRAGMA user_version = {schema.VERSION + 1}")))
    assert not isinstance(caught.value, Damaged)


def test_a_table_that_has_the_pages_of_another_is_refused(forge, other):
    refused(
        other,
        *forge(
            "PRAGMA writable_schema = ON",
            "UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name ="
            " 'folders') WHERE name = 'members'",
        ),
    )


def test_pages_that_name_each_other_do_not_give_rows_without_end(forge, other, backup):
    """A B-tree whose every level names the next one over and over: 4 KiB a level, 400**19 rows."""
    raw = bytearray(zstandard.ZstdDecompressor().decompressobj().decompress(forge()[0]))
    connection = sqlite3.connect(":memory:")
    connection.deserialize(bytes(raw))
    (root,) = connection.execute(
        "SELECT rootpage FROM sqlite_schema WHERE name = 'members'"
    ).fetchone()
    connection.close()
    leaf = raw[(root - 1) * 4096 : root * 4096]
    pages, first = len(raw) // 4096, len(raw) // 4096 + 1

    def interior(child):
        """A table interior page with 400 cells, all for one child (file format, 1.6)."""
        page, cells, at = bytearray(4096), 400, 4096
        page[0] = 5
        page[3:5] = cells.to_bytes(2, "big")
        page[8:12] = child.to_bytes(4, "big")
        for cell in range(cells):
            at -= 5
            page[at : at + 5] = child.to_bytes(4, "big") + bytes((cell % 100,))
            page[12 + 2 * cell : 14 + 2 * cell] = at.to_bytes(2, "big")
        page[5:7] = at.to_bytes(2, "big")
        return page

    levels = 12
    raw += b"".join(interior(first + n + 1) for n in range(levels)) + leaf
    raw[(root - 1) * 4096 : root * 4096] = interior(first)
    raw[28:32] = (pages + levels + 1).to_bytes(4, "big")
    refused(other, *forged(bytes(raw), backup.uuid), "out of order")


def test_random_damage_inside_the_database_does_no_more_than_being_refused(forge, other, backup):
    raw = zstandard.ZstdDecompressor().decompressobj().decompress(forge()[0])
    source = random.Random(2)
    taken = 0
    for _ in range(60):
        damaged = bytearray(raw)
        for _ in range(source.choice((1, 1, 8))):
            damaged[source.randrange(len(damaged))] = source.randrange(256)
        try:
            entered = enter(other, *as_file(forged(bytes(damaged), backup.uuid)))
        except CatalogError:
            continue
        taken += 1  # the damage is in a free place, or in a text
        list(other.members(entered))
        other.remove(entered)
    assert taken < 60
