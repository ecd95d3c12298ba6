"""Which chunks of a store changed: bits in memory, and the same bits in a file beside it."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from struct import Struct

_HEADER = Struct(">Q")  # the number of the generation, 0 before it begins
_NOT_ZERO = re.compile(rb"[^\0]+")


class ChangedChunks:
    """A bit for each chunk of `1 << shift` bytes, set once and never cleared.

    The file is written before the memory and never synced but by `sync`: whoever finds a bit set
    may rely on it through the death of the process, not through a loss of power. Bits are written
    with pwrite: a store into a map of the file would be fatal on a full disk.
    """

    def __init__(self, path: Path, fd: int, bits: bytearray, shift: int) -> None:
        self.path = path
        self.bits = bits
        """Bit `n & 7` of byte `n >> 3` is chunk n's."""
        self.shift = shift
        self._fd = fd

    @classmethod
    def make(cls, path: Path, size: int, shift: int) -> "ChangedChunks":
        """Make the file for a store of `size` bytes, nothing changed. Raises OSError."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.ftruncate(fd, _HEADER.size + _bytes_for(size, shift))
        return cls(path, fd, bytearray(_bytes_for(size, shift)), shift)

    @classmethod
    def load(cls, path: Path, size: int, shift: int) -> "ChangedChunks":
        """Read a file for what was a store of `size` bytes or more. Raises OSError."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        bits = bytearray()
        while part := os.pread(fd, 1 << 20, _HEADER.size + len(bits)):
            bits += part
        if len(bits) < _bytes_for(size, shift):
            os.close(fd)
            raise OSError(f"{path} has become shorter")
        return cls(path, fd, bits, shift)

    @staticmethod
    def number_in(path: Path) -> int:
        """Return which generation a file is of, 0 if that never began. Raises OSError."""
        with path.open("rb") as file:
            return int(_HEADER.unpack(file.read(_HEADER.size).ljust(_HEADER.size, b"\0"))[0])

    def begin(self, number: int) -> None:
        """Write down which generation begins now. Raises OSError."""
        os.pwrite(self._fd, _HEADER.pack(number), 0)

    def __contains__(self, chunk: int) -> bool:
        return bool(self.bits[chunk >> 3] >> (chunk & 7) & 1)

    def add(self, chunks: Iterable[int]) -> None:
        """Set bits, in ascending order. One thread at a time. Raises OSError; then none is set."""
        changed: dict[int, int] = {}
        for chunk in chunks:
            at = chunk >> 3
            changed[at] = changed.get(at, self.bits[at]) | 1 << (chunk & 7)
        if self.kept:
            for start, content in _runs(changed):
                os.pwrite(self._fd, content, _HEADER.size + start)
        # Only now may another thread find the bits and go on to change what they stand for.
        for at, value in changed.items():
            self.bits[at] = value

    @property
    def kept(self) -> bool:
        """Whether the file holds what the memory does."""
        return self._fd >= 0

    def give_up_file(self) -> None:
        """The file cannot be written: remove it, so that no later process believes it."""
        self.path.unlink(missing_ok=True)
        self.close()

    def resize(self, size: int) -> None:
        """Have bits for a store of `size` bytes."""
        self.bits.extend(bytes(max(0, _bytes_for(size, self.shift) - len(self.bits))))

    def grow(self, size: int, new_size: int) -> None:
        """The store is longer now: the chunks behind the old end have changed. Raises OSError."""
        self.resize(new_size)
        first = -(-size >> self.shift)
        self.add(range(first, -(-new_size >> self.shift)))

    def sync(self) -> None:
        """Put the file on stable storage. Raises OSError."""
        if self.kept:
            os.fdatasync(self._fd)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _bytes_for(size: int, shift: int) -> int:
    return -(-size >> shift) + 7 >> 3


def _runs(changed: dict[int, int]) -> Iterator[tuple[int, bytes]]:
    start, run = -1, bytearray()
    for at, value in changed.items():
        if at != start + len(run):
            if run:
                yield start, bytes(run)
            start, run = at, bytearray()
        run.append(value)
    if run:
        yield start, bytes(run)


def union(maps: Iterable[ChangedChunks]) -> bytes:
    """Return the bits that are set in any of them."""
    total, length = 0, 0
    for one in maps:
        total |= int.from_bytes(one.bits, "little")
        length = max(length, len(one.bits))
    return total.to_bytes(length, "little")


def extents_of(bits: bytes, shift: int, size: int) -> list[tuple[int, int]]:
    """Return the (offset, length) in bytes of set bits, neighbours joined, none behind `size`."""
    found: list[tuple[int, int]] = []
    for chunks in _spans(bits):
        start, end = chunks.start << shift, min(chunks.stop << shift, size)
        if start >= end:
            break
        if found and sum(found[-1]) == start:
            found[-1] = (found[-1][0], end - found[-1][0])
        else:
            found.append((start, end - start))
    return found


def _spans(bits: bytes) -> Iterator[range]:
    for match in _NOT_ZERO.finditer(bits):
        for at in range(match.start(), match.end()):
            byte = bits[at]
            if byte == 0xFF:
                yield range(at << 3, at + 1 << 3)
                continue
            for bit in range(8):
                if byte >> bit & 1:
                    yield range((at << 3) + bit, (at << 3) + bit + 1)
