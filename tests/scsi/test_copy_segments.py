"""Segment descriptors against bytes set by hand from SPC-4 tables 149 to 162."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serverfree.scsi.copy_segments import (
    SEGMENT_TYPES,
    BlockToBlock,
    BlockToStream,
    InlineToStream,
    Locate,
    Segment,
    StreamToBlock,
    StreamToDiscard,
    WriteFilemarks,
)

VECTORS: list[tuple[Segment, str]] = [
    (
        BlockToStream(1, 2, 0x040000, 0xFFFF, 0x0102030405060708, cat=True),
        "00 01 0014 0001 0002 00 040000 0000 ffff 0102030405060708",
    ),
    (
        StreamToBlock(0x07FF, 3, 0xFFFFFF, 0x0102, 0x09),
        "01 00 0014 07ff 0003 00 ffffff 0000 0102 0000000000000009",
    ),
    (
        BlockToBlock(0, 1, 0x8000, 0x1112131415161718, 0x2122232425262728, dc=True),
        "02 02 0018 0000 0001 0000 8000 1112131415161718 2122232425262728",
    ),
    (
        BlockToBlock(0, 0xFFFF, 1, 2, 3, cat=True, dc=True),
        "02 03 0018 0000 ffff 0000 0001 0000000000000002 0000000000000003",
    ),
    (
        InlineToStream(4, 0x000200, 0x01020304, 0x11121314, cat=True),
        "04 01 0010 0000 0004 00 000200 01020304 11121314",
    ),
    (
        StreamToDiscard(5, 0x010000, 0xFFFFFFFF),
        "06 00 000c 0005 0000 00 010000 ffffffff",
    ),
    (WriteFilemarks(6, 0x010203, immediate=True), "10 00 0008 0000 0006 01 010203"),
    (WriteFilemarks(6), "10 00 0008 0000 0006 00 000001"),
    (Locate(7, 0xFEDCBA98), "12 00 0008 0000 0007 fedcba98"),
]


@pytest.mark.parametrize(("segment", "text"), VECTORS, ids=lambda one: getattr(one, "TYPE", ""))
def test_descriptor_has_the_bytes_of_its_table(segment: Segment, text: str) -> None:
    raw = bytes.fromhex(text)
    assert segment.pack() == raw
    assert len(raw) == segment.LENGTH
    assert SEGMENT_TYPES[raw[0]].unpack(b"....." + raw, 5) == segment


def test_reserved_fields_are_passed_over() -> None:
    raw = bytearray(BlockToStream(1, 2, 3, 4, 5).pack())
    raw[1] |= 0xFE  # DC does not apply to 00h; the rest is reserved
    raw[8] = raw[12] = raw[13] = 0xFF
    assert BlockToStream.unpack(raw) == BlockToStream(1, 2, 3, 4, 5)


def test_obsolete_bit_beside_w_immed_is_passed_over() -> None:
    raw = bytearray(WriteFilemarks(6, 1).pack())
    raw[8] = 0x02
    assert WriteFilemarks.unpack(raw) == WriteFilemarks(6, 1, immediate=False)


@given(st.binary(min_size=28, max_size=28), st.sampled_from(sorted(SEGMENT_TYPES)))
def test_any_bytes_read_as_a_descriptor_and_come_back_the_same(noise: bytes, code: int) -> None:
    segment = SEGMENT_TYPES[code].unpack(bytes([code]) + noise[1:])
    assert SEGMENT_TYPES[code].unpack(segment.pack()) == segment
