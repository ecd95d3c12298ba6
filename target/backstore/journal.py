"""Writes that survive kill -9 and loss of power wholly or not at all, whatever their length."""

import os
from pathlib import Path
from struct import Struct
from threading import Lock
from zlib import crc32

from serverfree.scsi.device import Buffer
from serverfree.target.backstore.base import BlockStore, StoreError
from serverfree.target.backstore.state import beside

_SUFFIX = ".journal"
_HEADER = Struct(">8sQQI")  # magic, offset, length, checksum of the data
_MAGIC = b"SFATOMIC"
_EMPTY = bytes(_HEADER.size)


class Journal:
    """A file beside a store that holds at most one write, while it is not safe in the store.

    Safe to use from several threads: they take turns.
    """

    def __init__(self, path: Path, store: BlockStore) -> None:
        """Carry out what an earlier process may have left undone. Raises StoreError, OSError."""
        self._store = store
        self._path = path
        self._lock = Lock()
        self._fd = -1
        if path.exists():
            self._open()
            self._recover()

    def write(self, offset: int, data: Buffer) -> None:
        """Write `data`, durable when this returns; a failure before leaves all of it or nothing."""
        with self._lock:
            if self._fd < 0:
                self._open()
            # 1. The data is safe in the journal, which says where it belongs ...
            checksum = crc32(data)
            os.pwrite(self._fd, data, _HEADER.size)
            os.pwrite(self._fd, _HEADER.pack(_MAGIC, offset, len(data), checksum), 0)
            os.fdatasync(self._fd)
            # 2. ... then in its place ...
            self._store.write(offset, data)
            self._store.flush()
            # 3. ... and then the journal forgets it, durably: replayed later, it would take back
            # what was written to the same place in between.
            self._forget()

    def close(self) -> None:
        """Let go of the file, and remove it: nothing is in it any more."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
                self._path.unlink(missing_ok=True)

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)  # a journal that a crash unlinks is none
        finally:
            os.close(folder)

    def _recover(self) -> None:
        header = os.pread(self._fd, _HEADER.size, 0)
        if len(header) < _HEADER.size:
            return
        magic, offset, length, checksum = _HEADER.unpack(header)
        if magic != _MAGIC:
            return
        if length > os.fstat(self._fd).st_size:
            return  # cut off while it was written: nothing of it can be in the store
        data = os.pread(self._fd, length, _HEADER.size)
        if len(data) < length or crc32(data) != checksum:
            return
        if offset + length > self._store.size or self._store.readonly:
            raise StoreError(
                f"{self._path} holds a write that its store cannot take: serve the disk writable "
                "and as long as it was, or remove the journal and lose that write"
            )
        self._store.write(offset, data)
        self._store.flush()
        self._forget()

    def _forget(self) -> None:
        os.pwrite(self._fd, _EMPTY, 0)
        os.fdatasync(self._fd)


def journal_path(storage: Path) -> Path:
    """Return where the journal of a store over this file or device lies."""
    return beside(storage, _SUFFIX)
