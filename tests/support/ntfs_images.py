"""NTFS volumes for tests, and what lies on them: made with mkntfs, written by the ntfs-3g driver.

`make_image` makes one; the fixture `ntfs_images` (tests/backup/conftest.py) makes each kind once in
a session. The manifest tells what was written, so that no reader of ours is judged by itself.
"""

import contextlib
import ctypes
import errno
import functools
import hashlib
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from support.peers import require

MIB = 1 << 20
_LIBC = ctypes.CDLL(None, use_errno=True)
SEED = 20261122
ATTRIBUTES = (
    "ntfs_acl",
    "ntfs_attrib",
    "ntfs_times",
    "ntfs_reparse_data",
    "ntfs_object_id",
    "ntfs_ea",
    "ntfs_dos_name",
)
POISON = b"STALE-BYTES!"
"""What lay in the clusters of a `vdl` image before its files did: no backup may hold it."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a stream holds."""

    sha256: str
    size: int


@dataclass
class Manifest:
    """What lies on a volume. Paths as the driver shows them from the root, without a slash."""

    streams: dict[tuple[str, str], Content] = field(default_factory=dict)
    """By path and name of the stream; a file with several hard links under the first."""
    links: dict[str, str] = field(default_factory=dict)
    """Further hard links, to the path that was first."""
    symlinks: dict[str, str] = field(default_factory=dict)
    """To their target. They are no streams above; on the volume a system file holds the target."""
    files: set[str] = field(default_factory=set)
    directories: set[str] = field(default_factory=set)
    """Both: every path that a walk of the mounted volume finds, without the root."""
    attributes: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """What the driver shows as extended attributes `system.NAME`, by path and NAME."""


@dataclass(frozen=True)
class Image:
    """A volume of a file. Not to be changed: `copy` it first."""

    path: Path
    manifest: Manifest

    def copy(self, to: Path) -> Path:
        """Copy the image, its holes as holes, to be changed."""
        command = ["cp", "--sparse=always", "--", str(self.path), str(to)]
        subprocess.run(command, check=True, timeout=120)
        return to


@contextlib.contextmanager
def mounted(image: Path, at: Path, *options: str) -> Iterator[Path]:
    """Mount a volume with ntfs-3g for as long as the context lasts, and wait until it is written.

    A colon in a path opens a named stream. Options are ntfs-3g's, such as "ro" or "compression".
    """
    require("ntfs-3g", "fusermount")
    at.mkdir(exist_ok=True)
    words = ",".join(["streams_interface=windows", "noatime", "no_detach", *options])
    command = ["ntfs-3g", str(image), str(at), "-o", words]
    # Not a pipe: the driver may say more than one holds, and would wait for a reader.
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT) as driver,
    ):
        try:
            deadline = time.monotonic() + 30
            while not at.is_mount():
                if driver.poll() is not None or time.monotonic() > deadline:
                    said.seek(0)
                    raise RuntimeError(f"ntfs-3g does not mount {image}: {said.read()[-500:]!r}")
                time.sleep(0.01)
            yield at
        finally:
            if at.is_mount():
                subprocess.run(["fusermount", "-u", str(at)], check=True, timeout=60)
            else:
                driver.terminate()
            # The driver writes what it holds and ends; only then is the image whole.
            driver.wait(timeout=60)


