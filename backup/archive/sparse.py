"""Files with holes: the format that GNU tar calls sparse 1.0, readable by every tar that knows it.

The content of such a member begins with a map: the number of regions, then of each its offset and
length, a decimal number a line, padded to whole blocks; the regions' bytes follow, each from a
block on. What no region covers is a hole.
"""

from collections.abc import Iterable, Sequence

from serverfree.backup.archive.member import ArchiveError
from serverfree.backup.archive.pax import BLOCK, Record, encode

Region = tuple[int, int]
"""(offset, length) of what is no hole."""

MOST_REGIONS = 1 << 23
"""Of a file, that are written or read: as much as memory is to be had for."""
_LONGEST_NUMBER = 20  # digits
_ENTRY = 24


def holes_in(regions: Sequence[Region], size: int) -> bool:
    """Whether the regions, in order, leave any of `size` bytes out."""
    return sum(length for _, length in regions) != size


def pack_map(regions: Iterable[Region], size: int) -> bytes:
    """The map. A file that ends in a hole has an empty region where it ends: the size it gets."""
    entries = list(regions)
    if not entries or sum(entries[-1]) < size:
        entries.append((size, 0))
    lines = [str(len(entries))]
    for offset, length in entries:
        lines += (str(offset), str(length))
    text = ("\n".join(lines) + "\n").encode()
    return text + bytes(-len(text) % BLOCK)


def records_of(path: str, size: int) -> list[Record]:
    """The records that say that a member is such a file, its own name and size."""
    return [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", encode(path)),
        ("GNU.sparse.realsize", str(size).encode()),
    ]


def shown_name(path: str) -> str:
    """The name by which GNU tar shows such a member to programs that do not know the format."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/GNUSparseFile.0/{name}" if folder else f"GNUSparseFile.0/{name}"


# ---------------------------------------------------------------------- and back, whosever it is


class MapReader:
    """The map of sparse 1.0, fed in pieces of whole blocks until it is `done`."""

    def __init__(self) -> None:
        self.regions: list[Region] = []
        self.done = False
        self.fed = 0
        self._left: int | None = None  # numbers to come
        self._offset: int | None = None
        self._rest = b""

    def feed(self, data: bytes) -> int:
        """Take blocks; return how many bytes of them belong to the map. Raises ArchiveError."""
        before = len(self._rest)
        text = self._rest + data
        at = 0
        while not self.done:
            end = text.find(b"\n", at, at + _LONGEST_NUMBER + 1)
            if end < 0:
                if len(text) - at > _LONGEST_NUMBER:
                    raise ArchiveError("the map of a sparse file is not made of numbers")
                self._rest = text[at:]
                self.fed += len(data)
                return len(data)
            self._take(decimal(text[at:end]))
            at = end + 1
        used = at - before
        used += -(self.fed + used) % BLOCK
        self.fed += used
        return used

    def _take(self, number: int) -> None:
        if self._left is None:
            if number > MOST_REGIONS:
                raise ArchiveError(f"a sparse file of {number} regions")
            self._left = 2 * number
        else:
            self._left -= 1
            if self._offset is None:
                self._offset = number
            else:
                self.regions.append((self._offset, number))
                self._offset = None
        self.done = not self._left


def parse_list(value: bytes) -> list[Region]:
    """The map of sparse 0.1: offset,length,offset,length,... Raises ArchiveError."""
    numbers = value.split(b",") if value else []
    if len(numbers) % 2 or len(numbers) > 2 * MOST_REGIONS:
        raise ArchiveError("the map of a sparse file is not made of pairs")
    found = [decimal(number) for number in numbers]
    return list(zip(found[::2], found[1::2], strict=True))


def parse_entries(field: bytes) -> tuple[Region, ...]:
    """The entries of GNU tar's own format: two numbers of 12 bytes each, up to an empty one."""
    found = []
    for at in range(0, len(field) - _ENTRY + 1, _ENTRY):
        offset, length = field[at : at + 12], field[at + 12 : at + _ENTRY]
        if not length.strip(b"\0 "):
            break
        found.append((_field(offset), _field(length)))
    return tuple(found)


def parse_extension(block: bytes) -> tuple[tuple[Region, ...], bool]:
    """An extension header of that format: its entries, and whether another follows."""
    return parse_entries(block[: 21 * _ENTRY]), bool(block[21 * _ENTRY])


def decimal(digits: bytes) -> int:
    """A number as records and maps have it. Raises ArchiveError."""
    if not digits.isdigit() or len(digits) > _LONGEST_NUMBER:
        raise ArchiveError("a number that is not decimal")
    return int(digits)


def _field(field: bytes) -> int:
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.strip(b" \0")
    if digits and not all(0x30 <= digit <= 0x37 for digit in digits):
        raise ArchiveError("a region of a sparse file that is no number")
    return int(digits or b"0", 8)
