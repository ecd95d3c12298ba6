"""Runs a copy: reads ahead, writes in order, and never more in memory than its budget.

One thread drives it all: commands are sent without waiting, and waited for in the order sent.
While a write is waited for, the reads that come after it are already under way. Data is not
copied here: what a read has filled is handed to the writes as views of the same buffer.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from serverfree.datamover.buffers import ByteQueue, Chunk, Slabs
from serverfree.datamover.descending import copy_descending, would_overwrite_its_source
from serverfree.datamover.digests import Digests
from serverfree.datamover.direct import DirectCopy, all_of, goes_directly
from serverfree.datamover.endpoints import (
    DISK_DEPTH,
    DISK_WINDOW,
    NO_EDGES,
    DiskRun,
    Edges,
    Run,
    TapeRun,
    check_read,
    finish_write,
    read_now,
)
from serverfree.datamover.errors import CopyAborted
from serverfree.datamover.extents import ExtentCopy
from serverfree.datamover.held import HeldData
from serverfree.datamover.plan import Planner
from serverfree.datamover.steps import Progress, Step, Workshop
from serverfree.datamover.units import Aborted, Issued, Role
from serverfree.scsi.sense import Asc
from serverfree.scsi.status import Status

_LOOK_AHEAD = 64  # segments whose disk reads may be sent before their turn


@dataclass(slots=True)
class _Read:
    step: Step
    run: Run
    offset: int
    chunk: Chunk
    issued: Issued
    size: int  # bytes of the command, which may be one with those of the segments behind

    def finish(self, *, alone: bool) -> None:
        """Wait until it is here; `alone` if no other is under way. Raises CopyAborted, Aborted."""
        view, unit = self.chunk[0], self.run.unit
        result = self.issued.wait(again=alone or not self.run.in_order)
        if (
            self.size > len(view)
            and unit.may_tell_more(result)
            and result.status is not Status.GOOD
        ):
            # Only on its own can a read fail in its own segment, and for its own blocks.
            self.issued, self.size = self.run.read(self.offset, view), len(view)
            result = self.issued.wait()
        check_read(self.run, result, self.size)


@dataclass(slots=True)
class _Write:
    step: Step
    run: Run
    chunks: list[Chunk]
    size: int
    kept: int  # bytes of it that were there before
    issued: Issued


class Engine:
    """One copy from its first segment to its last.

    Disk sources are read ahead, beyond the segment under way where no write before them touches
    the same blocks (SPC-4 6.4.5.3); a tape is read only for the segment under way, when all that
    came before it is written (6.4.5.4).
    """

    def __init__(
        self,
        planner: Planner,
        segments: int,
        slabs: Slabs,
        progress: Progress,
        aborted: Callable[[], bool],
        held: HeldData | None = None,
    ) -> None:
        self._planner = planner
        self._segments = segments
        self._slabs = slabs
        self._progress = progress
        self._aborted = aborted
        self._held = held or HeldData()
        self._source = ByteQueue()
        self._destination = ByteQueue()
        self._digests = Digests(planner.wants_digests, self._destination)
        self._reads: deque[_Read] = deque()
        self._writes: deque[_Write] = deque()
        # The step under way and those planned behind it; `_ahead` is the first of them with
        # something left to read.
        self._steps: deque[Step] = deque()
        self._ahead = 0
        self._planned = 0
        self._unplannable: CopyAborted | None = None
        self._may_read_current = False
        self._failed = False
        self._reading = self._writing = 0  # bytes of the commands under way
        # Units that are a destination of any step so far: what is read elsewhere need not be
        # held against the writes.
        self._written: set[int] = set()

    def run(self) -> None:
        """Process every segment. Raises CopyAborted; no command is under way after that."""
        try:
            number = 0
            while number < self._segments:
                count = self._copy_extents(number)
                if not count:
                    self._begin(number)
                    self._carry_out(self._steps[0])
                    self._steps.popleft()
                    self._ahead = max(0, self._ahead - 1)
                number += count or 1
            self._settle_writes()
        except Aborted:
            step = self._quiesce(count=True) or (self._steps[0] if self._steps else None)
            number = max(0, self._progress.segments_processed - 1) if step is None else step.number
            residual = None if step is None else step.residual
            cleared = CopyAborted(Asc.COMMANDS_CLEARED_BY_DEVICE_SERVER)
            raise cleared.in_segment(number, residual) from None
        except BaseException:
            self._quiesce()
            raise

    # ------------------------------------------------------------------ many segments

    def _copy_extents(self, number: int) -> int:
        """Process the segments from here on that only copy extents; return how many they were."""
        if self._steps or not self._planner.may_be_extents(number):
            return 0
        self._settle_writes()
        self._check_abort()
        extents = self._planner.extents(number)
        if extents is None:
            return 0
        kind = DirectCopy if goes_directly(extents) else ExtentCopy
        kind(extents, self._slabs, self._progress, self._aborted).run()
        self._planned += len(extents.extents)
        return len(extents.extents)

    # ------------------------------------------------------------------ one segment

    def _begin(self, number: int) -> None:
        self._may_read_current = False
        self._progress.segments_processed = number + 1
        if not self._steps and not self._plan_next():
            # What came before has its own errors to report first.
            self._settle_writes()
            assert self._unplannable is not None
            raise self._unplannable

    def _carry_out(self, step: Step) -> None:
        self._check_abort()
        if step.function is not None:
            self._settle_writes()
            try:
                step.function(self._workshop())
            except CopyAborted as error:
                raise error.in_segment(step.number) from None
            return
        if (
            step.source is not None
            and (isinstance(step.source, TapeRun) or self._awaits_a_write(step.source))
        ) or self._would_overtake_a_write(step.destination):
            self._settle_writes()
        if step.apart:
            residual = self._source, self._destination
            self._source, self._destination = ByteQueue(), ByteQueue()
            self._move(step)
            self._source, self._destination = residual
        else:
            if step.destination is not None:
                self._digests.destination = step.destination.unit.attached
            self._move(step)
            self._drop(step)
            if step.digest is not None:
                self._held.add(step.digest.digest())

    def _workshop(self) -> Workshop:
        return Workshop(self._slabs, self._progress, self._held, self._digests, self._check_abort)

    def _move(self, step: Step) -> None:
        edges = self._read_edges(step)
        carried = self._source.length + self._destination.length
        if would_overwrite_its_source(step, carried):
            self._settle_writes()
            copy_descending(step, carried, edges, self._workshop())
            return
        if not (carried or self._digests.wanted) and (extents := all_of(step)) is not None:
            self._settle_writes()
            step.read = step.to_read
            DirectCopy(
                extents, self._slabs, self._progress, self._aborted, counted=step.counted
            ).run()
            return
        self._may_read_current = True
        self._stream(step, edges)

    def _stream(self, step: Step, edges: Edges) -> None:
        """Move data from the front of the source to the front of the destination."""
        move, run = step.move, step.destination
        if step.data is not None:
            self._destination.append((step.data, None))
        self._discard(step, move.discarded)
        left = move.processed
        offset = padding = 0
        while run is not None and offset < step.to_write:
            size = min(run.piece, step.to_write - offset)
            front, back = run.edges(offset, size)
            while self._destination.length < size - front - back:
                if left:
                    left -= self._process(step, left)
                else:
                    padding = move.pad
                    self._destination.append((memoryview(bytes(padding)), None))
            self._write(step, run, offset, size, edges, padding)
            offset += size
        while left:
            left -= self._process(step, left)
        # A range is read whole, though residue was processed before it.
        while step.read < step.to_read or (self._reads and self._reads[0].step is step):
            self._receive(step)

    def _process(self, step: Step, most: int) -> int:
        """Make source data destination data, as much as has come; return how much."""
        if not self._source.length:
            self._receive(step)
        size = min(most, self._source.length)
        for chunk in self._source.take(size):
            if step.holds:
                self._held.add(chunk[0])
            self._destination.append(chunk)
        return size

    def _discard(self, step: Step, left: int) -> None:
        while left:
            if not self._source.length:
                self._receive(step)
            size = min(left, self._source.length)
            taken = self._source.take(size)
            for view, _ in taken:
                if step.digest is not None:
                    step.digest.update(view)
                elif step.holds:
                    self._held.add(view)
            self._slabs.release(taken)
            left -= size

    def _drop(self, step: Step) -> None:
        """What tables 116 and 117 say of the rest."""
        if step.move.inexact:
            self._settle_writes()
            raise CopyAborted(Asc.UNEXPECTED_INEXACT_SEGMENT).in_segment(step.number, step.residual)
        if step.move.drop_source:
            self._slabs.release(self._source.take(self._source.length))
        if step.move.drop_destination:
            self._digests.drop()
            self._slabs.release(self._destination.take(self._destination.length))

    # ------------------------------------------------------------------ reading

    def _receive(self, step: Step) -> None:
        """Wait for the next data of the step's source."""
        self._read_ahead()
        while not self._reads:
            if self._writes:
                # All memory is in writes: the first to end makes room.
                self._complete_write()
            else:
                self._read_ahead(force=True)
        self._check_abort()
        read = self._reads[0]
        try:
            read.finish(alone=len(self._reads) == 1)
            self._read_ended()
        except CopyAborted as error:
            self._read_ended()
            self._failed = True  # a tape stays where it has: nothing more is read
            self._settle_writes()
            raise error.in_segment(step.number, step.residual) from None
        self._source.append(self._trim(read))
        self._read_ahead()

    def _read_ended(self) -> None:
        self._reading -= len(self._reads.popleft().chunk[0])

    def _trim(self, read: _Read) -> Chunk:
        """Let go of what lies beside the bytes that are meant."""
        view, slab = read.chunk
        front, back = read.run.edges(read.offset, len(view))
        if front:
            self._slabs.release([(view[:front], slab)])
        if back:
            self._slabs.release([(view[len(view) - back :], slab)])
        return view[front : len(view) - back], slab

    def _read_ahead(self, *, force: bool = False) -> None:
        """Send as many reads as depth, memory and the standard allow; at least one by `force`.

        Many small ones are sent when half of them have come, so that adjacent ones meet.
        """
        if len(self._reads) > DISK_DEPTH // 2 or self._failed:
            return
        while (step := self._next_to_read()) is not None:
            run = step.source
            assert run is not None
            size = min(run.piece, step.to_read - step.read)
            if self._reads and (
                len(self._reads) >= run.depth or self._reading + size > DISK_WINDOW
            ):
                return
            ahead, offset = self._ahead, step.read
            parts = self._adjacent(step, run, size)
            whole = sum(size for _, size in parts)
            chunk = self._slabs.carve(whole, force=force)
            if chunk is None:
                for part, size in parts:
                    part.read -= size
                self._ahead = ahead
                return
            view, slab = chunk
            issued = run.read(offset, view)
            at = 0
            for part, size in parts:
                assert part.source is not None
                begin = offset if part is step else 0
                piece = view[at : at + size], slab
                self._reads.append(_Read(part, part.source, begin, piece, issued, whole))
                at += size
            self._reading += whole
            force = False

    def _adjacent(self, step: Step, run: Run, size: int) -> list[tuple[Step, int]]:
        """Return the parts of one command: this step's, and of those that go on where it ends.

        What they are about to read counts as read.
        """
        parts = [(step, size)]
        step.read += size
        if not isinstance(run, DiskRun):
            return parts
        room = min(run.piece, DISK_WINDOW - self._reading) - size
        end = run.lba + run.blocks
        while step.read == step.to_read and (behind := self._next_to_read()) is not None:
            source = behind.source
            if (
                not isinstance(source, DiskRun)
                or source.endpoint is not run.endpoint
                or source.lba != end
                or source.length > room
                or len(self._reads) + len(parts) >= run.depth
            ):
                break
            parts.append((behind, source.length))
            behind.read += source.length
            room -= source.length
            end += source.blocks
            step = behind
        return parts

    def _next_to_read(self) -> Step | None:
        while True:
            if self._ahead < len(self._steps):
                step = self._steps[self._ahead]
                if step.read < step.to_read:
                    return step if self._may_read(self._ahead) else None
                self._ahead += 1
            elif self._ahead > _LOOK_AHEAD or not self._plan_next():
                return None

    def _may_read(self, position: int) -> bool:
        if position == 0:
            return self._may_read_current
        source = self._steps[position].source
        if not isinstance(source, DiskRun):
            return False
        if id(source.unit.attached) not in self._written:
            return True
        if self._awaits_a_write(source):
            return False
        # Its own writes count too: a segment onto its own blocks chooses its order in its turn.
        return all(not source.meets(step.destination) for step in islice(self._steps, position + 1))

    def _awaits_a_write(self, source: Run) -> bool:
        """Whether a write under way touches what is to be read."""
        return id(source.unit.attached) in self._written and any(
            source.meets(write.run) for write in self._writes
        )

    def _would_overtake_a_write(self, destination: Run | None) -> bool:
        """Whether a write under way is to blocks that are to be written once more.

        A disk may carry out commands in another order than they came (SAM-5 8.6.2), and the last
        segment's data is what is to stay (6.4.5.3). Writes under way are all to one unit.
        """
        if not self._writes or not isinstance(destination, DiskRun):
            return False
        if self._writes[-1].run.unit is not destination.unit:
            return False
        begin, end = destination.lba, destination.lba + destination.blocks
        return any(
            isinstance(run, DiskRun) and run.lba < end and begin < run.lba + run.blocks
            for run in (write.run for write in self._writes)
        )

    def _plan_next(self) -> bool:
        """Plan one more segment; a failure is kept for when its turn comes."""
        if self._planned == self._segments or self._unplannable is not None:
            return False
        if self._steps and self._steps[-1].settled:
            return False
        if self._planner.may_be_extents(self._planned):
            return False
        try:
            step = self._planner.step(self._planned)
        except CopyAborted as error:
            self._unplannable = error
            return False
        self._steps.append(step)
        if step.destination is not None:
            self._written.add(id(step.destination.unit.attached))
        self._planned += 1
        return True

    # ------------------------------------------------------------------ writing

    def _write(
        self, step: Step, run: Run, offset: int, size: int, edges: Edges, padding: int
    ) -> None:
        if self._writes and self._writes[-1].run.unit is not run.unit:
            # A write that fails must not find later data already on another unit.
            self._settle_writes()
        while self._writes and (
            len(self._writes) >= run.depth or self._writing + size > DISK_WINDOW
        ):
            self._complete_write()
        self._check_abort()
        front, back = run.edges(offset, size)
        chunks = self._destination.take(size - front - back)
        views = edges.around([view for view, _ in chunks], front, back)
        issued = run.write(offset, views, size)
        self._writing += size
        self._writes.append(_Write(step, run, chunks, size, front + back, issued))
        # While the unit is at it.
        given = (view for view, _ in chunks)
        self._digests.put(run.unit.attached, given, padding, step.apart)

    def _complete_write(self) -> None:
        """Wait for the first write under way; reads go on meanwhile."""
        self._read_ahead()
        write = self._writes[0]
        written, failure = finish_write(
            write.run, write.issued, write.size, alone=len(self._writes) == 1
        )
        self._writes.popleft()
        self._writing -= write.size
        self._slabs.release(write.chunks)
        self._count(write, written)
        if failure is not None:
            raise failure.in_segment(write.step.number, write.step.residual)

    def _count(self, write: _Write, written: int) -> None:
        write.step.written += written
        self._progress.bytes_written += max(0, written - write.kept)

    def _settle_writes(self) -> None:
        while self._writes:
            self._complete_write()

    def _read_edges(self, step: Step) -> Edges:
        """Read what must stay beside the bytes that a segment writes, before it writes any."""
        run = step.destination
        if not isinstance(run, DiskRun) or not (run.skip or run.tail):
            return NO_EDGES
        # What was written before lies there too.
        self._settle_writes()
        length = run.endpoint.block_length
        first, last = bytearray(length), bytearray(length)
        try:
            if run.skip:
                read_now(run, 0, memoryview(first), Role.DESTINATION)
            if run.tail:
                read_now(run, run.length - length, memoryview(last), Role.DESTINATION)
        except CopyAborted as error:
            raise error.in_segment(step.number) from None
        return Edges(memoryview(first)[: run.skip], memoryview(last)[length - run.tail :])

    # ------------------------------------------------------------------ the end

    def _check_abort(self) -> None:
        if self._aborted():
            raise Aborted

    def _quiesce(self, *, count: bool = False) -> Step | None:
        """Let every command end: their buffers must not change hands before.

        With `count` what the writes have still written is counted, up to the first that failed;
        return the step of that one.
        """
        failed: Step | None = None
        for read in self._reads:
            read.issued.settle(read.run.unit.give_up)
        for write in self._writes:
            result = write.issued.settle(write.run.unit.give_up)
            if count and failed is None:
                if result is not None and result.status is Status.GOOD:
                    self._count(write, write.size)
                else:
                    failed = write.step
        self._reads.clear()
        self._writes.clear()
        return failed
