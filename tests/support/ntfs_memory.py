"""A real NTFS volume in memory, without any program: the demo's, with bytes that tests change."""

import functools
import lzma
from collections.abc import Mapping
from pathlib import Path

PACKED = Path(__file__).parent.parent.parent / "cli" / "data" / "volume.img.xz"
CHUNK = 64 << 10
_NOTHING = bytes(CHUNK)


class MemoryDevice:
    """A device of chunks, zeros where there is none. `change` gives another that differs."""

    block_length = 512

    def __init__(self, size: int, chunks: Mapping[int, bytes]) -> None:
        self.size = size
        self._chunks = chunks

    def read_at(self, offset: int, length: int) -> bytes:
        """See serverfree.backup.device.Device. ValueError past the end, as that one has it."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ValueError(f"bytes {offset} to {offset + length} of {self.size}")
        first, last = offset // CHUNK, (offset + length - 1) // CHUNK
        data = b"".join(self._chunks.get(n, _NOTHING) for n in range(first, last + 1))
        return data[offset - first * CHUNK :][:length]

    def change(self, changes: Mapping[int, bytes]) -> "MemoryDevice":
        """Return a device with other bytes at these offsets; this one stays as it is."""
        chunks = dict(self._chunks)
        for offset, data in changes.items():
            done = 0
            while done < len(data):
                number, skip = divmod(offset + done, CHUNK)
                take = min(len(data) - done, CHUNK - skip)
                old = chunks.get(number, _NOTHING)
                chunks[number] = old[:skip] + data[done : done + take] + old[skip + take :]
                done += take
        return MemoryDevice(self.size, chunks)


@functools.cache
def demo_volume() -> MemoryDevice:
    """The volume that `serverfree demo` backs up: ntfs-3g wrote it, 4 KiB clusters."""
    chunks = {}
    number = 0
    with lzma.open(PACKED) as file:
        while chunk := file.read(CHUNK):
            if chunk != _NOTHING:
                chunks[number] = chunk
            number += 1
    return MemoryDevice(number * CHUNK, chunks)


def fix_up(record: bytes) -> bytes:
    """Put the update sequence number into the end of every 512 bytes, as a writer does."""
    changed = bytearray(record)
    at = int.from_bytes(record[4:6], "little")
    number = record[at : at + 2]
    for sector in range(1, len(record) // 512 + 1):
        end = 512 * sector
        changed[at + 2 * sector : at + 2 * sector + 2] = changed[end - 2 : end]
        changed[end - 2 : end] = number
    return bytes(changed)


def undo_fix_up(record: bytes) -> bytes:
    """Put back what the update sequence number displaced."""
    changed = bytearray(record)
    at = int.from_bytes(record[4:6], "little")
    for sector in range(1, len(record) // 512 + 1):
        end = 512 * sector
        changed[end - 2 : end] = changed[at + 2 * sector : at + 2 * sector + 2]
    return bytes(changed)
