"""Segment descriptors of EXTENDED COPY: one copy function each (SPC-4 6.4.6).

A copy can hold thousands of them, so they are plain structs. Reserved fields are written as zero
and not looked at when read (SPC-4 3.5 leaves that to the recipient); the length that a descriptor
states for itself is judged by `scsi.copy_list` before a descriptor is read here.
"""

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Self

from serverfree.scsi.device import Buffer

HEADER_LENGTH = 8  # SPC-4 table 147
LENGTH_EXCLUDES = 4  # DESCRIPTOR LENGTH counts what follows it

_CAT = 0x01
_DC = 0x02
_W_IMMED = 0x01
_24_BITS = 0xFFFFFF

_BLOCK_STREAM = Struct(">BBHHHIxxHQ")
_BLOCK_BLOCK = Struct(">BBHHHxxHQQ")
_INLINE_STREAM = Struct(">BBHHHIII")
_STREAM_DISCARD = Struct(">BBHHHII")
_TAPE_FUNCTION = Struct(">BBHHHI")


@dataclass(slots=True)
class _BetweenBlockAndStream:
    """What tables 149 and 150 have in common: all but the direction.

    `stream_transfer_length` is what each tape command takes, in bytes or, on a CSCD with FIXED
    set, in blocks (table 138).
    """

    TYPE: ClassVar[int]
    LENGTH: ClassVar[int] = _BLOCK_STREAM.size

    source: int
    destination: int
    stream_transfer_length: int
    number_of_blocks: int
    lba: int
    cat: bool = False

    def pack(self) -> bytes:
        """The descriptor on the wire."""
        return _BLOCK_STREAM.pack(
            self.TYPE,
            self.cat,
            self.LENGTH - LENGTH_EXCLUDES,
            self.source,
            self.destination,
            self.stream_transfer_length,
            self.number_of_blocks,
            self.lba,
        )

    @classmethod
    def unpack(cls, data: Buffer, at: int = 0) -> Self:
        """Read the descriptor that lies `at` bytes into the data."""
        _, flags, _, source, destination, length, blocks, lba = _BLOCK_STREAM.unpack_from(data, at)
        return cls(source, destination, length & _24_BITS, blocks, lba, bool(flags & _CAT))


class BlockToStream(_BetweenBlockAndStream):
    """00h: whole blocks of a disk to a tape (table 149)."""

    __slots__ = ()
    TYPE = 0x00


class StreamToBlock(_BetweenBlockAndStream):
    """01h: from a tape into whole blocks of a disk (table 150)."""

    __slots__ = ()
    TYPE = 0x01


@dataclass(slots=True)
class BlockToBlock:
    """02h: blocks of a disk to a disk (table 151).

    `number_of_blocks` counts blocks of the source, or with `dc` blocks of the destination.
    """

    TYPE: ClassVar[int] = 0x02
    LENGTH: ClassVar[int] = _BLOCK_BLOCK.size

    source: int
    destination: int
    number_of_blocks: int
    source_lba: int
    destination_lba: int
    cat: bool = False
    dc: bool = False

    def pack(self) -> bytes:
        """The descriptor on the wire."""
        return _BLOCK_BLOCK.pack(
            self.TYPE,
            self.dc << 1 | self.cat,
            self.LENGTH - LENGTH_EXCLUDES,
            self.source,
            self.destination,
            self.number_of_blocks,
            self.source_lba,
            self.destination_lba,
        )

    @classmethod
    def unpack(cls, data: Buffer, at: int = 0) -> "BlockToBlock":
        """Read the descriptor that lies `at` bytes into the data."""
        _, flags, _, source, destination, blocks, source_lba, destination_lba = (
            _BLOCK_BLOCK.unpack_from(data, at)
        )
        return cls(
            source,
            destination,
            blocks,
            source_lba,
            destination_lba,
            bool(flags & _CAT),
            bool(flags & _DC),
        )


