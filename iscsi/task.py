"""SCSI tasks at the target, and how their data-out is collected (RFC 7143 4.2.5.2, 11.7, 11.8)."""

from bisect import bisect
from collections import deque
from collections.abc import Iterator
from struct import Struct
from typing import Any

from serverfree.iscsi.codes import NO_TAG, CommandFlag, Opcode, RejectReason
from serverfree.iscsi.errors import RejectPdu
from serverfree.iscsi.negotiation import Parameters
from serverfree.iscsi.pdu import Buffer, DataOut
from serverfree.iscsi.transfer import BufferPool

# Write data that a connection may have been asked for and not yet used up. R2Ts are the valve: a
# task whose data would not fit waits for its R2Ts until others have finished.
PENDING_DATA = 32 << 20
_IDLE_DATA = 8 << 20
# Gaps that a sequence in no order may have at a time: its bookkeeping must not outgrow its data.
_MAX_GAPS = 16384

BIDIRECTIONAL = int(CommandFlag.READ | CommandFlag.WRITE)
_WRITE = int(CommandFlag.WRITE)
_EXTENDED_CDB, _READ_LENGTH = 1, 2  # AHSType, 11.2.2.1

# Of a Data-Out header: opcode, initiator task tag, target transfer tag, buffer offset.
_PLACE = Struct(">B15xII16xI")


class Task:
    """A SCSI command on a connection, from its arrival to its response.

    `data` is what came out for it; `solicited` how many bytes of data-out the command really
    takes, which is what residuals are counted against. `expected_read_length` is there only where
    READ and WRITE are both in `flags` (11.2.2.4). `owner` is the shell's to use.
    """

    __slots__ = (
        "cdb",
        "data",
        "expected_data_transfer_length",
        "expected_read_length",
        "flags",
        "immediate",
        "initiator_task_tag",
        "lun",
        "owner",
        "solicited",
        "transfer",
        "unsound",
    )

    def __init__(
        self, lun: int, tag: int, length: int, cdb: bytes, flags: int, immediate: bool
    ) -> None:
        self.lun = lun
        self.initiator_task_tag = tag
        self.expected_data_transfer_length = length
        self.cdb = cdb
        self.flags = flags
        self.immediate = immediate
        self.data: Buffer = b""
        self.solicited = 0
        self.owner: Any = None
        self.transfer: Transfer | None = None
        self.unsound = False  # data is missing; `data` must not be used

    def read_additional_headers(self, ahs: memoryview) -> None:
        """Take in the rest of a long CDB and how much a command of both directions reads (11.2.2).

        Raises RejectPdu where that length is missing.
        """
        read_length: int | None = None
        at = 0
        while at + 4 <= len(ahs):
            length = ahs[at] << 8 | ahs[at + 1]
            if ahs[at + 2] == _EXTENDED_CDB and length:
                self.cdb += bytes(ahs[at + 4 : at + 3 + length])
            elif ahs[at + 2] == _READ_LENGTH and length == 5 and at + 8 <= len(ahs):
                read_length = int.from_bytes(ahs[at + 4 : at + 8], "big")
            at += 3 + length + (-(3 + length) & 3)
        if self.flags & BIDIRECTIONAL == BIDIRECTIONAL:
            if read_length is None:
                raise RejectPdu(RejectReason.INVALID_PDU_FIELD, "both ways, and no length to read")
            self.expected_read_length = read_length


class Transfer:
    """The data-out of one task while it is being collected."""

    __slots__ = ("abandoned", "ask_from", "asked", "memory", "r2t_sn", "unsolicited", "wanted")

    def __init__(self, unsolicited: "_Burst | None") -> None:
        self.abandoned = False
        self.memory = bytearray()
        self.wanted = 0
        self.unsolicited = unsolicited
        self.ask_from = 0  # what lies before has come or has been asked for
        self.asked: dict[int, _Burst] = {}  # by target transfer tag
        self.r2t_sn = 0


