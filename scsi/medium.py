"""Parameter lists of commands about the medium: SANITIZE, FORMAT UNIT, defects (SBC-4)."""

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct

from serverfree.scsi.device import Buffer

_OVERWRITE = Struct(">BxH")
_SHORT_FORMAT = Struct(">BBH")
_LONG_FORMAT = Struct(">BBxBI")
_PATTERN = Struct(">BBH")
_DEFECTS_10 = Struct(">xBH")
_DEFECTS_12 = Struct(">xBHI")
_LISTS = 0x10, 0x08  # PLISTV, GLISTV
_LONG_BLOCK, _SHORT_BLOCK = 0b011, 0b000  # DEFECT LIST FORMAT

OVERWRITE_HEADER = _OVERWRITE.size


@dataclass(frozen=True, slots=True)
class OverwriteList:
    """The parameter list of a sanitize overwrite (5.30.2.2)."""

    pattern: bytes
    count: int = 1
    invert: bool = False

    def pack(self) -> bytes:
        """The list."""
        return _OVERWRITE.pack(self.invert << 7 | self.count, len(self.pattern)) + self.pattern

    @classmethod
    def unpack(cls, data: Buffer) -> "OverwriteList":
        """Read a list. Raises ValueError where lengths do not agree or a field is reserved."""
        raw = bytes(data)
        if len(raw) < _OVERWRITE.size:
            raise ValueError(f"parameter list of {len(raw)} bytes")
        first, length = _OVERWRITE.unpack_from(raw)
        pattern = raw[_OVERWRITE.size :]
        if not length or length != len(pattern) or first & 0x60 or not first & 0x1F:
            raise ValueError(f"pattern of {length} bytes in {len(raw)}, first byte {first:02X}h")
        return cls(pattern, first & 0x1F, bool(first & 0x80))


@dataclass(frozen=True, slots=True)
class FormatList:
    """The parameter list of FORMAT UNIT (5.4.2): `pattern` b"" is the default, zeros."""

    immed: bool = False
    pattern: bytes = b""

    def pack(self) -> bytes:
        """The list, with a short header."""
        head = _SHORT_FORMAT.pack(0, 0x80 | bool(self.pattern) << 3 | self.immed << 1, 0)
        return head + (
            _PATTERN.pack(0, 1, len(self.pattern)) + self.pattern if self.pattern else b""
        )

    @classmethod
    def unpack(cls, data: Buffer, *, long: bool) -> "FormatList":
        """Read a list. Raises ValueError for what no disk without defects can do."""
        raw = bytes(data)
        header = _LONG_FORMAT if long else _SHORT_FORMAT
        if len(raw) < header.size:
            raise ValueError(f"parameter list of {len(raw)} bytes")
        if long:
            protection, flags, exponent, defects = header.unpack_from(raw)
        else:
            (protection, flags, defects), exponent = header.unpack_from(raw), 0
        if protection or exponent:
            raise ValueError("protection information")
        if defects:
            raise ValueError(f"defect list of {defects} bytes")
        rest, pattern = raw[header.size :], b""
        if flags & 0x08:  # IP: an initialization pattern descriptor follows
            if len(rest) < _PATTERN.size:
                raise ValueError("initialization pattern descriptor is cut short")
            modifier, kind, length = _PATTERN.unpack_from(rest)
            pattern = rest[_PATTERN.size : _PATTERN.size + length]
            if modifier & 0xC0 or kind not in (0, 1) or len(pattern) < length:
                raise ValueError(f"initialization pattern of type {kind}, {length} bytes")
            if kind == 0:
                pattern = b""
        return cls(bool(flags & 0x02), pattern)


def pack_defects(
    lbas: Sequence[int], *, primary: bool, grown: bool, form: int, twelve: bool
) -> bytes:
    """Parameter data of READ DEFECT DATA: the grown list by LBA, the primary list being empty."""
    form = form if form in (_SHORT_BLOCK, _LONG_BLOCK) else _SHORT_BLOCK
    width = 8 if form == _LONG_BLOCK else 4
    body = b"".join(lba.to_bytes(width, "big") for lba in lbas if lba >> 8 * width == 0)
    flags = primary * _LISTS[0] | grown * _LISTS[1] | form
    if twelve:
        return _DEFECTS_12.pack(flags, 0, len(body)) + body
    body = body[: 0xFFFF - 0xFFFF % width]
    return _DEFECTS_10.pack(flags, len(body)) + body


def unpack_reassign_list(data: Buffer, *, long_lba: bool, long_list: bool) -> list[int]:
    """Return the LBAs of the parameter list of REASSIGN BLOCKS (5.24.2). Raises ValueError."""
    raw = bytes(data)
    if len(raw) < 4:
        raise ValueError(f"parameter list of {len(raw)} bytes")
    length = int.from_bytes(raw[0 if long_list else 2 : 4], "big")
    width = 8 if long_lba else 4
    if length != len(raw) - 4 or length % width:
        raise ValueError(f"LBAs of {length} bytes in a list of {len(raw)}")
    return [int.from_bytes(raw[at : at + width], "big") for at in range(4, len(raw), width)]
