"""What a disk is formatted as, and what the next FORMAT UNIT is to make of it (SBC-4 6.5.2)."""

import logging
from dataclasses import dataclass
from typing import Any

from serverfree.scsi import mode
from serverfree.scsi.errors import illegal_request
from serverfree.scsi.errors import invalid_field_in_parameter_list as invalid_parameter
from serverfree.scsi.sense import Asc
from serverfree.target.backstore.base import StoreError
from serverfree.target.backstore.state import StateFile

log = logging.getLogger(__name__)

BLOCK_SIZES = (512, 1024, 2048, 4096)
SECTION = "format"
_LIMITLESS_SHORT, _LIMITLESS_LONG = (1 << 32) - 1, (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Geometry:
    """Bytes of a block, and how many blocks there are to be; 0: as many as fit."""

    block_size: int
    limit: int = 0

    def blocks(self, size: int) -> int:
        """Return the number of blocks on a medium of so many bytes."""
        fitting = size // self.block_size
        return min(self.limit, fitting) if self.limit else fitting


class BlockFormat:
    """The geometry that holds and the one that MODE SELECT has asked for.

    Another number of blocks holds at once, another block length once FORMAT UNIT has succeeded.
    Both are kept in the state file; without one they cannot change.
    """

    def __init__(self, name: str, block_size: int, size: int, state: StateFile | None) -> None:
        if block_size not in BLOCK_SIZES:
            raise StoreError(f"disk {name}: block size {block_size}, must be one of {BLOCK_SIZES}")
        self._state = state
        self._default = Geometry(block_size)
        kept: dict[str, Any] | None = state.get(SECTION) if state is not None else None
        self.present = self._default
        self.corrupt = False
        """A format operation has begun and not been completed, by this process or before it."""
        if kept is not None:
            self.present = Geometry(kept["block_size"], kept["limit"])
            self.corrupt = bool(kept["under_way"])
            if self.present.block_size != block_size:
                log.warning(
                    "disk %s: an initiator has formatted it with blocks of %d bytes, not %d",
                    name,
                    self.present.block_size,
                    block_size,
                )
        if size % self.present.block_size:
            raise StoreError(
                f"disk {name}: {size} bytes are not whole blocks of {self.present.block_size}: "
                "choose another block size, or make the file longer"
            )
        self.wanted = self.present

    def descriptor(self, size: int, *, long_lba: bool) -> bytes:
        """Return the mode parameter block descriptor, which tells what is wanted (6.5.2.2)."""
        blocks, length = self.wanted.blocks(size), self.wanted.block_size
        if long_lba:
            return mode.LongBlockDescriptor(blocks, length).pack()
        return mode.BlockDescriptor(min(blocks, _LIMITLESS_SHORT), length).pack()

    def asked_for(self, descriptor: bytes, offset: int, size: int) -> Geometry:
        """Return what a block descriptor asks for; it lies `offset` bytes into its list.

        Raises CheckCondition where that cannot be.
        """
        layout: type[mode.BlockDescriptor] | type[mode.LongBlockDescriptor]
        if len(descriptor) == mode.LongBlockDescriptor.size():
            layout, limitless, length_width = mode.LongBlockDescriptor, _LIMITLESS_LONG, 4
        elif len(descriptor) == mode.BlockDescriptor.size():
            layout, limitless, length_width = mode.BlockDescriptor, _LIMITLESS_SHORT, 3
        else:
            raise illegal_request(Asc.PARAMETER_LIST_LENGTH_ERROR)
        asked = layout.unpack(descriptor)
        if descriptor == self.descriptor(size, long_lba=length_width == 4):
            return self.wanted  # as MODE SENSE has told it: the number of blocks is no wish
        if asked.block_length not in BLOCK_SIZES or size % asked.block_length:
            raise invalid_parameter(offset + len(descriptor) - length_width)
        same = asked.block_length == self.present.block_size
        if not same and self._state is None:
            raise invalid_parameter(offset + len(descriptor) - length_width)
        fitting = size // asked.block_length
        if asked.blocks == 0:
            wanted = self.present if same else Geometry(asked.block_length)
        elif asked.blocks in (fitting, limitless):
            wanted = Geometry(asked.block_length)
        elif asked.blocks < fitting:
            wanted = Geometry(asked.block_length, asked.blocks)
        else:
            raise invalid_parameter(offset)
        if self._state is None and wanted != self.present:
            raise invalid_parameter(offset)
        return wanted

    def want(self, geometry: Geometry) -> bool:
        """Take a wish; tell if it holds now and is another geometry than before."""
        changed = geometry.block_size == self.present.block_size and geometry != self.present
        if changed:
            self._keep(geometry)
            self.present = geometry
        self.wanted = geometry
        return changed

    def forget_wish(self) -> None:
        """What FORMAT UNIT has not done is not wanted any more."""
        self.wanted = self.present

    def begin(self) -> None:
        """A format operation begins: from here until its end the medium is neither old nor new."""
        if self._state is not None:
            self._keep(self.present, under_way=True)
        self.corrupt = True

    def complete(self, geometry: Geometry) -> None:
        """All of the medium has been written: it has this geometry now."""
        if self._state is not None:
            self._keep(geometry)
        self.present = self.wanted = geometry
        self.corrupt = False

    def _keep(self, geometry: Geometry, *, under_way: bool = False) -> None:
        assert self._state is not None, "who has nothing to keep it in is refused"
        kept = {
            "block_size": geometry.block_size,
            "limit": geometry.limit,
            "under_way": under_way,
        }
        self._state.put(SECTION, kept if under_way or geometry != self._default else None)
