"""Header blocks of a POSIX pax archive (IEEE 1003.1, pax), as bytes.

A member of ours is a pax header with the records that a ustar header has no room for, and the
ustar header. What goes into the ustar header is plain ASCII: who reads no pax still finds a name.
"""

import json
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from serverfree.backup.archive.member import ArchiveError

BLOCK = 512
"""Headers and content of an archive begin at multiples of it."""
END = bytes(2 * BLOCK)
"""What ends an archive."""
MODE = {b"5": 0o755}
_FILE_MODE = 0o644
_LARGEST = 8**11 - 1  # what eleven octal digits can say
_NAME = 100
_NANOSECONDS = 10**9
_MARK = "serverfree "
_encode_json = json.JSONEncoder(separators=(",", ":")).encode

REGULAR, LINK, SYMBOLIC_LINK, DIRECTORY = b"0", b"1", b"2", b"5"
EXTENDED, GLOBAL = b"x", b"g"

_USTAR = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12x")
_BLANK_SUM = b" " * 8
_SUM_AT = 148

Record = tuple[str, bytes]


def encode(path: str) -> bytes:
    """A path as it stands in an archive. Half a surrogate pair, which NTFS allows, is kept."""
    return path.encode("utf-8", "surrogatepass")


def pack_record(key: str, value: bytes) -> bytes:
    """One record: its length in decimal, with the digits themselves counted, then KEY=VALUE."""
    name = key.encode()
    rest = len(name) + len(value) + 3  # the blank, "=" and the newline
    digits = len(str(rest))
    if len(str(rest + digits)) != digits:
        digits += 1
    return b"%d %s=%s\n" % (rest + digits, name, value)


def pack_time(nanoseconds: int) -> bytes:
    """A time as a pax record has it: decimal, with as much of a fraction as there is."""
    seconds, fraction = divmod(abs(nanoseconds), _NANOSECONDS)
    text = f"{'-' if nanoseconds < 0 else ''}{seconds}"
    if fraction:
        text += f".{fraction:09}".rstrip("0")
    return text.encode()


def note(facts: Mapping[str, Any]) -> Record:
    """Facts of ours, as the record that every reader passes over in silence."""
    return "comment", (_MARK + _encode_json(facts)).encode()


def facts_of(comment: bytes) -> dict[str, Any] | None:
    """Return the facts that `note` made a comment of, None for a comment of somebody else."""
    if not comment.startswith(_MARK.encode()):
        return None
    try:
        facts = json.loads(comment[len(_MARK) :])
    except (ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) else None


def pack_global(records: Iterable[Record]) -> bytes:
    """The header for all members that follow."""
    return _pack_records(GLOBAL, b"pax_global_header", records)


def pack_filler(size: int) -> bytes:
    """Blocks of `size` bytes, at least two, that hold nothing: a global header with a comment."""
    record = size - BLOCK
    return _pack_records(GLOBAL, b"pax_global_header", [_blank(record)])


def _blank(length: int) -> Record:
    """A comment that makes a record of so many bytes."""
    return "comment", b" " * (length - len(f"{length} comment=\n"))


def pack_member(
    path: str,
    kind: bytes,
    size: int,
    modified: int,
    records: Iterable[Record] = (),
    *,
    link: str = "",
    shown: str = "",
) -> bytes:
    """All header blocks of a member.

    `size` is what of the archive its content takes, without padding. `modified` is nanoseconds
    since 1970. With `shown`, readers that know no better see the member under that name, and
    `path` is the records' business.
    """
    more: list[Record] = []
    name = _short(shown or path, "" if shown else "path", more)
    target = _short(link, "linkpath", more)
    seconds, fraction = divmod(modified, _NANOSECONDS)
    if fraction or not 0 <= seconds <= _LARGEST:
        more.append(("mtime", pack_time(modified)))
    if size > _LARGEST:
        more.append(("size", str(size).encode()))
    more += records
    header = _pack_ustar(
        name,
        kind,
        size if size <= _LARGEST else 0,
        min(max(seconds, 0), _LARGEST),
        target,
    )
    if not more:
        return header
    return _pack_records(EXTENDED, b"PaxHeaders/" + name[:80], more) + header


def _short(text: str, key: str, records: list[Record]) -> bytes:
    """Return what of a name fits a ustar header; if that is not all, a record has it all."""
    whole = encode(text)
    if text.isascii() and len(whole) <= _NAME:
        return whole
    if key:
        records.append((key, whole))
    return text.encode("ascii", "replace")[:_NAME]


def _pack_records(kind: bytes, name: bytes, records: Iterable[Record]) -> bytes:
    body = b"".join([pack_record(key, value) for key, value in records])
    if len(body) > _LARGEST:
        raise ArchiveError("attributes of more than 8 GiB")
    return _pack_ustar(name, kind, len(body), 0, b"") + body + bytes(-len(body) % BLOCK)


def _pack_ustar(name: bytes, kind: bytes, size: int, seconds: int, link: bytes) -> bytes:
    block = bytearray(
        _USTAR.pack(
            name,
            b"%07o" % MODE.get(kind, _FILE_MODE),
            b"%07o" % 0,
            b"%07o" % 0,
            b"%011o" % size,
            b"%011o" % seconds,
            _BLANK_SUM,
            kind,
            link,
            b"ustar",
            b"00",
            b"",
            b"",
            b"%07o" % 0,
            b"%07o" % 0,
            b"",
        )
    )
    block[_SUM_AT : _SUM_AT + 8] = b"%06o\0 " % sum(block)
    return bytes(block)
