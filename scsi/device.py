"""What can be sent a command: the one seam between those who build CDBs and those who carry them.

The initiator's logical unit carries a command over iSCSI, a target's own unit runs it in the same
process; the typed verbs (disk, tape, copy) and the data mover know only this file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from serverfree.scsi.errors import CheckCondition, ReservationConflict, UnexpectedStatus
from serverfree.scsi.sense import Sense
from serverfree.scsi.status import Status

Buffer = bytes | bytearray | memoryview


@dataclass(slots=True)
class Result:
    """How a command ended: its status, the sense that came with it, and how much data came in.

    `transferred` counts the bytes that reached the data-in buffer. It is true also when the status
    is CHECK CONDITION: a tape read that meets a short block brings data and sense.
    """

    status: Status
    sense: Sense | None = None
    transferred: int = 0

    def check(self) -> "Result":
        """Return self if the command ended well, else raise what its status says."""
        if self.status in (Status.GOOD, Status.CONDITION_MET):
            return self
        if self.status is Status.CHECK_CONDITION and self.sense is not None:
            raise CheckCondition(self.sense)
        if self.status is Status.RESERVATION_CONFLICT:
            raise ReservationConflict
        raise UnexpectedStatus(self.status)


Order = tuple[bytes, Buffer | Sequence[Buffer], memoryview | None]
"""A command to be sent with others: CDB, data-out and data-in as of `Device.submit`."""


class Pending(Protocol):
    """A command under way."""

    def wait(self) -> Result:
        """Block until the command has ended; whatever its status, return how.

        Raises what the carrier raises when the command can never end (a lost session).
        """


class Device(Protocol):
    """A logical unit that takes commands."""

    def submit(
        self,
        cdb: bytes,
        *,
        data_out: Buffer | Sequence[Buffer] = b"",
        data_in: memoryview | None = None,
    ) -> Pending:
        """Send a command and return at once; commands of one device start in the order sent.

        `data_out` is sent as it lies (several buffers are joined on the wire, not in memory) and
        must not change before the command has ended; `data_in` is filled from its first byte.
        """


def execute(
    device: Device,
    cdb: bytes,
    *,
    data_out: Buffer | Sequence[Buffer] = b"",
    data_in: memoryview | None = None,
) -> Result:
    """Run one command to its end and raise unless it ended well."""
    return device.submit(cdb, data_out=data_out, data_in=data_in).wait().check()


def execute_in(device: Device, cdb: bytes, length: int) -> bytes:
    """Run a command that brings in up to `length` bytes and return those that came."""
    buffer = bytearray(length)
    result = execute(device, cdb, data_in=memoryview(buffer))
    return bytes(buffer[: result.transferred])
