"""What is restored onto: a device that can be written, a disk over iSCSI or a part of one."""

import contextlib
from collections.abc import Iterable
from typing import Protocol

from serverfree.backup.device import Device, DiskDevice
from serverfree.initiator.disk import Disk
from serverfree.scsi.cdb.block import Unmap, WriteSame10, WriteSame16
from serverfree.scsi.errors import CheckCondition
from serverfree.scsi.provisioning import BlockRange, pack_unmap_list
from serverfree.scsi.sense import SenseKey
from serverfree.scsi.vpd import BlockLimits, LogicalBlockProvisioning

_SAME_BLOCKS = 0xFFFF  # per WRITE SAME where the disk tells no limit; (10) counts no further
_DESCRIPTORS = 64  # per UNMAP, where the disk tells no limit


class Target(Device, Protocol):
    """A device to restore onto. Offsets and lengths of changes are whole blocks of it."""

    def write_at(self, offset: int, data: bytes) -> None:
        """Write through the server."""

    def zero(self, offset: int, length: int) -> None:
        """Have zeros written; they do not pass through the server."""

    def flush(self) -> None:
        """Put everything written so far on stable storage."""


class DiskTarget(DiskDevice):
    """A disk over iSCSI. `written` counts what of its content came from this machine."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.written = 0
        self._limits: BlockLimits | None = None

    def write_at(self, offset: int, data: bytes) -> None:
        """See Target."""
        self.disk.write(self._block(offset), data)
        self.written += len(data)

    def zero(self, offset: int, length: int) -> None:
        """See Target: WRITE SAME of a block of zeros, or plain writes to a disk without it."""
        first, blocks = self._block(offset), self._block(length)
        most = self._block_limits().maximum_write_same_length or _SAME_BLOCKS
        while blocks:
            count = min(blocks, most)
            self._zero(first, count)
            first, blocks = first + count, blocks - count

    def _zero(self, first: int, count: int) -> None:
        zeros = bytes(self.block_length)
        for cdb in (WriteSame16(lba=first, blocks=count), WriteSame10(lba=first, blocks=count)):
            if isinstance(cdb, WriteSame10) and (first + count > 1 << 32 or count > _SAME_BLOCKS):
                continue
            try:
                self.disk.run(cdb, data_out=zeros)
            except CheckCondition as error:
                if error.sense.key is not SenseKey.ILLEGAL_REQUEST:
                    raise
            else:
                self.written += len(zeros)
                return
        while count:
            part = min(count, self.disk.piece)
            self.disk.write(first, bytes(part * self.block_length))
            self.written += part * self.block_length
            first, count = first + part, count - part

    def flush(self) -> None:
        """See Target."""
        self.disk.flush()

    @property
    def unmaps_to_zeros(self) -> bool:
        """Whether the disk can unmap blocks, and they read as zeros then (VPD page B2h)."""
        try:
            page = LogicalBlockProvisioning.unpack(
                self.disk.vpd(LogicalBlockProvisioning.PAGE_CODE)
            )
        except (CheckCondition, ValueError):
            return False
        return page.unmap and page.reads_zeros

    def unmap(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Unmap (offset, length) ranges, within the disk's limits."""
        limits = self._block_limits()
        per_range = min(limits.maximum_unmap_lba_count or 0xFFFFFFFF, 0xFFFFFFFF)
        per_command = min(limits.maximum_unmap_block_descriptor_count or _DESCRIPTORS, _DESCRIPTORS)
        batch: list[BlockRange] = []
        total = 0
        for offset, length in ranges:
            first, blocks = self._block(offset), self._block(length)
            while blocks:
                if len(batch) == per_command or total == per_range:
                    self._unmap(batch)
                    batch, total = [], 0
                count = min(blocks, per_range - total)
                batch.append(BlockRange(first, count))
                first, blocks, total = first + count, blocks - count, total + count
        if batch:
            self._unmap(batch)

    def _unmap(self, batch: list[BlockRange]) -> None:
        parameters = pack_unmap_list(batch)
        self.disk.run(Unmap(parameter_list_length=len(parameters)), data_out=parameters)

    def _block_limits(self) -> BlockLimits:
        if self._limits is None:
            self._limits = BlockLimits()
            with contextlib.suppress(CheckCondition, ValueError):  # no such page: no limit known
                self._limits = BlockLimits.unpack(self.disk.vpd(BlockLimits.PAGE_CODE))
        return self._limits

    def _block(self, offset: int) -> int:
        block, rest = divmod(offset, self.block_length)
        if rest:
            raise ValueError(f"{offset} is not a whole number of blocks of {self.block_length}")
        return block


class TargetPart:
    """A range of a target, such as a partition."""

    def __init__(self, target: Target, start: int, size: int) -> None:
        self.target, self.start, self.size = target, start, size
        self.block_length = target.block_length

    def read_at(self, offset: int, length: int) -> bytes:
        """See Device."""
        self._check(offset, length)
        return self.target.read_at(self.start + offset, length)

    def write_at(self, offset: int, data: bytes) -> None:
        """See Target."""
        self._check(offset, len(data))
        self.target.write_at(self.start + offset, data)

    def zero(self, offset: int, length: int) -> None:
        """See Target."""
        self._check(offset, length)
        self.target.zero(self.start + offset, length)

    def flush(self) -> None:
        """See Target."""
        self.target.flush()

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ValueError(f"bytes {offset} to {offset + length} of a part of {self.size}")
