"""What a backup through a data mover put on a tape, found again without the catalog it was in."""

import json
import os
import shutil
from dataclasses import replace

import pytest

from serverfree.backup.archive.member import Kind
from serverfree.backup.catalog import scan as scanning
from serverfree.backup.catalog.facts import Mode, State
from serverfree.backup.catalog.store import Catalog
from serverfree.backup.restore.job import Request, restore
from serverfree.backup.site import Site
from serverfree.backup.verify import verify
from serverfree.cli.main import main
from support import backups
from support.ntfs_images import mounted

STEP = 64 << 10  # what changes are tracked by

pytestmark = [pytest.mark.peer, pytest.mark.served]


@pytest.fixture(scope="module")
def san(ntfs_images, tmp_path_factory):
    """A tape with an image and the files of a volume on it."""
    folder = tmp_path_factory.mktemp("scanned")
    disk = ntfs_images.get("plain").copy(folder / "disk.img")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SERVERFREE_TOKEN", backups.TOKEN)
        with backups.san(folder, disk) as running:
            for mode in (Mode.IMAGE, Mode.FILES):
                running.back_up(mode, command_size=1 << 20)
            running.back_up(Mode.FILES)
            yield running


def catalog_of(catalog, backup):
    (found,) = [e.member for e in catalog.members(backup) if e.member.kind is Kind.CATALOG]
    return found


def members(catalog, backup):
    """All members but the catalog on the tape, which is not in itself."""
    return [e.member for e in catalog.members(backup) if e.member.kind is not Kind.CATALOG]


def test_the_verb_finds_both_and_they_are_what_they_were(san, tmp_path, capsys):
    again = tmp_path / "again.sqlite"
    assert main(["scan", "--tape", str(san.tape), "--catalog", str(again), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["found_by"] for each in found] == ["catalog"] * 3
    with Catalog.open(san.catalog) as before, Catalog.open(again) as after:
        pairs = list(zip(before.backups(), after.backups(), strict=True))
        assert len(pairs) == 3
        for old, new in pairs:
            # It was told by another session, and the drive has a number that a job does not note.
            facts = replace(
                new.facts, tape_url=old.facts.tape_url, drive_serial=old.facts.drive_serial
            )
            assert facts == old.facts
            assert (new.state, new.blocks, new.size) == (State.DONE, old.blocks, old.size)
            assert members(after, new) == members(before, old)
            digests = list(after.digests(new))
            assert digests == list(before.digests(old))[: len(digests)]
            assert digests[-1].archive_offset + digests[-1].length == (
                catalog_of(before, old).header_offset
            )
    assert main(["scan", "--tape", str(san.tape), "--catalog", str(again), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["found_by"] for each in found] == ["known"] * 3


def test_what_was_written_by_one_command_is_verified_after_a_scan(san, tmp_path):
    with Catalog.open(tmp_path / "again.sqlite") as after:
        with san.drive() as tape:
            found = list(scanning.scan(tape, after))
        backup = after.backup(found[2].backup.id)
        with Catalog.open(san.catalog) as before:
            catalog = catalog_of(before, before.backup(backup.id))
        for through_server in (False, True):
            with Site(san.manager, san.tape) as site:
                report = verify(after, site, backup, through_server=through_server)
            assert report.good
            assert report.checked_bytes == catalog.header_offset
            assert report.unchecked_bytes == backup.size - catalog.header_offset < 64 << 10
            assert (report.checked_bytes, report.ranges) == (catalog.header_offset, 1)


def test_the_headers_alone_tell_the_same(san, tmp_path, monkeypatch):
    monkeypatch.setattr(scanning._Examination, "_trailer", lambda self: None)
    with (
        Catalog.open(san.catalog) as before,
        Catalog.open(tmp_path / "again.sqlite") as after,
        san.drive() as tape,
    ):
        found = list(scanning.scan(tape, after))
        assert [(each.how, each.damage) for each in found] == [("headers", [])] * 3
        for each, old in zip(found, before.backups(), strict=True):
            assert each.backup.uuid == old.uuid
            assert each.backup.facts.volume == old.facts.volume
            assert members(after, each.backup) == members(before, old)


@pytest.mark.skipif(os.geteuid() != 0, reason="FUSE mounts take root")
def test_with_the_catalog_lost_a_chain_of_images_still_restores_single_files(
    ntfs_images, tmp_path, monkeypatch
):
    monkeypatch.setenv("SERVERFREE_TOKEN", backups.TOKEN)
    disk = ntfs_images.get("plain").copy(tmp_path / "disk.img")
    edited = shutil.copyfile(disk, tmp_path / "edited.img")
    with backups.san(tmp_path, disk) as running:
        running.back_up(Mode.IMAGE, array=running.array)
        with mounted(edited, tmp_path / "mount") as top:
            (top / "new.bin").write_bytes(os.urandom(300_000))
            with (top / "folder 1/inside/300000 bytes.bin").open("r+b") as file:
                file.seek(100_000)
                file.write(os.urandom(50_000))
        bring(running, edited.read_bytes())
        change = running.back_up(Mode.IMAGE, array=running.array, incremental="latest")
        assert change.parent
        again = tmp_path / "again.sqlite"
        with Catalog.open(again) as catalog, running.drive() as tape:
            assert [each.how for each in scanning.scan(tape, catalog)] == ["catalog", "catalog"]
            backup = catalog.backup(change.backup)
            (entry,) = catalog.at(backup, "folder 1/inside/300000 bytes.bin")
            assert {held.id for held, _ in catalog.pieces(entry)} == {
                each.id for each in catalog.chain(backup)
            }, "a part of it is in each"
        out = tmp_path / "out"
        restore(Request(backup=change.backup, tape=running.tape, folder=out, catalog=again))
        with mounted(edited, tmp_path / "mount", "ro") as top:
            for path in top.rglob("*"):
                if path.is_file():
                    assert (out / path.relative_to(top)).read_bytes() == path.read_bytes()


def bring(running, data):
    """Bring the disk to this content over iSCSI, as a host would."""
    with Site(None, running.tape) as site:
        disk = site.disk(running.disk)
        for at in range(0, len(data), STEP):
            if disk.read(at // 512, STEP // 512) != data[at : at + STEP]:
                disk.write(at // 512, data[at : at + STEP])
        disk.flush()
