"""RECEIVE COPY RESULTS and the CDBs of 83h, 84h against bytes set by hand (SPC-4 6.5, 6.20 on)."""

import pytest

from serverfree.scsi.cdb.copy import (
    ExtendedCopy,
    ReceiveCopyFailureDetails,
    ReceiveCopyOperatingParameters,
    ReceiveCopyStatus,
)
from serverfree.scsi.copy_results import (
    CopyCommandStatus,
    CopyStatus,
    FailureDetails,
    OperatingParameters,
)


def test_cdbs_have_the_bytes_of_their_tables() -> None:
    assert ExtendedCopy(0x01020304).pack() == bytes.fromhex("83 00 0000000000000000 01020304 00 00")
    assert ReceiveCopyStatus(0x77, 0x0C).pack() == bytes.fromhex(
        "84 00 77 00000000000000 0000000c 00 00"
    )
    assert ReceiveCopyOperatingParameters(0x100).pack() == bytes.fromhex(
        "84 03 0000000000000000 00000100 00 00"
    )
    assert ReceiveCopyFailureDetails(0x77, 0x100).pack() == bytes.fromhex(
        "84 04 77 00000000000000 00000100 00 00"
    )


PARAMETERS = OperatingParameters(
    supports_no_list_identifier=True,
    maximum_cscd_count=0x0102,
    maximum_segment_count=0x0304,
    maximum_descriptor_list_length=0x11121314,
    maximum_segment_length=0x21222324,
    maximum_inline_data_length=0x31323334,
    held_data_limit=0x41424344,
    maximum_stream_transfer_size=0x51525354,
    total_concurrent_copies=0x6162,
    maximum_concurrent_copies=0x71,
    data_segment_granularity=1,
    inline_data_granularity=2,
    held_data_granularity=3,
    descriptor_types=(0x00, 0x02, 0xE4),
)
PARAMETERS_RAW = bytes.fromhex(
    "0000002b 01 000000 0102 0304 11121314 21222324 31323334 41424344 51525354"
    "0000 6162 71 01 02 03 000000 03 0002e4"
)


def test_operating_parameters_have_the_bytes_of_table_244() -> None:
    assert PARAMETERS.pack() == PARAMETERS_RAW
    assert OperatingParameters.unpack(PARAMETERS_RAW) == PARAMETERS


@pytest.mark.parametrize("cut", [0, 3, 4, 30, len(PARAMETERS_RAW) - 1])
def test_response_cut_short_is_a_value_error(cut: int) -> None:
    with pytest.raises(ValueError, match="malformed"):
        OperatingParameters.unpack(PARAMETERS_RAW[:cut])


def test_status_has_the_bytes_of_table_253() -> None:
    raw = bytes.fromhex("00000008 82 0102 00 11121314")
    status = CopyStatus.unpack(raw)
    assert status.status == CopyCommandStatus.FAILED
    assert status.held_data_discarded
    assert (status.segments_processed, status.bytes_transferred) == (0x0102, 0x11121314)
    assert status.pack() == raw


@pytest.mark.parametrize(
    ("transferred", "units", "count"),
    [
        (0, 0, 0),
        (0xFFFFFFFF, 0, 0xFFFFFFFF),
        (0x100000000, 1, 0x400000),
        (0xFFFFFFFF << 10 | 0x3FF, 1, 0xFFFFFFFF),
        (0x100000000 << 10, 2, 0x400000),
    ],
)
def test_transfer_count_takes_the_finest_units_that_hold_it(
    transferred: int, units: int, count: int
) -> None:
    raw = CopyStatus.of(CopyCommandStatus.IN_PROGRESS, 3, transferred).pack()
    assert raw == bytes.fromhex("00000008 00 0003") + bytes([units]) + count.to_bytes(4, "big")


def test_segments_processed_stays_within_its_field() -> None:
    assert CopyStatus.of(CopyCommandStatus.COMPLETED, 70000, 0).segments_processed == 0xFFFF


def test_count_in_destination_blocks_has_no_bytes() -> None:
    assert (
        CopyStatus.unpack(bytes.fromhex("00000008 01 0001 f1 00000001")).bytes_transferred is None
    )


def test_failure_details_have_the_bytes_of_table_246() -> None:
    raw = (60 - 4 + 5).to_bytes(4, "big") + bytes(52) + b"\x02\0\0\x05" + b"sense"
    details = FailureDetails(0x02, b"sense")
    assert details.pack() == raw
    assert FailureDetails.unpack(raw) == details


def test_nothing_to_tell_is_four_zeros() -> None:
    assert FailureDetails().pack() == bytes(4)
    assert FailureDetails.unpack(bytes(4)) == FailureDetails()


def test_details_longer_than_their_sense_are_cut_to_it() -> None:
    raw = (60 - 4 + 8).to_bytes(4, "big") + bytes(52) + b"\x02\0\0\x05" + b"sensepad"
    assert FailureDetails.unpack(raw).sense == b"sense"
