"""File records changed where no program of NTFS-3G can: valid lengths, times, the dirty mark.

Clusters that were filled behind the file system's back become content by the valid length alone,
so it is set when they are full: until then a stream reads as zeros.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from struct import Struct

from serverfree.backup.files import Extent
from serverfree.backup.restore.shadow import Shadow
from serverfree.backup.restore.wanted import RestoreError

_MAGIC = b"FILE"
_FIXUP_STRIDE = 512  # whatever the sector size
_PIECE = 1 << 20
_ATTRIBUTE = Struct("<IIBBHHH")
_RESIDENT = Struct("<IH")  # behind it: length and place of the value
_IN_USE = 0x0001
_STANDARD_INFORMATION, _VOLUME_INFORMATION, _DATA, _END = 0x10, 0x70, 0x80, 0xFFFFFFFF
_BASE_RECORD, _FLAGS, _FIRST_ATTRIBUTE = 0x20, 0x16, 0x14
_LOWEST_VCN, _DATA_SIZE, _INITIALIZED_SIZE = 0x10, 0x30, 0x38
_TIMES = Struct("<4Q")  # made, content changed, record changed, read
_VOLUME_FLAGS = 10
_DIRTY = 0x0001


@dataclass(slots=True)
class Changes:
    """What is to be set. `valid` is by number of the file and name of the stream; `times`, by
    number, are the four as `ntfs_times` has them: made, content changed, read, record changed.
    """

    valid: dict[tuple[int, str], int] = field(default_factory=dict)
    times: dict[int, bytes] = field(default_factory=dict)


def change_records(
    shadow: Shadow, mft: Iterable[Extent], record_size: int, changes: Changes
) -> None:
    """Make the changes in the shadow. `mft` are the extents of the $MFT's data.

    Raises RestoreError unless each stream has been found, and is long enough.
    """
    files = {number for number, _ in changes.valid} | set(changes.times)
    left = dict(changes.valid)
    for place, number, raw in _records(shadow, mft, record_size):
        base = int.from_bytes(raw[_BASE_RECORD : _BASE_RECORD + 6], "little") or number
        if base not in files or raw[:4] != _MAGIC:
            continue
        if not int.from_bytes(raw[_FLAGS : _FLAGS + 2], "little") & _IN_USE:
            continue
        record = bytearray(raw)
        unprotect(record)
        before = bytes(record)
        _set_valid(record, base, left)
        if base == number and base in changes.times:
            _set_times(record, changes.times[base])
        if record != before:
            protect(record)
            shadow.write_at(place, bytes(record))
    if left:
        (number, name), *more = left
        others = f" and {len(more)} more" if more else ""
        raise RestoreError(f"file record {number} has no clusters for stream {name!r}{others}")


def _set_valid(record: bytearray, base: int, left: dict[tuple[int, str], int]) -> None:
    for at, kind, non_resident, name in _attributes(record):
        first = int.from_bytes(record[at + _LOWEST_VCN : at + _LOWEST_VCN + 8], "little")
        if kind != _DATA or not non_resident or first:
            continue
        valid = left.pop((base, name), None)
        if valid is None:
            continue
        size = int.from_bytes(record[at + _DATA_SIZE : at + _DATA_SIZE + 8], "little")
        if valid > size:
            raise RestoreError(f"file record {base}: {valid} valid bytes of {size}")
        record[at + _INITIALIZED_SIZE : at + _INITIALIZED_SIZE + 8] = valid.to_bytes(8, "little")


def _set_times(record: bytearray, times: bytes) -> None:
    made, changed, read, record_changed = _TIMES.unpack(times)
    for at, kind, non_resident, _ in _attributes(record):
        if kind == _STANDARD_INFORMATION and not non_resident:
            _, value = _RESIDENT.unpack_from(record, at + _ATTRIBUTE.size)
            _TIMES.pack_into(record, at + value, made, changed, record_changed, read)


def marked_dirty(record: bytes) -> bytes:
    """Return the record of $Volume with the mark that the volume is to be checked."""
    changed = bytearray(record)
    unprotect(changed)
    for at, kind, non_resident, _ in _attributes(changed):
        if kind == _VOLUME_INFORMATION and not non_resident:
            _, value = _RESIDENT.unpack_from(changed, at + _ATTRIBUTE.size)
            changed[at + value + _VOLUME_FLAGS] |= _DIRTY
            protect(changed)
            return bytes(changed)
    raise RestoreError("the volume's record has no flags")


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


def _attributes(record: bytearray) -> Iterator[tuple[int, int, bool, str]]:
    """Yield where each attribute begins, its type, whether it has clusters, and its name."""
    at = int.from_bytes(record[_FIRST_ATTRIBUTE : _FIRST_ATTRIBUTE + 2], "little")
    while at + _ATTRIBUTE.size + _RESIDENT.size <= len(record):
        kind, length, non_resident, name_length, name_at, _, _ = _ATTRIBUTE.unpack_from(record, at)
        if kind == _END or length < _ATTRIBUTE.size or at + length > len(record):
            return
        name = record[at + name_at : at + name_at + 2 * name_length]
        yield at, kind, bool(non_resident), name.decode("utf-16-le", "surrogatepass")
        at += length


def unprotect(record: bytearray) -> None:
    """Put back what the update sequence stands for at the end of each 512 bytes."""
    start, count = _sequence(record)
    number = record[start : start + 2]
    for index in range(1, count):
        end = index * _FIXUP_STRIDE
        if record[end - 2 : end] != number:
            raise RestoreError("a file record is torn")
        record[end - 2 : end] = record[start + 2 * index : start + 2 * index + 2]


def protect(record: bytearray) -> None:
    """Give the record its next update sequence number, and put it at the end of each 512 bytes."""
    start, count = _sequence(record)
    number = (int.from_bytes(record[start : start + 2], "little") + 1) & 0xFFFF
    number = number if number not in (0, 0xFFFF) else 1
    record[start : start + 2] = number.to_bytes(2, "little")
    for index in range(1, count):
        end = index * _FIXUP_STRIDE
        record[start + 2 * index : start + 2 * index + 2] = record[end - 2 : end]
        record[end - 2 : end] = number.to_bytes(2, "little")


def _sequence(record: bytearray) -> tuple[int, int]:
    start, count = (int.from_bytes(record[at : at + 2], "little") for at in (4, 6))
    if count != len(record) // _FIXUP_STRIDE + 1 or start + 2 * count > _FIXUP_STRIDE - 2:
        raise RestoreError("a file record has no right update sequence")
    return start, count
