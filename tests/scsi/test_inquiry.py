"""Standard INQUIRY data, judged by pyscsi and by bytes."""

from pyscsi.pyscsi.scsi_cdb_inquiry import Inquiry

from serverfree.scsi.inquiry import DeviceType, Qualifier, StandardInquiry, VersionDescriptor

DISK = StandardInquiry(
    device_type=DeviceType.DISK,
    third_party_copy=True,
    vendor="SRVFREE",
    product="DISK",
    revision="0001",
    version_descriptors=(VersionDescriptor.SPC_4, VersionDescriptor.SBC_3),
)


def test_pyscsi_reads_what_we_say() -> None:
    read = Inquiry.unmarshall_datain(DISK.pack())
    expected = {
        "peripheral_qualifier": 0,
        "peripheral_device_type": 0,
        "rmb": 0,
        "version": 6,
        "normaca": 0,
        "hisup": 1,
        "response_data_format": 2,
        "additional_length": 91,
        "3pc": 1,
        "protect": 0,
        "cmdque": 1,
        "t10_vendor_identification": b"SRVFREE ",
        "product_identification": b"DISK            ",
        "product_revision_level": b"0001",
    }
    assert {key: read[key] for key in expected} == expected


def test_the_version_descriptors_lie_at_byte_58() -> None:
    packed = DISK.pack()
    assert len(packed) == 96
    assert packed[58:64] == bytes.fromhex("04 60 04 c0 00 00")


def test_the_data_of_others_is_read() -> None:
    lio = bytes.fromhex("00 00 06 12 5b 18 00 02") + b"LIO-ORG FILEIO          4.0 "
    read = StandardInquiry.unpack(lio)
    assert (read.vendor, read.product, read.revision) == ("LIO-ORG", "FILEIO", "4.0")
    assert read.third_party_copy
    assert read.version_descriptors == ()


def test_short_data_reads_as_zeros_behind_its_end() -> None:
    assert StandardInquiry.unpack(b"\x01\x80").removable
    assert StandardInquiry.unpack(b"").vendor == ""
    assert StandardInquiry.unpack(b"\x7f").qualifier == Qualifier.NOT_SUPPORTED


def test_what_is_packed_is_read_back() -> None:
    assert StandardInquiry.unpack(DISK.pack()) == DISK


def test_a_long_text_is_cut_to_its_field() -> None:
    assert StandardInquiry(vendor="TOO LONG A NAME").pack()[8:16] == b"TOO LONG"
