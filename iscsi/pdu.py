"""The PDUs of RFC 7143: one class each, the 48-byte header packed and unpacked beside its fields.

`pack` gives the basic header segment, with the length of `data` in it; the sender puts header,
data and padding on the wire (`framing`). `unpack` takes a complete header and trusts that framing
has found the data segment. Objects are plain slots (0.65 us to make, frozen ones 2.2): nothing
changes them after `unpack`.

Field names are the RFC's. LUNs are the 8 bytes as one number; tags and numbers are 32 bits.
"""

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar

from serverfree.iscsi.codes import FINAL, IMMEDIATE, NO_TAG, Opcode

Buffer = bytes | bytearray | memoryview

# opcode, flags, 2 opcode-specific bytes, AHS length and data length as one number, then the
# 40 bytes that differ.
_HEADER = Struct(">BBBBI")


@dataclass(slots=True)
class NopOut:
    """11.18. An answer to our ping has `initiator_task_tag` FFFFFFFFh."""

    OPCODE: ClassVar = Opcode.NOP_OUT
    LAYOUT: ClassVar = Struct(">BBHIQIIII16x")

    lun: int = 0
    initiator_task_tag: int = NO_TAG
    target_transfer_tag: int = NO_TAG
    cmd_sn: int = 0
    exp_stat_sn: int = 0
    immediate: bool = False
    data: Buffer = b""

    def pack(self) -> bytes:
        return self.LAYOUT.pack(
            self.OPCODE | (IMMEDIATE if self.immediate else 0),
            FINAL,
            0,
            len(self.data),
            self.lun,
            self.initiator_task_tag,
            self.target_transfer_tag,
            self.cmd_sn,
            self.exp_stat_sn,
        )

    @classmethod
    def unpack(cls, bhs: Buffer, data: Buffer) -> "NopOut":
        opcode, _, _, _, lun, itt, ttt, cmd_sn, exp_stat_sn = cls.LAYOUT.unpack_from(bhs)
        return cls(lun, itt, ttt, cmd_sn, exp_stat_sn, bool(opcode & IMMEDIATE), data)


@dataclass(slots=True)
class NopIn:
    """11.19."""

    OPCODE: ClassVar = Opcode.NOP_IN
    LAYOUT: ClassVar = Struct(">BBHIQIIIII12x")

    lun: int = 0
    initiator_task_tag: int = NO_TAG
    target_transfer_tag: int = NO_TAG
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    data: Buffer = b""

    def pack(self) -> bytes:
        return self.LAYOUT.pack(
            self.OPCODE,
            FINAL,
            0,
            len(self.data),
            self.lun,
            self.initiator_task_tag,
            self.target_transfer_tag,
            self.stat_sn,
            self.exp_cmd_sn,
            self.max_cmd_sn,
        )

    @classmethod
    def unpack(cls, bhs: Buffer, data: Buffer) -> "NopIn":
        lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn = cls.LAYOUT.unpack_from(bhs)[4:]
        return cls(lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn, data)


@dataclass(slots=True)
class ScsiCommand:
    """11.3. `ahs` is the raw additional header segments, `data` the immediate data."""

    OPCODE: ClassVar = Opcode.SCSI_COMMAND
    LAYOUT: ClassVar = Struct(">BBHIQIIII16s")

    lun: int
    initiator_task_tag: int
    expected_data_transfer_length: int
    cmd_sn: int
    exp_stat_sn: int
    cdb: bytes
    flags: int = FINAL  # CommandFlag and TaskAttribute
    immediate: bool = False
    ahs: bytes = b""
    data: Buffer = b""

    def pack(self) -> bytes:
        return self.LAYOUT.pack(
            self.OPCODE | (IMMEDIATE if self.immediate else 0),
            self.flags,
            0,
            len(self.ahs) << 22 | len(self.data),
            self.lun,
            self.initiator_task_tag,
            self.expected_data_transfer_length,
            self.cmd_sn,
            self.exp_stat_sn,
            self.cdb,
        )

    @classmethod
    def unpack(cls, bhs: Buffer, data: Buffer, ahs: bytes = b"") -> "ScsiCommand":
        opcode, flags, _, _, lun, itt, length, cmd_sn, exp_stat_sn, cdb = cls.LAYOUT.unpack_from(
            bhs
        )
        return cls(
            lun, itt, length, cmd_sn, exp_stat_sn, cdb, flags, opcode & IMMEDIATE != 0, ahs, data
        )


