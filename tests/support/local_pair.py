"""Two disks of one target and a copy manager beside them: copies need not go through memory."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from serverfree.datamover.manager import CopyManager
from serverfree.scsi.copy_cscd import BlockParameters, IdentificationCscd
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_segments import BlockToBlock, Segment
from serverfree.target.backstore.base import BlockStore, Stored
from serverfree.target.backstore.file import open_file_store
from serverfree.target.units.block import BlockUnit
from serverfree.target.units.block_device import BlockDevice
from serverfree.target.units.command import Command, Reply
from serverfree.target.units.controller import CopyController
from serverfree.target.units.local_fabric import LocalFabric
from serverfree.target.units.permission import EVERYTHING, Permission
from support.disk import NEXUS

TARGET = "iqn.2026-11.com.example:storage"
MiB = 1 << 20
BLOCK = 512
SIZE = 4 * MiB
BLOCKS = SIZE // BLOCK
WHOLE = BlockToBlock(0, 1, BLOCKS, 0, 0)

Wrap = Callable[[BlockStore], BlockStore]


def plain(store: BlockStore) -> BlockStore:
    return store


@dataclass
class Pair:
    """Two disks of one target, the first full of random bytes, and a copy manager beside them."""

    folder: Path
    wrap_source: Wrap = plain
    wrap_destination: Wrap = plain
    thin: bool = True
    source_size: int = BLOCK
    permissions: dict[str, Permission] = field(default_factory=dict)
    content: bytes = b""

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.files = [
            open_file_store(self.folder / name, SIZE, thin=self.thin) for name in ("a", "b")
        ]
        self.content = self.content or os.urandom(SIZE)
        self.files[0].write(0, self.content)
        wraps = (self.wrap_source, self.wrap_destination)
        self.source, self.destination = self.units = [
            BlockUnit(name, wrap(file), block_size=size, target=TARGET)
            for name, wrap, file, size in zip(
                "ab", wraps, self.files, (self.source_size, BLOCK), strict=True
            )
        ]
        fabric = LocalFabric(
            TARGET,
            lambda: self.units,
            permission=lambda _, unit: self.permissions.get(unit.name, EVERYTHING),
        )
        self.asked = CopyController("c", CopyManager(fabric), target=TARGET)

    def close(self) -> None:
        for unit in self.units:
            unit.close()

    def command(self, *segments: Segment) -> Command:
        cscds = [
            IdentificationCscd(unit.designator, BlockParameters(unit.block_size), 0)
            for unit in self.units
        ]
        data = CopyList(cscds, segments, list_identifier=1).pack()
        cdb = bytes.fromhex(f"83 00 0000000000000000 {len(data):08x} 00 00")
        return Command(NEXUS, cdb, data, len(data))

    def copy(self, *segments: Segment) -> Reply:
        return self.asked.execute(self.command(*segments))

    def status(self) -> bytes:
        """RECEIVE COPY STATUS(LID1) of the copy."""
        cdb = bytes.fromhex("84 00 01 00000000000000 00000010 00 00")
        return bytes(self.asked.execute(Command(NEXUS, cdb, b"", 16)).data)

    @property
    def copied(self) -> bytes:
        return self.files[1].pread(0, SIZE)


class Telling:
    """A store that does something when a place is read or written."""

    def __init__(self, store: BlockStore, act: Callable[[], None]) -> None:
        self.store, self.act = store, act

    def __getattr__(self, name: str) -> object:
        return getattr(self.store, name)

    def pread(self, offset: int, length: int) -> bytes:
        self._look(offset, length)
        return self.store.pread(offset, length)

    view = pread

    def write(self, offset: int, data: bytes) -> None:
        self._look(offset, len(data))
        self.store.write(offset, data)

    def take(self, offset: int, data: Stored) -> None:
        self._look(offset, data.length)
        self.store.take(offset, data)

    def _look(self, offset: int, length: int) -> None:
        if offset <= 2 * MiB < offset + length:
            self.act()


def refuse_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes through memory fails."""

    def refuse(*_: object) -> None:
        raise AssertionError("data was read into memory")

    monkeypatch.setattr(BlockDevice, "read_copy", refuse)
