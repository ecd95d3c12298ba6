"""A local shadow of a volume: all that it keeps about itself, nothing of its files' content.

Programs that change a volume work on the shadow, while nothing on the volume changes. What they
have changed is found by comparing the shadow with the copy that was made beside it. What
the shadow does not hold reads as zeros there and is never written back.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from serverfree.backup.device import Device
from serverfree.backup.restore.ranges import Ranges
from serverfree.backup.restore.wanted import RestoreError

_STEP = 4096  # what is compared at a time, at most: no block of a disk is larger
PIECE = 1 << 20


class Shadow:
    """Two sparse files of the volume's size: one to be worked on, one as the volume is.

    `extents` are the places and lengths of its metadata. Closed as a context manager; the files
    lie in `folder` and go with it.
    """

    def __init__(
        self, folder: Path, device: Device, extents: Iterable[tuple[int, int]], cluster: int
    ) -> None:
        self.path, self._pristine_path = folder / "shadow", folder / "pristine"
        self.size, self.block_length = device.size, device.block_length
        self.step = min(_STEP, cluster)
        self.copied = 0
        copied = list(extents)
        self._known = Ranges(copied)
        self._work = self._create(self.path)
        self._pristine = self._create(self._pristine_path)
        for offset, length in copied:
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

    def differences(self, extents: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """Yield (offset, length) of what of some extents, whole clusters, is not as on the volume.

        What was not copied from there counts as different, whatever it holds. Both are whole
        steps: clusters, but of large ones a part.
        """
        for offset, length in extents:
            run_at = run = 0
            for at in range(offset, offset + length, PIECE):
                size = min(PIECE, offset + length - at)
                for start in self._steps(at, size):
                    if run_at + run == start:
                        run += min(self.step, offset + length - start)
                        continue
                    if run:
                        yield run_at, run
                    run_at, run = start, min(self.step, offset + length - start)
            if run:
                yield run_at, run

    def _steps(self, at: int, size: int) -> Iterator[int]:
        """Yield where each step begins that is not as on the volume."""
        now, before = self.read_at(at, size), self.pristine(at, size)
        known = self._known.covers(at, size)
        if known and now == before:
            return
        for step in range(0, size, self.step):
            if (known or self._known.covers(at + step, min(self.step, size - step))) and now[
                step : step + self.step
            ] == before[step : step + self.step]:
                continue
            yield at + step

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
