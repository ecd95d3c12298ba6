"""View indexes: rows by key, in a root that is resident and blocks that are not."""

from collections.abc import Iterator
from struct import Struct

from serverfree.backup.ntfs.errors import NtfsError
from serverfree.backup.ntfs.record import undo_fixups

_MAGIC = b"INDX"
_ROOT_HEADER = 0x10  # of $INDEX_ROOT, before the header of its rows
_BLOCK_HEADER = 0x18  # of a block, likewise
# Offset of the first row and length of all with this header, from this header on.
_ROWS = Struct("<II")
# Offset and length of the data; length of the row and of the key; flags.
_ROW = Struct("<HH4xHHHxx")
_LAST = 2


def rows(root: bytes, blocks: bytes, used: bytes, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield (key, data) of each row, in no order. `used` has a bit for each block of that size.

    A block that is torn is NtfsError after all the others have been read.
    """
    broken: NtfsError | None = None
    yield from _rows(root, _ROOT_HEADER)
    for number in range(len(blocks) // size):
        if number >> 3 >= len(used) or not used[number >> 3] >> (number & 7) & 1:
            continue
        block = bytearray(blocks[number * size : (number + 1) * size])
        try:
            if block[:4] != _MAGIC:
                raise NtfsError(f"index block {number} begins with {bytes(block[:4])!r}")
            undo_fixups(block)
            yield from _rows(block, _BLOCK_HEADER)
        except NtfsError as why:
            broken = why
    if broken is not None:
        raise broken


def _rows(block: bytes | bytearray, header: int) -> Iterator[tuple[bytes, bytes]]:
    if len(block) < header + _ROWS.size:
        raise NtfsError("an index is too short")
    first, length = _ROWS.unpack_from(block, header)
    at, end = header + first, min(header + length, len(block))
    while at + _ROW.size <= end:
        data, data_length, row, key_length, flags = _ROW.unpack_from(block, at)
        if flags & _LAST:
            return
        if row < _ROW.size or at + row > end or max(data + data_length, 16 + key_length) > row:
            raise NtfsError("a row ends outside of its index")
        key = block[at + _ROW.size : at + _ROW.size + key_length]
        yield bytes(key), bytes(block[at + data : at + data + data_length])
        at += row
    raise NtfsError("the rows of an index have no end")
