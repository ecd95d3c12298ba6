"""The initiator's PDUs of RFC 7143 as scapy layers: a second, independent statement of the wire.

Every field can be set to anything or left to scapy's `fuzz`; nothing here is shared with
`serverfree.iscsi`. What a target sends is read by `Answer`, which knows only the fields that the
tests look at.
"""

from scapy.fields import (
    BitField,
    ByteField,
    IntField,
    LongField,
    ShortField,
    StrField,
    StrFixedLenField,
    ThreeBytesField,
)
from scapy.packet import Packet

NO_TAG = 0xFFFFFFFF


def _header(opcode, flags):
    """Bytes 0 to 19, which all initiator PDUs share (11.2.1)."""
    return [
        BitField("reserved", 0, 1),
        BitField("immediate", 0, 1),
        BitField("opcode", opcode, 6),
        ByteField("flags", flags),
        ShortField("specific", 0),
        ByteField("total_ahs_length", 0),
        ThreeBytesField("data_segment_length", None),
        LongField("lun", 0),
        IntField("initiator_task_tag", 1),
    ]


class Pdu(Packet):
    """A BHS with its data: the length is filled in and the padding added unless set by hand."""

    def post_build(self, pkt, pay):
        data = self.data
        if self.data_segment_length is None:
            pkt = pkt[:5] + len(data).to_bytes(3, "big") + pkt[8:]
        return pkt + bytes(-len(data) % 4) + pay


class NopOut(Pdu):
    """11.18."""

    fields_desc = [
        *_header(0x00, 0x80),
        IntField("target_transfer_tag", NO_TAG),
        IntField("cmd_sn", 1),
        IntField("exp_stat_sn", 1),
        StrFixedLenField("rest", b"", 16),
        StrField("data", b""),
    ]


class ScsiCommand(Pdu):
    """11.3."""

    fields_desc = [
        *_header(0x01, 0x81),
        IntField("expected_data_transfer_length", 0),
        IntField("cmd_sn", 1),
        IntField("exp_stat_sn", 1),
        StrFixedLenField("cdb", b"", 16),
        StrField("data", b""),
    ]


class TaskManagement(Pdu):
    """11.5; the function is in `flags`."""

    fields_desc = [
        *_header(0x02, 0x81),
        IntField("referenced_task_tag", 0),
        IntField("cmd_sn", 1),
        IntField("exp_stat_sn", 1),
        IntField("ref_cmd_sn", 0),
        IntField("exp_data_sn", 0),
        StrFixedLenField("rest", b"", 8),
        StrField("data", b""),
    ]


class LoginRequest(Pdu):
    """11.12; `specific` holds Version-max and Version-min, `lun` the ISID and TSIH."""

    fields_desc = [
        *_header(0x03, 0x87),
        ShortField("cid", 0),
        ShortField("reserved_22", 0),
        IntField("cmd_sn", 1),
        IntField("exp_stat_sn", 0),
        StrFixedLenField("rest", b"", 16),
        StrField("data", b""),
    ]


class TextRequest(Pdu):
    """11.10."""

    fields_desc = [
        *_header(0x04, 0x80),
        IntField("target_transfer_tag", NO_TAG),
        IntField("cmd_sn", 1),
        IntField("exp_stat_sn", 1),
        StrFixedLenField("rest", b"", 16),
        StrField("data", b""),
    ]


class DataOut(Pdu):
    """11.7."""

    fields_desc = [
        *_header(0x05, 0x80),
        IntField("target_transfer_tag", NO_TAG),
        IntField("reserved_24", 0),
        IntField("exp_stat_sn", 1),
        IntField("reserved_32", 0),
        IntField("data_sn", 0),
        IntField("buffer_offset", 0),
        IntField("reserved_44", 0),
        StrField("data", b""),
    ]


class LogoutRequest(Pdu):
    """11.14; the reason is in `flags`."""

    fields_desc = [
        *_header(0x06, 0x80),
        ShortField("cid", 0),
        ShortField("reserved_22", 0),
        IntField("cmd_sn", 1),
        IntField("exp_stat_sn", 1),
        StrFixedLenField("rest", b"", 16),
        StrField("data", b""),
    ]


class SnackRequest(Pdu):
    """11.16."""

    fields_desc = [
        *_header(0x10, 0x80),
        IntField("target_transfer_tag", NO_TAG),
        IntField("reserved_24", 0),
        IntField("exp_stat_sn", 1),
        StrFixedLenField("rest", b"", 8),
        IntField("beg_run", 0),
        IntField("run_length", 0),
        StrField("data", b""),
    ]


class Answer(Packet):
    """A target's PDU: what SCSI Response, Data-In, R2T, Login and Text Response have in common."""

    fields_desc = [
        ByteField("opcode", 0),
        ByteField("flags", 0),
        ByteField("response", 0),
        ByteField("status", 0),
        ByteField("total_ahs_length", 0),
        ThreeBytesField("data_segment_length", 0),
        LongField("lun", 0),
        IntField("initiator_task_tag", 0),
        IntField("target_transfer_tag", 0),
        IntField("stat_sn", 0),
        IntField("exp_cmd_sn", 0),
        IntField("max_cmd_sn", 0),
        IntField("data_sn", 0),
        IntField("buffer_offset", 0),
        IntField("residual_count", 0),
        StrField("data", b""),
    ]
