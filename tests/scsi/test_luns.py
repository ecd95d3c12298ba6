"""LUNs and their list."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serverfree.scsi.luns import (
    lun_list_length,
    pack_lun,
    pack_lun_list,
    unpack_lun,
    unpack_lun_list,
)


def test_a_small_lun_uses_peripheral_addressing_and_a_large_one_flat_space() -> None:
    assert pack_lun(0) == bytes(8)
    assert pack_lun(255) == bytes.fromhex("00 ff 00 00 00 00 00 00")
    assert pack_lun(256) == bytes.fromhex("41 00 00 00 00 00 00 00")
    assert pack_lun(0x3FFF) == bytes.fromhex("7f ff 00 00 00 00 00 00")
    with pytest.raises(ValueError):
        pack_lun(0x4000)


def test_both_methods_name_the_same_unit() -> None:
    assert unpack_lun(bytes.fromhex("00 05 00 00 00 00 00 00")) == 5
    assert unpack_lun(bytes.fromhex("40 05 00 00 00 00 00 00")) == 5


@pytest.mark.parametrize(
    "other",
    [
        "01 05 00 00 00 00 00 00",  # peripheral addressing of another bus
        "00 05 00 01 00 00 00 00",  # a second level
        "80 05 00 00 00 00 00 00",  # logical unit addressing
        "c1 01 00 00 00 00 00 00",  # REPORT LUNS well known logical unit
        "00 05",
        "",
    ],
)
def test_other_luns_name_nothing(other: str) -> None:
    assert unpack_lun(bytes.fromhex(other)) is None


@given(st.lists(st.integers(0, 0x3FFF)))
def test_a_list_is_read_back(luns: list[int]) -> None:
    packed = pack_lun_list(luns)
    assert unpack_lun_list(packed) == luns
    assert lun_list_length(packed) == len(packed)
    assert unpack_lun_list(packed[:-1]) == luns[:-1]


def test_the_length_counts_from_byte_eight() -> None:
    assert pack_lun_list([0, 300]) == bytes.fromhex(
        "00 00 00 10 00 00 00 00  00 00 00 00 00 00 00 00  41 2c 00 00 00 00 00 00"
    )