@dataclass(slots=True)
class ScsiResponse:
    """11.4. `data` is the sense segment: a 2-byte length and the sense data."""

    OPCODE: ClassVar = Opcode.SCSI_RESPONSE
    LAYOUT: ClassVar = Struct(">BBBBI8xIIIIIIII")

    initiator_task_tag: int
    flags: int = FINAL  # FINAL and ResidualFlag
    response: int = 0
    status: int = 0
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    exp_data_sn: int = 0
    bidi_residual_count: int = 0
    residual_count: int = 0
    data: Buffer = b""

    def pack(self) -> bytes:
        return self.LAYOUT.pack(
            self.OPCODE,
            self.flags,
            self.response,
            self.status,
            len(self.data),
            self.initiator_task_tag,
            0,
            self.stat_sn,
            self.exp_cmd_sn,
            self.max_cmd_sn,
            self.exp_data_sn,
            self.bidi_residual_count,
            self.residual_count,
        )

    @classmethod
    def unpack(cls, bhs: Buffer, data: Buffer) -> "ScsiResponse":
        (
            _,
            flags,
            response,
            status,
            _,
            itt,
            _,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            exp_data_sn,
            bidi,
            residual,
        ) = cls.LAYOUT.unpack_from(bhs)
        return cls(
            itt,
            flags,
            response,
            status,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            exp_data_sn,
            bidi,
            residual,
            data,
        )


@dataclass(slots=True)
class TaskManagementRequest:
    """11.5."""

    OPCODE: ClassVar = Opcode.TASK_MANAGEMENT_REQUEST
    LAYOUT: ClassVar = Struct(">BBHIQIIIIII8x")

    function: int
    initiator_task_tag: int
    lun: int = 0
    referenced_task_tag: int = NO_TAG
    cmd_sn: int = 0
    exp_stat_sn: int = 0
    ref_cmd_sn: int = 0
    exp_data_sn: int = 0
    immediate: bool = True

    def pack(self) -> bytes:
        return self.LAYOUT.pack(
            self.OPCODE | (IMMEDIATE if self.immediate else 0),
            FINAL | self.function,
            0,
            0,
            self.lun,
            self.initiator_task_tag,
            self.referenced_task_tag,
            self.cmd_sn,
            self.exp_stat_sn,
            self.ref_cmd_sn,
            self.exp_data_sn,
        )

    @classmethod
    def unpack(cls, bhs: Buffer, data: Buffer) -> "TaskManagementRequest":
        opcode, flags, _, _, lun, itt, rtt, cmd_sn, exp_stat_sn, ref_cmd_sn, exp_data_sn = (
            cls.LAYOUT.unpack_from(bhs)
        )
        return cls(
            flags & 0x7F,
            itt,
            lun,
            rtt,
            cmd_sn,
            exp_stat_sn,
            ref_cmd_sn,
            exp_data_sn,
            bool(opcode & IMMEDIATE),
        )


@dataclass(slots=True)
class TaskManagementResponse:
    """11.6."""

    OPCODE: ClassVar = Opcode.TASK_MANAGEMENT_RESPONSE
    LAYOUT: ClassVar = Struct(">BBBBI8xI4xIII12x")

    initiator_task_tag: int
    response: int = 0
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0

    def pack(self) -> bytes:
        return self.LAYOUT.pack(
            self.OPCODE,
            FINAL,
            self.response,
            0,
            0,
            self.initiator_task_tag,
            self.stat_sn,
            self.exp_cmd_sn,
            self.max_cmd_sn,
        )

    @classmethod
    def unpack(cls, bhs: Buffer, data: Buffer) -> "TaskManagementResponse":
        _, _, response, _, _, itt, stat_sn, exp_cmd_sn, max_cmd_sn = cls.LAYOUT.unpack_from(bhs)
        return cls(itt, response, stat_sn, exp_cmd_sn, max_cmd_sn)


