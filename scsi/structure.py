"""Cold wire structures: one declaration in bits, a typed class over it, both directions from it."""

from dataclasses import fields
from typing import Any, ClassVar, Self

from construct import Bytes, Bytewise, ExprAdapter


def text(length: int) -> Any:
    """A left-aligned ASCII field, padded with spaces (SPC-4 4.3.1), inside a BitStruct."""
    return Bytewise(
        ExprAdapter(
            Bytes(length),
            lambda raw, _: raw.decode("ascii", "replace").rstrip(" \0"),
            lambda value, _: value.encode("ascii", "replace")[:length].ljust(length),
        )
    )


class Structure:
    """A dataclass whose fields are those of a construct `LAYOUT` of fixed size.

    What is beyond the layout is ignored and what is missing reads as zero: SPC-4 lets a device
    send more or fewer bytes than the reader's edition of the standard names.
    """

    LAYOUT: ClassVar[Any]

    def pack(self) -> bytes:
        """The structure on the wire."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        packed: bytes = self.LAYOUT.build(values)
        return packed

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> Self:
        """Read the structure at the start of the data. Never raises."""
        size = cls.size()
        parsed = cls.LAYOUT.parse(bytes(data[:size]).ljust(size, b"\0"))
        return cls(**{field.name: parsed[field.name] for field in fields(cls)})  # type: ignore[arg-type]

    @classmethod
    def size(cls) -> int:
        """Bytes on the wire."""
        size: int = cls.LAYOUT.sizeof()
        return size
