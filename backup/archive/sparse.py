"""Files with holes: the format that GNU tar calls sparse 1.0, readable by every tar that knows it.

The content of such a member begins with a map: the number of regions, then of each its offset and
length, a decimal number a line, padded to whole blocks; the regions' bytes follow, each from a
block on. What no region covers is a hole.
"""

from collections.abc import Iterable, Sequence

from serverfree.backup.archive.pax import BLOCK, Record, encode

Region = tuple[int, int]
"""(offset, length) of what is no hole."""


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
