"""The PDUs that a target sends (RFC 7143 11); see `pdu` for what holds for all of them."""

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar

from serverfree.iscsi.codes import FINAL, NO_TAG, Opcode
from serverfree.iscsi.pdu_initiator import login_flags
from serverfree.scsi.device import Buffer


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
            login_flags(self.transit, self.continued, self.current_stage, self.next_stage),
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
