"""The copy manager: takes parameter lists, runs them, and remembers how they went.

SPC-4 5.17.2 and 5.17.4 for the commands with one-byte list identifiers. It knows neither sockets
nor logical units: a fabric finds the units, whoever calls has the command.
"""

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from serverfree.datamover.buffers import MIB, BufferPool, Slabs
from serverfree.datamover.endpoints import DISK_WINDOW, PIECE
from serverfree.datamover.engine import Engine
from serverfree.datamover.errors import CopyAborted
from serverfree.datamover.fabric import Fabric
from serverfree.datamover.participants import Participants
from serverfree.datamover.plan import IMPLEMENTED_SEGMENTS, Planner, Progress
from serverfree.scsi.cdb.copy import (
    ExtendedCopy,
    ReceiveCopyFailureDetails,
    ReceiveCopyOperatingParameters,
    ReceiveCopyStatus,
)
from serverfree.scsi.copy_cscd import IdentificationCscd, StreamParameters
from serverfree.scsi.copy_list import HEADER_LENGTH, THIS_UNIT, CopyList, ListIdUsage
from serverfree.scsi.copy_page import ThirdPartyCopyPage
from serverfree.scsi.copy_results import (
    CopyCommandStatus,
    CopyStatus,
    FailureDetails,
    OperatingParameters,
)
from serverfree.scsi.designator import Designator
from serverfree.scsi.device import Buffer
from serverfree.scsi.errors import CheckCondition, illegal_request, invalid_field_in_cdb
from serverfree.scsi.sense import Asc
from serverfree.scsi.status import Status

LIMITS = OperatingParameters(
    supports_no_list_identifier=True,
    maximum_cscd_count=64,
    maximum_segment_count=16384,
    maximum_descriptor_list_length=4 * MIB,
    maximum_inline_data_length=MIB,
    maximum_stream_transfer_size=0xFFFFFF,
    total_concurrent_copies=64,
    maximum_concurrent_copies=64,
    descriptor_types=(*IMPLEMENTED_SEGMENTS, IdentificationCscd.TYPE),
)
"""What a copy manager can do: no limit to a segment, granularity of one byte, no held data."""

_COMMANDS = {
    ExtendedCopy.OPCODE: (int(ExtendedCopy.SERVICE_ACTION or 0),),
    ReceiveCopyStatus.OPCODE: tuple(
        int(kind.SERVICE_ACTION or 0)
        for kind in (ReceiveCopyStatus, ReceiveCopyOperatingParameters, ReceiveCopyFailureDetails)
    ),
}
_NOTHING_TO_TELL = FailureDetails()
_LIST_IDENTIFIER_FIELD = 2  # byte of the CDBs of 84h


@dataclass(slots=True, eq=False)
class _Copy:
    """A copy operation, under way or ended, under its list identifier."""

    usage: ListIdUsage
    progress: Progress = field(default_factory=Progress)
    status: CopyCommandStatus = CopyCommandStatus.IN_PROGRESS
    failure: FailureDetails = _NOTHING_TO_TELL
    status_kept: bool = True


