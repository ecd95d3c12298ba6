"""VPD page 8Fh, Third-party Copy: what a copy manager says of itself (SPC-4 7.8.17)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from construct import (
    Aligned,
    BitsInteger,
    BitStruct,
    Byte,
    Const,
    Flag,
    GreedyBytes,
    GreedyRange,
    Int16ub,
    Int32ub,
    Int64ub,
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

BLOCK_DEVICE_ROD_LIMITS = 0x0000
SUPPORTED_COMMANDS = 0x0001
PARAMETER_DATA = 0x0004
SUPPORTED_DESCRIPTORS = 0x0008
SUPPORTED_CSCD_IDS = 0x000C
ROD_TOKEN_FEATURES = 0x0106
SUPPORTED_ROD_TYPES = 0x0108
GENERAL_COPY_OPERATIONS = 0x8001
STREAM_COPY_OPERATIONS = 0x9101
HELD_DATA = 0xC001

# Of the sizes that these two could tell, none is limited or better than another: zeros.
_BLOCK_ROD_FEATURES = Struct(Const(bytes.fromhex("0000 002c")), Padding(44))  # table 653
_ROD_TYPE = Struct(
    "type" / Int32ub,
    "flags"
    / BitStruct(
        "extended_copy" / Flag,
        Padding(5),
        "token_in" / Flag,
        "token_out" / Flag,
        Padding(8),
        "preference" / BitsInteger(16),
        Padding(56 * 8),
    ),
)

_BODIES: dict[int, Any] = {
    BLOCK_DEVICE_ROD_LIMITS: Struct(
        Padding(6),
        "maximum_ranges" / Int16ub,
        "maximum_inactivity" / Int32ub,
        "default_inactivity" / Int32ub,
        "maximum_token_transfer" / Int64ub,
        "optimal_token_transfer" / Int64ub,
    ),
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
    ROD_TOKEN_FEATURES: Struct(
        "remote_tokens" / Byte,
        Padding(11),
        "minimum_lifetime" / Int32ub,
        "maximum_lifetime" / Int32ub,
        "maximum_inactivity" / Int32ub,
        Padding(18),
        "device_features" / Prefixed(Int16ub, GreedyBytes),
    ),
    SUPPORTED_ROD_TYPES: Struct(
        Padding(2), "rod_types" / Prefixed(Int16ub, GreedyRange(_ROD_TYPE))
    ),
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
class RodFeatures:
    """What a copy manager can do with ROD tokens; times are in seconds.

    `types` has for each ROD type whether it can be an internal ROD of EXTENDED COPY, whether tokens
    of it are taken, and whether tokens of it are made. `maximum_ranges` is that of POPULATE TOKEN
    and WRITE USING TOKEN, 0 where there are no such commands. Tokens of other SCSI target devices
    are not taken (REMOTE TOKENS 0h).
    """

    maximum_ranges: int = 0
    default_inactivity: int = 0
    minimum_lifetime: int = 0
    maximum_lifetime: int = 0
    maximum_inactivity: int = 0
    types: Mapping[int, tuple[bool, bool, bool]] = field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        """The fields of the descriptors."""
        return {
            **field_values(self),
            "maximum_token_transfer": 0,
            "optimal_token_transfer": 0,
            "remote_tokens": 0,
            "device_features": _BLOCK_ROD_FEATURES.build({}) if self.maximum_ranges else b"",
            "rod_types": [
                {
                    "type": kind,
                    "flags": {
                        "extended_copy": extended_copy,
                        "token_in": token_in,
                        "token_out": token_out,
                        "preference": 0,
                    },
                }
                for kind, (extended_copy, token_in, token_out) in sorted(self.types.items())
            ],
        }

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "RodFeatures":
        """Return what these fields of descriptors say."""
        known = {
            name: values[name]
            for name in cls.__dataclass_fields__
            if name != "types" and name in values
        }
        types = {
            one.type: (one.flags.extended_copy, one.flags.token_in, one.flags.token_out)
            for one in values.get("rod_types", ())
        }
        return cls(**known, types=types)


_TOKEN_DESCRIPTORS = {BLOCK_DEVICE_ROD_LIMITS, ROD_TOKEN_FEATURES, SUPPORTED_ROD_TYPES}


@dataclass(frozen=True, slots=True)
class ThirdPartyCopyPage:
    """Page 8Fh as this project's managers fill it, and as much of another's as they do.

    `commands` maps an operation code to its service actions. `parameters` repeats what RECEIVE
    COPY OPERATING PARAMETERS answers (6.22 wants equal values); of another manager's page the
    fields that the page does not carry are zero. `cscd_ids` are those above 07FFh. `rods` is None
    where there are no RODs.
    """

    PAGE_CODE: ClassVar[int] = 0x8F

    commands: Mapping[int, tuple[int, ...]]
    parameters: OperatingParameters
    cscd_ids: tuple[int, ...] = ()
    rods: RodFeatures | None = None

    def pack(self) -> bytes:
        """The whole page, peripheral byte 0."""
        values = {
            **field_values(self.parameters),
            "commands": [
                {"opcode": opcode, "service_actions": sorted(actions)}
                for opcode, actions in sorted(self.commands.items())
            ],
            "cscd_ids": sorted(self.cscd_ids),
            **({} if self.rods is None else self.rods.values()),
        }
        left_out: set[int] = set()
        if self.rods is None:
            left_out = _TOKEN_DESCRIPTORS
        elif not self.rods.maximum_ranges:
            left_out = {BLOCK_DEVICE_ROD_LIMITS}
        body: bytes = _DESCRIPTORS.build(
            [{"type": kind, "body": values} for kind in _BODIES if kind not in left_out]
        )
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
        known = values.keys() & {"maximum_ranges", "rod_types"}
        return cls(
            {item.opcode: tuple(item.service_actions) for item in values["commands"]},
            OperatingParameters.of(values),
            tuple(values.get("cscd_ids", ())),
            RodFeatures.of(values) if known else None,
        )
