"""A disk as typed verbs: sizes, blocks in and out, in pieces that keep the wire busy."""

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from serverfree.initiator.unit import Unit, is_attention
from serverfree.iscsi.errors import ProtocolError
from serverfree.scsi.capacity import CAPACITY_10_MAXIMUM, Capacity10, Capacity16
from serverfree.scsi.cdb.block import (
    Read10,
    Read16,
    ReadCapacity10,
    ReadCapacity16,
    SynchronizeCache10,
    SynchronizeCache16,
    Write10,
    Write16,
)
from serverfree.scsi.cdb.layout import Cdb
from serverfree.scsi.device import Device, Pending
from serverfree.scsi.errors import CheckCondition, ScsiError
from serverfree.scsi.sense import SenseKey
from serverfree.scsi.vpd import BlockLimits

PIECE = 1 << 20  # bytes per command: beyond it a command gains nothing
DEPTH = 8  # commands under way
_LAST_10 = 0xFFFFFFFF
_BLOCKS_10 = 0xFFFF


@dataclass(frozen=True, slots=True)
class Capacity:
    """How large a disk is; `thin` where it can unmap blocks, which then may read as zeros."""

    blocks: int
    block_length: int
    physical_block_length: int
    thin: bool = False
    reads_zeros: bool = False

    @property
    def size(self) -> int:
        """Bytes."""
        return self.blocks * self.block_length


