"""What a nexus may do at a unit: every command of every unit is judged one way or the other."""

import pytest

from serverfree.scsi.inquiry import DeviceType
from serverfree.scsi.sense import Asc, SenseKey
from serverfree.target.units.block import BlockUnit
from serverfree.target.units.permission import EVERYTHING, Permission
from serverfree.target.units.stream import StreamUnit
from serverfree.target.units.table import Row

READ_ONLY = Permission(read_only=True)

# The standards name commands by what they do: those that begin like this change the medium, but for
# the few whose words deceive.
ALTER = (
    "WRITE", "ERASE", "UNMAP", "FORMAT", "SANITIZE", "COMPARE AND WRITE", "ORWRITE", "XPWRITE",
    "XDWRITE", "REASSIGN", "SET CAPACITY", "ALLOW OVERWRITE",
)  # fmt: skip
# A buffer is no medium; the copy manager asks for itself what its initiator may write.
DECEIVE = ("WRITE BUFFER", "WRITE USING TOKEN")


def rows(unit) -> list[Row]:
    found = []
    for entry in unit.TABLE.values():
        found += [entry] if isinstance(entry, Row) else entry.values()
    return found


@pytest.mark.parametrize("unit", [BlockUnit, StreamUnit])
def test_every_command_is_known_to_alter_the_medium_or_not_to(unit):
    assert len(rows(unit)) > 20
    for row in rows(unit):
        alters = row.name.startswith(ALTER) and not row.name.startswith(DECEIVE)
        refused = READ_ONLY.refusal(unit.device_type, cdb_of(row)) is not None
        assert refused == alters, row.name


def cdb_of(row: Row) -> bytes:
    cdb = bytearray(32)
    cdb[0] = row.opcode
    if row.opcode == 0x7F:
        cdb[8:10] = (row.service_action or 0).to_bytes(2, "big")
    elif row.service_action is not None:
        cdb[1] = row.service_action
    return bytes(cdb)


@pytest.mark.parametrize(
    ("device_type", "opcode", "refused"),
    [
        (DeviceType.DISK, 0x2A, True),  # WRITE(10)
        (DeviceType.DISK, 0x93, True),  # WRITE SAME(16)
        (DeviceType.DISK, 0x42, True),  # UNMAP
        (DeviceType.DISK, 0x28, False),  # READ(10)
        (DeviceType.DISK, 0x10, False),  # nothing on a disk
        (DeviceType.TAPE, 0x10, True),  # WRITE FILEMARKS(6)
        (DeviceType.TAPE, 0x19, True),  # ERASE(6)
        (DeviceType.TAPE, 0x08, False),  # READ(6)
        (DeviceType.TAPE, 0x01, False),  # REWIND
        (DeviceType.PROCESSOR, 0x83, False),  # EXTENDED COPY at a copy manager
    ],
)
def test_read_only(device_type, opcode, refused):
    sense = READ_ONLY.refusal(device_type, bytes((opcode,)) + bytes(15))
    assert (sense is not None) == refused
    if sense is not None:
        assert (sense.key, sense.asc) == (SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)


def test_reading_forms_of_the_variable_length_cdb_are_reads():
    def cdb(action):
        return b"\x7f" + bytes(7) + action.to_bytes(2, "big") + bytes(22)

    assert READ_ONLY.refusal(DeviceType.DISK, cdb(0x0009)) is None
    assert READ_ONLY.refusal(DeviceType.DISK, cdb(0x000A)) is None
    assert READ_ONLY.refusal(DeviceType.DISK, cdb(0x0012)) is None  # GET LBA STATUS(32)
    assert READ_ONLY.refusal(DeviceType.DISK, cdb(0x000B)) is not None


def test_everything_is_everything():
    for opcode in range(256):
        for device_type in (DeviceType.DISK, DeviceType.TAPE, DeviceType.PROCESSOR):
            assert EVERYTHING.refusal(device_type, bytes((opcode,)) + bytes(15)) is None
