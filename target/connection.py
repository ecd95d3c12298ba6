"""A connection: one blocking thread that moves bytes between a socket, the protocol core and units.

No protocol decision is made here. The thread receives, runs what may run inline, and answers the
whole batch with one `sendmsg`. Commands that can block run elsewhere (`task_set`); their replies
come back through a mailbox, and only while such commands are out does the thread poll.
"""

import errno
import logging
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Event, Lock, Thread, current_thread
from typing import Protocol

from serverfree.iscsi import text
from serverfree.iscsi.chap import Account
from serverfree.iscsi.codes import (
    LoginStatus,
    LogoutReason,
    LogoutResponseCode,
    Opcode,
    RejectReason,
    TaskFunction,
    TaskResponse,
)
from serverfree.iscsi.errors import LoginFailure, ProtocolError
from serverfree.iscsi.framing import Receiver
from serverfree.iscsi.login import LOGIN_SEGMENT, TargetLogin, TargetPolicy
from serverfree.iscsi.pdu import Buffer, LoginRequest, LogoutRequest, TextRequest
from serverfree.iscsi.pdu import TaskManagementRequest as TmfRequest
from serverfree.iscsi.target import OFFER, QUEUE_DEPTH, TargetConnection
from serverfree.iscsi.task import Task
from serverfree.target.session import Session, Target
from serverfree.target.task_set import Job, TaskSet
from serverfree.target.units.command import Command, Lane, Nexus, Reply

log = logging.getLogger(__name__)

SEND_TIMEOUT = 60  # seconds in which a peer takes nothing of what it asked for
_IOV_MAX = 1024  # buffers one sendmsg takes; Linux UIO_MAXIOV
# A batch is sent early at these marks: answers must not pile up in memory behind a slow reader.
_MANY_BUFFERS = 512
_LARGE_REPLY = 256 << 10
_READ = 0x40
_DISCOVERY_TSIH = 1  # any but 0: nobody can add to a discovery session
_NOBODY = Nexus("", "")


class Entrance(Protocol):
    """What a connection needs of the portal that let it in. Refusals are LoginFailure."""

    group_tag: int  # of the portal group

    @property
    def login_timeout(self) -> int:
        """Seconds from one login PDU to the next."""

    def find_target(self, login: TargetLogin, name: str) -> Target:
        """Return the target of this name, if it is here, for this initiator, and not elsewhere."""

    def accounts(self, login: TargetLogin) -> Mapping[str, Account]:
        """Return who may log in like this, by CHAP name; nobody is asked who he is if empty."""

    def admit(self, login: TargetLogin, connection: "Connection") -> None:
        """The login is complete but for its session; refuse it if there are too many."""

    def send_targets(self, connection: "Connection", which: str) -> bytes:
        """Answer SendTargets (appendix C): `All`, a name, or "" for the session's own."""


