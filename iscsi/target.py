"""The target's side of a connection in full feature phase, without I/O (RFC 7143 4, 7, 11).

Bytes come in through the `Receiver`, `events()` says what they mean, the answering methods put
bytes into `output`; the owner of the socket moves both. One thread at a time.

Errors: a PDU that breaks the protocol but leaves the stream readable is answered with a Reject
here; what cannot be repaired at ErrorRecoveryLevel 0 raises ProtocolError, and the connection ends.
"""

from collections.abc import Iterator
from dataclasses import replace
from struct import Struct

from serverfree.iscsi import sequence
from serverfree.iscsi.codes import (
    FINAL,
    IMMEDIATE,
    NO_TAG,
    AsyncEvent,
    CommandFlag,
    LogoutResponseCode,
    Opcode,
    RejectReason,
    ResidualFlag,
    Response,
    Stage,
    TaskFunction,
    TaskResponse,
)
from serverfree.iscsi.errors import DataDigestError, ProtocolError, RejectPdu
from serverfree.iscsi.framing import RawPdu, Receiver, Sender
from serverfree.iscsi.negotiation import Negotiation, Offer, Parameters, Role
from serverfree.iscsi.pdu import (
    R2T,
    AsyncMessage,
    Buffer,
    DataIn,
    DataOut,
    LogoutRequest,
    LogoutResponse,
    NopIn,
    NopOut,
    Reject,
    ScsiCommand,
    ScsiResponse,
    TargetPdu,
    TaskManagementRequest,
    TaskManagementResponse,
    TextRequest,
)
from serverfree.iscsi.task import BIDIRECTIONAL, DataOutTransfers, Task
from serverfree.iscsi.text import Pair
from serverfree.iscsi.text_exchange import TextExchange
from serverfree.iscsi.transfer import data_in_pdus
from serverfree.scsi.sense import Asc, Sense, SenseKey
from serverfree.scsi.status import Status

# Commands that the window lets an initiator have in flight. QEMU keeps 128, open-iscsi 32 a LUN.
QUEUE_DEPTH = 128
# What a login may agree on. Unsolicited data needs memory that no R2T holds back, a queue full of
# it at the worst, so its limit is lower than a burst's.
OFFER = Offer(
    max_recv_data_segment_length=1 << 20,
    max_burst_length=8 << 20,
    first_burst_length=256 << 10,
    header_digest=("CRC32C", "None"),
    data_digest=("CRC32C", "None"),
    # In whatever order the initiator wishes to send; what we send is in order always.
    data_pdu_in_order=False,
    data_sequence_in_order=False,
)
# Immediate commands come beside the window, so they have a limit of their own (4.2.2.1); and what
# comes early is kept whole, unasked, so that has one too.
_MAX_IMMEDIATE = 32
_MAX_EARLY = 16 << 20

_NUMBERED = {
    Opcode.NOP_OUT,
    Opcode.SCSI_COMMAND,
    Opcode.TASK_MANAGEMENT_REQUEST,
    Opcode.TEXT_REQUEST,
    Opcode.LOGOUT_REQUEST,
}
_CMD_SN = Struct(">24xI")
_SENSE_LENGTH = Struct(">H")
# The functions that abort all the tasks of a unit, and those of a target (11.5.1).
_OF_A_UNIT = (
    TaskFunction.ABORT_TASK_SET,
    TaskFunction.CLEAR_TASK_SET,
    TaskFunction.LOGICAL_UNIT_RESET,
)
_OF_A_TARGET = (TaskFunction.TARGET_WARM_RESET, TaskFunction.TARGET_COLD_RESET)
_COMMAND = ScsiCommand.LAYOUT
_DATA_IN = DataIn.LAYOUT
_RESPONSE = ScsiResponse.LAYOUT
# What ends a task whose data did not all come, where nothing is retransmitted (7.8 b).
_DATA_MISSING = Sense(SenseKey.ABORTED_COMMAND, Asc.PROTOCOL_SERVICE_CRC_ERROR).pack()
# As plain numbers: an IntFlag costs a microsecond each time two are joined, and a member of any
# enumeration a look-up in its class.
_SCSI_COMMAND = int(Opcode.SCSI_COMMAND)
_DATA_OUT = int(Opcode.DATA_OUT)
_SCSI_RESPONSE = int(Opcode.SCSI_RESPONSE)
_DATA_IN_OPCODE = int(Opcode.DATA_IN)
_COMPLETED = int(Response.COMPLETED)
_GOOD = 0
_UNDERFLOW = int(ResidualFlag.UNDERFLOW)
_OVERFLOW = int(ResidualFlag.OVERFLOW)
_STATUS = int(ResidualFlag.STATUS)
_BIDI_UNDERFLOW = int(ResidualFlag.BIDI_UNDERFLOW)
_BIDI_OVERFLOW = int(ResidualFlag.BIDI_OVERFLOW)
_READ = int(CommandFlag.READ)

