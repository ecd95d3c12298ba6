"""A connection: one blocking thread that moves bytes between a socket, the protocol core and units.

No protocol decision is made here. The thread receives, runs what may run inline, and answers the
whole batch with one `sendmsg`. Commands that can block run elsewhere (`task_set`); their replies
come back through a mailbox, and only while such commands are out, or while nothing has been heard
for a moment, does the thread poll.
"""

import errno
import logging
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from threading import Event, Lock, Thread, current_thread
from typing import Protocol

from serverfree.iscsi import text
from serverfree.iscsi.chap import Account
from serverfree.iscsi.codes import (
    AsyncEvent,
    LoginStatus,
    LogoutReason,
    LogoutResponseCode,
    Opcode,
    RejectReason,
    TaskAttribute,
    TaskFunction,
    TaskResponse,
)
from serverfree.iscsi.errors import LoginFailure, ProtocolError
from serverfree.iscsi.framing import Receiver
from serverfree.iscsi.login import LOGIN_SEGMENT, TargetLogin, TargetPolicy
from serverfree.iscsi.pdu import Buffer, LoginRequest, LogoutRequest, TextRequest
from serverfree.iscsi.pdu import TaskManagementRequest as TmfRequest
from serverfree.iscsi.target import OFFER, QUEUE_DEPTH, TargetConnection
from serverfree.iscsi.task import BIDIRECTIONAL, Task
from serverfree.scsi.sense import Asc, Sense, SenseKey
from serverfree.scsi.status import Status
from serverfree.target.reception import Reception
from serverfree.target.session import Session, Target
from serverfree.target.task_management import manage
from serverfree.target.task_set import Job, TaskSet
from serverfree.target.units.command import Command, Lane, Nexus, Reply

log = logging.getLogger(__name__)

SEND_TIMEOUT = 60  # seconds in which a peer takes nothing of what it asked for
_IOV_MAX = 1024  # buffers one sendmsg takes; Linux UIO_MAXIOV
# A batch is sent early at these marks: answers must not pile up in memory behind a slow reader.
_MANY_BUFFERS = 512
_LARGE_REPLY = 256 << 10
_READ = 0x40
_ATTRIBUTE = 0x07  # of the command's flags
_NO_SUCH_ATTRIBUTE = Reply(
    status=Status.CHECK_CONDITION, sense=Sense(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_MESSAGE_ERROR)
)
_DOZE = 0.25  # seconds of silence after which a connection's thread can be woken
_GRACE = 1.0  # seconds to wait for data that a task asked for before it was aborted
_MAX_MANAGING = 64  # task management requests under way
_DISCOVERY_TSIH = 1  # any but 0: nobody can add to a discovery session
_NOBODY = Nexus("", "")


