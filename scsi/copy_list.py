"""The EXTENDED COPY parameter list: header, CSCD descriptors, segments, inline data.

SPC-4 6.4.3, 6.5 and figure 18. LID1 and LID4 differ in their headers only. What can be known to
be wrong before the first segment is processed is refused here, with the sense data of 5.17.7.3:
never COPY ABORTED, no INFORMATION.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from serverfree.scsi.copy_cscd import (
    CSCD_LENGTH,
    CSCD_TYPES,
    BlockParameters,
    Cscd,
    Extension,
    InvalidField,
)
from serverfree.scsi.copy_header import (
    LID4_FORMAT,
    LID4_HEADER_CSCD_LENGTH,
    LID4_HEADER_CSCD_TYPE,
    Lid1Header,
    Lid4Header,
)
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

NULL_BLOCK, NULL_STREAM = 0xC000, 0xC001
"""CSCD DESCRIPTOR IDs of null logical units, which are sent no command (table 148)."""
THIS_UNIT = 0xFFFF
"""CSCD DESCRIPTOR ID of the logical unit that contains the copy manager (table 148)."""


class ListIdUsage(IntEnum):
    """LIST ID USAGE (table 129)."""

    HOLD = 0b00
    DISCARD = 0b10
    NO_IDENTIFIER = 0b11


HEADER_LENGTH = Lid1Header.size()
LID4_HEADER_LENGTH = Lid4Header.size()
NORMAL_PRIORITY = 1  # what all other commands have, 6.4.3.3


@dataclass(slots=True)
class CopyList:
    """A whole parameter list. Segments name CSCDs by their place in `cscds`, or by `THIS_UNIT`.

    `lid4` is for EXTENDED COPY(LID4): a list identifier of 32 bits, lengths of 16, and the bits
    G_SENSE (`good_with_sense`) and IMMED (`immediate`). `priority` is 0 to 7, 0 the most urgent
    (6.4.3.3). `sequential_striped` (STR, 6.4.3.1) says that segments go through several disks in
    turns. It may be used to read from disks in any order; 6.4.5.3 allows that without it.
    """

    cscds: Sequence[Cscd] = ()
    segments: Sequence[Segment] = ()
    inline: Buffer = b""
    list_identifier: int = 0
    list_id_usage: ListIdUsage = ListIdUsage.HOLD
    priority: int = NORMAL_PRIORITY
    sequential_striped: bool = field(default=False, kw_only=True)
    lid4: bool = field(default=False, kw_only=True)
    good_with_sense: bool = field(default=False, kw_only=True)
    immediate: bool = field(default=False, kw_only=True)

    @property
    def cscds_at(self) -> int:
        """Where the first CSCD descriptor lies."""
        return LID4_HEADER_LENGTH if self.lid4 else HEADER_LENGTH

    def pack(self) -> bytes:
        """The parameter list on the wire."""
        cscds = b"".join(cscd.pack() for cscd in self.cscds)
        segments = b"".join(segment.pack() for segment in self.segments)
        common = (
            self.list_identifier,
            self.sequential_striped,
            self.list_id_usage,
            self.priority,
            len(cscds),
            len(segments),
            len(self.inline),
        )
        header: Lid1Header | Lid4Header = (
            Lid4Header(*common, self.good_with_sense, self.immediate)
            if self.lid4
            else Lid1Header(*common)
        )
        return b"".join((header.pack(), cscds, segments, self.inline))

    @classmethod
    def unpack(cls, data: Buffer, limits: OperatingParameters, *, lid4: bool = False) -> "CopyList":
        """Read a list of at least one byte and hold it to what a copy manager can do.

        `inline` is a view of the data. Bytes behind the inline data are ignored. Raises the
        ILLEGAL REQUEST that the standard names: lengths are judged before counts, and those
        before the descriptors.
        """
        header_length = LID4_HEADER_LENGTH if lid4 else HEADER_LENGTH
        if len(data) < header_length:
            raise _length_error()
        header: Lid1Header | Lid4Header = (Lid4Header if lid4 else Lid1Header).unpack(data)
        if isinstance(header, Lid4Header):
            _check_lid4(header)
        _check_lengths(header, header_length, len(data), limits)
        _check_identifier(header, limits)
        cscds_end = header_length + header.cscd_list_length
        segments_end = cscds_end + header.segment_list_length
        cscds = _unpack_cscds(data, header_length, cscds_end, limits)
        usage = ListIdUsage(header.list_id_usage)
        segments = _unpack_segments(
            data, cscds_end, segments_end, cscds, limits, length_at=44 if lid4 else 8
        )
        copy_list = cls(
            cscds,
            segments,
            memoryview(data)[segments_end : segments_end + header.inline_data_length],
            header.list_identifier,
            usage,
            header.priority,
            sequential_striped=header.sequential_striped,
            lid4=lid4,
        )
        if isinstance(header, Lid4Header):
            copy_list.good_with_sense = header.good_with_sense
            copy_list.immediate = header.immediate
        if usage is ListIdUsage.NO_IDENTIFIER and any(segment.HOLDS for segment in segments):
            # Nobody could ask for what would be held (tables 128 and 129).
            raise _illegal(Asc.INVALID_FIELD_IN_PARAMETER_LIST, 1, 4)
        return copy_list


def _check_lid4(header: Lid4Header) -> None:
    if header.format != LID4_FORMAT:
        raise _illegal(Asc.INVALID_FIELD_IN_PARAMETER_LIST, 0)
    if header.header_cscd_length != LID4_HEADER_CSCD_LENGTH:
        raise _illegal(Asc.INVALID_FIELD_IN_PARAMETER_LIST, 2)
    if header.header_cscd_type != LID4_HEADER_CSCD_TYPE:
        raise _illegal(Asc.INVALID_FIELD_IN_PARAMETER_LIST, 16)
    if header.immediate and (
        header.good_with_sense or header.list_id_usage == ListIdUsage.NO_IDENTIFIER
    ):
        # The standard says CDB of what stands in the list (6.4.2); no pointer could be right.
        raise illegal_request(Asc.INVALID_FIELD_IN_CDB)


def _check_lengths(
    header: Lid1Header | Lid4Header, header_length: int, present: int, limits: OperatingParameters
) -> None:
    descriptors = header.cscd_list_length + header.segment_list_length
    if descriptors > limits.maximum_descriptor_list_length:
        raise _length_error()
    if header.inline_data_length > limits.maximum_inline_data_length:
        # No clause gives a sense for this one; the code's name says it.
        at = 46 if isinstance(header, Lid4Header) else 12
        raise _illegal(Asc.INLINE_DATA_LENGTH_EXCEEDED, at)
    if header_length + descriptors + header.inline_data_length > present:
        raise _length_error()
    if header.cscd_list_length % CSCD_LENGTH:
        raise _length_error()


def _check_identifier(header: Lid1Header | Lid4Header, limits: OperatingParameters) -> None:
    if header.list_id_usage not in ListIdUsage.__members__.values():
        raise _illegal(Asc.INVALID_FIELD_IN_PARAMETER_LIST, 1, 4)
    if header.list_id_usage == ListIdUsage.NO_IDENTIFIER:
        if not limits.supports_no_list_identifier:
            raise _illegal(Asc.INVALID_FIELD_IN_PARAMETER_LIST, 1, 4)
        if header.list_identifier:
            at = 20 if isinstance(header, Lid4Header) else 0
            raise _illegal(Asc.INVALID_FIELD_IN_PARAMETER_LIST, at)


def _unpack_cscds(data: Buffer, start: int, end: int, limits: OperatingParameters) -> list[Cscd]:
    if (end - start) // CSCD_LENGTH > limits.maximum_cscd_count:
        raise _illegal(Asc.TOO_MANY_TARGET_DESCRIPTORS, 42 if start != HEADER_LENGTH else 2)
    cscds: list[Cscd] = []
    at = start
    while at < end:
        kind = CSCD_TYPES.get(data[at])
        if kind is None or data[at] not in limits.descriptor_types:
            raise _illegal(Asc.UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE, at)
        if at + kind.LENGTH > end:
            raise _length_error()
        try:
            cscds.append(kind.unpack(data[at : at + kind.LENGTH]))
        except InvalidField as wrong:
            raise _illegal(
                Asc.INVALID_FIELD_IN_PARAMETER_LIST, at + wrong.byte, wrong.bit
            ) from None
        if kind.LENGTH > CSCD_LENGTH:
            cscds.append(Extension())  # it has an identifier too
        at += kind.LENGTH
    return cscds


def _unpack_segments(
    data: Buffer,
    at: int,
    end: int,
    cscds: Sequence[Cscd],
    limits: OperatingParameters,
    length_at: int,
) -> list[Segment]:
    segments: list[Segment] = []
    while at < end:
        if len(segments) == limits.maximum_segment_count:
            raise _illegal(Asc.TOO_MANY_SEGMENT_DESCRIPTORS, length_at)
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


def _check_segment(segment: Segment, at: int, cscds: Sequence[Cscd]) -> None:
    if isinstance(segment, StreamToStream) and any(
        cscd_id < len(cscds) and isinstance(cscds[cscd_id].parameters, BlockParameters)
        for cscd_id in (segment.source, segment.destination)
    ):
        # Initiators try a disk with it to learn whether the type is known at all.
        raise _illegal(Asc.UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE, at)
    ends = (getattr(segment, "source", None), getattr(segment, "destination", None))
    for name, byte in segment.TRANSFER_LENGTHS:
        if not getattr(segment, name) and NULL_STREAM not in ends:
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
