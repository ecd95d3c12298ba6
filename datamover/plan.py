"""From segment descriptors to steps: whose data goes where, found out one segment at a time.

A segment is judged when its turn comes (SPC-4 5.17.7.2): its CSCDs are opened, asked what they
are, and held to what the descriptors say of them. Nothing is read or written here.
"""

import hashlib
from bisect import bisect
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import cast

from serverfree.datamover.endpoints import Disk, DiskRun, Tape, TapeRun
from serverfree.datamover.errors import CopyAborted, in_descriptor
from serverfree.datamover.participants import Participants
from serverfree.datamover.residue import Move, Residue, Side
from serverfree.datamover.steps import Extents, Step, Workshop
from serverfree.datamover.tape_image import copy_tape_image
from serverfree.datamover.units import Aborted, CopyUnit, Role
from serverfree.scsi.cdb.reservation import PersistentReserveOut
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_results import OperatingParameters
from serverfree.scsi.copy_segments import (
    BlockImage,
    BlockRangeToBlockRange,
    BlockRangeToStream,
    BlockToBlock,
    BlockToBlockHold,
    BlockToStream,
    BlockToStreamHold,
    DigestOfDestination,
    EmbeddedToStream,
    InlineToStream,
    Locate,
    MoveReservation,
    PopulateRodRange,
    PopulateRodRanges,
    RegisterKey,
    Segment,
    Space,
    StreamToBlock,
    StreamToBlockHold,
    StreamToBlockRange,
    StreamToDigest,
    StreamToDiscard,
    StreamToDiscardHold,
    StreamToStream,
    StreamToStreamHold,
    TapeImage,
    VerifyCscd,
    WriteFilemarks,
)
from serverfree.scsi.sense import Asc

_LONG_EXTENT = 4096  # blocks that are worth reading ahead by themselves
_REGISTER, _REGISTER_AND_MOVE = 0x00, 0x07  # service actions of PERSISTENT RESERVE OUT


