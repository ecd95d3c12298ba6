"""From tape: to where the bytes lie that are wanted, and onto the disk, or into digests.

LOCATE does not let go of residual source data (SPC-4 table 115): the data segment before it has
CAT=0, with PAD set for both ends, or the rest of the old tape block would land in the next extent
with status GOOD.
"""

from collections.abc import Iterable, Iterator

from serverfree.backup.pieces import ToDisk
from serverfree.backup.plan_frame import DISK, Check, Command, Frame
from serverfree.initiator.copy_plan import PlanError
from serverfree.scsi.copy_segments import (
    Locate,
    Segment,
    StreamToBlock,
    StreamToBlockRange,
    StreamToDigest,
    StreamToDiscard,
)


class Reader:
    """One command of a restore under way."""

    def __init__(
        self, frame: Frame, first_block: int, command_size: int, read_through: int
    ) -> None:
        self._frame = frame
        self._first_block = first_block
        self._size = max(command_size, frame.tape_block, frame.block)
        self._read_through = read_through
        self._number = 0
        self._begin()

    def _begin(self) -> None:
        self._segments: list[Segment] = []
        self._data: StreamToBlock | StreamToBlockRange | None = None  # the last that moves data
        self._start = self._at = 0  # what of the archive has been read
        self._spent = self._moved = 0

    def commands(self, wanted: Iterable[ToDisk]) -> Iterator[Command]:
        """Yield the commands. A long piece is cut where one is full."""
        for want in _merged(wanted):
            at, left, offset = want.archive_offset, want.length, want.offset
            self._frame.check_range(offset, left)
            while left:
                way = self._way(at)
                take = self._fitting(at, left, offset, len(way))
                if not take:
                    yield self._end(last=False)
                    continue
                self._put(way, at, take, offset)
                at, left, offset = at + take, left - take, offset + take
        if self._segments:
            yield self._end(last=True)

    def _way(self, at: int) -> list[Segment]:
        """Return what goes to this byte of the archive from where the tape has been read to."""
        gap = at - self._at
        if not self._segments or gap < 0 or gap > self._read_through:
            return self._frame.locate(self._first_block, at)
        if not gap:
            return []
        frame = self._frame
        return [
            StreamToDiscard(frame.tape_id, frame.tape_block, size, cat=True)
            for size in _chunks(gap, frame.longest_range)
        ]

    def _fitting(self, at: int, left: int, offset: int, before: int) -> int:
        """How much of a piece this command takes, 0 if it is to end first."""
        frame = self._frame
        room = self._size - self._spent
        count = frame.segments - len(self._segments) - before
        take = min(left, room, max(0, count) * frame.longest_whole)
        if take < left:
            take = self._whole(at, take, offset)
        if take <= 0 and not self._segments:
            raise PlanError("the copy manager takes too little per command to read from a tape")
        return max(0, take)

    def _whole(self, at: int, take: int, offset: int) -> int:
        """Cut a piece short: where a tape block ends, so that the tape stands right for what
        follows, or else where a block of the disk does."""
        block, unit = self._frame.block, self._frame.tape_block
        to_tape_block = (at + take) // unit * unit - at
        if to_tape_block > 0 and (offset + to_tape_block) % block == 0:
            return to_tape_block
        if to_tape_block <= 0 and self._segments:
            return 0
        return (offset + take) // block * block - offset

    def _put(self, way: list[Segment], at: int, length: int, offset: int) -> None:
        frame = self._frame
        if way and isinstance(way[0], Locate):
            if self._data is not None:
                self._data.cat = False
            if not self._segments:
                self._start = at
        else:
            self._spent += at - self._at
        self._segments += way
        tape, disk, unit = frame.tape_id, DISK, frame.tape_block
        for whole, place, size in frame.cut(offset, length):
            lba, rest = divmod(place, frame.block)
            if whole:
                blocks = size // frame.block
                self._data = StreamToBlock(tape, disk, unit, blocks, lba, cat=True)
            else:
                self._data = StreamToBlockRange(tape, disk, unit, size, lba, rest, cat=True)
            self._segments.append(self._data)
        self._at = at + length
        self._spent += length
        self._moved += length

    def _end(self, *, last: bool) -> Command:
        frame = self._frame
        for kind in {type(segment) for segment in self._segments}:
            frame.require(kind)
        if self._data is not None:
            self._data.cat = False
        copy = frame.copy_list(self._segments, self._number, pad_disk=True, pad_tape=True)
        command = Command(copy, self._start, self._at - self._start, self._moved, 0, last)
        self._number += 1
        self._begin()
        return command


def _merged(wanted: Iterable[ToDisk]) -> Iterator[ToDisk]:
    """Join what lies together both on tape and on disk."""
    start = length = offset = 0
    for want in wanted:
        if want.archive_offset == start + length and want.offset == offset + length:
            length += want.length
            continue
        if length:
            yield ToDisk(start, length, offset)
        start, length, offset = want.archive_offset, want.length, want.offset
    if length:
        yield ToDisk(start, length, offset)


def _chunks(length: int, most: int) -> Iterator[int]:
    while length:
        size = min(length, most)
        yield size
        length -= size


def verify(
    frame: Frame, first_block: int, command_size: int, held: int, ranges: Iterable[tuple[int, int]]
) -> Iterator[Check]:
    segments: list[Segment] = []
    taken: list[tuple[int, int]] = []
    at = spent = number = 0
    digest: StreamToDigest | None = None
    for start, length in ranges:
        if not 0 < length <= frame.longest_range:
            raise PlanError(f"a range of {length} bytes: it can be 1 to {frame.longest_range}")
        full = spent + length > command_size or len(taken) == held
        if digest is not None and (full or len(segments) + 3 > frame.segments):
            digest.cat = False
            yield Check(
                frame.copy_list(segments, number, pad_disk=True, pad_tape=True), tuple(taken)
            )
            number, spent, digest, segments, taken = number + 1, 0, None, [], []
        if digest is None or start != at:
            if digest is not None:
                digest.cat = False
            segments += frame.locate(first_block, start)
        digest = StreamToDigest(frame.tape_id, frame.tape_block, length, cat=True)
        segments.append(digest)
        taken.append((start, length))
        at, spent = start + length, spent + length
    if digest is not None:
        digest.cat = False
        yield Check(frame.copy_list(segments, number, pad_disk=True, pad_tape=True), tuple(taken))
