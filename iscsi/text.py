"""The key=value text of login, text and SendTargets (RFC 7143 6.1): bytes on the wire <-> pairs."""

import re
from collections.abc import Iterable

from serverfree.iscsi.errors import ProtocolError

Buffer = bytes | bytearray | memoryview
Pair = tuple[str, str]

# 6.1: a key name has at most 63 characters, begins with a capital letter (X- and X# keys do too).
# "iSCSIProtocolLevel" (13.24) breaks the RFC's own rule, so any letter may begin a name here.
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9.\-+@_#]{0,62}")
# 6.1: decimal without leading zeros, or hexadecimal; below 2**64.
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,16}|0|[1-9][0-9]{0,19}")

# 6.2 asks that at least 8192 bytes be taken, 64 KiB where authentication items are very long.
# Nothing we negotiate needs more; a peer that goes on sending is cut off there.
MAX_TEXT = 65536

# 6.2: the values with a meaning of their own in any negotiation.
NOT_UNDERSTOOD = "NotUnderstood"
IRRELEVANT = "Irrelevant"
REJECT = "Reject"
RESERVED_VALUES = frozenset((NOT_UNDERSTOOD, IRRELEVANT, REJECT))


class TextError(ProtocolError):
    """The text is not key=value pairs of 6.1."""


def pack(pairs: Iterable[Pair]) -> bytes:
    """Return the pairs as NUL-terminated UTF-8 text."""
    return b"".join(f"{key}={value}\0".encode() for key, value in pairs)


def unpack(data: Buffer) -> list[Pair]:
    """Return the pairs in the order sent; a key may come twice (SendTargets).

    Empty strings between NULs are passed over: some initiators pad their text with them. A last
    pair without its NUL is taken too, as every known target does. Raises TextError.
    """
    try:
        text = bytes(data).decode()
    except UnicodeDecodeError as error:
        raise TextError(f"text is not UTF-8: {error.reason} at byte {error.start}") from None
    pairs = []
    for item in text.split("\0"):
        if not item:
            continue
        key, equals, value = item.partition("=")
        if not equals or not _KEY.fullmatch(key):
            raise TextError(f"{item[:80]!r} is not key=value")
        pairs.append((key, value))
    return pairs


def parse_number(value: str) -> int | None:
    """Return a numerical-value of 6.1, None if it is none."""
    if not _NUMBER.fullmatch(value):
        return None
    number = int(value, 16 if value[:2] in ("0x", "0X") else 10)
    return number if number < 1 << 64 else None


def parse_boolean(value: str) -> bool | None:
    """Return a boolean-value of 6.1, None if it is none."""
    return {"Yes": True, "No": False}.get(value)


def format_boolean(value: bool) -> str:
    return "Yes" if value else "No"


class TextBuffer:
    """Text that comes in several PDUs (C bit, 11.12.2): pairs may lie across their borders."""

    def __init__(self, limit: int = MAX_TEXT) -> None:
        self._limit = limit
        self._data = bytearray()

    def append(self, data: Buffer) -> None:
        """Add one PDU's data segment. Raises TextError past the limit."""
        if len(self._data) + len(data) > self._limit:
            raise TextError(f"text goes past {self._limit} bytes")
        self._data += data

    def take(self) -> list[Pair]:
        """Return the pairs of the finished sequence and begin the next."""
        data, self._data = self._data, bytearray()
        return unpack(data)