class Entrance(Protocol):
    """What a connection needs of the portal that let it in. Refusals are LoginFailure."""

    group_tag: int  # of the portal group

    @property
    def login_timeout(self) -> int:
        """Seconds that a login may take."""

    @property
    def ping(self) -> tuple[float, float]:
        """Seconds of silence before a ping, 0: never; and those that its answer may take."""

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
        self._reception = Reception(sock, self._receiver)
        self._core: TargetConnection
        self._task_sets: dict[int, TaskSet] = {}
        self._nexus = _NOBODY
        self._missing: TaskSet | None = None
        self._out = 0  # commands that run elsewhere
        self._mailbox: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closing = Lock()  # `_wake` must not be written to once it is closed
        self._open = False  # in full feature phase: the mailbox is looked into
        self._working = False  # commands may begin; else the mailbox is looked into before one does
        self._over = False
        self._pinged = False
        self._after: Callable[[], None] | None = None  # of the latest reply
        self._managing = 0  # task management requests under way
        self._abandoned: dict[Task, Callable[[], None]] = {}  # aborted, their data still comes
        self._grace_ends = 0.0
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

    def ask_to_leave(self, seconds: int) -> bool:
        """Ask the initiator to log out within so many seconds; tell if there is one to ask."""
        return self._post(lambda: self._core.tell(AsyncEvent.LOGOUT_REQUEST, 0, 0, seconds))

    def join(self, timeout: float) -> None:
        """Wait for the connection to end."""
        self._thread.join(timeout)

    # ---------------------------------------------------------------- the thread

    def _run(self) -> None:
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _detect_dead_hosts(self._socket)
            self._set_timeout(socket.SO_SNDTIMEO, SEND_TIMEOUT)
            self._set_timeout(socket.SO_RCVTIMEO, self.entrance.login_timeout)
            login = self._login()
            if login is not None:
                self._set_timeout(socket.SO_RCVTIMEO, _DOZE)
                self._core = TargetConnection(
                    self._receiver, login.parameters, login.cmd_sn, login.stat_sn
                )
                self._open = True
                self._serve()
        except ProtocolError as error:
            log.warning("%s: connection ends: %s", self._peer, error)
        except OSError as error:
            log.info("%s: connection ends: %s", self._peer, error)
        except Exception:
            log.exception("%s: connection ends by a fault of ours", self._peer)
        finally:
            self._end()

    def _set_timeout(self, option: int, seconds: float) -> None:
        # The kernel's own time-outs: Python's would cost a poll before every receive.
        microseconds = int(seconds * 1_000_000)
        packed = struct.pack("ll", *divmod(microseconds, 1_000_000))
        self._socket.setsockopt(socket.SOL_SOCKET, option, packed)

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
        # Whoever sends a byte now and then would never run into the time-out of a receive.
        deadline = time.monotonic() + self.entrance.login_timeout
        while not login.complete:
            raw = self._receiver.next_pdu()
            if raw is None:
                if not self._reception.receive():
                    return None
                if time.monotonic() > deadline:
                    raise ProtocolError("the login takes too long")
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
        dozing = False
        while True:
            # From here until it is set again, others may take what they post as done: in this
            # order, since a post that this look at the mailbox misses sees that nobody works.
            self._working = False
            if mailbox:
                readable = False
            elif self._out or self._abandoned or dozing:
                # Only now the thread polls, and so can be woken: when commands run elsewhere, or
                # when it has heard nothing for a moment. A busy connection never does.
                readable = self._wait(poll)
            else:
                readable = True
            if readable:
                try:
                    if not self._reception.receive():
                        return
                except BlockingIOError:  # nothing came for the time of SO_RCVTIMEO
                    dozing = True
                    continue
                dozing = self._pinged = False
            self._working = True
            while mailbox:
                mailbox.popleft()()
            for event in core.events():
                while mailbox:
                    mailbox.popleft()()
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
            if self._over:
                return
            if self._after is not None:
                after, self._after = self._after, None
                after()

    def _wait(self, poll: select.poll) -> bool:
        """Sleep until there is something to do; tell if the socket has something to read."""
        interval, timeout = self.entrance.ping
        patience = (timeout if self._pinged else interval) or None
        if self._abandoned:
            patience = max(0.0, self._grace_ends - time.monotonic())
        ready = [fd for fd, _ in poll.poll(None if patience is None else patience * 1000)]
        if self._wake in ready:
            os.eventfd_read(self._wake)
        if self._abandoned:
            if time.monotonic() >= self._grace_ends:
                for task in list(self._abandoned):  # 4.2.3.3 has no end to this wait, people have
                    self._gone(task)
        elif not ready and self._pinged:
            raise TimeoutError(f"no answer to a ping for {timeout} s")
        elif not ready:
            self._core.ping()
            self._pinged = True
            self._flush()
        return self._socket.fileno() in ready

    # ---------------------------------------------------------------- commands

    def _task(self, task: Task) -> None:
        task_set = self._task_sets.get(task.lun, self._missing)
        if task_set is None:  # a discovery session takes text and logout only (4.3)
            self._core.reject(RejectReason.PROTOCOL_ERROR, b"")
            return
        unit = task_set.unit
        if task.flags & BIDIRECTIONAL != _READ:
            if task.initiator_task_tag not in self._core.tasks:  # its first coming
                if task.unsound:  # or it was, and has been aborted since the last of its data came
                    return
                if not self._core.solicit(task, unit.data_out_length(task.cdb)):
                    return  # it comes again when its data is here
            elif task.unsound:  # it was aborted, and its data is through
                self._gone(task)
                return
        lane = unit.lane(task.cdb)
        attribute = task.flags & _ATTRIBUTE
        if lane is Lane.INLINE and attribute <= TaskAttribute.SIMPLE and not task_set.held:
            self._reply(task, unit.execute(self._command(task)))
        else:
            self._task_in_turn(task, task_set, lane, attribute)

    def _task_in_turn(self, task: Task, task_set: TaskSet, lane: Lane, attribute: int) -> None:
        """Run a command that takes long, has to wait, or must not (SAM-5 8.6)."""
        command = self._command(task)
        if attribute >= TaskAttribute.ACA:
            if attribute > TaskAttribute.ACA or task_set.unit.faulted != self._nexus:
                self._reply(task, _NO_SUCH_ATTRIBUTE)  # no ACA to belong to (SAM-5 8.6.6)
                return
            command.aca = True
            attribute = TaskAttribute.SIMPLE
        free = task_set.idle if attribute == TaskAttribute.ORDERED else not task_set.held
        first = attribute == TaskAttribute.HEAD_OF_QUEUE and not task_set.unit.ordered
        if lane is Lane.INLINE and (free or first):
            self._reply(task, task_set.unit.execute(command))
            return
        self._core.keep(task)
        command.data_out = task.data
        job = Job(
            command,
            lambda reply: self._post_end(task, job, reply),
            attribute or TaskAttribute.SIMPLE,
            lane,
        )
        task.owner = (task_set, job)
        self._out += 1
        task_set.submit(job)

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
        self._after = reply.after

    def _finish(self, task: Task, job: Job, reply: Reply | None) -> None:
        self._out -= 1
        if reply is None or job.command.aborted:
            self._core.drop(task)
        else:
            self._reply(task, reply)

    def _post_end(self, task: Task, job: Job, reply: Reply | None) -> None:
        self._post(lambda: self._finish(task, job, reply))

    def _post(self, action: Callable[[], None]) -> bool:
        """Have this connection's thread do something soon, from any thread; False: it has ended."""
        with self._closing:
            if self._open:
                self._mailbox.append(action)
                os.eventfd_write(self._wake, 1)
            return self._open

    # ---------------------------------------------------------------- other requests

    def _task_management(self, request: TmfRequest) -> None:
        session = self.session
        if session is None:  # in discovery there is nothing to manage (4.3)
            self._core.reject(RejectReason.PROTOCOL_ERROR, b"")
        elif request.function == TaskFunction.ABORT_TASK:
            self._abort_task(request)
        elif self._managing >= _MAX_MANAGING:
            self._core.reject(RejectReason.IMMEDIATE_COMMAND_REJECT, b"")
        else:
            manage(session, request.function, request.lun, self._answer_later(request))

    def _abort_task(self, request: TmfRequest) -> None:
        """End one command: its data is not waited for, it goes nowhere when it comes (11.5)."""
        answer = self._core.reply_task_management
        task = self._core.tasks.get(request.referenced_task_tag)
        if task is None and self._core.take_as_received(request):
            answer(request, TaskResponse.FUNCTION_COMPLETE)
        elif (
            task is None
            or task in self._abandoned
            or self._task_sets.get(task.lun) is not self._task_sets.get(request.lun)
        ):
            answer(request, TaskResponse.TASK_DOES_NOT_EXIST)
        elif task.owner is None:  # its data is still to come
            self._core.drop(task)
            answer(request, TaskResponse.FUNCTION_COMPLETE)
        else:
            task_set, job = task.owner
            later = self._answer_later(request)
            task_set.abort([job], lambda: later(TaskResponse.FUNCTION_COMPLETE))

    def _answer_later(self, request: TmfRequest) -> Callable[[TaskResponse], None]:
        """Return what answers the request once its commands have ended; callable by any thread."""
        self._out += 1  # poll until then
        self._managing += 1

        def answer(response: TaskResponse) -> None:
            self._out -= 1
            self._managing -= 1
            self._core.reply_task_management(request, response)

        def post(response: TaskResponse) -> None:
            self._post(lambda: answer(response))

        return post

    def forget(
        self,
        task_sets: Collection[TaskSet],
        *,
        quiet: Callable[[], None],
        told: Callable[[TaskSet, Nexus], None] = lambda task_set, nexus: None,
        through: Callable[[], Callable[[], None]] | None = None,
    ) -> None:
        """See Link."""

        def drop() -> None:
            for task in list(self._core.tasks.values()):
                task_set = self._task_sets.get(task.lun)
                if task.owner is None and task not in self._abandoned and task_set in task_sets:
                    assert task_set is not None
                    told(task_set, self._nexus)
                    if through is None:
                        self._core.drop(task)
                    else:
                        self._abandon(task, through())

        if current_thread() is self._thread:
            drop()
            quiet()
            return
        once = [quiet]

        def say() -> None:
            try:
                first = once.pop()
            except IndexError:  # it has been said
                return
            first()

        def drop_and_say() -> None:
            drop()
            say()

        if not self._post(drop_and_say) or not self._working:
            say()

    def _abandon(self, task: Task, through: Callable[[], None]) -> None:
        if self._core.abandon(task):
            through()
        else:
            self._abandoned[task] = through
            self._grace_ends = time.monotonic() + _GRACE

    def _gone(self, task: Task) -> None:
        """An aborted task has had the data that it asked for, or has waited for it long enough."""
        self._core.drop(task)
        through = self._abandoned.pop(task, None)
        if through is not None:
            through()

    def end_session(self) -> None:
        """See Link."""

        def end() -> None:
            # Time2Wait 0: come again at once; Time2Retain 0: nothing is kept (11.9.1).
            self._core.tell(AsyncEvent.SESSION_DROP)
            self._over = True

        self._post(end)

    def tell_luns_changed(self) -> None:
        """See Link."""
        sense = Sense(SenseKey.UNIT_ATTENTION, Asc.REPORTED_LUNS_DATA_HAS_CHANGED).pack()
        self._post(lambda: self._core.tell(AsyncEvent.SCSI_EVENT, data=sense))

    def _text(self, request: TextRequest) -> None:
        answers: list[text.Pair] = []
        listing = b""
        try:
            pairs = text.unpack(bytes(request.data))
            for key, value in pairs:
                if key == "SendTargets":
                    listing += self.entrance.send_targets(self, value)
            answers = self._core.negotiate([pair for pair in pairs if pair[0] != "SendTargets"])
        except ProtocolError:
            self._core.reject(RejectReason.PROTOCOL_ERROR, b"")
            return
        self._core.reply_text(request, listing + text.pack(answers))

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
        self._working = False  # the peer may take its time; nothing begins meanwhile
        try:
            self._send(output)
        except OSError as error:
            if error.errno == errno.EFAULT:
                # A mapped page could not be read, and its header is already gone. The initiator
                # will retry on a new connection; by then the units read with preadv and say so.
                for task_set in set(self._task_sets.values()):
                    task_set.unit.distrust_map()
            raise
        finally:
            self._working = True

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
                self.session.target.remove(self.session, self)
            with self._closing:
                self._open = self._working = False
                os.close(self._wake)
            # What others wait for is done now, if only because there is nothing left to do.
            while self._mailbox:
                self._mailbox.popleft()()
            for task in list(self._abandoned):
                self._gone(task)
            self._on_end(self)

    def _settle(self) -> None:
        if not self._open:
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


def _detect_dead_hosts(sock: socket.socket) -> None:
    """Have the kernel find out within a minute that the other machine is gone."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
