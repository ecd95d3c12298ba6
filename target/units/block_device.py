"""What a disk is and keeps: geometry, settings, counters, and the ranges that commands may name."""

import errno
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from serverfree.scsi import mode
from serverfree.scsi.designator import Designator
from serverfree.scsi.errors import CheckCondition, UnexpectedStatus, illegal_request
from serverfree.scsi.inquiry import DeviceType, StandardInquiry, VersionDescriptor
from serverfree.scsi.log import LogParameter
from serverfree.scsi.sense import Asc, FieldPointer, Sense, SenseKey
from serverfree.scsi.status import Status
from serverfree.target.backstore.base import BlockStore, ReadError
from serverfree.target.backstore.journal import Journal
from serverfree.target.backstore.state import StateFile
from serverfree.target.units.base import Unit
from serverfree.target.units.block_format import BlockFormat, Geometry
from serverfree.target.units.block_logs import block_log_pages
from serverfree.target.units.block_modes import BlockModes
from serverfree.target.units.block_pages import block_vpd_pages
from serverfree.target.units.command import Command, Nexus
from serverfree.target.units.data_buffer import DataBuffer
from serverfree.target.units.diagnostics import SelfTests
from serverfree.target.units.exclusive import Exclusion
from serverfree.target.units.identity import Clock
from serverfree.target.units.medium_operation import SANITIZE_SECTION, MediumOperation
from serverfree.target.units.orwrite import OrWriteGenerations
from serverfree.target.units.port_groups import PortGroups, port_designators

MAXIMUM_TRANSFER = 32 << 20
"""Bytes that one command may move: a bound on what a write holds in memory."""
MAXIMUM_ATOMIC = 1 << 20
"""Bytes that one WRITE ATOMIC may move: they are written twice, and others wait for them."""
STEP = 1 << 20
"""Bytes between two looks at whether a long command was aborted."""

_DEFECTS = "grown defects"  # section of the state file
_MOST_DEFECTS = 4096