class Planner:
    """Turns the segments of a parameter list into steps, in order, or many at once into extents."""

    def __init__(
        self, copy_list: CopyList, limits: OperatingParameters, participants: Participants
    ) -> None:
        self._list = copy_list
        self._limits = limits
        self._participants = participants
        self._residue = Residue()
        self._runs = _runs_of_extents(copy_list.segments, striped=copy_list.sequential_striped)
        self._last: list[tuple[int, Callable[[], None]]] = []
        self.wants_digests = any(isinstance(one, DigestOfDestination) for one in copy_list.segments)
        """Whether a segment asks for the digest of a destination."""

    def finish(self) -> None:
        """Do what the segments processed have put off until the end, well or not (6.4.6.18).

        Raises the first CopyAborted when all is done.
        """
        failure: CopyAborted | None = None
        for number, act in self._last:
            try:
                act()
            except CopyAborted as error:
                failure = failure or error.in_segment(number)
            except Aborted:
                # The copy had its end already, and this unit has had its chance.
                continue
        if failure is not None:
            raise failure

    def may_be_extents(self, number: int) -> bool:
        """Whether from this segment on `extents` is worth asking, once its turn has come."""
        return number in self._runs

    def extents(self, number: int) -> Extents | None:
        """Return the extents from this segment on, None where a step is to be asked for.

        In that case, and for whatever is behind them, nothing has been said to be right or wrong.
        """
        end = self._runs.pop(number, None)
        if end is None or self._residue.source or self._residue.destination or self.wants_digests:
            return None
        segments = cast("Sequence[BlockToBlock]", self._list.segments)
        try:
            source = self._participants.disk(segments[number].source, Role.SOURCE)
            destination = self._participants.disk(segments[number].destination, Role.DESTINATION)
        except CopyAborted:
            return None
        one_unit = source.unit.attached is destination.unit.attached
        if one_unit or source.block_length != destination.block_length:
            return None
        extents = []
        written = _Spans()
        for at in range(number, end):
            one = segments[at]
            blocks = one.number_of_blocks
            if (
                not blocks
                or one.source_lba + blocks > source.blocks
                or one.destination_lba + blocks > destination.blocks
            ):
                if at + 1 < end:
                    self._runs[at + 1] = end
                break
            if not written.add(one.destination_lba, blocks):
                self._runs[at] = end  # writes of extents may be carried out in any order
                break
            extents.append((one.source_lba, one.destination_lba, blocks))
        return Extents(source, destination, number, extents) if extents else None

    def step(self, number: int) -> Step:
        """Return the step of a segment; call for each in turn. Raises CopyAborted."""
        try:
            segment = self._list.segments[number]
            step: Step = _PLANS[type(segment)](self, number, segment)
        except CopyAborted as error:
            raise error.in_segment(number) from None
        step.holds = segment.HOLDS
        return step

    # ------------------------------------------------------------------ whole blocks

    def _block_to_stream(self, number: int, segment: BlockToStream) -> Step:
        source = self._participants.disk(segment.source, Role.SOURCE)
        destination = self._participants.tape(segment.destination, Role.DESTINATION)
        unit = self._transfer_unit(destination, segment.stream_transfer_length)
        if segment.number_of_blocks:
            self._participants.require_unit(source, Role.SOURCE)
        move = self._residue.process(
            segment.number_of_blocks * source.block_length,
            Side(source.block_length, source.pad),
            Side(unit, destination.pad),
            segment.cat,
        )
        return Step(
            number,
            move,
            self._within(source, source.run(segment.lba, move.reads), 16, Role.SOURCE),
            self._transfers(
                destination, segment.stream_transfer_length, move.writes, Role.DESTINATION
            ),
        )

    def _stream_to_block(self, number: int, segment: StreamToBlock) -> Step:
        source = self._participants.tape(segment.source, Role.SOURCE)
        destination = self._participants.disk(segment.destination, Role.DESTINATION)
        unit = self._transfer_unit(source, segment.stream_transfer_length)
        to = self._within(
            destination,
            destination.run(segment.lba, segment.number_of_blocks),
            16,
            Role.DESTINATION,
        )
        move = self._residue.fill(
            segment.number_of_blocks * destination.block_length,
            Side(unit, source.pad),
            Side(destination.block_length, destination.pad),
            segment.cat,
        )
        return Step(
            number,
            move,
            self._transfers(source, segment.stream_transfer_length, move.reads, Role.SOURCE),
            to,
        )

    def _block_to_block(self, number: int, segment: BlockToBlock) -> Step:
        source = self._participants.disk(segment.source, Role.SOURCE)
        destination = self._participants.disk(segment.destination, Role.DESTINATION)
        counted = destination if segment.dc else source
        if segment.number_of_blocks:
            self._participants.require_unit(
                counted, Role.DESTINATION if segment.dc else Role.SOURCE
            )
        act = self._residue.fill if segment.dc else self._residue.process
        move = act(
            segment.number_of_blocks * counted.block_length,
            Side(source.block_length, source.pad),
            Side(destination.block_length, destination.pad),
            segment.cat,
        )
        return Step(
            number,
            move,
            self._within(source, source.run(segment.source_lba, move.reads), 12, Role.SOURCE),
            self._within(
                destination,
                destination.run(segment.destination_lba, move.writes),
                20,
                Role.DESTINATION,
            ),
        )

    def _stream_to_stream(self, number: int, segment: StreamToStream) -> Step:
        source = self._participants.tape(segment.source, Role.SOURCE)
        destination = self._participants.tape(segment.destination, Role.DESTINATION)
        move = self._residue.process(
            segment.number_of_bytes,
            Side(self._transfer_unit(source, segment.source_transfer_length), source.pad),
            Side(
                self._transfer_unit(destination, segment.destination_transfer_length, 13),
                destination.pad,
            ),
            segment.cat,
        )
        return Step(
            number,
            move,
            self._transfers(source, segment.source_transfer_length, move.reads, Role.SOURCE),
            self._transfers(
                destination, segment.destination_transfer_length, move.writes, Role.DESTINATION
            ),
        )

    def _inline_to_stream(self, number: int, segment: InlineToStream) -> Step:
        end = segment.inline_offset + segment.number_of_bytes
        if end > len(self._list.inline):
            raise CopyAborted(Asc.INLINE_DATA_LENGTH_EXCEEDED, in_descriptor(12))
        data = memoryview(self._list.inline)[segment.inline_offset : end]
        return self._data_to_stream(number, segment, data)

    def _embedded_to_stream(self, number: int, segment: EmbeddedToStream) -> Step:
        return self._data_to_stream(number, segment, memoryview(segment.data))

    def _data_to_stream(
        self, number: int, segment: InlineToStream | EmbeddedToStream, data: memoryview
    ) -> Step:
        destination = self._participants.tape(segment.destination, Role.DESTINATION)
        unit = self._transfer_unit(destination, segment.stream_transfer_length)
        move = self._residue.append(len(data), Side(unit, destination.pad), segment.cat)
        to = self._transfers(
            destination, segment.stream_transfer_length, move.writes, Role.DESTINATION
        )
        return Step(number, move, destination=to, data=data)

    def _stream_to_discard(self, number: int, segment: StreamToDiscard | StreamToDigest) -> Step:
        source = self._participants.tape(segment.source, Role.SOURCE)
        unit = self._transfer_unit(source, segment.stream_transfer_length)
        move = self._residue.discard(segment.number_of_bytes, Side(unit, source.pad), segment.cat)
        return Step(
            number,
            move,
            self._transfers(source, segment.stream_transfer_length, move.reads, Role.SOURCE),
        )

    def _stream_to_digest(self, number: int, segment: StreamToDigest) -> Step:
        step = self._stream_to_discard(number, segment)
        step.digest = hashlib.sha256()
        return step

    # ------------------------------------------------------------------ ranges of bytes

    def _block_range_to_stream(self, number: int, segment: BlockRangeToStream) -> Step:
        source = self._participants.disk(segment.source, Role.SOURCE)
        destination = self._participants.tape(segment.destination, Role.DESTINATION)
        unit = self._transfer_unit(destination, segment.stream_transfer_length)
        count = segment.number_of_bytes
        run = self._range(source, segment.lba, segment.byte_offset, count, 16, 26, Role.SOURCE)
        move = self._residue.extract(count, source.pad, Side(unit, destination.pad), segment.cat)
        to = self._transfers(
            destination, segment.stream_transfer_length, move.writes, Role.DESTINATION
        )
        return Step(number, move, run, to)

    def _stream_to_block_range(self, number: int, segment: StreamToBlockRange) -> Step:
        source = self._participants.tape(segment.source, Role.SOURCE)
        destination = self._participants.disk(segment.destination, Role.DESTINATION)
        unit = self._transfer_unit(source, segment.stream_transfer_length)
        count = segment.number_of_bytes
        run = self._range(
            destination, segment.lba, segment.byte_offset, count, 16, 26, Role.DESTINATION
        )
        move = self._residue.fill(
            count, Side(unit, source.pad), Side(1, destination.pad), segment.cat
        )
        return Step(
            number,
            move,
            self._transfers(source, segment.stream_transfer_length, move.reads, Role.SOURCE),
            run,
        )

    def _block_range_to_block_range(self, number: int, segment: BlockRangeToBlockRange) -> Step:
        source = self._participants.disk(segment.source, Role.SOURCE)
        destination = self._participants.disk(segment.destination, Role.DESTINATION)
        count = segment.number_of_bytes
        run = self._range(
            source, segment.source_lba, segment.source_byte_offset, count, 12, 28, Role.SOURCE
        )
        to = self._range(
            destination,
            segment.destination_lba,
            segment.destination_byte_offset,
            count,
            20,
            30,
            Role.DESTINATION,
        )
        move = self._residue.exchange(count, source.pad, destination.pad, segment.cat)
        return Step(number, move, run, to)

    # ------------------------------------------------------------------ whole media

    def _block_image(self, number: int, segment: BlockImage) -> Step:
        source = self._participants.disk(segment.source, Role.SOURCE)
        destination = self._participants.disk(segment.destination, Role.DESTINATION)
        if source.block_length != destination.block_length:
            raise CopyAborted(Asc.INCORRECT_COPY_TARGET_DEVICE_TYPE, in_descriptor(6))
        room = min(
            max(0, source.blocks - segment.source_lba),
            max(0, destination.blocks - segment.destination_lba),
        )
        blocks = min(segment.number_of_blocks or room, room)
        run = self._within(source, source.run(segment.source_lba, blocks), 8, Role.SOURCE)
        to = self._within(
            destination, destination.run(segment.destination_lba, blocks), 16, Role.DESTINATION
        )
        length = blocks * source.block_length
        move = Move(reads=blocks, processed=length, writes=blocks)
        counted = segment.number_of_blocks != 0
        return Step(number, move, run, to, apart=True, counted=counted)

    def _tape_image(self, number: int, segment: TapeImage) -> Step:
        source = self._participants.drive(segment.source, Role.SOURCE)
        destination = self._participants.drive(segment.destination, Role.DESTINATION)
        most = self._limits.maximum_stream_transfer_size

        def copy(workshop: Workshop) -> None:
            copy_tape_image(
                source,
                destination,
                segment.filemarks,
                most,
                workshop.slabs,
                workshop.check,
                lambda data: _moved(workshop, destination.unit, data),
            )

        return Step(number, self._residue.keep(), function=copy)

    # ------------------------------------------------------------------ functions

    def _write_filemarks(self, number: int, segment: WriteFilemarks) -> Step:
        tape = self._participants.drive(segment.destination, Role.DESTINATION)
        return self._function(
            number, lambda: tape.write_filemarks(segment.filemark_count, segment.immediate)
        )

    def _space(self, number: int, segment: Space) -> Step:
        tape = self._participants.drive(segment.destination, Role.DESTINATION)
        return self._function(number, lambda: tape.space(segment.code, segment.count))

    def _locate(self, number: int, segment: Locate) -> Step:
        tape = self._participants.drive(segment.destination, Role.DESTINATION)
        return self._function(number, lambda: tape.locate(segment.logical_object_identifier))

    def _verify_cscd(self, number: int, segment: VerifyCscd) -> Step:
        # Accessible is what it is when its turn has come, not when it is planned.
        return self._function(
            number,
            lambda: self._participants.verify(segment.source, ready=segment.test_unit_ready),
        )

    def _register_key(self, number: int, segment: RegisterKey) -> Step:
        unit = self._participants.unit(segment.destination, Role.DESTINATION)
        keys = segment.reservation_key.to_bytes(8, "big") + segment.service_action_key.to_bytes(
            8, "big"
        )
        parameters = keys + bytes(8)
        cdb = PersistentReserveOut(
            service_action=_REGISTER, parameter_list_length=len(parameters)
        ).pack()

        def register() -> None:
            unit.command(Role.DESTINATION, cdb, data_out=parameters)

        return self._function(number, register)

    def _move_reservation(self, number: int, segment: MoveReservation) -> Step:
        unit = self._participants.drive(segment.destination, Role.DESTINATION).unit
        parameters = segment.parameters
        cdb = PersistentReserveOut(
            service_action=_REGISTER_AND_MOVE, parameter_list_length=len(parameters)
        ).pack()

        def move() -> None:
            unit.command(Role.DESTINATION, cdb, data_out=parameters)

        # Only once its turn has come: an error before that leaves the reservation where it is.
        return self._function(number, lambda: self._last.append((number, move)))

    def _populate_rod(self, number: int, segment: PopulateRodRanges | PopulateRodRange) -> Step:
        at = 16 if isinstance(segment, PopulateRodRanges) else 8
        rods = self._participants.rods
        step = self._function(
            number, lambda: rods.populate(segment.destination, segment.ranges, at)
        )
        step.settled = True  # a ROD has no capacity before
        return step

    def _digest_of_destination(self, number: int, segment: DigestOfDestination) -> Step:
        unit = self._participants.unit(segment.destination, Role.DESTINATION)

        def hold(workshop: Workshop) -> None:
            workshop.held.add(workshop.digests.take(unit.attached))

        return Step(number, self._residue.keep(), function=hold)

    def _function(self, number: int, act: Callable[[], None]) -> Step:
        return Step(number, self._residue.keep(), function=lambda _: act())

    # ------------------------------------------------------------------ bounds

    def _transfer_unit(self, tape: Tape, transfer_length: int, field_at: int = 9) -> int:
        unit = tape.transfer_bytes(transfer_length)
        if self._participants.is_null(tape):
            return unit or 1  # commands of no length are as good: there are none
        if not 0 < unit <= self._limits.maximum_stream_transfer_size:
            raise CopyAborted(Asc.INVALID_FIELD_IN_PARAMETER_LIST, in_descriptor(field_at))
        return unit

    def _transfers(self, tape: Tape, transfer_length: int, transfers: int, role: Role) -> TapeRun:
        if transfers:
            self._participants.require_unit(tape, role)
        return tape.run(transfer_length, transfers)

    def _within(self, disk: Disk, run: DiskRun, field_at: int, role: Role) -> DiskRun:
        """Refuse a segment that leaves its disk before anything of it is read or written."""
        if run.blocks:
            self._participants.require_unit(disk, role)
            if not disk.holds(run):
                # The standard has no code of its own for this; the pointer says which field it is.
                raise CopyAborted(Asc.NO_ADDITIONAL_SENSE_INFORMATION, in_descriptor(field_at))
        return run

    def _range(
        self,
        disk: Disk,
        lba: int,
        byte_offset: int,
        count: int,
        lba_at: int,
        offset_at: int,
        role: Role,
    ) -> DiskRun:
        if count:
            self._participants.require_unit(disk, role)
            if byte_offset >= disk.block_length:
                raise CopyAborted(Asc.INVALID_FIELD_IN_PARAMETER_LIST, in_descriptor(offset_at))
        return self._within(disk, disk.range(lba, byte_offset, count), lba_at, role)


