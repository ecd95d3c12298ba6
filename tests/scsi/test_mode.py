"""Mode parameter lists and pages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyscsi.pyscsi.scsi_cdb_modesense6 import ModeSense6

from serverfree.scsi.mode import (
    BlockDescriptor,
    Caching,
    Control,
    InformationalExceptions,
    LongBlockDescriptor,
    ModeData,
    ReadWriteErrorRecovery,
)


def test_a_short_list_in_bytes() -> None:
    data = ModeData(0, 0x90, BlockDescriptor(0x1000, 512).pack(), (Caching(True).pack(),))
    assert data.pack(ten=False) == bytes.fromhex(
        "1f 00 90 08 00 00 10 00 00 00 02 00"
        "08 12 04 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"
    )


def test_a_long_list_in_bytes() -> None:
    data = ModeData(0, 0x10, LongBlockDescriptor(1 << 33, 4096).pack(), (Control().pack(),))
    assert data.pack(ten=True) == bytes.fromhex(
        "00 22 00 10 01 00 00 10"
        "00 00 00 02 00 00 00 00 00 00 00 00 00 00 10 00"
        "0a 0a 00 00 00 00 00 00 00 00 00 00"
    )


def test_the_pages_in_bytes() -> None:
    assert ReadWriteErrorRecovery().pack() == bytes.fromhex("01 0a") + bytes(10)
    assert ReadWriteErrorRecovery(True, True).pack()[2] == 0xC0
    assert Caching(read_cache_disabled=True).pack()[2] == 0x01
    assert Control(True, True, True).pack()[2:5] == bytes.fromhex("04 10 08")
    assert InformationalExceptions(True, 6).pack() == bytes.fromhex("1c 0a 08 06") + bytes(8)


def test_pyscsi_reads_the_control_page() -> None:
    page = Control(descriptor_sense=True, software_write_protect=True).pack()
    read = ModeSense6.unmarshall_datain(bytearray(ModeData(pages=(page,)).pack(ten=False)))
    [control] = read["mode_pages"]
    keys = ("page_code", "d_sense", "swp", "qerr", "tst", "tas", "queue_algorithm_modifier")
    assert [control[key] for key in keys] == [0x0A, 1, 1, 0, 0, 0, 0]


def test_a_page_is_read_back_and_no_other_is_taken_for_it() -> None:
    for page in (Caching(True, True), Control(True), InformationalExceptions(True, 3)):
        assert type(page).unpack(page.pack()) == page
        assert type(page).unpack(bytes((page.pack()[0] | 0x80,)) + page.pack()[1:]) == page  # PS
        with pytest.raises(ValueError, match="not mode page"):
            type(page).unpack(b"\x02" + page.pack()[1:])
    with pytest.raises(ValueError, match="not mode page"):
        Caching.unpack(b"\x08")


def test_a_list_that_needs_more_than_its_length_field_is_not_packed() -> None:
    with pytest.raises(ValueError, match="MODE SENSE"):
        ModeData(pages=(b"\x20\xfe" + bytes(254),)).pack(ten=False)
    assert len(ModeData(pages=(b"\x20\xfe" + bytes(254),)).pack(ten=True)) == 264


@pytest.mark.parametrize("ten", [False, True])
def test_a_list_that_ends_within_a_part_is_refused(ten: bool) -> None:
    whole = ModeData(0, 0, BlockDescriptor(1, 512).pack(), (Caching().pack(),)).pack(ten=ten)
    header, descriptor = (8, 16) if ten else (4, 12)
    assert ModeData.unpack(whole[: header - 1] + b"\0", ten=ten).pages == ()
    assert ModeData.unpack(whole[:descriptor], ten=ten).pages == ()
    for end in range(len(whole)):
        if end != descriptor:
            with pytest.raises(ValueError):
                ModeData.unpack(whole[:end], ten=ten)


def test_subpages_are_told_apart_from_pages() -> None:
    subpage = bytes.fromhex("4a 01 00 02 aa bb")
    data = ModeData.unpack(bytes(4) + Control().pack() + subpage, ten=False)
    assert data.pages == (Control().pack(), subpage)
    assert data.offsets == (4, 16)


@given(
    st.booleans(),
    st.sampled_from([b"", BlockDescriptor(7, 512).pack()]),
    st.lists(
        st.builds(
            lambda c, b: bytes((c, len(b))) + b, st.integers(1, 0x3E), st.binary(max_size=20)
        ),
        max_size=5,
    ),
)
def test_what_is_packed_is_read_back(ten: bool, descriptor: bytes, pages: list[bytes]) -> None:
    data = ModeData.unpack(ModeData(1, 2, descriptor, tuple(pages)).pack(ten=ten), ten=ten)
    assert (data.medium_type, data.device_specific) == (1, 2)
    assert (data.block_descriptor, data.pages) == (descriptor, tuple(pages))


@given(st.booleans(), st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(ten: bool, raw: bytes) -> None:
    try:
        data = ModeData.unpack(raw, ten=ten)
    except ValueError:
        return
    assert sum(map(len, data.pages)) + len(data.block_descriptor) + (8 if ten else 4) == len(raw)
