"""The commands of every unit, on a disk; parameter data judged by pyscsi and by bytes."""

from pathlib import Path

import pytest
from pyscsi.pyscsi.scsi_cdb_inquiry import Inquiry as PyscsiInquiry

from serverfree.scsi.cdb.block import StartStopUnit
from serverfree.scsi.cdb.primary import (
    Inquiry,
    ModeSelect6,
    ModeSelect10,
    ModeSense6,
    ModeSense10,
    ReportLuns,
    ReportSupportedOperationCodes,
    RequestSense,
    TestUnitReady,
)
from serverfree.scsi.mode import Caching, Control, ModeData
from serverfree.scsi.sense import Asc, FieldPointer, Sense, SenseKey
from serverfree.target.units.block import BlockUnit
from serverfree.target.units.missing import MissingUnit
from support.disk import NEXUS, OTHER, Host, make_disk

UNKNOWN_PAGE = 0x05


@pytest.fixture
def disk(tmp_path: Path) -> Host:
    return Host(make_disk(tmp_path / "disk"))


def in_list(byte: int, bit: int | None = None) -> FieldPointer:
    return FieldPointer(byte, bit)


def in_cdb(byte: int, bit: int | None = None) -> FieldPointer:
    return FieldPointer(byte, bit, in_cdb=True)


# INQUIRY


def test_the_disk_says_what_it_is(disk: Host) -> None:
    read = PyscsiInquiry.unmarshall_datain(disk.good(Inquiry(allocation_length=0xFFFF)))
    expected = {
        "peripheral_qualifier": 0,
        "peripheral_device_type": 0,
        "rmb": 0,
        "version": 6,
        "response_data_format": 2,
        "3pc": 0,
        "protect": 0,
        "t10_vendor_identification": b"SRVFREE ",
        "product_identification": b"DISK            ",
    }
    assert {key: read[key] for key in expected} == expected


def test_the_page_list_is_ascending_and_every_page_in_it_answers(disk: Host) -> None:
    page = disk.good(Inquiry(evpd=True, allocation_length=255))
    assert page == bytes.fromhex("00 00 00 09 00 80 83 85 86 87 b0 b1 b2")
    for code in page[4:]:
        answer = disk.good(Inquiry(evpd=True, page_code=code, allocation_length=0xFFFF))
        assert answer[:2] == bytes((0, code))
        assert len(answer) == 4 + int.from_bytes(answer[2:4], "big")


def test_the_disk_has_one_name_and_it_is_an_naa(disk: Host) -> None:
    page = disk.good(Inquiry(evpd=True, page_code=0x83, allocation_length=255))
    read = PyscsiInquiry.unmarshall_datain(bytearray(page), evpd=1)
    [designator] = (one for one in read["designator_descriptors"] if one["association"] == 0)
    assert (designator["designator_type"], designator["association"]) == (3, 0)
    assert designator["designator"]["naa"] == 3
    assert page[8:16] == disk.unit.designator.identifier
    # The port that was asked: relative target port 1, target port group 1 (protocol iSCSI, PIV).
    assert page[16:] == bytes.fromhex("51 94 00 04 00 00 00 01  51 95 00 04 00 00 00 01")


def test_an_allocation_length_cuts_and_is_no_error(disk: Host) -> None:
    whole = disk.good(Inquiry(allocation_length=0xFFFF))
    for length in (0, 1, 5, 36, 95, 96, 97):
        assert disk.good(Inquiry(allocation_length=length)) == whole[:length]


def test_a_page_that_is_not_there_is_refused_at_its_code(disk: Host) -> None:
    for cdb in (
        Inquiry(page_code=0x80, allocation_length=96),
        Inquiry(evpd=True, page_code=0x8F, allocation_length=96),  # no copy manager
    ):
        sense = disk.sense(cdb)
        assert (sense.asc, sense.pointer) == (Asc.INVALID_FIELD_IN_CDB, in_cdb(2))


# REQUEST SENSE, TEST UNIT READY


