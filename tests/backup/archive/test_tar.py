"""GNU tar is the judge: it reads what we write, and we read what it writes."""

import hashlib
import os
import subprocess
import tarfile
from math import lcm
from pathlib import Path

import pytest

from serverfree.backup.archive.files import FileMembers, in_tape_order
from serverfree.backup.archive.image import disk_extents, put_image
from serverfree.backup.archive.member import Kind, Member
from serverfree.backup.archive.read import ArchiveReader
from serverfree.backup.archive.writer import ArchiveWriter, Content
from serverfree.backup.device import FileDevice
from serverfree.backup.files import Extent, File, Stream
from serverfree.backup.ntfs.volume import Volume
from serverfree.backup.pieces import FromDisk, Inline
from support.archives import archive_of, members_of, put_together, true_content
from support.ntfs_images import Images, Manifest, _observe, make_volume, mounted
from support.peers import require

pytestmark = pytest.mark.peer

DISK = hashlib.shake_128(b"volume").digest(1 << 20)
WHEN = 1_700_000_000_123_456_700
ONTO_NTFS = ("--xattrs", "--xattrs-include=*", "-m", "--no-same-owner", "--no-same-permissions")
"""How an archive is unpacked onto ntfs-3g: its streams have no times of their own (-m)."""


def tar(*arguments: object, **more) -> str:
    require("tar")
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    done = subprocess.run(
        ["tar", *map(str, arguments)], env=environment, capture_output=True, timeout=60, **more
    )
    said = done.stderr.decode("utf-8", "replace")
    assert (done.returncode, said) == (0, ""), said
    return done.stdout.decode("utf-8", "replace")


def write_archive(path: Path, writer: ArchiveWriter, members, device: FileDevice) -> None:
    with path.open("wb") as file:

        def put(pieces) -> None:
            for piece in pieces:
                if isinstance(piece, FromDisk):
                    file.write(device.read_at(piece.offset, piece.length))
                else:
                    file.write(piece.data)

        put(writer.begin({"id": "test"}))
        for _, pieces in members:
            put(pieces)
        put(writer.end())
    assert path.stat().st_size == writer.offset


def test_it_lists_unpacks_and_compares_what_we_write(tmp_path):
    long = "/".join(["a folder of a name " * 5] * 3) + "/Übersicht 概要 🎞 \n of a file"
    streams = {
        "plain": Stream("", 9000, 9000, extents=(Extent(0, 12288, 4096),)),
        long: Stream("", 100, 100, resident=b"r" * 100),
        "holes": Stream(
            "", 1 << 20, 300_001, extents=(Extent(8192, 4096, 0), Extent(262144, 65536, 65536))
        ),
        "only a hole": Stream("", 123_457, 0),
        "not all valid": Stream("", 10_000, 5001, extents=(Extent(0, 12288, 20480),)),
        "empty": Stream("", 0, 0, resident=b""),
    }
    files = [
        File(number, 1, False, (path, f"links/{number}"), WHEN + number, (stream,))
        for number, (path, stream) in enumerate(streams.items(), 30)
    ]
    files.append(File(5, 5, True, ("",), WHEN))
    files.append(File(6, 1, True, ("links",), WHEN + 10**10))
    archive, members, _ = archive_of(files, DISK, catalog=b"the catalog")
    path, place = tmp_path / "a.tar", tmp_path / "there"
    path.write_bytes(archive)
    place.mkdir()
    names = tar("-tf", path, "--quoting-style=literal").splitlines()
    assert len(names) == len(members) + 1  # one has a name of two lines
    tar("-C", place, "-xSf", path)
    tar("-C", place, "--compare", "-f", path)
    for number, (name, stream) in enumerate(streams.items(), 30):
        unpacked = place / name
        assert unpacked.read_bytes() == true_content(stream, DISK)
        assert unpacked.stat().st_mtime_ns == WHEN + number
        assert (place / f"links/{number}").samefile(unpacked)
    assert (place / "holes").stat().st_blocks * 512 < 200_000
    assert (place / "only a hole").stat().st_blocks == 0
    assert (place / "links").stat().st_mtime_ns == WHEN + 10**10
    assert (place / ".serverfree/catalog-test.sqlite.zst").read_bytes() == b"the catalog"


