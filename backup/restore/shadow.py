"""A local shadow of a volume: all that it keeps about itself, nothing of its files' content.

Programs that change a volume work on the shadow, while nothing on the volume changes. What they
have changed is found by comparing the shadow with the copy that was made beside it.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from serverfree.backup.device import Device
from serverfree.backup.restore.wanted import RestoreError

STEP = 4096  # what is compared at a time: no block of a disk is larger
PIECE = 1 << 20


class Shadow:
    """Two sparse files of the volume's size: one to be worked on, one as the volume is.

    `extents` are the places and lengths of its metadata. Closed as a context manager; the files
    lie in `folder` and go with it.
    """

    def __init__(self, folder: Path, device: Device, extents: Iterable[tuple[int, int]]) -> None:
        self.path, self._pristine_path = folder / "shadow", folder / "pristine"
        self.size, self.block_length = device.size, device.block_length
        self.copied = 0
        self._work = self._create(self.path)
        self._pristine = self._create(self._pristine_path)
        for offset, length in extents:
            for at in range(offset, offset + length, PIECE):
                data = device.read_at(at, min(PIECE, offset + length - at))
                for file in (self._work, self._pristine):
                    _write(file, data, at)
                self.copied += len(data)

    def _create(self, path: Path) -> int:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(file, self.size)
        except OSError as error:
            if error.errno not in (errno.EFBIG, errno.EINVAL):
                raise
            raise RestoreError(
                f"{path.parent} lies on a file system that takes no sparse file of {self.size} "
                "bytes: set TMPDIR to a folder on another one"
            ) from None
        return file

    def pristine(self, offset: int, length: int) -> bytes:
        """Return what was copied from the volume; zeros where nothing was."""
        return _read(self._pristine, offset, length)

    def read_at(self, offset: int, length: int) -> bytes:
        """Return what the shadow holds now."""
        return _read(self._work, offset, length)

    def write_at(self, offset: int, data: bytes) -> None:
        """Change the shadow."""
        _write(self._work, data, offset)

    def differences(self) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, data) of what has changed, in order, at most PIECE at a time.

        Offsets are whole STEPs; so are lengths, but at the end of the volume.
        """
        for offset, length in self._data_extents():
            at, run_at, run = offset, offset, bytearray()
            while at < offset + length:
                now = self.read_at(at, min(PIECE, offset + length - at))
                before = self.pristine(at, len(now))
                if now == before:
                    steps: range = range(0)
                else:
                    steps = range(0, len(now), STEP)
                for step in steps:
                    if now[step : step + STEP] == before[step : step + STEP]:
                        continue
                    if run and (run_at + len(run) != at + step or len(run) >= PIECE):
                        yield run_at, bytes(run)
                        run.clear()
                    if not run:
                        run_at = at + step
                    run += now[step : step + STEP]
                at += len(now)
            if run:
                yield run_at, bytes(run)

    def _data_extents(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges that were ever written, widened to whole STEPs."""
        at = 0
        while at < self.size:
            try:
                start = os.lseek(self._work, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                raise
            end = os.lseek(self._work, start, os.SEEK_HOLE)
            start = max(at, start // STEP * STEP)
            end = min(-(-end // STEP) * STEP, self.size)
            yield start, end - start
            at = end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._work)
        os.close(self._pristine)


def _read(file: int, offset: int, length: int) -> bytes:
    data = os.pread(file, length, offset)
    while len(data) < length:
        more = os.pread(file, length - len(data), offset + len(data))
        if not more:
            raise OSError(errno.EIO, "the shadow has become shorter")
        data += more
    return data


def _write(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(file, view, offset)
        view, offset = view[done:], offset + done