def test_request_sense_hands_over_a_unit_attention_and_clears_it(disk: Host) -> None:
    disk.unit.attach(NEXUS)
    heard = Sense.unpack(disk.good(RequestSense(allocation_length=18)))
    assert (heard.key, heard.asc) == (
        SenseKey.UNIT_ATTENTION,
        Asc.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED,
    )
    disk.good(TestUnitReady())
    assert disk.good(RequestSense(allocation_length=18)) == bytes.fromhex(
        "70 00 00 00 00 00 00 0a"
    ) + bytes(10)


def test_request_sense_speaks_descriptor_format_if_asked(disk: Host) -> None:
    assert disk.good(RequestSense(desc=True, allocation_length=252)) == b"\x72" + bytes(7)
    assert disk.good(RequestSense(desc=True, allocation_length=3)) == b"\x72\0\0"


def test_a_stopped_disk_says_so_until_it_is_started(disk: Host) -> None:
    disk.good(StartStopUnit(start=False))
    stopped = disk.sense(TestUnitReady())
    assert (stopped.key, stopped.asc) == (
        SenseKey.NOT_READY,
        Asc.LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED,
    )
    asked = Sense.unpack(disk.good(RequestSense(allocation_length=252)))
    assert (asked.key, asked.asc) == (stopped.key, stopped.asc)
    disk.good(Inquiry(allocation_length=36))
    disk.good(StartStopUnit(start=True))
    disk.good(TestUnitReady())


# REPORT LUNS


def test_report_luns_lists_what_the_target_has(disk: Host) -> None:
    disk.unit.lun_inventory = lambda nexus: (0, 1, 300)
    listed = bytes.fromhex(
        "00 00 00 18 00 00 00 00"
        "00 00 00 00 00 00 00 00  00 01 00 00 00 00 00 00  41 2c 00 00 00 00 00 00"
    )
    for select_report in (0, 2):
        cdb = ReportLuns(select_report=select_report, allocation_length=0x10000)
        assert disk.good(cdb) == listed
    assert disk.good(ReportLuns(select_report=1, allocation_length=64)) == bytes(8)
    assert disk.good(ReportLuns(allocation_length=20)) == listed[:20]
    sense = disk.sense(ReportLuns(select_report=0x55, allocation_length=64))
    assert (sense.asc, sense.pointer) == (Asc.INVALID_FIELD_IN_CDB, in_cdb(2))


def test_report_luns_clears_the_attention_that_asks_for_it(disk: Host) -> None:
    disk.unit.attach(NEXUS)
    disk.sense(TestUnitReady())
    disk.unit.raise_attention(Asc.REPORTED_LUNS_DATA_HAS_CHANGED)
    disk.good(ReportLuns(allocation_length=64))
    disk.good(TestUnitReady())


# MODE SENSE


def test_all_pages_in_bytes(disk: Host) -> None:
    assert disk.good(ModeSense6(page_code=0x3F, allocation_length=255)) == bytes.fromhex(
        "ab 00 10 08  00 00 08 00 00 00 02 00"
        "01 0a 00 00 00 00 00 00 00 00 00 00"
        "02 0e 00 00 00 00 00 00 00 00 00 00 00 00 00 00"
        "03 16 00 00 00 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 00 00 00 00"
        "04 16 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"
        "08 12 04 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"
        "0a 0a 00 10 00 00 00 00 00 00 00 00"
        "1a 26" + "00" * 38 + "1c 0a 08 00 00 00 00 00 00 00 00 00"
    )


def test_a_page_control_chooses_the_values(disk: Host) -> None:
    def caching(control: int) -> int:
        data = disk.good(ModeSense6(page_control=control, page_code=8, allocation_length=255))
        return ModeData.unpack(data, ten=False).pages[0][2]

    disk.good(ModeSelect6(parameter_list_length=24), bytes(4) + Caching(False).pack())
    assert [caching(control) for control in (0, 1, 2)] == [0x00, 0x04, 0x04]
    saved = disk.sense(ModeSense6(page_control=3, page_code=8, allocation_length=255))
    assert saved.asc is Asc.SAVING_PARAMETERS_NOT_SUPPORTED


