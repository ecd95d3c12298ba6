"""Disks of one target with ROD tokens; parameter lists and responses by hand."""

import os
from dataclasses import dataclass
from pathlib import Path

from serverfree.datamover.manager import CopyManager
from serverfree.datamover.offload import Offload
from serverfree.datamover.rod_tokens import RodTokens, TokenLimits
from serverfree.scsi.sense import Sense
from serverfree.target.backstore.file import open_file_store
from serverfree.target.backstore.snapshot_origin import SnapshotOrigin
from serverfree.target.units.block import BlockUnit
from serverfree.target.units.local_fabric import LocalFabric
from serverfree.target.units.permission import Permission
from serverfree.target.units.rod_medium import RodMedium
from support.copies import noise
from support.disk import OTHER, Host

TARGET = "iqn.2026-11.com.example:t"
SIZE = 256 << 10
DEFAULT, VULNERABLE, PERSISTENT, ANY = 0x00800000, 0x00800001, 0x00800002, 0x0080FFFF
REFERENCE, ZERO = 0x00010000, 0xFFFF0001
POPULATE, WRITE_USING = 0x10, 0x11


def ranges_of(*ranges: tuple[int, int]) -> bytes:
    return b"".join(
        lba.to_bytes(8, "big") + blocks.to_bytes(4, "big") + bytes(4) for lba, blocks in ranges
    )


def populate_list(*ranges, rod_type: int | None = None, inactivity: int = 0, flags: int = 0):
    body = ranges_of(*ranges)
    flags |= 0 if rod_type is None else 2
    return (
        (14 + len(body)).to_bytes(2, "big")
        + bytes([flags, 0])
        + inactivity.to_bytes(4, "big")
        + (rod_type or 0).to_bytes(4, "big")
        + bytes(2)
        + len(body).to_bytes(2, "big")
        + body
    )


def write_list(token: bytes, *ranges, offset: int = 0, flags: int = 0) -> bytes:
    body = ranges_of(*ranges)
    return (
        (534 + len(body)).to_bytes(2, "big")
        + bytes([flags])
        + bytes(5)
        + offset.to_bytes(8, "big")
        + token
        + bytes(6)
        + len(body).to_bytes(2, "big")
        + body
    )


def originate(action: int, identifier: int, length: int) -> bytes:
    """POPULATE TOKEN and WRITE USING TOKEN: list identifier in bytes 6 to 9, length behind."""
    return (
        bytes([0x83, action, 0, 0, 0, 0])
        + identifier.to_bytes(4, "big")
        + length.to_bytes(4, "big")
        + bytes(2)
    )


def information(identifier: int, length: int = 4096) -> bytes:
    return (
        bytes([0x84, 0x07])
        + identifier.to_bytes(4, "big")
        + bytes(4)
        + length.to_bytes(4, "big")
        + bytes(2)
    )


ALL_TOKENS = bytes([0x84, 0x08]) + bytes(8) + (1 << 16).to_bytes(4, "big") + bytes(2)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Disk:
    """A disk with a copy manager, and initiators at it."""

    unit: BlockUnit
    host: Host
    other: Host

    def populate(self, *ranges, identifier: int = 7, **options) -> bytes:
        parameters = populate_list(*ranges, **options)
        self.host.good(originate(POPULATE, identifier, len(parameters)), parameters)
        return self.token(identifier)

    def token(self, identifier: int = 7) -> bytes:
        answer = Information(self.host.good(information(identifier)))
        assert answer.status == 1
        [(number, token)] = answer.tokens
        assert number == 0
        return token

    def refused(self, action: int, parameters: bytes, host: Host | None = None) -> Sense:
        return (host or self.host).sense(originate(action, 9, len(parameters)), parameters)

    def write_using(self, token: bytes, *ranges, identifier: int = 8, host=None, **options):
        parameters = write_list(token, *ranges, **options)
        return (host or self.host)(originate(WRITE_USING, identifier, len(parameters)), parameters)

    def put(self, offset: int, data: bytes) -> None:
        """WRITE(16)."""
        size = self.unit.block_size
        cdb = bytes([0x8A, 0]) + (offset // size).to_bytes(8, "big")
        self.host.good(cdb + (len(data) // size).to_bytes(4, "big") + bytes(2), data)

    @property
    def content(self) -> bytes:
        return self.unit.store.pread(0, self.unit.store.size)


class Information:
    """RECEIVE ROD TOKEN INFORMATION, taken apart by hand (SPC-4 table 256)."""

    def __init__(self, raw: bytes) -> None:
        assert int.from_bytes(raw[:4], "big") == len(raw) - 4
        self.action, self.status = raw[4], raw[5]
        self.completion, sense_field, sense = raw[12], raw[13], raw[14]
        self.units = raw[15]
        self.count = int.from_bytes(raw[16:24], "big")
        self.segments = int.from_bytes(raw[24:26], "big")
        self.sense = raw[32 : 32 + sense]
        at = 32 + sense_field
        length = int.from_bytes(raw[at : at + 4], "big")
        assert at + 4 + length == len(raw)
        body = raw[at + 4 :]
        self.tokens = [
            (int.from_bytes(body[at : at + 2], "big"), body[at + 2 : at + 514])
            for at in range(0, length, 514)
        ]


class San:
    """Disks of one target."""

    def __init__(self, folder: Path, **limits: int) -> None:
        self.folder = folder
        self.clock = Clock()
        self.limits = TokenLimits(**limits)
        self.tokens = RodTokens(TARGET, self.limits, clock=self.clock)
        self.units: list[BlockUnit] = []
        self.permissions: dict = {}

    def disk(
        self,
        name: str,
        *,
        block_size: int = 512,
        keeps: bool = True,
        readonly: bool = False,
        thin: bool = False,
        size: int = 0,
    ) -> Disk:
        path = self.folder / name
        if size:
            path.touch()
            os.truncate(path, size)
        else:
            path.write_bytes(noise(SIZE, len(self.units) + 1))
        store = open_file_store(path, readonly=readonly, thin=thin)
        if keeps:
            store = SnapshotOrigin(store, self.folder / f"{name}.snapshots", source=path)
        unit = BlockUnit(name, store, block_size=block_size, target=TARGET)
        fabric = LocalFabric(
            TARGET,
            lambda: self.units,
            permission=lambda nexus, unit: self.permissions.get((nexus, unit), Permission()),
        )
        offload = Offload(unit.designator, self.tokens, RodMedium(unit))
        unit.copy_manager = CopyManager(fabric, own_unit=unit.designator, offload=offload)
        self.units.append(unit)
        return Disk(unit, Host(unit), Host(unit, OTHER))

    def close(self) -> None:
        self.tokens.close()
        for unit in self.units:
            unit.close()
