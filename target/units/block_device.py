"""What a disk is and keeps: geometry, pages, settings, and the ranges that commands may name."""

import errno
from typing import ClassVar

from serverfree.scsi import mode
from serverfree.scsi.errors import CheckCondition, UnexpectedStatus, illegal_request
from serverfree.scsi.errors import invalid_field_in_parameter_list as invalid_parameter
from serverfree.scsi.inquiry import DeviceType, VersionDescriptor
from serverfree.scsi.sense import Asc, FieldPointer, Sense, SenseKey
from serverfree.scsi.status import Status
from serverfree.scsi.vpd import (
    BlockDeviceCharacteristics,
    BlockLimits,
    ExtendedInquiry,
    LogicalBlockProvisioning,
    ProvisioningType,
)
from serverfree.target.backstore.base import BlockStore, ReadError, StoreError
from serverfree.target.backstore.state import StateFile
from serverfree.target.units.base import Unit
from serverfree.target.units.command import Command

MAXIMUM_TRANSFER = 32 << 20
"""Bytes that one command may move: a bound on what a write holds in memory."""
MAXIMUM_WRITE_SAME = 1 << 30
"""Bytes that one WRITE SAME may fill: a bound on how long it holds up the unit's queue."""
MAXIMUM_UNMAP_DESCRIPTORS = 4095
"""As many as fit a list of 65,535 bytes."""
STEP = 1 << 20
"""Bytes between two looks at whether a long command was aborted."""

_LIMITLESS = 0xFFFFFFFF
_BLOCK_SIZES = (512, 1024, 2048, 4096)


