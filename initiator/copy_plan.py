"""From "this disk to that tape" to the EXTENDED COPY lists that do it: pure, nothing is sent.

Every command ends where a tape block ends, because what is left over dies with the command
(SPC-4 5.17.7.2). No cut can be wrong in silence: in every command but the last no PAD is set and
the last data segment has CAT=0, so a remainder is COPY ABORTED 26/0A. Only the last command pads:
onto a tape with zeros up to the block, from a tape it lets go of what the last block has too much.
"""

from dataclasses import dataclass
from math import lcm

from serverfree.initiator.sizes import format_size
from serverfree.scsi.copy_cscd import BlockParameters, IdentificationCscd, StreamParameters
from serverfree.scsi.copy_list import CopyList, ListIdUsage
from serverfree.scsi.copy_results import OperatingParameters
from serverfree.scsi.copy_segments import (
    BlockToBlock,
    BlockToStream,
    Segment,
    StreamToBlock,
    WriteFilemarks,
)
from serverfree.scsi.designator import Association, Designator, DesignatorType
from serverfree.scsi.inquiry import DeviceType

DEFAULT_TAPE_BLOCK = 256 << 10
MAX_TAPE_BLOCK = (1 << 24) - 1  # STREAM DEVICE TRANSFER LENGTH has 24 bits
_MAX_BLOCKS = 0xFFFF  # NUMBER OF BLOCKS of segments 00h, 01h and 02h
_SOURCE, _DESTINATION = 0, 1
_MAX_DESIGNATOR = 20
_MAX_LIST_IDENTIFIER = 0xFF

# What a copy manager of ours can do; a plan made without asking assumes it.
USUAL_LIMITS = OperatingParameters(
    maximum_cscd_count=64,
    maximum_segment_count=16384,
    maximum_descriptor_list_length=4 << 20,
    maximum_inline_data_length=1 << 20,
    maximum_stream_transfer_size=MAX_TAPE_BLOCK,
    descriptor_types=(0x00, 0x01, 0x02, 0x04, 0x06, 0x10, 0x12, 0xE4),
)

# A copy manager looks a unit up by one of its names; the world-wide ones first.
_PREFERENCE = (
    DesignatorType.NAA,
    DesignatorType.EUI_64,
    DesignatorType.T10_VENDOR_ID,
    DesignatorType.SCSI_NAME_STRING,
    DesignatorType.VENDOR_SPECIFIC,
)


class PlanError(ValueError):
    """The copy that was asked for cannot be expressed, or not to this copy manager."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a copy: a disk with its size, or a tape."""

    designator: Designator
    device_type: DeviceType
    blocks: int = 0
    block_length: int = 0

    @property
    def is_tape(self) -> bool:
        return self.device_type is DeviceType.TAPE

    def cscd(self, *, pad: bool) -> IdentificationCscd:
        """The E4h descriptor that names this end; a tape with blocks of any length."""
        if self.is_tape:
            return IdentificationCscd(self.designator, StreamParameters(pad=pad), DeviceType.TAPE)
        parameters = BlockParameters(self.block_length, pad)
        return IdentificationCscd(self.designator, parameters, DeviceType.DISK)


