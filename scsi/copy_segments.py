"""Segment descriptors of EXTENDED COPY: one copy function each (SPC-4 6.4.6).

A copy can hold thousands of them, so they are plain structs. A class declares its fields in the
order of the wire and the struct that carries them; reserved fields are pad bytes, written as zero
and not looked at when read (SPC-4 3.5 leaves that to the recipient). The length that a descriptor
states for itself is judged by `scsi.copy_list` before a descriptor is read here.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from struct import Struct
from typing import Any, ClassVar, Self, TypeVar, cast, dataclass_transform

from serverfree.scsi.copy_cscd import InvalidField
from serverfree.scsi.device import Buffer

HEADER_LENGTH = 8  # SPC-4 table 147
LENGTH_EXCLUDES = 4  # DESCRIPTOR LENGTH counts what follows it

_CAT = 0x01
_DC = 0x02
_24_BITS = 0xFFFFFF
_FOUR_GIBI_BLOCKS = 0x01  # RANGE DESCRIPTOR TYPE, table 168
_ROD_RANGE = Struct(">QI4x")  # table 169
_FLAGS = {"cat": _CAT, "dc": _DC}
_TRANSFER_LENGTHS = {
    "stream_transfer_length": 9,
    "source_transfer_length": 9,
    "destination_transfer_length": 13,
}


@dataclass(slots=True)
class Segment:
    """A segment descriptor. `LENGTH` is all of it, of a descriptor with `VARIABLE` the least.

    Descriptors with `HOLDS` also hold a copy of the processed data for the application client
    (5.17.4.5). `source` and `destination` are CSCD DESCRIPTOR IDs (table 148).
    """

    TYPE: ClassVar[int]
    LENGTH: ClassVar[int]
    VARIABLE: ClassVar[bool] = False
    HOLDS: ClassVar[bool] = False
    TRANSFER_LENGTHS: ClassVar[tuple[tuple[str, int], ...]] = ()
    """The fields that say how long tape commands are, and the bytes where they lie."""
    _STRUCT: ClassVar[Struct]
    _FIELDS: ClassVar[tuple[str, ...]]  # as the struct has them
    _MASKED: ClassVar[tuple[tuple[int, int], ...]]  # which of them share their word, the bits
    _BOOLEAN: ClassVar[tuple[int, ...]]  # which of them are flags
    _FLAG_BITS: ClassVar[tuple[tuple[str, int], ...]]  # of byte 1; these fields come last

    def pack(self) -> bytes:
        """The descriptor on the wire."""
        flags = 0
        for name, bit in self._FLAG_BITS:
            if getattr(self, name):
                flags |= bit
        values = [getattr(self, name) for name in self._FIELDS]
        return self._STRUCT.pack(self.TYPE, flags, self.LENGTH - LENGTH_EXCLUDES, *values)

    @classmethod
    def unpack(cls, data: Buffer, at: int = 0) -> Self:
        """Read the descriptor that lies `at` bytes into the data.

        Raises InvalidField where one of variable length contradicts itself.
        """
        _, flags, _, *values = cls._STRUCT.unpack_from(data, at)
        for place, mask in cls._MASKED:
            values[place] &= mask
        for place in cls._BOOLEAN:
            values[place] = bool(values[place] & 1)
        for _, bit in cls._FLAG_BITS:
            values.append(bool(flags & bit))
        return cls(*values)


_Class = TypeVar("_Class", bound=type[Segment])


@dataclass_transform()
def _segment(code: int, form: str, *, more: int = 0) -> Callable[[_Class], _Class]:
    """Make a descriptor class of a declaration.

    `form` is the struct behind DESCRIPTOR LENGTH. The last `more` fields besides the flags of
    byte 1 are not in it: the class reads and writes them itself.
    """

    def declare(declared: _Class) -> _Class:
        made: Any = dataclass(slots=True)(declared)
        made.TYPE, made._STRUCT = code, Struct(">BBH" + form)
        made.LENGTH = made._STRUCT.size
        made._FLAG_BITS = tuple(
            (each.name, _FLAGS[each.name]) for each in fields(made) if each.name in _FLAGS
        )
        plain = [each for each in fields(made) if each.name not in _FLAGS]
        plain = plain[: len(plain) - more]
        made.TRANSFER_LENGTHS = tuple(
            (each.name, _TRANSFER_LENGTHS[each.name])
            for each in plain
            if each.name in _TRANSFER_LENGTHS
        )
        made._FIELDS = tuple(each.name for each in plain)
        made._MASKED = tuple(
            (place, _24_BITS) for place, each in enumerate(plain) if each.name in _TRANSFER_LENGTHS
        )
        made._BOOLEAN = tuple(place for place, each in enumerate(plain) if each.type is bool)
        return cast(_Class, made)

    return declare


# ---------------------------------------------------------------------- data from here to there


@_segment(0x00, "HHIxxHQ")
class BlockToStream(Segment):
    """00h: whole blocks of a disk to a tape (table 149).

    `stream_transfer_length` is what each tape command takes, in bytes or, on a CSCD with FIXED
    set, in blocks (table 138).
    """

    source: int
    destination: int
    stream_transfer_length: int
    number_of_blocks: int
    lba: int
    cat: bool = False


@_segment(0x01, "HHIxxHQ")
class StreamToBlock(Segment):
    """01h: from a tape into whole blocks of a disk (table 150)."""

    source: int
    destination: int
    stream_transfer_length: int
    number_of_blocks: int
    lba: int
    cat: bool = False


@_segment(0x02, "HHxxHQQ")
class BlockToBlock(Segment):
    """02h: blocks of a disk to a disk (table 151).

    `number_of_blocks` counts blocks of the source, or with `dc` blocks of the destination.
    """

    source: int
    destination: int
    number_of_blocks: int
    source_lba: int
    destination_lba: int
    cat: bool = False
    dc: bool = False


@_segment(0x03, "HHIII")
class StreamToStream(Segment):
    """03h: from a tape to a tape, to the byte (table 152)."""

    source: int
    destination: int
    source_transfer_length: int
    destination_transfer_length: int
    number_of_bytes: int
    cat: bool = False


@_segment(0x04, "xxHIII")
class InlineToStream(Segment):
    """04h: inline data of the parameter list to a tape (table 153).

    `inline_offset` counts from the start of the inline data and is a multiple of 4.
    """

    destination: int
    stream_transfer_length: int
    inline_offset: int
    number_of_bytes: int
    cat: bool = False


@_segment(0x05, "xxHIHxx", more=1)
class EmbeddedToStream(Segment):
    """05h: data of the descriptor itself to a tape (table 154).

    On the wire the data is padded with zeros to a multiple of 4.
    """

    VARIABLE = True

    destination: int
    stream_transfer_length: int
    data: bytes
    cat: bool = False

    @property
    def number_of_bytes(self) -> int:
        """EMBEDDED DATA NUMBER OF BYTES."""
        return len(self.data)

    def pack(self) -> bytes:
        """The descriptor on the wire."""
        padding = bytes(-len(self.data) % 4)
        length = self.LENGTH + len(self.data) + len(padding)
        head = self._STRUCT.pack(
            self.TYPE,
            self.cat,
            length - LENGTH_EXCLUDES,
            self.destination,
            self.stream_transfer_length,
            len(self.data),
        )
        return head + self.data + padding

    @classmethod
    def unpack(cls, data: Buffer, at: int = 0) -> "EmbeddedToStream":
        """Read it. Raises InvalidField for more bytes than the descriptor has."""
        _, flags, length, destination, transfer, size = cls._STRUCT.unpack_from(data, at)
        if size > length + LENGTH_EXCLUDES - cls.LENGTH:
            raise InvalidField(12)
        start = at + cls.LENGTH
        return cls(
            destination, transfer & _24_BITS, bytes(data[start : start + size]), bool(flags & _CAT)
        )


@_segment(0x06, "HxxII")
class StreamToDiscard(Segment):
    """06h: read from a tape and let go of `number_of_bytes` (table 155)."""

    source: int
    stream_transfer_length: int
    number_of_bytes: int
    cat: bool = False


@_segment(0x08, "HHIIQxxH")
class BlockRangeToStream(Segment):
    """08h: bytes of a disk to a tape (table 157); `byte_offset` is that in the first block."""

    source: int
    destination: int
    stream_transfer_length: int
    number_of_bytes: int
    lba: int
    byte_offset: int
    cat: bool = False


@_segment(0x09, "HHIIQxxH")
class StreamToBlockRange(Segment):
    """09h: from a tape onto bytes of a disk; what lies beside them in a block stays (table 158)."""

    source: int
    destination: int
    stream_transfer_length: int
    number_of_bytes: int
    lba: int
    byte_offset: int
    cat: bool = False


@_segment(0x0A, "HHIQQHH")
class BlockRangeToBlockRange(Segment):
    """0Ah: bytes of a disk onto bytes of a disk (table 159)."""

    source: int
    destination: int
    number_of_bytes: int
    source_lba: int
    destination_lba: int
    source_byte_offset: int
    destination_byte_offset: int
    cat: bool = False


# ---------------------------------------------------------------------- and held for the client


class BlockToStreamHold(BlockToStream):
    """0Bh: as 00h."""

    __slots__ = ()
    TYPE = 0x0B
    HOLDS = True


class StreamToBlockHold(StreamToBlock):
    """0Ch: as 01h."""

    __slots__ = ()
    TYPE = 0x0C
    HOLDS = True


class BlockToBlockHold(BlockToBlock):
    """0Dh: as 02h."""

    __slots__ = ()
    TYPE = 0x0D
    HOLDS = True


class StreamToStreamHold(StreamToStream):
    """0Eh: as 03h."""

    __slots__ = ()
    TYPE = 0x0E
    HOLDS = True


class StreamToDiscardHold(StreamToDiscard):
    """0Fh: as 06h; what is let go of is held."""

    __slots__ = ()
    TYPE = 0x0F
    HOLDS = True


# ---------------------------------------------------------------------- representations of data


@_segment(0xBE, "HH5xBH", more=1)
class PopulateRodRanges(Segment):
    """BEh: add ranges of blocks to a ROD (table 167); a range is its first LBA and its length."""

    VARIABLE = True

    source: int
    destination: int
    ranges: tuple[tuple[int, int], ...]

    def pack(self) -> bytes:
        """The descriptor on the wire."""
        size = len(self.ranges) * _ROD_RANGE.size
        length = self.LENGTH + size - LENGTH_EXCLUDES
        ends = self.source, self.destination
        head = self._STRUCT.pack(self.TYPE, 0, length, *ends, _FOUR_GIBI_BLOCKS, size)
        return head + b"".join(_ROD_RANGE.pack(*one) for one in self.ranges)

    @classmethod
    def unpack(cls, data: Buffer, at: int = 0) -> "PopulateRodRanges":
        """Read it. Raises InvalidField for ranges of another format or number than there are."""
        _, _, length, source, destination, kind, size = cls._STRUCT.unpack_from(data, at)
        if kind != _FOUR_GIBI_BLOCKS:
            raise InvalidField(13)
        if size % _ROD_RANGE.size or size != length + LENGTH_EXCLUDES - cls.LENGTH:
            raise InvalidField(14)
        start = at + cls.LENGTH
        ranges = tuple(_ROD_RANGE.iter_unpack(data[start : start + size]))
        return cls(source, destination, ranges)


@_segment(0xBF, "HHQI")
class PopulateRodRange(Segment):
    """BFh: add one range of blocks to a ROD (table 170)."""

    source: int
    destination: int
    lba: int
    number_of_blocks: int

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """The range, as BEh has them."""
        return ((self.lba, self.number_of_blocks),)


# ---------------------------------------------------------------------- digests, vendor specific


@_segment(0xC0, "HxxII")
class StreamToDigest(Segment):
    """C0h: as 06h, and the SHA-256 of what is let go of is held for the application client.

    Of this project's copy managers (table 145 leaves C0h to DFh to vendors): 16 bytes, those of
    06h. A digest of 32 bytes is held when the segment is done; of one that fails, none.
    """

    HOLDS = True

    source: int
    stream_transfer_length: int
    number_of_bytes: int
    cat: bool = False


@_segment(0xC1, "xxH")
class DigestOfDestination(Segment):
    """C1h: the SHA-256 of what the segments before have put into a destination's stream is held.

    Of this project's copy managers; 8 bytes, DESCRIPTOR LENGTH 0004h, the CSCD in bytes 6 and 7.
    Counted are the bytes since the command began or since the last C1h for this destination, in
    order, with those that wait as residual destination data of its last segment, without padding.
    32 bytes are held. Residual data stays as if CAT were one.
    """

    HOLDS = True

    destination: int


# ---------------------------------------------------------------------- what moves no residue


@_segment(0x07, "HxxB3x")
class VerifyCscd(Segment):
    """07h: see whether a CSCD can be reached, and by `test_unit_ready` is ready (table 156)."""

    source: int
    test_unit_ready: bool = False


@_segment(0x10, "xxHI", more=1)
class WriteFilemarks(Segment):
    """10h: WRITE FILEMARKS on a tape (table 160)."""

    destination: int
    filemark_count: int = 1
    immediate: bool = False

    def pack(self) -> bytes:
        """The descriptor on the wire."""
        return self._STRUCT.pack(
            self.TYPE,
            0,
            self.LENGTH - LENGTH_EXCLUDES,
            self.destination,
            self.immediate << 24 | self.filemark_count,
        )

    @classmethod
    def unpack(cls, data: Buffer, at: int = 0) -> "WriteFilemarks":
        """Read it."""
        _, _, _, destination, word = cls._STRUCT.unpack_from(data, at)
        return cls(destination, word & _24_BITS, bool(word >> 24 & 1))


@_segment(0x11, "xxHI", more=1)
class Space(Segment):
    """11h: SPACE on a tape (table 161): CODE, and COUNT as its 24 bits in two's complement."""

    destination: int
    code: int
    count: int

    def pack(self) -> bytes:
        """The descriptor on the wire."""
        return self._STRUCT.pack(
            self.TYPE,
            0,
            self.LENGTH - LENGTH_EXCLUDES,
            self.destination,
            self.code << 24 | self.count & _24_BITS,
        )

    @classmethod
    def unpack(cls, data: Buffer, at: int = 0) -> "Space":
        """Read it. CODE has 4 bits, of which standards before SSC-3 use 3."""
        _, _, _, destination, word = cls._STRUCT.unpack_from(data, at)
        return cls(destination, word >> 24 & 0x0F, word & _24_BITS)