@dataclass(slots=True)
class DataOut:
    """11.7.2 (Data-Out). `target_transfer_tag` FFFFFFFFh marks unsolicited data."""

    OPCODE: ClassVar = Opcode.DATA_OUT
    LAYOUT: ClassVar = Struct(">BBHIQII4xI4xII4x")

    lun: int
    initiator_task_tag: int
    target_transfer_tag: int
    exp_stat_sn: int
    data_sn: int
    buffer_offset: int
    final: bool
    data: Buffer = b""

    def pack(self) -> bytes:
        return self.LAYOUT.pack(
            self.OPCODE,
            FINAL if self.final else 0,
            0,
            len(self.data),
            self.lun,
            self.initiator_task_tag,
            self.target_transfer_tag,
            self.exp_stat_sn,
            self.data_sn,
            self.buffer_offset,
        )

    @classmethod
    def unpack(cls, bhs: Buffer, data: Buffer) -> "DataOut":
        _, flags, _, _, lun, itt, ttt, exp_stat_sn, data_sn, offset = cls.LAYOUT.unpack_from(bhs)
        return cls(lun, itt, ttt, exp_stat_sn, data_sn, offset, bool(flags & FINAL), data)


@dataclass(slots=True)
class DataIn:
    """11.7.3 (Data-In). With ResidualFlag.STATUS in `flags` it also ends the command."""

    OPCODE: ClassVar = Opcode.DATA_IN
    LAYOUT: ClassVar = Struct(">BBBBIQIIIIIIII")

    initiator_task_tag: int
    flags: int  # FINAL, acknowledge 40h, ResidualFlag
    status: int = 0
    lun: int = 0
    target_transfer_tag: int = NO_TAG
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    data_sn: int = 0
    buffer_offset: int = 0
    residual_count: int = 0
    data: Buffer = b""

    def pack(self) -> bytes:
        return self.LAYOUT.pack(
            self.OPCODE,
            self.flags,
            0,
            self.status,
            len(self.data),
            self.lun,
            self.initiator_task_tag,
            self.target_transfer_tag,
            self.stat_sn,
            self.exp_cmd_sn,
            self.max_cmd_sn,
            self.data_sn,
            self.buffer_offset,
            self.residual_count,
        )

    @classmethod
    def unpack(cls, bhs: Buffer, data: Buffer) -> "DataIn":
        (
            _,
            flags,
            _,
            status,
            _,
            lun,
            itt,
            ttt,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            data_sn,
            offset,
            residual,
        ) = cls.LAYOUT.unpack_from(bhs)
        return cls(
            itt,
            flags,
            status,
            lun,
            ttt,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            data_sn,
            offset,
            residual,
            data,
        )


@dataclass(slots=True)
class R2T:
    """11.8."""

    OPCODE: ClassVar = Opcode.R2T
    LAYOUT: ClassVar = Struct(">BBHIQIIIIIIII")

    lun: int
    initiator_task_tag: int
    target_transfer_tag: int
    stat_sn: int
    exp_cmd_sn: int
    max_cmd_sn: int
    r2t_sn: int
    buffer_offset: int
    desired_data_transfer_length: int

    def pack(self) -> bytes:
        return self.LAYOUT.pack(
            self.OPCODE,
            FINAL,
            0,
            0,
            self.lun,
            self.initiator_task_tag,
            self.target_transfer_tag,
            self.stat_sn,
            self.exp_cmd_sn,
            self.max_cmd_sn,
            self.r2t_sn,
            self.buffer_offset,
            self.desired_data_transfer_length,
        )

    @classmethod
    def unpack(cls, bhs: Buffer, data: Buffer) -> "R2T":
        return cls(*cls.LAYOUT.unpack_from(bhs)[4:])


