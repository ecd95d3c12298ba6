"""A logical unit that a copy uses: what it is, its readiness, and the commands sent to it."""

import contextlib
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeGuard, runtime_checkable

from serverfree.datamover.errors import CopyAborted
from serverfree.initiator.session import CommandTimeout
from serverfree.iscsi.errors import ProtocolError
from serverfree.scsi.capacity import Capacity10, Capacity16
from serverfree.scsi.cdb.block import ReadCapacity10, ReadCapacity16
from serverfree.scsi.cdb.primary import Inquiry, ModeSense6, TestUnitReady
from serverfree.scsi.copy_cscd import PARAMETERS, BlockParameters
from serverfree.scsi.designator import Designator
from serverfree.scsi.device import Buffer, Order, Result
from serverfree.scsi.inquiry import DeviceType, Qualifier, StandardInquiry
from serverfree.scsi.mode import ModeData
from serverfree.scsi.sense import Asc, FieldPointer, SenseKey
from serverfree.scsi.status import Status
from serverfree.scsi.tape import TapeBlockDescriptor
from serverfree.scsi.vpd import HEADER_LENGTH, BlockLimits

CARRIER_FAILURES = (ProtocolError, OSError)
"""What a device raises where an answer can never come."""

# Statuses after which a command is sent again (SPC-4 5.17.7.4), and how often the pause before that
# is doubled: 10 s in all, or 0.3 s for a reservation, which a host seldom gives up so soon.
_RETRIED = {Status.BUSY: 8, Status.TASK_SET_FULL: 8, Status.RESERVATION_CONFLICT: 3}
_FIRST_PAUSE = 0.02  # seconds
_MOST_ATTENTIONS = 16
_ABORT_SECONDS = 0.5  # how long a wait may go on before somebody asks whether it still should
_MODE_HEADER = 4  # of MODE SENSE(6)
_DEVICE_CONFIGURATION = 0x10  # a mode page that every tape drive has (SSC-4 8.3.3)

BLOCK_TYPES = tuple(code for code, kind in PARAMETERS.items() if kind is BlockParameters)
"""The device types that the standard calls block devices (SPC-4 table 134)."""


class Role(Enum):
    """Which part a unit plays in a segment, and so where its own sense data is forwarded."""

    SOURCE = "forwarded_source"
    DESTINATION = "forwarded_destination"


@dataclass(slots=True)
class Facts:
    """What a unit has said of itself; true until a unit attention says that something changed.

    `normal_aca`: after a command with NACA that fails, nothing more runs until that is cleared.
    `blocks`, `block_length` and `transfer_blocks` (the most one command may move, 0 for no limit)
    are those of a disk; of a tape, `block_length` is that of its mode parameters, None where it
    does not tell.
    """

    device_type: int
    normal_aca: bool = False
    blocks: int = 0
    block_length: int | None = None
    transfer_blocks: int = 0


class PendingCommand(Protocol):
    """A command under way at a unit of a copy."""

    def wait(self, timeout: float | None = None) -> Result:
        """Return how it ended. Raises CommandTimeout, or one of CARRIER_FAILURES."""


class AttachedUnit(Protocol):
    """A unit that a fabric has opened for one copy.

    `facts` belongs to the copy that has the unit, and stays with the unit when the fabric keeps
    the way to it open for the next one.
    """

    facts: Facts | None

    @property
    def identity(self) -> Hashable:
        """Equal for two ways to one unit, whichever of its designators led there."""

    def submit(
        self,
        cdb: bytes,
        *,
        data_out: Buffer | Sequence[Buffer] = b"",
        data_in: memoryview | None = None,
    ) -> PendingCommand:
        """Send a command, as `scsi.device.Device` does."""

    def close(self, *, broken: bool = False) -> None:
        """Hand the unit back, once or more; `broken` if it no longer answers."""


