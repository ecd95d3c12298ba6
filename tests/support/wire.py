"""A small initiator over scapy layers, for tests that must not trust our own.

One connection, one command at a time, no checks: it sends what it is told and reports what came.
"""

import itertools
import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from support.scapy_iscsi import Answer, DataOut, LoginRequest, LogoutRequest, ScsiCommand

SCSI_RESPONSE = 0x21
LOGIN_RESPONSE = 0x23
DATA_IN = 0x25
LOGOUT_RESPONSE = 0x26
R2T = 0x31

READ = 0x40
WRITE = 0x20
SIMPLE = 0x01
FINAL = 0x80
STATUS_BIT = 0x01

_isid = itertools.count(1)


class ConnectionGone(Exception):
    """The target closed the connection."""


@dataclass(slots=True)
class Ended:
    """How a command ended: status, sense bytes without their length prefix, data, response PDU."""

    status: int
    sense: bytes
    data: bytes
    answer: Answer | None


class WireClient:
    """Logs in to `target_name` as a normal session and carries single commands."""

    def __init__(
        self,
        address: tuple[str, int],
        target_name: str,
        initiator: str = "iqn.2026-11.com.example:wire",
        timeout: float = 20.0,
    ) -> None:
        self.socket = socket.create_connection(address, timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.cmd_sn = 1
        self.exp_stat_sn = 0
        self.tag = 0
        self.max_send = 8192
        # ISID of the random format (11.12.5), one per client: no session replaces another.
        self.isid = 0x800000000000 | next(_isid)
        self._login(initiator, target_name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, pdu) -> None:
        self.socket.sendall(bytes(pdu))

    def receive(self) -> Answer:
        """Return the next PDU, its data without padding."""
        header = self._exactly(48)
        (lengths,) = struct.unpack_from(">I", header, 4)
        self._exactly((lengths >> 24) * 4)
        length = lengths & 0xFFFFFF
        data = self._exactly((length + 3) // 4 * 4)[:length]
        return Answer(header + data)

    def command(
        self,
        cdb: bytes,
        *,
        lun: int = 0,
        data_out: bytes = b"",
        data_in: int = 0,
        expected: int | None = None,
    ) -> Ended:
        """Run one command; `expected` overrides the Expected Data Transfer Length."""
        self.tag += 1
        flags = FINAL | SIMPLE | (WRITE if data_out else 0) | (READ if data_in else 0)
        immediate = data_out[: min(self.max_send, 65536)]
        self.send(
            ScsiCommand(
                flags=flags,
                lun=lun << 48,
                initiator_task_tag=self.tag,
                expected_data_transfer_length=len(data_out or bytes(data_in))
                if expected is None
                else expected,
                cmd_sn=self.cmd_sn,
                exp_stat_sn=self.exp_stat_sn,
                cdb=cdb.ljust(16, b"\0"),
                data=immediate,
            )
        )
        self.cmd_sn = self.cmd_sn + 1 & 0xFFFFFFFF
        return self._finish(data_out, data_in)

    def logout(self) -> None:
        """End the session the proper way."""
        self.send(
            LogoutRequest(
                immediate=1,
                initiator_task_tag=self.tag + 1,
                cmd_sn=self.cmd_sn,
                exp_stat_sn=self.exp_stat_sn,
            )
        )
        while self.receive().opcode != LOGOUT_RESPONSE:
            pass

    def _finish(self, data_out: bytes, data_in: int) -> Ended:
        arrived = bytearray(data_in)
        count = 0
        while True:
            answer = self.receive()
            if answer.opcode == R2T:
                # In an R2T the last two words are offset and length (11.8).
                self._solicited(answer, data_out)
                continue
            if answer.opcode == DATA_IN:
                end = answer.buffer_offset + len(answer.data)
                arrived[answer.buffer_offset : end] = answer.data
                count = max(count, end)
                if not answer.flags & STATUS_BIT:
                    continue
                sense = b""
            elif answer.opcode == SCSI_RESPONSE:
                sense = answer.data[2:]
            else:
                continue
            self.exp_stat_sn = answer.stat_sn + 1 & 0xFFFFFFFF
            return Ended(answer.status, sense, bytes(arrived[:count]), answer)

    def _solicited(self, r2t: Answer, data: bytes) -> None:
        offset, end = r2t.buffer_offset, r2t.buffer_offset + r2t.residual_count
        for data_sn in itertools.count():
            piece = data[offset : min(end, offset + self.max_send)]
            last = offset + len(piece) >= end
            self.send(
                DataOut(
                    flags=FINAL if last else 0,
                    lun=r2t.lun,
                    initiator_task_tag=r2t.initiator_task_tag,
                    target_transfer_tag=r2t.target_transfer_tag,
                    exp_stat_sn=self.exp_stat_sn,
                    data_sn=data_sn,
                    buffer_offset=offset,
                    data=piece,
                )
            )
            offset += len(piece)
            if last:
                return

    def _login(self, initiator: str, target_name: str) -> None:
        keys = {
            "InitiatorName": initiator,
            "TargetName": target_name,
            "SessionType": "Normal",
            "HeaderDigest": "None",
            "DataDigest": "None",
            "InitialR2T": "Yes",
            "ImmediateData": "Yes",
            "MaxRecvDataSegmentLength": "262144",
        }
        text = "".join(f"{key}={value}\0" for key, value in keys.items()).encode()
        # CSG operational, NSG full feature, T: one request and one response.
        self.send(
            LoginRequest(
                immediate=1,
                flags=0x87,
                lun=self.isid << 16,
                cmd_sn=self.cmd_sn,
                data=text,
            )
        )
        answer = self.receive()
        status = answer.data_sn >> 16
        if answer.opcode != LOGIN_RESPONSE or status or answer.flags & 0x83 != 0x83:
            raise ConnectionGone(f"login refused: status {status:04x}, flags {answer.flags:02x}")
        self.exp_stat_sn = answer.stat_sn + 1 & 0xFFFFFFFF
        for entry in answer.data.split(b"\0"):
            key, _, value = entry.partition(b"=")
            if key == b"MaxRecvDataSegmentLength":
                self.max_send = min(int(value), 1 << 18)

    def _exactly(self, length: int) -> bytes:
        received = bytearray()
        while len(received) < length:
            try:
                piece = self.socket.recv(length - len(received))
            except ConnectionError as error:
                raise ConnectionGone(str(error)) from None
            if not piece:
                raise ConnectionGone("closed by the target")
            received += piece
        return bytes(received)
