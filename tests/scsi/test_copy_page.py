"""VPD page 8Fh against bytes set by hand from SPC-4 tables 643 to 659."""

from dataclasses import replace

import pytest

from serverfree.scsi.copy_page import RodFeatures, ThirdPartyCopyPage
from serverfree.scsi.copy_results import OperatingParameters

PARAMETERS = OperatingParameters(
    maximum_cscd_count=0x0102,
    maximum_segment_count=0x0304,
    maximum_descriptor_list_length=0x11121314,
    maximum_segment_length=0x21222324,
    maximum_inline_data_length=0x31323334,
    held_data_limit=0x41424344,
    maximum_stream_transfer_size=0x51525354,
    total_concurrent_copies=0x62,
    maximum_concurrent_copies=0x71,
    data_segment_granularity=1,
    inline_data_granularity=2,
    held_data_granularity=3,
    descriptor_types=(0x00, 0x02, 0xE4),
)
BODY = bytes.fromhex(
    "0001 000c 08 83 01 00 84 03 00 03 04 000000"
    "0004 001c 00000000 0102 0304 11121314 31323334 000000000000000000000000"
    "0008 0004 03 00 02 e4"
    "000c 0004 0002 ffff"
    "8001 0020 00000062 00000071 21222324 01 02"
    + "00" * 18
    + "9101 000c 51525354 0000000000000000"
    + "c001 001c 41424344 03"
    + "00" * 23
)
RAW = bytes([0, 0x8F]) + len(BODY).to_bytes(2, "big") + BODY
PAGE = ThirdPartyCopyPage({0x83: (0,), 0x84: (0, 3, 4)}, PARAMETERS, (0xFFFF,))


def test_page_has_the_bytes_of_its_tables() -> None:
    assert PAGE.pack() == RAW
    assert ThirdPartyCopyPage.unpack(RAW) == PAGE


def test_every_descriptor_is_a_multiple_of_four_and_they_ascend() -> None:
    for types in range(9):
        page = ThirdPartyCopyPage(
            {0x84: tuple(range(types)), 0x83: (0,)},
            OperatingParameters(descriptor_types=tuple(range(types))),
            tuple(range(types)),
        ).pack()
        at, kinds = 4, []
        while at < len(page):
            kinds.append(int.from_bytes(page[at : at + 2], "big"))
            length = int.from_bytes(page[at + 2 : at + 4], "big")
            assert length % 4 == 0
            at += 4 + length
        assert at == len(page)
        assert kinds == [0x0001, 0x0004, 0x0008, 0x000C, 0x8001, 0x9101, 0xC001]


def test_descriptors_of_other_managers_are_passed_over() -> None:
    body = BODY + bytes.fromhex("e000 001c") + bytes(28)
    raw = bytes([5, 0x8F]) + len(body).to_bytes(2, "big") + body
    assert ThirdPartyCopyPage.unpack(raw) == PAGE


def test_descriptors_of_rods() -> None:
    rods = bytes.fromhex(
        "0000 0020 000000000000 0102 00015180 0000003c 0000000000000000 0000000000000000"
    )
    features = (
        bytes.fromhex("0106 005c 00" + "00" * 11 + "0000003c 00015180 00015180" + "00" * 18)
        + bytes.fromhex("0030 00 00 002c")
        + bytes(44)
    )
    types = bytes.fromhex("0108 0084 0000 0080") + b"".join(
        bytes.fromhex(f"{kind} {flags} 00 0000") + bytes(56)
        for kind, flags in (("00800001", "83"), ("ffff0001", "02"))
    )
    at = BODY.index(bytes.fromhex("8001 0020"))
    body = rods + BODY[:at] + features + types + BODY[at:]
    raw = bytes([0, 0x8F]) + len(body).to_bytes(2, "big") + body
    page = replace(
        PAGE,
        rods=RodFeatures(
            0x0102,
            60,
            60,
            86400,
            86400,
            {0xFFFF0001: (False, True, False), 0x00800001: (True, True, True)},
        ),
    )
    assert page.pack() == raw
    assert ThirdPartyCopyPage.unpack(raw) == page


def test_page_of_a_manager_without_extended_copy() -> None:
    body = (
        bytes.fromhex("0001 0008 07 83 02 10 11 84 01 07")
        + bytes.fromhex("8001 0020 00000004 00000004 00000000 00 00")
        + bytes(18)
    )
    page = ThirdPartyCopyPage.unpack(bytes([0, 0x8F]) + len(body).to_bytes(2, "big") + body)
    assert page.commands == {0x83: (0x10, 0x11), 0x84: (7,)}
    assert page.parameters == OperatingParameters(
        total_concurrent_copies=4, maximum_concurrent_copies=4
    )


@pytest.mark.parametrize("raw", [b"", bytes.fromhex("00830000"), bytes.fromhex("008f0000")])
def test_other_page_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError):
        ThirdPartyCopyPage.unpack(raw)
