"""The copy manager: takes parameter lists, runs them, and remembers how they went.

SPC-4 5.17.2 and 5.17.4. It knows neither sockets
nor logical units: a fabric finds the units, whoever calls has the command.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

from serverfree.datamover.aliases import Aliases
from serverfree.datamover.buffers import MIB, BufferPool, Slabs
from serverfree.datamover.copies import Copies, Copy
from serverfree.datamover.copy_rods import CopyRods
from serverfree.datamover.endpoints import DISK_WINDOW, PIECE
from serverfree.datamover.engine import Engine
from serverfree.datamover.errors import CopyAborted, UnitUnreachable
from serverfree.datamover.fabric import ActingFabric, Fabric, PortalFabric
from serverfree.datamover.held import HELD_DATA_LIMIT
from serverfree.datamover.offload import MOST_RANGES, Offload, TokenRanOut, Writing, zeroing
from serverfree.datamover.participants import Participants
from serverfree.datamover.plan import IMPLEMENTED_SEGMENTS, Planner
from serverfree.datamover.precedence import Precedence
from serverfree.datamover.results import LIST_IDENTIFIER_FIELD, RESPONSES
from serverfree.datamover.units import AttachedUnit, Role
from serverfree.iscsi.names import Portal
from serverfree.scsi.cdb.copy import (
    CopyOperationAbort,
    ExtendedCopy,
    ExtendedCopyLid4,
    PopulateToken,
    ReceiveCopyOperatingParameters,
    ReceiveCopyStatus,
    ReceiveRodTokenInformation,
    ReportAllRodTokens,
    WriteUsingToken,
)
from serverfree.scsi.copy_cscd import (
    ROD_FROM_TOKEN,
    AddressCscd,
    AliasCscd,
    IdentificationCscd,
    Ipv4Cscd,
    Ipv6Cscd,
    RodCscd,
    StreamParameters,
)
from serverfree.scsi.copy_list import (
    HEADER_LENGTH,
    NULL_BLOCK,
    NULL_STREAM,
    THIS_UNIT,
    CopyList,
    ListIdUsage,
)
from serverfree.scsi.copy_page import ThirdPartyCopyPage
from serverfree.scsi.copy_results import (
    CopyOperationStatus,
    OperatingParameters,
)
from serverfree.scsi.copy_segments import PopulateRodRange, PopulateRodRanges, TapeImage
from serverfree.scsi.designator import Designator
from serverfree.scsi.device import Buffer
from serverfree.scsi.errors import CheckCondition, illegal_request, invalid_field_in_cdb
from serverfree.scsi.luns import unpack_lun
from serverfree.scsi.rod_token import PopulateList, Range, WriteList
from serverfree.scsi.sense import Asc, Sense, SenseKey

log = logging.getLogger(__name__)

_OF_ITS_OWN_BLOCKS = (PopulateRodRanges.TYPE, PopulateRodRange.TYPE)

LIMITS = OperatingParameters(
    supports_no_list_identifier=True,
    maximum_cscd_count=64,
    maximum_segment_count=16384,
    maximum_descriptor_list_length=4 * MIB,
    maximum_inline_data_length=MIB,
    maximum_segment_length=0xFFFFFFFF,  # 0, for no limit, libiscsi's iscsi-dd takes at its word
    held_data_limit=HELD_DATA_LIMIT,
    maximum_stream_transfer_size=16 * MIB,
    total_concurrent_copies=64,
    maximum_concurrent_copies=64,
    descriptor_types=(
        *(code for code in IMPLEMENTED_SEGMENTS if code not in _OF_ITS_OWN_BLOCKS),
        IdentificationCscd.TYPE,
    ),
)
"""What a copy manager can do: the largest segment that can be told, granularities of one byte."""

_ABORT_POLL = 0.5  # seconds
_RESET_SECONDS = 2.0  # a host waits for a reset no longer


class CopyManager:
    """One copy manager, contained in one logical unit.

    `own_unit` is that unit, where CSCD DESCRIPTOR ID FFFFh shall name it. Managers of one process
    share a `pool`. List identifiers are per I_T nexus. With `tolerate_duplicate_identifiers` a
    second copy may run under an identifier that is in use, if both have LIST ID USAGE 10b: not
    what the standard says (5.17.4.2), but what initiators do that keep many copies in flight.
    With an `offload` there are ROD tokens. Safe to use from any thread.
    """

    def __init__(
        self,
        fabric: Fabric,
        *,
        own_unit: Designator | None = None,
        pool: BufferPool | None = None,
        limits: OperatingParameters = LIMITS,
        tolerate_duplicate_identifiers: bool = True,
        offload: Offload | None = None,
    ) -> None:
        self._fabric = fabric
        self._own_unit = own_unit
        self._pool = pool or BufferPool()
        self._offload = offload
        types = set(limits.descriptor_types)
        if isinstance(fabric, PortalFabric):
            types |= {Ipv4Cscd.TYPE, AliasCscd.TYPE, Ipv6Cscd.TYPE}
        if offload is not None:
            types.add(RodCscd.TYPE)
            if offload.medium is not None:
                types.update(_OF_ITS_OWN_BLOCKS)
        limits = replace(limits, descriptor_types=tuple(sorted(types)))
        self._limits = limits
        self._copies = Copies(limits, tolerant=tolerate_duplicate_identifiers)
        self._aliases = Aliases()
        self._precedence = Precedence()
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
        rods = CopyRods() if self._offload is None else self._offload.rods_of(copy_list)
        copy = Copy(copy_list.list_id_usage, int(lid4), copy_list.immediate)
        if copy.background:
            # The list is the command's, and that ends now.
            copy_list.inline = bytes(copy_list.inline)

        def act() -> None:
            named = any(isinstance(cscd, AliasCscd) for cscd in copy_list.cscds)
            with self._aliases.used(nexus) if named else contextlib.nullcontext():
                self._run(nexus, copy_list, copy, rods)
                copy.tokens = rods.make_tokens()

        self._begin(nexus, copy_list.list_identifier, copy, aborted, act, rods)
        if copy.background:
            return None
        if not copy_list.good_with_sense:
            return None
        return Sense(
            SenseKey.COMPLETED,
            Asc.EXTENDED_COPY_INFORMATION_AVAILABLE,
            command_specific=len(copy_list.segments),
        )

    @property
    def makes_tokens(self) -> bool:
        """Whether there are POPULATE TOKEN and WRITE USING TOKEN."""
        return self._offload is not None and self._offload.medium is not None

    @property
    def knows_tokens(self) -> bool:
        """Whether there are commands that tell of tokens."""
        return self._offload is not None

    def populate_token(
        self,
        nexus: Hashable,
        list_identifier: int,
        parameter_list: Buffer,
        aborted: Callable[[], bool],
    ) -> None:
        """POPULATE TOKEN with a parameter list of at least one byte. Raises CheckCondition.

        Whatever IMMED says it is done when this returns: nothing is copied.
        """
        offload = self._offload
        assert offload is not None
        medium = offload.medium
        assert medium is not None
        wanted = PopulateList.unpack(parameter_list, MOST_RANGES)
        offload.check(wanted, medium)
        copy = Copy(
            ListIdUsage.HOLD,
            int(PopulateToken.SERVICE_ACTION or 0),
            block_length=medium.block_length,
        )

        def act() -> None:
            token, copy.progress.bytes_written = offload.populate(wanted, medium)
            copy.tokens = [(0, token)]

        self._begin(nexus, list_identifier, copy, aborted, act, CopyRods())

    def write_using_token(
        self,
        nexus: Hashable,
        list_identifier: int,
        parameter_list: Buffer,
        aborted: Callable[[], bool],
    ) -> None:
        """WRITE USING TOKEN with a parameter list of at least one byte.

        Returns when it is done, or with IMMED when it is begun. Raises CheckCondition; one that
        comes while data is written has in INFORMATION how many blocks are.
        """
        offload = self._offload
        assert offload is not None
        medium = offload.medium
        assert medium is not None
        wanted = WriteList.unpack(parameter_list, MOST_RANGES)
        writing, rods = offload.write(wanted, medium)
        copy = Copy(
            ListIdUsage.HOLD,
            int(WriteUsingToken.SERVICE_ACTION or 0),
            wanted.immediate,
            block_length=medium.block_length,
        )
        self._begin(
            nexus,
            list_identifier,
            copy,
            aborted,
            lambda: self._write(nexus, writing, copy, rods),
            rods,
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
                raise invalid_field_in_cdb(LIST_IDENTIFIER_FIELD)
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
        if service_action == ReportAllRodTokens.SERVICE_ACTION:
            return self._all_tokens()
        with self._copies.lock:
            copy = self._copies.find(nexus, list_identifier)
            if copy is None:
                raise invalid_field_in_cdb(LIST_IDENTIFIER_FIELD)
            response = RESPONSES[service_action](copy, allocation_length)
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
        originating, telling = set(_ORIGINATING), {*RESPONSES, _PARAMETERS}
        if self.knows_tokens:
            own = (*own, ROD_FROM_TOKEN)
            telling.add(_ALL_TOKENS)
        else:
            telling.remove(_TOKEN_INFORMATION)
        if self.makes_tokens:
            originating |= _TOKEN_COMMANDS
        commands = {
            ExtendedCopy.OPCODE: tuple(sorted(originating)),
            ReceiveCopyStatus.OPCODE: tuple(sorted(telling)),
        }
        cscd_ids = (NULL_BLOCK, NULL_STREAM, *own)
        features = None if self._offload is None else self._offload.features
        return ThirdPartyCopyPage(commands, self._limits, cscd_ids, features).pack()

    def _all_tokens(self) -> bytes:
        assert self._offload is not None
        tokens = self._offload.tokens.management_tokens(self._offload.own_unit)
        body = bytes(4) + b"".join(tokens)
        return len(body).to_bytes(4, "big") + body

    def forget(self, nexus: Hashable) -> None:
        """I_T nexus loss: results go, copies go on (5.17.4.7, table 109)."""
        self._copies.forget(nexus)
        self._aliases.forget(nexus)

    def reset(self) -> None:
        """Logical unit reset: results go, and copies end with COPY ABORTED (table 109).

        As with COPY OPERATION ABORT nothing of those in the background moves any more when this
        returns; of one whose units do not answer it is given up that they will.
        """
        self._copies.clear()
        self._aliases.clear()
        self._resets += 1
        given_up = time.monotonic() + _RESET_SECONDS
        for copy in self._copies.in_background():
            copy.ended.wait(max(0, given_up - time.monotonic()))

    # ------------------------------------------------------------------ one copy

    def _whether_aborted(self, copy: Copy, aborted: Callable[[], bool]) -> Callable[[], bool]:
        resets = self._resets
        if copy.background:  # the command that began it is nothing to it any more
            return lambda: copy.abort or self._resets != resets
        return lambda: copy.abort or self._resets != resets or aborted()

    def _begin(
        self,
        nexus: Hashable,
        list_identifier: int,
        copy: Copy,
        aborted: Callable[[], bool],
        act: Callable[[], None],
        rods: CopyRods,
    ) -> None:
        """Admit a copy and carry it out, or have that done in the background."""
        copy.activity.aborted = self._whether_aborted(copy, aborted)
        if copy.background:
            copy.status = CopyOperationStatus.IN_BACKGROUND
        try:
            self._copies.admit(nexus, list_identifier, copy)
        except BaseException:
            rods.close(delete=False)  # the command is not processed
            raise
        if not copy.background:
            self._carry_out(copy, act, rods)
            return
        thread = threading.Thread(
            target=self._carry_out_quietly,
            args=(list_identifier, copy, act, rods),
            name=f"copy {list_identifier}",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:  # the system has no more threads
            rods.close(delete=False)
            refused = illegal_request(Asc.INSUFFICIENT_RESOURCES)
            self._copies.end(copy, CopyOperationStatus.FAILED, refused.sense)
            raise refused from None

    def _carry_out(self, copy: Copy, act: Callable[[], None], rods: CopyRods) -> None:
        """Run a copy that is admitted; whatever its end, it has one."""
        status = CopyOperationStatus.FAILED
        sense: Sense | None = Sense(SenseKey.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE)
        try:
            try:
                act()
            finally:
                rods.close()
            status, sense = CopyOperationStatus.COMPLETED, None
        except CheckCondition as error:
            sense = error.sense
            if copy.activity.aborted():
                status = CopyOperationStatus.TERMINATED
            elif isinstance(error, TokenRanOut):
                status = CopyOperationStatus.PARTIAL_TOKEN
            raise
        finally:
            self._copies.end(copy, status, sense)

    def _carry_out_quietly(
        self, list_identifier: int, copy: Copy, act: Callable[[], None], rods: CopyRods
    ) -> None:
        """In the background errors are there to be asked for, and for nobody else (5.17.4.3)."""
        try:
            self._carry_out(copy, act, rods)
        except CheckCondition as error:
            log.info("copy %d in the background: %s", list_identifier, error.sense)
        except Exception:
            log.exception("copy %d in the background failed", list_identifier)

    def _write(self, nexus: Hashable, writing: Writing, copy: Copy, rods: CopyRods) -> None:
        try:
            if writing.zeros:
                self._write_zeros(nexus, writing.zeros, copy)
            self._run(nexus, writing.copy_list, copy, rods, acting=True)
        except CopyAborted as error:
            # There are no segments, nor fields of theirs; what there is to tell is how far it came.
            error.sense.command_specific, error.sense.pointer = 0, None
            error.sense.information = copy.progress.bytes_written // copy.block_length
            raise
        if writing.missing:
            raise TokenRanOut(writing.blocks)

    def _write_zeros(self, nexus: Hashable, ranges: Sequence[Range], copy: Copy) -> None:
        assert self._offload is not None
        medium = self._offload.medium
        assert medium is not None
        participants = Participants(
            CopyList(),
            lambda name: self._open(name, nexus, acting=True),
            self._own_unit,
            copy.activity,
        )
        try:
            unit = participants.unit(THIS_UNIT, Role.DESTINATION)
            for cdb, size in zeroing(ranges, medium):
                if copy.activity.aborted():
                    raise CopyAborted(Asc.COMMANDS_CLEARED_BY_DEVICE_SERVER)
                unit.command(Role.DESTINATION, cdb)
                copy.progress.bytes_written += size
        finally:
            participants.close()

    def _run(
        self,
        nexus: Hashable,
        copy_list: CopyList,
        copy: Copy,
        rods: CopyRods,
        *,
        acting: bool = False,
    ) -> None:
        """Process the segments; `acting`, as if the nexus itself sent the commands for them."""
        if not copy_list.segments:
            return
        aborted, priority = copy.activity.aborted, copy_list.priority
        with (
            self._pool.reserve(memory_needed(copy_list), aborted, priority) as memory,
            self._precedence.member(priority, aborted) as end_or_turn,
        ):
            if not memory:
                raise CopyAborted(Asc.COMMANDS_CLEARED_BY_DEVICE_SERVER).in_segment(0)
            participants = Participants(
                copy_list,
                lambda name: self._open(name, nexus, acting=acting),
                self._own_unit,
                copy.activity,
                rods,
            )
            planner = Planner(copy_list, self._limits, participants)
            try:
                Engine(
                    planner,
                    len(copy_list.segments),
                    Slabs(self._pool, memory),
                    copy.progress,
                    end_or_turn,
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

    def _open(
        self, name: Designator | AddressCscd, nexus: Hashable, *, acting: bool
    ) -> AttachedUnit:
        if isinstance(name, Designator):
            if acting and isinstance(self._fabric, ActingFabric):
                return self._fabric.open_for(name, nexus)
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


_ORIGINATING, _TOKEN_COMMANDS = (
    {int(kind.SERVICE_ACTION or 0) for kind in kinds}
    for kinds in (
        (ExtendedCopy, ExtendedCopyLid4, CopyOperationAbort),
        (PopulateToken, WriteUsingToken),
    )
)
_PARAMETERS, _TOKEN_INFORMATION, _ALL_TOKENS = (
    int(kind.SERVICE_ACTION or 0)
    for kind in (ReceiveCopyOperatingParameters, ReceiveRodTokenInformation, ReportAllRodTokens)
)


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
    unit = min(longest * block, LIMITS.maximum_stream_transfer_size)
    return 2 * DISK_WINDOW + 2 * PIECE + 2 * unit