Event = Task | TaskManagementRequest | TextRequest | LogoutRequest


class TargetConnection:
    """Full feature phase of one connection.

    `output` holds the buffers to send, in order: headers, and the payload of reads as it was
    given. `tasks` holds the commands that are not yet answered, by initiator task tag. With
    `data_digest` the payload of reads is looked at here, so it must be memory that can be read.
    """

    def __init__(
        self, receiver: Receiver, parameters: Parameters, exp_cmd_sn: int, stat_sn: int
    ) -> None:
        """Go on after login: the next CmdSN to expect and the next StatSN to use."""
        self.parameters = parameters
        self.output: list[Buffer] = []
        self.transfers = DataOutTransfers(parameters)
        self.tasks = self.transfers.tasks
        self._receiver = receiver
        receiver.max_data_segment_length = parameters.max_recv_data_segment_length
        receiver.place = self.transfers.place
        header_digest = parameters.header_digest == "CRC32C"
        self.data_digest = parameters.data_digest == "CRC32C"
        receiver.expect_digests(header=header_digest, data=self.data_digest)
        self._sender = Sender(header=header_digest, data=self.data_digest)
        self._plain = self._sender.plain
        self._max_send = parameters.max_send_data_segment_length
        self._exp_cmd_sn = exp_cmd_sn
        self._stat_sn = stat_sn
        # By CmdSN: came before one that is still missing; None: taken as received, and aborted.
        self._early: dict[int, RawPdu | None] = {}
        self._early_bytes = 0
        self._behind: list[RawPdu] = []  # immediate requests that concern commands still missing
        self._texts = TextExchange(self.transfers.new_tag)

    # ---------------------------------------------------------------- what came in

    def events(self) -> Iterator[Event]:
        """Yield what the received bytes mean, in CmdSN order; answer with the methods below.

        A task comes when its command does, with the data that came unasked; once more, complete,
        if `solicit` asked for the rest. What views point to is good until the next bytes are
        received: a task that is answered later is kept with `keep`.
        """
        next_pdu = self._receiver.next_pdu
        while True:
            try:
                raw = next_pdu()
            except DataDigestError as error:
                event = self._damaged(error)
            else:
                if raw is None:
                    return
                event = self._pdu(raw)
            if event is not None:
                yield event
            if self._early:
                yield from self._no_longer_early()

    def _no_longer_early(self) -> Iterator[Event]:
        while self._exp_cmd_sn in self._early:
            held = self._early.pop(self._exp_cmd_sn)
            if held is None:
                self._exp_cmd_sn = self._exp_cmd_sn + 1 & 0xFFFFFFFF
                continue
            self._early_bytes -= len(held[2])
            event = self._pdu(held)
            if event is not None:
                yield event
        behind, self._behind = self._behind, []
        for raw in behind:
            event = self._pdu(raw)
            if event is not None:
                yield event

    def _pdu(self, raw: RawPdu) -> Event | None:
        bhs = raw[0]
        first = bhs[0]
        opcode = first & 0x3F
        try:
            if opcode == _DATA_OUT:
                return self._data_out(raw)
            if opcode not in _NUMBERED:
                raise self._unexpected(opcode)
            if not first & IMMEDIATE:
                (cmd_sn,) = _CMD_SN.unpack_from(bhs)
                if cmd_sn != self._exp_cmd_sn:
                    self._out_of_order(cmd_sn, raw)
                    return None
                self._exp_cmd_sn = cmd_sn + 1 & 0xFFFFFFFF
            if opcode == _SCSI_COMMAND:
                return self._scsi_command(raw)
            return self._other(opcode, raw)
        except RejectPdu as reject:
            self._send(Reject(reject.reason, data=bytes(bhs)))
            return None

    def _damaged(self, error: DataDigestError) -> Event | None:
        """Data came that is not what was sent (7.8).

        A Data-Out is rejected and its task ends when the rest has come. Of a command the data can
        only be sent again together with it, and at ErrorRecoveryLevel 0 by a new session alone.
        """
        bhs, _, data = error.pdu
        if bhs[0] & 0x3F != _DATA_OUT:
            raise error
        self._send(Reject(RejectReason.DATA_DIGEST_ERROR, data=bytes(bhs)))
        damaged = DataOut.unpack(bhs, data)
        damaged.data_sn = NO_TAG  # no number that is expected: the transfer takes it as missing
        return self._collected(self.transfers.receive(damaged))

    def _out_of_order(self, cmd_sn: int, raw: RawPdu) -> None:
        """Hold what is early, ignore what is outside the window (RFC 7143 4.2.2.1).

        On a single connection nothing is early unless the initiator skips numbers; the window
        bounds how many are held, and there is a bound for their data.
        """
        if cmd_sn not in self._early and sequence.in_window(
            cmd_sn, self._exp_cmd_sn, self._max_cmd_sn()
        ):
            self._early_bytes += len(raw[2])
            if self._early_bytes > _MAX_EARLY:
                raise ProtocolError("too much data before the commands that it waits for")
            self._early[cmd_sn] = _kept(raw)

    def take_as_received(self, request: TaskManagementRequest) -> bool:
        """Tell if an ABORT TASK is for a command that is still to come; that is then aborted.

        11.6.1: so it is if RefCmdSN lies in the window and before the request.
        """
        ahead = sequence.distance(request.ref_cmd_sn, request.cmd_sn) > 0
        missing = ahead and sequence.in_window(
            request.ref_cmd_sn, self._exp_cmd_sn, self._max_cmd_sn()
        )
        if missing:
            self._plug(request.ref_cmd_sn)
        return missing

    def _plug(self, cmd_sn: int) -> None:
        held = self._early.get(cmd_sn)
        if held is not None:
            self._early_bytes -= len(held[2])
        self._early[cmd_sn] = None

    def _unexpected(self, opcode: int) -> RejectPdu:
        if opcode == Opcode.SNACK_REQUEST:
            return RejectPdu(RejectReason.SNACK_REJECT, "ErrorRecoveryLevel is 0")
        if opcode == Opcode.LOGIN_REQUEST:
            return RejectPdu(RejectReason.PROTOCOL_ERROR, "login in full feature phase")
        return RejectPdu(RejectReason.COMMAND_NOT_SUPPORTED, f"opcode {opcode:02X}h")

    def _scsi_command(self, raw: RawPdu) -> Task | None:
        first, flags, _, _, lun, tag, length, _, _, cdb = _COMMAND.unpack_from(raw[0])
        if tag in self.tasks:
            raise RejectPdu(RejectReason.TASK_IN_PROGRESS, f"task tag {tag:08X}h is in use")
        task = Task(lun, tag, length, cdb, flags, first & IMMEDIATE != 0)
        if task.immediate and len(self.tasks) >= QUEUE_DEPTH + _MAX_IMMEDIATE:
            raise RejectPdu(RejectReason.IMMEDIATE_COMMAND_REJECT, "too many commands")
        if raw[1] or flags & BIDIRECTIONAL == BIDIRECTIONAL:
            task.read_additional_headers(raw[1])
        data = raw[2]
        if data or not flags & FINAL:
            self.transfers.begin(task, data, flags & FINAL != 0)
        return task

    def _data_out(self, raw: RawPdu) -> Task | None:
        return self._collected(self.transfers.receive(DataOut.unpack(raw[0], raw[2])))

    def _collected(self, task: Task | None) -> Task | None:
        """Go on after a Data-Out; `task` is the one of which that was the last, if it was."""
        if task is not None and task.unsound and task.transfer and not task.transfer.abandoned:
            self.reply(task, Status.CHECK_CONDITION, sense=_DATA_MISSING)
            return None
        self._ask()
        return task

    def _other(self, opcode: int, raw: RawPdu) -> Event | None:
        bhs, _, data = raw
        if opcode == Opcode.NOP_OUT:
            nop = NopOut.unpack(bhs, data)
            if nop.initiator_task_tag != NO_TAG:
                echo = bytes(data[: self._max_send])
                self._send(NopIn(nop.lun, nop.initiator_task_tag, data=echo))
            return None
        if opcode == Opcode.TASK_MANAGEMENT_REQUEST:
            return self._task_management(raw)
        if opcode == Opcode.LOGOUT_REQUEST:
            return LogoutRequest.unpack(bhs, data)
        return self._text_request(TextRequest.unpack(bhs, bytes(data)))

    def _task_management(self, raw: RawPdu) -> TaskManagementRequest | None:
        """Give out a request in its place among the commands, also if it came immediate.

        4.2.3.3 b: a function of a unit waits for the commands before it; one of a target need not,
        and takes them as received.
        """
        request = TaskManagementRequest.unpack(raw[0], raw[2])
        missing = sequence.distance(self._exp_cmd_sn, request.cmd_sn) if request.immediate else 0
        if not 0 < missing <= QUEUE_DEPTH:
            return request
        if request.function in _OF_A_UNIT:
            if len(self._behind) >= _MAX_IMMEDIATE:
                raise RejectPdu(RejectReason.IMMEDIATE_COMMAND_REJECT, "too many requests")
            self._behind.append(_kept(raw))
            return None
        if request.function in _OF_A_TARGET:
            for ahead in range(missing):
                self._plug(sequence.add(self._exp_cmd_sn, ahead))
        return request

    def _text_request(self, request: TextRequest) -> TextRequest | None:
        outcome = self._texts.receive(request, self._max_send)
        if isinstance(outcome, TextRequest):
            return outcome
        self._send(outcome)
        return None

    # ---------------------------------------------------------------- tasks

    def solicit(self, task: Task, length: int) -> bool:
        """Collect `length` bytes of data-out, at most what was announced; tell if all is here.

        If not, R2Ts go out as MaxOutstandingR2T and memory allow, and `events` gives the task
        again. Either way the task's `data` is then cut to what the command takes, and the
        response counts the residual against `length`. A task that was given to `abandon` comes
        again too, for the last time.
        """
        complete = self.transfers.solicit(task, length)
        if not complete:
            self._ask()
        return complete

    def _ask(self) -> None:
        for task, tag, number, offset, length in self.transfers.requests():
            self._send(
                R2T(
                    task.lun,
                    task.initiator_task_tag,
                    tag,
                    self._stat_sn,
                    0,
                    0,
                    number,
                    offset,
                    length,
                ),
                advance=False,
            )

    def keep(self, task: Task) -> None:
        """The task will be answered after the next bytes have been received."""
        self.transfers.keep(task)

    def reply(self, task: Task, status: int, data: Buffer = b"", sense: bytes = b"") -> None:
        """End a task: Data-In with its data, then its status (11.4, 11.7; residuals 11.4.5).

        Data beyond what the initiator expects is cut and counted as overflow. GOOD travels in the
        last Data-In; everything else in a SCSI Response, also when data came with it.
        """
        expected = task.expected_data_transfer_length
        length = len(data)
        direction = task.flags & BIDIRECTIONAL
        if direction == _READ:
            moved = length
            if length > expected:
                data = memoryview(data)[:expected]
                length = expected
        elif direction == BIDIRECTIONAL:
            self._reply_bidirectional(task, status, data, sense)
            return
        else:
            moved = task.solicited
            if length:  # nobody has room for it
                data, length, moved = b"", 0, moved or length
        flags = FINAL
        residual = 0
        if moved < expected:
            flags |= _UNDERFLOW
            residual = expected - moved
        elif moved > expected:
            flags |= _OVERFLOW
            residual = moved - expected
        if task.initiator_task_tag in self.tasks:
            self.transfers.forget(task)
            self._ask()
        data_sn = 0
        if length:
            if self._plain and status == _GOOD and length <= self._max_send and not length & 3:
                # The common read: one PDU carries all data and the status.
                self._stat_sn = (stat_sn := self._stat_sn) + 1 & 0xFFFFFFFF
                self.output += (
                    _DATA_IN.pack(
                        _DATA_IN_OPCODE,
                        flags | _STATUS,
                        0,
                        _GOOD,
                        length,
                        task.lun,
                        task.initiator_task_tag,
                        NO_TAG,
                        stat_sn,
                        self._exp_cmd_sn,
                        self._max_cmd_sn(),
                        0,
                        0,
                        residual,
                    ),
                    data,
                )
                return
            data_sn = self._data_in(task, data, flags, residual, with_status=status == _GOOD)
            if status == _GOOD:
                return
        self._respond(task, status, sense, flags, data_sn, residual)

    def _reply_bidirectional(self, task: Task, status: int, data: Buffer, sense: bytes) -> None:
        """End a task of both directions: each has its residual, status is never in a Data-In."""
        expected, room = task.expected_data_transfer_length, task.expected_read_length
        out, back = task.solicited - expected, len(data) - room
        flags = FINAL
        if out:
            flags |= _OVERFLOW if out > 0 else _UNDERFLOW
        if back:
            flags |= _BIDI_OVERFLOW if back > 0 else _BIDI_UNDERFLOW
        if task.initiator_task_tag in self.tasks:
            self.transfers.forget(task)
            self._ask()
        data_sn = self._data_in(task, memoryview(data)[:room], 0, 0, with_status=False)
        self._respond(task, status, sense, flags, data_sn, abs(out), abs(back))

    def _respond(
        self,
        task: Task,
        status: int,
        sense: bytes,
        flags: int,
        data_sn: int,
        residual: int,
        bidi_residual: int = 0,
    ) -> None:
        """End a task with a SCSI Response, behind `data_sn` Data-In PDUs (11.4)."""
        self._stat_sn = (stat_sn := self._stat_sn) + 1 & 0xFFFFFFFF
        segment = _SENSE_LENGTH.pack(len(sense)) + sense if sense else b""
        # Packed at once: every write ends here, and an object on the way costs it a microsecond.
        header = _RESPONSE.pack(
            _SCSI_RESPONSE,
            flags,
            _COMPLETED,
            status,
            len(segment),
            task.initiator_task_tag,
            0,
            stat_sn,
            self._exp_cmd_sn,
            self._max_cmd_sn(),
            data_sn,
            bidi_residual,
            residual,
        )
        if self._plain and not segment:
            self.output.append(header)
        else:
            self._sender.put(self.output, header, (segment,), len(segment))

    def _data_in(
        self, task: Task, data: Buffer, flags: int, residual: int, *, with_status: bool
    ) -> int:
        """Send the data of a read in as many PDUs as it takes; return how many."""
        view = memoryview(data)
        data_sn = 0
        bursts = data_in_pdus(len(view), self._max_send, self.parameters.max_burst_length)
        for offset, length, final in bursts:
            pdu = DataIn(
                task.initiator_task_tag,
                FINAL if final else 0,
                lun=task.lun,
                data_sn=data_sn,
                buffer_offset=offset,
                data=view[offset : offset + length],
            )
            data_sn += 1
            if with_status and offset + length == len(view):
                pdu.flags = flags | _STATUS
                pdu.residual_count = residual
                self._send(pdu)
            else:
                # StatSN is meaningful only with status (11.7.4).
                self._send(pdu, advance=False, stat_sn=0)
        return data_sn

    def drop(self, task: Task) -> None:
        """End a task without a response: it has been aborted, and is `unsound` from now on."""
        task.unsound = True
        if self.tasks.get(task.initiator_task_tag) is task:
            self.transfers.forget(task)
            self._ask()

    def abandon(self, task: Task) -> bool:
        """End a task without a response; False if `events` will give it once its data is through.

        What was asked for has to be waited for where the response to an abort of several tasks is
        to come after it (4.2.3.3 a).
        """
        gone = self.transfers.abandon(task)
        if gone:
            self._ask()
        return gone

    # ---------------------------------------------------------------- other answers

    def reply_task_management(self, request: TaskManagementRequest, response: TaskResponse) -> None:
        """Answer a task management request, when what it asked for has been done."""
        self._send(TaskManagementResponse(request.initiator_task_tag, response))

    def reply_logout(self, request: LogoutRequest, response: LogoutResponseCode) -> None:
        """Answer a logout request; the connection is closed once this has been sent."""
        self._send(LogoutResponse(request.initiator_task_tag, response))

    def reply_text(self, request: TextRequest, text: bytes) -> None:
        """Answer a text request, in parts that the initiator fetches if it is long (11.11)."""
        self._send(self._texts.answer(request, text, self._max_send))

    def negotiate(self, pairs: list[Pair]) -> list[Pair]:
        """Return the answers to keys in full feature phase: what may change then, does (13).

        Raises ProtocolError for what breaks the rules; nothing has changed then.
        """
        negotiation = Negotiation(Role.TARGET, OFFER, parameters=replace(self.parameters))
        answers = negotiation.receive(pairs, Stage.FULL_FEATURE)
        self._max_send = negotiation.parameters.max_send_data_segment_length
        self.parameters.max_send_data_segment_length = self._max_send
        return answers

    def ping(self) -> None:
        """Ask the initiator for a sign of life (11.19); any PDU will do."""
        # 11.19.1: of a NOP-In that answers nothing, StatSN is the next one and stays so.
        self._send(NopIn(target_transfer_tag=self.transfers.new_tag()), advance=False)

    def tell(self, event: AsyncEvent, *parameters: int, data: bytes = b"") -> None:
        """Send an Asynchronous Message, its parameters from Parameter1 on (11.9)."""
        first, second, third = (*parameters, 0, 0, 0)[:3]
        self._send(
            AsyncMessage(
                0,
                0,
                0,
                0,
                event,
                parameter1=first,
                parameter2=second,
                parameter3=third,
                data=_SENSE_LENGTH.pack(len(data)) + data if data else b"",
            )
        )

    def reject(self, reason: RejectReason, bhs: bytes) -> None:
        """Refuse a PDU whose fault only the shell could see."""
        self._send(Reject(reason, data=bhs))

    # ---------------------------------------------------------------- numbers

    def _max_cmd_sn(self) -> int:
        """The window is the queue's free places; it never closes behind commands in flight."""
        taken = len(self.tasks)
        if (
            taken > QUEUE_DEPTH
        ):  # by immediate commands; 4.2.2.1: a closed window is as far as it goes
            taken = QUEUE_DEPTH
        return self._exp_cmd_sn + (QUEUE_DEPTH - 1 - taken) & 0xFFFFFFFF

    def _send(self, pdu: TargetPdu, *, advance: bool = True, stat_sn: int | None = None) -> None:
        pdu.stat_sn = self._stat_sn if stat_sn is None else stat_sn
        pdu.exp_cmd_sn = self._exp_cmd_sn
        pdu.max_cmd_sn = self._max_cmd_sn()
        if advance:
            self._stat_sn = self._stat_sn + 1 & 0xFFFFFFFF
        data: Buffer = getattr(pdu, "data", b"")
        self._sender.put(self.output, pdu.pack(), (data,), len(data))


def _kept(raw: RawPdu) -> RawPdu:
    """Return a PDU that outlives the bytes that it came in."""
    bhs, ahs, data = (memoryview(bytes(part)) for part in raw)
    return bhs, ahs, data
