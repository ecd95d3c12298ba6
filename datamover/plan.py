"""From segment descriptors to steps: whose data goes where, found out one segment at a time.

A segment is judged when its turn comes (SPC-4 5.17.7.2): its CSCDs are opened, asked what they
are, and held to what the descriptors say of them. Nothing is read or written here.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from serverfree.datamover.endpoints import PIECE, Disk, Run, Tape
from serverfree.datamover.errors import CopyAborted, UnitUnreachable, in_descriptor
from serverfree.datamover.residue import Move, Residue, Side
from serverfree.datamover.units import BLOCK_TYPES, AttachedUnit, CopyUnit, Facts, Role
from serverfree.scsi.copy_cscd import BlockParameters, IdentificationCscd, StreamParameters
from serverfree.scsi.copy_list import HEADER_LENGTH, THIS_UNIT, CopyList
from serverfree.scsi.copy_results import OperatingParameters
from serverfree.scsi.copy_segments import (
    BlockToBlock,
    BlockToStream,
    InlineToStream,
    Locate,
    Segment,
    StreamToBlock,
    StreamToDiscard,
    WriteFilemarks,
)
from serverfree.scsi.designator import Designator
from serverfree.scsi.inquiry import DeviceType
from serverfree.scsi.sense import Asc, FieldPointer

_SOURCE_FIELD, _DESTINATION_FIELD = 4, 6  # bytes in a segment descriptor
_TRANSFER_LENGTH_FIELD = 9
_LAST_POINTED = 0xFFFF

Endpoint = Disk | Tape


@dataclass(slots=True)
class Step:
    """What one segment does.

    `function` is a tape function, which moves no data; else `move` says what is read, processed
    and written, `source` and `destination` where, `inline` what joins from the parameter list.
    `read` and `written` count the bytes asked for and the bytes known to have arrived.
    """

    number: int
    move: Move
    source: Run | None = None
    destination: Run | None = None
    inline: memoryview | None = None
    function: Callable[[], None] | None = None
    read: int = 0
    written: int = 0
    to_read: int = field(init=False)
    to_write: int = field(init=False)

    def __post_init__(self) -> None:
        self.to_read = 0 if self.source is None else self.source.length
        self.to_write = 0 if self.destination is None else self.destination.length

    @property
    def residual(self) -> int | None:
        """INFORMATION of an error in this segment: None where nothing has been written."""
        if self.destination is None or not self.written:
            return None
        return self.destination.residual(self.to_write - self.written)


class Planner:
    """Turns the segments of a parameter list into steps, in order.

    `open_unit` finds a unit (`UnitUnreachable` if there is none); `own_unit` is the one that
    contains the copy manager, named by CSCD DESCRIPTOR ID FFFFh.
    """

    def __init__(
        self,
        copy_list: CopyList,
        limits: OperatingParameters,
        open_unit: Callable[[Designator], AttachedUnit],
        own_unit: Designator | None = None,
    ) -> None:
        self._list = copy_list
        self._limits = limits
        self._open = open_unit
        self._own_unit = own_unit
        self._residue = Residue()
        self._units: dict[Hashable, AttachedUnit] = {}
        self._endpoints: dict[int, Endpoint] = {}
        self._opened: list[CopyUnit] = []

    def step(self, number: int) -> Step:
        """Return the step of a segment; call for each in turn. Raises CopyAborted."""
        try:
            segment = self._list.segments[number]
            return _PLANS[type(segment)](self, number, segment)
        except CopyAborted as error:
            raise error.in_segment(number) from None

    def close(self) -> None:
        """Hand back every unit."""
        broken = {id(unit.attached) for unit in self._opened if unit.broken}
        for attached in self._units.values():
            attached.close(broken=id(attached) in broken)
        self._units.clear()

    # ------------------------------------------------------------------ segments

    def _block_to_stream(self, number: int, segment: BlockToStream) -> Step:
        source = self._disk(segment.source, Role.SOURCE)
        destination = self._tape(segment.destination, Role.DESTINATION)
        unit = self._transfer_unit(destination, segment.stream_transfer_length)
        move = self._residue.process(
            segment.number_of_blocks * source.block_length,
            Side(source.block_length, source.pad),
            Side(unit, destination.pad),
            segment.cat,
        )
        self._within(source, segment.lba, move.reads, 16)
        return Step(
            number,
            move,
            source.run(segment.lba, move.reads),
            destination.run(segment.stream_transfer_length, move.writes),
        )

    def _stream_to_block(self, number: int, segment: StreamToBlock) -> Step:
        source = self._tape(segment.source, Role.SOURCE)
        destination = self._disk(segment.destination, Role.DESTINATION)
        unit = self._transfer_unit(source, segment.stream_transfer_length)
        self._within(destination, segment.lba, segment.number_of_blocks, 16)
        move = self._residue.fill(
            segment.number_of_blocks * destination.block_length,
            Side(unit, source.pad),
            Side(destination.block_length, destination.pad),
            segment.cat,
        )
        return Step(
            number,
            move,
            source.run(segment.stream_transfer_length, move.reads),
            destination.run(segment.lba, move.writes),
        )

    def _block_to_block(self, number: int, segment: BlockToBlock) -> Step:
        source = self._disk(segment.source, Role.SOURCE)
        destination = self._disk(segment.destination, Role.DESTINATION)
        counted = destination if segment.dc else source
        act = self._residue.fill if segment.dc else self._residue.process
        move = act(
            segment.number_of_blocks * counted.block_length,
            Side(source.block_length, source.pad),
            Side(destination.block_length, destination.pad),
            segment.cat,
        )
        self._within(source, segment.source_lba, move.reads, 12)
        self._within(destination, segment.destination_lba, move.writes, 20)
        return Step(
            number,
            move,
            source.run(segment.source_lba, move.reads),
            destination.run(segment.destination_lba, move.writes),
        )

    def _inline_to_stream(self, number: int, segment: InlineToStream) -> Step:
        destination = self._tape(segment.destination, Role.DESTINATION)
        unit = self._transfer_unit(destination, segment.stream_transfer_length)
        end = segment.inline_offset + segment.number_of_bytes
        if end > len(self._list.inline):
            raise CopyAborted(Asc.INLINE_DATA_LENGTH_EXCEEDED, in_descriptor(12))
        move = self._residue.append(
            segment.number_of_bytes, Side(unit, destination.pad), segment.cat
        )
        return Step(
            number,
            move,
            destination=destination.run(segment.stream_transfer_length, move.writes),
            inline=memoryview(self._list.inline)[segment.inline_offset : end],
        )

    def _stream_to_discard(self, number: int, segment: StreamToDiscard) -> Step:
        source = self._tape(segment.source, Role.SOURCE)
        unit = self._transfer_unit(source, segment.stream_transfer_length)
        move = self._residue.discard(segment.number_of_bytes, Side(unit, source.pad), segment.cat)
        return Step(number, move, source.run(segment.stream_transfer_length, move.reads))

    def _write_filemarks(self, number: int, segment: WriteFilemarks) -> Step:
        tape = self._tape(segment.destination, Role.DESTINATION)

        def write_filemarks() -> None:
            tape.write_filemarks(segment.filemark_count, segment.immediate)

        return Step(number, self._residue.keep(), function=write_filemarks)

    def _locate(self, number: int, segment: Locate) -> Step:
        tape = self._tape(segment.destination, Role.DESTINATION)

        def locate() -> None:
            tape.locate(segment.logical_object_identifier)

        return Step(number, self._residue.keep(), function=locate)

    # ------------------------------------------------------------------ their CSCDs

    def _disk(self, cscd_id: int, role: Role) -> Disk:
        endpoint = self._endpoint(cscd_id, role)
        if not isinstance(endpoint, Disk):
            raise _wrong_role(role)
        return endpoint

    def _tape(self, cscd_id: int, role: Role) -> Tape:
        endpoint = self._endpoint(cscd_id, role)
        if not isinstance(endpoint, Tape):
            raise _wrong_role(role)
        return endpoint

    def _endpoint(self, cscd_id: int, role: Role) -> Endpoint:
        known = self._endpoints.get(cscd_id)
        if known is None:
            known = self._endpoints[cscd_id] = self._open_endpoint(cscd_id, role)
        return known

    def _open_endpoint(self, cscd_id: int, role: Role) -> Endpoint:
        cscd: IdentificationCscd | None = None
        pointer: FieldPointer | None = None
        if cscd_id < len(self._list.cscds):
            cscd = self._list.cscds[cscd_id]
            at = HEADER_LENGTH + cscd_id * cscd.LENGTH
            pointer = FieldPointer(at) if at <= _LAST_POINTED else None
            designator = cscd.designator
        elif cscd_id == THIS_UNIT and self._own_unit is not None:
            designator = self._own_unit
        else:
            # No descriptor has this number; null units and ROD tokens are not spoken here.
            raise CopyAborted(Asc.UNREACHABLE_COPY_TARGET, in_descriptor(_field(role)))
        unit = CopyUnit(self._attach(designator, pointer), pointer)
        self._opened.append(unit)
        facts = unit.prepare(role, None if cscd is None else cscd.device_type)
        if facts.device_type in BLOCK_TYPES:
            return _open_disk(unit, facts, cscd)
        if facts.device_type == DeviceType.TAPE:
            return _open_tape(unit, facts, cscd)
        raise _wrong_role(role)

    def _attach(self, designator: Designator, pointer: FieldPointer | None) -> AttachedUnit:
        # One way to a unit, however many descriptors and designators name it: so its commands
        # keep their order, and a read of what is still to be written there is noticed.
        try:
            attached = self._open(designator)
        except UnitUnreachable:
            raise CopyAborted(Asc.COPY_TARGET_DEVICE_NOT_REACHABLE, pointer) from None
        present = self._units.setdefault(attached.identity, attached)
        if present is not attached:
            attached.close()
        return present

    def _transfer_unit(self, tape: Tape, transfer_length: int) -> int:
        unit = tape.transfer_bytes(transfer_length)
        if unit > self._limits.maximum_stream_transfer_size:
            raise CopyAborted(
                Asc.INVALID_FIELD_IN_PARAMETER_LIST, in_descriptor(_TRANSFER_LENGTH_FIELD)
            )
        return unit

    def _within(self, disk: Disk, lba: int, blocks: int, field_at: int) -> None:
        """Refuse a segment that leaves its disk before anything of it is read or written."""
        if blocks and not disk.holds(lba, blocks):
            # The standard has no code of its own for this; the pointer says which field it is.
            raise CopyAborted(Asc.NO_ADDITIONAL_SENSE_INFORMATION, in_descriptor(field_at))


_PLANS: dict[type[Segment], Callable[..., Step]] = {
    BlockToStream: Planner._block_to_stream,
    StreamToBlock: Planner._stream_to_block,
    BlockToBlock: Planner._block_to_block,
    InlineToStream: Planner._inline_to_stream,
    StreamToDiscard: Planner._stream_to_discard,
    WriteFilemarks: Planner._write_filemarks,
    Locate: Planner._locate,
}

IMPLEMENTED_SEGMENTS = tuple(sorted(kind.TYPE for kind in _PLANS))
"""DESCRIPTOR TYPE CODEs of the segments that can be planned."""


def _open_disk(unit: CopyUnit, facts: Facts, cscd: IdentificationCscd | None) -> Disk:
    stated = cscd.parameters if cscd is not None else BlockParameters()
    assert isinstance(stated, BlockParameters), "the parameter list pairs them by device type"
    length = facts.block_length or 0
    if not length or stated.block_length not in (0, length):
        # Blocks of another length than the unit's would be cut or run over without a word.
        raise _contradicts(unit, 29)
    transfer = max(1, PIECE // length)
    if facts.transfer_blocks:
        transfer = min(transfer, facts.transfer_blocks)
    return Disk(unit, length, facts.blocks, transfer, stated.pad)


def _open_tape(unit: CopyUnit, facts: Facts, cscd: IdentificationCscd | None) -> Tape:
    stated = cscd.parameters if cscd is not None else StreamParameters()
    assert isinstance(stated, StreamParameters), "the parameter list pairs them by device type"
    if stated.fixed and facts.block_length not in (None, stated.block_length):
        raise _contradicts(unit, 29)
    return Tape(unit, stated.block_length, stated.pad)


def _contradicts(unit: CopyUnit, byte: int) -> CopyAborted:
    """The unit is not what this byte of its CSCD descriptor says."""
    start = unit.pointer
    pointer = FieldPointer(start.byte + byte) if start is not None else None
    return CopyAborted(Asc.INVALID_FIELD_IN_PARAMETER_LIST, pointer)


def _field(role: Role) -> int:
    return _SOURCE_FIELD if role is Role.SOURCE else _DESTINATION_FIELD


def _wrong_role(role: Role) -> CopyAborted:
    return CopyAborted(
        Asc.INVALID_OPERATION_FOR_COPY_SOURCE_OR_DESTINATION, in_descriptor(_field(role))
    )
