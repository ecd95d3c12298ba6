"""What answers for a LUN that has no logical unit behind it (SPC-4 6.6.2, 6.39; SAM-5 4.7.4)."""

from serverfree.scsi.cdb.primary import Inquiry, ReportLuns, RequestSense
from serverfree.scsi.errors import illegal_request
from serverfree.scsi.inquiry import DeviceType, Qualifier, StandardInquiry
from serverfree.scsi.opcodes import OperationCode
from serverfree.scsi.sense import Asc, Sense, SenseKey
from serverfree.target.units.base import Row, Unit, table_of
from serverfree.target.units.command import Command, Reply
from serverfree.target.units.primary import inquiry, report_luns


def _request_sense(unit: Unit, command: Command) -> bytes:
    """GOOD status, and the sense in the parameter data says that there is no such unit."""
    cdb = RequestSense.unpack(command.cdb)
    sense = Sense(SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_UNIT_NOT_SUPPORTED)
    return (sense.pack_descriptors() if cdb.desc else sense.pack())[: cdb.allocation_length]


class MissingUnit(Unit):
    """No logical unit: INQUIRY says so, REPORT LUNS tells which there are, the rest is 5/25/00."""

    kind = "missing"
    device_type = DeviceType.UNKNOWN
    normal_aca = False  # all nexuses share this
    TABLE = table_of(
        Row("INQUIRY", Inquiry.USAGE, inquiry, in_attention=True),
        Row("REPORT LUNS", ReportLuns.USAGE, report_luns, in_attention=True),
        Row("REQUEST SENSE", RequestSense.USAGE, _request_sense, in_attention=True),
    )
    _ANSWERED = (OperationCode.INQUIRY, OperationCode.REPORT_LUNS, OperationCode.REQUEST_SENSE)

    def __init__(self) -> None:
        super().__init__("missing")

    def standard_inquiry(self) -> StandardInquiry:
        """Qualifier 011b, type 1Fh, and nothing else that could be mistaken for a unit."""
        return StandardInquiry(self.device_type, Qualifier.NOT_SUPPORTED)

    def vpd_pages(self) -> dict[int, bytes]:
        """None but page 00h: there is nothing to name."""
        return {}

    def execute(self, command: Command) -> Reply:
        """Refuse what is not for a unit that is missing; else as every unit."""
        if not command.cdb or command.cdb[0] not in self._ANSWERED:
            refusal = illegal_request(Asc.LOGICAL_UNIT_NOT_SUPPORTED)
            return Reply(status=refusal.status, sense=refusal.sense)
        return super().execute(command)