def test_the_long_form_offers_long_block_descriptors(disk: Host) -> None:
    assert disk.good(
        ModeSense10(long_lba_accepted=True, page_code=0x0A, allocation_length=255)
    ) == bytes.fromhex(
        "00 22 00 10 01 00 00 10  00 00 00 00 00 00 08 00 00 00 00 00 00 00 02 00"
        "0a 0a 00 10 00 00 00 00 00 00 00 00"
    )
    short = disk.good(ModeSense10(page_code=0x0A, allocation_length=255))
    assert short[:16] == bytes.fromhex("00 1a 00 10 00 00 00 08  00 00 08 00 00 00 02 00")
    none = disk.good(
        ModeSense10(disable_block_descriptors=True, page_code=0x0A, allocation_length=255)
    )
    assert none[:8] == bytes.fromhex("00 12 00 10 00 00 00 00")


def test_mode_sense_refuses_what_it_has_not(disk: Host) -> None:
    for cdb, pointer in (
        (ModeSense6(page_code=UNKNOWN_PAGE, allocation_length=255), in_cdb(2, 5)),
        (ModeSense10(page_code=UNKNOWN_PAGE, allocation_length=255), in_cdb(2, 5)),
        (ModeSense6(page_code=8, subpage_code=1, allocation_length=255), in_cdb(3)),
        (ModeSense6(page_code=0x3F, subpage_code=1, allocation_length=255), in_cdb(3)),
    ):
        sense = disk.sense(cdb)
        assert (sense.asc, sense.pointer) == (Asc.INVALID_FIELD_IN_CDB, pointer)
    pages = ModeSense6(page_code=0x3F, allocation_length=255)
    every = ModeSense6(page_code=0x3F, subpage_code=0xFF, allocation_length=255)
    extension = bytes.fromhex("4a 01 00 1c") + bytes(28)
    assert disk.good(every).replace(extension, b"")[1:] == disk.good(pages)[1:]
    assert extension in disk.good(every)


def test_write_protection_shows_in_the_header(tmp_path: Path) -> None:
    disk = Host(make_disk(tmp_path / "disk", readonly=True))
    assert disk.good(ModeSense6(page_code=0x3F, allocation_length=4))[2] == 0x90


# MODE SELECT


def select(disk: Host, *pages: bytes, descriptor: bytes = b"", ten: bool = False) -> bytes:
    data = bytearray(ModeData(0, 0, descriptor, pages).pack(ten=ten))
    data[: 2 if ten else 1] = bytes(2 if ten else 1)  # MODE DATA LENGTH is reserved
    length = len(data)
    cdb = (
        ModeSelect10(parameter_list_length=length)
        if ten
        else ModeSelect6(parameter_list_length=length)
    )
    assert disk.unit.data_out_length(cdb.pack()) == length
    return disk.good(cdb, data)


@pytest.mark.parametrize("ten", [False, True])
def test_the_write_cache_can_be_switched_and_others_are_told(disk: Host, ten: bool) -> None:
    other = Host(disk.unit, OTHER)
    for host in (disk, other):
        host.unit.attach(host.nexus)
        host.sense(TestUnitReady())
    select(disk, Caching(False).pack(), ten=ten)
    assert isinstance(disk.unit, BlockUnit)
    assert not disk.unit.write_cache
    disk.good(TestUnitReady())
    assert other.sense(TestUnitReady()).asc is Asc.MODE_PARAMETERS_CHANGED
    select(disk, Caching(False).pack(), ten=ten)  # no change, so nothing to tell
    other.good(TestUnitReady())
    disk.unit.reset()
    assert disk.unit.write_cache


def test_software_write_protection_protects(disk: Host) -> None:
    select(disk, Control(unrestricted_reordering=True, software_write_protect=True).pack())
    sense = disk.sense(bytes.fromhex("2a 00 00 00 00 00 00 00 01 00"), bytes(512))
    assert (sense.key, sense.asc) == (SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)
    select(disk, Control(unrestricted_reordering=True).pack())
    disk.good(bytes.fromhex("2a 00 00 00 00 00 00 00 01 00"), bytes(512))


def test_the_present_block_descriptor_is_welcome(disk: Host) -> None:
    for descriptor in ("00 00 08 00 00 00 02 00", "00 00 00 00 00 00 02 00"):
        select(disk, descriptor=bytes.fromhex(descriptor))
    select(disk, descriptor=bytes(12) + bytes.fromhex("00 00 02 00"), ten=True)


