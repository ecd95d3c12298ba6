"""A session with a target: log in, then reach its logical units, from as many threads as you like.

Whoever waits for a command moves the bytes of all, and hands over to the next waiting thread when
its own command has ended. While nobody waits nobody listens, unless the session is attended: a
thread then looks now and then whether the target wants something.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from serverfree.initiator.connection import Connection, Timing
from serverfree.iscsi.chap import OFFERED, Algorithm, Credentials
from serverfree.iscsi.codes import LogoutReason, TaskFunction, TaskResponse
from serverfree.iscsi.errors import DataDigestError, LoginFailure, ProtocolError, SessionLost
from serverfree.iscsi.initiator import InitiatorConnection
from serverfree.iscsi.login import InitiatorLogin, Redirected
from serverfree.iscsi.names import DiscoveredTarget, Portal, Url, parse_send_targets
from serverfree.iscsi.negotiation import Offer
from serverfree.iscsi.request import Ping, Request, Task
from serverfree.scsi.cdb.primary import ReportLuns
from serverfree.scsi.device import Buffer, Order, Result, execute_in
from serverfree.scsi.luns import lun_list_length, pack_lun, unpack_lun_list

DEFAULT_INITIATOR_NAME = "iqn.2026-11.com.example:initiator"
_MAX_REDIRECTS = 4
_MANAGEMENT = 30.0  # seconds for a task management function that a copy waits for


class CommandTimeout(Exception):
    """A command has not ended in the time its caller gave it; it is still under way."""


def _lun_field(lun: int) -> int:
    """Return the LUN field of a PDU as one number."""
    return int.from_bytes(pack_lun(lun), "big")


def random_isid() -> bytes:
    """Return an ISID of the random kind (RFC 7143 11.12.5, T=10b): one per session."""
    return b"\x80" + os.urandom(3) + b"\0\0"


class Session:
    """One login at a target, over one connection.

    `target_name` None opens a discovery session. Raises LoginFailure where the target refuses and
    SessionLost where it cannot be reached; a redirection is followed. With `credentials` CHAP is
    offered, with `mutual` the target has to prove itself too. Digests are a matter of `offer`. When
    the connection is lost, every command under way and every later one raises SessionLost: log in
    anew. An `attended` session answers the target's pings also while its program has nothing to
    ask for a long time; it needs a `close`. One with the `isid` of another at the same target port
    takes its place.

    `bytes_sent` and `bytes_received` count everything at the socket, login and all.
    """

    def __init__(
        self,
        host: str,
        port: int,
        target_name: str | None,
        initiator_name: str = DEFAULT_INITIATOR_NAME,
        *,
        offer: Offer | None = None,
        timing: Timing | None = None,
        credentials: Credentials | None = None,
        mutual: Credentials | None = None,
        algorithms: Sequence[Algorithm] = OFFERED,
        attended: bool = False,
        isid: bytes | None = None,
    ) -> None:
        self.portal = Portal(host, port)
        self.target_name = target_name
        self.initiator_name = initiator_name
        self.isid = isid or random_isid()
        self._timing = timing or Timing()
        self._sent_before = self._received_before = 0
        self._connection, login = self._log_in(
            partial(
                InitiatorLogin,
                initiator_name,
                target_name,
                offer=offer,
                credentials=credentials,
                mutual=mutual,
                algorithms=algorithms,
            )
        )
        self.parameters = login.parameters
        self.target_alias = login.target_alias
        self._core = InitiatorConnection(self._connection.receiver, login)
        self._lost: SessionLost | None = None
        # Guards the core and the socket, but is not held while the driver sleeps in poll.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._driving = False
        self._heard = time.monotonic()
        self._ping: Ping | None = None
        self._over = threading.Event()
        if attended:
            name = f"attends {self.portal}"
            threading.Thread(target=self._attend, name=name, daemon=True).start()

    def _log_in(
        self, new_login: Callable[..., InitiatorLogin]
    ) -> tuple[Connection, InitiatorLogin]:
        for _ in range(_MAX_REDIRECTS + 1):
            login = new_login(isid=self.isid)
            connection = Connection(self.portal, self._timing)
            try:
                connection.login(login)
                return connection, login
            except Redirected as redirected:
                self._retire(connection)
                self.portal = redirected.address
            except LoginFailure as failure:
                self._retire(connection)
                named = f"{self.target_name or 'discovery'} at {self.portal}"
                raise LoginFailure(failure.status, f"{named}: {failure}") from failure
            except BaseException as error:
                self._retire(connection)
                if isinstance(error, ProtocolError) and not isinstance(error, SessionLost):
                    error.add_note(str(self.portal))
                raise
        raise SessionLost(f"{self.portal}: redirected {_MAX_REDIRECTS} times")

    def _retire(self, connection: Connection) -> None:
        """Close a connection; what it moved still counts."""
        self._sent_before += connection.bytes_sent
        self._received_before += connection.bytes_received
        connection.close()

    @property
    def bytes_sent(self) -> int:
        return self._sent_before + self._connection.bytes_sent

    @property
    def bytes_received(self) -> int:
        return self._received_before + self._connection.bytes_received

    # ------------------------------------------------------------------ what it is for

    def unit(self, lun: int) -> "LogicalUnit":
        """Return the logical unit with this number; nothing is asked of the target."""
        return LogicalUnit(self, lun)

    def report_luns(self) -> list[int]:
        """Return the numbers of the target's logical units, ascending (REPORT LUNS, LUN 0).

        LUNs of more than one level have no number and are left out.
        """
        length = 16 + 8 * 256
        while True:
            cdb = ReportLuns(allocation_length=length).pack()
            data = execute_in(self.unit(0), cdb, length)
            if lun_list_length(data) <= length:
                return sorted(unpack_lun_list(data))
            length = lun_list_length(data)

    def send_targets(self) -> list[DiscoveredTarget]:
        """Ask for the targets that this portal knows (SendTargets=All, RFC 7143 Appendix C)."""
        with self._lock:
            self._check_open()
            exchange = self._core.text([("SendTargets", "All")])
            self._begin()
        self._wait(exchange)
        return parse_send_targets(exchange.pairs)

    def ping(self) -> float:
        """Return the seconds that the target takes to echo a NOP-Out."""
        started = time.monotonic()
        with self._lock:
            self._check_open()
            ping = self._core.ping(b"ping")
            self._begin()
        self._wait(ping)
        if ping.echo != b"ping":
            raise ProtocolError(f"{self.portal}: the echo of a ping differs")
        return time.monotonic() - started

    def reset_unit(self, lun: int) -> TaskResponse:
        """LOGICAL UNIT RESET; commands to that unit end with TASK ABORTED."""
        return self._manage(TaskFunction.LOGICAL_UNIT_RESET, _lun_field(lun), None)

    def close(self) -> None:
        """Log out and let go of the connection; commands under way end with SessionLost."""
        with self._lock:
            if self._lost is not None:
                return
            logout = self._core.logout(LogoutReason.CLOSE_SESSION)
            with contextlib.suppress(SessionLost):
                self._begin()
        # A target that does not answer a logout is left without it.
        with contextlib.suppress(ProtocolError, CommandTimeout):
            self._wait(logout, self._timing.logout)
        with self._lock:
            self._fail(SessionLost(f"{self.portal}: the session is closed"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # ------------------------------------------------------------------ commands

    def _submit(
        self,
        lun: int,
        cdb: bytes,
        data_out: Buffer | Sequence[Buffer],
        data_in: memoryview | None,
        *,
        at_once: bool = True,
    ) -> Task:
        with self._lock:
            self._check_open()
            task = self._core.command(lun, cdb, data_out, data_in)
            if at_once:
                self._begin()
            return task

    def _submit_all(self, lun: int, commands: Sequence[Order]) -> list[Task]:
        with self._lock:
            self._check_open()
            command = self._core.command
            tasks = [command(lun, cdb, data_out, data_in) for cdb, data_out, data_in in commands]
            self._begin()
            return tasks

    def flush(self) -> None:
        """Send what has been enqueued; whoever waits for it learns if the session is lost."""
        with self._lock, contextlib.suppress(SessionLost):
            if self._lost is None:
                self._begin()

    def _manage(
        self, function: TaskFunction, lun: int, task: Task | None, timeout: float | None = None
    ) -> TaskResponse:
        with self._lock:
            self._check_open()
            management = self._core.task_management(function, lun, task)
            self._begin()
        try:
            self._wait(management, timeout)
        except CommandTimeout:
            text = f"{self.portal}: no answer within {timeout:g} s to {function.name}"
            with self._lock:
                self._fail(SessionLost(text))
            raise SessionLost(text) from None
        return management.response

    def _check_open(self) -> None:
        """Refuse what comes too late; the lock is held. Silence counts from the first request."""
        if self._lost is not None:
            raise SessionLost(str(self._lost))
        if not self._core.tasks:
            self._heard = time.monotonic()

    # ------------------------------------------------------------------ moving the bytes

    def _begin(self) -> None:
        """Start sending what has just been asked; the lock is held."""
        try:
            self._flush()
        except SessionLost as error:
            self._fail(error)
            raise
        if self._driving and self._connection.unsent:
            self._connection.wake()

    def _flush(self) -> None:
        """Give the socket what there is to send, as far as it takes it; the lock is held."""
        connection, core = self._connection, self._core
        try:
            if connection.unsent and not connection.send():
                return
            while core.has_output and connection.send(core.take_output()):
                pass
        except ProtocolError:
            raise
        except BaseException:
            self._interrupted()
            raise

    def _wait(self, request: Request, timeout: float | None = None) -> None:
        """Return when the request has ended; raise its failure, or CommandTimeout."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not request.done:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise CommandTimeout(f"{self.portal}: no end within {timeout:g} s")
                if self._driving:
                    if self._core.has_output and not self._connection.unsent:
                        self._begin()  # what was enqueued: the driver may sleep
                    self._changed.wait(left)
                else:
                    self._drive(request, deadline)
        if request.failure is not None:
            raise request.failure

    def _drive(self, request: Request, deadline: float | None) -> None:
        """Move bytes until the request has ended or the deadline has come; the lock is held."""
        self._driving = True
        try:
            while not request.done and (deadline is None or time.monotonic() < deadline):
                self._step(deadline)
            if self._core.has_output:  # the answer to a ping that came beside the end
                self._flush()
        except ProtocolError as error:
            self._fail(self._loss(error))
        finally:
            self._driving = False
            if self._lost is not None:
                self._connection.close()
            # Whoever waits next takes over.
            self._changed.notify_all()

    def _step(self, deadline: float | None) -> None:
        self._flush()
        timeout = self._timing.ping
        if deadline is not None:
            timeout = min(timeout, deadline - time.monotonic())
        self._lock.release()
        try:
            ready = self._connection.wait(timeout=timeout)
        finally:
            self._lock.acquire()
        if self._lost is not None:
            raise self._lost
        if not ready or not self._take_in():
            self._mind_silence()

    def _attend(self) -> None:
        """Look after the session, in a thread of its own, until it is over."""
        while not self._over.wait(self._timing.attend):
            with self._lock:
                if self._lost is None and not self._driving:
                    self._look_after()

    def _look_after(self) -> None:
        """Take in and answer what has come while nobody waits for anything; the lock is held."""
        try:
            while self._take_in():
                pass
            self._flush()
        except ProtocolError as error:
            self._fail(self._loss(error))

    def _take_in(self) -> bool:
        """Receive and look at what has come; tell if anything had."""
        try:
            if not self._connection.receive():
                return False
            self._heard = time.monotonic()
            if self._core.process():
                self._changed.notify_all()
            if self._core.logout_requested:
                raise SessionLost(f"{self.portal}: the target asked us to log out")
        except ProtocolError:
            raise
        except BaseException:
            self._interrupted()
            raise
        return True

    def _interrupted(self) -> None:
        """Give the session up: nobody knows which bytes an interrupt (Ctrl-C) has cost.

        While we sleep it costs none, and the session goes on.
        """
        self._fail(SessionLost(f"{self.portal}: interrupted while bytes were moving"))

    def _mind_silence(self) -> None:
        """Ask a silent target for a sign of life, and give it up in the end."""
        silent = time.monotonic() - self._heard
        if silent >= self._timing.silence:
            raise SessionLost(f"{self.portal}: no sign of life for {silent:.0f} s")
        if silent >= self._timing.ping and (self._ping is None or self._ping.done):
            self._ping = self._core.ping()

    def _loss(self, error: ProtocolError) -> SessionLost:
        if isinstance(error, SessionLost):
            return error
        if isinstance(error, DataDigestError):  # at ErrorRecoveryLevel 0 nothing is sent again
            return SessionLost(f"{self.portal}: data was damaged on its way: {error}")
        return SessionLost(f"{self.portal}: the target broke the protocol: {error}")

    def _fail(self, error: SessionLost) -> None:
        """The session is over; the lock is held."""
        if self._lost is None:
            self._lost = error
            self._over.set()
            self._core.fail_all(error)
            # A driver may sleep on the descriptor: it is woken, and closes it on its way out.
            self._connection.shut_down()
            if not self._driving:
                self._connection.close()
            self._changed.notify_all()


