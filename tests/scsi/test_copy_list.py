"""The parameter list against bytes set by hand from SPC-4 tables 129 to 140 and 172."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serverfree.scsi.copy_cscd import (
    BlockParameters,
    IdentificationCscd,
    ProcessorParameters,
    StreamParameters,
)
from serverfree.scsi.copy_list import CopyList, ListIdUsage
from serverfree.scsi.copy_results import OperatingParameters
from serverfree.scsi.copy_segments import BlockToBlock, BlockToStream, InlineToStream, Locate
from serverfree.scsi.designator import Association, CodeSet, Designator, DesignatorType
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.sense import SenseKey

LIMITS = OperatingParameters(
    supports_no_list_identifier=True,
    maximum_cscd_count=2,
    maximum_segment_count=3,
    maximum_descriptor_list_length=4 * 32 + 4 * 28,
    maximum_inline_data_length=64,
    maximum_stream_transfer_size=0xFFFFFF,
    descriptor_types=(0x00, 0x01, 0x02, 0x04, 0x06, 0x10, 0x12, 0xE4),
)

NAA = bytes.fromhex("3102030405060708")
DISK_CSCD = bytes.fromhex(
    "e4 00 0000"  # type, device type 00h, relative initiator port
    "01 03 00 08"  # binary; association LU, type NAA; length 8
    "3102030405060708 000000000000000000000000"
    "04 000200"  # PAD, 512 bytes a block
)
TAPE_CSCD = bytes.fromhex(
    "e4 01 0000 01 03 00 08 3102030405060708 000000000000000000000000"
    "05 000400"  # PAD and FIXED, 1024 bytes a block
)
FILL = bytes.fromhex("02 00 0018 0000 0000 0000 0001 0000000000000002 0000000000000003")


def parameter_list(
    cscds: bytes = DISK_CSCD,
    segments: bytes = FILL,
    inline: bytes = b"",
    *,
    identifier: int = 1,
    flags: int = 0x01,
    lengths: tuple[int, int, int] | None = None,
) -> bytes:
    cscd, segment, rest = lengths or (len(cscds), len(segments), len(inline))
    header = bytes([identifier, flags]) + cscd.to_bytes(2, "big") + bytes(4)
    header += segment.to_bytes(4, "big") + rest.to_bytes(4, "big")
    return header + cscds + segments + inline


def refused(data: bytes, limits: OperatingParameters = LIMITS) -> tuple[int, tuple[int, ...]]:
    """ASC and ASCQ, and SENSE KEY SPECIFIC, of an ILLEGAL REQUEST without INFORMATION."""
    with pytest.raises(CheckCondition) as caught:
        CopyList.unpack(data, limits)
    assert caught.value.sense.key is SenseKey.ILLEGAL_REQUEST
    raw = caught.value.sense.pack()
    assert raw[0] == 0x70, "VALID is zero before the first segment (5.17.7.3)"
    return int.from_bytes(raw[12:14], "big"), tuple(raw[15:18])


def pointer(byte: int, bit: int | None = None) -> tuple[int, ...]:
    return (0x80 | (0 if bit is None else 0x08 | bit), byte >> 8, byte & 0xFF)


NO_POINTER = (0, 0, 0)


def test_list_has_the_bytes_of_its_tables() -> None:
    name = Designator(DesignatorType.NAA, NAA)
    built = CopyList(
        [
            IdentificationCscd(name, BlockParameters(512, pad=True), 0x00),
            IdentificationCscd(name, StreamParameters(1024, fixed=True, pad=True), 0x01),
        ],
        [BlockToBlock(0, 0, 1, 2, 3)],
        b"inline",
        list_identifier=0x99,
        list_id_usage=ListIdUsage.DISCARD,
        priority=5,
        sequential_striped=True,
    )
    raw = bytes.fromhex("99 35 0040 00000000 0000001c 00000006")
    raw += DISK_CSCD + TAPE_CSCD + FILL + b"inline"
    assert built.pack() == raw
    read = CopyList.unpack(memoryview(raw), LIMITS)
    assert bytes(read.inline) == b"inline"
    read.inline = b"inline"
    assert read == built


def test_descriptor_keeps_every_kind_of_designator() -> None:
    raw = bytearray(DISK_CSCD)
    raw[2:4] = b"\x12\x34"
    raw[4:8] = bytes([0x02, 0x21, 0, 20])  # ASCII; target device, T10 vendor id; 20 bytes
    raw[8:28] = b"VENDOR  PRODUCT 1234"
    cscd = IdentificationCscd.unpack(raw)
    assert cscd.designator == Designator(
        DesignatorType.T10_VENDOR_ID,
        b"VENDOR  PRODUCT 1234",
        CodeSet.ASCII,
        Association.TARGET_DEVICE,
    )
    assert cscd.relative_initiator_port == 0x1234
    assert cscd.pack() == bytes(raw)


def test_longer_designator_cannot_be_sent() -> None:
    name = Designator(DesignatorType.T10_VENDOR_ID, bytes(21))
    with pytest.raises(ValueError, match="too long"):
        IdentificationCscd(name, BlockParameters(512), 0).pack()


def test_processor_descriptor() -> None:
    raw = bytearray(DISK_CSCD)
    raw[1], raw[28:32] = 0x03, bytes([0x04, 0, 0, 0])
    cscd = IdentificationCscd.unpack(raw)
    assert (cscd.device_type, cscd.parameters) == (3, ProcessorParameters(pad=True))
    assert cscd.pack() == bytes(raw)


def test_lu_id_type_and_obsolete_bit_are_ignored() -> None:
    raw = bytearray(DISK_CSCD)
    raw[1] |= 0xA0  # LU ID TYPE 10b, NUL: libiscsi ExtendedCopy.ValidTgtDescr wants GOOD
    assert CopyList.unpack(parameter_list(bytes(raw)), LIMITS).cscds[0].device_type == 0


def test_bytes_behind_the_list_are_ignored() -> None:
    assert len(CopyList.unpack(parameter_list() + b"more", LIMITS).segments) == 1


def test_empty_lists_are_no_error() -> None:
    read = CopyList.unpack(parameter_list(b"", b""), LIMITS)
    assert (read.cscds, read.segments, bytes(read.inline)) == ([], [], b"")


@pytest.mark.parametrize(
    "cut",
    [1, 15, 16, 16 + 31, 16 + 32, 16 + 32 + 3, 16 + 32 + 27, 16 + 32 + 28 + 5],
)
def test_truncation_anywhere_is_a_length_error(cut: int) -> None:
    whole = parameter_list(inline=b"inline")
    assert refused(whole[:cut]) == (0x1A00, NO_POINTER)


def test_descriptors_beyond_the_maximum_length_are_a_length_error_before_counts() -> None:
    # libiscsi ExtendedCopy.DescrLimits: too many of both, and too long: 1A/00 it is.
    data = parameter_list(DISK_CSCD * 3, FILL * 6)
    assert refused(data) == (0x1A00, NO_POINTER)


def test_lists_that_end_within_a_descriptor_are_length_errors() -> None:
    assert refused(parameter_list(DISK_CSCD + b"\xe4")) == (0x1A00, NO_POINTER)
    assert refused(parameter_list(segments=FILL[:20])) == (0x1A00, NO_POINTER)
    assert refused(parameter_list(segments=FILL + b"\x02")) == (0x1A00, NO_POINTER)


def test_one_cscd_too_many() -> None:
    assert refused(parameter_list(DISK_CSCD * 3)) == (0x2606, pointer(2))


def test_one_segment_too_many() -> None:
    assert refused(parameter_list(segments=FILL * 4)) == (0x2608, pointer(8))


def test_more_inline_data_than_the_manager_takes() -> None:
    assert refused(parameter_list(inline=bytes(65))) == (0x260B, pointer(12))


@pytest.mark.parametrize("code", [0xE0, 0xE5, 0xEA, 0xFE, 0xFF, 0xC0, 0x02])
def test_unsupported_cscd_type(code: int) -> None:
    wrong = bytes([code]) + DISK_CSCD[1:]
    assert refused(parameter_list(DISK_CSCD + wrong)) == (0x2607, pointer(16 + 32))


@pytest.mark.parametrize("code", [0x03, 0x05, 0x07, 0x0A, 0x11, 0xBE, 0xE4])
def test_unsupported_segment_type(code: int) -> None:
    wrong = bytes([code]) + FILL[1:]
    assert refused(parameter_list(segments=FILL + wrong)) == (0x2609, pointer(16 + 32 + 28))


def test_type_that_this_manager_leaves_out() -> None:
    limits = OperatingParameters(
        maximum_cscd_count=2,
        maximum_segment_count=2,
        maximum_descriptor_list_length=1000,
        descriptor_types=(0x00, 0xE4),
    )
    assert refused(parameter_list(), limits) == (0x2609, pointer(48))


@pytest.mark.parametrize("length", [0x17, 0x19, 0x0018 + 4, 0])
def test_descriptor_length_other_than_its_table_says(length: int) -> None:
    wrong = FILL[:2] + length.to_bytes(2, "big") + FILL[4:]
    assert refused(parameter_list(segments=wrong)) == (0x2600, pointer(16 + 32 + 2))


def test_reserved_list_id_usage() -> None:
    assert refused(parameter_list(flags=0x09)) == (0x2600, pointer(1, 4))


def test_no_list_identifier_wants_an_identifier_of_zero() -> None:
    assert refused(parameter_list(flags=0x19)) == (0x2600, pointer(0))
    read = CopyList.unpack(parameter_list(flags=0x19, identifier=0), LIMITS)
    assert read.list_id_usage is ListIdUsage.NO_IDENTIFIER


def test_no_list_identifier_where_it_is_not_supported() -> None:
    limits = OperatingParameters(
        maximum_cscd_count=2,
        maximum_segment_count=2,
        maximum_descriptor_list_length=1000,
        descriptor_types=LIMITS.descriptor_types,
    )
    assert refused(parameter_list(flags=0x19, identifier=0), limits) == (0x2600, pointer(1, 4))


def with_bytes(cscd: bytes, at: int, new: bytes) -> bytes:
    return cscd[:at] + new + cscd[at + len(new) :]


@pytest.mark.parametrize(
    ("cscd", "where"),
    [
        (with_bytes(DISK_CSCD, 1, b"\x02"), pointer(16 + 1, 4)),  # a printer is reserved here
        (with_bytes(DISK_CSCD, 1, b"\x1f"), pointer(16 + 1, 4)),
        (with_bytes(DISK_CSCD, 7, b"\x15"), pointer(16 + 7)),  # 21 bytes of designator
        (with_bytes(with_bytes(DISK_CSCD, 1, b"\x05"), 29, bytes(3)), pointer(16 + 29)),
        (with_bytes(TAPE_CSCD, 29, bytes(3)), pointer(16 + 28, 0)),  # FIXED, no block length
        (with_bytes(TAPE_CSCD, 28, b"\0"), pointer(16 + 29)),  # a block length, not FIXED
    ],
)
def test_impossible_cscd_field(cscd: bytes, where: tuple[int, ...]) -> None:
    assert refused(parameter_list(cscd)) == (0x2600, where)


def test_disk_block_length_zero_leaves_it_to_the_disk() -> None:
    read = CopyList.unpack(parameter_list(with_bytes(DISK_CSCD, 29, bytes(3))), LIMITS)
    assert read.cscds[0].parameters == BlockParameters(0, pad=True)


@pytest.mark.parametrize(
    "segment",
    [
        lambda: BlockToStream(0, 0, 0, 1, 0),
        lambda: InlineToStream(0, 0, 0, 0),
    ],
)
def test_transfer_length_of_zero(segment: Callable[[], BlockToStream]) -> None:
    data = parameter_list(segments=segment().pack())
    assert refused(data) == (0x2600, pointer(16 + 32 + 9))


@pytest.mark.parametrize("offset", [1, 2, 3, 5])
def test_inline_offset_is_a_multiple_of_four(offset: int) -> None:
    data = parameter_list(segments=InlineToStream(0, 512, offset, 1).pack(), inline=bytes(8))
    assert refused(data) == (0x2600, pointer(16 + 32 + 12))


def test_field_beyond_the_reach_of_a_pointer_has_none() -> None:
    limits = OperatingParameters(
        maximum_cscd_count=1,
        maximum_segment_count=10000,
        maximum_descriptor_list_length=1 << 20,
        descriptor_types=(0x12, 0xE4),
    )
    segments = Locate(0, 1).pack() * 6000
    assert refused(parameter_list(segments=segments + FILL), limits) == (0x2609, NO_POINTER)


MIXED = parameter_list(
    DISK_CSCD + TAPE_CSCD,
    FILL + BlockToStream(0, 1, 512, 1, 0).pack() + InlineToStream(1, 512, 4, 4).pack(),
    bytes(8),
)


@given(
    st.lists(st.tuples(st.integers(0, len(MIXED) - 1), st.integers(0, 255)), max_size=4),
    st.integers(1, len(MIXED)),
)
def test_no_list_whatever_is_in_it_fails_otherwise_than_by_its_sense(
    changes: list[tuple[int, int]], length: int
) -> None:
    data = bytearray(MIXED)
    for at, value in changes:
        data[at] = value
    try:
        CopyList.unpack(memoryview(data)[:length], LIMITS)
    except CheckCondition as error:
        sense = error.sense
    else:
        return
    assert sense.key is SenseKey.ILLEGAL_REQUEST
    assert sense.pack()[0] == 0x70
