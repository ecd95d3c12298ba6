"""Files into NTFS volumes, judged by ntfs-3g: the target an image file, the mover a plain copy."""

import hashlib
import os
import random
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from serverfree.backup.device import FileDevice
from serverfree.backup.ntfs.volume import Volume
from serverfree.backup.restore import workshop
from serverfree.backup.restore.archive_bytes import ArchiveBytes
from serverfree.backup.restore.into_volume import Wishes, restore_files
from serverfree.backup.restore.making import grow_volume, make_volume
from serverfree.backup.restore.report import RestoreReport
from serverfree.backup.restore.wanted import RestoreError
from serverfree.backup.restore.wanted_files import under
from support import ntfs_images
from support.ntfs_images import ATTRIBUTES, MIB, mounted
from support.peers import require
from support.restoring import ImageArchive, ImageTarget, PlainMover, read_back, wanted_of

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(os.geteuid() != 0, reason="FUSE mounts take root"),
]

COMPRESSED = 0x0800


class Bench:
    """A source image, a target volume, and what a restore from one to the other does."""

    def __init__(self, folder: Path, source, target: Path, block: int = 512) -> None:
        self.folder, self.source, self.path, self.block = folder, source, target, block
        self.report = RestoreReport()
        self.written: list[tuple[int, int]] = []

    def restore(self, *, into="", only=None, fail_after=None, start=0, **wishes) -> None:
        archive = ImageArchive(self.source.path)
        wanted = [
            file
            for file in wanted_of(Volume.open(archive.device))
            if only is None or any(path in only for path in file.paths)
        ]
        under(into, wanted)
        with ImageTarget(self.path, self.block) as target:
            target.fail_after = fail_after
            self.written = target.written
            mover = PlainMover(archive, target)
            bytes_of = ArchiveBytes(archive, archive.size)
            wish = Wishes(**wishes)
            restore_files(target, start, wanted, bytes_of, mover, self.report, wish)

    def check(self) -> None:
        """Hold the target against the manifest of the source, as ntfs-3g sees both."""
        manifest = self.source.manifest
        mount = self.folder / "mount"
        there = read_back(self.source.path, mount, manifest)
        found = read_back(self.path, mount, manifest)
        # What even the driver cannot read of the source, as behind a reparse point, is no judge.
        readable = [key for key, value in there.items() if value != "missing"]
        assert {key: found[key] for key in readable} == {key: there[key] for key in readable}
        with mounted(self.path, mount, "ro", "permissions") as top:
            paths = {
                str((Path(at) / name).relative_to(top))
                for at, folders, files in os.walk(top)
                for name in folders + files
            }
            assert paths == manifest.files | manifest.directories
            for path, wanted in manifest.attributes.items():
                assert attributes(top / path) == comparable(wanted)
            for other, first in manifest.links.items():
                assert (top / other).samefile(top / first)
        self.fix()

    def fix(self) -> None:
        require("ntfsfix")
        done = subprocess.run(["ntfsfix", "-n", self.path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        assert "processed successfully" in done.stdout
        assert not Volume.open(FileDevice(str(self.path))).damage


def consistent(image: Path) -> bool:
    """Tell whether the first records of the $MFT are those of its mirror."""
    raw = image.read_bytes()
    boot = Volume.open(FileDevice(str(image))).boot
    records = [
        raw[first * boot.cluster_size :][: 4 * boot.record_size]
        for first in (boot.mft, boot.mirror)
    ]
    return records[0] == records[1]


def attributes(path: Path) -> dict[str, bytes]:
    found = {name: ntfs_images.get_attribute(path, name) for name in ATTRIBUTES}
    return comparable({name: value for name, value in found.items() if value is not None})


def comparable(found: dict[str, bytes]) -> dict[str, bytes]:
    """What a restore keeps: not that a file is compressed; of an object id what names the file."""
    found = dict(found)
    flags = int.from_bytes(found["ntfs_attrib"], "little")
    found["ntfs_attrib"] = (flags & ~COMPRESSED).to_bytes(4, "little")
    if "ntfs_object_id" in found:
        found["ntfs_object_id"] = found["ntfs_object_id"][:16]
    return found


@pytest.fixture
def bench(tmp_path, ntfs_images):
    """Make a Bench: the kind of the source, and the size and clusters of an empty target."""

    def make(kind: str, size: int, cluster: int, block: int = 512) -> Bench:
        target = tmp_path / "target.img"
        make_empty(target, size, cluster, block)
        return Bench(tmp_path, ntfs_images.get(kind), target, block)

    return make


def make_empty(path: Path, size: int, cluster: int, block: int = 512) -> None:
    """An empty volume over old bytes, so that what is not written shows."""
    ntfs_images.make_volume(path, size, cluster, block)
    clean = path.read_bytes()
    with path.open("r+b") as file:
        volume = Volume.open(FileDevice(str(path)))
        at = 0
        for place, length in volume.used():
            file.seek(at)
            file.write(b"\xe5" * (place - at))
            at = place + length
        file.seek(0)
        assert file.read(512) == clean[:512]


@pytest.mark.parametrize(
    ("kind", "size", "cluster", "block"),
    [
        pytest.param("rich", 256 * MIB, 8192, 512, marks=pytest.mark.long),
        ("rich", 64 * MIB, 512, 512),
        ("rich", 96 * MIB, 4096, 4096),
        ("plain", 64 * MIB, 65536, 512),
        ("vdl", 64 * MIB, 8192, 512),
        ("compressed", 64 * MIB, 4096, 512),
        pytest.param("fragmented", 96 * MIB, 8192, 512, marks=pytest.mark.long),
    ],
)
def test_everything_comes_back(bench, kind, size, cluster, block):
    restore = bench(kind, size, cluster, block)
    restore.restore(prove=True)
    assert restore.report.skipped == []
    restore.check()


def test_content_goes_through_the_server_only_where_it_must(bench):
    restore = bench("plain", 64 * MIB, 4096)
    restore.restore()
    assert set(restore.report.server_reasons) == {"resident"}
    assert restore.report.server_bytes < restore.report.content_bytes // 1000


def test_what_was_on_the_volume_stays(tmp_path, ntfs_images):
    # Clusters smaller than what is compared and written at a time, all around the new ones.
    source = ntfs_images.get("plain")
    target = source.copy(tmp_path / "target.img")
    small = tmp_path / "small.img"
    ntfs_images_plain = ntfs_images.get("plain", 0, 512)
    target = ntfs_images_plain.copy(small)
    restore = Bench(tmp_path, source, target)
    restore.restore(into="restored/here")
    manifest = ntfs_images_plain.manifest
    found = read_back(target, tmp_path / "mount", manifest)
    assert found == {key: content.sha256 for key, content in manifest.streams.items()}
    with mounted(target, tmp_path / "mount", "ro") as top:
        for (path, stream), content in source.manifest.streams.items():
            if not stream:
                data = (top / "restored/here" / path).read_bytes()
                assert hashlib.sha256(data).hexdigest() == content.sha256
    restore.fix()


def test_into_a_partition_nothing_is_written_beside_it(tmp_path, ntfs_images):
    volume, disk = tmp_path / "volume.img", tmp_path / "disk.img"
    make_empty(volume, 48 * MIB, 4096)
    beside = random.Random(2).randbytes(MIB)
    disk.write_bytes(beside + volume.read_bytes() + beside)
    restore = Bench(tmp_path, ntfs_images.get("plain"), disk)
    restore.restore(start=MIB, prove=True)
    assert all(at >= MIB and at + length <= 49 * MIB for at, length in restore.written)
    raw = disk.read_bytes()
    assert raw[:MIB] == raw[49 * MIB :] == beside
    restore.path = tmp_path / "restored.img"
    restore.path.write_bytes(raw[MIB : 49 * MIB])
    restore.check()


def test_files_that_are_there_are_refused_or_replaced(tmp_path, ntfs_images):
    source = ntfs_images.get("plain")
    target = source.copy(tmp_path / "target.img")
    with mounted(target, tmp_path / "mount") as top:
        (top / "folder 1/inside/300000 bytes.bin").write_bytes(b"changed")
        (top / "read me.txt").write_bytes(b"changed too")
    before = target.read_bytes()
    restore = Bench(tmp_path, source, target)
    with pytest.raises(RestoreError, match=r"already on the volume.*--overwrite"):
        restore.restore()
    assert target.read_bytes() == before
    restore.restore(overwrite=True)
    restore.check()


def test_a_volume_of_crumbs_takes_a_large_file(tmp_path, ntfs_images):
    source = ntfs_images.get("plain")
    crumbs = ntfs_images.get("fragmented")
    target = crumbs.copy(tmp_path / "target.img")
    with mounted(target, tmp_path / "mount") as top:
        (top / "in thousands of runs").unlink()
    restore = Bench(tmp_path, source, target)
    name = "folder 1/inside/300000 bytes.bin"
    restore.restore(only={name})
    volume = Volume.open(FileDevice(str(target)))
    file = next(file for file in volume.files() if name in file.paths)
    assert len(file.streams[0].extents) > 10
    found = read_back(target, tmp_path / "mount", source.manifest)
    assert found[name, ""] == source.manifest.streams[name, ""].sha256
    restore.fix()


def test_names_with_a_colon_are_restored_as_names(tmp_path):
    """Of a file, of a folder with all in it, and beside a stream that looks the same."""
    source, target = tmp_path / "source.img", tmp_path / "target.img"
    for path in (source, target):
        ntfs_images.make_volume(path, 32 * MIB)
    big = random.Random(5).randbytes(300_000)
    plain = ("streams_interface=none",)
    with mounted(source, tmp_path / "mount", *plain) as top:
        (top / "a:b").write_bytes(big)
        (top / "c:").mkdir()
        (top / "c:" / "d: e").mkdir()
        (top / "c:" / "d: e" / "deep").write_bytes(b"small")
        (top / "c:" / "d: e" / ":x").write_bytes(big[:5000])
        (top / "link").hardlink_to(top / "a:b")
        (top / "file").write_bytes(b"a file")
    with mounted(source, tmp_path / "mount") as top:
        Path(f"{top}/file:stream").write_bytes(b"a stream")
    restore = Bench(tmp_path, SimpleNamespace(path=source), target)
    restore.restore()
    assert (restore.report.skipped, restore.report.warnings) == ([], [])
    with mounted(target, tmp_path / "mount", "ro", *plain) as top:
        names = sorted(str(each.relative_to(top)) for each in top.rglob("*"))
        assert names == ["a:b", "c:", "c:/d: e", "c:/d: e/:x", "c:/d: e/deep", "file", "link"]
        assert (top / "a:b").read_bytes() == big
        assert (top / "link").samefile(top / "a:b")
        assert (top / "c:" / "d: e" / ":x").read_bytes() == big[:5000]
        assert (top / "c:" / "d: e" / "deep").read_bytes() == b"small"
    with mounted(target, tmp_path / "mount", "ro") as top:
        assert Path(f"{top}/file:stream").read_bytes() == b"a stream"
    restore.fix()
    was, now = (
        {
            path: (file.attributes["ntfs_times"], file.modified)
            for file in Volume.open(FileDevice(str(image))).files()
            for path in file.paths
        }
        for image in (source, target)
    )
    assert now == was
    before = target.read_bytes()
    with pytest.raises(RestoreError, match=r"already on the volume: 'a:b'.*--into"):
        restore.restore(overwrite=True, only={"a:b"})
    assert target.read_bytes() == before
    restore.restore(into="new: one", only={"a:b", "link"})
    with mounted(target, tmp_path / "mount", "ro", *plain) as top:
        assert (top / "new: one" / "a:b").read_bytes() == big


def test_without_room_nothing_is_written(bench):
    restore = bench("plain", 4 * MIB, 4096)
    before = restore.path.read_bytes()
    with pytest.raises(RestoreError, match=r"bytes free|no space"):
        restore.restore()
    assert restore.path.read_bytes() == before


def test_killed_before_the_metadata_the_volume_is_as_it_was(tmp_path, ntfs_images):
    target = ntfs_images.get("plain", 0, 512).copy(tmp_path / "target.img")
    before = target.read_bytes()
    volume = Volume.open(FileDevice(str(target)))
    restore = Bench(tmp_path, ntfs_images.get("plain"), target)

    def step(what: str) -> None:
        if what == "finishing metadata":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore.restore(into="new", step=step)
    after = target.read_bytes()
    assert after != before  # content had come
    for place, length in volume.used():
        assert after[place : place + length] == before[place : place + length]
    assert not Path("/proc/mounts").read_text().count(str(tmp_path))


def test_a_crash_between_any_two_writes_loses_no_file_that_was_there(tmp_path, ntfs_images):
    source = ntfs_images.get("plain")
    whole = source.copy(tmp_path / "whole.img")
    only = {f"folder {n}/inside/4097 bytes.bin" for n in range(6)}
    Bench(tmp_path, source, whole).restore(into="new", only=only)
    old = {key: content.sha256 for key, content in source.manifest.streams.items()}
    count = 0
    marked = 0
    while True:
        target = source.copy(tmp_path / "target.img")
        try:
            Bench(tmp_path, source, target).restore(into="new", only=only, fail_after=count)
        except OSError:
            dirty = Volume.open(FileDevice(str(target))).facts.dirty
            marked += dirty
            # The mark, or a mirror of it that is not the same yet, asks for a check.
            if dirty or not consistent(target):
                subprocess.run(["ntfsfix", target], capture_output=True, check=True)
            found = read_back(target, tmp_path / "mount", source.manifest)
            assert found == old
        else:
            break
        count += 1
    assert count > 4
    assert 0 < marked < count


def test_a_volume_marked_dirty_is_refused(bench):
    restore = bench("plain", 64 * MIB, 4096)
    raw = bytearray(restore.path.read_bytes())
    volume = Volume.open(FileDevice(str(restore.path)))
    for first in (volume.boot.mft, volume.boot.mirror):
        place = first * volume.boot.cluster_size + 3 * volume.boot.record_size
        flags = raw.index(b"\x03\x01\x00\x00", place) + 2
        raw[flags] |= 1
    restore.path.write_bytes(raw)
    with pytest.raises(RestoreError, match=r"marked dirty.*--force"):
        restore.restore()
    restore.restore(force=True)
    assert restore.report.files


def test_a_volume_that_windows_sleeps_on_is_refused(bench):
    restore = bench("plain", 64 * MIB, 4096)
    with mounted(restore.path, restore.folder / "mount") as top:
        (top / "hiberfil.sys").write_bytes(b"HIBR" + bytes(10_000))
    before = restore.path.read_bytes()
    with pytest.raises(RestoreError, match="hibernated"):
        restore.restore()
    assert restore.path.read_bytes() == before


def test_what_was_compressed_is_told(bench):
    restore = bench("compressed", 64 * MIB, 4096)
    restore.restore()
    assert any("were compressed" in warning for warning in restore.report.warnings)
    assert restore.report.server_reasons["compressed"] > 2_000_000


def test_a_missing_program_is_named_with_its_package(bench, monkeypatch):
    restore = bench("plain", 64 * MIB, 4096)
    monkeypatch.setattr(workshop, "_SEARCHED", "")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RestoreError, match=r"ntfs-3g is missing .* package ntfs-3g"):
        restore.restore()


def test_a_volume_can_be_made_and_made_larger(tmp_path):
    require("mkntfs", "ntfsresize")
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.write(random.Random(1).randbytes(48 * MIB))
    with ImageTarget(path) as target:
        make_volume(target, "made")
    with mounted(path, tmp_path / "mount") as top:
        (top / "file").write_bytes(b"kept" * 1000)
    os.truncate(path, 80 * MIB)
    with ImageTarget(path) as target:
        grow_volume(target)
    assert Volume.open(FileDevice(str(path))).facts.size > 79 * MIB
    with mounted(path, tmp_path / "mount", "ro") as top:
        assert (top / "file").read_bytes() == b"kept" * 1000
    done = subprocess.run(["ntfsfix", "-n", path], capture_output=True, text=True, check=True)
    assert "alternate boot sector... OK" in done.stdout
