"""CDB bytes against hand-made vectors of the clauses, and against pyscsi where it can."""

import pytest
from pyscsi.pyscsi.scsi_cdb_getlbastatus import GetLBAStatus
from pyscsi.pyscsi.scsi_cdb_inquiry import Inquiry
from pyscsi.pyscsi.scsi_cdb_modesense6 import ModeSense6
from pyscsi.pyscsi.scsi_cdb_modesense10 import ModeSense10
from pyscsi.pyscsi.scsi_cdb_read10 import Read10
from pyscsi.pyscsi.scsi_cdb_read12 import Read12
from pyscsi.pyscsi.scsi_cdb_read16 import Read16
from pyscsi.pyscsi.scsi_cdb_readcapacity10 import ReadCapacity10
from pyscsi.pyscsi.scsi_cdb_readcapacity16 import ReadCapacity16
from pyscsi.pyscsi.scsi_cdb_report_luns import ReportLuns
from pyscsi.pyscsi.scsi_cdb_testunitready import TestUnitReady as UnitReady
from pyscsi.pyscsi.scsi_cdb_write10 import Write10
from pyscsi.pyscsi.scsi_cdb_write12 import Write12
from pyscsi.pyscsi.scsi_cdb_write16 import Write16
from pyscsi.pyscsi.scsi_cdb_writesame10 import WriteSame10
from pyscsi.pyscsi.scsi_cdb_writesame16 import WriteSame16
from pyscsi.pyscsi.scsi_enum_command import sbc, spc

from serverfree.scsi.cdb import block, primary
from serverfree.scsi.cdb.layout import Cdb

LBA, BLOCKS = 0x01020304, 0x0506
LBA_16, BLOCKS_16 = 0x0102030405060708, 0x090A0B0C
DATA = bytearray(512)
SA_IN = sbc.SBC_OPCODE_9E

VECTORS = [
    (primary.TestUnitReady(), "00 00 00 00 00 00"),
    (primary.RequestSense(desc=True, allocation_length=252), "03 01 00 00 fc 00"),
    (primary.Inquiry(evpd=True, page_code=0x83, allocation_length=0x1234), "12 01 83 12 34 00"),
    (
        primary.ReportLuns(select_report=2, allocation_length=0x10203),
        "a0 00 02 00 00 00 00 01 02 03 00 00",
    ),
    (
        primary.ModeSense6(
            disable_block_descriptors=True,
            page_control=2,
            page_code=0x3F,
            subpage_code=0xFF,
            allocation_length=255,
        ),
        "1a 08 bf ff ff 00",
    ),
    (
        primary.ModeSense10(
            long_lba_accepted=True, page_control=1, page_code=8, allocation_length=0x1234
        ),
        "5a 10 48 00 00 00 00 12 34 00",
    ),
    (primary.ModeSelect6(parameter_list_length=24), "15 10 00 00 18 00"),
    (
        primary.ModeSelect10(save_pages=True, parameter_list_length=0x118),
        "55 11 00 00 00 00 00 01 18 00",
    ),
    (
        primary.ReportSupportedOperationCodes(
            return_timeouts=True,
            reporting_options=2,
            requested_operation_code=0x9E,
            requested_service_action=0x10,
            allocation_length=0x200,
        ),
        "a3 0c 82 9e 00 10 00 00 02 00 00 00",
    ),
    (block.ReadCapacity10(), "25 00 00 00 00 00 00 00 00 00"),
    (
        block.ReadCapacity16(allocation_length=32),
        "9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00",
    ),
    (block.Read6(lba=0x12345, blocks=0xFF), "08 01 23 45 ff 00"),
    (block.Read6(lba=0x1FFFFF), "08 1f ff ff 00 00"),
    (block.Write6(lba=0x12345, blocks=1), "0a 01 23 45 01 00"),
    (block.Read10(fua=True, lba=LBA, blocks=BLOCKS), "28 08 01 02 03 04 00 05 06 00"),
    (block.Write10(dpo=True, fua_nv=True, lba=LBA, group=0x1F), "2a 12 01 02 03 04 1f 00 00 00"),
    (block.Read12(lba=LBA, blocks=BLOCKS, group=3), "a8 00 01 02 03 04 00 00 05 06 03 00"),
    (block.Write12(lba=LBA, blocks=BLOCKS), "aa 00 01 02 03 04 00 00 05 06 00 00"),
    (
        block.Read16(lba=LBA_16, blocks=BLOCKS_16, group=1),
        "88 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 01 00",
    ),
    (
        block.Write16(fua=True, lba=LBA_16, blocks=BLOCKS_16),
        "8a 08 01 02 03 04 05 06 07 08 09 0a 0b 0c 00 00",
    ),
    (
        block.WriteAndVerify10(byte_check=1, lba=LBA, blocks=BLOCKS),
        "2e 02 01 02 03 04 00 05 06 00",
    ),
    (block.WriteAndVerify12(dpo=True, lba=LBA), "ae 10 01 02 03 04 00 00 00 00 00 00"),
    (block.WriteAndVerify16(lba=LBA_16), "8e 00 01 02 03 04 05 06 07 08 00 00 00 00 00 00"),
    (block.Verify10(byte_check=3, lba=LBA, blocks=BLOCKS), "2f 06 01 02 03 04 00 05 06 00"),
    (block.Verify12(byte_check=1, blocks=BLOCKS), "af 02 00 00 00 00 00 00 05 06 00 00"),
    (block.Verify16(blocks=BLOCKS_16), "8f 00 00 00 00 00 00 00 00 00 09 0a 0b 0c 00 00"),
    (block.PreFetch10(immed=True, lba=LBA, blocks=1), "34 02 01 02 03 04 00 00 01 00"),
    (block.PreFetch16(lba=LBA_16), "90 00 01 02 03 04 05 06 07 08 00 00 00 00 00 00"),
    (block.SynchronizeCache10(immed=True), "35 02 00 00 00 00 00 00 00 00"),
    (
        block.SynchronizeCache16(lba=LBA_16, blocks=1),
        "91 00 01 02 03 04 05 06 07 08 00 00 00 01 00 00",
    ),
    (block.Unmap(anchor=True, parameter_list_length=24), "42 01 00 00 00 00 00 00 18 00"),
    (block.WriteSame10(unmap=True, lba=LBA, blocks=BLOCKS), "41 08 01 02 03 04 00 05 06 00"),
    (
        block.WriteSame16(anchor=True, unmap=True, ndob=True, lba=LBA_16, blocks=BLOCKS_16),
        "93 19 01 02 03 04 05 06 07 08 09 0a 0b 0c 00 00",
    ),
    (
        block.GetLbaStatus(lba=LBA_16, allocation_length=24),
        "9e 12 01 02 03 04 05 06 07 08 00 00 00 18 00 00",
    ),
    (block.StartStopUnit(immed=True, start=True), "1b 01 00 00 01 00"),
    (
        block.StartStopUnit(
            power_condition_modifier=0xA, power_condition=3, no_flush=True, load_eject=True
        ),
        "1b 00 00 0a 36 00",
    ),
]


