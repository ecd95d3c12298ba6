"""The copies of one copy manager, under way and ended, by I_T nexus and list identifier.

SPC-4 5.17.4.2: identifiers are 32 bits wide, whichever command gave them.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

from serverfree.datamover.buffers import MIB
from serverfree.datamover.held import HeldData
from serverfree.datamover.steps import Progress
from serverfree.datamover.units import Activity
from serverfree.scsi.copy_list import ListIdUsage
from serverfree.scsi.copy_results import (
    BLOCKS,
    UPDATE_DELAY_ENDED,
    CopyCommandStatus,
    CopyOperationStatus,
    CopyStatus,
    FailureDetails,
    OperatingParameters,
    OperationStatus,
)
from serverfree.scsi.errors import illegal_request
from serverfree.scsi.sense import Asc, Sense
from serverfree.scsi.status import Status

_BOTH_FORMATS = {0, 1}  # service actions of EXTENDED COPY, LID1 and LID4
_UPDATE_DELAY = 500  # milliseconds until asking again is worth while
_MOST_ENDED = 1024  # copies that have ended and are still known
_MOST_HELD = 16 * MIB  # held data of all of them


@dataclass(slots=True, eq=False)
class Copy:
    """A copy operation, under way or ended, under its list identifier.

    `origin` is the service action that began it. What is kept for the LID1 commands goes as they
    fetch it: `status_kept`, `failure_kept`; so do the `tokens` made, with the CSCD DESCRIPTOR ID of
    each. Of a copy with a `block_length` transferred data is counted in blocks, and no segments.
    """

    usage: ListIdUsage
    origin: int = 0
    background: bool = False
    progress: Progress = field(default_factory=Progress)
    activity: Activity = field(default_factory=Activity)
    held: HeldData = field(default_factory=HeldData)
    status: CopyOperationStatus = CopyOperationStatus.IN_FOREGROUND
    sense: Sense | None = None
    failure_kept: bool = False
    status_kept: bool = True
    abort: bool = False
    tokens: list[tuple[int, bytes]] = field(default_factory=list)
    block_length: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return not self.ended.is_set()

    def lid1_status(self) -> CopyStatus:
        """RECEIVE COPY STATUS(LID1)."""
        if self.running:
            status = CopyCommandStatus.IN_PROGRESS
        elif self.status is CopyOperationStatus.COMPLETED:
            status = CopyCommandStatus.COMPLETED
        else:
            status = CopyCommandStatus.FAILED
        progress = self.progress
        answer = CopyStatus.of(status, progress.segments_processed, progress.bytes_written)
        answer.held_data_discarded = self.held.discarded
        return answer

    def lid4_status(self) -> OperationStatus:
        """RECEIVE COPY STATUS(LID4)."""
        progress = self.progress
        answer = OperationStatus(
            self.status,
            self.origin,
            self.activity.commands & 0xFFFF,
            UPDATE_DELAY_ENDED if self.ended.is_set() else _UPDATE_DELAY,
            transfer_count=progress.bytes_written,
            segments_processed=min(progress.segments_processed, 0xFFFF),
        )
        if self.block_length:
            answer.transfer_count_units = BLOCKS
            answer.transfer_count = progress.bytes_written // self.block_length
            answer.segments_processed = 0
        if self.status is CopyOperationStatus.TERMINATED:
            answer.completion_status = Status.TASK_ABORTED
        elif self.sense is not None:
            answer.completion_status = Status.CHECK_CONDITION
            answer.sense = self.sense.pack()
        return answer

    def lid1_failure(self) -> FailureDetails:
        """RECEIVE COPY FAILURE DETAILS(LID1)."""
        if self.sense is None or not self.failure_kept:
            return FailureDetails()
        return FailureDetails(Status.CHECK_CONDITION, self.sense.pack())

    def end(self, status: CopyOperationStatus, sense: Sense | None = None) -> None:
        """The copy has ended: what there is to tell first, then that it has.

        The sense is packed when it is asked for: what is told is a copy of what the command ended
        with (6.23, 6.24), and so in its format, which the gate decides (D_SENSE).
        """
        self.sense = sense
        self.failure_kept = sense is not None
        self.status = status
        self.ended.set()


class Copies:
    """What one copy manager knows of copies. Safe to use from any thread under `lock`.

    With `tolerant` a second copy may run under an identifier that is in use, if both have LIST ID
    USAGE 10b.
    """

    def __init__(self, limits: OperatingParameters, *, tolerant: bool) -> None:
        self.lock = threading.Lock()
        self._limits = limits
        self._tolerant = tolerant
        self._known: OrderedDict[tuple[Hashable, int], Copy] = OrderedDict()
        self._running: list[Copy] = []

    def admit(self, nexus: Hashable, identifier: int, copy: Copy) -> None:
        """Register a copy that begins; what was kept under its identifier goes.

        Raises the ILLEGAL REQUEST of an identifier in use or of too many copies at once.
        """
        identified = copy.usage is not ListIdUsage.NO_IDENTIFIER
        with self.lock:
            present = self._known.get((nexus, identifier)) if identified else None
            if present is not None and present.running:
                if {present.origin, copy.origin} == _BOTH_FORMATS:  # (6.4.3.2)
                    raise illegal_request(Asc.INVALID_FIELD_IN_PARAMETER_LIST)
                loose = present.usage is copy.usage is ListIdUsage.DISCARD
                if not (loose and self._tolerant):
                    raise illegal_request(Asc.OPERATION_IN_PROGRESS)
            named = sum(one.usage is not ListIdUsage.NO_IDENTIFIER for one in self._running)
            if len(self._running) >= self._limits.total_concurrent_copies or (
                identified and named >= self._limits.maximum_concurrent_copies
            ):
                raise illegal_request(Asc.INSUFFICIENT_RESOURCES)
            if identified:
                self._known[nexus, identifier] = copy
                self._known.move_to_end((nexus, identifier))
            self._running.append(copy)

    def end(self, copy: Copy, status: CopyOperationStatus, sense: Sense | None) -> None:
        """A copy has ended: whoever hears of it finds its place free.

        The oldest of those known go where there are too many.
        """
        with self.lock:
            self._running.remove(copy)
            copy.end(status, sense)
            ended = [key for key, one in self._known.items() if not one.running]
            for key in ended[: max(0, len(ended) - _MOST_ENDED)]:
                del self._known[key]
            held = sum(one.held.length for one in self._known.values() if not one.running)
            for one in self._known.values():
                if held <= _MOST_HELD:
                    break
                if not one.running and one is not copy and one.held.length:
                    held -= one.held.length
                    one.held.drop()
                    one.held.discarded = True

    def find(self, nexus: Hashable, identifier: int) -> Copy | None:
        """Return the copy of that nexus under that identifier."""
        return self._known.get((nexus, identifier))

    def drop_told(self, nexus: Hashable, identifier: int) -> None:
        """Forget a copy of which everything has been fetched."""
        copy = self._known[nexus, identifier]
        told = not (copy.status_kept or copy.failure_kept or copy.tokens)
        if told and not copy.held.length:
            del self._known[nexus, identifier]

    def in_background(self) -> list[Copy]:
        """The copies under way that no command waits for."""
        with self.lock:
            return [copy for copy in self._running if copy.background]

    def forget(self, nexus: Hashable) -> None:
        """The nexus is lost: its results go, its copies go on."""
        with self.lock:
            for key in [key for key in self._known if key[0] == nexus]:
                del self._known[key]

    def clear(self) -> None:
        """All results go."""
        with self.lock:
            self._known.clear()