@dataclass(slots=True)
class AsyncMessage:
    """11.9. `data` holds sense for a SCSI event."""

    OPCODE: ClassVar = Opcode.ASYNC_MESSAGE
    LAYOUT: ClassVar = Struct(">BBHIQI4xIIIBBHHH4x")

    lun: int
    stat_sn: int
    exp_cmd_sn: int
    max_cmd_sn: int
    event: int
    vendor_code: int = 0
    parameter1: int = 0
    parameter2: int = 0
    parameter3: int = 0
    data: Buffer = b""

    def pack(self) -> bytes:
        return self.LAYOUT.pack(
            self.OPCODE,
            FINAL,
            0,
            len(self.data),
            self.lun,
            NO_TAG,
            self.stat_sn,
            self.exp_cmd_sn,
            self.max_cmd_sn,
            self.event,
            self.vendor_code,
            self.parameter1,
            self.parameter2,
            self.parameter3,
        )

    @classmethod
    def unpack(cls, bhs: Buffer, data: Buffer) -> "AsyncMessage":
        lun, _, stat_sn, exp_cmd_sn, max_cmd_sn, event, vendor_code, first, second, third = (
            cls.LAYOUT.unpack_from(bhs)[4:]
        )
        return cls(
            lun, stat_sn, exp_cmd_sn, max_cmd_sn, event, vendor_code, first, second, third, data
        )


@dataclass(slots=True)
class TextRequest:
    """11.10."""

    OPCODE: ClassVar = Opcode.TEXT_REQUEST
    LAYOUT: ClassVar = Struct(">BBHIQIIII16x")

    initiator_task_tag: int
    target_transfer_tag: int = NO_TAG
    lun: int = 0
    cmd_sn: int = 0
    exp_stat_sn: int = 0
    final: bool = True
    more: bool = False
    immediate: bool = False
    data: Buffer = b""

    def pack(self) -> bytes:
        return self.LAYOUT.pack(
            self.OPCODE | (IMMEDIATE if self.immediate else 0),
            (FINAL if self.final else 0) | (0x40 if self.more else 0),
            0,
            len(self.data),
            self.lun,
            self.initiator_task_tag,
            self.target_transfer_tag,
            self.cmd_sn,
            self.exp_stat_sn,
        )

    @classmethod
    def unpack(cls, bhs: Buffer, data: Buffer) -> "TextRequest":
        opcode, flags, _, _, lun, itt, ttt, cmd_sn, exp_stat_sn = cls.LAYOUT.unpack_from(bhs)
        return cls(
            itt,
            ttt,
            lun,
            cmd_sn,
            exp_stat_sn,
            bool(flags & FINAL),
            bool(flags & 0x40),
            bool(opcode & IMMEDIATE),
            data,
        )


@dataclass(slots=True)
class TextResponse:
    """11.11."""

    OPCODE: ClassVar = Opcode.TEXT_RESPONSE
    LAYOUT: ClassVar = Struct(">BBHIQIIIII12x")

    initiator_task_tag: int
    target_transfer_tag: int = NO_TAG
    lun: int = 0
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    final: bool = True
    more: bool = False
    data: Buffer = b""

    def pack(self) -> bytes:
        return self.LAYOUT.pack(
            self.OPCODE,
            (FINAL if self.final else 0) | (0x40 if self.more else 0),
            0,
            len(self.data),
            self.lun,
            self.initiator_task_tag,
            self.target_transfer_tag,
            self.stat_sn,
            self.exp_cmd_sn,
            self.max_cmd_sn,
        )

    @classmethod
    def unpack(cls, bhs: Buffer, data: Buffer) -> "TextResponse":
        _, flags, _, _, lun, itt, ttt, stat_sn, exp_cmd_sn, max_cmd_sn = cls.LAYOUT.unpack_from(bhs)
        return cls(
            itt,
            ttt,
            lun,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            bool(flags & FINAL),
            bool(flags & 0x40),
            data,
        )


