"""An archive, written from its beginning to its end as pieces: each knows where it will lie."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import lcm
from typing import Any

from serverfree.backup.archive import pax, sparse
from serverfree.backup.archive.member import ArchiveError, Data, Kind, Member
from serverfree.backup.archive.pax import BLOCK
from serverfree.backup.pieces import FromDisk, Inline, Piece

XATTR = "SCHILY.xattr.system."
"""How the records of attributes begin: GNU tar and star restore them as extended attributes."""

# An attribute is set when those before it are there: through a reparse point nothing reaches the
# directory itself, so that comes last; all else changes times.
_ORDER = (
    "ntfs_acl",
    "ntfs_object_id",
    "ntfs_ea",
    "ntfs_dos_name",
    "ntfs_attrib",
    "ntfs_times",
    "ntfs_reparse_data",
)
REPARSE = "ntfs_reparse_data"
"""Of a file it goes into our note: GNU tar would set it before it writes the content, which then
has nowhere to go (tried with 1.34).
"""
_RANK = {name: rank for rank, name in enumerate(_ORDER)}

_TYPES = {
    Kind.FILE: pax.REGULAR,
    Kind.IMAGE: pax.REGULAR,
    Kind.CATALOG: pax.REGULAR,
    Kind.DIRECTORY: pax.DIRECTORY,
    Kind.HARD_LINK: pax.LINK,
    Kind.SYMBOLIC_LINK: pax.SYMBOLIC_LINK,
}


@dataclass(frozen=True, slots=True)
class Flow:
    """`length` bytes of content that are made when they are needed, and come from the server.

    `chunks` is called once. What it falls short of is zeros, and the member is marked as damaged.
    """

    length: int
    chunks: Callable[[], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class Content:
    """What a member holds from its byte `start` on."""

    start: int
    source: Piece | Flow


class ArchiveWriter:
    """Keeps count of where the next header will lie (`offset`).

    The pieces of a member are used up before the next member is asked for.
    """

    def __init__(self) -> None:
        self.offset = 0

    def begin(self, facts: Mapping[str, Any]) -> list[Piece]:
        """Return the pieces of the header that tells what the archive is."""
        return self._count([Inline(pax.pack_global([pax.note(facts)]))])

    def put(self, member: Member, content: Sequence[Content] = ()) -> Iterator[Piece]:
        """Return a member's pieces, and enter into it where everything will lie.

        `content` ascends and does not overlap; what it leaves out is a hole. Between holes it is
        whole blocks of 512 bytes, as clusters are. Raises ArchiveError for what no archive holds.
        """
        path = _name_of(member)
        regions = _regions(content)
        if regions and sum(regions[-1]) > member.size:
            raise ArchiveError(f"{path}: content beyond its size of {member.size} bytes")
        if any(length % BLOCK for _, length in regions[:-1]):
            raise ArchiveError(f"{path}: a hole begins inside a block of {BLOCK} bytes")
        if len(regions) >= sparse.MOST_REGIONS:
            raise ArchiveError(f"{path}: {len(regions)} regions between holes are too many")
        length = sum(length for _, length in regions)
        records = [pax.note(_facts_of(member))]
        shown, table = "", b""
        if sparse.holes_in(regions, member.size):
            table = sparse.pack_map(regions, member.size)
            records = [*sparse.records_of(path, member.size), *records]
            shown = sparse.shown_name(path)
        for name in sorted(member.attributes, key=lambda name: (_RANK.get(name, 0), name)):
            if name != REPARSE or member.kind is Kind.DIRECTORY:
                records.append((XATTR + name, member.attributes[name]))
        header = pax.pack_member(
            path,
            _TYPES[member.kind],
            len(table) + length,
            member.modified,
            records,
            link=_link_of(member),
            shown=shown,
        )
        member.header_offset = self.offset
        at = self.offset + len(header) + len(table)
        places = []
        for start, size in regions:
            places.append(Data(start, size, at))
            at += size
        member.data = tuple(places)
        member.server_bytes = sum(
            each.source.length for each in content if not isinstance(each.source, FromDisk)
        )
        padding = -at % BLOCK
        self.offset = member.end_offset = at + padding
        return _pieces(member, header + table, content, padding)

    def fill(self, grain: int) -> list[Piece]:
        """Return pieces that every reader passes over, up to a multiple of `grain` bytes."""
        grain = lcm(grain, BLOCK)
        gap = -self.offset % grain
        if gap == BLOCK:
            gap += grain  # a header with nothing in it is none
        fillers: list[Piece] = []
        while gap:
            size = min(gap, _LONGEST_FILLER)
            if gap - size == BLOCK:
                size -= BLOCK
            fillers.append(Inline(pax.pack_filler(size)))
            gap -= size
        return self._count(fillers)

    def end(self) -> list[Piece]:
        """Return the pieces that end an archive."""
        return self._count([Inline(pax.END)])

    def _count(self, pieces: list[Piece]) -> list[Piece]:
        self.offset += sum(piece.length for piece in pieces)
        return pieces


def _name_of(member: Member) -> str:
    """Return the name in the header; "./" is where an archive is unpacked."""
    path = member.path
    parts = path.split("/") if path else []
    if (
        "/" in member.stream
        or "\0" in path + member.stream
        or any(part in ("", ".", "..") for part in parts)
    ):
        raise ArchiveError(f"{path!r} is no name for a member")
    if member.stream:
        return f"{path or './'}:{member.stream}"
    if member.kind is Kind.DIRECTORY:
        return f"{path or '.'}/"
    return path


def _link_of(member: Member) -> str:
    return member.link_target if member.kind in (Kind.HARD_LINK, Kind.SYMBOLIC_LINK) else ""


def _facts_of(member: Member) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if member.kind in (Kind.IMAGE, Kind.CATALOG):
        facts["kind"] = member.kind.value
    if member.number is not None:
        facts["file"] = member.number
        facts["sequence"] = member.sequence
    if member.stream:
        facts["stream"] = member.stream
    if member.kind is Kind.FILE and REPARSE in member.attributes:
        facts["reparse"] = member.attributes[REPARSE].hex()
    if member.reason is not None:
        facts["reason"] = member.reason.value
    return facts


def _regions(content: Iterable[Content]) -> list[sparse.Region]:
    """Join what lies together."""
    regions: list[sparse.Region] = []
    for each in content:
        length = each.source.length
        if not length:
            continue
        end = sum(regions[-1]) if regions else 0
        if each.start < end:
            raise ArchiveError(f"content from byte {each.start} on overlaps what precedes it")
        if regions and each.start == end:
            regions[-1] = regions[-1][0], regions[-1][1] + length
        else:
            regions.append((each.start, length))
    return regions


def _pieces(
    member: Member, header: bytes, content: Sequence[Content], padding: int
) -> Iterator[Piece]:
    yield Inline(header)
    for each in content:
        if isinstance(each.source, Flow):
            yield from _flow(member, each.source)
        elif each.source.length:
            yield each.source
    if padding:
        yield Inline(bytes(padding))


def _flow(member: Member, flow: Flow) -> Iterator[Piece]:
    """Exactly as much as was promised in the header, whatever comes."""
    left = flow.length
    chunks = flow.chunks()
    while left:
        try:
            chunk = next(chunks, b"")
        except Unreadable as why:
            member.damage = str(why)
            break
        if not chunk:
            member.damage = f"{left} bytes are missing"
            break
        yield Inline(chunk[:left])
        left -= len(chunk[:left])
    while left:
        size = min(left, _ZEROS)
        yield Inline(bytes(size))
        left -= size


_ZEROS = 64 << 10
_LONGEST_FILLER = 512 << 10  # libarchive takes no header of more than a MiB


class Unreadable(Exception):
    """Raised by the chunks of a Flow: the rest cannot be had; the text says why."""