@runtime_checkable
class EnqueuingUnit(Protocol):
    """A unit behind a network: its small commands are cheaper when many travel together."""

    def enqueue(
        self,
        cdb: bytes,
        *,
        data_out: Buffer | Sequence[Buffer] = b"",
        data_in: memoryview | None = None,
    ) -> "NetworkCommand":
        """Have a command sent with the next one or by `flush`."""

    def flush(self) -> None:
        """Send what was enqueued. Raises nothing: whoever waits for it learns of a failure."""


class NetworkCommand(PendingCommand, Protocol):
    """A command that may not have been sent yet."""

    @property
    def done(self) -> bool:
        """Whether it has ended, as far as anyone has looked."""


class PendingCommands(Protocol):
    """Commands under way at a unit that were sent together."""

    def wait(self, timeout: float | None = None) -> list[Result | None]:
        """Return how each has ended, None where the unit will never say. Raises CommandTimeout."""


@runtime_checkable
class BatchUnit(Protocol):
    """A unit to which it costs less to send commands together."""

    def submit_all(self, commands: Sequence[Order]) -> PendingCommands:
        """Send commands together."""


@runtime_checkable
class SociableUnit(Protocol):
    """A unit whose session may lead to other units."""

    def beside(self, designator: Designator) -> "AttachedUnit | None":
        """Return the unit with this designator if the same session leads there."""


@runtime_checkable
class AllegiantUnit(Protocol):
    """A unit whose ACA condition can be cleared (SAM-5 5.9)."""

    def clear_allegiance(self) -> bool:
        """End it, and what is under way there before; tell if it has ended.

        Raises one of CARRIER_FAILURES.
        """


class Outbox:
    """The units of one copy that have commands enqueued."""

    def __init__(self) -> None:
        self._units: list[EnqueuingUnit] = []

    def add(self, unit: EnqueuingUnit) -> None:
        """Remember that a unit has something to send."""
        if unit not in self._units:
            self._units.append(unit)

    def flush(self) -> None:
        """Send everything: for the one who is about to wait."""
        for unit in self._units:
            unit.flush()
        self._units.clear()


class Aborted(Exception):
    """The copy is to end, noticed while a command of it was waited for."""


@dataclass(slots=True, eq=False)
class Activity:
    """What all commands of one copy share: whether it is to end, and how many there have been.

    `commands` counts those that ended GOOD, CONDITION MET or with RECOVERED ERROR (SPC-4 6.24).
    """

    aborted: Callable[[], bool] = lambda: False
    commands: int = 0

    def count(self, result: Result) -> None:
        """A command has ended."""
        if result.status is Status.GOOD or (
            result.status is Status.CONDITION_MET
            or (result.sense is not None and result.sense.key is SenseKey.RECOVERED_ERROR)
        ):
            self.commands += 1


class Issued:
    """A command under way, sent again where the unit was busy."""

    __slots__ = ("_activity", "_outbox", "_pending", "_send")

    def __init__(
        self,
        send: Callable[[], PendingCommand],
        activity: Activity,
        outbox: Outbox | None = None,
    ) -> None:
        self._send = send
        self._activity = activity
        self._outbox = outbox
        self._pending = self._submit()

    def _submit(self) -> PendingCommand | None:
        try:
            return self._send()
        except CARRIER_FAILURES:
            return None

    def wait(self, *, again: bool = True) -> Result | None:
        """Return how it ended, None if the unit will never say.

        What the unit was too busy for is sent `again`, for a bounded while. Raises Aborted when the
        copy is to end first; the command is still under way then.
        """
        pause = _FIRST_PAUSE
        if self._outbox is not None and not getattr(self._pending, "done", False):
            self._outbox.flush()
        while self._pending is not None:
            try:
                result = self._pending.wait(_ABORT_SECONDS)
            except CARRIER_FAILURES:
                return None
            except CommandTimeout:
                if self._activity.aborted():
                    raise Aborted from None
                continue
            status = result.status
            if not again or status not in _RETRIED or pause > _FIRST_PAUSE * 2 ** _RETRIED[status]:
                self._activity.count(result)
                return result
            if self._activity.aborted():
                raise Aborted
            time.sleep(pause)
            pause *= 2
            self._pending = self._submit()
        return None

    def settle(self, give_up: Callable[[], None]) -> Result | None:
        """Bring it to its end, whatever that is, and return it: its buffers are free then.

        Where the copy is to end and the command does not, `give_up` gives up the way to the unit.
        """
        pending = self._pending
        with contextlib.suppress(*CARRIER_FAILURES):
            while pending is not None:
                try:
                    return pending.wait(_ABORT_SECONDS)
                except CommandTimeout:
                    if self._activity.aborted():
                        give_up()
        return None


