"""Backups from end to end, over processes of ours; GNU tar and ntfs-3g are the judges."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from serverfree.backup.cartridge import WrongCartridge
from serverfree.backup.catalog.facts import Mode, State
from serverfree.backup.catalog.store import Catalog
from serverfree.backup.errors import BackupError
from serverfree.backup.restore.job import Request as RestoreRequest
from serverfree.backup.restore.job import restore
from serverfree.backup.site import Site
from serverfree.backup.verify import verify
from serverfree.cli.main import main
from support import backups, peers
from support.ntfs_images import make_volume, mounted

pytestmark = [pytest.mark.peer, pytest.mark.served]

# What GNU tar needs to bring back all of NTFS, onto a volume that shows streams as `file:stream`.
EXTRACT = (
    *("--xattrs", "--xattrs-include=*", "-m", "--no-same-owner", "--no-same-permissions", "-xf"),
)


@pytest.fixture(scope="module", autouse=True)
def token():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SERVERFREE_TOKEN", backups.TOKEN)
        yield


@pytest.fixture(scope="module")
def rich(ntfs_images, tmp_path_factory):
    """A rich volume, backed up from a snapshot as an image and as files: (image, san, reports)."""
    folder = tmp_path_factory.mktemp("rich")
    image = ntfs_images.get("rich")
    disk = image.copy(folder / "disk.img")
    with backups.san(folder, disk) as san:
        reports = [
            san.back_up(mode, array=san.array, command_size=1 << 20)
            for mode in (Mode.IMAGE, Mode.FILES)
        ]
        yield image, san, reports


def streams_of(top: Path) -> dict[tuple[str, str], str]:
    """Hash every stream of a mounted volume."""
    found = {}
    for folder, _, files in os.walk(top):
        for name in files:
            path = Path(folder) / name
            if path.is_symlink() or not path.is_file():
                continue
            shown = path.relative_to(top).as_posix()
            found[shown, ""] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def attribute(path: Path, name: str) -> bytes | None:
    """Read an attribute by the driver, None where it fails to."""
    try:
        return os.getxattr(path, f"system.{name}", follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None


def shown(image) -> dict[tuple[str, str], str]:
    """The streams that the driver lets read: not through a reparse point that it does not know."""
    return {
        (path, stream): content.sha256
        for (path, stream), content in image.manifest.streams.items()
        if path not in reparse_points(image)
    }


def reparse_points(image) -> set[str]:
    """The paths that lead elsewhere: the driver shows them as what they lead to, or not at all."""
    attributes = image.manifest.attributes
    return {path for path in attributes if "ntfs_reparse_data" in attributes[path]}


def test_the_report_tells_who_moved_what(rich):
    _, _, (image, files) = rich
    for report in (image, files):
        assert (report.state, report.through, report.consistency) == (
            "done", "copy manager", "crash",
        )  # fmt: skip
        assert report.snapshot == f"backup-{report.backup}"
        assert report.moved_bytes > 3_000_000
        assert report.socket_bytes < report.moved_bytes
        assert report.commands > 3
        assert report.digests == report.commands
        assert report.warnings == []
        # All that is neither content nor sent along is the padding of nothing.
        assert report.moved_bytes + report.inline_bytes == report.archive_bytes
    assert image.server_bytes == 0
    assert 0 < files.server_share < 0.02
    assert files.first_block == image.blocks + 1


def test_no_snapshot_is_left(rich):
    _, san, _ = rich
    assert [name for name, unit in san.storage.units.items() if unit.kind == "snapshot"] == []
    from serverfree.backup.array import Array

    with Array(san.array) as array:
        assert array.snapshots() == []


def test_the_tape_holds_two_files_of_whole_blocks(rich):
    _, san, (image, files) = rich
    first, second, rest = san.tape_files()
    assert rest == []
    assert {len(block) for block in first + second} == {256 << 10}
    assert (len(first), len(second)) == (image.blocks, files.blocks)


def test_tar_makes_a_clean_volume_of_the_image(rich, tmp_path):
    peers.require("ntfsfix")
    image, san, _ = rich
    archive = san.tape_file(0, tmp_path / "image.tar")
    assert backups.tar("-tf", archive).split()[0] == "volume.img"
    backups.tar("-xSf", archive, "volume.img", cwd=tmp_path)
    made = tmp_path / "volume.img"
    assert made.stat().st_size == image.path.stat().st_size
    done = subprocess.run(["ntfsfix", "-n", made], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    with mounted(made, tmp_path / "mount") as top:
        there = streams_of(top)
    expected = {key: sha256 for key, sha256 in shown(image).items() if not key[1]}
    assert {key: there[key] for key in expected} == expected


def test_tar_brings_every_stream_and_attribute_back(rich, tmp_path):
    peers.require("mkntfs", "ntfs-3g")
    image, san, _ = rich
    archive = san.tape_file(1, tmp_path / "files.tar")
    backups.tar("-tf", archive)
    volume = tmp_path / "again.img"
    make_volume(volume, 300 << 20)
    with mounted(volume, tmp_path / "mount", "streams_interface=windows") as top:
        backups.tar(*EXTRACT, archive, cwd=top)
        differing = [
            (path, stream)
            for (path, stream), sha256 in shown(image).items()
            if hashlib.sha256(
                Path(f"{top / path}:{stream}" if stream else top / path).read_bytes()
            ).hexdigest()
            != sha256
        ]
        assert differing == []
        for path, target in image.manifest.links.items():
            assert (top / path).stat().st_ino == (top / target).stat().st_ino
    kept = volume.read_bytes()
    with mounted(volume, tmp_path / "mount", "ro") as top:
        wrong = [
            (path, name)
            for path, attributes in image.manifest.attributes.items()
            for name, value in attributes.items()
            if name in ("ntfs_acl", "ntfs_ea")
            and value != attribute(top / path, name)
            # Some, which it has put there itself, the driver does not find again.
            and not (attribute(top / path, name) is None and value in kept)
        ]
    assert wrong == []


def test_tar_finds_no_difference_to_the_mounted_volume(rich, tmp_path):
    image, san, _ = rich
    archive = san.tape_file(1, tmp_path / "files.tar")
    with mounted(image.copy(tmp_path / "copy.img"), tmp_path / "mount",
                 "streams_interface=windows") as top:  # fmt: skip
        done = subprocess.run(
            ["tar", "--compare", "-f", archive, "--exclude=.serverfree*"],
            cwd=top, capture_output=True, text=True, check=False,
        )  # fmt: skip
    elsewhere = reparse_points(image) | set(image.manifest.symlinks)
    links = [f"{path}: File type differs" for path in elsewhere]
    told = [
        line
        for line in (done.stdout + done.stderr).splitlines()
        if not line.endswith(("Mode differs", "Uid differs", "Gid differs", "Mod time differs"))
        and ".serverfree" not in line
        and line not in links
        and "Exiting with failure" not in line
    ]
    assert told == []


def test_the_tape_is_as_written_for_the_manager_and_for_us(rich):
    _, san, reports = rich
    with Catalog.open(san.catalog) as catalog:
        for report in reports:
            backup = catalog.backup(report.backup)
            assert backup.state is State.DONE
            for through_server in (False, True):
                with Site(san.manager, san.tape) as site:
                    found = verify(catalog, site, backup, through_server=through_server)
                assert found.bad == []
                assert found.unchecked_bytes == 0
                assert found.headers == (report.members + 1 if through_server else 0)
                assert found.checked_bytes == report.archive_bytes
                assert (found.socket_bytes > report.archive_bytes) is through_server


def test_the_catalog_on_the_tape_names_the_backup(rich):
    _, san, reports = rich
    for number, report in enumerate(reports):
        names = backups.names_in(b"".join(san.tape_files()[number]))
        assert names[-1] == f".serverfree/catalog-{report.backup}.sqlite.zst"


# ---------------------------------------------------------------------- other ways


@pytest.fixture
def plain(ntfs_images, tmp_path):
    with backups.san(tmp_path, ntfs_images.get("plain").copy(tmp_path / "disk.img")) as san:
        yield san


def test_paths_and_exclusions_choose(plain):
    plain.back_up(Mode.FILES, "folder 0", "folder 3/inside/100*", excludes=("1 bytes.bin",))
    names = backups.names_in(b"".join(plain.tape_files()[0]))
    assert "folder 0/inside/100001 bytes.bin" in names
    assert "folder 0/inside/1 bytes.bin" not in names
    assert "folder 3/inside/100 bytes.bin" in names
    assert not any(name.startswith(("folder 1", "folder 3/inside/4096")) for name in names)


def test_the_server_takes_over_only_when_it_may(plain, tmp_path):
    from serverfree.backup.way import Refused

    elsewhere = {"mover": plain.disk}  # a disk that has no copy manager
    with pytest.raises(Refused, match="--allow-through-server"):
        plain.back_up(Mode.FILES, **elsewhere)
    assert plain.tape_files() == [[]]
    report = plain.back_up(Mode.FILES, allow_through_server=True, **elsewhere)
    assert (report.through, report.moved_bytes, report.server_share) == ("server", 0, 1.0)
    by_manager = plain.back_up(Mode.FILES)
    first, second, _ = plain.tape_files()
    assert len(first) == len(second)
    with Catalog.open(plain.catalog) as catalog:
        for each in (report, by_manager):
            with Site(plain.manager, plain.tape) as site:
                assert verify(catalog, site, catalog.backup(each.backup)).good


def test_a_damaged_range_is_found_and_its_files_are_named(plain):
    report = plain.back_up(Mode.FILES, command_size=512 << 10)
    blocks = plain.tape_files()[0]
    changed = bytearray(blocks[3])
    changed[1000] ^= 1
    with plain.drive() as tape:  # the same blocks again, one of them with another bit
        tape.locate(3)
        for block in [bytes(changed), *blocks[4:]]:
            tape.write_block(block)
        tape.write_filemarks()
    with Catalog.open(plain.catalog) as catalog:
        backup = catalog.backup(report.backup)
        hit = 3 * (256 << 10) + 1000
        owner = [
            entry.shown
            for entry in catalog.members(backup)
            if entry.member.header_offset <= hit < entry.member.end_offset
        ]
        for through_server in (False, True):
            with Site(plain.manager, plain.tape) as site:
                found = verify(catalog, site, backup, through_server=through_server)
            (bad,) = found.bad
            assert bad.archive_offset <= hit < bad.archive_offset + bad.length
            assert set(owner) <= set(bad.members)
            assert len(owner) == 1


def test_the_command_line_does_all_of_it(plain, monkeypatch, capfd, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    ends = ("--mover", str(plain.manager), "--disk", str(plain.disk), "--tape", str(plain.tape))
    assert main(["backup", *ends, "--no-snapshot", "--dry-run", "--json", "folder 1"]) == 0
    estimated = json.loads(capfd.readouterr().out)
    assert plain.tape_files() == [[]]
    words = ["backup", *ends, "--array", plain.array, "--quiet", "0", "--json", "folder 1"]
    assert main(words) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["mode"] == "files"
    assert report["moved_bytes"] == estimated["moved_bytes"]
    assert report["server_bytes"] == estimated["server_bytes"]
    check = ["verify", "--tape", str(plain.tape), "--backup", report["backup"]]
    assert main([*check, "--mover", str(plain.manager)]) == 0
    assert "as written" in capfd.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["backup", *ends])
    with pytest.raises(SystemExit, match="2"):
        main(["backup", *ends, "--no-snapshot", "--mode", "image", "folder 1"])


def test_only_what_has_changed_since_the_last_image(plain, tmp_path):
    full = plain.back_up(Mode.IMAGE, array=plain.array, incremental="latest")
    assert full.parent == ""
    assert "a full image" in full.warnings[0]
    folder = tmp_path / "later"
    volume = tmp_path / "disk.img"
    again = shutil.copyfile(volume, tmp_path / "edited.img")
    with mounted(again, folder) as top:
        (top / "new.bin").write_bytes(os.urandom(1 << 20))
    _write_differences(plain, volume.read_bytes(), again.read_bytes())
    change = plain.back_up(Mode.IMAGE, array=plain.array, incremental="latest")
    assert change.parent == full.backup
    assert 1 << 20 <= change.moved_bytes < full.moved_bytes
    with Catalog.open(plain.catalog) as catalog:
        chain = catalog.chain(catalog.backup(change.backup))
        assert [each.id for each in chain] == [full.backup, change.backup]
    # GNU tar lays one over the other, by the sparse maps of both: the volume is what it is now.
    disk = bytearray(volume.stat().st_size)
    for number in (0, 1):
        archive = plain.tape_file(number, tmp_path / "part.tar")
        backups.tar("-xSf", archive, "volume.img", cwd=tmp_path)
        with Catalog.open(plain.catalog) as catalog:
            (entry,) = [
                catalog.whole(each)
                for each in catalog.at(catalog.backup((full, change)[number].backup), "volume.img")
            ]
        part = (tmp_path / "volume.img").read_bytes()
        for data in entry.member.data:
            there = slice(data.start, data.start + data.length)
            disk[there] = part[there]
    made = tmp_path / "chain.img"
    made.write_bytes(disk)
    with mounted(made, tmp_path / "m1") as top:
        found = streams_of(top)
    with mounted(again, tmp_path / "m2") as top:
        assert found == streams_of(top)


def test_a_backup_that_was_written_over_is_not_restored(plain, tmp_path):
    """The cartridge's serial number is the same, and so would be the exit code."""
    first = plain.back_up(Mode.FILES)
    before = shutil.copyfile(plain.catalog, tmp_path / "before.sqlite")
    second = plain.back_up(Mode.FILES, "folder 1", overwrite_tape=True)
    with Catalog.open(plain.catalog) as catalog:
        assert catalog.backup(first.backup).state is State.OVERWRITTEN
        assert catalog.backup("latest").id == second.backup
    # Another catalog has not heard of it; the tape tells.
    words = {"backup": first.backup, "tape": plain.tape, "catalog": before}
    with pytest.raises(WrongCartridge, match=f"backup {second.backup} is where it began"):
        restore(RestoreRequest(**words, folder=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    with (
        Catalog.open(before) as catalog,
        Site(plain.manager, plain.tape) as site,
        pytest.raises(WrongCartridge),
    ):
        verify(catalog, site, catalog.backup(first.backup))
    with plain.drive() as tape:
        tape.rewind()
        tape.write_filemarks()
    words = {"backup": second.backup, "tape": plain.tape, "catalog": plain.catalog}
    with pytest.raises(WrongCartridge, match="no archive is where it began"):
        restore(RestoreRequest(**words, folder=tmp_path / "out"))


def test_an_image_of_changes_needs_its_parent_on_the_same_cartridge(plain):
    full = plain.back_up(Mode.IMAGE, array=plain.array)
    with pytest.raises(BackupError, match="would be written over"):
        plain.back_up(Mode.IMAGE, array=plain.array, incremental=full.backup, overwrite_tape=True)
    again = plain.back_up(Mode.IMAGE, array=plain.array, incremental="latest", overwrite_tape=True)
    assert again.parent == ""


def _write_differences(san, before: bytes, after: bytes) -> None:
    """Bring a disk over iSCSI from one content to another, as a host would write it."""
    step = 64 << 10
    with Site(None, san.tape) as site:
        disk = site.disk(san.disk)
        for at in range(0, len(before), step):
            if before[at : at + step] != after[at : at + step]:
                disk.write(at // 512, after[at : at + step])
        disk.flush()
