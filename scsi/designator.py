"""Designation descriptors: how a logical unit is named (SPC-4 7.8.6.1)."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from hashlib import blake2b
from struct import Struct
from typing import TypeVar


class CodeSet(IntEnum):
    """SPC-4 table 580."""

    BINARY = 1
    ASCII = 2
    UTF_8 = 3


class Association(IntEnum):
    """What the designator names, SPC-4 table 581."""

    LOGICAL_UNIT = 0
    TARGET_PORT = 1
    TARGET_DEVICE = 2


class DesignatorType(IntEnum):
    """SPC-4 table 582."""

    VENDOR_SPECIFIC = 0
    T10_VENDOR_ID = 1
    EUI_64 = 2
    NAA = 3
    RELATIVE_TARGET_PORT = 4
    TARGET_PORT_GROUP = 5
    LOGICAL_UNIT_GROUP = 6
    MD5_LOGICAL_UNIT = 7
    SCSI_NAME_STRING = 8
    PROTOCOL_SPECIFIC_PORT = 9


_HEADER = Struct(">BBBB")
_PIV = 0x80
_Code = TypeVar("_Code", bound=IntEnum)
ISCSI = 5  # PROTOCOL IDENTIFIER, SPC-4 7.6.1


@dataclass(frozen=True, slots=True)
class Designator:
    """One designation descriptor.

    Codes that a peer sends without a name here stay plain ints. `protocol` is None where PIV=0.
    Two designators name the same thing if type, association and identifier agree: use `same`.
    """

    type: DesignatorType | int
    identifier: bytes
    code_set: CodeSet | int = CodeSet.BINARY
    association: Association | int = Association.LOGICAL_UNIT
    protocol: int | None = None

    def pack(self) -> bytes:
        """The descriptor: 4 bytes and the designator."""
        piv = _PIV if self.protocol is not None else 0
        return (
            _HEADER.pack(
                (self.protocol or 0) << 4 | self.code_set,
                piv | self.association << 4 | self.type,
                0,
                len(self.identifier),
            )
            + self.identifier
        )

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> "Designator":
        """Read the descriptor that starts here. Raises ValueError where it is cut short."""
        raw = bytes(data)
        if len(raw) < _HEADER.size:
            raise ValueError(f"designation descriptor of {len(raw)} bytes")
        first, second, _, length = _HEADER.unpack_from(raw)
        identifier = raw[_HEADER.size : _HEADER.size + length]
        if len(identifier) < length:
            raise ValueError(f"designator of {length} bytes, {len(identifier)} present")
        return cls(
            type=_named(DesignatorType, second & 0x0F),
            identifier=identifier,
            code_set=_named(CodeSet, first & 0x0F),
            association=_named(Association, second >> 4 & 0x03),
            protocol=first >> 4 if second & _PIV else None,
        )

    def same(self, other: "Designator") -> bool:
        """Return whether both name the same thing, however each was framed."""
        return (self.type, self.association, self.identifier) == (
            other.type,
            other.association,
            other.identifier,
        )

    def __str__(self) -> str:
        match self.type:
            case DesignatorType.NAA:
                return f"naa.{self.identifier.hex()}"
            case DesignatorType.EUI_64:
                return f"eui.{self.identifier.hex()}"
            case DesignatorType.T10_VENDOR_ID:
                return "t10." + _shown(self.identifier.rstrip(b"\0 "), "ascii")
            case DesignatorType.SCSI_NAME_STRING:
                return _shown(self.identifier.rstrip(b"\0"), "utf-8")
            case _:
                return f"type {int(self.type)} {self.identifier.hex()}"


def _shown(raw: bytes, encoding: str) -> str:
    """Text from a peer on one line: what is no text, or no printable one, as an escape."""
    text = raw.decode(encoding, "backslashreplace")
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _named(kind: type[_Code], code: int) -> _Code | int:
    try:
        return kind(code)
    except ValueError:
        return code


def unpack_designators(data: bytes | bytearray | memoryview) -> Iterator[Designator]:
    """Yield the descriptors of a list, ending quietly before one that is cut short."""
    raw = bytes(data)
    at = 0
    while at + _HEADER.size <= len(raw):
        try:
            designator = Designator.unpack(raw[at:])
        except ValueError:
            return
        yield designator
        at += _HEADER.size + len(designator.identifier)


def locally_assigned(*names: str) -> Designator:
    """Return the NAA locally assigned designator (7.8.6.6.4) that stands for these names.

    The same names give the same eight bytes for ever: NAA 3h and 60 bits of a hash. Each name is
    hashed with its length, so ("ab", "c") and ("a", "bc") differ.
    """
    digest = blake2b(digest_size=8)
    for name in names:
        raw = name.encode()
        digest.update(len(raw).to_bytes(4, "big") + raw)
    value = int.from_bytes(digest.digest(), "big") & (1 << 60) - 1 | 0x3 << 60
    return Designator(DesignatorType.NAA, value.to_bytes(8, "big"))