class _Burst:
    """A sequence of Data-Out PDUs that ends at `end`; what lies before `offset` has come.

    `ahead` is what came behind a gap, disjoint and ascending: DataPDUInOrder=No allows it.
    """

    __slots__ = ("ahead", "data_sn", "end", "offset")

    def __init__(self, offset: int, end: int) -> None:
        self.offset = offset
        self.end = end
        self.data_sn = 0
        self.ahead: list[tuple[int, int]] = []

    def take(self, start: int, end: int, *, in_order: bool) -> bool:
        """Note that these bytes have come; tell if they might: not twice, not outside, in order."""
        ahead = self.ahead
        if start == self.offset and not ahead:
            self.offset = end
            return end <= self.end
        if in_order or len(ahead) >= _MAX_GAPS:
            return False
        at = bisect(ahead, (start, end))
        before = ahead[at - 1][1] if at else self.offset
        behind = ahead[at][0] if at < len(ahead) else self.end
        if start < before or end > behind:
            return False
        if at and start == before:
            at -= 1
            start = ahead.pop(at)[0]
        if at < len(ahead) and end == behind:
            end = ahead.pop(at)[1]
        ahead.insert(at, (start, end))
        if ahead[0][0] == self.offset:
            self.offset = ahead.pop(0)[1]
        return True


