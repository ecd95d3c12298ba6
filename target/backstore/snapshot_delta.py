"""Files of old content: what was copied before it was overwritten, or a clone of all of it."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

from serverfree.target.backstore.base import ReadError
from serverfree.target.backstore.file import FileStore, open_file_store

_FICLONE = 0x40049409  # linux/fs.h


class Delta:
    """A sparse file in which old content lies at the offsets where it lay.

    It may be destroyed while other threads use it: they finish, or fail as reads and writes do.
    """

    def __init__(self, path: Path, store: FileStore) -> None:
        self.path = path
        self._store = store
        self._lock = Lock()
        self._users = 0
        self._open = True

    @classmethod
    def make(cls, path: Path, size: int) -> "Delta":
        """Make an empty one, which takes no space. Raises OSError, StoreError."""
        return cls(path, open_file_store(path, size, thin=True))

    @classmethod
    def load(cls, path: Path, *, readonly: bool = False) -> "Delta":
        """Open an existing one. Raises OSError, StoreError."""
        return cls(path, open_file_store(path, readonly=readonly, thin=True))

    # A descriptor that is closed under a thread may be another file's when it gets to use it.

    def __enter__(self) -> FileStore:
        with self._lock:
            if not self._open:
                raise ReadError(errno.ESTALE, f"{self.path.name} has been removed")
            self._users += 1
        return self._store

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            last = not self._users and not self._open
        if last:
            self._store.close()

    def read(self, offset: int, length: int) -> bytes:
        """Return old content; zeros where nothing was put. Raises ReadError."""
        with self as store:
            return store.pread(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        """Put old content there. Raises OSError."""
        with self as store:
            store.write(offset, data)

    def extents(self, offset: int, length: int) -> list[tuple[int, int, bool]]:
        """As BlockStore's."""
        with self as store:
            return list(store.extents(offset, length))

    @property
    def used(self) -> int:
        """Bytes that the file takes on its file system."""
        try:
            return self.path.stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def sync(self) -> None:
        """Put it on stable storage. Raises OSError."""
        with self as store:
            store.flush()

    def close(self) -> None:
        """Let go of the file when its last user has."""
        with self._lock:
            was_open, self._open = self._open, False
            idle = not self._users
        if was_open and idle:
            self._store.close()

    def destroy(self) -> None:
        """Remove the file and give its space back, even while others have it open."""
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self.close()
            return
        try:
            # Gone in one step: a crash leaves no file that looks whole and is not.
            self.path.unlink(missing_ok=True)
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)
            self.close()


class Cloner:
    """Clones of a file by its file system: both share all blocks until one of them changes."""

    def __init__(self, source: Path) -> None:
        self._source = os.open(source, os.O_RDONLY | os.O_CLOEXEC)

    @classmethod
    def probe(cls, source: Path, folder: Path) -> "Cloner | None":
        """Return one if `source` can be cloned into the folder, found out with a tiny file."""
        kind = source.stat()
        if not stat.S_ISREG(kind.st_mode) or kind.st_dev != folder.stat().st_dev:
            return None
        one, other = folder / "probe.clone", folder / "probe-of.clone"
        try:
            one.write_bytes(bytes(4096))
            tiny = cls(one)
            try:
                os.close(tiny.clone(other))
            finally:
                tiny.close()
        except OSError:
            return None
        finally:
            one.unlink(missing_ok=True)
            other.unlink(missing_ok=True)
        return cls(source)

    def clone(self, path: Path) -> int:
        """Make the clone; return its descriptor, to be synced and closed. Raises OSError."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.ioctl(descriptor, _FICLONE, self._source)
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        return descriptor

    def close(self) -> None:
        """Let go of the source."""
        os.close(self._source)


def runs_of_data(extents: list[tuple[int, int, bool]], longest: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, length) of what holds data, in pieces."""
    for offset, length, has_data in extents:
        if has_data:
            for at in range(offset, offset + length, longest):
                yield at, min(longest, offset + length - at)