class _EachByItself:
    """Commands sent together to a unit that knows nothing of it."""

    def __init__(self, unit: AttachedUnit, commands: Sequence[Order]) -> None:
        self._pending: list[PendingCommand | None] = []
        for cdb, data_out, data_in in commands:
            try:
                self._pending.append(unit.submit(cdb, data_out=data_out, data_in=data_in))
            except CARRIER_FAILURES:
                self._pending.append(None)

    def wait(self, timeout: float | None = None) -> list[Result | None]:
        results: list[Result | None] = []
        for one in self._pending:
            result = None
            with contextlib.suppress(*CARRIER_FAILURES):
                result = None if one is None else one.wait(timeout)
            results.append(result)
        return results


class Volley:
    """Commands under way that were sent together, each sent again where the unit was busy."""

    __slots__ = ("_commands", "_pending", "_unit")

    def __init__(self, unit: "CopyUnit", commands: Sequence[Order]) -> None:
        self._unit = unit
        self._commands = commands
        self._pending: PendingCommands | None = None
        with contextlib.suppress(*CARRIER_FAILURES):
            self._pending = unit.send_all(commands)

    def wait(self) -> list[Result | None]:
        """Return how each has ended, None where the unit will never say.

        Raises Aborted when the copy is to end first; the commands are still under way then.
        """
        activity = self._unit.activity
        results = self._wait(activity)
        for at, result in enumerate(results):
            if result is None:
                continue
            if result.status is Status.GOOD:
                activity.commands += 1
            elif result.status in _RETRIED:
                cdb, data_out, data_in = self._commands[at]
                results[at] = self._unit.issue(cdb, data_out=data_out, data_in=data_in).wait()
            else:
                activity.count(result)
        return results

    def _wait(self, activity: Activity) -> list[Result | None]:
        while self._pending is not None:
            try:
                return self._pending.wait(_ABORT_SECONDS)
            except CARRIER_FAILURES:
                break
            except CommandTimeout:
                if activity.aborted():
                    raise Aborted from None
        return [None] * len(self._commands)

    def settle(self, give_up: Callable[[], None]) -> list[Result | None]:
        """Bring all to their ends, as `Issued.settle` does."""
        while True:
            try:
                return self._wait(self._unit.activity)
            except Aborted:
                give_up()


