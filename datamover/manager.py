"""The copy manager: takes parameter lists, runs them, and remembers how they went.

SPC-4 5.17.2 and 5.17.4. It knows neither sockets
nor logical units: a fabric finds the units, whoever calls has the command.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Hashable
from dataclasses import replace

from serverfree.datamover.aliases import Aliases
from serverfree.datamover.buffers import MIB, BufferPool, Slabs
from serverfree.datamover.copies import NOTHING_TO_TELL, Copies, Copy
from serverfree.datamover.endpoints import DISK_WINDOW, PIECE
from serverfree.datamover.engine import Engine
from serverfree.datamover.errors import CopyAborted, UnitUnreachable
from serverfree.datamover.fabric import Fabric, PortalFabric
from serverfree.datamover.held import HELD_DATA_LIMIT
from serverfree.datamover.participants import Participants
from serverfree.datamover.plan import IMPLEMENTED_SEGMENTS, Planner
from serverfree.datamover.units import AttachedUnit
from serverfree.iscsi.names import Portal
from serverfree.scsi.cdb.copy import (
    CopyOperationAbort,
    ExtendedCopy,
    ExtendedCopyLid4,
    ReceiveCopyData,
    ReceiveCopyDataLid4,
    ReceiveCopyFailureDetails,
    ReceiveCopyOperatingParameters,
    ReceiveCopyStatus,
    ReceiveCopyStatusLid4,
)
from serverfree.scsi.copy_cscd import (
    AddressCscd,
    AliasCscd,
    IdentificationCscd,
    Ipv4Cscd,
    Ipv6Cscd,
    StreamParameters,
)
from serverfree.scsi.copy_list import (
    HEADER_LENGTH,
    NULL_BLOCK,
    NULL_STREAM,
    THIS_UNIT,
    CopyList,
)
from serverfree.scsi.copy_page import ThirdPartyCopyPage
from serverfree.scsi.copy_results import (
    CopyCommandStatus,
    CopyOperationStatus,
    OperatingParameters,
    pack_held_data,
)
from serverfree.scsi.copy_segments import TapeImage
from serverfree.scsi.designator import Designator
from serverfree.scsi.device import Buffer
from serverfree.scsi.errors import CheckCondition, invalid_field_in_cdb
from serverfree.scsi.luns import unpack_lun
from serverfree.scsi.sense import Asc, Sense, SenseKey

log = logging.getLogger(__name__)

LIMITS = OperatingParameters(
    supports_no_list_identifier=True,
    maximum_cscd_count=64,
    maximum_segment_count=16384,
    maximum_descriptor_list_length=4 * MIB,
    maximum_inline_data_length=MIB,
    held_data_limit=HELD_DATA_LIMIT,
    maximum_stream_transfer_size=0xFFFFFF,
    total_concurrent_copies=64,
    maximum_concurrent_copies=64,
    descriptor_types=(*IMPLEMENTED_SEGMENTS, IdentificationCscd.TYPE),
)
"""What a copy manager can do: no limit to a segment, granularities of one byte."""

_LIST_IDENTIFIER_FIELD = 2  # byte of the CDBs that name a copy
_ABORT_POLL = 0.5  # seconds


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
        if isinstance(fabric, PortalFabric):
            types = {*limits.descriptor_types, Ipv4Cscd.TYPE, AliasCscd.TYPE, Ipv6Cscd.TYPE}
            limits = replace(limits, descriptor_types=tuple(sorted(types)))
        self._limits = limits
        self._copies = Copies(limits, tolerant=tolerate_duplicate_identifiers)
        self._aliases = Aliases()
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
        self,
        nexus: Hashable,
        parameter_list: Buffer,
        aborted: Callable[[], bool],
        *,
        lid4: bool = False,
    ) -> Sense | None:
        """EXTENDED COPY with a parameter list of at least one byte, and with `lid4` LID4.

        Returns when it is done, or with IMMED when it is begun; the sense data that is to go with
        GOOD (G_SENSE). Raises the sense of 5.17.7.3 or CopyAborted. `aborted` is asked between
        steps.
        """
        copy_list = CopyList.unpack(parameter_list, self._limits, lid4=lid4)
        copy = Copy(copy_list.list_id_usage, int(lid4), copy_list.immediate)
        copy.activity.aborted = self._whether_aborted(copy, aborted)
        if copy.background:
            copy.status = CopyOperationStatus.IN_BACKGROUND
            # The list is the command's, and that ends now.
            copy_list.inline = bytes(copy_list.inline)
        self._copies.admit(nexus, copy_list.list_identifier, copy)
        if copy.background:
            threading.Thread(
                target=self._carry_out_quietly,
                args=(nexus, copy_list, copy),
                name=f"copy {copy_list.list_identifier}",
                daemon=True,
            ).start()
            return None
        self._carry_out(nexus, copy_list, copy)
        if not copy_list.good_with_sense:
            return None
        return Sense(
            SenseKey.COMPLETED,
            Asc.EXTENDED_COPY_INFORMATION_AVAILABLE,
            command_specific=len(copy_list.segments),
        )

    def copy_operation_abort(
        self, nexus: Hashable, list_identifier: int, aborted: Callable[[], bool]
    ) -> None:
        """COPY OPERATION ABORT: returns when nothing of the copy is under way (5.17.4.7).

        Raises 5/24/00 unless a copy is under way under that identifier.
        """
        with self._copies.lock:
            copy = self._copies.find(nexus, list_identifier)
            if copy is None or not copy.running:
                raise invalid_field_in_cdb(_LIST_IDENTIFIER_FIELD)
            copy.abort = True
        while not copy.ended.wait(_ABORT_POLL):
            if aborted():
                return

    def receive_copy_results(
        self, nexus: Hashable, service_action: int, list_identifier: int, allocation_length: int
    ) -> bytes:
        """Return the whole response of a command 84h. Raises 5/24/00 for an unknown identifier."""
        if service_action == ReceiveCopyOperatingParameters.SERVICE_ACTION:
            return self._limits.pack()
        with self._copies.lock:
            copy = self._copies.find(nexus, list_identifier)
            if copy is None:
                raise invalid_field_in_cdb(_LIST_IDENTIFIER_FIELD)
            response = _RESPONSES[service_action](copy, allocation_length)
            if copy.origin == ExtendedCopy.SERVICE_ACTION:
                self._copies.drop_told(nexus, list_identifier)
            return response

    @property
    def has_aliases(self) -> bool:
        """Whether CSCDs can be named by an alias here."""
        return isinstance(self._fabric, PortalFabric)

    def change_aliases(self, nexus: Hashable, parameter_list: Buffer) -> None:
        """CHANGE ALIASES. Raises ILLEGAL REQUEST, and nothing is changed."""
        self._aliases.change(nexus, parameter_list)

    def report_aliases(self, nexus: Hashable) -> bytes:
        """REPORT ALIASES: the whole response."""
        return self._aliases.report(nexus)

    def vpd_page(self) -> bytes:
        """Return VPD page 8Fh (7.8.17)."""
        own = () if self._own_unit is None else (THIS_UNIT,)
        cscd_ids = (NULL_BLOCK, NULL_STREAM, *own)
        return ThirdPartyCopyPage(_COMMANDS, self._limits, cscd_ids).pack()

    def forget(self, nexus: Hashable) -> None:
        """I_T nexus loss: results go, copies go on (5.17.4.7, table 109)."""
        self._copies.forget(nexus)
        self._aliases.forget(nexus)

    def reset(self) -> None:
        """Logical unit reset: results go, and copies end with COPY ABORTED (table 109)."""
        self._copies.clear()
        self._aliases.clear()
        self._resets += 1

    # ------------------------------------------------------------------ one copy

    def _whether_aborted(self, copy: Copy, aborted: Callable[[], bool]) -> Callable[[], bool]:
        resets = self._resets
        if copy.background:  # the command that began it is nothing to it any more
            return lambda: copy.abort or self._resets != resets
        return lambda: copy.abort or self._resets != resets or aborted()

    def _carry_out(self, nexus: Hashable, copy_list: CopyList, copy: Copy) -> None:
        """Run a copy that is admitted; whatever its end, it has one."""
        status, sense = CopyOperationStatus.FAILED, _INTERNAL_FAILURE
        named = any(isinstance(cscd, AliasCscd) for cscd in copy_list.cscds)
        try:
            with self._aliases.used(nexus) if named else contextlib.nullcontext():
                self._run(nexus, copy_list, copy)
            status, sense = CopyOperationStatus.COMPLETED, b""
        except CheckCondition as error:
            sense = error.sense.pack()
            if copy.activity.aborted():
                status = CopyOperationStatus.TERMINATED
            raise
        finally:
            copy.end(status, sense)
            self._copies.retire(copy)

    def _carry_out_quietly(self, nexus: Hashable, copy_list: CopyList, copy: Copy) -> None:
        """In the background errors are there to be asked for, and for nobody else (5.17.4.3)."""
        try:
            self._carry_out(nexus, copy_list, copy)
        except CheckCondition as error:
            log.info("copy %d in the background: %s", copy_list.list_identifier, error.sense)
        except Exception:
            log.exception("copy %d in the background failed", copy_list.list_identifier)

    def _run(self, nexus: Hashable, copy_list: CopyList, copy: Copy) -> None:
        if not copy_list.segments:
            return
        aborted = copy.activity.aborted
        with self._pool.reserve(memory_needed(copy_list), aborted) as memory:
            if not memory:
                raise CopyAborted(Asc.COMMANDS_CLEARED_BY_DEVICE_SERVER).in_segment(0)
            participants = Participants(
                copy_list,
                lambda name: self._open(name, nexus),
                self._own_unit,
                copy.activity,
            )
            planner = Planner(copy_list, self._limits, participants)
            try:
                Engine(
                    planner,
                    len(copy_list.segments),
                    Slabs(self._pool, memory),
                    copy.progress,
                    aborted,
                    copy.held,
                ).run()
            except CopyAborted:
                with contextlib.suppress(CopyAborted):  # the first error is the one to tell
                    planner.finish()
                raise
            else:
                planner.finish()
            finally:
                participants.close()

    def _open(self, name: Designator | AddressCscd, nexus: Hashable) -> AttachedUnit:
        if isinstance(name, Designator):
            return self._fabric.open(name, nexus)
        lun = unpack_lun(name.lun)
        if lun is None or not isinstance(self._fabric, PortalFabric):
            raise UnitUnreachable("no such LUN")
        if isinstance(name, AliasCscd):
            target = self._aliases.find(nexus, name.alias)
            if target is None:
                raise UnitUnreachable(f"no alias {name.alias.hex()}")
            return self._fabric.open_named(target, lun, nexus)
        return self._fabric.open_at(Portal(str(name.address), name.port), lun, nexus)


# ---------------------------------------------------------------------- results


def _lid1_status(copy: Copy, allocation_length: int) -> bytes:
    if not copy.status_kept:
        raise invalid_field_in_cdb(_LIST_IDENTIFIER_FIELD)
    response = copy.lid1_status()
    if response.status != CopyCommandStatus.IN_PROGRESS:
        copy.status_kept = False  # told once, after the end (6.25 a)
    return response.pack()


def _lid1_data(copy: Copy, allocation_length: int) -> bytes:
    if copy.running:
        raise invalid_field_in_cdb(_LIST_IDENTIFIER_FIELD)
    response = pack_held_data(copy.held.bytes())
    _fetched(copy, response, allocation_length)
    return response


def _lid1_failure(copy: Copy, allocation_length: int) -> bytes:
    if copy.running or copy.origin != ExtendedCopy.SERVICE_ACTION:
        raise invalid_field_in_cdb(_LIST_IDENTIFIER_FIELD)
    response = copy.failure.pack()
    if not allocation_length or allocation_length >= len(response):
        copy.failure = NOTHING_TO_TELL  # fetched whole, or declined (6.23 a, b)
    return response


def _lid4_status(copy: Copy, allocation_length: int) -> bytes:
    return copy.lid4_status().pack()


def _lid4_data(copy: Copy, allocation_length: int) -> bytes:
    answer = copy.lid4_status()
    answer.held_data_discarded = copy.held.discarded
    ended_well = copy.status is CopyOperationStatus.COMPLETED
    answer.data = copy.held.bytes() if ended_well else b""
    response = answer.pack()
    if ended_well:
        _fetched(copy, response, allocation_length)
    return response


def _fetched(copy: Copy, response: bytes, allocation_length: int) -> None:
    """Let go of held data that has been fetched whole, or declined (5.17.4.5 a, b)."""
    if not allocation_length or allocation_length >= len(response):
        copy.held.drop()


_RESPONSES: dict[int, Callable[[Copy, int], bytes]] = {
    int(kind.SERVICE_ACTION or 0): respond
    for kind, respond in (
        (ReceiveCopyStatus, _lid1_status),
        (ReceiveCopyData, _lid1_data),
        (ReceiveCopyFailureDetails, _lid1_failure),
        (ReceiveCopyStatusLid4, _lid4_status),
        (ReceiveCopyDataLid4, _lid4_data),
    )
}
_COMMANDS = {
    ExtendedCopy.OPCODE: tuple(
        int(kind.SERVICE_ACTION or 0)
        for kind in (ExtendedCopy, ExtendedCopyLid4, CopyOperationAbort)
    ),
    ReceiveCopyStatus.OPCODE: tuple(
        sorted((*_RESPONSES, int(ReceiveCopyOperatingParameters.SERVICE_ACTION or 0)))
    ),
}
_INTERNAL_FAILURE = Sense(SenseKey.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE).pack()


def memory_needed(copy_list: CopyList) -> int:
    """Return the bytes of buffer that keep a copy at full speed.

    The disk commands under way on both sides, a piece that is filling and one that is emptying,
    and what residue a tape's transfers can leave before and behind.
    """
    longest = 0
    for segment in copy_list.segments:
        if isinstance(segment, TapeImage):
            longest = 0xFFFFFF  # as long as a block can be
        for name, _ in segment.TRANSFER_LENGTHS:
            longest = max(longest, getattr(segment, name))
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