class BlockDevice(Unit):
    """A disk without its commands, which are in the other modules block_*.

    It reads and writes `store` in logical blocks of `block_size` bytes, several of which are a
    physical block of `physical_size`. The store says whether it may be written and whether blocks
    can be unmapped. FORMAT UNIT and SANITIZE overwrite at most `operation_rate` bytes a second, to
    leave the storage to others; 0 is no limit. With a `journal` path beside the store there are
    atomic writes. There is no lock: the store keeps its own order, as a disk does that says nothing
    of the order of what is sent to it at once; only what must be alone in its range goes through
    `exclusion`, and so every change.
    """

    # Slots, not a dictionary: with so many attributes a read would take a sixth longer.
    __slots__ = (
        "_began",
        "_journal",
        "_physical_size",
        "block_size",
        "blocks",
        "clock",
        "data_buffer",
        "defects",
        "ejected",
        "exclusion",
        "format",
        "long_cdbs",
        "maximum_atomic_blocks",
        "maximum_blocks",
        "modes",
        "operation",
        "operation_rate",
        "orwrite_generations",
        "physical_exponent",
        "port_groups",
        "preventing",
        "read_bytes",
        "read_commands",
        "read_errors",
        "reads_windows",
        "removable",
        "self_tests",
        "shift",
        "slow",
        "software_write_protect",
        "stopped",
        "store",
        "thin",
        "verify_bytes",
        "verify_commands",
        "verify_errors",
        "write_bytes",
        "write_cache",
        "write_commands",
        "write_errors",
    )

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
        physical_size: int = 0,
        removable: bool = False,
        long_cdbs: bool = False,
        operation_rate: int = 0,
        target: str = "",
        state: StateFile | None = None,
        journal: Path | None = None,
    ) -> None:
        self.store = store
        self.format = BlockFormat(name, block_size, store.size, state)
        self._physical_size = physical_size
        self._journal = None if journal is None or store.readonly else Journal(journal, store)
        self.modes = BlockModes(block_size, state)
        self._take_geometry()
        self.thin = store.can_discard
        self.slow = store.slow
        self.removable = removable
        self.long_cdbs = long_cdbs
        self.operation_rate = operation_rate
        # What commands change
        self.write_cache = self.software_write_protect = False
        self.stopped = self.ejected = False
        self.preventing: set[Nexus] = set()
        self.defects: list[int] = list((state.get(_DEFECTS) if state else None) or ())
        self.data_buffer = DataBuffer()
        self.clock = Clock()
        self.self_tests = SelfTests()
        self.orwrite_generations = OrWriteGenerations()
        # How changes keep out of each other's way
        self.exclusion = Exclusion()
        self.reads_windows = True
        self.operation = MediumOperation(name, lambda on: self.restrict(self.operation.check, on))
        # What is counted; a count lost to two threads at once is no loss
        self._began = time.monotonic()
        self.reset_logs()
        super().__init__(name, target=target, state=state)
        self.port_groups = PortGroups(
            lambda: self.ports(), lambda on: self.restrict(self.port_groups.check, on)
        )
        self._apply_modes()
        if state is not None and state.get(SANITIZE_SECTION) is not None:
            # The process ended in the middle: part of the medium is as it was (SBC-4 4.11.4).
            self.operation.fail(Asc.SANITIZE_COMMAND_FAILED)
        elif self.format.corrupt:
            self.operation.fail(Asc.MEDIUM_FORMAT_CORRUPTED)

    def _take_geometry(self) -> None:
        """Count in the blocks that the format says."""
        self.block_size = self.format.present.block_size
        self.shift = self.block_size.bit_length() - 1
        self.blocks = self.format.present.blocks(self.store.size)
        self.maximum_blocks = MAXIMUM_TRANSFER >> self.shift
        self.maximum_atomic_blocks = MAXIMUM_ATOMIC >> self.shift if self._journal else 0
        physical = self._physical_size or self.block_size
        self.physical_exponent = max(0, physical.bit_length() - 1 - self.shift)
        self.modes.set_block_size(self.block_size)

    # What may be done

    def extent(self, lba: int, blocks: int, pointer: FieldPointer) -> tuple[int, int]:
        """Return offset and length in bytes of a range that a command may reach.

        Raises 2/04/02 when the unit is stopped, and 5/21/00 when the range leaves the medium;
        `pointer` says where the LBA came from.
        """
        if self.ejected:
            self.require_medium()
        if lba + blocks > self.blocks:
            raise illegal_request(Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE, pointer)
        if self.stopped:
            self.require_ready()
        return lba << self.shift, blocks << self.shift

    def require_medium(self) -> None:
        """Raise 2/3A/00 while the medium is ejected."""
        if self.ejected:
            raise CheckCondition(Sense(SenseKey.NOT_READY, Asc.MEDIUM_NOT_PRESENT))

    def require_ready(self) -> None:
        """Raise 2/3A/00 without a medium, 2/04/02 after START STOP UNIT has stopped the unit."""
        self.require_medium()
        if self.stopped:
            raise CheckCondition(
                Sense(SenseKey.NOT_READY, Asc.LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED)
            )

    def pollable_sense(self) -> Sense:
        """What REQUEST SENSE says while no attention is pending: of a long operation, progress."""
        return self.operation.sense() or super().pollable_sense()

    @property
    def size(self) -> int:
        """Bytes of all its blocks; the store may have more."""
        return self.blocks << self.shift

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
        """What a failure of the store is to an initiator; counted where it is the medium's."""
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                return Sense(SenseKey.DATA_PROTECT, Asc.SPACE_ALLOCATION_FAILED_WRITE_PROTECT)
            case errno.EROFS | errno.EPERM | errno.EACCES:
                return Sense(SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)
        where = getattr(error, "offset", None)
        lba = None if where is None else where >> self.shift
        if isinstance(error, ReadError):
            self.read_errors += 1
            return Sense(SenseKey.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR, information=lba)
        self.write_errors += 1
        return Sense(SenseKey.MEDIUM_ERROR, Asc.WRITE_ERROR, information=lba)

    # What is done to the store

    def read_copy(self, offset: int, length: int) -> bytes:
        """Return bytes as they are at one moment, as far as atomic writes go."""
        if self.reads_windows:
            return self.store.pread(offset, length)
        found: list[bytes] = []
        self.exclusion.change(
            offset, length, lambda at, size: found.append(self.store.pread(at, size)), length
        )
        return found[0]

    def write_atomically(self, offset: int, data: memoryview) -> None:
        """Write all of it or nothing, durably. The range is the caller's alone."""
        assert self._journal is not None, "the row is offered with a journal only"
        self._journal.write(offset, data)

    def look_at_size(self, *, but: Nexus | None = None) -> None:
        """Take in that the storage has grown: every nexus but the asker's is told (2A/09)."""
        if self.store.grow():
            before = self.blocks
            self._take_geometry()
            if self.blocks != before:
                self.raise_attention(Asc.CAPACITY_DATA_HAS_CHANGED, but=but)

    def reassign(self, lba: int) -> None:
        """Give a block good storage and remember that it was bad."""
        offset = lba << self.shift
        zeros = bytes(self.block_size)
        # 1. The block is good ...
        self.exclusion.change(offset, len(zeros), self.store.write, zeros)
        self.store.flush()
        # 2. ... before it is said to be.
        if lba not in self.defects and len(self.defects) < _MOST_DEFECTS:
            self.defects = sorted([*self.defects, lba])
            if self.state is not None:
                self.state.put(_DEFECTS, self.defects)

    def forget_defects(self) -> None:
        """All of the medium has been written anew: so has what was bad."""
        self.defects = []
        if self.state is not None:
            self.state.put(_DEFECTS, None)

    def self_test(self, command: Command, extended: bool) -> None:
        """Read the first and the last block, or all of them, from the medium."""
        self.require_ready()
        self.store.flush()
        size = self.size
        for at in range(0, size, STEP) if extended else (0, size - self.block_size):
            self.keep_on(command)
            self.store.pread(at, min(STEP if extended else self.block_size, size - at))

    # What it says of itself

    def standard_inquiry(self) -> StandardInquiry:
        """RMB, TPGS, and what every unit says."""
        inquiry = super().standard_inquiry()
        inquiry.removable = self.removable
        inquiry.explicit_access_states = True
        return inquiry

    def port_designators(self, nexus: Nexus) -> Sequence[Designator]:
        """Relative target port and target port group: without them no host speaks ALUA."""
        return port_designators(nexus)

    def vpd_pages(self) -> dict[int, bytes]:
        """The pages of every unit, and those of a disk."""
        return super().vpd_pages() | block_vpd_pages(self)

    def log_pages(self) -> dict[int, Sequence[LogParameter]]:
        """The log pages, without page 00h."""
        return block_log_pages(self)

    def reset_logs(self) -> None:
        """Begin to count anew."""
        self.read_commands = self.write_commands = self.verify_commands = 0
        self.read_bytes = self.write_bytes = self.verify_bytes = 0
        self.read_errors = self.write_errors = self.verify_errors = 0

    def minutes_on(self) -> int:
        """Minutes since the unit was made."""
        return int(time.monotonic() - self._began) // 60

    def mode_medium(self) -> tuple[int, int]:
        """Medium type 0; WP and DPOFUA (SBC-3 6.4.1)."""
        return 0, mode.DPO_FUA | (mode.WRITE_PROTECTED if self.write_protected else 0)

    def mode_block_descriptor(self, *, long_lba: bool) -> bytes:
        """Capacity and block length, as MODE SELECT has asked for them last."""
        return self.format.descriptor(self.store.size, long_lba=long_lba)

    def select_block_descriptor(self, descriptor: bytes, offset: int, nexus: Nexus) -> None:
        """Take a number of blocks for now, a block length for the next FORMAT UNIT."""
        wanted = self.format.asked_for(descriptor, offset, self.store.size)
        if wanted not in (self.format.present, self.format.wanted):
            self.require_writable()
        if self.format.want(wanted):
            self._take_geometry()
            self.raise_attention(Asc.CAPACITY_DATA_HAS_CHANGED, but=nexus)

    def formatted(self, geometry: Geometry, nexus: Nexus) -> None:
        """FORMAT UNIT or SANITIZE has written all of the medium: it is as it was asked for."""
        before = self.format.present
        # 1. What it is now is on stable storage, as all the blocks are ...
        self.format.complete(geometry)
        self.forget_defects()
        # 2. ... and only then anybody counts in the new blocks.
        if geometry != before:
            self._take_geometry()
            for asc in (Asc.CAPACITY_DATA_HAS_CHANGED, Asc.INQUIRY_DATA_HAS_CHANGED):
                self.raise_attention(asc, but=nexus)

    def mode_pages(self, nexus: Nexus | None) -> tuple[mode.ModePage, ...]:
        """All pages; of three some bits can change: WCE, SWP and D_SENSE."""
        return tuple(self.modes.pages())

    def select_mode_page(self, page: bytes, nexus: Nexus) -> None:
        """Take a page. The cache is emptied before it is off, or GOOD would have lied."""
        self.modes.select(page)
        self._apply_modes()

    def save_mode_pages(self) -> None:
        """Keep the current values for the next process."""
        self.modes.save()

    def _apply_modes(self) -> None:
        caching, control = self.modes.caching, self.modes.control
        was_cached, self.write_cache = self.write_cache, caching.write_cache_enabled
        self.software_write_protect = control.software_write_protect
        self.descriptor_sense = control.descriptor_sense
        if was_cached and not self.write_cache:
            self.store.flush()

    # What the transport tells

    def detach(self, nexus: Nexus) -> None:
        """A nexus is lost, and with it its wish that the medium stays."""
        self.preventing.discard(nexus)
        super().detach(nexus)

    def distrust_map(self) -> None:
        """The kernel could not read a window of the store: have copies from now on."""
        self.store.give_up_map()

    def reset(self) -> None:
        """Settings go back, the unit is started, the medium may go, and every nexus is told."""
        self.modes.reset()
        self.format.forget_wish()
        self._apply_modes()
        self.stopped = False
        self.preventing.clear()
        super().reset()

    def close(self) -> None:
        """Stop what runs, flush and close the store."""
        self.operation.close()
        if self._journal is not None:
            self._journal.close()
        self.store.close()