@_segment(0x12, "xxHI")
class Locate(Segment):
    """12h: LOCATE on a tape, in the current partition (table 162)."""

    destination: int
    logical_object_identifier: int


@_segment(0x13, "HHI")
class TapeImage(Segment):
    """13h: a tape as it is, block by block, to another (table 163).

    Ends behind `filemarks` consecutive filemarks; with 0 at the end of data.
    """

    source: int
    destination: int
    filemarks: int


@_segment(0x14, "xxHQQ4x")
class RegisterKey(Segment):
    """14h: PERSISTENT RESERVE OUT with service action REGISTER (table 164)."""

    destination: int
    reservation_key: int
    service_action_key: int


@_segment(0x15, "xxHQQxBHI", more=4)
class MoveReservation(Segment):
    """15h: PERSISTENT RESERVE OUT with REGISTER AND MOVE, when all else is done (table 165).

    `transport_id` is that of the initiator port that the reservation moves to, a multiple of 4
    bytes long.
    """

    VARIABLE = True

    destination: int
    reservation_key: int
    service_action_key: int
    relative_target_port: int
    transport_id: bytes
    unregister: bool = False
    aptpl: bool = False

    @property
    def parameters(self) -> bytes:
        """The parameter list of the command: all of the descriptor from byte 8 on."""
        return self.pack()[HEADER_LENGTH:]

    def pack(self) -> bytes:
        """The descriptor on the wire."""
        head = self._STRUCT.pack(
            self.TYPE,
            0,
            self.LENGTH + len(self.transport_id) - LENGTH_EXCLUDES,
            self.destination,
            self.reservation_key,
            self.service_action_key,
            self.unregister << 1 | self.aptpl,
            self.relative_target_port,
            len(self.transport_id),
        )
        return head + self.transport_id

    @classmethod
    def unpack(cls, data: Buffer, at: int = 0) -> "MoveReservation":
        """Read it. Raises InvalidField for a TransportID of another length than there is."""
        _, _, length, destination, key, action_key, flags, port, size = cls._STRUCT.unpack_from(
            data, at
        )
        if size != length + LENGTH_EXCLUDES - cls.LENGTH:
            raise InvalidField(28)
        start = at + cls.LENGTH
        transport_id = bytes(data[start : start + size])
        return cls(
            destination, key, action_key, port, transport_id, bool(flags & 2), bool(flags & 1)
        )


@_segment(0x16, "HHQQI")
class BlockImage(Segment):
    """16h: blocks of a disk as they are to another (table 166).

    `number_of_blocks` 0 stands for as many as there are on both.
    """

    source: int
    destination: int
    source_lba: int
    destination_lba: int
    number_of_blocks: int


SEGMENT_TYPES: dict[int, type[Segment]] = {
    kind.TYPE: kind
    for kind in (
        BlockToStream,
        StreamToBlock,
        BlockToBlock,
        StreamToStream,
        InlineToStream,
        EmbeddedToStream,
        StreamToDiscard,
        VerifyCscd,
        BlockRangeToStream,
        StreamToBlockRange,
        BlockRangeToBlockRange,
        BlockToStreamHold,
        StreamToBlockHold,
        BlockToBlockHold,
        StreamToStreamHold,
        StreamToDiscardHold,
        WriteFilemarks,
        Space,
        Locate,
        TapeImage,
        RegisterKey,
        MoveReservation,
        BlockImage,
        PopulateRodRanges,
        PopulateRodRange,
        StreamToDigest,
        DigestOfDestination,
    )
}
"""The descriptors that can be read, by DESCRIPTOR TYPE CODE (SPC-4 table 146)."""
