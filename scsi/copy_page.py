"""VPD page 8Fh, Third-party Copy: what a copy manager says of itself (SPC-4 7.8.17)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from construct import (
    Aligned,
    Byte,
    GreedyBytes,
    GreedyRange,
    Int16ub,
    Int32ub,
    Padding,
    Prefixed,
    PrefixedArray,
    Struct,
    Switch,
    this,
)

from serverfree.scsi.copy_results import OperatingParameters, field_values, parse
from serverfree.scsi.device import Buffer
from serverfree.scsi.vpd import pack_page, unpack_page

SUPPORTED_COMMANDS = 0x0001
PARAMETER_DATA = 0x0004
SUPPORTED_DESCRIPTORS = 0x0008
SUPPORTED_CSCD_IDS = 0x000C
GENERAL_COPY_OPERATIONS = 0x8001
STREAM_COPY_OPERATIONS = 0x9101
HELD_DATA = 0xC001

_BODIES: dict[int, Any] = {
    SUPPORTED_COMMANDS: Aligned(
        4,
        Struct(
            "commands"
            / Prefixed(
                Byte,
                GreedyRange(Struct("opcode" / Byte, "service_actions" / PrefixedArray(Byte, Byte))),
            )
        ),
    ),
    PARAMETER_DATA: Struct(
        Padding(4),
        "maximum_cscd_count" / Int16ub,
        "maximum_segment_count" / Int16ub,
        "maximum_descriptor_list_length" / Int32ub,
        "maximum_inline_data_length" / Int32ub,
        Padding(12),
    ),
    SUPPORTED_DESCRIPTORS: Aligned(4, Struct("descriptor_types" / PrefixedArray(Byte, Byte))),
    SUPPORTED_CSCD_IDS: Aligned(4, Struct("cscd_ids" / Prefixed(Int16ub, GreedyRange(Int16ub)))),
    GENERAL_COPY_OPERATIONS: Struct(
        "total_concurrent_copies" / Int32ub,
        "maximum_concurrent_copies" / Int32ub,  # MAXIMUM IDENTIFIED CONCURRENT COPIES
        "maximum_segment_length" / Int32ub,
        "data_segment_granularity" / Byte,
        "inline_data_granularity" / Byte,
        Padding(18),
    ),
    STREAM_COPY_OPERATIONS: Struct("maximum_stream_transfer_size" / Int32ub, Padding(8)),
    HELD_DATA: Struct("held_data_limit" / Int32ub, "held_data_granularity" / Byte, Padding(23)),
}

# THIRD-PARTY COPY DESCRIPTORs, each with its type and length, in ascending order of type. A type
# that is not known here is passed over as bytes.
_DESCRIPTORS = GreedyRange(
    Struct(
        "type" / Int16ub,
        "body" / Prefixed(Int16ub, Switch(this.type, _BODIES, default=GreedyBytes)),
    )
)


@dataclass(frozen=True, slots=True)
class ThirdPartyCopyPage:
    """Page 8Fh as this project's managers fill it, and as much of another's as they do.

    `commands` maps an operation code to its service actions. `parameters` repeats what RECEIVE
    COPY OPERATING PARAMETERS answers (6.22 wants equal values); of another manager's page the
    fields that the page does not carry are zero. `cscd_ids` are those above 07FFh.
    """

    PAGE_CODE: ClassVar[int] = 0x8F

    commands: Mapping[int, tuple[int, ...]]
    parameters: OperatingParameters
    cscd_ids: tuple[int, ...] = ()

    def pack(self) -> bytes:
        """The whole page, peripheral byte 0."""
        values = {
            **field_values(self.parameters),
            "commands": [
                {"opcode": opcode, "service_actions": sorted(actions)}
                for opcode, actions in sorted(self.commands.items())
            ],
            "cscd_ids": sorted(self.cscd_ids),
        }
        body: bytes = _DESCRIPTORS.build([{"type": kind, "body": values} for kind in _BODIES])
        return pack_page(self.PAGE_CODE, body)

    @classmethod
    def unpack(cls, data: Buffer) -> "ThirdPartyCopyPage":
        """Read a whole page; ValueError if it is another or names no commands."""
        values: dict[str, Any] = {}
        for descriptor in parse(_DESCRIPTORS, unpack_page(cls.PAGE_CODE, data)):
            if descriptor.type in _BODIES:
                values |= descriptor.body
        if "commands" not in values:
            raise ValueError("third-party copy page without its supported commands")
        return cls(
            {item.opcode: tuple(item.service_actions) for item in values["commands"]},
            OperatingParameters.of(values),
            tuple(values.get("cscd_ids", ())),
        )
