"""What the commands of a plan have in common: the ends, and what the copy manager can take."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import lcm

from serverfree.initiator.copy_plan import MAX_TAPE_BLOCK, Endpoint, PlanError
from serverfree.initiator.sizes import format_size
from serverfree.scsi.copy_cscd import CSCD_LENGTH, IdentificationCscd
from serverfree.scsi.copy_list import CopyList, ListIdUsage
from serverfree.scsi.copy_results import OperatingParameters
from serverfree.scsi.copy_segments import (
    BlockRangeToStream,
    Locate,
    Segment,
    StreamToDiscard,
)

DISK, TAPE = 0, 1
"""CSCD DESCRIPTOR IDs, where both ends take part."""
INLINE_ALIGNMENT = 4
"""Of INLINE DATA OFFSET, 6.4.6.6."""
_MAX_BLOCKS = 0xFFFF  # NUMBER OF BLOCKS of 00h and 01h
_MAX_BYTES = 0xFFFFFFFF  # NUMBER OF BYTES of the others
_MAX_LOCATE = 0xFFFFFFFF
_MAX_LIST_IDENTIFIER = 0xFF
_LONGEST_SEGMENT = BlockRangeToStream.LENGTH


@dataclass(frozen=True, slots=True)
class Command:
    """One EXTENDED COPY: what of the archive it is about, to be sent when the one before is done.

    It covers `length` bytes of the archive from `archive_offset` on; of a restore, from the first
    that it needs to the last. `moved` bytes go from unit to unit, `inline` ones came from here.
    """

    copy: CopyList
    archive_offset: int
    length: int
    moved: int
    inline: int
    last: bool


@dataclass(frozen=True, slots=True)
class Check:
    """One EXTENDED COPY that reads ranges of an archive, and holds a SHA-256 for each in turn."""

    copy: CopyList
    ranges: tuple[tuple[int, int], ...]
    """(archive offset, length)."""

    @property
    def size(self) -> int:
        return sum(length for _, length in self.ranges)


class Frame:
    """What all commands of a plan have in common: the ends, and what the manager can take."""

    def __init__(
        self,
        limits: OperatingParameters,
        tape_block: int,
        disk: Endpoint | None,
        tape: Endpoint,
        residue: int = 0,
    ) -> None:
        """`residue` is what may wait, and counts with a segment's bytes written (6.22)."""
        largest = min(limits.maximum_stream_transfer_size or MAX_TAPE_BLOCK, MAX_TAPE_BLOCK)
        if not 0 < tape_block <= largest:
            raise PlanError(f"tape block of {tape_block} bytes: it can be 1 to {largest}")
        self.limits = limits
        self.tape_block = tape_block
        self.ends = (disk, tape) if disk else (tape,)
        self.tape_id = len(self.ends) - 1
        self.block = disk.block_length if disk else 1
        self.size = disk.blocks * disk.block_length if disk else 0
        self._types = set(limits.descriptor_types)
        self.require_types(IdentificationCscd.TYPE)
        if limits.maximum_cscd_count < len(self.ends):
            raise PlanError(f"the copy manager takes fewer than {len(self.ends)} CSCD descriptors")
        room = limits.maximum_descriptor_list_length - len(self.ends) * CSCD_LENGTH
        self.segments = min(limits.maximum_segment_count, max(0, room) // _LONGEST_SEGMENT)
        longest = _MAX_BYTES
        if limits.maximum_segment_length:
            longest = min(longest, limits.maximum_segment_length - residue)
        grain = lcm(self.block, 1 << limits.data_segment_granularity)
        self.longest_range = longest // grain * grain
        self.longest_whole = min(longest, _MAX_BLOCKS * self.block) // grain * grain
        grain = max(1 << limits.inline_data_granularity, INLINE_ALIGNMENT)
        self.longest_inline = longest // grain * grain
        if min(self.longest_whole, self.longest_inline) <= 0:
            raise PlanError(
                f"the copy manager takes {format_size(limits.maximum_segment_length)} per segment: "
                f"too little for tape blocks of {format_size(tape_block)}"
            )

    def require(self, *kinds: type[Segment]) -> None:
        """Raise PlanError unless the copy manager knows these segments."""
        self.require_types(*(kind.TYPE for kind in kinds))

    def require_types(self, *codes: int) -> None:
        missing = [f"{code:02X}h" for code in codes if code not in self._types]
        if missing:
            raise PlanError(
                f"the copy manager does not support descriptor type {', '.join(missing)}"
            )

    def count(self, offset: int, length: int) -> int:
        """How many segments these bytes of the disk take."""
        whole = offset % self.block == 0 == length % self.block
        return -(-length // (self.longest_whole if whole else self.longest_range))

    def count_inline(self, length: int) -> int:
        """How many segments so much inline data takes."""
        return -(-length // self.longest_inline)

    def cut(self, offset: int, length: int) -> Iterator[tuple[bool, int, int]]:
        """Yield the segments of these bytes of the disk: whether whole blocks, offset, length."""
        whole = offset % self.block == 0 == length % self.block
        grain = (1 << self.limits.data_segment_granularity) - 1
        if length & grain:
            raise PlanError(
                f"the copy manager copies multiples of {format_size(grain + 1)}, not {length} bytes"
            )
        step = self.longest_whole if whole else self.longest_range
        end = offset + length
        while offset < end:
            yield whole, offset, min(step, end - offset)
            offset += step

    def check_range(self, offset: int, length: int) -> None:
        """Raise PlanError for bytes that the disk does not have."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise PlanError(
                f"bytes {offset} to {offset + length} lie beyond the disk, which has {self.size}"
            )

    def copy_list(
        self,
        segments: list[Segment],
        number: int,
        *,
        pad_disk: bool,
        pad_tape: bool,
        inline: bytes = b"",
    ) -> CopyList:
        """Return a command's list. `number` counts commands, so that identifiers take turns."""
        return CopyList(
            [end.cscd(pad=pad_tape if end.is_tape else pad_disk) for end in self.ends],
            segments,
            inline,
            list_identifier=number % _MAX_LIST_IDENTIFIER + 1,
            list_id_usage=ListIdUsage.HOLD,
        )

    def locate(self, first_block: int, archive_offset: int) -> list[Segment]:
        """Return what goes to a byte of the archive: its tape block, and what precedes it there."""
        block, rest = divmod(archive_offset, self.tape_block)
        if first_block + block > _MAX_LOCATE:
            raise PlanError(f"block {first_block + block} of the tape is beyond what LOCATE takes")
        segments: list[Segment] = [Locate(self.tape_id, first_block + block)]
        if rest:
            segments.append(StreamToDiscard(self.tape_id, self.tape_block, rest, cat=True))
        return segments
