"""The valid data length of streams, set in their file records.

Clusters that were filled behind the file system's back become content by this number alone, so it
is the last thing to be written: until then a stream reads as zeros. No program of NTFS-3G sets it.
"""

from collections.abc import Iterable, Iterator, Mapping
from struct import Struct

from serverfree.backup.files import Extent
from serverfree.backup.restore.shadow import Shadow
from serverfree.backup.restore.wanted import RestoreError

_MAGIC = b"FILE"
_FIXUP_STRIDE = 512  # whatever the sector size
_PIECE = 1 << 20
_ATTRIBUTE = Struct("<IIBBHHH")
_IN_USE = 0x0001
_DATA, _END = 0x80, 0xFFFFFFFF
_NUMBER = (1 << 48) - 1
_BASE_RECORD, _FLAGS, _FIRST_ATTRIBUTE = 0x20, 0x16, 0x14
_LOWEST_VCN, _DATA_SIZE, _INITIALIZED_SIZE = 0x10, 0x30, 0x38

Wanted = Mapping[tuple[int, str], int]
"""The valid length by number of the file and name of the stream."""


def set_valid_lengths(
    shadow: Shadow, mft: Iterable[Extent], record_size: int, wanted: Wanted
) -> None:
    """Set the valid length of each stream in the shadow. `mft` are the extents of $MFT's data.

    Raises RestoreError unless each has been found and is long enough.
    """
    files = {number for number, _ in wanted}
    left = dict(wanted)
    for place, number, raw in _records(shadow, mft, record_size):
        base = int.from_bytes(raw[_BASE_RECORD : _BASE_RECORD + 6], "little") or number
        if base not in files or raw[:4] != _MAGIC:
            continue
        if not int.from_bytes(raw[_FLAGS : _FLAGS + 2], "little") & _IN_USE:
            continue
        record = bytearray(raw)
        unprotect(record)
        changed = False
        for at, name in _data_attributes(record):
            valid = left.pop((base, name), None)
            if valid is None:
                continue
            size = int.from_bytes(record[at + _DATA_SIZE : at + _DATA_SIZE + 8], "little")
            if valid > size:
                raise RestoreError(f"file record {base}: {valid} valid bytes of {size}")
            record[at + _INITIALIZED_SIZE : at + _INITIALIZED_SIZE + 8] = valid.to_bytes(
                8, "little"
            )
            changed = True
        if changed:
            protect(record)
            shadow.write_at(place, bytes(record))
    if left:
        (number, name), *more = left
        others = f" and {len(more)} more" if more else ""
        raise RestoreError(f"file record {number} has no clusters for stream {name!r}{others}")


def _records(
    shadow: Shadow, mft: Iterable[Extent], size: int
) -> Iterator[tuple[int, int, memoryview]]:
    """Yield (place, number, bytes) of the file records, as they lie there."""
    for extent in mft:
        for at in range(0, extent.length, _PIECE):
            data = memoryview(shadow.read_at(extent.place + at, min(_PIECE, extent.length - at)))
            for offset in range(0, len(data) - size + 1, size):
                number = (extent.start + at + offset) // size
                yield extent.place + at + offset, number, data[offset : offset + size]


def _data_attributes(record: bytearray) -> Iterator[tuple[int, str]]:
    """Yield where each non-resident $DATA begins whose first clusters this record maps."""
    at = int.from_bytes(record[_FIRST_ATTRIBUTE : _FIRST_ATTRIBUTE + 2], "little")
    while at + _ATTRIBUTE.size <= len(record):
        kind, length, non_resident, name_length, name_at, _, _ = _ATTRIBUTE.unpack_from(record, at)
        if kind == _END or length < _ATTRIBUTE.size:
            return
        first = int.from_bytes(record[at + _LOWEST_VCN : at + _LOWEST_VCN + 8], "little")
        if kind == _DATA and non_resident and first == 0:
            name = record[at + name_at : at + name_at + 2 * name_length]
            yield at, name.decode("utf-16-le", "surrogatepass")
        at += length


def unprotect(record: bytearray) -> None:
    """Put back what the update sequence stands for at the end of each 512 bytes."""
    start, count = (int.from_bytes(record[at : at + 2], "little") for at in (4, 6))
    number = record[start : start + 2]
    for index in range(1, count):
        end = index * _FIXUP_STRIDE
        if record[end - 2 : end] != number:
            raise RestoreError("a file record is torn")
        record[end - 2 : end] = record[start + 2 * index : start + 2 * index + 2]


def protect(record: bytearray) -> None:
    """Give the record its next update sequence number, and put it at the end of each 512 bytes."""
    start, count = (int.from_bytes(record[at : at + 2], "little") for at in (4, 6))
    number = (int.from_bytes(record[start : start + 2], "little") + 1) & 0xFFFF
    number = number if number not in (0, 0xFFFF) else 1
    record[start : start + 2] = number.to_bytes(2, "little")
    for index in range(1, count):
        end = index * _FIXUP_STRIDE
        record[start + 2 * index : start + 2 * index + 2] = record[end - 2 : end]
        record[end - 2 : end] = number.to_bytes(2, "little")
