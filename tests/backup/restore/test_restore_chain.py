"""An image and its changes, from snapshots, restored as one: the wiped disk, and single files."""

import os
import shutil
from pathlib import Path

import pytest

from serverfree.backup.catalog.facts import Mode
from serverfree.backup.restore.job import Request, restore
from serverfree.backup.site import Site
from support import backups
from support.ntfs_images import MIB, mounted

pytestmark = [
    pytest.mark.peer,
    pytest.mark.served,
    pytest.mark.skipif(os.geteuid() != 0, reason="FUSE mounts take root"),
]


def contents(image: Path, mount: Path) -> dict[str, bytes]:
    """What every file of a volume holds, as ntfs-3g sees it."""
    with mounted(image, mount, "ro") as top:
        return {
            str(path.relative_to(top)): path.read_bytes()
            for path in top.rglob("*")
            if path.is_file()
        }


def write(san: backups.San, data: bytes) -> None:
    """Bring the disk to this content over iSCSI, as a host would."""
    with Site(None, san.tape) as site:
        disk = site.disk(san.disk)
        for at in range(0, len(data), MIB):
            if disk.read(at // 512, MIB // 512) != data[at : at + MIB]:
                disk.write(at // 512, data[at : at + MIB])
        disk.flush()


@pytest.fixture
def san(tmp_path, ntfs_images, monkeypatch):
    monkeypatch.setenv("SERVERFREE_TOKEN", backups.TOKEN)
    disk = ntfs_images.get("plain").copy(tmp_path / "disk.img")
    with backups.san(tmp_path, disk) as found:
        yield found


def test_a_chain_is_restored_onto_the_wiped_disk(san, tmp_path):
    image = tmp_path / "disk.img"
    edited = shutil.copyfile(image, tmp_path / "edited.img")
    ids = [san.back_up(Mode.IMAGE, array=san.array).backup]
    states = [contents(edited, tmp_path / "mount")]
    for number in range(2):
        with mounted(edited, tmp_path / "mount") as top:
            (top / f"new {number}.bin").write_bytes(os.urandom(700_000))
            (top / "folder 1/inside/300000 bytes.bin").write_bytes(os.urandom(300_000))
            (top / f"folder {number}/inside/100001 bytes.bin").unlink()
        write(san, edited.read_bytes())
        report = san.back_up(Mode.IMAGE, array=san.array, incremental="latest")
        assert report.parent == ids[-1]
        ids.append(report.backup)
        states.append(contents(edited, tmp_path / "mount"))
    for backup, state in reversed(list(zip(ids, states, strict=True))):
        write(san, b"\xe5" * image.stat().st_size)
        request = Request(
            backup=backup, tape=san.tape, mover=san.manager, disk=san.disk, catalog=san.catalog
        )
        report = restore(request)
        assert report.server_bytes == 0
        # Each place comes once, from the backup that has it last.
        assert report.moved_bytes == report.content_bytes
        assert contents(image, tmp_path / "mount") == state
    folder = tmp_path / "out"
    restore(Request(backup=ids[-1], tape=san.tape, folder=folder, catalog=san.catalog))
    for path, content in states[-1].items():
        assert (folder / path).read_bytes() == content
