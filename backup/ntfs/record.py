"""A file record of the $MFT: its header, and the fixups that tell a torn write from a whole one.

The last two bytes of every 512 hold the record's update sequence number; what belongs there lies in
an array in the header. It is 512 whatever the sectors of the disk are.
"""

from dataclasses import dataclass
from struct import Struct

from serverfree.backup.ntfs.errors import NtfsError

# Magic, offset and count of the update sequence array, log sequence number; sequence number, links,
# offset of the attributes, flags; bytes in use and allocated; base record.
_HEADER = Struct("<4sHHQHHHHIIQ")
_UPDATE_SEQUENCE = Struct("<4xHH")
STRIDE = 512
MAGIC = b"FILE"
IN_USE, DIRECTORY = 1, 2
NUMBER_MASK = (1 << 48) - 1


@dataclass(slots=True)
class Record:
    """`data` is the record as it was before fixups went in, as far as it is in use.

    `base` is the number of the record that this one extends, or 0; `base_sequence` likewise.
    """

    number: int
    sequence: int
    flags: int
    attributes: int
    base: int
    base_sequence: int
    data: bytes

    @property
    def is_directory(self) -> bool:
        return bool(self.flags & DIRECTORY)


def undo_fixups(buffer: bytearray) -> None:
    """Put back what the update sequence number displaced, in a record or an index block.

    NtfsError where a sector does not bear the number: the write of the whole was torn.
    """
    offset, count = _UPDATE_SEQUENCE.unpack_from(buffer)
    if offset & 1 or count != len(buffer) // STRIDE + 1 or offset + 2 * count > STRIDE:
        raise NtfsError("its update sequence array is out of place")
    number = buffer[offset : offset + 2]
    end = STRIDE - 2
    for at in range(offset + 2, offset + 2 * count, 2):
        if buffer[end : end + 2] != number:
            raise NtfsError(f"torn: bytes {end - 510} to {end + 2} are of another write")
        buffer[end : end + 2] = buffer[at : at + 2]
        end += STRIDE


def unpack_record(data: bytes, number: int) -> Record | None:
    """Decode the record of that number, or return None where it is not in use."""
    magic, _, _, _, sequence, _, attributes, flags, in_use, _, base = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise NtfsError(f"begins with {magic!r} where a file record should")
    if not flags & IN_USE:
        return None
    buffer = bytearray(data)
    undo_fixups(buffer)
    if not _HEADER.size <= attributes <= in_use <= len(buffer) or attributes & 7:
        raise NtfsError(f"attributes from byte {attributes} to {in_use} of {len(buffer)}")
    return Record(
        number, sequence, flags, attributes, base & NUMBER_MASK, base >> 48, bytes(buffer[:in_use])
    )  # fmt: skip


def base_of(data: bytes) -> int:
    """Return the number of the record that a record, even a torn one, says that it extends."""
    return int(_HEADER.unpack_from(data)[10] & NUMBER_MASK)
