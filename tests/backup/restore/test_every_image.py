"""Volumes of every kind and geometry to tape and back: every stream is what it was.

As an image onto the same disk, wiped, and onto a larger one; as files into a volume of other
clusters. The oracle is what NTFS-3G reads of the source, and where it wrote that, the manifest.
"""

import os

import pytest

from serverfree.backup.catalog.facts import Mode
from serverfree.backup.restore.job import Request, restore
from support import backups, ntfs_images
from support.ntfs_images import MIB
from support.restoring import read_back

pytestmark = [
    pytest.mark.peer,
    pytest.mark.served,
    pytest.mark.skipif(os.geteuid() != 0, reason="FUSE mounts take root"),
]

# Kind, MiB (0: its own), cluster, sector.
IMAGES = [
    pytest.param("plain", 64, 4096, 4096, id="4Kn"),
    *(
        pytest.param(kind, size, cluster, sector, id=name, marks=pytest.mark.long)
        for name, kind, size, cluster, sector in (
            ("2 MiB clusters", "plain", 512, 2 * MIB, 512),
            ("2 MiB clusters, 4Kn", "plain", 512, 2 * MIB, 4096),
            ("64 KiB clusters", "plain", 128, 64 << 10, 512),
            ("512-byte clusters", "plain", 64, 512, 512),
            ("rich", "rich", 0, 4096, 512),
            ("fragmented $MFT", "fragmented_mft", 0, 4096, 512),
            ("fragmented", "fragmented", 0, 4096, 512),
            ("valid data length", "vdl", 0, 4096, 512),
            ("compressed", "compressed", 0, 4096, 512),
        )
    ),
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "size", "cluster", "sector"), IMAGES)
def test_every_stream_comes_back(ntfs_images, tmp_path, kind, size, cluster, sector):
    image = ntfs_images.get(kind, size * MIB, cluster, sector)
    length = image.path.stat().st_size
    wanted = read_back(image.path, tmp_path / "mount", image.manifest)
    assert wanted
    unread = {path for (path, _), found in wanted.items() if found == "missing"}
    assert unread <= elsewhere(image), "only what a reparse point hides"
    for key, content in image.manifest.streams.items():
        assert wanted[key] in (content.sha256, "missing")
    disk = image.copy(tmp_path / "disk.img")
    with (tmp_path / "larger.img").open("wb") as file:
        file.truncate(length + 16 * MIB)
    other = 8192 if cluster == 4096 else 4096
    make_volume(tmp_path / "volume.img", max(2 * length, 128 * MIB), other, sector)
    options = f"thin,block={sector}"
    disks = tuple(f"{name}={tmp_path / name}.img,{options}" for name in ("larger", "volume"))
    with backups.san(tmp_path, disk, api=False, disks=disks, disk_options=options) as san:
        reports = {mode: san.back_up(mode) for mode in (Mode.IMAGE, Mode.FILES)}
        wipe(disk)
        for name, mode in (("disk", Mode.IMAGE), ("larger", Mode.IMAGE), ("volume", Mode.FILES)):
            report = restore(
                Request(
                    backup=reports[mode].backup,
                    tape=san.tape,
                    mover=san.manager,
                    disk=san.storage[name].url,
                    catalog=san.catalog,
                )
            )
            assert report.skipped == []
            found = read_back(tmp_path / f"{name}.img", tmp_path / "mount", image.manifest)
            assert found == wanted, f"onto {name}"


def make_volume(path, size, cluster, sector):
    ntfs_images.make_volume(path, size, max(cluster, sector), sector)


def elsewhere(image) -> set[str]:
    """The paths that lead elsewhere: the driver shows what they lead to, or nothing."""
    attributes = image.manifest.attributes
    return {path for path in attributes if "ntfs_reparse_data" in attributes[path]}


def wipe(disk) -> None:
    """Fill a disk with what no volume has."""
    with disk.open("r+b") as file:
        for _ in range(0, disk.stat().st_size, MIB):
            file.write(b"\xe5" * MIB)