class BlockDevice(Unit):
    """A disk without its commands, which are in block_io and block_provisioning.

    It reads and writes `store` in logical blocks of `block_size` bytes. The store says whether
    it may be written and whether blocks can be unmapped. There is no lock: the store keeps its
    own order, as a disk does that says nothing of the order of what is sent to it at once.
    """

    kind = "disk"
    device_type = DeviceType.DISK
    product = "DISK"
    version_descriptors: ClassVar[tuple[VersionDescriptor, ...]] = (
        VersionDescriptor.SAM_5,
        VersionDescriptor.SPC_4,
        VersionDescriptor.SBC_3,
        VersionDescriptor.ISCSI,
    )

    def __init__(
        self,
        name: str,
        store: BlockStore,
        *,
        block_size: int = 512,
        target: str = "",
        state: StateFile | None = None,
    ) -> None:
        if block_size not in _BLOCK_SIZES:
            raise StoreError(f"disk {name}: block size {block_size}, must be one of {_BLOCK_SIZES}")
        if store.size % block_size:
            raise StoreError(
                f"disk {name}: {store.size} bytes are not whole blocks of {block_size}: choose "
                "another block size, or make the file longer"
            )
        self.store = store
        self.block_size = block_size
        self.shift = block_size.bit_length() - 1
        self.blocks = store.size >> self.shift
        self.maximum_blocks = MAXIMUM_TRANSFER >> self.shift
        self.thin = store.can_discard
        self.write_cache = True
        self.software_write_protect = False
        self.stopped = False
        super().__init__(name, target=target, state=state)

    # What may be done

    def extent(self, lba: int, blocks: int, pointer: FieldPointer) -> tuple[int, int]:
        """Return offset and length in bytes of a range that a command may reach.

        Raises 2/04/02 when the unit is stopped, and 5/21/00 when the range leaves the medium;
        `pointer` says where the LBA came from.
        """
        if lba + blocks > self.blocks:
            raise illegal_request(Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE, pointer)
        if self.stopped:
            self.require_ready()
        return lba << self.shift, blocks << self.shift

    def require_ready(self) -> None:
        """Raise 2/04/02 after START STOP UNIT has stopped the unit."""
        if self.stopped:
            raise CheckCondition(
                Sense(SenseKey.NOT_READY, Asc.LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED)
            )

    @property
    def write_protected(self) -> bool:
        """Whether writes are refused: by the store, or by SWP of the control mode page."""
        return self.store.readonly or self.software_write_protect

    def require_writable(self) -> None:
        """Raise 7/27/00 when writes are refused."""
        if self.write_protected:
            raise CheckCondition(Sense(SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED))

    def keep_on(self, command: Command) -> None:
        """Raise TASK ABORTED once a long command is not wanted any more."""
        if command.aborted:
            raise UnexpectedStatus(Status.TASK_ABORTED)

    def sense_of(self, error: OSError) -> Sense:
        """What a failure of the store is to an initiator."""
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                return Sense(SenseKey.DATA_PROTECT, Asc.SPACE_ALLOCATION_FAILED_WRITE_PROTECT)
            case errno.EROFS | errno.EPERM | errno.EACCES:
                return Sense(SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)
            case _ if isinstance(error, ReadError):
                return Sense(SenseKey.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR)
            case _:
                return Sense(SenseKey.MEDIUM_ERROR, Asc.WRITE_ERROR)

    # What it says of itself

    def vpd_pages(self) -> dict[int, bytes]:
        """Pages 86h, B0h, B1h and B2h besides those of every unit."""
        granularity = max(1, self.store.granularity >> self.shift)
        pages = (
            ExtendedInquiry(volatile_cache=True),
            BlockLimits(
                # "0 blocks" for "the rest of the disk" is an accident that waits to happen.
                write_same_non_zero=True,
                optimal_transfer_length_granularity=granularity,
                maximum_transfer_length=self.maximum_blocks,
                maximum_unmap_lba_count=_LIMITLESS if self.thin else 0,
                maximum_unmap_block_descriptor_count=MAXIMUM_UNMAP_DESCRIPTORS if self.thin else 0,
                optimal_unmap_granularity=granularity if self.thin else 0,
                unmap_granularity_alignment_valid=self.thin,
                maximum_write_same_length=MAXIMUM_WRITE_SAME >> self.shift,
            ),
            BlockDeviceCharacteristics(),
            LogicalBlockProvisioning(
                unmap=self.thin,
                write_same_16=self.thin,
                write_same_10=self.thin,
                reads_zeros=self.thin,
                provisioning_type=ProvisioningType.THIN if self.thin else ProvisioningType.FULL,
            ),
        )
        return super().vpd_pages() | {page.PAGE_CODE: page.pack() for page in pages}

    def mode_medium(self) -> tuple[int, int]:
        """Medium type 0; WP and DPOFUA (SBC-3 6.4.1)."""
        return 0, mode.DPO_FUA | (mode.WRITE_PROTECTED if self.write_protected else 0)

    def mode_block_descriptor(self, *, long_lba: bool) -> bytes:
        """Capacity and block length."""
        if long_lba:
            return mode.LongBlockDescriptor(self.blocks, self.block_size).pack()
        return mode.BlockDescriptor(min(self.blocks, _LIMITLESS), self.block_size).pack()

    def select_block_descriptor(self, descriptor: bytes, offset: int) -> None:
        """Take the present block length with the present capacity or with 0: nothing changes."""
        for layout in (mode.BlockDescriptor, mode.LongBlockDescriptor):
            if len(descriptor) == layout.size():
                asked = layout.unpack(descriptor)
                if asked.block_length != self.block_size:
                    length_width = 3 if layout is mode.BlockDescriptor else 4
                    raise invalid_parameter(offset + len(descriptor) - length_width)
                if asked.blocks not in (0, self.blocks, min(self.blocks, _LIMITLESS)):
                    raise invalid_parameter(offset)
                return
        raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)

    def mode_pages(self) -> tuple[mode.ModePage, ...]:
        """Error recovery, caching (WCE can change), control (SWP can), informational exceptions."""
        recovery = mode.ReadWriteErrorRecovery().pack()
        exceptions = mode.InformationalExceptions(disabled=True).pack()
        return (
            mode.ModePage(recovery, mode.ReadWriteErrorRecovery().pack(), recovery),
            mode.ModePage(
                mode.Caching(self.write_cache).pack(),
                mode.Caching(True).pack(),
                mode.Caching(True).pack(),
            ),
            mode.ModePage(
                mode.Control(
                    unrestricted_reordering=True,
                    software_write_protect=self.software_write_protect,
                ).pack(),
                mode.Control(software_write_protect=True).pack(),
                mode.Control(unrestricted_reordering=True).pack(),
            ),
            mode.ModePage(exceptions, mode.InformationalExceptions().pack(), exceptions),
        )

    def select_mode_page(self, page: bytes) -> None:
        """Take WCE and SWP. The cache is emptied before it is off, or GOOD would have lied."""
        match page[0] & mode.ALL_PAGES:
            case mode.Caching.PAGE_CODE:
                self.write_cache = mode.Caching.unpack(page).write_cache_enabled
                if not self.write_cache:
                    self.store.flush()
            case mode.Control.PAGE_CODE:
                self.software_write_protect = mode.Control.unpack(page).software_write_protect

    # What the transport tells

    def distrust_map(self) -> None:
        """The kernel could not read a window of the store: have copies from now on."""
        self.store.give_up_map()

    def reset(self) -> None:
        """Settings go back to their defaults, the unit is started, and every nexus is told."""
        self.write_cache = True
        self.software_write_protect = False
        self.stopped = False
        super().reset()

    def close(self) -> None:
        """Flush and close the store."""
        self.store.close()
