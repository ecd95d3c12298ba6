"""One header block, and the records of a pax header, taken apart: whosever they are."""

from dataclasses import dataclass

from serverfree.backup.archive import sparse
from serverfree.backup.archive.member import ArchiveError

_LONGEST_DIGITS = 20
_SUM = slice(148, 156)


@dataclass(frozen=True, slots=True)
class Header:
    """What a header block says by itself. `name` has the prefix of ustar in front."""

    name: bytes
    kind: bytes
    size: int
    modified: int
    link: bytes
    real_size: int = 0
    """Of GNU tar's own sparse format (kind S), with the first `regions`; `extended`: more of them
    follow.
    """
    regions: tuple[sparse.Region, ...] = ()
    extended: bool = False


def parse_header(block: bytes) -> Header:
    """Take a header of 512 bytes apart. Raises ArchiveError for what is none."""
    _check_sum(block)
    kind = block[156:157]
    name, link = _string(block[:100]), _string(block[157:257])
    magic = block[257:265]
    if magic[:6] == b"ustar\0":
        # Joerg Schilling's tar ends its headers so and keeps times behind a shorter prefix.
        prefix = _string(block[345 : 476 if block[508:512] == b"tar\0" else 500])
        if prefix:
            name = prefix + b"/" + name
    size = _number(block[124:136])
    if size < 0 or size >= 1 << 63:
        raise ArchiveError(f"a size of {size} bytes")
    try:
        modified = _number(block[136:148])
    except ArchiveError:
        modified = 0
    if kind != b"S":
        return Header(name, kind, size, modified, link)
    real_size = _number(block[483:495])
    regions = sparse.parse_entries(block[386:482])
    return Header(name, kind, size, modified, link, real_size, regions, bool(block[482]))


def _check_sum(block: bytes) -> None:
    """The sum of all bytes, its own counted as blanks; some have added up signed ones."""
    try:
        stated = _number(block[_SUM])
    except ArchiveError:
        stated = -1
    plain = sum(block) - sum(block[_SUM]) + 8 * ord(" ")
    if stated == plain:
        return
    others = block[: _SUM.start] + block[_SUM.stop :]
    if stated != plain - 256 * sum(byte > 127 for byte in others):
        raise ArchiveError("this is no header of a tar archive")


def _string(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _number(field: bytes) -> int:
    """Octal digits; or, with the highest bit set, a number in two's complement (GNU, star)."""
    if field[0] & 0x80:
        rest = bytes([field[0] & 0x7F if field[0] != 0xFF else 0xFF]) + field[1:]
        return int.from_bytes(rest, "big", signed=field[0] == 0xFF)
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if not all(0x30 <= digit <= 0x37 for digit in digits):
        raise ArchiveError("a number that is not octal")
    return int(digits, 8)


def parse_records(body: bytes) -> tuple[dict[str, bytes], list[sparse.Region]]:
    """Take the records of a pax header apart.

    A later one of the same name holds. Only the regions of GNU tar's sparse format 0.0 come as
    records that repeat; they are returned by themselves. Raises ArchiveError.
    """
    records: dict[str, bytes] = {}
    regions: list[sparse.Region] = []
    offset: int | None = None
    at = 0
    while at < len(body):
        blank = body.find(b" ", at, at + _LONGEST_DIGITS)
        digits = body[at:blank] if blank > 0 else b""
        if not digits.isdigit():
            if not body[at:].strip(b"\0"):
                break  # padding that somebody has counted
            raise ArchiveError("records of a pax header without a length")
        end = at + int(digits)
        key, equals, value = body[blank + 1 : end - 1].partition(b"=")
        if not equals or end > len(body) or body[end - 1 : end] != b"\n":
            raise ArchiveError("a record of a pax header that is not KEY=VALUE")
        if key == b"GNU.sparse.offset":
            offset = sparse.decimal(value)
        elif key == b"GNU.sparse.numbytes":
            regions.append((offset or 0, sparse.decimal(value)))
        else:
            records[text_of(key)] = value
        at = end
    return records, regions


def text_of(raw: bytes) -> str:
    """A name as text: UTF-8, with halves of surrogate pairs, or at least with no byte lost."""
    for errors in ("strict", "surrogatepass"):
        try:
            return raw.decode("utf-8", errors)
        except UnicodeDecodeError:
            continue
    return raw.decode("utf-8", "surrogateescape")