class Connection:
    """One TCP connection of an initiator, from accept to close."""

    def __init__(
        self,
        sock: socket.socket,
        entrance: Entrance,
        on_end: Callable[["Connection"], None],
    ) -> None:
        self._socket = sock
        self.entrance = entrance
        self._on_end = on_end
        self._peer = sock.getpeername()
        self.session: Session | None = None
        self.initiator_name = ""  # known once the login is complete
        self._receiver = Receiver(LOGIN_SEGMENT)
        self._core: TargetConnection
        self._task_sets: dict[int, TaskSet] = {}
        self._nexus = _NOBODY
        self._missing: TaskSet | None = None
        self._out = 0  # commands that run elsewhere
        self._mailbox: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closing = Lock()  # `_wake` must not be written to once it is closed
        self._ended = False
        self._thread = Thread(target=self._run, name=f"connection {self._peer}", daemon=True)

    @property
    def local_address(self) -> tuple[str, int]:
        """The address that the initiator reached us at."""
        address = self._socket.getsockname()
        return address[0], address[1]

    def start(self) -> None:
        """Serve the connection until it ends."""
        self._thread.start()

    def drop(self) -> None:
        """End the connection and return when its commands have been settled."""
        with suppress(OSError):  # it may have ended by itself
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread is not current_thread():
            self._thread.join()

    # ---------------------------------------------------------------- the thread

    def _run(self) -> None:
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._set_timeout(socket.SO_SNDTIMEO, SEND_TIMEOUT)
            self._set_timeout(socket.SO_RCVTIMEO, self.entrance.login_timeout)
            login = self._login()
            if login is not None:
                self._set_timeout(socket.SO_RCVTIMEO, 0)
                self._core = TargetConnection(
                    self._receiver, login.parameters, login.cmd_sn, login.stat_sn
                )
                self._serve()
        except ProtocolError as error:
            log.warning("%s: connection ends: %s", self._peer, error)
        except OSError as error:
            log.info("%s: connection ends: %s", self._peer, error)
        except Exception:
            log.exception("%s: connection ends by a fault of ours", self._peer)
        finally:
            self._end()

    def _set_timeout(self, option: int, seconds: int) -> None:
        # The kernel's own time-outs: Python's would cost a poll before every receive.
        self._socket.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", seconds, 0))

    def _login(self) -> TargetLogin | None:
        """Log the initiator in; None if it was refused or went away."""
        login = TargetLogin(
            TargetPolicy(
                find=lambda login, name: self.entrance.find_target(login, name).alias,
                establish=self._establish,
                accounts=self.entrance.accounts,
                offer=OFFER,
                portal_group_tag=self.entrance.group_tag,
                command_window=QUEUE_DEPTH,
            )
        )
        while not login.complete:
            raw = self._receiver.next_pdu()
            if raw is None:
                if not self._receive():
                    return None
                continue
            bhs, _, data = raw
            if bhs[0] & 0x3F != Opcode.LOGIN_REQUEST:
                raise ProtocolError(f"opcode {bhs[0] & 0x3F:02X}h before login is complete")
            response = login.receive(LoginRequest.unpack(bhs, bytes(data)))
            self._send([response.pack(), response.data, bytes(-len(response.data) & 3)])
            if login.failure is not None:
                log.warning("%s: login refused: %s", self._peer, login.failure)
                return None
        log.info("%s: %s logged in", self._peer, login.initiator_name)
        return login

    def _establish(self, login: TargetLogin) -> int:
        self.entrance.admit(login, self)
        if not login.target_name:  # a discovery session has no nexus with any unit
            if login.requested_tsih:
                raise LoginFailure(
                    LoginStatus.SESSION_DOES_NOT_EXIST, "discovery has one connection"
                )
            return _DISCOVERY_TSIH
        target = self.entrance.find_target(login, login.target_name)
        self.session = session = target.establish(login, self)
        self._task_sets, self._missing = session.task_sets, session.missing
        self._nexus = session.nexus
        return session.tsih

    def _serve(self) -> None:
        core, mailbox = self._core, self._mailbox
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        own = self._socket.fileno()
        while True:
            readable = True
            if self._out:
                ready = [descriptor for descriptor, _ in poll.poll()]
                readable = own in ready
                if self._wake in ready:
                    os.eventfd_read(self._wake)
            if readable and not self._receive():
                return
            while mailbox:
                mailbox.popleft()()
            for event in core.events():
                if type(event) is Task:
                    self._task(event)
                elif isinstance(event, TmfRequest):
                    self._task_management(event)
                elif isinstance(event, TextRequest):
                    self._text(event)
                elif isinstance(event, LogoutRequest) and self._logout(event):
                    return
            if core.output:
                self._flush()

    def _receive(self) -> bool:
        """Take in what has arrived; False at the end of the stream."""
        buffers = self._receiver.buffers()
        if len(buffers) == 1:
            count = self._socket.recv_into(buffers[0])
        else:
            count = self._socket.recvmsg_into(buffers)[0]
        self._receiver.received(count)
        return count > 0

    # ---------------------------------------------------------------- commands

    def _task(self, task: Task) -> None:
        task_set = self._task_sets.get(task.lun, self._missing)
        if task_set is None:  # a discovery session takes text and logout only (4.3)
            self._core.reject(RejectReason.PROTOCOL_ERROR, b"")
            return
        unit = task_set.unit
        if (
            not task.flags & _READ
            and task.initiator_task_tag not in self._core.tasks  # its first coming
            and not self._core.solicit(task, unit.data_out_length(task.cdb))
        ):
            return  # it comes again when its data is here
        lane = unit.lane(task.cdb)
        if lane is Lane.INLINE and not (task_set.busy and unit.ordered):
            self._reply(task, unit.execute(self._command(task)))
            return
        self._core.keep(task)
        command = self._command(task)
        job = Job(command, lambda reply: self._post(lambda: self._finish(task, job, reply)))
        task.owner = (task_set, job)
        self._out += 1
        task_set.submit(job, lane)

    def _command(self, task: Task) -> Command:
        return Command(
            self._nexus,
            task.cdb,
            task.data,
            task.expected_data_transfer_length,
            self._core.data_digest,
        )

    def _reply(self, task: Task, reply: Reply) -> None:
        core = self._core
        sense = reply.sense
        core.reply(task, reply.status, reply.data, b"" if sense is None else sense.pack())
        if len(reply.data) >= _LARGE_REPLY or len(core.output) >= _MANY_BUFFERS:
            self._flush()

    def _finish(self, task: Task, job: Job, reply: Reply | None) -> None:
        self._out -= 1
        if reply is None or job.command.aborted:
            self._core.drop(task)
        else:
            self._reply(task, reply)

    def _post(self, action: Callable[[], None]) -> None:
        """Have this connection's thread do something soon; from any thread."""
        with self._closing:
            if not self._ended:
                self._mailbox.append(action)
                os.eventfd_write(self._wake, 1)

    # ---------------------------------------------------------------- other requests

    def _task_management(self, request: TmfRequest) -> None:
        task_set = self._task_sets.get(request.lun)
        if request.function == TaskFunction.ABORT_TASK:
            self._abort_task(request)
        elif request.function == TaskFunction.LOGICAL_UNIT_RESET:
            if task_set is None:
                self._core.reply_task_management(request, TaskResponse.LUN_DOES_NOT_EXIST)
            else:
                self._logical_unit_reset(request, task_set)
        else:
            self._core.reply_task_management(request, TaskResponse.FUNCTION_NOT_SUPPORTED)

    def _abort_task(self, request: TmfRequest) -> None:
        task = self._core.tasks.get(request.referenced_task_tag)
        if task is None:
            self._core.reply_task_management(request, TaskResponse.TASK_DOES_NOT_EXIST)
        elif task.owner is None:  # its data is still to come
            self._core.drop(task)
            self._core.reply_task_management(request, TaskResponse.FUNCTION_COMPLETE)
        else:
            task_set, job = task.owner
            task_set.abort([job], self._answer_later(request))

    def _logical_unit_reset(self, request: TmfRequest, task_set: TaskSet) -> None:
        assert self.session is not None
        answer = self._answer_later(request)

        def reset() -> None:
            task_set.unit.reset()
            answer()

        for session in self.session.target.sessions():
            session.link.forget_incomplete(task_set)
        task_set.abort_all(reset)

    def forget_incomplete(self, task_set: TaskSet) -> None:
        """Drop this connection's commands of a unit whose data has not yet come; any thread.

        The thread does so before it looks at the next bytes, so no such command can still begin.
        """

        def forget() -> None:
            for task in list(self._core.tasks.values()):
                if task.owner is None and self._task_sets.get(task.lun) is task_set:
                    self._core.drop(task)

        if current_thread() is self._thread:
            forget()
        else:
            self._post(forget)

    def _answer_later(self, request: TmfRequest) -> Callable[[], None]:
        """Return what answers the request once its commands have ended; callable by any thread."""
        self._out += 1  # poll until then

        def answer() -> None:
            self._out -= 1
            self._core.reply_task_management(request, TaskResponse.FUNCTION_COMPLETE)

        return lambda: self._post(answer)

    def _text(self, request: TextRequest) -> None:
        try:
            pairs = text.unpack(bytes(request.data))
        except ProtocolError:
            self._core.reject(RejectReason.INVALID_PDU_FIELD, b"")
            return
        answer = b""
        for key, value in pairs:
            if key == "SendTargets":
                answer += self.entrance.send_targets(self, value)
            else:
                # Nothing is renegotiated in full feature phase (6.2: the answer to what is not).
                answer += text.pack([(key, text.REJECT)])
        self._core.reply_text(request, answer)

    def _logout(self, request: LogoutRequest) -> bool:
        """Answer a logout; True if the connection ends with it."""
        if request.reason == LogoutReason.REMOVE_FOR_RECOVERY:
            self._core.reply_logout(request, LogoutResponseCode.RECOVERY_NOT_SUPPORTED)
            return False
        self._core.reply_logout(request, LogoutResponseCode.SUCCESS)
        self._flush()
        return True

    # ---------------------------------------------------------------- sending, ending

    def _flush(self) -> None:
        output, self._core.output = self._core.output, []
        try:
            self._send(output)
        except OSError as error:
            if error.errno == errno.EFAULT:
                # A mapped page could not be read, and its header is already gone. The initiator
                # will retry on a new connection; by then the units read with preadv and say so.
                for task_set in list(self._task_sets.values()):
                    task_set.unit.distrust_map()
            raise

    def _send(self, buffers: list[Buffer]) -> None:
        while buffers:
            batch = buffers[:_IOV_MAX]
            sent = self._socket.sendmsg(batch)
            if sent == sum(map(len, batch)):
                buffers = buffers[_IOV_MAX:]
                continue
            for at, buffer in enumerate(batch):
                if sent < len(buffer):
                    buffers = [memoryview(buffer)[sent:], *buffers[at + 1 :]]
                    break
                sent -= len(buffer)

    def _end(self) -> None:
        """Settle the commands, close the socket, end the session."""
        try:
            self._settle()
        finally:
            self._socket.close()
            if self.session is not None:
                self.session.target.remove(self.session)
            with self._closing:
                self._ended = True
                os.close(self._wake)
            self._on_end(self)

    def _settle(self) -> None:
        if self._nexus is _NOBODY:
            return
        by_unit: dict[TaskSet, list[Job]] = {}
        for task in self._core.tasks.values():
            if task.owner is not None:
                task_set, job = task.owner
                by_unit.setdefault(task_set, []).append(job)
        for task_set, jobs in by_unit.items():
            settled = Event()
            task_set.abort(jobs, settled.set)
            settled.wait()
