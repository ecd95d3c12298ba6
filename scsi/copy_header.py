"""The two headers of an EXTENDED COPY parameter list (SPC-4 6.4.2, 6.5)."""

from dataclasses import dataclass

from construct import BitsInteger, BitStruct, Flag, Padding

from serverfree.scsi.structure import Structure


@dataclass
class Lid1Header(Structure):
    """Table 172: a list identifier of one byte."""

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


LID4_FORMAT = 0x01
LID4_HEADER_CSCD_LENGTH = 0x0020
LID4_HEADER_CSCD_TYPE = 0xFF


@dataclass
class Lid4Header(Structure):
    """Table 126: a list identifier of four bytes, where SPC-3 would see a CSCD of no type.

    `format`, `header_cscd_length` and `header_cscd_type` have but one value.
    """

    list_identifier: int
    sequential_striped: bool
    list_id_usage: int
    priority: int
    cscd_list_length: int
    segment_list_length: int
    inline_data_length: int
    good_with_sense: bool
    immediate: bool
    format: int = LID4_FORMAT
    header_cscd_length: int = LID4_HEADER_CSCD_LENGTH
    header_cscd_type: int = LID4_HEADER_CSCD_TYPE

    LAYOUT = BitStruct(
        "format" / BitsInteger(8),
        Padding(2),
        "sequential_striped" / Flag,
        "list_id_usage" / BitsInteger(2),
        "priority" / BitsInteger(3),
        "header_cscd_length" / BitsInteger(16),
        Padding(88 + 6),
        "good_with_sense" / Flag,
        "immediate" / Flag,
        "header_cscd_type" / BitsInteger(8),
        Padding(24),
        "list_identifier" / BitsInteger(32),
        Padding(144),
        "cscd_list_length" / BitsInteger(16),
        "segment_list_length" / BitsInteger(16),
        "inline_data_length" / BitsInteger(16),
    )
