"""Copies over model devices, and the sense data that they end with, picked apart by hand."""

import itertools
import random
from collections.abc import Callable, Sequence

import pytest

from serverfree.datamover.errors import UnitUnreachable
from serverfree.datamover.manager import CopyManager
from serverfree.scsi.copy_cscd import (
    BlockParameters,
    IdentificationCscd,
    StreamParameters,
)
from serverfree.scsi.copy_list import CopyList
from serverfree.scsi.copy_segments import (
    Segment,
)
from serverfree.scsi.designator import Designator, DesignatorType
from serverfree.scsi.errors import CheckCondition
from support.fake_devices import (
    FakeDevice,
    FakeTape,
)

NEXUS = "initiator"
MIB = 1 << 20


def named(number: int) -> Designator:
    return Designator(DesignatorType.NAA, bytes([0x30, 0, 0, 0, 0, 0, 0, number]))


class ModelFabric:
    """Devices by the number in their name."""

    def __init__(self, *devices: FakeDevice) -> None:
        self.devices = devices

    def open(self, designator: Designator, nexus: object = None) -> FakeDevice:
        number = designator.identifier[-1] if designator.identifier else len(self.devices)
        if number >= len(self.devices):
            raise UnitUnreachable(str(designator))
        return self.devices[number]


def cscd(number: int, device: FakeDevice, *, pad: bool = False, **changes: int):
    """The descriptor of the device with this number, telling the truth about it."""
    if isinstance(device, FakeTape):
        fixed = changes.get("fixed", bool(device.block_length))
        length = changes.get("block_length", device.block_length if fixed else 0)
        return IdentificationCscd(named(number), StreamParameters(length, bool(fixed), pad), 1)
    length = changes.get("block_length", device.block_length)
    return IdentificationCscd(named(number), BlockParameters(length, pad), 0)


def copy(
    devices: Sequence[FakeDevice],
    segments: Sequence[Segment],
    *,
    pads: Sequence[bool] = (),
    inline: bytes = b"",
    cscds: Sequence[IdentificationCscd] | None = None,
    aborted: Callable[[], bool] = lambda: False,
    manager: CopyManager | None = None,
) -> None:
    if cscds is None:
        cscds = [
            cscd(number, device, pad=pad)
            for number, (device, pad) in enumerate(
                itertools.zip_longest(devices, pads, fillvalue=False)
            )
        ]
    manager = manager or CopyManager(ModelFabric(*devices))
    manager.extended_copy(NEXUS, CopyList(cscds, segments, inline).pack(), aborted)


def aborted_sense(*arguments, **options) -> "SenseBytes":
    with pytest.raises(CheckCondition) as caught:
        copy(*arguments, **options)
    return SenseBytes(caught.value.sense.pack())


class SenseBytes:
    """Fixed format sense data of COPY ABORTED, picked apart by hand (SPC-4 4.5.3, 5.17.7.4)."""

    def __init__(self, raw: bytes) -> None:
        assert raw[2] & 0x0F == 0x0A, f"COPY ABORTED is expected, not {raw.hex(' ')}"
        assert raw[7] == len(raw) - 8
        self.code = int.from_bytes(raw[12:14], "big")
        self.residual = int.from_bytes(raw[3:7], "big") if raw[0] & 0x80 else None
        self.segment = int.from_bytes(raw[10:12], "big")
        source, destination = raw[8], raw[9]
        self.source = raw[source:] if source else b""
        self.destination = raw[destination:] if destination else b""
        self.pointer: tuple[str, int] | None = None
        if raw[15] & 0x80:
            where = "segment" if raw[15] & 0x20 else "list"
            self.pointer = where, int.from_bytes(raw[16:18], "big")


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def forwarded(raw: bytes) -> bytes:
    """What goes along of a CHECK CONDITION: its status byte and its sense data, as they came."""
    return bytes([0x02]) + raw
