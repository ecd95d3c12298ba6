"""The PDUs that an initiator sends (RFC 7143 11); see `pdu` for what holds for all of them."""

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar

from serverfree.iscsi.codes import FINAL, IMMEDIATE, NO_TAG, Opcode
from serverfree.scsi.device import Buffer


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
            login_flags(self.transit, self.continued, self.current_stage, self.next_stage),
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


def login_flags(transit: bool, continued: bool, current: int, following: int) -> int:
    """Byte 1 of a login request or response (11.12.2 to 11.12.4)."""
    return transit << 7 | continued << 6 | current << 2 | following
