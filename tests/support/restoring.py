"""Restores without a SAN: the target is an image file, the archive another, the mover a copy."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from serverfree.backup.device import FileDevice
from serverfree.backup.files import Stream
from serverfree.backup.ntfs.volume import Volume
from serverfree.backup.pieces import ToDisk
from serverfree.backup.restore.mover import Lost
from serverfree.backup.restore.wanted import Piece, WantedFile, WantedStream
from support.ntfs_images import Manifest, mounted


class ImageTarget:
    """An image file as a disk to restore onto, which keeps account of what is written."""

    def __init__(self, path: Path, block_length: int = 512) -> None:
        self._file = os.open(path, os.O_RDWR)
        self.size = os.lseek(self._file, 0, os.SEEK_END)
        self.block_length = block_length
        self.written: list[tuple[int, int]] = []
        self.fail_after: int | None = None

    def read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._file, length, offset)

    def write_at(self, offset: int, data: bytes) -> None:
        assert offset % self.block_length == 0 == len(data) % self.block_length
        if self.fail_after is not None:
            if self.fail_after == 0:
                raise OSError("power is gone")
            self.fail_after -= 1
        self.put(offset, data)

    def put(self, offset: int, data: bytes) -> None:
        """Write at any byte, as a copy manager does."""
        assert offset >= 0
        assert offset + len(data) <= self.size
        os.pwrite(self._file, data, offset)
        self.written.append((offset, len(data)))

    def zero(self, offset: int, length: int) -> None:
        assert offset % self.block_length == 0 == length % self.block_length
        self.put(offset, bytes(length))

    def flush(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)


class ImageArchive:
    """The image of a volume as an archive of it: offsets in it are places on the volume."""

    def __init__(self, path: Path) -> None:
        self.device = FileDevice(str(path))
        self.size = self.device.size

    def read(self, offset: int, length: int) -> bytes:
        return self.device.read_at(offset, length)


class PlainMover:
    """Copies as a copy manager would."""

    def __init__(self, archive: ImageArchive, target: ImageTarget) -> None:
        self.archive, self.target = archive, target
        self.moved = 0

    def move(self, wanted: Sequence[ToDisk]) -> list[Lost]:
        for piece in wanted:
            for at in range(0, piece.length, 1 << 20):
                size = min(1 << 20, piece.length - at)
                data = self.archive.read(piece.archive_offset + at, size)
                self.target.put(piece.offset + at, data)
            self.moved += piece.length
        return []


def wanted_of(volume: Volume) -> Iterator[WantedFile]:
    """What a catalog of an image of that volume says of its files."""
    for file in volume.files():
        streams = tuple(_stream(stream) for stream in file.streams)
        yield WantedFile(file.paths, file.is_directory, file.modified, streams, file.attributes)


def _stream(stream: Stream) -> WantedStream:
    if stream.resident is not None:
        return WantedStream(stream.name, stream.size, stream.valid, content=stream.resident)
    pieces = tuple(Piece(each.start, each.length, each.place) for each in stream.extents)
    unit = stream.compression_unit if stream.compressed else 0
    return WantedStream(stream.name, stream.size, stream.valid, None, pieces, unit)


def read_back(image: Path, mount: Path, manifest: Manifest) -> dict[tuple[str, str], str]:
    """Hash every stream of a manifest through ntfs-3g, by path and name; "missing" for none."""
    found = {}
    with mounted(image, mount, "ro") as top:
        for path, stream in manifest.streams:
            name = os.fsencode(f"{top}/{path}:{stream}" if stream else f"{top}/{path}")
            try:
                with open(name, "rb") as file:  # noqa: PTH123 - a path with a colon
                    found[path, stream] = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError:
                found[path, stream] = "missing"
    return found
