"""UNMAP lists and GET LBA STATUS data."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyscsi.pyscsi.scsi_cdb_getlbastatus import GetLBAStatus

from serverfree.scsi.provisioning import (
    BlockRange,
    LbaStatus,
    Provisioning,
    pack_lba_status,
    pack_unmap_list,
    unpack_unmap_list,
)

LIST = bytes.fromhex(
    "00 26 00 20 00 00 00 00"
    "01 02 03 04 05 06 07 08 00 00 00 09 00 00 00 00"
    "00 00 00 00 00 00 00 0a ff ff ff ff 00 00 00 00"
)
RANGES = [BlockRange(0x0102030405060708, 9), BlockRange(10, 0xFFFFFFFF)]


def test_a_list_is_read_and_written_as_the_clause_draws_it() -> None:
    assert unpack_unmap_list(LIST) == RANGES
    assert pack_unmap_list(RANGES) == LIST
    assert unpack_unmap_list(memoryview(LIST)) == RANGES


def test_a_last_descriptor_that_its_length_cuts_short_is_left_out() -> None:
    assert unpack_unmap_list(LIST[:3] + b"\x1f" + LIST[4:]) == RANGES[:1]
    assert unpack_unmap_list(LIST[:3] + b"\x0f" + LIST[4:]) == []


@pytest.mark.parametrize("end", [0, 7, 8, 23, 39])
def test_a_list_that_ends_too_early_is_refused(end: int) -> None:
    with pytest.raises(ValueError):
        unpack_unmap_list(LIST[:end])


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        ranges = unpack_unmap_list(raw)
    except ValueError:
        return
    assert len(ranges) == int.from_bytes(raw[2:4], "big") // 16


STATUS = [
    LbaStatus(0, 8, Provisioning.MAPPED),
    LbaStatus(8, 0xFFFFFFFF, Provisioning.DEALLOCATED),
]


def test_lba_status_in_bytes() -> None:
    assert pack_lba_status(STATUS) == bytes.fromhex(
        "00 00 00 24 00 00 00 00"
        "00 00 00 00 00 00 00 00 00 00 00 08 00 00 00 00"
        "00 00 00 00 00 00 00 08 ff ff ff ff 01 00 00 00"
    )


def test_pyscsi_reads_lba_status() -> None:
    read = GetLBAStatus.unmarshall_datain(pack_lba_status(STATUS))["lbas"]
    assert [(each["lba"], each["num_blocks"], each["p_status"]) for each in read] == [
        (0, 8, 0),
        (8, 0xFFFFFFFF, 1),
    ]


def test_lba_status_is_read_as_far_as_it_is_present() -> None:
    packed = pack_lba_status(STATUS)
    assert LbaStatus.unpack_list(packed) == STATUS
    assert LbaStatus.unpack_list(packed[:39]) == STATUS[:1]
    assert LbaStatus.unpack_list(packed[:5]) == []