class Disk(Unit):
    """A block device. LBAs and counts are logical blocks, buffers whole blocks of bytes."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._capacity: Capacity | None = None
        self._piece: int | None = None

    def capacity(self) -> Capacity:
        """READ CAPACITY(16), or (10) of a disk that knows no other. Asked once."""
        if self._capacity is None:
            self._capacity = self._read_capacity()
        return self._capacity

    def _read_capacity(self) -> Capacity:
        length = Capacity16.size()
        try:
            data = Capacity16.unpack(self.fetch(ReadCapacity16(allocation_length=length), length))
        except CheckCondition as error:
            if error.sense.key is not SenseKey.ILLEGAL_REQUEST:
                raise
            small = Capacity10.unpack(self.fetch(ReadCapacity10(), Capacity10.size()))
            if small.last_lba == CAPACITY_10_MAXIMUM:
                raise
            return Capacity(small.last_lba + 1, small.block_length, small.block_length)
        return Capacity(
            data.last_lba + 1,
            data.block_length,
            data.block_length << data.physical_exponent,
            data.thin,
            data.reads_zeros,
        )

    @property
    def piece(self) -> int:
        """Blocks that one command moves, within the disk's own limit (VPD page B0h)."""
        if self._piece is None:
            self._piece = max(1, PIECE // self.capacity().block_length)
            try:
                limit = BlockLimits.unpack(self.vpd(BlockLimits.PAGE_CODE)).maximum_transfer_length
            except (CheckCondition, ValueError):
                limit = 0  # no such page: no limit is known
            if limit:
                self._piece = min(self._piece, limit)
        return self._piece

    def read(self, lba: int, blocks: int) -> bytes:
        """Return the content of some blocks."""
        buffer = bytearray(blocks * self.capacity().block_length)
        self.read_into(lba, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, lba: int, buffer: memoryview) -> None:
        """Fill the buffer, whole blocks, from `lba` on."""
        pieces = (
            (at, buffer[at * self._block : (at + n) * self._block])
            for at, n in self._cut(len(buffer) // self._block)
        )
        self._pipeline(_Transfer(self, lba + at, view, write=False) for at, view in pieces)

    def chunks(self, lba: int, blocks: int) -> Iterator[memoryview]:
        """Yield the content of many blocks in order, reading ahead.

        A chunk is good until the next one is asked for.
        """
        waiting: deque[_Transfer] = deque()
        idle: list[memoryview] = []
        for at, count in self._cut(blocks):
            memory = idle.pop() if idle else memoryview(bytearray(self.piece * self._block))
            waiting.append(_Transfer(self, lba + at, memory[: count * self._block], write=False))
            if len(waiting) == DEPTH:
                yield (done := waiting.popleft()).finish()
                idle.append(done.memory)
        while waiting:
            yield waiting.popleft().finish()

    def write(self, lba: int, data: bytes | bytearray | memoryview, *, fua: bool = False) -> None:
        """Write whole blocks; with `fua` they are on stable storage when it returns."""
        view = memoryview(data).cast("B")
        self._check_whole(len(view))
        pieces = (
            (at, view[at * self._block : (at + n) * self._block])
            for at, n in self._cut(len(view) // self._block)
        )
        self._pipeline(_Transfer(self, lba + at, part, write=True, fua=fua) for at, part in pieces)

    def write_chunks(self, lba: int, chunks: Iterable[memoryview]) -> int:
        """Write buffers of whole blocks one behind the other; return how many blocks.

        A buffer must not change until DEPTH more have been taken.
        """
        written = 0

        def transfers() -> Iterator["_Transfer"]:
            nonlocal written
            for chunk in chunks:
                self._check_whole(len(chunk))
                at, written = written, written + len(chunk) // self._block
                yield _Transfer(self, lba + at, chunk, write=True)

        self._pipeline(transfers())
        return written

    def flush(self) -> None:
        """Put everything written on stable storage (SYNCHRONIZE CACHE)."""
        try:
            self.run(SynchronizeCache10())
        except CheckCondition as error:
            if error.sense.key is not SenseKey.ILLEGAL_REQUEST:
                raise
            self.run(SynchronizeCache16())

    @property
    def _block(self) -> int:
        return self.capacity().block_length

    def _check_whole(self, length: int) -> None:
        if length % self._block:
            raise ValueError(f"{length} bytes are not whole blocks of {self._block}")

    def _cut(self, blocks: int) -> Iterator[tuple[int, int]]:
        piece = self.piece
        for at in range(0, blocks, piece):
            yield at, min(piece, blocks - at)

    @staticmethod
    def _pipeline(transfers: Iterable["_Transfer"]) -> None:
        """Keep DEPTH commands under way; whatever goes wrong, none is left behind."""
        waiting: deque[_Transfer] = deque()
        try:
            for transfer in transfers:
                waiting.append(transfer)
                if len(waiting) == DEPTH:
                    waiting.popleft().finish()
            while waiting:
                waiting.popleft().finish()
        except BaseException:
            # The buffers are the caller's again when this returns; the first error is what counts.
            for transfer in waiting:
                with contextlib.suppress(ScsiError, ProtocolError, ValueError):
                    transfer.finish()
            raise


class _Transfer:
    """One READ or WRITE under way."""

    __slots__ = ("_cdb", "_data_in", "_data_out", "_disk", "_pending", "memory")

    def __init__(
        self, disk: Disk, lba: int, memory: memoryview, *, write: bool, fua: bool = False
    ) -> None:
        if not disk._settled:
            disk.settle()
        self.memory = memory
        blocks = len(memory) // disk.capacity().block_length
        self._disk = disk
        self._cdb = _read_or_write(lba, blocks, write, fua)
        self._data_out = memory if write else b""
        self._data_in = None if write else memory
        self._pending = self._submit()

    def _submit(self) -> Pending:
        return self._disk.device.submit(
            self._cdb.pack(), data_out=self._data_out, data_in=self._data_in
        )

    def finish(self) -> memoryview:
        """Wait for the end and return the memory; raises ScsiError."""
        try:
            result = self._pending.wait().check()
        except ScsiError as error:
            if not is_attention(error):
                error.add_note(str(self._disk.device))
                raise
            result = self._submit().wait().check()
        if self._data_in is not None and result.transferred != len(self.memory):
            raise ValueError(
                f"{self._disk.device}: {result.transferred} of {len(self.memory)} bytes were read"
            )
        return self.memory


def _read_or_write(lba: int, blocks: int, write: bool, fua: bool) -> Cdb:
    if lba + blocks - 1 <= _LAST_10 and blocks <= _BLOCKS_10:
        return Write10(fua=fua, lba=lba, blocks=blocks) if write else Read10(lba=lba, blocks=blocks)
    return Write16(fua=fua, lba=lba, blocks=blocks) if write else Read16(lba=lba, blocks=blocks)
