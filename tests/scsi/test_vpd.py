"""Vital product data pages, judged by pyscsi and by bytes."""

import pytest
from pyscsi.pyscsi.scsi_cdb_inquiry import Inquiry

from serverfree.scsi.designator import Designator, DesignatorType
from serverfree.scsi.vpd import (
    BlockDeviceCharacteristics,
    BlockLimits,
    DeviceIdentification,
    ExtendedInquiry,
    LogicalBlockProvisioning,
    ProvisioningType,
    SupportedPages,
    UnitSerialNumber,
)

LIMITS = BlockLimits(
    write_same_non_zero=True,
    maximum_compare_and_write_length=1,
    optimal_transfer_length_granularity=8,
    maximum_transfer_length=0x10000,
    optimal_transfer_length=0x800,
    maximum_prefetch_length=0x12345678,
    maximum_unmap_lba_count=0xFFFFFFFF,
    maximum_unmap_block_descriptor_count=4095,
    optimal_unmap_granularity=8,
    unmap_granularity_alignment_valid=True,
    unmap_granularity_alignment=3,
    maximum_write_same_length=0x200000,
)


def test_pyscsi_reads_block_limits() -> None:
    read = Inquiry.unmarshall_datain(LIMITS.pack(), evpd=1)
    expected = {
        "page_code": 0xB0,
        "wsnz": 1,
        "max_caw_len": 1,
        "opt_xfer_len_gran": 8,
        "max_xfer_len": 0x10000,
        "opt_xfer_len": 0x800,
        "max_pfetch_len": 0x12345678,
        "max_unmap_lba_count": 0xFFFFFFFF,
        "max_unmap_bd_count": 4095,
        "opt_unmap_gran": 8,
        "ugavalid": 1,
    }
    assert {key: read[key] for key in expected} == expected


def test_block_limits_in_bytes() -> None:
    packed = LIMITS.pack()
    assert packed[:4] == bytes.fromhex("00 b0 00 3c")
    assert packed[32:44] == bytes.fromhex("80 00 00 03 00 00 00 00 00 20 00 00")  # past pyscsi
    assert not any(packed[44:])


def test_pyscsi_reads_the_other_block_pages() -> None:
    characteristics = Inquiry.unmarshall_datain(BlockDeviceCharacteristics().pack(), evpd=1)
    assert characteristics["medium_rotation_rate"] == 1
    thin = LogicalBlockProvisioning(True, True, False, True, ProvisioningType.THIN)
    read = Inquiry.unmarshall_datain(thin.pack(), evpd=1)
    keys = ("lbpu", "lpbws", "lbpws10", "lbprz", "anc_sup", "dp", "provisioning_type")
    assert [read[key] for key in keys] == [1, 1, 0, 1, 0, 0, 2]


def test_pyscsi_reads_the_extended_inquiry_page() -> None:
    read = Inquiry.unmarshall_datain(ExtendedInquiry(ordered=True, volatile_cache=True).pack(), 1)
    keys = ("simpsup", "ordsup", "headsup", "v_sup", "group_sup")
    assert [read[key] for key in keys] == [1, 1, 0, 1, 0]


def test_pyscsi_reads_the_pages_of_every_unit() -> None:
    pages = Inquiry.unmarshall_datain(SupportedPages((0, 0x80, 0x83)).pack(), evpd=1)
    assert pages["vpd_pages"] == [0, 0x80, 0x83]
    serial = Inquiry.unmarshall_datain(UnitSerialNumber("0123ABC").pack(), evpd=1)
    assert serial["unit_serial_number"] == b"0123ABC"
    naa = Designator(DesignatorType.NAA, bytes.fromhex("3123456789abcdef"))
    page = Inquiry.unmarshall_datain(DeviceIdentification((naa,)).pack(), evpd=1)
    [read] = page["designator_descriptors"]
    assert (read["designator_type"], read["code_set"], read["association"]) == (3, 1, 0)
    assert read["designator"]["naa"] == 3


@pytest.mark.parametrize(
    "page",
    [
        LIMITS,
        SupportedPages((0, 0x80)),
        UnitSerialNumber("X"),
        DeviceIdentification((Designator(DesignatorType.NAA, bytes(8)),)),
        ExtendedInquiry(head_of_queue=True, maximum_sense_length=252),
        BlockDeviceCharacteristics(7200),
        LogicalBlockProvisioning(unmap=True),
    ],
    ids=lambda page: type(page).__name__,
)
def test_a_page_is_read_back_and_no_other_is_taken_for_it(page: BlockLimits) -> None:
    packed = page.pack()
    assert packed[2:4] == (len(packed) - 4).to_bytes(2, "big")
    assert type(page).unpack(b"\x60" + packed[1:] + b"garbage behind the page") == page
    with pytest.raises(ValueError, match="not VPD page"):
        type(page).unpack(b"\0\x7f" + packed[2:])
    with pytest.raises(ValueError, match="not VPD page"):
        type(page).unpack(packed[:3])


def test_a_short_page_of_an_older_standard_reads_as_zeros_behind_its_end() -> None:
    sbc_2 = bytes.fromhex("00 b0 00 0c 00 00 00 08 00 00 ff ff 00 00 00 00")
    read = BlockLimits.unpack(sbc_2)
    assert (read.maximum_transfer_length, read.maximum_unmap_lba_count) == (0xFFFF, 0)
