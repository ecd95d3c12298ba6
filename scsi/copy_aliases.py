"""Alias entries: eight bytes that stand for a SCSI target device (SPC-4 6.2, 6.30, 7.6.2.4)."""

from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct

from serverfree.scsi.designator import ISCSI
from serverfree.scsi.device import Buffer

PROTOCOL_INDEPENDENT = 0x80
NULL_DESIGNATION = 0x00
_ENTRY = Struct(">8sBxxBxxH")
_CHANGE_HEADER = Struct(">I4x")
_REPORT_HEADER = Struct(">IxxH")


@dataclass(frozen=True, slots=True)
class AliasEntry:
    """One entry (table 121). The designation has a multiple of four bytes."""

    value: bytes
    protocol: int
    format: int
    designation: bytes

    @property
    def removes(self) -> bool:
        """Whether it asks for the alias to be removed (6.2.4.2)."""
        return (self.protocol, self.format) == (PROTOCOL_INDEPENDENT, NULL_DESIGNATION)

    @property
    def iscsi_name(self) -> str | None:
        """The iSCSI name that every iSCSI format begins with; None for other protocols."""
        if self.protocol != ISCSI:
            return None
        return self.designation.split(b"\0")[0].decode("utf-8", "replace") or None

    def pack(self) -> bytes:
        """The entry on the wire."""
        head = _ENTRY.pack(self.value, self.protocol, self.format, len(self.designation))
        return head + self.designation


def unpack_change(data: Buffer) -> list[tuple[int, AliasEntry]]:
    """Return the entries of CHANGE ALIASES, each with where it lies.

    Raises ValueError where the header or an entry is cut short.
    """
    raw = bytes(data)
    at = _CHANGE_HEADER.size
    if len(raw) < at:
        raise ValueError("the header is cut short")
    entries = []
    while at < len(raw):
        if at + _ENTRY.size > len(raw):
            raise ValueError("an entry is cut short")
        value, protocol, code, length = _ENTRY.unpack_from(raw, at)
        designation = raw[at + _ENTRY.size : at + _ENTRY.size + length]
        if len(designation) < length:
            raise ValueError("an entry is cut short")
        entries.append((at, AliasEntry(value, protocol, code, designation)))
        at += _ENTRY.size + length
    return entries


def pack_report(entries: Iterable[AliasEntry]) -> bytes:
    """The parameter data of REPORT ALIASES (table 276)."""
    packed = [entry.pack() for entry in entries]
    body = b"".join(packed)
    return _REPORT_HEADER.pack(_REPORT_HEADER.size - 4 + len(body), len(packed)) + body
