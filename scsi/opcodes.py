"""Operation codes and service actions, and the length that an operation code gives its CDB."""

from enum import IntEnum


class OperationCode(IntEnum):
    """Byte 0 of a CDB. SSC names stand beside the SBC names that share their code."""

    TEST_UNIT_READY = 0x00
    REWIND = 0x01
    REQUEST_SENSE = 0x03
    FORMAT_UNIT = 0x04
    READ_BLOCK_LIMITS = 0x05
    READ_6 = 0x08
    WRITE_6 = 0x0A
    WRITE_FILEMARKS_6 = 0x10
    SPACE_6 = 0x11
    INQUIRY = 0x12
    VERIFY_6 = 0x13
    MODE_SELECT_6 = 0x15
    RESERVE_6 = 0x16
    RELEASE_6 = 0x17
    ERASE_6 = 0x19
    MODE_SENSE_6 = 0x1A
    START_STOP_UNIT = 0x1B
    LOAD_UNLOAD = 0x1B
    SEND_DIAGNOSTIC = 0x1D
    PREVENT_ALLOW_MEDIUM_REMOVAL = 0x1E
    READ_CAPACITY_10 = 0x25
    READ_10 = 0x28
    WRITE_10 = 0x2A
    LOCATE_10 = 0x2B
    WRITE_AND_VERIFY_10 = 0x2E
    VERIFY_10 = 0x2F
    PRE_FETCH_10 = 0x34
    READ_POSITION = 0x34
    SYNCHRONIZE_CACHE_10 = 0x35
    WRITE_SAME_10 = 0x41
    UNMAP = 0x42
    REPORT_DENSITY_SUPPORT = 0x44
    LOG_SENSE = 0x4D
    MODE_SELECT_10 = 0x55
    MODE_SENSE_10 = 0x5A
    EXTENDED_COPY = 0x83
    RECEIVE_COPY_RESULTS = 0x84
    READ_16 = 0x88
    COMPARE_AND_WRITE = 0x89
    WRITE_16 = 0x8A
    WRITE_AND_VERIFY_16 = 0x8E
    VERIFY_16 = 0x8F
    PRE_FETCH_16 = 0x90
    SYNCHRONIZE_CACHE_16 = 0x91
    SPACE_16 = 0x91
    LOCATE_16 = 0x92
    WRITE_SAME_16 = 0x93
    SERVICE_ACTION_IN_16 = 0x9E
    REPORT_LUNS = 0xA0
    MAINTENANCE_IN = 0xA3
    READ_12 = 0xA8
    WRITE_12 = 0xAA
    WRITE_AND_VERIFY_12 = 0xAE
    VERIFY_12 = 0xAF


class ServiceAction(IntEnum):
    """Service actions, named with the operation code that they refine."""

    EXTENDED_COPY_LID1 = 0x00
    RECEIVE_COPY_STATUS_LID1 = 0x00
    RECEIVE_COPY_OPERATING_PARAMETERS = 0x03
    RECEIVE_COPY_FAILURE_DETAILS_LID1 = 0x04
    READ_CAPACITY_16 = 0x10
    GET_LBA_STATUS = 0x12
    REPORT_SUPPORTED_OPERATION_CODES = 0x0C
    READ_POSITION_SHORT = 0x00
    READ_POSITION_SHORT_VENDOR = 0x01
    READ_POSITION_LONG = 0x06
    READ_POSITION_EXTENDED = 0x08


_LENGTH_BY_GROUP = (6, 10, 10, 16, 16, 12, 16, 16)
VARIABLE_LENGTH_CDB = 0x7F


def cdb_length(cdb: bytes | memoryview) -> int:
    """Return how many bytes the CDB that starts here has, by its group code (SPC-4 4.2.5.1).

    Vendor specific groups 6 and 7 count as 16. A 7Fh CDB says its own length (4.2.3).
    """
    if cdb[0] == VARIABLE_LENGTH_CDB:
        return 8 + cdb[7]
    return _LENGTH_BY_GROUP[cdb[0] >> 5]
