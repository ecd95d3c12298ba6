"""Segment descriptors against bytes set by hand from SPC-4 tables 149 to 162."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serverfree.scsi.copy_cscd import InvalidField
from serverfree.scsi.copy_segments import (
    SEGMENT_TYPES,
    BlockImage,
    BlockRangeToBlockRange,
    BlockRangeToStream,
    BlockToBlock,
    BlockToBlockHold,
    BlockToStream,
    BlockToStreamHold,
    DigestOfDestination,
    EmbeddedToStream,
    InlineToStream,
    Locate,
    MoveReservation,
    PopulateRodRange,
    PopulateRodRanges,
    RegisterKey,
    Segment,
    Space,
    StreamToBlock,
    StreamToBlockHold,
    StreamToBlockRange,
    StreamToDigest,
    StreamToDiscard,
    StreamToDiscardHold,
    StreamToStream,
    StreamToStreamHold,
    TapeImage,
    VerifyCscd,
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
    (
        StreamToDigest(5, 0x010203, 0xFEDCBA98, cat=True),
        "c0 01 000c 0005 0000 00 010203 fedcba98",
    ),
    (
        PopulateRodRanges(0xFFFF, 2, ((0x0102030405060708, 0x11121314), (9, 1))),
        "be 00 002c ffff 0002 0000000000 01 0020 0102030405060708 11121314 00000000"
        "0000000000000009 00000001 00000000",
    ),
    (
        PopulateRodRange(0xFFFF, 2, 0x0102030405060708, 0x11121314),
        "bf 00 0010 ffff 0002 0102030405060708 11121314",
    ),
    (DigestOfDestination(0x0102), "c1 00 0004 0000 0102"),
    (WriteFilemarks(6, 0x010203, immediate=True), "10 00 0008 0000 0006 01 010203"),
    (WriteFilemarks(6), "10 00 0008 0000 0006 00 000001"),
    (Locate(7, 0xFEDCBA98), "12 00 0008 0000 0007 fedcba98"),
    (
        StreamToStream(1, 2, 0x010203, 0x040506, 0x11223344, cat=True),
        "03 01 0010 0001 0002 00 010203 00 040506 11223344",
    ),
    (
        EmbeddedToStream(3, 0x000400, b"abcde", cat=True),
        "05 01 0014 0000 0003 00 000400 0005 0000 6162636465 000000",
    ),
    (EmbeddedToStream(3, 0x000400, b""), "05 00 000c 0000 0003 00 000400 0000 0000"),
    (VerifyCscd(4, test_unit_ready=True), "07 00 0008 0004 0000 01 000000"),
    (VerifyCscd(4), "07 00 0008 0004 0000 00 000000"),
    (
        BlockRangeToStream(1, 2, 0x010203, 0xA1A2A3A4, 0x0102030405060708, 0x01FF, cat=True),
        "08 01 0018 0001 0002 00 010203 a1a2a3a4 0102030405060708 0000 01ff",
    ),
    (
        StreamToBlockRange(1, 2, 0x010203, 0xA1A2A3A4, 0x0102030405060708, 0x01FF),
        "09 00 0018 0001 0002 00 010203 a1a2a3a4 0102030405060708 0000 01ff",
    ),
    (
        BlockRangeToBlockRange(1, 2, 0xA1A2A3A4, 0x11 << 56, 0x22 << 56, 0x0102, 0x0304, cat=True),
        "0a 01 001c 0001 0002 a1a2a3a4 1100000000000000 2200000000000000 0102 0304",
    ),
    (
        BlockToStreamHold(1, 2, 3, 4, 5),
        "0b 00 0014 0001 0002 00 000003 0000 0004 0000000000000005",
    ),
    (
        StreamToBlockHold(1, 2, 3, 4, 5, cat=True),
        "0c 01 0014 0001 0002 00 000003 0000 0004 0000000000000005",
    ),
    (
        BlockToBlockHold(0, 1, 2, 3, 4, dc=True),
        "0d 02 0018 0000 0001 0000 0002 0000000000000003 0000000000000004",
    ),
    (StreamToStreamHold(1, 2, 3, 4, 5), "0e 00 0010 0001 0002 00 000003 00 000004 00000005"),
    (StreamToDiscardHold(5, 0x10000, 7), "0f 00 000c 0005 0000 00 010000 00000007"),
    (Space(7, 1, 0xFFFFFE), "11 00 0008 0000 0007 01 fffffe"),
    (TapeImage(1, 2, 0x01020304), "13 00 0008 0001 0002 01020304"),
    (
        RegisterKey(9, 0x0102030405060708, 0x1112131415161718),
        "14 00 0018 0000 0009 0102030405060708 1112131415161718 00000000",
    ),
    (
        MoveReservation(9, 1 << 56, 2 << 56, 0x0304, b"\x05" * 24, unregister=True),
        "15 00 0034 0000 0009 0100000000000000 0200000000000000 00 02 0304 00000018" + "05" * 24,
    ),
    (
        MoveReservation(9, 1, 2, 3, b"\x05" * 4, aptpl=True),
        "15 00 0020 0000 0009 0000000000000001 0000000000000002 00 01 0003 00000004 05050505",
    ),
    (
        BlockImage(1, 2, 0x0102030405060708, 0x1112131415161718, 0x21222324),
        "16 00 0018 0001 0002 0102030405060708 1112131415161718 21222324",
    ),
]


@pytest.mark.parametrize(("segment", "text"), VECTORS, ids=lambda one: getattr(one, "TYPE", ""))
def test_descriptor_has_the_bytes_of_its_table(segment: Segment, text: str) -> None:
    raw = bytes.fromhex(text)
    assert segment.pack() == raw
    assert len(raw) == segment.LENGTH or segment.VARIABLE
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


def test_every_type_has_its_vector() -> None:
    assert {segment.TYPE for segment, _ in VECTORS} == set(SEGMENT_TYPES)


def test_space_backwards_is_twos_complement() -> None:
    assert Space(7, 1, -2).pack() == bytes.fromhex("11 00 0008 0000 0007 01 fffffe")


def test_more_embedded_data_than_there_is_points_at_its_number() -> None:
    raw = bytes.fromhex("05 00 0010 0000 0003 00 000400 0005 0000 61626364")
    with pytest.raises(InvalidField) as caught:
        EmbeddedToStream.unpack(raw)
    assert caught.value.byte == 12


FIXED_LENGTH = sorted(code for code, kind in SEGMENT_TYPES.items() if not kind.VARIABLE)


@given(st.binary(min_size=32, max_size=32), st.sampled_from(FIXED_LENGTH))
def test_any_bytes_read_as_a_descriptor_and_come_back_the_same(noise: bytes, code: int) -> None:
    segment = SEGMENT_TYPES[code].unpack(bytes([code]) + noise[1:])
    assert SEGMENT_TYPES[code].unpack(segment.pack()) == segment
