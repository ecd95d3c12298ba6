"""Whole blocks from one disk to another, in batches.

Most copies between disks are lists of such segments, often thousands of small ones, with nothing
left over at the end of any. They need no queue of bytes: the extents of a batch lie one behind the
other in one piece of memory, are read and written by as few commands as their adjacency allows,
and each batch is sent at once. While one is waited for, others are being read and written.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from serverfree.datamover.buffers import Chunk, Slabs
from serverfree.datamover.endpoints import (
    DISK_DEPTH,
    DISK_WINDOW,
    PIECE,
    check_read,
    read_now,
    write_now,
)
from serverfree.datamover.errors import CopyAborted
from serverfree.datamover.steps import Extents, Progress
from serverfree.datamover.units import Aborted, CopyUnit, Role, Volley
from serverfree.scsi.device import Order, Result
from serverfree.scsi.sense import Asc
from serverfree.scsi.status import Status

_BATCH = 64  # extents: enough to share what a batch costs, few enough for two to be under way


@dataclass(slots=True)
class _Command:
    """Blocks that one command moves, for `extents` of a batch."""

    lba: int
    blocks: int
    extents: int = 1


@dataclass(slots=True, eq=False)
class _Batch:
    """Extents on their way. `pieces` has (index of the extent, LBAs at both ends, blocks)."""

    pieces: list[tuple[int, int, int, int]]
    reads: list[_Command]
    writes: list[_Command]
    chunk: Chunk
    volley: Volley

    @property
    def size(self) -> int:
        """Bytes of it."""
        return len(self.chunk[0])


class ExtentCopy:
    """Copies `Extents`; done when `run` returns."""

    def __init__(
        self, extents: Extents, slabs: Slabs, progress: Progress, aborted: Callable[[], bool]
    ) -> None:
        self._first = extents.first
        self._source, self._destination = extents.source, extents.destination
        self._extents = extents.extents
        self._block = extents.source.block_length
        self._slabs = slabs
        self._progress = progress
        self._aborted = aborted
        transfer = min(self._source.transfer_blocks, self._destination.transfer_blocks)
        self._most = min(transfer, max(1, PIECE // self._block))  # blocks in a batch
        self._next = self._skip = 0  # the extent to read next, the blocks of it that are being read
        self._reading: deque[_Batch] = deque()
        self._writing: deque[_Batch] = deque()
        self._done = 0  # blocks written, in order

    def run(self) -> None:
        """Copy them all. Raises CopyAborted; no command is under way after that."""
        try:
            self._reached(0)
            while batch := self._receive():
                self._read_ahead()
                self._write(batch)
            self._finish_writes()
        except Aborted:
            self._count_and_settle()
            cleared = CopyAborted(Asc.COMMANDS_CLEARED_BY_DEVICE_SERVER)
            raise self._in_segment(self._under_way(), cleared) from None
        except BaseException:
            self._settle(self._writing, self._destination.unit)
            raise
        finally:
            self._settle(self._reading, self._source.unit)

    # ------------------------------------------------------------------ reading

    def _read_ahead(self, *, force: bool = False) -> None:
        """Have more batches read, as far as depth and memory allow; at least one by `force`."""
        while self._next < len(self._extents):
            if self._reading and not _room(self._reading, self._most * self._block):
                return
            kept = self._next, self._skip
            pieces, reads, writes, blocks = self._gather()
            chunk = self._slabs.carve(blocks * self._block, force=force)
            if chunk is None:
                self._next, self._skip = kept
                return
            cdb = self._source.read_cdb
            at, view, block = 0, chunk[0], self._block
            orders: list[Order] = []
            for command in reads:
                end = at + command.blocks * block
                orders.append((cdb(command.lba, command.blocks), b"", view[at:end]))
                at = end
            volley = Volley(self._source.unit, orders)
            self._reading.append(_Batch(pieces, reads, writes, chunk, volley))
            force = False

    def _gather(
        self,
    ) -> tuple[list[tuple[int, int, int, int]], list[_Command], list[_Command], int]:
        """Return the next batch: pieces, what to read, what to write, how many blocks."""
        extents, at, skip = self._extents, self._next, self._skip
        room = self._most
        pieces: list[tuple[int, int, int, int]] = []
        reads: list[_Command] = []
        writes: list[_Command] = []
        source_end = destination_end = -1
        while room and at < len(extents) and len(pieces) < _BATCH:
            source, destination, left = extents[at]
            if skip:
                source, destination, left = source + skip, destination + skip, left - skip
            blocks = left if left < room else room
            pieces.append((at, source, destination, blocks))
            if source == source_end:
                reads[-1].blocks += blocks
                reads[-1].extents += 1
            else:
                reads.append(_Command(source, blocks))
            if destination == destination_end:
                writes[-1].blocks += blocks
                writes[-1].extents += 1
            else:
                writes.append(_Command(destination, blocks))
            source_end, destination_end = source + blocks, destination + blocks
            room -= blocks
            if blocks == left:
                at, skip = at + 1, 0
            else:
                skip += blocks
        self._next, self._skip = at, skip
        return pieces, reads, writes, self._most - room

    def _receive(self) -> _Batch | None:
        """Return the next batch when it is here, None behind the last."""
        self._read_ahead()
        while not self._reading:
            if self._next == len(self._extents):
                return None
            if self._writing:
                self._complete_write()  # its memory is what is wanting
            self._read_ahead(force=not self._writing)
        self._check_abort()
        batch = self._reading[0]
        results = batch.volley.wait()
        self._reading.popleft()
        if not _all_well(results, (command.blocks * self._block for command in batch.reads)):
            self._end_where_reading_failed(batch, results)
        return batch

    def _end_where_reading_failed(self, batch: _Batch, results: list[Result | None]) -> None:
        """Write what came before the first extent that cannot be read; raise unless all can."""
        unit = self._source.unit
        number = at = 0
        for command, result in zip(batch.reads, results, strict=True):
            size = command.blocks * self._block
            # Only by itself can an extent fail in its own segment.
            apart = (
                command.extents > 1
                and not _all_well([result], [size])
                and unit.may_tell_more(result)
            )
            for _ in range(command.extents):
                index, lba, _, blocks = batch.pieces[number]
                view = batch.chunk[0][at : at + blocks * self._block]
                run = self._source.run(lba, blocks)
                try:
                    if apart:
                        read_now(run, 0, view, Role.SOURCE)
                    else:
                        check_read(run, result, size)
                except CopyAborted as failure:
                    self._write_first(batch, number)
                    self._finish_writes()
                    raise self._in_segment(index, failure) from None
                number, at = number + 1, at + len(view)

    # ------------------------------------------------------------------ writing

    def _write(self, batch: _Batch) -> None:
        while self._writing and not _room(self._writing, batch.size):
            self._complete_write()
        self._check_abort()
        cdb = self._destination.write_cdb
        at, view, block = 0, batch.chunk[0], self._block
        orders: list[Order] = []
        for command in batch.writes:
            end = at + command.blocks * block
            orders.append((cdb(command.lba, command.blocks), view[at:end], None))
            at = end
        batch.volley = Volley(self._destination.unit, orders)
        self._writing.append(batch)

    def _write_first(self, batch: _Batch, count: int) -> None:
        """Write the first `count` extents of a batch."""
        pieces = batch.pieces[:count]
        if not pieces:
            return
        batch.pieces = pieces
        batch.writes = [_Command(destination, blocks) for _, _, destination, blocks in pieces]
        view, slab = batch.chunk
        batch.chunk = view[: sum(command.blocks for command in batch.writes) * self._block], slab
        self._write(batch)

    def _complete_write(self) -> None:
        batch = self._writing[0]
        results = batch.volley.wait()
        self._writing.popleft()
        if not _all_well(results):
            self._end_where_writing_failed(batch, results)
        self._slabs.release([batch.chunk])
        self._count(batch.size // self._block)
        self._reached(batch.pieces[-1][0])

    def _end_where_writing_failed(self, batch: _Batch, results: list[Result | None]) -> None:
        """Count what came before the first extent that cannot be written; raise unless all can."""
        unit = self._destination.unit
        number = at = 0
        for command, result in zip(batch.writes, results, strict=True):
            well = _all_well([result])
            apart = command.extents > 1 and unit.may_tell_more(result)
            for _ in range(command.extents):
                index, _, lba, blocks = batch.pieces[number]
                view = batch.chunk[0][at : at + blocks * self._block]
                failure = None
                if not well and apart:
                    run = self._destination.run(lba, blocks)
                    _, failure = write_now(run, 0, [view], len(view))
                elif not well:
                    failure = unit.failure(Role.DESTINATION, result)
                if failure is not None:
                    self._count(at // self._block)
                    raise self._in_segment(index, failure)
                number, at = number + 1, at + len(view)

    def _finish_writes(self) -> None:
        while self._writing:
            self._complete_write()

    # ------------------------------------------------------------------ counting

    def _count(self, blocks: int) -> None:
        self._done += blocks
        self._progress.bytes_written += blocks * self._block

    def _reached(self, index: int) -> None:
        self._progress.segments_processed = self._first + index + 1

    def _under_way(self) -> int:
        """The first extent that is not wholly written."""
        left = self._done
        for index, (_, _, blocks) in enumerate(self._extents):
            if blocks > left:
                return index
            left -= blocks
        return len(self._extents) - 1

    def _in_segment(self, index: int, failure: CopyAborted) -> CopyAborted:
        """Name the segment of an extent, and what of it is not written if anything is."""
        self._reached(index)
        written = self._done - sum(blocks for _, _, blocks in self._extents[:index])
        residual = self._extents[index][2] - written if written > 0 else None
        return failure.in_segment(self._first + index, residual)

    # ------------------------------------------------------------------ the end

    def _check_abort(self) -> None:
        if self._aborted():
            raise Aborted

    def _count_and_settle(self) -> None:
        """Let the writes end, and count them up to the first that did not end well."""
        counting = True
        for batch in self._writing:
            results = batch.volley.settle(self._destination.unit.give_up)
            for command, result in zip(batch.writes, results, strict=True):
                counting = counting and result is not None and result.status is Status.GOOD
                if counting:
                    self._count(command.blocks)
        self._writing.clear()

    def _settle(self, batches: deque[_Batch], unit: CopyUnit) -> None:
        """Let every command end: their buffers must not change hands before."""
        for batch in batches:
            batch.volley.settle(unit.give_up)
        batches.clear()


def _room(batches: Iterable[_Batch], size: int) -> bool:
    """Whether `size` more bytes may be under way."""
    under_way = commands = 0
    for batch in batches:
        under_way += batch.size
        commands += len(batch.pieces)
    return under_way + size <= DISK_WINDOW and commands + _BATCH <= DISK_DEPTH


def _all_well(results: Sequence[Result | None], sizes: Iterable[int] | None = None) -> bool:
    """Whether all commands ended well, reads with all that they were to bring."""
    if sizes is None:
        return all(result is not None and result.status is Status.GOOD for result in results)
    return all(
        result is not None and result.status is Status.GOOD and result.transferred == size
        for result, size in zip(results, sizes, strict=True)
    )