class DataOutTransfers:
    """The unanswered tasks of a connection, and the data-out that is on its way to them."""

    def __init__(self, parameters: Parameters) -> None:
        self.tasks: dict[int, Task] = {}
        self._parameters = parameters
        self._pool = BufferPool(_IDLE_DATA)
        self._pending = 0
        self._waiting: deque[Task] = deque()  # for memory
        self._asking: deque[Task] = deque()  # for a free R2T
        self._last_tag = 0

    def begin(self, task: Task, immediate: memoryview, final: bool) -> None:
        """A command came with immediate data, or announces unsolicited Data-Out (not `final`)."""
        parameters = self._parameters
        limit = min(parameters.first_burst_length, task.expected_data_transfer_length)
        if not task.flags & _WRITE:
            raise RejectPdu(RejectReason.INVALID_PDU_FIELD, "data with a command that is no write")
        if immediate and not parameters.immediate_data:
            raise RejectPdu(RejectReason.PROTOCOL_ERROR, "ImmediateData=No was agreed")
        if len(immediate) > limit:
            raise RejectPdu(RejectReason.PROTOCOL_ERROR, "immediate data beyond FirstBurstLength")
        if not final:
            if parameters.initial_r2t:
                raise RejectPdu(RejectReason.PROTOCOL_ERROR, "InitialR2T=Yes was agreed")
            task.transfer = Transfer(_Burst(len(immediate), limit))
        task.data = immediate

    def solicit(self, task: Task, length: int) -> bool:
        """Collect `length` bytes, or what the task has announced; tell if they are all here."""
        task.solicited = length
        wanted = min(length, task.expected_data_transfer_length)
        transfer = task.transfer
        if transfer is None:
            if len(task.data) >= wanted:
                task.data = memoryview(task.data)[:wanted]
                return True
            task.transfer = transfer = Transfer(None)
        transfer.wanted = wanted
        transfer.ask_from = len(task.data)
        # Without room, only what came or may come unasked (FirstBurstLength) gets memory now.
        size = wanted
        if self._pending + wanted > PENDING_DATA:
            unasked = transfer.unsolicited.end if transfer.unsolicited else len(task.data)
            size = min(wanted, unasked)
        self._lend(transfer, size)
        self._store(transfer, 0, task.data)
        self.tasks[task.initiator_task_tag] = task
        if transfer.unsolicited is None:
            self._waiting.append(task)
        return False

    def receive(self, pdu: DataOut) -> Task | None:
        """Take in a Data-Out; return its task when nothing more is to come for it.

        Data that is missing, or not in an order that was agreed, makes the task `unsound`: nothing
        more is asked for; it ends when every sequence that was has had its final PDU (7.8, 7.9).
        """
        task = self.tasks.get(pdu.initiator_task_tag)
        if task is None or task.transfer is None:
            # Of a task that was aborted or answered while its data was on the way.
            return None
        transfer = task.transfer
        solicited = pdu.target_transfer_tag != NO_TAG
        burst = transfer.asked.get(pdu.target_transfer_tag) if solicited else transfer.unsolicited
        if burst is None:
            raise RejectPdu(RejectReason.PROTOCOL_ERROR, "Data-Out that nobody asked for")
        end = pdu.buffer_offset + len(pdu.data)
        if (
            task.unsound
            or pdu.data_sn != burst.data_sn
            or not burst.take(pdu.buffer_offset, end, in_order=self._parameters.data_pdu_in_order)
            or (pdu.final and (burst.ahead or (solicited and burst.offset != burst.end)))
        ):
            task.unsound = True
        if not task.unsound:
            self._store(transfer, pdu.buffer_offset, pdu.data)
            burst.data_sn += 1
        if not pdu.final:
            return None
        if solicited:
            del transfer.asked[pdu.target_transfer_tag]
            self._asking.append(task)
        else:
            transfer.unsolicited = None
            transfer.ask_from = burst.offset
            self._waiting.append(task)
        if task.unsound:
            transfer.ask_from = transfer.wanted
        if transfer.asked or transfer.ask_from < transfer.wanted:
            return None
        task.data = memoryview(transfer.memory)[: transfer.wanted]
        return task

    def requests(self) -> Iterator[tuple[Task, int, int, int, int]]:
        """Yield the R2Ts to send now: task, target transfer tag, R2TSN, offset, length."""
        while self._waiting:
            transfer = self._waiting[0].transfer
            if transfer is not None and len(transfer.memory) < transfer.wanted:
                others = self._pending - len(transfer.memory)
                if others and others + transfer.wanted > PENDING_DATA:
                    break  # alone, any write gets its memory
                self._grow(transfer)
            self._asking.append(self._waiting.popleft())
        while self._asking:
            task = self._asking.popleft()
            transfer = task.transfer
            if transfer is None:
                continue
            while (
                transfer.ask_from < transfer.wanted
                and len(transfer.asked) < self._parameters.max_outstanding_r2t
            ):
                offset = transfer.ask_from
                length = min(self._parameters.max_burst_length, transfer.wanted - offset)
                transfer.ask_from = offset + length
                tag = self.new_tag()
                transfer.asked[tag] = _Burst(offset, offset + length)
                yield task, tag, transfer.r2t_sn, offset, length
                transfer.r2t_sn += 1

    def place(self, bhs: memoryview, length: int) -> memoryview | None:
        """Name the memory where a Data-Out segment that is still arriving belongs, if it is good.

        The framing's hook. Whatever looks wrong here is left to `receive` to judge.
        """
        opcode, tag, transfer_tag, offset = _PLACE.unpack_from(bhs)
        task = self.tasks.get(tag) if opcode == Opcode.DATA_OUT else None
        if task is None or task.transfer is None:
            return None
        transfer = task.transfer
        burst = transfer.unsolicited if transfer_tag == NO_TAG else transfer.asked.get(transfer_tag)
        if burst is None or offset != burst.offset or offset + length > len(transfer.memory):
            return None
        return memoryview(transfer.memory)[offset : offset + length]

    def keep(self, task: Task) -> None:
        """The task outlives the bytes that it came in: its data is copied if it lies in them."""
        self.tasks[task.initiator_task_tag] = task
        if task.data and task.transfer is None:
            task.data = bytes(task.data)

    def abandon(self, task: Task) -> bool:
        """The task is aborted. Tell if it is gone; else `receive` returns it when it can be.

        What was asked for is still waited for, to go nowhere (4.2.3.3 a); no more is asked for.
        """
        transfer = task.transfer
        if transfer is None or not (transfer.asked or transfer.unsolicited):
            self.forget(task)
            return True
        transfer.abandoned = task.unsound = True
        transfer.ask_from = transfer.wanted
        return False

    def forget(self, task: Task) -> None:
        """The task is answered, or will never be."""
        del self.tasks[task.initiator_task_tag]
        transfer, task.transfer = task.transfer, None
        if transfer is None or not transfer.memory:
            return
        self._pending -= len(transfer.memory)
        # A segment may still be arriving into the memory of an aborted task: that is not lent on.
        if not transfer.asked and transfer.unsolicited is None:
            task.data = b""
            self._pool.give_back(transfer.memory)

    def new_tag(self) -> int:
        """Return a target transfer tag that has not been used for a long time."""
        self._last_tag = (self._last_tag + 1) % NO_TAG
        return self._last_tag

    def _lend(self, transfer: Transfer, size: int) -> None:
        if size:
            transfer.memory = self._pool.take(size)
            self._pending += len(transfer.memory)

    def _grow(self, transfer: Transfer) -> None:
        small = transfer.memory
        self._pending -= len(small)
        self._lend(transfer, transfer.wanted)
        transfer.memory[: transfer.ask_from] = memoryview(small)[: transfer.ask_from]

    def _store(self, transfer: Transfer, offset: int, data: Buffer) -> None:
        """Put a segment in its place, unless it was received there; drop what is not wanted."""
        memory = transfer.memory
        if isinstance(data, memoryview) and data.obj is memory:
            return
        here = min(len(data), max(0, len(memory) - offset))
        memory[offset : offset + here] = memoryview(data)[:here]
