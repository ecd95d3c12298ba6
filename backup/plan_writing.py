"""Onto tape: one command after the other, each filled as far as a copy manager takes it.

Tape blocks form by themselves, because residual data is carried from segment to segment (CAT=1,
SPC-4 5.17.7.2). It dies with the command, so every command ends where a tape block ends. No cut
can be wrong in silence: in every command but the last no PAD is set and the last data segment has
CAT=0, so a remainder is COPY ABORTED 26/0A. Only the last command pads.
"""

from collections.abc import Iterable, Iterator

from serverfree.backup.pieces import FromDisk, Piece
from serverfree.backup.plan_frame import DISK, INLINE_ALIGNMENT, TAPE, Command, Frame
from serverfree.initiator.copy_plan import PlanError
from serverfree.initiator.sizes import format_size
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_segments import (
    BlockRangeToStream,
    BlockToStream,
    DigestOfDestination,
    InlineToStream,
    Segment,
    WriteFilemarks,
)

_Run = list[int] | bytearray
"""Of the disk, [offset, length]; or inline data."""


class Writer:
    """One command under way: what it has so far, as runs, and what that takes of the limits."""

    def __init__(
        self,
        frame: Frame,
        command_size: int,
        digests: bool,
        filemarks: int,
        reserved: int,
        begin: int,
    ) -> None:
        self._frame = frame
        self._digests = digests
        self._filemarks = filemarks
        self._size = max(command_size // frame.tape_block, 1) * frame.tape_block
        self._most_segments = frame.segments - reserved
        self._most_inline = frame.limits.maximum_inline_data_length & -INLINE_ALIGNMENT
        self._number = 0
        self._offset = begin  # of this command in the archive
        self._runs: list[_Run] = []
        self._length = 0
        self._segments = 0
        self._inline = 0  # bytes of inline data, aligned

    def commands(self, pieces: Iterable[Piece], *, more: bool) -> Iterator[Command]:
        """Yield the commands as the pieces fill them; none is the last if `more` will follow."""
        for piece in pieces:
            if isinstance(piece, FromDisk):
                offset, left = piece.offset, piece.length
                self._frame.check_range(offset, left)
                while left:
                    take = min(left, self._size - self._length)
                    if not self._put_disk(offset, take):
                        yield self._end_early()
                        continue
                    offset += take
                    left -= take
            else:
                data, at = piece.data, 0
                while at < len(data):
                    took = self._put_inline(data, at)
                    if not took:
                        yield self._end_early()
                    at += took
        if not self._runs:
            raise PlanError("there is nothing to write")
        if more and self._length % self._frame.tape_block:
            raise PlanError("what more is to follow on the tape does not end with a tape block")
        yield self._end(self._length, last=not more)

    def _put_disk(self, offset: int, length: int) -> bool:
        """Add bytes of the disk if there is room."""
        last = self._runs[-1] if self._runs else None
        frame = self._frame
        if isinstance(last, list) and last[0] + last[1] == offset:
            more = frame.count(last[0], last[1] + length) - frame.count(*last)
        else:
            last, more = None, frame.count(offset, length)
        if not length or self._segments + more > self._most_segments:
            return False
        if last is not None:
            last[1] += length
        else:
            self._runs.append([offset, length])
        self._segments += more
        self._length += length
        return True

    def _put_inline(self, data: bytes, at: int) -> int:
        """Add as much of the data, from byte `at` on, as there is room for; return how much."""
        last = self._runs[-1] if self._runs else None
        take = min(len(data) - at, self._size - self._length)
        if isinstance(last, bytearray):
            had = len(last)
            take = min(take, self._most_inline - self._inline + -had % INLINE_ALIGNMENT)
        else:
            had, last = 0, None
            take = min(take, self._most_inline - self._inline)
        count = self._frame.count_inline
        more = count(had + take) - count(had)
        if take <= 0 or self._segments + more > self._most_segments:
            return 0
        if last is None:
            last = bytearray()
            self._runs.append(last)
        last += data if take == len(data) else data[at : at + take]
        self._inline += _aligned(had + take) - _aligned(had)
        self._segments += more
        self._length += take
        return take

    def _end_early(self) -> Command:
        """End at the last whole tape block, since something more has no room."""
        whole = self._length // self._frame.tape_block * self._frame.tape_block
        if not whole:
            raise PlanError(
                f"the copy manager takes too little per command ({self._most_segments} segments, "
                f"{format_size(self._most_inline)} of inline data) to fill a tape block of "
                f"{format_size(self._frame.tape_block)} with what the archive has at byte "
                f"{self._offset}: take smaller tape blocks"
            )
        return self._end(whole, last=False)

    def _end(self, length: int, *, last: bool) -> Command:
        """Make a command of the first `length` bytes; the rest begins the next."""
        rest = self._split(length)
        runs = self._runs
        command = Command(
            self._copy(runs, last=last),
            self._offset,
            length,
            sum(run[1] for run in runs if isinstance(run, list)),
            sum(len(run) for run in runs if isinstance(run, bytearray)),
            last,
        )
        self._number += 1
        self._offset += length
        self._runs = rest
        self._length -= length
        self._segments = sum(
            self._frame.count(*run) if isinstance(run, list) else self._frame.count_inline(len(run))
            for run in rest
        )
        self._inline = sum(_aligned(len(run)) for run in rest if isinstance(run, bytearray))
        return command

    def _split(self, length: int) -> list[_Run]:
        """Take off what lies beyond the first `length` bytes, and return it."""
        beyond = self._length - length
        rest: list[_Run] = []
        while beyond:
            run = self._runs.pop()
            size = run[1] if isinstance(run, list) else len(run)
            if size > beyond:
                stays = size - beyond
                if isinstance(run, list):
                    self._runs.append([run[0], stays])
                    run = [run[0] + stays, beyond]
                else:
                    self._runs.append(run[:stays])
                    run = run[stays:]
                size = beyond
            rest.append(run)
            beyond -= size
        rest.reverse()
        return rest

    def _copy(self, runs: list[_Run], *, last: bool) -> CopyList:
        frame = self._frame
        segments: list[Segment] = []
        inline = bytearray()
        for run in runs:
            if isinstance(run, list):
                segments += self._disk_segments(*run)
            else:
                segments += self._inline_segments(len(inline), len(run))
                inline += run
                inline += bytes(-len(run) % INLINE_ALIGNMENT)
        for kind in {type(segment) for segment in segments}:
            frame.require(kind)
        segments[-1].cat = False  # type: ignore[attr-defined]
        if self._digests:
            segments.append(DigestOfDestination(TAPE))
        if last and self._filemarks:
            segments.append(WriteFilemarks(TAPE, self._filemarks))
        return frame.copy_list(
            segments, self._number, pad_disk=False, pad_tape=last, inline=bytes(inline)
        )

    def _disk_segments(self, offset: int, length: int) -> Iterator[Segment]:
        frame = self._frame
        unit = frame.tape_block
        for whole, at, size in frame.cut(offset, length):
            lba, rest = divmod(at, frame.block)
            if whole:
                yield BlockToStream(DISK, TAPE, unit, size // frame.block, lba, cat=True)
            else:
                yield BlockRangeToStream(DISK, TAPE, unit, size, lba, rest, cat=True)

    def _inline_segments(self, start: int, length: int) -> Iterator[Segment]:
        frame = self._frame
        grain = 1 << frame.limits.inline_data_granularity
        if length % grain:
            raise PlanError(
                f"the copy manager takes inline data in multiples of {format_size(grain)}, "
                f"not {length} bytes"
            )
        step = frame.longest_inline
        for at in range(0, length, step):
            size = min(step, length - at)
            yield InlineToStream(TAPE, frame.tape_block, start + at, size, cat=True)


def _aligned(size: int) -> int:
    return size + -size % INLINE_ALIGNMENT