@dataclass(slots=True)
class InlineToStream:
    """04h: inline data of the parameter list to a tape (table 153).

    `inline_offset` counts from the start of the inline data and is a multiple of 4.
    """

    TYPE: ClassVar[int] = 0x04
    LENGTH: ClassVar[int] = _INLINE_STREAM.size

    destination: int
    stream_transfer_length: int
    inline_offset: int
    number_of_bytes: int
    cat: bool = False

    def pack(self) -> bytes:
        """The descriptor on the wire."""
        return _INLINE_STREAM.pack(
            self.TYPE,
            self.cat,
            self.LENGTH - LENGTH_EXCLUDES,
            0,
            self.destination,
            self.stream_transfer_length,
            self.inline_offset,
            self.number_of_bytes,
        )

    @classmethod
    def unpack(cls, data: Buffer, at: int = 0) -> "InlineToStream":
        """Read the descriptor that lies `at` bytes into the data."""
        _, flags, _, _, destination, length, offset, count = _INLINE_STREAM.unpack_from(data, at)
        return cls(destination, length & _24_BITS, offset, count, bool(flags & _CAT))


@dataclass(slots=True)
class StreamToDiscard:
    """06h: read from a tape and let go of `number_of_bytes` (table 155)."""

    TYPE: ClassVar[int] = 0x06
    LENGTH: ClassVar[int] = _STREAM_DISCARD.size

    source: int
    stream_transfer_length: int
    number_of_bytes: int
    cat: bool = False

    def pack(self) -> bytes:
        """The descriptor on the wire."""
        return _STREAM_DISCARD.pack(
            self.TYPE,
            self.cat,
            self.LENGTH - LENGTH_EXCLUDES,
            self.source,
            0,
            self.stream_transfer_length,
            self.number_of_bytes,
        )

    @classmethod
    def unpack(cls, data: Buffer, at: int = 0) -> "StreamToDiscard":
        """Read the descriptor that lies `at` bytes into the data."""
        _, flags, _, source, _, length, count = _STREAM_DISCARD.unpack_from(data, at)
        return cls(source, length & _24_BITS, count, bool(flags & _CAT))


@dataclass(slots=True)
class WriteFilemarks:
    """10h: WRITE FILEMARKS on a tape (table 160)."""

    TYPE: ClassVar[int] = 0x10
    LENGTH: ClassVar[int] = _TAPE_FUNCTION.size

    destination: int
    filemark_count: int = 1
    immediate: bool = False

    def pack(self) -> bytes:
        """The descriptor on the wire."""
        return _TAPE_FUNCTION.pack(
            self.TYPE,
            0,
            self.LENGTH - LENGTH_EXCLUDES,
            0,
            self.destination,
            self.immediate << 24 | self.filemark_count,
        )

    @classmethod
    def unpack(cls, data: Buffer, at: int = 0) -> "WriteFilemarks":
        """Read the descriptor that lies `at` bytes into the data."""
        _, _, _, _, destination, word = _TAPE_FUNCTION.unpack_from(data, at)
        return cls(destination, word & _24_BITS, bool(word >> 24 & _W_IMMED))


@dataclass(slots=True)
class Locate:
    """12h: LOCATE on a tape, in the current partition (table 162)."""

    TYPE: ClassVar[int] = 0x12
    LENGTH: ClassVar[int] = _TAPE_FUNCTION.size

    destination: int
    logical_object_identifier: int

    def pack(self) -> bytes:
        """The descriptor on the wire."""
        return _TAPE_FUNCTION.pack(
            self.TYPE,
            0,
            self.LENGTH - LENGTH_EXCLUDES,
            0,
            self.destination,
            self.logical_object_identifier,
        )

    @classmethod
    def unpack(cls, data: Buffer, at: int = 0) -> "Locate":
        """Read the descriptor that lies `at` bytes into the data."""
        _, _, _, _, destination, identifier = _TAPE_FUNCTION.unpack_from(data, at)
        return cls(destination, identifier)


Segment = (
    BlockToStream
    | StreamToBlock
    | BlockToBlock
    | InlineToStream
    | StreamToDiscard
    | WriteFilemarks
    | Locate
)

SEGMENT_TYPES: dict[int, type[Segment]] = {
    kind.TYPE: kind
    for kind in (
        BlockToStream,
        StreamToBlock,
        BlockToBlock,
        InlineToStream,
        StreamToDiscard,
        WriteFilemarks,
        Locate,
    )
}
"""The descriptors that can be read, by DESCRIPTOR TYPE CODE (SPC-4 table 146)."""
