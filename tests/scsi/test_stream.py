"""CDBs of sequential-access devices, against bytes laid out by hand from SSC-4."""

import pytest

from serverfree.scsi.cdb.stream import (
    Destination,
    Erase6,
    LoadUnload,
    Locate10,
    Locate16,
    PreventAllowMediumRemoval,
    Read6,
    ReadBlockLimits,
    ReadPositionExtended,
    ReadPositionLong,
    ReadPositionShort,
    ReadPositionShortVendor,
    ReportDensitySupport,
    Rewind,
    Space6,
    Space16,
    SpaceCode,
    Verify6,
    Write6,
    WriteFilemarks6,
)
from serverfree.scsi.tape import (
    BlockLimits,
    DataCompression,
    DeviceConfiguration,
    DeviceConfigurationExtension,
    ExtendedPosition,
    LongPosition,
    ShortPosition,
    TapeBlockDescriptor,
)

VECTORS = [
    (Read6(length=0x40000), "08 00 04 00 00 00"),
    (Read6(suppress_incorrect_length=True, length=0x10203), "08 02 01 02 03 00"),
    (Read6(fixed=True, length=8), "08 01 00 00 08 00"),
    (Write6(length=0x40000), "0a 00 04 00 00 00"),
    (Write6(fixed=True, length=2), "0a 01 00 00 02 00"),
    (Verify6(immediate=True, fixed=True, length=7), "13 05 00 00 07 00"),
    (WriteFilemarks6(count=1), "10 00 00 00 01 00"),
    (WriteFilemarks6(immediate=True, count=0x20000), "10 01 02 00 00 00"),
    (Space6.by(SpaceCode.BLOCKS, 1), "11 00 00 00 01 00"),
    (Space6.by(SpaceCode.FILEMARKS, -2), "11 01 ff ff fe 00"),
    (Space6(SpaceCode.END_OF_DATA), "11 03 00 00 00 00"),
    (
        Space16.by(SpaceCode.FILEMARKS, -1),
        "91 01 00 00 ff ff ff ff ff ff ff ff 00 00 00 00",
    ),
    (
        Locate10(block_type=True, change_partition=True, immediate=True, block=5, partition=1),
        "2b 07 00 00 00 00 05 00 01 00",
    ),
    (
        Locate16(Destination.LOGICAL_FILE, True, False, 2, 0x0102030405060708),
        "92 0a 00 02 01 02 03 04 05 06 07 08 00 00 00 00",
    ),
    (Locate16(Destination.END_OF_DATA), "92 18 00 00 00 00 00 00 00 00 00 00 00 00 00 00"),
    (ReadPositionShort(), "34 00 00 00 00 00 00 00 00 00"),
    (ReadPositionShortVendor(), "34 01 00 00 00 00 00 00 00 00"),
    (ReadPositionLong(), "34 06 00 00 00 00 00 00 00 00"),
    (ReadPositionExtended(allocation_length=32), "34 08 00 00 00 00 00 00 20 00"),
    (Rewind(immediate=True), "01 01 00 00 00 00"),
    (Erase6(long=True), "19 01 00 00 00 00"),
    (LoadUnload(load=True), "1b 00 00 00 01 00"),
    (LoadUnload(immediate=True, hold=True, retension=True), "1b 01 00 00 0a 00"),
    (ReadBlockLimits(), "05 00 00 00 00 00"),
    (PreventAllowMediumRemoval(prevent=1), "1e 00 00 00 01 00"),
    (ReportDensitySupport(media=True, allocation_length=0x1234), "44 01 00 00 00 00 00 12 34 00"),
]


@pytest.mark.parametrize(("command", "raw"), VECTORS, ids=lambda each: str(each)[:40])
def test_cdb_is_the_bytes_of_the_standard_both_ways(command, raw):
    assert command.pack() == bytes.fromhex(raw)
    assert type(command).unpack(bytes.fromhex(raw)) == command


@pytest.mark.parametrize("distance", [0, 1, -1, 0x7FFFFF, -0x800000])
def test_space_counts_both_ways(distance):
    assert Space6.unpack(Space6.by(SpaceCode.BLOCKS, distance).pack()).distance == distance
    assert Space16.by(SpaceCode.BLOCKS, distance).distance == distance


@pytest.mark.parametrize("distance", [0x800000, -0x800001])
def test_space_refuses_what_24_bits_cannot_say(distance):
    with pytest.raises(ValueError, match="24 bits"):
        Space6.by(SpaceCode.BLOCKS, distance)


STRUCTURES = [
    (BlockLimits(granularity=3, maximum=0xABCDEF, minimum=4), "03 ab cd ef 00 04"),
    (
        ShortPosition(
            beginning_of_partition=True,
            programmable_early_warning=True,
            partition=2,
            first=0x01020304,
            last=0x01020300,
            buffered_objects=4,
            buffered_bytes=0x500,
        ),
        "81 02 00 00 01 02 03 04 01 02 03 00 00 00 00 04 00 00 05 00",
    ),
    (ShortPosition(unknown=True, overflow=True), "06" + "00" * 19),
    (ShortPosition(object_count_unknown=True, byte_count_unknown=True), "30" + "00" * 19),
    (
        LongPosition(end_of_partition=True, partition=1, block=1 << 40, file=0x77),
        "40 00 00 00 00 00 00 01 00 00 01 00 00 00 00 00 00 00 00 00 00 00 00 77" + "00" * 8,
    ),
    (LongPosition(marks_unknown=True, object_unknown=True), "0c" + "00" * 31),
    (
        ExtendedPosition(partition=3, buffered_objects=1, first=9, last=8, buffered_bytes=100),
        "00 03 00 1c 00 00 00 01 00 00 00 00 00 00 00 09 00 00 00 00 00 00 00 08"
        "00 00 00 00 00 00 00 64",
    ),
    (TapeBlockDescriptor(density=0x58, block_length=0x200), "58 00 00 00 00 00 02 00"),
    (
        DataCompression(capable=True, compression_algorithm=0x10),
        "0f 0e 40 00 00 00 00 10 00 00 00 00 00 00 00 00",
    ),
    (
        DeviceConfiguration(
            active_partition=1,
            object_identifiers=True,
            eod_generation=True,
            software_write_protect=True,
        ),
        "10 0e 00 01 00 00 00 00 40 00 14 00 00 00 00 00",
    ),
    (
        DeviceConfigurationExtension(early_warning_size=0x1234),
        "50 01 00 1c 00 00 12 34" + "00" * 24,
    ),
]


@pytest.mark.parametrize(("structure", "raw"), STRUCTURES, ids=lambda each: str(each)[:30])
def test_parameter_data_is_the_bytes_of_the_standard_both_ways(structure, raw):
    assert structure.pack() == bytes.fromhex(raw)
    assert type(structure).unpack(bytes.fromhex(raw)) == structure
