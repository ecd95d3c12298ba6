"""A TCP connection to a target: moves bytes between the socket and the cores that understand them.

It decides nothing of the protocol. The socket never blocks; who waits, waits in `wait`, so that
sending and receiving can go on at once and neither side starves the other.
"""

import contextlib
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from serverfree.iscsi.codes import Opcode
from serverfree.iscsi.errors import ProtocolError, SessionLost
from serverfree.iscsi.framing import Receiver, padding
from serverfree.iscsi.login import LOGIN_SEGMENT, InitiatorLogin
from serverfree.iscsi.names import Portal
from serverfree.iscsi.pdu import Buffer, LoginRequest, LoginResponse, Reject

# Smaller than the target's: what is in it when a large segment begins costs a second copy.
_RECEIVE_BUFFER = 128 << 10


@dataclass(frozen=True, slots=True)
class Timing:
    """How long to be patient, in seconds.

    There is no limit on how long a command takes, as long as the target shows signs of life:
    after `ping` seconds of silence it is asked for one, after `silence` it is given up. An attended
    session is looked after every `attend` seconds.
    """

    connect: float = 10.0
    login: float = 30.0
    ping: float = 10.0
    silence: float = 60.0
    logout: float = 5.0
    attend: float = 5.0


class Connection:
    """A connected socket with its `receiver`, and the bytes that have passed.

    `bytes_sent` and `bytes_received` count at the socket: headers, padding, everything but TCP/IP.
    """

    def __init__(self, portal: Portal, timing: Timing) -> None:
        """Connect. Raises SessionLost where nobody answers."""
        self.portal = portal
        self.timing = timing
        self.bytes_sent = 0
        self.bytes_received = 0
        self.receiver = Receiver(LOGIN_SEGMENT, _RECEIVE_BUFFER)
        self._unsent: list[Buffer] = []
        try:
            self._socket = socket.create_connection((portal.host, portal.port), timing.connect)
        except OSError as error:
            raise SessionLost(f"{portal}: cannot connect: {error.strerror or error}") from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        # Another thread's way to say that there is something to send while we wait to receive.
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._receiving = select.poll()
        self._receiving.register(self._socket, select.POLLIN)
        self._receiving.register(self._woken, select.POLLIN)
        self._both = select.poll()
        self._both.register(self._socket, select.POLLIN | select.POLLOUT)
        self._both.register(self._woken, select.POLLIN)

    @property
    def unsent(self) -> bool:
        """Whether the socket has yet to take what it was given."""
        return bool(self._unsent)

    def send(self, buffers: Sequence[Buffer] = ()) -> bool:
        """Give these to the socket, behind what it has not taken yet; tell if it took all.

        Give it more only when it has. Raises SessionLost.
        """
        unsent = self._unsent
        unsent += buffers
        while unsent:
            try:
                count = self._socket.sendmsg(unsent)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as error:
                raise self._lost(error) from error
            self.bytes_sent += count
            self._advance(count)
        return True

    def _advance(self, count: int) -> None:
        unsent = self._unsent
        done = 0
        for buffer in unsent:
            if count < len(buffer):
                break
            count -= len(buffer)
            done += 1
        del unsent[:done]
        if count:
            unsent[0] = memoryview(unsent[0])[count:]

    def wait(self, *, timeout: float) -> bool:
        """Sleep until bytes have come, the socket takes more, or `wake`; tell if any did."""
        poll = self._both if self._unsent else self._receiving
        ready = poll.poll(max(0, timeout * 1000))
        if any(fd == self._woken.fileno() for fd, _ in ready):
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)
        return bool(ready)

    def wake(self) -> None:
        """End another thread's `wait`."""
        with contextlib.suppress(OSError):  # full: it is awake already; closed: it is gone
            self._waker.send(b"\0")

    def receive(self) -> bool:
        """Take what has come into the receiver; tell if anything had. Raises SessionLost."""
        try:
            count = self._socket.recvmsg_into(self.receiver.buffers())[0]
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise self._lost(error) from error
        if count == 0:
            raise SessionLost(f"{self.portal}: the target closed the connection")
        self.bytes_received += count
        self.receiver.received(count)
        return True

    def login(self, login: InitiatorLogin) -> None:
        """Take a login to its end. Raises LoginFailure, ProtocolError or SessionLost."""
        deadline = time.monotonic() + self.timing.login
        request: LoginRequest | None = login.start()
        while request is not None:
            data = request.data
            self.send([request.pack(), data, padding(len(data))] if len(data) else [request.pack()])
            request = login.receive(self._login_response(deadline))

    def _login_response(self, deadline: float) -> LoginResponse:
        while True:
            raw = self.receiver.next_pdu()
            if raw is not None:
                opcode = raw[0][0] & 0x3F
                if opcode == Opcode.LOGIN_RESPONSE:
                    return LoginResponse.unpack(raw[0], bytes(raw[2]))
                if opcode == Opcode.REJECT:
                    reason = Reject.unpack(raw[0], b"").reason
                    raise ProtocolError(f"{self.portal}: login rejected, reason {reason:02X}h")
                raise ProtocolError(f"{self.portal}: opcode {opcode:02X}h during login")
            left = deadline - time.monotonic()
            if left <= 0:
                raise SessionLost(f"{self.portal}: no answer to the login")
            if self.wait(timeout=left):
                self.send()
                self.receive()

    def shut_down(self) -> None:
        """End the conversation: whoever waits wakes, both sides see the end."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the socket. Harmless when repeated."""
        for each in (self._socket, self._woken, self._waker):
            each.close()

    def _lost(self, error: OSError) -> SessionLost:
        return SessionLost(f"{self.portal}: connection lost: {error.strerror or error}")
