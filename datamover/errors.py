"""COPY ABORTED: how a copy ends once segments are being processed (SPC-4 5.17.7.4)."""

from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.sense import Asc, FieldPointer, Sense, SenseKey


class UnitUnreachable(Exception):
    """No way to the logical unit that a CSCD descriptor designates."""


class CopyAborted(CheckCondition):
    """The copy ends within a segment.

    Raised where the fault is found; the segment's number and the residual are filled in by
    whoever knows them, before the sense is packed.
    """

    def __init__(
        self,
        asc: Asc,
        pointer: FieldPointer | None = None,
        *,
        forwarded_source: bytes = b"",
        forwarded_destination: bytes = b"",
    ) -> None:
        super().__init__(
            Sense(
                SenseKey.COPY_ABORTED,
                asc,
                pointer=pointer,
                forwarded_source=forwarded_source,
                forwarded_destination=forwarded_destination,
            )
        )

    def in_segment(self, number: int, residual: int | None = None) -> "CopyAborted":
        """Name the segment, and what it has left to write if it has written anything."""
        self.sense.command_specific = number & 0xFFFF
        self.sense.information = residual
        return self


def in_descriptor(byte: int, bit: int | None = None) -> FieldPointer:
    """A field of the segment descriptor under way (SD=1)."""
    return FieldPointer(byte, bit, in_segment=True)
