"""Reading headers back: ours, and as far as possible those of any tar.

POSIX pax and ustar, GNU tar's own format (long names, sizes in base 256, its sparse headers), GNU
tar's three ways to keep sparse files in pax, and what was before ustar. Content is never read, only
where it lies is told, so that a tape can be located past it.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

from serverfree.backup.archive import pax, sparse
from serverfree.backup.archive.header import Header, parse_header, parse_records, text_of
from serverfree.backup.archive.member import ArchiveError, Data, Kind, Member, Reason
from serverfree.backup.archive.pax import BLOCK
from serverfree.backup.archive.writer import REPARSE, XATTR

Read = Callable[[int, int], bytes]
"""Return `length` bytes from an offset of the archive; fewer only where it ends."""

_LONGEST_RECORDS = 64 << 20
_LONGEST_NAME = 1 << 20
_MAP_CHUNK = 64 << 10
_LARGEST = 1 << 63
_ANY_XATTR = "SCHILY.xattr."

_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"S": Kind.FILE,
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMBOLIC_LINK,
    b"5": Kind.DIRECTORY,
    b"D": Kind.DIRECTORY,
}
# Whatever size their headers state, nothing follows it.
_EMPTY = b"123456"


class ArchiveReader:
    """The members of an archive, one after the other, as `read` gives what is asked for.

    Offsets asked for ascend. `facts` are those of an archive of ours, from its first header on.
    `complete` is whether the end of the archive has been seen; without it, it is cut short.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._global: dict[str, bytes] = {}
        self.facts: dict[str, Any] | None = None
        self.complete = False
        self.offset = 0
        """Where the next header is looked for; in the end, where the end begins."""

    def members(self) -> Iterator[Member]:
        """Yield the members. Raises ArchiveError for what is no header, or contradicts itself."""
        try:
            while (member := self._member()) is not None:
                yield member
        except _CutShortError:
            return

    def _member(self) -> Member | None:
        """Read the headers of one member, None at the end."""
        begin = self.offset
        records: dict[str, bytes] = {}
        pairs: list[sparse.Region] = []
        name = link = b""
        at = begin
        while True:
            block = self._exactly(at, BLOCK)
            if not block.strip(b"\0"):
                self.complete = self._read(at + BLOCK, BLOCK) == bytes(BLOCK)
                return None
            try:
                header = parse_header(block)
            except ArchiveError as why:
                raise ArchiveError(f"byte {at}: {why}") from why
            at += BLOCK
            match header.kind:
                case b"x" | b"X":
                    records, pairs = parse_records(self._body(at, header, _LONGEST_RECORDS))
                case b"g":
                    found, _ = parse_records(self._body(at, header, _LONGEST_RECORDS))
                    self._global |= found
                    if self.facts is None:
                        self.facts = pax.facts_of(found.get("comment", b""))
                    if begin == at - BLOCK:
                        begin = at + _padded(header.size)  # it is of all that follow
                case b"L":
                    name = self._body(at, header, _LONGEST_NAME).split(b"\0")[0]
                case b"K":
                    link = self._body(at, header, _LONGEST_NAME).split(b"\0")[0]
                case _:
                    break
            at += _padded(header.size)
        return self._assemble(begin, at, header, {**self._global, **records}, pairs, name, link)

    def _assemble(
        self,
        begin: int,
        at: int,
        header: Header,
        records: dict[str, bytes],
        pairs: list[sparse.Region],
        name: bytes,
        link: bytes,
    ) -> Member:
        """Make a member of its headers, the last of which ends at byte `at`."""
        shown = records.get("GNU.sparse.name") or records.get("path") or name or header.name
        kind = _KINDS.get(header.kind, Kind.OTHER)
        if kind is Kind.FILE and shown.endswith(b"/"):
            kind = Kind.DIRECTORY
        archived = 0
        if header.kind not in _EMPTY:
            archived = _number(records, "size", header.size)
        member = Member(
            _path(text_of(shown)),
            kind,
            modified=_time(records.get("mtime", b""), header.modified * 10**9),
            header_offset=begin,
            attributes=_attributes(records),
        )
        if kind in (Kind.HARD_LINK, Kind.SYMBOLIC_LINK):
            target = text_of(records.get("linkpath") or link or header.link)
            member.link_target = _path(target) if kind is Kind.HARD_LINK else target
        start, end = at, at + archived
        regions: list[sparse.Region] | None = None
        if header.kind == b"S":
            start, regions = self._old_sparse(at, header)
            end = start + archived
            member.size = header.real_size
        elif kind is Kind.FILE and records.get("GNU.sparse.major") == b"1":
            start, regions = self._map(at, archived)
            member.size = _number(records, "GNU.sparse.realsize", 0)
        elif kind is Kind.FILE and "GNU.sparse.map" in records:
            regions = sparse.parse_list(records["GNU.sparse.map"])
            member.size = _number(records, "GNU.sparse.size", archived)
        elif kind is Kind.FILE and "GNU.sparse.numblocks" in records:
            regions = pairs
            member.size = _number(records, "GNU.sparse.size", archived)
        elif kind in (Kind.FILE, Kind.OTHER):
            member.size = archived
        if max(end, member.size) >= _LARGEST:
            raise ArchiveError(f"byte {begin}: a member of {max(end, member.size)} bytes")
        if regions is None:
            regions = [(0, member.size)] if member.size else []
        member.data = _places(regions, member.size, start, end)
        self.offset = member.end_offset = _padded(end)
        _enter_facts(member, pax.facts_of(records.get("comment", b"")))
        return member

    def _map(self, at: int, archived: int) -> tuple[int, list[sparse.Region]]:
        """Read the map in front of sparse content; return where it ends, and the regions."""
        reading = sparse.MapReader()
        end = at + archived
        while not reading.done:
            if at >= end:
                raise ArchiveError("the map of a sparse file is longer than the file")
            # Most maps are short, and what follows a long one is not read in vain.
            chunk = self._exactly(at, min(_MAP_CHUNK if reading.fed else BLOCK, end - at))
            at += reading.feed(chunk)
        return at, reading.regions

    def _old_sparse(self, at: int, header: Header) -> tuple[int, list[sparse.Region]]:
        """Read the extension headers of GNU tar's own sparse format."""
        regions = list(header.regions)
        more = header.extended
        while more:
            if len(regions) > sparse.MOST_REGIONS:
                raise ArchiveError("a sparse file of too many regions")
            found, more = sparse.parse_extension(self._exactly(at, BLOCK))
            regions += found
            at += BLOCK
        return at, regions

    def _body(self, at: int, header: Header, most: int) -> bytes:
        if header.size > most:
            raise ArchiveError(f"byte {at}: {header.size} bytes of records")
        return self._exactly(at, header.size)

    def _exactly(self, at: int, length: int) -> bytes:
        data = self._read(at, length)
        if len(data) < length:
            raise _CutShortError
        return data