def make_volume(path: Path, size: int, cluster: int = 4096, sector: int = 512) -> None:
    """Make an empty volume with mkntfs."""
    require("mkntfs")
    with path.open("wb") as file:
        file.truncate(size)
    command = ["mkntfs", "-F", "-q", "-Q", "-c", str(cluster), "-s", str(sector)]
    command += ["-p", "0", "-H", "0", "-S", "0", "-L", "serverfree test", str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def make_image(
    path: Path, size: int = 0, cluster: int = 4096, sector: int = 512, kind: str = "plain"
) -> Manifest:
    """Make a volume of that kind, of its own size if none is said, and return what lies on it."""
    maker = KINDS[kind]
    make_volume(path, size or maker.size, cluster, sector)
    writer = _Writer(path)
    mount = path.with_name(f"{path.name}.mount")
    with mounted(path, mount, *maker.options) as top:
        writer.top = top
        maker.write(writer)
    for step in writer.afterwards:
        step()
    with mounted(path, mount, "ro") as top:
        _observe(top, writer.manifest)
    mount.rmdir()
    return writer.manifest


class Images:
    """Volumes of each kind, made when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[tuple[str, int, int, int], Image] = {}

    def get(self, kind: str, size: int = 0, cluster: int = 4096, sector: int = 512) -> Image:
        """Return the volume of that kind. Others use it too: never write to it."""
        key = kind, size, cluster, sector
        if key not in self._made:
            path = self._folder / f"{kind}-{size}-{cluster}-{sector}.img"
            self._made[key] = Image(path, make_image(path, size, cluster, sector, kind))
        return self._made[key]


class _Writer:
    """Writes into a mounted volume and keeps account."""

    def __init__(self, image: Path) -> None:
        self.image = image
        self.top = Path()
        self.manifest = Manifest()
        self.random = random.Random(SEED)
        self.afterwards: list[Callable[[], None]] = []

    def directory(self, path: str) -> str:
        (self.top / path).mkdir(parents=True, exist_ok=True)
        return path

    def file(self, path: str, data: bytes, stream: str = "") -> None:
        """Write a stream whole. A file's own data comes before its other streams."""
        name = f"{self.top}/{path}:{stream}" if stream else f"{self.top}/{path}"
        with open(name, "wb") as file:  # noqa: PTH123 - a path with a colon
            file.write(data)
        self.note(path, data, stream)

    def note(self, path: str, data: bytes, stream: str = "") -> None:
        content = Content(hashlib.sha256(data).hexdigest(), len(data))
        self.manifest.streams[path, stream] = content

    def blob(self, path: str, size: int, stream: str = "") -> None:
        self.file(path, self.random.randbytes(size), stream)

    def link(self, path: str, new: str) -> None:
        (self.top / new).hardlink_to(self.top / path)
        self.manifest.links[new] = path

    def attribute(self, path: str, name: str, value: bytes) -> None:
        os.setxattr(self.top / path, f"system.{name}", value, follow_symlinks=False)


def _observe(top: Path, manifest: Manifest) -> None:
    """Note what the driver shows of a volume that is mounted read-only."""
    for folder, directories, files in os.walk(top):
        for name in directories + files:
            path = Path(folder) / name
            relative = str(path.relative_to(top))
            attributes = manifest.attributes[relative] = _attributes(path)
            # A junction is a directory, though the driver shows it as a symbolic link.
            is_directory = attributes["ntfs_attrib"][0] & 0x10
            (manifest.directories if is_directory else manifest.files).add(relative)


def _attributes(path: Path) -> dict[str, bytes]:
    return {name: value for name in ATTRIBUTES if (value := get_attribute(path, name)) is not None}


def get_attribute(path: Path, name: str) -> bytes | None:
    """Return `system.NAME` of a file on a mounted volume, or None where it has none.

    Not `os.getxattr`, which first tries a short buffer: the driver's answer to that is EIO.
    """
    buffer = ctypes.create_string_buffer(1 << 16)
    words = os.fsencode(path), f"system.{name}".encode()
    length = _LIBC.lgetxattr(*words, buffer, ctypes.c_size_t(len(buffer)))
    if length < 0 and ctypes.get_errno() not in (errno.ENODATA, errno.EOPNOTSUPP):
        raise OSError(ctypes.get_errno(), f"{name} of {path}")
    return buffer.raw[:length] if length >= 0 else None


def _plain(writer: _Writer) -> None:
    """Some sixty files in a few directories, from empty to a few hundred kilobytes."""
    for number in range(6):
        folder = writer.directory(f"folder {number}/inside")
        for size in (0, 1, 100, 700, 4096, 4097, 65_536, 100_001, 300_000):
            writer.blob(f"{folder}/{size} bytes.bin", size)
    writer.file("read me.txt", b"resident\n")
    writer.blob("read me.txt", 5000, "more")
    writer.file("read me.txt", b"[ZoneTransfer]\r\nZoneId=3\r\n", "Zone.Identifier")
    writer.link("read me.txt", "folder 1/read me too.txt")
    writer.directory("nothing here")


def _rich(writer: _Writer) -> None:
    """What a volume may hold of kinds of files, each at least once."""
    _plain(writer)
    folder = writer.directory("streams")
    writer.blob(f"{folder}/sixty", 20_000)
    for number in range(60):
        writer.blob(f"{folder}/sixty", 10 + 311 * number, f"stream {number:02}")
    writer.blob(folder, 3000, "of the directory")
    folder = writer.directory("links")
    writer.blob(f"{folder}/first", 9000)
    for number in range(200):
        writer.link(f"{folder}/first", f"{folder}/another {number:03} of a name that is not short")
    _sparse(writer, "sparse.bin", 200 * MIB)
    folder = writer.directory("Übersicht 概要 🎞")
    writer.blob(f"{folder}/naïve ﬁle - 数据 🗄.txt", 7000)
    writer.blob(f"{folder}/{'ä' * 120}", 5)
    deep = writer.directory("/".join(f"deep {number:02}" for number in range(30)))
    writer.blob(f"{deep}/down here", 12_345)
    target = "folder 1/inside/100 bytes.bin"
    (writer.top / "to a file").symlink_to(target)
    writer.manifest.symlinks["to a file"] = target
    _reparse_points(writer)
    _attributes_of_all_kinds(writer)


def _sparse(writer: _Writer, path: str, size: int) -> None:
    """A file of holes with three islands in it, one at its end."""
    digest = hashlib.sha256()
    position = 0
    with (writer.top / path).open("wb") as file:
        for start, length in ((0, 5000), (size // 3, 100_000), (size - 70_001, 70_001)):
            data = writer.random.randbytes(length)
            _hash_zeros(digest, start - position)
            digest.update(data)
            file.seek(start)
            file.write(data)
            position = start + length
    writer.manifest.streams[path, ""] = Content(digest.hexdigest(), size)


def _hash_zeros(digest: "hashlib._Hash", length: int) -> None:
    zeros = bytes(MIB)
    for at in range(0, length, MIB):
        digest.update(zeros[: min(MIB, length - at)])


def _reparse_points(writer: _Writer) -> None:
    target = r"\??\C:\folder 1".encode("utf-16-le")
    shown = r"C:\folder 1".encode("utf-16-le")
    names = target + b"\0\0" + shown + b"\0\0"
    sizes = b"".join(
        value.to_bytes(2, "little")
        for value in (0, len(target), len(target) + 2, len(shown))
    )  # fmt: skip
    junction = (0xA0000003).to_bytes(4, "little") + (len(sizes) + len(names)).to_bytes(4, "little")
    writer.directory("junction")
    writer.attribute("junction", "ntfs_reparse_data", junction + sizes + names)
    # A tag of nobody's: the driver keeps the data as they are.
    third_party = (0x00000ABC).to_bytes(4, "little") + (4).to_bytes(4, "little")
    writer.blob("third party.bin", 50_000)
    data = third_party + bytes(range(16)) + b"data"
    writer.attribute("third party.bin", "ntfs_reparse_data", data)


def _attributes_of_all_kinds(writer: _Writer) -> None:
    folder = writer.directory("attributes")
    for name, flags in (("read only", 0x21), ("hidden", 0x22), ("system", 0x24), ("none", 0x80)):
        writer.blob(f"{folder}/{name}", 3000)
        writer.attribute(f"{folder}/{name}", "ntfs_attrib", flags.to_bytes(4, "little"))
    writer.file(f"{folder}/dated", b"a file of 1999")
    stamp = 125_911_584_000_000_000
    times = b"".join((stamp + 10_000_000 * n + 7).to_bytes(8, "little") for n in range(4))
    writer.attribute(f"{folder}/dated", "ntfs_times", times)
    writer.file(f"{folder}/identified", b"by its object id")
    writer.attribute(f"{folder}/identified", "ntfs_object_id", bytes(range(64)))
    writer.file(f"{folder}/with a long name.text", b"and a short one")
    writer.attribute(f"{folder}/with a long name.text", "ntfs_dos_name", b"WITHAL~1.TEX")
    writer.file(f"{folder}/extended", b"attributes of OS/2")
    value = _extended_attribute(b"FIRST", b"value") + _extended_attribute(b"LARGE", bytes(9000))
    writer.attribute(f"{folder}/extended", "ntfs_ea", value)
    for number in range(40):
        writer.file(f"{folder}/secured {number}", b"has an ACL of its own")
        acl = descriptor(0x10000 + number, entries=1 + number * number // 30)
        writer.attribute(f"{folder}/secured {number}", "ntfs_acl", acl)


def _extended_attribute(name: bytes, value: bytes) -> bytes:
    length = 8 + len(name) + 1 + len(value)
    padded = (length + 3) & ~3
    head = padded.to_bytes(4, "little") + bytes([0, len(name)]) + len(value).to_bytes(2, "little")
    return (head + name + b"\0" + value).ljust(padded, b"\0")


def descriptor(rights: int, entries: int = 1) -> bytes:
    """A self-relative security descriptor: administrators own, everyone has these rights."""
    administrators = bytes.fromhex("0102000000000005 20000000 20020000")
    everyone = bytes.fromhex("0101000000000001 00000000")
    entry = b"\0\0" + (8 + len(everyone)).to_bytes(2, "little") + rights.to_bytes(4, "little")
    access = (entry + everyone) * entries
    length = (8 + len(access)).to_bytes(2, "little")
    access = b"\2\0" + length + entries.to_bytes(2, "little") + b"\0\0" + access
    places = (20, 20 + len(administrators), 0, 20 + 2 * len(administrators))
    head = b"\1\0\4\x80" + b"".join(place.to_bytes(4, "little") for place in places)
    return head + administrators + administrators + access


def _crumbs(writer: _Writer, count: int) -> None:
    """Fill the volume with files of one cluster, then whole, and delete every other file."""
    folder = writer.directory("crumbs")
    size = os.statvfs(writer.top).f_frsize
    keep = writer.random.randbytes(size)
    for number in range(count):
        writer.file(f"{folder}/{number:05}", keep)
    filler = writer.top / "filler"
    # What the driver holds for its own table too, down to single clusters.
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for step in (MIB, 64 << 10, size):
            with contextlib.suppress(OSError):
                while file.write(bytes(step)):
                    pass
    held = filler.stat().st_size
    digest = hashlib.sha256()
    _hash_zeros(digest, held)
    writer.manifest.streams["filler", ""] = Content(digest.hexdigest(), held)
    for number in range(0, count, 2):
        (writer.top / folder / f"{number:05}").unlink()
        del writer.manifest.streams[f"{folder}/{number:05}", ""]


def _fragmented(writer: _Writer) -> None:
    """A file of thousands of runs, over many extension records."""
    _crumbs(writer, 6000)
    writer.blob("in thousands of runs", 2900 * os.statvfs(writer.top).f_frsize - 100)


def _fragmented_mft(writer: _Writer) -> None:
    """An $MFT of many runs, whose own record has an $ATTRIBUTE_LIST."""
    _crumbs(writer, 2400)
    folder = writer.directory("small")
    for number in range(3600):
        writer.file(f"{folder}/{number:05}", b"resident %d" % number)


def _vdl(writer: _Writer) -> None:
    """Files whose valid data length is below their size, over clusters that held other data."""
    size = 24 * MIB
    poison = writer.top / "poison"
    poison.write_bytes((POISON * (size // len(POISON) + 1))[:size])
    poison.unlink()
    for name, valid, grown in (
        ("none valid", 0, 8 * MIB),
        ("a cluster valid", 4096, 4 * MIB),
        ("part of a cluster valid", 100_001, MIB + 77),
        ("all valid", 200_000, 200_000),
    ):
        data = writer.random.randbytes(valid)
        (writer.top / name).write_bytes(data)
        writer.note(name, data + bytes(grown - valid))
        if grown > valid:
            writer.afterwards.append(functools.partial(_grow, writer.image, name, valid, grown))


def _grow(image: Path, name: str, size: int, grown: int) -> None:
    """Give a file more clusters and more size, but no more valid data."""
    require("ntfsfallocate")
    command = ["ntfsfallocate", "-q", "-o", str(size), "-l", str(grown - size), str(image), name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    if "Failed" in done.stderr:  # its exit status does not say so
        raise RuntimeError(done.stderr)


def _compressed(writer: _Writer) -> None:
    """Compressed files: of text, of noise, of zeros, of all of these, and with a tail."""
    folder = writer.directory("compressed")
    writer.attribute(folder, "ntfs_attrib", (0x810).to_bytes(4, "little"))
    words = b"archive block cartridge copy descriptor disk drive extent medium record tape".split()
    text = b" ".join(writer.random.choices(words, k=60_000))
    noise = writer.random.randbytes(200_000)
    writer.file(f"{folder}/text.txt", text)
    writer.file(f"{folder}/noise.bin", noise)
    writer.file(f"{folder}/zeros.bin", bytes(500_000))
    writer.file(
        f"{folder}/mixed.bin", text[:100_001] + bytes(300_000) + noise + text + bytes(70_000)
    )
    writer.file(f"{folder}/runs.bin", b"".join(bytes([n]) * (n * 13) for n in range(256)))
    writer.file(f"{folder}/small.txt", b"resident")
    writer.blob("plain.bin", 100_000)


def _many(writer: _Writer) -> None:
    """100,000 files in 100 directories: half of them resident."""
    for folder in range(100):
        path = writer.directory(f"directory {folder:03}")
        for number in range(1000):
            size = 300 if number & 1 else 5000
            writer.blob(f"{path}/file {number:04}.dat", size)


@dataclass(frozen=True, slots=True)
class _Kind:
    write: Callable[[_Writer], None]
    size: int
    options: tuple[str, ...] = ()


KINDS = {
    "plain": _Kind(_plain, 64 * MIB),
    "rich": _Kind(_rich, 256 * MIB, ("windows_names",)),
    "fragmented": _Kind(_fragmented, 64 * MIB),
    "fragmented_mft": _Kind(_fragmented_mft, 48 * MIB),
    "vdl": _Kind(_vdl, 64 * MIB),
    "compressed": _Kind(_compressed, 64 * MIB, ("compression",)),
    "many": _Kind(_many, 1536 * MIB),
}
