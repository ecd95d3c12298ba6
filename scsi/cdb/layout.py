"""How a CDB class is declared: each field by the place where the standard's figure draws it.

    @cdb(OperationCode.READ_10)
    class Read10(Cdb):
        fua: bool = flag(1, 3)
        lba: int = at(2, 4)
        blocks: int = at(7, 2)

From that one text come the constructor, `pack`, `unpack` and `USAGE`, the CDB usage data that
REPORT SUPPORTED OPERATION CODES shows and that the gate holds incoming CDBs to. A bit that no
field names is reserved, unsupported or the control byte: it is sent as zero.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self, TypeVar, cast, dataclass_transform

from serverfree.scsi.device import Buffer
from serverfree.scsi.opcodes import (
    VARIABLE_LENGTH_CDB,
    OperationCode,
    ServiceAction,
    cdb_length,
)

VARIABLE_LENGTH = 32
"""Bytes of every CDB of operation code 7Fh that is declared: ADDITIONAL CDB LENGTH 18h (4.2.3)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a field lies: its first byte, its leftmost bit there, its width in bits."""

    byte: int
    bit: int
    width: int
    is_flag: bool = False

    @property
    def mask(self) -> int:
        """The largest value."""
        return (1 << self.width) - 1

    def shift(self, length: int) -> int:
        """How far left the field lies in a CDB of this many bytes, read as one number."""
        return 8 * (length - self.byte) - (7 - self.bit) - self.width

    @property
    def slice(self) -> slice:
        """The bytes of a field that fills whole bytes."""
        assert self.bit == 7, "the field begins within a byte"
        assert self.width % 8 == 0, "the field ends within a byte"
        return slice(self.byte, self.byte + self.width // 8)


def bits(byte: int, leftmost: int, width: int, default: int = 0) -> Any:
    """A field of `width` bits that begins at a bit of a byte; it may run on into the next."""
    return field(default=default, metadata={"place": Place(byte, leftmost, width)})


def at(byte: int, width: int = 1, default: int = 0) -> Any:
    """A field of whole bytes."""
    return bits(byte, 7, 8 * width, default)


def flag(byte: int, bit: int, default: bool = False) -> Any:
    """A field of one bit."""
    return field(default=default, metadata={"place": Place(byte, bit, 1, is_flag=True)})


class Cdb:
    """A command descriptor block."""

    __slots__ = ()

    OPCODE: ClassVar[int]
    SERVICE_ACTION: ClassVar[int | None]
    LENGTH: ClassVar[int]
    USAGE: ClassVar[bytes]
    PLACES: ClassVar[dict[str, Place]]
    _BASE: ClassVar[int]  # the CDB with all fields zero
    _IDENTITY: ClassVar[int]  # the bits that make it a CDB of this command
    _LAYOUT: ClassVar[tuple[tuple[str, int, Place], ...]]

    def pack(self) -> bytes:
        """The CDB. Raises ValueError for a value that its field cannot hold."""
        value = self._BASE
        for name, shift, place in self._LAYOUT:
            number = getattr(self, name)
            if not 0 <= number <= place.mask:
                raise ValueError(
                    f"{type(self).__name__}: {name} {number} does not fit {place.width} bits"
                )
            value |= number << shift
        return value.to_bytes(self.LENGTH, "big")

    @classmethod
    def unpack(cls, cdb: Buffer) -> Self:
        """Read a CDB of this command; bytes behind its length are ignored.

        Raises ValueError if it is too short or the CDB of another command.
        """
        value = int.from_bytes(cdb[: cls.LENGTH], "big")
        if len(cdb) < cls.LENGTH or value & cls._IDENTITY != cls._BASE:
            raise ValueError(f"not a CDB of {cls.__name__}: {bytes(cdb).hex(' ')}")
        return cls(
            *[
                bool(value >> shift & 1) if place.is_flag else value >> shift & place.mask
                for _, shift, place in cls._LAYOUT
            ]
        )

    @classmethod
    def usage_without(cls, *names: str) -> bytes:
        """`USAGE` of a device that refuses these fields unless they are zero."""
        usage = int.from_bytes(cls.USAGE, "big")
        for name in names:
            place = cls.PLACES[name]
            usage &= ~(place.mask << place.shift(cls.LENGTH))
        return usage.to_bytes(cls.LENGTH, "big")


_Class = TypeVar("_Class", bound=type[Cdb])


# Without field specifiers a checker takes `= at(2, 4)` for a default: every field may be left out.
@dataclass_transform()
def cdb(
    opcode: OperationCode, service_action: ServiceAction | None = None
) -> Callable[[_Class], _Class]:
    """Make a CDB class of a declaration."""

    def declare(declared: _Class) -> _Class:
        made: Any = dataclass(slots=True)(declared)
        variable = opcode == VARIABLE_LENGTH_CDB
        length = VARIABLE_LENGTH if variable else cdb_length(bytes((opcode,)))
        opcode_shift, action_shift = 8 * (length - 1), 8 * (length - (10 if variable else 2))
        made.OPCODE, made.SERVICE_ACTION, made.LENGTH = opcode, service_action, length
        made.PLACES = {each.name: each.metadata["place"] for each in fields(made)}
        made._LAYOUT = tuple(
            (name, place.shift(length), place) for name, place in made.PLACES.items()
        )
        made._BASE, made._IDENTITY = opcode << opcode_shift, 0xFF << opcode_shift
        if service_action is not None:
            made._BASE |= service_action << action_shift
            made._IDENTITY |= (0xFFFF if variable else 0x1F) << action_shift
        if variable:
            made._BASE |= length - 8 << 8 * (length - 8)
            made._IDENTITY |= 0xFF << 8 * (length - 8)
        usage = made._BASE
        for name, shift, place in made._LAYOUT:
            assert not (usage | made._IDENTITY) & place.mask << shift, f"{name} overlaps"
            usage |= place.mask << shift
        made.USAGE = usage.to_bytes(length, "big")
        return cast(_Class, made)

    return declare
