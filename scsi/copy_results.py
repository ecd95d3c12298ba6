"""What RECEIVE COPY RESULTS brings back of a copy operation (SPC-4 6.20 to 6.25)."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

from construct import (
    BitsInteger,
    BitStruct,
    Byte,
    Bytes,
    ConstructError,
    Default,
    Flag,
    GreedyBytes,
    Int16ub,
    Int32ub,
    Int64ub,
    Padding,
    Prefixed,
    PrefixedArray,
    Rebuild,
    Struct,
    len_,
    this,
)

from serverfree.scsi.device import Buffer
from serverfree.scsi.structure import Structure


def field_values(structure: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name."""
    return {field.name: getattr(structure, field.name) for field in fields(structure)}


def build(layout: Any, structure: Any) -> bytes:
    """Pack a dataclass by a layout that has its field names."""
    packed: bytes = layout.build(field_values(structure))
    return packed


def parse(layout: Any, data: Buffer) -> Any:
    """Parse data by a layout; ValueError if it is cut short or contradicts itself."""
    try:
        return layout.parse(bytes(data))
    except ConstructError as error:
        raise ValueError(f"malformed response: {error}") from error


class CopyCommandStatus(IntEnum):
    """COPY COMMAND STATUS, SPC-4 table 254."""

    IN_PROGRESS = 0
    COMPLETED = 1
    FAILED = 2


_BYTES_PER_UNIT = tuple(1 << 10 * step for step in range(7))  # bytes, KiB ... EiB: table 251
BLOCKS = 0xF1
"""COPY STATUS TRANSFER COUNT UNITS: blocks of the copy destination (table 251)."""
_MAX_TRANSFER_COUNT = 0xFFFFFFFF
_MAX_SEGMENTS_PROCESSED = 0xFFFF


@dataclass(slots=True)
class CopyStatus(Structure):
    """RECEIVE COPY STATUS(LID1) (table 253).

    `segments_processed` counts the segment under way. `transfer_count` is in the units that
    `transfer_count_units` names (table 251); `bytes_transferred` says it in bytes.
    """

    status: int = CopyCommandStatus.IN_PROGRESS
    segments_processed: int = 0
    transfer_count_units: int = 0
    transfer_count: int = 0
    held_data_discarded: bool = False

    LAYOUT = BitStruct(
        "available_data" / Default(BitsInteger(32), 8),
        "held_data_discarded" / Flag,
        "status" / BitsInteger(7),
        "segments_processed" / BitsInteger(16),
        "transfer_count_units" / BitsInteger(8),
        "transfer_count" / BitsInteger(32),
    )

    @classmethod
    def of(cls, status: CopyCommandStatus, segments: int, transferred: int) -> "CopyStatus":
        """Return the status with a byte count in the finest units that can hold it."""
        units = 0
        while transferred // _BYTES_PER_UNIT[units] > _MAX_TRANSFER_COUNT:
            units += 1
        return cls(
            status,
            min(segments, _MAX_SEGMENTS_PROCESSED),
            units,
            transferred // _BYTES_PER_UNIT[units],
        )

    @property
    def bytes_transferred(self) -> int | None:
        """Bytes written to destinations, None where the manager counts in blocks (F1h)."""
        if self.transfer_count_units >= len(_BYTES_PER_UNIT):
            return None
        return self.transfer_count * _BYTES_PER_UNIT[self.transfer_count_units]


class CopyOperationStatus(IntEnum):
    """COPY OPERATION STATUS, SPC-4 table 249."""

    COMPLETED = 0x01
    FAILED = 0x02
    PARTIAL_TOKEN = 0x03
    COMPLETED_WITH_RESIDUE = 0x04
    IN_PROGRESS = 0x10
    IN_FOREGROUND = 0x11
    IN_BACKGROUND = 0x12
    TERMINATED = 0x60


UPDATE_DELAY_ENDED = 0xFFFFFFFE
UPDATE_DELAY_UNKNOWN = 0xFFFFFFFF