class CopyManager:
    """One copy manager, contained in one logical unit.

    `own_unit` is that unit, where CSCD DESCRIPTOR ID FFFFh shall name it. Managers of one process
    share a `pool`. List identifiers are per I_T nexus. With `tolerate_duplicate_identifiers` a
    second copy may run under an identifier that is in use, if both have LIST ID USAGE 10b: not
    what the standard says (5.17.4.2), but what initiators do that keep many copies in flight.
    Safe to use from any thread.
    """

    def __init__(
        self,
        fabric: Fabric,
        *,
        own_unit: Designator | None = None,
        pool: BufferPool | None = None,
        limits: OperatingParameters = LIMITS,
        tolerate_duplicate_identifiers: bool = True,
    ) -> None:
        self._fabric = fabric
        self._own_unit = own_unit
        self._pool = pool or BufferPool()
        self._limits = limits
        self._tolerant = tolerate_duplicate_identifiers
        self._lock = threading.Lock()
        self._copies: dict[Hashable, dict[int, _Copy]] = {}
        self._running: list[_Copy] = []
        self._resets = 0

    @property
    def maximum_parameter_list_length(self) -> int:
        """The longest parameter list that can be within the limits."""
        limits = self._limits
        return (
            HEADER_LENGTH
            + limits.maximum_descriptor_list_length
            + limits.maximum_inline_data_length
        )

    # ------------------------------------------------------------------ commands

    def extended_copy(
        self, nexus: Hashable, parameter_list: Buffer, aborted: Callable[[], bool]
    ) -> None:
        """EXTENDED COPY(LID1) with a parameter list of at least one byte: returns when it is done.

        Raises the sense of 5.17.7.3 or CopyAborted. `aborted` is asked between steps.
        """
        copy_list = CopyList.unpack(parameter_list, self._limits)
        resets = self._resets
        copy = self._admit(nexus, copy_list)
        try:
            self._run(copy_list, copy.progress, lambda: aborted() or self._resets != resets)
            copy.status = CopyCommandStatus.COMPLETED
        except CheckCondition as error:
            copy.failure = FailureDetails(Status.CHECK_CONDITION, error.sense.pack())
            raise
        finally:
            # Details first, then the status that makes them readable.
            if copy.status is CopyCommandStatus.IN_PROGRESS:
                copy.status = CopyCommandStatus.FAILED
            with self._lock:
                self._running.remove(copy)

    def receive_copy_results(
        self, nexus: Hashable, service_action: int, list_identifier: int, allocation_length: int
    ) -> bytes:
        """Return the whole response of a command 84h. Raises 5/24/00 for an unknown identifier."""
        if service_action == ReceiveCopyOperatingParameters.SERVICE_ACTION:
            return self._limits.pack()
        with self._lock:
            copies = self._copies.get(nexus, {})
            copy = copies.get(list_identifier)
            if copy is None:
                raise invalid_field_in_cdb(_LIST_IDENTIFIER_FIELD)
            if service_action == ReceiveCopyStatus.SERVICE_ACTION:
                response = self._status(copy)
            else:
                response = self._failure_details(copy, allocation_length)
            if not copy.status_kept and copy.failure.status is None:
                del copies[list_identifier]
            return response

    def vpd_page(self) -> bytes:
        """Return VPD page 8Fh (7.8.17)."""
        cscd_ids = () if self._own_unit is None else (THIS_UNIT,)
        return ThirdPartyCopyPage(_COMMANDS, self._limits, cscd_ids).pack()

    def forget(self, nexus: Hashable) -> None:
        """I_T nexus loss: results go, copies go on (5.17.4.7, table 109)."""
        with self._lock:
            self._copies.pop(nexus, None)

    def reset(self) -> None:
        """Logical unit reset: results go, and copies end with COPY ABORTED (table 109)."""
        with self._lock:
            self._copies.clear()
            self._resets += 1

    # ------------------------------------------------------------------ one copy

    def _admit(self, nexus: Hashable, copy_list: CopyList) -> _Copy:
        """Register a copy under its identifier; what was kept under that goes."""
        copy = _Copy(copy_list.list_id_usage)
        identified = copy.usage is not ListIdUsage.NO_IDENTIFIER
        with self._lock:
            copies = self._copies.get(nexus, {})
            present = copies.get(copy_list.list_identifier) if identified else None
            if present is not None and present.status is CopyCommandStatus.IN_PROGRESS:
                loose = present.usage is copy.usage is ListIdUsage.DISCARD
                if not (loose and self._tolerant):
                    raise illegal_request(Asc.OPERATION_IN_PROGRESS)
            named = sum(one.usage is not ListIdUsage.NO_IDENTIFIER for one in self._running)
            if len(self._running) >= self._limits.total_concurrent_copies or (
                identified and named >= self._limits.maximum_concurrent_copies
            ):
                raise illegal_request(Asc.INSUFFICIENT_RESOURCES)
            if identified:
                self._copies.setdefault(nexus, {})[copy_list.list_identifier] = copy
            self._running.append(copy)
        return copy

    def _run(self, copy_list: CopyList, progress: Progress, aborted: Callable[[], bool]) -> None:
        if not copy_list.segments:
            return
        with self._pool.reserve(memory_needed(copy_list), aborted) as memory:
            if not memory:
                raise CopyAborted(Asc.COMMANDS_CLEARED_BY_DEVICE_SERVER).in_segment(0)
            participants = Participants(copy_list, self._fabric.open, self._own_unit, aborted)
            planner = Planner(copy_list, self._limits, participants)
            try:
                Engine(
                    planner, len(copy_list.segments), Slabs(self._pool, memory), progress, aborted
                ).run()
            finally:
                participants.close()

    # ------------------------------------------------------------------ results

    def _status(self, copy: _Copy) -> bytes:
        if not copy.status_kept:
            raise invalid_field_in_cdb(_LIST_IDENTIFIER_FIELD)
        status = copy.status
        if status is not CopyCommandStatus.IN_PROGRESS:
            copy.status_kept = False  # told once, after the end (6.25 a)
        progress = copy.progress
        return CopyStatus.of(status, progress.segments_processed, progress.bytes_written).pack()

    def _failure_details(self, copy: _Copy, allocation_length: int) -> bytes:
        if copy.status is CopyCommandStatus.IN_PROGRESS:
            raise invalid_field_in_cdb(_LIST_IDENTIFIER_FIELD)
        response = copy.failure.pack()
        if not allocation_length or allocation_length >= len(response):
            copy.failure = _NOTHING_TO_TELL  # fetched whole, or declined (6.23 a, b)
        return response


def memory_needed(copy_list: CopyList) -> int:
    """Return the bytes of buffer that keep a copy at full speed.

    The disk commands under way on both sides, a piece that is filling and one that is emptying,
    and what residue a tape's transfers can leave before and behind.
    """
    longest = 0
    for segment in copy_list.segments:
        transfer_length = getattr(segment, "stream_transfer_length", 0)
        if transfer_length > longest:
            longest = transfer_length
    block = max(
        (
            cscd.parameters.block_length
            for cscd in copy_list.cscds
            if isinstance(cscd.parameters, StreamParameters) and cscd.parameters.fixed
        ),
        default=1,
    )
    unit = min(longest * block, 0xFFFFFF)
    return 2 * DISK_WINDOW + 2 * PIECE + 2 * unit