def _runs_of_extents(segments: Sequence[Segment], *, striped: bool) -> dict[int, int]:
    """Return first and last + 1 of the segments that may be worth copying as extents.

    A short one alone is not: nothing behind it could be read meanwhile. Nor is a long one where
    disks are `striped` (STR, SPC-4 6.4.3.1): what is behind it lies on another disk, and is to be
    read at the same time.
    """
    runs = {}
    for (kind, *_), run in groupby(range(len(segments)), partial(_kind_of_extent, segments)):
        numbers = list(run)
        last = segments[numbers[-1]]
        if kind is BlockToBlock and (
            len(numbers) > 1
            or (not striped and cast("BlockToBlock", last).number_of_blocks >= _LONG_EXTENT)
        ):
            runs[numbers[0]] = numbers[-1] + 1
    return runs


class _Spans:
    """Blocks of a disk, in spans that do not meet."""

    def __init__(self) -> None:
        self._spans: list[tuple[int, int]] = []

    def add(self, begin: int, blocks: int) -> bool:
        """Add blocks; False, and nothing is added, if any of them is there already."""
        spans, end = self._spans, begin + blocks
        if not spans or begin >= spans[-1][1]:  # mostly they go upwards
            spans.append((begin, end))
            return True
        at = bisect(spans, (begin, end))
        if (at > 0 and spans[at - 1][1] > begin) or (at < len(spans) and spans[at][0] < end):
            return False
        spans.insert(at, (begin, end))
        return True