_SHARED_STATUS = Struct(
    "response_to" / Byte,
    "status" / Byte,  # with HELD DATA DISCARDED in its first bit
    "operation_counter" / Int16ub,
    "update_delay" / Int32ub,
    "completion_status" / Byte,
    "sense_field_length" / Rebuild(Byte, len_(this.sense)),
    "sense_length" / Byte,
    "transfer_count_units" / Byte,
    "transfer_count" / Int64ub,
    "segments_processed" / Int16ub,
    Padding(6),
    "sense" / Bytes(this.sense_field_length),  # padded to a multiple of 4
)
_LID4_STATUS = Prefixed(Int32ub, _SHARED_STATUS)
_LID4_DATA = Prefixed(
    Int32ub,
    Struct("shared" / _SHARED_STATUS, "data" / Prefixed(Int32ub, GreedyBytes)),
)
_HELD_DATA_DISCARDED = 0x80


@dataclass(slots=True)
class OperationStatus:
    """RECEIVE COPY STATUS(LID4) (table 248), the header that other responses share.

    `response_to` is the service action of the command that originated the copy; `update_delay` in
    milliseconds says when to ask again. `data` is what DATA(LID4) has behind it (table 240) or ROD
    TOKEN INFORMATION (table 256), None for the status alone.
    """

    status: int
    response_to: int = 0
    operation_counter: int = 0
    update_delay: int = UPDATE_DELAY_UNKNOWN
    completion_status: int = 0
    sense: bytes = b""
    transfer_count_units: int = 0
    transfer_count: int = 0
    segments_processed: int = 0
    held_data_discarded: bool = False
    data: bytes | None = None

    def pack(self) -> bytes:
        """The whole response."""
        shared = field_values(self)
        shared["status"] = self.status | (_HELD_DATA_DISCARDED if self.held_data_discarded else 0)
        shared["sense_length"] = len(self.sense)
        shared["sense"] = self.sense + bytes(-len(self.sense) % 4)
        if self.data is None:
            packed: bytes = _LID4_STATUS.build(shared)
        else:
            packed = _LID4_DATA.build({"shared": shared, "data": self.data})
        return packed

    @classmethod
    def unpack(cls, data: Buffer, *, with_data: bool = False) -> "OperationStatus":
        """Read a whole response, of DATA(LID4) `with_data`; ValueError if it is cut short."""
        parsed = parse(_LID4_DATA if with_data else _LID4_STATUS, data)
        shared = parsed.shared if with_data else parsed
        known = {each.name: shared[each.name] for each in fields(cls) if each.name in shared}
        known["status"] = shared.status & ~_HELD_DATA_DISCARDED
        known["held_data_discarded"] = bool(shared.status & _HELD_DATA_DISCARDED)
        known["sense"] = bytes(shared.sense[: shared.sense_length])
        return cls(**known, data=bytes(parsed.data) if with_data else None)

    @property
    def bytes_transferred(self) -> int | None:
        """Bytes written to destinations, None where the manager counts in blocks (F1h)."""
        if self.transfer_count_units >= len(_BYTES_PER_UNIT):
            return None
        return self.transfer_count * _BYTES_PER_UNIT[self.transfer_count_units]

    @property
    def tokens(self) -> list[tuple[int, bytes]]:
        """The ROD tokens in `data`, each with the CSCD DESCRIPTOR ID it was made for (table 257).

        ValueError if one is cut short.
        """
        tokens: list[tuple[int, bytes]] = []
        left = self.data or b""
        while left:
            end = _TOKEN_AT + 8 + int.from_bytes(left[_TOKEN_AT + 6 : _TOKEN_AT + 8], "big")
            if len(left) < max(end, _TOKEN_AT + 8):
                raise ValueError(f"ROD token descriptor cut short at {len(left)} bytes")
            tokens.append((int.from_bytes(left[:_TOKEN_AT], "big"), left[_TOKEN_AT:end]))
            left = left[end:]
        return tokens


