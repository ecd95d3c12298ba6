"""A target for tests of the initiator's shell: it logs anyone in, then does what a script says.

Only the login uses the project's own code; what follows is bytes read and written by hand.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterable

from serverfree.iscsi.login import TargetLogin, TargetPolicy
from serverfree.iscsi.names import Portal
from serverfree.iscsi.pdu import LoginRequest, LoginResponse

NAME = "iqn.2026-11.com.example:scripted"
NO_TAG = 0xFFFFFFFF


def pad(data: bytes) -> bytes:
    return data + bytes(-len(data) & 3)


def response(tag: int, stat_sn: int, status: int = 0, opcode: int = 0x21) -> bytes:
    """A bare response PDU; opcodes 21h, 22h and 26h have the fields that matter in one place."""
    return (
        bytes((opcode, 0x80, 0, status))
        + bytes(12)
        + struct.pack(">II", tag, 0)
        + struct.pack(">III", stat_sn, 1, 1000)
        + bytes(12)
    )


def nop_in(tag: int, stat_sn: int, data: bytes = b"", transfer_tag: int = NO_TAG) -> bytes:
    return (
        bytes((0x20, 0x80, 0, 0))
        + struct.pack(">I8xII", len(data), tag, transfer_tag)
        + struct.pack(">III", stat_sn, 1, 1000)
        + bytes(12)
        + pad(data)
    )


class ScriptedTarget:
    """Listens on loopback. `script(target, header, data)` is called for each PDU after login;

    it returns the PDUs to send, or None to close the connection. `login_answer` may replace the
    answer to a login request. `stat_sn` counts on for the script's use.
    """

    def __init__(
        self,
        script: Callable[["ScriptedTarget", bytes, bytes], Iterable[bytes] | None],
        login_answer: Callable[[LoginRequest], LoginResponse | None] | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        self.script = script
        self.login_answer = login_answer
        self.stat_sn = 0
        self.seen: list[bytes] = []
        self.bytes_received = 0
        self.bytes_sent = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        if receive_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def portal(self) -> Portal:
        return Portal("127.0.0.1", self.port)

    def __enter__(self) -> "ScriptedTarget":
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone does not wake a thread in accept.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self.hang_up()
        self._thread.join(5)

    def next_stat_sn(self) -> int:
        self.stat_sn += 1
        return self.stat_sn - 1

    def send(self, pdu: bytes) -> None:
        assert self._connection is not None
        self.bytes_sent += len(pdu)
        self._connection.sendall(pdu)

    def hang_up(self) -> None:
        assert self._connection is not None
        self._connection.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            self._connection, _ = self._listener.accept()
            with self._connection:
                self._login()
                while True:
                    header, data = self._pdu()
                    self.seen.append(header)
                    answers = self.script(self, header, data)
                    if answers is None:
                        return
                    for answer in answers:
                        self.send(answer)

    def _login(self) -> None:
        login = TargetLogin(TargetPolicy(find=lambda one, name: "", establish=lambda one: 1))
        while not login.complete:
            header, data = self._pdu()
            request = LoginRequest.unpack(header, data)
            answer = self.login_answer(request) if self.login_answer else None
            answer = answer or login.receive(request)
            self.send(answer.pack() + pad(bytes(answer.data)))
        self.stat_sn = login.stat_sn

    def _pdu(self) -> tuple[bytes, bytes]:
        header = self._exactly(48)
        length = int.from_bytes(header[5:8], "big")
        return header, self._exactly(length + (-length & 3))[:length]

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            assert self._connection is not None
            more = self._connection.recv(length - len(data))
            if not more:
                raise EOFError
            data += more
        self.bytes_received += length
        return data