@dataclass(slots=True)
class LoginRequest:
    """11.12. `isid` is its 6 bytes."""

    OPCODE: ClassVar = Opcode.LOGIN_REQUEST
    LAYOUT: ClassVar = Struct(">BBBBI6sHIH2xII16x")

    isid: bytes
    tsih: int
    initiator_task_tag: int
    cid: int
    cmd_sn: int
    exp_stat_sn: int
    transit: bool
    continued: bool
    current_stage: int
    next_stage: int
    version_max: int = 0
    version_min: int = 0
    data: Buffer = b""

    def pack(self) -> bytes:
        return self.LAYOUT.pack(
            self.OPCODE | IMMEDIATE,
            _login_flags(self.transit, self.continued, self.current_stage, self.next_stage),
            self.version_max,
            self.version_min,
            len(self.data),
            self.isid,
            self.tsih,
            self.initiator_task_tag,
            self.cid,
            self.cmd_sn,
            self.exp_stat_sn,
        )

    @classmethod
    def unpack(cls, bhs: Buffer, data: Buffer) -> "LoginRequest":
        _, flags, version_max, version_min, _, isid, tsih, itt, cid, cmd_sn, exp_stat_sn = (
            cls.LAYOUT.unpack_from(bhs)
        )
        return cls(
            isid,
            tsih,
            itt,
            cid,
            cmd_sn,
            exp_stat_sn,
            bool(flags & 0x80),
            bool(flags & 0x40),
            flags >> 2 & 3,
            flags & 3,
            version_max,
            version_min,
            data,
        )


@dataclass(slots=True)
class LoginResponse:
    """11.13. `status` is class and detail as one number (codes.LoginStatus)."""

    OPCODE: ClassVar = Opcode.LOGIN_RESPONSE
    LAYOUT: ClassVar = Struct(">BBBBI6sHI4xIIIH10x")

    isid: bytes
    tsih: int
    initiator_task_tag: int
    stat_sn: int
    exp_cmd_sn: int
    max_cmd_sn: int
    transit: bool
    continued: bool
    current_stage: int
    next_stage: int
    status: int = 0
    version_max: int = 0
    version_active: int = 0
    data: Buffer = b""

    def pack(self) -> bytes:
        return self.LAYOUT.pack(
            self.OPCODE,
            _login_flags(self.transit, self.continued, self.current_stage, self.next_stage),
            self.version_max,
            self.version_active,
            len(self.data),
            self.isid,
            self.tsih,
            self.initiator_task_tag,
            self.stat_sn,
            self.exp_cmd_sn,
            self.max_cmd_sn,
            self.status,
        )

    @classmethod
    def unpack(cls, bhs: Buffer, data: Buffer) -> "LoginResponse":
        (
            _,
            flags,
            version_max,
            version_active,
            _,
            isid,
            tsih,
            itt,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            status,
        ) = cls.LAYOUT.unpack_from(bhs)
        return cls(
            isid,
            tsih,
            itt,
            stat_sn,
            exp_cmd_sn,
            max_cmd_sn,
            bool(flags & 0x80),
            bool(flags & 0x40),
            flags >> 2 & 3,
            flags & 3,
            status,
            version_max,
            version_active,
            data,
        )


def _login_flags(transit: bool, continued: bool, current: int, following: int) -> int:
    return transit << 7 | continued << 6 | current << 2 | following


@dataclass(slots=True)
class LogoutRequest:
    """11.14."""

    OPCODE: ClassVar = Opcode.LOGOUT_REQUEST
    LAYOUT: ClassVar = Struct(">BBHI8xIH2xII16x")

    initiator_task_tag: int
    reason: int = 0
    cid: int = 0
    cmd_sn: int = 0
    exp_stat_sn: int = 0
    immediate: bool = True

    def pack(self) -> bytes:
        return self.LAYOUT.pack(
            self.OPCODE | (IMMEDIATE if self.immediate else 0),
            FINAL | self.reason,
            0,
            0,
            self.initiator_task_tag,
            self.cid,
            self.cmd_sn,
            self.exp_stat_sn,
        )

    @classmethod
    def unpack(cls, bhs: Buffer, data: Buffer) -> "LogoutRequest":
        opcode, flags, _, _, itt, cid, cmd_sn, exp_stat_sn = cls.LAYOUT.unpack_from(bhs)
        return cls(itt, flags & 0x7F, cid, cmd_sn, exp_stat_sn, bool(opcode & IMMEDIATE))