@pytest.mark.parametrize(("command", "wire"), VECTORS, ids=lambda each: type(each).__name__)
def test_the_bytes_are_those_of_the_clause(command: Cdb, wire: str) -> None:
    assert command.pack() == bytes.fromhex(wire)
    assert type(command).unpack(bytes.fromhex(wire)) == command


# Each pair is made at once and only its `.cdb` is kept: pyscsi keeps fields in the class.
SECOND_OPINIONS = [
    (primary.TestUnitReady(), UnitReady(spc.TEST_UNIT_READY).cdb),
    (
        primary.Inquiry(evpd=True, page_code=0xB0, allocation_length=200),
        Inquiry(spc.INQUIRY, evpd=1, page_code=0xB0, alloclen=200).cdb,
    ),
    (
        primary.ReportLuns(select_report=2, allocation_length=96),
        ReportLuns(spc.REPORT_LUNS, report=2, alloclen=96).cdb,
    ),
    (
        primary.ModeSense6(
            disable_block_descriptors=True,
            page_control=1,
            page_code=8,
            subpage_code=5,
            allocation_length=96,
        ),
        ModeSense6(spc.MODE_SENSE_6, 8, sub_page_code=5, dbd=1, pc=1, alloclen=96).cdb,
    ),
    (
        primary.ModeSense10(
            long_lba_accepted=True, page_control=2, page_code=0x0A, allocation_length=500
        ),
        ModeSense10(spc.MODE_SENSE_10, 0x0A, llbaa=1, pc=2, alloclen=500).cdb,
    ),
    (block.ReadCapacity10(), ReadCapacity10(sbc.READ_CAPACITY_10).cdb),
    (
        block.ReadCapacity16(allocation_length=32),
        ReadCapacity16(SA_IN, alloclen=32).cdb,
    ),
    (
        block.GetLbaStatus(lba=LBA_16, allocation_length=512),
        GetLBAStatus(SA_IN, LBA_16, alloclen=512).cdb,
    ),
    (
        block.Read10(dpo=True, fua=True, lba=LBA, blocks=7, group=19),
        Read10(sbc.READ_10, 512, LBA, 7, dpo=1, fua=1, group=19).cdb,
    ),
    (
        block.Read12(fua=True, lba=LBA, blocks=BLOCKS, group=19),
        Read12(sbc.READ_12, 512, LBA, BLOCKS, fua=1, group=19).cdb,
    ),
    (
        block.Read16(dpo=True, lba=LBA_16, blocks=7, group=19),
        Read16(sbc.READ_16, 512, LBA_16, 7, dpo=1, group=19).cdb,
    ),
    (
        block.Write10(fua=True, lba=LBA, blocks=1, group=19),
        Write10(sbc.WRITE_10, 512, LBA, 1, DATA, fua=1, group=19).cdb,
    ),
    (
        block.Write12(dpo=True, lba=LBA, blocks=1),
        Write12(sbc.WRITE_12, 512, LBA, 1, DATA, dpo=1).cdb,
    ),
    (
        block.Write16(fua=True, lba=LBA_16, blocks=1),
        Write16(sbc.WRITE_16, 512, LBA_16, 1, DATA, fua=1).cdb,
    ),
    (
        block.WriteSame10(unmap=True, anchor=True, lba=LBA, blocks=7, group=19),
        WriteSame10(sbc.WRITE_SAME_10, 512, LBA, 7, DATA, anchor=1, unmap=1, group=19).cdb,
    ),
    (
        block.WriteSame16(unmap=True, ndob=True, lba=LBA_16, blocks=7),
        WriteSame16(sbc.WRITE_SAME_16, 512, LBA_16, 7, DATA, unmap=1, ndob=1).cdb,
    ),
]


@pytest.mark.parametrize(("ours", "theirs"), SECOND_OPINIONS, ids=lambda each: type(each).__name__)
def test_pyscsi_builds_the_same_bytes(ours: Cdb, theirs: bytearray) -> None:
    assert ours.pack() == bytes(theirs)