_TOKEN_AT = 2  # in a ROD token descriptor


def pack_held_data(data: bytes) -> bytes:
    """RECEIVE COPY DATA(LID1) (table 242)."""
    return len(data).to_bytes(4, "big") + data


_OPERATING_PARAMETERS = Prefixed(
    Int32ub,  # AVAILABLE DATA
    Struct(
        "supports_no_list_identifier" / Flag,
        Padding(3),
        "maximum_cscd_count" / Int16ub,
        "maximum_segment_count" / Int16ub,
        "maximum_descriptor_list_length" / Int32ub,
        "maximum_segment_length" / Int32ub,
        "maximum_inline_data_length" / Int32ub,
        "held_data_limit" / Int32ub,
        "maximum_stream_transfer_size" / Int32ub,
        Padding(2),
        "total_concurrent_copies" / Int16ub,
        "maximum_concurrent_copies" / Byte,
        "data_segment_granularity" / Byte,
        "inline_data_granularity" / Byte,
        "held_data_granularity" / Byte,
        Padding(3),
        "descriptor_types" / PrefixedArray(Byte, Byte),
    ),
)


@dataclass(frozen=True, slots=True)
class OperatingParameters:
    """RECEIVE COPY OPERATING PARAMETERS (table 244): what a copy manager can do.

    It is also what `CopyList.unpack` holds a parameter list to. Lengths are bytes; a maximum
    segment length of 0 means no limit; granularities are powers of two, 0 being one byte;
    `descriptor_types` ascends.
    """

    supports_no_list_identifier: bool = False
    maximum_cscd_count: int = 0
    maximum_segment_count: int = 0
    maximum_descriptor_list_length: int = 0
    maximum_segment_length: int = 0
    maximum_inline_data_length: int = 0
    held_data_limit: int = 0
    maximum_stream_transfer_size: int = 0
    total_concurrent_copies: int = 0
    maximum_concurrent_copies: int = 0
    data_segment_granularity: int = 0
    inline_data_granularity: int = 0
    held_data_granularity: int = 0
    descriptor_types: tuple[int, ...] = ()

    def pack(self) -> bytes:
        """The whole response."""
        return build(_OPERATING_PARAMETERS, self)

    @classmethod
    def unpack(cls, data: Buffer) -> "OperatingParameters":
        """Read a whole response; ValueError if it is cut short."""
        return cls.of(parse(_OPERATING_PARAMETERS, data))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "OperatingParameters":
        """Return the parameters that these values name; what they do not name is zero."""
        known = {one.name: values[one.name] for one in fields(cls) if one.name in values}
        known["descriptor_types"] = tuple(known.get("descriptor_types", ()))
        return cls(**known)


_FAILURE_DETAILS = Struct(
    Padding(52),
    "status" / Byte,
    Padding(1),
    "sense_length" / Rebuild(Int16ub, len_(this.sense)),
    "sense" / GreedyBytes,
)


@dataclass(frozen=True, slots=True)
class FailureDetails:
    """RECEIVE COPY FAILURE DETAILS(LID1) (table 246): how the copy command ended.

    Without a status there is nothing to tell: the response is AVAILABLE DATA of zero.
    """

    status: int | None = None
    sense: bytes = b""

    def pack(self) -> bytes:
        """The whole response."""
        body = b"" if self.status is None else build(_FAILURE_DETAILS, self)
        packed: bytes = Prefixed(Int32ub, GreedyBytes).build(body)
        return packed

    @classmethod
    def unpack(cls, data: Buffer) -> "FailureDetails":
        """Read a whole response; ValueError if it is cut short."""
        body = parse(Prefixed(Int32ub, GreedyBytes), data)
        if not body:
            return cls()
        parsed = parse(_FAILURE_DETAILS, body)
        return cls(parsed.status, parsed.sense[: parsed.sense_length])