class CopyUnit:
    """A unit in its place in one parameter list.

    `pointer` is the first byte of the CSCD descriptor that designates it, None for the unit that
    contains the copy manager, which needs none. `steady` is whether a transfer has ended well.
    """

    def __init__(
        self,
        attached: AttachedUnit,
        pointer: FieldPointer | None,
        activity: Activity | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        self.attached = attached
        self._outbox = outbox
        self._enqueuing = attached if isinstance(attached, EnqueuingUnit) else None
        self._batching = attached if isinstance(attached, BatchUnit) else None
        self.pointer = pointer
        self.broken = False
        self.steady = False
        self.activity = activity or Activity()

    def issue(
        self,
        cdb: bytes,
        *,
        data_out: Buffer | Sequence[Buffer] = b"",
        data_in: memoryview | None = None,
    ) -> Issued:
        """Send a command."""
        submit = self.attached.submit
        return Issued(
            lambda: submit(cdb, data_out=data_out, data_in=data_in), self.activity, self._outbox
        )

    def enqueue(
        self,
        cdb: bytes,
        *,
        data_out: Buffer | Sequence[Buffer] = b"",
        data_in: memoryview | None = None,
    ) -> Issued:
        """Send a small command, with the others of the copy when one of them is waited for."""
        unit, outbox = self._enqueuing, self._outbox
        if unit is None or outbox is None:
            return self.issue(cdb, data_out=data_out, data_in=data_in)
        outbox.add(unit)
        enqueue = unit.enqueue
        return Issued(
            lambda: enqueue(cdb, data_out=data_out, data_in=data_in), self.activity, outbox
        )

    def send_all(self, commands: Sequence[Order]) -> PendingCommands:
        """Send commands together. Raises one of CARRIER_FAILURES."""
        if self._batching is None:
            return _EachByItself(self.attached, commands)
        return self._batching.submit_all(commands)

    def command(
        self,
        role: Role,
        cdb: bytes,
        *,
        data_out: Buffer = b"",
        data_in: memoryview | None = None,
    ) -> Result:
        """Carry out a command. Raises CopyAborted unless it ends well, Aborted."""
        result = self.ask(cdb, data_out=data_out, data_in=data_in)
        if result is None or result.status is not Status.GOOD:
            raise self.failure(role, result)
        return result

    def ask(
        self, cdb: bytes, *, data_out: Buffer = b"", data_in: memoryview | None = None
    ) -> Result | None:
        """Carry out a command, whatever its end; None if the unit will never say."""
        issued = self.issue(cdb, data_out=data_out, data_in=data_in)
        try:
            return issued.wait()
        except Aborted:
            issued.settle(self.give_up)
            raise

    def clear_allegiance(self) -> None:
        """Let the unit go on after an error of a command with NACA.

        Where it cannot be asked to, the loss of the nexus does it.
        """
        if isinstance(self.attached, AllegiantUnit):
            cleared = False
            with contextlib.suppress(*CARRIER_FAILURES):
                cleared = self.attached.clear_allegiance()
            self.broken = self.broken or not cleared

    def give_up(self) -> None:
        """Let go of a unit that answers too late: its commands end with the way to it."""
        self.broken = True
        self.attached.close(broken=True)

    @staticmethod
    def may_tell_more(result: Result | None) -> TypeGuard[Result]:
        """Whether a command that has failed may be sent again in parts, to learn which of them did.

        Not if the unit will never answer, nor if it wants attention: that it says only once, and
        what is there may not be what was.
        """
        return result is not None and (
            result.sense is None or result.sense.key is not SenseKey.UNIT_ATTENTION
        )

    def failure(self, role: Role, result: Result | None) -> CopyAborted:
        """A CSCD command failure: status byte and sense go along as they came (5.17.7.4)."""
        if result is None:
            self.broken = True
            return CopyAborted(Asc.THIRD_PARTY_DEVICE_FAILURE, self.pointer)
        sense = result.sense
        area = bytes((result.status,)) + (b"" if sense is None else sense.raw or sense.pack())
        return CopyAborted(Asc.THIRD_PARTY_DEVICE_FAILURE, self.pointer, **{role.value: area})

    def unreachable(self) -> CopyAborted:
        """The unit does not say what it is."""
        self.broken = True
        return CopyAborted(Asc.COPY_TARGET_DEVICE_NOT_REACHABLE, self.pointer)

    def prepare(self, role: Role, device_type: int | None) -> Facts:
        """Make the unit ready for its first read or write and return what it is.

        Unit attentions are heard to their end first: one met later would be a command failure.
        `device_type` is what the CSCD descriptor states, None if there is no descriptor.
        """
        try:
            return self._prepare(role, device_type)
        except Aborted:
            self.give_up()
            raise

    def _prepare(self, role: Role, device_type: int | None) -> Facts:
        attached = self.attached
        if attached.facts is not None and self._clear_attentions(role):
            attached.facts = None
        facts = attached.facts or self._inquire()
        if device_type is not None and facts.device_type != device_type:
            raise CopyAborted(Asc.INCORRECT_COPY_TARGET_DEVICE_TYPE, self.pointer)
        if attached.facts is None:
            self._clear_attentions(role)
            if facts.device_type in BLOCK_TYPES:
                self._ask_disk(role, facts)
            elif facts.device_type == DeviceType.TAPE:
                self._ask_tape(facts)
            attached.facts = facts
        return facts

    def verify(self, role: Role, device_type: int | None, *, ready: bool) -> None:
        """Find the unit there and of its type, its unit attentions undisturbed; or `ready`.

        Raises CopyAborted.
        """
        try:
            facts = self._inquire()
        except Aborted:
            self.give_up()
            raise
        if device_type is not None and facts.device_type != device_type:
            raise CopyAborted(Asc.INCORRECT_COPY_TARGET_DEVICE_TYPE, self.pointer)
        if ready:
            self.command(role, TestUnitReady().pack())

    def _inquire(self) -> Facts:
        buffer = memoryview(bytearray(StandardInquiry.size()))
        cdb = Inquiry(allocation_length=len(buffer)).pack()
        result = self.issue(cdb, data_in=buffer).wait()
        if result is None or result.status is not Status.GOOD:
            raise self.unreachable()
        inquiry = StandardInquiry.unpack(buffer)
        if inquiry.qualifier != Qualifier.CONNECTED:
            raise self.unreachable()
        return Facts(inquiry.device_type, inquiry.normal_aca)

    def _clear_attentions(self, role: Role) -> bool:
        """Return whether there were any. Raises what TEST UNIT READY says besides."""
        for heard in range(_MOST_ATTENTIONS):
            result = self.issue(TestUnitReady().pack()).wait()
            if result is not None and result.status is Status.GOOD:
                return heard > 0
            attention = (
                result is not None
                and result.sense is not None
                and result.sense.key is SenseKey.UNIT_ATTENTION
            )
            if not attention:
                break
        raise self.failure(role, result)

    def _ask_disk(self, role: Role, facts: Facts) -> None:
        limits = memoryview(bytearray(HEADER_LENGTH + BlockLimits.size()))
        limits_page = Inquiry(
            evpd=True, page_code=BlockLimits.PAGE_CODE, allocation_length=len(limits)
        )
        capacity = memoryview(bytearray(Capacity16.size()))
        long = self.issue(ReadCapacity16(allocation_length=len(capacity)).pack(), data_in=capacity)
        asked = self.issue(limits_page.pack(), data_in=limits)
        result = long.wait()
        if result is not None and result.status is Status.GOOD:
            answer = Capacity16.unpack(capacity)
            facts.blocks, facts.block_length = answer.last_lba + 1, answer.block_length
        else:
            self._ask_short_capacity(role, facts)
        result = asked.wait()
        if result is not None and result.status is Status.GOOD:
            with contextlib.suppress(ValueError):
                facts.transfer_blocks = BlockLimits.unpack(limits).maximum_transfer_length

    def _ask_short_capacity(self, role: Role, facts: Facts) -> None:
        capacity = memoryview(bytearray(Capacity10.size()))
        result = self.issue(ReadCapacity10().pack(), data_in=capacity).wait()
        if result is None or result.status is not Status.GOOD:
            raise self.failure(role, result)
        answer = Capacity10.unpack(capacity)
        facts.blocks, facts.block_length = answer.last_lba + 1, answer.block_length

    def _ask_tape(self, facts: Facts) -> None:
        """Learn the block length of fixed-length commands; a drive need not tell."""
        data = memoryview(bytearray(_MODE_HEADER + TapeBlockDescriptor.size()))
        cdb = ModeSense6(page_code=_DEVICE_CONFIGURATION, allocation_length=len(data)).pack()
        result = self.issue(cdb, data_in=data).wait()
        if result is None or result.status is not Status.GOOD:
            return
        with contextlib.suppress(ValueError):
            mode = ModeData.unpack(data[: result.transferred], ten=False)
            if len(mode.block_descriptor) == TapeBlockDescriptor.size():
                facts.block_length = TapeBlockDescriptor.unpack(mode.block_descriptor).block_length