def _kind_of_extent(segments: Sequence[Segment], number: int) -> tuple[type, int, int]:
    segment = segments[number]
    if type(segment) is BlockToBlock:
        return BlockToBlock, segment.source, segment.destination
    return type(segment), 0, 0


def _moved(workshop: Workshop, destination: CopyUnit, data: memoryview) -> None:
    workshop.progress.bytes_written += len(data)
    workshop.digests.put(destination.attached, (data,), pad=0, apart=True)


_PLANS: dict[type[Segment], Callable[..., Step]] = {
    BlockToStream: Planner._block_to_stream,
    StreamToBlock: Planner._stream_to_block,
    BlockToBlock: Planner._block_to_block,
    StreamToStream: Planner._stream_to_stream,
    InlineToStream: Planner._inline_to_stream,
    EmbeddedToStream: Planner._embedded_to_stream,
    StreamToDiscard: Planner._stream_to_discard,
    VerifyCscd: Planner._verify_cscd,
    BlockRangeToStream: Planner._block_range_to_stream,
    StreamToBlockRange: Planner._stream_to_block_range,
    BlockRangeToBlockRange: Planner._block_range_to_block_range,
    BlockToStreamHold: Planner._block_to_stream,
    StreamToBlockHold: Planner._stream_to_block,
    BlockToBlockHold: Planner._block_to_block,
    StreamToStreamHold: Planner._stream_to_stream,
    StreamToDiscardHold: Planner._stream_to_discard,
    WriteFilemarks: Planner._write_filemarks,
    Space: Planner._space,
    Locate: Planner._locate,
    TapeImage: Planner._tape_image,
    RegisterKey: Planner._register_key,
    MoveReservation: Planner._move_reservation,
    BlockImage: Planner._block_image,
    PopulateRodRanges: Planner._populate_rod,
    PopulateRodRange: Planner._populate_rod,
    StreamToDigest: Planner._stream_to_digest,
    DigestOfDestination: Planner._digest_of_destination,
}

IMPLEMENTED_SEGMENTS = tuple(sorted(kind.TYPE for kind in _PLANS))
"""DESCRIPTOR TYPE CODEs of the segments that can be planned."""
