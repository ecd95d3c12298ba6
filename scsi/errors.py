"""Exceptions that end a command. Each carries what the wire will say of it."""

from serverfree.scsi.sense import Asc, FieldPointer, Sense, SenseKey
from serverfree.scsi.status import Status


class ScsiError(Exception):
    """A command ended otherwise than well."""

    status: Status


class CheckCondition(ScsiError):
    """CHECK CONDITION status with its sense data."""

    status = Status.CHECK_CONDITION

    def __init__(self, sense: Sense) -> None:
        super().__init__(str(sense))
        self.sense = sense


class ReservationConflict(ScsiError):
    """RESERVATION CONFLICT status: another I_T nexus holds the unit."""

    status = Status.RESERVATION_CONFLICT

    def __init__(self) -> None:
        super().__init__("reservation conflict")


class UnexpectedStatus(ScsiError):
    """BUSY, TASK SET FULL, TASK ABORTED, or a CHECK CONDITION that came without sense."""

    def __init__(self, status: Status) -> None:
        super().__init__(f"status {status.name}")
        self.status = status


def illegal_request(asc: Asc, pointer: FieldPointer | None = None) -> CheckCondition:
    """The command or its parameters ask for something that cannot be."""
    return CheckCondition(Sense(SenseKey.ILLEGAL_REQUEST, asc, pointer=pointer))


def invalid_field_in_cdb(byte: int, bit: int | None = None) -> CheckCondition:
    """5/24/00 with a pointer at the CDB byte (and its leftmost bad bit) that is wrong."""
    return illegal_request(Asc.INVALID_FIELD_IN_CDB, FieldPointer(byte, bit, in_cdb=True))


def invalid_field_in_parameter_list(byte: int, bit: int | None = None) -> CheckCondition:
    """5/26/00 with a pointer at the parameter list byte (and bit) that is wrong."""
    return illegal_request(
        Asc.INVALID_FIELD_IN_PARAMETER_LIST, FieldPointer(byte, bit, in_cdb=False)
    )