class _CutShortError(Exception):
    """The archive ends inside a header."""


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _places(regions: list[sparse.Region], size: int, start: int, end: int) -> tuple[Data, ...]:
    """Hold regions against the size of the file and of what is archived of it."""
    places = []
    for offset, length in regions:
        if offset + length > size or start + length > end:
            raise ArchiveError("a region of a sparse file lies outside of it")
        if length:
            places.append(Data(offset, length, start))
        start += length
    return tuple(places)


def _path(path: str) -> str:
    """A path as a Member has it: from the root of the archive, nothing in front or behind."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return "/".join(parts)


def _number(records: dict[str, bytes], key: str, default: int) -> int:
    value = records.get(key)
    if not value:
        return default
    number = sparse.decimal(value)
    if number >= _LARGEST:
        raise ArchiveError(f"{key} of {number}")
    return number


def _time(value: bytes, default: int) -> int:
    """Nanoseconds of a pax time; the header's own for none, or one that makes no sense."""
    whole, _, fraction = value.removeprefix(b"-").partition(b".")
    nanoseconds = default
    if whole.isdigit() and len(whole) <= 18 and (not fraction or fraction.isdigit()):
        nanoseconds = int(whole) * 10**9 + int(fraction[:9].ljust(9, b"0"))
        if value.startswith(b"-"):
            nanoseconds = -nanoseconds
    return max(-_LARGEST, min(nanoseconds, _LARGEST - 1))


def _attributes(records: dict[str, bytes]) -> dict[str, bytes]:
    found = {}
    for key, value in records.items():
        if key.startswith(XATTR + "ntfs_"):
            found[key.removeprefix(XATTR)] = value
        elif key.startswith(_ANY_XATTR):
            found[key.removeprefix(_ANY_XATTR)] = value
    return found


def _is_number(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and 0 <= value < _LARGEST


def _enter_facts(member: Member, facts: dict[str, Any] | None) -> None:
    """Enter what a header of ours says beside, which may be anybody's: each fact by itself."""
    facts = facts or {}
    kind, stream, reason = facts.get("kind"), facts.get("stream"), facts.get("reason")
    if member.kind is Kind.FILE and kind in (Kind.IMAGE.value, Kind.CATALOG.value):
        member.kind = Kind(kind)
    number, sequence = facts.get("file"), facts.get("sequence")
    if _is_number(number) and _is_number(sequence):
        member.number, member.sequence = number, sequence
    if isinstance(stream, str) and stream and member.path.endswith(f":{stream}"):
        member.path = member.path.removesuffix(f":{stream}")
        member.stream = stream
    reparse = facts.get("reparse")
    if isinstance(reparse, str):
        with contextlib.suppress(ValueError):
            member.attributes = {**member.attributes, REPARSE: bytes.fromhex(reparse)}
    if isinstance(reason, str) and reason in {one.value for one in Reason}:
        member.reason = Reason(reason)
        member.server_bytes = sum(each.length for each in member.data)
    if ".." in member.path.split("/"):
        member.damage = "its path leads out of the archive"