@dataclass(slots=True)
class LogoutResponse:
    """11.15."""

    OPCODE: ClassVar = Opcode.LOGOUT_RESPONSE
    LAYOUT: ClassVar = Struct(">BBBBI8xI4xIII4xHH4x")

    initiator_task_tag: int
    response: int = 0
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    time2wait: int = 0
    time2retain: int = 0

    def pack(self) -> bytes:
        return self.LAYOUT.pack(
            self.OPCODE,
            FINAL,
            self.response,
            0,
            0,
            self.initiator_task_tag,
            self.stat_sn,
            self.exp_cmd_sn,
            self.max_cmd_sn,
            self.time2wait,
            self.time2retain,
        )

    @classmethod
    def unpack(cls, bhs: Buffer, data: Buffer) -> "LogoutResponse":
        _, _, response, _, _, *rest = cls.LAYOUT.unpack_from(bhs)
        return cls(rest[0], response, *rest[1:])


@dataclass(slots=True)
class SnackRequest:
    """11.16."""

    OPCODE: ClassVar = Opcode.SNACK_REQUEST
    LAYOUT: ClassVar = Struct(">BBHIQII4xI8xII")

    kind: int
    lun: int
    initiator_task_tag: int
    target_transfer_tag: int
    exp_stat_sn: int
    begin_run: int
    run_length: int

    def pack(self) -> bytes:
        return self.LAYOUT.pack(
            self.OPCODE,
            FINAL | self.kind,
            0,
            0,
            self.lun,
            self.initiator_task_tag,
            self.target_transfer_tag,
            self.exp_stat_sn,
            self.begin_run,
            self.run_length,
        )

    @classmethod
    def unpack(cls, bhs: Buffer, data: Buffer) -> "SnackRequest":
        _, flags, _, _, *rest = cls.LAYOUT.unpack_from(bhs)
        return cls(flags & 0x0F, *rest)


@dataclass(slots=True)
class Reject:
    """11.17. `data` is the header of the PDU that is rejected."""

    OPCODE: ClassVar = Opcode.REJECT
    LAYOUT: ClassVar = Struct(">BBBBI8xI4xIIII8x")

    reason: int
    stat_sn: int = 0
    exp_cmd_sn: int = 0
    max_cmd_sn: int = 0
    data_sn: int = 0
    data: Buffer = b""

    def pack(self) -> bytes:
        return self.LAYOUT.pack(
            self.OPCODE,
            FINAL,
            self.reason,
            0,
            len(self.data),
            NO_TAG,
            self.stat_sn,
            self.exp_cmd_sn,
            self.max_cmd_sn,
            self.data_sn,
        )

    @classmethod
    def unpack(cls, bhs: Buffer, data: Buffer) -> "Reject":
        _, _, reason, _, _, _, stat_sn, exp_cmd_sn, max_cmd_sn, data_sn = cls.LAYOUT.unpack_from(
            bhs
        )
        return cls(reason, stat_sn, exp_cmd_sn, max_cmd_sn, data_sn, data)


InitiatorPdu = (
    NopOut
    | ScsiCommand
    | TaskManagementRequest
    | DataOut
    | TextRequest
    | LoginRequest
    | LogoutRequest
    | SnackRequest
)
TargetPdu = (
    NopIn
    | ScsiResponse
    | TaskManagementResponse
    | DataIn
    | R2T
    | AsyncMessage
    | TextResponse
    | LoginResponse
    | LogoutResponse
    | Reject
)
Pdu = InitiatorPdu | TargetPdu

BY_OPCODE: dict[int, type[Pdu]] = {
    cls.OPCODE: cls
    for cls in (
        NopOut,
        ScsiCommand,
        TaskManagementRequest,
        DataOut,
        TextRequest,
        LoginRequest,
        LogoutRequest,
        SnackRequest,
        NopIn,
        ScsiResponse,
        TaskManagementResponse,
        DataIn,
        R2T,
        AsyncMessage,
        TextResponse,
        LoginResponse,
        LogoutResponse,
        Reject,
    )
}
