"""Cartridges that GNU tar, Python's tarfile and our own writer filled, found again by scanning."""

import io
import random
import subprocess
import tarfile
from dataclasses import asdict
from hashlib import sha256
from itertools import pairwise

import pytest

from serverfree.backup.archive.image import disk_extents, put_catalog, put_image
from serverfree.backup.archive.member import Kind, Member, Reason
from serverfree.backup.archive.writer import ArchiveWriter, Content
from serverfree.backup.catalog.facts import BackupFacts, Mode, State
from serverfree.backup.catalog.packed import pack
from serverfree.backup.catalog.scan import scan
from serverfree.backup.catalog.store import Catalog
from serverfree.backup.device import FileDevice
from serverfree.backup.ntfs.volume import Volume
from serverfree.backup.pieces import FromDisk, Inline
from serverfree.initiator.tape import Stop, Tape
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.sense import Asc, Sense, SenseKey
from support.tape import make_drive
from support.tape_files import tape_of, write_blocks, write_file

BLOCK = 4096


@pytest.fixture
def drive(tmp_path):
    return make_drive(tmp_path / "cartridge", capacity=16 << 20)


@pytest.fixture
def tape(drive):
    return tape_of(drive)


@pytest.fixture
def catalog(tmp_path):
    with Catalog.open(tmp_path / "catalog.sqlite") as opened:
        yield opened


