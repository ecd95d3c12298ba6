"""The same drive by two ways: its unit called directly, or our initiator over iSCSI."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from serverfree.initiator.session import Session
from serverfree.scsi.device import Device
from serverfree.target.units.command import Nexus, Reply
from support.portal import NAME, serving
from support.tape import MEMORY, Drive, make_drive

WAYS = ("direct", "iscsi")
_READS = (0x08, 0x0F, 0x14, 0x81, 0x88)
_FIXED = 0x01
_ENOUGH = 1 << 16


@dataclass(frozen=True)
class WiredDrive(Drive):
    """A drive whose commands travel; those of other nexuses do not."""

    device: Device

    def __call__(self, cdb: bytes, data: bytes = b"", nexus: Nexus | None = None) -> Reply:
        if nexus is not None:
            return super().__call__(cdb, data, nexus)
        buffer = bytearray(0 if data else _length(cdb))
        data_in = memoryview(buffer) if buffer else None
        result = self.device.submit(cdb, data_out=data, data_in=data_in).wait()
        if result.sense is not None:
            result.sense.raw = b""
        return Reply(bytes(buffer[: result.transferred]), result.status, result.sense)


def _length(cdb: bytes) -> int:
    """How much an initiator makes room for: what READ asks for, or enough."""
    if cdb[0] not in _READS or cdb[1] & _FIXED:
        return _ENOUGH
    return int.from_bytes(cdb[2:5] if cdb[0] < 0x20 else cdb[12:15], "big")


@contextmanager
def driven(way: str, make: Callable[[Path], Drive] = make_drive) -> Iterator[Drive]:
    """Give a drive with a new cartridge, reached in one of the WAYS; both go afterwards."""
    with TemporaryDirectory(dir=MEMORY) as folder:
        drive = make(Path(folder) / "tape")
        try:
            yield from _reached(way, drive)
        finally:
            drive.unit.close()


def _reached(way: str, drive: Drive) -> Iterator[Drive]:
    if way == "direct":
        yield drive
        return
    drive.unit.detach(drive.nexus)
    with serving([drive.unit]) as server:
        portal = server._entrances[0].address
        session = Session(portal.host, portal.port, NAME)
        (nexus,) = drive.unit.attentions.attached()
        drive.unit.attentions.take(nexus)
        try:
            yield WiredDrive(drive.unit, nexus, session.unit(0))
        finally:
            session.close()
