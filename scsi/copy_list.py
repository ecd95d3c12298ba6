"""The EXTENDED COPY(LID1) parameter list: header, CSCD descriptors, segments, inline data.

SPC-4 6.4.3, 6.5 and figure 18. What can be known to be wrong before the first segment is
processed is refused here, with the sense data of 5.17.7.3: never COPY ABORTED, no INFORMATION.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from construct import BitsInteger, BitStruct, Flag, Padding

from serverfree.scsi.copy_cscd import BlockParameters, IdentificationCscd, InvalidField
from serverfree.scsi.copy_results import OperatingParameters
from serverfree.scsi.copy_segments import (
    LENGTH_EXCLUDES,
    SEGMENT_TYPES,
    InlineToStream,
    Segment,
    StreamToStream,
)
from serverfree.scsi.device import Buffer
from serverfree.scsi.errors import CheckCondition, illegal_request
from serverfree.scsi.sense import Asc, FieldPointer
from serverfree.scsi.structure import Structure

NULL_BLOCK, NULL_STREAM = 0xC000, 0xC001
"""CSCD DESCRIPTOR IDs of null logical units, which are sent no command (table 148)."""
THIS_UNIT = 0xFFFF
"""CSCD DESCRIPTOR ID of the logical unit that contains the copy manager (table 148)."""


class ListIdUsage(IntEnum):
    """LIST ID USAGE (table 129)."""

    HOLD = 0b00
    DISCARD = 0b10
    NO_IDENTIFIER = 0b11


@dataclass
class _Header(Structure):
    """Table 172."""

    list_identifier: int
    sequential_striped: bool
    list_id_usage: int
    priority: int
    cscd_list_length: int
    segment_list_length: int
    inline_data_length: int

    LAYOUT = BitStruct(
        "list_identifier" / BitsInteger(8),
        Padding(2),
        "sequential_striped" / Flag,
        "list_id_usage" / BitsInteger(2),
        "priority" / BitsInteger(3),
        "cscd_list_length" / BitsInteger(16),
        Padding(32),
        "segment_list_length" / BitsInteger(32),
        "inline_data_length" / BitsInteger(32),
    )


HEADER_LENGTH = _Header.size()
NORMAL_PRIORITY = 1  # what all other commands have, 6.4.3.3


@dataclass(slots=True)
class CopyList:
    """A whole parameter list. Segments name CSCDs by their place in `cscds`, or by `THIS_UNIT`."""

    cscds: Sequence[IdentificationCscd] = ()
    segments: Sequence[Segment] = ()
    inline: Buffer = b""
    list_identifier: int = 0
    list_id_usage: ListIdUsage = ListIdUsage.HOLD
    priority: int = NORMAL_PRIORITY
    sequential_striped: bool = field(default=False, kw_only=True)
    cscds_at: int = field(default=HEADER_LENGTH, kw_only=True)

    def pack(self) -> bytes:
        """The parameter list on the wire."""
        cscds = b"".join(cscd.pack() for cscd in self.cscds)
        segments = b"".join(segment.pack() for segment in self.segments)
        header = _Header(
            self.list_identifier,
            self.sequential_striped,
            self.list_id_usage,
            self.priority,
            len(cscds),
            len(segments),
            len(self.inline),
        )
        return b"".join((header.pack(), cscds, segments, self.inline))

    @classmethod
    def unpack(cls, data: Buffer, limits: OperatingParameters) -> "CopyList":
        """Read a list of at least one byte and hold it to what a copy manager can do.

        `inline` is a view of the data. Bytes behind the inline data are ignored. Raises the
        ILLEGAL REQUEST that the standard names: lengths are judged before counts, and those
        before the descriptors.
        """
        if len(data) < HEADER_LENGTH:
            raise _length_error()
        header = _Header.unpack(data)
        _check_lengths(header, len(data), limits)
        _check_identifier(header, limits)
        cscds_end = HEADER_LENGTH + header.cscd_list_length
        segments_end = cscds_end + header.segment_list_length
        cscds = _unpack_cscds(data, cscds_end, limits)
        return cls(
            cscds,
            _unpack_segments(data, cscds_end, segments_end, cscds, limits),
            memoryview(data)[segments_end : segments_end + header.inline_data_length],
            header.list_identifier,
            ListIdUsage(header.list_id_usage),
            header.priority,
            sequential_striped=header.sequential_striped,
        )


def _check_lengths(header: _Header, present: int, limits: OperatingParameters) -> None:
    descriptors = header.cscd_list_length + header.segment_list_length
    if descriptors > limits.maximum_descriptor_list_length:
        raise _length_error()
    if header.inline_data_length > limits.maximum_inline_data_length:
        # No clause gives a sense for this one; the code's name says it.
        raise _illegal(Asc.INLINE_DATA_LENGTH_EXCEEDED, 12)
    if HEADER_LENGTH + descriptors + header.inline_data_length > present:
        raise _length_error()
    if header.cscd_list_length % IdentificationCscd.LENGTH:
        raise _length_error()


def _check_identifier(header: _Header, limits: OperatingParameters) -> None:
    if header.list_id_usage not in ListIdUsage.__members__.values():
        raise _illegal(Asc.INVALID_FIELD_IN_PARAMETER_LIST, 1, 4)
    if header.list_id_usage == ListIdUsage.NO_IDENTIFIER:
        if not limits.supports_no_list_identifier:
            raise _illegal(Asc.INVALID_FIELD_IN_PARAMETER_LIST, 1, 4)
        if header.list_identifier:
            raise _illegal(Asc.INVALID_FIELD_IN_PARAMETER_LIST, 0)


def _unpack_cscds(data: Buffer, end: int, limits: OperatingParameters) -> list[IdentificationCscd]:
    length = IdentificationCscd.LENGTH
    if (end - HEADER_LENGTH) // length > limits.maximum_cscd_count:
        raise _illegal(Asc.TOO_MANY_TARGET_DESCRIPTORS, 2)
    cscds = []
    for at in range(HEADER_LENGTH, end, length):
        if data[at] != IdentificationCscd.TYPE or data[at] not in limits.descriptor_types:
            raise _illegal(Asc.UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE, at)
        try:
            cscds.append(IdentificationCscd.unpack(data[at : at + length]))
        except InvalidField as wrong:
            raise _illegal(
                Asc.INVALID_FIELD_IN_PARAMETER_LIST, at + wrong.byte, wrong.bit
            ) from None
    return cscds


def _unpack_segments(
    data: Buffer,
    at: int,
    end: int,
    cscds: Sequence[IdentificationCscd],
    limits: OperatingParameters,
) -> list[Segment]:
    segments: list[Segment] = []
    while at < end:
        if len(segments) == limits.maximum_segment_count:
            raise _illegal(Asc.TOO_MANY_SEGMENT_DESCRIPTORS, 8)
        code = data[at]
        kind = SEGMENT_TYPES.get(code)
        if kind is None or code not in limits.descriptor_types:
            raise _illegal(Asc.UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE, at)
        if at + kind.LENGTH > end:
            raise _length_error()
        length = int.from_bytes(data[at + 2 : at + 4], "big") + LENGTH_EXCLUDES
        if length != kind.LENGTH:
            if not kind.VARIABLE or length < kind.LENGTH or length % 4:
                raise _illegal(Asc.INVALID_FIELD_IN_PARAMETER_LIST, at + 2)
            if at + length > end:
                raise _length_error()
        try:
            segment = kind.unpack(data, at)
        except InvalidField as wrong:
            raise _illegal(
                Asc.INVALID_FIELD_IN_PARAMETER_LIST, at + wrong.byte, wrong.bit
            ) from None
        _check_segment(segment, at, cscds)
        segments.append(segment)
        at += length
    return segments


_TRANSFER_LENGTHS = (
    ("stream_transfer_length", 9),
    ("source_transfer_length", 9),
    ("destination_transfer_length", 13),
)


def _check_segment(segment: Segment, at: int, cscds: Sequence[IdentificationCscd]) -> None:
    if isinstance(segment, StreamToStream) and any(
        cscd_id < len(cscds) and isinstance(cscds[cscd_id].parameters, BlockParameters)
        for cscd_id in (segment.source, segment.destination)
    ):
        # Initiators try a disk with it to learn whether the type is known at all.
        raise _illegal(Asc.UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE, at)
    for name, byte in _TRANSFER_LENGTHS:
        if getattr(segment, name, 1) == 0:
            # A tape command of no bytes moves nothing, however often it is repeated.
            raise _illegal(Asc.INVALID_FIELD_IN_PARAMETER_LIST, at + byte)
    if isinstance(segment, InlineToStream) and segment.inline_offset % 4:
        raise _illegal(Asc.INVALID_FIELD_IN_PARAMETER_LIST, at + 12)


def _length_error() -> CheckCondition:
    return illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)


_LAST_POINTED = 0xFFFF


def _illegal(asc: Asc, byte: int, bit: int | None = None) -> CheckCondition:
    # FIELD POINTER has 16 bits; a list can be longer.
    return illegal_request(asc, FieldPointer(byte, bit) if byte <= _LAST_POINTED else None)