class PendingCommand:
    """A command under way at a logical unit."""

    __slots__ = ("_session", "task")

    def __init__(self, session: Session, task: Task) -> None:
        self._session = session
        self.task = task

    @property
    def done(self) -> bool:
        """Whether it has ended, as far as anyone has looked."""
        return self.task.done

    def wait(self, timeout: float | None = None) -> Result:
        """Return how the command ended. Raises SessionLost, or CommandTimeout if time is up."""
        task = self.task
        if not task.done or task.failure is not None:
            self._session._wait(task, timeout)
        assert task.result is not None
        return task.result

    def abort(self, timeout: float | None = None) -> TaskResponse:
        """ABORT TASK; if the target does it, the command ends with status TASK ABORTED.

        A target that does not answer in so many seconds is given up, which is SessionLost: when it
        hears of that, the end of the session ends the command too.
        """
        return self._session._manage(TaskFunction.ABORT_TASK, self.task.lun, self.task, timeout)


class PendingCommands:
    """Commands sent together to a logical unit."""

    __slots__ = ("_session", "_tasks")

    def __init__(self, session: Session, tasks: list[Task]) -> None:
        self._session = session
        self._tasks = tasks

    def wait(self, timeout: float | None = None) -> list[Result | None]:
        """Return how each has ended, None where the target will never say.

        Raises CommandTimeout if not all have ended in time.
        """
        # They mostly end in the order sent: whoever has waited for the last has them all.
        for task in reversed(self._tasks):
            if not task.done:
                with contextlib.suppress(ProtocolError):
                    self._session._wait(task, timeout)
        return [task.result for task in self._tasks]