def content(name, length=5000):
    """Bytes that no other file has."""
    return (sha256(name.encode()).digest() * (length // 32 + 1))[:length]


def tar_of(files, **options):
    """An archive by Python's tarfile; its format may be any that it knows."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_700_000_000
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def ours(catalog, files, *, name="data", with_catalog=True):
    """An archive of ours and its backup, as a backup job makes it."""
    entry = catalog.begin(BackupFacts(name=name, mode=Mode.FILES, created=10**18, tape_block=BLOCK))
    writer = ArchiveWriter()
    facts = {"id": entry.id, "uuid": entry.backup.uuid, "name": name, "mode": "files"}
    pieces = list(writer.begin(facts | {"created": 10**18, "tape_block": BLOCK}))
    for path, data in files.items():
        member = Member(path, Kind.FILE, len(data), modified=10**18, number=7, sequence=1)
        member.reason = Reason.RESIDENT if data else None
        pieces += writer.put(member, [Content(0, Inline(data))])
        entry.add_member(member)
    if with_catalog:
        member, more = put_catalog(writer, entry.id, pack(catalog, entry.backup), 10**18)
        pieces += more
        entry.add_member(member)
    pieces += writer.end()
    archive = b"".join(piece.data for piece in pieces)
    archive += bytes(-len(archive) % BLOCK)
    backup = entry.finish({}, blocks=len(archive) // BLOCK, size=writer.offset)
    return archive, backup


def restored(tape, catalog, backup):
    """Every file's content by the catalog alone: blocks read off the tape where it says."""
    facts = backup.facts
    buffer = memoryview(bytearray(1 << 20))
    files = {}
    for entry in catalog.members(backup):
        if entry.member.kind is not Kind.FILE:
            continue
        data = bytearray(entry.member.size)
        for each in entry.member.data:
            first, skip = divmod(each.archive_offset, facts.tape_block)
            tape.locate(facts.first_block + first)
            got = b""
            while len(got) < skip + each.length:
                block = tape.read_block(buffer)
                assert not isinstance(block, Stop)
                got += bytes(block)
            data[each.start : each.start + each.length] = got[skip : skip + each.length]
        files[entry.shown] = bytes(data)
    return files


FILES = {f"folder/{name}": content(name, length) for name, length in
         (("a", 5000), ("b", 0), ("c", 512), ("d", 70_000), ("e", 1))}  # fmt: skip


def test_a_blank_cartridge_has_nothing(tape, catalog):
    assert list(scan(tape, catalog)) == []
    assert catalog.backups() == []


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_an_archive_of_another_program_is_entered_and_can_be_read_by_it(tape, catalog, format):
    write_file(tape, tar_of(FILES, format=format), BLOCK)
    (found,) = scan(tape, catalog, tape_url="iscsi://there/tape/0")
    assert (found.how, found.members, found.damage) == ("headers", 5, [])
    assert found.backup.facts.mode is Mode.FOREIGN
    assert found.backup.facts.tape_url == "iscsi://there/tape/0"
    assert found.backup.facts.created == 1_700_000_000 * 10**9, "the newest member's time"
    assert found.backup.state is State.DONE
    assert restored(tape, catalog, found.backup) == FILES


def test_a_second_scan_knows_what_the_first_has_entered(tape, catalog):
    write_file(tape, tar_of(FILES), BLOCK)
    (first,) = scan(tape, catalog)
    (second,) = scan(tape, catalog)
    assert (second.how, second.backup.id) == ("known", first.backup.id)
    assert len(catalog.backups()) == 1


def test_the_tape_is_rewound_in_the_end(tape, catalog):
    write_file(tape, tar_of(FILES), BLOCK)
    list(scan(tape, catalog))
    assert tape.position().beginning


def test_a_backup_comes_back_from_the_catalog_at_its_end(tape, catalog, tmp_path):
    archive, backup = ours(catalog, FILES)
    write_file(tape, b"x" * 1000, 100)  # something before it, so that it begins elsewhere
    write_file(tape, archive, BLOCK)
    with Catalog.open(tmp_path / "another.sqlite") as other:
        first, second = scan(tape, other)
        assert (first.how, first.backup, first.damage) == ("nothing", None, [])
        assert (second.how, second.members, second.damage) == ("catalog", 5, [])
        again = second.backup
        assert (again.uuid, again.state) == (backup.uuid, State.DONE)
        assert (again.facts.first_block, again.facts.file) == (11, 1)
        assert (again.blocks, again.size) == (backup.blocks, backup.size)
        assert restored(tape, other, again) == FILES
        assert [e.member.number for e in other.members(again)] == [7] * 5


def test_only_the_ends_of_an_archive_of_ours_are_read(tape, catalog, tmp_path, monkeypatch):
    archive, _ = ours(catalog, {"large": content("large", 4 << 20)})
    write_file(tape, archive, BLOCK)
    reads = []
    read = type(tape).read_block
    monkeypatch.setattr(type(tape), "read_block", lambda *a: reads.append(1) or read(*a))
    with Catalog.open(tmp_path / "another.sqlite") as other:
        (found,) = scan(tape, other)
    assert found.how == "catalog"
    assert len(reads) < 16, "of a thousand blocks"


def test_content_of_an_archive_without_catalog_is_located_past(tape, catalog, monkeypatch):
    files = {f"{n}": content(f"{n}", 1 << 20) for n in range(4)}
    write_file(tape, tar_of(files), BLOCK)
    reads = []
    read = type(tape).read_block
    monkeypatch.setattr(type(tape), "read_block", lambda *a: reads.append(1) or read(*a))
    (found,) = scan(tape, catalog)
    assert found.members == 4
    assert len(reads) < 40, "of a thousand blocks"


def test_a_backup_without_its_catalog_is_rebuilt_from_its_headers(tape, catalog, tmp_path):
    archive, backup = ours(catalog, FILES, with_catalog=False)
    write_file(tape, archive, BLOCK)
    with Catalog.open(tmp_path / "another.sqlite") as other:
        (found,) = scan(tape, other)
        assert (found.how, found.damage) == ("headers", [])
        assert (found.backup.uuid, found.backup.state) == (backup.uuid, State.DONE)
        assert found.backup.facts.mode is Mode.FILES
        assert found.backup.size == backup.size
        assert restored(tape, other, found.backup) == FILES
        assert [e.member for e in other.members(found.backup)] == [
            e.member for e in catalog.members(backup)
        ]


def test_a_damaged_catalog_is_told_and_the_headers_are_read(tape, catalog, tmp_path):
    archive, backup = ours(catalog, FILES)
    (kept,) = [e.member for e in catalog.members(backup) if e.member.kind is Kind.CATALOG]
    at = kept.data[0].archive_offset + 300
    write_file(tape, archive[:at] + b"damage" + archive[at + 6 :], BLOCK)
    with Catalog.open(tmp_path / "another.sqlite") as other:
        (found,) = scan(tape, other)
        assert found.how == "headers"
        assert any("catalog is of no use" in text for text in found.damage)
        assert found.backup.uuid == backup.uuid
        assert restored(tape, other, found.backup) == FILES


def test_a_backup_that_was_broken_off_is_a_failed_one_with_what_is_there(tape, catalog, tmp_path):
    archive, _ = ours(catalog, FILES)
    write_file(tape, archive[: 10 * BLOCK], BLOCK, filemark=False)
    with Catalog.open(tmp_path / "another.sqlite") as other:
        (found,) = scan(tape, other)
        assert found.backup.state is State.FAILED
        assert any("filemark" in text for text in found.damage)
        assert any("cut short" in text for text in found.damage)
        members = {e.shown: e.member for e in other.members(found.backup)}
        assert set(members) == {"folder/a", "folder/b", "folder/c", "folder/d"}
        assert members["folder/d"].damage == "cut short"
        assert members["folder/a"].damage == ""
        assert sum(each.length for each in members["folder/d"].data) < 70_000


def test_a_failed_backup_gives_way_to_the_whole_one_that_the_tape_has(tape, catalog, tmp_path):
    archive, backup = ours(catalog, FILES)
    write_file(tape, archive, BLOCK)
    with Catalog.open(tmp_path / "another.sqlite") as other:
        other.begin(BackupFacts(name="", mode=Mode.FILES, created=1, uuid=backup.uuid)).fail("x")
        (found,) = scan(tape, other)
        assert (found.how, found.backup.state) == ("catalog", State.DONE)
        assert [each.id for each in other.backups()] == [backup.id]


def test_what_the_catalog_knows_of_a_failed_backup_stays(tape, catalog):
    archive, backup = ours(catalog, FILES)
    catalog.remove(backup)
    failed = catalog.begin(BackupFacts(name="", mode=Mode.FILES, created=1, uuid=backup.uuid))
    failed.fail("the mover is gone")
    write_file(tape, archive[: 10 * BLOCK], BLOCK)
    (found,) = scan(tape, catalog)
    assert (found.how, found.backup.warnings) == ("known", ("the mover is gone",))


def test_behind_a_damaged_header_the_next_one_is_found(tape, catalog):
    archive = bytearray(tar_of(FILES, format=tarfile.USTAR_FORMAT))
    at = archive.index(b"folder/c")
    archive[at : at + 4] = b"\xff" * 4
    write_file(tape, bytes(archive), BLOCK)
    (found,) = scan(tape, catalog)
    names = [entry.shown for entry in catalog.members(found.backup)]
    assert names == ["folder/a", "folder/b", "folder/d", "folder/e"]
    assert found.damage
    assert found.backup.warnings


def test_blocks_of_different_lengths_are_read_and_named(tape, catalog):
    archive = tar_of(FILES)
    cuts = [0, 1000, 5096, 5100, 30_000, len(archive)]
    write_blocks(tape, [archive[a:b] for a, b in pairwise(cuts)])
    (found,) = scan(tape, catalog)
    assert (found.members, found.damage) == (5, [])
    assert found.backup.facts.tape_block == 0
    assert any("different lengths" in text for text in found.remarks)


def test_several_files_with_empty_ones_between(tape, catalog):
    write_file(tape, tar_of({"one": b"1"}), BLOCK)
    tape.write_filemarks(2)
    write_file(tape, tar_of({"two": b"2"}), 10240)
    found = list(scan(tape, catalog))
    assert [(each.number, each.blocks) for each in found] == [(0, 3), (1, 0), (2, 0), (3, 1)]
    assert [entry.shown for entry in catalog.find("*")] == ["one", "two"]
    assert restored(tape, catalog, found[3].backup) == {"two": b"2"}


class WornTape(Tape):
    """A tape that some blocks cannot be read from."""

    bad: frozenset[int] = frozenset()

    def read_block(self, buffer):
        if self.position().block in self.bad:
            self.space_blocks(1)
            raise CheckCondition(Sense(SenseKey.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR))
        return super().read_block(buffer)


def worn(tape, *bad):
    tape = WornTape(tape.device)
    tape.bad = frozenset(bad)
    return tape


def test_unreadable_content_does_not_hide_the_members_behind_it(tape, catalog):
    files = {f"{n}": content(f"{n}", 40_000) for n in range(5)}
    write_file(tape, tar_of(files, format=tarfile.USTAR_FORMAT), BLOCK)
    (found,) = scan(worn(tape, 2, 3), catalog)
    assert found.members == 5, "the headers are elsewhere"


def test_an_unreadable_header_loses_its_member_only(tape, catalog):
    files = {f"{n}": content(f"{n}", BLOCK * 3) for n in range(5)}
    write_file(tape, tar_of(files, format=tarfile.USTAR_FORMAT), BLOCK)
    (found,) = scan(worn(tape, 6), catalog)  # the header of 2 begins at byte 2 * 12800
    names = [entry.shown for entry in catalog.members(found.backup)]
    assert names == ["0", "1", "3", "4"]
    assert any("block 6" in text for text in found.damage)
    assert found.backup.state is State.DONE


def test_an_archive_of_ours_with_an_unreadable_beginning_comes_from_its_end(
    tape, catalog, tmp_path
):
    archive, backup = ours(catalog, FILES)
    write_file(tape, archive, BLOCK)
    with Catalog.open(tmp_path / "another.sqlite") as other:
        (found,) = scan(worn(tape, 0), other)
        assert (found.how, found.backup.uuid) == ("catalog", backup.uuid)
        assert found.damage


def test_a_wholly_unreadable_file_ends_and_the_next_is_found(tape, catalog):
    write_file(tape, content("lost", 8 * BLOCK), BLOCK)
    write_file(tape, tar_of({"kept": b"kept"}), BLOCK)
    first, second = scan(worn(tape, *range(8)), catalog)
    assert first.damage
    assert second.members == 1


def test_a_drive_that_does_not_move_ends_the_scan(tape, catalog, monkeypatch):
    write_file(tape, tar_of(FILES), BLOCK)
    write_file(tape, tar_of(FILES), BLOCK)
    monkeypatch.setattr(type(tape), "space_filemarks", lambda self, count: None)
    (found,) = scan(tape, catalog)
    assert any("does not move" in text for text in found.damage)


@pytest.mark.peer
def test_the_files_inside_an_image_are_found_without_a_catalog(
    tape, catalog, tmp_path, ntfs_images
):
    image = tmp_path / "disk.img"
    made = ntfs_images.get("plain")
    made.copy(image)
    with FileDevice(str(image)) as device:
        volume = Volume.open(device)
        writer = ArchiveWriter()
        entry = catalog.begin(
            BackupFacts(name="d", mode=Mode.IMAGE, created=1, volume=volume.facts)
        )
        pieces = list(
            writer.begin(
                {"uuid": entry.backup.uuid, "mode": "image", "name": "d", "created": 1,
                 "tape_block": BLOCK, "volume": asdict(volume.facts)}
            )
        )  # fmt: skip
        extents = disk_extents([(volume.facts, volume.used())], device.size)
        _, more = put_image(writer, "d", extents, device.size, 512, 0)
        pieces += [*more, *writer.end()]
        archive = b"".join(
            device.read_at(each.offset, each.length) if isinstance(each, FromDisk) else each.data
            for each in pieces
        )
        write_file(tape, archive, BLOCK)
        with Catalog.open(tmp_path / "another.sqlite") as other:
            (found,) = scan(tape, other)
            assert (found.how, found.damage) == ("headers", [])
            read = {}
            for each in other.members(found.backup):
                member = each.member
                if member.kind in (Kind.IMAGE, Kind.HARD_LINK) or member.compression_unit:
                    continue
                if member.resident is not None:
                    data = member.resident
                else:
                    data = bytearray(member.size)
                    for part in member.data:
                        at = part.archive_offset
                        data[part.start : part.start + part.length] = archive[at : at + part.length]
                read[member.path, member.stream] = sha256(data).hexdigest()
            assert len(made.manifest.streams) > 3
            for name, written in made.manifest.streams.items():
                assert read[name] == written.sha256, name


def mutated(archive, source):
    """Bytes changed, blocks lost, repeated or exchanged, the end cut off."""
    blocks = [archive[at : at + 512] for at in range(0, len(archive), 512)]
    for _ in range(source.choice((1, 1, 3, 9))):
        at = source.randrange(len(blocks))
        match source.randrange(6):
            case 0 | 1:
                block = bytearray(blocks[at] or b"\0")
                block[source.randrange(len(block))] = source.randrange(256)
                blocks[at] = bytes(block)
            case 2:
                blocks[at : at + 1] = [b""] if len(blocks) == 1 else []
            case 3:
                blocks.insert(at, blocks[source.randrange(len(blocks))])
            case 4:
                blocks[at] = source.randbytes(512)
            case 5:
                del blocks[at + 1 :]
    return b"".join(blocks)


@pytest.mark.parametrize("seed", range(6))
def test_no_damage_ends_a_scan(tape, catalog, tmp_path, seed):
    source = random.Random(seed)
    small = {name: content(name, 3000) for name in ("a", "b" * 120, "c/d")}
    archives = [ours(catalog, small)[0], ours(catalog, small, with_catalog=False)[0]]
    archives += [tar_of(small, format=each) for each in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)]
    written = 0
    for archive in archives * 4:
        write_file(tape, mutated(archive, source), source.choice((512, 4096, 10240, 700)))
        written += 1
    with Catalog.open(tmp_path / "another.sqlite") as other:
        found = list(scan(tape, other))
        assert [each.number for each in found] == list(range(written))
        for backup in other.backups():
            assert backup.state is not State.RUNNING
            list(other.members(backup))
    assert tape.position().beginning


@pytest.mark.peer
def test_what_gnu_tar_wrote_with_holes_and_links_is_entered(tape, catalog, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "plain").write_bytes(content("plain", 100_000))
    with (source / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(content("sparse"))
        file.truncate(3 << 20)
    (source / "hard").hardlink_to(source / "plain")
    (source / "soft").symlink_to("plain")
    (source / ("long" * 50)).write_bytes(b"long")
    for options in (["--format=pax"], ["--format=gnu"], ["--format=pax", "--sparse-version=0.1"]):
        written = subprocess.run(
            ["tar", "-cSf", "-", "-b", "8", "--sort=name", *options, "-C", source, "."],
            check=True, capture_output=True,
        ).stdout  # fmt: skip
        write_file(tape, written, 8 * 512)
    found = list(scan(tape, catalog))
    assert len(found) == 3
    for each in found:
        assert (each.how, each.damage) == ("headers", [])
        kinds = {e.member.path: e.member.kind for e in catalog.members(each.backup)}
        # Of two names of a file tar keeps the first it meets.
        assert kinds["plain"] is Kind.HARD_LINK
        assert kinds["soft"] is Kind.SYMBOLIC_LINK
        files = restored(tape, catalog, each.backup)
        for name in ("hard", "sparse", "long" * 50):
            assert files[name] == (source / name).read_bytes(), name
        (sparse,) = catalog.at(each.backup, "sparse")
        assert sum(data.length for data in catalog.extents(sparse)) < 1 << 20
