"""The initiator's side of a connection in full feature phase, without I/O (RFC 7143 4, 7, 11).

Requests go in through the methods, `take_output` gives what to send as a list of buffers, bytes
received come in through the `Receiver`, and `process` says which requests have ended. Data is
never joined or copied on the way out; on the way in large segments are received straight into
the memory of the command that asked for them. One thread at a time.

A peer that breaks the protocol raises ProtocolError: at ErrorRecoveryLevel 0 that is the end of
the connection.
"""

from collections import deque
from collections.abc import Callable, Sequence
from struct import Struct

from serverfree.iscsi.codes import (
    FINAL,
    NO_TAG,
    AsyncEvent,
    CommandFlag,
    Opcode,
    RejectReason,
    ResidualFlag,
    Response,
    TaskAttribute,
    TaskFunction,
    TaskResponse,
)
from serverfree.iscsi.errors import ProtocolError, RejectPdu, SessionLost
from serverfree.iscsi.framing import RawPdu, Receiver, Sender
from serverfree.iscsi.login import InitiatorLogin
from serverfree.iscsi.pdu import (
    R2T,
    AsyncMessage,
    DataIn,
    DataOut,
    LogoutRequest,
    LogoutResponse,
    NopIn,
    NopOut,
    Reject,
    ScsiCommand,
    ScsiResponse,
    TaskManagementRequest,
    TaskManagementResponse,
    TextRequest,
    TextResponse,
)
from serverfree.iscsi.request import (
    Burst,
    Gather,
    Logout,
    Ping,
    Request,
    Task,
    TaskManagement,
    TextExchange,
)
from serverfree.iscsi.text import Pair, pack
from serverfree.scsi.device import Buffer, Result
from serverfree.scsi.sense import Sense
from serverfree.scsi.status import Status

__all__ = ["InitiatorConnection", "Request", "Task"]

# One sendmsg takes at most IOV_MAX (1024) buffers; beyond 4 MiB a call gains nothing.
MAX_OUTPUT_BUFFERS = 512
_MAX_OUTPUT_BYTES = 4 << 20
# Answers to the target's pings that may wait to be sent: a target that does not read what it asks
# for is not heard any longer.
_MAX_PINGS = 256

# Plain numbers where every command passes: an operation on an enum member costs a microsecond.
_SIMPLE = int(FINAL | TaskAttribute.SIMPLE)
_READ, _WRITE = int(CommandFlag.READ), int(CommandFlag.WRITE)
_HAS_STATUS, _UNDERFLOW = int(ResidualFlag.STATUS), int(ResidualFlag.UNDERFLOW)
_STATUS = {int(status): status for status in Status}

_COMMAND_OPCODE, _COMPLETED = int(Opcode.SCSI_COMMAND), int(Response.COMPLETED)

# Numbers in sequence (RFC 1982): `b - a & _MASK <= _MOST_AHEAD` where b is a or comes after it.
_MASK = 0xFFFFFFFF
_MOST_AHEAD = 0x7FFFFFFF

_CDB_LENGTH = 16  # of a CDB in the header; the rest goes into an additional one
_WINDOW = Struct(">II")  # ExpCmdSN, MaxCmdSN: bytes 28-35 of every target PDU
_SCSI_COMMAND, _SCSI_RESPONSE = ScsiCommand.LAYOUT, ScsiResponse.LAYOUT
_TAG = Struct(">I")
_SENSE_LENGTH = Struct(">H")
_DATA_IN = DataIn.LAYOUT
_OFFSET = Struct(">I")