@dataclass(frozen=True, slots=True)
class Step:
    """One EXTENDED COPY, and how many bytes of the source it takes."""

    copy: CopyList
    size: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The commands, in order, each to be sent when the one before it has ended well."""

    steps: tuple[Step, ...]

    @property
    def size(self) -> int:
        """Bytes that the source gives."""
        return sum(step.size for step in self.steps)

    @property
    def segments(self) -> int:
        return sum(len(step.copy.segments) for step in self.steps)


def choose_designator(designators: tuple[Designator, ...]) -> Designator:
    """Return the designator to name a logical unit by. Raises PlanError if none will do."""
    for kind in _PREFERENCE:
        for one in designators:
            if (
                one.type is kind
                and one.association is Association.LOGICAL_UNIT
                and len(one.identifier) <= _MAX_DESIGNATOR
            ):
                return one
    raise PlanError("the unit has no designator that a CSCD descriptor can hold (VPD page 83h)")


def plan_copy(
    source: Endpoint,
    destination: Endpoint,
    limits: OperatingParameters = USUAL_LIMITS,
    *,
    skip: int = 0,
    seek: int = 0,
    count: int | None = None,
    tape_block: int = DEFAULT_TAPE_BLOCK,
) -> Plan:
    """Return the commands for a copy.

    `skip` and `seek` are blocks into a source and a destination disk. `count` is in blocks of the
    source disk, or from a tape in blocks of the destination disk; without it the rest of that
    disk. Onto a tape the copy goes where the tape stands and ends with a filemark; from a tape it
    comes from where it stands. Raises PlanError.
    """
    course = _Course(source, destination, skip, seek, tape_block)
    _check_able(course, limits)
    measure, start = (destination, seek) if source.is_tape else (source, skip)
    blocks = measure.blocks - start if count is None else count
    if blocks < 1:
        raise PlanError("there is nothing to copy")
    size = blocks * measure.block_length
    _check_room("source", source, skip, size)
    _check_room("destination", destination, seek, size)
    segment_size, command_size = _sizes(course, measure, size, limits)
    steps: list[Step] = []
    for start_at in range(0, size, command_size):
        end_at = min(start_at + command_size, size)
        copy = CopyList(
            course.cscds(last=end_at == size),
            course.segments(start_at, end_at, segment_size, last=end_at == size),
            list_identifier=len(steps) % _MAX_LIST_IDENTIFIER + 1,
            list_id_usage=ListIdUsage.HOLD,
        )
        steps.append(Step(copy, end_at - start_at))
    return Plan(tuple(steps))


@dataclass(frozen=True, slots=True)
class _Course:
    """From where to where a copy goes, and in what tape blocks."""

    source: Endpoint
    destination: Endpoint
    skip: int
    seek: int
    tape_block: int

    @property
    def kind(self) -> type[BlockToStream | StreamToBlock | BlockToBlock]:
        """The segment that moves the data."""
        match self.source.is_tape, self.destination.is_tape:
            case False, True:
                return BlockToStream
            case True, False:
                return StreamToBlock
            case False, False:
                return BlockToBlock
        raise PlanError("copies from tape to tape are not supported")

    @property
    def unit(self) -> int:
        """Bytes that are whole blocks on both sides."""
        first = self.tape_block if self.source.is_tape else self.source.block_length
        second = self.tape_block if self.destination.is_tape else self.destination.block_length
        return lcm(first, second)

    def cscds(self, *, last: bool) -> tuple[IdentificationCscd, IdentificationCscd]:
        """Both ends. PAD stands only where the last block of a tape may be left short."""
        from_tape, onto_tape = self.source.is_tape, self.destination.is_tape
        return (
            self.source.cscd(pad=last and from_tape),
            self.destination.cscd(pad=last and (from_tape or onto_tape)),
        )

    def segments(self, start: int, end: int, size: int, *, last: bool) -> list[Segment]:
        """One command's segments for the bytes from `start` to `end` of the copy."""
        segments: list[Segment] = []
        for at in range(start, end, size):
            length = min(size, end - at)
            # From disk to disk a segment of whole blocks leaves nothing to carry on, and some copy
            # managers know no CAT.
            whole = self.kind is BlockToBlock and length % self.unit == 0
            segments.append(self._segment(at, length, cat=at + length < end and not whole))
        if last and self.destination.is_tape:
            segments.append(WriteFilemarks(_DESTINATION))
        return segments

    def _segment(self, at: int, length: int, *, cat: bool) -> Segment:
        source, destination = self.source, self.destination
        if source.is_tape:
            lba, blocks = (
                self.seek + at // destination.block_length,
                length // destination.block_length,
            )
            return StreamToBlock(_SOURCE, _DESTINATION, self.tape_block, blocks, lba, cat)
        lba, blocks = self.skip + at // source.block_length, length // source.block_length
        if destination.is_tape:
            return BlockToStream(_SOURCE, _DESTINATION, self.tape_block, blocks, lba, cat)
        there = self.seek + at // destination.block_length
        return BlockToBlock(_SOURCE, _DESTINATION, blocks, lba, there, cat)


def _check_able(course: _Course, limits: OperatingParameters) -> None:
    """Hold the copy against what the copy manager says it can do."""
    needed = {course.kind.TYPE, IdentificationCscd.TYPE}
    if course.destination.is_tape:
        needed.add(WriteFilemarks.TYPE)
    missing = sorted(needed - set(limits.descriptor_types))
    if missing:
        codes = ", ".join(f"{code:02X}h" for code in missing)
        raise PlanError(f"the copy manager does not support descriptor type {codes}")
    if limits.maximum_cscd_count < 2:
        raise PlanError("the copy manager takes fewer than two CSCD descriptors")
    if course.kind is BlockToBlock:
        return
    largest = min(limits.maximum_stream_transfer_size or MAX_TAPE_BLOCK, MAX_TAPE_BLOCK)
    if not 0 < course.tape_block <= largest:
        raise PlanError(f"tape block of {course.tape_block} bytes: it can be 1 to {largest}")


def _check_room(name: str, end: Endpoint, start: int, size: int) -> None:
    if end.is_tape:
        if start:
            raise PlanError(f"the {name} is a tape: move it with `serverfree tape` instead")
        return
    blocks, rest = divmod(size, end.block_length)
    if rest:
        raise PlanError(f"{size} bytes are not whole blocks of the {name} ({end.block_length})")
    if start < 0 or start + blocks > end.blocks:
        raise PlanError(
            f"blocks {start} to {start + blocks} lie beyond the {name}, which has {end.blocks}"
        )


def _sizes(
    course: _Course, measure: Endpoint, size: int, limits: OperatingParameters
) -> tuple[int, int]:
    """Return the bytes of a full segment and of a full command, within the manager's limits."""
    granularity = 1 << limits.data_segment_granularity
    if size % granularity:
        raise PlanError(f"the copy manager copies multiples of {format_size(granularity)} only")
    longest = _MAX_BLOCKS * measure.block_length
    if limits.maximum_segment_length:
        longest = min(longest, limits.maximum_segment_length)
    unit = lcm(course.unit, granularity)
    # Segments of whole tape blocks where they can be, else of whole disk blocks.
    step = unit if longest >= unit else lcm(measure.block_length, granularity)
    segment_size = longest // step * step
    room = limits.maximum_descriptor_list_length - 2 * IdentificationCscd.LENGTH
    count = limits.maximum_segment_count
    if course.destination.is_tape:  # the filemark of the last command
        room, count = room - WriteFilemarks.LENGTH, count - 1
    command_size = max(0, min(count, room // course.kind.LENGTH)) * segment_size // unit * unit
    if not command_size:
        raise PlanError(
            f"the copy manager takes less per command than {format_size(unit)}, the least that "
            "is whole blocks on both sides"
        )
    return segment_size, command_size