@pytest.mark.parametrize(
    ("wire", "pointer"),
    [
        ("00 00 00 08  00 00 08 00 00 00 10 00", in_list(9)),  # another block length
        ("00 00 00 08  00 00 08 01 00 00 02 00", in_list(4)),  # another capacity
        ("00 00 00 00  05 02 00 00", in_list(4, 5)),  # a page that is not there
        ("00 00 00 00  48 01 00 02 00 00", in_list(4, 5)),  # a subpage that is not there
        ("00 00 00 00  08 11 04" + " 00" * 16, in_list(5)),  # another page length
        ("00 00 00 00  08 12 05" + " 00" * 17, in_list(6, 0)),  # RCD cannot change
        ("00 00 00 00  0a 0a 02 10" + " 00" * 8, in_list(6, 1)),  # nor GLTSD
        ("00 00 00 00  0a 0a 00 00" + " 00" * 8, in_list(7, 4)),  # nor ordering
    ],
)
def test_a_parameter_that_cannot_be_is_refused_where_it_is(
    disk: Host, wire: str, pointer: FieldPointer
) -> None:
    data = bytes.fromhex(wire)
    before = disk.good(ModeSense6(page_code=0x3F, allocation_length=255))
    sense = disk.sense(ModeSelect6(parameter_list_length=len(data)), data)
    assert (sense.key, sense.asc) == (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)
    assert sense.pointer == pointer
    assert disk.good(ModeSense6(page_code=0x3F, allocation_length=255)) == before


def test_nothing_changes_if_a_later_page_is_bad(disk: Host) -> None:
    data = bytes(4) + Caching(False).pack() + bytes.fromhex("05 00")
    sense = disk.sense(ModeSelect6(parameter_list_length=len(data)), data)
    assert sense.pointer == in_list(24, 5)
    assert isinstance(disk.unit, BlockUnit)
    assert disk.unit.write_cache


def test_a_list_that_is_cut_short_is_refused(disk: Host) -> None:
    data = bytes(4) + Caching(False).pack()
    for length in range(1, len(data)):
        if length == 4:  # a header alone is whole
            continue
        sense = disk.sense(ModeSelect6(parameter_list_length=length), data[:length])
        assert sense.asc is Asc.PARAMETER_LIST_LENGTH_ERROR, length
    late = disk.sense(ModeSelect6(parameter_list_length=len(data)), data[:-1])
    assert late.asc is Asc.PARAMETER_LIST_LENGTH_ERROR
    odd = disk.sense(ModeSelect6(parameter_list_length=5), bytes.fromhex("00 00 00 01 00"))
    assert odd.asc is Asc.PARAMETER_LIST_LENGTH_ERROR
    disk.good(ModeSelect6(parameter_list_length=0))
    assert isinstance(disk.unit, BlockUnit)
    assert disk.unit.write_cache


def test_pages_cannot_be_saved_nor_be_of_the_vendors_format(disk: Host) -> None:
    data = bytes(4) + Caching(False).pack()
    saved = disk.sense(ModeSelect6(save_pages=True, parameter_list_length=24), data)
    assert (saved.asc, saved.pointer) == (Asc.INVALID_FIELD_IN_CDB, in_cdb(1, 0))
    vendor = disk.sense(ModeSelect6(page_format=False, parameter_list_length=24), data)
    assert (vendor.asc, vendor.pointer) == (Asc.INVALID_FIELD_IN_CDB, in_cdb(1, 4))
    disk.good(ModeSelect6(page_format=False, parameter_list_length=4), bytes(4))


# REPORT SUPPORTED OPERATION CODES


def report(disk: Host, **fields: int) -> bytes:
    return disk.good(ReportSupportedOperationCodes(allocation_length=0x10000, **fields))


