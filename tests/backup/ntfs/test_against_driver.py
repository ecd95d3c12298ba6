"""Volumes that mkntfs and ntfs-3g made: what we read of them is what was written."""

import hashlib
import itertools
from pathlib import Path

import pytest

from serverfree.backup.device import FileDevice, Part
from serverfree.backup.files import File
from serverfree.backup.ntfs import Volume
from support.ntfs_images import POISON, Image, Images

pytestmark = pytest.mark.peer

CASES = {
    "plain": ("plain", 4096, 512),
    "rich": ("rich", 4096, 512),
    "a file of thousands of runs": ("fragmented", 4096, 512),
    "a fragmented $MFT": ("fragmented_mft", 4096, 512),
    "valid data length": ("vdl", 4096, 512),
    "compressed": ("compressed", 4096, 512),
    "clusters of 512 bytes": ("rich", 512, 512),
    "clusters of 64 KiB": ("rich", 65_536, 512),
    "clusters of 2 MiB": ("plain", 2 << 20, 512),
    "valid data length in clusters of 64 KiB": ("vdl", 65_536, 512),
    "sectors of 4096 bytes": ("rich", 4096, 4096),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def image(request: pytest.FixtureRequest, ntfs_images: Images) -> Image:
    kind, cluster, sector = request.param
    size = (512 << 20) if cluster == 2 << 20 else 0
    return ntfs_images.get(kind, size, cluster, sector)


def read(image: Image) -> tuple[Volume, list[File]]:
    volume = Volume.open(FileDevice(str(image.path)))
    files = list(volume.files())
    assert volume.damage == []
    return volume, files


def test_every_stream_of_every_volume_is_what_was_written(image: Image) -> None:
    volume, files = read(image)
    found = {}
    for file in files:
        for stream in file.streams:
            digest, size = hashlib.sha256(), 0
            for piece in volume.read_stream(file, stream):
                digest.update(piece)
                size += len(piece)
            for path in file.paths:
                found[path, stream.name] = digest.hexdigest(), size
    manifest = image.manifest
    wanted = {key: (content.sha256, content.size) for key, content in manifest.streams.items()}
    for new, path in manifest.links.items():
        for (of, stream), content in list(wanted.items()):
            if of == path:
                wanted[new, stream] = content
    for path, target in manifest.symlinks.items():
        content = b"IntxLNK\x01" + target.encode("utf-16-le")
        wanted[path, ""] = hashlib.sha256(content).hexdigest(), len(content)
    assert found == wanted


def test_every_path_and_attribute_is_what_the_driver_shows(image: Image) -> None:
    _, files = read(image)
    manifest = image.manifest
    for directories, paths in ((False, manifest.files), (True, manifest.directories)):
        chosen = [file for file in files if file.is_directory is directories]
        assert sorted(path for file in chosen for path in file.paths) == sorted(paths)
    for file in files:
        for path in file.paths:
            assert file.attributes == manifest.attributes[path], path


def test_what_a_file_says_of_blocks_is_enough_to_read_it(image: Image) -> None:
    """As the planner does: extents clipped at what is valid, from the raw image."""
    device = FileDevice(str(image.path))
    _, files = read(image)
    for file in files:
        for stream in file.streams:
            if stream.resident is not None or not stream.readable or stream.size > 64 << 20:
                continue
            content = bytearray(stream.size)
            for extent in stream.data():
                data = device.read_at(extent.place, extent.length)
                content[extent.start : extent.start + extent.length] = data
            wanted = image.manifest.streams.get((file.path, stream.name))
            if wanted:
                assert hashlib.sha256(content).hexdigest() == wanted.sha256, file.path


def test_all_that_files_and_the_file_system_lie_in_is_used_and_nothing_twice(image: Image) -> None:
    volume, files = read(image)
    used = volume.used()
    assert all(a + length < b for (a, length), (b, _) in itertools.pairwise(used))
    metadata = volume.metadata()
    data = [
        (extent.place, extent.length)
        for file in files
        for stream in file.streams
        for extent in stream.extents
    ]
    together = sorted(metadata + data)
    for (place, length), (after, _) in itertools.pairwise(together):
        assert place + length <= after
    # Every cluster in use is someone's, each just once.
    merged: list[tuple[int, int]] = []
    for place, length in together:
        if merged and sum(merged[-1]) == place:
            merged[-1] = merged[-1][0], merged[-1][1] + length
        else:
            merged.append((place, length))
    assert merged == used
    assert used[-1][0] + used[-1][1] == volume.facts.size == image.path.stat().st_size


def test_volume_facts(ntfs_images: Images) -> None:
    image = ntfs_images.get("rich", 0, 65_536, 512)
    facts = Volume.open(FileDevice(str(image.path))).facts
    assert (facts.file_system, facts.start, facts.size) == ("ntfs", 0, 256 << 20)
    assert (facts.sector_size, facts.cluster_size) == (512, 65_536)
    assert (facts.label, facts.dirty) == ("serverfree test", False)


def test_a_volume_that_begins_in_the_middle_of_its_disk(
    ntfs_images: Images, tmp_path: Path
) -> None:
    image = ntfs_images.get("plain")
    disk = tmp_path / "disk.img"
    with disk.open("wb") as file:
        file.seek(1 << 20)
        file.write(image.path.read_bytes())
        file.truncate(66 << 20)
    device = FileDevice(str(disk))
    volume = Volume.open(device, 1 << 20)
    there = Volume.open(FileDevice(str(image.path)))
    assert list(volume.files()) == list(there.files())
    assert volume.facts.start == 1 << 20
    assert volume.used() == there.used()
    assert list(Volume.open(Part(device, 1 << 20, 64 << 20)).files()) == list(there.files())


def test_no_stale_byte_is_part_of_any_file(ntfs_images: Images) -> None:
    image = ntfs_images.get("vdl")
    device = FileDevice(str(image.path))
    _, files = read(image)
    clusters = b"".join(
        device.read_at(extent.place, extent.length)
        for file in files
        for stream in file.streams
        for extent in stream.extents
    )
    assert POISON in clusters  # they do lie there: the test would notice
    for file in files:
        for stream in file.streams:
            for extent in stream.data():
                assert POISON not in device.read_at(extent.place, extent.length)


def test_the_mft_of_the_test_is_as_fragmented_as_it_is_to_be(ntfs_images: Images) -> None:
    image = ntfs_images.get("fragmented_mft")
    volume = Volume.open(FileDevice(str(image.path)))
    assert len(volume.table.extents) > 300
    image = ntfs_images.get("fragmented")
    runs = max(
        len(stream.extents)
        for file in Volume.open(FileDevice(str(image.path))).files()
        for stream in file.streams
    )
    assert runs > 2000


def test_a_file_of_which_an_extension_record_is_torn_is_not_read_in_part(
    ntfs_images: Images, tmp_path: Path
) -> None:
    image = ntfs_images.get("rich")
    whole = {file.number: file.path for file in Volume.open(FileDevice(str(image.path))).files()}
    harmed = image.copy(tmp_path / "harmed.img")
    (start,) = (extent.place for extent in Volume.open(FileDevice(str(harmed))).table.extents)
    with harmed.open("r+b") as file:
        data = file.read()
        sixty = next(number for number, path in whole.items() if path == "streams/sixty")
        extension = next(
            number
            for number in range(start, len(data), 1024)
            if int.from_bytes(data[number + 32 : number + 38], "little") == sixty
        )
        file.seek(extension + 1022)
        file.write(b"\xee\xee")
    volume = Volume.open(FileDevice(str(harmed)))
    found = {file.path for file in volume.files()}
    assert set(whole.values()) - found == {"streams/sixty"}
    torn = (extension - start) // 1024
    assert {each.number for each in volume.damage} == {torn, sixty}