def test_a_member_beyond_8_gib_and_what_follows_it(tmp_path):
    size = 9 << 30
    writer = ArchiveWriter()
    image, pieces = put_image(writer, "disk", [(0, 512), (1 << 20, size)], size * 2, 512, WHEN)
    path = tmp_path / "big.tar"
    with path.open("wb") as file:
        for piece in pieces:
            if isinstance(piece, Inline):
                file.write(piece.data)
            else:
                file.seek(piece.length, 1)
        after = File(9, 1, False, ("after",), 0, (Stream("", 1, 1, resident=b"!"),))
        for _, more in FileMembers(writer, 0, lambda file, stream: iter(())).members([after]):
            file.write(put_together(more, b""))
        file.write(put_together(writer.end(), b""))
    listed = tar("-tvf", path)
    assert f"{size * 2} 2023-11-14 22:13 disk.img" in listed
    assert "1 1970-01-01 00:00 after" in listed
    with path.open("rb") as file:
        reader = ArchiveReader(lambda at, length: os.pread(file.fileno(), length, at))
        assert [member.path for member in reader.members()] == ["disk.img", "after"]
    assert image.data[1].length == size


FORMATS = [
    ("--format=v7",),
    ("--format=ustar",),
    ("--format=gnu",),
    ("--format=oldgnu",),
    ("--format=posix",),
    ("--format=gnu", "-S"),
    ("--format=posix", "-S", "--sparse-version=0.0"),
    ("--format=posix", "-S", "--sparse-version=0.1"),
    ("--format=posix", "-S", "--sparse-version=1.0"),
]


@pytest.mark.parametrize("options", FORMATS, ids=" ".join)
def test_we_read_what_it_writes(tmp_path, options):
    place = tmp_path / "here"
    (place / "folder").mkdir(parents=True)
    contents = {"folder/file": DISK[:10_000], "empty": b"", "folder/Ü": b"x" * 512}
    if "--format=v7" not in options:
        contents["folder/" + "n" * 90] = b"ustar has a prefix for this"
    if not {"--format=v7", "--format=ustar"} & set(options):
        contents["folder/" + "m" * 200] = b"and these two have more"
    sparse = bytearray(4 << 20)
    for number in range(60):  # more than fit into GNU tar's first header, and its first extension
        sparse[number * 65536 : number * 65536 + 4096] = DISK[number * 4096 :][:4096]
    contents["folder/sparse"] = bytes(sparse)
    for name, content in contents.items():
        with (place / name).open("wb") as file:
            file.truncate(len(content))
            for at in range(0, len(content), 4096):
                if content[at : at + 4096].strip(b"\0"):
                    os.pwrite(file.fileno(), content[at : at + 4096], at)
        os.utime(place / name, ns=(0, 10**18 + 5))
    (place / "hard").hardlink_to(place / "folder/file")
    (place / "soft").symlink_to("../up")
    path = tmp_path / "a.tar"
    tar("-C", place, *options, "--sort=name", "-cf", path, ".")
    archive = path.read_bytes()
    found = {member.path: member for member in members_of(archive)}
    assert set(found) == {*contents, "", "folder", "soft", "hard"}
    for name, content in contents.items():
        member = found[name]
        unpacked = bytearray(member.size)
        for data in member.data:
            part = archive[data.archive_offset :][: data.length]
            unpacked[data.start : data.start + data.length] = part
        assert unpacked == content
        assert member.modified == 10**18 + (5 if "--format=posix" in options else 0)
    assert (found["hard"].kind, found["hard"].link_target) == (Kind.HARD_LINK, "folder/file")
    assert (found["soft"].kind, found["soft"].link_target) == (Kind.SYMBOLIC_LINK, "../up")
    if "-S" in options:
        assert sum(data.length for data in found["folder/sparse"].data) < 60 * 4096 + 4096


