"""The index of a tape partition: `partN.idx`, one 32-byte entry for each logical object.

It says what the log says, only faster: where block n is costs one small read, where file n begins
a binary search, because the file numbers of the entries never fall. Nothing is believed that the
entry's own CRC32C (started from the block number, so an entry in a wrong place is a bad one) does
not confirm, and the log can rebuild it all.

Entries are read through the page cache in small windows, not held: a cartridge of any number of
blocks takes a few KiB of memory.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from serverfree.target.backstore.cartridge_errors import CartridgeError, IndexDamaged
from serverfree.target.backstore.cartridge_log import crc32c_extend

_ENTRY = Struct("<QQIIB3x")  # offset, file, length, generation, type
_CRC = Struct("<I")
_WHOLE = Struct(_ENTRY.format + "I")
ENTRY_LENGTH = _WHOLE.size
_WINDOW = 128  # entries: one page


@dataclass(slots=True)
class Entry:
    """Where an object lies in the log and what it is; `file` counts the filemarks before it."""

    offset: int
    file: int
    length: int
    generation: int
    type: int


def pack_entry(block: int, entry: Entry) -> bytes:
    """The entry on disk."""
    raw = _ENTRY.pack(entry.offset, entry.file, entry.length, entry.generation, entry.type)
    return raw + _CRC.pack(crc32c_extend(block & 0xFFFFFFFF, raw))


class BlockIndex:
    """An open `partN.idx` of which the first `count` entries are in use."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.count = 0
        self._window = b""
        self._window_start = 0

    @classmethod
    def open(cls, path: Path) -> "BlockIndex":
        """Open the file, making an empty one if it is gone: it can be rebuilt."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise CartridgeError(f"{path}: {error.strerror}") from error
        return cls(fd)

    def get(self, block: int) -> Entry:
        """Return the entry of a block below `count`. Raises IndexDamaged if it is not sound."""
        at = (block - self._window_start) * ENTRY_LENGTH
        if not 0 <= at < len(self._window):
            start = block - block % _WINDOW
            length = min(_WINDOW, self.count - start) * ENTRY_LENGTH
            try:
                self._window = os.pread(self._fd, length, start * ENTRY_LENGTH)
            except OSError as error:
                raise IndexDamaged(f"entry {block}: {error.strerror}") from error
            self._window_start = start
            at = (block - start) * ENTRY_LENGTH
        if len(self._window) < at + ENTRY_LENGTH:
            raise IndexDamaged(f"entry {block} is missing")
        offset, file, length, generation, kind, check = _WHOLE.unpack_from(self._window, at)
        if crc32c_extend(block & 0xFFFFFFFF, self._window[at : at + _ENTRY.size]) != check:
            raise IndexDamaged(f"entry {block} is damaged")
        return Entry(offset, file, length, generation, kind)

    def first_of_file(self, file: int) -> int:
        """Return the first block with a file number of at least `file`, `count` if none has."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if self.get(middle).file < file:
                low = middle + 1
            else:
                high = middle
        return low

    def append(self, entries: bytes) -> None:
        """Add packed entries. On OSError the index is as before."""
        at = self.count * ENTRY_LENGTH
        written = os.pwrite(self._fd, entries, at)
        while written < len(entries):
            written += os.pwrite(self._fd, entries[written:], at + written)
        self.count += len(entries) // ENTRY_LENGTH

    def truncate(self, count: int) -> None:
        """Keep the first `count` entries only, in the file too."""
        self.count = count
        self._window = b""
        os.ftruncate(self._fd, count * ENTRY_LENGTH)

    def size(self) -> int:
        """Return the length of the file in bytes."""
        return os.fstat(self._fd).st_size

    def sync(self) -> None:
        """Return when what was written is on stable storage."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)
