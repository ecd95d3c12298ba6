"""Reservation commands (SPC-4 6.15 and 6.16; RESERVE and RELEASE of SPC-2 7.16 to 7.22)."""

from enum import IntEnum

from serverfree.scsi.cdb.layout import Cdb, at, bits, cdb, flag
from serverfree.scsi.opcodes import OperationCode, ServiceAction


@cdb(OperationCode.PERSISTENT_RESERVE_IN, ServiceAction.READ_KEYS)
class ReadKeys(Cdb):
    """6.15.2."""

    allocation_length: int = at(7, 2)


@cdb(OperationCode.PERSISTENT_RESERVE_IN, ServiceAction.READ_RESERVATION)
class ReadReservation(Cdb):
    """6.15.3."""

    allocation_length: int = at(7, 2)


@cdb(OperationCode.PERSISTENT_RESERVE_IN, ServiceAction.REPORT_CAPABILITIES)
class ReportCapabilities(Cdb):
    """6.15.4."""

    allocation_length: int = at(7, 2)


@cdb(OperationCode.PERSISTENT_RESERVE_IN, ServiceAction.READ_FULL_STATUS)
class ReadFullStatus(Cdb):
    """6.15.5."""

    allocation_length: int = at(7, 2)


class ReserveOut(IntEnum):
    """SERVICE ACTION of PERSISTENT RESERVE OUT (6.16.2, table 213)."""

    REGISTER = 0x00
    RESERVE = 0x01
    RELEASE = 0x02
    CLEAR = 0x03
    PREEMPT = 0x04
    PREEMPT_AND_ABORT = 0x05
    REGISTER_AND_IGNORE_EXISTING_KEY = 0x06
    REGISTER_AND_MOVE = 0x07


@cdb(OperationCode.PERSISTENT_RESERVE_OUT)
class PersistentReserveOut(Cdb):
    """6.16, all its service actions; its parameter lists are in scsi.reservations."""

    service_action: int = bits(1, 4, 5)
    scope: int = bits(2, 7, 4)
    type: int = bits(2, 3, 4)
    parameter_list_length: int = at(5, 4)


@cdb(OperationCode.RESERVE_6)
class Reserve6(Cdb):
    """SPC-2 7.17, for the initiator itself and the whole unit."""


@cdb(OperationCode.RELEASE_6)
class Release6(Cdb):
    """SPC-2 7.17."""


@cdb(OperationCode.RESERVE_10)
class Reserve10(Cdb):
    """SPC-2 7.16. A third party is named by `third_party_device`; `long_id` asks for a list."""

    third_party: bool = flag(1, 4)
    long_id: bool = flag(1, 1)
    third_party_device: int = at(3)
    parameter_list_length: int = at(7, 2)


@cdb(OperationCode.RELEASE_10)
class Release10(Cdb):
    """SPC-2 7.16."""

    third_party: bool = flag(1, 4)
    long_id: bool = flag(1, 1)
    third_party_device: int = at(3)
    parameter_list_length: int = at(7, 2)