@pytest.mark.parametrize("kind", ["rich", "vdl", "compressed"])
def test_a_volume_comes_back_onto_ntfs_from_tar_alone(ntfs_images: Images, tmp_path, kind):
    image = ntfs_images.get(kind)
    path, there, mount = tmp_path / "a.tar", tmp_path / "there.img", tmp_path / "mount"
    with FileDevice(str(image.path)) as device:
        volume = Volume.open(device)
        writer = ArchiveWriter()
        made = FileMembers(writer, 0, volume.read_stream)
        write_archive(path, writer, made.members(in_tape_order(volume.files())), device)
    assert not made.skipped
    make_volume(there, max(image.path.stat().st_size, 64 << 20))
    with mounted(there, mount) as top:
        tar("-C", top, *ONTO_NTFS, "-xf", path)
    seen = Manifest()
    with mounted(there, mount, "ro", "permissions") as top:
        _observe(top, seen)
        for (name, stream), expected in image.manifest.streams.items():
            with open(f"{top}/{name}:{stream}" if stream else top / name, "rb") as file:  # noqa: PTH123
                assert hashlib.file_digest(file, "sha256").hexdigest() == expected.sha256, name
        for link, name in image.manifest.links.items():
            assert (top / link).samefile(top / name)
    assert seen.files == image.manifest.files
    assert seen.directories == image.manifest.directories
    for name, attributes in image.manifest.attributes.items():
        for attribute in ("ntfs_acl", "ntfs_ea", "ntfs_dos_name"):
            assert seen.attributes[name].get(attribute) == attributes.get(attribute), name
        # Creation, modification and access; the fourth time is that of the unpacking.
        assert seen.attributes[name]["ntfs_times"][:24] == attributes["ntfs_times"][:24], name
    if kind == "rich":
        reparse = image.manifest.attributes["junction"]["ntfs_reparse_data"]
        assert seen.attributes["junction"]["ntfs_reparse_data"] == reparse
        # GNU tar cannot set a file's reparse point and then write its content: it is in our note.
        with path.open("rb") as file:
            reader = ArchiveReader(lambda at, length: os.pread(file.fileno(), length, at))
            kept = {member.path: member.attributes for member in reader.members()}
        ours = kept["third party.bin"]["ntfs_reparse_data"]
        assert ours == image.manifest.attributes["third party.bin"]["ntfs_reparse_data"]


def test_an_image_comes_back_sparse_and_clean(ntfs_images: Images, tmp_path):
    require("ntfsfix")
    image = ntfs_images.get("plain")
    path = tmp_path / "a.tar"
    with FileDevice(str(image.path)) as device:
        volume = Volume.open(device)
        extents = disk_extents([(volume.facts, volume.used())], device.size)
        writer = ArchiveWriter()
        write_archive(
            path, writer, [put_image(writer, "disk", extents, device.size, 512, WHEN)], device
        )
    tar("-C", tmp_path, "-xSf", path)
    restored = tmp_path / "disk.img"
    assert restored.stat().st_size == image.path.stat().st_size
    assert restored.stat().st_blocks * 512 < sum(length for _, length in extents) + (1 << 20)
    subprocess.run(["ntfsfix", "-n", str(restored)], check=True, capture_output=True)
    with mounted(restored, tmp_path / "mount", "ro") as top:
        for (name, stream), expected in image.manifest.streams.items():
            with open(f"{top}/{name}:{stream}" if stream else top / name, "rb") as file:  # noqa: PTH123
                assert hashlib.file_digest(file, "sha256").hexdigest() == expected.sha256, name


@pytest.mark.parametrize("grain", [1024, 4096, 5000, 256 << 10, 2 << 20])
@pytest.mark.parametrize("program", ["tar", "bsdtar"])
def test_what_fills_a_tape_block_is_passed_over_by_every_tar(tmp_path, grain, program):
    require(program)
    path = tmp_path / "a.tar"
    for size in (0, 700, grain - 5 * 512, grain - 4 * 512, grain - 3 * 512):
        writer = ArchiveWriter()
        pieces = [*writer.begin({"id": "test"})]
        first = Member("first", Kind.FILE, max(size, 0), WHEN)
        pieces += writer.put(first, [Content(0, Inline(b"1" * max(size, 0)))])
        filler = writer.fill(grain)
        assert writer.offset % grain == 0
        assert sum(piece.length for piece in filler) < 2 * lcm(grain, 512)
        pieces += [
            *filler,
            *writer.put(Member("last", Kind.FILE, 1, WHEN), [Content(0, Inline(b"2"))]),
        ]
        archive = put_together([*pieces, *writer.end()], DISK)
        path.write_bytes(archive)
        done = subprocess.run([program, "-tvf", path], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert [line.split()[-1] for line in done.stdout.splitlines()] == ["first", "last"]
        assert [member.path for member in members_of(archive)] == ["first", "last"]
        with tarfile.open(path) as found:
            assert found.getnames() == ["first", "last"]


def test_a_map_longer_than_a_block_of_many_regions(tmp_path):
    writer = ArchiveWriter()
    member = Member("many", Kind.FILE, 1 << 20, WHEN)
    content = [Content(at, FromDisk(at, 512)) for at in range(0, 1 << 20, 2048)]
    archive = put_together([*writer.put(member, content), *writer.end()], DISK)
    path = tmp_path / "a.tar"
    path.write_bytes(archive)
    tar("-C", tmp_path, "-xf", path)
    expected = b"".join(DISK[at : at + 512] + bytes(1536) for at in range(0, 1 << 20, 2048))
    assert (tmp_path / "many").read_bytes() == expected