class InitiatorConnection:
    """The connection that a completed login has opened.

    `receiver` is the one that login used. `tasks` holds what is under way by task tag; commands
    for which the CmdSN window is closed wait in line and are not in it yet.
    """

    def __init__(self, receiver: Receiver, login: InitiatorLogin) -> None:
        self.parameters = parameters = login.parameters
        self.tasks: dict[int, Request] = {}
        self.logout_requested = False  # the target has asked us to log out (11.9.1)
        self._receiver = receiver
        receiver.max_data_segment_length = parameters.max_recv_data_segment_length
        receiver.place = self._place
        header = parameters.header_digest == "CRC32C"
        data = parameters.data_digest == "CRC32C"
        receiver.expect_digests(header=header, data=data)
        self._sender = Sender(header=header, data=data)
        # Bytes that go with a command, and that are sent behind it without being asked for.
        self._unsolicited = 0 if parameters.initial_r2t else parameters.first_burst_length
        self._immediate = 0
        if parameters.immediate_data:
            self._immediate = min(
                parameters.first_burst_length, parameters.max_send_data_segment_length
            )
        self._cid = login.cid
        self._cmd_sn = login.cmd_sn
        self._exp_stat_sn = login.exp_stat_sn
        self._max_cmd_sn = login.max_cmd_sn
        self._next_tag = 1
        self._waiting: deque[Task] = deque()
        self._bursts: deque[Burst] = deque()
        self._output: list[Buffer] = []
        self._pings = 0
        self._finished: list[Request] = []

    # ------------------------------------------------------------------ requests

    def command(
        self,
        lun: int,
        cdb: bytes,
        data_out: Buffer | Sequence[Buffer] = b"",
        data_in: memoryview | None = None,
    ) -> Task:
        """Send a command to the 8-byte LUN, as soon as the CmdSN window is open.

        Data goes one way: `data_out` as it lies, or `data_in` to be filled, not both.
        """
        gather = Gather(data_out)
        if gather.length and data_in is not None:
            raise ValueError("bidirectional commands are not supported")
        if data_in is not None and data_in.format != "B":
            data_in = data_in.cast("B")
        task = Task(lun, cdb, gather if gather.length else None, data_in)
        # Not `_window_open`, nor `distance`: every command passes here.
        if self._waiting or self._max_cmd_sn - self._cmd_sn & _MASK > _MOST_AHEAD:
            self._waiting.append(task)
        else:
            self._send_command(task)
        return task

    def ping(self, data: bytes = b"") -> Ping:
        """Ask for a sign of life (11.18): an immediate NOP-Out that the target must echo."""
        ping = Ping()
        nop = NopOut(0, self._tag(ping), NO_TAG, self._cmd_sn, self._exp_stat_sn, True, data)
        self._put(nop.pack(), data)
        return ping

    def text(self, pairs: Sequence[Pair]) -> TextExchange:
        """Send a text request (11.10): SendTargets, or keys that may change any time."""
        exchange = TextExchange()
        data = pack(pairs)
        if len(data) > self.parameters.max_send_data_segment_length:
            raise ValueError("a text request of several PDUs is not supported")
        self._put(self._text_request(self._tag(exchange), NO_TAG, data), data)
        return exchange

    def task_management(
        self, function: TaskFunction, lun: int = 0, task: Task | None = None
    ) -> TaskManagement:
        """Send an immediate task management request (11.5); `task` is the one to ABORT.

        Tasks that the function ends are finished, with status TASK ABORTED, when the target says
        that it is complete; until then their data may still arrive.
        """
        management = TaskManagement(function, lun, task)
        if task is not None and task in self._waiting:
            self._waiting.remove(task)
            self._abort(task)
            management.response = TaskResponse.FUNCTION_COMPLETE
            self._finish(management)
            return management
        request = TaskManagementRequest(
            function,
            self._tag(management),
            lun if task is None else task.lun,
            NO_TAG if task is None else task.initiator_task_tag,
            self._cmd_sn,
            self._exp_stat_sn,
            0 if task is None else task.cmd_sn,
        )
        self._put(request.pack())
        return management

    def logout(self, reason: int = 0) -> Logout:
        """Ask to close the session (11.14); commands under way end without a status."""
        logout = Logout()
        tag = self._tag(logout)
        request = LogoutRequest(tag, reason, self._cid, self._cmd_sn, self._exp_stat_sn)
        self._put(request.pack())
        return logout

    # ------------------------------------------------------------------ output

    def take_output(self) -> list[Buffer]:
        """Return what to send next, in order; empty when there is nothing. It counts as sent.

        One call gives at most some 4 MiB or 512 buffers: with large writes there is more behind.
        """
        output = self._output
        room = _MAX_OUTPUT_BYTES - sum(map(len, output)) if self._bursts else 0
        while self._bursts and room > 0 and len(output) < MAX_OUTPUT_BUFFERS:
            room -= self._next_data_out(output)
        taken, self._output = output[:MAX_OUTPUT_BUFFERS], output[MAX_OUTPUT_BUFFERS:]
        self._pings = 0
        return taken

    @property
    def has_output(self) -> bool:
        return bool(self._output or self._bursts)

    def _next_data_out(self, output: list[Buffer]) -> int:
        """Put the next Data-Out PDU of the oldest burst into `output`; return its length."""
        burst = self._bursts[0]
        task = burst.task
        size = min(burst.end - burst.offset, self.parameters.max_send_data_segment_length)
        final = burst.offset + size == burst.end
        header = DataOut.LAYOUT.pack(
            Opcode.DATA_OUT,
            FINAL if final else 0,
            0,
            size,
            task.lun,
            task.initiator_task_tag,
            burst.target_transfer_tag,
            self._exp_stat_sn,
            burst.data_sn,
            burst.offset,
        )
        assert task.data_out is not None
        self._sender.put(output, header, task.data_out.cut(burst.offset, size), size)
        burst.offset += size
        burst.data_sn += 1
        if final:
            self._bursts.popleft()
            if burst.target_transfer_tag != NO_TAG:
                task.outstanding -= 1
        return size

    def _put(self, header: bytes, data: bytes = b"") -> None:
        self._sender.put(self._output, header, (data,), len(data))

    # ------------------------------------------------------------------ commands

    def _window_open(self) -> bool:
        return self._max_cmd_sn - self._cmd_sn & _MASK <= _MOST_AHEAD

    def _tag(self, request: Request) -> int:
        tag = self._next_tag
        while tag in self.tasks or tag == NO_TAG:
            tag = tag + 1 & 0xFFFFFFFF
        self._next_tag = tag + 1 & 0xFFFFFFFF
        request.initiator_task_tag = tag
        self.tasks[tag] = request
        return tag

    def _send_command(self, task: Task) -> None:
        """Put a command into the output with its immediate data, line up its unsolicited data."""
        tag = self._tag(task)
        task.cmd_sn = cmd_sn = self._cmd_sn
        self._cmd_sn = cmd_sn + 1 & _MASK
        flags = _SIMPLE
        length, data_out = task.length, task.data_out
        immediate = unsolicited = 0
        if data_out is not None:
            flags |= _WRITE
            immediate = length if length < self._immediate else self._immediate
            if immediate < length and immediate < self._unsolicited:
                unsolicited = min(length, self._unsolicited)
                flags &= ~FINAL
        elif task.data_in is not None:
            flags |= _READ
        cdb = task.cdb
        ahs = task.additional_header() if len(cdb) > _CDB_LENGTH else b""
        header = _SCSI_COMMAND.pack(
            _COMMAND_OPCODE,
            flags,
            0,
            len(ahs) << 22 | immediate,
            task.lun,
            tag,
            length,
            cmd_sn,
            self._exp_stat_sn,
            cdb[:_CDB_LENGTH] if ahs else cdb,
        )
        if ahs:
            header += ahs
        parts = data_out.cut(0, immediate) if immediate and data_out else ()
        self._sender.put(self._output, header, parts, immediate)
        if unsolicited:
            self._bursts.append(Burst(task, NO_TAG, immediate, unsolicited))

    def _text_request(self, tag: int, target_transfer_tag: int, data: bytes) -> bytes:
        # Immediate, so that discovery and pings never wait for the window; the CmdSN then stays.
        return TextRequest(
            tag,
            target_transfer_tag,
            cmd_sn=self._cmd_sn,
            exp_stat_sn=self._exp_stat_sn,
            immediate=True,
            data=data,
        ).pack()

    # ------------------------------------------------------------------ input

    def process(self) -> list[Request]:
        """Read every complete PDU that has been received; return the requests that ended.

        Raises ProtocolError, or SessionLost when the target announces that it drops us.
        """
        next_pdu = self._receiver.next_pdu
        while (raw := next_pdu()) is not None:
            bhs = raw[0]
            opcode = bhs[0] & 0x3F
            self._take_numbers(bhs)
            if opcode == Opcode.DATA_IN:
                self._data_in(raw)
            else:
                handler = _HANDLERS.get(opcode)
                if handler is None:
                    raise ProtocolError(f"opcode {opcode:02X}h from a target")
                handler(self, raw)
        while self._waiting and self._window_open():
            self._send_command(self._waiting.popleft())
        finished, self._finished = self._finished, []
        return finished

    def fail_all(self, failure: ProtocolError) -> list[Request]:
        """End everything under way and in line: the connection is gone."""
        ended = [*self.tasks.values(), *self._waiting]
        self.tasks.clear()
        self._waiting.clear()
        self._bursts.clear()
        self._output.clear()
        for request in ended:
            request.failure = failure
            request.done = True
        return ended

    def _take_numbers(self, bhs: memoryview) -> None:
        """Move the CmdSN window (4.2.2.1)."""
        exp_cmd_sn, max_cmd_sn = _WINDOW.unpack_from(bhs, 28)
        if max_cmd_sn - exp_cmd_sn + 1 & _MASK > _MOST_AHEAD:
            return  # "ignored if MaxCmdSN < ExpCmdSN - 1"
        if max_cmd_sn - self._max_cmd_sn & _MASK <= _MOST_AHEAD:
            self._max_cmd_sn = max_cmd_sn

    def _take_status(self, stat_sn: int) -> None:
        """Acknowledge a response (4.2.2.2); it will go out as ExpStatSN."""
        if stat_sn - self._exp_stat_sn & _MASK <= _MOST_AHEAD:
            self._exp_stat_sn = stat_sn + 1 & _MASK

    def _task(self, tag: int) -> Task:
        task = self.tasks.get(tag)
        if not isinstance(task, Task):
            raise ProtocolError(f"PDU for task {tag:08X}h, which is not under way")
        return task

    def _finish(self, request: Request) -> None:
        self.tasks.pop(request.initiator_task_tag, None)
        request.done = True
        self._finished.append(request)

    def _place(self, bhs: memoryview, length: int) -> memoryview:
        """Name the memory for a segment that is still arriving."""
        if bhs[0] & 0x3F != Opcode.DATA_IN:
            return memoryview(bytearray(length))
        (tag,) = _TAG.unpack_from(bhs, 16)
        (offset,) = _OFFSET.unpack_from(bhs, 40)
        task = self._task(tag)
        memory = self._destination(task, offset, length)
        task.placed = True
        return memory

    def _destination(self, task: Task, offset: int, length: int) -> memoryview:
        """Return where a Data-In segment belongs.

        DataPDUInOrder and DataSequenceInOrder are Yes, so every segment begins where the one
        before it ended.
        """
        if task.data_in is None or offset != task.received or offset + length > task.length:
            raise ProtocolError(
                f"Data-In of {length} bytes at {offset}: {task.received} of {task.length} are here"
            )
        return task.data_in[offset : offset + length]

    def _data_in(self, raw: RawPdu) -> None:
        bhs, _, data = raw
        (_, flags, _, status, _, _, tag, _, stat_sn, _, _, _, offset, residual) = (
            _DATA_IN.unpack_from(bhs)
        )
        task = self._task(tag)
        if task.placed:
            task.placed = False
        else:
            self._destination(task, offset, len(data))[:] = data
        task.received += len(data)
        if flags & _HAS_STATUS:
            self._take_status(stat_sn)
            self._end(task, flags, status, residual, b"")

    def _end(self, task: Task, flags: int, status: int, residual: int, sense: bytes) -> None:
        """A status has come. With GOOD the bytes that came must be those announced."""
        code = _STATUS.get(status)
        if code is None:
            raise ProtocolError(f"SCSI status {status:02X}h")
        if code is Status.GOOD and task.data_in is not None:
            missing = residual if flags & _UNDERFLOW else 0
            if task.received + missing != task.length:
                raise ProtocolError(
                    f"{task.received} of {task.length} bytes came, {missing} announced as missing"
                )
        task.result = Result(code, Sense.unpack(sense) if sense else None, task.received)
        self._drop_bursts(task)
        self._finish(task)

    def _abort(self, task: Task) -> None:
        task.result = Result(Status.TASK_ABORTED, None, task.received)
        self._drop_bursts(task)
        self._finish(task)

    def _drop_bursts(self, task: Task) -> None:
        """The target has ended the command: it wants no more data for it."""
        if task.data_out is not None and self._bursts:
            self._bursts = deque(burst for burst in self._bursts if burst.task is not task)

    def _scsi_response(self, raw: RawPdu) -> None:
        bhs, _, data = raw
        _, flags, response, status, _, tag, _, stat_sn, _, _, _, _, residual = (
            _SCSI_RESPONSE.unpack_from(bhs)
        )
        task = self._task(tag)
        self._take_status(stat_sn)
        if response != _COMPLETED:
            task.failure = ProtocolError(f"target failure, iSCSI response {response:02X}h")
            self._drop_bursts(task)
            self._finish(task)
            return
        sense = b""
        if len(data) >= _SENSE_LENGTH.size:
            (length,) = _SENSE_LENGTH.unpack_from(data)
            sense = bytes(data[_SENSE_LENGTH.size : _SENSE_LENGTH.size + length])
        self._end(task, flags, status, residual, sense)

    def _r2t(self, raw: RawPdu) -> None:
        r2t = R2T.unpack(raw[0], raw[2])
        task = self._task(r2t.initiator_task_tag)
        start, length = r2t.buffer_offset, r2t.desired_data_transfer_length
        if task.data_out is None or not length or start + length > task.length:
            raise ProtocolError(f"R2T for {length} bytes at {start} of {task.length}")
        if length > self.parameters.max_burst_length:
            raise ProtocolError(f"R2T for {length} bytes is longer than MaxBurstLength")
        if task.outstanding >= self.parameters.max_outstanding_r2t:
            raise ProtocolError("more R2Ts than MaxOutstandingR2T")
        task.outstanding += 1
        self._bursts.append(Burst(task, r2t.target_transfer_tag, start, start + length))

    def _nop_in(self, raw: RawPdu) -> None:
        nop = NopIn.unpack(raw[0], raw[2])
        if nop.initiator_task_tag != NO_TAG:
            ping = self.tasks.get(nop.initiator_task_tag)
            if not isinstance(ping, Ping):
                raise ProtocolError("NOP-In answers no ping of ours")
            self._take_status(nop.stat_sn)
            ping.echo = bytes(nop.data)
            self._finish(ping)
        elif nop.target_transfer_tag != NO_TAG:
            self._pings += 1
            if self._pings > _MAX_PINGS:
                raise ProtocolError("the target pings without reading our answers")
            echo = bytes(nop.data[: self.parameters.max_send_data_segment_length])
            answer = NopOut(
                nop.lun,
                NO_TAG,
                nop.target_transfer_tag,
                self._cmd_sn,
                self._exp_stat_sn,
                True,
                echo,
            )
            self._put(answer.pack(), echo)

    def _text_response(self, raw: RawPdu) -> None:
        response = TextResponse.unpack(raw[0], raw[2])
        exchange = self.tasks.get(response.initiator_task_tag)
        if not isinstance(exchange, TextExchange):
            raise ProtocolError("text response to no request of ours")
        self._take_status(response.stat_sn)
        exchange.text.append(response.data)
        if not response.final or response.more:
            # 11.11.4: the rest is asked for with an empty request that names the transfer tag.
            tag, following = response.initiator_task_tag, response.target_transfer_tag
            if following == NO_TAG:
                raise ProtocolError("unfinished text response without a transfer tag")
            if not response.data:
                raise ProtocolError("a text answer that neither ends nor goes on")
            self._put(self._text_request(tag, following, b""))
            return
        exchange.pairs = exchange.text.take()
        self._finish(exchange)

    def _task_management_response(self, raw: RawPdu) -> None:
        response = TaskManagementResponse.unpack(raw[0], raw[2])
        management = self.tasks.get(response.initiator_task_tag)
        if not isinstance(management, TaskManagement):
            raise ProtocolError("task management response to no request of ours")
        self._take_status(response.stat_sn)
        try:
            management.response = TaskResponse(response.response)
        except ValueError:
            raise ProtocolError(f"task management response {response.response}") from None
        for task in self._ended_by(management):
            self._abort(task)
        self._finish(management)

    def _ended_by(self, management: TaskManagement) -> list[Task]:
        """Return the tasks that are over now that the function has been answered (11.6.1)."""
        if management.function is TaskFunction.ABORT_TASK:
            over = (TaskResponse.FUNCTION_COMPLETE, TaskResponse.TASK_DOES_NOT_EXIST)
            task = management.task
            return [task] if task and not task.done and management.response in over else []
        if management.response is not TaskResponse.FUNCTION_COMPLETE:
            return []
        whole_target = management.function in (
            TaskFunction.TARGET_WARM_RESET,
            TaskFunction.TARGET_COLD_RESET,
        )
        return [
            task
            for task in self.tasks.values()
            if isinstance(task, Task) and (whole_target or task.lun == management.lun)
        ]

    def _logout_response(self, raw: RawPdu) -> None:
        response = LogoutResponse.unpack(raw[0], raw[2])
        logout = self.tasks.get(response.initiator_task_tag)
        if not isinstance(logout, Logout):
            raise ProtocolError("logout response to no request of ours")
        self._take_status(response.stat_sn)
        logout.response = response.response
        self._finish(logout)

    def _async_message(self, raw: RawPdu) -> None:
        message = AsyncMessage.unpack(raw[0], raw[2])
        self._take_status(message.stat_sn)
        if message.event == AsyncEvent.LOGOUT_REQUEST:
            self.logout_requested = True
        elif message.event in (AsyncEvent.CONNECTION_DROP, AsyncEvent.SESSION_DROP):
            raise SessionLost("the target drops the connection")
        # SCSI events repeat what a unit attention will say; a negotiation request may be left.

    def _reject(self, raw: RawPdu) -> None:
        """The target would not take a PDU of ours (11.17): its request has failed."""
        reject = Reject.unpack(raw[0], raw[2])
        self._take_status(reject.stat_sn)
        try:
            reason = RejectReason(reject.reason)
        except ValueError:
            raise ProtocolError(f"reject with reason {reject.reason:02X}h") from None
        request = None
        if len(reject.data) >= 20:
            (tag,) = _TAG.unpack_from(reject.data, 16)
            request = self.tasks.get(tag)
        if request is None:
            raise RejectPdu(reason, "the target rejected a PDU")
        request.failure = RejectPdu(reason, "the target rejected the request")
        if isinstance(request, Task):
            self._drop_bursts(request)
        self._finish(request)


_HANDLERS: dict[int, Callable[[InitiatorConnection, RawPdu], None]] = {
    Opcode.SCSI_RESPONSE: InitiatorConnection._scsi_response,
    Opcode.R2T: InitiatorConnection._r2t,
    Opcode.NOP_IN: InitiatorConnection._nop_in,
    Opcode.TEXT_RESPONSE: InitiatorConnection._text_response,
    Opcode.TASK_MANAGEMENT_RESPONSE: InitiatorConnection._task_management_response,
    Opcode.LOGOUT_RESPONSE: InitiatorConnection._logout_response,
    Opcode.ASYNC_MESSAGE: InitiatorConnection._async_message,
    Opcode.REJECT: InitiatorConnection._reject,
}