class LogicalUnit:
    """A logical unit of the target: a `serverfree.scsi.device.Device`."""

    def __init__(self, session: Session, lun: int) -> None:
        self.session = session
        self.lun = lun
        self._lun_field = _lun_field(lun)

    def __str__(self) -> str:
        """Its URL."""
        portal = self.session.portal
        return str(Url(portal.host, portal.port, self.session.target_name or "", self.lun))

    def submit(
        self,
        cdb: bytes,
        *,
        data_out: Buffer | Sequence[Buffer] = b"",
        data_in: memoryview | None = None,
    ) -> PendingCommand:
        """Send a command and return at once. Raises SessionLost."""
        return PendingCommand(
            self.session, self.session._submit(self._lun_field, cdb, data_out, data_in)
        )

    def enqueue(
        self,
        cdb: bytes,
        *,
        data_out: Buffer | Sequence[Buffer] = b"",
        data_in: memoryview | None = None,
    ) -> PendingCommand:
        """Have a command sent with the next one, with the next wait, or by `Session.flush`.

        Many small commands travel together then, at a fraction of the cost.
        """
        return PendingCommand(
            self.session,
            self.session._submit(self._lun_field, cdb, data_out, data_in, at_once=False),
        )

    def clear_allegiance(self) -> bool:
        """End an ACA condition of ours, after everything that is under way here (SAM-5 5.9.2.6).

        Return whether the target has done so. Raises SessionLost.
        """
        manage, lun = self.session._manage, self._lun_field
        manage(TaskFunction.ABORT_TASK_SET, lun, None, _MANAGEMENT)
        cleared = manage(TaskFunction.CLEAR_ACA, lun, None, _MANAGEMENT)
        return cleared is TaskResponse.FUNCTION_COMPLETE

    def submit_all(self, commands: Sequence[Order]) -> PendingCommands:
        """Send commands together and return at once. Raises SessionLost."""
        return PendingCommands(self.session, self.session._submit_all(self._lun_field, commands))