def test_the_list_of_all_commands_has_those_that_run(disk: Host) -> None:
    data = report(disk)
    descriptors = [data[at : at + 8] for at in range(4, len(data), 8)]
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    by_command = {
        (each[0], int.from_bytes(each[2:4], "big") if each[5] & 1 else None): each
        for each in descriptors
    }
    assert len(by_command) == len(descriptors)
    assert by_command[0x28, None] == bytes.fromhex("28 00 00 00 00 00 00 0a")
    assert by_command[0x9E, 0x10] == bytes.fromhex("9e 00 00 10 00 01 00 10")
    assert by_command[0xA3, 0x0C] == bytes.fromhex("a3 00 00 0c 00 01 00 0c")
    for opcode in range(256):
        exists = any(command[0] == opcode for command in by_command)
        asc = Asc.INVALID_COMMAND_OPERATION_CODE
        reply = disk(bytes((opcode, 0xFF)) + bytes(14))
        assert (reply.sense is not None and reply.sense.asc is asc) == (not exists), hex(opcode)


def test_one_command_tells_its_usage_bits(disk: Host) -> None:
    read_10 = bytes.fromhex("00 03 00 0a 28 1a ff ff ff ff 1f ff ff 04")
    assert report(disk, reporting_options=1, requested_operation_code=0x28) == read_10
    assert report(disk, reporting_options=3, requested_operation_code=0x28) == read_10
    with_action = report(
        disk,
        reporting_options=2,
        requested_operation_code=0x9E,
        requested_service_action=0x10,
    )
    assert with_action == bytes.fromhex(
        "00 03 00 10 9e 10 00 00 00 00 00 00 00 00 ff ff ff ff 00 04"
    )
    assert with_action == report(
        disk,
        reporting_options=3,
        requested_operation_code=0x9E,
        requested_service_action=0x10,
    )


def test_a_command_that_is_not_there_is_not_supported(disk: Host) -> None:
    unsupported = bytes.fromhex("00 01 00 00")
    for fields in (
        {"reporting_options": 1, "requested_operation_code": 0xFF},
        {"reporting_options": 2, "requested_operation_code": 0xFF},
        {"reporting_options": 3, "requested_operation_code": 0xFF},
        {"reporting_options": 1, "requested_operation_code": 0x42},  # UNMAP of a full disk
        {
            "reporting_options": 2,
            "requested_operation_code": 0x9E,
            "requested_service_action": 0x11,
        },
        {
            "reporting_options": 3,
            "requested_operation_code": 0x28,
            "requested_service_action": 1,
        },
    ):
        assert report(disk, **fields) == unsupported


@pytest.mark.parametrize(
    ("options", "opcode"), [(1, 0x9E), (1, 0xA3), (2, 0x28), (4, 0x28), (7, 0x28)]
)
def test_an_option_that_does_not_fit_is_refused(disk: Host, options: int, opcode: int) -> None:
    sense = disk.sense(
        ReportSupportedOperationCodes(
            reporting_options=options, requested_operation_code=opcode, allocation_length=64
        )
    )
    assert (sense.asc, sense.pointer) == (Asc.INVALID_FIELD_IN_CDB, in_cdb(2, 2))


def test_timeouts_descriptors_come_if_asked_for(disk: Host) -> None:
    one = report(disk, return_timeouts=True, reporting_options=1, requested_operation_code=0)
    assert one == bytes.fromhex("00 83 00 06 00 00 00 00 00 04") + b"\0\x0a" + bytes(10)
    plain, timed = report(disk), report(disk, return_timeouts=True)
    assert (len(plain) - 4) // 8 == (len(timed) - 4) // 20
    assert all(timed[at + 5] & 2 for at in range(4, len(timed), 20))


# A LUN without a unit


def test_a_missing_unit_says_that_it_is_missing() -> None:
    missing = Host(MissingUnit())
    assert missing.good(Inquiry(allocation_length=255))[0] == 0x7F
    assert missing.good(Inquiry(evpd=True, allocation_length=255)) == bytes.fromhex(
        "7f 00 00 01 00"
    )
    told = Sense.unpack(missing.good(RequestSense(allocation_length=18)))
    assert (told.key, told.asc) == (SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_UNIT_NOT_SUPPORTED)
    missing.unit.lun_inventory = lambda nexus: (0, 5)
    assert len(missing.good(ReportLuns(allocation_length=64))) == 24
    for cdb in (TestUnitReady().pack(), b"\x28", b"\xff"):
        sense = missing.sense(cdb)
        assert (sense.key, sense.asc) == (
            SenseKey.ILLEGAL_REQUEST,
            Asc.LOGICAL_UNIT_NOT_SUPPORTED,
        )
